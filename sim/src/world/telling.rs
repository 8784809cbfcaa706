//! What a run tells: the world feeds a recorder while it runs, and adds what only it knows in the end.

use std::collections::BTreeMap;
use std::net::IpAddr;

use evenkeel_engine::{Duration, Instant};

use super::World;
use crate::forwarder::ForwarderNode;
use crate::host::{Answer, Cause, Ending};
use crate::record::data::{
    Chain, Chains, Cost, Drop, ExpectationRecord, ForwarderRecord, GuestRecord, Hashes, Mode, Packets,
};
use crate::record::drawing::Graph;
use crate::record::recorder::{BrokenFlow, Completed, ServerSetup, Setup, TableSetup};
use crate::record::{Recorder, RunRecord};
use crate::report::Outcome;
use crate::scenario::Scenario;
use crate::trace::CHECKPOINT_EVENTS;

/// The recorder, and what it calls the servers.
#[derive(Debug)]
pub(super) struct Telling {
    recorder: Recorder,
    /// The places of real servers, by address.
    servers: BTreeMap<IpAddr, usize>,
}

/// Who a server is that says a word of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub(super) address: IpAddr,
    /// Its place among the real servers, where it is one.
    pub(super) place: Option<usize>,
}

/// Who says which word of itself in a response.
#[derive(Debug)]
pub(super) struct Identities {
    /// In their order, close together: every answer is looked for here.
    words: Vec<u32>,
    /// Who says each of them.
    all: Vec<Identity>,
}

impl Identities {
    pub(super) fn new(addresses: BTreeMap<u32, IpAddr>, telling: &Telling) -> Self {
        let place = |address: IpAddr| telling.servers.get(&address).copied();
        let identity = |address: &IpAddr| Identity { address: *address, place: place(*address) };
        Self { all: addresses.values().map(identity).collect(), words: addresses.into_keys().collect() }
    }

    #[inline]
    pub(super) fn find(&self, word: u32) -> Option<Identity> {
        let place = self.words.binary_search(&word).ok()?;
        self.all.get(place).copied()
    }
}

impl Telling {
    pub(super) fn new<'n>(scenario: &Scenario, nodes: impl Iterator<Item = &'n ForwarderNode>) -> Self {
        let mut places = BTreeMap::new();
        let mut setup = Setup {
            loads: scenario.loads.iter().map(|load| load.name.clone()).collect(),
            causes: Cause::ALL
                .iter()
                .map(|cause| (cause.key().to_owned(), cause.words().to_owned()))
                .collect(),
            warmup: scenario.warmup,
            ..Setup::default()
        };
        for (node, written) in nodes.zip(&scenario.forwarders) {
            let capacity = u64::from(node.engine.plan().limits.flows_max);
            setup.tables.push(TableSetup { name: format!("{}: flows", written.name), capacity });
            let capacity = u64::from(node.engine.plan().limits.half_open_max);
            setup.tables.push(TableSetup { name: format!("{}: half-open flows", written.name), capacity });
            for server in node.engine.directors().into_iter().flat_map(|director| director.servers) {
                places.entry(server.address).or_insert_with(|| {
                    let (name, address, weight) = (server.name, server.address.to_string(), server.weight);
                    setup.servers.push(ServerSetup { name, address, weight });
                    setup.servers.len() - 1
                });
            }
        }
        Self { recorder: Recorder::new(setup), servers: places }
    }

    pub(super) fn started(&mut self, now: Instant, load: usize) {
        self.recorder.started(now, load);
    }

    /// A request has been answered, by the real server with this place.
    pub(super) fn answered(&mut self, now: Instant, answer: &Answer, server: Option<usize>) {
        let (load, latency, bytes) = (answer.load, answer.latency, u64::from(answer.bytes));
        self.recorder.completed(now, Completed { load, server, latency, bytes });
    }

    /// A flow has ended.
    pub(super) fn ended(
        &mut self,
        now: Instant,
        ending: &Ending,
        server: Option<IpAddr>,
        is_unavoidable: bool,
    ) {
        let Some(cause) = ending.broken else { return };
        let server = server.and_then(|address| self.servers.get(&address)).copied();
        let cause = cause as usize;
        self.recorder.broken(now, BrokenFlow { load: ending.load, server, cause, is_unavoidable });
    }

    /// The scenario did something.
    pub(super) fn mark(&mut self, now: Instant, words: String) {
        self.recorder.mark(now, words);
    }

    /// Asks the forwarders how busy they are, where that is due.
    pub(super) fn sample<'n>(&mut self, now: Instant, nodes: impl Iterator<Item = &'n ForwarderNode>) {
        if !self.recorder.is_sample_due(now) {
            return;
        }
        let mut loads: BTreeMap<usize, (u32, u32)> = BTreeMap::new();
        for (number, node) in nodes.enumerate() {
            let engine = &node.engine;
            let half_open = engine.half_open_count() as u64;
            let flows = (engine.flow_count() as u64).saturating_sub(half_open);
            self.recorder.held(now, number * 2, flows, 0);
            self.recorder.held(now, number * 2 + 1, half_open, engine.counters().half_open_evicted);
            for server in engine.directors().into_iter().flat_map(|director| director.servers) {
                if let Some(place) = self.servers.get(&server.address) {
                    let sum = loads.entry(*place).or_default();
                    *sum = (sum.0.saturating_add(server.active), server.effective_weight);
                }
            }
        }
        for (place, (active, weight)) in loads {
            self.recorder.active(now, place, active);
            self.recorder.weighed(now, place, weight);
        }
    }
}

