//! The world of one run: machines on a net, loads that open flows, a timeline, and the loop that lets time pass.
//!
//! In: a scenario, a seed and a plan with its guests for each forwarder. Out: an [`Outcome`]. The same input
//! gives the same outcome on every machine and in every build. It reads no file and no clock.
//!
//! * [`build`] from the scenario to machines and cables; [`bridges`] no loop among them
//! * [`setting`] what its network stack is told
//! * [`machine`] one machine: its kernel and what runs on it
//! * [`load`] who opens flows when
//! * [`timeline`] what happens besides

mod bridges;
mod build;
mod load;
mod machine;
mod probing;
mod setting;
mod telling;
mod timeline;

use std::collections::BTreeMap;
use std::net::IpAddr;

use evenkeel_engine::plan::Plan;
use evenkeel_engine::{Duration, Guests, Instant, PlanError};

use crate::checker::{History, Witness};
use crate::flow_mode::{self, SetupError};
use crate::forwarder::ForwarderNode;
use crate::host::{Answer, Cause, Ending, Host};
use crate::kernel::KernelError;
use crate::net::{Event, Net, Next, Plug, index};
use crate::packet::Packet;
use crate::prepare::Supply;
use crate::random::Stream;
use crate::report::{LoadCounts, Outcome};
use crate::scenario::{Extent, Mode, Scenario, Service, Turn};
use crate::watch::{self, Watch};
use crate::work::{AgentModel, LawError};
use load::LoadState;
pub use machine::KernelCounts;
use machine::{Machine, Role};
pub(crate) use probing::Flying;
pub(crate) use setting::station;
use telling::{Absences, Identities, Telling};
use timeline::Undoing;

/// Which queue orders events. Both give the same run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Queue {
    /// The fast one.
    #[default]
    Wheel,
    /// The plain reference.
    Heap,
}

/// A fault that is put into the forwarders on purpose, to see whether it is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Planted {
    /// None.
    #[default]
    Nothing,
    /// When a weight changes or a configuration is read, flows are forgotten, and chosen anew by their hash as they go
    /// on: what a load balancer without a flow table does.
    HashedAnew,
}

/// How a run is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The seed instead of the scenario's.
    pub seed: Option<u64>,
    /// Which queue orders events.
    pub queue: Queue,
    /// Nobody looks at the wires: quicker, and the run is the same.
    pub is_unchecked: bool,
    /// The run ends at this moment, should the scenario take longer.
    pub until: Option<Instant>,
    /// A fault on purpose.
    pub planted: Planted,
}

/// What a forwarder of the scenario runs by.
#[derive(Debug)]
pub struct Equipment {
    /// The plan of its production configuration.
    pub plan: Plan,
    /// The components that the plan names.
    pub guests: Guests,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The virtual time.
    pub now: Instant,
    /// Flows that have ended.
    pub flows: u64,
    /// Flows that will be opened, where the scenario says so.
    pub flows_expected: Option<u64>,
}

/// Why a run did not begin.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The number of plans is not the number of forwarders.
    #[error("the scenario has {wanted} forwarders, and {given} are equipped")]
    Equipment {
        /// Forwarders in the scenario.
        wanted: usize,
        /// Plans that were given.
        given: usize,
    },
    /// The engine refuses a plan.
    #[error("forwarder {forwarder}: {error}")]
    Plan {
        /// The forwarder.
        forwarder: String,
        /// Why.
        error: PlanError,
    },
    /// A plan has an interface of Ethernet that the machine is not plugged in by.
    #[error(
        "forwarder {forwarder}: the configuration has the interface {interface} of kind ethernet, and no attachment of \
         the scenario has that name; write interface = \"{interface}\" in one"
    )]
    NoAttachment {
        /// The forwarder.
        forwarder: String,
        /// The interface.
        interface: String,
    },
    /// Gateway mode needs more interfaces than there may be.
    #[error("forwarder {forwarder}: {reason}")]
    Spread {
        /// The forwarder.
        forwarder: String,
        /// Why.
        reason: String,
    },
    /// Flow mode can not run it.
    #[error("{error}")]
    Flow {
        /// Why.
        error: Box<SetupError>,
    },
    /// A plan has no interface.
    #[error("forwarder {forwarder}: the configuration has no interface")]
    NoInterface {
        /// The forwarder.
        forwarder: String,
    },
    /// Something can not be drawn.
    #[error("{what}: {error}")]
    Law {
        /// The load, host or link.
        what: String,
        /// Why.
        error: LawError,
    },
    /// Forwarders join two segments twice.
    #[error(
        "forwarder {forwarder} passes frames on between segment {first} and segment {second}, which are joined already: \
         a broadcast would go round for ever; leave pass_to out of one of the ways between them"
    )]
    SwitchLoop {
        /// The forwarder that closes the loop.
        forwarder: String,
        /// Where it takes frames from.
        first: String,
        /// Where it passes them to.
        second: String,
    },
    /// The kernel of a machine refuses what it is told.
    #[error("{machine}: {error}")]
    Kernel {
        /// The machine.
        machine: String,
        /// Why.
        error: KernelError,
    },
    /// A VIP or source-NAT address is a machine's own: that machine's kernel would keep its packets.
    #[error(
        "{address} is an address of {first}; a VIP or source-NAT address of forwarder {forwarder} is nobody's own"
    )]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// The machine.
        first: String,
        /// The forwarder.
        forwarder: String,
    },
}

