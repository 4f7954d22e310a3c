//! Recovery: the index anew, from the log. It runs under the lock when a file's provenance does not hold (a
//! reboot, a copy) or its header does not verify. It assumes no solitude: it writes only behind the
//! tail, as any appender, and never truncates; below it, only what a power cut tore becomes space. Where
//! even the tail cannot be believed, or the file ends before it, the healthy records move to a new file
//! instead.

use super::copy::{copy, newest};
use super::create::write_header;
use super::expiry::ExpiryRule;
use super::handover::take_place;
use super::mend::mend_log;
use super::open_file::{Backing, OpenFile, Private};
use super::rebuild::Rebuilt;
use super::trust::{is_consistent, is_table};
use crate::engine::format::header::{FIRST_BUCKETS, PROVENANCE, PROVENANCE_SIZE, state, word};
use crate::engine::format::slot::{Slot, Table};
use crate::engine::format::{ALIGNMENT, FILE_LIMIT, HEADER_SIZE};
use crate::engine::index::{self, HeapTable, SlotEntry};
use crate::engine::log::journal::Journal;
use crate::engine::os::file::{CacheFile, Storage};
use crate::engine::os::replacement::Replacement;
use crate::error::{Error, Result};
use std::collections::HashSet;
use std::sync::Arc;

