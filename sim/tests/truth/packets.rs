//! V29 to V32 with real frames: scenarios in packet mode, and SYNs through an engine.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use evenkeel_engine::{Duration, Engine, Guests, Instant, InterfaceId, step};
use evenkeel_sim::device::SimDevice;
use evenkeel_sim::packet::{End, Flags, Header, Segment, build};
use evenkeel_sim::{Equipment, Options, Outcome, Scenario, run};

use crate::row::{Effort, Row};

/// Runs a scenario whose forwarders all have the same configuration, each with the given seed.
fn run_text(scenario: &str, config: &str, seeds: &[u64], seed: u64) -> Outcome {
    let scenario =
        Scenario::parse(scenario, Path::new("truth.toml")).unwrap_or_else(|errors| panic!("{errors}"));
    let equipment = |seed: &u64| {
        let loaded = evenkeel_config::parse(config, "truth-evenkeel.toml");
        let loaded = loaded.unwrap_or_else(|errors| panic!("{errors}"));
        Equipment { plan: loaded.with_seed(*seed).plan, guests: Guests::default() }
    };
    let options = Options { seed: Some(seed), is_unchecked: true, ..Options::default() };
    run(&scenario, seeds.iter().map(equipment).collect(), options).unwrap_or_else(|error| panic!("{error}"))
}

/// The real servers of a configuration, from 10.0.0.20 on, each with the port that clients call.
fn servers(count: u32) -> String {
    let mut text = String::new();
    for number in 0..count {
        let address = Ipv4Addr::from_bits(0x0a00_0014 + number);
        writeln!(text, "  {{ name = \"s{number}\", address = \"{address}\" }},").unwrap();
    }
    text
}

const FORWARDERS: u64 = 4;

