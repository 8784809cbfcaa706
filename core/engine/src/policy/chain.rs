//! The policies of a plan in their order: native rules and guests, one behind the other, until one does not skip.
//!
//! A batch of new flows comes in; for each one a verdict goes out, and which of the guests that judge packets it has met.
//! Later packets of an open flow come in with that; they are denied or go on. A guest is asked at most once for a batch,
//! about all flows that nobody before it has decided and that its gate lets through. What it answers within a limit is
//! metered here, so that no guest needs a clock.
//!
//! ```text
//! flow -> rules -> gate? guest meter -> rules -> default
//!                         ^
//! packet of an open flow -+ where the guest judges packets and the flow has met it
//! ```

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use super::limits::Meter;
use super::rules::{RuleCount, Rules};
use super::{Policy, PolicyAnswer, PolicyFlow, PolicyVerdict};
use crate::director::Fault;
use crate::engine::Guests;
use crate::plan::{FlowPlan, Plan, PolicyGuestPlan, PolicyPlan};
use crate::status::PolicyStatus;
use crate::time::Instant;
use crate::wire::{FiveTuple, HashKey};

/// The most guests of a plan that judge packets: a flow remembers by one bit for each whether it has met them.
pub const PACKET_GUESTS_MAX: usize = 2;

/// What the links of native rules are called.
pub const RULES: &str = "flows";

/// The policies of a plan at work.
#[derive(Debug, Default)]
pub struct Chain {
    stages: Vec<Stage>,
    /// The bits of all guests that judge packets.
    judges: u8,
    /// Whether it is asked about packets as they leave.
    is_about_leaving: bool,
    /// What the last call has decided.
    decided: Vec<Decided>,
    room: Room,
}

/// One link of the chain.
#[derive(Debug)]
pub enum Stage {
    /// Native rules. They are asked again about old flows after a change.
    Rules(Box<Rules>),
    /// A component.
    Guest(Box<Guest>),
}

/// A guest with what the engine does for it.
#[derive(Debug)]
pub struct Guest {
    name: String,
    policy: Box<dyn Policy>,
    /// The rules that say which flows it is asked about; without them, all.
    gate: Option<Rules>,
    meters: Vec<Meter>,
    /// Its bit among those that judge packets; 0 when it judges flows.
    bit: u8,
    denied: u64,
    limited: u64,
    /// Nobody can be asked in its place, in an engine that only explains.
    is_absent: bool,
}

/// A policy that decides nothing.
#[derive(Debug)]
struct Absent(String);

impl Policy for Absent {
    fn name(&self) -> &str {
        &self.0
    }

    fn decide(&mut self, _flows: &[PolicyFlow], _answers: &mut [PolicyAnswer], _now: Instant) {}
}

/// A policy that answers again what another one has answered, and else nothing.
#[derive(Clone, Debug)]
struct Told {
    name: String,
    answers: Vec<(FiveTuple, PolicyVerdict)>,
}

impl Policy for Told {
    fn name(&self) -> &str {
        &self.name
    }

    fn decide(&mut self, flows: &[PolicyFlow], answers: &mut [PolicyAnswer], _now: Instant) {
        for (flow, answer) in flows.iter().zip(answers) {
            let told = self.answers.iter().find(|(tuple, _)| *tuple == flow.tuple);
            *answer = told.map_or(PolicyAnswer::SKIP, |(_, verdict)| (*verdict).into());
        }
    }

    fn fork(&self) -> Option<Box<dyn Policy>> {
        Some(Box::new(self.clone()))
    }
}

/// What the chain says of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// `Skip` where nobody has decided: then the plan's default does.
    pub verdict: PolicyVerdict,
    /// The bits of the guests that judge packets and have been asked about the flow.
    pub met: u8,
}

impl Decided {
    const NOT: Self = Self { verdict: PolicyVerdict::Skip, met: 0 };
}

