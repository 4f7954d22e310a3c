//! The live records of one file in another that nobody has seen yet, and that other in its place. What
//! compaction, recovery from damage, and clearing on a full disk are made of.

use super::create::random;
use super::expiry::View;
use super::region::Region;
use super::versions::{Census, Prefix};
use crate::engine::format::header::{Facts, HEADER_SIZE, state, word};
use crate::engine::format::record::{HEAD_SIZE, Head, Kind};
use crate::engine::format::slot::{Slot, Table, Tag};
use crate::engine::index::{self, HeapTable};
use crate::engine::log::journal::{Draft, Journal};
use crate::engine::log::walk::{Step, WINDOW_SIZE, Walk, Window};
use crate::engine::os::file::{CacheFile, Medium};
use crate::engine::os::place::Replacement;
use crate::engine::words::Ledger;
use crate::error::{Error, Result};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;

/// Bytes gathered before they are written.
const BATCH_SIZE: usize = 1 << 20;

/// The live records of one file in another that nobody has seen yet.
pub(crate) struct Bulk {
    pub(crate) facts: Facts,
    tail: u64,
    last: u64,
    entries: u64,
    live: u64,
    used: u64,
    /// Values that are not in it: expired, retired, or damaged.
    pub(crate) dropped: u64,
    /// The newest removal that is not on record any more: what began before it is not stored.
    pub(crate) barrier: u64,
    /// Whose records were copied.
    pub(crate) census: Census,
    /// The records of scopes that were not copied.
    pub(crate) omitted: HashMap<Prefix, u64>,
}

impl Bulk {
    fn new(facts: Facts) -> Bulk {
        Bulk {
            tail: facts.log_start,
            facts,
            last: 0,
            entries: 0,
            live: 0,
            used: 0,
            dropped: 0,
            barrier: 0,
            census: Census::default(),
            omitted: HashMap::new(),
        }
    }

    /// Whether a record is not copied, for what that means to others.
    fn leaves_out(&mut self, offset: u64, head: &Head, is_expired: bool, is_retired: bool) -> bool {
        let (prefix, _) = head.identity.bytes.split_first_chunk().expect("32 bytes");
        let is_value = head.kind == Kind::VALUE;
        if head.kind == Kind::SCOPE {
            if is_retired {
                self.omitted.insert(*prefix, offset);
            }
            return is_retired;
        }
        let is_over = !is_value || is_expired || is_retired;
        if is_over {
            self.barrier = self.barrier.max(head.seq);
            self.dropped += u64::from(is_value);
        }
        is_over
    }

    /// The words of the new file's header.
    pub(crate) fn words(&self, seq: u64, barrier: u64) -> [(u64, u64); 10] {
        [
            (word::TAIL, self.tail),
            (word::APPLIED, self.tail),
            (word::ALLOCATED, self.tail),
            (word::LAST, self.last),
            (word::SEQ, seq),
            (word::PUBLISHED, seq),
            (word::BARRIER, barrier),
            (word::ENTRIES, self.entries),
            (word::LIVE, self.live),
            (word::USED, self.used),
        ]
    }
}

/// Copies the values and scopes among `slots`, the [`newest`] of each key, that `view` judges alive, that are not
/// of `retired` scopes, and that verify, and the index of them. The header is left for the caller to write.
///
/// In memory are for each key its slots in both files, and its place in the index that is made: 30 bytes. Without
/// the slots, the order of the log would be had by a walk over all of it, dead records too, with a search for each.
pub(crate) fn copy(
    region: &Region,
    slots: &[Slot],
    out: &CacheFile,
    view: View,
    retired: &HashSet<Prefix>,
) -> Result<Bulk> {
    let mut buckets = index::buckets_for(slots.len() as u64);
    loop {
        // The index lies before the log, so where tags crowd as they hardly ever do, the copy is made again.
        match copy_behind(region, slots, out, view, retired, buckets)? {
            (bulk, needed) if needed == buckets => return Ok(bulk),
            (_, needed) => buckets = needed,
        }
    }
}

