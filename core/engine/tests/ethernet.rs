//! The engine on Ethernet: ARP, link headers, and the drops that only frames know.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::support::*;
use evenkeel_engine::device::Offload;
use evenkeel_engine::forward::tunnel::Encapsulation;
use evenkeel_engine::plan::{Binding, Layer, Mode, Plan, Prefix, RoutePlan, ServerPlan};
use evenkeel_engine::wire::ethernet::MacAddress;
use evenkeel_engine::wire::{Protocol, checksum, ndp};
use evenkeel_engine::{DropReason, Engine, InterfaceId, step};

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

/// An engine that has told the links its addresses.
fn started(plan: Plan) -> Engine {
    started_with(plan, |frame| frame[..6] == MacAddress::BROADCAST.0)
}

fn started_with(plan: Plan, is_expected: impl Fn(&[u8]) -> bool) -> Engine {
    let mut engine = engine(plan);
    let told = exchange_on(&mut engine, InterfaceId(0), &[], at(0));
    assert!(!told.is_empty() && told.iter().all(|(_, frame)| is_expected(frame)), "{told:?}");
    engine
}

fn send(engine: &mut Engine, interface: u16, packet: Vec<u8>, now: u64) -> Vec<(InterfaceId, Vec<u8>)> {
    exchange_on(engine, InterfaceId(interface), &[packet], at(now))
}

#[test]
fn who_has_the_vip_is_answered_with_our_address_and_other_questions_are_not() {
    let mut engine = started(two_nic());
    for ours in [VIP, Ipv4Addr::new(10, 0, 0, 2)] {
        let out = send(&mut engine, 0, who_has(ROUTER, GATEWAY, ours), 1);
        let expected = frame(ROUTER, FRONT, 0x0806, &arp(2, FRONT, ours, ROUTER.0, GATEWAY));
        assert_eq!(out, [(InterfaceId(0), expected)]);
    }
    assert!(send(&mut engine, 0, who_has(ROUTER, GATEWAY, Ipv4Addr::new(10, 0, 0, 77)), 1).is_empty());
    assert_eq!((engine.counters().answered, engine.counters().consumed), (2, 1));
}

