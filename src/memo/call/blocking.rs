//! The driver of a call for threads: it does what the [machine](super::machine) asks, and waits where that takes
//! a wait.

use super::attempt::{Attempt, Computation};
use super::keyspace::Keyspace;
use super::machine::{Answer, State};
use super::outcome::{Outcome, Wanted};
use crate::engine::format::record::Identity;
use crate::engine::format::units::Cost;
use crate::engine::os::threads;
use crate::engine::store::flight::Leading;
use crate::error::Result;
use crate::memo::value::archive::CacheValue;
use crate::memo::value::cached::Cached;
use std::thread::sleep;
use std::time::Instant;

impl<V: CacheValue> Keyspace<V> {
    /// The value, or that of `compute`, which is stored.
    #[cold]
    pub(crate) fn obtain<E>(
        &self,
        identity: &Identity,
        wanted: Wanted,
        compute: impl FnOnce() -> Result<V, E>,
    ) -> Result<Outcome<V>, E> {
        let computation = match self.find_or_lead(identity) {
            Ok(cached) => return Ok(Outcome::Found(cached)),
            Err(computation) => computation,
        };
        self.count_miss();
        let (value, cached) = self.make(identity, wanted, computation, compute)?;
        Ok(Outcome::Made(value, cached))
    }

    /// Computes anew, and stores the value in place of what is there.
    pub(crate) fn refresh<E>(
        &self,
        identity: &Identity,
        compute: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, E> {
        let computation = Computation { lead: None, condition: self.refresh_condition() };
        Ok(self.make(identity, Wanted::Value, computation, compute)?.0)
    }

    /// The value that is stored; else the computation that is to give it.
    fn find_or_lead(&self, identity: &Identity) -> Result<Cached<V>, Computation<'_>> {
        self.retry();
        let Some((store, proof)) = self.parts() else {
            return Err(Computation { lead: None, condition: Ok(None) });
        };
        let mut attempt = Attempt::new(self, (store, proof), identity);
        loop {
            let answer = match attempt.state {
                State::Look(role) => match attempt.looked(store.find(identity, self.expiry_rule()))
                {
                    Ok(cached) => return Ok(cached),
                    Err(looked) => Answer::Look(role, looked),
                },
                State::Enter { rescues } => attempt.enter(rescues, threads::own()),
                State::Wait => Answer::Wait(attempt.election.wait()),
                State::Claim { has_opened } => attempt.claim(has_opened),
                State::Open => {
                    attempt.election.open();
                    Answer::Open
                }
                State::Pause => {
                    sleep(attempt.election.next_pause());
                    Answer::Pause
                }
                State::Compute { leads } => return Err(attempt.into_computation(leads)),
            };
            attempt.go_on(answer);
        }
    }

    /// Computes, and stores the value; gives it, and how it is stored if that is wanted.
    fn make<E>(
        &self,
        identity: &Identity,
        wanted: Wanted,
        mut computation: Computation<'_>,
        compute: impl FnOnce() -> Result<V, E>,
    ) -> Result<(V, Option<Cached<V>>), E> {
        // To its end: archiving the result, and checking what was stored, are the user's code too.
        let _leading = computation.lead.as_ref().map(|_| Leading::new());
        let start = Instant::now();
        let value = compute()?;
        let cost = start.elapsed();
        self.note_cost(Cost::new(cost).nanos());
        let stored = computation.condition.and_then(|condition| match condition {
            Some(condition) => self.store(*identity, &value, cost, condition, wanted),
            None => Ok(None),
        });
        let cached = self.conclude(stored, wanted, computation.lead.as_mut());
        Ok((value, cached))
    }
}
