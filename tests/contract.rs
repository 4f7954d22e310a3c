//! The public face, as programs use it: what compiles, and what it then does.
#![allow(missing_docs)]

mod common;

use common::{Calls, Dir};
use persist_cache::{CacheKey, Cached, KeySchema, KeyWriter, Memoized, MmapCache, Table};
use rkyv::bytecheck::Verify;
use rkyv::rancor::{Fallible, Source};
use rkyv::{Archive, Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

#[derive(Archive, Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Report {
    words: u64,
    longest: Option<String>,
    lengths: Vec<u32>,
}

impl Report {
    fn of(text: &str) -> Report {
        let words: Vec<&str> = text.split_whitespace().collect();
        Report {
            words: words.len() as u64,
            longest: words.iter().max_by_key(|word| word.len()).map(|word| word.to_string()),
            lengths: words.iter().map(|word| word.len() as u32).collect(),
        }
    }
}

static REPORTS: LazyLock<Memoized<str, Report>> =
    LazyLock::new(|| MmapCache::disabled().memoize(|text: &str| Report::of(text)));
static NAMED: LazyLock<Memoized<str, Report>> =
    LazyLock::new(|| MmapCache::disabled().memoize_as("reports", |text: &str| Report::of(text)));

struct Holder {
    reports: Memoized<str, Report>,
    sizes: Table<Path, u64>,
}

#[test]
fn a_result_is_computed_once_and_read_in_place() {
    let dir = Dir::new();
    let calls = Calls::default();
    let cache = dir.open("reports");
    let analyse = cache.memoize_as("analyse", |text: &str| {
        calls.add();
        Report::of(text)
    });
    let text = String::from("to be or not to be");
    let first = analyse.call(&text);
    assert_eq!(calls.take(), 1);
    let second = analyse.call("to be or not to be");
    assert_eq!(calls.take(), 0);
    assert_eq!(second.words, 6);
    assert_eq!(second.longest.as_ref().unwrap().as_str(), "not");
    assert_eq!(Cached::into_owned(first.clone()), Report::of(&text));
    assert_eq!(Cached::try_into_owned(second).unwrap(), Report::of(&text));
    assert_eq!(analyse.peek(&text).unwrap().words, 6);
    assert!(analyse.forget(&text).unwrap());
    assert!(!analyse.forget(&text).unwrap());
    assert!(analyse.peek(&text).is_none());
    assert_eq!(first.words, 6, "held values stay");
}

#[test]
fn memoised_functions_can_be_named_and_sent() {
    fn assert_shared<T: Send + Sync + Clone>(_: &T) {}
    let dir = Dir::new();
    let cache = dir.open("x");
    assert_shared(&cache);
    assert_shared(&cache.memoize(|n: &u64| n + 1));
    assert_shared(&cache.memoize(|n: &u64| n + 1).call(&1));
    assert_eq!(REPORTS.call("a b").words, NAMED.call("c d").words);
    let holder = Holder {
        reports: cache.memoize(|text: &str| Report::of(text)),
        sizes: cache.table("sizes"),
    };
    assert_eq!(holder.reports.call("one").words, 1);
    holder.sizes.insert(Path::new("x"), &4).unwrap();
    let called = dir.open("again").memoize(|n: &u64| n * 2).call(&4);
    assert_eq!(*called, 8, "a value outlives the handles it came from");
}

#[test]
fn failures_are_returned_and_not_stored() {
    let dir = Dir::new();
    let cache = dir.open("x");
    let calls = Calls::default();
    let parse = cache.try_memoize_as("parse", |text: &str| {
        calls.add();
        text.parse::<u32>()
    });
    assert_eq!(*parse.call("4").unwrap(), 4);
    assert_eq!(*parse.call("4").unwrap(), 4);
    assert_eq!(calls.take(), 1);
    assert!(parse.call("x").is_err());
    assert!(parse.call("x").is_err());
    assert_eq!(calls.take(), 2);
    assert!(parse.peek("x").is_none() && parse.peek("4").is_some());
    let parse = cache.try_memoize(|text: &str| text.parse::<u8>());
    assert_eq!(*parse.call("5").unwrap(), 5);
    assert!(parse.forget("5").unwrap());
}

