//! The live records of one file in another that nobody has seen yet, and that other in its place. What
//! compaction, recovery from damage, and clearing on a full disk are made of.

use super::create::random;
use super::expiry::View;
use super::journal::{Draft, Journal};
use super::region::Region;
use crate::error::{Error, Result};
use crate::format::header::{Facts, HEADER_SIZE, state, word};
use crate::format::record::{HEAD_SIZE, Head, Kind};
use crate::format::slot::{Slot, Table};
use crate::index::{self, HeapTable};
use crate::scan::{Step, Walk, Window};
use crate::sys::file::CacheFile;
use crate::sys::place::Replacement;

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
    /// Values that are not in it: expired, or damaged.
    pub(crate) dropped: u64,
    /// The newest removal that is not on record any more: what began before it is not stored.
    pub(crate) barrier: u64,
}

impl Bulk {
    /// The words of the new file's header.
    pub(crate) fn words(&self, seq: u64, barrier: u64) -> [(u64, u64); 9] {
        [
            (word::TAIL, self.tail),
            (word::APPLIED, self.tail),
            (word::ALLOCATED, self.tail),
            (word::LAST, self.last),
            (word::SEQ, seq),
            (word::BARRIER, barrier),
            (word::ENTRIES, self.entries),
            (word::LIVE, self.live),
            (word::USED, self.used),
        ]
    }
}

/// Copies the values and scopes among `slots` that `view` judges alive and that verify, and the
/// index of them. The header is left for the caller to write.
pub(crate) fn copy(region: &Region, slots: Vec<Slot>, out: &CacheFile, view: View) -> Result<Bulk> {
    let seed = region.facts.seed;
    let mut slots = slots;
    slots.sort_unstable_by_key(|slot| slot.offset());
    let mut index = HeapTable::new(index::buckets_for(slots.len() as u64));
    let first_index = Table::new(HEADER_SIZE, index.table().buckets());
    let (file_id, generation) = (random(), region.facts.generation + 1);
    let log_start = first_index.end();
    let facts = Facts { file_id, generation, first_index, log_start, ..region.facts };
    let mut bulk = Bulk {
        facts,
        tail: log_start,
        last: 0,
        entries: 0,
        live: 0,
        used: 0,
        dropped: 0,
        barrier: 0,
    };
    let size = region.file().size().map_err(Error::io("look at", region.file().path()))?;
    let mut window = Window::new(region.file(), size);
    let mut batch = Batch { out, start: log_start, bytes: Vec::with_capacity(BATCH_SIZE) };
    for slot in slots {
        let read = || Error::io("read", region.file().path());
        let Some(bytes) = window.get(slot.offset(), HEAD_SIZE).map_err(read())? else { continue };
        let bytes = bytes.try_into().expect("sized");
        let Some(head) = Head::decode(bytes, slot.offset(), seed) else { continue };
        if head.kind == Kind::TOMBSTONE {
            bulk.barrier = bulk.barrier.max(head.seq);
        }
        let is_value = head.kind == Kind::VALUE;
        if !is_value && head.kind != Kind::SCOPE || view.is_expired(bytes) {
            bulk.dropped += u64::from(is_value);
            continue;
        }
        let payload = window.get(slot.offset() + HEAD_SIZE, head.len).map_err(read())?;
        let is_whole = |payload: &&[u8]| head.check_of(payload, seed) == head.payload_check;
        let Some(payload) = payload.filter(is_whole) else {
            bulk.dropped += u64::from(is_value);
            continue;
        };
        batch.push(bulk.tail, &head.encode(bulk.tail, seed), payload)?;
        index.put(Slot::new(slot.tag(), bulk.tail), |_| false);
        bulk.last = bulk.tail;
        bulk.tail = head.next(bulk.tail);
        bulk.entries += u64::from(is_value);
        bulk.live += if is_value { head.next(0) } else { 0 };
    }
    batch.write()?;
    bulk.used = index.used();
    let write = || Error::io("write", out.path());
    assert_eq!(index.table(), first_index, "a table made for as many slots does not grow");
    out.write(HEADER_SIZE, &index.bytes()).map_err(write())?;
    out.allocate(0, bulk.tail).map_err(write())?;
    Ok(bulk)
}

