//! Guards the shape of the source: a file imports only from files listed before it, unsafe code stands
//! in the files that may, files and functions stay readable, and no debris is left.
#![allow(missing_docs)]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The files that may contain unsafe blocks, and why no other can do it for them.
const UNSAFE: [&str; 6] = [
    "src/engine/os/biased.rs", // Takes a value from a thread that uses it without a lock.
    "src/engine/os/claims.rs", // Locks a byte of a file.
    "src/engine/os/fork.rs",   // Registers the hook that tells a forked child.
    "src/engine/os/map.rs",    // The mapped file.
    "src/engine/os/program/dyld.rs", // Reads the header of a loaded object, on macOS.
    "src/memo/value/cached/mod.rs", // Archived bytes seen as a type.
];

const LINES_MAX: usize = 500;
const FUNCTION_MAX: usize = 70;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(below: &str) -> Vec<(String, String)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                walk(&entry, found);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                found.push(entry);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(below), &mut found);
    found.sort();
    let name = |path: &Path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_string();
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// The modules in reading order: as `lib.rs` lists them, each module's children behind it; but a store
/// is made of most of its children, and only the operations on it stand behind.
fn reading_order() -> Vec<String> {
    fn modules(file: &str) -> Vec<String> {
        let text = fs::read_to_string(root().join(file)).unwrap_or_default();
        let words = |line: &str| {
            let line = line.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
            let line = line.strip_prefix("mod ")?;
            line.strip_suffix(';').map(String::from)
        };
        text.lines().filter_map(words).filter(|name| name != "tests").collect()
    }
    fn add(file_of: &dyn Fn(&str) -> Option<String>, name: &str, order: &mut Vec<String>) {
        let children = file_of(name).map(|file| modules(&file)).unwrap_or_default();
        let behind = [
            "election",
            "find",
            "writer",
            "put",
            "write",
            "flush",
            "async_ops",
            "compact",
            "stats",
            "suspects",
            "verify",
        ];
        let is_behind =
            |child: &&String| name != "engine::store" || behind.contains(&child.as_str());
        let path = |child: &String| format!("{name}::{child}");
        let (last, first): (Vec<_>, Vec<_>) = children.iter().partition(is_behind);
        first.into_iter().for_each(|child| add(file_of, &path(child), order));
        order.push(name.to_string());
        last.into_iter().for_each(|child| add(file_of, &path(child), order));
    }
    let file_of = |name: &str| {
        let path = name.replace("::", "/");
        let candidates = [format!("src/{path}.rs"), format!("src/{path}/mod.rs")];
        candidates.into_iter().find(|file| root().join(file).exists())
    };
    let mut order = Vec::new();
    modules("src/lib.rs").iter().for_each(|name| add(&file_of, name, &mut order));
    order
}

fn module_of(file: &str) -> String {
    let path = file.strip_prefix("src/").unwrap().strip_suffix(".rs").unwrap();
    path.strip_suffix("/mod").unwrap_or(path).replace('/', "::")
}

/// The modules that a file imports, with `super` and braces resolved.
fn imports(module: &str, text: &str) -> Vec<String> {
    let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
    let mut found = Vec::new();
    let code = text.split("#[cfg(test)]").next().unwrap();
    for item in code.split(';') {
        // A `use` may have several lines; what stands before it in the item is attributes and docs.
        let Some(start) = item.rfind("\nuse ").or_else(|| item.rfind("\npub use ")) else {
            continue;
        };
        let words = item[start..].split_whitespace().collect::<Vec<_>>().join(" ");
        let path = words.trim_start_matches("pub ").trim_start_matches("use ");
        let path = path.replace("{ ", "{").replace(", }", "}").replace(" }", "}");
        let path = match path.strip_prefix("crate::") {
            Some(path) => path.to_string(),
            None => match path.strip_prefix("super::") {
                Some(path) => format!("{parent}::{path}"),
                None => continue,
            },
        };
        match path.split_once('{') {
            Some((start, names)) => {
                let names = names.trim_end_matches('}').split(", ");
                found.extend(names.map(|name| format!("{start}{name}")));
            }
            None => found.push(path),
        }
    }
    found
}

#[test]
fn a_file_imports_only_from_files_before_it() {
    let order = reading_order();
    let place: HashMap<_, _> = order.iter().enumerate().map(|(at, name)| (&**name, at)).collect();
    for (file, text) in files("src") {
        let module = module_of(&file);
        if module == "lib" || module.contains("tests") {
            continue;
        }
        let own = place[&*module];
        for import in imports(&module, &text) {
            // The longest prefix that is a module.
            let parts: Vec<&str> = import.split("::").collect();
            let prefixes = (1..=parts.len()).rev().map(|len| parts[..len].join("::"));
            let Some(target) = prefixes.filter_map(|name| place.get(&*name)).next() else {
                continue; // One of the crate's public names, from the front door.
            };
            let is_own_child = order[*target].starts_with(&format!("{module}::"));
            assert!(
                *target < own || is_own_child,
                "{file} imports {import}, which stands behind it"
            );
        }
    }
}

#[test]
fn unsafe_code_stands_where_it_may() {
    for (file, text) in files("src") {
        let has_unsafe = text.lines().any(|line| {
            let code = line.split("//").next().unwrap();
            code.contains("unsafe {") || code.contains("unsafe impl")
        });
        assert_eq!(has_unsafe, UNSAFE.contains(&&*file), "{file}");
    }
}

#[test]
fn files_and_functions_stay_readable() {
    for (file, text) in files("src") {
        let max = if file.contains("tests") { 2 * LINES_MAX } else { LINES_MAX };
        assert!(text.lines().count() <= max, "{file} is too long");
        assert!(text.starts_with("//!") || file == "src/lib.rs", "{file} does not say what it is");
        let mut start = None;
        for (number, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let code = line.trim_start();
            let opens = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "const fn "];
            if opens.iter().any(|open| code.starts_with(open)) && start.is_none() {
                start = Some((number, indent));
            }
            if let Some((first, depth)) = start
                && line.len() - 1.min(line.len()) == indent
                && code == "}"
                && indent == depth
            {
                assert!(number - first <= FUNCTION_MAX, "{file}:{} is too long", first + 1);
                start = None;
            }
        }
    }
}

#[test]
fn no_debris() {
    let folders = ["src", "tests", "benches", "examples"];
    for (file, text) in folders.into_iter().filter(|f| root().join(f).exists()).flat_map(files) {
        let banned =
            ["TO\u{44}O", "FIX\u{4d}E", "XX\u{58}", "todo\u{21}", "dbg\u{21}(", "#[ign\u{6f}re"];
        for (number, line) in text.lines().enumerate() {
            let place = format!("{file}:{}", number + 1);
            assert!(banned.iter().all(|word| !line.contains(word)), "{place}: {line}");
            assert!(line.chars().count() <= 120, "{place} is too long");
            assert!(!line.ends_with(' ') && !line.contains('\t'), "{place}: white space");
        }
    }
}
