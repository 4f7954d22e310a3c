//! Keys for the types of std.
//!
//! ```text
//! 7_u32                07 00 00 00                       little-endian; a `usize` has 8 bytes on every machine
//! "ab"                 length 2, 61 62                   a length before what has one
//! Some(7_u8)           tag, 07                           a tag for Option, Result and the enums of std
//! ("ab", 7_u8)         length 2, 61 62, 07               one behind the other: lengths and tags keep them apart
//! String, &str, Box<str>, Rc<str>, Cow<str>              as `str`: owners and borrows of one thing are one key
//! HashMap, HashSet     length, elements by their bytes   in an order that does not depend on the hasher
//! 1.0_f64              its bits: 0.0 and -0.0 are two keys, and a NaN is one by its bits
//! ```
//!
//! The encoding is a part of the file format: what it gives for each type is pinned by the vectors in `key/tests.rs`.

use super::{CacheKey, KeySchema, KeyWriter};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::ffi::{OsStr, OsString};
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

macro_rules! numbers {
    ($($type:ident as $wide:ident),* $(,)?) => {$(
        impl CacheKey for $type {
            const SCHEMA: KeySchema = KeySchema::new(stringify!($type));
            #[inline]
            fn feed(&self, key: &mut KeyWriter) {
                key.bytes(&(*self as $wide).to_le_bytes());
            }
        }
    )*};
}

numbers! {
    u16 as u16, u32 as u32, u64 as u64, u128 as u128, usize as u64,
    i8 as i8, i16 as i16, i32 as i32, i64 as i64, i128 as i128, isize as i64,
    f32 as f32, f64 as f64, bool as u8, char as u32,
}

impl CacheKey for u8 {
    const SCHEMA: KeySchema = KeySchema::new("u8");
    #[inline]
    fn feed(&self, key: &mut KeyWriter) {
        key.bytes(&[*self]);
    }
    #[inline]
    fn feed_slice(values: &[u8], key: &mut KeyWriter) {
        key.bytes(values);
    }
}

macro_rules! nonzero {
    ($($type:ident),*) => {$(
        impl CacheKey for NonZero<$type> {
            const SCHEMA: KeySchema = $type::SCHEMA;
            #[inline]
            fn feed(&self, key: &mut KeyWriter) {
                self.get().feed(key);
            }
        }
    )*};
}

nonzero!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize);

impl CacheKey for str {
    const SCHEMA: KeySchema = KeySchema::new("str");
    #[inline]
    fn feed(&self, key: &mut KeyWriter) {
        key.length(self.len());
        key.bytes(self.as_bytes());
    }
}

impl CacheKey for OsStr {
    const SCHEMA: KeySchema = KeySchema::new("OsStr");
    #[inline]
    fn feed(&self, key: &mut KeyWriter) {
        key.length(self.len());
        key.bytes(self.as_bytes());
    }
}

impl CacheKey for Path {
    const SCHEMA: KeySchema = KeySchema::new("Path");
    #[inline]
    fn feed(&self, key: &mut KeyWriter) {
        self.as_os_str().feed(key);
    }
}

impl<T: CacheKey> CacheKey for [T] {
    const SCHEMA: KeySchema = KeySchema::new("[]").of(T::SCHEMA);
    #[inline]
    fn feed(&self, key: &mut KeyWriter) {
        key.length(self.len());
        T::feed_slice(self, key);
    }
}

/// Types that encode as another one does.
macro_rules! like {
    ($(impl [$($generics:tt)*] $type:ty = $other:ty, $self:ident => $borrow:expr;)*) => {$(
        impl<$($generics)*> CacheKey for $type {
            const SCHEMA: KeySchema = <$other as CacheKey>::SCHEMA;
            #[inline]
            fn feed(&self, key: &mut KeyWriter) {
                let $self = self;
                let other: &$other = $borrow;
                other.feed(key);
            }
        }
    )*};
}

like! {
    impl [] String = str, this => this;
    impl [] OsString = OsStr, this => this;
    impl [] PathBuf = Path, this => this;
    impl [T: CacheKey + ?Sized] &T = T, this => this;
    impl [T: CacheKey + ?Sized] Box<T> = T, this => this;
    impl [T: CacheKey + ?Sized] Rc<T> = T, this => this;
    impl [T: CacheKey + ?Sized] Arc<T> = T, this => this;
    impl [T: CacheKey + ToOwned + ?Sized] Cow<'_, T> = T, this => this;
    impl [T: CacheKey] Vec<T> = [T], this => this;
    impl [T: CacheKey, const N: usize] [T; N] = [T], this => this;
}

/// Sequences that are no slices, and collections in the order of their elements.
macro_rules! sequences {
    ($($type:ident),*) => {$(
        impl<T: CacheKey> CacheKey for $type<T> {
            const SCHEMA: KeySchema = <[T]>::SCHEMA;
            fn feed(&self, key: &mut KeyWriter) {
                key.length(self.len());
                self.iter().for_each(|value| value.feed(key));
            }
        }
    )*};
}

sequences!(VecDeque, LinkedList);

impl<T: CacheKey, S> CacheKey for HashSet<T, S> {
    const SCHEMA: KeySchema = KeySchema::new("set").of(T::SCHEMA);
    fn feed(&self, key: &mut KeyWriter) {
        key.unordered(self.iter(), |value, key| value.feed(key));
    }
}

