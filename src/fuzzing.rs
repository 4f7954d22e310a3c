//! What the fuzz targets use: it is there under `cfg(fuzzing)` alone. See `fuzz/`.

use crate::CacheKey;
use crate::engine::format::checkpoint::Checkpoint;
use crate::engine::format::header::{
    PROVENANCE, PROVENANCE_SIZE, Provenance, SUPERBLOCK_SIZE, Superblock, VERSION, word,
};
use crate::engine::format::record::{HEAD_SIZE, Head, HeadBytes, Kind, payload_check};
use crate::engine::format::{HEADER_SIZE, WORD_MASK, checksum, seal};
use crate::memo::key::identify;
use std::path::Path;

/// Makes every check in an image of a file hold, whatever the rest says: so that damage is met where
/// it does something, and not at the first check.
pub fn mend(image: &mut [u8]) {
    if image.len() < HEADER_SIZE as usize {
        return;
    }
    let check = checksum(&image[..SUPERBLOCK_SIZE - 8], u64::from(VERSION));
    image[SUPERBLOCK_SIZE - 8..SUPERBLOCK_SIZE].copy_from_slice(&check.to_le_bytes());
    let word_at = |image: &[u8], at: usize| {
        u64::from_le_bytes(image[at..at + 8].try_into().expect("8 bytes"))
    };
    for (place, _) in word::sealed(0) {
        let at = place as usize;
        let value = seal(word_at(image, at) & WORD_MASK, place);
        image[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    let (seed, mut at) = (word_at(image, 64), word_at(image, 72));
    while let Some(end) = at.checked_add(HEAD_SIZE).filter(|end| *end <= image.len() as u64) {
        let place = at as usize;
        let first = word_at(image, place);
        let (len, kind) = (first & ((1 << 40) - 1), Kind((first >> 40) as u8));
        let payload = image.get(end as usize..(end + len) as usize);
        // A large value's pad has the check of the value.
        let kind = if kind == Kind::PAD { Kind::VALUE } else { kind };
        if let Some(payload) = payload {
            let check = payload_check(kind, payload, seed);
            image[place + 56..place + 60].copy_from_slice(&check.to_le_bytes());
        }
        Head::mend(&mut image[place..place + HEAD_SIZE as usize], at, seed);
        at = crate::engine::format::align(end + len);
    }
}

/// Gives an image the provenance of the file at `path`: it is trusted there as it is.
pub fn renew_provenance(image: &mut [u8], path: &Path) {
    let place = PROVENANCE as usize..PROVENANCE as usize + PROVENANCE_SIZE;
    let page = std::fs::read(path).expect("a file");
    if let Some(provenance) = image.get_mut(place.clone()) {
        provenance.copy_from_slice(&page[place]);
    }
}

/// Decodes bytes as everything that a file holds; what is decoded encodes to the same again.
pub fn decode(bytes: &[u8], offset: u64, seed: u64) {
    if let Some((head, _)) = bytes.split_first_chunk::<{ HEAD_SIZE as usize }>() {
        let mut mended: HeadBytes = *head;
        Head::mend(&mut mended, offset, seed);
        for bytes in [*head, mended] {
            let Some(head) = Head::decode(&bytes, offset, seed) else { continue };
            assert!(head.next(offset & WORD_MASK) >= (offset & WORD_MASK) + HEAD_SIZE);
            let again = head.encode(offset, seed);
            assert_eq!(Head::decode(&again, offset, seed), Some(head));
        }
        assert!(Head::decode(&mended, offset, seed).is_some());
    }
    if let Some(checkpoint) = Checkpoint::decode(bytes) {
        assert_eq!(checkpoint.encode(), bytes);
    }
    let mut page = [0; HEADER_SIZE as usize];
    let size = bytes.len().min(page.len());
    page[..size].copy_from_slice(&bytes[..size]);
    for is_mended in [false, true] {
        if is_mended {
            mend(&mut page);
        }
        let provenance =
            page[PROVENANCE as usize..].first_chunk::<PROVENANCE_SIZE>().expect("inside");
        let _ = Provenance::decode(provenance);
        if let Ok(superblock) = Superblock::decode(&page) {
            let _ = superblock.first_index.is_plausible();
        }
    }
}

/// Who a key is: different keys of one type never are the same.
pub fn identity<K: CacheKey + ?Sized>(key: &K) -> Vec<u8> {
    let identity = identify(&[7; 32], key);
    [&identity.bytes[..], &[identity.form]].concat()
}
