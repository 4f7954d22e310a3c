//! Where `#[cache]` functions keep their caches: what the attribute's expansion calls, and nobody else.
//! A function has one [`Site`], a static; in it, for each instance of its generic parameters, the
//! section of the cache that its results are in. An instance once made is found without a lock.
#![expect(missing_docs, reason = "public for expansions alone, where the attribute is documented")]

pub(crate) mod probe;

use crate::cache::MmapCache;
use crate::error::{Error, Result};
use crate::format::record::Identity;
use crate::handle::Handle;
use crate::options::OpenOptions;
use crate::recording::{CachedIter, CachedStream, Kind};
use crate::scope::{Marked, Name};
use crate::section::{Outcome, Section};
use crate::store::compact::Compaction;
use crate::store::stats::Stats;
use crate::sys::task::offload;
use crate::value::{Sequence, Shape};
use crate::{CacheKey, CacheValue, Cached};
use probe::{Describe, Form};
use std::any::{Any, TypeId, type_name};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// What the attribute knows of its function. Expressions are evaluated when it is first called.
pub struct Declaration {
    /// The full name of an item inside the function or its companion...
    pub place: fn() -> &'static str,
    /// ...the end of that name, which is not the function's...
    pub tail: &'static str,
    /// ...and the name that is.
    pub name: &'static str,
    pub version: fn() -> String,
    pub cache: Option<fn() -> String>,
    pub root: Option<fn() -> PathBuf>,
    pub path: Option<fn() -> PathBuf>,
    pub expiry: Option<fn() -> Option<Duration>>,
    pub claim_timeout: Option<fn() -> Duration>,
}

/// A function's cache.
pub struct Site {
    declaration: Declaration,
    cache: OnceLock<MmapCache>,
    first: OnceLock<Box<Node>>,
}

/// An instance of a function, in a list that only grows.
struct Node {
    types: TypeId,
    consts: Box<[u128]>,
    /// An `Arc<Section<_>>`.
    section: Box<dyn Any + Send + Sync>,
    next: OnceLock<Box<Node>>,
}

/// Which instance of a generic function it is: its types, lifetimes left out, and its constants.
pub struct Instance<'a> {
    types: TypeId,
    names: fn() -> &'static str,
    consts: &'a [u128],
}

impl<'a> Instance<'a> {
    /// `types` is a tuple of a [`PhantomData`] for each.
    #[inline]
    pub fn new<T>(_types: &T, consts: &'a [u128]) -> Instance<'a> {
        Instance { types: typeid::of::<T>(), names: type_name::<T>, consts }
    }

    fn generics(&self) -> String {
        let types = if self.types == TypeId::of::<()>() { "" } else { (self.names)() };
        let types = types.replace("core::marker::PhantomData", "");
        let consts = self.consts.iter().map(|value| format!(" {value}"));
        consts.fold(types, |generics, value| generics + &value)
    }
}

/// The type of a value, for an [`Instance`].
pub fn type_of<T: ?Sized>(_value: &T) -> PhantomData<fn(&T)> {
    PhantomData
}

impl Site {
    pub const fn new(declaration: Declaration) -> Site {
        Site { declaration, cache: OnceLock::new(), first: OnceLock::new() }
    }

    /// The function's path.
    fn path(&self) -> String {
        let Declaration { place, tail, name, .. } = self.declaration;
        match place().strip_suffix(tail) {
            Some("") | None => place().to_owned(),
            Some(parent) => format!("{parent}::{name}"),
        }
    }

    /// The cache, opened when it is first asked for.
    pub fn cache(&self) -> &MmapCache {
        self.cache.get_or_init(|| self.open())
    }

    /// Opens the cache without blocking the task's thread.
    pub async fn ready(&'static self) {
        if self.cache.get().is_none() {
            offload(|| self.cache().clone()).await;
        }
    }

    /// The cache; else one that reads by copy, where the trouble is whom the place belongs to; else
    /// none. A function that cannot be cached is still a function.
    fn open(&self) -> MmapCache {
        let fault = match self.open_with(|options| options) {
            Ok(cache) => return cache,
            Err(fault) => fault,
        };
        let second = match fault {
            Error::Exposed { .. } => self.open_with(OpenOptions::copy_reads).ok(),
            _ => None,
        };
        let MmapCache { handle } = second.unwrap_or_else(MmapCache::disabled);
        handle.note(&fault);
        let handle = Arc::into_inner(handle).expect("nobody else has it yet");
        MmapCache { handle: Arc::new(Handle { fault: Some(fault), ..handle }) }
    }

