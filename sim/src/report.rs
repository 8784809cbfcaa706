//! What a run came to: counts, shares, hashes and whether the expectations hold; as a table for people and
//! as JSON for programs. The keys of the JSON are the names of the fields here.

pub mod metric;
mod table;

use std::collections::BTreeMap;

use evenkeel_engine::director::GuestStats;
use evenkeel_engine::{Counters, DirectorStatus, ServerStatus};
use serde::Serialize;

use crate::checker::Findings;
use crate::forwarder::ForwarderNode;
use crate::host::{Cause, HostCounts};
use crate::record::data::Mode;
use crate::record::{Histogram, RunRecord};
use crate::scenario::{Expectation, Expected, Service};
use crate::wires::{Switch, SwitchDrop, Wire, WireDrop};
use crate::world::{KernelCounts, World};

pub use table::server_rows;

/// The version of the form of the JSON; it grows when a key changes its meaning or goes.
pub const SCHEMA: u32 = 2;

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The version of this form.
    pub schema: u32,
    /// The scenario.
    pub scenario: String,
    /// Whether packets were simulated, or requests; of requests everything about packets is zero.
    pub mode: Mode,
    /// The seed.
    pub seed: u64,
    /// Virtual time that has passed, in nanoseconds.
    pub elapsed_ns: u64,
    /// Events that were handled.
    pub events: u64,
    /// Flows of all loads together.
    pub flows: FlowCounts,
    /// Packets between machines.
    pub packets: PacketCounts,
    /// Each load, in the order of their names.
    pub loads: Vec<LoadReport>,
    /// Each real server of each director of each forwarder.
    pub servers: Vec<ServerReport>,
    /// Each forwarder.
    pub forwarders: Vec<ForwarderReport>,
    /// Each host, in the order of the scenario.
    pub hosts: Vec<HostReport>,
    /// The largest distance of a share of flows from the share of weight, in percentage points.
    pub share_deviation: f64,
    /// Whether every packet that came into an engine has had exactly one end.
    pub is_conserved: bool,
    /// What was seen on the wires that should not be; empty where nobody looked.
    pub checks: Findings,
    /// Broken flows that no load balancer could have kept: their server was away.
    pub unavoidable: u64,
    /// From a request to its answer, after the warm-up.
    pub latency: LatencyReport,
    /// The hash of every packet that reached a machine, as 16 hexadecimal digits.
    pub wire_hash: String,
    /// The hash after every 65,536 of these packets.
    pub wire_checkpoints: Vec<String>,
    /// The hash of how each flow ended and which server it had, as 16 hexadecimal digits.
    pub decision_hash: String,
    /// The hash of the numbers of the run: every answer and how long it took, and all that the record counts, as 16
    /// hexadecimal digits.
    pub metric_hash: String,
    /// The version of the program.
    pub version: &'static str,
    /// Each expectation of the scenario.
    pub expectations: Vec<ExpectationReport>,
    /// What was taken down while the run went on, for pages and comparisons.
    #[serde(skip)]
    pub record: RunRecord,
}

/// How long answers took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LatencyReport {
    /// Answers.
    pub answers: u64,
    /// The mean, in nanoseconds.
    pub mean_ns: u64,
    /// What half of them did not exceed, to 1 %.
    pub p50_ns: u64,
    /// What 99 % of them did not exceed, to 1 %.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

impl LatencyReport {
    pub(crate) fn of(latency: &Histogram) -> Self {
        let quantile = |millionths| latency.quantile(millionths).unwrap_or(0);
        Self {
            answers: latency.count(),
            mean_ns: latency.mean().unwrap_or(0),
            p50_ns: quantile(500_000),
            p99_ns: quantile(990_000),
            max_ns: latency.max().unwrap_or(0),
        }
    }
}

/// Flows of one load, while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadCounts {
    /// Flows that clients opened.
    pub started: u64,
    /// Flows that ended as they should.
    pub completed: u64,
    /// Flows that broke, by cause.
    pub broken: BTreeMap<Cause, u64>,
}

