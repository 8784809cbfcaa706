//! What should not be on the wires, put there on purpose: each violation is found once, and named.

use evenkeel_engine::Duration;
use evenkeel_engine::plan::{
    Binding, Builtin, DirectorPlan, FlowAction, FlowPlan, FlowRule, PolicyPlan, ServerPlan,
};

use super::*;
use crate::packet::{AnyEnd, End, Header};
use crate::payload::Message;
use crate::random::Stream;
use crate::wires::{Quality, Wire};

const CLIENT: usize = 0;
const OTHER: usize = 1;
const SERVER: usize = 2;
const LB_A: usize = 3;
const LB_B: usize = 4;

fn end(address: &str, port: u16) -> AnyEnd {
    End { address: address.parse().unwrap(), port }
}

fn client(port: u16) -> AnyEnd {
    end("192.0.2.1", port)
}

fn vip() -> AnyEnd {
    end("10.0.0.3", 80)
}

fn server() -> AnyEnd {
    end("10.0.3.20", 80)
}

fn station(machine: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, u8::try_from(machine).unwrap()]
}

fn checker() -> Checker {
    let mut names = Names::default();
    let machines = [
        ("client", "192.0.2.1"),
        ("other", "192.0.2.2"),
        ("server", "10.0.3.20"),
        ("lb-a", "10.0.3.1"),
        ("lb-b", "10.0.3.2"),
    ];
    for (number, (name, address)) in machines.into_iter().enumerate() {
        names.machine(name, number <= SERVER);
        names.station_of(number, station(number), number >= LB_A);
        names.address_of(number, address.parse().unwrap(), false);
    }
    names.vip(vip().address);
    names.client(client(0).address);
    names.client(end("192.0.2.2", 0).address);
    Checker::new(names, false)
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO.after(Duration::from_secs(seconds))
}

fn tcp(from: AnyEnd, to: AnyEnd, sequence: u32, flags: Flags) -> Packet {
    let segment = Segment { sequence, acknowledgement: 0, flags, window: 1_000 };
    packet::build(Packet::default(), (from, to), Header::Tcp(segment), 0, |_| {})
}

fn request(from: AnyEnd, to: AnyEnd, pattern: u32) -> Packet {
    let message = Message::request(20, 20, pattern);
    packet::build(Packet::default(), (from, to), Header::Udp, 20, |bytes| message.write(0, bytes))
}

impl Checker {
    fn see(&mut self, seconds: u64, machine: usize, from: usize, packet: &Packet) {
        self.look_at(at(seconds), machine, station(from), packet.bytes());
    }

    /// A connection of a client is opened by lb-a towards the real server, whatever it is called there.
    fn open(&mut self, seconds: u64, from: AnyEnd, there: AnyEnd, number: u32) {
        self.see(seconds, LB_A, CLIENT, &tcp(from, vip(), number, Flags::SYN));
        self.see(seconds, SERVER, LB_A, &tcp(there, server(), number, Flags::SYN));
    }

    fn sentences(&self) -> Vec<&str> {
        self.findings.sentences.iter().map(String::as_str).collect()
    }
}

#[test]
fn what_is_as_it_should_be_is_no_finding() {
    let mut checker = checker();
    checker.serves(at(0), LB_A, server().address, true);
    checker.open(1, client(1), client(1), 100);
    let answer = Flags::SYN.with(Flags::ACK);
    checker.see(1, LB_A, SERVER, &tcp(server(), client(1), 7, answer));
    checker.see(1, CLIENT, LB_A, &tcp(vip(), client(1), 7, answer));
    let snat = end("10.0.3.1", 5_000);
    checker.open(2, client(2), snat, 200);
    checker.see(2, LB_A, SERVER, &tcp(server(), snat, 7, answer));
    checker.see(2, CLIENT, LB_A, &tcp(vip(), client(2), 7, answer));
    assert_eq!(checker.findings, Findings::default());
}

#[test]
fn a_new_flow_to_a_drained_server_is_found_and_an_old_one_is_none() {
    for snat in [false, true] {
        let mut checker = checker();
        let there = |port| if snat { end("10.0.3.1", port) } else { client(port) };
        checker.serves(at(0), LB_A, server().address, true);
        checker.open(1, client(1), there(1), 100);
        checker.serves(at(2), LB_A, server().address, false);
        checker.see(3, SERVER, LB_A, &tcp(there(1), server(), 101, Flags::ACK));
        assert_eq!(checker.findings.counts.out_of_service, 0, "it had that one already");
        checker.open(3, client(2), there(2), 200);
        checker.see(4, SERVER, LB_A, &tcp(there(2), server(), 200, Flags::SYN));
        assert_eq!(checker.findings.counts.out_of_service, 1, "once for each flow");
        let sentence = "server gets new flows to 10.0.0.3 from lb-a, where it is drained or down";
        assert_eq!(checker.sentences(), [sentence]);
        checker.serves(at(5), LB_A, server().address, true);
        checker.open(6, client(3), there(3), 300);
        assert_eq!(checker.findings.counts.out_of_service, 1);
    }
}

