//! The live records of one file in another that nobody has seen yet. Compaction and recovery from damage stand on
//! it.
//!
//! Records are copied in the order of the log, so that the old file is read from front to back, and keep their
//! sequence numbers. The index of the new file lies before its log, and is written when all records are: its size
//! is chosen before, by the number of slots, and the copy is made again in the rare case that it does not suffice.
//!
//! In memory are for each key its slots in both files, and its place in the index that is made: 30 bytes.

use super::create::random;
use super::expiry::ExpiryRule;
use super::open_file::OpenFile;
use super::versions::{Census, Prefix};
use crate::engine::format::header::{Superblock, word};
use crate::engine::format::record::{HEAD_SIZE, Head, Kind};
use crate::engine::format::slot::{Slot, Table, Tag};
use crate::engine::format::{FILE_LIMIT, HEADER_SIZE};
use crate::engine::index::{self, HeapTable};
use crate::engine::log::op::supersedes;
use crate::engine::log::records::Records;
use crate::engine::log::walk::{WINDOW_SIZE, Window};
use crate::engine::os::file::{CacheFile, Storage};
use crate::error::{Error, Result};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;

/// Bytes gathered before they are written.
const BATCH_SIZE: usize = 1 << 20;

/// The live records of one file in another that nobody has seen yet.
pub(crate) struct Bulk {
    pub(crate) superblock: Superblock,
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
    fn new(superblock: Superblock) -> Bulk {
        Bulk {
            tail: superblock.log_start,
            superblock,
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

    /// Notes a record that was copied to the tail.
    fn add(&mut self, head: &Head) {
        self.last = self.tail;
        self.tail = head.next(self.tail);
        if head.kind == Kind::VALUE {
            self.entries += 1;
            self.live += head.next(0);
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

/// Copies the values and scopes among `slots`, the [`newest`] of each key, that `expiry` judges alive, that are not
/// of `retired` scopes, and that verify, and the index of them. The header is left for the caller to write.
///
/// In memory are for each key its slots in both files, and its place in the index that is made: 30 bytes. Without
/// the slots, the order of the log would be had by a walk over all of it, dead records too, with a search for each.
pub(crate) fn copy(
    open_file: &OpenFile,
    slots: &[Slot],
    out: &CacheFile,
    expiry: ExpiryRule,
    retired: &HashSet<Prefix>,
) -> Result<Bulk> {
    let mut buckets = index::buckets_for(slots.len() as u64);
    loop {
        // The index lies before the log, so where tags crowd as they hardly ever do, the copy is made again.
        match copy_behind(open_file, slots, out, expiry, retired, buckets)? {
            (bulk, needed) if needed == buckets => return Ok(bulk),
            (_, needed) => buckets = needed,
        }
    }
}

/// As [`copy`], behind an index of so many buckets. Returns how many it should have had, too.
fn copy_behind(
    open_file: &OpenFile,
    slots: &[Slot],
    out: &CacheFile,
    expiry: ExpiryRule,
    retired: &HashSet<Prefix>,
    buckets: u64,
) -> Result<(Bulk, u64)> {
    let first_index = Table::new(HEADER_SIZE, buckets);
    let (file_id, generation) = (random(), open_file.superblock.generation + 1);
    let log_start = first_index.end();
    let superblock =
        Superblock { file_id, generation, first_index, log_start, ..open_file.superblock };
    let file = open_file.file();
    let size = file.size().map_err(Error::io("look at", file.path()))?;
    let mut copying = Copying {
        file,
        from: Window::new(file, size),
        to: Batch { out, start: log_start, bytes: Vec::with_capacity(BATCH_SIZE) },
        expiry,
        retired,
        slots: Vec::with_capacity(slots.len()),
        bulk: Bulk::new(superblock),
    };
    slots.iter().try_for_each(|slot| copying.copy(*slot))?;
    copying.finish(buckets)
}

/// A copy on its way.
struct Copying<'a> {
    file: &'a CacheFile,
    from: Window<'a>,
    to: Batch<'a>,
    expiry: ExpiryRule,
    retired: &'a HashSet<Prefix>,
    /// The slots of what has been copied.
    slots: Vec<Slot>,
    bulk: Bulk,
}

impl Copying<'_> {
    /// Copies the record that a slot leads to, if it is to be copied.
    fn copy(&mut self, slot: Slot) -> Result<()> {
        let (file, seed, at) = (self.file, self.bulk.superblock.seed, slot.offset());
        let read = || Error::io("read", file.path());
        let Some(bytes) = self.from.get(at, HEAD_SIZE).map_err(read())? else { return Ok(()) };
        let bytes = bytes.try_into().expect("sized");
        let Some(head) = Head::decode(bytes, at, seed) else { return Ok(()) };
        if slot.tag() != Tag::of(head.identity.hash(seed)) {
            return Ok(()); // No search for its key comes here.
        }
        let (prefix, _) = head.identity.bytes.split_first_chunk().expect("32 bytes");
        let (is_expired, is_retired) =
            (self.expiry.is_expired(bytes), self.retired.contains(prefix));
        if self.bulk.leaves_out(at, &head, is_expired, is_retired) {
            return Ok(());
        }
        if !self.from.is_whole(at, &head, seed).map_err(read())? {
            self.bulk.dropped += u64::from(head.kind == Kind::VALUE);
            return Ok(());
        }
        self.bulk.census.count(*prefix, head.seq, head.kind == Kind::VALUE);
        if head.kind == Kind::SCOPE {
            let len = head.len.min(WINDOW_SIZE); // Nobody writes a longer one.
            let payload = self.from.get(at + HEAD_SIZE, len).map_err(read())?;
            self.bulk.census.describe(*prefix, payload.unwrap_or_default());
        }
        self.to.begin(self.bulk.tail, &head.encode(self.bulk.tail, seed))?;
        self.to.copy(&mut self.from, at + HEAD_SIZE, head.len)?;
        self.slots.push(Slot::new(slot.tag(), self.bulk.tail));
        self.bulk.add(&head);
        Ok(())
    }

    /// Writes what is gathered, and the index.
    fn finish(mut self, buckets: u64) -> Result<(Bulk, u64)> {
        let (out, mut slots, mut bulk) = (self.to.out, self.slots, self.bulk);
        let write = || Error::io("write", out.path());
        self.to.write().map_err(write())?;
        // By their tags, which is from front to back.
        slots.sort_unstable_by_key(|slot| slot.0);
        let mut index = HeapTable::for_slots(slots.len() as u64, buckets);
        for slot in slots {
            index.put(slot, |_| false);
        }
        bulk.used = index.used();
        let first_index = bulk.superblock.first_index;
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
}

/// The slots of the newest record of every key, in the order of the log. In a sound index that is all of
/// them; one that damage left with two slots for a key must not bring the older one back.
///
/// It reads a head for each slot that shares its tag with another one, and for no other.
pub(crate) fn newest(open_file: &OpenFile, mut slots: Vec<Slot>) -> Vec<Slot> {
    // By copy: in a damaged file the tail may say nothing.
    let records =
        Records { storage: open_file.file(), seed: open_file.superblock.seed, end: FILE_LIMIT };
    slots.sort_unstable_by_key(|slot| slot.0);
    slots.dedup();
    let mut left_out = HashSet::new();
    for alike in slots.chunk_by(|a, b| a.tag() == b.tag()).filter(|alike| alike.len() > 1) {
        let mut of_keys: HashMap<_, (u64, Slot)> = HashMap::new();
        for slot in alike {
            let older = match records.head(slot.offset()) {
                None => Some(*slot),
                Some(head) => match of_keys.entry(head.identity) {
                    Entry::Vacant(entry) => {
                        entry.insert((head.seq, *slot));
                        None
                    }
                    Entry::Occupied(entry) if supersedes(entry.get().0, head.seq) => Some(*slot),
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
