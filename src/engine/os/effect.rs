//! What this crate does to the world outside its memory, named before it is done: each store into a
//! map, each write, allocation, sync and change of a name passes through [`precede`]. The crate's own
//! tests put a probe there, which records, refuses or kills at a numbered step; in any other build
//! nothing stands there, and nothing is left of it.

use std::fs::File;
use std::path::Path;

/// Something that is about to be done.
#[cfg_attr(not(test), expect(dead_code, reason = "only the tests' probe looks at what is done"))]
#[derive(Debug, Clone, Copy)]
pub(crate) enum Effect<'a> {
    /// Bytes are put into a file, by a system call or through a map.
    Write { file: &'a File, at: u64, bytes: &'a [u8] },
    /// A range of a file gets disk space, and the file is at least that long afterwards.
    Allocate { file: &'a File, from: u64, to: u64 },
    /// A file gets exactly this length.
    Resize { file: &'a File, size: u64 },
    /// A range of a file becomes zeros.
    Punch { file: &'a File, from: u64, to: u64 },
    /// Bytes are read by a system call: no change, but it may fail.
    Read,
    /// So much address space is taken for a map: no change, but it may fail.
    Map { size: u64 },
    /// A file is brought to the device.
    Sync { file: &'a File },
    /// A file without a name gets one.
    Link { file: &'a File },
    /// A file's name becomes another one, whose file loses it.
    Rename { from: &'a Path },
    /// A name goes.
    Remove { path: &'a Path },
    /// The names in a directory are brought to the device.
    SyncDirectory,
    /// A directory is made.
    MakeDirectory,
    /// A file or a directory gets another owner or mode.
    Own,
    /// A file's times become the present.
    Touch,
}

/// Called before each effect, which is not done if this fails.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn precede(_: Effect<'_>) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use probe::{precede, watch};

#[cfg(test)]
mod probe {
    use super::Effect;
    use std::cell::RefCell;
    use std::io;

    type Probe = Box<dyn FnMut(Effect<'_>) -> io::Result<()>>;

    thread_local! {
        static PROBE: RefCell<Option<Probe>> = const { RefCell::new(None) };
    }

    /// Asks this thread's probe, if it has one.
    pub(crate) fn precede(effect: Effect<'_>) -> io::Result<()> {
        // Taken out meanwhile: what the probe itself does is not watched.
        let Some(mut probe) = PROBE.take() else { return Ok(()) };
        let verdict = probe(effect);
        PROBE.set(Some(probe));
        verdict
    }

    /// Does `work` with `probe` asked before each effect of this thread.
    pub(crate) fn watch<T>(
        probe: impl FnMut(Effect<'_>) -> io::Result<()> + 'static,
        work: impl FnOnce() -> T,
    ) -> T {
        struct Reset;
        impl Drop for Reset {
            fn drop(&mut self) {
                PROBE.set(None);
            }
        }
        PROBE.set(Some(Box::new(probe)));
        let _reset = Reset;
        work()
    }
}
