//! What a cache memoises: functions and closures of every kind.

use super::MmapCache;
use crate::error::Result;
use crate::memo::memoized::asynchronous::{AsyncMemoized, AsyncTryMemoized};
use crate::memo::memoized::items::{MemoizedIter, MemoizedStream, Sequences};
use crate::memo::memoized::{Memoized, TryMemoized, as_pointer, refuse_captures};
use crate::memo::scope::Name;
use crate::memo::table::Table;
use crate::{CacheKey, CacheValue};
use futures_core::Stream;
use std::panic::Location;

/// # Memoising functions
///
/// A memoised function computes a result once, and then reads it from the file: in this process and all others,
/// now and after the next start. Methods whose names end in `_as` take a name for the function and accept
/// any function; the others accept functions and closures without captured state.
impl MmapCache {
    /// Memoises a function without captured state.
    ///
    /// The argument is borrowed: for `fn slow(n: u64)` write `memoize(|n: &u64| slow(*n))`. For several
    /// arguments take a tuple: `memoize(|(path, depth): &(String, u32)| ..)`. If the function returns a
    /// `Result`, errors are stored too; [`try_memoize`](MmapCache::try_memoize) stores `Ok` alone.
    ///
    /// A function is known by its path and its type, a closure by its place in the source too, and both belong to
    /// the program as built: entries outlast restarts, and are misses after a rebuild that changed anything.
    /// Entries that are to outlast builds need a name ([`memoize_as`](MmapCache::memoize_as)) or the attribute
    /// [`#[cache]`](macro@crate::cache), which sees the function's code.
    ///
    /// # Cost
    /// Does not touch the cache's file. The first such call in a process reads what the program was built as from
    /// its executable, with some thirty system calls. Memoise a function once and keep the [`Memoized`]; each
    /// call of this method allocates and hashes the function's name.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let length = cache.memoize(|text: &str| text.len() as u64);
    /// assert_eq!(*length.call("four"), 4); // computed, and stored
    /// assert_eq!(*length.call("four"), 4); // read
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    ///
    /// A closure that captures something is refused by the compiler, and so is a function pointer: two of them
    /// with different captures could not be told apart.
    ///
    /// ```compile_fail
    /// let factor = std::env::args().count() as u64;
    /// let scaled = persist_cache::MmapCache::disabled().memoize(move |n: &u64| n * factor);
    /// ```
    ///
    /// Put what is captured into the argument, or give a name that tells it:
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

    /// Memoises any function under a name.
    ///
    /// Whatever is memoised under one name in a cache, with the same types, shares its entries, and so does the
    /// [`table`](MmapCache::table) of that name. That they are one function is your word. An edit of the function
    /// is not seen: change the name then, or open the cache with [`Code::Program`](crate::Code::Program).
    ///
    /// # Cost
    /// As [`table`](MmapCache::table).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let factor = 3;
    /// let scaled = cache.memoize_as("scaled by 3", move |n: &u64| n * factor);
    /// assert_eq!(*scaled.call(&4), 12);
    /// assert_eq!(*cache.table::<u64, u64>("scaled by 3").get(&4)?.unwrap(), 12);
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn memoize_as<K, V, F>(&self, name: &str, function: F) -> Memoized<K, V, F>
    where
        K: CacheKey + ?Sized,
        V: CacheValue,
        F: Fn(&K) -> V,
    {
        Memoized::new(self.table(name), function)
    }

    /// Memoises a function that can fail, without captured state. `Ok` is stored, `Err` is returned and
    /// not stored.
    ///
    /// # Cost
    /// As [`memoize`](MmapCache::memoize).
    ///
    /// # Examples
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

    /// Memoises any function that can fail under a name, as [`memoize_as`](MmapCache::memoize_as) does. `Ok`
    /// is stored, `Err` is returned and not stored.
    ///
    /// # Cost
    /// As [`table`](MmapCache::table).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let radix = 16;
    /// let parse = cache.try_memoize_as("hex", move |text: &str| u64::from_str_radix(text, radix));
    /// assert_eq!(parse.call("ff").map(|n| n.to_native()), Ok(255));
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn try_memoize_as<K, V, E, F>(&self, name: &str, function: F) -> TryMemoized<K, V, E, F>
    where
        K: CacheKey + ?Sized,
        V: CacheValue,
        F: Fn(&K) -> Result<V, E>,
    {
        TryMemoized::new(self.table(name), function)
    }

    /// Memoises an async function without captured state.
    ///
    /// It runs on any runtime and blocks no thread of it: while other tasks or processes compute the same, or hold
    /// the file's lock, the task waits. Of a plain closure that returns a future, the future cannot borrow the
    /// argument: clone what it needs.
    ///
    /// # Cost
    /// As [`memoize`](MmapCache::memoize). Calls that wait or store large results start up to five threads of this
    /// library's, one for all sleeping tasks and up to four for what would block.
    ///
    /// # Examples
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
    ///
    /// # Cost
    /// As [`table`](MmapCache::table); of its calls, as [`memoize_async`](MmapCache::memoize_async).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// # futures_lite::future::block_on(async {
    /// let host = String::from("example.org");
    /// let length = cache.memoize_async_as("example.org", async |path: &str| {
    ///     (host.len() + path.len()) as u64
    /// });
    /// assert_eq!(*length.call("/home").await, 16);
    /// # });
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn memoize_async_as<K, V, F>(&self, name: &str, function: F) -> AsyncMemoized<K, V, F>
    where
        K: CacheKey + ?Sized,
        V: CacheValue,
        F: AsyncFn(&K) -> V,
    {
        AsyncMemoized::new(self.table(name), function)
    }

