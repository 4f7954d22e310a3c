//! The index: slots in tables, found by tag, over any [`Words`].
//!
//! ```text
//! home bucket of a tag: tag * buckets >> 28
//!
//!   bucket 4   [ . . A . . . . . ]      a bucket is one cache line of 8 slots
//!   bucket 5   [ B C D . . E F G ] <--  home; the search begins at slot tag % 8, and goes around
//!   bucket 6   [ H . . . . . . . ] <--  then the buckets behind, 32 at most, to the first empty slot
//! ```
//!
//! Readers take no lock. A slot is one word, stored after the record that it names is published, and never becomes
//! empty again, so a search may stop at the first empty slot. A slot whose record was flushed is dead: searches step
//! over it, and any key may take it. Rising tags have rising home buckets, whatever the size of the table, so that
//! growth fills a new table from front to back ([`grow`]).
//!
//! The index is derived from the log and can be made anew at any time, in the file or in memory ([`HeapTable`]).
//!
//! Invariants, of a table while it is the index:
//! 1. A slot changes by one store of eight bytes, made by the holder of the lock.
//! 2. It is never stored as empty again. (A table that was left reads as zeros at last, which is why a miss looks
//!    whether INDEX has moved: see [`search`](crate::engine::file::open_file::search).)
//! 3. It leads to a published record of the key whose tag it has, or it is dead. Records never move, so a slot that a
//!    reader has loaded stays right to follow, however old it is by then.
//! 4. A key has one slot. Only damage leaves two: if the head that a slot leads to does not verify, nobody can tell
//!    whose it is, and the key takes another slot.
//! 5. It lies within [`PROBE_LIMIT`] buckets of the key's home, and no slot between was empty when it was taken.
//!
//! A reader beside a writer, for a key that is refreshed from record A to record B:
//!
//! ```text
//!   writer   B's bytes    TAIL (release)              slot = B (release)
//!   reader                               slot: A                           slot: B
//!                                        finds A, whole                    finds B, whole
//! ```
//!
//! Either answer is right. A look that began after the put returned finds B, since the store of the slot came before.
//!
//! All functions here work on words by their place in the file, through [`Words`]: a map, system calls, or memory. So
//! loom can run them over words of its own (`engine/proof/orders.rs`).
//!
//! Rejected: a B-tree, which needs several dependent loads for a look-up and writes that are not one store; Robin Hood
//! and cuckoo hashing, which move slots that readers may be looking for; a chain per bucket, whose links are loads
//! that wait for each other.

pub(crate) mod grow;

use crate::engine::format::HEADER_SIZE;
use crate::engine::format::slot::{BUCKET_LIMIT, BUCKET_SIZE, BUCKET_SLOTS, Slot, Table, Tag};
use crate::engine::os::Words;
use std::cell::Cell;
use std::io;
use std::ops::ControlFlow;

/// Buckets that a search looks at. At a load of 3/4 not one in 10^20 keys lies this far from its home bucket; a
/// writer that finds no slot for a key makes the table grow. The limit is what ends a search in a table without an
/// empty slot, which damage may leave (`an_index_full_of_one_slot_is_made_anew`).
pub(crate) const PROBE_LIMIT: u64 = 32;

/// The index grows when more than 11 in 16 of its slots are in use. Moving two buckets with each
/// append, it has grown before 3/4 are.
pub(crate) const fn is_over_load_factor(used: u64, table: Table) -> bool {
    used.saturating_mul(16) > table.slots() * 11
}

/// A table's buckets for `entries`: 3 in 5 of its slots will be in use. That leaves room for one in seven more before
/// the table is due to grow. For a compaction, which knows how many there are.
pub(crate) fn buckets_for(entries: u64) -> u64 {
    let slots = entries * 5 / 3;
    slots.div_ceil(BUCKET_SLOTS).clamp(crate::engine::format::header::FIRST_BUCKETS, BUCKET_LIMIT)
}

/// Has `look` see the places that a key's slot may be in, in the order of search, until it breaks: its
/// home bucket, and those behind it, around the end. In each the search begins at the slot that the tag
/// picks, so that it mostly ends there. Measured: hits of hot memory went from 33 to 19 ns by that. Comparing the slots
/// of a bucket by wide instructions was slower.
#[inline(always)]
fn probe<B>(table: Table, tag: Tag, mut look: impl FnMut(u64) -> ControlFlow<B>) -> ControlFlow<B> {
    let mut bucket = home(table, tag);
    for _ in 0..PROBE_LIMIT.min(table.buckets()) {
        for step in 0..BUCKET_SLOTS {
            look(bucket + tag.place(step))?;
        }
        bucket += BUCKET_SIZE;
        if bucket == table.end() {
            bucket = table.offset();
        }
    }
    ControlFlow::Continue(())
}

