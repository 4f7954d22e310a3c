//! Streams: what [iterators](super::iterator) are to plain code, for tasks, on whose threads they wait for
//! nobody.

use super::keyspace::Keyspace;
use super::output::Kind;
use super::recording::{Live, Recording, left, replay};
use crate::engine::format::record::Identity;
use crate::engine::store::put::PutCondition;
use crate::engine::store::{Store, Unmet};
use crate::error::Result;
use crate::memo::value::cached::Items;
use crate::memo::value::type_proof::Sequence;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Where a cached stream has its items from.
enum Source<S, K: Kind> {
    /// From the record.
    Replay(Items<K::Value>),
    /// From the function.
    Live(Live<Pin<Box<S>>, K>),
    /// From the record, if there is one in a file that must be opened first; else from the function.
    Looking(Look<K::Value>, Option<Pin<Box<S>>>),
    /// The last one has passed and is being stored.
    Storing(Pin<Box<dyn Future<Output = ()> + Send>>),
    Over,
}

/// A look-up of items. Where there are none, it gives what records those of the function, if anything does.
type Look<V> = Pin<Box<dyn Future<Output = Result<Items<V>, Option<Recording<V>>>> + Send>>;

impl<S, K: Kind> Source<S, K> {
    /// The items that are stored, or those of `compute`, on their way to be.
    fn new(
        keyspace: &Arc<Keyspace<Sequence<K::Value>>>,
        identity: Identity,
        compute: impl FnOnce() -> S,
    ) -> Source<S, K> {
        let unmet = match keyspace.items_here(&identity) {
            Ok(Ok(items)) => return Source::Replay(items),
            Ok(Err(condition)) => return Source::live(keyspace, identity, condition, compute),
            Err(unmet) => unmet,
        };
        // The function is called now, since its argument is here now and no longer.
        let known = || match keyspace.parts() {
            Some((store, _)) => store.known_token(),
            None => keyspace.handle.glance(),
        };
        let token = match &unmet {
            Unmet::Elsewhere(Some(open_file)) => Some(Store::token(open_file)),
            Unmet::Elsewhere(None) | Unmet::Long => known(),
        };
        let keyspace = Arc::clone(keyspace);
        let look = async move {
            let items = keyspace.items_there(unmet, &identity, token).await;
            items.map_err(|condition| Recording::on(condition, &keyspace, identity))
        };
        Source::Looking(Box::pin(look), Some(Box::pin(compute())))
    }

    /// The items of `compute`, to be stored under this condition.
    fn live(
        keyspace: &Arc<Keyspace<Sequence<K::Value>>>,
        identity: Identity,
        condition: Result<Option<PutCondition>>,
        compute: impl FnOnce() -> S,
    ) -> Source<S, K> {
        Source::Live(Live::new(keyspace, identity, condition, || Box::pin(compute())))
    }
}

/// The items of a cached function as a stream: what [`CachedIter`](crate::CachedIter) is to iterators.
///
/// The function is called at once if nothing is stored. It may be called too, and its stream dropped before it is
/// polled, in the moment when the cache has moved to another file (by compaction, say), when the file has yet to be
/// verified (after a reboot, say), or when another thread is just opening it: then the file is opened when this stream
/// is first polled.
///
/// # Panics
/// As [`CachedIter`](crate::CachedIter): a poll is its `next`.
///
/// # Cost
/// As [`CachedIter`](crate::CachedIter), but that no poll waits: for the file's lock, and for a file to be opened, the
/// task sleeps, and what is large is stored by another thread. Stored items that this process meets for the first time
/// are checked before the first comes, which takes as long as reading them all.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
/// use futures_lite::{StreamExt, stream};
/// # futures_lite::future::block_on(async {
/// let squares = cache.memoize_stream(|end: &u64| stream::iter(0..*end).map(|n| n * n));
/// assert_eq!(squares.call(&4).collect::<Vec<u64>>().await, [0, 1, 4, 9]);
/// # });
/// # Ok::<(), persist_cache::Error>(())
/// ```
#[must_use = "streams are lazy"]
pub struct CachedStream<S, K: Kind> {
    source: Source<S, K>,
}

impl<S, K: Kind> CachedStream<S, K> {
    pub(crate) fn new(
        keyspace: &Arc<Keyspace<Sequence<K::Value>>>,
        identity: Identity,
        compute: impl FnOnce() -> S,
    ) -> CachedStream<S, K> {
        CachedStream { source: Source::new(keyspace, identity, compute) }
    }

    /// The items of `compute`, on their way to take the place of what is stored.
    pub(crate) fn refresh(
        keyspace: &Arc<Keyspace<Sequence<K::Value>>>,
        identity: Identity,
        compute: impl FnOnce() -> S,
    ) -> CachedStream<S, K> {
        let condition = keyspace.refresh_condition_here();
        CachedStream { source: Source::live(keyspace, identity, condition, compute) }
    }
}

/// Nothing in it is pinned but what is boxed.
impl<S, K: Kind> Unpin for CachedStream<S, K> {}

impl<S, K: Kind> futures_core::Stream for CachedStream<S, K>
where
    S: futures_core::Stream<Item = K::Output>,
{
    type Item = K::Output;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<K::Output>> {
        loop {
            match &mut self.source {
                Source::Replay(items) => return Poll::Ready(replay::<K>(items)),
                Source::Live(live) => {
                    let poll = |stream: &mut Pin<Box<S>>| stream.as_mut().poll_next(context);
                    let item = live.pass(poll, |poll| match poll {
                        Poll::Ready(item) => item.as_ref(),
                        Poll::Pending => None,
                    });
                    if let Some(item) = ready!(item) {
                        return Poll::Ready(Some(item));
                    }
                    self.source = live.recording.take().map_or(Source::Over, |recording| {
                        Source::Storing(Box::pin(recording.finish_async()))
                    });
                }
                Source::Looking(look, stream) => {
                    let looked = ready!(look.as_mut().poll(context));
                    self.source = match (looked, stream.take()) {
                        (Ok(items), _) => Source::Replay(items),
                        (Err(recording), Some(source)) => Source::Live(Live { source, recording }),
                        (Err(_), None) => Source::Over,
                    };
                }
                Source::Storing(stored) => {
                    ready!(stored.as_mut().poll(context));
                    self.source = Source::Over;
                }
                Source::Over => return Poll::Ready(None),
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.source {
            Source::Replay(items) => left(items),
            Source::Live(live) => live.source.size_hint(),
            Source::Looking(..) => (0, None),
            Source::Storing(_) | Source::Over => (0, Some(0)),
        }
    }
}

impl<S, K: Kind> fmt::Debug for CachedStream<S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedStream").finish_non_exhaustive()
    }
}
