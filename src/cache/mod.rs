//! The cache as its users hold it: a file and its upkeep.

pub(crate) mod options;
mod memoize;

use crate::engine::file::deadline::Deadline;
use crate::engine::file::expiry::{ExpiryRule, SharedExpiry};
use crate::engine::store::compact::Compaction;
use crate::engine::store::findings::Verification;
use crate::engine::store::pin::Totals;
use crate::engine::store::stats::Stats;
use crate::engine::store::{Store, Token};
use crate::error::{Error, Result};
use crate::memo::handle::{Code, Handle, Late, LockWait, Opened, PAUSES};
use crate::memo::scope::Name;
use crate::memo::table::Table;
use crate::{CacheKey, CacheValue};
use options::{OpenOptions, Place};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A persistent cache: one file, shared by all processes of this user on this machine.
///
/// A handle is cheap to clone, and clones share their expiry. Opening the same cache twice gives two
/// handles on one store.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let open = |name: &str| persist_cache::MmapCache::options().root(dir.path()).open(name);
/// let cache = open("words")?; // MmapCache::open("words")
/// let count = cache.memoize(|text: &str| text.split_whitespace().count() as u64);
/// assert_eq!(*count.call("to be or not to be"), 6); // computed
/// assert_eq!(*count.call("to be or not to be"), 6); // read from the file, by whichever process
/// # Ok::<(), persist_cache::Error>(())
/// ```
#[derive(Clone)]
pub struct MmapCache {
    pub(crate) handle: Arc<Handle>,
}

impl MmapCache {
    /// Opens the cache of this name in the default root (see [`OpenOptions::root`]), and creates it if
    /// there is none. Any name will do.
    ///
    /// Costs some fifteen system calls and a few for each directory on the way, whatever the size of the
    /// cache. It waits in three cases: the process that creates the file waits for the device once, so that no
    /// power cut leaves half a file; others that come meanwhile wait for that process; and the first opening
    /// after a reboot, or of a copied file, verifies the file under the lock, from the last
    /// [`sync`](MmapCache::sync) or [`compact`](MmapCache::compact) on. Waits for others end at
    /// [`OpenOptions::lock_timeout`]. The first opening in a process starts a thread.
    ///
    /// # Errors
    /// [`Error::NotACache`], [`Error::Incompatible`] and [`Error::Damaged`] if the file is something else,
    /// [`Error::Exposed`] if it lies where others could change it, [`Error::Locked`] if others had the lock
    /// until the deadline, [`Error::Setting`] if the environment has a value that is none, and
    /// [`Error::Io`] if the system refuses. Each says how to go on, and the file is left as it is.
    pub fn open(name: impl AsRef<str>) -> Result<MmapCache> {
        MmapCache::options().open(name)
    }

    /// Opens the cache in this file, and creates it if there is none.
    ///
    /// # Errors
    /// As [`open`](MmapCache::open).
    pub fn open_at(path: impl AsRef<Path>) -> Result<MmapCache> {
        MmapCache::options().open_at(path)
    }

    /// Options for opening a cache otherwise.
    pub const fn options() -> OpenOptions {
        OpenOptions::new()
    }

    /// A cache that always misses and stores nothing: for switching caching off.
    ///
    /// ```
    /// let cache = persist_cache::MmapCache::disabled();
    /// let double = cache.memoize(|n: &u64| n * 2);
    /// assert_eq!(*double.call(&4), 8);
    /// assert!(double.peek(&4).is_none());
    /// ```
    #[must_use]
    pub fn disabled() -> MmapCache {
        MmapCache { handle: Arc::new(OpenOptions::new().handle(Code::Own)) }
    }

    /// A typed, named part of the cache, for entries by hand. It shares its entries with what is
    /// memoised under its name with the same types.
    #[must_use]
    pub fn table<K: CacheKey + ?Sized, V: CacheValue>(&self, name: &str) -> Table<K, V> {
        Table::new(&self.handle, Name::Given(name.to_owned()))
    }

    /// Sets the expiry of this handle, of its clones, and of what is memoised from them. Entries as
    /// old as this or older are misses, those that are there already too. `Duration::MAX`: nothing
    /// expires. `None`: each entry expires as it was to when it was stored. No system call.
    pub fn set_expiry(&self, expiry: impl Into<Option<Duration>>) {
        self.handle.expiry.set(ExpiryRule::new(expiry.into()));
    }

    /// The expiry of this handle.
    #[must_use]
    pub fn expiry(&self) -> Option<Duration> {
        self.handle.expiry.get().get()
    }

    /// Removes expired entries, as this handle judges them, and returns how many they were. (It writes
    /// nothing out: that is [`sync`](MmapCache::sync).) Their space comes back with
    /// [`compact`](MmapCache::compact). Reads the head of every record.
    ///
    /// # Errors
    /// As [`Table::insert`].
    #[doc(alias = "expire")]
    pub fn flush(&self) -> Result<u64> {
        self.with(0, |store| store.flush(self.handle.expiry.get()))
    }

