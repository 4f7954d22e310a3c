//! From a path to an [`OpenFile`]: create, trust, or recover.
//!
//! A file is trusted at once, and without a lock, if its provenance holds and its header and last record verify:
//! then the page cache that wrote the file is the one that is read. Any other file is recovered under the lock
//! first, which is waited for to a deadline.
//!
//! Each round looks at the path anew, since whoever holds the lock meanwhile may have put another file there. A
//! path that leads elsewhere [`TRIES`] times is an error, so that no opening goes on for ever.

use super::create::{fill, new_superblock, pointer_width};
use super::deadline::{Deadline, lock_file, try_until};
use super::open_file::OpenFile;
use super::recover;
use super::trust::is_trusted;
use crate::engine::format::HEADER_SIZE;
use crate::engine::format::header::{HeaderError, Superblock, word};
use crate::engine::log::journal::Journal;
use crate::engine::os::file::{CacheFile, Storage as _};
use crate::engine::os::place::{self, AccessMode};
use crate::engine::os::replacement::{self, Replacement};
use crate::error::{Error, Result};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often an opening follows a file that keeps being replaced.
pub(crate) const TRIES: u32 = 16;

/// Which file, and how it is reached: what handles on one store have in common.
pub(crate) type Place = (PathBuf, AccessMode, bool);

/// Where a cache is and how it is opened.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    pub(crate) path: PathBuf,
    pub(crate) access: AccessMode,
    pub(crate) is_read_only: bool,
    pub(crate) lock_timeout: Duration,
}

impl Location {
    pub(crate) fn place(&self) -> Place {
        (self.path.clone(), self.access, self.is_read_only)
    }
}

/// Opens the cache at `location`, and creates it where there is none and it may be written. Waits for a
/// lock, under which it recovers, until the deadline.
pub(crate) fn open(location: &Location, deadline: &Deadline) -> Result<Arc<OpenFile>> {
    for _ in 0..TRIES {
        let Some(file) = open_cache_file(location)? else {
            create(location, deadline)?;
            continue;
        };
        let Some(superblock) = read_superblock(&file)? else {
            replace_blank(location, &file, deadline)?;
            continue;
        };
        let file = if superblock.is_for_reading { file.read_only() } else { file };
        let access = match location.access {
            AccessMode::Copied => AccessMode::Copied,
            access => beware_of_holes(&file, &superblock, access)?,
        };
        let open_file = OpenFile::attach(file, superblock, access)?;
        if is_trusted(&open_file)? {
            return Ok(Arc::new(open_file));
        }
        // Also where there is no lock to be taken: all of the log may have to be walked over.
        deadline.permit(&location.path)?;
        if !open_file.file().is_writable() {
            return Ok(Arc::new(recover::with_private_index(open_file)?));
        }
        lock_file(open_file.file(), deadline)?;
        let is_sound = mend(&open_file);
        open_file.file().unlock();
        if is_sound? {
            return Ok(Arc::new(open_file));
        }
    }
    Err(Error::Unstable { path: location.path.clone() })
}

/// The file at `location` by its header, of which every word verifies, and nothing else was looked at. To be read
/// from: the lock need not be free, nor the file be believed. `None` if there is no such file.
pub(crate) fn glance(location: &Location) -> Result<Option<OpenFile>> {
    let reading = Location { access: AccessMode::Copied, is_read_only: true, ..location.clone() };
    let Some(file) = open_cache_file(&reading)? else { return Ok(None) };
    let Some(superblock) = read_superblock(&file)? else { return Ok(None) };
    let open_file = OpenFile::attach(file, superblock, reading.access)?;
    let is_sound = open_file.journal().header.is_sound();
    Ok(is_sound.then_some(open_file))
}

/// How a file is to be reached, with the holes filled that others made, copying it for instance: a page of
/// one may take space when it is stored to, and on some file systems when it is read. Where there is none,
/// words and bytes go by system calls, which fail instead.
fn beware_of_holes(
    file: &CacheFile,
    superblock: &Superblock,
    access: AccessMode,
) -> Result<AccessMode> {
    let journal = Journal::new(file, superblock);
    let [tail, allocated] = [word::TAIL, word::ALLOCATED].map(|place| journal.header.get(place));
    let look = || Error::io("look at", file.path());
    // Of a file whose tail cannot be believed, the header alone is reached in place.
    let (Ok(tail), Ok(allocated)) = (tail, allocated) else { return Ok(access) };
    let size = file.size().map_err(look())?;
    let end = tail.max(allocated).min(size);
    if !file.are_holes_free() {
        // There a file's blocks are those of its pages and of nothing else.
        let is_reached =
            !file.has_holes().map_err(look())? || file.fill(&[(0, end)]).map_err(look())?;
        return Ok(if is_reached { access } else { AccessMode::Copied });
    }
    // Where blocks that describe the file count as its own, their number does not tell: what has its space is
    // left as it is.
    // Tables that the index has left are holes, rightly. What is stored to: the words, the tables in use, and
    // the space behind the tail.
    let table = |place| {
        let table = journal.header.table(place);
        if table.is_plausible() && table.end() <= end {
            (table.offset(), table.end())
        } else {
            (0, 0)
        }
    };
    let stored = [(0, HEADER_SIZE), table(word::INDEX), table(word::PENDING), (tail, end)];
    if file.is_binding() && file.is_writable() && !file.fill(&stored).map_err(look())? {
        file.unbind();
    }
    Ok(access)
}

