//! Files that damage or malice made, and what each of them once did.

use super::{SCOPE, assert_sound, draft, entry, get, identity, location, open, put, reboot};
use crate::engine::file::expiry::ExpiryRule;
use crate::engine::file::lookup::{Lookup, RECORD_COPY_MAX};
use crate::engine::file::open::Location;
use crate::engine::file::replay::{Outcome, Replay};
use crate::engine::format::checkpoint::Checkpoint;
use crate::engine::format::header::{PROVENANCE, PROVENANCE_SIZE, Superblock, word};
use crate::engine::format::record::{HEAD_SIZE, Head, Identity, Kind};
use crate::engine::format::slot::{Slot, Table, Tag};
use crate::engine::format::units::Ttl;
use crate::engine::format::{WORD_MASK, checksum, seal};
use crate::engine::index::{self, SlotEntry};
use crate::engine::log::journal::Draft;
use crate::engine::log::walk::{Step, Walk};
use crate::engine::os::file::Storage as _;
use crate::engine::os::place::AccessMode;
use crate::engine::os::replacement::Replacement;
use crate::engine::store::Store;
use crate::engine::store::compact::copy_to;
use crate::engine::store::put::{Entry, PutCondition};
use crate::error::Error;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

/// The offsets of all records of a kind.
fn records(store: &Store, kind: Kind) -> Vec<u64> {
    let open_file = store.open_file().unwrap();
    let (start, end) = (open_file.superblock.log_start, open_file.journal().tail().unwrap());
    let mut walk = Walk::new(open_file.file(), open_file.superblock.seed, start, end);
    let mut found = Vec::new();
    while let Some(step) = walk.next().unwrap() {
        match step {
            Step::Record(offset, head) if head.kind == kind => found.push(offset),
            _ => {}
        }
    }
    found
}

/// A small cache, closed, its file open for tampering, and its superblock.
fn closed(dir: &tempfile::TempDir) -> (PathBuf, File, Superblock) {
    let path = {
        let store = open(dir);
        put(&store, 1, b"x");
        store.location.path.clone()
    };
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let image = fs::read(&path).unwrap();
    (path, file, Superblock::decode(image[..4096].try_into().unwrap()).unwrap())
}

fn set(file: &File, place: u64, value: u64) {
    file.write_all_at(&seal(value, place).to_le_bytes(), place).unwrap();
}

/// The kind byte stands outside the head's check, and a table's payload is not checked.
#[test]
fn one_flipped_bit_makes_no_clear() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    (0..1000).for_each(|key| put(&store, key, &key.to_le_bytes()));
    put(&store, 5000, &[7; 100_000]);
    (1000..1010).for_each(|key| put(&store, key, &key.to_le_bytes()));
    let open_file = store.open_file().unwrap();
    let tables = records(&store, Kind::INDEX);
    open_file.file().write(tables.last().unwrap() + 5, &[Kind::CLEAR.0]).unwrap();
    assert!(!store.verify().unwrap().findings.is_empty());
    open_file.file().write(records(&store, Kind::COMMIT)[0] + 5, &[Kind::CLEAR.0]).unwrap();
    let copy = reboot(&dir, &store);
    assert_eq!((0..1010).filter(|key| get(&copy, *key).is_some()).count(), 1010);
    put(&copy, 2, b"goes on");
    assert_eq!(get(&copy, 2).unwrap(), b"goes on");
}

#[test]
fn keys_that_crowd_one_part_of_the_index_are_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let seed = store.open_file().unwrap().superblock.seed;
    let is_near = |key: &u64| Tag::of(identity(*key).hash(seed)).home(256) / 2 == 50;
    let mut kept = Vec::new();
    for key in (0..).filter(is_near).take(260) {
        let put = store.put(&entry(key, b"x"), &SCOPE, PutCondition::Replace, &store.deadline());
        kept.extend(put.is_ok().then_some(key));
    }
    assert!(kept.len() > 250);
    store.compact(ExpiryRule::AS_WRITTEN).unwrap();
    assert!(kept.iter().all(|key| get(&store, *key).is_some()));
    assert_sound(&store);
}

/// Damage may have left the slot of an older record, or one twice.
#[test]
fn of_many_slots_for_a_key_a_compaction_goes_by_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let offsets = [b"older", b"newer"].map(|payload| {
        put(&store, 1, payload);
        store.open_file().unwrap().journal().locate(&identity(1)).unwrap().0
    });
    put(&store, 2, b"other");
    let open_file = store.open_file().unwrap();
    let (storage, (_, table)) = (open_file.journal().header.storage, open_file.index());
    let tag = Tag::of(identity(1).hash(open_file.superblock.seed));
    for offset in [offsets[0], offsets[1], offsets[0]] {
        let entry = index::slot_entry(storage, table, tag, |_| None::<()>);
        let SlotEntry::Vacant(at, _) = entry else { panic!("there is room") };
        storage.store(at, Slot::new(tag, offset).0).unwrap();
    }
    store.compact(ExpiryRule::AS_WRITTEN).unwrap();
    assert_eq!(get(&store, 1).unwrap(), b"newer");
    assert_eq!(store.stats().entries, 2);
    assert_sound(&store);
}

