//! IPv6: neighbour discovery, forwarding and what senders are told.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A datagram between two IPv6 addresses.
fn udp6(from: &str, to: &str, length: usize) -> Packet {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (ip(from), ip(to)) else { panic!() };
    let mut bytes = Vec::new();
    let builder = etherparse::PacketBuilder::ipv6(from.octets(), to.octets(), 64).udp(1, 2);
    builder.write(&mut bytes, &vec![7; length]).unwrap();
    Packet::copied_into(Packet::default(), &bytes)
}

/// Type and code of an ICMPv6 message.
fn kind(got: &Got) -> (u8, u8) {
    (got.bytes[40], got.bytes[41])
}

/// A client, a router and a server.
fn three() -> Lab {
    let client =
        KernelPlan { routes: vec![default_route("2001:db8:1::1")], ..plan(1, &[&["2001:db8:1::7/64"]]) };
    let router = KernelPlan { forwards_v6: true, ..plan(2, &[&["2001:db8:1::1/64"], &["2001:db8:2::1/64"]]) };
    let server =
        KernelPlan { routes: vec![default_route("2001:db8:2::1")], ..plan(3, &[&["2001:db8:2::7/64"]]) };
    Lab::new(&[(client, &[0]), (router, &[0, 1]), (server, &[1])])
}

#[test]
fn neighbours_are_found_and_packets_are_passed_on() {
    let mut lab = three();
    lab.send(0, udp6("2001:db8:1::7", "2001:db8:2::7", 100)).unwrap();
    lab.run(Duration::from_millis(1));
    let got = lab.take(2);
    let mut expected = udp6("2001:db8:1::7", "2001:db8:2::7", 100);
    expected.bytes_mut()[7] = 63;
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].bytes, expected.bytes());
    assert_eq!(known(&lab, 0, 0, "2001:db8:1::1"), Some(mac(2, 0)));
    assert_eq!(known(&lab, 1, 0, "2001:db8:1::7"), Some(mac(1, 0)), "whoever asks is known");
    let first = &lab.seen[0].bytes;
    assert_eq!(first[..6], [0x33, 0x33, 0xff, 0, 0, 1], "the group of the router's address is asked");
    assert_eq!((first[21], first[54]), (255, 135));
    // The router does not have the server's network's address as a source: it asks with its own.
    lab.send(2, udp6("2001:db8:2::7", "2001:db8:1::7", 100)).unwrap();
    lab.run(SECOND);
    assert_eq!(lab.take(0).len(), 1);
    lab.assert_conserved();
}

#[test]
fn a_router_asks_from_its_link_local_address_for_packets_of_others() {
    let mut lab = three();
    lab.send(0, udp6("2001:db8:1::7", "2001:db8:2::7", 8)).unwrap();
    lab.run(SECOND);
    let asked = lab.seen.iter().find(|seen| seen.network == 1 && seen.bytes[54] == 135).unwrap();
    let source: [u8; 16] = asked.bytes[22..38].try_into().unwrap();
    assert_eq!(std::net::Ipv6Addr::from(source).to_string(), "fe80::ff:fe00:201");
}

#[test]
fn nobody_answers_and_the_sender_is_told() {
    let mut lab = three();
    lab.send(0, udp6("2001:db8:1::7", "2001:db8:2::99", 8)).unwrap();
    lab.run(SECOND * 10);
    let told = lab.take(0);
    assert_eq!(told.iter().map(kind).collect::<Vec<_>>(), [(1, 3)]);
    assert_eq!(told[0].at.as_nanos() / 1_000_000, 3_000);
    let solicitations = lab.seen.iter().filter(|seen| seen.network == 1 && seen.bytes[54] == 135).count();
    assert_eq!(solicitations, 3);
    lab.assert_conserved();
}

#[test]
fn a_neighbour_is_probed_and_confirmed() {
    let mut lab = three();
    for _ in 0..100 {
        lab.send(0, udp6("2001:db8:1::7", "2001:db8:1::1", 8)).unwrap();
        lab.run(SECOND);
    }
    assert_eq!(lab.take(1).len(), 100);
    let to_one = lab
        .seen
        .iter()
        .filter(|seen| seen.from == 0 && seen.bytes[54] == 135 && seen.bytes[..6] == mac(2, 0).0);
    assert!((1..=5).contains(&to_one.count()));
}

