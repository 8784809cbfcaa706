//! `nq`: the first server without an active connection; where all have some, as `sed`.
//!
//! A fast server is not made to wait for a slow one that idles, and the other way around. UDP is never active, so all
//! its flows go to one server. O(servers) per flow. Source: IPVS, Linux 6.1.

use alloc::boxed::Box;

use super::ipvs::{least, walk};
use super::shortest_expected_delay::delay;
use crate::director::{Scheduler, Selection, ServerView};
use crate::time::Instant;

#[derive(Clone, Debug)]
pub(super) struct NeverQueue;

impl Scheduler for NeverQueue {
    fn name(&self) -> &'static str {
        "nq"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn update(&mut self, _servers: &[ServerView], _now: Instant) {}

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        for flow in 0..selection.flows().len() {
            let is_idle = |place: &usize| {
                let server = selection.server(*place);
                server.is_some_and(|(server, load)| server.is_usable() && load.active == 0)
            };
            let idle = walk(selection).find(is_idle);
            if let Some(server) = idle.or_else(|| least(selection, walk(selection), delay)) {
                selection.assign(flow, server);
            }
        }
    }
}
