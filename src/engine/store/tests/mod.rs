//! The interleavings that broke earlier designs, step by step: a process is killed where a step is
//! left out here.

mod beside;
mod counts;
mod creation;
mod cuts;
mod damage;
mod failures;
mod holds;
mod hostile;
mod law;
mod records;
mod memory;
mod space;
mod stranger;
mod async_ops;

use crate::engine::file::expiry::ExpiryRule;
use crate::engine::file::lookup::Lookup;
use crate::engine::file::open::Location;
use crate::engine::file::replay::{Outcome, Replay};
use crate::engine::file::trust;
use crate::engine::format::header::{PROVENANCE, Provenance, state, word};
use crate::engine::format::record::{HEAD_SIZE, Head, Identity, Kind};
use crate::engine::format::slot::{Slot, Table, Tag};
use crate::engine::index::{self, SlotEntry, grow};
use crate::engine::log::journal::{Draft, Journal};
use crate::engine::os::file::Storage as _;
use crate::engine::os::place::AccessMode;
use crate::engine::os::replacement::Replacement;
use crate::engine::store::compact::copy_to;
use crate::engine::store::findings::Finding;
use crate::engine::store::put::{Entry, PutCondition, ScopeRecord};
use crate::engine::store::{Store, Token};
use crate::error::Error;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn location(path: &Path) -> Location {
    Location {
        path: path.to_path_buf(),
        access: AccessMode::Checked,
        is_read_only: false,
        lock_timeout: Duration::from_millis(100),
    }
}

fn open(dir: &tempfile::TempDir) -> Arc<Store> {
    Store::open(location(&dir.path().join("x.pcache"))).unwrap()
}

/// A copy of the file, opened: without provenance, so all of it is verified.
fn reboot(dir: &tempfile::TempDir, store: &Store) -> Arc<Store> {
    static COPIES: AtomicU64 = AtomicU64::new(0);
    let number = COPIES.fetch_add(1, Ordering::Relaxed);
    let copy = dir.path().join(format!("copy {number}.pcache"));
    std::fs::copy(&store.location.path, &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o600)).unwrap();
    Store::open(location(&copy)).unwrap()
}

fn identity(key: u64) -> Identity {
    let mut identity = Identity { form: 8, ..Identity::default() };
    identity.bytes[8..16].copy_from_slice(&key.to_le_bytes());
    identity
}

const SCOPE: ScopeRecord<'static> = ScopeRecord {
    identity: Identity { bytes: [0; 32], form: Identity::SCOPE },
    payload: b"a scope",
    seen: &SEEN,
};
static SEEN: AtomicU64 = AtomicU64::new(0);

fn entry(key: u64, payload: &[u8]) -> Entry<'_> {
    Entry { identity: identity(key), payload, ttl: None, cost: Duration::ZERO, is_valid: true }
}

fn put(store: &Store, key: u64, payload: &[u8]) {
    store
        .put(&entry(key, payload), &SCOPE, PutCondition::Replace, &store.deadline())
        .unwrap()
        .unwrap();
}

fn get(store: &Store, key: u64) -> Option<Vec<u8>> {
    let found = store.find(&identity(key), ExpiryRule::AS_WRITTEN).unwrap();
    match found.lookup {
        Lookup::Mapped { record, .. } => {
            Some(found.open_file.map().unwrap().payload(&record).to_vec())
        }
        Lookup::Copied(_, bytes) => Some(bytes.to_vec()),
        Lookup::Absent | Lookup::Moved | Lookup::Long => None,
    }
}

fn draft<'a>(journal: &Journal<'_>, key: u64, payload: &'a [u8]) -> Draft<'a> {
    Draft::new(Kind::VALUE, identity(key), payload, journal.superblock.seed)
}

