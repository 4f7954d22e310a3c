//! The election of who computes: one call's way from its miss to the right to compute. See
//! [`flight`](super::flight). What the call does next is decided in one place; how it waits, plain and async code do
//! each in their own way.

use super::flight::{Flight, Flights, Landing, Leading, Rescue};
use super::{Store, Token};
use crate::engine::file::deadline::Deadline;
use crate::engine::file::open_file::OpenFile;
use crate::engine::format::header::{state, word};
use crate::engine::format::record::Identity;
use crate::engine::os::claims::Claims;
use crate::engine::os::task::{offload, sleep};
use crate::engine::os::threads::{self, ThreadId};
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

/// One call's part in it.
pub(crate) struct Election<'a> {
    store: &'a Store,
    /// The hash of the key: its place among the flights, and among the claims.
    key: u64,
    deadline: Option<Deadline>,
    lead: Option<Lead<'a>>,
    /// Held from when another's flight was found stuck until it was looked again.
    rescue: Option<Rescue>,
    /// The sidecar has just been opened: if it is not there even so, there can be none.
    has_opened: bool,
    pause: Duration,
    /// What the function is known to have taken, in nanoseconds.
    longest: &'a AtomicU64,
}

/// What a call does next.
pub(crate) enum Step<'a> {
    /// Compute; and keep the lead, if it has one, until the result is stored.
    Compute(Option<Lead<'a>>),
    /// Look again: there may be a result now.
    Look,
    /// Wait so long for another's flight to land, then look again.
    Wait(Arc<Flight>, Duration),
    /// Wait so long, and go on.
    Pause(Duration),
    /// Open the sidecar of the claims, and go on.
    Open,
}

impl<'a> Election<'a> {
    /// `timeout` of zero: nobody waits for anybody. `longest`: what the function is known to have taken, in
    /// nanoseconds; zero if nothing is.
    pub(crate) fn new(
        store: &'a Store,
        identity: &Identity,
        timeout: Duration,
        longest: &'a AtomicU64,
    ) -> Election<'a> {
        // Where nothing can be stored there is nothing to wait for.
        let has_use = !timeout.is_zero() && !store.location.is_read_only;
        let deadline = has_use.then(|| Deadline::after(timeout));
        let (key, lead, rescue) = (identity.hash(0), None, None);
        let (has_opened, pause) = (false, PAUSE_MIN);
        Election { store, key, deadline, lead, rescue, has_opened, pause, longest }
    }

    /// What to do after a look that missed, up to the next one or to the computation. `token` is of
    /// when it missed in `open_file`.
    pub(crate) fn advance(&mut self, open_file: &OpenFile, token: Token) -> Step<'a> {
        loop {
            match self.step(open_file, token, threads::own()) {
                Step::Pause(pause) => std::thread::sleep(pause),
                Step::Open => self.store.flights().open_claims(&self.store.location.path),
                Step::Wait(flight, timeout) => match flight.wait(timeout, || self.longest()) {
                    Landing::Free => return Step::Compute(None),
                    Landing::Look => return Step::Look,
                    Landing::Stuck(rescue) => {
                        self.rescue = Some(rescue);
                        return Step::Look;
                    }
                },
                step => return step,
            }
        }
    }

    /// As [`advance`](Election::advance), without blocking the thread.
    pub(crate) async fn advance_async(&mut self, open_file: &OpenFile, token: Token) -> Step<'a> {
        loop {
            match self.step(open_file, token, None) {
                Step::Pause(pause) => sleep(pause).await,
                Step::Open => {
                    let (state, path) = (Arc::clone(self.store.state()), &self.store.location.path);
                    let path = path.clone();
                    offload(move || state.flights.open_claims(&path)).await;
                }
                Step::Wait(flight, timeout) => match flight.wait_async(timeout).await {
                    true => return Step::Compute(None),
                    false => return Step::Look,
                },
                step => return step,
            }
        }
    }

    /// The lead, if it has one, for who computes without more ado.
    pub(crate) fn into_lead(self) -> Option<Lead<'a>> {
        self.lead
    }

    fn longest(&self) -> Option<Duration> {
        // Relaxed: a number of its own.
        Some(self.longest.load(Ordering::Relaxed)).filter(|n| *n > 0).map(Duration::from_nanos)
    }

    /// `own` is the thread that would compute, if it is not a task.
    fn step(&mut self, open_file: &OpenFile, token: Token, own: Option<ThreadId>) -> Step<'a> {
        let Some(deadline) = &self.deadline else { return Step::Compute(None) };
        let Some(mut lead) = self.lead.take() else {
            let (store, key) = (self.store, self.key);
            let rescue = self.rescue.take();
            if store.flights().enter(key, own) {
                self.lead = Some(Lead { store, key, claim: None, rescue: None, is_futile: false });
                return self.step(open_file, token, own);
            }
            if rescue.is_some() {
                let (claim, is_futile) = (None, false);
                return Step::Compute(Some(Lead { store, key, claim, rescue, is_futile }));
            }
            let left = if Leading::is_there() { None } else { deadline.left() };
            let Some(left) = left else { return Step::Compute(None) };
            return match store.flights().join(key) {
                Some(flight) => Step::Wait(flight, left),
                None => Step::Look,
            };
        };
        if lead.claim.is_some() {
            return Step::Compute(Some(lead));
        }
        let Some(claims) = self.store.flights().claims() else {
            if std::mem::replace(&mut self.has_opened, true) {
                return Step::Compute(Some(lead));
            }
            self.lead = Some(lead);
            return Step::Open;
        };
        self.has_opened = false;
        match claims.try_claim(lead.key) {
            Ok(true) => {
                lead.claim = Some(claims);
                // Nothing was stored since the look that missed: it need not look again.
                if is_as_it_was(open_file, token) {
                    return Step::Compute(Some(lead));
                }
                self.lead = Some(lead);
                Step::Look
            }
            Ok(false) if !Leading::is_there() && deadline.left().is_some() => {
                self.lead = Some(lead);
                let pause = self.pause;
                self.pause = (self.pause * 2).min(PAUSE_MAX);
                Step::Pause(pause)
            }
            Ok(false) | Err(_) => Step::Compute(Some(lead)),
        }
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
