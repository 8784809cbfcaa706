//! `maglev`: a lookup table filled by the servers' permutations in turn, indexed by the flow hash.
//!
//! ```text
//! web1 wants  3 0 2 4 1    web2 wants  0 2 4 1 3    in turn: web1 3, web2 0, web1 2 (0 is taken), web2 4, web1 1
//! slot        0    1    2    3    4
//!             web2 web1 web1 web1 web2
//! ```
//!
//! Source: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4. Weights
//! by cumulative turns: in each round a server adds its weight to its score and claims a slot when the score
//! reaches the largest weight (as Katran's V2 does); or by turns, as many slots at once as it has weight (as IPVS
//! does); or not at all. Members are sorted by identity first, so the table does not depend on the order of the plan (two
//! instances agree), and permutations come from fixed keys. A flow whose server is full goes to the next slot's.
//! Lookup O(1); building O(size * ln size) for equal weights.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use siphasher::sip::SipHasher13;

use super::held;
use super::ipvs::gcd;
use super::key::Keyed;
use crate::director::{NewFlow, PickInputs, Scheduler, Selection, ServerId, ServerView};
use crate::plan::{Options, TableWeights};
use crate::time::Instant;

/// Slots of the table: a prime, 100 times the servers for which imbalance stays below 1 %.
pub const DEFAULT_TABLE_SIZE: u32 = 65_537;

/// Marks a slot that nobody has claimed.
const FREE: u16 = u16::MAX;

#[derive(Clone, Debug)]
pub(super) struct Maglev {
    keyed: Keyed,
    size: u32,
    weights: TableWeights,
    /// What the table was built from.
    built: Vec<(ServerId, u32)>,
    table: Vec<u16>,
}

impl Maglev {
    pub(super) fn new(options: &Options, seed: u64) -> Self {
        Self {
            keyed: Keyed::new(options.key, seed),
            size: options.table_size.unwrap_or(DEFAULT_TABLE_SIZE),
            weights: options.weights.unwrap_or_default(),
            built: Vec::new(),
            table: Vec::new(),
        }
    }
}

struct Member {
    place: u16,
    weight: u64,
    score: u64,
    next: u32,
    skip: u32,
}

impl Scheduler for Maglev {
    fn name(&self) -> &'static str {
        "maglev"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn inputs(&self, flow: &NewFlow) -> PickInputs {
        self.keyed.inputs(flow)
    }

    fn memory_bytes(&self) -> u64 {
        held::total(self, &[&self.built, &self.table])
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        let members = servers.iter().map(|view| (view.id, if view.is_member() { view.weight } else { 0 }));
        let members: Vec<(ServerId, u32)> = members.collect();
        if members != self.built {
            self.table = weighted_table(servers, self.size, self.weights);
            self.built = members;
        }
    }

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        let size = self.table.len() as u64;
        for (flow, new) in selection.flows().iter().enumerate() {
            let slot = self.keyed.hash(new).checked_rem(size).and_then(|at| usize::try_from(at).ok());
            let server = slot.and_then(|at| self.table.get(at));
            if server.is_some_and(|server| !selection.assign(flow, usize::from(*server))) {
                self.walk_on(selection, flow, slot.unwrap_or(0));
            }
        }
    }
}

impl Maglev {
    /// Gives `flow` to the first server behind `slot` that is not full.
    #[cold]
    fn walk_on(&self, selection: &mut Selection<'_>, flow: usize, slot: usize) {
        let (before, from) = self.table.split_at(slot.min(self.table.len()));
        for server in from.iter().chain(before) {
            if selection.assign(flow, usize::from(*server)) {
                break;
            }
        }
    }
}

/// The table over those of `servers` that have a share, of `size` slots, which is a prime: places in `servers`.
/// Weights count by cumulative turns. Empty when no server has a share.
#[must_use]
pub fn table(servers: &[ServerView], size: u32) -> Vec<u16> {
    weighted_table(servers, size, TableWeights::Cumulative)
}

/// The same with weights as `weights` says.
#[must_use]
pub fn weighted_table(servers: &[ServerView], size: u32, weights: TableWeights) -> Vec<u16> {
    let size = size.max(2);
    let mut sharing: Vec<(usize, &ServerView)> =
        servers.iter().enumerate().filter(|(_, server)| server.is_member()).collect();
    sharing.sort_by_key(|(_, server)| server.id);
    let unit = sharing.iter().fold(0, |unit, (_, server)| gcd(unit, server.weight)).max(1);
    let member = |(place, server): (usize, &ServerView)| {
        let weight = if weights == TableWeights::Equal { 1 } else { u64::from(server.weight / unit) };
        member(place, server.id, weight, size)
    };
    let mut members: Vec<Member> = sharing.into_iter().filter_map(member).collect();
    let Some(heaviest) = members.iter().map(|member| member.weight).max() else { return Vec::new() };
    // What a score has to reach for a slot: so every round gives at least one slot, to the heaviest member.
    let price = if weights == TableWeights::Turns { 1 } else { heaviest };
    let mut table = vec![FREE; size as usize];
    let mut left = size;
    while left > 0 {
        for member in &mut members {
            member.score += member.weight;
            while member.score >= price && left > 0 {
                member.score -= price;
                claim(&mut table, member, size);
                left -= 1;
            }
        }
    }
    table
}

fn member(place: usize, id: ServerId, weight: u64, size: u32) -> Option<Member> {
    let hash = |key| SipHasher13::new_with_keys(0, key).hash(&id.0.to_le_bytes());
    let size = u64::from(size);
    Some(Member {
        place: u16::try_from(place).ok().filter(|place| *place != FREE)?,
        weight,
        score: 0,
        next: u32::try_from(hash(0) % size).unwrap_or(0),
        skip: u32::try_from(hash(1) % (size - 1)).unwrap_or(0) + 1,
    })
}

/// Gives `member` the next free slot of its permutation, which visits each slot once since the size is a prime.
fn claim(table: &mut [u16], member: &mut Member, size: u32) {
    for _ in 0..size {
        let at = member.next as usize;
        // Below 2^23 each, so the sum fits.
        member.next += member.skip;
        if member.next >= size {
            member.next -= size;
        }
        if let Some(slot) = table.get_mut(at)
            && *slot == FREE
        {
            *slot = member.place;
            return;
        }
    }
}
