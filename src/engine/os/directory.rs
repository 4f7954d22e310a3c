//! A directory, held by a descriptor: what is done to names in it is done in this very directory,
//! whatever becomes of its path. Also who could put another one in its place, and new roots for caches.

use super::effect::{Effect, precede};
use super::file::{CacheFile, Storage as _};
use crate::error::{Error, Exposure, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Component, Path, PathBuf};

/// How many links a path may lead through: as many as Linux follows.
const LINKS_MAX: u32 = 40;

/// For looking at a directory and for reaching names in it, which needs no right to list them.
#[cfg(target_os = "linux")]
const ACCESS: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const ACCESS: OFlags = OFlags::from_bits_retain(libc::O_SEARCH.cast_unsigned());

/// An open directory.
pub(crate) struct Directory {
    descriptor: File,
    path: PathBuf,
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Directory {
    /// The directory at `path`, wherever that leads.
    pub(crate) fn open(path: &Path) -> io::Result<Directory> {
        let flags = ACCESS | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        Ok(Directory { descriptor, path: path.to_path_buf() })
    }

    /// The directory at `path`, if it is this user's alone and nobody else could put another one there.
    /// `None` if there is none.
    pub(crate) fn open_checked(path: &Path) -> Result<Option<Directory>> {
        let mut walk = Walk::new(path, true)?;
        while let Some(name) = walk.names.pop() {
            if !walk.step(&name)? {
                return Ok(None);
            }
        }
        let data = walk.at.look()?;
        check_owner(&walk.at.path, data.uid(), data.mode())?;
        Ok(Some(walk.at))
    }

    /// The directory of this name in it, which is not a link.
    fn enter(&self, name: &OsStr) -> rustix::io::Result<File> {
        let flags = ACCESS | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(self, name, flags, Mode::empty()).map(File::from)
    }

    /// Its metadata, of the descriptor that is held: whatever has its name by now.
    fn look(&self) -> Result<Metadata> {
        self.descriptor.metadata().map_err(Error::io("look at", &self.path))
    }

    /// Its user and its group.
    pub(crate) fn owner(&self) -> io::Result<(u32, u32)> {
        let data = self.descriptor.metadata()?;
        Ok((data.uid(), data.gid()))
    }

    /// The same directory, open as a file.
    fn to_file(&self) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(self, ".", flags, Mode::empty())?))
    }

    /// Makes the names in it durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        precede(Effect::SyncDirectory)?;
        self.to_file()?.sync_all()
    }

    /// Makes a file of this name, which must be new; for reading and writing. It is the directory's
    /// owner's: see [`give`](Directory::give).
    pub(crate) fn create(&self, name: &OsStr, mode: Mode) -> io::Result<File> {
        // Neither flag follows a link, wherever that leads.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = File::from(rustix::fs::openat(self, name, flags | OFlags::CLOEXEC, mode)?);
        self.give(&file)?;
        Ok(file)
    }

    /// Root leaves nothing in a user's directory that its owner could not write: what this process has made
    /// there becomes the owner's.
    pub(crate) fn give(&self, made: &File) -> io::Result<()> {
        if !geteuid().is_root() {
            return Ok(());
        }
        let (owner, group) = self.owner()?;
        if owner == 0 {
            return Ok(());
        }
        precede(Effect::Own)?;
        fchown(made, Some(owner), Some(group))
    }

    /// Writes a small file, unless there is one of that name.
    fn mark(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path.join(name);
        let failed = || Error::io("create", &path);
        match self.create(OsStr::new(name), Mode::from_raw_mode(0o644)) {
            Ok(file) => {
                let file = CacheFile::new(file, &path, true, false);
                file.write(0, text.as_bytes()).map_err(failed())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(failed()(error)),
        }
    }
}

/// Makes a root for caches, with the marks that keep backups and version control away. If it
/// `is_checked`, nothing is made where others could put another directory in the place of one on the way.
pub(crate) fn make_root(root: &Path, is_checked: bool) -> Result<()> {
    if root.is_dir() {
        return Ok(());
    }
    let mut walk = Walk::new(root, is_checked)?;
    let mut is_made = false;
    while let Some(name) = walk.names.pop() {
        is_made = !walk.step(&name)? && walk.make(name)?;
    }
    if !is_made {
        return Ok(()); // By another process, which marks it.
    }
    walk.at.mark(
        "CACHEDIR.TAG",
        "Signature: 8a477f597d28d172789f06886806bc55\n\
         # This directory holds caches of memoised functions and may be deleted.\n",
    )?;
    walk.at.mark(".gitignore", "*\n")
}

/// The way from `/` to a directory, one name after the other. Links are followed here and not by the
/// system: so it is known who made them, and what is looked at is what is gone through.
struct Walk {
    at: Directory,
    /// The names to come, the next one last.
    names: Vec<OsString>,
    links: u32,
    is_checked: bool,
}

