//! Translation, seen from outside: what clients and real servers get.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::net::Ipv4Addr;

use crate::support::*;
use evenkeel_engine::device::Offload;
use evenkeel_engine::flow::Direction;
use evenkeel_engine::plan::Binding;
use evenkeel_engine::wire::{FiveTuple, Protocol};
use evenkeel_engine::{DropReason, Duration, Event, Instant, Verdict, step};
use proptest::prelude::*;

const S1: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 20);
const S2: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 21);

#[test]
fn a_datagram_reaches_a_real_server_and_the_answer_comes_from_the_vip() {
    let mut engine = engine(plan());
    let to_server = one(&mut engine, udp(call(40_000), b"hello"), at(1));
    // Round robin begins with the server that was named last, as in Linux.
    assert_eq!(audit(&to_server), ends(CLIENT, 40_000, S2, 8080));
    assert_eq!(ttl(&to_server), 63);
    let to_client = one(&mut engine, udp(ends(S2, 8080, CLIENT, 40_000), b"world"), at(2));
    assert_eq!(audit(&to_client), ends(VIP, 80, CLIENT, 40_000));
    assert_eq!(ttl(&to_client), 63);
    assert!(to_client.ends_with(b"world"));
}

#[test]
fn every_packet_of_a_flow_goes_to_the_server_of_its_first() {
    let mut engine = engine(plan());
    let packets: Vec<_> = (0..200).map(|n| udp(call(40_000 + n % 20), b"x")).collect();
    let out = exchange(&mut engine, &packets, at(1));
    let servers: Vec<_> = out.iter().map(|packet| audit(packet).destination.0).collect();
    for (n, server) in servers.iter().enumerate() {
        assert_eq!(*server, servers[n % 20]);
    }
    assert_eq!(engine.counters().flows_opened, 20);
    let status = engine.directors();
    assert_eq!(status[1].servers.iter().map(|one| one.packets_to).sum::<u64>(), 200);
    assert_eq!(status[1].servers.iter().map(|one| one.flows).collect::<Vec<_>>(), [10, 10]);
}

#[test]
fn a_driver_learns_whose_a_flow_is_and_how_each_packet_ended() {
    let mut engine = engine(plan());
    let stranger = ends(CLIENT, 40_000, Ipv4Addr::new(10, 0, 0, 9), 80);
    let packets = [udp(call(40_000), b"x"), udp(stranger, b"x"), udp(call(40_000), b"y"), echo_request(VIP)];
    let mut device = Memory::new();
    device.room = 2;
    device.inbox.extend(packets.map(|packet| (TUN, packet, Offload::default())));
    step(&mut engine, &mut device, at(1));
    // The two datagrams simply went on, and there was no room for the answer to the ping.
    let drop = |reason| Verdict::Drop(reason);
    assert_eq!(device.ends, [(1, drop(DropReason::NoDirector)), (3, drop(DropReason::DeviceQueueFull))]);
    let mut device = Memory::new();
    device.inbox.push_back((TUN, echo_request(VIP), Offload::default()));
    step(&mut engine, &mut device, at(2));
    assert_eq!(device.ends, [(0, Verdict::Answer(TUN))]);

    let tuple = |ends: Ends| FiveTuple {
        source: ends.source.0.into(),
        destination: ends.destination.0.into(),
        source_port: ends.source.1,
        destination_port: ends.destination.1,
        protocol: Protocol::UDP,
    };
    for (tuple, direction) in [
        (tuple(call(40_000)), Direction::Original),
        (tuple(ends(S2, 8080, CLIENT, 40_000)), Direction::Reply),
    ] {
        let status = engine.flow(&tuple).unwrap();
        assert_eq!((status.director, status.server, status.direction), ("dns", "s2", direction));
        assert_eq!(status.entry.tally(Direction::Original).packets(), 2);
    }
    assert!(engine.flow(&tuple(stranger)).is_none());
}

#[test]
fn a_connection_is_counted_active_until_its_first_fin_and_gone_after_its_timeout() {
    let mut engine = engine(plan());
    let client = call(41_000);
    let server = ends(S2, 8080, CLIENT, 41_000);
    let load = |engine: &evenkeel_engine::Engine| {
        let status = engine.directors()[0].servers[1].clone();
        (status.active, status.inactive)
    };
    one(&mut engine, tcp(client, "S", b""), at(1));
    assert_eq!(load(&engine), (1, 0));
    one(&mut engine, tcp(server, "SA", b""), at(2));
    one(&mut engine, tcp(client, "A", b"GET"), at(3));
    one(&mut engine, tcp(client, "FA", b""), at(4));
    assert_eq!(load(&engine), (0, 1));
    one(&mut engine, tcp(server, "FA", b""), at(5));
    one(&mut engine, tcp(client, "A", b""), at(6));
    assert_eq!(engine.flow_count(), 1);
    let end = at(6).after(Duration::from_secs(120));
    assert!(engine.poll_timeout().is_some_and(|next| next <= end.after(Duration::from_millis(2))));
    engine.handle_timeout(Instant::from_nanos(end.as_nanos() - 1));
    assert_eq!(engine.flow_count(), 1);
    engine.handle_timeout(end.after(Duration::from_millis(2)));
    assert_eq!((engine.flow_count(), load(&engine)), (0, (0, 0)));
    assert_eq!(engine.poll_timeout(), None);
}

