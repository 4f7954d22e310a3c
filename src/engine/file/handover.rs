//! A file in the place of another, or of nothing: the end of a locked file's life, by what happens to its name.
//!
//! The state says MOVING before the name changes and MOVED after it. Whoever finds MOVING looks which file is at the
//! path, and goes on with that; so it does not matter where between the two a process dies.

use super::open_file::OpenFile;
use crate::engine::format::header::{state, word};
use crate::engine::os::file::Storage as _;
use crate::engine::os::replacement::Replacement;
use crate::engine::words::HeaderWords;
use crate::error::{Error, Result};

/// Lets the new file take the place of a locked one. Who finds the state MOVING looks which file is
/// at the path; that also decides if this process dies in between.
pub(crate) fn take_place(old: &OpenFile, new: &Replacement) -> Result<()> {
    if !old.is_at_path() {
        return Err(Error::Unstable { path: old.file().path().to_path_buf() });
    }
    hand_over(old.journal().header, || new.publish(old.file().path(), old.file()))
}

/// Ends the life of a locked file by what `change` does to its name.
pub(crate) fn hand_over(
    header: HeaderWords<'_>,
    change: impl FnOnce() -> Result<()>,
) -> Result<()> {
    header.store(word::STATE, state::MOVING)?;
    complete_move(header, change)
}

/// The rest of it, once the state is MOVING.
pub(crate) fn complete_move(
    header: HeaderWords<'_>,
    change: impl FnOnce() -> Result<()>,
) -> Result<()> {
    if let Err(error) = change() {
        // MOVING says the same, as long as the file is at its path.
        let _ = header.store(word::STATE, state::LIVE);
        return Err(error);
    }
    // And when it is not any more: a disk too full for this word undoes nothing.
    let _ = header.store(word::STATE, state::MOVED);
    Ok(())
}
