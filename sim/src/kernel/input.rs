//! Packets that have come in: for the machine itself, or to be forwarded (`ip_route_input`, `ip_forward` of Linux).

use evenkeel_engine::Instant;
use evenkeel_engine::wire::Protocol;

use crate::packet::Packet;

use super::address::Ip;
use super::cache::{Decision, Key, Known};
use super::icmp::Refusal;
use super::ip::{self, Head};
use super::plan::TunnelKind;
use super::routes::{DeviceId, Entry, EntryKind, Flow, Found, LOOPBACK, LocalKind};
use super::{Cast, DeviceKind, Kernel, KernelDrop, Out, Up};

/// Tunnels that a packet may have been through. Linux has no bound of its own but that of recursion, which is as small.
const TUNNELS_MAX: u8 = 4;

impl Kernel {
    /// A packet has come in by a device. Its header has been read.
    #[inline]
    pub(super) fn input(
        &mut self,
        now: Instant,
        inlet: (DeviceId, Cast),
        head: &Head,
        packet: Packet,
        out: &mut Out,
    ) -> Option<Up> {
        if !self.nats.is_empty() {
            return self.input_translated(now, inlet, head, packet, out);
        }
        self.input_nested(now, inlet, head, packet, 0, out)
    }

    /// A packet has come in that source NAT may have to do with.
    fn input_translated(
        &mut self,
        now: Instant,
        inlet: (DeviceId, Cast),
        head: &Head,
        mut packet: Packet,
        out: &mut Out,
    ) -> Option<Up> {
        let mut head = *head;
        if head.fragment.is_some() {
            // NAT needs ports, which only the first fragment has.
            packet = self.gather(now, packet, &head, out)?;
            head = match ip::read(&mut packet) {
                Ok(head) => head,
                Err(reason) => return self.end(reason, packet, out),
            };
        }
        match self.translate_in(now, inlet.0, &mut packet, &head) {
            Ok(true) => match ip::read(&mut packet) {
                Ok(new) => head = new,
                Err(reason) => return self.end(reason, packet, out),
            },
            Ok(false) => {}
            Err(reason) => return self.end(reason, packet, out),
        }
        self.input_nested(now, inlet, &head, packet, 0, out)
    }

    pub(super) fn input_nested(
        &mut self,
        now: Instant,
        (inlet, cast): (DeviceId, Cast),
        head: &Head,
        mut packet: Packet,
        depth: u8,
        out: &mut Out,
    ) -> Option<Up> {
        match self.decide(now, inlet, head, 0, &packet) {
            Decision::Local => self.deliver(now, (inlet, cast), head, packet, depth, out),
            Decision::Forward { neighbour, device, mtu } => {
                match self.forward(now, (inlet, cast), head, &mut packet, (device, mtu), out) {
                    Ok(()) => self.transmit_whole(now, neighbour, packet, (inlet, mtu), out),
                    Err(reason) => return self.end(reason, packet, out),
                }
                None
            }
            Decision::Tun { tun, device, mtu } => {
                match self.forward(now, (inlet, cast), head, &mut packet, (device, mtu), out) {
                    Ok(()) => self.hand_to_tun(usize::from(tun), packet, mtu, out),
                    Err(reason) => self.end(reason, packet, out),
                }
            }
            Decision::Drop(reason) => self.end(reason, packet, out),
            Decision::Refuse(reason) => {
                if cast == Cast::Host {
                    self.refuse(now, Refusal::of(reason), &packet, out);
                }
                self.end(reason, packet, out)
            }
        }
    }

    /// What becomes of a packet: as of the last one like it, or looked up.
    #[inline]
    pub(super) fn decide(
        &mut self,
        now: Instant,
        inlet: DeviceId,
        head: &Head,
        mark: u32,
        packet: &Packet,
    ) -> Decision {
        let pair = Key::of(head.source, head.destination, inlet, mark);
        if !self.routing.has_spread
            && let Some(decision) = self.remembered(&pair, head)
        {
            if mark == 0 {
                self.remember_plain(inlet, head, decision);
            }
            return decision;
        }
        self.decide_anew(now, pair, inlet, head, packet)
    }

