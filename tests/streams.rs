//! Iterators and streams: every item once, stored when the last has passed and not before, read one
//! by one; with a failure after each item.
#![allow(missing_docs)]

mod common;

use common::{Dir, finish, mix, role, spawn};
use futures_lite::future::block_on;
use futures_lite::{Stream, StreamExt as _, stream};
use persist_cache::{MmapCache, cache};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::OnceLock;

fn text(n: u64) -> String {
    "x".repeat((mix(n) % 100) as usize) + &n.to_string()
}

fn texts(count: u64) -> Vec<String> {
    (0..count).map(text).collect()
}

#[test]
fn items_pass_through_one_by_one() {
    let dir = Dir::new();
    let cache = dir.open("items");
    let made = Cell::new(0);
    let function = cache.memoize_iter_as("texts", |count: &u64| {
        let made = &made;
        (0..*count).map(move |n| {
            made.set(n + 1);
            text(n)
        })
    });
    let mut items = function.call(&1000);
    for n in 0..1000 {
        assert_eq!(items.next(), Some(text(n)));
        assert_eq!(made.get(), n + 1, "computed when it is asked for, not before");
        assert_eq!(cache.stats().entries, 0, "nothing is stored before the last has passed");
    }
    assert_eq!((items.next(), items.next()), (None, None));
    assert_eq!(cache.stats().entries, 1);
    made.set(0);
    assert_eq!(function.call(&1000).collect::<Vec<_>>(), texts(1000));
    assert_eq!(function.call(&1000).size_hint(), (1000, Some(1000)));
    assert_eq!(made.get(), 0);
    assert!(function.forget(&1000).unwrap());
    assert_eq!(function.call(&3).collect::<Vec<_>>(), texts(3));
    assert_eq!(made.get(), 3);
}

#[test]
fn whatever_their_number_and_size() {
    let dir = Dir::new();
    let cache = dir.open("items");
    let units = cache.memoize_iter(|count: &u64| (0..*count).map(|_| ()));
    let bytes = cache.memoize_iter(|count: &u64| (0..*count).map(|n| n as u8));
    let wide = cache.memoize_iter(|count: &u64| (0..*count).map(|n| (n as u8, u128::from(n))));
    let large = cache.memoize_iter(|count: &u64| (0..*count).map(|n| vec![n; 100_000]));
    for _ in 0..2 {
        for count in [0, 1, 2, 4095, 4096, 16_383, 16_384, 16_385, 200_000] {
            assert_eq!(units.call(&count).count() as u64, count);
            assert!(bytes.call(&count).eq((0..count).map(|n| n as u8)));
            assert!(wide.call(&count).eq((0..count).map(|n| (n as u8, u128::from(n)))));
        }
        assert!(large.call(&5).eq((0..5).map(|n| vec![n; 100_000])));
    }
    assert_eq!(cache.stats().misses, 28);
    assert_eq!(cache.verify().unwrap().findings, []);
    assert_eq!(cache.compact().unwrap().entries_kept, 28);
    // In the new file, they are met for the first time, and checked whole.
    assert!(bytes.call(&200_000).eq((0..200_000_u64).map(|n| n as u8)));
    assert!(large.call(&5).eq((0..5).map(|n| vec![n; 100_000])));
    assert_eq!(units.call(&16_385).count(), 16_385);
    assert_eq!(cache.stats().misses, 28);
}

/// What ends an iteration early.
#[derive(Clone, Copy, Debug)]
enum End {
    Dropped,
    Error,
    Panic,
    Cleared,
    Forgotten,
}

fn root() -> PathBuf {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    let own = || tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory").keep();
    ROOT.get_or_init(own).clone()
}

thread_local! {
    static RUNS: Cell<u64> = const { Cell::new(0) };
}
const COUNT: u64 = 20;

/// Gives items up to `end`, where it gives an error (kind 1) or panics (kind 2).
#[cache(root = root())]
fn fallible(kind: u8, end: u64, _case: u64) -> impl Iterator<Item = Result<String, u64>> + use<> {
    RUNS.set(RUNS.get() + 1);
    (0..COUNT).map(move |n| match kind {
        1 if n == end => Err(n),
        2 if n == end => panic!("at item {n}"),
        _ => Ok(text(n)),
    })
}

