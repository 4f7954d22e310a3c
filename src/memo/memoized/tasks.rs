//! Memoised async functions.

use super::Table;
use crate::error::Result;
use crate::memo::call::outcome::Wanted;
use crate::memo::value::schema::Schema;
use crate::{CacheKey, CacheValue, Cached};
use std::convert::Infallible;
use std::fmt;

/// An async function whose results are kept, from
/// [`MmapCache::memoize_async`](crate::MmapCache::memoize_async). Runs on any runtime, and blocks none:
/// see there.
pub struct AsyncMemoized<K: ?Sized, V, F> {
    table: Table<K, V>,
    function: F,
}

/// An async function that can fail and whose successes are kept, from
/// [`MmapCache::try_memoize_async`](crate::MmapCache::try_memoize_async).
pub struct AsyncTryMemoized<K: ?Sized, V, F> {
    table: Table<K, V>,
    function: F,
}

impl<K, V, F> AsyncMemoized<K, V, F>
where
    K: CacheKey + ?Sized,
    V: CacheValue,
    F: AsyncFn(&K) -> V,
{
    pub(crate) fn new(table: Table<K, V>, function: F) -> AsyncMemoized<K, V, F> {
        AsyncMemoized { table, function }
    }

    /// The same function, its results known by their [`Schema`]: exactly, and whatever else is built anew. (A function
    /// without a name of its own still belongs to the program as built.)
    #[must_use]
    pub fn with_schema(self) -> AsyncMemoized<K, V, F>
    where
        V: Schema,
    {
        AsyncMemoized { table: self.table.with_schema(), function: self.function }
    }

    /// The function's result for `key`, as [`Memoized::call`](crate::Memoized::call) gives it. A task
    /// that is dropped while it computes stores nothing, and another takes over.
    ///
    /// # Panics
    /// As [`Memoized::call`](crate::Memoized::call).
    pub async fn call(&self, key: &K) -> Cached<V> {
        let keyspace = &self.table.keyspace;
        let identity = keyspace.identify(key);
        if let Some(cached) = keyspace.hit(&identity) {
            return cached;
        }
        let compute = || async { Ok::<V, Infallible>((self.function)(key).await) };
        let Ok(outcome) = keyspace.obtain_async(&identity, Wanted::Archived, compute).await;
        outcome.into_cached()
    }

    /// The result for `key`, if it is stored. Never computes.
    pub fn peek(&self, key: &K) -> Option<Cached<V>> {
        self.table.get(key).ok().flatten()
    }

    /// Removes the result for `key`, as [`Memoized::forget`](crate::Memoized::forget) does.
    ///
    /// # Errors
    /// As [`Table::insert`](crate::Table::insert).
    pub fn forget(&self, key: &K) -> Result<bool> {
        self.table.remove(key)
    }
}

impl<K, V, E, F> AsyncTryMemoized<K, V, F>
where
    K: CacheKey + ?Sized,
    V: CacheValue,
    F: AsyncFn(&K) -> Result<V, E>,
{
    pub(crate) fn new(table: Table<K, V>, function: F) -> AsyncTryMemoized<K, V, F> {
        AsyncTryMemoized { table, function }
    }

    /// The same function, its results known by their [`Schema`]: exactly, and whatever else is built anew. (A function
    /// without a name of its own still belongs to the program as built.)
    #[must_use]
    pub fn with_schema(self) -> AsyncTryMemoized<K, V, F>
    where
        V: Schema,
    {
        AsyncTryMemoized { table: self.table.with_schema(), function: self.function }
    }

    /// The function's result for `key`: as it is stored, or computed now and, if it is `Ok`, stored.
    ///
    /// # Errors
    /// Those of the function alone.
    ///
    /// # Panics
    /// As [`Memoized::call`](crate::Memoized::call).
    pub async fn call(&self, key: &K) -> Result<Cached<V>, E> {
        let keyspace = &self.table.keyspace;
        let identity = keyspace.identify(key);
        if let Some(cached) = keyspace.hit(&identity) {
            return Ok(cached);
        }
        let compute = || (self.function)(key);
        Ok(keyspace.obtain_async(&identity, Wanted::Archived, compute).await?.into_cached())
    }

    /// The result for `key`, if it is stored. Never computes.
    pub fn peek(&self, key: &K) -> Option<Cached<V>> {
        self.table.get(key).ok().flatten()
    }

    /// Removes the result for `key`, as [`Memoized::forget`](crate::Memoized::forget) does.
    ///
    /// # Errors
    /// As [`Table::insert`](crate::Table::insert).
    pub fn forget(&self, key: &K) -> Result<bool> {
        self.table.remove(key)
    }
}

impl<K: ?Sized, V, F> fmt::Debug for AsyncMemoized<K, V, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncMemoized").finish_non_exhaustive()
    }
}

impl<K: ?Sized, V, F> fmt::Debug for AsyncTryMemoized<K, V, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncTryMemoized").finish_non_exhaustive()
    }
}
