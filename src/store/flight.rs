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
use crate::sys::waker::wake_all;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::future::poll_fn;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// The computations under way in this process.
#[derive(Default)]
pub(crate) struct Flights {
    /// By their keys' hashes: two of one hash, one in 2^64, would wait for each other and no more. With
    /// each what others wait at, once there are any.
    under_way: Mutex<BTreeMap<u64, Option<Arc<Flight>>>>,
    /// The sidecar, once it is needed.
    claims: Mutex<Option<Arc<Claims>>>,
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
    /// Tasks that wait, by their seats.
    wakers: BTreeMap<u64, Waker>,
    seats: u64,
    /// What was computed could not be stored: those who wait need not do so one after the other.
    is_free: bool,
}

/// A waiting task's seat, given up when dropped.
struct Seat<'a> {
    flight: &'a Flight,
    number: u64,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let waker = lock(&self.flight.progress).wakers.remove(&self.number);
        drop(waker);
    }
}

impl Flight {
    fn land(&self, is_free: bool) {
        let (waiting, wakers) = {
            let mut progress = lock(&self.progress);
            (progress.is_over, progress.is_free) = (true, is_free);
            (progress.waiting, std::mem::take(&mut progress.wakers))
        };
        if waiting > 0 {
            self.landed.notify_all(); // A system call, so not for nobody.
        }
        wake_all(wakers.into_values());
    }

    /// Waits until the flight is over, or so long. `true` if it is over and left nothing to look for.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let mut progress = lock(&self.progress);
        progress.waiting += 1;
        let is_under_way = |progress: &mut Progress| !progress.is_over;
        let waited = self.landed.wait_timeout_while(progress, timeout, is_under_way);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_free
    }

    /// As [`wait`](Flight::wait), without blocking the thread.
    pub(crate) async fn wait_async(&self, timeout: Duration) -> bool {
        let seat = {
            let mut progress = lock(&self.progress);
            progress.seats += 1;
            Seat { flight: self, number: progress.seats }
        };
        let mut timeout = pin!(sleep(timeout));
        poll_fn(|context| match seat.poll(context) {
            Poll::Ready(is_free) => Poll::Ready(is_free),
            Poll::Pending => timeout.as_mut().poll(context).map(|()| false),
        })
        .await
    }
}

impl Seat<'_> {
    fn poll(&self, context: &Context<'_>) -> Poll<bool> {
        // Before the lock is taken: see `sys/waker.rs`. Dropped after it is given back, if it is over.
        let waker = context.waker().clone();
        let mut progress = lock(&self.flight.progress);
        if progress.is_over {
            return Poll::Ready(progress.is_free);
        }
        let former = progress.wakers.insert(self.number, waker);
        drop(progress);
        drop(former);
        Poll::Pending
    }
}

impl Flights {
    /// The claims that other processes see. `None` if there can be no sidecar: then they do not wait
    /// for each other.
    pub(crate) fn claims(&self, path: &Path) -> Option<Arc<Claims>> {
        let known = lock(&self.claims).clone();
        if let Some(claims) = known.filter(|claims| !claims.is_removed()) {
            claims.keep_young();
            return Some(claims);
        }
        // Without the lock: two threads that open it at once claim in the same file all the same.
        let opened = Claims::open(path).ok().map(Arc::new);
        let former = std::mem::replace(&mut *lock(&self.claims), opened.clone());
        drop(former);
        opened
    }

    /// Lets the sidecar be opened anew: it may have been removed together with the cache.
    pub(crate) fn forget_claims(&self) {
        let claims = lock(&self.claims).take();
        drop(claims);
    }

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

    /// Ends a flight; `is_free` if it left nothing to look for, and nobody could do better.
    pub(crate) fn leave(&self, key: u64, is_free: bool) {
        let flight = lock(&self.under_way).remove(&key);
        if let Some(Some(flight)) = flight {
            flight.land(is_free);
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

/// Calls the user's code, as one who leads if `is_led`.
pub(crate) fn led<T>(is_led: bool, call: impl FnOnce() -> T) -> T {
    let _leading = is_led.then(Leading::new);
    call()
}

/// A computation's future: what its polls call, and its destructor, is called by a leader if it is led.
pub(crate) struct Led<'a, F> {
    /// Something until it is dropped.
    future: Pin<&'a mut Option<F>>,
    is_led: bool,
}

impl<'a, F> Led<'a, F> {
    pub(crate) fn new(future: Pin<&'a mut Option<F>>, is_led: bool) -> Led<'a, F> {
        Led { future, is_led }
    }
}

impl<F: Future> Led<'_, F> {
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<F::Output> {
        let future = self.future.as_mut().as_pin_mut().expect("there until it is dropped");
        led(self.is_led, || future.poll(context))
    }
}

impl<F> Drop for Led<'_, F> {
    fn drop(&mut self) {
        led(self.is_led, || self.future.set(None));
    }
}
