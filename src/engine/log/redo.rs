//! What a holder of the lock leaves who is killed, and what the next one does about it: bytes that are not published
//! are wiped, and records that are published are applied once more.
//!
//! Two comparisons of words tell what is left:
//!
//! ```text
//!   PUBLISHED < SEQ     a number was taken: there may be bytes behind the tail     wipe_unpublished
//!   APPLIED   < TAIL    records are published that may not be in the index         redo
//! ```
//!
//! Each costs two loads of words when nothing is left, which is nearly always, so every hold begins with them. The
//! wiping comes first, since the redo may append (an index without room grows), and nothing is appended over bytes of
//! the dead.
//!
//! Why bytes behind the tail are wiped, though no slot leads there and no walk reads them. Record X was written at the
//! tail and never published; the device has got it; record Y is published in its place later; then the power fails:
//!
//! ```text
//!   without the wiping   | Y's page was lost: the device has X's bytes there, of the same file, with a valid head |
//!   with it, synced      | Y's page was lost: the device has zeros there                                         |
//! ```
//!
//! In the first case a recovery would take X, which never happened, for a record
//! (`bytes_behind_the_tail_never_come_back`). That is also why the sync is needed, and why whoever finds zeros there
//! must sync as well: their writer may have died before he did.
//!
//! The next holder may be killed in the midst of this. The words are raised last, so the one after him begins anew,
//! and nothing that is done twice changes anything (`nothing_is_lost_by_a_death_at_any_step_nor_by_a_second_one`).

use super::journal::Journal;
use super::op::{self, Op};
use super::walk::{Step, Walk};
use crate::engine::format::header::word;
use crate::error::Result;

impl Journal<'_> {
    /// Whether no holder of the lock who was killed left anything to erase or to redo. A task asks before it goes on:
    /// finishing such work takes a sync, and as long as there are records.
    pub(crate) fn is_finished(&self) -> Result<bool> {
        Ok(!self.has_unpublished(self.seq()?)? && !self.is_behind()?)
    }

    /// Whether something was written and not published, as of the last number that was taken. The caller has loaded it,
    /// and holds the lock: without that, a living writer is at it.
    pub(crate) fn has_unpublished(&self, seq: u64) -> Result<bool> {
        Ok(self.header.get(word::PUBLISHED)? != seq)
    }

    /// Whether something is published that may not be in the index.
    fn is_behind(&self) -> Result<bool> {
        Ok(self.header.get(word::APPLIED)? < self.tail()?)
    }

    /// Erases what a holder of the lock has not published, who was killed or failed, on the device too.
    ///
    /// Under the lock. It reads what was ever written between the tail and the end of the space, and writes zeros over
    /// what is not zero: for a killed put that is a page or two, however much space had been taken ahead
    /// (`what_a_killed_writer_left_is_cleared_whatever_space_he_took`). If erasing or syncing fails, PUBLISHED stays
    /// below SEQ: nothing is appended by anybody until it has succeeded.
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
    ///
    /// Under the lock, with nothing unpublished behind the tail. After a mere death the page cache has every store
    /// that was made, in their order, so a table in a clear's record is as empty as it was made. After a power cut
    /// the device may have kept slots of the table's later life, or bytes from before it: it is zeroed, and what came
    /// after the clear is applied again. An index that cannot take a record is an error, with APPLIED as it was.
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
