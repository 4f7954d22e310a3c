//! The way of a [`Keyspace`]'s call in async code: what [`Keyspace::obtain`] is to threads. No poll waits: for
//! leaders, for a lock that others hold and for a file to be opened waits the task, and what is large is
//! checked and copied by another thread. The user's code runs in the task's own polls, but for the checks of
//! what is large.

use super::keyspace::{Keyspace, Look};
use super::outcome::{Outcome, Wanted};
use crate::engine::file::effort::{BRIEF, Effort};
use crate::engine::format::record::Identity;
use crate::engine::format::units::Cost;
use crate::engine::os::task::offload;
use crate::engine::store::election::Step;
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
        self.retry_async().await;
        let Some((store, proof)) = self.shared_parts() else {
            self.count_miss();
            return compute().await.map(|value| Outcome::Made(value, None));
        };
        let mut election = self.election(store, identity);
        let (mut lead, condition) = loop {
            let (condition, token, open_file) = match self.look_async(store, identity, proof).await
            {
                Ok(Look::Hit(cached)) => return Ok(Outcome::Found(cached)),
                Ok(Look::Miss(condition, token, open_file)) => (condition, token, open_file),
                Err(error) => break (election.into_lead(), Err(error)),
            };
            if let Step::Compute(lead) = election.advance_async(&open_file, token).await {
                break (lead, Ok(condition));
            }
        };
        self.count_miss();
        let is_led = lead.is_some();
        let (value, cost) = timed_async(is_led, compute).await?;
        self.note_cost(Cost::new(cost).nanos());
        // Encoded here: a reference to the value would have to be sent between threads with the task.
        let archive = led(is_led, || encode_owned(&value));
        let stored = self.deliver(*identity, archive, cost, condition, wanted, is_led).await;
        let conclude = || self.conclude(stored, wanted, lead.as_mut(), proof);
        let cached = led(is_led, conclude);
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
        let condition = self.refresh_condition_async().await;
        let (value, cost) = timed_async(false, compute).await?;
        if let Some(condition) = condition.transpose() {
            let archive = encode_owned(&value);
            let stored =
                self.deliver(*identity, archive, cost, condition, Wanted::Value, false).await;
            stored.inspect_err(|error| self.handle.note(error)).ok();
        }
        Ok(value)
    }

    async fn look_async(
        &self,
        store: &Arc<Store>,
        identity: &Identity,
        proof: TypeProof<V>,
    ) -> Result<Look<V>> {
        let examine = move |found| Cached::examine(found, proof);
        Ok(self.judge(store.find_async(identity, self.expiry_rule(), examine).await?, proof))
    }

    /// Stores an archived value without blocking the thread. What is large is checked, and copied, by another.
    async fn deliver(
        self: &Arc<Self>,
        identity: Identity,
        archive: Result<AlignedVec>,
        cost: Duration,
        condition: Result<PutCondition>,
        wanted: Wanted,
        is_led: bool,
    ) -> Result<Option<StoreLookup>> {
        let (archive, condition) = (archive?, condition?);
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