#[test]
fn answers_of_a_removed_server_are_its_removals() {
    let real = ServerPlan::new("s1", server().address, server().port, 1);
    let bind = Binding::of(vip().address, 80, Protocol::TCP);
    let director = DirectorPlan::new("web", bind, Builtin::RoundRobin, vec![real]);
    let plan = Plan { directors: vec![director], ..Plan::empty() };
    let mut checker = checker();
    checker.told(at(0), LB_A, &plan);
    checker.open(1, client(1), client(1), 100);
    checker.told(at(2), LB_A, &Plan::empty());
    let answer = tcp(server(), client(1), 7, Flags::ACK);
    checker.see(3, CLIENT, LB_A, &answer);
    assert_eq!(checker.findings.counts.foreign_answers, 0);
    let removed = "server was removed from lb-a with flows open: its answers to them are no longer translated; drain it \
                   first (weight 0)";
    assert_eq!(checker.sentences(), [removed]);
    checker.open(4, client(2), client(2), 200);
    assert_eq!(checker.findings.counts.out_of_service, 1, "it gets no new flows");
    checker.told(at(5), LB_A, &plan);
    checker.serves(at(5), LB_A, server().address, true);
    checker.see(6, CLIENT, LB_A, &answer);
    assert_eq!(
        checker.findings.counts.foreign_answers, 0,
        "the forwarder has forgotten the flow all the same"
    );
    checker.open(7, client(3), client(3), 300);
    checker.see(8, CLIENT, LB_A, &tcp(server(), client(3), 7, Flags::ACK));
    assert_eq!(checker.findings.counts.foreign_answers, 1, "it is there again, and not translated");
}

#[test]
fn a_late_translated_packet_is_no_new_call() {
    for is_datagram in [false, true] {
        let mut checker = checker();
        checker.serves(at(0), LB_A, server().address, true);
        let protocol = if is_datagram { Protocol::UDP } else { Protocol::TCP };
        let packet = |to| match is_datagram {
            true => request(client(1), to, 9),
            false => tcp(client(1), to, 100, Flags::SYN),
        };
        checker.see(1, LB_A, CLIENT, &packet(vip()));
        checker.ended(CLIENT, Some((protocol, client(1))), None, &|_| Witness::default());
        checker.see(2, SERVER, LB_A, &packet(server()));
        assert_eq!(checker.calls.get(&(protocol, client(1))).unwrap().called, vip());
        let another = match is_datagram {
            true => request(client(1), server(), 11),
            false => tcp(client(1), server(), 900, Flags::SYN),
        };
        checker.see(200, SERVER, CLIENT, &another);
        assert_eq!(
            checker.calls.get(&(protocol, client(1))).unwrap().called,
            server(),
            "nothing is that late"
        );
    }
}

#[test]
fn the_port_of_a_tunnel_is_a_client_s_as_any_other() {
    for (there, at_machine) in [(client(6_080), CLIENT), (end("10.0.3.1", 6_080), LB_A)] {
        let mut checker = checker();
        let answer =
            packet::build(Packet::default(), (server(), there), Header::Udp, 64, |bytes| bytes.fill(0x45));
        checker.see(1, at_machine, SERVER, &answer);
        assert_eq!(checker.findings.counts.bad_packets, 0);
    }
}

#[test]
fn in_gateway_mode_a_drained_server_is_found_by_its_own_address() {
    let mut checker = checker();
    checker.serves(at(0), LB_A, server().address, false);
    checker.see(1, LB_A, CLIENT, &tcp(client(1), vip(), 100, Flags::SYN));
    checker.see(1, SERVER, LB_A, &tcp(client(1), vip(), 100, Flags::SYN));
    assert_eq!(checker.findings.counts.out_of_service, 1);
}

