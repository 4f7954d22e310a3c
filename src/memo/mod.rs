//! Functions and types over the engine: arguments become identities, results become bytes and come back, and a call
//! goes from its look-up to its stored result.
//!
//! ```text
//!   argument --- key/ ---> identity ---.                              .---> value/cached: read in place
//!   function, code, types --- scope ---+--> call/keyspace --> Store --+
//!   result   --- value/archive --> bytes, checked as what they are ---'
//! ```
//!
//! It stands on the engine, and asks nothing of a file but through a `Store`. Which options a user may give, and
//! where caches lie, is `cache`'s; what `#[cache]` expands to calls `attribute`.
//!
//! The types of users end here: the engine is compiled once, and not once for each type.

// In reading order: each stands on those above it.
pub(crate) mod key;
pub(crate) mod value;
pub(crate) mod scope;
pub(crate) mod handle;
pub(crate) mod call;
pub(crate) mod table;
pub(crate) mod memoized;
