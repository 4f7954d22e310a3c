//! Golden vectors: the encoding is part of the file format and never changes.

use super::*;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::time::Duration;

const SCOPE: [u8; 32] = *b"01234567890123456789012345678901";

/// The form and the key bytes of an identity: in full if they are inline, else the hash's beginning.
fn vector<K: CacheKey + ?Sized>(key: &K) -> String {
    let identity = identify(&SCOPE, key);
    let bytes = match identity.form {
        Identity::HASHED => {
            assert_eq!(identity.bytes[..8], SCOPE[..8]);
            &identity.bytes[8..20]
        }
        form => {
            assert_eq!(identity.bytes[..8], SCOPE[..8]);
            assert!(identity.bytes[8 + form as usize..].iter().all(|byte| *byte == 0));
            &identity.bytes[8..8 + form as usize]
        }
    };
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}:{hex}", identity.form)
}

#[test]
fn short_keys_are_kept_as_they_are() {
    assert_eq!(vector(&()), "0:");
    assert_eq!(vector(&0x1234_u16), "2:3412");
    assert_eq!(vector(&1_usize), "8:0100000000000000");
    assert_eq!(vector(&-1_i32), "4:ffffffff");
    assert_eq!(vector(&1.5_f64), "8:000000000000f83f");
    assert_eq!(vector(&true), "1:01");
    assert_eq!(vector(&'ß'), "4:df000000");
    assert_eq!(vector("ab"), "10:02000000000000006162");
    assert_eq!(vector(Path::new("ab")), "10:02000000000000006162");
    assert_eq!(vector(&[1_u8, 2]), "10:02000000000000000102");
    assert_eq!(vector(&None::<u64>), "1:00");
    assert_eq!(vector(&Some(7_u8)), "2:0107");
    assert_eq!(vector(&Err::<u8, u8>(7)), "2:0007");
    assert_eq!(vector(&(1_u64, 2_u64, 3_u64)).len(), 3 + 48);
    assert_eq!(vector(&Duration::new(1, 2)), "12:010000000000000002000000");
    assert_eq!(vector(&std::net::IpAddr::from([127, 0, 0, 1])), "5:047f000001");
}

#[test]
fn long_keys_are_hashed() {
    assert_eq!(vector(&"x".repeat(100)), "255:713f1be67ee1e33faa2712ea");
    assert_eq!(vector(&[1_u64, 2, 3]), "255:cca7d494066ad7f19da00c14");
    assert_eq!(vector(&HashMap::from([(1_u8, 2_u8), (3, 4)])), "255:8607c8b080aba91506fcdd09");
    assert_eq!(vector(&BTreeSet::from(["a", "b"])), "255:882faebc6ae9d9b7eb79b624");
}

#[test]
fn owners_and_borrows_are_one_key() {
    let text = String::from("some text that is longer than twenty-four bytes");
    let vectors = [vector(&*text), vector(&text), vector(&&&*text), vector(&Cow::Borrowed(&*text))];
    assert!(vectors.iter().all(|other| *other == vectors[0]));
    assert_eq!(vector(&vec![1_u32, 2]), vector(&[1_u32, 2]));
    assert_eq!(vector(&VecDeque::from([1_u32, 2])), vector(&[1_u32, 2][..]));
    let entries = [(1_u32, 2_u32), (3, 4)];
    assert_eq!(vector(&HashMap::from(entries)), vector(&BTreeMap::from(entries)));
    assert_eq!(<Vec<String>>::SCHEMA, <[&str]>::SCHEMA);
    assert_ne!(<Vec<String>>::SCHEMA, <Vec<Vec<u8>>>::SCHEMA);
    assert_ne!(<(u8, u16)>::SCHEMA, <(u16, u8)>::SCHEMA);
}

#[test]
fn different_keys_differ() {
    let nested = [
        vector(&vec![vec!["a", "b"], vec![]]),
        vector(&vec![vec!["a"], vec!["b"]]),
        vector(&vec![vec!["ab"], vec![]]),
        vector(&vec![vec![], vec!["a", "b"]]),
    ];
    assert_eq!(nested.iter().collect::<BTreeSet<_>>().len(), nested.len());
    assert_ne!(vector("a"), vector("a\0"));
    assert_ne!(vector(&[1_u8][..]), vector(&[1_u8, 0][..]));
    struct Raw(&'static [u8]);
    impl CacheKey for Raw {
        const SCHEMA: KeySchema = KeySchema::new("Raw");
        fn feed(&self, key: &mut KeyWriter) {
            key.bytes(self.0);
        }
    }
    assert_ne!(vector(&Raw(&[1])), vector(&Raw(&[1, 0])), "the length is part of an inline key");
    let long: &[u8] = &[0; 25];
    assert_ne!(vector(&Raw(&long[..24])), vector(&Raw(long)));
}

#[test]
fn pieces_make_no_difference() {
    let whole = b"a key that is longer than what is kept inline";
    for cut in 0..whole.len() {
        let mut key = KeyWriter::new(&SCOPE);
        key.bytes(&whole[..cut]);
        key.bytes(&whole[cut..]);
        let mut once = KeyWriter::new(&SCOPE);
        once.bytes(whole);
        assert_eq!(key.finish(), once.finish(), "cut at {cut}");
    }
}