#[test]
fn a_denied_flow_that_reaches_a_server_is_found() {
    let mut checker = checker();
    let rules = vec![FlowRule::matching(Vec::new())];
    let flow = FlowPlan { name: "thieves".to_owned(), action: FlowAction::Deny, rules };
    let plan = Plan { policies: vec![PolicyPlan::Rules(vec![flow])], ..Plan::empty() };
    checker.told(at(0), LB_A, &plan);
    checker.see(1, LB_A, CLIENT, &tcp(client(1), vip(), 100, Flags::SYN));
    assert_eq!(checker.findings.counts.denied, 0, "it may knock");
    checker.see(1, SERVER, LB_A, &tcp(end("10.0.3.1", 5_000), server(), 100, Flags::SYN));
    assert_eq!(checker.findings.counts.denied, 1);
    assert_eq!(checker.sentences(), ["server gets flows to 10.0.0.3 that a rule of lb-a denies"]);
    checker.see(2, LB_A, CLIENT, &request(client(2), vip(), 9));
    checker.see(2, SERVER, LB_A, &request(end("10.0.3.1", 5_000), server(), 9));
    assert_eq!(checker.findings.counts.denied, 2, "datagrams are known by what they ask");
}

#[test]
fn one_port_for_two_flows_at_once_is_found() {
    let mut checker = checker();
    let port = end("10.0.3.1", 5_000);
    checker.open(1, client(1), port, 100);
    checker.open(2, end("192.0.2.2", 1), port, 900);
    assert_eq!(checker.findings.counts.tuples_shared, 1);
    let sentence = "10.0.3.1 port 5000 stands for flows of other and of client at server at once";
    assert_eq!(checker.sentences(), [sentence]);
    // Once the client is done with a flow its port may be another's.
    checker.ended(OTHER, Some((Protocol::TCP, end("192.0.2.2", 1))), None, &|_| Witness::default());
    checker.open(3, client(3), port, 1_900);
    assert_eq!(checker.findings.counts.tuples_shared, 1);
}

#[test]
fn a_port_that_the_server_waits_on_is_not_to_be_used() {
    let mut checker = checker();
    let port = end("10.0.3.1", 5_000);
    let fin = Flags::FIN.with(Flags::ACK);
    checker.open(1, client(1), port, 100);
    checker.see(2, LB_A, SERVER, &tcp(server(), port, 7, fin));
    checker.see(2, SERVER, LB_A, &tcp(port, server(), 500, fin));
    checker.ended(CLIENT, Some((Protocol::TCP, client(1))), None, &|_| Witness::default());
    checker.open(30, client(2), port, 90);
    assert_eq!(checker.findings.counts.tuples_early, 1);
    let sentence = "10.0.3.1 uses ports towards server again while server waits (TIME-WAIT)";
    assert_eq!(checker.sentences(), [sentence]);
}

#[test]
fn answers_at_another_forwarder_are_named_with_their_way() {
    for snat in [false, true] {
        let mut checker = checker();
        let there = if snat { end("10.0.3.1", 5_000) } else { client(1) };
        checker.open(1, client(1), there, 100);
        checker.see(1, LB_B, SERVER, &tcp(server(), there, 7, Flags::SYN.with(Flags::ACK)));
        assert_eq!(checker.findings.counts.strayed_answers, 1);
        assert_eq!(
            checker.sentences(),
            [
                "answers of server to flows of lb-a come to lb-b: the path is asymmetric; give server a route back by \
              lb-a, or each forwarder source addresses of its own"
            ]
        );
    }
}

#[test]
fn a_break_has_its_cause_from_what_was_on_the_wires() {
    let mut checker = checker();
    checker.open(1, client(1), client(1), 100);
    checker.see(2, LB_B, CLIENT, &tcp(client(1), vip(), 101, Flags::ACK));
    let key = Some((Protocol::TCP, client(1)));
    let cause = checker.ended(CLIENT, key, Some(Cause::Reset), &|_| Witness::default());
    assert_eq!(cause, Some(BreakCause::ForwarderMoved));
    assert_eq!(checker.findings.breaks.get(&BreakCause::ForwarderMoved), Some(&1));
    assert_eq!(checker.ended(CLIENT, key, None, &|_| Witness::default()), None);

    // A flow that one tunnel brings to one real server and the next to another.
    let mut tunnelled = request(client(2), vip(), 5).bytes().to_vec();
    let outer = request(end("10.0.3.1", 0), server(), 0);
    let mut packet = outer.bytes().get(..20).unwrap().to_vec();
    packet[9] = 4;
    packet.append(&mut tunnelled);
    let length = u16::try_from(packet.len()).unwrap().to_be_bytes();
    packet[2..4].copy_from_slice(&length);
    packet::mend_header(&mut packet);
    let packet = Packet::copied_into(Packet::default(), &packet);
    checker.see(3, LB_A, CLIENT, &request(client(2), vip(), 5));
    checker.see(3, SERVER, LB_A, &packet);
    checker.see(4, OTHER, LB_A, &packet);
    let key = Some((Protocol::UDP, client(2)));
    let cause = checker.ended(CLIENT, key, Some(Cause::ServerChanged), &|_| Witness::default());
    assert_eq!(cause, Some(BreakCause::TableMoved));
    assert!(
        checker
            .sentences()
            .contains(&"flows to 10.0.0.3 broke because lb-a sent them to server and then to other")
    );
}

