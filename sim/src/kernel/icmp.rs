//! ICMP of both families: echo, errors about packets that cannot go on, and how many of them are sent (`net/ipv4/icmp.c`,
//! `net/ipv6/icmp.c` of Linux).

use std::collections::BTreeMap;

use evenkeel_engine::device::HEADROOM_BYTES;
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{Duration, Instant};

use crate::packet::Packet;

use super::address::Ip;
use super::ip::{self, Head, NewHead, TTL, V4_BYTES, V6_BYTES};
use super::ndp;
use super::plan::IcmpLimits;
use super::routes::{DeviceId, LocalKind};
use super::{Cast, Kernel, KernelDrop, Out, Up};

/// The most bytes of an ICMP error with IPv4 (RFC 1812 s.4.3.2.3).
const ERROR_MAX_V4: usize = 576;
/// The most bytes of an ICMP error with IPv6 (RFC 4443 s.2.4).
const ERROR_MAX_V6: usize = 1_280;
/// Bytes in front of the quoted packet.
const MESSAGE_BYTES: usize = 8;
/// Errors to one host at once (`XRLIM_BURST_FACTOR`).
const PEER_BURST: u32 = 6;
/// Hosts whose rate is remembered: the same bound as the inet peers of a small machine. When it is reached, those are
/// forgotten that have their full number again.
const PEERS_MAX: usize = 4_096;

/// Why a packet cannot go on, as its sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no way to its network.
    NetUnreachable,
    /// Nobody answers for its destination.
    HostUnreachable,
    /// No program has its port.
    PortUnreachable,
    /// No program speaks its protocol.
    ProtocolUnreachable,
    /// That is forbidden.
    Prohibited,
    /// It has been through too many routers.
    TtlExceeded,
    /// Its other fragments did not come.
    ReassemblyTimeout,
    /// The next link takes only this many bytes.
    TooBig(u16),
}

impl Refusal {
    /// What a sender is told of a packet that ended for this reason.
    pub(super) fn of(reason: KernelDrop) -> Self {
        if reason == KernelDrop::Prohibited {
            Self::Prohibited
        } else if reason == KernelDrop::Unreachable {
            Self::HostUnreachable
        } else {
            Self::NetUnreachable
        }
    }

    const fn kind_v4(self) -> (u8, u8) {
        match self {
            Self::NetUnreachable => (3, 0),
            Self::HostUnreachable => (3, 1),
            Self::ProtocolUnreachable => (3, 2),
            Self::PortUnreachable => (3, 3),
            Self::TooBig(_) => (3, 4),
            Self::Prohibited => (3, 13),
            Self::TtlExceeded => (11, 0),
            Self::ReassemblyTimeout => (11, 1),
        }
    }

    const fn kind_v6(self) -> (u8, u8) {
        match self {
            Self::NetUnreachable => (1, 0),
            Self::Prohibited => (1, 1),
            Self::HostUnreachable => (1, 3),
            Self::PortUnreachable => (1, 4),
            Self::TooBig(_) => (2, 0),
            Self::TtlExceeded => (3, 0),
            Self::ReassemblyTimeout => (3, 1),
            Self::ProtocolUnreachable => (4, 1),
        }
    }
}

/// How many errors may be sent.
#[derive(Clone, Debug)]
pub(super) struct Limiter {
    plan: IcmpLimits,
    /// Time that may be spent on errors to each host, and when it was counted.
    peers: BTreeMap<Ip, (Duration, Instant)>,
    credit: u64,
    counted: Instant,
}

impl Limiter {
    pub(super) const fn new(plan: IcmpLimits) -> Self {
        Self { plan, peers: BTreeMap::new(), credit: 0, counted: Instant::ZERO }
    }

