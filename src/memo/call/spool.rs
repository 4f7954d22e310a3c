//! The spool of a recording: bytes that grow without needing memory for more than a MiB of them. What is beyond
//! goes to a file without a name beside the cache, where there is room for the record, too.

use crate::engine::os::file::{CacheFile, Storage as _};
use crate::engine::os::fork::forks;
use crate::engine::os::{map, place};
use crate::error::{Error, Result};
use crate::memo::handle::Handle;
use memmap2::Mmap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of a spool that are kept in memory.
const SPOOL_MEMORY: usize = 1 << 20;

/// Bytes that grow: in memory, then in a file without a name.
pub(crate) struct Spool {
    /// Whose limit it keeps.
    handle: Arc<Handle>,
    /// The cache, beside which the file is made.
    path: PathBuf,
    memory: Vec<u8>,
    /// The file, and how long it is.
    file: Option<(CacheFile, u64)>,
    /// The process whose it is: a child has the same file, and what both write is neither's.
    process: u64,
}

impl Spool {
    pub(crate) fn new(handle: &Arc<Handle>, path: &Path) -> Spool {
        let (handle, path) = (Arc::clone(handle), path.to_path_buf());
        Spool { handle, path, memory: Vec::new(), file: None, process: forks() }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.check_process()?;
        let spilled = self.file.as_ref().map_or(0, |(_, len)| *len);
        // An iterator without an end should fill no disk.
        self.handle.check_size(spilled + (self.memory.len() + bytes.len()) as u64)?;
        if !self.memory.is_empty() && self.memory.len() + bytes.len() > SPOOL_MEMORY {
            self.spill()?;
        }
        if self.memory.try_reserve(bytes.len()).is_err() {
            return Err(Error::io("spool beside", &self.path)(io::ErrorKind::OutOfMemory.into()));
        }
        self.memory.extend_from_slice(bytes);
        Ok(())
    }

    /// A recording that was begun before a fork goes on in the parent alone.
    fn check_process(&self) -> Result<()> {
        if self.process == forks() {
            return Ok(());
        }
        let source =
            io::Error::other("the recording is its parent's, and this process a forked child");
        Err(Error::io("spool beside", &self.path)(source))
    }

    fn spill(&mut self) -> Result<()> {
        let failed = || Error::io("spool beside", &self.path);
        let (file, len) = match self.file.take() {
            Some(file) => file,
            None => (place::scratch(&self.path).map_err(failed())?, 0),
        };
        let end = len + self.memory.len() as u64;
        // A file past its limit would be a signal; space that is allocated is sure to be there.
        file.allocate(len, end).and_then(|()| file.write(len, &self.memory)).map_err(failed())?;
        self.memory.clear();
        self.file = Some((file, end));
        Ok(())
    }

    /// All of it.
    pub(crate) fn seal(mut self) -> Result<Sealed> {
        self.check_process()?;
        if self.file.is_some() {
            self.spill()?;
        }
        Ok(match &self.file {
            None => Sealed::Memory(self.memory),
            Some((file, _)) => {
                Sealed::File(map::view(file).map_err(Error::io("map a spool of", &self.path))?)
            }
        })
    }
}

/// Bytes that are all there.
pub(crate) enum Sealed {
    Memory(Vec<u8>),
    File(Mmap),
}

impl AsRef<[u8]> for Sealed {
    fn as_ref(&self) -> &[u8] {
        match self {
            Sealed::Memory(bytes) => bytes,
            Sealed::File(bytes) => bytes,
        }
    }
}
