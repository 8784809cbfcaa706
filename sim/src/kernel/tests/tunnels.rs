//! Ends of tunnels, as a real server has them, and fragments.

use super::*;

fn machine(kind: TunnelKind, local: &str, remote: Option<&str>) -> Kernel {
    let mut plan = plan(1, &[&["10.0.0.1/24", "2001:db8::1/64"]]);
    plan.loopback = prefixes(&["10.9.9.9/32", "2001:db8::9/128"]);
    plan.tunnels = vec![Tunnel {
        name: "tunl0".to_owned(),
        kind,
        local: Some(ip(local)),
        remote: remote.map(ip),
        sysctl: Sysctl::default(),
    }];
    Kernel::new(&plan, 1).unwrap()
}

/// `inner` in an outer packet with these bytes in between.
fn wrapped(from: &str, to: &str, protocol: u8, between: &[u8], inner: &[u8], traffic: u8) -> Packet {
    let mut bytes = Vec::new();
    let behind = [between, inner].concat();
    match (ip(from), ip(to)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = etherparse::Ipv4Header::new(
                u16::try_from(behind.len()).unwrap(),
                64,
                etherparse::IpNumber(protocol),
                from.octets(),
                to.octets(),
            )
            .unwrap();
            header.dscp = etherparse::IpDscp::try_new(traffic >> 2).unwrap();
            header.ecn = etherparse::IpEcn::try_new(traffic & 3).unwrap();
            header.header_checksum = header.calc_header_checksum();
            header.write(&mut bytes).unwrap();
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = etherparse::Ipv6Header {
                traffic_class: traffic,
                payload_length: u16::try_from(behind.len()).unwrap(),
                next_header: etherparse::IpNumber(protocol),
                hop_limit: 64,
                source: from.octets(),
                destination: to.octets(),
                ..etherparse::Ipv6Header::default()
            };
            header.write(&mut bytes).unwrap();
        }
        _ => panic!("two families"),
    }
    bytes.extend(behind);
    Packet::copied_into(Packet::default(), &bytes)
}

fn inner(traffic: u8) -> Packet {
    let mut packet = udp(("192.0.2.7", 5), ("10.9.9.9", 80), 20);
    packet.bytes_mut()[1] = traffic;
    packet::mend_header(packet.bytes_mut());
    packet
}

fn inner_v6() -> Vec<u8> {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (ip("2001:db8:7::7"), ip("2001:db8::9")) else { panic!() };
    let mut bytes = Vec::new();
    let builder = etherparse::PacketBuilder::ipv6(from.octets(), to.octets(), 64).udp(1, 2);
    builder.write(&mut bytes, &[7; 20]).unwrap();
    bytes
}

/// What the machine's programs get.
fn open(kernel: &mut Kernel, packet: Packet) -> Option<Vec<u8>> {
    let up = kernel.receive(Instant::ZERO, 0, framed(mac(2, 0), mac(1, 0), packet), &mut Out::default());
    assert_conserved(kernel);
    match up {
        Some(Up::Host(packet)) => Some(packet.bytes().to_vec()),
        Some(Up::Tun(..) | Up::Wire(..)) | None => None,
    }
}

fn gue_bytes(port: u16, between: &[u8], inner: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + between.len() + inner.len()).unwrap();
    let mut bytes = vec![0xc0, 1];
    bytes.extend(port.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(between);
    bytes
}

#[test]
fn every_kind_of_tunnel_is_opened_in_either_family() {
    let v4 = inner(0).bytes().to_vec();
    let v6 = inner_v6();
    for (from, to) in [("10.0.0.2", "10.0.0.1"), ("2001:db8::2", "2001:db8::1")] {
        for (inner, number, gre) in [(&v4, 4_u8, [8, 0]), (&v6, 41, [0x86, 0xdd])] {
            let open_with = |kind, protocol, between: &[u8]| {
                let packet = wrapped(from, to, protocol, between, inner, 0);
                open(&mut machine(kind, to, None), packet)
            };
            assert_eq!(open_with(TunnelKind::Ip, number, &[]).as_ref(), Some(inner));
            assert_eq!(open_with(TunnelKind::Gre, 47, &[0, 0, gre[0], gre[1]]).as_ref(), Some(inner));
            let with_key = [0x20, 0, gre[0], gre[1], 1, 2, 3, 4];
            assert_eq!(open_with(TunnelKind::Gre, 47, &with_key).as_ref(), Some(inner));
            let gue = TunnelKind::Gue { port: 6_080 };
            let plain = gue_bytes(6_080, &[0, number, 0, 0], inner);
            assert_eq!(open_with(gue, 17, &plain).as_ref(), Some(inner));
            let long = gue_bytes(6_080, &[1, number, 0, 0, 9, 9, 9, 9], inner);
            assert_eq!(open_with(gue, 17, &long).as_ref(), Some(inner));
            assert_eq!(open_with(gue, 17, &gue_bytes(6_080, &[], inner)).is_some(), inner[0] >> 6 == 1);
        }
    }
}

