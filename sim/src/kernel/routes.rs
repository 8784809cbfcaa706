//! Which way a packet goes: the local table, rules, routing tables, and the choice among several next hops.
//!
//! ```text
//! flow -> local table -> rules by priority -> table -> longest network -> lowest metric -> next hop
//! ```
//! In: addresses, routes and rules. Out: what is found for a flow. Knows nothing of packets and neighbours.

use evenkeel_engine::Instant;
use evenkeel_engine::wire::Protocol;

use super::address::{Ip, Net, Networks};
use super::plan::{Family, RuleAction, SpreadKey, TABLE_MAIN};
use super::spread::{Chooser, Hashes};

/// The number of a device: interfaces, then TUN devices, then ends of tunnels.
pub(super) type DeviceId = u16;
/// The machine itself.
pub(super) const LOOPBACK: DeviceId = DeviceId::MAX;
/// The priority of the rule that leads to the main table.
const PRIORITY_MAIN: u32 = 32_766;

/// A packet as routing sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    /// The device that it came in by.
    pub(super) inlet: DeviceId,
    pub(super) source: Ip,
    pub(super) destination: Ip,
    pub(super) protocol: Protocol,
    pub(super) ports: (u16, u16),
    pub(super) mark: u32,
}

/// What is found for a flow.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'a> {
    /// It is for the machine itself; the address is this device's.
    Local(DeviceId),
    /// It is for everybody on this device's network.
    Broadcast(DeviceId),
    Unicast(&'a Entry),
    Blackhole,
    Unreachable,
    Prohibited,
    Nothing,
}

/// A next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) gateway: Option<Ip>,
    pub(super) device: DeviceId,
    pub(super) weight: u16,
}

/// A route in its table.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) net: Net,
    pub(super) kind: EntryKind,
    pub(super) metric: u32,
    pub(super) source: Option<Ip>,
    /// It is there because an interface has an address.
    pub(super) is_connected: bool,
}

#[derive(Clone, Debug)]
pub(super) enum EntryKind {
    Unicast { hops: Vec<Next>, key: SpreadKey, chooser: Chooser },
    Local,
    Blackhole,
    Unreachable,
    Prohibit,
    Throw,
}

impl Entry {
    /// The next hop that takes a packet; `quoted` are the addresses of the packet that an ICMP error quotes.
    pub(super) fn choose(
        &self,
        flow: &Flow,
        quoted: Option<(Ip, Ip)>,
        routing: &Routing,
        now: Instant,
    ) -> Option<Next> {
        let EntryKind::Unicast { hops, key, chooser } = &self.kind else { return None };
        if let [only] = &hops[..] {
            return Some(*only);
        }
        let hash = match key {
            SpreadKey::Addresses => {
                let (source, destination) = quoted.unwrap_or((flow.source, flow.destination));
                routing.hashes.of_addresses(source, destination)
            }
            SpreadKey::FiveTuple => {
                routing.hashes.of_five_tuple(flow.source, flow.destination, flow.protocol, flow.ports)
            }
        };
        chooser.choose(hops, &routing.is_up, hash, now)
    }

    fn is_usable(&self, device: Option<DeviceId>, is_up: &[bool]) -> bool {
        let EntryKind::Unicast { hops, .. } = &self.kind else { return device.is_none() };
        hops.iter().any(|hop| {
            device.is_none_or(|device| device == hop.device)
                && is_up.get(usize::from(hop.device)) == Some(&true)
        })
    }

    /// Whether a next hop is on this device.
    pub(super) fn uses(&self, device: DeviceId) -> bool {
        match &self.kind {
            EntryKind::Unicast { hops, .. } => hops.iter().any(|hop| hop.device == device),
            EntryKind::Local
            | EntryKind::Blackhole
            | EntryKind::Unreachable
            | EntryKind::Prohibit
            | EntryKind::Throw => false,
        }
    }
}

/// What an address of the local table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LocalKind {
    Own(DeviceId),
    Broadcast(DeviceId),
}

#[derive(Clone, Debug, Default)]
struct Table {
    number: u32,
    v4: Networks<Vec<Entry>>,
    v6: Networks<Vec<Entry>>,
}

/// A rule with its names resolved.
#[derive(Clone, Debug)]
pub(super) struct RuleEntry {
    pub(super) priority: u32,
    pub(super) selector: Condition,
    pub(super) action: RuleAction,
}

