//! `sed`: the server where a new connection would wait least, (active + 1) / weight.
//!
//! Only connections that carry data count, so UDP never does: all its flows go to one server. Of equals the first in
//! the list is taken. O(servers) per flow. Source: IPVS, Linux 6.1.

use alloc::boxed::Box;

use super::ipvs::{least, walk};
use crate::director::{Scheduler, Selection, ServerLoad, ServerView};
use crate::time::Instant;

#[derive(Clone, Debug)]
pub(super) struct ShortestExpectedDelay;

/// What a new connection finds, itself included.
pub(super) fn delay(load: ServerLoad) -> u64 {
    u64::from(load.active) + 1
}

impl Scheduler for ShortestExpectedDelay {
    fn name(&self) -> &'static str {
        "sed"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn update(&mut self, _servers: &[ServerView], _now: Instant) {}

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        for flow in 0..selection.flows().len() {
            if let Some(server) = least(selection, walk(selection), delay) {
                selection.assign(flow, server);
            }
        }
    }
}
