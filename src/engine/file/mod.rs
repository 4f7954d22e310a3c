//! One file: how it is made, opened, believed, looked up in, mended and rewritten.
//!
//! It stands on the log. Which file is the cache, who may write it, and what each thread has of it, is `store`'s; here
//! a file meets another one only to be copied into it.

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
