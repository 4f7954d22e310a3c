//! Memory that is asked for before it is taken, for buffers that abort the process where there is none.

use std::hint::black_box;

/// Whether so many bytes can be had now.
pub(crate) fn has_room(size: usize) -> bool {
    let mut bytes = Vec::<u8>::new();
    let is_there = bytes.try_reserve_exact(size).is_ok();
    // An allocation that nothing looks at may be left out by the compiler, and taken to have gone well.
    black_box(&bytes);
    is_there
}

#[cfg(test)]
mod tests {
    #[test]
    fn nobody_has_room_for_everything() {
        assert!(super::has_room(0) && super::has_room(1 << 20));
        assert!(!super::has_room(1 << 60) && !super::has_room(usize::MAX));
    }
}
