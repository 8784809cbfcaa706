//! The scenario file: who is on which segment, who talks to whom how often, and what must come out.
//!
//! In: TOML text and its path. Out: a checked [`Scenario`], or [`ScenarioErrors`] that point at line and
//! column. The simulator and the lab run the same scenario; neither reads anything else about the topology.
//! A scenario never opens the configuration files that its forwarders name: their drivers do.
//!
//! The fields are described in `docs/src/reference/scenario.md`.

mod check;
mod error;
mod graph;
pub mod network;
mod quantity;
pub mod reference;
pub mod sweep;
pub mod timeline;
pub mod traffic;
mod written;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use evenkeel_config::document::Source;
use evenkeel_engine::Duration;
use serde::Serialize;

use error::Collector;

pub use error::{ScenarioError, ScenarioErrors};
pub use network::{
    Attachment, Ecmp, Forwarder, Host, Link, Network, Route, RouteAction, Router, Rule, Segment, SegmentKind,
    Stack, Subnet, SynPlan, Sysctl, TABLE_MAIN,
};
pub use timeline::{Action, Happening, Turn, When};
pub use traffic::{Arrivals, Discipline, Exchange, Extent, Load, Service, ServiceModel};
pub use written::schema;

use crate::record::data::Parameter;
use crate::wires::Quality;

/// The VLAN of a port that names none, as on switches that one buys.
pub(crate) const VLAN_DEFAULT: u16 = 1;
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
    /// The time from which on latencies and shares over time are counted.
    pub warmup: Duration,
    /// How it is computed.
    pub mode: Mode,
    /// The seed that is used when none is given on the command line.
    pub seed: u64,
    /// The networks.
    pub segments: Vec<Segment>,
    /// The hosts, one entry per machine.
    pub hosts: Vec<Host>,
    /// The routers.
    pub routers: Vec<Router>,
    /// The forwarders.
    pub forwarders: Vec<Forwarder>,
    /// How attachments behave; the last entry that fits an attachment wins, and without one the default.
    pub links: Vec<Link>,
    /// The traffic.
    pub loads: Vec<Load>,
    /// What happens besides, in the order of the file.
    pub timeline: Vec<Happening>,
    /// The segments whose frames a capture holds, by number.
    pub captures: Vec<usize>,
    /// The machines whose frames a capture holds, by number.
    pub captured_machines: Vec<usize>,
    /// What must come out.
    pub expectations: Vec<Expectation>,
}

/// How a run is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Packet by packet, through every stack.
    #[default]
    Packet,
    /// Request by request: the forwarders decide as ever, and nothing travels.
    Flow,
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

/// The text of a file that is not too large.
fn read(path: &Path) -> Result<String, String> {
    let named = |reason: &dyn std::fmt::Display| format!("{} is not readable: {reason}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| match library_name(path) {
        Some(name) => {
            named(&format_args!("{error}; `evenkeel sim new {name}` writes the scenario of that name"))
        }
        None => named(&error),
    })?;
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| named(&error))?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(format!("{} has more than {FILE_MAX_BYTES} bytes", path.display()));
    }
    String::from_utf8(bytes).map_err(|error| named(&error))
}

/// The name of the library that `path` is where a file is meant.
fn library_name(path: &Path) -> Option<&'static str> {
    crate::library::find(path.to_str()?).map(|entry| entry.name)
}

fn check_text(text: &str, path: &Path, files: &mut check::Files<'_>) -> Result<Scenario, ScenarioErrors> {
    if text.len() as u64 > FILE_MAX_BYTES {
        let reason = format!("{} has more than {FILE_MAX_BYTES} bytes", path.display());
        return Err(ScenarioErrors::whole_file(path, reason));
    }
    let source = Source::new(&path.display().to_string(), text.to_owned());
    let mut errors = Collector::new(&source, path);
    let Some(written) = written::parse(&source, &mut errors) else { return Err(errors.finish()) };
    let scenario = check::check(&written, path, &mut errors, files);
    if errors.is_empty() { Ok(scenario) } else { Err(errors.finish()) }
}