#[test]
fn an_address_of_the_loopback_interface_is_answered_for_by_nobody() {
    // Unlike ARP: a VIP on the loopback interface needs no setting.
    let client = plan(1, &[&["2001:db8:1::7/64"]]);
    let server =
        KernelPlan { loopback: prefixes(&["2001:db8:1::9/128"]), ..plan(2, &[&["2001:db8:1::2/64"]]) };
    let mut lab = Lab::new(&[(client, &[0]), (server, &[0])]);
    lab.send(0, udp6("2001:db8:1::7", "2001:db8:1::9", 8)).unwrap();
    lab.run(SECOND * 5);
    assert_eq!(lab.take(1).len(), 0);
    assert_eq!(kind(&lab.take(0)[0]), (1, 3));
    // Sent to its station it is taken.
    let frame = framed(mac(1, 0), mac(2, 0), udp6("2001:db8:1::7", "2001:db8:1::9", 8));
    lab.with(0, |_, _, out| out.frames.push((0, frame)));
    lab.run(SECOND);
    assert_eq!(lab.take(1).len(), 1);
}

#[test]
fn a_proxy_entry_is_answered_for_by_a_router() {
    for forwards_v6 in [false, true] {
        let client = plan(1, &[&["2001:db8:1::7/64"]]);
        let mut balancer = plan(2, &[&["2001:db8:1::2/64"]]);
        balancer.forwards_v6 = forwards_v6;
        balancer.tuns = vec![Tun::new("tun0")];
        balancer.proxies = vec![(0, ip("2001:db8:1::9"))];
        balancer.routes = vec![Route::new(prefix("2001:db8:1::9/128"), Hop::on(Outlet::Tun(0)))];
        let mut lab = Lab::new(&[(client, &[0]), (balancer, &[0])]);
        lab.send(0, udp6("2001:db8:1::7", "2001:db8:1::9", 8)).unwrap();
        lab.run(SECOND);
        let got = lab.take(1);
        assert_eq!(got.len(), usize::from(forwards_v6));
        assert!(got.iter().all(|got| got.tun == Some(0) && got.bytes[7] == 63));
    }
}

#[test]
fn an_address_that_moves_is_told_of_to_all() {
    let mut lab = three();
    lab.send(0, udp6("2001:db8:1::7", "2001:db8:1::1", 8)).unwrap();
    lab.run(SECOND);
    assert_eq!(known(&lab, 0, 0, "2001:db8:1::1"), Some(mac(2, 0)));
    let mut other = Kernel::new(&plan(9, &[&["2001:db8:1::1/64"]]), 1).unwrap();
    let mut out = Out::default();
    other.announce(Instant::ZERO, 0, ip("2001:db8:1::1"), &mut out).unwrap();
    let (_, frame) = out.frames.pop().unwrap();
    assert_sound(frame.bytes());
    lab.with(0, |kernel, now, out| kernel.receive(now, 0, frame, out));
    assert_eq!(known(&lab, 0, 0, "2001:db8:1::1"), Some(mac(9, 0)));
}

#[test]
fn what_a_router_cannot_pass_on_is_told() {
    let mut lab = three();
    let mut dying = udp6("2001:db8:1::7", "2001:db8:2::7", 8);
    dying.bytes_mut()[7] = 1;
    lab.send(0, dying).unwrap();
    lab.run(SECOND);
    assert_eq!(kind(&lab.take(0)[0]), (3, 0));
    lab.send(0, udp6("2001:db8:1::7", "2001:db8:77::7", 8)).unwrap();
    lab.run(SECOND);
    assert_eq!(kind(&lab.take(0)[0]), (1, 0));
    let mut kernel = Kernel::new(
        &KernelPlan { forwards_v6: true, ..plan(2, &[&["2001:db8:1::1/64"], &["2001:db8:2::1/64"]]) },
        1,
    )
    .unwrap();
    for (from, to, reason) in [
        ("fe80::1", "2001:db8:2::7", KernelDrop::MartianSource),
        ("ff02::1", "2001:db8:2::7", KernelDrop::MartianSource),
        ("::1", "2001:db8:2::7", KernelDrop::MartianSource),
        ("2001:db8:1::7", "::1", KernelDrop::MartianDestination),
        ("2001:db8:1::7", "::", KernelDrop::MartianDestination),
        ("2001:db8:1::7", "ff02::5", KernelDrop::OtherHost),
        ("::ffff:10.0.0.1", "2001:db8:1::1", KernelDrop::MartianSource),
    ] {
        let before = kernel.counts().dropped(reason);
        let frame = framed(mac(1, 0), mac(2, 0), udp6(from, to, 8));
        assert!(kernel.receive(Instant::ZERO, 0, frame, &mut Out::default()).is_none());
        assert_eq!(kernel.counts().dropped(reason), before + 1, "{from} {to}");
    }
}

