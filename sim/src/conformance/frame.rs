//! What a frame says, field by field and by name, written apart from the engine's `wire`.
//!
//! In: bytes of a frame or IP packet, cut short or wrong as they may be. Out: fields in the order in which they lie, the
//! headers inside quotes and tunnels among them (`icmp.quote.udp.checksum`). What is not known is payload. It never
//! judges; checksums say whether they are right.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// How deep packets within packets are looked into: a quoted tunnel packet, and one in reserve.
const DEPTH_MAX: usize = 3;

/// How a field is written for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Number,
    Hex,
    Mac,
    Address,
    Bytes,
}

/// A field of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// Where it belongs: `ip.ttl`, `icmp.quote.udp.checksum`.
    pub(super) name: String,
    /// Where it lies.
    pub(super) at: Range<usize>,
    /// What it says, for people.
    pub(super) text: String,
    /// For a checksum whether it is right, where all is there that it covers. A UDP checksum of 0 is none, and right.
    pub(super) is_right: Option<bool>,
}

/// A frame with its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parsed<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) fields: Vec<Field>,
}

impl<'a> Parsed<'a> {
    pub(super) fn frame(bytes: &'a [u8]) -> Self {
        let mut reader = Reader { bytes, at: 0, end: bytes.len(), fields: Vec::new() };
        reader.ethernet();
        Self { bytes, fields: reader.fields }
    }

    pub(super) fn packet(bytes: &'a [u8]) -> Self {
        let mut reader = Reader { bytes, at: 0, end: bytes.len(), fields: Vec::new() };
        reader.ip("", 0);
        Self { bytes, fields: reader.fields }
    }

    pub(super) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The bytes of a field.
    pub(super) fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.bytes.get(self.field(name)?.at.clone())
    }

    /// A field of at most four bytes as a number.
    pub(super) fn number(&self, name: &str) -> Option<u32> {
        let bytes = self.get(name).filter(|bytes| bytes.len() <= 4)?;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    /// The ports of the transport header under `prefix` (`""` for the outermost), or 0 each.
    pub(super) fn ports(&self, prefix: &str) -> (u32, u32) {
        let port = |side: &str| {
            let of = |transport: &str| self.number(&format!("{prefix}{transport}.{side}_port"));
            of("udp").or_else(|| of("tcp")).unwrap_or(0)
        };
        (port("source"), port("destination"))
    }

    /// Source and destination address of the IP header under `prefix`, of either family.
    pub(super) fn addresses(&self, prefix: &str) -> Option<(&'a [u8], &'a [u8])> {
        let of = |name: &str| {
            self.get(&format!("{prefix}ip.{name}")).or_else(|| self.get(&format!("{prefix}ip6.{name}")))
        };
        Some((of("source")?, of("destination")?))
    }

    /// The protocol of layer 4 under `prefix`.
    pub(super) fn protocol(&self, prefix: &str) -> Option<u32> {
        let v4 = self.number(&format!("{prefix}ip.protocol"));
        v4.or_else(|| self.number(&format!("{prefix}ip6.next_header")))
    }
}

/// The sum of RFC 1071 over `parts`, each padded to an even length.
pub(super) fn sum(parts: &[&[u8]]) -> u16 {
    let word = |two: &[u8]| match two {
        [high, low] => u64::from(u16::from_be_bytes([*high, *low])),
        [high] => u64::from(*high) << 8,
        _ => 0,
    };
    let mut sum: u64 = parts.iter().flat_map(|part| part.chunks(2)).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(0)
}

/// The checksum that changes from `old` when the bytes that it covers change from `before` to `after` (RFC 1624).
pub(super) fn mend(old: [u8; 2], before: &[u8], after: &[u8]) -> [u8; 2] {
    let inverse: Vec<u8> = before.iter().map(|byte| !byte).collect();
    let complement = [!old[0], !old[1]];
    (!sum(&[&complement, &inverse, after])).to_be_bytes()
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
    fields: Vec<Field>,
}

