//! Bytes in, bytes out: one file, which any number of processes share without a server.
//!
//! The engine knows identities and records. It knows no types, no functions and no keys: what an identity is made
//! of, and what its bytes mean, is `memo`'s. It stands on `error` and on the system alone.
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
