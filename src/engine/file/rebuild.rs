//! The index as a log has it: made anew from its records, one after the other. Recovery, a reader that may not
//! write, and whoever finds an index without room stand on it. In memory is that index and no more: 8 bytes for a
//! slot, of which some half are in use; and where something is missing, a list of its slots.

use crate::engine::format::header::word;
use crate::engine::format::record::{Head, Identity, Kind};
use crate::engine::format::slot::{Slot, Tag};
use crate::engine::index::{self, HeapTable, Seat};
use crate::engine::log::journal::{Journal, LARGE};
use crate::engine::log::walk::{Step, Walk, Window};
use crate::engine::os::file::Medium;
use crate::error::{Error, Result};

/// What a walk over a log found.
pub(crate) struct Rebuilt {
    /// The slots of the newest record of every key, removed ones included.
    pub(crate) index: HeapTable,
    pub(crate) entries: u64,
    pub(crate) live: u64,
    /// The sequence number of the last clear.
    pub(crate) barrier: u64,
    /// The highest sequence number met.
    pub(crate) seq: u64,
    /// Where the last record is missing that had been synced: not torn, but damaged.
    damage: Option<u64>,
}

impl Rebuilt {
    /// Of a cache whose last clear had the sequence number `barrier`, as far as is known.
    fn new(barrier: u64) -> Rebuilt {
        let index = HeapTable::new(crate::engine::format::header::FIRST_BUCKETS);
        Rebuilt { index, entries: 0, live: 0, barrier, seq: barrier, damage: None }
    }

    /// The index of the log up to `end`. Payloads that had been synced are checked when they are first read,
    /// like any, unless all are now.
    pub(crate) fn of(journal: &Journal<'_>, end: u64, is_all_checked: bool) -> Result<Rebuilt> {
        // Of a header that cannot be believed: nothing was synced, or cleared but by what the log says.
        let word = |place| journal.ledger.get(place).unwrap_or(0);
        let synced = word(word::SYNCED);
        let mut rebuilt = Rebuilt::new(word(word::CLEARED));
        rebuilt.walk(journal, end, synced, if is_all_checked { 0 } else { synced })?;
        let cut_off = Some(end).filter(|end| *end < synced);
        if let Some(damage) = cut_off.or(rebuilt.damage) {
            rebuilt.forget_superseded(journal, damage, synced, end);
        }
        Ok(rebuilt)
    }

