//! What can go wrong, as plain values: which file, what was found, what was expected, and how to go on. It stands on
//! nothing of the crate. A memoised call never returns an error of the cache's: it computes, and counts the error
//! in [`Stats::store_errors`](crate::Stats).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The result of an operation on a cache.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
/// fn size_of(cache: &persist_cache::MmapCache, name: &str) -> persist_cache::Result<Option<u64>> {
///     let size = cache.table::<str, u64>("sizes").get(name)?;
///     Ok(size.map(|size| size.to_native()))
/// }
/// assert_eq!(size_of(&cache, "a.txt")?, None);
/// # Ok::<(), persist_cache::Error>(())
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on a cache failed.
///
/// Every variant names the file, or what else it is about, and its message says how to go on. Memoised calls return
/// none of these: they compute.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use persist_cache::{Error, MmapCache};
/// let path = dir.path().join("notes.txt");
/// std::fs::write(&path, "to be or not to be")?;
/// let Err(error) = MmapCache::open_at(&path) else { panic!() };
/// assert!(matches!(error, Error::NotACache { .. }) && !error.is_transient());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed, or there was no memory or disk space for what it was to do.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb: "open", "grow", ...
        action: &'static str,
        /// The file or directory it was done to.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The file is no cache. It was left as it is.
    #[error("{} is not a cache file: it begins with {found}; choose another path", path.display())]
    NotACache {
        /// The file.
        path: PathBuf,
        /// Its first bytes, in hexadecimal.
        found: String,
    },
    /// The file was written in a newer format, or for another byte order or another width of rkyv's
    /// pointers. It was left as it is.
    #[error(
        "{} has {what} {found}, this program needs {expected}; \
         use another name or root for this program, or delete the file", path.display()
    )]
    Incompatible {
        /// The file.
        path: PathBuf,
        /// Which of its properties does not fit.
        what: &'static str,
        /// Its value in the file.
        found: u64,
        /// The value that this program reads and writes.
        expected: u64,
    },
    /// A part of the file without which no entry can be read fails its check. (A damaged entry is a miss, and no
    /// error.)
    #[error(
        "{} is damaged: {what}; delete the file, the cache fills again", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The part that failed.
        what: &'static str,
    },
    /// Someone other than this user could change the file under its readers, or exchange it.
    #[error(
        "{} {exposure}; mend that, choose another root (PERSIST_CACHE_DIR), read through \
         OpenOptions::copy_reads, or vouch for the writers with OpenOptions::trust_writers",
        path.display()
    )]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// In which way.
        exposure: Exposure,
    },
    /// Another process or thread held the file's lock until the deadline.
    #[error(
        "{} is locked by another writer for more than {waited:?}; is a process stopped while it \
         writes? OpenOptions::lock_timeout sets the deadline", path.display()
    )]
    Locked {
        /// The file.
        path: PathBuf,
        /// How long this operation waited.
        waited: Duration,
    },
    /// Another process is compacting or replacing the file. Nothing was changed.
    #[error("{} is being rewritten by another process; try again later", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A sync of the file has failed, now or before. What was stored since the last sync that succeeded may be
    /// missing after a power cut, and the system does not tell what.
    #[error(
        "{} could not be brought to the device; MmapCache::compact brings what can be read to a new \
         file", path.display()
    )]
    Unsynced {
        /// The file.
        path: PathBuf,
    },
    /// The cache was opened with [`OpenOptions::read_only`](crate::OpenOptions::read_only), or the system does not
    /// allow this process to write the file.
    #[error("{} is read-only; open it from where it can be written", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// An environment variable that this library reads has a value that it does not know.
    #[error("the environment variable {name} is `{found}`; set it to {expected}, or unset it")]
    Setting {
        /// The variable.
        name: &'static str,
        /// Its value.
        found: String,
        /// The values that it may have.
        expected: &'static str,
    },
    /// The cache is disabled, so that there is no file. No operation returns this today: those of a disabled cache
    /// succeed and do nothing.
    #[error("the cache is disabled; open one with MmapCache::open")]
    Disabled,
    /// Others replaced the file again and again while it was opened.
    #[error("{} was replaced again and again while it was opened; try again", path.display())]
    Unstable {
        /// The file.
        path: PathBuf,
    },
    /// The value, the file or the index would be larger than the format allows, or than can be read by copy.
    #[error("{what} would take {size} bytes, and {limit} is the limit; store less at once")]
    TooLarge {
        /// What grows too large.
        what: &'static str,
        /// The size asked for, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// A value is larger than [`OpenOptions::record_limit`](crate::OpenOptions::record_limit) allows.
    #[error(
        "a result of {size} bytes or more is over the limit of {limit}; OpenOptions::record_limit sets it"
    )]
    OverLimit {
        /// Its size in bytes; of items, of as many as had come.
        size: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The archive of a value does not pass rkyv's validation, so that nobody could read it. It was not stored. Either
    /// more pointers than `depth_max` lie one within another, or the type's own implementation of `Archive` or
    /// `Serialize` archives what is no value of the type.
    #[error(
        "the archive of this value is not valid: {source}; nest no more than {depth_max} pointers within \
         each other, or mend the rkyv implementation of its type"
    )]
    Invalid {
        /// How many pointers may lie one within another.
        depth_max: usize,
        /// rkyv's reason.
        source: rkyv::rancor::BoxedError,
    },
    /// rkyv could not archive a value, or could not bring an archived one back.
    #[error("rkyv cannot convert this value: {source}")]
    Convert {
        /// rkyv's reason.
        source: rkyv::rancor::BoxedError,
    },
}

