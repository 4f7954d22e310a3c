//! What a record means, rule by rule: what it supersedes, from where on it counts, and what becomes of one
//! whose writer died.

use super::{SCOPE, assert_sound, draft, entry, get, identity, open, put, reboot};
use crate::engine::file::effort::Effort;
use crate::engine::file::expiry::ExpiryRule;
use crate::engine::file::open::Location;
use crate::engine::file::replay::{Outcome, Replay};
use crate::engine::file::trust;
use crate::engine::format::header::word;
use crate::engine::format::record::{HEAD_SIZE, Identity, Kind};
use crate::engine::format::slot::{Slot, Tag};
use crate::engine::index::{self, SlotEntry};
use crate::engine::log::journal::Draft;
use crate::engine::log::op::LARGE;
use crate::engine::os::effect::{Effect, watch};
use crate::engine::os::file::Storage as _;
use crate::engine::os::replacement::Replacement;
use crate::engine::store::Store;
use crate::engine::store::compact::copy_to;
use crate::engine::store::findings::Finding;
use crate::engine::store::put::{Entry, PutCondition, PutProgress};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;
use std::time::Duration;

/// Space for a large value of `key`, reserved and written, and not committed yet.
pub(super) fn reserve(store: &Store, key: u64, payload: &[u8]) -> u64 {
    let writer = store.lock().unwrap();
    let journal = writer.journal();
    let offset = journal.reserve(&mut draft(&journal, key, payload).head).unwrap();
    writer.open_file().file().write(offset + HEAD_SIZE, payload).unwrap();
    offset
}

/// What `key` has after a compaction that has copied all there is when the large value at `offset` is committed.
fn compacted_around(store: &Store, offset: u64, key: u64) -> Option<Kind> {
    let open_file = store.open_file().unwrap();
    let new = Replacement::begin(&store.location.path).unwrap().unwrap();
    let (next, _, at) = copy_to(&open_file, &new, ExpiryRule::AS_WRITTEN).unwrap();
    store.lock().unwrap().commit(offset).unwrap();
    let mut replay = Replay::new(open_file.journal(), next.journal(), at);
    assert!(replay.run(open_file.journal().tail().unwrap(), u64::MAX).unwrap() == Outcome::Done);
    let found = next.journal().locate(&identity(key));
    found.inspect(|(_, head)| assert!(head.len < LARGE as u64)).map(|(_, head)| head.kind)
}

/// However few keys it remembers at a time, a verification names those that are lost, and no others.
#[test]
fn a_verification_in_many_passes_finds_what_one_finds() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    (0..50).for_each(|key| put(&store, key, b"cleared"));
    store.clear().unwrap();
    (0..200).for_each(|key| put(&store, key, b"flushed"));
    put(&store, 200, &vec![7; LARGE + 1]);
    store.flush(ExpiryRule::new(Some(Duration::ZERO))).unwrap();
    (100..300).for_each(|key| put(&store, key, b"a value"));
    put(&store, 301, &vec![7; LARGE + 1]);
    for key in 120..140 {
        store.remove(&identity(key), ExpiryRule::AS_WRITTEN).unwrap();
    }
    for keys_max in [2, 9, 1000] {
        assert_eq!(store.verify_by(keys_max).unwrap().findings, []);
    }
    // Of these the index loses its slots.
    let open_file = store.open_file().unwrap();
    let journal = open_file.journal();
    let mut lost: Vec<u64> = [105, 130, 150, 151, 152, 299, 301]
        .map(|key| {
            let (offset, _) = journal.locate(&identity(key)).unwrap();
            let (storage, table) = (journal.header.storage, journal.header.table(word::INDEX));
            let tag = Tag::of(identity(key).hash(journal.superblock.seed));
            let same = |slot: Slot| (slot.offset() == offset).then_some(());
            let SlotEntry::Occupied(at, ..) = index::slot_entry(storage, table, tag, same) else {
                panic!("{key}")
            };
            journal.header.store(at, Slot::dead(tag).0).unwrap();
            offset
        })
        .into();
    lost.sort_unstable();
    for keys_max in [2, 9, 1000] {
        let findings = store.verify_by(keys_max).unwrap().findings;
        let mut found: Vec<u64> = findings
            .into_iter()
            .map(|finding| match finding {
                Finding::Unreachable { offset } => offset,
                other => panic!("{other}"),
            })
            .collect();
        found.sort_unstable();
        assert_eq!(found, lost, "{keys_max} at a time");
    }
}

