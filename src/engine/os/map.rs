//! A cache file in memory. Nothing of it is referenced that can still change: words are atomics, and
//! `&[u8]` is made only of a [`Record`], the proof that the record lies below a tail that has been
//! loaded.
//!
//! A map holds the front of its file, all of it and some room as a rule. What lies behind the map is read
//! and written by system calls: slower, and else no different. So a file may outgrow its map at any moment,
//! and a larger map may be refused: that costs time and nothing else.
//!
//! # Safety
//! All blocks below rest on the protocol that every writer of the format keeps: bytes below the tail
//! never change, and a file never shrinks. Three kinds of bytes there do change, and are never part of a
//! [`Record`]: words and tables (accessed as atomics only, which a header that is made a hole stays); the
//! payload of a pad that is being written; and what recovery turns into pads before it lets anyone in. A
//! stranger of the same user who breaks it is outside the boundary; `place` keeps other users out.
//! The range maps past the end of the file, so that it may grow: bytes beyond the end are never touched,
//! since tail, tables and their sizes were verified against the file's size.
#![expect(unsafe_code, reason = "one of the files that may: see the safety section")]

use super::Words;
use super::effect::{Effect, precede};
use super::file::{CacheFile, Storage, extent};
use crate::engine::format::header::word;
use crate::engine::format::record::{HEAD_SIZE, HeadBytes};
use crate::engine::format::{ALIGNMENT, WORD_MASK, record};
use memmap2::{Mmap, MmapOptions, MmapRaw};
use rustix::process::{Resource, getrlimit};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Bytes of a file for each byte of the bits that say which records have been verified.
const SEEN_RATIO: u64 = 8 * ALIGNMENT;

/// Where address space is limited (`RLIMIT_AS`), one part in so many is for maps: the rest is for what the
/// program itself does.
const PORTION: u64 = 8;

/// Address space that all maps of this process take.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// The front of a file, mapped, and which of its records this process has verified.
pub(crate) struct Map {
    file: Arc<CacheFile>,
    raw: MmapRaw,
    /// One bit for each 16 bytes of the map: wherever a slot may lead, its bit is of that place alone.
    seen: MmapRaw,
    /// Behind the maps: given back once they are gone.
    _taken: Taken,
}

/// Address space that a map takes.
struct Taken(u64);

impl Taken {
    fn new(size: u64) -> io::Result<Taken> {
        precede(Effect::Map { size })?;
        // Relaxed, here and in `drop`: a count that orders nothing.
        let sum = TAKEN.fetch_add(size, Ordering::Relaxed) + size;
        let taken = Taken(size);
        match getrlimit(Resource::As).current {
            Some(limit) if sum > limit / PORTION => Err(io::ErrorKind::OutOfMemory.into()),
            _ => Ok(taken),
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        TAKEN.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// A record all of which lies in the map and below the tail, and of a kind that never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    offset: u64,
    len: u64,
}

impl Record {
    /// No record, in no map.
    pub(crate) const NONE: Record = Record { offset: 0, len: 0 };

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }
}

impl Map {
    /// Maps `size` bytes, a multiple of 4096.
    pub(crate) fn new(file: &Arc<CacheFile>, size: u64) -> io::Result<Map> {
        let len = |size: u64| usize::try_from(size).map_err(|_| io::ErrorKind::OutOfMemory);
        let taken = Taken::new(size + size / SEEN_RATIO)?;
        let mut options = MmapOptions::new();
        options.len(len(size)?).no_reserve_swap();
        // Where a store could be a signal, there is none: the map itself forbids it.
        let raw = match file.is_writable() && file.is_binding() {
            true => options.map_raw(file.inner())?,
            false => options.map_raw_read_only(file.inner())?,
        };
        let seen = MmapOptions::new().len(len(size / SEEN_RATIO)?).no_reserve_swap().map_anon()?;
        Ok(Map { file: Arc::clone(file), raw, seen: MmapRaw::from(seen), _taken: taken })
    }

    /// A map of another size, which knows of each record in both whether this process has verified it. What
    /// is marked here meanwhile is verified once more.
    pub(crate) fn resized(&self, size: u64) -> io::Result<Map> {
        let map = Map::new(&self.file, size)?;
        let words = self.seen.len().min(map.seen.len()) as u64;
        for at in (0..words).step_by(8) {
            if let (Some(from), Some(to)) = (word_of(&self.seen, at), word_of(&map.seen, at)) {
                // Relaxed: see `seen`. Zeros are not copied: that would take memory for them.
                let bits = from.load(Ordering::Relaxed);
                if bits != 0 {
                    to.store(bits, Ordering::Relaxed);
                }
            }
        }
        Ok(map)
    }

