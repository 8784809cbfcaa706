//! The source NAT of a home router.

use evenkeel_engine::wire::Protocol;

use super::*;
use crate::packet::{Flags, Segment};

const INSIDE: usize = 0;
const ROUTER: usize = 1;
const SERVER: usize = 2;
const OTHER: usize = 3;
const OUTER: &str = "203.0.113.1";

fn lab_with(masquerade: Masquerade) -> Lab {
    let home = |number, address: &str| KernelPlan {
        routes: vec![default_route("192.168.0.1")],
        ..plan(number, &[&[address]])
    };
    let mut router = plan(9, &[&["192.168.0.1/24"], &["203.0.113.1/24"]]);
    router.forwards_v4 = true;
    router.masquerade = vec![masquerade];
    Lab::new(&[
        (home(1, "192.168.0.7/24"), &[0]),
        (router, &[0, 1]),
        (plan(3, &[&["203.0.113.80/24"]]), &[1]),
        (plan(4, &[&["203.0.113.81/24"]]), &[1]),
        (home(2, "192.168.0.8/24"), &[0]),
    ])
}

fn lab() -> Lab {
    lab_with(Masquerade::on(1))
}

fn tcp(from: (&str, u16), to: (&str, u16), flags: Flags) -> Packet {
    let end = |(address, port): (&str, u16)| End { address: ip(address), port };
    let segment = Segment { sequence: 1, acknowledgement: 2, flags, window: 3 };
    packet::build(Packet::default(), (end(from), end(to)), Header::Tcp(segment), 5, |payload| payload.fill(7))
}

/// The ends of the only packet that a machine got, whose checksums are right.
fn ends(lab: &mut Lab, machine: usize) -> ((String, u16), (String, u16)) {
    let got = lab.take(machine);
    assert_eq!(got.len(), 1);
    let view = packet::view(&got[0].bytes).unwrap();
    let text = |end: packet::AnyEnd| (end.address.to_string(), end.port);
    (text(view.source), text(view.destination))
}

fn send(lab: &mut Lab, machine: usize, packet: Packet) {
    lab.send(machine, packet).unwrap();
    lab.run(Duration::from_millis(1));
}

fn end(address: &str, port: u16) -> (String, u16) {
    (address.to_owned(), port)
}

#[test]
fn who_is_inside_shares_the_outer_address_and_gets_its_replies() {
    let mut lab = lab();
    for is_tcp in [false, true] {
        let make = |from, to| if is_tcp { tcp(from, to, Flags::SYN) } else { udp(from, to, 8) };
        send(&mut lab, INSIDE, make(("192.168.0.7", 4_000), ("203.0.113.80", 80)));
        assert_eq!(ends(&mut lab, SERVER), (end(OUTER, 4_000), end("203.0.113.80", 80)), "the port is kept");
        send(&mut lab, SERVER, make(("203.0.113.80", 80), (OUTER, 4_000)));
        assert_eq!(ends(&mut lab, INSIDE), (end("203.0.113.80", 80), end("192.168.0.7", 4_000)));
    }
    assert_eq!(lab.machines[ROUTER].mappings(), 2);
    lab.assert_conserved();
}

#[test]
fn two_with_the_same_port_get_two_and_each_has_one_for_all_destinations() {
    let mut lab = lab();
    send(&mut lab, INSIDE, udp(("192.168.0.7", 4_000), ("203.0.113.80", 80), 8));
    assert_eq!(ends(&mut lab, SERVER).0, end(OUTER, 4_000));
    send(&mut lab, 4, udp(("192.168.0.8", 4_000), ("203.0.113.80", 80), 8));
    assert_eq!(ends(&mut lab, SERVER).0, end(OUTER, 4_001));
    send(&mut lab, 4, udp(("192.168.0.8", 4_000), ("203.0.113.81", 80), 8));
    assert_eq!(ends(&mut lab, OTHER).0, end(OUTER, 4_001));
    // A port below the range becomes one in it.
    send(&mut lab, 4, udp(("192.168.0.8", 53), ("203.0.113.81", 80), 8));
    assert_eq!(ends(&mut lab, OTHER).0, end(OUTER, 1_024));
}

