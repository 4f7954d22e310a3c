#![cfg_attr(docsrs, feature(doc_cfg))]
//! Persistent memoisation: the answer of an expensive function outlives the process, and every process
//! of the machine has it.
//!
//! ```
//! # let dir = tempfile::tempdir().unwrap();
//! # let open = |name: &str| persist_cache::MmapCache::options().root(dir.path()).open(name);
//! use persist_cache::rkyv::{Archive, Deserialize, Serialize};
//!
//! #[derive(Archive, Serialize, Deserialize)]
//! #[rkyv(crate = persist_cache::rkyv)]
//! struct Report { words: u64, longest: String }
//!
//! fn report(text: &str) -> Report {
//!     let longest = text.split(' ').max_by_key(|word| word.len()).unwrap_or_default();
//!     Report { words: text.split(' ').count() as u64, longest: longest.into() }
//! }
//!
//! let cache = open("reports")?; // MmapCache::open("reports")?
//! let analyse = cache.memoize(|text: &str| report(text));
//!
//! let first = analyse.call("to be or not to be"); // computed, and stored
//! let again = analyse.call("to be or not to be"); // read in place: tens of nanoseconds
//! assert_eq!((again.words.to_native(), again.longest.as_str()), (6, "not"));
//! # Ok::<(), persist_cache::Error>(())
//! ```
//!
//! # Three nouns
//!
//! - [`MmapCache`] is a file and its upkeep: open, expiry, clear, compact, sync, verify, stats, delete.
//! - [`Memoized`] is a function whose results are kept: [`call`](Memoized::call),
//!   [`peek`](Memoized::peek), [`forget`](Memoized::forget). [`TryMemoized`] keeps successes alone.
//! - [`Table`] is a typed, named part of a cache, for entries by hand.
//!
//! A result comes as [`Cached`], which dereferences to its archived form in the mapped file; nothing is
//! copied or decoded. [`Cached::into_owned`] gives the value itself.
//!
//! # What is promised
//!
//! 1. **Right or nothing.** A call never receives a value that its function did not compute for its
//!    arguments and result type. Damage, another function, another type are misses.
//! 2. **Nothing acknowledged is lost** by a process that dies, by `kill -9` at any instruction. After a
//!    power cut, what was there at the last [`sync`](MmapCache::sync) is there.
//! 3. **A hit is cheap**: no lock, no system call, no allocation, no copy, and no write to memory that
//!    another thread writes.
//! 4. **Many processes, one file, no server.** A stopped process blocks no reader, and writers to their
//!    deadline only.
//! 5. **The cache never breaks the program.** What cannot be stored is returned, and counted.
//! 6. **Held values stay valid**, whatever is cleared, compacted or deleted meanwhile.
//!
//! # What memoisation asks of you
//!
//! The function must depend on its argument alone. What it reads besides (files, the clock, constants,
//! other functions, captured state) is not seen: a function whose code changed goes on answering from
//! before. Then [`clear`](MmapCache::clear) the cache, or put a version into the name.
//!
//! ## Which call it is
//!
//! An entry is known by the name you gave, or the function's path and type; by the shape of the key type;
//! by the fingerprint of the result type; and by the argument. Change one and it is a miss; change it back
//! and the old entries are there again. The fingerprint sees names, layout, and the fields of the result
//! type itself, their order and names. It does **not** see, in a type *nested* in the result, fields of
//! one size that change places, names or types. What is seen by type changes with compiler, profile and
//! crate version too: then entries are misses. Results of std's types under a name of yours last longest.
//! Arguments of up to 24 bytes and all values lie in the file in clear.
//!
//! ## Expiry
//!
//! [`MmapCache::set_expiry`] judges at each read, on old entries too; `flush` removes what has expired.
//!
//! # Safety
//!
//! Opening maps a file that other processes write. It is safe because it checks: a regular file of this
//! user's, not writable by others, with one name, in such a directory, on a local file system; anything
//! else is an [`Error`] that says how to go on. Then only processes of this user write the file, and
//! those that use this library keep its protocol: bytes that a value lies in never change, and the file
//! never shrinks. A process of the same user that scribbles over the file, or cuts it, is outside the
//! boundary, as it is for `/proc/self/mem`. So is a device that fails under a mapped page: SIGBUS. Where
//! that matters, [`OpenOptions::copy_reads`] maps nothing.
//!
//! A process that forks may go on using its caches in the child. A lock that the parent held when it
//! was killed is free once the child has ended, too.
//!
//! # Features
//!
//! - `wide` (default): rkyv archives `usize` as 64 bits. Without it rkyv cuts them to 32 bits, silently.
//!   It is a setting of the whole program; a file written with another width is refused.
//! - `tracing`: what goes wrong in memoised calls is logged as a warning.
//!
//! Linux and macOS, 64 bits, little-endian. rkyv is a public dependency: it is [re-exported](rkyv), and
//! its next breaking release will be one of this crate.

// In reading order: each module stands on those above it.
mod error;
mod format;
mod sys;
mod ledger;
mod index;
mod scan;
mod store;
mod key;
mod file_key;
mod schema;
mod warrant;
mod value;
mod scope;
mod handle;
mod section;
mod recording;
mod table;
mod memo;
mod options;
mod cache;
mod memoize;
mod site;

pub use cache::{MmapCache, clear, delete, flush};
pub use error::{Error, Exposure, Result};
pub use file_key::FileKey;
pub use key::{CacheKey, KeySchema, KeyWriter};
pub use memo::items::{MemoizedIter, MemoizedStream};
pub use memo::tasks::{AsyncMemoized, AsyncTryMemoized};
pub use memo::{Memoized, TryMemoized};
pub use options::OpenOptions;
pub use persist_cache_macros::{CacheKey, Schema, cache, tracked};
pub use recording::{CachedIter, CachedStream};
pub use rkyv;
pub use schema::{Schema, SchemaWriter};
pub use store::compact::Compaction;
pub use store::stats::Stats;
pub use store::verify::{Finding, Verification};
pub use table::Table;
#[doc(hidden)]
pub use value::Sink;
pub use value::{CacheValue, Cached};

/// What the macros' expansions name. Anything here may change in any release.
#[doc(hidden)]
pub mod __private {
    pub use crate::key::{KeySchema, KeyWriter};
    pub use crate::site::call::*;
    pub use crate::site::probe::*;
    pub use crate::site::*;
}

#[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
compile_error!("persist-cache needs a 64-bit, little-endian machine: its file is read in place");
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!("persist-cache knows Linux and macOS; see src/sys for what another system needs");

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
