//! `wlc`: the server with the least overhead for its weight.
//!
//! A connection that carries data counts 257 times as much as one that does not. Of equals the first in the list is
//! taken. O(servers) per flow. Source: IPVS, Linux 6.1.

use alloc::boxed::Box;

use super::ipvs::{least, overhead, walk};
use crate::director::{Scheduler, Selection, ServerView};
use crate::time::Instant;

#[derive(Clone, Debug)]
pub(super) struct WeightedLeastConnections;

impl Scheduler for WeightedLeastConnections {
    fn name(&self) -> &'static str {
        "wlc"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn update(&mut self, _servers: &[ServerView], _now: Instant) {}

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        for flow in 0..selection.flows().len() {
            if let Some(server) = least(selection, walk(selection), overhead) {
                selection.assign(flow, server);
            }
        }
    }
}
