//! `static-rr`: each entry of a map in turn; a server stands in it as often as it has weight, spread evenly.
//!
//! The map is that of `source`; a weight that changes does not change the unit in which weights count. A server that is full
//! is passed over. O(1) per flow. Source: HAProxy 2.6.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::haproxy::{Unit, map};
use super::held;
use crate::director::{Scheduler, Selection, ServerView};
use crate::time::Instant;

#[derive(Clone, Debug, Default)]
pub(super) struct StaticRoundRobin {
    unit: Unit,
    weights: Vec<u32>,
    map: Vec<u16>,
    next: usize,
}

impl Scheduler for StaticRoundRobin {
    fn name(&self) -> &'static str {
        "static-rr"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn memory_bytes(&self) -> u64 {
        held::total(self, &[&self.unit, &self.weights, &self.map])
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        let wanted = self.unit.divide(servers);
        if wanted != self.weights {
            self.map = map(&wanted);
            self.weights = wanted;
        }
        if self.next >= self.map.len() {
            self.next = 0;
        }
    }

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        let count = self.map.len();
        for flow in 0..selection.flows().len() {
            for step in 0..count {
                let at = (self.next + step) % count;
                if let Some(server) = self.map.get(at)
                    && selection.assign(flow, usize::from(*server))
                {
                    self.next = (at + 1) % count;
                    break;
                }
            }
        }
    }
}
