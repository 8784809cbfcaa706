//! The ways to the real server: both families, gateway and tunnel, packets that do not fit.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::support::*;
use etherparse::{Icmpv6Type, PacketBuilder, SlicedPacket, TransportSlice};
use evenkeel_engine::device::Offload;
use evenkeel_engine::forward::tunnel::Encapsulation;
use evenkeel_engine::plan::{
    ANY_PORT, Binding, Mode, Persistence, Plan, Prefix, RoutePlan, ServerPlan, SourceNat,
};
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{DropReason, Duration, Engine, InterfaceId, step};

const VIP6: Ipv6Addr = Ipv6Addr::new(0xfc00, 1, 0, 0, 0, 0, 0, 3);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 10);
const S6: Ipv6Addr = Ipv6Addr::new(0xfc00, 3, 0, 0, 0, 0, 0, 20);
const OWN6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0x99, 0, 0, 0, 0, 0, 1);

fn default_route_v6() -> RoutePlan {
    RoutePlan {
        destination: Prefix { address: Ipv6Addr::UNSPECIFIED.into(), length: 0 },
        gateway: None,
        interface: TUN,
    }
}

/// The plan of the other tests with a VIP and a real server of IPv6 beside it.
fn plan_v6() -> Plan {
    let mut plan = plan();
    plan.interfaces[0].addresses.push(Prefix { address: OWN6.into(), length: 64 });
    plan.routes.push(default_route_v6());
    for director in &mut plan.directors {
        let protocol = director.binds[0].protocol.unwrap();
        director.binds = vec![Binding::of(VIP6.into(), 80, protocol)];
        director.servers = vec![ServerPlan::new("s6", S6.into(), 8080, 1)];
    }
    plan
}

fn udp6(source: (Ipv6Addr, u16), destination: (Ipv6Addr, u16), payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ipv6(source.0.octets(), destination.0.octets(), 64);
    let mut bytes = Vec::new();
    builder.udp(source.1, destination.1).write(&mut bytes, payload).unwrap();
    bytes
}

fn tcp6(source: (Ipv6Addr, u16), destination: (Ipv6Addr, u16), sequence: u32) -> Vec<u8> {
    let builder = PacketBuilder::ipv6(source.0.octets(), destination.0.octets(), 64);
    let mut bytes = Vec::new();
    builder.tcp(source.1, destination.1, sequence, 1000).syn().write(&mut bytes, &[]).unwrap();
    bytes
}

/// The ends of a packet of IPv6, whose checksums are right.
fn audit6(packet: &[u8]) -> ((Ipv6Addr, u16), (Ipv6Addr, u16), u8) {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let Some(etherparse::NetSlice::Ipv6(ip)) = &sliced.net else { panic!("not IPv6") };
    let header = ip.header();
    let (ports, stated, computed) = match sliced.transport.unwrap() {
        TransportSlice::Udp(udp) => {
            let computed = udp.to_header().calc_checksum_ipv6(&header.to_header(), udp.payload()).unwrap();
            ((udp.source_port(), udp.destination_port()), udp.checksum(), computed)
        }
        TransportSlice::Tcp(tcp) => {
            let computed = tcp.to_header().calc_checksum_ipv6(&header.to_header(), tcp.payload()).unwrap();
            ((tcp.source_port(), tcp.destination_port()), tcp.checksum(), computed)
        }
        TransportSlice::Icmpv6(icmp) => {
            assert!(icmp.is_checksum_valid(header.source(), header.destination()));
            ((0, 0), 0, 0)
        }
        TransportSlice::Icmpv4(_) | TransportSlice::Igmp(_) => panic!("ICMP of the other family"),
    };
    assert_eq!(stated, computed);
    ((header.source_addr(), ports.0), (header.destination_addr(), ports.1), header.hop_limit())
}

