//! Switches: who is where, floods and VLANs.

use evenkeel_engine::Duration;

use super::*;
use crate::wires::frame::MacAddress;

fn station(number: u16) -> MacAddress {
    let [high, low] = number.to_be_bytes();
    MacAddress([2, 0, 0, 0, high, low])
}

fn frame_between(to: MacAddress, from: MacAddress, vlan: Option<u16>) -> Packet {
    let mut packet = Packet::copied_into(Packet::default(), &[7; 50]);
    frame::put_header(&mut packet, &frame::header_bytes(to, from, frame::IPV4));
    if let Some(vlan) = vlan {
        frame::push_tag(&mut packet, vlan);
    }
    packet
}

/// The ports by which a frame leaves.
fn ports(switch: &mut Switch, port: usize, packet: &Packet, now: Instant) -> Result<Vec<usize>, SwitchDrop> {
    let mut exits = Vec::new();
    switch.forward(port, packet, now, &mut exits)?;
    Ok(exits.into_iter().map(|exit| exit.port).collect())
}

fn assert_conserved(switch: &Switch) {
    let counts = switch.counts();
    let came: u64 = (0..switch.ports()).map(|port| switch.port_counts(port).unwrap().frames_in).sum();
    assert_eq!(came, counts.forwarded + counts.flooded + counts.dropped.iter().sum::<u64>(), "{counts:?}");
}

#[test]
fn a_frame_goes_everywhere_until_its_receiver_has_spoken() {
    let mut switch = Switch::new(SwitchPlan::plain(4));
    let (a, b) = (station(1), station(2));
    assert_eq!(ports(&mut switch, 0, &frame_between(b, a, None), at(0)), Ok(vec![1, 2, 3]));
    assert_eq!(ports(&mut switch, 2, &frame_between(a, b, None), at(1)), Ok(vec![0]));
    assert_eq!(ports(&mut switch, 0, &frame_between(b, a, None), at(2)), Ok(vec![2]));
    let all = frame_between(MacAddress::BROADCAST, a, None);
    assert_eq!(ports(&mut switch, 0, &all, at(3)), Ok(vec![1, 2, 3]));
    assert_eq!(ports(&mut switch, 2, &frame_between(b, a, None), at(4)), Err(SwitchDrop::SamePort));
    assert_eq!(switch.port_of(1, b, at(4)), Some(2));
    assert_eq!((switch.counts().unknown, switch.counts().flooded, switch.counts().forwarded), (1, 2, 2));
    assert_eq!(switch.port_counts(2).map(|counts| counts.frames_out), Some(3));
    assert_conserved(&switch);
}

#[test]
fn an_address_that_is_silent_is_forgotten() {
    let mut switch = Switch::new(SwitchPlan { age: Duration::from_nanos(100), ..SwitchPlan::plain(3) });
    let (a, b) = (station(1), station(2));
    let there = frame_between(b, a, None);
    assert!(ports(&mut switch, 1, &frame_between(a, b, None), at(0)).is_ok());
    assert_eq!(ports(&mut switch, 0, &there, at(99)), Ok(vec![1]));
    assert_eq!(ports(&mut switch, 0, &there, at(100)), Ok(vec![1, 2]));
    assert_eq!(SwitchPlan::default().age, Duration::from_secs(300));
}

#[test]
fn an_address_behind_two_ports_moves_and_is_counted() {
    let mut switch = Switch::new(SwitchPlan::plain(3));
    let twin = station(1);
    for turn in 0..10 {
        let packet = frame_between(station(9), twin, None);
        assert!(ports(&mut switch, turn % 2, &packet, at(0)).is_ok());
    }
    assert_eq!((switch.counts().moved, switch.counts().learned), (9, 1));
    assert_eq!(switch.port_of(1, twin, at(0)), Some(1));
}

