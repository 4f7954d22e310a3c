//! Iterators, and what they have in common with [streams](super::stream): on a miss the items pass through
//! and are recorded as they do; when the last has passed, and not before, they are stored, as one record. On
//! a hit they are read from it one by one. Neither needs memory for more than a chunk of them: what is
//! recorded is spooled, and beyond a MiB to a file without a name beside the cache.

use super::keyspace::Keyspace;
use crate::engine::format::record::Identity;
use crate::engine::os::file::{CacheFile, Storage as _};
use crate::engine::os::fork::forks;
use crate::engine::os::{clock, map, place};
use crate::engine::store::put::PutCondition;
use crate::error::{Error, Result};
use crate::memo::handle::Handle;
use crate::memo::value::archive::CacheValue;
use crate::memo::value::cached::{Chunk, Items};
use crate::memo::value::type_proof::Sequence;
use memmap2::Mmap;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

/// How an output holds the value that is stored.
pub trait Split {
    /// What is stored.
    type Value: 'static;
    /// What the function gives.
    type Output;
    /// What it gives instead.
    type Error;
    /// Whether the output is a `Result`.
    const IS_RESULT: bool;
    /// The output as a result.
    fn split(output: Self::Output) -> Result<Self::Value, Self::Error>;
    /// The result as an output.
    fn join(result: Result<Self::Value, Self::Error>) -> Self::Output;
    /// The value in an output, if there is one.
    fn value(output: &Self::Output) -> Option<&Self::Value>;
}

/// How an output holds a value that can be stored.
pub trait Kind: Split<Value: CacheValue> {}

impl<S: Split<Value: CacheValue>> Kind for S {}

/// Every output is stored.
pub struct Plain<V>(PhantomData<fn() -> V>);

/// `Ok` is stored.
pub struct Fallible<V, E>(PhantomData<fn() -> (V, E)>);

impl<V: 'static> Split for Plain<V> {
    type Value = V;
    type Output = V;
    type Error = Infallible;
    const IS_RESULT: bool = false;

    fn split(output: V) -> Result<V, Infallible> {
        Ok(output)
    }
    fn join(result: Result<V, Infallible>) -> V {
        let Ok(value) = result;
        value
    }
    fn value(output: &V) -> Option<&V> {
        Some(output)
    }
}

impl<V: 'static, E> Split for Fallible<V, E> {
    type Value = V;
    type Output = Result<V, E>;
    type Error = E;
    const IS_RESULT: bool = true;

    fn split(output: Result<V, E>) -> Result<V, E> {
        output
    }
    fn join(result: Result<V, E>) -> Result<V, E> {
        result
    }
    fn value(output: &Result<V, E>) -> Option<&V> {
        output.as_ref().ok()
    }
}

/// Bytes of a spool that are kept in memory.
const SPOOL_MEMORY: usize = 1 << 20;

/// Bytes that grow: in memory, then in a file without a name.
struct Spool {
    /// Whose limit it keeps.
    handle: Arc<Handle>,
    /// The cache, beside which the file is made.
    path: PathBuf,
    memory: Vec<u8>,
    /// The file, and how long it is.
    file: Option<(CacheFile, u64)>,
    /// The process whose it is: a child has the same file, and what both write is neither's.
    process: u64,
}

impl Spool {
    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.check_process()?;
        let spilled = self.file.as_ref().map_or(0, |(_, len)| *len);
        // An iterator without an end should fill no disk.
        self.handle.check_size(spilled + (self.memory.len() + bytes.len()) as u64)?;
        if !self.memory.is_empty() && self.memory.len() + bytes.len() > SPOOL_MEMORY {
            self.spill()?;
        }
        if self.memory.try_reserve(bytes.len()).is_err() {
            return Err(Error::io("spool beside", &self.path)(io::ErrorKind::OutOfMemory.into()));
        }
        self.memory.extend_from_slice(bytes);
        Ok(())
    }

    /// A recording that was begun before a fork goes on in the parent alone.
    fn check_process(&self) -> Result<()> {
        if self.process == forks() {
            return Ok(());
        }
        let source =
            io::Error::other("the recording is its parent's, and this process a forked child");
        Err(Error::io("spool beside", &self.path)(source))
    }

    fn spill(&mut self) -> Result<()> {
        let failed = || Error::io("spool beside", &self.path);
        let (file, len) = match self.file.take() {
            Some(file) => file,
            None => (place::scratch(&self.path).map_err(failed())?, 0),
        };
        let end = len + self.memory.len() as u64;
        // A file past its limit would be a signal; space that is allocated is sure to be there.
        file.allocate(len, end).and_then(|()| file.write(len, &self.memory)).map_err(failed())?;
        self.memory.clear();
        self.file = Some((file, end));
        Ok(())
    }

    /// All of it.
    fn seal(mut self) -> Result<Sealed> {
        self.check_process()?;
        if self.file.is_some() {
            self.spill()?;
        }
        Ok(match &self.file {
            None => Sealed::Memory(self.memory),
            Some((file, _)) => {
                Sealed::File(map::view(file).map_err(Error::io("map a spool of", &self.path))?)
            }
        })
    }
}