#[test]
fn an_overwritten_value_does_not_come_back_in_a_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"superseded");
    let open_file = store.open_file().unwrap();
    let new = Replacement::begin(&store.location.path).unwrap().unwrap();
    let large = [9; 100_000];
    let offset = {
        let writer = store.lock().unwrap();
        let journal = writer.journal();
        let mut head = draft(&journal, 1, &large).head;
        head.ttl = Ttl::new(Duration::from_millis(1));
        journal.reserve(&mut head).unwrap()
    };
    let (next, _, at) = copy_to(&open_file, &new, ExpiryRule::AS_WRITTEN).unwrap();
    // Meanwhile: refreshed by a large value with a short life, which expires and is flushed.
    open_file.file().write(offset + HEAD_SIZE, &large).unwrap();
    store.lock().unwrap().commit(offset).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(store.flush(ExpiryRule::AS_WRITTEN).unwrap(), 1);
    let mut replay = Replay::new(open_file.journal(), next.journal(), at);
    assert!(replay.run(open_file.journal().tail().unwrap(), u64::MAX).unwrap() == Outcome::Done);
    let found = next.journal().locate(&identity(1));
    assert!(found.is_none_or(|(_, head)| head.kind != Kind::VALUE));
}

/// A slot may name any multiple of 16: a record that was verified vouches for no place inside it.
#[test]
fn a_verified_record_vouches_for_no_other_place() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let open_file = store.open_file().unwrap();
    // An identity that, 16 bytes further on, is a head: of a value of half a terabyte.
    let mut outer = Identity { form: Identity::HASHED, ..Identity::default() };
    outer.bytes[8..13].copy_from_slice(&[0, 0, 0, 0, 0x80]);
    outer.bytes[13] = Kind::VALUE.0;
    outer.bytes[14] = Identity::HASHED;
    outer.bytes[16..].fill(0xab);
    let value = Entry { identity: outer, payload: b"p", ..entry(0, b"") };
    let found =
        store.put(&value, &SCOPE, PutCondition::Replace, &store.deadline()).unwrap().unwrap();
    let Lookup::Mapped { record, .. } = found.lookup else { panic!("mapped") };
    let offset = record.offset();
    let mut inner = Identity { form: Identity::HASHED, ..Identity::default() };
    open_file.file().read(offset + 24, &mut inner.bytes).unwrap();
    let tag = Tag::of(inner.hash(open_file.superblock.seed));
    let table = open_file.index().1;
    let SlotEntry::Vacant(at, _) =
        index::slot_entry(open_file.storage(), table, tag, |_| None::<()>)
    else {
        panic!("room")
    };
    open_file.journal().header.store(at, Slot::new(tag, offset + 16).0).unwrap();
    assert!(store.find_seen(&inner, ExpiryRule::NEVER).is_none());
}

#[test]
fn sequence_numbers_that_are_used_up_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"x");
    let open_file = store.open_file().unwrap();
    open_file.journal().raise_seq((1 << 48) - 2).unwrap();
    put(&store, 2, b"the last");
    let put = store.put(&entry(3, b"y"), &SCOPE, PutCondition::Replace, &store.deadline());
    assert!(matches!(put, Err(Error::Damaged { .. })));
    assert_eq!(
        (get(&store, 1).unwrap(), get(&store, 2).unwrap()),
        (b"x".into(), b"the last".into())
    );
}

#[test]
fn a_log_inside_the_header_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file, superblock) = closed(&dir);
    let superblock = Superblock { log_start: 512, ..superblock };
    file.write_all_at(&superblock.encode(), 0).unwrap();
    let opened = Store::open(location(&path));
    assert!(matches!(opened, Err(Error::Damaged { .. })));
}

#[test]
fn a_table_beyond_the_file_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file, superblock) = closed(&dir);
    let size = file.metadata().unwrap().len();
    let mut head = Head::new(Kind::INDEX, Identity::NONE, 1 << 30);
    head.seq = 9;
    head.payload_check = head.check_of(&[], superblock.seed);
    file.write_all_at(&head.encode(size - 64, superblock.seed), size - 64).unwrap();
    let table = Table::new(size, (1 << 30) / 64);
    file.write_all_at(&table.0.to_le_bytes(), word::PENDING).unwrap();
    set(&file, word::GROWN, 1 << 30);
    let store = Store::open(location(&path)).unwrap();
    (10..200).for_each(|key| put(&store, key, b"x"));
    assert!(get(&store, 1).is_some());
}