/// Flows that all are open when so many of `servers` drain, and then one of four forwarders loses its route.
fn moved_router(flows: u32, servers_count: u32, removed: u32, scheduler: &str, seed: u64) -> Outcome {
    let config = format!(
        r#"
[interface.tun0]
kind = "tun"
address = ["10.99.0.1/24"]

[director.web]
bind = "10.9.0.9:443/tcp"
mode = "tunnel"
tunnel = {{ encapsulation = "ipip" }}
scheduler = "{scheduler}"
mid_stream = "pick"
server = [
{}]
"#,
        servers(servers_count)
    );
    let mut scenario = format!(
        r#"
[scenario]
name = "moved-router"
duration = "10m"

[segment.clients]
subnet = "198.51.100.0/24"

[segment.lan]
subnet = "10.0.0.0/16"

[router.edge]
attach = [
    {{ segment = "clients", address = "198.51.100.1/24" }},
    {{ segment = "lan", address = "10.0.0.1/16" }},
]
routes = [{{ to = "10.9.0.9", via = ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"] }}]
ecmp = "modulo"

[host.client]
count = 16
attach = [{{ segment = "clients", address = "198.51.100.10+i/24" }}]
gateway = "198.51.100.1"

[host.server]
count = {servers_count}
attach = [{{ segment = "lan", address = "10.0.0.20+i/16" }}]
loopback = "10.9.0.9"
gateway = "10.0.0.1"
sysctl = {{ arp_ignore = 1, arp_announce = 2 }}
tunnel = true

[load.users]
from = "client"
to = "10.9.0.9:443/tcp"
arrivals = {{ process = "uniform", rate = "{}/s" }}
flows = {flows}
rounds = 8
pause = "2s"

[[timeline]]
at = "4s"
do = "route.set"
target = "edge"
to = "10.9.0.9"
via = ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
"#,
        flows / 2
    );
    for number in 2..6 {
        write!(
            scenario,
            "[forwarder.lb{number}]\nattach = [{{ segment = \"lan\", address = \"10.0.0.{number}/16\" }}]\n\
             gateway = \"10.0.0.1\"\nconfig = \"none.toml\"\n"
        )
        .unwrap();
    }
    for number in 0..removed {
        write!(
            scenario,
            "[[timeline]]\nat = \"3s\"\ndo = \"weight\"\ntarget = \"lb*\"\ndirector = \"web\"\n\
             server = \"s{number}\"\nweight = 0\n"
        )
        .unwrap();
    }
    // Of one seed, forwarders choose alike.
    run_text(&scenario, &config, &[seed; FORWARDERS as usize], seed)
}

/// The share of entries that change when the first `removed` leave.
fn entries_changed(servers: usize, removed: usize) -> f64 {
    let changed = crate::tables::changed_entries(servers, removed, |number| {
        Ipv4Addr::from_bits(0x0a00_0014 + u32::try_from(number).unwrap()).into()
    });
    changed as f64 / 65_537.0
}

/// Flows of which so many out of all have a property, by seeds.
fn shares(seeds: u64, flows: u32, count: impl Fn(u64) -> u64) -> Vec<f64> {
    (1..=seeds).map(|seed| count(seed) as f64 / f64::from(flows)).collect()
}

fn reset(outcome: &Outcome) -> u64 {
    outcome.flows.causes.get("reset").copied().unwrap_or(0)
}

pub fn v29(effort: Effort) -> Vec<Row> {
    let flows = effort.choose(1_000, 10_000);
    let seeds = effort.choose(3, 4);
    let servers = effort.choose(100, 1_000);
    let removed = 10;
    let moved_share = 1.0 - 1.0 / FORWARDERS as f64;
    let places = usize::try_from(servers).unwrap();
    let outcomes: Vec<Outcome> =
        (1..=seeds).map(|seed| moved_router(flows, servers, removed, "maglev", seed)).collect();
    // Every flow that moves is entered again by the forwarder that it meets then.
    let opened = |outcome: &Outcome| outcome.forwarders.iter().map(|one| one.flows_opened).sum::<u64>();
    let of = |outcomes: &[Outcome], count: &dyn Fn(&Outcome) -> u64| -> Vec<f64> {
        outcomes.iter().map(|outcome| count(outcome) as f64 / f64::from(flows)).collect()
    };
    let moved = of(&outcomes, &|outcome| opened(outcome) - outcome.flows.started);
    let broken = of(&outcomes, &reset);
    let still = shares(seeds, flows, |seed| reset(&moved_router(flows, servers, 0, "maglev", seed)));
    let by_chance = shares(seeds, flows, |seed| reset(&moved_router(flows, servers, 0, "random", seed)));
    let name = |what: &str| {
        format!("frames, 4 forwarders behind a modulo router lose one, {servers} servers: {what}")
    };
    vec![
        Row::of_seeds("V29", name("flows that move"), &moved, moved_share, effort.choose(0.05, 0.02)),
        Row::of_seeds(
            "V29",
            name("flows that break, after 10 have left"),
            &broken,
            moved_share * entries_changed(places, 10),
            effort.choose(0.35, 0.20),
        ),
        Row::of_seeds("V29", name("flows that break, the same servers all the time"), &still, 0.0, 0.0),
        Row::of_seeds(
            "V29",
            name("flows that break, each forwarder chooses at random"),
            &by_chance,
            moved_share * (1.0 - 1.0 / f64::from(servers)),
            effort.choose(0.05, 0.02),
        ),
    ]
}

/// An engine that meets SYNs which nobody answers.
struct Flood {
    engine: Engine,
    device: SimDevice,
    next: u32,
}

impl Flood {
    fn new(half_open_max: u32, timeout_s: u64) -> Self {
        let config = format!(
            r#"
[interface.tun0]
kind = "tun"

[limits]
half_open = {half_open_max}

[timeouts]
tcp_syn_sent = "{timeout_s}s"

[director.web]
bind = "10.0.0.3:443/tcp"
mode = "nat"
scheduler = "rr"
server = [
{}]
"#,
            servers(2)
        );
        let loaded =
            evenkeel_config::parse(&config, "flood.toml").unwrap_or_else(|errors| panic!("{errors}"));
        let engine = Engine::new(loaded.plan, Guests::default(), Instant::ZERO).unwrap();
        Self { engine, device: SimDevice::default(), next: 0 }
    }

    /// One SYN from an address that nobody has had.
    fn send(&mut self, now: Instant) {
        let source = End { address: Ipv4Addr::from_bits(0x6440_0000 + self.next), port: 1_024 };
        self.next += 1;
        let segment = Segment { sequence: 1, acknowledgement: 0, flags: Flags::SYN, window: 65_000 };
        let service = End { address: Ipv4Addr::new(10, 0, 0, 3), port: 443 };
        let packet = build(self.device.buffer(), (source, service), Header::Tcp(segment), 0, |_| {});
        assert!(self.device.put(InterfaceId(0), packet).is_ok());
        step(&mut self.engine, &mut self.device, now);
        while self.device.take().is_some() {}
    }

    /// Lets everything run out that is over.
    fn pass(&mut self, now: Instant) {
        while self.engine.poll_timeout().is_some_and(|due| due <= now) {
            self.engine.handle_timeout(now);
        }
    }
}

/// The most entries of a flood at an even rate, and the second in which the table was full.
fn occupancy(rate: u64, seconds: u64, room: u32, timeout_s: u64) -> (usize, Option<f64>, u64) {
    let mut flood = Flood::new(room, timeout_s);
    let (mut most, mut full) = (0, None);
    for number in 0..rate * seconds {
        let now = Instant::from_nanos(number * 1_000_000_000 / rate);
        flood.pass(now);
        flood.send(now);
        most = most.max(flood.engine.half_open_count());
        if full.is_none() && flood.engine.half_open_count() == usize::try_from(room).unwrap() {
            full = Some((number + 1) as f64 / rate as f64);
        }
    }
    (most, full, flood.engine.counters().half_open_evicted)
}

pub fn v30(effort: Effort) -> Vec<Row> {
    let rate = effort.choose(2_000, 20_000);
    let timeout = effort.choose(3, 10);
    let room = effort.choose(2_000, 60_000);
    let (within, _, none) = occupancy(rate / 4, 2 * timeout, room, timeout);
    assert_eq!(none, 0, "nobody has to give way");
    let (beyond, full, evicted) = occupancy(rate, 2 * timeout, room, timeout);
    let sent = rate * 2 * timeout;
    vec![
        Row::of(
            "V30",
            "SYN frames, rate times timeout below the table: half-open entries",
            within as f64,
            (rate / 4 * timeout) as f64,
            0.003,
        ),
        Row::of(
            "V30",
            "SYN frames, more than the table holds: half-open entries",
            beyond as f64,
            room.into(),
            0.0,
        ),
        Row::of(
            "V30",
            "the same: seconds until it is full, C/R",
            full.unwrap_or(0.0),
            f64::from(room) / rate as f64,
            0.001,
        ),
        // Each SYN beyond the room pushes the oldest out, which is C/R old.
        Row::of(
            "V30",
            "the same: entries that gave way, each as old as C/R",
            evicted as f64,
            (sent - u64::from(room)) as f64,
            0.0,
        ),
    ]
}

/// Clients, one forwarder, one server on a cable of its own.
fn one_server(load: &str, service: &str, duration: &str) -> String {
    format!(
        r#"
[scenario]
name = "one-server"
duration = "{duration}"
warmup = "5s"

[segment.clients]
subnet = "198.51.100.0/24"

[segment.servers]
subnet = "10.0.0.0/24"

[host.client]
count = 8
attach = [{{ segment = "clients", address = "198.51.100.10+i/24" }}]
gateway = "198.51.100.1"

[host.server]
attach = [{{ segment = "servers", address = "10.0.0.20/24" }}]
gateway = "10.0.0.1"
{service}

[forwarder.lb]
attach = [
    {{ segment = "clients", address = "198.51.100.1/24" }},
    {{ segment = "servers", address = "10.0.0.1/24" }},
]
config = "none.toml"

[load.users]
from = "client"
to = "10.0.3.3:443/tcp"
{load}
"#
    )
}

fn one_director(more: &str) -> String {
    format!(
        r#"
[interface.tun0]
kind = "tun"

[timeouts]
tcp_time_wait = "TIME"

[director.web]
bind = "10.0.3.3:443/tcp"
mode = "nat"
scheduler = "rr"
{more}
server = [
{}]
"#,
        servers(1)
    )
}

/// New connections a second while ports stay taken after each.
pub fn v31(effort: Effort) -> Vec<Row> {
    let (ports, hold, rounds) = effort.choose((600_u32, 6_u64, 3_u64), (64_512, 60, 2));
    let limit = f64::from(ports) / hold as f64;
    let seconds = hold * rounds;
    let load = format!(
        "arrivals = {{ process = \"uniform\", rate = \"{}/s\" }}\nduration = \"{seconds}s\"",
        (1.5 * limit) as u64
    );
    let snat = format!("snat = {{ address = \"10.0.3.2\", ports = \"1024-{}\" }}", 1_023 + ports);
    let config = one_director(&snat).replace("TIME", &format!("{hold}s"));
    let outcome = run_text(&one_server(&load, "", &format!("{seconds}s")), &config, &[1], 1);
    assert!(
        outcome.forwarders[0].dropped.contains_key("ports_exhausted"),
        "{:?}",
        outcome.forwarders[0].dropped
    );
    let opened = outcome.forwarders[0].flows_opened as f64 / seconds as f64;
    let case = format!("frames, full NAT with {ports} ports held for {hold} s: new connections a second");
    vec![Row::of("V31", case, opened, limit, effort.choose(0.02, 0.005))]
}

/// Mean entries of the flow table: rate times the mean time in it.
pub fn v32(effort: Effort) -> Vec<Row> {
    let (rate, seconds) = effort.choose((100_u64, 20_u64), (1_000, 60));
    let load =
        format!("arrivals = {{ process = \"poisson\", rate = \"{rate}/s\" }}\nduration = \"{seconds}s\"");
    let service = "service = { time = { law = \"exponential\", mean = \"50ms\" }, cores = 1000 }";
    let config = one_director("").replace("TIME", "2s");
    let entries = |seed| {
        let scenario = one_server(&load, service, &format!("{seconds}s"));
        let outcome = run_text(&scenario, &config, &[seed], seed);
        let series = &outcome.record.series;
        let interval = series.interval_ns;
        let first = usize::try_from(5_000_000_000 / interval).unwrap() + 1;
        let flows: Vec<u64> = series.tables[0].entries.iter().skip(first).copied().collect();
        flows.iter().sum::<u64>() as f64 / (flows.len() - 1) as f64
    };
    let entries: Vec<f64> = (1..=effort.choose(4, 6)).map(entries).collect();
    let case = format!("frames, {rate} flows a second, 50 ms of service, 2 s in TIME-WAIT: mean entries");
    let exact = rate as f64 * Duration::from_millis(2_050).as_secs_f64();
    vec![Row::of_seeds("V32", case, &entries, exact, effort.choose(0.08, 0.02))]
}
