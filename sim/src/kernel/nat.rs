//! The source NAT of a home router: whoever is inside shares the address of the interface to the outside.
//!
//! ```text
//! inside:40000 -> server:80   becomes   outside:40000 -> server:80      (or the next free port)
//! server:80 -> outside:40000  becomes   server:80 -> inside:40000       (or from anybody else)
//! ```
//! A mapping belongs to a protocol and an address and port inside, whatever the destination (RFC 4787 s.4.1).

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{Duration, Instant};
use slab::Slab;

use crate::packet::Packet;

use super::address::Ip;
use super::ip::{self, Head, V4_BYTES};
use super::plan::Masquerade;
use super::routes::DeviceId;
use super::{Kernel, KernelDrop};

/// Peers that a mapping remembers, for filtering: as many as a peer-to-peer program talks to at a time.
const PEERS_MAX: usize = 256;
/// Flags of TCP.
const FIN: u8 = 1;
const RST: u8 = 4;

type Inside = (Protocol, Ip, u16);

#[derive(Debug)]
struct Mapping {
    inside: Inside,
    port: u16,
    expires: Instant,
    /// Whether a connection of TCP is being made or has ended.
    is_transitory: bool,
    /// What has been sent from outside too.
    is_answered: bool,
    peers: BTreeSet<Ip>,
}

/// Source NAT with its mappings.
#[derive(Debug)]
pub(super) struct Nat {
    pub(super) plan: Masquerade,
    device: DeviceId,
    mappings: Slab<Mapping>,
    by_inside: BTreeMap<Inside, usize>,
    by_port: BTreeMap<(Protocol, u16), usize>,
    last_sweep: Instant,
}

/// The least time between two looks for mappings that have ended, while there is room.
const SWEEP: Duration = Duration::from_secs(10);

impl Nat {
    pub(super) const fn new(plan: Masquerade, device: DeviceId) -> Self {
        Self {
            plan,
            device,
            mappings: Slab::new(),
            by_inside: BTreeMap::new(),
            by_port: BTreeMap::new(),
            last_sweep: Instant::ZERO,
        }
    }

    /// The same without a mapping.
    pub(super) fn emptied(self) -> Self {
        Self::new(self.plan, self.device)
    }

    pub(super) fn len(&self) -> usize {
        self.mappings.len()
    }

    /// The port outside for who sends from inside, made where there is none.
    fn outside(&mut self, now: Instant, inside: Inside, peer: Ip, flags: u8) -> Option<u16> {
        let known = self.by_inside.get(&inside).copied();
        let known = known.filter(|place| self.mappings.get(*place).is_some_and(|one| one.expires > now));
        let place = match known {
            Some(place) => place,
            None => self.make(now, inside)?,
        };
        self.touch(now, place, peer, flags, true);
        self.mappings.get(place).map(|mapping| mapping.port)
    }

    /// Who is inside behind a port, if `peer` may send there.
    fn inside(
        &mut self,
        now: Instant,
        key: (Protocol, u16),
        peer: Ip,
        flags: u8,
    ) -> Result<Option<Inside>, KernelDrop> {
        let Some(place) = self.by_port.get(&key).copied() else { return Ok(None) };
        let Some(mapping) = self.mappings.get(place).filter(|mapping| mapping.expires > now) else {
            return Ok(None);
        };
        if self.plan.is_filtering && !mapping.peers.contains(&peer) {
            return Err(KernelDrop::NatFiltered);
        }
        let inside = mapping.inside;
        self.touch(now, place, peer, flags, false);
        Ok(Some(inside))
    }

    /// The same for an ICMP error about a packet that went out, which lets no mapping live longer (RFC 5508 s.3.1).
    fn inside_of_error(&self, now: Instant, key: (Protocol, u16)) -> Option<Inside> {
        let place = *self.by_port.get(&key)?;
        self.mappings.get(place).filter(|mapping| mapping.expires > now).map(|mapping| mapping.inside)
    }

    fn port_of(&self, inside: Inside) -> Option<u16> {
        let place = *self.by_inside.get(&inside)?;
        self.mappings.get(place).map(|mapping| mapping.port)
    }

