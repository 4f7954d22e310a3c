//! Damage below the last sync: what is missing may have superseded or removed what lies before it, and none of
//! that comes back.

use super::cuts::{boot, image, set_word, word_of};
use super::{assert_sound, get, identity, open, put};
use crate::engine::file::expiry::ExpiryRule;
use crate::engine::format::header::word;
use crate::engine::format::record::{HEAD_SIZE, Identity, Kind};
use crate::engine::log::journal::Draft;
use crate::engine::log::walk::{Step, Walk};
use crate::engine::os::file::Storage as _;
use crate::engine::store::Store;
use crate::engine::store::findings::Finding;
use std::time::Duration;

/// The bytes of a file that was synced, to be read without its checkpoint.
fn synced(store: &Store) -> Vec<u8> {
    store.sync().unwrap();
    let mut image = image(store);
    set_word(&mut image, word::CHECKPOINT, 0);
    image
}

/// Where the first record of a kind lies.
fn first_of(store: &Store, kind: Kind) -> usize {
    let open_file = store.open_file().unwrap();
    let journal = open_file.journal();
    let (start, end) = (open_file.superblock.log_start, journal.tail().unwrap());
    let mut walk = Walk::new(open_file.file(), open_file.superblock.seed, start, end);
    let found = std::iter::from_fn(|| walk.next().unwrap()).find_map(|step| match step {
        Step::Record(offset, head) if head.kind == kind => Some(offset as usize),
        _ => None,
    });
    found.unwrap()
}

fn place_of(store: &Store, key: u64) -> usize {
    store.open_file().unwrap().journal().locate(&identity(key)).unwrap().0 as usize
}

#[test]
fn what_a_record_superseded_does_not_come_back_with_its_loss() {
    for of_head in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        put(&store, 1, b"older");
        put(&store, 1, b"newer");
        put(&store, 2, b"beside it");
        let at = place_of(&store, 1);
        let mut image = synced(&store);
        // A head that is not believed makes a hole in the log, over which a pad is laid.
        image[if of_head { at + 41 } else { at + HEAD_SIZE as usize }] ^= 1;
        let after = boot(&dir, &image);
        assert_eq!(get(&after, 1), None);
        assert_eq!(get(&after, 2).unwrap(), b"beside it");
        put(&after, 1, b"stored again");
        assert_eq!(get(&after, 1).unwrap(), b"stored again");
    }
}

/// A list of the dead that is damaged marks nothing dead. What had been synced before is not believed then but where
/// the index as it was leads to it.
#[test]
fn what_a_damaged_list_marked_dead_does_not_come_back() {
    for is_index_lost in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        (0..10).for_each(|key| put(&store, key, b"flushed"));
        assert_eq!(store.flush(ExpiryRule::new(Some(Duration::ZERO))).unwrap(), 10);
        (5..20).for_each(|key| put(&store, key, b"kept"));
        let list = first_of(&store, Kind::DEAD_LIST);
        let mut image = synced(&store);
        image[list + HEAD_SIZE as usize] ^= 1;
        if is_index_lost {
            set_word(&mut image, word::INDEX, 0);
        }
        let after = boot(&dir, &image);
        assert!((0..5).all(|key| get(&after, key).is_none()));
        // Where nothing tells what counts, what comes after the damage does.
        assert!((5..20).all(|key| get(&after, key).unwrap() == b"kept"));
    }
}

/// The value that was committed is damaged, or what says that it was committed.
#[test]
fn what_a_large_value_superseded_does_not_come_back_with_its_loss() {
    for of_value in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        put(&store, 1, b"older");
        put(&store, 1, &[7; 100_000]);
        put(&store, 2, b"beside it");
        let at = if of_value { place_of(&store, 1) } else { first_of(&store, Kind::COMMIT) };
        let mut image = synced(&store);
        image[at + HEAD_SIZE as usize] ^= 1;
        let after = boot(&dir, &image);
        assert_ne!(get(&after, 1).as_deref(), Some(&b"older"[..]));
        assert_eq!(get(&after, 2).unwrap(), b"beside it");
    }
}

/// Where the header tells nothing of it, the log does.
#[test]
fn what_was_cleared_does_not_come_back_with_the_loss_of_the_header() {
    for lost in [word::CLEARED, word::TAIL, word::INDEX] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        (0..10).for_each(|key| put(&store, key, b"cleared"));
        store.clear().unwrap();
        (5..15).for_each(|key| put(&store, key, b"kept"));
        let mut image = synced(&store);
        image[lost as usize..lost as usize + 8].fill(0xff);
        let after = boot(&dir, &image);
        assert!((0..5).all(|key| get(&after, key).is_none()), "{lost}");
        assert!((5..15).all(|key| get(&after, key).unwrap() == b"kept"), "{lost}");
        assert_sound(&after);
    }
}

