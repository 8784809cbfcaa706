//! Records of a run that never was, for tests of what is made of records. They come from a recorder that is
//! fed with drawn numbers, so they are as a world would leave them.
#![allow(clippy::unwrap_used, reason = "tests")]

use evenkeel_engine::{Duration, Instant};

use super::data::{Drop, ExpectationRecord, ForwarderRecord, GuestRecord, Mode, Parameter, RunRecord};
use super::drawing::{Graph, Kind};
use super::recorder::{BrokenFlow, Completed, Recorder, ServerSetup, Setup, TableSetup};
use crate::random::Stream;

/// Twenty seconds with a server that stops, under a scheduler that is more or less good.
pub(super) fn record(seed: u64, scheduler: &str, servers: usize) -> RunRecord {
    busy(seed, scheduler, servers, 2_000)
}

/// The same at another rate of requests per second.
pub(super) fn busy(seed: u64, scheduler: &str, servers: usize, rate: u64) -> RunRecord {
    let (spread, keeps) = match scheduler {
        "maglev" => (2, 30),
        "round-robin" => (3, 2),
        "least-connections" => (1, 3),
        _ => (6, 1),
    };
    let mut recorder = Recorder::new(setup(servers));
    // Latencies are drawn alike for every scheduler, as common random numbers are.
    let (mut chance, mut choice) =
        (Stream::new(seed, "example", "latency"), Stream::new(seed, "example", "choice"));
    let stop = Instant::from_nanos(8_000_000_000);
    let (mut now, mut active) = (Instant::ZERO, vec![0u32; servers]);
    let count = u64::try_from(servers).unwrap();
    for flow in 0..rate * 20 {
        now = now.after(Duration::from_nanos(1_000_000_000 / rate));
        let load = usize::from(flow % 3 == 0);
        recorder.started(now, load);
        let even = usize::try_from(flow % count).unwrap();
        let server =
            if choice.below(10) < spread { usize::try_from(choice.below(count)).unwrap() } else { even };
        let mean = Duration::from_micros(800 + 300 * spread * rate / 2_000 + 200 * u64::from(load == 1));
        let latency = chance.exponential(mean) + Duration::from_micros(300);
        let level = 20 + u32::try_from(choice.below(8) * spread).unwrap();
        *active.get_mut(server).unwrap() = level;
        recorder.active(now, server, level);
        let is_gone = server == 1 && now > stop && now < stop.after(Duration::from_millis(400));
        let is_moved =
            choice.below(20_000) < 200 / keeps && now > stop && now < stop.after(Duration::from_secs(2));
        if is_gone || is_moved {
            let cause = usize::from(is_gone);
            recorder.broken(now, BrokenFlow { load, server: Some(server), cause, is_unavoidable: is_gone });
        } else {
            let bytes = 10_240 + choice.below(4_096);
            recorder.completed(now, Completed { load, server: Some(server), latency, bytes });
        }
        if recorder.is_sample_due(now) {
            recorder.held(now, 0, 4_000 + choice.below(500) + flow / 40, flow / 500);
        }
    }
    recorder.mark(stop, "server.1 stops");
    recorder.mark(Instant::from_nanos(12_000_000_000), "server.1 is replaced by server.9");
    let mut record = RunRecord::default();
    recorder.finish(now, &mut record);
    describe(&mut record, seed, scheduler, rate);
    record
}

fn setup(servers: usize) -> Setup {
    let server = |index: usize| ServerSetup {
        name: format!("server.{index}"),
        address: format!("10.0.{}.{}", 3 + index / 200, 20 + index % 200),
        weight: 1,
    };
    Setup {
        servers: (0..servers).map(server).collect(),
        loads: vec!["web".to_owned(), "names".to_owned()],
        causes: vec![
            ("server_changed".to_owned(), "another real server answered than before".to_owned()),
            ("timed_out".to_owned(), "the other side stopped to answer".to_owned()),
        ],
        tables: vec![TableSetup { name: "lb flow table".to_owned(), capacity: 65_536 }],
        ..Setup::default()
    }
}

