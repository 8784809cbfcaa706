//! The choice among several next hops (ECMP), per flow.
//!
//! In: a number for the flow and the next hops that are up. Out: one of them. What each way of choosing moves when a
//! next hop comes or goes is what they differ in.

use std::cell::RefCell;

use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{Duration, Instant};

use super::address::Ip;
use super::plan::SpreadChoice;
use super::routes::Next;

/// Numbers for flows. Each machine has its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hashes {
    salt: u64,
}

impl Hashes {
    pub(super) const fn new(salt: u64) -> Self {
        Self { salt }
    }

    /// The same for both directions.
    pub(super) fn of_addresses(&self, a: Ip, b: Ip) -> u64 {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        mix(mix_address(mix_address(self.salt, low), high))
    }

    /// The same for both directions.
    pub(super) fn of_five_tuple(&self, a: Ip, b: Ip, protocol: Protocol, ports: (u16, u16)) -> u64 {
        let (low, high) = ((a, ports.0), (b, ports.1));
        let (low, high) = if low <= high { (low, high) } else { (high, low) };
        let rest = u64::from(low.1) << 32 | u64::from(high.1) << 8 | u64::from(protocol.0);
        mix(mix_address(mix_address(self.salt, low.0), high.0) ^ rest)
    }
}

/// The last step of SplitMix64 (Steele, Lea and Flood, 2014).
pub(super) const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[allow(clippy::cast_possible_truncation, reason = "the halves of the address")]
const fn mix_address(state: u64, address: Ip) -> u64 {
    mix(mix(state ^ address.0 as u64) ^ (address.0 >> 64) as u64)
}

/// How next hops of one route are chosen.
#[derive(Clone, Debug)]
pub(super) enum Chooser {
    HashThreshold,
    Modulo,
    Rendezvous,
    Resilient(RefCell<Buckets>),
}

/// Where each bucket leads, and when it last had a packet.
#[derive(Clone, Debug)]
pub(super) struct Buckets {
    /// The number of a next hop; `None` where it is gone.
    hops: Vec<(Option<u16>, Instant)>,
    idle: Duration,
}

impl Chooser {
    pub(super) fn new(choice: SpreadChoice, hops: usize) -> Self {
        match choice {
            SpreadChoice::HashThreshold => Self::HashThreshold,
            SpreadChoice::Modulo => Self::Modulo,
            SpreadChoice::Rendezvous => Self::Rendezvous,
            SpreadChoice::Resilient { buckets, idle } => {
                let buckets = usize::from(buckets).max(hops).max(1);
                Self::Resilient(RefCell::new(Buckets { hops: vec![(None, Instant::ZERO); buckets], idle }))
            }
        }
    }

    /// Whether a choice depends on what was chosen before.
    pub(super) const fn has_memory(&self) -> bool {
        matches!(self, Self::Resilient(_))
    }

    /// Where buckets lead is forgotten.
    pub(super) fn forget(&self) {
        if let Self::Resilient(buckets) = self {
            buckets.borrow_mut().hops.fill((None, Instant::ZERO));
        }
    }

    /// Takes over the buckets of another route whose next hops are still there.
    pub(super) fn inherit(&self, old: &Self, old_hops: &[Next], new_hops: &[Next]) {
        let (Self::Resilient(new), Self::Resilient(old)) = (self, old) else { return };
        let (mut new, old) = (new.borrow_mut(), old.borrow());
        if new.hops.len() != old.hops.len() {
            return;
        }
        let is_same = |a: &Next, b: &Next| (a.gateway, a.device) == (b.gateway, b.device);
        for (place, (hop, used)) in new.hops.iter_mut().zip(&old.hops) {
            let hop = hop.and_then(|hop| old_hops.get(usize::from(hop)));
            let kept = hop.and_then(|hop| new_hops.iter().position(|other| is_same(other, hop)));
            *place = (kept.and_then(|kept| u16::try_from(kept).ok()), *used);
        }
    }

