//! Changes of a captured packet: other ends, another acknowledgement, checksums that are right.
//!
//! What is changed is taken out of the checksums and the new is put in (RFC 1624), so that a right checksum stays right
//! and a wrong one stays as wrong as it was. Repairing is a step of its own.

use evenkeel_engine::wire::{Address, FiveTuple, Protocol};

use super::headers::{self, Header, Kind};
use crate::checksum::{finish, sum};

/// What is to become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    /// Who talks to whom afterwards; of an ICMP error, in the packet that it quotes.
    pub(super) tuple: FiveTuple,
    /// Who sends the ICMP error afterwards, and to whom.
    pub(super) outer: Option<(Address, Address)>,
    /// What is added to TCP's acknowledgement.
    pub(super) acknowledges: u32,
}

/// How a checksum of layer 4 stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// It is right, or there is none.
    Right,
    /// It is left to hardware that was behind the capture: the field holds the sum of the pseudo header.
    Offloaded,
    /// It is wrong.
    Wrong,
}

/// A sum of words that is not folded yet, of what is taken away and what is put in.
#[derive(Clone, Copy, Debug, Default)]
struct Change(u64);

impl Change {
    #[inline]
    fn word(&mut self, old: u16, new: u16) {
        self.0 += u64::from(!old) + u64::from(new);
    }

    /// Both families in their own length: of IPv4 the last four bytes.
    #[inline]
    fn address(&mut self, old: Address, new: Address) {
        if old == new {
            return;
        }
        if old.is_v4() {
            let (old, new) = (u32::from_be_bytes(old.v4_bytes()), u32::from_be_bytes(new.v4_bytes()));
            self.0 += u64::from(!old) + u64::from(new);
            return;
        }
        for (old, new) in old.halves().into_iter().zip(new.halves()) {
            let old = !old;
            self.0 += (old >> 32) + (old & 0xffff_ffff) + (new >> 32) + (new & 0xffff_ffff);
        }
    }

    #[inline]
    const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Puts the change into a checksum. UDP has no checksum of zero (RFC 768).
    #[inline]
    fn apply(self, field: &mut [u8; 2], is_udp: bool) {
        let sum = finish(self.0 + u64::from(!u16::from_be_bytes(*field)));
        let sum = if is_udp && sum == 0 { 0xffff } else { sum };
        *field = sum.to_be_bytes();
    }
}

/// Changes the packet in `bytes`, which `header` describes.
#[inline]
pub(super) fn apply(bytes: &mut [u8], header: &Header, edit: &Edit) {
    if let Kind::Error { quoted } = header.kind {
        return apply_to_error(bytes, header, quoted, edit);
    }
    let (before, after) = (&header.tuple, &edit.tuple);
    if before == after && edit.acknowledges == 0 {
        return;
    }
    let mut addresses = Change::default();
    addresses.address(before.source, after.source);
    addresses.address(before.destination, after.destination);
    put_addresses(bytes, after.source, after.destination, addresses);
    let mut all = addresses;
    let Some(layer_4) = bytes.get_mut(header.layer_4..header.end) else { return };
    match header.kind {
        Kind::Tcp(tcp) => {
            put_ports(layer_4, before, after, &mut all);
            if edit.acknowledges != 0 {
                let (old, new) = (tcp.acknowledgement, tcp.acknowledgement.wrapping_add(edit.acknowledges));
                put(layer_4, 8, new.to_be_bytes());
                all.0 += u64::from(!old) + u64::from(new);
            }
            mend(layer_4, 16, all, false);
        }
        Kind::Udp => {
            put_ports(layer_4, before, after, &mut all);
            mend(layer_4, 6, all, true);
        }
        Kind::Query { is_request } => {
            // Addresses count with IPv6 alone.
            let mut change = if before.source.is_v4() { Change::default() } else { addresses };
            let (old, new) = if is_request {
                (before.source_port, after.source_port)
            } else {
                (before.destination_port, after.destination_port)
            };
            change.word(old, new);
            put(layer_4, 4, new.to_be_bytes());
            mend(layer_4, 2, change, false);
        }
        Kind::Error { .. } | Kind::Other => {}
    }
}

