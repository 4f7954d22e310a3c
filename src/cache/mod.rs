//! The cache as its users hold it: which file it is, how it is opened, what is memoised in it, and its upkeep.
//!
//! It stands on `memo`, whose `Handle` is all that a cache is made of, and on the operations of the engine's `Store`.
//! No bytes of a file are known here, and no way of a call. `#[cache]` functions open their caches through it; what
//! they do beside that is `attribute`'s.
//!
//! What a user can do with a cache is public here, file by file: options, opening, memoising, upkeep. It could be the
//! store's own interface, but then the engine would have to know names, roots and types.

// In reading order: each stands on those above it.
pub(crate) mod options;
mod place;
mod open;
mod memoize;
pub(crate) mod upkeep;

use crate::engine::file::expiry::ExpiryRule;
use crate::error::Error;
use crate::memo::handle::Handle;
use crate::memo::scope::Name;
use crate::memo::table::Table;
use crate::{CacheKey, CacheValue};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A handle on a persistent cache: one file, shared by all processes of this user on this machine.
///
/// A handle is `Send` and `Sync`. A clone costs one atomic increment and shares the handle's expiry. A cache that
/// is opened twice in a process has two handles, each with an expiry of its own, on one mapped file.
///
/// Operations on the file as a whole stand here; results are read and written through what
/// [`memoize`](MmapCache::memoize) and its like return, and through [`Table`]s. All operations that change
/// the file take its lock, which is one for all processes, and wait for it up to
/// [`OpenOptions::lock_timeout`](crate::OpenOptions::lock_timeout). No operation that reads takes it. None of the
/// operations is async: in async code, run those that take the lock where blocking is allowed.
///
/// # Examples
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
    /// Returns a typed, named part of the cache, for entries by hand.
    ///
    /// Tables of one name and with the same types are one table, in all processes, and share their entries with what
    /// is memoised under that name ([`memoize_as`](MmapCache::memoize_as)).
    ///
    /// # Cost
    /// Allocates, and hashes the name and the types' shape. It does not touch the file. Keep the table where it is used
    /// often. A value type of your own without a [`Schema`](crate::Schema) belongs to the program as built: the first
    /// such table of a process reads what that is, with some thirty system calls.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// let sizes = cache.table::<str, u64>("sizes");
    /// sizes.insert("a.txt", &17)?;
    /// assert_eq!(*cache.table::<str, u64>("sizes").get("a.txt")?.unwrap(), 17);
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[must_use]
    pub fn table<K: CacheKey + ?Sized, V: CacheValue>(&self, name: &str) -> Table<K, V> {
        Table::new(&self.handle, Name::Given(name.to_owned()))
    }

    /// Sets the expiry of this handle, of its clones, and of what was memoised from them.
    ///
    /// Entries as old as this or older are misses from now on, those that are there already too. `Duration::MAX`: no
    /// entry expires. `None`, the default: each entry expires as the handle that stored it said. An expired entry keeps
    /// its space until [`flush`](MmapCache::flush) or [`compact`](MmapCache::compact).
    ///
    /// # Cost
    /// One store to memory. With an expiry, each hit reads the clock, without a system call.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// use std::time::Duration;
    /// let square = cache.memoize(|n: &u64| n * n);
    /// square.call(&4);
    /// cache.set_expiry(Duration::ZERO);
    /// assert!(square.peek(&4).is_none());
    /// cache.set_expiry(Duration::MAX);
    /// assert!(square.peek(&4).is_some());
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn set_expiry(&self, expiry: impl Into<Option<Duration>>) {
        self.handle.expiry.set(ExpiryRule::new(expiry.into()));
    }

    /// Returns the expiry of this handle, as [`set_expiry`](MmapCache::set_expiry) or
    /// [`OpenOptions::expiry`](crate::OpenOptions::expiry) set it.
    ///
    /// # Cost
    /// One load from memory.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// assert_eq!(cache.expiry(), None);
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[must_use]
    pub fn expiry(&self) -> Option<Duration> {
        self.handle.expiry.get().get()
    }

    /// Returns the file's path; an empty one for a cache that is disabled or could not be opened.
    ///
    /// # Cost
    /// Free.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// assert!(cache.path().starts_with(dir.path()));
    /// assert_eq!(persist_cache::MmapCache::disabled().path().as_os_str(), "");
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[must_use]
    pub fn path(&self) -> &Path {
        self.handle.store().map_or(Path::new(""), |store| &store.location.path)
    }

    /// Returns the name that the cache was opened by; `None` if it was opened by a path.
    ///
    /// # Cost
    /// Free.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// assert_eq!(cache.name(), Some("doc"));
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.handle.name.as_deref()
    }

    /// Returns why this is not the cache that was asked for; `None` for every cache that [`open`](MmapCache::open)
    /// or its like returned.
    ///
    /// A `#[cache]` function goes on whatever becomes of its cache. If its file cannot be mapped safely, the function
    /// reads it by copy; if the file cannot be opened, the function goes without. This says so of the handle that the
    /// function's companion gives, `f::cache()`.
    ///
    /// Where the error [is transient](Error::is_transient), calls that miss try again to open the file: after
    /// a tenth of a second, then ever less often, up to once a minute. Any other error stays until an operation
    /// is asked for ([`clear`](MmapCache::clear), say, or [`Table::insert`]), which always tries. Once the cache
    /// is open, this is `None`, or says why it is read by copy.
    ///
    /// # Cost
    /// Free. It does not try to open the file.
    ///
    /// # Examples
    /// ```
    /// use persist_cache::{Error, cache};
    ///
    /// #[cache(path = "/no/such/directory/file.pcache")]
    /// fn double(n: u64) -> u64 { 2 * n }
    ///
    /// assert_eq!(double(4), 8);
    /// assert!(double::cache().fault().is_some_and(Error::is_transient));
    /// ```
    #[must_use]
    pub fn fault(&self) -> Option<&Error> {
        self.handle.fault()
    }
}

impl fmt::Debug for MmapCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expiry = self.expiry();
        f.debug_struct("MmapCache").field("path", &self.path()).field("expiry", &expiry).finish()
    }
}
