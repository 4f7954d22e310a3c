//! Guards the public documentation: what a user can name has an example that runs, and what he can call says its
//! cost.
#![allow(missing_docs)]

use std::fs;
use std::path::PathBuf;

fn read(file: &str) -> Option<String> {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file)).ok()
}

/// Each line of code with the documentation above it, attributes left out. What macros write is seen as it
/// stands in the macro. Tests at a file's end are not seen.
fn documented(text: &str) -> Vec<(String, String)> {
    let (mut found, mut doc, mut is_attribute) = (Vec::new(), String::new(), false);
    for line in text.split("#[cfg(test)]\nmod tests {").next().unwrap().lines().map(str::trim) {
        if line.starts_with("///") || line.starts_with("#[doc") {
            doc += line;
            doc.push('\n');
            continue;
        }
        is_attribute |= line.starts_with("#[");
        if is_attribute {
            is_attribute = !line.ends_with(']');
        } else {
            found.push((line.to_owned(), std::mem::take(&mut doc)));
        }
    }
    found
}

/// What the front door gives: the names of items and the file of each, and the documentation of what is
/// documented there.
fn front_door() -> Vec<(String, Option<String>, String)> {
    let text = read("src/lib.rs").unwrap();
    let mut found = Vec::new();
    for (line, doc) in documented(text.split("mod __private").next().unwrap()) {
        let Some(path) = line.strip_prefix("pub use ").and_then(|path| path.strip_suffix(';'))
        else {
            continue;
        };
        let Some((module, names)) = path.rsplit_once("::") else { continue };
        let (module, names) = path.split_once("::{").unwrap_or((module, names));
        if doc == "#[doc(hidden)]\n" {
            continue;
        }
        let path = module.replace("::", "/");
        let files = [format!("src/{path}.rs"), format!("src/{path}/mod.rs")];
        let file = files.into_iter().find(|file| read(file).is_some());
        let names = names.trim_end_matches('}').split(", ");
        found.extend(names.map(|name| (name.to_owned(), file.clone(), doc.clone())));
    }
    found
}

/// Whether a line begins an item of this name.
fn declares(line: &str, name: &str) -> bool {
    let kinds = ["struct", "enum", "trait", "fn", "type"];
    kinds.iter().any(|kind| {
        let rest = line.strip_prefix("pub ").and_then(|rest| rest.strip_prefix(kind));
        let rest = rest.and_then(|rest| rest.trim_start().strip_prefix(name));
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c == '_' || c.is_alphanumeric()))
    })
}

fn is_public_function(line: &str) -> bool {
    let starts = ["pub fn ", "pub const fn ", "pub async fn ", "pub unsafe fn "];
    starts.iter().any(|start| line.starts_with(start))
}

#[test]
fn public_items_have_examples() {
    for (name, file, doc) in front_door() {
        let Some(file) = file else {
            // A macro, documented at the door.
            assert!(doc.contains("```") || doc.contains("include_str!"), "{name} has no example");
            continue;
        };
        let text = read(&file).unwrap();
        let of_item = documented(&text).into_iter().find(|(line, _)| declares(line, &name));
        let (_, doc) = of_item.unwrap_or_else(|| panic!("{file} has no {name}"));
        assert!(doc.contains("```"), "{name} in {file} has no example");
    }
}

#[test]
fn public_functions_have_examples_and_say_their_cost() {
    let mut files: Vec<String> = front_door().into_iter().filter_map(|(_, file, _)| file).collect();
    // What a cache can do stands in many files.
    files.extend(["memoize", "open"].map(|name| format!("src/cache/{name}.rs")));
    files.sort();
    files.dedup();
    let mut count = 0;
    for file in files {
        for (line, doc) in documented(&read(&file).unwrap()) {
            if is_public_function(&line) {
                assert!(doc.contains("```"), "no example in {file}: {line}");
                assert!(doc.contains("# Cost"), "no cost in {file}: {line}");
                count += 1;
            }
        }
    }
    assert!(count > 60, "of {count} functions");
}
