//! What goes wrong around a load balancer that lets servers answer directly, and what keeps it right: the smallest
//! networks that show it.

use super::*;

const CLIENT: &str = "192.0.2.7";
const VIP: &str = "10.0.0.9";

const CLIENT_AT: usize = 0;
const GATEWAY_AT: usize = 1;
/// Before the load balancer, so that its answers come first.
const SERVER_AT: usize = 2;
const BALANCER_AT: usize = 3;

/// A machine whose TUN takes what is for the VIP, and hands it to one real server.
fn balancer(server: &str) -> KernelPlan {
    let mut plan = plan(4, &[&["10.0.0.2/24"]]);
    plan.forwards_v4 = true;
    plan.tuns = vec![Tun::new("in"), Tun::new("out")];
    plan.routes = vec![
        default_route("10.0.0.1"),
        Route::new(prefix("10.0.0.9/32"), Hop::on(Outlet::Tun(0))),
        Route { table: 100, ..Route::new(prefix("0.0.0.0/0"), Hop::via(ip(server))) },
    ];
    let selector = Selector { inlet: Some(Outlet::Tun(1)), ..Selector::default() };
    plan.rules = vec![Rule { priority: 1_000, selector, action: RuleAction::Lookup(100) }];
    plan.proxies = vec![(0, ip(VIP))];
    plan
}

fn gateway() -> KernelPlan {
    KernelPlan { forwards_v4: true, ..plan(2, &[&["10.0.0.1/24"], &["192.0.2.1/24"]]) }
}

/// Client, gateway, a real server with the VIP on its loopback interface and these settings, and the load balancer.
fn direct_return(sysctl: Sysctl) -> Lab {
    let client = KernelPlan { routes: vec![default_route("192.0.2.1")], ..plan(1, &[&["192.0.2.7/24"]]) };
    let server = KernelPlan {
        loopback: prefixes(&["10.0.0.9/32"]),
        all: sysctl,
        routes: vec![default_route("10.0.0.1")],
        ..plan(3, &[&["10.0.0.13/24"]])
    };
    Lab::new(&[(client, &[1]), (gateway(), &[0, 1]), (server, &[0]), (balancer("10.0.0.13"), &[0])])
}

/// Requests, one every ten seconds. The load balancer hands on what it gets; the server answers what it gets.
fn exchange(lab: &mut Lab, requests: u16) -> (usize, usize) {
    let (mut served, mut answered) = (0, 0);
    for number in 0..requests {
        let port = 40_000 + number;
        lab.send(CLIENT_AT, udp((CLIENT, port), (VIP, 80), 64)).unwrap();
        for _ in 0..20 {
            lab.run(Duration::from_millis(500));
            for got in lab.take(BALANCER_AT) {
                assert_eq!(got.tun, Some(0));
                lab.receive_from_tun(BALANCER_AT, 1, Packet::copied_into(Packet::default(), &got.bytes));
            }
            for _ in lab.take(SERVER_AT) {
                served += 1;
                lab.send(SERVER_AT, udp((VIP, 80), (CLIENT, port), 64)).unwrap();
            }
            answered += lab.take(CLIENT_AT).len();
        }
    }
    lab.assert_conserved();
    (served, answered)
}

/// Packets to the VIP that the gateway sent to another machine than the load balancer.
fn bypassing(lab: &Lab) -> usize {
    let vip = [10, 0, 0, 9];
    let is_bypassing = |seen: &&Seen| {
        seen.from == GATEWAY_AT
            && seen.bytes.get(12..14) == Some(&[8, 0])
            && seen.bytes.get(30..34) == Some(&vip)
            && seen.bytes.get(..6) != Some(&mac(4, 0).0[..])
    };
    lab.seen.iter().filter(is_bypassing).count()
}

fn settings(arp_ignore: u8, arp_announce: u8) -> Sysctl {
    Sysctl { arp_ignore, arp_announce, ..Sysctl::default() }
}

#[test]
fn a_server_that_answers_for_the_vip_gets_its_packets_past_the_load_balancer() {
    let mut lab = direct_return(settings(0, 2));
    let (served, answered) = exchange(&mut lab, 5);
    assert_eq!((served, answered), (5, 5));
    assert!(bypassing(&lab) > 0);
    assert_eq!(known(&lab, GATEWAY_AT, 0, VIP), Some(mac(3, 0)), "the first answer counts");
    assert!(lab.machines[SERVER_AT].counts().requests_answered > 0);
}

#[test]
fn with_arp_ignore_the_server_is_silent_and_all_goes_through_the_load_balancer() {
    let mut lab = direct_return(settings(1, 2));
    let (served, answered) = exchange(&mut lab, 20);
    assert_eq!((served, answered), (20, 20));
    assert_eq!(bypassing(&lab), 0);
    assert_eq!(known(&lab, GATEWAY_AT, 0, VIP), Some(mac(4, 0)));
    assert!(lab.machines[SERVER_AT].counts().requests_ignored > 0);
    assert_eq!(lab.machines[GATEWAY_AT].counts().neighbours_changed, 0);
}

