//! Packets made from what is written of them, and written from what they are.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use evenkeel_engine::plan::{Layer, Plan};
use evenkeel_engine::wire::checksum::{checksum, pseudo_header_v4, pseudo_header_v6};
use evenkeel_engine::wire::{icmp, icmpv6};

use crate::json::tuple_end;
use crate::packet::{Asked, address};

/// What a packet is, behind its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Tcp {
        flags: u8,
        sequence: u32,
        acknowledgement: u32,
    },
    Udp,
    Icmp {
        /// An echo request without it.
        kind: Option<u8>,
        code: u8,
        identifier: u16,
    },
}

/// A packet to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Build {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) ttl: u8,
    pub(crate) dscp: u8,
    /// It must not be cut.
    pub(crate) is_whole: bool,
    pub(crate) payload_bytes: u16,
    pub(crate) form: Form,
}

impl Build {
    /// The packet, with right lengths and checksums.
    pub(crate) fn packet(&self) -> Vec<u8> {
        let is_v4 = self.source.is_ipv4();
        let protocol: u8 = match self.form {
            Form::Tcp { .. } => 6,
            Form::Udp => 17,
            Form::Icmp { .. } if is_v4 => 1,
            Form::Icmp { .. } => 58,
        };
        let mut body = self.head(is_v4);
        let at = match self.form {
            Form::Tcp { .. } => 16,
            Form::Udp => 6,
            Form::Icmp { .. } => 2,
        };
        body.resize(body.len() + usize::from(self.payload_bytes), 0);
        let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
        let start = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(_), IpAddr::V4(_)) if protocol == 1 => 0,
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                pseudo_header_v4(from.octets(), to.octets(), protocol, length)
            }
            (from, to) => {
                let bytes = |ip| address(ip).v6_bytes();
                pseudo_header_v6(bytes(from), bytes(to), protocol, u32::from(length))
            }
        };
        let sum = match checksum(start, &body) {
            0 if protocol == 17 => u16::MAX,
            sum => sum,
        };
        put(&mut body, at, &sum.to_be_bytes());
        let mut packet = self.ip(is_v4, protocol, length);
        packet.extend_from_slice(&body);
        packet
    }

    /// The header of layer 4, its checksum zero.
    fn head(&self, is_v4: bool) -> Vec<u8> {
        let ports = [self.source.port().to_be_bytes(), self.destination.port().to_be_bytes()].concat();
        match self.form {
            Form::Tcp { flags, sequence, acknowledgement } => {
                let numbers = [sequence.to_be_bytes(), acknowledgement.to_be_bytes()].concat();
                [&ports[..], &numbers, &[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]].concat()
            }
            Form::Udp => [&ports[..], &(8 + self.payload_bytes).to_be_bytes(), &[0, 0]].concat(),
            Form::Icmp { kind, code, identifier } => {
                let request = if is_v4 { icmp::kind::ECHO_REQUEST } else { icmpv6::kind::ECHO_REQUEST };
                let [high, low] = identifier.to_be_bytes();
                vec![kind.unwrap_or(request), code, 0, 0, high, low, 0, 1]
            }
        }
    }

    /// The header of IP.
    fn ip(&self, is_v4: bool, protocol: u8, length: u16) -> Vec<u8> {
        let class = self.dscp << 2;
        let (from, to) = (self.source.ip(), self.destination.ip());
        if let (true, IpAddr::V4(from), IpAddr::V4(to)) = (is_v4, from, to) {
            let [high, low] = length.saturating_add(20).to_be_bytes();
            let cut = if self.is_whole { 0x40 } else { 0 };
            let fixed = [0x45, class, high, low, 0, 0, cut, 0, self.ttl, protocol, 0, 0];
            let mut header = [&fixed[..], &from.octets(), &to.octets()].concat();
            let sum = checksum(0, &header);
            put(&mut header, 10, &sum.to_be_bytes());
            return header;
        }
        let [high, low] = length.to_be_bytes();
        let fixed = [0x60 | class >> 4, (class & 0x0f) << 4, 0, 0, high, low, protocol, self.ttl];
        [&fixed[..], &address(from).v6_bytes(), &address(to).v6_bytes()].concat()
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// A packet in the words in which it could be asked for; what can not is written as far as it can be read.
#[must_use]
pub fn summary(asked: &Asked, plan: &Plan) -> String {
    let interface = plan.interfaces.get(asked.interface.index());
    let is_frame = interface.is_some_and(|interface| matches!(interface.layer, Layer::Ethernet(_)));
    let mut text = line(&asked.bytes, is_frame);
    if let Some(interface) = interface {
        let _ = write!(text, " in {}", interface.name);
    }
    text
}

/// One line about a packet or frame.
pub(crate) fn line(bytes: &[u8], is_frame: bool) -> String {
    let ip = if is_frame { bytes.get(14..).unwrap_or_default() } else { bytes };
    let kind = bytes.get(12..14).filter(|_| is_frame);
    if kind == Some(&[8, 6]) {
        let ends = |at: usize| ip.get(at..at + 4).map_or_else(String::new, dotted);
        let what = if ip.get(7) == Some(&2) { "arp answer" } else { "arp question" };
        return format!("{what} {} > {}", ends(14), ends(24));
    }
    read(ip).unwrap_or_else(|| format!("{} bytes that are no IP packet", bytes.len()))
}

fn dotted(bytes: &[u8]) -> String {
    bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(".")
}

/// An IP header, as far as it is written in words.
struct Head {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// Bytes of the header, and of the whole packet.
    lengths: (usize, usize),
    ttl: u8,
    dscp: u8,
    is_whole: bool,
    /// Where in its datagram a fragment begins, in bytes.
    offset: u16,
}

fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([byte(bytes, at)?, byte(bytes, at + 1)?]))
}

