//! `multi-probe`: each server has one point on a circle, and a flow has `probes`; the probe that lies closest before a point wins.
//!
//! As even as a ring with hundreds of points for each server, in the memory of one: with 21 probes the heaviest of many servers has
//! 1.05 times its share. A server that goes moves its own flows only. The order of the plan does not matter. Weights are ignored except
//! 0. A flow whose server is full goes to the next on the circle. O(probes * ln servers) per flow. Source: Appleton and O'Reilly,
//! "Multi-Probe Consistent Hashing", arXiv 1505.00062, 2015.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::draw::mix;
use super::held;
use super::key::Keyed;
use crate::director::{NewFlow, PickInputs, Scheduler, Selection, ServerId, ServerView};
use crate::plan::Options;
use crate::time::Instant;

/// Probes when the plan does not say; the paper's for 1.05.
const PROBES: u32 = 21;

#[derive(Clone, Debug)]
pub(super) struct MultiProbe {
    keyed: Keyed,
    probes: u32,
    points: Vec<(u64, ServerId, usize)>,
}

impl MultiProbe {
    pub(super) fn new(options: &Options, seed: u64) -> Self {
        let probes = options.probes.unwrap_or(PROBES);
        Self { keyed: Keyed::new(options.key, seed), probes, points: Vec::new() }
    }

    /// The number of the first point at or after `at`, and how far it is.
    fn next(&self, at: u64) -> Option<(u64, usize)> {
        let after = self.points.partition_point(|(point, ..)| *point < at);
        let number = after.checked_rem(self.points.len())?;
        self.points.get(number).map(|(point, ..)| (point.wrapping_sub(at), number))
    }
}

impl Scheduler for MultiProbe {
    fn name(&self) -> &'static str {
        "multi-probe"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn inputs(&self, flow: &NewFlow) -> PickInputs {
        self.keyed.inputs(flow)
    }

    fn memory_bytes(&self) -> u64 {
        held::total(self, &[&self.points])
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        let members = servers.iter().enumerate().filter(|(_, server)| server.is_member());
        self.points = members.map(|(place, server)| (mix(server.id.0), server.id, place)).collect();
        self.points.sort_unstable();
    }

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        for (flow, new) in selection.flows().iter().enumerate() {
            let key = self.keyed.hash(new);
            let probes = (1..=u64::from(self.probes)).map(|probe| mix(key ^ mix(probe)));
            let Some((_, first)) = probes.filter_map(|at| self.next(at)).min() else { return };
            let (before, from) = self.points.split_at(first);
            for (_, _, server) in from.iter().chain(before) {
                if selection.assign(flow, *server) {
                    break;
                }
            }
        }
    }
}
