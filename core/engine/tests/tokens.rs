//! A decision that is made again elsewhere from its bytes: what components about policy said, and fragments under way.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]

use std::net::IpAddr;

use crate::support::{self, Memory as Cable, *};
use evenkeel_engine::journal::Account;
use evenkeel_engine::plan::{
    Builtin, GuestPlan, Limit, LimitKey, Plan, PolicyGuestPlan, PolicyPlan, Prefix, RoutePlan, TablePlan,
};
use evenkeel_engine::policy::{Policy, PolicyAnswer, PolicyFlow, PolicyVerdict, PolicyWishes};
use evenkeel_engine::wire::HashKey;
use evenkeel_engine::{
    DropReason, Duration, Engine, Explanation, Guests, Instant, InterfaceId, Memory, MemoryError, Verdict,
};
use proptest::prelude::*;

const ALL: [PolicyVerdict; 5] = [
    PolicyVerdict::Permit,
    PolicyVerdict::Deny,
    PolicyVerdict::Director(1),
    PolicyVerdict::Table(0),
    PolicyVerdict::Skip,
];

/// A component that says one thing once, and afterwards another: nobody can ask it twice.
#[derive(Debug)]
struct Fickle {
    first: Vec<PolicyVerdict>,
    later: PolicyVerdict,
    is_limited: bool,
}

impl Policy for Fickle {
    fn name(&self) -> &'static str {
        "fickle.wasm"
    }

    fn wishes(&self) -> PolicyWishes {
        let key = LimitKey::Source(32, 128);
        let limit = Limit { count: 1, period: Duration::from_secs(1), burst: 1, key };
        PolicyWishes { packets: false, limits: if self.is_limited { vec![limit] } else { Vec::new() } }
    }

    fn decide(&mut self, _: &[PolicyFlow], answers: &mut [PolicyAnswer], _: Instant) {
        for answer in answers {
            let verdict = if self.first.is_empty() { self.later } else { self.first.remove(0) };
            *answer = PolicyAnswer { verdict, limit: self.is_limited.then_some(0) };
        }
    }
}

fn component(name: &str) -> PolicyGuestPlan {
    let component = GuestPlan {
        component: format!("{name}.wasm"),
        options: String::new(),
        call_budget: Duration::from_micros(200),
        memory_limit_bytes: 1 << 20,
        fallback: Builtin::RoundRobin,
    };
    PolicyGuestPlan::new(name, component)
}

/// Two gateways and a table for the second, a component about packets that come and one about those that leave.
fn world() -> Plan {
    let mut plan = plan();
    plan.interfaces.push(interface("tun1", [10, 3, 0, 2].into(), 16));
    let through = RoutePlan {
        destination: Prefix { address: IpAddr::from([0, 0, 0, 0]), length: 0 },
        gateway: None,
        interface: InterfaceId(1),
    };
    plan.tables = vec![TablePlan { id: 200, routes: vec![through] }];
    plan.policies = vec![PolicyPlan::Guest(component("gate"))];
    plan.outflow_guests = vec![component("exit")];
    plan
}

fn forwarder(plan: Plan, gate: Fickle, exit: Fickle) -> Engine {
    let mut guests = Guests::default();
    guests.policies.insert("gate".to_owned(), Box::new(gate));
    guests.policies.insert("exit".to_owned(), Box::new(exit));
    let mut engine = Engine::new(plan, guests, Instant::ZERO).unwrap();
    engine.transmit(&mut Cable::new());
    engine
}

fn fickle(first: &[PolicyVerdict], is_limited: bool) -> Fickle {
    Fickle { first: first.to_vec(), later: PolicyVerdict::Deny, is_limited }
}

/// One that says nothing but no.
fn stubborn() -> Fickle {
    fickle(&[], false)
}

fn ends_of(account: &Account) -> (Option<Verdict>, Vec<u8>) {
    (account.end, account.after.clone())
}

/// Asks a new forwarder of the memory's plan, in which `change` puts what the old one had.
fn again(memory: &Memory, engine: impl FnOnce(Plan) -> Engine, plan: &Plan) -> (Engine, Explanation) {
    let mut plan = plan.clone();
    (plan.seed, plan.hash_key) = (99, HashKey([7, 7]));
    memory.complete(&mut plan);
    let mut engine = engine(plan);
    engine.recall(memory, true).unwrap();
    let told = engine.explain(&memory.packet, memory.interface, memory.now);
    (engine, told)
}