/// A draft with its number, as a writer has it who dies before he publishes it.
fn numbered<'a>(journal: &Journal<'_>, key: u64, payload: &'a [u8]) -> Draft<'a> {
    let mut draft = draft(journal, key, payload);
    draft.head.seq = journal.seq().unwrap() + 1;
    journal.header.set(word::SEQ, draft.head.seq).unwrap();
    draft
}

fn assert_sound(store: &Store) {
    assert_eq!(store.verify().unwrap().findings, []);
}

#[test]
fn an_append_killed_before_its_slot_is_redone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"old");
    {
        let writer = store.lock().unwrap();
        let journal = writer.journal();
        let draft = draft(&journal, 1, b"new");
        journal.write(&mut [draft]).unwrap();
    }
    assert_eq!(get(&store, 1).unwrap(), b"old", "published, and not yet in the index");
    drop(store.lock().unwrap());
    assert_eq!(get(&store, 1).unwrap(), b"new", "the next holder of the lock redoes it");
    assert_eq!(get(&reboot(&dir, &store), 1).unwrap(), b"new");
    assert_sound(&store);
}

#[test]
fn bytes_behind_the_tail_never_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"old");
    let offset = {
        let writer = store.lock().unwrap();
        let journal = writer.journal();
        let offset = journal.tail().unwrap();
        let draft = draft(&journal, 1, b"never published");
        journal.make_room(offset + 4096).unwrap();
        let storage = journal.header.storage;
        storage.write(offset, &draft.head.encode(offset, journal.superblock.seed)).unwrap();
        storage.write(offset + HEAD_SIZE, draft.payload).unwrap();
        // A slot that leads there, as a lost write of the tail's page would leave it.
        let tag = Tag::of(identity(1).hash(journal.superblock.seed));
        let table = journal.header.table(word::INDEX);
        let SlotEntry::Occupied(at, ..) = index::slot_entry(storage, table, tag, |_| Some(()))
        else {
            panic!()
        };
        journal.header.store(at, Slot::new(tag, offset).0).unwrap();
        offset
    };
    assert_eq!(get(&store, 1), None, "a record must end below the tail");
    assert!(!store.verify().unwrap().findings.is_empty());
    put(&store, 2, b"overwrites it");
    assert_eq!(get(&store, 2).unwrap(), b"overwrites it");
    assert!(store.open_file().unwrap().journal().records().unwrap().head(offset).is_some());
    assert_eq!(get(&reboot(&dir, &store), 1).unwrap(), b"old", "the log is the truth");
}

#[test]
fn unpublished_bytes_of_a_killed_batch_are_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 0, b"before");
    // A batch [1 = old, 2 = old] is copied behind the tail; its process dies.
    let (place, seed) = {
        let writer = store.lock().unwrap();
        let journal = writer.journal();
        let place = journal.tail().unwrap();
        let (first, second) = (numbered(&journal, 1, b"old 1"), numbered(&journal, 2, b"old 2"));
        journal.make_room(place + 4096).unwrap();
        let storage = journal.header.storage;
        let seed = journal.superblock.seed;
        let next = first.head.next(place);
        for (at, draft) in [(place, &first), (next, &second)] {
            storage.write(at, &draft.head.encode(at, seed)).unwrap();
            storage.write(at + HEAD_SIZE, draft.payload).unwrap();
        }
        (next, seed)
    };
    let open_file = store.open_file().unwrap();
    let mut unpublished = vec![0; 80];
    open_file.file().read(place, &mut unpublished).unwrap();
    // 2 is stored over the first place, then 3 over the second; a power cut keeps the unpublished bytes there.
    put(&store, 2, b"new 2");
    put(&store, 3, b"new 3");
    let copy = reboot(&dir, &store);
    drop(copy);
    let path = dir.path().join("torn.pcache");
    std::fs::copy(&store.location.path, &path).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&unpublished, place).unwrap();
    let head: [u8; 64] = unpublished[..64].try_into().unwrap();
    assert!(
        Head::decode(&head, place, seed).is_some(),
        "the unpublished bytes are a record, but for their number"
    );
    let torn = Store::open(location(&path)).unwrap();
    assert_eq!(get(&torn, 2).unwrap(), b"new 2", "order is by number, not by place");
    assert_eq!(
        (get(&torn, 0).unwrap(), get(&torn, 1), get(&torn, 3)),
        (b"before".into(), None, None)
    );
}

