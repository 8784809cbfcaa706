//! `dh`: the address that the client called chooses, weights ignored except 0.
//!
//! 256 buckets are filled with the servers in turn; a flow whose server takes nothing is refused. Meant for caches
//! behind a network of addresses: one address always meets the same cache. O(1) per flow; a server that comes or goes
//! moves most addresses. Source: IPVS, Linux 6.1.

use alloc::boxed::Box;

use super::ipvs::{fold, hash_bits};
use crate::director::{NewFlow, PickInputs, Scheduler, Selection, ServerView};
use crate::time::Instant;

/// Buckets of the table, as a power of two.
const BITS: u32 = 8;

#[derive(Clone, Debug, Default)]
pub(super) struct DestinationHashing;

impl Scheduler for DestinationHashing {
    fn name(&self) -> &'static str {
        "dh"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn inputs(&self, flow: &NewFlow) -> PickInputs {
        PickInputs::hashed("destination address", u64::from(hash_bits(fold(flow.tuple.destination), BITS)))
    }

    fn update(&mut self, _servers: &[ServerView], _now: Instant) {}

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        let count = selection.servers().len();
        for (flow, new) in selection.flows().iter().enumerate() {
            let bucket = hash_bits(fold(new.tuple.destination), BITS) as usize;
            if let Some(from_head) = bucket.checked_rem(count) {
                selection.assign(flow, count - 1 - from_head);
            }
        }
    }
}
