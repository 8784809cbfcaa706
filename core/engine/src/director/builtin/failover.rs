//! `fo`: the server with the highest weight takes everything, as long as it can.
//!
//! Of equals the first in the list is taken. O(servers) per flow. Source: IPVS, Linux 6.1.

use alloc::boxed::Box;

use super::ipvs::walk;
use crate::director::{Scheduler, Selection, ServerView};
use crate::time::Instant;

#[derive(Clone, Debug)]
pub(super) struct Failover;

impl Scheduler for Failover {
    fn name(&self) -> &'static str {
        "fo"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn update(&mut self, _servers: &[ServerView], _now: Instant) {}

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        for flow in 0..selection.flows().len() {
            if let Some(server) = heaviest(selection, |_, _| true) {
                selection.assign(flow, server);
            }
        }
    }
}

/// The first of the heaviest servers that may be picked, among those that `takes` (by weight and active connections).
pub(super) fn heaviest(selection: &Selection<'_>, takes: impl Fn(u32, u32) -> bool) -> Option<usize> {
    let mut best: Option<(usize, u32)> = None;
    for place in walk(selection) {
        let Some((server, load)) = selection.server(place) else { continue };
        let is_taking = server.is_usable() && takes(server.weight, load.active);
        if is_taking && best.is_none_or(|(_, weight)| server.weight > weight) {
            best = Some((place, server.weight));
        }
    }
    best.map(|(place, _)| place)
}
