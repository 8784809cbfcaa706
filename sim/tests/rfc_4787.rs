//! RFC 4787, NAT for UDP, as far as it applies to a load balancer; with RFC 7857 where that changes it. The names of
//! the checks are those of the table in `docs/src/robustness.md`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;

use crate::rfc_support::*;
use evenkeel_sim::packet::{End, view};

#[test]
fn u1_the_service_is_the_same_end_for_every_client() {
    let mut pipe = Pipe::new(plan());
    for last in 1..=9 {
        let there = pipe.wan(1, &udp((client(last), DNS), b"?")).packet();
        let (from, server) = ends(&there);
        assert_eq!(from, client(last), "sources stay");
        let back = pipe.lan(1, &udp((server, from), b"!")).packet();
        assert_eq!(ends(&back), (DNS, client(last)));
    }
}

#[test]
fn u1b_a_client_keeps_its_mapping_while_it_lives_and_its_real_server() {
    let mut pipe = Pipe::new(full_nat(1024..=65_535));
    let first = ends(&pipe.wan(1, &udp((CLIENT, DNS), b"?")).packet());
    for second in 1..5 {
        pipe.wan(second * SECOND, &udp((client(11), DNS), b"?")).packet();
        let again = ends(&pipe.wan(second * SECOND, &udp((CLIENT, DNS), b"?")).packet());
        assert_eq!(again, first);
    }
}

#[test]
fn u2_two_flows_never_share_a_port_towards_one_real_server() {
    let mut plan = full_nat(5000..=5003);
    plan.directors[0].servers.truncate(1);
    let mut pipe = Pipe::new(plan);
    let mut ports = BTreeSet::new();
    for last in 1..=4 {
        let (mapped, _) = ends(&pipe.wan(1, &udp((client(last), DNS), b"?")).packet());
        assert_eq!(mapped.address, OWN);
        assert!((5000..=5003).contains(&mapped.port) && ports.insert(mapped.port), "{mapped:?}");
    }
    pipe.wan(1, &udp((client(5), DNS), b"?")).is_silent("ports_exhausted");
    assert_eq!(pipe.flows(1), 4, "nobody gives way");
}

#[test]
fn u3_and_u4_a_free_port_is_kept_with_its_range_and_parity() {
    let mut pipe = Pipe::new(full_nat(1..=65_535));
    for (last, port) in [(1, 40_001), (2, 40_002), (3, 1023), (4, 512), (5, 1024)] {
        let from = End { port, ..client(last) };
        let (mapped, _) = ends(&pipe.wan(1, &udp((from, DNS), b"?")).packet());
        assert_eq!(mapped.port, port);
    }
}

#[test]
fn u5_a_mapping_lives_for_five_minutes() {
    let mut pipe = Pipe::new(plan());
    pipe.wan(0, &udp((CLIENT, DNS), b"?")).packet();
    assert_eq!(pipe.flows(120 * SECOND), 1, "REQ-5: at least two minutes");
    assert_eq!(pipe.flows(299 * SECOND), 1, "REQ-5 c: five are recommended");
    assert_eq!(pipe.flows(302 * SECOND), 0);
}

#[test]
fn u6_packets_in_either_direction_refresh_it() {
    let mut pipe = Pipe::new(plan());
    let (from, server) = ends(&pipe.wan(0, &udp((CLIENT, DNS), b"?")).packet());
    pipe.lan(250 * SECOND, &udp((server, from), b"!")).packet();
    assert_eq!(pipe.flows(540 * SECOND), 1, "REQ-6: what comes from inside");
    pipe.wan(540 * SECOND, &udp((CLIENT, DNS), b"?")).packet();
    assert_eq!(pipe.flows(830 * SECOND), 1);
    assert_eq!(pipe.flows(850 * SECOND), 0);
}

#[test]
fn u7_only_the_real_server_answers_through_a_mapping() {
    let mut pipe = Pipe::new(full_nat(1024..=65_535));
    let (mapped, server) = ends(&pipe.wan(1, &udp((CLIENT, DNS), b"?")).packet());
    let other_port = End { port: server.port + 1, ..server };
    let other_host = End { address: ROUTER, ..server };
    for stranger in [other_port, other_host] {
        let answer = pipe.lan(2, &udp((stranger, mapped), b"!"));
        assert!(answer.drops.contains_key("no_director"), "{answer:?}");
        assert!(answer.out.iter().all(|(by, _)| by == "lan"), "nothing reaches the client: {answer:?}");
    }
    pipe.lan(2, &udp((server, mapped), b"!")).packet();
}

#[test]
fn u8_a_real_server_that_calls_the_service_is_seen_from_outside() {
    let mut pipe = Pipe::new(full_nat(1024..=65_535));
    let caller = End { address: S2, port: 33_000 };
    // The first real server has its turn.
    let (mapped, server) = ends(&pipe.lan(1, &udp((caller, DNS), b"?")).packet());
    assert_eq!((mapped.address, server.address), (OWN, S1));
    let back = pipe.lan(2, &udp((server, mapped), b"!")).packet();
    assert_eq!(ends(&back), (DNS, caller));
}

#[test]
fn u9_no_icmp_message_ends_a_mapping() {
    let mut pipe = Pipe::new(plan());
    let there = pipe.wan(1, &udp((CLIENT, DNS), b"?")).packet();
    let (from, server) = ends(&there);
    let answer = pipe.lan(1, &udp((server, from), b"!")).packet();
    for kind in [(3, 0), (3, 1), (3, 3), (3, 4), (3, 13), (4, 0), (11, 0), (11, 1), (12, 0)] {
        // Those that the real server's side sends about the question, and the client's about the answer.
        pipe.lan(2, &icmp((server.address, from.address), kind, [0; 4], &there[..28])).packet();
        pipe.wan(2, &icmp((ROUTER, VIP), kind, [0; 4], &answer[..28])).packet();
        assert_eq!(pipe.flows(2), 1, "{kind:?}");
        let again = pipe.wan(2, &udp((CLIENT, DNS), b"?")).packet();
        assert_eq!(ends(&again), (from, server), "{kind:?}");
    }
}

