//! The law of the log: random logs do the same to all four targets, and that is what a model of a few lines says.

use super::cuts::{boot, image, set_word};
use super::{SCOPE, draft, entry, get, identity, open, put};
use crate::engine::file::expiry::ExpiryRule;
use crate::engine::file::rebuild::Rebuilt;
use crate::engine::file::replay::{Outcome, Replay};
use crate::engine::format::header::word;
use crate::engine::format::record::{HEAD_SIZE, Head, Identity, Kind};
use crate::engine::format::slot::{Slot, Table, Tag};
use crate::engine::index::{self, SlotEntry};
use crate::engine::log::journal::{Draft, Journal};
use crate::engine::log::op::LARGE;
use crate::engine::os::file::Storage as _;
use crate::engine::os::replacement::Replacement;
use crate::engine::store::Store;
use crate::engine::store::compact::copy_to;
use crate::engine::store::findings::Finding;
use crate::engine::store::put::PutCondition;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const KEYS: u64 = 6;

/// What is appended.
#[derive(Debug, Clone)]
enum Step {
    Put(u64),
    Remove(u64),
    /// Space for a large value.
    Reserve(u64),
    /// Commits a few of the reserved ones, in any order, each once.
    Commit(Vec<usize>),
    /// Ends what these keys have.
    MarkDead(Vec<u64>),
    Clear,
    /// A table that nothing comes of.
    Table,
    Checkpoint,
    /// A compaction begins to copy.
    Copy,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS;
    prop_oneof![
        8 => key().prop_map(Step::Put),
        3 => key().prop_map(Step::Remove),
        4 => key().prop_map(Step::Reserve),
        5 => prop::collection::vec(any::<usize>(), 1..3).prop_map(Step::Commit),
        3 => prop::collection::vec(key(), 1..4).prop_map(Step::MarkDead),
        1 => Just(Step::Clear),
        1 => Just(Step::Table),
        1 => Just(Step::Checkpoint),
        2 => Just(Step::Copy),
    ]
}

/// What a key has by now, told as simply as can be.
#[derive(Default)]
struct Model {
    /// The number of the newest record of each key, and the payload if it is a value.
    keys: BTreeMap<u64, (u64, Option<u8>)>,
    /// Large values that are not committed: key, number, payload, offset.
    reserved: Vec<(u64, u64, u8, u64)>,
    cleared: u64,
}

impl Model {
    /// Commits one of the reserved values, and says where it is.
    fn commit(&mut self, number: usize) -> Option<u64> {
        let number = number.checked_rem(self.reserved.len())?;
        let (key, seq, payload, offset) = self.reserved.swap_remove(number);
        let newest = self.keys.get(&key).map_or(0, |(seq, _)| *seq);
        if seq > newest && seq > self.cleared {
            self.keys.insert(key, (seq, Some(payload)));
        }
        Some(offset)
    }

    fn values(&self) -> Values {
        let value = |(key, (_, payload)): (&u64, &(u64, Option<u8>))| Some((*key, (*payload)?));
        self.keys.iter().filter_map(value).collect()
    }
}

/// The first byte of the value that each key has.
type Values = BTreeMap<u64, u8>;

/// The payload of the `count`th value.
fn payload(count: usize, is_large: bool) -> Vec<u8> {
    vec![count as u8; if is_large { LARGE + 1 } else { 1 + count % 40 }]
}