#[test]
fn a_full_table_learns_only_when_others_are_too_old() {
    let plan = SwitchPlan { addresses_max: 100, age: Duration::from_nanos(1_000), ..SwitchPlan::plain(3) };
    let mut switch = Switch::new(plan);
    for number in 0..200 {
        let packet = frame_between(MacAddress::BROADCAST, station(number), None);
        assert!(ports(&mut switch, 0, &packet, at(0)).is_ok());
    }
    assert_eq!((switch.addresses(), switch.counts().table_full), (100, 100));
    assert!((0..100).all(|number| switch.port_of(1, station(number), at(0)) == Some(0)));
    assert!((100..200).all(|number| switch.port_of(1, station(number), at(0)).is_none()));
    let late = frame_between(MacAddress::BROADCAST, station(300), None);
    assert!(ports(&mut switch, 1, &late, at(2_000)).is_ok());
    assert_eq!((switch.addresses(), switch.port_of(1, station(300), at(2_000))), (1, Some(1)));
}

#[test]
fn many_addresses_are_all_found() {
    let mut switch = Switch::new(SwitchPlan { addresses_max: 5_000, ..SwitchPlan::plain(8) });
    for number in 0..5_000_u16 {
        let packet = frame_between(MacAddress::BROADCAST, station(number), None);
        assert!(ports(&mut switch, usize::from(number % 8), &packet, at(0)).is_ok());
    }
    for number in 0..5_000_u16 {
        assert_eq!(switch.port_of(1, station(number), at(0)), Some(usize::from(number % 8)));
    }
    switch.set_up(3, false);
    assert_eq!(switch.port_of(1, station(3), at(0)), None);
    assert_eq!(switch.port_of(1, station(4), at(0)), Some(4));
    assert_eq!(switch.addresses(), 4_375);
    switch.flush();
    assert_eq!((switch.addresses(), switch.port_of(1, station(4), at(0))), (0, None));
}

#[test]
fn a_port_that_is_down_takes_and_gives_nothing() {
    let mut switch = Switch::new(SwitchPlan::plain(3));
    switch.set_up(1, false);
    let all = frame_between(MacAddress::BROADCAST, station(1), None);
    assert_eq!(ports(&mut switch, 1, &all, at(0)), Err(SwitchDrop::Down));
    assert_eq!(ports(&mut switch, 0, &all, at(0)), Ok(vec![2]));
    switch.set_up(2, false);
    assert_eq!(ports(&mut switch, 0, &all, at(0)), Err(SwitchDrop::NoPort));
    switch.set_up(1, true);
    assert_eq!(ports(&mut switch, 0, &all, at(0)), Ok(vec![1]));
    assert_eq!(ports(&mut switch, 9, &all, at(0)), Err(SwitchDrop::NoPort));
}

#[test]
fn frames_that_no_switch_passes_end() {
    let mut switch = Switch::new(SwitchPlan::plain(2));
    let spanning_tree = frame_between(MacAddress([1, 0x80, 0xc2, 0, 0, 0]), station(1), None);
    assert_eq!(ports(&mut switch, 0, &spanning_tree, at(0)), Err(SwitchDrop::Reserved));
    let from_group = frame_between(station(1), MacAddress::BROADCAST, None);
    assert_eq!(ports(&mut switch, 0, &from_group, at(0)), Err(SwitchDrop::Malformed));
    let from_nobody = frame_between(station(1), MacAddress::default(), None);
    assert_eq!(ports(&mut switch, 0, &from_nobody, at(0)), Err(SwitchDrop::Malformed));
    let short = Packet::copied_into(Packet::default(), &[2; 13]);
    assert_eq!(ports(&mut switch, 0, &short, at(0)), Err(SwitchDrop::Malformed));
    let tagged = frame_between(station(1), station(2), Some(7));
    assert_eq!(ports(&mut switch, 0, &tagged, at(0)), Err(SwitchDrop::Vlan));
    assert_eq!(switch.counts().dropped, [3, 1, 1, 0, 0, 0]);
    assert_conserved(&switch);
    let names: Vec<_> = SwitchDrop::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(names, ["malformed", "vlan", "reserved", "same-port", "no-port", "down"]);
    let names: Vec<_> = WireDrop::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["lost", "queue-full", "early", "too-long", "down"]);
}

