//! V29 to V32: what forwarders remember of flows, against what they must.

use std::net::{IpAddr, Ipv4Addr};

use evenkeel_engine::Duration;
use evenkeel_engine::director::builtin::maglev_table;
use evenkeel_engine::director::{ServerId, ServerView};
use evenkeel_engine::plan::{Builtin, MidStream, Mode, SourceNat};
use evenkeel_engine::wire::Address;
use evenkeel_sim::flow_mode::{
    Cause, Change, Connections, Extent, LoadSetup, Outcome, Session, Setup, Timed, run,
};
use evenkeel_sim::work::{Arrivals, Law, QueueSpec};

use crate::flow_support::{MILLISECOND, SECOND, forwarder, load, machines, plan, rip, run_with, setup};
use crate::row::{Effort, Row};

const FORWARDERS: usize = 4;

/// Flows of two requests over four forwarders behind a modulo router. Between both requests so many real servers leave
/// the plans, and then one forwarder stops.
fn moved_router(seed: u64, flows: u64, servers: usize, removed: usize) -> Outcome {
    let mut timeline: Vec<Timed> = (0..removed)
        .map(|number| Timed {
            at: Duration::from_secs(4),
            change: Change::Remove { machine: format!("s{number}") },
        })
        .collect();
    let change = Change::StopForwarder { forwarder: "lb1".to_owned() };
    timeline.push(Timed { at: Duration::from_secs(5), change });
    // Every flow begins in the first second and sends its second request eight seconds later.
    let arrivals = Arrivals::Uniform { per_second: flows as f64 };
    let session = Session::Requests { count: Law::Fixed { value: 2 }, gap: Law::Fixed { value: 8 * SECOND } };
    let load = LoadSetup { session, ..load(arrivals, Law::Fixed { value: 1_000 }, flows) };
    let setup = Setup { timeline, ..setup(seed, machines(servers, QueueSpec::default()), load) };
    let forwarders = (0..FORWARDERS).map(|number| {
        let mut plan = plan(Builtin::Maglev, servers);
        plan.hash_key.0[0] = seed;
        // A forwarder that does not know a flow takes it up in its middle.
        plan.directors[0].mid_stream = MidStream::Pick;
        forwarder(&format!("lb{number}"), plan)
    });
    run(&setup, forwarders.collect()).unwrap()
}

/// The Maglev tables with all servers, and without the first `removed`.
fn two_tables(servers: usize, removed: usize, address: impl Fn(usize) -> IpAddr, port: u16) -> [Vec<u16>; 2] {
    let view = |number| {
        let address: IpAddr = address(number);
        let id = ServerId::of(Address::from(address), port);
        ServerView { id, address, port, weight: 1, is_up: true, is_full: false }
    };
    let mut views: Vec<ServerView> = (0..servers).map(view).collect();
    let before = maglev_table(&views, 65_537);
    views.iter_mut().take(removed).for_each(|view| view.is_up = false);
    [before, maglev_table(&views, 65_537)]
}

/// The share of entries that are of servers that stay and change when the first `removed` leave.
fn survivors_changed(servers: usize, removed: usize) -> f64 {
    let [before, after] = two_tables(servers, removed, rip, 80);
    let stays = |place: &u16| usize::from(*place) >= removed;
    let changed = before.iter().zip(&after).filter(|(before, after)| stays(before) && before != after);
    changed.count() as f64 / before.len() as f64
}

/// Entries that change when the first `removed` leave, of servers at these addresses.
pub fn changed_entries(servers: usize, removed: usize, address: impl Fn(usize) -> IpAddr) -> usize {
    let [before, after] = two_tables(servers, removed, address, 0);
    before.iter().zip(&after).filter(|(before, after)| before != after).count()
}