/// Appends what a step says, but leaves the index as it is.
fn write(journal: &Journal<'_>, step: &Step, count: usize, model: &mut Model) {
    let list = |kind, offsets: Vec<u64>| {
        let bytes: Vec<u8> = offsets.into_iter().flat_map(u64::to_le_bytes).collect();
        journal
            .write(&mut [Draft::new(kind, Identity::NONE, &bytes, journal.superblock.seed)])
            .unwrap();
    };
    match step {
        Step::Put(key) => {
            journal.write(&mut [draft(journal, *key, &payload(count, false))]).unwrap();
            model.keys.insert(*key, (journal.seq().unwrap(), Some(count as u8)));
        }
        Step::Remove(key) => {
            let seed = journal.superblock.seed;
            let tombstone = Draft::new(Kind::TOMBSTONE, identity(*key), &[], seed);
            journal.write(&mut [tombstone]).unwrap();
            model.keys.insert(*key, (journal.seq().unwrap(), None));
        }
        Step::Reserve(key) => {
            let payload = payload(count, true);
            let mut head = draft(journal, *key, &payload).head;
            let offset = journal.reserve(&mut head).unwrap();
            journal.storage().overwrite(offset + HEAD_SIZE, &payload).unwrap();
            model.reserved.push((*key, head.seq, count as u8, offset));
        }
        Step::Commit(numbers) => {
            let offsets = numbers.iter().filter_map(|number| model.commit(*number)).collect();
            list(Kind::COMMIT, offsets);
        }
        Step::MarkDead(keys) => {
            let offset = |key: &u64| Some(journal.locate(&identity(*key))?.0);
            list(Kind::DEAD_LIST, keys.iter().filter_map(offset).collect());
            model.keys.retain(|key, _| !keys.contains(key));
        }
        Step::Clear => {
            journal.append_table(Kind::CLEAR, 64).unwrap();
            (model.cleared, model.keys) = (journal.seq().unwrap(), BTreeMap::new());
        }
        Step::Table => drop(journal.append_table(Kind::INDEX, 64).unwrap()),
        Step::Checkpoint => journal.checkpoint().unwrap(),
        Step::Copy => {}
    }
}

/// The values that are found by `locate`.
fn found(journal: &Journal<'_>, locate: impl Fn(&Identity) -> Option<(u64, Head)>) -> Values {
    let value = |key| {
        let (offset, head) = locate(&identity(key)).filter(|(_, head)| head.kind == Kind::VALUE)?;
        let mut payload = vec![0; head.len as usize];
        journal.storage().read(offset + HEAD_SIZE, &mut payload).unwrap();
        assert!(payload.iter().all(|byte| *byte == payload[0]));
        Some((key, payload[0]))
    };
    (0..KEYS).filter_map(value).collect()
}

/// Whose number of values and bytes is right, too.
fn assert_counted(journal: &Journal<'_>, entries: u64, live: u64) {
    let values = (0..KEYS).filter_map(|key| journal.locate(&identity(key)));
    let sizes = values.filter(|(_, head)| head.kind == Kind::VALUE).map(|(_, head)| head.next(0));
    let sizes: Vec<u64> = sizes.collect();
    assert_eq!((entries, live), (sizes.len() as u64, sizes.iter().sum()));
}