#[test]
fn a_changed_byte_is_found_unless_cables_corrupt() {
    let mut packet = request(client(1), vip(), 5);
    *packet.bytes_mut().last_mut().unwrap() ^= 1;
    for is_corrupting in [false, true] {
        let mut checker = checker();
        checker.is_corrupting = is_corrupting;
        checker.see(1, LB_A, CLIENT, &packet);
        assert_eq!(checker.findings.counts.bad_packets, 1);
        assert_eq!(checker.sentences().is_empty(), is_corrupting);
    }
}

/// A frame of one hop of a call, mostly; now and then one that nobody expects.
fn drawn(draw: &mut Stream) -> (usize, Vec<u8>) {
    let mut below = |bound: u64| usize::try_from(draw.below(bound)).unwrap();
    let own = client(u16::try_from(1 + below(3)).unwrap());
    let (forwarder, from) = (if below(20) == 0 { LB_B } else { LB_A }, below(4));
    let (machine, station_of, ends) = match from {
        0 => (forwarder, CLIENT, (own, vip())),
        1 => (SERVER, forwarder, (own, server())),
        2 => (forwarder, SERVER, (server(), own)),
        _ => (CLIENT, forwarder, (vip(), own)),
    };
    let ends = if below(30) == 0 { (ends.0, end("10.0.3.9", 80)) } else { ends };
    let flags = [Flags::SYN, Flags::FIN, Flags::RST].get(below(12)).copied().unwrap_or(Flags::ACK);
    let packet = if below(2) == 0 {
        tcp(ends.0, ends.1, u32::try_from(below(3)).unwrap(), flags)
    } else {
        request(ends.0, ends.1, u32::try_from(below(2)).unwrap())
    };
    let mut frame = [&station(machine)[..], &station(station_of), &[8, 0], packet.bytes()].concat();
    if below(15) == 0 {
        let place = 14 + below(u64::try_from(frame.len() - 14).unwrap());
        frame[place] ^= 1 << below(8);
    }
    if below(15) == 0 {
        frame.push(7);
    }
    (machine, frame)
}

#[test]
fn habits_change_nothing_that_is_seen_or_found() {
    let cable = |machine| {
        let wire = || Wire::new(Quality::default(), 1, "cable", "there");
        let end = Socket::Machine { machine, interface: 0 };
        Cable { segment: 0, ends: [end, end], wires: [wire(), wire()] }
    };
    for seed in 0..40 {
        let mut draw = Stream::new(seed, "checker", "habits");
        let (mut usual, mut thorough) = (checker(), checker());
        let mut hits = 0;
        for second in 0..600 {
            let (machine, frame) = drawn(&mut draw);
            let over = client(u16::try_from(1 + draw.below(3)).unwrap());
            let is_over = draw.below(20) == 0;
            let path = habits::read(&frame).and_then(|said| Path::of(&frame, said, machine, 0));
            hits += usize::from(path.is_some_and(|path| usual.habits.find(&path).is_some()));
            thorough.habits = Habits::default();
            for checker in [&mut usual, &mut thorough] {
                let socket = Socket::Machine { machine, interface: 0 };
                let mut packet = Packet::copied_into(Packet::default(), &frame);
                checker.frame(at(second / 4), &cable(machine), socket, &mut packet);
                if let Some(said) = packet.sound(14) {
                    let view = packet::view(&frame[14..]).unwrap();
                    assert_eq!(
                        (view.source, view.destination),
                        (said.source().any(), said.destination().any())
                    );
                }
                if is_over {
                    checker.ended(CLIENT, Some((Protocol::UDP, over)), None, &|_| Witness::default());
                }
            }
            let seen = |checker: &Checker| {
                (format!("{:?} {:?}", checker.calls, checker.tuples), checker.findings.clone())
            };
            assert_eq!(seen(&usual), seen(&thorough), "seed {seed}, frame {second} at {machine}: {frame:?}");
        }
        assert!(hits > 100, "{hits}");
    }
}
