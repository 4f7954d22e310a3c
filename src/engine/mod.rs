//! Bytes in, bytes out: one file, which any number of processes share without a server.
//!
//! The engine knows identities and records. It knows no types, no functions and no keys: what an identity is made
//! of, and what its bytes mean, is `memo`'s. It stands on `error` and on the system alone.
//!
//! What it gives to `memo` are the methods of [`Store`](store::Store):
//!
//! ```text
//!   find_seen(identity)                  -> a value in place                       no lock, no system call
//!   find(identity)                       -> what is there, verified; and a token   may open a file
//!   put(identity, bytes, if ..)          -> what lies there now                    the write lock
//!   remove, clear, flush, sync, delete                                             the write lock
//!   compact, verify, stats                                                         see each
//! ```
//!
//! A token says when a look began. Whoever computes a missing value hands it back with the put, which then refuses a
//! result that a clear or a removal has made out of date. So the engine keeps the order of computations and removals
//! without knowing what a computation is.
//!
//! Three kinds of failure are kept apart everywhere below. A process may die between any two stores: the next holder of
//! the lock finishes or wipes its work ([`redo`](log::redo)). Power may fail: the file is recovered before anybody
//! looks at it ([`recover`](file::recover)). Bytes may be damaged: they are then absent, for readers and for writers.
//!
//! The other way to cut it is by operation: get, put, compact, each from its call to its bytes. Then each of them
//! would have to know the rules of the log, from walks to tables.

// In reading order: each stands on those above it.
pub(crate) mod format;
pub(crate) mod os;
pub(crate) mod words;
pub(crate) mod index;
pub(crate) mod log;
pub(crate) mod file;
pub(crate) mod store;
#[cfg(test)]
mod proof;
