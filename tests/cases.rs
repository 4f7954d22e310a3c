//! What happens when: the surprises of a cache's life, one test each.
#![allow(missing_docs)]

mod common;

use common::{Calls, Dir};
use persist_cache::{Cached, Error, Exposure, MmapCache};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

#[test]
fn one_name_is_one_cache() {
    let dir = Dir::new();
    let (a, b) = (dir.open("x"), dir.open("x"));
    a.table::<u64, u64>("t").insert(&1, &2).unwrap();
    assert_eq!(*b.table::<u64, u64>("t").get(&1).unwrap().unwrap(), 2);
    // Through another spelling of the path it is another store on the same file.
    let spelled = dir.path().join("..").join(dir.path().file_name().unwrap());
    let c = MmapCache::options().root(spelled).open("x").unwrap();
    assert_eq!(*c.table::<u64, u64>("t").get(&1).unwrap().unwrap(), 2);
    c.table::<u64, u64>("t").insert(&1, &3).unwrap();
    assert_eq!(*a.table::<u64, u64>("t").get(&1).unwrap().unwrap(), 3);
}

#[test]
fn functions_and_types_never_answer_for_each_other() {
    let dir = Dir::new();
    let cache = dir.open("x");
    let (double, square) = (cache.memoize(|n: &u64| n * 2), cache.memoize(|n: &u64| n * n));
    assert_eq!((*double.call(&5), *square.call(&5)), (10.into(), 25.into()));
    let one = cache.memoize_as("f", |_: &u64| 1_u64);
    let minus = cache.memoize_as("f", |_: &u64| -1_i64);
    let wide = cache.memoize_as("f", |_: &u32| 2_u64);
    assert_eq!((*one.call(&5), *minus.call(&5), *wide.call(&5)), (1.into(), (-1).into(), 2.into()));
    assert_eq!(
        *cache.memoize_as("f", |_: &u64| 9_u64).call(&5),
        1,
        "back at the first type: a hit"
    );
}

mod first {
    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Debug, PartialEq)]
    pub(crate) struct Size {
        pub(crate) width: u32,
        pub(crate) height: u32,
    }
}

mod second {
    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Debug, PartialEq)]
    pub(crate) struct Size {
        pub(crate) height: u32,
        pub(crate) width: u32,
    }
}

#[test]
fn two_types_of_one_name_have_entries_of_their_own() {
    let dir = Dir::new();
    let cache = dir.open("x");
    let one = cache.memoize_as("size", |_: &u64| first::Size { width: 1, height: 2 });
    let two = cache.memoize_as("size", |_: &u64| second::Size { height: 3, width: 4 });
    assert_eq!((one.call(&0).width, one.call(&0).height), (1.into(), 2.into()));
    assert_eq!((two.call(&0).width, two.call(&0).height), (4.into(), 3.into()));
    fn make<T: Default + Copy + Into<u64> + 'static>(cache: &MmapCache) -> u64 {
        cache
            .memoize(|n: &u64| *n + T::default().into() + size_of::<T>() as u64)
            .call(&0)
            .to_native()
    }
    assert_eq!((make::<u8>(&cache), make::<u32>(&cache)), (1, 4), "one closure, two types");
}

#[test]
fn functions_that_share_a_path_and_a_place_have_entries_of_their_own() {
    fn through_a_helper<F: Fn(&u64) -> u64 + Send + Sync + 'static>(c: &MmapCache, f: F) -> u64 {
        c.memoize(f).call(&0).to_native()
    }
    macro_rules! both {
        ($cache:expr) => {
            (*$cache.memoize(|n: &u64| n + 1).call(&0), *$cache.memoize(|n: &u64| n + 2).call(&0))
        };
    }
    trait Constant {
        const VALUE: u64;
    }
    fn constant<T: Constant + 'static>(cache: &MmapCache) -> u64 {
        cache.memoize(|n: &u64| n + T::VALUE).call(&0).to_native()
    }
    let dir = Dir::new();
    let cache = &dir.open("x");
    assert_eq!(through_a_helper(cache, |n| n + 1), 1);
    assert_eq!(through_a_helper(cache, |n| n + 2), 2);
    assert_eq!(both!(cache), (1.into(), 2.into()));
    let one = {
        fn function(n: &u64) -> u64 {
            n + 1
        }
        struct Type;
        impl Constant for Type {
            const VALUE: u64 = 1;
        }
        (*cache.memoize(function).call(&0), constant::<Type>(cache))
    };
    let two = {
        fn function(n: &u64) -> u64 {
            n + 2
        }
        struct Type;
        impl Constant for Type {
            const VALUE: u64 = 2;
        }
        (*cache.memoize(function).call(&0), constant::<Type>(cache))
    };
    assert_eq!((one, two), ((1.into(), 1), (2.into(), 2)));
}

