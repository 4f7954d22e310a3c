//! How a cache is opened: where its file lies, and what is asked of the place.

use crate::engine::file::expiry::ExpiryRule;
use crate::engine::file::open::Location;
use crate::engine::os::place::AccessMode;
use crate::error::{Error, Result};
use crate::memo::handle::Code;
use once_cell::race::OnceBox;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Options for opening a cache, from [`MmapCache::options`](crate::MmapCache::options).
///
/// Setting an option costs nothing but the copy of what is set: the file system is not looked at before
/// [`open`](OpenOptions::open) or [`open_at`](OpenOptions::open_at).
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use std::time::Duration;
/// let cache = persist_cache::MmapCache::options()
///     .root(dir.path())
///     .expiry(Duration::from_secs(3600))
///     .open("reports")?;
/// # Ok::<(), persist_cache::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "options open nothing by themselves: call `open` or `open_at`"]
pub struct OpenOptions {
    pub(super) root: Option<PathBuf>,
    expiry: Option<Duration>,
    pub(super) is_read_only: bool,
    pub(super) access: AccessMode,
    lock_timeout: Duration,
    pub(super) claim_timeout: Duration,
    pub(super) record_limit: u64,
    code: Code,
}

/// Which cache is opened.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// The one of this name, in the root.
    Named(String),
    /// The one in this file.
    At(PathBuf),
}

/// How long a call waits for another that computes the same result: most computations are over by
/// then, and a circle of waits that nobody could see ends.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(60);

/// How large a result may be: far larger than what is worth caching, and small enough that an iterator
/// without an end fills no disk.
pub(crate) const RECORD_LIMIT: u64 = 1 << 30;

/// How long a writer waits for others: far longer than any of them holds the lock, short enough for a
/// call that would rather compute.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

impl OpenOptions {
    pub(crate) const fn new() -> OpenOptions {
        OpenOptions {
            root: None,
            expiry: None,
            is_read_only: false,
            access: AccessMode::Checked,
            lock_timeout: LOCK_TIMEOUT,
            claim_timeout: CLAIM_TIMEOUT,
            record_limit: RECORD_LIMIT,
            code: Code::Own,
        }
    }

    /// Sets the directory of named caches. It is made if it is missing, and made anew if it is removed.
    ///
    /// By default that is `PERSIST_CACHE_DIR`, or `.persist_cache` in the working directory, as both were when this
    /// process first asked for it.
    ///
    /// The root must belong to this user, and nobody else may write in it. Each directory above it must belong to this
    /// user or to root, and be one in which nobody else can exchange names: not writable by others unless it is sticky,
    /// as `/tmp` is, or by a group of which this user is the only member. Anything else is an [`Error::Exposed`] of the
    /// opening. What a process of root's makes in another user's directory belongs to that user.
    ///
    /// # Cost
    /// Each directory on the way costs the opening four system calls.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// let cache = persist_cache::MmapCache::options().root(dir.path().join("caches")).open("sizes")?;
    /// assert!(cache.path().starts_with(dir.path().join("caches")));
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn root(mut self, root: impl AsRef<Path>) -> OpenOptions {
        self.root = Some(root.as_ref().to_path_buf());
        self
    }

    /// Sets the handle's expiry, as [`MmapCache::set_expiry`](crate::MmapCache::set_expiry) does. By default it is
    /// `None`: entries expire as the handles that stored them said.
    ///
    /// # Cost
    /// With an expiry, each hit reads the clock, without a system call.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use std::time::Duration;
    /// let month = Duration::from_secs(30 * 24 * 3600);
    /// let cache = persist_cache::MmapCache::options().root(dir.path()).expiry(month).open("sizes")?;
    /// assert_eq!(cache.expiry(), Some(month));
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn expiry(mut self, expiry: impl Into<Option<Duration>>) -> OpenOptions {
        self.expiry = expiry.into();
        self
    }

    /// Sets whether the cache is only read. Then nothing is written or locked, a file that is missing is an error, and
    /// memoised calls compute what is not stored and do not wait for each other.
    ///
    /// # Cost
    /// As a cache that is written. A file that would have to be verified first is walked over by each process, without
    /// the lock, for an index of its own in memory.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use persist_cache::{Error, MmapCache};
    /// let path = dir.path().join("sizes.pcache");
    /// assert!(MmapCache::options().read_only(true).open_at(&path).is_err());
    /// MmapCache::open_at(&path)?;
    /// let cache = MmapCache::options().read_only(true).open_at(&path)?;
    /// assert!(matches!(cache.clear(), Err(Error::ReadOnly { .. })));
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn read_only(mut self, is_read_only: bool) -> OpenOptions {
        self.is_read_only = is_read_only;
        self
    }

    /// Has the file read by copy instead of through a map, and each value verified each time.
    ///
    /// That is safe wherever the file lies and whoever can write it: nothing a stranger does to it is undefined
    /// behaviour or a signal.
    ///
    /// # Cost
    /// A hit costs some ten system calls, an allocation and a copy. A value larger than a MiB is read twice, since
    /// memory is taken for what is sound alone. A value larger than a GiB is a miss, and is not stored.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// let cache = persist_cache::MmapCache::options().root(dir.path()).copy_reads().open("sizes")?;
    /// let sizes = cache.table::<str, u64>("sizes");
    /// sizes.insert("a.txt", &17)?;
    /// assert_eq!(*sizes.get("a.txt")?.unwrap(), 17);
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn copy_reads(mut self) -> OpenOptions {
        self.access = AccessMode::Copied;
        self
    }

