//! What is admitted as a value, and what is not.

use super::*;
use std::any::TypeId;

#[test]
fn a_scope_belongs_to_one_type() {
    let mut scope = *b"a scope that two types have alike";
    let (scope, _) = scope.split_first_chunk_mut::<32>().unwrap();
    let none = (TypeId::of::<()>(), TypeId::of::<()>());
    let number = |scope: &[u8; 32]| TypeProof::<u64>::of(scope, none).is_some();
    let text = |scope: &[u8; 32]| TypeProof::<String>::of(scope, none).is_some();
    assert!(number(scope) && number(scope));
    assert!(!text(scope), "or unchecked bytes would be seen as another");
    assert!(TypeProof::<Sequence<u64>>::of_items(scope, none).is_none(), "many are not one");
    assert!(
        TypeProof::<u64>::of(scope, (TypeId::of::<u8>(), none.1)).is_none(),
        "another type of one name"
    );
    scope[31] ^= 1;
    assert!(!text(scope), "records have no more than 8 bytes of it");
    scope[0] ^= 1;
    assert!(text(scope));
}

#[test]
fn a_nested_archive_overflows_no_stack() {
    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    #[rkyv(serialize_bounds(__S: rkyv::ser::Writer))]
    #[rkyv(deserialize_bounds(__D::Error: rkyv::rancor::Source))]
    #[rkyv(bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source)))]
    struct Nested(#[rkyv(omit_bounds)] Option<Box<Nested>>);

    let nest = |depth| (0..depth).fold(Nested(None), |inner, _| Nested(Some(Box::new(inner))));
    let encoded = |depth| encode_owned(&nest(depth)).unwrap();
    assert!(check::<Nested>(&encoded(1024)).is_ok());
    assert!(check::<Nested>(&encoded(1025)).is_err(), "deeper than anyone may ask to check");
    let smallest = (0..1025).fold(0, |size, _| size + size_of::<rkyv::RelPtr<u8>>());
    assert!(may_be_too_deep(&vec![0; smallest]), "so many pointers find room in it");
}

/// The payload that a recording makes of `values`.
fn sequence<V: CacheValue>(values: &[V]) -> AlignedVec {
    let (mut chunk, mut bytes) = (Chunk::new(false), AlignedVec::new());
    let mut take = |part: &[u8]| {
        bytes.extend_from_slice(part);
        Ok(())
    };
    for value in values {
        if chunk.push(value).unwrap() {
            chunk.close(&mut take).unwrap();
        }
    }
    chunk.close(&mut take).unwrap();
    bytes.extend_from_slice(&Chunk::<V>::end(values.len() as u64));
    bytes
}

fn items<V: CacheValue>(bytes: &AlignedVec) -> Vec<V> {
    let mut items = Items::holding(Arc::new(FilePin::Copy(Box::new(bytes.clone()))), Record::NONE);
    let left = items.left() as usize;
    let values: Vec<V> = std::iter::from_fn(|| items.next()).map(Result::unwrap).collect();
    assert_eq!(values.len(), left);
    values
}

#[test]
fn sequences_come_back_as_they_were() {
    fn check_all<V: CacheValue + PartialEq + std::fmt::Debug>(values: &[V]) {
        let bytes = sequence(values);
        assert!(is_sequence::<V>(&bytes));
        assert_eq!(items::<V>(&bytes), values);
    }
    let texts: Vec<String> = (0..5000).map(|n| "x".repeat(n % 50)).collect();
    for len in [0, 1, 2, 100, 5000] {
        check_all(&texts[..len]);
        check_all(&vec![(); len * 10]);
        check_all(&vec![7_u8; len * 10]);
        check_all(&vec![(1_u8, u128::MAX); len]);
        check_all(&vec![vec![Some(1.5_f32)]; len]);
    }
}

/// Whatever bytes are taken for a sequence: they are none, or they can be read.
#[test]
fn no_bytes_make_a_sequence_that_cannot_be_read() {
    fn flip_all<V: CacheValue>(values: &[V]) {
        let bytes = sequence(values);
        let mut refused = 0;
        for at in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                match is_sequence::<V>(&damaged) {
                    true => drop(items::<V>(&damaged)),
                    false => refused += 1,
                }
            }
        }
        assert!(refused >= 3 * 32, "sizes, counts and places are not taken for others");
        for cut in 0..bytes.len() {
            assert!(!is_sequence::<V>(&bytes[..cut]), "cut at {cut}");
        }
    }
    flip_all(&["a".repeat(20), String::new(), "b".into(), "ten bytes!".into()]);
    flip_all(&[1_u64, 2, 3]);
    flip_all(&[(), ()]);
    flip_all(&[vec![true], vec![], vec![false, true]]);
}

#[test]
fn hostile_counts_end() {
    for (size, count) in [(0, u64::MAX), (u64::MAX, 1), (8, u64::MAX / 8 + 2), (0, 1 << 20)] {
        let mut bytes = AlignedVec::<16>::new();
        bytes.extend_from_slice(&size.to_le_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&[0; 64]);
        assert!(!is_sequence::<()>(&bytes) && !is_sequence::<u64>(&bytes));
        assert!(!is_sequence::<String>(&bytes));
    }
}
