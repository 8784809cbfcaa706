//! The world of one run: machines on a net, loads that open flows, and the loop that lets time pass.
//!
//! In: a scenario, a seed and a plan with its guests for each forwarder. Out: an [`Outcome`]. The same input
//! gives the same outcome on every machine and in every build. It reads no file and no clock.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use evenkeel_engine::plan::{Layer, Plan};
use evenkeel_engine::{Duration, Guests, Instant, PlanError};

use crate::forwarder::{ForwarderNode, real_servers, service_addresses};
use crate::host::{Cause, Ending, Host, Opening};
use crate::net::{Event, Net, Routes};
use crate::queue::{EventQueue, HeapQueue, WheelQueue};
use crate::random::Stream;
use crate::report::{LoadCounts, Outcome};
use crate::scenario::{Arrivals, Attachment, Extent, Scenario, Service};

/// Which queue orders events. Both give the same run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Queue {
    /// The fast one.
    #[default]
    Wheel,
    /// The plain reference.
    Heap,
}

/// How a run is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The seed instead of the scenario's.
    pub seed: Option<u64>,
    /// Which queue orders events.
    pub queue: Queue,
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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// A plan has an interface that the simulated machine does not.
    #[error(
        "forwarder {forwarder}: interface {interface} is Ethernet; a scenario's forwarder has interfaces of kind tun"
    )]
    Ethernet {
        /// The forwarder.
        forwarder: String,
        /// The interface.
        interface: String,
    },
    /// A plan has no interface.
    #[error("forwarder {forwarder}: the configuration has no interface")]
    NoInterface {
        /// The forwarder.
        forwarder: String,
    },
    /// A VIP or source-NAT address is a machine's own: that machine's kernel would keep its packets.
    #[error(
        "{address} is an address of {first}; a VIP or source-NAT address of forwarder {forwarder} is nobody's own"
    )]
    AddressTaken {
        /// The address.
        address: Ipv4Addr,
        /// The machine.
        first: String,
        /// The forwarder.
        forwarder: String,
    },
}

/// Events between two looks at the progress.
const PROGRESS_EVENTS: u64 = 1 << 16;

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
    let mut world = World::new(scenario, equipment, options)?;
    world.run(listener);
    Ok(Outcome::of(&world))
}

/// One load at work.
pub(crate) struct LoadState {
    pub(crate) counts: LoadCounts,
    draw: Stream,
    patterns: Stream,
    /// No further flow will open.
    is_exhausted: bool,
}