/// Events between two looks at the progress.
const PROGRESS_EVENTS: u64 = 1 << 16;
/// Events between two questions whether levels are to be noted again.
const SAMPLE_EVENTS: u64 = 1 << 6;

/// Runs a scenario. `equipment` is that of its forwarders, in their order.
///
/// # Errors
/// When the scenario and the plans do not fit together; nothing has run then.
pub fn run(scenario: &Scenario, equipment: Vec<Equipment>, options: Options) -> Result<Outcome, RunError> {
    run_with_progress(scenario, equipment, options, &mut |_| {})
}

/// The same, and tells now and then how far it is. What the listener does has no influence on the run.
///
/// # Errors
/// When the scenario and the plans do not fit together; nothing has run then.
pub fn run_with_progress(
    scenario: &Scenario,
    equipment: Vec<Equipment>,
    options: Options,
    listener: &mut dyn FnMut(Progress),
) -> Result<Outcome, RunError> {
    run_supplied(scenario, equipment, options, None, listener)
}

/// The same, where forwarders restart with components, or read other configurations: `supplier` makes both ready.
///
/// # Errors
/// When the scenario and the plans do not fit together; nothing has run then.
pub fn run_supplied<'a>(
    scenario: &'a Scenario,
    equipment: Vec<Equipment>,
    options: Options,
    supplier: Option<&'a mut dyn Supply>,
    listener: &mut dyn FnMut(Progress),
) -> Result<Outcome, RunError> {
    run_watched(scenario, equipment, options, supplier, listener, &mut Watch::default())
}

/// The same, while `watch` looks on. The outcome is the same as without it, unless it has seen enough and ends the run.
///
/// # Errors
/// When the scenario and the plans do not fit together; nothing has run then.
pub fn run_watched<'a>(
    scenario: &'a Scenario,
    equipment: Vec<Equipment>,
    options: Options,
    supplier: Option<&'a mut dyn Supply>,
    listener: &mut dyn FnMut(Progress),
    watch: &mut Watch,
) -> Result<Outcome, RunError> {
    if scenario.mode == Mode::Flow {
        let (wanted, given) = (scenario.forwarders.len(), equipment.len());
        if wanted != given {
            return Err(RunError::Equipment { wanted, given });
        }
        let outcome = flow_mode::run_scenario(scenario, equipment, options, listener);
        return outcome.map_err(|error| RunError::Flow { error: Box::new(error) });
    }
    let mut world = World::new(scenario, equipment, options)?;
    world.supplier = supplier;
    world.attach(std::mem::take(watch));
    world.run(options.until, listener);
    if let Some(seen) = world.net.watch.take() {
        *watch = *seen;
    }
    let mut outcome = Outcome::of(&world);
    let findings = outcome.checks.sentences.clone();
    let record = world.record(&outcome, findings);
    outcome.take_down(record);
    outcome.judge(&scenario.expectations);
    Ok(outcome)
}

