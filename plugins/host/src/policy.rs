//! A component as a [`Policy`].
//!
//! Gets the engine's questions; gives verdicts that were checked. Where the guest does not answer, answers
//! wrongly or may not be called, the flow gets what the configuration says under `on_fault`, in the same call.

use evenkeel_engine::director::{Fault, GuestStats};
use evenkeel_engine::plan::{Limit, LimitKey, OnFault};
use evenkeel_engine::policy::{
    GUEST_LIMITS_MAX, Moment, Policy, PolicyAnswer, PolicyFlow, PolicyVerdict, PolicyWishes,
};
use evenkeel_engine::wire::FiveTuple;
use evenkeel_engine::{Duration, Instant};
use wasmtime::Store;

use crate::contract::{
    Answer, Arrival, Flow, LimitKeyWish, LimitWish, MomentOf, NO_LIMIT, Policy as PolicyWorld, PolicySetup,
    PolicyWish, VERDICT_DENY, VERDICT_PERMIT, VERDICT_SKIP, VERDICT_TABLES,
};
use crate::engine::Data;
use crate::sandbox::{Effort, Sandbox, Terms};

/// A component that permits and denies.
#[derive(Debug)]
pub(crate) struct ComponentPolicy {
    name: String,
    sandbox: Sandbox<PolicyWorld>,
    setup: PolicySetup,
    bounds: Bounds,
    wishes: PolicyWishes,
    on_fault: PolicyAnswer,
    arrivals: Vec<Arrival>,
}

/// What an answer may name.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    directors: u16,
    tables: u16,
    limits: u16,
}

impl ComponentPolicy {
    /// Configures the guest once, so that the operator hears of bad options before anything is forwarded.
    pub(crate) fn new(
        terms: Terms<PolicyWorld>,
        setup: PolicySetup,
        on_fault: OnFault,
    ) -> Result<Self, String> {
        let on_fault = match on_fault {
            OnFault::Permit => PolicyVerdict::Permit,
            OnFault::Deny => PolicyVerdict::Deny,
            OnFault::Native => PolicyVerdict::Skip,
        };
        let count = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
        let bounds =
            Bounds { directors: count(setup.directors.len()), tables: count(setup.tables.len()), limits: 0 };
        let (name, sandbox) = (setup.common.name.clone(), Sandbox::new(terms));
        let (wishes, on_fault) = (PolicyWishes::default(), PolicyAnswer::from(on_fault));
        let mut policy = Self { name, sandbox, setup, bounds, wishes, on_fault, arrivals: Vec::new() };
        let begun = policy.begin(Instant::ZERO);
        let wish = policy.sandbox.end_trial().map_or_else(|| begun.ok_or_else(String::new), Err)?;
        policy.wishes = read_wishes(&wish)?;
        policy.bounds.limits = count(policy.wishes.limits.len());
        Ok(policy)
    }

    fn begin(&mut self, now: Instant) -> Option<PolicyWish> {
        self.setup.common.now = now.as_nanos();
        let setup = &self.setup;
        self.sandbox.begin(now, |world: &PolicyWorld, store: &mut Store<Data>| {
            world.evenkeel_plugin_decide().call_configure(store, setup)
        })
    }

    /// Asks the guest; `None` when there is no answer.
    fn ask(&mut self, flows: &[PolicyFlow], answers: &mut [PolicyAnswer], now: Instant) -> Option<()> {
        if !self.sandbox.may_call(now) {
            return None;
        }
        if !self.sandbox.is_live() {
            // What it wishes was settled when it was configured first.
            self.begin(now)?;
        }
        let time = now.as_nanos();
        if let [flow] = flows {
            let given = self.sandbox.call("decide-one", Effort::Call, now, |world, store| {
                world.evenkeel_plugin_decide().call_decide_one(store, arrival(flow), time)
            })?;
            self.take_answers(&[given], answers, now);
            return Some(());
        }
        self.arrivals.clear();
        self.arrivals.extend(flows.iter().map(arrival));
        let arrivals = &self.arrivals;
        let given = self.sandbox.call("decide", Effort::Call, now, |world, store| {
            world.evenkeel_plugin_decide().call_decide(store, arrivals, time)
        })?;
        if given.len() != flows.len() {
            let reason = format!("it answered {} of {} flows", given.len(), flows.len());
            self.sandbox.refuse("decide", reason, Effort::Call, now);
            return None;
        }
        self.take_answers(&given, answers, now);
        Some(())
    }