fn describe(record: &mut RunRecord, seed: u64, scheduler: &str, rate: u64) {
    let parameter = |name: &str, value: String| Parameter { name: name.to_owned(), value };
    record.scenario = "example".to_owned();
    record.mode = Mode::Packet;
    record.seed = seed;
    record.version = "0.1.0".to_owned();
    record.command =
        format!("evenkeel sim run example.toml --seed {seed} --set service.web.scheduler={scheduler}");
    record.parameters = vec![
        parameter("service.web.scheduler", scheduler.to_owned()),
        parameter("load.web.rate", format!("{rate}/s")),
    ];
    record.events = 1_234_567;
    record.hashes.wire = "00112233445566ff".to_owned();
    record.hashes.decisions = "ffeeddccbbaa9988".to_owned();
    record.topology = topology(record.servers.len());
    record.packets.sent = 640_000;
    record.packets.received = 639_120;
    record.packets.retransmitted = 412;
    let drop =
        |place: &str, reason: &str, count| Drop { place: place.to_owned(), reason: reason.to_owned(), count };
    record.drops = vec![
        drop("forwarder lb", "no_server", 220),
        drop("forwarder lb", "unknown_flow", 61),
        drop("link client.0 - clients", "lost by chance", 512),
        drop("link lb - servers", "queue full", 87),
    ];
    let expectation = |metric: &str, wanted: &str, found: &str, is_met| ExpectationRecord {
        metric: metric.to_owned(),
        wanted: wanted.to_owned(),
        found: Some(found.to_owned()),
        is_met,
    };
    record.expectations = vec![
        expectation("flows.broken", "at most 1000", &record.flows.broken.to_string(), true),
        expectation("conserved", "equal to 1", "1", true),
    ];
    let mut forwarder = ForwarderRecord {
        name: "lb".to_owned(),
        packets_in: 640_000,
        forwarded: 639_719,
        dropped: 281,
        flows_opened: record.flows.started,
        ..ForwarderRecord::default()
    };
    forwarder.cost.decisions = record.flows.started;
    let each = match scheduler {
        "maglev" => 412,
        "round-robin" => 160,
        _ => 655,
    };
    forwarder.cost.instructions = Some(record.flows.started * each);
    forwarder.cost.memory_bytes = Some(if scheduler == "maglev" { 9_400_000 } else { 8_600_000 });
    forwarder.guests = vec![GuestRecord {
        name: "web".to_owned(),
        calls: record.flows.started,
        decided: record.flows.started,
        faults: 0,
        fallbacks: 0,
    }];
    record.forwarders = vec![forwarder];
    record.notes.push("Packets of the first second are part of the totals.".to_owned());
    record.seal();
}

fn topology(servers: usize) -> Graph {
    let mut graph = Graph::default();
    let left = graph.node(Kind::Switch, "clients", vec!["198.51.100.0/24".to_owned()]);
    let right = graph.node(Kind::Switch, "servers", vec!["10.0.0.0/16".to_owned()]);
    for index in 0..100 {
        let client =
            graph.node(Kind::Client, format!("client.{index}"), vec![format!("198.51.100.{}", index + 10)]);
        graph.edge(client, left, "20 ms, 1 Gbit/s");
    }
    let lb = graph.node(Kind::Forwarder, "lb", vec!["198.51.100.1".to_owned(), "10.0.3.1".to_owned()]);
    graph.edge(left, lb, "10 µs, 10 Gbit/s");
    graph.edge(lb, right, "10 µs, 10 Gbit/s");
    for index in 0..servers {
        let server = graph.node(
            Kind::Server,
            format!("server.{index}"),
            vec![format!("10.0.{}.{}", 3 + index / 200, 20 + index % 200)],
        );
        graph.edge(right, server, "10 µs, 10 Gbit/s");
    }
    graph
}