/// Bytes that are all there.
enum Sealed {
    Memory(Vec<u8>),
    File(Mmap),
}

impl AsRef<[u8]> for Sealed {
    fn as_ref(&self) -> &[u8] {
        match self {
            Sealed::Memory(bytes) => bytes,
            Sealed::File(bytes) => bytes,
        }
    }
}

/// Items on their way to the file.
pub(crate) struct Recording<V> {
    keyspace: Arc<Keyspace<Sequence<V>>>,
    identity: Identity,
    condition: PutCondition,
    chunk: Chunk<V>,
    spool: Spool,
    count: u64,
    /// What the items took to compute, by a clock of milliseconds, which is right on average.
    cost: Duration,
}

impl<V: CacheValue> Recording<V> {
    fn new(
        keyspace: &Arc<Keyspace<Sequence<V>>>,
        identity: Identity,
        condition: PutCondition,
    ) -> Option<Recording<V>> {
        let path = keyspace.parts()?.0.location.path.clone();
        let handle = Arc::clone(&keyspace.handle);
        let spool = Spool { handle, path, memory: Vec::new(), file: None, process: forks() };
        let (keyspace, chunk) = (Arc::clone(keyspace), Chunk::new(condition.needs_check()));
        Some(Recording {
            keyspace,
            identity,
            condition,
            chunk,
            spool,
            count: 0,
            cost: Duration::ZERO,
        })
    }

    /// A recording, if the condition is to be had and it may be stored under it.
    pub(crate) fn on(
        condition: Result<Option<PutCondition>>,
        keyspace: &Arc<Keyspace<Sequence<V>>>,
        identity: Identity,
    ) -> Option<Recording<V>> {
        let condition = condition.unwrap_or_else(|error| {
            keyspace.handle.note(&error);
            None
        });
        condition.and_then(|condition| Recording::new(keyspace, identity, condition))
    }

    /// The recording with one more item; `None`, noted, if it cannot go on.
    fn with(mut self, value: &V) -> Option<Recording<V>> {
        let pushed = self.push(value);
        pushed.inspect_err(|error| self.keyspace.handle.note(error)).ok()?;
        Some(self)
    }

    fn push(&mut self, value: &V) -> Result<()> {
        self.count += 1;
        if self.chunk.push(value)? {
            self.chunk.close(|bytes| self.spool.push(bytes))?;
        }
        Ok(())
    }

    /// All items as one payload.
    fn seal(mut self) -> Result<Sealed> {
        self.chunk.close(|bytes| self.spool.push(bytes))?;
        self.spool.push(&Chunk::<V>::end(self.count))?;
        self.spool.seal()
    }

    /// Stores the items.
    fn finish(self) {
        let (identity, condition, cost) = (self.identity, self.condition, self.cost);
        let keyspace = Arc::clone(&self.keyspace);
        let stored =
            self.seal().and_then(|all| keyspace.put(identity, all.as_ref(), cost, condition));
        stored.inspect_err(|error| keyspace.handle.note(error)).ok();
    }

    /// As [`finish`](Recording::finish), without blocking the thread.
    pub(crate) async fn finish_async(self) {
        let (identity, condition, cost) = (self.identity, self.condition, self.cost);
        let keyspace = Arc::clone(&self.keyspace);
        let stored = match self.seal() {
            Ok(all) => {
                keyspace.put_async(identity, all, cost, condition, false, |found| found).await
            }
            Err(error) => Err(error),
        };
        stored.inspect_err(|error| keyspace.handle.note(error)).ok();
    }
}

/// Where a cached iterator has its items from.
enum Source<S, K: Kind> {
    /// From the record.
    Replay(Items<K::Value>),
    /// From the function; recorded, for as long as that goes well.
    Live(S, Option<Recording<K::Value>>),
    Over,
}

impl<S, K: Kind> Source<S, K> {
    /// The items that are stored, or those of `compute`, on their way to be.
    fn new(
        keyspace: &Arc<Keyspace<Sequence<K::Value>>>,
        identity: Identity,
        compute: impl FnOnce() -> S,
    ) -> Source<S, K> {
        let condition = match keyspace.items(&identity) {
            Ok(items) => return Source::Replay(items),
            Err(condition) => condition,
        };
        Source::record(keyspace, identity, condition, compute)
    }

    /// The items of `compute`, on their way to take the place of what is stored.
    fn refresh(
        keyspace: &Arc<Keyspace<Sequence<K::Value>>>,
        identity: Identity,
        compute: impl FnOnce() -> S,
    ) -> Source<S, K> {
        Source::record(keyspace, identity, keyspace.refresh_condition(), compute)
    }

    fn record(
        keyspace: &Arc<Keyspace<Sequence<K::Value>>>,
        identity: Identity,
        condition: Result<Option<PutCondition>>,
        compute: impl FnOnce() -> S,
    ) -> Source<S, K> {
        let recording = Recording::on(condition, keyspace, identity);
        Source::Live(compute(), recording)
    }
}

