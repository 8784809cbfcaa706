//! What a run tells, as data: the form of `result.json`.
//!
//! Everything is a whole number or a text, so that the same run gives the same bytes on every machine. Times
//! are nanoseconds of virtual time, shares are millionths.

use serde::{Deserialize, Serialize};

use super::balance::Balance;
use super::batches::Batches;
use super::drawing::Graph;
use super::histogram::Histogram;
use crate::trace::Trace;

/// The version of the form; it grows when a key changes its meaning or goes.
pub const SCHEMA: u32 = 2;

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The version of this form.
    pub schema: u32,
    /// The scenario.
    pub scenario: String,
    /// Whether packets or whole flows were simulated.
    pub mode: Mode,
    /// The seed of everything random.
    pub seed: u64,
    /// The version of the program.
    pub version: String,
    /// The command that gives this run again.
    pub command: String,
    /// What is different from other runs of the same study, in the order of the scenario.
    pub parameters: Vec<Parameter>,
    /// Virtual time that passed.
    pub elapsed_ns: u64,
    /// The time in the beginning that latencies leave out.
    pub warmup_ns: u64,
    /// Events that were handled.
    pub events: u64,
    /// What two runs are compared by.
    pub hashes: Hashes,
    /// The hashes on the way, by which the first difference of two runs is found.
    #[serde(default)]
    pub chains: Chains,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// The machines, for drawing.
    pub topology: Graph,
    /// Flows of all loads together.
    pub flows: Flows,
    /// Packets between machines.
    pub packets: Packets,
    /// What did not get on, by place and reason.
    pub drops: Vec<Drop>,
    /// Each load.
    pub loads: Vec<LoadRecord>,
    /// Each real server.
    pub servers: Vec<ServerRecord>,
    /// Each forwarder.
    pub forwarders: Vec<ForwarderRecord>,
    /// How long requests took that completed after the warm-up.
    pub latency: Histogram,
    /// The same latencies in the order in which requests completed, in batches.
    pub batches: Batches,
    /// How evenly requests were spread after the warm-up; nothing without requests.
    pub balance: Option<Balance>,
    /// What happened in each interval of time.
    pub series: Series,
    /// What the scenario did to the world, and when.
    pub timeline: Vec<Mark>,
    /// What a checker found wrong, as sentences; empty when all is well.
    pub findings: Vec<String>,
    /// What the scenario expects.
    pub expectations: Vec<ExpectationRecord>,
}

/// What was simulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Every packet.
    #[default]
    Packet,
    /// Requests, without packets.
    Flow,
}

/// One value of a study.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Parameter {
    /// The key in the scenario.
    pub name: String,
    /// Its value as written.
    pub value: String,
}

/// Hashes as 16 hexadecimal digits; empty where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashes {
    /// Of every packet that reached a machine.
    pub wire: String,
    /// Of how each flow ended and which server it had.
    pub decisions: String,
    /// Of the numbers in this record.
    pub metrics: String,
}

/// The chains of hashes of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chains {
    /// The scenario file, as it was named when it ran; empty where there was none.
    pub file: String,
    /// Events between two checkpoints.
    pub every_events: u64,
    /// Frames that reached a machine.
    pub wire: Chain,
    /// Flows that ended, and the servers that they had.
    pub decisions: Chain,
    /// Answers and how long they took, and flows that broke.
    pub answers: Chain,
}

/// One chain: each hash covers all events before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Its events.
    pub events: u64,
    /// The hash of them all, as 16 hexadecimal digits.
    pub hash: String,
    /// The hash after every so many events.
    pub checkpoints: Vec<String>,
}

impl From<&Trace> for Chain {
    fn from(trace: &Trace) -> Self {
        let hex = |hash: u64| format!("{hash:016x}");
        let checkpoints = trace.checkpoints().iter().copied().map(hex).collect();
        Self { events: trace.events(), hash: hex(trace.hash()), checkpoints }
    }
}

/// Flows and how they ended: `started = completed + broken + unfinished`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// Flows that clients opened.
    pub started: u64,
    /// Flows that ended as they should.
    pub completed: u64,
    /// Flows that broke.
    pub broken: u64,
    /// Broken flows that no load balancer could have kept: their server had gone.
    pub unavoidable: u64,
    /// Flows that were open when the run ended.
    pub unfinished: u64,
    /// Broken flows by cause, in the order of causes.
    pub causes: Vec<Broken>,
}

