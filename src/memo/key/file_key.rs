//! A file as a key: by what changes when its content does.

use super::{CacheKey, KeySchema, KeyWriter};
use std::ops::Deref;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{io, thread};

/// A file, as the argument of a function that reads it. A result is found for as long as the file is the same,
/// and is a miss once the file has changed.
///
/// A path alone says nothing of what is in the file. A `FileKey` is a path with the file's size, its times of change,
/// its device and its inode, as they were when the `FileKey` was made. It dereferences to the path.
///
/// Three changes are not seen: one that leaves the size and all times as they were, for which somebody has to set the
/// machine's clock back; one through a map, until the system notes it; and a second one within one tick
/// of a file system that keeps its times in whole seconds.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc").unwrap();
/// # let path = dir.path().join("text");
/// use persist_cache::FileKey;
///
/// let words = cache.memoize(|file: &FileKey| {
///     std::fs::read_to_string(file).unwrap_or_default().split_whitespace().count() as u64
/// });
/// std::fs::write(&path, "to be or not")?;
/// assert_eq!(*words.call(&FileKey::new(&path)?), 4);
/// std::fs::write(&path, "to be or not to be")?;
/// assert_eq!(*words.call(&FileKey::new(&path)?), 6);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileKey {
    path: PathBuf,
    size: u64,
    /// When the content changed, by whatever sets that: seconds and nanoseconds.
    modified: (i64, i64),
    /// When anything of the file changed, which only the system sets.
    changed: (i64, i64),
    device: u64,
    inode: u64,
}

/// Longer than the tick by which systems stamp files.
const TICK: Duration = Duration::from_millis(10);
/// How often a file that keeps changing is waited for: its content is then whatever one happens to read.
const TRIES: u32 = 5;

impl FileKey {
    /// Returns the file at `path` as it is now.
    ///
    /// # Errors
    /// If there is no such file, or the system refuses to tell.
    ///
    /// # Cost
    /// One system call and one allocation; the content is not read. For a file that changed a moment ago it blocks
    /// until the tick of the file system's clock is over, since a second change within it would leave the same times:
    /// 10 ms, or up to 50 ms if the file keeps changing.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("text");
    /// use persist_cache::FileKey;
    /// assert!(FileKey::new(&path).is_err());
    /// std::fs::write(&path, "to be")?;
    /// let before = FileKey::new(&path)?;
    /// std::fs::write(&path, "or not to be")?;
    /// assert_ne!(FileKey::new(&path)?, before);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new(path: impl AsRef<Path>) -> io::Result<FileKey> {
        let path = path.as_ref();
        let mut key = FileKey::now(path)?;
        for _ in 0..TRIES {
            let Some(left) = key.time_to_stable() else { break };
            thread::sleep(left);
            key = FileKey::now(path)?;
        }
        Ok(key)
    }

    /// How long another change could leave the same stamp.
    fn time_to_stable(&self) -> Option<Duration> {
        let (seconds, nanos) = self.changed;
        let changed = Duration::new(u64::try_from(seconds).ok()?, nanos as u32);
        let stable = SystemTime::UNIX_EPOCH + changed + TICK;
        let left = stable.duration_since(SystemTime::now()).ok()?;
        (!left.is_zero()).then_some(left.min(TICK))
    }

    fn now(path: &Path) -> io::Result<FileKey> {
        let data = std::fs::metadata(path)?;
        Ok(FileKey {
            path: path.to_path_buf(),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
            device: data.dev(),
            inode: data.ino(),
        })
    }

    /// Returns the file's path, as it was given.
    ///
    /// # Cost
    /// Free.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("text");
    /// std::fs::write(&path, "to be")?;
    /// assert_eq!(persist_cache::FileKey::new(&path)?.path(), path);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl CacheKey for FileKey {
    const SCHEMA: KeySchema = KeySchema::new("FileKey 1");

    fn feed(&self, key: &mut KeyWriter<'_>) {
        self.path.feed(key);
        (self.size, self.modified, self.changed).feed(key);
        (self.device, self.inode).feed(key);
    }
}

impl Deref for FileKey {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for FileKey {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}
