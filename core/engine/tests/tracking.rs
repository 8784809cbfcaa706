//! Which packets open, keep and end flows: half-open ones, forged ones, bounds, pings, packets on their own.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::support::*;
use evenkeel_engine::plan::{Binding, MidStream, Persistence, Ping, Prefix, RoutePlan, ServerPlan};
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{DropReason, Duration, Engine, Guests};

const S2: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 21);

/// Opens a connection from `port` and gives the ends of its real server's packets.
fn establish(engine: &mut Engine, port: u16) -> Ends {
    let syn = one(engine, tcp(call(port), "S", b""), at(1));
    let server = audit(&syn).destination;
    let back = ends(server.0, server.1, CLIENT, port);
    one(engine, tcp(back, "SA", b""), at(2));
    one(engine, tcp(call(port), "A", b""), at(3));
    back
}

fn states(engine: &Engine) -> Vec<&'static str> {
    engine.flows().map(|entry| entry.state.name()).collect()
}

#[test]
fn a_flood_of_openings_pushes_out_its_own_and_no_established_flow() {
    let mut plan = plan();
    plan.limits.flows_max = 40;
    plan.limits.half_open_max = 20;
    let mut engine = engine(plan);
    for port in 0..10 {
        establish(&mut engine, 41_000 + port);
    }
    let flood: Vec<_> = (0..4000_u16)
        .map(|n| tcp(ends(Ipv4Addr::from([198, 51, 100, (n % 250).to_be_bytes()[1]]), n, VIP, 80), "S", b""))
        .collect();
    exchange(&mut engine, &flood, at(10));
    assert_eq!((engine.flow_count(), engine.half_open_count()), (30, 20));
    assert_eq!(engine.counters().half_open_evicted, 4000 - 20);
    assert_eq!(engine.counters().dropped_total(), 0);
    for port in 0..10 {
        one(&mut engine, segment(call(41_000 + port), "A", 1001, 2000, b"GET"), at(20));
    }
    // An honest client whose handshake takes fewer openings than there are places gets through.
    establish(&mut engine, 42_000);
    assert_eq!(states(&engine).iter().filter(|state| **state == "established").count(), 11);
}

#[test]
fn established_flows_have_a_bound_of_their_own() {
    let mut plan = plan();
    plan.limits.flows_max = 3;
    plan.limits.half_open_max = 2;
    let mut engine = engine(plan);
    (0..3).for_each(|port| assert_eq!(establish(&mut engine, 41_000 + port).source.1, 8080));
    refused(&mut engine, tcp(call(42_000), "S", b""), DropReason::FlowTableFull);
    assert_eq!(engine.flow_count(), 3);
}

#[test]
fn forged_segments_go_on_and_change_nothing() {
    let mut engine = engine(plan());
    let back = establish(&mut engine, 41_000);
    one(&mut engine, segment(call(41_000), "A", 1001, 2000, &[1; 100]), at(4));
    for (flags, forged) in [("R", 77_000_000), ("RA", 3_000_000_000), ("FA", 900_000_000), ("S", 5)] {
        let out = one(&mut engine, segment(call(41_000), flags, forged, 12_345_678, b""), at(5));
        assert_eq!(audit(&out).destination.0, back.source.0, "it is translated");
        one(&mut engine, segment(back, flags, forged, 12_345_678, b""), at(5));
        assert_eq!(states(&engine), ["established"], "{flags}");
    }
    one(&mut engine, segment(back, "R", 2000, 0, b""), at(6));
    assert_eq!(states(&engine), ["closed"], "the real one ends it");
}

#[test]
fn a_client_has_as_many_flows_as_it_may() {
    let mut plan = plan();
    plan.limits.flows_per_client = 2;
    plan.handling.tells_exhausted = true;
    let mut engine = engine(plan);
    (0..2).for_each(|port| drop(one(&mut engine, udp(call(40_000 + port), b"x"), at(1))));
    let told = refused(&mut engine, udp(call(40_002), b"x"), DropReason::ClientLimit).remove(0);
    assert_eq!(told[20..22], [3, 13]);
    let other = Ipv4Addr::new(192, 0, 2, 11);
    one(&mut engine, udp(ends(other, 1, VIP, 80), b"x"), at(1));
    engine.handle_timeout(at(400_000));
    one(&mut engine, udp(call(40_002), b"x"), at(400_000));
}

