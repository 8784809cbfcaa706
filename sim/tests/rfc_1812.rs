//! RFC 1812, routers, as far as it applies to a load balancer. The names of the checks are those of the table in
//! `docs/src/robustness.md`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::net::Ipv4Addr;

use crate::rfc_support::*;
use evenkeel_sim::packet::{End, Flags};

const BROADCAST: Ipv4Addr = Ipv4Addr::BROADCAST;
const MULTICAST: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);

#[test]
fn r1_each_hop_takes_one_and_the_last_is_told() {
    let mut pipe = Pipe::new(plan());
    for ttl in [2, 64, 255] {
        let there = pipe.wan(1, &with(udp((CLIENT, DNS), b"?"), 8, &[ttl])).packet();
        assert_eq!(there[8], ttl - 1);
    }
    for ttl in [0, 1] {
        let told = pipe.wan(2, &with(udp((CLIENT, DNS), b"?"), 8, &[ttl])).told("ttl_exceeded");
        assert_eq!((kind(&told), addresses(&told).1), ((11, 0), CLIENT.address));
        assert_eq!(told[28..56], with(udp((CLIENT, DNS), b"?"), 8, &[ttl])[..28], "it is quoted as it came");
    }
}

#[test]
fn r2_what_is_for_us_has_arrived_whatever_its_time_to_live() {
    let mut pipe = Pipe::new(plan());
    let ping = icmp((CLIENT.address, VIP), (8, 0), [0, 7, 0, 1], b"there?");
    for ttl in [1, 64] {
        let pong = pipe.wan(1, &with(ping.clone(), 8, &[ttl])).packet();
        assert_eq!((kind(&pong), addresses(&pong)), ((0, 0), (VIP, CLIENT.address)));
        assert!(pong[8] > 1, "{}", pong[8]);
    }
}

#[test]
fn r3_no_error_is_sent_about_what_must_not_have_one() {
    let expired = |packet: Vec<u8>| with(packet, 8, &[1]);
    let mut pipe = Pipe::new(plan());
    let there = pipe.wan(1, &udp((CLIENT, DNS), b"?")).packet();
    let (from, server) = ends(&there);
    let answer = pipe.lan(1, &udp((server, from), b"!")).packet();
    // An error.
    let error = icmp((ROUTER, VIP), (3, 3), [0; 4], &answer[..28]);
    pipe.wan(2, &expired(error)).is_silent("ttl_exceeded");
    // A fragment that is not the first.
    let parts = fragments(&with(udp((CLIENT, DNS), &[7; 600]), 6, &[0, 0]), 9, &[(0, 200), (200, 400)]);
    pipe.wan(2, &parts[0]).packet();
    pipe.wan(2, &expired(parts[1].clone())).is_silent("ttl_exceeded");
    // Senders that are none, and receivers that are many.
    for source in [BROADCAST, MULTICAST, Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::UNSPECIFIED] {
        let from = End { address: source, port: 9 };
        let answer = pipe.wan(2, &expired(udp((from, DNS), b"?")));
        assert!(answer.out.is_empty() && !answer.drops.is_empty(), "{source}: {answer:?}");
    }
    for destination in [BROADCAST, MULTICAST] {
        let to = End { address: destination, port: 53 };
        let answer = pipe.wan(2, &expired(udp((CLIENT, to), b"?")));
        assert!(answer.out.is_empty() && !answer.drops.is_empty(), "{destination}: {answer:?}");
    }
    // A header that is wrong.
    let mut wrong = expired(udp((CLIENT, DNS), b"?"));
    wrong[10] ^= 1;
    pipe.wan(2, &wrong).is_silent("bad_checksum");
}