/// A selector with its names resolved.
#[derive(Clone, Debug, Default)]
pub(super) struct Condition {
    pub(super) family: Option<Family>,
    pub(super) inlet: Option<DeviceId>,
    pub(super) from: Option<Net>,
    pub(super) to: Option<Net>,
    pub(super) protocol: Option<Protocol>,
    pub(super) source_ports: Option<(u16, u16)>,
    pub(super) destination_ports: Option<(u16, u16)>,
    pub(super) mark: Option<(u32, u32)>,
}

impl Condition {
    pub(super) fn fits(&self, flow: &Flow) -> bool {
        let is_family = |family: Family| (family == Family::V4) == flow.destination.is_v4();
        let has = |range: (u16, u16), port: u16| (range.0..=range.1).contains(&port);
        self.family.is_none_or(is_family)
            && self.inlet.is_none_or(|inlet| inlet == flow.inlet)
            && self.from.is_none_or(|net| net.contains(flow.source))
            && self.to.is_none_or(|net| net.contains(flow.destination))
            && self.protocol.is_none_or(|protocol| protocol == flow.protocol)
            && self.source_ports.is_none_or(|range| has(range, flow.ports.0))
            && self.destination_ports.is_none_or(|range| has(range, flow.ports.1))
            && self.mark.is_none_or(|(mark, bits)| (flow.mark ^ mark) & bits == 0)
    }

    const fn reads_transport(&self) -> bool {
        self.protocol.is_some() || self.source_ports.is_some() || self.destination_ports.is_some()
    }
}

/// Addresses that are held against those of a packet; with more of them, every packet counts as one of theirs.
const READ_MAX: usize = 16;

/// Of which packets protocol and ports are looked at on their way. Of the others they are left out of what is remembered,
/// so that all flows between two machines are one.
#[derive(Clone, Debug)]
enum Reads {
    None,
    /// Of those from or to one of these networks: rules are asked for the way back as well.
    Near {
        networks: Vec<Net>,
        /// Whether a rule looks at the port of the side that is in the network, and at that of the other side.
        own: bool,
        other: bool,
    },
    All,
}

/// The ports of a packet that its way depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PortsRead {
    pub(super) source: bool,
    pub(super) destination: bool,
}

impl PortsRead {
    /// The ports as far as they are read.
    #[inline]
    pub(super) const fn of(self, (source, destination): (u16, u16)) -> (u16, u16) {
        (if self.source { source } else { 0 }, if self.destination { destination } else { 0 })
    }
}

impl Reads {
    fn of<'c>(conditions: impl Iterator<Item = &'c Condition>) -> Self {
        let (mut networks, mut own, mut other) = (Vec::new(), false, false);
        for condition in conditions.filter(|condition| condition.reads_transport()) {
            let Some(from) = condition.from else { return Self::All };
            own |= condition.source_ports.is_some();
            other |= condition.destination_ports.is_some();
            if !networks.contains(&from) {
                networks.push(from);
            }
        }
        match networks.len() {
            0 => Self::None,
            1..=READ_MAX => Self::Near { networks, own, other },
            _ => Self::All,
        }
    }
}

/// Everything that routing knows.
#[derive(Clone, Debug)]
pub(super) struct Routing {
    local: (Networks<LocalKind>, Networks<LocalKind>),
    tables: Vec<Table>,
    /// By priority; of the same one, the earlier.
    rules: Vec<RuleEntry>,
    marks: Vec<(Condition, u32)>,
    /// Whether each device is up.
    pub(super) is_up: Vec<bool>,
    hashes: Hashes,
    /// Of which packets the way depends on protocol and ports.
    reads: Reads,
    /// Whether some route has several next hops.
    pub(super) has_spread: bool,
}

impl Routing {
    pub(super) fn new(devices: usize, salt: u64) -> Self {
        Self {
            local: (Networks::default(), Networks::default()),
            tables: vec![Table { number: TABLE_MAIN, ..Table::default() }],
            rules: Vec::new(),
            marks: Vec::new(),
            is_up: vec![true; devices],
            hashes: Hashes::new(salt),
            reads: Reads::None,
            has_spread: false,
        }
    }

    /// What the addresses of the machine make of the local table.
    pub(super) fn set_local(&mut self, entries: impl Iterator<Item = (Net, LocalKind)>) {
        self.local = (Networks::default(), Networks::default());
        for (net, kind) in entries {
            let networks = if net.address.is_v4() { &mut self.local.0 } else { &mut self.local.1 };
            if let Some(place) = networks.entry(net, || kind)
                && let LocalKind::Own(_) = kind
                && let LocalKind::Broadcast(_) = *place
            {
                *place = kind;
            }
        }
    }