/// Bytes on their way to a new file.
struct Batch<'a> {
    out: &'a CacheFile,
    start: u64,
    bytes: Vec<u8>,
}

impl Batch<'_> {
    fn push(&mut self, at: u64, head: &[u8], payload: &[u8]) -> Result<()> {
        if self.bytes.len() + payload.len() > BATCH_SIZE {
            self.write()?;
        }
        self.bytes.resize((at - self.start) as usize, 0);
        self.bytes.extend_from_slice(head);
        if payload.len() < BATCH_SIZE {
            self.bytes.extend_from_slice(payload);
            return Ok(());
        }
        self.write()?;
        self.put(payload)
    }

    fn write(&mut self) -> Result<()> {
        let bytes = std::mem::take(&mut self.bytes);
        self.put(&bytes)?;
        self.bytes = bytes;
        self.bytes.clear();
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let failed = Error::io("write", self.out.path());
        self.out.write(self.start, bytes).map_err(failed)?;
        self.start += bytes.len() as u64;
        Ok(())
    }
}

/// What became of a replay.
#[derive(PartialEq, Eq)]
pub(crate) enum Replay {
    /// All of it is in the new file.
    Done,
    /// The cache was cleared: what was copied is worth nothing.
    Cleared,
}

/// Replays the records of `old` in a range as operations on `new`, which orders them anew: no number
/// becomes smaller, so a computation that began before a removal still does.
pub(crate) fn replay(old: &Journal<'_>, new: &Journal<'_>, from: u64, to: u64) -> Result<Replay> {
    let file = old.ledger.medium.file();
    let read = || Error::io("read", file.path());
    let mut walk = Walk::new(file, old.facts.seed, from, to);
    while let Some(step) = walk.next().map_err(read())? {
        let Step::Record(offset, head) = step else { continue };
        match head.kind {
            Kind::CLEAR => return Ok(Replay::Cleared),
            kind if kind.is_keyed() => {
                let payload = walk.payload(offset, &head).map_err(read())?;
                new.append(&mut [Draft { head, payload }])?;
            }
            Kind::FILLED => {
                for filled in old.offsets_in(offset, &head)? {
                    replay_filled(old, new, filled)?;
                }
            }
            Kind::DEAD_LIST => {
                let dead = old.offsets_in(offset, &head)?;
                let dead = dead.iter().filter_map(|dead| {
                    let dead = old.head_at(*dead)?;
                    let (place, found) = new.locate(&dead.identity)?;
                    (found.seq == dead.seq).then_some(place.to_le_bytes())
                });
                let payload = dead.collect::<Vec<_>>().concat();
                let seed = new.facts.seed;
                new.append(&mut [Draft::new(Kind::DEAD_LIST, head.identity, &payload, seed)])?;
            }
            _ => {}
        }
    }
    Ok(Replay::Done)
}

/// Replays a large value that was filled in after its place was passed.
fn replay_filled(old: &Journal<'_>, new: &Journal<'_>, offset: u64) -> Result<()> {
    let Some(head) = old.head_at(offset).filter(|head| head.kind == Kind::VALUE) else {
        return Ok(());
    };
    if old.locate(&head.identity).map(|(place, _)| place) != Some(offset) {
        return Ok(()); // Superseded meanwhile; its successor is replayed as well.
    }
    let mut window = Window::new(old.ledger.medium.file(), old.tail()?);
    let payload = window.get(offset + HEAD_SIZE, head.len);
    let payload = payload.map_err(Error::io("read", old.ledger.medium.file().path()))?;
    new.append(&mut [Draft { head, payload: payload.unwrap_or_default() }]).map(drop)
}

/// Lets the new file take the place of a locked one. Who finds the state MOVING looks which file is
/// at the path; that also decides if this process dies in between.
pub(crate) fn take_place(old: &Region, new: &Replacement) -> Result<()> {
    let ledger = old.journal().ledger;
    ledger.store(word::STATE, state::MOVING)?;
    if let Err(error) = new.publish(old.file().path()) {
        ledger.store(word::STATE, state::LIVE)?;
        return Err(error);
    }
    ledger.store(word::STATE, state::MOVED)
}
