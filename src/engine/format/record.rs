//! The head of a record: 64 bytes that say what follows, for whom, since when and for how long.
//!
//! ```text
//! 0        5    6    7     8                40     46       51   54    56       60    64
//! | length | kind | form | flags | identity | seq | created | ttl | cost | payload | head  |
//! |        |      |      |       | 32 bytes |     |         |     |      |  check  | check |
//! ```
//!
//! A head is one cache line, and the first thing of a record that a hit reads. Its identity is the key itself where
//! that is short, so that comparing keys needs no second line.
//!
//! Two checks: the head's own, so that a walk trusts no unverified length, and the payload's. Both are keyed by the
//! file's seed; the head's also by its offset, so that a head copied elsewhere is none. The kind stands outside the
//! head's check, since a pad becomes a value by one store of the first eight bytes, and inside the payload's check, so
//! that no flipped kind is believed. One check of head and payload together would be shorter; then no walk could step
//! over a damaged payload, and no hit could verify a head without reading all of the value.
//!
//! What each check is worth, for one who meets a record:
//!
//! | the head verifies, and | then |
//! | --- | --- |
//! | nothing else was looked at | length, identity and number are right; the kind may be damaged |
//! | the payload verifies, too | the kind is right as well: all of the record can be believed |
//! | the payload does not | the key had this record: what it had before counts no more, unless this is a large one |
//!
//! A large value is a [`PAD`](Kind::PAD) first, and its payload's check is that of a [`VALUE`](Kind::VALUE) from the
//! start. So the pad does not verify, which is right, since nobody is to read it. The one store that makes it a value
//! (`first_word`) makes both checks hold.
//!
//! A payload's check of 64 bits would take the place of the cost and of some bits of the times. Against damage 32 bits
//! suffice, and the secret seed keeps whoever chooses payloads from making one that looks like a head.

use super::units::{Cost, Stamp, Ttl};
use super::{align, checksum, field};
use xxhash_rust::xxh3::Xxh3;

/// Bytes of a head.
pub(crate) const HEAD_SIZE: u64 = 64;
/// Keys of up to this many bytes are kept as they are, behind 8 bytes of their scope.
pub(crate) const INLINE_KEY: usize = 24;

/// What a record is. A reader may skip unknown kinds that have the top bit set.
///
/// Any byte can be a `Kind`, since any byte may be found where one should be. Whoever decides by it has a case for all
/// others: [`Op::decode`](crate::engine::log::op::Op::decode) is where most do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind(pub(crate) u8);

impl Kind {
    /// A stored result.
    pub(crate) const VALUE: Kind = Kind(1);
    /// Its key has been removed.
    pub(crate) const TOMBSTONE: Kind = Kind(2);
    /// The offsets of records that a flush dropped.
    pub(crate) const DEAD_LIST: Kind = Kind(3);
    /// All before it is dead; its payload is the index from here on.
    pub(crate) const CLEAR: Kind = Kind(4);
    /// A table that the index grows into, or that recovery made.
    pub(crate) const INDEX: Kind = Kind(5);
    /// The offset of a large value: its payload is written into the space that was reserved for it, and it counts
    /// from this record on.
    pub(crate) const COMMIT: Kind = Kind(6);
    /// Space that holds nothing, or a large value still being written.
    pub(crate) const PAD: Kind = Kind(0x81);
    /// What was durable when it was written, and the index as it was then.
    pub(crate) const CHECKPOINT: Kind = Kind(0x82);
    /// The name and types behind a scope.
    pub(crate) const SCOPE: Kind = Kind(0x83);

    /// Whether the payload is an index table: changing for ever, so outside the payload check. What makes up for that
    /// is in [`Head::decode`].
    pub(crate) const fn holds_table(self) -> bool {
        matches!(self, Kind::CLEAR | Kind::INDEX)
    }
    /// Whether the record is found through the index by its identity.
    pub(crate) const fn is_keyed(self) -> bool {
        matches!(self, Kind::VALUE | Kind::TOMBSTONE | Kind::SCOPE)
    }
}

/// Who a record belongs to: 32 bytes and the form they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Identity {
    /// 8 bytes of scope, and a short key or 24 bytes of a long one's hash.
    pub(crate) bytes: [u8; 32],
    /// The length of the inline key, or one of the constants below.
    pub(crate) form: u8,
}

