//! One computation per key. Who misses first leads: its flight is entered in this process's list, and
//! its key claimed before other processes by a lock of the kernel's, which no death outlives. The
//! others wait until the flight is over, and look again; if it brought nothing, the next of them leads.
//! Hits never look at any of this, and distinct keys never wait for each other.
//!
//! No wait is for ever. Who leads a flight, or is called by one who does, waits for nobody: it computes
//! what another is computing. So circles cannot close, in one process or across several, but through
//! threads and tasks of a leader's own; and through a pool of threads, whose worker, in the middle of a
//! part of a leader's work, takes up another call for the same key, and waits for what waits for it. That
//! is seen if nothing else in the process goes on, and suspected if the leader's thread waits for another
//! for far longer than the function ever took: then one who waits computes as well. Else there is the
//! deadline. The steps of a call through this are in [`election`](super::election).

use super::pin::lock;
use super::stall::{Suspicion, Waiting};
use crate::engine::os::claims::Claims;
use crate::engine::os::task::sleep;
use crate::engine::os::threads::{self, ThreadId};
use crate::engine::os::waker::wake_all;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::future::poll_fn;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The computations under way in this process.
#[derive(Default)]
pub(crate) struct Flights {
    /// By their keys' hashes: two of one hash, one in 2^64, would wait for each other and no more.
    under_way: Mutex<BTreeMap<u64, UnderWay>>,
    /// The sidecar, once it is needed.
    claims: Mutex<Option<Arc<Claims>>>,
}

struct UnderWay {
    /// The thread that computes; `None` if it is a task, or the system does not tell.
    leader: Option<ThreadId>,
    /// What others wait at, once there are any.
    flight: Option<Arc<Flight>>,
}

/// A computation, for those who wait for it.
pub(crate) struct Flight {
    state: Mutex<FlightState>,
    landed: Condvar,
}

#[derive(Default)]
struct FlightState {
    /// The thread that computes, or the last of those that do so too.
    leader: Option<ThreadId>,
    is_over: bool,
    /// How often one computed what the leader had not: then there is something to look for.
    rescues: u64,
    /// Threads that wait.
    waiting: u32,
    /// Tasks that wait, by their numbers.
    wakers: BTreeMap<u64, Waker>,
    waiters: u64,
    /// What was computed could not be stored: those who wait need not do so one after the other.
    is_free: bool,
}

/// The right to compute what another thread is computing and cannot end. When it is dropped, the others look
/// again.
pub(crate) struct Rescue {
    flight: Arc<Flight>,
    /// Who is the one to watch again then.
    former: Option<ThreadId>,
    pub(crate) is_futile: bool,
}

impl Drop for Rescue {
    fn drop(&mut self) {
        self.flight.wake(|state| {
            state.rescues += 1;
            state.leader = self.former;
            state.is_free = self.is_futile;
        });
    }
}

/// A waiting task, taken off the list when dropped.
struct Waiter<'a> {
    flight: &'a Flight,
    number: u64,
    rescues: u64,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let waker = lock(&self.flight.state).wakers.remove(&self.number);
        drop(waker);
    }
}

impl Flight {
    /// Changes what there is to know, and wakes all who wait for that.
    ///
    /// Wakers are woken behind the lock: an executor may run the task at once, on this thread, and that task may come
    /// here again.
    fn wake(&self, change: impl FnOnce(&mut FlightState)) {
        let (waiting, wakers) = {
            let mut state = lock(&self.state);
            change(&mut state);
            (state.waiting, std::mem::take(&mut state.wakers))
        };
        if waiting > 0 {
            self.landed.notify_all(); // A system call, so not for nobody.
        }
        wake_all(wakers.into_values());
    }

    /// Waits until the flight is over, or so long; `true` if it left nothing to look for. Where it is known not
    /// to go on, gives the right to rescue it instead. `longest` is what the function is known to have taken, if
    /// it is known.
    pub(crate) fn wait(
        self: &Arc<Self>,
        timeout: Duration,
        longest: impl Fn() -> Option<Duration>,
    ) -> Result<bool, Rescue> {
        let (own, start) = (threads::own(), Instant::now());
        let _waiting = own.map(Waiting::new);
        let mut suspicion = Suspicion::new();
        let mut state = lock(&self.state);
        let rescues = state.rescues;
        state.waiting += 1;
        let landed = loop {
            let left = timeout.saturating_sub(start.elapsed());
            let is_under_way = |state: &mut FlightState| !state.is_over && state.rescues == rescues;
            let pause = suspicion.next_pause().min(left);
            let waited = self.landed.wait_timeout_while(state, pause, is_under_way);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if !is_under_way(&mut state) {
                break Ok(state.is_free);
            }
            if left <= pause {
                break Ok(false);
            }
            let leader = state.leader;
            drop(state);
            let is_stuck = suspicion.finds_stuck(leader, longest());
            state = lock(&self.state);
            // One computes; the others watch that one from now on.
            if is_stuck && is_under_way(&mut state) && state.leader == leader {
                state.leader = own;
                let flight = Arc::clone(self);
                break Err(Rescue { flight, former: leader, is_futile: false });
            }
        };
        state.waiting -= 1;
        landed
    }