pub fn v29(effort: Effort) -> Vec<Row> {
    let flows = effort.choose(20_000, 300_000);
    let (servers, removed) = (1_000, 10);
    let share = |outcome: &Outcome| outcome.broken(Cause::ForwarderMoved) as f64 / flows as f64;
    let runs = |removed| -> Vec<f64> {
        let seeds = 1..=effort.choose(4, 6);
        seeds.map(|seed| share(&moved_router(seed, flows, servers, removed))).collect()
    };
    let exact = (1.0 - 1.0 / FORWARDERS as f64) * survivors_changed(servers, removed);
    vec![
        Row::of_seeds(
            "V29",
            "4 forwarders, one stops after 10 of 1,000 servers have left: flows that break by that",
            &runs(removed),
            exact,
            effort.choose(0.12, 0.04),
        ),
        Row::of_seeds("V29", "the same without a change of servers", &runs(0), 0.0, 0.0),
    ]
}

/// A flood of first packets at an even rate, and nothing else.
fn flood(per_second: f64, seconds: f64, connections: Connections, half_open: u16, timeout: u64) -> Outcome {
    let count = (per_second * seconds) as u64;
    let flood = load(Arrivals::Uniform { per_second }, Law::Fixed { value: 0 }, count);
    let flood = LoadSetup { session: Session::Flood, ..flood };
    let setup = Setup { connections, ..setup(1, machines(2, QueueSpec::default()), flood) };
    let mut plan = plan(Builtin::RoundRobin, 2);
    plan.limits.half_open_max = half_open;
    plan.timeouts.tcp_syn_sent = Duration::from_secs(timeout);
    run_with(&setup, plan)
}

pub fn v30(effort: Effort) -> Vec<Row> {
    // Entries wait for their timeout, or for a newer one to push them out.
    let rate = effort.choose(2_000.0, 20_000.0);
    let timeout = effort.choose(3, 10);
    let wanted = rate * timeout as f64;
    let room = u16::try_from(effort.choose(4_000, 60_000)).unwrap();
    let held = |rate| flood(rate, 2.5 * timeout as f64, Connections::Timed, room, timeout).tables[0].clone();
    let (within, beyond) = (held(rate / 4.0), held(rate));
    let mut rows = vec![
        Row::of(
            "V30",
            "SYN flood, R T below the table: entries",
            within.entries_max as f64,
            wanted / 4.0,
            0.002,
        ),
        Row::of(
            "V30",
            "SYN flood, R T above the table: entries",
            beyond.entries_max as f64,
            room.into(),
            0.0,
        ),
    ];
    // The victim's flow is idle for a little less, or more, than the time in which the table turns over.
    let entries = effort.choose(10_000, 1_000_000);
    let turnover = f64::from(entries) / (10.0 * rate);
    for (idle, outcome) in [(0.98, 0.0), (1.02, 1.0)] {
        let gap = Law::Fixed { value: (turnover * idle * SECOND as f64) as u64 };
        let session = Session::Requests { count: Law::Fixed { value: 2 }, gap };
        let arrivals = Arrivals::Uniform { per_second: 1.0 / turnover };
        let victim =
            LoadSetup { session, name: "victim".into(), ..load(arrivals, Law::Fixed { value: 1 }, 3) };
        let count = (10.0 * rate * turnover * 6.0) as u64;
        let flood = load(Arrivals::Uniform { per_second: 10.0 * rate }, Law::Fixed { value: 0 }, count);
        let mut flood = LoadSetup { session: Session::Flood, ..flood };
        flood.clients.first = Ipv4Addr::new(172, 16, 0, 0).into();
        let mut setup = setup(1, machines(2, QueueSpec::default()), victim);
        setup.loads.push(flood);
        setup.connections = Connections::Lru { entries };
        let outcome_found = run_with(&setup, plan(Builtin::RoundRobin, 2));
        let share = outcome_found.broken(Cause::Evicted) as f64 / 3.0;
        let case = format!("least recently used: flows evicted that are idle for {idle} C/R");
        rows.push(Row::of("V30", case, share, outcome, 0.0));
    }
    rows
}