/// Flows and how they ended: `started = completed + broken + unfinished`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FlowCounts {
    /// Flows that clients opened.
    pub started: u64,
    /// Flows that ended as they should.
    pub completed: u64,
    /// Flows that broke.
    pub broken: u64,
    /// Flows that were open when the run ended.
    pub unfinished: u64,
    /// Broken flows by the key of their cause.
    pub causes: BTreeMap<&'static str, u64>,
}

/// Frames on the way between machines, ARP included: `sent + copied = received + lost + in_flight`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PacketCounts {
    /// Frames that machines sent.
    pub sent: u64,
    /// Copies that switches made of frames for several, and cables by mistake.
    pub copied: u64,
    /// Frames that reached a machine with power.
    pub received: u64,
    /// Frames that ended on a cable or in a switch, by reason; reasons that did not happen are left out.
    pub lost_on_wires: BTreeMap<&'static str, u64>,
    /// Frames that reached a machine without power.
    pub lost_without_power: u64,
    /// Packets that the kernels of machines dropped, by reason; reasons that did not happen are left out.
    pub dropped_by_kernels: BTreeMap<&'static str, u64>,
    /// Packets that were under way when the run ended.
    pub in_flight: u64,
    /// Segments and datagrams that hosts sent again.
    pub retransmitted: u64,
    /// Packets that reached a host which had no use for them.
    pub stray: u64,
}

impl PacketCounts {
    /// Frames that ended on a cable, in a switch or at a machine without power.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost_on_wires.values().sum::<u64>() + self.lost_without_power
    }

    /// Whether every frame, and every copy, has ended once or is under way.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        self.sent + self.copied == self.received + self.lost() + self.in_flight
    }
}

/// One load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoadReport {
    /// Its name.
    pub name: String,
    /// The service, as `address:port/protocol`.
    pub service: String,
    /// Its flows.
    pub flows: FlowCounts,
}

/// One real server of one director.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServerReport {
    /// The forwarder.
    pub forwarder: String,
    /// The director.
    pub director: String,
    /// The VIP, as `address:port/protocol`.
    pub service: String,
    /// The server's name.
    pub server: String,
    /// Its address and port.
    pub address: String,
    /// Its weight at the end.
    pub weight: u32,
    /// Its share of the director's weight, in percent.
    pub weight_percent: f64,
    /// Flows that the director gave it.
    pub flows: u64,
    /// Its share of the director's flows, in percent.
    pub flows_percent: f64,
    /// Flows of this service that it answered, as clients saw it.
    pub answered: u64,
    /// Packets to it.
    pub packets_to: u64,
    /// Packets from it.
    pub packets_from: u64,
    /// Bytes to it.
    pub bytes_to: u64,
    /// Bytes from it.
    pub bytes_from: u64,
}

/// One forwarder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ForwarderReport {
    /// Its name.
    pub name: String,
    /// Packets that the engine took in: `forwarded + answered + consumed + dropped`.
    pub packets_in: u64,
    /// Packets that left for a real server or a client.
    pub forwarded: u64,
    /// Packets that were turned into an answer.
    pub answered: u64,
    /// Packets that were for the engine itself.
    pub consumed: u64,
    /// Packets that were dropped, by reason; reasons that did not happen are left out.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Packets that were born in the engine and left.
    pub born: u64,
    /// Flows that were entered into the flow table.
    pub flows_opened: u64,
    /// Calls to schedulers.
    pub scheduler_calls: u64,
    /// Instructions that components took to decide, where they were counted.
    pub instructions: Option<u64>,
    /// Bytes that the schedulers of its directors keep.
    pub memory_bytes: u64,
    /// How often a director got another scheduler, by the timeline.
    pub scheduler_changes: u64,
    /// How often it began anew, with an empty flow table.
    pub restarts: u64,
    /// What the kernel around the engine did.
    pub kernel: KernelCounts,
    /// Components, by director or policy.
    pub guests: Vec<GuestReport>,
    /// The first faults of components, in words.
    pub faults: Vec<String>,
}