/// How someone other than this user could change a file, in an [`Error::Exposed`].
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use persist_cache::{Error, Exposure, MmapCache};
/// let path = dir.path().join("link.pcache");
/// std::os::unix::fs::symlink("elsewhere.pcache", &path)?;
/// let Err(error) = MmapCache::open_at(&path) else { panic!() };
/// assert!(matches!(error, Error::Exposed { exposure: Exposure::Symlink, .. }));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Exposure {
    /// It is a symbolic link.
    #[error("is a symbolic link")]
    Symlink,
    /// It is no regular file.
    #[error("is not a regular file")]
    NotAFile,
    /// It has more than one name.
    #[error("has {0} hard links, so another program may hold it under another name")]
    HardLinks(u64),
    /// It belongs to another user.
    #[error("belongs to user {owner}, this process runs as user {user}")]
    ForeignOwner {
        /// Who owns it.
        owner: u32,
        /// The effective user of this process.
        user: u32,
    },
    /// Its mode lets others write.
    #[error("can be written by others (mode {0:03o}; chmod go-w)")]
    WritableByOthers(u32),
    /// It lies on a network file system, or on one not known to be local.
    #[error("lies on a file system not known to be local (type {0:#x}), where maps are not shared")]
    NotLocal(u64),
}

impl Error {
    /// Returns whether the same operation may succeed later without anyone doing something about this cache.
    ///
    /// A lock is given back, a disk is emptied, descriptors are closed, a directory is made. A file that is
    /// no cache, is of another format, damaged, or open to others stays so until somebody changes it.
    ///
    /// # Cost
    /// Free.
    ///
    /// # Examples
    /// ```
    /// let error = persist_cache::Error::Busy { path: "reports.pcache".into() };
    /// assert!(error.is_transient());
    /// assert!(!persist_cache::Error::Disabled.is_transient());
    /// ```
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Io { .. }
            | Error::Locked { .. }
            | Error::Busy { .. }
            | Error::Unstable { .. }
            | Error::ReadOnly { .. } => true,
            Error::NotACache { .. }
            | Error::Incompatible { .. }
            | Error::Damaged { .. }
            | Error::Exposed { .. }
            | Error::Unsynced { .. }
            | Error::Disabled
            | Error::TooLarge { .. }
            | Error::OverLimit { .. }
            | Error::Invalid { .. }
            | Error::Setting { .. }
            | Error::Convert { .. } => false,
        }
    }

    /// For `map_err`: an [`Error::Io`] with its action and path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { action, path: path.to_path_buf(), source }
    }
}