impl Scenario {
    /// Reads and checks a scenario file.
    ///
    /// # Errors
    /// When the file cannot be read, is no scenario, or contradicts itself; each error with its place.
    pub fn load(path: &Path) -> Result<Self, ScenarioErrors> {
        let text = read(path).map_err(|reason| ScenarioErrors::whole_file(path, reason))?;
        check_text(&text, path, &mut read)
    }

    /// The points of the study that a file describes: what is different in each, and its scenario. A file without a
    /// sweep is one point.
    ///
    /// # Errors
    /// When the file cannot be read, its sweep is wrong, or a point is no scenario; each error with its place.
    pub fn load_points(path: &Path) -> Result<Vec<(Vec<Parameter>, Self)>, ScenarioErrors> {
        let text = read(path).map_err(|reason| ScenarioErrors::whole_file(path, reason))?;
        // What is wrong with the file itself is told before its points are made.
        check_text(&text, path, &mut read)?;
        let points = sweep::points(&text).map_err(|reason| ScenarioErrors::whole_file(path, reason))?;
        let parse = |point: sweep::Point| {
            check_text(&point.text, path, &mut read).map(|scenario| (point.parameters, scenario))
        };
        points.into_iter().map(parse).collect()
    }

    /// Checks the text of a scenario. `path` names it in errors; paths in the text are relative to its folder. No file
    /// is read: a text that names tables of laws (`cdf`) is refused.
    ///
    /// # Errors
    /// When the text is no scenario or contradicts itself; each error with its place.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ScenarioErrors> {
        let unread = |file: &Path| format!("{} is not read from a text without a folder", file.display());
        check_text(text, path, &mut |file| Err(unread(file)))
    }

    /// Whether a load opens flows from this host.
    #[must_use]
    pub fn is_client(&self, host: usize) -> bool {
        self.loads.iter().any(|load| load.clients.contains(&host))
    }

    /// What a machine is called, its group and its network.
    #[must_use]
    pub fn machine(&self, number: usize) -> Option<(&str, &str, &Network)> {
        let routers = self.hosts.len();
        let forwarders = routers + self.routers.len();
        if let Some(host) = self.hosts.get(number) {
            return Some((&host.name, &host.group, &host.network));
        }
        if let Some(router) = self.routers.get(number.wrapping_sub(routers)) {
            return Some((&router.name, &router.name, &router.network));
        }
        let forwarder = self.forwarders.get(number.wrapping_sub(forwarders))?;
        Some((&forwarder.name, &forwarder.name, &forwarder.network))
    }

    /// How many machines there are.
    #[must_use]
    pub const fn machine_count(&self) -> usize {
        self.hosts.len() + self.routers.len() + self.forwarders.len()
    }

    /// What lies between a machine and a segment: towards the segment, and towards the machine.
    #[must_use]
    pub fn quality(&self, machine: usize, segment: usize) -> (Quality, Quality) {
        let fits = |link: &&Link| link.segment == segment && link.machines.contains(&machine);
        let link = self.links.iter().rev().find(fits);
        link.map_or_else(Default::default, |link| (link.up, link.down))
    }

    /// The services that a host serves, given the real servers of the forwarders (address, port, protocol).
    ///
    /// A host serves the ports under which a director knows one of its addresses, and those that a load
    /// names directly. Everything else is refused as a closed port.
    #[must_use]
    pub fn listeners(&self, host: usize, real_servers: &[Service]) -> Vec<Service> {
        let Some(host) = self.hosts.get(host) else { return Vec::new() };
        let network = &host.network;
        let is_own = |service: &Service| {
            network.loopback.contains(&service.address)
                || network.attachments.iter().any(|own| own.addresses.contains(&service.address))
        };
        let direct = self.loads.iter().map(|load| load.service);
        let mut services: Vec<_> = real_servers.iter().copied().chain(direct).filter(is_own).collect();
        services.sort_unstable();
        services.dedup();
        services
    }
}
