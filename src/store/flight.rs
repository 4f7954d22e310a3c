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
use crate::format::record::Identity;
use crate::sys::claims::Claims;
use crate::sys::task::sleep;
use std::cell::Cell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// The computations under way in this process.
#[derive(Default)]
pub(crate) struct Flights {
    under_way: Mutex<HashMap<Identity, Arc<Flight>>>,
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
    wakers: Vec<Waker>,
}

impl Flight {
    pub(crate) fn land(&self) {
        let wakers = {
            let mut progress = lock(&self.progress);
            progress.is_over = true;
            std::mem::take(&mut progress.wakers)
        };
        self.landed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits until the flight is over, or so long.
    pub(crate) fn wait(&self, timeout: Duration) {
        let progress = lock(&self.progress);
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
    /// Enters a flight; or the one that is under way.
    pub(crate) fn enter(&self, identity: &Identity) -> Result<Arc<Flight>, Arc<Flight>> {
        let mut under_way = lock(&self.under_way);
        if let Some(flight) = under_way.get(identity) {
            return Err(Arc::clone(flight));
        }
        let flight = Arc::<Flight>::default();
        under_way.insert(*identity, Arc::clone(&flight));
        Ok(flight)
    }

    /// Ends a flight, if it is of this process.
    pub(crate) fn leave(&self, identity: &Identity, flight: &Arc<Flight>) {
        let mut under_way = lock(&self.under_way);
        if under_way.get(identity).is_some_and(|other| Arc::ptr_eq(other, flight)) {
            under_way.remove(identity);
        }
        drop(under_way);
        flight.land();
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
