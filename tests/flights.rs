//! One computation per key, however many threads, tasks and processes ask at once; and nobody waits
//! for ever.
#![allow(missing_docs)]

mod common;

use common::{Dir, command, finish, role, spawn};
use futures_lite::future::{block_on, poll_once, yield_now};
use persist_cache::{MmapCache, cache, rkyv};
use std::cell::Cell;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Once, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

const HALF_A_SECOND: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_secs(3600);

/// Notes in a file that a body ran, for all processes.
fn note(place: &Path) {
    let mut file = OpenOptions::new().create(true).append(true).open(place.join("runs")).unwrap();
    file.write_all(b".").unwrap();
}

fn noted(place: &Path) -> usize {
    fs::read(place.join("runs")).unwrap_or_default().len()
}

/// A cache in which nobody gives up waiting; if somebody should, this program is ended instead.
fn open(place: &Path) -> MmapCache {
    watch();
    let options = MmapCache::options().root(place).claim_timeout(LONG);
    options.lock_timeout(Duration::from_secs(60)).open("flights").unwrap()
}

/// Ends this program if it takes a hundred times as long as it should: then somebody waits for ever.
fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        drop(thread::spawn(|| {
            thread::sleep(Duration::from_secs(300));
            eprintln!("somebody waits for ever");
            std::process::abort();
        }))
    });
}

fn is_there(path: &Path) -> bool {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "{} never came", path.display());
        thread::sleep(Duration::from_millis(1));
    }
    true
}

#[test]
fn eight_threads_compute_once() {
    let dir = Dir::new();
    compute_once(&open(dir.path()));
}

/// Then other processes do not wait, and threads of one do.
#[test]
fn eight_threads_compute_once_where_there_can_be_no_sidecar() {
    let dir = Dir::new();
    let cache = open(dir.path());
    fs::create_dir(cache.path().with_extension("pcache.claims")).unwrap();
    compute_once(&cache);
}

fn compute_once(cache: &MmapCache) {
    let runs = AtomicU32::new(0);
    let slow = cache.memoize_as("slow", |n: &u64| {
        runs.fetch_add(1, Ordering::Relaxed);
        thread::sleep(HALF_A_SECOND);
        n + 1
    });
    let barrier = Barrier::new(8);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                barrier.wait();
                assert_eq!(*slow.call(&1), 2);
            });
        }
    });
    assert_eq!(runs.into_inner(), 1);
}

#[test]
fn eight_processes_compute_once() {
    if let Some((_, place)) = role() {
        let cache = open(&place);
        let slow = cache.memoize_as("slow", |n: &u64| {
            note(&place);
            thread::sleep(HALF_A_SECOND);
            n + 1
        });
        while !place.join("go").exists() {
            thread::sleep(Duration::from_millis(1));
        }
        return assert_eq!(*slow.call(&1), 2);
    }
    let dir = Dir::new();
    let test = "eight_processes_compute_once";
    let children: Vec<_> = (0..8).map(|_| spawn(test, "caller", dir.path())).collect();
    thread::sleep(Duration::from_millis(300));
    fs::write(dir.join("go"), "").unwrap();
    children.into_iter().map(finish).for_each(drop);
    assert_eq!(noted(dir.path()), 1);
}