    /// What became of the last packet like this one.
    #[inline]
    fn remembered(&self, pair: &Key, head: &Head) -> Option<Decision> {
        match self.cache.find(pair)? {
            Known::Way(decision) => Some(decision),
            Known::ByPorts(read) => {
                match self.cache.find(&pair.with(head.protocol, read.of(ports(head))))? {
                    Known::Way(decision) => Some(decision),
                    Known::ByPorts(_) => None,
                }
            }
        }
    }

    #[cold]
    fn decide_anew(
        &mut self,
        now: Instant,
        pair: Key,
        inlet: DeviceId,
        head: &Head,
        packet: &Packet,
    ) -> Decision {
        let is_message = matches!(head.protocol, Protocol::ICMP | Protocol::ICMPV6);
        let quoted = if self.routing.has_spread && is_message { quoted(packet, head) } else { None };
        if self.routing.has_spread
            && quoted.is_none()
            && let Some(decision) = self.remembered(&pair, head)
        {
            return decision;
        }
        let (source, destination) = (head.source, head.destination);
        let read = self.routing.reads(source, destination);
        let (protocol, ports) = match read {
            None if self.cache.is_on() => (Protocol(0), (0, 0)),
            Some(read) if self.cache.is_on() => (head.protocol, read.of(ports(head))),
            _ => (head.protocol, ports(head)),
        };
        let mut flow = Flow { inlet, source, destination, protocol, ports, mark: pair.mark };
        flow.mark = self.routing.mark(&flow);
        let (decision, is_stable) = if flow.inlet == LOOPBACK {
            self.decide_out(now, &flow, quoted)
        } else {
            self.decide_in(now, &flow, quoted)
        };
        if is_stable && quoted.is_none() {
            let key = match read {
                None => pair,
                Some(read) => {
                    self.cache.put(pair, Known::ByPorts(read));
                    pair.with(protocol, ports)
                }
            };
            self.cache.put(key, Known::Way(decision));
        }
        decision
    }

    /// The way of a packet that came in (`ip_route_input_slow`, `ip6_route_input`). Says too whether the next one like it
    /// goes the same way.
    fn decide_in(&mut self, now: Instant, flow: &Flow, quoted: Option<(Ip, Ip)>) -> (Decision, bool) {
        if let Err(reason) = self.check_addresses(flow) {
            return (Decision::Drop(reason), true);
        }
        if flow.destination.is_multicast() {
            return (Decision::Local, true);
        }
        let is_v4 = flow.destination.is_v4();
        let forwards = if is_v4 { self.forwards_v4 } else { self.forwards_v6 };
        if flow.destination == Ip::V4_BROADCAST {
            let is_fine = flow.source.is_zero_net() || self.check_source(flow, None).is_ok();
            let decision = if is_fine { Decision::Local } else { Decision::Drop(KernelDrop::MartianSource) };
            return (decision, true);
        }
        let found = match self.routing.lookup(flow, None) {
            Found::Local(_) | Found::Broadcast(_) => {
                let decision = match self.check_source(flow, None) {
                    Ok(()) => Decision::Local,
                    Err(reason) => Decision::Drop(reason),
                };
                return (decision, true);
            }
            Found::Blackhole => return (Decision::Drop(KernelDrop::Blackhole), true),
            _ if !forwards => return (Decision::Drop(KernelDrop::NotForwarding), true),
            Found::Unreachable => return (Decision::Refuse(KernelDrop::Unreachable), true),
            Found::Prohibited => return (Decision::Refuse(KernelDrop::Prohibited), true),
            Found::Nothing => return (Decision::Refuse(KernelDrop::NoRoute), true),
            Found::Unicast(entry) => entry,
        };
        let Some(hop) = found.choose(flow, quoted, &self.routing, now) else {
            return (Decision::Refuse(KernelDrop::NoRoute), false);
        };
        let is_stable = !has_memory(found);
        if let Err(reason) = self.check_source(flow, Some(hop.device)) {
            return (Decision::Drop(reason), true);
        }
        let next = hop.gateway.unwrap_or(flow.destination);
        let (decision, is_known) = self.leave_by(now, hop.device, next);
        (decision, is_stable && is_known)
    }

