//! A typed part of a cache, by identity: what tables, memoised functions and `#[cache]` functions are
//! made of. Where a found record becomes a value, and a computed value a record. The way of a call that misses is
//! in [`machine`](super::machine).

use super::outcome::Wanted;
use crate::engine::file::expiry::ExpiryRule;
use crate::engine::format::record::Identity;
use crate::engine::store::put::{Entry, PutCondition, ScopeRecord};
use crate::engine::store::{Hit, Store, StoreLookup};
use crate::error::Result;
use crate::memo::handle::Handle;
use crate::memo::key::{CacheKey, KeySchema, identify};
use crate::memo::scope::{Fingerprint, Name, Scope};
use crate::memo::value::archive::{CacheValue, encode, may_be_too_deep, validate};
use crate::memo::value::cached::Cached;
use crate::memo::value::schema::Schema;
use crate::memo::value::type_proof::{Shape, TypeProof};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A part of a cache whose values are of type `V`.
pub(crate) struct Keyspace<V> {
    pub(crate) handle: Arc<Handle>,
    pub(crate) scope: Scope,
    /// `None`: another type or function has a scope of this hash, and this one is never used.
    proof: Option<TypeProof<V>>,
    /// The longest that a computation took of which this process knows, in nanoseconds.
    pub(crate) longest: AtomicU64,
}

impl<V> Keyspace<V> {
    /// A keyspace of a scope, and the right to use it.
    pub(crate) fn with(
        handle: &Arc<Handle>,
        scope: Scope,
        proof: Option<TypeProof<V>>,
    ) -> Keyspace<V> {
        Keyspace { handle: Arc::clone(handle), scope, proof, longest: AtomicU64::new(0) }
    }

    #[inline]
    pub(crate) fn identify<K: CacheKey + ?Sized>(&self, key: &K) -> Identity {
        identify(&self.scope.hash, key)
    }

    #[inline]
    pub(crate) fn expiry_rule(&self) -> ExpiryRule {
        self.handle.expiry.get()
    }

    /// The store, and the right to use it.
    #[inline]
    pub(crate) fn parts(&self) -> Option<(&Store, TypeProof<V>)> {
        Some((self.handle.store()?, self.proof?))
    }

    /// The right to use the scope, if it is this keyspace's.
    pub(crate) fn proof(&self) -> Option<TypeProof<V>> {
        self.proof
    }

    /// Before a call without a store computes: a cache that could not be opened is tried again now and then.
    pub(crate) fn retry(&self) {
        if self.handle.store().is_none() {
            self.handle.retry();
        }
    }

    #[inline]
    pub(crate) fn find_seen(&self, identity: &Identity) -> Option<(Hit, TypeProof<V>)> {
        let (store, proof) = self.parts()?;
        Some((store.find_seen(identity, self.expiry_rule())?, proof))
    }

    /// Counts a call that found nothing.
    pub(crate) fn count_miss(&self) {
        self.handle.totals().count_miss();
    }

    /// Removes a key; `true` if it had a value.
    pub(crate) fn remove(&self, identity: &Identity) -> Result<bool> {
        match (self.handle.demand()?, self.proof) {
            (Some(store), Some(_)) => store.remove(identity, self.expiry_rule()),
            _ => Ok(false),
        }
    }

    /// Under what condition a value that was not found is stored. What was found, and then is not admitted,
    /// is damaged.
    pub(crate) fn condition(&self, found: &StoreLookup) -> PutCondition {
        match found.is_absent() {
            true => PutCondition::IfAbsent(found.token, self.expiry_rule()),
            false => PutCondition::Mend(found.token),
        }
    }

    /// Under what condition a value that is computed from now on takes the place of what is there.
    pub(crate) fn refresh_condition(&self) -> Result<Option<PutCondition>> {
        self.retry();
        let Some((store, _)) = self.parts() else { return Ok(None) };
        Ok(Some(PutCondition::Refresh(Store::token(&*store.open_file()?))))
    }

    /// What is stored of a result that has been vetted.
    pub(crate) fn entry<'a>(
        &self,
        identity: Identity,
        payload: &'a [u8],
        cost: Duration,
        is_valid: bool,
    ) -> Entry<'a> {
        Entry { identity, payload, ttl: self.expiry_rule().ttl(), cost, is_valid }
    }

    pub(crate) fn scope_record(&self) -> ScopeRecord<'_> {
        let Scope { description, seen, .. } = &self.scope;
        ScopeRecord { identity: self.scope.identity(), payload: description, seen }
    }

    /// Stores a payload, and waits for the lock as long as the cache's options say.
    pub(crate) fn put(
        &self,
        identity: Identity,
        payload: &[u8],
        cost: Duration,
        condition: PutCondition,
    ) -> Result<Option<StoreLookup>> {
        let Some((store, _)) = self.parts() else { return Ok(None) };
        let entry = self.entry(identity, payload, cost, false);
        store.put(&entry, &self.scope_record(), condition, &store.deadline())
    }
}

impl<V: CacheValue> Keyspace<V> {
    pub(crate) fn new(
        handle: &Arc<Handle>,
        name: Name,
        key: KeySchema,
        fingerprint: &Fingerprint,
    ) -> Keyspace<V> {
        let program = handle.code.program(Keyspace::<V>::new as *const ());
        let scope = Scope::new(name, key, fingerprint, program);
        let proof = TypeProof::of(&scope.hash, scope.instance);
        Keyspace::with(handle, scope, proof)
    }

