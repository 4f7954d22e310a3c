//! Functions that change: an edit is a miss, going back is a hit, compaction keeps two versions; and
//! result types that change, across compilers' ideas of them.
#![allow(missing_docs)]

mod common;

use common::{Dir, apart, finish, role, spawn};
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
    if let Some((version, place)) = role() {
        if version == "1" && place.join("again").exists() {
            // Before the first call, and by whatever handle.
            edited::cache();
            MmapCache::open_at(apart(&self::place())).unwrap().compact().unwrap();
            edited::compact().unwrap();
            assert!(edited::peek(1).is_some(), "whatever was stored since");
        }
        edited(1);
        return println!("{}", if RUNS.get() == 0 { "hit" } else { "computed" });
    }
    let dir = Dir::new();
    for version in 1..=4 {
        assert!(call(&dir, TEST, version));
    }
    std::fs::write(dir.join("again"), "").unwrap();
    assert!(!call(&dir, TEST, 1));
    assert!(!call(&dir, TEST, 1) && !call(&dir, TEST, 4) && !call(&dir, TEST, 3));
    assert!(call(&dir, TEST, 2));
}

/// A result type as it was, as it is after an edit of a type within it, and as another build has it.
macro_rules! report {
    ($module:ident, $($field:ident: $type:ty),*) => {
        mod $module {
            use persist_cache::rkyv::{Archive, Deserialize, Serialize};

            #[derive(Debug, PartialEq, Archive, Serialize, Deserialize, persist_cache::Schema)]
            #[rkyv(crate = persist_cache::rkyv)]
            pub(super) struct Size {
                $(pub(super) $field: $type),*
            }

            #[derive(Debug, PartialEq, Archive, Serialize, Deserialize, persist_cache::Schema)]
            #[rkyv(crate = persist_cache::rkyv)]
            pub(super) struct Report {
                pub(super) name: String,
                pub(super) sizes: Vec<Size>,
            }
        }
    };
}

report!(was, width: u32, height: u32);
report!(same, width: u32, height: u32);
report!(swapped, height: u32, width: u32);
report!(retyped, width: u32, height: f32);

#[test]
fn a_nested_field_that_changed_is_a_miss_and_a_rebuild_is_none() {
    const TEST: &str = "a_nested_field_that_changed_is_a_miss_and_a_rebuild_is_none";
    if let Some((role, place)) = role() {
        let cache = MmapCache::open_at(place.join("reports.pcache")).unwrap();
        let is_there = match &*role {
            "was" => {
                let table = cache.table::<str, was::Report>("reports").with_schema();
                let sizes = vec![was::Size { width: 1, height: 2 }];
                table.insert("a", &was::Report { name: "a".into(), sizes }).is_ok()
            }
            // Another type to the compiler, as it is to another compiler.
            "same" => {
                let table = cache.table::<str, same::Report>("reports").with_schema();
                let found = table.get("a").unwrap().map(persist_cache::Cached::into_owned);
                let sizes = vec![same::Size { width: 1, height: 2 }];
                assert!(found.is_none() || found == Some(same::Report { name: "a".into(), sizes }));
                table.contains("a").unwrap()
            }
            "swapped" => {
                cache.table::<str, swapped::Report>("reports").with_schema().contains("a").unwrap()
            }
            "retyped" => {
                cache.table::<str, retyped::Report>("reports").with_schema().contains("a").unwrap()
            }
            other => unreachable!("{other}"),
        };
        return println!("{}", if is_there { "hit" } else { "computed" });
    }
    let dir = Dir::new();
    let is_there = |role: &str| {
        let output = finish(spawn(TEST, role, dir.path()));
        String::from_utf8_lossy(&output.stdout).contains("hit")
    };
    assert!(is_there("was") && is_there("same"));
    assert!(!is_there("swapped") && !is_there("retyped"));
}

#[test]
#[expect(clippy::needless_borrow, reason = "the reference decides which method it is")]
fn the_attribute_finds_a_schema_by_itself() {
    use persist_cache::__private::{
        BySchema, ByType, Form, Probe, ProbeFallible as _, ProbePlain as _, ProbeSchema as _,
        ProbeType as _,
    };
    #[derive(
        persist_cache::rkyv::Archive,
        persist_cache::rkyv::Serialize,
        persist_cache::rkyv::Deserialize,
    )]
    #[rkyv(crate = persist_cache::rkyv)]
    struct Without(u32);
    let with: Form<_> = (&Probe::<Result<Vec<was::Report>, String>>::new()).__persist_cache_form();
    let _: BySchema = (&with).__persist_cache_describes();
    let without: Form<_> = (&Probe::<Option<Without>>::new()).__persist_cache_form();
    let _: ByType = (&without).__persist_cache_describes();
    let _ = Without(0).0;
}

#[cache(path = place(), ignore(op))]
fn apply(n: u64, op: impl Fn(u64) -> u64) -> u64 {
    op(n)
}

/// Types that have one name are told apart by every process alike, whichever comes first.
#[test]
fn closures_of_one_name_in_two_processes() {
    const TEST: &str = "closures_of_one_name_in_two_processes";
    if let Some((role, _)) = role() {
        // The same two closures in both, called in another order.
        let calls: [&dyn Fn() -> u64; 2] = [&|| apply(5, |n| n + 1), &|| apply(5, |n| n + 2)];
        let order = if role == "forwards" { [0, 1] } else { [1, 0] };
        for at in order {
            assert_eq!(calls[at](), 6 + at as u64);
        }
        return;
    }
    let dir = Dir::new();
    for role in ["forwards", "backwards"] {
        finish(spawn(TEST, role, dir.path()));
    }
}

/// Of tables that are empty, compaction leaves nothing in the log.
#[test]
fn emptied_tables_leave_nothing_in_a_compacted_file() {
    let dir = Dir::new();
    let compacted = |name: &str, others: u64| {
        let cache = dir.open(name);
        cache.table::<u64, u64>("kept").insert(&1, &10).unwrap();
        for n in 0..others {
            let table = cache.table::<u64, u64>(&format!("other {n}"));
            table.insert(&1, &n).unwrap();
            assert!(table.remove(&1).unwrap());
        }
        cache.compact().unwrap();
        let dead = cache.stats().dead_bytes;
        assert_eq!(*cache.table::<u64, u64>("kept").get(&1).unwrap().unwrap(), 10);
        let again = cache.table::<u64, u64>("other 0");
        assert!(again.get(&1).unwrap().is_none());
        again.insert(&1, &5).unwrap();
        assert_eq!(*again.get(&1).unwrap().unwrap(), 5);
        assert!(cache.verify().unwrap().findings.is_empty());
        dead
    };
    assert_eq!(compacted("many", 300), compacted("none", 0));
}
