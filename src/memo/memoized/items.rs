//! Memoised functions that return an iterator or a stream.

use crate::error::Result;
use crate::memo::call::iterator::CachedIter;
use crate::memo::call::keyspace::Keyspace;
use crate::memo::call::output::Plain;
use crate::memo::call::stream::CachedStream;
use crate::memo::handle::Handle;
use crate::memo::scope::{Fingerprint, Name};
use crate::memo::value::schema::Schema;
use crate::memo::value::type_proof::{Sequence, Shape};
use crate::{CacheKey, CacheValue};
use futures_core::Stream;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A typed, named part of a cache, as a [`Table`](crate::Table) is, whose entries are sequences.
pub(crate) struct Sequences<K: ?Sized, V> {
    keyspace: Arc<Keyspace<Sequence<V>>>,
    key: PhantomData<fn(&K)>,
}

impl<K: CacheKey + ?Sized, V: CacheValue> Sequences<K, V> {
    pub(crate) fn new(handle: &Arc<Handle>, name: Name) -> Sequences<K, V> {
        let fingerprint = Fingerprint::of_type::<V>(Shape::Sequence);
        Sequences::of(Keyspace::of_items(handle, name, K::SCHEMA, &fingerprint))
    }

    fn of(keyspace: Keyspace<Sequence<V>>) -> Sequences<K, V> {
        Sequences { keyspace: Arc::new(keyspace), key: PhantomData }
    }

    fn with_schema(self) -> Sequences<K, V>
    where
        V: Schema,
    {
        Sequences::of(self.keyspace.items_with_schema(K::SCHEMA))
    }

    fn remove(&self, key: &K) -> Result<bool> {
        self.keyspace.remove(&self.keyspace.identify(key))
    }
}

impl<K: ?Sized, V> Clone for Sequences<K, V> {
    fn clone(&self) -> Sequences<K, V> {
        Sequences { keyspace: Arc::clone(&self.keyspace), key: PhantomData }
    }
}

/// A memoised function that returns an iterator, from
/// [`MmapCache::memoize_iter`](crate::MmapCache::memoize_iter) or
/// [`memoize_iter_as`](crate::MmapCache::memoize_iter_as). All items of a call are one stored result.
///
/// # Examples
/// ```
/// use persist_cache::{MemoizedIter, MmapCache};
///
/// // A closure has no type that can be written: a holder is generic.
/// struct Numbers<F> { squares: MemoizedIter<u64, u64, F> }
///
/// let squares = MmapCache::disabled().memoize_iter(|end: &u64| (0..*end).map(|n| n * n));
/// assert_eq!(Numbers { squares }.squares.call(&4).sum::<u64>(), 14);
/// ```
pub struct MemoizedIter<K: ?Sized, V, F> {
    table: Sequences<K, V>,
    function: F,
}

/// A memoised function that returns a stream, from
/// [`MmapCache::memoize_stream`](crate::MmapCache::memoize_stream) or
/// [`memoize_stream_as`](crate::MmapCache::memoize_stream_as). All items of a call are one stored result.
///
/// # Examples
/// ```
/// use futures_lite::{StreamExt, stream};
/// use persist_cache::{MemoizedStream, MmapCache};
///
/// struct Numbers<F> { count: MemoizedStream<u64, u64, F> }
///
/// let count = MmapCache::disabled().memoize_stream(|end: &u64| stream::iter(0..*end));
/// # futures_lite::future::block_on(async {
/// assert_eq!(Numbers { count }.count.call(&4).collect::<Vec<u64>>().await, [0, 1, 2, 3]);
/// # });
/// ```
pub struct MemoizedStream<K: ?Sized, V, F> {
    table: Sequences<K, V>,
    function: F,
}

impl<K, V, F, I> MemoizedIter<K, V, F>
where
    K: CacheKey + ?Sized,
    V: CacheValue,
    F: Fn(&K) -> I,
    I: IntoIterator<Item = V>,
{
    /// Returns the function's items for `key`. Items that are stored are read one by one; any others are
    /// computed as they are asked for, and stored when the last has come.
    ///
    /// An iterator that is dropped before its end stores nothing. Callers that miss the same items at once each
    /// compute them: nobody waits for how fast another consumes.
    ///
    /// # Panics
    /// If the function panics.
    ///
    /// # Cost
    /// A hit takes no lock and makes no system call; the first in a process checks all items at once. For what
    /// the items cost, see [`CachedIter`].
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let squares = cache.memoize_iter(|end: &u64| (0..*end).map(|n| n * n));
    /// assert_eq!(squares.call(&4).collect::<Vec<u64>>(), [0, 1, 4, 9]); // computed, and stored
    /// assert_eq!(squares.call(&4).sum::<u64>(), 14);                    // read
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn call(&self, key: &K) -> CachedIter<I::IntoIter, Plain<V>> {
        let keyspace = &self.table.keyspace;
        CachedIter::new(keyspace, keyspace.identify(key), || (self.function)(key).into_iter())
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
    /// let memoized = cache.memoize_iter(|end: &u64| 0..*end).with_schema();
    /// # let _ = memoized;
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[must_use]
    pub fn with_schema(self) -> MemoizedIter<K, V, F>
    where
        V: Schema,
    {
        MemoizedIter::new(self.table.with_schema(), self.function)
    }
}

impl<K, V, F, S> MemoizedStream<K, V, F>
where
    K: CacheKey + ?Sized,
    V: CacheValue,
    F: Fn(&K) -> S,
    S: Stream<Item = V>,
{
    /// Returns the function's items for `key`. Items that are stored are read one by one; any others are
    /// computed as they are asked for, and stored when the last has come.
    ///
    /// A stream that is dropped before its end stores nothing. Callers that miss the same items at once each
    /// compute them: nobody waits for how fast another consumes.
    ///
    /// # Panics
    /// If the function panics.
    ///
    /// # Cost
    /// A hit takes no lock and makes no system call; the first in a process checks all items at once, on this
    /// thread. For what the items cost, see [`CachedStream`].
    ///
    /// # Examples
    /// ```
    /// use futures_lite::{StreamExt, stream};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// # futures_lite::future::block_on(async {
    /// let count = cache.memoize_stream(|end: &u64| stream::iter(0..*end));
    /// assert_eq!(count.call(&3).collect::<Vec<u64>>().await, [0, 1, 2]); // computed, and stored
    /// assert_eq!(count.call(&3).fold(0, |sum, n| sum + n).await, 3);     // read
    /// # });
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn call(&self, key: &K) -> CachedStream<S, Plain<V>> {
        let keyspace = &self.table.keyspace;
        CachedStream::new(keyspace, keyspace.identify(key), || (self.function)(key))
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
    /// let memoized = cache.memoize_stream(|end: &u64| futures_lite::stream::iter(0..*end)).with_schema();
    /// # let _ = memoized;
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[must_use]
    pub fn with_schema(self) -> MemoizedStream<K, V, F>
    where
        V: Schema,
    {
        MemoizedStream::new(self.table.with_schema(), self.function)
    }
}

memoized!(in Sequences: MemoizedIter, "memoize_iter(|end: &u64| 0..*end)", "&4");
memoized!(
    in Sequences: MemoizedStream,
    "memoize_stream(|end: &u64| futures_lite::stream::iter(0..*end))",
    "&4"
);