    /// Has the file mapped wherever it lies and whoever can write it.
    ///
    /// # Safety
    /// Whoever can write the file must keep to the format as this library does: change nothing below
    /// its tail, and never shorten it. The file system must keep maps of one file coherent, which
    /// network file systems do not between machines.
    ///
    /// # Cost
    /// As a cache that is checked.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// // SAFETY: nobody else can write in a directory that was made for this process.
    /// let options = unsafe { persist_cache::MmapCache::options().trust_writers() };
    /// let cache = options.root(dir.path()).open("sizes")?;
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[expect(unsafe_code, reason = "declares what the caller must vouch for")]
    pub unsafe fn trust_writers(mut self) -> OpenOptions {
        self.access = AccessMode::Trusted;
        self
    }

    /// Sets how long a writer waits for the file's lock before it gives up: two seconds by default.
    ///
    /// An operation that gives up returns [`Error::Locked`]; a memoised call returns its result all the same, and does
    /// not store it. Readers wait for nobody but where a file has to be opened that others create or verify.
    ///
    /// # Cost
    /// The lock is tried again and again, after pauses that grow from 20 microseconds to 2 milliseconds; between
    /// threads of this process it is handed on without a pause.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use std::time::Duration;
    /// let options = persist_cache::MmapCache::options().lock_timeout(Duration::from_millis(10));
    /// let cache = options.root(dir.path()).open("sizes")?;
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn lock_timeout(mut self, timeout: Duration) -> OpenOptions {
        self.lock_timeout = timeout;
        self
    }

    /// Sets how long a call that misses waits for another, in this process or any, that computes the same result,
    /// before it computes it too: a minute by default. With zero, calls never wait for each other.
    ///
    /// Calls within a computation never wait. The deadline is for a circle of waits that cannot be seen: a computation
    /// waits for another thread or task, and that calls for the same result. A pool of threads
    /// closes such a circle if the function uses the pool that it is called in. On Linux a waiting thread finds
    /// that out earlier, and computes the result itself: at once if no thread of the process can go on, else when
    /// the computing thread has waited for another one for some two seconds and for four times as long as this
    /// process knows the function to have taken. While it knows no such time, the deadline holds.
    ///
    /// # Cost
    /// With zero, a miss saves the claim of its key, some four system calls. A thread that waits for
    /// another process tries again after pauses of up to 10 milliseconds; one that waits for this process is woken.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use std::time::Duration;
    /// let options = persist_cache::MmapCache::options().claim_timeout(Duration::ZERO);
    /// let cache = options.root(dir.path()).open("sizes")?;
    /// assert_eq!(*cache.memoize(|n: &u64| n * n).call(&4), 16);
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn claim_timeout(mut self, timeout: Duration) -> OpenOptions {
        self.claim_timeout = timeout;
        self
    }

    /// Sets how many bytes one result may take in the file: 1 GiB by default.
    ///
    /// A larger one is returned and not stored, which [`Stats::store_errors`](crate::Stats::store_errors) counts. Of an
    /// iterator or a stream, whose items are written to a temporary file as they pass, recording ends there, and the
    /// items go on. Entries by hand give [`Error::OverLimit`]. The limit is the handle's: what others have stored is
    /// read whatever its size.
    ///
    /// # Cost
    /// A result is archived before its size is known.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use persist_cache::{Error, MmapCache};
    /// let cache = MmapCache::options().root(dir.path()).record_limit(1 << 20).open("small")?;
    /// let table = cache.table::<str, Vec<u8>>("bytes");
    /// let refused = table.insert("large", &vec![0; 2 << 20]);
    /// assert!(matches!(refused, Err(Error::OverLimit { limit: 1_048_576, .. })));
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn record_limit(mut self, bytes: u64) -> OpenOptions {
        self.record_limit = bytes;
        self
    }

    /// Sets what counts as a function's code: [`Code::Own`] by default.
    ///
    /// With [`Code::Program`] the program as built counts, beside what is known of the function itself. Then an edit of
    /// anything that is compiled into the program makes the entries misses, those of tables too. The environment
    /// variable `PERSIST_CACHE_CODE=program` says it for all caches of a process, whatever they are opened with.
    ///
    /// # Cost
    /// With [`Code::Program`], the first table or function of a process reads what the program was built as, with some
    /// thirty system calls. Calls cost what they cost without it.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use persist_cache::{Code, MmapCache};
    /// let cache = MmapCache::options().root(dir.path()).code(Code::Program).open("sizes")?;
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn code(mut self, code: Code) -> OpenOptions {
        self.code = code;
        self
    }

    pub(crate) fn code_set(&self) -> Result<Code> {
        Ok(if code_from_outside()? == Code::Program { Code::Program } else { self.code })
    }

    /// How the file at `path` is opened.
    pub(crate) fn location(&self, path: PathBuf) -> Location {
        Location {
            path,
            access: self.access,
            is_read_only: self.is_read_only,
            lock_timeout: self.lock_timeout,
        }
    }

    /// How the handle judges expiry.
    pub(crate) fn expiry_rule(&self) -> ExpiryRule {
        ExpiryRule::new(self.expiry)
    }
}

/// What the environment says of [`OpenOptions::code`]; the same for as long as the process lives.
fn code_from_outside() -> Result<Code> {
    const NAME: &str = "PERSIST_CACHE_CODE";
    static VALUE: OnceBox<OsString> = OnceBox::new();
    let value = VALUE.get_or_init(|| Box::new(std::env::var_os(NAME).unwrap_or_default()));
    code_by_name(value).ok_or_else(|| Error::Setting {
        name: NAME,
        found: value.to_string_lossy().into_owned(),
        expected: "`program` or `own`",
    })
}

fn code_by_name(name: &OsStr) -> Option<Code> {
    match name.to_str()? {
        "" | "own" => Some(Code::Own),
        "program" => Some(Code::Program),
        _ => None,
    }
}
