//! A file in the place of another, or of nothing: the end of a locked file's life, by what happens to its name.
//!
//! The state says MOVING before the name changes and MOVED after it. Whoever finds MOVING looks which file is at the
//! path, and goes on with that; so it does not matter where between the two a process dies.

use super::region::Region;
use crate::engine::format::header::{state, word};
use crate::engine::os::file::Medium as _;
use crate::engine::os::replacement::Replacement;
use crate::engine::words::Ledger;
use crate::error::{Error, Result};

/// Lets the new file take the place of a locked one. Who finds the state MOVING looks which file is
/// at the path; that also decides if this process dies in between.
pub(crate) fn take_place(old: &Region, new: &Replacement) -> Result<()> {
    if !old.is_at_path() {
        return Err(Error::Unstable { path: old.file().path().to_path_buf() });
    }
    hand_over(old.journal().ledger, || new.publish(old.file().path(), old.file()))
}

/// Ends the life of a locked file by what `change` does to its name.
pub(crate) fn hand_over(ledger: Ledger<'_>, change: impl FnOnce() -> Result<()>) -> Result<()> {
    ledger.store(word::STATE, state::MOVING)?;
    complete_move(ledger, change)
}

/// The rest of it, once the state is MOVING.
pub(crate) fn complete_move(ledger: Ledger<'_>, change: impl FnOnce() -> Result<()>) -> Result<()> {
    if let Err(error) = change() {
        // MOVING says the same, as long as the file is at its path.
        let _ = ledger.store(word::STATE, state::LIVE);
        return Err(error);
    }
    // And when it is not any more: a disk too full for this word undoes nothing.
    let _ = ledger.store(word::STATE, state::MOVED);
    Ok(())
}
