//! A shared value that one thread, its owner, clones as if nobody else could reach it, without a fence or
//! a lock, and that any other thread may take away: biased locking, with its revocation by an asymmetric
//! barrier. What the owner saves, who revokes pays: a system call that has every thread of the process pass
//! a full barrier.
//!
//! # Safety
//! The owner raises `uses`, passes the light barrier, and loads the state; if it is open, it reads the value,
//! and lowers `uses` afterwards. Who revokes stores CLOSED, passes the heavy barrier, loads `uses`, and takes
//! the value if that is zero. The two barriers are ordered as two sequentially consistent fences are (that is
//! what membarrier(2) is for; where there is none they *are* two such fences). So of a use and a revocation,
//!
//! - either the light barrier comes first. Then who revokes loads what the owner stored in that use, or
//!   something later. If it is zero, it was stored at the end of that use or of a later one, with release,
//!   and loaded with acquire: the owner is done with the value, and what it did happened before;
//! - or the heavy barrier comes first. Then the owner loads CLOSED or TAKEN, and leaves the value alone.
//!
//! A signal handler that interrupts a use may begin one of its own, which it ends before it returns: `uses`
//! is a count, so that it is not zero before the outer one has ended. The one step to TAKEN decides among all
//! who would take the value, the owner's end included.
#![expect(unsafe_code, reason = "one of the files that may: see the safety section")]

use super::fork::{forks, is_this_process};
#[cfg(all(test, model = "loom"))]
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::sync::Arc;
#[cfg(not(all(test, model = "loom")))]
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// The owner may not begin to use the value any more.
const CLOSED: u64 = u64::MAX - 1;
/// Somebody has taken the value.
const TAKEN: u64 = u64::MAX;

/// Whether an owner uses its value, and whether it may.
pub(crate) struct Bias {
    /// How many of the owner's uses are under way. Nobody else stores it.
    uses: AtomicU32,
    /// Open, which is the number of the process whose owner may use the value, so that the check for a forked
    /// child is the same as the one for a revocation; then CLOSED, then TAKEN.
    state: AtomicU64,
}

impl Bias {
    pub(crate) fn new() -> Bias {
        Bias { uses: AtomicU32::new(0), state: AtomicU64::new(forks()) }
    }

    /// Begins a use of the owner's; `false` if the value is not its own any more, or is its parent's. Each
    /// ends with [`leave`](Bias::leave).
    #[inline(always)]
    pub(crate) fn enter(&self) -> bool {
        // Relaxed: the owner's own word. The barrier between this and the load pairs with the heavy one.
        self.uses.store(self.uses.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        light_barrier();
        is_this_process(self.state.load(Ordering::Relaxed))
    }

    /// Ends a use.
    #[inline(always)]
    pub(crate) fn leave(&self) {
        // Release: pairs with the acquire in `take`.
        self.uses.store(self.uses.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Release);
    }

    /// Has no further use begin. Before [`take`](Bias::take) stands a [`heavy_barrier`].
    pub(crate) fn close(&self) {
        self.state.fetch_max(CLOSED, Ordering::Relaxed); // Relaxed: the barrier behind it pairs.
    }

    /// Takes the value of a closed one, unless it is in use or somebody has it.
    pub(crate) fn take(&self) -> bool {
        let take =
            || self.state.compare_exchange(CLOSED, TAKEN, Ordering::Relaxed, Ordering::Relaxed);
        // Acquire: pairs with the release in `leave`. Relaxed: one step takes it, and publishes nothing.
        self.uses.load(Ordering::Acquire) == 0 && take().is_ok()
    }

    /// Takes the value for the owner, between its uses, unless somebody has it.
    pub(crate) fn end(&self) -> bool {
        self.state.swap(TAKEN, Ordering::Relaxed) != TAKEN // Relaxed: see `take`.
    }

    fn state(&self) -> u64 {
        self.state.load(Ordering::Relaxed) // Relaxed: nothing follows from it but whether to try again.
    }
}

/// The owner's barrier: it keeps the compiler in order, and the heavy one the machine.
#[inline(always)]
fn light_barrier() {
    #[cfg(all(target_os = "linux", not(all(test, model = "loom"))))]
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(any(not(target_os = "linux"), all(test, model = "loom")))]
    fence(Ordering::SeqCst);
}

/// The barrier of who revokes. `false`: there is none here (before Linux 4.14, or in a sandbox).
pub(crate) fn heavy_barrier() -> bool {
    fence(Ordering::SeqCst);
    #[cfg(all(target_os = "linux", not(all(test, model = "loom"))))]
    {
        const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
        const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;
        let membarrier = |command: libc::c_int| {
            // SAFETY: it takes numbers alone.
            unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
        };
        // A process registers before its first one.
        let is_passed = membarrier(PRIVATE_EXPEDITED)
            || membarrier(REGISTER_PRIVATE_EXPEDITED) && membarrier(PRIVATE_EXPEDITED);
        fence(Ordering::SeqCst);
        is_passed
    }
    #[cfg(any(not(target_os = "linux"), all(test, model = "loom")))]
    true
}

/// A value that its owner uses and that others may take: see [`Owner`]. On a line of its own, and of the
/// pairs of lines that the machine fetches: the owner writes it with each use.
#[repr(align(128))]
pub(crate) struct Biased<T> {
    bias: Bias,
    /// It never changes; once it has been taken, it points to nothing.
    value: ManuallyDrop<Arc<T>>,
}

