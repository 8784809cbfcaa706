//! Weighted least connections: the server with the fewest open flows for its weight takes the next one.
//!
//! A server's cost is (256 * active + inactive + 1) / weight, lower is better, the first of equals wins. The one
//! in the sum is the flow to place: without it an idle server of weight 1 would be as good as one of weight 9.
//! Flows of the same batch count as soon as they are picked. No options.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;

use evenkeel_plugin_sdk::{ConfigureError, Flow, Instant, Load, Options, Scheduler, Server, Setup, Wishes};

/// What an active flow costs more than an inactive one.
const ACTIVE_COST: u64 = 256;

#[derive(Debug, Default)]
struct LeastConnections {
    /// Index and weight of each usable server.
    usable: Vec<(usize, u64)>,
}

impl Scheduler for LeastConnections {
    fn configure(_: &Setup, _: &mut Options) -> Result<Self, ConfigureError> {
        Ok(Self::default())
    }

    fn wishes(&self) -> Wishes {
        Wishes { loads: true, ..Wishes::NONE }
    }

    fn update(&mut self, servers: &[Server], _: Instant) {
        let usable = servers.iter().enumerate().filter(|(_, server)| server.is_usable());
        self.usable = usable.map(|(index, server)| (index, u64::from(server.weight))).collect();
    }

    fn pick(&mut self, _: &Flow, loads: &[Load], _: Instant) -> Option<usize> {
        let mut best: Option<(usize, u64, u64)> = None;
        for &(index, weight) in &self.usable {
            let load = loads.get(index)?;
            let cost = u64::from(load.active) * ACTIVE_COST + u64::from(load.inactive) + 1;
            // Fractions are compared crosswise: 2^41 times a weight stays far below 2^64.
            if best.is_none_or(|(_, best_cost, best_weight)| cost * best_weight < best_cost * weight) {
                best = Some((index, cost, weight));
            }
        }
        best.map(|(index, _, _)| index)
    }
}

evenkeel_plugin_sdk::export_scheduler!(LeastConnections);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use evenkeel_plugin_sdk::kit::SchedulerKit;

    fn kit(weights: &[u32]) -> SchedulerKit<LeastConnections> {
        let mut kit = SchedulerKit::new("").unwrap();
        kit.servers(weights);
        kit
    }

    #[test]
    fn one_batch_already_spreads_by_weight() {
        let mut kit = kit(&[4, 2, 1]);
        assert_eq!(kit.pick(7).iter().filter(|choice| **choice == Some(0)).count(), 4);
        assert_eq!(kit.loads()[1].active, 2);
    }

    #[test]
    fn a_server_whose_flows_end_gets_the_next_ones() {
        let mut kit = kit(&[1, 1, 1]);
        assert_eq!(kit.shares(9), [3, 3, 3]);
        assert!(kit.close(2) && kit.close(2));
        assert_eq!(kit.pick(2), [Some(2), Some(2)]);
    }

    #[test]
    fn servers_that_are_down_or_drained_are_passed_over() {
        let mut kit = kit(&[1, 0, 5]);
        kit.set_up(2, false);
        assert_eq!(kit.shares(40), [40, 0, 0]);
    }

    #[test]
    fn the_largest_loads_and_weights_do_not_overflow() {
        let usable = [(0, 65_535), (1, 65_535)].to_vec();
        let mut guest = LeastConnections { usable };
        let full = Load { active: u32::MAX, inactive: u32::MAX };
        let almost = Load { active: u32::MAX, inactive: u32::MAX - 1 };
        let flow = evenkeel_plugin_sdk::kit::flow(0);
        assert_eq!(guest.pick(&flow, &[full, almost], Instant::default()), Some(1));
    }
}
