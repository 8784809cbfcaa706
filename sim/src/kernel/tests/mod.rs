//! Machines on a wire: kernels joined by switches, with a plain clock. What one test says of one behaviour of Linux.

mod changes;
mod demonstrations;
mod forwarding;
mod home_router;
mod neighbours;
mod properties;
mod settings;
mod spread;
mod tunnels;
mod version_6;

use std::collections::BTreeMap;
use std::net::IpAddr;

use evenkeel_engine::plan::Prefix;
use evenkeel_engine::{Duration, Instant};

use super::plan::*;
use super::*;
use crate::packet::{self, End, Header, Packet};
use crate::wires::frame::MacAddress;
use crate::wires::{Switch, SwitchPlan};

/// How long a frame takes from machine to machine.
const HOP: Duration = Duration::from_micros(10);
/// The most events of a test: more are a storm.
const EVENTS_MAX: usize = 200_000;

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').unwrap();
    Prefix { address: ip(address), length: length.parse().unwrap() }
}

pub(super) fn prefixes(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|text| prefix(text)).collect()
}

/// A link address that says whose it is.
pub(super) fn mac(machine: u8, interface: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, machine, interface])
}

/// A plan with one interface for each list of addresses.
pub(super) fn plan(machine: u8, interfaces: &[&[&str]]) -> KernelPlan {
    let interfaces = (0..).zip(interfaces).map(|(number, addresses)| {
        Interface::new(&format!("eth{number}"), mac(machine, number), prefixes(addresses))
    });
    KernelPlan {
        name: format!("machine{machine}"),
        interfaces: interfaces.collect(),
        ..KernelPlan::default()
    }
}

pub(super) fn default_route(gateway: &str) -> Route {
    let all = if ip(gateway).is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    Route::new(prefix(all), Hop::via(ip(gateway)))
}

/// A datagram.
pub(super) fn udp(from: (&str, u16), to: (&str, u16), length: usize) -> Packet {
    let end = |(address, port): (&str, u16)| End { address: ip(address), port };
    packet::build(Packet::default(), (end(from), end(to)), Header::Udp, length, |payload| payload.fill(7))
}

/// An echo request.
pub(super) fn echo_request(from: &str, to: &str, id: u16, payload: &[u8]) -> Packet {
    let (from, to) = (ip(from), ip(to));
    let mut bytes = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let builder = etherparse::PacketBuilder::ipv4(from.octets(), to.octets(), 64);
            builder.icmpv4_echo_request(id, 1).write(&mut bytes, payload).unwrap();
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let builder = etherparse::PacketBuilder::ipv6(from.octets(), to.octets(), 64);
            builder.icmpv6_echo_request(id, 1).write(&mut bytes, payload).unwrap();
        }
        _ => panic!("two families"),
    }
    Packet::copied_into(Packet::default(), &bytes)
}

/// Asserts that lengths and checksums of a frame are right, as another reader of packets sees them.
pub(super) fn assert_sound(bytes: &[u8]) {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    let sliced = SlicedPacket::from_ethernet(bytes).unwrap_or_else(|error| panic!("{error}: {bytes:02x?}"));
    let (source, destination) = match &sliced.net {
        Some(NetSlice::Ipv4(slice)) => {
            let header = slice.header();
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum(), "{bytes:02x?}");
            assert_eq!(usize::from(header.total_len()), bytes.len() - 14);
            if slice.payload().fragmented {
                return;
            }
            (header.source().to_vec(), header.destination().to_vec())
        }
        Some(NetSlice::Ipv6(slice)) => {
            let header = slice.header();
            assert_eq!(usize::from(header.payload_length()), bytes.len() - 54);
            if slice.payload().fragmented {
                return;
            }
            (header.source().to_vec(), header.destination().to_vec())
        }
        _ => return,
    };
    let pseudo = |protocol: u8, length: usize| {
        let mut bytes = [&source[..], &destination[..]].concat();
        bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
        bytes.extend([0, 0, 0, protocol]);
        bytes
    };
    let covered = match &sliced.transport {
        Some(TransportSlice::Udp(udp)) if udp.checksum() == 0 => return,
        Some(TransportSlice::Udp(udp)) => [pseudo(17, udp.slice().len()), udp.slice().to_vec()].concat(),
        Some(TransportSlice::Tcp(tcp)) => [pseudo(6, tcp.slice().len()), tcp.slice().to_vec()].concat(),
        Some(TransportSlice::Icmpv4(icmp)) => icmp.slice().to_vec(),
        Some(TransportSlice::Icmpv6(icmp)) => {
            [pseudo(58, icmp.slice().len()), icmp.slice().to_vec()].concat()
        }
        Some(TransportSlice::Igmp(_)) | None => return,
    };
    let words = covered.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    assert_eq!(sum, 0xffff, "{bytes:02x?}");
}

