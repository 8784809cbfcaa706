//! What the engine tells schedulers: when real servers answer, how flows end, who is to be probed, and that new servers
//! start slowly. Native schedulers in a whole engine, packets in and out.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::support::*;
use evenkeel_engine::director::{
    FlowAnswered, FlowClosed, FlowEnd, FlowEvent, FlowOpened, Scheduler, Selection, ServerId, ServerView,
    Wishes,
};
use evenkeel_engine::plan::{
    Builtin, GuestPlan, Mode, Options, ProbeSource, SchedulerPlan, SlowStart, Tuned,
};
use evenkeel_engine::wire::Address;
use evenkeel_engine::{Duration, Engine, Guests, Instant, ProbeReply};

/// What a scheduler was told.
#[derive(Debug, Default)]
struct Told {
    opened: Vec<FlowOpened>,
    answered: Vec<FlowAnswered>,
    closed: Vec<FlowClosed>,
    order: Vec<FlowEvent>,
    ticks: Vec<Instant>,
}

/// Gives every flow to the first server, and writes down what it is told.
#[derive(Debug)]
struct Scribe(Arc<Mutex<Told>>);

impl Scheduler for Scribe {
    fn name(&self) -> &'static str {
        "scribe"
    }
    fn update(&mut self, _: &[ServerView], _: Instant) {}
    fn pick(&mut self, selection: &mut Selection<'_>, _: Instant) {
        (0..selection.flows().len()).for_each(|flow| assert!(selection.assign(flow, 0)));
    }
    fn wishes(&self) -> Wishes {
        let tick = Some(Duration::from_millis(250));
        Wishes { opened: true, answered: true, closed: true, tick, probes: false }
    }
    fn hear(&mut self, events: &[FlowEvent], _: Instant) {
        let mut told = self.0.lock().unwrap();
        for event in events {
            told.order.push(*event);
            match event {
                FlowEvent::Opened(flow) => told.opened.push(*flow),
                FlowEvent::Answered(flow) => told.answered.push(*flow),
                FlowEvent::Closed(flow) => told.closed.push(*flow),
            }
        }
    }
    fn tick(&mut self, now: Instant) {
        self.0.lock().unwrap().ticks.push(now);
    }
}

/// An engine whose directors all ask a scribe.
fn observed(mode: &Mode) -> (Engine, Arc<Mutex<Told>>) {
    let told = Arc::new(Mutex::new(Told::default()));
    let mut plan = plan();
    let mut guests = Guests::default();
    for director in &mut plan.directors {
        director.mode = mode.clone();
        if *mode == Mode::Gateway {
            director.servers.iter_mut().for_each(|server| server.port = 0);
        }
        director.scheduler = SchedulerPlan::Guest(GuestPlan {
            component: "scribe".to_owned(),
            options: String::new(),
            call_budget: Duration::from_micros(200),
            memory_limit_bytes: 1 << 20,
            fallback: Builtin::RoundRobin,
        });
        guests.schedulers.insert(director.name.clone(), Box::new(Scribe(Arc::clone(&told))));
    }
    (Engine::new(plan, guests, Instant::ZERO).unwrap(), told)
}

/// From the real server that the scribe picks to the client.
fn reply(port: u16) -> Ends {
    ends([10, 0, 3, 20].into(), 8080, CLIENT, port)
}

/// Lets the directors hand over what they have gathered: they do before they ask.
fn flush(engine: &mut Engine, told: &Arc<Mutex<Told>>, now: Instant) -> Told {
    exchange(engine, &[tcp(call(60_000), "S", b""), udp(call(60_000), b"x")], now);
    std::mem::take(&mut *told.lock().unwrap())
}

#[test]
fn the_time_to_the_first_answer_is_told_once_for_each_flow() {
    let (mut engine, told) = observed(&Mode::Nat { sources: Vec::new() });
    exchange(&mut engine, &[tcp(call(1), "S", b""), udp(call(2), b"q"), udp(call(3), b"q")], at(10));
    exchange(&mut engine, &[udp(reply(2), b"a")], at(17));
    exchange(&mut engine, &[udp(reply(2), b"a"), udp(call(2), b"q"), udp(reply(2), b"a")], at(18));
    exchange(&mut engine, &[tcp(reply(1), "SA", b"")], at(30));
    exchange(
        &mut engine,
        &[tcp(reply(1), "SA", b""), tcp(call(1), "A", b""), tcp(reply(1), "A", b"x")],
        at(31),
    );
    let told = flush(&mut engine, &told, at(40));
    let mut after: Vec<_> = told.answered.iter().map(|one| (one.server, one.after.as_millis())).collect();
    after.sort_unstable();
    assert_eq!(after, [(0, 7), (0, 20)]);
}

#[test]
fn a_datagram_that_is_repeated_before_its_answer_tells_nothing() {
    let (mut engine, told) = observed(&Mode::Nat { sources: Vec::new() });
    exchange(&mut engine, &[udp(call(2), b"q")], at(10));
    exchange(&mut engine, &[udp(call(2), b"q")], at(1010));
    exchange(&mut engine, &[udp(reply(2), b"a")], at(1017));
    assert!(flush(&mut engine, &told, at(1020)).answered.is_empty());
}

