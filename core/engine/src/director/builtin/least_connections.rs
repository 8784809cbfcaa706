//! `lc`: the server with the least overhead, weights ignored except 0.
//!
//! A connection that carries data counts 257 times as much as one that does not. Of equals the first in the list is
//! taken. O(servers) per flow. Source: IPVS, Linux 6.1.

use alloc::boxed::Box;

use super::ipvs::{overhead, walk};
use crate::director::{Scheduler, Selection, ServerView};
use crate::time::Instant;

#[derive(Clone, Debug)]
pub(super) struct LeastConnections;

impl Scheduler for LeastConnections {
    fn name(&self) -> &'static str {
        "lc"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn update(&mut self, _servers: &[ServerView], _now: Instant) {}

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        for flow in 0..selection.flows().len() {
            let usable = walk(selection).filter_map(|place| {
                let (server, load) = selection.server(place)?;
                server.is_usable().then(|| (place, overhead(load)))
            });
            // Of equals the first of the walk wins, as `min_by_key` keeps the first.
            if let Some((server, _)) = usable.min_by_key(|(_, overhead)| *overhead) {
                selection.assign(flow, server);
            }
        }
    }
}