/// Forgets the index and all that the log says, and redoes it from its beginning.
fn redo_all(journal: &Journal<'_>) {
    let (header, first) = (&journal.header, journal.superblock.first_index);
    header.storage.zero(first.offset(), first.end()).unwrap();
    header.store(word::INDEX, first.0).unwrap();
    header.store(word::PENDING, Table::NONE.0).unwrap();
    for place in [word::CLEARED, word::BARRIER, word::ENTRIES, word::LIVE, word::USED] {
        header.set(place, 0).unwrap();
    }
    header.set(word::APPLIED, journal.superblock.log_start).unwrap();
    journal.redo(true).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn the_same_log_does_the_same_to_every_target(steps in prop::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let open_file = store.open_file().unwrap();
        let journal = open_file.journal();
        let (mut model, mut copy) = (Model::default(), None);
        for (count, step) in steps.iter().enumerate() {
            if matches!(step, Step::Copy) && copy.is_none() {
                let new = Replacement::begin(&store.location.path).unwrap().unwrap();
                let (next, _, at) = copy_to(&open_file, &new, ExpiryRule::NEVER).unwrap();
                copy = Some((new, next, at, model.cleared));
            }
            write(&journal, step, count, &mut model);
            // Each by itself, as by the next holder of the lock after a death.
            journal.redo(false).unwrap();
        }
        let expected = model.values();
        let barrier = journal.header.get(word::BARRIER).unwrap();
        let counts = |place| journal.header.get(place).unwrap();

        prop_assert_eq!(found(&journal, |key| journal.locate(key)), expected.clone(), "live");
        assert_counted(&journal, counts(word::ENTRIES), counts(word::LIVE));

        let rebuilt = Rebuilt::of(&journal, journal.tail().unwrap()).unwrap();
        let records = journal.records().unwrap();
        let in_rebuilt = |key: &Identity| {
            let of_key = |offset| {
                let head = records.head(offset).filter(|head| head.identity == *key)?;
                Some((offset, head))
            };
            let tag = Tag::of(key.hash(journal.superblock.seed));
            index::find(&rebuilt.index, rebuilt.index.table(), tag, of_key)
        };
        prop_assert_eq!(found(&journal, in_rebuilt), expected.clone(), "rebuilt");
        assert_counted(&journal, rebuilt.entries, rebuilt.live);
        prop_assert_eq!((rebuilt.cleared, rebuilt.barrier), (model.cleared, barrier));

        if let Some((new, next, at, cleared)) = copy {
            let mut replay = Replay::new(open_file.journal(), next.journal(), at);
            let outcome = replay.run(journal.tail().unwrap(), u64::MAX).unwrap();
            prop_assert!((outcome == Outcome::Cleared) == (cleared != model.cleared));
            if outcome == Outcome::Done {
                let next = next.journal();
                prop_assert_eq!(found(&next, |key| next.locate(key)), expected.clone(), "replayed");
                assert_counted(&next, next.header.get(word::ENTRIES).unwrap(), next.header.get(word::LIVE).unwrap());
            }
            drop(new);
        }

        prop_assert_eq!(store.verify().unwrap().findings, []);
        // What is gone from the index is found missing, and nothing else.
        if let Some((key, _)) = expected.first_key_value() {
            let (offset, _) = journal.locate(&identity(*key)).unwrap();
            let tag = Tag::of(identity(*key).hash(journal.superblock.seed));
            let same = |slot: Slot| (slot.offset() == offset).then_some(());
            let table = journal.header.table(word::INDEX);
            let SlotEntry::Occupied(place, ..) = index::slot_entry(journal.storage(), table, tag, same) else {
                panic!("{key} is found and has no slot");
            };
            journal.header.store(place, Slot::dead(tag).0).unwrap();
            prop_assert_eq!(store.verify().unwrap().findings, [Finding::Unreachable { offset }]);
        }

        redo_all(&journal);
        prop_assert_eq!(found(&journal, |key| journal.locate(key)), expected, "redone");
        assert_counted(&journal, counts(word::ENTRIES), counts(word::LIVE));
        prop_assert_eq!(journal.header.get(word::BARRIER).unwrap(), barrier);
        prop_assert_eq!(get(&store, KEYS), None);
    }
}

/// Who marked the record dead was killed before the list was noted as applied.
#[test]
fn a_flush_killed_behind_its_slot_refuses_what_began_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"flushed");
    let writer = store.lock().unwrap();
    let journal = writer.journal();
    let (offset, head) = journal.locate(&identity(1)).unwrap();
    let dead = offset.to_le_bytes();
    let list = Draft::new(Kind::DEAD_LIST, Identity::NONE, &dead, journal.superblock.seed);
    journal.write(&mut [list]).unwrap();
    let (table, tag) =
        (journal.header.table(word::INDEX), Tag::of(head.identity.hash(journal.superblock.seed)));
    let SlotEntry::Occupied(at, ..) =
        index::slot_entry(journal.storage(), table, tag, |_| Some(()))
    else {
        panic!()
    };
    journal.header.store(at, Slot::dead(tag).0).unwrap();
    journal.redo(false).unwrap();
    assert!(journal.header.get(word::BARRIER).unwrap() >= head.seq);
}

/// The healthy records move to another file, in which the damaged one is not.
#[test]
fn what_a_damaged_record_superseded_does_not_come_back_by_salvage() {
    for lost in [word::TAIL, word::INDEX] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        put(&store, 1, b"older");
        put(&store, 1, b"newer");
        put(&store, 2, b"beside it");
        let at = store.open_file().unwrap().journal().locate(&identity(1)).unwrap().0;
        store.sync().unwrap();
        let mut image = image(&store);
        set_word(&mut image, word::CHECKPOINT, 0);
        image[lost as usize..lost as usize + 8].fill(0xff);
        image[(at + HEAD_SIZE) as usize] ^= 1;
        let after = boot(&dir, &image);
        assert_eq!(
            (get(&after, 1), get(&after, 2).unwrap()),
            (None, b"beside it".into()),
            "{lost}"
        );
    }
}

