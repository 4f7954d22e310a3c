//! The time of day, coarse and cheap: 5 ns where the exact clock takes 25, right to a few
//! milliseconds. Used for expiry alone; the order of records never depends on it.

use std::time::Duration;

/// The time since 1970; zero if the clock is set before.
#[cfg(target_os = "linux")]
pub(crate) fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The time since 1970; zero if the clock is set before.
#[cfg(not(target_os = "linux"))]
pub(crate) fn now() -> Duration {
    use std::time::SystemTime;
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