#[test]
fn a_server_at_its_bound_takes_no_more_until_it_is_below_the_lower_one() {
    let mut plan = plan();
    for server in &mut plan.directors[1].servers {
        server.weight = 0;
    }
    plan.directors[1].servers[0].weight = 1;
    plan.directors[1].servers[0].flows_upper = 4;
    plan.directors[1].servers[0].flows_lower = 2;
    let mut engine = engine(plan);
    let packets: Vec<_> = (0..9).map(|n| udp(call(40_000 + n), b"x")).collect();
    assert_eq!(exchange(&mut engine, &packets[..4], at(1)).len(), 4);
    refused(&mut engine, packets[4].clone(), DropReason::NoServer);
    assert!(!engine.directors()[1].servers[0].is_up);
    // Two are refreshed, the others end; two are not below the lower bound.
    exchange(&mut engine, &packets[..2], at(200_000));
    engine.handle_timeout(at(310_000));
    assert_eq!(engine.flow_count(), 2);
    refused(&mut engine, packets[4].clone(), DropReason::NoServer);
    exchange(&mut engine, &packets[..1], at(400_000));
    engine.handle_timeout(at(510_000));
    assert_eq!(engine.flow_count(), 1);
    assert_eq!(
        exchange(&mut engine, &packets[4..9], at(510_001)).iter().filter(|out| out[9] == 17).count(),
        3
    );
}

#[test]
fn the_middle_of_an_unknown_connection_is_dropped_or_taken_where_the_plan_says_so() {
    let mut silent = plan();
    silent.directors[0].mid_stream = MidStream::Drop;
    let mut engine = engine(silent);
    assert!(refused(&mut engine, tcp(call(41_000), "A", b"x"), DropReason::NoFlow).is_empty());
    let mut taken = plan();
    taken.directors[0].mid_stream = MidStream::Pick;
    engine.apply(taken, Guests::default(), at(1)).unwrap();
    let out = one(&mut engine, tcp(call(41_000), "A", b"x"), at(2));
    let server = audit(&out).destination;
    assert_eq!((states(&engine), engine.half_open_count()), (vec!["syn_sent"], 1));
    one(&mut engine, segment(ends(server.0, server.1, CLIENT, 41_000), "A", 2000, 1002, b"y"), at(3));
    assert_eq!((states(&engine), engine.half_open_count()), (vec!["established"], 0));
}

#[test]
fn pings_are_forwarded_where_the_plan_says_so_and_come_back_from_the_vip() {
    let mut plan = plan();
    plan.directors[1].ping = Ping::Forward;
    plan.directors[1].mode = full_nat(1024..=65_535);
    let mut engine = engine(plan);
    let there = one(&mut engine, echo_request(VIP), at(1));
    assert_eq!((audit(&there).source.0, audit(&there).destination.0), (OWN, S2));
    let identifier = u16::from_be_bytes([there[24], there[25]]);
    let builder = etherparse::PacketBuilder::ipv4(S2.octets(), OWN.octets(), 64);
    let mut pong = Vec::new();
    builder.icmpv4_echo_reply(identifier, 9).write(&mut pong, b"are you there?").unwrap();
    let back = one(&mut engine, pong, at(2));
    assert_eq!(audit(&back), ends(VIP, 0, CLIENT, 0));
    assert_eq!(back[24..26], [0, 7], "the client's own identifier");
    assert_eq!(states(&engine), ["icmp"]);
    engine.handle_timeout(at(63_000));
    assert_eq!(engine.flow_count(), 0, "a query is remembered for a minute");
}

#[test]
fn a_ping_is_always_answered_where_the_plan_says_so() {
    let mut plan = plan();
    plan.directors.truncate(1);
    plan.directors[0].servers.clear();
    let mut engine = engine(plan.clone());
    refused(&mut engine, echo_request(VIP), DropReason::NoServer);
    plan.directors[0].ping = Ping::Always;
    engine.apply(plan, Guests::default(), at(1)).unwrap();
    one(&mut engine, echo_request(VIP), at(1));
}

#[test]
fn one_packet_at_a_time_leaves_no_flow_and_answers_find_their_way() {
    let mut plan = plan();
    plan.directors[1].is_one_packet = true;
    let mut engine = engine(plan);
    let out = exchange(&mut engine, &vec![udp(call(40_000), b"x"); 10], at(1));
    let to_s2 = out.iter().filter(|packet| audit(packet).destination.0 == S2).count();
    assert_eq!((out.len(), to_s2, engine.flow_count()), (10, 5, 0));
    let back = one(&mut engine, udp(ends(S2, 8080, CLIENT, 40_000), b"y"), at(2));
    assert_eq!(audit(&back), ends(VIP, 80, CLIENT, 40_000));
    let status = &engine.directors()[1].servers[0];
    assert_eq!((status.flows, status.inactive, status.packets_to), (5, 0, 5));
}

