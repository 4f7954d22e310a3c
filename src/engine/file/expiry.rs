//! Whether a value has expired, judged when it is read.
//!
//! The handle's own expiry counts where it has one, on old entries too; else the time to live that the record was
//! written with. So an expiry can be changed at any time, and nothing has to be rewritten. A hit without any expiry
//! looks at no clock.
//!
//! A deadline in each record, as memcached has, is rejected: it would be the writer's clock and the writer's wish
//! for ever.

use crate::engine::format::record::{self, HeadBytes};
use crate::engine::format::units::Stamp;
use crate::engine::os::clock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// An entry from further in the future than this was written under a wrong clock: expired. Until
/// then its age is zero, so a clock that was ahead prolongs no life by more than this.
const FUTURE_MAX: u64 = 10_000_000_000;

/// How a handle judges age: nanoseconds after which whatever is as old or older has expired, or one of
/// the two constants. One word, which handles share and every hit loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExpiryRule(u64);

impl ExpiryRule {
    /// By what each record was written with.
    pub(crate) const AS_WRITTEN: ExpiryRule = ExpiryRule(u64::MAX);
    /// Nothing is too old.
    pub(crate) const NEVER: ExpiryRule = ExpiryRule(u64::MAX - 1);

    /// `None` is as written; past 584 years is never.
    pub(crate) fn new(expiry: Option<Duration>) -> ExpiryRule {
        match expiry.map(|expiry| u64::try_from(expiry.as_nanos())) {
            None => ExpiryRule::AS_WRITTEN,
            Some(Ok(nanos)) => ExpiryRule(nanos.min(ExpiryRule::NEVER.0)),
            Some(Err(_)) => ExpiryRule::NEVER,
        }
    }

    pub(crate) fn get(self) -> Option<Duration> {
        match self {
            ExpiryRule::AS_WRITTEN => None,
            ExpiryRule::NEVER => Some(Duration::MAX),
            ExpiryRule(nanos) => Some(Duration::from_nanos(nanos)),
        }
    }

    /// The time to live that a record is written with.
    pub(crate) fn ttl(self) -> Option<Duration> {
        self.get().filter(|ttl| *ttl != Duration::MAX)
    }

    /// Whether a record with this head counts no more. Looks at the clock only if it must.
    #[inline(always)]
    pub(crate) fn is_expired(self, head: &HeadBytes) -> bool {
        self.ttl_of(head).is_some_and(|ttl| is_past(record::created(head), ttl, clock::now()))
    }

    /// For how many nanoseconds a record with this head counts; `None` if for ever.
    #[inline(always)]
    fn ttl_of(self, head: &HeadBytes) -> Option<u64> {
        match self {
            ExpiryRule::AS_WRITTEN => {
                let ttl = record::ttl(head).get()?;
                Some(u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX))
            }
            ExpiryRule::NEVER => None,
            ExpiryRule(ttl) => Some(ttl),
        }
    }

    /// What this rule judges now, for good.
    pub(crate) fn now(self) -> Moment {
        Moment { expiry: self, now: clock::now() }
    }
}

/// An [`ExpiryRule`] at one point in time: however long a walk takes, it judges all records alike.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    expiry: ExpiryRule,
    now: Duration,
}

impl Moment {
    /// Whether a record with this head counted no more at that time.
    pub(crate) fn is_expired(self, head: &HeadBytes) -> bool {
        let ttl = self.expiry.ttl_of(head);
        ttl.is_some_and(|ttl| is_past(record::created(head), ttl, self.now))
    }
}

#[inline]
fn is_past(created: Stamp, ttl: u64, now: Duration) -> bool {
    let now = now.as_secs().saturating_mul(1_000_000_000).saturating_add(now.subsec_nanos().into());
    let created = created.0.saturating_mul(10_000_000);
    match now.checked_sub(created) {
        Some(age) => age >= ttl,
        // Stamps are rounded down, so a stamp from the future is one of another clock.
        None => ttl == 0 || created - now > FUTURE_MAX,
    }
}

/// An [`ExpiryRule`] that a handle shares with its clones.
#[derive(Debug)]
pub(crate) struct SharedExpiry(AtomicU64);

impl SharedExpiry {
    pub(crate) fn new(expiry: ExpiryRule) -> SharedExpiry {
        SharedExpiry(AtomicU64::new(expiry.0))
    }

    // Relaxed, in both: the word is all there is to see.
    pub(crate) fn set(&self, expiry: ExpiryRule) {
        self.0.store(expiry.0, Ordering::Relaxed);
    }
    #[inline]
    pub(crate) fn get(&self) -> ExpiryRule {
        ExpiryRule(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn is_past(created: Duration, ttl: Duration, now: Duration) -> bool {
        let ttl = u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
        super::is_past(Stamp::new(created), ttl, now)
    }

    #[test]
    fn age_is_judged_against_the_time_to_live() {
        let now = DAY * 20_000;
        assert!(!is_past(now - DAY, DAY * 2, now));
        assert!(is_past(now - DAY * 2, DAY * 2, now));
        assert!(is_past(now, Duration::ZERO, now));
        assert!(!is_past(now - DAY, Duration::MAX, now));
        assert!(is_past(now - Duration::from_millis(100), Duration::from_millis(50), now));
    }

    #[test]
    fn no_clock_makes_an_entry_immortal() {
        let (now, slip) = (DAY * 20_000, Duration::from_nanos(FUTURE_MAX));
        assert!(is_past(now + DAY * 365, DAY, now), "written by a clock a year ahead");
        assert!(is_past(now + DAY, Duration::MAX, now), "even if it were to live for ever");
        assert!(!is_past(now + slip, DAY, now), "a little slip is no age");
        assert!(is_past(now, DAY, now + DAY * 365), "the clock set ahead: expired early");
        assert!(is_past(now + slip, Duration::ZERO, now));
        assert!(is_past(DAY * 200_000_000, DAY, now) && !is_past(now, DAY, Duration::ZERO + now));
    }

    #[test]
    fn expiry_rules_come_back() {
        for expiry in [None, Some(Duration::ZERO), Some(DAY), Some(Duration::MAX)] {
            let shared = SharedExpiry::new(ExpiryRule::new(expiry));
            assert_eq!(shared.get().get(), expiry);
        }
        let long = ExpiryRule::new(Some(Duration::from_secs(u64::MAX / 2)));
        assert_eq!(SharedExpiry::new(long).get(), ExpiryRule::NEVER);
    }
}
