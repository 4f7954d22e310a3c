//! The store's other changes: batches, remove, clear, delete, sync. Each holds the lock for no longer than its
//! bytes take to be copied; nothing of the user's runs meanwhile.
//!
//! | | what is written | when it has happened | after a power cut before a sync |
//! | --- | --- | --- | --- |
//! | batch | the records of a stretch of small values | with one store of TAIL: all or none | any part of it |
//! | remove | a tombstone, also for an absent key | with TAIL | maybe |
//! | clear | a record that holds an empty table | with TAIL | maybe |
//! | delete | STATE, and the name is removed | with the name | it returns when the name is off the device |
//! | sync | a checkpoint; SYNCED | when it returns | it is there |
//!
//! Each of them happens for all processes at once. A hit that began before may still return what was there.
//!
//! Emptying the file by cutting it would be the simplest clear. It is rejected: a process that holds a value in its
//! map would get a signal when it reads it.

use super::Store;
use super::put::{Entry, PutCondition, ScopeRecord, announce};
use super::writer::Writer;
use crate::engine::file::effort::Effort;
use crate::engine::file::expiry::ExpiryRule;
use crate::engine::file::handover::complete_move;
use crate::engine::format::header::{state, word};
use crate::engine::format::record::{Identity, Kind};
use crate::engine::log::journal::Draft;
use crate::engine::os::file::Storage as _;
use crate::engine::os::place;
use crate::error::{Error, Result};
use std::sync::Arc;

