//! Another scheduler in the place of one that works: no packet is lost, no flow moves, one that fails has to go again, and
//! a shadow decides nothing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used, reason = "tests")]

use crate::support::*;
use evenkeel_engine::director::{
    Fault, GuestStats, Scheduler, Selection, ServerView, builtin::seed_of, native,
};
use evenkeel_engine::plan::{Builtin, GuestPlan, SchedulerPlan, Tuned};
use evenkeel_engine::wire::FiveTuple;
use evenkeel_engine::{Duration, Engine, Event, Instant};

/// Schedulers that take turns: with state and without, by load, by hash and at random.
const KINDS: [Builtin; 9] = [
    Builtin::RoundRobin,
    Builtin::WeightedLeastConnections,
    Builtin::Maglev,
    Builtin::PowerOfChoices,
    Builtin::PeakEwma,
    Builtin::Prequal,
    Builtin::Locality,
    Builtin::SourceHashing,
    Builtin::Anchor,
];

/// How often the scheduler changes.
const SWAPS: u64 = 1_000;

/// A component's plan; nobody runs it.
fn component() -> SchedulerPlan {
    SchedulerPlan::Guest(GuestPlan {
        component: "faulty.wasm".to_owned(),
        options: String::new(),
        call_budget: Duration::from_micros(200),
        memory_limit_bytes: 1 << 20,
        fallback: Builtin::RoundRobin,
    })
}

/// The first server, and a fault with every question while `is_faulty`.
#[derive(Debug)]
struct First {
    is_faulty: bool,
    faults: u64,
}

impl Scheduler for First {
    fn name(&self) -> &'static str {
        "faulty.wasm"
    }
    fn update(&mut self, _: &[ServerView], _: Instant) {}
    fn pick(&mut self, selection: &mut Selection<'_>, _: Instant) {
        self.faults += u64::from(self.is_faulty);
        (0..selection.flows().len()).for_each(|flow| assert!(selection.assign(flow, 0)));
    }
    fn stats(&self) -> GuestStats {
        GuestStats { faults: self.faults, ..GuestStats::default() }
    }
    fn take_fault(&mut self) -> Option<Fault> {
        let fault =
            Fault { component: "faulty.wasm".to_owned(), call: "pick", reason: "it fails".to_owned() };
        self.is_faulty.then_some(fault)
    }
}

fn served_by(engine: &Engine, port: u16) -> Option<String> {
    let Ends { source, destination } = call(port);
    let tuple = FiveTuple {
        source: source.0.into(),
        destination: destination.0.into(),
        source_port: source.1,
        destination_port: destination.1,
        protocol: evenkeel_engine::wire::Protocol::TCP,
    };
    engine.flow(&tuple).map(|flow| flow.server.to_owned())
}

fn events(engine: &mut Engine) -> Vec<Event> {
    std::iter::from_fn(|| engine.poll_event()).collect()
}

#[test]
fn a_thousand_changes_under_load_lose_no_packet_and_move_no_flow() {
    let mut engine = engine(plan());
    let mut servers = Vec::new();
    let (mut sent, mut received) = (0, 0);
    for round in 0..SWAPS {
        let now = at(round);
        let kind = KINDS[usize::try_from(round).unwrap() % KINDS.len()];
        engine.set_scheduler("web", SchedulerPlan::Builtin(kind), None, now).unwrap();
        let port = 1_000 + u16::try_from(round).unwrap();
        let mut packets = vec![tcp(call(port), "S", b"")];
        // Data of flows that other schedulers placed.
        packets.extend(
            (1..=9)
                .filter(|age| *age * 13 <= round)
                .map(|age| tcp(call(port - u16::try_from(age * 13).unwrap()), "A", b"data")),
        );
        sent += packets.len();
        received += exchange(&mut engine, &packets, now).len();
        servers.push((port, served_by(&engine, port).expect("it has a server")));
    }
    assert_eq!(sent, received, "{:?}", dropped(&engine));
    for (port, server) in &servers {
        assert_eq!(served_by(&engine, *port).as_ref(), Some(server), "{port}");
    }
    let shares = ["s1", "s2"].map(|name| servers.iter().filter(|(_, server)| server == name).count());
    assert!(shares.iter().all(|share| *share > 300), "{shares:?}");
    assert_eq!(engine.counters().scheduler_changes, SWAPS);
    let changed = events(&mut engine).iter().filter(|e| matches!(e, Event::SchedulerChanged { .. })).count();
    assert!(changed > 100, "{changed}, and the others had no room");
}

