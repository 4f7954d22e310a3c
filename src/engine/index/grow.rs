//! Growth of the index in small steps, so that no append waits for a whole table.
//!
//! ```text
//!            CURSOR                                 GROWN
//!   index    | moved | moved | not yet | not yet |  (readers look here, and here alone)
//!                 \\       \\
//!   pending  | filled | filled |  .  |  .  |  .  |  .  |  .  |  .  |
//! ```
//!
//! The new table is filled from front to back; every append moves two buckets. A slot that is stored at a place which
//! was moved is stored in the new table first: killed in between, redoing the append finds it there. Once all is
//! moved, one store makes the new table the index; then the disk space of the old one is given back, in small steps
//! too.
//!
//! The words, through one growth from table A to table B (the log gives B its place; A may be the first index):
//!
//! ```text
//!                  INDEX  PENDING  CURSOR    GROWN        RETIRED  RECLAIMED
//!   at rest          A      -        0         0             -         0
//!   begin            A      B        0         0             -         0       B's record is published by then
//!   step, step ..    A      B      2, 4, ..  1 MiB ..        -         0       A's buckets are copied into B
//!   finish           A      B       all       all            A         0       noted before it is left
//!                    B      B       all       all            A         0       <- the store that readers see
//!                    B      -        0        all            A         0
//!   step, step ..    B      -        0        all            A       1 MiB ..  A reads as zeros, piece by piece
//!   at rest          B      -        0        all            -        all
//! ```
//!
//! A death between any two of these stores leaves a row from which the next step goes on
//! (`growth_killed_after_any_step_goes_on`). A step that is killed in the midst has moved some of its buckets and has
//! not raised CURSOR; they are moved once more, and a slot that is there already is not stored twice.
//!
//! Why the second store of a slot must come first. CURSOR is 10, and a put stores slot S in bucket 4 of A:
//!
//! ```text
//!   A, then B:  S in A; killed; bucket 4 is behind the cursor and never moved again; B becomes the index; S is lost
//!   B, then A:  S in B; killed; the redo of the put finds no S in A, finds S in B, and stores it in A
//! ```
//!
//! Readers never look in two tables. Redis does, and can: it has one thread. Here a reader that has looked in the first
//! could miss a slot that has just moved out of it. Doubling in one go is the other way: writers of ten million entries
//! would wait for 60 to 300 ms.
//!
//! Growth can be given up at any time, by setting PENDING to none: A is complete as it is. What B took in the log is
//! space that the next compaction drops.

use super::{BUCKET_SIZE, PROBE_LIMIT, SlotEntry, bucket_of, slot_entry, slots};
use crate::engine::format::header::word;
use crate::engine::format::slot::{Slot, Table};
use crate::engine::words::HeaderWords;
use crate::error::{Error, Result};

/// Buckets moved with each append: enough to have grown before the old table is 3/4 full.
const STEP_BUCKETS: u64 = 2;
/// Disk space taken or given back at a time, in bytes: a fraction of a millisecond.
const STEP_SIZE: u64 = 1 << 20;
/// The end of the new table, which has its disk space from the start: slots that went around the end
/// of the old table are at its front and belong to the end of the new one.
const BACK_SIZE: u64 = 64 << 10;

/// Begins growth into `table`, whose record is published and whose bytes read as zeros.
///
/// PENDING is stored last: while it is none, nobody asks what CURSOR and GROWN say. Killed before it, there is an empty
/// table in the log that nothing leads to, and the next append begins another one.
pub(crate) fn begin(header: HeaderWords<'_>, table: Table) -> Result<()> {
    header.set(word::CURSOR, 0)?;
    header.set(word::GROWN, 0)?;
    header.store(word::PENDING, table.0)
}

/// Takes the disk space that a new table must have before growth begins: its end. The file then reaches behind the
/// table, and what lies between is a hole that [`make_room`] fills as growth comes to it. Called before the table's
/// record is published, so that a full disk leaves nothing.
pub(crate) fn reserve(header: HeaderWords<'_>, table: Table) -> Result<()> {
    let start = table.end() - BACK_SIZE.min(table.size());
    allocate(header, start, table.end())
}

fn allocate(header: HeaderWords<'_>, from: u64, to: u64) -> Result<()> {
    let storage = header.storage;
    storage.allocate(from, to).map_err(Error::io("grow", storage.path()))
}

/// Moves some buckets, or gives some space back, as the case is. Called with each append, by the holder of the lock.
///
/// It costs two buckets of loads and as many stores as they have slots; a system call now and then, for the space of
/// the next MiB. An error leaves the cursor where it was: this step is done over with the next append. No record is
/// read, since the tag alone says where in the new table a slot belongs.
pub(crate) fn step(header: HeaderWords<'_>) -> Result<()> {
    let (index, pending) = (header.table(word::INDEX), header.table(word::PENDING));
    if pending == Table::NONE {
        return reclaim(header, index);
    }
    let cursor = header.get(word::CURSOR)?;
    if pending == index || cursor >= index.buckets() {
        return finish(header, index, pending);
    }
    let end = (cursor + STEP_BUCKETS).min(index.buckets());
    make_room(header, index, pending, end)?;
    for bucket in cursor..end {
        let bucket = Table::new(index.offset() + bucket * BUCKET_SIZE, 1);
        for slot in slots(header.storage, bucket) {
            place(header, pending, slot, slot)?;
        }
    }
    header.set(word::CURSOR, end)?;
    if end == index.buckets() { finish(header, index, pending) } else { Ok(()) }
}