/// Changes the packet that an ICMP error quotes, then the error around it.
#[cold]
fn apply_to_error(bytes: &mut [u8], header: &Header, quoted: usize, edit: &Edit) {
    let Some((head, quote)) =
        bytes.get_mut(..header.end).and_then(|bytes| bytes.split_at_mut_checked(quoted))
    else {
        return;
    };
    if let Some((at, protocol)) = headers::quoted_layer_4(quote) {
        let (before, after) = (&header.tuple, &edit.tuple);
        let mut change = Change::default();
        change.address(before.source, after.source);
        change.address(before.destination, after.destination);
        put_addresses(quote, after.source, after.destination, change);
        let layer_4 = quote.get_mut(at..).unwrap_or_default();
        let at = match protocol {
            Protocol::TCP => Some(16),
            Protocol::UDP => Some(6),
            _ => None,
        };
        if let Some(at) = at {
            put_ports(layer_4, before, after, &mut change);
            mend(layer_4, at, change, protocol == Protocol::UDP);
        }
    }
    if let (Some((source, destination)), Some(before)) = (edit.outer, ends(head)) {
        let mut change = Change::default();
        change.address(before.0, source);
        change.address(before.1, destination);
        put_addresses(head, source, destination, change);
    }
    let _ = repair(bytes, header);
}

/// Writes addresses, and mends the header of IPv4.
#[inline]
fn put_addresses(bytes: &mut [u8], source: Address, destination: Address, change: Change) {
    if change.is_none() {
        return;
    }
    if source.is_v4() {
        if let Some([.., c0, c1, s0, s1, s2, s3, d0, d1, d2, d3]) = bytes.first_chunk_mut::<20>() {
            let mut field = [*c0, *c1];
            change.apply(&mut field, false);
            [*c0, *c1] = field;
            [*s0, *s1, *s2, *s3] = source.v4_bytes();
            [*d0, *d1, *d2, *d3] = destination.v4_bytes();
        }
    } else if let Some(place) = bytes.get_mut(8..40) {
        place.copy_from_slice([source.v6_bytes(), destination.v6_bytes()].as_flattened());
    }
}

#[inline]
fn put_ports(layer_4: &mut [u8], before: &FiveTuple, after: &FiveTuple, change: &mut Change) {
    if let Some([a, b, c, d, ..]) = layer_4.first_chunk_mut::<4>() {
        [*a, *b] = after.source_port.to_be_bytes();
        [*c, *d] = after.destination_port.to_be_bytes();
    }
    change.word(before.source_port, after.source_port);
    change.word(before.destination_port, after.destination_port);
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(place) = bytes.get_mut(at..at + N) {
        place.copy_from_slice(&value);
    }
}

/// Puts a change into the checksum at `at`, if it is there. UDP over IPv4 may have none.
#[inline]
fn mend(layer_4: &mut [u8], at: usize, change: Change, is_udp: bool) {
    let Some(field) = layer_4.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<2>()) else { return };
    if !(is_udp && *field == [0, 0]) {
        change.apply(field, is_udp);
    }
}

/// The addresses of an IP header.
pub(super) fn ends(bytes: &[u8]) -> Option<(Address, Address)> {
    if bytes.first()? >> 4 == 4 {
        let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *bytes.first_chunk::<20>()?;
        return Some((Address::v4([s0, s1, s2, s3]), Address::v4([d0, d1, d2, d3])));
    }
    let (halves, _) = bytes.get(8..40)?.as_chunks::<16>();
    let [source, destination] = *halves else { return None };
    Some((Address::v6(source), Address::v6(destination)))
}

/// Where the checksum of layer 4 lies, and what its pseudo header sums up to. `None` where there is none.
fn layer_4_sum(bytes: &[u8], header: &Header) -> Option<(usize, u64)> {
    if !header.is_whole() {
        return None;
    }
    let (source, destination) = ends(bytes)?;
    let length = u64::try_from(header.end.checked_sub(header.layer_4)?).ok()?;
    let (at, protocol) = match header.kind {
        Kind::Tcp(_) => (16, Protocol::TCP),
        Kind::Udp => (6, Protocol::UDP),
        Kind::Query { .. } | Kind::Error { .. } if source.is_v4() => return Some((2, 0)),
        Kind::Query { .. } | Kind::Error { .. } => (2, Protocol::ICMPV6),
        Kind::Other => return None,
    };
    Some((at, pseudo_sum(source, destination, protocol, length)))
}

