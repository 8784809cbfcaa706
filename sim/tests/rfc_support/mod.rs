//! What the checks by RFC share: the engine at the end of a pipe, JSON lines in and out, and packets as bytes.
//!
//! ```text
//! clients 192.0.2.0/24 -- "wan" 10.0.0.1 [VIP 10.0.0.3] "lan" 10.99.0.1 -- real servers 10.0.3.20, .21
//! ```
#![allow(
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "each test binary uses a part; a broken fixture ends the test"
)]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use evenkeel_engine::plan::{
    Binding, Builtin, DirectorPlan, InterfacePlan, Layer, Mode, Ping, Plan, Prefix, RoutePlan, ServerPlan,
    SourceNat, Timeouts,
};
use evenkeel_engine::wire::{HashKey, Protocol};
use evenkeel_engine::{Engine, Guests, Instant, InterfaceId};
use evenkeel_sim::packet::{End, Flags, Header, Segment, adds_up, build, mend_header, view};
use evenkeel_sim::stdio::serve;
use serde_json::{Value, json};

pub const CLIENT: End = End { address: Ipv4Addr::new(192, 0, 2, 10), port: 40_000 };
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
pub const DNS: End = End { address: VIP, port: 53 };
pub const WEB: End = End { address: VIP, port: 80 };
pub const S1: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 20);
pub const S2: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 21);
/// The forwarder's own address on the servers' side; with source NAT the one that they see.
pub const OWN: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// A router somewhere.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
pub const SECOND: u64 = 1_000;

/// NAT of the destination alone, timeouts as the RFCs ask for.
pub fn plan() -> Plan {
    let mut plan = Plan::empty();
    plan.hash_key = HashKey([1, 2]);
    plan.timeouts = Timeouts::rfc();
    for (name, own) in [("wan", Ipv4Addr::new(10, 0, 0, 1)), ("lan", OWN)] {
        let addresses = vec![Prefix { address: own.into(), length: 24 }];
        plan.interfaces.push(InterfacePlan { addresses, ..InterfacePlan::new(name, Layer::Ip) });
    }
    for (network, length, interface) in [
        (Ipv4Addr::UNSPECIFIED, 0, 0),
        (Ipv4Addr::new(10, 0, 3, 0), 24, 1),
        (Ipv4Addr::new(10, 99, 0, 0), 24, 1),
    ] {
        let destination = Prefix { address: network.into(), length };
        plan.routes.push(RoutePlan { destination, gateway: None, interface: InterfaceId(interface) });
    }
    for (name, end, protocol, port) in [("dns", DNS, Protocol::UDP, 5353), ("web", WEB, Protocol::TCP, 8080)]
    {
        // Round robin begins with the second.
        let servers =
            vec![ServerPlan::new("s2", S2.into(), port, 1), ServerPlan::new("s1", S1.into(), port, 1)];
        let bind = Binding::of(end.address.into(), end.port, protocol);
        plan.directors.push(DirectorPlan::new(name, bind, Builtin::RoundRobin, servers));
    }
    plan
}

/// NAT of source and destination.
pub fn full_nat(ports: std::ops::RangeInclusive<u16>) -> Plan {
    let mut plan = plan();
    for director in &mut plan.directors {
        director.mode = Mode::Nat { sources: vec![SourceNat::to(OWN.into(), ports.clone())] };
    }
    plan
}

/// Pings of the VIP go to a real server.
pub fn forwarded_pings() -> Plan {
    let mut plan = plan();
    plan.directors[0].ping = Ping::Forward;
    plan.directors.truncate(1);
    plan
}

/// What a line was answered with.
#[derive(Clone, Debug)]
pub struct Answer {
    pub out: Vec<(String, Vec<u8>)>,
    pub drops: BTreeMap<String, u64>,
    pub reply: Value,
}

impl Answer {
    /// The one packet that left, and that nothing was dropped.
    pub fn packet(&self) -> Vec<u8> {
        assert!(self.out.len() == 1 && self.drops.is_empty(), "{self:?}");
        self.out[0].1.clone()
    }

