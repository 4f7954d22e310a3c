//! What is admitted as a value, and what is not.

use super::*;
use std::any::TypeId;

#[test]
fn a_scope_belongs_to_one_type() {
    let mut scope = *b"a scope that two types have alike";
    let (scope, _) = scope.split_first_chunk_mut::<32>().unwrap();
    let none = TypeId::of::<()>();
    let number = |scope: &[u8; 32]| Warrant::<u64>::of(scope, none).is_some();
    let text = |scope: &[u8; 32]| Warrant::<String>::of(scope, none).is_some();
    assert!(number(scope) && number(scope));
    assert!(!text(scope), "or unchecked bytes would be seen as another");
    assert!(Warrant::<Sequence<u64>>::of_items(scope, none).is_none(), "many are not one");
    assert!(Warrant::<u64>::of(scope, TypeId::of::<u8>()).is_none(), "another type of one name");
    scope[31] ^= 1;
    assert!(!text(scope), "records have no more than 8 bytes of it");
    scope[0] ^= 1;
    assert!(text(scope));
}

#[test]
fn a_nested_archive_overflows_no_stack() {
    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    #[rkyv(serialize_bounds(__S: Writer))]
    #[rkyv(deserialize_bounds(__D::Error: rkyv::rancor::Source))]
    #[rkyv(bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source)))]
    struct Nested(#[rkyv(omit_bounds)] Option<Box<Nested>>);

    let nest = |depth| (0..depth).fold(Nested(None), |inner, _| Nested(Some(Box::new(inner))));
    let encoded = |depth| {
        let mut bytes = AlignedVec::<16>::new();
        encode(&nest(depth), |archive| bytes.extend_from_slice(archive)).unwrap();
        bytes
    };
    assert!(check::<Nested>(&encoded(1000)).is_ok());
    assert!(check::<Nested>(&encoded(1100)).is_err(), "deeper than anyone may ask to check");
}
