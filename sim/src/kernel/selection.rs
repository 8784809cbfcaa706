//! Which address of its own a machine uses, and which it answers for, as `net/ipv4/devinet.c` of Linux does it.

use std::net::IpAddr;

use evenkeel_engine::wire::Protocol;

use super::address::Ip;
use super::routes::{DeviceId, Entry, EntryKind, Flow, Found, LOOPBACK};
use super::{Device, Kernel, Own};

/// How far an address reaches, as a number: the higher, the less far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    Universe,
    Link,
    Host,
}

pub(super) const fn scope(address: Ip) -> Scope {
    if address.is_loopback() {
        Scope::Host
    } else if address.is_link_local() {
        Scope::Link
    } else {
        Scope::Universe
    }
}

/// A flow of the machine itself, of which only the destination is known.
pub(super) const fn flow_to(destination: Ip) -> Flow {
    let source = if destination.is_v4() { Ip::V4_ANY } else { Ip::V6_ANY };
    Flow { inlet: LOOPBACK, source, destination, protocol: Protocol(0), ports: (0, 0), mark: 0 }
}

impl Kernel {
    /// The source of a packet to `destination` whose sender leaves it open.
    pub(super) fn select_source(&self, destination: Ip) -> Option<Ip> {
        match self.routing.lookup(&flow_to(destination), None) {
            Found::Local(_) => Some(destination),
            Found::Broadcast(device) => self.select_on(device, destination),
            Found::Unicast(entry) => self.source_of_route(entry, destination),
            Found::Blackhole | Found::Unreachable | Found::Prohibited | Found::Nothing => None,
        }
    }

    fn source_of_route(&self, entry: &Entry, destination: Ip) -> Option<Ip> {
        if entry.source.is_some() {
            return entry.source;
        }
        let EntryKind::Unicast { hops, .. } = &entry.kind else { return None };
        let is_up = |device: DeviceId| self.routing.is_up.get(usize::from(device)) == Some(&true);
        let hop = hops.iter().find(|hop| is_up(hop.device))?;
        // Linux looks for an address near the router with IPv4, and near the destination with IPv6 (RFC 6724 s.5).
        let target = hop.gateway.filter(|_| destination.is_v4()).unwrap_or(destination);
        self.select_on(hop.device, target)
    }

    /// The best address of a device for a target (`inet_select_addr`, scope link).
    pub(super) fn select_on(&self, device: DeviceId, target: Ip) -> Option<Ip> {
        let is_v4 = target.is_v4();
        if !is_v4 && target.is_link_local() {
            return self.device(device).link_local;
        }
        let fits = |own: &&Own| {
            own.net.address.is_v4() == is_v4 && !own.is_secondary && scope(own.net.address) != Scope::Host
        };
        let own = &self.device(device).addresses;
        if is_v4 {
            let found = own.iter().filter(fits).find(|own| own.net.contains(target));
            let found = found.or_else(|| own.iter().find(fits));
            return found.or_else(|| self.any_address(fits)).map(|own| own.net.address);
        }
        // RFC 6724 s.5, rule 8: the longest common prefix, on the way out first.
        let common = |own: &&Own| (own.net.address.0 ^ target.0).leading_zeros();
        let best = own.iter().filter(fits).rev().max_by_key(common);
        best.or_else(|| self.any_address(fits)).map(|own| own.net.address)
    }

    /// An address of any device; those of the loopback interface come first.
    fn any_address(&self, fits: impl Fn(&&Own) -> bool) -> Option<&Own> {
        let devices = std::iter::once(&self.loopback).chain(&self.devices);
        devices.flat_map(|device| &device.addresses).find(fits)
    }

    /// Whether a request for `target` from `sender` is to stay unanswered (`arp_ignore`).
    pub(super) fn ignores_request(&self, device: DeviceId, sender: Ip, target: Ip) -> bool {
        let inlet = self.device(device);
        match inlet.joined.arp_ignore {
            1 => !inlet.addresses.iter().any(|own| own.net.address == target),
            2 => !is_own_and_near(inlet, sender, target),
            3 => {
                let mut all =
                    self.devices.iter().chain([&self.loopback]).flat_map(|device| &device.addresses);
                let is_there = all.any(|own| own.net.address == target && scope(target) <= Scope::Link);
                !is_there
            }
            8 => true,
            _ => false,
        }
    }

    /// Whether packets to `sender` would not leave by this device (`arp_filter`).
    pub(super) fn filters_request(&self, device: DeviceId, sender: Ip) -> bool {
        if !self.device(device).joined.arp_filter {
            return false;
        }
        match self.routing.lookup(&flow_to(sender), None) {
            Found::Unicast(entry) => !entry.uses(device),
            Found::Local(_)
            | Found::Broadcast(_)
            | Found::Blackhole
            | Found::Unreachable
            | Found::Prohibited
            | Found::Nothing => true,
        }
    }

    /// The source of a request for `target`, for the sake of a packet from `packet_source` (`arp_announce`).
    pub(super) fn announced_source(
        &self,
        device: DeviceId,
        target: Ip,
        packet_source: Option<Ip>,
    ) -> Option<Ip> {
        let own = packet_source.filter(|source| self.routing.is_own(*source));
        let chosen = match self.device(device).joined.arp_announce {
            0 => own,
            1 => own.filter(|source| {
                let mut nets = self.device(device).addresses.iter().map(|own| own.net);
                nets.any(|net| net.contains(target) && net.contains(*source))
            }),
            _ => None,
        };
        chosen.or_else(|| self.select_on(device, target))
    }

    /// The MTU of the link that leads to a destination.
    pub(super) fn link_mtu(&self, destination: Ip) -> Option<u16> {
        match self.routing.lookup(&flow_to(destination), None) {
            Found::Local(_) => Some(u16::MAX),
            Found::Broadcast(device) => Some(self.device(device).mtu),
            Found::Unicast(entry) => {
                let EntryKind::Unicast { hops, .. } = &entry.kind else { return None };
                hops.iter().map(|hop| self.device(hop.device).mtu).min()
            }
            Found::Blackhole | Found::Unreachable | Found::Prohibited | Found::Nothing => None,
        }
    }

    /// The addresses of an interface, for those who look on.
    #[must_use]
    pub fn addresses(&self, interface: usize) -> Vec<IpAddr> {
        let device = self.devices.get(interface);
        device.into_iter().flat_map(|device| &device.addresses).map(|own| own.net.address.into()).collect()
    }
}

/// Whether the target is an address of the device, in whose network the sender is too (`confirm_addr_indev`).
fn is_own_and_near(device: &Device, sender: Ip, target: Ip) -> bool {
    let has_target = device.addresses.iter().any(|own| own.net.address == target);
    let near = |own: &Own| own.net.contains(target) && (sender.is_unspecified() || own.net.contains(sender));
    has_target && device.addresses.iter().any(near)
}