    fn make(&mut self, now: Instant, inside: Inside) -> Option<usize> {
        let is_full = self.mappings.len() >= self.plan.mappings_max;
        if is_full || now.since(self.last_sweep) >= SWEEP || self.by_inside.contains_key(&inside) {
            self.sweep(now);
        }
        if self.mappings.len() >= self.plan.mappings_max {
            return None;
        }
        let port = self.free_port(inside.0, inside.2)?;
        let mapping = Mapping {
            inside,
            port,
            expires: now,
            is_transitory: true,
            is_answered: false,
            peers: BTreeSet::new(),
        };
        let place = self.mappings.insert(mapping);
        self.by_inside.insert(inside, place);
        self.by_port.insert((inside.0, port), place);
        Some(place)
    }

    /// The sender's own port where it is free, else the next free one above, and from the start again.
    fn free_port(&self, protocol: Protocol, wanted: u16) -> Option<u16> {
        let (first, last) = (*self.plan.ports.start(), *self.plan.ports.end());
        let from = if self.plan.ports.contains(&wanted) { wanted } else { first };
        let search = |from: u16, to: u16| {
            let mut next = from;
            for (_, port) in self.by_port.range((protocol, from)..=(protocol, to)).map(|(key, _)| *key) {
                if port != next {
                    break;
                }
                if next == to {
                    return None;
                }
                next += 1;
            }
            (from <= to).then_some(next)
        };
        search(from, last).or_else(|| search(first, from.checked_sub(1)?))
    }

    fn touch(&mut self, now: Instant, place: usize, peer: Ip, flags: u8, is_outward: bool) {
        let Some(mapping) = self.mappings.get_mut(place) else { return };
        mapping.is_answered |= !is_outward;
        if is_outward && self.plan.is_filtering && mapping.peers.len() < PEERS_MAX {
            mapping.peers.insert(peer);
        }
        mapping.is_transitory = flags & (FIN | RST) != 0 || !mapping.is_answered;
        let lives = match mapping.inside.0 {
            Protocol::TCP if mapping.is_transitory => self.plan.tcp_transitory,
            Protocol::TCP => self.plan.tcp_established,
            Protocol::UDP => self.plan.udp,
            _ => self.plan.icmp,
        };
        mapping.expires = now.after(lives);
    }

    fn sweep(&mut self, now: Instant) {
        self.last_sweep = now;
        let (by_inside, by_port) = (&mut self.by_inside, &mut self.by_port);
        self.mappings.retain(|_, mapping| {
            let lives = mapping.expires > now;
            if !lives {
                by_inside.remove(&mapping.inside);
                by_port.remove(&(mapping.inside.0, mapping.port));
            }
            lives
        });
    }
}

/// What of a packet a mapping is found by.
#[derive(Clone, Copy, Debug)]
enum Subject {
    /// The port, or the identifier of an echo, that is on this side.
    Port(u16),
    /// An ICMP error.
    Error,
    /// It cannot be translated.
    None,
}

impl Kernel {
    /// A packet is about to leave: where that is to the outside, its source becomes the outer address.
    pub(super) fn translate_out(
        &mut self,
        now: Instant,
        (inlet, outlet): (DeviceId, DeviceId),
        packet: &mut Packet,
        head: &Head,
    ) -> Result<(), KernelDrop> {
        let is_its = |nat: &Nat| nat.device == outlet && inlet != outlet && head.is_v4();
        if !self.nats.iter().any(is_its) {
            return Ok(());
        }
        let Some(own) = self.select_on(outlet, head.destination) else {
            return Err(KernelDrop::NatUntranslatable);
        };
        let Some(nat) = self.nats.iter_mut().find(|nat| is_its(nat)) else { return Ok(()) };
        match subject(packet.bytes(), head, true) {
            Subject::Port(port) => {
                let inside = (head.protocol, head.source, port);
                let flags = flags(packet.bytes(), head);
                let port = nat.outside(now, inside, head.destination, flags).ok_or(KernelDrop::NatFull)?;
                rewrite(packet, head, Side::Source, own, port);
                Ok(())
            }
            Subject::Error => {
                // About a packet that came in from outside, and was sent to who is inside.
                let quoted = Quoted::read(packet.bytes(), head).ok_or(KernelDrop::NatUntranslatable)?;
                let inside = (quoted.protocol, quoted.destination, quoted.ports.1);
                let port = nat.port_of(inside).ok_or(KernelDrop::NatUntranslatable)?;
                quoted.rewrite(packet, head, Side::Destination, own, port);
                rewrite_address(packet, Side::Source, own);
                Ok(())
            }
            Subject::None => Err(KernelDrop::NatUntranslatable),
        }
    }

