//! What changes while a machine runs: addresses, routes, links.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_address_that_another_machine_takes_over_is_followed_at_once() {
    // Two load balancers with one address between them, and a gateway that talks to it.
    let first = plan(1, &[&["10.0.0.2/24", "10.0.0.9/24"]]);
    let second = plan(2, &[&["10.0.0.3/24"]]);
    let gateway = plan(3, &[&["10.0.0.1/24"]]);
    let mut lab = Lab::new(&[(first, &[0]), (second, &[0]), (gateway, &[0])]);
    let talk = |lab: &mut Lab| {
        lab.send(2, udp(("10.0.0.1", 1), ("10.0.0.9", 2), 8)).unwrap();
        lab.run(Duration::from_millis(1));
        (lab.take(0).len(), lab.take(1).len())
    };
    assert_eq!(talk(&mut lab), (1, 0));
    lab.with(0, |kernel, _, _| kernel.remove_address(Outlet::Interface(0), ip("10.0.0.9"))).unwrap();
    assert_eq!(talk(&mut lab), (0, 0), "the gateway still sends to the first one");
    assert_eq!(lab.machines[0].counts().dropped(KernelDrop::NotForwarding), 1);
    lab.with(1, |kernel, now, out| {
        kernel.add_address(now, Outlet::Interface(0), prefix("10.0.0.9/24"), out).unwrap();
        kernel.announce(now, 0, ip("10.0.0.9"), out)
    })
    .unwrap();
    lab.run(Duration::from_millis(1));
    assert_eq!(talk(&mut lab), (0, 1));
    assert_eq!(lab.machines[1].addresses(0), [ip("10.0.0.3"), ip("10.0.0.9")]);
    let missing = lab.machines[0].remove_address(Outlet::Interface(0), ip("10.0.0.9")).unwrap_err();
    assert_eq!(missing.to_string(), "address 10.0.0.9 on Interface(0) is not there");
    lab.assert_conserved();
}

#[test]
fn the_next_address_of_a_network_becomes_the_primary_one() {
    let mut kernel = Kernel::new(&plan(1, &[&["10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24"]]), 1).unwrap();
    let source = |kernel: &Kernel| kernel.source_for(ip("10.0.0.50"));
    assert_eq!(source(&kernel), Some(ip("10.0.0.1")));
    kernel.remove_address(Outlet::Interface(0), ip("10.0.0.2")).unwrap();
    assert_eq!(source(&kernel), Some(ip("10.0.0.1")));
    kernel.remove_address(Outlet::Interface(0), ip("10.0.0.1")).unwrap();
    assert_eq!(source(&kernel), Some(ip("10.0.0.3")));
    kernel.remove_address(Outlet::Interface(0), ip("10.0.0.3")).unwrap();
    assert_eq!(source(&kernel), None, "and with the last one the way to its network is gone");
}

#[test]
fn routes_go_with_the_address_that_is_their_source() {
    let mut plan = plan(1, &[&["10.0.0.1/24", "10.0.5.1/24"]]);
    let route = Route::new(prefix("203.0.113.0/24"), Hop::via(ip("10.0.0.254")));
    plan.routes = vec![Route { source: Some(ip("10.0.5.1")), ..route }];
    let mut kernel = Kernel::new(&plan, 1).unwrap();
    assert_eq!(kernel.source_for(ip("203.0.113.9")), Some(ip("10.0.5.1")));
    kernel.remove_address(Outlet::Interface(0), ip("10.0.5.1")).unwrap();
    assert_eq!(kernel.source_for(ip("203.0.113.9")), None);
}