    /// Whether another error to this host may be sent now (`icmpv4_xrlim_allow`, `icmp_global_allow`).
    fn allows(&mut self, peer: Ip, now: Instant) -> bool {
        let interval = self.plan.interval;
        if interval.is_zero() {
            return true;
        }
        if !self.allows_all(now) {
            return false;
        }
        let full = interval * PEER_BURST;
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&peer) {
            self.peers.retain(|_, (tokens, counted)| *tokens + now.since(*counted) < full);
            if self.peers.len() >= PEERS_MAX {
                return false;
            }
        }
        let (tokens, counted) = self.peers.entry(peer).or_insert((full, now));
        *tokens = (*tokens + now.since(*counted)).min(full);
        *counted = now;
        let Some(left) = tokens.checked_sub(interval) else { return false };
        *tokens = left;
        self.credit = self.credit.saturating_sub(1);
        true
    }

    /// A bucket of `burst` that fills with `per_second`, in steps of a fiftieth of a second.
    fn allows_all(&mut self, now: Instant) -> bool {
        const STEP: Duration = Duration::from_millis(20);
        let burst = u64::from(self.plan.burst);
        let passed = now.since(self.counted);
        if self.counted == Instant::ZERO && self.credit == 0 {
            (self.credit, self.counted) = (burst, now);
        } else if passed >= STEP {
            let passed = u64::try_from(passed.min(Duration::from_secs(1)).as_millis()).unwrap_or(1_000);
            let gained = u64::from(self.plan.per_second) * passed / 1_000;
            self.credit = burst.min(self.credit + gained);
            self.counted = now;
        }
        self.credit > 0
    }
}

impl Kernel {
    /// A program of the machine cannot take a packet, and its sender is told: as UDP does for a closed port.
    pub fn reject(&mut self, now: Instant, refusal: Refusal, packet: Packet, out: &mut Out) {
        self.refuse(now, refusal, &packet, out);
        out.recycle(packet);
    }

    /// Tells the sender of a packet that it does not go on, unless no error may be sent about it (RFC 1122 s.3.2.2, RFC 4443
    /// s.2.4).
    pub(super) fn refuse(&mut self, now: Instant, refusal: Refusal, about: &Packet, out: &mut Out) {
        let Ok(head) = ip::parse(about.bytes()) else { return };
        if !self.may_refuse(&head, about) {
            return;
        }
        let has_limit = !matches!(refusal, Refusal::TooBig(_));
        if has_limit && !self.limiter.allows(head.source, now) {
            self.counts.errors_limited += 1;
        } else {
            self.send_error(now, refusal, &head, about, out);
        }
    }

    fn may_refuse(&self, head: &Head, about: &Packet) -> bool {
        let is_to_many = head.destination.is_multicast()
            || matches!(self.routing.local(head.destination), Some(LocalKind::Broadcast(_)))
            || head.destination == Ip::V4_BROADCAST;
        let is_from_nobody = head.source.is_unspecified()
            || head.source.is_multicast()
            || head.source == Ip::V4_BROADCAST
            || head.source.is_loopback();
        let kind = about.bytes().get(head.offset).copied();
        let is_error = match head.protocol {
            Protocol::ICMP => !matches!(kind, Some(0 | 8..=10 | 13..=18)),
            Protocol::ICMPV6 => kind.is_none_or(|kind| kind < 128 || kind == 137),
            _ => false,
        };
        head.has_transport() && !is_to_many && !is_from_nobody && !is_error
    }

    fn send_error(&mut self, now: Instant, refusal: Refusal, head: &Head, about: &Packet, out: &mut Out) {
        let own = self.routing.is_own(head.destination).then_some(head.destination);
        let Some(source) = own.or_else(|| self.select_source(head.source)) else { return };
        let is_v4 = head.is_v4();
        let (header_bytes, most) = if is_v4 { (V4_BYTES, ERROR_MAX_V4) } else { (V6_BYTES, ERROR_MAX_V6) };
        let room = most - header_bytes - MESSAGE_BYTES;
        let quoted = about.bytes().get(..room).unwrap_or_else(|| about.bytes());
        let (kind, code) = if is_v4 { refusal.kind_v4() } else { refusal.kind_v6() };
        let rest = if let Refusal::TooBig(mtu) = refusal { u32::from(mtu) } else { 0 };
        let mut packet = out.buffer().emptied(HEADROOM_BYTES + header_bytes);
        packet.grow_front(header_bytes);
        packet.extend(&[kind, code, 0, 0]);
        packet.extend(&rest.to_be_bytes());
        packet.extend(quoted);
        // The priority of network control (RFC 1812 s.4.3.2.5), as Linux sets it.
        let traffic = if is_v4 { ip::traffic(about.bytes()) & 0x1e | 0xc0 } else { 0 };
        let protocol = if is_v4 { Protocol::ICMP } else { Protocol::ICMPV6 };
        let identification = self.next_identification();
        let destination = head.source;
        let may_fragment = true;
        let new = NewHead { source, destination, protocol, ttl: TTL, traffic, identification, may_fragment };
        ip::write(&mut packet, &new);
        write_checksum(&mut packet, header_bytes, source, destination);
        self.counts.errors_sent += 1;
        self.counts.born += 1;
        // Where it ends it is counted there.
        let _ = self.output(now, packet, 0, out);
    }