#[test]
fn eight_tasks_of_tokio_compute_once() {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let dir = Dir::new();
    let slow = Arc::new(open(dir.path()).memoize_async(async |n: &u64| {
        RUNS.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(HALF_A_SECOND).await;
        n + 1
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let call = || {
            let slow = Arc::clone(&slow);
            tokio::spawn(async move { assert_eq!(*slow.call(&1).await, 2) })
        };
        let tasks: Vec<_> = (0..8).map(|_| call()).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(RUNS.load(Ordering::Relaxed), 1);
}

#[test]
fn eight_tasks_of_smol_compute_once() {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let dir = Dir::new();
    let cache = open(dir.path());
    let slow = cache.memoize_async(async |n: &u64| {
        RUNS.fetch_add(1, Ordering::Relaxed);
        smol::Timer::after(HALF_A_SECOND).await;
        n + 1
    });
    let executor = smol::LocalExecutor::new();
    smol::block_on(executor.run(async {
        let tasks: Vec<_> =
            (0..8).map(|_| executor.spawn(async { assert_eq!(*slow.call(&1).await, 2) })).collect();
        for task in tasks {
            task.await;
        }
    }));
    assert_eq!(RUNS.load(Ordering::Relaxed), 1);
}

#[test]
fn a_killed_leader_hands_over_within_a_second() {
    if let Some((role, place)) = role() {
        let slow = open(&place).memoize_as("slow", |n: &u64| {
            note(&place);
            if role == "leader" {
                thread::sleep(LONG);
            }
            n + 1
        });
        assert_eq!(*slow.call(&1), 2);
        return;
    }
    let dir = Dir::new();
    let test = "a_killed_leader_hands_over_within_a_second";
    let mut leader = spawn(test, "leader", dir.path());
    is_there(&dir.join("runs"));
    let mut others: Vec<_> = (0..2).map(|_| spawn(test, "other", dir.path())).collect();
    thread::sleep(Duration::from_millis(500));
    assert!(others.iter_mut().all(|other| other.try_wait().unwrap().is_none()), "they wait");
    assert_eq!(noted(dir.path()), 1);
    leader.kill().unwrap();
    leader.wait().unwrap();
    let start = Instant::now();
    others.into_iter().map(finish).for_each(drop);
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "an hour's computation died with its leader"
    );
    assert_eq!(noted(dir.path()), 2, "one of the others computed");
}

#[test]
fn a_leader_that_panics_or_fails_hands_over() {
    let dir = Dir::new();
    let cache = open(dir.path());
    let runs = AtomicU32::new(0);
    let waiting = Barrier::new(4);
    let fails_first = cache.try_memoize_as("fails", |n: &u64| {
        let run = runs.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(100));
        match run {
            0 => panic!("the first one panics"),
            1 => Err("the second fails"),
            _ => Ok(n + 1),
        }
    });
    let results: Vec<_> = thread::scope(|scope| {
        let call = || {
            waiting.wait();
            fails_first.call(&1).map(|value| value.to_native())
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(call)).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1);
    assert_eq!(results.iter().flatten().filter(|result| result.is_err()).count(), 1);
    assert_eq!(results.iter().flatten().filter(|result| **result == Ok(2)).count(), 2);
    assert_eq!(runs.into_inner(), 3);
}

#[test]
fn a_dropped_leader_hands_over() {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let dir = Dir::new();
    let slow = open(dir.path()).memoize_async(async |n: &u64| {
        if RUNS.fetch_add(1, Ordering::Relaxed) == 0 {
            std::future::pending::<()>().await;
        }
        yield_now().await;
        n + 1
    });
    block_on(async {
        let mut leader = Box::pin(slow.call(&1));
        // Which first waits for another thread that opens the sidecar.
        while RUNS.load(Ordering::Relaxed) == 0 {
            assert!(poll_once(&mut leader).await.is_none());
        }
        let mut other = Box::pin(slow.call(&1));
        assert!(poll_once(&mut other).await.is_none());
        assert_eq!(RUNS.load(Ordering::Relaxed), 1, "the other waits");
        drop(leader);
        assert_eq!(*other.await, 2);
        assert_eq!(RUNS.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn distinct_keys_never_wait_for_each_other() {
    let dir = Dir::new();
    let cache = open(dir.path());
    let together = Barrier::new(8);
    let slow = cache.memoize_as("slow", |n: &u64| {
        together.wait(); // Comes back when eight computations are under way at once.
        n + 1
    });
    thread::scope(|scope| {
        let slow = &slow;
        (0..8).for_each(|n| drop(scope.spawn(move || assert_eq!(*slow.call(&n), n + 1))));
    });
}

#[test]
fn it_can_be_turned_off() {
    let dir = Dir::new();
    let options = MmapCache::options().root(dir.path()).claim_timeout(Duration::ZERO);
    let cache = options.open("flights").unwrap();
    let together = Barrier::new(4);
    let slow = cache.memoize_as("slow", |n: &u64| {
        together.wait();
        n + 1
    });
    thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(|| assert_eq!(*slow.call(&1), 2)))));
    assert!(!cache.path().with_extension("pcache.claims").exists());
}

#[test]
fn a_wait_has_a_deadline() {
    let dir = Dir::new();
    let options = MmapCache::options().root(dir.path()).claim_timeout(Duration::from_millis(100));
    let cache = options.open("flights").unwrap();
    // The computation waits for a thread that asks for its own result: nobody can see that.
    let circle = cache.memoize_as("circle", |n: &u64| {
        let again = cache.memoize_as("circle", |n: &u64| n + 1);
        thread::scope(|scope| scope.spawn(|| again.call(n).to_native()).join().unwrap())
    });
    assert_eq!(*circle.call(&1), 2);
}

/// Where the functions below keep their caches: in the process's role, or in a place of its own.
fn root() -> PathBuf {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    let own = || tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory").keep();
    watch();
    ROOT.get_or_init(|| role().map_or_else(own, |(_, place)| place)).clone()
}

#[cache(root = root(), claim_timeout = "1h")]
fn fib(n: u64) -> u64 {
    note(&root());
    thread::sleep(Duration::from_millis(1));
    if n < 2 { n } else { fib(n - 1) + fib(n - 2) }
}

#[cache(root = root(), claim_timeout = "1h")]
fn is_even(n: u64) -> bool {
    thread::sleep(Duration::from_millis(1));
    n == 0 || is_odd(n - 1)
}

#[cache(root = root(), claim_timeout = "1h")]
fn is_odd(n: u64) -> bool {
    thread::sleep(Duration::from_millis(1));
    n != 0 && is_even(n - 1)
}

/// In a circle: each calls the other at the same argument, from both ends.
#[cache(root = root(), claim_timeout = "1h")]
fn ping(n: u64, depth: u64) -> u64 {
    thread::sleep(Duration::from_millis(5));
    if depth == 0 { n } else { pong(1 - n, depth - 1) + 1 }
}

#[cache(root = root(), claim_timeout = "1h")]
fn pong(n: u64, depth: u64) -> u64 {
    thread::sleep(Duration::from_millis(5));
    if depth == 0 { n } else { ping(1 - n, depth - 1) + 1 }
}

fn recurse(seed: u64) {
    for n in 0..2 {
        ping((n + seed) % 2, 6 + (seed + n) % 3);
        pong((n + seed) % 2, 6 + (seed + n) % 3);
    }
    assert_eq!(fib(30), 832_040);
    assert!(is_even(40) && !is_odd(40));
}

#[cache(root = root(), claim_timeout = "1h")]
async fn async_fib(n: u64) -> u64 {
    yield_now().await;
    if n < 2 { n } else { Box::pin(async_fib(n - 1)).await + Box::pin(async_fib(n - 2)).await }
}

#[test]
fn recursion_under_threads_tasks_and_processes() {
    if let Some((role, _)) = role() {
        let seed: u64 = role.parse().unwrap();
        thread::scope(|scope| (0..4).for_each(|n| drop(scope.spawn(move || recurse(seed + n)))));
        return;
    }
    let dir = Dir::new();
    let test = "recursion_under_threads_tasks_and_processes";
    let children: Vec<_> = (0..4).map(|seed| spawn(test, &seed.to_string(), dir.path())).collect();
    children.into_iter().map(finish).for_each(drop);
    thread::scope(|scope| (0..8).for_each(|seed| drop(scope.spawn(move || recurse(seed)))));
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    threads.block_on(async {
        let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(async_fib(40))).collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), 102_334_155);
        }
    });
}

