//! The scenario file: who is on which segment, who talks to whom how often, and what must come out.
//!
//! In: TOML text and its path. Out: a checked [`Scenario`], or [`ScenarioErrors`] that point at line and
//! column. The simulator and the lab run the same scenario; neither reads anything else about the topology.
//! A scenario never opens the configuration files that its forwarders name: their drivers do.
//!
//! The fields are described in `docs/src/reference/scenario.md`.

mod check;
mod error;
mod quantity;
mod written;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use evenkeel_engine::Duration;
use evenkeel_engine::wire::Protocol;
use serde::Serialize;

pub use error::{ScenarioError, ScenarioErrors};

/// The most hosts of one scenario, all groups together: as many as a /16 has addresses.
pub const HOSTS_MAX: usize = 65_536;
/// The most flows that one load opens. Each costs about 300 bytes while it lives.
pub const FLOWS_MAX: u64 = 10_000_000;
/// The longest run in virtual time: a day.
pub const DURATION_MAX: Duration = Duration::from_secs(86_400);
/// The largest scenario file, in bytes: ten times what the largest sensible topology needs.
pub const FILE_MAX_BYTES: u64 = 1 << 20;

/// A checked scenario. Groups come in the order of their names, hosts of a group by their number.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Its name; outputs carry it.
    pub name: String,
    /// The file that it was read from; the paths in it are relative to that file's folder.
    pub path: PathBuf,
    /// The longest that it runs, in virtual time. It ends sooner when every load is done.
    pub duration: Duration,
    /// The seed that is used when none is given on the command line.
    pub seed: u64,
    /// The networks.
    pub segments: Vec<Segment>,
    /// The hosts, one entry per machine.
    pub hosts: Vec<Host>,
    /// The forwarders.
    pub forwarders: Vec<Forwarder>,
    /// How attachments behave; the last entry that fits an attachment wins, and without one the default.
    pub links: Vec<Link>,
    /// The traffic.
    pub loads: Vec<Load>,
    /// What must come out.
    pub expectations: Vec<Expectation>,
}

/// One network: everyone on it reaches everyone else without a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its name.
    pub name: String,
    /// The network address; host bits are zero.
    pub network: Ipv4Addr,
    /// Bits of the network part (8 to 30).
    pub prefix_length: u8,
}

impl Segment {
    /// Whether `address` lies in this network.
    #[must_use]
    pub const fn contains(&self, address: Ipv4Addr) -> bool {
        (address.to_bits() ^ self.network.to_bits()) >> (32 - self.prefix_length) == 0
    }
}

/// Where a machine is plugged in, and its address there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The index into [`Scenario::segments`].
    pub segment: usize,
    /// The machine's own address there.
    pub address: Ipv4Addr,
}

/// One machine that is not a forwarder: a client where a load names it, else a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// `GROUP`, or `GROUP.NUMBER` from 0 where the file gives a count.
    pub name: String,
    /// The group in the file.
    pub group: String,
    /// Where it is plugged in; at least once.
    pub attachments: Vec<Attachment>,
    /// The router for everything that is on none of its segments.
    pub gateway: Option<Ipv4Addr>,
}

/// One machine that runs Evenkeel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarder {
    /// Its name.
    pub name: String,
    /// Where it is plugged in; the machine's own addresses, apart from what the configuration adds.
    pub attachments: Vec<Attachment>,
    /// The router for everything that is on none of its segments.
    pub gateway: Option<Ipv4Addr>,
    /// The production configuration file, as a path that can be opened (already joined with the folder).
    pub config: PathBuf,
}

/// How packets travel between a machine and a segment, in each direction on its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// The machines at one end: indices into [`Scenario::hosts`], then, counted on, [`Scenario::forwarders`].
    pub machines: Vec<usize>,
    /// The segment at the other end: the index into [`Scenario::segments`].
    pub segment: usize,
    /// What it does to packets.
    pub quality: Quality,
}

/// What a link does to packets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// The time that a packet is under way. Default 10 us.
    pub delay: Duration,
    /// A further time, drawn evenly from zero to this for each packet; packets overtake each other. Default 0.
    pub jitter: Duration,
    /// Bits per second; zero means without limit. Default 10 Gbit/s.
    pub rate_bits: u64,
    /// The share of packets that get lost, in millionths. Default 0.
    pub loss_millionths: u32,
    /// Packets that wait for a limited rate before further ones are dropped. Default 1,000.
    pub queue_packets: u32,
}

