//! The write lock: first among the threads of this process, then among processes by the file's lock.
//!
//! The system's file locks exclude processes and not threads, so one of each is needed. Both wait to a deadline and
//! no longer: a stopped process must not stop this one. While other threads of this process wait, the file's lock
//! stays taken from one holder to the next, [`HANDOVER_MAX`] times at most, since taking it is half of what an
//! append costs. After that other processes have their turn.
//!
//! ```text
//!   thread 1   enter | lock the file | append | drop: two wait, hand on
//!   thread 2   enter (waits)                  | woken; has the file's lock already | append | drop: hand on
//!   thread 3   enter (waits)                                                       | woken   | append | drop: nobody
//!   the file   free  | locked ------------------------------------------------------------------------| free
//! ```
//!
//! Order of the locks: `inner` is held for a few instructions, never while the file's lock is waited for and never
//! while a record is written. The file's lock is taken by the one thread that holds the guard. So no two threads of
//! this process contend for the file's lock, whose waiting is by sleeps.
//!
//! A file that was handed on may be the wrong one by then: the next holder wants the file that is the cache now, and
//! [`WriteGuard::lock`] gives the other one back first.
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

/// One writer at a time in this process. A `Mutex` that is held for as long as one writes would do, but that a wait for
/// it has no deadline: hence a flag under a mutex, and a condition to wait for with a timeout.
#[derive(Default)]
pub(crate) struct WriteLock {
    inner: Mutex<Inner>,
    freed: Condvar,
}

#[derive(Default)]
struct Inner {
    /// Whether a guard exists.
    is_held: bool,
    /// How many threads wait for it.
    waiting: u32,
    /// How often in a row the file's lock was handed on.
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
    /// Waits until this thread is the one writer of the process; [`Error::Locked`](crate::Error::Locked) once the
    /// deadline has passed, and at once if that is none and another thread writes. `path` is for the error.
    ///
    /// Threads are not served in the order in which they came: one that enters just when the guard is dropped may be
    /// before the one that was woken, which then goes on waiting. The deadline bounds that, too.
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
    /// Gives a file's lock back that was handed on to nobody. A waiter takes what is free before it looks at its
    /// deadline, so nobody gives up with the lock handed on: this is for the case that the order changes.
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
    /// Locks the file of `open_file`, and unlocks any other. Nothing is done, and no system call made, if it is locked
    /// already: handed on, or by a smaller map of the same file. On failure no file is locked.
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

/// Hands the file's lock on to a thread that waits, or gives it back if none does, or if other processes are to have
/// their turn. In the latter case the thread that is woken takes it anew, in competition with them.
impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        let mut inner = lock(&self.lock.inner);
        inner.is_held = false;
        let is_handed_on = inner.waiting > 0 && inner.handovers < HANDOVER_MAX;
        inner.handovers = if is_handed_on { inner.handovers + 1 } else { 0 };
        inner.locked = self.locked.take();
        // Under the mutex: the file's lock is that of the open file, whichever thread took it. A thread that entered
        // meanwhile would get it without waiting, and lose it by this.
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