    /// That nothing left and one packet was dropped for `reason`.
    pub fn is_silent(&self, reason: &str) {
        assert!(self.out.is_empty(), "{self:?}");
        assert_eq!(self.drops, BTreeMap::from([(reason.to_owned(), 1)]));
    }

    /// What was sent back about a packet that was dropped for `reason`.
    pub fn told(&self, reason: &str) -> Vec<u8> {
        assert_eq!(self.drops, BTreeMap::from([(reason.to_owned(), 1)]));
        assert_eq!(self.out.len(), 1, "{self:?}");
        self.out[0].1.clone()
    }
}

/// A session of `evenkeel sim stdio`. It is begun anew for each question, with all lines so far: the same lines give
/// the same answers.
pub struct Pipe {
    plan: Plan,
    lines: String,
}

impl Pipe {
    pub fn new(plan: Plan) -> Self {
        Self { plan, lines: String::new() }
    }

    pub fn ask(&mut self, line: &Value) -> Answer {
        self.lines.push_str(&format!("{line}\n"));
        let mut output = Vec::new();
        let mut command = |engine: &mut Engine, line: &str, _: Instant| match line {
            "flows" => Ok(json!(engine.flow_count())),
            "states" => Ok(json!(engine.flows().map(|entry| entry.state.name()).collect::<Vec<_>>())),
            other => Err(format!("no command {other}")),
        };
        let plan = self.plan.clone();
        serve(plan, Guests::default(), self.lines.as_bytes(), &mut output, &mut command).unwrap();
        let text = String::from_utf8(output).unwrap();
        let answer: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert!(answer.get("error").is_none(), "{answer}");
        let out = answer["out"].as_array().unwrap().iter();
        let out = out.map(|sent| (sent[0].as_str().unwrap().to_owned(), unhex(sent[1].as_str().unwrap())));
        let drops = serde_json::from_value(answer["drops"].clone()).unwrap();
        Answer { out: out.collect(), drops, reply: answer["reply"].clone() }
    }

    /// Writes lines ahead; what they are answered with is not looked at.
    pub fn push(&mut self, lines: &str) {
        self.lines.push_str(lines);
    }

    /// A packet comes in by "wan" at this time.
    pub fn wan(&mut self, milliseconds: u64, packet: &[u8]) -> Answer {
        self.ask(&json!({"t": milliseconds * 1_000_000, "in": "wan", "ip": hex(packet)}))
    }

    /// A packet comes in by "lan" at this time.
    pub fn lan(&mut self, milliseconds: u64, packet: &[u8]) -> Answer {
        self.ask(&json!({"t": milliseconds * 1_000_000, "in": "lan", "ip": hex(packet)}))
    }

    /// How many flows there are at this time.
    pub fn flows(&mut self, milliseconds: u64) -> u64 {
        let answer = self.ask(&json!({"t": milliseconds * 1_000_000, "cmd": "flows"}));
        answer.reply.as_u64().unwrap()
    }

    /// The states of all flows.
    pub fn states(&mut self) -> Vec<String> {
        serde_json::from_value(self.ask(&json!({"cmd": "states"})).reply).unwrap()
    }

    /// Opens a TCP connection from `client` at this time and gives the ends of its server's packets. The client's first
    /// byte has the number 1001, the server's 2001.
    pub fn connect(&mut self, milliseconds: u64, client: End) -> (End, End) {
        let syn = self.wan(milliseconds, &tcp((client, WEB), Flags::SYN, 1000, 0, b"")).packet();
        let (mapped, server) = ends(&syn);
        let back = (server, mapped);
        self.lan(milliseconds, &tcp(back, SYN_ACK, 2000, 1001, b"")).packet();
        self.wan(milliseconds, &tcp((client, WEB), Flags::ACK, 1001, 2001, b"")).packet();
        back
    }
}

pub const SYN_ACK: Flags = Flags(0x12);
pub const FIN_ACK: Flags = Flags(0x11);

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap()).collect()
}

