//! One computation per key. Who misses first leads: its flight is entered in this process's list, and
//! its key claimed before other processes by a lock of the kernel's, which no death outlives. The
//! others wait until the flight is over, and look again; if it brought nothing, the next of them leads.
//! Hits never look at any of this, and distinct keys never wait for each other.
//!
//! No wait is for ever. Who leads a flight, or is called by one who does, waits for nobody: it computes
//! what another is computing. So circles cannot close, in one process or across several. Where a
//! leader depends on another thread or task of its own, which cannot be seen, there is the deadline.
//! How a call goes through this is in [`approach`](super::approach).

use super::share::lock;
use crate::sys::claims::Claims;
use crate::sys::task::sleep;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// The computations under way in this process.
#[derive(Default)]
pub(crate) struct Flights {
    /// By their keys' hashes: two of one hash, one in 2^64, would wait for each other and no more. With
    /// each what others wait at, once there are any.
    under_way: Mutex<BTreeMap<u64, Option<Arc<Flight>>>>,
    /// `None`: there can be no sidecar, and processes do not wait for each other.
    pub(crate) claims: OnceLock<Option<Claims>>,
}

/// A computation, for those who wait for it.
#[derive(Default)]
pub(crate) struct Flight {
    progress: Mutex<Progress>,
    landed: Condvar,
}

#[derive(Default)]
struct Progress {
    is_over: bool,
    /// Threads that wait.
    waiting: u32,
    /// Tasks that wait.
    wakers: Vec<Waker>,
}

impl Flight {
    fn land(&self) {
        let (waiting, wakers) = {
            let mut progress = lock(&self.progress);
            progress.is_over = true;
            (progress.waiting, std::mem::take(&mut progress.wakers))
        };
        if waiting > 0 {
            self.landed.notify_all(); // A system call, so not for nobody.
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits until the flight is over, or so long.
    pub(crate) fn wait(&self, timeout: Duration) {
        let mut progress = lock(&self.progress);
        progress.waiting += 1;
        let is_under_way = |progress: &mut Progress| !progress.is_over;
        let waited = self.landed.wait_timeout_while(progress, timeout, is_under_way);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// As [`wait`](Flight::wait), without blocking the thread.
    pub(crate) async fn wait_async(&self, timeout: Duration) {
        let mut timeout = pin!(sleep(timeout));
        poll_fn(|context| match self.poll(context) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => timeout.as_mut().poll(context),
        })
        .await;
    }

    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let mut progress = lock(&self.progress);
        if progress.is_over {
            return Poll::Ready(());
        }
        let waker = context.waker();
        if !progress.wakers.iter().any(|other| other.will_wake(waker)) {
            progress.wakers.push(waker.clone());
        }
        Poll::Pending
    }
}

impl Flights {
    /// Enters a flight; `false` if one is under way.
    pub(crate) fn enter(&self, key: u64) -> bool {
        match lock(&self.under_way).entry(key) {
            Entry::Vacant(place) => place.insert(None).is_none(),
            Entry::Occupied(_) => false,
        }
    }

    /// The flight that is under way, to wait for; `None` if it is over.
    pub(crate) fn join(&self, key: u64) -> Option<Arc<Flight>> {
        let mut under_way = lock(&self.under_way);
        Some(Arc::clone(under_way.get_mut(&key)?.get_or_insert_default()))
    }

    /// Ends a flight.
    pub(crate) fn leave(&self, key: u64) {
        let flight = lock(&self.under_way).remove(&key);
        if let Some(Some(flight)) = flight {
            flight.land();
        }
    }
}

thread_local! {
    /// How many leads the running code is called by.
    static LEADING: Cell<u32> = const { Cell::new(0) };
}

/// What runs while this is there is called by a leader. It follows the task: async code has one for
/// each poll.
pub(crate) struct Leading(());

impl Leading {
    pub(crate) fn new() -> Leading {
        let _ = LEADING.try_with(|leading| leading.set(leading.get() + 1)); // Or the thread is ending.
        Leading(())
    }

    /// Whether the running code is called by a leader.
    pub(crate) fn is_there() -> bool {
        LEADING.try_with(|leading| leading.get() > 0).unwrap_or(true)
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        let _ = LEADING.try_with(|leading| leading.set(leading.get() - 1));
    }
}