    /// Removes all entries, of all functions and tables of this cache, at once and for all processes.
    /// Values that are held stay valid; computations under way are not stored. The space comes back
    /// with [`compact`](MmapCache::compact).
    ///
    /// # Errors
    /// As [`Table::insert`].
    pub fn clear(&self) -> Result<()> {
        self.with((), Store::clear)
    }

    /// Removes the file. Values that are held stay valid. Whoever uses the cache afterwards creates it
    /// anew.
    ///
    /// # Errors
    /// As [`Table::insert`].
    pub fn delete(&self) -> Result<()> {
        self.with((), Store::delete)
    }

    /// Rewrites the file with its live entries alone, as this handle judges expiry, and lets it take
    /// the old one's place. Readers and writers go on meanwhile, but for a moment at the end. Needs
    /// disk space for the live entries; the old file's comes back when nobody holds a value in it.
    ///
    /// Of a `#[cache]` function it keeps what the two versions of its code have that were last stored to,
    /// and the version that this process uses.
    ///
    /// # Errors
    /// [`Error::Busy`] if another process is at it; else as [`Table::insert`].
    pub fn compact(&self) -> Result<Compaction> {
        self.with(Compaction::default(), |store| store.compact(self.handle.expiry.get()))
    }

    /// Brings all that is stored to the device: what is there now survives a power cut. Without it,
    /// what a process stored survives the process, and the system writes it out in its own time. Also
    /// makes the first opening after a reboot quick.
    ///
    /// # Errors
    /// [`Error::Unsynced`] after one that failed: what the system could not write then it has forgotten, and
    /// no later sync of the same file would tell. [`compact`](MmapCache::compact) writes what can be read to
    /// a new one. Else as [`Table::insert`].
    pub fn sync(&self) -> Result<()> {
        self.with((), Store::sync)
    }

    /// Reads the whole file and says what is wrong with it. Changes nothing; damaged entries are misses
    /// in any case, and dropped by [`compact`](MmapCache::compact).
    ///
    /// Its memory does not grow with the file, and so its time does with what was removed: where the log has n keys
    /// that were flushed or cleared, it makes some n / 40,000 passes over the heads of the records.
    /// [`compact`](MmapCache::compact) drops such keys.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn verify(&self) -> Result<Verification> {
        self.with(Verification::default(), Store::verify)
    }

    /// Counts, of the file and of this process. Some system calls, no walk.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let storeless = Stats::of_process(&self.handle.storeless);
        match self.handle.store() {
            Some(store) => store.stats().with_calls_of(&storeless),
            None => storeless,
        }
    }

    /// The file's path; empty for a cache that is disabled or could not be opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.handle.store().map_or(Path::new(""), |store| &store.location.path)
    }

    /// The name that the cache was opened by, if it was.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.handle.name.as_deref()
    }

    /// Why this is not the cache that was asked for: a `#[cache]` function whose file cannot be mapped
    /// safely reads it by copy, and one whose file cannot be opened goes without. `None` for all others.
    ///
    /// Where the error [is transient](Error::is_transient), calls that miss try again to open the file: after
    /// a tenth of a second, then ever less often, up to once a minute. Any other error stays until an operation
    /// is asked for ([`clear`](MmapCache::clear), say, or [`Table::insert`]), which always tries. Once the cache
    /// is open, this is `None`, or says why it is read by copy.
    #[must_use]
    pub fn fault(&self) -> Option<&Error> {
        self.handle.fault()
    }

    fn with<T>(&self, disabled: T, work: impl FnOnce(&Store) -> Result<T>) -> Result<T> {
        match self.handle.demand()? {
            Some(store) => work(store),
            None => Ok(disabled),
        }
    }

    /// The cache, for a function that goes on whatever becomes of it: one that reads by copy, where the
    /// trouble is whom the place belongs to; else one that is opened later, if the trouble passes. That it takes
    /// a lock is no trouble for who takes none: it is opened by the next call.
    pub(crate) fn open_or_later(
        options: OpenOptions,
        place: Place,
        lock_wait: LockWait,
    ) -> MmapCache {
        let first = options.open_or_copy(&place, lock_wait);
        let may_put_off = matches!(lock_wait, LockWait::NoLock | LockWait::Later);
        let is_put_off = may_put_off && matches!(first, Err(Error::Locked { .. }));
        let name = match &place {
            Place::Named(name) => Some(name.clone()),
            Place::At(_) => None,
        };
        let unopened = Handle { name, ..options.handle(options.code_set().unwrap_or_default()) };
        let (store, late, fault) = match first {
            Ok(Opened { store, fault }) => (Some(store), None, fault),
            Err(error) => {
                let (there, at) = (options.clone(), place.clone());
                let glance = Box::new(move || there.glance(&at));
                let open = Box::new(move |lock_wait| options.open_or_copy(&place, lock_wait));
                let pause = if is_put_off { 0 } else { PAUSES.0 };
                (None, Some(Late::new(open, glance, error, pause)), None)
            }
        };
        let handle = Handle { store, late, fault, ..unopened };
        handle.fault().filter(|_| !is_put_off).inspect(|fault| handle.note(fault));
        MmapCache { handle: Arc::new(handle) }
    }
}

