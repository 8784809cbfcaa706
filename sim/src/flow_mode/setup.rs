//! What a run in flow mode is made of: plain data, checked when a world is made of it.

use std::net::{IpAddr, Ipv4Addr};

use evenkeel_engine::plan::Plan;
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{Duration, Guests, PlanError};
use serde::{Deserialize, Serialize};

pub use super::steering::Steering;
use crate::work::{Arrivals, Law, LawError, QueueSpec};

/// The most forwarders, loads and requests of one flow; numbers of forwarders and loads are 16 bits wide.
const PLACES_MAX: usize = 4_096;
/// The most machines.
const MACHINES_MAX: usize = 65_535;
/// The most keys that clients share: a bit is kept for each.
pub(super) const KEYS_MAX: u64 = 1 << 32;

/// A run.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The seed of everything random.
    pub seed: u64,
    /// When the run ends at the latest. It ends before when every load is done and nothing is under way.
    pub duration: Duration,
    /// The time in the beginning whose requests count for no latency and no mean level.
    pub warmup: Duration,
    /// The machines of real servers.
    pub machines: Vec<MachineSetup>,
    /// Who asks.
    pub loads: Vec<LoadSetup>,
    /// How the router in front spreads flows over several forwarders.
    pub steering: Steering,
    /// What forwarders remember of flows.
    pub connections: Connections,
    /// What happens to machines and forwarders, and when. In any order.
    pub timeline: Vec<Timed>,
    /// Upgrades that never end.
    pub churn: Option<Churn>,
}

/// A forwarder, as production runs it.
#[derive(Debug)]
pub struct ForwarderSetup {
    /// Its name.
    pub name: String,
    /// The plan of its configuration.
    pub plan: Plan,
    /// The components that the plan names.
    pub guests: Guests,
}

/// A machine on which real servers run. Those of one address share its cores, whatever their ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineSetup {
    /// Its name.
    pub name: String,
    /// Its address, as plans name it.
    pub address: IpAddr,
    /// What it does with many requests at once.
    pub queue: QueueSpec,
}

/// Somebody who asks.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadSetup {
    /// Its name, under which it draws random numbers.
    pub name: String,
    /// The address that clients call.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The clients.
    pub clients: Clients,
    /// Which five-tuple the next session has.
    pub keys: Keys,
    /// When sessions begin.
    pub arrivals: Arrivals,
    /// When the first may begin.
    pub start: Duration,
    /// When no more begin.
    pub extent: Extent,
    /// What a session is.
    pub session: Session,
    /// How much work a request is: nanoseconds of one core.
    pub work: Law,
}

impl LoadSetup {
    /// A load of TCP connections from 2^16 clients, each of one request, for ever.
    #[must_use]
    pub fn new(name: &str, address: IpAddr, port: u16, arrivals: Arrivals, work: Law) -> Self {
        Self {
            name: name.to_owned(),
            address,
            port,
            protocol: Protocol::TCP,
            clients: Clients::default(),
            keys: Keys::Fresh,
            arrivals,
            start: Duration::ZERO,
            extent: Extent::Never,
            session: Session::Request,
            work,
        }
    }
}

/// The addresses of clients; each has the ports from 1,024 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clients {
    /// The first address.
    pub first: IpAddr,
    /// How many there are, one after the other.
    pub addresses: u32,
}

impl Default for Clients {
    /// 2^16 addresses from 100.64.0.0 on, which have 2^32 tuples.
    fn default() -> Self {
        Self { first: Ipv4Addr::new(100, 64, 0, 0).into(), addresses: 1 << 16 }
    }
}

/// Which five-tuple a session has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keys {
    /// One that has not been used before, until all have.
    #[default]
    Fresh,
    /// One of a number of keys by Zipf's law.
    Shared {
        /// How many keys there are (at most 2^32).
        count: u64,
        /// The exponent; 0 makes all keys alike.
        exponent: f64,
    },
}

/// When a load begins no more sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Extent {
    /// Only when the run ends.
    #[default]
    Never,
    /// After this many.
    Sessions(u64),
    /// At this time.
    Until(Duration),
}

/// What a session of a client is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Session {
    /// A flow with one request; client and server close after the answer.
    #[default]
    Request,
    /// A flow with several requests, the next one some time after the answer to the last.
    Requests {
        /// How many (drawn values below 1 count as 1).
        count: Law,
        /// Nanoseconds from an answer to the next request.
        gap: Law,
    },
    /// A flow with one request that is left open: it ends when it runs out, and with shared keys another
    /// request may come by it.
    Kept,
    /// A first packet, after which nothing follows and nothing is answered.
    Flood,
}

