//! Many look-ups at once: what each would find by itself, whatever kind of file it is, and whatever others
//! do to it meanwhile.
#![allow(missing_docs)]

mod common;

use common::{Dir, effort, finish, mix, role, spawn};
use persist_cache::{Cached, MmapCache, Table};
use std::path::Path;
use std::time::{Duration, Instant};

/// Values by key and version: whatever else is found is wrong.
fn value_of(key: u64, version: u64) -> Vec<u64> {
    (0..=mix(key ^ version) % 20)
        .map(|n| if n == 0 { version } else { mix(key ^ (n << 40)) })
        .collect()
}

fn found(table: &Table<u64, Vec<u64>>, keys: &[u64]) -> Vec<Option<Vec<u64>>> {
    let values = table.get_many(keys).unwrap();
    values.into_iter().map(|value| value.map(Cached::into_owned)).collect()
}

#[test]
fn any_number_of_keys_is_found_in_order() {
    let dir = Dir::new();
    let path = dir.open("x").path().to_path_buf();
    let cache = MmapCache::open_at(&path).unwrap();
    let table = cache.table::<u64, Vec<u64>>("values");
    table.insert_many((0..500).map(|key| (key, value_of(key, 1)))).unwrap();
    table.remove(&7).unwrap();
    let brief = MmapCache::options().expiry(Duration::ZERO).open_at(&path).unwrap();
    brief.table::<u64, Vec<u64>>("values").insert(&8, &value_of(8, 2)).unwrap();
    let copied = MmapCache::options().copy_reads().open_at(&path).unwrap();
    let read_only = MmapCache::options().read_only(true).open_at(&path).unwrap();
    for cache in [cache, copied, read_only] {
        let table = cache.table::<u64, Vec<u64>>("values");
        for count in [0, 1, 2, 31, 32, 33, 63, 64, 65, 300] {
            // A fifth of them absent, some more than once.
            let keys: Vec<u64> = (0..count).map(|n| mix(n) % 600).chain([7, 8, 9, 9]).collect();
            let is_there = |key: u64| key < 500 && key != 7 && key != 8;
            let expected: Vec<_> =
                keys.iter().map(|key| is_there(*key).then(|| value_of(*key, 1))).collect();
            std::thread::scope(|scope| {
                let first = scope.spawn(|| assert_eq!(found(&table, &keys), expected));
                first.join().unwrap();
            });
            assert_eq!(found(&table, &keys), expected);
        }
    }
    assert_eq!(found(&MmapCache::disabled().table("values"), &[1, 2, 3]), [None, None, None]);
}

/// What another process does to the file, until one beside it says stop: versions rise, the index grows,
/// the file is compacted, cleared, deleted.
fn disturb(path: &Path) {
    let cache = MmapCache::open_at(path).unwrap();
    let table = cache.table::<u64, Vec<u64>>("values");
    for version in 2.. {
        if path.with_extension("stop").exists() {
            return;
        }
        table.insert_many((0..300).map(|key| (key, value_of(key, version)))).unwrap();
        match version % 7 {
            0 => cache.clear().unwrap(),
            1 | 4 => drop(cache.compact().unwrap()),
            2 if version % 3 == 0 => cache.delete().unwrap(),
            3 => drop(
                table.insert_many((1000..3000).map(|n| (n + version * 3000, vec![n]))).unwrap(),
            ),
            _ => {}
        }
    }
}

#[test]
fn what_others_do_meanwhile_makes_no_value_wrong_or_older() {
    if let Some((_, path)) = role() {
        return disturb(&path);
    }
    let dir = Dir::new();
    let cache = dir.open("x");
    let table = cache.table::<u64, Vec<u64>>("values");
    table.insert_many((0..300).map(|key| (key, value_of(key, 1)))).unwrap();
    let this = "what_others_do_meanwhile_makes_no_value_wrong_or_older";
    let mut other = spawn(this, "disturb", cache.path());
    let mut last = vec![1; 300];
    let (start, mut looks) = (Instant::now(), 0_u64);
    let least = Duration::from_millis(1500) * effort() as u32;
    // Late versions must be met, however busy the machine is; but not for ever.
    let is_enough =
        |last: &[u64]| start.elapsed() > least && last.iter().any(|version| *version > 30);
    while !is_enough(&last) {
        assert!(
            other.try_wait().unwrap().is_none() && start.elapsed() < least * 100,
            "{looks} looks"
        );
        let keys: Vec<u64> = (0..100).map(|n| mix(n ^ (looks << 20)) % 320).collect();
        for (key, value) in keys.iter().zip(found(&table, &keys)) {
            let Some(value) = value else { continue };
            let version = value[0];
            assert_eq!(value, value_of(*key, version), "key {key}");
            assert!(version >= last[*key as usize], "key {key}: {version} came after a later one");
            last[*key as usize] = version;
        }
        looks += 1;
    }
    std::fs::write(cache.path().with_extension("stop"), "").unwrap();
    finish(other);
}
