//! State that a forked child must not share with its parent. A child inherits mutexes that a thread
//! may have held which does not exist there, and file locks that would not exclude its parent. So
//! whatever holds either is kept in a [`PerProcess`], of which a child sees a fresh one.
#![expect(unsafe_code, reason = "pthread_atfork is the one hook that every fork(2) of libc calls")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Once, OnceLock};

/// How many forks lie between the first process that used this library and this one.
static FORKS: AtomicU64 = AtomicU64::new(0);

extern "C" fn in_child() {
    // Relaxed: the child has one thread, and whatever it starts later happens after.
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// The same number in a process for as long as it lives, another in its children.
pub(crate) fn forks() -> u64 {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        // SAFETY: the handler is async-signal-safe: it adds to an atomic.
        let result = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        assert_eq!(result, 0, "pthread_atfork fails for want of memory alone");
    });
    FORKS.load(Ordering::Relaxed)
}

/// A value of which each process has its own.
pub(crate) struct PerProcess<T> {
    born: u64,
    value: T,
    /// What a child of this process uses, made when it first asks.
    child: OnceLock<Box<PerProcess<T>>>,
}

impl<T: Default> Default for PerProcess<T> {
    fn default() -> PerProcess<T> {
        PerProcess::new(T::default())
    }
}

impl<T> PerProcess<T> {
    /// For statics, which exist before the first fork.
    pub(crate) const fn first(value: T) -> PerProcess<T> {
        PerProcess { born: 0, value, child: OnceLock::new() }
    }

    pub(crate) fn new(value: T) -> PerProcess<T> {
        PerProcess { born: forks(), value, child: OnceLock::new() }
    }

    /// This process's value; in a child, what `inherit` makes of its parent's, which a thread may hold
    /// locked that does not exist any more.
    #[inline]
    pub(crate) fn get_or_inherit(&self, inherit: impl Fn(&T) -> T) -> &T {
        let forks = forks();
        let mut own = self;
        while own.born != forks {
            own = own.child.get_or_init(|| {
                let value = inherit(&own.value);
                Box::new(PerProcess { born: own.born + 1, value, child: OnceLock::new() })
            });
        }
        &own.value
    }

    /// This process's value; `make` makes it if it was another's.
    #[inline]
    pub(crate) fn get(&self, make: impl Fn() -> T) -> &T {
        self.get_or_inherit(|_| make())
    }
}
