//! Misses of `peek`, in a small cache and a large one; beside `RwLock<HashMap>` with ahash.
#![allow(missing_docs)]

mod common;

use common::{HOT, LARGE, compare, directory, fill, key, mix, open};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::RwLock;

fn main() {
    const MISSES: u64 = 500_000;
    for count in [HOT, LARGE] {
        let dir = directory();
        let cache = open(&dir, "miss");
        let table = fill::<64>(&cache, count);
        let map: RwLock<HashMap<[u8; 16], [u8; 64], ahash::RandomState>> = RwLock::default();
        map.write().unwrap().extend((0..count).map(|n| (key(n), [n as u8; 64])));
        let order: Vec<[u8; 16]> = (0..MISSES).map(|n| key(count + mix(n) % count)).collect();
        let own = || order.iter().for_each(|key| drop(black_box(table.get(key).unwrap())));
        let yardstick = || {
            order.iter().for_each(|key| {
                black_box(map.read().unwrap().get(key));
            });
        };
        let what = format!("miss among {count} entries");
        compare(&what, MISSES, ("own", own), ("RwLock<HashMap>", yardstick));
    }
}
