//! Evenkeel on a simulated machine: the production engine behind the machine's TUNs, or directly on its Ethernet ports.
//!
//! ```text
//! cable -> kernel -> TUN -> step() -> TUN -> kernel -> cable          an interface of kind tun
//! cable ----------------> step() ----------------> cable             an interface of kind ethernet
//! ```
//! The kernel is told what `setup = "auto"` tells a real one: the same list of changes, made from the same plan.

use evenkeel_config::scheduler_by_name;
use evenkeel_engine::director::Scheduler;
use evenkeel_engine::plan::{Binding, Builtin, DirectorPlan, Layer, MidStream, Mode, Plan, SchedulerPlan};
use evenkeel_engine::verdict::InterfaceId;
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{
    AgentCheck, AgentReply, Counters, Duration, Engine, Event as EngineEvent, Guests, Instant, PlanError,
    Probe, ProbeReply, step,
};

use crate::checker::History;
use crate::device::{Decided, SimDevice};
use crate::packet::Packet;
use crate::scenario::Service;
use crate::watch;
use crate::world::Planted;

/// Messages of faults that are kept; the first ones say most.
const FAULTS_MAX: usize = 16;

/// What an interface of the plan is on the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// The kernel's TUN with this number.
    Tun(usize),
    /// The machine's interface with this number, which the kernel leaves alone.
    Ethernet(usize),
}

/// The interfaces of the plan as ports of the machine, and the other way round.
#[derive(Debug)]
struct Ports {
    all: Vec<Port>,
    tuns: Vec<Option<InterfaceId>>,
    ethernets: Vec<Option<InterfaceId>>,
}

impl Ports {
    fn new(all: Vec<Port>) -> Self {
        let (mut tuns, mut ethernets) = (Vec::new(), Vec::new());
        for (port, number) in all.iter().zip(0_u16..) {
            let (numbers, place) = match *port {
                Port::Tun(place) => (&mut tuns, place),
                Port::Ethernet(place) => (&mut ethernets, place),
            };
            numbers.resize(numbers.len().max(place + 1), None);
            if let Some(at @ None) = numbers.get_mut(place) {
                *at = Some(InterfaceId(number));
            }
        }
        Self { all, tuns, ethernets }
    }

    #[inline]
    fn interface_at(&self, port: Port) -> Option<InterfaceId> {
        let (numbers, place) = match port {
            Port::Tun(place) => (&self.tuns, place),
            Port::Ethernet(place) => (&self.ethernets, place),
        };
        *numbers.get(place)?
    }
}

/// The engine on its machine.
pub(crate) struct ForwarderNode {
    pub(crate) engine: Engine,
    device: SimDevice,
    ports: Ports,
    is_step_due: bool,
    /// When the pending timer event is due.
    pub(crate) timer: Instant,
    /// The clock of the machine is ahead of the world's by this much.
    pub(crate) ahead: Duration,
    /// Packets that found the engine's queue full.
    pub(crate) queue_full: u64,
    /// What engines before a restart have counted. The timeline bounds how many there are.
    past: Vec<Counters>,
    /// The first faults of components, in words.
    pub(crate) faults: Vec<String>,
    /// What has happened to it, for whoever asks why a flow broke.
    history: History,
    /// Half-open flows that it had thrown out when that was last looked at.
    evicted: u64,
}

impl ForwarderNode {
    /// # Errors
    /// When the engine refuses the plan.
    pub(crate) fn new(plan: Plan, guests: Guests, ports: Vec<Port>, now: Instant) -> Result<Self, PlanError> {
        Ok(Self {
            engine: Engine::new(plan, guests, now)?,
            device: SimDevice::default(),
            ports: Ports::new(ports),
            is_step_due: false,
            timer: Instant::NEVER,
            ahead: Duration::ZERO,
            queue_full: 0,
            past: Vec::new(),
            faults: Vec::new(),
            history: History::default(),
            evicted: 0,
        })
    }

    /// Whether no packet waits for the engine.
    pub(crate) const fn is_idle(&self) -> bool {
        !self.is_step_due
    }

    /// The number of the plan's interface that is this port of the machine.
    #[inline]
    pub(crate) fn interface_at(&self, port: Port) -> Option<InterfaceId> {
        self.ports.interface_at(port)
    }

    /// A packet has come by an interface of the plan. Gives back one for which there is no room. Whether the loop has
    /// to be woken is the second answer.
    pub(crate) fn put(&mut self, interface: InterfaceId, packet: Packet) -> (Option<Packet>, bool) {
        match self.device.put(interface, packet) {
            Ok(()) => (None, !std::mem::replace(&mut self.is_step_due, true)),
            Err(packet) => {
                self.queue_full += 1;
                (Some(packet), false)
            }
        }
    }

