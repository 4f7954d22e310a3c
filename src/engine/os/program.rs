//! Which program this is, as it was built: the identity of the executable, of the shared object that some
//! code is in, and of the Rust libraries that were linked dynamically. What is known of a type or of code
//! in no better way is bound to it. Another build is another program; a restart is the same.
//!
//! An object is known by what its linker made of its contents: its GNU build id, or its `LC_UUID`. Without
//! one it is known by what the file system says of its file. What cannot be told is known to this process
//! alone, by a random number.

use once_cell::race::OnceBox;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;

/// The identity of a program as built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Program([u8; 16]);

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What is known of the object that some code is in.
struct Known {
    program: Program,
    /// Where its code is mapped. Empty if that cannot be told.
    code: Vec<Range<usize>>,
}

impl Program {
    /// The program that the code at an address is of. The address is that of a function which calls this,
    /// so that its object stays loaded meanwhile.
    pub(crate) fn of(code: *const ()) -> Program {
        let code = code.addr();
        // Of the object that this crate is in, which cannot be unloaded while its statics are used. Others
        // can, and then other code may lie at the same address.
        static OWN: OnceBox<Known> = OnceBox::new();
        let own = OWN.get_or_init(|| {
            let known = object::identify((Program::of as *const ()).addr());
            Box::new(known.unwrap_or_else(|| Known { program: Program::alone(), code: Vec::new() }))
        });
        if own.code.iter().any(|range| range.contains(&code)) {
            return own.program;
        }
        object::identify(code).map_or_else(Program::alone, |known| known.program)
    }

    /// This process, as no other is called.
    fn alone() -> Program {
        static ALONE: OnceBox<Program> = OnceBox::new();
        *ALONE.get_or_init(|| {
            // Std's hasher is keyed by the system's random source.
            let half = || RandomState::new().hash_one(std::process::id()).to_le_bytes();
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&half());
            bytes[8..].copy_from_slice(&half());
            Box::new(Program(bytes))
        })
    }

    /// The program that is made of some objects, whatever their order.
    fn of_objects(mut objects: Vec<[u8; 32]>) -> Program {
        objects.sort_unstable();
        objects.dedup();
        let mut hasher = blake3::Hasher::new_derive_key("persist-cache program 1");
        objects.iter().for_each(|object| {
            hasher.update(object);
        });
        Program(*hasher.finalize().as_bytes().first_chunk().expect("sized"))
    }
}

/// A little-endian number of up to 8 bytes.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Objects as Linux maps them and as ELF lays them out.
#[cfg(target_os = "linux")]
mod object {
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
            let facts = file.metadata().ok()?;
            let times = [facts.mtime(), facts.mtime_nsec(), facts.ctime(), facts.ctime_nsec()];
            hasher.update(b"file");
            for fact in [facts.dev(), facts.ino(), facts.size()] {
                hasher.update(&fact.to_le_bytes());
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
            let section = |index: u64| {
                let start = (index * SECTION_HEADER) as usize;
                sections.get(start..start + SECTION_HEADER as usize)
            };
            let of_names = section(number(&header, 62, 2)?)?;
            part(file, number(of_names, 24, 8)?, number(of_names, 32, 8)?)
        };
        names().is_none_or(|names| names.split(|byte| *byte == 0).any(|name| name == b".rustc"))
    }
}

/// Objects as macOS loads them.
#[cfg(target_os = "macos")]
mod object {
    use super::{Known, Program, mach, number};
    use std::ptr::{null, null_mut};
    use std::slice;