/// The bucket in which the search for a tag begins.
#[inline(always)]
fn home(table: Table, tag: Tag) -> u64 {
    table.offset() + tag.home(table.buckets()) * BUCKET_SIZE
}

/// Where the search for a tag begins.
#[inline]
pub(crate) fn first_place(table: Table, tag: Tag) -> u64 {
    home(table, tag) + tag.place(0)
}

/// What `matches` makes of the first slot with this tag that it makes anything of.
///
/// For readers, beside a writer. Each slot is loaded once: one that changes behind the search is as if it had changed
/// after it, and one that changes before it is met as it is then. A dead slot needs no case of its own: its offset is
/// in the header, and `matches` makes nothing of it. `matches` may be called for records of other keys, of one tag.
#[inline(always)]
pub(crate) fn find<T>(
    words: &impl Words,
    table: Table,
    tag: Tag,
    mut matches: impl FnMut(u64) -> Option<T>,
) -> Option<T> {
    let searched = probe(table, tag, |place| {
        // Acquire; pairs with the release store of the slot: the record it names is seen whole.
        let slot = Slot(words.load(place));
        if slot.tag() == tag
            && let Some(found) = matches(slot.offset())
        {
            return ControlFlow::Break(Some(found));
        }
        if slot.is_empty() { ControlFlow::Break(None) } else { ControlFlow::Continue(()) }
    });
    searched.break_value().flatten()
}

/// Where a key's slot is, or would be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SlotEntry<T> {
    /// In this place, with what `matches` made of it.
    Occupied(u64, Slot, T),
    /// It has none; this place holds an empty slot or a dead one, to be taken.
    Vacant(u64, Slot),
    /// It has none, and there is no room near its home.
    Full,
}

/// The slot entry of a key. For the holder of the write lock, who stores there next: without the lock a vacant place
/// may be another's by then. (Who only asks whether the key has a slot may do so without it.)
///
/// A dead slot is taken in preference to the empty one behind it, but only once the empty one has shown that the key
/// has no slot further on: else it would have two. So a key that is stored and flushed for ever needs no larger index
/// (`flushing_one_key_for_ever_needs_no_larger_index`).
pub(crate) fn slot_entry<T>(
    words: &(impl Words + ?Sized),
    table: Table,
    tag: Tag,
    mut matches: impl FnMut(Slot) -> Option<T>,
) -> SlotEntry<T> {
    let mut dead = None;
    let searched = probe(table, tag, |place| {
        let slot = Slot(words.load(place));
        if slot.is_empty() {
            let (place, slot) = dead.unwrap_or((place, slot));
            return ControlFlow::Break(SlotEntry::Vacant(place, slot));
        }
        if slot.is_dead() {
            dead = dead.or(Some((place, slot)));
        } else if slot.tag() == tag
            && let Some(found) = matches(slot)
        {
            return ControlFlow::Break(SlotEntry::Occupied(place, slot, found));
        }
        ControlFlow::Continue(())
    });
    match (searched, dead) {
        (ControlFlow::Break(entry), _) => entry,
        (ControlFlow::Continue(()), Some((place, slot))) => SlotEntry::Vacant(place, slot),
        (ControlFlow::Continue(()), None) => SlotEntry::Full,
    }
}

/// The bucket of `table` that a place lies in.
pub(crate) fn bucket_of(table: Table, place: u64) -> u64 {
    (place - table.offset()) / BUCKET_SIZE
}

/// Every slot of a table that names a record. By a pass over all of the table, in the order of the places: each load is
/// afresh, and what others store meanwhile is met or is not.
pub(crate) fn slots(words: &(impl Words + ?Sized), table: Table) -> impl Iterator<Item = Slot> {
    (0..table.slots())
        .map(move |slot| Slot(words.load(table.offset() + slot * 8)))
        .filter(|slot| !slot.is_empty() && !slot.is_dead())
}

/// Whether a table in which a key finds no slot should grow. If it is this empty, the trouble is more
/// keys of one tag than there is room for near their home: not by accident, and no larger table would
/// help.
pub(crate) const fn is_worth_growing(used: u64, table: Table) -> bool {
    used.saturating_mul(4) >= table.slots() && table.buckets() < BUCKET_LIMIT
}

/// A table in memory: what recovery and compaction build before it is written, and what a reader
/// that may not write keeps for itself.
///
/// It has places as a table in a file has, from the end of the header on, so that the same search finds its slots. For
/// one thread; [`freeze`](HeapTable::freeze) makes one for many. The cells let a slot be replaced through a shared
/// reference, which [`Words::store`] has.
pub(crate) struct HeapTable {
    words: Vec<Cell<u64>>,
    used: u64,
    /// Slots that it will have at least: whether it should grow is judged by them, in whatever order they
    /// come.
    expected: u64,
}