/// Two access ports of VLAN 10 (0, 1), one of 20 (2), a trunk of both (3), and a trunk with 10 as its native one (4).
fn with_vlans() -> Switch {
    let trunk = |tagged: &[u16], native| Membership::Trunk { tagged: tagged.to_vec(), native };
    let ports = vec![
        Membership::Access(10),
        Membership::Access(10),
        Membership::Access(20),
        trunk(&[10, 20], None),
        trunk(&[20], Some(10)),
    ];
    Switch::new(SwitchPlan { ports, ..SwitchPlan::default() })
}

/// What comes out of each port for a broadcast.
fn broadcast(
    switch: &mut Switch,
    port: usize,
    tag: Option<u16>,
) -> Result<Vec<(usize, Option<u16>)>, SwitchDrop> {
    let packet = frame_between(MacAddress::BROADCAST, station(1), tag);
    let mut exits = Vec::new();
    switch.forward(port, &packet, at(0), &mut exits)?;
    let seen = exits.into_iter().map(|exit| {
        let mut copy = packet.clone();
        exit.apply(&mut copy);
        assert_eq!(frame::payload(copy.bytes()).0, frame::IPV4);
        assert_eq!(frame::header(copy.bytes()).map(|header| header.1), Some(station(1)));
        (exit.port, frame::vlan(copy.bytes()))
    });
    Ok(seen.collect())
}

#[test]
fn vlans_do_not_meet_and_tags_are_those_of_the_port() {
    let mut switch = with_vlans();
    assert_eq!(broadcast(&mut switch, 0, None), Ok(vec![(1, None), (3, Some(10)), (4, None)]));
    assert_eq!(broadcast(&mut switch, 2, None), Ok(vec![(3, Some(20)), (4, Some(20))]));
    assert_eq!(broadcast(&mut switch, 3, Some(10)), Ok(vec![(0, None), (1, None), (4, None)]));
    assert_eq!(broadcast(&mut switch, 3, Some(20)), Ok(vec![(2, None), (4, Some(20))]));
    assert_eq!(broadcast(&mut switch, 4, None), Ok(vec![(0, None), (1, None), (3, Some(10))]));
    assert_eq!(broadcast(&mut switch, 3, None), Err(SwitchDrop::Vlan), "no native VLAN");
    assert_eq!(broadcast(&mut switch, 3, Some(30)), Err(SwitchDrop::Vlan));
    assert_eq!(broadcast(&mut switch, 0, Some(20)), Err(SwitchDrop::Vlan), "no hopping");
    assert_eq!(broadcast(&mut switch, 0, Some(10)), Ok(vec![(1, None), (3, Some(10)), (4, None)]));
    assert_eq!(broadcast(&mut switch, 0, Some(0)), Ok(vec![(1, None), (3, Some(10)), (4, None)]), "priority");
}

#[test]
fn a_station_is_known_in_its_vlan_alone() {
    let mut switch = with_vlans();
    let (a, b) = (station(1), station(2));
    assert!(ports(&mut switch, 1, &frame_between(MacAddress::BROADCAST, b, None), at(0)).is_ok());
    assert_eq!(ports(&mut switch, 0, &frame_between(b, a, None), at(0)), Ok(vec![1]));
    assert_eq!(
        ports(&mut switch, 2, &frame_between(b, a, None), at(0)),
        Ok(vec![3, 4]),
        "unknown in VLAN 20"
    );
    assert_eq!((switch.port_of(10, b, at(0)), switch.port_of(20, b, at(0))), (Some(1), None));
}
