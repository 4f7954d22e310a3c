//! Tables: typed, named parts of a cache, for entries by hand.

use super::call::keyspace::Keyspace;
use super::call::outcome::Wanted;
use super::handle::Handle;
use super::scope::{Fingerprint, Name};
use super::value::archive::{encode_behind, validate};
use super::value::schema::Schema;
use super::value::type_proof::Shape;
use crate::engine::file::open_file::PREFETCH_MAX;
use crate::engine::format::record::Identity;
use crate::error::Result;
use crate::{CacheKey, CacheValue, Cached};
use rkyv::util::AlignedVec;
use std::borrow::Borrow;
use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// A typed, named part of a cache: entries by hand, from [`MmapCache::table`](crate::MmapCache::table).
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
/// let sizes = cache.table::<str, u64>("sizes");
/// sizes.insert("a.txt", &17)?;
/// assert_eq!(*sizes.get("a.txt")?.unwrap(), 17);
/// assert_eq!(*sizes.get_or_insert_with("b.txt", || 4), 4);
/// assert!(sizes.remove("a.txt")?);
/// # Ok::<(), persist_cache::Error>(())
/// ```
pub struct Table<K: ?Sized, V> {
    pub(crate) keyspace: Arc<Keyspace<V>>,
    key: PhantomData<fn(&K)>,
}

/// What `insert_many` encodes before it takes the lock: entries, and bytes of values, the last of which may
/// go beyond. So few that they stay in the nearer caches.
const BATCH_ENTRIES: usize = 256;
const BATCH_BYTES: usize = 64 << 10;

impl<K: CacheKey + ?Sized, V: CacheValue> Table<K, V> {
    pub(crate) fn new(handle: &Arc<Handle>, name: Name) -> Table<K, V> {
        let fingerprint = Fingerprint::of_type::<V>(Shape::One);
        Table {
            keyspace: Arc::new(Keyspace::new(handle, name, K::SCHEMA, &fingerprint)),
            key: PhantomData,
        }
    }

    /// The table of the same name whose values are known by their [`Schema`]: exactly, and for good.
    #[must_use]
    pub fn with_schema(self) -> Table<K, V>
    where
        V: Schema,
    {
        Table { keyspace: Arc::new(self.keyspace.with_schema(K::SCHEMA)), key: PhantomData }
    }

    /// The same table by keys of another type that encode alike: `(u64, &str)` for `(u64, String)`.
    /// That they do is checked by the compiler.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let owned = cache.table::<(u64, String), u64>("sizes");
    /// let name = String::from("a.txt");
    /// assert_eq!(*owned.rekey().get_or_insert_with(&(1_u64, name.as_str()), || 17), 17);
    /// assert!(owned.contains(&(1, name))?);
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[must_use]
    pub fn rekey<Q: CacheKey + ?Sized>(&self) -> Table<Q, V> {
        const {
            let (own, other) = (K::SCHEMA.bytes(), Q::SCHEMA.bytes());
            assert!(
                u128::from_le_bytes(own) == u128::from_le_bytes(other),
                "these keys do not encode alike"
            );
        }
        Table { keyspace: Arc::clone(&self.keyspace), key: PhantomData }
    }

    /// The value of a key. On a hit no lock, no system call, no allocation, no copy, but for the first
    /// time that this process meets the record, when it is checked.
    ///
    /// # Errors
    /// If the file had to be opened anew, and that failed.
    #[inline]
    pub fn get(&self, key: &K) -> Result<Option<Cached<V>>> {
        self.keyspace.get(&self.keyspace.identify(key))
    }

