//! What moves when a next hop goes or comes, for each way of choosing.

use std::collections::BTreeSet;

use super::*;

const FLOWS: u16 = 20_000;

/// The routers 10.1.0.1 ... of a route.
fn hops(numbers: &[u8]) -> Vec<Hop> {
    numbers.iter().map(|number| Hop::via(ip(&format!("10.1.0.{number}")))).collect()
}

fn route(hops: Vec<Hop>, choice: SpreadChoice) -> Route {
    let spread = Spread { key: SpreadKey::FiveTuple, choice };
    Route::of_kind(prefix("0.0.0.0/0"), RouteKind::Unicast { hops, spread })
}

fn machine() -> Kernel {
    let mut plan = plan(1, &[&["10.0.0.1/24"], &["10.1.0.250/24"]]);
    plan.forwards_v4 = true;
    let mut kernel = Kernel::new(&plan, 1).unwrap();
    let mut out = Out::default();
    for number in 1..=40 {
        let sender = format!("10.1.0.{number}");
        kernel.receive(Instant::ZERO, 1, arp_request(mac(number, 1), &sender, "10.1.0.250"), &mut out);
    }
    kernel
}

/// The router that gets a packet.
fn router_of(kernel: &mut Kernel, packet: Packet, now: Instant) -> u8 {
    let mut out = Out::default();
    kernel.receive(now, 0, framed(mac(7, 0), mac(1, 0), packet), &mut out);
    let (_, frame) = out.frames.pop().unwrap();
    frame.bytes()[4]
}

/// The router of each of many flows.
fn ways(kernel: &mut Kernel, now: Instant) -> Vec<u8> {
    let flow = |number: u16| udp(("10.0.0.7", 1_024 + number), ("203.0.113.1", 443), 0);
    (0..FLOWS).map(|number| router_of(kernel, flow(number), now)).collect()
}

fn with(hops: Vec<Hop>, choice: SpreadChoice) -> Vec<u8> {
    let mut kernel = machine();
    kernel.set_route(&route(hops, choice)).unwrap();
    ways(&mut kernel, Instant::ZERO)
}

/// The share of flows that have moved, and whether one of them moved although its router stayed.
fn moved(before: &[u8], after: &[u8]) -> (f64, bool) {
    let left: BTreeSet<u8> = after.iter().copied().collect();
    let pairs = before.iter().zip(after).filter(|(old, new)| old != new);
    let count = u32::try_from(pairs.clone().count()).unwrap();
    let is_needless = pairs.clone().any(|(old, _)| left.contains(old));
    (f64::from(count) / f64::from(FLOWS), is_needless)
}

fn assert_near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 0.01, "{found} instead of {expected}");
}

const ALL: [SpreadChoice; 4] = [
    SpreadChoice::HashThreshold,
    SpreadChoice::Modulo,
    SpreadChoice::Rendezvous,
    SpreadChoice::Resilient { buckets: 1_000, idle: Duration::from_secs(120) },
];

fn ten() -> Vec<u8> {
    (1..=10).collect()
}

#[test]
fn flows_are_spread_by_weight_and_a_flow_stays() {
    for choice in ALL {
        let mut weighted = hops(&[1, 2, 3]);
        weighted[1].weight = 3;
        let mut kernel = machine();
        kernel.set_route(&route(weighted, choice)).unwrap();
        let first = ways(&mut kernel, Instant::ZERO);
        for (router, share) in [(1, 0.2), (2, 0.6), (3, 0.2)] {
            let count = first.iter().filter(|way| **way == router).count();
            assert_near(f64::from(u32::try_from(count).unwrap()) / f64::from(FLOWS), share);
        }
        assert_eq!(ways(&mut kernel, Instant::from_nanos(1)), first, "{choice:?}");
        assert_conserved(&kernel);
    }
}

#[test]
fn modulo_moves_all_but_one_in_n() {
    let before = with(hops(&ten()), SpreadChoice::Modulo);
    assert_near(moved(&before, &with(hops(&ten()[..9]), SpreadChoice::Modulo)).0, 0.9);
    let eleven: Vec<u8> = (1..=11).collect();
    assert_near(moved(&before, &with(hops(&eleven), SpreadChoice::Modulo)).0, 10.0 / 11.0);
}

