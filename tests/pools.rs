//! One computation per key in pools of threads that take up each other's work: a circle of waits that such a
//! pool closes is seen, and a computation that only takes long is not taken for one.
#![allow(missing_docs)]
#![cfg(target_os = "linux")]

mod common;

use common::{Dir, command, role};
use persist_cache::{MmapCache, cache};
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(3600);

fn open(place: &Path) -> MmapCache {
    MmapCache::options().root(place).claim_timeout(LONG).open("pools").unwrap()
}

/// Runs this program as another process, in which there are no threads but the test's; ends it if it takes a
/// hundred times as long as it should: then somebody waits for ever.
fn run(test: &str, role: &str) {
    let dir = Dir::new();
    let mut command = command(test, role, dir.path());
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > Duration::from_secs(240) {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("somebody waits for ever");
        }
        thread::sleep(Duration::from_millis(10));
    };
    assert!(status.success(), "{status}");
}

fn until(flag: &AtomicBool) {
    while !flag.load(Ordering::SeqCst) {
        thread::yield_now();
    }
}

/// How often `stolen` ran.
static RUNS: AtomicU32 = AtomicU32::new(0);
static IS_STOLEN: AtomicBool = AtomicBool::new(false);
static IS_READY: AtomicBool = AtomicBool::new(false);
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

static PLACE: OnceLock<PathBuf> = OnceLock::new();

#[cache(root = PLACE.get().unwrap(), claim_timeout = "1h")]
fn stolen(key: u64) -> u64 {
    if key > 0 && RUNS.fetch_add(1, Ordering::SeqCst) == 0 {
        be_stolen_from(key);
    }
    key + 1
}

/// A worker that runs a part of a leader's work takes up another call for the same key. Each step is forced.
fn be_stolen_from(key: u64) {
    let first = || {
        until(&IS_STOLEN);
        rayon::spawn(move || {
            IS_TAKEN.store(true, Ordering::SeqCst);
            stolen(key);
        });
        IS_READY.store(true, Ordering::SeqCst);
        until(&IS_TAKEN);
    };
    let part = || {
        IS_STOLEN.store(true, Ordering::SeqCst);
        until(&IS_READY);
        rayon::yield_now(); // Any parallel iterator within does this.
    };
    rayon::join(first, part);
}

/// Where nothing else in the process goes on, the circle is seen.
#[test]
fn a_circle_of_all_threads_is_seen() {
    let Some((_, place)) = role() else { return run("a_circle_of_all_threads_is_seen", "alone") };
    rayon::ThreadPoolBuilder::new().num_threads(2).build_global().unwrap();
    PLACE.set(place).unwrap();
    rayon::scope(|_| assert_eq!(stolen(1), 2));
    assert_eq!(RUNS.load(Ordering::SeqCst), 2, "one computed all the same");
}

/// Where others go on, it is suspected when the leader waits for another thread for far longer than the
/// function is known to take.
#[test]
fn a_circle_beside_other_threads_is_suspected() {
    let Some((_, place)) = role() else {
        return run("a_circle_beside_other_threads_is_suspected", "beside");
    };
    rayon::ThreadPoolBuilder::new().num_threads(2).build_global().unwrap();
    thread::spawn(|| thread::sleep(LONG));
    PLACE.set(place).unwrap();
    assert_eq!(stolen(0), 1); // Now it is known.
    rayon::scope(|_| assert_eq!(stolen(1), 2));
    assert_eq!(RUNS.load(Ordering::SeqCst), 2, "one computed all the same");
}

/// As programs do it: calls for few keys by many items, whose function is parallel itself.
#[test]
fn parallel_calls_of_a_parallel_function_end() {
    let Some((_, place)) = role() else {
        return run("parallel_calls_of_a_parallel_function_end", "parallel");
    };
    rayon::ThreadPoolBuilder::new().num_threads(8).build_global().unwrap();
    let cache = open(&place);
    let sum = cache.memoize_as("sum", |key: &u64| {
        let part = |n: u64| (0..2000).fold(n + key, |sum, m| (sum >> 1) ^ m);
        (0..64_u64).into_par_iter().map(part).reduce(|| 0, |one, other| one ^ other)
    });
    for round in 0..40_u64 {
        let sums: Vec<u64> = (0..16_u64)
            .into_par_iter()
            .map(|n| sum.call(&(2 * round + n % 2)).to_native())
            .collect();
        assert!(sums.chunks(2).all(|pair| pair == &sums[..2]));
    }
}

/// A leader that waits for a thread of its own, for as long as that takes, is waited for by plain threads.
#[test]
fn what_only_takes_long_is_computed_once() {
    let Some((_, place)) = role() else {
        return run("what_only_takes_long_is_computed_once", "long");
    };
    let cache = open(&place);
    let runs = AtomicU32::new(0);
    let is_led = AtomicBool::new(false);
    let in_thread = cache.memoize_as("in a thread", |n: &u64| {
        runs.fetch_add(1, Ordering::SeqCst);
        is_led.store(true, Ordering::SeqCst);
        thread::scope(|scope| {
            scope.spawn(|| thread::sleep(Duration::from_secs(4))).join().unwrap()
        });
        n + 1
    });
    let asleep = cache.memoize_as("asleep", |n: &u64| {
        runs.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_secs(4) * u32::from(*n > 0));
        n + 1
    });
    // Known to take no time; but a leader that sleeps waits for no thread.
    assert_eq!(*asleep.call(&0), 1);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(*in_thread.call(&1), 2));
            scope.spawn(|| assert_eq!(*asleep.call(&1), 2));
        }
    });
    assert_eq!(runs.into_inner(), 3);
}