    /// Replaces the routes to the networks of interfaces.
    pub(super) fn set_connected(&mut self, entries: impl Iterator<Item = Entry>) {
        for table in &mut self.tables {
            for networks in [&mut table.v4, &mut table.v6] {
                networks.retain(|routes| {
                    routes.retain(|route| !route.is_connected);
                    !routes.is_empty()
                });
            }
        }
        for entry in entries {
            self.add(TABLE_MAIN, entry);
        }
    }

    /// Adds a route, behind others of its metric.
    fn add(&mut self, number: u32, entry: Entry) {
        let Some(routes) = self.routes_mut(number, entry.net) else { return };
        let place = routes.partition_point(|route| route.metric <= entry.metric);
        routes.insert(place, entry);
    }

    /// Puts in a route, in place of the one with the same table, destination and metric.
    pub(super) fn set(&mut self, number: u32, mut entry: Entry) {
        if let Some(routes) = self.routes_mut(number, entry.net) {
            let same = |route: &Entry| route.metric == entry.metric && !route.is_connected;
            match routes.iter().position(same) {
                Some(place) => {
                    if let Some(old) = routes.get_mut(place) {
                        inherit(old, &mut entry);
                        *old = entry;
                    }
                }
                None => self.add(number, entry),
            }
        }
        self.look_around();
    }

    /// Takes routes out; says how many. Routes of interfaces' networks stay.
    pub(super) fn remove(&mut self, number: u32, net: Net, metric: Option<u32>) -> usize {
        let Some(routes) = self.routes_mut(number, net) else { return 0 };
        let before = routes.len();
        routes.retain(|route| route.is_connected || metric.is_some_and(|metric| metric != route.metric));
        let removed = before - routes.len();
        self.look_around();
        removed
    }

    /// Takes out routes whose source is no longer an address of the machine.
    pub(super) fn remove_of_source(&mut self, source: Ip) {
        for table in &mut self.tables {
            for networks in [&mut table.v4, &mut table.v6] {
                networks.retain(|routes| {
                    routes.retain(|route| route.is_connected || route.source != Some(source));
                    !routes.is_empty()
                });
            }
        }
        self.look_around();
    }

    /// Takes over from before a change of everything how flows are numbered, and where the buckets of routes that are
    /// still there lead.
    pub(super) fn take_over(&mut self, before: &Self) {
        self.hashes = before.hashes;
        for table in &mut self.tables {
            let Some(old) = before.tables.iter().find(|old| old.number == table.number) else { continue };
            for (old, new) in [(&old.v4, &mut table.v4), (&old.v6, &mut table.v6)] {
                for entry in new.values_mut().flatten() {
                    let known = old.values().flatten();
                    let same = |known: &&Entry| known.net == entry.net && known.metric == entry.metric;
                    if let Some(known) = known.into_iter().find(same) {
                        inherit(known, entry);
                    }
                }
            }
        }
    }

    /// Every bucket is free again.
    pub(super) fn forget_buckets(&mut self) {
        for table in &mut self.tables {
            for entry in table.v4.values_mut().chain(table.v6.values_mut()).flatten() {
                if let EntryKind::Unicast { chooser, .. } = &mut entry.kind {
                    chooser.forget();
                }
            }
        }
    }

    pub(super) fn add_rule(&mut self, rule: RuleEntry) {
        let place = self.rules.partition_point(|other| other.priority <= rule.priority);
        self.rules.insert(place, rule);
        self.look_around();
    }

    /// Takes out the rules of a priority; says how many.
    pub(super) fn remove_rules(&mut self, priority: u32) -> usize {
        let before = self.rules.len();
        self.rules.retain(|rule| rule.priority != priority);
        self.look_around();
        before - self.rules.len()
    }

    pub(super) fn add_mark(&mut self, condition: Condition, mark: u32) {
        self.marks.push((condition, mark));
        self.look_around();
    }

    /// A device has come up or gone down.
    pub(super) fn set_up(&mut self, device: DeviceId, is_up: bool) {
        if let Some(place) = self.is_up.get_mut(usize::from(device)) {
            *place = is_up;
        }
    }

    /// The mark that a packet gets.
    pub(super) fn mark(&self, flow: &Flow) -> u32 {
        let found = self.marks.iter().find(|(condition, _)| condition.fits(flow));
        found.map_or(flow.mark, |(_, mark)| *mark)
    }

    /// What the local table says of an address.
    pub(super) fn local(&self, address: Ip) -> Option<LocalKind> {
        let networks = if address.is_v4() { &self.local.0 } else { &self.local.1 };
        networks.matches(address).next().copied()
    }

    /// Whether an address is the machine's own.
    pub(super) fn is_own(&self, address: Ip) -> bool {
        matches!(self.local(address), Some(LocalKind::Own(_)))
    }