    /// The values of several keys, in their order, each as it is at some time during the call. The machine
    /// waits for the memory of 32 of them at once: where there are more entries than its caches hold, a
    /// key costs a third of a [`get`](Table::get) (on x86-64; elsewhere as much). No lock and no system call
    /// on hits; two allocations.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let squares = cache.table::<u64, u64>("squares");
    /// squares.insert_many((0..10_u64).map(|n| (n, n * n)))?;
    /// let found = squares.get_many(&[3_u64, 4, 50])?;
    /// assert!(found[0].as_deref().is_some_and(|nine| *nine == 9) && found[2].is_none());
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Table::get).
    pub fn get_many<Q: Borrow<K>>(&self, keys: &[Q]) -> Result<Vec<Option<Cached<V>>>> {
        let mut values = Vec::with_capacity(keys.len());
        let mut identities = Vec::with_capacity(keys.len().min(PREFETCH_MAX));
        for keys in keys.chunks(PREFETCH_MAX) {
            identities.clear();
            identities.extend(keys.iter().map(|key| self.keyspace.identify(key.borrow())));
            self.keyspace.get_many(&identities, &mut values)?;
        }
        Ok(values)
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// As [`get`](Table::get).
    pub fn contains(&self, key: &K) -> Result<bool> {
        self.get(key).map(|found| found.is_some())
    }

    /// Stores a value, in place of any that was there, and returns it as it is stored. Takes the lock;
    /// about as long as taking it.
    ///
    /// # Errors
    /// If the disk is full, the file read-only, or the lock not to be had until the deadline
    /// ([`OpenOptions::lock_timeout`](crate::OpenOptions::lock_timeout)); if the value is over
    /// [`OpenOptions::record_limit`](crate::OpenOptions::record_limit), cannot be archived
    /// ([`Error::Convert`](crate::Error::Convert)) or has no valid archive
    /// ([`Error::Invalid`](crate::Error::Invalid)); if the cache of a `#[cache]` function could not be opened, and
    /// still cannot. Nothing that was stored before is lost by it.
    pub fn insert(&self, key: &K, value: &V) -> Result<Cached<V>> {
        self.keyspace.insert(self.keyspace.identify(key), value)
    }

    /// Stores many values, and returns how many. Takes the lock once for each batch, which is full with
    /// 256 entries or 64 KiB of values; a value of more than that is a batch of its own. Up to an error, all
    /// or nothing of each batch is stored.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let squares = cache.table::<u64, u64>("squares");
    /// assert_eq!(squares.insert_many((0..1000).map(|n| (n, n * n)))?, 1000);
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`insert`](Table::insert).
    pub fn insert_many<Q: Borrow<K>>(
        &self,
        entries: impl IntoIterator<Item = (Q, V)>,
    ) -> Result<u64> {
        self.keyspace.handle.demand()?;
        let mut entries = entries.into_iter();
        let (mut places, mut archives) = (Vec::new(), AlignedVec::new());
        let mut count = 0;
        loop {
            // The iterator is the user's: it runs before the lock is taken.
            places.clear();
            archives.clear();
            while places.len() < BATCH_ENTRIES && archives.len() < BATCH_BYTES {
                let Some((key, value)) = entries.next() else { break };
                let place = encode_behind(&value, &mut archives)?;
                self.keyspace.handle.check_size(place.len() as u64)?;
                places.push((self.keyspace.identify(key.borrow()), place));
            }
            if places.is_empty() {
                return Ok(count);
            }
            // Only now: the buffer was in the hands of each value's own code, also behind the values before.
            for (_, place) in &places {
                validate::<V>(&archives[place.clone()])?;
            }
            let Some((store, _)) = self.keyspace.parts() else { continue };
            let entry = |(identity, place): &(Identity, Range<usize>)| {
                let archive = &archives[place.clone()];
                self.keyspace.entry(*identity, archive, Duration::ZERO, true)
            };
            let batch: Vec<_> = places.iter().map(entry).collect();
            store.put_many(&batch, &self.keyspace.scope_record())?;
            count += batch.len() as u64;
        }
    }

    /// Removes a key; `true` if it had a value, be it a damaged one. Computations of it that are under way are
    /// not stored.
    ///
    /// # Errors
    /// As [`insert`](Table::insert).
    pub fn remove(&self, key: &K) -> Result<bool> {
        self.keyspace.remove(&self.keyspace.identify(key))
    }

    /// The value of a key, computed and stored if it has none. The cache never makes it fail: what
    /// cannot be stored is returned all the same, and counted in
    /// [`Stats::store_errors`](crate::Stats::store_errors).
    ///
    /// # Panics
    /// If `compute` does, in which case nothing is stored; or if there is nothing to read in place: see
    /// [`Memoized::call`](crate::Memoized::call).
    #[inline(always)]
    pub fn get_or_insert_with(&self, key: &K, compute: impl FnOnce() -> V) -> Cached<V> {
        let Ok(cached) = self.get_or_try_insert_with(key, || Ok::<V, Infallible>(compute()));
        cached
    }

    /// The value of a key, computed and stored if it has none and the computation succeeds.
    ///
    /// # Errors
    /// Those of `compute` alone.
    ///
    /// # Panics
    /// As [`get_or_insert_with`](Table::get_or_insert_with).
    #[inline(always)]
    pub fn get_or_try_insert_with<E>(
        &self,
        key: &K,
        compute: impl FnOnce() -> Result<V, E>,
    ) -> Result<Cached<V>, E> {
        let identity = self.keyspace.identify(key);
        match self.keyspace.hit(&identity) {
            Some(cached) => Ok(cached),
            None => Ok(self.keyspace.obtain(&identity, Wanted::Archived, compute)?.into_cached()),
        }
    }
}

impl<K: ?Sized, V> Clone for Table<K, V> {
    fn clone(&self) -> Table<K, V> {
        Table { keyspace: Arc::clone(&self.keyspace), key: PhantomData }
    }
}

impl<K: ?Sized, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").finish_non_exhaustive()
    }
}