#[test]
fn what_components_said_is_said_again_in_every_combination() {
    let syn = tcp(call(40_000), "S", b"");
    let mut ends = std::collections::BTreeSet::new();
    for (gate, exit) in ALL.into_iter().flat_map(|gate| ALL.map(|exit| (gate, exit))) {
        for is_limited in [false, true] {
            let both = [exit, PolicyVerdict::Permit];
            let new = || forwarder(world(), fickle(&[gate], is_limited), fickle(&both, is_limited));
            let told = new().witness(&syn, TUN, at(1));
            assert!(told.account.end.is_some());
            // To ask without changing anything is impossible, and an engine that is told the answers needs not ask.
            let mut other = new();
            assert!(other.explain(&syn, TUN, at(1)).unknown().is_some());
            assert_eq!(other.remember(&other.explain(&syn, TUN, at(1))), Err(MemoryError::Component));
            other.answer_as_told(&told).unwrap();
            let same = other.explain(&syn, TUN, at(1));
            assert_eq!(ends_of(&same.account), ends_of(&told.account), "{gate:?} {exit:?} {is_limited}");
            assert_eq!(same.touched.answers, told.touched.answers);
            let state = other.remember(&same).unwrap();
            let memory = Memory::read(&state).unwrap();
            assert_eq!(memory.answers, told.touched.answers);
            let (engine, replayed) =
                again(&memory, |plan| forwarder(plan, stubborn(), stubborn()), other.plan());
            assert_eq!(ends_of(&replayed.account), ends_of(&told.account), "{gate:?} {exit:?} {is_limited}");
            assert_eq!(engine.remember(&replayed).unwrap(), state, "the bytes of the bytes are themselves");
            ends.insert(format!("{:?}", told.account.end.unwrap()));
        }
    }
    let expected = ["Drop(PolicyDenied)", "Forward(InterfaceId(0))", "Forward(InterfaceId(1))"];
    assert!(expected.iter().all(|end| ends.contains(*end)), "{ends:?}");
}

#[test]
fn a_component_that_nobody_asks_is_in_nobody_s_way() {
    let syn = tcp(call(40_000), "S", b"");
    let mut engine = forwarder(
        world(),
        fickle(&[PolicyVerdict::Permit], false),
        fickle(&[PolicyVerdict::Permit; 2], false),
    );
    exchange(&mut engine, std::slice::from_ref(&syn), at(1));
    // The flow is open: both have had their say.
    let told = engine.explain(&syn, TUN, at(2));
    assert_eq!((told.unknown(), told.account.end), (None, Some(Verdict::Forward(TUN))));
    let memory = Memory::read(&engine.remember(&told).unwrap()).unwrap();
    assert_eq!(memory.answers, Vec::new());
    let (_, replayed) = again(&memory, |plan| forwarder(plan, stubborn(), stubborn()), engine.plan());
    assert_eq!(ends_of(&replayed.account), ends_of(&told.account));
}

/// The pieces of a datagram, of 400 bytes each but the last.
fn pieces(port: u16, identification: u16, count: usize) -> Vec<Vec<u8>> {
    let whole = udp(call(port), &vec![7; 400 * count - 108]);
    let payload = &whole[20..];
    let last = payload.len().div_ceil(400) - 1;
    let piece = |(number, bytes): (usize, &[u8])| {
        let mut piece = [&whole[..20], bytes].concat();
        let total = piece.len() as u16;
        piece[2..4].copy_from_slice(&total.to_be_bytes());
        piece[4..6].copy_from_slice(&identification.to_be_bytes());
        let more = if number < last { 0x2000 } else { 0 };
        piece[6..8].copy_from_slice(&((number as u16 * 50) | more).to_be_bytes());
        mended(piece)
    };
    payload.chunks(400).enumerate().map(piece).collect()
}