/// The log says what was flushed, where the header says nothing.
#[test]
fn what_began_before_a_flush_is_refused_by_a_salvaged_file_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let token = Store::token(&store.open_file().unwrap());
    put(&store, 1, b"flushed");
    store.flush(ExpiryRule::new(Some(Duration::ZERO))).unwrap();
    store.sync().unwrap();
    let mut image = image(&store);
    for lost in [word::TAIL, word::BARRIER, word::CHECKPOINT] {
        image[lost as usize..lost as usize + 8].fill(0xff);
    }
    let after = boot(&dir, &image);
    let condition = PutCondition::IfAbsent(token, ExpiryRule::AS_WRITTEN);
    let stored = after.put(&entry(1, b"late"), &SCOPE, condition, &after.deadline()).unwrap();
    assert!(stored.is_none());
    assert_eq!(get(&after, 1), None);
}

/// Whatever kind it shows, it superseded what its key had: nothing older need be found.
#[test]
fn a_damaged_record_makes_no_older_one_a_finding() {
    for (place, flip) in [(HEAD_SIZE, 1), (5, 0x80)] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        put(&store, 1, b"older");
        let open_file = store.open_file().unwrap();
        let older = open_file.journal().locate(&identity(1)).unwrap().0;
        put(&store, 1, b"newer");
        let newer = open_file.journal().locate(&identity(1)).unwrap().0;
        let mut byte = [0];
        open_file.file().read(newer + place, &mut byte).unwrap();
        open_file.file().overwrite(newer + place, &[byte[0] ^ flip]).unwrap();
        for is_index_lost in [false, true] {
            if is_index_lost {
                let table = open_file.index().1;
                open_file.file().zero(table.offset(), table.end()).unwrap();
            }
            let findings = store.verify().unwrap().findings;
            assert!(findings.contains(&Finding::Corrupt { offset: newer }), "{findings:?}");
            assert!(!findings.contains(&Finding::Unreachable { offset: older }), "{findings:?}");
        }
    }
}

/// The file was cut behind the payload of a value that had been removed, in the padding that is never written.
#[test]
fn what_was_removed_does_not_come_back_where_the_padding_is_cut_off() {
    for read_only in [false, true] {
        for cut in 0..16 {
            let dir = tempfile::tempdir().unwrap();
            let store = open(&dir);
            put(&store, 1, b"removed");
            let (at, head) = store.open_file().unwrap().journal().locate(&identity(1)).unwrap();
            store.remove(&identity(1), ExpiryRule::AS_WRITTEN).unwrap();
            put(&store, 2, b"behind it");
            store.sync().unwrap();
            assert_eq!(get(&store, 1), None);
            let mut image = image(&store);
            image.truncate((head.next(at) - cut) as usize);
            let after = super::cuts::boot_at(&dir, &image, read_only);
            assert_eq!(get(&after, 1), None, "{cut} bytes of the padding, read only: {read_only}");
        }
    }
}

/// Whatever kind a record shows, what a replay copies of it counts against what it may copy under the lock.
#[test]
fn a_replay_pays_for_all_that_it_copies() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 99, b"before");
    let open_file = store.open_file().unwrap();
    let journal = open_file.journal();
    let new = Replacement::begin(&store.location.path).unwrap().unwrap();
    let (next, _, at) = copy_to(&open_file, &new, ExpiryRule::NEVER).unwrap();
    let (payload, seed) = (vec![7; LARGE], journal.superblock.seed);
    for key in 0..64 {
        // A value whose kind has one bit flipped.
        journal.append(&mut [Draft::new(Kind::PAD, identity(key), &payload, seed)]).unwrap();
    }
    let before = next.journal().tail().unwrap();
    let mut replay = Replay::new(open_file.journal(), next.journal(), at);
    let outcome = replay.run(journal.tail().unwrap(), 1 << 20).unwrap();
    let copied = next.journal().tail().unwrap() - before;
    assert!(outcome == Outcome::Paused && copied <= 1 << 20, "{copied} bytes were copied");
}

/// Who may not write reads by copy, up to where records were found.
#[test]
fn a_reader_opens_a_file_whose_tail_is_lost_and_that_has_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"synced");
    store.sync().unwrap();
    let mut image = image(&store);
    image[word::TAIL as usize..word::TAIL as usize + 8].fill(0xff);
    let after = super::cuts::boot_at(&dir, &image, true);
    assert_eq!(get(&after, 1).unwrap(), b"synced");
}