#[test]
fn other_addresses_and_ports_are_not_the_tunnels() {
    let packet = |from, port| {
        wrapped(from, "10.0.0.1", 17, &gue_bytes(port, &[0, 4, 0, 0], inner(0).bytes()), inner(0).bytes(), 0)
    };
    let gue = TunnelKind::Gue { port: 6_080 };
    let mut kernel = machine(gue, "10.0.0.1", Some("10.0.0.2"));
    assert_eq!(open(&mut kernel, packet("10.0.0.2", 6_080)), Some(inner(0).bytes().to_vec()));
    let whole = packet("10.0.0.3", 6_080).bytes().to_vec();
    assert_eq!(open(&mut kernel, packet("10.0.0.3", 6_080)), Some(whole), "goes up as it is");
    let whole = packet("10.0.0.2", 6_081).bytes().to_vec();
    assert_eq!(open(&mut kernel, packet("10.0.0.2", 6_081)), Some(whole));
}

#[test]
fn congestion_outside_is_told_inside_or_ends_the_packet() {
    for (outer, before, after) in [
        (0, 0, Some(0)),
        (0, 3, Some(3)),
        (1, 2, Some(2)),
        (3, 0, None),
        (3, 1, Some(3)),
        (3, 2, Some(3)),
        (3, 3, Some(3)),
    ] {
        let packet = wrapped("10.0.0.2", "10.0.0.1", 4, &[], inner(before).bytes(), outer);
        let mut kernel = machine(TunnelKind::Ip, "10.0.0.1", None);
        let got = open(&mut kernel, packet);
        assert_eq!(got, after.map(|after| inner(after).bytes().to_vec()), "{outer} {before}");
    }
}

#[test]
fn what_is_no_packet_inside_ends() {
    let mut kernel = machine(TunnelKind::Gre, "10.0.0.1", None);
    let v4 = inner(0);
    let cases: [&[u8]; 5] = [
        &[0, 1, 8, 0],
        &[0x40, 0, 8, 0],
        &[0, 0, 0x88, 0xb5],
        &[0x80, 0, 8, 0, 1, 2, 3, 4],
        &[0x30, 0, 8, 0],
    ];
    for between in cases {
        let inner = if between[0] == 0x30 { &[][..] } else { v4.bytes() };
        assert_eq!(open(&mut kernel, wrapped("10.0.0.2", "10.0.0.1", 47, between, inner, 0)), None);
    }
    assert_eq!(kernel.counts().dropped(KernelDrop::TunnelMalformed), 5);
    let mut cut = v4.bytes().to_vec();
    cut.truncate(19);
    assert_eq!(open(&mut kernel, wrapped("10.0.0.2", "10.0.0.1", 47, &[0, 0, 8, 0], &cut, 0)), None);
    assert_eq!(kernel.counts().dropped(KernelDrop::Malformed), 1);
}

#[test]
fn tunnels_in_tunnels_have_an_end() {
    let mut packet = inner(0);
    for depth in 0..8 {
        let mut kernel = machine(TunnelKind::Ip, "10.0.0.1", None);
        let got = open(&mut kernel, packet.clone());
        assert_eq!(got.is_some(), depth <= 4, "{depth}");
        assert_eq!(kernel.counts().dropped(KernelDrop::TunnelNested), u64::from(depth > 4));
        // From its second tunnel on the source is not the machine's own either.
        packet = wrapped("10.0.0.2", "10.0.0.1", 4, &[], packet.bytes(), 0);
    }
}

/// The fragments of a datagram.
fn fragments(length: usize, mtu: u16, identification: u8) -> Vec<Packet> {
    let mut packet = udp(("10.0.0.2", 5), ("10.0.0.1", 80), length);
    packet.bytes_mut()[4..8].copy_from_slice(&[0, identification, 0, 0]);
    packet::mend_header(packet.bytes_mut());
    let mut kernel = Kernel::new(&plan(9, &[&["10.7.0.1/24"]]), 1).unwrap();
    kernel.cut(&packet, mtu, &mut Out::default())
}

fn host() -> Kernel {
    Kernel::new(&plan(1, &[&["10.0.0.1/24"]]), 1).unwrap()
}

