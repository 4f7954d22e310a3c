//! What the header counts, after each way in which an index is made, kept or brought up to date.

use super::cuts::{boot, image, set_word};
use super::{SCOPE, assert_sound, entry, get, identity, open, put};
use crate::engine::file::expiry::ExpiryRule;
use crate::engine::format::header::word;
use crate::engine::format::record::{HEAD_SIZE, Kind};
use crate::engine::format::slot::Slot;
use crate::engine::os::file::Storage as _;
use crate::engine::store::Store;
use crate::engine::store::put::Entry;
use std::time::Duration;

const KEYS: u64 = 400;

/// Refreshed, removed, flushed and stored again: the index has slots of each kind. In no two ways, so that it
/// does not grow meanwhile.
fn fill(store: &Store) {
    (0..KEYS / 2).for_each(|key| put(store, key, &key.to_le_bytes()));
    (0..40).for_each(|key| put(store, key, b"refreshed"));
    for key in 40..80 {
        assert!(store.remove(&identity(key), ExpiryRule::AS_WRITTEN).unwrap());
    }
    let brief = Some(Duration::ZERO);
    let entries = (200..230).map(|key| Entry { ttl: brief, ..entry(key, b"brief") });
    store.put_many(&entries.collect::<Vec<_>>(), &SCOPE).unwrap();
    assert_eq!(store.flush(ExpiryRule::AS_WRITTEN).unwrap(), 30);
    put(store, 77, b"stored again");
    put(store, 300, &[3; 100_000]);
}

/// What the words say is what there is.
fn assert_counted(store: &Store) {
    let open_file = store.current().unwrap();
    let journal = open_file.journal();
    let (_, table) = open_file.index();
    let words =
        (table.offset()..table.end()).step_by(8).map(|at| Slot(open_file.storage().load(at)));
    let slots: Vec<Slot> = words.filter(|slot| !slot.is_empty()).collect();
    let heads = slots
        .iter()
        .filter(|slot| !slot.is_dead())
        .map(|slot| journal.records().unwrap().head(slot.offset()).unwrap());
    let values: Vec<_> = heads.filter(|head| head.kind == Kind::VALUE).collect();
    let count = |place| journal.header.get(place).unwrap();
    assert_eq!(count(word::USED), slots.len() as u64, "slots in use");
    assert_eq!(count(word::ENTRIES), values.len() as u64, "entries");
    let live: u64 = values.iter().map(|head| head.next(0)).sum();
    assert_eq!(count(word::LIVE), live, "bytes of entries");
    let kept = (0..KEYS).filter(|key| get(store, *key).is_some()).count() as u64;
    let stats = store.stats();
    assert_eq!((stats.entries, stats.live_bytes), (kept, live));
    let log = count(word::TAIL) - open_file.superblock.log_start;
    let own = if table == open_file.superblock.first_index { 0 } else { table.size() };
    assert_eq!(stats.dead_bytes, log - live - own);
    assert_sound(store);
}

#[test]
fn counts_are_right_after_every_way_to_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    fill(&store);
    assert_counted(&store);
    store.sync().unwrap();
    (230..240).for_each(|key| put(&store, key, &[8; 300]));
    let whole = image(&store);
    // By the checkpoint, by the index alone, by the log alone, and by what of the log is healthy.
    let ways: [&[(u64, u64)]; 4] = [
        &[],
        &[(word::CHECKPOINT, 0)],
        &[(word::CHECKPOINT, 0), (word::INDEX, 0)],
        &[(word::FAILED, 1)],
    ];
    for way in ways {
        let mut image = whole.clone();
        way.iter().for_each(|(place, value)| set_word(&mut image, *place, *value));
        let after = boot(&dir, &image);
        assert_counted(&after);
        fill(&after);
        assert_counted(&after);
    }
    store.compact(ExpiryRule::AS_WRITTEN).unwrap();
    assert_counted(&store);
    store.clear().unwrap();
    assert_counted(&store);
    fill(&store);
    assert_counted(&store);
}

#[test]
fn a_compaction_says_what_it_kept_and_dropped_and_that_the_file_is_a_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    (0..20).for_each(|key| put(&store, key, &[7; 100]));
    let before = store.open_file().unwrap();
    // One is damaged, one removed, one has expired.
    let at = before.journal().locate(&identity(3)).unwrap().0 + HEAD_SIZE + 50;
    before.file().overwrite(at, b"damaged").unwrap();
    store.remove(&identity(4), ExpiryRule::AS_WRITTEN).unwrap();
    let expired = Entry { ttl: Some(Duration::ZERO), ..entry(5, b"expired") };
    store.put_many(&[expired], &SCOPE).unwrap();
    let done = store.compact(ExpiryRule::AS_WRITTEN).unwrap();
    assert_eq!((done.entries_kept, done.entries_dropped), (17, 2));
    assert!(done.bytes_after < done.bytes_before);
    assert_eq!(store.open_file().unwrap().superblock.generation, before.superblock.generation + 1);
    let kept = (0..20).filter(|key| get(&store, *key).is_some());
    assert!(kept.eq([0, 1, 2].into_iter().chain(6..20)));
    assert_counted(&store);
}

/// Of several MiB: it is read, hashed and written piece by piece.
#[test]
fn a_large_index_is_what_a_small_one_is() {
    const MANY: u64 = 100_000;
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let payloads: Vec<_> = (0..MANY).map(u64::to_le_bytes).collect();
    for some in (0..MANY).collect::<Vec<_>>().chunks(10_000) {
        let entries = some.iter().map(|key| entry(*key, &payloads[*key as usize]));
        store.put_many(&entries.collect::<Vec<_>>(), &SCOPE).unwrap();
    }
    assert!(store.open_file().unwrap().index().1.size() > 1 << 20);
    store.sync().unwrap();
    let whole = image(&store);
    for way in [&[][..], &[(word::CHECKPOINT, 0)], &[(word::CHECKPOINT, 0), (word::INDEX, 0)]] {
        let mut image = whole.clone();
        way.iter().for_each(|(place, value)| set_word(&mut image, *place, *value));
        let after = boot(&dir, &image);
        assert!((0..MANY).all(|key| get(&after, key).unwrap() == payloads[key as usize]));
        assert_eq!(after.stats().entries, MANY);
        assert!(after.open_file().unwrap().journal().is_all_covered().unwrap());
    }
}
