//! What a replay came to: counts that add up, servers, connections that broke, and the hashes of it all; as text for
//! people and as JSON for programs. The keys of the JSON are the names of the fields here.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use evenkeel_engine::plan::Plan;
use evenkeel_engine::wire::{Address, FiveTuple, Protocol};
use evenkeel_engine::{DirectorStatus, Engine, FlowStatus};
use serde::Serialize;

use super::connections::{Cause, Connection};
use super::driver::Clock;
use super::edit::Check;
use super::{Sides, text};
use crate::capture::Reader;

/// The version of the form of the JSON; it grows when a key changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// What a replay came to. Packets: `read = fed + skipped`, and `fed + simulated = forwarded + answered + consumed +
/// dropped + waiting`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The version of this form.
    pub schema: u32,
    /// The version of the program.
    pub version: &'static str,
    /// The capture.
    pub capture: CaptureReport,
    /// The seed.
    pub seed: u64,
    /// Whose packets were used: `both` or `clients`.
    pub sides: &'static str,
    /// Virtual time.
    pub time: TimeReport,
    /// Packets of the capture.
    pub read: u64,
    /// Packets of the capture that went into the engine.
    pub fed: u64,
    /// Packets of the capture that did not, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Packets that went into the engine besides: of simulated servers and neighbours.
    pub simulated: u64,
    /// Packets that left for a real server or a client.
    pub forwarded: u64,
    /// Packets that were turned into an answer.
    pub answered: u64,
    /// Packets that were for the engine itself.
    pub consumed: u64,
    /// Packets that the engine keeps at the end.
    pub waiting: u64,
    /// Packets that were dropped, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Packets that were born in the engine and left.
    pub born: u64,
    /// Packets of the capture that had a VLAN tag, which was taken off.
    pub tagged: u64,
    /// Fragments.
    pub fragments: u64,
    /// ICMP errors.
    pub errors: u64,
    /// TCP segments longer than any link, which the capturing machine had put together or not yet cut.
    pub super_packets: u64,
    /// Packets whose headers contradict themselves; they went into the engine as they are.
    pub unreadable: u64,
    /// Checksums.
    pub checksums: ChecksumReport,
    /// Connections.
    pub connections: ConnectionReport,
    /// Flows that were entered into the flow table.
    pub flows_opened: u64,
    /// Each real server of each director.
    pub servers: Vec<ServerReport>,
    /// Each connection that broke, in the order in which they were seen first.
    pub broken: Vec<BrokenReport>,
    /// The first faults of components, in words.
    pub faults: Vec<String>,
    /// What to try when nothing reached a director.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether every packet has had exactly one end.
    pub is_conserved: bool,
    /// The hash of every packet that left the engine, as 16 hexadecimal digits.
    pub wire_hash: String,
    /// The hash of which connection got which server, and of every drop, as 16 hexadecimal digits.
    pub decision_hash: String,
    /// Who was given each connection.
    #[serde(skip)]
    pub(super) given: Given,
}

/// The capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CaptureReport {
    /// `pcap` or `pcapng`.
    pub format: &'static str,
    /// Whether it is packed with gzip.
    pub is_packed: bool,
    /// Bytes of its packets.
    pub bytes: u64,
    /// When its first packet was captured, in nanoseconds since 1970 in UTC.
    pub first_ns: u64,
    /// What is not as it should be.
    pub warnings: Vec<String>,
}

/// Virtual time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TimeReport {
    /// What has passed, in nanoseconds.
    pub elapsed_ns: u64,
    /// Packets that were captured before the one before them; no time passed between the two.
    pub backwards: u64,
    /// Gaps that were shortened.
    pub shortened: u64,
}

/// Checksums of the capture that were not right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChecksumReport {
    /// Left to hardware behind the capture.
    pub offloaded: u64,
    /// Wrong.
    pub wrong: u64,
    /// Wrong in the header of IPv4.
    pub headers: u64,
    /// Packets that were repaired.
    pub repaired: u64,
}

/// Connections of the capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConnectionReport {
    /// All that were seen.
    pub seen: u64,
    /// Of TCP.
    pub tcp: u64,
    /// Of UDP.
    pub udp: u64,
    /// Pings.
    pub icmp: u64,
    /// Those that were given a real server.
    pub served: u64,
    /// Those of which no packet went on, though some were fed.
    pub refused: u64,
    /// Those that broke.
    pub broken: u64,
}

/// One real server of one director.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerReport {
    /// The director.
    pub director: String,
    /// What the director is bound to.
    pub service: String,
    /// The server's name.
    pub server: String,
    /// Its address and port.
    pub address: String,
    /// Its weight at the end.
    pub weight: u32,
    /// Flows that it was given.
    pub flows: u64,
    /// Packets to it.
    pub packets_to: u64,
    /// Packets from it.
    pub packets_from: u64,
    /// Bytes to it.
    pub bytes_to: u64,
    /// Bytes from it.
    pub bytes_from: u64,
}

