//! Wakers are an executor's code, which may do anything, and panic: they are cloned, woken and dropped where no
//! lock of this library is held. A panic of one is caught, so that the others are woken all the same.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Wakes tasks, one after the other: a waker that panics keeps none of the others from being woken.
pub(crate) fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        quietly(|| waker.wake());
    }
}

/// Calls code that is not ours and may panic. What it panics with is not dropped, which might panic, too.
pub(crate) fn quietly(call: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(call)) {
        std::mem::forget(payload);
    }
}