#[test]
fn features_that_stop_writers_stop_this_one() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file, _) = closed(&dir);
    let mut superblock = [0; 256];
    file.read_exact_at(&mut superblock, 0).unwrap();
    superblock[20] = 1;
    let check = checksum(&superblock[..248], 1);
    superblock[248..].copy_from_slice(&check.to_le_bytes());
    file.write_all_at(&superblock, 0).unwrap();
    let before = fs::read(&path).unwrap();
    let store = Store::open(location(&path)).unwrap();
    assert_eq!(get(&store, 1).unwrap(), b"x");
    let put = store.put(&entry(2, b"y"), &SCOPE, PutCondition::Replace, &store.deadline());
    assert!(matches!(put, Err(Error::ReadOnly { .. })));
    assert!(fs::read(&path).unwrap() == before, "it is left as it is");
}

#[test]
fn files_with_pointers_of_another_width_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file, superblock) = closed(&dir);
    for width in [16, 64].into_iter().filter(|width| *width != superblock.pointer_width) {
        let other = Superblock { pointer_width: width, ..superblock };
        file.write_all_at(&other.encode(), 0).unwrap();
        let before = fs::read(&path).unwrap();
        let error = Store::open(location(&path)).map(drop).unwrap_err();
        let Error::Incompatible { found, expected, .. } = error else { panic!("{error}") };
        assert_eq!((found, expected), (u64::from(width), u64::from(superblock.pointer_width)));
        assert!(fs::read(&path).unwrap() == before, "it is left as it is");
    }
}

/// A head that claims more than there is memory, in a file that is nearly all hole.
#[test]
fn memory_is_for_what_is_there_and_not_for_what_is_claimed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _, superblock) = closed(&dir);
    let copy = dir.path().join("claims.pcache");
    fs::copy(&path, &copy).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&copy).unwrap();
    let mut tail = [0; 8];
    file.read_exact_at(&mut tail, word::TAIL).unwrap();
    let tail = u64::from_le_bytes(tail) & ((1 << 48) - 1);
    let mut head = Head::new(Kind::VALUE, identity(5), 256 << 20);
    head.seq = 1000;
    file.write_all_at(&head.encode(tail, superblock.seed), tail).unwrap();
    let end = head.next(tail);
    file.set_len(end.next_multiple_of(4096)).unwrap();
    for place in [word::TAIL, word::APPLIED, word::ALLOCATED] {
        set(&file, place, end);
    }
    let limit = 128 << 20;
    let peak = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    };
    let before = peak();
    let store = Store::open(location(&copy)).unwrap();
    assert_eq!((get(&store, 1).unwrap(), get(&store, 5)), (b"x".into(), None));
    assert!(peak() < before + limit, "{} bytes", peak() - before);
}

#[test]
fn an_index_inside_a_value_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 0, b"x");
    put(&store, 1, &[0; 40_000]);
    let open_file = store.open_file().unwrap();
    let journal = open_file.journal();
    let (offset, _) = journal.locate(&identity(1)).unwrap();
    let inside = Table::new((offset + 64).next_multiple_of(64), 512);
    let checkpoint = Checkpoint {
        tail: open_file.superblock.log_start,
        index: inside,
        index_hash: journal.hash_table(inside).unwrap(),
        barrier: 0,
        cleared: 0,
        entries: 0,
        live: 0,
        used: 0,
    };
    let bytes = checkpoint.encode();
    let draft = Draft::new(Kind::CHECKPOINT, Identity::NONE, &bytes, open_file.superblock.seed);
    let at = journal.write(&mut [draft]).unwrap()[0];
    journal.header.set(word::CHECKPOINT, at).unwrap();
    journal.header.store(word::INDEX, inside.0).unwrap();
    journal.mark_applied().unwrap();
    let copy = reboot(&dir, &store);
    (2..300).for_each(|key| put(&copy, key, b"y"));
    assert_eq!((get(&copy, 0).unwrap(), get(&copy, 1).unwrap()), (b"x".into(), vec![0; 40_000]));
}

/// The record of a key, as a stranger makes it who may write the file: it claims a payload of so many bytes,
/// which lies in a hole.
#[cfg(target_os = "linux")]
fn claim(store: &Store, key: u64, len: u64) {
    let open_file = store.open_file().unwrap();
    let journal = open_file.journal();
    let (offset, head) = journal.locate(&identity(key)).unwrap();
    let head = Head { len, ..head };
    let file = OpenOptions::new().write(true).open(&store.location.path).unwrap();
    file.write_all_at(&head.encode(offset, open_file.superblock.seed), offset).unwrap();
    let end = head.next(offset);
    file.set_len(end.next_multiple_of(4096)).unwrap();
    for place in [word::TAIL, word::APPLIED, word::ALLOCATED] {
        set(&file, place, end);
    }
}

