//! Each setting of `net.ipv4.conf`, by itself.

use super::*;

/// A request for `target` from a station of the network, as it comes in by an interface of the machine. Says whether it
/// is answered.
fn asks(kernel: &mut Kernel, interface: usize, sender: &str, target: &str) -> bool {
    let mut out = Out::default();
    let frame = arp_request(mac(99, 0), sender, target);
    assert!(kernel.receive(Instant::from_nanos(1), interface, frame, &mut out).is_none());
    assert_conserved(kernel);
    let is_reply = |(_, packet): &(usize, Packet)| packet.bytes().get(20..22) == Some(&[0, 2]);
    out.frames.iter().any(is_reply)
}

/// Two interfaces, and a VIP on the loopback interface.
fn machine(all: Sysctl) -> Kernel {
    let mut plan = plan(1, &[&["10.0.0.1/24", "10.0.5.1/24"], &["10.1.0.1/24"]]);
    plan.loopback = prefixes(&["10.0.0.9/32"]);
    plan.all = all;
    Kernel::new(&plan, 1).unwrap()
}

fn ignore(arp_ignore: u8) -> Sysctl {
    Sysctl { arp_ignore, ..Sysctl::default() }
}

#[test]
fn arp_ignore_says_which_requests_are_answered() {
    //  own, of the other interface, of the loopback interface, own but from another network, somebody else's
    let cases = [
        ("10.0.0.7", "10.0.0.1"),
        ("10.0.0.7", "10.1.0.1"),
        ("10.0.0.7", "10.0.0.9"),
        ("10.3.0.7", "10.0.0.1"),
        ("10.0.0.7", "10.0.0.77"),
    ];
    let expected = [
        (0, [true, true, true, true, false]),
        (1, [true, false, false, true, false]),
        (2, [true, false, false, false, false]),
        (3, [true, true, true, true, false]),
        (4, [true, true, true, true, false]),
        (8, [false; 5]),
    ];
    for (value, answers) in expected {
        for ((sender, target), answer) in cases.into_iter().zip(answers) {
            let found = asks(&mut machine(ignore(value)), 0, sender, target);
            assert_eq!(found, answer, "arp_ignore={value}: {sender} asks for {target}");
        }
    }
}

#[test]
fn arp_ignore_3_is_silent_about_addresses_of_host_scope() {
    for (value, answer) in [(0, true), (3, false)] {
        let mut plan = plan(1, &[&["10.0.0.1/24"]]);
        plan.all = Sysctl { arp_ignore: value, route_localnet: true, ..Sysctl::default() };
        plan.loopback = prefixes(&["127.0.0.5/32"]);
        let mut kernel = Kernel::new(&plan, 1).unwrap();
        assert_eq!(asks(&mut kernel, 0, "10.0.0.7", "127.0.0.5"), answer, "{value}");
    }
}

#[test]
fn the_greater_of_all_and_the_interface_holds() {
    for (all, own, answer) in [(0, 0, true), (1, 0, false), (0, 1, false), (8, 1, false), (1, 8, false)] {
        let mut kernel = machine(ignore(all));
        kernel.set_sysctl(Some(Outlet::Interface(0)), ignore(own)).unwrap();
        assert_eq!(asks(&mut kernel, 0, "10.0.0.7", "10.0.0.9"), answer, "{all} {own}");
        let elsewhere = if all == 0 { asks(&mut kernel, 1, "10.1.0.7", "10.0.0.9") } else { all != 8 };
        assert!(elsewhere || all != 0, "the other interface has its own value");
    }
    let mut kernel = machine(ignore(8));
    assert!(!asks(&mut kernel, 0, "10.0.0.7", "10.0.0.1"));
    kernel.set_sysctl(None, ignore(0)).unwrap();
    assert!(asks(&mut kernel, 0, "10.0.0.7", "10.0.0.1"));
    let error = kernel.set_sysctl(Some(Outlet::Interface(7)), ignore(0)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Interface(7) does not exist: the machine has 2 interfaces and 0 TUN devices"
    );
}

