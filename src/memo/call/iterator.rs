//! Iterators whose items are stored, or recorded as they pass.

use super::keyspace::Keyspace;
use super::output::Kind;
use super::recording::{Live, left, of_stored, replay};
use crate::engine::format::record::Identity;
use crate::memo::value::cached::Items;
use crate::memo::value::type_proof::Sequence;
use std::fmt;
use std::sync::Arc;

/// Where a cached iterator has its items from.
enum Source<S, K: Kind> {
    /// From the record.
    Replay(Items<K::Value>),
    /// From the function.
    Live(Live<S, K>),
    Over,
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
        let source = match keyspace.items(&identity) {
            Ok(items) => Source::Replay(items),
            Err(condition) => Source::Live(Live::new(keyspace, identity, condition, compute)),
        };
        CachedIter { source }
    }

    /// The items of `compute`, on their way to take the place of what is stored.
    pub(crate) fn refresh(
        keyspace: &Arc<Keyspace<Sequence<K::Value>>>,
        identity: Identity,
        compute: impl FnOnce() -> I,
    ) -> CachedIter<I, K> {
        let condition = keyspace.refresh_condition();
        CachedIter { source: Source::Live(Live::new(keyspace, identity, condition, compute)) }
    }
}

impl<I: Iterator<Item = K::Output>, K: Kind> Iterator for CachedIter<I, K> {
    type Item = K::Output;

    #[inline]
    fn next(&mut self) -> Option<K::Output> {
        match &mut self.source {
            Source::Replay(items) => return replay::<K>(items),
            Source::Live(live) => {
                let item = live.pass(Iterator::next, Option::as_ref);
                if item.is_some() {
                    return item;
                }
                if let Some(recording) = live.recording.take() {
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
            Source::Live(live) => live.source.size_hint(),
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
