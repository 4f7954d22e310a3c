//! One index slot, and the word that names a table of them.
//!
//! ```text
//! slot   63            36 35                      0
//!        | tag (28 bits) | offset / 16 (36 bits)  |     0: empty;  offset 16: dead
//! table  63                         30 29         0
//!        | offset / 64 (34 bits)     | buckets    |     0: no table
//! ```
//!
//! Each is one aligned 8-byte word, the largest thing that every machine publishes by one store: a reader sees the old
//! slot or the new one, and never half of each. 36 bits of 16-byte units reach a file of 1 TiB.
//!
//! The tag is the top of the key's hash and alone decides the bucket, in a table of any size. So a growing index moves
//! slots without reading a single record. The price is that a tag says less than its 28 bits within one bucket, where
//! all tags are close to each other. What counts is the whole file: among n keys, another one has the same tag for n in
//! 2^28 searches. With a million keys that is one search in 268, which then reads one record too many. The tables of
//! SwissTable keep 7 bits of the hash, which is enough in memory; here each false match is a cache miss in a file.
//!
//! For example, a key whose tag is 0xdeadbee, of a record at 8192, in a table of 64 buckets at 4096:
//!
//! ```text
//!   home bucket   0xdeadbee * 64 >> 28 = 55           begins at 4096 + 55 * 64 = 7616
//!   first place   0xdeadbee % 8 = 6                   the seventh slot of it: 7616 + 6 * 8 = 7664
//!   slot          0xdeadbee << 36 | 8192 / 16         0xdeadbee000000200
//!   when dead     0xdeadbee << 36 | 16 / 16           0xdeadbee000000001
//!   after growth  0xdeadbee * 128 >> 28 = 111         the same word, in bucket 111 of 128
//! ```
//!
//! A slot goes through few states, and into EMPTY none of them leads back while its table is the index:
//!
//! ```text
//!   EMPTY ---> leads to a record ---> leads to a newer record of the key ---> DEAD ---> leads to a record of any key
//! ```
//!
//! A search ends at the first empty slot. If a slot in the midst of a probe became empty, the keys behind it would
//! be lost to readers that are under way, and to all later ones.

use super::{ALIGNMENT, HEADER_SIZE, WORD_MASK};

/// Slots of a bucket: one cache line.
pub(crate) const BUCKET_SLOTS: u64 = 8;
/// Bytes of a bucket.
pub(crate) const BUCKET_SIZE: u64 = BUCKET_SLOTS * 8;
const TAG_BITS: u32 = 28;
const PLACE_BITS: u32 = 64 - TAG_BITS;
/// The most buckets a tag can tell apart.
pub(crate) const BUCKET_LIMIT: u64 = 1 << TAG_BITS;

/// The upper bits of a key's hash. Two keys may have one tag; the identity in the record decides between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tag(u64);

impl Tag {
    #[inline]
    pub(crate) const fn of(hash: u64) -> Tag {
        Tag(hash >> PLACE_BITS)
    }

    /// The bucket at which the search begins in a table of `buckets`. Rising tags have rising buckets,
    /// whatever the size, so growth fills a new table from front to back. That is what a multiplication and a shift
    /// give, and a remainder would not. The number of buckets need be no power of two.
    #[inline]
    pub(crate) const fn home(self, buckets: u64) -> u64 {
        (self.0 * buckets) >> TAG_BITS
    }

    /// Where in a bucket the search looks in this step: around, from a slot that the tag picks. In bytes from the
    /// bucket's start. Were the first slot always looked at first, a search would pass over the bucket's other keys.
    #[inline]
    pub(crate) const fn place(self, step: u64) -> u64 {
        (self.0 + step) % BUCKET_SLOTS * 8
    }
}

/// A tag and the offset of a record; or empty; or dead, which says that its record counts no more. A
/// slot never becomes empty again, but a dead one may be taken by any key.
///
/// A slot may hold anything if the file is damaged. None of these functions fails or panics then: an offset that leads
/// to no record is found out by whoever reads there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(pub(crate) u64);

impl Slot {
    pub(crate) const EMPTY: Slot = Slot(0);

