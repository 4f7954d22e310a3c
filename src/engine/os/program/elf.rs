//! Objects as Linux maps them and as ELF lays them out.

use super::{Known, Program, number};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

const EXECUTABLE: &str = "/proc/self/exe";

/// Executable memory that is mapped from a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mapped<'a> {
    pub(super) range: Range<usize>,
    pub(super) inode: u64,
    pub(super) path: &'a Path,
}

/// The executable mappings of files, from the text of `/proc/self/maps`.
pub(super) fn mappings(maps: &[u8]) -> impl Iterator<Item = Mapped<'_>> {
    maps.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let mut text = || str::from_utf8(fields.next()?).ok();
        let (range, rights, _offset, _device, inode) =
            (text()?, text()?, text()?, text()?, text()?);
        let (start, end) = range.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        let inode = inode.parse().ok()?;
        let path = Path::new(OsStr::from_bytes(fields.next()?.trim_ascii_start()));
        let is_file = rights.contains('x') && inode != 0 && path.is_absolute();
        is_file.then_some(Mapped { range: address(start)?..address(end)?, inode, path })
    })
}

/// Whether the system made the file for a program's memory: no linker loads one.
fn is_memory(path: &Path) -> bool {
    let path = path.as_os_str().as_bytes();
    [&b"/memfd:"[..], b"/SYSV", b"/dev/zero"].iter().any(|start| path.starts_with(start))
}

/// The program of the code at an address; `None` if it cannot be told.
pub(super) fn identify(code: usize) -> Option<Known> {
    let maps = fs::read("/proc/self/maps").ok()?;
    let own = mappings(&maps).find(|mapped| mapped.range.contains(&code))?;
    let executable = fs::read_link(EXECUTABLE).ok()?;
    let mut objects = vec![identity(&File::open(EXECUTABLE).ok()?)?];
    let mut met = HashSet::new();
    for Mapped { inode, path, .. } in mappings(&maps) {
        let is_own = (inode, path) == (own.inode, own.path);
        let is_met = path == executable || !met.insert((inode, path));
        if is_met || (is_memory(path) && !is_own) {
            continue;
        }
        let file = open(path, inode)?;
        if is_own || is_rust_library(&file) {
            objects.push(identity(&file)?);
        }
    }
    let is_own = |mapped: &Mapped<'_>| (mapped.inode, mapped.path) == (own.inode, own.path);
    let code = mappings(&maps).filter(is_own).map(|mapped| mapped.range).collect();
    Some(Known { program: Program::of_objects(objects), code })
}

/// The file that is mapped, if it is still at its path. While it is mapped, its inode is no other
/// file's. The device says nothing: some file systems show one in the maps and another in `stat`.
fn open(path: &Path, inode: u64) -> Option<File> {
    // Never waits, whatever is at the path now.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    (file.metadata().ok()?.ino() == inode).then_some(file)
}

/// What tells an object from all others.
fn identity(file: &File) -> Option<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    if let Some(id) = build_id(file) {
        hasher.update(b"build id").update(&id);
    } else {
        // The change time cannot be set, as others can be by who copies or unpacks.
        let superblock = file.metadata().ok()?;
        let times = [
            superblock.mtime(),
            superblock.mtime_nsec(),
            superblock.ctime(),
            superblock.ctime_nsec(),
        ];
        hasher.update(b"file");
        for number in [superblock.dev(), superblock.ino(), superblock.size()] {
            hasher.update(&number.to_le_bytes());
        }
        for time in times {
            hasher.update(&time.to_le_bytes());
        }
    }
    Some(*hasher.finalize().as_bytes())
}

/// The most that is read of a part of an object. Headers, notes and names are far smaller.
const PART_MAX: u64 = 1 << 20;
/// A shorter build id is a number that someone chose, and no hash of the contents.
const BUILD_ID_MIN: usize = 8;
const PROGRAM_HEADER: u64 = 56;
const SECTION_HEADER: u64 = 64;

fn part(file: &File, at: u64, len: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).ok().filter(|_| len <= PART_MAX)?];
    file.read_exact_at(&mut bytes, at).ok()?;
    Some(bytes)
}

/// The header of a 64-bit, little-endian ELF file.
fn header(file: &File) -> Option<Vec<u8>> {
    part(file, 0, 64).filter(|bytes| bytes.starts_with(b"\x7fELF\x02\x01"))
}

pub(super) fn build_id(file: &File) -> Option<Vec<u8>> {
    const NOTE: u64 = 4;
    let header = header(file)?;
    let count = number(&header, 56, 2)?;
    let segments = part(file, number(&header, 32, 8)?, count * PROGRAM_HEADER)?;
    segments.chunks_exact(PROGRAM_HEADER as usize).find_map(|segment| {
        if number(segment, 0, 4)? != NOTE {
            return None;
        }
        let notes = part(file, number(segment, 8, 8)?, number(segment, 32, 8)?)?;
        let align = if number(segment, 48, 8)? == 8 { 8 } else { 4 };
        build_id_among(&notes, align)
    })
}

pub(super) fn build_id_among(notes: &[u8], align: usize) -> Option<Vec<u8>> {
    const BUILD_ID: u64 = 3;
    let mut at = 0;
    loop {
        let word = |index: usize| number(notes, at + 4 * index, 4);
        let (name_len, len, kind) = (word(0)? as usize, word(1)? as usize, word(2)?);
        let name = at + 12;
        let start = (name + name_len).next_multiple_of(align);
        if kind == BUILD_ID && notes.get(name..name + name_len)? == b"GNU\0" {
            let id = notes.get(start..start + len)?;
            return (len >= BUILD_ID_MIN).then(|| id.to_vec());
        }
        at = (start + len).next_multiple_of(align);
    }
}

/// Whether a shared object is a Rust library: then it has what the compiler must know of it. One whose
/// sections cannot be read may be one.
pub(super) fn is_rust_library(file: &File) -> bool {
    let names = || {
        let header = header(file)?;
        let (at, count) = (number(&header, 40, 8)?, number(&header, 60, 2)?);
        let sections = part(file, at, count * SECTION_HEADER)?;
        let keyspace = |index: u64| {
            let start = (index * SECTION_HEADER) as usize;
            sections.get(start..start + SECTION_HEADER as usize)
        };
        let of_names = keyspace(number(&header, 62, 2)?)?;
        part(file, number(of_names, 24, 8)?, number(of_names, 32, 8)?)
    };
    names().is_none_or(|names| names.split(|byte| *byte == 0).any(|name| name == b".rustc"))
}
