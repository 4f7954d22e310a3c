//! The write lock: first among the threads of this process, then among processes by the file's lock.
//!
//! The system's file locks exclude processes and not threads, so one of each is needed. Both wait to a deadline and
//! no longer: a stopped process must not stop this one. While other threads of this process wait, the file's lock
//! stays taken from one holder to the next, [`HANDOVER_MAX`] times at most, since taking it is half of what an
//! append costs. After that other processes have their turn.
//!
//! A mutex in the shared file would be faster. It is rejected: nobody gives it back for a process that was killed,
//! but by a protocol of its own; the kernel does so with a file's lock.

use super::pin::lock;
use crate::engine::file::deadline::{Deadline, lock_file};
use crate::engine::file::open_file::OpenFile;
use crate::error::Result;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// How often the file's lock may be handed on before other processes get their turn.
const HANDOVER_MAX: u32 = 64;

/// One writer at a time in this process.
#[derive(Default)]
pub(crate) struct WriteLock {
    inner: Mutex<Inner>,
    freed: Condvar,
}

#[derive(Default)]
struct Inner {
    is_held: bool,
    waiting: u32,
    handovers: u32,
    /// The open file that is locked, for the next holder.
    locked: Option<Arc<OpenFile>>,
}

/// The lock, held among threads; and the file's, if it is locked.
pub(crate) struct WriteGuard<'a> {
    lock: &'a WriteLock,
    /// The open file that is locked.
    locked: Option<Arc<OpenFile>>,
}

impl WriteLock {
    pub(crate) fn enter(&self, deadline: &Deadline, path: &Path) -> Result<WriteGuard<'_>> {
        let mut inner = lock(&self.inner);
        inner.waiting += 1;
        while inner.is_held {
            let Some(left) = deadline.left() else {
                inner.waiting -= 1;
                inner.unlock_if_unwanted();
                return Err(deadline.passed(path));
            };
            let waited = self.freed.wait_timeout(inner, left);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        inner.waiting -= 1;
        inner.is_held = true;
        Ok(WriteGuard { lock: self, locked: inner.locked.take() })
    }
}

impl Inner {
    fn unlock_if_unwanted(&mut self) {
        if !self.is_held
            && self.waiting == 0
            && let Some(open_file) = self.locked.take()
        {
            open_file.file().unlock();
        }
    }
}

impl WriteGuard<'_> {
    /// Locks the file of `open_file`, and unlocks any other.
    pub(crate) fn lock(&mut self, open_file: &Arc<OpenFile>, deadline: &Deadline) -> Result<()> {
        if self.locked.as_ref().is_some_and(|locked| Arc::ptr_eq(locked, open_file)) {
            return Ok(());
        }
        if let Some(locked) = self.locked.as_mut().filter(|locked| locked.is_same_file(open_file)) {
            *locked = Arc::clone(open_file); // Which may be in a larger map by now.
            return Ok(());
        }
        self.unlock();
        lock_file(open_file.file(), deadline)?;
        self.locked = Some(Arc::clone(open_file));
        Ok(())
    }

    /// Gives the file's lock back and keeps this process's.
    pub(crate) fn unlock(&mut self) {
        if let Some(open_file) = self.locked.take() {
            open_file.file().unlock();
        }
    }
}

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        let mut inner = lock(&self.lock.inner);
        inner.is_held = false;
        let is_handed_on = inner.waiting > 0 && inner.handovers < HANDOVER_MAX;
        inner.handovers = if is_handed_on { inner.handovers + 1 } else { 0 };
        inner.locked = self.locked.take();
        if !is_handed_on && let Some(open_file) = inner.locked.take() {
            open_file.file().unlock();
        }
        let is_awaited = inner.waiting > 0;
        drop(inner);
        if is_awaited {
            self.lock.freed.notify_one(); // A system call, so not for nobody.
        }
    }
}