#[test]
fn rendezvous_moves_only_the_flows_of_who_goes_or_comes() {
    let before = with(hops(&ten()), SpreadChoice::Rendezvous);
    for gone in [0, 4, 9] {
        let mut left = ten();
        left.remove(gone);
        let (share, is_needless) = moved(&before, &with(hops(&left), SpreadChoice::Rendezvous));
        assert_near(share, 0.1);
        assert!(!is_needless);
    }
    let eleven: Vec<u8> = (1..=11).collect();
    let after = with(hops(&eleven), SpreadChoice::Rendezvous);
    assert_near(moved(&before, &after).0, 1.0 / 11.0);
    let to_others = before.iter().zip(&after).any(|(old, new)| old != new && *new != 11);
    assert!(!to_others, "all that move go to the new one");
    // The order in which they are named does not count.
    let mut turned = ten();
    turned.reverse();
    assert_eq!(with(hops(&turned), SpreadChoice::Rendezvous), before);
}

#[test]
fn hash_threshold_moves_what_rfc_2992_says() {
    // From n ranges to n - 1: with the k-th of n gone (counted from 0), range i before it grows to the right by
    // (i + 1) / (n (n - 1)), and those behind it to the left alike: what changes hands is the sum over all borders.
    let before = with(hops(&ten()), SpreadChoice::HashThreshold);
    let overlap = |gone: usize| {
        let border = |count: f64, number: usize| f64::from(u32::try_from(number).unwrap()) / count;
        let kept: f64 = (0..10)
            .filter(|number| *number != gone)
            .map(|number| {
                let new = if number > gone { number - 1 } else { number };
                let low = border(10.0, number).max(border(9.0, new));
                let high = border(10.0, number + 1).min(border(9.0, new + 1));
                (high - low).max(0.0)
            })
            .sum();
        1.0 - kept
    };
    for gone in 0..10 {
        let mut left = ten();
        left.remove(gone);
        let (share, _) = moved(&before, &with(hops(&left), SpreadChoice::HashThreshold));
        assert_near(share, overlap(gone));
        // Between a quarter, for one in the middle, and a half, for one at the end (RFC 2992 s.3.1).
        assert!((0.24..=0.51).contains(&share), "{gone}: {share}");
    }
    assert_near(overlap(0), 0.5);
    assert!(overlap(4) < overlap(0));
}

#[test]
fn a_resilient_table_moves_only_the_buckets_of_who_is_gone() {
    let choice = SpreadChoice::Resilient { buckets: 1_000, idle: Duration::from_secs(120) };
    let mut kernel = machine();
    kernel.set_route(&route(hops(&ten()), choice)).unwrap();
    let before = ways(&mut kernel, Instant::ZERO);
    let mut left = ten();
    left.remove(4);
    kernel.set_route(&route(hops(&left), choice)).unwrap();
    let after = ways(&mut kernel, Instant::from_nanos(1));
    let (share, is_needless) = moved(&before, &after);
    assert_near(share, 0.1);
    assert!(!is_needless);
    // It comes back: no bucket that is in use moves to it.
    kernel.set_route(&route(hops(&ten()), choice)).unwrap();
    assert_eq!(ways(&mut kernel, Instant::from_nanos(2)), after);
    // Once they are idle, it gets its share.
    let later = Instant::from_nanos(200_000_000_000);
    let back = ways(&mut kernel, later);
    let count = back.iter().filter(|way| **way == 5).count();
    assert_near(f64::from(u32::try_from(count).unwrap()) / f64::from(FLOWS), 0.1);
    let to_others = after.iter().zip(&back).any(|(old, new)| old != new && *new != 5);
    assert!(!to_others);
    assert_eq!(ways(&mut kernel, Instant::from_nanos(400_000_000_000)), back, "in balance nothing moves");
}