/// Everything that there is.
pub(crate) struct World<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) seed: u64,
    pub(crate) net: Net,
    /// Hosts, then routers, then forwarders.
    pub(crate) machines: Vec<Machine>,
    pub(crate) loads: Vec<LoadState>,
    /// Flows by service and the server that answered, as clients saw it.
    pub(crate) answers: BTreeMap<(Service, IpAddr), u64>,
    /// Who says which word of itself in a response.
    identities: Identities,
    /// Which host has an address.
    hosts: BTreeMap<IpAddr, usize>,
    /// What the agents of hosts say.
    agents: BTreeMap<usize, AgentModel>,
    /// What has to be undone when its time is over.
    undoings: Vec<Undoing>,
    /// Which of several targets, and when, for each entry of the timeline.
    fates: Vec<Stream>,
    /// Whose turn it is, for each entry of the timeline.
    turns: Vec<Turn>,
    telling: Telling,
    /// When servers were away.
    absences: Absences,
    /// A fault on purpose.
    planted: Planted,
    /// Who makes a forwarder ready that begins anew.
    supplier: Option<&'a mut dyn Supply>,
}

impl World<'_> {
    /// Lets `watch` look on, where there is anything in it.
    fn attach(&mut self, mut watch: Watch) {
        if watch.is_empty() {
            return;
        }
        watch.begin(self.scenario);
        if watch.is_curious() {
            self.machines.iter_mut().for_each(Machine::watch);
        }
        self.net.watch = Some(Box::new(watch));
    }

    fn run(&mut self, until: Option<Instant>, listener: &mut dyn FnMut(Progress)) {
        self.begin();
        let end = Instant::ZERO.after(self.scenario.duration);
        let end = until.map_or(end, |until| until.min(end));
        while !self.is_over() && !self.net.watch.as_ref().is_some_and(|watch| watch.is_over()) {
            let Some(next) = self.net.next() else { break };
            if self.net.now > end {
                self.net.now = end;
                break;
            }
            self.handle(next);
            if self.net.events.is_multiple_of(SAMPLE_EVENTS) {
                self.telling.sample(self.net.now, nodes(&self.machines));
            }
            if self.net.events.is_multiple_of(PROGRESS_EVENTS) {
                listener(self.progress());
            }
        }
        listener(self.progress());
    }

    fn begin(&mut self) {
        for machine in &mut self.machines {
            machine.start(&mut self.net);
        }
        self.begin_loads();
        self.begin_timeline();
    }

    /// Every load is done and nothing is under way. Timers that are left only tidy up.
    fn is_over(&self) -> bool {
        self.net.under_way() == 0
            && self.loads.iter().all(LoadState::is_done)
            && self.machines.iter().all(Machine::is_idle)
    }

    #[inline(always)]
    fn handle(&mut self, next: Next) {
        match next {
            Next::Arrival(at, frame) => self.arrive(frame, at),
            Next::Other(event) => self.handle_other(event),
        }
    }

    /// A frame has reached the other end of its cable.
    #[inline(always)]
    fn arrive(&mut self, frame: Packet, at: Plug) {
        let Some((machine, interface, frame)) = self.net.arrive(frame, at) else { return };
        let Some(node) = self.machines.get_mut(machine) else { return };
        node.receive(&mut self.net, interface, frame);
        if let Role::Host(host) = &node.role
            && !(host.answers.is_empty() && host.endings.is_empty())
        {
            self.collect(machine);
        }
    }

    /// The same of everything but frames, of which there are most.
    #[inline(never)]
    fn handle_other(&mut self, event: Event) {
        match event {
            // Nothing arrives without a frame.
            Event::Arrive { .. } => {}
            Event::Open { load } => self.open(index(load)),
            Event::Reopen { load } => self.reopen(index(load)),
            Event::Timer { machine, connection, generation } => {
                let (machine, connection) = (index(machine), index(connection));
                self.with_host(machine, |host, way| host.timeout(way, connection, generation));
                self.collect(machine);
            }
            Event::Work { machine, generation } => {
                self.with_host(index(machine), |host, way| host.work_is_due(way, generation));
            }
            Event::Kernel { machine } => {
                let machine = index(machine);
                if let Some(node) = self.machines.get_mut(machine) {
                    node.kernel_timeout(&mut self.net);
                }
                self.collect(machine);
            }
            Event::Step { machine } => self.with_machine(index(machine), Machine::step),
            Event::EngineTimer { machine } => self.with_machine(index(machine), Machine::engine_timeout),
            Event::Happen { happening } => self.happen(index(happening)),
            Event::Over { undoing } => self.undo(index(undoing)),
            Event::Probe { number } => self.probe(index(number)),
        }
    }

    fn with_machine(&mut self, machine: usize, act: impl FnOnce(&mut Machine, &mut Net)) {
        if let Some(machine) = self.machines.get_mut(machine) {
            act(machine, &mut self.net);
        }
    }

    /// Lets the programs of a machine act, where it has power.
    fn with_host(&mut self, machine: usize, act: impl FnOnce(&mut Host, &mut crate::net::Way<'_>)) {
        if let Some(machine) = self.machines.get_mut(machine) {
            machine.with_host(&mut self.net, act);
        }
    }

    /// Counts the flows that have just ended on a host, and the answers that it got.
    fn collect(&mut self, machine: usize) {
        let Some(Role::Host(host)) = self.machines.get_mut(machine).map(|machine| &mut machine.role) else {
            return;
        };
        if host.answers.is_empty() && host.endings.is_empty() {
            return;
        }
        for answer in host.answers.drain(..) {
            let server = self.identities.find(answer.server).and_then(|known| known.place);
            link_answer(&mut self.net, self.scenario, &answer);
            self.telling.answered(self.net.now, &answer, server);
        }
        if host.endings.is_empty() {
            return;
        }
        let mut endings = std::mem::take(&mut host.endings);
        for ending in endings.drain(..) {
            let Some(state) = self.loads.get_mut(ending.load) else { continue };
            state.counts.end(ending.broken);
            let server = ending.server.and_then(|identity| self.identities.find(identity));
            let server = server.map(|known| known.address);
            let service = self.scenario.loads.get(ending.load).map(|load| load.service);
            if let (Some(service), Some(server)) = (service, server) {
                *self.answers.entry((service, server)).or_insert(0) += 1;
            }
            if let Some(cause) = ending.broken {
                let is_unavoidable = matches!(cause, Cause::ClientGone | Cause::NoPort)
                    || match server {
                        Some(server) => self.absences.has(server, ending.opened),
                        None => self.absences.has_any(ending.opened),
                    };
                self.telling.ended(self.net.now, &ending, server, is_unavoidable);
            }
            record(&mut self.net, self.scenario, machine, (&ending, server));
            state.make_room(&mut self.net, ending.load);
            self.blame(machine, &ending);
        }
        if let Some(Role::Host(host)) = self.machines.get_mut(machine).map(|machine| &mut machine.role) {
            host.endings = endings;
        }
    }

    /// The checker learns that a flow has ended, and finds out why where it broke.
    fn blame(&mut self, machine: usize, ending: &Ending) {
        let Some(checker) = &mut self.net.checker else { return };
        let load = self.scenario.loads.get(ending.load);
        let key = load.zip(ending.client).map(|(load, end)| (load.service.protocol, end));
        let (machines, absences, scenario) = (&self.machines, &self.absences, self.scenario);
        checker.ended(machine, key, ending.broken, &|machine| Witness {
            was_away: timeline::addresses(scenario, machine).any(|it| absences.has(it, ending.opened)),
            history: match machines.get(machine).map(|machine| &machine.role) {
                Some(Role::Forwarder(forwarder)) => forwarder.history(),
                Some(Role::Host(_) | Role::Router) | None => History::default(),
            },
        });
    }

    /// The checker learns what a forwarder goes by, and to which real servers it gives new flows.
    fn tell_checker(&mut self, machine: usize) {
        let Some(checker) = &mut self.net.checker else { return };
        let Some(Role::Forwarder(node)) = self.machines.get(machine).map(|machine| &machine.role) else {
            return;
        };
        let plan = node.engine.plan();
        checker.told(self.net.now, machine, plan);
        // A persistent client keeps its real server, drained or not.
        let is_persistent = |name: &str| {
            plan.directors.iter().any(|director| director.name == name && director.persistence.is_some())
        };
        let mut serves: BTreeMap<IpAddr, bool> = BTreeMap::new();
        for director in node.engine.directors() {
            let is_kept = is_persistent(&director.name);
            for server in director.servers {
                *serves.entry(server.address).or_default() |=
                    is_kept || server.is_up && server.effective_weight > 0;
            }
        }
        for (server, gets_flows) in serves {
            checker.serves(self.net.now, machine, server, gets_flows);
        }
    }

    fn progress(&self) -> Progress {
        let expected = self.scenario.loads.iter().map(|load| match load.extent {
            Extent::Flows(flows) => Some(flows),
            Extent::Duration(_) => None,
        });
        let ended = self.loads.iter().map(|load| load.counts.started - load.counts.unfinished()).sum();
        Progress { now: self.net.now, flows: ended, flows_expected: expected.sum() }
    }

    /// The virtual time that has passed.
    pub(crate) fn elapsed(&self) -> Duration {
        self.net.now.since(Instant::ZERO)
    }

    /// The hosts, in the order of the scenario.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.machines.iter().filter_map(|machine| match &machine.role {
            Role::Host(host) => Some(host),
            Role::Router | Role::Forwarder(_) => None,
        })
    }

    /// The forwarders, in the order of the scenario.
    pub(crate) fn forwarders(&self) -> impl Iterator<Item = (&Machine, &ForwarderNode)> {
        self.machines.iter().filter_map(|machine| match &machine.role {
            Role::Forwarder(forwarder) => Some((machine, &**forwarder)),
            Role::Host(_) | Role::Router => None,
        })
    }
}

