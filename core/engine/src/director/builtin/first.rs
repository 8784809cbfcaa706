//! `first`: the first server of the plan that is not full takes everything.
//!
//! Meant to keep as few servers busy as possible, so that the others can be switched off; give the servers `max_flows`.
//! Weights are ignored except 0. O(servers that are full) per flow. Source: HAProxy 2.6.

use alloc::boxed::Box;

use crate::director::{Scheduler, Selection, ServerView};
use crate::time::Instant;

#[derive(Clone, Debug)]
pub(super) struct First;

impl Scheduler for First {
    fn name(&self) -> &'static str {
        "first"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn update(&mut self, _servers: &[ServerView], _now: Instant) {}

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        for flow in 0..selection.flows().len() {
            if let Some(server) = selection.servers().iter().position(ServerView::is_usable) {
                selection.assign(flow, server);
            }
        }
    }
}
