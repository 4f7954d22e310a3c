//! The bytes of a cache file, as pure functions: the only code that knows a layout.
//!
//! ```text
//! 0        4096          8192                                        tail        end of file
//! | header | first index | record | record | index record | record ... | allocated |
//! ```
//!
//! - [`header`]: the first page. Its superblock never changes; its words change with every put.
//! - [`slot`]: a word of the index, and the word that names a table of them.
//! - [`record`]: the 64 bytes before each payload; [`units`]: the times and costs in it.
//! - [`checkpoint`]: the payload of a record that says what was durable when it was written.
//!
//! `docs/format.md` is the reference for readers in other languages. This module stands on a checksum and nothing
//! else: it reads no file and takes no clock. Whatever bytes come in, decoding returns a value or `None`; it never
//! panics, since every byte of a file may be damaged.
//!
//! Structs that are cast onto the mapped bytes would be the usual way in C. They are rejected: a cast needs unsafe code
//! at every use, ties the format to one compiler's layout, and cannot say that a field's bits are not a value.
//!
//! Which bytes may change, and who may change them, is what all else rests on:
//!
//! | bytes | change | written by |
//! | --- | --- | --- |
//! | superblock | never | who creates the file |
//! | provenance | when the file is made sound | who makes it so |
//! | words | with every put | the holder of the lock, by stores of 8 bytes |
//! | tables | with every put | the holder of the lock, by stores of 8 bytes |
//! | records below the tail | a large value until it is committed; what a power cut tore | its writer; recovery |
//! | all behind the tail | at any time | the holder of the lock; nobody reads it |

pub(crate) mod slot;
pub(crate) mod units;
pub(crate) mod record;
pub(crate) mod header;
pub(crate) mod checkpoint;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of the header: one page.
pub(crate) const HEADER_SIZE: u64 = 4096;
/// Records begin at multiples of this, and so do their payloads: what rkyv needs for 128-bit fields. A head has 64
/// bytes, so a payload is aligned as its record is.
pub(crate) const ALIGNMENT: u64 = 16;
/// The largest file: a slot holds 36 bits of offset in units of [`ALIGNMENT`].
pub(crate) const FILE_LIMIT: u64 = 1 << 40;
/// The largest payload: a quarter of the file, so that a compaction has room for it.
pub(crate) const PAYLOAD_LIMIT: u64 = FILE_LIMIT / 4;
/// Offsets, counts and sequence numbers have 48 bits; the upper 16 of their words hold a check. At a million records
/// a second, 48 bits of numbers last for nine years of appending; then an append is an error
/// (`sequence_numbers_that_are_used_up_are_an_error`).
pub(crate) const WORD_MASK: u64 = (1 << 48) - 1;

/// Rounds up to where the next record may begin.
pub(crate) const fn align(offset: u64) -> u64 {
    (offset + ALIGNMENT - 1) & !(ALIGNMENT - 1)
}

/// The one checksum: xxh3, keyed, so that no payload can imitate a head and no chosen keys can crowd
/// one part of the index without knowledge of the file's seed.
#[inline]
pub(crate) fn checksum(bytes: &[u8], key: u64) -> u64 {
    xxh3_64_with_seed(bytes, key)
}

/// A small integer hash (the finaliser of splitmix64) for checks of single words. It is not keyed by the seed: it is
/// there against flipped bits, and whoever can write the header page can write anything.
const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Puts a check of `value` and of the word's place above its 48 bits: a flipped tail would let appends overwrite
/// healthy records. The place is part of it so that no word is taken for another one. No word of a zeroed page
/// verifies: the check of a zero is not zero at any place that a word has.
///
/// A checksum over all words together would be the usual way. Then no word could be stored by itself: a reader, or
/// whoever comes after a death, would find most headers broken.
pub(crate) const fn seal(value: u64, place: u64) -> u64 {
    value | mix(value ^ (place << 48) ^ 0x5ea1) >> 48 << 48
}

/// The value of a sealed word, if its check holds.
pub(crate) const fn unseal(word: u64, place: u64) -> Option<u64> {
    let value = word & WORD_MASK;
    if seal(value, place) == word { Some(value) } else { None }
}

/// Little-endian fields of fixed places; indexing is checked by the callers' array types.
macro_rules! field {
    ($bytes:expr, $at:expr, $type:ty) => {
        <$type>::from_le_bytes($bytes[$at..$at + size_of::<$type>()].try_into().expect("sized"))
    };
}
pub(crate) use field;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_word_knows_its_value_and_its_place() {
        for value in [0, 16, 8192, WORD_MASK] {
            let word = seal(value, 640);
            assert_eq!(unseal(word, 640), Some(value));
            assert_eq!(unseal(word, 648), None);
            for bit in 0..64 {
                assert_eq!(unseal(word ^ (1 << bit), 640), None, "bit {bit} of {value}");
            }
        }
        assert_eq!(unseal(0, 640), None, "a zeroed page is no tail");
    }

    /// Files of other versions hold them.
    #[test]
    fn words_are_sealed_as_they_always_were() {
        assert_eq!(seal(0, 0), 0xe034_0000_0000_0000);
        assert_eq!(seal(0x1234_5678_9abc, 640), 0x1d54_1234_5678_9abc);
        assert_eq!(seal(WORD_MASK, 1288), 0x5d22_ffff_ffff_ffff);
    }
}
