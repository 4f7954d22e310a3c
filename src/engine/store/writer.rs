//! The write lock, held: taking it on the file that is the cache, and finishing what a killed holder of it left.
//!
//! Whoever takes the lock first wipes what is written and not published, and applies what is published and not in
//! the index ([`redo`](crate::engine::log::redo)). Only then is a [`Writer`] handed out. So no operation has to ask
//! in what state the last holder left the file.
//!
//! From wanting to write to being allowed to:
//!
//! ```text
//!   1  the lock among threads               to the deadline
//!   2  the file that is known, or opened    to the deadline, if it has to be recovered
//!   3  the file's lock                      to the deadline
//!   4  is it still the cache?               STATE is LIVE; now and then the path leads to it; every word verifies
//!        no: unlock, leave it, open the one at the path, and go on with 3
//!   5  a larger map, if it has outgrown this one
//!   6  what the dead left                   wiped and redone
//! ```
//!
//! The question comes behind the lock, because its answer may change until then: a compactor holds the same lock while
//! it changes STATE and the name. Under the lock both stay as they are, but for a stranger who removes the file; who
//! writes to it then writes to a file that goes with its last user.
//!
//! Looking at the path with every hold would tell of strangers at once. It is rejected: the call costs more than the
//! lock itself. So the path is looked at ten times a second at most.

use super::write_lock::WriteGuard;
use super::{Store, Unmet};
use crate::engine::file::deadline::Deadline;
use crate::engine::file::effort::Effort;
use crate::engine::file::open::TRIES;
use crate::engine::file::open_file::OpenFile;
use crate::engine::file::recover;
use crate::engine::format::header::{state, word};
use crate::engine::format::record::{Identity, Kind};
use crate::engine::log::journal::{Draft, Journal};
use crate::error::{Error, Result};
use std::sync::Arc;
use std::time::Duration;

impl Store {
    /// Takes the lock on the file that is the cache, with all that was published in the index.
    pub(crate) fn lock(&self) -> Result<Writer<'_>> {
        self.lock_until(&self.deadline())
    }

    /// As [`lock`](Store::lock), with a deadline of its own. The finishing of what others left is not bounded by it: it
    /// takes a sync, and as long as there are records.
    pub(crate) fn lock_until(&self, deadline: &Deadline) -> Result<Writer<'_>> {
        let writer = self.lock_as_left(deadline)?;
        self.finish_others(writer.open_file())?;
        Ok(writer)
    }

    /// As [`lock`](Store::lock), on the file that is open; [`Error::Locked`] if others have its lock. What a
    /// killed holder of it left is finished if that is not too much effort: it takes as long as there are
    /// records to redo, and a sync.
    pub(crate) fn try_lock(&self, effort: Effort) -> Result<Result<Writer<'_>, Unmet>> {
        let Some(open_file) = self.known() else { return Ok(Err(Unmet::Elsewhere(None))) };
        let at_once = Deadline::after(Duration::ZERO);
        let mut guard = self.state().write_lock.enter(&at_once, &self.location.path)?;
        let Some(open_file) = self.lock_in(&mut guard, &open_file, &at_once)? else {
            return Ok(Err(Unmet::Elsewhere(Some(open_file))));
        };
        let writer = Writer { store: self, open_file, _guard: guard };
        // What cannot be told has to be mended, which is no less.
        if effort == Effort::Brief && !writer.open_file().journal().is_finished().unwrap_or(false) {
            return Ok(Err(Unmet::Long));
        }
        self.finish_others(writer.open_file())?;
        Ok(Ok(writer))
    }

    /// Takes the lock, and leaves what a killed holder of it left. For a deletion, which has no use for it, and for a
    /// clear, which deletes the file if the finishing fails.
    ///
    /// A file that is elsewhere is followed, [`TRIES`] times at most, while the lock among threads is kept.
    pub(crate) fn lock_as_left(&self, deadline: &Deadline) -> Result<Writer<'_>> {
        let path = &self.location.path;
        let mut guard = self.state().write_lock.enter(deadline, path)?;
        for _ in 0..TRIES {
            let open_file = self.open_file_until(deadline)?;
            if let Some(open_file) = self.lock_in(&mut guard, &open_file, deadline)? {
                return Ok(Writer { store: self, open_file, _guard: guard });
            }
            self.follow_until(open_file, deadline)?;
        }
        Err(Error::Unstable { path: path.clone() })
    }

    /// Locks a file, by one who has the lock among threads: the same file, in a larger map if it has outgrown this
    /// one. `None`, and it is not locked, if another file must be opened.
    #[inline]
    fn lock_in(
        &self,
        guard: &mut WriteGuard<'_>,
        open_file: &Arc<OpenFile>,
        deadline: &Deadline,
    ) -> Result<Option<Arc<OpenFile>>> {
        if !open_file.file().is_writable() || open_file.is_private() || self.location.is_read_only {
            return Err(Error::ReadOnly { path: self.location.path.clone() });
        }
        guard.lock(open_file, deadline)?;
        if !self.is_ready(open_file)? {
            guard.unlock();
            return Ok(None);
        }
        let open_file = self.grown(Arc::clone(open_file));
        guard.lock(&open_file, deadline)?; // It has the file's lock, now by this map.
        Ok(Some(open_file))
    }

    /// Finishes what a killed holder of the lock left: the wiping first, then the redo. Four loads of words if nobody
    /// left anything.
    pub(crate) fn finish_others(&self, open_file: &OpenFile) -> Result<()> {
        let journal = open_file.journal();
        Store::or_make_index(
            open_file,
            journal.wipe_unpublished().and_then(|()| journal.redo(false)),
        )
    }

    /// An index that could not take what is published is made anew: from the log, so with what is published. That walks
    /// over all of the log, under the lock. Other errors are handed back.
    pub(crate) fn or_make_index(open_file: &OpenFile, applied: Result<()>) -> Result<()> {
        match applied {
            Err(Error::Damaged { .. } | Error::TooLarge { .. }) => recover::make_index(open_file),
            result => result,
        }
    }

    /// Whether a locked file can be written: it is the cache, and sound. `false` has another file opened, or this one
    /// anew, in which case it is recovered.
    fn is_ready(&self, open_file: &OpenFile) -> Result<bool> {
        let header = open_file.journal().header;
        match header.storage.load(word::STATE) {
            state::LIVE if self.is_path_check_due() && !open_file.is_at_path() => return Ok(false),
            state::LIVE => {}
            // Nobody holds the lock, so whoever was moving the file died.
            state::MOVING if open_file.is_at_path() => header.store(word::STATE, state::LIVE)?,
            _ => return Ok(false),
        }
        Ok(header.is_sound())
    }
}

