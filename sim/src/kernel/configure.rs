//! Making a network stack from its plan, and changing it while it runs.

use std::net::IpAddr;

use evenkeel_engine::Instant;
use evenkeel_engine::plan::Prefix;

use super::address::{Ip, Net, link_local};
use super::nat::Nat;
use super::plan::{
    Hop, Interface, KernelPlan, MTU_MIN_BYTES, Masquerade, Outlet, Route, RouteKind, Rule, Selector, Spread,
    SpreadKey, Sysctl, Tun,
};
use super::routes::{Condition, DeviceId, Entry, EntryKind, LOOPBACK, LocalKind, Next, RuleEntry};
use super::selection::flow_to;
use super::spread::Chooser;
use super::{Device, DeviceKind, Kernel, KernelDrop, Out, Own};

/// The metric of routes to an interface's own network with IPv6, as in Linux.
const METRIC_V6: u32 = 256;

/// Why something about a network stack cannot be so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A device is named that is not there.
    #[error("{device:?} does not exist: the machine has {interfaces} interfaces and {tuns} TUN devices")]
    NoDevice {
        /// What was named.
        device: Outlet,
        /// Interfaces that are there.
        interfaces: usize,
        /// TUN devices that are there.
        tuns: usize,
    },
    /// A router is on no link of the machine.
    #[error(
        "the gateway {gateway} of the route to {destination}/{length} is on no link of the machine; name an interface in \
         whose network it is"
    )]
    Gateway {
        /// The router.
        gateway: IpAddr,
        /// The route's destination.
        destination: IpAddr,
        /// The length of its network.
        length: u8,
    },
    /// A route has no next hop, or one without a gateway and without a device.
    #[error(
        "the route to {destination}/{length} has a next hop with neither gateway nor device, or none at all"
    )]
    NoHop {
        /// The route's destination.
        destination: IpAddr,
        /// The length of its network.
        length: u8,
    },
    /// A link takes less than IPv4 needs.
    #[error("an MTU of {mtu_bytes} bytes is too small: 68 is the least for IPv4, 1,280 for IPv6")]
    Mtu {
        /// What was asked for.
        mtu_bytes: u16,
    },
    /// Something is not there that was to be taken away.
    #[error("{0} is not there")]
    Missing(String),
}

/// The devices of a plan: interfaces, TUN devices, ends of tunnels.
pub(super) fn devices(plan: &KernelPlan) -> Vec<Device> {
    let interface = |interface: &Interface| Device {
        kind: DeviceKind::Ethernet(interface.mac),
        mtu: interface.mtu_bytes,
        addresses: Vec::new(),
        link_local: Some(link_local(interface.mac)),
        is_on: true,
        has_carrier: true,
        sysctl: interface.sysctl,
        joined: join(plan.all, interface.sysctl),
    };
    let tun = |(number, tun): (usize, &Tun)| Device {
        kind: DeviceKind::Tun(u16::try_from(number).unwrap_or(u16::MAX)),
        mtu: tun.mtu_bytes,
        addresses: Vec::new(),
        link_local: None,
        is_on: true,
        has_carrier: true,
        sysctl: tun.sysctl,
        joined: join(plan.all, tun.sysctl),
    };
    let tunnel = |tunnel: &super::Tunnel| Device {
        kind: DeviceKind::Tunnel(tunnel.clone()),
        mtu: u16::MAX,
        addresses: Vec::new(),
        link_local: None,
        is_on: true,
        has_carrier: true,
        sysctl: tunnel.sysctl,
        joined: join(plan.all, tunnel.sysctl),
    };
    let interfaces = plan.interfaces.iter().map(interface);
    interfaces.chain(plan.tuns.iter().enumerate().map(tun)).chain(plan.tunnels.iter().map(tunnel)).collect()
}

pub(super) fn loopback(plan: &KernelPlan) -> Device {
    Device {
        kind: DeviceKind::Loopback,
        mtu: u16::MAX,
        addresses: Vec::new(),
        link_local: None,
        is_on: true,
        has_carrier: true,
        sysctl: Sysctl::default(),
        joined: plan.all,
    }
}

