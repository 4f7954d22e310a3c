//! Creation by several at once, above all where the system makes no files without names: each waits for
//! the one who is at it, and nobody replaces what another has made.

use super::{assert_sound, get, location, put};
use crate::engine::file::expiry::ExpiryRule;
use crate::engine::file::open::Location;
use crate::engine::os::effect::{Effect, watch};
use crate::engine::os::place::{AccessMode, HAS_UNNAMED, sibling};
use crate::engine::os::replacement::Replacement;
use crate::engine::store::Store;
use crate::engine::store::compact::copy_to;
use crate::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::time::Duration;

/// Opens the cache as another process would: under a spelling of its own, stores have nothing in common.
fn open_apart(path: &Path) -> Result<Arc<Store>, Error> {
    static SPELLINGS: AtomicU64 = AtomicU64::new(0);
    let number = SPELLINGS.fetch_add(1, Ordering::Relaxed);
    let (directory, name) = (path.parent().unwrap(), path.file_name().unwrap());
    let detour = directory.join(format!("detour {number}"));
    fs::create_dir(&detour).unwrap();
    let location = location(&detour.join("..").join(name));
    Store::open(Location { lock_timeout: Duration::from_secs(60), ..location })
}

/// That all have the same cache.
fn assert_one(stores: &[Arc<Store>]) {
    for (key, store) in stores.iter().enumerate() {
        put(store, key as u64, b"mine");
    }
    for store in stores {
        assert!((0..stores.len() as u64).all(|key| get(store, key).as_deref() == Some(b"mine")));
    }
}

#[test]
fn all_that_create_at_once_get_the_same_cache() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..60_u64 {
        let path = dir.path().join(format!("{n}.pcache"));
        let start = Barrier::new(4);
        let open = |by: u64| {
            // None of them, all of them, and some.
            HAS_UNNAMED.set([false, true, by.is_multiple_of(2)][n as usize % 3]);
            start.wait();
            open_apart(&path)
        };
        let stores: Result<Vec<_>, _> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|by| scope.spawn(move || open(by))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_one(&stores.unwrap_or_else(|error| panic!("{n}: {error}")));
        assert!(!sibling(&path).exists());
    }
}

/// A store that waits before its first sync until the other side of the channel says so, in a thread of its
/// own; returns once it is there.
fn open_slowly(path: &Path) -> (std::thread::JoinHandle<Arc<Store>>, impl FnOnce() + use<>) {
    let ((arrive, arrived), (go, gone)) = (channel(), channel());
    let path = path.to_path_buf();
    let thread = std::thread::spawn(move || {
        HAS_UNNAMED.set(false);
        let wait = move |effect: Effect<'_>| {
            if matches!(effect, Effect::Sync { .. }) {
                arrive.send(()).unwrap();
                gone.recv().unwrap();
            }
            Ok(())
        };
        watch(wait, || open_apart(&path)).unwrap()
    });
    arrived.recv().unwrap();
    (thread, move || go.send(()).unwrap())
}

#[test]
fn an_opening_waits_for_one_who_creates_on_a_slow_disk() {
    let dir = tempfile::tempdir().unwrap();
    let is_blank = [false, true];
    for (n, is_blank) in is_blank.into_iter().enumerate() {
        let path = dir.path().join(format!("{n}.pcache"));
        if is_blank {
            // What a power cut left of another one.
            fs::write(&path, [0; 100]).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let (slow, go_on) = open_slowly(&path);
        let brief = Location { lock_timeout: Duration::from_millis(200), ..location(&path) };
        HAS_UNNAMED.set(false);
        let waited = Store::open(brief).map(drop);
        assert!(matches!(waited, Err(Error::Locked { .. })), "{waited:?}");
        let other = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                HAS_UNNAMED.set(false);
                open_apart(&path)
            });
            // Long enough for what used to be given up.
            std::thread::sleep(Duration::from_millis(100));
            go_on();
            other.join().unwrap()
        });
        assert_one(&[slow.join().unwrap(), other.unwrap()]);
    }
    HAS_UNNAMED.set(true);
}

/// Who makes files without names waits for nobody; and who was slower does not replace his.
#[test]
fn a_file_that_was_created_meanwhile_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pcache");
    let (slow, go_on) = open_slowly(&path);
    let quick = open_apart(&path).unwrap();
    put(&quick, 7, b"acknowledged");
    go_on();
    let slow = slow.join().unwrap();
    assert_eq!(get(&slow, 7).unwrap(), b"acknowledged");
    assert_one(&[slow, quick]);
    assert!(!sibling(&path).exists());
}

/// A lock that nobody gives back ends in an error, and its holder's death in a cache.
#[test]
fn a_creator_that_never_ends_is_waited_for_until_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pcache");
    let held = File::create(sibling(&path)).unwrap();
    fs::set_permissions(sibling(&path), fs::Permissions::from_mode(0o600)).unwrap();
    fs4::FileExt::lock(&held).unwrap();
    HAS_UNNAMED.set(false);
    let waited = Store::open(location(&path)).map(drop);
    assert!(matches!(waited, Err(Error::Locked { .. })), "{waited:?}");
    drop(held);
    assert_one(&[Store::open(location(&path)).unwrap(), open_apart(&path).unwrap()]);
    HAS_UNNAMED.set(true);
}

/// Where others may write, they may cut the file that a compaction prepares, too.
#[test]
fn a_file_that_is_not_mapped_has_a_successor_that_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pcache");
    for (access, is_mapped) in [(AccessMode::Checked, true), (AccessMode::Copied, false)] {
        let store = Store::open(Location { access, ..location(&path) }).unwrap();
        put(&store, 1, b"kept");
        let open_file = store.open_file().unwrap();
        let new = Replacement::begin(&path).unwrap().unwrap();
        let (next, _, _) = copy_to(&open_file, &new, ExpiryRule::AS_WRITTEN).unwrap();
        assert_eq!((open_file.map().is_some(), next.map().is_some()), (is_mapped, is_mapped));
        drop((next, new));
        store.compact(ExpiryRule::AS_WRITTEN).unwrap();
        assert_eq!(get(&store, 1).unwrap(), b"kept");
        assert_sound(&store);
    }
}