/// Who else may call.
pub fn client(last: u8) -> End {
    End { address: Ipv4Addr::new(192, 0, 2, last), port: 40_000 }
}

pub fn udp(ends: (End, End), payload: &[u8]) -> Vec<u8> {
    build(evenkeel_sim::packet::Packet::default(), ends, Header::Udp, payload.len(), |place| {
        place.copy_from_slice(payload)
    })
    .bytes()
    .to_vec()
}

pub fn tcp(ends: (End, End), flags: Flags, sequence: u32, acknowledgement: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header::Tcp(Segment { sequence, acknowledgement, flags, window: 65_000 });
    build(evenkeel_sim::packet::Packet::default(), ends, header, payload.len(), |place| {
        place.copy_from_slice(payload)
    })
    .bytes()
    .to_vec()
}

/// An IPv4 packet without options that may not be cut.
pub fn ip(protocol: u8, ends: (Ipv4Addr, Ipv4Addr), body: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + body.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, protocol, 0, 0];
    packet.extend(ends.0.octets());
    packet.extend(ends.1.octets());
    packet.extend(body);
    mend_header(&mut packet);
    packet
}

/// An ICMP message whose four bytes behind the checksum are `rest`.
pub fn icmp(ends: (Ipv4Addr, Ipv4Addr), kind: (u8, u8), rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind.0, kind.1, 0, 0];
    message.extend(rest);
    message.extend(body);
    let sum = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    ip(1, ends, &message)
}

/// The definition of RFC 1071, word by word.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | two.get(1).map_or(0, |low| u32::from(*low))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The packet with other bytes at `at`, and a header that adds up.
pub fn with(mut packet: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    mend_header(&mut packet);
    packet
}

/// The packet with IP options, whose length is a multiple of four.
pub fn with_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let mut packet = [&packet[..20], options, &packet[20..]].concat();
    packet[0] += u8::try_from(options.len() / 4).unwrap();
    let total = u16::try_from(packet.len()).unwrap();
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    mend_header(&mut packet);
    packet
}

/// The fragments of a packet that carry the bytes of its body at `cuts`: from, to, in units of eight for all but the last.
pub fn fragments(packet: &[u8], identification: u16, cuts: &[(usize, usize)]) -> Vec<Vec<u8>> {
    let body = &packet[20..];
    let fragment = |&(from, to): &(usize, usize)| {
        let to = to.min(body.len());
        let mut part = [&packet[..20], &body[from..to]].concat();
        let total = u16::try_from(part.len()).unwrap();
        part[2..4].copy_from_slice(&total.to_be_bytes());
        part[4..6].copy_from_slice(&identification.to_be_bytes());
        let flags = u16::from(to < body.len()) << 13 | u16::try_from(from / 8).unwrap();
        part[6..8].copy_from_slice(&flags.to_be_bytes());
        mend_header(&mut part);
        part
    };
    cuts.iter().map(fragment).collect()
}

/// Who sends to whom; every length and checksum is looked at.
pub fn ends(packet: &[u8]) -> (End, End) {
    let view = view(packet).unwrap();
    (view.source.v4().unwrap(), view.destination.v4().unwrap())
}

/// Source and destination address of any packet whose header adds up; of an ICMP message the checksum, too.
pub fn addresses(packet: &[u8]) -> (Ipv4Addr, Ipv4Addr) {
    let header = usize::from(packet[0] & 15) * 4;
    assert!(adds_up(&packet[..header]), "{packet:?}");
    assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
    assert!(packet[9] != 1 || adds_up(&packet[header..]), "{packet:?}");
    let at = |from: usize| Ipv4Addr::new(packet[from], packet[from + 1], packet[from + 2], packet[from + 3]);
    (at(12), at(16))
}

/// Type and code of an ICMP message without IP options.
pub fn kind(packet: &[u8]) -> (u8, u8) {
    assert_eq!(packet[9], 1, "{packet:?}");
    addresses(packet);
    (packet[20], packet[21])
}