#[cache(root = root())]
fn fallible_stream(
    kind: u8,
    end: u64,
    _case: u64,
) -> impl futures_core::Stream<Item = Result<String, u64>> + use<> {
    futures_lite::stream::iter(fallible::uncached(kind, end, 0))
}

#[test]
fn what_does_not_end_is_not_stored() {
    let mut case = 0;
    for end in 0..COUNT {
        for how in [End::Dropped, End::Error, End::Panic, End::Cleared, End::Forgotten] {
            case += 1;
            let kind = match how {
                End::Error => 1,
                End::Panic => 2,
                _ => 0,
            };
            let mut items = fallible(kind, end, case);
            let before: Vec<_> = items.by_ref().take(end as usize).collect();
            assert_eq!(before, texts(end).into_iter().map(Ok).collect::<Vec<_>>(), "{how:?}");
            match how {
                End::Dropped => drop(items),
                End::Error => {
                    assert_eq!(items.next(), Some(Err(end)));
                    assert_eq!(
                        items.count() as u64,
                        COUNT - end - 1,
                        "the rest comes all the same"
                    );
                }
                End::Panic => {
                    assert!(catch_unwind(AssertUnwindSafe(|| items.next())).is_err());
                    assert_eq!(items.count() as u64, COUNT - end - 1);
                }
                End::Cleared => {
                    fallible::clear().unwrap();
                    assert_eq!(items.count() as u64, COUNT - end);
                }
                End::Forgotten => {
                    fallible::forget(kind, end, case).unwrap();
                    assert_eq!(items.count() as u64, COUNT - end);
                }
            }
            let runs = RUNS.take();
            assert_eq!(fallible(0, end, case).count() as u64, COUNT);
            drop(fallible(kind, end, case));
            assert!(RUNS.take() > 0 || kind == 0, "{how:?} at {end} was stored");
            assert_eq!(runs, 1);
        }
    }
}

#[test]
fn a_stream_that_does_not_end_is_not_stored() {
    for end in 0..COUNT {
        for (kind, case) in [(0, 1000 + end), (1, end), (2, end)] {
            let mut items = Box::pin(fallible_stream(kind, end, case));
            block_on(async {
                for n in 0..end {
                    assert_eq!(items.next().await, Some(Ok(text(n))));
                }
                match kind {
                    1 => assert_eq!(items.next().await, Some(Err(end))),
                    2 => {
                        let next = AssertUnwindSafe(items.next());
                        assert!(catch_unwind(|| block_on({ next }.0)).is_err());
                    }
                    _ => return drop(items),
                }
                assert_eq!(items.count().await as u64, COUNT - end - 1);
            });
            assert_eq!(fallible_stream::stats().entries, 0);
        }
    }
    block_on(async {
        let all = fallible_stream(0, 0, 0).map(Result::unwrap).collect::<Vec<_>>().await;
        assert_eq!(all, texts(COUNT));
        assert_eq!(fallible_stream::stats().entries, 1);
        let all = fallible_stream(0, 0, 0).map(Result::unwrap).collect::<Vec<_>>().await;
        assert_eq!(all, texts(COUNT));
    });
}

/// If recording fails after any number of items, each is still delivered once.
#[test]
fn items_come_when_they_cannot_be_stored() {
    // In a process of its own: the limit is for all of it.
    if role().is_none() {
        let test = "items_come_when_they_cannot_be_stored";
        return drop(finish(spawn(test, "alone", Dir::new().path())));
    }
    let dir = Dir::new();
    for limit in (0..6).map(|n| n << 18) {
        let place = dir.join(&format!("{limit}"));
        std::fs::create_dir(&place).unwrap();
        let cache = MmapCache::options().root(&place).open("full").unwrap();
        let function = cache.memoize_iter(|count: &u64| (0..*count).map(|n| [n; 64]));
        let expected = || (0..4000).map(|n| [n; 64]);
        let soft = rustix::process::getrlimit(rustix::process::Resource::Fsize);
        let low = rustix::process::Rlimit { current: Some(limit), ..soft };
        // A file that may not grow: the spool first, then the cache itself.
        rustix::process::setrlimit(rustix::process::Resource::Fsize, low).unwrap();
        let items: Vec<_> = function.call(&4000).collect();
        rustix::process::setrlimit(rustix::process::Resource::Fsize, soft).unwrap();
        assert!(items.iter().copied().eq(expected()), "with files of {limit} bytes at most");
        assert_eq!((cache.stats().entries, cache.stats().store_errors), (0, 1));
        assert!(function.call(&4000).eq(expected()));
        assert_eq!(cache.stats().entries, 1, "and later they are");
    }
}

