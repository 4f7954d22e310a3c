//! How long a lock is waited for, and for whatever else another process may be at: to a deadline and no longer,
//! since a stopped process must not stop this one.
//!
//! The file's lock is tried again and again, with pauses that double. A wait in the kernel has no deadline that is
//! not a signal, and a signal is the program's and not a library's.

use crate::engine::os::file::{CacheFile, Storage as _};
use crate::error::{Error, Result};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The pauses between attempts double, between these two.
const BACKOFF_MIN: Duration = Duration::from_micros(20);
const BACKOFF_MAX: Duration = Duration::from_millis(2);

/// A point in time to give up at. The clock is first looked at when there is something to wait for.
#[derive(Debug)]
pub(crate) struct Deadline {
    start: OnceLock<Instant>,
    timeout: Duration,
    /// Whether a file's lock may be taken at all, and a file verified.
    takes_locks: bool,
}

impl Deadline {
    pub(crate) fn after(timeout: Duration) -> Deadline {
        Deadline { start: OnceLock::new(), timeout, takes_locks: true }
    }
    /// The caller takes no file's lock, even if it is free, and verifies no file: there may be much to do.
    pub(crate) fn without_locks() -> Deadline {
        Deadline { takes_locks: false, ..Deadline::after(Duration::ZERO) }
    }
    /// Fails for such a one.
    pub(crate) fn permit(&self, path: &Path) -> Result<()> {
        if self.takes_locks { Ok(()) } else { Err(self.passed(path)) }
    }
    /// How long it is until then; `None` once it has passed.
    pub(crate) fn left(&self) -> Option<Duration> {
        let waited = self.start.get_or_init(Instant::now).elapsed();
        self.timeout.checked_sub(waited).filter(|left| !left.is_zero())
    }
    pub(crate) fn passed(&self, path: &Path) -> Error {
        Error::Locked { path: path.to_path_buf(), waited: self.timeout }
    }
}

/// Takes a file's lock, trying again and again until the deadline.
pub(crate) fn lock_file(file: &CacheFile, deadline: &Deadline) -> Result<()> {
    deadline.permit(file.path())?;
    try_until(deadline, file.path(), || file.try_lock().map_err(Error::io("lock", file.path())))
}

/// Tries what another process may be at, again and again until it is done or the deadline passes.
pub(crate) fn try_until(
    deadline: &Deadline,
    path: &Path,
    mut attempt: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let mut pause = BACKOFF_MIN;
    while !attempt()? {
        let left = deadline.left().ok_or_else(|| deadline.passed(path))?;
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(BACKOFF_MAX);
    }
    Ok(())
}