    /// The way of a packet of the machine itself (`ip_route_output_key`).
    fn decide_out(&mut self, now: Instant, flow: &Flow, quoted: Option<(Ip, Ip)>) -> (Decision, bool) {
        if flow.destination.is_unspecified() {
            return (Decision::Drop(KernelDrop::MartianDestination), true);
        }
        let (device, next, is_stable) = match self.routing.lookup(flow, None) {
            Found::Local(_) => return (Decision::Local, true),
            Found::Broadcast(device) => (device, Ip::V4_BROADCAST, true),
            Found::Unicast(entry) if flow.destination != Ip::V4_BROADCAST => {
                let Some(hop) = entry.choose(flow, quoted, &self.routing, now) else {
                    return (Decision::Refuse(KernelDrop::NoRoute), false);
                };
                (hop.device, hop.gateway.unwrap_or(flow.destination), !has_memory(entry))
            }
            Found::Blackhole => return (Decision::Drop(KernelDrop::Blackhole), true),
            Found::Unreachable => return (Decision::Refuse(KernelDrop::Unreachable), true),
            Found::Prohibited => return (Decision::Refuse(KernelDrop::Prohibited), true),
            Found::Unicast(_) | Found::Nothing => {
                let is_to_many = flow.destination.is_multicast() || flow.destination == Ip::V4_BROADCAST;
                match self.routing.local(flow.source) {
                    Some(LocalKind::Own(device)) if is_to_many && device != LOOPBACK => {
                        (device, flow.destination, true)
                    }
                    _ => return (Decision::Refuse(KernelDrop::NoRoute), true),
                }
            }
        };
        // To everybody on the link, not to the router of a default route.
        let next = if flow.destination.is_multicast() { flow.destination } else { next };
        let (decision, is_known) = self.leave_by(now, device, next);
        (decision, is_stable && is_known)
    }

    /// A way out of a device to the next hop.
    fn leave_by(&mut self, now: Instant, id: DeviceId, next: Ip) -> (Decision, bool) {
        let device = self.device(id);
        let mtu = device.mtu;
        match device.kind {
            DeviceKind::Ethernet(own) => {
                let (place, has_collected) = self.neighbours.make(id, own, next, now);
                if has_collected {
                    self.cache.clear();
                }
                match place.and_then(|place| u32::try_from(place).ok()) {
                    Some(neighbour) => (Decision::Forward { neighbour, device: id, mtu }, true),
                    None => (Decision::Drop(KernelDrop::NeighbourTableFull), false),
                }
            }
            DeviceKind::Tun(tun) => (Decision::Tun { tun, device: id, mtu }, true),
            DeviceKind::Tunnel(_) | DeviceKind::Loopback => (Decision::Drop(KernelDrop::NoRoute), true),
        }
    }

    /// Addresses that no packet on a link has (RFC 1812 s.5.3.7, RFC 4291 s.2.5).
    fn check_addresses(&self, flow: &Flow) -> Result<(), KernelDrop> {
        let (source, destination) = (flow.source, flow.destination);
        if source.is_multicast() || source == Ip::V4_BROADCAST {
            return Err(KernelDrop::MartianSource);
        }
        let is_everybody =
            destination == Ip::V4_BROADCAST || source == Ip::V4_ANY && destination == Ip::V4_ANY;
        if !is_everybody && source.is_zero_net() {
            return Err(KernelDrop::MartianSource);
        }
        if !is_everybody && destination.is_zero_net() || destination == Ip::V6_ANY {
            return Err(KernelDrop::MartianDestination);
        }
        let may_loop = source.is_v4() && self.device(flow.inlet).joined.route_localnet;
        if source.is_loopback() && !may_loop {
            return Err(KernelDrop::MartianSource);
        }
        if destination.is_loopback() && !may_loop {
            return Err(KernelDrop::MartianDestination);
        }
        // Nobody has joined a group but those that neighbours are asked in.
        if destination.is_multicast() && !self.listens_to(flow.inlet, destination) {
            return Err(KernelDrop::OtherHost);
        }
        Ok(())
    }