#[test]
fn none_unit_and_empty_are_values() {
    let dir = Dir::new();
    let cache = dir.open("x");
    let calls = Calls::default();
    let none = cache.memoize_as("none", |_: &u64| {
        calls.add();
        None::<String>
    });
    let unit = cache.memoize_as("unit", |_: &u64| calls.add());
    let empty = cache.memoize_as("empty", |_: &u64| {
        calls.add();
        Vec::<String>::new()
    });
    for _ in 0..2 {
        assert!(none.call(&1).is_none());
        let () = Cached::into_owned(unit.call(&1));
        assert!(empty.call(&1).is_empty());
    }
    assert_eq!(calls.take(), 3);
}

#[test]
fn a_panic_passes_through_and_leaves_nothing() {
    let dir = Dir::new();
    let cache = dir.open("x");
    let calls = Calls::default();
    let odd = cache.memoize_as("odd", |n: &u64| {
        calls.add();
        assert!(n % 2 == 1, "even");
        *n
    });
    for _ in 0..2 {
        assert!(catch_unwind(AssertUnwindSafe(|| odd.call(&4))).is_err());
    }
    assert_eq!(calls.take(), 2);
    assert!(odd.peek(&4).is_none());
    assert_eq!(*odd.call(&5), 5, "nothing stays locked");
    let items = (0..4_u64).map(|n| if n == 3 { panic!("iterator") } else { (n, n) });
    let table = cache.table::<u64, u64>("t");
    assert!(catch_unwind(AssertUnwindSafe(|| table.insert_many(items))).is_err());
    table.insert(&9, &9).unwrap();
}

#[test]
fn a_function_may_call_itself() {
    let dir = Dir::new();
    let cache = dir.open("x");
    fn fib(cache: &MmapCache, n: u64) -> u64 {
        let fib = cache.memoize_as("fib", |n: &u64| match *n {
            0 | 1 => *n,
            n => fib(cache, n - 1) + fib(cache, n - 2),
        });
        fib.call(&n).to_native()
    }
    assert_eq!(fib(&cache, 90), 2_880_067_194_370_816_120);
    assert_eq!(cache.stats().entries, 91);
}

#[test]
fn expiry_is_judged_when_read() {
    let dir = Dir::new();
    let cache = dir.open("x");
    let table = cache.table::<u64, u64>("t");
    table.insert(&1, &1).unwrap();
    assert!(cache.expiry().is_none() && table.contains(&1).unwrap());
    cache.set_expiry(Duration::ZERO);
    assert!(!table.contains(&1).unwrap(), "old entries too");
    assert_eq!(*table.get_or_insert_with(&1, || 2), 2, "computed anew");
    cache.set_expiry(Duration::MAX);
    assert_eq!(*table.get(&1).unwrap().unwrap(), 2);
    cache.set_expiry(Duration::from_secs(1));
    table.insert(&2, &2).unwrap();
    assert!(table.contains(&2).unwrap());
    std::thread::sleep(Duration::from_millis(1100));
    assert!(!table.contains(&2).unwrap());
    cache.set_expiry(None);
    assert!(!table.contains(&2).unwrap(), "it was written with a time to live");
    let other = dir.open("x");
    other.set_expiry(Duration::from_secs(3600));
    assert!(other.table::<u64, u64>("t").contains(&2).unwrap(), "each handle judges for itself");
    assert_eq!(
        cache.flush().unwrap(),
        2,
        "as this handle judges: written to expire at once, and late"
    );
    assert_eq!(cache.flush().unwrap(), 0);
    assert!(!other.table::<u64, u64>("t").contains(&2).unwrap());
    assert_eq!(cache.clone().expiry(), cache.expiry());
}

