//! Recovery: the index anew, from the log. It runs under the lock when a file is not at home (a
//! reboot, a copy) or its header does not verify. It assumes no solitude: it writes only behind the
//! tail, as any appender, and never truncates; below it, only what a power cut tore becomes space. Where
//! even the tail cannot be believed, or the file ends before it, the healthy records move to a new file
//! instead.

use super::copy::{copy, newest};
use super::create::write_header;
use super::expiry::View;
use super::handover::take_place;
use super::mend::mend_log;
use super::rebuild::Rebuilt;
use super::region::{Backing, Private, Region};
use super::trust::{is_consistent, is_table};
use crate::engine::format::header::{FIRST_BUCKETS, HOME, HOME_SIZE, state, word};
use crate::engine::format::slot::{Slot, Table};
use crate::engine::format::{ALIGNMENT, FILE_LIMIT, HEADER_SIZE};
use crate::engine::index::{self, HeapTable, Seat};
use crate::engine::log::journal::Journal;
use crate::engine::os::file::{CacheFile, Medium};
use crate::engine::os::replacement::Replacement;
use crate::error::{Error, Result};
use std::collections::HashSet;
use std::sync::Arc;

/// Makes a file that is locked trustworthy. `false` if another file is at the path now.
pub(crate) fn recover(region: &Region) -> Result<bool> {
    let journal = region.journal();
    let state = journal.ledger.medium.load(word::STATE);
    let is_believable = state != state::MOVED && has_believable_tail(&journal)?;
    if !is_believable || journal.ledger.get(word::FAILED)? != 0 {
        salvage(region)?;
        return Ok(false);
    }
    let file = region.file();
    leave_home(file)?;
    take_space(&journal)?;
    let size = file.size().map_err(Error::io("look at", file.path()))?;
    file.erase(journal.tail()?, size).map_err(Error::io("clear", file.path()))?;
    // On the device before anything covers it: else the next power cut may uncover it. In any case: the
    // zeros may be of another one, who died before they were synced. Where nobody wrote anything, there is
    // nothing to be brought there.
    journal.sync()?;
    let Some(first_fault) = mend_log(&journal)? else {
        salvage(region)?;
        return Ok(false);
    };
    let is_reused = reuse_checkpoint(&journal, first_fault)?;
    if !is_reused {
        let rebuilt = Rebuilt::of(&journal, journal.tail()?)?;
        if !keep_index(&journal, &rebuilt)? {
            put_in_place(&journal, &rebuilt)?;
        }
    }
    // Growth that was under way has been given up. Were it left to the next append to begin anew, each opening
    // that comes before its end would cost another table. On a full disk it is.
    let _ = journal.grow_at_once();
    if !is_reused || !journal.is_all_covered()? {
        leave_checkpoint(&journal)?;
    }
    journal.ledger.ensure_as_is(word::STATE, state::LIVE)?;
    come_home(file)?;
    Ok(true)
}

/// Makes the index of a locked file anew.
pub(crate) fn make_index(region: &Region) -> Result<()> {
    leave_home(region.file())?;
    let journal = region.journal();
    put_in_place(&journal, &Rebuilt::of(&journal, journal.tail()?)?)?;
    come_home(region.file())
}

/// From here until it comes home, the file is believed by nobody: recovery may be killed, too.
fn leave_home(file: &CacheFile) -> Result<()> {
    const NOWHERE: [u8; HOME_SIZE] = [0; HOME_SIZE];
    let mut home = NOWHERE;
    file.read(HOME, &mut home).map_err(Error::io("read", file.path()))?;
    match home {
        NOWHERE => Ok(()),
        _ => file.write(HOME, &NOWHERE).map_err(Error::io("write", file.path())),
    }
}

fn come_home(file: &CacheFile) -> Result<()> {
    let Some(home) = file.home().map_err(Error::io("look at", file.path()))? else { return Ok(()) };
    file.write(HOME, &home.encode()).map_err(Error::io("write", file.path()))
}

/// Whether all header words verify and the file is long enough for them.
fn has_believable_tail(journal: &Journal<'_>) -> Result<bool> {
    let file = journal.ledger.medium;
    let size = file.size().map_err(Error::io("look at", file.path()))?;
    if !journal.ledger.is_sound() {
        return Ok(false);
    }
    let tail = journal.tail()?;
    let end = size.min(FILE_LIMIT);
    Ok((journal.facts.log_start..=end).contains(&tail) && tail.is_multiple_of(ALIGNMENT))
}

/// Sees to the space of what is stored to. Opening has filled the holes in it, or has everything written by
/// system calls; but after a power cut the file may end before what it says it has.
fn take_space(journal: &Journal<'_>) -> Result<()> {
    let (ledger, file, tail) = (&journal.ledger, journal.ledger.medium, journal.tail()?);
    let size = file.size().map_err(Error::io("look at", file.path()))?;
    if !(tail..=size).contains(&ledger.get(word::ALLOCATED)?) {
        ledger.set(word::ALLOCATED, tail)?;
    }
    file.allocate(0, HEADER_SIZE).map_err(Error::io("grow", file.path()))
}

