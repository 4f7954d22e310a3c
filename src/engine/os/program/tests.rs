//! Programs, and the files that they are known by.

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
