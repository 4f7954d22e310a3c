//! Compaction: the live records in a new file, which takes the place of the old one.
//!
//! ```text
//!   readers   ---- in the old file ----------------------------------------|---- in the new one --->
//!   writers   ---- append to the old file ------------------| wait |--------- append to the new --->
//!   compactor      copy | replay | sync | replay |  lock: replay the rest, sync, MOVING, rename, MOVED
//! ```
//!
//! 1. The copy: every record that is the newest of its key, that counts and that verifies, beside readers and
//!    writers.
//! 2. The replay of what came meanwhile, as operations on the new file, again beside them; as often as much is
//!    left.
//! 3. Under the lock the rest, no more than [`HOLD_MAX`] bytes of it, a sync, and one rename.
//!
//! Killed before the rename, nothing happened; after it, the new file is the cache: the rename decides. Readers see
//! the state of the old file in the line that they read anyway. `docs/architecture.md` shows it beside a reader and a
//! writer, line by line, with what is left after a death at each.
//!
//! Why in this order:
//!
//! - The lock of the old file is taken once at the start, for a moment. It finishes what a killed writer left: else the
//!   copy would lack what is published and not in the index.
//! - APPLIED is loaded before the slots are collected. What lies below is in the index or superseded; what lies beyond
//!   is replayed. A record that is in the index by then and lies beyond is not copied, or it would be there twice.
//! - The new file is synced before the name is its own. Else a power cut could leave the name with a file of which
//!   parts are missing, and the old one, which had all, gone.
//! - MOVING before the rename, since a reader looks at STATE and not at the name. Without it a reader could find in the
//!   old file what a writer has just removed in the new one.
//! - The directory is synced at the end and not under the lock: until then the name leads to one of two whole files.
//!
//! What is left out may have been on record for a reason. A tombstone says that no computation of before may be stored,
//! and so does an expired value that replaced one; so BARRIER rises to the highest number that is left out.
//!
//! Freeing space in place, as LMDB does with its free pages, is rejected: a value that a reader holds would have to
//! be waited for, and payloads have all sizes.

use super::writer::Writer;
use super::{Store, TRIES};
use crate::engine::file::copy::{Bulk, copy, newest};
use crate::engine::file::create::write_header;
use crate::engine::file::expiry::ExpiryRule;
use crate::engine::file::handover::take_place;
use crate::engine::file::open_file::OpenFile;
use crate::engine::file::replay::{Outcome, Replay};
use crate::engine::format::header::word;
use crate::engine::log::journal::Journal;
use crate::engine::os::file::Storage as _;
use crate::engine::os::place::{self, AccessMode};
use crate::engine::os::replacement::Replacement;
use crate::error::{Error, Result};
use std::collections::HashSet;
use std::sync::Arc;

/// What a compaction did, from [`MmapCache::compact`](crate::MmapCache::compact).
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
/// cache.table::<str, u64>("sizes").insert("a.txt", &17)?;
/// let compaction = cache.compact()?;
/// assert_eq!((compaction.entries_kept, compaction.entries_dropped), (1, 0));
/// # Ok::<(), persist_cache::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Compaction {
    /// The file's size before, in bytes.
    pub bytes_before: u64,
    /// The file's size after, in bytes.
    pub bytes_after: u64,
    /// Entries that are in the new file.
    pub entries_kept: u64,
    /// Entries that are not: they had expired, did not verify, or are of a version of their function's
    /// code older than its newest two.
    pub entries_dropped: u64,
}

/// Under one hold of the lock no more than this is copied, however large the values are.
const HOLD_MAX: u64 = 1 << 20;
/// In so many rounds what was copied beside the writers is written out before anyone has to wait for that.
const ROUNDS: u32 = 4;
/// However fast the writers are, it ends: past this the rest is replayed under one hold.
const ROUNDS_MAX: u32 = 1000;

impl Store {
    /// Rewrites the file with its live entries alone.
    ///
    /// [`Error::Busy`] if another process or thread is at it: the lock of the successor file elects one, and nobody
    /// waits. It needs disk space for the live entries beside the old file. On failure before the rename the successor
    /// is removed and the cache is as it was. If all was cleared meanwhile, or another file is the cache, it begins
    /// again.
    pub(crate) fn compact(&self, expiry: ExpiryRule) -> Result<Compaction> {
        let path = &self.location.path;
        for _ in 0..TRIES {
            // The lock for a moment: what others left half done is done, and this file is the one.
            let open_file = self.lock()?.open_file().clone();
            let Some(new) = Replacement::begin(path)? else {
                return Err(Error::Busy { path: path.clone() });
            };
            let bytes_before = open_file.file().size().map_err(Error::io("look at", path))?;
            let Some((next, bulk, writer)) = self.prepare(&open_file, &new, expiry)? else {
                continue;
            };
            take_place(&open_file, &new)?;
            let bytes_after = next.file().size().map_err(Error::io("look at", path))?;
            // The new file's lock too: opening it may need it.
            drop((writer, new));
            self.follow(open_file)?;
            place::sync_directory(path)?;
            return Ok(Compaction {
                bytes_before,
                bytes_after,
                entries_kept: next.journal().header.get(word::ENTRIES)?,
                entries_dropped: bulk.dropped,
            });
        }
        Err(Error::Unstable { path: path.clone() })
    }