/// What forwarders remember of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Connections {
    /// The engine's flow table with the bounds and timeouts of the plan, as in production.
    #[default]
    Timed,
    /// The same, but flows leave when they are closed, without lingering.
    Brief,
    /// The last flows that were used, so many of them, without timeouts. Flows leave when they are closed.
    Lru {
        /// How many.
        entries: u32,
    },
    /// Nothing: each request is scheduled anew, and loads of servers stay at zero.
    Stateless,
}

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    /// When.
    pub at: Duration,
    /// What.
    pub change: Change,
}

/// Something that happens to machines and forwarders, which are named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Change {
    /// Every forwarder weighs the real servers of a machine anew.
    Weight {
        /// The machine.
        machine: String,
        /// The weight (0 to 65,535).
        weight: u32,
    },
    /// The real servers of a machine leave every plan; the machine runs on.
    Remove {
        /// The machine.
        machine: String,
    },
    /// They are back in every plan, where they were.
    Restore {
        /// The machine.
        machine: String,
    },
    /// A machine stops at once and loses what it had; no forwarder is told.
    Stop {
        /// The machine.
        machine: String,
    },
    /// It is back, and knows nothing of before.
    Start {
        /// The machine.
        machine: String,
    },
    /// A machine works at another speed.
    Speed {
        /// The machine.
        machine: String,
        /// Millionths of full speed; 0 hangs.
        millionths: u32,
    },
    /// A forwarder stops and loses its flows; the router sends nothing there any more.
    StopForwarder {
        /// The forwarder.
        forwarder: String,
    },
    /// It is back, with an empty flow table.
    StartForwarder {
        /// The forwarder.
        forwarder: String,
    },
}

/// Upgrades of real servers: each takes one out of every plan at a time, which comes back after its downtime.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Churn {
    /// When upgrades begin; an open process.
    pub updates: Arrivals,
    /// Nanoseconds of one.
    pub downtime: Law,
    /// Whether the machine stops meanwhile, or goes on to serve the flows that it has.
    pub stops: bool,
}

/// Why a world can not be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// A number is out of its range.
    #[error("{what}: there are {count}, and have to be {range}")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        range: &'static str,
    },
    /// A law is wrong.
    #[error("{name}: {error}")]
    Law {
        /// Whose law.
        name: String,
        /// Why.
        error: LawError,
    },
    /// The engine refuses a plan.
    #[error("forwarder {forwarder}: {error}")]
    Plan {
        /// The forwarder.
        forwarder: String,
        /// Why.
        error: PlanError,
    },
    /// A plan names a real server that is no machine.
    #[error("forwarder {forwarder}: real server {server} has the address {address}, which no machine has")]
    NoMachine {
        /// The forwarder.
        forwarder: String,
        /// The real server.
        server: String,
        /// Its address.
        address: IpAddr,
    },
    /// The timeline names something that is not there.
    #[error("timeline: there is no {kind} called {name:?}")]
    Unknown {
        /// Machine or forwarder.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// Two machines have one address.
    #[error("machines {first} and {second} have the same address, {address}")]
    AddressTaken {
        /// One machine.
        first: String,
        /// The other.
        second: String,
        /// The address.
        address: IpAddr,
    },
    /// Churn is no open process.
    #[error("churn: updates come by an open process, not by a closed loop")]
    ClosedChurn,
}

impl Setup {
    /// Checks what needs no other knowledge.
    pub(super) fn check(&self, forwarders: usize) -> Result<(), SetupError> {
        in_range("forwarders", forwarders, PLACES_MAX, "1 to 4096")?;
        in_range("loads", self.loads.len(), PLACES_MAX, "1 to 4096")?;
        in_range("machines", self.machines.len(), MACHINES_MAX, "1 to 65535")?;
        for load in &self.loads {
            if let Keys::Shared { count, .. } = load.keys
                && !(1..=KEYS_MAX).contains(&count)
            {
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                return Err(SetupError::Count { what: "shared keys", count, range: "1 to 2^32" });
            }
        }
        for (number, machine) in self.machines.iter().enumerate() {
            let others = self.machines.iter().take(number);
            if let Some(first) = others.into_iter().find(|other| other.address == machine.address) {
                return Err(SetupError::AddressTaken {
                    first: first.name.clone(),
                    second: machine.name.clone(),
                    address: machine.address,
                });
            }
        }
        Ok(())
    }

    /// The place of a machine.
    pub(super) fn machine(&self, name: &str) -> Result<usize, SetupError> {
        let place = self.machines.iter().position(|machine| machine.name == name);
        place.ok_or_else(|| SetupError::Unknown { kind: "machine", name: name.to_owned() })
    }
}

const fn in_range(
    what: &'static str,
    count: usize,
    most: usize,
    range: &'static str,
) -> Result<(), SetupError> {
    if count == 0 || count > most { Err(SetupError::Count { what, count, range }) } else { Ok(()) }
}
