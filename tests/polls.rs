//! What a task leaves to other threads: it has large values checked, and a stream's cache opened, elsewhere.
#![allow(missing_docs)]

mod common;

use common::{Dir, apart, finish, role, spawn};
use futures_lite::future::block_on;
use futures_lite::{Stream, StreamExt as _, stream};
use persist_cache::rkyv::bytecheck::Verify;
use persist_cache::rkyv::rancor::{Fallible, Source};
use persist_cache::rkyv::{Archive, Deserialize, Serialize};
use persist_cache::{MmapCache, OpenOptions, cache};
use std::future::Future;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Waker};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// A value that notes who checks it.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = persist_cache::rkyv, bytecheck(verify))]
struct Watched {
    bytes: Vec<u8>,
}

impl Watched {
    fn of(size: u64) -> Watched {
        Watched { bytes: vec![size as u8; size as usize] }
    }
}

static CHECKS: Mutex<Vec<(u64, ThreadId)>> = Mutex::new(Vec::new());

// SAFETY: it demands nothing of the value.
#[expect(unsafe_code, reason = "the trait is unsafe")]
unsafe impl<C: Fallible<Error: Source> + ?Sized> Verify<C> for ArchivedWatched {
    fn verify(&self, _: &mut C) -> Result<(), C::Error> {
        let size = self.bytes.len() as u64;
        CHECKS.lock().unwrap().push((size, std::thread::current().id()));
        Ok(())
    }
}

/// Who has checked values of this size since this was last asked: how often this thread, and how often others.
/// Each test has sizes of its own.
fn checks_of(size: u64) -> (usize, usize) {
    let of_size = |check: &mut (u64, ThreadId)| check.0 == size;
    let checks: Vec<_> = CHECKS.lock().unwrap().extract_if(.., of_size).collect();
    let own = checks.iter().filter(|(_, thread)| *thread == std::thread::current().id()).count();
    (own, checks.len() - own)
}

/// The same cache, as another process has it.
fn other(cache: &MmapCache, options: OpenOptions) -> MmapCache {
    options.open_at(apart(cache.path())).unwrap()
}

fn options() -> OpenOptions {
    MmapCache::options()
}

#[test]
fn a_task_has_large_values_checked_elsewhere() {
    let dir = Dir::new();
    let cache = dir.open("x");
    let (small, large) = (1_000, 100_000);
    let watched = cache.memoize_as("watched", |size: &u64| Watched::of(*size));
    [small, large].iter().for_each(|size| drop(watched.call(size)));
    for options in [options(), options().copy_reads()] {
        let other = other(&cache, options);
        let runs = AtomicU32::new(0);
        let watched = other.memoize_async_as("watched", async |size: &u64| {
            runs.fetch_add(1, Ordering::Relaxed);
            Watched::of(*size)
        });
        let _ = (checks_of(small), checks_of(large));
        block_on(async {
            assert_eq!(watched.call(&small).await.bytes.len() as u64, small);
            assert_eq!(checks_of(small), (1, 0));
            assert_eq!(watched.call(&large).await.bytes.len() as u64, large);
            assert_eq!(checks_of(large), (0, 1));
        });
        assert_eq!(runs.load(Ordering::Relaxed), 0);
        assert_eq!((other.stats().hits, other.stats().misses), (2, 0));
    }
}

/// One that another process stores while this one computes.
#[test]
fn a_large_value_that_came_meanwhile_is_checked_elsewhere() {
    let dir = Dir::new();
    let cache = dir.open("x");
    let size = 100_016;
    let other = other(&cache, options().claim_timeout(std::time::Duration::ZERO));
    let watched = other.memoize_async_as("watched", async |size: &u64| {
        let theirs = cache.memoize_as("watched", |size: &u64| Watched::of(*size));
        drop(theirs.call(size));
        checks_of(*size);
        // Brief by itself.
        Watched::of(16)
    });
    assert_eq!(block_on(watched.call(&size)).bytes.len() as u64, size, "theirs was first");
    assert_eq!(checks_of(size), (0, 1));
    assert_eq!(other.stats().store_errors, 0);
}

