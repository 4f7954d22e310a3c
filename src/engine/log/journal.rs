//! What the holder of the write lock does to a file: append records, then bring the index up to them. Stands on the
//! header's words, the index and a [`Storage`].
//!
//! The order of the stores is the whole recovery from killed processes:
//!
//! ```text
//!   1  SEQ = n          numbers are taken       killed behind 1..2: SEQ > PUBLISHED; the next holder
//!   2  bytes            behind the tail           wipes what lies behind the tail
//!   3  TAIL             the records are published
//!   4  LAST, PUBLISHED  follow                  killed behind 3..5: APPLIED < TAIL; the next holder
//!   5  slots, counts    of the index              applies the records in between once more
//!   6  APPLIED = TAIL   the hold ends
//! ```
//!
//! Killed before the tail moved, the bytes are wiped, so that no power cut brings them back from under what lies
//! there next. Killed later, the records are applied by the next holder, and applying any of them twice changes
//! nothing. The tail never decreases. `docs/architecture.md` shows the same for one put, store by store.
//!
//! Who appends what:
//!
//! | | records | published by | the index follows |
//! | --- | --- | --- | --- |
//! | [`append`](Journal::append) | small ones, any number | one store of TAIL | at once |
//! | [`write`](Journal::write) | the same | the same | by [`apply_all`](Journal::apply_all) |
//! | [`reserve`](Journal::reserve) | a pad without its payload | TAIL | by a later COMMIT |
//! | [`append_table`](Journal::append_table) | an empty table, and a pad before it | TAIL | by who asked for it |
//! | [`adopt_table`](Journal::adopt_table) | a table that is full | TAIL | it is the index |
//! | [`append_copy`](Journal::append_copy) | one of another file | TAIL | at once |
//! | [`checkpoint`](Journal::checkpoint) | a checkpoint | TAIL | nothing to follow |
//!
//! Each takes space first, then a number, then writes, then publishes. A failure before the tail moves leaves what a
//! death there leaves, and the next number that is taken, even in the same hold, wipes it
//! (`no_record_covers_unpublished_bytes_of_the_same_hold`).
//!
//! A write-ahead log before the data would be the usual way. Here the log is the data: there is nothing to write
//! ahead of.

use super::op::table_in;
use super::records::Records;
use super::walk::Window;
use crate::engine::format::checkpoint::{Checkpoint, hash_piece};
use crate::engine::format::header::{FIRST_BUCKETS, Superblock, word};
use crate::engine::format::record::{HEAD_SIZE, Head, Identity, Kind};
use crate::engine::format::slot::{BUCKET_SIZE, Table};
use crate::engine::format::units::Stamp;
use crate::engine::format::{FILE_LIMIT, WORD_MASK, align, record};
use crate::engine::index::{HeapTable, grow};
use crate::engine::os::clock;
use crate::engine::os::file::Storage;
use crate::engine::words::HeaderWords;
use crate::error::{Error, Result};

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
    /// A record of `kind` for `identity`, created now. Its payload's check is made here, in one pass over the payload:
    /// before the lock, where that is possible.
    pub(crate) fn new(kind: Kind, identity: Identity, payload: &'a [u8], seed: u64) -> Draft<'a> {
        let mut head = Head::new(kind, identity, payload.len() as u64);
        head.created = Stamp::new(clock::now());
        head.payload_check = record::payload_check(kind, payload, seed);
        Draft { head, payload }
    }
}

/// A file whose lock the caller holds, as a rule. Without it, only what reads may be called: the words, a look at a key
/// ([`locate`](Journal::locate)), a hash of a table; and [`sync`](Journal::sync), which writes no word but FAILED.
///
/// It holds two references and is made wherever it is needed: nothing is kept in it from one hold to the next.
pub(crate) struct Journal<'a> {
    pub(crate) header: HeaderWords<'a>,
    pub(crate) superblock: &'a Superblock,
}

