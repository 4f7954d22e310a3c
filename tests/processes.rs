//! Several real processes on one cache at once: readers, writers, a remover, a compactor, a clearer.
//! Every value read is checked against its key. Some are killed, and what they acknowledged is there.
#![allow(missing_docs)]

mod common;

use common::{Dir, finish, mix, role, spawn, value_of};
use persist_cache::{Cached, MmapCache, Table};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::{Duration, Instant};

fn table_at(place: &Path) -> (MmapCache, Table<u64, Vec<u64>>) {
    // A machine under sanitizers and load takes its time; deadlines are tried elsewhere.
    let open = MmapCache::options().root(place).lock_timeout(Duration::from_secs(60));
    let cache = open.open("shared").expect("the cache opens");
    let table = cache.table("values");
    (cache, table)
}

/// Whatever is read must be what its key demands.
fn check(table: &Table<u64, Vec<u64>>, key: u64) -> bool {
    match table.get(&key).expect("a look-up") {
        Some(value) => {
            assert_eq!(Cached::into_owned(value), value_of(key), "the value of {key}");
            true
        }
        None => false,
    }
}

#[test]
fn many_processes_share_one_cache() {
    const TEST: &str = "many_processes_share_one_cache";
    const KEYS: u64 = 3000;
    let Some((role, place)) = role() else {
        let dir = Dir::new();
        drop(table_at(dir.path()));
        let roles = ["writer", "writer", "large", "reader", "remover", "compactor", "clearer"];
        let children: Vec<_> = roles.map(|role| spawn(TEST, role, dir.path())).into();
        children.into_iter().for_each(|child| drop(finish(child)));
        let (cache, table) = table_at(dir.path());
        assert!(cache.verify().unwrap().findings.is_empty());
        table.insert_many((0..KEYS).map(|key| (key, value_of(key)))).unwrap();
        assert!((0..KEYS).all(|key| check(&table, key)));
        return;
    };
    let (cache, table) = table_at(&place);
    let until = Instant::now() + Duration::from_secs(3);
    let mut step = mix(u64::from(std::process::id()));
    while Instant::now() < until {
        step = mix(step.wrapping_add(1));
        let key = step % KEYS;
        match &*role {
            "writer" if step.is_multiple_of(50) => {
                let entries = (key..key + 40).map(|key| (key % KEYS, value_of(key % KEYS)));
                table.insert_many(entries).map(drop).expect("insert_many");
            }
            "writer" => drop(table.insert(&key, &value_of(key)).expect("insert")),
            "reader" => (0..1000).for_each(|n| {
                check(&table, (key + n) % KEYS);
            }),
            "large" => {
                // Longer than what is copied under the lock.
                let large = cache.table::<u64, Vec<u64>>("large");
                drop(large.insert(&(key % 20), &vec![key % 20; 10_000 + key as usize]));
                if let Some(value) = large.get(&(step % 20)).expect("a look-up") {
                    assert!(value.len() >= 10_000 && value.iter().all(|item| *item == step % 20));
                }
            }
            "remover" => {
                table.remove(&key).expect("remove");
                std::thread::sleep(Duration::from_micros(200));
            }
            "compactor" => {
                cache.compact().expect("compact");
                std::thread::sleep(Duration::from_millis(20));
            }
            "clearer" => {
                std::thread::sleep(Duration::from_millis(300));
                cache.clear().expect("clear");
            }
            other => panic!("no such role: {other}"),
        }
    }
}

#[test]
fn compaction_loses_nothing_that_comes_meanwhile() {
    let dir = Dir::new();
    let (cache, table) = table_at(dir.path());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2_u64)
            .map(|writer| {
                let (table, stop) = (table.clone(), &stop);
                scope.spawn(move || {
                    let mut next = writer * 10_000_000;
                    while !stop.load(Relaxed) && next % 10_000_000 < 100_000 {
                        table.insert_many((next..next + 50).map(|n| (n, value_of(n)))).unwrap();
                        table.insert(&(next + 50), &value_of(next + 50)).unwrap();
                        assert!(table.remove(&next).unwrap());
                        assert!(!check(&table, next) && check(&table, next + 50));
                        next += 51;
                    }
                    next
                })
            })
            .collect();
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            cache.compact().unwrap();
        }
        stop.store(true, Relaxed);
        for (writer, end) in writers.into_iter().enumerate() {
            for key in writer as u64 * 10_000_000..end.join().unwrap() {
                assert_eq!(check(&table, key), key % 10_000_000 % 51 != 0, "{key}");
            }
        }
    });
    assert_eq!(cache.verify().unwrap().findings, []);
}