impl HeapTable {
    pub(crate) fn new(buckets: u64) -> HeapTable {
        HeapTable::for_slots(0, buckets)
    }

    /// A table that will have so many slots.
    pub(crate) fn for_slots(expected: u64, buckets: u64) -> HeapTable {
        let words = vec![Cell::new(0); (buckets * BUCKET_SLOTS) as usize];
        HeapTable { words, used: 0, expected }
    }

    /// How it is addressed: as if it lay where a file's first table lies.
    pub(crate) fn table(&self) -> Table {
        Table::new(HEADER_SIZE, self.words.len() as u64 / BUCKET_SLOTS)
    }
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// Puts `slot` where `matches` says its key is, or into a new place; returns what was there. A slot
    /// for which there can be no room is left out: its record is found no more.
    ///
    /// It grows by itself, by doubling, in one go: nobody reads it meanwhile. Two things make it grow: too many slots
    /// in use, and a key without room near its home. The latter is answered by growth only if the table is, or will
    /// be, a quarter full. Else there are too many keys of one tag, and doubling would go on for ever
    /// (`too_many_keys_of_one_tag_end_in_a_miss_and_not_in_endless_growth`). What the table will be counts as well,
    /// since a crowd of near tags may come before all others (`a_crowd_that_comes_first_is_not_left_out`).
    pub(crate) fn put(&mut self, slot: Slot, matches: impl Fn(Slot) -> bool) -> Option<Slot> {
        loop {
            match slot_entry(self, self.table(), slot.tag(), |slot| matches(slot).then_some(())) {
                SlotEntry::Occupied(place, old, ()) => {
                    self.set(place, slot);
                    return Some(old);
                }
                SlotEntry::Vacant(place, prior)
                    if !is_over_load_factor(self.used, self.table()) =>
                {
                    self.set(place, slot);
                    self.used += u64::from(prior.is_empty());
                    return None;
                }
                SlotEntry::Full if !is_worth_growing(self.expected(), self.table()) => return None,
                SlotEntry::Vacant(..) | SlotEntry::Full => self.grow(),
            }
        }
    }

    /// Puts `slot` in the place of one that `matches`; `false` if there is none.
    pub(crate) fn replace(&self, slot: Slot, matches: impl Fn(Slot) -> bool) -> bool {
        match slot_entry(self, self.table(), slot.tag(), |slot| matches(slot).then_some(())) {
            SlotEntry::Occupied(place, ..) => {
                self.set(place, slot);
                true
            }
            SlotEntry::Vacant(..) | SlotEntry::Full => false,
        }
    }

    /// The slots that it has, or is known to get.
    fn expected(&self) -> u64 {
        self.expected.max(self.used)
    }

    /// To twice the size. For a moment both tables are in memory. Each slot is of another key, so nothing is compared.
    fn grow(&mut self) {
        let mut larger = HeapTable::for_slots(self.expected(), self.table().buckets() * 2);
        for slot in slots(self, self.table()) {
            larger.put(slot, |_| false);
        }
        *self = larger;
    }

    fn set(&self, place: u64, slot: Slot) {
        self.words[((place - HEADER_SIZE) / 8) as usize].set(slot.0);
    }

    /// The table's bytes, as they lie in a file: piece by piece, each with its place in the table.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (u64, Vec<u8>)> {
        const WORDS: usize = 1 << 16;
        self.words.chunks(WORDS).enumerate().map(|(number, words)| {
            let bytes = words.iter().flat_map(|word| word.get().to_le_bytes()).collect();
            ((number * WORDS * 8) as u64, bytes)
        })
    }

    /// The same, fixed: for sharing between threads.
    pub(crate) fn freeze(self) -> FrozenTable {
        FrozenTable(self.words.into_iter().map(Cell::into_inner).collect())
    }
}

/// A table that nobody changes any more: plain words, to be read by all threads.
pub(crate) struct FrozenTable(Box<[u64]>);

impl FrozenTable {
    pub(crate) fn table(&self) -> Table {
        Table::new(HEADER_SIZE, self.0.len() as u64 / BUCKET_SLOTS)
    }
}

/// Which word of a table in memory a place is. A place before it is taken for the first word: nobody asks for one.
fn position(place: u64) -> usize {
    (place.saturating_sub(HEADER_SIZE) / 8) as usize
}

impl Words for HeapTable {
    fn load(&self, at: u64) -> u64 {
        self.words.get(position(at)).map_or(0, Cell::get)
    }
    fn store(&self, at: u64, value: u64) -> io::Result<()> {
        self.words.get(position(at)).ok_or(io::ErrorKind::InvalidInput)?.set(value);
        Ok(())
    }
}