/// The source of the request that a packet from `source` to `destination` brings about.
fn announced(arp_announce: u8, source: &str, destination: &str) -> String {
    let mut kernel = machine(Sysctl { arp_announce, ..Sysctl::default() });
    let mut out = Out::default();
    kernel.send(Instant::from_nanos(1), udp((source, 1), (destination, 2), 8), &mut out).unwrap();
    let (_, frame) = out.frames.pop().unwrap();
    let octets: [u8; 4] = frame.bytes()[28..32].try_into().unwrap();
    std::net::Ipv4Addr::from(octets).to_string()
}

#[test]
fn arp_announce_says_which_source_a_request_has() {
    // The VIP is in the target's network, and so is the interface's first address.
    for (value, source) in [(0, "10.0.0.9"), (1, "10.0.0.9"), (2, "10.0.0.1")] {
        assert_eq!(announced(value, "10.0.0.9", "10.0.0.50"), source, "{value}");
    }
    // An address of the other interface is not.
    for (value, source) in [(0, "10.1.0.1"), (1, "10.0.0.1"), (2, "10.0.0.1")] {
        assert_eq!(announced(value, "10.1.0.1", "10.0.0.50"), source, "{value}");
    }
    // The second address of the interface is in the target's network; the first is not.
    for (value, source) in [(0, "10.0.0.1"), (1, "10.0.5.1"), (2, "10.0.5.1")] {
        assert_eq!(announced(value, "10.0.0.1", "10.0.5.50"), source, "{value}");
    }
    // What is not the machine's own is never announced.
    assert_eq!(announced(0, "192.0.2.1", "10.0.0.50"), "10.0.0.1");
}

#[test]
fn arp_filter_answers_only_where_replies_would_leave() {
    for (arp_filter, answer) in [(false, true), (true, false)] {
        let mut kernel = machine(Sysctl { arp_filter, ..Sysctl::default() });
        assert_eq!(
            asks(&mut kernel, 1, "10.0.0.7", "10.1.0.1"),
            answer,
            "the way to the sender is the other one"
        );
        assert!(asks(&mut kernel, 0, "10.0.0.7", "10.1.0.1"));
    }
}

#[test]
fn gratuitous_arp_makes_an_entry_only_with_arp_accept_and_always_changes_one() {
    for arp_accept in [false, true] {
        let mut kernel = machine(Sysctl { arp_accept, ..Sysctl::default() });
        let mut out = Out::default();
        let now = Instant::from_nanos(1);
        kernel.receive(now, 0, arp_request(mac(50, 0), "10.0.0.50", "10.0.0.50"), &mut out);
        let known = |kernel: &Kernel| kernel.neighbour(0, ip("10.0.0.50"));
        assert_eq!(known(&kernel).is_some(), arp_accept);
        // By now it is known; another takes the address over, within the lock time.
        assert!(asks(&mut kernel, 0, "10.0.0.50", "10.0.0.1"));
        kernel.receive(now, 0, arp_request(mac(51, 0), "10.0.0.50", "10.0.0.50"), &mut out);
        assert_eq!(known(&kernel), Some((NeighbourState::Stale, mac(51, 0))));
    }
}

#[test]
fn arp_notify_tells_of_addresses_at_the_start_and_when_they_come() {
    for arp_notify in [false, true] {
        let mut kernel = machine(Sysctl { arp_notify, ..Sysctl::default() });
        let mut out = Out::default();
        kernel.start(Instant::ZERO, &mut out);
        assert_eq!(out.frames.len(), if arp_notify { 3 } else { 0 });
        out.frames.clear();
        kernel.add_address(Instant::ZERO, Outlet::Interface(1), prefix("10.1.0.2/24"), &mut out).unwrap();
        assert_eq!(out.frames.len(), usize::from(arp_notify));
        out.frames.clear();
        kernel.announce(Instant::ZERO, 1, ip("10.1.0.2"), &mut out).unwrap();
        let (interface, frame) = out.frames.pop().unwrap();
        assert_eq!((interface, &frame.bytes()[..6]), (1, &[0xff; 6][..]));
        assert_eq!(frame.bytes()[28..32], frame.bytes()[38..42]);
        assert_conserved(&kernel);
    }
}