    /// Whether a packet may have this source (`fib_validate_source`); `outlet` is where it is forwarded to. IPv6 has no such
    /// check in Linux.
    pub(super) fn check_source(&self, flow: &Flow, outlet: Option<DeviceId>) -> Result<(), KernelDrop> {
        if !flow.source.is_v4() {
            let is_bad = outlet.is_some() && (flow.source.is_unspecified() || flow.source.is_link_local());
            return if is_bad { Err(KernelDrop::MartianSource) } else { Ok(()) };
        }
        let device = self.device(flow.inlet);
        let (filter, accepts_local) = (device.joined.rp_filter, device.joined.accept_local);
        if filter == 0 {
            if accepts_local {
                return Ok(());
            }
            if !self.routing.has_rules() {
                let is_own = self.owns_exactly(flow.source);
                return if is_own { Err(KernelDrop::MartianSource) } else { Ok(()) };
            }
        }
        let back = Flow {
            inlet: outlet.unwrap_or(LOOPBACK),
            source: flow.destination,
            destination: flow.source,
            protocol: flow.protocol,
            ports: (flow.ports.1, flow.ports.0),
            mark: 0,
        };
        let last_resort = if filter == 0 { Ok(()) } else { Err(KernelDrop::ReversePath) };
        let is_near = match self.routing.lookup(&back, None) {
            Found::Unicast(entry) => entry.uses(flow.inlet),
            Found::Local(owner) if accepts_local => owner == flow.inlet,
            Found::Local(_) | Found::Broadcast(_) => return Err(KernelDrop::MartianSource),
            Found::Blackhole | Found::Unreachable | Found::Prohibited | Found::Nothing => return last_resort,
        };
        if is_near {
            return Ok(());
        }
        if !device.addresses.iter().any(|own| own.net.address.is_v4()) {
            return last_resort;
        }
        if filter == 1 { Err(KernelDrop::ReversePath) } else { Ok(()) }
    }

    fn owns_exactly(&self, address: Ip) -> bool {
        let mut all = self.devices.iter().chain([&self.loopback]).flat_map(|device| &device.addresses);
        all.any(|own| own.net.address == address)
    }

    /// What a router does to a packet before it leaves.
    #[inline]
    fn forward(
        &mut self,
        now: Instant,
        (inlet, cast): (DeviceId, Cast),
        head: &Head,
        packet: &mut Packet,
        (outlet, mtu): (DeviceId, u16),
        out: &mut Out,
    ) -> Result<(), KernelDrop> {
        if cast != Cast::Host {
            return Err(KernelDrop::OtherHost);
        }
        if head.ttl <= 1 {
            self.refuse(now, Refusal::TtlExceeded, packet, out);
            return Err(KernelDrop::TtlExceeded);
        }
        if packet.len() > usize::from(mtu) && !head.may_fragment {
            self.refuse(now, Refusal::TooBig(mtu), packet, out);
            return Err(KernelDrop::TooBig);
        }
        ip::take_hop(packet.bytes_mut());
        if !self.nats.is_empty() {
            self.translate_out(now, (inlet, outlet), packet, head)?;
        }
        self.counts.forwarded += 1;
        Ok(())
    }

    /// A packet for the machine itself.
    #[inline]
    pub(super) fn deliver(
        &mut self,
        now: Instant,
        inlet: (DeviceId, Cast),
        head: &Head,
        packet: Packet,
        depth: u8,
        out: &mut Out,
    ) -> Option<Up> {
        let is_plain = head.protocol == Protocol::TCP || head.protocol == Protocol::UDP && !self.has_tunnels;
        if !is_plain || head.fragment.is_some() {
            return self.deliver_slowly(now, inlet, head, packet, depth, out);
        }
        self.counts.to_host += 1;
        Some(Up::Host(packet))
    }