#[test]
fn fragments_in_any_order_make_one_packet() {
    let whole = {
        let mut packet = udp(("10.0.0.2", 5), ("10.0.0.1", 80), 3_000);
        packet.bytes_mut()[4..8].copy_from_slice(&[0, 7, 0, 0]);
        packet::mend_header(packet.bytes_mut());
        packet.bytes().to_vec()
    };
    for turn in 0..4 {
        let mut pieces = fragments(3_000, 900, 7);
        assert_eq!(pieces.len(), 4);
        pieces.rotate_left(turn);
        let mut kernel = host();
        let last = pieces.pop().unwrap();
        assert!(pieces.into_iter().all(|piece| open(&mut kernel, piece).is_none()));
        assert_eq!(kernel.counts().waiting, 3);
        assert_eq!(open(&mut kernel, last).as_ref(), Some(&whole));
        assert_eq!((kernel.counts().waiting, kernel.counts().consumed), (0, 3));
    }
}

#[test]
fn fragments_of_two_packets_do_not_mix() {
    let mut kernel = host();
    let (mut a, mut b) = (fragments(1_000, 600, 1), fragments(1_000, 600, 2));
    assert!(open(&mut kernel, a.remove(0)).is_none());
    assert!(open(&mut kernel, b.remove(1)).is_none());
    assert!(open(&mut kernel, a.remove(0)).is_some());
    assert!(open(&mut kernel, b.remove(0)).is_some());
}

#[test]
fn overlapping_fragments_end_all_and_a_copy_ends_itself() {
    let mut kernel = host();
    let pieces = fragments(2_000, 700, 1);
    assert!(open(&mut kernel, pieces[0].clone()).is_none());
    assert!(open(&mut kernel, pieces[0].clone()).is_none());
    assert_eq!(kernel.counts().dropped(KernelDrop::FragmentRefused), 1);
    assert_eq!(kernel.counts().waiting, 1);
    let mut overlapping = pieces[1].clone();
    let field = u16::from_be_bytes([overlapping.bytes()[6], overlapping.bytes()[7]]) - 1;
    overlapping.bytes_mut()[6..8].copy_from_slice(&field.to_be_bytes());
    packet::mend_header(overlapping.bytes_mut());
    assert!(open(&mut kernel, overlapping).is_none());
    assert_eq!(kernel.counts().dropped(KernelDrop::FragmentRefused), 3);
    assert_eq!(kernel.counts().waiting, 0);
}

#[test]
fn odd_fragments_are_refused() {
    // The last one ends before another, a piece that is no multiple of eight, one beyond the largest packet.
    let last_first = fragments(2_000, 700, 1);
    let mut short_last = last_first[1].clone();
    short_last.bytes_mut()[6] &= !0x20;
    packet::mend_header(short_last.bytes_mut());
    let mut uneven = last_first[0].clone();
    uneven.cut_to(uneven.len() - 1);
    let length = u16::try_from(uneven.len()).unwrap();
    uneven.bytes_mut()[2..4].copy_from_slice(&length.to_be_bytes());
    packet::mend_header(uneven.bytes_mut());
    let mut beyond = last_first[2].clone();
    beyond.bytes_mut()[6..8].copy_from_slice(&[0x1f, 0xff]);
    packet::mend_header(beyond.bytes_mut());
    for pieces in [vec![last_first[2].clone(), short_last], vec![uneven], vec![beyond]] {
        let mut kernel = host();
        for piece in pieces {
            assert!(open(&mut kernel, piece).is_none());
        }
        assert!(kernel.counts().dropped(KernelDrop::FragmentRefused) > 0);
        assert_eq!(kernel.counts().waiting, 0);
    }
}

#[test]
fn fragments_that_stay_alone_time_out_and_the_sender_is_told_of_the_first() {
    for (piece, is_told) in [(0, true), (1, false)] {
        let (a, b) = (plan(1, &[&["10.0.0.1/24"]]), plan(2, &[&["10.0.0.2/24"]]));
        let mut lab = Lab::new(&[(a, &[0]), (b, &[0])]);
        lab.send(1, fragments(1_000, 600, 1).remove(piece)).unwrap();
        lab.run(Duration::from_millis(29_900));
        assert_eq!(lab.machines[0].counts().waiting, 1);
        lab.run(Duration::from_secs(1));
        assert_eq!(lab.machines[0].counts().dropped(KernelDrop::FragmentTimeout), 1);
        let told = lab.take(1);
        assert_eq!(told.len(), usize::from(is_told));
        assert!(told.iter().all(|got| got.bytes[20..22] == [11, 1]));
        lab.assert_conserved();
    }
}

#[test]
fn there_is_a_bound_to_what_waits_for_fragments() {
    let mut kernel = host();
    for number in 0..1_100_u16 {
        let mut piece = fragments(1_000, 600, 0).remove(0);
        piece.bytes_mut()[4..6].copy_from_slice(&number.to_be_bytes());
        packet::mend_header(piece.bytes_mut());
        assert!(open(&mut kernel, piece).is_none());
    }
    assert_eq!(kernel.counts().waiting, 1_024);
    assert_eq!(kernel.counts().dropped(KernelDrop::FragmentRefused), 76);
}