#[test]
fn the_first_packet_waits_until_the_server_has_said_where_it_is() {
    let mut engine = started(two_nic());
    let call_frame = || frame(FRONT, ROUTER, 0x0800, &udp(call(40_000), b"hello"));
    let own = Ipv4Addr::new(10, 0, 3, 2);
    let server = Ipv4Addr::new(10, 0, 3, 21);
    let out = send(&mut engine, 0, call_frame(), 1);
    assert_eq!(out, [(InterfaceId(1), who_has(BACK, own, server))]);
    assert_eq!(engine.counters().waiting, 1);
    let answer = frame(BACK, SERVER, 0x0806, &arp(2, SERVER, server, BACK.0, own));
    let out = send(&mut engine, 1, answer, 2);
    assert_eq!(out[0].1[..14], frame(SERVER, BACK, 0x0800, b""));
    assert_eq!(audit(&out[0].1[14..]), ends(CLIENT, 40_000, server, 8080));
    assert_eq!((engine.counters().waiting, engine.counters().forwarded), (0, 1));
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

/// Sends one frame of which its device has left something undone.
fn send_undone(
    engine: &mut Engine,
    packet: &[u8],
    offload: Offload,
    now: u64,
) -> Vec<(InterfaceId, Vec<u8>)> {
    let mut device = Memory::new();
    device.inbox.push_back((InterfaceId(0), frame(FRONT, ROUTER, 0x0800, packet), offload));
    step(engine, &mut device, at(now));
    device.outbox
}

/// The server says where it is.
fn answer_for(engine: &mut Engine, server: Ipv4Addr, now: u64) -> Vec<(InterfaceId, Vec<u8>)> {
    let own = Ipv4Addr::new(10, 0, 3, 2);
    send(engine, 1, frame(BACK, SERVER, 0x0806, &arp(2, SERVER, server, BACK.0, own)), now)
}

#[test]
fn a_packet_that_waits_leaves_with_its_checksum_complete() {
    for mode in [Mode::Nat { sources: Vec::new() }, Mode::Gateway] {
        let mut plan = two_nic();
        for director in &mut plan.directors {
            director.mode = mode.clone();
            if mode == Mode::Gateway {
                director.servers.iter_mut().for_each(|server| server.port = 0);
            }
        }
        let mut engine = started(plan);
        let mut packet = udp(call(40_000), b"hello");
        let pseudo = checksum::pseudo_header_v4(CLIENT.octets(), VIP.octets(), 17, 13);
        packet[26..28].copy_from_slice(&pseudo.to_be_bytes());
        let offload = Offload { needs_checksum: true, segment_bytes: None };
        assert_eq!(send_undone(&mut engine, &packet, offload, 1).len(), 1, "only the question leaves");
        let server = Ipv4Addr::new(10, 0, 3, 21);
        let out = answer_for(&mut engine, server, 2);
        assert_eq!(out[0].1[..14], frame(SERVER, BACK, 0x0800, b""));
        // The audit checks the sums.
        let to = if mode == Mode::Gateway { (VIP, 80) } else { (server, 8080) };
        assert_eq!(audit(&out[0].1[14..]), ends(CLIENT, 40_000, to.0, to.1));
    }
}

#[test]
fn a_super_packet_does_not_wait_since_nobody_would_cut_it_later() {
    let mut engine = started(two_nic());
    let packet = tcp(call(41_000), "S", &[7; 30_000]);
    let offload = Offload { needs_checksum: true, segment_bytes: Some(1_448) };
    assert_eq!(send_undone(&mut engine, &packet, offload, 1).len(), 1, "only the question leaves");
    assert_eq!(engine.counters().waiting, 0);
    assert_eq!(dropped(&engine), [("neighbour_unresolved", 1)]);
    answer_for(&mut engine, Ipv4Addr::new(10, 0, 3, 21), 2);
    let out = send_undone(&mut engine, &packet, offload, 3);
    assert_eq!(out[0].1.len(), 30_000 + 54);
}

#[test]
fn a_sender_of_segments_that_are_too_long_is_told() {
    let mut plan = two_nic();
    plan.interfaces[1].mtu_bytes = 1_400;
    let mut engine = started(plan);
    send(&mut engine, 0, frame(FRONT, ROUTER, 0x0800, &tcp(call(41_000), "S", b"")), 1);
    answer_for(&mut engine, Ipv4Addr::new(10, 0, 3, 21), 2);
    let packet = tcp(call(41_000), "A", &[7; 30_000]);
    let offload = |segment_bytes| Offload { needs_checksum: true, segment_bytes: Some(segment_bytes) };
    // 20 bytes of each header: 1,360 of payload fit.
    let out = send_undone(&mut engine, &packet, offload(1_361), 3);
    let error = &out[0].1[14..];
    assert_eq!((out[0].0, &error[20..22], &error[26..28]), (InterfaceId(0), &[3, 4][..], &[5, 120][..]));
    assert_eq!(dropped(&engine), [("too_big", 1)]);
    let out = send_undone(&mut engine, &packet, offload(1_360), 4);
    assert_eq!((out[0].0, out[0].1.len()), (InterfaceId(1), 30_054));
}

#[test]
fn padding_of_a_short_frame_is_left_out() {
    let mut engine = started(two_nic());
    let mut ping = frame(FRONT, ROUTER, 0x0800, &echo_request(VIP));
    let length = ping.len();
    ping.extend_from_slice(&[0; 20]);
    let out = send(&mut engine, 0, ping, 1);
    assert_eq!(out[0].1.len(), length);
    assert_eq!(out[0].1[..14], frame(ROUTER, FRONT, 0x0800, b""));
}

#[test]
fn frames_for_others_and_of_other_kinds_are_counted() {
    let mut engine = started(two_nic());
    let packet = udp(call(40_000), b"x");
    send(&mut engine, 0, frame(SERVER, ROUTER, 0x0800, &packet), 1);
    send(&mut engine, 0, frame(MacAddress::BROADCAST, ROUTER, 0x0800, &packet), 1);
    send(&mut engine, 0, frame(FRONT, ROUTER, 0x8847, &packet), 1);
    send(&mut engine, 0, frame(FRONT, ROUTER, 0x0806, &[0; 28]), 1);
    send(&mut engine, 0, vec![0; 13], 1);
    let expected = [("truncated", 1), ("bad_header", 1), ("not_ip", 1), ("other_host", 2)];
    assert_eq!(dropped(&engine), expected);
    assert_eq!(engine.counters().dropped(DropReason::OtherHost), 2);
}

#[test]
fn an_error_goes_back_to_the_station_that_sent_the_packet() {
    let mut engine = started(two_nic());
    let mut packet = udp(call(40_000), b"x");
    packet[8] = 1;
    let out = send(&mut engine, 0, frame(FRONT, ROUTER, 0x0800, &mended(packet)), 1);
    let told = &out.last().unwrap().1;
    assert_eq!(told[..14], frame(ROUTER, FRONT, 0x0800, b""));
    assert_eq!(audit(&told[14..]), ends(VIP, 0, CLIENT, 0));
}

/// The same with IPv6 on both sides.
fn two_nic_v6() -> Plan {
    let mut plan = two_nic();
    for (number, interface) in plan.interfaces.iter_mut().enumerate() {
        let number = u16::try_from(number).unwrap();
        let address = Ipv6Addr::new(0xfc00, number, 0, 0, 0, 0, 0, 2).into();
        interface.addresses.push(Prefix { address, length: 64 });
    }
    plan.directors[1].binds = vec![Binding::of(VIP6.into(), 80, Protocol::UDP)];
    plan.directors[1].servers = vec![ServerPlan::new("s6", S6.into(), 8080, 1)];
    plan
}

const VIP6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 3);
const S6: Ipv6Addr = Ipv6Addr::new(0xfc00, 1, 0, 0, 0, 0, 0, 0x20);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0x10);