/// As [`copy`], behind an index of so many buckets. Returns how many it should have had, too.
fn copy_behind(
    region: &Region,
    slots: &[Slot],
    out: &CacheFile,
    view: View,
    retired: &HashSet<Prefix>,
    buckets: u64,
) -> Result<(Bulk, u64)> {
    let seed = region.facts.seed;
    let first_index = Table::new(HEADER_SIZE, buckets);
    let mut copied_slots = Vec::with_capacity(slots.len());
    let (file_id, generation) = (random(), region.facts.generation + 1);
    let log_start = first_index.end();
    let facts = Facts { file_id, generation, first_index, log_start, ..region.facts };
    let mut bulk = Bulk::new(facts);
    let size = region.file().size().map_err(Error::io("look at", region.file().path()))?;
    let mut window = Window::new(region.file(), size);
    let mut batch = Batch { out, start: log_start, bytes: Vec::with_capacity(BATCH_SIZE) };
    for slot in slots {
        let read = || Error::io("read", region.file().path());
        let Some(bytes) = window.get(slot.offset(), HEAD_SIZE).map_err(read())? else { continue };
        let bytes = bytes.try_into().expect("sized");
        let Some(head) = Head::decode(bytes, slot.offset(), seed) else { continue };
        let tag = Tag::of(head.identity.hash(seed));
        if slot.tag() != tag {
            continue; // No search for its key comes here.
        }
        let is_value = head.kind == Kind::VALUE;
        let (prefix, _) = head.identity.bytes.split_first_chunk().expect("32 bytes");
        if bulk.leaves_out(slot.offset(), &head, view.is_expired(bytes), retired.contains(prefix)) {
            continue;
        }
        if !window.is_whole(slot.offset(), &head, seed).map_err(read())? {
            bulk.dropped += u64::from(is_value);
            continue;
        }
        bulk.census.count(*prefix, head.seq, is_value);
        if head.kind == Kind::SCOPE {
            let len = head.len.min(WINDOW_SIZE); // Nobody writes a longer one.
            let payload = window.get(slot.offset() + HEAD_SIZE, len).map_err(read())?;
            bulk.census.describe(*prefix, payload.unwrap_or_default());
        }
        batch.begin(bulk.tail, &head.encode(bulk.tail, seed))?;
        batch.copy(&mut window, slot.offset() + HEAD_SIZE, head.len)?;
        copied_slots.push(Slot::new(tag, bulk.tail));
        bulk.last = bulk.tail;
        bulk.tail = head.next(bulk.tail);
        bulk.entries += u64::from(is_value);
        bulk.live += if is_value { head.next(0) } else { 0 };
    }
    batch.write().map_err(Error::io("write", out.path()))?;
    // By their tags, which is from front to back.
    copied_slots.sort_unstable_by_key(|slot| slot.0);
    let mut index = HeapTable::for_slots(copied_slots.len() as u64, buckets);
    for slot in copied_slots {
        index.put(slot, |_| false);
    }
    bulk.used = index.used();
    let write = || Error::io("write", out.path());
    if index.table() != first_index {
        return Ok((bulk, index.table().buckets()));
    }
    index
        .pieces()
        .try_for_each(|(at, piece)| out.write(first_index.offset() + at, &piece))
        .map_err(write())?;
    // With the header, which is written whole, all of it has been written, and has its disk space, but for
    // the last record's padding.
    out.resize(bulk.tail).map_err(write())?;
    Ok((bulk, buckets))
}

/// The slots of the newest record of every key, in the order of the log. In a sound index that is all of
/// them; one that damage left with two slots for a key must not bring the older one back.
pub(crate) fn newest(region: &Region, mut slots: Vec<Slot>) -> Vec<Slot> {
    let seed = region.facts.seed;
    slots.sort_unstable_by_key(|slot| slot.0);
    slots.dedup();
    let mut left_out = HashSet::new();
    for alike in slots.chunk_by(|a, b| a.tag() == b.tag()).filter(|alike| alike.len() > 1) {
        let mut of_keys: HashMap<_, (u64, Slot)> = HashMap::new();
        for slot in alike {
            // By copy: in a damaged file the tail may say nothing.
            let bytes = Medium::head(region.file(), slot.offset());
            let head = bytes.and_then(|b| Head::decode(&b, slot.offset(), seed));
            let older = match head {
                None => Some(*slot),
                Some(head) => match of_keys.entry(head.identity) {
                    Entry::Vacant(entry) => {
                        entry.insert((head.seq, *slot));
                        None
                    }
                    Entry::Occupied(entry) if head.seq < entry.get().0 => Some(*slot),
                    Entry::Occupied(mut entry) => Some(entry.insert((head.seq, *slot)).1),
                },
            };
            left_out.extend(older.map(|slot| slot.0));
        }
    }
    slots.retain(|slot| !left_out.contains(&slot.0));
    slots.sort_unstable_by_key(|slot| slot.offset());
    slots
}