/// One component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GuestReport {
    /// The director or policy.
    pub name: String,
    /// Calls into the component.
    pub calls: u64,
    /// Flows that it decided.
    pub decided: u64,
    /// Calls that failed.
    pub faults: u64,
    /// Flows that the native fallback decided instead.
    pub fallbacks: u64,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostReport {
    /// Its name.
    pub name: String,
    /// What it has seen.
    #[serde(flatten)]
    pub counts: HostCounts,
}

/// One expectation and what was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExpectationReport {
    /// The metric.
    pub metric: String,
    /// What was wanted, in words.
    pub wanted: String,
    /// What was found; nothing when the run has no such metric.
    pub found: Option<Expected>,
    /// Whether it holds.
    pub is_met: bool,
}

impl Outcome {
    /// What a world has come to.
    pub(crate) fn of(world: &World<'_>) -> Self {
        let hosts: Vec<HostReport> = hosts(world);
        let forwarders: Vec<ForwarderReport> = forwarders(world);
        let loads = loads(world);
        let (servers, share_deviation) = servers(world);
        let hex = |hash: u64| format!("{hash:016x}");
        let net = &world.net;
        let packets = PacketCounts {
            sent: net.sent,
            copied: net.copied,
            received: net.arrived - net.into_the_dark,
            lost_on_wires: lost_on_wires(world),
            lost_without_power: net.into_the_dark,
            dropped_by_kernels: dropped_by_kernels(world),
            in_flight: u64::try_from(net.under_way()).unwrap_or(u64::MAX),
            retransmitted: hosts.iter().map(|host| host.counts.retransmitted).sum(),
            stray: hosts.iter().map(|host| host.counts.stray()).sum(),
        };
        let mut outcome = Self {
            schema: SCHEMA,
            scenario: world.scenario.name.clone(),
            mode: Mode::Packet,
            seed: world.seed,
            elapsed_ns: u64::try_from(world.elapsed().as_nanos()).unwrap_or(u64::MAX),
            events: net.events,
            flows: total(loads.iter().map(|load| &load.flows)),
            loads,
            servers,
            is_conserved: packets.is_conserved()
                && world.machines.iter().all(|machine| machine.kernel.is_conserved())
                && world.forwarders().all(|(_, node)| node.counters().all(Counters::is_conserved)),
            packets,
            forwarders,
            hosts,
            share_deviation,
            checks: net.checker.as_ref().map(|checker| checker.findings().clone()).unwrap_or_default(),
            unavoidable: 0,
            latency: LatencyReport::default(),
            wire_hash: hex(net.wire_trace.hash()),
            wire_checkpoints: net.wire_trace.checkpoints().iter().copied().map(hex).collect(),
            decision_hash: hex(net.decision_trace.hash()),
            metric_hash: String::new(),
            version: env!("CARGO_PKG_VERSION"),
            expectations: Vec::new(),
            record: RunRecord::default(),
        };
        outcome.judge(&world.scenario.expectations);
        outcome
    }

    /// Takes over what was taken down while the run went on.
    pub(crate) fn take_down(&mut self, record: RunRecord) {
        self.unavoidable = record.flows.unavoidable;
        self.latency = LatencyReport::of(&record.latency);
        self.metric_hash.clone_from(&record.hashes.metrics);
        self.record = record;
    }

    /// Holds the run against what was expected.
    pub(crate) fn judge(&mut self, expectations: &[Expectation]) {
        self.expectations = metric::judge(expectations, self);
    }

    /// Whether every expectation holds.
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        self.expectations.iter().all(|expectation| expectation.is_met)
    }

    /// The table for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        table::render(self)
    }
}

