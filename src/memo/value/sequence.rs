//! How the items of an iterator lie in one record: chunks of archives, and behind the last one how many
//! items there are in all, in 16 bytes. A chunk is its archive's size and its number of items, 8 bytes
//! each; the archive; and, unless that is nothing but the items themselves side by side, 4 bytes for the
//! place of each item's root in it. Archive and places are filled up to multiples of 16.

use rkyv::Archive;

const CHUNK_HEAD: usize = 16;
pub(crate) const COUNT_SIZE: usize = 16;
/// A chunk is closed when its archive has so many bytes, or it so many values.
pub(crate) const CHUNK_SIZE: usize = 64 << 10;
pub(crate) const CHUNK_VALUES: usize = 16 << 10;

/// Whether an archive of this size is nothing but so many values.
pub(crate) fn is_plain<V: Archive>(size: usize, count: usize) -> bool {
    count.checked_mul(size_of::<V::Archived>()) == Some(size)
}

/// A chunk, read.
pub(crate) struct Parts<'a> {
    pub(crate) archive: &'a [u8],
    pub(crate) count: usize,
    /// The places of the roots; `None`: the archive is nothing but values.
    pub(crate) roots: Option<&'a [[u8; 4]]>,
    /// Where the next chunk is.
    pub(crate) next: usize,
}

impl<'a> Parts<'a> {
    /// The chunk at `at`; `None` behind the last one, or if there is none that lies inside.
    pub(crate) fn at<V: Archive>(bytes: &'a [u8], at: usize) -> Option<Parts<'a>> {
        let bytes = &bytes[..bytes.len().checked_sub(COUNT_SIZE)?];
        let (head, _) = bytes.get(at..)?.split_first_chunk::<CHUNK_HEAD>()?;
        let word = |at: usize| usize::from_le_bytes(head[at..at + 8].try_into().expect("sized"));
        let (start, size, count) = (at + CHUNK_HEAD, word(0), word(8));
        if count > CHUNK_VALUES {
            return None;
        }
        let archive = bytes.get(start..start.checked_add(size)?)?;
        let end = start.checked_add(size.checked_next_multiple_of(16)?)?;
        if is_plain::<V>(size, count) {
            let next = (end <= bytes.len()).then_some(end)?;
            return Some(Parts { archive, count, roots: None, next });
        }
        let (roots, _) = bytes.get(end..end.checked_add(4 * count)?)?.as_chunks();
        let next = end.checked_add((4 * count).next_multiple_of(16))?;
        (next <= bytes.len()).then_some(Parts { archive, count, roots: Some(roots), next })
    }
}

pub(crate) fn root_at(place: &[u8; 4]) -> usize {
    u32::from_le_bytes(*place) as usize
}

pub(crate) fn count_of(bytes: &[u8]) -> u64 {
    let count = bytes.last_chunk().map_or(0, |count| u128::from_le_bytes(*count));
    u64::try_from(count).unwrap_or(u64::MAX)
}
