//! Scopes: which function or table an entry belongs to, and with which types. A scope is the hash of
//! a name, the key's schema, the fingerprint of the result type, and how rkyv lays values out here.
//! What changes any of them is a miss; going back hits again.

use crate::format::record::Identity;
use crate::key::CacheKey;
use crate::value::CacheValue;
use std::any::{TypeId, type_name};
use std::hash::{Hash as _, Hasher};
use std::panic::Location;
use std::sync::atomic::AtomicU64;

/// What tells one function or table of a cache from another.
pub(crate) enum Name<'a> {
    /// A word of the user's.
    Given(&'a str),
    /// A function, by its path and type; a closure by its place in the source too. Paths alone are
    /// shared: by closures of one macro, by functions in two blocks, by types in two versions of a crate.
    Function(&'static str, TypeId, Option<&'static Location<'static>>),
}

impl Name<'_> {
    /// The name of a function or closure of type `F` that was passed at `place`.
    pub(crate) fn of<F: 'static>(place: &'static Location<'static>) -> Name<'static> {
        let path = type_name::<F>();
        let place = path.ends_with("{{closure}}").then_some(place);
        Name::Function(path, TypeId::of::<F>(), place)
    }

    fn text(&self) -> String {
        match self {
            Name::Given(name) => format!("name {name}"),
            Name::Function(path, _, None) => format!("function {path}"),
            Name::Function(path, _, Some(place)) => format!("closure {path} at {place}"),
        }
    }

    fn type_hash(&self) -> [u8; 32] {
        let mut bytes = Bytes(blake3::Hasher::new());
        if let Name::Function(_, id, _) = self {
            id.hash(&mut bytes);
        }
        *bytes.0.finalize().as_bytes()
    }
}

/// The scope of a table or memoised function.
pub(crate) struct Scope {
    pub(crate) hash: [u8; 32],
    /// What its record in the file says of it.
    pub(crate) description: Vec<u8>,
    /// Where this process last saw that record.
    pub(crate) seen: AtomicU64,
}

impl Scope {
    pub(crate) fn new<K: CacheKey + ?Sized, V: CacheValue>(name: &Name<'_>) -> Scope {
        let (name, type_hash) = (name.text(), name.type_hash());
        let mut hasher = blake3::Hasher::new_derive_key("persist-cache scope 1");
        let mut description = Vec::new();
        let mut feed = |field: &[u8], is_described: bool| {
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field);
            if is_described {
                description.extend_from_slice(&(field.len() as u32).to_le_bytes());
                description.extend_from_slice(field);
            }
        };
        feed(name.as_bytes(), true);
        feed(&K::SCHEMA.bytes(), true);
        feed(type_name::<V>().as_bytes(), true);
        feed(&fingerprint::<V>(), true);
        feed(&type_hash, false);
        feed(&[size_of::<rkyv::primitive::ArchivedUsize>() as u8], false);
        Scope { hash: *hasher.finalize().as_bytes(), description, seen: AtomicU64::new(0) }
    }

    /// The identity of the scope's own record.
    pub(crate) fn identity(&self) -> Identity {
        Identity { bytes: self.hash, form: Identity::SCOPE }
    }
}

/// Takes what a `TypeId` hashes of itself.
struct Bytes(blake3::Hasher);

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    fn write_u64(&mut self, word: u64) {
        self.0.update(&word.to_le_bytes());
    }
    fn finish(&self) -> u64 {
        0 // Nobody asks: the whole hash is taken.
    }
}

/// What is known of a result type without a schema of its own: its names, its layout, and what the
/// compiler's `TypeId` sees, which are its fields' names and order, but not those of nested types.
fn fingerprint<V: CacheValue>() -> [u8; 32] {
    let mut bytes = Bytes(blake3::Hasher::new());
    TypeId::of::<V>().hash(&mut bytes);
    TypeId::of::<V::Archived>().hash(&mut bytes);
    bytes.0.update(type_name::<V::Archived>().as_bytes());
    bytes.write_u64(size_of::<V::Archived>() as u64);
    bytes.write_u64(align_of::<V::Archived>() as u64);
    *bytes.0.finalize().as_bytes()
}
