//! Two threads beside one: what hits gain, beside an immutable map without any lock.
#![allow(missing_docs)]

mod common;

use common::{directory, fill, key, median, mix, open};
use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

const ENTRIES: u64 = 100_000;
const HITS: u64 = 1_000_000;

/// Hits a second of as many threads.
fn rate(threads: u64, hit: &(impl Fn(u64) + Sync)) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || (0..HITS).for_each(|n| hit(mix(n + thread * HITS) % ENTRIES)));
        }
    });
    (threads * HITS) as f64 / start.elapsed().as_secs_f64()
}

fn main() {
    let dir = directory();
    let cache = open(&dir, "threads");
    let table = fill::<64>(&cache, ENTRIES);
    let keys: Vec<[u8; 16]> = (0..ENTRIES).map(key).collect();
    let map: HashMap<[u8; 16], [u8; 64], ahash::RandomState> =
        keys.iter().map(|key| (*key, [1; 64])).collect();
    let own = |n: u64| {
        black_box(table.get(&keys[n as usize]).unwrap().unwrap()[0]);
    };
    let unlocked = |n: u64| {
        black_box(map[&keys[n as usize]][0]);
    };
    let (mut gains, mut yardsticks) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        gains.push(rate(2, &own) / rate(1, &own));
        yardsticks.push(rate(2, &unlocked) / rate(1, &unlocked));
    }
    let (gain, yardstick) = (median(gains), median(yardsticks));
    println!(
        "two threads: own x{gain:.2}, unlocked HashMap x{yardstick:.2}, ratio {:.2}",
        gain / yardstick
    );
}
