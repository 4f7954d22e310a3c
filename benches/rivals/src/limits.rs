//! What bounds a hit: hashing its key, checking its record once, and the machine's memory.

use crate::Bench;
use crate::measure::{Pinned, mix};
use crate::report::{Table, Unit};
use anyhow::Result;
use persist_cache::MmapCache;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// What hashing and checking cost beside a hit.
pub fn limits(bench: &mut Bench) -> Result<()> {
    let mut table = Table::new("limits", "Keys of 200 bytes, and values that must be checked once");
    let rounds = bench.rounds();
    bench.progress.inc_length(1);
    bench.step("limits");
    let _pinned = Pinned::to(0);
    let cache = MmapCache::open_at(bench.dir.path().join("limits.pcache"))?;
    let short = cache.table::<u64, u64>("short");
    short.insert_many((0..1000).map(|n| (n, n)))?;
    let long_keys: Vec<String> = (0..1000).map(|n| format!("{n:0200}")).collect();
    let long = cache.table::<str, u64>("long");
    long.insert_many(long_keys.iter().map(|key| (key.as_str(), 1)))?;
    let texts = cache.table::<u64, Vec<String>>("texts");
    let text: Vec<String> = (0..1000).map(|n| format!("a line of text, number {n}")).collect();
    texts.insert_many((0..200_u64).map(|n| (n, text.clone())))?;
    let archives: Vec<_> =
        (0..200).map(|_| rkyv::to_bytes::<rkyv::rancor::Error>(&text)).collect::<Result<_, _>>()?;
    const GETS: u64 = 300_000;
    for round in 0..=rounds {
        let time = |count: u64, work: &mut dyn FnMut(u64)| {
            let start = Instant::now();
            (0..count).for_each(work);
            start.elapsed().as_nanos() as f64 / count as f64
        };
        let hot = time(GETS, &mut |n| drop(black_box(short.get(&(n % 1000)))));
        let blake3 = time(GETS, &mut |n| {
            black_box(blake3::hash(long_keys[n as usize % 1000].as_bytes()));
        });
        let hit = time(GETS, &mut |n| drop(black_box(long.get(&long_keys[n as usize % 1000]))));
        let validation = time(200, &mut |n| {
            type Strings = <Vec<String> as rkyv::Archive>::Archived;
            let found = rkyv::access::<Strings, rkyv::rancor::Error>(&archives[n as usize]);
            black_box(found.is_ok());
        });
        // As another process finds them: a handle of other options has maps and checks of its own.
        let options = MmapCache::options().lock_timeout(Duration::from_secs(100 + round));
        let other = options.open_at(cache.path())?;
        let texts = other.table::<u64, Vec<String>>("texts");
        let cold = time(200, &mut |n| drop(black_box(texts.get(&n))));
        let warm = time(GETS, &mut |n| drop(black_box(texts.get(&(n % 200)))));
        if round == 0 {
            continue; // Warming.
        }
        let mut add = |row, value| table.add(row, "time", Unit::Nanoseconds, value);
        add("hot hit, key u64", hot);
        add("BLAKE3 of 200 bytes", blake3);
        add("BLAKE3 of 200 bytes, and a hot hit", blake3 + hot);
        add("hot hit, key of 200 bytes", hit);
        add("Vec<String> of 1000, one validation by rkyv", validation);
        add("Vec<String> of 1000, first touch by a process", cold);
        add("Vec<String> of 1000, warm", warm);
    }
    bench.results.add(table);
    Ok(())
}

/// What the machine takes for a line of memory that no cache holds, which is what a random hit is made of:
/// one after the other, and all at once; in pages of 4 KiB, and in large ones.
pub fn memory(bench: &mut Bench) -> Result<()> {
    let mut table = Table::new("memory", "A line of memory, anywhere in so many bytes");
    let rounds = bench.rounds();
    bench.progress.inc_length(1);
    bench.step("memory");
    let _pinned = Pinned::to(0);
    const STEPS: u64 = 1_000_000;
    for mebibytes in [1, 4, 16, 64, 256, 1024] {
        let lines = mebibytes << 14;
        for pages in ["pages of 4 KiB", "large pages"] {
            let mut memory = crate::measure::lines(lines as usize, pages == "large pages")?;
            // A cycle through all lines: each says which is next.
            let mut order: Vec<u64> = (0..lines).collect();
            order.sort_unstable_by_key(|line| mix(*line));
            for (at, line) in order.iter().enumerate() {
                let next = order[(at + 1) % order.len()];
                memory[*line as usize * 64..][..8].copy_from_slice(&next.to_le_bytes());
            }
            let next = |line: u64| {
                let bytes = memory[line as usize * 64..].first_chunk().expect("a line");
                u64::from_le_bytes(*bytes)
            };
            for _ in 0..rounds {
                let mut at = 0;
                let start = Instant::now();
                (0..STEPS).for_each(|_| at = next(at));
                black_box(at);
                let chased = start.elapsed().as_nanos() as f64 / STEPS as f64;
                let start = Instant::now();
                black_box((0..STEPS).fold(0, |sum, n| sum ^ next(mix(n) % lines)));
                let at_once = start.elapsed().as_nanos() as f64 / STEPS as f64;
                let column = format!("{mebibytes} MiB");
                let mut add = |row: &str, time| {
                    table.add(&format!("{row}, {pages}"), &column, Unit::Nanoseconds, time);
                };
                add("one after the other", chased);
                add("independent", at_once);
            }
        }
    }
    bench.results.add(table);
    Ok(())
}
