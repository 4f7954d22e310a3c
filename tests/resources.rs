//! When the machine gives no more: a full disk, a limit on file sizes, no address space, no memory.
#![allow(missing_docs)]

mod common;

use common::{Dir, command, finish, on_disk, on_small_disk, role, run_limited, value_of};
use persist_cache::{Cached, Error, MmapCache};
use std::io;
use std::path::Path;
use std::process::Command;

fn open(place: &Path) -> MmapCache {
    MmapCache::options().root(place).open("x").unwrap()
}

/// Fills a cache until an insert fails; then reads must go on, and calls return their values.
fn fill_until_full(place: &Path) -> u64 {
    let cache = open(place);
    let table = cache.table::<u64, Vec<u8>>("t");
    let value = |key: u64| vec![key as u8; 3000];
    let (full, error) = (0..)
        .find_map(|key| Some((key, table.insert(&key, &value(key)).err()?)))
        .expect("it ends sometime");
    assert!(matches!(error, Error::Io { action: "grow", .. }), "{error}");
    for key in 0..full {
        assert_eq!(Cached::into_owned(table.get(&key).unwrap().unwrap()), value(key));
    }
    let errors = cache.stats().store_errors;
    let result = table.get_or_insert_with(&1_000_000, || value(7));
    assert_eq!(result.as_slice(), value(7));
    assert_eq!(cache.stats().store_errors, errors + 1);
    assert!(table.insert(&1_000_000, &value(1)).is_err());
    assert!(cache.verify().unwrap().findings.is_empty());
    full
}

#[test]
fn a_full_disk_is_an_error_and_no_signal() {
    const TEST: &str = "a_full_disk_is_an_error_and_no_signal";
    if let Some((_, place)) = role() {
        let full = fill_until_full(&place);
        let cache = open(&place);
        cache.clear().expect("clearing needs hardly any space");
        let table = cache.table::<u64, Vec<u8>>("t");
        assert!(!table.contains(&0).unwrap());
        // The space is there again when nobody holds a value of the old file, or after compaction.
        cache.compact().unwrap();
        for key in 0..full / 2 {
            table.insert(&key, &vec![1; 3000]).unwrap();
        }
        return;
    }
    let dir = Dir::new();
    on_small_disk(&dir, "2m", || command(TEST, "child", dir.path()));
}

#[test]
fn a_full_disk_of_another_kind_is_no_different() {
    const TEST: &str = "a_full_disk_of_another_kind_is_no_different";
    if let Some((_, place)) = role() {
        // The root of a new file system is root's, and may be read by all.
        let place = place.join("caches");
        fill_until_full(&place);
        return;
    }
    let dir = Dir::new();
    let image = dir.join("disk");
    std::fs::File::create(&image).unwrap().set_len(4 << 20).unwrap();
    let made = Command::new("mkfs.ext4").arg("-q").arg(&image).output();
    let place = dir.join("mounted");
    std::fs::create_dir(&place).unwrap();
    if !made.is_ok_and(|made| made.status.success()) {
        eprintln!("not run: this machine makes no file systems");
        return;
    }
    on_disk(&place, &["-o", "loop"], Some(&image), || command(TEST, "child", &place));
}

/// A file system that allocates nothing: bytes go by system calls, and nothing else changes.
#[test]
fn a_file_system_without_fallocate_will_do() {
    const TEST: &str = "a_file_system_without_fallocate_will_do";
    if let Some((_, place)) = role() {
        let cache = open(&place);
        let table = cache.table::<u64, Vec<u64>>("t");
        for key in 0..2000 {
            table.insert(&key, &value_of(key)).unwrap();
        }
        cache.table::<u64, Vec<u64>>("large").insert(&1, &vec![1; 10_000]).unwrap();
        cache.compact().unwrap();
        cache.sync().unwrap();
        table.insert_many((2000..4000).map(|key| (key, value_of(key)))).unwrap();
        for key in 0..4000 {
            assert_eq!(Cached::into_owned(table.get(&key).unwrap().unwrap()), value_of(key));
        }
        assert_eq!(cache.verify().unwrap().findings, []);
        return;
    }
    let dir = Dir::new();
    let place = dir.join("mounted");
    std::fs::create_dir(&place).unwrap();
    on_disk(&place, &["-t", "ramfs", "-o", "mode=700"], None, || command(TEST, "child", &place));
}