#[cache(root = root(), claim_timeout = "1h")]
fn meet(n: u64) -> u64 {
    thread_local! { static IS_INNER: Cell<bool> = const { Cell::new(false) } }
    if IS_INNER.replace(true) {
        return n;
    }
    let sign = |n: u64| root().join(format!("leads {n}"));
    fs::write(sign(n), "").unwrap();
    assert!(is_there(&sign(1 - n)));
    10 + meet(1 - n)
}

/// Each of two processes leads what the other one calls for: who leads waits for nobody.
#[test]
fn leaders_that_call_for_each_other_compute() {
    if let Some((role, _)) = role() {
        let n: u64 = role.parse().unwrap();
        assert!(meet(n) >= 10);
        return;
    }
    let dir = Dir::new();
    let test = "leaders_that_call_for_each_other_compute";
    let children = [0, 1].map(|n| spawn(test, &n.to_string(), dir.path()));
    children.into_iter().map(finish).for_each(drop);
}

/// While another process holds the file's lock, the timers of a single-threaded runtime go on.
#[test]
fn an_executor_is_never_blocked() {
    if let Some((_, place)) = role() {
        let path = open(&place).path().to_path_buf();
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        fs4::FileExt::lock(&file).unwrap();
        fs::write(place.join("locked"), "").unwrap();
        thread::sleep(HALF_A_SECOND * 6);
        return;
    }
    let dir = Dir::new();
    let cache = open(dir.path());
    let small = cache.memoize_async(async |n: &u64| n + 1);
    let large = cache.memoize_async(async |n: &u64| vec![*n; 100_000]);
    let stream = cache.memoize_stream(|n: &u64| futures_lite::stream::iter(0..*n));
    let holder = spawn("an_executor_is_never_blocked", "holder", dir.path());
    is_there(&dir.join("locked"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let is_done = Cell::new(false);
        let mut last = Instant::now();
        let ticks = async {
            let mut longest = Duration::ZERO;
            while !is_done.get() {
                tokio::time::sleep(Duration::from_millis(5)).await;
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            longest
        };
        let work = async {
            let items = async {
                use futures_lite::StreamExt as _;
                stream.call(&3).collect::<Vec<_>>().await
            };
            let pair = futures_lite::future::zip(small.call(&1), large.call(&2));
            let ((one, many), items) = futures_lite::future::zip(pair, items).await;
            assert_eq!((one.to_native(), many.len(), items.len()), (2, 100_000, 3));
            is_done.set(true);
        };
        let ((), longest) = futures_lite::future::zip(work, ticks).await;
        assert!(longest < HALF_A_SECOND * 3, "a timer came {longest:?} after the one before");
    });
    finish(holder);
    assert_eq!(cache.stats().entries, 3, "what had to wait was stored");
    assert_eq!(cache.stats().store_errors, 0);
}

/// Another process computes: tasks of a single-threaded runtime wait for it, and the runtime goes on.
#[test]
fn a_task_waits_for_another_process() {
    if let Some((_, place)) = role() {
        let cache = open(&place);
        let slow = cache.memoize_as("slow", |n: &u64| {
            note(&place);
            thread::sleep(HALF_A_SECOND * 4);
            n + 1
        });
        return drop(slow.call(&1));
    }
    let dir = Dir::new();
    let leader = spawn("a_task_waits_for_another_process", "leader", dir.path());
    is_there(&dir.join("runs"));
    let cache = open(dir.path());
    let slow = cache.memoize_async_as("slow", async |n: &u64| {
        note(dir.path());
        n + 1
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (value, ticks) = runtime.block_on(async {
        let mut ticks = 0;
        let mut call = pin!(slow.call(&1));
        loop {
            tokio::select! {
                value = &mut call => break (value.to_native(), ticks),
                () = tokio::time::sleep(Duration::from_millis(5)) => ticks += 1,
            }
        }
    });
    finish(leader);
    assert_eq!((value, noted(dir.path())), (2, 1));
    assert!(ticks > 2, "the runtime went on: {ticks}");
}

#[test]
fn a_child_that_is_killed_with_a_claim_leaves_none() {
    if let Some((_, place)) = role() {
        let aborts = open(&place).memoize_as("slow", |_: &u64| -> u64 {
            note(&place);
            std::process::abort();
        });
        return drop(aborts.call(&1));
    }
    let dir = Dir::new();
    let mut child = command("a_child_that_is_killed_with_a_claim_leaves_none", "x", dir.path());
    assert!(!child.output().unwrap().status.success());
    assert_eq!(noted(dir.path()), 1);
    let start = Instant::now();
    assert_eq!(*open(dir.path()).memoize_as("slow", |n: &u64| n + 1).call(&1), 2);
    assert!(start.elapsed() < Duration::from_secs(30));
}

/// Where the result cannot be kept, or is not to be, nobody waits for it: all compute at once.
#[test]
fn what_cannot_be_stored_is_not_waited_for() {
    let dir = Dir::new();
    let all_at_once = |cache: &MmapCache| {
        let together = Barrier::new(4);
        let slow = cache.memoize_as("slow", |n: &u64| {
            together.wait();
            n + 1
        });
        thread::scope(|scope| {
            (0..4).for_each(|_| drop(scope.spawn(|| assert_eq!(*slow.call(&1), 2))));
        });
    };
    let cache = open(dir.path());
    cache.set_expiry(Duration::ZERO);
    all_at_once(&cache);
    let options = MmapCache::options().root(dir.path()).claim_timeout(LONG);
    all_at_once(&options.read_only(true).open("flights").unwrap());
}

/// What the first one could not store the others need not try to one after the other.
#[test]
fn a_leader_that_cannot_store_frees_all_others() {
    let dir = Dir::new();
    watch();
    let options = MmapCache::options().root(dir.path()).claim_timeout(LONG);
    let cache = options.lock_timeout(Duration::from_millis(50)).open("flights").unwrap();
    let file = OpenOptions::new().read(true).write(true).open(cache.path()).unwrap();
    fs4::FileExt::lock(&file).unwrap();
    let (runs, start, others) = (AtomicU32::new(0), Barrier::new(4), Barrier::new(3));
    let slow = cache.memoize_as("slow", |n: &u64| {
        match runs.fetch_add(1, Ordering::Relaxed) {
            0 => thread::sleep(HALF_A_SECOND * 4), // By then the others wait.
            _ => drop(others.wait()),
        }
        n + 1
    });
    thread::scope(|scope| {
        let call = || {
            start.wait();
            assert_eq!(*slow.call(&1), 2);
        };
        (0..4).for_each(|_| drop(scope.spawn(call)));
    });
    assert_eq!(runs.load(Ordering::Relaxed), 4);
}

/// Two stores of one file have nothing in common but the file and its sidecar, as two processes have.
#[test]
fn claims_go_on_after_the_files_were_removed() {
    let dir = Dir::new();
    let runs = AtomicU32::new(0);
    let (one, other) = (open(dir.path()), {
        let options = MmapCache::options().root(dir.path()).claim_timeout(LONG);
        options.open_at(common::apart(open(dir.path()).path())).unwrap()
    });
    let slow = |n: &u64| {
        runs.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(200));
        n + 1
    };
    let (one_slow, other_slow) = (one.memoize_as("slow", slow), other.memoize_as("slow", slow));
    let both = |n: u64| {
        thread::scope(|scope| {
            scope.spawn(|| assert_eq!(*one_slow.call(&n), n + 1));
            scope.spawn(|| assert_eq!(*other_slow.call(&n), n + 1));
        });
        runs.swap(0, Ordering::Relaxed)
    };
    assert_eq!(both(1), 1);
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::remove_file(path).unwrap();
        }
    }
    // Each of them finds out at a miss, a moment later.
    thread::sleep(Duration::from_millis(150));
    assert!(one_slow.peek(&2).is_none() && other_slow.peek(&2).is_none());
    assert_eq!(both(3), 1);
}