    /// The loop of the forwarder turns once. Gives whether it has to turn again at once.
    pub(crate) fn turn(&mut self, now: Instant) -> bool {
        if self.device.is_watched() {
            let engine = &self.engine;
            self.device.note_known(|interface, bytes| watch::is_known(engine, interface, bytes, now));
        }
        let report = step(&mut self.engine, &mut self.device, now.after(self.ahead));
        while let Some(event) = self.engine.poll_event() {
            self.note(&event, now);
        }
        let evicted = self.engine.counters().half_open_evicted;
        if std::mem::replace(&mut self.evicted, evicted) != evicted {
            self.history.eviction = Some(now);
        }
        let goes_on = report.received > 0 && self.device.has_waiting();
        self.is_step_due = goes_on;
        goes_on
    }

    /// Somebody wants to know what becomes of each packet.
    pub(crate) fn watch(&mut self) {
        self.device.watch();
    }

    /// What became of the packets since this was asked last.
    pub(crate) fn take_decided(&mut self) -> Vec<Decided> {
        self.device.take_decided()
    }

    /// The next packet that has left, and where.
    pub(crate) fn take(&mut self) -> Option<(Port, Packet)> {
        loop {
            let (interface, packet) = self.device.take()?;
            // The engine only knows interfaces of its plan.
            if let Some(port) = self.ports.all.get(interface.index()) {
                return Some((*port, packet));
            }
        }
    }

    /// When the engine's timer has to be woken, where that is sooner than what was known.
    pub(crate) fn next_timer(&mut self) -> Option<Instant> {
        let due = self.engine.poll_timeout()?;
        let due = Instant::from_nanos(due.as_nanos().saturating_sub(nanoseconds(self.ahead)));
        (due < self.timer).then(|| {
            self.timer = due;
            due
        })
    }

    /// Changes a weight; gives the one before.
    pub(crate) fn set_weight(
        &mut self,
        director: &str,
        server: &str,
        weight: u32,
        now: Instant,
    ) -> Option<u32> {
        let directors = self.engine.directors();
        let found = directors.iter().find(|known| known.name == director)?;
        let before = found.servers.iter().find(|known| known.name == server)?.weight;
        self.engine.set_weight(director, server, weight, now.after(self.ahead)).ok().map(|()| before)
    }

    /// The plan of the scheduler with this name, in the place of the one that a director has.
    ///
    /// # Errors
    /// When there is no such director, or no such scheduler.
    pub(crate) fn plan_scheduler(&self, director: &str, name: &str) -> Result<SchedulerPlan, String> {
        let found = self.engine.plan().directors.iter().find(|known| known.name == director);
        let found = found.ok_or_else(|| format!("no director {director}"))?;
        scheduler_by_name(name, &found.scheduler)
    }

    /// Changes who schedules for a director; the faults tell when the engine refuses.
    pub(crate) fn set_scheduler(
        &mut self,
        director: &str,
        plan: SchedulerPlan,
        guest: Option<Box<dyn Scheduler>>,
        now: Instant,
    ) {
        if let Err(error) = self.engine.set_scheduler(director, plan, guest, now.after(self.ahead)) {
            self.tell(format!("director {director}: {error}"));
        }
    }

    /// The next question of a scheduler to a real server.
    pub(crate) fn poll_probe(&mut self, now: Instant) -> Option<Probe> {
        self.engine.poll_probe(now.after(self.ahead))
    }

    /// A real server has answered one.
    pub(crate) fn probe_answered(&mut self, reply: &ProbeReply, now: Instant) {
        // Who has left the plan meanwhile is not missed.
        let _ = self.engine.probe_answered(reply, now.after(self.ahead));
    }

    /// The next question to an agent.
    pub(crate) fn poll_agent_check(&mut self, now: Instant) -> Option<AgentCheck> {
        self.engine.poll_agent_check(now.after(self.ahead))
    }

    /// An agent has answered one.
    pub(crate) fn agent_answered(&mut self, reply: &AgentReply<'_>, now: Instant) {
        // An answer that came too late is counted already.
        let _ = self.engine.agent_answered(reply, now.after(self.ahead));
    }

    /// The machine loses power: what waits is gone.
    pub(crate) fn stop(&mut self) {
        let is_watched = self.device.is_watched();
        self.device = SimDevice::default();
        if is_watched {
            self.device.watch();
        }
        self.is_step_due = false;
        self.timer = Instant::NEVER;
    }

    /// Begins anew by the plan that it had, without a flow.
    pub(crate) fn restart(&mut self, guests: Guests, now: Instant) {
        let plan = self.engine.plan().clone();
        self.past.push(self.engine.counters().clone());
        self.history.restart = Some(now);
        match Engine::new(plan, guests, now.after(self.ahead)) {
            Ok(engine) => self.engine = engine,
            Err(error) => self.tell(format!("restart: {error}")),
        }
    }