#[test]
fn r4_a_header_that_contradicts_itself_goes_nowhere() {
    let good = udp((CLIENT, DNS), b"hello");
    let length = u8::try_from(good.len()).unwrap();
    let mut pipe = Pipe::new(plan());
    let mut wrong = good.clone();
    wrong[10] ^= 0x80;
    pipe.wan(1, &wrong).is_silent("bad_checksum");
    pipe.wan(1, &with(good.clone(), 0, &[0x55])).is_silent("not_ip");
    pipe.wan(1, &with(good.clone(), 3, &[length + 1])).is_silent("truncated");
    pipe.wan(1, &with(good.clone(), 3, &[19])).is_silent("bad_header");
    let mut short = good.clone();
    short[0] = 0x44;
    pipe.wan(1, &short).is_silent("bad_header");
    pipe.wan(1, &good[..19]).is_silent("truncated");
    // What lies behind the total length is not looked at and does not leave.
    let padded = [&good[..], &[0; 9]].concat();
    assert_eq!(pipe.wan(1, &padded).packet().len(), good.len());
}

#[test]
fn r5_addresses_that_no_host_has_are_not_forwarded() {
    let mut pipe = Pipe::new(plan());
    let sources = [
        [0, 0, 0, 0],
        [0, 1, 2, 3],
        [127, 0, 0, 1],
        [127, 9, 9, 9],
        [224, 0, 0, 5],
        [239, 1, 1, 1],
        [240, 0, 0, 1],
        [255, 255, 255, 255],
    ];
    for source in sources {
        let from = End { address: source.into(), port: 9 };
        pipe.wan(1, &udp((from, DNS), b"?")).is_silent("martian");
    }
    // The same at both ends: a packet that would answer itself.
    pipe.wan(1, &tcp((WEB, WEB), Flags::SYN, 1, 0, b"")).is_silent("martian");
    assert_eq!(pipe.flows(1), 0);
}

#[test]
fn r6_the_checksum_of_the_header_is_right_for_every_sum() {
    // Every identification gives another sum, the two ends of one's complement among them.
    let mut pipe = Pipe::new(plan());
    let packet = udp((CLIENT, DNS), b"?");
    let base = u16::from_be_bytes([packet[10], packet[11]]);
    for identification in [base, base.wrapping_sub(1), base.wrapping_add(1), 0, 0xfeff, 0xff00, 0xffff] {
        let there = pipe.wan(1, &with(packet.clone(), 4, &identification.to_be_bytes())).packet();
        assert_eq!(addresses(&there).0, CLIENT.address, "{identification:#x}");
        assert_eq!(
            checksum(&[&there[..10], &[0, 0], &there[12..20]].concat()),
            u16::from_be_bytes([there[10], there[11]])
        );
    }
}

#[test]
fn r7_a_way_through_other_routers_is_refused_and_other_options_are_kept() {
    let mut pipe = Pipe::new(plan());
    let packet = udp((CLIENT, DNS), b"?");
    for kind in [131, 137] {
        pipe.wan(1, &with_options(&packet, &[kind, 7, 4, 10, 0, 0, 9, 0])).is_silent("source_route");
    }
    let options = [1, 1, 1, 7, 7, 4, 0, 0, 0, 0, 0, 0];
    let there = pipe.wan(1, &with_options(&packet, &options)).packet();
    assert_eq!((&there[20..32], addresses(&there).1), (&options[..], S1));
}

#[test]
fn r8_errors_are_limited_by_the_second() {
    let mut plan = plan();
    plan.limits.answers_per_second = 3;
    let mut pipe = Pipe::new(plan);
    let expired = with(udp((CLIENT, DNS), b"?"), 8, &[1]);
    let mut counts = [0; 2];
    for (second, count) in (1..).zip(&mut counts) {
        for millisecond in 0..10 {
            *count += pipe.wan(second * SECOND + millisecond, &expired).out.len();
        }
    }
    assert_eq!(counts, [3, 3]);
}

#[test]
fn r9_an_error_quotes_enough_and_stays_small() {
    let mut pipe = Pipe::new(plan());
    let packet = with(udp((CLIENT, DNS), &[7; 1400]), 8, &[1]);
    let told = pipe.wan(1, &packet).told("ttl_exceeded");
    assert_eq!(told.len(), 576);
    assert_eq!(told[28..], packet[..548]);
    assert_eq!((told[1] & 0xe0, told[8] > 1), (0xc0, true), "precedence of network control");
}
