//! A superseded file is let go of by threads that do nothing, and by processes that do nothing. What is held of
//! it keeps it, and nothing else does.
#![cfg(target_os = "linux")]
#![allow(missing_docs)]

mod common;

use common::{Dir, finish, role, spawn};
use persist_cache::{MmapCache, Table};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

fn open(place: &Path) -> MmapCache {
    MmapCache::options().root(place).open("x").unwrap()
}

fn table(cache: &MmapCache) -> Table<u64, Vec<u64>> {
    cache.table("values")
}

/// How many files below `place` this process maps, by whether they still have a name.
fn mapped(place: &Path) -> (usize, usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let is_here = |line: &&str| line.contains(place.to_str().unwrap());
    let file = |line: &str| line.split_whitespace().nth(4).map(String::from);
    let files = |is_deleted: bool| {
        let lines = maps.lines().filter(is_here);
        let inodes =
            lines.filter(|line| line.ends_with("(deleted)") == is_deleted).filter_map(file);
        inodes.collect::<std::collections::HashSet<_>>().len()
    };
    (files(false), files(true))
}

/// Waits until so much is mapped. It is so at once, unless the thread that looks twice a second has just begun to
/// see to it; and a machine may be busy.
fn await_mapped(place: &Path, what: (usize, usize)) {
    let start = Instant::now();
    while mapped(place) != what {
        let found = mapped(place);
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{found:?} files are mapped, not {what:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Threads that have read from the cache, let go of what they read, and wait.
struct Parked(Vec<(Sender<()>, JoinHandle<()>)>);

impl Parked {
    fn new(count: u64, cache: &MmapCache) -> Parked {
        let (arrive, arrived): (Sender<()>, Receiver<()>) = channel();
        let park = |n| {
            let (table, arrive) = (table(cache), arrive.clone());
            let (release, is_released) = channel();
            let thread = std::thread::spawn(move || {
                assert!(table.get(&n).unwrap().is_some());
                assert!(table.get(&n).unwrap().is_some());
                drop(table);
                arrive.send(()).unwrap();
                let _ = is_released.recv();
            });
            (release, thread)
        };
        let threads = (0..count).map(park).collect();
        (0..count).for_each(|_| arrived.recv().unwrap());
        Parked(threads)
    }

    fn end(self) {
        for (release, thread) in self.0 {
            drop(release);
            thread.join().unwrap();
        }
    }
}

fn fill(cache: &MmapCache) {
    table(cache).insert_many((0..16).map(|n| (n, vec![n; 1000]))).unwrap();
}

#[test]
fn idle_threads_keep_no_file_that_is_superseded() {
    let dir = Dir::new();
    let cache = open(dir.path());
    fill(&cache);
    let mut parked = Vec::new();
    for _ in 0..16 {
        parked.push(Parked::new(2, &cache));
        cache.compact().unwrap();
        await_mapped(dir.path(), (1, 0));
    }
    parked.into_iter().for_each(Parked::end);
}

#[test]
fn what_is_held_keeps_its_file_and_no_longer() {
    let dir = Dir::new();
    let cache = open(dir.path());
    fill(&cache);
    let parked = Parked::new(4, &cache);
    let held = table(&cache).get(&7).unwrap().unwrap();
    cache.compact().unwrap();
    await_mapped(dir.path(), (1, 1));
    cache.clear().unwrap();
    cache.compact().unwrap();
    await_mapped(dir.path(), (1, 1));
    assert_eq!(*held, vec![7; 1000]);
    drop(held);
    await_mapped(dir.path(), (1, 0));
    parked.end();
}

#[test]
fn a_removed_file_goes_at_once_and_so_does_that_of_the_last_handle() {
    let dir = Dir::new();
    let cache = open(dir.path());
    fill(&cache);
    let parked = Parked::new(4, &cache);
    cache.delete().unwrap();
    await_mapped(dir.path(), (0, 0));
    fill(&cache);
    let others = Parked::new(4, &cache);
    await_mapped(dir.path(), (1, 0));
    drop(cache);
    await_mapped(dir.path(), (0, 0));
    // Their places are another store's now.
    let other = MmapCache::options().root(dir.path()).open("y").unwrap();
    fill(&other);
    let third = Parked::new(4, &other);
    await_mapped(dir.path(), (1, 0));
    [parked, others, third].into_iter().for_each(Parked::end);
}

#[test]
fn a_process_that_idles_leaves_a_file_that_another_supersedes() {
    const TEST: &str = "a_process_that_idles_leaves_a_file_that_another_supersedes";
    if let Some((what, place)) = role() {
        match &*what {
            "compact" => assert_eq!(open(&place).compact().unwrap().entries_kept, 16),
            _ => open(&place).delete().unwrap(),
        }
        return;
    }
    let dir = Dir::new();
    let cache = open(dir.path());
    fill(&cache);
    let parked = Parked::new(4, &cache);
    let held = table(&cache).get(&7).unwrap().unwrap();
    finish(spawn(TEST, "compact", dir.path()));
    await_mapped(dir.path(), (0, 1));
    assert_eq!(*held, vec![7; 1000]);
    drop(held);
    await_mapped(dir.path(), (0, 0));
    assert!(table(&cache).get(&7).unwrap().is_some());
    await_mapped(dir.path(), (1, 0));
    finish(spawn(TEST, "delete", dir.path()));
    await_mapped(dir.path(), (0, 0));
    parked.end();
}

/// A thread that goes on while its pins are taken has the right values all along.
#[test]
fn busy_threads_go_on_beside_compactions() {
    let dir = Dir::new();
    let cache = open(dir.path());
    fill(&cache);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for start in 0..4_u64 {
            let (table, is_over) = (table(&cache), &is_over);
            scope.spawn(move || {
                let mut n = start;
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    n = (n + 1) % 16;
                    assert_eq!(*table.get(&n).unwrap().expect("it is there"), vec![n; 1000]);
                }
            });
        }
        (0..50).for_each(|_| assert_eq!(cache.compact().unwrap().entries_kept, 16));
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    await_mapped(dir.path(), (1, 0));
}