#[test]
fn a_flow_that_is_over_is_not_used_even_before_its_timer_runs() {
    let mut engine = engine(plan());
    one(&mut engine, udp(call(40_000), b"x"), at(0));
    let out = one(&mut engine, udp(call(40_000), b"x"), at(300_000));
    assert_eq!(audit(&out).destination.0, S1, "a new flow, for the next server");
    assert_eq!(engine.counters().flows_closed, 1);
}

#[test]
fn a_client_may_use_its_port_again_after_a_reset() {
    let mut engine = engine(plan());
    one(&mut engine, tcp(call(41_000), "S", b""), at(1));
    one(&mut engine, tcp(ends(S2, 8080, CLIENT, 41_000), "RA", b""), at(2));
    let again = one(&mut engine, tcp(call(41_000), "S", b""), at(3));
    assert_eq!(audit(&again).destination.0, S1);
    assert_eq!(engine.flow_count(), 1);
}

#[test]
fn full_nat_keeps_a_free_port_and_gives_a_colliding_client_another() {
    let mut plan = plan();
    plan.directors[1].mode = full_nat(1024..=65_535);
    plan.directors[1].servers.truncate(1);
    let mut engine = engine(plan);
    let first = audit(&one(&mut engine, udp(call(40_000), b"a"), at(1)));
    assert_eq!(first, ends(OWN, 40_000, S1, 8080));
    let other = Ipv4Addr::new(192, 0, 2, 11);
    let second = audit(&one(&mut engine, udp(ends(other, 40_000, VIP, 80), b"b"), at(1)));
    assert_eq!((second.source.0, second.destination), (OWN, (S1, 8080)));
    assert_ne!(second.source.1, 40_000);
    assert_eq!(engine.ports_held(), 2);
    let back = one(&mut engine, udp(ends(S1, 8080, OWN, second.source.1), b"c"), at(2));
    assert_eq!(audit(&back), ends(VIP, 80, other, 40_000));
    engine.handle_timeout(at(400_000));
    assert_eq!((engine.flow_count(), engine.ports_held()), (0, 0));
}

#[test]
fn destination_nat_alone_uses_no_ports() {
    let mut engine = engine(plan());
    exchange(&mut engine, &(0..50).map(|n| udp(call(40_000 + n), b"x")).collect::<Vec<_>>(), at(1));
    assert_eq!((engine.flow_count(), engine.ports_held()), (50, 0));
}

#[test]
fn four_ports_carry_four_flows_and_two_more_are_dropped_and_counted() {
    let mut plan = plan();
    plan.directors[1].mode = full_nat(5000..=5003);
    plan.directors[1].servers.truncate(1);
    let mut engine = engine(plan);
    let packets: Vec<_> = (0..6).map(|n| udp(call(40_000 + n), b"x")).collect();
    let out = exchange(&mut engine, &packets, at(1));
    let mut ports: Vec<_> = out.iter().map(|packet| audit(packet).source.1).collect();
    ports.sort_unstable();
    assert_eq!(ports, [5000, 5001, 5002, 5003]);
    assert_eq!(engine.counters().dropped(DropReason::PortsExhausted), 2);
    let told = std::iter::from_fn(|| engine.poll_event());
    let told: Vec<_> = told.filter(|event| matches!(event, Event::PortsExhausted { .. })).collect();
    let (director, server) = ("dns".to_string(), "s1".to_string());
    assert_eq!(told, [Event::PortsExhausted { director, server }], "said once");
    let status = engine.directors()[1].servers[0].clone();
    assert_eq!((status.inactive, status.flows), (4, 4), "what was refused is not counted as load");
}

#[test]
fn a_datagram_without_checksum_stays_without() {
    let mut engine = engine(plan());
    let mut packet = udp(call(40_000), b"hello");
    packet[26..28].fill(0);
    assert_eq!(one(&mut engine, packet, at(1))[26..28], [0, 0]);
}