impl Walk {
    fn new(path: &Path, is_checked: bool) -> Result<Walk> {
        let path = std::path::absolute(path).map_err(Error::io("find", path))?;
        let root = Path::new("/");
        let at = Directory::open(root).map_err(Error::io("open", root))?;
        let mut walk = Walk { at, names: Vec::new(), links: 0, is_checked };
        walk.check()?;
        walk.push(&path);
        Ok(walk)
    }

    fn push(&mut self, path: &Path) {
        self.names.extend(path.components().rev().filter_map(|part| match part {
            Component::Normal(_) | Component::ParentDir => Some(part.as_os_str().to_os_string()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        }));
    }

    /// Goes on to the directory of this name, or to where the link of this name leads. `false` if there is
    /// neither.
    fn step(&mut self, name: &OsStr) -> Result<bool> {
        match self.at.enter(name) {
            Ok(descriptor) => self.arrive(descriptor, name).map(|()| true),
            Err(Errno::NOENT) => Ok(false),
            // Not a directory, or a link: the system has either number for both.
            Err(Errno::NOTDIR | Errno::LOOP) => self.follow(name).map(|()| true),
            Err(error) => Err(Error::io("open", &self.at.path.join(name))(error.into())),
        }
    }

    fn arrive(&mut self, descriptor: File, name: &OsStr) -> Result<()> {
        let mut path = std::mem::take(&mut self.at.path);
        match name == ".." {
            true => drop(path.pop()),
            false => path.push(name),
        }
        self.at = Directory { descriptor, path };
        self.check()
    }

    fn follow(&mut self, name: &OsStr) -> Result<()> {
        let path = self.at.path.join(name);
        let failed = |error: Errno| Error::io("open", &path)(error.into());
        let stat = rustix::fs::statat(&self.at, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return Err(failed(Errno::NOTDIR));
        }
        if self.is_checked {
            // Whoever made it could let it lead elsewhere the next time.
            check_keeper(&path, stat.st_uid)?;
        }
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(failed(Errno::LOOP));
        }
        let target = rustix::fs::readlinkat(&self.at, name, Vec::new()).map_err(failed)?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            self.at = Directory::open(Path::new("/")).map_err(Error::io("open", &target))?;
        }
        self.push(&target);
        Ok(())
    }

    /// Makes a directory and goes there. `false` if another process was in time, or another user has put
    /// something else there since: this process did not make what is there.
    fn make(&mut self, name: OsString) -> Result<bool> {
        let path = self.at.path.join(&name);
        let failed = || Error::io("create", &path);
        precede(Effect::MakeDirectory).map_err(failed())?;
        match rustix::fs::mkdirat(&self.at, &name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                self.names.push(name);
                return Ok(false);
            }
            Err(error) => return Err(failed()(error.into())),
        }
        let descriptor = self.at.enter(&name).map_err(io::Error::from).map_err(failed())?;
        let made = Directory { descriptor, path: path.clone() };
        let is_own = is_own_and_empty(&made).map_err(failed())?;
        if is_own {
            made.to_file().and_then(|file| self.at.give(&file)).map_err(failed())?;
        }
        // What is synced in it later is of no use if the directory's own name is lost. Where the system
        // syncs no directories, there is nothing more to be done.
        let _ = self.at.sync();
        self.arrive(made.descriptor, &name)?;
        Ok(is_own)
    }

    /// Refuses a directory in which others could put another one in the place of the next.
    fn check(&self) -> Result<()> {
        if !self.is_checked {
            return Ok(());
        }
        let (path, data) = (&self.at.path, self.at.look()?);
        check_keeper(path, data.uid())?;
        let mode = data.mode();
        // In a sticky directory, names can be changed by their owners alone.
        let is_safe = mode & 0o022 == 0 || mode & 0o1000 != 0;
        if is_safe || mode & 0o002 == 0 && is_private(&self.at, data.gid()) {
            return Ok(());
        }
        Err(exposed(path, Exposure::WritableByOthers(mode & 0o777)))
    }
}

/// Whether a directory is this user's and nothing is in it. What is given away must be what was made: where
/// others can change names, it may be another one by now.
fn is_own_and_empty(directory: &Directory) -> io::Result<bool> {
    if directory.owner()?.0 != geteuid().as_raw() {
        return Ok(false);
    }
    let mut names = rustix::fs::Dir::read_from(directory.to_file()?)?;
    let is_other = |name: &[u8]| name != b"." && name != b"..";
    Ok(!names.any(|entry| entry.is_ok_and(|entry| is_other(entry.file_name().to_bytes()))))
}

pub(crate) fn exposed(path: &Path, exposure: Exposure) -> Error {
    Error::Exposed { path: path.to_path_buf(), exposure }
}

