//! Keeps a guest that fails again and again from being called: eight faults within ten seconds open the breaker,
//! and after a back-off one call may try.
//!
//! Gets the outcome of each call and the time; says whether the next call may happen. It owns no clock, so that
//! it behaves the same in the simulator.

use std::collections::VecDeque;

use evenkeel_engine::{Duration, Instant};

/// Faults within [`WINDOW`] that open the breaker.
pub(crate) const FAULTS_MAX: usize = 8;
/// The time in which faults count together.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);
/// The first back-off.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest back-off; each one that does not help is followed by one of twice the length.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Calls happen.
    Closed,
    /// No call happens before this time.
    Open(Instant),
    /// The next call decides.
    Trial,
}

#[derive(Debug)]
pub(crate) struct Breaker {
    state: State,
    /// The times of the last faults, the oldest first; never more than [`FAULTS_MAX`].
    faults: VecDeque<Instant>,
    backoff: Duration,
    /// When the breaker last closed.
    closed_at: Instant,
}

impl Breaker {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Closed,
            faults: VecDeque::with_capacity(FAULTS_MAX),
            backoff: BACKOFF_MIN,
            closed_at: Instant::ZERO,
        }
    }

    /// Whether a call may happen now.
    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        match self.state {
            State::Closed | State::Trial => true,
            State::Open(until) if now >= until => {
                self.state = State::Trial;
                true
            }
            State::Open(_) => false,
        }
    }

    /// A call went well.
    pub(crate) fn succeeded(&mut self, now: Instant) {
        if self.state == State::Trial {
            self.state = State::Closed;
            self.faults.clear();
            self.closed_at = now;
        }
    }

    /// A call failed; says whether that opened the breaker.
    pub(crate) fn failed(&mut self, now: Instant) -> bool {
        if self.state == State::Trial {
            self.open(now);
            return true;
        }
        if self.faults.len() == FAULTS_MAX {
            self.faults.pop_front();
        }
        self.faults.push_back(now);
        let is_full = self.faults.len() == FAULTS_MAX;
        let is_recent = self.faults.front().is_some_and(|first| now.since(*first) <= WINDOW);
        if is_full && is_recent {
            self.open(now);
        }
        is_full && is_recent
    }

    /// A call failed that would fail again if it were repeated at once.
    pub(crate) fn failed_for_good(&mut self, now: Instant) {
        self.open(now);
    }

    fn open(&mut self, now: Instant) {
        // A breaker that stayed closed for long starts from the shortest back-off again.
        if self.state == State::Closed && now.since(self.closed_at) > BACKOFF_MAX {
            self.backoff = BACKOFF_MIN;
        }
        self.state = State::Open(now.after(self.backoff));
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        self.faults.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Instant {
        Instant::ZERO.after(Duration::from_millis(milliseconds))
    }

    #[test]
    fn eight_faults_within_ten_seconds_open_it() {
        let mut breaker = Breaker::new();
        for fault in 0..7 {
            assert!(!breaker.failed(at(fault * 1_000)));
            assert!(breaker.allows(at(fault * 1_000)));
        }
        assert!(breaker.failed(at(10_000)));
        assert!(!breaker.allows(at(10_999)));
        assert!(breaker.allows(at(11_000)));
    }

    #[test]
    fn seldom_faults_never_open_it() {
        let mut breaker = Breaker::new();
        for fault in 0..100 {
            assert!(!breaker.failed(at(fault * 1_500)), "fault {fault}");
        }
    }

    #[test]
    fn a_failed_trial_doubles_the_backoff_up_to_its_bound() {
        let mut breaker = Breaker::new();
        breaker.failed_for_good(at(0));
        let mut now = at(0);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let until = now.after(Duration::from_secs(seconds));
            assert!(!breaker.allows(Instant::from_nanos(until.as_nanos() - 1)));
            assert!(breaker.allows(until), "{seconds}");
            assert!(breaker.failed(until));
            now = until;
        }
    }

    #[test]
    fn a_trial_that_goes_well_closes_it() {
        let mut breaker = Breaker::new();
        breaker.failed_for_good(at(0));
        assert!(breaker.allows(at(1_000)));
        breaker.succeeded(at(1_000));
        for fault in 0..7 {
            assert!(!breaker.failed(at(1_000 + fault)));
        }
        assert!(breaker.failed(at(1_100)));
        assert!(!breaker.allows(at(3_099)), "a relapse waits twice as long");
        assert!(breaker.allows(at(3_100)));
    }
}
