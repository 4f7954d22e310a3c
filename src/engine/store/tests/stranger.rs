//! Files whose provenance never holds: the system tells no boot, or two of them use one file.

use super::*;
use crate::engine::file::open::apart;
use crate::engine::format::checkpoint::CHECKPOINT_SIZE;
use crate::engine::format::header::PROVENANCE_SIZE;
use crate::engine::format::slot::Table;
use crate::engine::os::effect::{Effect, watch};
use crate::engine::store::StoreLookup;
use crate::engine::store::pin::lock;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;

pub(super) fn forget_provenance(store: &Store) {
    let open_file = store.open_file().unwrap();
    open_file.file().write(PROVENANCE, &[0; PROVENANCE_SIZE]).unwrap();
}

/// An opening that finds nothing to be mended appends nothing, but for the first one's checkpoint.
#[test]
fn openings_without_provenance_leave_the_file_as_long_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    (0..2000).for_each(|key| put(&store, key, b"a value"));
    (0..200).for_each(|key| put(&store, key, b"a newer value"));
    for key in 500..600 {
        store.remove(&identity(key), ExpiryRule::AS_WRITTEN).unwrap();
    }
    let expected = |key| match key {
        500..600 => None,
        0..200 => Some(b"a newer value".to_vec()),
        _ => Some(b"a value".to_vec()),
    };
    forget_provenance(&store);
    let (entries, tail) = (store.stats().entries, store.open_file().unwrap().journal().tail());
    let tail = tail.unwrap() + HEAD_SIZE + CHECKPOINT_SIZE as u64;
    let size = store.open_file().unwrap().file().size().unwrap();
    drop(store);
    for opening in 0..100 {
        let store = open(&dir);
        let open_file = store.open_file().unwrap();
        assert_eq!(open_file.journal().tail().unwrap(), tail, "{opening}");
        assert_eq!(open_file.file().size().unwrap(), size, "{opening}");
        forget_provenance(&store);
    }
    let store = open(&dir);
    assert_eq!(store.stats().entries, entries);
    for key in 0..2000 {
        assert_eq!(get(&store, key), expected(key), "{key}");
    }
    // And it is an index to go on with.
    (2000..6000).for_each(|key| put(&store, key, b"a value"));
    (0..6000).for_each(|key| assert_eq!(get(&store, key), expected(key), "{key}"));
    assert_sound(&store);
}

/// What an opening does to the file, and how often it reads.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Deeds {
    reads: u64,
    /// Where something was written; and 0 for each sync.
    changes: Vec<u64>,
}

/// Opens the file, whose provenance does not hold, where no allocation beyond `room` succeeds.
fn open_elsewhere(location: &Location, room: u64) -> (Arc<Store>, Deeds) {
    let deeds = Rc::new(RefCell::new(Deeds::default()));
    let seen = Rc::clone(&deeds);
    let probe = move |effect: Effect<'_>| {
        let mut deeds = seen.borrow_mut();
        match effect {
            Effect::Allocate { to, .. } if to > room => {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Effect::Read => deeds.reads += 1,
            Effect::Write { at, .. } => deeds.changes.push(at),
            Effect::Sync { .. } => deeds.changes.push(0),
            _ => {}
        }
        Ok(())
    };
    let store = watch(probe, || Store::open(location.clone()).unwrap());
    let deeds = deeds.borrow().clone();
    (store, deeds)
}

fn image_but_for_provenance(location: &Location) -> Vec<u8> {
    let mut image = std::fs::read(&location.path).unwrap();
    image[PROVENANCE as usize..PROVENANCE as usize + PROVENANCE_SIZE].fill(0);
    image
}

