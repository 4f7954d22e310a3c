//! Memoised functions: a table and the function that fills it.

pub(crate) mod tasks;
pub(crate) mod items;

use crate::engine::os::trie::{Trie, hash_of};
use crate::error::Result;
use crate::memo::table::Table;
use crate::memo::value::schema::Schema;
use crate::{CacheKey, CacheValue, Cached};
use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;

/// A function whose results are kept, from [`MmapCache::memoize`](crate::MmapCache::memoize). It can
/// be named in a struct or a static:
///
/// ```
/// use persist_cache::{Memoized, MmapCache};
/// use std::sync::LazyLock;
///
/// static LENGTHS: LazyLock<Memoized<str, u64>> =
///     LazyLock::new(|| MmapCache::disabled().memoize(|text: &str| text.len() as u64));
///
/// assert_eq!(*LENGTHS.call("four"), 4);
/// ```
pub struct Memoized<K: ?Sized, V, F = fn(&K) -> V> {
    table: Table<K, V>,
    function: F,
}

/// A function that can fail and whose successes are kept, from
/// [`MmapCache::try_memoize`](crate::MmapCache::try_memoize).
pub struct TryMemoized<K: ?Sized, V, E, F = fn(&K) -> Result<V, E>> {
    table: Table<K, V>,
    function: F,
    error: std::marker::PhantomData<fn() -> E>,
}

impl<K, V, F> Memoized<K, V, F>
where
    K: CacheKey + ?Sized,
    V: CacheValue,
    F: Fn(&K) -> V,
{
    pub(crate) fn new(table: Table<K, V>, function: F) -> Memoized<K, V, F> {
        Memoized { table, function }
    }

    /// The same function, its results known by their [`Schema`]: exactly, and whatever else is built anew. (A function
    /// without a name of its own still belongs to the program as built.)
    #[must_use]
    pub fn with_schema(self) -> Memoized<K, V, F>
    where
        V: Schema,
    {
        Memoized { table: self.table.with_schema(), function: self.function }
    }

    /// The function's result for `key`: as it is stored, or computed now and stored. The cache never
    /// makes it fail: what cannot be stored is returned all the same, and counted in
    /// [`Stats::store_errors`](crate::Stats::store_errors).
    ///
    /// On a hit no lock, no system call, no allocation, no copy. If several callers miss at once, in
    /// this process or others, one computes and the rest wait for it, up to
    /// [`OpenOptions::claim_timeout`](crate::OpenOptions::claim_timeout); if it panics or dies, the next
    /// takes over. The function may call itself, and any other.
    ///
    /// # Panics
    /// If the function does, in which case nothing is stored; or if there is nothing to read in place, because
    /// rkyv cannot archive the value ([`Error::Convert`](crate::Error::Convert)), its archive is not valid
    /// ([`Error::Invalid`](crate::Error::Invalid)), as that of a value which is nested too deep, or there is no
    /// memory for the archive beside the value: what the cache could not take is archived on the heap.
    #[inline(always)]
    pub fn call(&self, key: &K) -> Cached<V> {
        self.table.get_or_insert_with(key, || (self.function)(key))
    }

    /// The result for `key`, if it is stored. Never computes.
    #[inline]
    pub fn peek(&self, key: &K) -> Option<Cached<V>> {
        self.table.get(key).ok().flatten()
    }

    /// Removes the result for `key`; `true` if there was one. A computation of it that is under way is
    /// not stored.
    ///
    /// # Errors
    /// As [`Table::insert`].
    pub fn forget(&self, key: &K) -> Result<bool> {
        self.table.remove(key)
    }
}