/// A packet in a frame.
pub(super) fn framed(from: MacAddress, to: MacAddress, mut packet: Packet) -> Packet {
    let is_v4 = packet.bytes()[0] >> 4 == 4;
    let ethertype = if is_v4 { frame::IPV4 } else { frame::IPV6 };
    frame::put_header(&mut packet, &frame::header_bytes(to, from, ethertype));
    packet
}

/// A request by ARP to all stations.
pub(super) fn arp_request(from: MacAddress, sender: &str, target: &str) -> Packet {
    arp(1, (from, sender), (MacAddress::default(), target), MacAddress::BROADCAST)
}

/// An answer by ARP to one station.
pub(super) fn arp_reply(from: (MacAddress, &str), to: (MacAddress, &str)) -> Packet {
    arp(2, from, to, to.0)
}

fn arp(operation: u8, sender: (MacAddress, &str), target: (MacAddress, &str), to: MacAddress) -> Packet {
    let octets = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, operation];
    for (mac, address) in [sender, target] {
        bytes.extend(mac.0);
        bytes.extend(octets(address));
    }
    let mut packet = Packet::copied_into(Packet::default(), &bytes);
    frame::put_header(&mut packet, &frame::header_bytes(to, sender.0, frame::ARP));
    packet
}

/// What a machine got.
#[derive(Clone, Debug)]
pub(super) struct Got {
    pub(super) at: Instant,
    pub(super) machine: usize,
    pub(super) tun: Option<usize>,
    pub(super) bytes: Vec<u8>,
}

/// A frame that was on a network.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) at: Instant,
    pub(super) network: usize,
    pub(super) from: usize,
    pub(super) bytes: Vec<u8>,
}

/// Machines on networks.
pub(super) struct Lab {
    pub(super) now: Instant,
    pub(super) machines: Vec<Kernel>,
    /// The network and port of each machine's interfaces.
    ports: BTreeMap<(usize, usize), (usize, usize)>,
    plugged: BTreeMap<(usize, usize), (usize, usize)>,
    pub(super) networks: Vec<Switch>,
    flying: BTreeMap<(Instant, u64), (usize, usize, Packet)>,
    sequence: u64,
    pub(super) out: Out,
    pub(super) got: Vec<Got>,
    pub(super) seen: Vec<Seen>,
}

impl Lab {
    /// Machines with the network of each interface.
    pub(super) fn new(machines: &[(KernelPlan, &[usize])]) -> Self {
        let mut lab = Self {
            now: Instant::ZERO,
            machines: Vec::new(),
            ports: BTreeMap::new(),
            plugged: BTreeMap::new(),
            networks: Vec::new(),
            flying: BTreeMap::new(),
            sequence: 0,
            out: Out::default(),
            got: Vec::new(),
            seen: Vec::new(),
        };
        let mut used = BTreeMap::new();
        for (index, (plan, networks)) in machines.iter().enumerate() {
            lab.machines.push(Kernel::new(plan, 1).unwrap());
            for (interface, network) in networks.iter().enumerate() {
                let port = used.entry(*network).or_insert(0);
                lab.ports.insert((index, interface), (*network, *port));
                lab.plugged.insert((*network, *port), (index, interface));
                *port += 1;
            }
        }
        let count = used.keys().max().map_or(0, |last| last + 1);
        lab.networks = (0..count)
            .map(|network| Switch::new(SwitchPlan::plain(used.get(&network).copied().unwrap_or(0))))
            .collect();
        for index in 0..lab.machines.len() {
            lab.machines[index].start(lab.now, &mut lab.out);
            lab.collect(index);
        }
        lab
    }

    pub(super) fn send(&mut self, machine: usize, packet: Packet) -> Result<(), KernelDrop> {
        let result = self.machines[machine].send(self.now, packet, &mut self.out);
        self.collect(machine);
        result
    }

    pub(super) fn receive_from_tun(&mut self, machine: usize, tun: usize, packet: Packet) {
        let up = self.machines[machine].receive_from_tun(self.now, tun, packet, &mut self.out);
        self.out.up.extend(up);
        self.collect(machine);
    }

