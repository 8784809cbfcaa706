//! A scenario in flow mode: the same outcome and record as in packet mode, without what is about packets.

use std::net::IpAddr;

use evenkeel_engine::{DirectorStatus, ServerStatus};

use super::scenario::translate;
use super::setup::SetupError;
use super::world::World;
use crate::checker::Findings;
use crate::record::RunRecord;
use crate::record::data::{ExpectationRecord, Mode};
use crate::record::drawing::Graph;
use crate::report::{
    self, FlowCounts, ForwarderReport, LatencyReport, LoadReport, Outcome, PacketCounts, SCHEMA,
};
use crate::scenario::Scenario;
use crate::world::{Equipment, KernelCounts, Options, Progress};

/// Runs a scenario request by request.
///
/// # Errors
/// When the scenario needs packets, or the plans do not fit it; nothing has run then.
pub(crate) fn run_scenario(
    scenario: &Scenario,
    equipment: Vec<Equipment>,
    options: Options,
    listener: &mut dyn FnMut(Progress),
) -> Result<Outcome, SetupError> {
    let seed = options.seed.unwrap_or(scenario.seed);
    let (setup, forwarders) = translate(scenario, equipment, seed)?;
    let mut world = World::new(&setup, forwarders)?;
    world.record(&setup);
    world.run_with_progress(listener);
    let mut outcome = of(scenario, &world);
    let record = world.take_record().unwrap_or_default();
    outcome.unavoidable = record.flows.unavoidable;
    outcome.judge(&scenario.expectations);
    let record = completed(record, scenario, &outcome);
    outcome.metric_hash.clone_from(&record.hashes.metrics);
    outcome.record = record;
    Ok(outcome)
}

/// What a world has come to.
fn of(scenario: &Scenario, world: &World) -> Outcome {
    let sum = world.outcome();
    let loads: Vec<LoadReport> = scenario
        .loads
        .iter()
        .zip(&sum.loads)
        .map(|(written, load)| LoadReport {
            name: written.name.clone(),
            service: written.service.to_string(),
            flows: FlowCounts {
                started: load.started,
                completed: load.completed,
                broken: load.broken.values().sum(),
                unfinished: load.unfinished,
                causes: load.broken.iter().map(|(cause, count)| (cause.key(), *count)).collect(),
            },
        })
        .collect();
    let mut servers = Vec::new();
    let mut share_deviation: f64 = 0.0;
    for forwarder in world.forwarders() {
        let directors: Vec<DirectorStatus> = forwarder.directors().map(DirectorStatus::from).collect();
        let answered = |director: &DirectorStatus, server: &ServerStatus| {
            completed_by(scenario, world, director, server.address)
        };
        let apart = report::servers_of(&forwarder.name, &directors, answered, &mut servers);
        share_deviation = share_deviation.max(apart);
    }
    let is_conserved = world
        .machines()
        .all(|(machine, held)| machine.requests == machine.answered + machine.refused + machine.lost + held);
    Outcome {
        schema: SCHEMA,
        scenario: scenario.name.clone(),
        mode: Mode::Flow,
        seed: sum.seed,
        elapsed_ns: sum.elapsed_ns,
        events: sum.events,
        flows: report::total(loads.iter().map(|load| &load.flows)),
        packets: PacketCounts::default(),
        loads,
        servers,
        forwarders: forwarders(world),
        hosts: Vec::new(),
        share_deviation,
        is_conserved,
        checks: Findings::default(),
        unavoidable: 0,
        latency: LatencyReport::of(&sum.latency),
        wire_hash: String::new(),
        wire_checkpoints: Vec::new(),
        decision_hash: sum.decision_hash,
        metric_hash: String::new(),
        version: env!("CARGO_PKG_VERSION"),
        expectations: Vec::new(),
        record: RunRecord::default(),
    }
}

fn forwarders(world: &World) -> Vec<ForwarderReport> {
    let report = world.forwarders().map(|forwarder| ForwarderReport {
        name: forwarder.name.clone(),
        packets_in: 0,
        forwarded: 0,
        answered: 0,
        consumed: 0,
        dropped: std::collections::BTreeMap::new(),
        born: 0,
        flows_opened: forwarder.opened(),
        scheduler_calls: forwarder.scheduler_calls,
        instructions: report::instructions(
            forwarder.directors().map(|director| director.scheduler().stats()),
        ),
        memory_bytes: forwarder.memory_bytes(),
        scheduler_changes: 0,
        restarts: forwarder.restarts(),
        kernel: KernelCounts::default(),
        guests: report::guests_of(forwarder.guests()),
        faults: forwarder.faults.clone(),
    });
    report.collect()
}

/// Flows of the services of a director that a server has completed.
fn completed_by(scenario: &Scenario, world: &World, director: &DirectorStatus, server: IpAddr) -> u64 {
    let loads = scenario.loads.iter().enumerate().filter(|(_, load)| {
        let called = load.service;
        director.binds.iter().any(|bind| bind.serves(called.address, called.port, called.protocol))
    });
    loads.map(|(number, _)| world.completed_by(number, server)).sum()
}

/// The record with what only the scenario and the outcome know.
fn completed(mut record: RunRecord, scenario: &Scenario, outcome: &Outcome) -> RunRecord {
    record.scenario.clone_from(&scenario.name);
    record.topology = Graph::from(scenario).collapsed();
    let judged = outcome.expectations.iter().map(|one| ExpectationRecord {
        metric: one.metric.clone(),
        wanted: one.wanted.clone(),
        found: one.found.as_ref().map(ToString::to_string),
        is_met: one.is_met,
    });
    record.expectations = judged.collect();
    record.seal();
    record
}
