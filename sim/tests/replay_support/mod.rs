//! What the tests of replays share: packets and captures from numbers, plans from text.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "each test binary uses a part; a broken fixture ends the test"
)]

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use evenkeel_engine::{Guests, Plan};
use evenkeel_sim::capture::Reader;
use evenkeel_sim::replay::{Options, Outcome, Sides, replay};

/// The configuration that comes with the captures: 10.0.0.3:80/tcp on three servers in weights.
pub fn two_nics() -> Plan {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/nat-two-nic-evenkeel.toml");
    let loaded = evenkeel_config::load(&path).unwrap();
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    loaded.with_seed(1).plan
}

/// A plan from its text.
pub fn plan(text: &str) -> Plan {
    match evenkeel_config::parse(text, "test.toml") {
        Ok(loaded) => loaded.with_seed(1).plan,
        Err(found) => panic!("{}", found.render(false)),
    }
}

/// A capture beside the repository, or nothing where it is not there.
pub fn capture(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pcaps").join(name);
    if path.is_file() {
        return Some(path);
    }
    eprintln!("SKIPPED: there is no capture {}", path.display());
    None
}

pub fn options(maps: &[&str], sides: Sides) -> Options {
    let mappings = maps.iter().map(|map| map.parse().unwrap()).collect();
    Options { mappings, sides, seed: 1, ..Options::default() }
}

/// Replays a file and checks that its numbers add up.
pub fn run(file: &[u8], plan: Plan, options: &Options, output: Option<&mut dyn Write>) -> Outcome {
    let mut reader = Reader::new(file).unwrap();
    let outcome = replay(&mut reader, plan, Guests::default(), options, output).unwrap();
    check(&outcome);
    outcome
}

/// Nothing is lost uncounted.
pub fn check(outcome: &Outcome) {
    let skipped: u64 = outcome.skipped.values().sum();
    let dropped: u64 = outcome.dropped.values().sum();
    let ended = outcome.forwarded + outcome.answered + outcome.consumed + dropped + outcome.waiting;
    assert_eq!(outcome.read, outcome.fed + skipped, "{}", outcome.to_text());
    assert_eq!(outcome.fed + outcome.simulated, ended, "{}", outcome.to_text());
    assert!(outcome.is_conserved, "{}", outcome.to_text());
}

/// A packet of a capture: microseconds, and an Ethernet frame.
pub type Taken = (u64, Vec<u8>);

/// A pcap file of Ethernet frames.
pub fn pcap(packets: &[Taken]) -> Vec<u8> {
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];
    for (micros, frame) in packets {
        let length = u32::try_from(frame.len()).unwrap();
        for field in [u32::try_from(micros / 1_000_000).unwrap(), u32::try_from(micros % 1_000_000).unwrap()]
        {
            file.extend(field.to_le_bytes());
        }
        file.extend(length.to_le_bytes());
        file.extend(length.to_le_bytes());
        file.extend(frame);
    }
    file
}

/// An address and a port.
pub type End<'a> = (&'a str, u16);

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | two.get(1).map_or(0, |low| u32::from(*low))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

fn octets(address: &str) -> Vec<u8> {
    match address.parse::<IpAddr>().unwrap() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A frame with an IP packet of either family, with right checksums.
pub fn frame(from: &str, to: &str, protocol: u8, ttl: u8, mut body: Vec<u8>) -> Vec<u8> {
    let (source, destination) = (octets(from), octets(to));
    let length = u32::try_from(body.len()).unwrap();
    let pseudo = sum(&source) + sum(&destination) + u32::from(protocol) + length;
    let at = match protocol {
        6 => 16,
        17 => 6,
        _ => 2,
    };
    let pseudo = if protocol == 1 { 0 } else { pseudo };
    body[at..at + 2].fill(0);
    let check = !fold(pseudo + sum(&body));
    body[at..at + 2].copy_from_slice(&check.to_be_bytes());
    packet(from, to, protocol, ttl, 0x4000, &body)
}

/// A frame with an IP packet, whatever is in it. `cut` is what an IPv4 header says of fragments.
pub fn packet(from: &str, to: &str, protocol: u8, ttl: u8, cut: u16, body: &[u8]) -> Vec<u8> {
    let (source, destination) = (octets(from), octets(to));
    let mut frame = vec![2; 12];
    if source.len() == 4 {
        frame.extend([8, 0]);
        let length = u16::try_from(20 + body.len()).unwrap().to_be_bytes();
        let cut = cut.to_be_bytes();
        let mut head = vec![0x45, 0, length[0], length[1], 0, 7, cut[0], cut[1], ttl, protocol, 0, 0];
        head.extend([source, destination].concat());
        let check = (!fold(sum(&head))).to_be_bytes();
        head[10..12].copy_from_slice(&check);
        frame.extend(head);
    } else {
        frame.extend([0x86, 0xdd]);
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        frame.extend([0x60, 0, 0, 0, length[0], length[1], protocol, ttl]);
        frame.extend([source, destination].concat());
    }
    frame.extend(body);
    frame
}

pub fn tcp(
    (from, from_port): End<'_>,
    (to, to_port): End<'_>,
    numbers: (u32, u32),
    flags: u8,
    length: usize,
) -> Vec<u8> {
    let mut body = [from_port.to_be_bytes(), to_port.to_be_bytes()].concat();
    body.extend(numbers.0.to_be_bytes());
    body.extend(numbers.1.to_be_bytes());
    body.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    body.extend(vec![7; length]);
    frame(from, to, 6, 64, body)
}

pub fn udp((from, from_port): End<'_>, (to, to_port): End<'_>, length: usize) -> Vec<u8> {
    let mut body = [from_port.to_be_bytes(), to_port.to_be_bytes()].concat();
    body.extend(u16::try_from(8 + length).unwrap().to_be_bytes());
    body.extend(vec![0; 2 + length]);
    frame(from, to, 17, 64, body)
}

/// A whole TCP connection, ten packets 100 microseconds apart: handshake, a request, a response, both closes.
pub fn connection(at: u64, client: End<'_>, server: End<'_>) -> Vec<Taken> {
    let up = |numbers, flags, length| tcp(client, server, numbers, flags, length);
    let down = |numbers, flags, length| tcp(server, client, numbers, flags, length);
    let frames = vec![
        up((100, 0), SYN, 0),
        down((900, 101), SYN | ACK, 0),
        up((101, 901), ACK, 0),
        up((101, 901), ACK, 50),
        down((901, 151), ACK, 500),
        up((151, 1401), ACK, 0),
        up((151, 1401), FIN | ACK, 0),
        down((1401, 152), FIN | ACK, 0),
        up((152, 1402), ACK, 0),
    ];
    (0u64..).map(|number| at + number * 100).zip(frames).collect()
}

/// Connections of `count` clients, one after the other, to one server.
pub fn connections(count: u8, server: End<'_>) -> Vec<Taken> {
    (0..count)
        .flat_map(|number| {
            let address = format!("192.0.2.{}", number + 1);
            connection(1_000_000 + u64::from(number) * 2_000, (&address, 40_000), server)
        })
        .collect()
}
