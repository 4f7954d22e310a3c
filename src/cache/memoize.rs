//! What a cache memoises: functions and closures of every kind.

use super::MmapCache;
use crate::error::Result;
use crate::memo::call::keyspace::Keyspace;
use crate::memo::memoized::items::{MemoizedIter, MemoizedStream};
use crate::memo::memoized::tasks::{AsyncMemoized, AsyncTryMemoized};
use crate::memo::memoized::{Memoized, TryMemoized, as_pointer, refuse_captures};
use crate::memo::scope::{Fingerprint, Name};
use crate::memo::table::Table;
use crate::memo::value::type_proof::{Sequence, Shape};
use crate::{CacheKey, CacheValue};
use futures_core::Stream;
use std::panic::Location;

impl MmapCache {
    /// Memoises a function: a result is computed once and then read from the file, in this process and
    /// all others, now and after the next start.
    ///
    /// The function's code is not seen, so its entries belong to the program as built: they outlast
    /// restarts, and are misses after a rebuild that changed anything. Give a name to what should last
    /// ([`memoize_as`](MmapCache::memoize_as)), or mark it with [`#[cache]`](macro@crate::cache), which sees
    /// its code. Within a program it is known by its path and its type, a closure by its place too.
    ///
    /// The argument is borrowed: for `fn slow(n: u64)` write `memoize(|n: &u64| slow(*n))`. For several
    /// arguments take a tuple: `memoize(|(path, depth): &(String, u32)| ..)`. If the function returns a
    /// `Result`, errors are stored too: see [`try_memoize`](MmapCache::try_memoize).
    ///
    /// A closure that captures something is refused by the compiler, since two of them with different
    /// captures cannot be told apart:
    ///
    /// ```compile_fail
    /// let factor = std::env::args().count() as u64;
    /// let scaled = persist_cache::MmapCache::disabled().memoize(move |n: &u64| n * factor);
    /// ```
    ///
    /// So is a function pointer. Put what is captured into the argument, or give a name:
    ///
    /// ```
    /// let factor = std::env::args().count() as u64;
    /// let cache = persist_cache::MmapCache::disabled();
    /// let scaled = cache.memoize(|(n, factor): &(u64, u64)| n * factor);
    /// let scaled = cache.memoize_as(&format!("scaled by {factor}"), move |n: &u64| n * factor);
    /// ```
    #[track_caller]
    pub fn memoize<K, V, F>(&self, function: F) -> Memoized<K, V>
    where
        K: CacheKey + ?Sized,
        V: CacheValue,
        F: Fn(&K) -> V + Send + Sync + 'static,
    {
        let table = Table::new(&self.handle, Name::of::<F>(Location::caller()));
        Memoized::new(table, as_pointer(function))
    }

    /// Memoises any function under a name. The name is your word: whatever is memoised under it in this
    /// cache, with the same types, shares its entries. An edit of the function is not seen: change the name
    /// then, or open the cache with [`Code::Program`](crate::Code::Program).
    pub fn memoize_as<K, V, F>(&self, name: &str, function: F) -> Memoized<K, V, F>
    where
        K: CacheKey + ?Sized,
        V: CacheValue,
        F: Fn(&K) -> V,
    {
        Memoized::new(self.table(name), function)
    }

    /// Memoises a function that can fail: `Ok` is stored, `Err` is returned and forgotten.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let parse = cache.try_memoize(|text: &str| text.parse::<u64>());
    /// assert_eq!(parse.call("42").map(|n| n.to_native()), Ok(42));
    /// assert!(parse.call("forty-two").is_err());
    /// assert_eq!(cache.stats().entries, 1);
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[track_caller]
    pub fn try_memoize<K, V, E, F>(&self, function: F) -> TryMemoized<K, V, E>
    where
        K: CacheKey + ?Sized,
        V: CacheValue,
        F: Fn(&K) -> Result<V, E> + Send + Sync + 'static,
    {
        let table = Table::new(&self.handle, Name::of::<F>(Location::caller()));
        TryMemoized::new(table, as_pointer(function))
    }

    /// Memoises any function that can fail, under a name, as [`memoize_as`](MmapCache::memoize_as)
    /// does.
    pub fn try_memoize_as<K, V, E, F>(&self, name: &str, function: F) -> TryMemoized<K, V, E, F>
    where
        K: CacheKey + ?Sized,
        V: CacheValue,
        F: Fn(&K) -> Result<V, E>,
    {
        TryMemoized::new(self.table(name), function)
    }

    /// Memoises an async function. It runs on any runtime, and blocks none: while other tasks or
    /// processes compute the same, or hold the file's lock, the task waits, not its thread.
    ///
    /// Closures without captured state only, as for [`memoize`](MmapCache::memoize). With a plain closure
    /// that returns a future, clone what the future needs of the argument.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// # futures_lite::future::block_on(async {
    /// let length = cache.memoize_async(async |text: &str| text.len() as u64);
    /// assert_eq!(*length.call("four").await, 4);
    /// # });
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[track_caller]
    pub fn memoize_async<K, V, F>(&self, function: F) -> AsyncMemoized<K, V, F>
    where
        K: CacheKey + ?Sized,
        V: CacheValue,
        F: AsyncFn(&K) -> V + 'static,
    {
        refuse_captures::<F>();
        let name = Name::of::<F>(Location::caller());
        AsyncMemoized::new(Table::new(&self.handle, name), function)
    }