fn hosts(world: &World<'_>) -> Vec<HostReport> {
    let hosts = world.scenario.hosts.iter().zip(world.hosts());
    let report = hosts.map(|(written, host)| HostReport {
        name: written.name.clone(),
        counts: HostCounts { retransmitted: host.retransmitted(), ..host.counts },
    });
    report.collect()
}

fn loads(world: &World<'_>) -> Vec<LoadReport> {
    let loads = world.scenario.loads.iter().zip(&world.loads);
    let report = loads.map(|(written, state)| LoadReport {
        name: written.name.clone(),
        service: written.service.to_string(),
        flows: FlowCounts {
            started: state.counts.started,
            completed: state.counts.completed,
            broken: state.counts.broken.values().sum(),
            unfinished: state.counts.unfinished(),
            causes: state.counts.broken.iter().map(|(cause, count)| (cause.key(), *count)).collect(),
        },
    });
    report.collect()
}

pub(crate) fn total<'a>(loads: impl Iterator<Item = &'a FlowCounts>) -> FlowCounts {
    let mut sum = FlowCounts::default();
    for flows in loads {
        sum.started += flows.started;
        sum.completed += flows.completed;
        sum.broken += flows.broken;
        sum.unfinished += flows.unfinished;
        for (cause, count) in &flows.causes {
            *sum.causes.entry(cause).or_insert(0) += count;
        }
    }
    sum
}

