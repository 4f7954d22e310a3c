//! Memoised functions: a function, and the table that its results are kept in.
//!
//! There are six types, one for each kind of function. What they have in common is written once, in `memoized!`;
//! `call` and `with_schema` differ, or have bounds that a user may fail to meet, and an error in them would name
//! the macro.
//!
//! One generic type with a marker for the kind, and six aliases, would take fewer lines, and was rejected. All six
//! `call`s would be methods of one type, so that `Memoized::call(&f, &key)`, which compiles today, would be
//! ambiguous. rustdoc shows an alias without methods until a script adds them, and a link to `AsyncMemoized::call`
//! would lead to the first `call` of the six. And the compiler would call what a user has named `MemoizedIter` by
//! the name of the generic type and of its marker.

/// What every memoised function has beside its `call`. `$table` is what its results are kept in; `$make` and
/// `$key` stand in the examples.
macro_rules! memoized {
    (values: $name:ident $(failing $error:ident)?, $make:literal, $key:literal) => {
        memoized!(in Table: $name $(failing $error)?, $make, $key);

        impl<K: CacheKey + ?Sized, V: CacheValue, $($error,)? F> $name<K, V, $($error,)? F> {
            /// Returns the result for `key` if it is stored, and never computes it.
            ///
            /// A cache that cannot be read has no results: the error is not returned.
            ///
            /// # Cost
            /// As [`Table::get`](crate::Table::get). It waits for no computation. It blocks the thread where
            /// the file has to be opened anew, in async code too.
            ///
            /// # Examples
            /// ```
            /// # let dir = tempfile::tempdir().unwrap();
            /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
            #[doc = concat!("let memoized = cache.", $make, ";")]
            #[doc = concat!("assert!(memoized.peek(", $key, ").is_none());")]
            /// # Ok::<(), persist_cache::Error>(())
            /// ```
            #[inline]
            pub fn peek(&self, key: &K) -> Option<Cached<V>> {
                self.table.get(key).ok().flatten()
            }
        }
    };
    (in $table:ident: $name:ident $(failing $error:ident)?, $make:literal, $key:literal) => {
        impl<K: CacheKey + ?Sized, V: CacheValue, $($error,)? F> $name<K, V, $($error,)? F> {
            pub(crate) fn new(table: $table<K, V>, function: F) -> Self {
                Self { table, function, $(error: PhantomData::<fn() -> $error>)? }
            }

            /// Removes the result for `key`, and returns whether there was one.
            ///
            /// A computation of it that is under way returns its result and does not store it.
            ///
            /// # Errors
            /// As [`Table::insert`](crate::Table::insert).
            ///
            /// # Cost
            /// As [`Table::remove`](crate::Table::remove): it blocks the thread until it has the file's lock, in
            /// async code too.
            ///
            /// # Examples
            /// ```
            /// # let dir = tempfile::tempdir().unwrap();
            /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
            #[doc = concat!("let memoized = cache.", $make, ";")]
            #[doc = concat!("assert!(!memoized.forget(", $key, ")?); // it was not stored")]
            /// # Ok::<(), persist_cache::Error>(())
            /// ```
            pub fn forget(&self, key: &K) -> Result<bool> {
                self.table.remove(key)
            }
        }

        impl<K: ?Sized, V, $($error,)? F: Clone> Clone for $name<K, V, $($error,)? F> {
            fn clone(&self) -> Self {
                let (table, function) = (self.table.clone(), self.function.clone());
                Self { table, function, $(error: PhantomData::<fn() -> $error>)? }
            }
        }

        impl<K: ?Sized, V, $($error,)? F> fmt::Debug for $name<K, V, $($error,)? F> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

pub(crate) mod asynchronous;
pub(crate) mod items;

use crate::engine::os::trie::{Trie, hash_of};
use crate::error::Result;
use crate::memo::table::Table;
use crate::memo::value::schema::Schema;
use crate::{CacheKey, CacheValue, Cached};
use std::any::{Any, TypeId};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A memoised function, from [`MmapCache::memoize`](crate::MmapCache::memoize) or
/// [`memoize_as`](crate::MmapCache::memoize_as).
///
/// Without captured state its type can be written, so that it can be a field of a struct or a static. Clones
/// share their results. It is `Send` and `Sync` where the function is both.
///
/// # Examples
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

/// A memoised function that can fail, from [`MmapCache::try_memoize`](crate::MmapCache::try_memoize) or
/// [`try_memoize_as`](crate::MmapCache::try_memoize_as). `Ok` results are stored, `Err` results are not.
///
/// # Examples
/// ```
/// use persist_cache::{MmapCache, TryMemoized};
/// use std::num::ParseIntError;
///
/// struct Parser { parse: TryMemoized<str, u64, ParseIntError> }
///
/// let cache = MmapCache::disabled();
/// let parser = Parser { parse: cache.try_memoize(|text: &str| text.parse::<u64>()) };
/// assert_eq!(parser.parse.call("42").map(|n| n.to_native()), Ok(42));
/// assert!(parser.parse.call("forty-two").is_err());
/// ```
pub struct TryMemoized<K: ?Sized, V, E, F = fn(&K) -> Result<V, E>> {
    table: Table<K, V>,
    function: F,
    error: PhantomData<fn() -> E>,
}

impl<K, V, F> Memoized<K, V, F>
where
    K: CacheKey + ?Sized,
    V: CacheValue,
    F: Fn(&K) -> V,
{
    /// Returns the function's result for `key`. A result that is stored is read; any other is computed now,
    /// and stored.
    ///
    /// The cache never makes a call fail. If the result cannot be stored (the disk is full, say, or the file's
    /// lock cannot be had), the call returns it all the same, and
    /// [`Stats::store_errors`](crate::Stats::store_errors) counts it. The function may call itself, and any other
    /// memoised function.
    ///
    /// # Panics
    /// If the function panics; then nothing is stored. Also if there is nothing to read in place: rkyv cannot
    /// archive the value ([`Error::Convert`](crate::Error::Convert)); its archive is not valid
    /// ([`Error::Invalid`](crate::Error::Invalid)), as that of a value that is nested too deep; or there is no
    /// memory for an archive of a value that the cache could not take.
    ///
    /// # Cost
    /// - A **hit** takes no lock, makes no system call, allocates nothing and copies nothing: some 270
    ///   instructions for a key of an integer. The first hit of a thread allocates, and the first hit on a
    ///   result in a process checks its bytes, once.
    /// - A **miss** claims the key, with four system calls, computes, and stores the result as
    ///   [`Table::insert`](crate::Table::insert) does, with two more. It waits for the file's lock up to
    ///   [`OpenOptions::lock_timeout`](crate::OpenOptions::lock_timeout).
    /// - If **another caller computes** the same result, in this process or any other, the call waits for it, up
    ///   to [`OpenOptions::claim_timeout`](crate::OpenOptions::claim_timeout). If that caller panics or its
    ///   process dies, one of those who wait computes.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let length = cache.memoize(|text: &str| text.len() as u64);
    /// assert_eq!(*length.call("four"), 4); // computed, and stored
    /// assert_eq!(*length.call("four"), 4); // read
    /// assert!(length.peek("four").is_some());
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[inline(always)]
    pub fn call(&self, key: &K) -> Cached<V> {
        self.table.get_or_insert_with(key, || (self.function)(key))
    }

    /// Returns the same function, whose results are known by the [`Schema`] of their type.
    ///
    /// A change of the type is then a miss, and a rebuild is none. A function that was memoised without a name
    /// still belongs to the program as built: see [Which call it is](crate#which-call-it-is). Results that were
    /// stored without the schema are not found with it.
    ///
    /// # Cost
    /// Hashes the type's schema, and allocates. It does not touch the file. Call it once, where the function is
    /// memoised.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let length = cache.memoize_as("length", |text: &str| text.len() as u64).with_schema();
    /// assert_eq!(*length.call("four"), 4);
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[must_use]
    pub fn with_schema(self) -> Memoized<K, V, F>
    where
        V: Schema,
    {
        Memoized::new(self.table.with_schema(), self.function)
    }
}

impl<K, V, E, F> TryMemoized<K, V, E, F>
where
    K: CacheKey + ?Sized,
    V: CacheValue,
    F: Fn(&K) -> Result<V, E>,
{
    /// Returns the function's result for `key`. A result that is stored is read; any other is computed now,
    /// and stored if it is `Ok`.
    ///
    /// If the function fails, the callers that wait for this result compute it themselves, one after the other.
    ///
    /// # Errors
    /// The function's own. The cache adds none.
    ///
    /// # Panics
    /// As [`Memoized::call`].
    ///
    /// # Cost
    /// As [`Memoized::call`]. A call that fails stores nothing.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let parse = cache.try_memoize(|text: &str| text.parse::<u64>());
    /// assert_eq!(parse.call("42").map(|n| n.to_native()), Ok(42));
    /// assert!(parse.call("forty-two").is_err());
    /// assert!(parse.peek("forty-two").is_none());
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[inline]
    pub fn call(&self, key: &K) -> Result<Cached<V>, E> {
        self.table.get_or_try_insert_with(key, || (self.function)(key))
    }

    /// Returns the same function, whose results are known by the [`Schema`] of their type, as
    /// [`Memoized::with_schema`] does.
    ///
    /// # Cost
    /// As [`Memoized::with_schema`].
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let memoized = cache.try_memoize(|text: &str| text.parse::<u64>()).with_schema();
    /// # let _ = memoized;
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[must_use]
    pub fn with_schema(self) -> TryMemoized<K, V, E, F>
    where
        V: Schema,
    {
        TryMemoized::new(self.table.with_schema(), self.function)
    }
}

memoized!(values: Memoized, "memoize(|text: &str| text.len() as u64)", "\"four\"");
memoized!(values: TryMemoized failing E, "try_memoize(|text: &str| text.parse::<u64>())", "\"4\"");

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