    /// The way of a flow; only over `device` where one is named.
    pub(super) fn lookup(&self, flow: &Flow, device: Option<DeviceId>) -> Found<'_> {
        match self.local(flow.destination) {
            Some(LocalKind::Own(owner)) => return Found::Local(owner),
            Some(LocalKind::Broadcast(owner)) => return Found::Broadcast(owner),
            None => {}
        }
        let mut has_seen_main = false;
        for rule in &self.rules {
            if rule.priority > PRIORITY_MAIN && !has_seen_main {
                has_seen_main = true;
                if let Some(found) = self.lookup_in(TABLE_MAIN, flow.destination, device) {
                    return found;
                }
            }
            if !rule.selector.fits(flow) {
                continue;
            }
            match rule.action {
                RuleAction::Lookup(number) => {
                    if let Some(found) = self.lookup_in(number, flow.destination, device) {
                        return found;
                    }
                }
                RuleAction::Blackhole => return Found::Blackhole,
                RuleAction::Unreachable => return Found::Unreachable,
                RuleAction::Prohibit => return Found::Prohibited,
            }
        }
        if has_seen_main {
            return Found::Nothing;
        }
        self.lookup_in(TABLE_MAIN, flow.destination, device).unwrap_or(Found::Nothing)
    }

    /// Which ports of packets between these addresses are looked at, and their protocol with them; `None` where neither is.
    pub(super) fn reads(&self, source: Ip, destination: Ip) -> Option<PortsRead> {
        match &self.reads {
            Reads::None => None,
            Reads::All => Some(PortsRead { source: true, destination: true }),
            Reads::Near { networks, own, other } => {
                let is_near = |address| networks.iter().any(|network| network.contains(address));
                let (from, to) = (is_near(source), is_near(destination));
                (from || to).then_some(PortsRead {
                    source: from && *own || to && *other,
                    destination: from && *other || to && *own,
                })
            }
        }
    }

    /// Whether rules besides those that are always there exist.
    pub(super) const fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// What one table says; `None` where it knows nothing.
    fn lookup_in(&self, number: u32, destination: Ip, device: Option<DeviceId>) -> Option<Found<'_>> {
        let table = self.tables.iter().find(|table| table.number == number)?;
        let networks = if destination.is_v4() { &table.v4 } else { &table.v6 };
        let usable =
            |routes: &'_ &Vec<Entry>| routes.iter().any(|route| route.is_usable(device, &self.is_up));
        let routes = networks.matches(destination).find(usable)?;
        let route = routes.iter().find(|route| route.is_usable(device, &self.is_up))?;
        Some(match route.kind {
            EntryKind::Unicast { .. } => Found::Unicast(route),
            EntryKind::Local => Found::Local(LOOPBACK),
            EntryKind::Blackhole => Found::Blackhole,
            EntryKind::Unreachable => Found::Unreachable,
            EntryKind::Prohibit => Found::Prohibited,
            EntryKind::Throw => return None,
        })
    }

    fn routes_mut(&mut self, number: u32, net: Net) -> Option<&mut Vec<Entry>> {
        let place = match self.tables.iter().position(|table| table.number == number) {
            Some(place) => place,
            None => {
                self.tables.push(Table { number, ..Table::default() });
                self.tables.len() - 1
            }
        };
        let table = self.tables.get_mut(place)?;
        let networks = if net.address.is_v4() { &mut table.v4 } else { &mut table.v6 };
        networks.entry(net, Vec::new)
    }

    /// Looks at what the ways of packets depend on.
    fn look_around(&mut self) {
        let (mut reads_ports, mut has_spread) = (false, false);
        for table in &self.tables {
            for entry in table.v4.values().chain(table.v6.values()).flatten() {
                if let EntryKind::Unicast { hops, key, .. } = &entry.kind
                    && hops.len() > 1
                {
                    has_spread = true;
                    reads_ports |= *key == SpreadKey::FiveTuple;
                }
            }
        }
        let marks_read = self.marks.iter().any(|(condition, _)| condition.reads_transport());
        self.reads = if reads_ports || marks_read {
            Reads::All
        } else {
            Reads::of(self.rules.iter().map(|rule| &rule.selector))
        };
        self.has_spread = has_spread;
    }
}

/// A route that replaces another takes over where its buckets lead.
fn inherit(old: &Entry, new: &mut Entry) {
    if let EntryKind::Unicast { hops: old_hops, chooser: old_chooser, .. } = &old.kind
        && let EntryKind::Unicast { hops, chooser, .. } = &mut new.kind
    {
        chooser.inherit(old_chooser, old_hops, hops);
    }
}
