//! How much an attempt that waits for nothing does where it is made. A task's thread does what is brief; what may
//! take long is a job of the pool's (see [`async_ops`](crate::engine::store::async_ops)).

use crate::engine::log::op::LARGE;

/// Payloads up to this are checked, and stored, by a task itself: more would keep its thread too long.
pub(crate) const BRIEF: usize = 64 << 10;
// One who tries again and again must not reserve space each time, and leave it.
const _: () = assert!(BRIEF <= LARGE);

/// How much there may be to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Only work bounded by [`BRIEF`] bytes.
    Brief,
    /// All work, however long.
    Full,
}

impl Effort {
    /// Whether a payload of so many bytes is not too much.
    pub(crate) fn allows(self, len: u64) -> bool {
        self == Effort::Full || len <= BRIEF as u64
    }
}