/// Bytes on their way to a new file.
struct Batch<'a> {
    out: &'a CacheFile,
    start: u64,
    bytes: Vec<u8>,
}

impl Batch<'_> {
    /// Begins a record.
    fn begin(&mut self, at: u64, head: &[u8]) -> Result<()> {
        self.bytes.resize((at - self.start) as usize, 0);
        self.bytes.extend_from_slice(head);
        if self.bytes.len() < BATCH_SIZE {
            return Ok(());
        }
        self.write().map_err(Error::io("write", self.out.path()))
    }

    /// Goes on with its payload, which may be longer than memory.
    fn copy(&mut self, from: &mut Window<'_>, start: u64, len: u64) -> Result<()> {
        from.pieces(start, start + len, |_, piece| {
            self.bytes.extend_from_slice(piece);
            match self.bytes.len() < BATCH_SIZE {
                true => Ok(()),
                false => self.write().map_err(Error::io("write", self.out.path())),
            }
        })
    }

    fn write(&mut self) -> io::Result<()> {
        self.out.write(self.start, &self.bytes)?;
        self.start += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }
}

/// What became of a replay.
#[derive(PartialEq, Eq)]
pub(crate) enum Outcome {
    /// What was to be replayed is in the new file.
    Done,
    /// Going on would copy more than was allowed.
    Paused,
    /// The cache was cleared: what was copied is worth nothing.
    Cleared,
}

