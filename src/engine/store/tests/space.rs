//! The space that a file takes, and its index: nothing is stored where no disk space was taken, or where it was
//! given back since. On a full disk a store into the map would be a signal there.

use super::{SCOPE, assert_sound, entry, get, identity, open, put};
use crate::engine::file::expiry::ExpiryRule;
use crate::engine::format::FILE_LIMIT;
use crate::engine::format::header::{PROVENANCE, word};
use crate::engine::format::record::Kind;
use crate::engine::format::slot::{Table, Tag};
use crate::engine::index::grow;
use crate::engine::log::op::table_in;
use crate::engine::os::effect::{Effect, watch};
use crate::engine::store::put::PutCondition;
use crate::error::Error;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::rc::Rc;
use std::time::Duration;

const PAGE: u64 = 4096;

/// The pages of a file that have disk space.
struct Pages {
    inode: u64,
    taken: HashSet<u64>,
    /// Stores into others.
    astray: Vec<(u64, usize)>,
    stores: usize,
}

impl Pages {
    fn note(&mut self, effect: Effect<'_>) {
        let is_own = |file: &std::fs::File| file.metadata().unwrap().ino() == self.inode;
        match effect {
            Effect::Allocate { file, from, to } if is_own(file) => {
                self.taken.extend(from / PAGE..to.div_ceil(PAGE));
            }
            Effect::Punch { file, from, to } if is_own(file) => {
                // The pages at both ends are cleared, and keep their space.
                self.taken.retain(|page| !(from.div_ceil(PAGE)..to / PAGE).contains(page));
            }
            Effect::Write { file, at, bytes } if is_own(file) => {
                self.stores += 1;
                let end = at + bytes.len() as u64;
                if !(at / PAGE..end.div_ceil(PAGE)).all(|page| self.taken.contains(&page)) {
                    self.astray.push((at, bytes.len()));
                }
            }
            _ => {}
        }
    }
}

#[test]
fn nothing_is_stored_where_no_disk_space_was_taken() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let open_file = store.open_file().unwrap();
    let allocated = open_file.journal().header.get(word::ALLOCATED).unwrap();
    let pages = Rc::new(RefCell::new(Pages {
        inode: std::fs::metadata(&store.location.path).unwrap().ino(),
        taken: (0..allocated.div_ceil(PAGE)).collect(),
        astray: Vec::new(),
        stores: 0,
    }));
    let noted = Rc::clone(&pages);
    let probe = move |effect: Effect<'_>| {
        noted.borrow_mut().note(effect);
        Ok(())
    };
    watch(probe, || {
        // Slowly into several larger tables, and at once.
        (0..6000).for_each(|key| put(&store, key, &key.to_le_bytes()));
        let entries: Vec<_> = (10_000..30_000).map(|key| entry(key, b"of a batch")).collect();
        store.put_many(&entries, &SCOPE).unwrap();
        put(&store, 1, &[1; 300_000]);
        store.flush(ExpiryRule::new(Some(Duration::ZERO))).unwrap();
        (0..2000).for_each(|key| put(&store, key, b"after a flush"));
        for size in [70_000, 5_000_000] {
            store.clear().unwrap();
            put(&store, 2, &vec![2; size]);
            (0..1000).for_each(|key| put(&store, key, &key.to_le_bytes()));
        }
    });
    let pages = pages.borrow();
    assert!(pages.stores > 20_000, "{}", pages.stores);
    assert_eq!(pages.astray, []);
}

/// A put takes space ahead; where the disk has less than that, it takes what it needs.
#[test]
fn a_disk_with_room_for_a_record_alone_takes_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"before");
    let word = |place| store.open_file().unwrap().journal().header.get(place).unwrap();
    // What was taken ahead is used up, but for a page.
    let left = word(word::ALLOCATED) - word(word::TAIL);
    put(&store, 2, &vec![2; (left - PAGE) as usize]);
    let allocated = word(word::ALLOCATED);
    assert!(word(word::TAIL) + 2 * PAGE > allocated);
    let full = move |effect: Effect<'_>| match effect {
        Effect::Allocate { to, .. } if to > allocated + 4 * PAGE => {
            Err(io::ErrorKind::StorageFull.into())
        }
        _ => Ok(()),
    };
    watch(full, || {
        put(&store, 3, &[3; 2 * PAGE as usize]);
        let entry = entry(4, &[4; 8 * PAGE as usize]);
        let refused = store.put(&entry, &SCOPE, PutCondition::Replace, &store.deadline());
        assert!(matches!(refused, Err(Error::Io { .. })));
    });
    assert_eq!(get(&store, 3).unwrap(), [3; 2 * PAGE as usize]);
    put(&store, 4, b"there is room again");
    assert_sound(&store);
}