#[test]
fn a_large_value_cleared_before_it_was_committed_does_not_come_back_in_a_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let payload = vec![7; LARGE + 1];
    let offset = reserve(&store, 1, &payload);
    store.clear().unwrap();
    put(&store, 2, b"x");
    assert_eq!(compacted_around(&store, offset, 1), None);
    assert_eq!(get(&store, 1), None);
}

/// It has another number in the new file: that of the record which says that it was committed.
#[test]
fn a_large_value_committed_and_flushed_beside_a_compaction_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 2, b"x");
    let offset = reserve(&store, 1, &vec![7; LARGE + 1]);
    let open_file = store.open_file().unwrap();
    let new = Replacement::begin(&store.location.path).unwrap().unwrap();
    let (next, _, at) = copy_to(&open_file, &new, ExpiryRule::AS_WRITTEN).unwrap();
    store.lock().unwrap().commit(offset).unwrap();
    put(&store, 3, b"x");
    assert_eq!(store.flush(ExpiryRule::new(Some(Duration::ZERO))).unwrap(), 3);
    put(&store, 2, b"y");
    let mut replay = Replay::new(open_file.journal(), next.journal(), at);
    assert!(replay.run(open_file.journal().tail().unwrap(), u64::MAX).unwrap() == Outcome::Done);
    let found = [1, 2, 3].map(|key| next.journal().locate(&identity(key)).is_some());
    assert_eq!(found, [false, true, false]);
}

#[test]
fn a_large_value_superseded_before_it_was_committed_does_not_come_back_in_a_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let payload = vec![7; LARGE + 1];
    let offset = reserve(&store, 1, &payload);
    put(&store, 1, b"newer");
    assert_eq!(compacted_around(&store, offset, 1), Some(Kind::VALUE));
    let offset = reserve(&store, 2, &payload);
    store.remove(&identity(2), ExpiryRule::AS_WRITTEN).unwrap();
    assert_eq!(compacted_around(&store, offset, 2), None);
    assert_eq!((get(&store, 1).unwrap(), get(&store, 2)), (b"newer".into(), None));
}

#[test]
fn a_refresh_replaces_what_was_stored_meanwhile_and_brings_back_nothing_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"before");
    let refresh = |meanwhile: &dyn Fn()| {
        let token = Store::token(&store.open_file().unwrap());
        meanwhile();
        let condition = PutCondition::Refresh(token);
        store.put(&entry(1, b"refreshed"), &SCOPE, condition, &store.deadline()).unwrap().is_some()
    };
    assert!(refresh(&|| put(&store, 1, b"meanwhile")));
    assert_eq!(get(&store, 1).unwrap(), b"refreshed");
    let remove = || assert!(store.remove(&identity(1), ExpiryRule::AS_WRITTEN).unwrap());
    assert!(!refresh(&remove));
    assert_eq!(get(&store, 1), None);
    // A removal from before it began is none of its business.
    assert!(refresh(&|| {}));
    assert_eq!(get(&store, 1).unwrap(), b"refreshed");
}

/// Whether anything but zeros lies behind the tail, and whether the header says that it may.
fn unpublished(store: &Store) -> (bool, bool) {
    let open_file = store.open_file().unwrap();
    let header = open_file.journal().header;
    let image = std::fs::read(&store.location.path).unwrap();
    let behind = &image[header.get(word::TAIL).unwrap() as usize..];
    let is_shown = header.get(word::PUBLISHED).unwrap() < header.get(word::SEQ).unwrap();
    (behind.iter().any(|byte| *byte != 0), is_shown)
}

#[test]
fn what_a_killed_writer_left_behind_the_tail_is_known_and_erased() {
    let full = ExpiryRule::new(Some(Duration::ZERO));
    let large = vec![7; LARGE + 1];
    let batch = |store: &Store| {
        let entries: Vec<_> = (5..9).map(|key| entry(key, b"batch")).collect();
        store.put_many(&entries, &SCOPE)
    };
    let try_put = |store: &Store, key, payload: &[u8]| {
        store.put(&entry(key, payload), &SCOPE, PutCondition::Replace, &store.deadline()).map(drop)
    };
    type Operation<'a> = &'a dyn Fn(&Store) -> crate::Result<()>;
    let operations: [Operation<'_>; 6] = [
        &|store| try_put(store, 1, b"x"),
        &|store| try_put(store, 2, &large),
        &batch,
        &|store| store.remove(&identity(1), ExpiryRule::AS_WRITTEN).map(drop),
        &|store| store.flush(full).map(drop),
        &|store| store.clear(),
    ];
    let mut found = 0;
    for operation in operations {
        for step in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let store = open(&dir);
            put(&store, 1, b"before");
            let left = Rc::new(Cell::new(step));
            let steps = Rc::clone(&left);
            let dying = move |effect: Effect<'_>| match (effect, steps.get()) {
                (_, 0) => Err(io::Error::other("dead")),
                (Effect::Read, _) => Ok(()),
                (_, left) => {
                    steps.set(left - 1);
                    Ok(())
                }
            };
            drop(watch(dying, || operation(&store)));
            let (is_there, is_shown) = unpublished(&store);
            assert!(is_shown || !is_there, "dead at {step}");
            found += u32::from(is_there);
            drop(store.lock().unwrap());
            assert_eq!(unpublished(&store), (false, false), "dead at {step}");
            if left.get() > 0 {
                break;
            }
        }
    }
    assert!(found > 6);
}