    /// The program of the code at an address; `None` if it cannot be told.
    #[expect(unsafe_code, reason = "the loaded object's header: its file may be another by now")]
    pub(super) fn identify(code: usize) -> Option<Known> {
        let mut info = libc::Dl_info {
            dli_fname: null(),
            dli_fbase: null_mut(),
            dli_sname: null(),
            dli_saddr: null_mut(),
        };
        // SAFETY: the address is looked up and not read, and `info` is valid for writes.
        let found = unsafe { libc::dladdr(code as *const libc::c_void, &raw mut info) };
        if found == 0 || info.dli_fbase.is_null() {
            return None;
        }
        let base = info.dli_fbase.cast::<u8>().cast_const();
        // SAFETY: dyld says that an object is loaded here, which begins with its header. It stays while its
        // code, our caller, runs. Nobody writes to the segment that the header is in.
        let header = unsafe { slice::from_raw_parts(base, mach::HEADER) };
        let size = number(header, 20, 4)? as usize;
        // SAFETY: as above; the commands lie behind the header in the same segment, and dyld has read them
        // by this size.
        let commands = unsafe { slice::from_raw_parts(base, mach::HEADER + size) };
        let object = *blake3::hash(&mach::uuid(commands)?).as_bytes();
        // Where its code ends is not looked for: the next call comes here again.
        Some(Known { program: Program::of_objects(vec![object]), code: Vec::new() })
    }
}

/// The header of an object of macOS.
#[cfg(any(target_os = "macos", test))]
mod mach {
    use super::number;

    pub(super) const HEADER: usize = 32;
    const MAGIC: u64 = 0xfeed_facf;
    const EXECUTABLE: u64 = 2;
    const BUNDLE: u64 = 8;
    const UUID: u64 = 0x1b;
    const LOADS: [u64; 3] = [0xc, 0x8000_0018, 0x8000_001f];

    /// What tells an executable or bundle from all others, from its header and load commands. `None` if
    /// more would have to be known: it is a library, or is linked with one that is not the system's.
    pub(super) fn uuid(object: &[u8]) -> Option<[u8; 16]> {
        let word = |at| number(object, at, 4);
        if word(0)? != MAGIC || ![EXECUTABLE, BUNDLE].contains(&word(12)?) {
            return None;
        }
        let (mut at, mut uuid) = (HEADER, None);
        for _ in 0..word(16)? {
            let len = (word(at + 4)? as usize).max(8);
            let command = object.get(at..at + len)?;
            match number(command, 0, 4)? {
                UUID => uuid = command.get(8..24)?.try_into().ok(),
                kind if LOADS.contains(&kind) => {
                    let name = command.get(number(command, 8, 4)? as usize..)?;
                    let systems = [&b"/usr/"[..], b"/System/", b"/opt/"];
                    if !systems.iter().any(|start| name.starts_with(start)) {
                        return None;
                    }
                }
                _ => {}
            }
            at += len;
        }
        uuid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> usize {
        (here as *const ()).addr()
    }

    fn program(code: usize) -> Program {
        Program::of(std::ptr::without_provenance(code))
    }

    #[cfg(target_os = "linux")]
    mod linux {
        use super::super::object::*;
        use super::*;
        use std::fs::{self, File};
        use std::io::Read as _;
        use std::path::Path;

        #[test]
        fn code_is_of_its_object_and_always_of_the_same() {
            let known = object::identify(here()).unwrap();
            assert!(known.code.iter().any(|range| range.contains(&here())));
            assert_eq!(known.program, program(here()));
            assert_eq!(object::identify(here()).unwrap().program, known.program);
            // Of the C library: another object, where it is one.
            #[cfg(target_env = "gnu")]
            assert!(
                object::identify((libc::getpid as *const ()).addr())
                    .is_some_and(|libc| libc.program != known.program)
            );
        }

        #[test]
        fn code_outside_of_all_objects_is_of_this_process() {
            assert!(object::identify(0).is_none());
            assert_eq!(program(0), program(0));
            assert_ne!(program(0), program(here()));
        }

        #[test]
        fn maps_are_read_as_the_kernel_writes_them() {
            let maps = b"5555-5666 r-xp 00001000 08:01 42                 /a dir/tool (deleted)\n\
                6000-7000 r--p 00000000 08:01 42                 /a dir/tool\n\
                7000-8000 r-xp 00000000 00:00 0                  [vdso]\n\
                9000-a000 rwxp 00000000 00:00 0 \n\
                b000-c000 r-xp 00000000 08:01 18446744073709551615 /lib/\xff.so\n\
                torn";
            let found: Vec<_> = mappings(maps).collect();
            let path = Path::new("/a dir/tool (deleted)");
            assert_eq!(found[0], Mapped { range: 0x5555..0x5666, inode: 42, path });
            assert_eq!((found.len(), found[1].inode), (2, u64::MAX));
        }

        #[test]
        fn a_file_that_is_no_object_or_a_broken_one_has_no_build_id() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("object");
            let mut start = [0; 2048];
            File::open("/proc/self/exe").unwrap().read_exact(&mut start).unwrap();
            let id = build_id(&File::open("/proc/self/exe").unwrap());
            let mut state = 1_u64;
            for round in 0..300 {
                // The header, the segments and their notes, with some bytes changed or cut off.
                let mut bytes = start.to_vec();
                for _ in 0..round % 8 {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let at = (state >> 33) as usize % bytes.len();
                    bytes[at] = (state >> 25) as u8;
                }
                bytes.truncate(bytes.len() - (round * 7) % bytes.len());
                fs::write(&path, &bytes).unwrap();
                let file = File::open(&path).unwrap();
                let found = build_id(&file);
                assert!(round > 0 || found == id || id.is_none());
                is_rust_library(&file); // Says one or the other.
            }
        }

        #[test]
        fn notes_are_read_by_their_alignment_and_to_their_end() {
            let note = |kind: u32, name: &[u8], id: &[u8], align: usize| {
                let lens = [name.len() as u32, id.len() as u32, kind];
                let mut bytes: Vec<u8> = lens.iter().flat_map(|len| len.to_le_bytes()).collect();
                for part in [name, id] {
                    bytes.extend(part);
                    bytes.resize(bytes.len().next_multiple_of(align), 0);
                }
                bytes
            };
            for align in [4, 8] {
                let first = note(5, b"GNU\0", b"proper", align);
                let notes = [first, note(3, b"GNU\0", b"twelve bytes", align)].concat();
                assert_eq!(build_id_among(&notes, align).as_deref(), Some(&b"twelve bytes"[..]));
                for len in 0..notes.len() - 4 {
                    assert!(build_id_among(&notes[..len], align).is_none());
                }
            }
            assert!(build_id_among(&note(3, b"GNU\0", b"short", 4), 4).is_none());
            let huge = [u32::MAX; 16].map(u32::to_le_bytes).concat();
            assert!(build_id_among(&huge, 8).is_none());
        }
    }

