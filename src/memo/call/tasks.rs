//! The driver of a call for tasks: it does what the [machine](super::machine) asks, and no poll waits. For leaders,
//! for a lock that others hold and for a file to be opened waits the task, and what is large is checked and
//! copied by another thread. The user's code runs in the task's own polls, but for the checks of what is large.

use super::attempt::{Attempt, Computation};
use super::keyspace::Keyspace;
use super::machine::{Answer, State};
use super::outcome::{Outcome, Wanted};
use crate::engine::file::effort::{BRIEF, Effort};
use crate::engine::format::record::Identity;
use crate::engine::format::units::Cost;
use crate::engine::os::task::{offload, sleep};
use crate::engine::store::flight::{Led, led};
use crate::engine::store::put::{PutCondition, PutProgress};
use crate::engine::store::{Store, StoreLookup};
use crate::error::Result;
use crate::memo::value::archive::{CacheValue, encode_owned};
use crate::memo::value::cached::Cached;
use crate::memo::value::type_proof::TypeProof;
use rkyv::util::AlignedVec;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl<V> Keyspace<V> {
    /// As [`retry`](Keyspace::retry), on another thread than the task's.
    pub(crate) async fn retry_async(&self) {
        if self.handle.store().is_none() {
            self.handle.retry_async().await;
        }
    }

    /// As [`parts`](Keyspace::parts), for tasks.
    pub(crate) fn shared_parts(&self) -> Option<(&Arc<Store>, TypeProof<V>)> {
        Some((self.handle.store()?, self.proof()?))
    }

    /// As [`refresh_condition`](Keyspace::refresh_condition), without blocking the thread.
    async fn refresh_condition_async(&self) -> Result<Option<PutCondition>> {
        let Some((store, _)) = self.shared_parts() else { return Ok(None) };
        Ok(Some(PutCondition::Refresh(Store::token(&*store.open_file_async().await?))))
    }

    /// As [`put`](Keyspace::put), without blocking the thread. A payload that is valid has been vetted and
    /// checked. What was there, or was stored, `examine` sees on the thread that finds it.
    pub(crate) async fn put_async(
        self: &Arc<Self>,
        identity: Identity,
        payload: impl AsRef<[u8]> + Send + 'static,
        cost: Duration,
        condition: PutCondition,
        is_valid: bool,
        examine: impl Fn(StoreLookup) -> StoreLookup + Send + 'static,
    ) -> Result<Option<StoreLookup>>
    where
        V: 'static,
    {
        let Some((store, _)) = self.shared_parts() else { return Ok(None) };
        let is_brief = payload.as_ref().len() <= BRIEF;
        let effort = if is_brief { Effort::Brief } else { Effort::Full };
        let keyspace = Arc::clone(self);
        let attempt = move |store: &Store, effort, progress: &mut PutProgress| {
            let entry = keyspace.entry(identity, payload.as_ref(), cost, is_valid);
            let put =
                store.try_put(&entry, &keyspace.scope_record(), condition, effort, progress)?;
            Ok(put.map(|found| found.map(&examine)))
        };
        store.put_async(effort, attempt).await
    }
}

impl<V: CacheValue> Keyspace<V> {
    /// As [`obtain`](Keyspace::obtain), without blocking the thread: waits for leaders, for a lock that
    /// others hold, and for a file to be opened are the task's, and large values are copied by another
    /// thread.
    pub(crate) async fn obtain_async<E, F>(
        self: &Arc<Self>,
        identity: &Identity,
        wanted: Wanted,
        compute: impl FnOnce() -> F,
    ) -> Result<Outcome<V>, E>
    where
        F: Future<Output = Result<V, E>>,
    {
        let computation = match self.find_or_lead_async(identity).await {
            Ok(cached) => return Ok(Outcome::Found(cached)),
            Err(computation) => computation,
        };
        self.count_miss();
        let (value, cached) = self.make_async(identity, wanted, computation, compute).await?;
        Ok(Outcome::Made(value, cached))
    }

