//! Files of earlier versions: every later one must read them. `tests/golden/v1.pcache` was written once
//! by `write_a_golden_file`, and is never written again.
#![allow(missing_docs)]

mod common;

use common::{Dir, value_of};
use persist_cache::MmapCache;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

const KEYS: u64 = 400;

fn golden() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.pcache")
}

/// Writes a file with some of everything: values short and long, refreshed, removed and expired ones,
/// a grown index, a checkpoint.
fn write(path: &Path) {
    let cache = MmapCache::open_at(path).unwrap();
    let bytes = cache.table::<u64, u64>("numbers").with_schema();
    for key in 0..KEYS {
        bytes.insert(&key, &(key + 1)).unwrap();
    }
    for key in (0..KEYS).step_by(3) {
        bytes.insert(&key, &(key + 2)).unwrap();
    }
    for key in (0..KEYS).step_by(7) {
        bytes.remove(&key).unwrap();
    }
    cache.table::<str, u64>("by long names").with_schema().insert(&"long ".repeat(20), &9).unwrap();
    cache.set_expiry(std::time::Duration::from_millis(1));
    bytes.insert(&KEYS, &1).unwrap();
    cache.set_expiry(None);
    std::thread::sleep(std::time::Duration::from_millis(30));
    cache.flush().unwrap();
    cache.sync().unwrap();
    bytes.insert(&(KEYS + 1), &(KEYS + 2)).unwrap();
}

/// What `write` leaves, whatever compiler builds this: the tables' types are known by their schemas.
fn check_entries(cache: &MmapCache) {
    let numbers = cache.table::<u64, u64>("numbers").with_schema();
    for key in 0..=KEYS + 1 {
        let value = numbers.get(&key).unwrap().map(|value| value.to_native());
        let expected = match key {
            _ if key == KEYS || key < KEYS && key % 7 == 0 => None,
            _ if key < KEYS && key % 3 != 0 => Some(key + 1),
            _ if key < KEYS => Some(key + 2),
            _ => Some(KEYS + 2),
        };
        assert_eq!(value, expected, "of {key}");
    }
    let names = cache.table::<str, u64>("by long names").with_schema();
    assert_eq!(*names.get(&"long ".repeat(20)).unwrap().unwrap(), 9);
}

#[test]
fn a_file_of_version_1_is_read() {
    let dir = Dir::new();
    let path = dir.join("v1.pcache");
    fs::copy(golden(), &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let cache = MmapCache::open_at(&path).unwrap();
    let report = cache.verify().unwrap();
    assert_eq!(report.findings, []);
    let live = KEYS - KEYS.div_ceil(7) + 1 + 1;
    assert_eq!(cache.stats().entries, live);
    check_entries(&cache);
    assert_eq!(cache.compact().unwrap().entries_kept, live);
    assert_eq!(cache.verify().unwrap().findings, []);
    check_entries(&cache);
    cache.table::<u64, Vec<u64>>("new").insert(&1, &value_of(1)).unwrap();
    assert_eq!(cache.stats().entries, live + 1);
}

/// The same history written today gives a file with the same records.
#[test]
fn todays_file_has_the_records_of_the_golden_one() {
    let dir = Dir::new();
    let path = dir.join("today.pcache");
    write(&path);
    let today = MmapCache::open_at(&path).unwrap();
    let copy = dir.join("v1.pcache");
    fs::copy(golden(), &copy).unwrap();
    let then = MmapCache::options().read_only(true).open_at(&copy).unwrap();
    assert_eq!(today.verify().unwrap(), then.verify().unwrap());
    assert_eq!(today.stats().entries, then.stats().entries);
    assert_eq!(today.stats().live_bytes, then.stats().live_bytes);
}

#[test]
fn write_a_golden_file() {
    if std::env::var_os("WRITE_GOLDEN_FILE").is_none() {
        return;
    }
    assert!(!golden().exists(), "a golden file is written once");
    let dir = Dir::new();
    let path = dir.join("v1.pcache");
    write(&path);
    fs::create_dir_all(golden().parent().unwrap()).unwrap();
    fs::copy(&path, golden()).unwrap();
}