/// Replays the records of one file as operations on another. No sequence number becomes smaller, so
/// that a computation that began before a removal still does.
pub(crate) struct Replay<'a> {
    old: Journal<'a>,
    new: Journal<'a>,
    /// What lies below has been replayed.
    pub(crate) at: u64,
    /// The scopes of the values that were replayed.
    scopes: HashSet<Prefix>,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(old: Journal<'a>, new: Journal<'a>, at: u64) -> Replay<'a> {
        Replay { old, new, at, scopes: HashSet::new() }
    }

    /// Replays the records up to `end`, of which no more than so many bytes are copied. No payload is held in
    /// memory.
    pub(crate) fn run(&mut self, end: u64, bytes_max: u64) -> Result<Outcome> {
        let mut left = bytes_max;
        let file = self.old.ledger.medium;
        let read = || Error::io("read", file.path());
        let mut walk = Walk::new(file, self.old.facts.seed, self.at, end);
        while let Some(step) = walk.next().map_err(read())? {
            let Step::Record(offset, head) = step else { continue };
            let filled = match head.kind {
                Kind::FILLED => self.filled_in(offset, &head)?,
                _ => Vec::new(),
            };
            // Of a large value it is the record that fills it which costs, and not its space.
            let own = if head.kind == Kind::PAD { HEAD_SIZE } else { head.next(0) };
            let cost = filled.iter().fold(own, |cost, (_, value)| cost.saturating_add(value.len));
            self.at = offset;
            match left.checked_sub(cost) {
                Some(rest) => left = rest,
                None => return Ok(Outcome::Paused),
            }
            match head.kind {
                Kind::CLEAR => return Ok(Outcome::Cleared),
                kind if kind.is_keyed() => self.append(offset, head.seq, head, walk.bytes())?,
                Kind::FILLED => {
                    for (filled, value) in filled {
                        self.fill(filled, value, head.seq)?;
                    }
                }
                Kind::DEAD_LIST => self.bury(offset, &head)?,
                _ => {}
            }
        }
        self.at = end;
        Ok(Outcome::Done)
    }

    /// Copies the record at an offset from where `from` reads.
    fn append(&mut self, offset: u64, seq: u64, head: Head, from: &mut Window<'_>) -> Result<()> {
        self.new.raise_seq(seq - 1)?;
        let (prefix, _) = head.identity.bytes.split_first_chunk().expect("32 bytes");
        if head.kind == Kind::VALUE {
            self.scopes.insert(*prefix);
        }
        self.new.append_copy(&mut { head }, from, offset + HEAD_SIZE).map(drop)
    }

    /// The large values that a record says were filled.
    fn filled_in(&self, offset: u64, head: &Head) -> Result<Vec<(u64, Head)>> {
        let offsets = self.old.offsets_in(offset, head)?.into_iter();
        let values = offsets.filter_map(|offset| Some((offset, self.old.head_at(offset)?)));
        Ok(values.filter(|(_, head)| head.kind == Kind::VALUE).collect())
    }

    /// A large value that was filled in after its place was passed. One that was superseded before is none.
    fn fill(&mut self, offset: u64, head: Head, seq: u64) -> Result<()> {
        let old = &self.old;
        if head.seq <= old.ledger.get(word::CLEARED)? {
            return Ok(()); // The cache was cleared while it was being filled, before the copying began.
        }
        let mut window = Window::new(old.ledger.medium, head.next(offset));
        self.append(offset, seq, head, &mut window)
    }

    /// Carries over the records of scopes that were omitted, and have been stored to since.
    pub(crate) fn announce(&self, omitted: &HashMap<Prefix, u64>) -> Result<()> {
        let file = self.old.ledger.medium;
        for (_, offset) in omitted.iter().filter(|(prefix, _)| self.scopes.contains(*prefix)) {
            let Some(head) = self.old.head_at(*offset) else { continue };
            // Unless the log has had another one since.
            if self.new.locate(&head.identity).is_none() {
                let mut window = Window::new(file, head.next(*offset));
                self.new.append_copy(&mut { head }, &mut window, offset + HEAD_SIZE)?;
            }
        }
        Ok(())
    }

    /// A dead list, with the offsets that its records have now. Each was the newest of its key then, and as far as
    /// has been replayed it is so in the new file, if it is there: the same but for its number.
    fn bury(&mut self, offset: u64, head: &Head) -> Result<()> {
        let mut payload = Vec::new();
        for dead in self.old.offsets_in(offset, head)? {
            let Some(dead) = self.old.head_at(dead) else { continue };
            let Some((place, newest)) = self.new.locate(&dead.identity) else { continue };
            if newest == (Head { seq: newest.seq, ..dead }) {
                payload.extend(place.to_le_bytes());
            }
        }
        let draft = Draft::new(Kind::DEAD_LIST, head.identity, &payload, self.new.facts.seed);
        self.new.raise_seq(head.seq - 1)?;
        self.new.append(&mut [draft]).map(drop)
    }
}

/// Lets the new file take the place of a locked one. Who finds the state MOVING looks which file is
/// at the path; that also decides if this process dies in between.
pub(crate) fn take_place(old: &Region, new: &Replacement) -> Result<()> {
    if !old.is_at_path() {
        return Err(Error::Unstable { path: old.file().path().to_path_buf() });
    }
    hand_over(old.journal().ledger, || new.publish(old.file().path(), old.file()))
}

/// Ends the life of a locked file by what `change` does to its name.
pub(crate) fn hand_over(ledger: Ledger<'_>, change: impl FnOnce() -> Result<()>) -> Result<()> {
    ledger.store(word::STATE, state::MOVING)?;
    complete_move(ledger, change)
}

/// The rest of it, once the state is MOVING.
pub(crate) fn complete_move(ledger: Ledger<'_>, change: impl FnOnce() -> Result<()>) -> Result<()> {
    if let Err(error) = change() {
        // MOVING says the same, as long as the file is at its path.
        let _ = ledger.store(word::STATE, state::LIVE);
        return Err(error);
    }
    // And when it is not any more: a disk too full for this word undoes nothing.
    let _ = ledger.store(word::STATE, state::MOVED);
    Ok(())
}