#[test]
fn ipv6_is_translated_there_and_back() {
    let mut engine = engine(plan_v6());
    let there = one(&mut engine, udp6((CLIENT6, 40_000), (VIP6, 80), b"hello"), at(1));
    assert_eq!(audit6(&there), ((CLIENT6, 40_000), (S6, 8080), 63));
    let back = one(&mut engine, udp6((S6, 8080), (CLIENT6, 40_000), b"world"), at(2));
    assert_eq!(audit6(&back), ((VIP6, 80), (CLIENT6, 40_000), 63));
    let there = one(&mut engine, tcp6((CLIENT6, 40_000), (VIP6, 80), 7), at(3));
    assert_eq!(audit6(&there).1, (S6, 8080));
}

#[test]
fn full_nat_of_ipv6_hides_the_client() {
    let mut plan = plan_v6();
    let sources = vec![SourceNat::to(OWN.into(), ANY_PORT), SourceNat::to(OWN6.into(), 1024..=65_535)];
    plan.directors[1].mode = Mode::Nat { sources };
    let mut engine = engine(plan);
    let there = one(&mut engine, udp6((CLIENT6, 40_000), (VIP6, 80), b"hello"), at(1));
    assert_eq!(audit6(&there), ((OWN6, 40_000), (S6, 8080), 63));
    let back = one(&mut engine, udp6((S6, 8080), (OWN6, 40_000), b"world"), at(2));
    assert_eq!(audit6(&back).1, (CLIENT6, 40_000));
}

#[test]
fn a_ping_of_an_ipv6_vip_is_answered() {
    let mut engine = engine(plan_v6());
    let builder = PacketBuilder::ipv6(CLIENT6.octets(), VIP6.octets(), 1);
    let mut ping = Vec::new();
    builder.icmpv6_echo_request(7, 9).write(&mut ping, b"there?").unwrap();
    let pong = one(&mut engine, ping, at(1));
    assert_eq!(audit6(&pong), ((VIP6, 0), (CLIENT6, 0), 64));
    assert_eq!(pong[40], 129);
}

#[test]
fn ipv6_too_big_and_out_of_hops_are_told() {
    let mut plan = plan_v6();
    plan.interfaces[0].mtu_bytes = 1280;
    let mut engine = engine(plan);
    let large = udp6((CLIENT6, 40_000), (VIP6, 80), &[7; 1300]);
    let told = refused(&mut engine, large.clone(), DropReason::TooBig).remove(0);
    assert_eq!(audit6(&told), ((VIP6, 0), (CLIENT6, 0), 64));
    assert_eq!(told[40..42], [2, 0]);
    assert_eq!(told[44..48], 1280_u32.to_be_bytes());
    assert_eq!((told.len(), &told[48..]), (1280, &large[..1232]));
    let mut last = udp6((CLIENT6, 40_000), (VIP6, 80), b"x");
    last[7] = 1;
    let told = refused(&mut engine, last, DropReason::TtlExceeded).remove(0);
    assert_eq!(told[40..42], [3, 0]);
}

#[test]
fn an_ipv6_error_of_the_clients_network_reaches_the_real_server() {
    let mut engine = engine(plan_v6());
    one(&mut engine, udp6((CLIENT6, 40_000), (VIP6, 80), b"hello"), at(1));
    let quoted = one(&mut engine, udp6((S6, 8080), (CLIENT6, 40_000), &[1; 900]), at(2));
    let router = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let kind = Icmpv6Type::PacketTooBig { mtu: 1400 };
    let mut error = Vec::new();
    PacketBuilder::ipv6(router.octets(), VIP6.octets(), 60).icmpv6(kind).write(&mut error, &quoted).unwrap();
    let told = one(&mut engine, error, at(3));
    assert_eq!(audit6(&told), ((router, 0), (S6, 0), 59));
    let inner = &told[48..];
    assert_eq!(audit6(inner).0, (S6, 8080), "the server sees its own packet");
    assert_eq!(audit6(inner).1, (CLIENT6, 40_000));
}