fn udp6(source: (Ipv6Addr, u16), destination: (Ipv6Addr, u16)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let builder = etherparse::PacketBuilder::ipv6(source.0.octets(), destination.0.octets(), 64);
    builder.udp(source.1, destination.1).write(&mut bytes, b"hello").unwrap();
    bytes
}

#[test]
fn neighbours_of_ipv6_are_asked_and_answered() {
    let mut engine = started_with(two_nic_v6(), |frame| {
        frame[..6] == MacAddress::BROADCAST.0 || frame[..6] == [0x33, 0x33, 0, 0, 0, 1]
    });
    // Somebody asks for the VIP.
    let question = ndp::solicitation(ROUTER, CLIENT6.octets(), VIP6.octets());
    let group = MacAddress::multicast_of(ndp::solicited_node(VIP6.octets()));
    let out = send(&mut engine, 0, frame(group, ROUTER, 0x86dd, &question), 1);
    let expected = ndp::advertisement(FRONT, VIP6.octets(), CLIENT6.octets());
    assert_eq!(out, [(InterfaceId(0), frame(ROUTER, FRONT, 0x86dd, &expected))]);
    // A packet asks for the server, waits for it, and goes on.
    let call = frame(FRONT, ROUTER, 0x86dd, &udp6((CLIENT6, 4000), (VIP6, 80)));
    let out = send(&mut engine, 0, call, 2);
    let group = MacAddress::multicast_of(ndp::solicited_node(S6.octets()));
    let own = Ipv6Addr::new(0xfc00, 1, 0, 0, 0, 0, 0, 2);
    let question = ndp::solicitation(BACK, own.octets(), S6.octets());
    assert_eq!(out, [(InterfaceId(1), frame(group, BACK, 0x86dd, &question))]);
    assert_eq!(engine.counters().waiting, 1);
    let answer = ndp::advertisement(SERVER, S6.octets(), own.octets());
    let out = send(&mut engine, 1, frame(BACK, SERVER, 0x86dd, &answer), 3);
    assert_eq!(out[0].1[..14], frame(SERVER, BACK, 0x86dd, b""));
    assert_eq!(out[0].1[14..][24..40], S6.octets());
    // The answer goes to the client, who has asked for us before.
    let back = frame(BACK, SERVER, 0x86dd, &udp6((S6, 8080), (CLIENT6, 4000)));
    let out = send(&mut engine, 1, back, 4);
    assert_eq!(out[0].1[..14], frame(ROUTER, FRONT, 0x86dd, b""));
}

#[test]
fn a_forged_neighbour_from_afar_is_not_believed() {
    let mut engine = started_with(two_nic_v6(), |_| true);
    let mut question = ndp::solicitation(ROUTER, CLIENT6.octets(), VIP6.octets());
    question[7] = 254;
    let group = MacAddress::multicast_of(ndp::solicited_node(VIP6.octets()));
    assert!(send(&mut engine, 0, frame(group, ROUTER, 0x86dd, &question), 1).is_empty());
    assert_eq!(dropped(&engine), [("bad_header", 1)]);
}