/// The sum of a pseudo header.
pub(super) fn pseudo_sum(source: Address, destination: Address, protocol: Protocol, length: u64) -> u64 {
    let sum = |address: Address| {
        if address.is_v4() {
            return u64::from(u32::from_be_bytes(address.v4_bytes()));
        }
        address.halves().into_iter().map(|half| (half >> 32) + (half & 0xffff_ffff)).sum()
    };
    sum(source) + sum(destination) + u64::from(protocol.0) + length
}

/// How the checksum of layer 4 stands.
#[inline]
pub(super) fn check(bytes: &[u8], header: &Header) -> Check {
    let Some((at, start)) = layer_4_sum(bytes, header) else { return Check::Right };
    let Some(layer_4) = bytes.get(header.layer_4..header.end) else { return Check::Right };
    let Some(field) = layer_4.get(at..).and_then(|rest| rest.first_chunk::<2>()) else { return Check::Right };
    if matches!(header.kind, Kind::Udp) && *field == [0, 0] {
        return Check::Right;
    }
    if finish(start + sum(layer_4)) == 0 {
        return Check::Right;
    }
    let is_pseudo = !finish(start) == u16::from_be_bytes(*field);
    if start != 0 && is_pseudo { Check::Offloaded } else { Check::Wrong }
}

/// Whether the header of IPv4 adds up; that of IPv6 has no checksum.
#[inline]
pub(super) fn is_header_right(bytes: &[u8], header: &Header) -> bool {
    if !header.tuple.source.is_v4() {
        return true;
    }
    let options = bytes.first().map_or(20, |first| usize::from(first & 15) * 4);
    bytes.get(..options).is_none_or(|head| finish(sum(head)) == 0)
}