impl OpenOptions {
    /// Opens the cache of this name, and creates it if there is none. Any name will do; it is the
    /// file's name only in part.
    ///
    /// # Errors
    /// As [`MmapCache::open`].
    pub fn open(self, name: impl AsRef<str>) -> Result<MmapCache> {
        let name = name.as_ref().to_owned();
        self.finish(&Place::Named(name.clone()), Some(name))
    }

    /// Opens the cache in this file, and creates it if there is none, in a directory that exists.
    ///
    /// # Errors
    /// As [`MmapCache::open`].
    pub fn open_at(self, path: impl AsRef<Path>) -> Result<MmapCache> {
        self.finish(&Place::At(path.as_ref().to_path_buf()), None)
    }

    fn finish(&self, place: &Place, name: Option<String>) -> Result<MmapCache> {
        let store = Some(self.open_store(place, LockWait::Full)?);
        Ok(MmapCache { handle: Arc::new(Handle { store, name, ..self.handle(self.code_set()?) }) })
    }

    /// A handle as these options say, on nothing.
    fn handle(&self, code: Code) -> Handle {
        Handle {
            store: None,
            late: None,
            expiry: SharedExpiry::new(self.expiry_rule()),
            storeless: Totals::default(),
            name: None,
            claim_timeout: self.claim_timeout_set(),
            record_limit: self.record_limit_set(),
            code,
            fault: None,
        }
    }

    fn open_store(&self, place: &Place, lock_wait: LockWait) -> Result<Arc<Store>> {
        self.code_set()?; // What is opened without it would answer for other code.
        let location = self.location(self.locate(place)?);
        let store = match lock_wait {
            LockWait::Full => Store::open(location)?,
            LockWait::None => Store::open_until(location, &Deadline::after(Duration::ZERO))?,
            LockWait::NoLock => Store::open_until(location, &Deadline::without_locks())?,
            LockWait::Later => return Err(Deadline::without_locks().passed(&location.path)),
        };
        if let Place::Named(_) = place {
            store.keep_root();
        }
        Ok(store)
    }

    /// When a computation that begins now began, by the file that is there. Makes no root.
    fn glance(&self, place: &Place) -> Option<Token> {
        let options = self.clone().read_only(true);
        Store::glance(&options.location(options.locate(place).ok()?))
    }

    /// The store; else one that reads by copy, where the trouble is whom the place belongs to.
    fn open_or_copy(&self, place: &Place, lock_wait: LockWait) -> Result<Opened> {
        match self.open_store(place, lock_wait) {
            Ok(store) => Ok(Opened { store, fault: None }),
            Err(exposed @ Error::Exposed { .. }) => {
                let store = self.clone().copy_reads().open_store(place, lock_wait)?;
                Ok(Opened { store, fault: Some(exposed) })
            }
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for MmapCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expiry = self.expiry();
        f.debug_struct("MmapCache").field("path", &self.path()).field("expiry", &expiry).finish()
    }
}

/// Removes the expired entries of a named cache, as [`MmapCache::flush`] does: those as old as
/// `expiry`, or, given `None`, as they were to expire when they were stored. `0` if there is no such
/// cache.
///
/// # Errors
/// As [`MmapCache::open`] and [`MmapCache::flush`].
pub fn flush(name: impl AsRef<str>, expiry: impl Into<Option<Duration>>) -> Result<u64> {
    match OpenOptions::find(name.as_ref())? {
        Some(path) => MmapCache::options().expiry(expiry).open_at(path)?.flush(),
        None => Ok(0),
    }
}

/// Removes all entries of a named cache, if there is one, as [`MmapCache::clear`] does.
///
/// # Errors
/// As [`MmapCache::open`] and [`MmapCache::clear`].
pub fn clear(name: impl AsRef<str>) -> Result<()> {
    match OpenOptions::find(name.as_ref())? {
        Some(path) => MmapCache::open_at(path)?.clear(),
        None => Ok(()),
    }
}

/// Removes the file of a named cache, if there is one, as [`MmapCache::delete`] does.
///
/// # Errors
/// As [`MmapCache::open`] and [`MmapCache::delete`].
pub fn delete(name: impl AsRef<str>) -> Result<()> {
    match OpenOptions::find(name.as_ref())? {
        Some(path) => MmapCache::open_at(path)?.delete(),
        None => Ok(()),
    }
}
