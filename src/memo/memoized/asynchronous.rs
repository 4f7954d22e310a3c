//! Memoised async functions.

use crate::error::Result;
use crate::memo::call::outcome::Wanted;
use crate::memo::table::Table;
use crate::memo::value::schema::Schema;
use crate::{CacheKey, CacheValue, Cached};
use std::convert::Infallible;
use std::fmt;

/// A memoised async function, from [`MmapCache::memoize_async`](crate::MmapCache::memoize_async) or
/// [`memoize_async_as`](crate::MmapCache::memoize_async_as). It runs on any runtime, and its calls block no
/// thread of it.
///
/// # Examples
/// ```
/// use persist_cache::{AsyncMemoized, MmapCache};
///
/// // A function item has no type that can be written: a holder is generic.
/// struct Pages<F> { load: AsyncMemoized<str, u64, F> }
///
/// let pages = Pages {
///     load: MmapCache::disabled().memoize_async(async |url: &str| url.len() as u64),
/// };
/// # futures_lite::future::block_on(async {
/// assert_eq!(*pages.load.call("home").await, 4);
/// # });
/// ```
pub struct AsyncMemoized<K: ?Sized, V, F> {
    table: Table<K, V>,
    function: F,
}

/// A memoised async function that can fail, from
/// [`MmapCache::try_memoize_async`](crate::MmapCache::try_memoize_async) or
/// [`try_memoize_async_as`](crate::MmapCache::try_memoize_async_as). `Ok` results are stored, `Err` results are
/// not.
///
/// # Examples
/// ```
/// use persist_cache::{AsyncTryMemoized, MmapCache};
///
/// struct Pages<F> { load: AsyncTryMemoized<str, u64, F> }
///
/// let pages = Pages {
///     load: MmapCache::disabled().try_memoize_async(async |text: &str| text.parse::<u64>()),
/// };
/// # futures_lite::future::block_on(async {
/// assert!(pages.load.call("home").await.is_err());
/// # });
/// ```
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
    /// Returns the function's result for `key`. A result that is stored is read; any other is computed now,
    /// and stored.
    ///
    /// The cache never makes a call fail, as for [`Memoized::call`](crate::Memoized::call). A task that is
    /// dropped while it computes stores nothing, and another that waits for the result takes over.
    ///
    /// # Panics
    /// As [`Memoized::call`](crate::Memoized::call).
    ///
    /// # Cost
    /// A hit and a miss cost what they do for [`Memoized::call`](crate::Memoized::call), and no poll waits: for
    /// another computation, for the file's lock, and for a file to be opened, the task sleeps, not its thread.
    /// The task's thread archives the result, and checks and copies it if it is small; a large one is left to up
    /// to four threads of this library's.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// # futures_lite::future::block_on(async {
    /// let length = cache.memoize_async(async |text: &str| text.len() as u64);
    /// assert_eq!(*length.call("four").await, 4); // computed, and stored
    /// assert_eq!(*length.call("four").await, 4); // read
    /// # });
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
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

    /// Returns the same function, whose results are known by the [`Schema`] of their type, as
    /// [`Memoized::with_schema`](crate::Memoized::with_schema) does.
    ///
    /// # Cost
    /// As [`Memoized::with_schema`](crate::Memoized::with_schema).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let memoized = cache.memoize_async(async |text: &str| text.len() as u64).with_schema();
    /// # let _ = memoized;
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[must_use]
    pub fn with_schema(self) -> AsyncMemoized<K, V, F>
    where
        V: Schema,
    {
        AsyncMemoized::new(self.table.with_schema(), self.function)
    }
}

impl<K, V, E, F> AsyncTryMemoized<K, V, F>
where
    K: CacheKey + ?Sized,
    V: CacheValue,
    F: AsyncFn(&K) -> Result<V, E>,
{
    /// Returns the function's result for `key`. A result that is stored is read; any other is computed now,
    /// and stored if it is `Ok`.
    ///
    /// A task that is dropped while it computes stores nothing, and another that waits for the result takes over.
    ///
    /// # Errors
    /// The function's own. The cache adds none.
    ///
    /// # Panics
    /// As [`Memoized::call`](crate::Memoized::call).
    ///
    /// # Cost
    /// As [`AsyncMemoized::call`]. A call that fails stores nothing.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// # futures_lite::future::block_on(async {
    /// let parse = cache.try_memoize_async(async |text: &str| text.parse::<u64>());
    /// assert_eq!(parse.call("42").await.map(|n| n.to_native()), Ok(42));
    /// assert!(parse.call("forty-two").await.is_err());
    /// # });
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub async fn call(&self, key: &K) -> Result<Cached<V>, E> {
        let keyspace = &self.table.keyspace;
        let identity = keyspace.identify(key);
        if let Some(cached) = keyspace.hit(&identity) {
            return Ok(cached);
        }
        let compute = || (self.function)(key);
        Ok(keyspace.obtain_async(&identity, Wanted::Archived, compute).await?.into_cached())
    }

    /// Returns the same function, whose results are known by the [`Schema`] of their type, as
    /// [`Memoized::with_schema`](crate::Memoized::with_schema) does.
    ///
    /// # Cost
    /// As [`Memoized::with_schema`](crate::Memoized::with_schema).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let memoized = cache.try_memoize_async(async |text: &str| text.parse::<u64>()).with_schema();
    /// # let _ = memoized;
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[must_use]
    pub fn with_schema(self) -> AsyncTryMemoized<K, V, F>
    where
        V: Schema,
    {
        AsyncTryMemoized::new(self.table.with_schema(), self.function)
    }
}

memoized!(values: AsyncMemoized, "memoize_async(async |text: &str| text.len() as u64)", "\"four\"");
memoized!(
    values: AsyncTryMemoized,
    "try_memoize_async(async |text: &str| text.parse::<u64>())",
    "\"4\""
);
