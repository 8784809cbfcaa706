//! The server with the least overhead for its weight: the twin of the built-in `wlc`, decision for decision.
//!
//! A connection that carries data counts 257 times as much as one that does not. Of equals the last of the configuration
//! is taken. No options, and nothing remembered.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;

use evenkeel_plugin_sdk::{ConfigureError, Flow, Instant, Load, Options, Scheduler, Server, Setup, Wishes};

/// What an active flow costs, in inactive ones: 256, and once more among all, as in Linux 6.1.
const ACTIVE_COST: u64 = 257;

#[derive(Debug, Default)]
struct WeightedLeastConnections {
    /// Index and weight of each usable server, the last of the configuration first.
    usable: Vec<(usize, u64)>,
}

impl Scheduler for WeightedLeastConnections {
    fn configure(_: &Setup, _: &mut Options) -> Result<Self, ConfigureError> {
        Ok(Self::default())
    }

    fn wishes(&self) -> Wishes {
        Wishes { loads: true, ..Wishes::NONE }
    }

    fn update(&mut self, servers: &[Server], _: Instant) {
        let usable = servers.iter().enumerate().rev().filter(|(_, server)| server.is_usable());
        self.usable = usable.map(|(index, server)| (index, u64::from(server.weight))).collect();
    }

    fn pick(&mut self, _: &Flow, loads: &[Load], _: Instant) -> Option<usize> {
        let mut best: Option<(usize, u64, u64)> = None;
        for &(index, weight) in &self.usable {
            let load = loads.get(index)?;
            // A cost has at most 41 bits and a weight 16, so the products fit.
            let cost = ACTIVE_COST * u64::from(load.active) + u64::from(load.inactive);
            if best.is_none_or(|(_, least, its)| least * weight > cost * its) {
                best = Some((index, cost, weight));
            }
        }
        best.map(|(index, _, _)| index)
    }
}

evenkeel_plugin_sdk::export_scheduler!(WeightedLeastConnections);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use evenkeel_plugin_sdk::kit::SchedulerKit;

    #[test]
    fn open_flows_follow_the_weights_and_a_flow_that_ends_makes_room() {
        let mut kit = SchedulerKit::<WeightedLeastConnections>::new("").unwrap();
        kit.servers(&[2, 1]);
        assert_eq!(kit.shares(300), [200, 100]);
        assert!(kit.close(1));
        assert_eq!(kit.pick(1), [Some(1)]);
    }
}