#[test]
fn a_clear_killed_halfway_takes_effect_at_the_next_lock() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    for key in 0..2000 {
        put(&store, key, b"before");
    }
    {
        let writer = store.lock().unwrap();
        writer.journal().append_table(Kind::CLEAR, 64).unwrap();
    }
    put(&store, 1, b"after");
    store.sync().unwrap();
    assert_eq!((get(&store, 0), get(&store, 1).unwrap()), (None, b"after".into()));
    let copy = reboot(&dir, &store);
    assert_eq!((get(&copy, 0), get(&copy, 1).unwrap()), (None, b"after".into()));
    assert_sound(&store);
}

#[test]
fn growth_killed_after_any_step_goes_on() {
    for case in 0..120 {
        let (way, killed_after) = (case % 3, case / 3);
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        // Enough for growth to begin and not to end.
        let before = 64 * 8 * 11 / 16 + 2 + killed_after;
        for key in 0..before {
            put(&store, key, &key.to_le_bytes());
        }
        let mut victim = None;
        {
            let writer = store.lock().unwrap();
            let header = writer.journal().header;
            let pending = header.table(word::PENDING);
            if pending.buckets() > 0 && way == 0 {
                // Killed when all was moved, after the switch, before the rest.
                while header.get(word::CURSOR).unwrap() < 62 {
                    grow::step(header).unwrap();
                }
                let index = header.table(word::INDEX);
                grow::step(header).unwrap();
                header.store(word::PENDING, pending.0).unwrap();
                header.store(word::RETIRED, index.0).unwrap();
            } else if pending.buckets() > 0 && way == 1 {
                // Killed within a step: some slots are in the new table, and the cursor is behind.
                let cursor = header.get(word::CURSOR).unwrap();
                grow::step(header).unwrap();
                header.set(word::CURSOR, cursor).unwrap();
                let index = header.table(word::INDEX);
                let is_halfway = |key: &u64| {
                    let tag = Tag::of(identity(*key).hash(writer.open_file().superblock.seed));
                    (cursor..cursor + 2).contains(&tag.home(index.buckets()))
                };
                victim = (0..before).find(is_halfway);
            }
        }
        // The first thing that happens then is that one of them is removed.
        if let Some(key) = victim {
            assert!(store.remove(&identity(key), ExpiryRule::AS_WRITTEN).unwrap());
        }
        // Refreshed and removed before the step is taken again: the old ones must not come back.
        let removed = (0..before).filter(|key| key.is_multiple_of(5) && Some(*key) != victim);
        for key in removed.clone() {
            put(&store, key, b"refreshed");
            assert!(store.remove(&identity(key), ExpiryRule::AS_WRITTEN).unwrap());
        }
        for key in before..3000 {
            put(&store, key, &key.to_le_bytes());
        }
        assert!(store.open_file().unwrap().index().1.buckets() > 64, "it has grown");
        let is_kept =
            |key: &u64| Some(*key) != victim && (!key.is_multiple_of(5) || *key >= before);
        for key in (0..3000).filter(is_kept) {
            assert_eq!(get(&store, key).unwrap(), key.to_le_bytes(), "{case}: {key}");
        }
        let removed: Vec<u64> = removed.chain(victim).collect();
        for key in &removed {
            assert_eq!(get(&store, *key), None, "{case}: {key} was removed");
        }
        assert_eq!(store.stats().entries, 3000 - removed.len() as u64);
        assert_sound(&store);
    }
}

