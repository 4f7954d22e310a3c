//! Guards the shape of the source: a file names only what stands in files listed before it, unsafe code
//! stands in the files that may, files and functions stay readable, and nothing unfinished is left.
#![allow(missing_docs)]

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
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

/// Where the source of the crates lies.
const CRATES: [&str; 2] = ["src", "macros/src"];

/// Lines of code, without comments and blank lines: of a file, of a function, and of nine in ten functions.
const FILE_MAX: usize = 400;
const FUNCTION_MAX: usize = 50;
const NINE_IN_TEN_MAX: usize = 20;
/// Lines of a file, prose and all.
const LINES_MAX: usize = 600;

/// The operations of a store: modules that stand behind the one that lists them.
const OPERATIONS: [&str; 11] = [
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

/// The modules of a crate in reading order: as its `lib.rs` lists them, each module's children behind it; but
/// a store is made of most of its children, and only the operations on it stand behind.
fn reading_order(source: &str) -> Vec<String> {
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
        let is_behind =
            |child: &&String| name != "engine::store" || OPERATIONS.contains(&child.as_str());
        let path = |child: &String| format!("{name}::{child}");
        let (last, first): (Vec<_>, Vec<_>) = children.iter().partition(is_behind);
        first.into_iter().for_each(|child| add(file_of, &path(child), order));
        order.push(name.to_string());
        last.into_iter().for_each(|child| add(file_of, &path(child), order));
    }
    let file_of = |name: &str| {
        let path = name.replace("::", "/");
        let candidates = [format!("{source}/{path}.rs"), format!("{source}/{path}/mod.rs")];
        candidates.into_iter().find(|file| root().join(file).exists())
    };
    let mut order = Vec::new();
    modules(&format!("{source}/lib.rs")).iter().for_each(|name| add(&file_of, name, &mut order));
    order
}

fn module_of(source: &str, file: &str) -> String {
    let path = file.strip_prefix(source).unwrap().strip_prefix('/').unwrap();
    let path = path.strip_suffix(".rs").unwrap();
    path.strip_suffix("/mod").unwrap_or(path).replace('/', "::")
}

