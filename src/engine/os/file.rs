//! A cache's file as a file: lock, space, bytes by copy, durability. Its words by `pread` and `pwrite` make it a
//! [`Storage`] of its own, slow and safe anywhere: `copy_reads`.
//!
//! The two storages, this one and [`MappedFile`](super::map::MappedFile), differ in what can fail, and how:
//!
//! | | a word | bytes behind the tail | a full disk | a file that was cut |
//! | --- | --- | --- | --- | --- |
//! | by system calls | one `pread` or `pwrite` | `pwrite` | an error of the write | an error of the read |
//! | in a map | one load or store | a copy | an error of `allocate` before | a signal, where others may cut it |
//!
//! A file's lock is that of its open file description (fs4): it ends with the process, however that ends, and is
//! inherited by a forked child, which is why no child uses a file of its parent's.

use super::effect::{Effect, precede};
use super::{Words, volume};
use crate::engine::format::header::{Provenance, word};
use crate::engine::format::record::{HEAD_SIZE, HeadBytes, Kind};
use crate::engine::format::{ALIGNMENT, FILE_LIMIT, HEADER_SIZE, WORD_MASK};
use fs4::{FileExt as Lockable, TryLockError};
use rustix::fs::{FallocateFlags, SeekFrom};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Mutex, PoisonError};

/// Where a cache's bytes are: its words, its bytes by copy, and the space behind the tail.
pub(crate) trait Storage: Words {
    /// Where it was opened, for errors.
    fn path(&self) -> &Path;
    /// Its size in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Fills `buffer` from `at`; fails if the file ends before.
    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// How long the payload of the record at `offset` is, whatever its head says, if it ends below the tail
    /// and never changes.
    fn extent(&self, offset: u64) -> Option<u64> {
        extent(self, FILE_LIMIT, offset)
    }
    /// A copy of the head of a published record of a kind that never changes; unverified.
    fn head(&self, offset: u64) -> Option<HeadBytes>;
    /// Copies `bytes` to where nothing is published yet.
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Writes `bytes` anywhere: what is at rest under the lock, or has no readers yet.
    fn overwrite(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Gives the bytes from `from` to `to` their disk space, so that a full disk is an error here
    /// and not a signal later.
    fn allocate(&self, from: u64, to: u64) -> io::Result<()>;
    /// Gives the disk space of a range back; it reads as zeros. Where the system cannot, or a reader who
    /// still looks there would need the space again, it comes back with the next compaction.
    fn punch(&self, from: u64, to: u64);
    /// Where the next bytes lie that were ever written, from `at` on; `None` if there are none. A file may
    /// be far longer than what is in it.
    fn next_data(&self, at: u64) -> io::Result<Option<u64>>;
    /// Makes a range read as zeros, and writes no more than what does not. Where the file system tells holes, no
    /// more is read than what was ever written, and what the system read ahead of that.
    fn erase(&self, from: u64, to: u64) -> io::Result<()>;
    /// Brings all that was written, through maps too, to the device.
    fn sync(&self) -> io::Result<()>;
    /// Gives the file this length. For a file that nobody else has opened.
    fn resize(&self, size: u64) -> io::Result<()>;

    /// Makes a range read as zeros that may hold the bytes of a writer who was killed. It keeps its disk
    /// space.
    fn zero(&self, from: u64, to: u64) -> io::Result<()> {
        let zeros = [0; 1 << 16];
        let mut at = from;
        while at < to {
            let size = (to - at).min(zeros.len() as u64);
            self.overwrite(at, &zeros[..size as usize])?;
            at += size;
        }
        Ok(())
    }
}

/// Pages are of so many bytes at most, on any system.
pub(crate) const PAGE_MAX: u64 = 64 << 10;

/// So many stretches of data are looked for at a time.
const STRETCHES: usize = 1024;

/// Bytes of holes that are filled in any file.
const FILL_MAX: u64 = 64 << 20;

/// As [`Storage::extent`], of a record that ends at or below `limit`.
#[inline]
pub(super) fn extent(words: &(impl Words + ?Sized), limit: u64, offset: u64) -> Option<u64> {
    let tail = words.load(word::TAIL) & WORD_MASK; // Acquire; pairs with `store` of the tail.
    let end = tail.min(limit);
    let payload = offset.checked_add(HEAD_SIZE).filter(|payload| *payload <= end)?;
    if !offset.is_multiple_of(ALIGNMENT) {
        return None;
    }
    // Acquire; pairs with the store that makes a committed pad a value.
    let first = words.load(offset);
    let (len, kind) = (first & ((1 << 40) - 1), Kind((first >> 40) as u8));
    let fixed = kind != Kind::PAD && !kind.holds_table();
    (fixed && payload.checked_add(len)? <= end).then_some(len)
}

/// An open file and where it was opened.
#[derive(Debug)]
pub(crate) struct CacheFile {
    file: File,
    path: PathBuf,
    writable: bool,
    /// Whether allocated space is sure to take every later store: if not, a store into a map could
    /// end in SIGBUS, and bytes and words go through `pwrite`.
    binding: AtomicBool,
    /// Whether a sync has failed. The system says so once: whoever comes next must not believe that none has.
    has_failed: Mutex<bool>,
}

impl CacheFile {
    pub(crate) fn new(file: File, path: &Path, writable: bool, binding: bool) -> CacheFile {
        let (path, binding) = (path.to_path_buf(), AtomicBool::new(binding));
        CacheFile { file, path, writable, binding, has_failed: Mutex::new(false) }
    }

