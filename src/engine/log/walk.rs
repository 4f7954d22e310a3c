//! Walking the log, for recovery, compaction and verification.
//!
//! A walk reads by copy, through a window of 1 MiB, and never through the map: a file that is cut while it is read
//! gives an error and no signal. It trusts no length whose head does not verify. After damage it looks for the next
//! head at every multiple of 16: records carry their own proof, which is keyed by file and offset. Sequence numbers
//! only rise, so bytes of an older life of the same place are not taken for a record.
//!
//! For example, where the head at 8368 is damaged:
//!
//! ```text
//!   8192  head verifies, number 1            Record(8192)       go to where it ends
//!   8368  no head                                               try 8384, 8400, 8416, 8432 ..
//!   8448  head verifies, number 3 > 1        Damage(8368, 8448), and then Record(8448)
//!   8560  the end
//! ```
//!
//! A payload is never looked at by the walk itself. Whoever needs to know whether one is whole asks
//! ([`is_whole`](Walk::is_whole)) before the next step: the bytes are mostly in the window then. So a walk over heads
//! alone reads a log of large values in large jumps.
//!
//! It needs no lock if the end is a tail that was loaded: below a tail nothing moves. The end is never looked up again,
//! so a walk ends however fast others append.
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
    /// Where the next record begins, if all is well.
    at: u64,
    end: u64,
    /// The number of the record that was met last: the next one has a higher one.
    seq: u64,
}

impl<'a> Walk<'a> {
    /// From `start`, where a record begins, to `end`, at most the tail and the end of the file.
    pub(crate) fn new(file: &'a dyn Storage, seed: u64, start: u64, end: u64) -> Walk<'a> {
        Walk { bytes: Window::new(file, end), seed, at: start, end, seq: 0 }
    }

    /// The head at `at`, if it verifies, its record ends in time, and its number is higher than the last one's.
    fn head(&mut self, at: u64) -> io::Result<Option<Head>> {
        let Some(bytes) = self.bytes.get(at, HEAD_SIZE)? else { return Ok(None) };
        let bytes: &HeadBytes = bytes.try_into().expect("sized");
        let head = Head::decode(bytes, at, self.seed);
        let fits = |head: &Head| at + HEAD_SIZE + head.len <= self.end && head.seq > self.seq;
        Ok(head.filter(fits))
    }

    /// The next record or stretch of damage; `None` at the end. An error (a device that fails, a file that was cut)
    /// leaves the walk where it was.
    ///
    /// Stretches of damage do not touch each other: all from the first byte that is no record to the next record is one
    /// of them. The record behind it is given out by the next call.
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
///
/// It keeps the piece that it read last. What was read is a copy: words and tables in it may have changed since. That
/// is why whoever reads what may still change (a pad that may be a value by now, see
/// [`reserved`](super::records::Records::reserved)) does not read through a window that has passed there.
pub(crate) struct Window<'a> {
    file: &'a dyn Storage,
    end: u64,
    /// Where in the file the buffer begins.
    start: u64,
    buffer: Vec<u8>,
}

/// How much is read at a time. One `pread` then takes longer than the call itself, and the memory is of no account.
pub(crate) const WINDOW_SIZE: u64 = 1 << 20;

impl<'a> Window<'a> {
    /// Over the bytes below `end`.
    pub(crate) fn new(file: &'a dyn Storage, end: u64) -> Window<'a> {
        Window { file, end, start: 0, buffer: Vec::new() }
    }

    /// Whether the payload of the record at `offset` is what its head says. Up to a MiB is read at once, a longer one
    /// piece by piece: no more than a window is in memory, whatever a head claims.
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

    /// Hands over the bytes from `start` to `end`, which may be more than memory holds, piece by piece. What `take`
    /// fails with ends it; what was taken before stays taken.
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

    /// The bytes at `at`, or `None` if they pass the end. Without a system call if the window has them.
    ///
    /// The buffer becomes as long as one piece that is asked for, if that is longer than a window; so callers ask for
    /// no more than [`WINDOW_SIZE`]. Memory that is not to be had is an error and no abort.
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
