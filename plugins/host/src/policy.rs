//! A component as a [`Policy`].
//!
//! Gets the engine's questions; gives verdicts that were checked. Where the guest does not answer, answers
//! wrongly or may not be called, the flow gets what the configuration says under `on_fault`, in the same call.

use evenkeel_engine::Instant;
use evenkeel_engine::director::{Fault, GuestStats};
use evenkeel_engine::policy::{Policy, PolicyFlow, PolicyVerdict};
use evenkeel_engine::wire::FiveTuple;
use wasmtime::Store;

use crate::contract::{
    Arrival, Flow, Policy as PolicyWorld, PolicySetup, VERDICT_DENY, VERDICT_PERMIT, VERDICT_SKIP,
};
use crate::engine::Data;
use crate::sandbox::{Effort, Sandbox, Terms};

/// A component that permits and denies.
#[derive(Debug)]
pub(crate) struct ComponentPolicy {
    name: String,
    sandbox: Sandbox<PolicyWorld>,
    setup: PolicySetup,
    directors: u16,
    on_fault: PolicyVerdict,
    arrivals: Vec<Arrival>,
}

impl ComponentPolicy {
    /// Configures the guest once, so that the operator hears of bad options before anything is forwarded.
    pub(crate) fn new(
        terms: Terms<PolicyWorld>,
        setup: PolicySetup,
        permit_on_fault: bool,
    ) -> Result<Self, String> {
        let on_fault = if permit_on_fault { PolicyVerdict::Permit } else { PolicyVerdict::Deny };
        let directors = u16::try_from(setup.directors.len()).unwrap_or(u16::MAX);
        let (name, sandbox) = (setup.common.name.clone(), Sandbox::new(terms));
        let mut policy = Self { name, sandbox, setup, directors, on_fault, arrivals: Vec::new() };
        let begun = policy.begin(Instant::ZERO);
        policy.sandbox.end_trial().map_or_else(|| begun.ok_or_else(String::new), Err)?;
        Ok(policy)
    }

    fn begin(&mut self, now: Instant) -> Option<()> {
        self.setup.common.now = now.as_nanos();
        let setup = &self.setup;
        self.sandbox.begin(now, |world: &PolicyWorld, store: &mut Store<Data>| {
            world.evenkeel_plugin_decide().call_configure(store, setup)
        })
    }

    /// Asks the guest; `None` when there is no answer.
    fn ask(&mut self, flows: &[PolicyFlow], verdicts: &mut [PolicyVerdict], now: Instant) -> Option<()> {
        if !self.sandbox.may_call(now) {
            return None;
        }
        if !self.sandbox.is_live() {
            self.begin(now)?;
        }
        let time = now.as_nanos();
        if let [flow] = flows {
            let answer = self.sandbox.call("decide-one", Effort::Call, now, |world, store| {
                world.evenkeel_plugin_decide().call_decide_one(store, arrival(flow), time)
            })?;
            self.take_answers(&[answer], verdicts, now);
            return Some(());
        }
        self.arrivals.clear();
        self.arrivals.extend(flows.iter().map(arrival));
        let arrivals = &self.arrivals;
        let answers = self.sandbox.call("decide", Effort::Call, now, |world, store| {
            world.evenkeel_plugin_decide().call_decide(store, arrivals, time)
        })?;
        if answers.len() != flows.len() {
            let reason = format!("it answered {} of {} flows", answers.len(), flows.len());
            self.sandbox.refuse("decide", reason, Effort::Call, now);
            return None;
        }
        self.take_answers(&answers, verdicts, now);
        Some(())
    }

    fn take_answers(&mut self, answers: &[u32], verdicts: &mut [PolicyVerdict], now: Instant) {
        let mut refused = None;
        for (answer, verdict) in answers.iter().zip(verdicts) {
            let stats = self.sandbox.stats_mut();
            if let Some(decided) = read(*answer, self.directors) {
                *verdict = decided;
                stats.decided += 1;
            } else {
                *verdict = self.on_fault;
                stats.fallbacks += 1;
                refused = refused.or(Some(*answer));
            }
        }
        match refused {
            None => self.sandbox.succeeded(now),
            Some(answer) => {
                let directors = self.directors;
                let reason = format!("it chose director {answer}, and there are {directors}, counted from 0");
                self.sandbox.refuse("decide", reason, Effort::Call, now);
            }
        }
    }
}

/// The verdict that a number stands for.
fn read(answer: u32, directors: u16) -> Option<PolicyVerdict> {
    match answer {
        VERDICT_SKIP => Some(PolicyVerdict::Skip),
        VERDICT_PERMIT => Some(PolicyVerdict::Permit),
        VERDICT_DENY => Some(PolicyVerdict::Deny),
        index => u16::try_from(index).ok().filter(|index| *index < directors).map(PolicyVerdict::Director),
    }
}

fn arrival(asking: &PolicyFlow) -> Arrival {
    let FiveTuple { source, destination, source_port, destination_port, protocol } = asking.tuple;
    let ([source_high, source_low], [destination_high, destination_low]) =
        (source.halves(), destination.halves());
    let flow = Flow {
        hash: asking.hash,
        source_high,
        source_low,
        destination_high,
        destination_low,
        source_port,
        destination_port,
        protocol: protocol.0,
    };
    Arrival { flow, interface: u32::from(asking.interface.0) }
}

impl Policy for ComponentPolicy {
    fn name(&self) -> &str {
        &self.name
    }

    fn decide(&mut self, flows: &[PolicyFlow], verdicts: &mut [PolicyVerdict], now: Instant) {
        if flows.is_empty() || flows.len() != verdicts.len() {
            return;
        }
        if self.ask(flows, verdicts, now).is_none() {
            verdicts.fill(self.on_fault);
            self.sandbox.stats_mut().fallbacks += u64::try_from(flows.len()).unwrap_or(u64::MAX);
        }
    }

    fn stats(&self) -> GuestStats {
        self.sandbox.stats()
    }

    fn take_fault(&mut self) -> Option<Fault> {
        self.sandbox.take_fault()
    }
}
