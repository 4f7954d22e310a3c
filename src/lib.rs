#![cfg_attr(docsrs, feature(doc_cfg))]
//! Persistent memoisation: the answer of an expensive function outlives the process, and every process
//! of the machine has it.
//!
//! ```
//! # let dir = tempfile::tempdir().unwrap();
//! # let open = |name: &str| persist_cache::MmapCache::options().root(dir.path()).open(name);
//! use persist_cache::Schema;
//! use persist_cache::rkyv::{Archive, Deserialize, Serialize};
//!
//! #[derive(Archive, Serialize, Deserialize, Schema)]
//! #[rkyv(crate = persist_cache::rkyv)]
//! struct Report { words: u64, longest: String }
//!
//! fn report(text: &str) -> Report {
//!     let longest = text.split(' ').max_by_key(|word| word.len()).unwrap_or_default();
//!     Report { words: text.split(' ').count() as u64, longest: longest.into() }
//! }
//!
//! let cache = open("reports")?; // MmapCache::open("reports")?
//! let analyse = cache.memoize(|text: &str| report(text)).with_schema();
//!
//! let first = analyse.call("to be or not to be"); // computed, and stored
//! let again = analyse.call("to be or not to be"); // read in place: tens of nanoseconds
//! assert_eq!((again.words.to_native(), again.longest.as_str()), (6, "not"));
//! # Ok::<(), persist_cache::Error>(())
//! ```
//!
//! Or by an attribute, for functions and methods, plain and async, of values, iterators and streams:
//!
//! ```
//! # let dir = tempfile::tempdir().unwrap();
//! # static ROOT: std::sync::OnceLock<std::path::PathBuf> = std::sync::OnceLock::new();
//! # let _ = ROOT.set(dir.path().to_path_buf());
//! # fn root() -> std::path::PathBuf { ROOT.get().unwrap().clone() }
//! use persist_cache::cache;
//!
//! #[cache(expiry = "30d", root = root())] // the root can be left out
//! fn digest(text: &str, rounds: u32) -> u64 {
//!     text.bytes().map(u64::from).sum::<u64>() * u64::from(rounds)
//! }
//!
//! assert_eq!(digest("ab", 2), 390);
//! digest::clear()?;
//! # Ok::<(), persist_cache::Error>(())
//! ```
//!
//! See [`cache`](macro@cache) for all that it does.
//!
//! # Three nouns
//!
//! - [`MmapCache`] is a file and its upkeep: open, expiry, clear, compact, sync, verify, stats, delete.
//! - [`Memoized`] is a function whose results are kept: [`call`](Memoized::call),
//!   [`peek`](Memoized::peek), [`forget`](Memoized::forget). [`TryMemoized`] keeps successes alone;
//!   [`AsyncMemoized`], [`MemoizedIter`] and [`MemoizedStream`] are for what their names say.
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
//! 5. **The cache never breaks the program.** What cannot be stored is returned, and counted. (What has no
//!    valid [archive](Error::Invalid) cannot be read in place, so that calls which return a [`Cached`] panic.)
//! 6. **Held values stay valid**, whatever is cleared, compacted or deleted meanwhile.
//!
//! 7. **One computation per key.** Threads, tasks and processes that miss the same result at once wait for
//!    the one that computes it; if it fails or dies, the next takes over.
//!
//! # What memoisation asks of you
//!
//! The function must depend on its arguments alone. What it reads besides (files, the clock, constants,
//! other functions, captured state) is not seen. A `#[cache]` function sees its own code, and that of its
//! `deps`. What is memoised without a name belongs to the program as built, whatever was edited in it; under
//! a name nothing is seen: when the code has changed, [`clear`](MmapCache::clear) the cache, or put a version
//! into the name. [`OpenOptions::code`] makes the program count there too. For a file take a [`FileKey`] and
//! not a path.
//!
//! ## Which call it is
//!
//! An entry is known by the function (a `#[cache]` function's package and target, path and code; the name you
//! gave; a closure's path, type and place, and the program as built), by the shape of the arguments' types,
//! by the fingerprint of the result type, and by the arguments. Change one and it is a miss; change it back
//! and the old entries are there again.
//!
//! The fingerprint of a result type that derives [`Schema`] is what it is made of, nested types included,
//! and nothing else: swapping two fields is a miss, another compiler, profile or crate version is none.
//! `#[cache]` finds it by itself, tables and closures by `with_schema`.
//!
//! Without it, entries belong to the **program as built**, since nothing tells what the type is made of. They
//! outlast restarts and are misses after a rebuild that changed anything. Types of std need no schema derived.
//!
//! A program as built is the executable, the shared object that the code is in, and the Rust libraries that
//! were linked dynamically; each is known by its GNU build id or `LC_UUID`, else by its file's device, inode,
//! size and times. Where that cannot be told (without `/proc`; on macOS, in a shared library, or without a
//! `LC_UUID`) the entries belong to the process alone.
//!
//! Arguments of up to 24 bytes and all values lie in the file in clear.
//!
//! ## Expiry
//!
//! [`MmapCache::set_expiry`] judges at each read, on old entries too; `flush` removes what has expired.
//!
//! # Safety
//!
//! Opening maps a file that other processes write. It is safe because it checks: a regular file of this
//! user's, not writable by others, with one name, in such a directory, where nobody else can put another
//! one in its place, on a local file system. Anything else is an [`Error`] that says how to go on. Then only
//! processes of this user write the file, and those that use this library keep its protocol: bytes that a
//! value lies in never change, and the file never shrinks. A process of the same user that scribbles over the
//! file, or cuts it, is outside the boundary, as it is for `/proc/self/mem`. So is a device that fails under a
//! mapped page: SIGBUS. Where that matters, [`OpenOptions::copy_reads`] maps nothing.
//!
//! A value is accessed when rkyv's validation has passed its bytes, once in each process, whoever wrote them.
//! So it is as safe as rkyv's own `access`: types that derive rkyv's traits reach none of the open reports on
//! the soundness of its version 0.8.18, unless they have `#[rkyv(niche = ..)]` in an enum's field, an enum's
//! discriminant that depends on `Self`, a packed archived type, or a `Niching`, `LayoutRaw` or
//! `ArchivePointee` by hand.
//!
//! Address space: a cache maps its file and room for as much again, at least a MiB, and a bit for each 16 bytes
//! of that. Where the process has a limit (`RLIMIT_AS`), all caches together take an eighth of it at most. A file
//! for which there is no room is read by copy.
//!
//! A process that forks may go on using its caches in the child. A lock that the parent held when it
//! was killed, or its claim to a computation, is free once the child has ended, too.
//!
//! A process that has opened a cache has a thread of this library's. It looks twice a second whether another
//! process has superseded a file, so that an idle process does not keep its disk space, and ends after the last
//! handle. While async functions wait there are up to five more: one that wakes sleeping tasks, and up to four
//! that open files and store large results, and run the results' own validation.
//!
//! # Features
//!
//! - `wide` (default): rkyv archives `usize` as 64 bits. Without it rkyv cuts them to 32 bits, silently.
//!   It is a setting of the whole program; a file written with another width is refused.
//! - `tracing`: what goes wrong in memoised calls is logged as a warning.
//!
//! Linux and macOS, 64 bits, little-endian. rkyv is a public dependency: it is [re-exported](rkyv), and
//! its next breaking release will be one of this crate.