    /// As [`wait`](Flight::wait), without blocking the thread, and hence without being in anybody's way.
    /// `true` if the flight left nothing to look for.
    pub(crate) async fn wait_async(&self, timeout: Duration) -> bool {
        let waiter = {
            let mut state = lock(&self.state);
            state.waiters += 1;
            Waiter { flight: self, number: state.waiters, rescues: state.rescues }
        };
        let mut timeout = pin!(sleep(timeout));
        poll_fn(|context| match waiter.poll(context) {
            Poll::Ready(is_free) => Poll::Ready(is_free),
            Poll::Pending => timeout.as_mut().poll(context).map(|()| false),
        })
        .await
    }
}

impl Waiter<'_> {
    fn poll(&self, context: &Context<'_>) -> Poll<bool> {
        // Before the lock is taken: see `sys/waker.rs`. Dropped after it is given back, if it is over.
        let waker = context.waker().clone();
        let mut state = lock(&self.flight.state);
        if state.is_over || state.rescues != self.rescues {
            return Poll::Ready(state.is_free);
        }
        let former = state.wakers.insert(self.number, waker);
        drop(state);
        drop(former);
        Poll::Pending
    }
}

impl Flights {
    /// The claims that other processes see; `None` if the sidecar is not open, or lost its name since.
    pub(crate) fn claims(&self) -> Option<Arc<Claims>> {
        let known = lock(&self.claims).clone();
        let claims = known.filter(|claims| !claims.is_gone())?;
        claims.keep_young();
        Some(claims)
    }

    /// Opens the sidecar, and makes it where there is none. If there can be none, processes do not wait for each
    /// other.
    pub(crate) fn open_claims(&self, path: &Path) {
        // Without the lock: two threads that open it at once claim in the same file all the same.
        let opened = Claims::open(path).ok().map(Arc::new);
        let former = std::mem::replace(&mut *lock(&self.claims), opened);
        drop(former);
    }

    /// Enters a flight; `false` if one is under way.
    ///
    /// The list is locked for a look into a tree. Most flights are never waited for, so what others wait at is made
    /// by the first who does ([`join`](Flights::join)).
    pub(crate) fn enter(&self, key: u64, leader: Option<ThreadId>) -> bool {
        match lock(&self.under_way).entry(key) {
            Entry::Vacant(place) => {
                place.insert(UnderWay { leader, flight: None }).flight.is_none()
            }
            Entry::Occupied(_) => false,
        }
    }

    /// The flight that is under way, to wait for; `None` if it is over.
    ///
    /// Every waiter of a key waits at one [`Flight`]. It outlives its entry in the list: whoever waits has a
    /// reference.
    pub(crate) fn join(&self, key: u64) -> Option<Arc<Flight>> {
        let mut under_way = lock(&self.under_way);
        let UnderWay { leader, flight } = under_way.get_mut(&key)?;
        Some(Arc::clone(flight.get_or_insert_with(|| {
            let state = FlightState { leader: *leader, ..FlightState::default() };
            Arc::new(Flight { state: Mutex::new(state), landed: Condvar::new() })
        })))
    }

    /// Ends a flight; `is_free` if it left nothing to look for, and nobody could do better.
    ///
    /// The entry goes first, so that whoever is woken and misses again can enter a flight of its own.
    pub(crate) fn leave(&self, key: u64, is_free: bool) {
        let under_way = lock(&self.under_way).remove(&key);
        if let Some(flight) = under_way.and_then(|under_way| under_way.flight) {
            flight.wake(|state| (state.is_over, state.is_free) = (true, is_free));
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
///
/// User code that runs in here, and looks for a key that another computes, computes it too and waits for nobody: it
/// is waited for itself.
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