    fn walk(&mut self, journal: &Journal<'_>, end: u64, synced: u64, unchecked: u64) -> Result<()> {
        let (medium, facts) = (journal.ledger.medium, journal.facts);
        let failed = || Error::io("read", medium.path());
        let mut walk = Walk::new(medium, facts.seed, facts.log_start, end);
        while let Some(step) = walk.next().map_err(failed())? {
            let (offset, head) = match step {
                Step::Record(offset, head) => (offset, head),
                Step::Damage(start, _) => {
                    self.damage = Some(start).filter(|start| *start < synced).or(self.damage);
                    continue;
                }
            };
            self.seq = self.seq.max(head.seq);
            // The kind stands outside the head's check. Whatever it says, what has a key supersedes what that
            // had; but for the space of a large value, which counts once it is filled. What has none is
            // what it says if its payload says so, too.
            let has_key = head.identity != Identity::NONE;
            let is_small = head.len <= LARGE as u64;
            if has_key && is_small && !head.kind.is_keyed() {
                self.put(medium, facts.seed, offset, &head);
                continue;
            }
            // A large value's space may have been reserved before a sync and filled after it. So it may be
            // torn, which is no damage: its FILLED record tells.
            let is_checked =
                head.kind != Kind::PAD && (!has_key || !is_small || offset >= unchecked);
            if is_checked && !walk.is_whole(offset, &head).map_err(failed())? {
                self.damage = (offset < synced && !has_key).then_some(offset).or(self.damage);
                continue;
            }
            match head.kind {
                kind if kind.is_keyed() => self.put(medium, facts.seed, offset, &head),
                Kind::DEAD_LIST => {
                    for dead in journal.offsets_in(offset, &head)? {
                        self.bury(medium, facts.seed, dead);
                    }
                }
                Kind::FILLED => {
                    for filled in journal.offsets_in(offset, &head)? {
                        let is_damage = !self.fill(journal, filled, end)? && offset < synced;
                        self.damage = is_damage.then_some(offset).or(self.damage);
                    }
                }
                // The last clear that is known of may be a later one.
                Kind::CLEAR => {
                    let (barrier, seq) = (self.barrier.max(head.seq), self.seq);
                    *self = Rebuilt { seq, ..Rebuilt::new(barrier) };
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What is missing may have superseded or removed what lies before it. The index as it was knows: what
    /// it does not lead to, nor to anything newer than the last sync, is not found.
    fn forget_superseded(&mut self, journal: &Journal<'_>, damage: u64, synced: u64, end: u64) {
        let (ledger, old) = (&journal.ledger, journal.ledger.table(word::INDEX));
        // The damage may be that of its record's head.
        let is_index = old.is_plausible() && old.end() <= end;
        let slots: Vec<Slot> = index::slots(&self.index, self.index.table()).collect();
        for slot in slots.into_iter().filter(|slot| slot.offset() < damage) {
            let names = |named: Slot| {
                (named.offset() == slot.offset() || named.offset() >= synced).then_some(())
            };
            let is_named = is_index
                && matches!(index::seat(ledger.medium, old, slot.tag(), names), Seat::Taken(..));
            if !is_named {
                self.bury(ledger.medium, journal.facts.seed, slot.offset());
            }
        }
    }

    fn put(&mut self, medium: &dyn Medium, seed: u64, offset: u64, head: &Head) {
        if head.seq <= self.barrier {
            return;
        }
        let head_at = |slot: Slot| Head::decode(&medium.head(slot.offset())?, slot.offset(), seed);
        let slot = Slot::new(Tag::of(head.identity.hash(seed)), offset);
        let same = |slot| head_at(slot).is_some_and(|found| found.identity == head.identity);
        let old = self.index.put(slot, same);
        if let Some(old) = old.and_then(head_at) {
            self.count(&old, -1);
        }
        self.count(head, 1);
    }

    fn bury(&mut self, medium: &dyn Medium, seed: u64, offset: u64) {
        let Some(bytes) = medium.head(offset) else { return };
        let Some(old) = Head::decode(&bytes, offset, seed) else { return };
        let slot = Slot::dead(Tag::of(old.identity.hash(seed)));
        if self.index.replace(slot, |slot| slot.offset() == offset) {
            self.count(&old, -1);
        }
    }

    /// A large value counts from where it was filled, unless a newer one of its key does. `false` if it
    /// should, and is not whole. One that was superseded before may have stayed a pad.
    fn fill(&mut self, journal: &Journal<'_>, offset: u64, end: u64) -> Result<bool> {
        let (medium, seed) = (journal.ledger.medium, journal.facts.seed);
        let Some(value) = journal.reserved_below(end, offset)? else { return Ok(false) };
        let head_at = |offset| Head::decode(&medium.head(offset)?, offset, seed);
        let tag = Tag::of(value.identity.hash(seed));
        let newer = |at| head_at(at).filter(|found| found.identity == value.identity);
        let newer = index::find(&self.index, self.index.table(), tag, newer);
        if newer.is_some_and(|newer| newer.seq >= value.seq) {
            return Ok(true);
        }
        let is_revealed = head_at(offset).is_some_and(|head| head.kind == Kind::VALUE);
        let is_whole = is_revealed
            && Window::new(medium, end)
                .is_whole(offset, &value, seed)
                .map_err(Error::io("read", medium.path()))?;
        if is_whole {
            self.put(medium, seed, offset, &value);
        }
        Ok(is_whole)
    }

    fn count(&mut self, head: &Head, sign: i64) {
        if head.kind == Kind::VALUE {
            self.entries = self.entries.saturating_add_signed(sign);
            self.live = self.live.saturating_add_signed(sign * head.next(0) as i64);
        }
    }
}