#[test]
fn any_name_is_a_cache_of_its_own() {
    let dir = Dir::new();
    let long = "x".repeat(1000);
    let names = ["", "/", "..", "../..", "a/b", "a b", "ünïcödé", "\0", ".", &long];
    for (n, name) in (0_u64..).zip(names) {
        dir.open(name).table::<(), u64>("t").insert(&(), &n).unwrap();
    }
    for (n, name) in (0_u64..).zip(names) {
        let cache = dir.open(name);
        assert_eq!(*cache.table::<(), u64>("t").get(&()).unwrap().unwrap(), n);
        assert_eq!(cache.path().parent(), Some(dir.path()));
    }
}

#[test]
fn what_another_handle_does_is_seen_by_the_next_call() {
    let dir = Dir::new();
    let cache = dir.open("x");
    // Another spelling, so that nothing is shared but the file: as another process sees it.
    let other = MmapCache::options()
        .root(dir.path().join(".").join("..").join(dir.path().file_name().unwrap()));
    let other = other.open("x").unwrap();
    let (own, theirs) = (cache.table::<u64, Vec<u64>>("t"), other.table::<u64, Vec<u64>>("t"));
    own.insert_many((0..1000).map(|n| (n, vec![n; 20]))).unwrap();
    let held: Vec<_> = (0..1000).map(|n| own.get(&n).unwrap().unwrap()).collect();
    theirs.remove(&1).unwrap();
    assert!(!own.contains(&1).unwrap());
    other.compact().unwrap();
    assert_eq!(own.get(&2).unwrap().unwrap()[0], 2);
    theirs.insert(&2, &vec![7]).unwrap();
    assert_eq!(own.get(&2).unwrap().unwrap()[0], 7);
    other.clear().unwrap();
    assert!(!own.contains(&2).unwrap());
    own.insert(&3, &vec![8]).unwrap();
    assert_eq!(theirs.get(&3).unwrap().unwrap()[0], 8);
    other.delete().unwrap();
    assert!(!own.contains(&3).unwrap());
    own.insert(&4, &vec![9]).unwrap();
    assert_eq!(theirs.get(&4).unwrap().unwrap()[0], 9);
    for (n, value) in (0..1000_u64).zip(&held) {
        assert!(value.len() == 20 && value.iter().all(|item| *item == n), "held values stay valid");
    }
}

#[test]
fn a_file_removed_or_replaced_by_others_is_followed() {
    let dir = Dir::new();
    let cache = dir.open("x");
    let table = cache.table::<u64, u64>("t");
    let held = table.insert(&1, &1).unwrap();
    fs::remove_file(cache.path()).unwrap();
    assert_eq!(*table.get(&1).unwrap().unwrap(), 1, "hits go on, with right values");
    std::thread::sleep(Duration::from_millis(120));
    table.insert(&2, &2).unwrap();
    assert!(cache.path().exists() && !table.contains(&1).unwrap() && *held == 1);
    // A copy restored over it: verified, then followed.
    let kept = dir.join("kept");
    fs::copy(cache.path(), &kept).unwrap();
    table.insert(&2, &3).unwrap();
    fs::rename(&kept, cache.path()).unwrap();
    std::thread::sleep(Duration::from_millis(120));
    assert!(!table.contains(&9).unwrap(), "a miss looks at the path");
    assert_eq!(*table.get(&2).unwrap().unwrap(), 2);
    assert!(cache.verify().unwrap().findings.is_empty());
}