    fn mach_object(kind: u32, commands: &[Vec<u8>]) -> Vec<u8> {
        let size = commands.iter().map(Vec::len).sum::<usize>() as u32;
        let header = [0xfeed_facf, 0, 0, kind, commands.len() as u32, size, 0, 0];
        [header.map(u32::to_le_bytes).concat(), commands.concat()].concat()
    }

    #[test]
    fn an_object_of_macos_is_known_by_its_uuid_if_it_is_whole_in_itself() {
        let command = |kind: u32, len: u32, rest: &[u8]| {
            [&kind.to_le_bytes()[..], &len.to_le_bytes(), rest].concat()
        };
        let uuid = command(0x1b, 24, b"sixteen bytes id");
        let load = |name: &[u8; 32]| {
            let start = [24_u32, 0, 0, 0].map(u32::to_le_bytes).concat();
            command(0xc, 56, &[&start, &name[..]].concat())
        };
        let systems = load(b"/usr/lib/libSystem.B.dylib\0\0\0\0\0\0");
        let rusts = load(b"@rpath/libstd-0123456789.dylib\0\0");
        let whole = mach_object(2, &[systems.clone(), uuid.clone()]);
        assert_eq!(mach::uuid(&whole).as_ref(), Some(b"sixteen bytes id"));
        assert!((0..whole.len()).all(|len| mach::uuid(&whole[..len]).is_none()));
        assert!(mach::uuid(&mach_object(8, std::slice::from_ref(&uuid))).is_some());
        assert!(mach::uuid(&mach_object(6, std::slice::from_ref(&uuid))).is_none(), "a library");
        assert!(mach::uuid(&mach_object(2, &[uuid, rusts])).is_none());
        assert!(mach::uuid(&mach_object(2, &[systems])).is_none());
        assert!(mach::uuid(&mach_object(2, &[command(1, 0, &[])])).is_none(), "ends");
    }
}
