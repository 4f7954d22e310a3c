//! Compaction of 1 KiB values, beside a plain read-and-write copy of as many bytes with the same
//! number of syncs; and what readers see of it.
#![allow(missing_docs)]

mod common;

use common::{blocks, directory, fill, key, median, mix, nanos, open};
use std::fs::File;
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

const ENTRIES: u64 = 300_000;

fn copy(from: &std::path::Path, to: &std::path::Path, len: u64) {
    let (mut input, mut output) = (File::open(from).unwrap(), File::create(to).unwrap());
    let mut buffer = vec![0; 1 << 20];
    let mut left = len;
    while left > 0 {
        let size = input.read(&mut buffer).unwrap().min(left as usize);
        output.write_all(&buffer[..size]).unwrap();
        left -= size as u64;
    }
    output.sync_all().unwrap();
    output.sync_all().unwrap();
    File::open(to.parent().unwrap()).unwrap().sync_all().unwrap();
}

fn main() {
    let dir = directory();
    let cache = open(&dir, "compact");
    let table = fill::<1024>(&cache, ENTRIES);
    // As much again is dead.
    fill::<1024>(&cache, ENTRIES);
    let live = cache.stats().live_bytes;
    let (mut own, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let start = Instant::now();
        cache.compact().unwrap();
        own.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        copy(cache.path(), &dir.path().join("copy"), live);
        plain.push(start.elapsed().as_secs_f64());
    }
    let (own, plain) = (median(own), median(plain));
    println!(
        "compacting {} MiB: own {}, plain copy {}, speed {:.2} of it",
        live >> 20,
        nanos(own),
        nanos(plain),
        plain / own
    );
    let stop = AtomicBool::new(false);
    let read = |while_compacting: bool| {
        let mut times = Vec::new();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut times = Vec::new();
                for n in 0.. {
                    let start = Instant::now();
                    black_box(table.get(&key(mix(n) % 1000)).unwrap().unwrap()[0]);
                    times.push(start.elapsed().as_secs_f64());
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
                times
            });
            match while_compacting {
                true => drop(cache.compact().unwrap()),
                false => std::thread::sleep(std::time::Duration::from_millis(500)),
            }
            stop.store(true, Ordering::Relaxed);
            times = reader.join().unwrap();
        });
        stop.store(false, Ordering::Relaxed);
        times.sort_by(f64::total_cmp);
        (nanos(times[times.len() / 2]), nanos(times[times.len() * 99 / 100]))
    };
    println!("a timed hit alone: p50, p99 {:?}", read(false));
    println!("a timed hit while compacting: p50, p99 {:?}", read(true));
    println!("disk blocks per live byte: {:.3}", blocks(cache.path()) as f64 / live as f64);
}