/// What becomes of a datagram that comes in by an interface.
fn takes(kernel: &mut Kernel, interface: usize, from: &str, to: &str) -> Result<(), KernelDrop> {
    let mut out = Out::default();
    out.keeps_ended = true;
    let frame = framed(mac(99, 0), mac(1, u8::try_from(interface).unwrap()), udp((from, 1), (to, 2), 8));
    let up = kernel.receive(Instant::from_nanos(1), interface, frame, &mut out);
    assert_conserved(kernel);
    match (up, out.ended.pop()) {
        (_, Some((reason, _))) => Err(reason),
        (up, None) => {
            assert!(up.is_some() || kernel.counts().forwarded > 0);
            Ok(())
        }
    }
}

#[test]
fn rp_filter_looks_at_the_way_back() {
    let reverse = Err(KernelDrop::ReversePath);
    // From its own network, from another interface's network, from nowhere.
    let sources = ["10.0.0.7", "10.1.0.7", "192.0.2.7"];
    for (value, expected) in
        [(0, [Ok(()), Ok(()), Ok(())]), (1, [Ok(()), reverse, reverse]), (2, [Ok(()), Ok(()), reverse])]
    {
        for (source, expected) in sources.into_iter().zip(expected) {
            let mut kernel = machine(Sysctl { rp_filter: value, ..Sysctl::default() });
            assert_eq!(takes(&mut kernel, 0, source, "10.0.0.1"), expected, "rp_filter={value}: {source}");
            // Forwarded packets are looked at just as those for the machine.
            kernel.set_forwarding(true, false);
            assert_eq!(takes(&mut kernel, 0, source, "10.1.0.50"), expected, "rp_filter={value}: {source}");
        }
    }
}

#[test]
fn rp_filter_knows_rules() {
    // By the main table the way to 192.0.2.0/24 is the second interface; a rule sends what goes back to port 2 by the first.
    let mut plan = plan(1, &[&["10.0.0.1/24"], &["10.1.0.1/24"]]);
    plan.all = Sysctl { rp_filter: 1, ..Sysctl::default() };
    plan.routes = vec![
        default_route("10.1.0.254"),
        Route { table: 7, ..Route::new(prefix("0.0.0.0/0"), Hop::via(ip("10.0.0.254"))) },
    ];
    let selector = Selector {
        protocol: Some(evenkeel_engine::wire::Protocol::UDP),
        source_ports: Some(2..=2),
        ..Selector::default()
    };
    let mut kernel = Kernel::new(&plan, 1).unwrap();
    assert_eq!(takes(&mut kernel, 0, "192.0.2.7", "10.0.0.1"), Err(KernelDrop::ReversePath));
    kernel.add_rule(&Rule { priority: 9, selector, action: RuleAction::Lookup(7) }).unwrap();
    assert_eq!(takes(&mut kernel, 0, "192.0.2.7", "10.0.0.1"), Ok(()));
    assert_eq!(takes(&mut kernel, 1, "192.0.2.7", "10.0.0.1"), Err(KernelDrop::ReversePath));
}

#[test]
fn a_packet_from_an_own_address_is_a_martian_without_accept_local() {
    for (accept_local, expected) in [(false, Err(KernelDrop::MartianSource)), (true, Ok(()))] {
        let mut kernel = machine(Sysctl { accept_local, ..Sysctl::default() });
        assert_eq!(takes(&mut kernel, 0, "10.0.0.9", "10.0.0.1"), expected);
        assert_eq!(takes(&mut kernel, 0, "10.1.0.1", "10.0.0.1"), expected);
        // With a rule the local table is asked instead, which says the same.
        let rule = Rule { priority: 9, selector: Selector::default(), action: RuleAction::Lookup(254) };
        kernel.add_rule(&rule).unwrap();
        assert_eq!(takes(&mut kernel, 0, "10.0.0.9", "10.0.0.1"), expected);
    }
}

