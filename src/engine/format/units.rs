//! The numbers in a record's head that are no plain integers: when it was stored, how long it lives, and what it cost.
//! Each is as short as its use allows, so that a head is one cache line.
//!
//! | | bytes | unit | the largest | off by |
//! | --- | --- | --- | --- | --- |
//! | [`Stamp`] | 5 | 10 ms | 348 years behind 1970 | 10 ms |
//! | [`Ttl`] | 3 | 1 ms, by powers of two from 2^19 on | some 35,000 years | 1 in 2^18 |
//! | [`Cost`] | 2 | 1 ns, by powers of two from 2^11 on | 73 minutes | 1 in 2^10 |
//!
//! The latter two are small floating-point numbers: a mantissa and the number of bits by which it is shifted. Both are
//! rounded down. So an entry may expire a little early and never late, and no statistic claims more than was saved.
//! For example, a day is 86,400,000 ms, which takes 27 bits. It is kept as 337,500 shifted by 8, and comes back as it
//! was, since the eight bits that were cut off are zeros.
//!
//! The point in time when a record expires would be one number in the place of two. It is rejected: a handle may judge
//! old entries by an expiry of its own ([`expiry`](crate::engine::file::expiry)), for which their age must be known.
//!
//! Values beyond what fits saturate; none of them overflows.

use std::time::Duration;

/// A point in time: units of 10 ms since 1970, in 40 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp(pub(crate) u64);

impl Stamp {
    /// From the time since 1970. What is later than 40 bits can say is the latest that they can.
    pub(crate) fn new(since_epoch: Duration) -> Stamp {
        Stamp((since_epoch.as_millis() / 10).min((1 << 40) - 1) as u64)
    }
}

/// A time to live: 19 bits of milliseconds, shifted left by 5 bits of exponent, rounded down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ttl(pub(crate) u32);

impl Ttl {
    /// None was given. All ones: the one time that would be kept so, some 35,000 years, counts as none.
    pub(crate) const NONE: Ttl = Ttl((1 << 24) - 1);

    /// Less than a millisecond becomes zero: such an entry has expired when it is stored. More than can be kept becomes
    /// [`Ttl::NONE`].
    pub(crate) fn new(ttl: Duration) -> Ttl {
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let (mantissa, exponent) = shrink(millis, 19);
        if exponent > 31 { Ttl::NONE } else { Ttl(mantissa as u32 | exponent << 19) }
    }

    /// `None` if none was given.
    pub(crate) fn get(self) -> Option<Duration> {
        let millis = u64::from(self.0 & ((1 << 19) - 1)) << (self.0 >> 19);
        (self != Ttl::NONE).then(|| Duration::from_millis(millis))
    }
}

/// What a computation took: 11 bits of nanoseconds, shifted left by 5 bits of exponent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cost(pub(crate) u16);

impl Cost {
    /// More than can be kept becomes the largest cost: a hit then counts as less saved than it was.
    pub(crate) fn new(cost: Duration) -> Cost {
        let nanos = u64::try_from(cost.as_nanos()).unwrap_or(u64::MAX);
        let (mantissa, exponent) = shrink(nanos, 11);
        if exponent > 31 { Cost(u16::MAX) } else { Cost(mantissa as u16 | (exponent as u16) << 11) }
    }
    /// In nanoseconds.
    #[inline]
    pub(crate) const fn nanos(self) -> u64 {
        ((self.0 & 0x7ff) as u64) << (self.0 >> 11)
    }
}

/// `value` as a mantissa of `bits` and the exponent that shifts it back, rounded down. A value that has no more bits
/// than the mantissa keeps all of them, with the exponent 0.
const fn shrink(value: u64, bits: u32) -> (u64, u32) {
    let exponent = (64 - value.leading_zeros()).saturating_sub(bits);
    (value >> exponent, exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live_round_down_and_never_overflow() {
        for ttl in [0, 1, 999, 86_400_000, 31_536_000_000, 1 << 49] {
            let ttl = Duration::from_millis(ttl);
            let kept = Ttl::new(ttl).get().unwrap();
            assert!(kept <= ttl && ttl - kept <= ttl / 100_000, "{ttl:?} became {kept:?}");
        }
        assert_eq!(Ttl::new(Duration::MAX).get(), None);
        assert_eq!(Ttl::new(Duration::from_micros(10)).get(), Some(Duration::ZERO));
    }

    #[test]
    fn costs_are_near() {
        for nanos in [0, 1, 2047, 1_000_000, 4_000_000_000_000] {
            let kept = Cost::new(Duration::from_nanos(nanos)).nanos();
            assert!(kept <= nanos && nanos - kept <= nanos / 1000, "{nanos} became {kept}");
        }
        assert_eq!(Cost::new(Duration::MAX).nanos(), 0x7ff << 31);
    }
}