#[test]
fn gateway_changes_the_hops_and_nothing_else() {
    let mut plan = plan();
    plan.directors[1].mode = Mode::Gateway;
    plan.directors[1].servers.iter_mut().for_each(|server| server.port = 80);
    let mut engine = engine(plan);
    let packet = udp(call(40_000), b"hello");
    let out = one(&mut engine, packet.clone(), at(1));
    let mut expected = packet;
    expected[8] -= 1;
    assert_eq!(out, mended(expected));
    assert_eq!((engine.flow_count(), engine.half_open_count()), (1, 1));
    one(&mut engine, udp(call(40_000), b"again"), at(2));
    assert_eq!(engine.half_open_count(), 0, "the client goes on, so somebody answers");
}

#[test]
fn gateway_follows_a_connection_by_its_client_alone() {
    let mut plan = plan();
    plan.directors[0].mode = Mode::Gateway;
    plan.directors[0].servers.iter_mut().for_each(|server| server.port = 0);
    let mut engine = engine(plan);
    let state = |engine: &Engine| engine.flows().next().unwrap().state.name();
    one(&mut engine, tcp(call(41_000), "S", b""), at(1));
    assert_eq!(state(&engine), "syn_received");
    one(&mut engine, tcp(call(41_000), "A", b""), at(2));
    assert_eq!((state(&engine), engine.half_open_count()), ("established", 0));
    one(&mut engine, segment(call(41_000), "FA", 1001, 2500, b""), at(3));
    assert_eq!(state(&engine), "close_wait");
}

#[test]
fn a_client_that_goes_on_after_a_reset_was_not_reset() {
    let mut plan = plan();
    plan.directors[0].mode = Mode::Gateway;
    plan.directors[0].servers.iter_mut().for_each(|server| server.port = 0);
    let mut engine = engine(plan);
    let state = |engine: &Engine| engine.flows().next().unwrap().state.name();
    one(&mut engine, tcp(call(41_000), "S", b""), at(1));
    one(&mut engine, tcp(call(41_000), "A", b""), at(2));
    one(&mut engine, segment(call(41_000), "R", 1001, 0, b""), at(3));
    assert_eq!(state(&engine), "closed");
    one(&mut engine, segment(call(41_000), "A", 1001, 2000, b"data"), at(4));
    assert_eq!(
        (state(&engine), engine.directors()[0].servers.iter().map(|one| one.active).sum::<u32>()),
        ("established", 1)
    );
}

#[test]
fn a_forged_reset_and_opening_leave_an_unseen_server_its_connection() {
    let mut plan = plan();
    plan.directors[0].mode = Mode::Gateway;
    plan.directors[0].servers.iter_mut().for_each(|server| server.port = 0);
    let mut engine = engine(plan);
    let server = |engine: &Engine| engine.flows().next().unwrap().server;
    one(&mut engine, tcp(call(41_000), "S", b""), at(1));
    one(&mut engine, tcp(call(41_000), "A", b""), at(2));
    let first = server(&engine);
    one(&mut engine, segment(call(41_000), "R", 1001, 0, b""), at(3));
    one(&mut engine, segment(call(41_000), "S", 3_000_000_000, 0, b""), at(4));
    assert_eq!((server(&engine), engine.counters().flows_opened), (first, 1));
    one(&mut engine, segment(call(41_000), "A", 1001, 2000, b"data"), at(5));
    assert_eq!((server(&engine), engine.flow_count()), (first, 1));
    // Where the real server drains, it is a new connection to another.
    one(&mut engine, segment(call(41_000), "R", 1005, 0, b""), at(6));
    let servers = engine.directors().remove(0).servers;
    let drained = servers.iter().find(|one| one.active + one.inactive > 0).unwrap();
    engine.set_weight("web", &drained.name, 0, at(7)).unwrap();
    one(&mut engine, tcp(call(41_000), "S", b""), at(8));
    assert_ne!(server(&engine), first);
}

/// The plan with a tunnel to one server for UDP.
fn tunnel(encapsulation: Encapsulation, vip: IpAddr, server: IpAddr) -> Plan {
    let mut plan = plan_v6();
    let director = &mut plan.directors[1];
    director.binds = vec![Binding::of(vip, 80, Protocol::UDP)];
    director.servers = vec![ServerPlan::new("s1", server, 80, 1)];
    director.mode = Mode::Tunnel { encapsulation, sources: vec![], ttl: None };
    plan
}

