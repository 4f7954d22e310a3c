//! The upkeep of a cache: operations on the file as a whole, by a handle or by the cache's name.

use super::MmapCache;
use super::options::OpenOptions;
use crate::engine::store::Store;
use crate::engine::store::compact::Compaction;
use crate::engine::store::findings::Verification;
use crate::engine::store::stats::Stats;
use crate::error::Result;
use std::time::Duration;

/// # Upkeep
impl MmapCache {
    /// Removes the entries that have expired by this handle's expiry, and returns how many they were.
    ///
    /// Their space comes back with [`compact`](MmapCache::compact). (To write what is stored out to the device, call
    /// [`sync`](MmapCache::sync).)
    ///
    /// # Errors
    /// As [`Table::insert`](crate::Table::insert).
    ///
    /// # Cost
    /// Reads the head of every entry, without the lock, and takes 8 bytes of memory for each that has expired. Under
    /// the lock it appends one record for up to 8,192 of them, and gives the lock back in between.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// use std::time::Duration;
    /// cache.memoize(|n: &u64| n * n).call(&4);
    /// cache.set_expiry(Duration::ZERO);
    /// assert_eq!(cache.flush()?, 1);
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[doc(alias = "expire")]
    pub fn flush(&self) -> Result<u64> {
        self.with(0, |store| store.flush(self.handle.expiry.get()))
    }

    /// Removes all entries, of all functions and tables of this cache, at once and for all processes.
    ///
    /// Values that are held stay valid. Computations that are under way return their results and do not store them. The
    /// space comes back with [`compact`](MmapCache::compact).
    ///
    /// # Errors
    /// As [`Table::insert`](crate::Table::insert), but not for a full disk: there the file itself is removed, and the
    /// next use creates an empty one.
    ///
    /// # Cost
    /// Takes the lock, and appends a record and an empty index, however many entries there are.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let square = cache.memoize(|n: &u64| n * n);
    /// let held = square.call(&4);
    /// cache.clear()?;
    /// assert!(square.peek(&4).is_none());
    /// assert_eq!(*held, 16);
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn clear(&self) -> Result<()> {
        self.with((), Store::clear)
    }

    /// Removes the file.
    ///
    /// Values that are held stay valid, and the disk space comes back when none is. Whoever uses the cache afterwards,
    /// by this handle too, creates it anew.
    ///
    /// # Errors
    /// As [`Table::insert`](crate::Table::insert).
    ///
    /// # Cost
    /// Takes the lock, and waits for the device to note that the name is gone.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let path = cache.path().to_path_buf();
    /// cache.delete()?;
    /// assert!(!path.exists());
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn delete(&self) -> Result<()> {
        self.with((), Store::delete)
    }

    /// Rewrites the file with its live entries alone, and puts the new file in the place of the old one.
    ///
    /// What has expired by this handle's expiry is dropped, and so is what is damaged. Of a `#[cache]` function it
    /// keeps the entries of the two versions of its code that were last stored to, and of the version that this process
    /// uses.
    ///
    /// # Errors
    /// [`Error::Busy`](crate::Error::Busy) if another process is compacting; else as
    /// [`Table::insert`](crate::Table::insert).
    ///
    /// # Cost
    /// Reads and writes all live entries, and waits for the device. It takes disk space for a second file until nobody
    /// holds a value in the old one, and 12 to 35 bytes of memory for each entry. Readers go on meanwhile. Writers
    /// go on too, but wait while at most a MiB of what came last is copied and the new file is brought to the device.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let table = cache.table::<u64, u64>("squares");
    /// table.insert_many((0..1000_u64).map(|n| (n, n * n)))?;
    /// (1..1000).try_for_each(|n| table.remove(&n).map(drop))?;
    /// let compaction = cache.compact()?;
    /// assert_eq!(compaction.entries_kept, 1);
    /// assert!(compaction.bytes_after < compaction.bytes_before);
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn compact(&self) -> Result<Compaction> {
        self.with(Compaction::default(), |store| store.compact(self.handle.expiry.get()))
    }

    /// Brings all that is stored to the device, so that what is there now survives a power cut.
    ///
    /// Without it, what a process has stored survives that process, however it ends, and the system writes it out in
    /// its own time. After a sync the first opening after a reboot is quick.
    ///
    /// # Errors
    /// [`Error::Unsynced`](crate::Error::Unsynced) once a sync has failed: what the system could not write then it has
    /// forgotten, and no later sync of the same file would tell. [`compact`](MmapCache::compact) writes what can be
    /// read to a new file. Else as [`Table::insert`](crate::Table::insert).
    ///
    /// # Cost
    /// Takes the lock twice, for a moment each, and between them waits for the device, which may take seconds.
    /// Readers and writers go on meanwhile.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// cache.table::<str, u64>("sizes").insert("a.txt", &17)?;
    /// cache.sync()?; // the entry survives a power cut
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn sync(&self) -> Result<()> {
        self.with((), Store::sync)
    }