#[test]
fn what_was_cleared_or_forgotten_meanwhile_is_not_stored() {
    let dir = Dir::new();
    let cache = dir.open("x");
    let other = dir.open("x");
    let run = |what: &str, meanwhile: &dyn Fn()| {
        let slow = cache.memoize_as("slow", |n: &u64| {
            meanwhile();
            *n
        });
        assert_eq!(*slow.call(&1), 1, "{what}: the result is returned");
        assert!(slow.peek(&1).is_none(), "{what}: and not stored");
        let again = cache.memoize_as("slow", |n: &u64| *n);
        again.call(&1);
        assert!(again.peek(&1).is_some(), "{what}: the next one is");
        again.forget(&1).unwrap();
    };
    let table = other.table::<u64, u64>("slow");
    run("clear", &|| other.clear().unwrap());
    run("forget", &|| {
        table.remove(&1).unwrap();
    });
    run("delete", &|| other.delete().unwrap());
    run("clear and compact", &|| {
        other.clear().unwrap();
        other.compact().unwrap();
    });
    run("forget and compact", &|| {
        table.remove(&1).unwrap();
        other.compact().unwrap();
    });
    // A removal that a value has hidden since, which then expired.
    run("forget, store and flush", &|| {
        table.remove(&1).unwrap();
        other.set_expiry(Duration::ZERO);
        table.insert(&1, &7).unwrap();
        other.flush().unwrap();
        other.set_expiry(None);
    });
    run("forget, store and compact", &|| {
        table.remove(&1).unwrap();
        other.set_expiry(Duration::ZERO);
        table.insert(&1, &7).unwrap();
        other.compact().unwrap();
        other.set_expiry(None);
    });
    let first = cache.memoize_as("first", |n: &u64| {
        other.table::<u64, u64>("first").insert(n, &10).unwrap();
        20_u64
    });
    assert_eq!(*first.call(&1), 10, "who stored first wins");
    cache.compact().unwrap();
    let plain = cache.memoize_as("plain", |n: &u64| {
        other.compact().unwrap();
        *n
    });
    plain.call(&1);
    assert!(plain.peek(&1).is_some(), "a compaction alone costs no result");
}

