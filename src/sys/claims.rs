//! The claims of computations under way: one byte of a sidecar file for each, locked for as long as
//! the computation lasts. The locks belong to the open file description (`F_OFD_SETLK`), so that they
//! end with their process however it ends, and not when some other descriptor is closed. (A child that it
//! forked has the description too, and keeps them until it ends or executes a program.) The sidecar is
//! empty, and neither renamed nor removed: else there would be two, and a claim in each.
#![expect(unsafe_code, reason = "no crate of this tree locks a range of a file for a description")]

use super::fork::forks;
use super::place;
use crate::error::Result;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

/// The sidecar of a cache, open.
pub(crate) struct Claims {
    file: File,
    /// The process that opened it.
    process: u64,
}

impl Claims {
    pub(crate) fn open(path: &Path) -> Result<Claims> {
        Ok(Claims { file: place::open_sidecar(path)?, process: forks() })
    }

    /// Claims a byte, if no other description has it.
    pub(crate) fn try_claim(&self, byte: u64) -> io::Result<bool> {
        match self.set(byte, libc::F_WRLCK as i16) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives a byte back. A forked child does not: the claim is its parent's.
    pub(crate) fn release(&self, byte: u64) {
        if forks() != self.process {
            return;
        }
        // The claim ends with the process in any case; there is nothing to do about a failure.
        let _ = self.set(byte, libc::F_UNLCK as i16);
    }

    fn set(&self, byte: u64, kind: i16) -> io::Result<()> {
        // The largest offset that a file may have is 2^63 - 1.
        let start = (byte >> 2).cast_signed();
        let range = libc::flock {
            l_type: kind,
            l_whence: libc::SEEK_SET as i16,
            l_start: start,
            l_len: 1,
            l_pid: 0,
        };
        // SAFETY: the descriptor is open for as long as `self` lives; the call reads `range`, which
        // is what `F_OFD_SETLK` takes, and writes nowhere.
        match unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_OFD_SETLK, &raw const range) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Claims;

    #[test]
    fn a_byte_has_one_holder_and_its_neighbours_are_free() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        let (one, other) = (Claims::open(&path).unwrap(), Claims::open(&path).unwrap());
        assert!(one.try_claim(u64::MAX).unwrap());
        assert!(!other.try_claim(u64::MAX).unwrap());
        assert!(other.try_claim(u64::MAX - 4).unwrap() && other.try_claim(0).unwrap());
        one.release(u64::MAX);
        assert!(other.try_claim(u64::MAX).unwrap());
        drop(other);
        assert!(one.try_claim(0).unwrap() && one.try_claim(u64::MAX).unwrap());
        assert_eq!(std::fs::metadata(dir.path().join("cache.claims")).unwrap().len(), 0);
    }
}
