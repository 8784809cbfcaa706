//! `rr`: each server in turn, weights ignored except 0.

use alloc::vec::Vec;

use crate::director::{Scheduler, Selection, ServerId, ServerView};
use crate::time::Instant;

#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    /// The servers of the last update, in the order of the walk.
    order: Vec<ServerId>,
    /// The place of the last pick in `order`.
    last: Option<usize>,
}

impl Scheduler for RoundRobin {
    fn name(&self) -> &'static str {
        "rr"
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        let order: Vec<ServerId> = servers.iter().rev().map(|server| server.id).collect();
        // The turn stays with the last pick, or with the one before it that is still there.
        let before = self.last.and_then(|last| self.order.get(..=last)).unwrap_or_default();
        self.last = before.iter().rev().find_map(|id| order.iter().position(|other| other == id));
        self.order = order;
    }

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        let count = selection.servers().len();
        for flow in 0..selection.flows().len() {
            let first = self.last.map_or(0, |last| last + 1);
            let turn = (0..count).map(|step| (first + step) % count);
            for place in turn {
                if selection.assign(flow, count - 1 - place) {
                    self.last = Some(place);
                    break;
                }
            }
        }
    }
}
