//! The election of who computes: the steps of a call from its miss to the right to compute, and what it holds
//! meanwhile. See [`flight`](super::flight). Which step comes next is not decided here, but by the caller's
//! table (`memo/call/machine.rs`); a step that waits is there twice, for threads and for tasks.

use super::flight::{Flight, Flights, Leading, Rescue};
use super::{Store, Token};
use crate::engine::file::deadline::Deadline;
use crate::engine::file::open_file::OpenFile;
use crate::engine::format::header::{state, word};
use crate::engine::format::record::Identity;
use crate::engine::os::claims::Claims;
use crate::engine::os::task::offload;
use crate::engine::os::threads::ThreadId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often a claim of another process is tried again.
const PAUSE_MIN: Duration = Duration::from_micros(100);
const PAUSE_MAX: Duration = Duration::from_millis(10);

/// The lead of a computation. When it is dropped, whatever the reason, the others go on.
pub(crate) struct Lead<'a> {
    store: &'a Store,
    key: u64,
    /// Held on the sidecar that was there: it may be another one by now.
    claim: Option<Arc<Claims>>,
    /// It is another's flight, who cannot end it.
    rescue: Option<Rescue>,
    is_futile: bool,
}

impl Lead<'_> {
    /// Notes that the result could not be stored: the others will not find it, nor do better.
    pub(crate) fn give_up(&mut self) {
        self.is_futile = true;
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if let Some(rescue) = &mut self.rescue {
            rescue.is_futile = self.is_futile;
            return;
        }
        if let Some(claims) = &self.claim {
            claims.release(self.key);
        }
        // In a child forked meanwhile there is no such flight: it is the parent's.
        self.store.flights().leave(self.key, self.is_futile);
    }
}

/// What came of entering a flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entered {
    Yes,
    /// Another computes. `may_wait`: there is time to wait for it, and the caller is not called by a leader.
    No {
        may_wait: bool,
    },
}

/// What a wait for another's flight came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Landing {
    /// It is over, or the time is: there may be a result.
    Look,
    /// It is over, and left nothing to look for.
    Free,
    /// It does not go on; the lead is that of a rescue.
    Stuck,
}

/// What came of claiming a key before other processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// `is_unchanged`: nothing was stored since the look that missed, which need not be repeated.
    Yes { is_unchanged: bool },
    /// Another process computes. `may_wait`: as in [`Entered::No`].
    No { may_wait: bool },
    /// The sidecar is not open, or lost its name since.
    NoSidecar,
    /// The system gives no claim.
    Failed,
}

/// One call's part in it: what it holds on its way, and how long it may take.
pub(crate) struct Election<'a> {
    store: &'a Store,
    /// The hash of the key: its place among the flights, and among the claims.
    key: u64,
    deadline: Deadline,
    lead: Option<Lead<'a>>,
    /// In which file the last look missed, and when; until a claim compares them with what is there by then. The
    /// next look may be in another file, so that this one is let go of before.
    missed: Option<(Arc<OpenFile>, Token)>,
    pause: Duration,
    /// What the function is known to have taken, in nanoseconds; zero if nothing is known.
    longest: &'a AtomicU64,
}