    /// The file whose front is mapped.
    pub(crate) fn file(&self) -> &Arc<CacheFile> {
        &self.file
    }

    /// How much of the file, from its start on, is mapped.
    pub(crate) fn len(&self) -> u64 {
        self.raw.len() as u64
    }

    #[inline]
    fn word(&self, at: u64) -> Option<&AtomicU64> {
        word_of(&self.raw, at)
    }

    /// The record at `offset`, if this process has verified it.
    #[inline]
    pub(crate) fn seen(&self, offset: u64) -> Option<Record> {
        let (word, bit) = self.seen_bit(offset)?;
        // Relaxed: the bit publishes nothing. Whoever set it saw the record below the tail, which
        // stays true, and any thread that finds `offset` has it from a slot it loaded with acquire.
        if word.load(Ordering::Relaxed) & bit == 0 {
            return None;
        }
        let record = Record { offset, len: 0 };
        Some(Record { len: record::len(self.head(&record)), ..record })
    }

    /// Notes that this process has verified the record: its checks, and its payload as what its scope's values
    /// are.
    pub(crate) fn mark(&self, record: &Record) {
        if let Some((word, bit)) = self.seen_bit(record.offset) {
            word.fetch_or(bit, Ordering::Relaxed); // Relaxed: see `seen`.
        }
    }

    /// Has the machine fetch the line of a word, without waiting for it.
    #[inline]
    pub(crate) fn prefetch(&self, at: u64) {
        fetch(&self.raw, at);
    }

    /// Has it fetch what a look at the record at `offset` begins with: its bit, its head, its payload.
    #[inline]
    pub(crate) fn prefetch_record(&self, offset: u64) {
        fetch(&self.seen, seen_word(offset));
        fetch(&self.raw, offset);
        fetch(&self.raw, offset + HEAD_SIZE);
    }

    /// Which bit of the word in [`seen_word`] is the record's.
    #[inline]
    fn seen_bit(&self, offset: u64) -> Option<(&AtomicU64, u64)> {
        Some((word_of(&self.seen, seen_word(offset))?, 1 << (offset / ALIGNMENT % 64)))
    }

    /// The record at `offset`, whatever its head says, if it ends below the tail, never changes, and lies in
    /// the map.
    pub(crate) fn record(&self, offset: u64) -> Option<Record> {
        extent(self, self.len(), offset).map(|len| Record { offset, len })
    }

    /// The head of a record.
    #[inline]
    pub(crate) fn head(&self, record: &Record) -> &HeadBytes {
        let start = self.raw.as_ptr().wrapping_add(record.offset as usize).cast::<HeadBytes>();
        // SAFETY: a `Record` lies within the map and, being below the tail, within the file; its
        // bytes never change again. A byte array has no alignment and every bit pattern is one.
        unsafe { &*start }
    }

    /// The payload of a record.
    #[inline]
    pub(crate) fn payload(&self, record: &Record) -> &[u8] {
        let start = self.raw.as_ptr().wrapping_add((record.offset + HEAD_SIZE) as usize);
        // SAFETY: as for `head`; `len` was checked against the tail when the `Record` was made, or
        // by whoever marked it.
        unsafe { std::slice::from_raw_parts(start, record.len as usize) }
    }
}

/// Where among the bits lies the word with that of the record at `offset`.
#[inline]
fn seen_word(offset: u64) -> u64 {
    offset / ALIGNMENT / 64 * 8
}

/// The word at `at`, if it is aligned and inside.
#[inline]
fn word_of(raw: &MmapRaw, at: u64) -> Option<&AtomicU64> {
    if !at.is_multiple_of(8) || at >= raw.len() as u64 {
        return None;
    }
    let pointer = raw.as_mut_ptr().wrapping_add(at as usize).cast::<u64>();
    // SAFETY: inside the map, whose length is a multiple of 8 and whose start is page-aligned; words
    // are only ever accessed as atomics of this size. On a map that may not be written the only
    // access is a relaxed load, which is defined there.
    Some(unsafe { AtomicU64::from_ptr(pointer) })
}

/// Has the machine fetch the line at `at`, wherever that is: it is a hint.
#[inline]
fn fetch(raw: &MmapRaw, at: u64) {
    let line = raw.as_ptr().wrapping_add(at as usize);
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 has the instruction, and it faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line; // There is no such hint that is stable.
}

/// The words in the map. What lies behind it reads as zero: no look-up in place finds it.
impl Words for Map {
    #[inline]
    fn load(&self, at: u64) -> u64 {
        let Some(word) = self.word(at) else { return 0 };
        // Relaxed load and fence: the one form of acquire that is defined on read-only maps too.
        // Pairs with the release in `store`. (The thread sanitizer knows no fences.)
        let ordering = if cfg!(model = "tsan") { Ordering::Acquire } else { Ordering::Relaxed };
        let value = word.load(ordering);
        fence(Ordering::Acquire);
        value
    }

