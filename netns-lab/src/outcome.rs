//! What a run came to: the table per real server, the metrics, and whether the expectations hold.
//!
//! In: the scenario, the directors of its forwarders, and what the processes counted. Out: an [`Outcome`],
//! as text and as JSON. Servers and metrics have the names and meanings of the simulator's; what a real
//! network does not tell, such as the hash of every packet, is not measured, and an expectation on it is
//! not judged.

use std::collections::BTreeMap;
use std::fmt;

use evenkeel_engine::plan::DirectorPlan;
use evenkeel_engine::wire::Protocol;
use evenkeel_sim::payload::identity;
use evenkeel_sim::record::data::Mode;
use evenkeel_sim::report::{ServerReport, server_rows};
use evenkeel_sim::scenario::{Expectation, Expected, Scenario, Service};
use evenkeel_sim::table::aligned;
use serde::Serialize;
use serde_json::Value;

use crate::orders::{Cause, Findings, Transport};

/// The version of the form of the JSON; it grows when a key changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// The result of a run. The keys of the JSON are the names of the fields.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The version of this form.
    pub schema: u32,
    /// The scenario's name.
    pub scenario: String,
    /// The seed of arrivals, delays and losses.
    pub seed: u64,
    /// From the first flow's start to the last flow's end, in milliseconds of real time.
    pub elapsed_ms: u64,
    /// Each real server of each director of each forwarder, as in the simulator's outcome: flows, packets
    /// and bytes as the forwarder counted them, `answered` as the clients saw it.
    pub servers: Vec<ServerReport>,
    /// Broken flows by cause.
    pub broken: BTreeMap<Cause, u64>,
    /// Packets that forwarders dropped, by reason; reasons that did not happen are left out.
    pub drops: BTreeMap<String, u64>,
    /// Every metric that a lab measures, by name.
    pub metrics: BTreeMap<String, f64>,
    /// The exit codes of the forwarders after SIGTERM; none for one that had to be killed.
    pub exits: BTreeMap<String, Option<i32>>,
    /// The scenario's expectations, in its order.
    pub expectations: Vec<Judgement>,
}

/// One expectation and whether it holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judgement {
    /// The metric.
    pub metric: String,
    /// What was wanted, in words.
    pub wanted: String,
    /// What was found; none for what a lab does not measure.
    pub found: Option<f64>,
    /// Whether it holds; none for what was not measured.
    pub is_met: Option<bool>,
}

impl Outcome {
    /// Whether no expectation was missed.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.expectations.iter().all(|judgement| judgement.is_met != Some(false))
    }
}

/// Sums up what was counted and judges it.
pub(crate) fn judge(
    scenario: &Scenario,
    directors: &[Vec<DirectorPlan>],
    seed: u64,
    findings: &Findings,
) -> Outcome {
    let servers = servers(scenario, directors, findings);
    let mut broken = BTreeMap::new();
    for (cause, count) in findings.loads.iter().flat_map(|load| &load.broken) {
        *broken.entry(*cause).or_insert(0) += count;
    }
    let drops = drops(findings);
    let mut metrics = flow_metrics(findings);
    metrics.insert("flows.bypassed".to_owned(), bypassed(directors, &servers, findings) as f64);
    metrics.extend(forwarder_metrics(findings, &drops));
    metrics.extend(share_metrics(&servers));
    let expectations = scenario.expectations.iter().map(|expected| meets(expected, &metrics)).collect();
    Outcome {
        schema: SCHEMA,
        scenario: scenario.name.clone(),
        seed,
        elapsed_ms: findings.elapsed_ms,
        servers,
        broken,
        drops,
        metrics,
        exits: findings.exits.clone(),
        expectations,
    }
}

fn servers(scenario: &Scenario, directors: &[Vec<DirectorPlan>], findings: &Findings) -> Vec<ServerReport> {
    let mut reports = Vec::new();
    for (forwarder, plans) in scenario.forwarders.iter().zip(directors) {
        let stats = findings.stats.get(&forwarder.name).unwrap_or(&Value::Null);
        for plan in plans {
            let answered = answered(scenario, plan, findings);
            let counted = |server: &str| stats_of(stats, &plan.name, server);
            let flows: u64 = plan.servers.iter().map(|server| number(counted(&server.name), "flows")).sum();
            let service: Vec<String> = plan.binds.iter().map(ToString::to_string).collect();
            let weight: u64 = plan.servers.iter().map(|server| u64::from(server.weight)).sum();
            reports.extend(plan.servers.iter().map(|server| {
                let counted = counted(&server.name);
                ServerReport {
                    forwarder: forwarder.name.clone(),
                    director: plan.name.clone(),
                    service: service.join(" "),
                    server: server.name.clone(),
                    address: format!("{}:{}", server.address, server.port),
                    weight: server.weight,
                    weight_percent: percent(server.weight.into(), weight),
                    flows: number(counted, "flows"),
                    flows_percent: percent(number(counted, "flows"), flows),
                    answered: answered.get(&identity(server.address)).copied().unwrap_or(0),
                    packets_to: number(counted, "packets_to"),
                    packets_from: number(counted, "packets_from"),
                    bytes_to: number(counted, "bytes_to"),
                    bytes_from: number(counted, "bytes_from"),
                }
            }));
        }
    }
    reports
}

