//! When the flows of a load open, as its scenario says: one process for packet mode and flow mode, so that both meet the
//! same arrivals.

use evenkeel_engine::{Duration, Instant};

use crate::random::Stream;
use crate::scenario::Arrivals;

/// The openings of one load, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Openings {
    arrivals: Arrivals,
    draw: Stream,
    phases: Stream,
    /// When the phase of an on-off load ends, and whether it is on.
    phase: (Instant, bool),
}

impl Openings {
    /// Those of the load called `name`, from `start` on.
    pub(crate) fn new(arrivals: Arrivals, seed: u64, name: &str, start: Instant) -> Self {
        Self {
            arrivals,
            draw: Stream::new(seed, name, "arrivals"),
            phases: Stream::new(seed, name, "phases"),
            phase: (start, false),
        }
    }

    /// When the first flow opens; none in a closed loop, where all open at `start`.
    pub(crate) fn first(&mut self, start: Instant) -> Option<Instant> {
        match self.arrivals {
            Arrivals::Poisson { .. } | Arrivals::Uniform { .. } => Some(start),
            Arrivals::OnOff { .. } => self.next(start),
            Arrivals::Closed { .. } => None,
        }
    }

    /// When the flow after one at `now` opens; none in a closed loop.
    #[inline]
    pub(crate) fn next(&mut self, now: Instant) -> Option<Instant> {
        match self.arrivals {
            Arrivals::Poisson { mean_gap } => Some(now.after(self.draw.exponential(mean_gap))),
            Arrivals::Uniform { gap } => Some(now.after(gap)),
            Arrivals::OnOff { mean_gap, on, off } => Some(self.next_in_waves(now, mean_gap, on, off)),
            Arrivals::Closed { .. } => None,
        }
    }

    /// The pause of a user of a closed loop between a flow that has ended and the next; none in an open one.
    pub(crate) fn pause(&mut self) -> Option<Duration> {
        let Arrivals::Closed { think, .. } = self.arrivals else { return None };
        Some(if think == Duration::ZERO { think } else { self.draw.exponential(think) })
    }

    /// Time in which nobody comes is skipped: gaps count in the time that is on.
    fn next_in_waves(&mut self, now: Instant, mean_gap: Duration, on: Duration, off: Duration) -> Instant {
        let (mut at, mut gap) = (now, self.draw.exponential(mean_gap));
        loop {
            let (end, is_on) = self.phase;
            if is_on {
                let left = end.since(at);
                if gap < left {
                    return at.after(gap);
                }
                gap -= left;
            }
            at = end.max(at);
            let mean = if is_on { off } else { on };
            // A phase lasts at least a nanosecond, so that this ends.
            let length = self.phases.exponential(mean).max(Duration::from_nanos(1));
            self.phase = (at.after(length), !is_on);
        }
    }
}