impl<'a> Reader<'a> {
    /// Takes the next `length` bytes as a field, or what is left of them. Gives `None` when it is not whole.
    fn take(&mut self, name: &str, length: usize, shape: Shape) -> Option<&'a [u8]> {
        let end = (self.at + length).min(self.end);
        let bytes = self.bytes.get(self.at..end)?;
        if !bytes.is_empty() {
            let text = written(bytes, shape);
            self.fields.push(Field { name: name.to_owned(), at: self.at..end, text, is_right: None });
        }
        self.at = end;
        (bytes.len() == length).then_some(bytes)
    }

    fn number(&mut self, name: &str, length: usize, shape: Shape) -> Option<u32> {
        let bytes = self.take(name, length, shape)?;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn rest(&mut self, name: &str) {
        let left = self.end.saturating_sub(self.at);
        let _ = self.take(name, left, Shape::Bytes);
    }

    /// Notes whether the checksum that was taken last under `name` is right.
    fn judge(&mut self, name: &str, is_right: Option<bool>) {
        if let Some(field) = self.fields.iter_mut().rev().find(|field| field.name == name) {
            field.is_right = is_right;
        }
    }

    fn ethernet(&mut self) -> Option<()> {
        self.take("eth.destination", 6, Shape::Mac)?;
        self.take("eth.source", 6, Shape::Mac)?;
        match self.number("eth.type", 2, Shape::Hex)? {
            0x0800 | 0x86dd => self.ip("", 0),
            0x0806 => self.arp(),
            _ => {
                self.rest("payload");
                Some(())
            }
        }
    }

    fn arp(&mut self) -> Option<()> {
        self.take("arp.kinds", 6, Shape::Hex)?;
        self.take("arp.operation", 2, Shape::Number)?;
        self.take("arp.sender_mac", 6, Shape::Mac)?;
        self.take("arp.sender", 4, Shape::Address)?;
        self.take("arp.target_mac", 6, Shape::Mac)?;
        self.take("arp.target", 4, Shape::Address)?;
        self.rest("padding");
        Some(())
    }

    fn ip(&mut self, prefix: &str, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            self.rest(&format!("{prefix}payload"));
            return None;
        }
        match self.bytes.get(self.at).map(|first| first >> 4) {
            Some(4) => self.ipv4(prefix, depth),
            Some(6) => self.ipv6(prefix, depth),
            _ => {
                self.rest(&format!("{prefix}payload"));
                None
            }
        }
    }

    fn ipv4(&mut self, prefix: &str, depth: usize) -> Option<()> {
        let start = self.at;
        let name = |field: &str| format!("{prefix}ip.{field}");
        let first = self.number(&name("version_and_length"), 1, Shape::Hex)?;
        self.take(&name("tos"), 1, Shape::Hex)?;
        let total = self.number(&name("total_length"), 2, Shape::Number)?;
        self.take(&name("identification"), 2, Shape::Hex)?;
        let fragment = self.number(&name("fragment"), 2, Shape::Hex)?;
        self.take(&name("ttl"), 1, Shape::Number)?;
        let protocol = self.number(&name("protocol"), 1, Shape::Number)?;
        self.take(&name("checksum"), 2, Shape::Hex)?;
        let source = self.take(&name("source"), 4, Shape::Address)?;
        let destination = self.take(&name("destination"), 4, Shape::Address)?;
        let header_bytes = usize::try_from(first & 15).unwrap_or(0) * 4;
        let options = header_bytes.saturating_sub(20);
        let _ = self.take(&name("options"), options, Shape::Bytes);
        let header = self.bytes.get(start..self.at)?;
        self.judge(&name("checksum"), Some(sum(&[header]) == 0xffff));
        let end = start + usize::try_from(total).unwrap_or(0);
        let is_whole = end <= self.end && fragment & 0x3fff == 0;
        let outer_end = self.end;
        self.end = end.clamp(self.at, outer_end);
        if fragment & 0x1fff == 0 {
            let pseudo = [source, destination].concat();
            self.layer_4(prefix, protocol, &pseudo, is_whole, depth);
        } else {
            self.rest(&format!("{prefix}fragment"));
        }
        self.end = outer_end;
        if depth == 0 {
            self.rest("padding");
        }
        Some(())
    }

    fn ipv6(&mut self, prefix: &str, depth: usize) -> Option<()> {
        let name = |field: &str| format!("{prefix}ip6.{field}");
        // Version, traffic class and flow label share their bytes.
        self.take(&name("class"), 2, Shape::Hex)?;
        self.take(&name("label"), 2, Shape::Hex)?;
        let length = self.number(&name("payload_length"), 2, Shape::Number)?;
        let protocol = self.number(&name("next_header"), 1, Shape::Number)?;
        self.take(&name("hop_limit"), 1, Shape::Number)?;
        let source = self.take(&name("source"), 16, Shape::Address)?;
        let destination = self.take(&name("destination"), 16, Shape::Address)?;
        let end = self.at + usize::try_from(length).unwrap_or(0);
        let is_whole = end <= self.end;
        let outer_end = self.end;
        self.end = end.clamp(self.at, outer_end);
        let pseudo = [source, destination].concat();
        self.layer_4(prefix, protocol, &pseudo, is_whole, depth);
        self.end = outer_end;
        if depth == 0 {
            self.rest("padding");
        }
        Some(())
    }

    fn layer_4(&mut self, prefix: &str, protocol: u32, pseudo: &[u8], is_whole: bool, depth: usize) {
        let body = self.bytes.get(self.at..self.end).unwrap_or_default();
        let (high, low) = (u16::try_from(body.len()).unwrap_or(0).to_be_bytes(), protocol.to_be_bytes());
        let is_right = |parts: &[&[u8]]| is_whole.then(|| sum(parts) == 0xffff);
        let with_pseudo = is_right(&[pseudo, &high, &low, body]);
        let _ = match protocol {
            1 => self.icmp(prefix, "icmp", is_right(&[body]), depth),
            58 => self.icmp(prefix, "icmp6", with_pseudo, depth),
            4 | 41 => self.ip(&format!("{prefix}inner."), depth + 1),
            6 => self.tcp(prefix, with_pseudo),
            17 => self.udp(prefix, with_pseudo, depth),
            47 => self.gre(prefix, depth),
            _ => {
                self.rest(&format!("{prefix}payload"));
                None
            }
        };
    }

    fn icmp(&mut self, prefix: &str, name: &str, is_right: Option<bool>, depth: usize) -> Option<()> {
        let field = |field: &str| format!("{prefix}{name}.{field}");
        let kind = self.number(&field("type"), 1, Shape::Number)?;
        self.take(&field("code"), 1, Shape::Number)?;
        self.take(&field("checksum"), 2, Shape::Hex)?;
        self.judge(&field("checksum"), is_right);
        self.take(&field("rest"), 4, Shape::Hex)?;
        let is_error = if name == "icmp" { matches!(kind, 3 | 4 | 5 | 11 | 12) } else { kind < 128 };
        if is_error {
            self.ip(&format!("{prefix}{name}.quote."), depth + 1);
        }
        self.rest(&format!("{prefix}payload"));
        Some(())
    }

    fn tcp(&mut self, prefix: &str, is_right: Option<bool>) -> Option<()> {
        let name = |field: &str| format!("{prefix}tcp.{field}");
        self.take(&name("source_port"), 2, Shape::Number)?;
        self.take(&name("destination_port"), 2, Shape::Number)?;
        self.take(&name("sequence"), 4, Shape::Number)?;
        self.take(&name("acknowledgement"), 4, Shape::Number)?;
        let offset = self.number(&name("offset"), 1, Shape::Hex)?;
        self.take(&name("flags"), 1, Shape::Hex)?;
        self.take(&name("window"), 2, Shape::Number)?;
        self.take(&name("checksum"), 2, Shape::Hex)?;
        self.judge(&name("checksum"), is_right);
        self.take(&name("urgent"), 2, Shape::Number)?;
        let options = (usize::try_from(offset >> 4).unwrap_or(0) * 4).saturating_sub(20);
        let _ = self.take(&name("options"), options, Shape::Bytes);
        self.rest(&format!("{prefix}payload"));
        Some(())
    }

    fn udp(&mut self, prefix: &str, is_right: Option<bool>, depth: usize) -> Option<()> {
        let name = |field: &str| format!("{prefix}udp.{field}");
        self.take(&name("source_port"), 2, Shape::Number)?;
        self.take(&name("destination_port"), 2, Shape::Number)?;
        self.take(&name("length"), 2, Shape::Number)?;
        let checksum = self.number(&name("checksum"), 2, Shape::Hex)?;
        self.judge(&name("checksum"), if checksum == 0 { Some(true) } else { is_right });
        let body = self.bytes.get(self.at..self.end).unwrap_or_default();
        match body {
            // Generic UDP Encapsulation, variant 0: no control message, no options, an IP packet.
            [0, 4, 0, 0, first, ..] if first >> 4 == 4 => self.gue(prefix, depth),
            [0, 41, 0, 0, first, ..] if first >> 4 == 6 => self.gue(prefix, depth),
            _ => {
                self.rest(&format!("{prefix}payload"));
                Some(())
            }
        }
    }

    fn gue(&mut self, prefix: &str, depth: usize) -> Option<()> {
        self.take(&format!("{prefix}gue.header"), 4, Shape::Hex)?;
        self.ip(&format!("{prefix}inner."), depth + 1)
    }

    fn gre(&mut self, prefix: &str, depth: usize) -> Option<()> {
        let flags = self.number(&format!("{prefix}gre.flags"), 2, Shape::Hex)?;
        let kind = self.number(&format!("{prefix}gre.type"), 2, Shape::Hex)?;
        if flags & 0x8000 != 0 {
            let body = self.bytes.get(self.at.saturating_sub(4)..self.end).unwrap_or_default();
            let name = format!("{prefix}gre.checksum");
            self.take(&name, 2, Shape::Hex)?;
            self.judge(&name, Some(sum(&[body]) == 0xffff));
            self.take(&format!("{prefix}gre.reserved"), 2, Shape::Hex)?;
        }
        if matches!(kind, 0x0800 | 0x86dd) {
            return self.ip(&format!("{prefix}inner."), depth + 1);
        }
        self.rest(&format!("{prefix}payload"));
        Some(())
    }
}