    /// Goes on by another plan; the faults tell when the engine refuses it.
    pub(crate) fn reload(&mut self, plan: Plan, guests: Guests, ports: Vec<Port>, now: Instant) {
        match self.engine.apply(plan, guests, now.after(self.ahead)) {
            Ok(()) => self.ports = Ports::new(ports),
            Err(error) => self.tell(format!("reload: {error}")),
        }
    }

    /// Does what a planted fault does when the real servers have changed.
    pub(crate) fn spoil(&mut self, planted: Planted, now: Instant) {
        if planted == Planted::Nothing {
            return;
        }
        let mut plan = self.engine.plan().clone();
        for (director, now) in plan.directors.iter_mut().zip(self.engine.directors()) {
            director.scheduler = SchedulerPlan::Builtin(Builtin::Maglev);
            director.mid_stream = MidStream::Pick;
            for (server, now) in director.servers.iter_mut().zip(now.servers) {
                server.weight = now.weight;
            }
        }
        self.past.push(self.engine.counters().clone());
        match Engine::new(plan, Guests::default(), now.after(self.ahead)) {
            Ok(engine) => self.engine = engine,
            Err(error) => self.tell(format!("planted: {error}")),
        }
    }

    /// Keeps a sentence for the report, while there is room.
    pub(crate) fn tell(&mut self, text: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(text);
        }
    }

    /// What the engine has counted, and those before it.
    pub(crate) fn counters(&self) -> impl Iterator<Item = &Counters> {
        self.past.iter().chain([self.engine.counters()])
    }

    /// How often it began anew.
    pub(crate) fn restarts(&self) -> u64 {
        self.past.len() as u64
    }

    /// What has happened to it, and how patient it is with silent flows.
    pub(crate) fn history(&self) -> History {
        let timeouts = &self.engine.plan().timeouts;
        History { patience: [timeouts.tcp_established, timeouts.udp], ..self.history }
    }

    fn note(&mut self, event: &EngineEvent, now: Instant) {
        match event {
            EngineEvent::GuestFault { name, fault } => {
                self.history.fault = Some(now);
                self.tell(format!("{name}: {} in {}: {}", fault.component, fault.call, fault.reason));
            }
            EngineEvent::FlowTableFull { .. } | EngineEvent::PortsExhausted { .. } => {
                self.history.eviction = Some(now);
            }
            EngineEvent::PlanApplied { .. } | _ => {}
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The real servers of a director, each with its port where that is one: the one that clients call goes for it.
fn servers(director: &DirectorPlan) -> impl Iterator<Item = (std::net::IpAddr, Option<u16>)> {
    let called = match &director.binds[..] {
        [bind] => bind.port(),
        _ => None,
    };
    let is_kept = matches!(director.mode, Mode::Gateway | Mode::Tunnel { .. });
    director.servers.iter().map(move |server| {
        let port = if server.port == 0 || is_kept { called } else { Some(server.port) };
        (server.address, port)
    })
}

/// The protocols that a director serves, each once.
fn protocols(director: &DirectorPlan) -> Vec<Protocol> {
    let serves = |protocol: &Protocol| {
        let is_bound = |bind: &Binding| bind.protocol.is_none_or(|bound| bound == *protocol);
        director.binds.is_empty() || director.binds.iter().any(is_bound)
    };
    [Protocol::TCP, Protocol::UDP].into_iter().filter(serves).collect()
}

/// The services that the real servers of a plan offer. Those at whatever port the client called are not among them. In
/// the modes gateway and tunnel they are those of the VIPs, which real servers have as addresses of their own.
pub(crate) fn real_servers(plan: &Plan) -> Vec<Service> {
    let mut services = Vec::new();
    for director in &plan.directors {
        if matches!(director.mode, Mode::Gateway | Mode::Tunnel { .. }) {
            for bind in &director.binds {
                let protocols = bind.protocol.map_or_else(|| protocols(director), |protocol| vec![protocol]);
                for (protocol, port) in
                    protocols.into_iter().flat_map(|one| bind.port().map(|port| (one, port)))
                {
                    services.push(Service { address: bind.network.address, port, protocol });
                }
            }
            continue;
        }
        for (address, port) in servers(director) {
            for protocol in protocols(director) {
                services.extend(port.map(|port| Service { address, port, protocol }));
            }
        }
    }
    services
}

/// The names of the plan's interfaces with frames.
pub(crate) fn ethernet_names(plan: &Plan) -> impl Iterator<Item = &str> {
    let is_ethernet = |layer: &Layer| matches!(layer, Layer::Ethernet(_));
    plan.interfaces.iter().filter(move |interface| is_ethernet(&interface.layer)).map(|it| it.name.as_str())
}
