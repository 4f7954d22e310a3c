//! Which files are trusted as they are: those whose provenance holds, whose header verifies and agrees with itself,
//! and whose last record is whole.
//!
//! The provenance says on which boot, device and inode the file was last made sound. If it holds, then all stores
//! since went through the page cache that is still there, and no power cut can have lost some of them: a killed
//! process loses nothing of what it stored. A file that was copied, or restored after a reboot, has another
//! provenance, and is recovered. The last record is checked because a lost write of the device would show there.

use super::open_file::OpenFile;
use crate::engine::format::ALIGNMENT;
use crate::engine::format::header::{PROVENANCE, PROVENANCE_SIZE, Provenance, state, word};
use crate::engine::format::record::{HEAD_SIZE, Head, Kind};
use crate::engine::format::slot::Table;
use crate::engine::log::journal::Journal;
use crate::engine::log::walk::Window;
use crate::engine::os::file::Storage as _;
use crate::error::{Error, Result};

/// The last record's payload is checked on opening if it is no longer than this.
const LAST_CHECK_MAX: u64 = 1 << 20;

/// Whether index and words can be believed as they are.
pub(crate) fn is_trusted(open_file: &OpenFile) -> Result<bool> {
    let file = open_file.file();
    let mut bytes = [0; PROVENANCE_SIZE];
    file.read(PROVENANCE, &mut bytes).map_err(Error::io("read", file.path()))?;
    let provenance = file.provenance().map_err(Error::io("look at", file.path()))?;
    let has_provenance = provenance.is_some() && Provenance::decode(&bytes) == provenance;
    let journal = open_file.journal();
    let state = journal.header.storage.load(word::STATE);
    let is_whole = || Ok::<_, Error>(journal.header.get(word::FAILED)? == 0);
    if !has_provenance || state == state::MOVED || !is_consistent(&journal)? || !is_whole()? {
        return Ok(false);
    }
    Ok(matches!(state, state::LIVE | state::MOVING) && is_last_whole(&journal))
}

/// Whether the words of the header agree with each other and with the file.
pub(crate) fn is_consistent(journal: &Journal<'_>) -> Result<bool> {
    let (header, file) = (&journal.header, journal.header.storage);
    if !header.is_sound() {
        return Ok(false);
    }
    // In the order in which a writer in another process raises them, backwards.
    let tables = [word::INDEX, word::PENDING, word::RETIRED].map(|place| header.table(place));
    let (tail, allocated) = (header.get(word::TAIL)?, header.get(word::ALLOCATED)?);
    let size = file.size().map_err(Error::io("look at", file.path()))?;
    let is_ordered = journal.superblock.log_start <= tail && tail <= allocated && allocated <= size;
    let is_table_or_none = |table| table == Table::NONE || is_table(journal, table, tail);
    let [index, pending, retired] = tables;
    let is_growing_inside = pending == Table::NONE
        || header.get(word::CURSOR)? <= index.buckets().max(pending.buckets())
            && header.get(word::GROWN)? <= pending.size();
    Ok(is_ordered
        && tail.is_multiple_of(ALIGNMENT)
        && is_table(journal, index, tail)
        && is_table_or_none(pending)
        && is_table_or_none(retired)
        && is_growing_inside)
}

/// Whether a word names one of this file's tables, all of which lies below `tail`.
pub(crate) fn is_table(journal: &Journal<'_>, table: Table, tail: u64) -> bool {
    table.is_plausible() && table.end() <= tail && is_head_of_table(journal, table)
}

/// Whether a table is the one that the file began with, or lies behind the head of a table's record.
fn is_head_of_table(journal: &Journal<'_>, table: Table) -> bool {
    if table == journal.superblock.first_index {
        return true;
    }
    let record = table.offset().saturating_sub(HEAD_SIZE);
    let mut bytes = [0; HEAD_SIZE as usize];
    let read = journal.header.storage.read(record, &mut bytes);
    let head = Head::decode(&bytes, record, journal.superblock.seed);
    read.is_ok() && head.is_some_and(|head| head.kind.holds_table() && head.len == table.size())
}

/// Whether the last record is what its head says: a lost write shows here.
pub(crate) fn is_last_whole(journal: &Journal<'_>) -> bool {
    let (Ok(last), Ok(tail)) = (journal.header.get(word::LAST), journal.tail()) else {
        return false;
    };
    if last == 0 {
        return true;
    }
    let mut window = Window::new(journal.header.storage, tail);
    let Ok(Some(bytes)) = window.get(last, HEAD_SIZE) else { return false };
    let bytes = bytes.try_into().expect("sized");
    let seed = journal.superblock.seed;
    let Some(head) = Head::decode(bytes, last, seed) else { return false };
    if head.kind == Kind::PAD || head.kind.holds_table() || head.len > LAST_CHECK_MAX {
        return true;
    }
    match window.get(last + HEAD_SIZE, head.len) {
        Ok(Some(payload)) => head.check_of(payload, seed) == head.payload_check,
        _ => false,
    }
}
