//! V25: the order of schemes in the run with changing servers of Barbette et al., "A High-Speed Load-Balancer Design with
//! Guaranteed Per-Connection-Consistency", NSDI 2020 (repository cheetahlb/experiments, folder `dynamic`).
//!
//! Servers come and go as in that run, second by second. Connections come at an even rate for a minute, last as those of
//! a Hadoop cluster, and send a packet each second. A server that leaves goes on to serve those that it has. A
//! connection is broken when a packet meets a server that does not know it.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use evenkeel_engine::director::builtin::native;
use evenkeel_engine::director::{NewFlow, Scheduler, Selection, ServerId, ServerLoad, ServerView};
use evenkeel_engine::plan::{Builtin, Tuned};
use evenkeel_engine::wire::FiveTuple;
use evenkeel_engine::{Duration, Instant};
use evenkeel_sim::flow_mode::{Change, Connections, LoadSetup, Session, Setup, Timed};
use evenkeel_sim::random::Stream;
use evenkeel_sim::work::{Arrivals, Cdf, Law, QueueSpec, Shape, named};

use crate::flow_support::{SECOND, load, machines, plan, run_with, setup};

/// From which second on how many servers there are: the column NBSRV of the run (`HashNBSRV.csv`).
const SERVERS: [(usize, usize); 12] = [
    (0, 24),
    (20, 25),
    (21, 27),
    (22, 29),
    (28, 30),
    (31, 28),
    (35, 27),
    (36, 26),
    (37, 24),
    (38, 22),
    (60, 22),
    (61, 22),
];
const SECONDS: usize = 61;
/// Buckets of the scheme that knows two servers for each.
const BUCKETS: u64 = 1 << 16;

/// A scheme, and what came of it.
#[derive(Clone, Copy, Debug)]
pub struct Scheme {
    pub name: &'static str,
    pub published: &'static str,
    pub broken: u64,
    pub connections: u64,
}

/// Server of every bucket or hash in every second.
struct Choice {
    scheduler: Box<dyn Scheduler>,
    /// The servers of each distinct number of them.
    views: Vec<ServerView>,
}

impl Choice {
    fn new(kind: Builtin) -> Self {
        let view = |number: u32| {
            let address: IpAddr = Ipv4Addr::from_bits(0x0a00_0000 + number).into();
            ServerView {
                id: ServerId::of(address.into(), 80),
                address,
                port: 80,
                weight: 1,
                is_up: true,
                is_full: false,
            }
        };
        Self { scheduler: native(&Tuned::from(kind), 1), views: (0..32).map(view).collect() }
    }

    /// The servers of so many hashes while the first `count` servers are there.
    fn of(&mut self, count: usize, hashes: &[u64]) -> Vec<u16> {
        let views = &self.views[..count];
        self.scheduler.update(views, Instant::ZERO);
        let mut loads = vec![ServerLoad::default(); count];
        let flow = |hash: &u64| NewFlow { hash: *hash, tuple: FiveTuple::default() };
        let flows: Vec<NewFlow> = hashes.iter().map(flow).collect();
        let mut answers = vec![None; flows.len()];
        self.scheduler.pick(&mut Selection::new(&flows, views, &mut loads, &mut answers), Instant::ZERO);
        answers.into_iter().map(Option::unwrap).collect()
    }

    /// The same for each second.
    fn by_second(&mut self, hashes: &[u64]) -> Vec<Vec<u16>> {
        let mut table: Vec<Vec<u16>> = Vec::new();
        let mut before = 0;
        for second in 0..SECONDS {
            let count = SERVERS.iter().rev().find(|(from, _)| *from <= second).unwrap().1;
            let row = if count == before { table[second - 1].clone() } else { self.of(count, hashes) };
            table.push(row);
            before = count;
        }
        table
    }
}

