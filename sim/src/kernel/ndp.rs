//! Neighbour discovery for IPv6 (RFC 4861): solicitations and advertisements, as `net/ipv6/ndisc.c` of Linux handles them.
//! Without routers that advertise themselves and without the test for double addresses.

use evenkeel_engine::Instant;
use evenkeel_engine::device::HEADROOM_BYTES;
use evenkeel_engine::wire::Protocol;

use crate::packet::Packet;
use crate::wires::frame::{self, MacAddress};

use super::address::Ip;
use super::ip::{self, Head, NewHead, V6_BYTES};
use super::neighbours::{Claim, NeighbourState};
use super::routes::DeviceId;
use super::{Cast, Kernel, KernelDrop, Out, Up};

pub(super) const SOLICITATION: u8 = 135;
pub(super) const ADVERTISEMENT: u8 = 136;
/// Only neighbours send with the full hop limit (RFC 4861 s.7.1).
const HOP_LIMIT: u8 = 255;
const SOURCE_OPTION: u8 = 1;
const TARGET_OPTION: u8 = 2;
/// Type, code, checksum, flags and target.
const MESSAGE_BYTES: usize = 24;
/// An option with a link address.
const OPTION_BYTES: usize = 8;
/// Options that are read: messages have one.
const OPTIONS_MAX: usize = 8;

const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// A message to be sent.
#[derive(Clone, Copy, Debug)]
struct Message {
    kind: u8,
    flags: u8,
    target: Ip,
    link_address: Option<MacAddress>,
}

impl Kernel {
    /// A message has come in. Its checksum is right.
    pub(super) fn receive_ndp(
        &mut self,
        now: Instant,
        (device, cast): (DeviceId, Cast),
        head: &Head,
        packet: Packet,
        out: &mut Out,
    ) -> Option<Up> {
        let message = packet.bytes().get(head.offset..).unwrap_or(&[]);
        let Some((flags, target, link_address)) = read(message).filter(|_| head.ttl == HOP_LIMIT) else {
            return self.end(KernelDrop::Malformed, packet, out);
        };
        match message.first() {
            Some(&SOLICITATION) => self.answer_ndp(now, (device, cast), head, (target, link_address), out),
            _ => self.learn_from_ndp(now, device, (flags, target, link_address), out),
        }
        self.consume(packet, out)
    }

    fn answer_ndp(
        &mut self,
        now: Instant,
        (device, cast): (DeviceId, Cast),
        head: &Head,
        (target, link_address): (Ip, Option<MacAddress>),
        out: &mut Out,
    ) {
        let inlet = self.device(device);
        let is_own = inlet
            .addresses
            .iter()
            .map(|own| own.net.address)
            .chain(inlet.link_local)
            .any(|own| own == target);
        // Unlike ARP this never answers for an address of another interface.
        let is_proxy = !is_own && self.forwards_v6 && self.proxies.binary_search(&(device, target)).is_ok();
        if !is_own && !is_proxy {
            return;
        }
        let Some(own) = self.device(device).mac() else { return };
        let router = if self.forwards_v6 { ROUTER } else { 0 };
        let is_multicast = cast == Cast::Group;
        if head.source.is_unspecified() {
            // Somebody asks whether an address is free: all are told that it is not (RFC 4862 s.5.4.3).
            let overrides = if is_own { OVERRIDE } else { 0 };
            let link_address = Some(own);
            let message = Message { kind: ADVERTISEMENT, flags: router | overrides, target, link_address };
            self.counts.requests_answered += 1;
            self.send_ndp(device, target, Ip::ALL_NODES, Ip::ALL_NODES.group(), &message, out);
            return;
        }
        let known = self.neighbours.find(device, head.source);
        let place = match (known, link_address) {
            (Some(place), _) => Some(place),
            (None, Some(_)) => self.neighbours.make(device, own, head.source, now).0,
            (None, None) => None,
        };
        let Some(place) = place else { return };
        if let Some(mac) = link_address {
            self.learn(now, place, Claim { mac, is_answer: false, overrides: true, weakens: true }, out);
        }
        let Some(neighbour) = self.neighbours.all.get(place) else { return };
        let mac = neighbour.mac();
        let overrides = if is_own && is_multicast { OVERRIDE } else { 0 };
        let flags = router | SOLICITED | overrides;
        let link_address = Some(own).filter(|_| is_multicast);
        let message = Message { kind: ADVERTISEMENT, flags, target, link_address };
        self.counts.requests_answered += 1;
        let source = if is_own { target } else { self.device(device).link_local.unwrap_or(target) };
        self.send_ndp(device, source, head.source, mac, &message, out);
    }