fn written(bytes: &[u8], shape: Shape) -> String {
    let joined =
        |between: &str| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(between);
    match (shape, bytes) {
        (Shape::Number, _) if bytes.len() <= 4 => {
            bytes.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte)).to_string()
        }
        (Shape::Mac, _) => joined(":"),
        (Shape::Address, [a, b, c, d]) => Ipv4Addr::new(*a, *b, *c, *d).to_string(),
        (Shape::Address, _) => <[u8; 16]>::try_from(bytes)
            .map_or_else(|_| joined(""), |octets| Ipv6Addr::from(octets).to_string()),
        (Shape::Bytes, _) if bytes.len() > 16 => format!("{} bytes", bytes.len()),
        (Shape::Hex, _) => format!("0x{}", joined("")),
        (Shape::Number | Shape::Bytes, _) => joined(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdio::decode;

    /// An ICMP error of a real server about a datagram, as it was captured once.
    const ERROR: &str = "02000000020102000000030008004 5c0003da86d00003f01c1d20a000003c000020a0303fc4a00000000\
                         45000021fcaa40003e1174140a000003c000020a";

    fn bytes(text: &str) -> Vec<u8> {
        decode(&text.replace(' ', "")).unwrap()
    }

    #[test]
    fn every_byte_belongs_to_one_field_whatever_is_cut() {
        let whole = bytes(ERROR);
        for length in 0..=whole.len() {
            let parsed = Parsed::frame(&whole[..length]);
            let mut at = 0;
            for field in &parsed.fields {
                assert_eq!(field.at.start, at, "{} of {length}", field.name);
                at = field.at.end;
            }
            assert_eq!(at, length);
        }
    }

    #[test]
    fn every_changed_byte_is_survived_and_still_belongs_to_one_field() {
        let whole = bytes(ERROR);
        for at in 0..whole.len() {
            for value in [0, 1, 4, 0x45, 0x60, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                let parsed = Parsed::frame(&changed);
                let covered: usize = parsed.fields.iter().map(|field| field.at.len()).sum();
                assert_eq!(covered, changed.len(), "byte {at} as {value}");
            }
        }
    }

    #[test]
    fn quotes_and_tunnels_are_looked_into() {
        let error = bytes(ERROR);
        let names: Vec<_> = Parsed::frame(&error).fields.into_iter().map(|field| field.name).collect();
        assert!(names.contains(&"icmp.quote.ip.ttl".to_owned()), "{names:?}");
        let tunnel = bytes(
            "450000350000 40003e0428a90a0000020a000014 45000021a55740003e11cb67c000020a0a000003 \
                            9c401f40000d347468656c6c6f",
        );
        let parsed = Parsed::packet(&tunnel);
        assert_eq!(parsed.ports("inner."), (40_000, 8_000));
        assert_eq!(parsed.number("inner.ip.ttl"), Some(62));
        let rights: Vec<_> = parsed.fields.iter().filter_map(|field| field.is_right).collect();
        assert_eq!(rights, [false, true, true], "the outer sum is one off");
    }

    #[test]
    fn a_mended_checksum_is_right_again() {
        let mut header = bytes("45000021a55740003e11cb67c000020a0a000003");
        assert_eq!(sum(&[&header]), 0xffff);
        let old = [header[10], header[11]];
        let before = header[8..10].to_vec();
        header[8] = 64;
        let new = mend(old, &before, &header[8..10]);
        header[10..12].copy_from_slice(&new);
        assert_eq!(sum(&[&header]), 0xffff);
    }
}
