#![cfg_attr(docsrs, feature(doc_cfg))]
//! Persistent memoisation of functions. A result is computed once and stored in a file, and from then on read in
//! place: by this process, by all others of this user on this machine, and after the next start.
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
//! The attribute [`#[cache]`](macro@cache) does the same for functions and methods, plain and async, that return
//! values, iterators or streams:
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
//! # Where to start
//!
//! - [`cache`](macro@cache) is the attribute. It sees the code of the function, so that an edit is a miss.
//! - [`MmapCache`] is one cache, a file. It opens, expires, clears, compacts, syncs, verifies, counts and deletes.
//! - [`Memoized`] is a function whose results are kept in a cache, with [`call`](Memoized::call),
//!   [`peek`](Memoized::peek) and [`forget`](Memoized::forget). [`TryMemoized`] is for functions that can fail,
//!   [`AsyncMemoized`] and [`AsyncTryMemoized`] for async functions, [`MemoizedIter`] and [`MemoizedStream`] for
//!   functions that return iterators and streams.
//! - [`Table`] is a typed, named part of a cache, for entries by hand.
//! - [`Cached`] is a result. It dereferences to its archived form in the mapped file: nothing is copied or decoded.
//!   [`Cached::into_owned`] gives the value itself.
//!
//! Arguments are [`CacheKey`]s. Results are [`CacheValue`]s, which is to say that they derive rkyv's three traits.
//!
//! # What is promised
//!
//! 1. **Right or nothing.** A call never receives a value that its function did not compute for its
//!    arguments and result type. Where the file is damaged, or an entry is another function's or another type's,
//!    the call is a miss.
//! 2. **Nothing that was stored is lost** by a process that dies, even by `kill -9` at any instruction. What was
//!    stored before the last [`sync`](MmapCache::sync) survives a power cut.
//! 3. **A hit is cheap.** It takes no lock, makes no system call, allocates nothing, copies nothing, and writes to
//!    no memory that another thread writes.
//! 4. **Many processes use one file, without a server.** A process that is stopped blocks no reader, and blocks
//!    writers up to their deadline ([`OpenOptions::lock_timeout`]).
//! 5. **The cache never breaks the program.** A result that cannot be stored is returned, and counted in
//!    [`Stats::store_errors`]. (A value without a valid [archive](Error::Invalid) cannot be read in place, so that
//!    a call which returns a [`Cached`] panics.)
//! 6. **Held values stay valid**, whatever is cleared, compacted or deleted meanwhile.
//! 7. **One computation per key.** Threads, tasks and processes that miss the same result at once wait for
//!    the one that computes it. If that one fails or dies, the next takes over.
//!
//! # What you promise
//!
//! The function's result must depend on its arguments alone. What else the function reads (files, the clock,
//! constants, other functions, captured state) is not seen. Of its code is seen:
//!
//! - by `#[cache]`, the function's own code, and that of its `deps`;
//! - without the attribute and without a name ([`MmapCache::memoize`]), the program as built: any rebuild that
//!   changed something is a miss;
//! - under a name ([`MmapCache::memoize_as`], [`MmapCache::table`]), nothing. When the code has changed,
//!   [`clear`](MmapCache::clear) the cache, or put a version into the name.
//!
//! [`OpenOptions::code`] makes the program as built count everywhere. For a file, take a [`FileKey`] and not a
//! path.
//!
//! ## Which call it is
//!
//! An entry is found by four things, and is a miss if one of them changes. If it changes back, the old entries are
//! found again.
//!
//! - The function: for `#[cache]` its package and target, its path and its code; or the name that you gave; or the
//!   path and type of a function, and the place of a closure, in the program as built.
//! - The shape of the argument types.
//! - The fingerprint of the result type.
//! - The arguments.
//!
//! The fingerprint of a result type that derives [`Schema`] is made of its fields and variants, nested types
//! included, and of nothing else. Swapping two fields is a miss; another compiler, profile or crate version is none.
//! `#[cache]` finds the schema by itself; closures and tables ask for it with `with_schema`. Types of std need
//! no schema derived. The entries of any other type without a schema belong to the program as built: they outlast
//! restarts, and are misses after a rebuild that changed something.
//!
//! The **program as built** is the executable, the shared object that the code is in, and the Rust libraries that
//! were linked dynamically. Each is known by its GNU build id or `LC_UUID`, else by its file's device, inode,
//! size and times. Where that cannot be told (without `/proc`; on macOS, in a shared library, or without a
//! `LC_UUID`) the entries belong to the process alone.
//!
//! Arguments of up to 24 bytes, and all values, lie in the file in clear.
//!
//! ## Expiry
//!
//! [`MmapCache::set_expiry`] is applied at each read, to old entries too. [`MmapCache::flush`] removes what has
//! expired.
//!
//! # What it costs
//!
//! The documentation of each function says what it costs, under the heading "Cost". In short:
//!
//! | operation | file's lock | system calls | waits |
//! | --- | --- | --- | --- |
//! | a hit | - | none | never |
//! | a miss | to store | about six | [a minute](OpenOptions::claim_timeout) at most for who computes it |
//! | [`Table::insert`], [`Table::remove`] | once | two or more | as all writers |
//! | [`MmapCache::open`] | - | thirty to fifty | where the file is made, or verified after a reboot |
//! | [`MmapCache::sync`], [`MmapCache::compact`] | for moments | many | for the device |
//!
//! A writer waits for other writers, and for no longer than [two seconds](OpenOptions::lock_timeout).
//!
//! A process that has opened a cache has one thread of this library's. It looks twice a second whether another
//! process has replaced a file, so that an idle process does not keep its disk space, and ends after the last
//! handle. While async functions wait there are up to five more: one that wakes sleeping tasks, and up to four
//! that open files, store large results, and run the results' own validation.
//!
//! A cache takes address space for its file and room for as much again, at least a MiB, and a bit for each 16 bytes
//! of that. Where the process has a limit (`RLIMIT_AS`), all caches together take an eighth of it at most. A file
//! for which there is no room is read by copy.
//!
//! # Safety
//!
//! Opening maps a file that other processes write. That is safe because the file is checked first. It must be a
//! regular file of this user's, with one name, not writable by others, in a directory where nobody else can put
//! another one in its place, on a local file system. Anything else is an [`Error`] that says how to go on. So only
//! processes of this user write the file, and those that use this library keep its protocol: bytes that a
//! value lies in never change, and the file never shrinks.
//!
//! Two things are outside this boundary. One is a process of the same user that overwrites or cuts the file by other
//! means, which can do as much through `/proc/self/mem`. The other is a device that fails under a mapped page,
//! which is a SIGBUS. Where that matters, [`OpenOptions::copy_reads`] maps nothing.
//!
//! A value is accessed once rkyv's validation has passed its bytes, in each process, whoever wrote them.
//! So it is as safe as rkyv's own `access`. Types that derive rkyv's traits reach none of the open reports on
//! the soundness of its version 0.8.18, unless they have `#[rkyv(niche = ..)]` in an enum's field, an enum's
//! discriminant that depends on `Self`, a packed archived type, or a `Niching`, `LayoutRaw` or
//! `ArchivePointee` by hand.
//!
//! A process that forks may go on using its caches in the child. A lock that the parent held when it
//! was killed, or its claim to a computation, is free once the child has ended, too.
//!
//! # Features
//!
//! - `wide` (default): rkyv archives `usize` as 64 bits. Without it rkyv cuts them to 32 bits, silently.
//!   It is a setting of the whole program; a file that was written with another width is refused.
//! - `tracing`: what goes wrong with the cache in memoised calls is logged as a warning.
//!
//! The crate runs on Linux and macOS, on 64-bit, little-endian machines. rkyv is a public dependency: it is
//! [re-exported](rkyv), and its next breaking release will be one of this crate.