#[test]
fn strangers_are_let_in_unless_it_filters() {
    for is_filtering in [false, true] {
        let mut lab = lab_with(Masquerade { is_filtering, ..Masquerade::on(1) });
        send(&mut lab, INSIDE, udp(("192.168.0.7", 4_000), ("203.0.113.80", 80), 8));
        lab.take(SERVER);
        send(&mut lab, OTHER, udp(("203.0.113.81", 9), (OUTER, 4_000), 8));
        assert_eq!(lab.take(INSIDE).len(), usize::from(!is_filtering));
        let filtered = lab.machines[ROUTER].counts().dropped(KernelDrop::NatFiltered);
        assert_eq!(filtered, u64::from(is_filtering));
        // Without a mapping it is for the router itself.
        send(&mut lab, OTHER, udp(("203.0.113.81", 9), (OUTER, 5_000), 8));
        assert_eq!(lab.take(ROUTER).len(), 1);
        lab.assert_conserved();
    }
}

#[test]
fn an_echo_comes_back_to_who_sent_it() {
    let mut lab = lab();
    for (machine, address) in [(INSIDE, "192.168.0.7"), (4, "192.168.0.8")] {
        send(&mut lab, machine, echo_request(address, "203.0.113.80", 77, b"hello"));
        let got = lab.take(machine);
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].bytes[24..26], 77_u16.to_be_bytes());
        assert_eq!(packet::destination(&got[0].bytes), Some(address.parse().unwrap()));
    }
    assert_eq!(lab.machines[ROUTER].mappings(), 2);
}

#[test]
fn errors_about_packets_of_both_directions_are_translated() {
    let mut lab = lab();
    send(&mut lab, INSIDE, udp(("192.168.0.7", 4_000), ("203.0.113.80", 80), 8));
    let got = lab.take(SERVER).remove(0);
    lab.with(SERVER, |kernel, now, out| {
        kernel.reject(now, Refusal::PortUnreachable, Packet::copied_into(Packet::default(), &got.bytes), out);
    });
    lab.run(Duration::from_millis(1));
    let told = lab.take(INSIDE).remove(0);
    let view = packet::view(&told.bytes).unwrap();
    let kind = packet::Transport::IcmpError { kind: (3, 3), protocol: Protocol::UDP, mtu: None };
    assert_eq!((view.transport, view.source.port), (kind.clone(), 4_000));
    assert_eq!(view.source.address.to_string(), "192.168.0.7", "the packet is quoted as it was sent");
    assert!(packet::adds_up(&told.bytes[28..48]), "the quoted header too");

    send(&mut lab, SERVER, udp(("203.0.113.80", 80), (OUTER, 4_000), 8));
    let got = lab.take(INSIDE).remove(0);
    lab.with(INSIDE, |kernel, now, out| {
        kernel.reject(now, Refusal::PortUnreachable, Packet::copied_into(Packet::default(), &got.bytes), out);
    });
    lab.run(Duration::from_millis(1));
    let told = lab.take(SERVER).remove(0);
    let view = packet::view(&told.bytes).unwrap();
    assert_eq!(view.transport, kind);
    assert_eq!((view.destination.address.to_string(), view.destination.port), (OUTER.to_owned(), 4_000));
    assert_eq!(told.bytes[12..16], [203, 0, 113, 1]);
    assert!(packet::adds_up(&told.bytes[28..48]));
    lab.assert_conserved();
}