/// No more descriptors: an error that says so, and everything goes on once there are some again.
#[test]
fn no_descriptors_is_an_error_and_passes() {
    const TEST: &str = "no_descriptors_is_an_error_and_passes";
    let Some((_, place)) = role() else {
        let dir = Dir::new();
        run_limited(TEST, "-n 40", dir.path());
        return;
    };
    let cache = open(&place);
    let table = cache.table::<u64, Vec<u64>>("t");
    let mut files = Vec::new();
    while let Ok(file) = std::fs::File::open("/") {
        files.push(file);
    }
    let other = MmapCache::options().root(&place);
    let error = other.clone().open("other").map(drop).unwrap_err();
    assert!(
        matches!(&error, Error::Io { source, .. } if source.raw_os_error() == Some(libc::EMFILE))
    );
    // What is open goes on.
    table.insert_many((0..500).map(|key| (key, value_of(key)))).unwrap();
    assert_eq!(Cached::into_owned(table.get(&7).unwrap().unwrap()), value_of(7));
    assert!(cache.compact().is_err() && cache.verify().unwrap().findings.is_empty());
    let computed = cache.memoize_as("f", |n: &u64| n + 1).call(&1);
    assert_eq!(*computed, 2);
    drop(files);
    cache.compact().unwrap();
    assert_eq!(cache.stats().entries, 501);
    other.open("other").unwrap();
}

/// Wherever it runs out of descriptors while it opens, it does not take a file that others use for one
/// from before a reboot: that would be recovered under them.
#[test]
fn running_out_of_descriptors_recovers_no_live_file() {
    const TEST: &str = "running_out_of_descriptors_recovers_no_live_file";
    if let Some((_, place)) = role() {
        let opened = MmapCache::options().root(&place).open("x");
        match opened.map(|cache| cache.table::<u64, Vec<u64>>("t").get(&7)) {
            Ok(found) => assert_eq!(Cached::into_owned(found.unwrap().unwrap()), value_of(7)),
            Err(Error::Io { source, .. }) => {
                assert_eq!(source.raw_os_error(), Some(libc::EMFILE));
            }
            Err(other) => panic!("{other}"),
        }
        return;
    }
    let dir = Dir::new();
    let cache = dir.open("x");
    let table = cache.table::<u64, Vec<u64>>("t");
    table.insert_many((0..100).map(|key| (key, value_of(key)))).unwrap();
    let image = std::fs::read(cache.path()).unwrap();
    for limit in 4..16 {
        run_limited(TEST, &format!("-n {limit}"), dir.path());
        assert!(std::fs::read(cache.path()).unwrap() == image, "written to, with {limit}");
    }
}

/// Signals all the time: system calls that they interrupt are made again.
#[test]
#[allow(unsafe_code)]
fn a_storm_of_signals_interrupts_nothing() {
    const TEST: &str = "a_storm_of_signals_interrupts_nothing";
    extern "C" fn ignore(_: libc::c_int) {}
    let Some((_, place)) = role() else {
        let dir = Dir::new();
        finish(common::spawn(TEST, "child", dir.path()));
        return;
    };
    // SAFETY: all zeros is a valid `sigaction`: no flags, so that system calls are interrupted.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = ignore as *const () as usize;
    // SAFETY: the handler does nothing.
    let handled = unsafe { libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()) };
    let often = libc::timeval { tv_sec: 0, tv_usec: 50 };
    let timer = libc::itimerval { it_interval: often, it_value: often };
    // SAFETY: the timer is valid, and nobody asks for the former one.
    let started = unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
    assert_eq!((handled, started), (0, 0));
    let cache = open(&place);
    let table = cache.table::<u64, Vec<u64>>("t");
    for round in 0..20 {
        for key in round * 100..round * 100 + 100 {
            table.insert(&key, &value_of(key)).unwrap();
        }
        cache.table::<u64, Vec<u64>>("large").insert(&round, &vec![round; 10_000]).unwrap();
        cache.compact().unwrap();
        cache.sync().unwrap();
        assert_eq!(*cache.memoize_as("f", |n: &u64| n + 1).call(&round), round + 1);
    }
    for key in 0..2000 {
        assert_eq!(Cached::into_owned(table.get(&key).unwrap().unwrap()), value_of(key));
    }
    assert_eq!(cache.verify().unwrap().findings, []);
}

