//! Files that appear whole or not at all: a new one, and one that takes the place of another.
//!
//! A new file has no name until all of it is on the device, where the system has files without names. Elsewhere, and
//! to replace a file, it is prepared beside the path, under a lock that elects who prepares it, and renamed.

use super::directory::{Directory, check_owner, exposed};
use super::effect::{Effect, precede};
use super::file::{CacheFile, Storage as _};
use super::place::{PRIVATE, create_unnamed, is_at, name, open_in, parent, remove_in, sibling};
use super::volume::{Locality, locality};
use crate::error::{Error, Exposure, Result};
use rustix::fs::{AtFlags, CWD, RenameFlags};
use rustix::io::Errno;
use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// Creates a file at `path` with what `fill` writes, whole or not at all, unless a file is there. `false`
/// if another process has begun to.
pub(crate) fn create(path: &Path, fill: impl Fn(&CacheFile) -> io::Result<()>) -> Result<bool> {
    let failed = || Error::io("create", path);
    let directory = Directory::open(parent(path)).map_err(failed())?;
    if let Some(file) = create_unnamed(&directory).map_err(failed())? {
        directory.give(&file).map_err(failed())?;
        let file = CacheFile::new(file, path, true, false);
        // On the device before it has a name: no power cut leaves half a header at the path.
        fill(&file).and_then(|()| file.sync()).map_err(failed())?;
        precede(Effect::Link { file: file.inner() }).map_err(failed())?;
        let unnamed = format!("/proc/self/fd/{}", file.inner().as_raw_fd());
        let flags = AtFlags::SYMLINK_FOLLOW;
        match rustix::fs::linkat(CWD, &*unnamed, &directory, name(path), flags) {
            Ok(()) | Err(Errno::EXIST) => return Ok(true),
            Err(_) => {} // No /proc: the other way.
        }
    }
    let new = Replacement::begin(path)?;
    if path.symlink_metadata().is_ok() {
        return Ok(true);
    }
    let Some(new) = new else { return Ok(false) };
    fill(&new.file).and_then(|()| new.file.sync()).map_err(failed())?;
    new.publish_new(path)?;
    Ok(true)
}

/// A file being prepared beside the one it is to replace. Whoever holds its lock is the only one.
/// Dropped before it is published, it is removed.
pub(crate) struct Replacement {
    pub(crate) file: CacheFile,
    directory: Directory,
    /// Whether the sibling's name is this file's, and goes with it.
    has_name: Cell<bool>,
}

/// How often the name of a replacement is tried for.
const TRIES: u32 = 4;

impl Replacement {
    /// Takes the sibling of `path`, empty. `None` if another process has it.
    pub(crate) fn begin(path: &Path) -> Result<Option<Replacement>> {
        let path = sibling(path);
        let failed = || Error::io("create", &path);
        for _ in 0..TRIES {
            let directory = Directory::open(parent(&path)).map_err(failed())?;
            let Some((file, is_made)) = make_or_open(&directory, &path)? else { continue };
            let binding = locality(&file).map_err(failed())? == Locality::Binding;
            let file = CacheFile::new(file, &path, true, binding);
            if !file.try_lock().map_err(failed())? {
                return Ok(None);
            }
            let new = Replacement { file, directory, has_name: Cell::new(false) };
            // Between opening and locking its former holder may have renamed it: then it is the cache.
            let data = new.file.inner().metadata().map_err(failed())?;
            if data.nlink() == 0 || !is_at(&new.file, &path).map_err(failed())? {
                return Ok(None);
            }
            let judged = match (data.is_file(), data.nlink()) {
                (false, _) => Err(exposed(&path, Exposure::NotAFile)),
                (true, 2..) => return Err(exposed(&path, Exposure::HardLinks(data.nlink()))),
                (true, _) => check_owner(&path, data.uid(), data.mode()),
            };
            if let (false, Err(exposure)) = (is_made, judged) {
                // Who put it there could write it when it is the cache. Its lock keeps whoever keeps to the
                // protocol from taking it, and its name, meanwhile.
                remove_in(&new.directory, &path).map_err(|_| exposure)?;
                continue;
            }
            // A leftover of one who died: nobody has it mapped, since it never was at its path.
            new.has_name.set(true);
            new.empty()?;
            return Ok(Some(new));
        }
        Err(Error::Unstable { path })
    }