/// The code of a file, without its comments and what its strings say: as long as it, line by line.
fn code_of(text: &str) -> String {
    let blank = |text: &str| text.replace(|c| c != '\n', " ");
    let (mut code, mut rest) = (String::new(), text);
    while let Some(first) = rest.chars().next() {
        let quote_of = |raw: &str| raw.bytes().take_while(|byte| *byte == b'#').count();
        let is_word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(raw) = rest.strip_prefix('r').filter(|raw| {
            !is_word && (raw.starts_with('"') || raw.trim_start_matches('#').starts_with('"'))
        }) {
            let end = format!("\"{}", "#".repeat(quote_of(raw)));
            let start = 1 + end.len();
            start + rest[start..].find(&end).unwrap() + end.len()
        } else if first == '"' {
            let mut is_escaped = false;
            let ends = |c: char| {
                let is_end = c == '"' && !is_escaped;
                is_escaped = c == '\\' && !is_escaped;
                is_end
            };
            rest[1..].find(ends).unwrap() + 2
        } else if first == '\'' {
            // A lifetime has no end.
            let inner = if rest[1..].starts_with('\\') { 2 } else { 1 };
            let after = rest[inner..].chars().next().unwrap().len_utf8() + inner;
            let end = rest[after..].find('\'').filter(|at| *at == 0 || inner == 2);
            end.map_or(1, |at| after + at + 1)
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.push_str(&blank(&rest[..len]));
        rest = &rest[len..];
    }
    code
}

/// Where what opens at the start of `code` is closed, or a `;` ends what is before it.
fn end_of_item(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' => depth -= 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// The code that is not for tests alone.
fn shipped(code: &str) -> String {
    let (mut shipped, mut rest) = (String::new(), code);
    while let Some(at) =
        ["#[cfg(test)]", "#[cfg(all(test"].iter().filter_map(|c| rest.find(c)).min()
    {
        shipped.push_str(&rest[..at]);
        rest = &rest[at + rest[at..].find('\n').unwrap_or(0)..];
        rest = &rest[end_of_item(rest)..];
    }
    shipped + rest
}

/// The paths that code names, in a `use` or in its midst, with `self`, `super` and braces resolved.
fn paths(module: &str, code: &str) -> Vec<String> {
    fn add(base: &str, tree: &str, found: &mut Vec<String>) {
        match tree.split_once('{') {
            None => found.push(format!("{base}{tree}")),
            Some((start, names)) => {
                let (mut depth, mut from) = (0_usize, 0);
                let names = format!("{},", &names[..names.rfind('}').unwrap()]);
                for (at, c) in names.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            let name = names[from..at].trim();
                            if !name.is_empty() {
                                add(&format!("{base}{start}"), name, found);
                            }
                            from = at + 1;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    let mut found = Vec::new();
    let begins = |at: usize| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_:$".contains(c))
    };
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start).filter(|(at, _)| begins(*at)) {
            let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            let rest = &code[at..];
            let mut end = rest.find(|c| !is_path(c)).unwrap_or(rest.len());
            if rest[..end].ends_with("::") && rest[end..].starts_with('{') {
                end += end_of_item(&rest[end..]);
            }
            let (mut base, mut tree) = (module.to_string(), &rest[..end]);
            if let Some(inner) = tree.strip_prefix("crate::") {
                (base, tree) = (String::new(), inner);
            }
            while let Some(inner) = tree.strip_prefix("super::") {
                base = base.rsplit_once("::").map_or("", |(parent, _)| parent).to_string();
                tree = inner;
            }
            tree = tree.strip_prefix("self::").unwrap_or(tree);
            let base = if base.is_empty() { base } else { base + "::" };
            add(&base, tree, &mut found);
        }
    }
    found
}

/// What stands in a file and names what stands behind it.
fn named_too_early(source: &str) -> Vec<String> {
    let order = reading_order(source);
    let place: HashMap<_, _> = order.iter().enumerate().map(|(at, name)| (&**name, at)).collect();
    let mut early = Vec::new();
    for (file, text) in files(source) {
        let module = module_of(source, &file);
        if module == "lib" || module.contains("tests") {
            continue;
        }
        let own = place[&*module];
        for path in paths(&module, &shipped(&code_of(&text))) {
            // The longest prefix that is a module.
            let parts: Vec<&str> = path.split("::").collect();
            let prefixes = (1..=parts.len()).rev().map(|len| parts[..len].join("::"));
            let Some(target) = prefixes.filter_map(|name| place.get(&*name)).next() else {
                continue; // One of the crate's public names, from the front door.
            };
            let is_own_child = order[*target].starts_with(&format!("{module}::"));
            if *target > own && !is_own_child {
                early.push(format!("{file}: {path}"));
            }
        }
    }
    early
}

/// How many lines have code.
fn lines_of(code: &str) -> usize {
    code.lines().filter(|line| !line.trim().is_empty()).count()
}

/// The functions of code that have a body: the line each begins in, and how many it has.
fn functions(code: &str) -> Vec<(usize, usize)> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let body_of = |at: usize| -> Option<Range<usize>> {
        let is_alone = !code[..at].ends_with(is_name) && code[at + 3..].starts_with(is_name);
        is_alone.then_some(())?;
        let end = end_of_item(&code[at..]);
        code[..at + end].ends_with('}').then_some(at..at + end)
    };
    let lines =
        |body: Range<usize>| (code[..body.start].matches('\n').count() + 1, lines_of(&code[body]));
    code.match_indices("fn ").filter_map(|(at, _)| body_of(at)).map(lines).collect()
}

#[test]
fn a_file_names_only_what_stands_before_it() {
    for source in CRATES {
        assert_eq!(named_too_early(source), [""; 0], "what these name stands behind them");
    }
}

#[test]
fn unsafe_code_stands_where_it_may() {
    for (file, text) in CRATES.into_iter().flat_map(files) {
        let code = code_of(&text);
        let has_unsafe = code.contains("unsafe {") || code.contains("unsafe impl");
        assert_eq!(has_unsafe, UNSAFE.contains(&&*file), "{file}");
    }
}

#[test]
fn files_and_functions_stay_readable() {
    let mut lengths = Vec::new();
    for (file, text) in CRATES.into_iter().flat_map(files) {
        let is_test = file.contains("tests") || file.contains("proof");
        let (code, times) = (code_of(&text), if is_test { 2 } else { 1 });
        let length = lines_of(&code);
        assert!(length <= times * FILE_MAX, "{file} is too long: {length} lines of code");
        let length = text.lines().count();
        assert!(length <= times * LINES_MAX, "{file} is too long: {length} lines");
        let is_front_door = file.ends_with("src/lib.rs");
        assert!(text.starts_with("//!") || is_front_door, "{file} does not say what it is");
        for (line, length) in functions(&code) {
            let max = if is_test { 2 * FUNCTION_MAX } else { FUNCTION_MAX };
            assert!(length <= max, "{file}:{line} is too long: {length} lines");
            lengths.extend((!is_test).then_some(length));
        }
    }
    lengths.sort_unstable();
    assert!(
        lengths[lengths.len() * 9 / 10] <= NINE_IN_TEN_MAX,
        "the longest tenth of all functions is too long"
    );
}

#[test]
fn the_source_is_read_as_it_is_meant() {
    let text = "fn one() { // {\n '{'; \"fn two() {\\\"\"; }\nasync fn three<'a>(x: &'a str)\n-> [u8; 2]\n{ r#\"}\"#;\n}
#[cfg(test)]\nuse crate::d;\ntrait T { fn four(); }\nuse crate::a::{b, c::{self, D}};\nlet _ = super::e::f(self::g);";
    let code = code_of(text);
    assert_eq!(code.len(), text.len());
    assert_eq!(functions(&code), [(1, 2), (3, 4)]);
    let named = paths("m::n", &shipped(&code));
    assert_eq!(named, ["a::b", "a::c::self", "a::c::D", "m::e::f", "m::n::g"]);
}

#[test]
fn nothing_unfinished_is_left() {
    let folders = ["src", "macros/src", "tests", "benches", "examples"];
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
