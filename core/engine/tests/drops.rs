//! One way to reach each end of a walk, and what the sender is told.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::net::Ipv4Addr;

use crate::support::*;
use evenkeel_engine::device::Offload;
use evenkeel_engine::plan::{FlowAction, FlowPlan, FlowRule, PolicyPlan, Test};
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{DropReason, Event, Guests, InterfaceId, step};

fn with_byte(mut packet: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    packet[at] = value;
    mended(packet)
}

#[test]
fn headers_that_lie_are_refused_by_what_they_lie_about() {
    let mut engine = engine(plan());
    let packet = udp(call(40_000), b"hello");
    refused(&mut engine, packet[..10].to_vec(), DropReason::Truncated);
    refused(&mut engine, packet[..30].to_vec(), DropReason::Truncated);
    refused(&mut engine, vec![], DropReason::Truncated);
    refused(&mut engine, with_byte(packet.clone(), 3, 19), DropReason::BadHeader);
    refused(&mut engine, with_byte(tcp(call(1), "S", b""), 32, 0x40), DropReason::BadHeader);
    let mut wrong = packet.clone();
    wrong[8] = 9;
    refused(&mut engine, wrong, DropReason::BadChecksum);
    refused(&mut engine, [&[0x60], &packet[1..]].concat(), DropReason::Truncated);
    refused(&mut engine, with_byte(packet.clone(), 9, 47), DropReason::UnknownProtocol);
    let mut other = packet;
    other[0] = 0x35;
    refused(&mut engine, other, DropReason::NotIp);
}

#[test]
fn senders_that_cannot_be_are_martians() {
    let mut engine = engine(plan());
    for source in [[127, 0, 0, 1], [0, 0, 0, 0], [224, 0, 0, 1], [255, 255, 255, 255], VIP.octets()] {
        refused(&mut engine, udp(ends(source.into(), 1, VIP, 80), b"x"), DropReason::Martian);
    }
}

#[test]
fn what_no_director_is_bound_to_is_dropped() {
    let mut engine = engine(plan());
    refused(&mut engine, udp(ends(CLIENT, 1, VIP, 81), b"x"), DropReason::NoDirector);
    refused(&mut engine, udp(ends(CLIENT, 1, Ipv4Addr::new(10, 0, 0, 9), 80), b"x"), DropReason::NoDirector);
}

#[test]
fn without_a_usable_server_the_client_hears_that_the_port_is_closed() {
    let mut plan = plan();
    plan.directors[1].servers.iter_mut().for_each(|server| server.weight = 0);
    let mut engine = engine(plan);
    let packet = udp(call(40_000), b"hello");
    let told = refused(&mut engine, packet.clone(), DropReason::NoServer);
    assert_eq!(audit(&told[0]), ends(VIP, 0, CLIENT, 0));
    assert_eq!(told[0][1], 0xc0, "type of service");
    assert_eq!(told[0][20..22], [3, 3]);
    assert_eq!(told[0][28..], packet[..], "the packet is quoted as it came");
}

#[test]
fn a_hop_too_far_is_told_from_the_vip_and_changes_nothing() {
    let mut engine = engine(plan());
    let packet = with_byte(udp(call(40_000), b"hello"), 8, 1);
    let told = refused(&mut engine, packet.clone(), DropReason::TtlExceeded);
    assert_eq!(audit(&told[0]), ends(VIP, 0, CLIENT, 0));
    assert_eq!((&told[0][20..22], ttl(&told[0])), (&[11, 0][..], 64));
    assert_eq!(told[0][28..], packet[..]);
    assert_eq!(engine.counters().born, 1);
}

