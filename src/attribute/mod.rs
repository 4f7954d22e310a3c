//! Where `#[cache]` functions keep their caches: what the attribute's expansion calls, and nobody else.
//!
//! ```text
//!   CachedFunction (a static)  --- declaration: names, options; expressions not yet evaluated
//!        |--- cache: opened by the first call, by one thread, for as long as the process lives
//!        '--- instances: TypeId and constants --> Arc<Keyspace<V>>
//! ```
//!
//! A function has one [`CachedFunction`], a static. For each instance of its generic parameters there is a
//! keyspace, in which the results of that instance are; one that was made is found without a lock. A cache that
//! cannot be opened is no reason for a function to fail: such a function computes each time, and tries again later.
//!
//! It stands on `cache` and `memo`, and has no name that users write: its items are public for expansions alone,
//! under `__private`. A static of the user's, opened by hand, would do without all this, and without forks, late
//! openings and generic functions.
#![expect(missing_docs, reason = "public for expansions alone, where the attribute is documented")]

pub(crate) mod declaration;
pub(crate) mod instance;
pub(crate) mod probe;
pub(crate) mod call;

use crate::CacheValue;
use crate::cache::MmapCache;
use crate::cache::options::Place;
use crate::engine::file::versions;
use crate::engine::os::fork::PerProcess;
use crate::engine::os::program::Program;
use crate::engine::os::task::{offload, sleep};
use crate::engine::os::trie::{Trie, hash_of};
use crate::engine::store::compact::Compaction;
use crate::engine::store::pin::lock;
use crate::engine::store::stats::Stats;
use crate::error::Result;
use crate::memo::call::keyspace::Keyspace;
use crate::memo::call::output::Split;
use crate::memo::handle::{Code, Handle, LockWait, Over};
use crate::memo::key::{KeySchema, KeyWriter, identify_fed};
use crate::memo::scope::{CachedFunctionName, Name};
use crate::memo::value::type_proof::{Sequence, Shape};
use call::{Call, ItemsCall};
use declaration::Declaration;
use instance::Instance;
use once_cell::race::OnceBox;
use probe::{Describes, Form};
use std::any::{Any, TypeId};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

/// A function's cache.
pub struct CachedFunction {
    declaration: Declaration,
    /// A child has its parent's, and opens it if another thread of its parent's was just at it.
    cache: PerProcess<Own>,
    /// A task has a thread open the cache.
    is_opening: PerProcess<AtomicBool>,
    instances: Trie<Made>,
}

/// What a process has of a function's cache.
struct Own {
    cache: OnceBox<MmapCache>,
    /// Whose turn it is to open it. Those who can wait for each other do.
    turn: Mutex<()>,
}

impl Own {
    const fn new(cache: OnceBox<MmapCache>) -> Own {
        Own { cache, turn: Mutex::new(()) }
    }
}

/// How often a task looks whether another has opened the cache.
const OPEN_PAUSE: Duration = Duration::from_millis(1);

/// What was made for an instance of a function.
struct Made {
    types: TypeId,
    consts: Box<[u128]>,
    /// An `Arc<Keyspace<_>>`.
    keyspace: Box<dyn Any + Send + Sync>,
}

impl CachedFunction {
    pub const fn new(declaration: Declaration) -> CachedFunction {
        CachedFunction {
            declaration,
            cache: PerProcess::first(Own::new(OnceBox::new())),
            is_opening: PerProcess::first(AtomicBool::new(false)),
            instances: Trie::new(),
        }
    }

    /// What this process has: a forked child opens the file anew, and does not wait for a thread that only its parent
    /// has.
    fn own(&self) -> &Own {
        self.cache.get_or_inherit(|parents| {
            let cache = OnceBox::new();
            if let Some(parents) = parents.cache.get() {
                let _ = cache.set(Box::new(parents.clone())); // Nobody else has it yet.
            }
            Own::new(cache)
        })
    }

    /// The function's path.
    fn path(&self) -> String {
        let Declaration { place, tail, name, .. } = self.declaration;
        match place().strip_suffix(tail) {
            Some("") | None => place().to_owned(),
            Some(parent) => format!("{parent}::{name}"),
        }
    }

    /// The path, with the package and the target that it is in, since crates of many packages have one
    /// name. The package's version does not count, nor where it lies.
    fn identity(&self) -> String {
        let Declaration { package, folder, executable, .. } = self.declaration;
        let (path, package) = (self.path(), package.unwrap_or_default());
        match executable {
            Some(executable) => format!("{path} in {package}/{folder} executable {executable}"),
            None => format!("{path} in {package}/{folder}"),
        }
    }

    /// The cache, opened when it is first asked for.
    pub fn cache(&self) -> &MmapCache {
        let own = self.own();
        own.cache.get().unwrap_or_else(|| {
            let _turn = lock(&own.turn);
            own.cache.get().unwrap_or_else(|| self.make(own, LockWait::Full))
        })
    }

    /// The cache, for a call that waits for nobody. A file that is to be verified first, or that another thread
    /// is just opening, is opened by the stream that the call gives.
    pub fn cache_at_once(&self) -> &MmapCache {
        let own = self.own();
        own.cache.get().unwrap_or_else(|| match own.turn.try_lock() {
            Err(TryLockError::WouldBlock) => self.make(own, LockWait::Later),
            _turn => own.cache.get().unwrap_or_else(|| self.make(own, LockWait::NoLock)),
        })
    }