/// Tasks that wait and are given up leave nothing behind, and do not keep the others.
#[test]
fn a_thousand_tasks_and_as_many_that_gave_up() {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let dir = Dir::new();
    let slow = open(dir.path()).memoize_async(async |n: &u64| {
        RUNS.fetch_add(1, Ordering::Relaxed);
        smol::Timer::after(Duration::from_millis(100)).await;
        n + 1
    });
    let executor = smol::LocalExecutor::new();
    smol::block_on(executor.run(async {
        let call = || executor.spawn(async { assert_eq!(*slow.call(&1).await, 2) });
        let tasks: Vec<_> = (0..1000).map(|_| call()).collect();
        let given_up: Vec<_> = (0..1000).map(|_| call()).collect();
        yield_now().await;
        drop(given_up);
        for task in tasks {
            task.await;
        }
    }));
    assert_eq!(RUNS.load(Ordering::Relaxed), 1);
}

/// A wait without an end is one, in tasks too.
#[test]
fn a_timeout_may_be_as_long_as_durations_are() {
    let dir = Dir::new();
    watch();
    let options = MmapCache::options().root(dir.path()).claim_timeout(Duration::MAX);
    let slow = options.open("flights").unwrap().memoize_async(async |n: &u64| {
        yield_now().await;
        n + 1
    });
    let (one, other) = block_on(futures_lite::future::zip(slow.call(&1), slow.call(&1)));
    assert_eq!((one.to_native(), other.to_native()), (2, 2));
}

