//! A cache file in memory. Nothing of it is referenced that can still change: words are atomics, and
//! `&[u8]` is made only of a [`Record`], the proof that the record lies below a tail that has been
//! loaded.
//!
//! # Safety
//! All blocks below rest on the protocol that every writer of the format keeps: bytes below the tail
//! never change, but for words and tables (accessed as atomics only), and a file never shrinks. A
//! stranger of the same user who breaks it is outside the boundary; `place` keeps other users out.
//! The range maps past the end of the file, so that its growth needs no second map: bytes beyond the
//! end are never touched, since tail, tables and their sizes were verified against the file's size.
#![expect(unsafe_code, reason = "one of the files that may: see the safety section")]

use super::Words;
use super::effect::{Effect, precede};
use super::file::{CacheFile, Medium};
use crate::format::header::word;
use crate::format::record::{self, HEAD_SIZE, HeadBytes};
use crate::format::{ALIGNMENT, WORD_MASK};
use memmap2::{Mmap, MmapOptions, MmapRaw};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Bytes of a file for each byte of the bits that say which records have been verified.
const SEEN_RATIO: u64 = 8 * ALIGNMENT;

/// A file, mapped whole and beyond its end, and which of its records this process has verified.
pub(crate) struct Map {
    file: CacheFile,
    raw: MmapRaw,
    /// One bit for each 16 bytes of file: wherever a slot may lead, its bit is of that place alone.
    seen: MmapRaw,
}

/// A record all of which lies below the tail, and of a kind that never changes.
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
    /// Maps `size` bytes of address space, a multiple of 4096 and at least the file's size.
    pub(crate) fn new(file: CacheFile, size: u64) -> Result<Map, (CacheFile, io::Error)> {
        let map = |file: &CacheFile| {
            let mut options = MmapOptions::new();
            options.len(size as usize).no_reserve_swap();
            // Where a store could be a signal, there is none: the map itself forbids it.
            let raw = match file.is_writable() && file.is_binding() {
                true => options.map_raw(file.inner())?,
                false => options.map_raw_read_only(file.inner())?,
            };
            let seen = MmapOptions::new()
                .len((size / SEEN_RATIO) as usize)
                .no_reserve_swap()
                .map_anon()?;
            Ok((raw, MmapRaw::from(seen)))
        };
        match map(&file) {
            Ok((raw, seen)) => Ok(Map { file, raw, seen }),
            Err(error) => Err((file, error)),
        }
    }

    /// The file alone.
    pub(crate) fn into_file(self) -> CacheFile {
        self.file
    }

    /// The file that is mapped.
    pub(crate) fn file(&self) -> &CacheFile {
        &self.file
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

    #[inline]
    fn seen_bit(&self, offset: u64) -> Option<(&AtomicU64, u64)> {
        Some((word_of(&self.seen, seen_word(offset))?, 1 << (offset / ALIGNMENT % 64)))
    }

    /// The record at `offset`, whatever its head says, if it ends below the tail and never changes.
    pub(crate) fn record(&self, offset: u64) -> Option<Record> {
        self.extent(offset).map(|len| Record { offset, len })
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

impl Medium for Map {
    fn path(&self) -> &Path {
        self.file.path()
    }
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read(at, buffer)
    }
    fn overwrite(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write(at, bytes)
    }
    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        self.file.allocate(from, to)
    }
    fn punch(&self, from: u64, to: u64) {
        self.file.punch(from, to);
    }
    fn next_data(&self, at: u64) -> io::Result<Option<u64>> {
        self.file.next_data(at)
    }
    fn erase(&self, from: u64) -> io::Result<()> {
        self.file.erase(from)
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
    fn resize(&self, size: u64) -> io::Result<()> {
        self.file.resize(size)
    }

    fn head(&self, offset: u64) -> Option<HeadBytes> {
        self.record(offset).map(|record| *Map::head(self, &record))
    }
    fn reach(&self) -> u64 {
        self.raw.len() as u64
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let tail = self.load(word::TAIL) & WORD_MASK;
        let allocated = self.load(word::ALLOCATED) & WORD_MASK;
        let end = at.checked_add(bytes.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        if !self.file.is_binding() {
            return self.file.write(at, bytes);
        }
        assert!(
            self.file.is_writable() && at >= tail && end <= allocated && end <= self.reach(),
            "bytes are stored between the tail and what is allocated"
        );
        precede(Effect::Write { file: self.file.inner(), at, bytes })?;
        let start = self.raw.as_mut_ptr().wrapping_add(at as usize);
        // SAFETY: the range is inside the map, and allocated, hence inside the file. No reference
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