    /// Reads the whole file, and returns what is wrong with it.
    ///
    /// It changes nothing. Damaged entries are misses in any case, and [`compact`](MmapCache::compact) drops them.
    ///
    /// # Errors
    /// If the file cannot be read.
    ///
    /// # Cost
    /// Takes no lock: others go on meanwhile. It reads the file once, and takes up to some 14 MiB of memory,
    /// however large the file is. Where the log has many keys that were flushed or cleared, it reads the heads of
    /// the records once more for each 40,000 of them.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// cache.table::<str, u64>("sizes").insert("a.txt", &17)?;
    /// assert!(cache.verify()?.findings.is_empty());
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn verify(&self) -> Result<Verification> {
        self.with(Verification::default(), Store::verify)
    }

    /// Returns counts of the file and of this process.
    ///
    /// # Cost
    /// One system call for the file's size. It takes no file's lock, allocates nothing, and reads no entries. The
    /// counts of this process are a sum over its threads, under a lock that no hit takes.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let square = cache.memoize(|n: &u64| n * n);
    /// square.call(&4);
    /// square.call(&4);
    /// let stats = cache.stats();
    /// assert_eq!((stats.entries, stats.hits, stats.misses), (1, 1, 1));
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        let storeless = Stats::of_process(&self.handle.storeless);
        match self.handle.store() {
            Some(store) => store.stats().with_calls_of(&storeless),
            None => storeless,
        }
    }

    fn with<T>(&self, disabled: T, work: impl FnOnce(&Store) -> Result<T>) -> Result<T> {
        match self.handle.demand()? {
            Some(store) => work(store),
            None => Ok(disabled),
        }
    }
}

/// Removes the expired entries of a named cache in the default root, and returns how many they were; `0` if there
/// is no such cache.
///
/// Entries as old as `expiry` have expired; given `None`, those that have as the handles that stored them said.
///
/// # Errors
/// As [`MmapCache::open`] and [`MmapCache::flush`].
///
/// # Cost
/// Opens the cache, as [`MmapCache::open`] does, and flushes it.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # // SAFETY: no other thread runs.
/// # unsafe { std::env::set_var("PERSIST_CACHE_DIR", dir.path()) };
/// use std::time::Duration;
/// persist_cache::MmapCache::open("sizes")?.table::<str, u64>("sizes").insert("a.txt", &17)?;
/// assert_eq!(persist_cache::flush("sizes", Duration::from_secs(3600))?, 0);
/// assert_eq!(persist_cache::flush("sizes", Duration::ZERO)?, 1);
/// # Ok::<(), persist_cache::Error>(())
/// ```
pub fn flush(name: impl AsRef<str>, expiry: impl Into<Option<Duration>>) -> Result<u64> {
    match OpenOptions::find(name.as_ref())? {
        Some(path) => MmapCache::options().expiry(expiry).open_at(path)?.flush(),
        None => Ok(0),
    }
}

/// Removes all entries of a named cache in the default root, if there is one, as [`MmapCache::clear`] does.
///
/// # Errors
/// As [`MmapCache::open`] and [`MmapCache::clear`].
///
/// # Cost
/// Opens the cache, as [`MmapCache::open`] does, and clears it.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # // SAFETY: no other thread runs.
/// # unsafe { std::env::set_var("PERSIST_CACHE_DIR", dir.path()) };
/// let cache = persist_cache::MmapCache::open("sizes")?;
/// cache.table::<str, u64>("sizes").insert("a.txt", &17)?;
/// persist_cache::clear("sizes")?;
/// assert_eq!(cache.stats().entries, 0);
/// # Ok::<(), persist_cache::Error>(())
/// ```
pub fn clear(name: impl AsRef<str>) -> Result<()> {
    match OpenOptions::find(name.as_ref())? {
        Some(path) => MmapCache::open_at(path)?.clear(),
        None => Ok(()),
    }
}

/// Removes the file of a named cache in the default root, if there is one, as [`MmapCache::delete`] does.
///
/// # Errors
/// As [`MmapCache::open`] and [`MmapCache::delete`].
///
/// # Cost
/// Opens the cache, as [`MmapCache::open`] does, and deletes it.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # // SAFETY: no other thread runs.
/// # unsafe { std::env::set_var("PERSIST_CACHE_DIR", dir.path()) };
/// let path = persist_cache::MmapCache::open("sizes")?.path().to_path_buf();
/// persist_cache::delete("sizes")?;
/// assert!(!path.exists());
/// # Ok::<(), persist_cache::Error>(())
/// ```
pub fn delete(name: impl AsRef<str>) -> Result<()> {
    match OpenOptions::find(name.as_ref())? {
        Some(path) => MmapCache::open_at(path)?.delete(),
        None => Ok(()),
    }
}