proptest! {
    /// Whatever has come before and in whatever order: what is told of a piece is what becomes of it, and a new engine
    /// that has its bytes decides alike, also about those that it lets go.
    #[test]
    fn what_fragments_depend_on_is_remembered(
        order in proptest::collection::vec((0_u16..3, 0_usize..4, 0_u64..900), 1..24),
        closed in 0_u16..4,
    ) {
        let mut engine = engine(plan());
        let mut now = 1;
        for (datagram, piece, wait) in order {
            now += wait;
            engine.handle_timeout(at(now));
            engine.transmit(&mut Cable::new());
            let mut packet = pieces(40_000 + datagram, datagram, 4)[piece].clone();
            if datagram == closed {
                // To a port where nobody is.
                packet[16..20].copy_from_slice(&[10, 0, 0, 77]);
                packet = mended(packet);
            }
            let told = engine.explain(&packet, TUN, at(now));
            let memory = Memory::read(&engine.remember(&told).unwrap()).unwrap();
            let (_, replayed) = again(&memory, support::engine, engine.plan());
            prop_assert_eq!(ends_of(&replayed.account), ends_of(&told.account));
            prop_assert_eq!(&replayed.born, &told.born);
            let really = engine.witness(&packet, TUN, at(now));
            prop_assert_eq!(ends_of(&really.account), ends_of(&told.account));
            prop_assert_eq!(&really.born, &told.born);
        }
    }
}

/// What a new engine of `plan` makes of bytes that somebody has changed: anything but a panic.
fn endure(state: &[u8], plan: &Plan) {
    let Ok(memory) = Memory::read(state) else { return };
    let mut plan = plan.clone();
    memory.complete(&mut plan);
    let mut engine = forwarder(plan, stubborn(), stubborn());
    if engine.recall(&memory, true).is_ok() {
        let told = engine.explain(&memory.packet, memory.interface, memory.now);
        let _ = engine.remember(&told);
    }
}

proptest! {
    /// Bytes come from anybody.
    #[test]
    fn bytes_that_somebody_has_changed_do_no_harm(
        changes in proptest::collection::vec((0_usize..1 << 16, any::<u8>(), 0_u8..3), 1..6),
        kind in 0_usize..3,
    ) {
        let yes = || fickle(&[PolicyVerdict::Permit; 3], true);
        let mut engine = forwarder(world(), yes(), yes());
        let syn = tcp(call(40_000), "S", b"");
        let datagram = pieces(40_000, 1, 3);
        let packet = match kind {
            0 => syn,
            1 => {
                exchange(&mut engine, std::slice::from_ref(&syn), at(1));
                syn
            }
            _ => {
                exchange(&mut engine, &datagram[1..2], at(1));
                datagram[0].clone()
            }
        };
        let told = if kind == 1 {
            engine.explain(&packet, TUN, at(2))
        } else {
            let mut other = forwarder(world(), yes(), yes());
            let told = other.witness(&packet, TUN, at(2));
            engine.answer_as_told(&told).unwrap();
            engine.explain(&packet, TUN, at(2))
        };
        let mut state = engine.remember(&told).unwrap();
        endure(&state, engine.plan());
        for (place, byte, how) in changes {
            let place = place % state.len();
            match how {
                0 => state[place] = byte,
                1 => state.insert(place, byte),
                _ => {
                    state.remove(place);
                }
            }
            endure(&state, engine.plan());
        }
    }
}

#[test]
fn a_datagram_in_too_many_pieces_is_remembered_as_one() {
    let mut engine = engine(plan());
    let (first, others) = (pieces(40_000, 1, 140)[0].clone(), &pieces(40_000, 1, 140)[1..]);
    let mut ends = Vec::new();
    for piece in others.iter().chain([&first]) {
        let told = engine.explain(piece, TUN, at(1));
        let memory = Memory::read(&engine.remember(&told).unwrap()).unwrap();
        let (_, replayed) = again(&memory, support::engine, engine.plan());
        assert_eq!(ends_of(&replayed.account), ends_of(&told.account));
        assert_eq!(ends_of(&engine.witness(piece, TUN, at(1)).account), ends_of(&told.account));
        ends.extend(told.account.end);
    }
    let full = Verdict::Drop(DropReason::FragmentsFull);
    assert_eq!((ends[0], ends[127], ends[128], ends[139]), (Verdict::Hold, Verdict::Hold, full, full));
}