/// What the rules in force say of a flow that is open. Guests are not asked again: what they count would count twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Review {
    /// What the rules come to, `Skip` for the default; nothing where a guest or a condition has decided that can not be
    /// looked at again.
    pub verdict: Option<PolicyVerdict>,
    /// As [`Decided::met`], guests taken to skip.
    pub met: u8,
}

/// Room for the questions to one guest, kept between calls.
#[derive(Debug, Default)]
struct Room {
    places: Vec<usize>,
    asking: Vec<PolicyFlow>,
    answers: Vec<PolicyAnswer>,
}

impl Chain {
    /// The chain about packets that come in, of a plan whose guests have been checked to be there. What has been counted
    /// under the same names goes over from `old`.
    #[must_use]
    pub fn new(plan: &Plan, guests: &mut Guests, old: Self) -> Self {
        Self::of(&plan.policies, plan.hash_key, guests, old)
    }

    /// The guests about packets that leave, which judge no packets.
    pub(crate) fn of_outflows(plan: &Plan, guests: &mut Guests, old: Self) -> Self {
        let quiet = |guest: &PolicyGuestPlan| PolicyGuestPlan { packets: Some(false), ..guest.clone() };
        let policies: Vec<_> = plan.outflow_guests.iter().map(quiet).map(PolicyPlan::Guest).collect();
        Self { is_about_leaving: true, ..Self::of(&policies, plan.hash_key, guests, old) }
    }

    fn of(policies: &[PolicyPlan], key: HashKey, guests: &mut Guests, old: Self) -> Self {
        let (mut rules_before, mut guests_before) = (Vec::new(), Vec::new());
        for stage in old.stages {
            match stage {
                Stage::Rules(rules) => rules_before.push(*rules),
                Stage::Guest(guest) => guests_before.push(*guest),
            }
        }
        let mut rules_before = rules_before.into_iter();
        let mut chain = Self { decided: old.decided, room: old.room, ..Self::default() };
        for policy in policies {
            match policy {
                PolicyPlan::Rules(flows) => {
                    let rules = compiled(flows.clone(), key, rules_before.next());
                    chain.stages.push(Stage::Rules(Box::new(rules)));
                }
                PolicyPlan::Guest(guest) => {
                    let Some(policy) = guests.policies.remove(&guest.name) else { continue };
                    let before = guests_before.iter().position(|before| before.name == guest.name);
                    let before = before.map(|place| guests_before.swap_remove(place));
                    let bit = chain.judges.wrapping_add(1);
                    let guest = Guest::new(guest, policy, bit, key, before);
                    chain.judges |= guest.bit;
                    chain.stages.push(Stage::Guest(Box::new(guest)));
                }
            }
        }
        chain
    }

