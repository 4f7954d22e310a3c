//! What the holder of the writer's lock does to a file: append records, then bring the index up to
//! them. Stands on the ledger, the index and a [`Medium`].
//!
//! The order is the whole recovery from killed processes. `SEQ` rises, the bytes are copied behind
//! the tail, `TAIL` publishes them, the slots follow, `APPLIED` ends the hold. Killed before the tail
//! moved, the bytes are overwritten; killed later, the next holder redoes the records in
//! `APPLIED..TAIL`, and doing any of them twice changes nothing. The tail never decreases.

use crate::error::{Error, Result};
use crate::format::checkpoint::{Checkpoint, hash_piece};
use crate::format::header::{FIRST_BUCKETS, Facts, word};
use crate::format::record::{self, HEAD_SIZE, Head, Identity, Kind, Stamp};
use crate::format::slot::{BUCKET_LIMIT, BUCKET_SIZE, Slot, Table, Tag};
use crate::format::{FILE_LIMIT, align};
use crate::index::{self, Seat, grow};
use crate::ledger::Ledger;
use crate::scan::{Step, Walk, Window};
use crate::sys::clock;
use crate::sys::file::Medium;

/// Payloads longer than this are copied without the lock, into space reserved under it.
pub(crate) const LARGE: usize = 64 << 10;

/// Space is taken in steps of a sixteenth of the file, between these.
const STEP_MIN: u64 = 64 << 10;
const STEP_MAX: u64 = 2 << 20;
const PAGE: u64 = 4096;

/// A record about to be appended: its head but for place and order, and its payload.
pub(crate) struct Draft<'a> {
    pub(crate) head: Head,
    pub(crate) payload: &'a [u8],
}

impl<'a> Draft<'a> {
    /// A record of `kind` for `identity`, created now.
    pub(crate) fn new(kind: Kind, identity: Identity, payload: &'a [u8], seed: u64) -> Draft<'a> {
        let mut head = Head::new(kind, identity, payload.len() as u64);
        head.created = Stamp::new(clock::now());
        head.payload_check = record::payload_check(kind, payload, seed);
        Draft { head, payload }
    }
}

/// A file whose lock the caller holds.
pub(crate) struct Journal<'a> {
    pub(crate) ledger: Ledger<'a>,
    pub(crate) facts: &'a Facts,
}

