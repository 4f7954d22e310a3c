//! A file that nobody has seen yet: its header, and an empty cache.

use crate::engine::format::HEADER_SIZE;
use crate::engine::format::header::{FIRST_BUCKETS, PROVENANCE, Superblock, state, word};
use crate::engine::format::slot::Table;
use crate::engine::os::file::{CacheFile, Storage as _};
use std::hash::{BuildHasher as _, RandomState};
use std::io;

/// The disk space a new file gets: its log can take the first records without growing.
const FIRST_SIZE: u64 = 16 << 10;

/// The superblock of a new cache.
pub(crate) fn new_superblock() -> Superblock {
    Superblock {
        file_id: random(),
        cache_id: random(),
        seed: u64::from_le_bytes(random()[..8].try_into().expect("sized")),
        log_start: HEADER_SIZE + Table::new(HEADER_SIZE, FIRST_BUCKETS).size(),
        first_index: Table::new(HEADER_SIZE, FIRST_BUCKETS),
        generation: 0,
        pointer_width: pointer_width(),
        is_for_reading: false,
    }
}

/// Bytes that nobody guesses: std's hasher is keyed by the system's random source, and hashes here
/// what sets two files of one process apart.
pub(crate) fn random() -> [u8; 16] {
    let half = || RandomState::new().hash_one((std::process::id(), std::time::Instant::now()));
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&half().to_le_bytes());
    bytes[8..].copy_from_slice(&half().to_le_bytes());
    bytes
}

/// Bits of the relative pointers that rkyv was built with: a feature that anyone in the program sets.
pub(crate) fn pointer_width() -> u32 {
    size_of::<rkyv::primitive::ArchivedUsize>() as u32 * 8
}

/// Writes a whole, empty cache.
pub(crate) fn fill(file: &CacheFile, superblock: &Superblock) -> io::Result<()> {
    file.allocate(0, FIRST_SIZE)?;
    write_header(file, superblock, &[(word::ALLOCATED, FIRST_SIZE)])
}

/// Writes the header page: the superblock, the provenance, and the words, where `words` differ from a new
/// file's.
pub(crate) fn write_header(
    file: &CacheFile,
    superblock: &Superblock,
    words: &[(u64, u64)],
) -> io::Result<()> {
    let mut page = [0; HEADER_SIZE as usize];
    let mut put = |at: u64, bytes: &[u8]| {
        page[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    };
    put(0, &superblock.encode());
    put(word::STATE, &state::LIVE.to_le_bytes());
    put(word::INDEX, &superblock.first_index.0.to_le_bytes());
    for (place, value) in word::sealed(superblock.log_start).iter().chain(words) {
        put(*place, &crate::engine::format::seal(*value, *place).to_le_bytes());
    }
    if let Some(provenance) = file.provenance()? {
        put(PROVENANCE, &provenance.encode());
    }
    file.write(0, &page)
}
