//! The network stack of a machine, as Linux has it: who answers for an address, where a packet goes, and what becomes of
//! one that goes nowhere.
//!
//! ```text
//! frame -> [station] -> ARP, NDP -> neighbours
//!             |
//!             +-> IP -> [header] -> own address? -> Up::Local (a program), or an echo, or out of a tunnel and again
//!                          |
//!                          +-> [forwards?] -> [source] -> [hops] -> rules -> table -> way -> [fits?] -> neighbour -> frame
//!                                                                                |
//! program -> packet ------------------------------------------------------------+        Up::Tun (an engine)
//! ```
//! Pure: frames and the time in, frames out, packets for programs and TUNs up. Every packet that comes in ends once, and
//! what ends here is counted by [`KernelDrop`]. The switches of the stack mean what `ip-sysctl` of the Linux documentation
//! says they mean.

mod icmp;
mod masquerade;
mod neighbour;
mod plan;
mod route;
mod tunnel;

use std::net::IpAddr;

use evenkeel_engine::Instant;

use crate::packet::{self, ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES, Packet};
use crate::scenario::Subnet;
pub use plan::{InterfacePlan, KernelPlan, RouteEntry, TunPlan, Way};

use icmp::{Budget, Told};
use masquerade::Masquerade;
use neighbour::Neighbours;
use route::{Flow, Found, Routing};

/// Buffers that are kept for later: more packets than this are seldom under way.
const POOL_MAX: usize = 4_096;
/// Tunnels in tunnels that are opened. A packet can hold many; a machine that is the end of several is rare.
const TUNNELS_MAX: u8 = 2;

/// A network interface or a TUN of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Device {
    /// The interface with this number.
    Interface(usize),
    /// The TUN with this number.
    Tun(usize),
}

/// Why a packet ended in a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KernelDrop {
    /// The frame is for another station.
    OtherStation,
    /// Nobody here speaks the protocol of the frame.
    UnknownProtocol,
    /// The IP header contradicts itself, or its checksum is wrong.
    BadHeader,
    /// The packet is for somebody else, and this machine does not send packets on.
    NotForwarding,
    /// The source can not be where the packet came from (`rp_filter`), or is this machine itself.
    MartianSource,
    /// The time to live has run out.
    HopsExceeded,
    /// No route leads to the destination.
    NoRoute,
    /// A route says so.
    Blackhole,
    /// It does not fit the way out and must not be cut.
    TooBig,
    /// The next hop has not said where it is.
    NoNeighbour,
    /// Too many packets wait for the next hop.
    NeighbourQueueFull,
    /// The interface has no link.
    NoLink,
    /// A group or broadcast address that nobody here listens to.
    Group,
    /// No port is left for the translation.
    NoPort,
    /// An ICMP error that may not be sent: too many, or about what must not be told of.
    Untold,
}

impl KernelDrop {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::OtherStation,
        Self::UnknownProtocol,
        Self::BadHeader,
        Self::NotForwarding,
        Self::MartianSource,
        Self::HopsExceeded,
        Self::NoRoute,
        Self::Blackhole,
        Self::TooBig,
        Self::NoNeighbour,
        Self::NeighbourQueueFull,
        Self::NoLink,
        Self::Group,
        Self::NoPort,
        Self::Untold,
    ];

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OtherStation => "other_station",
            Self::UnknownProtocol => "unknown_protocol",
            Self::BadHeader => "bad_header",
            Self::NotForwarding => "not_forwarding",
            Self::MartianSource => "martian_source",
            Self::HopsExceeded => "hops_exceeded",
            Self::NoRoute => "no_route",
            Self::Blackhole => "blackhole",
            Self::TooBig => "too_big",
            Self::NoNeighbour => "no_neighbour",
            Self::NeighbourQueueFull => "neighbour_queue_full",
            Self::NoLink => "no_link",
            Self::Group => "group_address",
            Self::NoPort => "no_port",
            Self::Untold => "icmp_untold",
        }
    }
}