#[test]
fn a_packet_that_does_not_fit_is_told_the_size_that_does() {
    let mut plan = plan();
    plan.interfaces[0].mtu_bytes = 1000;
    let mut engine = engine(plan);
    let told = refused(&mut engine, udp(call(40_000), &[1; 1200]), DropReason::TooBig);
    assert_eq!(told[0][20..22], [3, 4]);
    assert_eq!(told[0][26..28], 1000_u16.to_be_bytes());
    assert_eq!(told[0].len(), 576);
    let mut plan = engine.plan().clone();
    plan.handling.cuts = false;
    engine.apply(plan, Guests::default(), at(1)).unwrap();
    let may_be_cut = with_byte(udp(call(40_000), &[1; 1200]), 6, 0);
    assert!(refused(&mut engine, may_be_cut, DropReason::TooBig).is_empty());
}

#[test]
fn without_a_route_a_flow_is_not_opened() {
    let mut plan = plan();
    plan.routes.clear();
    let mut engine = engine(plan);
    refused(&mut engine, udp(call(40_000), b"x"), DropReason::NoRoute);
    assert_eq!(engine.flow_count(), 0);
    assert!(engine.directors()[1].servers.iter().all(|server| server.inactive == 0));
}

#[test]
fn a_full_table_keeps_its_flows_and_says_so_once() {
    let mut plan = plan();
    plan.limits.flows_max = 3;
    let mut engine = engine(plan);
    // The second datagram of a client shows that its flow goes on.
    let packets: Vec<_> = (0..10).map(|n| udp(call(40_000 + n), b"x")).collect();
    for _ in 0..2 {
        exchange(&mut engine, &packets[..3], at(1));
    }
    assert!(exchange(&mut engine, &packets[3..], at(1)).is_empty());
    assert_eq!(engine.counters().dropped(DropReason::FlowTableFull), 7);
    assert_eq!(exchange(&mut engine, &packets[..3], at(2)).len(), 3, "known flows go on");
    let events: Vec<_> = std::iter::from_fn(|| engine.poll_event()).collect();
    let full = events.iter().filter(|event| matches!(event, Event::FlowTableFull { flows_max: 3 })).count();
    assert_eq!(full, 1);
    exchange(&mut engine, &packets[3..4], at(400_000));
    assert_eq!(engine.flow_count(), 1, "room comes back when flows end");
}

#[test]
fn a_segment_of_an_unknown_connection_is_reset() {
    let mut engine = engine(plan());
    let reset = refused(&mut engine, tcp(call(41_000), "A", b"data"), DropReason::NoFlow).remove(0);
    assert_eq!(audit(&reset), ends(VIP, 80, CLIENT, 41_000));
    let sequence = u32::from_be_bytes(reset[24..28].try_into().unwrap());
    assert_eq!((sequence, reset[33], reset.len()), (2000, 0x04, 40));
    let reset = refused(&mut engine, tcp(call(41_000), "F", b"data"), DropReason::NoFlow).remove(0);
    let acknowledgement = u32::from_be_bytes(reset[28..32].try_into().unwrap());
    assert_eq!((acknowledgement, reset[33]), (1006, 0x14));
    assert_eq!(engine.counters().resets, 2);
    assert!(refused(&mut engine, tcp(call(41_000), "R", b""), DropReason::NoFlow).is_empty());
}

#[test]
fn answers_are_limited_by_the_second() {
    let mut plan = plan();
    plan.limits.answers_per_second = 2;
    let mut engine = engine(plan);
    let pings = vec![echo_request(VIP); 5];
    assert_eq!(exchange(&mut engine, &pings, at(0)).len(), 2);
    assert_eq!(engine.counters().dropped(DropReason::AnswerLimited), 3);
    assert_eq!(exchange(&mut engine, &pings, at(1000)).len(), 2);
    let lost = tcp(call(1), "A", b"");
    assert_eq!(exchange(&mut engine, &vec![lost; 3], at(2000)).len(), 2);
}