#[test]
fn tables_share_with_functions_of_their_name() {
    let dir = Dir::new();
    let cache = dir.open("x");
    let sizes = cache.table::<str, u64>("sizes");
    assert_eq!(*sizes.insert("a", &1).unwrap(), 1);
    let measure = cache.memoize_as("sizes", |_: &str| -> u64 { panic!("it is there") });
    assert_eq!(*measure.call("a"), 1);
    assert_eq!(*sizes.get_or_insert_with("b", || 2), 2);
    assert_eq!(*measure.call("b"), 2);
    let found = sizes.get_many(&["a", "b", "c"]).unwrap();
    assert_eq!(
        found.iter().map(|v| v.as_deref().map(|v| v.to_native())).collect::<Vec<_>>(),
        [Some(1), Some(2), None]
    );
    assert!(sizes.contains("a").unwrap() && !sizes.contains("c").unwrap());
    assert!(sizes.get_or_try_insert_with("c", || Err("no")).is_err());
    assert_eq!(*sizes.get_or_try_insert_with("c", || Ok::<_, ()>(3)).unwrap(), 3);
    assert!(sizes.remove("a").unwrap() && !sizes.remove("a").unwrap());
    let squares = cache.table::<u64, u64>("squares");
    assert_eq!(squares.insert_many((0..10_000).map(|n| (n, n * n))).unwrap(), 10_000);
    assert_eq!(squares.insert_many([(3, 10)]).unwrap(), 1);
    assert_eq!(*squares.get(&99).unwrap().unwrap(), 99 * 99);
    assert_eq!(*squares.get(&3).unwrap().unwrap(), 10);
    assert_eq!(squares.get_many(&[1, 2]).unwrap().len(), 2);
    assert_eq!(*squares.get_or_insert_with(&20_000, || 7), 7);
}

#[test]
fn every_kind_of_key_finds_its_own_entry() {
    fn check<K: CacheKey + ?Sized>(cache: &MmapCache, key: &K, other: &K) {
        let table = cache.table::<K, u64>("keys");
        table.insert(key, &1).unwrap();
        table.insert(other, &2).unwrap();
        assert_eq!(table.get(key).unwrap().map(|v| v.to_native()), Some(1));
        assert_eq!(table.get(other).unwrap().map(|v| v.to_native()), Some(2));
        assert!(table.remove(key).unwrap());
        assert!(!table.contains(key).unwrap() && table.contains(other).unwrap());
    }
    let dir = Dir::new();
    let cache = &dir.open("x");
    check::<u8>(cache, &1, &2);
    check::<i128>(cache, &-1, &i128::MIN);
    check::<usize>(cache, &5_000_000_000, &705_032_704);
    check::<bool>(cache, &true, &false);
    check::<char>(cache, &'a', &'ß');
    check::<f64>(cache, &0.0, &-0.0);
    check::<f32>(cache, &f32::NAN, &1.0);
    check::<str>(cache, "", "x");
    check::<String>(cache, &"a".repeat(1000), &"a".repeat(1001));
    check::<[u8]>(cache, &[], &[0]);
    check::<Path>(cache, Path::new("/a"), Path::new("/b"));
    let odd = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff\xfe");
    check::<PathBuf>(cache, &PathBuf::from(std::ffi::OsStr::to_os_string(odd)), &"\u{fffd}".into());
    check::<Option<u8>>(cache, &None, &Some(0));
    check::<Result<u8, u8>>(cache, &Ok(1), &Err(1));
    check::<(Box<str>, Arc<str>)>(cache, &("ab".into(), "c".into()), &("a".into(), "bc".into()));
    check::<Rc<[u16]>>(cache, &Rc::from([1]), &Rc::from([1, 2]));
    check::<Cow<'_, str>>(cache, &Cow::Borrowed("x"), &Cow::Owned("y".into()));
    check::<&str>(cache, &"x", &"y");
    check::<[u64; 4]>(cache, &[1, 2, 3, 4], &[1, 2, 3, 5]);
    check::<Vec<Vec<u8>>>(cache, &vec![vec![1], vec![]], &vec![vec![], vec![1]]);
    check::<VecDeque<u8>>(cache, &VecDeque::from([1, 2]), &VecDeque::from([2, 1]));
    check::<HashMap<u8, u8>>(cache, &HashMap::from([(1, 2)]), &HashMap::from([(2, 1)]));
    check::<BTreeMap<u8, u8>>(cache, &BTreeMap::from([(1, 2)]), &BTreeMap::new());
    check::<HashSet<u8>>(cache, &HashSet::from([1]), &HashSet::from([2]));
    check::<BTreeSet<String>>(cache, &BTreeSet::from(["a".into()]), &BTreeSet::new());
    check::<Duration>(cache, &Duration::from_nanos(1), &Duration::from_secs(1));
    let epoch = SystemTime::UNIX_EPOCH;
    check(cache, &epoch, &(epoch - Duration::from_secs(1)));
    check::<IpAddr>(cache, &"1.2.3.4".parse().unwrap(), &"::1".parse().unwrap());
    check::<SocketAddr>(cache, &"1.2.3.4:5".parse().unwrap(), &"[::1]:5".parse().unwrap());
    type Twelve = (u8, u8, u8, u8, u8, u8, u8, u8, u8, u8, u8, u8);
    check::<Twelve>(cache, &(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12), &Default::default());
    let unit = cache.table::<(), u64>("unit");
    unit.insert(&(), &1).unwrap();
    assert!(unit.contains(&()).unwrap());
}

