//! The life of a neighbour.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn two() -> Lab {
    Lab::new(&[(plan(1, &[&["10.0.0.1/24"]]), &[0]), (plan(2, &[&["10.0.0.2/24"]]), &[0])])
}

fn state(lab: &Lab, machine: usize, address: &str) -> Option<NeighbourState> {
    lab.machines[machine].neighbour(0, ip(address)).map(|(state, _)| state)
}

/// Requests that a machine has sent: when, and to which station.
fn requests(lab: &Lab, machine: usize) -> Vec<(u64, MacAddress)> {
    let is_request = |seen: &&Seen| {
        seen.from == machine && seen.bytes.get(12..14) == Some(&[8, 6]) && seen.bytes.get(21) == Some(&1)
    };
    let asked =
        |seen: &Seen| (seen.at.as_nanos() / 1_000_000, MacAddress(seen.bytes[..6].try_into().unwrap()));
    lab.seen.iter().filter(is_request).map(asked).collect()
}

#[test]
fn nobody_answers_three_times_and_the_sender_is_told() {
    let mut lab = Lab::new(&[(plan(1, &[&["10.0.0.1/24"]]), &[0]), (plan(2, &[&["10.0.0.2/24"]]), &[0])]);
    lab.send(0, udp(("10.0.0.1", 1), ("10.0.0.50", 2), 8)).unwrap();
    lab.run(SECOND * 2);
    lab.send(0, udp(("10.0.0.1", 3), ("10.0.0.50", 2), 8)).unwrap();
    assert_eq!(state(&lab, 0, "10.0.0.50"), Some(NeighbourState::Incomplete));
    lab.run(SECOND * 5);
    assert_eq!(state(&lab, 0, "10.0.0.50"), Some(NeighbourState::Failed));
    let all = MacAddress::BROADCAST;
    assert_eq!(requests(&lab, 0), [(0, all), (1_000, all), (2_000, all)]);
    let told = lab.take(0);
    assert_eq!(told.len(), 2, "one for each packet that waited");
    for (got, port) in told.iter().zip([1, 3]) {
        assert_eq!(got.at.as_nanos(), 3_000_000_000);
        let view = packet::view(&got.bytes).unwrap();
        let kind = packet::Transport::IcmpError {
            kind: (3, 1),
            protocol: evenkeel_engine::wire::Protocol::UDP,
            mtu: None,
        };
        assert_eq!((view.transport, view.source.port), (kind, port));
    }
    assert_eq!(lab.machines[0].counts().dropped(KernelDrop::NeighbourFailed), 2);
    // The next packet asks anew, at once.
    lab.send(0, udp(("10.0.0.1", 1), ("10.0.0.50", 2), 8)).unwrap();
    assert_eq!(requests(&lab, 0).last(), Some(&(7_000, all)));
    lab.assert_conserved();
}

#[test]
fn packets_wait_in_order_and_the_oldest_gives_way() {
    let mut kernel = Kernel::new(&plan(1, &[&["10.0.0.1/24"]]), 1).unwrap();
    let mut out = Out::default();
    let now = Instant::from_nanos(1);
    for number in 0..110 {
        kernel.send(now, udp(("10.0.0.1", number), ("10.0.0.2", 9), 8), &mut out).unwrap();
    }
    assert_eq!(kernel.counts().waiting, 101);
    assert_eq!(kernel.counts().dropped(KernelDrop::NeighbourQueueFull), 9);
    out.frames.clear();
    let reply = arp_reply((mac(2, 0), "10.0.0.2"), (mac(1, 0), "10.0.0.1"));
    kernel.receive(now, 0, reply, &mut out);
    let ports: Vec<u16> =
        out.frames.iter().map(|(_, frame)| packet::view(&frame.bytes()[14..]).unwrap().source.port).collect();
    assert_eq!(ports, (9..110).collect::<Vec<_>>());
    assert_eq!(kernel.counts().waiting, 0);
    assert_conserved(&kernel);
}