    fn store(&self, at: u64, value: u64) -> io::Result<()> {
        assert!(self.file.is_writable(), "a read-only file is never locked for writing");
        let word = self.word(at).ok_or(io::ErrorKind::InvalidInput)?;
        if !self.file.is_binding() {
            // The page may lack disk space, and whether it has some may change before the next
            // instruction: a copy shares its blocks, or the system writes it back. The system's own store
            // finds out by an error.
            return self.file.store(at, value);
        }
        precede(Effect::Write { file: self.file.inner(), at, bytes: &value.to_le_bytes() })?;
        // Release: pairs with the acquire in `load`; bytes copied before are seen by whoever sees
        // this word.
        word.store(value, Ordering::Release);
        Ok(())
    }
}

/// A file by its map, and behind that by system calls.
pub(crate) struct MappedFile {
    pub(crate) map: Map,
}

impl Words for MappedFile {
    #[inline]
    fn load(&self, at: u64) -> u64 {
        if at < self.map.len() { self.map.load(at) } else { self.map.file.load(at) }
    }

    fn store(&self, at: u64, value: u64) -> io::Result<()> {
        if at < self.map.len() { self.map.store(at, value) } else { self.map.file.store(at, value) }
    }
}

impl Storage for MappedFile {
    fn path(&self) -> &Path {
        self.map.file.path()
    }
    fn size(&self) -> io::Result<u64> {
        self.map.file.size()
    }
    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.map.file.read(at, buffer)
    }
    fn overwrite(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.map.file.write(at, bytes)
    }
    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        self.map.file.allocate(from, to)
    }
    fn punch(&self, from: u64, to: u64) {
        self.map.file.punch(from, to);
    }
    fn next_data(&self, at: u64) -> io::Result<Option<u64>> {
        self.map.file.next_data(at)
    }
    fn erase(&self, from: u64, to: u64) -> io::Result<()> {
        self.map.file.erase(from, to)
    }
    fn sync(&self) -> io::Result<()> {
        self.map.file.sync()
    }
    fn resize(&self, size: u64) -> io::Result<()> {
        self.map.file.resize(size)
    }

    fn head(&self, offset: u64) -> Option<HeadBytes> {
        match self.map.record(offset) {
            Some(record) => Some(*self.map.head(&record)),
            None => self.extent(offset).and_then(|_| Storage::head(&*self.map.file, offset)),
        }
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let tail = self.load(word::TAIL) & WORD_MASK;
        let allocated = self.load(word::ALLOCATED) & WORD_MASK;
        let end = at.checked_add(bytes.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        if !self.map.file.is_binding() || end > self.map.len() {
            return self.map.file.write(at, bytes);
        }
        assert!(
            self.map.file.is_writable() && at >= tail && end <= allocated,
            "bytes are stored between the tail and what is allocated"
        );
        precede(Effect::Write { file: self.map.file.inner(), at, bytes })?;
        let start = self.map.raw.as_mut_ptr().wrapping_add(at as usize);
        // SAFETY: the range ends inside the map, and is allocated, hence inside the file. No reference
        // covers it: references end at the tail, which only the holder of the lock, the caller,
        // moves. `bytes` is no part of it for the same reason.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len()) };
        Ok(())
    }
}

/// The bytes of a file without a name: see [`place::scratch`](super::place::scratch).
pub(crate) fn view(scratch: &CacheFile) -> io::Result<Mmap> {
    // SAFETY: the file has no name and has never left this process, which does not write it any more.
    unsafe { Mmap::map(scratch.inner()) }
}