impl Words for FrozenTable {
    fn load(&self, at: u64) -> u64 {
        self.0.get(position(at)).copied().unwrap_or(0)
    }
    fn store(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::format::record::Identity;

    fn tag(key: u64) -> Tag {
        let mut identity = Identity::NONE;
        identity.bytes[..8].copy_from_slice(&key.to_le_bytes());
        Tag::of(identity.hash(1))
    }

    #[test]
    fn what_was_put_is_found_through_every_growth() {
        let mut heap = HeapTable::new(1);
        for key in 1..=50_000 {
            assert_eq!(heap.put(Slot::new(tag(key), key * 4096), |_| false), None);
        }
        let table = heap.table();
        for key in 1..=50_000 {
            let found = find(&heap, table, tag(key), |at| (at == key * 4096).then_some(at));
            assert_eq!(found, Some(key * 4096));
        }
        assert_eq!(find(&heap, table, tag(50_001), |at| (at == 0).then_some(())), None);
        assert_eq!(slots(&heap, table).count() as u64, heap.used());
    }

    #[test]
    fn a_refresh_takes_the_old_place() {
        let mut heap = HeapTable::new(1);
        heap.put(Slot::new(tag(7), 160), |_| false);
        let old = heap.put(Slot::new(tag(7), 320), |slot| slot.offset() == 160);
        assert_eq!(old.map(Slot::offset), Some(160));
        assert_eq!(heap.used(), 1);
    }

    #[test]
    fn a_dead_slot_is_taken_by_any_key() {
        let mut heap = HeapTable::new(1);
        heap.put(Slot::new(tag(1), 160), |_| false);
        assert!(heap.replace(Slot::dead(tag(1)), |slot| slot.offset() == 160));
        assert_eq!(slots(&heap, heap.table()).count(), 0);
        assert_eq!(heap.put(Slot::new(tag(1), 320), |_| false), None);
        assert_eq!((heap.used(), heap.table().buckets()), (1, 1));
    }

    #[test]
    fn too_many_keys_of_one_tag_end_in_a_miss_and_not_in_endless_growth() {
        let mut heap = HeapTable::new(64);
        for offset in 1..=2000 {
            heap.put(Slot::new(tag(1), offset * 4096), |_| false);
        }
        assert!(heap.table().buckets() <= 256 && heap.used() <= 8 * PROBE_LIMIT);
    }

    #[test]
    fn a_crowd_that_comes_first_is_not_left_out() {
        // 300 tags near each other: at this size there is room for 272 near their homes, at twice the size
        // for all.
        let width = (1 << 28) / 1024;
        let crowd = (0..300).map(|n| n * 3 * width / 300);
        let others = (300..4900).map(|n| n * 50_000);
        let mut heap = HeapTable::for_slots(4900, 1024);
        for (n, place) in crowd.chain(others).enumerate() {
            heap.put(Slot::new(Tag::of(place << 36), (n as u64 + 1) * 4096), |_| false);
        }
        assert_eq!(slots(&heap, heap.table()).count(), 4900);
    }

    #[test]
    fn a_table_is_over_its_load_factor_above_eleven_in_sixteen_slots() {
        let table = Table::new(HEADER_SIZE, 64);
        let over: Vec<_> = (0..=512).filter(|used| is_over_load_factor(*used, table)).collect();
        assert_eq!(over, (353..=512).collect::<Vec<_>>());
        let worth: Vec<_> = (0..=512).filter(|used| is_worth_growing(*used, table)).collect();
        assert_eq!(worth, (128..=512).collect::<Vec<_>>());
        assert!(!is_worth_growing(u64::MAX, Table::new(HEADER_SIZE, BUCKET_LIMIT)));
        assert!(is_over_load_factor(u64::MAX, table) && is_worth_growing(u64::MAX, table));
    }

    #[test]
    fn a_table_is_made_with_three_in_five_slots_in_use() {
        let buckets = [0, 308, 1000, 1_000_000, u64::MAX / 5].map(buckets_for);
        assert_eq!(buckets, [64, 65, 209, 208_334, BUCKET_LIMIT]);
    }

    #[test]
    fn every_place_lies_in_its_bucket() {
        let table = Table::new(HEADER_SIZE, 64);
        let buckets = (table.offset()..table.end()).step_by(8).map(|place| bucket_of(table, place));
        assert!(buckets.eq((0..64).flat_map(|bucket| [bucket; BUCKET_SLOTS as usize])));
    }

    #[test]
    fn a_full_table_ends_the_search() {
        let heap = HeapTable::new(1);
        for place in 0..8 {
            heap.store(HEADER_SIZE + place * 8, Slot::new(tag(1), 4096).0).unwrap();
        }
        assert_eq!(slot_entry(&heap, heap.table(), tag(1), |_| None::<()>), SlotEntry::Full);
    }
}