    fn open_with(&self, care: impl FnOnce(OpenOptions) -> OpenOptions) -> Result<MmapCache> {
        let Declaration { cache, root, path, expiry, claim_timeout, .. } = &self.declaration;
        let mut options = care(MmapCache::options());
        if let Some(expiry) = expiry {
            options = options.expiry(expiry());
        }
        if let Some(timeout) = claim_timeout {
            options = options.claim_timeout(timeout());
        }
        if let Some(root) = root {
            options = options.root(root());
        }
        match (path, cache) {
            (Some(path), _) => options.open_at(path()),
            (None, Some(name)) => options.open(name()),
            (None, None) => options.open(self.path()),
        }
    }

    fn marked(&self, instance: &Instance<'_>) -> Name {
        Name::Marked(Marked {
            path: self.path(),
            version: (self.declaration.version)(),
            generics: instance.generics(),
            instance: instance.types,
        })
    }

    /// The section of an instance.
    #[inline]
    fn section<V: 'static>(
        &'static self,
        instance: &Instance<'_>,
        make: impl Fn(&Arc<Handle>, Name) -> Section<V>,
    ) -> &'static Arc<Section<V>> {
        let mut link = &self.first;
        loop {
            let node = link.get_or_init(|| {
                let section = make(&self.cache().handle, self.marked(instance));
                Box::new(Node {
                    types: instance.types,
                    consts: instance.consts.into(),
                    section: Box::new(Arc::new(section)),
                    next: OnceLock::new(),
                })
            });
            if node.types == instance.types && *node.consts == *instance.consts {
                let section = node.section.downcast_ref();
                return section.expect("an instance of a function has one type of result");
            }
            link = &node.next;
        }
    }

    /// A call of the function that gives a value.
    #[inline]
    pub fn call<K: Kind, A: CacheKey>(
        &'static self,
        _form: Form<K>,
        describe: Describe,
        instance: &Instance<'_>,
        key: &A,
    ) -> Call<K> {
        let section = self.section(instance, |handle, name| {
            Section::<K::Value>::new::<A>(handle, name, &(describe.0)(Shape::One))
        });
        Call { section, identity: section.identify(key) }
    }

    /// A call of the function that gives an iterator or a stream.
    #[inline]
    pub fn items<K: Kind, A: CacheKey>(
        &'static self,
        _form: Form<K>,
        describe: Describe,
        instance: &Instance<'_>,
        key: &A,
    ) -> ItemsCall<K> {
        let section = self.section(instance, |handle, name| {
            Section::<Sequence<K::Value>>::of_items::<A>(
                handle,
                name,
                &(describe.0)(Shape::Sequence),
            )
        });
        ItemsCall { section, identity: section.identify(key) }
    }
}

/// The upkeep that every companion offers.
impl Site {
    pub fn set_expiry(&self, expiry: impl Into<Option<Duration>>) {
        self.cache().set_expiry(expiry);
    }
    pub fn flush(&self) -> Result<u64> {
        self.cache().flush()
    }
    pub fn clear(&self) -> Result<()> {
        self.cache().clear()
    }
    pub fn delete(&self) -> Result<()> {
        self.cache().delete()
    }
    pub fn compact(&self) -> Result<Compaction> {
        self.cache().compact()
    }
    pub fn stats(&self) -> Stats {
        self.cache().stats()
    }
}

/// A call, by the identity of its arguments.
pub struct Call<K: Kind> {
    section: &'static Arc<Section<K::Value>>,
    identity: Identity,
}

impl<K: Kind> Call<K> {
    #[inline]
    fn hit(&self) -> Option<K::Output> {
        let cached = self.section.hit(&self.identity)?;
        Cached::try_into_owned(cached).ok().map(|value| K::join(Ok(value)))
    }

    #[inline]
    pub fn run(self, compute: impl FnOnce() -> K::Output) -> K::Output {
        match self.hit() {
            Some(output) => output,
            None => self.run_slowly(compute),
        }
    }

    #[cold]
    fn run_slowly(self, compute: impl FnOnce() -> K::Output) -> K::Output {
        // A value that is there and cannot be brought back is computed.
        let mut compute = Some(compute);
        let outcome = self.section.obtain(&self.identity, || K::split(take(&mut compute)()));
        self.own(outcome).unwrap_or_else(|| take(&mut compute)())
    }

    #[inline]
    pub async fn run_async<F>(self, compute: impl FnOnce() -> F) -> K::Output
    where
        F: Future<Output = K::Output>,
    {
        if let Some(output) = self.hit() {
            return output;
        }
        let mut compute = Some(compute);
        let outcome = {
            let compute = || {
                let future = take(&mut compute)();
                async { K::split(future.await) }
            };
            self.section.obtain_async(&self.identity, compute).await
        };
        match self.own(outcome) {
            Some(output) => output,
            None => take(&mut compute)().await,
        }
    }