/// Broken flows of one cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// The cause, as a key.
    pub cause: String,
    /// The cause in words.
    pub words: String,
    /// Flows.
    pub count: u64,
    /// Those among them that no load balancer could have kept.
    pub unavoidable: u64,
}

/// Packets between machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packets {
    /// Packets that machines sent.
    pub sent: u64,
    /// Packets that reached a machine.
    pub received: u64,
    /// Packets that were under way when the run ended.
    pub in_flight: u64,
    /// Segments and datagrams that hosts sent again.
    pub retransmitted: u64,
    /// Packets that reached a host which had no use for them.
    pub stray: u64,
}

/// Packets that ended in one place for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drop {
    /// The machine or link.
    pub place: String,
    /// Why.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// One load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadRecord {
    /// Its name.
    pub name: String,
    /// Flows that it opened.
    pub started: u64,
    /// Requests that completed; a flow may carry several.
    pub completed: u64,
    /// Flows that broke.
    pub broken: u64,
    /// Latencies, as [`RunRecord::latency`].
    pub latency: Histogram,
}

/// One real server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub address: String,
    /// Its weight at the end.
    pub weight: u32,
    /// Requests that it completed.
    pub requests: u64,
    /// Bytes of these requests and their answers.
    pub bytes: u64,
    /// Flows that it had and that broke.
    pub broken: u64,
    /// The most flows that it had at a time.
    pub active_max: u32,
}

/// One forwarder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwarderRecord {
    /// Its name.
    pub name: String,
    /// Packets that the engine took in.
    pub packets_in: u64,
    /// Packets that left for a real server or a client.
    pub forwarded: u64,
    /// Packets that were turned into an answer.
    pub answered: u64,
    /// Packets that were dropped.
    pub dropped: u64,
    /// Flows that were entered into the flow table.
    pub flows_opened: u64,
    /// What decisions cost.
    pub cost: Cost,
    /// Components that were called.
    pub guests: Vec<GuestRecord>,
    /// The first faults of components, in words.
    pub faults: Vec<String>,
}

/// What decisions cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Decisions of a scheduler.
    pub decisions: u64,
    /// Instructions of components in all of them; nothing where none were counted.
    pub instructions: Option<u64>,
    /// Bytes that the schedulers keep at the end; nothing where they were not counted.
    pub memory_bytes: Option<u64>,
}

/// One component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRecord {
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

/// What happened over time. Each list has one entry for each interval.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// The length of an interval; the last one may have ended before its time.
    pub interval_ns: u64,
    /// Flows that were opened.
    pub started: Vec<u64>,
    /// Requests that completed; a flow may carry several.
    pub completed: Vec<u64>,
    /// Flows that broke.
    pub broken: Vec<u64>,
    /// Flows that broke and that no load balancer could have kept.
    pub unavoidable: Vec<u64>,
    /// The median latency of requests that completed in the interval, to 3 %; 0 without any.
    pub p50_ns: Vec<u64>,
    /// The latency that 99 % of them did not exceed, to 3 %.
    pub p99_ns: Vec<u64>,
    /// The longest latency.
    pub max_ns: Vec<u64>,
    /// Each server, in the order of [`RunRecord::servers`].
    pub servers: Vec<ServerSeries>,
    /// Each table.
    pub tables: Vec<TableSeries>,
    /// How evenly requests were spread, in windows of several intervals.
    pub balance: BalanceSeries,
}

/// One server over time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSeries {
    /// Requests that it completed.
    pub requests: Vec<u64>,
    /// The most flows that it had at a time.
    pub active: Vec<u32>,
    /// Bytes of these requests and their answers.
    pub bytes: Vec<u64>,
}

/// One table over time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSeries {
    /// Whose table, and which.
    pub name: String,
    /// Its places; 0 where it has no bound.
    pub capacity: u64,
    /// The most entries at a time.
    pub entries: Vec<u64>,
    /// Entries that had to make room.
    pub evicted: Vec<u64>,
}

/// The balance over time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceSeries {
    /// Intervals of one window.
    pub intervals: u64,
    /// The balance of each window; nothing where no request completed.
    pub windows: Vec<Option<Balance>>,
}

/// Something that the scenario did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When.
    pub at_ns: u64,
    /// What, in words.
    pub words: String,
}

/// One expectation and what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectationRecord {
    /// The metric.
    pub metric: String,
    /// What was wanted, in words.
    pub wanted: String,
    /// What was found; nothing when the run has no such metric.
    pub found: Option<String>,
    /// Whether it holds.
    pub is_met: bool,
}