#[test]
fn a_datagram_on_its_own_is_answered_in_the_name_of_the_vip_of_its_family() {
    let mut plan = plan();
    let (vip, server): (Ipv6Addr, Ipv6Addr) = ("fc00::3".parse().unwrap(), "fc00::20".parse().unwrap());
    plan.routes.push(RoutePlan {
        destination: Prefix { address: Ipv6Addr::UNSPECIFIED.into(), length: 0 },
        gateway: None,
        interface: TUN,
    });
    plan.directors[1].is_one_packet = true;
    plan.directors[1].binds.push(Binding::of(vip.into(), 80, Protocol::UDP));
    plan.directors[1].servers.push(ServerPlan::new("s6", server.into(), 8080, 1));
    let mut engine = engine(plan);
    let client: Ipv6Addr = "2001:db8::1".parse().unwrap();
    let builder = etherparse::PacketBuilder::ipv6(server.octets(), client.octets(), 64);
    let mut answer = Vec::new();
    builder.udp(8080, 4000).write(&mut answer, b"y").unwrap();
    assert_eq!(one(&mut engine, answer, at(1))[8..24], vip.octets());
}

#[test]
fn clients_no_longer_stick_where_the_plan_no_longer_says_so() {
    let mut sticking = plan();
    sticking.directors[1].persistence =
        Some(Persistence { timeout: Duration::from_secs(600), length_v4: 32, length_v6: 128 });
    let mut engine = engine(sticking);
    one(&mut engine, udp(call(40_000), b"x"), at(1));
    assert_eq!(engine.sticky_count(), 1);
    engine.apply(plan(), Guests::default(), at(2)).unwrap();
    assert_eq!(engine.sticky_count(), 0);
}

#[test]
fn a_packet_that_does_not_add_up_opens_no_flow_where_the_plan_says_so() {
    let mut plan = plan();
    plan.handling.verifies_checksums = true;
    let mut engine = engine(plan);
    let mut wrong = udp(call(40_000), b"hello");
    wrong[27] ^= 1;
    refused(&mut engine, wrong, DropReason::BadChecksum);
    assert_eq!(engine.flow_count(), 0);
    one(&mut engine, udp(call(40_000), b"hello"), at(1));
    let mut none = udp(call(40_001), b"hello");
    none[26..28].fill(0);
    one(&mut engine, none, at(1));
}

#[test]
fn a_source_route_is_refused_and_other_options_pass() {
    let mut engine = engine(plan());
    let with_options = |options: [u8; 8]| {
        let plain = udp(call(40_000), b"hello");
        let mut packet = [&plain[..20], &options[..], &plain[20..]].concat();
        packet[0] = 0x47;
        packet[3] += 8;
        mended(packet)
    };
    refused(&mut engine, with_options([1, 131, 7, 4, 10, 0, 0, 1]), DropReason::SourceRoute);
    refused(&mut engine, with_options([137, 7, 4, 10, 0, 0, 1, 0]), DropReason::SourceRoute);
    let out = one(&mut engine, with_options([7, 7, 4, 0, 0, 0, 0, 0]), at(1));
    assert_eq!(audit(&out).destination.1, 8080);
    assert_eq!(out[20..28], [7, 7, 4, 0, 0, 0, 0, 0]);
}

#[test]
fn a_service_nobody_has_is_refused_at_our_address_and_ignored_at_others() {
    let mut engine = engine(plan());
    let told = refused(&mut engine, udp(ends(CLIENT, 1, VIP, 81), b"x"), DropReason::NoDirector).remove(0);
    assert_eq!(told[20..22], [3, 3]);
    let told =
        refused(&mut engine, tcp(ends(CLIENT, 1, VIP, 81), "S", b""), DropReason::NoDirector).remove(0);
    assert_eq!(told[33], 0x14, "a reset");
    let stranger = Ipv4Addr::new(10, 0, 0, 9);
    assert!(
        refused(&mut engine, udp(ends(CLIENT, 1, stranger, 80), b"x"), DropReason::NoDirector).is_empty()
    );
}

#[test]
fn the_rfc_profile_keeps_flows_for_as_long_as_the_rfcs_ask() {
    let mut plan = plan();
    plan.timeouts = evenkeel_engine::plan::Timeouts::rfc();
    let mut engine = engine(plan);
    establish(&mut engine, 41_000);
    one(&mut engine, udp(call(40_000), b"x"), at(3));
    engine.handle_timeout(at(3).after(Duration::from_secs(299)));
    assert_eq!(engine.flow_count(), 2);
    engine.handle_timeout(at(3).after(Duration::from_secs(7_439)));
    assert_eq!(states(&engine), ["established"]);
    engine.handle_timeout(at(3).after(Duration::from_secs(7_441)));
    assert_eq!(engine.flow_count(), 0);
}
