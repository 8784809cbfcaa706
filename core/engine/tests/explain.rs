//! What is told of a packet is what then becomes of it, and to tell it changes nothing: in random worlds, with every
//! built-in scheduler.
#![allow(
    clippy::wildcard_enum_match_arm,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use crate::support::{self, Memory as Cable, *};
use etherparse::PacketBuilder;
use evenkeel_engine::device::Offload;
use evenkeel_engine::director::{Scheduler, Selection, ServerView};
use evenkeel_engine::journal::{Account, Filter, Journal, Quality, Step, Wish};
use evenkeel_engine::plan::{
    Builtin, Condition, FlowAction, FlowPlan, FlowRule, GuestPlan, Layer, Limit, LimitKey, MidStream, Mode,
    Persistence, Ping, Plan, PolicyGuestPlan, PolicyPlan, Prefix, RoutePlan, SchedulerPlan, SourceNat,
    TablePlan, Test,
};
use evenkeel_engine::policy::{Policy, PolicyAnswer, PolicyFlow, PolicyVerdict};
use evenkeel_engine::wire::ethernet::MacAddress;
use evenkeel_engine::wire::{HashKey, Protocol};
use evenkeel_engine::{
    DropReason, Duration, Engine, Explanation, Guests, Instant, InterfaceId, Memory, MemoryError, Verdict,
    step,
};
use proptest::prelude::*;

const MACS: [MacAddress; 2] = [MacAddress([2, 0, 0, 0, 3, 0]), MacAddress([2, 0, 0, 0, 3, 1])];
const NEIGHBOUR: MacAddress = MacAddress([2, 0, 0, 0, 9, 9]);
const STEPS: usize = 60;

/// Numbers that are as good as random.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

fn network(text: &str, length: u8) -> Prefix {
    Prefix { address: text.parse().unwrap(), length }
}

fn condition(random: &mut Random) -> Condition {
    let ports =
        random.of(&[80..=80, 1..=79, 40_000..=40_003_u16].map(|range| (*range.start(), *range.end())));
    let limit = Limit {
        count: 1 + random.below(3) as u32,
        period: Duration::from_secs(1),
        burst: 1 + random.below(2) as u32,
        key: random.of(&[LimitKey::All, LimitKey::Source(32, 128), LimitKey::Destination(24, 64)]),
    };
    let test = match random.below(8) {
        0 => Test::source(network("192.0.2.8", 29)),
        1 => Test::source(network("192.0.2.12", 30)),
        2 => Test::destination(network("10.0.0.3", 32)),
        3 => Test::destination_port(ports.0..=ports.1),
        4 => Test::Protocol(random.of(&[Protocol::TCP, Protocol::UDP, Protocol::ICMP])),
        5 => Test::Interface(InterfaceId(random.below(2) as u16)),
        _ => Test::Limit(limit),
    };
    Condition { is_negated: random.one_in(4), test }
}

fn flows(random: &mut Random, actions: &[FlowAction]) -> Vec<FlowPlan> {
    let rule = |random: &mut Random| FlowRule {
        is_match: !random.one_in(4),
        conditions: (0..random.below(3)).map(|_| condition(random)).collect(),
        comment: String::new(),
    };
    (0..random.below(4))
        .map(|number| FlowPlan {
            name: format!("f{number}"),
            action: random.of(actions),
            rules: (0..1 + random.below(3)).map(|_| rule(random)).collect(),
        })
        .collect()
}

