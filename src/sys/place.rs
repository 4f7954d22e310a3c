//! Where a cache may lie. A map can be shared only with whom one trusts, so opening checks that the
//! file and its directory are this user's, and on a local file system; each refusal says how to go
//! on. Also the operations on names: create whole or not at all, replace, remove.

use super::effect::{Effect, precede};
use super::file::{CacheFile, Medium as _, write_small};
use crate::error::{Error, Exposure, Result};
use once_cell::race::OnceBox;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// How a file is read and written, and hence how much is asked of its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Care {
    /// Mapped; file and directory must be this user's.
    Checked,
    /// Mapped; the caller vouches for all who can write.
    Trusted,
    /// Read by copy and verified each time: any place will do.
    Copied,
}

/// Opens the file at `path`; `None` if there is none.
pub(crate) fn open(path: &Path, writable: bool, care: Care) -> Result<Option<CacheFile>> {
    if care == Care::Checked {
        check_directory(parent(path))?;
    }
    let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
    // NONBLOCK: opening a FIFO must not wait for its other end.
    let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(rustix::io::Errno::LOOP) => return Err(exposed(path, Exposure::Symlink)),
        Err(rustix::io::Errno::ISDIR | rustix::io::Errno::NXIO) => {
            return Err(exposed(path, Exposure::NotAFile));
        }
        Err(error) => return Err(Error::io("open", path)(error.into())),
    };
    let data = file.metadata().map_err(Error::io("look at", path))?;
    if !data.is_file() {
        return Err(exposed(path, Exposure::NotAFile));
    }
    if data.nlink() == 0 {
        return Ok(None);
    }
    if care == Care::Checked {
        check_owner(path, &data)?;
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

fn exposed(path: &Path, exposure: Exposure) -> Error {
    Error::Exposed { path: path.to_path_buf(), exposure }
}

fn check_directory(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(data) => check_owner(path, &data),
        // There is no file in it either, which is for the caller to say.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("look at", path)(error)),
    }
}

fn check_owner(path: &Path, data: &fs::Metadata) -> Result<()> {
    let (owner, user) = (data.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        return Err(exposed(path, Exposure::ForeignOwner { owner, user }));
    }
    match data.mode() & 0o022 {
        0 => Ok(()),
        _ => Err(exposed(path, Exposure::WritableByOthers(data.mode() & 0o777))),
    }
}

/// The directory that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The sibling in which a replacement is prepared. Its lock elects the one who does it.
pub(crate) fn sibling(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".new");
    PathBuf::from(name)
}

/// The file beside a cache in which computations under way are claimed; made if it is missing.
pub(crate) fn open_sidecar(path: &Path) -> io::Result<File> {
    let mut name = path.as_os_str().to_os_string();
    name.push(".claims");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(&name, flags | OFlags::NONBLOCK, Mode::RUSR | Mode::WUSR)?;
    Ok(File::from(file))
}

/// A file without a name in the directory of `path`, gone with its handle.
pub(crate) fn scratch(path: &Path) -> io::Result<CacheFile> {
    let file = |file| CacheFile::new(File::from(file), path, true, false);
    let mode = Mode::RUSR | Mode::WUSR;
    #[cfg(target_os = "linux")]
    {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::TMPFILE;
        match rustix::fs::open(parent(path), flags, mode) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {}
            result => return Ok(file(result?)),
        }
    }
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Relaxed: nothing but distinct numbers is asked for.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut name = path.as_os_str().to_os_string();
    name.push(format!(".{}.{number}.scratch", std::process::id()));
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let scratch = rustix::fs::open(&name, flags, mode)?;
    fs::remove_file(&name)?;
    Ok(file(scratch))
}

/// Creates a file at `path` with what `fill` writes, whole or not at all. `false` if a file is there.
pub(crate) fn create(path: &Path, fill: impl Fn(&CacheFile) -> io::Result<()>) -> Result<bool> {
    let failed = || Error::io("create", path);
    #[cfg(target_os = "linux")]
    {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::TMPFILE;
        match rustix::fs::open(parent(path), flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => {
                use std::os::fd::AsRawFd as _;
                let file = CacheFile::new(File::from(file), path, true, false);
                // On the device before it has a name: no power cut leaves half a header at the path.
                fill(&file).and_then(|()| file.sync()).map_err(failed())?;
                precede(Effect::Link { file: file.inner() }).map_err(failed())?;
                let name = format!("/proc/self/fd/{}", file.inner().as_raw_fd());
                match rustix::fs::linkat(CWD, &*name, CWD, path, AtFlags::SYMLINK_FOLLOW) {
                    Ok(()) => return Ok(true),
                    Err(rustix::io::Errno::EXIST) => return Ok(false),
                    Err(_) => {} // No /proc: the other way.
                }
            }
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {}
            Err(error) => return Err(failed()(error.into())),
        }
    }
    let Some(new) = Replacement::begin(path)? else { return Ok(false) };
    if path.symlink_metadata().is_ok() {
        return Ok(false);
    }
    fill(&new.file).and_then(|()| new.file.sync()).map_err(failed())?;
    new.publish(path)?;
    Ok(true)
}

