//! `wlc`: the server with the least overhead for its weight. O(servers) per flow.

use super::overhead;
use crate::director::{Scheduler, Selection, ServerView};
use crate::time::Instant;

#[derive(Debug)]
pub(super) struct WeightedLeastConnections;

impl Scheduler for WeightedLeastConnections {
    fn name(&self) -> &'static str {
        "wlc"
    }

    fn update(&mut self, _servers: &[ServerView], _now: Instant) {}

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        for flow in 0..selection.flows().len() {
            if let Some(server) = least(selection) {
                selection.assign(flow, server);
            }
        }
    }
}

/// The first of the walk that no other undercuts: overhead / weight, compared without division.
fn least(selection: &Selection<'_>) -> Option<usize> {
    let mut best: Option<(usize, u64, u64)> = None;
    for (place, (server, load)) in selection.servers().iter().zip(selection.loads()).enumerate().rev() {
        if !server.is_usable() {
            continue;
        }
        // An overhead has at most 41 bits and a weight 16, so the products fit.
        let (overhead, weight) = (overhead(*load), u64::from(server.weight));
        let is_better =
            best.is_none_or(|(_, least, its)| least.saturating_mul(weight) > overhead.saturating_mul(its));
        if is_better {
            best = Some((place, overhead, weight));
        }
    }
    best.map(|(place, _, _)| place)
}