/// How many stored items are left.
pub(crate) fn left<V: CacheValue>(items: &Items<V>) -> (usize, Option<usize>) {
    let left = usize::try_from(items.left()).unwrap_or(usize::MAX);
    (left, Some(left))
}

/// The next stored item, as the function would give it.
#[inline]
pub(crate) fn replay<K: Kind>(items: &mut Items<K::Value>) -> Option<K::Output> {
    items.next().map(of_stored::<K>)
}

#[inline]
fn of_stored<K: Kind>(value: Result<K::Value>) -> K::Output {
    match value {
        Ok(value) => K::join(Ok(value)),
        Err(error) => panic!("{error}"),
    }
}

/// Takes an item, or the end, from `pull`, and records it.
pub(crate) fn pass<K: Kind, T>(
    recording: &mut Option<Recording<K::Value>>,
    pull: impl FnOnce() -> T,
    item: impl FnOnce(&T) -> Option<&K::Output>,
) -> T {
    // Taken out, so that a panic ends it.
    let mut taken = recording.take();
    let start = clock::now();
    let pulled = pull();
    if let Some(recording) = &mut taken {
        recording.cost += clock::now().saturating_sub(start);
    }
    *recording = match item(&pulled) {
        Some(output) => taken.zip(K::value(output)).and_then(|(taken, value)| taken.with(value)),
        None => taken,
    };
    pulled
}

/// The items of a cached function, as they are stored or as they come: what [`MemoizedIter::call`] and `#[cache]`
/// functions of iterators return.
///
/// On a miss an item is recorded before it is handed on, and all of them are stored when the iterator has returned
/// `None`. An iterator that is dropped before that, that panics, or that gives an `Err` where those are not stored,
/// stores nothing. If recording fails (a full disk, say, or more bytes than
/// [`OpenOptions::record_limit`](crate::OpenOptions::record_limit)), every item still comes, once.
///
/// [`MemoizedIter::call`]: crate::MemoizedIter::call
///
/// # Panics
/// `next` panics if the function's iterator does, or if the items' own rkyv implementation cannot bring
/// back what it has archived.
///
/// # Cost
/// A stored item is brought back as [`Cached::into_owned`](crate::Cached::into_owned) does, without a lock or a system
/// call. A computed item is archived into memory, of which a recording takes a MiB, and beyond that into a temporary
/// file without a name beside the cache. The last call of `next` stores them all, and waits for the file's lock up to
/// [`OpenOptions::lock_timeout`](crate::OpenOptions::lock_timeout).
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
/// let squares = cache.memoize_iter(|end: &u64| (0..*end).map(|n| n * n));
/// assert_eq!(squares.call(&4).next(), Some(0)); // dropped early: nothing is stored
/// assert_eq!(squares.call(&4).sum::<u64>(), 14);
/// assert_eq!(cache.stats().entries, 1);
/// # Ok::<(), persist_cache::Error>(())
/// ```
#[must_use = "iterators are lazy"]
pub struct CachedIter<I, K: Kind> {
    source: Source<I, K>,
}

impl<I, K: Kind> CachedIter<I, K> {
    pub(crate) fn new(
        keyspace: &Arc<Keyspace<Sequence<K::Value>>>,
        identity: Identity,
        compute: impl FnOnce() -> I,
    ) -> CachedIter<I, K> {
        CachedIter { source: Source::new(keyspace, identity, compute) }
    }

    pub(crate) fn refresh(
        keyspace: &Arc<Keyspace<Sequence<K::Value>>>,
        identity: Identity,
        compute: impl FnOnce() -> I,
    ) -> CachedIter<I, K> {
        CachedIter { source: Source::refresh(keyspace, identity, compute) }
    }
}

impl<I: Iterator<Item = K::Output>, K: Kind> Iterator for CachedIter<I, K> {
    type Item = K::Output;

    #[inline]
    fn next(&mut self) -> Option<K::Output> {
        match &mut self.source {
            Source::Replay(items) => return replay::<K>(items),
            Source::Live(iterator, recording) => {
                let item = pass::<K, _>(recording, || iterator.next(), Option::as_ref);
                if item.is_some() {
                    return item;
                }
                if let Some(recording) = recording.take() {
                    recording.finish();
                }
            }
            Source::Over => return None,
        }
        self.source = Source::Over;
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.source {
            Source::Replay(items) => left(items),
            Source::Live(iterator, _) => iterator.size_hint(),
            Source::Over => (0, Some(0)),
        }
    }

    fn fold<B, F>(mut self, start: B, mut work: F) -> B
    where
        F: FnMut(B, K::Output) -> B,
    {
        if let Source::Replay(items) = self.source {
            return items.fold(start, |sum, value| work(sum, of_stored::<K>(value)));
        }
        let mut result = start;
        for item in self.by_ref() {
            result = work(result, item);
        }
        result
    }
}

impl<I, K: Kind> fmt::Debug for CachedIter<I, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedIter").finish_non_exhaustive()
    }
}
