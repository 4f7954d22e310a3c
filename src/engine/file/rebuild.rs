//! The index as a log has it: made anew from its records, one after the other, as a target of the
//! [law](crate::engine::log::op). Recovery, a reader that may not write, and whoever finds an index without room
//! stand on it. In memory is that index and no more: 8 bytes for a slot, of which some half are in use; and where
//! something is missing, a list of its slots.

use crate::engine::format::header::{FIRST_BUCKETS, word};
use crate::engine::format::record::{Head, Identity, Kind};
use crate::engine::format::slot::{Slot, Table, Tag};
use crate::engine::index::{self, HeapTable, SlotEntry};
use crate::engine::log::journal::Journal;
use crate::engine::log::op::{Op, Target, apply, is_decided_by_payload};
use crate::engine::log::records::Records;
use crate::engine::log::walk::{Step, Walk, Window};
use crate::error::{Error, Result};

/// What a walk over a log found.
pub(crate) struct Rebuilt {
    /// The slots of the newest record of every key, removed ones included.
    pub(crate) index: HeapTable,
    pub(crate) entries: u64,
    pub(crate) live: u64,
    /// The sequence number of the last clear.
    pub(crate) cleared: u64,
    /// That of the last record which a clear or a dead list ended.
    pub(crate) barrier: u64,
    /// The highest sequence number met.
    pub(crate) seq: u64,
}

impl Rebuilt {
    /// Of a cache whose last clear had the sequence number `cleared`, as far as is known.
    fn new(cleared: u64) -> Rebuilt {
        let index = HeapTable::new(FIRST_BUCKETS);
        Rebuilt { index, entries: 0, live: 0, cleared, barrier: cleared, seq: cleared }
    }

    /// The index of the log up to `end`. Payloads that had been synced are checked when they are first read, like any,
    /// but for those that decide what their records do.
    pub(crate) fn of(journal: &Journal<'_>, end: u64) -> Result<Rebuilt> {
        // Of a header that cannot be believed: nothing was synced, or cleared but by what the log says.
        let word = |place| journal.header.get(place).unwrap_or(0);
        let mut rebuilding = Rebuilding {
            rebuilt: Rebuilt::new(word(word::CLEARED)),
            records: journal.records_below(end),
            synced: word(word::SYNCED),
            damage: None,
        };
        rebuilding.walk(journal.superblock.log_start)?;
        if end < rebuilding.synced {
            rebuilding.damage = Some(end);
        }
        rebuilding.forget_superseded(journal.header.table(word::INDEX));
        Ok(rebuilding.rebuilt)
    }
}

/// An index that is being made.
struct Rebuilding<'a> {
    rebuilt: Rebuilt,
    records: Records<'a>,
    /// What lies below was on the device. So what is missing there is no torn end of the log, but damage.
    synced: u64,
    /// Where the last record is missing that may have ended or superseded others.
    damage: Option<u64>,
}