#[test]
fn a_neighbour_that_never_answers_is_asked_three_times_and_its_packets_are_given_up() {
    let mut engine = started(two_nic());
    send(&mut engine, 0, frame(FRONT, ROUTER, 0x0800, &udp(call(40_000), b"x")), 1);
    let mut asked = 0;
    for _ in 0..100 {
        let Some(next) = engine.poll_timeout().filter(|next| *next < at(10_000)) else { break };
        engine.handle_timeout(next);
        asked += exchange_on(&mut engine, InterfaceId(0), &[], next).len();
    }
    assert_eq!(asked, 2, "after the first question");
    assert_eq!((dropped(&engine), engine.counters().waiting), (vec![("neighbour_unresolved", 1)], 0));
}

#[test]
fn an_interface_without_an_address_asks_in_the_name_of_its_own_link() {
    let mut plan = two_nic_v6();
    plan.interfaces[1].addresses.clear();
    plan.interfaces[1].passes_to = Some(InterfaceId(0));
    let there = Prefix { address: S6.into(), length: 128 };
    plan.routes.push(RoutePlan { destination: there, gateway: None, interface: InterfaceId(1) });
    let mut engine = started_with(plan, |_| true);
    let out = send(&mut engine, 0, frame(FRONT, ROUTER, 0x86dd, &udp6((CLIENT6, 4000), (VIP6, 80))), 1);
    let own = ndp::link_local(BACK);
    let group = MacAddress::multicast_of(ndp::solicited_node(S6.octets()));
    let question = ndp::solicitation(BACK, own, S6.octets());
    assert_eq!(out, [(InterfaceId(1), frame(group, BACK, 0x86dd, &question))]);
    let answer = ndp::advertisement(SERVER, S6.octets(), own);
    let out = send(&mut engine, 1, frame(BACK, SERVER, 0x86dd, &answer), 2);
    assert_eq!(out.len(), 1, "the answer stays here, and the packet that has waited leaves: {out:?}");
    assert_eq!(out[0].1[..14], frame(SERVER, BACK, 0x86dd, b""));
}

#[test]
fn pieces_in_a_tunnel_leave_as_what_is_around_them() {
    let mut plan = two_nic_v6();
    plan.directors[1].binds = vec![Binding::of(VIP.into(), 80, Protocol::UDP)];
    plan.directors[1].servers = vec![ServerPlan::new("s6", S6.into(), 80, 1)];
    plan.directors[1].mode = Mode::Tunnel { encapsulation: Encapsulation::IpIp, sources: vec![], ttl: None };
    let mut engine = started_with(plan, |_| true);
    let own = Ipv6Addr::new(0xfc00, 1, 0, 0, 0, 0, 0, 2);
    send(&mut engine, 0, frame(FRONT, ROUTER, 0x0800, &udp(call(40_000), b"first")), 1);
    let answer = ndp::advertisement(SERVER, S6.octets(), own.octets());
    let out = send(&mut engine, 1, frame(BACK, SERVER, 0x86dd, &answer), 2);
    assert_eq!(out[0].1[..14], frame(SERVER, BACK, 0x86dd, b""));
    let mut may_be_cut = udp(call(40_000), &[5; 1470]);
    may_be_cut[6] = 0;
    let out = send(&mut engine, 0, frame(FRONT, ROUTER, 0x0800, &mended(may_be_cut)), 3);
    assert_eq!(out.len(), 2);
    for (port, piece) in out {
        assert_eq!((port, &piece[..14]), (InterfaceId(1), &frame(SERVER, BACK, 0x86dd, b"")[..]));
        assert_eq!((piece[14] >> 4, piece[14 + 40] >> 4), (6, 4));
    }
}

#[test]
fn a_frame_says_which_family_it_carries() {
    let mut engine = started_with(two_nic_v6(), |_| true);
    let packet = udp6((CLIENT6, 4000), (VIP6, 80));
    send(&mut engine, 0, frame(FRONT, ROUTER, 0x0800, &packet), 1);
    send(&mut engine, 0, frame(FRONT, ROUTER, 0x86dd, &udp(call(40_000), b"x")), 1);
    assert_eq!((dropped(&engine), engine.flow_count()), (vec![("bad_header", 2)], 0));
}

