//! `sh`: the client's address chooses, or its address and port.
//!
//! 256 slots are laid out with the list again and again, each server on as many neighbouring slots as it has weight.
//! A flow whose server takes nothing is handed on to another slot's, or without `fallback`, as with IPVS's own default, refused: a
//! server of weight 0 keeps one slot. O(1) per flow, 256 steps at most; a server that comes or goes, or another weight, moves
//! most clients. Source: IPVS, Linux 6.1 (`sh-fallback`, `sh-port`).

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::held;
use super::ipvs::{fold, hash_bits};
use crate::director::{NewFlow, PickInputs, Scheduler, Selection, ServerView};
use crate::plan::{FlowKey, Options};
use crate::time::Instant;

/// Slots, as a power of two.
const BITS: u32 = 8;
const SLOTS: usize = 1 << BITS;

#[derive(Clone, Debug)]
pub(super) struct SourceHashing {
    has_port: bool,
    has_fallback: bool,
    /// The server of each slot; empty when there is none.
    slots: Vec<usize>,
}

impl SourceHashing {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            has_port: options.key == Some(FlowKey::SourcePort),
            has_fallback: options.fallback.unwrap_or(true),
            slots: Vec::new(),
        }
    }

    fn slot(&self, flow: &NewFlow, offset: usize) -> usize {
        let port = if self.has_port { u32::from(flow.tuple.source_port) } else { 0 };
        let hash = hash_bits(fold(flow.tuple.source).wrapping_add(port), BITS);
        (offset + hash as usize) % SLOTS
    }
}

impl Scheduler for SourceHashing {
    fn name(&self) -> &'static str {
        "sh"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn inputs(&self, flow: &NewFlow) -> PickInputs {
        let key = if self.has_port { "source address and port" } else { "source address" };
        PickInputs::hashed(key, self.slot(flow, 0) as u64)
    }

    fn memory_bytes(&self) -> u64 {
        held::total(self, &[&self.slots])
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        let runs = servers.iter().enumerate().rev();
        let runs = runs.map(|(place, server)| core::iter::repeat_n(place, server.weight.max(1) as usize));
        let runs: Vec<_> = runs.collect();
        self.slots = match runs.is_empty() {
            true => Vec::new(),
            false => runs.iter().cycle().flat_map(Clone::clone).take(SLOTS).collect(),
        };
    }

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        for (flow, new) in selection.flows().iter().enumerate() {
            let first = self.slot(new, 0);
            let others = if self.has_fallback { SLOTS } else { 0 };
            let others = (0..others).map(|offset| self.slot(new, (offset + first) % SLOTS));
            for at in core::iter::once(first).chain(others) {
                let Some(server) = self.slots.get(at) else { return };
                if selection.assign(flow, *server) {
                    break;
                }
            }
        }
    }
}
