//! The index of a file in use, as a target of the [law](super::op): changed by whoever holds the lock, beside
//! readers.
//!
//! A slot changes by one store, and only after the record that it names is published. A count changes after its
//! slot, so that one who is killed between the two leaves a count that is off by one, and never a wrong value.
//!
//! What a put in place of another value stores, and what a reader finds after each store:
//!
//! ```text
//!                          index     new table (while it grows)   USED  ENTRIES   a reader
//!   before                 -> A      -> A, or not yet moved         7      3      finds A
//!   grow::follow           -> A      -> B, if it may have moved     7      3      finds A
//!   the slot               -> B      the same                       7      3      finds B
//!   count(A, -1)           -> B      the same                       7      2      finds B
//!   count(B, +1)           -> B      the same                       7      3      finds B
//! ```
//!
//! Killed behind the slot, the redo finds B in its place and counts nothing. To count again from the index would make
//! it exact; it would cost a pass over the table for each death, and no promise depends on it. Recovery by a walk and
//! compaction count anew (`counts_are_right_after_every_way_to_an_index`).

use super::journal::{Draft, Journal};
use super::op::{Op, Target, apply, supersedes, table_in};
use super::records::Records;
use crate::engine::format::header::word;
use crate::engine::format::record::{HEAD_SIZE, Head, Identity, Kind};
use crate::engine::format::slot::{BUCKET_LIMIT, BUCKET_SIZE, Slot, Table, Tag};
use crate::engine::index::{self, SlotEntry, grow};
use crate::error::{Error, Result};

/// The index of a file whose lock the caller holds, and the records that it leads to.
///
/// The other targets of the law have no readers yet. This one must be right after each store: see the table above.
pub(crate) struct Live<'a> {
    journal: &'a Journal<'a>,
    pub(super) records: Records<'a>,
}

impl Target for Live<'_> {
    #[inline]
    fn cleared(&self) -> Result<u64> {
        self.journal.header.get(word::CLEARED)
    }

    fn newest(&self, identity: &Identity) -> Result<Option<u64>> {
        Ok(self.journal.locate(identity).map(|(_, head)| head.seq))
    }

    /// Four cases: the key has a newer record or this one, and nothing is to be done; it has an older one, and the slot
    /// is stored over; it has none, and takes a vacant slot; there is no room, and the index grows at once, after which
    /// the search begins anew in the larger table.
    ///
    /// A record that does not verify is nobody's, so the key it was of takes another slot. The slot that leads to it
    /// stays, and leads nobody anywhere.
    #[inline]
    fn put(&mut self, offset: u64, head: &Head, _: u64) -> Result<()> {
        let header = self.journal.header;
        let slot = Slot::new(Tag::of(head.identity.hash(self.records.seed)), offset);
        let same = |slot: Slot| {
            self.records.head(slot.offset()).filter(|found| found.identity == head.identity)
        };
        loop {
            let table = header.table(word::INDEX);
            match index::slot_entry(header.storage, table, slot.tag(), same) {
                SlotEntry::Occupied(_, _, prior) if !supersedes(head.seq, prior.seq) => {
                    return Ok(());
                }
                SlotEntry::Occupied(at, old, prior) => {
                    grow::follow(header, table, at, old, slot)?;
                    header.store(at, slot.0)?;
                    self.count(&prior, -1)?;
                    return self.count(head, 1);
                }
                SlotEntry::Vacant(at, prior) => {
                    grow::follow(header, table, at, slot, slot)?;
                    header.store(at, slot.0)?;
                    header.add(word::USED, i64::from(prior.is_empty()))?;
                    return self.count(head, 1);
                }
                SlotEntry::Full => self.journal.make_room_for_a_slot(table)?,
            }
        }
    }

    /// By the store that makes the pad a value. It comes before the slot, which [`apply`] has stored next: a reader
    /// that follows the slot finds a value and no pad
    /// (`a_large_value_killed_between_its_two_stores_is_redone_and_no_damage`).
    fn commit(&mut self, offset: u64, head: &Head) -> Result<bool> {
        // Not twice: who has found it reads it as what never changes.
        if head.kind != Kind::VALUE {
            let value = Head { kind: Kind::VALUE, ..*head };
            // Release; pairs with the acquire in `Map::record`: who sees the kind sees the payload.
            self.journal.header.store(offset, value.first_word())?;
        }
        Ok(true)
    }

    /// By a dead slot in the place of each that leads to one of them. A key that was stored anew since has a slot with
    /// another offset, which is not found here and stays.
    fn mark_dead(&mut self, dead: &[(u64, Head)], _: u64) -> Result<()> {
        let header = self.journal.header;
        for (offset, head) in dead {
            let table = header.table(word::INDEX);
            let tag = Tag::of(head.identity.hash(self.records.seed));
            let same = |slot: Slot| (slot.offset() == *offset).then_some(());
            if let SlotEntry::Occupied(at, old, ()) =
                index::slot_entry(header.storage, table, tag, same)
            {
                let slot = Slot::dead(tag);
                grow::follow(header, table, at, old, slot)?;
                header.store(at, slot.0)?;
                self.count(head, -1)?;
            }
        }
        Ok(())
    }

    /// By the store that makes `table` the index.
    ///
    /// CLEARED comes first: from then on whoever applies a record asks it, and readers do not. The old index is noted
    /// for its space before it is left, as in growth. The counts come last. Killed anywhere, the redo does all of it
    /// again; the index is not left twice, so that the empty one is not given back.
    ///
    /// A table that the old index was growing into has no readers and goes at once. It must lie below the tail: a
    /// damaged PENDING is not to have anything else punched.
    fn clear(&mut self, table: Table, seq: u64) -> Result<()> {
        let header = self.journal.header;
        let (index, pending) = (header.table(word::INDEX), header.table(word::PENDING));
        header.set(word::CLEARED, seq)?;
        if index != table {
            grow::retire(header, index)?;
            // Release, in `store`; pairs with the readers' load of the index.
            header.store(word::INDEX, table.0)?;
        }
        // Before its space goes: a step of growth must not store into a table that is a hole.
        header.store(word::PENDING, Table::NONE.0)?;
        if pending != Table::NONE && pending != table && pending.end() <= self.journal.tail()? {
            header.storage.punch(pending.offset(), pending.end());
        }
        for place in [word::CURSOR, word::GROWN, word::ENTRIES, word::LIVE, word::USED] {
            header.set(place, 0)?;
        }
        Ok(())
    }

    fn raise_barrier(&mut self, seq: u64) -> Result<()> {
        let header = self.journal.header;
        header.set(word::BARRIER, header.get(word::BARRIER)?.max(seq))
    }

    fn checkpoint(&mut self, offset: u64) -> Result<()> {
        self.journal.header.set(word::CHECKPOINT, offset)
    }
}