#[test]
fn a_link_that_goes_down_takes_its_routes_and_neighbours_and_brings_back_the_routes() {
    let mut router = plan(1, &[&["10.0.0.1/24"], &["10.1.0.1/24"]]);
    router.routes = vec![
        Route { metric: 10, ..default_route("10.0.0.254") },
        Route { metric: 20, ..default_route("10.1.0.254") },
    ];
    let (near, far) = (plan(2, &[&["10.0.0.254/24"]]), plan(3, &[&["10.1.0.254/24"]]));
    let mut lab = Lab::new(&[(router, &[0, 1]), (near, &[0]), (far, &[1])]);
    let ways = |lab: &mut Lab| {
        let result = lab.send(0, udp(("10.0.0.1", 1), ("203.0.113.9", 2), 8));
        lab.run(Duration::from_millis(1));
        let dropped = |machine: usize| lab.machines[machine].counts().dropped(KernelDrop::NotForwarding);
        (result, dropped(1), dropped(2))
    };
    let set = |lab: &mut Lab, number, is_up| {
        lab.with(0, |kernel, now, out| kernel.set_up(now, Outlet::Interface(number), is_up, out)).unwrap();
    };
    assert_eq!(ways(&mut lab), (Ok(()), 1, 0));
    set(&mut lab, 0, false);
    assert_eq!(known(&lab, 0, 0, "10.0.0.254"), None);
    assert!(!lab.machines[0].owns(ip("10.0.0.1")), "nor is its address there");
    assert_eq!(ways(&mut lab), (Ok(()), 1, 1), "over the other one");
    set(&mut lab, 1, false);
    assert_eq!(ways(&mut lab), (Err(KernelDrop::NoRoute), 1, 1));
    set(&mut lab, 0, true);
    assert_eq!(ways(&mut lab), (Ok(()), 2, 1));
    lab.assert_conserved();
}

#[test]
fn packets_that_wait_for_a_link_that_goes_down_end() {
    let mut kernel = Kernel::new(&plan(1, &[&["10.0.0.1/24"]]), 1).unwrap();
    let mut out = Out::default();
    kernel.send(Instant::ZERO, udp(("10.0.0.1", 1), ("10.0.0.2", 2), 8), &mut out).unwrap();
    kernel.set_up(Instant::ZERO, Outlet::Interface(0), false, &mut out).unwrap();
    assert_eq!(kernel.counts().dropped(KernelDrop::InterfaceDown), 1);
    assert_eq!(kernel.counts().waiting, 0);
    let frame = framed(mac(2, 0), mac(1, 0), udp(("10.0.0.2", 1), ("10.0.0.1", 2), 8));
    assert!(kernel.receive(Instant::ZERO, 0, frame, &mut out).is_none());
    assert_conserved(&kernel);
    kernel.timeout(Instant::from_nanos(u64::MAX / 2), &mut out);
    assert_conserved(&kernel);
}

#[test]
fn a_restart_forgets_neighbours_and_keeps_configuration() {
    let mut lab = Lab::new(&[(plan(1, &[&["10.0.0.1/24"]]), &[0]), (plan(2, &[&["10.0.0.2/24"]]), &[0])]);
    lab.send(0, udp(("10.0.0.1", 1), ("10.0.0.2", 2), 8)).unwrap();
    lab.run(SECOND);
    lab.send(0, udp(("10.0.0.1", 1), ("10.0.0.77", 2), 8)).unwrap();
    lab.with(0, |kernel, _, out| kernel.restart(out));
    assert_eq!(known(&lab, 0, 0, "10.0.0.2"), None);
    lab.send(0, udp(("10.0.0.1", 1), ("10.0.0.2", 2), 8)).unwrap();
    lab.run(SECOND * 10);
    assert_eq!(lab.take(1).len(), 2);
    lab.assert_conserved();
}

#[test]
fn a_plan_that_cannot_be_is_refused_with_its_reason() {
    let text = |change: &dyn Fn(&mut KernelPlan)| {
        let mut plan = plan(1, &[&["10.0.0.1/24"]]);
        change(&mut plan);
        Kernel::new(&plan, 1).unwrap_err().to_string()
    };
    let all = prefix("0.0.0.0/0");
    assert_eq!(
        text(&|plan| plan.routes = vec![Route::new(all, Hop::via(ip("10.7.0.1")))]),
        "the gateway 10.7.0.1 of the route to 0.0.0.0/0 is on no link of the machine; name an interface in whose network it is"
    );
    let lone = Hop { gateway: None, outlet: None, weight: 1, is_on_link: false };
    let no_hop = "the route to 0.0.0.0/0 has a next hop with neither gateway nor device, or none at all";
    assert_eq!(text(&|plan| plan.routes = vec![Route::new(all, lone)]), no_hop);
    let empty = RouteKind::Unicast { hops: Vec::new(), spread: Spread::default() };
    assert_eq!(text(&|plan| plan.routes = vec![Route::of_kind(all, empty.clone())]), no_hop);
    assert_eq!(
        text(&|plan| plan.routes = vec![Route::new(all, Hop::on(Outlet::Tun(0)))]),
        "Tun(0) does not exist: the machine has 1 interfaces and 0 TUN devices"
    );
    assert_eq!(
        text(&|plan| plan.interfaces[0].mtu_bytes = 67),
        "an MTU of 67 bytes is too small: 68 is the least for IPv4, 1,280 for IPv6"
    );
    assert!(text(&|plan| plan.masquerade = vec![Masquerade::on(1)]).starts_with("Interface(1)"));
    assert!(text(&|plan| plan.proxies = vec![(3, ip("10.0.0.9"))]).starts_with("Interface(3)"));
    let selector = Selector { inlet: Some(Outlet::Tunnel(0)), ..Selector::default() };
    let rule = Rule { priority: 1, selector: selector.clone(), action: RuleAction::Blackhole };
    assert!(text(&|plan| plan.rules = vec![rule.clone()]).starts_with("Tunnel(0)"));
    let marking = Marking { selector, mark: 1 };
    assert!(text(&|plan| plan.marks = vec![marking.clone()]).starts_with("Tunnel(0)"));
}