/// Runs every scheme over the same connections.
pub fn run(connections: usize, seed: u64) -> [Scheme; 4] {
    let stream = |purpose| Stream::new(seed, "cheetah", purpose);
    let (mut lasting, mut hashing) = (stream("durations"), stream("hashes"));
    let law = named("hadoop-connection-duration").unwrap();
    let hashes: Vec<u64> = (0..connections).map(|_| hashing.bits()).collect();
    // From the second in which each begins to the one in which it ends.
    let span = |number: usize| {
        let begin = number * SECONDS / connections;
        let seconds = (law.draw(&mut lasting) / 1_000_000_000) as usize;
        (begin, (begin + seconds).min(SECONDS - 1))
    };
    let spans: Vec<(usize, usize)> = (0..connections).map(span).collect();
    let stateless = |kind| {
        let table = Choice::new(kind).by_second(&hashes);
        let breaks = |(number, (begin, end)): (usize, &(usize, usize))| {
            (*begin..=*end).any(|second| table[second][number] != table[*begin][number])
        };
        spans.iter().enumerate().filter(|one| breaks(*one)).count() as u64
    };
    let buckets: Vec<u64> = (0..BUCKETS).map(|bucket| bucket.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    let table = Choice::new(Builtin::Rendezvous).by_second(&buckets);
    // The server before the present one, by bucket and second.
    let mut previous = vec![table[0].clone()];
    for second in 1..SECONDS {
        let mut row = previous[second - 1].clone();
        for (bucket, place) in row.iter_mut().enumerate() {
            if table[second][bucket] != table[second - 1][bucket] {
                *place = table[second - 1][bucket];
            }
        }
        previous.push(row);
    }
    let chained = spans.iter().zip(&hashes).filter(|((begin, end), hash)| {
        let bucket = (**hash % BUCKETS) as usize;
        let own = table[*begin][bucket];
        (*begin..=*end).any(|second| table[second][bucket] != own && previous[second][bucket] != own)
    });
    let chained = chained.count() as u64;
    let scheme =
        |name, published, broken| Scheme { name, published, broken, connections: connections as u64 };
    [
        scheme("hash modulo servers", "997 of 105241 (0.95 %)", stateless(Builtin::Modulo)),
        scheme("consistent hash", "715 of 107352 (0.67 %)", stateless(Builtin::Rendezvous)),
        scheme("consistent hash, and the server before (Beamer)", "51 (0.05 %)", chained),
        scheme("the server is kept (Cheetah; here the flow table)", "0", tracked(connections, seed)),
    ]
}

/// Packets of the same kind of connections, by their law in whole seconds; the run ends after a minute.
const PACKETS: &str = "1 54.79704797\n11 76.01476015\n23 89.85239852\n37 92.80442804\n61 100";

/// Connections that break in flow mode, where the engine's flow table keeps the server of each. Servers leave as
/// operators let them: by weight 0.
fn tracked(connections: usize, seed: u64) -> u64 {
    let per_second = connections as f64 / SECONDS as f64;
    let count = Law::Table { table: Cdf::parse(PACKETS, 1, Shape::Step).unwrap() };
    let session = Session::Requests { count, gap: Law::Fixed { value: SECOND } };
    let arrivals = Arrivals::Uniform { per_second };
    let load = LoadSetup { session, ..load(arrivals, Law::Fixed { value: 1_000 }, connections as u64) };
    let mut timeline = Vec::new();
    let mut weighs = |second: usize, machines: std::ops::Range<usize>, weight| {
        timeline.extend(machines.map(|machine| Timed {
            at: Duration::from_secs(second as u64),
            change: Change::Weight { machine: format!("s{machine}"), weight },
        }));
    };
    weighs(0, SERVERS[0].1..32, 0);
    for [(_, before), (second, after)] in SERVERS.array_windows() {
        weighs(*second, *before..*after.max(before), 1);
        weighs(*second, *after..*before.max(after), 0);
    }
    let queue = QueueSpec { cores: 64, ..QueueSpec::default() };
    let setup = Setup {
        timeline,
        connections: Connections::Timed,
        duration: Duration::from_secs(SECONDS as u64),
        ..setup(seed, machines(32, queue), load)
    };
    let outcome = run_with(&setup, plan(Builtin::Modulo, 32));
    assert!(outcome.loads[0].completed > connections as u64 / 2, "{outcome:?}");
    outcome.broken_in_all()
}

/// The table of the page.
pub fn table() -> String {
    let mut text = String::from(
        "| scheme | published: errors of requests | here: broken of connections |\n|---|---|---|\n",
    );
    for Scheme { name, published, broken, connections } in run(105_000, 1) {
        let share = 100.0 * broken as f64 / connections as f64;
        let line = format!("| {name} | {published} | {broken} of {connections} ({share:.2} %) |");
        println!("{line}");
        writeln!(text, "{line}").unwrap();
    }
    text
}
