//! `leastconn`: the server with the fewest flows for its weight; among equals the one that has been so for longest.
//!
//! A server's place in the queue is (flows + 1) * 4096 / (16 * weight), rounded down, or 0 where it has none. Whoever
//! changes places goes behind those that are there, so equals take turns. O(servers) per flow. Source: HAProxy 2.6.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::haproxy::weights;
use super::held;
use crate::director::{Scheduler, Selection, ServerId, ServerLoad, ServerView};
use crate::time::Instant;
use crate::wire::Protocol;

/// The highest weight times 16.
const SCALE: u64 = 4096;

#[derive(Clone, Debug, Default)]
pub(super) struct Leastconn {
    /// Of each server: its weight times 16, its place, and when it came there.
    queue: Vec<(u64, u64, u64)>,
    ids: Vec<ServerId>,
    /// How many have come to a place so far.
    came: u64,
}

impl Leastconn {
    fn follow(&mut self, loads: &[ServerLoad], protocol: Protocol) {
        for ((weight, place, since), load) in self.queue.iter_mut().zip(loads) {
            let key = match load.outstanding(protocol) {
                0 => 0,
                flows => ((flows + 1) * SCALE).checked_div(*weight).unwrap_or(u64::MAX),
            };
            if key != *place {
                *place = key;
                *since = self.came;
                self.came += 1;
            }
        }
    }
}

impl Scheduler for Leastconn {
    fn name(&self) -> &'static str {
        "leastconn"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn memory_bytes(&self) -> u64 {
        held::total(self, &[&self.queue, &self.ids])
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        let known: BTreeMap<ServerId, (u64, u64)> =
            self.ids.iter().zip(&self.queue).map(|(id, (_, place, since))| (*id, (*place, *since))).collect();
        self.ids = servers.iter().map(|server| server.id).collect();
        let mut came = self.came;
        let queue = servers.iter().zip(weights(servers)).map(|(server, weight)| {
            let (place, since) = known.get(&server.id).copied().unwrap_or_else(|| {
                came += 1;
                (0, came - 1)
            });
            (u64::from(weight) * 16, place, since)
        });
        self.queue = queue.collect();
        self.came = came;
    }

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        for (flow, new) in selection.flows().iter().enumerate() {
            self.follow(selection.loads(), new.tuple.protocol);
            let usable = selection.servers().iter().zip(&self.queue).enumerate();
            let usable = usable.filter(|(_, (server, _))| server.is_usable());
            let first =
                usable.min_by_key(|(_, (_, (_, place, since)))| (*place, *since)).map(|(server, _)| server);
            if let Some(server) = first {
                selection.assign(flow, server);
            }
        }
    }
}