/// Has the next opening away from home go by a checkpoint, so that it need not walk over the log as this one
/// did. As [`Store::sync`](crate::engine::store::Store::sync) does it: what the checkpoint says, and all that was
/// mended, is on the device before the log counts as synced. On a full disk there is none.
fn leave_checkpoint(journal: &Journal<'_>) -> Result<()> {
    if journal.checkpoint().is_err() {
        return Ok(());
    }
    journal.sync()?;
    journal.ledger.set(word::SYNCED, journal.tail()?)
}

/// Goes back to the last checkpoint, if the index is still as it was then and leads to nothing that a
/// fault took, and redoes what came since. If nothing did, nothing changes.
fn reuse_checkpoint(journal: &Journal<'_>, first_fault: u64) -> Result<bool> {
    let ledger = &journal.ledger;
    let Some((checkpoint, end)) = journal.last_checkpoint()? else { return Ok(false) };
    let index = checkpoint.index;
    // Of a file that others use meanwhile, the index they look in is the only one to go on with.
    let is_whole = (journal.facts.log_start..=journal.tail()?).contains(&checkpoint.tail)
        && checkpoint.tail <= first_fault
        && index == ledger.table(word::INDEX)
        && is_table(journal, index, checkpoint.tail)
        && journal.hash_table(index).is_ok_and(|hash| hash == checkpoint.index_hash);
    if !is_whole {
        return Ok(false);
    }
    let medium = ledger.medium;
    medium.allocate(index.offset(), index.end()).map_err(Error::io("grow", medium.path()))?;
    give_up_growth(journal)?;
    ledger.ensure(word::BARRIER, ledger.get(word::BARRIER)?.max(checkpoint.barrier))?;
    // A clear that came later is redone, or lost.
    ledger.ensure(word::CLEARED, checkpoint.cleared)?;
    ledger.ensure(word::ENTRIES, checkpoint.entries)?;
    ledger.ensure(word::LIVE, checkpoint.live)?;
    ledger.ensure(word::USED, checkpoint.used)?;
    // The checkpoint itself need not be redone.
    let is_last = end == journal.tail()?;
    ledger.ensure(word::APPLIED, if is_last { end } else { checkpoint.tail })?;
    match journal.redo(true) {
        Err(Error::Damaged { .. } | Error::TooLarge { .. }) => Ok(false),
        result => result.map(|()| true),
    }
}

/// How far growth came may be lost, or be ahead of what was moved. A table that was left stays on its way out,
/// if it is one.
fn give_up_growth(journal: &Journal<'_>) -> Result<()> {
    let ledger = &journal.ledger;
    // That it has begun is what makes sense of the words that say how far it came.
    ledger.ensure_as_is(word::PENDING, Table::NONE.0)?;
    let retired = ledger.table(word::RETIRED);
    let is_left = retired != ledger.table(word::INDEX);
    match is_left && is_table(journal, retired, journal.tail()?) {
        true => Ok(()),
        false => ledger.ensure_as_is(word::RETIRED, Table::NONE.0),
    }
}

/// Goes on with the index that the file has, if that leads to what the whole log says and to nothing else: a
/// file that is never at home would otherwise get another one with each opening. `false` if it does not.
fn keep_index(journal: &Journal<'_>, rebuilt: &Rebuilt) -> Result<bool> {
    let (ledger, medium) = (&journal.ledger, journal.ledger.medium);
    let index = ledger.table(word::INDEX);
    if !is_table(journal, index, journal.tail()?) {
        return Ok(false);
    }
    let mut count = 0;
    for slot in index::slots(&rebuilt.index, rebuilt.index.table()) {
        let same = |found: Slot| (found == slot).then_some(());
        if !matches!(index::seat(medium, index, slot.tag(), same), Seat::Taken(..)) {
            return Ok(false);
        }
        count += 1;
    }
    // Each was found, so as many as there are is no others.
    if index::slots(medium, index).count() != count {
        return Ok(false);
    }
    let words = (0..index.slots()).map(|slot| Slot(medium.load(index.offset() + slot * 8)));
    let used = words.filter(|slot| !slot.is_empty()).count() as u64;
    medium.allocate(index.offset(), index.end()).map_err(Error::io("grow", medium.path()))?;
    note_order(journal, rebuilt)?;
    give_up_growth(journal)?;
    journal.settle()?;
    note_counts(journal, rebuilt, used)?;
    Ok(true)
}

/// Appends an index made from the whole log.
fn put_in_place(journal: &Journal<'_>, rebuilt: &Rebuilt) -> Result<()> {
    note_order(journal, rebuilt)?;
    journal.adopt_table(&rebuilt.index)?;
    note_counts(journal, rebuilt, rebuilt.index.used())
}