/// The first opening walks over the log and leaves a checkpoint; those that come after it go by that, and leave
/// every byte as it was.
#[test]
fn an_opening_without_provenance_need_not_walk_over_what_another_did() {
    for (is_synced, access) in
        [(false, AccessMode::Checked), (true, AccessMode::Checked), (false, AccessMode::Copied)]
    {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let has_left_a_table =
            || store.open_file().unwrap().journal().header.table(word::RETIRED) != Table::NONE;
        let count = (0..).inspect(|key| put(&store, *key, b"a value")).find(|_| has_left_a_table());
        let count = count.unwrap() + 1;
        store.remove(&identity(7), ExpiryRule::AS_WRITTEN).unwrap();
        assert!(has_left_a_table());
        if is_synced {
            store.sync().unwrap();
        }
        let location = Location { access, ..store.location.clone() };
        forget_provenance(&store);
        drop(store);
        let (mut before, mut first) = (image_but_for_provenance(&location), None);
        for opening in 0..20 {
            let (store, deeds) = open_elsewhere(&location, u64::MAX);
            if opening == 0 && !is_synced {
                before = image_but_for_provenance(&location);
                assert!(access == AccessMode::Checked || deeds.reads > 300, "{deeds:?}");
                first = Some(deeds);
            } else {
                assert_eq!(deeds.changes, [0, PROVENANCE], "{opening}: {deeds:?}, first {first:?}");
                assert!(deeds.reads < 100, "{opening}: {deeds:?}");
                assert!(image_but_for_provenance(&location) == before, "{opening}");
            }
            forget_provenance(&store);
        }
        let store = open(&dir);
        assert_eq!(store.stats().entries, count - 1);
        (0..count).for_each(|key| assert_eq!(get(&store, key).is_some(), key != 7));
        assert_sound(&store);
    }
}

/// What a recovery mended, and the checkpoint that it leaves, are on the device before they count as that.
#[test]
fn a_recovery_says_that_all_is_synced_after_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    (0..20).for_each(|key| put(&store, key, b"sixteen bytes!!!"));
    // Torn.
    let torn = store.open_file().unwrap().journal().locate(&identity(3)).unwrap().0;
    store.open_file().unwrap().file().write(torn + HEAD_SIZE, &[0; 16]).unwrap();
    forget_provenance(&store);
    let location = store.location.clone();
    drop(store);
    let (store, Deeds { changes, .. }) = open_elsewhere(&location, u64::MAX);
    let synced = changes.iter().position(|at| *at == word::SYNCED).expect("it says so");
    assert!(changes.contains(&torn), "it mends {torn}: {changes:?}");
    assert_eq!(changes[synced - 1], 0, "{changes:?}");
    assert!(
        changes[synced..].iter().all(|at| [word::SYNCED, word::STATE, PROVENANCE].contains(at))
    );
    assert_eq!(get(&store, 3), None);
    let header = store.open_file().unwrap().journal().header.get(word::SYNCED).unwrap();
    assert_eq!(header, store.open_file().unwrap().journal().tail().unwrap());
}

/// Where no opening finds a provenance that holds, and little is stored between them, the index grows all the same.
#[test]
fn openings_without_provenance_do_not_begin_growth_again_and_again() {
    for is_synced in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        (0..352).for_each(|key| put(&store, key, b"a value"));
        let (first, tail) =
            (store.open_file().unwrap(), store.open_file().unwrap().journal().tail());
        let small = first.journal().header.table(word::INDEX);
        forget_provenance(&store);
        drop(store);
        for key in 352..400 {
            let store = open(&dir);
            put(&store, key, b"a value");
            if is_synced {
                store.sync().unwrap();
            }
            forget_provenance(&store);
        }
        let store = open(&dir);
        let open_file = store.open_file().unwrap();
        let index = open_file.journal().header.table(word::INDEX);
        assert_eq!(index.buckets(), 2 * small.buckets());
        let grown = open_file.journal().tail().unwrap() - tail.unwrap();
        assert!(grown < 4 * small.size() + 48 * 512, "{grown} bytes more");
        (0..400).for_each(|key| assert_eq!(get(&store, key).unwrap(), b"a value"));
        assert_sound(&store);
    }
}

/// On a full disk there is no space for a checkpoint, nor for a larger index: what is there is used.
#[test]
fn an_opening_without_provenance_needs_no_space() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    (0..352).for_each(|key| put(&store, key, b"a value"));
    let journal = store.open_file().unwrap();
    let journal = journal.journal();
    let tail = journal.tail().unwrap();
    journal.header.set(word::ALLOCATED, tail).unwrap();
    store.open_file().unwrap().file().resize(tail).unwrap();
    forget_provenance(&store);
    let location = store.location.clone();
    drop(store);
    for _ in 0..3 {
        let (store, _) = open_elsewhere(&location, tail);
        assert_eq!(store.open_file().unwrap().journal().tail().unwrap(), tail);
        (0..352).for_each(|key| assert_eq!(get(&store, key).unwrap(), b"a value"));
        forget_provenance(&store);
    }
}

