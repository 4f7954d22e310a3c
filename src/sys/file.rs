//! A cache's file as a file: lock, space, bytes by copy, durability. Its words by `pread` and
//! `pwrite` make it a [`Medium`] of its own, slow and safe anywhere: `copy_reads`.

use super::Words;
use crate::format::FILE_LIMIT;
use crate::format::header::Home;
use crate::format::record::{HEAD_SIZE, HeadBytes};
use fs4::{FileExt as Lockable, TryLockError};
use rustix::fs::FallocateFlags;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// A file through which a cache is written: its words, and the space behind the tail.
pub(crate) trait Medium: Words {
    /// The file itself: its lock, its size, its space, and its bytes by copy.
    fn file(&self) -> &CacheFile;
    /// A copy of the head of a published record of a kind that never changes; unverified.
    fn head(&self, offset: u64) -> Option<HeadBytes>;
    /// The end of what can be addressed.
    fn reach(&self) -> u64;
    /// Copies `bytes` to where nothing is published yet.
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
}

/// An open file and where it was opened.
#[derive(Debug)]
pub(crate) struct CacheFile {
    file: File,
    path: PathBuf,
    writable: bool,
    /// Whether allocated space is sure to take every later store: if not, a store into a map could
    /// end in SIGBUS, and bytes go through `pwrite`.
    binding: AtomicBool,
}

impl CacheFile {
    pub(crate) fn new(file: File, path: &Path, writable: bool, binding: bool) -> CacheFile {
        CacheFile { file, path: path.to_path_buf(), writable, binding: AtomicBool::new(binding) }
    }

    pub(crate) fn inner(&self) -> &File {
        &self.file
    }
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }
    pub(crate) fn is_binding(&self) -> bool {
        // Relaxed: a hint about the file system, not about any byte.
        self.binding.load(Ordering::Relaxed)
    }

    /// Takes the lock that serialises writers, if nobody has it. It goes with its holder.
    pub(crate) fn try_lock(&self) -> io::Result<bool> {
        loop {
            match Lockable::try_lock(&self.file) {
                Ok(()) => return Ok(true),
                Err(TryLockError::WouldBlock) => return Ok(false),
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    pub(crate) fn unlock(&self) {
        // The lock ends with the descriptor in any case; there is nothing to do about a failure.
        let _ = Lockable::unlock(&self.file);
    }

    /// The file's size in bytes.
    pub(crate) fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Device and inode: which file this is, for as long as it is open.
    pub(crate) fn identity(&self) -> io::Result<(u64, u64)> {
        let data = self.file.metadata()?;
        Ok((data.dev(), data.ino()))
    }

    /// Where the file lives now; `None` where the system does not tell, and no file is at home.
    pub(crate) fn home(&self) -> Option<Home> {
        let (device, inode) = self.identity().ok()?;
        Some(Home { boot_id: super::place::boot_id()?, device, inode, born: born(&self.file) })
    }

    /// Fills `buffer` from `at`; fails if the file ends before.
    pub(crate) fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, at)
    }

    /// Writes by system call: for bytes that are not published, or are at rest under the lock.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    /// Gives the bytes from `from` to `to` their disk space, so that a full disk is an error here
    /// and not a signal later.
    pub(crate) fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
        if limit.is_some_and(|limit| to > limit) {
            // Going past it would be a signal, SIGXFSZ, and not an error.
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        match retry(|| rustix::fs::fallocate(&self.file, FallocateFlags::empty(), from, to - from))
        {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                self.binding.store(false, Ordering::Relaxed);
            }
            Err(error) => return Err(error),
        }
        // Not everywhere does allocation move the end of the file.
        if self.size()? < to { self.file.set_len(to) } else { Ok(()) }
    }

    /// Gives the disk space of a range back; it reads as zeros. Where the system cannot, the space comes
    /// back with the next compaction.
    pub(crate) fn punch(&self, from: u64, to: u64) {
        #[cfg(target_os = "linux")]
        {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let _ = retry(|| rustix::fs::fallocate(&self.file, flags, from, to - from));
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (from, to);
    }

    /// Makes a range read as zeros that may hold the bytes of a writer who was killed. It keeps its disk
    /// space.
    pub(crate) fn zero(&self, from: u64, to: u64) -> io::Result<()> {
        let zeros = [0; 1 << 16];
        let mut at = from;
        while at < to {
            let size = (to - at).min(zeros.len() as u64);
            self.write(at, &zeros[..size as usize])?;
            at += size;
        }
        Ok(())
    }

    /// Ends the sharing of blocks with a copy (`cp --reflink`), which would break [`allocate`]'s
    /// promise for the pages written in place.
    ///
    /// [`allocate`]: CacheFile::allocate
    pub(crate) fn unshare(&self) {
        #[cfg(target_os = "linux")]
        if let Ok(size) = self.size() {
            let _ = retry(|| {
                rustix::fs::fallocate(&self.file, FallocateFlags::UNSHARE_RANGE, 0, size.max(1))
            });
        }
    }

    /// Brings all that was written, through maps too, to the device.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

/// When the inode was made, in nanoseconds since 1970; zero where the file system does not keep it.
fn born(file: &File) -> u64 {
    let Ok(created) = file.metadata().and_then(|data| data.created()) else { return 0 };
    let since = created.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() as u64
}

impl Words for CacheFile {
    fn load(&self, at: u64) -> u64 {
        // A word that cannot be read is zero: an empty slot, no state, a seal that does not hold.
        let mut word = [0; 8];
        match self.read(at, &mut word) {
            Ok(()) => u64::from_le_bytes(word),
            Err(_) => 0,
        }
    }
    fn store(&self, at: u64, value: u64) -> io::Result<()> {
        CacheFile::write(self, at, &value.to_le_bytes())
    }
}

impl Medium for CacheFile {
    fn file(&self) -> &CacheFile {
        self
    }
    fn head(&self, offset: u64) -> Option<HeadBytes> {
        let mut head = [0; HEAD_SIZE as usize];
        self.read(offset, &mut head).ok()?;
        Some(head)
    }
    fn reach(&self) -> u64 {
        FILE_LIMIT
    }
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        CacheFile::write(self, at, bytes)
    }
}