#[test]
fn a_batch_that_grew_the_index_twice_is_redone_from_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    (0..300).for_each(|key| put(&store, key, b"before"));
    let removed = |key: &u64| key.is_multiple_of(3);
    for key in (0..300).filter(removed) {
        store.remove(&identity(key), ExpiryRule::AS_WRITTEN).unwrap();
    }
    let applied = store.open_file().unwrap().journal().header.get(word::APPLIED).unwrap();
    let entries: Vec<_> = (1000..5000).map(|key| entry(key, b"batch")).collect();
    store.put_many(&entries, &SCOPE).unwrap();
    // Killed before the last store of the hold.
    let open_file = store.open_file().unwrap();
    open_file.journal().header.set(word::APPLIED, applied).unwrap();
    put(&store, 1, b"after");
    assert!((1000..5000).all(|key| get(&store, key).unwrap() == b"batch"));
    assert!((0..300).filter(removed).all(|key| get(&store, key).is_none()));
    assert_sound(&store);
    store.clear().and_then(|()| store.compact(ExpiryRule::AS_WRITTEN)).unwrap();
}

#[test]
fn flushing_one_key_for_ever_needs_no_larger_index() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    for _ in 0..2000 {
        put(&store, 1, b"x");
        assert_eq!(store.flush(ExpiryRule::new(Some(Duration::ZERO))).unwrap(), 1);
    }
    assert_eq!((get(&store, 1), store.open_file().unwrap().index().1.buckets()), (None, 64));
    assert_sound(&store);
}

#[test]
fn clearing_for_ever_needs_no_larger_index() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    for round in 0..10 {
        (0..1000).for_each(|key| put(&store, key, b"x"));
        assert!(store.open_file().unwrap().index().1.buckets() <= 256, "round {round}");
        store.clear().unwrap();
        assert_eq!((get(&store, 1), store.stats().entries), (None, 0));
    }
    let before = store.stats().file_bytes;
    store.compact(ExpiryRule::AS_WRITTEN).unwrap();
    assert!(store.stats().file_bytes < before / 20, "the space comes back");
}

#[test]
fn a_removal_after_growth_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    // This thread met the record in the first table.
    put(&store, 0, b"x");
    assert!(get(&store, 0).is_some());
    (1..5000).for_each(|key| put(&store, key, b"x"));
    assert!(store.remove(&identity(0), ExpiryRule::AS_WRITTEN).unwrap());
    assert!(store.find_seen(&identity(0), ExpiryRule::AS_WRITTEN).is_none());
    assert_eq!(get(&store, 0), None);
}

#[test]
fn an_index_full_of_one_slot_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    (0..100).for_each(|key| put(&store, key, b"x"));
    let open_file = store.open_file().unwrap();
    let (words, table) = open_file.index();
    let slot = index::slots(words, table).next().unwrap();
    for at in (table.offset()..table.end()).step_by(8) {
        open_file.journal().header.store(at, slot.0).unwrap();
    }
    let kept = store.compact(ExpiryRule::AS_WRITTEN).unwrap().entries_kept;
    assert!(kept <= 1, "what the index lost is lost; nothing grows without bound");
    assert!(
        open_file.file().size().unwrap() < 4 << 20,
        "no larger table would help, so none is tried"
    );
    put(&store, 1, b"y");
    assert_eq!(get(&store, 1).unwrap(), b"y");
    assert_sound(&store);
}

