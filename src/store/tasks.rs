//! Finding and storing for tasks: no poll waits for a lock, nor for a file that must be opened first. A task
//! tries what takes no wait, on its own thread where it is brief; opening, and copying large payloads, are a
//! thread of the pool's; and waits for a lock are the task's, which tries again after a while.

use super::expiry::View;
use super::gate::Deadline;
use super::open::TRIES;
use super::region::Region;
use super::write::Progress;
use super::{Elsewhere, Found, Store};
use crate::error::{Error, Result};
use crate::format::record::Identity;
use crate::sys::task::{offload, sleep};
use std::sync::Arc;
use std::time::Duration;

/// How long a task waits before it tries a lock again that others hold.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(8);

/// A wait for a lock, tried again and again until the deadline.
struct Patience {
    deadline: Deadline,
    pause: Duration,
}

impl Patience {
    fn of(store: &Store) -> Patience {
        Patience { deadline: store.deadline(), pause: PAUSE_MIN }
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
    /// As [`region`](Store::region), without blocking the thread.
    pub(crate) async fn region_async(self: &Arc<Self>) -> Result<Arc<Region>> {
        let mut patience = Patience::of(self);
        for _ in 0..TRIES {
            match self.known() {
                Some(region) => return Ok(region),
                None => self.follow_async(Elsewhere(None), &mut patience).await?,
            }
        }
        Err(self.unstable())
    }

    /// As [`find`](Store::find), without blocking the thread.
    pub(crate) async fn find_async(
        self: &Arc<Self>,
        identity: &Identity,
        view: View,
    ) -> Result<Found> {
        match self.find_here(identity, view)? {
            Ok(found) => Ok(found),
            Err(elsewhere) => self.find_there_async(elsewhere, identity, view).await,
        }
    }

    /// As [`find`](Store::find), without blocking the thread, by one who knows that another file must be
    /// opened.
    pub(crate) async fn find_there_async(
        self: &Arc<Self>,
        mut elsewhere: Elsewhere,
        identity: &Identity,
        view: View,
    ) -> Result<Found> {
        let mut patience = Patience::of(self);
        for _ in 0..TRIES {
            self.follow_async(elsewhere, &mut patience).await?;
            elsewhere = match self.find_here(identity, view)? {
                Ok(found) => return Ok(found),
                Err(elsewhere) => elsewhere,
            };
        }
        Err(self.unstable())
    }

    /// Puts by `attempt`, a [`try_put`](Store::try_put), as often as it takes: on this thread if that is
    /// brief, else on another. Waits for the lock as long as the cache's options say.
    pub(crate) async fn put_async<A>(
        self: &Arc<Self>,
        is_brief: bool,
        attempt: A,
    ) -> Result<Option<Found>>
    where
        A: Fn(&Store, &mut Progress) -> Result<Result<Option<Found>, Elsewhere>> + Send + 'static,
    {
        let mut patience = Patience::of(self);
        let (mut attempt, mut progress, mut moves) = (attempt, Progress::default(), 0);
        loop {
            let attempted = if is_brief {
                attempt(self, &mut progress)
            } else {
                let store = Arc::clone(self);
                let work = move || {
                    let attempted = attempt(&store, &mut progress);
                    (attempt, progress, attempted)
                };
                let attempted;
                (attempt, progress, attempted) = offload(work).await;
                attempted
            };
            match attempted {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(_)) if moves == TRIES => return Err(self.unstable()),
                Ok(Err(elsewhere)) => {
                    moves += 1;
                    self.follow_async(elsewhere, &mut patience).await?;
                }
                Err(Error::Locked { .. }) => patience.wait(self).await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Has the file opened that the cache is in now.
    async fn follow_async(
        self: &Arc<Self>,
        elsewhere: Elsewhere,
        patience: &mut Patience,
    ) -> Result<()> {
        // The old file is left by the first attempt, and held on to by no later one.
        let mut old = elsewhere.0;
        loop {
            let (store, elsewhere) = (Arc::clone(self), Elsewhere(old.take()));
            match offload(move || store.try_follow(elsewhere)).await {
                Err(Error::Locked { .. }) => patience.wait(self).await?,
                result => return result,
            }
        }
    }

    pub(crate) fn unstable(&self) -> Error {
        Error::Unstable { path: self.location.path.clone() }
    }
}