#[cache(root = root(), claim_timeout = "1h")]
async fn borrowing(text: &str, bytes: &[u8]) -> Result<u64, std::num::ParseIntError> {
    yield_now().await;
    Ok(text.parse::<u64>()? + bytes.len() as u64)
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = persist_cache::rkyv)]
struct Unshared {
    n: u64,
    #[rkyv(with = rkyv::with::Skip)]
    cell: std::cell::Cell<u64>,
}

#[cache(root = root(), claim_timeout = "1h")]
async fn unshared(n: u64) -> Unshared {
    yield_now().await;
    Unshared { n, cell: std::cell::Cell::new(n) }
}

/// A value whose archive no two threads may share.
struct Apart(u64);

#[derive(rkyv::Portable, rkyv::bytecheck::CheckBytes)]
#[rkyv(crate = persist_cache::rkyv)]
#[bytecheck(crate = persist_cache::rkyv::bytecheck)]
#[repr(C)]
struct ArchivedApart {
    n: rkyv::rend::u64_le,
    cell: PhantomData<Cell<u64>>,
}

impl rkyv::Archive for Apart {
    type Archived = ArchivedApart;
    type Resolver = ();
    #[expect(unsafe_code, reason = "within munge")]
    fn resolve(&self, (): (), out: rkyv::Place<ArchivedApart>) {
        rkyv::munge::munge!(let ArchivedApart { n, .. } = out);
        n.write(self.0.into());
    }
}

