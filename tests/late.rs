//! `#[cache]` functions whose cache cannot be opened when they are first called: they go on, and use the
//! cache as soon as the trouble has passed, through every handle and instance that was made before.
#![allow(missing_docs)]

mod common;

use common::{Dir, command, on_small_disk, role, run_limited};
use futures_lite::future::block_on;
use futures_lite::{Stream, StreamExt as _};
use persist_cache::{Error, MmapCache, cache};
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

static DIR: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

fn at(name: &str) -> PathBuf {
    DIR.path().join(name)
}

/// Calls again and again until something is stored: pauses between attempts may not have passed yet.
fn until_stored(cache: &MmapCache, mut call: impl FnMut()) {
    let start = Instant::now();
    while cache.stats().entries == 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "never opened: {:?}", cache.fault());
        call();
        std::thread::sleep(Duration::from_millis(20));
    }
}

static LOCKED: AtomicU32 = AtomicU32::new(0);
#[cache(path = at("locked.pcache"))]
fn locked(n: u64) -> u64 {
    LOCKED.fetch_add(1, Ordering::Relaxed);
    n + 1
}

/// As after a reboot: one process verifies the file, and the others are given up on after the deadline.
#[test]
fn a_lock_held_at_the_first_call_is_no_trouble_for_good() {
    drop(MmapCache::open_at(at("other.pcache")).unwrap());
    // The provenance of a copy does not hold, so it must be verified.
    fs::copy(at("other.pcache"), at("locked.pcache")).unwrap();
    let verifier = fs::OpenOptions::new().read(true).write(true).open(at("locked.pcache")).unwrap();
    verifier.lock().unwrap();
    assert_eq!(locked(1), 2);
    let handle = locked::cache();
    assert!(matches!(handle.fault(), Some(Error::Locked { .. })), "{:?}", handle.fault());
    assert!(handle.fault().unwrap().is_transient());
    assert_eq!(handle.stats().store_errors, 1);
    drop(verifier);
    until_stored(&handle, || assert_eq!(locked(1), 2));
    assert!(handle.fault().is_none() && handle.path() == at("locked.pcache"));
    let runs = LOCKED.load(Ordering::Relaxed);
    assert_eq!((locked(1), locked(1)), (2, 2));
    assert_eq!(LOCKED.load(Ordering::Relaxed), runs, "these were hits");
    assert_eq!(handle.stats().misses, u64::from(runs), "what was counted before is counted still");
    locked::delete().unwrap();
}

static GENERIC: AtomicU32 = AtomicU32::new(0);
#[cache(path = at("later/generic.pcache"))]
fn generic<T: persist_cache::CacheKey + Copy + Into<u64>>(n: T) -> u64 {
    GENERIC.fetch_add(1, Ordering::Relaxed);
    n.into()
}
#[cache(path = at("later/generic.pcache"))]
async fn task(n: u64) -> u64 {
    n * 3
}
#[cache(path = at("later/generic.pcache"))]
fn items(n: u64) -> impl Iterator<Item = u64> {
    0..n
}

#[cache(path = at("later/generic.pcache"))]
fn stream(n: u64) -> impl Stream<Item = u64> {
    futures_lite::stream::iter(0..n)
}
#[cache(path = at("later/generic.pcache"))]
fn refreshed(n: u64) -> impl Iterator<Item = u64> {
    0..n
}

#[test]
fn functions_of_every_kind_use_a_cache_that_comes_later() {
    assert_eq!((generic(7_u8), generic(7_u16), block_on(task(2))), (7, 7, 6));
    assert_eq!(items(3).collect::<Vec<_>>(), [0, 1, 2]);
    let streamed = |n| block_on(stream(n).collect::<Vec<_>>());
    assert_eq!((streamed(2), refreshed::refresh(2).collect::<Vec<_>>()), (vec![0, 1], vec![0, 1]));
    let table = generic::cache().table::<u64, u64>("by hand");
    assert!(table.insert(&1, &1).is_err() && table.insert_many([(1, 1)]).is_err());
    let error = generic::flush().unwrap_err();
    assert!(
        matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    );
    fs::create_dir(at("later")).unwrap();
    until_stored(&generic::cache(), || assert_eq!(generic(7_u8), 7));
    // Each has a handle of its own, whose next attempt may be due at another time.
    let start = Instant::now();
    while generic::stats().entries < 6 {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", generic::stats());
        assert_eq!((generic(7_u16), block_on(task(2)), items(3).sum::<u64>()), (7, 6, 3));
        assert_eq!((streamed(2), refreshed::refresh(2).count()), (vec![0, 1], 2));
        std::thread::sleep(Duration::from_millis(20));
    }
    let runs = GENERIC.load(Ordering::Relaxed);
    assert_eq!((generic(7_u8), generic(7_u16)), (7, 7));
    assert_eq!(GENERIC.load(Ordering::Relaxed), runs);
}