/// Makes a file that is locked trustworthy. `false` if another file is at the path now.
///
/// The caller holds the file's lock, and nobody has the file open by its provenance, which does not hold. Others may
/// have it open from before, though: their maps stay right, since nothing below the tail is moved.
///
/// The order matters to one who is killed here. The provenance goes first and comes back last, so that the next
/// opening recovers again; the log is mended, and on the device, before the index is made from it.
pub(crate) fn recover(open_file: &OpenFile) -> Result<bool> {
    let journal = open_file.journal();
    let state = journal.header.storage.load(word::STATE);
    let is_believable = state != state::MOVED && has_believable_tail(&journal)?;
    if !is_believable || journal.header.get(word::FAILED)? != 0 {
        salvage(open_file)?;
        return Ok(false);
    }
    let file = open_file.file();
    forget_provenance(file)?;
    take_space(&journal)?;
    let size = file.size().map_err(Error::io("look at", file.path()))?;
    file.erase(journal.tail()?, size).map_err(Error::io("clear", file.path()))?;
    // On the device before anything covers it: else the next power cut may uncover it. In any case: the
    // zeros may be of another one, who died before they were synced. Where nobody wrote anything, there is
    // nothing to be brought there.
    journal.sync()?;
    let Some(first_fault) = mend_log(&journal)? else {
        salvage(open_file)?;
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
    journal.header.ensure_as_is(word::STATE, state::LIVE)?;
    renew_provenance(file)?;
    Ok(true)
}

/// Makes the index of a locked file anew.
///
/// For a writer that finds no room for a slot, or a damaged table, in a file that is trusted otherwise. The log need
/// not be mended: no power cut was in between.
pub(crate) fn make_index(open_file: &OpenFile) -> Result<()> {
    forget_provenance(open_file.file())?;
    let journal = open_file.journal();
    put_in_place(&journal, &Rebuilt::of(&journal, journal.tail()?)?)?;
    renew_provenance(open_file.file())
}

/// From here until its provenance is renewed, the file is believed by nobody: recovery may be killed, too.
fn forget_provenance(file: &CacheFile) -> Result<()> {
    const NOWHERE: [u8; PROVENANCE_SIZE] = [0; PROVENANCE_SIZE];
    let mut provenance = NOWHERE;
    file.read(PROVENANCE, &mut provenance).map_err(Error::io("read", file.path()))?;
    match provenance {
        NOWHERE => Ok(()),
        _ => file.write(PROVENANCE, &NOWHERE).map_err(Error::io("write", file.path())),
    }
}

fn renew_provenance(file: &CacheFile) -> Result<()> {
    let Some(provenance) = file.provenance().map_err(Error::io("look at", file.path()))? else {
        return Ok(());
    };
    file.write(PROVENANCE, &provenance.encode()).map_err(Error::io("write", file.path()))
}

/// Whether all header words verify and the file is long enough for them.
fn has_believable_tail(journal: &Journal<'_>) -> Result<bool> {
    let file = journal.header.storage;
    let size = file.size().map_err(Error::io("look at", file.path()))?;
    if !journal.header.is_sound() {
        return Ok(false);
    }
    let tail = journal.tail()?;
    let end = size.min(FILE_LIMIT);
    Ok((journal.superblock.log_start..=end).contains(&tail) && tail.is_multiple_of(ALIGNMENT))
}

/// Sees to the space of what is stored to. Opening has filled the holes in it, or has everything written by
/// system calls; but after a power cut the file may end before what it says it has.
fn take_space(journal: &Journal<'_>) -> Result<()> {
    let (header, file, tail) = (&journal.header, journal.header.storage, journal.tail()?);
    let size = file.size().map_err(Error::io("look at", file.path()))?;
    if !(tail..=size).contains(&header.get(word::ALLOCATED)?) {
        header.set(word::ALLOCATED, tail)?;
    }
    file.allocate(0, HEADER_SIZE).map_err(Error::io("grow", file.path()))
}

/// Has the next opening that cannot trust the file go by a checkpoint, so that it need not walk over the log as this
/// one did. As [`Store::sync`](crate::engine::store::Store::sync) does it: what the checkpoint says, and all that was
/// mended, is on the device before the log counts as synced. On a full disk there is none.
fn leave_checkpoint(journal: &Journal<'_>) -> Result<()> {
    if journal.checkpoint().is_err() {
        return Ok(());
    }
    journal.sync()?;
    journal.header.set(word::SYNCED, journal.tail()?)
}

/// Goes back to the last checkpoint, if the index is still as it was then and leads to nothing that a
/// fault took, and redoes what came since. If nothing did, nothing changes.
///
/// Four things must be so: the checkpoint's own check holds; the log was whole up to where the checkpoint is; the
/// index is the table that it names; and that table has the hash that it had then. Then only the records behind it
/// are applied.
fn reuse_checkpoint(journal: &Journal<'_>, first_fault: u64) -> Result<bool> {
    let header = &journal.header;
    let Some((checkpoint, end)) = journal.last_checkpoint()? else { return Ok(false) };
    let index = checkpoint.index;
    // Of a file that others use meanwhile, the index they look in is the only one to go on with.
    let is_whole = (journal.superblock.log_start..=journal.tail()?).contains(&checkpoint.tail)
        && checkpoint.tail <= first_fault
        && index == header.table(word::INDEX)
        && is_table(journal, index, checkpoint.tail)
        && journal.hash_table(index).is_ok_and(|hash| hash == checkpoint.index_hash);
    if !is_whole {
        return Ok(false);
    }
    let storage = header.storage;
    storage.allocate(index.offset(), index.end()).map_err(Error::io("grow", storage.path()))?;
    give_up_growth(journal)?;
    header.ensure(word::BARRIER, header.get(word::BARRIER)?.max(checkpoint.barrier))?;
    // A clear that came later is redone, or lost.
    header.ensure(word::CLEARED, checkpoint.cleared)?;
    header.ensure(word::ENTRIES, checkpoint.entries)?;
    header.ensure(word::LIVE, checkpoint.live)?;
    header.ensure(word::USED, checkpoint.used)?;
    // The checkpoint itself need not be redone.
    let is_last = end == journal.tail()?;
    header.ensure(word::APPLIED, if is_last { end } else { checkpoint.tail })?;
    match journal.redo(true) {
        Err(Error::Damaged { .. } | Error::TooLarge { .. }) => Ok(false),
        result => result.map(|()| true),
    }
}

/// How far growth came may be lost, or be ahead of what was moved. A table that was left stays on its way out,
/// if it is one.
fn give_up_growth(journal: &Journal<'_>) -> Result<()> {
    let header = &journal.header;
    // That it has begun is what makes sense of the words that say how far it came.
    header.ensure_as_is(word::PENDING, Table::NONE.0)?;
    let retired = header.table(word::RETIRED);
    let is_left = retired != header.table(word::INDEX);
    match is_left && is_table(journal, retired, journal.tail()?) {
        true => Ok(()),
        false => header.ensure_as_is(word::RETIRED, Table::NONE.0),
    }
}

/// Goes on with the index that the file has, if that leads to what the whole log says and to nothing else: a
/// file whose provenance never holds would otherwise get another one with each opening. `false` if it does not.
///
/// Each slot of the rebuilt index must be in the file's, and no more than these. This reads both and no record.
fn keep_index(journal: &Journal<'_>, rebuilt: &Rebuilt) -> Result<bool> {
    let (header, storage) = (&journal.header, journal.header.storage);
    let index = header.table(word::INDEX);
    if !is_table(journal, index, journal.tail()?) {
        return Ok(false);
    }
    let mut count = 0;
    for slot in index::slots(&rebuilt.index, rebuilt.index.table()) {
        let same = |found: Slot| (found == slot).then_some(());
        if !matches!(index::slot_entry(storage, index, slot.tag(), same), SlotEntry::Occupied(..)) {
            return Ok(false);
        }
        count += 1;
    }
    // Each was found, so as many as there are is no others.
    if index::slots(storage, index).count() != count {
        return Ok(false);
    }
    let words = (0..index.slots()).map(|slot| Slot(storage.load(index.offset() + slot * 8)));
    let used = words.filter(|slot| !slot.is_empty()).count() as u64;
    storage.allocate(index.offset(), index.end()).map_err(Error::io("grow", storage.path()))?;
    note_order(journal, rebuilt)?;
    give_up_growth(journal)?;
    journal.mark_applied()?;
    note_counts(journal, rebuilt, used)?;
    Ok(true)
}

/// Appends an index made from the whole log.
///
/// At the end of the log, as any table: the old one stays as it is, for whoever still searches it.
fn put_in_place(journal: &Journal<'_>, rebuilt: &Rebuilt) -> Result<()> {
    note_order(journal, rebuilt)?;
    journal.adopt_table(&rebuilt.index)?;
    note_counts(journal, rebuilt, rebuilt.index.used())
}

/// Gives out no number again, and stores no result of a computation from before a clear.
fn note_order(journal: &Journal<'_>, rebuilt: &Rebuilt) -> Result<()> {
    let header = &journal.header;
    journal.raise_seq(rebuilt.seq)?;
    header.set(word::BARRIER, header.get(word::BARRIER)?.max(rebuilt.barrier))?;
    header.set(word::CLEARED, rebuilt.cleared)
}

fn note_counts(journal: &Journal<'_>, rebuilt: &Rebuilt, used: u64) -> Result<()> {
    let header = &journal.header;
    header.set(word::USED, used)?;
    header.set(word::ENTRIES, rebuilt.entries)?;
    header.set(word::LIVE, rebuilt.live)
}

/// Moves what is healthy in a locked file to a new one at the same path.
///
/// What does not verify is left behind, and what a record that does not verify had superseded, too: the index is made
/// from all heads first, and only then are payloads read. The new file takes the place of the old one by a rename;
/// whoever has the old one open goes on reading it, and finds that it moved.
fn salvage(open_file: &OpenFile) -> Result<()> {
    let (file, superblock) = (open_file.file(), &open_file.superblock);
    let busy = || Error::Busy { path: file.path().to_path_buf() };
    let new = Replacement::begin(file.path())?.ok_or_else(busy)?;
    let size = file.size().map_err(Error::io("look at", file.path()))?;
    let tail = open_file.journal().tail().unwrap_or(size).min(size).min(FILE_LIMIT);
    let header = open_file.journal().header;
    let journal = Journal::new(file, superblock);
    let rebuilt = Rebuilt::of(&journal, tail)?;
    let slots = index::slots(&rebuilt.index, rebuilt.index.table()).collect();
    let slots = newest(open_file, slots);
    let barrier = rebuilt.barrier.max(header.get(word::BARRIER).unwrap_or(0));
    let seq = rebuilt.seq.max(open_file.journal().seq().unwrap_or(0)).max(barrier);
    let bulk = copy(open_file, &slots, &new.file, ExpiryRule::NEVER, &HashSet::new())?;
    let words = bulk.words(seq, barrier.max(bulk.barrier));
    write_header(&new.file, &bulk.superblock, &words)
        .map_err(Error::io("write", new.file.path()))?;
    new.file.sync().map_err(Error::io("sync", new.file.path()))?;
    take_place(open_file, &new)
}

/// For a file that may not be written: an index of this process's own. If its tail cannot be believed,
/// it is read by copy, up to where records were found.
///
/// The file is not changed, not even mended: whoever may write it does that. So what is torn is left out of the index
/// here, each time anew.
pub(crate) fn with_private_index(open_file: OpenFile) -> Result<OpenFile> {
    let journal = open_file.journal();
    let file = open_file.file();
    let size = file.size().map_err(Error::io("look at", file.path()))?;
    let is_believed = is_consistent(&journal)?;
    let end = if has_believable_tail(&journal)? { journal.tail()? } else { size.min(FILE_LIMIT) };
    let journal = Journal::new(file, &open_file.superblock);
    let index = match read_index(&journal, end)? {
        Some(index) => index,
        None => Rebuilt::of(&journal, end)?.index,
    };
    let private = Private { index: index.freeze(), end };
    let backing = match open_file.backing {
        Backing::Mapped(mapped) if !is_believed => Backing::Copied(Arc::clone(mapped.map.file())),
        backing => backing,
    };
    Ok(OpenFile::new(backing, open_file.superblock, Some(private)))
}

/// The index that the file has, if a checkpoint at the end of its log knows it by its hash, and nothing before that
/// can be torn. Others may be at work on it: then it is another one, or that of the checkpoint still.
///
/// This is the fast way for a reader of a file that was closed properly: one pass over the table, and none over the
/// log.
fn read_index(journal: &Journal<'_>, end: u64) -> Result<Option<HeapTable>> {
    let header = &journal.header;
    let is_known = header.is_sound()
        && header.get(word::FAILED)? == 0
        && journal.tail()? == end
        && journal.is_all_covered()?;
    let Some((checkpoint, _)) = journal.last_checkpoint()?.filter(|_| is_known) else {
        return Ok(None);
    };
    let table = checkpoint.index;
    if table != header.table(word::INDEX) || !is_table(journal, table, checkpoint.tail) {
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