// In reading order: each stands on those above it.
mod error;
mod engine;
mod memo;
mod cache;
mod attribute;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;

pub use cache::MmapCache;
pub use cache::options::OpenOptions;
pub use cache::upkeep::{clear, delete, flush};
pub use engine::store::compact::Compaction;
pub use engine::store::findings::{Finding, Verification};
pub use engine::store::stats::Stats;
pub use error::{Error, Exposure, Result};
pub use memo::call::iterator::CachedIter;
pub use memo::call::stream::CachedStream;
pub use memo::handle::Code;
pub use memo::key::file_key::FileKey;
pub use memo::key::{CacheKey, KeySchema, KeyWriter};
pub use memo::memoized::asynchronous::{AsyncMemoized, AsyncTryMemoized};
pub use memo::memoized::items::{MemoizedIter, MemoizedStream};
pub use memo::memoized::{Memoized, TryMemoized};
pub use memo::table::Table;
pub use memo::value::archive::CacheValue;
#[doc(hidden)]
pub use memo::value::archive::Sink;
pub use memo::value::cached::Cached;
pub use memo::value::schema::{Schema, SchemaWriter};
/// Derives [`CacheKey`](trait@CacheKey). All fields count, in their order.
///
/// The key's schema has the names of the type, its fields and variants, so that reordering an enum is a miss.
///
/// # Options
/// - `#[cache_key(skip)]` leaves a field out: then the result must not depend on it.
/// - `#[cache_key(crate = path)]` on the type says where this library is.
///
/// Types that hold each other, and not just themselves, need an implementation by hand.
///
/// # Examples
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
pub use persist_cache_macros::CacheKey;
/// Derives [`Schema`](trait@Schema) from the type's name, its fields and variants, and the schemas of their types.
///
/// # Options
/// - `#[schema(opaque)]` on a field takes its type as it is spelled, for types that have no schema.
/// - `#[schema(crate = path)]` on the type says where this library is.
///
/// # Examples
/// ```
/// use persist_cache::Schema;
/// use persist_cache::rkyv::{Archive, Deserialize, Serialize};
///
/// #[derive(Archive, Serialize, Deserialize, Schema)]
/// #[rkyv(crate = persist_cache::rkyv)]
/// enum Shape {
///     Circle { radius: f64 },
///     Polygon(Vec<(f64, f64)>),
/// }
/// ```
pub use persist_cache_macros::Schema;
#[doc = include_str!("../docs/attribute.md")]
pub use persist_cache_macros::cache;
/// Marks an item (a function, a constant or a static) whose code [`#[cache]`](macro@cache) functions count as
/// their own, by `deps(..)`.
///
/// `#[tracked(deps(other))]` counts the code of other marked items in turn. The item's code stands in a type of its
/// name, beside it, as the constant `CODE`.
///
/// # Examples
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