#[test]
fn a_ping_of_the_vip_is_answered_while_a_server_is_usable() {
    let mut engine = engine(plan());
    let ping = with_byte(echo_request(VIP), 8, 1);
    let pong = one(&mut engine, ping, at(1));
    assert_eq!(audit(&pong), ends(VIP, 0, CLIENT, 0));
    let echo = etherparse::Icmpv4Slice::from_slice(&pong[20..]).unwrap();
    assert_eq!(pong[20], 0);
    assert_eq!(echo.checksum(), echo.icmp_type().calc_checksum(echo.payload()));
    assert_eq!(echo.payload(), b"are you there?");
    for director in ["web", "dns"] {
        for server in ["s1", "s2"] {
            engine.set_weight(director, server, 0, at(2)).unwrap();
        }
    }
    refused(&mut engine, echo_request(VIP), DropReason::NoServer);
    one(&mut engine, echo_request(OWN), at(2));
}

#[test]
fn other_icmp_is_counted_and_a_wrong_sum_is_not_answered() {
    let mut engine = engine(plan());
    refused(&mut engine, echo_request(Ipv4Addr::new(10, 0, 0, 77)), DropReason::IcmpUnhandled);
    let mut reply = echo_request(VIP);
    (reply[20], reply[22]) = (0, reply[22] + 8);
    refused(&mut engine, reply, DropReason::IcmpUnhandled);
    let mut wrong = echo_request(VIP);
    wrong[30] ^= 1;
    refused(&mut engine, wrong, DropReason::BadChecksum);
}

fn deny(test: Test) -> PolicyPlan {
    let rules = vec![FlowRule::matching(vec![test])];
    PolicyPlan::Rules(vec![FlowPlan { name: "no".to_string(), action: FlowAction::Deny, rules }])
}

#[test]
fn a_denied_flow_is_dropped_and_a_changed_rule_reaches_old_flows() {
    let mut strict = plan();
    strict.policies.push(deny(Test::source_port(40_000..=40_000)));
    let mut engine = engine(plan());
    one(&mut engine, udp(call(40_000), b"x"), at(1));
    one(&mut engine, udp(call(40_001), b"x"), at(1));
    engine.apply(strict, Guests::default(), at(2)).unwrap();
    refused(&mut engine, udp(call(40_000), b"x"), DropReason::PolicyDenied);
    refused(&mut engine, udp(call(40_000), b"x"), DropReason::PolicyDenied);
    one(&mut engine, udp(call(40_001), b"x"), at(3));
    assert_eq!((engine.flow_count(), engine.counters().flows_opened), (1, 2));
}

#[test]
fn default_deny_lets_nothing_pass_that_no_rule_permits() {
    let mut plan = plan();
    plan.default_permit = false;
    let mut engine = engine(plan);
    refused(&mut engine, udp(call(40_000), b"x"), DropReason::PolicyDenied);
}

#[test]
fn a_rule_can_send_any_destination_to_a_director() {
    let mut plan = plan();
    let test = Test::destination_port(5000..=5999);
    let rules = vec![FlowRule::matching(vec![test])];
    let action = FlowAction::Director(1);
    plan.policies.push(PolicyPlan::Rules(vec![FlowPlan { name: "many".to_string(), action, rules }]));
    let mut engine = engine(plan);
    let out = one(&mut engine, udp(ends(CLIENT, 1, Ipv4Addr::new(10, 7, 7, 7), 5500), b"x"), at(1));
    let server = audit(&out).destination;
    let back = one(&mut engine, udp(ends(server.0, server.1, CLIENT, 1), b"y"), at(1));
    assert_eq!(audit(&back), ends(Ipv4Addr::new(10, 7, 7, 7), 5500, CLIENT, 1));
    refused(
        &mut engine,
        tcp(ends(CLIENT, 1, Ipv4Addr::new(10, 7, 7, 7), 5500), "S", b""),
        DropReason::NoDirector,
    );
}

#[test]
fn an_interface_that_the_plan_lacks_and_a_device_without_room_are_counted() {
    let mut engine = engine(plan());
    let mut device = Memory { room: 1, ..Memory::new() };
    let packet = udp(call(40_000), b"x");
    for interface in [TUN, TUN, InterfaceId(7)] {
        device.inbox.push_back((interface, packet.clone(), Offload::default()));
    }
    step(&mut engine, &mut device, at(1));
    assert_eq!(engine.counters().dropped(DropReason::UnknownInterface), 1);
    assert_eq!(engine.counters().dropped(DropReason::DeviceQueueFull), 1);
    assert!(engine.counters().is_conserved());
}