/// Completed flows to this director by the identity of the server that answered.
fn answered(scenario: &Scenario, plan: &DirectorPlan, findings: &Findings) -> BTreeMap<u32, u64> {
    let mut flows = BTreeMap::new();
    for result in &findings.loads {
        let load = usize::try_from(result.load).ok().and_then(|load| scenario.loads.get(load));
        let is_ours = load.is_some_and(|load| {
            let Service { address, port, protocol } = load.service;
            plan.binds.iter().any(|binding| binding.serves(address, port, protocol))
        });
        for (server, count) in result.flows.iter().filter(|_| is_ours) {
            *flows.entry(*server).or_insert(0) += count;
        }
    }
    flows
}

/// What the control socket says about this server.
fn stats_of<'a>(stats: &'a Value, director: &str, server: &str) -> &'a Value {
    let by_name = |list: &'a Value, name: &str| {
        let entries = list.as_array().map(Vec::as_slice).unwrap_or_default();
        entries.iter().find(|entry| entry.get("name").and_then(Value::as_str) == Some(name))
    };
    let director = stats.get("directors").and_then(|list| by_name(list, director));
    let servers = director.and_then(|director| director.get("servers"));
    servers.and_then(|list| by_name(list, server)).unwrap_or(&Value::Null)
}

fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

fn drops(findings: &Findings) -> BTreeMap<String, u64> {
    let mut drops = BTreeMap::new();
    for stats in findings.stats.values() {
        let Some(reasons) = stats.get("drops").and_then(Value::as_object) else { continue };
        for (reason, count) in reasons {
            *drops.entry(reason.clone()).or_insert(0) += count.as_u64().unwrap_or(0);
        }
    }
    drops
}

fn flow_metrics(findings: &Findings) -> BTreeMap<String, f64> {
    let (loads, hosts) = (&findings.loads, findings.hosts.values());
    let over_loads = |count: fn(&crate::orders::LoadResult) -> u64| loads.iter().map(count).sum::<u64>();
    let over_hosts = |count: fn(&crate::orders::Counted) -> u64| hosts.clone().map(count).sum::<u64>();
    let resent = over_loads(|load| load.resent);
    let everybody = hosts.clone().chain(findings.others.values());
    let martian_source = everybody.map(|machine| machine.martian_source).sum();
    let counts = [
        ("flows.started", over_loads(|load| load.started)),
        ("flows.completed", over_loads(|load| load.flows.values().sum())),
        ("flows.broken", over_loads(|load| load.broken.values().sum())),
        ("flows.unfinished", over_loads(|load| load.unfinished)),
        ("packets.sent", over_hosts(|host| host.packets_out)),
        ("packets.received", over_hosts(|host| host.packets_in)),
        ("packets.lost", findings.frames_lost),
        ("packets.retransmitted", over_hosts(|host| host.retransmitted) + resent),
        ("packets.stray", over_hosts(|host| host.stray)),
        ("kernels.martian_source", martian_source),
    ];
    counts.into_iter().map(|(name, count)| (name.to_owned(), count as f64)).collect()
}

/// Flows to a VIP that real servers took in and no forwarder knows of: they came past the forwarders.
fn bypassed(directors: &[Vec<DirectorPlan>], servers: &[ServerReport], findings: &Findings) -> u64 {
    let binds: Vec<_> = directors.iter().flatten().flat_map(|director| &director.binds).collect();
    let is_vip = |service: &crate::orders::Service| {
        let protocol = match service.transport {
            Transport::Tcp => Protocol::TCP,
            Transport::Udp => Protocol::UDP,
        };
        binds.iter().any(|bind| bind.serves(service.address, service.port, protocol))
    };
    let taken_in =
        findings.hosts.values().flat_map(|host| &host.flows).filter(|(service, _)| is_vip(service));
    let taken_in: u64 = taken_in.map(|(_, flows)| flows).sum();
    let known: u64 = servers.iter().map(|server| server.flows).sum();
    taken_in.saturating_sub(known)
}

