//! A call, from its look-up to its stored result: of threads, of tasks, and of functions that give many items.

// In reading order.
pub(crate) mod outcome;
pub(crate) mod keyspace;
pub(crate) mod tasks;
pub(crate) mod output;
pub(crate) mod items;
pub(crate) mod spool;
pub(crate) mod recording;
pub(crate) mod iterator;
pub(crate) mod stream;
