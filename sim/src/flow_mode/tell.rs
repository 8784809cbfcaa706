//! What a run tells the recorder, where there is one.

use evenkeel_engine::plan::Plan;
use evenkeel_engine::{Duration, Instant};

use super::forwarder::Forwarder;
use super::machine::Machine;
use super::outcome::{Cause, LoadOutcome, Outcome};
use super::setup::Setup;
use crate::record::RunRecord;
use crate::record::data::{Cost, ForwarderRecord, GuestRecord, Hashes, Mode, SCHEMA};
use crate::record::recorder::{self, BrokenFlow, Completed, Recorder, TableSetup};
use crate::report::instructions;

/// A recorder that may not be there.
#[derive(Debug, Default)]
pub(super) struct Tell(Option<Recorder>);

impl Tell {
    /// Records from now on. Weights are those of the first forwarder's plan.
    pub(super) fn begin(&mut self, setup: &Setup, loads: &[String], forwarders: &[Forwarder]) {
        let weight = |address| {
            let plan = forwarders.first().map(Forwarder::plan);
            weight_of(plan, address)
        };
        let server = |machine: &super::setup::MachineSetup| recorder::ServerSetup {
            name: machine.name.clone(),
            address: machine.addresses.first().map(ToString::to_string).unwrap_or_default(),
            weight: machine.addresses.iter().map(|address| weight(*address)).max().unwrap_or(0),
        };
        let table = |forwarder: &Forwarder| TableSetup {
            name: forwarder.name.clone(),
            capacity: u64::try_from(forwarder.capacity()).unwrap_or(u64::MAX),
        };
        self.0 = Some(Recorder::new(recorder::Setup {
            servers: setup.machines.iter().map(server).collect(),
            loads: loads.to_vec(),
            causes: Cause::ALL.map(|cause| (cause.key().to_owned(), cause.words().to_owned())).to_vec(),
            tables: forwarders.iter().map(table).collect(),
            interval: Duration::ZERO,
            warmup: setup.warmup,
        }));
    }

    #[inline]
    pub(super) fn started(&mut self, now: Instant, load: u16) {
        if let Some(recorder) = &mut self.0 {
            recorder.started(now, usize::from(load));
        }
    }

    #[inline]
    pub(super) fn completed(&mut self, now: Instant, load: u16, machine: u32, latency: Duration) {
        if let Some(recorder) = &mut self.0 {
            let server = usize::try_from(machine).ok();
            recorder.completed(now, Completed { load: usize::from(load), server, latency, bytes: 0 });
        }
    }

    pub(super) fn broken(&mut self, now: Instant, load: u16, machine: Option<u32>, cause: Cause) {
        if let Some(recorder) = &mut self.0 {
            recorder.broken(
                now,
                BrokenFlow {
                    load: usize::from(load),
                    server: machine.and_then(|machine| usize::try_from(machine).ok()),
                    cause: cause as usize,
                    is_unavoidable: cause.is_unavoidable(),
                },
            );
        }
    }

    pub(super) fn weighed(&mut self, now: Instant, machine: usize, weight: u32) {
        if let Some(recorder) = &mut self.0 {
            recorder.weighed(now, machine, weight);
        }
    }

    pub(super) fn mark(&mut self, now: Instant, words: impl FnOnce() -> String) {
        if let Some(recorder) = &mut self.0 {
            recorder.mark(now, words());
        }
    }

    /// Samples the levels of machines and tables, where it is time for that.
    #[inline]
    pub(super) fn sample(&mut self, now: Instant, machines: &[Machine], forwarders: &[Forwarder]) {
        let Some(recorder) = &mut self.0 else { return };
        if !recorder.is_sample_due(now) {
            return;
        }
        for (number, machine) in machines.iter().enumerate() {
            recorder.active(now, number, u32::try_from(machine.held()).unwrap_or(u32::MAX));
        }
        for (number, forwarder) in forwarders.iter().enumerate() {
            let entries = u64::try_from(forwarder.entries()).unwrap_or(u64::MAX);
            recorder.held(now, number, entries, forwarder.evicted);
        }
    }

    /// The record of a run that is over; nothing if none was begun.
    pub(super) fn finish(
        &mut self,
        now: Instant,
        outcome: &Outcome,
        forwarders: &[Forwarder],
    ) -> Option<RunRecord> {
        let recorder = self.0.take()?;
        let mut record = RunRecord {
            schema: SCHEMA,
            mode: Mode::Flow,
            seed: outcome.seed,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            events: outcome.events,
            hashes: Hashes { decisions: outcome.decision_hash.clone(), ..Hashes::default() },
            forwarders: forwarders.iter().map(forwarder_record).collect(),
            ..RunRecord::default()
        };
        recorder.finish(now, &mut record);
        // Flows are counted by their ends, requests by their answers.
        let sum = |count: fn(&LoadOutcome) -> u64| outcome.loads.iter().map(count).sum();
        record.flows.started = sum(|load| load.started);
        record.flows.completed = sum(|load| load.completed);
        record.flows.unfinished = sum(|load| load.unfinished);
        Some(record)
    }
}

/// The greatest weight that a plan gives a real server at this address.
pub(super) fn weight_of(plan: Option<&Plan>, address: std::net::IpAddr) -> u32 {
    let servers = plan.into_iter().flat_map(|plan| &plan.directors).flat_map(|director| &director.servers);
    servers.filter(|server| server.address == address).map(|server| server.weight).max().unwrap_or(0)
}

fn forwarder_record(forwarder: &Forwarder) -> ForwarderRecord {
    let guests = forwarder.directors().map(|director| {
        let stats = director.scheduler().stats();
        GuestRecord {
            name: director.name.clone(),
            calls: stats.calls,
            decided: stats.decided,
            faults: stats.faults,
            fallbacks: stats.fallbacks,
        }
    });
    ForwarderRecord {
        name: forwarder.name.clone(),
        flows_opened: forwarder.outcome(0).opened,
        cost: Cost {
            decisions: forwarder.scheduler_calls,
            instructions: instructions(forwarder.directors().map(|director| director.scheduler().stats())),
            memory_bytes: Some(forwarder.memory_bytes()),
        },
        guests: guests.filter(|guest| guest.calls > 0).collect(),
        ..ForwarderRecord::default()
    }
}