/// Everything that there is.
pub(crate) struct World<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) seed: u64,
    pub(crate) net: Net,
    pub(crate) hosts: Vec<Host>,
    pub(crate) forwarders: Vec<ForwarderNode>,
    pub(crate) loads: Vec<LoadState>,
    /// Flows by service and the server that answered, as clients saw it.
    pub(crate) answers: BTreeMap<(Service, Ipv4Addr), u64>,
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, equipment: Vec<Equipment>, options: Options) -> Result<Self, RunError> {
        check(scenario, &equipment)?;
        let seed = options.seed.unwrap_or(scenario.seed);
        let queue: Box<dyn EventQueue<Event>> = match options.queue {
            Queue::Wheel => Box::new(WheelQueue::default()),
            Queue::Heap => Box::new(HeapQueue::default()),
        };
        let real_servers: Vec<Service> = equipment.iter().flat_map(|one| real_servers(&one.plan)).collect();
        let loads = scenario.loads.iter().map(|load| LoadState {
            counts: LoadCounts::default(),
            draw: Stream::new(seed, &load.name, "arrivals"),
            patterns: Stream::new(seed, &load.name, "patterns"),
            is_exhausted: false,
        });
        let mut world = Self {
            scenario,
            seed,
            net: Net::new(queue, seed),
            hosts: Vec::new(),
            forwarders: Vec::new(),
            loads: loads.collect(),
            answers: BTreeMap::new(),
        };
        for (machine, host) in scenario.hosts.iter().enumerate() {
            let (addresses, routes) = world.plug(machine, &host.name, &host.attachments, host.gateway);
            let services = scenario.listeners(machine, &real_servers);
            world.hosts.push(Host::new(machine, &host.name, seed, addresses, routes, services));
        }
        for (forwarder, Equipment { plan, guests }) in scenario.forwarders.iter().zip(equipment) {
            let machine = scenario.hosts.len() + world.forwarders.len();
            let name = &forwarder.name;
            let (addresses, routes) = world.plug(machine, name, &forwarder.attachments, forwarder.gateway);
            let own = addresses.iter().map(|(address, _)| *address).collect();
            let node = ForwarderNode::new(machine, plan, guests, own, routes)
                .map_err(|error| RunError::Plan { forwarder: name.clone(), error })?;
            for address in node.service_addresses() {
                world.claim(&forwarder.attachments, &addresses, address);
            }
            world.forwarders.push(node);
        }
        Ok(world)
    }

    /// Plugs a machine into its segments; gives its addresses with their ports, and its routing table.
    fn plug(
        &mut self,
        machine: usize,
        name: &str,
        attachments: &[Attachment],
        gateway: Option<Ipv4Addr>,
    ) -> (Vec<(Ipv4Addr, usize)>, Routes) {
        let (mut addresses, mut connected) = (Vec::new(), Vec::new());
        for attachment in attachments {
            let quality = self.scenario.quality(machine, attachment.segment);
            let port = self.net.plug(machine, name, *attachment, quality);
            addresses.push((attachment.address, port));
            if let Some(segment) = self.scenario.segments.get(attachment.segment) {
                connected.push((segment.network, segment.prefix_length, port));
            }
        }
        (addresses, Routes::new(connected, gateway))
    }

    /// A service's address that lies on a segment of the forwarder is answered for there (proxy ARP).
    fn claim(&mut self, attachments: &[Attachment], ports: &[(Ipv4Addr, usize)], address: Ipv4Addr) {
        for (attachment, (_, port)) in attachments.iter().zip(ports) {
            let segment = self.scenario.segments.get(attachment.segment);
            if segment.is_some_and(|segment| segment.contains(address)) {
                self.net.claim(*port, address);
            }
        }
    }

    fn run(&mut self, listener: &mut dyn FnMut(Progress)) {
        self.begin();
        let end = Instant::ZERO.after(self.scenario.duration);
        while !self.is_over() {
            let Some(event) = self.net.next() else { break };
            if self.net.now > end {
                self.net.now = end;
                break;
            }
            self.handle(event);
            if self.net.events.is_multiple_of(PROGRESS_EVENTS) {
                listener(self.progress());
            }
        }
        listener(self.progress());
    }

    fn begin(&mut self) {
        for (index, load) in self.scenario.loads.iter().enumerate() {
            let start = Instant::ZERO.after(load.start);
            match load.arrivals {
                Arrivals::Poisson { .. } | Arrivals::Uniform { .. } => {
                    self.net.schedule(start, Event::Open { load: index });
                }
                Arrivals::Closed { outstanding } => {
                    for _ in 0..outstanding {
                        self.net.schedule(start, Event::Open { load: index });
                    }
                }
            }
        }
    }

    /// Every load is done and nothing is under way. Timers that are left only tidy up.
    fn is_over(&self) -> bool {
        let is_done = |load: &LoadState| load.is_exhausted && load.counts.unfinished() == 0;
        let is_quiet = self.net.under_way() == 0 && self.forwarders.iter().all(ForwarderNode::is_idle);
        is_quiet && self.loads.iter().all(is_done)
    }

    fn handle(&mut self, event: Event) {
        let touched = match event {
            Event::Hop { flight } => {
                self.net.hop(flight);
                return;
            }
            Event::Arrive { flight } => {
                let Some((machine, packet)) = self.net.arrive(flight) else { return };
                if let Some(host) = self.hosts.get_mut(machine) {
                    host.receive(&mut self.net, packet);
                } else if let Some(forwarder) = node(&mut self.forwarders, self.hosts.len(), machine) {
                    forwarder.receive(&mut self.net, packet);
                }
                machine
            }
            Event::Open { load } => {
                let Some(machine) = self.open(load) else { return };
                machine
            }
            Event::Timer { machine, connection, generation } => {
                if let Some(host) = self.hosts.get_mut(machine) {
                    host.timeout(&mut self.net, connection, generation);
                }
                machine
            }
            Event::Step { machine } => {
                if let Some(forwarder) = node(&mut self.forwarders, self.hosts.len(), machine) {
                    forwarder.step(&mut self.net);
                }
                return;
            }
            Event::EngineTimer { machine } => {
                if let Some(forwarder) = node(&mut self.forwarders, self.hosts.len(), machine) {
                    forwarder.timeout(&mut self.net);
                }
                return;
            }
        };
        self.collect(touched);
    }

    /// Opens the next flow of a load; gives the client's machine.
    fn open(&mut self, index: usize) -> Option<usize> {
        let load = self.scenario.loads.get(index)?;
        let state = self.loads.get_mut(index)?;
        if state.is_exhausted {
            return None;
        }
        let now = self.net.now;
        let is_beyond = |at: Instant| match load.extent {
            Extent::Flows(_) => false,
            Extent::Duration(duration) => at > Instant::ZERO.after(load.start).after(duration),
        };
        if is_beyond(now) {
            state.is_exhausted = true;
            return None;
        }
        let number = state.counts.started;
        state.counts.started += 1;
        state.is_exhausted = matches!(load.extent, Extent::Flows(flows) if state.counts.started >= flows);
        let gap = match load.arrivals {
            Arrivals::Poisson { mean_gap } => Some(state.draw.exponential(mean_gap)),
            Arrivals::Uniform { gap } => Some(gap),
            Arrivals::Closed { .. } => None,
        };
        #[allow(clippy::cast_possible_truncation, reason = "32 of 64 random bits")]
        let pattern = state.patterns.bits() as u32;
        if let Some(gap) = gap.filter(|_| !state.is_exhausted) {
            let next = now.after(gap);
            if is_beyond(next) {
                state.is_exhausted = true;
            } else {
                self.net.schedule(next, Event::Open { load: index });
            }
        }
        let count = u64::try_from(load.clients.len()).ok()?;
        let turn = usize::try_from(number.checked_rem(count)?).ok()?;
        let machine = load.clients.get(turn).copied()?;
        let opening =
            Opening { load: index, number, service: load.service, exchange: load.exchange, pattern };
        self.hosts.get_mut(machine)?.open(&mut self.net, opening);
        Some(machine)
    }

    /// Counts the flows that have just ended on a host.
    fn collect(&mut self, machine: usize) {
        let Some(host) = self.hosts.get_mut(machine) else { return };
        for ending in host.endings.drain(..) {
            let Some(state) = self.loads.get_mut(ending.load) else { continue };
            state.counts.end(ending.broken);
            if let Some(server) = ending.server {
                *self.answers.entry((ending.service, server)).or_insert(0) += 1;
            }
            record(&mut self.net, &ending);
            let load = self.scenario.loads.get(ending.load);
            if matches!(load.map(|load| load.arrivals), Some(Arrivals::Closed { .. })) && !state.is_exhausted
            {
                self.net.schedule(self.net.now, Event::Open { load: ending.load });
            }
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
}

/// The forwarder that is this machine; machines are counted on from the hosts.
fn node(forwarders: &mut [ForwarderNode], hosts: usize, machine: usize) -> Option<&mut ForwarderNode> {
    forwarders.get_mut(machine.checked_sub(hosts)?)
}

/// Links the end of a flow into the hash of decisions: which flow, which server, and whether it broke.
fn record(net: &mut Net, ending: &Ending) {
    let server = ending.server.map_or([0; 4], |address| address.octets());
    let [n0, n1, n2, n3, n4, n5, n6, n7] = ending.number.to_le_bytes();
    let [s0, s1, s2, s3] = server;
    let broken = ending.broken.map_or(0, |cause| cause as u8 + 1);
    let bytes = [n0, n1, n2, n3, n4, n5, n6, n7, s0, s1, s2, s3, broken];
    net.decision_trace.add(Instant::ZERO, u32::try_from(ending.load).unwrap_or(u32::MAX), &bytes);
}

/// Whether scenario and plans fit together.
fn check(scenario: &Scenario, equipment: &[Equipment]) -> Result<(), RunError> {
    let (wanted, given) = (scenario.forwarders.len(), equipment.len());
    if wanted != given {
        return Err(RunError::Equipment { wanted, given });
    }
    for (forwarder, Equipment { plan, .. }) in scenario.forwarders.iter().zip(equipment) {
        let name = || forwarder.name.clone();
        if plan.interfaces.is_empty() {
            return Err(RunError::NoInterface { forwarder: name() });
        }
        for interface in &plan.interfaces {
            if matches!(interface.layer, Layer::Ethernet(_)) {
                return Err(RunError::Ethernet { forwarder: name(), interface: interface.name.clone() });
            }
        }
        for address in service_addresses(plan) {
            let has = |attachments: &[Attachment]| attachments.iter().any(|own| own.address == address);
            let hosts = scenario.hosts.iter().map(|host| (&host.name, &host.attachments));
            let machines = hosts.chain(scenario.forwarders.iter().map(|one| (&one.name, &one.attachments)));
            let owner = machines.into_iter().find(|(_, attachments)| has(attachments));
            if let Some((first, _)) = owner {
                return Err(RunError::AddressTaken { address, first: first.clone(), forwarder: name() });
            }
        }
    }
    Ok(())
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