    /// Whether there is no policy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stages.is_empty()
    }

    /// Whether it is asked about packets as they leave, and not as they come in.
    pub(crate) const fn is_about_leaving(&self) -> bool {
        self.is_about_leaving
    }

    /// Whether any guest judges packets.
    #[must_use]
    #[inline]
    pub fn judges_packets(&self) -> bool {
        self.judges != 0
    }

    /// Decides about new flows, in order. Each is asked about from the first policy on until one does not skip.
    pub fn decide(&mut self, flows: &[PolicyFlow], now: Instant) -> &[Decided] {
        self.begin(flows.len());
        for number in 0..self.stages.len() {
            self.step(number, flows, now);
        }
        &self.decided
    }

    /// Begins to decide about so many new flows.
    pub(crate) fn begin(&mut self, count: usize) {
        self.decided.clear();
        self.decided.resize(count, Decided::NOT);
    }

    /// Asks one link about those of `flows` that none before it has decided.
    pub(crate) fn step(&mut self, number: usize, flows: &[PolicyFlow], now: Instant) {
        let Self { stages, decided, room, .. } = self;
        match stages.get_mut(number) {
            None => {}
            Some(Stage::Rules(rules)) => {
                for (flow, decided) in flows.iter().zip(&mut *decided) {
                    if decided.verdict == PolicyVerdict::Skip {
                        let found = rules.decide_one(flow, now);
                        decided.verdict = found.map_or(PolicyVerdict::Skip, |(verdict, _)| verdict);
                    }
                }
            }
            Some(Stage::Guest(guest)) => {
                let open = |decided: &Decided| decided.verdict == PolicyVerdict::Skip;
                room.gather(flows, decided, |flow, decided| open(decided) && guest.lets_in(flow, now));
                let bit = guest.bit;
                for (place, answer) in room.ask(guest, now) {
                    let Some(decided) = decided.get_mut(place) else { continue };
                    *decided = Decided { verdict: answer.verdict, met: decided.met | bit };
                }
            }
        }
    }

    /// What has been decided about the flows or packets of the last call.
    pub(crate) fn decided(&self) -> &[Decided] {
        &self.decided
    }

    /// The places of those that the guest which was asked last was asked about.
    pub(crate) fn asked(&self) -> &[usize] {
        &self.room.places
    }

    /// Asks the guests that judge packets about packets of open flows, each of which has met those in `met`. Their verdict
    /// is `Deny`, or `Skip` for whatever lets a packet go on.
    pub fn judge(
        &mut self,
        packets: &[PolicyFlow],
        met: impl Iterator<Item = u8>,
        now: Instant,
    ) -> &[Decided] {
        self.begin_judging(met);
        for number in 0..self.stages.len() {
            self.judge_step(number, packets, now);
        }
        &self.decided
    }

    /// Begins to judge packets whose flows have met those in `met`.
    pub(crate) fn begin_judging(&mut self, met: impl Iterator<Item = u8>) {
        self.decided.clear();
        self.decided.extend(met.map(|met| Decided { met, ..Decided::NOT }));
    }

    /// Asks one link about those of `packets` that go on; whether it is one that is asked.
    pub(crate) fn judge_step(&mut self, number: usize, packets: &[PolicyFlow], now: Instant) -> bool {
        let Self { stages, decided, room, .. } = self;
        let Some(Stage::Guest(guest)) = stages.get_mut(number) else { return false };
        room.gather(packets, decided, |_, decided| {
            decided.verdict == PolicyVerdict::Skip && decided.met & guest.bit != 0
        });
        for (place, answer) in room.ask(guest, now) {
            if let Some(decided) = decided.get_mut(place)
                && answer.verdict == PolicyVerdict::Deny
            {
                decided.verdict = PolicyVerdict::Deny;
            }
        }
        true
    }

    /// Another chain in the same state; guests only where they are `known` to be asked and there can be another, else
    /// one in their place that says nothing and is marked as absent.
    pub(crate) fn fork(&self, known: &BTreeSet<usize>) -> Self {
        let fork = |(number, stage): (usize, &Stage)| match stage {
            Stage::Rules(rules) => Stage::Rules(rules.clone()),
            Stage::Guest(guest) => Stage::Guest(Box::new(guest.fork(known.contains(&number)))),
        };
        let stages = self.stages.iter().enumerate().map(fork).collect();
        let Self { judges, is_about_leaving, .. } = *self;
        Self { stages, judges, is_about_leaving, ..Self::default() }
    }

    /// Has the guest at `number` answer so from now on, under the same name; no such guest, nothing. The answers hold
    /// whatever its limits say.
    pub(crate) fn fix(&mut self, number: usize, answers: Vec<(FiveTuple, PolicyVerdict)>) {
        if let Some(Stage::Guest(guest)) = self.stages.get_mut(number) {
            let name = guest.name.clone();
            (guest.policy, guest.is_absent) = (Box::new(Told { name, answers }), false);
        }
    }

    /// What the rules in force say of an open flow. Counts nothing.
    #[must_use]
    pub fn review(&self, flow: &PolicyFlow) -> Review {
        let mut review = Review { verdict: Some(PolicyVerdict::Skip), met: 0 };
        for stage in &self.stages {
            match stage {
                Stage::Rules(rules) => match rules.evaluate(flow) {
                    Some(PolicyVerdict::Skip) => {}
                    None => review.verdict = None,
                    found => return Review { verdict: review.verdict.and(found), ..review },
                },
                Stage::Guest(guest) => {
                    let gate =
                        guest.gate.as_ref().map_or(Some(PolicyVerdict::Permit), |it| it.evaluate(flow));
                    if gate != Some(PolicyVerdict::Skip) {
                        review = Review { verdict: None, met: review.met | guest.bit };
                    }
                }
            }
        }
        review
    }

    /// The limits that have counted whom `flow` counts for: the link, the place among its limits, and when what was taken
    /// is used up.
    pub(crate) fn counted(&self, flow: &PolicyFlow) -> Vec<(usize, usize, u64)> {
        let mut counted = Vec::new();
        for (number, stage) in self.stages.iter().enumerate() {
            let all = stage.meters().enumerate();
            counted.extend(all.filter_map(|(place, meter)| Some((number, place, meter.used_up(flow)?))));
        }
        counted
    }

    /// Sets what one limit has counted for whom `flow` counts for; no such limit, nothing.
    pub(crate) fn set_counted(&mut self, (number, place): (usize, usize), flow: &PolicyFlow, used_up: u64) {
        let stage = self.stages.get_mut(number);
        if let Some(meter) = stage.and_then(|stage| stage.meters_mut().nth(place)) {
            meter.set_used_up(flow, used_up);
        }
    }

    /// The last fault of a guest that has not been fetched, with the guest's name.
    pub fn poll_fault(&mut self) -> Option<(String, Fault)> {
        self.stages.iter_mut().find_map(|stage| match stage {
            Stage::Rules(_) => None,
            Stage::Guest(guest) => guest.policy.take_fault().map(|fault| (guest.name.clone(), fault)),
        })
    }

    /// The links, in order.
    #[must_use]
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// How the links have done, in order.
    pub fn status(&self) -> impl Iterator<Item = PolicyStatus> {
        self.stages.iter().map(|stage| match stage {
            Stage::Rules(_) => PolicyStatus { name: String::from(RULES), ..PolicyStatus::default() },
            Stage::Guest(guest) => PolicyStatus {
                name: guest.name.clone(),
                guest: guest.policy.stats(),
                judges_packets: guest.bit != 0,
                denied: guest.denied,
                limited: guest.limited,
            },
        })
    }

    /// How often each native rule has decided, those of gates among them, in order.
    pub fn rule_counts(&self) -> impl Iterator<Item = RuleCount<'_>> {
        self.stages.iter().filter_map(Stage::rules).flat_map(Rules::counts)
    }
}