/// Makes a locked file trustworthy, if nobody has yet. `false` if another file is at the path now.
fn mend(open_file: &OpenFile) -> Result<bool> {
    Ok(is_trusted(open_file)? || open_file.is_at_path() && recover::recover(open_file)?)
}

/// The file at the location, for reading alone if the system allows no more.
fn open_cache_file(location: &Location) -> Result<Option<CacheFile>> {
    let Location { path, access, is_read_only, .. } = location;
    if !is_read_only {
        match place::open(path, true, *access) {
            Err(Error::Io { source, .. })
                if matches!(
                    source.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) => {}
            other => return other,
        }
    }
    match place::open(path, false, *access)? {
        None => Err(Error::io("open", path)(io::ErrorKind::NotFound.into())),
        file => Ok(file),
    }
}

fn create(location: &Location, deadline: &Deadline) -> Result<()> {
    let (path, superblock) = (&location.path, new_superblock());
    try_until(deadline, path, || replacement::create(path, |file| fill(file, &superblock)))
}

/// A file that a power cut left empty or all zero is nobody's: a new one takes its place.
fn replace_blank(location: &Location, blank: &CacheFile, deadline: &Deadline) -> Result<()> {
    let path = &location.path;
    if !blank.is_writable() {
        return Err(Error::ReadOnly { path: path.clone() });
    }
    // Who deletes a cache from a full disk makes the file blank, and has yet to remove its name.
    lock_file(blank, deadline)?;
    let replaced = replace_locked_blank(path, blank, deadline);
    blank.unlock();
    replaced
}

fn replace_locked_blank(path: &Path, blank: &CacheFile, deadline: &Deadline) -> Result<()> {
    try_until(deadline, path, || {
        let new = Replacement::begin(path)?;
        // Looked at with the lock: who had it before may have replaced the file.
        if !place::is_at(blank, path).map_err(Error::io("look at", path))? {
            return Ok(true);
        }
        let Some(new) = new else { return Ok(false) };
        fill(&new.file, &new_superblock())
            .and_then(|()| new.file.sync())
            .map_err(Error::io("create", path))?;
        new.publish(path, blank).map(|()| true)
    })
}

/// The superblock of a file; `None` if it is blank.
pub(crate) fn read_superblock(file: &CacheFile) -> Result<Option<Superblock>> {
    let path = || file.path().to_path_buf();
    let size = file.size().map_err(Error::io("look at", file.path()))?;
    let mut page = [0; HEADER_SIZE as usize];
    let start = size.min(HEADER_SIZE) as usize;
    file.read(0, &mut page[..start]).map_err(Error::io("read", file.path()))?;
    let superblock = match Superblock::decode(&page) {
        Ok(superblock) => superblock,
        Err(HeaderError::Blank) => return Ok(None),
        Err(HeaderError::Alien(magic)) => {
            let found = magic.map(|byte| format!("{byte:02x}")).join(" ");
            return Err(Error::NotACache { path: path(), found });
        }
        Err(HeaderError::Incompatible(what, found, expected)) => {
            return Err(Error::Incompatible { path: path(), what, found, expected });
        }
        Err(HeaderError::Damaged) => {
            return Err(Error::Damaged { path: path(), what: "the superblock in its header" });
        }
    };
    if superblock.pointer_width != pointer_width() {
        return Err(Error::Incompatible {
            path: path(),
            what: "rkyv pointers of bits:",
            found: superblock.pointer_width.into(),
            expected: pointer_width().into(),
        });
    }
    let is_possible = superblock.first_index.is_plausible()
        && superblock.first_index.offset() == HEADER_SIZE
        && superblock.first_index.end() == superblock.log_start;
    if !is_possible {
        return Err(Error::Damaged { path: path(), what: "the superblock in its header" });
    }
    if size < superblock.log_start {
        return Err(Error::Damaged { path: path(), what: "it ends before its log begins" });
    }
    Ok(Some(superblock))
}

/// The path in another spelling: stores that are opened by it have nothing in common with those that are
/// opened by the first, as those of another process.
#[cfg(test)]
pub(crate) fn apart(path: &std::path::Path) -> PathBuf {
    let directory = path.parent().expect("a cache lies in a directory");
    let name = directory.file_name().expect("a directory made for it");
    directory.join("..").join(name).join(path.file_name().expect("a file"))
}
