//! Objects as macOS loads them.

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