/// Moves all that is left to be moved, under one hold of the lock: for an index that has no room for a key, and for an
/// opening. It takes as long as a copy of the table does.
pub(crate) fn complete(header: HeaderWords<'_>) -> Result<()> {
    while header.table(word::PENDING) != Table::NONE {
        step(header)?;
    }
    Ok(())
}

/// Stores `slot` in the new table too, in place of `old`, if its place in the old one was moved, or
/// may have been: a step that was killed has moved some of its buckets, and says so nowhere.
///
/// To be called before the slot is stored at `at` in the old table. `old` is what is there, or `slot` itself if the key
/// has none yet. A place that lies further on is left alone: its bucket is moved later, with the slot in it.
pub(crate) fn follow(
    header: HeaderWords<'_>,
    index: Table,
    at: u64,
    old: Slot,
    slot: Slot,
) -> Result<()> {
    let pending = header.table(word::PENDING);
    if pending == Table::NONE || pending == index {
        return Ok(());
    }
    let end = (header.get(word::CURSOR)? + STEP_BUCKETS).min(index.buckets());
    if bucket_of(index, at) >= end {
        return Ok(());
    }
    match make_room(header, index, pending, end) {
        Ok(()) => place(header, pending, old, slot),
        // The disk is full: growth is given up, and the slot goes where there is room for it.
        Err(_) => header.store(word::PENDING, Table::NONE.0),
    }
}

/// Disk space for all that the buckets below `end` can lead to in the new table.
///
/// Homes rise with tags. So what lies below `end` of the old table has its home below the same part of the new one, and
/// lies no further than a probe behind that. What went around the end of the old table to its front is the exception;
/// for that [`BACK_SIZE`] was taken at the start. GROWN is raised after the space was taken: killed in between, it is
/// taken again, which changes nothing.
fn make_room(header: HeaderWords<'_>, index: Table, pending: Table, end: u64) -> Result<()> {
    let grown = header.get(word::GROWN)?;
    let buckets = (end * pending.buckets()).div_ceil(index.buckets()) + PROBE_LIMIT + 1;
    let needed = (buckets * BUCKET_SIZE).min(pending.size());
    if needed <= grown {
        return Ok(());
    }
    let target = (grown + STEP_SIZE).max(needed).min(pending.size());
    allocate(header, pending.offset() + grown, pending.offset() + target)?;
    header.set(word::GROWN, target)
}

/// Puts `slot` into a table that has no readers yet, in place of `old` if that is there. Slots differ by
/// their offsets, so no record need be read; doing it twice changes nothing.
///
/// A dead slot takes the place of what it ends, but gets no place of its own: what never was in the new table need not
/// be dead there. So growth drops dead slots. A failure for want of room (more keys near one home than a probe reaches)
/// ends in an index that is made anew.
fn place(header: HeaderWords<'_>, table: Table, old: Slot, slot: Slot) -> Result<()> {
    let entry_of = |wanted: Slot| {
        slot_entry(header.storage, table, slot.tag(), |found| (found == wanted).then_some(()))
    };
    if old != slot
        && let SlotEntry::Occupied(at, ..) = entry_of(old)
    {
        return header.store(at, slot.0);
    }
    match entry_of(slot) {
        SlotEntry::Occupied(..) => Ok(()),
        _ if slot.is_dead() => Ok(()),
        SlotEntry::Vacant(at, _) => header.store(at, slot.0),
        SlotEntry::Full => Err(header.damaged("the index: no room near a key's home")),
    }
}

/// Makes the new table the index. Killed at any point, the next step comes here again: all is moved,
/// or the pending table is the index already.
///
/// RETIRED is stored before INDEX, so that no death loses track of the old table's space; [`reclaim`] leaves it alone
/// while it is the index. A table that was retired before and is not all given back is forgotten here: its space comes
/// back with the next compaction.
fn finish(header: HeaderWords<'_>, index: Table, pending: Table) -> Result<()> {
    if pending != index {
        retire(header, index)?;
        // Release, in `store`; pairs with the readers' load of the index: they see the table filled.
        header.store(word::INDEX, pending.0)?;
    }
    header.set(word::CURSOR, 0)?;
    header.store(word::PENDING, Table::NONE.0)
}

/// Notes a table whose space is to be given back once it is not the index any more. RECLAIMED first: killed in between,
/// the table that was noted before is given back from its start once more.
pub(crate) fn retire(header: HeaderWords<'_>, table: Table) -> Result<()> {
    header.store(word::RECLAIMED, 0)?;
    header.store(word::RETIRED, table.0)
}

/// Gives back a piece of the former table. Readers that still search it find zeros, hence a miss,
/// and look for the new one (`growth_loses_no_key`). RECLAIMED is raised after the piece was given back; a failure to
/// give it back costs space alone and is not asked for.
fn reclaim(header: HeaderWords<'_>, index: Table) -> Result<()> {
    let retired = header.table(word::RETIRED);
    if retired == Table::NONE || retired == index {
        return Ok(());
    }
    let from = header.storage.load(word::RECLAIMED).min(retired.size());
    let to = (from + STEP_SIZE).min(retired.size());
    if from == to {
        return header.store(word::RETIRED, Table::NONE.0);
    }
    header.storage.punch(retired.offset() + from, retired.offset() + to);
    header.store(word::RECLAIMED, to)
}