#[test]
fn what_happens_during_a_compaction_is_in_the_new_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    (0..200).for_each(|key| put(&store, key, b"before"));
    let open_file = store.open_file().unwrap();
    // Published, and not yet in the index, when the copying begins.
    {
        let writer = store.lock().unwrap();
        let journal = writer.journal();
        journal
            .write(&mut [draft(&journal, 1000, b"late"), draft(&journal, 1, b"refreshed")])
            .unwrap();
    }
    let new = Replacement::begin(&store.location.path).unwrap().unwrap();
    let (next, _, at) = copy_to(&open_file, &new, ExpiryRule::AS_WRITTEN).unwrap();
    // Numbers that the new file has no records for.
    for _ in 0..20 {
        let writer = store.lock().unwrap();
        let mut head = Head::new(Kind::VALUE, identity(3000), 64);
        writer.journal().reserve(&mut head).unwrap();
    }
    let token = Store::token(&open_file);
    store.remove(&identity(5), ExpiryRule::AS_WRITTEN).unwrap();
    put(&store, 7, b"to be flushed");
    put(&store, 9, &[9; 100_000]);
    let dead = open_file.journal().locate(&identity(7)).unwrap().0.to_le_bytes();
    let journal = open_file.journal();
    let list = Draft::new(Kind::DEAD_LIST, Identity::NONE, &dead, open_file.superblock.seed);
    journal.append(&mut [list]).unwrap();
    let mut replay = Replay::new(open_file.journal(), next.journal(), at);
    assert!(replay.run(journal.tail().unwrap(), u64::MAX).unwrap() == Outcome::Done);
    let new = next.journal();
    let value = |key| new.locate(&identity(key)).filter(|(_, head)| head.kind == Kind::VALUE);
    assert!(value(1000).is_some() && value(5).is_none() && value(7).is_none());
    let payload = |key: u64| {
        let (offset, head) = value(key).unwrap();
        let mut payload = vec![0; head.len as usize];
        next.file().read(offset + HEAD_SIZE, &mut payload).unwrap();
        payload
    };
    assert_eq!(
        (payload(1), payload(2), payload(9)),
        (b"refreshed".into(), b"before".into(), vec![9; 100_000])
    );
    let removed = new.locate(&identity(5)).unwrap().1;
    assert!(removed.seq > token.seq, "a computation that began before the removal still did");
}

#[test]
fn an_unsynced_large_value_costs_no_synced_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"synced");
    let large = vec![7; 200_000];
    let offset = {
        let writer = store.lock().unwrap();
        let journal = writer.journal();
        let mut head = draft(&journal, 1, &large).head;
        journal.reserve(&mut head).unwrap()
    };
    store.sync().unwrap();
    // Filled after the sync; the power cut loses a page of it.
    let file = store.open_file().unwrap();
    file.file().write(offset + HEAD_SIZE, &large).unwrap();
    store.lock().unwrap().commit(offset).unwrap();
    assert_eq!(get(&store, 1).unwrap(), large);
    file.file().write(offset + 100_000, &[0; 4096]).unwrap();
    assert_eq!(
        get(&reboot(&dir, &store), 1).unwrap(),
        b"synced",
        "the index is as synced or made anew"
    );
}

#[test]
fn a_dead_compactor_leaves_a_working_cache() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"x");
    // Killed between the mark and the rename: the file at the path decides.
    let mark = || {
        let header_of = store.open_file().unwrap();
        header_of.journal().header.store(word::STATE, state::MOVING).unwrap();
    };
    mark();
    assert_eq!(get(&store, 1).unwrap(), b"x", "readers go on");
    put(&store, 2, b"y");
    let open_file = store.open_file().unwrap();
    assert_eq!(
        open_file.storage().load(word::STATE),
        state::LIVE,
        "the next writer takes the mark back"
    );
    // Killed between the rename and the second mark.
    let other = tempfile::tempdir().unwrap();
    put(&open(&other), 1, b"other");
    mark();
    std::fs::rename(other.path().join("x.pcache"), &store.location.path).unwrap();
    assert_eq!(get(&store, 1).unwrap(), b"other", "seen by the very next look-up");
    // A leftover of a compaction is taken over.
    let leftover = place_of_sibling(&store.location.path);
    std::fs::write(&leftover, b"half a file").unwrap();
    store.compact(ExpiryRule::AS_WRITTEN).unwrap();
    assert!(!leftover.exists());
    assert_eq!(get(&store, 1).unwrap(), b"other");
}

fn place_of_sibling(path: &Path) -> PathBuf {
    crate::engine::os::place::sibling(path)
}