#[test]
fn a_dead_cable_takes_routes_and_neighbours_and_leaves_the_address() {
    let mut router = plan(1, &[&["10.0.0.1/24"], &["10.1.0.1/24"]]);
    router.routes = vec![
        Route { metric: 10, ..default_route("10.0.0.254") },
        Route { metric: 20, ..default_route("10.1.0.254") },
    ];
    let (near, far) = (plan(2, &[&["10.0.0.254/24"]]), plan(3, &[&["10.1.0.254/24"]]));
    let mut lab = Lab::new(&[(router, &[0, 1]), (near, &[0]), (far, &[1])]);
    let set = |lab: &mut Lab, has_carrier| {
        lab.with(0, |kernel, now, out| kernel.set_carrier(now, 0, has_carrier, out)).unwrap();
    };
    let way = |lab: &mut Lab| {
        lab.send(0, udp(("10.0.0.1", 1), ("203.0.113.9", 2), 8)).unwrap();
        lab.run(SECOND);
        let dropped = |machine: usize| lab.machines[machine].counts().dropped(KernelDrop::NotForwarding);
        (dropped(1), dropped(2))
    };
    assert_eq!(way(&mut lab), (1, 0));
    set(&mut lab, false);
    assert_eq!(known(&lab, 0, 0, "10.0.0.254"), None);
    assert!(lab.machines[0].owns(ip("10.0.0.1")), "the address stays");
    assert_eq!(way(&mut lab), (1, 1), "over the other one");
    // A route by the dead cable can be written, and counts when the cable is alive.
    let again = Route { metric: 5, ..default_route("10.0.0.254") };
    lab.machines[0].set_route(&again).unwrap();
    assert_eq!(way(&mut lab), (1, 2));
    set(&mut lab, true);
    assert_eq!(way(&mut lab), (2, 2));
    lab.assert_conserved();
}

#[test]
fn another_plan_keeps_neighbours_links_and_mappings() {
    let mut router = plan(1, &[&["10.0.0.1/24"], &["192.0.2.1/24"], &["10.7.0.1/24"]]);
    router.forwards_v4 = true;
    router.masquerade = vec![Masquerade::on(1)];
    let mut inside = plan(2, &[&["10.0.0.2/24"]]);
    inside.routes = vec![default_route("10.0.0.1")];
    let outside = plan(3, &[&["192.0.2.3/24"]]);
    let mut lab = Lab::new(&[(router.clone(), &[0, 1, 2]), (inside, &[0]), (outside, &[1])]);
    lab.send(1, udp(("10.0.0.2", 4_000), ("192.0.2.3", 53), 8)).unwrap();
    lab.run(SECOND);
    lab.with(0, |kernel, now, out| kernel.set_carrier(now, 2, false, out)).unwrap();
    let received = lab.machines[0].counts().received;

    router.tuns = vec![Tun::new("tun0")];
    router.routes = vec![Route::new(prefix("203.0.113.0/24"), Hop::on(Outlet::Tun(0)))];
    lab.machines[0].reconfigure(&router).unwrap();
    assert_eq!(lab.machines[0].mappings(), 1);
    assert_eq!(lab.machines[0].counts().received, received);
    assert_eq!(known(&lab, 0, 1, "192.0.2.3"), Some(mac(3, 0)));
    assert_eq!(lab.machines[0].source_for(ip("10.7.0.9")), None, "its cable is dead still");
    lab.take(1);
    lab.send(2, udp(("192.0.2.3", 53), ("192.0.2.1", 4_000), 8)).unwrap();
    lab.send(1, udp(("10.0.0.2", 4_001), ("203.0.113.5", 80), 8)).unwrap();
    lab.run(SECOND);
    assert_eq!(lab.take(1).len(), 1, "the answer finds its way back");
    assert_eq!(lab.take(0).iter().filter(|got| got.tun == Some(0)).count(), 1, "and the new route holds");

    let bad = KernelPlan { routes: vec![default_route("172.16.0.1")], ..router };
    lab.machines[0].reconfigure(&bad).unwrap_err();
    lab.send(1, udp(("10.0.0.2", 4_001), ("203.0.113.5", 80), 8)).unwrap();
    lab.run(SECOND);
    assert_eq!(lab.take(0).len(), 1, "what cannot be changes nothing");
    lab.assert_conserved();
}