/// What is damaged is found out there, and computed anew.
#[test]
fn a_large_value_that_is_damaged_is_computed_anew() {
    let dir = Dir::new();
    let cache = dir.open("x");
    let size = 100_032;
    drop(cache.memoize_as("watched", |size: &u64| Watched::of(*size)).call(&size));
    let path = cache.path().to_path_buf();
    let image = std::fs::read(&path).unwrap();
    let stored = vec![size as u8; size as usize];
    let at = image.windows(stored.len()).position(|window| window == stored).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[1], (at + 50_000) as u64).unwrap();
    let other = other(&cache, options());
    let runs = AtomicU32::new(0);
    let watched = other.memoize_async_as("watched", async |size: &u64| {
        runs.fetch_add(1, Ordering::Relaxed);
        Watched::of(*size)
    });
    for _ in 0..2 {
        assert_eq!(block_on(watched.call(&size)).bytes.as_slice(), stored);
    }
    assert_eq!((runs.load(Ordering::Relaxed), other.stats().store_errors), (1, 0));
    assert_eq!(checks_of(size).0, 1, "by whoever stored it first");
}

/// A call that is dropped while another thread checks for it leaves nothing behind.
#[test]
fn a_call_may_be_dropped_while_its_value_is_checked() {
    let dir = Dir::new();
    let cache = dir.open("x");
    let size = 100_048;
    drop(cache.memoize_as("watched", |size: &u64| Watched::of(*size)).call(&size));
    let other = other(&cache, options());
    let watched = other.memoize_async_as("watched", async |_: &u64| -> Watched { unreachable!() });
    let mut call: Pin<Box<dyn Future<Output = _>>> = Box::pin(watched.call(&size));
    // Unless the other thread is done with it by then.
    let _ = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    drop(call);
    assert_eq!(block_on(watched.call(&size)).bytes.len() as u64, size);
}

static CALLS: AtomicU32 = AtomicU32::new(0);
static ITEMS: AtomicU32 = AtomicU32::new(0);

/// How often the function was called, and how many of its items were computed.
fn computed() -> (u32, u32) {
    (CALLS.load(Ordering::Relaxed), ITEMS.load(Ordering::Relaxed))
}

fn place() -> PathBuf {
    role().expect("only in a process of its own").1
}

#[cache(root = place())]
fn count(end: u32) -> impl Stream<Item = u32> {
    CALLS.fetch_add(1, Ordering::Relaxed);
    stream::iter(0..end).map(|n| {
        ITEMS.fetch_add(1, Ordering::Relaxed);
        n
    })
}

/// Puts a copy in place of the cache's file, which nobody may believe before it was verified under its lock.
fn replaced(place: &Path) -> std::fs::File {
    let entries = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    let mut files = entries.filter(|path| path.extension().is_some_and(|name| name == "pcache"));
    let (file, copy) = (files.next().expect("it was made"), place.join("copy"));
    std::fs::copy(&file, &copy).unwrap();
    std::fs::rename(copy, &file).unwrap();
    std::fs::OpenOptions::new().read(true).write(true).open(file).unwrap()
}

/// A first call opens a file that is believed as it is, and makes one where there is none. One that is to be
/// verified first is opened when the stream is polled.
#[test]
fn the_first_call_of_a_stream_waits_for_no_lock_and_verifies_nothing() {
    const TEST: &str = "the_first_call_of_a_stream_waits_for_no_lock_and_verifies_nothing";
    let Some((role, place)) = role() else {
        let dir = Dir::new();
        for role in ["stores", "reads", "waits", "verifies"] {
            finish(spawn(TEST, role, dir.path()));
        }
        return;
    };
    let all = |end| count(end).collect::<Vec<u32>>();
    match &*role {
        "stores" => {
            assert_eq!(block_on(all(3)), [0, 1, 2]);
            assert_eq!((computed(), count::stats().entries), ((1, 3), 1));
        }
        "reads" => assert_eq!((block_on(all(3)), computed()), (vec![0, 1, 2], (0, 0))),
        _ => {
            let file = replaced(&place);
            if role == "waits" {
                fs4::FileExt::lock(&file).unwrap();
            }
            let stored = all(3);
            assert_eq!(count::cache().path(), Path::new(""), "it is not open yet");
            drop(file);
            assert_eq!((block_on(stored), computed()), (vec![0, 1, 2], (1, 0)));
            assert!(count::cache().fault().is_none() && count::stats().store_errors == 0);
            assert_eq!((block_on(all(3)), computed()), (vec![0, 1, 2], (1, 0)));
            assert_eq!(block_on(all(4)).len(), 4);
            assert_eq!(count::stats().entries, 2);
        }
    }
}

