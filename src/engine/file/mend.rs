//! The log after a power cut: what was appended since the last sync may be torn, and is made whole before anything
//! else reads it.
//!
//! What is torn becomes a pad, for good, so that no later walk takes it for anything else and a second power cut finds
//! nothing new. Truncating the log at its first fault would be simpler: it would lose the whole records behind it, and
//! those who have the file open read them.

use super::trust::is_last_whole;
use crate::engine::format::ALIGNMENT;
use crate::engine::format::header::word;
use crate::engine::format::record::{HEAD_SIZE, Head, Identity, Kind, TORN};
use crate::engine::log::journal::Journal;
use crate::engine::log::op::Op;
use crate::engine::log::walk::{Step, Walk, Window};
use crate::error::{Error, Result};

/// Makes whole what was appended since the last sync: what a power cut tore becomes space, for good, so
/// that no later walk takes it for anything else, and no number that was given out is given out again.
/// Returns where the first fault was, or the tail; `None` if a fault leaves no room for a head.
pub(super) fn mend_log(journal: &Journal<'_>) -> Result<Option<u64>> {
    let (header, superblock) = (&journal.header, journal.superblock);
    let read = || Error::io("read", header.storage.path());
    let tail = journal.tail()?;
    let synced = header.get(word::SYNCED)?;
    let start = if synced.is_multiple_of(ALIGNMENT) { synced } else { superblock.log_start };
    let start = start.clamp(superblock.log_start, tail);
    let mut seq = journal.seq()?.max(header.get(word::BARRIER)?).max(header.get(word::CLEARED)?);
    let (mut first_fault, mut last, mut gap) = (tail, 0, None);
    let mut walk = Walk::new(header.storage, superblock.seed, start, tail);
    loop {
        let step = walk.next().map_err(read())?;
        if let Some((from, to)) = gap.take() {
            // A number between those around it: that of something which is gone.
            let number = match &step {
                Some(Step::Record(_, next)) => next.seq.saturating_sub(1),
                _ => seq + 1,
            };
            seq = seq.max(number);
            if !fill_gap(journal, from, to, number)? {
                return Ok(None);
            }
        }
        match step {
            Some(Step::Damage(from, to)) => {
                first_fault = first_fault.min(from);
                gap = Some((from, to));
            }
            Some(Step::Record(offset, head)) => {
                (seq, last) = (seq.max(head.seq), offset);
                if head.kind == Kind::PAD && head.flags & TORN != 0 {
                    // Mended by one who may have died before there was an index without it.
                    first_fault = first_fault.min(offset);
                } else if !is_record_whole(journal, &mut walk, offset, &head)? {
                    first_fault = first_fault.min(offset);
                    // A pad without a key: with one, only its kind could be damaged.
                    fill_gap(journal, offset, head.next(offset), head.seq)?;
                }
            }
            None => break,
        }
    }
    // Where nothing was appended since, it is what it was, if that can be.
    if last != 0 || !is_last_whole(journal) {
        header.ensure(word::LAST, last)?;
    }
    journal.raise_seq(seq)?;
    Ok(Some(first_fault))
}

/// Covers a stretch of damage with the head of a pad. `false` if it is too short for one.
fn fill_gap(journal: &Journal<'_>, from: u64, to: u64, seq: u64) -> Result<bool> {
    if to - from < HEAD_SIZE || seq == 0 {
        return Ok(false);
    }
    let pad = Head::new(Kind::PAD, Identity::NONE, to - from - HEAD_SIZE);
    let pad = Head { seq, flags: TORN, ..pad };
    let storage = journal.header.storage;
    let bytes = pad.encode(from, journal.superblock.seed);
    storage.overwrite(from, &bytes).map_err(Error::io("write", storage.path()))?;
    Ok(true)
}

/// Whether a record came through a power cut whole; of a large value that was committed, the value.
fn is_record_whole(
    journal: &Journal<'_>,
    walk: &mut Walk<'_>,
    offset: u64,
    head: &Head,
) -> Result<bool> {
    let read = || Error::io("read", journal.header.storage.path());
    if head.kind == Kind::PAD || !walk.is_whole(offset, head).map_err(read())? {
        return Ok(head.kind == Kind::PAD);
    }
    let records = journal.records()?;
    if Op::decode(offset, head) != Op::Commit {
        return Ok(true);
    }
    for offset in records.list(offset, head)? {
        // The store that makes it a value comes after the record. Without it the value is lost, and stays lost: it
        // is no damage to be found below the next sync.
        let value = records.reserved(offset)?.filter(|value| value.kind == Kind::VALUE);
        let Some(value) = value else { return Ok(false) };
        let mut window = Window::new(records.storage, records.end);
        if !window.is_whole(offset, &value, records.seed).map_err(read())? {
            return Ok(false);
        }
    }
    Ok(true)
}
