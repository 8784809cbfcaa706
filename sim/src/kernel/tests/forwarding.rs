//! Routers: routes, rules, times to live, sizes, and what senders are told.

use evenkeel_engine::wire::Protocol;

use super::*;

/// A router with three networks whose neighbours are all known.
fn router(change: impl FnOnce(&mut KernelPlan)) -> Kernel {
    let mut plan = plan(1, &[&["10.0.0.1/24"], &["10.1.0.1/24"], &["10.2.0.1/24"]]);
    plan.forwards_v4 = true;
    change(&mut plan);
    let mut kernel = Kernel::new(&plan, 1).unwrap();
    let mut out = Out::default();
    for interface in 0..3_u8 {
        for host in [7, 50, 254] {
            let sender = format!("10.{interface}.0.{host}");
            let target = format!("10.{interface}.0.1");
            let frame = arp_request(mac(host, interface), &sender, &target);
            kernel.receive(Instant::ZERO, usize::from(interface), frame, &mut out);
        }
    }
    kernel
}

/// What comes out for a packet that comes in by the first interface: frames, and why it ended if it did.
fn pass(kernel: &mut Kernel, packet: Packet) -> (Vec<(usize, Vec<u8>)>, Option<KernelDrop>) {
    let mut out = Out::default();
    out.keeps_ended = true;
    let frame = framed(mac(7, 0), mac(1, 0), packet);
    let up = kernel.receive(Instant::from_nanos(1_000), 0, frame, &mut out);
    assert!(up.is_none());
    assert_conserved(kernel);
    let frames = out.frames.iter().map(|(interface, frame)| (*interface, frame.bytes().to_vec()));
    (frames.collect(), out.ended.pop().map(|(reason, _)| reason))
}

/// What an ICMP error that came out says: type and code, and its source.
fn told(frames: &[(usize, Vec<u8>)]) -> ((u8, u8), IpAddr) {
    let [(0, frame)] = frames else { panic!("{frames:?}") };
    assert_sound(frame);
    let octets: [u8; 4] = frame[26..30].try_into().unwrap();
    ((frame[34], frame[35]), IpAddr::from(octets))
}

