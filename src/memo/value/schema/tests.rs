//! What a schema sees.

use super::*;
use std::collections::{BTreeMap, HashMap};

macro_rules! record {
    ($module:ident, $type:ident { $($field:ident: $part:ty),* }) => {
        mod $module {
            use super::*;
            pub(super) struct $type;
            impl Schema for $type {
                fn describe(schema: &mut SchemaWriter) {
                    schema.name(stringify!($type));
                    $(schema.field::<$part>(stringify!($field));)*
                }
            }
        }
    };
}

record!(plain, Size { width: u32, height: u32 });
record!(same, Size { width: u32, height: u32 });
record!(swapped, Size { height: u32, width: u32 });
record!(retyped, Size { width: u32, height: f32 });
record!(shorter, Size { width: u32 });
record!(renamed, Area { width: u32, height: u32 });
record!(tree, Tree { children: Vec<Tree>, name: String });
record!(other_tree, Tree { children: Vec<Tree>, name: Vec<u8> });

#[test]
fn every_change_is_seen_and_nothing_else() {
    let size = hash_of::<plain::Size>();
    assert_eq!(size, hash_of::<same::Size>(), "the module does not count");
    let others = [
        hash_of::<swapped::Size>(),
        hash_of::<retyped::Size>(),
        hash_of::<shorter::Size>(),
        hash_of::<renamed::Area>(),
    ];
    assert!(others.iter().all(|other| *other != size));
    assert_ne!(hash_of::<Vec<plain::Size>>(), hash_of::<Vec<swapped::Size>>(), "nested");
    assert_ne!(hash_of::<Vec<u8>>(), hash_of::<Option<u8>>());
    assert_ne!(hash_of::<[u8; 3]>(), hash_of::<[u8; 4]>());
    assert_ne!(hash_of::<(u8, (u8, u8))>(), hash_of::<((u8, u8), u8)>());
    assert_ne!(hash_of::<HashMap<u8, u16>>(), hash_of::<BTreeMap<u8, u16>>());
}

#[test]
fn a_type_may_hold_itself() {
    assert_ne!(hash_of::<tree::Tree>(), hash_of::<other_tree::Tree>());
}

/// Pinned: a schema is part of the identity of every entry of its type.
#[test]
fn schemas_do_not_change() {
    let hex =
        |hash: [u8; 32]| hash[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(hash_of::<plain::Size>()), "c8d0159477518177");
    assert_eq!(hex(hash_of::<tree::Tree>()), "d1ebb3847e107df4");
    assert_eq!(hex(hash_of::<Vec<Option<(u8, String)>>>()), "191523747004fd7f");
}

#[test]
fn names_of_std_say_all_and_those_of_others_do_not() {
    use super::is_of_std;
    use std::any::type_name;
    let of_std = [
        type_name::<Vec<Option<(u8, String)>>>(),
        type_name::<HashMap<Box<str>, [[u16; 4]; 3]>>(),
        type_name::<Result<std::time::Duration, std::borrow::Cow<'static, str>>>(),
        type_name::<(std::num::NonZero<u8>, std::ops::Range<u64>, bool)>(),
    ];
    assert!(of_std.iter().all(|name| is_of_std(name)), "{of_std:?}");
    let of_others = [
        type_name::<plain::Size>(),
        type_name::<Vec<Option<plain::Size>>>(),
        type_name::<HashMap<u8, u8, std::hash::BuildHasherDefault<std::hash::DefaultHasher>>>(),
        type_name::<rkyv::rend::u32_le>(),
        "core::Report", // A user's crate may have std's name.
        "f::{{closure}}",
    ];
    assert!(!of_others.iter().any(|name| is_of_std(name)), "{of_others:?}");
}
