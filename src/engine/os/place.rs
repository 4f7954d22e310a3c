//! Where a cache may lie. A map can be shared only with whom one trusts, so opening checks that the
//! file and its directory are this user's, that nobody else can exchange them, and that they are on a local
//! file system; each refusal says how to go on. Also the operations on names: create whole or not at all,
//! replace, remove.

use super::directory::{Directory, check_owner, exposed};
use super::effect::{Effect, precede};
use super::file::CacheFile;
use super::volume::{Locality, locality};
use crate::error::{Error, Exposure, Result};
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
#[cfg(test)]
use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// How a file is read and written, and hence how much is asked of its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AccessMode {
    /// Mapped; file and directory must be this user's, and nobody else may put others there.
    Checked,
    /// Mapped; the caller vouches for all who can write.
    Trusted,
    /// Read by copy and verified each time: any place will do.
    Copied,
}

/// Opens the file at `path`; `None` if there is none.
pub(crate) fn open(path: &Path, writable: bool, access: AccessMode) -> Result<Option<CacheFile>> {
    let directory = match access {
        AccessMode::Checked => Directory::open_checked(parent(path))?,
        AccessMode::Trusted | AccessMode::Copied => match Directory::open(parent(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            directory => Some(directory.map_err(Error::io("open", parent(path)))?),
        },
    };
    let Some(directory) = directory else { return Ok(None) };
    let Some(file) = open_in(&directory, path, writable)? else { return Ok(None) };
    let data = file.metadata().map_err(Error::io("look at", path))?;
    if !data.is_file() {
        return Err(exposed(path, Exposure::NotAFile));
    }
    if data.nlink() == 0 {
        return Ok(None);
    }
    if access == AccessMode::Checked {
        check_owner(path, data.uid(), data.mode())?;
        if data.nlink() > 1 {
            return Err(exposed(path, Exposure::HardLinks(data.nlink())));
        }
    }
    let locality = locality(&file).map_err(Error::io("look at", path))?;
    if let (Locality::Unknown(magic), AccessMode::Checked) = (locality, access) {
        return Err(exposed(path, Exposure::NotLocal(magic)));
    }
    Ok(Some(CacheFile::new(file, path, writable, locality == Locality::Binding)))
}

/// Opens what has the name of `path` in a directory, if there is anything, and if it is no link.
pub(super) fn open_in(directory: &Directory, path: &Path, writable: bool) -> Result<Option<File>> {
    let rights = if writable { OFlags::RDWR } else { OFlags::RDONLY };
    // NONBLOCK: opening a FIFO must not wait for its other end.
    let flags = rights | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    match rustix::fs::openat(directory, name(path), flags, Mode::empty()) {
        Ok(file) => Ok(Some(File::from(file))),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP) => Err(exposed(path, Exposure::Symlink)),
        Err(Errno::ISDIR | Errno::NXIO) => Err(exposed(path, Exposure::NotAFile)),
        Err(error) => Err(Error::io("open", path)(error.into())),
    }
}

/// The directory that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The name of `path` in its directory.
pub(super) fn name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or(OsStr::new("."))
}

/// The sibling in which a replacement is prepared. Its lock elects the one who does it.
pub(crate) fn sibling(path: &Path) -> PathBuf {
    beside(path, ".new")
}

/// The file beside a cache in which computations under way are claimed.
fn sidecar(path: &Path) -> PathBuf {
    beside(path, ".claims")
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(ending);
    PathBuf::from(name)
}

pub(super) const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The file beside a cache in which computations under way are claimed, open.
pub(crate) struct Sidecar {
    pub(crate) file: File,
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Sidecar {
    /// Whether the file has its name no more: it was removed or renamed, or its directory was. Where the system
    /// does not tell, it has it.
    pub(crate) fn is_gone(&self) -> bool {
        !is_named(self.identity, &self.path).unwrap_or(true)
    }
}

/// The sidecar of the cache at `path`; made if it is missing.
pub(crate) fn open_sidecar(path: &Path) -> Result<Sidecar> {
    let path = sidecar(path);
    let failed = || Error::io("open", &path);
    let directory = Directory::open(parent(&path)).map_err(failed())?;
    loop {
        if let Some(file) = open_in(&directory, &path, true)? {
            let data = file.metadata().map_err(failed())?;
            if !data.is_file() {
                return Err(exposed(&path, Exposure::NotAFile));
            }
            // A stranger's could be locked for good, and every computation would wait for him.
            let keeper = directory.owner().map_err(failed())?.0;
            if data.uid() != keeper && data.uid() != 0 {
                check_owner(&path, data.uid(), 0)?;
            }
            return Ok(Sidecar { file, identity: (data.dev(), data.ino()), path });
        }
        match directory.create(name(&path), PRIVATE) {
            // The next round opens it, as it does one that another has made just now.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed()(error));
            }
            _ => {}
        }
    }
}

/// Makes the times of a file the present: what removes files that nobody has used for long spares it.
pub(crate) fn touch(file: &File) -> io::Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    precede(Effect::Touch)?;
    Ok(rustix::fs::futimens(file, &Timestamps { last_access: now, last_modification: now })?)
}

/// Makes a file without a name in a directory; `None` where the system has none.
pub(super) fn create_unnamed(directory: &Directory) -> io::Result<Option<File>> {
    #[cfg(test)]
    if !HAS_UNNAMED.get() {
        return Ok(None);
    }
    #[cfg(target_os = "linux")]
    {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::TMPFILE;
        match rustix::fs::openat(directory, ".", flags, PRIVATE) {
            Err(Errno::OPNOTSUPP | Errno::ISDIR) => Ok(None),
            file => Ok(Some(File::from(file?))),
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = directory;
        Ok(None)
    }
}

#[cfg(test)]
thread_local! {
    /// Whether this thread's system makes files without names: for tests of what is done where it does not.
    pub(crate) static HAS_UNNAMED: Cell<bool> = const { Cell::new(true) };
}

/// A file without a name in the directory of `path`, gone with its handle.
pub(crate) fn scratch(path: &Path) -> io::Result<CacheFile> {
    let directory = Directory::open(parent(path))?;
    if let Some(file) = create_unnamed(&directory)? {
        return Ok(CacheFile::new(file, path, true, false));
    }
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Relaxed: nothing but distinct numbers is asked for.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = beside(path, &format!(".{}.{number}.scratch", std::process::id()));
    let file = directory.create(name(&path), PRIVATE)?;
    rustix::fs::unlinkat(&directory, name(&path), AtFlags::empty())?;
    Ok(CacheFile::new(file, &path, true, false))
}

/// Whether the file at `path` is this one. Compared with a file held open, whose number cannot be
/// used again meanwhile.
pub(crate) fn is_at(file: &CacheFile, path: &Path) -> io::Result<bool> {
    is_named(file.identity()?, path)
}

fn is_named(identity: (u64, u64), path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(data) => Ok((data.dev(), data.ino()) == identity),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a name.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let directory = Directory::open(parent(path)).map_err(Error::io("remove", path))?;
    remove_in(&directory, path)
}

pub(super) fn remove_in(directory: &Directory, path: &Path) -> Result<()> {
    precede(Effect::Remove { path })
        .and_then(|()| Ok(rustix::fs::unlinkat(directory, name(path), AtFlags::empty())?))
        .map_err(Error::io("remove", path))
}

/// Makes names in the directory of `path` durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    let directory = parent(path);
    Directory::open(directory)
        .and_then(|directory| directory.sync())
        .map_err(Error::io("sync", directory))
}
