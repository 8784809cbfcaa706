//! Who is where on a link: ARP (RFC 826) and neighbour discovery (RFC 4861), with Linux's states and times.
//!
//! ```text
//!  nothing -> incomplete -> reachable -> stale -> delay -> probe -> reachable
//!                 |  (3 questions, 1 s apart)                |  (3 questions)
//!                 +-> nothing: what waits is given up        +-> nothing
//! ```
//! Reachable becomes stale by time alone, which is looked at when the neighbour is next used.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evenkeel_engine::{Duration, Instant};

use super::plan::network;
use super::{Device, KernelPlan, Out};
use crate::packet::{self, ETHERNET_BYTES, Packet};
use crate::scenario::Subnet;

/// How long a neighbour counts as reachable after it has said so (`base_reachable_time_ms`).
const REACHABLE: Duration = Duration::from_secs(30);
/// How long a stale one that is used has to be confirmed before it is asked (`delay_first_probe_time`).
const DELAY: Duration = Duration::from_secs(5);
/// The time between two questions (`retrans_time_ms`).
const RETRANS: Duration = Duration::from_secs(1);
/// Questions to everybody, and to a known station (`mcast_solicit`, `ucast_solicit`).
const PROBES: u8 = 3;
/// How long a neighbour's answer can not be overruled by another's (`locktime`).
const LOCK: Duration = Duration::from_secs(1);
/// Packets that wait for one neighbour: what Linux's 212,992 bytes are of full ones.
const QUEUE_MAX: usize = 101;
/// Neighbours of one machine (`gc_thresh3` by default is 1,024; segments here have up to 65,536 hosts).
const NEIGHBOURS_MAX: usize = 1 << 17;

const ARP_BYTES: usize = 28;
const BROADCAST: [u8; 6] = [255; 6];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Incomplete,
    Reachable,
    Stale,
    Delay,
    Probe,
}

#[derive(Debug)]
struct Neighbour {
    state: State,
    mac: [u8; 6],
    /// When it last said where it is.
    updated: Instant,
    /// When the next timer of it is due.
    due: Instant,
    probes: u8,
    waiting: VecDeque<Packet>,
    /// The source of the packet that asked first.
    asker: Option<IpAddr>,
}

/// The neighbours of a machine.
#[derive(Debug)]
pub(super) struct Neighbours {
    known: BTreeMap<(usize, IpAddr), Neighbour>,
    timers: BinaryHeap<Reverse<(u64, usize, IpAddr)>>,
    /// Packets of neighbours that did not answer, with the interface that they would have left by.
    given_up: VecDeque<(usize, Packet)>,
    /// Whether anybody here could be asked for: a machine without addresses hears nothing.
    is_mute: bool,
}

impl Neighbours {
    pub(super) fn new(plan: &KernelPlan) -> Self {
        Self {
            known: BTreeMap::new(),
            timers: BinaryHeap::new(),
            given_up: VecDeque::new(),
            is_mute: plan.interfaces.is_empty(),
        }
    }

    // Packets out.

    /// Sends a packet to a neighbour, or keeps it until that has said where it is. Gives back one for which there is no
    /// room.
    #[inline]
    pub(super) fn send(
        &mut self,
        now: Instant,
        plan: &KernelPlan,
        interface: usize,
        next_hop: IpAddr,
        packet: Packet,
        out: &mut Out,
    ) -> Option<Packet> {
        let Some(own) = plan.interfaces.get(interface) else { return Some(packet) };
        if let Some(neighbour) = self.known.get_mut(&(interface, next_hop)) {
            if neighbour.state == State::Reachable && now.since(neighbour.updated) >= REACHABLE {
                neighbour.state = State::Stale;
            }
            if neighbour.state == State::Stale {
                neighbour.state = State::Delay;
                neighbour.asker = packet::sender_address(packet.bytes());
                neighbour.due = now.after(DELAY);
                self.timers.push(Reverse((neighbour.due.as_nanos(), interface, next_hop)));
            }
            if neighbour.state != State::Incomplete {
                out.push(interface, framed(packet, neighbour.mac, own.mac));
                return None;
            }
            if neighbour.waiting.len() >= QUEUE_MAX {
                return Some(packet);
            }
            neighbour.waiting.push_back(packet);
            return None;
        }
        if self.known.len() >= NEIGHBOURS_MAX {
            return Some(packet);
        }
        let asker = packet::sender_address(packet.bytes());
        let due = now.after(RETRANS);
        let neighbour = Neighbour {
            state: State::Incomplete,
            mac: BROADCAST,
            updated: now,
            due,
            probes: 1,
            waiting: VecDeque::from([packet]),
            asker,
        };
        self.known.insert((interface, next_hop), neighbour);
        self.timers.push(Reverse((due.as_nanos(), interface, next_hop)));
        ask(plan, interface, next_hop, None, asker, out);
        None
    }

