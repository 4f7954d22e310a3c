//! The claims of computations under way: one byte of a sidecar file for each, locked for as long as
//! the computation lasts. The locks belong to the open file description (`F_OFD_SETLK`), so that they
//! end with their process however it ends, and not when some other descriptor is closed. (A child that it
//! forked has the description too, and keeps them until it ends or executes a program.) The sidecar is
//! empty, and this crate neither renames nor removes it: else there would be two, and a claim in each.
//! Somebody else may: it, or the directory that it is in. So each claim looks whether it still has its name, and
//! those who clear away what is old find it young.
#![expect(unsafe_code, reason = "no crate of this tree locks a range of a file for a description")]

use super::fork::forks;
use super::place::Sidecar;
use super::{clock, place};
use crate::error::Result;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often the times of a sidecar in use are made the present, in milliseconds: no system clears away
/// what was used an hour ago.
const TOUCH_INTERVAL: u64 = 3_600_000;

/// The sidecar of a cache, open.
pub(crate) struct Claims {
    sidecar: Sidecar,
    /// The process that opened it.
    process: u64,
    /// When its times were last made the present, in milliseconds since 1970.
    touched: AtomicU64,
}

impl Claims {
    pub(crate) fn open(path: &Path) -> Result<Claims> {
        let sidecar = place::open_sidecar(path)?;
        let claims = Claims { sidecar, process: forks(), touched: AtomicU64::new(0) };
        claims.keep_young();
        Ok(claims)
    }

    /// Whether the file has its name no more, so that others claim in another one. A system call.
    pub(crate) fn is_gone(&self) -> bool {
        self.sidecar.is_gone()
    }

    /// Keeps those away who remove what nobody has used for long. It is the oldest file of its cache, and no
    /// claim changes its times.
    pub(crate) fn keep_young(&self) {
        let now = clock::now().as_millis() as u64;
        // Relaxed: two threads that touch it at once do no harm. A clock set back is a reason to.
        if now.abs_diff(self.touched.load(Ordering::Relaxed)) < TOUCH_INTERVAL {
            return;
        }
        self.touched.store(now, Ordering::Relaxed);
        // Where it must not be written, its owner does it.
        let _ = place::touch(&self.sidecar.file);
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
        match unsafe {
            libc::fcntl(self.sidecar.file.as_raw_fd(), libc::F_OFD_SETLK, &raw const range)
        } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Claims;
    use std::sync::atomic::Ordering;
    use std::time::UNIX_EPOCH;

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

    #[test]
    fn a_sidecar_in_use_is_young_and_one_that_is_gone_is_known_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let (path, sidecar) = (dir.path().join("cache"), dir.path().join("cache.claims"));
        let claims = Claims::open(&path).unwrap();
        let set_old = || {
            let times = std::fs::FileTimes::new().set_accessed(UNIX_EPOCH).set_modified(UNIX_EPOCH);
            std::fs::File::open(&sidecar).unwrap().set_times(times).unwrap();
        };
        let is_old = || {
            let data = std::fs::metadata(&sidecar).unwrap();
            data.modified().unwrap() == UNIX_EPOCH || data.accessed().unwrap() == UNIX_EPOCH
        };
        set_old();
        claims.keep_young();
        assert!(is_old(), "not with every claim");
        claims.touched.fetch_sub(super::TOUCH_INTERVAL, Ordering::Relaxed);
        claims.keep_young();
        assert!(!is_old(), "an hour later");
        set_old();
        let other = Claims::open(&path).unwrap();
        assert!(!is_old(), "by whoever opens it");
        assert!(!claims.is_gone());
        std::fs::remove_file(&sidecar).unwrap();
        assert!(claims.is_gone() && other.is_gone());
        assert!(!Claims::open(&path).unwrap().is_gone());
    }

    /// It still has a name then, but not the one by which others find it.
    #[test]
    fn a_sidecar_that_was_moved_is_gone_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let (home, away) = (dir.path().join("home"), dir.path().join("away"));
        let (path, sidecar) = (home.join("cache"), home.join("cache.claims"));
        std::fs::create_dir(&home).unwrap();
        let claims = Claims::open(&path).unwrap();
        assert!(!claims.is_gone());
        std::fs::rename(&sidecar, home.join("renamed")).unwrap();
        assert!(claims.is_gone(), "nothing has its name");
        let second = Claims::open(&path).unwrap();
        assert!(claims.is_gone() && !second.is_gone(), "another file has its name");
        std::fs::rename(&home, &away).unwrap();
        assert!(second.is_gone(), "its directory is elsewhere");
        std::fs::create_dir(&home).unwrap();
        let third = Claims::open(&path).unwrap();
        assert!(second.is_gone() && !third.is_gone());
        std::fs::rename(&home, dir.path().join("other")).unwrap();
        std::fs::rename(&away, &home).unwrap();
        assert!(!second.is_gone(), "it is back");
    }
}