/// What goes up from the kernel.
#[derive(Debug)]
pub enum Up {
    /// An IP packet for a program of this machine.
    Local(Packet),
    /// An IP packet into the TUN with this number.
    Tun(usize, Packet),
}

/// What kernels send, and buffers for later. One for all machines of a world.
#[derive(Debug, Default)]
pub struct Out {
    frames: std::collections::VecDeque<(usize, Packet)>,
    pool: Vec<Vec<u8>>,
}

impl Out {
    /// The next frame, with the number of the interface that it leaves by.
    pub fn take_frame(&mut self) -> Option<(usize, Packet)> {
        self.frames.pop_front()
    }

    /// A buffer that was used before, or a new one.
    pub fn buffer(&mut self) -> Vec<u8> {
        self.pool.pop().unwrap_or_default()
    }

    /// Takes back the buffer of a packet that has ended.
    pub fn recycle(&mut self, packet: Packet) {
        if self.pool.len() < POOL_MAX {
            self.pool.push(packet.buffer);
        }
    }

    fn push(&mut self, interface: usize, frame: Packet) {
        self.frames.push_back((interface, frame));
    }
}

/// The network stack of a machine.
#[derive(Debug)]
pub struct Kernel {
    plan: KernelPlan,
    routing: Routing,
    neighbours: Neighbours,
    masquerade: Masquerade,
    budget: Budget,
    /// Whether each interface has a link.
    has_link: Vec<bool>,
    /// Every address of the machine.
    own: Vec<IpAddr>,
    drops: [u64; KernelDrop::ALL.len()],
}

impl Kernel {
    /// A kernel that was told `plan`. `name` chooses the key of its flow hash.
    #[must_use]
    pub fn new(plan: KernelPlan, seed: u64, name: &str) -> Self {
        Self {
            routing: Routing::new(&plan, seed, name),
            neighbours: Neighbours::new(&plan),
            masquerade: Masquerade::default(),
            budget: Budget::default(),
            has_link: vec![true; plan.interfaces.len()],
            own: plan.own_addresses(),
            drops: [0; KernelDrop::ALL.len()],
            plan,
        }
    }

    // Commands.

    /// Takes in a frame.
    #[inline]
    pub fn receive(
        &mut self,
        now: Instant,
        interface: usize,
        mut frame: Packet,
        out: &mut Out,
    ) -> Option<Up> {
        let Some((header, _)) = frame.bytes().split_first_chunk::<ETHERNET_BYTES>() else {
            return self.drop(KernelDrop::BadHeader, frame, out);
        };
        let [to @ .., _, _, _, _, _, _, t0, t1] = *header;
        let is_ours = self.plan.interfaces.get(interface).is_some_and(|own| own.mac == to);
        if !is_ours && to[0] & 1 == 0 {
            return self.drop(KernelDrop::OtherStation, frame, out);
        }
        match [t0, t1] {
            [0x08, 0x00] | [0x86, 0xdd] => {
                frame.range.start += ETHERNET_BYTES;
                self.take_in(now, Device::Interface(interface), frame, out)
            }
            [0x08, 0x06] => {
                self.neighbours.hear_arp(now, &self.plan, interface, frame.bytes(), out);
                out.recycle(frame);
                None
            }
            _ => self.drop(KernelDrop::UnknownProtocol, frame, out),
        }
    }

    /// Takes in an IP packet that has come out of a TUN.
    pub fn receive_from_tun(
        &mut self,
        now: Instant,
        tun: usize,
        packet: Packet,
        out: &mut Out,
    ) -> Option<Up> {
        self.take_in(now, Device::Tun(tun), packet, out)
    }

    /// Sends an IP packet of a program of this machine.
    #[inline]
    pub fn send(&mut self, now: Instant, packet: Packet, out: &mut Out) -> Option<Up> {
        let Some(flow) = Flow::of(packet.bytes(), None) else {
            return self.drop(KernelDrop::BadHeader, packet, out);
        };
        if self.own.contains(&flow.destination) {
            return Some(Up::Local(packet));
        }
        self.route(now, &flow, packet, out)
    }

