//! The engine's state, and the calls that are not about packets: looking, commands, timers, polling.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use crate::check::check;
use crate::counters::Counters;
use crate::device::{BATCH_MAX, Device};
use crate::director::{Directors, Fault, Scheduler};
use crate::error::{CommandError, PlanError};
use crate::event::{EVENTS_MAX, Event};
use crate::flow::{Direction, FlowEntry, FlowId, FlowTable};
use crate::forward::Routes;
use crate::nat::{PoolKey, PortPools};
use crate::neighbour::Neighbours;
use crate::open::Opening;
use crate::plan::{Mode, Plan, PolicyPlan};
use crate::policy::Policy;
use crate::policy::rules::Rules;
use crate::reply::{AnswerLimit, Outbox};
use crate::status::{DirectorStatus, PolicyStatus};
use crate::time::Instant;
use crate::walk::Walk;

/// Flows that one call of [`Engine::handle_timeout`] takes out at most, so that the end of many flows at once
/// holds up no packet for more than a fraction of a millisecond. The rest is due in the next call.
const EXPIRIES_MAX: usize = 1024;

/// The guests that a plan names, made ready by a host.
#[derive(Debug, Default)]
pub struct Guests {
    /// Schedulers, under the name of their director.
    pub schedulers: BTreeMap<String, Box<dyn Scheduler>>,
    /// Policies, under their own name.
    pub policies: BTreeMap<String, Box<dyn Policy>>,
}

/// One link of the policy chain at work.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Native rules: cheap and without a state, so they are asked again about old flows after a change.
    Rules(Rules),
    /// A component.
    Guest(Box<dyn Policy>),
}

impl Stage {
    fn policy(&self) -> &dyn Policy {
        match self {
            Self::Rules(rules) => rules,
            Self::Guest(policy) => &**policy,
        }
    }

    pub(crate) fn policy_mut(&mut self) -> &mut dyn Policy {
        match self {
            Self::Rules(rules) => rules,
            Self::Guest(policy) => &mut **policy,
        }
    }
}

/// Packets in, verdicts out. See the [crate] for the order of calls.
#[derive(Debug)]
pub struct Engine {
    pub(crate) plan: Plan,
    pub(crate) generation: u32,
    pub(crate) now: Instant,
    pub(crate) counters: Counters,
    pub(crate) flows: FlowTable,
    pub(crate) directors: Directors,
    pub(crate) stages: Vec<Stage>,
    pub(crate) routes: Routes,
    pub(crate) neighbours: Neighbours,
    pub(crate) ports: PortPools,
    pub(crate) outbox: Outbox,
    pub(crate) answers: AnswerLimit,
    /// Nanoseconds that a flow lives without packets, by its state.
    pub(crate) lifetimes: [u64; 8],
    /// Whether the table has been full, and ports have run out, since a flow ended last.
    pub(crate) was_full: bool,
    pub(crate) was_exhausted: bool,
    /// Room for the walks of one batch.
    pub(crate) walks: Vec<Walk>,
    pub(crate) opening: Opening,
    events: VecDeque<Event>,
}

impl Engine {
    /// An engine that runs by `plan`, with the guests that it names.
    ///
    /// # Errors
    /// When the plan contradicts itself or lacks a guest.
    pub fn new(plan: Plan, guests: Guests, now: Instant) -> Result<Self, PlanError> {
        let mut engine = Self {
            generation: 0,
            now,
            counters: Counters::default(),
            flows: FlowTable::new(1, plan.hash_key),
            directors: Directors::default(),
            stages: Vec::new(),
            routes: Routes::default(),
            neighbours: Neighbours::default(),
            ports: PortPools::default(),
            outbox: Outbox::default(),
            answers: AnswerLimit::new(plan.limits.answers_per_second),
            lifetimes: [0; 8],
            was_full: false,
            was_exhausted: false,
            walks: vec![Walk::NONE; BATCH_MAX],
            opening: Opening::new(),
            events: VecDeque::new(),
            plan: Plan::empty(),
        };
        engine.apply(plan, guests, now)?;
        Ok(engine)
    }