#[test]
fn addresses_that_no_packet_has_are_martians() {
    let cases = [
        ("224.0.0.1", "10.0.0.1", KernelDrop::MartianSource),
        ("255.255.255.255", "10.0.0.1", KernelDrop::MartianSource),
        ("127.0.0.1", "10.0.0.1", KernelDrop::MartianSource),
        ("0.0.0.1", "10.0.0.1", KernelDrop::MartianSource),
        ("10.0.0.7", "127.0.0.1", KernelDrop::MartianDestination),
        ("10.0.0.7", "0.0.0.9", KernelDrop::MartianDestination),
        ("10.0.0.7", "224.0.0.5", KernelDrop::OtherHost),
        ("10.0.0.255", "10.0.0.1", KernelDrop::MartianSource),
    ];
    for (from, to, reason) in cases {
        // The broadcast address is found out only where sources are looked at.
        let mut kernel = machine(Sysctl { rp_filter: 1, ..Sysctl::default() });
        assert_eq!(takes(&mut kernel, 0, from, to), Err(reason), "{from} to {to}");
    }
    let mut kernel = machine(Sysctl { route_localnet: true, ..Sysctl::default() });
    assert_eq!(takes(&mut kernel, 0, "10.0.0.7", "127.0.0.1"), Ok(()));
    assert_eq!(takes(&mut kernel, 0, "10.0.0.7", "255.255.255.255"), Ok(()));
    assert_eq!(takes(&mut kernel, 0, "0.0.0.0", "255.255.255.255"), Ok(()), "as DHCP does");
    assert_eq!(takes(&mut kernel, 0, "10.0.0.7", "10.0.0.255"), Ok(()), "to the network");
}

#[test]
fn proxy_arp_answers_for_what_lies_behind_another_interface() {
    for (proxy_arp, forwards, answer) in [(false, true, false), (true, false, false), (true, true, true)] {
        let mut kernel = machine(Sysctl { proxy_arp, ..Sysctl::default() });
        kernel.set_forwarding(forwards, false);
        assert_eq!(asks(&mut kernel, 0, "10.0.0.7", "10.1.0.50"), answer, "{proxy_arp} {forwards}");
        assert!(!asks(&mut kernel, 0, "10.0.0.7", "10.0.0.50"), "it is on the same link");
        assert!(!asks(&mut kernel, 0, "10.0.0.7", "203.0.113.1"), "no way leads there");
    }
}

#[test]
fn a_proxy_entry_is_answered_for_where_its_route_leads_elsewhere() {
    let mut plan = plan(1, &[&["10.0.0.1/24"]]);
    plan.forwards_v4 = true;
    plan.tuns = vec![Tun::new("tun0")];
    let mut kernel = Kernel::new(&plan, 1).unwrap();
    kernel.add_proxy(0, ip("10.0.0.9")).unwrap();
    assert!(!asks(&mut kernel, 0, "10.0.0.7", "10.0.0.9"), "its route leads back");
    kernel.set_route(&Route::new(prefix("10.0.0.9/32"), Hop::on(Outlet::Tun(0)))).unwrap();
    assert!(asks(&mut kernel, 0, "10.0.0.7", "10.0.0.9"));
    assert!(!asks(&mut kernel, 0, "10.0.0.7", "10.0.0.8"));
    kernel.remove_proxy(0, ip("10.0.0.9")).unwrap();
    assert!(!asks(&mut kernel, 0, "10.0.0.7", "10.0.0.9"));
    assert!(kernel.remove_proxy(0, ip("10.0.0.9")).is_err());
}

#[test]
fn a_whole_network_on_the_loopback_interface_is_local() {
    let mut plan = plan(1, &[&["10.0.0.1/24"]]);
    plan.loopback = prefixes(&["10.9.0.1/24"]);
    let mut kernel = Kernel::new(&plan, 1).unwrap();
    assert_eq!(takes(&mut kernel, 0, "10.0.0.7", "10.9.0.200"), Ok(()));
    assert!(kernel.owns(ip("10.9.0.77")) && !kernel.owns(ip("10.9.1.77")));
    assert!(asks(&mut kernel, 0, "10.0.0.7", "10.9.0.200"));
}

#[test]
fn who_asks_whether_an_address_is_free_learns_that_it_is_not() {
    assert!(asks(&mut machine(ignore(0)), 0, "0.0.0.0", "10.0.0.1"));
    assert!(!asks(&mut machine(ignore(0)), 0, "0.0.0.0", "10.0.0.77"));
    assert!(!asks(&mut machine(ignore(8)), 0, "0.0.0.0", "10.0.0.1"));
    assert!(!asks(&mut machine(ignore(1)), 0, "0.0.0.0", "10.0.0.9"));
}