    /// What waits for its time is looked at.
    pub fn timeout(&mut self, now: Instant, out: &mut Out) {
        while let Some((interface, packet)) = self.neighbours.timeout(now, &self.plan, out) {
            // The one who asked is told that nobody is there (RFC 1812 s.5.2.7.1: host unreachable).
            self.refuse(
                now,
                Device::Interface(interface),
                Told::HostUnreachable,
                KernelDrop::NoNeighbour,
                packet,
                out,
            );
        }
    }

    /// Takes over routes, rules and proxied addresses of another plan; what it knows of neighbours stays.
    pub fn set_routing(&mut self, plan: &KernelPlan) {
        self.routing.tell(plan);
        self.plan = plan.clone();
        self.own = plan.own_addresses();
    }

    /// Sets a route, in place of one for the same network in the same table.
    pub fn set_route(&mut self, entry: &RouteEntry) {
        self.plan.set_route(entry.clone());
        self.routing.tell(&self.plan);
    }

    /// Deletes the route for a network from a table.
    pub fn delete_route(&mut self, to: Subnet, table: u32) {
        self.plan.delete_route(to, table);
        self.routing.tell(&self.plan);
    }

    /// The link of an interface is gone or back. Neighbours behind it are forgotten when it goes.
    pub fn set_link(&mut self, interface: usize, has_link: bool, out: &mut Out) {
        if let Some(place) = self.has_link.get_mut(interface) {
            *place = has_link;
        }
        self.routing.set_link(interface, has_link);
        if !has_link {
            let count = self.neighbours.forget(interface, out);
            self.count(KernelDrop::NoLink, count);
        }
    }

    // Questions.

