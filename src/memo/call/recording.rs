//! What [iterators](super::iterator) and [streams](super::stream) have in common: on a miss the items pass through
//! and are recorded as they do; when the last has passed, and not before, they are stored, as one record. On
//! a hit they are read from it one by one. Neither needs memory for more than a chunk of them: what is
//! recorded is [spooled](super::spool).

use super::keyspace::Keyspace;
use super::output::Kind;
use super::spool::{Sealed, Spool};
use crate::engine::format::record::Identity;
use crate::engine::os::clock;
use crate::engine::store::put::PutCondition;
use crate::error::Result;
use crate::memo::value::archive::CacheValue;
use crate::memo::value::cached::{Chunk, Items};
use crate::memo::value::type_proof::Sequence;
use std::sync::Arc;
use std::time::Duration;

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
        let spool = Spool::new(&keyspace.handle, &keyspace.parts()?.0.location.path);
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
    pub(crate) fn finish(self) {
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

/// A function's items on their way to its caller.
pub(crate) struct Live<S, K: Kind> {
    /// Where they come from.
    pub(crate) source: S,
    /// What records them, for as long as that goes well.
    pub(crate) recording: Option<Recording<K::Value>>,
}

impl<S, K: Kind> Live<S, K> {
    /// The items of `compute`, to be stored under this condition.
    pub(crate) fn new(
        keyspace: &Arc<Keyspace<Sequence<K::Value>>>,
        identity: Identity,
        condition: Result<Option<PutCondition>>,
        compute: impl FnOnce() -> S,
    ) -> Live<S, K> {
        let recording = Recording::on(condition, keyspace, identity);
        Live { source: compute(), recording }
    }

    /// Takes an item, or the end, by `pull`, and records it.
    pub(crate) fn pass<T>(
        &mut self,
        pull: impl FnOnce(&mut S) -> T,
        item: impl FnOnce(&T) -> Option<&K::Output>,
    ) -> T {
        // Taken out, so that a panic ends it.
        let mut taken = self.recording.take();
        let start = clock::now();
        let pulled = pull(&mut self.source);
        if let Some(recording) = &mut taken {
            recording.cost += clock::now().saturating_sub(start);
        }
        self.recording = match item(&pulled) {
            Some(output) => {
                taken.zip(K::value(output)).and_then(|(taken, value)| taken.with(value))
            }
            None => taken,
        };
        pulled
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
pub(crate) fn of_stored<K: Kind>(value: Result<K::Value>) -> K::Output {
    match value {
        Ok(value) => K::join(Ok(value)),
        Err(error) => panic!("{error}"),
    }
}
