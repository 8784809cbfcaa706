//! What the engine's behaviour tests share: a device in memory, a small plan, and packets made by `etherparse`,
//! which shares no code with the engine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    unreachable_pub,
    reason = "test support: a panic is a failed test"
)]

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use etherparse::{IpNumber, Ipv4Header, Ipv4HeaderSlice, PacketBuilder, TcpHeaderSlice, UdpHeaderSlice};
use evenkeel_engine::device::{BATCH_MAX, HEADROOM_BYTES, Offload, PacketBuffer};
use evenkeel_engine::plan::{
    Binding, Builtin, DirectorPlan, InterfacePlan, Layer, Mode, Plan, Prefix, RoutePlan, ServerPlan,
    SourceNat,
};
use evenkeel_engine::wire::{HashKey, Protocol};
use evenkeel_engine::{Device, DropReason, Engine, Guests, Instant, InterfaceId, Verdict, step};

pub const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
pub const OWN: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
pub const TUN: InterfaceId = InterfaceId(0);

/// A device whose inbox and outbox are lists.
#[derive(Debug, Default)]
pub struct Memory {
    pub inbox: VecDeque<(InterfaceId, Vec<u8>, Offload)>,
    pub outbox: Vec<(InterfaceId, Vec<u8>)>,
    /// Packets that one `receive` takes in at most.
    pub batch: usize,
    /// Packets that it still takes.
    pub room: usize,
    pub slots: Vec<(InterfaceId, Vec<u8>, Range<usize>, Offload)>,
    /// What it was told of ends, by slot.
    pub ends: Vec<(usize, Verdict)>,
}

impl Memory {
    pub fn new() -> Self {
        Self { batch: BATCH_MAX, room: usize::MAX, ..Self::default() }
    }
}

impl Device for Memory {
    fn receive(&mut self) -> usize {
        while self.slots.len() < self.batch.min(BATCH_MAX) {
            let Some((interface, packet, offload)) = self.inbox.pop_front() else { break };
            let mut buffer = vec![0; HEADROOM_BYTES];
            buffer.extend_from_slice(&packet);
            let range = HEADROOM_BYTES..buffer.len();
            self.slots.push((interface, buffer, range, offload));
        }
        self.slots.len()
    }

    fn packet(&mut self, slot: usize) -> PacketBuffer<'_> {
        let (interface, buffer, range, offload) = &mut self.slots[slot];
        PacketBuffer { interface: *interface, buffer, range: range.clone(), offload: *offload }
    }

    fn forward(&mut self, slot: usize, interface: InterfaceId, range: Range<usize>) -> bool {
        let bytes = self.slots[slot].1[range].to_vec();
        self.send(interface, &bytes)
    }

    fn send(&mut self, interface: InterfaceId, bytes: &[u8]) -> bool {
        if self.room == 0 {
            return false;
        }
        self.room -= 1;
        self.outbox.push((interface, bytes.to_vec()));
        true
    }

    fn flush(&mut self) {
        self.slots.clear();
    }

    fn ended(&mut self, slot: usize, end: Verdict) {
        self.ends.push((slot, end));
    }
}

pub fn interface(name: &str, own: Ipv4Addr, length: u8) -> InterfacePlan {
    let addresses = vec![Prefix { address: own.into(), length }];
    InterfacePlan { addresses, ..InterfacePlan::new(name, Layer::Ip) }
}

pub fn server(name: &str, last: u8, weight: u32) -> ServerPlan {
    let address = IpAddr::from([10, 0, 3, last]);
    ServerPlan::new(name, address, 8080, weight)
}

pub fn director(name: &str, protocol: Protocol, servers: Vec<ServerPlan>) -> DirectorPlan {
    DirectorPlan::new(name, Binding::of(VIP.into(), 80, protocol), Builtin::RoundRobin, servers)
}

pub fn full_nat(ports: std::ops::RangeInclusive<u16>) -> Mode {
    Mode::Nat { sources: vec![SourceNat::to(OWN.into(), ports)] }
}

/// One TUN, a TCP and a UDP director on the same VIP with two real servers.
pub fn plan() -> Plan {
    let servers = || vec![server("s1", 20, 1), server("s2", 21, 1)];
    let default = Prefix { address: IpAddr::from([0, 0, 0, 0]), length: 0 };
    Plan {
        hash_key: HashKey([1, 2]),
        seed: 1,
        interfaces: vec![interface("tun0", OWN, 24)],
        routes: vec![RoutePlan { destination: default, gateway: None, interface: TUN }],
        directors: vec![director("web", Protocol::TCP, servers()), director("dns", Protocol::UDP, servers())],
        ..Plan::empty()
    }
}

pub fn engine(plan: Plan) -> Engine {
    Engine::new(plan, Guests::default(), Instant::ZERO).unwrap()
}

pub fn at(milliseconds: u64) -> Instant {
    Instant::from_nanos(milliseconds * 1_000_000)
}

/// Sends `packets` through `engine` on interface 0 and gives what comes out.
pub fn exchange(engine: &mut Engine, packets: &[Vec<u8>], now: Instant) -> Vec<Vec<u8>> {
    exchange_on(engine, TUN, packets, now).into_iter().map(|(_, packet)| packet).collect()
}

