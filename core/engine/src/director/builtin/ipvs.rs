//! What the schedulers of IPVS share: the order of servers, what a connection costs, how addresses are folded.
//!
//! The kernel puts a new server at the head of its list, so every walk goes from the last server of the plan to the
//! first. A server that is full (`IP_VS_DEST_F_OVERLOAD`) or has no weight is passed over; one that is down is
//! to these schedulers as one without weight.

use alloc::vec::Vec;

use super::held::Held;
use crate::director::{Selection, ServerId, ServerLoad, ServerView};
use crate::wire::Address;

/// What a connection costs its server, in inactive entries: `ip_vs_dest_conn_overhead` of Linux 6.1 counts an active
/// one 256 times and then once more among all.
pub(super) fn overhead(load: ServerLoad) -> u64 {
    257 * u64::from(load.active) + u64::from(load.inactive)
}

/// The first of `places` that no later one undercuts: the least `cost` for its weight, compared without division.
/// Servers that may not be picked are left out.
pub(super) fn least(
    selection: &Selection<'_>,
    places: impl Iterator<Item = usize>,
    cost: impl Fn(ServerLoad) -> u64,
) -> Option<usize> {
    let mut best: Option<(usize, u64, u64)> = None;
    for place in places {
        let Some((server, load)) = selection.server(place).filter(|(server, _)| server.is_usable()) else {
            continue;
        };
        // A cost has at most 41 bits and a weight 16, so the products fit.
        let (cost, weight) = (cost(load), u64::from(server.weight));
        let is_better =
            best.is_none_or(|(_, least, its)| least.saturating_mul(weight) > cost.saturating_mul(its));
        if is_better {
            best = Some((place, cost, weight));
        }
    }
    best.map(|(place, _, _)| place)
}

/// The places of the servers in the order of the kernel's list.
pub(super) fn walk(selection: &Selection<'_>) -> impl Iterator<Item = usize> + use<> {
    (0..selection.servers().len()).rev()
}

/// An address in 32 bits: an IPv4 address as it is, an IPv6 address as the four words of it XORed.
pub(super) fn fold(address: Address) -> u32 {
    if address.is_v4() {
        return u32::from_be_bytes(address.v4_bytes());
    }
    address.halves().into_iter().fold(0, |sum, half| {
        let [a, b, c, d, e, f, g, h] = half.to_be_bytes();
        sum ^ u32::from_be_bytes([a, b, c, d]) ^ u32::from_be_bytes([e, f, g, h])
    })
}

/// The top `bits` bits of a multiplicative hash.
pub(super) const fn hash_bits(value: u32, bits: u32) -> u32 {
    value.wrapping_mul(0x61C8_8647) >> (32 - bits)
}

/// The greatest common divisor; of 0 and any number, that number.
pub(super) const fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// A list of servers as the kernel has it, the newest first, kept up by single steps.
#[derive(Clone, Debug, Default)]
pub(super) struct List {
    /// Identity and weight; of a server that is down the weight is 0.
    pub(super) servers: Vec<(ServerId, u32)>,
}

/// What happens to the list of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The server at this place goes.
    Remove(usize),
    /// The server at this place has this weight from now on.
    Edit(usize, u32),
    /// A server comes to the head.
    Add(ServerId, u32),
    /// The whole list is in another order, which the kernel can not do.
    Sort,
}

impl List {
    /// Becomes `views`, one step after the other as `ipvsadm` would take them: those that go, those that change, and
    /// those that come. `after` hears of each step when it has been taken, together with the list. An update that
    /// changes nothing, or only which servers are full, takes no step.
    pub(super) fn follow(&mut self, views: &[ServerView], mut after: impl FnMut(Step, &[(ServerId, u32)])) {
        let wanted: Vec<(ServerId, u32)> = views.iter().rev().map(|view| (view.id, weight(view))).collect();
        let mut known: Vec<(ServerId, u32)> = wanted.clone();
        known.sort_unstable();
        let find = |id: ServerId| {
            let place = known.binary_search_by_key(&id, |(id, _)| *id).ok()?;
            known.get(place).map(|(_, weight)| *weight)
        };
        for place in (0..self.servers.len()).rev() {
            let Some((id, before)) = self.servers.get(place).copied() else { continue };
            match find(id) {
                None => {
                    self.servers.remove(place);
                    after(Step::Remove(place), &self.servers);
                }
                Some(weight) if weight != before => {
                    if let Some(server) = self.servers.get_mut(place) {
                        server.1 = weight;
                    }
                    after(Step::Edit(place, weight), &self.servers);
                }
                Some(_) => {}
            }
        }
        let mut old: Vec<ServerId> = self.servers.iter().map(|(id, _)| *id).collect();
        old.sort_unstable();
        for (id, weight) in wanted.iter().rev().filter(|(id, _)| old.binary_search(id).is_err()) {
            self.servers.insert(0, (*id, *weight));
            after(Step::Add(*id, *weight), &self.servers);
        }
        if self.servers != wanted {
            self.servers = wanted;
            after(Step::Sort, &self.servers);
        }
    }
}

/// A server's weight in the eyes of a director that knows no servers that are down.
const fn weight(view: &ServerView) -> u32 {
    if view.is_member() { view.weight } else { 0 }
}

impl Held for List {
    fn held(&self) -> usize {
        self.servers.held()
    }
}