#[test]
fn a_wrong_checksum_is_not_repaired() {
    let mut engine = engine(plan());
    let mut packet = udp(call(40_000), b"hello");
    packet[27] ^= 0x10;
    let out = one(&mut engine, packet, at(1));
    let good = one(&mut engine, udp(call(40_000), b"hello"), at(1));
    assert_ne!(out[26..28], good[26..28]);
    assert_eq!(out[..26], good[..26]);
}

#[test]
fn a_partial_checksum_is_mended_by_the_addresses_alone() {
    let mut engine = engine(plan());
    let finished = udp(call(40_000), b"hello");
    let mut partial = finished.clone();
    let pseudo = |ends: Ends, length: u16| {
        let (source, destination) = (ends.source.0.octets(), ends.destination.0.octets());
        evenkeel_engine::wire::checksum::pseudo_header_v4(source, destination, 17, length)
    };
    partial[26..28].copy_from_slice(&pseudo(call(40_000), 13).to_be_bytes());
    let mut device = Memory::new();
    let offload = Offload { needs_checksum: true, segment_bytes: None };
    device.inbox.push_back((TUN, partial, offload));
    step(&mut engine, &mut device, at(1));
    let (_, out) = device.outbox.remove(0);
    let after = ends(CLIENT, 40_000, S2, 8080);
    assert_eq!(out[26..28], pseudo(after, 13).to_be_bytes());
    assert_eq!(out[28..], finished[28..]);
}

#[test]
fn a_super_packet_passes_although_it_is_larger_than_the_mtu() {
    let mut engine = engine(plan());
    one(&mut engine, tcp(call(41_000), "S", b""), at(1));
    let mut device = Memory::new();
    let offload = Offload { needs_checksum: true, segment_bytes: Some(1448) };
    device.inbox.push_back((TUN, tcp(call(41_000), "A", &[7; 30_000]), offload));
    step(&mut engine, &mut device, at(2));
    assert_eq!(device.outbox[0].1.len(), 30_040);
}

