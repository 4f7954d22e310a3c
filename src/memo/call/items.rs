//! Sections of many items, one record each: how they are made, and their look-ups, by threads and by tasks.

use super::keyspace::Keyspace;
use crate::engine::file::effort::Effort;
use crate::engine::format::record::Identity;
use crate::engine::store::put::PutCondition;
use crate::engine::store::{StoreLookup, Token, Unmet};
use crate::error::Result;
use crate::memo::handle::Handle;
use crate::memo::key::KeySchema;
use crate::memo::scope::{Fingerprint, Name, Scope};
use crate::memo::value::archive::CacheValue;
use crate::memo::value::cached::Items;
use crate::memo::value::schema::Schema;
use crate::memo::value::type_proof::{Sequence, Shape, TypeProof};
use std::sync::Arc;

/// The items that are stored; or under what condition others may be, if they may.
pub(crate) type Looked<V> = Result<Items<V>, Result<Option<PutCondition>>>;

impl<V: CacheValue> Keyspace<Sequence<V>> {
    pub(crate) fn of_items(
        handle: &Arc<Handle>,
        name: Name,
        key: KeySchema,
        fingerprint: &Fingerprint,
    ) -> Self {
        let program = handle.code.program(Keyspace::<Sequence<V>>::of_items as *const ());
        let scope = Scope::new(name, key, fingerprint, program);
        let proof = TypeProof::of_items(&scope.hash, scope.instance);
        Keyspace::with(handle, scope, proof)
    }

    /// The keyspace of the same name whose items are known by their schema.
    pub(crate) fn items_with_schema(&self, key: KeySchema) -> Keyspace<Sequence<V>>
    where
        V: Schema,
    {
        let fingerprint = Fingerprint::of_schema::<V>(Shape::Sequence);
        Keyspace::of_items(&self.handle, self.scope.name.clone(), key, &fingerprint)
    }

    /// Looks for items, and waits for a file to be opened.
    pub(crate) fn items(&self, identity: &Identity) -> Looked<V> {
        if let Some((hit, proof)) = self.find_seen(identity) {
            return Ok(Items::of(hit, proof));
        }
        self.retry();
        let looked =
            self.parts().map(|(store, proof)| (store.find(identity, self.expiry_rule()), proof));
        self.admit_items(looked)
    }

    /// As [`items`](Keyspace::items), in the file that is open. However long what is there is, it is checked here
    /// and now: whether the function is to be called depends on it, whose argument is here now and no longer.
    pub(crate) fn items_here(&self, identity: &Identity) -> Result<Looked<V>, Unmet> {
        if let Some((hit, proof)) = self.find_seen(identity) {
            return Ok(Ok(Items::of(hit, proof)));
        }
        if self.handle.store().is_none() && self.handle.is_due() {
            return Err(Unmet::Elsewhere(None));
        }
        let Some((store, proof)) = self.parts() else { return Ok(self.admit_items(None)) };
        let found = match store.find_here(identity, self.expiry_rule(), Effort::Full) {
            Ok(found) => Ok(found?),
            Err(error) => Err(error),
        };
        Ok(self.admit_items(Some((found, proof))))
    }

    /// As [`items`](Keyspace::items), in a file that must be opened first, for a computation that began at
    /// `token`. Where nobody knows when it began, since there was no file that told, it is not stored.
    pub(crate) async fn items_there(
        &self,
        unmet: Unmet,
        identity: &Identity,
        token: Option<Token>,
    ) -> Looked<V> {
        self.retry_async().await;
        let Some((store, proof)) = self.shared_parts() else { return self.admit_items(None) };
        let examine = move |found| Items::examine(found, proof);
        let found = store.find_there_async(unmet, identity, self.expiry_rule(), examine).await;
        let found = found.map(|found| StoreLookup { token: token.unwrap_or(found.token), ..found });
        let items = self.admit_items(Some((found, proof)));
        items.map_err(|condition| if token.is_some() { condition } else { condition.map(|_| None) })
    }

    /// What a look came to, and what the keyspace's right is; `None` if there is no store.
    fn admit_items(
        &self,
        looked: Option<(Result<StoreLookup>, TypeProof<Sequence<V>>)>,
    ) -> Looked<V> {
        let Some((found, proof)) = looked else {
            self.count_miss();
            return Err(Ok(None));
        };
        let found = found.map_err(Err)?;
        let condition = self.condition(&found);
        Items::admit(found, proof).ok_or_else(|| {
            self.count_miss();
            Ok(Some(condition))
        })
    }

    /// As [`refresh_condition`](Keyspace::refresh_condition), by the file that is open.
    pub(crate) fn refresh_condition_here(&self) -> Result<Option<PutCondition>> {
        self.retry();
        let Some((store, _)) = self.parts() else { return Ok(None) };
        let token = store.known_token().ok_or_else(|| store.unstable())?;
        Ok(Some(PutCondition::Refresh(token)))
    }
}