/// Frames that ended on cables and in switches.
fn lost_on_wires(world: &World<'_>) -> BTreeMap<&'static str, u64> {
    let mut lost = BTreeMap::new();
    for counts in world.net.cables.iter().flat_map(|cable| &cable.wires).map(Wire::counts) {
        for reason in WireDrop::ALL {
            *lost.entry(reason.name()).or_insert(0) += counts.of(reason);
        }
    }
    for counts in world.net.switches.iter().map(Switch::counts) {
        for (reason, count) in SwitchDrop::ALL.iter().zip(counts.dropped) {
            *lost.entry(reason.name()).or_insert(0) += count;
        }
    }
    lost.insert("unplugged", world.net.unplugged);
    lost.retain(|_, count| *count > 0);
    lost
}

fn dropped_by_kernels(world: &World<'_>) -> BTreeMap<&'static str, u64> {
    let mut dropped = BTreeMap::new();
    for (reason, count) in world.machines.iter().flat_map(|machine| machine.kernel_drops()) {
        *dropped.entry(reason.name()).or_insert(0) += count;
    }
    dropped.retain(|_, count| *count > 0);
    dropped
}

fn forwarders(world: &World<'_>) -> Vec<ForwarderReport> {
    let forwarders = world.scenario.forwarders.iter().zip(world.forwarders());
    let report = forwarders.map(|(written, (machine, node))| {
        let sum = |count: fn(&Counters) -> u64| node.counters().map(count).sum();
        let directors = node.engine.directors();
        let mut dropped = BTreeMap::new();
        for (reason, count) in node.counters().flat_map(Counters::drops).filter(|(_, count)| *count > 0) {
            *dropped.entry(reason.name()).or_insert(0) += count;
        }
        ForwarderReport {
            name: written.name.clone(),
            packets_in: sum(|counters| counters.packets_in),
            forwarded: sum(|counters| counters.forwarded),
            answered: sum(|counters| counters.answered),
            consumed: sum(|counters| counters.consumed),
            dropped,
            born: sum(|counters| counters.born),
            flows_opened: sum(|counters| counters.flows_opened),
            scheduler_calls: sum(|counters| counters.scheduler_calls),
            instructions: instructions(directors.iter().map(|director| director.guest)),
            memory_bytes: directors.iter().fold(0, |sum, director| director.memory_bytes.saturating_add(sum)),
            scheduler_changes: sum(|counters| counters.scheduler_changes),
            restarts: node.restarts(),
            kernel: KernelCounts { queue_full: node.queue_full, ..machine.counts },
            guests: guests(node),
            faults: node.faults.clone(),
        }
    });
    report.collect()
}

/// What components have taken together; nothing where no component counts its instructions.
pub(crate) fn instructions(guests: impl Iterator<Item = GuestStats>) -> Option<u64> {
    guests.map(|stats| stats.fuel).filter(|fuel| *fuel > 0).reduce(u64::saturating_add)
}

fn guests(node: &ForwarderNode) -> Vec<GuestReport> {
    let directors = node.engine.directors().into_iter().map(|director| (director.name, director.guest));
    let policies = node.engine.policies().into_iter().map(|policy| (policy.name, policy.guest));
    guests_of(directors.chain(policies))
}

/// Components that were called at least once.
pub(crate) fn guests_of(all: impl Iterator<Item = (String, GuestStats)>) -> Vec<GuestReport> {
    let used = all.filter(|(_, stats)| *stats != GuestStats::default());
    let report = used.map(|(name, stats)| GuestReport {
        name,
        calls: stats.calls,
        decided: stats.decided,
        faults: stats.faults,
        fallbacks: stats.fallbacks,
    });
    report.collect()
}

/// Every server, and the largest deviation of a share.
fn servers(world: &World<'_>) -> (Vec<ServerReport>, f64) {
    let mut reports = Vec::new();
    let mut deviation: f64 = 0.0;
    for (written, (_, node)) in world.scenario.forwarders.iter().zip(world.forwarders()) {
        let count = |director: &DirectorStatus, server: &ServerStatus| answered(world, director, server);
        let apart = servers_of(&written.name, &node.engine.directors(), count, &mut reports);
        deviation = deviation.max(apart);
    }
    (reports, deviation)
}

/// The servers of one forwarder, and the largest deviation of a share. `answered` counts the flows of a director that
/// clients had answered by a server.
pub(crate) fn servers_of(
    forwarder: &str,
    directors: &[DirectorStatus],
    answered: impl Fn(&DirectorStatus, &ServerStatus) -> u64,
    reports: &mut Vec<ServerReport>,
) -> f64 {
    let mut deviation: f64 = 0.0;
    for director in directors {
        let flows: u64 = director.servers.iter().map(|server| server.flows).sum();
        let weight: u64 = director.servers.iter().map(|server| u64::from(server.weight)).sum();
        for server in &director.servers {
            let report = ServerReport {
                forwarder: forwarder.to_owned(),
                weight_percent: percent(u64::from(server.weight), weight),
                flows_percent: percent(server.flows, flows),
                answered: answered(director, server),
                ..report_of(director, server)
            };
            if flows > 0 {
                deviation = deviation.max((report.flows_percent - report.weight_percent).abs());
            }
            reports.push(report);
        }
    }
    deviation
}

fn report_of(director: &DirectorStatus, server: &ServerStatus) -> ServerReport {
    ServerReport {
        forwarder: String::new(),
        director: director.name.clone(),
        service: director.binds.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        server: server.name.clone(),
        address: format!("{}:{}", server.address, server.port),
        weight: server.weight,
        weight_percent: 0.0,
        flows: server.flows,
        flows_percent: 0.0,
        answered: 0,
        packets_to: server.packets_to,
        packets_from: server.packets_from,
        bytes_to: server.bytes_to,
        bytes_from: server.bytes_from,
    }
}

/// Requests that clients of the director's services had answered by a server.
fn answered(world: &World<'_>, director: &DirectorStatus, server: &ServerStatus) -> u64 {
    let address = server.address;
    let is_served = |service: &Service| {
        let called = (service.address, service.port, service.protocol);
        director.binds.iter().any(|bind| bind.serves(called.0, called.1, called.2))
    };
    let counts = world.answers.iter();
    counts.filter(|((service, by), _)| *by == address && is_served(service)).map(|(_, count)| count).sum()
}

/// A share in percent; 0 of nothing.
fn percent(part: u64, whole: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "counts far below 2^53; a share for reading")]
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}