pub fn exchange_on(
    engine: &mut Engine,
    interface: InterfaceId,
    packets: &[Vec<u8>],
    now: Instant,
) -> Vec<(InterfaceId, Vec<u8>)> {
    let mut device = Memory::new();
    device.inbox.extend(packets.iter().map(|packet| (interface, packet.clone(), Offload::default())));
    while step(engine, &mut device, now).received > 0 {}
    assert!(engine.counters().is_conserved(), "{:?}", engine.counters());
    device.outbox
}

/// Sends one packet and gives the one that comes out.
pub fn one(engine: &mut Engine, packet: Vec<u8>, now: Instant) -> Vec<u8> {
    let mut out = exchange(engine, &[packet], now);
    assert_eq!(out.len(), 1, "{:?}", dropped(engine));
    out.remove(0)
}

/// Sends one packet, which must end for `reason`; gives what was born of it.
pub fn refused(engine: &mut Engine, packet: Vec<u8>, reason: DropReason) -> Vec<Vec<u8>> {
    let before = engine.counters().dropped(reason);
    let out = exchange(engine, &[packet], at(1));
    assert_eq!(engine.counters().dropped(reason), before + 1, "{:?}", dropped(engine));
    out
}

pub fn dropped(engine: &Engine) -> Vec<(&'static str, u64)> {
    let drops = engine.counters().drops().filter(|(_, count)| *count > 0);
    drops.map(|(reason, count)| (reason.name(), count)).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub source: (Ipv4Addr, u16),
    pub destination: (Ipv4Addr, u16),
}

pub fn ends(source: Ipv4Addr, source_port: u16, destination: Ipv4Addr, destination_port: u16) -> Ends {
    Ends { source: (source, source_port), destination: (destination, destination_port) }
}

/// From the client's port to the VIP.
pub fn call(port: u16) -> Ends {
    ends(CLIENT, port, VIP, 80)
}

pub fn udp(ends: Ends, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ipv4(ends.source.0.octets(), ends.destination.0.octets(), 64);
    let builder = builder.udp(ends.source.1, ends.destination.1);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, payload).unwrap();
    bytes
}

/// A segment of a connection whose first bytes have the numbers 1001 (the client's) and 2000; real servers speak from
/// port 8080.
pub fn tcp(ends: Ends, flags: &str, payload: &[u8]) -> Vec<u8> {
    let is_server = ends.source.1 == 8080;
    let (own, other) = if is_server { (2000, 1001) } else { (1001, 2000) };
    let sequence = own - u32::from(flags.contains('S'));
    segment(ends, flags, sequence, other, payload)
}

pub fn segment(ends: Ends, flags: &str, sequence: u32, acknowledgement: u32, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ipv4(ends.source.0.octets(), ends.destination.0.octets(), 64);
    let mut builder = builder.tcp(ends.source.1, ends.destination.1, sequence, 65_000);
    for flag in flags.chars() {
        builder = match flag {
            'S' => builder.syn(),
            'A' => builder.ack(acknowledgement),
            'F' => builder.fin(),
            'R' => builder.rst(),
            other => panic!("no flag {other}"),
        };
    }
    let mut bytes = Vec::new();
    builder.write(&mut bytes, payload).unwrap();
    bytes
}

pub fn echo_request(destination: Ipv4Addr) -> Vec<u8> {
    let builder = PacketBuilder::ipv4(CLIENT.octets(), destination.octets(), 64).icmpv4_echo_request(7, 9);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, b"are you there?").unwrap();
    bytes
}

/// The packet with its header checksum mended after an edit.
pub fn mended(mut packet: Vec<u8>) -> Vec<u8> {
    let header = Ipv4HeaderSlice::from_slice(&packet).unwrap().to_header();
    packet[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    packet
}

/// Reads a packet with the oracle, checks every length and checksum, and tells who sends to whom.
pub fn audit(packet: &[u8]) -> Ends {
    let ip = Ipv4HeaderSlice::from_slice(packet).expect("an IPv4 header");
    assert_eq!(usize::from(ip.total_len()), packet.len());
    assert_eq!(ip.header_checksum(), ip.to_header().calc_header_checksum(), "header checksum");
    let payload = &packet[ip.slice().len()..];
    let header: Ipv4Header = ip.to_header();
    let (source, destination) = (Ipv4Addr::from(header.source), Ipv4Addr::from(header.destination));
    match header.protocol {
        IpNumber::TCP => {
            let tcp = TcpHeaderSlice::from_slice(payload).unwrap();
            let sum = tcp.calc_checksum_ipv4(&ip, &payload[tcp.slice().len()..]).unwrap();
            assert_eq!(tcp.checksum(), sum, "TCP checksum");
            ends(source, tcp.source_port(), destination, tcp.destination_port())
        }
        IpNumber::UDP => {
            let udp = UdpHeaderSlice::from_slice(payload).unwrap();
            assert_eq!(usize::from(udp.length()), payload.len());
            if udp.checksum() != 0 {
                let sum = udp.to_header().calc_checksum_ipv4(&header, &payload[8..]).unwrap();
                assert_eq!(udp.checksum(), sum, "UDP checksum");
            }
            ends(source, udp.source_port(), destination, udp.destination_port())
        }
        _ => ends(source, 0, destination, 0),
    }
}

pub fn ttl(packet: &[u8]) -> u8 {
    packet[8]
}