    /// The outcome as the function would give it; `None` if rkyv cannot bring it back.
    fn own(&self, outcome: Result<Outcome<K::Value>, K::Error>) -> Option<K::Output> {
        Some(K::join(match outcome {
            Ok(Outcome::Made(value, _)) => Ok(value),
            Ok(Outcome::Found(cached)) => match Cached::try_into_owned(cached) {
                Ok(value) => Ok(value),
                Err(error) => {
                    self.section.handle.note(&error);
                    return None;
                }
            },
            Err(error) => Err(error),
        }))
    }

    pub fn archived(
        self,
        compute: impl FnOnce() -> K::Output,
    ) -> Result<Cached<K::Value>, K::Error> {
        if let Some(cached) = self.section.hit(&self.identity) {
            return Ok(cached);
        }
        let outcome = self.section.obtain(&self.identity, || K::split(compute()));
        Ok(outcome?.into_cached())
    }

    pub async fn archived_async<F>(
        self,
        compute: impl FnOnce() -> F,
    ) -> Result<Cached<K::Value>, K::Error>
    where
        F: Future<Output = K::Output>,
    {
        if let Some(cached) = self.section.hit(&self.identity) {
            return Ok(cached);
        }
        let compute = || {
            let future = compute();
            async { K::split(future.await) }
        };
        Ok(self.section.obtain_async(&self.identity, compute).await?.into_cached())
    }

    pub fn peek(self) -> Option<Cached<K::Value>> {
        self.section.get(&self.identity).ok().flatten()
    }

    /// As [`archived`](Call::archived), of what the declared type says.
    pub fn spelled<T: CacheValue>(self, compute: impl FnOnce() -> K::Output) -> Cached<T> {
        as_spelled::<T, K>(self.archived(compute))
    }

    pub async fn spelled_async<T: CacheValue, F>(self, compute: impl FnOnce() -> F) -> Cached<T>
    where
        F: Future<Output = K::Output>,
    {
        as_spelled::<T, K>(self.archived_async(compute).await)
    }

    pub fn peek_spelled<T: CacheValue>(self) -> Option<Cached<T>> {
        self.peek().map(|cached| as_spelled::<T, K>(Ok(cached)))
    }

    pub fn forget(self) -> Result<bool> {
        self.section.remove(&self.identity)
    }

    pub fn refresh(self, compute: impl FnOnce() -> K::Output) -> K::Output {
        K::join(self.section.refresh(&self.identity, || K::split(compute())))
    }

    pub async fn refresh_async<F>(self, compute: impl FnOnce() -> F) -> K::Output
    where
        F: Future<Output = K::Output>,
    {
        let compute = || {
            let future = compute();
            async { K::split(future.await) }
        };
        K::join(self.section.refresh_async(&self.identity, compute).await)
    }
}

fn take<T>(once: &mut Option<T>) -> T {
    once.take().expect("a call computes once")
}

/// A call of a function that gives an iterator or a stream.
pub struct ItemsCall<K: Kind> {
    section: &'static Arc<Section<Sequence<K::Value>>>,
    identity: Identity,
}

impl<K: Kind> ItemsCall<K> {
    pub fn iter<I>(self, compute: impl FnOnce() -> I) -> CachedIter<I, K>
    where
        I: Iterator<Item = K::Output>,
    {
        CachedIter::new(self.section, self.identity, compute)
    }

    pub fn refresh_iter<I>(self, compute: impl FnOnce() -> I) -> CachedIter<I, K>
    where
        I: Iterator<Item = K::Output>,
    {
        CachedIter::refresh(self.section, self.identity, compute)
    }

    pub fn stream<S>(self, compute: impl FnOnce() -> S) -> CachedStream<S, K>
    where
        S: futures_core::Stream<Item = K::Output>,
    {
        CachedStream::new(self.section, self.identity, compute)
    }

    pub fn refresh_stream<S>(self, compute: impl FnOnce() -> S) -> CachedStream<S, K>
    where
        S: futures_core::Stream<Item = K::Output>,
    {
        CachedStream::refresh(self.section, self.identity, compute)
    }

    pub fn forget(self) -> Result<bool> {
        self.section.remove(&self.identity)
    }
}

/// A call's archived value as what its declared type `T` says.
fn as_spelled<T: CacheValue, K: Kind>(result: Result<Cached<K::Value>, K::Error>) -> Cached<T> {
    const {
        assert!(
            !K::IS_RESULT,
            "this function's result is an alias of `Result`: spell it `Result<..>` to read it in place"
        );
    }
    let mut cached = result.ok();
    let spelled = (&mut cached as &mut dyn Any).downcast_mut::<Option<Cached<T>>>();
    spelled.and_then(Option::take).expect("what is no `Result` is its own value")
}