#[test]
fn maps_and_sets_are_keys_in_any_order() {
    let dir = Dir::new();
    let table = dir.open("x").table::<HashMap<String, u32>, u64>("maps");
    let entries: Vec<_> = (0..100).map(|n| (format!("key {n}"), n)).collect();
    let forward: HashMap<_, _> = entries.iter().cloned().collect();
    let backward: HashMap<_, _> = entries.into_iter().rev().collect();
    table.insert(&forward, &1).unwrap();
    assert!(table.contains(&backward).unwrap());
    let sorted = backward.into_iter().collect::<BTreeMap<_, _>>();
    assert!(table.rekey::<BTreeMap<String, u32>>().contains(&sorted).unwrap());
}

#[test]
fn a_key_of_ones_own_takes_a_few_lines() {
    struct Point {
        x: u32,
        y: u32,
    }
    impl CacheKey for Point {
        const SCHEMA: KeySchema =
            KeySchema::new("Point").field("x", u32::SCHEMA).field("y", u32::SCHEMA);
        fn feed(&self, key: &mut KeyWriter) {
            self.x.feed(key);
            self.y.feed(key);
        }
    }
    let dir = Dir::new();
    let norm = dir.open("x").memoize(|p: &Point| u64::from(p.x * p.x + p.y * p.y));
    assert_eq!(*norm.call(&Point { x: 3, y: 4 }), 25);
    assert_eq!(*norm.call(&Point { x: 4, y: 3 }), 25);
    assert_eq!(norm.peek(&Point { x: 3, y: 4 }).map(|n| n.to_native()), Some(25));
    let swapped = KeySchema::new("Point").field("y", u32::SCHEMA).field("x", u32::SCHEMA);
    assert_ne!(swapped, Point::SCHEMA, "swapped fields are another schema");
}

