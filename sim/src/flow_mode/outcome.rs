//! What a run in flow mode came to: whole numbers only.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::record::Histogram;

/// Why a session broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its server had stopped, or has forgotten it: no load balancer could have kept it.
    ServerGone,
    /// Its server is in no plan any more, and the forwarder drops its packets.
    ServerRemoved,
    /// A later request reached another server: the forwarder knew nothing of the flow, and would choose
    /// otherwise now.
    TableMoved,
    /// The forwarder had to give its entry up for other flows.
    Evicted,
    /// Its entry had run out.
    Expired,
    /// The router sent it to another forwarder, which knew nothing of it.
    ForwarderMoved,
    /// Its forwarder stopped and lost its entry, or there was none left.
    ForwarderGone,
    /// The server had no room for the request.
    ServerFull,
    /// No usable server.
    NoServer,
    /// The flow table was full.
    TableFull,
    /// No port of source NAT was left.
    #[serde(rename = "no_mapping")]
    NoPort,
    /// A policy, a bound for its client, or no director for its address.
    Refused,
}

impl Cause {
    /// Every cause, in the order of reports.
    pub const ALL: [Self; 12] = [
        Self::ServerGone,
        Self::ServerRemoved,
        Self::TableMoved,
        Self::Evicted,
        Self::Expired,
        Self::ForwarderMoved,
        Self::ForwarderGone,
        Self::ServerFull,
        Self::NoServer,
        Self::TableFull,
        Self::NoPort,
        Self::Refused,
    ];

    /// The key that files and reports use.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::ServerGone => "server_gone",
            Self::ServerRemoved => "server_removed",
            Self::TableMoved => "table_moved",
            Self::Evicted => "evicted",
            Self::Expired => "expired",
            Self::ForwarderMoved => "forwarder_moved",
            Self::ForwarderGone => "forwarder_gone",
            Self::ServerFull => "server_full",
            Self::NoServer => "no_server",
            Self::TableFull => "table_full",
            Self::NoPort => "no_mapping",
            Self::Refused => "refused",
        }
    }

    /// The cause in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::ServerGone => "its server stopped",
            Self::ServerRemoved => "its server left the plan",
            Self::TableMoved => "the choice of servers moved under it",
            Self::Evicted => "its entry gave way to another flow",
            Self::Expired => "its entry ran out",
            Self::ForwarderMoved => "the router moved it to another forwarder",
            Self::ForwarderGone => "its forwarder stopped",
            Self::ServerFull => "its server had no room",
            Self::NoServer => "no server was usable",
            Self::TableFull => "the flow table was full",
            Self::NoPort => "no port of source NAT was left",
            Self::Refused => "it was not permitted",
        }
    }

    /// Whether no load balancer could have kept it.
    #[must_use]
    pub const fn is_unavoidable(self) -> bool {
        matches!(self, Self::ServerGone)
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Virtual time that has passed, in nanoseconds.
    pub elapsed_ns: u64,
    /// The time in the beginning that latencies and mean levels leave out.
    pub warmup_ns: u64,
    /// Things that happened: arrivals, answers and what was planned.
    pub events: u64,
    /// Requests that were sent.
    pub requests: u64,
    /// Requests that were answered.
    pub answered: u64,
    /// Calls to schedulers.
    pub scheduler_calls: u64,
    /// Nanoseconds from a request to its answer, of requests that were sent after the warm-up. Sum and count are
    /// exact, so their quotient is the exact mean; quantiles are right to 1/256.
    pub latency: Histogram,
    /// Each load, in the order of the setup.
    pub loads: Vec<LoadOutcome>,
    /// Each machine.
    pub machines: Vec<MachineOutcome>,
    /// The flows of each forwarder.
    pub tables: Vec<TableOutcome>,
    /// The hash of every decision in their order: which session, which machine; 16 hexadecimal digits.
    pub decision_hash: String,
}

/// One load: `started = completed + broken + unfinished`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LoadOutcome {
    /// Its name.
    pub name: String,
    /// Sessions that began.
    pub started: u64,
    /// Sessions that ended as they should.
    pub completed: u64,
    /// Sessions that broke, by cause.
    pub broken: BTreeMap<Cause, u64>,
    /// Sessions that were open when the run ended.
    pub unfinished: u64,
}

/// One machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MachineOutcome {
    /// Its name.
    pub name: String,
    /// Requests that reached it.
    pub requests: u64,
    /// Requests that it answered.
    pub answered: u64,
    /// Requests that it had no room for.
    pub refused: u64,
    /// Requests that it lost when it stopped, or that came while it was stopped.
    pub lost: u64,
    /// Requests that it had at a time, on average after the warm-up, in millionths.
    pub held_mean_millionths: u64,
    /// The most requests that it had at a time.
    pub held_max: u64,
    /// Cores that worked, on average after the warm-up, in millionths.
    pub busy_mean_millionths: u64,
}

/// The flows of one forwarder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TableOutcome {
    /// The forwarder.
    pub name: String,
    /// How many have room.
    pub capacity: u64,
    /// Flows that were opened.
    pub opened: u64,
    /// Flows that ended.
    pub closed: u64,
    /// Flows among them that gave way to others.
    pub evicted: u64,
    /// Entries at the end.
    pub entries: u64,
    /// Entries on average after the warm-up, in millionths.
    pub entries_mean_millionths: u64,
    /// The most entries.
    pub entries_max: u64,
    /// The most flows whose opening nobody had answered.
    pub half_open_max: u64,
    /// Ports that source NAT holds at the end.
    pub ports_held: u64,
}

impl Outcome {
    /// The mean latency in nanoseconds; 0 without any.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a mean for reading; sum and count are there as they are")]
    pub fn mean_latency(&self) -> f64 {
        let count = self.latency.count();
        if count == 0 { 0.0 } else { self.latency.sum() as f64 / count as f64 }
    }

    /// Sessions that broke for this cause, of all loads.
    #[must_use]
    pub fn broken(&self, cause: Cause) -> u64 {
        self.loads.iter().filter_map(|load| load.broken.get(&cause)).sum()
    }

    /// Sessions that broke, of all loads.
    #[must_use]
    pub fn broken_in_all(&self) -> u64 {
        self.loads.iter().flat_map(|load| load.broken.values()).sum()
    }
}