#[test]
fn without_arp_announce_the_servers_own_question_poisons_the_gateway() {
    let mut lab = direct_return(settings(1, 0));
    let (served, answered) = exchange(&mut lab, 5);
    assert_eq!((served, answered), (5, 5));
    assert!(lab.machines[GATEWAY_AT].counts().neighbours_changed > 0);
    assert!(bypassing(&lab) > 0);
    let asks_as_vip = |seen: &Seen| {
        seen.from == SERVER_AT
            && seen.bytes.get(12..14) == Some(&[8, 6])
            && seen.bytes.get(20..22) == Some(&[0, 1])
            && seen.bytes.get(28..32) == Some(&[10, 0, 0, 9])
    };
    assert!(lab.seen.iter().any(asks_as_vip));
}

#[test]
fn with_arp_announce_1_the_vip_is_still_told_where_it_is_no_network_of_the_interface() {
    // The VIP lies in the interface's network, but the loopback interface has it as a host's: the interface's own address
    // does not cover both, so that the best one is taken.
    let mut lab = direct_return(settings(1, 1));
    let (served, _) = exchange(&mut lab, 3);
    assert_eq!(served, 3);
    assert!(bypassing(&lab) > 0, "10.0.0.9 and 10.0.0.1 are both in 10.0.0.0/24 of eth0");
}

#[test]
fn a_real_server_behind_a_router_cannot_be_a_next_hop() {
    let refused = Kernel::new(&balancer("10.8.0.13"), 1).unwrap_err();
    assert!(
        matches!(refused, KernelError::Gateway { gateway, .. } if gateway == ip("10.8.0.13")),
        "{refused}"
    );
    // Forced, it is asked for on a link where it is not.
    let mut plan = balancer("10.0.0.13");
    let hop = Hop { outlet: Some(Outlet::Interface(0)), is_on_link: true, ..Hop::via(ip("10.8.0.13")) };
    plan.routes.pop();
    plan.routes.push(Route { table: 100, ..Route::new(prefix("0.0.0.0/0"), hop) });
    let router = KernelPlan { forwards_v4: true, ..super::plan(5, &[&["10.0.0.3/24"], &["10.8.0.1/24"]]) };
    let far = super::plan(6, &[&["10.8.0.13/24"]]);
    let mut lab = Lab::new(&[(plan, &[0]), (gateway(), &[0, 2]), (router, &[0, 1]), (far, &[1])]);
    lab.receive_from_tun(0, 1, udp((CLIENT, 4), (VIP, 80), 64));
    lab.run(Duration::from_secs(10));
    assert_eq!(lab.machines[0].counts().dropped(KernelDrop::NeighbourFailed), 1);
    assert_eq!(lab.take(3).len(), 0);
}

#[test]
fn replies_reach_a_load_balancer_that_is_the_servers_default_gateway() {
    // Client 192.0.2.7 - [192.0.2.2 balancer 10.1.0.1] - server 10.1.0.13.
    let mut balancer = plan(4, &[&["192.0.2.2/24"], &["10.1.0.1/24"]]);
    balancer.forwards_v4 = true;
    balancer.tuns = vec![Tun::new("tun0")];
    let from_tun = Selector { inlet: Some(Outlet::Tun(0)), ..Selector::default() };
    let replies = Selector {
        from: Some(prefix("10.1.0.13/32")),
        protocol: Some(evenkeel_engine::wire::Protocol::UDP),
        source_ports: Some(8_080..=8_080),
        ..Selector::default()
    };
    balancer.rules = vec![
        Rule { priority: 1_000, selector: from_tun, action: RuleAction::Lookup(TABLE_MAIN) },
        Rule { priority: 1_001, selector: replies, action: RuleAction::Lookup(7_790) },
    ];
    balancer.routes =
        vec![Route { table: 7_790, ..Route::new(prefix("0.0.0.0/0"), Hop::on(Outlet::Tun(0))) }];
    let client = plan(1, &[&["192.0.2.7/24"]]);
    let server = KernelPlan { routes: vec![default_route("10.1.0.1")], ..plan(3, &[&["10.1.0.13/24"]]) };
    let mut lab = Lab::new(&[(client, &[0]), (balancer, &[0, 1]), (server, &[1])]);

    lab.send(2, udp(("10.1.0.13", 8_080), (CLIENT, 9), 10)).unwrap();
    lab.run(Duration::from_millis(10));
    let got = lab.take(1);
    assert_eq!((got.len(), got[0].tun), (1, Some(0)), "the reply of the service goes into the TUN");
    lab.send(2, udp(("10.1.0.13", 22), (CLIENT, 9), 10)).unwrap();
    lab.run(Duration::from_millis(10));
    assert_eq!(lab.take(0).len(), 1, "another one goes past it");
    // Translated it comes out of the TUN and leaves by the main table, though the rule for replies would fit it.
    lab.receive_from_tun(1, 0, udp(("10.1.0.13", 8_080), (CLIENT, 9), 10));
    lab.run(Duration::from_millis(10));
    assert_eq!(lab.take(0).len(), 1);
    lab.assert_conserved();
}

