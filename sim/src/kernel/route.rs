//! Where a packet goes: rules choose the table, the longest prefix the route, and a hash of the flow one of its ways.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::net::IpAddr;

use evenkeel_engine::wire::Protocol;
use siphasher::sip::SipHasher13;

use super::plan::{KernelPlan, Way};
use super::{Device, RouteEntry};
use crate::packet::{IPV4_BYTES, IPV6_BYTES};
use crate::random::Stream;
use crate::scenario::{Ecmp, Rule, Subnet, TABLE_MAIN};

/// Slots of a resilient table: Linux's default.
const SLOTS: usize = 128;
/// The priority of the rule that looks into the main table.
const PRIORITY_MAIN: u32 = 32_766;

/// What rules and hashes look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: Protocol,
    /// Ports, where the packet shows them.
    pub(super) ports: Option<(u16, u16)>,
    /// Where the packet came in; none for one of the machine's own.
    pub(super) device: Option<Device>,
}

impl Flow {
    /// The flow of a packet with a whole header.
    #[inline]
    pub(super) fn of(bytes: &[u8], device: Option<Device>) -> Option<Self> {
        let ports = |offset: usize| {
            let [a, b, c, d] = *bytes.get(offset..offset + 4)?.first_chunk::<4>()?;
            Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
        };
        let has_ports = |protocol| matches!(protocol, Protocol::TCP | Protocol::UDP);
        if bytes.first()? >> 4 == 4 {
            let [first, _, _, _, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
                *bytes.first_chunk::<IPV4_BYTES>()?;
            let protocol = Protocol(protocol);
            let is_first = u16::from_be_bytes([f0, f1]) & 0x1fff == 0;
            let ports =
                if has_ports(protocol) && is_first { ports(usize::from(first & 15) * 4) } else { None };
            let (source, destination) = ([s0, s1, s2, s3].into(), [d0, d1, d2, d3].into());
            return Some(Self { source, destination, protocol, ports, device });
        }
        let header = bytes.first_chunk::<IPV6_BYTES>()?;
        let [_, _, _, _, _, _, protocol, _, addresses @ ..] = header;
        let (source, destination) = addresses.split_at(16);
        let source: [u8; 16] = source.try_into().ok()?;
        let destination: [u8; 16] = destination.try_into().ok()?;
        let protocol = Protocol(*protocol);
        let ports = if has_ports(protocol) { ports(IPV6_BYTES) } else { None };
        Some(Self { source: source.into(), destination: destination.into(), protocol, ports, device })
    }

    /// A flow of the machine's own of which only the addresses are known.
    pub(super) const fn between(source: IpAddr, destination: IpAddr) -> Self {
        Self { source, destination, protocol: Protocol(0), ports: None, device: None }
    }

    /// The way back to its source.
    pub(super) const fn back(&self) -> Self {
        Self { source: self.destination, destination: self.source, ports: None, device: None, ..*self }
    }
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Out of this device, to this next hop.
    Way(Device, IpAddr),
    Blackhole,
    Unreachable,
    /// No route leads there.
    None,
}

/// One way of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hop {
    gateway: Option<IpAddr>,
    device: Device,
    weight: u32,
}

#[derive(Clone, Debug)]
enum Action {
    Hops {
        hops: Vec<Hop>,
        /// Of a resilient table: the gateway of each slot.
        slots: Vec<IpAddr>,
    },
    Blackhole,
    Unreachable,
}

#[derive(Clone, Debug)]
struct Entry {
    to: Subnet,
    action: Action,
}

/// A routing table: single addresses by themselves, networks from the longest prefix to the shortest.
#[derive(Clone, Debug, Default)]
struct Table {
    hosts: BTreeMap<IpAddr, Action>,
    networks: Vec<Entry>,
}

/// Tables and rules.
#[derive(Debug)]
pub(super) struct Routing {
    tables: BTreeMap<u32, Table>,
    rules: Vec<RuleAt>,
    ecmp: Ecmp,
    key: (u64, u64),
    has_link: Vec<bool>,
}

#[derive(Debug)]
struct RuleAt {
    rule: Rule,
    device: Option<Device>,
    /// The rule names an interface that the machine does not have.
    is_void: bool,
}

impl Routing {
    pub(super) fn new(plan: &KernelPlan, seed: u64, name: &str) -> Self {
        let mut draw = Stream::new(seed, name, "ecmp");
        let mut routing = Self {
            tables: BTreeMap::new(),
            rules: Vec::new(),
            ecmp: plan.ecmp,
            key: (draw.bits(), draw.bits()),
            has_link: vec![true; plan.interfaces.len()],
        };
        routing.tell(plan);
        routing
    }

