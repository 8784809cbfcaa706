//! `lc`: the server with the least overhead, weights ignored except 0. O(servers) per flow.

use super::overhead;
use crate::director::{Scheduler, Selection, ServerView};
use crate::time::Instant;

#[derive(Debug)]
pub(super) struct LeastConnections;

impl Scheduler for LeastConnections {
    fn name(&self) -> &'static str {
        "lc"
    }

    fn update(&mut self, _servers: &[ServerView], _now: Instant) {}

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        for flow in 0..selection.flows().len() {
            let usable = selection.servers().iter().zip(selection.loads()).enumerate().rev();
            let usable = usable.filter(|(_, (server, _))| server.is_usable());
            // Of equals the first of the walk wins, as `min_by_key` keeps the first.
            let least = usable.min_by_key(|(_, (_, load))| overhead(**load)).map(|(place, _)| place);
            if let Some(server) = least {
                selection.assign(flow, server);
            }
        }
    }
}