#[cache(path = at("alien.pcache"))]
fn alien(n: u64) -> u64 {
    n
}

#[test]
fn a_file_that_is_no_cache_is_left_alone_for_good() {
    fs::write(at("alien.pcache"), "the letters of a friend").unwrap();
    assert_eq!(alien(1), 1);
    let handle = alien::cache();
    assert!(
        matches!(handle.fault(), Some(Error::NotACache { .. }))
            && !handle.fault().unwrap().is_transient()
    );
    assert!(matches!(alien::clear(), Err(Error::NotACache { .. })));
    fs::remove_file(at("alien.pcache")).unwrap();
    std::thread::sleep(Duration::from_millis(300)); // A transient error would be tried again by now.
    assert_eq!(alien(1), 1);
    assert!(handle.fault().is_some() && !at("alien.pcache").exists());
    alien::clear().unwrap(); // Somebody asks for it.
    assert!(handle.fault().is_none() && at("alien.pcache").exists());
}

#[cache(path = at("asked/for.pcache"))]
fn asked(n: u64) -> u64 {
    n
}

#[test]
fn an_operation_that_is_asked_for_opens_the_cache_at_once() {
    assert_eq!(asked(1), 1);
    assert!(asked::clear().is_err() && asked::forget(1).is_err());
    fs::create_dir(at("asked")).unwrap();
    asked::clear().unwrap();
    assert!(asked::cache().fault().is_none());
    assert_eq!((asked(1), asked::stats().entries), (1, 1));
}

/// Where processes of their own have their caches.
fn place() -> PathBuf {
    role().expect("only in a process of its own").1
}

static SCARCE: AtomicU32 = AtomicU32::new(0);
#[cache(root = place())]
fn scarce(n: u64) -> u64 {
    SCARCE.fetch_add(1, Ordering::Relaxed);
    n + 1
}
#[cache(root = place())]
async fn scarce_task(n: u64) -> u64 {
    SCARCE.fetch_add(1, Ordering::Relaxed);
    n + 2
}

/// Calls functions for the first time while something is `scarce`, and then when it is there again.
fn first_called_without<T>(scarce_thing: T, errno: i32) {
    assert_eq!((scarce(1), block_on(scarce_task(1))), (2, 3));
    let caches = [scarce::cache(), scarce_task::cache()];
    for cache in &caches {
        let fault = cache.fault();
        assert!(
            matches!(fault, Some(Error::Io { source, .. }) if source.raw_os_error() == Some(errno)),
            "{fault:?}"
        );
        assert!(cache.fault().unwrap().is_transient() && cache.stats().store_errors > 0);
    }
    drop(scarce_thing);
    until_stored(&caches[0], || assert_eq!(scarce(1), 2));
    until_stored(&caches[1], || assert_eq!(block_on(scarce_task(1)), 3));
    assert!(caches.iter().all(|cache| cache.fault().is_none()));
    let runs = SCARCE.load(Ordering::Relaxed);
    assert_eq!((scarce(1), block_on(scarce_task(1))), (2, 3));
    assert_eq!(SCARCE.load(Ordering::Relaxed), runs, "these were hits");
}

#[test]
fn a_function_first_called_without_descriptors_stores_later() {
    const TEST: &str = "a_function_first_called_without_descriptors_stores_later";
    if role().is_none() {
        let dir = Dir::new();
        return run_limited(TEST, "-n 40", dir.path());
    }
    let mut files = Vec::new();
    while let Ok(file) = fs::File::open("/") {
        files.push(file);
    }
    first_called_without(files, libc::EMFILE);
}

/// A file that takes the space of a disk, until it is dropped.
struct Filler(PathBuf);

impl Filler {
    fn new(path: PathBuf) -> Filler {
        let mut file = fs::File::create(&path).unwrap();
        for size in [64 << 10, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        Filler(path)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

#[test]
fn a_function_first_called_on_a_full_disk_stores_later() {
    const TEST: &str = "a_function_first_called_on_a_full_disk_stores_later";
    if role().is_none() {
        let dir = Dir::new();
        return on_small_disk(&dir, "2m", || command(TEST, "child", dir.path()));
    }
    first_called_without(Filler::new(place().join("filler")), libc::ENOSPC);
}