    /// A packet has come in: where that is from outside and to a mapping, its destination becomes who is inside. Says
    /// whether it was changed.
    pub(super) fn translate_in(
        &mut self,
        now: Instant,
        inlet: DeviceId,
        packet: &mut Packet,
        head: &Head,
    ) -> Result<bool, KernelDrop> {
        let Some(nat) = self.nats.iter_mut().find(|nat| nat.device == inlet && head.is_v4()) else {
            return Ok(false);
        };
        let device = self.devices.get(usize::from(inlet));
        let is_own = device
            .is_some_and(|device| device.addresses.iter().any(|own| own.net.address == head.destination));
        if !is_own {
            return Ok(false);
        }
        match subject(packet.bytes(), head, false) {
            Subject::Port(port) => {
                let flags = flags(packet.bytes(), head);
                let found = nat.inside(now, (head.protocol, port), head.source, flags)?;
                let Some((_, address, port)) = found else { return Ok(false) };
                rewrite(packet, head, Side::Destination, address, port);
                Ok(true)
            }
            Subject::Error => {
                let Some(quoted) = Quoted::read(packet.bytes(), head) else { return Ok(false) };
                let key = (quoted.protocol, quoted.ports.0);
                let Some((_, address, port)) = nat.inside_of_error(now, key) else { return Ok(false) };
                quoted.rewrite(packet, head, Side::Source, address, port);
                rewrite_address(packet, Side::Destination, address);
                Ok(true)
            }
            Subject::None => Ok(false),
        }
    }
}

/// Which end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

impl Side {
    const fn address_at(self) -> usize {
        match self {
            Self::Source => 12,
            Self::Destination => 16,
        }
    }
}

fn subject(bytes: &[u8], head: &Head, is_outward: bool) -> Subject {
    match head.protocol {
        Protocol::TCP | Protocol::UDP => Subject::Port(if is_outward { head.ports.0 } else { head.ports.1 }),
        Protocol::ICMP => match bytes.get(head.offset..head.offset + 8) {
            // An echo goes out, its reply comes in.
            Some([8, 0, _, _, i0, i1, ..]) if is_outward => Subject::Port(u16::from_be_bytes([*i0, *i1])),
            Some([0, 0, _, _, i0, i1, ..]) if !is_outward => Subject::Port(u16::from_be_bytes([*i0, *i1])),
            Some([3 | 4 | 11 | 12, ..]) => Subject::Error,
            _ => Subject::None,
        },
        _ => Subject::None,
    }
}

fn flags(bytes: &[u8], head: &Head) -> u8 {
    if head.protocol == Protocol::TCP { bytes.get(head.offset + 13).copied().unwrap_or(0) } else { 0 }
}

/// Where the checksum of a transport is, and the port or identifier of a side.
const fn places(protocol: Protocol, side: Side) -> (usize, usize) {
    match (protocol, side) {
        (Protocol::TCP, Side::Source) => (16, 0),
        (Protocol::TCP, Side::Destination) => (16, 2),
        (Protocol::UDP, Side::Source) => (6, 0),
        (Protocol::UDP, Side::Destination) => (6, 2),
        _ => (2, 4),
    }
}