    /// The new file, up to the old one, with the old one locked. `None` if the cache was cleared or
    /// moved meanwhile.
    ///
    /// Each round replays without the lock, syncs, and looks under the lock how much has come since. Were all of it
    /// replayed at once under the lock, writers would wait for as long as the copy of what they had stored during the
    /// first copy takes (`a_compaction_copies_little_under_the_lock_and_holds_no_payload_in_memory`).
    fn prepare<'s>(
        &'s self,
        open_file: &Arc<OpenFile>,
        new: &Replacement,
        expiry: ExpiryRule,
    ) -> Result<Option<(OpenFile, Bulk, Writer<'s>)>> {
        let old = open_file.journal();
        let (next, bulk, at) = copy_to(open_file, new, expiry)?;
        let mut replay = Replay::new(open_file.journal(), next.journal(), at);
        let mut round = 0;
        loop {
            // Beside the writers, then under the lock: if they have been so fast that much is left, it goes
            // back at once, and the next round has less to do.
            if replay.run(old.header.get(word::APPLIED)?, u64::MAX)? == Outcome::Cleared {
                return Ok(None);
            }
            if round < ROUNDS {
                new.file.sync().map_err(Error::io("sync", new.file.path()))?;
            }
            let writer = self.lock()?;
            if !writer.open_file().is_same_file(open_file) {
                return Ok(None);
            }
            let bytes_max = if round < ROUNDS_MAX { HOLD_MAX } else { u64::MAX };
            match replay.run(old.tail()?, bytes_max)? {
                Outcome::Done => {}
                Outcome::Paused => {
                    round += 1;
                    continue;
                }
                Outcome::Cleared => return Ok(None),
            }
            // All of these under the lock: what comes into the old file from here on would be lost.
            replay.announce(&bulk.omitted)?;
            seal(&old, &next.journal())?;
            new.file.sync().map_err(Error::io("sync", new.file.path()))?;
            return Ok(Some((next, bulk, writer)));
        }
    }
}

/// Copies what is live in `open_file` now into a new file, and says how far in the log that is. Old
/// versions of functions are not copied, nor the records of scopes without values.
///
/// Without the lock of the old file, under that of the new one. The header is written last, with the numbers of before
/// the copy: a removal since has a higher one, and is replayed. Which versions are old is known only when all values
/// were seen, so a copy that has some of them is thrown away and made again without them.
pub(crate) fn copy_to(
    open_file: &OpenFile,
    new: &Replacement,
    expiry: ExpiryRule,
) -> Result<(OpenFile, Bulk, u64)> {
    let header = open_file.journal().header;
    // What is applied is in the index; what is published beyond may not be yet.
    let at = header.get(word::APPLIED)?;
    let seq = open_file.journal().seq()?;
    let slots = newest(open_file, open_file.slots(|slot| slot.offset() < at, usize::MAX));
    let mut bulk = copy(open_file, &slots, &new.file, expiry, &HashSet::new())?;
    let census = std::mem::take(&mut bulk.census);
    let retired = census.retired();
    if !retired.is_empty() {
        // Only now is it known what was in vain; it happens once for each edit or two.
        new.empty()?;
        bulk = copy(open_file, &slots, &new.file, expiry, &retired)?;
    }
    let barrier = bulk.barrier.max(header.get(word::BARRIER)?);
    let words = bulk.words(seq, barrier);
    write_header(&new.file, &bulk.superblock, &words)
        .map_err(Error::io("write", new.file.path()))?;
    // Mapped only if the old one is: it is to have the owner of that, who could cut it while it is prepared.
    let access = if open_file.map().is_some() { AccessMode::Trusted } else { AccessMode::Copied };
    let next = OpenFile::attach(new.reopen()?, bulk.superblock, access)?;
    Ok((next, bulk, at))
}

/// Carries over what the old file knows beside its records, and closes the new one with a checkpoint.
///
/// With the old file locked, so that nothing is added to it any more. SEQ comes first, so that every token of the old
/// file means the same in the new one; the checkpoint's own number is then higher. SYNCED is below the checkpoint,
/// which the caller syncs before the file gets its name.
fn seal(old: &Journal<'_>, new: &Journal<'_>) -> Result<()> {
    new.raise_seq(old.seq()?)?;
    let barrier = old.header.get(word::BARRIER)?.max(new.header.get(word::BARRIER)?);
    new.header.set(word::BARRIER, barrier)?;
    new.header.set(word::SYNCED, new.tail()?)?;
    new.checkpoint()?;
    new.trim()
}
