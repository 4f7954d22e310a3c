//! Whose a scope is in this process: the proof that lets bytes that were checked once be seen as a type
//! ever after. A scope has one type of values, and belongs to one function or table.

use crate::engine::os::list::List;
use rkyv::Archive;
use std::any::TypeId;
use std::hash::{Hash as _, Hasher as _};
use std::marker::PhantomData;
use xxhash_rust::xxh3::Xxh3;

/// The values of an iterator, stored as one.
pub(crate) struct Sequence<V>(PhantomData<V>);

/// How many values a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One.
    One,
    /// As many as an iterator gave: [`Sequence`].
    Sequence,
}

/// The proof that a scope belongs to `V` in this process.
pub(crate) struct TypeProof<V>(PhantomData<fn() -> V>);

impl<V> Clone for TypeProof<V> {
    fn clone(&self) -> TypeProof<V> {
        *self
    }
}
impl<V> Copy for TypeProof<V> {}

impl<V: Archive<Archived: 'static>> TypeProof<V> {
    /// Takes a scope, by its hash, for `V` and for one instance of a function. `None` if this process
    /// uses one with the same first 8 bytes, which are what a record has of it, for another: two types
    /// of one name, or a collision of hashes.
    pub(crate) fn of(scope: &[u8; 32], instance: (TypeId, TypeId)) -> Option<TypeProof<V>> {
        let is_own = take(scope, (TypeId::of::<V::Archived>(), instance));
        is_own.then_some(TypeProof(PhantomData))
    }
}

impl<V: Archive<Archived: 'static>> TypeProof<Sequence<V>> {
    /// As above, for a sequence of `V`.
    pub(crate) fn of_items(
        scope: &[u8; 32],
        instance: (TypeId, TypeId),
    ) -> Option<TypeProof<Sequence<V>>> {
        let is_own = take(scope, (TypeId::of::<Sequence<V::Archived>>(), instance));
        is_own.then_some(TypeProof(PhantomData))
    }
}

/// Whose a scope is in this process: the archived type, which must not be mistaken, and a hash of the instance.
type Owner = (TypeId, u64);

/// By twelve bits of the scope's hash, so that there are few in a list: a dozen are passed on the way if a
/// program has a hundred thousand tables. They stay for as long as the process lives, whatever becomes of the
/// table, since what was verified under it stays so; so each is as small as can be.
static OWNERS: [List<([u8; 8], Owner)>; 4096] = [const { List::new() }; 4096];

fn take(scope: &[u8; 32], (archived, instance): (TypeId, (TypeId, TypeId))) -> bool {
    let mut hash = Xxh3::new();
    instance.hash(&mut hash);
    let owner = (archived, hash.finish());
    let prefix: [u8; 8] = scope[..8].try_into().expect("sized");
    let owners = &OWNERS[usize::from(u16::from_le_bytes([prefix[0], prefix[1]])) % OWNERS.len()];
    owners.find_or_add(|own| own.0 == prefix, || (prefix, owner)).1 == owner
}
