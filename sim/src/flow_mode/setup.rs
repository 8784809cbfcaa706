//! What a run in flow mode is made of: plain data, checked when a world is made of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use evenkeel_engine::plan::Plan;
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{Duration, Guests, PlanError};
use serde::{Deserialize, Serialize};

pub use super::steering::Steering;
use crate::work::{AgentModel, Arrivals, Law, LawError, QueueSpec};

/// The most forwarders, loads and requests of one flow; numbers of forwarders and loads are 16 bits wide.
const PLACES_MAX: usize = 4_096;
/// The most machines.
pub(super) const MACHINES_MAX: usize = 65_535;
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
    /// Machines of clients that loads name, by their names: each counts its ports up from one that it draws.
    pub callers: Vec<String>,
    /// Who asks.
    pub loads: Vec<LoadSetup>,
    /// Routers in front of forwarders. Without any there is one, which spreads flows over all forwarders by
    /// the remainder of a hash.
    pub routers: Vec<RouterSetup>,
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

/// A machine on which real servers run. They share its cores, whatever their addresses and ports.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineSetup {
    /// Its name, under which it draws random numbers.
    pub name: String,
    /// Its addresses, as plans name them; reports show the first.
    pub addresses: Vec<IpAddr>,
    /// What it does with many requests at once.
    pub queue: QueueSpec,
    /// How much work a request is here, in nanoseconds of one core; that of its load where nothing is given.
    pub work: Option<Law>,
    /// What its agent says, where it has one.
    pub agent: Option<AgentModel>,
}

impl MachineSetup {
    /// A machine with one address, where requests are as much work as their loads say.
    #[must_use]
    pub fn new(name: &str, address: IpAddr, queue: QueueSpec) -> Self {
        Self { name: name.to_owned(), addresses: vec![address], queue, work: None, agent: None }
    }
}

/// A router that spreads flows over forwarders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterSetup {
    /// How it spreads them.
    pub steering: Steering,
    /// The forwarders that it has a route to, by place.
    pub forwarders: Vec<u16>,
}

/// When sessions begin.
#[derive(Clone, Debug, PartialEq)]
pub enum Beginnings {
    /// By a process.
    Process(Arrivals),
    /// As the load of a scenario says: at the same times as in packet mode.
    Openings(crate::scenario::Arrivals),
}

impl From<Arrivals> for Beginnings {
    fn from(arrivals: Arrivals) -> Self {
        Self::Process(arrivals)
    }
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
    /// The clients, unless `callers` names some.
    pub clients: Clients,
    /// Machines of clients that begin sessions in turn: their places in [`Setup::callers`], and their addresses. They
    /// have fresh keys.
    pub callers: Vec<(u32, IpAddr)>,
    /// The place of the router in front of the forwarders.
    pub router: u16,
    /// Which five-tuple the next session has.
    pub keys: Keys,
    /// When sessions begin.
    pub arrivals: Beginnings,
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
    pub fn new(name: &str, address: IpAddr, port: u16, arrivals: impl Into<Beginnings>, work: Law) -> Self {
        Self {
            name: name.to_owned(),
            address,
            port,
            protocol: Protocol::TCP,
            clients: Clients::default(),
            callers: Vec::new(),
            router: 0,
            keys: Keys::Fresh,
            arrivals: arrivals.into(),
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
    /// A forwarder stops and loses its flows; routers send nothing there any more.
    StopForwarder {
        /// The forwarder.
        forwarder: String,
    },
    /// It is back, with an empty flow table.
    StartForwarder {
        /// The forwarder.
        forwarder: String,
    },
    /// A forwarder loses power, or has it back; routers know nothing of that, and what they send there is lost.
    Power {
        /// The forwarder.
        forwarder: String,
        /// Whether it has power.
        is_up: bool,
    },
    /// A router has routes to other forwarders.
    Routes {
        /// The router.
        router: u16,
        /// The forwarders.
        forwarders: Vec<u16>,
    },
    /// The agent of a machine says something else; nothing has it go.
    Agent {
        /// The machine.
        machine: String,
        /// What it says.
        agent: Option<AgentModel>,
    },
    /// One forwarder weighs one real server anew.
    ServerWeight {
        /// The forwarder.
        forwarder: String,
        /// The director.
        director: String,
        /// The real server.
        server: String,
        /// The weight (0 to 65,535).
        weight: u32,
        /// After this time it has its weight of before.
        lasting: Option<Duration>,
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
    /// A load or a change names a router or a forwarder that is not there.
    #[error("{name}: there is no {kind} number {place}")]
    NoPlace {
        /// Who names it.
        name: String,
        /// Router or forwarder.
        kind: &'static str,
        /// The number.
        place: u32,
    },
    /// A load of a scenario calls what nobody serves.
    #[error(
        "load {name}: no director of any forwarder is bound to {service}; flow mode has only services behind forwarders"
    )]
    NoService {
        /// The load.
        name: String,
        /// What it calls.
        service: String,
    },
    /// Several forwarders serve what a load calls, and no router has ways to them.
    #[error(
        "load {name}: several forwarders serve {service}, and no router has a route to it via their addresses; flow mode \
         does not see which of them has the address"
    )]
    NoWays {
        /// The load.
        name: String,
        /// What it calls.
        service: String,
    },
    /// Something of the timeline that has no meaning without packets.
    #[error(
        "timeline, at {at:?}: {what}{why}: that is in packet mode alone; set mode = \"packet\", or leave it out"
    )]
    OnlyPackets {
        /// When.
        at: Duration,
        /// What.
        what: &'static str,
        /// To whom, where that is the reason.
        why: String,
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
        let mut known: BTreeMap<IpAddr, &str> = BTreeMap::new();
        for machine in &self.machines {
            for address in &machine.addresses {
                let Some(first) = known.insert(*address, &machine.name) else { continue };
                let (first, second) = (first.to_owned(), machine.name.clone());
                return Err(SetupError::AddressTaken { first, second, address: *address });
            }
        }
        self.check_places(forwarders)
    }

    /// Checks the numbers by which loads and routers name each other.
    fn check_places(&self, forwarders: usize) -> Result<(), SetupError> {
        let is_in = |place: u32, count: usize| usize::try_from(place).is_ok_and(|place| place < count);
        let lacking =
            |name: &str, kind, place| Err(SetupError::NoPlace { name: name.to_owned(), kind, place });
        let routes = self.timeline.iter().filter_map(|timed| {
            if let Change::Routes { forwarders, .. } = &timed.change { Some(forwarders) } else { None }
        });
        for ways in self.routers.iter().map(|router| &router.forwarders).chain(routes) {
            if let Some(place) = ways.iter().find(|place| !is_in(u32::from(**place), forwarders)) {
                return lacking("router", "forwarder", (*place).into());
            }
        }
        for load in &self.loads {
            if !is_in(load.router.into(), self.routers.len().max(1)) {
                return lacking(&load.name, "router", load.router.into());
            }
            if let Some((place, _)) =
                load.callers.iter().find(|(place, _)| !is_in(*place, self.callers.len()))
            {
                return lacking(&load.name, "caller", *place);
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