#[test]
fn a_disabled_cache_passes_items_on() {
    let disabled = MmapCache::disabled().memoize_iter(|count: &u64| 0..*count);
    assert_eq!(disabled.call(&3).collect::<Vec<_>>(), [0, 1, 2]);
}

/// Neither recording nor replaying a million items takes memory for more than a few of them.
#[test]
fn a_million_items_need_no_memory() {
    if role().is_none() {
        let test = "a_million_items_need_no_memory";
        return drop(finish(spawn(test, "alone", Dir::new().path())));
    }
    let dir = Dir::new();
    let cache = dir.open("items");
    let function = cache.memoize_iter(|count: &u64| (0..*count).map(|n| [n; 8]));
    let measure = |what: &str| {
        let before = anonymous_memory();
        let mut most = 0;
        for (n, item) in function.call(&1_000_000).enumerate() {
            assert_eq!(item[7], n as u64);
            if n % 50_000 == 0 {
                most = most.max(anonymous_memory());
            }
        }
        let grown = most.max(anonymous_memory()).saturating_sub(before);
        assert!(grown < 12 << 20, "{what} 64 MB of items took {grown} bytes");
    };
    measure("recording");
    measure("replaying");
    assert_eq!(cache.stats().misses, 1);
}

/// What this process has of its own, files in memory left out.
fn anonymous_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

#[cache(root = root(), record_limit = "1MiB")]
fn endless(step: u64) -> impl Iterator<Item = u64> {
    (0..).map(move |n| n * step)
}

#[cache(root = root(), record_limit = 1 << 20)]
fn endless_stream(step: u64) -> impl Stream<Item = u64> {
    stream::iter((0..).map(move |n| n * step))
}

#[cache(root = root(), record_limit = "1 kB")]
fn bytes(length: usize) -> Vec<u8> {
    vec![7; length]
}

/// Beyond the limit the items go on, unrecorded; a plain result is returned, and not stored.
#[test]
fn what_is_over_the_limit_is_given_and_not_stored() {
    const MANY: usize = 1 << 20;
    assert_eq!(endless(3).take(MANY).last(), Some(3 * (MANY as u64 - 1)));
    assert_eq!(endless::stats().store_errors, 1);
    let last = block_on(endless_stream(3).take(MANY).last());
    assert_eq!((last, endless_stream::stats().store_errors), (Some(3 * (MANY as u64 - 1)), 1));
    let allocated = std::fs::metadata(endless::cache().path()).unwrap().len();
    assert!(allocated < 1 << 20, "nothing of it was stored: {allocated}");

    assert_eq!((bytes(900).len(), bytes(900).len()), (900, 900));
    assert_eq!((bytes(1001).len(), bytes(1001).len()), (1001, 1001));
    let stats = bytes::stats();
    assert_eq!((stats.entries, stats.hits, stats.store_errors), (1, 1, 2));
}

#[cache(root = root())]
fn renewed(count: u64) -> impl Stream<Item = u64> {
    static CALLS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let call = CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    stream::iter((0..count).map(move |n| n + 100 * call))
}

/// The file is let go of while nobody looks, once another process has compacted it. What is computed then is
/// stored all the same.
#[test]
fn a_stream_is_stored_after_another_compacted() {
    let all = |stream: CachedStreamOf| block_on(stream.collect::<Vec<_>>());
    assert_eq!(all(Box::pin(renewed(2))), [0, 1]);
    let other = MmapCache::open_at(common::apart(renewed::cache().path())).unwrap();
    for pause in [0, 1500] {
        other.compact().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(pause)); // Time enough to let go of it.
        let fresh = all(Box::pin(renewed::refresh(2)));
        assert_eq!(all(Box::pin(renewed(2))), fresh, "after {pause} ms");
    }
    other.compact().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let missed = all(Box::pin(renewed(3)));
    assert_eq!(all(Box::pin(renewed(3))), missed);
    assert_eq!(renewed::stats().store_errors, 0);
}

type CachedStreamOf = std::pin::Pin<Box<dyn Stream<Item = u64>>>;