impl World<'_> {
    /// The record of a run that is over.
    pub(super) fn record(&mut self, outcome: &Outcome, findings: Vec<String>) -> RunRecord {
        let mut record = RunRecord {
            schema: crate::record::data::SCHEMA,
            scenario: outcome.scenario.clone(),
            mode: Mode::Packet,
            seed: outcome.seed,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            events: outcome.events,
            packets: Packets {
                sent: outcome.packets.sent,
                received: outcome.packets.received,
                in_flight: outcome.packets.in_flight,
                retransmitted: outcome.packets.retransmitted,
                stray: outcome.packets.stray,
            },
            ..RunRecord::default()
        };
        for finding in findings {
            self.telling.recorder.finding(finding);
        }
        self.telling.recorder.clone().finish(self.net.now, &mut record);
        // Flows are counted by their ends, requests by their answers.
        record.flows.started = outcome.flows.started;
        record.flows.completed = outcome.flows.completed;
        record.flows.unfinished = outcome.flows.unfinished;
        record.drops = drops(outcome);
        record.forwarders = outcome.forwarders.iter().map(forwarder).collect();
        record.expectations = outcome
            .expectations
            .iter()
            .map(|one| ExpectationRecord {
                metric: one.metric.clone(),
                wanted: one.wanted.clone(),
                found: one.found.as_ref().map(ToString::to_string),
                is_met: one.is_met,
            })
            .collect();
        record.hashes = Hashes {
            wire: outcome.wire_hash.clone(),
            decisions: outcome.decision_hash.clone(),
            metrics: String::new(),
        };
        record.chains = Chains {
            file: String::new(),
            every_events: CHECKPOINT_EVENTS,
            wire: Chain::from(&self.net.wire_trace),
            decisions: Chain::from(&self.net.decision_trace),
            answers: Chain::from(&self.net.answer_trace),
        };
        record.topology = Graph::from(self.scenario).collapsed();
        record.seal();
        record
    }
}

fn drops(outcome: &Outcome) -> Vec<Drop> {
    let drop = |place: &str, reason: &str, count: u64| Drop {
        place: place.to_owned(),
        reason: reason.to_owned(),
        count,
    };
    let mut drops = Vec::new();
    for forwarder in &outcome.forwarders {
        drops.extend(forwarder.dropped.iter().map(|(reason, count)| drop(&forwarder.name, reason, *count)));
    }
    let packets = &outcome.packets;
    drops.extend(packets.lost_on_wires.iter().map(|(reason, count)| drop("links", reason, *count)));
    drops.extend(packets.dropped_by_kernels.iter().map(|(reason, count)| drop("kernels", reason, *count)));
    if packets.lost_without_power > 0 {
        drops.push(drop("machines", "without_power", packets.lost_without_power));
    }
    drops
}

fn forwarder(report: &crate::report::ForwarderReport) -> ForwarderRecord {
    ForwarderRecord {
        name: report.name.clone(),
        packets_in: report.packets_in,
        forwarded: report.forwarded,
        answered: report.answered,
        dropped: report.dropped.values().sum(),
        flows_opened: report.flows_opened,
        cost: Cost {
            decisions: report.scheduler_calls,
            instructions: report.instructions,
            memory_bytes: Some(report.memory_bytes),
        },
        guests: report
            .guests
            .iter()
            .map(|guest| GuestRecord {
                name: guest.name.clone(),
                calls: guest.calls,
                decided: guest.decided,
                faults: guest.faults,
                fallbacks: guest.fallbacks,
            })
            .collect(),
        faults: report.faults.clone(),
    }
}

/// When each host was last without its programs, to tell flows that nobody could have kept.
#[derive(Debug, Default)]
pub(super) struct Absences {
    /// By address: when it began, and when it ended.
    last: BTreeMap<IpAddr, (Instant, Instant)>,
}

impl Absences {
    /// A host is without power or programs from now on.
    pub(super) fn begin(&mut self, now: Instant, addresses: impl Iterator<Item = IpAddr>) {
        for address in addresses {
            self.last.insert(address, (now, Instant::NEVER));
        }
    }

    /// It is back.
    pub(super) fn end(&mut self, now: Instant, addresses: impl Iterator<Item = IpAddr>) {
        for address in addresses {
            if let Some((_, end)) = self.last.get_mut(&address) {
                *end = now;
            }
        }
    }

    /// Whether it was away at some time since `since`, or had just come back: packets are under way a little longer.
    pub(super) fn has(&self, address: IpAddr, since: Instant) -> bool {
        self.last.get(&address).is_some_and(|(_, end)| end.after(GRACE) >= since)
    }

    /// Whether anybody at all was away since `since`.
    pub(super) fn has_any(&self, since: Instant) -> bool {
        self.last.values().any(|(_, end)| end.after(GRACE) >= since)
    }
}

/// How long the absence of a server is felt: retransmission goes on for about two minutes.
const GRACE: Duration = Duration::from_secs(1);
