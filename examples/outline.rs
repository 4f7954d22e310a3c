//! Counts what is in the Rust files below a directory: lines, functions, types, unsafe blocks. Parsing
//! is memoised by the contents of the files, so the second run only reads them.
//!
//! ```text
//! cargo run --release --example outline -- DIR
//! ```
//!
//! Without `DIR` it looks at this crate's own source; a large tree is `~/.cargo/registry/src`.

use indicatif::{ParallelProgressIterator as _, ProgressStyle};
use persist_cache::rkyv::{Archive, Deserialize, Serialize};
use persist_cache::{Cached, MmapCache, Schema};
use rayon::prelude::*;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;
use syn::visit::{self, Visit};

/// What is in a file.
#[derive(Archive, Serialize, Deserialize, Schema, Default)]
#[rkyv(crate = persist_cache::rkyv)]
struct Outline {
    lines: u64,
    functions: u64,
    types: u64,
    unsafe_blocks: u64,
}

impl Outline {
    /// Parses a file; that it is no Rust is a result too, and worth remembering.
    fn of(source: &str) -> Result<Outline, String> {
        let mut outline = Outline { lines: source.lines().count() as u64, ..Outline::default() };
        let file = syn::parse_file(source).map_err(|error| error.to_string())?;
        outline.visit_file(&file);
        Ok(outline)
    }
}

impl<'ast> Visit<'ast> for Outline {
    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.functions += 1;
        visit::visit_signature(self, signature);
    }
    fn visit_item(&mut self, item: &'ast syn::Item) {
        use syn::Item::{Enum, Struct, Trait, Type, Union};
        self.types +=
            u64::from(matches!(item, Enum(_) | Struct(_) | Trait(_) | Type(_) | Union(_)));
        visit::visit_item(self, item);
    }
    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.unsafe_blocks += 1;
        visit::visit_expr_unsafe(self, block);
    }
}

/// The Rust files below a directory.
fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            rust_files(&path, found)?;
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let directory = std::env::args_os().nth(1).unwrap_or_else(|| own.into());
    let mut files = Vec::new();
    rust_files(Path::new(&directory), &mut files)?;
    files.sort();

    let cache = MmapCache::open("outline")?;
    let outline = cache.memoize_as("outline 1", |source: &str| Outline::of(source)).with_schema();

    let start = Instant::now();
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} files, {eta} to go")?;
    let outlines: Vec<Option<Cached<Result<Outline, String>>>> = files
        .par_iter()
        .progress_with_style(style)
        .map(|file| Some(outline.call(&std::fs::read_to_string(file).ok()?)))
        .collect();
    let elapsed = start.elapsed();

    let mut total = Outline::default();
    let (mut unparsed, mut unread) = (0, 0);
    println!("{:>8} {:>9} {:>6} {:>6}  file", "lines", "functions", "types", "unsafe");
    for (file, outline) in files.iter().zip(&outlines) {
        let file = file.strip_prefix(&directory).unwrap_or(file).display();
        match outline.as_deref().map(|outline| outline.as_ref()) {
            Some(Ok(o)) => {
                let counts =
                    [o.lines, o.functions, o.types, o.unsafe_blocks].map(|n| n.to_native());
                let [lines, functions, types, unsafe_blocks] = counts;
                println!("{lines:>8} {functions:>9} {types:>6} {unsafe_blocks:>6}  {file}");
                total.lines += lines;
                total.functions += functions;
                total.types += types;
                total.unsafe_blocks += unsafe_blocks;
            }
            Some(Err(error)) => {
                unparsed += 1;
                println!("{:>32}  {file}: {error}", "not parsed");
            }
            None => {
                unread += 1;
                println!("{:>32}  {file}", "not text");
            }
        }
    }
    let Outline { lines, functions, types, unsafe_blocks } = total;
    println!("{lines:>8} {functions:>9} {types:>6} {unsafe_blocks:>6}  in {} files", files.len());
    println!("{unparsed} files do not parse, {unread} are no text");
    let stats = cache.stats();
    println!(
        "{} hits and {} misses in {elapsed:.2?}; the hits saved {:.2?} of parsing",
        stats.hits, stats.misses, stats.time_saved
    );
    Ok(())
}