    /// When [`Kernel::timeout`] is due.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.neighbours.deadline()
    }

    /// The address that packets to `destination` come from.
    #[must_use]
    pub fn source_for(&self, destination: IpAddr) -> Option<IpAddr> {
        let flow = Flow::between(destination, destination);
        let (device, next_hop) = match self.routing.find(&flow) {
            Found::Way(device, next_hop) => (device, next_hop),
            Found::Blackhole | Found::Unreachable | Found::None => return None,
        };
        self.plan.address_towards(device, next_hop)
    }

    /// Packets that ended here, by reason.
    pub fn drops(&self) -> impl Iterator<Item = (KernelDrop, u64)> + '_ {
        KernelDrop::ALL.iter().copied().zip(self.drops)
    }

    /// Who has which address, as this machine believes: interface, address and station.
    pub fn neighbours(&self) -> impl Iterator<Item = (usize, IpAddr, [u8; 6])> + '_ {
        self.neighbours.known()
    }

    // The way of a packet.

    fn take_in(&mut self, now: Instant, from: Device, packet: Packet, out: &mut Out) -> Option<Up> {
        self.take_in_at(now, from, packet, out, 0)
    }

    fn take_in_at(
        &mut self,
        now: Instant,
        from: Device,
        mut packet: Packet,
        out: &mut Out,
        depth: u8,
    ) -> Option<Up> {
        let Some(length) = whole_length(packet.bytes()) else {
            return self.drop(KernelDrop::BadHeader, packet, out);
        };
        // What is behind it has filled up a short frame.
        packet.range.end = packet.range.start + length;
        let Some(mut flow) = Flow::of(packet.bytes(), Some(from)) else {
            return self.drop(KernelDrop::BadHeader, packet, out);
        };
        if is_group(flow.destination) {
            if let Device::Interface(interface) = from
                && self.neighbours.hear_ndp(now, &self.plan, interface, packet.bytes(), out)
            {
                out.recycle(packet);
                return None;
            }
            return self.drop(KernelDrop::Group, packet, out);
        }
        if !self.plan.masquerade.is_empty()
            && self.masquerade.restore(now, &self.plan, from, packet.bytes_mut())
        {
            let Some(restored) = Flow::of(packet.bytes(), Some(from)) else {
                return self.drop(KernelDrop::BadHeader, packet, out);
            };
            flow = restored;
        } else if self.own.contains(&flow.destination) {
            return self.take_up(now, from, &flow, packet, out, depth);
        }
        if !self.plan.sysctl.ip_forward {
            return self.drop(KernelDrop::NotForwarding, packet, out);
        }
        if !self.is_plausible(&flow, from) {
            return self.drop(KernelDrop::MartianSource, packet, out);
        }
        if !take_hop(packet.bytes_mut()) {
            return self.refuse(now, from, Told::HopsExceeded, KernelDrop::HopsExceeded, packet, out);
        }
        self.route(now, &flow, packet, out)
    }

    /// A packet for this machine itself.
    fn take_up(
        &mut self,
        now: Instant,
        from: Device,
        flow: &Flow,
        mut packet: Packet,
        out: &mut Out,
        depth: u8,
    ) -> Option<Up> {
        if !self.is_plausible(flow, from) {
            return self.drop(KernelDrop::MartianSource, packet, out);
        }
        if let Device::Interface(interface) = from
            && self.neighbours.hear_ndp(now, &self.plan, interface, packet.bytes(), out)
        {
            out.recycle(packet);
            return None;
        }
        if icmp::turn_echo(packet.bytes_mut()) {
            return self.send(now, packet, out);
        }
        if self.plan.decapsulates
            && depth < TUNNELS_MAX
            && let Some(skip) = tunnel::inner(packet.bytes())
        {
            packet.range.start += skip;
            return self.take_in_at(now, from, packet, out, depth + 1);
        }
        Some(Up::Local(packet))
    }

    /// Whether a packet of `flow` may come in by `from`: not from this machine itself, and where `rp_filter` says so, from
    /// where packets to its source would go.
    fn is_plausible(&self, flow: &Flow, from: Device) -> bool {
        let mode = self.plan.rp_filter(from);
        let is_own = self.own.contains(&flow.source);
        if is_own || mode == 0 {
            return !is_own;
        }
        match self.routing.find(&flow.back()) {
            Found::Way(device, _) => mode == 2 || device == from,
            Found::Blackhole | Found::Unreachable | Found::None => false,
        }
    }

    /// Sends a packet where its route says.
    fn route(&mut self, now: Instant, flow: &Flow, mut packet: Packet, out: &mut Out) -> Option<Up> {
        let (device, next_hop) = match self.routing.find(flow) {
            Found::Way(device, next_hop) => (device, next_hop),
            Found::Blackhole => return self.drop(KernelDrop::Blackhole, packet, out),
            Found::Unreachable | Found::None => {
                return match flow.device {
                    Some(from) => {
                        self.refuse(now, from, Told::NetUnreachable, KernelDrop::NoRoute, packet, out)
                    }
                    None => self.drop(KernelDrop::NoRoute, packet, out),
                };
            }
        };
        let interface = match device {
            Device::Tun(tun) => return Some(Up::Tun(tun, packet)),
            Device::Interface(interface) => interface,
        };
        if self.has_link.get(interface) != Some(&true) {
            return self.drop(KernelDrop::NoLink, packet, out);
        }
        if flow.device.is_some()
            && self.plan.masquerade.contains(&interface)
            && !self.masquerade.replace(now, &self.plan, interface, packet.bytes_mut())
        {
            return self.drop(KernelDrop::NoPort, packet, out);
        }
        let mtu = self.plan.mtu(device);
        if packet.range.len() > usize::from(mtu) {
            return self.fit(now, flow, interface, next_hop, packet, out);
        }
        self.put_out(now, interface, next_hop, packet, out);
        None
    }

    /// Sends a packet to its next hop on a link, or lets it wait until that has said where it is.
    fn put_out(&mut self, now: Instant, interface: usize, next_hop: IpAddr, packet: Packet, out: &mut Out) {
        if let Some(packet) = self.neighbours.send(now, &self.plan, interface, next_hop, packet, out) {
            self.count(KernelDrop::NeighbourQueueFull, 1);
            out.recycle(packet);
        }
    }

    /// A packet that is longer than its way out carries: cut where that is allowed, else the sender is told.
    fn fit(
        &mut self,
        now: Instant,
        flow: &Flow,
        interface: usize,
        next_hop: IpAddr,
        packet: Packet,
        out: &mut Out,
    ) -> Option<Up> {
        let mtu = self.plan.mtu(Device::Interface(interface));
        if icmp::may_cut(packet.bytes()) {
            for part in icmp::cut(packet.bytes(), mtu) {
                let part = Packet::copied_into(out.buffer(), &part);
                self.put_out(now, interface, next_hop, part, out);
            }
            out.recycle(packet);
            return None;
        }
        match flow.device {
            Some(from) => self.refuse(now, from, Told::TooBig(mtu), KernelDrop::TooBig, packet, out),
            None => {
                // The machine's own program is told at once.
                self.count(KernelDrop::TooBig, 1);
                let told = self
                    .budget
                    .spend(now)
                    .then(|| Told::TooBig(mtu).about(flow.source, &packet, out))
                    .flatten();
                out.recycle(packet);
                told.map(Up::Local)
            }
        }
    }

    /// Ends a packet and tells its sender why, where that may be told.
    fn refuse(
        &mut self,
        now: Instant,
        from: Device,
        told: Told,
        reason: KernelDrop,
        packet: Packet,
        out: &mut Out,
    ) -> Option<Up> {
        self.count(reason, 1);
        let source = packet::sender_address(packet.bytes());
        let own = source.and_then(|source| self.plan.address_towards(from, source));
        let message = own.filter(|_| icmp::may_be_told(packet.bytes()) && self.budget.spend(now));
        let message = message.and_then(|own| told.about(own, &packet, out));
        out.recycle(packet);
        let Some(message) = message else {
            self.count(KernelDrop::Untold, 1);
            return None;
        };
        self.send(now, message, out)
    }

    fn drop(&mut self, reason: KernelDrop, packet: Packet, out: &mut Out) -> Option<Up> {
        self.count(reason, 1);
        out.recycle(packet);
        None
    }

    fn count(&mut self, reason: KernelDrop, count: u64) {
        if let Some(place) = self.drops.get_mut(reason as usize) {
            *place += count;
        }
    }
}