    /// Takes over routes and rules.
    pub(super) fn tell(&mut self, plan: &KernelPlan) {
        let before = std::mem::take(&mut self.tables);
        let mut tables: BTreeMap<u32, Table> = BTreeMap::new();
        // Routes that were written come before those of the interfaces, and later ones in place of earlier ones.
        for entry in plan.connected().chain(plan.routes.iter().cloned()) {
            let Some(action) = action_of(plan, &entry) else { continue };
            let table = tables.entry(entry.table).or_default();
            if is_host(entry.to) {
                table.hosts.insert(entry.to.address, action);
            } else {
                table.networks.retain(|known| known.to != entry.to);
                table.networks.push(Entry { to: entry.to, action });
            }
        }
        for (number, table) in &mut tables {
            table.networks.sort_by(|a, b| b.to.length.cmp(&a.to.length).then(a.to.cmp(&b.to)));
            let old = before.get(number);
            for entry in &mut table.networks {
                let known = old.and_then(|old| old.networks.iter().find(|known| known.to == entry.to));
                fill_slots(&mut entry.action, known.map(|known| &known.action));
            }
            for (address, action) in &mut table.hosts {
                fill_slots(action, old.and_then(|old| old.hosts.get(address)));
            }
        }
        self.tables = tables;
        let rules = plan.rules.iter().map(|rule| {
            let device = rule.interface.as_ref().and_then(|name| plan.device(name));
            RuleAt { is_void: rule.interface.is_some() && device.is_none(), device, rule: rule.clone() }
        });
        self.rules = rules.collect();
        self.rules.sort_by_key(|at| at.rule.priority);
    }

    pub(super) fn set_link(&mut self, interface: usize, has_link: bool) {
        if let Some(place) = self.has_link.get_mut(interface) {
            *place = has_link;
        }
    }

    /// Where a packet of `flow` goes.
    #[inline]
    pub(super) fn find(&self, flow: &Flow) -> Found {
        let mut is_main_asked = false;
        for at in &self.rules {
            if !is_main_asked && at.rule.priority >= PRIORITY_MAIN {
                is_main_asked = true;
                if let Some(found) = self.find_in(TABLE_MAIN, flow) {
                    return found;
                }
            }
            if at.fits(flow)
                && let Some(found) = self.find_in(at.rule.table, flow)
            {
                return found;
            }
        }
        let last = if is_main_asked { None } else { self.find_in(TABLE_MAIN, flow) };
        last.unwrap_or(Found::None)
    }

    fn find_in(&self, table: u32, flow: &Flow) -> Option<Found> {
        let table = self.tables.get(&table)?;
        let action = table.hosts.get(&flow.destination).or_else(|| {
            table.networks.iter().find(|entry| entry.to.contains(flow.destination)).map(|entry| &entry.action)
        })?;
        Some(match action {
            Action::Blackhole => Found::Blackhole,
            Action::Unreachable => Found::Unreachable,
            Action::Hops { hops, slots } => match &hops[..] {
                [] => Found::None,
                [hop] => Found::Way(hop.device, hop.gateway.unwrap_or(flow.destination)),
                several => self.choose(several, slots, flow),
            },
        })
    }

    /// One of several ways, by a hash of the flow. Ways without a link are left out where others have one.
    fn choose(&self, hops: &[Hop], slots: &[IpAddr], flow: &Flow) -> Found {
        let is_alive = |hop: &&Hop| match hop.device {
            Device::Interface(number) => self.has_link.get(number) == Some(&true),
            Device::Tun(_) => true,
        };
        let alive: Vec<&Hop> = hops.iter().filter(is_alive).collect();
        let hash = self.hash(flow, None);
        let total: u64 = alive.iter().map(|hop| u64::from(hop.weight)).sum();
        let by_weight = |point: u64| {
            let mut rest = point;
            alive.iter().find(|hop| {
                let is_here = rest < u64::from(hop.weight);
                rest = rest.saturating_sub(u64::from(hop.weight));
                is_here
            })
        };
        let chosen = match self.ecmp {
            Ecmp::Modulo => by_weight(hash.checked_rem(total).unwrap_or(0)),
            Ecmp::HashThreshold => {
                let point = (u128::from(hash) * u128::from(total)) >> 64;
                by_weight(u64::try_from(point).unwrap_or(0))
            }
            Ecmp::Rendezvous => alive.iter().max_by_key(|hop| self.hash(flow, hop.gateway)),
            Ecmp::Resilient => {
                let slot = usize::try_from(hash).unwrap_or(0) % slots.len().max(1);
                let gateway = slots.get(slot).copied();
                alive.iter().find(|hop| hop.gateway == gateway).or_else(|| alive.first())
            }
        };
        chosen.map_or(Found::None, |hop| Found::Way(hop.device, hop.gateway.unwrap_or(flow.destination)))
    }

