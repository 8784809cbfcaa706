//! Fragments follow their first one, in any order and both directions; what is wrong with them is counted.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::net::Ipv4Addr;

use crate::support::*;
use evenkeel_engine::forward::cut::cut;
use evenkeel_engine::{DropReason, Duration, Engine, Guests};
use proptest::prelude::*;

/// A datagram in pieces for a link of 600 bytes.
fn pieces(ends: Ends, payload: &[u8], identification: u16) -> Vec<Vec<u8>> {
    let mut whole = udp(ends, payload);
    whole[4..6].copy_from_slice(&identification.to_be_bytes());
    whole[6] = 0;
    let mut all = Vec::new();
    cut(&mended(whole), 600, &mut |parts: &[&[u8]]| {
        all.push(parts.concat());
        true
    })
    .unwrap();
    all
}

/// The payload of a datagram whose pieces are all here, put together and checked.
fn joined(mut pieces: Vec<Vec<u8>>) -> Vec<u8> {
    let offset = |piece: &[u8]| usize::from(u16::from_be_bytes([piece[6], piece[7]]) & 0x1fff) * 8;
    pieces.sort_by_key(|piece| offset(piece));
    let body = pieces.iter().flat_map(|piece| piece[20..].to_vec()).collect::<Vec<_>>();
    let mut whole = [&pieces[0][..20], &body[..]].concat();
    let length = u16::try_from(whole.len()).unwrap();
    whole[2..4].copy_from_slice(&length.to_be_bytes());
    whole[6..8].fill(0);
    mended(whole)
}

fn check(engine: &mut Engine, order: &[usize], all: &[Vec<u8>], payload: &[u8]) {
    let mut out = Vec::new();
    for place in order {
        out.extend(exchange(engine, &[all[*place].clone()], at(1)));
    }
    assert_eq!(out.len(), all.len());
    let whole = joined(out);
    let there = audit(&whole);
    assert_eq!((there.source, there.destination.1), ((CLIENT, 40_000), 8080));
    assert_eq!(whole[28..], *payload);
    assert_eq!(engine.counters().waiting, 0);
}

#[test]
fn a_datagram_in_pieces_reaches_its_server_and_the_answer_its_client() {
    let payload: Vec<u8> = (0..3000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut engine = engine(plan());
    let all = pieces(call(40_000), &payload, 7);
    check(&mut engine, &(0..all.len()).collect::<Vec<_>>(), &all, &payload);
    let server = Ipv4Addr::new(10, 0, 3, 21);
    let back = pieces(ends(server, 8080, CLIENT, 40_000), &payload, 9);
    let out = exchange(&mut engine, &back, at(2));
    assert_eq!(audit(&joined(out)).source, (VIP, 80));
    assert_eq!(engine.flow_count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_order_of_the_pieces_does_not_matter(
        order in Just((0..6).collect::<Vec<usize>>()).prop_shuffle(),
    ) {
        let payload: Vec<u8> = (0..3300_u32).map(|n| n.to_le_bytes()[0]).collect();
        let all = pieces(call(40_000), &payload, 7);
        prop_assert_eq!(all.len(), 6);
        check(&mut engine(plan()), &order, &all, &payload);
    }
}

#[test]
fn pieces_that_lie_over_each_other_or_hide_the_header_are_dropped() {
    let all = pieces(call(40_000), &[1; 1500], 7);
    let mut engine = engine(plan());
    exchange(&mut engine, &all[..1], at(1));
    let mut over = all[1].clone();
    over[7] -= 1;
    refused(&mut engine, mended(over), DropReason::FragmentOverlap);
    refused(&mut engine, all[2].clone(), DropReason::FragmentOverlap);
    let mut tiny = tcp(call(41_000), "S", b"");
    tiny[6..8].copy_from_slice(&1_u16.to_be_bytes());
    refused(&mut engine, mended(tiny), DropReason::FragmentTiny);
}

#[test]
fn later_pieces_go_where_their_first_one_went() {
    let mut engine = engine(plan());
    let foreign = pieces(ends(CLIENT, 1, Ipv4Addr::new(10, 0, 0, 9), 80), &[1; 1000], 7);
    refused(&mut engine, foreign[0].clone(), DropReason::NoDirector);
    refused(&mut engine, foreign[1].clone(), DropReason::NoDirector);
    let mut ping = echo_request(VIP);
    ping[6] = 0x20;
    ping.extend_from_slice(&[0, 0]);
    ping[3] += 2;
    refused(&mut engine, mended(ping), DropReason::Fragment);
}

#[test]
fn a_piece_waits_for_its_first_one_for_a_while_and_not_for_ever() {
    let mut engine = engine(plan());
    let all = pieces(call(40_000), &[1; 1500], 7);
    assert!(exchange(&mut engine, &all[1..], at(1)).is_empty());
    assert_eq!(engine.counters().waiting, 2);
    let end = engine.poll_timeout().unwrap();
    assert!(end >= at(1).after(Duration::from_secs(2)), "RFC 6146 asks for two seconds at least");
    engine.handle_timeout(end.after(Duration::from_millis(10)));
    assert_eq!(dropped(&engine), [("fragment_timeout", 2)]);
    assert!(engine.counters().is_conserved() && engine.counters().waiting == 0);
}

#[test]
fn a_flood_of_lone_pieces_fills_its_room_and_no_more() {
    let mut engine = engine(plan());
    let flood: Vec<_> = (0..3000_u16)
        .map(|n| {
            let from = ends(
                Ipv4Addr::from([198, 51, n.to_be_bytes()[0] * 4 + n.to_be_bytes()[1] / 64, 9]),
                1,
                VIP,
                80,
            );
            pieces(from, &[1; 1000], n).remove(1)
        })
        .collect();
    exchange(&mut engine, &flood, at(1));
    assert!(engine.counters().dropped(DropReason::FragmentsFull) > 0);
    assert!(engine.counters().waiting <= 2048, "{}", engine.counters().waiting);
    // Whole packets do not notice, and honest fragments that come together pass.
    one(&mut engine, udp(call(40_000), b"x"), at(2));
    let all = pieces(call(40_000), &[2; 1500], 7);
    assert_eq!(exchange(&mut engine, &all, at(3)).len(), 3);
}

#[test]
fn full_nat_and_tunnels_carry_fragments_too() {
    let mut plan = plan();
    plan.directors[1].mode = full_nat(1024..=65_535);
    let mut engine = engine(plan.clone());
    let all = pieces(call(40_000), &[2; 1500], 7);
    let out = exchange(&mut engine, &all, at(1));
    assert_eq!(audit(&joined(out)).source, (OWN, 40_000));
    let encapsulation = evenkeel_engine::forward::tunnel::Encapsulation::IpIp;
    plan.directors[1].mode =
        evenkeel_engine::plan::Mode::Tunnel { encapsulation, sources: vec![], ttl: None };
    plan.directors[1].servers.iter_mut().for_each(|server| server.port = 0);
    engine.apply(plan, Guests::default(), at(2)).unwrap();
    let out = exchange(&mut engine, &all, at(3));
    let inner: Vec<_> = out.iter().map(|packet| packet[20..].to_vec()).collect();
    assert_eq!(audit(&joined(inner)), call(40_000));
}