#[test]
fn state_goes_over_where_both_know_its_form() {
    let twin = || native(&Tuned::from(Builtin::RoundRobin), seed_of(1, "web"));
    let (mut steady, mut swapped) = (engine(plan()), engine(plan()));
    for engine in [&mut steady, &mut swapped] {
        engine.set_scheduler("web", SchedulerPlan::Builtin(Builtin::RoundRobin), None, at(0)).unwrap();
    }
    for port in 1..=99 {
        if port % 3 == 0 {
            swapped.set_scheduler("web", component(), Some(twin()), at(port.into())).unwrap();
        }
        for engine in [&mut steady, &mut swapped] {
            one(engine, tcp(call(port), "S", b""), at(port.into()));
        }
        assert_eq!(served_by(&steady, port), served_by(&swapped, port), "{port}");
    }
}

#[test]
fn one_that_fails_on_trial_has_to_go_and_one_that_has_proven_itself_stays() {
    for (wait, is_back) in [(1_000, true), (61_000, false)] {
        let mut engine = engine(plan());
        engine.set_scheduler("web", SchedulerPlan::Builtin(Builtin::RoundRobin), None, at(0)).unwrap();
        // The one before is no longer on trial itself.
        let begin = at(70_000);
        let faulty = First { is_faulty: true, faults: 0 };
        engine.set_scheduler("web", component(), Some(Box::new(faulty)), begin).unwrap();
        events(&mut engine);
        for port in 1..=7 {
            one(&mut engine, tcp(call(port), "S", b""), begin.after(Duration::from_millis(wait)));
            assert_eq!(engine.directors()[0].scheduler, "faulty.wasm");
        }
        one(&mut engine, tcp(call(8), "S", b""), begin.after(Duration::from_millis(wait)));
        let scheduler = if is_back { "rr" } else { "faulty.wasm" };
        assert_eq!(engine.directors()[0].scheduler, scheduler, "{wait}");
        let rolled_back = Event::SchedulerRolledBack {
            director: "web".to_owned(),
            from: "faulty.wasm".to_owned(),
            to: "rr".to_owned(),
        };
        assert_eq!(events(&mut engine).contains(&rolled_back), is_back);
        let both = [9, 10].map(|port| {
            one(&mut engine, tcp(call(port), "S", b""), begin.after(Duration::from_millis(wait)));
            served_by(&engine, port).unwrap()
        });
        assert_eq!(both[0] != both[1], is_back, "round robin takes turns: {both:?}");
    }
}

#[test]
fn a_shadow_counts_and_decides_nothing() {
    let mut shadowed = plan();
    shadowed.directors[0].scheduler = SchedulerPlan::Builtin(Builtin::RoundRobin);
    let mut plain = engine(shadowed.clone());
    shadowed.directors[0].shadow = Some(SchedulerPlan::Builtin(Builtin::First));
    let mut engine = engine(shadowed.clone());
    for port in 1..=100 {
        for engine in [&mut engine, &mut plain] {
            one(engine, tcp(call(port), "S", b""), at(port.into()));
        }
        assert_eq!(served_by(&engine, port), served_by(&plain, port));
    }
    let shadow = engine.directors()[0].shadow.clone().unwrap();
    assert_eq!(
        (shadow.scheduler.as_str(), shadow.asked, shadow.agreed, shadow.unanswered),
        ("first", 100, 50, 0)
    );
    assert_eq!(shadow.imbalance_thousandths, [1_000, 2_000], "even, and all for one of two");
    // A plan that keeps it lets it count on; one without takes it away.
    engine.apply(shadowed.clone(), evenkeel_engine::Guests::default(), at(200)).unwrap();
    assert_eq!(engine.directors()[0].shadow.as_ref().unwrap().asked, 100);
    shadowed.directors[0].shadow = None;
    engine.apply(shadowed, evenkeel_engine::Guests::default(), at(201)).unwrap();
    assert_eq!(engine.directors()[0].shadow, None);
    assert_eq!(plain.directors()[0].shadow, None);
}

#[test]
fn what_can_not_be_is_refused_and_changes_nothing() {
    let mut engine = engine(plan());
    let before = engine.directors()[0].scheduler.clone();
    let refused = engine.set_scheduler("mail", SchedulerPlan::Builtin(Builtin::RoundRobin), None, at(0));
    assert_eq!(refused.unwrap_err().to_string(), "no director mail");
    let refused = engine.set_scheduler("web", component(), None, at(0)).unwrap_err().to_string();
    assert!(refused.contains("not loaded"), "{refused}");
    let options = evenkeel_engine::plan::Options { choices: Some(99), ..Default::default() };
    let tuned = SchedulerPlan::Tuned(Tuned { kind: Builtin::PowerOfChoices, options });
    let refused = engine.set_scheduler("web", tuned, None, at(0)).unwrap_err().to_string();
    assert!(refused.contains("choices"), "{refused}");
    assert_eq!(engine.directors()[0].scheduler, before);
}