impl Stage {
    /// Its rules: its own, or those of its gate.
    #[must_use]
    pub fn rules(&self) -> Option<&Rules> {
        match self {
            Self::Rules(rules) => Some(rules),
            Self::Guest(guest) => guest.gate.as_ref(),
        }
    }

    /// What it counts by limits: rules, those of a gate among them, before the guest's own.
    fn meters(&self) -> impl Iterator<Item = &Meter> {
        let own = if let Self::Guest(guest) = self { &*guest.meters } else { &[][..] };
        self.rules().into_iter().flat_map(Rules::meters).chain(own)
    }

    /// The same, to change it.
    fn meters_mut(&mut self) -> impl Iterator<Item = &mut Meter> {
        let (rules, own) = match self {
            Self::Rules(rules) => (Some(&mut **rules), &mut [][..]),
            Self::Guest(guest) => (guest.gate.as_mut(), &mut *guest.meters),
        };
        rules.into_iter().flat_map(Rules::meters_mut).chain(own)
    }
}

impl Guest {
    /// `bit` is its own if it judges packets.
    fn new(
        plan: &PolicyGuestPlan,
        policy: Box<dyn Policy>,
        bit: u8,
        key: HashKey,
        before: Option<Self>,
    ) -> Self {
        let wishes = policy.wishes();
        let meters: Vec<Meter> = wishes.limits.into_iter().map(|limit| Meter::new(limit, key)).collect();
        let judges = plan.packets.unwrap_or(wishes.packets);
        let (mut gate_before, mut meters_before) = (None, Vec::new());
        let (mut denied, mut limited) = (0, 0);
        if let Some(before) = before {
            (gate_before, meters_before) = (before.gate, before.meters);
            (denied, limited) = (before.denied, before.limited);
        }
        let are_same = meters.len() == meters_before.len()
            && meters.iter().zip(&meters_before).all(|(one, other)| one.is_like(other));
        Self {
            name: plan.name.clone(),
            policy,
            gate: plan.gate.as_ref().map(|gate| compiled(Vec::from([gate.clone()]), key, gate_before)),
            meters: if are_same { meters_before } else { meters },
            bit: if judges { bit } else { 0 },
            denied,
            limited,
            is_absent: false,
        }
    }