#[test]
fn a_flush_killed_before_the_index_was_brought_up_to_it_is_redone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"x");
    put(&store, 2, b"y");
    {
        let writer = store.lock().unwrap();
        let journal = writer.journal();
        let dead = journal.locate(&identity(1)).unwrap().0.to_le_bytes();
        let list = Draft::new(Kind::DEAD_LIST, Identity::NONE, &dead, journal.superblock.seed);
        journal.write(&mut [list]).unwrap();
    }
    assert!(get(&store, 1).is_some(), "published, and not yet in the index");
    drop(store.lock().unwrap());
    assert_eq!((get(&store, 1), get(&store, 2).unwrap()), (None, b"y".into()));
    assert_eq!(store.stats().entries, 1);
    assert_eq!(get(&reboot(&dir, &store), 1), None);
    assert_sound(&store);
}

#[test]
fn a_file_whose_last_payload_was_torn_is_not_believed_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (path, last) = {
        let store = open(&dir);
        put(&store, 1, b"whole");
        put(&store, 1, b"a lost write");
        let last = store.open_file().unwrap().journal().locate(&identity(1)).unwrap().0;
        (store.location.path.clone(), last)
    };
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0; 12], last + HEAD_SIZE).unwrap();
    assert_eq!(get(&open(&dir), 1).unwrap(), b"whole");
}

/// Else a power cut might bring the superseded file back, with all that came after the last sync lost.
#[test]
fn the_names_of_a_compaction_are_on_the_device_when_it_returns() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"x");
    let seen = Rc::new(RefCell::new(Vec::new()));
    let order = Rc::clone(&seen);
    let probe = move |effect: Effect<'_>| {
        match effect {
            Effect::Write { .. } => order.borrow_mut().push("write"),
            Effect::Sync { .. } => order.borrow_mut().push("sync"),
            Effect::Rename { .. } => order.borrow_mut().push("rename"),
            Effect::SyncDirectory => order.borrow_mut().push("sync of names"),
            _ => {}
        }
        Ok(())
    };
    watch(probe, || store.compact(ExpiryRule::AS_WRITTEN)).unwrap();
    let seen = seen.borrow();
    let at = |what| seen.iter().rposition(|seen| *seen == what).unwrap();
    assert!(at("sync") < at("rename") && at("rename") < at("sync of names"), "{seen:?}");
}

#[test]
fn a_flushed_large_value_uncovers_none_that_it_had_superseded() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"small");
    put(&store, 1, &[7; LARGE + 1]);
    store.flush(ExpiryRule::new(Some(Duration::ZERO))).unwrap();
    assert_eq!(get(&store, 1), None);
    assert_sound(&store);
    assert_eq!(get(&reboot(&dir, &store), 1), None);
}

#[test]
fn a_large_value_killed_between_its_two_stores_is_redone_and_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let payload = vec![7; LARGE + 1];
    let offset = reserve(&store, 1, &payload);
    put(&store, 2, b"x");
    {
        let writer = store.lock().unwrap();
        let journal = writer.journal();
        let place = offset.to_le_bytes();
        let committed = Draft::new(Kind::COMMIT, Identity::NONE, &place, journal.superblock.seed);
        journal.write(&mut [committed]).unwrap();
        let value = journal.records().unwrap().reserved(offset).unwrap().unwrap();
        journal.header.store(offset, value.first_word()).unwrap();
    }
    assert_sound(&store);
    assert_eq!(get(&store, 1), None);
    drop(store.lock().unwrap());
    assert_eq!(get(&store, 1).unwrap(), payload);
    assert_sound(&store);
}

