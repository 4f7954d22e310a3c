//! From options to a handle: at once, or as soon as the file can be opened.

use super::MmapCache;
use super::options::{OpenOptions, Place};
use crate::engine::file::deadline::Deadline;
use crate::engine::file::expiry::SharedExpiry;
use crate::engine::store::pin::Totals;
use crate::engine::store::{Store, Token};
use crate::error::{Error, Result};
use crate::memo::handle::{Code, Handle, Late, LockWait, Opened, PAUSES};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// # Opening
impl MmapCache {
    /// Opens the cache of this name in the default root, and creates it if there is none.
    ///
    /// Any name will do. The default root is `PERSIST_CACHE_DIR`, or `.persist_cache` in the working directory; see
    /// [`OpenOptions::root`]. To be told where the file is, ask for its [`path`](MmapCache::path).
    ///
    /// # Errors
    /// - [`Error::NotACache`], [`Error::Incompatible`] or [`Error::Damaged`] if the file is something else,
    /// - [`Error::Exposed`] if it lies where others could change it,
    /// - [`Error::Locked`] if others had the lock until the deadline,
    /// - [`Error::Setting`] if the environment has a value that is none,
    /// - [`Error::Io`] if the system refuses.
    ///
    /// Each says how to go on, and leaves the file as it is.
    ///
    /// # Cost
    /// Thirty to fifty system calls and four for each directory on the way, whatever the size of the cache. If this
    /// process has the cache open, one system call. The first opening in a process starts a thread.
    ///
    /// It waits in three cases, each up to [`OpenOptions::lock_timeout`] for others:
    /// - Whoever creates the file waits for the device once, so that a power cut leaves no half-made file. Others
    ///   that open it meanwhile wait for that.
    /// - The first opening after a reboot, or of a copied file, verifies the file under its lock: all that was
    ///   stored since the last [`sync`](MmapCache::sync) or [`compact`](MmapCache::compact) is read.
    /// - Others that open it meanwhile wait for that.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # // SAFETY: no other thread runs.
    /// # unsafe { std::env::set_var("PERSIST_CACHE_DIR", dir.path()) };
    /// let cache = persist_cache::MmapCache::open("reports")?; // $PERSIST_CACHE_DIR/reports-...pcache
    /// assert_eq!(cache.name(), Some("reports"));
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn open(name: impl AsRef<str>) -> Result<MmapCache> {
        MmapCache::options().open(name)
    }

    /// Opens the cache in this file, and creates it if there is none. The file's directory must exist.
    ///
    /// # Errors
    /// As [`open`](MmapCache::open).
    ///
    /// # Cost
    /// As [`open`](MmapCache::open).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// let cache = persist_cache::MmapCache::open_at(dir.path().join("reports.pcache"))?;
    /// assert_eq!(cache.name(), None);
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn open_at(path: impl AsRef<Path>) -> Result<MmapCache> {
        MmapCache::options().open_at(path)
    }

    /// Returns the options for opening a cache, at their defaults.
    ///
    /// # Cost
    /// Free: they allocate nothing, and nothing is opened.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// let cache = persist_cache::MmapCache::options().root(dir.path()).open("reports")?;
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub const fn options() -> OpenOptions {
        OpenOptions::new()
    }

    /// Returns a cache that always misses and stores nothing: for switching caching off.
    ///
    /// Its operations succeed and do nothing.
    ///
    /// # Cost
    /// One allocation. There is no file and no lock; calls that miss at once do not wait for each other.
    ///
    /// # Examples
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
}

impl OpenOptions {
    /// Opens the cache of this name in the root, and creates it if there is none.
    ///
    /// Any name will do: the file's name is made of what can be kept of it, and a hash.
    ///
    /// # Errors
    /// As [`MmapCache::open`].
    ///
    /// # Cost
    /// As [`MmapCache::open`]; where the root is missing, it is made.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// let cache = persist_cache::MmapCache::options().root(dir.path()).open("reports of May")?;
    /// assert!(cache.path().to_string_lossy().contains("reports-of-may"));
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn open(self, name: impl AsRef<str>) -> Result<MmapCache> {
        let name = name.as_ref().to_owned();
        self.finish(&Place::Named(name.clone()), Some(name))
    }

    /// Opens the cache in this file, and creates it if there is none. The file's directory must exist.
    ///
    /// # Errors
    /// As [`MmapCache::open`].
    ///
    /// # Cost
    /// As [`MmapCache::open`].
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// let path = dir.path().join("reports.pcache");
    /// let cache = persist_cache::MmapCache::options().open_at(&path)?;
    /// assert_eq!(cache.path(), path);
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
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
            claim_timeout: self.claim_timeout,
            record_limit: self.record_limit,
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

impl MmapCache {
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
