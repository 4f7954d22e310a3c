//! Any operations, against a map: what is found is what was stored last, whatever came between.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use persist_cache::{Cached, MmapCache};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Debug, Arbitrary)]
enum Op {
    Insert(u16, u8),
    InsertMany(u16, u8),
    InsertLarge(u8, u8),
    Remove(u16),
    Get(u16),
    GetOrInsert(u16, u8),
    Flush,
    Clear,
    Compact,
    Sync,
    Delete,
    /// As after a reboot: the file is another one, and nothing of it is believed.
    Copy,
    /// So many keys from the first on.
    GetMany(u16, u8),
}

fn value_of(key: u16, version: u8) -> Vec<u64> {
    vec![u64::from(key) << 8 | u64::from(version); version as usize % 9]
}

thread_local! {
    static DIR: RefCell<tempfile::TempDir> = RefCell::new(tempfile::tempdir().unwrap());
}

fuzz_target!(|ops: Vec<Op>| {
    DIR.with_borrow(|dir| {
        let path = dir.path().join("x.pcache");
        let _ = std::fs::remove_file(&path);
        let mut model = BTreeMap::new();
        let mut cache = MmapCache::open_at(&path).unwrap();
        for op in ops {
            let table = cache.table::<u16, Vec<u64>>("fuzz");
            match op {
                Op::Insert(key, version) => {
                    table.insert(&key, &value_of(key, version)).unwrap();
                    model.insert(key, value_of(key, version));
                }
                Op::InsertMany(first, version) => {
                    let keys = first..first.saturating_add(u16::from(version));
                    table
                        .insert_many(keys.clone().map(|key| (key, value_of(key, version))))
                        .unwrap();
                    model.extend(keys.map(|key| (key, value_of(key, version))));
                }
                Op::InsertLarge(key, version) => {
                    let (key, value) = (u16::from(key), vec![u64::from(version); 8300]);
                    table.insert(&key, &value).unwrap();
                    model.insert(key, value);
                }
                Op::Remove(key) => {
                    assert_eq!(table.remove(&key).unwrap(), model.remove(&key).is_some());
                }
                Op::Get(key) => {
                    let found = table.get(&key).unwrap().map(Cached::into_owned);
                    assert_eq!(found.as_ref(), model.get(&key));
                }
                Op::GetOrInsert(key, version) => {
                    let found = table.get_or_insert_with(&key, || value_of(key, version));
                    let expected = model.entry(key).or_insert_with(|| value_of(key, version));
                    assert_eq!(&Cached::into_owned(found), expected);
                }
                Op::Flush => {
                    cache.set_expiry(Duration::ZERO);
                    assert_eq!(cache.flush().unwrap(), model.len() as u64);
                    cache.set_expiry(None);
                    model.clear();
                }
                Op::Clear => {
                    cache.clear().unwrap();
                    if !cfg!(feature = "canary") {
                        model.clear();
                    }
                }
                Op::Compact => {
                    assert_eq!(cache.compact().unwrap().entries_kept, model.len() as u64);
                }
                Op::Sync => cache.sync().unwrap(),
                Op::Delete => {
                    cache.delete().unwrap();
                    model.clear();
                }
                Op::Copy => {
                    // What was deleted is there again once it is used.
                    table.get(&0).unwrap();
                    let copy = dir.path().join("copy");
                    drop((table, cache));
                    std::fs::copy(&path, &copy).unwrap();
                    std::fs::rename(&copy, &path).unwrap();
                    cache = MmapCache::open_at(&path).unwrap();
                }
                Op::GetMany(first, count) => {
                    let keys: Vec<u16> = (first..first.saturating_add(u16::from(count))).collect();
                    let found = table.get_many(&keys).unwrap();
                    for (key, found) in keys.iter().zip(found) {
                        assert_eq!(found.map(Cached::into_owned).as_ref(), model.get(key));
                    }
                }
            }
        }
        assert_eq!(cache.stats().entries, model.len() as u64);
        assert_eq!(cache.verify().unwrap().findings, []);
        let table = cache.table::<u16, Vec<u64>>("fuzz");
        for (key, value) in &model {
            assert_eq!(table.get(key).unwrap().map(Cached::into_owned).as_ref(), Some(value));
        }
    });
});
