//! Results to bytes and back: what a type is made of, whose a scope is, how a value is archived and checked once,
//! and how it is seen in place.

pub(crate) mod schema;
pub(crate) mod sequence;
pub(crate) mod type_proof;
pub(crate) mod archive;
pub(crate) mod cached;