/// A machine with two ways to the outside; its service has an address of the second.
fn two_exits(has_table: bool) -> Lab {
    let mut machine = plan(1, &[&["192.168.1.2/24"], &["192.168.2.2/24"]]);
    machine.routes = vec![
        default_route("192.168.1.1"),
        Route { table: 200, ..Route::new(prefix("0.0.0.0/0"), Hop::via(ip("192.168.2.1"))) },
    ];
    if has_table {
        let selector = Selector { from: Some(prefix("192.168.2.2/32")), ..Selector::default() };
        machine.rules = vec![Rule { priority: 500, selector, action: RuleAction::Lookup(200) }];
    }
    let strict = Sysctl { rp_filter: 1, ..Sysctl::default() };
    let router = |number, inside: &str, outside: &str| {
        let mut router =
            KernelPlan { forwards_v4: true, all: strict, ..plan(number, &[&[inside], &[outside]]) };
        let other = if number == 2 { "203.0.113.3" } else { "203.0.113.2" };
        let net = if number == 2 { "192.168.2.0/24" } else { "192.168.1.0/24" };
        router.routes = vec![Route::new(prefix(net), Hop::via(ip(other)))];
        router
    };
    let first = router(2, "192.168.1.1/24", "203.0.113.2/24");
    let second = router(3, "192.168.2.1/24", "203.0.113.3/24");
    let client = KernelPlan { routes: vec![default_route("203.0.113.3")], ..plan(4, &[&["203.0.113.9/24"]]) };
    Lab::new(&[(machine, &[0, 1]), (first, &[0, 2]), (second, &[1, 2]), (client, &[2])])
}

#[test]
fn without_its_table_a_reply_leaves_by_the_wrong_interface_and_is_dropped_by_rp_filter() {
    let mut lab = two_exits(false);
    lab.send(3, udp(("203.0.113.9", 1), ("192.168.2.2", 80), 10)).unwrap();
    lab.run(Duration::from_millis(10));
    assert_eq!(lab.take(0).len(), 1);
    // The router is known by then: it would not answer a question from the service's address.
    lab.send(0, udp(("192.168.1.2", 9), ("192.168.1.1", 9), 10)).unwrap();
    lab.run(Duration::from_millis(10));
    lab.send(0, udp(("192.168.2.2", 80), ("203.0.113.9", 1), 10)).unwrap();
    lab.run(Duration::from_millis(10));
    assert_eq!(lab.take(3).len(), 0);
    assert_eq!(lab.machines[1].counts().dropped(KernelDrop::ReversePath), 1);

    // Not known, the router stays silent: the source of the question does not pass its filter.
    let mut lab = two_exits(false);
    lab.send(0, udp(("192.168.2.2", 80), ("203.0.113.9", 1), 10)).unwrap();
    lab.run(Duration::from_secs(5));
    assert_eq!(lab.machines[0].counts().dropped(KernelDrop::NeighbourFailed), 1);
    assert_eq!(lab.machines[1].counts().requests_answered, 0);

    let mut lab = two_exits(true);
    lab.send(0, udp(("192.168.2.2", 80), ("203.0.113.9", 1), 10)).unwrap();
    lab.run(Duration::from_millis(10));
    assert_eq!(lab.take(3).len(), 1);
    assert_eq!(lab.machines[1].counts().dropped(KernelDrop::ReversePath), 0);
}

#[test]
fn a_switch_passes_what_it_does_not_know_and_a_machine_drops_it() {
    let (a, b) = (plan(1, &[&["10.0.0.1/24"]]), plan(2, &[&["10.0.0.2/24"]]));
    let mut lab = Lab::new(&[(a, &[0]), (b, &[0])]);
    let mut frame = Packet::copied_into(Packet::default(), &[0x42; 50]);
    frame::put_header(&mut frame, &frame::header_bytes(mac(2, 0), mac(1, 0), 0x88b5));
    let before = frame.bytes().to_vec();
    lab.with(0, |_, _, out| out.frames.push((0, frame)));
    assert_eq!(lab.seen.last().map(|seen| seen.bytes.clone()), Some(before));
    lab.run(Duration::from_millis(1));
    assert_eq!(lab.machines[1].counts().dropped(KernelDrop::UnknownType), 1);
}
