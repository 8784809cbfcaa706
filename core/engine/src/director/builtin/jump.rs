//! `jump`: a flow jumps from bucket to bucket until the next jump would lead beyond the last server.
//!
//! The buckets are the servers in the order of the plan, so it fits plans that grow and shrink at their end: then 1/n of the flows
//! move, and only to or from that server. Weights are ignored except 0. A flow whose server takes nothing hashes again,
//! up to 64 times, and then goes to the next in the plan, so a server that is down moves its own flows only. No memory, very even.
//! O(ln servers) per flow. Source: Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm", arXiv 1406.2294,
//! 2014.

use alloc::boxed::Box;

use super::draw::mix;
use super::key::Keyed;
use crate::director::{NewFlow, PickInputs, Scheduler, Selection, ServerView};
use crate::plan::Options;
use crate::time::Instant;

/// How often a flow hashes again for another server before it takes the next one. With half of the servers down, one in
/// 2^64 flows gets there.
const TRIES: u64 = 64;

#[derive(Clone, Debug)]
pub(super) struct Jump {
    keyed: Keyed,
}

impl Jump {
    pub(super) fn new(options: &Options, seed: u64) -> Self {
        Self { keyed: Keyed::new(options.key, seed) }
    }
}

impl Scheduler for Jump {
    fn name(&self) -> &'static str {
        "jump"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn inputs(&self, flow: &NewFlow) -> PickInputs {
        self.keyed.inputs(flow)
    }

    fn update(&mut self, _servers: &[ServerView], _now: Instant) {}

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        let count = selection.servers().len();
        for (flow, new) in selection.flows().iter().enumerate() {
            let key = self.keyed.hash(new);
            let again = |n: u64| if n == 0 { key } else { mix(key.wrapping_add(n)) };
            let tries = (0..TRIES).map(|n| bucket(again(n), count));
            let first = bucket(key, count);
            let others = (0..count).map(|step| (first + step) % count);
            for server in tries.chain(others) {
                if selection.assign(flow, server) {
                    if server == first {
                        selection.mark_settled(flow);
                    }
                    break;
                }
            }
        }
    }
}

/// The bucket of `key` among `count`; 0 when there is none.
pub(super) fn bucket(mut key: u64, count: usize) -> usize {
    let (mut at, mut next) = (0_u64, 0_u64);
    while next < count as u64 {
        at = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        // floor((at + 1) * 2^31 / ((key >> 33) + 1)), which integers give exactly.
        next = ((at + 1) << 31) / ((key >> 33) + 1);
    }
    usize::try_from(at).unwrap_or(0)
}