/// Gives a packet another address and port on one side, and mends its checksums by difference.
fn rewrite(packet: &mut Packet, head: &Head, side: Side, address: Ip, port: u16) {
    let lost = address_sum(packet.bytes(), side);
    rewrite_address(packet, side, address);
    let is_icmp = head.protocol == Protocol::ICMP;
    let (check_at, port_at) = places(head.protocol, side);
    let Some(transport) = packet.bytes_mut().get_mut(head.offset..) else { return };
    let old_port = swap_u16(transport, port_at, port);
    let gained = if is_icmp { 0 } else { ip::sum(&address.v4_octets()) };
    let lost = if is_icmp { 0 } else { lost };
    let old = read_u16(transport, check_at);
    // A datagram without checksum stays without (RFC 768).
    if head.protocol == Protocol::UDP && old == 0 {
        return;
    }
    let new = ip::adjust(old, lost + u64::from(old_port), gained + u64::from(port));
    let new = if head.protocol == Protocol::UDP && new == 0 { u16::MAX } else { new };
    swap_u16(transport, check_at, new);
}

fn address_sum(bytes: &[u8], side: Side) -> u64 {
    bytes.get(side.address_at()..side.address_at() + 4).map_or(0, ip::sum)
}

/// Gives an IPv4 header another address.
fn rewrite_address(packet: &mut Packet, side: Side, address: Ip) {
    put_address(packet.bytes_mut(), side, address);
}

fn put_address(header: &mut [u8], side: Side, address: Ip) {
    let at = side.address_at();
    let Some(place) = header.get_mut(at..at + 4) else { return };
    let lost = ip::sum(place);
    place.copy_from_slice(&address.v4_octets());
    let check = ip::adjust(read_u16(header, 10), lost, ip::sum(&address.v4_octets()));
    swap_u16(header, 10, check);
}

fn read_u16(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..at + 2) {
        Some([a, b]) => u16::from_be_bytes([*a, *b]),
        _ => 0,
    }
}

fn swap_u16(bytes: &mut [u8], at: usize, value: u16) -> u16 {
    let old = read_u16(bytes, at);
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
    old
}

/// The packet that an ICMP error quotes: its header and the first bytes behind it.
#[derive(Clone, Copy, Debug)]
struct Quoted {
    destination: Ip,
    protocol: Protocol,
    ports: (u16, u16),
    /// Where its header begins, and what is behind it.
    at: usize,
    transport_at: usize,
}

impl Quoted {
    fn read(bytes: &[u8], head: &Head) -> Option<Self> {
        let at = head.offset + 8;
        let header = bytes.get(at..)?.first_chunk::<V4_BYTES>()?;
        let [first, _, _, _, _, _, _, _, _, protocol, _, _, _, _, _, _, d0, d1, d2, d3] = *header;
        let transport_at = at + usize::from(first & 15) * 4;
        let transport = bytes.get(transport_at..transport_at + 8)?;
        let protocol = Protocol(protocol);
        let ports = match protocol {
            Protocol::TCP | Protocol::UDP => (read_u16(transport, 0), read_u16(transport, 2)),
            Protocol::ICMP => (read_u16(transport, 4), read_u16(transport, 4)),
            _ => return None,
        };
        let destination = Ip::of_v4(u32::from_be_bytes([d0, d1, d2, d3]));
        Some(Self { destination, protocol, ports, at, transport_at })
    }

    /// Gives the quoted packet another address and port on one side. The checksum of its transport is mended where it is
    /// quoted, and that of the message is made anew.
    fn rewrite(&self, packet: &mut Packet, head: &Head, side: Side, address: Ip, port: u16) {
        let bytes = packet.bytes_mut();
        let (check_at, port_at) = places(self.protocol, side);
        if let Some(header) = bytes.get_mut(self.at..) {
            put_address(header, side, address);
        }
        if let Some(transport) = bytes.get_mut(self.transport_at..) {
            let old_port = swap_u16(transport, port_at, port);
            let has_check = transport.len() >= check_at + 2 && self.protocol == Protocol::ICMP;
            if has_check {
                let old = read_u16(transport, check_at);
                swap_u16(transport, check_at, ip::adjust(old, u64::from(old_port), u64::from(port)));
            }
        }
        let Some(message) = bytes.get_mut(head.offset..) else { return };
        swap_u16(message, 2, 0);
        let check = ip::finish(ip::sum(message));
        swap_u16(message, 2, check);
    }
}