#[test]
fn a_link_left_behind_by_a_compaction_opens() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"x");
    let link = dir.path().join("snapshot.pcache");
    std::fs::hard_link(&store.location.path, &link).unwrap();
    store.compact(ExpiryRule::AS_WRITTEN).unwrap();
    let snapshot = Store::open(location(&link)).unwrap();
    assert_eq!(get(&snapshot, 1).unwrap(), b"x");
    put(&snapshot, 2, b"y");
    assert_eq!((get(&snapshot, 2).unwrap(), get(&store, 2)), (b"y".into(), None));
}

#[test]
fn a_torn_copy_on_the_same_inode_is_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let path = {
        let store = open(&dir);
        (0..100).for_each(|key| put(&store, key, &[key as u8; 100]));
        store.location.path.clone()
    };
    // As `cp c b; rm c; cp b c`: the inode number is the same, the time of birth is not.
    let image = std::fs::read(&path).unwrap();
    let mut provenance =
        Provenance::decode(image[PROVENANCE as usize..].first_chunk().unwrap()).unwrap();
    provenance.born -= 1;
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&provenance.encode(), PROVENANCE).unwrap();
    file.write_all_at(&[0; 4096], 12_288).unwrap();
    let store = open(&dir);
    let served = (0..100).filter(|key| get(&store, *key).is_some_and(|v| v == [*key as u8; 100]));
    assert!((70..100).contains(&served.count()));
    for finding in store.verify().unwrap().findings {
        let is_torn = matches!(finding, Finding::Torn { .. } | Finding::Corrupt { .. });
        assert!(is_torn, "all that is left is reachable, not: {finding}");
    }
}

#[test]
fn a_damaged_record_is_replaced_by_the_next_result() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(&dir);
        put(&store, 1, b"a value of some length");
    }
    let path = dir.path().join("x.pcache");
    let image = std::fs::read(&path).unwrap();
    let at = image.windows(7).position(|bytes| bytes == b"a value").unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"A VALUE", at as u64).unwrap();
    let store = open(&dir);
    assert_eq!(get(&store, 1), None);
    let open_file = store.open_file().unwrap();
    let condition = PutCondition::IfAbsent(Store::token(&open_file), ExpiryRule::AS_WRITTEN);
    assert!(store.put(&entry(1, b"anew"), &SCOPE, condition, &store.deadline()).unwrap().is_some());
    assert_eq!(get(&store, 1).unwrap(), b"anew");
}

#[test]
fn a_token_of_another_cache_stores_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let token = Token { cache_id: [7; 16], seq: u64::MAX >> 16 };
    let condition = PutCondition::IfAbsent(token, ExpiryRule::AS_WRITTEN);
    assert!(store.put(&entry(1, b"x"), &SCOPE, condition, &store.deadline()).unwrap().is_none());
    assert_eq!(get(&store, 1), None);
}

#[test]
fn a_large_value_committed_while_the_cache_moves_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let large = vec![7; 200_000];
    let reserve = || {
        let writer = store.lock().unwrap();
        let journal = writer.journal();
        let mut head = draft(&journal, 1, &large).head;
        let offset = journal.reserve(&mut head).unwrap();
        writer.open_file().file().write(offset + HEAD_SIZE, &large).unwrap();
        offset
    };
    // Killed before it was committed: space that a walk steps over.
    reserve();
    put(&store, 2, b"behind");
    let copy = reboot(&dir, &store);
    assert_eq!((get(&copy, 1), get(&copy, 2).unwrap()), (None, b"behind".into()));
    // Superseded meanwhile: the later one stays.
    let offset = reserve();
    put(&store, 1, b"later");
    store.lock().unwrap().commit(offset).unwrap();
    assert_eq!(get(&store, 1).unwrap(), b"later");
    assert_eq!(get(&reboot(&dir, &store), 1).unwrap(), b"later");
    // Cleared meanwhile: it is dead.
    let offset = reserve();
    store.clear().unwrap();
    store.lock().unwrap().commit(offset).unwrap();
    assert_eq!((get(&store, 1), get(&reboot(&dir, &store), 1)), (None, None));
    // And the ordinary case, after a reboot and a compaction too.
    let offset = reserve();
    store.lock().unwrap().commit(offset).unwrap();
    assert_eq!(get(&store, 1).unwrap(), large);
    assert_eq!(get(&reboot(&dir, &store), 1).unwrap(), large);
    store.compact(ExpiryRule::AS_WRITTEN).unwrap();
    assert_eq!(get(&store, 1).unwrap(), large);
    assert_sound(&store);
}

