//! Schemas of the types of std.

use super::{Schema, SchemaWriter};
use std::any::type_name;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ffi::{CString, OsString};
use std::hash::RandomState;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::NonZero;
use std::ops::{Bound, Range, RangeFrom, RangeInclusive, RangeTo};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Whether a type is made of std's types above and of nothing else, by its name as the compiler gives it.
/// Then the name says all of it, whatever is edited.
pub(crate) fn is_of_std(name: &str) -> bool {
    const OTHERS: [fn() -> &'static str; 3] =
        [type_name::<NonZero<u8>>, type_name::<Cow<'static, str>>, type_name::<RandomState>];
    let head = |name: &'static str| name.split_once('<').map_or(name, |(head, _)| head);
    let is_part = |c: char| c.is_alphanumeric() || "_:{}#".contains(c);
    let is_known =
        |path: &str| PLAIN.iter().chain(GENERIC).chain(&OTHERS).any(|known| head(known()) == path);
    // What is in no module is of the language: primitive types, keywords, numbers.
    name.split(|c| !is_part(c)).all(|path| match path.contains("::") {
        true => is_known(path),
        false => !path.contains('{'),
    })
}

macro_rules! plain {
    ($($type:ty),* $(,)?) => {
        /// Their names, as the compiler gives them.
        const PLAIN: &[fn() -> &'static str] = &[$(type_name::<$type>),*];
        $(
            impl Schema for $type {
                fn describe(schema: &mut SchemaWriter) {
                    schema.name(stringify!($type));
                }
            }
        )*
    };
}

plain! {
    u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64, bool, char, (),
    str, String, CString, OsString, PathBuf, Duration, SystemTime,
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6,
}

/// A type for a parameter.
macro_rules! unit {
    ($part:ident) => {
        ()
    };
}

macro_rules! generic {
    ($($type:ident<$($part:ident $(: ?$sized:ident)?),+ $(; $free:ident)?>),* $(,)?) => {
        /// Their names, each with some parameters.
        const GENERIC: &[fn() -> &'static str] = &[$(type_name::<$type<$(unit!($part)),+>>),*];
        $(
            impl<$($part: Schema $(+ ?$sized)?,)+ $($free: 'static)?> Schema
                for $type<$($part,)+ $($free)?>
            {
                fn describe(schema: &mut SchemaWriter) {
                    schema.name(stringify!($type));
                    $(schema.of::<$part>();)+
                }
            }
        )*
    };
}

generic! {
    Box<T: ?Sized>, Rc<T: ?Sized>, Arc<T: ?Sized>, PhantomData<T: ?Sized>,
    Vec<T>, VecDeque<T>, Option<T>, Result<T, E>, Bound<T>,
    HashMap<K, V; S>, HashSet<T; S>, BTreeMap<K, V>, BTreeSet<T>,
    Range<T>, RangeFrom<T>, RangeInclusive<T>, RangeTo<T>,
}

macro_rules! nonzero {
    ($($type:ident),*) => {$(
        impl Schema for NonZero<$type> {
            fn describe(schema: &mut SchemaWriter) {
                schema.name(concat!("NonZero ", stringify!($type)));
            }
        }
    )*};
}

nonzero!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize);

impl<T: ToOwned + Schema + ?Sized> Schema for Cow<'static, T> {
    fn describe(schema: &mut SchemaWriter) {
        schema.name("Cow");
        schema.of::<T>();
    }
}

impl<T: Schema> Schema for [T] {
    fn describe(schema: &mut SchemaWriter) {
        schema.name("[]");
        schema.of::<T>();
    }
}

impl<T: Schema, const N: usize> Schema for [T; N] {
    fn describe(schema: &mut SchemaWriter) {
        schema.name(&format!("[{N}]"));
        schema.of::<T>();
    }
}

macro_rules! tuples {
    ($(($($part:ident),+))*) => {$(
        impl<$($part: Schema),+> Schema for ($($part,)+) {
            fn describe(schema: &mut SchemaWriter) {
                schema.name("tuple");
                $(schema.of::<$part>();)+
            }
        }
    )*};
}

tuples! {
    (A) (A, B) (A, B, C) (A, B, C, D) (A, B, C, D, E) (A, B, C, D, E, F) (A, B, C, D, E, F, G)
    (A, B, C, D, E, F, G, H) (A, B, C, D, E, F, G, H, I) (A, B, C, D, E, F, G, H, I, J)
    (A, B, C, D, E, F, G, H, I, J, K) (A, B, C, D, E, F, G, H, I, J, K, L)
}