/// Gives out no number again, and stores no result of a computation from before a clear.
fn note_order(journal: &Journal<'_>, rebuilt: &Rebuilt) -> Result<()> {
    let ledger = &journal.ledger;
    journal.raise_seq(rebuilt.seq)?;
    ledger.set(word::BARRIER, ledger.get(word::BARRIER)?.max(rebuilt.barrier))?;
    ledger.set(word::CLEARED, rebuilt.cleared)
}

fn note_counts(journal: &Journal<'_>, rebuilt: &Rebuilt, used: u64) -> Result<()> {
    let ledger = &journal.ledger;
    ledger.set(word::USED, used)?;
    ledger.set(word::ENTRIES, rebuilt.entries)?;
    ledger.set(word::LIVE, rebuilt.live)
}

/// Moves what is healthy in a locked file to a new one at the same path.
fn salvage(region: &Region) -> Result<()> {
    let (file, facts) = (region.file(), &region.facts);
    let busy = || Error::Busy { path: file.path().to_path_buf() };
    let new = Replacement::begin(file.path())?.ok_or_else(busy)?;
    let size = file.size().map_err(Error::io("look at", file.path()))?;
    let tail = region.journal().tail().unwrap_or(size).min(size).min(FILE_LIMIT);
    let ledger = region.journal().ledger;
    let journal = Journal::new(file, facts);
    let rebuilt = Rebuilt::of(&journal, tail)?;
    let slots = index::slots(&rebuilt.index, rebuilt.index.table()).collect();
    let slots = newest(region, slots);
    let barrier = rebuilt.barrier.max(ledger.get(word::BARRIER).unwrap_or(0));
    let seq = rebuilt.seq.max(region.journal().seq().unwrap_or(0)).max(barrier);
    let bulk = copy(region, &slots, &new.file, View::NEVER, &HashSet::new())?;
    let words = bulk.words(seq, barrier.max(bulk.barrier));
    write_header(&new.file, &bulk.facts, &words).map_err(Error::io("write", new.file.path()))?;
    new.file.sync().map_err(Error::io("sync", new.file.path()))?;
    take_place(region, &new)
}

/// For a file that may not be written: an index of this process's own. If its tail cannot be believed,
/// it is read by copy, up to where records were found.
pub(crate) fn with_private_index(region: Region) -> Result<Region> {
    let journal = region.journal();
    let file = region.file();
    let size = file.size().map_err(Error::io("look at", file.path()))?;
    let is_believed = is_consistent(&journal)?;
    let end = if has_believable_tail(&journal)? { journal.tail()? } else { size.min(FILE_LIMIT) };
    let journal = Journal::new(file, &region.facts);
    let index = match read_index(&journal, end)? {
        Some(index) => index,
        None => Rebuilt::of(&journal, end)?.index,
    };
    let private = Private { index: index.freeze(), end };
    let backing = match region.backing {
        Backing::Mapped(mapped) if !is_believed => Backing::Copied(Arc::clone(mapped.map.file())),
        backing => backing,
    };
    Ok(Region::new(backing, region.facts, Some(private)))
}

/// The index that the file has, if a checkpoint at the end of its log knows it by its hash, and nothing before that
/// can be torn. Others may be at work on it: then it is another one, or that of the checkpoint still.
fn read_index(journal: &Journal<'_>, end: u64) -> Result<Option<HeapTable>> {
    let ledger = &journal.ledger;
    let is_known = ledger.is_sound()
        && ledger.get(word::FAILED)? == 0
        && journal.tail()? == end
        && journal.is_all_covered()?;
    let Some((checkpoint, _)) = journal.last_checkpoint()?.filter(|_| is_known) else {
        return Ok(None);
    };
    let table = checkpoint.index;
    if table != ledger.table(word::INDEX) || !is_table(journal, table, checkpoint.tail) {
        return Ok(None);
    }
    // The slots are counted first: neither what the checkpoint says of their number nor the size of the table,
    // which may be a hole, says how much memory they need.
    let mut count = 0;
    let hash = journal.read_table(table, |piece| count += named_in(piece).count() as u64)?;
    if hash != checkpoint.index_hash {
        return Ok(None);
    }
    let mut index = HeapTable::for_slots(count, FIRST_BUCKETS);
    let hash = journal.read_table(table, |piece| {
        for slot in named_in(piece) {
            index.put(slot, |_| false);
        }
    })?;
    Ok(Some(index).filter(|_| hash == checkpoint.index_hash))
}

/// The slots that name a record, of a piece of a table.
fn named_in(piece: &[u8]) -> impl Iterator<Item = Slot> {
    let words = piece.chunks_exact(8).map(|word| word.try_into().expect("chunks of 8"));
    let slots = words.map(|word| Slot(u64::from_le_bytes(word)));
    slots.filter(|slot| !slot.is_empty() && !slot.is_dead())
}