    /// The same where it is a fragment, a message or the outside of another packet.
    fn deliver_slowly(
        &mut self,
        now: Instant,
        inlet: (DeviceId, Cast),
        head: &Head,
        mut packet: Packet,
        depth: u8,
        out: &mut Out,
    ) -> Option<Up> {
        let mut head = *head;
        if head.fragment.is_some() {
            packet = self.gather(now, packet, &head, out)?;
            head = match ip::read(&mut packet) {
                Ok(head) => head,
                Err(reason) => return self.end(reason, packet, out),
            };
        }
        if matches!(head.protocol, Protocol::ICMP | Protocol::ICMPV6) {
            return self.deliver_message(now, inlet, &head, packet, out);
        }
        if self.has_tunnels
            && let Some((tunnel, kind)) = self.tunnel_of(&head)
        {
            return self.decapsulate(now, (tunnel, kind), &head, packet, depth, out);
        }
        self.counts.to_host += 1;
        Some(Up::Host(packet))
    }

    fn decapsulate(
        &mut self,
        now: Instant,
        (tunnel, kind): (DeviceId, TunnelKind),
        head: &Head,
        mut packet: Packet,
        depth: u8,
        out: &mut Out,
    ) -> Option<Up> {
        if depth >= TUNNELS_MAX {
            return self.end(KernelDrop::TunnelNested, packet, out);
        }
        if !super::tunnel::take_off(kind, head, &mut packet) {
            return self.end(KernelDrop::TunnelMalformed, packet, out);
        }
        match ip::read(&mut packet) {
            Ok(inner) => self.input_nested(now, (tunnel, Cast::Host), &inner, packet, depth + 1, out),
            Err(reason) => self.end(reason, packet, out),
        }
    }

    pub(super) fn hand_to_tun(&mut self, tun: usize, packet: Packet, mtu: u16, out: &mut Out) -> Option<Up> {
        if packet.len() > usize::from(mtu) {
            let mut pieces = self.cut(&packet, mtu, out);
            out.recycle(packet);
            let last = pieces.pop();
            for piece in pieces {
                self.counts.to_tuns += 1;
                out.up.push(Up::Tun(tun, piece));
            }
            self.counts.to_tuns += u64::from(last.is_some());
            return last.map(|last| Up::Tun(tun, last));
        }
        self.counts.to_tuns += 1;
        Some(Up::Tun(tun, packet))
    }
}

/// The ports that a way may depend on. Fragments go the same way, whether they have ports or not.
#[inline]
const fn ports(head: &Head) -> (u16, u16) {
    if head.fragment.is_some() { (0, 0) } else { head.ports }
}

fn has_memory(entry: &Entry) -> bool {
    let EntryKind::Unicast { hops, chooser, .. } = &entry.kind else { return false };
    hops.len() > 1 && chooser.has_memory()
}

/// Source and destination of the packet that an ICMP error quotes.
fn quoted(packet: &Packet, head: &Head) -> Option<(Ip, Ip)> {
    let message = packet.bytes().get(head.offset..)?;
    let inner = message.get(8..)?;
    let kind = *message.first()?;
    if head.is_v4() {
        let [_, _, _, _, _, _, _, _, _, _, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
            *inner.first_chunk::<{ ip::V4_BYTES }>()?;
        let is_error = matches!(kind, 3 | 4 | 5 | 11 | 12);
        let source = Ip::of_v4(u32::from_be_bytes([s0, s1, s2, s3]));
        return is_error.then_some((source, Ip::of_v4(u32::from_be_bytes([d0, d1, d2, d3]))));
    }
    let addresses = inner.get(8..40)?;
    let (source, destination) = addresses.split_first_chunk::<16>()?;
    let destination = destination.first_chunk::<16>()?;
    (kind < 128).then(|| (Ip(u128::from_be_bytes(*source)), Ip(u128::from_be_bytes(*destination))))
}