impl<S: rkyv::rancor::Fallible + ?Sized> rkyv::Serialize<S> for Apart {
    fn serialize(&self, _: &mut S) -> Result<(), S::Error> {
        Ok(())
    }
}

impl<D: rkyv::rancor::Fallible + ?Sized> rkyv::Deserialize<Apart, D> for ArchivedApart {
    fn deserialize(&self, _: &mut D) -> Result<Apart, D::Error> {
        Ok(Apart(self.n.to_native()))
    }
}

#[cache(root = root(), claim_timeout = "1h")]
async fn apart(n: u64) -> Apart {
    yield_now().await;
    Apart(n)
}

/// What is `Send` without a cache is with one: arguments that are borrowed, values that cannot be shared.
#[test]
fn futures_can_be_sent() {
    fn sent<F: Future + Send>(future: F) -> F {
        future
    }
    let dir = Dir::new();
    assert_eq!((block_on(sent(apart(1))).0, block_on(sent(apart(1))).0), (1, 1));
    let closure = open(dir.path()).memoize_async(async |n: &u64| unshared::uncached(*n).await);
    let text = String::from("40");
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    let spawned = runtime.spawn(async { borrowing("40", &[1, 2]).await });
    assert_eq!(runtime.block_on(spawned).unwrap(), Ok(42));
    assert_eq!(block_on(sent(borrowing(&text, &[1, 2]))), Ok(42));
    assert_eq!(block_on(sent(borrowing::refresh(&text, &[1, 2]))), Ok(42));
    let value = block_on(sent(unshared(1)));
    assert_eq!((value.n, value.cell.get()), (1, 1));
    block_on(sent(async move { assert_eq!(closure.call(&1).await.n, 1) }));
}

