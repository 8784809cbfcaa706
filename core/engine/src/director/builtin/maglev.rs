//! `maglev`: a lookup table filled by the servers' permutations in turn, indexed by the flow hash.
//!
//! Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4. Weights by
//! cumulative turns: in each round a server adds its weight to its score and claims a slot when the score
//! reaches the largest weight. Members are sorted by identity first, so the table does not depend on
//! the order of the plan (two instances agree), and permutations come from fixed keys.
//! Lookup O(1); building O(size * ln size) for equal weights.

use alloc::vec;
use alloc::vec::Vec;

use siphasher::sip::SipHasher13;

use crate::director::{Scheduler, Selection, ServerView};
use crate::time::Instant;

/// Slots of the table: a prime, 100 times the servers for which imbalance stays below 1 %.
pub const DEFAULT_TABLE_SIZE: u32 = 65_537;

/// Marks a slot that nobody has claimed.
const FREE: u16 = u16::MAX;

#[derive(Debug, Default)]
pub(super) struct Maglev {
    table: Vec<u16>,
}

struct Member {
    place: u16,
    weight: u64,
    score: u64,
    next: u64,
    skip: u64,
}

impl Scheduler for Maglev {
    fn name(&self) -> &'static str {
        "maglev"
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        self.table = table(servers, DEFAULT_TABLE_SIZE);
    }

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        let size = self.table.len() as u64;
        for (flow, new) in selection.flows().iter().enumerate() {
            let slot = new.hash.checked_rem(size).and_then(|at| self.table.get(usize::try_from(at).ok()?));
            if let Some(server) = slot {
                selection.assign(flow, usize::from(*server));
            }
        }
    }
}

/// The table over the usable ones of `servers`, of `size` slots, which is a prime: places in `servers`. Empty when
/// no server is usable.
#[must_use]
pub fn table(servers: &[ServerView], size: u32) -> Vec<u16> {
    let size = u64::from(size.max(2));
    let mut usable: Vec<(usize, &ServerView)> =
        servers.iter().enumerate().filter(|(_, server)| server.is_usable()).collect();
    usable.sort_by_key(|(_, server)| server.id);
    let members = usable.into_iter().filter_map(|(place, server)| member(place, server, size));
    let mut members: Vec<Member> = members.collect();
    let Some(heaviest) = members.iter().map(|member| member.weight).max() else { return Vec::new() };
    let slots = usize::try_from(size).unwrap_or(0);
    let mut table = vec![FREE; slots];
    let mut left = slots;
    // Every round gives at least one slot: that of the heaviest member.
    while left > 0 {
        for member in &mut members {
            member.score += member.weight;
            if member.score < heaviest {
                continue;
            }
            member.score -= heaviest;
            claim(&mut table, member, size);
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    table
}

fn member(place: usize, server: &ServerView, size: u64) -> Option<Member> {
    let hash = |key| SipHasher13::new_with_keys(0, key).hash(&server.id.0.to_le_bytes());
    Some(Member {
        place: u16::try_from(place).ok().filter(|place| *place != FREE)?,
        weight: u64::from(server.weight),
        score: 0,
        next: hash(0) % size,
        skip: hash(1) % (size - 1) + 1,
    })
}

/// Gives `member` the next free slot of its permutation, which visits each slot once since the size is a prime.
fn claim(table: &mut [u16], member: &mut Member, size: u64) {
    for _ in 0..size {
        let at = member.next;
        member.next += member.skip;
        if member.next >= size {
            member.next -= size;
        }
        if let Some(slot) = usize::try_from(at).ok().and_then(|at| table.get_mut(at))
            && *slot == FREE
        {
            *slot = member.place;
            return;
        }
    }
}