    pub(super) fn choose(&self, hops: &[Next], is_up: &[bool], hash: u64, now: Instant) -> Option<Next> {
        let usable = |hop: &Next| is_up.get(usize::from(hop.device)) == Some(&true) && hop.weight > 0;
        let total: u64 = hops.iter().filter(|hop| usable(hop)).map(|hop| u64::from(hop.weight)).sum();
        if total == 0 {
            return None;
        }
        let by_weight = |mut number: u64| {
            hops.iter().filter(|hop| usable(hop)).find(|hop| {
                let weight = u64::from(hop.weight);
                let is_here = number < weight;
                number = number.saturating_sub(weight);
                is_here
            })
        };
        match self {
            // The high half of a product: ranges in proportion to weights.
            Self::HashThreshold => {
                let place = (u128::from(hash) * u128::from(total)) >> 64;
                by_weight(u64::try_from(place).unwrap_or(0)).copied()
            }
            Self::Modulo => by_weight(hash % total).copied(),
            Self::Rendezvous => highest(hops.iter().filter(|hop| usable(hop)), hash).copied(),
            Self::Resilient(buckets) => {
                let hop = buckets.borrow_mut().choose(hops, usable, total, hash, now)?;
                hops.get(usize::from(hop)).copied()
            }
        }
    }
}

/// The next hop with the highest number of its own. With weights, that of `-ln(u) / weight`, the lowest (Schindelhauer
/// and Schomaker, 2005), which is the same where weights are equal.
fn highest<'a>(hops: impl Iterator<Item = &'a Next>, hash: u64) -> Option<&'a Next> {
    let cost = |hop: &Next| {
        let identity = hop.gateway.unwrap_or(Ip::V6_ANY);
        let number = mix_address(hash ^ u64::from(hop.device), identity);
        #[allow(clippy::cast_precision_loss, reason = "53 bits fit a float")]
        let unit = ((number >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        -libm::log(unit) / f64::from(hop.weight)
    };
    hops.min_by(|a, b| cost(a).total_cmp(&cost(b)))
}

impl Buckets {
    /// The next hop of the bucket of a flow. The bucket moves first where its next hop is gone, or where it is idle and
    /// its next hop has too many.
    fn choose(
        &mut self,
        hops: &[Next],
        usable: impl Fn(&Next) -> bool,
        total: u64,
        hash: u64,
        now: Instant,
    ) -> Option<u16> {
        let count = u64::try_from(self.hops.len()).ok()?;
        let place = usize::try_from(hash.checked_rem(count)?).ok()?;
        let is_usable = |hop: u16| hops.get(usize::from(hop)).is_some_and(&usable);
        if self.hops.get(place)?.0.is_none_or(|hop| !is_usable(hop)) {
            self.fill(hops, &usable, total);
        }
        let (hop, used) = *self.hops.get(place)?;
        let mut hop = hop?;
        if now.since(used) >= self.idle && self.excess(hops, &usable, total, hop) > 0 {
            let neediest = self.neediest(hops, &usable, total);
            let lacks = |hop: &u16| self.excess(hops, &usable, total, *hop) < 0;
            hop = neediest.filter(lacks).unwrap_or(hop);
        }
        *self.hops.get_mut(place)? = (Some(hop), now);
        Some(hop)
    }

    /// Gives every bucket without a next hop to the one that lacks most.
    fn fill(&mut self, hops: &[Next], usable: &impl Fn(&Next) -> bool, total: u64) {
        for place in 0..self.hops.len() {
            let current = self.hops.get(place).and_then(|(hop, _)| *hop);
            if current.and_then(|hop| hops.get(usize::from(hop))).is_some_and(usable) {
                continue;
            }
            let neediest = self.neediest(hops, usable, total);
            if let Some((hop, _)) = self.hops.get_mut(place) {
                *hop = neediest;
            }
        }
    }

    /// How many buckets a next hop has beyond its share; below zero where it lacks some.
    fn excess(&self, hops: &[Next], usable: &impl Fn(&Next) -> bool, total: u64, hop: u16) -> i64 {
        let Some(plan) = hops.get(usize::from(hop)).filter(|hop| usable(hop)) else { return i64::MAX };
        let all = u64::try_from(self.hops.len()).unwrap_or(0);
        // Rounded to the nearest.
        let share = (all * u64::from(plan.weight) * 2 + total) / (total * 2).max(1);
        let has = self.hops.iter().filter(|(other, _)| *other == Some(hop)).count();
        i64::try_from(has).unwrap_or(i64::MAX) - i64::try_from(share).unwrap_or(i64::MAX)
    }

    fn neediest(&self, hops: &[Next], usable: &impl Fn(&Next) -> bool, total: u64) -> Option<u16> {
        let numbers = (0..hops.len()).filter_map(|hop| u16::try_from(hop).ok());
        let candidates = numbers.filter(|hop| hops.get(usize::from(*hop)).is_some_and(usable));
        candidates.min_by_key(|hop| self.excess(hops, usable, total, *hop))
    }
}