impl Live<'_> {
    /// Applies a record that this hold of the lock has just published.
    fn apply(&mut self, offset: u64, head: &Head) -> Result<()> {
        let records = self.records;
        apply(Op::decode(offset, head), offset, head, &records, self)
    }

    /// Values alone are counted: a tombstone takes a slot, and is no entry. Two stores, so a death between them leaves
    /// the number of entries right and their bytes off.
    #[inline]
    fn count(&self, head: &Head, sign: i64) -> Result<()> {
        if head.kind != Kind::VALUE {
            return Ok(());
        }
        self.journal.header.add(word::ENTRIES, sign)?;
        self.journal.header.add(word::LIVE, sign * head.next(0) as i64)
    }
}

impl Journal<'_> {
    /// The index, to be brought up to what is published now.
    ///
    /// Made once for each batch, with the tail as it is then. Growth may append a table in the midst of the batch; its
    /// record lies behind that tail, and no slot leads to it.
    pub(super) fn live(&self) -> Result<Live<'_>> {
        Ok(Live { journal: self, records: self.records()? })
    }

    /// Brings the index up to a record that was just published.
    pub(crate) fn apply(&self, offset: u64, head: &Head) -> Result<()> {
        self.live()?.apply(offset, head)
    }

    /// Brings the index up to records that were just published.
    ///
    /// After each record the index grows by a step, so that a batch of any size leaves no growth behind that a later
    /// put would have to wait for. Fails if the index can take no more, with the records published all the same:
    /// [`make_index`](crate::engine::file::recover::make_index) is the way out.
    pub(crate) fn apply_all(&self, drafts: &[Draft<'_>], offsets: &[u64]) -> Result<()> {
        if drafts.len() > 1 {
            self.touch_slots(drafts);
        }
        let mut live = self.live()?;
        for (draft, offset) in drafts.iter().zip(offsets) {
            live.apply(*offset, &draft.head)?;
            self.step_growth();
        }
        self.mark_applied()
    }

    /// Loads the slots of many keys, so that the machine waits for all of them at once. Each is most likely a cache
    /// miss; loaded in the midst of the applying, they would be waited for one by one.
    fn touch_slots(&self, drafts: &[Draft<'_>]) {
        let table = self.header.table(word::INDEX);
        for draft in drafts.iter().filter(|draft| draft.head.kind.is_keyed()) {
            let tag = Tag::of(draft.head.identity.hash(self.superblock.seed));
            std::hint::black_box(self.storage().load(index::first_place(table, tag)));
        }
    }

    /// Ends a hold: all that is published is in the index. Raised once for a whole batch: a death before leaves all of
    /// it to the redo (`a_batch_that_grew_the_index_twice_is_redone_from_its_start`).
    pub(crate) fn mark_applied(&self) -> Result<()> {
        self.header.set(word::APPLIED, self.tail()?)
    }

    /// The newest record of `identity`, whatever its kind. Without the lock, one that was the newest during
    /// the search.
    ///
    /// `None` also if the tail cannot be read. No payload is looked at. The loop is for who has no lock: it ends when
    /// INDEX stays the same for one search, and INDEX moves only when a table has filled or all was cleared.
    pub(crate) fn locate(&self, identity: &Identity) -> Option<(u64, Head)> {
        let records = self.records().ok()?;
        let same = |slot: Slot| {
            let head = records.head(slot.offset())?;
            (head.identity == *identity).then_some((slot.offset(), head))
        };
        let tag = Tag::of(identity.hash(self.superblock.seed));
        loop {
            // Acquire, in `load`; pairs with the store that switches tables.
            let table = self.header.table(word::INDEX);
            if let SlotEntry::Occupied(_, _, found) =
                index::slot_entry(self.storage(), table, tag, same)
            {
                return Some(found);
            }
            // A table that was left during the search is given back, and reads as zeros.
            if self.header.table(word::INDEX) == table {
                return None;
            }
        }
    }

    /// With each append a little: begin to grow, move on, give space back. A failure here, on a full
    /// disk say, harms nothing yet: the next append tries again, until the index has no room.
    pub(crate) fn step_growth(&self) {
        let table = self.header.table(word::INDEX);
        let used = self.header.get(word::USED).unwrap_or(0);
        let _ = match self.header.table(word::PENDING) {
            Table::NONE if index::is_over_load_factor(used, table) => self.begin_growth(table),
            _ => grow::step(self.header),
        };
    }

    /// Has an index grow at once in which a key finds no slot.
    ///
    /// For a crowd of keys with near tags, which fill the buckets behind their homes while the rest of the table has
    /// room (`a_crowd_in_one_place_makes_the_index_grow_at_once`). The hold takes as long as moving the table does. If
    /// less than a quarter of the slots are in use, growth would not help, and the error has the index made anew:
    /// slots that damage left behind are not in that.
    #[cold]
    fn make_room_for_a_slot(&self, table: Table) -> Result<()> {
        if !index::is_worth_growing(self.header.get(word::USED)?, table) {
            return Err(self.header.damaged("the index: no room near a key's home"));
        }
        if self.header.table(word::PENDING) == Table::NONE {
            self.begin_growth(table)?;
        }
        grow::complete(self.header)
    }

    /// Has an index that is due to grow do so in one go, for an opening. On a full disk nothing is appended, however
    /// often that is tried, since all of the space is taken first
    /// (`growth_that_fails_in_an_opening_leaves_nothing_behind_the_tail`).
    pub(crate) fn grow_at_once(&self) -> Result<()> {
        let index = self.header.table(word::INDEX);
        if !index::is_over_load_factor(self.header.get(word::USED)?, index) {
            return Ok(());
        }
        let start = self.tail()?;
        let end = start + 2 * index.size() + 3 * HEAD_SIZE;
        self.storage().allocate(start, end).map_err(self.io("grow"))?;
        self.begin_growth(index)?;
        grow::complete(self.header)?;
        self.mark_applied()
    }

    /// Appends the table, empty, and notes it. No more than that: buckets move with the appends that follow. Twice as
    /// large as `table`, or an error for one that can be no larger.
    fn begin_growth(&self, table: Table) -> Result<()> {
        let buckets = (table.buckets() * 2).min(BUCKET_LIMIT);
        if buckets == table.buckets() {
            let (size, limit) = (2 * table.size(), BUCKET_LIMIT * BUCKET_SIZE);
            return Err(Error::TooLarge { what: "the index", size, limit });
        }
        let (offset, head) = self.append_table(Kind::INDEX, buckets)?;
        grow::begin(self.header, table_in(offset, &head))
    }
}
