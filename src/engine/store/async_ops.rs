//! Finding and storing for tasks: no poll waits for a lock, nor for a file that must be opened first.
//!
//! ```text
//!   the task's thread            a thread of the pool             the task, not its thread
//!   ---------------------------  -------------------------------  -------------------------------
//!   a look in the open file      opening a file                   waits for a lock that others hold
//!   a put of up to 64 KiB        a look at a longer value         waits for a place in the queue
//!                                a longer put; what a killed
//!                                holder of the lock left
//! ```
//!
//! A task first tries what takes no wait, where it is ([`Effort::Brief`]). If that finds that there is more to do,
//! it changes nothing and says so ([`Unmet`]), and the whole of it becomes a job. A lock that others hold is tried
//! again after a sleep: a task that waited in the kernel would hold its thread, and a job that waited would hold
//! one of four that all caches share.

use super::put::PutProgress;
use super::{Store, StoreLookup, Unmet};
use crate::engine::file::deadline::Deadline;
use crate::engine::file::effort::Effort;
use crate::engine::file::expiry::ExpiryRule;
use crate::engine::file::open::TRIES;
use crate::engine::file::open_file::OpenFile;
use crate::engine::format::record::Identity;
use crate::engine::os::task::{offload, sleep};
use crate::error::{Error, Result};
use std::sync::Arc;
use std::time::Duration;

/// How long a task waits before it tries a lock again that others hold.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(8);

/// A wait for a lock, tried again and again until the deadline.
struct LockRetry {
    deadline: Deadline,
    pause: Duration,
}

impl LockRetry {
    fn of(store: &Store) -> LockRetry {
        LockRetry { deadline: store.deadline(), pause: PAUSE_MIN }
    }

    /// Waits before the next attempt; the error, if there is no time for one.
    async fn wait(&mut self, store: &Store) -> Result<()> {
        let left =
            self.deadline.left().ok_or_else(|| self.deadline.passed(&store.location.path))?;
        sleep(self.pause.min(left)).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}

impl Store {
    /// As [`open_file`](Store::open_file), without blocking the thread.
    pub(crate) async fn open_file_async(self: &Arc<Self>) -> Result<Arc<OpenFile>> {
        let mut retry = LockRetry::of(self);
        for _ in 0..TRIES {
            match self.known() {
                Some(open_file) => return Ok(open_file),
                None => self.follow_async(None, &mut retry).await?,
            }
        }
        Err(self.unstable())
    }

    /// As [`find`](Store::find), without blocking the thread. A value that is too long for the task's thread is
    /// looked at by another, which has `examine` look at it too.
    pub(crate) async fn find_async<X>(
        self: &Arc<Self>,
        identity: &Identity,
        expiry: ExpiryRule,
        examine: X,
    ) -> Result<StoreLookup>
    where
        X: Fn(StoreLookup) -> StoreLookup + Copy + Send + 'static,
    {
        match self.find_here(identity, expiry, Effort::Brief)? {
            Ok(found) => Ok(found),
            Err(unmet) => self.find_there_async(unmet, identity, expiry, examine).await,
        }
    }

    /// As [`find_async`](Store::find_async), by one who has looked here.
    pub(crate) async fn find_there_async<X>(
        self: &Arc<Self>,
        mut unmet: Unmet,
        identity: &Identity,
        expiry: ExpiryRule,
        examine: X,
    ) -> Result<StoreLookup>
    where
        X: Fn(StoreLookup) -> StoreLookup + Copy + Send + 'static,
    {
        let mut retry = LockRetry::of(self);
        for _ in 0..TRIES {
            let looked = match unmet {
                Unmet::Elsewhere(old) => {
                    self.follow_async(old, &mut retry).await?;
                    self.find_here(identity, expiry, Effort::Brief)?
                }
                Unmet::Long => {
                    let (store, identity) = (Arc::clone(self), *identity);
                    let look = move || store.find_here(&identity, expiry, Effort::Full);
                    let found = offload(move || look().map(|found| found.map(examine))).await?;
                    // A hit is counted by the thread whose call it is.
                    found.map(|found| StoreLookup { pin: self.pin_of(&found.open_file), ..found })
                }
            };
            unmet = match looked {
                Ok(found) => return Ok(found),
                Err(unmet) => unmet,
            };
        }
        Err(self.unstable())
    }

    /// Puts by `attempt`, a [`try_put`](Store::try_put), as often as it takes: on this thread for as long as that
    /// is brief, else on another. Waits for the lock as long as the cache's options say.
    pub(crate) async fn put_async<A>(
        self: &Arc<Self>,
        mut effort: Effort,
        mut attempt: A,
    ) -> Result<Option<StoreLookup>>
    where
        A: Fn(&Store, Effort, &mut PutProgress) -> Result<Result<Option<StoreLookup>, Unmet>>
            + Send
            + 'static,
    {
        let (mut retry, mut progress, mut moves) = (LockRetry::of(self), PutProgress::default(), 0);
        loop {
            let attempted;
            match effort {
                Effort::Brief => attempted = attempt(self, effort, &mut progress),
                Effort::Full => {
                    let store = Arc::clone(self);
                    let work = move || {
                        let attempted = attempt(&store, effort, &mut progress);
                        (attempt, progress, attempted)
                    };
                    (attempt, progress, attempted) = offload(work).await;
                }
            }
            match attempted {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(Unmet::Long)) => effort = Effort::Full,
                Ok(Err(Unmet::Elsewhere(_))) if moves == TRIES => return Err(self.unstable()),
                Ok(Err(Unmet::Elsewhere(old))) => {
                    moves += 1;
                    self.follow_async(old, &mut retry).await?;
                }
                Err(Error::Locked { .. }) => retry.wait(self).await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Has the file opened that the cache is in now, in place of `old`.
    async fn follow_async(
        self: &Arc<Self>,
        mut old: Option<Arc<OpenFile>>,
        retry: &mut LockRetry,
    ) -> Result<()> {
        loop {
            // The old file is left by the first attempt, and held on to by no later one.
            let (store, old) = (Arc::clone(self), old.take());
            match offload(move || store.try_follow(old)).await {
                Err(Error::Locked { .. }) => retry.wait(self).await?,
                result => return result,
            }
        }
    }

    pub(crate) fn unstable(&self) -> Error {
        Error::Unstable { path: self.location.path.clone() }
    }
}