/// A file being prepared beside the one it is to replace. Whoever holds its lock is the only one.
/// Dropped before it is published, it is removed.
pub(crate) struct Replacement {
    pub(crate) file: CacheFile,
    is_published: Cell<bool>,
}

impl Replacement {
    /// Takes the sibling of `path`, empty. `None` if another process has it.
    pub(crate) fn begin(path: &Path) -> Result<Option<Replacement>> {
        let name = sibling(path);
        let failed = || Error::io("create", &name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(&name, flags, Mode::RUSR | Mode::WUSR);
        let file = File::from(file.map_err(io::Error::from).map_err(failed())?);
        let binding = locality(&file).map_err(failed())? == Locality::Binding;
        let file = CacheFile::new(file, &name, true, binding);
        if !file.try_lock().map_err(failed())? {
            return Ok(None);
        }
        // Between opening and locking its former holder may have renamed it: then it is the cache.
        let data = file.inner().metadata().map_err(failed())?;
        if !is_at(&file, &name).map_err(failed())? || data.nlink() != 1 {
            // Not by closing alone: a child forked meanwhile has the descriptor too.
            file.unlock();
            return match data.nlink() {
                0 | 1 => Ok(None),
                links => Err(exposed(&name, Exposure::HardLinks(links))),
            };
        }
        // A leftover of one who died: nobody has it mapped, since it never was at its path.
        let new = Replacement { file, is_published: Cell::new(false) };
        new.empty()?;
        Ok(Some(new))
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

    /// Puts the file in place of what is at `path`. Its lock stays until it is dropped.
    pub(crate) fn publish(&self, path: &Path) -> Result<()> {
        let from = self.file.path();
        precede(Effect::Rename { from })
            .and_then(|()| fs::rename(from, path))
            .map_err(Error::io("replace", path))?;
        self.is_published.set(true);
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.is_published.get() {
            // Under its lock, so it is still this one that has the name; a leftover does no harm.
            let _ = remove(self.file.path());
        }
        // Not by closing alone: a child forked meanwhile has the descriptor too.
        self.file.unlock();
    }
}

/// Whether the file at `path` is this one. Compared with a file held open, whose number cannot be
/// used again meanwhile.
pub(crate) fn is_at(file: &CacheFile, path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(data) => Ok((data.dev(), data.ino()) == file.identity()?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a name.
pub(crate) fn remove(path: &Path) -> Result<()> {
    precede(Effect::Remove { path })
        .and_then(|()| fs::remove_file(path))
        .map_err(Error::io("remove", path))
}

/// Makes names in the directory of `path` durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    let directory = parent(path);
    precede(Effect::SyncDirectory)
        .and_then(|()| File::open(directory)?.sync_all())
        .map_err(Error::io("sync", directory))
}

/// Makes a root for caches, with the marks that keep backups and version control away.
pub(crate) fn make_root(root: &Path) -> Result<()> {
    if root.is_dir() {
        return Ok(());
    }
    let failed = || Error::io("create", root);
    let missing: Vec<&Path> = root.ancestors().take_while(|path| !path.is_dir()).collect();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(failed())?;
    for made in missing.into_iter().filter(|path| !path.as_os_str().is_empty()) {
        // What is synced in it later is of no use if the directory's own name is lost. Where the system
        // syncs no directories, there is nothing more to be done.
        let _ = sync_directory(made);
    }
    let tag = "Signature: 8a477f597d28d172789f06886806bc55\n\
        # This directory holds caches of memoised functions and may be deleted.\n";
    for (name, text) in [("CACHEDIR.TAG", tag), (".gitignore", "*\n")] {
        File::create(root.join(name))
            .and_then(|file| write_small(&file, text.as_bytes()))
            .map_err(failed())?;
    }
    Ok(())
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

/// What is known of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Locality {
    /// Local, and allocated space takes every later store.
    Binding,
    /// Local; a store into allocated space may still fail.
    Local,
    /// A network file system, or one that is not on the list.
    Unknown(u64),
}

#[cfg(target_os = "linux")]
fn locality(file: &File) -> io::Result<Locality> {
    let magic = rustix::fs::fstatfs(file)?.f_type as u64;
    Ok(match magic {
        // ext2 to 4, xfs, tmpfs.
        0xef53 | 0x5846_5342 | 0x0102_1994 => Locality::Binding,
        // btrfs, overlayfs, zfs, f2fs, bcachefs, ramfs, jfs, nilfs2, squashfs, erofs, ecryptfs.
        0x9123_683e | 0x794c_7630 | 0x2fc1_2fc1 | 0xf2f5_2010 | 0xca45_1a4e | 0x8584_58f6
        | 0x3153_464a | 0x3434 | 0x7371_7368 | 0xe0f5_e1e2 | 0xf15f => Locality::Local,
        unknown => Locality::Unknown(unknown),
    })
}

#[cfg(target_os = "macos")]
fn locality(file: &File) -> io::Result<Locality> {
    let system = rustix::fs::fstatfs(file)?;
    let name: Vec<u8> =
        system.f_fstypename.iter().map(|c| *c as u8).take_while(|c| *c != 0).collect();
    Ok(match &*name {
        b"apfs" => Locality::Binding,
        b"hfs" => Locality::Local,
        _ => Locality::Unknown(u64::from(system.f_type)),
    })
}