impl Rebuilding<'_> {
    fn walk(&mut self, start: u64) -> Result<()> {
        let records = self.records;
        let read = || Error::io("read", records.storage.path());
        let mut walk = Walk::new(records.storage, records.seed, start, records.end);
        while let Some(step) = walk.next().map_err(read())? {
            let (offset, head) = match step {
                Step::Record(offset, head) => (offset, head),
                Step::Damage(offset, _) => {
                    self.lose(offset);
                    continue;
                }
            };
            self.rebuilt.seq = self.rebuilt.seq.max(head.seq);
            let may_be_torn = offset >= self.synced && head.kind.is_keyed();
            if (may_be_torn || is_decided_by_payload(&head))
                && !walk.is_whole(offset, &head).map_err(read())?
            {
                // With a key it is a value, of which the record that commits it tells, or the end of the log.
                if head.identity == Identity::NONE {
                    self.lose(offset);
                }
                continue;
            }
            apply(Op::decode(offset, &head), offset, &head, &records, self)?;
        }
        Ok(())
    }

    /// What is missing may have superseded or removed what lies before it. The index as it was knows: what
    /// it does not lead to, nor to anything newer than the last sync, is not found.
    ///
    /// This is the one place where a derived index is believed more than the log: the log has lost something, and the
    /// index was made when it had it.
    fn forget_superseded(&mut self, old: Table) {
        let Some(damage) = self.damage else { return };
        let (storage, synced) = (self.records.storage, self.synced);
        // The damage may be that of its record's head.
        let is_index = old.is_plausible() && old.end() <= self.records.end;
        let index = &self.rebuilt.index;
        let slots: Vec<Slot> = index::slots(index, index.table()).collect();
        for slot in slots.into_iter().filter(|slot| slot.offset() < damage) {
            let names = |named: Slot| {
                (named.offset() == slot.offset() || named.offset() >= synced).then_some(())
            };
            let is_named = is_index
                && matches!(
                    index::slot_entry(storage, old, slot.tag(), names),
                    SlotEntry::Occupied(..)
                );
            if let (false, Some(head)) = (is_named, self.head_at(slot)) {
                self.forget(slot.offset(), &head);
            }
        }
    }

    fn head_at(&self, slot: Slot) -> Option<Head> {
        self.records.head(slot.offset())
    }

    /// Puts a dead slot in the place of the one that leads there, if that is still the key's.
    fn forget(&mut self, offset: u64, head: &Head) {
        let slot = Slot::dead(Tag::of(head.identity.hash(self.records.seed)));
        if self.rebuilt.index.replace(slot, |slot| slot.offset() == offset) {
            self.count(head, -1);
        }
    }

    fn count(&mut self, head: &Head, sign: i64) {
        if head.kind == Kind::VALUE {
            let Rebuilt { entries, live, .. } = &mut self.rebuilt;
            *entries = entries.saturating_add_signed(sign);
            *live = live.saturating_add_signed(sign * head.next(0) as i64);
        }
    }
}

impl Target for Rebuilding<'_> {
    fn cleared(&self) -> Result<u64> {
        Ok(self.rebuilt.cleared)
    }

    fn newest(&self, identity: &Identity) -> Result<Option<u64>> {
        let of_key = |offset| self.records.head(offset).filter(|head| head.identity == *identity);
        let (index, tag) = (&self.rebuilt.index, Tag::of(identity.hash(self.records.seed)));
        Ok(index::find(index, index.table(), tag, of_key).map(|head| head.seq))
    }

    /// In the place of what the key has: in the order of the log nothing newer is there.
    fn put(&mut self, offset: u64, head: &Head, _: u64) -> Result<()> {
        let records = self.records;
        let slot = Slot::new(Tag::of(head.identity.hash(records.seed)), offset);
        let of_key = |slot: Slot| {
            records.head(slot.offset()).is_some_and(|found| found.identity == head.identity)
        };
        let old = self.rebuilt.index.put(slot, of_key);
        if let Some(old) = old.and_then(|old| self.head_at(old)) {
            self.count(&old, -1);
        }
        self.count(head, 1);
        Ok(())
    }

    fn commit(&mut self, offset: u64, head: &Head) -> Result<bool> {
        if head.kind != Kind::VALUE {
            return Ok(false);
        }
        let (storage, seed) = (self.records.storage, self.records.seed);
        // Its place in the log may have been met, and it was whole.
        let is_there = self.newest(&head.identity)? == Some(head.seq);
        let mut window = Window::new(storage, self.records.end);
        let read = Error::io("read", storage.path());
        Ok(is_there || window.is_whole(offset, head, seed).map_err(read)?)
    }

    fn lose(&mut self, since: u64) {
        if since < self.synced {
            self.damage = Some(since);
        }
    }

    fn mark_dead(&mut self, dead: &[(u64, Head)], _: u64) -> Result<()> {
        dead.iter().for_each(|(offset, head)| self.forget(*offset, head));
        Ok(())
    }

    /// The last clear that is known of may be a later one.
    fn clear(&mut self, _: Table, seq: u64) -> Result<()> {
        let Rebuilt { cleared, barrier, seq: highest, .. } = self.rebuilt;
        self.rebuilt = Rebuilt { barrier, seq: highest, ..Rebuilt::new(cleared.max(seq)) };
        self.damage = None;
        Ok(())
    }

    fn raise_barrier(&mut self, seq: u64) -> Result<()> {
        self.rebuilt.barrier = self.rebuilt.barrier.max(seq);
        Ok(())
    }
}
