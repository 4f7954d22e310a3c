//! One file: how it is made, opened, believed, looked up in, mended and rewritten.
//!
//! ```text
//!   open --- no file ------------> create
//!     |---- provenance holds, header and last record verify (trust) ----------------> OpenFile
//!     |---- else, under the lock: recover = mend the log, then the index:
//!     |         checkpoint's hash | the index leads to what the log says | rebuild -> OpenFile
//!     |---- the tail itself cannot be believed: salvage = rebuild, copy, handover --> open again
//!     '---- may not be written: an index of this process's own (rebuild) -----------> OpenFile
//! ```
//!
//! It stands on the log. Which file is the cache, who may write it, and what each thread has of it, is `store`'s;
//! here a file meets another one only to be copied into it.

pub(crate) mod deadline;
pub(crate) mod effort;
pub(crate) mod expiry;
pub(crate) mod open_file;
pub(crate) mod lookup;
pub(crate) mod create;
pub(crate) mod trust;
pub(crate) mod versions;
pub(crate) mod rebuild;
pub(crate) mod copy;
pub(crate) mod replay;
pub(crate) mod handover;
pub(crate) mod mend;
pub(crate) mod recover;
pub(crate) mod open;
