//! The forwarder's clock: the kernel's monotonic time as the engine's [`Instant`].
//!
//! The origin is the start of the machine, so that times of several processes compare.

use evenkeel_engine::Instant;
use rustix::time::{ClockId, clock_gettime};

/// A clock that never runs backwards and does not follow the time of day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MonotonicClock;

impl MonotonicClock {
    /// Nanoseconds since the machine started, sleep not included.
    #[must_use]
    pub fn now(self) -> Instant {
        let time = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
        Instant::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_run_backwards() {
        let clock = MonotonicClock;
        let times: Vec<Instant> = (0..1_000).map(|_| clock.now()).collect();
        assert!(times.is_sorted());
        assert!(times[0] > Instant::ZERO);
        assert!(times[999] > times[0], "a thousand calls take longer than a nanosecond");
    }
}
