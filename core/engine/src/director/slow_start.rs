//! Slow start: a real server that is new gets few flows at first, and its share by and by, whatever the scheduler.
//!
//! What comes in: views with the weights of the plan, and the time. What goes out: the same views with less weight where a
//! server has not been there for long. It works by weights alone, so that every scheduler that knows weights follows,
//! components too; those that know none see no difference.
//!
//! ```text
//! share   100 % |          ____
//!               |       __/            in steps of 5 %, so that tables are built anew twenty times and not with every
//!          10 % |__/                   flow
//!               +-----------------> time since the server came
//! ```
//!
//! A server is new when it comes to a plan that had others, when it is up after it was down, or when it has a weight after it had
//! none. The servers of a director's first plan are not: then all of them would be equally slow.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{ServerId, ServerView};
use crate::plan::SlowStart as Plan;
use crate::time::Instant;

/// Weights are multiplied by this while a server starts, where they stay small enough, so that a part of weight 1 is a number.
const SCALE: u32 = 100;

/// The highest weight that schedulers are told.
const WEIGHT_MAX: u32 = 65_535;

/// Steps in which weight grows, in hundredths.
const STEP: u32 = 5;

/// The servers of a director that start slowly.
#[derive(Clone, Debug)]
pub struct SlowStart {
    plan: Option<Plan>,
    /// Servers that had a share after the last call.
    known: Vec<ServerId>,
    is_first: bool,
    /// Since when a server starts, and what counts of its weight.
    starting: BTreeMap<ServerId, (Instant, u32)>,
}

impl SlowStart {
    /// Nobody has started yet.
    #[must_use]
    pub const fn new(plan: Option<Plan>) -> Self {
        Self { plan, known: Vec::new(), is_first: true, starting: BTreeMap::new() }
    }

    /// Goes by another plan from now on. Without one everybody has started.
    pub fn change(&mut self, plan: Option<Plan>) {
        self.plan = plan;
        if plan.is_none() {
            self.starting.clear();
        }
    }

    /// Whether what counts of somebody's weight has changed since the last call of [`SlowStart::slow_down`].
    #[must_use]
    #[inline]
    pub fn is_due(&self, now: Instant) -> bool {
        !self.starting.is_empty()
            && self.starting.values().any(|(since, share)| self.share(*since, now) != *share)
    }

    /// Takes weight from servers that have not been there for long. `views` have the weights of the plan.
    pub fn slow_down(&mut self, views: &mut [ServerView], now: Instant) {
        let members = views.iter().filter(|view| view.is_member()).map(|view| view.id);
        let mut members: Vec<ServerId> = members.collect();
        members.sort_unstable();
        self.starting.retain(|id, _| members.binary_search(id).is_ok());
        if self.plan.is_some() && !self.is_first {
            for id in members.iter().filter(|id| self.known.binary_search(id).is_err()) {
                self.starting.insert(*id, (now, 0));
            }
        }
        self.is_first &= members.is_empty();
        self.known = members;
        let shares: Vec<(ServerId, u32)> =
            self.starting.iter().map(|(id, (since, _))| (*id, self.share(*since, now))).collect();
        for (id, share) in shares {
            match self.starting.get_mut(&id) {
                Some(_) if share >= 100 => {
                    self.starting.remove(&id);
                }
                Some(start) => start.1 = share,
                None => {}
            }
        }
        self.weigh(views);
    }

    fn weigh(&self, views: &mut [ServerView]) {
        if self.starting.is_empty() {
            return;
        }
        let heaviest = views.iter().map(|view| view.weight).max().unwrap_or(0).max(1);
        let scale = (WEIGHT_MAX / heaviest).clamp(1, SCALE);
        for view in views.iter_mut().filter(|view| view.weight > 0) {
            let share = self.starting.get(&view.id).map_or(100, |(_, share)| *share);
            // At most 2^16 times 100.
            view.weight = (view.weight * scale * share / 100).max(1);
        }
    }

