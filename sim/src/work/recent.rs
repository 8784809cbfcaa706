//! What a server says of itself when it is asked: how many requests it has, and how long the last ones took.
//!
//! Both modes carry such questions as messages of the control plane, past the simulated network: they take
//! [`PROBE_WAY`] in each direction, whatever the cables do, and a server without power or with programs that hang does
//! not answer.

use evenkeel_engine::Duration;

/// How long a question or its answer is under way: half of a round trip within a data centre.
pub const PROBE_WAY: Duration = Duration::from_micros(250);

/// The most questions that are under way at once; later ones are left out, as a busy network would.
pub const PROBES_MAX: usize = 65_536;

/// The weight of a new time in the average, as a shift: an eighth, as in TCP's smoothed round-trip time (RFC 6298 s.2).
const SMOOTHING_SHIFT: u32 = 3;

/// How long the last requests took, smoothed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recent {
    nanoseconds: Option<u64>,
}

impl Recent {
    /// A request took this long, its wait included.
    pub fn note(&mut self, nanoseconds: u64) {
        self.nanoseconds = Some(match self.nanoseconds {
            None => nanoseconds,
            Some(before) => before - (before >> SMOOTHING_SHIFT) + (nanoseconds >> SMOOTHING_SHIFT),
        });
    }

    /// How long they took; zero before the first.
    #[must_use]
    pub fn latency(self) -> Duration {
        Duration::from_nanos(self.nanoseconds.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_begins_with_the_first_and_follows_the_last() {
        let mut recent = Recent::default();
        assert_eq!(recent.latency(), Duration::ZERO);
        recent.note(8_000);
        assert_eq!(recent.latency(), Duration::from_nanos(8_000));
        recent.note(16_000);
        assert_eq!(recent.latency(), Duration::from_nanos(9_000));
        (0..200).for_each(|_| recent.note(u64::MAX));
        assert!(recent.latency() > Duration::from_nanos(u64::MAX / 2), "and never overflows");
    }
}