// In reading order: each stands on those above it.
mod error;
mod engine;
mod memo;
mod cache;
mod attribute;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;

pub use cache::options::OpenOptions;
pub use cache::{MmapCache, clear, delete, flush};
pub use engine::store::compact::Compaction;
pub use engine::store::findings::{Finding, Verification};
pub use engine::store::stats::Stats;
pub use error::{Error, Exposure, Result};
pub use memo::call::recording::CachedIter;
pub use memo::call::stream::CachedStream;
pub use memo::handle::Code;
pub use memo::key::file_key::FileKey;
pub use memo::key::{CacheKey, KeySchema, KeyWriter};
pub use memo::memoized::items::{MemoizedIter, MemoizedStream};
pub use memo::memoized::tasks::{AsyncMemoized, AsyncTryMemoized};
pub use memo::memoized::{Memoized, TryMemoized};
pub use memo::table::Table;
pub use memo::value::archive::CacheValue;
#[doc(hidden)]
pub use memo::value::archive::Sink;
pub use memo::value::cached::Cached;
pub use memo::value::schema::{Schema, SchemaWriter};
/// Derives [`CacheKey`](trait@CacheKey): all fields count, in their order. The schema has the names of the
/// type, its fields and variants, so that reordering an enum is a miss.
///
/// ```
/// use persist_cache::CacheKey;
///
/// #[derive(CacheKey)]
/// enum Query<'a> {
///     All,
///     Text { text: &'a str, limit: Option<u32> },
///     Both(Box<Query<'a>>, Box<Query<'a>>),
/// }
/// ```
///
/// `#[cache_key(skip)]` leaves a field out: then the result must not depend on it.
/// `#[cache_key(crate = path)]` on the type says where this library is. Types that hold each other, and
/// not just themselves, need an implementation by hand.
pub use persist_cache_macros::CacheKey;
/// Derives [`Schema`](trait@Schema). `#[schema(opaque)]` on a field takes its type as it is spelled;
/// `#[schema(crate = path)]` on the type says where this library is.
pub use persist_cache_macros::Schema;
#[doc = include_str!("../docs/attribute.md")]
pub use persist_cache_macros::cache;
/// Lets [`#[cache]`](macro@cache) functions count an item's code as their own, by `deps(..)`: a function,
/// a constant or a static. `#[tracked(deps(other))]` counts the code of other marked items in turn.
///
/// ```
/// use persist_cache::{cache, tracked};
///
/// #[tracked]
/// const SCALE: u64 = 3;
///
/// #[tracked(deps(SCALE))]
/// fn scale(n: u64) -> u64 { n * SCALE }
///
/// #[cache(deps(scale))]
/// fn area(width: u64, height: u64) -> u64 { scale(width) * scale(height) }
/// # let _ = area::CODE;
/// ```
///
/// The item's code stands in a type of its name, beside it, as the constant `CODE`.
pub use persist_cache_macros::tracked;
pub use rkyv;

/// What the macros' expansions name. Anything here may change in any release.
#[doc(hidden)]
pub mod __private {
    pub use crate::attribute::call::*;
    pub use crate::attribute::declaration::*;
    pub use crate::attribute::instance::*;
    pub use crate::attribute::probe::*;
    pub use crate::attribute::*;
    pub use crate::memo::key::{KeySchema, KeyWriter};
}

#[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
compile_error!("persist-cache needs a 64-bit, little-endian machine: its file is read in place");
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!(
    "persist-cache knows Linux and macOS; see src/engine/os for what another system needs"
);

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