impl<'a> Journal<'a> {
    pub(crate) fn new(medium: &'a dyn Medium, facts: &'a Facts) -> Journal<'a> {
        Journal { ledger: Ledger { medium }, facts }
    }

    fn medium(&self) -> &'a dyn Medium {
        self.ledger.medium
    }
    pub(crate) fn tail(&self) -> Result<u64> {
        self.ledger.get(word::TAIL)
    }
    pub(crate) fn seq(&self) -> Result<u64> {
        self.ledger.get(word::SEQ)
    }
    fn io(&self, action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        Error::io(action, self.medium().file().path())
    }

    /// Finishes what a holder of the lock who was killed has published. After a power cut, payloads are
    /// checked too, and no table is believed to be empty.
    pub(crate) fn redo(&self, after_power_cut: bool) -> Result<()> {
        let (applied, tail) = (self.ledger.get(word::APPLIED)?, self.tail()?);
        if applied >= tail {
            return Ok(());
        }
        let mut walk = Walk::new(self.medium().file(), self.facts.seed, applied, tail);
        while let Some(step) = walk.next().map_err(self.io("read"))? {
            let Step::Record(offset, head) = step else { continue };
            if after_power_cut && !self.survived(&mut walk, offset, &head)? {
                continue;
            }
            self.apply(offset, &head)?;
        }
        self.settle()
    }

    /// Whether a record came through a power cut whole. A table may have: its slots then are of any time.
    fn survived(&self, walk: &mut Walk<'_>, offset: u64, head: &Head) -> Result<bool> {
        if head.kind == Kind::CLEAR {
            let (table, file) = (table_in(offset, head), self.medium().file());
            file.zero(table.offset(), table.end()).map_err(self.io("clear"))?;
        }
        if head.kind.holds_table() {
            return Ok(true);
        }
        let payload = walk.payload(offset, head).map_err(self.io("read"))?;
        if head.check_of(payload, self.facts.seed) != head.payload_check {
            return Ok(false);
        }
        let filled =
            if head.kind == Kind::FILLED { self.offsets_in(offset, head)? } else { vec![] };
        for filled in filled {
            let Some(head) = self.head_at(filled) else { return Ok(false) };
            let mut window = Window::new(self.medium().file(), self.tail()?);
            let payload = window.get(filled + HEAD_SIZE, head.len).map_err(self.io("read"))?;
            let check = payload.map(|payload| head.check_of(payload, self.facts.seed));
            if check != Some(head.payload_check) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Ends a hold: all that is published is in the index.
    pub(crate) fn settle(&self) -> Result<()> {
        self.ledger.set(word::APPLIED, self.tail()?)
    }

    /// Appends records, all published at once, and brings the index up to them. Returns their
    /// offsets.
    pub(crate) fn append(&self, drafts: &mut [Draft<'_>]) -> Result<Vec<u64>> {
        let seq = self.seq()?;
        self.ledger.set(word::SEQ, seq + drafts.len() as u64)?;
        for (draft, seq) in drafts.iter_mut().zip(seq + 1..) {
            draft.head.seq = seq;
        }
        let offsets = self.write(drafts)?;
        if drafts.len() > 1 {
            self.touch_slots(drafts);
        }
        for (draft, offset) in drafts.iter().zip(&offsets) {
            self.apply(*offset, &draft.head)?;
            self.tend_index();
        }
        self.settle()?;
        Ok(offsets)
    }

    /// Loads the slots of many keys, so that the machine waits for all of them at once.
    fn touch_slots(&self, drafts: &[Draft<'_>]) {
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

    /// Gives out no number up to `seq` any more.
    pub(crate) fn raise_seq(&self, seq: u64) -> Result<()> {
        self.ledger.set(word::SEQ, self.seq()?.max(seq))
    }

    /// Copies records behind the tail and publishes them.
    pub(super) fn write(&self, drafts: &[Draft<'_>]) -> Result<Vec<u64>> {
        let tail = self.tail()?;
        self.make_room(drafts.iter().fold(tail, |at, draft| draft.head.next(at)))?;
        let mut offsets = Vec::with_capacity(drafts.len());
        let mut at = tail;
        for draft in drafts {
            let head = draft.head.encode(at, self.facts.seed);
            self.medium().write(at, &head).map_err(self.io("write"))?;
            self.medium().write(at + HEAD_SIZE, draft.payload).map_err(self.io("write"))?;
            offsets.push(at);
            at = draft.head.next(at);
        }
        self.publish(at, offsets.last().copied().unwrap_or(tail))?;
        Ok(offsets)
    }

    /// Moves the tail: from here on the records below it are part of the cache, whatever happens.
    fn publish(&self, tail: u64, last: u64) -> Result<()> {
        // Release, in `store`; pairs with the acquire of whoever loads the tail or a slot.
        self.ledger.set(word::TAIL, tail)?;
        self.ledger.set(word::LAST, last)
    }

    /// Reserves a record of `head` without its payload, as a pad that a walk steps over.
    pub(crate) fn reserve(&self, head: &mut Head) -> Result<u64> {
        let at = self.tail()?;
        let end = head.next(at);
        self.make_room(end)?;
        head.seq = self.seq()? + 1;
        self.ledger.set(word::SEQ, head.seq)?;
        let pad = Head { kind: Kind::PAD, ..*head };
        self.medium().write(at, &pad.encode(at, self.facts.seed)).map_err(self.io("write"))?;
        self.publish(end, at)?;
        self.settle()?;
        Ok(at)
    }

    /// Makes a reserved record, now filled, what it was meant to be. A record of its own says so at
    /// the tail: who redoes or copies what came since a point in the log must not miss it.
    pub(crate) fn fulfil(&self, offset: u64, head: &Head) -> Result<()> {
        // Release; pairs with the acquire in `Map::record`: who sees the kind sees the payload.
        self.ledger.store(offset, head.first_word())?;
        let place = offset.to_le_bytes();
        self.append(&mut [Draft::new(Kind::FILLED, Identity::NONE, &place, self.facts.seed)])?;
        Ok(())
    }

    /// Disk space up to `end`.
    pub(crate) fn make_room(&self, end: u64) -> Result<()> {
        let limit = FILE_LIMIT.min(self.medium().reach());
        if end > limit {
            return Err(Error::TooLarge { what: "the file", size: end, limit });
        }
        let allocated = self.ledger.get(word::ALLOCATED)?;
        if end <= allocated {
            return Ok(());
        }
        let step = (end / 16).clamp(STEP_MIN, STEP_MAX);
        let exact = end.next_multiple_of(PAGE);
        let ample = exact.max(allocated + step).next_multiple_of(PAGE).min(limit);
        let file = self.medium().file();
        let target = match file.allocate(allocated, ample) {
            Ok(()) => ample,
            Err(_) if exact < ample => {
                file.allocate(allocated, exact).map_err(self.io("grow"))?;
                exact
            }
            Err(error) => return Err(self.io("grow")(error)),
        };
        self.ledger.set(word::ALLOCATED, target)
    }

    /// Brings the index up to a published record.
    fn apply(&self, offset: u64, head: &Head) -> Result<()> {
        match head.kind {
            kind if kind.is_keyed() => self.put(offset, head),
            Kind::DEAD_LIST => self.bury(offset, head),
            Kind::FILLED => match self.offsets_in(offset, head)?.first() {
                Some(filled) => {
                    self.head_at(*filled).map_or(Ok(()), |head| self.put(*filled, &head))
                }
                None => Ok(()),
            },
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
        let mut window = Window::new(self.medium().file(), self.tail()?);
        let payload = window.get(offset + HEAD_SIZE, head.len).map_err(self.io("read"))?;
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("chunks of 8"));
        Ok(payload.unwrap_or_default().chunks_exact(8).map(word).collect())
    }

    /// The newest record of `identity`, whatever its kind.
    pub(crate) fn locate(&self, identity: &Identity) -> Option<(u64, Head)> {
        let table = self.ledger.table(word::INDEX);
        let tag = Tag::of(identity.hash(self.facts.seed));
        let same = |slot: Slot| {
            let head = self.head_at(slot.offset())?;
            (head.identity == *identity).then_some((slot.offset(), head))
        };
        match index::seat(self.medium(), table, tag, same) {
            Seat::Taken(_, _, found) => Some(found),
            Seat::Free(..) | Seat::Full => None,
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
            self.medium().file().punch(pending.offset(), pending.end());
        }
        for place in [word::CURSOR, word::GROWN, word::ENTRIES, word::LIVE, word::USED] {
            self.ledger.set(place, 0)?;
        }
        Ok(())
    }

    /// Appends a record that makes all before it dead and holds the index from here on.
    pub(crate) fn clear(&self) -> Result<()> {
        let (offset, head) = self.append_table(Kind::CLEAR, FIRST_BUCKETS)?;
        self.apply(offset, &head)?;
        self.settle()
    }

    /// With each append a little: begin to grow, move on, give space back. A failure here, on a full
    /// disk say, harms nothing yet: the next append tries again, until the index has no room.
    fn tend_index(&self) {
        let table = self.ledger.table(word::INDEX);
        let used = self.ledger.get(word::USED).unwrap_or(0);
        let _ = match self.ledger.table(word::PENDING) {
            Table::NONE if index::is_crowded(used, table) => self.begin_growth(table),
            _ => grow::step(self.ledger),
        };
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

    /// Appends a record with an empty table. Of a table to grow into only both ends get their disk
    /// space now.
    pub(super) fn append_table(&self, kind: Kind, buckets: u64) -> Result<(u64, Head)> {
        let tail = self.tail()?;
        let gap = tail.next_multiple_of(BUCKET_SIZE) - tail;
        let at = if gap == 0 { tail } else { tail + HEAD_SIZE + gap };
        let mut head = Draft::new(kind, Identity::NONE, &[], self.facts.seed).head;
        head.len = buckets * BUCKET_SIZE;
        let table = table_in(at, &head);
        if table.end() > FILE_LIMIT.min(self.medium().reach()) {
            let limit = FILE_LIMIT.min(self.medium().reach());
            return Err(Error::TooLarge { what: "the index", size: table.end(), limit });
        }
        self.make_room(table.offset())?;
        let (file, allocated) = (self.medium().file(), self.ledger.get(word::ALLOCATED)?);
        let size = file.size().map_err(self.io("look at"))?;
        grow::reserve(self.ledger, table)?;
        file.zero(table.offset(), table.end().min(size)).map_err(self.io("clear"))?;

        let seq = self.seq()?;
        self.ledger.set(word::SEQ, seq + 2)?;
        if gap > 0 {
            let mut pad = Draft::new(Kind::PAD, Identity::NONE, &[], self.facts.seed).head;
            (pad.len, pad.seq) = (gap, seq + 1);
            let bytes = pad.encode(tail, self.facts.seed);
            self.medium().write(tail, &bytes).map_err(self.io("write"))?;
        }
        head.seq = seq + 2;
        self.medium().write(at, &head.encode(at, self.facts.seed)).map_err(self.io("write"))?;
        self.ledger.set(word::ALLOCATED, allocated.max(table.end()))?;
        self.publish(head.next(at), at)?;
        Ok((at, head))
    }

    /// Appends a table that is whole already, as recovery makes it, and makes it the index.
    pub(crate) fn adopt_table(&self, bytes: &[u8]) -> Result<()> {
        let buckets = bytes.len() as u64 / BUCKET_SIZE;
        let (offset, head) = self.append_table(Kind::INDEX, buckets)?;
        let (table, file) = (table_in(offset, &head), self.medium().file());
        file.allocate(table.offset(), table.end()).map_err(self.io("grow"))?;
        file.write(table.offset(), bytes).map_err(self.io("write"))?;
        self.ledger.store(word::PENDING, Table::NONE.0)?;
        self.ledger.store(word::RETIRED, Table::NONE.0)?;
        self.ledger.set(word::CURSOR, 0)?;
        self.ledger.set(word::GROWN, 0)?;
        self.ledger.store(word::INDEX, table.0)?;
        self.settle()
    }

    /// Appends a checkpoint of all that is published.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        let index = self.ledger.table(word::INDEX);
        let checkpoint = Checkpoint {
            tail: self.tail()?,
            index,
            index_hash: self.hash_table(index)?,
            barrier: self.ledger.get(word::BARRIER)?,
            entries: self.ledger.get(word::ENTRIES)?,
            live: self.ledger.get(word::LIVE)?,
            used: self.ledger.get(word::USED)?,
        };
        let bytes = checkpoint.encode();
        let mut draft = Draft::new(Kind::CHECKPOINT, Identity::NONE, &bytes, self.facts.seed);
        draft.head.seq = self.seq()? + 1;
        self.ledger.set(word::SEQ, draft.head.seq)?;
        // Not through `append`, which tends the index and would make its hash wrong at once.
        let offset = self.write(&[draft])?[0];
        self.ledger.set(word::CHECKPOINT, offset)?;
        self.settle()
    }

    /// Gives back the space behind the last page. For a file that nobody else has opened.
    pub(crate) fn trim(&self) -> Result<()> {
        let end = self.tail()?.next_multiple_of(PAGE);
        self.make_room(end)?;
        self.ledger.set(word::ALLOCATED, end)?;
        self.medium().file().inner().set_len(end).map_err(self.io("trim"))
    }

    /// The hash of a table as it is in the file.
    pub(crate) fn hash_table(&self, table: Table) -> Result<u64> {
        let mut window = Window::new(self.medium().file(), table.end());
        let mut hash = self.facts.seed;
        let mut at = table.offset();
        while at < table.end() {
            let size = (table.end() - at).min(1 << 20);
            let piece = window.get(at, size).map_err(self.io("read"))?;
            hash = hash_piece(piece.unwrap_or_default(), hash);
            at += size;
        }
        Ok(hash)
    }
}

/// The table that is the payload of the record at `offset`.
fn table_in(offset: u64, head: &Head) -> Table {
    Table::new(offset + HEAD_SIZE, head.len / BUCKET_SIZE)
}

const _: () = assert!(align(HEAD_SIZE).is_multiple_of(BUCKET_SIZE));
