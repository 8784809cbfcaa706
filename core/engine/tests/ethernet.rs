//! The engine on Ethernet: ARP, link headers, and the drops that only frames know.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::net::Ipv4Addr;

use evenkeel_engine::plan::{Layer, Plan, Prefix, RoutePlan};
use evenkeel_engine::wire::ethernet::MacAddress;
use evenkeel_engine::{DropReason, Engine, InterfaceId};
use support::*;

const FRONT: MacAddress = MacAddress([2, 0, 0, 0, 3, 0]);
const BACK: MacAddress = MacAddress([2, 0, 0, 0, 3, 1]);
const ROUTER: MacAddress = MacAddress([2, 0, 0, 0, 2, 1]);
const SERVER: MacAddress = MacAddress([2, 0, 0, 0, 4, 0]);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// Two interfaces: clients behind a router on one, real servers on the other.
fn two_nic() -> Plan {
    let mut plan = plan();
    let port = |name, own, mac| {
        let mut interface = interface(name, own, 24);
        interface.layer = Layer::Ethernet(mac);
        interface
    };
    plan.interfaces =
        vec![port("eth0", Ipv4Addr::new(10, 0, 0, 2), FRONT), port("eth1", Ipv4Addr::new(10, 0, 3, 2), BACK)];
    let destination = Prefix { address: Ipv4Addr::UNSPECIFIED.into(), length: 0 };
    plan.routes = vec![RoutePlan { destination, gateway: Some(GATEWAY.into()), interface: InterfaceId(0) }];
    plan
}

fn frame(to: MacAddress, from: MacAddress, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to.0[..], &from.0, &kind.to_be_bytes(), payload].concat()
}

fn arp(operation: u8, mac: MacAddress, sender: Ipv4Addr, target_mac: [u8; 6], target: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    [&head[..], &mac.0, &sender.octets(), &target_mac, &target.octets()].concat()
}

fn who_has(mac: MacAddress, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    frame(MacAddress::BROADCAST, mac, 0x0806, &arp(1, mac, sender, [0; 6], target))
}

fn send(engine: &mut Engine, interface: u16, packet: Vec<u8>, now: u64) -> Vec<(InterfaceId, Vec<u8>)> {
    exchange_on(engine, InterfaceId(interface), &[packet], at(now))
}

#[test]
fn who_has_the_vip_is_answered_with_our_address_and_other_questions_are_not() {
    let mut engine = engine(two_nic());
    for ours in [VIP, Ipv4Addr::new(10, 0, 0, 2)] {
        let out = send(&mut engine, 0, who_has(ROUTER, GATEWAY, ours), 1);
        let expected = frame(ROUTER, FRONT, 0x0806, &arp(2, FRONT, ours, ROUTER.0, GATEWAY));
        assert_eq!(out, [(InterfaceId(0), expected)]);
    }
    assert!(send(&mut engine, 0, who_has(ROUTER, GATEWAY, Ipv4Addr::new(10, 0, 0, 77)), 1).is_empty());
    assert_eq!((engine.counters().answered, engine.counters().consumed), (2, 1));
}

#[test]
fn the_first_packet_asks_for_the_server_and_the_second_reaches_it() {
    let mut engine = engine(two_nic());
    let call_frame = || frame(FRONT, ROUTER, 0x0800, &udp(call(40_000), b"hello"));
    let own = Ipv4Addr::new(10, 0, 3, 2);
    let server = Ipv4Addr::new(10, 0, 3, 21);
    let out = send(&mut engine, 0, call_frame(), 1);
    assert_eq!(out, [(InterfaceId(1), who_has(BACK, own, server))]);
    assert_eq!(engine.counters().dropped(DropReason::NeighbourUnresolved), 1);
    let answer = frame(BACK, SERVER, 0x0806, &arp(2, SERVER, server, BACK.0, own));
    assert!(send(&mut engine, 1, answer, 2).is_empty());
    let out = send(&mut engine, 0, call_frame(), 3);
    assert_eq!(out[0].0, InterfaceId(1));
    assert_eq!(out[0].1[..14], frame(SERVER, BACK, 0x0800, b""));
    assert_eq!(audit(&out[0].1[14..]), ends(CLIENT, 40_000, server, 8080));
    // The way back goes to the router, which has asked for us before.
    send(&mut engine, 0, who_has(ROUTER, GATEWAY, VIP), 4);
    let reply = frame(BACK, SERVER, 0x0800, &udp(ends(server, 8080, CLIENT, 40_000), b"world"));
    let out = send(&mut engine, 1, reply, 5);
    assert_eq!(out[0].1[..14], frame(ROUTER, FRONT, 0x0800, b""));
    assert_eq!(audit(&out[0].1[14..]), ends(VIP, 80, CLIENT, 40_000));
}

#[test]
fn padding_of_a_short_frame_is_left_out() {
    let mut engine = engine(two_nic());
    let mut ping = frame(FRONT, ROUTER, 0x0800, &echo_request(VIP));
    let length = ping.len();
    ping.extend_from_slice(&[0; 20]);
    let out = send(&mut engine, 0, ping, 1);
    assert_eq!(out[0].1.len(), length);
    assert_eq!(out[0].1[..14], frame(ROUTER, FRONT, 0x0800, b""));
}

#[test]
fn frames_for_others_and_of_other_kinds_are_counted() {
    let mut engine = engine(two_nic());
    let packet = udp(call(40_000), b"x");
    send(&mut engine, 0, frame(SERVER, ROUTER, 0x0800, &packet), 1);
    send(&mut engine, 0, frame(MacAddress::BROADCAST, ROUTER, 0x0800, &packet), 1);
    send(&mut engine, 0, frame(FRONT, ROUTER, 0x86dd, &packet), 1);
    send(&mut engine, 0, frame(FRONT, ROUTER, 0x0806, &[0; 28]), 1);
    send(&mut engine, 0, vec![0; 13], 1);
    let expected = [("truncated", 1), ("bad_header", 1), ("not_ipv4", 1), ("other_host", 2)];
    assert_eq!(dropped(&engine), expected);
    assert_eq!(engine.counters().dropped(DropReason::OtherHost), 2);
}

#[test]
fn an_error_goes_back_to_the_station_that_sent_the_packet() {
    let mut engine = engine(two_nic());
    let mut packet = udp(call(40_000), b"x");
    packet[8] = 1;
    let out = send(&mut engine, 0, frame(FRONT, ROUTER, 0x0800, &mended(packet)), 1);
    let told = &out.last().unwrap().1;
    assert_eq!(told[..14], frame(ROUTER, FRONT, 0x0800, b""));
    assert_eq!(audit(&told[14..]), ends(VIP, 0, CLIENT, 0));
}
