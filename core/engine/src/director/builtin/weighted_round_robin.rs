//! `wrr`: passes over the servers with a falling threshold; a server of weight w is taken in w of the passes.
//!
//! The threshold falls by the greatest common divisor of the weights, from the highest of them. Any change of a server
//! begins a pass at the head of the list, at the threshold that was reached; a service that is filled one server
//! after the other therefore starts on its lowest pass. Constant time on average, one pass at most while a
//! server of full weight takes flows. Source: IPVS, Linux 6.1.

use alloc::boxed::Box;

use super::held;
use super::ipvs::{List, gcd};
use crate::director::{Scheduler, Selection, ServerId, ServerView};
use crate::time::Instant;

#[derive(Clone, Debug, Default)]
pub(super) struct WeightedRoundRobin {
    list: List,
    pass: Pass,
}

/// Where the walk is.
#[derive(Clone, Copy, Debug, Default)]
struct Pass {
    /// Steps that the walk has made in this pass; 0 is before the head of the list.
    cursor: usize,
    /// The threshold of this pass: servers of at least this weight are taken.
    current: u32,
    /// The highest threshold.
    highest: u32,
    /// The greatest common divisor of the weights, by which the threshold falls.
    step: u32,
}

impl Pass {
    /// Begins anew with these servers, at a threshold that fits them.
    fn recompute(&mut self, servers: &[(ServerId, u32)]) {
        let weights = || servers.iter().map(|(_, weight)| *weight);
        self.step = weights().fold(0, gcd).max(1);
        self.highest = weights().max().unwrap_or(0).saturating_sub(self.step - 1);
        self.cursor = 0;
        if self.current > self.highest || self.current == 0 {
            self.current = self.highest;
        } else if self.step > 1 {
            self.current = self.current / self.step * self.step + 1;
        }
    }

    /// The next server whose weight reaches the threshold. Where nobody takes flows, the kernel stays where it was, and
    /// at the highest threshold unless it had begun in the midst of the lowest pass.
    fn next(&mut self, servers: &[ServerView]) -> Option<usize> {
        let begin = *self;
        let found = self.walk(servers);
        if found.is_none() {
            *self = begin;
            if self.cursor == 0 || self.current > self.step {
                self.current = self.highest;
            }
        }
        found
    }

    fn walk(&mut self, servers: &[ServerView]) -> Option<usize> {
        let is_candidate = |place: usize, least: u32| {
            servers.get(place).is_some_and(|server| server.is_usable() && server.weight >= least)
        };
        // The rest of this pass; the passes that take nobody, which are left out; and one that takes somebody.
        for _ in 0..2 {
            while self.cursor < servers.len() {
                self.cursor += 1;
                let place = servers.len() - self.cursor;
                if is_candidate(place, self.current.max(1)) {
                    return Some(place);
                }
            }
            let usable = servers.iter().filter(|server| server.is_usable());
            let heaviest = usable.map(|server| server.weight).max()?;
            self.cursor = 0;
            self.fall();
            let above = self.current.saturating_sub(heaviest);
            self.current = self.current.saturating_sub(above.div_ceil(self.step) * self.step);
            if self.current == 0 {
                self.current = self.highest;
            }
        }
        None
    }

    fn fall(&mut self) {
        self.current = self.current.saturating_sub(self.step);
        if self.current == 0 {
            self.current = self.highest;
        }
    }
}

impl Scheduler for WeightedRoundRobin {
    fn name(&self) -> &'static str {
        "wrr"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn memory_bytes(&self) -> u64 {
        held::total(self, &[&self.list])
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        let pass = &mut self.pass;
        self.list.follow(servers, |_, list| pass.recompute(list));
    }

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        if self.pass.highest == 0 {
            return;
        }
        for flow in 0..selection.flows().len() {
            if let Some(server) = self.pass.next(selection.servers()) {
                selection.assign(flow, server);
            }
        }
    }
}
