//! Functions that change: an edit is a miss, going back is a hit, compaction keeps two versions; and
//! result types that change, across compilers' ideas of them.
#![allow(missing_docs)]

mod common;

use common::{Dir, finish, role, spawn};
use persist_cache::{MmapCache, cache};
use std::cell::Cell;
use std::path::PathBuf;

fn place() -> PathBuf {
    role().expect("another process").1.join("versions.pcache")
}

fn version() -> String {
    role().expect("another process").0
}

thread_local! {
    static RUNS: Cell<u64> = const { Cell::new(0) };
}

#[cache(path = place(), version = version())]
fn edited(n: u64) -> u64 {
    RUNS.set(RUNS.get() + 1);
    n + version().split(' ').next().unwrap().parse::<u64>().unwrap()
}

#[cache(path = place())]
fn neighbour(n: u64) -> u64 {
    n
}

/// Calls the function as version `n`; whether it had to compute.
fn call(dir: &Dir, test: &str, n: u64) -> bool {
    let output = finish(spawn(test, &n.to_string(), dir.path()));
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.contains("hit") || output.contains("computed"), "{output}");
    output.contains("computed")
}

#[test]
fn going_back_hits_and_compaction_keeps_two_versions() {
    const TEST: &str = "going_back_hits_and_compaction_keeps_two_versions";
    if let Some((version, _)) = role() {
        for n in 0..100 {
            assert_eq!(edited(n), n + version.parse::<u64>().unwrap());
        }
        assert_eq!(neighbour(1), 1);
        assert!(RUNS.get() == 0 || RUNS.get() == 100);
        return println!("{}", if RUNS.get() == 0 { "hit" } else { "computed" });
    }
    let dir = Dir::new();
    for version in 1..=4 {
        assert!(call(&dir, TEST, version), "an edit is a miss");
    }
    assert!(!call(&dir, TEST, 1), "going back is a hit");
    let cache = MmapCache::open_at(dir.join("versions.pcache")).unwrap();
    assert_eq!(cache.stats().entries, 401);
    let compaction = cache.compact().unwrap();
    assert_eq!((compaction.entries_kept, compaction.entries_dropped), (201, 200));
    assert_eq!(cache.verify().unwrap().findings, []);
    assert!(!call(&dir, TEST, 4) && !call(&dir, TEST, 3));
    assert!(call(&dir, TEST, 1), "the third newest is gone");
    assert_eq!(cache.compact().unwrap().entries_kept, 201);
    assert!(!call(&dir, TEST, 1) && !call(&dir, TEST, 4));
}

#[test]
fn the_process_that_compacts_keeps_what_it_uses() {
    const TEST: &str = "the_process_that_compacts_keeps_what_it_uses";
    if let Some((version, _)) = role() {
        edited(1);
        if version == "1" && RUNS.get() == 0 {
            edited::compact().unwrap();
            assert!(edited::peek(1).is_some(), "whatever was stored since");
        }
        return println!("{}", if RUNS.get() == 0 { "hit" } else { "computed" });
    }
    let dir = Dir::new();
    for version in 1..=4 {
        assert!(call(&dir, TEST, version));
    }
    assert!(!call(&dir, TEST, 1));
    assert!(!call(&dir, TEST, 1) && !call(&dir, TEST, 4) && !call(&dir, TEST, 3));
    assert!(call(&dir, TEST, 2));
}