#[test]
fn every_tunnel_carries_the_packet_one_hop_later() {
    let rip: IpAddr = Ipv4Addr::new(10, 0, 3, 20).into();
    let gue = |checksum| Encapsulation::Gue { port: 6080, checksum };
    let kinds = [
        (Encapsulation::IpIp, 0),
        (Encapsulation::Gre { checksum: false }, 4),
        (Encapsulation::Gre { checksum: true }, 8),
        (gue(false), 12),
        (gue(true), 12),
    ];
    let families: [(IpAddr, IpAddr); 4] =
        [(VIP.into(), rip), (VIP6.into(), rip), (VIP.into(), S6.into()), (VIP6.into(), S6.into())];
    for (kind, shim) in kinds {
        for (vip, server) in families {
            let mut engine = engine(tunnel(kind, vip, server));
            let packet = match vip {
                IpAddr::V4(_) => udp(call(40_000), b"hello"),
                IpAddr::V6(_) => udp6((CLIENT6, 40_000), (VIP6, 80), b"hello"),
            };
            let out = one(&mut engine, packet.clone(), at(1));
            let header = if server.is_ipv4() { 20 } else { 40 };
            let mut inner = packet;
            inner[if vip.is_ipv4() { 8 } else { 7 }] -= 1;
            let inner = if vip.is_ipv4() { mended(inner) } else { inner };
            assert_eq!(out[header + shim..], inner, "{kind:?} {vip} {server}");
            let sliced = SlicedPacket::from_ip(&out).unwrap();
            match sliced.net.unwrap() {
                etherparse::NetSlice::Ipv4(ip) => {
                    assert_eq!(IpAddr::from(ip.header().destination_addr()), server);
                    assert_eq!(ip.header().source_addr(), OWN);
                    assert_eq!((ip.header().ttl(), usize::from(ip.header().total_len())), (63, out.len()));
                    assert_eq!(ip.header().to_header().calc_header_checksum(), ip.header().header_checksum());
                }
                etherparse::NetSlice::Ipv6(ip) => {
                    assert_eq!(IpAddr::from(ip.header().destination_addr()), server);
                    assert_eq!(ip.header().source_addr(), OWN6);
                    assert_eq!(
                        (ip.header().hop_limit(), usize::from(ip.header().payload_length())),
                        (63, out.len() - 40)
                    );
                }
                etherparse::NetSlice::Arp(_) => panic!("no packet"),
            }
        }
    }
}

#[test]
fn what_does_not_fit_a_tunnel_is_told_how_much_does_or_cut_inside() {
    let rip: IpAddr = Ipv4Addr::new(10, 0, 3, 20).into();
    let mut engine = engine(tunnel(Encapsulation::IpIp, VIP.into(), rip));
    let whole = udp(call(40_000), &[5; 1470]);
    let told = refused(&mut engine, whole.clone(), DropReason::TooBig).remove(0);
    assert_eq!((&told[20..22], &told[26..28]), (&[3, 4][..], &1480_u16.to_be_bytes()[..]));
    let mut may_be_cut = whole;
    may_be_cut[6] = 0;
    let out = exchange(&mut engine, &[mended(may_be_cut.clone())], at(2));
    assert_eq!(out.len(), 2);
    let mut payload = Vec::new();
    for piece in &out {
        assert!(piece.len() <= 1500 && piece[9] == 4);
        payload.extend_from_slice(&piece[40..]);
    }
    assert_eq!(payload, may_be_cut[20..]);
    assert_eq!((engine.counters().forwarded, engine.counters().born, engine.counters().cut), (1, 3, 1));
}

