//! Bringing the index up to what is published: record by record, in their order, by whoever holds the
//! lock. It happens with each append, is done again by the next holder of the lock after a death, and by
//! recovery. Doing any of it twice changes nothing.

use super::journal::{Draft, Journal, LIST_MAX, table_in};
use super::walk::{Step, Walk, Window};
use crate::engine::format::ALIGNMENT;
use crate::engine::format::header::word;
use crate::engine::format::record::{HEAD_SIZE, Head, Identity, Kind};
use crate::engine::format::slot::{BUCKET_LIMIT, BUCKET_SIZE, Slot, Table, Tag};
use crate::engine::index::{self, Seat, grow};
use crate::error::{Error, Result};

impl Journal<'_> {
    /// Whether no holder of the lock who was killed left anything to erase or to redo.
    pub(crate) fn is_finished(&self) -> Result<bool> {
        Ok(!self.may_have_debris(self.seq()?)? && !self.is_behind()?)
    }

    /// Whether something was written and not published, as of the last number that was taken.
    pub(crate) fn may_have_debris(&self, seq: u64) -> Result<bool> {
        Ok(self.ledger.get(word::PUBLISHED)? != seq)
    }

    /// Whether something is published that may not be in the index.
    fn is_behind(&self) -> Result<bool> {
        Ok(self.ledger.get(word::APPLIED)? < self.tail()?)
    }

    /// Erases what a holder of the lock has not published, who was killed or failed, on the device too.
    pub(crate) fn erase_debris(&self) -> Result<()> {
        let seq = self.seq()?;
        if !self.may_have_debris(seq)? {
            return Ok(());
        }
        let size = self.medium().size().map_err(self.io("look at"))?;
        let end = self.ledger.get(word::ALLOCATED)?.min(size);
        // Of the space that was taken for a large value nothing has been written, and no more is cleared than was.
        self.medium().erase(self.tail()?, end).map_err(self.io("clear"))?;
        // Whatever is there by now: zeros that another one wrote who died before they were synced are none.
        self.sync()?;
        self.ledger.set(word::PUBLISHED, seq)
    }

    /// Finishes what a holder of the lock who was killed has published. After a power cut, no table is
    /// believed to be empty.
    pub(crate) fn redo(&self, after_power_cut: bool) -> Result<()> {
        if !self.is_behind()? {
            return Ok(());
        }
        let (applied, tail) = (self.ledger.get(word::APPLIED)?, self.tail()?);
        let mut walk = Walk::new(self.medium(), self.facts.seed, applied, tail);
        while let Some(step) = walk.next().map_err(self.io("read"))? {
            let Step::Record(offset, head) = step else { continue };
            if after_power_cut && head.kind == Kind::CLEAR {
                let table = table_in(offset, &head);
                self.medium().zero(table.offset(), table.end()).map_err(self.io("clear"))?;
            }
            self.apply(offset, &head)?;
        }
        self.settle()
    }

    /// Ends a hold: all that is published is in the index.
    pub(crate) fn settle(&self) -> Result<()> {
        self.ledger.set(word::APPLIED, self.tail()?)
    }

    /// Loads the slots of many keys, so that the machine waits for all of them at once.
    pub(crate) fn touch_slots(&self, drafts: &[Draft<'_>]) {
        let table = self.ledger.table(word::INDEX);
        for draft in drafts.iter().filter(|draft| draft.head.kind.is_keyed()) {
            let tag = Tag::of(draft.head.identity.hash(self.facts.seed));
            std::hint::black_box(self.medium().load(index::first_place(table, tag)));
        }
    }

    /// A removal up to `seq` may not be on record any more: what began before it is not stored.
    fn raise_barrier(&self, seq: u64) -> Result<()> {
        self.ledger.set(word::BARRIER, self.ledger.get(word::BARRIER)?.max(seq))
    }

    /// The head that a reserved record has, or will have once it is filled.
    pub(crate) fn reserved_at(&self, offset: u64) -> Result<Option<Head>> {
        self.reserved_below(self.tail()?, offset)
    }

    /// As `reserved_at`, of a log that ends at `tail`.
    pub(crate) fn reserved_below(&self, tail: u64, offset: u64) -> Result<Option<Head>> {
        let mut bytes = [0; HEAD_SIZE as usize];
        if offset > tail.saturating_sub(HEAD_SIZE) || !offset.is_multiple_of(ALIGNMENT) {
            return Ok(None);
        }
        self.medium().read(offset, &mut bytes).map_err(self.io("read"))?;
        let head = Head::decode(&bytes, offset, self.facts.seed);
        let is_reserved =
            |head: &Head| matches!(head.kind, Kind::PAD | Kind::VALUE) && head.next(offset) <= tail;
        Ok(head.filter(is_reserved).map(|head| Head { kind: Kind::VALUE, ..head }))
    }

    /// Makes filled pads values.
    fn reveal(&self, list: u64, head: &Head) -> Result<()> {
        for offset in self.offsets_in(list, head)? {
            let Some(value) = self.reserved_at(offset)? else { continue };
            // What was superseded before it was filled stays a pad. As a value it would be taken for one that
            // counts by whoever reads the record of its filling later, when its successor may be gone.
            if self.locate(&value.identity).is_some_and(|(_, newest)| newest.seq > value.seq) {
                continue;
            }
            // Not twice: who has found it reads it as what never changes.
            if self.medium().load(offset) != value.first_word() {
                // Release; pairs with the acquire in `Map::record`: who sees the kind sees the payload.
                self.ledger.store(offset, value.first_word())?;
            }
            self.put(offset, &value)?;
        }
        Ok(())
    }

    /// Brings the index up to a published record.
    pub(crate) fn apply(&self, offset: u64, head: &Head) -> Result<()> {
        match head.kind {
            kind if kind.is_keyed() => self.put(offset, head),
            Kind::DEAD_LIST => self.bury(offset, head),
            Kind::FILLED => self.reveal(offset, head),
            Kind::CLEAR => self.switch(table_in(offset, head), head.seq),
            // Whoever appended it may have begun to fill it, and have died: growth begins anew, elsewhere.
            Kind::INDEX => Ok(()),
            Kind::CHECKPOINT => self.ledger.set(word::CHECKPOINT, offset),
            _ => Ok(()),
        }
    }

    /// The verified head of a record that a slot names.
    pub(crate) fn head_at(&self, offset: u64) -> Option<Head> {
        let tail = self.tail().ok()?;
        let bytes = self.medium().head(offset)?;
        let head = Head::decode(&bytes, offset, self.facts.seed)?;
        (head.next(offset) <= tail).then_some(head)
    }

    fn put(&self, offset: u64, head: &Head) -> Result<()> {
        if head.seq <= self.ledger.get(word::CLEARED)? {
            return Ok(()); // A large value that was being filled while the cache was cleared.
        }
        let slot = Slot::new(Tag::of(head.identity.hash(self.facts.seed)), offset);
        loop {
            let table = self.ledger.table(word::INDEX);
            let same = |slot: Slot| {
                self.head_at(slot.offset()).filter(|found| found.identity == head.identity)
            };
            match index::seat(self.medium(), table, slot.tag(), same) {
                Seat::Taken(_, old, prior) if old == slot || prior.seq > head.seq => return Ok(()),
                Seat::Taken(at, old, prior) => {
                    grow::follow(self.ledger, table, at, old, slot)?;
                    self.ledger.store(at, slot.0)?;
                    self.count(&prior, -1)?;
                    return self.count(head, 1);
                }
                Seat::Free(at, prior) => {
                    grow::follow(self.ledger, table, at, slot, slot)?;
                    self.ledger.store(at, slot.0)?;
                    self.ledger.add(word::USED, i64::from(prior.is_empty()))?;
                    return self.count(head, 1);
                }
                Seat::Full if !index::is_worth_growing(self.ledger.get(word::USED)?, table) => {
                    return Err(self.ledger.damaged("the index: no room near a key's home"));
                }
                Seat::Full => {
                    if self.ledger.table(word::PENDING) == Table::NONE {
                        self.begin_growth(table)?;
                    }
                    grow::complete(self.ledger)?;
                }
            }
        }
    }

    fn count(&self, head: &Head, sign: i64) -> Result<()> {
        if head.kind != Kind::VALUE {
            return Ok(());
        }
        self.ledger.add(word::ENTRIES, sign)?;
        self.ledger.add(word::LIVE, sign * head.next(0) as i64)
    }

    /// The offsets that are the payload of the record at `offset`.
    pub(crate) fn offsets_in(&self, offset: u64, head: &Head) -> Result<Vec<u64>> {
        if head.len > LIST_MAX * 8 {
            return Ok(Vec::new()); // Nobody writes such a list.
        }
        let mut window = Window::new(self.medium(), offset + HEAD_SIZE + head.len);
        let payload = window.get(offset + HEAD_SIZE, head.len).map_err(self.io("read"))?;
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("chunks of 8"));
        Ok(payload.unwrap_or_default().chunks_exact(8).map(word).collect())
    }

    /// The newest record of `identity`, whatever its kind. Without the lock, one that was the newest during
    /// the search.
    pub(crate) fn locate(&self, identity: &Identity) -> Option<(u64, Head)> {
        let tag = Tag::of(identity.hash(self.facts.seed));
        let same = |slot: Slot| {
            let head = self.head_at(slot.offset())?;
            (head.identity == *identity).then_some((slot.offset(), head))
        };
        loop {
            // Acquire, in `load`; pairs with the store that switches tables.
            let table = self.ledger.table(word::INDEX);
            if let Seat::Taken(_, _, found) = index::seat(self.medium(), table, tag, same) {
                return Some(found);
            }
            // A table that was left during the search is given back, and reads as zeros.
            if self.ledger.table(word::INDEX) == table {
                return None;
            }
        }
    }

    /// Makes the slots of the records on a dead list dead: they are found no more.
    fn bury(&self, list: u64, head: &Head) -> Result<()> {
        for offset in self.offsets_in(list, head)? {
            let Some(dead) = self.head_at(offset) else { continue };
            let table = self.ledger.table(word::INDEX);
            let tag = Tag::of(dead.identity.hash(self.facts.seed));
            let same = |slot: Slot| (slot.offset() == offset).then_some(());
            if let Seat::Taken(at, old, ()) = index::seat(self.medium(), table, tag, same) {
                let slot = Slot::dead(tag);
                grow::follow(self.ledger, table, at, old, slot)?;
                self.ledger.store(at, slot.0)?;
                self.raise_barrier(dead.seq)?;
                self.count(&dead, -1)?;
            }
        }
        Ok(())
    }

    /// Makes `table` the index, all at once, as the order `seq` says.
    fn switch(&self, table: Table, seq: u64) -> Result<()> {
        let (index, pending) = (self.ledger.table(word::INDEX), self.ledger.table(word::PENDING));
        self.raise_barrier(seq)?;
        self.ledger.set(word::CLEARED, seq)?;
        if index != table {
            grow::retire(self.ledger, index)?;
            // Release, in `store`; pairs with the readers' load of the index.
            self.ledger.store(word::INDEX, table.0)?;
        }
        self.ledger.store(word::PENDING, Table::NONE.0)?;
        if pending != Table::NONE && pending != table && pending.end() <= self.tail()? {
            self.medium().punch(pending.offset(), pending.end());
        }
        for place in [word::CURSOR, word::GROWN, word::ENTRIES, word::LIVE, word::USED] {
            self.ledger.set(place, 0)?;
        }
        Ok(())
    }

    /// With each append a little: begin to grow, move on, give space back. A failure here, on a full
    /// disk say, harms nothing yet: the next append tries again, until the index has no room.
    pub(crate) fn tend_index(&self) {
        let table = self.ledger.table(word::INDEX);
        let used = self.ledger.get(word::USED).unwrap_or(0);
        let _ = match self.ledger.table(word::PENDING) {
            Table::NONE if index::is_crowded(used, table) => self.begin_growth(table),
            _ => grow::step(self.ledger),
        };
    }

    /// Has an index that is due to grow do so in one go. On a full disk nothing is appended, however often that
    /// is tried.
    pub(crate) fn grow_at_once(&self) -> Result<()> {
        let index = self.ledger.table(word::INDEX);
        if !index::is_crowded(self.ledger.get(word::USED)?, index) {
            return Ok(());
        }
        let start = self.tail()?;
        let end = start + 2 * index.size() + 3 * HEAD_SIZE;
        self.medium().allocate(start, end).map_err(self.io("grow"))?;
        self.begin_growth(index)?;
        grow::complete(self.ledger)?;
        self.settle()
    }

    fn begin_growth(&self, table: Table) -> Result<()> {
        let buckets = (table.buckets() * 2).min(BUCKET_LIMIT);
        if buckets == table.buckets() {
            let (size, limit) = (2 * table.size(), BUCKET_LIMIT * BUCKET_SIZE);
            return Err(Error::TooLarge { what: "the index", size, limit });
        }
        let (offset, head) = self.append_table(Kind::INDEX, buckets)?;
        grow::begin(self.ledger, table_in(offset, &head))
    }
}
