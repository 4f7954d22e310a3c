//! The time of day, coarse and cheap: 5 ns where the exact clock takes 25, right to a few milliseconds.
//!
//! Used for expiry alone. The order of records never depends on it: clocks are set back, differ between machines that
//! use a file in turn, and stand still in virtual machines. Numbers do not.

use std::time::Duration;

/// The time since 1970; zero if the clock is set before.
#[inline]
pub(crate) fn now() -> Duration {
    #[cfg(test)]
    if let Some(time) = tests::SET.get() {
        return time;
    }
    read()
}

#[cfg(target_os = "linux")]
#[inline]
fn read() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(not(target_os = "linux"))]
fn read() -> Duration {
    use std::time::SystemTime;
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    thread_local! {
        /// The time, as somebody has set it for this thread.
        pub(crate) static SET: Cell<Option<Duration>> = const { Cell::new(None) };
    }
}