impl Store {
    /// Stores values, each stretch of small ones under one lock, and each large one by itself.
    ///
    /// Their order is kept: of two values for one key the later one is found
    /// (`a_batch_copies_its_large_values_without_the_lock_and_keeps_its_order`). All sizes are looked at first, so that
    /// one which is too large is an error before anything is stored. An error later leaves the stretches before it
    /// stored.
    pub(crate) fn put_many(&self, entries: &[Entry<'_>], scope: &ScopeRecord<'_>) -> Result<()> {
        entries.iter().try_for_each(|entry| entry.check_size(self.location.access))?;
        for stretch in entries.chunk_by(|one, next| !one.is_large() && !next.is_large()) {
            match stretch {
                [one] if one.is_large() => {
                    self.put(one, scope, PutCondition::Replace, &self.deadline()).map(drop)?;
                }
                small => self.put_batch(small, scope)?,
            }
        }
        Ok(())
    }

    /// Small values under one hold, published together. Their checks are made before the lock, as in a put; and once
    /// more under it, if the cache was deleted and made anew in between and has another seed.
    fn put_batch(&self, entries: &[Entry<'_>], scope: &ScopeRecord<'_>) -> Result<()> {
        let seed = self.open_file()?.superblock.seed;
        let mut drafts: Vec<_> = entries.iter().map(|entry| entry.draft(seed)).collect();
        let writer = self.lock()?;
        let journal = writer.journal();
        if journal.superblock.seed != seed {
            drafts = entries.iter().map(|entry| entry.draft(journal.superblock.seed)).collect();
        }
        announce(&writer, scope, Effort::Full)?;
        let offsets = writer.append(&mut drafts)?;
        // Below the tail by now: see `stored` in `put`.
        if let Some(map) = writer.open_file().map() {
            let valid = offsets.iter().zip(entries).filter(|(_, entry)| entry.is_valid);
            valid.filter_map(|(offset, _)| map.record(*offset)).for_each(|own| map.mark(&own));
        }
        Ok(())
    }

    /// Removes what `identity` has; `true` if that was a value that counts by `expiry`, whether or not its payload
    /// is whole. The removal is recorded in any case: a computation under way must not bring the key back.
    pub(crate) fn remove(&self, identity: &Identity, expiry: ExpiryRule) -> Result<bool> {
        let writer = self.lock()?;
        let newest = writer.journal().locate(identity);
        let was_there = newest.is_some_and(|(offset, _)| writer.has_value_at(offset, expiry));
        let seed = writer.journal().superblock.seed;
        writer.append(&mut [Draft::new(Kind::TOMBSTONE, *identity, &[], seed)])?;
        Ok(was_there)
    }

    /// Removes everything. On a disk too full for the record that says so, the file itself goes: the
    /// next use creates an empty one.
    ///
    /// Whatever keeps the record from being appended leads to that, and not a full disk alone: who clears a cache wants
    /// it empty. The new file is another cache, so tokens of before store nothing in it.
    pub(crate) fn clear(&self) -> Result<()> {
        let writer = self.lock_as_left(&self.deadline())?;
        let cleared =
            self.finish_others(writer.open_file()).and_then(|()| writer.journal().clear());
        cleared.or_else(|_| self.remove_file(writer))
    }

    /// Removes the file. Whoever uses the cache afterwards creates it anew. With the name off the device when it
    /// returns: a power cut does not bring the cache back.
    pub(crate) fn delete(&self) -> Result<()> {
        self.remove_file(self.lock_as_left(&self.deadline())?)?;
        place::sync_directory(&self.location.path)
    }

    /// Removes the locked file, gives its lock back, and lets go of it.
    fn remove_file(&self, writer: Writer<'_>) -> Result<()> {
        writer.unlink()?;
        let open_file = Arc::clone(writer.open_file());
        drop(writer);
        self.leave(&open_file);
        Ok(())
    }

    /// Brings everything to the device, and with it a checkpoint that makes opening after a reboot
    /// quick.
    ///
    /// Everything that was stored before the call, by whomever. The lock is held twice and not while the device is at
    /// work, so writers go on; what they store meanwhile may be on the device afterwards or not. SYNCED is raised only
    /// then, and to the tail of before: recovery believes what lies below it. Killed in between, all is on the device
    /// and SYNCED is low: the next recovery looks through more than it must.
    ///
    /// If the cache is compacted meanwhile, the old file was synced here and the new one by the compaction, so
    /// whichever has the name after a power cut has it all. SYNCED of the new file is left alone: its offsets are
    /// others.
    ///
    /// The directory is synced too, or a file that was just created might have no name after a power cut. It costs a
    /// pass over the index for its hash, under the lock, and the device's time; a second call without a put in between
    /// costs the latter alone.
    pub(crate) fn sync(&self) -> Result<()> {
        let (open_file, tail) = {
            let writer = self.lock()?;
            let journal = writer.journal();
            // Nothing came since: another checkpoint would make the file longer with each call.
            if journal.header.get(word::SYNCED)? == journal.tail()? {
                (Arc::clone(writer.open_file()), journal.tail()?)
            } else {
                journal.checkpoint()?;
                (Arc::clone(writer.open_file()), journal.tail()?)
            }
        };
        open_file.journal().sync()?;
        place::sync_directory(&self.location.path)?;
        let writer = self.lock()?;
        if writer.open_file().is_same_file(&open_file) {
            let header = writer.journal().header;
            // Another's sync, which began later, may have ended earlier.
            header.set(word::SYNCED, tail.max(header.get(word::SYNCED)?))?;
        }
        Ok(())
    }
}

impl Writer<'_> {
    /// Removes the file's name. Readers see it by the state; who holds values holds the file.
    ///
    /// In the order of every end of a file: MOVING, the name, MOVED (see
    /// [`handover`](crate::engine::file::handover)). The path is asked first, under the lock: a stranger may have put
    /// another file there, which is not to be removed.
    fn unlink(&self) -> Result<()> {
        let (file, header) = (self.open_file().file(), self.journal().header);
        let path = file.path();
        if !self.open_file().is_at_path() {
            return Err(Error::Unstable { path: path.to_path_buf() }); // What is there is not ours.
        }
        if let Err(full) = header.store(word::STATE, state::MOVING) {
            // Blocks are shared with a copy, and there is no space to change one. Readers see a state that
            // is none; and who meets a blank file replaces it, though not while it is locked.
            file.blank().map_err(|_| full)?;
            return place::remove(path);
        }
        complete_move(header, || place::remove(path))
    }
}