#[test]
fn a_packet_of_ours_for_which_there_is_no_room_is_not_passed_on_changed() {
    let mut plan = two_nic();
    plan.interfaces[0].passes_to = Some(InterfaceId(1));
    let mut engine = started(plan);
    for port in 0..8 {
        let bytes = frame(SERVER, ROUTER, 0x0800, &udp(call(40_000 + port), b"x"));
        let out = send(&mut engine, 0, bytes, 1);
        assert!(out.iter().all(|(_, frame)| frame[12..14] == [8, 6]), "only questions leave: {out:?}");
    }
    assert_eq!(engine.counters().passed, 0);
}

#[test]
fn a_segment_that_finds_no_neighbour_ends_its_connection_all_the_same() {
    let mut engine = started(two_nic());
    let packet = |flags| frame(FRONT, ROUTER, 0x0800, &tcp(call(41_000), flags, b""));
    // The server never says where it is: three packets wait for it, later ones are dropped.
    send(&mut engine, 0, packet("S"), 1);
    (1..=34).for_each(|tenth| engine.handle_timeout(at(tenth * 100 + 2)));
    assert_eq!(engine.counters().dropped(DropReason::NeighbourUnresolved), 1);
    send(&mut engine, 0, packet("R"), 3_500);
    assert_eq!(engine.counters().dropped(DropReason::NeighbourUnresolved), 2);
    let load = |engine: &Engine| {
        let servers = &engine.directors()[0].servers;
        servers.iter().map(|server| server.active + server.inactive).sum::<u32>()
    };
    assert_eq!(load(&engine), u32::try_from(engine.flow_count()).unwrap());
    engine.handle_timeout(at(400_000));
    assert_eq!((engine.flow_count(), load(&engine)), (0, 0));
}

#[test]
fn what_waits_on_a_link_that_goes_is_counted() {
    let mut engine = started(two_nic());
    send(&mut engine, 0, frame(FRONT, ROUTER, 0x0800, &udp(call(40_000), b"x")), 1);
    let mut other = two_nic();
    other.interfaces[1].mtu_bytes = 1400;
    engine.apply(other, evenkeel_engine::Guests::default(), at(2)).unwrap();
    assert_eq!((dropped(&engine), engine.counters().waiting), (vec![("neighbour_unresolved", 1)], 0));
    assert_eq!(DropReason::NeighbourUnresolved.name(), "neighbour_unresolved");
    assert!(engine.counters().is_conserved());
}

#[test]
fn a_take_over_is_told_to_every_link() {
    let mut engine = started(two_nic());
    engine.announce();
    let told = exchange_on(&mut engine, InterfaceId(0), &[], at(1));
    let vip = arp(1, FRONT, VIP, [0; 6], VIP);
    assert!(told.contains(&(InterfaceId(0), frame(MacAddress::BROADCAST, FRONT, 0x0806, &vip))), "{told:?}");
}

#[test]
fn what_is_not_ours_passes_between_two_ports_as_it_is() {
    let mut plan = two_nic();
    plan.interfaces[0].passes_to = Some(InterfaceId(1));
    plan.interfaces[1].passes_to = Some(InterfaceId(0));
    let mut engine = started(plan);
    let packet = udp(call(40_000), b"x");
    let stranger = udp(ends(CLIENT, 1, Ipv4Addr::new(10, 9, 9, 9), 80), b"x");
    let foreign = [
        who_has(ROUTER, GATEWAY, Ipv4Addr::new(10, 0, 0, 77)),
        frame(SERVER, ROUTER, 0x86dd, b"anything"),
        frame(SERVER, ROUTER, 0x8847, b"anything"),
        frame(MacAddress::BROADCAST, ROUTER, 0x0800, &packet),
        frame(SERVER, ROUTER, 0x0800, &stranger),
        frame(FRONT, ROUTER, 0x0800, &stranger),
        frame(SERVER, ROUTER, 0x0800, &[0x45, 0, 0, 20]),
    ];
    for bytes in &foreign {
        let there = send(&mut engine, 0, bytes.clone(), 1);
        assert_eq!(there, [(InterfaceId(1), bytes.clone())]);
    }
    let back = send(&mut engine, 1, foreign[4].clone(), 2);
    assert_eq!(back, [(InterfaceId(0), foreign[4].clone())]);
    assert_eq!(engine.counters().passed, 8);
    // What is for a director is taken, whomever the frame is for.
    let out = send(&mut engine, 0, frame(SERVER, ROUTER, 0x0800, &packet), 3);
    assert_eq!(out.len(), 1, "a question for the server");
    assert_eq!((engine.counters().waiting, engine.flow_count()), (1, 1));
}