    /// As [`refresh`](Keyspace::refresh), without blocking the thread.
    pub(crate) async fn refresh_async<E, F>(
        self: &Arc<Self>,
        identity: &Identity,
        compute: impl FnOnce() -> F,
    ) -> Result<V, E>
    where
        F: Future<Output = Result<V, E>>,
    {
        self.retry_async().await;
        let computation =
            Computation { lead: None, condition: self.refresh_condition_async().await };
        Ok(self.make_async(identity, Wanted::Value, computation, compute).await?.0)
    }

    /// The value that is stored; else the computation that is to give it.
    async fn find_or_lead_async(&self, identity: &Identity) -> Result<Cached<V>, Computation<'_>> {
        self.retry_async().await;
        let Some((store, proof)) = self.shared_parts() else {
            return Err(Computation { lead: None, condition: Ok(None) });
        };
        let examine = move |found| Cached::examine(found, proof);
        let mut attempt = Attempt::new(self, (store, proof), identity);
        loop {
            let answer = match attempt.state {
                State::Look(role) => {
                    let found = store.find_async(identity, self.expiry_rule(), examine).await;
                    match attempt.looked(found) {
                        Ok(cached) => return Ok(cached),
                        Err(looked) => Answer::Look(role, looked),
                    }
                }
                State::Enter { rescues } => attempt.enter(rescues, None),
                State::Wait => Answer::Wait(attempt.election.wait_async().await),
                State::Claim { has_opened } => attempt.claim(has_opened),
                State::Open => {
                    attempt.election.open_async().await;
                    Answer::Open
                }
                State::Pause => {
                    sleep(attempt.election.next_pause()).await;
                    Answer::Pause
                }
                State::Compute { leads } => return Err(attempt.into_computation(leads)),
            };
            attempt.go_on(answer);
        }
    }

    /// Computes, and stores the value; gives it, and how it is stored if that is wanted.
    async fn make_async<E, F>(
        self: &Arc<Self>,
        identity: &Identity,
        wanted: Wanted,
        mut computation: Computation<'_>,
        compute: impl FnOnce() -> F,
    ) -> Result<(V, Option<Cached<V>>), E>
    where
        F: Future<Output = Result<V, E>>,
    {
        let is_led = computation.lead.is_some();
        let (value, cost) = timed_async(is_led, compute).await?;
        self.note_cost(Cost::new(cost).nanos());
        let stored = match computation.condition {
            Ok(Some(condition)) => {
                // Encoded here: a reference to the value would have to be sent between threads with the task.
                let archive = led(is_led, || encode_owned(&value));
                self.deliver(*identity, archive, cost, condition, wanted, is_led).await
            }
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        let conclude = || self.conclude(stored, wanted, computation.lead.as_mut());
        let cached = led(is_led, conclude);
        Ok((value, cached))
    }

    /// Stores an archived value without blocking the thread. What is large is checked, and copied, by another.
    async fn deliver(
        self: &Arc<Self>,
        identity: Identity,
        archive: Result<AlignedVec>,
        cost: Duration,
        condition: PutCondition,
        wanted: Wanted,
        is_led: bool,
    ) -> Result<Option<StoreLookup>> {
        let archive = archive?;
        let Some(proof) = self.proof() else { return Ok(None) };
        let (keyspace, is_brief) = (Arc::clone(self), archive.len() <= BRIEF);
        // Checking calls the type's own code.
        let vet = move || {
            let is_valid = led(is_led, || keyspace.vet(&archive, condition, wanted))?;
            Ok((archive, is_valid))
        };
        let (archive, is_valid) = if is_brief { vet()? } else { offload(vet).await? };
        let examine = move |found| match wanted {
            Wanted::Archived => led(is_led, || Cached::examine(found, proof)),
            Wanted::Value => found,
        };
        self.put_async(identity, archive, cost, condition, is_valid, examine).await
    }
}

/// Computes, and says how long it took. The lead, if there is one, is felt by what makes the future, by each
/// poll of it, and by its destructor.
async fn timed_async<V, E, F>(is_led: bool, compute: impl FnOnce() -> F) -> Result<(V, Duration), E>
where
    F: Future<Output = Result<V, E>>,
{
    let start = Instant::now();
    let future = pin!(Some(led(is_led, compute)));
    let mut future = Led::new(future, is_led);
    let value = poll_fn(|context| future.poll(context));
    Ok((value.await?, start.elapsed()))
}
