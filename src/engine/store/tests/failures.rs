//! Writes and syncs that fail in the middle of a hold of the lock: what was written and not published is erased
//! before anything covers it, and no sync is believed after one that failed.

use super::{SCOPE, draft, entry, get, numbered, open, put};
use crate::engine::format::header::{PROVENANCE, PROVENANCE_SIZE, word};
use crate::engine::os::effect::{Effect, watch};
use crate::engine::os::file::Storage as _;
use crate::engine::store::Store;
use crate::engine::store::put::PutCondition;
use crate::error::Error;
use std::cell::Cell;
use std::io;
use std::rc::Rc;

/// What fails, with EIO.
#[derive(Clone, Copy, PartialEq)]
enum Failing {
    /// The write of this number and so many more. From then on there is no space either: growth is not tried again.
    Writes(usize, usize),
    /// That write, and the first sync behind it.
    WriteAndSync(usize),
    /// The first sync.
    Sync,
}

/// Does `work` while something fails; says whether all of it did.
fn failing<T>(what: Failing, work: impl FnOnce() -> T) -> (T, bool) {
    let (writes, failed) = (Cell::new(0), Rc::new(Cell::new(0)));
    let noted = Rc::clone(&failed);
    let probe = move |effect: Effect<'_>| {
        let number = writes.get();
        writes.set(number + usize::from(matches!(effect, Effect::Write { .. })));
        let fails = match (what, effect) {
            (Failing::Writes(first, more), Effect::Write { .. }) => {
                (first..=first + more).contains(&number)
            }
            (Failing::WriteAndSync(first), Effect::Write { .. }) => number == first,
            (Failing::WriteAndSync(_), Effect::Sync { .. }) => noted.get() == 1,
            (Failing::Sync, Effect::Sync { .. }) => noted.get() == 0,
            _ => false,
        };
        noted.set(noted.get() + usize::from(fails));
        let is_full = matches!(what, Failing::Writes(..)) && noted.get() > 0;
        if is_full && matches!(effect, Effect::Allocate { .. }) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if fails { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    };
    let done = watch(probe, work);
    let wanted = match what {
        Failing::Writes(_, more) => more + 1,
        Failing::WriteAndSync(_) => 2,
        Failing::Sync => 1,
    };
    (done, failed.get() == wanted)
}

/// The next append begins to make the index larger.
const NEAR_LOAD_FACTOR: u64 = 351;

fn near_load_factor(dir: &tempfile::TempDir) -> std::sync::Arc<Store> {
    let store = open(dir);
    (0..NEAR_LOAD_FACTOR).for_each(|key| put(&store, key, b"a value"));
    store
}

fn try_put(store: &Store, key: u64) -> crate::Result<()> {
    store.put(&entry(key, b"y"), &SCOPE, PutCondition::Replace, &store.deadline()).map(drop)
}

/// Whether bytes lie behind the tail of which the header says nothing.
fn has_hidden_bytes(store: &Store) -> bool {
    let open_file = store.open_file().unwrap();
    let (journal, header) = (open_file.journal(), open_file.journal().header);
    let file = std::fs::read(&store.location.path).unwrap();
    let is_dirty = file[journal.tail().unwrap() as usize..].iter().any(|byte| *byte != 0);
    is_dirty && header.get(word::PUBLISHED).unwrap() == header.get(word::SEQ).unwrap()
}

#[test]
fn no_sync_is_believed_after_that_of_wiped_bytes_failed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"x");
    let _ = numbered(&store.lock().unwrap().journal(), 2, b"never written");
    let (refused, has_failed) = failing(Failing::Sync, || try_put(&store, 3));
    assert!(has_failed && matches!(refused, Err(Error::Io { .. })));
    // The system has forgotten what it could not write.
    assert!(matches!(store.sync(), Err(Error::Unsynced { .. })));
    assert_eq!(get(&store, 1).unwrap(), b"x");
    // Whoever opens the file next takes a new one.
    let other = super::reboot(&dir, &store);
    assert_eq!(get(&other, 1).unwrap(), b"x");
    put(&other, 3, b"y");
    other.sync().unwrap();
}

/// The write of a new table, at each of its steps; and the sync that its erasing needs.
#[test]
fn growth_that_fails_hides_no_unpublished_bytes_and_no_failed_sync() {
    let mut failures = 0;
    for step in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let store = near_load_factor(&dir);
        let work = || (1000..1003).map(|key| try_put(&store, key)).collect::<Vec<_>>();
        let (_, has_failed) = failing(Failing::WriteAndSync(step), work);
        assert!(!has_hidden_bytes(&store), "{step}");
        assert!(!(has_failed && store.sync().is_ok()), "{step}");
        failures += usize::from(has_failed);
    }
    assert!(failures > 2, "{failures}");
}

/// One hold of the lock appends more than one record: a scope's and a value's.
#[test]
fn no_record_covers_unpublished_bytes_of_the_same_hold() {
    for step in 0..40 {
        for more in 0..3 {
            let dir = tempfile::tempdir().unwrap();
            let store = near_load_factor(&dir);
            {
                let writer = store.lock().unwrap();
                let journal = writer.journal();
                let append = |key| drop(journal.append(&mut [draft(&journal, key, b"y")]));
                failing(Failing::Writes(step, more), || (1000..1003).for_each(append));
            }
            assert!(!has_hidden_bytes(&store), "{step} and {more} more");
            put(&store, 2000, b"and on");
            assert_eq!(get(&store, 2000).unwrap(), b"and on");
        }
    }
}

#[test]
fn a_recovery_in_which_a_sync_failed_says_of_nothing_that_it_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let store = near_load_factor(&dir);
    put(&store, 1000, b"the index is due to grow");
    store.open_file().unwrap().file().write(PROVENANCE, &[0; PROVENANCE_SIZE]).unwrap();
    let (location, image) = (store.location.clone(), super::cuts::image(&store));
    drop(store);
    let mut failures = 0;
    for step in 0..120 {
        std::fs::write(&location.path, &image).unwrap();
        let what = Failing::WriteAndSync(step);
        let (opened, has_failed) = failing(what, || Store::open(location.clone()));
        let Ok(store) = opened else { continue };
        let open_file = store.open_file().unwrap();
        let (journal, header) = (open_file.journal(), open_file.journal().header);
        let is_synced = header.get(word::SYNCED).unwrap() == journal.tail().unwrap();
        let is_failed = header.get(word::FAILED).unwrap() != 0;
        assert!(!has_failed || is_failed || !is_synced, "{step}");
        failures += usize::from(has_failed);
    }
    assert!(failures > 0);
}