/// Refuses what does not belong to this user alone.
pub(crate) fn check_owner(path: &Path, owner: u32, mode: u32) -> Result<()> {
    let user = geteuid().as_raw();
    if owner != user {
        return Err(exposed(path, Exposure::ForeignOwner { owner, user }));
    }
    match mode & 0o022 {
        0 => Ok(()),
        _ => Err(exposed(path, Exposure::WritableByOthers(mode & 0o777))),
    }
}

/// Refuses what belongs to neither this user nor root, who may do what he likes in any case.
fn check_keeper(path: &Path, owner: u32) -> Result<()> {
    let user = geteuid().as_raw();
    match owner == user || owner == 0 {
        true => Ok(()),
        false => Err(exposed(path, Exposure::ForeignOwner { owner, user })),
    }
}

/// Whether nobody but this user is in the group that may write a directory. Many systems give every user
/// such a group, and let new directories be writable by it.
fn is_private(directory: &Directory, group: u32) -> bool {
    let read = |path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let (Ok(users), Ok(groups)) = (read("/etc/passwd"), read("/etc/group")) else { return false };
    has_one_member(&users, &groups, group, geteuid().as_raw()) && !has_access_list(directory)
}

/// Whether a group is a user's own by what `/etc/passwd` and `/etc/group` say, and has no other member.
fn has_one_member(users: &str, groups: &str, group: u32, user: u32) -> bool {
    fn table(text: &str) -> impl Iterator<Item = Vec<&str>> {
        text.lines().map(|line| line.split(':').collect())
    }
    let (group, user) = (group.to_string(), user.to_string());
    // Of a user: name, password, number, group. Of a group: name, password, number, members.
    let is_user = |line: &Vec<&str>| line.get(2) == Some(&&*user);
    let is_name = |name: &str| table(users).any(|line| line[0] == name && is_user(&line));
    let mut whose = table(users).filter(|line| line.get(3) == Some(&&*group)).peekable();
    let mut members = table(groups)
        .filter(|line| line.get(2) == Some(&&*group))
        .flat_map(|line| line.get(3).copied().unwrap_or_default().split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty());
    whose.peek().is_some() && whose.all(|line| is_user(&line)) && members.all(is_name)
}

/// Whether a list names others who may write: then the mode's bits for the group are theirs too.
#[cfg(target_os = "linux")]
fn has_access_list(directory: &Directory) -> bool {
    let Ok(file) = directory.to_file() else { return true };
    let size = rustix::fs::fgetxattr(&file, "system.posix_acl_access", &mut [0_u8; 0]);
    !matches!(size, Err(Errno::NODATA | Errno::OPNOTSUPP))
}

#[cfg(not(target_os = "linux"))]
fn has_access_list(_: &Directory) -> bool {
    false // Its entries are no part of the mode.
}

#[cfg(test)]
mod tests {
    use super::{has_one_member, make_root};
    use crate::error::Error;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    #[test]
    fn a_group_is_private_if_nobody_else_is_in_it() {
        let users = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/:\nbob:x:1001:1001::/:\n\
            eve:x:1002:1001::/:\nbroken\n:::\n";
        let groups = |members: &str| format!("root:x:0:\nann:x:1000:{members}\nbob:x:1001:\n");
        let is_anns = |members| has_one_member(users, &groups(members), 1000, 1000);
        assert!(is_anns("") && is_anns("ann") && is_anns("ann,ann"));
        assert!(!is_anns("eve") && !is_anns("ann,eve") && !is_anns("nobody"));
        // It is another's, is the first group of two, or is nobody's first group.
        assert!(!has_one_member(users, &groups(""), 1000, 1001));
        assert!(!has_one_member(users, &groups(""), 1001, 1001));
        assert!(!has_one_member(users, "staff:x:50:ann\n", 50, 1000));
        assert!(!has_one_member("", "", 1000, 1000));
    }

    #[test]
    fn a_root_is_made_with_all_on_the_way_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        make_root(&at("a/b/../c/./root"), true).unwrap();
        symlink(at("a/c"), at("absolute")).unwrap();
        symlink("a/c", at("relative")).unwrap();
        symlink("../a/c/later", at("a/dangling")).unwrap();
        make_root(&at("absolute/one"), true).unwrap();
        make_root(&at("relative/../c/two"), true).unwrap();
        make_root(&at("a/dangling/three"), true).unwrap();
        for root in ["a/c/root", "a/c/one", "a/c/two", "a/c/later/three"] {
            assert!(
                at(root).join("CACHEDIR.TAG").is_file() && at(root).join(".gitignore").is_file()
            );
            assert_eq!(at(root).metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
        assert!(!at("a/c/later").join("CACHEDIR.TAG").exists(), "a root alone is marked");
        symlink("circle", at("circle")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        for wrong in ["circle/root", "circle", "file/root", "file"] {
            let error = make_root(&at(wrong), true).unwrap_err();
            assert!(matches!(error, Error::Io { .. }), "{error}");
        }
        make_root(Path::new("/"), true).unwrap();
    }
}