/// A connection that broke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BrokenReport {
    /// Its number, from 1.
    pub connection: u64,
    /// Who talks to whom.
    pub tuple: String,
    /// The packet of the capture with which it broke.
    pub packet: u64,
    /// Why.
    pub cause: String,
}

/// Why a packet of the capture did not go into the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Skip {
    Cut,
    Arp,
    NotIp,
    Short,
    UnknownLink,
    FromServer,
    AnswerWithoutFlow,
    AnswerPastForwarder,
    FragmentWithoutFirst,
    TooManyConnections,
}

impl Skip {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Arp => "arp",
            Self::NotIp => "not_ip",
            Self::Short => "short",
            Self::UnknownLink => "unknown_link",
            Self::FromServer => "from_server",
            Self::AnswerWithoutFlow => "answer_without_flow",
            Self::AnswerPastForwarder => "answer_past_forwarder",
            Self::FragmentWithoutFirst => "fragment_without_first",
            Self::TooManyConnections => "too_many_connections",
        }
    }
}

/// What is counted while a replay runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) read: u64,
    pub(super) read_bytes: u64,
    pub(super) fed: u64,
    pub(super) simulated: u64,
    pub(super) tagged: u64,
    pub(super) fragments: u64,
    pub(super) errors: u64,
    pub(super) super_packets: u64,
    pub(super) unreadable: u64,
    pub(super) repaired: u64,
    checksums: ChecksumReport,
    skipped: BTreeMap<Skip, u64>,
}

impl Counts {
    pub(super) fn skip(&mut self, reason: Skip) {
        *self.skipped.entry(reason).or_insert(0) += 1;
    }

    pub(super) fn note_checksum(&mut self, check: Check, is_header_right: bool) {
        self.checksums.offloaded += u64::from(check == Check::Offloaded);
        self.checksums.wrong += u64::from(check == Check::Wrong);
        self.checksums.headers += u64::from(!is_header_right);
    }
}

/// A real server that has been seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) director: String,
    pub(super) server: String,
    pub(super) address: Address,
    pub(super) port: u16,
}

/// The real servers that have been seen, each with a number.
#[derive(Clone, Debug, Default)]
pub(super) struct Servers {
    all: Vec<Known>,
    places: BTreeMap<(u16, u16), u16>,
}

impl Servers {
    pub(super) fn get(&self, number: u16) -> Option<&Known> {
        self.all.get(usize::from(number))
    }

    /// The number of the server of a flow.
    pub(super) fn number(&mut self, status: &FlowStatus<'_>) -> u16 {
        let place = (status.entry.director, status.entry.server_slot);
        if let Some(number) = self.places.get(&place) {
            return *number;
        }
        let number = self.enter(Known {
            director: status.director.to_owned(),
            server: status.server.to_owned(),
            address: status.entry.server,
            port: status.entry.server_port,
        });
        self.places.insert(place, number);
        number
    }

    /// The number of the server at an address and port.
    pub(super) fn at(&mut self, engine: &Engine, address: Address, port: u16) -> Option<u16> {
        let is_it = |known: &Known| known.address == address && known.port == port;
        if let Some(number) = self.all.iter().position(is_it) {
            return u16::try_from(number).ok();
        }
        for director in engine.directors() {
            let found = director.servers.iter().find(|server| {
                Address::from(server.address) == address && (server.port == port || server.port == 0)
            });
            if let Some(server) = found {
                let (director, server) = (director.name.clone(), server.name.clone());
                return Some(self.enter(Known { director, server, address, port }));
            }
        }
        None
    }

    fn enter(&mut self, known: Known) -> u16 {
        if let Some(number) = self.all.iter().position(|other| *other == known) {
            return u16::try_from(number).unwrap_or(u16::MAX);
        }
        let number = u16::try_from(self.all.len()).unwrap_or(u16::MAX);
        self.all.push(known);
        number
    }

    fn name(&self, number: u16) -> String {
        self.get(number).map_or_else(String::new, |known| format!("{}/{}", known.director, known.server))
    }
}

/// Who was given each connection: an index into the names of servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) servers: Vec<String>,
    pub(super) connections: Vec<(FiveTuple, Option<u16>)>,
}