impl<T> Biased<T> {
    /// The value.
    ///
    /// # Safety
    /// The bias is entered until after the last use of what is returned, or [`take`](Bias::take) or
    /// [`end`](Bias::end) gave it to the caller, who alone may drop it.
    #[inline(always)]
    unsafe fn value(&self) -> ManuallyDrop<Arc<T>> {
        // SAFETY: the field is initialised and never changes. That its copy is an `Arc` for whoever uses it,
        // the caller promises.
        unsafe { std::ptr::read(&raw const self.value) }
    }

    /// Whether the value has been taken.
    pub(crate) fn is_taken(&self) -> bool {
        self.bias.state() == TAKEN
    }

    /// Whether it is revoked, and still to be taken.
    pub(crate) fn is_closed(&self) -> bool {
        self.bias.state() == CLOSED
    }

    /// Has the owner get the value no more. [`reclaim`] takes it.
    pub(crate) fn revoke(&self) {
        self.bias.close();
    }
}

/// The one who uses the value: it goes from thread to thread, and is never shared.
pub(crate) struct Owner<T> {
    cell: Arc<Biased<T>>,
    _is_not_sync: PhantomData<Cell<()>>,
}

impl<T> Owner<T> {
    pub(crate) fn new(value: Arc<T>) -> Owner<T> {
        let cell = Biased { bias: Bias::new(), value: ManuallyDrop::new(value) };
        Owner { cell: Arc::new(cell), _is_not_sync: PhantomData }
    }

    /// What others take the value by.
    pub(crate) fn cell(&self) -> &Arc<Biased<T>> {
        &self.cell
    }

    /// The value, if nobody has taken it and this process made it.
    #[inline(always)]
    pub(crate) fn get(&self) -> Option<Arc<T>> {
        let bias = &self.cell.bias;
        if !bias.enter() {
            bias.leave();
            return None;
        }
        // SAFETY: it is entered, by the one owner: that there is no other, its not being `Sync` says.
        let value = unsafe { self.cell.value() };
        let clone = Arc::clone(&value);
        bias.leave();
        Some(clone)
    }
}

impl<T> Drop for Owner<T> {
    fn drop(&mut self) {
        if self.cell.bias.end() {
            // SAFETY: the line above took it.
            drop(ManuallyDrop::into_inner(unsafe { self.cell.value() }));
        }
    }
}

/// How often a use is waited for: it takes a few instructions, unless its thread is kept from them.
const WAITS_MAX: u32 = 100;

/// Takes the values of cells that are revoked, and drops them. Leaves those that are in use, and all of them
/// where there is no barrier: to be tried again, or for their owners.
pub(crate) fn reclaim<T>(cells: &mut Vec<Arc<Biased<T>>>) {
    if cells.is_empty() || !heavy_barrier() {
        return;
    }
    cells.retain(|cell| {
        for _ in 0..WAITS_MAX {
            if cell.bias.take() {
                // SAFETY: the line above took it.
                drop(ManuallyDrop::into_inner(unsafe { cell.value() }));
            }
            if cell.is_taken() {
                return false;
            }
            std::thread::yield_now();
        }
        true
    });
}

#[cfg(all(test, not(model = "loom")))]
mod tests {
    use super::{Biased, Owner, heavy_barrier, reclaim};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, mpsc};

    fn revoke(cells: &mut Vec<Arc<Biased<i32>>>) {
        cells.iter().for_each(|cell| cell.revoke());
        reclaim(cells);
    }

    #[test]
    fn what_is_revoked_is_dropped_though_its_owner_idles() {
        let value = Arc::new(7);
        let (send, receive) = mpsc::channel();
        let (end, is_over) = mpsc::channel::<()>();
        let idle = {
            let value = Arc::clone(&value);
            std::thread::spawn(move || {
                let owner = Owner::new(value);
                let held = owner.get().expect("nobody took it");
                send.send((held, Arc::clone(owner.cell()))).unwrap();
                let _ = is_over.recv();
                assert!(owner.get().is_none());
            })
        };
        let (held, cell) = receive.recv().unwrap();
        assert_eq!(Arc::strong_count(&value), 3);
        let mut cells = vec![cell];
        revoke(&mut cells);
        if heavy_barrier() {
            assert!(cells.is_empty());
            assert_eq!(Arc::strong_count(&value), 2, "what was got before stays");
        }
        drop((held, end));
        idle.join().unwrap();
        drop(cells);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn revoking_beside_uses_neither_loses_nor_doubles_a_count() {
        let value = Arc::new(7);
        for _ in 0..500 {
            let (send, receive) = mpsc::channel();
            let is_revoked = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let owner = Owner::new(Arc::clone(&value));
                    send.send(Arc::clone(owner.cell())).unwrap();
                    while owner.get().is_some_and(|value| *value == 7) {}
                    assert!(is_revoked.load(Ordering::Relaxed));
                });
                let mut cells = vec![receive.recv().unwrap()];
                is_revoked.store(true, Ordering::Relaxed);
                while !cells.is_empty() && heavy_barrier() {
                    revoke(&mut cells);
                }
            });
            assert_eq!(Arc::strong_count(&value), 1);
        }
    }

    #[test]
    fn who_ends_takes_its_value_along() {
        let value = Arc::new(7);
        let owner = Owner::new(Arc::clone(&value));
        let cell = Arc::clone(owner.cell());
        drop(owner);
        assert!(cell.is_taken());
        assert_eq!(Arc::strong_count(&value), 1);
        revoke(&mut vec![cell]);
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