    // Time.

    /// Asks again where that is due. Gives the next packet of a neighbour that did not answer.
    pub(super) fn timeout(
        &mut self,
        now: Instant,
        plan: &KernelPlan,
        out: &mut Out,
    ) -> Option<(usize, Packet)> {
        if let Some(given_up) = self.given_up.pop_front() {
            return Some(given_up);
        }
        while let Some(Reverse((due, interface, address))) = self.timers.peek().copied() {
            if due > now.as_nanos() {
                return None;
            }
            self.timers.pop();
            let Some(neighbour) = self.known.get_mut(&(interface, address)) else { continue };
            if neighbour.due.as_nanos() != due {
                continue;
            }
            match neighbour.state {
                State::Reachable | State::Stale => continue,
                State::Delay => (neighbour.state, neighbour.probes) = (State::Probe, 0),
                State::Incomplete | State::Probe => {}
            }
            if neighbour.probes >= PROBES {
                let gone = self.known.remove(&(interface, address));
                self.given_up
                    .extend(gone.into_iter().flat_map(|gone| gone.waiting).map(|it| (interface, it)));
                if let Some(given_up) = self.given_up.pop_front() {
                    return Some(given_up);
                }
                continue;
            }
            neighbour.probes += 1;
            neighbour.due = now.after(RETRANS);
            self.timers.push(Reverse((neighbour.due.as_nanos(), interface, address)));
            let station = (neighbour.state == State::Probe).then_some(neighbour.mac);
            ask(plan, interface, address, station, neighbour.asker, out);
        }
        None
    }

    pub(super) fn deadline(&self) -> Instant {
        self.timers.peek().map_or(Instant::NEVER, |Reverse((due, ..))| Instant::from_nanos(*due))
    }

    /// Forgets everyone behind an interface. Gives the number of packets that waited.
    pub(super) fn forget(&mut self, interface: usize, out: &mut Out) -> u64 {
        let keys: Vec<_> = self.known.keys().filter(|(at, _)| *at == interface).copied().collect();
        let mut count = 0;
        for neighbour in keys.iter().filter_map(|key| self.known.remove(key)).collect::<Vec<_>>() {
            for packet in neighbour.waiting {
                count += 1;
                out.recycle(packet);
            }
        }
        count
    }

