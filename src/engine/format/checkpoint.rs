//! The payload of a checkpoint: the state of the writer's words when it was written, and a hash of
//! the index. After a reboot an index with this hash is trusted, and only the records behind it are
//! walked.

use super::slot::Table;
use super::{checksum, field};

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

    pub(crate) fn decode(bytes: &[u8]) -> Option<Checkpoint> {
        let bytes: &[u8; CHECKPOINT_SIZE] = bytes.try_into().ok()?;
        Some(Checkpoint {
            tail: field!(bytes, 0, u64),
            index: Table(field!(bytes, 8, u64)),
            index_hash: field!(bytes, 16, u64),
            barrier: field!(bytes, 24, u64),
            cleared: field!(bytes, 32, u64),
            entries: field!(bytes, 40, u64),
            live: field!(bytes, 48, u64),
            used: field!(bytes, 56, u64),
        })
    }
}

/// The hash of a table that is read piece by piece.
pub(crate) fn hash_piece(piece: &[u8], so_far: u64) -> u64 {
    checksum(piece, so_far)
}
