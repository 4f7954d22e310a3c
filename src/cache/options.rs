//! How a cache is opened: where its file lies, and what is asked of the place.

use crate::engine::file::expiry::ExpiryRule;
use crate::engine::file::open::Location;
use crate::engine::os::directory::make_root;
use crate::engine::os::place::AccessMode;
use crate::error::{Error, Result};
use crate::memo::handle::Code;
use once_cell::race::OnceBox;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Options for opening a cache, from [`MmapCache::options`](crate::MmapCache::options).
///
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
    root: Option<PathBuf>,
    expiry: Option<Duration>,
    is_read_only: bool,
    access: AccessMode,
    lock_timeout: Duration,
    claim_timeout: Duration,
    record_limit: u64,
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

    /// The directory of named caches, made if it is missing, and made anew if it is removed. By default
    /// `PERSIST_CACHE_DIR`, or `.persist_cache` in the working directory, resolved once per process.
    ///
    /// The root must belong to this user, and nobody else may write in it. Each directory above it must belong
    /// to this user or to root, and be one in which nobody else can exchange names: not writable by others
    /// unless it is sticky, as `/tmp` is, or by a group of which this user is the only member. Anything else is
    /// an [`Error::Exposed`]. What a process of root's makes in another user's directory belongs to that user.
    pub fn root(mut self, root: impl AsRef<Path>) -> OpenOptions {
        self.root = Some(root.as_ref().to_path_buf());
        self
    }

    /// The handle's expiry, as [`MmapCache::set_expiry`](crate::MmapCache::set_expiry) sets it.
    pub fn expiry(mut self, expiry: impl Into<Option<Duration>>) -> OpenOptions {
        self.expiry = expiry.into();
        self
    }

    /// Whether to read only: then nothing is written or locked, and a missing file is an error.
    pub fn read_only(mut self, is_read_only: bool) -> OpenOptions {
        self.is_read_only = is_read_only;
        self
    }

    /// Reads by copy instead of through a map, and verifies each time. Safe wherever the file lies and
    /// whoever can write it: nothing a stranger does to it is undefined behaviour or a signal. A hit
    /// costs some ten system calls and a copy; of a value larger than a MiB, reading it twice, since memory is
    /// taken for what is sound alone. A value larger than a GiB is a miss, and is not stored.
    pub fn copy_reads(mut self) -> OpenOptions {
        self.access = AccessMode::Copied;
        self
    }

    /// Maps the file wherever it lies and whoever can write it.
    ///
    /// # Safety
    /// Whoever can write the file must keep to the format as this library does: change nothing below
    /// its tail, and never shorten it. The file system must keep maps of one file coherent, which
    /// network file systems do not between machines.
    #[expect(unsafe_code, reason = "declares what the caller must vouch for")]
    pub unsafe fn trust_writers(mut self) -> OpenOptions {
        self.access = AccessMode::Trusted;
        self
    }

    /// How long a writer waits for the lock before it gives up: two seconds by default. Readers never
    /// wait.
    pub fn lock_timeout(mut self, timeout: Duration) -> OpenOptions {
        self.lock_timeout = timeout;
        self
    }

    /// How long a call that misses waits for another, in this process or any, that computes the same
    /// result, before it computes it too: a minute by default. Zero: calls never wait for each other.
    ///
    /// Calls within a computation never wait. The deadline is for a circle of waits that cannot be seen: a
    /// computation waits for another thread or task, and that calls for the same result. A pool of threads
    /// closes such a circle if the function uses the pool that it is called in. On Linux a waiting thread finds
    /// that out earlier, and computes the result itself: at once if no thread of the process can go on, else when
    /// the computing thread has waited for another one for some two seconds and for four times as long as this
    /// process knows the function to have taken. While it knows no such time, the deadline holds.
    pub fn claim_timeout(mut self, timeout: Duration) -> OpenOptions {
        self.claim_timeout = timeout;
        self
    }

    /// How many bytes one result may take in the file: 1 GiB by default. A larger one is returned and not
    /// stored, which [`Stats::store_errors`](crate::Stats::store_errors) counts; of an iterator or a stream,
    /// whose items are spooled as they pass, recording ends there, and the items go on. Entries by hand give
    /// [`Error::OverLimit`]. It is the handle's: what others have stored is read whatever its size.
    ///
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

    /// What counts as a function's code: with [`Code::Program`] the program as built does, beside what is
    /// known of the function itself. Then an edit of anything that is compiled into the program makes
    /// misses of the entries, those of tables too. The environment variable `PERSIST_CACHE_CODE=program`
    /// says it for all caches of a process, whatever they are opened with.
    pub fn code(mut self, code: Code) -> OpenOptions {
        self.code = code;
        self
    }

    pub(crate) fn code_set(&self) -> Result<Code> {
        Ok(if code_from_outside()? == Code::Program { Code::Program } else { self.code })
    }

    /// Where a cache lies; makes the root of a named one.
    pub(crate) fn locate(&self, place: &Place) -> Result<PathBuf> {
        let name = match place {
            Place::Named(name) => name,
            Place::At(path) => return std::path::absolute(path).map_err(Error::io("find", path)),
        };
        let root = match &self.root {
            Some(root) => std::path::absolute(root).map_err(Error::io("find", root))?,
            None => default_root()?,
        };
        if !self.is_read_only {
            make_root(&root, self.access == AccessMode::Checked)?;
        }
        Ok(root.join(file_name(name)))
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

    pub(crate) fn claim_timeout_set(&self) -> Duration {
        self.claim_timeout
    }
    pub(crate) fn record_limit_set(&self) -> u64 {
        self.record_limit
    }

    /// How the handle judges expiry.
    pub(crate) fn expiry_rule(&self) -> ExpiryRule {
        ExpiryRule::new(self.expiry)
    }

    /// The file of a named cache, if it is there.
    pub(crate) fn find(name: &str) -> Result<Option<PathBuf>> {
        let path = default_root()?.join(file_name(name));
        let is_there = path.try_exists().map_err(Error::io("look at", &path))?;
        Ok(is_there.then_some(path))
    }
}