#[test]
fn a_refused_connection_is_no_answer_and_each_end_has_its_reason() {
    let (mut engine, told) = observed(&Mode::Nat { sources: Vec::new() });
    let opening: Vec<_> = (1..=4).map(|port| tcp(call(port), "S", b"")).collect();
    exchange(&mut engine, &opening, at(0));
    // 1 is refused; 2 is finished by both sides; 3 is never answered; 4 idles when it is open.
    exchange(&mut engine, &[tcp(reply(1), "RA", b"")], at(1));
    exchange(
        &mut engine,
        &[tcp(reply(2), "SA", b""), tcp(call(2), "A", b""), tcp(call(2), "FA", b"")],
        at(1),
    );
    exchange(&mut engine, &[segment(reply(2), "FA", 2000, 1002, b"")], at(2));
    exchange(&mut engine, &[tcp(reply(4), "SA", b""), tcp(call(4), "A", b"hello")], at(3));
    exchange(&mut engine, &[udp(call(5), b"q"), udp(call(6), b"q")], at(4));
    exchange(&mut engine, &[udp(reply(6), b"a")], at(5));
    let later = at(2_000_000);
    engine.handle_timeout(later);
    let told = flush(&mut engine, &told, later);
    let mut ends: Vec<_> = told
        .closed
        .iter()
        .map(|one| (one.end, one.packets_to, one.packets_from, one.bytes_to, one.bytes_from))
        .collect();
    ends.sort_unstable_by_key(|end| format!("{end:?}"));
    assert_eq!(
        ends,
        [
            (FlowEnd::Finished, 3, 2, 120, 80),
            (FlowEnd::Idle, 1, 1, 29, 29),
            (FlowEnd::Idle, 2, 1, 85, 40),
            (FlowEnd::Reset, 1, 1, 40, 40),
            (FlowEnd::Unanswered, 1, 0, 29, 0),
            (FlowEnd::Unanswered, 1, 0, 40, 0),
        ]
    );
    assert_eq!(told.answered.len(), 3, "2, 4 and 6");
}

#[test]
fn events_come_in_order_and_an_end_tells_the_whole_life_of_a_flow() {
    let (mut engine, told) = observed(&Mode::Nat { sources: Vec::new() });
    exchange(&mut engine, &[tcp(call(1), "S", b"")], at(100));
    exchange(&mut engine, &[tcp(reply(1), "SA", b"")], at(130));
    exchange(&mut engine, &[tcp(reply(1), "R", b"")], at(150));
    engine.handle_timeout(at(60_000));
    let told = flush(&mut engine, &told, at(60_000));
    let [FlowEvent::Opened(opened), FlowEvent::Answered(answered), FlowEvent::Closed(closed)] =
        told.order[..3]
    else {
        panic!("{:?}", told.order);
    };
    assert_eq!((opened.hash, answered.hash), (closed.hash, closed.hash));
    assert_eq!((opened.server, answered.server, closed.server), (0, 0, 0));
    assert_eq!((answered.after, closed.answered), (Duration::from_millis(30), Some(answered.after)));
    assert!(!answered.is_through_client);
    assert_eq!(closed.lived, Some(Duration::from_millis(59_900)), "with the time until somebody looked");
}

#[test]
fn ticks_come_as_often_as_they_are_wished_for_and_late_ones_are_not_made_up_for() {
    let (mut engine, told) = observed(&Mode::Nat { sources: Vec::new() });
    assert_eq!(engine.poll_timeout(), Some(at(250)));
    engine.handle_timeout(at(249));
    engine.handle_timeout(at(250));
    engine.handle_timeout(at(499));
    engine.handle_timeout(at(2_000));
    assert_eq!(engine.poll_timeout(), Some(at(2_250)));
    let ticks = &mut told.lock().unwrap().ticks;
    ticks.dedup();
    assert_eq!(*ticks, [at(250), at(2_000)]);
}

#[test]
fn where_answers_do_not_come_by_the_client_is_the_witness() {
    let (mut engine, told) = observed(&Mode::Gateway);
    exchange(&mut engine, &[tcp(call(1), "S", b"")], at(0));
    exchange(&mut engine, &[tcp(call(1), "A", b""), tcp(call(1), "A", b"x")], at(5));
    exchange(&mut engine, &[udp(call(2), b"q")], at(5));
    exchange(&mut engine, &[udp(call(2), b"q")], at(6));
    let later = at(2_000_000);
    engine.handle_timeout(later);
    let told = flush(&mut engine, &told, later);
    let answered: Vec<_> = told.answered.iter().map(|one| (one.after, one.is_through_client)).collect();
    assert_eq!(answered, [(Duration::from_millis(5), true)], "the datagrams say nothing");
    assert_eq!(told.closed.iter().map(|one| one.end).collect::<Vec<_>>(), [FlowEnd::Idle; 2]);
}