impl Default for Quality {
    fn default() -> Self {
        Self {
            delay: Duration::from_micros(10),
            jitter: Duration::ZERO,
            rate_bits: 10_000_000_000,
            loss_millionths: 0,
            queue_packets: 1_000,
        }
    }
}

/// Flows from some hosts to one service.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// Its name.
    pub name: String,
    /// Who opens the flows, in turn: indices into [`Scenario::hosts`].
    pub clients: Vec<usize>,
    /// The service.
    pub service: Service,
    /// When flows are opened.
    pub arrivals: Arrivals,
    /// When the first flow may open.
    pub start: Duration,
    /// When it stops to open flows.
    pub extent: Extent,
    /// What a flow carries.
    pub exchange: Exchange,
}

/// An address, port and protocol to talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// The address: a VIP, or a host's own.
    pub address: Ipv4Addr,
    /// The port (1 to 65,535).
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}/{}", self.address, self.port, self.protocol)
    }
}

/// When flows are opened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// Independent users: exponential gaps with this mean, in nanoseconds.
    Poisson {
        /// The mean gap between two flows of the load.
        mean_gap: Duration,
    },
    /// One flow after the other, evenly spaced.
    Uniform {
        /// The gap between two flows of the load.
        gap: Duration,
    },
    /// A fixed number of flows at any time; one that ends makes room for the next.
    Closed {
        /// Flows that are open together, over all clients.
        outstanding: u32,
    },
}

/// When a load stops to open flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// After this many flows.
    Flows(u64),
    /// After this time since its start.
    Duration(Duration),
}

/// What one flow carries: the client asks, the server answers, `rounds` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Bytes of one request (TCP: of the stream; UDP: of one datagram). At least 16: the request's head.
    pub request_bytes: u32,
    /// Bytes of one response. At least 16: the response's head.
    pub response_bytes: u32,
    /// Requests of one flow, one after the other. Default 1.
    pub rounds: u32,
}

/// Something that must hold when the run is over.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Expectation {
    /// The metric, as named in the reference of scenario files.
    pub metric: String,
    /// The least that it may be.
    pub min: Option<f64>,
    /// The most that it may be.
    pub max: Option<f64>,
    /// Exactly what it must be; hashes as 16 hexadecimal digits.
    pub equals: Option<Expected>,
}

/// A value that a metric must have.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Expected {
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl Scenario {
    /// Reads and checks a scenario file.
    ///
    /// # Errors
    /// When the file cannot be read, is no scenario, or contradicts itself; each error with its place.
    pub fn load(path: &Path) -> Result<Self, ScenarioErrors> {
        let unreadable = |reason: String| ScenarioErrors::whole_file(path, reason);
        let size =
            std::fs::metadata(path).map_err(|error| unreadable(format!("not readable: {error}")))?.len();
        if size > FILE_MAX_BYTES {
            return Err(unreadable(format!("{size} bytes long; a scenario has at most {FILE_MAX_BYTES}")));
        }
        let text =
            std::fs::read_to_string(path).map_err(|error| unreadable(format!("not readable: {error}")))?;
        Self::parse(&text, path)
    }

    /// Checks the text of a scenario. `path` names it in errors; paths in the text are relative to its folder.
    ///
    /// # Errors
    /// When the text is no scenario or contradicts itself; each error with its place.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ScenarioErrors> {
        let written = written::parse(text, path)?;
        check::check(&written, text, path)
    }

    /// Whether a load opens flows from this host.
    #[must_use]
    pub fn is_client(&self, host: usize) -> bool {
        self.loads.iter().any(|load| load.clients.contains(&host))
    }

    /// What lies between a machine (numbered as in [`Link::machines`]) and a segment.
    #[must_use]
    pub fn quality(&self, machine: usize, segment: usize) -> Quality {
        let fits = |link: &&Link| link.segment == segment && link.machines.contains(&machine);
        self.links.iter().rev().find(fits).map_or_else(Quality::default, |link| link.quality)
    }

    /// The services that a host serves, given the real servers of the forwarders (address, port, protocol).
    ///
    /// A host serves the ports under which a director knows one of its addresses, and those that a load
    /// names directly. Everything else is refused as a closed port.
    #[must_use]
    pub fn listeners(&self, host: usize, real_servers: &[Service]) -> Vec<Service> {
        let Some(host) = self.hosts.get(host) else { return Vec::new() };
        let is_own = |service: &Service| host.attachments.iter().any(|own| own.address == service.address);
        let direct = self.loads.iter().map(|load| load.service);
        let mut services: Vec<_> = real_servers.iter().copied().chain(direct).filter(is_own).collect();
        services.sort_unstable();
        services.dedup();
        services
    }
}