impl<'a> Journal<'a> {
    pub(crate) fn new(storage: &'a dyn Storage, superblock: &'a Superblock) -> Journal<'a> {
        Journal { header: HeaderWords { storage }, superblock }
    }

    pub(crate) fn storage(&self) -> &'a dyn Storage {
        self.header.storage
    }

    /// The records that are published now. Without the lock there may be more of them in the next moment; none goes.
    pub(crate) fn records(&self) -> Result<Records<'a>> {
        Ok(self.records_below(self.tail()?))
    }

    /// The records of a log that ends at `end`.
    pub(crate) fn records_below(&self, end: u64) -> Records<'a> {
        Records { storage: self.storage(), seed: self.superblock.seed, end }
    }

    pub(crate) fn tail(&self) -> Result<u64> {
        self.header.get(word::TAIL)
    }

    pub(crate) fn seq(&self) -> Result<u64> {
        self.header.get(word::SEQ)
    }

    /// Takes sequence numbers, and returns the first. Whatever is written behind the tail begins here, and with
    /// what an attempt before left there erased, in this hold of the lock too: once something is published,
    /// nobody sees that there was any.
    fn take_seq(&self, count: u64) -> Result<u64> {
        let seq = self.seq()?;
        if self.has_unpublished(seq)? {
            self.wipe_unpublished()?;
        }
        if seq + count > WORD_MASK {
            return Err(self.header.damaged("its sequence numbers are used up"));
        }
        self.header.set(word::SEQ, seq + count)?;
        Ok(seq + 1)
    }

    /// Brings the file to the device. Where that has failed once, for whomever, it fails for good: the system
    /// forgets what it could not write.
    ///
    /// A process that opens the file after a failed sync is told nothing by the system, so FAILED tells it. The word
    /// itself may not reach the device; after a reboot that does no harm, for then all that was not synced is looked
    /// through. Needs no lock. It takes as long as the device does, up to seconds.
    pub(crate) fn sync(&self) -> Result<()> {
        if self.header.get(word::FAILED)? != 0 {
            return Err(Error::Unsynced { path: self.storage().path().to_path_buf() });
        }
        let Err(source) = self.storage().sync() else { return Ok(()) };
        self.header.set(word::FAILED, 1)?;
        Err(self.io("sync")(source))
    }

    pub(crate) fn io(&self, action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        Error::io(action, self.storage().path())
    }

    /// Appends records, all published at once, and brings the index up to them. Returns their
    /// offsets.
    ///
    /// All or nothing: killed before the tail moves, none of them was appended; killed later, all are. Fails without
    /// harm if there is no disk space. An error of the index leaves the records published, and the next holder of the
    /// lock applies them.
    pub(crate) fn append(&self, drafts: &mut [Draft<'_>]) -> Result<Vec<u64>> {
        let offsets = self.write(drafts)?;
        self.apply_all(drafts, &offsets)?;
        Ok(offsets)
    }

    /// Gives out no number up to `seq` any more.
    ///
    /// For who has met higher numbers than the header says: recovery, and a replay, whose records keep the order of
    /// those in the old file. Nothing unpublished may lie behind the tail: PUBLISHED is raised as well, and nobody
    /// would look for it any more.
    pub(crate) fn raise_seq(&self, seq: u64) -> Result<()> {
        let seq = self.seq()?.max(seq);
        self.header.ensure(word::SEQ, seq)?;
        self.header.ensure(word::PUBLISHED, seq)
    }

    /// Copies records behind the tail, in their order, and publishes them.
    ///
    /// The index is left as it is, which [`apply_all`](Journal::apply_all) brings up to them. In between, readers
    /// find what they found before. The drafts get their numbers, one after the other; an error leaves them with
    /// numbers that are used up.
    pub(crate) fn write(&self, drafts: &mut [Draft<'_>]) -> Result<Vec<u64>> {
        let tail = self.tail()?;
        // Before anything is written: a full disk leaves nothing to be erased.
        self.make_room(drafts.iter().fold(tail, |at, draft| draft.head.next(at)))?;
        let seq = self.take_seq(drafts.len() as u64)?;
        for (draft, seq) in drafts.iter_mut().zip(seq..) {
            draft.head.seq = seq;
        }
        let mut offsets = Vec::with_capacity(drafts.len());
        let mut at = tail;
        for draft in drafts {
            let head = draft.head.encode(at, self.superblock.seed);
            self.storage().write(at, &head).map_err(self.io("write"))?;
            self.storage().write(at + HEAD_SIZE, draft.payload).map_err(self.io("write"))?;
            offsets.push(at);
            at = draft.head.next(at);
        }
        self.publish(at, offsets.last().copied().unwrap_or(tail))?;
        Ok(offsets)
    }

    /// Appends a record whose payload begins at `payload` in another file, and brings the index up to it. It is
    /// copied piece by piece: it may be longer than memory.
    ///
    /// Memory is the window's, whatever the record's length. For compaction, into a file that has no readers yet. The
    /// head keeps its payload's check, since the seed is the old file's: a payload that was damaged on the way there
    /// fails it here as well.
    pub(crate) fn append_copy(
        &self,
        head: &mut Head,
        from: &mut Window<'_>,
        payload: u64,
    ) -> Result<u64> {
        let at = self.tail()?;
        let end = head.next(at);
        self.make_room(end)?;
        head.seq = self.take_seq(1)?;
        let storage = self.storage();
        storage.write(at, &head.encode(at, self.superblock.seed)).map_err(self.io("write"))?;
        from.pieces(payload, payload + head.len, |place, piece| {
            let to = at + HEAD_SIZE + (place - payload);
            storage.write(to, piece).map_err(self.io("write"))
        })?;
        self.publish(end, at)?;
        self.apply(at, head)?;
        self.step_growth();
        self.mark_applied()?;
        Ok(at)
    }

    /// Moves the tail: from here on the records below it are part of the cache, whatever happens.
    ///
    /// TAIL before LAST: a record that is the last one is below the tail for whoever reads both. PUBLISHED at the
    /// end: until then the next holder wipes what lies behind the tail, of which there is nothing any more.
    fn publish(&self, tail: u64, last: u64) -> Result<()> {
        // Release, in `store`; pairs with the acquire of whoever loads the tail or a slot.
        self.header.set(word::TAIL, tail)?;
        self.header.set(word::LAST, last)?;
        self.header.set(word::PUBLISHED, self.seq()?)
    }

    /// Reserves a record of `head` without its payload, as a pad that a walk steps over.
    ///
    /// The pad has the head that the value will have, but for the kind: key, number, length, and the payload's check.
    /// So the value becomes one by a store of eight bytes. A writer that dies before that leaves space, which the
    /// next compaction drops.
    ///
    /// The caller gives the lock back, copies the payload to the place behind the returned offset, and takes the lock
    /// again to commit. Meanwhile others append behind the pad. Nobody else writes there, and nobody reads it.
    pub(crate) fn reserve(&self, head: &mut Head) -> Result<u64> {
        let at = self.tail()?;
        let end = head.next(at);
        self.make_room(end)?;
        head.seq = self.take_seq(1)?;
        let pad = Head { kind: Kind::PAD, ..*head };
        self.storage()
            .write(at, &pad.encode(at, self.superblock.seed))
            .map_err(self.io("write"))?;
        self.publish(end, at)?;
        self.mark_applied()?;
        Ok(at)
    }

    /// Disk space up to `end`.
    ///
    /// Space is taken ahead, a sixteenth of the file and no more than 2 MiB, so that most appends make no system call
    /// for it. Where that much is not to be had, exactly what is needed is tried.
    pub(crate) fn make_room(&self, end: u64) -> Result<()> {
        if end > FILE_LIMIT {
            return Err(Error::TooLarge { what: "the file", size: end, limit: FILE_LIMIT });
        }
        let allocated = self.header.get(word::ALLOCATED)?;
        if end <= allocated {
            return Ok(());
        }
        // From here on it is a system call or two. ALLOCATED is raised last: killed before, the space is there and
        // nobody knows; the next one who needs it takes it once more, which changes nothing.
        let step = (end / 16).clamp(STEP_MIN, STEP_MAX);
        let exact = end.next_multiple_of(PAGE);
        let ample = exact.max(allocated + step).next_multiple_of(PAGE).min(FILE_LIMIT);
        let file = self.storage();
        let target = match file.allocate(allocated, ample) {
            Ok(()) => ample,
            Err(_) if exact < ample => {
                file.allocate(allocated, exact).map_err(self.io("grow"))?;
                exact
            }
            Err(error) => return Err(self.io("grow")(error)),
        };
        self.header.set(word::ALLOCATED, target)
    }

    /// Appends a record that makes all before it dead and holds the index from here on.
    ///
    /// However many entries there are: the record holds an empty table, and one store makes that the index. Killed
    /// before that store, the next holder makes it: `a_clear_killed_halfway_takes_effect_at_the_next_lock`.
    pub(crate) fn clear(&self) -> Result<()> {
        let (offset, head) = self.append_table(Kind::CLEAR, FIRST_BUCKETS)?;
        self.apply(offset, &head)?;
        self.mark_applied()
    }

    /// Appends a record with an empty table. Of a table to grow into only both ends get their disk
    /// space now.
    ///
    /// The table begins at a multiple of a bucket, so that no bucket lies on two cache lines: a pad before the record
    /// sees to that:
    ///
    /// ```text
    ///   tail 8240      8304         8320          8384
    ///   | pad's head   | 16 bytes   | table's head | table ...        8240 + 64 + 16 = 8320, a multiple of 64
    /// ```
    ///
    /// Two numbers are taken, also where there is no pad. What the table's place held is zeroed, for a killed writer's
    /// bytes may be there; what lies behind the file's end reads as zeros.
    ///
    /// ALLOCATED is raised over the whole table just before the tail is. For that moment it covers the table's midst,
    /// which has no disk space yet; once the tail has moved, that lies below it, where [`grow`] sees to it. A death in
    /// between leaves ALLOCATED as it is.
    pub(crate) fn append_table(&self, kind: Kind, buckets: u64) -> Result<(u64, Head)> {
        let tail = self.tail()?;
        let gap = tail.next_multiple_of(BUCKET_SIZE) - tail;
        let at = if gap == 0 { tail } else { tail + HEAD_SIZE + gap };
        let mut head = Draft::new(kind, Identity::NONE, &[], self.superblock.seed).head;
        head.len = buckets * BUCKET_SIZE;
        let table = table_in(at, &head);
        if table.end() > FILE_LIMIT {
            return Err(Error::TooLarge {
                what: "the index",
                size: table.end(),
                limit: FILE_LIMIT,
            });
        }
        self.make_room(table.offset())?;
        let (file, allocated) = (self.storage(), self.header.get(word::ALLOCATED)?);
        let size = file.size().map_err(self.io("look at"))?;
        grow::reserve(self.header, table)?;
        file.zero(table.offset(), table.end().min(size)).map_err(self.io("clear"))?;

        // The space is there. From here on a failure leaves two numbers that are used up, and bytes to be wiped.
        let seq = self.take_seq(2)?;
        if gap > 0 {
            let mut pad = Draft::new(Kind::PAD, Identity::NONE, &[], self.superblock.seed).head;
            (pad.len, pad.seq) = (gap, seq);
            let bytes = pad.encode(tail, self.superblock.seed);
            self.storage().write(tail, &bytes).map_err(self.io("write"))?;
        }
        head.seq = seq + 1;
        self.storage()
            .write(at, &head.encode(at, self.superblock.seed))
            .map_err(self.io("write"))?;
        self.header.set(word::ALLOCATED, allocated.max(table.end()))?;
        self.publish(head.next(at), at)?;
        Ok((at, head))
    }

    /// Appends a table that is whole already, as recovery makes it, and makes it the index.
    ///
    /// The table is written before a word names it: a death in between leaves a table in the log that nothing leads to.
    /// Growth that was under way is given up: it was growth of another table. The space of the index that was left
    /// comes back with the next compaction.
    pub(crate) fn adopt_table(&self, made: &HeapTable) -> Result<()> {
        // All of its space first: on a full disk nothing is appended, however often that is tried.
        let (start, size) = (self.tail()?, made.table().size() + 3 * HEAD_SIZE);
        self.storage().allocate(start, start + size).map_err(self.io("grow"))?;
        let (offset, head) = self.append_table(Kind::INDEX, made.table().buckets())?;
        let (table, file) = (table_in(offset, &head), self.storage());
        let write = |(at, piece): (u64, Vec<u8>)| file.overwrite(table.offset() + at, &piece);
        made.pieces().try_for_each(write).map_err(self.io("write"))?;
        self.header.store(word::PENDING, Table::NONE.0)?;
        self.header.store(word::RETIRED, Table::NONE.0)?;
        self.header.set(word::CURSOR, 0)?;
        self.header.set(word::GROWN, 0)?;
        self.header.store(word::INDEX, table.0)?;
        self.mark_applied()
    }

    /// Appends a checkpoint of all that is published.
    ///
    /// It costs a walk over the index, to hash it: sync and compaction pay that, and no put. Without a sync behind
    /// it, it is worth nothing: the caller's to do.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        let index = self.header.table(word::INDEX);
        let checkpoint = Checkpoint {
            tail: self.tail()?,
            index,
            index_hash: self.hash_table(index)?,
            barrier: self.header.get(word::BARRIER)?,
            cleared: self.header.get(word::CLEARED)?,
            entries: self.header.get(word::ENTRIES)?,
            live: self.header.get(word::LIVE)?,
            used: self.header.get(word::USED)?,
        };
        let bytes = checkpoint.encode();
        let draft = Draft::new(Kind::CHECKPOINT, Identity::NONE, &bytes, self.superblock.seed);
        // Not through `append`, which steps the growth of the index and would make its hash wrong at once.
        let offset = self.write(&mut [draft])?[0];
        self.header.set(word::CHECKPOINT, offset)?;
        self.mark_applied()
    }

    /// The last checkpoint, and where its record ends.
    ///
    /// None is believed whose payload fails its check, or that is no checkpoint any more.
    pub(crate) fn last_checkpoint(&self) -> Result<Option<(Checkpoint, u64)>> {
        let offset = self.header.get(word::CHECKPOINT)?;
        if offset == 0 {
            return Ok(None);
        }
        let Ok(records) = self.records() else { return Ok(None) };
        let head = records.head(offset).filter(|head| head.kind == Kind::CHECKPOINT);
        let Some(head) = head else { return Ok(None) };
        let mut payload = vec![0; (head.len as usize).min(4096)];
        self.storage().read(offset + HEAD_SIZE, &mut payload).map_err(self.io("read"))?;
        let is_whole = head.check_of(&payload, self.superblock.seed) == head.payload_check;
        let checkpoint = Checkpoint::decode(&payload).filter(|_| is_whole);
        Ok(checkpoint.map(|checkpoint| (checkpoint, head.next(offset))))
    }

    /// Whether the log ends with a checkpoint, and all before that is on the device: whoever opens the file next
    /// has nothing to walk over.
    pub(crate) fn is_all_covered(&self) -> Result<bool> {
        let (synced, tail) = (self.header.get(word::SYNCED)?, self.tail()?);
        let last = self.last_checkpoint()?.filter(|(_, end)| *end == tail);
        Ok(last.is_some_and(|(checkpoint, _)| checkpoint.tail <= synced))
    }

    /// Gives back the space behind the last page. For a file that nobody else has opened.
    pub(crate) fn trim(&self) -> Result<()> {
        let end = self.tail()?.next_multiple_of(PAGE);
        self.make_room(end)?;
        self.header.set(word::ALLOCATED, end)?;
        self.storage().resize(end).map_err(self.io("trim"))
    }

    /// The hash of a table as it is in the file.
    pub(crate) fn hash_table(&self, table: Table) -> Result<u64> {
        self.read_table(table, |_| {})
    }

    /// As [`hash_table`](Journal::hash_table), for one who sees what is hashed, piece by piece.
    ///
    /// By copy, a MiB at a time. Of a table that others change meanwhile it gives some hash: that of no checkpoint,
    /// but by chance of one in 2^64.
    pub(crate) fn read_table(&self, table: Table, mut see: impl FnMut(&[u8])) -> Result<u64> {
        let mut window = Window::new(self.storage(), table.end());
        let mut hash = self.superblock.seed;
        let mut at = table.offset();
        while at < table.end() {
            let size = (table.end() - at).min(1 << 20);
            let piece = window.get(at, size).map_err(self.io("read"))?.unwrap_or_default();
            hash = hash_piece(piece, hash);
            see(piece);
            at += size;
        }
        Ok(hash)
    }
}

const _: () = assert!(align(HEAD_SIZE).is_multiple_of(BUCKET_SIZE));