    // Look.

    /// How many plans have been applied; the first is 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        u64::from(self.generation)
    }

    /// The plan in force.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What has been counted since the start.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Flows in the flow table.
    #[must_use]
    pub fn flow_count(&self) -> usize {
        self.flows.len()
    }

    /// Every flow, in the order of their places in the flow table.
    pub fn flows(&self) -> impl Iterator<Item = &FlowEntry> {
        self.flows.iter()
    }

    /// Ports that source NAT holds now.
    #[must_use]
    pub fn ports_held(&self) -> u64 {
        self.ports.held()
    }

    /// The directors of the plan, in its order.
    #[must_use]
    pub fn directors(&self) -> Vec<DirectorStatus> {
        self.directors.iter().map(DirectorStatus::from).collect()
    }

    /// The policies, in the order in which they are asked.
    #[must_use]
    pub fn policies(&self) -> Vec<PolicyStatus> {
        let status = |stage: &Stage| PolicyStatus {
            name: stage.policy().name().to_string(),
            guest: stage.policy().stats(),
        };
        self.stages.iter().map(status).collect()
    }

    // Handle. Batches are in `walk`.

    /// Takes out flows that are over at `now`, at most 1,024 in one call.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.tick(now);
        for _ in 0..EXPIRIES_MAX {
            let Some(entry) = self.flows.expire(now) else { break };
            self.farewell(&entry);
        }
    }

    // Commands.

    /// Replaces the plan. Flows go on where the new plan still permits them and still has their real server; the
    /// others end with their next packet.
    ///
    /// # Errors
    /// When the plan contradicts itself or lacks a guest; then nothing has changed.
    pub fn apply(&mut self, plan: Plan, mut guests: Guests, now: Instant) -> Result<(), PlanError> {
        check(&plan, &guests, |director| {
            let known = self.directors.named(&director.name);
            known.is_some_and(|known| *known.scheduler_plan() == director.scheduler)
        })?;
        let now = self.tick(now);
        self.directors.apply(&plan, &mut guests, now);
        self.stages = stages(&plan, guests);
        self.routes = Routes::new(&plan);
        if plan.interfaces != self.plan.interfaces {
            self.neighbours.clear();
        }
        self.answers = AnswerLimit::new(plan.limits.answers_per_second);
        self.set_lifetimes(&plan);
        if self.flows.flows_max() != plan.limits.flows_max as usize || self.flows.key() != plan.hash_key {
            self.rebuild_flows(&plan);
        }
        self.plan = plan;
        self.generation += 1;
        self.push_event(Event::PlanApplied { generation: u64::from(self.generation) });
        Ok(())
    }

    /// Changes the weight of a real server (0 to 65,535; 0 drains) until the next plan.
    ///
    /// # Errors
    /// When the director or server is not there, or the weight out of range.
    pub fn set_weight(
        &mut self,
        director: &str,
        server: &str,
        weight: u32,
        now: Instant,
    ) -> Result<(), CommandError> {
        if weight > 65_535 {
            return Err(CommandError::WeightOutOfRange { weight });
        }
        let now = self.tick(now);
        let Some(found) = self.directors.named_mut(director) else {
            return Err(CommandError::NoDirector { name: director.to_string() });
        };
        if found.set_weight(server, weight, now) {
            return Ok(());
        }
        Err(CommandError::NoServer { director: director.to_string(), name: server.to_string() })
    }

    // Poll.

    /// Gives the packets that were born here to `device`. Returns how many it took.
    pub fn transmit<D: Device>(&mut self, device: &mut D) -> usize {
        let mut sent = 0;
        for (interface, packet) in self.outbox.packets() {
            if device.send(interface, packet) {
                sent += 1;
                self.counters.born += 1;
            } else {
                self.counters.born_lost += 1;
            }
        }
        self.outbox.clear();
        sent
    }

    /// The oldest event that has not been fetched.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Engine::handle_timeout`] has something to do next, if ever.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.flows.next_expiry()
    }

    // Shared with the walk.

    /// The later of `now` and the latest time seen, so that a clock that steps back changes nothing.
    pub(crate) fn tick(&mut self, now: Instant) -> Instant {
        self.now = self.now.max(now);
        self.now
    }

    pub(crate) fn push_event(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        } else {
            self.counters.events_lost += 1;
        }
    }

    /// Turns a fault of a guest into an event.
    pub(crate) fn push_fault(&mut self, name: &str, fault: Option<Fault>) {
        if let Some(fault) = fault {
            self.push_event(Event::GuestFault { name: name.to_string(), fault });
        }
    }

    /// Ends a flow early.
    pub(crate) fn end_flow(&mut self, id: FlowId) {
        if let Some(entry) = self.flows.remove(id) {
            self.farewell(&entry);
        }
    }

    /// Settles what a flow that has left the table held: its load and its port.
    fn farewell(&mut self, entry: &FlowEntry) {
        self.counters.flows_closed += 1;
        self.was_full = false;
        self.was_exhausted = false;
        self.release_port(entry);
        let hash = entry.tuple(Direction::Original).hash(self.flows.key());
        if let Some(director) = self.directors.at_mut(entry.director) {
            director.close(entry.server_slot, entry.state, hash, self.now);
        }
        self.directors.release(entry.director);
    }

    /// Gives the port of a flow with source NAT back.
    pub(crate) fn release_port(&mut self, entry: &FlowEntry) {
        if entry.mapped != entry.client {
            self.ports.release(pool_key(entry), entry.mapped_port);
        }
    }

    fn set_lifetimes(&mut self, plan: &Plan) {
        use crate::flow::FlowState::{
            Closed, Established, FinClient, FinServer, SynReceived, SynSent, TimeWait, Udp,
        };
        let states = [Udp, SynSent, SynReceived, Established, FinClient, FinServer, TimeWait, Closed];
        for (place, state) in self.lifetimes.iter_mut().zip(states) {
            let nanoseconds = state.timeout(&plan.timeouts).as_nanos();
            *place = u64::try_from(nanoseconds).unwrap_or(u64::MAX);
        }
    }

    /// Moves the flows to a table of another size or key. Those beyond a smaller bound end.
    fn rebuild_flows(&mut self, plan: &Plan) {
        let old = core::mem::replace(&mut self.flows, FlowTable::new(plan.limits.flows_max, plan.hash_key));
        for entry in old.iter() {
            let hash = entry.tuple(Direction::Original).hash(plan.hash_key);
            if self.flows.insert(entry.clone(), hash).is_err() {
                self.farewell(entry);
            }
        }
    }
}

/// The ports among which a flow's was chosen.
pub(crate) const fn pool_key(entry: &FlowEntry) -> PoolKey {
    PoolKey {
        mapped: entry.mapped,
        server: entry.server,
        server_port: entry.server_port,
        protocol: entry.protocol,
    }
}

/// The policy chain of a plan. The guests have been checked to be there.
fn stages(plan: &Plan, mut guests: Guests) -> Vec<Stage> {
    let stage = |policy: &PolicyPlan| match policy {
        PolicyPlan::Rules(flows) => Some(Stage::Rules(Rules::new(flows.clone()))),
        PolicyPlan::Guest { name, .. } => guests.policies.remove(name).map(Stage::Guest),
    };
    plan.policies.iter().filter_map(stage).collect()
}

/// The address and ports of source NAT, for directors that use it.
pub(crate) const fn source_nat(mode: &Mode) -> Option<&crate::plan::SourceNat> {
    match mode {
        Mode::Nat { source } => source.as_ref(),
    }
}