#[test]
fn a_checkpoint_spares_the_walk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    (0..5000).for_each(|key| put(&store, key, b"synced"));
    store.sync().unwrap();
    let index = |store: &Store| store.open_file().unwrap().index().1;
    let copy = reboot(&dir, &store);
    assert_eq!(index(&copy), index(&store), "the index is as it was");
    assert!((0..5000).all(|key| get(&copy, key).is_some()));
    assert_eq!(copy.stats().entries, 5000);
    drop(copy);
    // What came since is redone.
    put(&store, 1, b"since");
    let copy = reboot(&dir, &store);
    assert_eq!((get(&copy, 1).unwrap(), copy.stats().entries), (b"since".into(), 5000));
    assert_sound(&copy);
}

#[test]
fn writers_of_one_process_wait_to_their_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let writer = store.lock().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| store.lock().map(drop));
        assert!(matches!(waiting.join().unwrap(), Err(Error::Locked { .. })));
    });
    drop(writer);
    let patient = Location { lock_timeout: Duration::from_secs(60), ..store.location.clone() };
    let store = Store::open(patient).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let store = &store;
            scope.spawn(move || (0..500).for_each(|n| put(store, thread * 1000 + n, b"x")));
        }
    });
    assert_eq!(store.stats().entries, 2000);
    assert_sound(&store);
    let open_file = store.open_file().unwrap();
    let file = std::fs::File::open(&store.location.path).unwrap();
    assert!(fs4::FileExt::try_lock(&file).is_ok(), "the file's lock was given back");
    drop(open_file);
}

#[test]
fn clocks_set_back_and_ahead_change_no_order() {
    use crate::engine::os::clock::tests::SET;
    let day = Duration::from_secs(24 * 3600);
    let at = |days: u32| SET.set(Some(day * days));
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let put_for_a_day = |key, payload| {
        let entry = Entry { ttl: Some(day), ..entry(key, payload) };
        store.put(&entry, &SCOPE, PutCondition::Replace, &store.deadline()).unwrap().unwrap();
    };
    at(20_000);
    put_for_a_day(1, b"first");
    put(&store, 2, b"first");
    // Set back: what was stored then is of a clock that nobody can have had. A miss, and no order changes.
    at(10_000);
    assert_eq!(get(&store, 1), None);
    put(&store, 2, b"second");
    put_for_a_day(3, b"in the past");
    assert_eq!(get(&store, 2).unwrap(), b"second", "the order is that of storing");
    assert_eq!(get(&store, 3).unwrap(), b"in the past");
    assert_eq!(get(&reboot(&dir, &store), 2).unwrap(), b"second");
    // Set ahead: what has had its time is gone, for as long as the clock says so.
    at(20_000);
    assert_eq!((get(&store, 1).unwrap(), get(&store, 3)), (b"first".into(), None));
    at(20_002);
    assert_eq!((get(&store, 1), get(&store, 3)), (None, None));
    assert_eq!(store.flush(ExpiryRule::AS_WRITTEN).unwrap(), 2);
    at(20_000);
    assert_eq!(get(&store, 1), None, "what was flushed stays so");
    store.compact(ExpiryRule::AS_WRITTEN).unwrap();
    assert_eq!(get(&store, 2).unwrap(), b"second");
    // The beginning and the end of time.
    for time in [Duration::ZERO, Duration::MAX] {
        SET.set(Some(time));
        put_for_a_day(4, b"x");
        assert!(get(&store, 4).is_none_or(|value| value == b"x"));
        store.compact(ExpiryRule::AS_WRITTEN).unwrap();
    }
    SET.set(None);
    assert_sound(&store);
}