/// What a line of a file in /proc says.
#[cfg(target_os = "linux")]
fn proc_says(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn who_reads_by_copy_takes_no_memory_for_a_claim() {
    let dir = tempfile::tempdir().unwrap();
    let copying = Location { access: AccessMode::Copied, ..location(&dir.path().join("x.pcache")) };
    let store = Store::open(copying).unwrap();
    put(&store, 1, b"x");
    put(&store, 5, b"small");
    let peak = || proc_says("/proc/self/status", "VmHWM") << 10;
    let read = || proc_says("/proc/thread-self/io", "rchar");

    claim(&store, 5, 96 << 20);
    let before = (peak(), read());
    assert_eq!((get(&store, 1).unwrap(), get(&store, 5)), (b"x".into(), None));
    assert!(peak() < before.0 + (64 << 20), "{} bytes", peak() - before.0);
    assert!(read() >= before.1 + (96 << 20), "it was looked at");

    claim(&store, 5, RECORD_COPY_MAX + 1);
    let before = read();
    assert_eq!((get(&store, 1).unwrap(), get(&store, 5)), (b"x".into(), None));
    assert!(read() < before + (1 << 20), "beyond the limit nobody reads");
}

#[test]
fn what_would_not_be_read_by_copy_is_not_stored_either() {
    let dir = tempfile::tempdir().unwrap();
    let copying = Location { access: AccessMode::Copied, ..location(&dir.path().join("x.pcache")) };
    let store = Store::open(copying).unwrap();
    for len in [(1 << 20) + 1, 5 << 20] {
        let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
        put(&store, len, &payload);
        assert!(get(&store, len).unwrap() == payload, "read in pieces, and whole");
    }
    let large = vec![0; RECORD_COPY_MAX as usize + 1];
    let entry = entry(7, &large);
    let stored = store.put(&entry, &SCOPE, PutCondition::Replace, &store.deadline()).map(drop);
    let stored = [stored, store.put_many(&[entry], &SCOPE)];
    for result in stored {
        assert!(matches!(result, Err(Error::TooLarge { limit: RECORD_COPY_MAX, .. })));
    }
}

/// Makes the index of a store one with 400 slots of one tag, more than there is room for near their home, and appends
/// a checkpoint that knows it by its hash, and says that `used` slots are in use.
fn claim_slots(store: &Store, used: u64) {
    let open_file = store.open_file().unwrap();
    let journal = open_file.journal();
    let (offset, head) = journal.locate(&identity(1)).unwrap();
    let (tag, table) = (Tag::of(head.identity.hash(journal.superblock.seed)), open_file.index().1);
    for n in 0..400 {
        let slot = Slot::new(tag, offset + n * 16);
        journal.header.store(table.offset() + n * 8, slot.0).unwrap();
    }
    journal.checkpoint().unwrap();
    let (honest, _) = journal.last_checkpoint().unwrap().unwrap();
    let bytes = Checkpoint { used, tail: journal.tail().unwrap(), ..honest }.encode();
    let draft = Draft::new(Kind::CHECKPOINT, Identity::NONE, &bytes, journal.superblock.seed);
    let at = journal.write(&mut [draft]).unwrap()[0];
    journal.header.set(word::CHECKPOINT, at).unwrap();
    journal.mark_applied().unwrap();
    journal.header.set(word::SYNCED, journal.tail().unwrap()).unwrap();
    open_file.file().write(PROVENANCE, &[0; PROVENANCE_SIZE]).unwrap();
}

/// What the index of one who may not write is made for is what is in the file's, whatever a checkpoint says.
#[test]
fn a_readers_own_index_is_no_larger_for_a_claim() {
    for used in [1 << 20, WORD_MASK] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        put(&store, 1, b"x");
        claim_slots(&store, used);
        let location = Location { is_read_only: true, ..store.location.clone() };
        drop(store);
        let reader = Store::open(location).unwrap();
        let open_file = reader.open_file().unwrap();
        assert!(open_file.is_private());
        let (words, table) = open_file.index();
        assert!(table.slots() <= 2048, "{} slots, where {used} are claimed", table.slots());
        // It is the file's, and none that was made from the log: of 400, so many have room; and the scope's slot, if
        // it lies behind those.
        let room = 8 * index::PROBE_LIMIT;
        assert!((room..=room + 1).contains(&(index::slots(words, table).count() as u64)));
    }
}