/// Where the index cannot grow at once, others are told of the unpublished bytes of its table.
#[test]
fn growth_that_fails_in_an_opening_leaves_nothing_behind_the_tail() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    (0..353).for_each(|key| put(&store, key, b"a value"));
    forget_provenance(&store);
    let (location, image) = (store.location.clone(), std::fs::read(&store.location.path).unwrap());
    drop(store);
    let mut opened = 0;
    for step in 0..120 {
        std::fs::write(&location.path, &image).unwrap();
        let left = std::cell::Cell::new(step);
        let failing = move |effect: Effect<'_>| match effect {
            Effect::Write { .. } if left.replace(left.get() - 1) == 0 => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        };
        let Ok(store) = watch(failing, || Store::open(location.clone())) else { continue };
        opened += 1;
        let open_file = store.open_file().unwrap();
        let (header, tail) = (open_file.journal().header, open_file.journal().tail().unwrap());
        let file = std::fs::read(&location.path).unwrap();
        let is_clean = file[tail as usize..].iter().all(|byte| *byte == 0);
        let is_known = header.get(word::PUBLISHED).unwrap() < header.get(word::SEQ).unwrap();
        assert!(is_clean || is_known, "{step}");
        assert!((0..353).all(|key| get(&store, key).unwrap() == b"a value"), "{step}");
        put(&store, 1, b"a value");
        assert_sound(&store);
    }
    assert!(opened > 60, "{opened} openings");
}

/// Who may not write makes an index of his own: from that of the file, if a checkpoint vouches for it, without a
/// walk over the log.
#[test]
fn a_reader_goes_by_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    (0..5000).for_each(|key| put(&store, key, &[key as u8; 1000]));
    (0..400).for_each(|key| put(&store, key, &[1; 10]));
    store.remove(&identity(499), ExpiryRule::AS_WRITTEN).unwrap();
    for is_synced in [false, true] {
        if is_synced {
            store.sync().unwrap();
        }
        forget_provenance(&store);
        let at = Location { is_read_only: true, ..store.location.clone() };
        let (reader, deeds) = open_elsewhere(&at, u64::MAX);
        assert!(reader.open_file().unwrap().is_private());
        // Of which most are words of the header.
        assert_eq!(deeds.reads < 100, is_synced, "{deeds:?}");
        for key in 0..5000 {
            assert_eq!(get(&reader, key), get(&store, key), "{key}");
        }
        assert_sound(&reader);
        // An index that is not what the checkpoint says is not gone by.
        let open_file = store.open_file().unwrap();
        let (table, journal) = (open_file.index().1, open_file.journal());
        let full = |at: &u64| !Slot(journal.header.storage.load(*at)).is_empty();
        let at = (table.offset()..table.end()).step_by(8).find(full).unwrap();
        let slot = journal.header.storage.load(at);
        journal.header.store(at, Slot::dead(Slot(slot).tag()).0).unwrap();
        let reader =
            Store::open(Location { is_read_only: true, ..location(&apart(&store.location.path)) });
        let reader = reader.unwrap();
        journal.header.store(at, slot).unwrap();
        assert!((0..5000).all(|key| get(&reader, key) == get(&store, key)));
    }
}