/// The length that a packet's header gives, where the header is sound and the packet is all there.
fn whole_length(bytes: &[u8]) -> Option<usize> {
    let (header_bytes, length) = match bytes.first()? >> 4 {
        4 => {
            let header_bytes = usize::from(bytes.first()? & 15) * 4;
            let header = bytes.get(..header_bytes).filter(|header| header.len() >= IPV4_BYTES)?;
            let length = usize::from(u16::from_be_bytes([*header.get(2)?, *header.get(3)?]));
            (packet::adds_up(header)).then_some((header_bytes, length))?
        }
        6 => {
            let length = usize::from(u16::from_be_bytes([*bytes.get(4)?, *bytes.get(5)?]));
            (IPV6_BYTES, IPV6_BYTES + length)
        }
        _ => return None,
    };
    (header_bytes <= length && length <= bytes.len()).then_some(length)
}

/// Whether an address means several machines.
const fn is_group(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    }
}

/// Takes one off the time to live, as a router does; `false` when none is left.
fn take_hop(bytes: &mut [u8]) -> bool {
    if bytes.first().is_some_and(|first| first >> 4 == 4) {
        return packet::take_hop(bytes);
    }
    let Some(hops) = bytes.get_mut(7).filter(|hops| **hops > 1) else { return false };
    *hops -= 1;
    true
}
