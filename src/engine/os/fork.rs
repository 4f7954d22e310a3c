//! State that a forked child must not share with its parent.
//!
//! A child inherits mutexes that a thread may have held which does not exist there, and file locks that would not
//! exclude its parent. So whatever holds either is kept in a [`PerProcess`], of which a child sees a fresh one.
//! Whether this is a child is told by a number that a hook raises at each fork; a look at the process id would be a
//! system call for each hit.
//!
//! What a child needs to know of its parent stands in lists that only grow and are read without waiting
//! ([`list`](super::list), [`trie`](super::trie)): a thread that was adding to one when the process forked leaves
//! it as it was.
#![expect(unsafe_code, reason = "pthread_atfork is the one hook that every fork(2) of libc calls")]

use once_cell::race::OnceBox;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Rises with each fork between the first process that used this library and this one.
static FORKS: AtomicU64 = AtomicU64::new(0);

extern "C" fn in_child() {
    // Relaxed: the child has one thread, and whatever it starts later happens after.
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// Whether this process is the one that had `forks` from [`forks`], and not its child.
#[inline]
pub(crate) fn is_this_process(forks: u64) -> bool {
    FORKS.load(Ordering::Relaxed) == forks // Relaxed: see `in_child`.
}

/// The same number in a process for as long as it lives, another in its children.
#[inline]
pub(crate) fn forks() -> u64 {
    // No `Once`: a child forked while another thread is at it would wait for ever. Several threads may each
    // install the hook; then a fork counts for as many.
    static IS_HOOKED: AtomicBool = AtomicBool::new(false);
    // Acquire; pairs with the release in `hook`: it is installed before there is anything not to share.
    if !IS_HOOKED.load(Ordering::Acquire) {
        hook(&IS_HOOKED);
    }
    FORKS.load(Ordering::Relaxed)
}

#[cold]
fn hook(is_hooked: &AtomicBool) {
    // SAFETY: the handler is async-signal-safe: it adds to an atomic.
    let result = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    assert_eq!(result, 0, "pthread_atfork fails for want of memory alone");
    is_hooked.store(true, Ordering::Release);
}

/// A value of which each process has its own.
pub(crate) struct PerProcess<T> {
    born: u64,
    value: T,
    /// What a child of this process uses, made when it first asks; by several threads at once, perhaps,
    /// of which one is in time. Nobody waits: a thread of a child's child would, for one that is not there.
    child: OnceBox<PerProcess<T>>,
}

impl<T: Default> Default for PerProcess<T> {
    fn default() -> PerProcess<T> {
        PerProcess::new(T::default())
    }
}

impl<T> PerProcess<T> {
    /// For statics, which exist before the first fork.
    pub(crate) const fn first(value: T) -> PerProcess<T> {
        PerProcess { born: 0, value, child: OnceBox::new() }
    }

    pub(crate) fn new(value: T) -> PerProcess<T> {
        PerProcess { born: forks(), value, child: OnceBox::new() }
    }

    /// This process's value; in a child, what `inherit` makes of its parent's. Several threads may call it at
    /// once, so it takes no lock of the parent's value: one of theirs, or one that does not exist any more,
    /// could have it.
    #[inline]
    pub(crate) fn get_or_inherit(&self, inherit: impl Fn(&T) -> T) -> &T {
        let forks = forks();
        let mut own = self;
        while own.born != forks {
            own = own.child.get_or_init(|| {
                let value = inherit(&own.value);
                Box::new(PerProcess { born: own.born + 1, value, child: OnceBox::new() })
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

#[cfg(all(test, not(model = "tsan")))] // The thread sanitizer allows no threads in a forked child.
mod tests {
    use super::*;
    use std::process::Command;
    use std::sync::{Mutex, mpsc};

    /// The exit code of a forked child that runs `run`; -1 if it takes half a minute.
    fn code_of_child(run: impl FnOnce() -> i32) -> i32 {
        // SAFETY: the child allocates and starts threads, as glibc and macOS allow, and ends below.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: its signal ends the process, which is meant.
            unsafe { libc::alarm(30) };
            let code = run();
            // SAFETY: ends the process.
            unsafe { libc::_exit(code) }
        }
        let mut status = 0;
        // SAFETY: waits for the child above.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 }
    }

    /// In a process of its own: a forked child would keep the descriptors of other tests open.
    #[test]
    fn each_process_has_its_own_and_waits_for_no_thread_that_is_gone() {
        const NAME: &str = "engine::os::fork::tests::each_process_has_its_own_and_waits_for_no_thread_that_is_gone";
        const IS_ALONE: &str = "PERSIST_CACHE_TEST_FORK";
        if std::env::var_os(IS_ALONE).is_none() {
            let mut alone = Command::new(std::env::current_exe().expect("this program"));
            let output = alone.args([NAME, "--exact"]).env(IS_ALONE, "").output().expect("it runs");
            let said = String::from_utf8_lossy(&output.stdout);
            return assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
        }
        let value = PerProcess::new(1);
        let (entered, is_in) = mpsc::channel();
        let (release, is_released) = mpsc::channel::<()>();
        let is_released = Mutex::new(is_released);
        let code = code_of_child(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    value.get(|| {
                        entered.send(()).expect("the receiver waits");
                        let _ = is_released.lock().expect("nobody panics").recv();
                        2
                    })
                });
                is_in.recv().expect("the thread comes here");
                let inner = code_of_child(|| *value.get(|| 3));
                let own = *value.get(|| 4);
                drop(release);
                inner * 10 + own
            })
        });
        assert_eq!((*value.get(|| 5), code), (1, 34));
    }
}
