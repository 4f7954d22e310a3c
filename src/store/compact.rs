//! Compaction: the live records in a new file, which takes the place of the old one. Copying goes on
//! beside readers and writers; then, under the lock, what came meanwhile is replayed as operations,
//! and the files change places by one rename. Readers see the state of the old file in the line they
//! read anyway. Killed before the rename, nothing happened; after it, the new file is the cache: the
//! rename decides.

use super::TRIES;
use super::create::write_header;
use super::expiry::View;
use super::region::Region;
use super::rewrite::{Bulk, Replay, copy, replay, take_place};
use super::{Store, Writer};
use crate::error::{Error, Result};
use crate::format::header::word;
use crate::format::slot::Slot;
use crate::index;
use crate::sys::place::{self, Care, Replacement};
use std::sync::Arc;

/// What a compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Compaction {
    /// The file's size before, in bytes.
    pub bytes_before: u64,
    /// The file's size after, in bytes.
    pub bytes_after: u64,
    /// Entries that are in the new file.
    pub entries_kept: u64,
    /// Entries that had expired or did not verify, and are not.
    pub entries_dropped: u64,
}

/// The replay under the lock begins when no more than this is left to replay...
const DELTA_MAX: u64 = 1 << 20;
/// ...or after so many rounds beside the writers.
const ROUNDS: u32 = 8;

impl Store {
    /// Rewrites the file with its live entries alone.
    pub(crate) fn compact(&self, view: View) -> Result<Compaction> {
        let path = &self.location.path;
        for _ in 0..TRIES {
            // The lock for a moment: what others left half done is done, and this file is the one.
            let region = self.lock()?.region().clone();
            let Some(new) = Replacement::begin(path)? else {
                return Err(Error::Busy { path: path.clone() });
            };
            let bytes_before = region.file().size().map_err(Error::io("look at", path))?;
            let Some((next, bulk, writer)) = self.prepare(&region, &new, view)? else {
                continue;
            };
            take_place(&region, &new)?;
            let bytes_after = next.file().size().map_err(Error::io("look at", path))?;
            drop(writer);
            self.follow(region)?;
            place::sync_directory(path)?;
            return Ok(Compaction {
                bytes_before,
                bytes_after,
                entries_kept: next.journal().ledger.get(word::ENTRIES)?,
                entries_dropped: bulk.dropped,
            });
        }
        Err(Error::Unstable { path: path.clone() })
    }

    /// The new file, up to the old one, with the old one locked. `None` if the cache was cleared or
    /// moved meanwhile.
    fn prepare<'s>(
        &'s self,
        region: &Arc<Region>,
        new: &Replacement,
        view: View,
    ) -> Result<Option<(Region, Bulk, Writer<'s>)>> {
        let old = region.journal();
        let (mut from, seq) = (old.tail()?, old.seq()?);
        let Some(slots) = slots_of(region, from) else { return Ok(None) };
        let bulk = copy(region, slots, &new.file, view)?;
        let barrier = bulk.barrier.max(old.ledger.get(word::BARRIER)?);
        let words = bulk.words(seq, barrier);
        let write = || Error::io("write", new.file.path());
        write_header(&new.file, &bulk.facts, &words).map_err(write())?;
        let next = Region::attach(new.share()?, bulk.facts, Care::Trusted)?;
        let sync = || Error::io("sync", new.file.path());
        new.file.sync().map_err(sync())?;
        for _ in 0..ROUNDS {
            let to = old.tail()?;
            if to - from <= DELTA_MAX {
                break;
            }
            if replay(&old, &next.journal(), from, to)? == Replay::Cleared {
                return Ok(None);
            }
            from = to;
        }
        let writer = self.lock()?;
        if !Arc::ptr_eq(writer.region(), region) {
            return Ok(None);
        }
        if replay(&old, &next.journal(), from, old.tail()?)? == Replay::Cleared {
            return Ok(None);
        }
        let journal = next.journal();
        journal.ledger.set(word::SEQ, journal.seq()?.max(old.seq()?))?;
        let barrier = old.ledger.get(word::BARRIER)?.max(journal.ledger.get(word::BARRIER)?);
        journal.ledger.set(word::BARRIER, barrier)?;
        journal.ledger.set(word::SYNCED, journal.tail()?)?;
        journal.checkpoint()?;
        journal.trim()?;
        new.file.sync().map_err(sync())?;
        Ok(Some((next, bulk, writer)))
    }
}

/// The slots of records below `tail`. `None` if the index kept moving under the reading.
fn slots_of(region: &Region, tail: u64) -> Option<Vec<Slot>> {
    for _ in 0..TRIES {
        let (words, table) = region.index();
        let slots = index::slots(words, table).filter(|slot| slot.offset() < tail).collect();
        if region.index().1 == table {
            return Some(slots);
        }
    }
    None
}