#[test]
fn a_packet_too_large_for_the_next_link_is_refused_with_its_mtu() {
    let mut router = plan(2, &[&["2001:db8:1::1/64"], &["2001:db8:2::1/64"]]);
    router.forwards_v6 = true;
    router.interfaces[1].mtu_bytes = 1_280;
    let mut kernel = Kernel::new(&router, 1).unwrap();
    let mut out = Out::default();
    let frame = framed(mac(1, 0), mac(2, 0), udp6("2001:db8:1::7", "2001:db8:2::7", 1_400));
    kernel.receive(Instant::ZERO, 0, frame, &mut out);
    let reply = lab_answer(&mut kernel, &mut out);
    assert_eq!((reply[54], reply[55]), (2, 0));
    assert_eq!(reply[58..62], 1_280_u32.to_be_bytes());
    assert_eq!(reply.len(), 14 + 1_280, "as much as fits is quoted");
}

/// The last frame, after the client has told its link address.
fn lab_answer(kernel: &mut Kernel, out: &mut Out) -> Vec<u8> {
    let mut client = Kernel::new(&plan(1, &[&["2001:db8:1::7/64"]]), 1).unwrap();
    let mut side = Out::default();
    for (_, frame) in std::mem::take(&mut out.frames) {
        client.receive(Instant::ZERO, 0, frame, &mut side);
    }
    for (_, frame) in side.frames {
        kernel.receive(Instant::ZERO, 0, frame, out);
    }
    let (_, frame) = out.frames.pop().unwrap();
    assert_sound(frame.bytes());
    assert_conserved(kernel);
    frame.bytes().to_vec()
}

#[test]
fn a_machine_cuts_what_it_sends_and_joins_what_it_gets() {
    let mut lab = three();
    let packet = udp6("2001:db8:1::7", "2001:db8:2::7", 4_000);
    lab.send(0, packet.clone()).unwrap();
    lab.run(SECOND);
    let got = lab.take(2);
    assert_eq!(got.len(), 1);
    let mut expected = packet;
    expected.bytes_mut()[7] = 63;
    assert_eq!(got[0].bytes, expected.bytes());
    let pieces = lab.seen.iter().filter(|seen| seen.network == 1 && seen.bytes[20] == 44).count();
    assert_eq!(pieces, 3);
    lab.assert_conserved();
}

#[test]
fn an_echo_request_is_answered() {
    let mut lab = three();
    lab.send(0, echo_request("2001:db8:1::7", "2001:db8:2::7", 9, b"hello")).unwrap();
    lab.run(SECOND);
    let got = lab.take(0);
    assert_eq!((got.len(), kind(&got[0]), &got[0].bytes[48..]), (1, (129, 0), &b"hello"[..]));
    lab.assert_conserved();
}

#[test]
fn solicitations_that_came_through_a_router_are_not_believed() {
    let mut kernel = Kernel::new(&plan(2, &[&["2001:db8:1::1/64"]]), 1).unwrap();
    let mut out = Out::default();
    let mut asker = Kernel::new(&plan(1, &[&["2001:db8:1::7/64"]]), 1).unwrap();
    asker.send(Instant::ZERO, udp6("2001:db8:1::7", "2001:db8:1::1", 8), &mut out).unwrap();
    let (_, question) = out.frames.pop().unwrap();
    for (place, value) in [(21, 254), (55, 1), (79, 0), (78, 9)] {
        let mut changed = question.clone();
        changed.bytes_mut()[place] = value;
        kernel.receive(Instant::ZERO, 0, changed, &mut out);
        assert!(out.frames.is_empty(), "{place}");
    }
    kernel.receive(Instant::ZERO, 0, question, &mut out);
    assert_eq!(out.frames.len(), 1);
    assert_conserved(&kernel);
}

#[test]
fn the_source_is_the_address_with_the_longest_common_prefix() {
    let mut plan = plan(1, &[&["2001:db8:1::7/64", "2001:db8:2::7/64"]]);
    plan.routes = vec![default_route("2001:db8:1::1")];
    let kernel = Kernel::new(&plan, 1).unwrap();
    for (destination, source) in [
        ("2001:db8:1::9", "2001:db8:1::7"),
        ("2001:db8:2::9", "2001:db8:2::7"),
        ("2001:db8:2:1::9", "2001:db8:2::7"),
        ("::1", "::1"),
    ] {
        assert_eq!(kernel.source_for(ip(destination)), Some(ip(source)), "{destination}");
    }
    assert_eq!(kernel.source_for(ip("192.0.2.1")), None);
}
