//! The outside world: clock, forks, memory, files, maps, claims, threads, the program itself.
//!
//! - Files: [`file`] by system calls, [`map`] in memory, [`volume`] what their file system may do; [`directory`],
//!   [`place`] and [`replacement`] the names; [`claims`] the locks on a sidecar's bytes; [`effect`] the probe of
//!   tests.
//! - This process: [`boot`], [`clock`], [`fork`], [`threads`], [`program`].
//! - Memory that many threads use: [`biased`], [`list`], [`trie`], [`heap`].
//! - What async code needs: [`waker`], [`pool`], [`task`].
//!
//! It is the only place with platform code, and, in [`map`], [`fork`], [`claims`], [`program`] and [`biased`], with
//! unsafe code of its own. The index, the log and the store's protocol work over [`Words`] and
//! [`Storage`](file::Storage), so that they run as well over plain reads and writes, or over a model checker's
//! words.
//!
//! What a system lacks is told by a value and not by a `cfg` at each use: a file without a provenance, a thread
//! that nobody knows, a directory that makes no files without a name.

pub(crate) mod clock;
pub(crate) mod fork;
pub(crate) mod list;
pub(crate) mod trie;
pub(crate) mod biased;
pub(crate) mod heap;
pub(crate) mod effect;
pub(crate) mod program;
pub(crate) mod volume;
pub(crate) mod boot;
pub(crate) mod file;
pub(crate) mod map;
pub(crate) mod directory;
pub(crate) mod place;
pub(crate) mod replacement;
pub(crate) mod claims;
pub(crate) mod threads;
pub(crate) mod waker;
pub(crate) mod pool;
pub(crate) mod task;

use std::io;

/// Aligned 8-byte words that other threads and processes read and write at the same time.
pub(crate) trait Words {
    /// Reads a word; what was written before the word was stored is seen after this (acquire).
    fn load(&self, at: u64) -> u64;
    /// Writes a word, after all that was written before it (release).
    fn store(&self, at: u64, value: u64) -> io::Result<()>;
}
