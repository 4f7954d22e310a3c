//! The cache against a map: random sequences of all that can be done to one, through two handles, must
//! leave what a map would hold.
#![allow(missing_docs)]

mod common;

use common::{Dir, value_of};
use persist_cache::{Cached, MmapCache};
use proptest::prelude::*;
use std::collections::HashMap;
use std::time::Duration;

#[derive(Debug, Clone)]
enum Op {
    Insert(u64, u64),
    InsertMany(Vec<(u64, u64)>),
    Call(u64, u64),
    /// Looks up many, absent and repeated ones among them.
    GetMany(Vec<u64>),
    Remove(u64),
    /// Stores a key through a handle by whose lights it has expired at once.
    Expire(u64),
    Flush,
    Clear,
    Compact,
    Sync,
    Delete,
    Reopen,
    /// A copied file in its place: everything is verified and the index made anew.
    Restore,
    Large(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 0..200_u64;
    prop_oneof![
        12 => (key(), any::<u64>()).prop_map(|(k, v)| Op::Insert(k, v)),
        4 => prop::collection::vec((key(), any::<u64>()), 0..300).prop_map(Op::InsertMany),
        8 => (key(), any::<u64>()).prop_map(|(k, v)| Op::Call(k, v)),
        6 => prop::collection::vec(0..250_u64, 0..100).prop_map(Op::GetMany),
        6 => key().prop_map(Op::Remove),
        3 => key().prop_map(Op::Expire),
        2 => Just(Op::Flush),
        1 => Just(Op::Clear),
        2 => Just(Op::Compact),
        1 => Just(Op::Sync),
        1 => Just(Op::Delete),
        2 => Just(Op::Reopen),
        2 => Just(Op::Restore),
        1 => key().prop_map(Op::Large),
    ]
}

/// The value that a number stands for: some long, some short.
fn value(seed: u64) -> Vec<u64> {
    value_of(seed)
}

struct Subject {
    dir: Dir,
    cache: MmapCache,
    model: HashMap<u64, Vec<u64>>,
}

impl Subject {
    fn apply(&mut self, op: &Op) {
        let table = self.cache.table::<u64, Vec<u64>>("t");
        match op {
            Op::Insert(key, seed) => {
                let stored = table.insert(key, &value(*seed)).unwrap();
                assert_eq!(Cached::into_owned(stored), value(*seed));
                self.model.insert(*key, value(*seed));
            }
            Op::InsertMany(entries) => {
                let entries = entries.iter().map(|(key, seed)| (*key, value(*seed)));
                table.insert_many(entries.clone()).unwrap();
                self.model.extend(entries);
            }
            Op::Call(key, seed) => {
                let memo = self.cache.memoize_as("t", |_: &u64| value(*seed));
                let result = Cached::into_owned(memo.call(key));
                assert_eq!(&result, self.model.entry(*key).or_insert(value(*seed)));
            }
            Op::GetMany(keys) => self.check_many(keys),
            Op::Remove(key) => {
                assert_eq!(table.remove(key).unwrap(), self.model.remove(key).is_some());
            }
            Op::Expire(key) => {
                let brief = MmapCache::options().expiry(Duration::ZERO).open_at(self.cache.path());
                brief.unwrap().table::<u64, Vec<u64>>("t").insert(key, &vec![1]).unwrap();
                self.model.remove(key);
            }
            Op::Flush => drop(self.cache.flush().unwrap()),
            Op::Clear => {
                self.cache.clear().unwrap();
                self.model.clear();
            }
            Op::Compact => {
                let kept = self.cache.compact().unwrap().entries_kept;
                assert_eq!(kept, self.model.len() as u64);
            }
            Op::Sync => self.cache.sync().unwrap(),
            Op::Delete => {
                self.cache.delete().unwrap();
                self.model.clear();
            }
            Op::Reopen => {
                let path = self.cache.path().to_path_buf();
                self.cache = MmapCache::disabled();
                self.cache = MmapCache::open_at(path).unwrap();
            }
            Op::Restore => {
                // At its path another store may hold it open still, so it goes to another one.
                let path = self.dir.join(&format!("{}.pcache", rand()));
                table.contains(&0).unwrap(); // A deleted file is there again when it is used.
                std::fs::copy(self.cache.path(), &path).unwrap();
                self.cache = MmapCache::open_at(path).unwrap();
            }
            Op::Large(key) => {
                let large = vec![*key; 20_000];
                table.insert(key, &large).unwrap();
                self.model.insert(*key, large);
            }
        }
    }

    /// Values of many keys, to a thread that has looked before and to one that has not.
    fn check_many(&self, keys: &[u64]) {
        let expected: Vec<_> = keys.iter().map(|key| self.model.get(key).cloned()).collect();
        let look = || {
            let found = self.cache.table::<u64, Vec<u64>>("t").get_many(keys).unwrap();
            found.into_iter().map(|value| value.map(Cached::into_owned)).collect::<Vec<_>>()
        };
        assert_eq!(look(), expected);
        assert_eq!(std::thread::scope(|scope| scope.spawn(look).join().unwrap()), expected);
    }

    fn check(&self) {
        let table = self.cache.table::<u64, Vec<u64>>("t");
        self.check_many(&(0..250).collect::<Vec<_>>());
        for key in 0..200 {
            let found = table.get(&key).unwrap().map(Cached::into_owned);
            assert_eq!(found.as_ref(), self.model.get(&key), "key {key}");
        }
        let report = self.cache.verify().unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }
}

fn rand() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_cache_is_a_map(ops in prop::collection::vec(op(), 1..60)) {
        let dir = Dir::new();
        let cache = MmapCache::open_at(dir.join("model.pcache")).unwrap();
        let mut subject = Subject { dir, cache, model: HashMap::new() };
        for op in &ops {
            subject.apply(op);
        }
        subject.check();
    }
}