    #[inline]
    pub(crate) const fn new(tag: Tag, offset: u64) -> Slot {
        Slot((tag.0 << PLACE_BITS) | (offset / ALIGNMENT))
    }
    /// The tag stays: growth finds the slot's place in the new table by it. Readers need not know of dead slots. Such a
    /// slot leads them into the superblock, where no head verifies, and the search goes on.
    #[inline]
    pub(crate) const fn dead(tag: Tag) -> Slot {
        // An offset in the header, where no record is.
        Slot::new(tag, ALIGNMENT)
    }
    #[inline]
    pub(crate) const fn is_dead(self) -> bool {
        self.offset() == ALIGNMENT
    }
    #[inline]
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == Slot::EMPTY.0
    }
    #[inline]
    pub(crate) const fn tag(self) -> Tag {
        Tag(self.0 >> PLACE_BITS)
    }
    #[inline]
    pub(crate) const fn offset(self) -> u64 {
        (self.0 & ((1 << PLACE_BITS) - 1)) * ALIGNMENT
    }
}

/// Names a table: its offset and its size in one word, so that one store switches tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Table(pub(crate) u64);

const COUNT_BITS: u32 = 30;

impl Table {
    /// No table.
    pub(crate) const NONE: Table = Table(0);

    /// A table of `buckets` at `offset`, a multiple of [`BUCKET_SIZE`].
    pub(crate) const fn new(offset: u64, buckets: u64) -> Table {
        Table((offset / BUCKET_SIZE) << COUNT_BITS | buckets)
    }
    #[inline]
    pub(crate) const fn offset(self) -> u64 {
        (self.0 >> COUNT_BITS) * BUCKET_SIZE
    }
    #[inline]
    pub(crate) const fn buckets(self) -> u64 {
        self.0 & ((1 << COUNT_BITS) - 1)
    }
    pub(crate) const fn slots(self) -> u64 {
        self.buckets() * BUCKET_SLOTS
    }
    pub(crate) const fn size(self) -> u64 {
        self.buckets() * BUCKET_SIZE
    }
    /// The first byte behind the table.
    pub(crate) const fn end(self) -> u64 {
        self.offset() + self.size()
    }
    /// Whether the word can name a table at all. What lies there is another question, which
    /// [`is_table`](crate::engine::file::trust::is_table) answers.
    pub(crate) const fn is_plausible(self) -> bool {
        self.buckets() > 0
            && self.buckets() <= BUCKET_LIMIT
            && self.offset() >= HEADER_SIZE
            && self.end() <= WORD_MASK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_rise_with_tags_and_stay_inside() {
        for buckets in [1, 3, 64, 1000, BUCKET_LIMIT] {
            let mut last = 0;
            for step in 0..=1000 {
                let tag = Tag::of(u64::MAX / 1000 * step);
                let bucket = tag.home(buckets);
                assert!(bucket < buckets && bucket >= last);
                last = bucket;
            }
        }
    }

    /// Indexes of other versions are searched in this order.
    #[test]
    fn a_search_goes_on_as_it_always_did() {
        let tag = Tag::of(0xdead_beef_0000_0000);
        assert_eq!([1, 64, 1000].map(|buckets| tag.home(buckets)), [0, 55, 869]);
        let places: Vec<u64> = (0..8).map(|step| tag.place(step)).collect();
        assert_eq!(places, [48, 56, 0, 8, 16, 24, 32, 40]);
        let slot = Slot::new(tag, 8192);
        assert_eq!((slot.0, Slot::dead(tag).0), (0xdead_bee0_0000_0200, 0xdead_bee0_0000_0001));
    }

    #[test]
    fn words_keep_what_they_are_given() {
        let tag = Tag::of(0xdead_beef_0000_0000);
        let slot = Slot::new(tag, super::super::FILE_LIMIT - 16);
        assert_eq!((slot.tag(), slot.offset()), (tag, super::super::FILE_LIMIT - 16));
        let table = Table::new(4096, BUCKET_LIMIT);
        assert_eq!((table.offset(), table.buckets()), (4096, BUCKET_LIMIT));
        assert!(table.is_plausible() && !Table::NONE.is_plausible());
    }
}