impl Identity {
    /// The form of records that have no key.
    pub(crate) const UNKEYED: u8 = 254;
    /// The form of a scope's own record: its bytes are the scope.
    pub(crate) const SCOPE: u8 = 253;
    /// The form of a hashed key.
    pub(crate) const HASHED: u8 = 255;
    /// Nobody's.
    pub(crate) const NONE: Identity = Identity { bytes: [0; 32], form: Identity::UNKEYED };

    /// The hash that decides the slot: two folded multiplications, as in wyhash, keyed by the seed. It
    /// need only spread; who is who the identity itself decides.
    ///
    /// Two products of the 32 bytes, and a third that joins them, are on the way of every hit. The hash is keyed
    /// because keys may come from strangers: without the secret seed they could be chosen to crowd one part of the
    /// index.
    #[inline(always)]
    pub(crate) fn hash(&self, seed: u64) -> u64 {
        let word = |at: usize| field!(self.bytes, at, u64);
        let seed = seed ^ (u64::from(self.form) << 56);
        let left = fold(word(0) ^ seed, word(8) ^ 0xa076_1d64_78bd_642f);
        let right = fold(word(16) ^ seed.rotate_left(32), word(24) ^ 0xe703_7ed1_a0b4_28db);
        fold(left ^ 0x8ebc_6af0_9c88_c6e3, right ^ seed)
    }
}

/// The two halves of a product, folded. The lowest bits of a product depend on the lowest bits of its factors alone,
/// and those of its upper half do not.
#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

/// A head, decoded. That one exists says that its check held, or that it is about to be written; it does not say that
/// the record ends inside the log, nor that its payload is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) identity: Identity,
    /// Bytes of payload, exactly: rkyv finds its root at the end.
    pub(crate) len: u64,
    /// The order of records; never their place, never their time.
    pub(crate) seq: u64,
    pub(crate) created: Stamp,
    pub(crate) ttl: Ttl,
    pub(crate) cost: Cost,
    pub(crate) payload_check: u32,
}

// The places of the fields.
const LEN: usize = 0;
const KIND: usize = 5;
const FORM: usize = 6;
const FLAGS: usize = 7;
/// The flag of a pad over what a power cut tore: an index that was made before may lead to it.
pub(crate) const TORN: u8 = 1;
const IDENTITY: usize = 8;
const SEQ: usize = 40;
const CREATED: usize = 46;
const TTL: usize = 51;
const COST: usize = 54;
const PAYLOAD_CHECK: usize = 56;
const HEAD_CHECK: usize = 60;
const _: () = assert!(HEAD_CHECK + 4 == HEAD_SIZE as usize);

/// The bytes of a head.
pub(crate) type HeadBytes = [u8; HEAD_SIZE as usize];

impl Head {
    /// A head without a number, a time or a payload's check: [`Draft`](crate::engine::log::journal::Draft) and whoever
    /// appends it fill these in.
    pub(crate) fn new(kind: Kind, identity: Identity, len: u64) -> Head {
        Head {
            kind,
            flags: 0,
            identity,
            len,
            seq: 0,
            created: Stamp(0),
            ttl: Ttl::NONE,
            cost: Cost::default(),
            payload_check: 0,
        }
    }

    /// Where the record behind this one begins, if this one is at `offset`. With an offset of 0 it is what the record
    /// takes in the file. It cannot overflow for a head that was decoded: a length has 40 bits.
    pub(crate) fn next(&self, offset: u64) -> u64 {
        align(offset + HEAD_SIZE + self.len)
    }

    /// The first eight bytes as a word: what one store changes when a pad becomes a value.
    pub(crate) fn first_word(&self) -> u64 {
        self.len
            | u64::from(self.kind.0) << 40
            | u64::from(self.identity.form) << 48
            | u64::from(self.flags) << 56
    }