/// A device that cannot write, for its own space is used up: the system says so to one sync, and forgets.
/// What the cache says is on the device is there when the disk is mounted again, and nothing else is wrong.
#[test]
fn a_device_that_cannot_write_is_not_believed_again() {
    const TEST: &str = "a_device_that_cannot_write_is_not_believed_again";
    let Some((role, place)) = role() else {
        let dir = Dir::new();
        on_small_disk(&dir, "32m", || command(TEST, "outer", dir.path()));
        return;
    };
    match &*role {
        "before" => return overfill(&place),
        "after" => return check_all(&open(&place)),
        _ => {}
    }
    // A disk on a loop, of more space than the disk that its bytes are on.
    let (image, filler) = (place.join("disk"), place.join("filler"));
    std::fs::write(&filler, vec![1; 12 << 20]).unwrap();
    std::fs::File::create(&image).unwrap().set_len(100 << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-O", "^has_journal"]).arg(&image).output();
    if !made.is_ok_and(|made| made.status.success()) {
        eprintln!("not run: this machine makes no file systems");
        return;
    }
    let mounted = place.join("mounted");
    std::fs::create_dir(&mounted).unwrap();
    for role in ["before", "after"] {
        let caches = mounted.join("caches");
        on_disk(&mounted, &["-o", "loop"], Some(&image), || command(TEST, role, &caches));
        std::fs::remove_file(&filler).unwrap_or_default();
    }
}

const OVERFILLED: u64 = 10_000;

/// Stores the same again and again, until the device has no space for it, and a little longer.
fn overfill(place: &Path) {
    let cache = open(place);
    let table = cache.table::<u64, Vec<u64>>("t");
    let mut failures = 0;
    for round in 0..100 {
        table.insert_many((0..OVERFILLED).map(|key| (key, value_of(key)))).unwrap();
        match cache.sync() {
            Ok(()) => assert_eq!(failures, 0, "a sync is believed after one that failed"),
            Err(error) if failures > 0 => assert!(matches!(error, Error::Unsynced { .. })),
            Err(error) => assert!(round > 0, "{error}"),
        }
        failures += u64::from(cache.sync().is_err());
        if failures == 3 {
            break;
        }
    }
    assert_eq!(failures, 3, "the device is full sometime");
    check_all(&cache);
}

fn check_all(cache: &MmapCache) {
    let table = cache.table::<u64, Vec<u64>>("t");
    for key in 0..OVERFILLED {
        let found = table.get(&key).unwrap().map(Cached::into_owned);
        assert_eq!(found, Some(value_of(key)), "{key}");
    }
}

#[test]
fn a_disk_that_fills_while_the_index_grows_is_an_error_and_no_signal() {
    const TEST: &str = "a_disk_that_fills_while_the_index_grows_is_an_error_and_no_signal";
    if let Some((_, place)) = role() {
        // Whatever space the cache leaves free for a moment, somebody else takes it.
        let filler = std::fs::File::create(place.join("filler")).unwrap();
        let table = open(&place).table::<u64, u64>("t");
        let mut full = false;
        for key in 0..20_000 {
            full |= table.insert(&key, &key).is_err();
            if key % 8 == 0 {
                let size = filler.metadata().unwrap().len();
                let _ = std::os::unix::fs::FileExt::write_at(&filler, &[1; 4096], size);
            }
        }
        assert!(full);
        let cache = open(&place);
        assert!(cache.verify().unwrap().findings.is_empty());
        cache.clear().expect("there is a way out");
        assert!(!table.contains(&1).unwrap_or(false));
        return;
    }
    for size in ["200k", "300k", "400k", "500k"] {
        let dir = Dir::new();
        on_small_disk(&dir, size, || command(TEST, "child", dir.path()));
    }
}

#[test]
fn a_limit_on_file_sizes_is_an_error_and_no_signal() {
    match role() {
        Some((_, place)) => drop(fill_until_full(&place)),
        None => {
            let dir = Dir::new();
            run_limited("a_limit_on_file_sizes_is_an_error_and_no_signal", "-f 1000", dir.path());
        }
    }
}

#[persist_cache::cache]
fn successor(n: u64) -> u64 {
    n + 1
}

/// Whatever is written, names and marks of a new root too, is held against the limit first.
#[test]
fn a_limit_below_any_file_is_an_error_and_no_signal() {
    const TEST: &str = "a_limit_below_any_file_is_an_error_and_no_signal";
    let Some((_, place)) = role() else {
        let dir = Dir::new();
        // A root that is there, and one that is to be made.
        for root in [dir.path().to_path_buf(), dir.join("new").join("root")] {
            run_limited(TEST, "-f 0; export PERSIST_CACHE_DIR=$PERSIST_CACHE_TEST_PLACE", &root);
        }
        return;
    };
    let error = MmapCache::options().root(&place).open("x").unwrap_err();
    assert!(
        matches!(&error, Error::Io { source, .. } if source.raw_os_error() == Some(libc::EFBIG)),
        "{error}"
    );
    // What is computed for a cache that cannot be is returned all the same.
    assert_eq!(successor(1), 2);
}

#[test]
fn scarce_address_space_makes_do_with_a_smaller_map() {
    let Some((_, place)) = role() else {
        let dir = Dir::new();
        let test = "scarce_address_space_makes_do_with_a_smaller_map";
        run_limited(test, "-v 2000000", dir.path());
        return;
    };
    let cache = open(&place);
    let table = cache.table::<u64, Vec<u64>>("t");
    table.insert_many((0..20_000).map(|key| (key, value_of(key)))).unwrap();
    for key in 0..20_000 {
        assert_eq!(Cached::into_owned(table.get(&key).unwrap().unwrap()), value_of(key));
    }
}

/// The program's own memory comes first: what caches take of a limited address space is little, whatever they
/// hold, and no larger for there being no limit.
#[test]
fn many_caches_leave_address_space_to_the_program() {
    const TEST: &str = "many_caches_leave_address_space_to_the_program";
    let Some((_, place)) = role() else {
        let dir = Dir::new();
        run_limited(TEST, "-v 4194304", dir.path());
        return;
    };
    let caches: Vec<MmapCache> =
        (0..12).map(|n| MmapCache::options().root(&place).open(format!("x{n}")).unwrap()).collect();
    for cache in &caches {
        let table = cache.table::<u64, Vec<u64>>("t");
        table.insert_many((0..5000).map(|key| (key, value_of(key)))).unwrap();
    }
    let mut own = Vec::<u8>::new();
    own.try_reserve_exact(3 << 30).expect("3 of 4 GiB are the program's");
    std::thread::Builder::new().spawn(|| ()).unwrap().join().unwrap();
    for cache in &caches {
        let table = cache.table::<u64, Vec<u64>>("t");
        assert_eq!(Cached::into_owned(table.get(&4999).unwrap().unwrap()), value_of(4999));
    }
}

/// A result that fits into memory once is returned, though there is little room beside it, and with a cache as
/// without one.
#[test]
fn a_call_returns_its_result_where_memory_is_scarce() {
    const TEST: &str = "a_call_returns_its_result_where_memory_is_scarce";
    let Some((_, place)) = role() else {
        for limit in ["-v 65536", "-v 80000", "-v 120000"] {
            let dir = Dir::new();
            run_limited(TEST, limit, dir.path());
        }
        return;
    };
    let cache = open(&place);
    let long = cache.memoize_as("long", |n: &u64| vec![*n as u8; 10 << 20]);
    for round in 0..3 {
        let result = long.call(&7);
        assert_eq!(result.len(), 10 << 20, "{round}");
        assert!(result.iter().all(|byte| *byte == 7));
    }
    assert_eq!(*cache.memoize_as("short", |n: &u64| n + 1).call(&1), 2);
}

/// Ten thousand caches, or as many as there are descriptors, maps and space for.
#[test]
fn thousands_of_caches_are_open_at_once() {
    const TEST: &str = "thousands_of_caches_are_open_at_once";
    let Some((count, place)) = role() else {
        use rustix::process::{Resource, getrlimit};
        // Each cache is synced when it is made, which takes long on a disk.
        let in_memory = tempfile::tempdir_in("/dev/shm").map(|dir| (dir, 10_000));
        let (dir, most) = in_memory.unwrap_or_else(|_| (tempfile::tempdir().unwrap(), 3000));
        let descriptors = getrlimit(Resource::Nofile).maximum.unwrap_or(1 << 20);
        let maps = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok();
        let maps = maps.and_then(|maps| maps.trim().parse().ok()).unwrap_or(65_530);
        let space = rustix::fs::statvfs(dir.path())
            .map(|system| system.f_bavail * system.f_frsize)
            .unwrap();
        // A file takes 16 KiB, and two maps at most.
        let count =
            (descriptors.saturating_sub(100)).min(maps / 3).min(space / (24 << 10)).min(most);
        let inner = command(TEST, &count.to_string(), dir.path());
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -n $(ulimit -H -n); exec \"$0\" \"$@\""]);
        shell.arg(inner.get_program()).args(inner.get_args());
        shell.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let stdio = std::process::Stdio::piped;
        finish(shell.stdout(stdio()).stderr(stdio()).spawn().unwrap());
        return;
    };
    let count: u64 = count.parse().unwrap();
    let path = |n: u64| place.join(format!("{n}.pcache"));
    let caches: Vec<MmapCache> = (0..count).map(|n| MmapCache::open_at(path(n)).unwrap()).collect();
    for (n, cache) in (0..count).zip(&caches) {
        cache.table::<u64, u64>("t").insert(&n, &n).unwrap();
    }
    let threads: Vec<_> = (0..8).map(|_| std::thread::Builder::new().spawn(|| ())).collect();
    threads.into_iter().for_each(|thread| thread.unwrap().join().unwrap());
    for (n, cache) in (0..count).zip(&caches) {
        assert_eq!(*cache.table::<u64, u64>("t").get(&n).unwrap().unwrap(), n);
    }
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let per_cache = maps.lines().count() as u64 / count;
    assert!(per_cache <= 2, "{per_cache} maps for each cache: a process may have 65,530");
}

