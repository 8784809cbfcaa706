//! `ovf`: the server with the highest weight, until it has more active connections than weight; then the next.
//!
//! So a server takes its weight and one more. When all have that many, flows are refused: weights are capacities
//! here. UDP is never active, so all its flows go to one server. O(servers) per flow. Source: IPVS, Linux 6.1.

use alloc::boxed::Box;

use super::failover::heaviest;
use crate::director::{Scheduler, Selection, ServerView};
use crate::time::Instant;

#[derive(Clone, Debug)]
pub(super) struct Overflow;

impl Scheduler for Overflow {
    fn name(&self) -> &'static str {
        "ovf"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn update(&mut self, _servers: &[ServerView], _now: Instant) {}

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        for flow in 0..selection.flows().len() {
            if let Some(server) = heaviest(selection, |weight, active| active <= weight) {
                selection.assign(flow, server);
            }
        }
    }
}