#[test]
fn what_a_killed_process_acknowledged_is_there() {
    const TEST: &str = "what_a_killed_process_acknowledged_is_there";
    let Some((role, place)) = role() else {
        let dir = Dir::new();
        for round in 0..40_u64 {
            let mut child = spawn(TEST, &round.to_string(), dir.path());
            let mut lines =
                BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
            let mut last = lines.find(|line| line.starts_with("stored ")).expect("a first entry");
            std::thread::sleep(Duration::from_micros(mix(round) % 20_000));
            child.kill().unwrap();
            child.wait().unwrap();
            if let Some(line) = lines.filter(|line| line.starts_with("stored ")).last() {
                last = line;
            }
            let count: u64 = last.strip_prefix("stored ").unwrap().parse().unwrap();
            let (cache, table) = table_at(dir.path());
            for key in (0..=count).map(|n| round * 1_000_000 + n) {
                assert!(check(&table, key), "round {round}: {key} was acknowledged");
            }
            assert!(cache.verify().unwrap().findings.is_empty(), "round {round}");
            if round % 10 == 9 {
                cache.compact().unwrap();
            }
        }
        return;
    };
    let (_cache, table) = table_at(&place);
    let round: u64 = role.parse().unwrap();
    let mut out = std::io::stdout();
    for n in 0..200_000 {
        let key = round * 1_000_000 + n;
        table.insert(&key, &value_of(key)).unwrap();
        // One write, which is whole or not there: a pipe takes it at once.
        out.write_all(format!("stored {n}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn opening_waits_for_nobody() {
    const TEST: &str = "opening_waits_for_nobody";
    let Some((_, place)) = role() else {
        let dir = Dir::new();
        let (_cache, table) = table_at(dir.path());
        table.insert(&1, &value_of(1)).unwrap();
        let file = std::fs::File::open(_cache.path()).unwrap();
        fs4::FileExt::lock(&file).unwrap();
        // With the lock held elsewhere: opening and reading go on, writers give up at the deadline.
        finish(spawn(TEST, "other", dir.path()));
        return;
    };
    let open = MmapCache::options().root(place).lock_timeout(Duration::from_millis(50));
    let cache = open.open("shared").unwrap();
    let table = cache.table::<u64, Vec<u64>>("values");
    assert!(check(&table, 1));
    let error = table.insert(&2, &value_of(2)).unwrap_err();
    assert!(matches!(error, persist_cache::Error::Locked { .. }), "{error}");
    assert_eq!(*table.get_or_insert_with(&2, || value_of(2)), *value_of(2));
    assert_eq!(cache.stats().store_errors, 1);
}

/// Runs `run` in a forked child, and waits for it.
fn fork(run: impl FnOnce()) {
    // SAFETY: the child only uses caches, which allocates, as glibc and macOS allow after a fork, and leaves
    // without unwinding.
    #[allow(unsafe_code)]
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: its signal ends the process, which is meant: somebody waits for ever.
        #[allow(unsafe_code)]
        unsafe {
            libc::alarm(300)
        };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        // SAFETY: ends the process.
        #[allow(unsafe_code)]
        unsafe {
            libc::_exit(i32::from(result.is_err()))
        }
    }
    let mut status = 0;
    // SAFETY: waits for the child above.
    #[allow(unsafe_code)]
    let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!((waited, status), (pid, 0), "the child failed");
}

#[test]
fn a_forked_child_counts_for_itself() {
    const TEST: &str = "a_forked_child_counts_for_itself";
    let Some((_, place)) = role() else {
        let dir = Dir::new();
        return drop(finish(spawn(TEST, "parent", dir.path())));
    };
    let (cache, table) = table_at(&place);
    table.insert(&1, &value_of(1)).unwrap();
    let look = |hits, misses| {
        (0..hits).for_each(|_| assert!(check(&table, 1)));
        (0..misses).for_each(|_| assert!(!check(&table, 2)));
    };
    let counted = || (cache.stats().hits, cache.stats().misses);
    look(3, 2);
    std::thread::scope(|scope| drop(scope.spawn(|| look(4, 1))));
    assert_eq!(counted(), (7, 3));
    fork(|| {
        assert_eq!(counted(), (0, 0));
        look(5, 0);
        assert_eq!(counted(), (5, 0));
        fork(|| {
            look(1, 1);
            assert_eq!(counted(), (1, 1));
        });
        look(1, 6);
        assert_eq!(counted(), (6, 6));
    });
    look(1, 1);
    assert_eq!(counted(), (8, 4));
}

/// Ends what waits for it, however the test ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// The process whose first calls take as long as it takes until others are done.
static SLOW: AtomicU32 = AtomicU32::new(0);
static ENTERED: AtomicU32 = AtomicU32::new(0);
static IS_OVER: AtomicBool = AtomicBool::new(false);

fn slow_root() -> PathBuf {
    if std::process::id() == SLOW.load(Relaxed) {
        ENTERED.fetch_add(1, Relaxed);
        while !IS_OVER.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    role().expect("a process of a test's").1
}

#[persist_cache::cache(root = slow_root())]
fn double(n: u64) -> u64 {
    n * 2
}

#[persist_cache::cache(root = slow_root())]
async fn triple(n: u64) -> u64 {
    n * 3
}

#[test]
fn a_child_forked_during_first_calls_makes_its_own() {
    const TEST: &str = "a_child_forked_during_first_calls_makes_its_own";
    let Some((_, place)) = role() else {
        let dir = Dir::new();
        return drop(finish(spawn(TEST, "parent", dir.path())));
    };
    let (cache, _) = table_at(&place);
    SLOW.store(std::process::id(), Relaxed);
    std::thread::scope(|scope| {
        let _over = Over(&IS_OVER);
        scope.spawn(|| double(1));
        scope.spawn(|| futures_lite::future::block_on(triple(1)));
        while ENTERED.load(Relaxed) < 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        fork(|| {
            assert_eq!((double(4), futures_lite::future::block_on(triple(4))), (8, 12));
            assert_eq!((double::stats().misses, triple::stats().misses), (1, 1));
        });
        // Whose a scope is the threads of a child find out at the same time.
        for child in 0..50 {
            fork(|| {
                std::thread::scope(|scope| {
                    for thread in 0..4 {
                        let table = format!("table {child} {thread}");
                        let cache = &cache;
                        scope.spawn(move || {
                            let table = cache.table::<u64, u64>(&table);
                            table.insert(&1, &thread).unwrap();
                            assert_eq!(*table.get(&1).unwrap().unwrap(), thread);
                        });
                    }
                });
            });
        }
    });
    assert_eq!((double(1), double::stats().hits), (2, 1));
}

#[test]
fn a_forked_child_goes_on() {
    const TEST: &str = "a_forked_child_goes_on";
    let Some((_, place)) = role() else {
        let dir = Dir::new();
        finish(spawn(TEST, "parent", dir.path()));
        let (_cache, table) = table_at(dir.path());
        for child in 0..20 {
            assert!((0..50).all(|n| check(&table, child * 100 + n)), "of child {child}");
        }
        return;
    };
    let (_cache, table) = table_at(&place);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Over(&stop);
        // Another thread holds gate and lock nearly always, so most forks happen while it does.
        scope.spawn(|| {
            for n in 0.. {
                table.insert(&(1_000_000 + n % 1000), &value_of(1_000_000 + n % 1000)).unwrap();
                if stop.load(Relaxed) {
                    break;
                }
            }
        });
        for child in 0..20 {
            fork(|| {
                (0..50).for_each(|n| {
                    let key = child * 100 + n;
                    table.insert(&key, &value_of(key)).unwrap();
                    assert!(check(&table, key));
                })
            });
        }
    });
}