#[test]
fn a_drained_server_keeps_its_flows_and_a_removed_one_loses_them() {
    let mut engine = engine(plan());
    one(&mut engine, tcp(call(41_000), "S", b""), at(1));
    engine.set_weight("web", "s2", 0, at(1)).unwrap();
    one(&mut engine, tcp(call(41_000), "A", b"x"), at(1));
    for port in 0..10 {
        let out = one(&mut engine, tcp(call(42_000 + port), "S", b""), at(1));
        assert_eq!(audit(&out).destination.0, Ipv4Addr::new(10, 0, 3, 20));
    }
    let mut smaller = plan();
    smaller.directors[0].servers.truncate(1);
    engine.apply(smaller, Guests::default(), at(2)).unwrap();
    refused(&mut engine, tcp(call(41_000), "A", b"x"), DropReason::NoServer);
    assert_eq!(engine.flow_count(), 11, "the flow waits for its server");
    engine.apply(plan(), Guests::default(), at(2)).unwrap();
    let out = one(&mut engine, tcp(call(41_000), "A", b"x"), at(2));
    assert_eq!(audit(&out).destination.0, Ipv4Addr::new(10, 0, 3, 21));
    let mut strict = plan();
    strict.directors[0].servers.truncate(1);
    strict.handling.expires_nodest = true;
    engine.apply(strict, Guests::default(), at(2)).unwrap();
    let reset = refused(&mut engine, tcp(call(41_000), "A", b"x"), DropReason::NoFlow).remove(0);
    assert_eq!(reset[33] & 0x04, 0x04, "the client learns that its connection is gone");
    assert_eq!(engine.flow_count(), 10);
}

#[test]
fn the_reply_of_a_drained_server_keeps_its_mapping() {
    let mut engine = engine(plan());
    one(&mut engine, udp(call(40_000), b"x"), at(1));
    engine.set_weight("dns", "s2", 0, at(1)).unwrap();
    let back = one(&mut engine, udp(ends(Ipv4Addr::new(10, 0, 3, 21), 8080, CLIENT, 40_000), b"y"), at(2));
    assert_eq!(audit(&back), ends(VIP, 80, CLIENT, 40_000));
}

#[test]
fn a_removed_director_ends_with_its_last_flow_and_may_come_back() {
    let mut engine = engine(plan());
    one(&mut engine, udp(call(40_000), b"x"), at(1));
    let mut without = plan();
    without.directors.truncate(1);
    engine.apply(without, Guests::default(), at(2)).unwrap();
    assert_eq!(engine.directors().len(), 1);
    refused(&mut engine, udp(call(40_000), b"x"), DropReason::NoDirector);
    refused(&mut engine, udp(call(40_000), b"x"), DropReason::NoDirector);
    engine.apply(plan(), Guests::default(), at(3)).unwrap();
    let out = one(&mut engine, udp(call(40_000), b"x"), at(3));
    assert_eq!(audit(&out).source, (CLIENT, 40_000));
}

#[test]
fn a_plan_that_contradicts_itself_changes_nothing() {
    let mut engine = engine(plan());
    one(&mut engine, udp(call(40_000), b"x"), at(1));
    let mut twice = plan();
    twice.directors.push(director("again", Protocol::UDP, vec![]));
    let error = engine.apply(twice, Guests::default(), at(2)).unwrap_err();
    assert_eq!(error.to_string(), "directors dns and again are both bound to 10.0.0.3:80/udp");
    assert_eq!((engine.generation(), engine.plan()), (1, &plan()));
    one(&mut engine, udp(call(40_000), b"x"), at(3));
}

#[test]
fn every_reason_has_a_name_of_its_own_and_a_word_of_help() {
    let mut names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), DropReason::ALL.len());
    assert!(DropReason::ALL.iter().all(|reason| reason.help().ends_with('.')));
}
