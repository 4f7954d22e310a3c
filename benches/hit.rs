//! Hits: hot and random, with and without an expiry, and the first touch of a record by a process;
//! beside `RwLock<HashMap>` with ahash, what a program would keep in memory instead.

#![allow(missing_docs)]

mod common;

use common::{HOT, LARGE, compare, directory, fill, key, mix, open};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::RwLock;
use std::time::Instant;

type Map<K, V> = RwLock<HashMap<K, V, ahash::RandomState>>;

fn hot() {
    const ROUNDS: u64 = 2000;
    let dir = directory();
    let cache = open(&dir, "hot");
    let memo = cache.memoize(|n: &u64| n + 1);
    let map: Map<u64, u64> = RwLock::default();
    for n in 0..HOT {
        memo.call(&n);
        map.write().unwrap().insert(n, n + 1);
    }
    let own = || {
        for n in 0..HOT * ROUNDS {
            black_box(*memo.call(black_box(&(n % HOT))));
        }
    };
    let yardstick = || {
        for n in 0..HOT * ROUNDS {
            black_box(map.read().unwrap()[black_box(&(n % HOT))]);
        }
    };
    let yardstick = ("RwLock<HashMap>", yardstick);
    compare("hot hit, Memoized::call(&u64)", HOT * ROUNDS, ("own", own), yardstick);
    cache.set_expiry(common::LONG);
    compare("hot hit, expiry set", HOT * ROUNDS, ("own", own), yardstick);
}

fn random() {
    const HITS: u64 = 1_000_000;
    let dir = directory();
    let cache = open(&dir, "random");
    let table = fill::<64>(&cache, LARGE);
    let map: Map<[u8; 16], [u8; 64]> = RwLock::default();
    map.write().unwrap().extend((0..LARGE).map(|n| (key(n), [n as u8; 64])));
    let order: Vec<[u8; 16]> = (0..HITS).map(|n| key(mix(n) % LARGE)).collect();
    let own = || {
        for key in &order {
            black_box(table.get(key).unwrap().unwrap()[0]);
        }
    };
    let yardstick = || {
        for key in &order {
            black_box(map.read().unwrap()[key][0]);
        }
    };
    let many = || {
        for keys in order.chunks(32) {
            black_box(table.get_many(keys).unwrap());
        }
    };
    let yardstick = ("RwLock<HashMap>", yardstick);
    compare("random hit over 1,000,000 entries", HITS, ("own", own), yardstick);
    compare("the same by get_many of 32", HITS, ("own", many), yardstick);
}

fn first_touch() {
    let dir = directory();
    let path = {
        let cache = open(&dir, "touch");
        fill::<64>(&cache, 100_000);
        cache.path().to_path_buf()
    };
    // The store went with its last handle: this one has seen no record.
    let cache = persist_cache::MmapCache::open_at(path).unwrap();
    let table = cache.table::<[u8; 16], [u8; 64]>("bench");
    for what in ["first touch, random order (page faults too)", "second touch"] {
        let start = Instant::now();
        for n in 0..100_000 {
            black_box(table.get(&key(mix(n) % 100_000)).unwrap().unwrap()[0]);
        }
        println!("{what:<44} own {:>10}", common::nanos(start.elapsed().as_secs_f64() / 1e5));
    }
}

fn main() {
    hot();
    random();
    first_touch();
}