    /// Lets a machine do something and sends what it wants to send.
    pub(super) fn with<T>(
        &mut self,
        machine: usize,
        act: impl FnOnce(&mut Kernel, Instant, &mut Out) -> T,
    ) -> T {
        let result = act(&mut self.machines[machine], self.now, &mut self.out);
        self.collect(machine);
        result
    }

    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        for _ in 0..EVENTS_MAX {
            let frame = self.flying.keys().next().map(|(at, _)| *at);
            let timer = self.machines.iter().map(Kernel::deadline).min();
            let Some(at) = frame.into_iter().chain(timer).min().filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = at;
            if frame == Some(at) {
                let (_, (machine, interface, packet)) = self.flying.pop_first().unwrap();
                let up = self.machines[machine].receive(at, interface, packet, &mut self.out);
                self.out.keep(up);
                self.collect(machine);
                continue;
            }
            for machine in 0..self.machines.len() {
                if self.machines[machine].deadline() <= at {
                    self.machines[machine].timeout(at, &mut self.out);
                    assert!(self.machines[machine].deadline() > at);
                    self.collect(machine);
                }
            }
        }
        panic!("a storm");
    }

    fn collect(&mut self, machine: usize) {
        for up in self.out.up.drain(..) {
            let (tun, packet) = match up {
                Up::Host(packet) => (None, packet),
                Up::Tun(tun, packet) => (Some(tun), packet),
                Up::Wire(..) => unreachable!("it is among the frames"),
            };
            self.got.push(Got { at: self.now, machine, tun, bytes: packet.bytes().to_vec() });
        }
        for (interface, packet) in std::mem::take(&mut self.out.frames) {
            let (network, port) = self.ports[&(machine, interface)];
            let bytes = packet.bytes().to_vec();
            assert_sound(&bytes);
            self.seen.push(Seen { at: self.now, network, from: machine, bytes });
            let mut exits = Vec::new();
            let _ = self.networks[network].forward(port, &packet, self.now, &mut exits);
            for exit in exits {
                let (to, interface) = self.plugged[&(network, exit.port)];
                self.sequence += 1;
                let copy = Packet::copied_into(Packet::default(), packet.bytes());
                self.flying.insert((self.now.after(HOP), self.sequence), (to, interface, copy));
            }
        }
    }

    /// What a machine's programs got since the last time.
    pub(super) fn take(&mut self, machine: usize) -> Vec<Got> {
        let (taken, kept) = std::mem::take(&mut self.got).into_iter().partition(|got| got.machine == machine);
        self.got = kept;
        taken
    }

    /// Asserts that every packet ended once, on every machine.
    pub(super) fn assert_conserved(&self) {
        for machine in &self.machines {
            assert_conserved(machine);
        }
    }
}

pub(super) fn assert_conserved(kernel: &Kernel) {
    let counts = kernel.counts();
    let came = counts.received + counts.sent + counts.from_tuns + counts.born + counts.split;
    let ended = counts.transmitted
        + counts.to_host
        + counts.to_tuns
        + counts.consumed
        + counts.dropped_all()
        + counts.waiting;
    assert_eq!(came, ended, "{counts:?}");
}

/// The link address that a machine has for another.
pub(super) fn known(lab: &Lab, machine: usize, interface: usize, address: &str) -> Option<MacAddress> {
    lab.machines[machine].neighbour(interface, ip(address)).map(|(_, mac)| mac)
}

#[test]
fn two_machines_find_each_other_and_talk() {
    let (a, b) = (plan(1, &[&["10.0.0.1/24"]]), plan(2, &[&["10.0.0.2/24"]]));
    let mut lab = Lab::new(&[(a, &[0]), (b, &[0])]);
    lab.send(0, udp(("10.0.0.1", 1), ("10.0.0.2", 2), 100)).unwrap();
    lab.run(Duration::from_millis(1));
    let got = lab.take(1);
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].bytes, udp(("10.0.0.1", 1), ("10.0.0.2", 2), 100).bytes());
    assert_eq!(got[0].at.as_nanos(), 30_000, "request, reply, packet");
    assert_eq!(known(&lab, 0, 0, "10.0.0.2"), Some(mac(2, 0)));
    assert_eq!(known(&lab, 1, 0, "10.0.0.1"), Some(mac(1, 0)), "whoever asks is known");
    lab.send(1, udp(("10.0.0.2", 2), ("10.0.0.1", 1), 100)).unwrap();
    lab.run(Duration::from_secs(1));
    assert_eq!(lab.take(0).len(), 1);
    lab.assert_conserved();
}
