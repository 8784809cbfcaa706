//! `rr`: each server in turn, weights ignored except 0.
//!
//! The walk goes on behind the server that was picked last, also when servers have come or gone in between. One step
//! for a flow, up to as many as there are servers where some take nothing. Source: IPVS, Linux 6.1.

use super::ipvs::{List, Step};
use crate::director::{Scheduler, Selection, ServerView};
use crate::time::Instant;

#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    list: List,
    /// One behind the place of the last pick in the kernel's list; 0 is its head.
    cursor: usize,
}

impl Scheduler for RoundRobin {
    fn name(&self) -> &'static str {
        "rr"
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        let cursor = &mut self.cursor;
        self.list.follow(servers, |step, _| match step {
            // The turn stays with the last pick, or goes back to the one before it.
            Step::Remove(place) if place < *cursor => *cursor -= 1,
            Step::Add(..) if *cursor > 0 => *cursor += 1,
            Step::Remove(_) | Step::Add(..) | Step::Edit(..) => {}
            Step::Sort => *cursor = 0,
        });
    }

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        let count = selection.servers().len();
        for flow in 0..selection.flows().len() {
            for step in 0..count {
                let place = (self.cursor + step) % count;
                if selection.assign(flow, count - 1 - place) {
                    self.cursor = place + 1;
                    break;
                }
            }
        }
    }
}