    /// Memoises any async function under a name, as [`memoize_as`](MmapCache::memoize_as) does.
    pub fn memoize_async_as<K, V, F>(&self, name: &str, function: F) -> AsyncMemoized<K, V, F>
    where
        K: CacheKey + ?Sized,
        V: CacheValue,
        F: AsyncFn(&K) -> V,
    {
        AsyncMemoized::new(self.table(name), function)
    }

    /// Memoises an async function that can fail: `Ok` is stored, `Err` is returned and forgotten. Else
    /// as [`memoize_async`](MmapCache::memoize_async).
    #[track_caller]
    pub fn try_memoize_async<K, V, E, F>(&self, function: F) -> AsyncTryMemoized<K, V, F>
    where
        K: CacheKey + ?Sized,
        V: CacheValue,
        F: AsyncFn(&K) -> Result<V, E> + 'static,
    {
        refuse_captures::<F>();
        let name = Name::of::<F>(Location::caller());
        AsyncTryMemoized::new(Table::new(&self.handle, name), function)
    }

    /// Memoises any async function that can fail, under a name, as
    /// [`memoize_as`](MmapCache::memoize_as) does.
    pub fn try_memoize_async_as<K, V, E, F>(
        &self,
        name: &str,
        function: F,
    ) -> AsyncTryMemoized<K, V, F>
    where
        K: CacheKey + ?Sized,
        V: CacheValue,
        F: AsyncFn(&K) -> Result<V, E>,
    {
        AsyncTryMemoized::new(self.table(name), function)
    }

    /// Memoises a function that returns an iterator, or anything that becomes one. On a miss the items
    /// pass through as they come, and are stored when the last has; on a hit they are read one by one.
    /// An iterator that is dropped before its end stores nothing.
    ///
    /// Closures without captured state only, as for [`memoize`](MmapCache::memoize). If the items are
    /// `Result`s, errors are stored too.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let squares = cache.memoize_iter(|end: &u64| (0..*end).map(|n| n * n));
    /// assert_eq!(squares.call(&4).collect::<Vec<u64>>(), [0, 1, 4, 9]); // computed, and stored
    /// assert_eq!(squares.call(&4).sum::<u64>(), 14);                    // read
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[track_caller]
    pub fn memoize_iter<K, V, I, F>(&self, function: F) -> MemoizedIter<K, V, F>
    where
        K: CacheKey + ?Sized,
        V: CacheValue,
        F: Fn(&K) -> I + 'static,
        I: IntoIterator<Item = V>,
    {
        refuse_captures::<F>();
        MemoizedIter::new(self.items::<K, V>(Name::of::<F>(Location::caller())), function)
    }

    /// Memoises any function that returns an iterator, under a name, as
    /// [`memoize_as`](MmapCache::memoize_as) does.
    pub fn memoize_iter_as<K, V, I, F>(&self, name: &str, function: F) -> MemoizedIter<K, V, F>
    where
        K: CacheKey + ?Sized,
        V: CacheValue,
        F: Fn(&K) -> I,
        I: IntoIterator<Item = V>,
    {
        MemoizedIter::new(self.items::<K, V>(Name::Given(name.to_owned())), function)
    }

    /// Memoises a function that returns a stream: [`memoize_iter`](MmapCache::memoize_iter) for async
    /// code; see [`CachedStream`](crate::CachedStream).
    #[track_caller]
    pub fn memoize_stream<K, V, S, F>(&self, function: F) -> MemoizedStream<K, V, F>
    where
        K: CacheKey + ?Sized,
        V: CacheValue,
        F: Fn(&K) -> S + 'static,
        S: Stream<Item = V>,
    {
        refuse_captures::<F>();
        MemoizedStream::new(self.items::<K, V>(Name::of::<F>(Location::caller())), function)
    }

    /// Memoises any function that returns a stream, under a name, as
    /// [`memoize_as`](MmapCache::memoize_as) does.
    pub fn memoize_stream_as<K, V, S, F>(&self, name: &str, function: F) -> MemoizedStream<K, V, F>
    where
        K: CacheKey + ?Sized,
        V: CacheValue,
        F: Fn(&K) -> S,
        S: Stream<Item = V>,
    {
        MemoizedStream::new(self.items::<K, V>(Name::Given(name.to_owned())), function)
    }

    fn items<K: CacheKey + ?Sized, V: CacheValue>(&self, name: Name) -> Keyspace<Sequence<V>> {
        let fingerprint = Fingerprint::of_type::<V>(Shape::Sequence);
        Keyspace::of_items(&self.handle, name, K::SCHEMA, &fingerprint)
    }
}