/// Where named caches lie; the same for as long as the process lives, wherever it goes.
fn default_root() -> Result<PathBuf> {
    static ROOT: OnceBox<PathBuf> = OnceBox::new();
    if let Some(root) = ROOT.get() {
        return Ok(root.clone());
    }
    let root = match std::env::var_os("PERSIST_CACHE_DIR").filter(|dir| !dir.is_empty()) {
        Some(root) => PathBuf::from(root),
        None => PathBuf::from(".persist_cache"),
    };
    let root = std::path::absolute(&root).map_err(Error::io("find", &root))?;
    Ok(ROOT.get_or_init(|| Box::new(root.clone())).clone())
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

/// The file of a cache: what can be kept of its name for people to see, and a hash to tell any two
/// names apart. It begins with a letter or digit.
fn file_name(name: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let slug: String = name.chars().take(40).map(keep).collect();
    let hash = blake3::hash(name.as_bytes()).to_hex();
    match slug.trim_matches('-') {
        "" => format!("{}.pcache", &hash[..24]),
        slug => format!("{slug}-{}.pcache", &hash[..24]),
    }
}

#[cfg(test)]
mod tests {
    use super::file_name;
    use std::collections::HashSet;
    use std::path::Path;

    #[test]
    fn any_name_is_one_file_inside_the_root() {
        let long = "x".repeat(1000);
        let names = [
            "",
            ".",
            "..",
            "/",
            "../../etc",
            "a/b",
            "a-b",
            "A-B",
            "ünïcödé",
            "\0",
            "-rf",
            "ü",
            &long,
        ];
        let files: HashSet<String> = names.iter().map(|name| file_name(name)).collect();
        assert_eq!(files.len(), names.len());
        for file in files {
            assert_eq!(Path::new("/root").join(&file).parent(), Some(Path::new("/root")));
            assert!(file.len() < 100, "{file}");
            // Else a command that is given the files of a directory takes one for an option.
            assert!(file.starts_with(|c: char| c.is_ascii_alphanumeric()), "{file}");
        }
    }
}