#[test]
fn u10_what_does_not_fit_is_told_or_cut_in_order() {
    let mut plan = plan();
    plan.interfaces[1].mtu_bytes = 1000;
    let mut pipe = Pipe::new(plan);
    let large = udp((CLIENT, DNS), &[7; 1400]);
    let told = pipe.wan(1, &large).told("too_big");
    assert_eq!((kind(&told), addresses(&told).1), ((3, 4), CLIENT.address));
    assert_eq!(u16::from_be_bytes([told[26], told[27]]), 1000);
    let answer = pipe.wan(2, &with(large, 6, &[0, 0]));
    assert!(answer.drops.is_empty() && answer.out.len() == 2, "{answer:?}");
    let mut at = 0;
    for (by, part) in &answer.out {
        assert!(by == "lan" && part.len() <= 1000);
        addresses(part);
        let offset = usize::from(u16::from_be_bytes([part[6], part[7]]) & 0x1fff) * 8;
        assert_eq!(offset, at, "in order");
        at += part.len() - 20;
    }
    assert_eq!(at, 1408);
}

#[test]
fn u11_fragments_work_in_any_order() {
    let packet = with(udp((CLIENT, DNS), &[7; 600]), 6, &[0, 0]);
    let cuts = [(0, 200), (200, 400), (400, 700)];
    for (number, order) in
        [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]].iter().enumerate()
    {
        let mut pipe = Pipe::new(plan());
        let parts = fragments(&packet, u16::try_from(number).unwrap(), &cuts);
        let mut body = vec![0; 608];
        let mut count = 0;
        for index in order {
            let answer = pipe.wan(1, &parts[*index]);
            assert!(answer.drops.is_empty(), "{order:?}: {answer:?}");
            for (_, part) in answer.out {
                assert_eq!(addresses(&part), (CLIENT.address, S1), "all to the same real server");
                let at = usize::from(u16::from_be_bytes([part[6], part[7]]) & 0x1fff) * 8;
                body[at..at + part.len() - 20].copy_from_slice(&part[20..]);
                count += 1;
            }
        }
        // Put together again, it is the datagram with the real server's port and a right checksum.
        let whole = ip(17, (CLIENT.address, S1), &body);
        assert_eq!((count, view(&whole).unwrap().payload), (3, &[7; 600][..]), "{order:?}");
        assert_eq!(ends(&whole).1.port, 5353);
    }
}

#[test]
fn u11_a_flood_of_fragments_leaves_whole_packets_alone() {
    let mut pipe = Pipe::new(plan());
    let packet = with(udp((client(66), DNS), &[7; 600]), 6, &[0, 0]);
    let lines: String = (0..3000)
        .map(|number| {
            let part = &fragments(&packet, number, &[(200, 400)])[0];
            format!("{}\n", serde_json::json!({"t": 1, "in": "wan", "ip": hex(part)}))
        })
        .collect();
    pipe.push(&lines);
    let there = pipe.wan(1, &udp((CLIENT, DNS), b"?")).packet();
    assert_eq!(ends(&there).0, CLIENT);
}

#[test]
fn u12_no_checksum_stays_none_and_a_computed_zero_is_sent_as_ones() {
    let mut pipe = Pipe::new(plan());
    let none = with(udp((CLIENT, DNS), b"hello!"), 26, &[0, 0]);
    let there = pipe.wan(1, &none).packet();
    assert_eq!(there[26..28], [0, 0]);
    assert_eq!(view(&there).unwrap().payload, b"hello!");
    // A payload of two bytes under which the checksum towards the real server is zero.
    let zero = (0..=u16::MAX).map(|word| udp((CLIENT, End { address: S1, port: 5353 }), &word.to_be_bytes()));
    let zero = zero.into_iter().find(|packet| packet[26..28] == [0xff, 0xff]).unwrap();
    let there = pipe.wan(1, &udp((CLIENT, DNS), &zero[28..30])).packet();
    assert_eq!(ends(&there).1.address, S1);
    assert_eq!(there[26..28], [0xff, 0xff]);
}

#[test]
fn u13_identifications_are_left_to_their_sender() {
    let mut pipe = Pipe::new(plan());
    for identification in [[0, 0], [0x12, 0x34], [0xff, 0xff]] {
        let packet = with(udp((CLIENT, DNS), b"?"), 4, &identification);
        assert_eq!(pipe.wan(1, &packet).packet()[4..6], identification);
    }
}

#[test]
fn u14_refused_packets_and_errors_do_not_refresh() {
    let mut pipe = Pipe::new(plan());
    let there = pipe.wan(0, &udp((CLIENT, DNS), b"?")).packet();
    let (from, server) = ends(&there);
    pipe.lan(200 * SECOND, &icmp((server.address, from.address), (3, 3), [0; 4], &there[..28])).packet();
    let answer = pipe.wan(200 * SECOND, &with(udp((CLIENT, DNS), b"?"), 8, &[1]));
    assert!(answer.drops.contains_key("ttl_exceeded"));
    assert_eq!(pipe.flows(299 * SECOND), 1);
    assert_eq!(pipe.flows(302 * SECOND), 0);
}
