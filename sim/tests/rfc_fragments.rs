//! Fragments that are made to do harm: RFC 1858, RFC 3128, RFC 5722, RFC 6146 and RFC 6946. The names of the checks are
//! those of the table in `docs/src/robustness.md`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::rfc_support::*;
use evenkeel_engine::plan::{
    Binding, Builtin, DirectorPlan, InterfacePlan, Layer, Plan, Prefix, RoutePlan, ServerPlan,
};
use evenkeel_engine::verdict::InterfaceId;
use evenkeel_engine::wire::Protocol;
use evenkeel_sim::packet::Flags;

fn datagram(bytes: usize) -> Vec<u8> {
    with(udp((CLIENT, DNS), &vec![7; bytes]), 6, &[0, 0])
}

#[test]
fn f1_fragments_that_hide_the_header_are_dropped() {
    let mut pipe = Pipe::new(plan());
    let segment = with(tcp((CLIENT, WEB), Flags::SYN, 1, 0, &[7; 100]), 6, &[0, 0]);
    // RFC 1858: a second fragment that begins in the header. RFC 3128: a first one that does not hold it.
    pipe.wan(1, &fragments(&segment, 1, &[(8, 48)])[0]).is_silent("fragment_tiny");
    pipe.wan(1, &fragments(&segment, 2, &[(0, 8)])[0]).is_silent("fragment_tiny");
    assert_eq!(pipe.flows(1), 0);
}

#[test]
fn f2_an_overlap_ends_the_whole_datagram() {
    let overlaps = [(184, 400), (200, 408), (0, 200), (8, 16), (100 / 8 * 8, 208)];
    for (number, overlap) in overlaps.into_iter().enumerate() {
        let mut pipe = Pipe::new(plan());
        let all = [(0, 200), overlap, (200, 400), (400, 608)];
        let parts = fragments(&datagram(600), u16::try_from(number).unwrap(), &all);
        pipe.wan(1, &parts[0]).packet();
        let first = pipe.wan(1, &parts[1]);
        let is_ahead = overlap == (200, 408);
        assert_eq!(first.drops.contains_key("fragment_overlap"), !is_ahead, "{overlap:?}: {first:?}");
        // A copy of what was there ends nothing (RFC 5722 s.4 as amended by RFC 8200 s.4.5 allows that).
        let is_copy = overlap == (0, 200);
        let next = pipe.wan(1, &parts[2]);
        assert_eq!(next.drops.contains_key("fragment_overlap"), !is_copy, "{overlap:?}: {next:?}");
        let last = pipe.wan(1, &parts[3]);
        assert_eq!(last.out.len(), usize::from(is_copy), "{overlap:?}: {last:?}");
    }
}

#[test]
fn f3_parts_wait_two_seconds_for_the_first_one() {
    let parts = fragments(&datagram(600), 5, &[(200, 400), (0, 200), (400, 608)]);
    let mut pipe = Pipe::new(plan());
    assert!(pipe.wan(0, &parts[0]).drops.is_empty());
    let answer = pipe.wan(1_990, &parts[1]);
    assert_eq!(answer.out.len(), 2, "RFC 6146 s.3.4: at least two seconds: {answer:?}");
    let mut pipe = Pipe::new(plan());
    assert!(pipe.wan(0, &parts[0]).drops.is_empty());
    let answer = pipe.wan(5_000, &parts[1]);
    assert_eq!((answer.out.len(), answer.drops.get("fragment_timeout")), (1, Some(&1)), "{answer:?}");
}

#[test]
fn f4_parts_that_end_beyond_the_largest_datagram_are_dropped() {
    let mut pipe = Pipe::new(plan());
    let part = fragments(&datagram(600), 5, &[(200, 400)]).remove(0);
    pipe.wan(1, &with(part, 6, &[0x3f, 0xff])).is_silent("bad_header");
}

