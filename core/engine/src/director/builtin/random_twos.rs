//! `twos`: two servers at random, by weight; the one with the smaller overhead for its weight.
//!
//! A server's chance to be drawn is its weight, and for the first of the list one more (of the sum of weights and
//! one), as in IPVS. O(servers) per flow. Sources: IPVS, Linux 6.1; Mitzenmacher, "The Power of Two Choices in
//! Randomized Load Balancing", 2001.

use alloc::boxed::Box;

use super::draw::Draw;
use super::ipvs::{overhead, walk};
use crate::director::{NewFlow, PickInputs, Scheduler, Selection, ServerView};
use crate::time::Instant;

#[derive(Clone, Debug)]
pub(super) struct RandomTwos {
    draw: Draw,
}

impl RandomTwos {
    pub(super) const fn new(seed: u64) -> Self {
        Self { draw: Draw::new(seed) }
    }

    fn choose(&mut self, selection: &Selection<'_>) -> Option<usize> {
        let usable = || {
            walk(selection).filter_map(|place| {
                let (server, load) = selection.server(place)?;
                server.is_usable().then(|| (place, u64::from(server.weight), overhead(load)))
            })
        };
        let total: u64 = usable().map(|(_, weight, _)| weight).sum();
        if total == 0 {
            return None;
        }
        let [first, second] = [(); 2].map(|()| {
            let mut left = self.draw.below(total + 1);
            usable().find(|(_, weight, _)| {
                let is_it = left <= *weight;
                left = left.saturating_sub(*weight);
                is_it
            })
        });
        let ((first, weight, overhead), (second, its_weight, its_overhead)) = (first?, second?);
        let is_better = its_weight.saturating_mul(overhead) > weight.saturating_mul(its_overhead);
        Some(if is_better { second } else { first })
    }
}

impl Scheduler for RandomTwos {
    fn name(&self) -> &'static str {
        "twos"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn inputs(&self, _flow: &NewFlow) -> PickInputs {
        PickInputs::drawn(self.draw.place())
    }

    fn update(&mut self, _servers: &[ServerView], _now: Instant) {}

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        for flow in 0..selection.flows().len() {
            if let Some(server) = self.choose(selection) {
                selection.assign(flow, server);
            }
        }
    }
}