    /// What counts at `now` of the weight of a server that started at `since`, in hundredths.
    fn share(&self, since: Instant, now: Instant) -> u32 {
        let Some(Plan { time, least, aggression }) = self.plan else { return 100 };
        let past = now.since(since);
        if past >= time {
            return 100;
        }
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 100"
        )]
        let share = {
            let part = past.as_nanos() as f64 / time.as_nanos() as f64;
            (libm::pow(part, 100.0 / f64::from(aggression.max(1))) * 100.0) as u32
        };
        (share / STEP * STEP).clamp(least.min(100), 100)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::time::Duration;
    use std::vec;

    fn views(weights: &[u32]) -> Vec<ServerView> {
        let view = |(number, weight): (u64, &u32)| ServerView {
            id: ServerId(number),
            address: [10, 0, 0, 1].into(),
            port: 80,
            weight: *weight,
            is_up: true,
            is_full: false,
        };
        (0..).zip(weights).map(view).collect()
    }

    fn at(milliseconds: u64) -> Instant {
        Instant::from_nanos(milliseconds * 1_000_000)
    }

    /// The weights that the scheduler sees.
    fn seen(slow: &mut SlowStart, weights: &[u32], now: Instant) -> Vec<u32> {
        let mut views = views(weights);
        slow.slow_down(&mut views, now);
        views.iter().map(|view| view.weight).collect()
    }

    #[test]
    fn a_new_server_comes_to_its_share_in_steps() {
        let mut slow = SlowStart::new(Some(Plan::of(Duration::from_secs(10))));
        assert_eq!(seen(&mut slow, &[1, 2], at(0)), [1, 2], "the first plan");
        assert_eq!(seen(&mut slow, &[1, 2, 2], at(1_000)), [100, 200, 20]);
        assert!(!slow.is_due(at(2_400)), "a tenth, still");
        assert!(slow.is_due(at(2_500)));
        assert_eq!(seen(&mut slow, &[1, 2, 2], at(2_500)), [100, 200, 30]);
        assert_eq!(seen(&mut slow, &[1, 2, 2], at(6_000)), [100, 200, 100]);
        assert_eq!(seen(&mut slow, &[1, 2, 2], at(10_999)), [100, 200, 190]);
        assert!(slow.is_due(at(11_000)));
        assert_eq!(seen(&mut slow, &[1, 2, 2], at(11_000)), [1, 2, 2], "as if nothing had been");
        assert!(!slow.is_due(Instant::NEVER));
    }

    #[test]
    fn a_server_that_was_drained_or_down_starts_again_and_one_that_was_full_does_not() {
        let mut slow = SlowStart::new(Some(Plan::of(Duration::from_secs(10))));
        seen(&mut slow, &[1, 1], at(0));
        assert_eq!(seen(&mut slow, &[1, 0], at(1)), [1, 0]);
        assert_eq!(seen(&mut slow, &[1, 1], at(2)), [100, 10]);
        let mut all = views(&[1, 1]);
        (all[0].is_up, all[0].is_full) = (false, true);
        slow.slow_down(&mut all, at(20_000));
        assert_eq!(seen(&mut slow, &[1, 1], at(20_001)), [1, 1]);
        let mut all = views(&[1, 1]);
        all[0].is_up = false;
        slow.slow_down(&mut all, at(20_002));
        assert_eq!(seen(&mut slow, &[1, 1], at(20_003)), [10, 100]);
    }

    #[test]
    fn growth_follows_the_plan_and_weights_stay_in_range() {
        let plan = Plan { time: Duration::from_secs(100), least: 1, aggression: 200 };
        let mut slow = SlowStart::new(Some(plan));
        seen(&mut slow, &[65_535], at(0));
        // The square root of a quarter.
        seen(&mut slow, &[65_535, 65_535], at(0));
        assert_eq!(seen(&mut slow, &[65_535, 65_535], at(25_000)), [65_535, 32_767]);
        assert_eq!(seen(&mut slow, &[40_000, 1], at(25_000)), [40_000, 1]);
        slow.change(None);
        assert_eq!(seen(&mut slow, &[65_535, 65_535], at(26_000)), [65_535, 65_535]);
        assert_eq!(vec![0_u32; 0], seen(&mut slow, &[], at(27_000)));
    }
}