fn forwarder_metrics(findings: &Findings, drops: &BTreeMap<String, u64>) -> BTreeMap<String, f64> {
    let mut guests = [("calls", 0), ("faults", 0), ("fallbacks", 0)];
    let (mut is_conserved, mut changes) = (true, 0);
    for stats in findings.stats.values() {
        let lists = ["directors", "policies"].map(|key| stats.get(key).and_then(Value::as_array));
        for entry in lists.into_iter().flatten().flatten() {
            let guest = entry.get("guest").unwrap_or(&Value::Null);
            for (key, sum) in &mut guests {
                *sum += number(guest, key);
            }
        }
        changes += number(stats, "scheduler_changes");
        let packets = stats.get("packets").unwrap_or(&Value::Null);
        let ends: u64 = ["forwarded", "answered", "consumed", "dropped", "waiting"]
            .iter()
            .map(|end| number(packets, end))
            .sum();
        is_conserved &= number(packets, "in") == ends;
    }
    let mut metrics: BTreeMap<_, _> =
        guests.into_iter().map(|(key, sum)| (format!("guest.{key}"), sum as f64)).collect();
    // A reason that is not named was not met.
    for reason in evenkeel_engine::DropReason::ALL {
        let count = drops.get(reason.name()).copied().unwrap_or(0);
        metrics.insert(format!("drops.{}", reason.name()), count as f64);
    }
    metrics.insert("drops.total".to_owned(), drops.values().sum::<u64>() as f64);
    metrics.insert("scheduler.changes".to_owned(), changes as f64);
    metrics.insert("conserved".to_owned(), f64::from(u8::from(is_conserved)));
    metrics
}

fn share_metrics(servers: &[ServerReport]) -> BTreeMap<String, f64> {
    let mut metrics = BTreeMap::new();
    let mut deviation = 0.0_f64;
    for server in servers {
        metrics.insert(format!("share.{}.{}", server.director, server.server), server.flows_percent);
        let is_asked = servers.iter().any(|other| {
            (&other.forwarder, &other.director) == (&server.forwarder, &server.director) && other.flows > 0
        });
        if is_asked {
            deviation = deviation.max((server.flows_percent - server.weight_percent).abs());
        }
    }
    metrics.insert("share.deviation".to_owned(), deviation);
    metrics
}

fn meets(expectation: &Expectation, metrics: &BTreeMap<String, f64>) -> Judgement {
    let Expectation { metric, min, max, equals } = expectation;
    let found = metrics.get(metric).copied();
    let is_met = found.map(|value| {
        let equals = match equals {
            // Counts are whole numbers far below 2^53, so that equality of floats is equality.
            Some(Expected::Number(number)) => (value - number).abs() < f64::EPSILON,
            Some(Expected::Text(_)) => false,
            None => true,
        };
        equals && min.is_none_or(|least| value >= least) && max.is_none_or(|most| value <= most)
    });
    let equals = equals.as_ref().map(|equals| match equals {
        Expected::Number(number) => format!("equal to {number}"),
        Expected::Text(text) => format!("equal to {text}"),
    });
    let min = min.map(|least| format!("at least {least}"));
    let max = max.map(|most| format!("at most {most}"));
    let wanted = [min, max, equals].into_iter().flatten().collect::<Vec<_>>().join(", ");
    Judgement { metric: metric.clone(), wanted, found, is_met }
}

