//! `modulo`: the flow's hash modulo the number of servers, weights ignored except 0.
//!
//! The plainest of hashes, and the yardstick for the others: it is even, and one server more or less moves nearly every flow
//! (1 - 1/n of them). A flow whose server is full goes to the next one. O(1) per flow. Source: the division method of
//! hashing, Knuth, "The Art of Computer Programming", volume 3, section 6.4.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::held;
use super::key::Keyed;
use crate::director::{NewFlow, PickInputs, Scheduler, Selection, ServerView};
use crate::plan::Options;
use crate::time::Instant;

#[derive(Clone, Debug)]
pub(super) struct Modulo {
    keyed: Keyed,
    members: Vec<usize>,
}

impl Modulo {
    pub(super) fn new(options: &Options, seed: u64) -> Self {
        Self { keyed: Keyed::new(options.key, seed), members: Vec::new() }
    }
}

impl Scheduler for Modulo {
    fn name(&self) -> &'static str {
        "modulo"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn inputs(&self, flow: &NewFlow) -> PickInputs {
        self.keyed.inputs(flow)
    }

    fn memory_bytes(&self) -> u64 {
        held::total(self, &[&self.members])
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        let members = servers.iter().enumerate().filter(|(_, server)| server.is_member());
        self.members = members.map(|(place, _)| place).collect();
    }

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        let count = self.members.len() as u64;
        for (flow, new) in selection.flows().iter().enumerate() {
            let Some(first) = self.keyed.hash(new).checked_rem(count) else { return };
            let (before, from) = self.members.split_at(usize::try_from(first).unwrap_or(0));
            for server in from.iter().chain(before) {
                if selection.assign(flow, *server) {
                    break;
                }
            }
        }
    }
}
