//! What a holder of the lock leaves who is killed, and what the next one does about it: bytes that are not published
//! are wiped, and records that are published are applied once more.

use super::journal::Journal;
use super::op::{self, Op};
use super::walk::{Step, Walk};
use crate::engine::format::header::word;
use crate::error::Result;

impl Journal<'_> {
    /// Whether no holder of the lock who was killed left anything to erase or to redo.
    pub(crate) fn is_finished(&self) -> Result<bool> {
        Ok(!self.has_unpublished(self.seq()?)? && !self.is_behind()?)
    }

    /// Whether something was written and not published, as of the last number that was taken.
    pub(crate) fn has_unpublished(&self, seq: u64) -> Result<bool> {
        Ok(self.header.get(word::PUBLISHED)? != seq)
    }

    /// Whether something is published that may not be in the index.
    fn is_behind(&self) -> Result<bool> {
        Ok(self.header.get(word::APPLIED)? < self.tail()?)
    }

    /// Erases what a holder of the lock has not published, who was killed or failed, on the device too.
    pub(crate) fn wipe_unpublished(&self) -> Result<()> {
        let seq = self.seq()?;
        if !self.has_unpublished(seq)? {
            return Ok(());
        }
        let size = self.storage().size().map_err(self.io("look at"))?;
        let end = self.header.get(word::ALLOCATED)?.min(size);
        // Of the space that was taken for a large value nothing has been written, and no more is cleared than was.
        self.storage().erase(self.tail()?, end).map_err(self.io("clear"))?;
        // Whatever is there by now: zeros that another one wrote who died before they were synced are none.
        self.sync()?;
        self.header.set(word::PUBLISHED, seq)
    }

    /// Finishes what a holder of the lock who was killed has published. After a power cut, no table is
    /// believed to be empty.
    pub(crate) fn redo(&self, after_power_cut: bool) -> Result<()> {
        if !self.is_behind()? {
            return Ok(());
        }
        let (applied, mut live) = (self.header.get(word::APPLIED)?, self.live()?);
        let records = live.records;
        let mut walk = Walk::new(self.storage(), self.superblock.seed, applied, records.end);
        while let Some(step) = walk.next().map_err(self.io("read"))? {
            let Step::Record(offset, head) = step else { continue };
            let op = Op::decode(offset, &head);
            if let (Op::Clear(table), true) = (op, after_power_cut) {
                self.storage().zero(table.offset(), table.end()).map_err(self.io("clear"))?;
            }
            op::apply(op, offset, &head, &records, &mut live)?;
        }
        self.mark_applied()
    }
}