/// Where no provenance ever holds, each has the file verified when its first stream is polled. What that one
/// computes meanwhile is stored all the same, unless the cache was cleared since the call, or is another one.
#[test]
fn what_a_first_call_computes_while_the_file_is_verified_is_stored() {
    const TEST: &str = "what_a_first_call_computes_while_the_file_is_verified_is_stored";
    let Some((role, place)) = role() else {
        let dir = Dir::new();
        for role in ["makes", "stores", "reads", "adds", "clears", "deletes"] {
            finish(spawn(TEST, role, dir.path()));
        }
        return;
    };
    if role == "makes" {
        assert_eq!(block_on(count(1).collect::<Vec<_>>()), [0]);
        return;
    }
    drop(replaced(&place));
    let end = match &*role {
        "stores" | "reads" => 5,
        _ => 5 + role.len() as u32,
    };
    let items = count(end).collect::<Vec<u32>>();
    assert_eq!(count::cache().path(), Path::new(""), "it is not open yet");
    let files = std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path());
    let is_cache = |path: &PathBuf| path.extension().is_some_and(|name| name == "pcache");
    let other = || MmapCache::open_at(apart(&files.filter(is_cache).last().unwrap())).unwrap();
    match &*role {
        "clears" => other().clear().unwrap(),
        "deletes" => {
            let other = other();
            other.delete().unwrap();
            other.table::<u64, u64>("new").insert(&1, &1).unwrap();
        }
        _ => {}
    }
    assert_eq!(block_on(items).len() as u32, end);
    let expected = match &*role {
        "stores" | "reads" => 2,
        "clears" => 0,
        "deletes" => 1,
        _ => 3,
    };
    assert_eq!((count::stats().entries, count::stats().store_errors), (expected, 0), "{role}");
    assert_eq!(computed().1, if role == "reads" { 0 } else { end });
}

/// Whether whoever opens the cache has been waited for by nobody.
static WAS_MADE: AtomicU32 = AtomicU32::new(0);
static OPENING: AtomicU32 = AtomicU32::new(0);

/// The place of a cache that takes long to be opened, by whoever is the first to.
fn slow_place() -> PathBuf {
    if OPENING.fetch_add(1, Ordering::Relaxed) == 0 {
        let start = Instant::now();
        while WAS_MADE.load(Ordering::Relaxed) == 0 && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    place()
}

#[cache(root = slow_place())]
fn slow(end: u32) -> impl Stream<Item = u32> {
    stream::iter(0..end)
}

#[test]
fn the_call_that_makes_a_stream_waits_for_no_thread_that_opens_the_cache() {
    const TEST: &str = "the_call_that_makes_a_stream_waits_for_no_thread_that_opens_the_cache";
    if role().is_none() {
        return drop(finish(spawn(TEST, "alone", Dir::new().path())));
    }
    let opener = std::thread::spawn(|| slow::cache().clone());
    while OPENING.load(Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
    let start = Instant::now();
    let items = slow(3).collect::<Vec<_>>();
    assert!(start.elapsed() < Duration::from_secs(10), "it waited for {:?}", start.elapsed());
    WAS_MADE.store(1, Ordering::Relaxed);
    assert_eq!(block_on(items), [0, 1, 2]);
    let opened = opener.join().unwrap();
    assert_eq!((opened.path(), opened.fault().is_none()), (slow::cache().path(), true));
    assert_eq!(block_on(slow(4).collect::<Vec<_>>()).len(), 4);
    assert!(opened.stats().entries > 0 && opened.stats().store_errors == 0);
    assert_eq!(opened.stats().entries, slow::stats().entries, "both have one store");
}