/// An index that lacks a record, or has one too many, is made anew.
#[test]
fn an_index_that_is_not_what_the_log_says_is_not_kept() {
    for is_lacking in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        (0..100).for_each(|key| put(&store, key, b"old"));
        {
            let writer = store.lock().unwrap();
            let journal = writer.journal();
            let table = journal.header.table(word::INDEX);
            let tag = Tag::of(identity(7).hash(journal.superblock.seed));
            if is_lacking {
                let named = |slot: Slot| (slot.tag() == tag).then_some(());
                let entry = index::slot_entry(journal.header.storage, table, tag, named);
                let SlotEntry::Occupied(at, ..) = entry else { panic!("it is there") };
                journal.header.store(at, Slot::dead(tag).0).unwrap();
            } else {
                let SlotEntry::Vacant(at, _) =
                    index::slot_entry(journal.header.storage, table, tag, |_| None::<()>)
                else {
                    panic!("there is room")
                };
                journal.header.store(at, Slot::new(tag, table.end() + 4096).0).unwrap();
            }
        }
        forget_provenance(&store);
        let tail = store.open_file().unwrap().journal().tail().unwrap();
        drop(store);
        let store = open(&dir);
        assert!(store.open_file().unwrap().journal().tail().unwrap() > tail);
        (0..100).for_each(|key| assert_eq!(get(&store, key).unwrap(), b"old"));
        assert_sound(&store);
    }
}

/// A reader with an index of its own learns of what becomes of the cache by its path alone, and goes there.
#[test]
fn a_reader_with_its_own_index_follows_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"old");
    let copy = dir.path().join("copy.pcache");
    std::fs::copy(&store.location.path, &copy).unwrap();
    let reader = Store::open(Location { is_read_only: true, ..location(&copy) }).unwrap();
    assert_eq!(get(&reader, 1).unwrap(), b"old");
    assert!(reader.open_file().unwrap().is_private());
    let writer = Store::open(location(&copy)).unwrap();
    put(&writer, 1, b"new");
    writer.compact(ExpiryRule::AS_WRITTEN).unwrap();
    let start = std::time::Instant::now();
    while get(&reader, 1).unwrap() != b"new" {
        assert!(start.elapsed() < Duration::from_secs(60), "it never follows");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A computation that begins before the file is verified began at a number that no recovery gives out again:
/// where an ordinary one is, and where the records move to a new file. Of a header that does not verify, none
/// is known.
#[test]
fn a_glance_tells_when_a_computation_began() {
    for (has_failed, is_sound) in [(false, true), (true, true), (true, false)] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        assert_eq!(Store::glance(&location(&dir.path().join("none"))), None);
        (0..10).for_each(|key| put(&store, key, b"x"));
        let open_file = store.open_file().unwrap();
        let journal = open_file.journal();
        numbered(&journal, 10, b"given out, and never written");
        let began = Store::token(&open_file);
        journal.header.set(word::FAILED, has_failed.into()).unwrap();
        if !is_sound {
            journal.header.store(word::LIVE, 7).unwrap();
        }
        forget_provenance(&store);
        let glance = Store::glance(&store.location);
        assert_eq!(glance, is_sound.then_some(began));
        let location = store.location.clone();
        drop(store);
        let store = Store::open(location.clone()).unwrap();
        let is_new = store.open_file().unwrap().superblock.file_id != open_file.superblock.file_id;
        assert_eq!(is_new, has_failed);
        let after = Store::token(&store.open_file().unwrap());
        assert!(after.cache_id == began.cache_id && after.seq >= began.seq);
        if let Some(began) = glance {
            // A removal comes later.
            store.remove(&identity(3), ExpiryRule::AS_WRITTEN).unwrap();
            let refused = put_on(&store, 3, PutCondition::Mend(began));
            assert!(refused.is_none() && put_on(&store, 99, PutCondition::Mend(began)).is_some());
            store.clear().unwrap();
            assert!(put_on(&store, 98, PutCondition::Mend(began)).is_none());
        }
        std::fs::remove_file(&location.path).unwrap();
        std::fs::write(&location.path, [0; 8192]).unwrap();
        assert_eq!(Store::glance(&location), None);
    }
}

fn put_on(store: &Store, key: u64, condition: PutCondition) -> Option<StoreLookup> {
    store.put(&entry(key, b"y"), &SCOPE, condition, &store.deadline()).unwrap()
}

/// A forked child has no file open, and has left none.
#[test]
fn a_child_knows_when_its_computations_began() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"x");
    let began = Store::token(&store.open_file().unwrap());
    lock(&store.state().current).take();
    assert!(lock(&store.state().left).is_none());
    assert_eq!(store.known_token(), Some(began));
}
