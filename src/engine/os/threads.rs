//! What the threads of this process are at, as far as the system tells: whether one waits to be woken by
//! another one, and whether all do, so that nobody is left who could.

use std::collections::BTreeSet;

pub(crate) use system::{ThreadId, own, waits_to_be_woken};

/// Whether no thread of this process can go on by itself: each waits to be woken by another one, or is one of
/// `waiters`, who wait for that to change, and for this thread. Else, and where the system does not tell,
/// `false`.
///
/// Each thread is looked at twice, and found waiting both times, without having run in between. So at the
/// moment between the two rounds all were waiting. (What could still wake one is a signal's handler, and
/// another process, if what it waits at lies in memory that is shared.)
pub(crate) fn stand_still(waiters: &BTreeSet<ThreadId>) -> bool {
    let round = || system::round(waiters, own()?);
    round().is_some_and(|first| round() == Some(first))
}

#[cfg(target_os = "linux")]
mod system {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;

    /// A thread of this process.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) struct ThreadId(u32);

    pub(crate) fn own() -> Option<ThreadId> {
        u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).ok().map(ThreadId)
    }

    /// Whether a thread waits, without an end, to be woken by another one.
    pub(crate) fn waits_to_be_woken(thread: ThreadId) -> bool {
        call(thread).is_some_and(|call| is_wait(&call, false))
    }

    /// How often each thread has gone to sleep, but `own`; `None` if one can go on by itself.
    pub(super) fn round(
        waiters: &BTreeSet<ThreadId>,
        own: ThreadId,
    ) -> Option<BTreeMap<ThreadId, u64>> {
        let mut sleeps = BTreeMap::new();
        for entry in fs::read_dir("/proc/self/task").ok()? {
            let thread = ThreadId(entry.ok()?.file_name().to_str()?.parse().ok()?);
            if thread != own {
                // Before the call: who goes to sleep between the two is seen to have done so in the next round.
                sleeps.insert(thread, sleeps_of(thread)?);
                if !is_wait(&call(thread)?, waiters.contains(&thread)) {
                    return None;
                }
            }
        }
        Some(sleeps)
    }

    fn file(thread: ThreadId, name: &str) -> Option<String> {
        fs::read_to_string(format!("/proc/self/task/{}/{name}", thread.0)).ok()
    }

    /// The system call that a thread sleeps in: its number and arguments.
    fn call(thread: ThreadId) -> Option<String> {
        file(thread, "syscall")
    }

    fn sleeps_of(thread: ThreadId) -> Option<u64> {
        let status = file(thread, "status")?;
        let count =
            status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        count.trim().parse().ok()
    }

    /// Whether a call is a wait on a futex: one with an end, if it may have one.
    fn is_wait(call: &str, may_end: bool) -> bool {
        let mut words = call.split_ascii_whitespace();
        let number = words.next().and_then(|number| number.parse().ok());
        let mut arguments = words.map(|word| {
            let digits = word.strip_prefix("0x")?;
            u64::from_str_radix(digits, 16).ok()
        });
        let (operation, timeout) = (arguments.nth(1).flatten(), arguments.nth(1).flatten());
        let (Some(operation), Some(timeout)) = (operation, timeout) else { return false };
        // Its low bits say what to do, the rest how; the upper half of the register is anything.
        let operation = operation as i32 & libc::FUTEX_CMD_MASK;
        number == Some(libc::SYS_futex)
            && matches!(operation, libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET)
            && (may_end || timeout == 0)
    }

    #[cfg(test)]
    mod tests {
        use super::is_wait;

        #[test]
        fn a_wait_is_told_from_what_ends_by_itself() {
            let futex = libc::SYS_futex;
            let call = |operation: &str, timeout: &str| {
                format!("{futex} 0x7f0 {operation} 0x2 {timeout} 0x0 0xffffffff 0x7ff 0x7fe")
            };
            for operation in ["0x0", "0x80", "0x89", "0x189", "0x109", "0xffffffff00000080"] {
                assert!(is_wait(&call(operation, "0x0"), false), "{operation}");
                assert!(!is_wait(&call(operation, "0x7f1"), false), "{operation}");
                assert!(is_wait(&call(operation, "0x7f1"), true), "{operation}");
            }
            assert!(!is_wait(&call("0x81", "0x0"), true), "a wake");
            for call in ["running", "-1 0x7ff 0x7fe", "", "0 0x3 0x80 0x0 0x0 0x0 0x0 0x1 0x2"] {
                assert!(!is_wait(call, true), "{call}");
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::collections::BTreeSet;

    /// There is none that could be told.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) enum ThreadId {}

    pub(crate) fn own() -> Option<ThreadId> {
        None
    }

    pub(crate) fn waits_to_be_woken(_: ThreadId) -> bool {
        false
    }

    pub(super) fn round(_: &BTreeSet<ThreadId>, _: ThreadId) -> Option<()> {
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::{own, waits_to_be_woken};
    use std::sync::mpsc;
    use std::thread;
    use std::time::{Duration, Instant};

    #[test]
    fn a_thread_that_waits_for_another_is_seen_to() {
        let (send, receive) = mpsc::channel();
        let (end, is_ended) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            send.send(own().unwrap()).unwrap();
            is_ended.recv().unwrap_err();
        });
        let id = receive.recv().unwrap();
        assert!(!waits_to_be_woken(own().unwrap()), "it runs");
        let start = Instant::now();
        while !waits_to_be_woken(id) {
            assert!(start.elapsed() < Duration::from_secs(60), "it never waits");
            thread::yield_now();
        }
        drop(end);
        thread.join().unwrap();
        assert!(!waits_to_be_woken(id), "it is gone");
    }
}