/// A plan with small bounds, so that all of them are met.
fn world(random: &mut Random, scheduler: Builtin, is_ethernet: bool) -> Plan {
    let mut plan = plan();
    plan.interfaces = (0..2_u8)
        .map(|number| {
            let mut one = interface(&format!("eth{number}"), Ipv4Addr::new(10, number * 3, 0, 2), 16);
            if is_ethernet {
                one.layer = Layer::Ethernet(MACS[usize::from(number)]);
            }
            one.mtu_bytes = random.of(&[1500, 600]);
            one
        })
        .collect();
    plan.interfaces[0].passes_to = random.one_in(4).then_some(InterfaceId(1));
    let gateway = Some(IpAddr::from([10, 0, 0, 1]));
    plan.routes = vec![RoutePlan { destination: network("0.0.0.0", 0), gateway, interface: InterfaceId(0) }];
    let through = RoutePlan { destination: network("0.0.0.0", 0), gateway: None, interface: InterfaceId(1) };
    plan.tables = vec![TablePlan { id: 200, routes: vec![through] }];
    let [permit, deny] = [FlowAction::Permit, FlowAction::Deny];
    let actions = [permit, deny, FlowAction::Director(0), FlowAction::Director(1), FlowAction::Table(0)];
    plan.policies = vec![PolicyPlan::Rules(flows(random, &actions))];
    plan.outflows = flows(random, &[permit, deny, FlowAction::Table(0)]);
    // An outflow decides once for both directions: it has no limits.
    let rules = plan.outflows.iter_mut().flat_map(|flow| &mut flow.rules);
    rules.for_each(|rule| rule.conditions.retain(|one| !matches!(one.test, Test::Limit(_))));
    plan.default_permit = !random.one_in(4);
    plan.limits.flows_max = random.of(&[3, 8, 1000]);
    plan.limits.half_open_max = random.of(&[1, 2, 100]);
    plan.limits.flows_per_client = random.of(&[0, 0, 2]);
    plan.limits.persistent_max = random.of(&[1, 2, 100]);
    plan.limits.answers_per_second = random.of(&[1, 100]);
    plan.handling.cuts = random.one_in(2);
    plan.handling.expires_nodest = random.one_in(2);
    plan.handling.tells_exhausted = random.one_in(2);
    plan.handling.verifies_checksums = random.one_in(4);
    plan.handling.routes_replies = random.one_in(4);
    for director in &mut plan.directors {
        director.scheduler = SchedulerPlan::Builtin(scheduler);
        director.servers[0].weight = random.below(3) as u32;
        director.servers[1].flows_upper = random.of(&[0, 0, 2]);
        director.mid_stream = random.of(&[MidStream::Refuse, MidStream::Drop, MidStream::Pick]);
        director.ping = random.of(&[Ping::WhenUsable, Ping::Always]);
        director.persistence = random.one_in(3).then_some(Persistence {
            timeout: Duration::from_secs(2),
            length_v4: random.of(&[32, 30]),
            length_v6: 128,
        });
        director.mode = match random.below(5) {
            0 => Mode::Gateway,
            1 => Mode::Nat { sources: vec![SourceNat::to(OWN.into(), 5000..=5002)] },
            _ => Mode::Nat { sources: vec![] },
        };
        if matches!(director.mode, Mode::Gateway) {
            director.servers.iter_mut().for_each(|server| server.port = 80);
        }
    }
    let translates = matches!(&plan.directors[1].mode, Mode::Nat { sources } if !sources.is_empty());
    plan.directors[1].is_one_packet = !translates && random.one_in(3);
    plan
}

/// A packet of a client, or what a real server would answer to `last`.
fn packet(random: &mut Random, last: &[u8]) -> Vec<u8> {
    let client = Ipv4Addr::new(192, 0, 2, 10 + random.below(3) as u8);
    let to = if random.one_in(12) { Ipv4Addr::new(10, 0, 0, 9) } else { VIP };
    let ends = ends(client, 40_000 + random.below(2) as u16, to, random.of(&[80, 80, 80, 81]));
    let size = random.of(&[0, 0, 10, 900]);
    let payload = vec![7; size];
    let is_answer = last.len() >= 28 && last[0] == 0x45 && last[9] != 1 && random.one_in(2);
    if is_answer {
        let port = |at: usize| u16::from_be_bytes([last[at], last[at + 1]]);
        let address = |at: usize| Ipv4Addr::new(last[at], last[at + 1], last[at + 2], last[at + 3]);
        let back = support::ends(address(16), port(22), address(12), port(20));
        return match last[9] {
            6 => segment(back, random.of(&["SA", "A", "FA", "R"]), 2000, 1001, &payload),
            _ => udp(back, &payload),
        };
    }
    match random.below(10) {
        0 => echo_request(to),
        1 => {
            let mut whole = udp(ends, &vec![1; 900]);
            whole[6] = 0x20;
            whole.truncate(20 + 8 * 20);
            let total = whole.len() as u16;
            whole[2..4].copy_from_slice(&total.to_be_bytes());
            if random.one_in(2) {
                whole[6..8].copy_from_slice(&20_u16.to_be_bytes());
            }
            mended(whole)
        }
        2..=4 => udp(ends, &payload),
        5 if random.one_in(2) => {
            let mut old = tcp(ends, "S", b"");
            old[8] = 1;
            mended(old)
        }
        6 => error_about(last),
        _ => tcp(ends, random.of(&["S", "S", "S", "A", "FA", "R"]), &payload),
    }
}

/// An ICMP error of a router about what left last.
fn error_about(last: &[u8]) -> Vec<u8> {
    let quote = &last[..last.len().min(28)];
    let target = if quote.len() == 28 { [quote[12], quote[13], quote[14], quote[15]] } else { [10, 0, 0, 3] };
    let builder = PacketBuilder::ipv4([10, 3, 0, 77], target, 64).icmpv4_raw(3, 1, [0; 4]);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, quote).unwrap();
    bytes
}