#[test]
fn two_vips_that_would_share_a_reply_tuple_do_not_mix_their_clients() {
    let mut plan = plan();
    plan.directors[1].servers.truncate(1);
    let mut other = director("dns2", Protocol::UDP, vec![server("s1", 20, 1)]);
    other.binds = vec![Binding::of(Ipv4Addr::new(10, 0, 0, 4).into(), 80, Protocol::UDP)];
    plan.directors.push(other);
    let mut engine = engine(plan);
    one(&mut engine, udp(call(40_000), b"a"), at(1));
    refused(
        &mut engine,
        udp(ends(CLIENT, 40_000, Ipv4Addr::new(10, 0, 0, 4), 80), b"b"),
        DropReason::PortsExhausted,
    );
    assert_eq!(engine.flow_count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// What the real server would send straight back arrives at the client bit for bit, but for two hops.
    #[test]
    fn there_and_back_restores_the_packet(
        port in 1_u16.., payload in proptest::collection::vec(any::<u8>(), 0..1400), is_tcp: bool, is_full: bool,
        id: u16, tos: u8,
    ) {
        let mut plan = plan();
        if is_full {
            plan.directors.iter_mut().for_each(|director| director.mode = full_nat(2000..=2010));
        }
        let mut engine = engine(plan);
        let mut sent = if is_tcp { tcp(call(port), "S", &payload) } else { udp(call(port), &payload) };
        sent[1] = tos;
        sent[4..6].copy_from_slice(&id.to_be_bytes());
        let sent = mended(sent);
        let there = one(&mut engine, sent.clone(), at(1));
        audit(&there);
        let turned = turn(&there);
        let back = one(&mut engine, turned, at(2));
        audit(&back);
        let mut expected = turn(&sent);
        expected[8] -= 2;
        prop_assert_eq!(back, mended(expected));
    }

    /// However the packets fall into batches, the same bytes leave.
    #[test]
    fn the_size_of_a_batch_changes_nothing(ports in proptest::collection::vec(0_u16..30, 1..150), batch in 1_usize..64) {
        let packets: Vec<_> = ports.iter().map(|port| udp(call(1000 + port), &port.to_be_bytes())).collect();
        let run = |batch: usize| {
            let mut engine = engine(plan());
            let mut device = Memory { batch, ..Memory::new() };
            device.inbox.extend(packets.iter().map(|packet| (TUN, packet.clone(), Offload::default())));
            while step(&mut engine, &mut device, at(1)).received > 0 {}
            (device.outbox, engine.counters().flows_opened)
        };
        prop_assert_eq!(run(batch), run(1));
    }
}

/// Swaps addresses and ports, which leaves every checksum right.
fn turn(packet: &[u8]) -> Vec<u8> {
    let mut turned = packet.to_vec();
    turned[12..16].copy_from_slice(&packet[16..20]);
    turned[16..20].copy_from_slice(&packet[12..16]);
    turned[20..22].copy_from_slice(&packet[22..24]);
    turned[22..24].copy_from_slice(&packet[20..22]);
    turned
}

/// An ICMP error from `source` to `destination` about `packet`.
fn error(source: Ipv4Addr, destination: Ipv4Addr, kind: [u8; 2], mtu: u16, packet: &[u8]) -> Vec<u8> {
    let [high, low] = mtu.to_be_bytes();
    let mut message = vec![kind[0], kind[1], 0, 0, 0, 0, high, low];
    message.extend_from_slice(&packet[..packet.len().min(60)]);
    let sum = evenkeel_engine::wire::checksum::checksum(0, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let length = 20 + u16::try_from(message.len()).unwrap();
    let mut header = vec![0x45, 0xc0, 0, 0, 0x12, 0x34, 0, 0, 64, 1, 0, 0];
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header.extend_from_slice(&source.octets());
    header.extend_from_slice(&destination.octets());
    mended([header, message].concat())
}

fn with_ttl(mut packet: Vec<u8>, ttl: u8) -> Vec<u8> {
    packet[8] = ttl;
    mended(packet)
}

#[test]
fn a_closed_port_behind_the_vip_is_told_as_if_the_vip_had_said_so() {
    for is_full in [false, true] {
        let mut plan = plan();
        if is_full {
            plan.directors[1].mode = full_nat(2000..=2010);
        }
        let mut engine = engine(plan);
        let sent = udp(call(40_000), b"hello");
        let there = one(&mut engine, sent.clone(), at(1));
        let mapped = audit(&there).source.0;
        let told = one(&mut engine, error(S2, mapped, [3, 3], 0, &there), at(2));
        let expected = error(VIP, CLIENT, [3, 3], 0, &with_ttl(sent, 63));
        assert_eq!(told, with_ttl(expected, 63), "full NAT: {is_full}");
    }
}

#[test]
fn a_router_that_needs_fragments_is_heard_by_the_right_real_server() {
    let router = Ipv4Addr::new(192, 0, 2, 1);
    for (is_full, seen_source) in [(false, router), (true, OWN)] {
        let mut plan = plan();
        if is_full {
            plan.directors[0].mode = full_nat(2000..=2010);
        }
        let mut engine = engine(plan);
        let there = audit(&one(&mut engine, tcp(call(41_000), "S", b""), at(1)));
        let answer = tcp(ends(S2, 8080, there.source.0, there.source.1), "SA", &[7; 100]);
        let back = one(&mut engine, answer.clone(), at(2));
        let before = engine.flows().next().unwrap().expires;
        let told = one(&mut engine, error(router, VIP, [3, 4], 1300, &back), at(3));
        let expected = error(seen_source, S2, [3, 4], 1300, &with_ttl(answer, 63));
        assert_eq!(told, with_ttl(expected, 63), "full NAT: {is_full}");
        assert_eq!(engine.flows().next().unwrap().expires, before, "an error refreshes nothing");
        assert_eq!(engine.flow_count(), 1, "and ends nothing");
    }
}

#[test]
fn errors_that_are_wrong_or_about_nobody_are_dropped() {
    let mut engine = engine(plan());
    let there = one(&mut engine, udp(call(40_000), b"hello"), at(1));
    let good = error(S2, CLIENT, [3, 3], 0, &there);
    refused(&mut engine, error(S2, CLIENT, [3, 3], 0, &udp(call(1), b"x")), DropReason::IcmpUnhandled);
    refused(&mut engine, error(S2, CLIENT, [3, 3], 0, &echo_request(VIP)), DropReason::IcmpUnhandled);
    refused(&mut engine, error(S2, CLIENT, [3, 3], 0, &there[..22]), DropReason::Truncated);
    refused(&mut engine, error(S2, CLIENT, [3, 3], 0, &there[..12]), DropReason::Truncated);
    let mut wrong = good.clone();
    wrong[50] ^= 1;
    refused(&mut engine, wrong, DropReason::BadChecksum);
    let mut inner = there.clone();
    inner[4] ^= 1;
    refused(&mut engine, error(S2, CLIENT, [3, 3], 0, &inner), DropReason::BadChecksum);
    assert!(refused(&mut engine, with_ttl(good, 1), DropReason::TtlExceeded).is_empty());
    let mut later = there;
    later[7] = 9;
    refused(&mut engine, error(S2, CLIENT, [3, 3], 0, &mended(later)), DropReason::Fragment);
}
