//! What happens to a cache in the course of a life: spelled in several ways, opened while others compact,
//! clear, delete and create it, held while it is compacted, used by many processes, stopped in the middle.
#![allow(missing_docs)]

mod common;

use common::{Dir, effort, finish, mix, role, spawn, value_of};
use persist_cache::{Cached, Error, MmapCache, Table};
use rustix::process::{Pid, Signal, kill_process};
use std::cell::Cell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

fn table_at(path: &Path) -> (MmapCache, Table<u64, Vec<u64>>) {
    let cache = MmapCache::open_at(path).expect("the cache opens");
    let table = cache.table("values");
    (cache, table)
}

#[test]
fn one_file_by_many_spellings() {
    let dir = Dir::new();
    fs::create_dir(dir.join("real")).unwrap();
    symlink(dir.join("real"), dir.join("link")).unwrap();
    let spellings = ["real/x.pcache", "real/./x.pcache", "real/../real/x.pcache", "link/x.pcache"];
    let tables: Vec<_> = spellings.iter().map(|name| table_at(&dir.join(name))).collect();
    for (n, (_, table)) in (0_u64..).zip(&tables) {
        table.insert(&n, &value_of(n)).unwrap();
    }
    tables[1].0.compact().unwrap();
    for (n, (cache, table)) in (10_u64..).zip(&tables) {
        table.insert(&n, &value_of(n)).unwrap();
        assert_eq!(cache.stats().entries, 4 + n - 9);
        assert!((0..4).all(|key| table.contains(&key).unwrap()));
    }
    tables[2].0.delete().unwrap();
    assert!(tables.iter().all(|(_, table)| table.get(&1).unwrap().is_none()));
}

#[test]
fn sixty_four_processes() {
    const TEST: &str = "sixty_four_processes";
    let Some((role, place)) = role() else {
        let dir = Dir::new();
        let path = dir.join("x.pcache");
        let children: Vec<_> = (0..64).map(|n| spawn(TEST, &n.to_string(), &path)).collect();
        children.into_iter().for_each(|child| drop(finish(child)));
        let (cache, table) = table_at(&path);
        for key in 0..64 * 50 {
            assert_eq!(Cached::into_owned(table.get(&key).unwrap().unwrap()), value_of(key));
        }
        assert_eq!((cache.stats().entries, cache.verify().unwrap().findings), (64 * 50, vec![]));
        return;
    };
    let number: u64 = role.parse().unwrap();
    // All create the cache, one does; a machine this busy may keep a writer waiting.
    let open = MmapCache::options().lock_timeout(Duration::from_secs(60));
    let cache = open.open_at(&place).unwrap();
    let table = cache.table::<u64, Vec<u64>>("values");
    for key in number * 50..number * 50 + 50 {
        table.insert(&key, &value_of(key)).unwrap();
        let other = mix(key) % (64 * 50);
        if let Some(found) = table.get(&other).unwrap() {
            assert_eq!(Cached::into_owned(found), value_of(other));
        }
    }
}

#[test]
fn opening_races_creation_deletion_and_compaction() {
    const TEST: &str = "opening_races_creation_deletion_and_compaction";
    let Some((role, place)) = role() else {
        let dir = Dir::new();
        let path = dir.join("x.pcache");
        let roles = ["opener", "opener", "deleter", "compactor", "clearer"];
        let children: Vec<_> = roles.map(|role| spawn(TEST, role, &path)).into();
        children.into_iter().for_each(|child| drop(finish(child)));
        assert_eq!(table_at(&path).0.verify().unwrap().findings, []);
        return;
    };
    let opens = 1000 * effort();
    let end = Instant::now() + Duration::from_secs(2 * effort().min(300));
    let is_over = |n: u64| if role == "opener" { n >= opens } else { Instant::now() >= end };
    for n in 0.. {
        if is_over(n) {
            break;
        }
        let cache = match MmapCache::open_at(&place) {
            Ok(cache) => cache,
            // A file that is replaced all the time is an error that says so.
            Err(Error::Unstable { .. } | Error::Busy { .. } | Error::Locked { .. }) => continue,
            Err(other) => panic!("{role}: {other}"),
        };
        let done = match &*role {
            "opener" => {
                let table = cache.table::<u64, Vec<u64>>("values");
                let key = mix(n) % 100;
                table.get(&key).and_then(|found| {
                    assert!(found.is_none_or(|found| Cached::into_owned(found) == value_of(key)));
                    table.insert(&key, &value_of(key)).map(drop)
                })
            }
            "deleter" => cache.delete(),
            "compactor" => cache.compact().map(drop),
            _ => cache.clear(),
        };
        match done {
            Ok(()) => {}
            Err(Error::Unstable { .. } | Error::Busy { .. } | Error::Locked { .. }) => {}
            // Another one deleted it first.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(other) => panic!("{role}: {other}"),
        }
        if role != "opener" {
            std::thread::sleep(Duration::from_micros(mix(n) % 2000));
        }
    }
}

/// The maps of files that have no name any more.
fn deleted_maps(path: &Path) -> usize {
    let name = path.file_name().unwrap().to_str().unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    maps.lines().filter(|line| line.contains(name) && line.ends_with("(deleted)")).count()
}