/// What was refreshed after the last sync, and torn, has its value of before, though something is missing behind it.
#[test]
fn a_torn_refresh_behind_damage_leaves_the_value_of_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    (0..10).for_each(|key| put(&store, key, b"synced"));
    put(&store, 20, b"to be damaged");
    store.sync().unwrap();
    put(&store, 3, b"refreshed");
    let mut image = image(&store);
    set_word(&mut image, word::CHECKPOINT, 0);
    let (torn, damaged) = (place_of(&store, 3), place_of(&store, 20));
    image[torn..torn + 80].fill(0);
    image[damaged + 41] ^= 1;
    let after = boot(&dir, &image);
    assert!((0..10).all(|key| get(&after, key).unwrap() == b"synced"));
    assert_eq!(get(&after, 20), None);
}

/// What says that a large value was committed has come through, and the store that makes it a value has not: its
/// writer was killed in between, or a power cut took that page. The value is lost, and no more than that.
#[test]
fn a_large_value_that_was_not_made_one_costs_no_other() {
    for is_cut in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        (100..200).for_each(|key| put(&store, key, b"synced"));
        let at = super::records::reserve(&store, 1, &[7; 100_000]) as usize;
        let space = image(&store)[at..at + 8].to_vec();
        match is_cut {
            true => store.lock().unwrap().commit(at as u64).unwrap(),
            false => {
                let writer = store.lock().unwrap();
                let journal = writer.journal();
                let place = (at as u64).to_le_bytes();
                let seed = journal.superblock.seed;
                let committed = Draft::new(Kind::COMMIT, Identity::NONE, &place, seed);
                journal.write(&mut [committed]).unwrap();
            }
        }
        let mut cut = image(&store);
        cut[at..at + 8].copy_from_slice(&space);
        let after = boot(&dir, &cut);
        assert_eq!(get(&after, 1), None);
        after.sync().unwrap();
        // The index moves to another table, whose pages another power cut takes.
        let first = after.open_file().unwrap().index().1;
        let mut key = 1000..;
        while after.open_file().unwrap().index().1 == first {
            put(&after, key.next().unwrap(), b"later");
        }
        let mut cut = image(&after);
        let table = after.open_file().unwrap().index().1;
        cut[table.offset() as usize..table.end() as usize].fill(0);
        let again = boot(&dir, &cut);
        assert!((100..200).all(|key| get(&again, key).unwrap() == b"synced"));
        assert_sound(&again);
    }
}

/// What covers a gap is a record like any other, at the end of the log too: nobody finds it again.
#[test]
fn what_was_mended_is_no_finding_any_more() {
    for is_last in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        put(&store, 1, b"synced");
        store.sync().unwrap();
        (2..6).for_each(|key| put(&store, key, b"not synced"));
        let mut cut = image(&store);
        set_word(&mut cut, word::CHECKPOINT, 0);
        let end = if is_last { word_of(&cut, word::TAIL) as usize } else { place_of(&store, 5) };
        cut[place_of(&store, 3)..end].fill(0);
        let expected = [true, true, false, false, !is_last];
        let is_there = |store: &Store| [1, 2, 3, 4, 5].map(|key| get(store, key).is_some());
        let after = boot(&dir, &cut);
        assert_eq!(is_there(&after), expected);
        assert_sound(&after);
        let mut again = image(&after);
        set_word(&mut again, word::CHECKPOINT, 0);
        let again = boot(&dir, &again);
        assert_eq!(is_there(&again), expected);
        assert_sound(&again);
        put(&again, 6, b"and on");
        assert_sound(&again);
    }
}

#[test]
fn a_slot_that_leads_into_a_payload_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, &[7; 1000]);
    let open_file = store.open_file().unwrap();
    let (words, table) = open_file.index();
    let at = (table.offset()..table.end()).step_by(8);
    let (place, slot) = at
        .map(|at| (at, crate::engine::format::slot::Slot(words.load(at))))
        .find(|(_, slot)| slot.offset() == place_of(&store, 1) as u64)
        .unwrap();
    let offset = slot.offset() + 256;
    let astray = crate::engine::format::slot::Slot::new(slot.tag(), offset);
    open_file.journal().header.store(place, astray.0).unwrap();
    assert!(store.verify().unwrap().findings.contains(&Finding::Astray { offset }));
}

/// And so it is believed at the next opening, wherever that is.
#[test]
fn a_compacted_file_knows_all_that_the_old_one_did() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    (0..100).for_each(|key| put(&store, key, b"a value"));
    store.remove(&identity(7), ExpiryRule::AS_WRITTEN).unwrap();
    let old = store.open_file().unwrap();
    let seq = old.journal().seq().unwrap();
    store.compact(ExpiryRule::AS_WRITTEN).unwrap();
    let open_file = store.open_file().unwrap();
    let journal = open_file.journal();
    assert!(journal.seq().unwrap() >= seq);
    assert!(journal.header.get(word::BARRIER).unwrap() >= seq, "the removal was the last");
    assert!(journal.is_all_covered().unwrap());
    assert_eq!(open_file.file().size().unwrap(), journal.tail().unwrap().next_multiple_of(4096));
}