impl<T: CacheKey> CacheKey for BTreeSet<T> {
    const SCHEMA: KeySchema = KeySchema::new("set").of(T::SCHEMA);
    fn feed(&self, key: &mut KeyWriter) {
        key.unordered(self.iter(), |value, key| value.feed(key));
    }
}

impl<T: CacheKey> CacheKey for BinaryHeap<T> {
    const SCHEMA: KeySchema = KeySchema::new("heap").of(T::SCHEMA);
    fn feed(&self, key: &mut KeyWriter) {
        key.unordered(self.iter(), |value, key| value.feed(key));
    }
}

impl<K: CacheKey, V: CacheKey, S> CacheKey for HashMap<K, V, S> {
    const SCHEMA: KeySchema = KeySchema::new("map").of(K::SCHEMA).of(V::SCHEMA);
    fn feed(&self, key: &mut KeyWriter) {
        key.unordered(self.iter(), |entry, key| entry.feed(key));
    }
}

impl<K: CacheKey, V: CacheKey> CacheKey for BTreeMap<K, V> {
    const SCHEMA: KeySchema = KeySchema::new("map").of(K::SCHEMA).of(V::SCHEMA);
    fn feed(&self, key: &mut KeyWriter) {
        key.unordered(self.iter(), |entry, key| entry.feed(key));
    }
}

impl<T: CacheKey> CacheKey for Option<T> {
    const SCHEMA: KeySchema = KeySchema::new("Option").of(T::SCHEMA);
    #[inline]
    fn feed(&self, key: &mut KeyWriter) {
        key.bytes(&[u8::from(self.is_some())]);
        self.iter().for_each(|value| value.feed(key));
    }
}

impl<T: CacheKey, E: CacheKey> CacheKey for Result<T, E> {
    const SCHEMA: KeySchema = KeySchema::new("Result").of(T::SCHEMA).of(E::SCHEMA);
    fn feed(&self, key: &mut KeyWriter) {
        key.bytes(&[u8::from(self.is_ok())]);
        match self {
            Ok(value) => value.feed(key),
            Err(error) => error.feed(key),
        }
    }
}

impl CacheKey for () {
    const SCHEMA: KeySchema = KeySchema::new("()");
    #[inline]
    fn feed(&self, _: &mut KeyWriter) {}
}

impl<T: ?Sized> CacheKey for PhantomData<T> {
    const SCHEMA: KeySchema = KeySchema::new("PhantomData");
    #[inline]
    fn feed(&self, _: &mut KeyWriter) {}
}

impl CacheKey for Duration {
    const SCHEMA: KeySchema = KeySchema::new("Duration");
    #[inline]
    fn feed(&self, key: &mut KeyWriter) {
        self.as_secs().feed(key);
        self.subsec_nanos().feed(key);
    }
}

impl CacheKey for SystemTime {
    const SCHEMA: KeySchema = KeySchema::new("SystemTime");
    fn feed(&self, key: &mut KeyWriter) {
        self.duration_since(SystemTime::UNIX_EPOCH).map_err(|before| before.duration()).feed(key);
    }
}

impl CacheKey for Ipv4Addr {
    const SCHEMA: KeySchema = KeySchema::new("Ipv4Addr");
    fn feed(&self, key: &mut KeyWriter) {
        key.bytes(&self.octets());
    }
}

impl CacheKey for Ipv6Addr {
    const SCHEMA: KeySchema = KeySchema::new("Ipv6Addr");
    fn feed(&self, key: &mut KeyWriter) {
        key.bytes(&self.octets());
    }
}

impl CacheKey for IpAddr {
    const SCHEMA: KeySchema = KeySchema::new("IpAddr");
    fn feed(&self, key: &mut KeyWriter) {
        match self {
            IpAddr::V4(address) => (4_u8, address).feed(key),
            IpAddr::V6(address) => (6_u8, address).feed(key),
        }
    }
}

impl CacheKey for SocketAddrV4 {
    const SCHEMA: KeySchema = KeySchema::new("SocketAddrV4");
    fn feed(&self, key: &mut KeyWriter) {
        (self.ip(), self.port()).feed(key);
    }
}

impl CacheKey for SocketAddrV6 {
    const SCHEMA: KeySchema = KeySchema::new("SocketAddrV6");
    fn feed(&self, key: &mut KeyWriter) {
        (self.ip(), self.port(), self.flowinfo(), self.scope_id()).feed(key);
    }
}

impl CacheKey for SocketAddr {
    const SCHEMA: KeySchema = KeySchema::new("SocketAddr");
    fn feed(&self, key: &mut KeyWriter) {
        match self {
            SocketAddr::V4(address) => (4_u8, address).feed(key),
            SocketAddr::V6(address) => (6_u8, address).feed(key),
        }
    }
}

macro_rules! tuples {
    ($($name:ident)*) => {
        impl<$($name: CacheKey),*> CacheKey for ($($name,)*) {
            const SCHEMA: KeySchema = KeySchema::new("tuple")$(.of($name::SCHEMA))*;
            #[inline]
            #[expect(non_snake_case, reason = "fields are named after their types")]
            fn feed(&self, key: &mut KeyWriter) {
                let ($($name,)*) = self;
                $($name.feed(key);)*
            }
        }
    };
}

tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);
tuples!(A B C D E F G H I);
tuples!(A B C D E F G H I J);
tuples!(A B C D E F G H I J K);
tuples!(A B C D E F G H I J K L);