    pub(super) fn known(&self) -> impl Iterator<Item = (usize, IpAddr, [u8; 6])> + '_ {
        let is_known = |(_, neighbour): &(&(usize, IpAddr), &Neighbour)| neighbour.state != State::Incomplete;
        self.known.iter().filter(is_known).map(|((at, address), neighbour)| (*at, *address, neighbour.mac))
    }

    // What others say.

    /// Hears an ARP packet in a frame.
    pub(super) fn hear_arp(
        &mut self,
        now: Instant,
        plan: &KernelPlan,
        interface: usize,
        frame: &[u8],
        out: &mut Out,
    ) {
        let Some(body) = frame.get(ETHERNET_BYTES..).and_then(|body| body.first_chunk::<ARP_BYTES>()) else {
            return;
        };
        let [0, 1, 8, 0, 6, 4, 0, operation @ (1 | 2), rest @ ..] = body else { return };
        let (mac, rest) = rest.split_at(6);
        let (sender, rest) = rest.split_at(4);
        let (Ok(mac), Ok(sender)) = (<[u8; 6]>::try_from(mac), <[u8; 4]>::try_from(sender)) else { return };
        let Some(target) = rest.get(6..10).and_then(|target| <[u8; 4]>::try_from(target).ok()) else {
            return;
        };
        let (sender, target) = (Ipv4Addr::from(sender), Ipv4Addr::from(target));
        if self.is_mute || mac[0] & 1 == 1 {
            return;
        }
        let is_request = *operation == 1;
        let is_gratuitous = sender == target;
        if is_request && !is_gratuitous && answers(plan, interface, sender, target) {
            let Some(own) = plan.interfaces.get(interface) else { return };
            if !sender.is_unspecified() {
                // Whoever asks will be answered soon, and is worth a place.
                self.learn(now, plan, (interface, sender.into()), mac, false, true, out);
            }
            out_arp(2, (own.mac, target), (mac, sender), mac, interface, out);
            return;
        }
        let is_for_us = frame.first_chunk::<6>().is_some_and(|to| *to != BROADCAST);
        self.learn(now, plan, (interface, sender.into()), mac, !is_request && is_for_us, false, out);
    }

    /// Hears a message of neighbour discovery in an IPv6 packet. Returns whether it was one.
    pub(super) fn hear_ndp(
        &mut self,
        now: Instant,
        plan: &KernelPlan,
        interface: usize,
        packet: &[u8],
        out: &mut Out,
    ) -> bool {
        let Some((header, message)) = packet.split_first_chunk::<40>() else { return false };
        let ([first, _, _, _, _, _, 58, 255, addresses @ ..], Some(kind @ (135 | 136))) =
            (header, message.first().copied())
        else {
            return false;
        };
        if first >> 4 != 6 || !packet::is_whole_icmpv6(packet) {
            return first >> 4 == 6;
        }
        let Some(target) = message.get(8..24).and_then(|it| <[u8; 16]>::try_from(it).ok()) else {
            return true;
        };
        let Some(source) = addresses.first_chunk::<16>() else { return true };
        let (source, target) = (Ipv6Addr::from(*source), Ipv6Addr::from(target));
        let option = |wanted: u8| match message.get(24..32) {
            Some([kind, 1, mac @ ..]) if *kind == wanted => <[u8; 6]>::try_from(mac).ok(),
            _ => None,
        };
        if kind == 135 {
            let Some(own) = plan.interfaces.get(interface) else { return true };
            let is_answered =
                plan.addresses(Device::Interface(interface)).iter().any(|it| it.address == target)
                    || plan.proxies.contains(&(interface, target.into()));
            if let Some(mac) = option(1).filter(|_| is_answered && !source.is_unspecified()) {
                self.learn(now, plan, (interface, source.into()), mac, false, true, out);
                let advertisement = ndp(136, 0x60, (target, source), target, own.mac, out.buffer());
                out.push(interface, framed(advertisement, mac, own.mac));
            }
            return true;
        }
        let is_solicited = message.get(4).is_some_and(|flags| flags & 0x40 != 0);
        if let Some(mac) = option(2) {
            self.learn(now, plan, (interface, target.into()), mac, is_solicited, false, out);
        }
        true
    }

    /// Notes where a neighbour is. One that nobody asked about gets a place only where `creates`.
    #[allow(clippy::too_many_arguments, reason = "each is a part of one sentence that a neighbour says")]
    fn learn(
        &mut self,
        now: Instant,
        plan: &KernelPlan,
        key: (usize, IpAddr),
        mac: [u8; 6],
        is_answer: bool,
        creates: bool,
        out: &mut Out,
    ) {
        let is_full = self.known.len() >= NEIGHBOURS_MAX;
        let Some(neighbour) = self.known.get_mut(&key) else {
            if creates && !is_full {
                let neighbour = Neighbour {
                    state: State::Stale,
                    mac,
                    updated: now,
                    due: Instant::NEVER,
                    probes: 0,
                    waiting: VecDeque::new(),
                    asker: None,
                };
                self.known.insert(key, neighbour);
            }
            return;
        };
        let is_known = neighbour.state != State::Incomplete;
        if is_known && neighbour.mac != mac && now.since(neighbour.updated) < LOCK {
            return;
        }
        let is_same = is_known && neighbour.mac == mac;
        neighbour.mac = mac;
        if is_answer {
            neighbour.state = State::Reachable;
        } else if !is_same {
            neighbour.state = State::Stale;
        }
        neighbour.updated = now;
        let Some(own) = plan.interfaces.get(key.0) else { return };
        for packet in neighbour.waiting.drain(..) {
            out.push(key.0, framed(packet, mac, own.mac));
        }
    }
}

/// Whether this machine answers who has `target` (`arp_ignore`, proxy neighbours).
fn answers(plan: &KernelPlan, interface: usize, sender: Ipv4Addr, target: Ipv4Addr) -> bool {
    let target = IpAddr::V4(target);
    if plan.proxies.contains(&(interface, target)) {
        return true;
    }
    let mut here = plan.addresses(Device::Interface(interface)).iter();
    match plan.sysctl.arp_ignore {
        0 => plan.own_addresses().contains(&target),
        1 => here.any(|subnet| subnet.address == target),
        2 => here.any(|subnet| subnet.address == target && network(subnet).contains(sender.into())),
        _ => false,
    }
}