    pub(super) const fn next_identification(&mut self) -> u16 {
        self.identification = self.identification.wrapping_add(1);
        self.identification
    }

    /// A message to the machine itself: for the stack, or for its programs.
    pub(super) fn deliver_message(
        &mut self,
        now: Instant,
        (inlet, cast): (DeviceId, Cast),
        head: &Head,
        packet: Packet,
        out: &mut Out,
    ) -> Option<Up> {
        let message = packet.bytes().get(head.offset..).unwrap_or(&[]);
        let pseudo = if head.protocol == Protocol::ICMP {
            0
        } else {
            ip::pseudo_sum(head.source, head.destination, Protocol::ICMPV6, message.len())
        };
        if message.len() < MESSAGE_BYTES {
            return self.end(KernelDrop::Malformed, packet, out);
        }
        if ip::finish(pseudo + ip::sum(message)) != 0 {
            return self.end(KernelDrop::MessageChecksum, packet, out);
        }
        match (head.is_v4(), message.first()) {
            (true, Some(8)) | (false, Some(128)) => self.echo(now, cast, head, packet, out),
            (false, Some(&(ndp::SOLICITATION | ndp::ADVERTISEMENT))) => {
                self.receive_ndp(now, (inlet, cast), head, packet, out)
            }
            _ => {
                self.counts.to_host += 1;
                Some(Up::Host(packet))
            }
        }
    }

    /// Turns an echo request around.
    fn echo(
        &mut self,
        now: Instant,
        cast: Cast,
        head: &Head,
        mut packet: Packet,
        out: &mut Out,
    ) -> Option<Up> {
        // Those to everybody stay unanswered (`icmp_echo_ignore_broadcasts`).
        if cast == Cast::Group || self.owner_or_loopback(head.destination).is_none() {
            return self.consume(packet, out);
        }
        let is_v4 = head.is_v4();
        let header_bytes = ip::header_bytes(head.source);
        // Options are not taken over.
        packet.take_front(head.offset - header_bytes);
        let traffic = if is_v4 { ip::traffic(packet.bytes()) } else { 0 };
        if let Some(kind) = packet.bytes_mut().get_mut(header_bytes) {
            *kind = if is_v4 { 0 } else { 129 };
        }
        let new = NewHead {
            source: head.destination,
            destination: head.source,
            protocol: head.protocol,
            ttl: TTL,
            traffic,
            identification: self.next_identification(),
            may_fragment: true,
        };
        ip::write(&mut packet, &new);
        write_checksum(&mut packet, header_bytes, head.destination, head.source);
        self.counts.echoes += 1;
        // What came in was for the stack, and what goes out is new.
        self.counts.consumed += 1;
        self.counts.born += 1;
        let _ = self.output(now, packet, 0, out);
        None
    }

    fn owner_or_loopback(&self, address: Ip) -> Option<DeviceId> {
        match self.routing.local(address) {
            Some(LocalKind::Own(device)) => Some(device),
            Some(LocalKind::Broadcast(_)) | None => None,
        }
    }
}

/// Writes the checksum of an ICMP message that begins at `offset`.
pub(super) fn write_checksum(packet: &mut Packet, offset: usize, source: Ip, destination: Ip) {
    let Some(message) = packet.bytes_mut().get_mut(offset..) else { return };
    if let Some(place) = message.get_mut(2..4) {
        place.fill(0);
    }
    let pseudo =
        if source.is_v4() { 0 } else { ip::pseudo_sum(source, destination, Protocol::ICMPV6, message.len()) };
    let check = ip::finish(pseudo + ip::sum(message)).to_be_bytes();
    if let Some(place) = message.get_mut(2..4) {
        place.copy_from_slice(&check);
    }
}
