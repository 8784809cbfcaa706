//! `wrr`: passes over the servers with a falling threshold; a server of weight w is taken in w of the passes.

use crate::director::{Scheduler, Selection, ServerView};
use crate::time::Instant;

#[derive(Debug, Default)]
pub(super) struct WeightedRoundRobin {
    /// Steps that the walk has made in this pass; 0 is before the head of the list.
    cursor: usize,
    /// The threshold of this pass: servers of at least this weight are taken.
    current: u32,
    /// The highest threshold.
    highest: u32,
    /// The greatest common divisor of the weights, by which the threshold falls.
    step: u32,
    is_filled: bool,
}

impl WeightedRoundRobin {
    /// Linux recomputes after each change of a server; a pass that has begun goes on with a threshold that fits.
    fn recompute(&mut self, servers: &[ServerView]) {
        let weights = || servers.iter().filter(|server| server.is_usable()).map(|server| server.weight);
        self.step = weights().fold(0, gcd).max(1);
        self.highest = weights().max().map_or(0, |weight| weight - (self.step - 1));
        self.cursor = 0;
        if self.current > self.highest || self.current == 0 {
            self.current = self.highest;
        } else if self.step > 1 {
            self.current = self.current / self.step * self.step + 1;
        }
    }

    /// The next server whose weight reaches the threshold.
    fn next(&mut self, servers: &[ServerView]) -> Option<usize> {
        if self.highest == 0 {
            return None;
        }
        // The rest of this pass, and the next one, which takes the heaviest server at the latest.
        for _ in 0..=2 * servers.len() {
            if self.cursor >= servers.len() {
                self.cursor = 0;
                self.current = self.current.saturating_sub(self.step);
                if self.current == 0 {
                    self.current = self.highest;
                }
            }
            self.cursor += 1;
            let place = servers.len().checked_sub(self.cursor)?;
            let server = servers.get(place)?;
            if server.is_usable() && server.weight >= self.current {
                return Some(place);
            }
        }
        None
    }
}

impl Scheduler for WeightedRoundRobin {
    fn name(&self) -> &'static str {
        "wrr"
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        if !self.is_filled {
            // A service is filled one server after the other, which leaves the threshold where the first ones put it.
            for count in 1..servers.len() {
                self.recompute(servers.get(..count).unwrap_or_default());
            }
            self.is_filled = true;
        }
        self.recompute(servers);
    }

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        for flow in 0..selection.flows().len() {
            if let Some(server) = self.next(selection.servers()) {
                selection.assign(flow, server);
            }
        }
    }
}

const fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