fn frame(mac: MacAddress, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&mac.0[..], &NEIGHBOUR.0, &kind.to_be_bytes(), payload].concat()
}

/// Says who `sender` is.
fn arp_reply(own: MacAddress, sender: [u8; 4]) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 2];
    frame(own, 0x0806, &[&head[..], &NEIGHBOUR.0, &sender, &own.0, &[10, 0, 0, 2]].concat())
}

/// Sends one packet; what leaves, and how the walk ended.
fn send(
    engine: &mut Engine,
    packet: &[u8],
    interface: u16,
    now: Instant,
) -> (Vec<(InterfaceId, Vec<u8>)>, Verdict) {
    let mut device = Cable::new();
    device.inbox.push_back((InterfaceId(interface), packet.to_vec(), Offload::default()));
    step(engine, &mut device, now);
    let end = device.ends.first().map_or_else(|| Verdict::Forward(device.outbox[0].0), |(_, end)| *end);
    (device.outbox, end)
}

/// What leaves as it is told: the packet itself, then what is born.
fn told_to_leave(told: &Explanation) -> (Vec<(InterfaceId, Vec<u8>)>, Verdict) {
    let end = told.account.end.unwrap();
    let itself = match end {
        Verdict::Forward(out) | Verdict::Answer(out) => Some((out, told.account.after.clone())),
        Verdict::Replace(_) | Verdict::Hold | Verdict::Consume | Verdict::Drop(_) => None,
    };
    (itself.into_iter().chain(told.born.iter().cloned()).collect(), end)
}

/// A new engine that is given what the decision looked at decides alike.
fn replay(engine: &Engine, told: &Explanation) {
    let state = match engine.remember(told) {
        Ok(state) => state,
        Err(error) => {
            assert!(matches!(error, MemoryError::Gone | MemoryError::Neighbours), "{error}");
            return;
        }
    };
    let memory = Memory::read(&state).unwrap();
    let mut plan = engine.plan().clone();
    (plan.seed, plan.hash_key) = (99, HashKey([7, 7]));
    memory.complete(&mut plan);
    let again = |is_as_told| {
        let mut engine = support::engine(plan.clone());
        engine.transmit(&mut Cable::new());
        engine.recall(&memory, is_as_told).unwrap();
        engine.explain(&memory.packet, memory.interface, memory.now).account
    };
    let ends = |account: &Account| (account.end, account.after.clone());
    let first = again(false);
    if ends(&first) == ends(&told.account) {
        return;
    }
    // Some schedulers keep a state of which they tell nothing.
    let as_told = again(true);
    assert_eq!(ends(&as_told), ends(&told.account), "{as_told:#?} {told:#?}");
}

/// All that an engine shows.
fn observed(engine: &mut Engine) -> String {
    let events: Vec<_> = std::iter::from_fn(|| engine.poll_event()).collect();
    let flows: Vec<_> = engine.flows().cloned().collect();
    let rules: Vec<_> = engine.rule_counts().map(|count| format!("{count:?}")).collect();
    format!(
        "{events:?} {flows:?} {rules:?} {:?} {:?} {} {} {:?}",
        engine.counters(),
        engine.directors(),
        engine.sticky_count(),
        engine.ports_held(),
        engine.poll_timeout()
    )
}

/// What has been told of: steps by their kind, ends by their name.
type Seen = BTreeSet<String>;

fn note(seen: &mut Seen, told: &Explanation) {
    for step in told.account.steps() {
        let text = format!("{step:?}");
        let kind = text.split(['(', ' ']).next().unwrap_or_default();
        let some = if text.starts_with("Looked(Some") { "Hit" } else { kind };
        seen.insert(some.to_owned());
    }
    if let Some(Verdict::Drop(reason)) = told.account.end {
        seen.insert(reason.name().to_owned());
    }
}

