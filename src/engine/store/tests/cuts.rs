//! Power cuts, one at a time: what each of them once cost.

use super::{draft, entry, get, identity, location, numbered, open, put};
use crate::engine::file::expiry::ExpiryRule;
use crate::engine::file::open::Location;
use crate::engine::file::trust;
use crate::engine::format::header::word;
use crate::engine::format::record::{HEAD_SIZE, Identity, Kind};
use crate::engine::format::{seal, unseal};
use crate::engine::log::journal::Draft;
use crate::engine::log::op::LARGE;
use crate::engine::os::effect::{Effect, watch};
use crate::engine::os::file::Storage as _;
use crate::engine::store::Store;
use crate::engine::store::put::PutCondition;
use std::cell::Cell;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) fn image(store: &Store) -> Vec<u8> {
    std::fs::read(&store.location.path).unwrap()
}
/// A file with these bytes, which nobody has opened.
fn lay(dir: &tempfile::TempDir, image: &[u8]) -> Location {
    static COPIES: AtomicU64 = AtomicU64::new(0);
    let number = COPIES.fetch_add(1, Ordering::Relaxed);
    let copy = dir.path().join(format!("cut {number}.pcache"));
    std::fs::write(&copy, image).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o600)).unwrap();
    location(&copy)
}
pub(super) fn boot_at(dir: &tempfile::TempDir, image: &[u8], read_only: bool) -> Arc<Store> {
    Store::open(Location { is_read_only: read_only, ..lay(dir, image) }).unwrap()
}
pub(super) fn boot(dir: &tempfile::TempDir, image: &[u8]) -> Arc<Store> {
    boot_at(dir, image, false)
}
pub(super) fn word_of(image: &[u8], at: u64) -> u64 {
    let at_ = at as usize;
    unseal(u64::from_le_bytes(image[at_..at_ + 8].try_into().unwrap()), at).unwrap()
}
pub(super) fn set_word(image: &mut [u8], at: u64, value: u64) {
    image[at as usize..at as usize + 8].copy_from_slice(&seal(value, at).to_le_bytes());
}
fn offset(store: &Store, key: u64) -> usize {
    store.open_file().unwrap().journal().locate(&identity(key)).unwrap().0 as usize
}

#[test]
fn a_checkpoint_is_not_believed_before_its_sync_ended() {
    for head_too in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        put(&store, 1, b"v1v1v1v1v1v1v1v1");
        store.sync().unwrap();
        put(&store, 1, b"v2v2v2v2v2v2v2v2");
        store.lock().unwrap().journal().checkpoint().unwrap();
        let mut cut = image(&store);
        let at = offset(&store, 1);
        if head_too {
            cut[at..at + 80].fill(0)
        } else {
            cut[at + 64..at + 80].fill(0)
        }
        let after = boot(&dir, &cut);
        assert!(get(&after, 1).is_some());
    }
}

/// What it mended looks whole, and the checkpoint leads to it.
#[test]
fn a_recovery_that_dies_leaves_no_checkpoint_over_what_it_mended() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"v1v1v1v1v1v1v1v1");
    store.sync().unwrap();
    put(&store, 1, b"v2v2v2v2v2v2v2v2");
    store.lock().unwrap().journal().checkpoint().unwrap();
    let mut cut = image(&store);
    let at = offset(&store, 1);
    cut[at + 64..at + 80].fill(0);
    for step in 0..40 {
        let left = Cell::new(step);
        let dying = move |effect: Effect<'_>| match (effect, left.get()) {
            (Effect::Read, _) => Ok(()),
            (_, 0) => Err(io::Error::other("dead")),
            (_, steps) => {
                left.set(steps - 1);
                Ok(())
            }
        };
        let copy = lay(&dir, &cut);
        watch(dying, || drop(Store::open(copy.clone())));
        let after = Store::open(copy).unwrap();
        assert_eq!(get(&after, 1).unwrap(), b"v1v1v1v1v1v1v1v1", "dead at {step}");
    }
}

#[test]
fn a_torn_record_stays_dropped_after_the_next_sync() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"v1v1v1v1v1v1v1v1");
    store.sync().unwrap();
    put(&store, 1, b"v2v2v2v2v2v2v2v2");
    let mut cut = image(&store);
    let at = offset(&store, 1);
    cut[at + 64..at + 80].fill(0);
    let two = boot(&dir, &cut);
    assert_eq!(get(&two, 1).unwrap(), b"v1v1v1v1v1v1v1v1");
    put(&two, 2, b"x");
    two.sync().unwrap();
    put(&two, 3, b"x");
    let three = boot(&dir, &image(&two));
    assert_eq!(get(&three, 1).unwrap(), b"v1v1v1v1v1v1v1v1");
}

