//! `source`: the client's address chooses, as HAProxy's `balance source` does.
//!
//! `hash_type = "map-based"`: a map of as many entries as there is weight, by the hash modulo its length. Even, and nearly
//! every client moves when a server comes or goes. `"consistent"`: a ring of 16 points for each unit of weight, where the
//! closest point wins; few clients move, but small weights are uneven: with weight 1 give 100 instead. The address is the
//! XOR of its 32-bit words; with `avalanche` (on for `consistent`) its bits are spread first. With `balance_factor`, no server
//! takes more than that many hundredths of its share of flows, and the next on the ring does. A flow whose server is
//! full goes on to the next. O(1) or O(ln points) per flow. Source: HAProxy 2.6.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::haproxy::{Ring, Unit, avalanche, map};
use super::held;
use super::held::Held;
use super::ipvs::fold;
use crate::director::{NewFlow, PickInputs, Scheduler, Selection, ServerView};
use crate::plan::{HashType, Options};
use crate::time::Instant;
use crate::wire::Protocol;

#[derive(Clone, Debug)]
pub(super) struct Source {
    is_spread: bool,
    balance_factor: Option<u32>,
    table: Table,
}

#[derive(Clone, Debug)]
enum Table {
    Map { unit: Unit, weights: Vec<u32>, map: Vec<u16> },
    Ring(Ring),
}

impl Source {
    pub(super) fn new(options: &Options) -> Self {
        let hash_type = options.hash_type.unwrap_or_default();
        let table = match hash_type {
            HashType::MapBased => Table::Map { unit: Unit::default(), weights: Vec::new(), map: Vec::new() },
            HashType::Consistent => Table::Ring(Ring::default()),
        };
        let is_spread = options.avalanche.unwrap_or(hash_type == HashType::Consistent);
        Self { is_spread, balance_factor: options.balance_factor, table }
    }
}

impl Scheduler for Source {
    fn name(&self) -> &'static str {
        "source"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn inputs(&self, flow: &NewFlow) -> PickInputs {
        let key = fold(flow.tuple.source);
        PickInputs::hashed("source address", u64::from(if self.is_spread { avalanche(key) } else { key }))
    }

    fn memory_bytes(&self) -> u64 {
        held::total(self, &[&self.table])
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        match &mut self.table {
            Table::Map { unit, weights, map: table } => {
                let wanted = unit.divide(servers);
                if wanted != *weights {
                    *table = map(&wanted);
                    *weights = wanted;
                }
            }
            Table::Ring(ring) => ring.update(servers),
        }
    }

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        for (flow, new) in selection.flows().iter().enumerate() {
            let key = fold(new.tuple.source);
            let hash = if self.is_spread { avalanche(key) } else { key };
            match &self.table {
                Table::Map { map, .. } => {
                    let Some(first) = u64::from(hash).checked_rem(map.len() as u64) else { return };
                    let (before, from) = map.split_at(usize::try_from(first).unwrap_or(0));
                    for server in from.iter().chain(before) {
                        if selection.assign(flow, usize::from(*server)) {
                            break;
                        }
                    }
                }
                Table::Ring(ring) => {
                    let room = self.balance_factor.map(|factor| room(selection, factor, new.tuple.protocol));
                    let has_room = |server: usize| {
                        let Some(room) = &room else { return true };
                        let load =
                            selection.server(server).map(|(_, load)| load.outstanding(new.tuple.protocol));
                        load.is_some_and(|load| room.get(server).is_some_and(|room| load < *room))
                    };
                    let fits = ring.from(hash).find(|server| {
                        has_room(*server)
                            && selection.servers().get(*server).is_some_and(ServerView::is_usable)
                    });
                    let first = ring
                        .from(hash)
                        .find(|server| selection.servers().get(*server).is_some_and(ServerView::is_usable));
                    if let Some(server) = fits.or(first) {
                        selection.assign(flow, server);
                    }
                }
            }
        }
    }
}

/// How many flows each server may have: the slots for all flows and the next one, times the factor, are dealt out by
/// weight, the remainder as well; and one for everybody.
fn room(selection: &Selection<'_>, factor: u32, protocol: Protocol) -> Vec<u64> {
    let usable = |server: &ServerView| if server.is_usable() { u64::from(server.weight) } else { 0 };
    let served = selection.servers().iter().zip(selection.loads());
    let served: u64 =
        served.filter(|(server, _)| server.is_usable()).map(|(_, load)| load.outstanding(protocol)).sum();
    let total: u64 = selection.servers().iter().map(usable).sum::<u64>().max(1);
    let slots = ((served + 1) * u64::from(factor)).div_ceil(100);
    let (each, rest) = (slots / total, slots % total);
    let mut before = 0;
    let room = selection.servers().iter().map(|server| {
        let weight = usable(server);
        let share = (before + weight) * rest / total - before * rest / total;
        before += weight;
        (weight * each + share).max(1)
    });
    room.collect()
}

impl Held for Table {
    fn held(&self) -> usize {
        match self {
            Self::Map { unit, weights, map } => {
                unit.held().saturating_add(weights.held()).saturating_add(map.held())
            }
            Self::Ring(ring) => ring.held(),
        }
    }
}
