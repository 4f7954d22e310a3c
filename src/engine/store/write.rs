//! The store's other changes: batches, remove, clear, delete, sync. Each holds the lock for no longer than its
//! bytes take to be copied; nothing of the user's runs meanwhile.

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
    pub(crate) fn clear(&self) -> Result<()> {
        let writer = self.lock_as_left(&self.deadline())?;
        let cleared =
            self.finish_others(writer.open_file()).and_then(|()| writer.journal().clear());
        cleared.or_else(|_| self.remove_file(writer))
    }

    /// Removes the file. Whoever uses the cache afterwards creates it anew.
    pub(crate) fn delete(&self) -> Result<()> {
        self.remove_file(self.lock_as_left(&self.deadline())?)?;
        place::sync_directory(&self.location.path)
    }

    /// Removes the locked file, and lets go of it.
    fn remove_file(&self, writer: Writer<'_>) -> Result<()> {
        writer.unlink()?;
        let open_file = Arc::clone(writer.open_file());
        drop(writer);
        self.leave(&open_file);
        Ok(())
    }

    /// Brings everything to the device, and with it a checkpoint that makes opening after a reboot
    /// quick.
    pub(crate) fn sync(&self) -> Result<()> {
        let (open_file, tail) = {
            let writer = self.lock()?;
            let journal = writer.journal();
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
            header.set(word::SYNCED, tail.max(header.get(word::SYNCED)?))?;
        }
        Ok(())
    }
}

impl Writer<'_> {
    /// Removes the file's name. Readers see it by the state; who holds values holds the file.
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