impl<K, V, E, F> TryMemoized<K, V, E, F>
where
    K: CacheKey + ?Sized,
    V: CacheValue,
    F: Fn(&K) -> Result<V, E>,
{
    pub(crate) fn new(table: Table<K, V>, function: F) -> TryMemoized<K, V, E, F> {
        TryMemoized { table, function, error: std::marker::PhantomData }
    }

    /// The same function, its results known by their [`Schema`]: exactly, and whatever else is built anew. (A function
    /// without a name of its own still belongs to the program as built.)
    #[must_use]
    pub fn with_schema(self) -> TryMemoized<K, V, E, F>
    where
        V: Schema,
    {
        TryMemoized::new(self.table.with_schema(), self.function)
    }

    /// The function's result for `key`: as it is stored, or computed now and, if it is `Ok`, stored.
    /// One that fails is computed by each caller in turn.
    ///
    /// # Errors
    /// Those of the function alone.
    ///
    /// # Panics
    /// As [`Memoized::call`].
    #[inline]
    pub fn call(&self, key: &K) -> Result<Cached<V>, E> {
        self.table.get_or_try_insert_with(key, || (self.function)(key))
    }

    /// The result for `key`, if it is stored. Never computes.
    #[inline]
    pub fn peek(&self, key: &K) -> Option<Cached<V>> {
        self.table.get(key).ok().flatten()
    }

    /// Removes the result for `key`, as [`Memoized::forget`] does.
    ///
    /// # Errors
    /// As [`Table::insert`].
    pub fn forget(&self, key: &K) -> Result<bool> {
        self.table.remove(key)
    }
}

/// A function without captured state, by its type: there is but one value of it.
type Function = (TypeId, Arc<dyn Any + Send + Sync>);
static FUNCTIONS: Trie<Function> = Trie::new();

/// Refuses, when it is compiled, a function with captured state.
pub(crate) const fn refuse_captures<F>() {
    const {
        assert!(
            size_of::<F>() == 0,
            "this closure captures something, or is a function pointer, so that two of them could \
             not be told apart: put what it captures into the argument, or give it a name of its \
             own with the method of this name that ends in `_as`"
        );
    }
}

/// A function without captured state as a pointer, so that what is memoised has a type one can write.
/// Called through it, on a miss, the function is looked up by its type: the value of a zero-sized type
/// could be conjured from nothing, but not in safe code.
pub(crate) fn as_pointer<K, T, F>(function: F) -> fn(&K) -> T
where
    K: ?Sized,
    F: Fn(&K) -> T + Send + Sync + 'static,
{
    refuse_captures::<F>();
    let function: Arc<dyn Any + Send + Sync> = Arc::new(function);
    let type_id = TypeId::of::<F>();
    let entry = || (type_id, Arc::clone(&function));
    FUNCTIONS.find_or_add(|| hash_of(type_id), |own| own.0 == type_id, entry);
    call_by_type::<K, T, F>
}

fn call_by_type<K, T, F>(key: &K) -> T
where
    K: ?Sized,
    F: Fn(&K) -> T + Send + Sync + 'static,
{
    let type_id = TypeId::of::<F>();
    let entry = FUNCTIONS.find(|| hash_of(type_id), |own| own.0 == type_id);
    let function = entry.and_then(|own| own.1.downcast_ref::<F>());
    function.expect("`as_pointer` put it there")(key)
}

impl<K: ?Sized, V, F: Clone> Clone for Memoized<K, V, F> {
    fn clone(&self) -> Memoized<K, V, F> {
        Memoized { table: self.table.clone(), function: self.function.clone() }
    }
}

impl<K: ?Sized, V, E, F: Clone> Clone for TryMemoized<K, V, E, F> {
    fn clone(&self) -> TryMemoized<K, V, E, F> {
        let (table, function) = (self.table.clone(), self.function.clone());
        TryMemoized { table, function, error: self.error }
    }
}

impl<K: ?Sized, V, F> fmt::Debug for Memoized<K, V, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memoized").finish_non_exhaustive()
    }
}

impl<K: ?Sized, V, E, F> fmt::Debug for TryMemoized<K, V, E, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TryMemoized").finish_non_exhaustive()
    }
}