/// The table for people, in the form of the simulator's.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.elapsed_ms / 1_000, self.elapsed_ms % 1_000);
        writeln!(f, "lab {}, seed {}: {seconds}.{millis:03} s of real time", self.scenario, self.seed)?;
        let metric = |name: &str| self.metrics.get(name).copied().unwrap_or(0.0);
        let flows = ["started", "completed", "broken", "unfinished"]
            .map(|name| format!("{} {name}", metric(&format!("flows.{name}"))));
        writeln!(f, "flows    {}", flows.join(", "))?;
        for (cause, count) in &self.broken {
            writeln!(f, "         {count} broken: {}", cause.words())?;
        }
        let packets = [("sent", "sent"), ("received", "received"), ("lost", "lost")]
            .into_iter()
            .chain([("retransmitted", "sent again"), ("stray", "stray")])
            .map(|(name, words)| format!("{} {words}", metric(&format!("packets.{name}"))));
        writeln!(f, "packets  {}\n", packets.collect::<Vec<_>>().join(", "))?;
        if !self.servers.is_empty() {
            writeln!(f, "{}", aligned(&server_rows(Mode::Packet, &self.servers), 3))?;
        }
        for (reason, count) in &self.drops {
            writeln!(f, "{count} dropped: {reason}")?;
        }
        for judgement in &self.expectations {
            writeln!(f, "{judgement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.is_met {
            Some(true) => "ok    ",
            Some(false) => "FAILED",
            None => "-     ",
        };
        write!(f, "{mark} {} {}", self.metric, self.wanted)?;
        match self.found {
            Some(found) => write!(f, " (found {found})"),
            None => f.write_str(" (not measured in a lab)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::orders::{Counted, LoadResult};
    use evenkeel_engine::plan::{Binding, Builtin, ServerPlan};
    use serde_json::json;
    use std::path::Path;

    const SCENARIO: &str = r#"
[scenario]
name = "test"
duration = "10s"
[segment.lan]
subnet = "10.0.3.0/24"
[host.client]
attach = [{ segment = "lan", address = "10.0.3.9/24" }]
[forwarder.lb]
attach = [{ segment = "lan", address = "10.0.3.1/24" }]
config = "x.toml"
[load.web]
from = "client"
to = "10.0.0.3:80/tcp"
arrivals = { process = "uniform", rate = "100/s" }
flows = 8
[[expect]]
metric = "flows.broken"
max = 0
[[expect]]
metric = "share.web.s1"
min = 75
max = 76
[[expect]]
metric = "wire_hash"
equals = "0123456789abcdef"
"#;

    fn director() -> DirectorPlan {
        let server =
            |name: &str, last, weight| ServerPlan::new(name, IpAddr::from([10, 0, 3, last]), 80, weight);
        let bind = Binding::of(IpAddr::from([10, 0, 0, 3]), 80, Protocol::TCP);
        let servers = vec![server("s1", 20, 3), server("s2", 21, 1)];
        DirectorPlan::new("web", bind, Builtin::WeightedRoundRobin, servers)
    }

    fn findings(broken: u64) -> Findings {
        let flows =
            [(20, 6), (21, 2)].map(|(last, flows)| (identity(IpAddr::from([10, 0, 3, last])), flows)).into();
        let broken = if broken > 0 { BTreeMap::from([(Cause::Reset, broken)]) } else { BTreeMap::new() };
        let load = LoadResult { started: 9, flows, broken, resent: 2, ..LoadResult::default() };
        let host = Counted { packets_in: 5, packets_out: 6, retransmitted: 1, ..Counted::default() };
        let stats = json!({
            "packets": { "in": 10, "forwarded": 8, "answered": 1, "consumed": 0, "dropped": 1 },
            "drops": { "no_director": 1 },
            "directors": [{ "name": "web", "guest": { "calls": 8, "faults": 0, "fallbacks": 0 },
                "servers": [
                    { "name": "s1", "flows": 6, "packets_to": 30, "packets_from": 20 },
                    { "name": "s2", "flows": 2, "packets_to": 10, "packets_from": 9 },
                ] }],
            "policies": [],
            "scheduler_changes": 7,
        });
        Findings {
            loads: vec![load],
            hosts: BTreeMap::from([("client".to_owned(), host)]),
            stats: BTreeMap::from([("lb".to_owned(), stats)]),
            ..Findings::default()
        }
    }

    fn outcome(broken: u64) -> Outcome {
        let scenario = Scenario::parse(SCENARIO, Path::new("test.toml")).unwrap();
        judge(&scenario, &[vec![director()]], 1, &findings(broken))
    }

    #[test]
    fn flows_and_packets_are_told_per_real_server() {
        let outcome = outcome(0);
        let servers = &outcome.servers;
        assert_eq!((servers[0].flows, servers[0].answered, servers[0].packets_to), (6, 6, 30));
        assert_eq!((servers[1].flows, servers[1].answered, servers[1].packets_from), (2, 2, 9));
        assert!((servers[0].flows_percent - 75.0).abs() < 1e-9);
        assert_eq!(outcome.metrics["guest.calls"], 8.0);
        assert_eq!(outcome.metrics["packets.retransmitted"], 3.0);
        assert_eq!(outcome.metrics["share.deviation"], 0.0);
        assert_eq!(outcome.metrics["conserved"], 1.0);
        assert_eq!(outcome.metrics["scheduler.changes"], 7.0);
    }

    #[test]
    fn every_metric_of_the_scenario_language_is_measured_but_the_hashes() {
        let outcome = outcome(0);
        for (name, _) in evenkeel_sim::report::metric::NAMES {
            // Hashes are a simulation's, and what a lab would have to look at every wire for.
            let is_simulated = name.ends_with("_hash")
                || ["pcc.", "latency.", "arp.", "vip.", "answers.", "service.", "tuples."]
                    .iter()
                    .any(|start| name.starts_with(start))
                || ["findings", "packets.bad", "forwarder.restarts"].contains(name);
            assert_eq!(outcome.metrics.contains_key(*name), !is_simulated, "{name}");
        }
    }

    #[test]
    fn broken_flow_misses_the_expectation_and_a_hash_is_not_judged() {
        assert!(outcome(0).is_met());
        let outcome = outcome(1);
        assert!(!outcome.is_met());
        let met: Vec<_> = outcome.expectations.iter().map(|judgement| judgement.is_met).collect();
        assert_eq!(met, [Some(false), Some(true), None]);
        assert_eq!(outcome.broken[&Cause::Reset], 1);
        assert!(outcome.to_string().contains("FAILED flows.broken at most 0 (found 1)"));
    }
}
