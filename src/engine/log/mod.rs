//! The log of a file: records behind each other, in the order of their numbers. It is the truth; the index can be
//! made from it at any time.
//!
//! - [`walk`]: record after record, by copy, over damage too.
//! - [`records`]: one record, by its offset.
//! - [`op`]: what a record does. The law of the log is told there and nowhere else.
//! - [`journal`]: what the holder of the write lock appends; [`live`]: how the index follows; [`redo`]: what the next
//!   holder does for one who was killed.
//!
//! It stands on the header's words and the index. It takes no lock, and opens and replaces no file: whoever appends
//! holds the lock, and whoever walks may be beside him.
//!
//! What each file may assume of its caller:
//!
//! | file | the lock | what it changes |
//! | --- | --- | --- |
//! | [`walk`], [`records`] | may be another's: they read by copy, below an end that they are given | nothing |
//! | [`op`] | as its target says | nothing but its target |
//! | [`journal`], [`live`] | the caller's, but for what reads words or looks a key up | the log's end; the index |
//! | [`redo`] | the caller's | the same |
//!
//! A log beside an index is LMDB's opposite, which has pages and no log. A cache is written once for each computation
//! and never changed in place: appending makes a put a copy of head and payload and nine stores of words, and lets
//! readers keep references to what they have found for as long as they like.

// In reading order: each stands on those above it; `journal` and the two behind it are one type's operations.
pub(crate) mod walk;
pub(crate) mod records;
pub(crate) mod op;
pub(crate) mod journal;
pub(crate) mod live;
pub(crate) mod redo;
