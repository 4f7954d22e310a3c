//! The documents name what there is: a test that guards a promise, a function that keeps it.
#![allow(missing_docs)]

use std::fs;
use std::path::Path;

/// All Rust source below a folder.
fn source(below: &Path) -> String {
    let entries = fs::read_dir(below).unwrap().map(|entry| entry.unwrap().path());
    let text =
        entries.map(|path| match path.extension().is_some_and(|extension| extension == "rs") {
            true => fs::read_to_string(path).unwrap(),
            false if path.is_dir() => source(&path),
            false => String::new(),
        });
    text.collect()
}

/// A long name with underscores is a function's, mostly a test's.
#[test]
fn every_function_that_a_document_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = source(&root.join("src")) + &source(&root.join("tests"));
    for name in ["architecture.md", "format.md", "reliability.md"] {
        let document = fs::read_to_string(root.join("docs").join(name)).unwrap();
        let words = document.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let long = |word: &&str| word.matches('_').count() >= 3 && **word == word.to_lowercase();
        for word in words.filter(long) {
            assert!(source.contains(&format!("fn {word}(")), "{name} names {word}");
        }
    }
}

/// The files that a document names by a path from a wing of the source or from a folder of tests.
#[test]
fn every_file_that_a_document_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["architecture.md", "format.md", "reliability.md"] {
        let document = fs::read_to_string(root.join("docs").join(name)).unwrap();
        let is_of_path = |c: char| c.is_ascii_alphanumeric() || "_/.".contains(c);
        let paths = document.split(|c| !is_of_path(c)).filter(|path| path.ends_with(".rs"));
        for path in paths.filter(|path| path.contains('/')) {
            let places = [root.join(path), root.join("src").join(path)];
            let is_there = places.iter().any(|place| place.exists());
            assert!(is_there, "{name} names {path}");
        }
    }
}
