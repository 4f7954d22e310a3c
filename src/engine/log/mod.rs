//! The log of a file: records behind each other, in the order of their numbers. It is the truth; the index can be
//! made from it at any time.
//!
//! It stands on the file's words and its index. It takes no lock, and opens and replaces no file: whoever appends
//! holds the lock, and whoever walks may be beside him.

// In reading order: each stands on those above it; `journal` and the two behind it are one type's operations.
pub(crate) mod walk;
pub(crate) mod records;
pub(crate) mod op;
pub(crate) mod journal;
pub(crate) mod live;
pub(crate) mod redo;