#[test]
fn other_files_are_refused_and_left_alone() {
    let dir = Dir::new();
    let path = dir.join("notes.txt");
    fs::write(&path, "dear diary, today I learned about caches").unwrap();
    let error = MmapCache::open_at(&path).unwrap_err();
    assert!(matches!(error, Error::NotACache { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "dear diary, today I learned about caches");

    let cache = dir.open("x");
    cache.table::<u64, u64>("t").insert(&1, &1).unwrap();
    let original = fs::read(cache.path()).unwrap();
    let superblock = |at: usize, byte: u8| {
        let mut bytes = original.clone();
        bytes[at] = byte;
        let path = dir.join("other.pcache");
        fs::write(&path, &bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = MmapCache::open_at(&path).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), bytes, "left as it is");
        error
    };
    let Error::Incompatible { what, found: 9, expected: 1, .. } = superblock(8, 9) else {
        panic!()
    };
    assert_eq!(what, "format version");
    assert!(matches!(superblock(28, 0xa), Error::Incompatible { what: "byte order", .. }));
    assert!(matches!(superblock(100, 32), Error::Damaged { .. }));
    assert!(superblock(100, 32).to_string().contains("delete the file"));
}

#[test]
fn an_empty_or_zeroed_file_is_a_cut_short_creation() {
    let dir = Dir::new();
    for size in [0, 100, 8192] {
        let path = dir.join(&format!("{size}.pcache"));
        fs::write(&path, vec![0; size]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let cache = MmapCache::open_at(&path).unwrap();
        cache.table::<u64, u64>("t").insert(&1, &1).unwrap();
    }
}

#[test]
fn exposed_places_are_refused_and_say_how_to_go_on() {
    let dir = Dir::new();
    let exposure = |path: &Path| match MmapCache::open_at(path).unwrap_err() {
        Error::Exposed { exposure, path } => {
            let text = Error::Exposed { exposure, path }.to_string();
            assert!(text.contains("copy_reads") && text.contains("PERSIST_CACHE_DIR"), "{text}");
            exposure
        }
        other => panic!("{other}"),
    };
    let path = dir.join("x.pcache");
    drop(MmapCache::open_at(&path).unwrap());
    symlink(&path, dir.join("link")).unwrap();
    assert_eq!(exposure(&dir.join("link")), Exposure::Symlink);
    fs::create_dir(dir.join("directory")).unwrap();
    assert_eq!(exposure(&dir.join("directory")), Exposure::NotAFile);
    fs::hard_link(&path, dir.join("hard")).unwrap();
    assert_eq!(exposure(&path), Exposure::HardLinks(2));
    fs::remove_file(dir.join("hard")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(exposure(&path), Exposure::WritableByOthers(0o666));
    let copied = MmapCache::options().copy_reads().open_at(&path).unwrap();
    let table = copied.table::<u64, String>("t");
    table.insert(&1, &"copied".into()).unwrap();
    assert_eq!(table.get(&1).unwrap().unwrap().as_str(), "copied");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let mapped = MmapCache::open_at(&path).unwrap();
    assert_eq!(mapped.table::<u64, String>("t").get(&1).unwrap().unwrap().as_str(), "copied");
    drop(mapped); // An open store is shared, not looked at anew.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(exposure(&path), Exposure::WritableByOthers(0o777));
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let fifo = dir.join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    if made.is_ok_and(|status| status.success()) {
        assert_eq!(exposure(&fifo), Exposure::NotAFile);
    }
    let is_root = fs::metadata(dir.path()).unwrap().uid() == 0;
    if is_root {
        std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
        assert_eq!(exposure(&path), Exposure::ForeignOwner { owner: 12345, user: 0 });
    }
}

#[test]
fn a_file_system_not_known_to_be_local_is_refused() {
    let proc = Path::new("/proc/version");
    if !proc.exists() {
        return;
    }
    let user = fs::metadata("/proc/self").unwrap().uid();
    let error = MmapCache::options().read_only(true).open_at(proc).unwrap_err();
    let Error::Exposed { exposure, .. } = error else { panic!("{error}") };
    match user {
        0 => assert!(matches!(exposure, Exposure::NotLocal(_)), "{exposure}"),
        _ => assert_eq!(exposure, Exposure::ForeignOwner { owner: 0, user }),
    }
    // Copied from, it may lie anywhere; but it is no cache.
    let error = MmapCache::options().read_only(true).copy_reads().open_at(proc).unwrap_err();
    assert!(matches!(
        error,
        Error::NotACache { .. } | Error::Damaged { .. } | Error::ReadOnly { .. }
    ));
}

#[test]
fn copies_are_read_as_maps_are() {
    let dir = Dir::new();
    let cache = MmapCache::options().copy_reads().root(dir.path()).open("x").unwrap();
    let table = cache.table::<u64, Vec<u64>>("t");
    for n in 0..2000 {
        table.insert(&n, &common::value_of(n)).unwrap();
    }
    for n in 0..2000 {
        let value = table.get(&n).unwrap().unwrap();
        assert_eq!(Cached::into_owned(value), common::value_of(n));
    }
    assert_eq!(cache.compact().unwrap().entries_kept, 2000);
    assert!(cache.verify().unwrap().findings.is_empty());
    let mapped = dir.open("x").table::<u64, Vec<u64>>("t");
    assert_eq!(Cached::into_owned(mapped.get(&77).unwrap().unwrap()), common::value_of(77));
    assert!(table.remove(&77).unwrap() && !mapped.contains(&77).unwrap());
    cache.clear().unwrap();
    assert!(!mapped.contains(&78).unwrap());
}

#[test]
fn read_only_reads_and_touches_nothing() {
    let dir = Dir::new();
    let path = dir.join("x.pcache");
    let missing = MmapCache::options().read_only(true).open_at(&path);
    assert!(matches!(missing, Err(Error::Io { .. })));
    let writer = MmapCache::open_at(&path).unwrap();
    writer.table::<u64, u64>("t").insert(&1, &1).unwrap();
    let before = fs::read(&path).unwrap();
    let cache = MmapCache::options().read_only(true).open_at(&path).unwrap();
    let table = cache.table::<u64, u64>("t");
    assert_eq!(*table.get(&1).unwrap().unwrap(), 1);
    assert!(matches!(table.insert(&2, &2), Err(Error::ReadOnly { .. })));
    assert!(matches!(cache.clear(), Err(Error::ReadOnly { .. })));
    assert_eq!(*table.get_or_insert_with(&2, || 2), 2, "a call computes");
    assert_eq!(cache.stats().store_errors, 1);
    assert_eq!(fs::read(&path).unwrap(), before);
    writer.table::<u64, u64>("t").insert(&3, &3).unwrap();
    assert_eq!(*table.get(&3).unwrap().unwrap(), 3, "what others write is seen");
    // The provenance of a copy does not hold: without the right to mend it, the reader keeps an index of its own.
    let copy = dir.join("copy.pcache");
    fs::copy(&path, &copy).unwrap();
    let before = fs::read(&copy).unwrap();
    let cache = MmapCache::options().read_only(true).open_at(&copy).unwrap();
    assert_eq!(*cache.table::<u64, u64>("t").get(&3).unwrap().unwrap(), 3);
    assert!(cache.verify().unwrap().findings.is_empty());
    assert_eq!(fs::read(&copy).unwrap(), before);
}

#[test]
fn the_working_directory_may_change() {
    let Some((_, place)) = common::role() else {
        let dir = Dir::new();
        let child = common::command("the_working_directory_may_change", "child", dir.path())
            .env_remove("PERSIST_CACHE_DIR")
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
        return;
    };
    let cache = MmapCache::open("x").unwrap();
    cache.table::<u64, u64>("t").insert(&1, &1).unwrap();
    fs::create_dir(place.join("elsewhere")).unwrap();
    std::env::set_current_dir(place.join("elsewhere")).unwrap();
    let again = MmapCache::open("x").unwrap();
    assert_eq!(again.path(), cache.path());
    assert!(again.table::<u64, u64>("t").contains(&1).unwrap());
    assert!(place.join(".persist_cache/CACHEDIR.TAG").exists());
    assert!(place.join(".persist_cache/.gitignore").exists());
    assert_eq!(persist_cache::flush("x", Duration::ZERO).unwrap(), 1);
    persist_cache::clear("x").unwrap();
    persist_cache::delete("x").unwrap();
    assert!(!cache.path().exists());
    assert_eq!(persist_cache::flush("never", None).unwrap(), 0);
    persist_cache::clear("never").and(persist_cache::delete("never")).unwrap();
    assert_eq!(fs::read_dir(place.join(".persist_cache")).unwrap().count(), 2, "nothing was made");
}

#[test]
fn large_values_are_stored_beside_small_ones() {
    let dir = Dir::new();
    let cache = dir.open("x");
    let table = cache.table::<u64, Vec<u8>>("t");
    for n in 0..20 {
        let value = vec![n as u8; 70_000 * n as usize];
        assert_eq!(table.insert(&n, &value).unwrap().len(), value.len());
        table.insert(&(100 + n), &vec![1]).unwrap();
    }
    cache.sync().unwrap();
    cache.compact().unwrap();
    for n in 0..20_u64 {
        let value = table.get(&n).unwrap().unwrap();
        assert!(value.len() == 70_000 * n as usize && value.iter().all(|byte| *byte == n as u8));
    }
    assert!(cache.verify().unwrap().findings.is_empty());
}

#[test]
fn nothing_is_left_behind() {
    let dir = Dir::new();
    let cache = dir.open("x");
    cache.table::<u64, u64>("t").insert(&1, &1).unwrap();
    cache.compact().unwrap();
    cache.clear().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    cache.delete().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn stats_and_verification_are_of_the_file_that_is_there() {
    let dir = Dir::new();
    let (one, other) = (dir.open("x"), dir.open("x"));
    let table = one.table::<u64, u64>("t");
    table.insert_many((0..100).map(|n| (n, n))).unwrap();
    one.delete().unwrap();
    assert_eq!((other.stats().entries, one.stats().entries), (0, 0));
    assert_eq!(one.verify().unwrap().records, 0);
}

/// What handles differ in that have one store: how long they wait, and how they judge what they find.
#[test]
fn handles_of_one_file_have_one_store_and_each_its_own_patience() {
    let dir = Dir::new();
    let options = || MmapCache::options().root(dir.path());
    let patient = options().lock_timeout(Duration::from_secs(60)).open("x").unwrap();
    let brisk = options().lock_timeout(Duration::ZERO).expiry(Duration::MAX).open("x").unwrap();
    patient.table::<u64, u64>("t").insert(&1, &2).unwrap();
    assert!(brisk.table::<u64, u64>("t").get(&1).unwrap().is_some());
    assert_eq!(patient.stats().hits, 1, "their counts are the store's");
    // One file is open, and once.
    #[cfg(target_os = "linux")]
    {
        let descriptors = fs::read_dir("/proc/self/fd").unwrap();
        let links = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        assert_eq!(links.filter(|path| path == patient.path()).count(), 1);
    }
    let holder = fs::OpenOptions::new().read(true).write(true).open(patient.path()).unwrap();
    holder.lock().unwrap();
    let insert =
        |cache: &MmapCache, key: u64| cache.table::<u64, u64>("t").insert(&key, &2).map(drop);
    assert!(matches!(insert(&brisk, 2), Err(Error::Locked { .. })));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| insert(&patient, 3));
        std::thread::sleep(Duration::from_millis(100));
        assert!(
            matches!(insert(&brisk, 4), Err(Error::Locked { .. })),
            "behind one who waits, too"
        );
        drop(holder);
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(patient.stats().entries, 2);
}