/// Connections whose ports stay taken for so many seconds after they close, at twice the rate that there are ports for.
pub fn v31(effort: Effort) -> Vec<Row> {
    const PORTS: f64 = 64_512.0;
    let row = |hold: u64| {
        let limit = PORTS / hold as f64;
        let rounds = effort.choose(2, 10);
        let arrivals = Arrivals::Uniform { per_second: 1.5 * limit };
        let load = load(arrivals, Law::Fixed { value: 1_000 }, u64::MAX);
        let duration = Duration::from_secs(hold * rounds);
        let load = LoadSetup { extent: Extent::Until(duration), ..load };
        let setup = Setup {
            connections: Connections::Timed,
            duration,
            ..setup(1, machines(1, QueueSpec::default()), load)
        };
        let mut plan = plan(Builtin::RoundRobin, 1);
        let sources = vec![SourceNat::to(Ipv4Addr::new(10, 9, 0, 1).into(), 1_024..=65_535)];
        plan.directors[0].mode = Mode::Nat { sources };
        plan.timeouts.tcp_time_wait = Duration::from_secs(hold);
        let outcome = run_with(&setup, plan);
        assert!(outcome.broken(Cause::NoPort) > 0);
        let opened = outcome.tables[0].opened as f64 / (hold * rounds) as f64;
        let case = format!("full NAT, ports held for {hold} s: new connections a second");
        Row::of("V31", case, opened, limit, 0.001)
    };
    effort.choose(&[60][..], &[60, 120]).iter().map(|hold| row(*hold)).collect()
}

/// Mean entries of the flow table: rate times the mean time in it.
pub fn v32(effort: Effort) -> Vec<Row> {
    let seeds = effort.choose(4, 6);
    let linger = |seed| {
        let (per_second, seconds) = (500.0, effort.choose(60.0, 500.0));
        let work = Law::Exponential { mean: 50 * MILLISECOND };
        let load = load(Arrivals::Poisson { per_second }, work, (per_second * seconds) as u64);
        let queue = QueueSpec { cores: 4_096, ..QueueSpec::default() };
        let mut setup = setup(seed, machines(2, queue), load);
        setup.connections = Connections::Timed;
        setup.warmup = Duration::from_secs(4);
        // Up to the last arrival: no tail without arrivals.
        setup.duration = Duration::from_secs_f64(seconds * 0.99);
        let mut plan = plan(Builtin::RoundRobin, 2);
        plan.timeouts.tcp_time_wait = Duration::from_secs(2);
        run_with(&setup, plan).tables[0].entries_mean_millionths as f64 / 1e6
    };
    let entries: Vec<f64> = (1..=seeds).map(linger).collect();
    let case = "500 flows a second, 50 ms of service, 2 s in TIME-WAIT: mean entries";
    let tolerance = effort.choose(0.02, 0.01);
    let mut rows = vec![Row::of_seeds("V32", case, &entries, 500.0 * (0.05 + 2.0), tolerance)];
    // Connections of a Hadoop cluster at the rate that keeps so many open. They last up to ten minutes.
    let target = effort.choose(300.0, 30_000.0);
    let name = "hadoop-connection-duration";
    let duration = Law::Named { name: name.into() };
    let per_second = target / (duration.mean().unwrap() / 1e9);
    let connections = |seed| {
        let load = load(Arrivals::Poisson { per_second }, duration.clone(), u64::MAX);
        let queue = QueueSpec { cores: 4_096, ..QueueSpec::default() };
        let mut setup = setup(seed, machines(effort.choose(2, 468), queue), load);
        setup.warmup = Duration::from_secs(700);
        setup.duration = Duration::from_secs(effort.choose(3_700, 2_200));
        let outcome = run_with(&setup, plan(Builtin::RoundRobin, effort.choose(2, 468)));
        outcome.tables[0].entries_mean_millionths as f64 / 1e6
    };
    let entries: Vec<f64> = (1..=3).map(connections).collect();
    let case = format!("connections of a Hadoop cluster, {per_second:.1} a second: mean entries");
    rows.push(Row::of_seeds("V32", case, &entries, target, effort.choose(0.05, 0.02)));
    rows
}
