//! What an expansion asks of the types it cannot see: whether a result is a `Result`, whether a value says its
//! schema.
//!
//! Rust has no specialisation, but method resolution tries `&self` before `&&self`. So of two traits with a method
//! of one name, the one that is implemented for `Probe<Result<V, E>>` is found before the one for `&Probe<V>`, if
//! it applies:
//!
//! ```text
//! (&Probe::<Result<u8, E>>::new()).__persist_cache_form()   ProbeFallible applies first -> Form<Fallible<u8, E>>
//! (&Probe::<u8>::new()).__persist_cache_form()              it does not; ProbePlain     -> Form<Plain<u8>>
//! ```
//!
//! That works where the type is known, as it is in the function itself, and not for a generic `T`; there the form
//! is what its bounds say.
#![expect(missing_docs, reason = "public for expansions alone, where the attribute is documented")]
#![expect(private_interfaces, reason = "expansions pass these on and never look inside")]

use crate::memo::call::output::{Fallible, Plain, Split};
use crate::memo::scope::Fingerprint;
use crate::memo::value::schema::Schema;
use crate::memo::value::type_proof::Shape;
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
    fn __persist_cache_form(&self) -> Self::Form;
}

impl<V, E> ProbeFallible for Probe<Result<V, E>> {
    type Form = Form<Fallible<V, E>>;
    fn __persist_cache_form(&self) -> Form<Fallible<V, E>> {
        Form(PhantomData)
    }
}

/// Then it is a value.
pub trait ProbePlain {
    type Form;
    fn __persist_cache_form(&self) -> Self::Form;
}

impl<V> ProbePlain for &Probe<V> {
    type Form = Form<Plain<V>>;
    fn __persist_cache_form(&self) -> Form<Plain<V>> {
        Form(PhantomData)
    }
}

/// By what a value's type is known.
pub trait Describes<V> {
    fn fingerprint(shape: Shape) -> Fingerprint
    where
        V: CacheValue;
}

pub struct BySchema;
pub struct ByType;

impl<V: Schema> Describes<V> for BySchema {
    fn fingerprint(shape: Shape) -> Fingerprint
    where
        V: CacheValue,
    {
        Fingerprint::of_schema::<V>(shape)
    }
}

impl<V> Describes<V> for ByType {
    fn fingerprint(shape: Shape) -> Fingerprint
    where
        V: CacheValue,
    {
        Fingerprint::of_type::<V>(shape)
    }
}

/// Does the value say its schema?
pub trait ProbeSchema {
    fn __persist_cache_describes(&self) -> BySchema;
}

impl<S: Split<Value: Schema>> ProbeSchema for Form<S> {
    #[inline]
    fn __persist_cache_describes(&self) -> BySchema {
        BySchema
    }
}

/// Then its type must do.
pub trait ProbeType {
    fn __persist_cache_describes(&self) -> ByType;
}

impl<S> ProbeType for &Form<S> {
    #[inline]
    fn __persist_cache_describes(&self) -> ByType {
        ByType
    }
}

/// Feeds an argument, which must be a key...
#[inline]
pub fn feed<K: CacheKey + ?Sized>(argument: &K, key: &mut KeyWriter<'_>) {
    argument.feed(key);
}

/// ...and says its schema.
pub fn schema_of<K: CacheKey + ?Sized>(_argument: &K) -> KeySchema {
    K::SCHEMA
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