    /// Gives up what was written so far.
    pub(crate) fn empty(&self) -> Result<()> {
        self.file.resize(0).map_err(Error::io("create", self.file.path()))
    }

    /// Another handle of the same file, under the lock of this one.
    pub(crate) fn reopen(&self) -> Result<CacheFile> {
        let failed = || Error::io("create", self.file.path());
        let file = self.file.inner().try_clone().map_err(failed())?;
        Ok(CacheFile::new(file, self.file.path(), true, self.file.is_binding()))
    }

    /// Puts the file in place of `former` at `path`, whose owner and mode it takes. Its lock stays until it
    /// is dropped.
    pub(crate) fn publish(&self, path: &Path, former: &CacheFile) -> Result<()> {
        self.inherit(former).map_err(Error::io("keep the owner of", path))?;
        self.rename(path, RenameFlags::empty())
    }

    /// Puts the file at `path`, unless something is there.
    fn publish_new(&self, path: &Path) -> Result<()> {
        match self.rename(path, RenameFlags::NOREPLACE) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                Ok(())
            }
            result => result,
        }
    }

    fn rename(&self, path: &Path, flags: RenameFlags) -> Result<()> {
        let (directory, from) = (&self.directory, self.file.path());
        let replace = || rustix::fs::renameat(directory, name(from), directory, name(path));
        let rename = || match flags.is_empty() {
            true => replace(),
            false => rustix::fs::renameat_with(directory, name(from), directory, name(path), flags),
        };
        let renamed = precede(Effect::Rename { from }).and_then(|()| match rename() {
            // Not every file system can refuse to replace.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(replace()?),
            renamed => Ok(renamed?),
        });
        renamed.map_err(Error::io("replace", path))?;
        self.has_name.set(false);
        Ok(())
    }

    /// Gives the file the owner and the mode of another: who could use that one can use this one.
    fn inherit(&self, former: &CacheFile) -> io::Result<()> {
        let (old, new) = (former.inner().metadata()?, self.file.inner().metadata()?);
        let mut mode = old.mode() & 0o777;
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            precede(Effect::Own)?;
            match std::os::unix::fs::fchown(self.file.inner(), Some(old.uid()), Some(old.gid())) {
                // Its group is none of this user's, and this file's may not do what that could.
                Err(_) if old.uid() == new.uid() => mode &= !0o070,
                result => result?,
            }
        }
        if mode != new.mode() & 0o777 {
            precede(Effect::Own)?;
            self.file.inner().set_permissions(fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if self.has_name.get() {
            // Under its lock, so it is still this one that has the name; a leftover does no harm.
            let _ = remove_in(&self.directory, self.file.path());
        }
        // Not by closing alone: a child forked meanwhile has the descriptor too.
        self.file.unlock();
    }
}

/// Makes the file at `path`, or opens the one that is there; `true` if it was made. `None` if that has just
/// gone.
fn make_or_open(directory: &Directory, path: &Path) -> Result<Option<(File, bool)>> {
    match directory.create(name(path), PRIVATE) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made.map(|file| Some((file, true))).map_err(Error::io("create", path)),
    }
    let opened = open_in(directory, path, true);
    if let (Err(Error::Io { .. }), Ok(data)) = (&opened, path.symlink_metadata()) {
        check_owner(path, data.uid(), 0)?; // Says why, if that is why.
    }
    Ok(opened?.map(|file| (file, false)))
}
