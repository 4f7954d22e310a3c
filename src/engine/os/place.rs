//! Where a cache may lie. A map can be shared only with whom one trusts, so opening checks that the
//! file and its directory are this user's, that nobody else can exchange them, and that they are on a local
//! file system; each refusal says how to go on. Also the operations on names: create whole or not at all,
//! replace, remove.

use super::directory::{Directory, check_owner, exposed};
use super::effect::{Effect, precede};
use super::file::{CacheFile, Medium as _};
use super::volume::{Locality, locality};
use crate::error::{Error, Exposure, Result};
use once_cell::race::OnceBox;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, Timespec, Timestamps};
use rustix::io::Errno;
use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// How a file is read and written, and hence how much is asked of its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Care {
    /// Mapped; file and directory must be this user's, and nobody else may put others there.
    Checked,
    /// Mapped; the caller vouches for all who can write.
    Trusted,
    /// Read by copy and verified each time: any place will do.
    Copied,
}

/// Opens the file at `path`; `None` if there is none.
pub(crate) fn open(path: &Path, writable: bool, care: Care) -> Result<Option<CacheFile>> {
    let directory = match care {
        Care::Checked => Directory::open_checked(parent(path))?,
        Care::Trusted | Care::Copied => match Directory::open(parent(path)) {
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
    if care == Care::Checked {
        check_owner(path, data.uid(), data.mode())?;
        if data.nlink() > 1 {
            return Err(exposed(path, Exposure::HardLinks(data.nlink())));
        }
    }
    let locality = locality(&file).map_err(Error::io("look at", path))?;
    if let (Locality::Unknown(magic), Care::Checked) = (locality, care) {
        return Err(exposed(path, Exposure::NotLocal(magic)));
    }
    Ok(Some(CacheFile::new(file, path, writable, locality == Locality::Binding)))
}

/// Opens what has the name of `path` in a directory, if there is anything, and if it is no link.
fn open_in(directory: &Directory, path: &Path, writable: bool) -> Result<Option<File>> {
    let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
    // NONBLOCK: opening a FIFO must not wait for its other end.
    let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
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
fn name(path: &Path) -> &OsStr {
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

const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

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
fn create_unnamed(directory: &Directory) -> io::Result<Option<File>> {
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
    pub(crate) fn share(&self) -> Result<CacheFile> {
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

fn remove_in(directory: &Directory, path: &Path) -> Result<()> {
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

/// Names the running kernel; `None` where the system does not tell. A failure for want of descriptors or
/// memory is not that: it must not make a file that others use look like one from before a reboot.
pub(crate) fn boot_id() -> io::Result<Option<[u8; 16]>> {
    static BOOT_ID: OnceBox<[u8; 16]> = OnceBox::new();
    if let Some(boot_id) = BOOT_ID.get() {
        return Ok(Some(*boot_id));
    }
    let text = match read_boot_id() {
        Ok(text) => text,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => return Ok(None),
            _ => return Err(error),
        },
    };
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let boot_id = u128::from_str_radix(&digits, 16).ok().map(u128::to_le_bytes);
    Ok(boot_id.map(|boot_id| *BOOT_ID.get_or_init(|| Box::new(boot_id))))
}

#[cfg(target_os = "linux")]
fn read_boot_id() -> io::Result<String> {
    use std::io::Read as _;
    // No more than there is: files of this kind have no size, and looking for their end takes calls.
    let mut uuid = String::with_capacity(64);
    File::open("/proc/sys/kernel/random/boot_id")?.take(36).read_to_string(&mut uuid)?;
    Ok(uuid)
}

#[cfg(target_os = "macos")]
fn read_boot_id() -> io::Result<String> {
    let output = std::process::Command::new("/usr/sbin/sysctl")
        .args(["-n", "kern.bootsessionuuid"])
        .output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(io::Error::other("sysctl does not tell which boot this is")),
    }
}