#[test]
fn a_reader_alone_passes_over_a_torn_record() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"v1v1v1v1v1v1v1v1");
    store.sync().unwrap();
    put(&store, 1, b"v2v2v2v2v2v2v2v2");
    let mut cut = image(&store);
    let at = offset(&store, 1);
    cut[at + 64..at + 80].fill(0);
    let two = boot_at(&dir, &cut, true);
    assert_eq!(get(&two, 1).unwrap(), b"v1v1v1v1v1v1v1v1");
}

#[test]
fn numbers_of_torn_records_are_not_given_out_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"v1");
    store.sync().unwrap();
    let seq = word_of(&image(&store), word::SEQ);
    (100..120).for_each(|key| put(&store, key, b"sixteen bytes!!!"));
    let mut cut = image(&store);
    for key in 100..120 {
        let at = offset(&store, key);
        cut[at + 64..at + 80].fill(0);
    }
    set_word(&mut cut, word::SEQ, seq);
    let two = boot(&dir, &cut);
    put(&two, 2, b"synced");
    two.sync().unwrap();
    put(&two, 3, b"x");
    assert!(get(&two, 2).is_some());
    let three = boot(&dir, &image(&two));
    assert_eq!(get(&three, 2).unwrap(), b"synced");
}

#[test]
fn a_clear_of_which_one_word_is_left_swallows_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"v1");
    store.sync().unwrap();
    let mut cut = image(&store);
    let seq = word_of(&cut, word::SEQ);
    set_word(&mut cut, word::CLEARED, seq + 2);
    let two = boot(&dir, &cut);
    put(&two, 2, b"acknowledged");
    assert_eq!(get(&two, 2).unwrap(), b"acknowledged");
}

#[test]
fn a_barrier_that_got_ahead_stops_nobody() {
    for rebuild in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        put(&store, 1, b"v1");
        store.sync().unwrap();
        let mut cut = image(&store);
        let seq = word_of(&cut, word::SEQ);
        set_word(&mut cut, word::BARRIER, seq + 200);
        if rebuild {
            set_word(&mut cut, word::CHECKPOINT, 0)
        }
        let two = boot(&dir, &cut);
        let mut stored = 0;
        for key in 10..60 {
            let condition = PutCondition::IfAbsent(
                Store::token(&two.open_file().unwrap()),
                ExpiryRule::AS_WRITTEN,
            );
            stored += u64::from(
                two.put(&entry(key, b"x"), &super::SCOPE, condition, &two.deadline())
                    .unwrap()
                    .is_some(),
            );
        }
        assert!(stored == 50);
    }
}

#[test]
fn unpublished_bytes_of_an_earlier_life_never_come_back() {
    for what in ["clear", "value", "dead list"] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        put(&store, 1, b"v1");
        put(&store, 2, b"v1");
        store.sync().unwrap();
        let old = image(&store);
        let tail0 = word_of(&old, word::TAIL) as usize;
        // Life 1 goes on; its header page and index do not reach the disk.
        (1000..1100).for_each(|key| put(&store, key, b"sixteen bytes!!!"));
        match what {
            "clear" => store.clear().unwrap(),
            "value" => put(&store, 1, b"of life one"),
            _ => {
                // names the place where life 2 will have its record
                let dead = (tail0 as u64).to_le_bytes();
                let open_file = store.open_file().unwrap();
                let list =
                    Draft::new(Kind::DEAD_LIST, Identity::NONE, &dead, open_file.superblock.seed);
                open_file.journal().append(&mut [list]).unwrap();
            }
        }
        let mut cut = image(&store);
        cut[..8192].copy_from_slice(&old[..8192]);
        let two = boot(&dir, &cut);
        assert_eq!(get(&two, 1).unwrap(), b"v1");
        put(&two, 50, b"life two");
        two.remove(&identity(1), ExpiryRule::AS_WRITTEN).unwrap();
        two.sync().unwrap();
        let synced = image(&two);
        let tail2 = word_of(&synced, word::TAIL) as usize;
        (2000..2300).for_each(|key| put(&two, key, b"sixteen bytes!!!"));
        assert_eq!((get(&two, 50).is_some(), get(&two, 1).is_some()), (true, false));
        // Power cut: header and tail got out, the data pages did not.
        let mut cut = image(&two);
        let end = synced.len().min(cut.len());
        cut[tail2..end].copy_from_slice(&synced[tail2..end]);
        let three = boot(&dir, &cut);
        let found = (get(&three, 50).unwrap(), get(&three, 2).unwrap(), get(&three, 1));
        assert_eq!(found, (b"life two".into(), b"v1".into(), None), "{what}");
    }
}

