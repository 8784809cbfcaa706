//! `sh`: the client's address chooses; a server that takes nothing hands on as with IPVS's `sh-fallback`.

use alloc::vec::Vec;

use crate::director::{Scheduler, Selection, ServerView};
use crate::time::Instant;
use crate::wire::Address;

const SLOTS: usize = 256;

#[derive(Debug, Default)]
pub(super) struct SourceHashing {
    /// The server of each slot; empty when there is none.
    slots: Vec<usize>,
}

impl Scheduler for SourceHashing {
    fn name(&self) -> &'static str {
        "sh"
    }

    /// Lays the list out over the slots again and again, each server on as many neighbouring slots as it has weight
    /// and on one without weight.
    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        let walk = || servers.iter().enumerate().rev();
        let runs = walk().map(|(place, server)| (place, server.weight.max(1) as usize));
        let runs: Vec<(usize, usize)> = runs.collect();
        self.slots = match runs.is_empty() {
            true => Vec::new(),
            false => [runs]
                .iter()
                .cycle()
                .flatten()
                .flat_map(|(place, length)| core::iter::repeat_n(*place, *length))
                .take(SLOTS)
                .collect(),
        };
    }

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        for flow in 0..selection.flows().len() {
            let Some(new) = selection.flows().get(flow) else { return };
            let first = slot(new.tuple.source, 0);
            let others = (0..SLOTS).map(|offset| slot(new.tuple.source, (offset + first) % SLOTS));
            for at in core::iter::once(first).chain(others) {
                let Some(server) = self.slots.get(at) else { return };
                if selection.assign(flow, *server) {
                    break;
                }
            }
        }
    }
}

/// The slot of an address: a multiplicative hash with an offset on top.
fn slot(address: Address, offset: usize) -> usize {
    let folded = if address.is_v4() {
        u32::from_be_bytes(address.v4_bytes())
    } else {
        address.halves().into_iter().fold(0, |sum, half| {
            let [a, b, c, d, e, f, g, h] = half.to_be_bytes();
            sum ^ u32::from_be_bytes([a, b, c, d]) ^ u32::from_be_bytes([e, f, g, h])
        })
    };
    (offset + (folded.wrapping_mul(0x61C8_8647) >> 24) as usize) % SLOTS
}
