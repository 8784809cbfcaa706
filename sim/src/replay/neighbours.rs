//! The stations on an Ethernet of a replay: every address has one, which answers when it is asked for.

use evenkeel_engine::plan::Layer;
use evenkeel_engine::wire::ethernet::MacAddress;
use evenkeel_engine::wire::{Address, FiveTuple, Protocol};
use evenkeel_engine::{Engine, InterfaceId};

use super::edit::{ends, pseudo_sum};
use super::tap::Slot;
use crate::checksum::{finish, sum};

const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Bytes of a link header.
const LINK_BYTES: usize = 14;

/// The station of an address: locally administered, with the last four bytes of the address.
fn station(address: Address) -> [u8; 6] {
    let [a, b, c, d] = address.v4_bytes();
    [2, if address.is_v4() { 4 } else { 6 }, a, b, c, d]
}

/// The link header in front of an IP packet to the station `own`.
pub(super) fn link_to(own: MacAddress, bytes: &[u8]) -> [u8; LINK_BYTES] {
    let source = ends(bytes).map_or(Address::UNSPECIFIED, |(source, _)| source);
    let kind = if bytes.first().is_some_and(|first| first >> 4 == 6) { IPV6 } else { IPV4 };
    link(own.0, station(source), kind)
}

fn link(to: [u8; 6], from: [u8; 6], [k0, k1]: [u8; 2]) -> [u8; LINK_BYTES] {
    let ([t0, t1, t2, t3, t4, t5], [f0, f1, f2, f3, f4, f5]) = (to, from);
    [t0, t1, t2, t3, t4, t5, f0, f1, f2, f3, f4, f5, k0, k1]
}

/// The IP packet in what left of a slot.
pub(super) fn without_link<'a>(engine: &Engine, slot: &Slot, bytes: &'a [u8]) -> &'a [u8] {
    let out = slot.out().map_or_else(|| slot.interface(), |(interface, _)| interface);
    of_interface(engine, out, bytes)
}

/// The IP packet in what left by an interface.
pub(super) fn of_interface<'a>(engine: &Engine, out: InterfaceId, bytes: &'a [u8]) -> &'a [u8] {
    match engine.plan().interfaces.get(out.index()).map(|interface| interface.layer) {
        Some(Layer::Ethernet(_)) => bytes.get(LINK_BYTES..).unwrap_or_default(),
        Some(Layer::Ip) | None => bytes,
    }
}

/// The answer of whoever a frame asks for, if it is a question for a neighbour.
pub(super) fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let (link, body) = frame.split_first_chunk::<LINK_BYTES>()?;
    let [_, _, _, _, _, _, asker @ .., k0, k1] = *link;
    match [k0, k1] {
        ARP => answer_arp(asker, body),
        IPV6 => answer_solicitation(asker, body),
        _ => None,
    }
}

/// RFC 826.
fn answer_arp(asker: [u8; 6], body: &[u8]) -> Option<Vec<u8>> {
    let [_, _, _, _, _, _, o0, o1, _, _, _, _, _, _, addresses @ ..] = *body.first_chunk::<28>()?;
    let [s0, s1, s2, s3, _, _, _, _, _, _, t0, t1, t2, t3] = addresses;
    // A question, and not one for its own address, which announces.
    if [o0, o1] != [0, 1] || [s0, s1, s2, s3] == [t0, t1, t2, t3] {
        return None;
    }
    let own = station(Address::v4([t0, t1, t2, t3]));
    let mut frame = link(asker, own, ARP).to_vec();
    frame.extend([0, 1, 8, 0, 6, 4, 0, 2]);
    frame.extend(own);
    frame.extend([t0, t1, t2, t3]);
    frame.extend(asker);
    frame.extend([s0, s1, s2, s3]);
    Some(frame)
}

/// RFC 4861 s.7.2.4: a neighbour solicitation is answered with an advertisement.
fn answer_solicitation(asker: [u8; 6], body: &[u8]) -> Option<Vec<u8>> {
    let (source, _) = ends(body)?;
    let (head, message) = body.split_first_chunk::<40>()?;
    let ([kind, _, _, _, _, _, _, _, target @ ..], _) = message.split_first_chunk::<24>()?;
    let next = head.get(6)?;
    // A question from nobody is one whether the address is free (RFC 4862).
    if *next != Protocol::ICMPV6.0 || *kind != 135 || source == Address::UNSPECIFIED {
        return None;
    }
    let target = Address::v6(*target);
    let own = station(target);
    // Solicited, overriding.
    let mut message = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    message.extend(target.v6_bytes());
    message.extend([2, 1]);
    message.extend(own);
    let length = u64::try_from(message.len()).ok()?;
    let tuple = FiveTuple { source: target, destination: source, ..FiveTuple::default() };
    let check = finish(pseudo_sum(tuple.source, tuple.destination, Protocol::ICMPV6, length) + sum(&message));
    message.get_mut(2..4)?.copy_from_slice(&check.to_be_bytes());
    let mut frame = link(asker, own, IPV6).to_vec();
    frame.extend([0x60, 0, 0, 0, 0, u8::try_from(length).ok()?, Protocol::ICMPV6.0, 255]);
    frame.extend(target.v6_bytes());
    frame.extend(source.v6_bytes());
    frame.extend(message);
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::super::headers;
    use super::*;

    const ASKER: [u8; 6] = [2, 0, 0, 0, 0, 1];

    #[test]
    fn a_question_for_an_address_is_answered_by_its_station() {
        let question = |operation: u8, sender: [u8; 4], target: [u8; 4]| {
            let mut frame = link([0xff; 6], ASKER, ARP).to_vec();
            frame.extend([0, 1, 8, 0, 6, 4, 0, operation]);
            frame.extend(ASKER);
            frame.extend(sender);
            frame.extend([0; 6]);
            frame.extend(target);
            frame
        };
        let frame = answer(&question(1, [10, 0, 0, 1], [10, 0, 3, 20])).unwrap();
        assert_eq!(frame[..6], ASKER);
        assert_eq!(frame[20..], [0, 2, 2, 4, 10, 0, 3, 20, 10, 0, 3, 20, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1]);
        assert_eq!(answer(&question(2, [10, 0, 0, 1], [10, 0, 3, 20])), None);
        assert_eq!(answer(&question(1, [10, 0, 0, 1], [10, 0, 0, 1])), None);
    }

    #[test]
    fn a_solicitation_is_answered_with_an_advertisement() {
        let address = |last: u8| [0xfc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
        let mut frame = link([0x33, 0x33, 0xff, 0, 0, 9], ASKER, IPV6).to_vec();
        frame.extend([0x60, 0, 0, 0, 0, 32, 58, 255]);
        frame.extend(address(1));
        frame.extend(address(9));
        frame.extend([135, 0, 0, 0, 0, 0, 0, 0]);
        frame.extend(address(9));
        frame.extend([1, 1, 2, 0, 0, 0, 0, 1]);
        let found = answer(&frame).unwrap();
        assert_eq!(found[..12], [&ASKER[..], &[2, 6, 0, 0, 0, 9]].concat());
        let bytes = &found[LINK_BYTES..];
        assert_eq!(ends(bytes).unwrap(), (Address::v6(address(9)), Address::v6(address(1))));
        let header = headers::read(bytes).unwrap();
        let length = u64::try_from(bytes.len() - 40).unwrap();
        let start = pseudo_sum(header.tuple.source, header.tuple.destination, Protocol::ICMPV6, length);
        assert_eq!(finish(start + sum(&bytes[40..])), 0);
        assert_eq!(answer(&frame[..60]), None);
        assert_eq!(answer(&[]), None);
    }
}