#[test]
fn a_neighbour_that_is_used_is_asked_again_and_one_that_is_not_becomes_stale() {
    let mut lab = two();
    // Both send every second: whoever is confirmed by nothing is asked, and answers.
    for _ in 0..120 {
        lab.send(0, udp(("10.0.0.1", 1), ("10.0.0.2", 2), 8)).unwrap();
        lab.run(SECOND);
    }
    let asked = requests(&lab, 0);
    assert_eq!(asked[0], (0, MacAddress::BROADCAST));
    assert!(asked[1..].iter().all(|(_, to)| *to == mac(2, 0)), "later ones go to the station alone");
    assert!((3..=7).contains(&asked.len()), "every 20 to 50 seconds: {asked:?}");
    for pair in asked.windows(2) {
        let gap = pair[1].0 - pair[0].0;
        assert!((20_000..=51_000).contains(&gap), "15 to 45 s reachable, 5 s delay: {gap}");
    }
    assert_eq!(lab.take(1).len(), 120, "none was lost meanwhile");
    lab.run(SECOND * 60);
    assert_eq!(state(&lab, 0, "10.0.0.2"), Some(NeighbourState::Stale));
    let before = requests(&lab, 0).len();
    lab.run(SECOND * 600);
    assert_eq!(requests(&lab, 0).len(), before, "nobody asks for what nobody uses");
    lab.send(0, udp(("10.0.0.1", 1), ("10.0.0.2", 2), 8)).unwrap();
    assert_eq!(state(&lab, 0, "10.0.0.2"), Some(NeighbourState::Delay));
    lab.run(Duration::from_millis(1));
    assert_eq!(lab.take(1).len(), 1, "it is sent to meanwhile");
    lab.run(SECOND * 6);
    assert_eq!(state(&lab, 0, "10.0.0.2"), Some(NeighbourState::Reachable));
}

#[test]
fn a_neighbour_that_layer_4_confirms_is_not_asked() {
    let mut lab = two();
    for _ in 0..200 {
        lab.send(0, udp(("10.0.0.1", 1), ("10.0.0.2", 2), 8)).unwrap();
        lab.with(0, |kernel, now, _| kernel.confirm(now, ip("10.0.0.2")));
        lab.run(SECOND);
    }
    assert_eq!(requests(&lab, 0).len(), 1);
    assert!(lab.machines[0].is_resolved(0, ip("10.0.0.2")));
}

#[test]
fn a_station_that_is_gone_fails_after_three_questions_to_it() {
    let mut lab = two();
    lab.send(0, udp(("10.0.0.1", 1), ("10.0.0.2", 2), 8)).unwrap();
    lab.run(SECOND);
    lab.networks[0].set_up(1, false);
    for _ in 0..60 {
        lab.send(0, udp(("10.0.0.1", 1), ("10.0.0.2", 2), 8)).unwrap();
        lab.run(SECOND);
        if state(&lab, 0, "10.0.0.2") == Some(NeighbourState::Failed) {
            break;
        }
    }
    let asked = requests(&lab, 0);
    let to_one: Vec<_> = asked.iter().filter(|(_, to)| *to == mac(2, 0)).collect();
    assert_eq!(to_one.len(), 3, "{asked:?}");
    assert_eq!(state(&lab, 0, "10.0.0.2"), Some(NeighbourState::Failed));
}

#[test]
fn of_two_answers_at_once_the_first_counts_and_a_later_one_after_the_lock_time() {
    let mut kernel = Kernel::new(&plan(1, &[&["10.0.0.1/24"]]), 1).unwrap();
    let mut out = Out::default();
    let at = |milliseconds: u64| Instant::from_nanos(milliseconds * 1_000_000);
    kernel.send(at(0), udp(("10.0.0.1", 1), ("10.0.0.9", 2), 8), &mut out).unwrap();
    let claim = |kernel: &mut Kernel, out: &mut Out, milliseconds, station| {
        let reply = arp_reply((mac(station, 0), "10.0.0.9"), (mac(1, 0), "10.0.0.1"));
        kernel.receive(at(milliseconds), 0, reply, out);
        kernel.neighbour(0, ip("10.0.0.9")).map(|(_, mac)| mac)
    };
    assert_eq!(claim(&mut kernel, &mut out, 1, 2), Some(mac(2, 0)));
    assert_eq!(claim(&mut kernel, &mut out, 2, 3), Some(mac(2, 0)));
    assert_eq!(claim(&mut kernel, &mut out, 1_001, 3), Some(mac(2, 0)));
    assert_eq!(claim(&mut kernel, &mut out, 1_002, 3), Some(mac(3, 0)));
    assert_eq!(kernel.counts().neighbours_changed, 1);
}