    fn take_answers(&mut self, given: &[Answer], answers: &mut [PolicyAnswer], now: Instant) {
        let mut refused = None;
        for (given, answer) in given.iter().zip(answers) {
            let stats = self.sandbox.stats_mut();
            match self.bounds.read(given) {
                Ok(read) => {
                    *answer = read;
                    stats.decided += 1;
                }
                Err(reason) => {
                    *answer = self.on_fault;
                    stats.fallbacks += 1;
                    refused = refused.or(Some(reason));
                }
            }
        }
        match refused {
            None => self.sandbox.succeeded(now),
            Some(reason) => self.sandbox.refuse("decide", reason, Effort::Call, now),
        }
    }
}

impl Bounds {
    /// What an answer means, or what is wrong with it.
    fn read(self, answer: &Answer) -> Result<PolicyAnswer, String> {
        let index = |number: u32, count: u16| u16::try_from(number).ok().filter(|index| *index < count);
        let verdict = match answer.verdict {
            VERDICT_SKIP => PolicyVerdict::Skip,
            VERDICT_PERMIT => PolicyVerdict::Permit,
            VERDICT_DENY => PolicyVerdict::Deny,
            number if number < VERDICT_TABLES => {
                let there = self.directors;
                let missing = || format!("it chose director {number}, and there are {there}, counted from 0");
                index(number, there).map(PolicyVerdict::Director).ok_or_else(missing)?
            }
            number => {
                let (there, number) = (self.tables, number - VERDICT_TABLES);
                let missing =
                    || format!("it chose routing table {number}, and there are {there}, counted from 0");
                index(number, there).map(PolicyVerdict::Table).ok_or_else(missing)?
            }
        };
        let limit = match answer.limit {
            NO_LIMIT => None,
            number => {
                let there = self.limits;
                let missing = || format!("it named limit {number}, and it wished {there}, counted from 0");
                Some(index(number, there).ok_or_else(missing)?)
            }
        };
        Ok(PolicyAnswer { verdict, limit })
    }
}

/// What a guest wishes, or what is wrong with it.
fn read_wishes(wish: &PolicyWish) -> Result<PolicyWishes, String> {
    if wish.limits.len() > GUEST_LIMITS_MAX {
        return Err(format!("it wishes {} limits, and {GUEST_LIMITS_MAX} are allowed", wish.limits.len()));
    }
    let limits: Vec<Limit> = wish.limits.iter().map(read_limit).collect();
    for (number, limit) in limits.iter().enumerate() {
        let refused = |error| format!("its wishes can not be: {error}");
        limit.check(&format!("limit number {number},")).map_err(refused)?;
    }
    Ok(PolicyWishes { packets: wish.packets, limits })
}

const fn read_limit(wish: &LimitWish) -> Limit {
    let lengths = (wish.length_v4, wish.length_v6);
    let key = match wish.key {
        LimitKeyWish::All => LimitKey::All,
        LimitKeyWish::Source => LimitKey::Source(lengths.0, lengths.1),
        LimitKeyWish::Destination => LimitKey::Destination(lengths.0, lengths.1),
    };
    Limit { count: wish.count, period: Duration::from_nanos(wish.period), burst: wish.burst, key }
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
    let moment = match asking.moment {
        Moment::First => MomentOf::First,
        Moment::FromClient => MomentOf::FromClient,
        Moment::FromServer => MomentOf::FromServer,
    };
    Arrival {
        flow,
        interface: u32::from(asking.interface.0),
        icmp_kind: asking.icmp_kind,
        tcp_flags: asking.flags.0,
        dscp: asking.dscp.unwrap_or(0),
        moment,
        length: asking.length,
    }
}

impl Policy for ComponentPolicy {
    fn name(&self) -> &str {
        &self.name
    }

    fn decide(&mut self, flows: &[PolicyFlow], answers: &mut [PolicyAnswer], now: Instant) {
        if flows.is_empty() || flows.len() != answers.len() {
            return;
        }
        if self.ask(flows, answers, now).is_none() {
            answers.fill(self.on_fault);
            self.sandbox.stats_mut().fallbacks += u64::try_from(flows.len()).unwrap_or(u64::MAX);
        }
    }

    fn wishes(&self) -> PolicyWishes {
        self.wishes.clone()
    }

    fn stats(&self) -> GuestStats {
        self.sandbox.stats()
    }

    fn take_fault(&mut self) -> Option<Fault> {
        self.sandbox.take_fault()
    }
}