impl Head {
    fn read(ip: &[u8]) -> Option<Self> {
        let byte = |at| byte(ip, at);
        match byte(0)? >> 4 {
            4 => {
                let address = |at| ip.get(at..)?.first_chunk::<4>().map(|bytes| IpAddr::from(*bytes));
                Some(Self {
                    source: address(12)?,
                    destination: address(16)?,
                    protocol: byte(9)?,
                    lengths: (usize::from(byte(0)? & 0x0f) * 4, usize::from(word(ip, 2)?)),
                    ttl: byte(8)?,
                    dscp: byte(1)? >> 2,
                    is_whole: byte(6)? & 0x40 != 0,
                    offset: (word(ip, 6)? & 0x1fff) * 8,
                })
            }
            6 => {
                let address = |at| ip.get(at..)?.first_chunk::<16>().map(|bytes| IpAddr::from(*bytes));
                Some(Self {
                    source: address(8)?,
                    destination: address(24)?,
                    protocol: byte(6)?,
                    lengths: (40, usize::from(word(ip, 4)?) + 40),
                    ttl: byte(7)?,
                    dscp: (byte(0)? & 0x0f) << 2 | byte(1)? >> 6,
                    is_whole: false,
                    offset: 0,
                })
            }
            _ => None,
        }
    }

    fn ends(&self, ports: Option<(u16, u16)>) -> String {
        let Self { source, destination, .. } = *self;
        match ports {
            Some((from, to)) => format!("{} > {}", tuple_end(source, from), tuple_end(destination, to)),
            None => format!("{source} > {destination}"),
        }
    }
}

fn read(ip: &[u8]) -> Option<String> {
    let head = Head::read(ip)?;
    let (mut text, length) = body(&head, ip)?;
    if length > 0 {
        let _ = write!(text, " len {length}");
    }
    if head.ttl != 64 {
        let _ = write!(text, " ttl {}", head.ttl);
    }
    if head.dscp != 0 {
        let _ = write!(text, " dscp {}", head.dscp);
    }
    if head.is_whole {
        text.push_str(" df");
    }
    Some(text)
}

/// The words for what stands behind the IP header, and the length of its payload.
fn body(head: &Head, ip: &[u8]) -> Option<(String, usize)> {
    let (start, total) = head.lengths;
    let length = total.checked_sub(start)?;
    let byte = |at| byte(ip, start + at);
    let ports = || Some((word(ip, start)?, word(ip, start + 2)?));
    let mut text = String::new();
    let length = match head.protocol {
        protocol if head.offset != 0 => {
            let _ = write!(text, "{} {} fragment at {}", name(protocol), head.ends(None), head.offset);
            length
        }
        6 => {
            let _ = write!(text, "tcp {}", head.ends(Some(ports()?)));
            let flags = byte(13)?;
            for (flag, bit) in [("fin", 1), ("syn", 2), ("rst", 4), ("psh", 8), ("ack", 16), ("urg", 32)] {
                if flags & bit != 0 {
                    let _ = write!(text, " {flag}");
                }
            }
            length.saturating_sub(usize::from(byte(12)? >> 4) * 4)
        }
        17 => {
            let _ = write!(text, "udp {}", head.ends(Some(ports()?)));
            length.saturating_sub(8)
        }
        protocol @ (1 | 58) => {
            let _ = write!(text, "{} {} type {}", name(protocol), head.ends(None), byte(0)?);
            if byte(1)? != 0 {
                let _ = write!(text, " code {}", byte(1)?);
            }
            if matches!(byte(0)?, 0 | 8 | 128 | 129) {
                let _ = write!(text, " id {}", word(ip, start + 4)?);
            }
            length.saturating_sub(8)
        }
        other => {
            let _ = write!(text, "protocol {other} {}", head.ends(None));
            length
        }
    };
    Some((text, length))
}

/// The name of a protocol.
pub(crate) fn name(protocol: u8) -> String {
    match protocol {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        1 => "icmp".to_owned(),
        58 => "icmpv6".to_owned(),
        other => format!("protocol {other}"),
    }
}