    fn learn_from_ndp(
        &mut self,
        now: Instant,
        device: DeviceId,
        (flags, target, link_address): (u8, Ip, Option<MacAddress>),
        out: &mut Out,
    ) {
        let Some(place) = self.neighbours.find(device, target) else { return };
        let Some(neighbour) = self.neighbours.all.get(place) else { return };
        if matches!(neighbour.state, NeighbourState::Failed | NeighbourState::None) {
            return;
        }
        // Without a link address it confirms the one that is known (RFC 4861 s.7.2.5).
        let is_unknown = neighbour.state == NeighbourState::Incomplete;
        let Some(mac) = link_address.or_else(|| Some(neighbour.mac()).filter(|_| !is_unknown)) else {
            return;
        };
        let claim =
            Claim { mac, is_answer: flags & SOLICITED != 0, overrides: flags & OVERRIDE != 0, weakens: true };
        self.learn(now, place, claim, out);
    }

    /// Asks for the owner of an address: one station, or those that listen to its group (`ndisc_solicit`).
    pub(super) fn solicit(
        &mut self,
        _now: Instant,
        device: DeviceId,
        target: Ip,
        packet_source: Option<Ip>,
        known: Option<MacAddress>,
        out: &mut Out,
    ) {
        let inlet = self.device(device);
        let is_of_device = |source: &Ip| inlet.addresses.iter().any(|own| own.net.address == *source);
        let Some(source) = packet_source.filter(is_of_device).or(inlet.link_local) else { return };
        let link_address = inlet.mac();
        let message = Message { kind: SOLICITATION, flags: 0, target, link_address };
        let (destination, mac) = match known {
            Some(mac) => (target, mac),
            None => (target.solicited_node(), target.solicited_node().group()),
        };
        self.send_ndp(device, source, destination, mac, &message, out);
    }

    /// Tells a network that this machine has an address.
    pub(super) fn advertise_all(&mut self, _now: Instant, device: DeviceId, address: Ip, out: &mut Out) {
        let router = if self.forwards_v6 { ROUTER } else { 0 };
        let link_address = self.device(device).mac();
        let message =
            Message { kind: ADVERTISEMENT, flags: router | OVERRIDE, target: address, link_address };
        self.send_ndp(device, address, Ip::ALL_NODES, Ip::ALL_NODES.group(), &message, out);
    }

    fn send_ndp(
        &mut self,
        device: DeviceId,
        source: Ip,
        destination: Ip,
        mac: MacAddress,
        message: &Message,
        out: &mut Out,
    ) {
        let Some(own) = self.device(device).mac() else { return };
        let mut packet = out.buffer().emptied(HEADROOM_BYTES + V6_BYTES);
        packet.grow_front(V6_BYTES);
        packet.extend(&[message.kind, 0, 0, 0, message.flags, 0, 0, 0]);
        packet.extend(&message.target.v6_octets());
        if let Some(address) = message.link_address {
            let option = if message.kind == SOLICITATION { SOURCE_OPTION } else { TARGET_OPTION };
            packet.extend(&[option, 1]);
            packet.extend(&address.0);
        }
        let head = NewHead {
            source,
            destination,
            protocol: Protocol::ICMPV6,
            ttl: HOP_LIMIT,
            traffic: 0,
            identification: 0,
            may_fragment: false,
        };
        ip::write(&mut packet, &head);
        super::icmp::write_checksum(&mut packet, V6_BYTES, source, destination);
        frame::put_header(&mut packet, &frame::header_bytes(mac, own, frame::IPV6));
        self.transmit_own(device, packet, out);
    }

    /// Whether an interface listens to a group: those of its own addresses, and that of all nodes.
    pub(super) fn listens_to(&self, device: DeviceId, group: Ip) -> bool {
        let inlet = self.device(device);
        let mut own = inlet.addresses.iter().map(|own| own.net.address).chain(inlet.link_local);
        let mut proxies = self.proxies.iter().filter(|(owner, _)| *owner == device);
        group == Ip::ALL_NODES
            || own.any(|address| !address.is_v4() && address.solicited_node() == group)
            || proxies.any(|(_, address)| !address.is_v4() && address.solicited_node() == group)
    }
}

/// Flags, target and link address of a message.
fn read(message: &[u8]) -> Option<(u8, Ip, Option<MacAddress>)> {
    let (fixed, mut options) = message.split_first_chunk::<MESSAGE_BYTES>()?;
    let [kind, 0, _, _, flags, _, _, _, target @ ..] = fixed else { return None };
    let target = Ip(u128::from_be_bytes(*target.first_chunk()?));
    if target.is_multicast() || target.is_v4() {
        return None;
    }
    let wanted = if *kind == SOLICITATION { SOURCE_OPTION } else { TARGET_OPTION };
    let mut found = None;
    for _ in 0..OPTIONS_MAX {
        let [option, length, ..] = options else { break };
        let bytes = usize::from(*length) * OPTION_BYTES;
        // RFC 4861 s.4.6: a message with an option of no length is thrown away.
        let (this, rest) = options.split_at_checked(bytes).filter(|_| bytes > 0)?;
        if let (true, Some([_, _, mac @ ..])) = (*option == wanted, this.first_chunk::<OPTION_BYTES>()) {
            found = Some(MacAddress(*mac));
        }
        options = rest;
    }
    Some((*flags, target, found))
}