/// Computes the checksums anew. Returns whether there is one of layer 4.
pub(super) fn repair(bytes: &mut [u8], header: &Header) -> bool {
    if bytes.first().is_some_and(|first| first >> 4 == 4) {
        crate::packet::mend_header(bytes);
    }
    let Some((at, start)) = layer_4_sum(bytes, header) else { return false };
    let Some(layer_4) = bytes.get_mut(header.layer_4..header.end) else { return false };
    put(layer_4, at, [0, 0]);
    let sum = finish(start + sum(layer_4));
    let sum = if matches!(header.kind, Kind::Udp) && sum == 0 { 0xffff } else { sum };
    put(layer_4, at, sum.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{self, End, Flags, Header as Wanted, Segment};
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn end(last: u8, port: u16) -> End {
        End { address: Ipv4Addr::new(192, 0, 2, last), port }
    }

    fn built(is_tcp: bool, length: usize) -> Vec<u8> {
        let segment = Segment { sequence: 7, acknowledgement: 9, flags: Flags::ACK, window: 3 };
        let header = if is_tcp { Wanted::Tcp(segment) } else { Wanted::Udp };
        let fill = |payload: &mut [u8]| payload.fill(0x5a);
        packet::build(packet::Packet::default(), (end(1, 40_000), end(2, 80)), header, length, fill)
            .bytes()
            .to_vec()
    }

    fn changed(
        header: &Header,
        source: &str,
        destination: &str,
        ports: (u16, u16),
        acknowledges: u32,
    ) -> Edit {
        let address = |text: &str| text.parse::<IpAddr>().unwrap().into();
        let (source_port, destination_port) = ports;
        let (source, destination) = (address(source), address(destination));
        let tuple = FiveTuple { source, destination, source_port, destination_port, ..header.tuple };
        Edit { tuple, outer: None, acknowledges }
    }

    proptest! {
        #[test]
        fn right_checksums_stay_right_and_wrong_ones_wrong(
            is_tcp: bool,
            length in 0usize..200,
            source in any::<[u8; 4]>(),
            destination in any::<[u8; 4]>(),
            ports in any::<(u16, u16)>(),
            acknowledges: u32,
            damage: u16,
        ) {
            let mut bytes = built(is_tcp, length);
            let header = headers::read(&bytes).unwrap();
            prop_assert_eq!(check(&bytes, &header), Check::Right);
            let text = |address: [u8; 4]| Ipv4Addr::from(address).to_string();
            let edit = changed(&header, &text(source), &text(destination), ports, acknowledges);
            let at = header.layer_4 + if is_tcp { 16 } else { 6 };
            let field = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            // The two forms of zero are one.
            let is_wrong = damage % 0xffff != field % 0xffff && damage != 0;
            if is_wrong {
                bytes[at..at + 2].copy_from_slice(&damage.to_be_bytes());
            }
            apply(&mut bytes, &header, &edit);
            let after = headers::read(&bytes).unwrap();
            prop_assert_eq!(after.tuple, edit.tuple);
            prop_assert!(is_header_right(&bytes, &after));
            prop_assert_eq!(check(&bytes, &after) == Check::Right, !is_wrong);
            if let (Some(before), Some(after)) = (header.tcp(), after.tcp()) {
                prop_assert_eq!(after.acknowledgement, before.acknowledgement.wrapping_add(acknowledges));
            }
            prop_assert!(repair(&mut bytes, &after));
            prop_assert!(packet::view(&bytes).is_ok());
        }
    }

    #[test]
    fn a_checksum_that_was_left_to_hardware_is_told_apart() {
        for is_tcp in [true, false] {
            let mut bytes = built(is_tcp, 33);
            let header = headers::read(&bytes).unwrap();
            let (at, start) = layer_4_sum(&bytes, &header).unwrap();
            put(&mut bytes, 20 + at, (!finish(start)).to_be_bytes());
            assert_eq!(check(&bytes, &header), Check::Offloaded);
            put(&mut bytes, 20 + at, [0x12, 0x34]);
            assert_eq!(check(&bytes, &header), Check::Wrong);
            assert!(repair(&mut bytes, &header));
            assert_eq!(check(&bytes, &header), Check::Right);
        }
    }

    #[test]
    fn the_packet_in_an_error_is_changed_and_the_error_adds_up() {
        let about = built(false, 10);
        let mut bytes = packet::port_unreachable(packet::Packet::default(), &about).unwrap().bytes().to_vec();
        let header = headers::read(&bytes).unwrap();
        let mut edit = changed(&header, "198.51.100.7", "10.0.3.20", (5, 8080), 0);
        let outer: [IpAddr; 2] = ["10.0.3.20", "198.51.100.7"].map(|text| text.parse().unwrap());
        edit.outer = Some((outer[0].into(), outer[1].into()));
        apply(&mut bytes, &header, &edit);
        let view = packet::view(&bytes).unwrap();
        assert_eq!(view.source, End { address: Ipv4Addr::new(198, 51, 100, 7), port: 5 }.any());
        assert_eq!(view.destination, End { address: Ipv4Addr::new(10, 0, 3, 20), port: 8080 }.any());
        assert_eq!(ends(&bytes).unwrap(), (outer[0].into(), outer[1].into()));
        assert!(packet::adds_up(&bytes[28..48]), "the header in the quote");
    }

    #[test]
    fn pings_and_ipv6_are_changed_too() {
        let mut bytes = vec![0x60, 0, 0, 0, 0, 10, 58, 64];
        let [one, two]: [IpAddr; 2] = ["2001:db8::1", "2001:db8::2"].map(|text| text.parse().unwrap());
        bytes.extend(Address::from(one).v6_bytes());
        bytes.extend(Address::from(two).v6_bytes());
        bytes.extend([128, 0, 0, 0, 0, 7, 0, 1, b'h', b'i']);
        let header = headers::read(&bytes).unwrap();
        assert_eq!(check(&bytes, &header), Check::Wrong);
        assert!(repair(&mut bytes, &header));
        let edit = changed(&header, "fc00::7", "fc00::3", (9, 0), 0);
        apply(&mut bytes, &header, &edit);
        let after = headers::read(&bytes).unwrap();
        assert_eq!((after.tuple, check(&bytes, &after)), (edit.tuple, Check::Right));
    }

    #[test]
    fn a_datagram_without_a_checksum_stays_without() {
        let mut bytes = built(false, 4);
        bytes[26..28].fill(0);
        let header = headers::read(&bytes).unwrap();
        apply(&mut bytes, &header, &changed(&header, "10.9.9.9", "10.9.9.8", (1, 2), 0));
        assert_eq!((&bytes[26..28], check(&bytes, &header)), (&[0, 0][..], Check::Right));
    }
}