    /// Of two at once, the handle of the first is kept: instances have it.
    #[cold]
    fn make<'a>(&self, own: &'a Own, lock_wait: LockWait) -> &'a MmapCache {
        versions::enroll(&self.identity(), &(self.declaration.version)());
        let spare = own.cache.set(Box::new(self.open(lock_wait))).err();
        let cache = own.cache.get().expect("it is set, by this thread or another");
        if let Some(opened) = spare.and_then(|spare| Arc::into_inner(spare.handle)) {
            cache.handle.adopt(opened);
        }
        cache
    }

    /// Opens the cache without blocking the task's thread. One thread does, for all tasks that ask.
    #[inline]
    pub async fn ready(&'static self) {
        if self.own().cache.get().is_none() {
            self.open_elsewhere().await;
        }
    }

    /// The slow half of [`ready`](CachedFunction::ready): one task has a thread open the cache, and the others look
    /// now and then.
    async fn open_elsewhere(&'static self) {
        while self.own().cache.get().is_none() {
            let is_opening = self.is_opening.get(AtomicBool::default);
            // Relaxed: the cache itself publishes what was done.
            if is_opening.swap(true, Ordering::Relaxed) {
                sleep(OPEN_PAUSE).await;
                continue;
            }
            // Taken back even if an expression of the user's panics, or the task is dropped before a thread is
            // at it.
            let over = Over(is_opening);
            let open = move || {
                let _over = over;
                self.cache();
            };
            offload(open).await;
        }
    }

    /// The cache, as far as it can be had. A function that cannot be cached is still a function.
    fn open(&self, lock_wait: LockWait) -> MmapCache {
        let Declaration {
            cache, root, path, expiry, claim_timeout, record_limit, by_program, ..
        } = &self.declaration;
        let mut options = MmapCache::options();
        if *by_program {
            options = options.code(Code::Program);
        }
        if let Some(expiry) = expiry {
            options = options.expiry(expiry());
        }
        if let Some(timeout) = claim_timeout {
            options = options.claim_timeout(timeout());
        }
        if let Some(limit) = record_limit {
            options = options.record_limit(limit());
        }
        if let Some(root) = root {
            options = options.root(root());
        }
        let place = match (path, cache) {
            (Some(path), _) => Place::At(path()),
            (None, Some(name)) => Place::Named(name()),
            (None, None) => Place::Named(self.path()),
        };
        MmapCache::open_or_later(options, place, lock_wait)
    }

    /// What tells this instance from all others, in the file and in this process.
    fn scope_name(&self, instance: &Instance<'_>) -> Name {
        let Declaration { here, at, .. } = self.declaration;
        let path = self.path();
        // A function in a block has a name that another may have, in another block.
        let is_in_block = instance.self_name.is_none()
            && path.rsplit_once("::").map(|(parent, _)| parent) != Some(self.declaration.module);
        let is_named = !is_in_block && instance.is_named(&self.declaration);
        Name::CachedFunction(CachedFunctionName {
            path: self.identity(),
            version: (self.declaration.version)(),
            generics: instance.generics(),
            instance: (instance.types, here()),
            // An item in the function tells which object the code is in.
            program: (!is_named).then(|| Program::of(here as *const ())),
            at,
        })
    }

    /// The keyspace of an instance.
    #[inline]
    fn keyspace<V: 'static>(
        &'static self,
        instance: &Instance<'_>,
        cache: impl Fn(&'static CachedFunction) -> &'static MmapCache,
        make: impl Fn(&Arc<Handle>, Name) -> Keyspace<V>,
    ) -> &'static Arc<Keyspace<V>> {
        let is_it = |made: &Made| made.types == instance.types && *made.consts == *instance.consts;
        let hash = || hash_of((instance.types, instance.consts));
        let made = self.instances.find_or_add(hash, is_it, || Made {
            types: instance.types,
            consts: instance.consts.into(),
            keyspace: Box::new(Arc::new(make(&cache(self).handle, self.scope_name(instance)))),
        });
        made.keyspace.downcast_ref().expect("an instance of a function has one type of result")
    }

    /// A call of the function that gives a value. `schema` and `feed` are of its arguments.
    #[inline]
    pub fn call<S: Split, D: Describes<S::Value>>(
        &'static self,
        _form: Form<S>,
        _describes: D,
        instance: &Instance<'_>,
        schema: impl Fn(KeySchema) -> KeySchema,
        feed: impl FnOnce(&mut KeyWriter<'_>),
    ) -> Call<S>
    where
        S::Value: CacheValue,
    {
        let keyspace = self.keyspace(instance, CachedFunction::cache, |handle, name| {
            let schema = schema(KeySchema::new("arguments"));
            Keyspace::<S::Value>::new(handle, name, schema, &D::fingerprint(Shape::One))
        });
        Call { keyspace, identity: identify_fed(&keyspace.scope.hash, feed) }
    }

    /// A call of the function that gives an iterator or a stream. How long it may wait for its cache is said by what
    /// gives that: [`cache`](CachedFunction::cache), or [`cache_at_once`](CachedFunction::cache_at_once).
    #[inline]
    pub fn items<S: Split, D: Describes<S::Value>>(
        &'static self,
        cache: impl Fn(&'static CachedFunction) -> &'static MmapCache,
        _form: Form<S>,
        _describes: D,
        instance: &Instance<'_>,
        schema: impl Fn(KeySchema) -> KeySchema,
        feed: impl FnOnce(&mut KeyWriter<'_>),
    ) -> ItemsCall<S>
    where
        S::Value: CacheValue,
    {
        let keyspace = self.keyspace(instance, cache, |handle, name| {
            let schema = schema(KeySchema::new("arguments"));
            let fingerprint = D::fingerprint(Shape::Sequence);
            Keyspace::<Sequence<S::Value>>::of_items(handle, name, schema, &fingerprint)
        });
        ItemsCall { keyspace, identity: identify_fed(&keyspace.scope.hash, feed) }
    }
}

/// The upkeep that every companion offers.
impl CachedFunction {
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