#[test]
fn another_plan_moves_no_flow_of_a_resilient_route_that_stays() {
    let hops = [ip("10.0.0.2"), ip("10.0.0.3"), ip("10.0.0.4")].map(Hop::via);
    let route = |hops: &[Hop]| {
        let choice = SpreadChoice::Resilient { buckets: 64, idle: SECOND * 120 };
        let spread = Spread { key: SpreadKey::FiveTuple, choice };
        Route::of_kind(prefix("203.0.113.0/24"), RouteKind::Unicast { hops: hops.to_vec(), spread })
    };
    let mut before = plan(1, &[&["10.0.0.1/24"]]);
    before.routes = vec![route(&hops)];
    let neighbours = (2..=4).map(|number: u8| plan(number, &[&[&*format!("10.0.0.{number}/24")]]));
    let mut machines = vec![(before.clone(), &[0][..])];
    machines.extend(neighbours.map(|plan| (plan, &[0][..])));
    let mut lab = Lab::new(&machines);
    let ways = |lab: &mut Lab| {
        let mut ways = Vec::new();
        for port in 1..=100 {
            let count = |lab: &Lab, number: usize| lab.machines[number].counts().received;
            let before = [1, 2, 3].map(|number| count(lab, number));
            lab.send(0, udp(("10.0.0.1", port), ("203.0.113.9", 80), 8)).unwrap();
            lab.run(Duration::from_millis(1));
            ways.push([1, 2, 3].into_iter().position(|number| count(lab, number) != before[number - 1]));
        }
        ways
    };
    // Once for the neighbours to be known.
    ways(&mut lab);
    let first = ways(&mut lab);
    let after = KernelPlan { routes: vec![route(&hops[1..])], ..before };
    lab.machines[0].reconfigure(&after).unwrap();
    let second = ways(&mut lab);
    let gone = first.iter().filter(|way| **way == Some(0)).count();
    let moved = first.iter().zip(&second).filter(|(one, two)| one != two).count();
    assert!(gone > 10, "{gone} of 100 flows");
    assert_eq!(moved, gone, "only those of the router that is gone");
}

#[test]
fn a_restart_forgets_fragments_and_mappings() {
    let mut router = plan(1, &[&["10.0.0.1/24"], &["192.0.2.1/24"]]);
    router.forwards_v4 = true;
    router.masquerade = vec![Masquerade::on(1)];
    let mut inside = plan(2, &[&["10.0.0.2/24"]]);
    inside.routes = vec![default_route("10.0.0.1")];
    let mut lab = Lab::new(&[(router, &[0, 1]), (inside, &[0]), (plan(3, &[&["192.0.2.3/24"]]), &[1])]);
    lab.send(1, udp(("10.0.0.2", 4_000), ("192.0.2.3", 53), 8)).unwrap();
    lab.run(SECOND);
    let mut piece = udp(("10.0.0.2", 5_000), ("10.0.0.1", 53), 800);
    piece.bytes_mut()[6] = 0x20;
    piece.bytes_mut()[10..12].fill(0);
    ip::mend_header(piece.bytes_mut());
    lab.send(1, piece).unwrap();
    lab.run(SECOND);
    assert_eq!((lab.machines[0].counts().waiting, lab.machines[0].mappings()), (1, 1));
    lab.with(0, |kernel, _, out| kernel.restart(out));
    assert_eq!((lab.machines[0].counts().waiting, lab.machines[0].mappings()), (0, 0));
    assert_eq!(lab.machines[0].counts().dropped(KernelDrop::FragmentTimeout), 1);
    lab.assert_conserved();
}