#[test]
fn an_error_about_our_tunnel_reaches_the_client() {
    let rip = Ipv4Addr::new(10, 0, 3, 20);
    let mut engine =
        engine(tunnel(Encapsulation::Gue { port: 6080, checksum: false }, VIP.into(), rip.into()));
    let outer = one(&mut engine, udp(call(40_000), &[5; 1000]), at(1));
    let router = Ipv4Addr::new(10, 0, 3, 254);
    let kind = etherparse::Icmpv4Type::DestinationUnreachable(
        etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 900 },
    );
    let mut error = Vec::new();
    PacketBuilder::ipv4(router.octets(), OWN.octets(), 60)
        .icmpv4(kind)
        .write(&mut error, &outer[..200])
        .unwrap();
    let told = one(&mut engine, error, at(2));
    assert_eq!(audit(&told), ends(VIP, 0, CLIENT, 0));
    assert_eq!((&told[20..22], &told[26..28]), (&[3, 4][..], &868_u16.to_be_bytes()[..]));
    assert_eq!(told[28..48][12..16], CLIENT.octets(), "its own packet is quoted");
    assert_eq!(engine.counters().consumed, 1);
}

#[test]
fn a_packet_that_may_be_cut_is_cut_and_a_partial_checksum_completed() {
    let mut plan = plan();
    plan.interfaces[0].mtu_bytes = 1000;
    let mut engine = engine(plan);
    let mut packet = udp(call(40_000), &[5; 1200]);
    packet[6] = 0;
    let packet = mended(packet);
    let out = exchange(&mut engine, std::slice::from_ref(&packet), at(1));
    assert_eq!(out.iter().map(Vec::len).collect::<Vec<_>>(), [996, 252]);
    let whole = [&out[0][20..], &out[1][20..]].concat();
    assert_eq!(whole[8..], packet[28..]);
    // The same with a checksum that the sender has left to its device: the pseudo header's sum is in the field.
    let mut partial = packet;
    let pseudo = evenkeel_engine::wire::checksum::pseudo_header_v4(CLIENT.octets(), VIP.octets(), 17, 1208);
    partial[26..28].copy_from_slice(&pseudo.to_be_bytes());
    let mut device = Memory::new();
    device.inbox.push_back((TUN, partial, Offload { needs_checksum: true, segment_bytes: None }));
    step(&mut engine, &mut device, at(2));
    let pieces: Vec<_> = device.outbox.iter().map(|(_, piece)| piece[20..].to_vec()).collect();
    assert_eq!(pieces.concat(), whole);
}

#[test]
fn segments_are_clamped_in_both_directions() {
    let mut plan = plan();
    plan.handling.mss_bytes = Some(1400);
    let mut engine = engine(plan);
    let syn = |from: Ends| {
        let builder = PacketBuilder::ipv4(from.source.0.octets(), from.destination.0.octets(), 64);
        let options = [etherparse::TcpOptionElement::MaximumSegmentSize(1460)];
        let is_client = from.source.0 == CLIENT;
        let builder =
            builder.tcp(from.source.1, from.destination.1, if is_client { 1000 } else { 1999 }, 1000).syn();
        let builder = if is_client { builder } else { builder.ack(1001) };
        let mut bytes = Vec::new();
        builder.options(&options).unwrap().write(&mut bytes, &[]).unwrap();
        bytes
    };
    let there = one(&mut engine, syn(call(41_000)), at(1));
    assert_eq!(there[40..44], [2, 4, 0x05, 0x78]);
    let server = audit(&there).destination;
    let back = one(&mut engine, syn(ends(server.0, server.1, CLIENT, 41_000)), at(2));
    assert_eq!(back[40..44], [2, 4, 0x05, 0x78]);
    audit(&back);
}

#[test]
fn a_missing_checksum_is_filled_in_where_the_plan_says_so() {
    let mut plan = plan();
    plan.handling.fills_udp_checksum = true;
    let mut engine = engine(plan);
    let mut packet = udp(call(40_000), b"hello");
    packet[26..28].fill(0);
    let out = one(&mut engine, packet, at(1));
    assert_ne!(out[26..28], [0, 0]);
    audit(&out);
}

