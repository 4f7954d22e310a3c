//! Wakers are an executor's code, which may do anything, and panic: they are cloned, woken and dropped
//! where no lock of this library is held.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Wakes tasks, one after the other: a waker that panics keeps none of the others from being woken.
pub(crate) fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
    }
}
