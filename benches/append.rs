//! Appends: one by one and by thousands, beside a bare pair of lock and unlock on a file; then growth
//! to a million entries: the slowest appends, what readers see of it, and the disk space at the end.
#![allow(missing_docs)]

mod common;

use common::{LARGE, blocks, compare, directory, fill, key, mix, nanos, open};
use fs4::FileExt as Lockable;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn single() {
    const APPENDS: u64 = 50_000;
    let dir = directory();
    let cache = open(&dir, "append");
    let table = cache.table::<u64, u64>("bench");
    let file = std::fs::File::create(dir.path().join("lock")).unwrap();
    let lock = || {
        for _ in 0..APPENDS {
            Lockable::lock(&file).unwrap();
            Lockable::unlock(&file).unwrap();
        }
    };
    let mut next = 0;
    let insert = || {
        for _ in 0..APPENDS {
            next += 1;
            black_box(table.insert(&next, &next).unwrap());
        }
    };
    compare("insert of a small value", APPENDS, ("own", insert), ("lock pair", lock));
    let memo = cache.memoize(|n: &u64| *n);
    let mut next = 0;
    let call = || {
        for _ in 0..APPENDS {
            next += 1;
            black_box(memo.call(&next));
        }
    };
    compare("call that computes and stores", APPENDS, ("own", call), ("lock pair", lock));
    let (one, many) = (cache.table::<u64, u64>("one"), cache.table::<u64, u64>("many"));
    let (mut a, mut b) = (0, 0);
    let batch = || {
        for _ in 0..APPENDS / 1000 {
            many.insert_many((a..a + 1000).map(|n| (n, n))).unwrap();
            a += 1000;
        }
    };
    let single = || {
        for _ in 0..APPENDS {
            black_box(one.insert(&b, &b).unwrap());
            b += 1;
        }
    };
    compare("insert_many, per entry", APPENDS, ("own", batch), ("insert", single));
}

fn growth<const N: usize>()
where
    [u8; N]: persist_cache::CacheValue,
{
    let dir = directory();
    let cache = open(&dir, "growth");
    let table = fill::<N>(&cache, 1000);
    let stop = AtomicBool::new(false);
    let (times, mut reads) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let start = Instant::now();
                for n in 0..100 {
                    black_box(&*table.get(&key(mix(n) % 1000)).unwrap().unwrap());
                }
                reads.push(start.elapsed() / 100);
            }
            reads
        });
        let mut times = Vec::with_capacity(LARGE as usize);
        for n in 1000..LARGE {
            let (key, value) = (key(n), [n as u8; N]);
            let start = Instant::now();
            black_box(table.insert(&key, &value).unwrap());
            times.push(start.elapsed());
        }
        stop.store(true, Ordering::Relaxed);
        (times, reader.join().unwrap())
    });
    let mut times = times;
    let at = |times: &mut Vec<Duration>, part: f64| {
        times.sort_unstable();
        nanos(times[((times.len() - 1) as f64 * part) as usize].as_secs_f64())
    };
    println!(
        "growing to {LARGE} entries of {N} bytes: append p50 {}, p99.99 {}, longest {}",
        at(&mut times, 0.5),
        at(&mut times, 0.9999),
        at(&mut times, 1.0)
    );
    println!("  a hit meanwhile: p50 {}, p99 {}", at(&mut reads, 0.5), at(&mut reads, 0.99));
    let before = blocks(cache.path()) as f64 / LARGE as f64;
    cache.compact().unwrap();
    let after = blocks(cache.path()) as f64 / LARGE as f64;
    println!("  disk blocks per entry: {before:.1} bytes, {after:.1} after compact()");
}

fn main() {
    single();
    growth::<64>();
    growth::<1024>();
}