#[test]
fn next_hops_behind_an_interface_that_is_down_are_passed_over() {
    let mut plan = plan(1, &[&["10.0.0.1/24"], &["10.1.0.250/24"], &["10.2.0.250/24"]]);
    plan.forwards_v4 = true;
    for choice in ALL {
        let mut kernel = Kernel::new(&plan, 1).unwrap();
        let mut two = hops(&[1]);
        two.push(Hop::via(ip("10.2.0.1")));
        kernel.set_route(&route(two, choice)).unwrap();
        let mut out = Out::default();
        let mut interfaces = |kernel: &mut Kernel| {
            for port in 0..64 {
                let _ = kernel.send(Instant::ZERO, udp(("10.0.0.1", port), ("203.0.113.1", 2), 0), &mut out);
            }
            out.frames.drain(..).map(|(interface, _)| interface).collect::<BTreeSet<_>>()
        };
        assert_eq!(interfaces(&mut kernel), BTreeSet::from([1, 2]));
        let mut side = Out::default();
        kernel.set_up(Instant::ZERO, Outlet::Interface(1), false, &mut side).unwrap();
        assert_eq!(interfaces(&mut kernel), BTreeSet::new(), "2 waits for an answer already");
        assert_eq!(kernel.counts().waiting, 64 + kernel_waiting_on_2(&kernel), "{choice:?}");
        assert_conserved(&kernel);
    }
}

/// Packets that waited for the second router before.
fn kernel_waiting_on_2(kernel: &Kernel) -> u64 {
    kernel.counts().waiting - 64
}

#[test]
fn by_addresses_alone_ports_do_not_count_and_errors_follow_their_flow() {
    let mut kernel = machine();
    let spread = Spread { key: SpreadKey::Addresses, choice: SpreadChoice::HashThreshold };
    let kind = RouteKind::Unicast { hops: hops(&ten()), spread };
    kernel.set_route(&Route::of_kind(prefix("0.0.0.0/0"), kind)).unwrap();
    for host in 1..100_u8 {
        let client = format!("10.0.0.{}", host % 100 + 2);
        let server = format!("203.0.113.{host}");
        let ways: BTreeSet<u8> = (0..20)
            .map(|port| router_of(&mut kernel, udp((&client, port), (&server, 443), 0), Instant::ZERO))
            .collect();
        assert_eq!(ways.len(), 1);
        // A router on the client's side says something about a packet from the server.
        let about = udp((&server, 443), (&client, 1), 0);
        let mut error =
            packet::icmp_about(Packet::default(), (3, 4), "10.0.0.201".parse().unwrap(), about.bytes())
                .unwrap();
        assert_eq!(packet::destination(error.bytes()), Some(server.parse().unwrap()));
        let way =
            router_of(&mut kernel, Packet::copied_into(Packet::default(), error.bytes_mut()), Instant::ZERO);
        assert!(ways.contains(&way), "the error takes the way of the flow");
    }
    let ways: BTreeSet<u8> = (0..200)
        .map(|host: u8| {
            router_of(&mut kernel, udp(("10.0.0.7", 1), (&format!("203.0.113.{host}"), 1), 0), Instant::ZERO)
        })
        .collect();
    assert_eq!(ways.len(), 10);
}

#[test]
fn machines_choose_apart_from_each_other() {
    let choose = |name: &str, seed| {
        let mut plan = plan(1, &[&["10.0.0.1/24"], &["10.1.0.250/24"]]);
        plan.name = name.to_owned();
        plan.routes = vec![route(hops(&[1, 2]), SpreadChoice::HashThreshold)];
        let mut kernel = Kernel::new(&plan, seed).unwrap();
        let mut out = Out::default();
        for port in 0..64 {
            kernel.send(Instant::ZERO, udp(("10.0.0.1", port), ("203.0.113.1", 2), 0), &mut out).unwrap();
        }
        let ready = |number: u8| {
            let reply = arp_reply((mac(number, 1), &format!("10.1.0.{number}")), (mac(1, 1), "10.1.0.250"));
            (number, reply)
        };
        out.frames.clear();
        for (_, reply) in [1, 2].map(ready) {
            kernel.receive(Instant::ZERO, 1, reply, &mut out);
        }
        let ways = out.frames.iter().map(|(_, frame)| (frame.bytes()[35], frame.bytes()[4]));
        ways.collect::<BTreeSet<_>>()
    };
    assert_eq!(choose("a", 1), choose("a", 1));
    assert_ne!(choose("a", 1), choose("b", 1));
    assert_ne!(choose("a", 1), choose("a", 2));
}
