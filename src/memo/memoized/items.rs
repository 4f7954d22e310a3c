//! Memoised functions that return an iterator or a stream.

use crate::error::Result;
use crate::memo::call::keyspace::Keyspace;
use crate::memo::call::recording::{CachedIter, Plain};
use crate::memo::call::stream::CachedStream;
use crate::memo::value::schema::Schema;
use crate::memo::value::type_proof::Sequence;
use crate::{CacheKey, CacheValue};
use futures_core::Stream;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A function whose items are kept, from [`MmapCache::memoize_iter`](crate::MmapCache::memoize_iter).
pub struct MemoizedIter<K: ?Sized, V, F> {
    keyspace: Arc<Keyspace<Sequence<V>>>,
    function: F,
    key: PhantomData<fn(&K)>,
}

/// A function whose items are kept, from
/// [`MmapCache::memoize_stream`](crate::MmapCache::memoize_stream).
pub struct MemoizedStream<K: ?Sized, V, F> {
    keyspace: Arc<Keyspace<Sequence<V>>>,
    function: F,
    key: PhantomData<fn(&K)>,
}

impl<K, V, F, I> MemoizedIter<K, V, F>
where
    K: CacheKey + ?Sized,
    V: CacheValue,
    F: Fn(&K) -> I,
    I: IntoIterator<Item = V>,
{
    pub(crate) fn new(keyspace: Keyspace<Sequence<V>>, function: F) -> MemoizedIter<K, V, F> {
        MemoizedIter { keyspace: Arc::new(keyspace), function, key: PhantomData }
    }

    /// The same function, its items known by their [`Schema`]: exactly, and whatever else is built anew. (A function
    /// without a name of its own still belongs to the program as built.)
    #[must_use]
    pub fn with_schema(self) -> MemoizedIter<K, V, F>
    where
        V: Schema,
    {
        MemoizedIter::new(self.keyspace.items_with_schema(K::SCHEMA), self.function)
    }

    /// The function's items for `key`: as they are stored, or as they come, stored when the last has.
    /// Callers that miss at once each compute: none waits for how fast another consumes.
    pub fn call(&self, key: &K) -> CachedIter<I::IntoIter, Plain<V>> {
        let identity = self.keyspace.identify(key);
        CachedIter::new(&self.keyspace, identity, || (self.function)(key).into_iter())
    }

    /// Removes the items for `key`; `true` if there were some. Those under way are not stored.
    ///
    /// # Errors
    /// As [`Table::insert`](crate::Table::insert).
    pub fn forget(&self, key: &K) -> Result<bool> {
        self.keyspace.remove(&self.keyspace.identify(key))
    }
}

impl<K, V, F, S> MemoizedStream<K, V, F>
where
    K: CacheKey + ?Sized,
    V: CacheValue,
    F: Fn(&K) -> S,
    S: Stream<Item = V>,
{
    pub(crate) fn new(keyspace: Keyspace<Sequence<V>>, function: F) -> MemoizedStream<K, V, F> {
        MemoizedStream { keyspace: Arc::new(keyspace), function, key: PhantomData }
    }

    /// The same function, its items known by their [`Schema`]: exactly, and whatever else is built anew. (A function
    /// without a name of its own still belongs to the program as built.)
    #[must_use]
    pub fn with_schema(self) -> MemoizedStream<K, V, F>
    where
        V: Schema,
    {
        MemoizedStream::new(self.keyspace.items_with_schema(K::SCHEMA), self.function)
    }

    /// The function's items for `key`: as they are stored, or as they come, stored when the last has.
    /// Callers that miss at once each compute: none waits for how fast another consumes.
    pub fn call(&self, key: &K) -> CachedStream<S, Plain<V>> {
        let identity = self.keyspace.identify(key);
        CachedStream::new(&self.keyspace, identity, || (self.function)(key))
    }

    /// Removes the items for `key`; `true` if there were some. Those under way are not stored.
    ///
    /// # Errors
    /// As [`Table::insert`](crate::Table::insert).
    pub fn forget(&self, key: &K) -> Result<bool> {
        self.keyspace.remove(&self.keyspace.identify(key))
    }
}

impl<K: ?Sized, V, F> fmt::Debug for MemoizedIter<K, V, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoizedIter").finish_non_exhaustive()
    }
}

impl<K: ?Sized, V, F> fmt::Debug for MemoizedStream<K, V, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoizedStream").finish_non_exhaustive()
    }
}
