//! Which program this is, as it was built: the identity of the executable, of the shared object that some
//! code is in, and of the Rust libraries that were linked dynamically. What is known of a type or of code
//! in no better way is bound to it. Another build is another program; a restart is the same.
//!
//! An object is known by what its linker made of its contents: its GNU build id, or its `LC_UUID`. Without
//! one it is known by what the file system says of its file. What cannot be told is known to this process
//! alone, by a random number.

#[cfg(target_os = "linux")]
mod elf;
#[cfg(any(target_os = "macos", test))]
mod mach;
#[cfg(target_os = "macos")]
mod dyld;
#[cfg(test)]
mod tests;

#[cfg(target_os = "macos")]
use dyld as object;
#[cfg(target_os = "linux")]
use elf as object;
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
