//! `jsq`: join the shortest queue, whichever server has the least to do; a random one among equals.
//!
//! What a server has to do is (flows + 1) / weight: open TCP connections, or all entries of other protocols. Among policies
//! that know only queue lengths it minimises the mean time in an M/M/n system with one dispatcher; several
//! forwarders that do not see each other's flows herd onto the same servers. O(servers) per flow. Source: Winston,
//! "Optimality of the Shortest Line Discipline", Journal of Applied Probability, 1977.

use alloc::boxed::Box;

use super::draw::Draw;
use super::power_of_choices::queue;
use crate::director::{NewFlow, PickInputs, Scheduler, Selection, ServerView};
use crate::time::Instant;
use crate::wire::Protocol;

#[derive(Clone, Debug)]
pub(super) struct ShortestQueue {
    draw: Draw,
}

impl ShortestQueue {
    pub(super) const fn new(seed: u64) -> Self {
        Self { draw: Draw::new(seed) }
    }

    fn choose(&mut self, selection: &Selection<'_>, protocol: Protocol) -> Option<usize> {
        let mut best: Option<(usize, u64, u64)> = None;
        let mut equals = 0;
        for place in 0..selection.servers().len() {
            let Some((length, weight)) = queue(selection, place, protocol) else { continue };
            let order = best.map(|(_, least, its)| {
                let (here, there) = (length.saturating_mul(its), least.saturating_mul(weight));
                here.cmp(&there)
            });
            equals = match order {
                None | Some(core::cmp::Ordering::Less) => 1,
                Some(core::cmp::Ordering::Equal) => equals + 1,
                Some(core::cmp::Ordering::Greater) => continue,
            };
            // The n-th of n equals takes the place with a chance of 1/n, which leaves all of them the same chance.
            if equals == 1 || self.draw.below(equals) == 0 {
                best = Some((place, length, weight));
            }
        }
        best.map(|(place, _, _)| place)
    }
}

impl Scheduler for ShortestQueue {
    fn name(&self) -> &'static str {
        "jsq"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn inputs(&self, _flow: &NewFlow) -> PickInputs {
        PickInputs::drawn(self.draw.place())
    }

    fn update(&mut self, _servers: &[ServerView], _now: Instant) {}

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        for (flow, new) in selection.flows().iter().enumerate() {
            if let Some(server) = self.choose(selection, new.tuple.protocol) {
                selection.assign(flow, server);
            }
        }
    }
}