/// A child that is forked within a computation, and ends it too, does not give its parent's claim up.
#[test]
#[expect(unsafe_code, reason = "fork")]
fn a_forked_child_leaves_the_claim_alone() {
    const TEST: &str = "a_forked_child_leaves_the_claim_alone";
    if let Some((role, place)) = role() {
        let is_leader = role == "leader";
        let is_child = AtomicU32::new(0);
        let slow = open(&place).memoize_as("slow", |n: &u64| {
            note(&place);
            if is_leader {
                // SAFETY: the child goes on with this thread alone, and ends below.
                if unsafe { libc::fork() } == 0 {
                    is_child.store(1, Ordering::Relaxed);
                    panic!("the child has no result");
                }
                thread::sleep(HALF_A_SECOND * 2);
            }
            n + 1
        });
        let call = std::panic::AssertUnwindSafe(|| assert_eq!(*slow.call(&1), 2));
        let called = std::panic::catch_unwind(call);
        if is_child.load(Ordering::Relaxed) == 1 {
            // SAFETY: ends the child without running what is the parent's.
            unsafe { libc::_exit(0) };
        }
        return called.unwrap();
    }
    let dir = Dir::new();
    let leader = spawn(TEST, "leader", dir.path());
    is_there(&dir.join("runs"));
    thread::sleep(HALF_A_SECOND);
    let other = spawn(TEST, "other", dir.path());
    finish(other);
    finish(leader);
    assert_eq!(noted(dir.path()), 1);
}

/// Who clears away old files may take the sidecar alone. A process that comes later claims in a new one.
#[test]
fn claims_go_on_after_the_sidecar_was_removed() {
    let dir = Dir::new();
    let runs = AtomicU32::new(0);
    // Of another spelling, which is another store, as another process has it.
    let open = |spelling: &str| {
        fs::create_dir(dir.join(spelling)).unwrap();
        open(&dir.join(spelling).join(".."))
    };
    let slow = |n: &u64| {
        runs.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(200));
        n + 1
    };
    let one = open("one");
    let one_slow = one.memoize_as("slow", slow);
    assert_eq!(*one_slow.call(&1), 2);
    let sidecar = one.path().with_extension("pcache.claims");
    for n in 0..3 {
        fs::remove_file(&sidecar).unwrap();
        let other = open(&n.to_string());
        let other_slow = other.memoize_as("slow", slow);
        for key in [10 * n + 2, 10 * n + 3] {
            runs.store(0, Ordering::Relaxed);
            thread::scope(|scope| {
                scope.spawn(|| assert_eq!(*one_slow.call(&key), key + 1));
                scope.spawn(|| assert_eq!(*other_slow.call(&key), key + 1));
            });
            assert_eq!(runs.load(Ordering::Relaxed), 1, "{key}");
        }
        assert!(sidecar.exists());
    }
}