    /// Memoises an async function that can fail, without captured state. `Ok` is stored, `Err` is returned and
    /// not stored.
    ///
    /// # Cost
    /// As [`memoize_async`](MmapCache::memoize_async).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// # futures_lite::future::block_on(async {
    /// let parse = cache.try_memoize_async(async |text: &str| text.parse::<u64>());
    /// assert_eq!(parse.call("42").await.map(|n| n.to_native()), Ok(42));
    /// # });
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
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

    /// Memoises any async function that can fail under a name, as [`memoize_as`](MmapCache::memoize_as) does.
    /// `Ok` is stored, `Err` is returned and not stored.
    ///
    /// # Cost
    /// As [`table`](MmapCache::table); of its calls, as [`memoize_async`](MmapCache::memoize_async).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// # futures_lite::future::block_on(async {
    /// let radix = 16;
    /// let parse = cache.try_memoize_async_as("hex", async |text: &str| {
    ///     u64::from_str_radix(text, radix)
    /// });
    /// assert_eq!(parse.call("ff").await.map(|n| n.to_native()), Ok(255));
    /// # });
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
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

    /// Memoises a function without captured state that returns an iterator, or anything that becomes one.
    ///
    /// On a miss the items pass through as they come, and are stored when the last has come. On a hit they are
    /// read one by one. An iterator that is dropped before its end stores nothing. If the items are `Result`s,
    /// errors are stored too.
    ///
    /// # Cost
    /// As [`memoize`](MmapCache::memoize).
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
    #[track_caller]
    pub fn memoize_iter<K, V, I, F>(&self, function: F) -> MemoizedIter<K, V, F>
    where
        K: CacheKey + ?Sized,
        V: CacheValue,
        F: Fn(&K) -> I + 'static,
        I: IntoIterator<Item = V>,
    {
        refuse_captures::<F>();
        let name = Name::of::<F>(Location::caller());
        MemoizedIter::new(Sequences::new(&self.handle, name), function)
    }

    /// Memoises any function that returns an iterator under a name, as [`memoize_as`](MmapCache::memoize_as)
    /// does.
    ///
    /// # Cost
    /// As [`table`](MmapCache::table).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let step = 3;
    /// let multiples = cache.memoize_iter_as("of 3", |count: &u64| (0..*count).map(|n| n * step));
    /// assert_eq!(multiples.call(&3).collect::<Vec<u64>>(), [0, 3, 6]);
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn memoize_iter_as<K, V, I, F>(&self, name: &str, function: F) -> MemoizedIter<K, V, F>
    where
        K: CacheKey + ?Sized,
        V: CacheValue,
        F: Fn(&K) -> I,
        I: IntoIterator<Item = V>,
    {
        let name = Name::Given(name.to_owned());
        MemoizedIter::new(Sequences::new(&self.handle, name), function)
    }

    /// Memoises a function without captured state that returns a stream: what
    /// [`memoize_iter`](MmapCache::memoize_iter) is for iterators.
    ///
    /// # Cost
    /// As [`memoize_async`](MmapCache::memoize_async).
    ///
    /// # Examples
    /// ```
    /// use futures_lite::{StreamExt, stream};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// # futures_lite::future::block_on(async {
    /// let squares = cache.memoize_stream(|end: &u64| stream::iter(0..*end).map(|n| n * n));
    /// assert_eq!(squares.call(&4).collect::<Vec<u64>>().await, [0, 1, 4, 9]);
    /// # });
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[track_caller]
    pub fn memoize_stream<K, V, S, F>(&self, function: F) -> MemoizedStream<K, V, F>
    where
        K: CacheKey + ?Sized,
        V: CacheValue,
        F: Fn(&K) -> S + 'static,
        S: Stream<Item = V>,
    {
        refuse_captures::<F>();
        let name = Name::of::<F>(Location::caller());
        MemoizedStream::new(Sequences::new(&self.handle, name), function)
    }

    /// Memoises any function that returns a stream under a name, as [`memoize_as`](MmapCache::memoize_as) does.
    ///
    /// # Cost
    /// As [`table`](MmapCache::table); of its calls, as [`memoize_async`](MmapCache::memoize_async).
    ///
    /// # Examples
    /// ```
    /// use futures_lite::{StreamExt, stream};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// # futures_lite::future::block_on(async {
    /// let step = 3;
    /// let multiples = cache.memoize_stream_as("of 3", move |count: &u64| {
    ///     stream::iter(0..*count).map(move |n| n * step)
    /// });
    /// assert_eq!(multiples.call(&3).collect::<Vec<u64>>().await, [0, 3, 6]);
    /// # });
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn memoize_stream_as<K, V, S, F>(&self, name: &str, function: F) -> MemoizedStream<K, V, F>
    where
        K: CacheKey + ?Sized,
        V: CacheValue,
        F: Fn(&K) -> S,
        S: Stream<Item = V>,
    {
        let name = Name::Given(name.to_owned());
        MemoizedStream::new(Sequences::new(&self.handle, name), function)
    }
}
