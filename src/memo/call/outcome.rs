//! What becomes of a call, and of the value that it computes.

use crate::memo::value::archive::CacheValue;
use crate::memo::value::cached::Cached;

/// What a caller does with a value that was computed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Takes the value itself, and need not wait until its archive is checked.
    Value,
    /// Accesses its archive.
    Archived,
}

/// What a call came to.
pub(crate) enum Outcome<V: CacheValue> {
    /// It was there.
    Found(Cached<V>),
    /// It was computed. As it is stored, if it is and that was wanted.
    Made(V, Option<Cached<V>>),
}

impl<V: CacheValue> Outcome<V> {
    /// The value as it is stored, or as it would be.
    pub(crate) fn into_cached(self) -> Cached<V> {
        match self {
            Outcome::Found(cached) | Outcome::Made(_, Some(cached)) => cached,
            Outcome::Made(value, None) => match Cached::from_value(&value) {
                Ok(cached) => cached,
                Err(error) => panic!("a result that is read in place must be archivable: {error}"),
            },
        }
    }
}
