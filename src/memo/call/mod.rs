//! A call, from its look-up to its stored result: of threads, of tasks, and of functions that give many items.

pub(crate) mod outcome;
pub(crate) mod keyspace;
pub(crate) mod tasks;
pub(crate) mod recording;
pub(crate) mod stream;