impl Outcome {
    /// What a replay has come to.
    pub(super) fn of(
        reader: &Reader<'_>,
        engine: &Engine,
        connections: &[Connection],
        (clock, counts, servers): (&Clock, &Counts, &Servers),
        (wire, decisions): (u64, u64),
        (seed, sides): (u64, Sides),
        faults: &[String],
    ) -> Self {
        let counters = engine.counters();
        let dropped = counters.drops().filter(|(_, count)| *count > 0);
        let (hex, skipped) = (|hash: u64| format!("{hash:016x}"), counts.skipped.values().sum::<u64>());
        let is_fed = counters.packets_in == counts.fed + counts.simulated;
        let connection_report = count(connections);
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            capture: CaptureReport {
                format: reader.format().name(),
                is_packed: reader.is_packed(),
                bytes: counts.read_bytes,
                first_ns: clock.first_ns,
                warnings: reader.warnings().to_vec(),
            },
            seed,
            sides: match sides {
                Sides::Both => "both",
                Sides::Clients => "clients",
            },
            time: TimeReport {
                elapsed_ns: clock.now.as_nanos(),
                backwards: clock.backwards,
                shortened: clock.shortened,
            },
            read: counts.read,
            fed: counts.fed,
            skipped: counts.skipped.iter().map(|(skip, count)| (skip.name(), *count)).collect(),
            simulated: counts.simulated,
            forwarded: counters.forwarded,
            answered: counters.answered,
            consumed: counters.consumed,
            waiting: counters.waiting,
            dropped: dropped.map(|(reason, count)| (reason.name(), count)).collect(),
            born: counters.born,
            tagged: counts.tagged,
            fragments: counts.fragments,
            errors: counts.errors,
            super_packets: counts.super_packets,
            unreadable: counts.unreadable,
            checksums: ChecksumReport { repaired: counts.repaired, ..counts.checksums },
            connections: connection_report,
            flows_opened: counters.flows_opened,
            servers: engine.directors().iter().flat_map(server_reports).collect(),
            broken: broken(connections, servers),
            faults: faults.to_vec(),
            hint: (connection_report.served == 0).then(|| hint(connections, engine.plan())).flatten(),
            is_conserved: counters.is_conserved() && is_fed && counts.read == counts.fed + skipped,
            wire_hash: hex(wire),
            decision_hash: hex(decisions),
            given: Given {
                servers: (0..servers.all.len())
                    .map(|number| servers.name(u16::try_from(number).unwrap_or(u16::MAX)))
                    .collect(),
                connections: connections
                    .iter()
                    .map(|one| (one.tuple, one.way.map(|way| way.server)))
                    .collect(),
            },
        }
    }

    /// The text for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        text::render(self)
    }
}

fn count(connections: &[Connection]) -> ConnectionReport {
    let mut report = ConnectionReport::default();
    for connection in connections {
        report.seen += 1;
        match connection.tuple.protocol {
            Protocol::TCP => report.tcp += 1,
            Protocol::UDP => report.udp += 1,
            _ => report.icmp += 1,
        }
        report.served += u64::from(connection.way.is_some());
        report.refused += u64::from(connection.forwarded == 0 && connection.refused.is_some());
        report.broken += u64::from(connection.broken.is_some());
    }
    report
}

fn server_reports(director: &DirectorStatus) -> Vec<ServerReport> {
    let service = director.binds.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let report = director.servers.iter().map(|server| ServerReport {
        director: director.name.clone(),
        service: service.clone(),
        server: server.name.clone(),
        address: end(server.address.into(), server.port),
        weight: server.weight,
        flows: server.flows,
        packets_to: server.packets_to,
        packets_from: server.packets_from,
        bytes_to: server.bytes_to,
        bytes_from: server.bytes_from,
    });
    report.collect()
}

/// An address and port as users write them; port 0 stands for any.
pub(super) fn end(address: Address, port: u16) -> String {
    if port == 0 {
        return address.to_string();
    }
    SocketAddr::new(IpAddr::from(address), port).to_string()
}

fn broken(connections: &[Connection], servers: &Servers) -> Vec<BrokenReport> {
    let mut reports = Vec::new();
    for (connection, number) in connections.iter().zip(1..) {
        let Some(broken) = connection.broken else { continue };
        let cause = match broken.cause {
            Cause::Moved(from, to) => format!("moved from {} to {}", servers.name(from), servers.name(to)),
            Cause::Dropped(reason) => format!("dropped: {}", reason.name()),
        };
        let tuple = connection.tuple.to_string();
        reports.push(BrokenReport { connection: number, tuple, packet: broken.packet, cause });
    }
    reports
}

/// The mapping that would lead most connections to a director.
fn hint(connections: &[Connection], plan: &Plan) -> Option<String> {
    let mut called: BTreeMap<(Address, u16, Protocol), u64> = BTreeMap::new();
    for connection in connections {
        let (address, port) = connection.called;
        *called.entry((address, port, connection.tuple.protocol)).or_insert(0) += 1;
    }
    let binds = || plan.directors.iter().flat_map(|director| &director.binds);
    // Of those that are called as often the first address.
    let mut best: Option<(u64, String)> = None;
    for ((address, port, protocol), count) in called {
        let fits = binds().find(|bind| {
            bind.protocol.is_none_or(|bound| bound == protocol)
                && bind.network.is_host()
                && bind.network.address.is_ipv4() == address.is_v4()
        });
        let Some(bind) = fits else { continue };
        if best.as_ref().is_none_or(|(most, _)| count > *most) {
            let to = bind.network.address.into();
            let new = end(to, bind.port().unwrap_or(port));
            best = Some((count, format!("--map {}={new}", end(address, port))));
        }
    }
    best.map(|(count, map)| {
        format!("no packet reached a director; {map} would lead {count} of {} there", connections.len())
    })
}