/// The lock, held: the one who may write. It goes with this value, so an operation ends its hold by dropping it, before
/// it copies or checks what may be long.
pub(crate) struct Writer<'a> {
    pub(crate) store: &'a Store,
    open_file: Arc<OpenFile>,
    _guard: WriteGuard<'a>,
}

impl Writer<'_> {
    pub(crate) fn open_file(&self) -> &Arc<OpenFile> {
        &self.open_file
    }

    pub(crate) fn journal(&self) -> Journal<'_> {
        self.open_file().journal()
    }

    /// Appends records. If damage keeps the index from taking them, it is made anew. An error behind the publishing
    /// leaves the records in the log: they count from the next hold on.
    pub(crate) fn append(&self, drafts: &mut [Draft<'_>]) -> Result<Vec<u64>> {
        Ok(self.try_append(drafts, Effort::Full)?.0)
    }

    /// As [`append`](Writer::append). `false`: that is too much effort, and is left to the next holder of the lock.
    #[inline]
    pub(crate) fn try_append(
        &self,
        drafts: &mut [Draft<'_>],
        effort: Effort,
    ) -> Result<(Vec<u64>, bool)> {
        let offsets = self.journal().write(drafts)?;
        let apply = || self.journal().apply_all(drafts, &offsets);
        match apply() {
            Err(Error::Damaged { .. } | Error::TooLarge { .. }) if effort == Effort::Brief => {
                return Ok((offsets, false));
            }
            Err(error) => {
                Store::or_make_index(self.open_file(), Err(error))?;
                // A key for which a sound index has no room either is an error.
                apply()?;
            }
            Ok(()) => {}
        }
        Ok((offsets, true))
    }

    /// Commits a large value: the reserved record, whose payload is written by now, becomes that value. A record of
    /// its own says so at the tail, where who redoes or copies what came since a point in the log does not miss it;
    /// that the pad becomes a value follows from it, as the index does.
    pub(crate) fn commit(&self, offset: u64) -> Result<()> {
        let (place, seed) = (offset.to_le_bytes(), self.journal().superblock.seed);
        self.append(&mut [Draft::new(Kind::COMMIT, Identity::NONE, &place, seed)]).map(drop)
    }
}
