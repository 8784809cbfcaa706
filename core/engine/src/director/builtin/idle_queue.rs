//! `jiq`: join an idle queue, a random server among those that have nothing to do; where nobody is idle, any.
//!
//! A forwarder sees which of its servers are idle, so their queue of reports is a look at the loads here. Both draws go by
//! weight. At moderate load it has the delays of `jsq` with far less to know; at high load it becomes a random choice.
//! O(servers) per flow. Source: Lu, Xie, Kliot, Geller, Larus, Greenberg, "Join-Idle-Queue: A Novel Load Balancing Algorithm for
//! Dynamically Scalable Web Services", Performance Evaluation, 2011.

use alloc::boxed::Box;

use super::draw::Draw;
use super::held;
use super::shares::Shares;
use crate::director::{NewFlow, PickInputs, Scheduler, Selection, ServerView};
use crate::time::Instant;
use crate::wire::Protocol;

#[derive(Clone, Debug)]
pub(super) struct IdleQueue {
    draw: Draw,
    shares: Shares,
}

impl IdleQueue {
    pub(super) fn new(seed: u64) -> Self {
        Self { draw: Draw::new(seed), shares: Shares::default() }
    }

    fn idle(&mut self, selection: &Selection<'_>, protocol: Protocol) -> Option<usize> {
        let mut chosen = None;
        let mut sum = 0;
        for place in self.shares.places() {
            let Some((server, load)) = selection.server(place) else { continue };
            if load.outstanding(protocol) > 0 {
                continue;
            }
            // Each one takes the place with the chance of its weight among those that were seen.
            sum += u64::from(server.weight);
            if self.draw.below(sum) < u64::from(server.weight) {
                chosen = Some(place);
            }
        }
        chosen
    }
}

impl Scheduler for IdleQueue {
    fn name(&self) -> &'static str {
        "jiq"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn inputs(&self, _flow: &NewFlow) -> PickInputs {
        PickInputs::drawn(self.draw.place())
    }

    fn memory_bytes(&self) -> u64 {
        held::total(self, &[&self.shares])
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        self.shares = Shares::of(servers);
    }

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        for (flow, new) in selection.flows().iter().enumerate() {
            let idle = self.idle(selection, new.tuple.protocol);
            if let Some(server) = idle.or_else(|| self.shares.draw(&mut self.draw)) {
                selection.assign(flow, server);
            }
        }
    }
}
