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

/// A typed, named part of a cache, for entries by hand, from [`MmapCache::table`](crate::MmapCache::table).
///
/// A clone costs one atomic increment, and is the same table. A table is `Send` and `Sync`.
///
/// # Examples
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

    /// Returns the table of the same name whose values are known by the [`Schema`] of their type.
    ///
    /// A change of the type is then a miss, and a rebuild is none. Entries that were stored without the schema are not
    /// found with it.
    ///
    /// # Cost
    /// Hashes the type's schema, and allocates. It does not touch the file.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let sizes = cache.table::<str, Vec<u64>>("sizes").with_schema();
    /// sizes.insert("a.txt", &vec![17])?;
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[must_use]
    pub fn with_schema(self) -> Table<K, V>
    where
        V: Schema,
    {
        Table { keyspace: Arc::new(self.keyspace.with_schema(K::SCHEMA)), key: PhantomData }
    }

    /// Returns the same table by keys of another type that encode alike: `(u64, &str)` for `(u64, String)`.
    ///
    /// The compiler refuses a type whose keys encode otherwise.
    ///
    /// # Cost
    /// One atomic increment.
    ///
    /// # Examples
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

    /// Returns the value of a key, if it has one.
    ///
    /// # Errors
    /// If the file had to be opened anew, and that failed.
    ///
    /// # Cost
    /// A hit takes no lock, makes no system call, allocates nothing and copies nothing. The first time that this
    /// process meets an entry its bytes are checked, which takes as long as reading them, and the first hit of a thread
    /// allocates.
    ///
    /// A miss costs as little, and ten times a second at most it asks the system whether another file has taken this
    /// one's place. If one has, it is opened, as [`MmapCache::open`](crate::MmapCache::open) does.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let sizes = cache.table::<str, u64>("sizes");
    /// assert!(sizes.get("a.txt")?.is_none());
    /// sizes.insert("a.txt", &17)?;
    /// assert_eq!(*sizes.get("a.txt")?.unwrap(), 17);
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[inline]
    pub fn get(&self, key: &K) -> Result<Option<Cached<V>>> {
        self.keyspace.get(&self.keyspace.identify(key))
    }

    /// Returns the values of several keys, in their order. Each is as it is at some time during the call.
    ///
    /// # Errors
    /// As [`get`](Table::get).
    ///
    /// # Cost
    /// Two allocations; else as [`get`](Table::get) for each key. It asks for the memory of 32 entries at once: where
    /// there are more entries than the processor's caches hold, a key costs a third of a [`get`](Table::get) (on
    /// x86-64; elsewhere as much).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let squares = cache.table::<u64, u64>("squares");
    /// squares.insert_many((0..10_u64).map(|n| (n, n * n)))?;
    /// let found = squares.get_many(&[3_u64, 4, 50])?;
    /// assert!(found[0].as_deref().is_some_and(|nine| *nine == 9) && found[2].is_none());
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
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

    /// Returns whether a key has a value.
    ///
    /// # Errors
    /// As [`get`](Table::get).
    ///
    /// # Cost
    /// As [`get`](Table::get): the value is checked as if it were read, and counted as a hit or a miss.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let sizes = cache.table::<str, u64>("sizes");
    /// sizes.insert("a.txt", &17)?;
    /// assert!(sizes.contains("a.txt")? && !sizes.contains("b.txt")?);
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn contains(&self, key: &K) -> Result<bool> {
        self.get(key).map(|found| found.is_some())
    }

    /// Stores a value, in place of any that was there, and returns it as it is stored.
    ///
    /// # Errors
    /// - The disk is full ([`Error::Io`](crate::Error::Io)), or the file read-only
    ///   ([`Error::ReadOnly`](crate::Error::ReadOnly)).
    /// - Others had the lock until the deadline ([`Error::Locked`](crate::Error::Locked)).
    /// - The value is over [`OpenOptions::record_limit`](crate::OpenOptions::record_limit)
    ///   ([`Error::OverLimit`](crate::Error::OverLimit)), cannot be archived
    ///   ([`Error::Convert`](crate::Error::Convert)), or has no valid archive
    ///   ([`Error::Invalid`](crate::Error::Invalid)).
    /// - The cache of a `#[cache]` function could not be opened, and still cannot.
    ///
    /// Nothing that was stored before is lost by an error.
    ///
    /// # Cost
    /// Archives the value into a buffer that the thread keeps, and checks it. Then it takes the file's lock, copies the
    /// value and gives the lock back: two system calls, and some more each time the file has to grow. A value of more
    /// than 64 KiB takes the lock twice, and is written without it. The device is not waited for: that is
    /// [`MmapCache::sync`](crate::MmapCache::sync). The lock is waited for up to
    /// [`OpenOptions::lock_timeout`](crate::OpenOptions::lock_timeout).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let sizes = cache.table::<str, u64>("sizes");
    /// sizes.insert("a.txt", &17)?;
    /// assert_eq!(*sizes.insert("a.txt", &18)?, 18);
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn insert(&self, key: &K, value: &V) -> Result<Cached<V>> {
        self.keyspace.insert(self.keyspace.identify(key), value)
    }

    /// Stores many values, and returns how many. Of two values for one key, the later counts.
    ///
    /// The values are stored in batches. A batch is full with 256 entries or 64 KiB of values, and a value of more than
    /// that is a batch of its own. Each batch is stored wholly or not at all.
    ///
    /// # Errors
    /// As [`insert`](Table::insert). The batches before the one that failed are stored.
    ///
    /// # Cost
    /// Takes the lock once for each batch, and waits for it as [`insert`](Table::insert) does. The iterator runs
    /// without the lock. The memory of one batch is allocated.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let squares = cache.table::<u64, u64>("squares");
    /// assert_eq!(squares.insert_many((0..1000).map(|n| (n, n * n)))?, 1000);
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
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

    /// Removes a key, and returns whether it had a value, be it a damaged one.
    ///
    /// Computations of the key that are under way return their results and do not store them.
    ///
    /// # Errors
    /// As [`insert`](Table::insert).
    ///
    /// # Cost
    /// Takes the file's lock and gives it back, two system calls, and appends 64 bytes, whether or not there is a
    /// value. The value's space comes back with [`MmapCache::compact`](crate::MmapCache::compact).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let sizes = cache.table::<str, u64>("sizes");
    /// sizes.insert("a.txt", &17)?;
    /// assert!(sizes.remove("a.txt")? && !sizes.remove("a.txt")?);
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn remove(&self, key: &K) -> Result<bool> {
        self.keyspace.remove(&self.keyspace.identify(key))
    }

    /// Returns the value of a key. If it has none, the value is computed now, and stored.
    ///
    /// The cache never makes it fail: what cannot be stored is returned all the same, and counted in
    /// [`Stats::store_errors`](crate::Stats::store_errors).
    ///
    /// # Panics
    /// As [`Memoized::call`](crate::Memoized::call), whose function is `compute` here.
    ///
    /// # Cost
    /// As [`Memoized::call`](crate::Memoized::call).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let sizes = cache.table::<str, u64>("sizes");
    /// assert_eq!(*sizes.get_or_insert_with("a.txt", || 17), 17);
    /// assert_eq!(*sizes.get_or_insert_with("a.txt", || unreachable!()), 17);
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[inline(always)]
    pub fn get_or_insert_with(&self, key: &K, compute: impl FnOnce() -> V) -> Cached<V> {
        let Ok(cached) = self.get_or_try_insert_with(key, || Ok::<V, Infallible>(compute()));
        cached
    }

    /// Returns the value of a key. If it has none, the value is computed now, and stored if the computation
    /// succeeds.
    ///
    /// # Errors
    /// Those of `compute`. The cache adds none.
    ///
    /// # Panics
    /// As [`get_or_insert_with`](Table::get_or_insert_with).
    ///
    /// # Cost
    /// As [`Memoized::call`](crate::Memoized::call). A computation that fails stores nothing.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let sizes = cache.table::<str, u64>("sizes");
    /// assert!(sizes.get_or_try_insert_with("a.txt", || "x".parse()).is_err());
    /// assert_eq!(*sizes.get_or_try_insert_with("a.txt", || "17".parse())?, 17);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