#[test]
fn a_packet_is_passed_on_with_one_hop_less_and_nothing_else_changed() {
    let mut kernel = router(|_| {});
    let packet = udp(("10.0.0.7", 1), ("10.1.0.50", 2), 100);
    let (frames, ended) = pass(&mut kernel, packet.clone());
    let [(1, frame)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!(ended, None);
    assert_eq!(frame[..14], frame::header_bytes(mac(50, 1), mac(1, 1), frame::IPV4));
    assert_sound(frame);
    let mut expected = packet;
    assert!(packet::take_hop(expected.bytes_mut()));
    assert_eq!(frame[14..], *expected.bytes());
}

#[test]
fn the_longest_prefix_then_the_lowest_metric_wins() {
    let mut kernel = router(|plan| {
        let via = |destination: &str, gateway: &str, metric| Route {
            metric,
            ..Route::new(prefix(destination), Hop::via(ip(gateway)))
        };
        plan.routes = vec![
            via("0.0.0.0/0", "10.1.0.254", 0),
            via("203.0.113.0/24", "10.2.0.254", 20),
            via("203.0.113.0/24", "10.1.0.50", 10),
            via("203.0.113.128/25", "10.2.0.50", 500),
        ];
    });
    let mut by = |to: &str| {
        let (frames, _) = pass(&mut kernel, udp(("10.0.0.7", 1), (to, 2), 8));
        (frames[0].0, frames[0].1[4])
    };
    assert_eq!(by("198.51.100.1"), (1, 254));
    assert_eq!(by("203.0.113.1"), (1, 50));
    assert_eq!(by("203.0.113.200"), (2, 50));
    let changed = kernel.remove_route(TABLE_MAIN, prefix("203.0.113.0/24"), Some(10));
    assert_eq!(changed, Ok(()));
    let mut by = |to: &str| pass(&mut kernel, udp(("10.0.0.7", 1), (to, 2), 8)).0[0].0;
    assert_eq!(by("203.0.113.1"), 2, "a change is seen at once, by known flows too");
    let error = kernel.remove_route(TABLE_MAIN, prefix("203.0.114.0/24"), None).unwrap_err();
    assert_eq!(error.to_string(), "a route to 203.0.114.0/24 in table 254 is not there");
}

#[test]
fn what_ends_is_told_as_linux_tells_it() {
    let kinds = [
        (RouteKind::Unreachable, Some((3, 1)), KernelDrop::Unreachable),
        (RouteKind::Prohibit, Some((3, 13)), KernelDrop::Prohibited),
        (RouteKind::Blackhole, None, KernelDrop::Blackhole),
        (RouteKind::Throw, Some((3, 0)), KernelDrop::NoRoute),
    ];
    for (kind, expected, reason) in kinds {
        let mut kernel = router(|plan| {
            plan.routes = vec![Route::of_kind(prefix("203.0.113.0/24"), kind.clone())];
        });
        let (frames, ended) = pass(&mut kernel, udp(("10.0.0.7", 1), ("203.0.113.1", 2), 8));
        assert_eq!(ended, Some(reason));
        match expected {
            Some(code) => assert_eq!(told(&frames), (code, ip("10.0.0.1")), "{kind:?}"),
            None => assert!(frames.is_empty()),
        }
    }
    let mut kernel = router(|_| {});
    let (frames, ended) = pass(&mut kernel, udp(("10.0.0.7", 1), ("203.0.113.1", 2), 8));
    assert_eq!((told(&frames).0, ended), ((3, 0), Some(KernelDrop::NoRoute)));
}

#[test]
fn rules_that_refuse_are_told_too() {
    let actions = [
        (RuleAction::Unreachable, Some((3, 1)), KernelDrop::Unreachable),
        (RuleAction::Prohibit, Some((3, 13)), KernelDrop::Prohibited),
        (RuleAction::Blackhole, None, KernelDrop::Blackhole),
    ];
    for (action, expected, reason) in actions {
        let mut kernel = router(|plan| {
            let selector = Selector { to: Some(prefix("10.1.0.0/24")), ..Selector::default() };
            plan.rules = vec![Rule { priority: 5, selector, action }];
        });
        let (frames, ended) = pass(&mut kernel, udp(("10.0.0.7", 1), ("10.1.0.50", 2), 8));
        assert_eq!(ended, Some(reason));
        assert_eq!(expected.is_some(), !frames.is_empty());
        if let Some(code) = expected {
            assert_eq!(told(&frames).0, code);
        }
        kernel.remove_rules(5).unwrap();
        assert!(kernel.remove_rules(5).is_err());
        let (_, ended) = pass(&mut kernel, udp(("10.0.0.7", 1), ("10.1.0.50", 2), 8));
        assert_eq!(ended, None);
    }
}

#[test]
fn a_host_that_does_not_forward_is_silent() {
    let mut kernel = router(|plan| plan.forwards_v4 = false);
    let (frames, ended) = pass(&mut kernel, udp(("10.0.0.7", 1), ("10.1.0.50", 2), 8));
    assert_eq!((frames.len(), ended), (0, Some(KernelDrop::NotForwarding)));
}

#[test]
fn a_time_to_live_that_runs_out_is_told() {
    for ttl in [0, 1, 2] {
        let mut kernel = router(|_| {});
        let mut packet = udp(("10.0.0.7", 1), ("10.1.0.50", 2), 700);
        packet.bytes_mut()[8] = ttl;
        packet.bytes_mut()[1] = 0xb8;
        packet::mend_header(packet.bytes_mut());
        let original = packet.bytes().to_vec();
        let (frames, ended) = pass(&mut kernel, packet);
        if ttl == 2 {
            assert_eq!((frames[0].0, ended), (1, None));
            continue;
        }
        assert_eq!((told(&frames), ended), (((11, 0), ip("10.0.0.1")), Some(KernelDrop::TtlExceeded)));
        let frame = &frames[0].1;
        assert_eq!(frame.len(), 14 + 576, "as much as fits into 576 bytes is quoted");
        assert_eq!(frame[42..], original[..548]);
        assert_eq!(
            (frame[15], frame[22]),
            (0xd8, 64),
            "the type of service of the packet, and that of network control"
        );
    }
}

#[test]
fn a_packet_that_is_too_large_is_cut_or_refused_with_the_mtu() {
    let small = |plan: &mut KernelPlan| plan.interfaces[1].mtu_bytes = 600;
    let mut kernel = router(small);
    let packet = udp(("10.0.0.7", 1), ("10.1.0.50", 2), 1_400);
    let (frames, ended) = pass(&mut kernel, packet);
    assert_eq!((told(&frames).0, ended), ((3, 4), Some(KernelDrop::TooBig)));
    assert_eq!(frames[0].1[40..42], 600_u16.to_be_bytes());

    let mut packet = udp(("10.0.0.7", 1), ("10.1.0.50", 2), 1_400);
    packet.bytes_mut()[6] = 0;
    packet.bytes_mut()[4..6].copy_from_slice(&[0x12, 0x34]);
    packet::mend_header(packet.bytes_mut());
    let original = packet.bytes().to_vec();
    let (frames, ended) = pass(&mut kernel, packet);
    assert_eq!(ended, None);
    let lengths: Vec<_> = frames.iter().map(|(_, frame)| frame.len() - 14).collect();
    assert_eq!(lengths, [596, 596, 276]);
    let mut body: Vec<u8> = Vec::new();
    for (index, (interface, frame)) in frames.iter().enumerate() {
        assert_sound(frame);
        let field = u16::from_be_bytes([frame[20], frame[21]]);
        assert_eq!(*interface, 1);
        assert_eq!(usize::from(field & 0x1fff) * 8, body.len());
        assert_eq!(field & 0x2000 != 0, index < 2);
        assert_eq!(frame[18..20], [0x12, 0x34]);
        body.extend(&frame[34..]);
    }
    assert_eq!(body, original[20..]);
}

#[test]
fn the_machine_takes_packets_to_any_of_its_addresses_by_any_interface() {
    let mut kernel = router(|_| {});
    let mut out = Out::default();
    let frame = framed(mac(7, 0), mac(1, 0), udp(("10.0.0.7", 1), ("10.2.0.1", 2), 8));
    let up = kernel.receive(Instant::ZERO, 0, frame, &mut out);
    assert!(matches!(up, Some(Up::Host(_))));
}

#[test]
fn a_packet_that_came_to_everybody_is_not_passed_on() {
    let mut kernel = router(|_| {});
    let mut out = Out::default();
    let frame = framed(mac(7, 0), MacAddress::BROADCAST, udp(("10.0.0.7", 1), ("10.1.0.50", 2), 8));
    assert!(kernel.receive(Instant::ZERO, 0, frame, &mut out).is_none());
    assert_eq!(kernel.counts().dropped(KernelDrop::OtherHost), 1);
    let to_network = framed(mac(7, 0), MacAddress::BROADCAST, udp(("10.0.0.7", 1), ("10.1.0.255", 2), 8));
    assert!(matches!(kernel.receive(Instant::ZERO, 0, to_network, &mut out), Some(Up::Host(_))));
    assert!(out.frames.is_empty());
}

#[test]
fn a_broken_header_ends_a_packet() {
    let mut kernel = router(|_| {});
    let whole = udp(("10.0.0.7", 1), ("10.1.0.50", 2), 8);
    let breaks: [(usize, u8, KernelDrop); 5] = [
        (0, 0x55, KernelDrop::Malformed),
        (0, 0x44, KernelDrop::Malformed),
        (2, 0xff, KernelDrop::Malformed),
        (3, 19, KernelDrop::Malformed),
        (9, 6, KernelDrop::Checksum),
    ];
    for (place, value, reason) in breaks {
        let mut packet = whole.clone();
        packet.bytes_mut()[place] = value;
        let mut out = Out::default();
        kernel.receive(Instant::ZERO, 0, framed_v4(mac(7, 0), mac(1, 0), packet), &mut out);
        assert!(kernel.counts().dropped(reason) > 0, "{place} {value}");
    }
    // Padding behind the packet is cut off.
    let mut padded = whole.bytes().to_vec();
    padded.extend([0; 18]);
    let (frames, _) = pass(&mut kernel, Packet::copied_into(Packet::default(), &padded));
    assert_eq!(frames[0].1.len(), 14 + whole.bytes().len());
}

/// The same as `framed`, whatever the first byte says.
fn framed_v4(from: MacAddress, to: MacAddress, mut packet: Packet) -> Packet {
    frame::put_header(&mut packet, &frame::header_bytes(to, from, frame::IPV4));
    packet
}

#[test]
fn rules_choose_by_each_of_their_conditions() {
    let selectors = [
        Selector { inlet: Some(Outlet::Interface(0)), ..Selector::default() },
        Selector { family: Some(Family::V4), ..Selector::default() },
        Selector { from: Some(prefix("10.0.0.0/28")), ..Selector::default() },
        Selector { to: Some(prefix("203.0.113.0/24")), ..Selector::default() },
        Selector { protocol: Some(Protocol::UDP), ..Selector::default() },
        Selector { source_ports: Some(1_000..=1_001), ..Selector::default() },
        Selector { destination_ports: Some(2_000..=2_000), ..Selector::default() },
    ];
    let misses = [
        Selector { inlet: Some(Outlet::Interface(1)), ..Selector::default() },
        Selector { inlet: Some(Outlet::Loopback), ..Selector::default() },
        Selector { family: Some(Family::V6), ..Selector::default() },
        Selector { from: Some(prefix("10.0.0.8/29")), ..Selector::default() },
        Selector { to: Some(prefix("203.0.114.0/24")), ..Selector::default() },
        Selector { protocol: Some(Protocol::TCP), ..Selector::default() },
        Selector { source_ports: Some(1_002..=2_000), ..Selector::default() },
        Selector { destination_ports: Some(1_000..=1_999), ..Selector::default() },
        Selector { mark: Some((1, 1)), ..Selector::default() },
    ];
    let all = selectors.iter().map(|s| (s, 2)).chain(misses.iter().map(|s| (s, 1)));
    for (selector, expected) in all {
        let mut kernel = router(|plan| {
            plan.routes = vec![
                default_route("10.1.0.254"),
                Route { table: 9, ..Route::new(prefix("0.0.0.0/0"), Hop::via(ip("10.2.0.254"))) },
            ];
            let rule = Rule { priority: 5, selector: selector.clone(), action: RuleAction::Lookup(9) };
            plan.rules = vec![rule];
        });
        for _ in 0..2 {
            let (frames, _) = pass(&mut kernel, udp(("10.0.0.7", 1_001), ("203.0.113.1", 2_000), 8));
            assert_eq!(frames[0].0, expected, "{selector:?}");
        }
    }
}

#[test]
fn rules_come_by_priority_and_an_empty_table_goes_on_to_the_next() {
    let mut kernel = router(|plan| {
        plan.routes = vec![
            default_route("10.1.0.254"),
            Route { table: 9, ..Route::new(prefix("0.0.0.0/0"), Hop::via(ip("10.2.0.254"))) },
            Route { table: 8, ..Route::of_kind(prefix("0.0.0.0/0"), RouteKind::Throw) },
        ];
        let rule = |priority, table| Rule {
            priority,
            selector: Selector::default(),
            action: RuleAction::Lookup(table),
        };
        plan.rules = vec![rule(30, 9), rule(20, 8), rule(10, 7)];
    });
    let out = |kernel: &mut Kernel| pass(kernel, udp(("10.0.0.7", 1), ("203.0.113.1", 2), 8)).0[0].0;
    assert_eq!(out(&mut kernel), 2, "table 7 is not there, 8 throws");
    kernel.remove_rules(30).unwrap();
    assert_eq!(out(&mut kernel), 1);
    let late = Rule { priority: 40_000, selector: Selector::default(), action: RuleAction::Lookup(9) };
    kernel.add_rule(&late).unwrap();
    assert_eq!(out(&mut kernel), 1, "behind the main table");
    kernel.remove_route(TABLE_MAIN, prefix("0.0.0.0/0"), None).unwrap();
    assert_eq!(out(&mut kernel), 2);
}

#[test]
fn marks_are_set_before_rules_and_by_sockets() {
    let mut kernel = router(|plan| {
        plan.routes = vec![
            default_route("10.1.0.254"),
            Route { table: 9, ..Route::new(prefix("0.0.0.0/0"), Hop::via(ip("10.2.0.254"))) },
        ];
        let selector = Selector { mark: Some((0x10, 0xf0)), ..Selector::default() };
        plan.rules = vec![Rule { priority: 5, selector, action: RuleAction::Lookup(9) }];
        let selector = Selector { destination_ports: Some(443..=443), ..Selector::default() };
        plan.marks = vec![Marking { selector, mark: 0x1f }];
    });
    let mut out_of = |port| pass(&mut kernel, udp(("10.0.0.7", 1), ("203.0.113.1", port), 8)).0[0].0;
    assert_eq!((out_of(443), out_of(80)), (2, 1));
    let mut out = Out::default();
    for (mark, expected) in [(0, 1), (0x13, 2), (0x23, 1)] {
        let packet = udp(("10.0.0.1", 1), ("203.0.113.1", 2), 8);
        kernel.send_marked(Instant::ZERO, packet, mark, &mut out).unwrap();
        assert_eq!(out.frames.pop().unwrap().0, expected);
    }
}

#[test]
fn errors_are_limited_per_host_and_in_all() {
    let mut kernel = router(|_| {});
    let told =
        |kernel: &mut Kernel, from: &str| !pass(kernel, udp((from, 1), ("203.0.113.1", 2), 8)).0.is_empty();
    let burst = (0..20).filter(|_| told(&mut kernel, "10.0.0.7")).count();
    assert_eq!(burst, 6, "six at once, then one a second");
    assert!(told(&mut kernel, "10.0.0.50"), "each host on its own");
    assert_eq!(kernel.counts().errors_limited, 14);
    // "Too big" has no limit.
    let mut kernel = router(|plan| plan.interfaces[1].mtu_bytes = 600);
    let all = (0..100).all(|_| !pass(&mut kernel, udp(("10.0.0.7", 1), ("10.1.0.50", 2), 900)).0.is_empty());
    assert!(all);
    // The limit for all: 50 at once.
    let mut kernel = router(|plan| {
        plan.interfaces[0].addresses = prefixes(&["10.0.0.1/16"]);
        plan.routes = vec![Route::of_kind(prefix("203.0.113.0/24"), RouteKind::Unreachable)];
    });
    let sent = |kernel: &Kernel| kernel.counts().errors_sent;
    for host in 0..200_u8 {
        let from = format!("10.0.1.{host}");
        pass(&mut kernel, udp((&from, 1), ("203.0.113.1", 2), 8));
    }
    assert_eq!(sent(&kernel), 50);
    let mut unlimited = router(|plan| plan.icmp.interval = Duration::ZERO);
    assert!((0..100).all(|_| told(&mut unlimited, "10.0.0.7")));
}

#[test]
fn no_error_is_sent_about_errors_fragments_and_packets_to_many() {
    let mut kernel = router(|_| {});
    let error = packet::icmp_about(
        Packet::default(),
        (3, 1),
        "10.0.0.7".parse().unwrap(),
        udp(("203.0.113.1", 1), ("10.0.0.7", 2), 8).bytes(),
    );
    assert_eq!(pass(&mut kernel, error.unwrap()), (Vec::new(), Some(KernelDrop::NoRoute)));
    let mut fragment = udp(("10.0.0.7", 1), ("203.0.113.1", 2), 8);
    fragment.bytes_mut()[6..8].copy_from_slice(&[0, 9]);
    packet::mend_header(fragment.bytes_mut());
    assert_eq!(pass(&mut kernel, fragment), (Vec::new(), Some(KernelDrop::NoRoute)));
    let echo = echo_request("10.0.0.7", "203.0.113.1", 7, b"");
    assert_eq!(told(&pass(&mut kernel, echo).0).0, (3, 0), "an echo is no error");
}

#[test]
fn an_echo_request_is_answered_from_the_address_that_it_was_sent_to() {
    let mut kernel = router(|plan| plan.loopback = prefixes(&["10.9.9.9/32"]));
    for target in ["10.0.0.1", "10.2.0.1", "10.9.9.9"] {
        let (frames, _) = pass(&mut kernel, echo_request("10.0.0.7", target, 77, b"are you there?"));
        let [(0, frame)] = &frames[..] else { panic!("{frames:?}") };
        assert_sound(frame);
        let sliced = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
        let Some(etherparse::TransportSlice::Icmpv4(icmp)) = sliced.transport else { panic!() };
        let etherparse::Icmpv4Type::EchoReply(header) = icmp.icmp_type() else { panic!() };
        assert_eq!((header.id, icmp.payload()), (77, &b"are you there?"[..]));
        let octets: [u8; 4] = frame[26..30].try_into().unwrap();
        assert_eq!(IpAddr::from(octets), ip(target));
    }
    assert_eq!(kernel.counts().echoes, 3);
    let mut broken = echo_request("10.0.0.7", "10.0.0.1", 77, b"are you there?");
    broken.bytes_mut()[30] ^= 1;
    assert_eq!(pass(&mut kernel, broken), (Vec::new(), Some(KernelDrop::MessageChecksum)));
    let (frames, ended) = pass(&mut kernel, echo_request("10.0.0.7", "10.0.0.255", 77, b""));
    assert_eq!((frames.len(), ended), (0, None), "not those to everybody");
}

#[test]
fn a_packet_of_the_machine_to_itself_comes_back_at_once() {
    let mut kernel = router(|_| {});
    let mut out = Out::default();
    for target in ["10.1.0.1", "127.0.0.1"] {
        kernel.send(Instant::ZERO, udp((target, 1), (target, 2), 8), &mut out).unwrap();
        assert!(matches!(out.up.pop(), Some(Up::Host(_))));
    }
    kernel.send(Instant::ZERO, echo_request("10.1.0.1", "10.0.0.1", 5, b"x"), &mut out).unwrap();
    assert!(matches!(out.up.pop(), Some(Up::Host(packet)) if packet.bytes()[20] == 0), "the answer");
    assert!(out.frames.is_empty());
    assert_conserved(&kernel);
}

#[test]
fn a_program_learns_at_once_that_no_way_leads_there() {
    let mut kernel = router(|plan| {
        plan.routes = vec![Route::of_kind(prefix("203.0.113.0/24"), RouteKind::Prohibit)];
        plan.interfaces[1].mtu_bytes = 600;
    });
    let mut out = Out::default();
    let mut send = |packet| kernel.send(Instant::ZERO, packet, &mut out);
    assert_eq!(send(udp(("10.0.0.1", 1), ("198.51.100.1", 2), 8)), Err(KernelDrop::NoRoute));
    assert_eq!(send(udp(("10.0.0.1", 1), ("203.0.113.1", 2), 8)), Err(KernelDrop::Prohibited));
    assert_eq!(send(udp(("10.0.0.1", 1), ("0.0.0.0", 2), 8)), Err(KernelDrop::MartianDestination));
    assert_eq!(send(udp(("10.1.0.1", 1), ("10.1.0.50", 2), 900)), Err(KernelDrop::TooBig));
    assert_eq!(send(Packet::copied_into(Packet::default(), &[9])), Err(KernelDrop::Malformed));
    let Some(Up::Host(error)) = out.up.pop() else { panic!("told of the MTU as well") };
    assert_eq!((error.bytes()[20], error.bytes()[21]), (3, 4));
    assert_eq!(kernel.mtu_to(ip("10.1.0.50")), Some(600));
    assert_eq!(kernel.mtu_to(ip("198.51.100.1")), None);
    assert_conserved(&kernel);
}

#[test]
fn a_broadcast_leaves_for_all_stations() {
    let mut kernel = router(|_| {});
    let mut out = Out::default();
    for target in ["10.1.0.255", "255.255.255.255"] {
        kernel.send(Instant::ZERO, udp(("10.1.0.1", 1), (target, 2), 8), &mut out).unwrap();
        let (interface, frame) = out.frames.pop().unwrap();
        assert_eq!((interface, &frame.bytes()[..6]), (1, &[0xff; 6][..]), "{target}");
    }
    kernel.send(Instant::ZERO, udp(("10.1.0.1", 1), ("224.0.0.18", 2), 8), &mut out).unwrap();
    let (interface, frame) = out.frames.pop().unwrap();
    assert_eq!((interface, &frame.bytes()[..6]), (1, &[1, 0, 0x5e, 0, 0, 18][..]));
}

#[test]
fn the_source_of_a_packet_is_the_best_of_its_way() {
    let kernel = router(|plan| {
        plan.interfaces[0].addresses = prefixes(&["10.0.0.1/24", "10.0.0.2/24", "10.5.0.1/24"]);
        plan.loopback = prefixes(&["10.9.9.9/32"]);
        plan.tuns = vec![Tun::new("tun0")];
        plan.routes = vec![
            default_route("10.5.0.254"),
            Route {
                source: Some(ip("10.2.0.1")),
                ..Route::new(prefix("198.51.100.0/24"), Hop::via(ip("10.1.0.254")))
            },
            Route::new(prefix("10.77.0.0/16"), Hop::on(Outlet::Tun(0))),
        ];
    });
    let cases = [
        ("10.0.0.50", Some("10.0.0.1")),
        ("10.5.0.50", Some("10.5.0.1")),
        ("203.0.113.1", Some("10.5.0.1")),
        ("198.51.100.1", Some("10.2.0.1")),
        ("10.9.9.9", Some("10.9.9.9")),
        ("127.0.0.1", Some("127.0.0.1")),
        ("10.77.0.1", Some("10.9.9.9")),
        ("2001:db8::1", None),
    ];
    for (destination, source) in cases {
        assert_eq!(kernel.source_for(ip(destination)), source.map(ip), "{destination}");
    }
}

#[test]
fn errors_come_from_the_address_that_the_packet_was_sent_to() {
    let mut kernel = router(|plan| plan.loopback = prefixes(&["10.9.9.9/32"]));
    let mut out = Out::default();
    let packet = udp(("10.0.0.7", 1), ("10.9.9.9", 2), 8);
    kernel.reject(Instant::ZERO, Refusal::PortUnreachable, packet, &mut out);
    let frames: Vec<_> =
        out.frames.iter().map(|(interface, frame)| (*interface, frame.bytes().to_vec())).collect();
    assert_eq!(told(&frames), ((3, 3), ip("10.9.9.9")));
}
