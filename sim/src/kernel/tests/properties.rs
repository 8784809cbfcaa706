//! What holds whatever comes in: nothing panics, every packet ends once, what comes out is sound, and what was found for
//! one packet is found for the next.

use evenkeel_engine::wire::Protocol;
use proptest::prelude::*;

use super::*;
use crate::random::Stream;

/// A machine with about everything: interfaces, TUN, tunnels, rules, several next hops, NAT.
fn machine(has_nat: bool, seed: u64) -> Kernel {
    Kernel::new(&described(has_nat, seed), seed).unwrap()
}

/// One whose rules look at the ports of a few machines alone, each at its own or at the other side's.
fn choosy(seed: u64) -> Kernel {
    let mut plan = described(false, seed);
    plan.routes.remove(0);
    let rule = |from, selector| Rule {
        priority: 3,
        selector: Selector { from: Some(prefix(from)), ..selector },
        action: RuleAction::Lookup(77),
    };
    let own = Selector { source_ports: Some(2..=9), ..Selector::default() };
    let other = Selector { destination_ports: Some(0..=4), ..Selector::default() };
    let protocol = Selector { protocol: Some(Protocol::TCP), ..Selector::default() };
    plan.rules =
        vec![rule("10.1.0.2/32", own.clone()), rule("2001:db8:1::7/128", own), rule("10.0.0.7/32", protocol)];
    if seed.is_multiple_of(2) {
        plan.rules.push(rule("198.51.100.0/24", other));
    }
    for everywhere in ["0.0.0.0/0", "::/0"] {
        plan.routes.push(Route { table: 77, ..Route::new(prefix(everywhere), Hop::on(Outlet::Tun(0))) });
    }
    Kernel::new(&plan, seed).unwrap()
}

fn described(has_nat: bool, seed: u64) -> KernelPlan {
    let mut plan = plan(1, &[&["10.0.0.1/24", "2001:db8:0::1/64"], &["10.1.0.1/24", "2001:db8:1::1/64"]]);
    plan.interfaces[1].mtu_bytes = 1_300;
    (plan.forwards_v4, plan.forwards_v6) = (true, true);
    plan.loopback = prefixes(&["10.9.9.9/32", "2001:db8:9::9/128"]);
    plan.tuns = vec![Tun::new("tun0")];
    plan.all = Sysctl { rp_filter: u8::try_from(seed % 3).unwrap(), ..Sysctl::default() };
    let spread = Spread { key: SpreadKey::FiveTuple, choice: SpreadChoice::Rendezvous };
    let several = ["10.1.0.2", "10.1.0.3", "10.0.0.7"].map(|address| Hop::via(ip(address)));
    plan.routes = vec![
        Route::of_kind(prefix("203.0.113.0/24"), RouteKind::Unicast { hops: several.to_vec(), spread }),
        Route::new(prefix("198.51.100.0/24"), Hop::on(Outlet::Tun(0))),
        Route::new(prefix("2001:db8:77::/48"), Hop::on(Outlet::Tun(0))),
        Route::of_kind(prefix("192.0.2.0/24"), RouteKind::Prohibit),
    ];
    plan.rules = vec![Rule {
        priority: 3,
        selector: Selector { source_ports: Some(2..=9), ..Selector::default() },
        action: RuleAction::Lookup(77),
    }];
    let tunnel = |kind| Tunnel {
        name: String::new(),
        kind,
        local: Some(ip("10.9.9.9")),
        remote: None,
        sysctl: Sysctl::default(),
    };
    plan.tunnels = [TunnelKind::Ip, TunnelKind::Gre, TunnelKind::Gue { port: 7 }].map(tunnel).to_vec();
    plan.masquerade =
        has_nat.then(|| Masquerade { mappings_max: 20, ..Masquerade::on(1) }).into_iter().collect();
    plan.neighbours_max = 30;
    plan
}

