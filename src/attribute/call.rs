//! One call of a `#[cache]` function, once its arguments are known by their identity: run, read in place,
//! forgotten, refreshed. Bounds stand on the methods, so that a result that cannot be stored is one
//! error and not one for each of them.
#![expect(missing_docs, reason = "public for expansions alone, where the attribute is documented")]

use super::probe::Form;
use crate::engine::format::record::Identity;
use crate::error::Result;
use crate::memo::call::iterator::CachedIter;
use crate::memo::call::keyspace::Keyspace;
use crate::memo::call::outcome::{Outcome, Wanted};
use crate::memo::call::output::Split;
use crate::memo::call::stream::CachedStream;
use crate::memo::value::type_proof::Sequence;
use crate::{CacheValue, Cached};
use futures_core::Stream;
use std::any::Any;
use std::sync::Arc;

/// A call of a function that gives a value.
pub struct Call<S: Split> {
    pub(crate) keyspace: &'static Arc<Keyspace<S::Value>>,
    pub(crate) identity: Identity,
}

/// A function's future, as one of a result.
async fn split<S: Split>(future: impl Future<Output = S::Output>) -> Result<S::Value, S::Error> {
    S::split(future.await)
}

fn take<T>(once: &mut Option<T>) -> T {
    once.take().expect("a call computes once")
}

impl<S: Split> Call<S> {
    /// What the function would give; `None`, which is noted, if rkyv cannot bring it back: then it is
    /// computed.
    #[inline]
    fn bring_back(&self, cached: Cached<S::Value>) -> Option<S::Output>
    where
        S::Value: CacheValue,
    {
        match Cached::try_into_owned(cached) {
            Ok(value) => Some(S::join(Ok(value))),
            Err(error) => {
                self.keyspace.handle.note(&error);
                None
            }
        }
    }

    /// The result, as the function gives it: stored, or computed now and stored.
    #[inline]
    pub fn run(self, compute: impl FnOnce() -> S::Output) -> S::Output
    where
        S::Value: CacheValue,
    {
        match self.keyspace.hit(&self.identity) {
            Some(cached) => self.bring_back(cached).unwrap_or_else(compute),
            None => self.run_slowly(compute),
        }
    }

    /// The rest of [`run`](Call::run), apart from the hit. If rkyv cannot bring a stored value back, the function is
    /// called after all; it is called once at most.
    #[cold]
    fn run_slowly(self, compute: impl FnOnce() -> S::Output) -> S::Output
    where
        S::Value: CacheValue,
    {
        let mut compute = Some(compute);
        let compute_once = || S::split(take(&mut compute)());
        let outcome = self.keyspace.obtain(&self.identity, Wanted::Value, compute_once);
        self.own(outcome).unwrap_or_else(|| take(&mut compute)())
    }

    /// As [`run`](Call::run), for an async function: the task waits, and not its thread.
    #[inline]
    pub async fn run_async<F>(self, compute: impl FnOnce() -> F) -> S::Output
    where
        S::Value: CacheValue,
        F: Future<Output = S::Output>,
    {
        // Not held while others run: an archived value need not be one that threads may share.
        let hit = self.keyspace.hit(&self.identity).map(|cached| self.bring_back(cached));
        match hit {
            Some(Some(output)) => return output,
            Some(None) => return compute().await,
            None => {}
        }
        let mut compute = Some(compute);
        let outcome = {
            let compute = || split::<S>(take(&mut compute)());
            self.keyspace.obtain_async(&self.identity, Wanted::Value, compute).await
        };
        match self.own(outcome) {
            Some(output) => output,
            None => take(&mut compute)().await,
        }
    }

    /// The outcome as the function would give it; `None` as [`bring_back`](Call::bring_back) says.
    fn own(&self, outcome: Result<Outcome<S::Value>, S::Error>) -> Option<S::Output>
    where
        S::Value: CacheValue,
    {
        match outcome {
            Ok(Outcome::Made(value, _)) => Some(S::join(Ok(value))),
            Ok(Outcome::Found(cached)) => self.bring_back(cached),
            Err(error) => Some(S::join(Err(error))),
        }
    }