#[test]
fn a_head_that_does_not_fit_never_does() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"v1");
    store.sync().unwrap();
    let large = vec![7; 60_000];
    let tail0;
    {
        let writer = store.lock().unwrap();
        let journal = writer.journal();
        let place = journal.tail().unwrap();
        tail0 = place as usize;
        let (a, d) = (numbered(&journal, 1001, b"a"), numbered(&journal, 1002, &large));
        journal.make_room(place + 70_000).unwrap();
        let (storage, seed) = (journal.header.storage, journal.superblock.seed);
        for (at, draft) in [(place, &a), (a.head.next(place), &d)] {
            storage.write(at, &draft.head.encode(at, seed)).unwrap();
            storage.write(at + HEAD_SIZE, draft.payload).unwrap();
        }
    }
    let killed = image(&store);
    (100..110).for_each(|key| put(&store, key, b"sixteen bytes!!!"));
    let mut cut = image(&store);
    let tail1 = word_of(&cut, word::TAIL) as usize;
    cut[tail0..tail1].copy_from_slice(&killed[tail0..tail1]);
    let two = boot(&dir, &cut);
    assert!(get(&two, 1).is_some() && get(&two, 1002).is_none());
    (3000..3200).for_each(|key| put(&two, key, &[key as u8; 1000]));
    two.sync().unwrap();
    put(&two, 5, b"x");
    let three = boot(&dir, &image(&two));
    let lost = (3000..3200).filter(|key| get(&three, *key).is_none()).count();
    assert_eq!(lost, 0, "synced entries are lost");
}

#[test]
fn a_large_value_counts_from_where_it_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 9, b"x");
    let large = vec![7; 200_000];
    let offset = {
        let writer = store.lock().unwrap();
        let journal = writer.journal();
        let mut head = draft(&journal, 1, &large).head;
        let offset = journal.reserve(&mut head).unwrap();
        writer.open_file().file().write(offset + HEAD_SIZE, &large).unwrap();
        offset
    };
    put(&store, 1, b"small");
    store.flush(ExpiryRule::new(Some(std::time::Duration::ZERO))).unwrap();
    store.lock().unwrap().commit(offset).unwrap();
    assert_eq!(get(&store, 1).unwrap(), large);
    store.sync().unwrap();
    put(&store, 3, b"x");
    let two = boot(&dir, &image(&store));
    assert!(get(&two, 1) == Some(large), "{:?}", get(&two, 1).map(|v| v.len()));
}

#[test]
fn a_reader_alone_reads_nothing_behind_the_tail() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"v1");
    store.sync().unwrap();
    let old = image(&store);
    (1000..1100).for_each(|key| put(&store, key, b"sixteen bytes!!!"));
    put(&store, 1, b"of life one");
    let mut cut = image(&store);
    cut[..8192].copy_from_slice(&old[..8192]);
    let two = boot(&dir, &cut);
    two.remove(&identity(1), ExpiryRule::AS_WRITTEN).unwrap();
    two.sync().unwrap();
    let mut cut = image(&two);
    let size = cut.len() as u64;
    set_word(&mut cut, word::ALLOCATED, size + 65536);
    assert!(get(&boot(&dir, &cut), 1).is_none(), "writable");
    let three = boot_at(&dir, &cut, true);
    assert_eq!(get(&three, 1), None, "read-only");
}

#[test]
fn one_recovery_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"v1");
    store.sync().unwrap();
    let mut cut = image(&store);
    let tail = word_of(&cut, word::TAIL);
    set_word(&mut cut, word::LAST, tail);
    let two = boot(&dir, &cut);
    assert!(trust::is_trusted(&two.open_file().unwrap()).unwrap());
}

#[test]
fn a_large_value_superseded_before_it_was_committed_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 2, b"other");
    let large = super::records::reserve(&store, 1, &vec![7; LARGE + 1]);
    put(&store, 1, b"small");
    store.lock().unwrap().commit(large).unwrap();
    store.sync().unwrap();
    put(&store, 3, b"x");
    let mut cut = image(&store);
    // Neither what was written of the index reached the disk, nor where the checkpoint is.
    let index = store.open_file().unwrap().journal().header.table(word::INDEX);
    cut[index.offset() as usize..index.end() as usize].fill(0);
    set_word(&mut cut, word::CHECKPOINT, 0);
    let two = boot(&dir, &cut);
    assert_eq!(get(&two, 1).as_deref(), Some(&b"small"[..]));
    assert_eq!(get(&two, 2).as_deref(), Some(&b"other"[..]));
}

/// Nothing is mapped of a file whose end is not known.
#[test]
fn a_reader_of_a_file_without_a_believable_tail_reads_by_copy() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"a value");
    let mut image = image(&store);
    let reader = boot_at(&dir, &image, true);
    assert!(reader.open_file().unwrap().map().is_some());
    image[word::TAIL as usize] ^= 1;
    let reader = boot_at(&dir, &image, true);
    assert!(reader.open_file().unwrap().map().is_none());
    assert_eq!(get(&reader, 1).unwrap(), b"a value");
}
