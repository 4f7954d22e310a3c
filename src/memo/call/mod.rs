//! A call, from its look-up to its stored result: of threads, of tasks, and of functions that give many items.
//! What a call of a value does next is one table, in [`machine`]; [`blocking`] and [`tasks`] drive it. Calls of many
//! items do not wait for each other, and have no need of it.

// In reading order.
pub(crate) mod outcome;
pub(crate) mod machine;
pub(crate) mod keyspace;
pub(crate) mod attempt;
pub(crate) mod blocking;
pub(crate) mod tasks;
pub(crate) mod output;
pub(crate) mod items;
pub(crate) mod spool;
pub(crate) mod recording;
pub(crate) mod iterator;
pub(crate) mod stream;
