//! Every server gets a score for the flow, and the highest wins: the twin of the built-in `rendezvous`, or with
//! `weighted = true` of `weighted-rendezvous`, decision for decision.
//!
//! A server that goes moves its own flows only; one that comes takes its share from all alike. The order of the
//! configuration does not matter. Option `weighted`: whether scores grow with weight, by weight / -ln of the hash
//! (default false).

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;
use core::cmp::Ordering;

use evenkeel_plugin_sdk::random::mix;
use evenkeel_plugin_sdk::{ConfigureError, HashScheduler, Instant, Options, Server, Setup};

#[derive(Debug, Default)]
struct Rendezvous {
    is_weighted: bool,
    /// Index, identity and weight of each usable server.
    usable: Vec<(usize, u64, u32)>,
}

/// How well a server fits a flow. Without weights the hash itself; with weights a number that grows with it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Score {
    worth: f64,
    hash: u64,
    id: u64,
}

impl Score {
    fn order(&self, other: &Self) -> Ordering {
        self.worth.total_cmp(&other.worth).then(self.hash.cmp(&other.hash)).then(self.id.cmp(&other.id))
    }
}

/// A hash as a number between 0 and 1, neither of them included.
fn unit(hash: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "52 bits and a half fit a float")]
    let numerator = (hash >> 12) as f64 + 0.5;
    numerator / 4_503_599_627_370_496.0
}

impl HashScheduler for Rendezvous {
    fn configure(_: &Setup, options: &mut Options) -> Result<Self, ConfigureError> {
        Ok(Self { is_weighted: options.boolean("weighted", false)?, usable: Vec::new() })
    }

    fn update(&mut self, servers: &[Server], _: Instant) {
        let usable = servers.iter().enumerate().filter(|(_, server)| server.is_usable());
        self.usable = usable.map(|(index, server)| (index, server.id, server.weight)).collect();
    }

    fn pick(&mut self, flow: u64, _: Instant) -> Option<usize> {
        let mut best: Option<(usize, Score)> = None;
        for &(index, id, weight) in &self.usable {
            let hash = mix(flow ^ mix(id));
            let worth = if self.is_weighted { f64::from(weight) / -libm::log(unit(hash)) } else { 0.0 };
            let score = Score { worth, hash, id };
            if best.is_none_or(|(_, best)| score.order(&best).is_gt()) {
                best = Some((index, score));
            }
        }
        best.map(|(index, _)| index)
    }
}

evenkeel_plugin_sdk::export_hash_scheduler!(Rendezvous);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use evenkeel_plugin_sdk::kit::HashSchedulerKit;

    #[test]
    fn shares_are_equal_or_follow_the_weights() {
        let mut kit = HashSchedulerKit::<Rendezvous>::new("").unwrap();
        kit.servers(&[3, 1]);
        assert!(kit.shares(10_000)[0].abs_diff(5_000) < 200);
        let mut kit = HashSchedulerKit::<Rendezvous>::new("weighted = true").unwrap();
        kit.servers(&[3, 1]);
        assert!(kit.shares(10_000)[0].abs_diff(7_500) < 200);
    }
}
