//! What an expansion asks of the types it cannot see: whether a result is a `Result`, whether a value
//! says its schema.
#![expect(missing_docs, reason = "public for expansions alone, where the attribute is documented")]

use crate::recording::{Fallible, Plain, Split};
use crate::schema::Schema;
use crate::scope::Fingerprint;
use crate::value::Shape;
use crate::{CacheKey, CacheValue, KeySchema, KeyWriter};
use std::marker::PhantomData;

/// Asks of a type what only its methods' resolution tells: of two traits with one method, one for the
/// type and one for a reference to it, the first that applies is taken.
pub struct Probe<T>(PhantomData<fn() -> T>);

impl<T> Probe<T> {
    #[expect(clippy::new_without_default, reason = "only expansions make one")]
    pub const fn new() -> Probe<T> {
        Probe(PhantomData)
    }
}

/// How a function gives its value.
pub struct Form<K>(PhantomData<fn() -> K>);

impl<K> Clone for Form<K> {
    fn clone(&self) -> Form<K> {
        *self
    }
}
impl<K> Copy for Form<K> {}

/// Is it a `Result`, whatever it is called?
pub trait ProbeFallible {
    type Form;
    fn form(&self) -> Self::Form;
}

impl<V, E> ProbeFallible for Probe<Result<V, E>> {
    type Form = Form<Fallible<V, E>>;
    fn form(&self) -> Form<Fallible<V, E>> {
        Form(PhantomData)
    }
}

/// Then it is a value.
pub trait ProbePlain {
    type Form;
    fn form(&self) -> Self::Form;
}

impl<V> ProbePlain for &Probe<V> {
    type Form = Form<Plain<V>>;
    fn form(&self) -> Form<Plain<V>> {
        Form(PhantomData)
    }
}

/// The value of a form, which must be one that can be stored.
#[inline]
pub fn storable<S: Split>(_form: Form<S>) -> Probe<S::Value>
where
    S::Value: CacheValue,
{
    Probe(PhantomData)
}

/// How the fingerprint of a value is taken.
pub struct Describe(pub(crate) fn(Shape) -> Fingerprint);

/// Does it say its schema?
pub trait ProbeSchema {
    fn describe(&self) -> Describe;
}

impl<V: CacheValue + Schema> ProbeSchema for Probe<V> {
    #[inline]
    fn describe(&self) -> Describe {
        Describe(Fingerprint::of_schema::<V>)
    }
}

/// Then its type must do.
pub trait ProbeType {
    fn describe(&self) -> Describe;
}

impl<V: CacheValue> ProbeType for &Probe<V> {
    #[inline]
    fn describe(&self) -> Describe {
        Describe(Fingerprint::of_type::<V>)
    }
}

/// An argument that must be a key.
#[inline]
pub fn key<K: CacheKey + ?Sized>(argument: &K) -> &K {
    argument
}

/// What is spelled `Result` must be one.
pub trait SpelledResult {
    type Value;
    type Error;
}

impl<V, E> SpelledResult for Result<V, E> {
    type Value = V;
    type Error = E;
}

/// `T` itself, which the compiler finds out where the function is called.
pub trait Is<T> {}

impl<T> Is<T> for T {}

/// A key type, where it is part of itself.
pub enum Itself {}

impl CacheKey for Itself {
    const SCHEMA: KeySchema = KeySchema::new("Self");
    fn feed(&self, _key: &mut KeyWriter<'_>) {
        match *self {}
    }
}

/// The code of a function and of those it depends on.
#[must_use]
pub const fn code(own: u128, others: &[u128]) -> u128 {
    const PRIME: u128 = (1 << 88) + 0x13b;
    let mut hash = own;
    let mut at = 0;
    while at < others.len() {
        hash = (hash.rotate_left(5) ^ others[at]).wrapping_mul(PRIME);
        at += 1;
    }
    hash
}