#[test]
fn a_file_ends_at_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let writer = store.lock().unwrap();
    let full = |effect: Effect<'_>| match effect {
        Effect::Allocate { .. } => Err(io::ErrorKind::StorageFull.into()),
        _ => Ok(()),
    };
    let make_room = |end| watch(full, || writer.journal().make_room(end).unwrap_err());
    assert!(matches!(make_room(FILE_LIMIT), Error::Io { .. }));
    for beyond in [FILE_LIMIT + 1, FILE_LIMIT * 2] {
        assert!(matches!(make_room(beyond), Error::TooLarge { limit: FILE_LIMIT, .. }));
    }
}

/// Piece by piece: the words say how much of it, and at last that nothing is left.
#[test]
fn a_table_that_was_left_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let first = store.open_file().unwrap().index().1;
    let word = |place| store.open_file().unwrap().journal().header.storage.load(place);
    let is_left = || word(word::RETIRED) == first.0;
    let mut key = 0..10_000;
    while !is_left() {
        put(&store, key.next().unwrap(), b"x");
    }
    assert_ne!(store.open_file().unwrap().index().1, first);
    assert!(key.start < first.slots() * 4 / 5, "it has grown before it was full");
    put(&store, key.next().unwrap(), b"x");
    assert!(is_left() && word(word::RECLAIMED) == first.size());
    put(&store, key.next().unwrap(), b"x");
    assert_eq!(word(word::RETIRED), Table::NONE.0);
    // A clear leaves a table, too.
    let second = store.open_file().unwrap().index().1;
    store.clear().unwrap();
    assert_eq!(word(word::RETIRED), second.0);
}

/// More keys than there is room for near their homes, in a table that is far from its load factor as a whole.
#[test]
fn a_crowd_in_one_place_makes_the_index_grow_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let (seed, buckets) = {
        let open_file = store.open_file().unwrap();
        (open_file.superblock.seed, open_file.index().1.buckets())
    };
    // The last ones find the buckets behind their home full of the others, as far as a search goes.
    let home = |key: &u64| Tag::of(identity(*key).hash(seed)).home(buckets);
    let near = |bucket| (0..).filter(move |key| home(key) == bucket).take(12);
    let crowd: Vec<u64> = (0..26).rev().flat_map(near).collect();
    let is_made_anew = Rc::new(Cell::new(false));
    let seen = Rc::clone(&is_made_anew);
    let probe = move |effect: Effect<'_>| {
        let is_provenance = matches!(effect, Effect::Write { at: PROVENANCE, .. });
        seen.set(seen.get() || is_provenance);
        Ok(())
    };
    watch(probe, || crowd.iter().for_each(|key| put(&store, *key, b"x")));
    assert!(crowd.iter().all(|key| get(&store, *key).is_some()));
    assert_eq!(store.open_file().unwrap().index().1.buckets(), 2 * buckets);
    assert!(!is_made_anew.get());
    assert_sound(&store);
}

/// A large table gets its disk space as it is filled.
#[test]
fn growth_takes_disk_space_in_small_steps() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"x");
    let writer = store.lock().unwrap();
    let journal = writer.journal();
    let (offset, head) = journal.append_table(Kind::INDEX, 64 << 10).unwrap();
    grow::begin(journal.header, table_in(offset, &head)).unwrap();
    let grown = || journal.header.get(word::GROWN).unwrap();
    let mut steps = vec![0];
    while journal.header.table(word::PENDING) != Table::NONE {
        grow::step(journal.header).unwrap();
        steps.extend(Some(grown()).filter(|grown| steps.last() != Some(grown)));
    }
    assert_eq!(*steps.last().unwrap(), 4 << 20);
    // Two buckets of 64 lead to 128 KiB of it, and as far as a search goes.
    assert!(steps.windows(2).all(|pair| pair[1] - pair[0] <= 1 << 20), "{steps:?}");
    drop(writer);
    assert_eq!(get(&store, 1).unwrap(), b"x");
    assert_sound(&store);
}