#[test]
fn networks_port_ranges_and_any_port_lead_to_their_director_the_narrowest_first() {
    let mut plan = plan();
    let network = Prefix { address: Ipv4Addr::new(10, 5, 0, 0).into(), length: 16 };
    plan.directors[1].binds = vec![
        Binding { network, ports: ANY_PORT, protocol: None },
        Binding { network: Prefix::host(VIP.into()), ports: 50_000..=51_000, protocol: Some(Protocol::UDP) },
    ];
    plan.directors[1].servers = vec![ServerPlan::new("keeps", Ipv4Addr::new(10, 0, 3, 20).into(), 0, 1)];
    let mut narrow = director("narrow", Protocol::UDP, vec![server("s2", 21, 1)]);
    narrow.binds = vec![Binding::of(Ipv4Addr::new(10, 5, 5, 5).into(), 53, Protocol::UDP)];
    plan.directors.push(narrow);
    let mut engine = engine(plan);
    let mut to = |address: [u8; 4], port| {
        let out = one(&mut engine, udp(ends(CLIENT, 40_000, address.into(), port), b"x"), at(1));
        audit(&out).destination
    };
    assert_eq!(to([10, 5, 1, 1], 7), (Ipv4Addr::new(10, 0, 3, 20), 7));
    assert_eq!(to([10, 5, 5, 5], 53), (Ipv4Addr::new(10, 0, 3, 21), 8080));
    assert_eq!(to([10, 5, 5, 5], 54), (Ipv4Addr::new(10, 0, 3, 20), 54));
    assert_eq!(to([10, 0, 0, 3], 50_500), (Ipv4Addr::new(10, 0, 3, 20), 50_500));
    refused(&mut engine, udp(ends(CLIENT, 1, VIP, 51_001), b"x"), DropReason::NoDirector);
}

#[test]
fn source_nat_goes_by_the_interfaces() {
    let mut plan = plan();
    plan.interfaces.push(interface("tun1", Ipv4Addr::new(10, 98, 0, 1), 24));
    let rule = |interface_in, address: Ipv4Addr| SourceNat {
        interface_in: Some(interface_in),
        ..SourceNat::to(address.into(), 1024..=65_535)
    };
    let sources = vec![rule(InterfaceId(1), OWN)];
    plan.directors[1].mode = Mode::Nat { sources };
    let mut engine = engine(plan);
    let first = one(&mut engine, udp(call(40_000), b"x"), at(1));
    assert_eq!(audit(&first).source, (CLIENT, 40_000));
    let other = exchange_on(&mut engine, InterfaceId(1), &[udp(call(40_001), b"x")], at(1));
    assert_eq!(audit(&other[0].1).source, (OWN, 40_001));
}

#[test]
fn a_client_network_sticks_to_its_server_even_when_that_drains() {
    let mut plan = plan();
    plan.directors[1].persistence =
        Some(Persistence { timeout: Duration::from_secs(60), length_v4: 24, length_v6: 64 });
    let mut engine = engine(plan.clone());
    let from = |last, port| udp(ends(Ipv4Addr::new(192, 0, 2, last), port, VIP, 80), b"x");
    let packets: Vec<_> = (1..30).map(|n| from(n, 4000 + u16::from(n))).collect();
    let servers: Vec<_> =
        exchange(&mut engine, &packets, at(1)).iter().map(|packet| audit(packet).destination.0).collect();
    assert!(servers.iter().all(|server| *server == servers[0]), "{servers:?}");
    assert_eq!(engine.sticky_count(), 1);
    let name = if servers[0] == Ipv4Addr::new(10, 0, 3, 20) { "s1" } else { "s2" };
    engine.set_weight("dns", name, 0, at(2)).unwrap();
    assert_eq!(audit(&one(&mut engine, from(40, 1), at(2))).destination.0, servers[0]);
    plan.handling.expires_quiescent = true;
    plan.directors[1].servers.iter_mut().find(|server| server.name == name).unwrap().weight = 0;
    engine.apply(plan, evenkeel_engine::Guests::default(), at(3)).unwrap();
    assert_ne!(audit(&one(&mut engine, from(41, 1), at(3))).destination.0, servers[0]);
}