fn run(seed: u64, scheduler: Builtin, seen: &mut Seen) {
    let mut random = Random(seed);
    let is_ethernet = random.one_in(3);
    let plan = world(&mut random, scheduler, is_ethernet);
    let mut asked = engine(plan.clone());
    let mut silent = engine(plan);
    let (mut last, mut now) = (Vec::new(), 1_u64);
    for _ in 0..STEPS {
        now += random.of(&[0, 0, 1, 200, 3_000, 200_000]);
        match random.below(25) {
            0 => {
                let weight = random.below(4) as u32;
                for engine in [&mut asked, &mut silent] {
                    engine.set_weight("web", "s1", weight, at(now)).unwrap();
                }
            }
            1 => {
                let plan = world(&mut random, scheduler, is_ethernet);
                for engine in [&mut asked, &mut silent] {
                    engine.apply(plan.clone(), Guests::default(), at(now)).unwrap();
                }
            }
            _ => {}
        }
        let interface = random.below(2) as u16;
        let own = MACS[usize::from(interface)];
        let bytes = packet(&mut random, &last);
        let bytes = match is_ethernet {
            true if random.one_in(4) => {
                arp_reply(own, random.of(&[[10, 0, 0, 1], [10, 3, 0, 20], [192, 0, 2, 10]]))
            }
            true => frame(if random.one_in(9) { NEIGHBOUR } else { own }, 0x0800, &bytes),
            false => bytes,
        };
        for engine in [&mut asked, &mut silent] {
            engine.handle_timeout(at(now));
            // What waits to leave leaves first, as after the step before.
            engine.transmit(&mut Cable::new());
        }
        let told = asked.explain(&bytes, InterfaceId(interface), at(now));
        note(seen, &told);
        let again = asked.explain(&bytes, InterfaceId(interface), at(now));
        assert_eq!(told, again, "to be asked changes nothing");
        replay(&asked, &told);
        let really = send(&mut asked, &bytes, interface, at(now));
        assert_eq!(told_to_leave(&told), really, "{told:#?}");
        assert_eq!(send(&mut silent, &bytes, interface, at(now)), really);
        assert_eq!(observed(&mut asked), observed(&mut silent));
        if let Some((_, out)) = really.0.first() {
            last = if is_ethernet { out.get(14..).unwrap_or_default().to_vec() } else { out.clone() };
        }
    }
    assert!(asked.counters().packets_in == STEPS as u64 && asked.counters().is_conserved());
    // Tables, random numbers, limits and all.
    assert_eq!(format!("{asked:?}"), format!("{silent:?}"));
}

#[test]
fn what_is_told_is_what_then_happens_and_telling_it_changes_nothing() {
    let mut seen = Seen::new();
    for seed in 0..3_u64 {
        for (number, scheduler) in Builtin::ALL.iter().enumerate() {
            run(seed * 1_000 + number as u64, *scheduler, &mut seen);
        }
    }
    let steps = "Read Looked Hit Reviewed Lapsed Policy Default Directed Stuck Picked Mapped Outflow Opened Carried Ended";
    let ends = "policy_denied no_director no_flow no_server client_limit flow_table_full ports_exhausted ttl_exceeded \
                too_big fragment icmp_unhandled answer_limited other_host";
    for expected in steps.split_whitespace().chain(ends.split_whitespace()) {
        assert!(seen.contains(expected), "no world has come to {expected}: {seen:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn so_it_is_in_random_worlds(seed: u64, scheduler in proptest::sample::select(Builtin::ALL)) {
        run(seed, scheduler, &mut Seen::new());
    }
}

#[test]
fn a_new_flow_is_told_of_from_its_rules_to_its_next_hop() {
    let mut plan = plan();
    let rule = FlowRule::matching(vec![Test::destination_port(80..=80)]);
    let other = FlowRule::matching(vec![Test::Protocol(Protocol::UDP)]);
    let flow = FlowPlan { name: "www".into(), action: FlowAction::Director(0), rules: vec![other, rule] };
    plan.policies = vec![PolicyPlan::Rules(vec![flow])];
    let engine = engine(plan);
    let told = engine.explain(&tcp(call(40_000), "S", b""), TUN, at(1));
    let kinds: Vec<&str> = told
        .account
        .steps()
        .map(|step| match step {
            Step::Read { .. } => "read",
            Step::Looked(None) => "miss",
            Step::Looked(Some(_)) => "hit",
            Step::Policy { .. } => "policy",
            Step::Directed { .. } => "director",
            Step::Picked(_) => "pick",
            Step::Opened { .. } => "open",
            Step::Carried(_) => "carry",
            Step::Ended(_) => "end",
            Step::Reviewed(_)
            | Step::Lapsed
            | Step::Default { .. }
            | Step::Stuck(_)
            | Step::Mapped { .. }
            | Step::Outflow { .. } => "other",
        })
        .collect();
    assert_eq!(kinds, ["read", "miss", "policy", "director", "pick", "open", "hit", "carry", "end"]);
    let policy = told
        .account
        .steps()
        .find_map(|step| if let Step::Policy { ruling, .. } = step { ruling.study.clone() } else { None });
    assert_eq!(policy.unwrap().findings.len(), 2, "each rule that was looked at");
    let pick =
        told.account.steps().find_map(|step| if let Step::Picked(pick) = step { Some(pick) } else { None });
    assert_eq!(pick.unwrap().candidates.len(), 2);
    assert_eq!(engine.counters().packets_in, 0);
}

/// A component: nobody can copy it, and each question changes it.
#[derive(Debug, Default)]
struct Sealed {
    questions: u64,
}

impl Scheduler for Sealed {
    fn name(&self) -> &'static str {
        "sealed.wasm"
    }
    fn update(&mut self, _: &[ServerView], _: Instant) {}
    fn pick(&mut self, selection: &mut Selection<'_>, _: Instant) {
        self.questions += 1;
        assert!(selection.assign(0, 1));
    }
}

