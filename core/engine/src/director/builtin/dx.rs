//! `dx`: DxHash. A flow names buckets, one after the other at random, until one of them is taken by a server.
//!
//! ```text
//! buckets  [web1] [  ] [web3] [web2] [  ] [  ] [web4] [  ]      flow -> 4, 1, 3: web2
//! ```
//!
//! Even, and minimal: a server that goes moves its own flows only, one that comes takes what meets its bucket. Memory for `capacity`
//! buckets, a power of two (four times the servers at first, when not given); beyond it everything is built anew. Weights are ignored
//! except 0. Servers keep their buckets while the plan has them, so one that was down finds its flows again; a flow is settled when it met
//! no bucket of a server that is down. A flow whose server is full names on. O(capacity / servers) per flow. Source:
//! Dong and Wang, "DxHash: A Scalable Consistent Hash Based on the Pseudo-Random Sequence", arXiv 2107.07930, 2021.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::draw::mix;
use super::held;
use super::key::Keyed;
use super::slots::capacity;
use crate::director::{NewFlow, PickInputs, Scheduler, Selection, ServerId, ServerView};
use crate::plan::Options;
use crate::time::Instant;

/// How many buckets a flow names for each bucket that there is, before it takes the next one that is taken: beyond it, one flow
/// in e^8 gets where a single server works.
const TRIES_PER_BUCKET: u64 = 8;

#[derive(Clone, Debug)]
pub(super) struct DxHash {
    keyed: Keyed,
    wanted: Option<u32>,
    /// The server of each bucket, up or down, and its place in the list of the last update.
    buckets: Vec<Option<(ServerId, usize)>>,
}

impl DxHash {
    pub(super) fn new(options: &Options, seed: u64) -> Self {
        Self { keyed: Keyed::new(options.key, seed), wanted: options.capacity, buckets: Vec::new() }
    }

    /// The buckets that `key` names, in their order, as often as it may.
    fn named(&self, key: u64) -> impl Iterator<Item = usize> {
        // The capacity is a power of two, so that the low bits name a bucket.
        let mask = (self.buckets.len() as u64).wrapping_sub(1);
        let tries = self.buckets.len() as u64 * TRIES_PER_BUCKET;
        let named =
            move |n: u64| usize::try_from(mix(key.wrapping_add(n.wrapping_mul(STEP))) & mask).unwrap_or(0);
        let last = named(tries);
        let count = self.buckets.len();
        (0..tries).map(named).chain((0..count).map(move |step| (last + step) % count))
    }
}

/// An odd number: it makes the sequences of two keys meet as seldom as they can.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Scheduler for DxHash {
    fn name(&self) -> &'static str {
        "dx"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn inputs(&self, flow: &NewFlow) -> PickInputs {
        self.keyed.inputs(flow)
    }

    fn memory_bytes(&self) -> u64 {
        held::total(self, &[&self.buckets])
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        if servers.len() > self.buckets.len() {
            let capacity = capacity(self.wanted, servers.len()).next_power_of_two();
            self.buckets = alloc::vec![None; capacity];
        }
        let mut sorted: Vec<(ServerId, usize)> =
            servers.iter().enumerate().map(|(place, server)| (server.id, place)).collect();
        sorted.sort_unstable();
        let place = |id: ServerId| {
            let found = sorted.binary_search_by_key(&id, |(id, _)| *id).ok()?;
            sorted.get(found).map(|(_, place)| *place)
        };
        let mut has_bucket = alloc::vec![false; servers.len()];
        for bucket in &mut self.buckets {
            *bucket = bucket.and_then(|(id, _)| Some((id, place(id)?)));
            if let Some(has) = bucket.and_then(|(_, place)| has_bucket.get_mut(place)) {
                *has = true;
            }
        }
        let mut come = sorted.iter().filter(|(_, place)| has_bucket.get(*place) == Some(&false));
        for bucket in self.buckets.iter_mut().filter(|bucket| bucket.is_none()) {
            *bucket = come.next().copied();
        }
    }

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        if !selection.servers().iter().any(ServerView::is_usable) {
            return;
        }
        for (flow, new) in selection.flows().iter().enumerate() {
            let mut has_met_absent = false;
            for bucket in self.named(self.keyed.hash(new)) {
                let Some((_, server)) = self.buckets.get(bucket).copied().flatten() else { continue };
                if selection.assign(flow, server) {
                    if !has_met_absent {
                        selection.mark_settled(flow);
                    }
                    break;
                }
                has_met_absent = true;
            }
        }
    }
}
