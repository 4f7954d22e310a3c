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
//! Readers never look in two tables. Redis does, and can: it has one thread. Here a reader that has looked in the first
//! could miss a slot that has just moved out of it.

use super::{BUCKET_SIZE, PROBE_LIMIT, Seat, bucket_of, seat, slots};
use crate::engine::format::header::word;
use crate::engine::format::slot::{Slot, Table};
use crate::engine::words::Ledger;
use crate::error::{Error, Result};

/// Buckets moved with each append: enough to have grown before the old table is 3/4 full.
const STEP_BUCKETS: u64 = 2;
/// Disk space taken or given back at a time, in bytes: a fraction of a millisecond.
const STEP_SIZE: u64 = 1 << 20;
/// The end of the new table, which has its disk space from the start: slots that went around the end
/// of the old table are at its front and belong to the end of the new one.
const BACK_SIZE: u64 = 64 << 10;

/// Begins growth into `table`, whose record is published.
pub(crate) fn begin(ledger: Ledger<'_>, table: Table) -> Result<()> {
    ledger.set(word::CURSOR, 0)?;
    ledger.set(word::GROWN, 0)?;
    ledger.store(word::PENDING, table.0)
}

/// Takes the disk space that a new table must have before growth begins.
pub(crate) fn reserve(ledger: Ledger<'_>, table: Table) -> Result<()> {
    let start = table.end() - BACK_SIZE.min(table.size());
    allocate(ledger, start, table.end())
}

fn allocate(ledger: Ledger<'_>, from: u64, to: u64) -> Result<()> {
    let medium = ledger.medium;
    medium.allocate(from, to).map_err(Error::io("grow", medium.path()))
}

/// Moves some buckets, or gives some space back, as the case is. Called with each append.
pub(crate) fn step(ledger: Ledger<'_>) -> Result<()> {
    let (index, pending) = (ledger.table(word::INDEX), ledger.table(word::PENDING));
    if pending == Table::NONE {
        return reclaim(ledger, index);
    }
    let cursor = ledger.get(word::CURSOR)?;
    if pending == index || cursor >= index.buckets() {
        return finish(ledger, index, pending);
    }
    let end = (cursor + STEP_BUCKETS).min(index.buckets());
    make_room(ledger, index, pending, end)?;
    for bucket in cursor..end {
        let bucket = Table::new(index.offset() + bucket * BUCKET_SIZE, 1);
        for slot in slots(ledger.medium, bucket) {
            place(ledger, pending, slot, slot)?;
        }
    }
    ledger.set(word::CURSOR, end)?;
    if end == index.buckets() { finish(ledger, index, pending) } else { Ok(()) }
}

/// Moves all that is left to be moved.
pub(crate) fn complete(ledger: Ledger<'_>) -> Result<()> {
    while ledger.table(word::PENDING) != Table::NONE {
        step(ledger)?;
    }
    Ok(())
}

/// Stores `slot` in the new table too, in place of `old`, if its place in the old one was moved, or
/// may have been: a step that was killed has moved some of its buckets, and says so nowhere.
pub(crate) fn follow(
    ledger: Ledger<'_>,
    index: Table,
    at: u64,
    old: Slot,
    slot: Slot,
) -> Result<()> {
    let pending = ledger.table(word::PENDING);
    if pending == Table::NONE || pending == index {
        return Ok(());
    }
    let end = (ledger.get(word::CURSOR)? + STEP_BUCKETS).min(index.buckets());
    if bucket_of(index, at) >= end {
        return Ok(());
    }
    match make_room(ledger, index, pending, end) {
        Ok(()) => place(ledger, pending, old, slot),
        // The disk is full: growth is given up, and the slot goes where there is room for it.
        Err(_) => ledger.store(word::PENDING, Table::NONE.0),
    }
}

/// Disk space for all that the buckets below `end` can lead to in the new table.
fn make_room(ledger: Ledger<'_>, index: Table, pending: Table, end: u64) -> Result<()> {
    let grown = ledger.get(word::GROWN)?;
    let buckets = (end * pending.buckets()).div_ceil(index.buckets()) + PROBE_LIMIT + 1;
    let needed = (buckets * BUCKET_SIZE).min(pending.size());
    if needed <= grown {
        return Ok(());
    }
    let target = (grown + STEP_SIZE).max(needed).min(pending.size());
    allocate(ledger, pending.offset() + grown, pending.offset() + target)?;
    ledger.set(word::GROWN, target)
}

/// Puts `slot` into a table that has no readers yet, in place of `old` if that is there. Slots differ by
/// their offsets, so no record need be read; doing it twice changes nothing.
fn place(ledger: Ledger<'_>, table: Table, old: Slot, slot: Slot) -> Result<()> {
    let seat_of = |wanted: Slot| {
        seat(ledger.medium, table, slot.tag(), |found| (found == wanted).then_some(()))
    };
    if old != slot
        && let Seat::Taken(at, ..) = seat_of(old)
    {
        return ledger.store(at, slot.0);
    }
    match seat_of(slot) {
        Seat::Taken(..) => Ok(()),
        _ if slot.is_dead() => Ok(()),
        Seat::Free(at, _) => ledger.store(at, slot.0),
        Seat::Full => Err(ledger.damaged("the index: no room near a key's home")),
    }
}

/// Makes the new table the index. Killed at any point, the next step comes here again: all is moved,
/// or the pending table is the index already.
fn finish(ledger: Ledger<'_>, index: Table, pending: Table) -> Result<()> {
    if pending != index {
        retire(ledger, index)?;
        // Release, in `store`; pairs with the readers' load of the index: they see the table filled.
        ledger.store(word::INDEX, pending.0)?;
    }
    ledger.set(word::CURSOR, 0)?;
    ledger.store(word::PENDING, Table::NONE.0)
}

/// Notes a table whose space is to be given back once it is not the index any more.
pub(crate) fn retire(ledger: Ledger<'_>, table: Table) -> Result<()> {
    ledger.store(word::RECLAIMED, 0)?;
    ledger.store(word::RETIRED, table.0)
}

/// Gives back a piece of the former table. Readers that still search it find zeros, hence a miss,
/// and look for the new one.
fn reclaim(ledger: Ledger<'_>, index: Table) -> Result<()> {
    let retired = ledger.table(word::RETIRED);
    if retired == Table::NONE || retired == index {
        return Ok(());
    }
    let from = ledger.medium.load(word::RECLAIMED).min(retired.size());
    let to = (from + STEP_SIZE).min(retired.size());
    if from == to {
        return ledger.store(word::RETIRED, Table::NONE.0);
    }
    ledger.medium.punch(retired.offset() + from, retired.offset() + to);
    ledger.store(word::RECLAIMED, to)
}