    /// The same file, never to be written.
    pub(crate) fn read_only(self) -> CacheFile {
        CacheFile { writable: false, ..self }
    }

    pub(crate) fn inner(&self) -> &File {
        &self.file
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

    /// Device and inode: which file this is, for as long as it is open.
    pub(crate) fn identity(&self) -> io::Result<(u64, u64)> {
        let data = self.file.metadata()?;
        Ok((data.dev(), data.ino()))
    }

    /// The provenance that is the file's now. `None` where the system does not tell: there no file's holds.
    pub(crate) fn provenance(&self) -> io::Result<Option<Provenance>> {
        let data = self.file.metadata()?;
        let (device, inode, born) = (data.dev(), data.ino(), born(&data));
        Ok(super::boot::boot_id()?.map(|boot_id| Provenance { boot_id, device, inode, born }))
    }

    /// Whether parts of the file have no disk space: what was given back, and what a copy left out.
    pub(crate) fn has_holes(&self) -> io::Result<bool> {
        let data = self.file.metadata()?;
        Ok(data.blocks() * 512 < data.len())
    }

    /// Whether a hole may be met in a map: a load from it takes no space.
    pub(crate) fn are_holes_free(&self) -> bool {
        volume::are_holes_free(&self.file)
    }

    /// Gives the holes among these places their disk space. `false` if they cannot have it. What has its space
    /// is left as it is.
    pub(crate) fn fill(&self, places: &[(u64, u64)]) -> io::Result<bool> {
        let size: u64 = places.iter().map(|(from, to)| to.saturating_sub(*from)).sum();
        // A file of little but holes, which anyone makes of any size, is not to fill the disk.
        if !self.writable || size > 2 * self.file.metadata()?.blocks() * 512 + FILL_MAX {
            return Ok(false);
        }
        let fill = |(from, to): &(u64, u64)| from >= to || self.allocate(*from, *to).is_ok();
        Ok(places.iter().all(fill))
    }

    /// From now on nothing is stored into a map of it.
    pub(crate) fn unbind(&self) {
        self.binding.store(false, Ordering::Relaxed); // Relaxed: see `is_binding`.
    }

    /// Makes the file one that is nobody's: its header page a hole. Where a change of a word takes space that
    /// a full disk has not, this takes none.
    pub(crate) fn blank(&self) -> io::Result<()> {
        precede(Effect::Punch { file: &self.file, from: 0, to: HEADER_SIZE })?;
        self.make_hole(0, HEADER_SIZE)
    }

    /// Where the data that lies at `at` ends; `u64::MAX` where the file system does not tell holes.
    fn next_hole(&self, at: u64) -> io::Result<u64> {
        if !volume::tells_holes(&self.file) {
            return Ok(u64::MAX);
        }
        match retry(|| rustix::fs::seek(&self.file, SeekFrom::Hole(at))) {
            Ok(end) if end > at => Ok(end),
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Err(error),
            _ => Ok(u64::MAX),
        }
    }

    /// Writes zeros over what is not zero.
    fn erase_data(&self, from: u64, to: u64) -> io::Result<()> {
        let mut buffer = vec![0; (to - from).min(1 << 16) as usize];
        let mut at = from;
        while at < to {
            let piece = &mut buffer[..(to - at).min(1 << 16) as usize];
            self.read(at, piece)?;
            if piece.iter().any(|byte| *byte != 0) {
                piece.fill(0);
                self.write(at, piece)?;
            }
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn make_hole(&self, from: u64, to: u64) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            retry(|| rustix::fs::fallocate(&self.file, flags, from, to - from))
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (from, to);
            Err(io::ErrorKind::Unsupported.into())
        }
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

/// Fails where writing up to `end` would be a signal, SIGXFSZ, and not an error.
fn check_limit(end: u64) -> io::Result<()> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    match limit.is_some_and(|limit| end > limit) {
        true => Err(io::Error::from_raw_os_error(libc::EFBIG)),
        false => Ok(()),
    }
}

/// When the inode was made, in nanoseconds since 1970; zero where the file system does not keep it.
fn born(data: &Metadata) -> u64 {
    let Ok(created) = data.created() else { return 0 };
    let since = created.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() as u64
}

impl Words for CacheFile {
    fn load(&self, at: u64) -> u64 {
        // A word that cannot be read is zero: an empty slot, no state, a seal that does not hold.
        let mut word = [0; 8];
        let read = self.read(at, &mut word);
        fence(Ordering::Acquire); // Pairs with the release in `store`, here and in a map's.
        read.map_or(0, |()| u64::from_le_bytes(word))
    }
    fn store(&self, at: u64, value: u64) -> io::Result<()> {
        // Pairs with the acquire in `load`, here and in a map's: the system stores the word, and whoever sees
        // it sees what was copied before.
        fence(Ordering::Release);
        self.write(at, &value.to_le_bytes())
    }
}

impl Storage for CacheFile {
    fn path(&self) -> &Path {
        &self.path
    }
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        precede(Effect::Read)?;
        self.file.read_exact_at(buffer, at)
    }
    fn head(&self, offset: u64) -> Option<HeadBytes> {
        let mut head = [0; HEAD_SIZE as usize];
        self.read(offset, &mut head).ok()?;
        Some(head)
    }
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        check_limit(at + bytes.len() as u64)?;
        precede(Effect::Write { file: &self.file, at, bytes })?;
        self.file.write_all_at(bytes, at)
    }
    fn overwrite(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.write(at, bytes)
    }

    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        check_limit(to)?;
        precede(Effect::Allocate { file: &self.file, from, to })?;
        // Whole pages, as far as the file goes: a store into a page takes space for all blocks of it, which
        // may be smaller, and beside this range be holes that a copy left out.
        let from = from - from % PAGE_MAX;
        let end = to.max(to.next_multiple_of(PAGE_MAX).min(self.size()?));
        match retry(|| rustix::fs::fallocate(&self.file, FallocateFlags::empty(), from, end - from))
        {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                self.binding.store(false, Ordering::Relaxed);
            }
            Err(error) => return Err(error),
        }
        // Not everywhere does allocation move the end of the file.
        if self.size()? < to { self.resize(to) } else { Ok(()) }
    }

    fn punch(&self, from: u64, to: u64) {
        if self.are_holes_free() && precede(Effect::Punch { file: &self.file, from, to }).is_ok() {
            let _ = self.make_hole(from, to);
        }
    }

    fn next_data(&self, at: u64) -> io::Result<Option<u64>> {
        if !volume::tells_holes(&self.file) {
            return Ok(Some(at));
        }
        match retry(|| rustix::fs::seek(&self.file, SeekFrom::Data(at))) {
            Ok(start) => Ok(Some(start.max(at))),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Err(error),
            // One that does not tell: everything may be data.
            Err(_) => Ok(Some(at)),
        }
    }
    fn erase(&self, from: u64, to: u64) -> io::Result<()> {
        let mut at = from;
        loop {
            // Found before any of them is read: what the system has read ahead is no hole to it any more.
            let mut stretches = Vec::new();
            while stretches.len() < STRETCHES
                && let Some(start) = self.next_data(at)?.filter(|start| *start < to)
            {
                at = self.next_hole(start)?.min(to);
                stretches.push((start, at));
            }
            let is_all = stretches.len() < STRETCHES;
            stretches.into_iter().try_for_each(|(start, end)| self.erase_data(start, end))?;
            if is_all {
                return Ok(());
            }
        }
    }
    fn sync(&self) -> io::Result<()> {
        let mut has_failed = self.has_failed.lock().unwrap_or_else(PoisonError::into_inner);
        if *has_failed {
            return Err(io::Error::other("a sync of this file has failed before"));
        }
        let synced = precede(Effect::Sync { file: &self.file }).and_then(|()| self.file.sync_all());
        *has_failed = synced.is_err();
        synced
    }
    fn resize(&self, size: u64) -> io::Result<()> {
        check_limit(size)?;
        precede(Effect::Resize { file: &self.file, size })?;
        self.file.set_len(size)
    }
}
