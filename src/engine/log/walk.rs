//! Walking the log, for recovery, compaction and verification.
//!
//! A walk reads by copy, through a window of 1 MiB, and never through the map: a file that is cut while it is read
//! gives an error and no signal. It trusts no length whose head does not verify. After damage it looks for the next
//! head at every multiple of 16: records carry their own proof, which is keyed by file and offset. Sequence numbers
//! only rise, so bytes of an older life of the same place are not taken for a record.
//!
//! Marks at fixed distances, as LevelDB's log has every 32 KiB, would make the search for the next head shorter. They
//! would cut payloads into pieces, and a payload must lie in one piece to be read in place.

use crate::engine::format::record::{HEAD_SIZE, Head, HeadBytes, PayloadCheck};
use crate::engine::format::{ALIGNMENT, align};
use crate::engine::os::file::Storage;
use crate::error::{Error, Result};
use std::io;

/// What a walk meets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A record whose head verifies.
    Record(u64, Head),
    /// Bytes from the first offset to the second that are no records.
    Damage(u64, u64),
}

/// A walk over the records from one offset to another.
pub(crate) struct Walk<'a> {
    bytes: Window<'a>,
    seed: u64,
    at: u64,
    end: u64,
    seq: u64,
}

impl<'a> Walk<'a> {
    /// From `start`, where a record begins, to `end`, at most the tail and the end of the file.
    pub(crate) fn new(file: &'a dyn Storage, seed: u64, start: u64, end: u64) -> Walk<'a> {
        Walk { bytes: Window::new(file, end), seed, at: start, end, seq: 0 }
    }

    fn head(&mut self, at: u64) -> io::Result<Option<Head>> {
        let Some(bytes) = self.bytes.get(at, HEAD_SIZE)? else { return Ok(None) };
        let bytes: &HeadBytes = bytes.try_into().expect("sized");
        let head = Head::decode(bytes, at, self.seed);
        let fits = |head: &Head| at + HEAD_SIZE + head.len <= self.end && head.seq > self.seq;
        Ok(head.filter(fits))
    }

    /// The next record or stretch of damage; `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Step>> {
        let start = self.at;
        let mut at = start;
        while at < self.end {
            if let Some(head) = self.head(at)? {
                if at > start {
                    self.at = at;
                    return Ok(Some(Step::Damage(start, at)));
                }
                self.at = head.next(at);
                self.seq = head.seq;
                return Ok(Some(Step::Record(at, head)));
            }
            at += ALIGNMENT;
            // A file may be far longer than what is in it: heads are not looked for in its holes.
            if at == start + ALIGNMENT || at.is_multiple_of(WINDOW_SIZE) {
                at = self.bytes.next_data(at)?;
            }
        }
        self.at = self.end;
        Ok((start < self.end).then_some(Step::Damage(start, self.end)))
    }

    /// Whether the record that `next` returned last has its payload, which may be longer than memory.
    pub(crate) fn is_whole(&mut self, offset: u64, head: &Head) -> io::Result<bool> {
        self.bytes.is_whole(offset, head, self.seed)
    }

    /// The bytes that it reads through.
    pub(crate) fn bytes(&mut self) -> &mut Window<'a> {
        &mut self.bytes
    }
}

/// Reads forward through a file, a large piece at a time.
pub(crate) struct Window<'a> {
    file: &'a dyn Storage,
    end: u64,
    start: u64,
    buffer: Vec<u8>,
}

/// How much is read at a time.
pub(crate) const WINDOW_SIZE: u64 = 1 << 20;

impl<'a> Window<'a> {
    /// Over the bytes below `end`.
    pub(crate) fn new(file: &'a dyn Storage, end: u64) -> Window<'a> {
        Window { file, end, start: 0, buffer: Vec::new() }
    }

    /// Whether the payload of the record at `offset` is what its head says.
    pub(crate) fn is_whole(&mut self, offset: u64, head: &Head, seed: u64) -> io::Result<bool> {
        if head.kind.holds_table() {
            return Ok(true); // Its head says all there is to say: see `Head::decode`.
        }
        if head.len <= WINDOW_SIZE {
            let payload = self.get(offset + HEAD_SIZE, head.len)?;
            return Ok(payload.is_some_and(|it| head.check_of(it, seed) == head.payload_check));
        }
        let mut check = PayloadCheck::new(head.kind, seed);
        let (mut at, end) = (offset + HEAD_SIZE, offset + HEAD_SIZE + head.len);
        while at < end {
            let Some(piece) = self.get(at, (end - at).min(WINDOW_SIZE))? else { return Ok(false) };
            check.add(piece);
            at += piece.len() as u64;
        }
        Ok(check.get() == head.payload_check)
    }

    /// Hands over the bytes from `start` to `end`, which may be more than memory holds, piece by piece.
    pub(crate) fn pieces(
        &mut self,
        start: u64,
        end: u64,
        mut take: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut at = start;
        while at < end {
            let read = Error::io("read", self.file.path());
            let piece = self
                .get(at, (end - at).min(WINDOW_SIZE))
                .and_then(|piece| piece.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()));
            let piece = piece.map_err(read)?;
            take(at, piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// From where on there may be anything but zeros, at or behind `at`; at most the end.
    fn next_data(&self, at: u64) -> io::Result<u64> {
        let start = self.file.next_data(at)?.map_or(self.end, |start| start.min(self.end));
        Ok((start - start % ALIGNMENT).max(at))
    }

    /// The bytes at `at`, or `None` if they pass the end.
    pub(crate) fn get(&mut self, at: u64, len: u64) -> io::Result<Option<&[u8]>> {
        if at + len > self.end {
            return Ok(None);
        }
        let is_inside = at >= self.start && at + len <= self.start + self.buffer.len() as u64;
        if !is_inside {
            let size = len.max(WINDOW_SIZE).min(self.end - at);
            self.buffer.clear();
            let size = usize::try_from(size).map_err(|_| io::ErrorKind::OutOfMemory)?;
            self.buffer.try_reserve(size).map_err(|_| io::ErrorKind::OutOfMemory)?;
            self.buffer.resize(size, 0);
            self.file.read(at, &mut self.buffer).inspect_err(|_| self.buffer.clear())?;
            self.start = at;
        }
        let from = (at - self.start) as usize;
        Ok(Some(&self.buffer[from..from + len as usize]))
    }
}

const _: () = assert!(align(HEAD_SIZE) == HEAD_SIZE);