impl<'a> Election<'a> {
    pub(crate) fn new(
        store: &'a Store,
        identity: &Identity,
        timeout: Duration,
        longest: &'a AtomicU64,
    ) -> Election<'a> {
        let (key, deadline) = (identity.hash(0), Deadline::after(timeout));
        Election { store, key, deadline, lead: None, missed: None, pause: PAUSE_MIN, longest }
    }

    /// Notes in which file a look missed, and when it began.
    pub(crate) fn note_miss(&mut self, open_file: &Arc<OpenFile>, token: Token) {
        self.missed = Some((Arc::clone(open_file), token));
    }

    /// Enters a flight if none is under way. `own` is the thread that would compute, if it is not a task.
    pub(crate) fn enter(&mut self, own: Option<ThreadId>) -> Entered {
        match self.store.flights().enter(self.key, own) {
            true => {
                // In place of that of a rescue: who was stuck has ended.
                self.lead = Some(self.lead(None));
                Entered::Yes
            }
            false => Entered::No { may_wait: self.may_wait() },
        }
    }

    /// Waits for the flight that is under way.
    pub(crate) fn wait(&mut self) -> Landing {
        self.missed = None; // Nobody holds on to a file while it waits.
        let Some((flight, timeout)) = self.join() else { return Landing::Look };
        match flight.wait(timeout, || self.longest()) {
            Ok(is_free) => Landing::of(is_free),
            Err(rescue) => {
                self.lead = Some(self.lead(Some(rescue)));
                Landing::Stuck
            }
        }
    }

    /// As [`wait`](Election::wait), without blocking the thread. Tasks rescue nobody.
    pub(crate) async fn wait_async(&mut self) -> Landing {
        self.missed = None;
        match self.join() {
            Some((flight, timeout)) => Landing::of(flight.wait_async(timeout).await),
            None => Landing::Look,
        }
    }

    /// Tries to claim the key, for who has entered its flight.
    pub(crate) fn claim(&mut self) -> Claimed {
        let Some(claims) = self.store.flights().claims() else { return Claimed::NoSidecar };
        let lead = self.lead.as_mut().expect("a flight is entered before its key is claimed");
        match claims.try_claim(self.key) {
            Ok(true) => lead.claim = Some(claims),
            Ok(false) => return Claimed::No { may_wait: self.may_wait() },
            Err(_) => return Claimed::Failed,
        }
        let missed = self.missed.take();
        let is_unchanged = missed.is_some_and(|(open_file, token)| is_as_it_was(&open_file, token));
        Claimed::Yes { is_unchanged }
    }

    /// Opens the sidecar of the claims.
    pub(crate) fn open(&self) {
        self.store.flights().open_claims(&self.store.location.path);
    }

    /// As [`open`](Election::open), on another thread than the task's.
    pub(crate) async fn open_async(&self) {
        let (state, path) = (Arc::clone(self.store.state()), self.store.location.path.clone());
        offload(move || state.flights.open_claims(&path)).await;
    }

    /// How long to wait before a claim is tried again.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let next = (self.pause * 2).min(PAUSE_MAX);
        std::mem::replace(&mut self.pause, next)
    }

    /// The lead, for who computes; given back if it is to compute without one.
    pub(crate) fn into_lead(self, leads: bool) -> Option<Lead<'a>> {
        self.lead.filter(|_| leads)
    }

    fn lead(&self, rescue: Option<Rescue>) -> Lead<'a> {
        Lead { store: self.store, key: self.key, claim: None, rescue, is_futile: false }
    }

    /// Who leads, or is called by one who does, waits for nobody; nor does anyone after the deadline.
    fn may_wait(&self) -> bool {
        !Leading::is_there() && self.deadline.left().is_some()
    }

    /// The flight that is under way, and how long to wait for it; `None` if either is over.
    fn join(&self) -> Option<(Arc<Flight>, Duration)> {
        let left = self.deadline.left()?;
        Some((self.store.flights().join(self.key)?, left))
    }

    fn longest(&self) -> Option<Duration> {
        // Relaxed: a number of its own.
        Some(self.longest.load(Ordering::Relaxed)).filter(|n| *n > 0).map(Duration::from_nanos)
    }
}

impl Landing {
    fn of(is_free: bool) -> Landing {
        if is_free { Landing::Free } else { Landing::Look }
    }
}

impl Store {
    fn flights(&self) -> &Flights {
        &self.state().flights
    }
}

/// Whether nothing was stored since `token`, in a file that is still the cache.
fn is_as_it_was(open_file: &OpenFile, token: Token) -> bool {
    open_file.storage().load(word::STATE) == state::LIVE && Store::token(open_file) == token
}