    /// The result in place, computed and stored if it is not there.
    pub fn archived<T>(self, compute: impl FnOnce() -> S::Output) -> Result<Cached<T>, S::Error>
    where
        S::Value: CacheValue,
        T: CacheValue,
    {
        if let Some(cached) = self.keyspace.hit(&self.identity) {
            return Ok(same_type(cached));
        }
        let compute = || S::split(compute());
        let outcome = self.keyspace.obtain(&self.identity, Wanted::Archived, compute)?;
        Ok(same_type(outcome.into_cached()))
    }

    pub async fn archived_async<T, F>(
        self,
        compute: impl FnOnce() -> F,
    ) -> Result<Cached<T>, S::Error>
    where
        S::Value: CacheValue,
        T: CacheValue,
        F: Future<Output = S::Output>,
    {
        if let Some(cached) = self.keyspace.hit(&self.identity) {
            return Ok(same_type(cached));
        }
        let compute = || split::<S>(compute());
        let outcome = self.keyspace.obtain_async(&self.identity, Wanted::Archived, compute).await?;
        Ok(same_type(outcome.into_cached()))
    }

    /// The result in place, if it is stored. Never computes.
    pub fn peek<T: CacheValue>(self) -> Option<Cached<T>>
    where
        S::Value: CacheValue,
    {
        self.keyspace.get(&self.identity).ok().flatten().map(same_type)
    }

    /// Removes the result.
    pub fn forget(self) -> Result<bool> {
        self.keyspace.remove(&self.identity)
    }

    /// Computes, and stores in place of what is there.
    pub fn refresh(self, compute: impl FnOnce() -> S::Output) -> S::Output
    where
        S::Value: CacheValue,
    {
        S::join(self.keyspace.refresh(&self.identity, || S::split(compute())))
    }

    pub async fn refresh_async<F>(self, compute: impl FnOnce() -> F) -> S::Output
    where
        S::Value: CacheValue,
        F: Future<Output = S::Output>,
    {
        let compute = || split::<S>(compute());
        S::join(self.keyspace.refresh_async(&self.identity, compute).await)
    }
}

/// The result of a function that cannot fail. That its result is an alias of `Result`, and it can, is
/// found out where it is used.
pub fn infallible<S: Split, T: CacheValue>(
    result: Result<Cached<T>, S::Error>,
    _: Form<S>,
) -> Cached<T> {
    const {
        assert!(
            !S::IS_RESULT,
            "this function's result is an alias of `Result`: spell it `Result<..>` to read it in place"
        );
    }
    result.ok().expect("what is no `Result` cannot fail")
}

/// One type by two names, of which the compiler knows only where the function is called that they are.
fn same_type<T: CacheValue, V: CacheValue>(cached: Cached<V>) -> Cached<T> {
    let mut cached = Some(cached);
    let same = (&mut cached as &mut dyn Any).downcast_mut::<Option<Cached<T>>>();
    same.and_then(Option::take).expect("the bound `Is` says so")
}

/// A call of a function that gives an iterator or a stream.
pub struct ItemsCall<S: Split> {
    pub(crate) keyspace: &'static Arc<Keyspace<Sequence<S::Value>>>,
    pub(crate) identity: Identity,
}

impl<S: Split> ItemsCall<S> {
    pub fn iter<I>(self, compute: impl FnOnce() -> I) -> CachedIter<I, S>
    where
        S::Value: CacheValue,
        I: Iterator<Item = S::Output>,
    {
        CachedIter::new(self.keyspace, self.identity, compute)
    }

    pub fn refresh_iter<I>(self, compute: impl FnOnce() -> I) -> CachedIter<I, S>
    where
        S::Value: CacheValue,
        I: Iterator<Item = S::Output>,
    {
        CachedIter::refresh(self.keyspace, self.identity, compute)
    }

    pub fn stream<T>(self, compute: impl FnOnce() -> T) -> CachedStream<T, S>
    where
        S::Value: CacheValue,
        T: Stream<Item = S::Output>,
    {
        CachedStream::new(self.keyspace, self.identity, compute)
    }

    pub fn refresh_stream<T>(self, compute: impl FnOnce() -> T) -> CachedStream<T, S>
    where
        S::Value: CacheValue,
        T: Stream<Item = S::Output>,
    {
        CachedStream::refresh(self.keyspace, self.identity, compute)
    }

    pub fn forget(self) -> Result<bool> {
        self.keyspace.remove(&self.identity)
    }
}