/// Asks who has an address: everybody, or a station that is thought to have it.
fn ask(
    plan: &KernelPlan,
    interface: usize,
    target: IpAddr,
    station: Option<[u8; 6]>,
    asker: Option<IpAddr>,
    out: &mut Out,
) {
    let Some(own) = plan.interfaces.get(interface) else { return };
    match target {
        IpAddr::V4(target) => {
            let Some(source) = announced(plan, interface, target, asker) else { return };
            let to = station.unwrap_or(BROADCAST);
            out_arp(1, (own.mac, source), ([0; 6], target), to, interface, out);
        }
        IpAddr::V6(target) => {
            let Some(IpAddr::V6(source)) = plan.address_towards(Device::Interface(interface), target.into())
            else {
                return;
            };
            let [.., a, b, c] = target.octets();
            let group =
                Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
            let (to, mac) = match station {
                Some(mac) => (target, mac),
                None => (group, [0x33, 0x33, 0xff, a, b, c]),
            };
            let question = ndp(135, 0, (source, to), target, own.mac, out.buffer());
            out.push(interface, framed(question, mac, own.mac));
        }
    }
}

/// The source of a question (`arp_announce`).
fn announced(
    plan: &KernelPlan,
    interface: usize,
    target: Ipv4Addr,
    asker: Option<IpAddr>,
) -> Option<Ipv4Addr> {
    let device = Device::Interface(interface);
    let own = asker.filter(|asker| plan.own_addresses().contains(asker));
    let is_near = |asker: &IpAddr| {
        let holds =
            |subnet: &Subnet| network(subnet).contains(target.into()) && network(subnet).contains(*asker);
        plan.addresses(device).iter().any(holds)
    };
    let kept = match plan.sysctl.arp_announce {
        0 => own,
        1 => own.filter(is_near),
        _ => None,
    };
    match kept.or_else(|| plan.address_towards(device, target.into()))? {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// Sends an ARP packet.
fn out_arp(
    operation: u8,
    from: ([u8; 6], Ipv4Addr),
    to: ([u8; 6], Ipv4Addr),
    station: [u8; 6],
    interface: usize,
    out: &mut Out,
) {
    let mut body = [0; ARP_BYTES];
    let parts: [&[u8]; 5] =
        [&[0, 1, 8, 0, 6, 4, 0, operation], &from.0, &from.1.octets(), &to.0, &to.1.octets()];
    for (place, byte) in body.iter_mut().zip(parts.concat()) {
        *place = byte;
    }
    let packet = Packet::copied_into(out.buffer(), &body);
    out.push(interface, with_header(packet, station, from.0, [0x08, 0x06]));
}

/// A message of neighbour discovery (RFC 4861 s.4.3, s.4.4) with the link-layer address of its sender.
fn ndp(
    kind: u8,
    flags: u8,
    (source, to): (Ipv6Addr, Ipv6Addr),
    target: Ipv6Addr,
    mac: [u8; 6],
    buffer: Vec<u8>,
) -> Packet {
    let option = if kind == 135 { 1 } else { 2 };
    let body = [&[kind, 0, 0, 0, flags, 0, 0, 0][..], &target.octets(), &[option, 1], &mac].concat();
    packet::icmpv6(buffer, (source, to), 255, body)
}

/// A packet as a frame.
fn framed(packet: Packet, to: [u8; 6], from: [u8; 6]) -> Packet {
    let is_v4 = packet.bytes().first().is_some_and(|first| first >> 4 == 4);
    with_header(packet, to, from, if is_v4 { [0x08, 0x00] } else { [0x86, 0xdd] })
}

fn with_header(mut packet: Packet, to: [u8; 6], from: [u8; 6], kind: [u8; 2]) -> Packet {
    // Every packet has room in front: it came out of a frame, or was built with it.
    packet.range.start = packet.range.start.saturating_sub(ETHERNET_BYTES);
    if let Some(header) = packet.bytes_mut().first_chunk_mut::<ETHERNET_BYTES>() {
        let [t0, t1, t2, t3, t4, t5] = to;
        let [f0, f1, f2, f3, f4, f5] = from;
        *header = [t0, t1, t2, t3, t4, t5, f0, f1, f2, f3, f4, f5, kind[0], kind[1]];
    }
    packet
}