/// What holds for an interface (`IN_DEV_MAXCONF`, `IN_DEV_ORCONF`).
fn join(all: Sysctl, own: Sysctl) -> Sysctl {
    Sysctl {
        arp_ignore: all.arp_ignore.max(own.arp_ignore),
        arp_announce: all.arp_announce.max(own.arp_announce),
        arp_accept: all.arp_accept || own.arp_accept,
        arp_filter: all.arp_filter || own.arp_filter,
        arp_notify: all.arp_notify || own.arp_notify,
        rp_filter: all.rp_filter.max(own.rp_filter),
        proxy_arp: all.proxy_arp || own.proxy_arp,
        accept_local: all.accept_local || own.accept_local,
        route_localnet: all.route_localnet || own.route_localnet,
    }
}

impl Kernel {
    pub(super) fn apply(&mut self, plan: &KernelPlan) -> Result<(), KernelError> {
        for prefix in &plan.loopback {
            self.put_address(LOOPBACK, *prefix);
        }
        let interfaces = plan.interfaces.iter().map(|interface| (interface.mtu_bytes, &interface.addresses));
        let tuns = plan.tuns.iter().map(|tun| (tun.mtu_bytes, &tun.addresses));
        for (device, (mtu_bytes, addresses)) in (0..).zip(interfaces.chain(tuns)) {
            if mtu_bytes < MTU_MIN_BYTES {
                return Err(KernelError::Mtu { mtu_bytes });
            }
            for prefix in addresses {
                self.put_address(device, *prefix);
            }
        }
        self.refresh();
        for route in &plan.routes {
            self.set_route(route)?;
        }
        for rule in &plan.rules {
            self.add_rule(rule)?;
        }
        for marking in &plan.marks {
            let condition = self.resolve_selector(&marking.selector)?;
            self.routing.add_mark(condition, marking.mark);
        }
        for (interface, address) in &plan.proxies {
            self.add_proxy(*interface, *address)?;
        }
        self.set_masquerade(&plan.masquerade)
    }