const V4: [&str; 14] = [
    "10.0.0.1",
    "10.0.0.7",
    "10.0.0.50",
    "10.1.0.1",
    "10.1.0.2",
    "10.9.9.9",
    "203.0.113.5",
    "198.51.100.5",
    "192.0.2.5",
    "255.255.255.255",
    "10.0.0.255",
    "127.0.0.1",
    "0.0.0.0",
    "224.0.0.1",
];
const V6: [&str; 9] = [
    "2001:db8:0::1",
    "2001:db8:0::7",
    "2001:db8:1::1",
    "2001:db8:1::7",
    "2001:db8:9::9",
    "2001:db8:77::1",
    "fe80::5",
    "ff02::1:ff00:1",
    "::",
];

/// Something that is drawn, by a stream so that it can be large and shrinks to a smaller seed.
fn pick<'a>(draw: &mut Stream, from: &[&'a str]) -> &'a str {
    from[usize::try_from(draw.below(u64::try_from(from.len()).unwrap())).unwrap()]
}

fn draw_bytes(draw: &mut Stream, most: u64) -> Vec<u8> {
    (0..draw.below(most)).map(|_| u8::try_from(draw.below(256)).unwrap()).collect()
}

/// A packet that makes some sense.
fn draw_packet(draw: &mut Stream, depth: u8) -> Packet {
    let port = |draw: &mut Stream| u16::try_from(draw.below(12)).unwrap();
    let payload = if draw.below(4) == 0 { vec![5; 1_400] } else { draw_bytes(draw, 40) };
    let mut bytes = Vec::new();
    let is_v4 = draw.below(3) > 0;
    let (from, to) =
        if is_v4 { (pick(draw, &V4), pick(draw, &V4)) } else { (pick(draw, &V6), pick(draw, &V6)) };
    let inner = if depth < 3 { draw_packet(draw, depth + 1).bytes().to_vec() } else { Vec::new() };
    match (ip(from), ip(to)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let ttl = u8::try_from(draw.below(4)).unwrap();
            let builder = etherparse::PacketBuilder::ipv4(from.octets(), to.octets(), ttl);
            let ports = (port(draw), port(draw));
            match draw.below(7) {
                0 => builder.tcp(ports.0, ports.1, 1, 1).write(&mut bytes, &payload),
                1 => builder.icmpv4_echo_request(ports.0, 1).write(&mut bytes, &payload),
                2 => {
                    let quoted = inner.get(..inner.len().min(100)).unwrap_or(&[]);
                    builder
                        .icmpv4_raw(*b"\x03\x0b\x04\x08".get(usize::from(ports.0)).unwrap_or(&12), 1, [0; 4])
                        .write(&mut bytes, quoted)
                }
                3 => builder.udp(7, 7).write(&mut bytes, &[&[0, 4, 0, 0][..], &inner].concat()),
                _ => builder.udp(ports.0, ports.1).write(&mut bytes, &payload),
            }
            .unwrap();
            match draw.below(8) {
                0 => bytes[6] = 0x20,
                1 => (bytes[6], bytes[7]) = (0, 60),
                2 => bytes[9] = [4, 47][usize::from(ports.0) % 2],
                3 => bytes[6] = 0x40,
                _ => {}
            }
            packet::mend_header(&mut bytes);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let hops = [0, 1, 2, 255][usize::try_from(draw.below(4)).unwrap()];
            let builder = etherparse::PacketBuilder::ipv6(from.octets(), to.octets(), hops);
            match draw.below(4) {
                0 => builder
                    .icmpv6_raw([135, 136, 1, 128][usize::try_from(draw.below(4)).unwrap()], 0, [0; 4])
                    .write(&mut bytes, &[&to.octets()[..], &[1, 1, 2, 2, 2, 2, 2, 2]].concat()),
                1 => builder.icmpv6_echo_request(1, 1).write(&mut bytes, &payload),
                _ => builder.udp(port(draw), port(draw)).write(&mut bytes, &payload),
            }
            .unwrap();
        }
        _ => unreachable!("both of one family"),
    }
    Packet::copied_into(Packet::default(), &bytes)
}