#[test]
fn mappings_end_when_they_are_not_used() {
    let mut lab = lab();
    let server_to_4000 = || udp(("203.0.113.80", 80), (OUTER, 4_000), 8);
    send(&mut lab, INSIDE, udp(("192.168.0.7", 4_000), ("203.0.113.80", 80), 8));
    lab.run(Duration::from_secs(119));
    send(&mut lab, SERVER, server_to_4000());
    assert_eq!(lab.take(INSIDE).len(), 1);
    lab.run(Duration::from_secs(121));
    send(&mut lab, SERVER, server_to_4000());
    assert_eq!(lab.take(INSIDE).len(), 0);
    assert_eq!(lab.take(ROUTER).len(), 1);
    // TCP: four minutes until it is answered and after it has ended, two hours and more else.
    let from = ("192.168.0.7", 5_000);
    let to = ("203.0.113.80", 80);
    let back = (OUTER, 5_000);
    send(&mut lab, INSIDE, tcp(from, to, Flags::SYN));
    send(&mut lab, SERVER, tcp(to, back, Flags::SYN.with(Flags::ACK)));
    lab.run(Duration::from_secs(7_000));
    lab.take(INSIDE);
    send(&mut lab, SERVER, tcp(to, back, Flags::ACK));
    assert_eq!(lab.take(INSIDE).len(), 1);
    send(&mut lab, INSIDE, tcp(from, to, Flags::FIN.with(Flags::ACK)));
    lab.run(Duration::from_secs(250));
    send(&mut lab, SERVER, tcp(to, back, Flags::ACK));
    assert_eq!(lab.take(INSIDE).len(), 0);
}

#[test]
fn it_has_as_many_mappings_as_ports_and_as_it_may() {
    let masquerade = Masquerade { ports: 2_000..=2_003, mappings_max: 6, ..Masquerade::on(1) };
    let mut lab = lab_with(masquerade);
    for port in 4_000..4_010 {
        send(&mut lab, INSIDE, udp(("192.168.0.7", port), ("203.0.113.80", 80), 8));
        send(&mut lab, INSIDE, tcp(("192.168.0.7", port), ("203.0.113.80", 80), Flags::SYN));
    }
    assert_eq!(lab.take(SERVER).len(), 6);
    assert_eq!(lab.machines[ROUTER].counts().dropped(KernelDrop::NatFull), 14);
    lab.run(Duration::from_secs(300));
    send(&mut lab, INSIDE, udp(("192.168.0.7", 4_009), ("203.0.113.80", 80), 8));
    assert_eq!(lab.take(SERVER).len(), 1, "old ones have ended");
    assert_eq!(lab.machines[ROUTER].mappings(), 1);
    lab.assert_conserved();
}

#[test]
fn what_has_no_port_cannot_be_translated() {
    let mut lab = lab();
    let mut odd = udp(("192.168.0.7", 1), ("203.0.113.80", 2), 8);
    odd.bytes_mut()[9] = 132;
    packet::mend_header(odd.bytes_mut());
    send(&mut lab, INSIDE, odd);
    assert_eq!(lab.take(SERVER).len(), 0);
    assert_eq!(lab.machines[ROUTER].counts().dropped(KernelDrop::NatUntranslatable), 1);
}

#[test]
fn fragments_are_put_together_translated_and_cut_again() {
    let mut lab = lab();
    let mut large = udp(("192.168.0.7", 4_000), ("203.0.113.80", 80), 4_000);
    large.bytes_mut()[6] = 0;
    packet::mend_header(large.bytes_mut());
    send(&mut lab, INSIDE, large);
    let got = lab.take(SERVER);
    assert_eq!(got.len(), 1);
    let view = packet::view(&got[0].bytes).unwrap();
    assert_eq!(
        (view.source.address.to_string(), view.source.port, view.payload.len()),
        (OUTER.to_owned(), 4_000, 4_000)
    );
    lab.assert_conserved();
}

#[test]
fn a_datagram_without_checksum_stays_without() {
    let mut lab = lab();
    let mut bare = udp(("192.168.0.7", 4_000), ("203.0.113.80", 80), 8);
    bare.bytes_mut()[26..28].copy_from_slice(&[0, 0]);
    send(&mut lab, INSIDE, bare);
    let got = lab.take(SERVER);
    assert_eq!(got[0].bytes[26..28], [0, 0]);
    lab.with(ROUTER, |kernel, _, _| kernel.set_masquerade(&[])).unwrap();
    assert_eq!(lab.machines[ROUTER].mappings(), 0);
}