/// It has an index of its own, in which nothing is that came after it was made.
#[test]
fn one_who_may_not_write_finds_no_damage_in_what_others_append() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"x");
    let copy = dir.path().join("copy.pcache");
    std::fs::copy(&store.location.path, &copy).unwrap();
    let at = Location { path: copy, ..store.location.clone() };
    let reader = Store::open(Location { is_read_only: true, ..at.clone() }).unwrap();
    assert!(reader.open_file().unwrap().is_private());
    let writer = Store::open(at).unwrap();
    put(&writer, 1, b"y");
    put(&writer, 2, b"z");
    let report =
        reader.open_file().map(|open_file| (open_file.is_private(), reader.verify().unwrap()));
    let (is_private, report) = report.unwrap();
    assert!(is_private);
    assert_eq!(report.findings, []);
    assert_sound(&writer);
}

/// A flush after the large value was committed, and before a compaction comes to that, removes what kept it from
/// counting.
#[test]
fn a_large_value_stays_superseded_when_its_successor_is_flushed() {
    for is_copied in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        put(&store, 2, b"other");
        let offset = reserve(&store, 1, &vec![7; LARGE + 1]);
        let supersede = || {
            let successor = Entry { ttl: Some(Duration::ZERO), ..entry(1, b"newer") };
            store
                .put(&successor, &SCOPE, PutCondition::Replace, &store.deadline())
                .unwrap()
                .unwrap();
        };
        if is_copied {
            supersede();
        }
        let open_file = store.open_file().unwrap();
        let new = Replacement::begin(&store.location.path).unwrap().unwrap();
        let (next, _, at) = copy_to(&open_file, &new, ExpiryRule::NEVER).unwrap();
        if !is_copied {
            supersede();
        }
        store.lock().unwrap().commit(offset).unwrap();
        assert_eq!(store.flush(ExpiryRule::AS_WRITTEN).unwrap(), 1);
        let mut replay = Replay::new(open_file.journal(), next.journal(), at);
        assert!(
            replay.run(open_file.journal().tail().unwrap(), u64::MAX).unwrap() == Outcome::Done
        );
        let found = next.journal().locate(&identity(1)).map(|(_, head)| head.kind);
        assert!(!matches!(found, Some(Kind::VALUE)), "copied {is_copied}: it came back");
        assert_eq!((get(&store, 1), get(&reboot(&dir, &store), 1)), (None, None));
        assert_sound(&store);
    }
}

/// Whatever was appended last, a file whose provenance holds is believed as it is.
#[test]
fn a_file_whose_provenance_holds_is_believed_whatever_its_last_record_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let is_trusted = || trust::is_trusted(&store.open_file().unwrap()).unwrap();
    assert!(is_trusted());
    put(&store, 1, b"small");
    assert!(is_trusted());
    reserve(&store, 2, &[7; LARGE + 1]);
    assert!(is_trusted(), "space of a large value");
    put(&store, 3, &vec![7; 2 << 20]);
    assert!(is_trusted(), "the record that fills it");
    store.clear().unwrap();
    assert!(is_trusted(), "a table");
    put(&store, 4, b"small");
    let open_file = store.open_file().unwrap();
    let at = open_file.journal().locate(&identity(4)).unwrap().0;
    open_file.file().overwrite(at + HEAD_SIZE, b"torn!").unwrap();
    assert!(!is_trusted());
}

#[test]
fn a_verification_counts_all_and_tells_of_a_thousand_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let payloads = [7; 16];
    let entries: Vec<_> = (0..1200).map(|key| entry(key, &payloads)).collect();
    store.put_many(&entries, &SCOPE).unwrap();
    let whole = store.verify().unwrap();
    let open_file = store.open_file().unwrap();
    let tables = open_file.journal().header.table(word::INDEX) != open_file.superblock.first_index;
    assert!(whole.findings.is_empty());
    assert!(whole.records > 1200 && whole.records < 1210 && tables, "{}", whole.records);
    for key in 0..1200 {
        let at = open_file.journal().locate(&identity(key)).unwrap().0;
        open_file.file().overwrite(at + HEAD_SIZE, b"x").unwrap();
    }
    let damaged = store.verify().unwrap();
    assert_eq!((damaged.records, damaged.findings.len()), (whole.records, 1000));
}

/// A put that begins in one file and ends in another: the record's checksums are those of the file it is in.
#[test]
fn a_put_that_follows_the_cache_is_made_for_the_file_it_ends_in() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut progress = PutProgress::default();
    for store in dirs.each_ref().map(open) {
        let entry = entry(1, b"a value");
        let stored =
            store.try_put(&entry, &SCOPE, PutCondition::Replace, Effort::Full, &mut progress);
        assert!(stored.unwrap().is_ok_and(|found| found.is_some()));
        assert_eq!(get(&store, 1).unwrap(), b"a value");
        assert_sound(&store);
    }
}
