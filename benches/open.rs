//! Opening: a cache of a million entries beside an empty one, with the page cache warm.
#![allow(missing_docs)]

mod common;

use common::{LARGE, compare, directory, fill, open};
use persist_cache::MmapCache;
use std::hint::black_box;

fn main() {
    const OPENINGS: u64 = 200;
    let dir = directory();
    let large = open(&dir, "large");
    fill::<64>(&large, LARGE);
    let empty = open(&dir, "empty");
    let paths = [&large, &empty].map(|cache| cache.path().to_path_buf());
    drop((large, empty));
    let openings = |path: std::path::PathBuf| {
        move || {
            for _ in 0..OPENINGS {
                black_box(MmapCache::open_at(&path).unwrap());
            }
        }
    };
    let [large, empty] = paths.map(openings);
    compare("opening 1,000,000 entries", OPENINGS, ("own", large), ("empty cache", empty));
}
