//! What is known of the file system that a file lies on: whether maps of it may be shared, and what a store into
//! one, or a load from a hole, may cost.
//!
//! It is told by the magic number that `statfs` gives. On file systems that are not known nothing is believed: a
//! place is refused, or its files are reached by system calls.

use std::fs::File;
use std::io;

/// What is known of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Locality {
    /// Local, and allocated space takes every later store.
    Binding,
    /// Local; a store into allocated space may still fail.
    Local,
    /// A network file system, or one that is not on the list.
    Unknown(u64),
}

#[cfg(target_os = "linux")]
mod magic {
    /// ext2, ext3 and ext4.
    pub(super) const EXT: u64 = 0xef53;
    pub(super) const TMPFS: u64 = 0x0102_1994;
    pub(super) const XFS: u64 = 0x5846_5342;
    pub(super) const BTRFS: u64 = 0x9123_683e;
    pub(super) const OVERLAYFS: u64 = 0x794c_7630;
    /// zfs, f2fs, bcachefs, ramfs, jfs, nilfs2, squashfs, erofs, ecryptfs.
    pub(super) const OTHERS: [u64; 9] = [
        0x2fc1_2fc1,
        0xf2f5_2010,
        0xca45_1a4e,
        0x8584_58f6,
        0x3153_464a,
        0x3434,
        0x7371_7368,
        0xe0f5_e1e2,
        0xf15f,
    ];
}

#[cfg(target_os = "linux")]
fn magic_of(file: &File) -> io::Result<u64> {
    Ok(rustix::fs::fstatfs(file)?.f_type as u64)
}

/// What is known of the file system of a file. Where blocks can be shared (XFS, btrfs, and most that are
/// newer), a copy or a snapshot may share those of an open cache at any time, without a word: each page then
/// takes new space when it is next changed. So nothing binds there.
#[cfg(target_os = "linux")]
pub(crate) fn locality(file: &File) -> io::Result<Locality> {
    Ok(match magic_of(file)? {
        magic::TMPFS => Locality::Binding,
        magic::EXT if has_extents(file)? => Locality::Binding,
        magic::EXT | magic::XFS | magic::BTRFS | magic::OVERLAYFS => Locality::Local,
        other if magic::OTHERS.contains(&other) => Locality::Local,
        unknown => Locality::Unknown(unknown),
    })
}

/// Whether a file of an ext file system can have space that nothing was written to: those of ext2 and ext3
/// cannot, and tell by their flags alone.
#[cfg(target_os = "linux")]
fn has_extents(file: &File) -> io::Result<bool> {
    const EXTENTS: u32 = 0x0008_0000;
    match rustix::fs::ioctl_getflags(file) {
        Ok(flags) => Ok(flags.bits() & EXTENTS != 0),
        // One that does not tell, a layer above say: nothing is taken for granted.
        Err(rustix::io::Errno::NOTTY | rustix::io::Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether a hole costs nothing: a page of it that is loaded through a map takes no disk space. On tmpfs it
/// does, and is a signal if there is none; on overlayfs it may.
#[cfg(target_os = "linux")]
pub(crate) fn are_holes_free(file: &File) -> bool {
    magic_of(file).is_ok_and(|magic| {
        matches!(magic, magic::EXT | magic::XFS | magic::BTRFS) || magic::OTHERS.contains(&magic)
    })
}

/// Whether the file system tells holes from what was written and is not on the device yet. zfs, for one, has
/// called that a hole.
#[cfg(target_os = "linux")]
pub(crate) fn tells_holes(file: &File) -> bool {
    magic_of(file)
        .is_ok_and(|magic| matches!(magic, magic::EXT | magic::TMPFS | magic::XFS | magic::BTRFS))
}

/// As above. On APFS copies share blocks, too.
#[cfg(target_os = "macos")]
pub(crate) fn locality(file: &File) -> io::Result<Locality> {
    let system = rustix::fs::fstatfs(file)?;
    let name: Vec<u8> =
        system.f_fstypename.iter().map(|c| *c as u8).take_while(|c| *c != 0).collect();
    Ok(match &*name {
        b"apfs" | b"hfs" => Locality::Local,
        _ => Locality::Unknown(u64::from(system.f_type)),
    })
}

/// As above: none of them keeps files in memory alone.
#[cfg(target_os = "macos")]
pub(crate) fn are_holes_free(_: &File) -> bool {
    true
}

/// As above; not tried.
#[cfg(target_os = "macos")]
pub(crate) fn tells_holes(_: &File) -> bool {
    false
}
