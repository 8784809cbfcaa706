//! `swrr`: smooth weighted round robin. Everybody's credit grows by its weight; the highest credit wins and pays the sum.
//!
//! ```text
//! weights 5 1 1:  a a b a c a a      (wrr would give a a a a a b c)
//! ```
//!
//! In every whole turn each server gets exactly its weight, as far apart as they can be. Of equals the first of the plan wins. A server that is
//! full gets no credit meanwhile. O(servers) per flow. Source: nginx (`ngx_http_upstream_round_robin`), 2012.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::held;
use crate::director::{Scheduler, Selection, ServerId, ServerView};
use crate::time::Instant;

#[derive(Clone, Debug, Default)]
pub(super) struct SmoothRoundRobin {
    credits: Vec<(ServerId, i64)>,
}

impl Scheduler for SmoothRoundRobin {
    fn name(&self) -> &'static str {
        "swrr"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn memory_bytes(&self) -> u64 {
        held::total(self, &[&self.credits])
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        let known: BTreeMap<ServerId, i64> = self.credits.iter().copied().collect();
        let credit = |server: &ServerView| (server.id, known.get(&server.id).copied().unwrap_or(0));
        self.credits = servers.iter().map(credit).collect();
    }

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        for flow in 0..selection.flows().len() {
            let mut total = 0;
            let mut best: Option<(usize, i64)> = None;
            let servers = selection.servers().iter().zip(&mut self.credits).enumerate();
            for (place, (server, (_, credit))) in servers.filter(|(_, (server, _))| server.is_usable()) {
                // Credits stay within the sum of all weights, 2^32.
                *credit += i64::from(server.weight);
                total += i64::from(server.weight);
                if best.is_none_or(|(_, most)| *credit > most) {
                    best = Some((place, *credit));
                }
            }
            let Some((server, _)) = best else { return };
            if let Some((_, credit)) = self.credits.get_mut(server) {
                *credit -= total;
            }
            selection.assign(flow, server);
        }
    }
}