/// The forwarders among the machines.
fn nodes(machines: &[Machine]) -> impl Iterator<Item = &ForwarderNode> {
    machines.iter().filter_map(|machine| match &machine.role {
        Role::Forwarder(forwarder) => Some(&**forwarder),
        Role::Host(_) | Role::Router => None,
    })
}

/// Adds an answer to the hash of answers: whose, from whom, how long it took and how large it was.
fn link_answer(net: &mut Net, scenario: &Scenario, answer: &Answer) {
    let latency = u64::try_from(answer.latency.as_nanos()).unwrap_or(u64::MAX);
    // The server stands there as an address does, the numbers as numbers do.
    let server = u128::from(answer.server.swap_bytes());
    let bytes = (server | u128::from(latency) << 32 | u128::from(answer.bytes) << 96).to_le_bytes();
    net.answer_trace.add(net.now, place(answer.load), &bytes);
    if let Some(watch) = &mut net.watch {
        let load = scenario.loads.get(answer.load).map_or("", |load| load.name.as_str());
        watch.answer_link(net.now, net.answer_trace.link(), || watch::answered(load, answer));
    }
}

/// Adds the end of a flow to the hash of decisions: which flow, which server, and whether it broke. One that broke counts
/// as an answer that did not come.
fn record(net: &mut Net, scenario: &Scenario, machine: usize, (ending, server): (&Ending, Option<IpAddr>)) {
    let [n0, n1, n2, n3, n4, n5, n6, n7] = ending.number.to_le_bytes();
    let [s0, s1, s2, s3] = ending.server.unwrap_or(0).to_be_bytes();
    let broken = ending.broken.map_or(0, |cause| cause as u8 + 1);
    let bytes = [n0, n1, n2, n3, n4, n5, n6, n7, s0, s1, s2, s3, broken];
    net.decision_trace.add(Instant::ZERO, place(ending.load), &bytes);
    if broken != 0 {
        net.answer_trace.add(net.now, place(ending.load), &bytes);
    }
    if let Some(watch) = &mut net.watch {
        let load = scenario.loads.get(ending.load).map_or("", |load| load.name.as_str());
        watch.ending_link(net.now, net.decision_trace.link(), (load, ending));
        if broken != 0 {
            watch.answer_link(net.now, net.answer_trace.link(), || watch::ended(load, ending));
        }
        watch.ended(net.now, machine, load, (ending, server));
    }
}

/// A load as a place in a chain.
fn place(load: usize) -> u32 {
    u32::try_from(load).unwrap_or(u32::MAX)
}

impl LoadCounts {
    /// Flows that are still open.
    #[must_use]
    pub fn unfinished(&self) -> u64 {
        self.started - self.completed - self.broken.values().sum::<u64>()
    }

    fn end(&mut self, broken: Option<Cause>) {
        match broken {
            None => self.completed += 1,
            Some(cause) => *self.broken.entry(cause).or_insert(0) += 1,
        }
    }
}
