//! How a function's outputs hold what is stored: each of them, or the `Ok` of a result.

use crate::error::Result;
use crate::memo::value::archive::CacheValue;
use std::convert::Infallible;
use std::marker::PhantomData;

/// How an output holds the value that is stored.
pub trait Split {
    /// What is stored.
    type Value: 'static;
    /// What the function gives.
    type Output;
    /// What it gives instead.
    type Error;
    /// Whether the output is a `Result`.
    const IS_RESULT: bool;
    /// The output as a result.
    fn split(output: Self::Output) -> Result<Self::Value, Self::Error>;
    /// The result as an output.
    fn join(result: Result<Self::Value, Self::Error>) -> Self::Output;
    /// The value in an output, if there is one.
    fn value(output: &Self::Output) -> Option<&Self::Value>;
}

/// How an output holds a value that can be stored.
pub trait Kind: Split<Value: CacheValue> {}

impl<S: Split<Value: CacheValue>> Kind for S {}

/// Every output is stored.
pub struct Plain<V>(PhantomData<fn() -> V>);

/// `Ok` is stored.
pub struct Fallible<V, E>(PhantomData<fn() -> (V, E)>);

impl<V: 'static> Split for Plain<V> {
    type Value = V;
    type Output = V;
    type Error = Infallible;
    const IS_RESULT: bool = false;

    fn split(output: V) -> Result<V, Infallible> {
        Ok(output)
    }
    fn join(result: Result<V, Infallible>) -> V {
        let Ok(value) = result;
        value
    }
    fn value(output: &V) -> Option<&V> {
        Some(output)
    }
}

impl<V: 'static, E> Split for Fallible<V, E> {
    type Value = V;
    type Output = Result<V, E>;
    type Error = E;
    const IS_RESULT: bool = true;

    fn split(output: Result<V, E>) -> Result<V, E> {
        output
    }
    fn join(result: Result<V, E>) -> Result<V, E> {
        result
    }
    fn value(output: &Result<V, E>) -> Option<&V> {
        output.as_ref().ok()
    }
}
