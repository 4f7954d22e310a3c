//! One call's way from its miss to the right to compute: see [`flight`](super::flight). What it does
//! next is decided in one place; how it waits, plain and async code do each in their own way.

use super::Store;
use super::flight::{Flight, Flights, Leading};
use super::gate::Deadline;
use crate::format::record::Identity;
use crate::sys::claims::Claims;
use crate::sys::task::sleep;
use std::sync::Arc;
use std::time::Duration;

/// How often a claim of another process is tried again.
const PAUSE_MIN: Duration = Duration::from_micros(100);
const PAUSE_MAX: Duration = Duration::from_millis(10);

/// The lead of a computation. When it is dropped, whatever the reason, the others go on.
pub(crate) struct Lead<'a> {
    store: &'a Store,
    key: u64,
    has_claim: bool,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        // In a child forked meanwhile there is neither flight nor claim: they are the parent's.
        let flights = self.store.flights();
        if let (true, Some(Some(claims))) = (self.has_claim, flights.claims.get()) {
            claims.release(self.key);
        }
        flights.leave(self.key);
    }
}

/// One call's way from its miss to the right to compute.
pub(crate) struct Approach<'a> {
    store: &'a Store,
    /// The hash of the key: its place among the flights, and among the claims.
    key: u64,
    deadline: Option<Deadline>,
    lead: Option<Lead<'a>>,
    pause: Duration,
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
}

impl<'a> Approach<'a> {
    /// `timeout` of zero: nobody waits for anybody.
    pub(crate) fn new(store: &'a Store, identity: &Identity, timeout: Duration) -> Approach<'a> {
        let deadline = (!timeout.is_zero()).then(|| Deadline::after(timeout));
        Approach { store, key: identity.hash(0), deadline, lead: None, pause: PAUSE_MIN }
    }

    /// What to do after a look that missed, up to the next one or to the computation. `seq` is how far
    /// the file was when it missed.
    pub(crate) fn advance(&mut self, seq: u64) -> Step<'a> {
        loop {
            match self.step(seq) {
                Step::Pause(pause) => std::thread::sleep(pause),
                Step::Wait(flight, timeout) => {
                    flight.wait(timeout);
                    return Step::Look;
                }
                step => return step,
            }
        }
    }

    /// As [`advance`](Approach::advance), without blocking the thread.
    pub(crate) async fn advance_async(&mut self, seq: u64) -> Step<'a> {
        loop {
            match self.step(seq) {
                Step::Pause(pause) => sleep(pause).await,
                Step::Wait(flight, timeout) => {
                    flight.wait_async(timeout).await;
                    return Step::Look;
                }
                step => return step,
            }
        }
    }

    fn step(&mut self, seq: u64) -> Step<'a> {
        let Some(deadline) = &self.deadline else { return Step::Compute(None) };
        let Some(mut lead) = self.lead.take() else {
            let (store, key) = (self.store, self.key);
            if store.flights().enter(key) {
                self.lead = Some(Lead { store, key, has_claim: false });
                return self.step(seq);
            }
            let left = if Leading::is_there() { None } else { deadline.left() };
            let Some(left) = left else { return Step::Compute(None) };
            return match store.flights().join(key) {
                Some(flight) => Step::Wait(flight, left),
                None => Step::Look,
            };
        };
        if lead.has_claim {
            return Step::Compute(Some(lead));
        }
        let Some(claims) = self.store.claims() else { return Step::Compute(Some(lead)) };
        match claims.try_claim(lead.key) {
            Ok(true) => {
                lead.has_claim = true;
                // Nothing was stored since the look that missed: it need not look again.
                if self.store.seq() == Some(seq) {
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

    /// The claims that other processes see.
    fn claims(&self) -> Option<&Claims> {
        let open = || {
            let location = &self.location;
            (!location.is_read_only).then(|| Claims::open(&location.path).ok()).flatten()
        };
        self.flights().claims.get_or_init(open).as_ref()
    }

    fn seq(&self) -> Option<u64> {
        self.region().ok().map(|region| region.seq())
    }
}