/// A frame: sense, nonsense, or sense with a few changed bytes.
fn draw_frame(draw: &mut Stream, interface: u8) -> Packet {
    if draw.below(8) == 0 {
        let sender = pick(draw, &V4[..9]);
        let target = pick(draw, &V4);
        return if draw.below(2) == 0 {
            arp_request(mac(9, interface), sender, target)
        } else {
            arp_reply((mac(8, interface), sender), (mac(1, interface), target))
        };
    }
    let to = if draw.below(10) == 0 { MacAddress::BROADCAST } else { mac(1, interface) };
    let mut frame = framed(mac(9, interface), to, draw_packet(draw, 0));
    if draw.below(4) == 0 {
        for _ in 0..draw.below(4) {
            let place = usize::try_from(draw.below(60)).unwrap();
            if let Some(byte) = frame.bytes_mut().get_mut(place) {
                *byte = u8::try_from(draw.below(256)).unwrap();
            }
        }
        frame.cut_to(frame.len() - usize::try_from(draw.below(3)).unwrap());
    }
    frame
}

/// What a machine did: frames and packets that came out, in order.
type Deeds = Vec<(usize, Vec<u8>)>;

/// Lets many things happen to a machine.
fn live(kernel: &mut Kernel, seed: u64, steps: u64) -> Deeds {
    let mut draw = Stream::new(seed, "machine", "life");
    let (mut out, mut deeds, mut now) = (Out::default(), Vec::new(), 0);
    for _ in 0..steps {
        now += draw.below(400_000_000);
        let at = Instant::from_nanos(now);
        kernel.timeout(at, &mut out);
        assert!(kernel.deadline() > at);
        let up = match draw.below(10) {
            0 => {
                let packet = draw_packet(&mut draw, 0);
                let _ = kernel.send_marked(at, packet, 0, &mut out);
                None
            }
            1 => {
                let packet = draw_packet(&mut draw, 0);
                kernel.receive_from_tun(at, usize::try_from(draw.below(2)).unwrap(), packet, &mut out)
            }
            2 => {
                change(kernel, &mut draw, at, &mut out);
                None
            }
            _ => {
                let interface = u8::try_from(draw.below(2)).unwrap();
                let frame = draw_frame(&mut draw, interface);
                kernel.receive(at, usize::from(interface), frame, &mut out)
            }
        };
        out.keep(up);
        for (interface, frame) in out.frames.drain(..) {
            deeds.push((interface, frame.bytes().to_vec()));
        }
        for up in out.up.drain(..) {
            let (place, packet) = match up {
                Up::Host(packet) => (100, packet),
                Up::Tun(tun, packet) => (200 + tun, packet),
                Up::Wire(..) => unreachable!("it is among the frames"),
            };
            deeds.push((place, packet.bytes().to_vec()));
        }
        assert_conserved(kernel);
    }
    deeds
}