    /// Another one in the same state, absent where there can be none or none is wanted.
    fn fork(&self, is_wanted: bool) -> Self {
        let other = if is_wanted { self.policy.fork() } else { None };
        Self {
            name: self.name.clone(),
            is_absent: other.is_none(),
            policy: other.unwrap_or_else(|| Box::new(Absent(self.name.clone()))),
            gate: self.gate.clone(),
            meters: self.meters.clone(),
            bit: self.bit,
            denied: self.denied,
            limited: self.limited,
        }
    }

    /// Whether nobody can be asked in its place, in an engine that only explains.
    pub(crate) const fn is_absent(&self) -> bool {
        self.is_absent
    }

    /// The name that users know.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The rules that say which flows it is asked about; without them, all.
    #[must_use]
    pub const fn gate(&self) -> Option<&Rules> {
        self.gate.as_ref()
    }

    /// Whether it is asked about `flow`.
    fn lets_in(&mut self, flow: &PolicyFlow, now: Instant) -> bool {
        self.gate.as_mut().is_none_or(|gate| gate.decide_one(flow, now).is_some())
    }

    /// Holds an answer to its limit, and counts it.
    fn settle(&mut self, flow: &PolicyFlow, answer: &mut PolicyAnswer, now: Instant) {
        let meter = answer.limit.and_then(|limit| self.meters.get_mut(usize::from(limit)));
        if answer.verdict != PolicyVerdict::Deny
            && let Some(meter) = meter
            && !meter.take(flow, now)
        {
            answer.verdict = PolicyVerdict::Deny;
            self.limited += 1;
        }
        self.denied += u64::from(answer.verdict == PolicyVerdict::Deny);
    }
}

impl Room {
    /// Notes those of `flows` that are asked about.
    fn gather(
        &mut self,
        flows: &[PolicyFlow],
        decided: &[Decided],
        mut is_asked: impl FnMut(&PolicyFlow, &Decided) -> bool,
    ) {
        self.places.clear();
        self.asking.clear();
        for (place, (flow, decided)) in flows.iter().zip(decided).enumerate() {
            if is_asked(flow, decided) {
                self.places.push(place);
                self.asking.push(*flow);
            }
        }
    }

    /// Asks the guest about them; gives the place and the answer of each.
    fn ask(&mut self, guest: &mut Guest, now: Instant) -> impl Iterator<Item = (usize, PolicyAnswer)> {
        self.answers.clear();
        self.answers.resize(self.asking.len(), PolicyAnswer::SKIP);
        if !self.asking.is_empty() {
            guest.policy.decide(&self.asking, &mut self.answers, now);
        }
        for (flow, answer) in self.asking.iter().zip(&mut self.answers) {
            guest.settle(flow, answer, now);
        }
        self.places.iter().copied().zip(self.answers.iter().copied())
    }
}

/// Compiled rules; the old ones where nothing has changed.
pub(crate) fn compiled(flows: Vec<FlowPlan>, key: HashKey, old: Option<Rules>) -> Rules {
    match old {
        Some(old) if old.is_of(&flows, key) => old,
        Some(old) => {
            let mut rules = Rules::new(flows, key);
            rules.inherit(&old);
            rules
        }
        None => Rules::new(flows, key),
    }
}