#[test]
fn f5_a_fragment_that_is_all_of_its_datagram_is_a_packet_of_its_own() {
    let mut pipe = Pipe::new(ipv6_plan());
    let whole = ipv6_datagram(Some([17, 0, 0, 0, 0, 0, 0, 9]), &[7; 64]);
    let parts = [[17, 0, 0, 1, 0, 0, 0, 9], [17, 0, 0, 0x48, 0, 0, 0, 9]];
    // Parts of another datagram with the same identification do not meet it (RFC 6946).
    assert_eq!(pipe.wan(1, &ipv6_datagram(Some(parts[0]), &[7; 64])).out.len(), 1);
    for _ in 0..2 {
        let there = pipe.wan(1, &whole).packet();
        assert_eq!(there[24..40], unhex("fd000003000000000000000000000020")[..]);
        assert_eq!(there[7], 63);
    }
    assert_eq!(pipe.wan(1, &ipv6_part(parts[1], &[7; 16])).out.len(), 1);
}

#[test]
fn f6_a_routing_header_of_type_0_and_an_unknown_header_are_not_stepped_over() {
    let mut pipe = Pipe::new(ipv6_plan());
    let datagram = ipv6_datagram(None, &[7; 8]);
    let behind = |kind: u8, header: &[u8]| {
        let mut packet = [&datagram[..40], header, &datagram[40..]].concat();
        packet[6] = kind;
        let length = u16::try_from(packet.len() - 40).unwrap();
        packet[4..6].copy_from_slice(&length.to_be_bytes());
        packet
    };
    // RFC 5095; two segments left, so that somebody would have to follow it.
    let route = [&[17, 2, 0, 1, 0, 0, 0, 0][..], &[0xfd; 16]].concat();
    let answer = pipe.wan(1, &behind(43, &route));
    assert!(answer.out.is_empty() && !answer.drops.is_empty(), "{answer:?}");
    let answer = pipe.wan(1, &behind(253, &[17, 0, 0, 0, 0, 0, 0, 0]));
    assert!(answer.out.is_empty() && answer.drops.contains_key("unknown_protocol"), "{answer:?}");
    // One that may be stepped over is.
    pipe.wan(1, &behind(60, &[17, 0, 1, 4, 0, 0, 0, 0])).packet();
}

const CLIENT_V6: &str = "20010db8000000000000000000000007";
const VIP_V6: &str = "fd000000000000000000000000000003";

fn ipv6_plan() -> Plan {
    let mut plan = Plan::empty();
    for name in ["wan", "lan"] {
        plan.interfaces.push(InterfacePlan::new(name, Layer::Ip));
    }
    for (network, length, interface) in [("::", 0, 0), ("fd00:3::", 64, 1)] {
        let destination = Prefix { address: network.parse().unwrap(), length };
        plan.routes.push(RoutePlan { destination, gateway: None, interface: InterfaceId(interface) });
    }
    let servers = vec![ServerPlan::new("s1", "fd00:3::20".parse().unwrap(), 53, 1)];
    let bind = Binding::of("fd00::3".parse().unwrap(), 53, Protocol::UDP);
    plan.directors.push(DirectorPlan::new("names", bind, Builtin::RoundRobin, servers));
    plan
}

/// A datagram from port 4242 to the VIP, behind a fragment header where there is one.
fn ipv6_datagram(fragment: Option<[u8; 8]>, payload: &[u8]) -> Vec<u8> {
    let (from, to) = (unhex(CLIENT_V6), unhex(VIP_V6));
    let length = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
    let mut body = [&[0x10, 0x92, 0, 53, length[0], length[1], 0, 0][..], payload].concat();
    let sum = checksum(&[&from[..], &to, &[0, 0, length[0], length[1], 0, 0, 0, 17], &body].concat());
    body[6..8].copy_from_slice(&sum.to_be_bytes());
    let fragment = fragment.as_ref().map_or(&[][..], |header| &header[..]);
    ipv6(if fragment.is_empty() { 17 } else { 44 }, &[fragment, &body].concat())
}

/// A later part: bytes without a header of UDP.
fn ipv6_part(fragment: [u8; 8], payload: &[u8]) -> Vec<u8> {
    ipv6(44, &[&fragment[..], payload].concat())
}

fn ipv6(next: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&[0x60, 0, 0, 0, length[0], length[1], next, 64][..], &unhex(CLIENT_V6), &unhex(VIP_V6), body].concat()
}