/// Somebody changes the configuration.
fn change(kernel: &mut Kernel, draw: &mut Stream, now: Instant, out: &mut Out) {
    let interface = Outlet::Interface(usize::try_from(draw.below(2)).unwrap());
    match draw.below(7) {
        0 => kernel.set_up(now, interface, draw.below(3) > 0, out).unwrap(),
        1 => kernel.add_address(now, interface, prefix("10.1.0.77/24"), out).unwrap(),
        2 => drop(kernel.remove_address(interface, ip("10.1.0.77"))),
        3 => drop(kernel.remove_route(TABLE_MAIN, prefix("203.0.113.0/24"), None)),
        4 => drop(kernel.set_route(&Route::new(prefix("203.0.113.0/24"), Hop::via(ip("10.0.0.7"))))),
        5 => kernel.set_sysctl(Some(interface), Sysctl { arp_ignore: 1, ..Sysctl::default() }).unwrap(),
        _ => kernel.set_forwarding(draw.below(4) > 0, draw.below(4) > 0),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_packet_ends_once(seed in any::<u64>(), has_nat in any::<bool>()) {
        live(&mut machine(has_nat, seed), seed, 400);
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 0..40)) {
        let mut kernel = machine(true, 1);
        let mut out = Out::default();
        for bytes in frames {
            for start in [&mac(1, 0).0[..], &[]] {
                for kind in [[8, 0], [8, 6], [0x86, 0xdd]] {
                    let frame = [start, &[2; 6], &kind, &bytes].concat();
                    kernel.receive(Instant::ZERO, 0, Packet::copied_into(Packet::default(), &frame), &mut out);
                }
            }
            let _ = kernel.send(Instant::ZERO, Packet::copied_into(Packet::default(), &bytes), &mut out);
            kernel.receive_from_tun(Instant::ZERO, 0, Packet::copied_into(Packet::default(), &bytes), &mut out);
            assert_conserved(&kernel);
        }
    }

    #[test]
    fn what_was_found_for_one_packet_is_found_for_the_next(seed in any::<u64>(), has_nat in any::<bool>()) {
        let with = live(&mut machine(has_nat, seed), seed, 400);
        let mut forgetful = machine(has_nat, seed);
        forgetful.cache.switch_off();
        prop_assert_eq!(with, live(&mut forgetful, seed, 400));
    }

    #[test]
    fn ports_that_no_rule_reads_change_no_way(seed in any::<u64>()) {
        let with = live(&mut choosy(seed), seed, 400);
        let mut forgetful = choosy(seed);
        forgetful.cache.switch_off();
        prop_assert_eq!(with, live(&mut forgetful, seed, 400));
    }
}

#[test]
fn what_a_machine_makes_itself_is_sound() {
    // Frames that it only passes on may be as broken as they came: these are made of sound ones.
    for seed in 0..40 {
        let mut kernel = machine(seed % 2 == 0, seed);
        let mut draw = Stream::new(seed, "machine", "sound");
        let mut out = Out::default();
        for step in 0..400_u64 {
            let interface = u8::try_from(draw.below(2)).unwrap();
            let frame = framed(mac(9, interface), mac(1, interface), draw_packet(&mut draw, 3));
            let is_whole =
                frame.bytes().get(12..14) == Some(&[0x86, 0xdd]) || frame.bytes().get(23) != Some(&4);
            if frame.bytes().get(12..14) == Some(&[8, 0])
                && frame.bytes().get(23).is_some_and(|p| [4, 47].contains(p))
            {
                continue;
            }
            assert!(is_whole);
            let at = Instant::from_nanos(step * 100_000_000);
            kernel.timeout(at, &mut out);
            kernel.receive(at, usize::from(interface), frame, &mut out);
            kernel.receive(at, 0, arp_request(mac(7, 0), "10.0.0.7", "10.0.0.1"), &mut out);
            kernel.receive(at, 1, arp_request(mac(2, 1), "10.1.0.2", "10.1.0.1"), &mut out);
            for (_, frame) in out.frames.drain(..) {
                assert_sound(frame.bytes());
            }
            out.up.clear();
        }
        assert!(kernel.counts().errors_sent > 5 && kernel.counts().forwarded > 5, "{:?}", kernel.counts());
    }
}

#[test]
fn two_machines_of_one_plan_and_seed_do_the_same() {
    let once = live(&mut machine(true, 7), 7, 2_000);
    assert_eq!(live(&mut machine(true, 7), 7, 2_000), once);
    assert!(once.len() > 400, "{}", once.len());
}

#[test]
fn names_of_reasons_are_their_own() {
    let names: BTreeSet<_> = KernelDrop::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(names.len(), KernelDrop::ALL.len());
    for (index, reason) in KernelDrop::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, index);
        let snake = format!("{reason:?}").chars().fold(String::new(), |mut text, letter| {
            if letter.is_uppercase() && !text.is_empty() {
                text.push('_');
            }
            text.push(letter.to_ascii_lowercase());
            text
        });
        assert_eq!(snake, reason.to_string());
    }
}