#[test]
fn names_and_paths() {
    let dir = Dir::new();
    let cache = dir.open("reports");
    assert_eq!(cache.name(), Some("reports"));
    assert!(cache.path().starts_with(dir.path()) && cache.path().exists());
    let at = MmapCache::open_at(dir.join("explicit.pcache")).unwrap();
    assert_eq!((at.name(), at.path()), (None, &*dir.join("explicit.pcache")));
    assert!(format!("{cache:?}").contains("reports"));
    let disabled = MmapCache::disabled();
    assert_eq!((disabled.name(), disabled.path()), (None, Path::new("")));
    let table = disabled.table::<u64, u64>("x");
    assert_eq!(*table.insert(&1, &2).unwrap(), 2);
    assert!(table.get(&1).unwrap().is_none());
    assert_eq!(disabled.flush().unwrap(), 0);
    disabled.clear().and(disabled.delete()).and(disabled.sync()).unwrap();
    assert!(disabled.verify().unwrap().findings.is_empty() && disabled.compact().is_ok());
    assert_eq!(disabled.stats().misses, 1);
}

#[test]
fn stats_say_what_happened() {
    let dir = Dir::new();
    let cache = dir.open("x");
    let slow = cache.memoize(|n: &u64| {
        std::thread::sleep(Duration::from_millis(20));
        *n
    });
    for _ in 0..3 {
        slow.call(&1);
    }
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.hits, stats.misses, stats.store_errors), (1, 2, 1, 0));
    assert!(stats.time_saved >= Duration::from_millis(39), "{:?}", stats.time_saved);
    assert!(stats.live_bytes >= 72 && stats.file_bytes >= stats.live_bytes);
    slow.forget(&1).unwrap();
    assert_eq!(cache.stats().entries, 0);
    let compaction = cache.compact().unwrap();
    assert_eq!((compaction.entries_kept, compaction.entries_dropped), (0, 0));
    assert!(compaction.bytes_after <= compaction.bytes_before);
}

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(bytecheck(verify))]
struct Even(u64);

/// Whether odd numbers pass: what is refused is not stored.
static IS_LAX: AtomicBool = AtomicBool::new(false);

// SAFETY: it is right to refuse more than one has to.
#[allow(unsafe_code)]
unsafe impl<C: Fallible<Error: Source> + ?Sized> Verify<C> for ArchivedEven {
    fn verify(&self, _: &mut C) -> Result<(), C::Error> {
        match self.0.to_native() % 2 {
            0 => Ok(()),
            _ if IS_LAX.load(Relaxed) => Ok(()),
            _ => Err(C::Error::new(std::fmt::Error)),
        }
    }
}

#[test]
fn what_its_type_refuses_is_a_miss_and_no_hit() {
    let dir = Dir::new();
    let path = dir.join("copy.pcache");
    let cache = dir.open("x");
    IS_LAX.store(true, Relaxed);
    cache.table("t").insert(&1_u64, &Even(7)).unwrap();
    IS_LAX.store(false, Relaxed);
    std::fs::copy(cache.path(), &path).unwrap();
    for options in [MmapCache::options(), MmapCache::options().copy_reads()] {
        // As another process: what this one has checked is not checked again.
        let other = options.open_at(&path).unwrap();
        assert!(other.table::<u64, Even>("t").get(&1).unwrap().is_none());
        let stats = other.stats();
        assert_eq!((stats.hits, stats.misses, stats.entries), (0, 1, 1));
    }
}

#[test]
fn a_hit_may_come_from_any_thread() {
    let dir = Dir::new();
    let square = dir.open("x").memoize(|n: &u64| n * n);
    let value = square.call(&9);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..1000 {
                    assert_eq!(*square.call(&n), n * n);
                }
                let held = value.clone();
                assert_eq!(*held, 81);
            });
        }
    });
    assert_eq!(dir.open("x").stats().hits + dir.open("x").stats().misses, 4001);
}

#[test]
fn no_hit_is_uncounted_while_its_thread_ends() {
    let dir = Dir::new();
    let cache = dir.open("x");
    let square = cache.memoize(|n: &u64| n * n);
    square.call(&9);
    for hits in (2..=4000).step_by(2) {
        // A scope waits for its threads' closures, not for what their locals do when they are dropped.
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| square.call(&9));
            }
        });
        assert_eq!(cache.stats().hits, hits);
    }
}