    /// The keyspace of the same name whose values are known by their schema.
    pub(crate) fn with_schema(&self, key: KeySchema) -> Keyspace<V>
    where
        V: Schema,
    {
        let fingerprint = Fingerprint::of_schema::<V>(Shape::One);
        Keyspace::new(&self.handle, self.scope.name.clone(), key, &fingerprint)
    }

    #[inline]
    pub(crate) fn get(&self, identity: &Identity) -> Result<Option<Cached<V>>> {
        match self.hit(identity) {
            Some(cached) => Ok(Some(cached)),
            None => self.find(identity),
        }
    }

    /// The values of a few, behind those that are in `values`.
    ///
    /// The hot ones are looked up together, so that their cache misses overlap. The others, met for the first time or
    /// not there, one by one.
    pub(crate) fn get_many(
        &self,
        identities: &[Identity],
        values: &mut Vec<Option<Cached<V>>>,
    ) -> Result<()> {
        let start = values.len();
        if let Some((store, proof)) = self.parts() {
            let of = |hit| Cached::of(hit, proof);
            store.find_seen_many(identities, self.expiry_rule(), |hit| values.push(hit.map(of)));
        }
        values.resize_with(start + identities.len(), || None);
        for (value, identity) in values[start..].iter_mut().zip(identities) {
            if value.is_none() {
                *value = self.get(identity)?;
            }
        }
        Ok(())
    }

    /// As [`get`](Keyspace::get), for a record that this process has not met.
    #[cold]
    fn find(&self, identity: &Identity) -> Result<Option<Cached<V>>> {
        let found = match self.parts() {
            Some((store, proof)) => Cached::admit(store.find(identity, self.expiry_rule())?, proof),
            None => None,
        };
        if found.is_none() {
            self.count_miss();
        }
        Ok(found)
    }

    /// Stores a value in any case, and returns it as it is stored.
    ///
    /// Stored in any case: neither a token nor a barrier is asked. It is returned as it lies in the file; if it could
    /// not be stored, as it would lie there.
    pub(crate) fn insert(&self, identity: Identity, value: &V) -> Result<Cached<V>> {
        self.handle.demand()?;
        let Some((_, proof)) = self.parts() else { return Cached::from_value(value) };
        let archived = Wanted::Archived;
        let stored =
            self.store(identity, value, Duration::ZERO, PutCondition::Replace, archived)?;
        match stored.and_then(|found| Cached::admit(found, proof)) {
            Some(cached) => Ok(cached),
            None => Cached::from_value(value),
        }
    }

    /// The value, if this process has met its record.
    ///
    /// Two loads more than the store's look-up: the handle's store, and the proof that the scope is of this type.
    #[inline(always)]
    pub(crate) fn hit(&self, identity: &Identity) -> Option<Cached<V>> {
        let Some(store) = &self.handle.store else { return self.hit_late(identity) };
        let proof = self.proof?;
        Some(Cached::of(store.find_seen(identity, self.expiry_rule())?, proof))
    }

    /// As [`hit`](Keyspace::hit), where the store came late. Apart, so that no other hit pays for it.
    #[cold]
    fn hit_late(&self, identity: &Identity) -> Option<Cached<V>> {
        let (hit, proof) = self.find_seen(identity)?;
        Some(Cached::of(hit, proof))
    }

    /// Fails for an archive that may not be stored; says whether it was checked. One over the handle's limit is
    /// not stored, nor one that whoever meets it will refuse: it would be computed and stored again and again.
    /// What rkyv archives by itself is valid unless it is nested too deep, and checking it takes time, so that
    /// it is left to who first accesses the record. A type whose own implementation archives something else is
    /// found out then; what takes the place of a value that was refused is checked.
    ///
    /// The check is rkyv's validation of the whole archive, in proportion to its size. Where it is left out, the
    /// first hit of each process does it.
    pub(crate) fn vet(
        &self,
        archive: &[u8],
        condition: PutCondition,
        wanted: Wanted,
    ) -> Result<bool> {
        self.handle.check_size(archive.len() as u64)?;
        let is_checked =
            wanted == Wanted::Archived || condition.needs_check() || may_be_too_deep(archive);
        if is_checked {
            validate::<V>(archive)?;
        }
        Ok(is_checked)
    }

    /// Archives a value and stores it.
    pub(crate) fn store(
        &self,
        identity: Identity,
        value: &V,
        cost: Duration,
        condition: PutCondition,
        wanted: Wanted,
    ) -> Result<Option<StoreLookup>> {
        let Some((store, _)) = self.parts() else { return Ok(None) };
        encode(value, |archive| {
            let is_valid = self.vet(archive, condition, wanted)?;
            let entry = self.entry(identity, archive, cost, is_valid);
            store.put(&entry, &self.scope_record(), condition, &store.deadline())
        })?
    }

    /// Notes what a computation took.
    pub(crate) fn note_cost(&self, nanos: u64) {
        self.longest.fetch_max(nanos, Ordering::Relaxed); // Relaxed: a number of its own.
    }
}