    /// Gives a device an address, behind those that it has (`ip address add`). Neighbours are told of it where `arp_notify`
    /// says so.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn add_address(
        &mut self,
        now: Instant,
        outlet: Outlet,
        prefix: Prefix,
        out: &mut Out,
    ) -> Result<(), KernelError> {
        let device = self.resolve(outlet)?;
        self.put_address(device, prefix);
        self.refresh();
        if self.device(device).joined.arp_notify {
            self.announce_on(now, device, prefix.address.into(), out);
        }
        Ok(())
    }

    /// Takes an address from a device, and routes with it that have it as their source (`ip address del`). Of several
    /// addresses in its network the next becomes the primary one, as with `promote_secondaries`.
    ///
    /// # Errors
    /// When there is no such device, or it has no such address.
    pub fn remove_address(&mut self, outlet: Outlet, address: IpAddr) -> Result<(), KernelError> {
        let device = self.resolve(outlet)?;
        let Some(place) = self.device_mut(device) else { return Ok(()) };
        let before = place.addresses.len();
        place.addresses.retain(|own| own.net.address != address.into());
        if place.addresses.len() == before {
            return Err(KernelError::Missing(format!("address {address} on {outlet:?}")));
        }
        rank(&mut place.addresses);
        self.refresh();
        if !self.routing.is_own(address.into()) {
            self.routing.remove_of_source(address.into());
        }
        Ok(())
    }

    /// Tells a network by gratuitous ARP, or an unsolicited neighbour advertisement, that this machine has an address: as
    /// `arping -U` does, or a cluster that has taken it over.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn announce(
        &mut self,
        now: Instant,
        interface: usize,
        address: IpAddr,
        out: &mut Out,
    ) -> Result<(), KernelError> {
        let device = self.resolve(Outlet::Interface(interface))?;
        self.announce_on(now, device, address.into(), out);
        Ok(())
    }

    /// Puts in a route, in place of one with the same table, destination and metric (`ip route replace`).
    ///
    /// # Errors
    /// When it names a device that is not there, or a router that is on no link.
    pub fn set_route(&mut self, route: &Route) -> Result<(), KernelError> {
        let kind = match &route.kind {
            RouteKind::Unicast { hops, spread } => self.resolve_hops(route, hops, *spread)?,
            RouteKind::Local => EntryKind::Local,
            RouteKind::Blackhole => EntryKind::Blackhole,
            RouteKind::Unreachable => EntryKind::Unreachable,
            RouteKind::Prohibit => EntryKind::Prohibit,
            RouteKind::Throw => EntryKind::Throw,
        };
        let net = Net::from(route.destination);
        let net = Net { address: net.base(), length: net.length };
        let source = route.source.map(Ip::from);
        let entry = Entry { net, kind, metric: route.metric, source, is_connected: false };
        self.routing.set(route.table, entry);
        self.cache.clear();
        Ok(())
    }

    /// Takes a route out (`ip route del`), of any metric where none is named.
    ///
    /// # Errors
    /// When there is none.
    pub fn remove_route(
        &mut self,
        table: u32,
        destination: Prefix,
        metric: Option<u32>,
    ) -> Result<(), KernelError> {
        let net = Net::from(destination);
        let removed = self.routing.remove(table, Net { address: net.base(), length: net.length }, metric);
        self.cache.clear();
        if removed == 0 {
            let Prefix { address, length } = destination;
            return Err(KernelError::Missing(format!("a route to {address}/{length} in table {table}")));
        }
        Ok(())
    }

    /// Adds a rule, behind others of its priority (`ip rule add`).
    ///
    /// # Errors
    /// When it names a device that is not there.
    pub fn add_rule(&mut self, rule: &Rule) -> Result<(), KernelError> {
        let selector = self.resolve_selector(&rule.selector)?;
        self.routing.add_rule(RuleEntry { priority: rule.priority, selector, action: rule.action });
        self.cache.clear();
        Ok(())
    }

    /// Takes out the rules of a priority (`ip rule del`).
    ///
    /// # Errors
    /// When there is none.
    pub fn remove_rules(&mut self, priority: u32) -> Result<(), KernelError> {
        let removed = self.routing.remove_rules(priority);
        self.cache.clear();
        if removed == 0 {
            return Err(KernelError::Missing(format!("a rule with priority {priority}")));
        }
        Ok(())
    }

    /// Answers for an address of somebody else on an interface (`ip neigh add proxy`), at once (`proxy_delay` 0).
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn add_proxy(&mut self, interface: usize, address: IpAddr) -> Result<(), KernelError> {
        let device = self.resolve(Outlet::Interface(interface))?;
        let proxy = (device, Ip::from(address));
        if let Err(place) = self.proxies.binary_search(&proxy) {
            self.proxies.insert(place, proxy);
        }
        Ok(())
    }

    /// No longer answers for an address.
    ///
    /// # Errors
    /// When it does not.
    pub fn remove_proxy(&mut self, interface: usize, address: IpAddr) -> Result<(), KernelError> {
        let device = self.resolve(Outlet::Interface(interface))?;
        let Ok(place) = self.proxies.binary_search(&(device, Ip::from(address))) else {
            return Err(KernelError::Missing(format!("a proxy entry for {address}")));
        };
        self.proxies.remove(place);
        Ok(())
    }

    /// Changes the settings of a device, or of `all` where none is named.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn set_sysctl(&mut self, outlet: Option<Outlet>, sysctl: Sysctl) -> Result<(), KernelError> {
        match outlet {
            None => self.all = sysctl,
            Some(outlet) => {
                let device = self.resolve(outlet)?;
                if let Some(device) = self.device_mut(device) {
                    device.sysctl = sysctl;
                }
            }
        }
        let all = self.all;
        for device in self.devices.iter_mut().chain([&mut self.loopback]) {
            device.joined = join(all, device.sysctl);
        }
        self.cache.clear();
        Ok(())
    }

    /// Switches forwarding on or off.
    pub fn set_forwarding(&mut self, v4: bool, v6: bool) {
        (self.forwards_v4, self.forwards_v6) = (v4, v6);
        self.cache.clear();
    }

    /// Says on which interfaces there is source NAT. Mappings of one that stays as it is stay, others are forgotten.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn set_masquerade(&mut self, masquerade: &[Masquerade]) -> Result<(), KernelError> {
        let mut nats = Vec::with_capacity(masquerade.len());
        for plan in masquerade {
            let device = self.resolve(Outlet::Interface(plan.interface))?;
            let known = self.nats.iter().position(|nat| nat.plan == *plan);
            nats.push(
                known.map_or_else(|| Nat::new(plan.clone(), device), |place| self.nats.swap_remove(place)),
            );
        }
        self.nats = nats;
        self.cache.clear();
        Ok(())
    }

    /// Switches a device on or off (`ip link set`). While it is off its addresses are nobody's, routes over it are not
    /// taken, and its neighbours are forgotten. Its routes are there again when it comes back, as a network manager sees to.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn set_up(
        &mut self,
        now: Instant,
        outlet: Outlet,
        is_up: bool,
        out: &mut Out,
    ) -> Result<(), KernelError> {
        let device = self.resolve(outlet)?;
        if let Some(place) = self.device_mut(device) {
            place.is_on = is_up;
        }
        self.look_at_link(device, out);
        self.refresh();
        if is_up {
            self.notify(now, usize::from(device), out);
        }
        Ok(())
    }

    /// The cable of an interface is dead, or alive again. While it is dead routes over it are not taken, as with
    /// `ignore_routes_with_linkdown`, and its neighbours are forgotten; its addresses stay the machine's.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn set_carrier(
        &mut self,
        now: Instant,
        interface: usize,
        has_carrier: bool,
        out: &mut Out,
    ) -> Result<(), KernelError> {
        let device = self.resolve(Outlet::Interface(interface))?;
        if let Some(place) = self.device_mut(device) {
            place.has_carrier = has_carrier;
        }
        self.look_at_link(device, out);
        if has_carrier {
            self.notify(now, interface, out);
        }
        Ok(())
    }

    /// Routing learns whether a device can be used; neighbours behind one that can not are forgotten.
    fn look_at_link(&mut self, device: DeviceId, out: &mut Out) {
        let is_up = self.device(device).is_up();
        self.routing.set_up(device, is_up);
        self.cache.clear();
        if !is_up {
            self.forget_neighbours(device, out);
        }
    }

    fn forget_neighbours(&mut self, device: DeviceId, out: &mut Out) {
        for packet in self.neighbours.flush(device) {
            self.counts.waiting -= 1;
            self.end(KernelDrop::InterfaceDown, packet, out);
        }
    }

    /// Begins anew, as after a crash: neighbours, fragments that wait, mappings of source NAT and every way that was found
    /// are forgotten. Configuration and counts stay.
    pub fn restart(&mut self, out: &mut Out) {
        for device in (0..self.devices.len()).filter_map(|device| DeviceId::try_from(device).ok()) {
            self.forget_neighbours(device, out);
        }
        self.forget_assemblies(out);
        let nats = std::mem::take(&mut self.nats);
        self.nats = nats.into_iter().map(Nat::emptied).collect();
        self.routing.forget_buckets();
        self.cache.clear();
    }

    /// Goes on by another plan for the same interfaces. Neighbours, links that are down, fragments, mappings of source NAT
    /// and the buckets of routes that stay are kept.
    ///
    /// # Errors
    /// When the plan can not be, as in [`Kernel::new`]; nothing has changed then.
    pub fn reconfigure(&mut self, plan: &KernelPlan) -> Result<(), KernelError> {
        let mut next = Self::new(plan, 0)?;
        next.routing.take_over(&self.routing);
        let interfaces = self.interfaces.min(next.interfaces);
        for (number, (new, old)) in next.devices.iter_mut().zip(&self.devices).take(interfaces).enumerate() {
            (new.is_on, new.has_carrier) = (old.is_on, old.has_carrier);
            next.routing.set_up(DeviceId::try_from(number).unwrap_or(LOOPBACK), old.is_up());
        }
        std::mem::swap(&mut next.neighbours, &mut self.neighbours);
        std::mem::swap(&mut next.timers, &mut self.timers);
        std::mem::swap(&mut next.limiter, &mut self.limiter);
        std::mem::swap(&mut next.assemblies, &mut self.assemblies);
        std::mem::swap(&mut next.draw, &mut self.draw);
        std::mem::swap(&mut next.counts, &mut self.counts);
        std::mem::swap(&mut next.nats, &mut self.nats);
        next.set_masquerade(&plan.masquerade)?;
        (next.deadline, next.drawn) = (self.deadline, self.drawn);
        next.identification = self.identification;
        next.refresh();
        *self = next;
        Ok(())
    }

    /// Tells the network of a device of its addresses, where `arp_notify` says so.
    pub(super) fn notify(&mut self, now: Instant, device: usize, out: &mut Out) {
        let Some(found) = self.devices.get(device).filter(|device| device.joined.arp_notify) else { return };
        let addresses: Vec<Ip> = found.addresses.iter().map(|own| own.net.address).collect();
        let Ok(device) = DeviceId::try_from(device) else { return };
        for address in addresses {
            self.announce_on(now, device, address, out);
        }
    }

    pub(super) fn resolve(&self, outlet: Outlet) -> Result<DeviceId, KernelError> {
        let found = match outlet {
            Outlet::Interface(number) => Some(number).filter(|number| *number < self.interfaces),
            Outlet::Tun(number) => Some(number).filter(|n| *n < self.tuns).map(|n| self.interfaces + n),
            Outlet::Tunnel(number) => {
                Some(self.interfaces + self.tuns + number).filter(|n| *n < self.devices.len())
            }
            Outlet::Loopback => return Ok(LOOPBACK),
        };
        let found = found.and_then(|found| DeviceId::try_from(found).ok());
        found.ok_or(KernelError::NoDevice { device: outlet, interfaces: self.interfaces, tuns: self.tuns })
    }

    fn resolve_hops(&self, route: &Route, hops: &[Hop], spread: Spread) -> Result<EntryKind, KernelError> {
        let Prefix { address: destination, length } = route.destination;
        let mut next = Vec::with_capacity(hops.len());
        for hop in hops {
            let named = hop.outlet.map(|outlet| self.resolve(outlet)).transpose()?;
            let device = match (hop.gateway, named) {
                (None, Some(device)) => device,
                (None, None) => return Err(KernelError::NoHop { destination, length }),
                (Some(gateway), named) => self
                    .device_to(gateway.into(), named, hop.is_on_link)
                    .ok_or(KernelError::Gateway { gateway, destination, length })?,
            };
            next.push(Next { gateway: hop.gateway.map(Ip::from), device, weight: hop.weight });
        }
        if next.is_empty() {
            return Err(KernelError::NoHop { destination, length });
        }
        let chooser = Chooser::new(spread.choice, next.len());
        Ok(EntryKind::Unicast { hops: next, key: spread.key, chooser })
    }

    /// The device on whose link a router is.
    fn device_to(&self, gateway: Ip, named: Option<DeviceId>, is_on_link: bool) -> Option<DeviceId> {
        let is_near = |device: &DeviceId| {
            is_on_link
                || gateway.is_link_local()
                || self.device(*device).addresses.iter().any(|own| own.net.contains(gateway))
        };
        if named.is_some() {
            return named.filter(is_near);
        }
        let super::routes::Found::Unicast(entry) = self.routing.lookup(&flow_to(gateway), None) else {
            return self.dead_device_to(gateway);
        };
        let EntryKind::Unicast { hops, .. } = &entry.kind else { return None };
        let direct = hops.first().filter(|hop| hop.gateway.is_none()).map(|hop| hop.device);
        direct.or_else(|| self.dead_device_to(gateway))
    }

    /// The same where its cable is dead for now: the route is there, and taken once the cable is alive again.
    fn dead_device_to(&self, gateway: Ip) -> Option<DeviceId> {
        let is_dead = |device: &Device| device.is_on && !device.has_carrier;
        let is_near = |device: &Device| device.addresses.iter().any(|own| own.net.contains(gateway));
        let mut numbered = (0..).zip(&self.devices);
        numbered.find(|(_, device)| is_dead(device) && is_near(device)).map(|(id, _)| id)
    }

    fn resolve_selector(&self, selector: &Selector) -> Result<Condition, KernelError> {
        let ports = |range: &std::ops::RangeInclusive<u16>| (*range.start(), *range.end());
        Ok(Condition {
            family: selector.family,
            inlet: selector.inlet.map(|inlet| self.resolve(inlet)).transpose()?,
            from: selector.from.map(Net::from),
            to: selector.to.map(Net::from),
            protocol: selector.protocol,
            source_ports: selector.source_ports.as_ref().map(ports),
            destination_ports: selector.destination_ports.as_ref().map(ports),
            mark: selector.mark,
        })
    }

    fn device_mut(&mut self, id: DeviceId) -> Option<&mut Device> {
        if id == LOOPBACK { Some(&mut self.loopback) } else { self.devices.get_mut(usize::from(id)) }
    }

    fn put_address(&mut self, device: DeviceId, prefix: Prefix) {
        let net = Net::from(prefix);
        let Some(device) = self.device_mut(device) else { return };
        if device.addresses.iter().any(|own| own.net == net) {
            return;
        }
        device.addresses.push(Own { net, is_secondary: false });
        rank(&mut device.addresses);
    }

    /// Makes anew what follows from the addresses: the local table and the routes to interfaces' networks.
    fn refresh(&mut self) {
        let mut local = Vec::new();
        let mut connected = Vec::new();
        for prefix in ["127.0.0.0/8", "::1/128"].iter().filter_map(|text| parse(text)) {
            local.push((prefix, LocalKind::Own(LOOPBACK)));
        }
        for own in &self.loopback.addresses {
            local.push((host(own.net.address), LocalKind::Own(LOOPBACK)));
            if own.net.address.is_v4() {
                local.push((own.net, LocalKind::Own(LOOPBACK)));
            }
        }
        for (id, device) in (0..).zip(&self.devices) {
            if !device.is_on {
                continue;
            }
            let addresses = device.addresses.iter().map(|own| own.net.address).chain(device.link_local);
            local.extend(addresses.map(|address| (host(address), LocalKind::Own(id))));
            for own in device.addresses.iter().filter(|own| !own.net.is_host() && !own.is_secondary) {
                connected.push(entry_of(own.net, id));
                // RFC 3021: a network of two addresses has no broadcast one.
                if own.net.address.is_v4() && own.net.length < 127 {
                    local.push((host(own.net.last()), LocalKind::Broadcast(id)));
                }
            }
        }
        self.routing.set_local(local.into_iter());
        self.routing.set_connected(connected.into_iter());
        self.cache.clear();
    }
}

/// Marks addresses as secondary that have an earlier one in their network.
fn rank(addresses: &mut [Own]) {
    let mut seen: Vec<(Ip, u8)> = Vec::new();
    for own in addresses {
        let network = (own.net.base(), own.net.length);
        own.is_secondary = own.net.address.is_v4() && seen.contains(&network);
        seen.push(network);
    }
}

/// The route to the network of an address.
fn entry_of(net: Net, device: DeviceId) -> Entry {
    let hop = Next { gateway: None, device, weight: 1 };
    let is_v4 = net.address.is_v4();
    Entry {
        net: Net { address: net.base(), length: net.length },
        kind: EntryKind::Unicast {
            hops: vec![hop],
            key: SpreadKey::default(),
            chooser: Chooser::HashThreshold,
        },
        metric: if is_v4 { 0 } else { METRIC_V6 },
        source: is_v4.then_some(net.address),
        is_connected: true,
    }
}

const fn host(address: Ip) -> Net {
    Net { address, length: 128 }
}

fn parse(text: &str) -> Option<Net> {
    let (address, length) = text.split_once('/')?;
    Some(Prefix { address: address.parse().ok()?, length: length.parse().ok()? }.into())
}