    /// The bytes of this head at `offset`, and nowhere else: the check depends on it. Whoever copies a record to
    /// another place encodes its head anew.
    pub(crate) fn encode(&self, offset: u64, seed: u64) -> HeadBytes {
        let mut bytes = [0; HEAD_SIZE as usize];
        bytes[..8].copy_from_slice(&self.first_word().to_le_bytes());
        bytes[IDENTITY..SEQ].copy_from_slice(&self.identity.bytes);
        bytes[SEQ..CREATED].copy_from_slice(&self.seq.to_le_bytes()[..6]);
        bytes[CREATED..TTL].copy_from_slice(&self.created.0.to_le_bytes()[..5]);
        bytes[TTL..COST].copy_from_slice(&self.ttl.0.to_le_bytes()[..3]);
        bytes[COST..PAYLOAD_CHECK].copy_from_slice(&self.cost.0.to_le_bytes());
        bytes[PAYLOAD_CHECK..HEAD_CHECK].copy_from_slice(&self.payload_check.to_le_bytes());
        let check = head_check(&bytes, offset, seed);
        bytes[HEAD_CHECK..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// The head at `offset`, if its check holds.
    ///
    /// The kind is outside that check. For most kinds the payload's check covers it; a table's payload has none that
    /// could. So a table's head carries the check of no bytes under its kind, and a length that tables have. Without
    /// that, one flipped bit would make a table to grow into (5) a clear of all before it (4):
    /// `one_flipped_bit_makes_no_clear`. A head that fails there is still the head of some record, whose length is
    /// right, so it is given out as space and not refused: a walk steps over it.
    pub(crate) fn decode(bytes: &HeadBytes, offset: u64, seed: u64) -> Option<Head> {
        if field!(bytes, HEAD_CHECK, u32) != head_check(bytes, offset, seed) {
            return None;
        }
        let mut kind = Kind(bytes[KIND]);
        let is_table = len(bytes) > 0
            && len(bytes).is_multiple_of(super::slot::BUCKET_SIZE)
            && field!(bytes, PAYLOAD_CHECK, u32) == payload_check(kind, &[], seed);
        if kind.holds_table() && !is_table {
            // A flipped kind, which no payload's check would show: a clear that never was. Space.
            kind = Kind::PAD;
        }
        Some(Head {
            kind,
            flags: bytes[FLAGS],
            identity: Identity {
                bytes: bytes[IDENTITY..SEQ].try_into().expect("sized"),
                form: bytes[FORM],
            },
            len: len(bytes),
            seq: field!(bytes, SEQ, u64) & super::WORD_MASK,
            created: created(bytes),
            ttl: ttl(bytes),
            cost: cost(bytes),
            payload_check: field!(bytes, PAYLOAD_CHECK, u32),
        })
    }

    /// Gives the bytes of a head the check that they should have.
    #[cfg(fuzzing)]
    pub(crate) fn mend(bytes: &mut [u8], offset: u64, seed: u64) {
        let bytes: &mut HeadBytes = bytes.try_into().expect("the bytes of a head");
        let check = head_check(bytes, offset, seed);
        bytes[HEAD_CHECK..].copy_from_slice(&check.to_le_bytes());
    }

    /// The check that `payload` must have under this head.
    pub(crate) fn check_of(&self, payload: &[u8], seed: u64) -> u32 {
        payload_check(self.kind, payload, seed)
    }
}

/// The check of a payload that is read piece by piece: what [`payload_check`] gives for all of them at once. Not for a
/// table, of which nothing is covered.
pub(crate) struct PayloadCheck(Xxh3);

impl PayloadCheck {
    pub(crate) fn new(kind: Kind, seed: u64) -> PayloadCheck {
        PayloadCheck(Xxh3::with_seed(payload_key(kind, seed)))
    }
    pub(crate) fn add(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }
    pub(crate) fn get(&self) -> u32 {
        self.0.digest() as u32
    }
}

/// The seed is rotated so that heads and payloads are keyed apart.
fn payload_key(kind: Kind, seed: u64) -> u64 {
    seed.rotate_left(32) ^ u64::from(kind.0)
}

/// The check of a payload of `kind`. Of a table, which changes for ever, nothing is covered.
pub(crate) fn payload_check(kind: Kind, payload: &[u8], seed: u64) -> u32 {
    let covered = if kind.holds_table() { &[] } else { payload };
    checksum(covered, payload_key(kind, seed)) as u32
}

/// The check of a head at `offset`, over all bytes before the check but the kind.
fn head_check(bytes: &HeadBytes, offset: u64, seed: u64) -> u32 {
    let mut covered = *bytes;
    covered[KIND] = 0;
    checksum(&covered[..HEAD_CHECK], seed ^ offset.wrapping_mul(0x9e37_79b9_7f4a_7c15)) as u32
}

// Single fields of a head that has been verified before: the hot path reads no more than it needs. They check nothing.
// Of a head that was never verified they give whatever is there, and `len` no more than 40 bits.

#[inline]
pub(crate) fn is_value(bytes: &HeadBytes) -> bool {
    bytes[KIND] == Kind::VALUE.0
}
/// Whether the record is of `identity`, whatever its kind.
#[inline]
pub(crate) fn belongs_to(bytes: &HeadBytes, identity: &Identity) -> bool {
    // By words, as they were written and hashed: a wider load would wait for narrower stores to retire.
    let differs = |at: usize| field!(bytes, IDENTITY + at, u64) ^ field!(identity.bytes, at, u64);
    bytes[FORM] == identity.form && differs(0) | differs(8) | differs(16) | differs(24) == 0
}
#[inline]
pub(crate) fn len(bytes: &HeadBytes) -> u64 {
    field!(bytes, LEN, u64) & ((1 << 40) - 1)
}
#[inline]
pub(crate) fn created(bytes: &HeadBytes) -> Stamp {
    Stamp(field!(bytes, CREATED, u64) & ((1 << 40) - 1))
}
#[inline]
pub(crate) fn ttl(bytes: &HeadBytes) -> Ttl {
    Ttl(field!(bytes, TTL, u32) & Ttl::NONE.0)
}
#[inline]
pub(crate) fn cost(bytes: &HeadBytes) -> Cost {
    Cost(field!(bytes, COST, u16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn head() -> Head {
        let identity = Identity { bytes: [7; 32], form: 24 };
        let mut head = Head::new(Kind::VALUE, identity, 123_456);
        head.seq = 0x1234_5678_9abc;
        head.created = Stamp(0x99_8877_6655);
        head.ttl = Ttl::new(Duration::from_secs(3600));
        head.cost = Cost::new(Duration::from_millis(3));
        head.payload_check = 0xcafe_f00d;
        head
    }

    #[test]
    fn a_head_comes_back_and_no_flipped_bit_is_believed() {
        let bytes = head().encode(8192, 99);
        assert_eq!(Head::decode(&bytes, 8192, 99), Some(head()));
        assert_eq!(Head::decode(&bytes, 8208, 99), None, "a head copied elsewhere");
        assert_eq!(Head::decode(&bytes, 8192, 98), None, "a head of another file");
        for bit in (0..512).filter(|bit| bit / 8 != KIND) {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::decode(&flipped, 8192, 99), None, "bit {bit}");
        }
    }

    /// Indexes of other versions are searched by them.
    #[test]
    fn identities_are_hashed_as_they_always_were() {
        let mut identity = Identity { form: 0x24, ..Identity::NONE };
        for (at, byte) in identity.bytes.iter_mut().enumerate() {
            *byte = (at as u8 + 1).wrapping_mul(0x3b);
        }
        let hashes = [1, 0xfedc_ba98_7654_3210].map(|seed| identity.hash(seed));
        assert_eq!(hashes, [0x8b32_317e_df64_0596, 0x5ec3_50fe_2ace_e5ac]);
        assert_eq!(Identity::NONE.hash(0), 0xded6_752d_3a67_edf5);
    }

    /// The heads of other versions are.
    #[test]
    fn heads_are_checked_as_they_always_were() {
        let check = |offset, seed| head().encode(offset, seed)[HEAD_CHECK..].to_vec();
        assert_eq!(check(8192, 99), [180, 207, 242, 48]);
        assert_eq!(check(1 << 39, u64::MAX / 3), [177, 252, 54, 102]);
    }

    /// The payloads of other versions are checked by it.
    #[test]
    fn payloads_are_checked_as_they_always_were() {
        let checks = [Kind::VALUE, Kind::SCOPE]
            .map(|kind| payload_check(kind, b"payload", 0x1234_567f_9abc_def0));
        assert_eq!(checks, [0xb90a_d745, 0xbda9_443c]);
    }

    #[test]
    fn a_record_belongs_to_its_own_identity_and_to_no_other() {
        let bytes = head().encode(8192, 99);
        let own = head().identity;
        assert!(belongs_to(&bytes, &own));
        for bit in 0..256 {
            let mut other = own;
            other.bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!belongs_to(&bytes, &other), "bit {bit}");
            // Two equal differences do not cancel each other.
            for apart in [64, 128, 192] {
                let mut other = other;
                other.bytes[(bit + apart) % 256 / 8] ^= 1 << (bit % 8);
                assert!(!belongs_to(&bytes, &other), "bits {bit} and {apart} further");
            }
        }
        assert!(!belongs_to(&bytes, &Identity { form: own.form ^ 1, ..own }));
    }

    #[test]
    fn a_flipped_kind_fails_the_payload_check() {
        let kinds = [Kind::VALUE, Kind::TOMBSTONE, Kind::CLEAR, Kind::INDEX, Kind::PAD];
        for (a, b) in kinds.iter().flat_map(|a| kinds.iter().map(move |b| (a, b))) {
            assert_eq!(payload_check(*a, b"", 5) == payload_check(*b, b"", 5), a == b);
        }
    }
}
