//! The payload of a checkpoint: the writer's words as they were when it was written, and a hash of the index.
//!
//! After a reboot or in a copy, an index with this hash is the one that the checkpoint describes, and only the records
//! behind it are walked. Without checkpoints every opening of a copied file would walk over the whole log. Storing the
//! index itself in the checkpoint is rejected: it would be written twice, and the file would grow by it at each sync.
//!
//! ```text
//!   0      8       16      24        32        40        48     56     64
//!   | tail | index | hash  | barrier | cleared | entries | live | used |
//! ```
//!
//! Its life, from `sync` to the opening after a power cut:
//!
//! ```text
//!   under the lock   hash the index; append the checkpoint; CHECKPOINT = its offset
//!   without it       sync the file
//!   under it again   SYNCED = the tail of then: what lies below need not be looked through for faults any more
//!    .. puts ..      slots change, so the index has another hash
//!   power cut
//!   recovery         the hash of the index in the file is the checkpoint's: apply what came behind it
//!                    it is not: walk over the log, and make the index anew
//! ```
//!
//! So a checkpoint is of use as long as the index is as it was: to the next put whose slot reaches the device. The case
//! that it is for is a cache that was filled, synced and left alone. It is not believed if a fault of the log lies
//! before it (`a_checkpoint_is_not_believed_before_its_sync_ended`).

use super::slot::Table;
use super::{WORD_MASK, checksum, field};

/// A checkpoint, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Records below it are in the index.
    pub(crate) tail: u64,
    pub(crate) index: Table,
    pub(crate) index_hash: u64,
    pub(crate) barrier: u64,
    pub(crate) cleared: u64,
    pub(crate) entries: u64,
    pub(crate) live: u64,
    pub(crate) used: u64,
}

/// Bytes of a checkpoint.
pub(crate) const CHECKPOINT_SIZE: usize = 64;

impl Checkpoint {
    /// The payload of the record, whose own check covers it: there is none in here.
    pub(crate) fn encode(&self) -> [u8; CHECKPOINT_SIZE] {
        let words = [
            self.tail,
            self.index.0,
            self.index_hash,
            self.barrier,
            self.cleared,
            self.entries,
            self.live,
            self.used,
        ];
        let mut bytes = [0; CHECKPOINT_SIZE];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// `None` if a word has more than the header's words can hold, in which all but table and hash end. What it says is
    /// then still to be held against the file: a stranger may have made it, with every check right.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Checkpoint> {
        let bytes: &[u8; CHECKPOINT_SIZE] = bytes.try_into().ok()?;
        let word = |at| Some(field!(bytes, at, u64)).filter(|word| *word <= WORD_MASK);
        Some(Checkpoint {
            tail: word(0)?,
            index: Table(field!(bytes, 8, u64)),
            index_hash: field!(bytes, 16, u64),
            barrier: word(24)?,
            cleared: word(32)?,
            entries: word(40)?,
            live: word(48)?,
            used: word(56)?,
        })
    }
}

/// The hash of a table that is read piece by piece: each piece is hashed with the hash so far as its key, the first
/// with the file's seed. The pieces are of one MiB, whoever reads; of other pieces the hash would be another one.
pub(crate) fn hash_piece(piece: &[u8], so_far: u64) -> u64 {
    checksum(piece, so_far)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_comes_back_and_none_that_no_header_can_hold() {
        let [tail, barrier, cleared, entries, live, used] = [WORD_MASK; 6];
        let index = Table::new(8192, 64);
        let most =
            Checkpoint { tail, index, index_hash: u64::MAX, barrier, cleared, entries, live, used };
        assert_eq!(Checkpoint::decode(&most.encode()), Some(most));
        for field in [0, 24, 32, 40, 48, 56] {
            let mut bytes = most.encode();
            bytes[field + 6] = 1;
            assert_eq!(Checkpoint::decode(&bytes), None, "{field}");
        }
    }
}