impl Policy for Sealed {
    fn name(&self) -> &'static str {
        "sealed.wasm"
    }
    fn decide(&mut self, _: &[PolicyFlow], answers: &mut [PolicyAnswer], _: Instant) {
        self.questions += 1;
        answers.fill(PolicyVerdict::Permit.into());
    }
}

fn component() -> GuestPlan {
    GuestPlan {
        component: "sealed.wasm".to_owned(),
        options: String::new(),
        call_budget: Duration::from_micros(200),
        memory_limit_bytes: 1 << 20,
        fallback: Builtin::RoundRobin,
    }
}

#[test]
fn where_a_component_decides_the_account_ends_and_says_so() {
    let syn = tcp(call(40_000), "S", b"");
    let mut plan = plan();
    plan.directors[0].scheduler = SchedulerPlan::Guest(component());
    let mut guests = Guests::default();
    guests.schedulers.insert("web".to_owned(), Box::new(Sealed::default()));
    let mut engine = Engine::new(plan.clone(), guests, Instant::ZERO).unwrap();
    let told = engine.explain(&syn, TUN, at(1));
    assert_eq!((told.unknown(), told.account.end), (Some("sealed.wasm"), None));
    assert!(told.born.is_empty() && told.account.after.is_empty());
    // Of a flow that is open it is all known.
    exchange(&mut engine, std::slice::from_ref(&syn), at(1));
    let told = engine.explain(&syn, TUN, at(1));
    assert_eq!((told.unknown(), told.account.end), (None, Some(Verdict::Forward(TUN))));

    plan.directors[0].scheduler = SchedulerPlan::Builtin(Builtin::RoundRobin);
    let guest = PolicyPlan::Guest(PolicyGuestPlan::new("gate", component()));
    plan.policies = vec![guest];
    let mut guests = Guests::default();
    guests.policies.insert("gate".to_owned(), Box::new(Sealed::default()));
    let engine = Engine::new(plan, guests, Instant::ZERO).unwrap();
    let told = engine.explain(&syn, TUN, at(1));
    assert_eq!((told.unknown(), told.account.end), (Some("gate"), None));
}

#[test]
fn a_trace_tells_of_the_packets_that_it_is_asked_for_and_changes_nothing() {
    let mut told = engine(plan());
    let mut silent = engine(plan());
    let wish = Wish {
        filter: Filter::Or(vec![
            Filter::Has(Quality::Server("s2".into())),
            Filter::Has(Quality::Dropped(Some(DropReason::NoDirector))),
        ]),
        count: Some(3),
        snap_bytes: 64,
        is_thorough: false,
    };
    let mut ticks = 0;
    let stopwatch = move || {
        ticks += 7;
        ticks
    };
    told.set_journal(Some(Journal::new(wish, Some(Box::new(stopwatch)))));
    let stray = ends(CLIENT, 1, VIP, 81);
    let packets: Vec<Vec<u8>> = (0..6)
        .map(|port| tcp(call(40_000 + port), "S", b""))
        .chain([tcp(stray, "S", b""), tcp(call(40_001), "A", b"data")])
        .collect();
    let out = exchange(&mut told, &packets, at(1));
    assert_eq!(exchange(&mut silent, &packets, at(1)), out);
    let mut journal = told.set_journal(None).unwrap();
    assert!(journal.is_full() && journal.lost() == 0);
    let accounts: Vec<_> = std::iter::from_fn(|| journal.poll()).collect();
    assert_eq!(accounts.len(), 3);
    for account in &accounts {
        assert_eq!(account.parties(), (Some("web"), Some("s2")));
        assert!(account.before.len() <= 64 && !account.after.is_empty());
        assert!(account.notes.iter().any(|note| note.took_ns == Some(7)), "{account:?}");
    }
    assert_eq!(format!("{told:?}"), format!("{silent:?}"));
}
