//! What a call may still take when its budget has passed by the clock on the wall.
//!
//! A thread that was preempted, or whose processor somebody else had, sees its time pass without running. So when the
//! budget has passed, the call gets it once more, and from then on the time counts in which its thread has run. A call that
//! never ends has run for two budgets by then, and a few ticks; one that waited for the processor is not to blame.

use evenkeel_engine::Duration;
use rustix::time::{ClockId, clock_gettime};

use crate::ticker::TICK;

/// The grace of one call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Grace {
    budget: Duration,
    /// For how long the thread had run when the budget passed.
    since: Option<Duration>,
}

impl Grace {
    pub(crate) const fn of(budget: Duration) -> Self {
        Self { budget, since: None }
    }

    /// The ticks for which the call goes on, now that its time has passed; none where it ends. `ran` is for how long its
    /// thread has run in all.
    pub(crate) fn more(&mut self, ran: Duration) -> Option<u64> {
        let since = *self.since.get_or_insert(ran);
        let left = self.budget.saturating_sub(ran.saturating_sub(since));
        (!left.is_zero()).then(|| ticks(left))
    }
}

/// The ticks that a time takes. The last one is whole.
pub(crate) fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u64::MAX)
}

/// For how long this thread has run since it began.
pub(crate) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_micros(150);

    const fn at(micros: u64) -> Duration {
        Duration::from_micros(7_000 + micros)
    }

    #[test]
    fn a_call_that_runs_gets_its_budget_once_more_and_ends() {
        let mut grace = Grace::of(BUDGET);
        assert_eq!(grace.more(at(0)), Some(2));
        assert_eq!(grace.more(at(200)), None);
        assert_eq!(grace.more(at(201)), None);
    }

    #[test]
    fn a_call_that_waits_for_the_processor_goes_on_for_what_it_has_left() {
        let mut grace = Grace::of(BUDGET);
        assert_eq!(grace.more(at(0)), Some(2));
        for _ in 0..1_000 {
            assert_eq!(grace.more(at(20)), Some(2));
        }
        assert_eq!(grace.more(at(60)), Some(1));
        assert_eq!(grace.more(at(149)), Some(1));
        assert_eq!(grace.more(at(150)), None);
    }

    #[test]
    fn the_time_of_a_thread_goes_on_while_it_runs() {
        let began = thread_time();
        let mut sum = 0u64;
        // A thread that runs reaches any time, however seldom it runs.
        while thread_time() < began + Duration::from_millis(1) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(sum > 0);
    }
}