/// A value whose archive is larger than any memory: its serialisation writes without end.
#[derive(Debug)]
struct Endless;

impl rkyv::Archive for Endless {
    type Archived = ();
    type Resolver = ();
    fn resolve(&self, (): (), _: rkyv::Place<()>) {}
}

impl<S: rkyv::rancor::Fallible + rkyv::ser::Writer + ?Sized> rkyv::Serialize<S> for Endless {
    fn serialize(&self, serializer: &mut S) -> Result<(), S::Error> {
        loop {
            rkyv::ser::Writer::write(serializer, &[0; 1 << 20])?;
        }
    }
}

impl<D: rkyv::rancor::Fallible + ?Sized> rkyv::Deserialize<Endless, D> for () {
    fn deserialize(&self, _: &mut D) -> Result<Endless, D::Error> {
        Ok(Endless)
    }
}

#[test]
fn a_value_larger_than_memory_is_an_error() {
    let Some((_, place)) = role() else {
        let dir = Dir::new();
        run_limited("a_value_larger_than_memory_is_an_error", "-v 1000000", dir.path());
        return;
    };
    let cache = open(&place);
    let error = cache.table::<u64, Endless>("t").insert(&1, &Endless).unwrap_err();
    assert!(matches!(error, Error::Convert { .. }), "{error}");
    assert!(error.to_string().contains("no memory"), "{error}");
    cache.table::<u64, u64>("t").insert(&1, &1).unwrap();
}

#[test]
fn errors_carry_the_file_and_the_cause() {
    let error = MmapCache::open_at("/nowhere/at/all.pcache").unwrap_err();
    let Error::Io { path, source, .. } = &error else { panic!("{error}") };
    assert_eq!(path, Path::new("/nowhere/at/all.pcache"));
    assert_eq!(source.kind(), io::ErrorKind::NotFound);
}
