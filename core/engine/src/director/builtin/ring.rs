//! `ring`: servers have points on a circle of hashes; a flow goes to the first point at or after its own. `bounded`: the same,
//! but nobody takes more than its share times a factor.
//!
//! ```text
//!   0 ---web2---web1-------web3--web2----flow--->web1---web3--- 2^64
//! ```
//!
//! `points` points for the heaviest server, the others in proportion, at least one. A server that goes moves its own flows
//! only, to its neighbours on the circle. The order of the plan does not matter. The share of a server varies by 1/sqrt(points). With
//! `bounded` no server gets a flow beyond ceil(factor * (flows + 1) * weight / weights); the flow walks on. A full server's flows go on likewise.
//! O(ln points) per flow, with `bounded` and O(servers) on top for a batch. Sources: Karger et al., "Consistent Hashing and Random
//! Trees", STOC 1997, in the manner of libketama; Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads",
//! SODA 2018.

use alloc::boxed::Box;
use alloc::vec::Vec;

use siphasher::sip::SipHasher13;

use super::held;
use super::held::Held;
use super::key::Keyed;
use crate::director::{NewFlow, PickInputs, Scheduler, Selection, ServerId, ServerLoad, ServerView};
use crate::plan::Options;
use crate::time::Instant;

/// Points of the heaviest server when the plan does not say; as libketama.
const POINTS: u32 = 160;

/// The most points: 128 MB. With more, each server has fewer. Envoy has the same bound.
const POINTS_MAX: u64 = 1 << 23;

/// The bound in hundredths of the share when the plan does not say.
const FACTOR: u32 = 125;

/// Points of servers, sorted.
#[derive(Clone, Debug, Default)]
pub(super) struct Circle {
    built: Vec<(ServerId, u32)>,
    points: Vec<(u64, u16)>,
}

impl Circle {
    /// Becomes the circle of `servers`, with `each` points for the heaviest.
    pub(super) fn update(&mut self, servers: &[ServerView], each: u32) {
        let weight = |server: &ServerView| if server.is_member() { server.weight } else { 0 };
        let wanted: Vec<(ServerId, u32)> = servers.iter().map(|server| (server.id, weight(server))).collect();
        if wanted == self.built {
            return;
        }
        let heaviest = wanted.iter().map(|(_, weight)| u64::from(*weight)).max().unwrap_or(0).max(1);
        let total: u64 = wanted.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let most = (POINTS_MAX * heaviest).checked_div(total).unwrap_or(POINTS_MAX).max(1);
        let each = u64::from(each).min(most);
        self.points.clear();
        for (place, (id, weight)) in (0_u16..).zip(&wanted).filter(|(_, (_, weight))| *weight > 0) {
            let count = (each * u64::from(*weight)).div_ceil(heaviest);
            let hasher = SipHasher13::new_with_keys(id.0, 0);
            self.points.extend((0..count).map(|point| (hasher.hash(&point.to_le_bytes()), place)));
        }
        // Of equal points that of the server with the lower identity counts, whatever the order of the plan.
        self.points
            .sort_unstable_by_key(|(at, place)| (*at, wanted.get(usize::from(*place)).map(|(id, _)| *id)));
        self.built = wanted;
    }

    /// The servers at the points from `hash` on; each comes as often as it has points.
    pub(super) fn from(&self, hash: u64) -> impl Iterator<Item = usize> {
        let first = self.points.partition_point(|(at, _)| *at < hash);
        let (before, after) = self.points.split_at(first);
        after.iter().chain(before).map(|(_, place)| usize::from(*place))
    }
}

#[derive(Clone, Debug)]
pub(super) struct Ring {
    keyed: Keyed,
    points: u32,
    /// The bound in hundredths; none for a plain ring.
    factor: Option<u32>,
    circle: Circle,
}

impl Ring {
    pub(super) fn new(options: &Options, seed: u64) -> Self {
        let points = options.points.unwrap_or(POINTS);
        Self { keyed: Keyed::new(options.key, seed), points, factor: None, circle: Circle::default() }
    }

    pub(super) fn bounded(options: &Options, seed: u64) -> Self {
        Self { factor: Some(options.balance_factor.unwrap_or(FACTOR)), ..Self::new(options, seed) }
    }
}

/// Flows of all servers that may be picked, and the sum of their weights.
#[derive(Clone, Copy, Debug)]
struct Totals {
    flows: u64,
    weights: u64,
}

impl Totals {
    fn of(selection: &Selection<'_>) -> Self {
        let usable =
            selection.servers().iter().zip(selection.loads()).filter(|(server, _)| server.is_usable());
        usable.fold(Self { flows: 0, weights: 0 }, |totals, (server, load)| Self {
            flows: totals.flows + all(*load),
            weights: totals.weights + u64::from(server.weight),
        })
    }

    /// The most flows that a server of this weight may have, when one more comes: ceil(factor * (flows + 1) * weight / weights).
    fn cap(self, factor: u32, weight: u32) -> u64 {
        let product = u128::from(factor) * u128::from(self.flows + 1) * u128::from(weight);
        let cap = product.div_ceil(100 * u128::from(self.weights.max(1)));
        u64::try_from(cap).unwrap_or(u64::MAX)
    }
}

/// Every flow of a server, whatever its state: it is all of them that are bounded.
fn all(load: ServerLoad) -> u64 {
    u64::from(load.active) + u64::from(load.inactive)
}

impl Scheduler for Ring {
    fn name(&self) -> &'static str {
        if self.factor.is_some() { "bounded" } else { "ring" }
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn inputs(&self, flow: &NewFlow) -> PickInputs {
        self.keyed.inputs(flow)
    }

    fn memory_bytes(&self) -> u64 {
        held::total(self, &[&self.circle])
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        self.circle.update(servers, self.points);
    }

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        let mut totals = Totals::of(selection);
        for (flow, new) in selection.flows().iter().enumerate() {
            for server in self.circle.from(self.keyed.hash(new)) {
                let Some((view, load)) = selection.server(server) else { continue };
                if self.factor.is_some_and(|factor| all(load) >= totals.cap(factor, view.weight)) {
                    continue;
                }
                if selection.assign(flow, server) {
                    totals.flows += 1;
                    break;
                }
            }
        }
    }
}

impl Held for Circle {
    fn held(&self) -> usize {
        self.built.held().saturating_add(self.points.held())
    }
}