/// An engine whose director for UDP has these servers and this scheduler.
fn tuned(servers: u8, tuned: Tuned) -> Engine {
    let mut plan = plan();
    plan.directors.truncate(2);
    plan.directors[1].scheduler = SchedulerPlan::Tuned(tuned);
    plan.directors[1].servers = (0..servers).map(|n| server(&format!("s{n}"), 20 + n, 1)).collect();
    engine(plan)
}

fn flows(engine: &Engine) -> BTreeMap<String, u64> {
    let directors = engine.directors();
    directors[1].servers.iter().map(|server| (server.name.clone(), server.flows)).collect()
}

#[test]
fn probes_are_carried_by_the_driver_and_their_answers_decide() {
    let options = Options { probe_source: Some(ProbeSource::Servers), ..Options::default() };
    let mut engine = tuned(10, Tuned { kind: Builtin::Prequal, options });
    let mut asked = BTreeMap::new();
    for port in 1..=400 {
        exchange(&mut engine, &[udp(call(port), b"q")], at(u64::from(port)));
        while let Some(probe) = engine.poll_probe(at(u64::from(port))) {
            *asked.entry(probe.address).or_insert(0) += 1;
            assert_eq!(probe.port, 8080);
            assert_eq!(probe.server, ServerId::of(Address::from(probe.address), 8080));
            // One server answers ten times as fast as the others.
            let is_fast = probe.address == std::net::IpAddr::from([10, 0, 3, 24]);
            let latency = Duration::from_millis(if is_fast { 1 } else { 10 });
            let reply = ProbeReply { director: probe.director, server: probe.server, in_flight: 1, latency };
            assert!(engine.probe_answered(&reply, at(u64::from(port))));
        }
    }
    assert_eq!(asked.values().sum::<u32>(), 1200, "three for each flow");
    assert!(asked.values().all(|count| (80..160).contains(count)), "{asked:?}");
    let flows = flows(&engine);
    // Of three servers asked for each flow one is the fast one in three of ten cases, and is used more than once.
    assert!(flows["s4"] > 120, "{flows:?}");
    let unknown = ProbeReply { director: 1, server: ServerId(1), in_flight: 0, latency: Duration::ZERO };
    assert!(!engine.probe_answered(&unknown, at(500)));
    assert!(!engine.probe_answered(&ProbeReply { director: 9, ..unknown }, at(500)));
}

#[test]
fn probes_that_nobody_carries_do_no_harm() {
    let options = Options { probe_source: Some(ProbeSource::Servers), ..Options::default() };
    let mut engine = tuned(4, Tuned { kind: Builtin::Prequal, options });
    for port in 1..=1000 {
        exchange(&mut engine, &[udp(call(port), b"q")], at(1));
    }
    assert!(flows(&engine).values().all(|count| *count > 180), "{:?}", flows(&engine));
    let mut waiting = 0;
    while engine.poll_probe(at(1)).is_some() {
        waiting += 1;
    }
    assert_eq!(waiting, 256, "a bound");
}

#[test]
fn the_slower_of_two_servers_gets_fewer_flows_by_peak_ewma() {
    let mut engine = tuned(2, Tuned::from(Builtin::PeakEwma));
    for port in 1..=1000 {
        let now = u64::from(port) * 100;
        exchange(&mut engine, &[udp(call(port), b"q")], at(now));
        // Whichever got it: both answer, s0 after 1 ms and s1 after 50; only the right one has such a flow.
        let from = |last: u8| ends([10, 0, 3, last].into(), 8080, CLIENT, port);
        exchange(&mut engine, &[udp(from(20), b"a")], at(now + 1));
        exchange(&mut engine, &[udp(from(21), b"a")], at(now + 50));
    }
    let flows = flows(&engine);
    assert!(flows["s1"] < 250 && flows["s1"] > 0, "{flows:?}");
}

#[test]
fn a_new_server_starts_slowly_whatever_the_scheduler() {
    let mut plan = plan();
    plan.directors[1].slow_start = Some(SlowStart::of(Duration::from_secs(10)));
    let mut engine = engine(plan.clone());
    plan.directors[1].servers.push(server("s3", 22, 1));
    plan.directors[1].scheduler = SchedulerPlan::Builtin(Builtin::WeightedRoundRobin);
    engine.apply(plan, Guests::default(), at(0)).unwrap();
    let mut port = 0;
    let mut share = |engine: &mut Engine, now: u64| {
        let before = flows(engine)["s3"];
        for _ in 0..210 {
            port += 1;
            exchange(engine, &[udp(call(port), b"q")], at(now));
        }
        flows(engine)["s3"] - before
    };
    assert_eq!(share(&mut engine, 100), 10, "a tenth of the weight of each of two others");
    assert_eq!(share(&mut engine, 5_000), 42, "half of it");
    assert_eq!(share(&mut engine, 10_000), 70, "all of it");
}