/// The record of a scope without values is not copied; what is stored in it meanwhile brings it along.
#[test]
fn a_scope_that_is_stored_to_during_a_compaction_keeps_its_record() {
    for is_stored_to in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        put(&store, 1, b"x");
        store.remove(&identity(1), ExpiryRule::AS_WRITTEN).unwrap();
        let open_file = store.open_file().unwrap();
        let new = Replacement::begin(&store.location.path).unwrap().unwrap();
        let (next, bulk, at) = copy_to(&open_file, &new, ExpiryRule::AS_WRITTEN).unwrap();
        assert!(next.journal().locate(&SCOPE.identity).is_none());
        if is_stored_to {
            put(&store, 2, b"y");
        }
        let mut replay = Replay::new(open_file.journal(), next.journal(), at);
        let end = open_file.journal().tail().unwrap();
        assert!(replay.run(end, u64::MAX).unwrap() == Outcome::Done);
        replay.announce(&bulk.omitted).unwrap();
        let found = next.journal().locate(&SCOPE.identity);
        assert_eq!(found.is_some(), is_stored_to);
        let Some((offset, head)) = found else { continue };
        let mut payload = vec![0; head.len as usize];
        next.file().read(offset + HEAD_SIZE, &mut payload).unwrap();
        assert_eq!(payload, SCOPE.payload);
        assert!(next.journal().locate(&identity(2)).is_some());
    }
}

/// The path is looked at now and then; a file that is still there is gone on with.
#[test]
fn a_miss_opens_no_file_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"x");
    let open_file = store.open_file().unwrap();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(super::PATH_CHECK_INTERVAL + 10));
        assert_eq!(get(&store, 2), None);
        assert!(Arc::ptr_eq(&open_file, &store.open_file().unwrap()));
    }
}

#[test]
fn words_that_contradict_each_other_are_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"x");
    let open_file = store.open_file().unwrap();
    let header = open_file.journal().header;
    let word = |place| header.get(place).unwrap();
    let (tail, allocated) = (word(word::TAIL), word(word::ALLOCATED));
    let size = open_file.file().size().unwrap();
    let contradictions = [
        (word::TAIL, open_file.superblock.log_start - 64),
        (word::TAIL, tail + 8),
        (word::TAIL, allocated + 64),
        (word::ALLOCATED, tail - 64),
        (word::ALLOCATED, size + 64),
        (word::LAST, tail),
        (word::FAILED, 1),
    ];
    for (place, value) in contradictions {
        let before = word(place);
        header.set(place, value).unwrap();
        assert!(!trust::is_trusted(&open_file).unwrap(), "{place}: {value}");
        header.set(place, before).unwrap();
        assert!(trust::is_trusted(&open_file).unwrap());
    }
}

#[test]
fn a_file_whose_index_grows_is_believed_as_far_as_it_has_come() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut key = 0..1000;
    let open_file = store.open_file().unwrap();
    let header = open_file.journal().header;
    while header.table(word::PENDING) == Table::NONE || header.get(word::CURSOR).unwrap() < 9 {
        put(&store, key.next().unwrap(), b"x");
    }
    assert!(trust::is_trusted(&open_file).unwrap());
    for place in [word::CURSOR, word::GROWN] {
        let before = header.get(place).unwrap();
        header.set(place, 1 << 20).unwrap();
        assert!(!trust::is_trusted(&open_file).unwrap());
        header.set(place, before).unwrap();
    }
    assert!(trust::is_trusted(&open_file).unwrap());
}
