//! A hit allocates nothing and makes no system call; and what else takes no more memory than it should.
#![allow(missing_docs, unsafe_code)]

mod common;

use common::{Dir, finish, role};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::Duration;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

// SAFETY: all is left to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        BYTES.set(BYTES.get() + layout.size() as i64);
        PEAK.set(PEAK.get().max(BYTES.get()));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.set(BYTES.get() - layout.size() as i64);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_hit_allocates_nothing() {
    let dir = Dir::new();
    let cache = dir.open("x");
    let length = cache.memoize(|text: &str| vec![text.len() as u64]);
    let square = cache.memoize(|n: &u64| n * n);
    cache.set_expiry(Duration::from_secs(3600));
    let long = "a key that does not fit inline, so that it is hashed".repeat(50);
    let run = || {
        for n in 0..100 {
            black_box(square.call(&n));
            black_box(square.peek(&n));
        }
        black_box(length.call(&long)[0]);
        black_box(length.call("short").clone());
    };
    run();
    run();
    let before = COUNT.get();
    (0..100).for_each(|_| run());
    assert_eq!(COUNT.get() - before, 0);
}

fn root() -> std::path::PathBuf {
    role().map_or_else(|| std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")), |(_, place)| place)
}

#[persist_cache::cache(root = root(), expiry = "1h")]
fn length(text: &str, factor: u32) -> u64 {
    text.len() as u64 * u64::from(factor)
}

#[persist_cache::cache(root = root())]
fn generic<T: persist_cache::CacheKey + Into<u64>, const N: u64>(value: T) -> Result<u64, String> {
    Ok(value.into() + N)
}

#[persist_cache::cache(root = root())]
async fn later(n: u64) -> u64 {
    n
}

#[persist_cache::cache(root = root())]
fn items(count: u64) -> impl Iterator<Item = u64> {
    0..count
}

#[test]
fn a_hit_through_the_attribute_allocates_nothing() {
    let long = "a key that does not fit inline, so that it is hashed".repeat(50);
    let run = || {
        black_box((length(&long, 2), length("short", 2)));
        black_box((generic::<u32, 1>(1).is_ok(), generic::<u64, 2>(1).is_ok()));
        black_box(futures_lite::future::block_on(later(1)));
        black_box(items(1000).sum::<u64>());
    };
    run();
    run();
    let before = COUNT.get();
    (0..100).for_each(|_| run());
    assert_eq!(COUNT.get() - before, 0);
}

#[test]
fn a_hit_makes_no_system_call() {
    const TEST: &str = "a_hit_makes_no_system_call";
    if let Some((hits, place)) = role() {
        let cache = persist_cache::MmapCache::options().root(place).open("x").unwrap();
        let square = cache.memoize(|n: &u64| n * n);
        cache.set_expiry(Duration::from_secs(3600));
        for n in 0..hits.parse().unwrap() {
            black_box(*square.call(&(n % 10)));
            black_box(length("text", (n % 10) as u32));
        }
        return;
    }
    let calls = |hits: u64| -> Option<u64> {
        let dir = Dir::new();
        let inner = common::command(TEST, &hits.to_string(), dir.path());
        let counts = dir.join("counts");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-c", "-U", "calls,name", "-o"]).arg(&counts);
        strace.arg(inner.get_program()).args(inner.get_args());
        strace.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        finish(strace.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().ok()?);
        let counts = std::fs::read_to_string(counts).unwrap();
        let count = |line: &str| line.split_whitespace().next()?.parse::<u64>().ok();
        let calls = counts.lines().filter(|line| !line.ends_with("total"));
        Some(calls.filter_map(count).sum())
    };
    match (calls(100), calls(1_000_000)) {
        (Some(few), Some(many)) => {
            assert!(few > 10, "strace counted");
            assert!(many < few + 500, "{few} calls for 100 hits, {many} for a million");
        }
        _ => eprintln!("not run: there is no strace here"),
    }
}

/// What stays of a table that was dropped is whose its entries are: the start of its scope's hash, its
/// archived type, a hash of what else it is, and the way to the next.
#[test]
fn a_dropped_table_leaves_next_to_nothing() {
    let dir = Dir::new();
    let cache = dir.open("x");
    let pass_by = |n: u64| {
        black_box(cache.table::<u64, Vec<u64>>(&format!("table {n}")));
    };
    pass_by(0);
    let before = BYTES.get();
    (1..=10_000).for_each(pass_by);
    assert_eq!((BYTES.get() - before) / 10_000, 40);
}

/// The most that `work` has at a time of what its thread allocates.
fn peak(work: impl FnOnce()) -> i64 {
    let before = BYTES.get();
    PEAK.set(before);
    work();
    PEAK.get() - before
}

/// Neither of keys that are there nor of those that were flushed is each one held in memory.
#[test]
fn a_verification_takes_no_memory_for_each_key() {
    const COUNT: u64 = 120_000;
    let dir = Dir::new();
    let cache = dir.open("x");
    let table = cache.table::<u64, u64>("t");
    (0..COUNT).for_each(|key| drop(table.insert(&key, &key).unwrap()));
    let verify = || assert_eq!(cache.verify().unwrap().findings, []);
    let live = peak(verify);
    assert!(live < 3 << 20, "{live} bytes for {COUNT} keys");
    cache.set_expiry(Duration::ZERO);
    assert_eq!(cache.flush().unwrap(), COUNT);
    let flushed = peak(verify);
    assert!(flushed < 16 << 20, "{flushed} bytes for {COUNT} keys that were flushed");
}

/// Of a key that is there a compaction holds its slots in both files, and its place in the index that it makes:
/// some 30 bytes. And what it reads and writes in pieces of a MiB.
#[test]
fn a_compaction_takes_little_memory_for_each_key() {
    const COUNT: u64 = 120_000;
    let dir = Dir::new();
    let cache = dir.open("x");
    let table = cache.table::<u64, u64>("t");
    (0..COUNT).for_each(|key| drop(table.insert(&key, &key).unwrap()));
    let bytes = peak(|| assert_eq!(cache.compact().unwrap().entries_kept, COUNT));
    assert!(bytes < 32 * COUNT as i64 + (7 << 19), "{bytes} bytes for {COUNT} keys");
}
