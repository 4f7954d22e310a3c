//! Any two keys of a type: they are one call if and only if they are equal.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use persist_cache::CacheKey;
use persist_cache::fuzzing::identity;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Arbitrary, CacheKey)]
enum Shape {
    Nothing,
    Number(u32),
    Text { text: String, tail: Option<Box<Shape>> },
    Many(Vec<Shape>),
}

/// Keys of many types; those of one variant are compared.
#[derive(Debug, Clone, PartialEq, Arbitrary)]
enum Key {
    Bytes(Vec<u8>),
    Text(String),
    Texts(Vec<String>),
    Nested(Vec<Vec<u8>>),
    Pair(String, String),
    Triple(u64, Option<u32>, Result<u8, String>),
    Map(BTreeMap<String, Vec<u8>>),
    Set(BTreeSet<(u8, String)>),
    Array([Option<u16>; 3]),
    Signed(i64, i128, char, bool),
    Time(Duration),
    Shape(Shape),
}

fn of(key: &Key) -> Vec<u8> {
    match key {
        Key::Bytes(key) => identity(key),
        Key::Text(key) => identity(key),
        Key::Texts(key) => identity(key),
        Key::Nested(key) => identity(key),
        Key::Pair(a, b) => identity(&(a, b)),
        Key::Triple(a, b, c) => identity(&(a, b, c)),
        Key::Map(key) => {
            let hashed: HashMap<_, _> = key.clone().into_iter().collect();
            assert_eq!(identity(key), identity(&hashed));
            identity(key)
        }
        Key::Set(key) => identity(key),
        Key::Array(key) => identity(key),
        Key::Signed(a, b, c, d) => identity(&(a, b, c, d)),
        Key::Time(key) => identity(key),
        Key::Shape(key) => identity(key),
    }
}

fuzz_target!(|keys: (Key, Key)| {
    let (one, other) = keys;
    assert_eq!(of(&one), of(&one.clone()));
    if std::mem::discriminant(&one) == std::mem::discriminant(&other) {
        assert_eq!(of(&one) == of(&other), one == other);
    }
});