    fn hash(&self, flow: &Flow, salt: Option<IpAddr>) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        let mut write = |address: IpAddr| match address {
            IpAddr::V4(address) => hasher.write(&address.octets()),
            IpAddr::V6(address) => hasher.write(&address.octets()),
        };
        write(flow.source);
        write(flow.destination);
        if let Some(salt) = salt {
            write(salt);
        }
        let (from, to) = flow.ports.unwrap_or_default();
        let ([f0, f1], [t0, t1]) = (from.to_be_bytes(), to.to_be_bytes());
        hasher.write(&[flow.protocol.0, f0, f1, t0, t1]);
        hasher.finish()
    }
}

impl RuleAt {
    fn fits(&self, flow: &Flow) -> bool {
        let Rule { from, to, protocol, source_ports, destination_ports, .. } = &self.rule;
        let is_between = |range: &Option<(u16, u16)>, port: Option<u16>| match (range, port) {
            (None, _) => true,
            (Some((first, last)), Some(port)) => (*first..=*last).contains(&port),
            (Some(_), None) => false,
        };
        !self.is_void
            && self.device.is_none_or(|device| flow.device == Some(device))
            && from.is_none_or(|network| network.contains(flow.source))
            && to.is_none_or(|network| network.contains(flow.destination))
            && protocol.is_none_or(|protocol| protocol == flow.protocol)
            && is_between(source_ports, flow.ports.map(|ports| ports.0))
            && is_between(destination_ports, flow.ports.map(|ports| ports.1))
    }
}

const fn is_host(subnet: Subnet) -> bool {
    subnet.length == if subnet.address.is_ipv4() { 32 } else { 128 }
}

/// What a route does, where its routers can be reached; else the kernel would have refused it.
fn action_of(plan: &KernelPlan, entry: &RouteEntry) -> Option<Action> {
    match &entry.way {
        Way::Blackhole => Some(Action::Blackhole),
        Way::Unreachable => Some(Action::Unreachable),
        Way::On(device) => {
            let hops = vec![Hop { gateway: None, device: *device, weight: 1 }];
            Some(Action::Hops { hops, slots: Vec::new() })
        }
        Way::Via(gateways) => {
            let hop = |(gateway, weight): &(IpAddr, u32)| {
                let on_link = plan.connected().filter(|route| route.to.contains(*gateway));
                match on_link.max_by_key(|route| route.to.length)?.way {
                    Way::On(device) => Some(Hop { gateway: Some(*gateway), device, weight: *weight }),
                    Way::Via(_) | Way::Blackhole | Way::Unreachable => None,
                }
            };
            let hops: Vec<Hop> = gateways.iter().filter_map(hop).collect();
            (!hops.is_empty()).then_some(Action::Hops { hops, slots: Vec::new() })
        }
    }
}

/// Deals the slots of a resilient table out. Slots of a router that was there before and still is stay; the others go to
/// those that have the fewest.
fn fill_slots(action: &mut Action, before: Option<&Action>) {
    let Action::Hops { hops, slots } = action else { return };
    let gateways: Vec<IpAddr> = hops.iter().filter_map(|hop| hop.gateway).collect();
    if gateways.len() < 2 {
        return;
    }
    let old = match before {
        Some(Action::Hops { slots, .. }) => slots.clone(),
        Some(Action::Blackhole | Action::Unreachable) | None => Vec::new(),
    };
    let mut owners: Vec<Option<IpAddr>> = (0..SLOTS).map(|slot| old.get(slot).copied()).collect();
    let fair = SLOTS.div_ceil(gateways.len());
    let count = |owners: &[Option<IpAddr>], gateway: IpAddr| {
        owners.iter().filter(|owner| **owner == Some(gateway)).count()
    };
    for place in 0..owners.len() {
        let owner = owners.get(place).copied().flatten();
        // A new router takes its share from those that have more than theirs.
        let stays = owner.is_some_and(|owner| gateways.contains(&owner) && count(&owners, owner) <= fair);
        if !stays {
            if let Some(slot) = owners.get_mut(place) {
                *slot = None;
            }
            let least = gateways.iter().copied().min_by_key(|gateway| count(&owners, *gateway));
            if let Some(slot) = owners.get_mut(place) {
                *slot = least;
            }
        }
    }
    *slots = owners.into_iter().flatten().collect();
}
