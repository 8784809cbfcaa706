//! `mh`: a Maglev table over the client's address, or its address and port, as IPVS builds it.
//!
//! Servers claim slots in turn, in the order of the list; each time it is its turn a server claims as many as its
//! weight has units of the greatest common divisor, halved until the heaviest claims fewer than 64. A server of weight
//! 0 keeps the slots of its last weight, so that it finds its clients again; meanwhile they are handed on, or without
//! `fallback`, as with IPVS's own default, refused. O(1) per flow, O(size * ln size) to build. Source: IPVS, Linux 6.1
//! (`mh-fallback`, `mh-port`).

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use siphasher::sip::SipHasher13;

use super::held;
use super::ipvs::{fold, gcd};
use crate::director::{NewFlow, PickInputs, Scheduler, Selection, ServerId, ServerView};
use crate::plan::{FlowKey, Options};
use crate::time::Instant;
use crate::wire::Address;

/// The size that Linux has when it is not compiled otherwise (`CONFIG_IP_VS_MH_TAB_INDEX=12`).
const SIZE_DEFAULT: u32 = 4093;

/// Keys of the two hashes: the first gives offsets and clients' slots, the second skips.
const KEYS: [u64; 2] = [2_654_435_761, 2_654_446_892];

/// Marks a slot that nobody has claimed.
const FREE: u16 = u16::MAX;

#[derive(Clone, Debug)]
pub(super) struct MaglevHashing {
    has_port: bool,
    has_fallback: bool,
    size: u32,
    /// The last weight other than 0 of each server.
    weights: BTreeMap<ServerId, u32>,
    /// What the table was built from, in the order of the plan.
    built: Vec<(ServerId, u32)>,
    table: Vec<u16>,
}

impl MaglevHashing {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            has_port: options.key == Some(FlowKey::SourcePort),
            has_fallback: options.fallback.unwrap_or(true),
            size: options.table_size.unwrap_or(SIZE_DEFAULT).max(2),
            weights: BTreeMap::new(),
            built: Vec::new(),
            table: Vec::new(),
        }
    }

    fn slot(&self, flow: &NewFlow, offset: u32) -> usize {
        let port = if self.has_port { flow.tuple.source_port } else { 0 };
        (hash(flow.tuple.source, port, offset, 0) % self.size) as usize
    }
}

impl Scheduler for MaglevHashing {
    fn name(&self) -> &'static str {
        "mh"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn inputs(&self, flow: &NewFlow) -> PickInputs {
        let key = if self.has_port { "source address and port" } else { "source address" };
        PickInputs::hashed(key, self.slot(flow, 0) as u64)
    }

    fn memory_bytes(&self) -> u64 {
        held::total(self, &[&self.weights, &self.built, &self.table])
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        let last = |view: &ServerView| {
            let last = self.weights.get(&view.id).copied().filter(|_| view.weight == 0);
            (view.id, last.unwrap_or(view.weight))
        };
        let weights: Vec<(ServerId, u32)> = servers.iter().map(last).collect();
        if weights != self.built {
            self.weights = weights.iter().copied().collect();
            let ends = servers.iter().map(|view| (Address::from(view.address), view.port));
            let members = ends.zip(&weights).map(|((address, port), (_, weight))| (address, port, *weight));
            self.table = table(&members.collect::<Vec<_>>(), self.size);
            self.built = weights;
        }
    }

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        if self.table.is_empty() {
            return;
        }
        for (flow, new) in selection.flows().iter().enumerate() {
            let first = self.slot(new, 0);
            let begin = u32::try_from(first).unwrap_or(0);
            let others = if self.has_fallback { self.size } else { 0 };
            let others = (0..others).map(|offset| self.slot(new, (offset + begin) % self.size));
            for at in core::iter::once(first).chain(others) {
                let server = self.table.get(at).copied().unwrap_or(FREE);
                if selection.assign(flow, usize::from(server)) {
                    break;
                }
            }
        }
    }
}

/// The kernel's hash of an address and a port, moved by an offset: the low half of SipHash-1-3 of their sum.
fn hash(address: Address, port: u16, offset: u32, which: usize) -> u32 {
    let value = offset.wrapping_add(u32::from(port)).wrapping_add(fold(address));
    let key = KEYS.get(which).copied().unwrap_or_default();
    let hash = SipHasher13::new_with_keys(key, key).hash(&value.to_le_bytes());
    #[allow(clippy::cast_possible_truncation, reason = "the low half is the hash")]
    let low = hash as u32;
    low
}

struct Member {
    place: u16,
    next: u32,
    skip: u32,
    turns: u32,
}

/// The table over servers with their weights, in the order of the plan: places in `servers`. Empty when none has a
/// weight.
fn table(servers: &[(Address, u16, u32)], size: u32) -> Vec<u16> {
    let weights = || servers.iter().map(|(_, _, weight)| *weight);
    let unit = weights().fold(0, gcd).max(1);
    let heaviest = weights().max().unwrap_or(0) / unit;
    // Six bits: half of the index 12 of the default size.
    let shift = (32 - heaviest.leading_zeros()).saturating_sub(6);
    let member = |(place, (address, port, weight)): (usize, &(Address, u16, u32))| Member {
        place: u16::try_from(place).unwrap_or(FREE),
        next: hash(*address, *port, 0, 0) % size,
        skip: hash(*address, *port, 0, 1) % (size - 1) + 1,
        turns: ((weight / unit) >> shift).max(u32::from(*weight > 0)),
    };
    let members = servers.iter().enumerate().rev().map(member).filter(|member| member.turns > 0);
    let mut members: Vec<Member> = members.collect();
    if members.is_empty() {
        return Vec::new();
    }
    let mut table = vec![FREE; size as usize];
    let mut left = size;
    while left > 0 {
        for member in &mut members {
            for _ in 0..member.turns.min(left) {
                claim(&mut table, member, size);
                left -= 1;
            }
        }
    }
    table
}

/// Gives `member` the next free slot of its permutation, which visits each slot once since the size is a prime.
fn claim(table: &mut [u16], member: &mut Member, size: u32) {
    for _ in 0..size {
        if let Some(slot) = table.get_mut(member.next as usize)
            && *slot == FREE
        {
            *slot = member.place;
            return;
        }
        member.next += member.skip;
        if member.next >= size {
            member.next -= size;
        }
    }
}
