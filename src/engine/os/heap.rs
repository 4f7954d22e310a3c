//! Memory that is asked for before it is taken, for buffers that abort the process where there is none. Between
//! the two another thread may take it: what is left to chance then is a few instructions long.

use rkyv::util::AlignedVec;
use std::hint::black_box;

/// Whether so many bytes can be had now.
pub(crate) fn has_room(size: usize) -> bool {
    let mut bytes = Vec::<u8>::new();
    let is_there = bytes.try_reserve_exact(size).is_ok();
    // An allocation that nothing looks at may be left out by the compiler, and taken to have gone well.
    black_box(&bytes);
    is_there
}

/// So many zeros, aligned as archives must be; `None` if there is no memory for them.
pub(crate) fn zeros(size: usize) -> Option<AlignedVec> {
    has_room(size).then(|| {
        let mut bytes = AlignedVec::with_capacity(size);
        bytes.resize(size, 0);
        bytes
    })
}

/// A copy, aligned as archives must be; `None` if there is no memory for it.
pub(crate) fn copy(bytes: &[u8]) -> Option<AlignedVec> {
    has_room(bytes.len()).then(|| {
        let mut copy = AlignedVec::with_capacity(bytes.len());
        copy.extend_from_slice(bytes);
        copy
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn nobody_has_room_for_everything() {
        assert!(super::has_room(0) && super::has_room(1 << 20));
        assert!(!super::has_room(1 << 60) && !super::has_room(usize::MAX));
    }
}
