//! Flushing: the removal of what has expired.
//!
//! The index is walked without the lock. Under it, a dead list is appended, of no more records than one list may
//! name, so that no hold is long. What was superseded between the walk and the lock is not on the list. A tombstone
//! for each key would do as well, at 64 bytes for each and not 8.
//!
//! ```text
//!   flush      walk: a and b have expired          lock: is each still its key's newest? a: yes, b: no; list a
//!   another                               b = 2
//! ```
//!
//! So what is stored meanwhile stays (`a_flush_leaves_what_is_stored_meanwhile`). What the walk could not see, because
//! the index grew under it, it sees in a second walk (`a_flush_beside_growth_removes_all_that_had_expired`).
//!
//! A list raises the barrier to the highest number that it names ([`op`](crate::engine::log::op), rule 5). So a result
//! of a computation that began before that record was stored is refused, also one for another key: it is computed once
//! more. The space of what was flushed comes back with a compaction.

use super::Store;
use crate::engine::file::expiry::{ExpiryRule, Moment};
use crate::engine::file::open;
use crate::engine::file::open_file::OpenFile;
use crate::engine::format::record::{Head, Identity, Kind};
use crate::engine::format::slot::Slot;
use crate::engine::log::journal::Draft;
use crate::engine::log::records::LIST_MAX;
use crate::error::{Error, Result};
use std::collections::HashSet;
use std::sync::Arc;

impl Store {
    /// Removes what `expiry` judges expired now, and returns how much that was. What expires or is stored
    /// while it is at work may stay.
    ///
    /// Time is read once, at the start, so that a long flush does not chase what expires meanwhile
    /// (`a_flush_removes_what_had_expired_when_it_began`). It reads a head for each slot of the index, and holds eight
    /// bytes for each that has expired. Killed or failed between two lists, what they named is gone and the rest is
    /// there.
    pub(crate) fn flush(&self, expiry: ExpiryRule) -> Result<u64> {
        let moment = expiry.now();
        let mut removed = 0;
        for _ in 0..open::TRIES {
            let open_file = self.lock()?.open_file().clone();
            if self.flush_in(&open_file, moment, &mut removed)? {
                return Ok(removed);
            }
        }
        Err(Error::Unstable { path: self.location.path.clone() })
    }

    /// Removes what has expired in `open_file`, and counts it. `false` if the cache is in another file by now,
    /// where some of it may be: a compaction judges by an expiry rule of its own.
    fn flush_in(
        &self,
        open_file: &Arc<OpenFile>,
        moment: Moment,
        removed: &mut u64,
    ) -> Result<bool> {
        let is_expired = |slot: Slot| is_expired_at(open_file, slot.offset(), moment);
        let expired = open_file.slots(is_expired, usize::MAX);
        for dead in expired.chunks(LIST_MAX as usize) {
            let writer = self.lock()?;
            if !writer.open_file().is_same_file(open_file) {
                return Ok(false);
            }
            let journal = writer.journal();
            let records = journal.records()?;
            let is_newest = |offset: &u64| {
                let identity = records.head(*offset).map(|head| head.identity);
                let newest = identity.and_then(|identity| journal.locate(&identity));
                newest.is_some_and(|(place, _)| place == *offset)
            };
            let dead = dead.iter().map(|slot| slot.offset());
            // A set: damage may leave two slots that lead to one record, which is counted once.
            let dead: HashSet<u64> = dead.filter(is_newest).collect();
            if dead.is_empty() {
                continue;
            }
            let payload: Vec<u8> = dead.iter().flat_map(|offset| offset.to_le_bytes()).collect();
            let seed = journal.superblock.seed;
            writer.append(&mut [Draft::new(Kind::DEAD_LIST, Identity::NONE, &payload, seed)])?;
            *removed += dead.len() as u64;
        }
        Ok(true)
    }
}

/// Whether the record at `offset` is a value that had expired at `moment`.
fn is_expired_at(open_file: &OpenFile, offset: u64, moment: Moment) -> bool {
    let Some(bytes) = open_file.storage().head(offset) else { return false };
    let head = Head::decode(&bytes, offset, open_file.superblock.seed);
    head.is_some_and(|head| head.kind == Kind::VALUE) && moment.is_expired(&bytes)
}
