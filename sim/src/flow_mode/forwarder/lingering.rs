//! Closed flows without an entry that linger as entries would: each state has one lifetime, so flows of a state run out in
//! the order in which they came into it.

use std::collections::VecDeque;

use evenkeel_engine::Instant;
use evenkeel_engine::flow::FlowState;

/// Nanoseconds of a tick of the engine's timers, in which entries run out (`flow/timers.rs` there), as a power of two.
const TICK_SHIFT: u32 = 20;

/// A flow that is to be settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone {
    pub(super) place: u16,
    pub(super) slot: u16,
    pub(super) hash: u64,
    pub(super) state: FlowState,
}

/// A line for each state.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    lines: [VecDeque<(u64, Gone)>; FlowState::ALL.len()],
}

impl Lingering {
    /// Lets a flow linger until `deadline`; says when it runs out, which is in the tick after.
    #[inline]
    pub(super) fn push(&mut self, deadline: Instant, gone: Gone) -> u64 {
        let due = deadline.as_nanos().div_ceil(1 << TICK_SHIFT).saturating_mul(1 << TICK_SHIFT);
        if let Some(line) = self.lines.get_mut(gone.state as usize) {
            line.push_back((due, gone));
        }
        due
    }

    /// When the first runs out; the end of time if there is none.
    #[inline]
    pub(super) fn next(&self) -> u64 {
        let firsts = self.lines.iter().filter_map(|line| line.front());
        firsts.map(|(due, _)| *due).min().unwrap_or(u64::MAX)
    }

    /// Takes out a flow that has run out.
    #[inline]
    pub(super) fn pop(&mut self, now: Instant) -> Option<Gone> {
        let is_over =
            |line: &&mut VecDeque<(u64, Gone)>| line.front().is_some_and(|(due, _)| *due <= now.as_nanos());
        self.lines.iter_mut().find(is_over)?.pop_front().map(|(_, gone)| gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_run_out_in_the_tick_after_their_deadline() {
        let mut lingering = Lingering::default();
        let gone = |hash, state| Gone { place: 0, slot: 0, hash, state };
        assert_eq!(lingering.next(), u64::MAX);
        lingering.push(Instant::from_nanos(5 << TICK_SHIFT), gone(1, FlowState::TimeWait));
        lingering.push(Instant::from_nanos((2 << TICK_SHIFT) + 1), gone(2, FlowState::Closed));
        assert_eq!(lingering.next(), 3 << TICK_SHIFT);
        assert_eq!(lingering.pop(Instant::from_nanos((3 << TICK_SHIFT) - 1)), None);
        assert_eq!(lingering.pop(Instant::from_nanos(3 << TICK_SHIFT)).map(|gone| gone.hash), Some(2));
        assert_eq!(lingering.next(), 5 << TICK_SHIFT);
    }
}