#[test]
fn values_are_held_over_a_hundred_compactions_and_their_space_comes_back() {
    let dir = Dir::new();
    let path = dir.join("held-x.pcache");
    let (cache, table) = table_at(&path);
    let mut held = Vec::new();
    for round in 0..100 {
        for key in round * 100..round * 100 + 100 {
            held.push((key, table.insert(&key, &value_of(key)).unwrap()));
        }
        cache.compact().unwrap();
        if round % 10 == 9 {
            cache.clear().unwrap();
        }
    }
    assert_eq!(held.len(), 10_000);
    for (key, value) in held.drain(..) {
        assert_eq!(Cached::into_owned(value), value_of(key));
    }
    // This thread lets go of the last file it looked in when it next uses the cache.
    drop(table.get(&1).unwrap());
    if cfg!(target_os = "linux") {
        assert_eq!(deleted_maps(&path), 0, "all space has come back");
    }
}

#[test]
fn a_stopped_writer_stops_no_reader_and_no_other_writer_for_ever() {
    const TEST: &str = "a_stopped_writer_stops_no_reader_and_no_other_writer_for_ever";
    if let Some((_, place)) = role() {
        let (cache, _table) = table_at(&place);
        let file = fs::OpenOptions::new().write(true).open(cache.path()).unwrap();
        fs4::FileExt::lock(&file).unwrap();
        kill_process(rustix::process::getpid(), Signal::STOP).unwrap();
        // Another of its threads may be the one that the signal reaches first.
        loop {
            std::thread::park();
        }
    }
    let dir = Dir::new();
    let path = dir.join("x.pcache");
    let open = MmapCache::options().lock_timeout(Duration::from_millis(200));
    let cache = open.open_at(&path).unwrap();
    let table = cache.table::<u64, Vec<u64>>("values");
    table.insert(&1, &value_of(1)).unwrap();
    let mut child = spawn(TEST, "stopped", &path);
    let pid = Pid::from_child(&child);
    let is_stopped = || {
        let status = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        status.is_ok_and(|status| status.contains(") T "))
    };
    if !cfg!(target_os = "linux") {
        std::thread::sleep(Duration::from_secs(1));
    }
    while cfg!(target_os = "linux") && !is_stopped() {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(Cached::into_owned(table.get(&1).unwrap().unwrap()), value_of(1));
    let error = table.insert(&2, &value_of(2)).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    let result = table.get_or_insert_with(&2, || value_of(2));
    assert_eq!(Cached::into_owned(result), value_of(2), "a call returns its value");
    assert_eq!(cache.stats().store_errors, 1);
    kill_process(pid, Signal::KILL).unwrap();
    child.wait().unwrap();
    table.insert(&2, &value_of(2)).unwrap();
}

/// A root that is removed with all that is in it is made anew when it is next needed, as a file is.
#[test]
fn a_root_that_was_removed_is_made_anew() {
    let dir = Dir::new();
    let (top, root) = (dir.join("target"), dir.join("target/some/root"));
    let cache = MmapCache::options().root(&root).open("x").unwrap();
    let reader = MmapCache::options().root(&root).read_only(true).open("x").unwrap();
    let placed = MmapCache::open_at(root.join("placed.pcache")).unwrap();
    let runs = Cell::new(0);
    let memoized = cache.memoize_as("f", |n: &u64| {
        runs.set(runs.get() + 1);
        n + 1
    });
    let table = cache.table::<u64, u64>("t");
    let placed_table = placed.table::<u64, u64>("t");
    for (n, removed) in [(0, &root), (1, &top), (2, &root)] {
        assert_eq!(*memoized.call(&n), n + 1);
        table.insert(&n, &n).unwrap();
        fs::remove_dir_all(removed).unwrap();
        // It is noticed at the next look at the path, a moment later.
        std::thread::sleep(Duration::from_millis(150));
        assert!(reader.table::<u64, u64>("t").get(&(n + 100)).is_err());
        assert!(placed_table.insert(&n, &n).is_err(), "nobody asked for a root there");
        assert!(!root.exists(), "it is not made by who only reads, or had to find it there");
        match n {
            0 => drop(table.insert(&100, &100).unwrap()),
            _ => assert_eq!(*memoized.call(&(n + 100)), n + 101),
        }
        assert!(root.join("CACHEDIR.TAG").exists() && root.join(".gitignore").exists());
        runs.set(0);
        for _ in 0..2 {
            assert_eq!(*memoized.call(&(n + 200)), n + 201);
            assert!(memoized.peek(&(n + 200)).is_some());
        }
        assert_eq!(runs.get(), 1, "what is computed now is stored");
        // Another process finds it.
        let spelling = root.join("..").join(root.file_name().unwrap());
        let other = MmapCache::options().root(spelling).open("x").unwrap();
        assert!(other.stats().entries > 0);
        placed_table.insert(&n, &n).unwrap();
    }
    assert_eq!(cache.stats().store_errors, 0);
    assert!(cache.fault().is_none());
}