#[test]
fn an_answer_that_nobody_asked_for_is_not_learned() {
    let mut kernel = Kernel::new(&plan(1, &[&["10.0.0.1/24"]]), 1).unwrap();
    let mut out = Out::default();
    let reply = arp_reply((mac(2, 0), "10.0.0.2"), (mac(1, 0), "10.0.0.1"));
    kernel.receive(Instant::ZERO, 0, reply, &mut out);
    assert_eq!(kernel.neighbour(0, ip("10.0.0.2")), None);
    // A request for somebody else changes who is known, and makes nobody known.
    kernel.receive(Instant::ZERO, 0, arp_request(mac(2, 0), "10.0.0.2", "10.0.0.3"), &mut out);
    assert_eq!(kernel.neighbour(0, ip("10.0.0.2")), None);
    kernel.receive(Instant::ZERO, 0, arp_request(mac(2, 0), "10.0.0.2", "10.0.0.1"), &mut out);
    assert_eq!(kernel.neighbour(0, ip("10.0.0.2")), Some((NeighbourState::Stale, mac(2, 0))));
    let later = Instant::from_nanos(2_000_000_000);
    kernel.receive(later, 0, arp_request(mac(3, 0), "10.0.0.2", "10.0.0.3"), &mut out);
    assert_eq!(kernel.neighbour(0, ip("10.0.0.2")), Some((NeighbourState::Stale, mac(3, 0))));
    assert_conserved(&kernel);
}

#[test]
fn the_table_has_a_bound_and_idle_ones_give_way() {
    let mut plan = plan(1, &[&["10.0.0.1/16"]]);
    plan.neighbours_max = 200;
    let mut kernel = Kernel::new(&plan, 1).unwrap();
    let mut out = Out::default();
    let station = |number: u16| format!("10.0.{}.{}", 1 + number / 200, 1 + number % 200);
    let greet = |kernel: &mut Kernel, out: &mut Out, number: u16, now| {
        let [high, low] = number.to_be_bytes();
        let frame = arp_request(MacAddress([2, 0, 0, 1, high, low]), &station(number), "10.0.0.1");
        kernel.receive(now, 0, frame, out);
        kernel.neighbour(0, ip(&station(number))).is_some()
    };
    assert!((0..200).all(|number| greet(&mut kernel, &mut out, number, Instant::ZERO)));
    assert!(!greet(&mut kernel, &mut out, 200, Instant::ZERO), "all are fresh");
    let result = kernel.send(Instant::ZERO, udp(("10.0.0.1", 1), (&station(201), 2), 8), &mut out);
    assert_eq!(result, Err(KernelDrop::NeighbourTableFull));
    let later = Instant::from_nanos(6_000_000_000);
    assert!(greet(&mut kernel, &mut out, 202, later), "those that nothing waits for give way");
    assert_conserved(&kernel);
}

#[test]
fn few_neighbours_are_never_forgotten() {
    let mut lab = two();
    lab.send(0, udp(("10.0.0.1", 1), ("10.0.0.2", 2), 8)).unwrap();
    lab.run(SECOND * 86_400);
    assert_eq!(state(&lab, 0, "10.0.0.2"), Some(NeighbourState::Stale));
    assert_eq!(lab.machines[0].deadline(), Instant::NEVER);
}

#[test]
fn frames_for_others_and_frames_cut_short_end() {
    let mut kernel = Kernel::new(&plan(1, &[&["10.0.0.1/24"]]), 1).unwrap();
    let mut out = Out::default();
    let now = Instant::ZERO;
    kernel.receive(now, 0, framed(mac(2, 0), mac(3, 0), udp(("10.0.0.2", 1), ("10.0.0.1", 2), 8)), &mut out);
    kernel.receive(now, 0, Packet::copied_into(Packet::default(), &[1; 13]), &mut out);
    kernel.receive(now, 5, Packet::copied_into(Packet::default(), &[1; 60]), &mut out);
    let mut cut = arp_request(mac(2, 0), "10.0.0.2", "10.0.0.1");
    cut.cut_to(cut.len() - 1);
    kernel.receive(now, 0, cut, &mut out);
    let dropped = |reason| kernel.counts().dropped(reason);
    assert_eq!(dropped(KernelDrop::OtherHost), 1);
    assert_eq!(dropped(KernelDrop::Malformed), 2);
    assert_eq!(dropped(KernelDrop::InterfaceDown), 1);
    assert_conserved(&kernel);
}
