//! One director: its servers' places, their loads, and the scheduler that it asks.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use siphasher::sip::SipHasher13;

use super::agents::Agent;
use super::seat::Seat;
use super::slow_start::SlowStart;
use super::{
    FlowAnswered, FlowClosed, FlowEnd, FlowEvent, FlowOpened, NewFlow, ProbeAnswer, Scheduler, ServerId,
    ServerLoad, ServerView, ShadowStatus,
};
use crate::flow::{Departed, Direction, FlowEntry, FlowState};
use crate::plan::{
    AgentPlan, Binding, DirectorPlan, MidStream, Mode, Persistence, Ping, SchedulerPlan, ServerPlan,
    SourceNat,
};
use crate::time::{Duration, Instant};
use crate::verdict::InterfaceId;
use crate::wire::{Address, Protocol};

impl ServerId {
    /// The identity of whoever listens at `address` and `port`: SipHash-1-3 with key zero of the 16 bytes of the
    /// address (IPv4 mapped) and the two of the port.
    #[must_use]
    pub fn of(address: Address, port: u16) -> Self {
        let [high, low] = address.halves();
        let mut bytes = [0; 18];
        let parts = high.to_be_bytes().into_iter().chain(low.to_be_bytes()).chain(port.to_be_bytes());
        for (place, byte) in bytes.iter_mut().zip(parts) {
            *place = byte;
        }
        Self(SipHasher13::new_with_keys(0, 0).hash(&bytes))
    }
}

/// A real server of a director.
#[derive(Clone, Debug)]
pub struct Server {
    /// The name that users know.
    pub name: String,
    /// The RIP.
    pub address: Address,
    /// The port.
    pub port: u16,
    /// The share of new flows as the operator has it; 0 drains.
    pub weight: u32,
    /// Its place in the list that the scheduler knows; none when the plan no longer has it.
    pub view: Option<u16>,
    /// Its flows.
    pub load: ServerLoad,
    /// Flows that it ever got.
    pub flows: u64,
    /// Packets to it.
    pub packets_to: u64,
    /// Packets from it.
    pub packets_from: u64,
    /// IP bytes to it.
    pub bytes_to: u64,
    /// IP bytes from it.
    pub bytes_from: u64,
    /// Whether it may be picked, apart from its weight: it has room for more flows, and its agent lets it have some.
    pub is_up: bool,
    /// What its agent says of it, where one is asked.
    pub agent: Option<Box<Agent>>,
    /// The port where its agent answers, in place of its director's; 0 where it has none.
    pub(super) agent_port: Option<u16>,
    /// It has as many flows as it may have.
    is_full: bool,
    flows_upper: u32,
    flows_lower: u32,
}

impl Server {
    fn new(plan: &ServerPlan) -> Self {
        Self {
            name: plan.name.clone(),
            address: plan.address.into(),
            port: plan.port,
            weight: plan.weight,
            view: None,
            load: ServerLoad::default(),
            flows: 0,
            packets_to: 0,
            packets_from: 0,
            bytes_to: 0,
            bytes_from: 0,
            is_up: true,
            agent: None,
            agent_port: plan.agent_port,
            is_full: false,
            flows_upper: plan.flows_upper,
            flows_lower: plan.flows_lower,
        }
    }

    /// Counts a packet of `length` IP bytes.
    #[inline]
    pub fn count(&mut self, direction: Direction, length: u32) {
        let (packets, bytes) = match direction {
            Direction::Original => (&mut self.packets_to, &mut self.bytes_to),
            Direction::Reply => (&mut self.packets_from, &mut self.bytes_from),
        };
        *packets += 1;
        *bytes += u64::from(length);
    }

    /// How many flows are too many, and below how many there is room again; 0 for no bound, and for three quarters.
    fn bounds(&self) -> (u64, u64) {
        let asked = self.agent.as_ref().and_then(|agent| agent.flows_max);
        let upper = asked.unwrap_or(self.flows_upper);
        let lower = if self.flows_lower <= upper { self.flows_lower } else { 0 };
        (u64::from(upper), u64::from(lower))
    }

    /// Its bound is another one: whether it is full is looked up anew.
    pub(super) const fn reopen(&mut self) {
        self.is_full = false;
    }

    /// Lets the scheduler see whether it is full, or held out by its agent.
    fn show(&mut self, view: &mut ServerView) {
        let is_out = self.agent.as_ref().is_some_and(|agent| agent.is_out());
        self.is_up = !self.is_full && !is_out;
        (view.is_up, view.is_full) = (self.is_up, self.is_full && !is_out);
    }

    fn is_idle(&self) -> bool {
        self.load == ServerLoad::default()
    }
}

/// A virtual service at work.
#[derive(Debug)]
pub struct Director {
    /// The name that users know.
    pub name: String,
    /// What it serves.
    pub binds: Vec<Binding>,
    /// How packets reach the real servers.
    pub mode: Mode,
    /// Whether the plan no longer has it, and only its flows keep its place.
    pub is_removed: bool,
    /// Whether each UDP datagram is scheduled on its own.
    pub is_one_packet: bool,
    /// How clients stick to real servers.
    pub persistence: Option<Persistence>,
    /// What happens to TCP segments of unknown flows.
    pub mid_stream: MidStream,
    /// What happens to pings.
    pub ping: Ping,
    /// How its agents are asked, if they are.
    pub agent_check: Option<AgentPlan>,
    seat: Seat,
    slow_start: SlowStart,
    /// Whether any server has a bound on its flows.
    has_bounds: bool,
    servers: Vec<Option<Server>>,
    views: Vec<ServerView>,
    loads: Vec<ServerLoad>,
    /// The place of each view in `servers`.
    slots: Vec<u16>,
    flows: usize,
}

impl Director {
    /// A director as `plan` has it, asking `scheduler`.
    #[must_use]
    pub fn new(plan: &DirectorPlan, scheduler: Box<dyn Scheduler>, now: Instant) -> Self {
        let mut director = Self {
            name: plan.name.clone(),
            binds: plan.binds.clone(),
            mode: plan.mode.clone(),
            is_removed: false,
            is_one_packet: plan.is_one_packet,
            persistence: plan.persistence,
            mid_stream: plan.mid_stream,
            ping: plan.ping,
            agent_check: plan.agent_check.clone(),
            seat: Seat::new(scheduler, plan.scheduler.clone()),
            slow_start: SlowStart::new(plan.slow_start),
            has_bounds: false,
            servers: Vec::new(),
            views: Vec::new(),
            loads: Vec::new(),
            slots: Vec::new(),
            flows: 0,
        };
        director.set_servers(&plan.servers, now);
        director
    }

    /// Becomes what `plan` has under the same name; servers that stay keep their places, flows and counters.
    pub fn change(&mut self, plan: &DirectorPlan, scheduler: Option<Box<dyn Scheduler>>, now: Instant) {
        self.seat.flush(now);
        self.slow_start.change(plan.slow_start);
        self.binds.clone_from(&plan.binds);
        self.mode = plan.mode.clone();
        self.is_removed = false;
        self.is_one_packet = plan.is_one_packet;
        self.persistence = plan.persistence;
        self.mid_stream = plan.mid_stream;
        self.ping = plan.ping;
        self.agent_check.clone_from(&plan.agent_check);
        if let Some(scheduler) = scheduler {
            self.seat.change(scheduler, plan.scheduler.clone(), now);
        }
        self.set_servers(&plan.servers, now);
    }

    /// Another director in the same state; `is_asked` says whether its scheduler will be.
    #[must_use]
    pub fn fork(&self, is_asked: bool) -> Self {
        Self {
            name: self.name.clone(),
            binds: self.binds.clone(),
            mode: self.mode.clone(),
            is_removed: self.is_removed,
            is_one_packet: self.is_one_packet,
            persistence: self.persistence,
            mid_stream: self.mid_stream,
            ping: self.ping,
            agent_check: self.agent_check.clone(),
            seat: self.seat.fork(is_asked),
            slow_start: self.slow_start.clone(),
            has_bounds: self.has_bounds,
            servers: self.servers.clone(),
            views: self.views.clone(),
            loads: self.loads.clone(),
            slots: self.slots.clone(),
            flows: self.flows,
        }
    }

    /// Takes over what another one knew of its servers, in their order: weight, weight as shown, whether each is up (1) and
    /// full (2), active and inactive flows; and that one's scheduler. Returns whether there are as many.
    pub(crate) fn recall(
        &mut self,
        servers: &[[u32; 5]],
        flows: usize,
        scheduler: Option<Box<dyn Scheduler>>,
        now: Instant,
    ) -> bool {
        if servers.len() != self.views.len() {
            return false;
        }
        let slots = self.slots.clone();
        let all = servers.iter().zip(&slots).zip(&mut self.views).zip(&mut self.loads);
        for ((([weight, shown, flags, active, inactive], slot), view), load) in all {
            *load = ServerLoad { active: *active, inactive: *inactive };
            view.weight = *shown;
            view.is_up = flags & 1 != 0;
            view.is_full = flags & 2 != 0;
            if let Some(Some(server)) = self.servers.get_mut(usize::from(*slot)) {
                server.weight = *weight;
                server.load = *load;
                server.is_full = view.is_full;
                server.agent = Agent::recalled(view, load, server.flows_upper).map(Box::new);
                server.show(view);
            }
        }
        self.flows = flows;
        if let Some(scheduler) = scheduler {
            self.seat.put(scheduler);
        }
        self.seat.update(&self.views, now);
        true
    }

    /// Has the scheduler pick the server with this view from now on.
    pub(crate) fn fix(&mut self, view: u16, now: Instant) {
        self.seat.fix(view);
        self.seat.update(&self.views, now);
    }

    /// What its scheduler knows of the servers, each beside its load.
    pub fn candidates(&self) -> impl Iterator<Item = (&ServerView, &ServerLoad)> {
        self.views.iter().zip(&self.loads)
    }

    /// Changes the weight of the server called `name`. Returns whether there is one.
    pub fn set_weight(&mut self, name: &str, weight: u32, now: Instant) -> bool {
        let server =
            self.servers.iter_mut().flatten().find(|server| server.view.is_some() && server.name == name);
        let Some(server) = server else { return false };
        server.weight = weight;
        self.seat.flush(now);
        self.show_weights(now);
        self.seat.update(&self.views, now);
        true
    }

    /// Lets the scheduler see what agents say now.
    pub(super) fn follow_agents(&mut self, now: Instant) {
        self.seat.flush(now);
        let has_bounds = self.members().any(|server| server.bounds().0 > 0);
        self.has_bounds = has_bounds;
        for place in 0..self.slots.len() {
            self.settle_bounds(place);
        }
        self.show_weights(now);
        self.seat.update(&self.views, now);
    }

    /// Whether its scheduler is only a name, in a [fork](Self::fork).
    #[must_use]
    pub const fn has_absent_scheduler(&self) -> bool {
        self.seat.is_absent()
    }

    /// Tells the scheduler what it does not know yet, before it is asked.
    #[inline]
    pub fn prepare(&mut self, now: Instant) {
        self.seat.flush(now);
        if self.slow_start.is_due(now) {
            self.show_weights(now);
            self.seat.update(&self.views, now);
        }
    }

    /// Asks the scheduler about `flows`. The answers are places in the list of views, each already counted as a flow.
    ///
    /// Where servers have bounds on their flows it is asked one by one, so that each answer counts for the next.
    #[inline]
    pub fn pick(&mut self, flows: &[NewFlow], answers: &mut [Option<u16>], now: Instant) {
        self.prepare(now);
        if !self.has_bounds {
            return self.seat.pick(flows, &self.views, &mut self.loads, answers, now);
        }
        for (flows, answers) in flows.chunks(1).zip(answers.chunks_mut(1)) {
            self.seat.pick(flows, &self.views, &mut self.loads, answers, now);
            if let [Some(view)] = *answers {
                self.check_bounds(view, now);
            }
        }
    }

    /// Counts a flow that sticks to the server with this view, which is not asked about.
    pub fn assign(&mut self, view: u16, protocol: Protocol, now: Instant) {
        if let Some(load) = self.loads.get_mut(usize::from(view)) {
            count(load, protocol == Protocol::TCP, true);
        }
        self.check_bounds(view, now);
    }

    /// Takes back what [`Director::pick`] counted for a flow that did not come to be.
    pub fn unassign(&mut self, view: u16, protocol: Protocol, now: Instant) {
        if let Some(load) = self.loads.get_mut(usize::from(view)) {
            count(load, protocol == Protocol::TCP, false);
        }
        self.check_bounds(view, now);
    }

    /// Lets the scheduler see what agents leave of the weights of the plan, or while servers start slowly, what counts of
    /// that now.
    fn show_weights(&mut self, now: Instant) {
        let weights = self.slots.iter().map(|slot| {
            let server = self.servers.get(usize::from(*slot)).and_then(Option::as_ref);
            server.map_or(0, Server::effective_weight)
        });
        for (view, weight) in self.views.iter_mut().zip(weights) {
            view.weight = weight;
        }
        self.slow_start.slow_down(&mut self.views, now);
    }

    /// Whether its scheduler wants to know how long answers took, or flows lived.
    #[must_use]
    pub const fn times_flows(&self) -> bool {
        self.seat.wishes().answered || self.seat.wishes().closed
    }

    /// Whether its scheduler sends probes.
    #[must_use]
    pub const fn sends_probes(&self) -> bool {
        self.seat.wishes().probes
    }

    /// The server at `slot` has answered a flow for the first time.
    pub fn answered(&mut self, slot: u16, answer: FlowAnswered, now: Instant) {
        let view = self.server(slot).and_then(|server| server.view);
        if let Some(server) = view.filter(|_| self.seat.wishes().answered) {
            self.seat.tell(FlowEvent::Answered(FlowAnswered { server, ..answer }), now);
        }
    }

    /// When [`Director::handle_tick`] has something to do next.
    #[must_use]
    pub const fn next_tick(&self) -> Option<Instant> {
        self.seat.next_tick()
    }

    /// Lets the scheduler know that time has passed, if that is due.
    pub fn handle_tick(&mut self, now: Instant) {
        self.seat.handle_tick(now);
    }

    /// The next real server that its scheduler wants to be asked how it is.
    pub fn poll_probe(&mut self, now: Instant) -> Option<(ServerId, &Server)> {
        let view = self.seat.scheduler_mut().poll_probe(now)?;
        let (_, id) = self.identity(view)?;
        Some((id, self.viewed(view)?))
    }

    /// A real server has told how it is. Returns whether it is one of the plan's.
    pub fn probe_answered(&mut self, id: ServerId, in_flight: u32, latency: Duration, now: Instant) -> bool {
        let view = self.views.iter().position(|view| view.id == id);
        let Some(server) = view.and_then(|view| u16::try_from(view).ok()) else { return false };
        self.seat.scheduler_mut().probe_answered(ProbeAnswer { server, in_flight, latency }, now);
        true
    }

    /// Enters a flow that was picked: its server's place.
    #[inline]
    pub fn open(&mut self, view: u16, hash: u64, protocol: Protocol, now: Instant) -> Option<u16> {
        let slot = *self.slots.get(usize::from(view))?;
        let server = self.servers.get_mut(usize::from(slot))?.as_mut()?;
        count(&mut server.load, protocol == Protocol::TCP, true);
        server.flows += 1;
        self.flows += 1;
        if self.seat.wishes().opened {
            self.seat.tell(FlowEvent::Opened(FlowOpened { hash, server: view }), now);
        }
        Some(slot)
    }

    /// Counts a flow that goes by without an entry: its server's place.
    pub fn open_and_close(&mut self, view: u16) -> Option<u16> {
        let slot = *self.slots.get(usize::from(view))?;
        self.servers.get_mut(usize::from(slot))?.as_mut()?.flows += 1;
        Some(slot)
    }

    /// Takes the server with this view out of the choice when it has reached its upper bound, and back in when it has
    /// come below its lower one.
    #[inline]
    fn check_bounds(&mut self, view: u16, now: Instant) {
        if self.has_bounds && self.settle_bounds(usize::from(view)) {
            self.seat.update(&self.views, now);
        }
    }

    /// Looks whether the server with the view at `place` is full now. Returns whether that shows.
    fn settle_bounds(&mut self, place: usize) -> bool {
        let slot = self.slots.get(place).map(|slot| usize::from(*slot));
        let server = slot.and_then(|slot| self.servers.get_mut(slot)).and_then(Option::as_mut);
        let (Some(server), Some(load), Some(view)) =
            (server, self.loads.get(place), self.views.get_mut(place))
        else {
            return false;
        };
        let flows = u64::from(load.active) + u64::from(load.inactive);
        let (upper, lower) = server.bounds();
        if upper > 0 && flows >= upper {
            server.is_full = true;
        } else if lower == 0 && flows * 4 < upper * 3 || flows < lower || upper == 0 {
            server.is_full = false;
        }
        let before = *view;
        server.show(view);
        *view != before
    }

    /// A flow of the server at `slot` has changed its state.
    #[inline]
    pub fn change_state(&mut self, slot: u16, before: FlowState, after: FlowState) {
        if before.is_active() == after.is_active() {
            return;
        }
        let Some(server) = self.servers.get_mut(usize::from(slot)).and_then(Option::as_mut) else { return };
        recount(&mut server.load, before.is_active());
        if let Some(load) = server.view.and_then(|view| self.loads.get_mut(usize::from(view))) {
            recount(load, before.is_active());
        }
    }

    /// A flow has ended; `hash` is that of its original tuple.
    #[inline]
    pub fn close(&mut self, departed: &Departed, hash: u64, now: Instant) {
        let entry = &departed.entry;
        let slot = entry.server_slot;
        self.flows = self.flows.saturating_sub(1);
        let Some(place) = self.servers.get_mut(usize::from(slot)) else { return };
        let Some(server) = place else { return };
        let is_active = entry.state.is_active();
        count(&mut server.load, is_active, false);
        if let Some(view) = server.view {
            if let Some(load) = self.loads.get_mut(usize::from(view)) {
                count(load, is_active, false);
            }
            self.check_bounds(view, now);
            if self.seat.wishes().closed {
                self.seat.tell(FlowEvent::Closed(closed(departed, hash, view, now)), now);
            }
        } else if server.is_idle() {
            *place = None;
        }
    }

    /// Whether the plan no longer has it and no flow keeps it.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        self.is_removed && self.flows == 0
    }

    /// The server at `slot`, whether the plan still has it or not.
    #[must_use]
    pub fn server(&self, slot: u16) -> Option<&Server> {
        self.servers.get(usize::from(slot))?.as_ref()
    }

    /// The server at `slot`, to count its packets.
    #[inline]
    pub fn server_mut(&mut self, slot: u16) -> Option<&mut Server> {
        self.servers.get_mut(usize::from(slot))?.as_mut()
    }

    /// The view of the server at `slot` if it still is the one with this identity and may be used by a client that
    /// sticks to it; `is_weighted` asks for a weight above 0 as well.
    #[must_use]
    pub fn view_of(&self, slot: u16, id: ServerId, is_weighted: bool) -> Option<u16> {
        let view = self.server(slot)?.view?;
        let shown = self.views.get(usize::from(view))?;
        let is_out = !shown.is_up && !shown.is_full;
        (shown.id == id && !is_out && (shown.weight > 0 || !is_weighted)).then_some(view)
    }

    /// Whether the server at `slot` may be given new flows.
    #[must_use]
    pub fn takes_flows(&self, slot: u16) -> bool {
        let view = self.server(slot).and_then(|server| server.view);
        view.and_then(|view| self.views.get(usize::from(view))).is_some_and(ServerView::is_usable)
    }

    /// The places of the servers of the plan, in its order.
    pub(super) fn slots(&self) -> &[u16] {
        &self.slots
    }

    /// The place of the server of the plan with this identity.
    pub(super) fn slot_of(&self, id: ServerId) -> Option<u16> {
        let view = self.views.iter().position(|view| view.id == id)?;
        self.slots.get(view).copied()
    }

    /// Forgets what agents have said: of all servers, or of those that the plan no longer has.
    pub(super) fn forget_agents(&mut self, is_all: bool) {
        let gone = self.servers.iter_mut().flatten().filter(|server| is_all || server.view.is_none());
        gone.for_each(|server| server.agent = None);
    }

    /// The identity and place of the server that the scheduler knows as `view`.
    #[must_use]
    pub fn identity(&self, view: u16) -> Option<(u16, ServerId)> {
        let place = usize::from(view);
        Some((*self.slots.get(place)?, self.views.get(place)?.id))
    }

    /// How sources are translated of clients that come in at `interface_in` for `port`, on the way to a server behind
    /// `interface_out`.
    #[must_use]
    pub fn source_nat(
        &self,
        interface_in: InterfaceId,
        interface_out: InterfaceId,
        port: u16,
        is_v4: bool,
    ) -> Option<&SourceNat> {
        let Mode::Nat { sources } = &self.mode else { return None };
        sources.iter().find(|rule| {
            rule.interface_in.is_none_or(|wanted| wanted == interface_in)
                && rule.interface_out.is_none_or(|wanted| wanted == interface_out)
                && rule.service_ports.contains(&port)
                && rule.address.is_ipv4() == is_v4
        })
    }

    /// Whether one of its servers is `address` and answers from `port`.
    #[must_use]
    pub fn answers_from(&self, address: Address, port: u16) -> bool {
        self.members().any(|server| server.address == address && (server.port == port || server.port == 0))
    }

    /// The server that the scheduler knows as `view`.
    #[must_use]
    pub fn viewed(&self, view: u16) -> Option<&Server> {
        self.server(*self.slots.get(usize::from(view))?)
    }

    /// The servers of the plan, in its order.
    pub fn members(&self) -> impl Iterator<Item = &Server> {
        self.slots.iter().filter_map(|slot| self.server(*slot))
    }

    /// Whether any server may take a new flow.
    #[must_use]
    pub fn has_usable_server(&self) -> bool {
        self.views.iter().any(ServerView::is_usable)
    }

    /// Who picks the servers.
    #[must_use]
    pub fn scheduler(&self) -> &dyn Scheduler {
        self.seat.scheduler()
    }

    /// Who picks the servers, to fetch its faults.
    pub fn scheduler_mut(&mut self) -> &mut dyn Scheduler {
        self.seat.scheduler_mut()
    }

    /// Puts another scheduler in the place of the one that is there, until the next plan.
    pub fn set_scheduler(&mut self, scheduler: Box<dyn Scheduler>, plan: SchedulerPlan, now: Instant) {
        self.seat.change(scheduler, plan, now);
        self.seat.update(&self.views, now);
        self.seat.listen(now);
    }

    /// Puts a shadow beside the scheduler, or takes it away.
    pub fn set_shadow(&mut self, shadow: Option<(Box<dyn Scheduler>, SchedulerPlan)>, now: Instant) {
        self.seat.set_shadow(shadow, now);
        self.seat.update(&self.views, now);
        self.seat.listen(now);
    }

    /// After a fault of the scheduler: puts the one before it back, where this one is on trial and has had too many of
    /// them. Returns the name of the one that had to go.
    pub fn judge(&mut self, now: Instant) -> Option<String> {
        self.seat.judge(&self.views, now)
    }

    /// Whether the scheduler came in the place of another one not long ago, and could be taken back.
    #[must_use]
    pub fn is_on_trial(&self, now: Instant) -> bool {
        self.seat.is_on_trial(now)
    }

    /// How its shadow compares, if it has one.
    #[must_use]
    pub fn shadow(&self) -> Option<ShadowStatus> {
        self.seat.shadow(&self.views)
    }

    /// How the plan describes its shadow.
    #[must_use]
    pub fn shadow_plan(&self) -> Option<&SchedulerPlan> {
        self.seat.shadow_plan()
    }

    /// How the plan describes the scheduler.
    #[must_use]
    pub const fn scheduler_plan(&self) -> &SchedulerPlan {
        self.seat.plan()
    }

    fn set_servers(&mut self, plans: &[ServerPlan], now: Instant) {
        for place in &mut self.servers {
            if let Some(server) = place {
                server.view = None;
                if server.is_idle() && !plans.iter().any(|plan| is_same(server, plan)) {
                    *place = None;
                }
            }
        }
        self.views.clear();
        self.loads.clear();
        self.slots.clear();
        for (plan, view) in plans.iter().zip(0_u16..) {
            let slot = self.place_for(plan);
            let Some(server) = self.servers.get_mut(slot) else { continue };
            let server = server.get_or_insert_with(|| Server::new(plan));
            server.name.clone_from(&plan.name);
            server.weight = plan.weight;
            // A server that is full stays so until it is below its lower bound, or has a higher upper one.
            server.is_full &= plan.flows_upper > 0 && plan.flows_upper <= server.flows_upper;
            server.flows_upper = plan.flows_upper;
            server.flows_lower = plan.flows_lower;
            server.agent_port = plan.agent_port;
            server.view = Some(view);
            self.slots.push(u16::try_from(slot).unwrap_or(u16::MAX));
        }
        self.set_agents(now);
        self.set_views();
        self.slow_start.slow_down(&mut self.views, now);
        self.seat.update(&self.views, now);
        self.seat.listen(now);
    }

    /// Makes the list that the scheduler knows of the servers of the plan.
    fn set_views(&mut self) {
        for place in 0..self.slots.len() {
            let slot = self.slots.get(place).map_or(usize::MAX, |slot| usize::from(*slot));
            let Some(Some(server)) = self.servers.get(slot) else { continue };
            self.loads.push(server.load);
            self.views.push(ServerView {
                id: ServerId::of(server.address, server.port),
                address: server.address.into(),
                port: server.port,
                weight: server.effective_weight(),
                is_up: true,
                is_full: false,
            });
            self.settle_bounds(place);
        }
        let has_bounds = self.members().any(|server| server.bounds().0 > 0);
        self.has_bounds = has_bounds;
    }

    /// The place of the server of `plan`: its old one, a free one, or a new one at the end.
    fn place_for(&mut self, plan: &ServerPlan) -> usize {
        let is_its = |place: &Option<Server>| place.as_ref().is_some_and(|server| is_same(server, plan));
        let known = self.servers.iter().position(is_its);
        known.or_else(|| self.servers.iter().position(Option::is_none)).unwrap_or_else(|| {
            self.servers.push(None);
            self.servers.len() - 1
        })
    }
}

/// What is told of a flow that has ended.
fn closed(departed: &Departed, hash: u64, server: u16, now: Instant) -> FlowClosed {
    let Departed { entry, birth } = departed;
    let (to, from) = (entry.tally(Direction::Original), entry.tally(Direction::Reply));
    FlowClosed {
        hash,
        server,
        end: end(entry),
        packets_to: to.packets(),
        packets_from: from.packets(),
        bytes_to: to.bytes(),
        bytes_from: from.bytes(),
        lived: birth.map(|birth| now.since(birth.at)),
        answered: birth.and_then(|birth| birth.answered),
    }
}

/// How a flow has ended, by what was seen of it.
fn end(entry: &FlowEntry) -> FlowEnd {
    match entry.state {
        FlowState::TimeWait => FlowEnd::Finished,
        FlowState::Closed => FlowEnd::Reset,
        FlowState::SynSent => FlowEnd::Unanswered,
        FlowState::Udp | FlowState::Icmp
            if entry.tally(Direction::Reply).packets() == 0 && !entry.is_one_sided() =>
        {
            FlowEnd::Unanswered
        }
        FlowState::Udp
        | FlowState::Icmp
        | FlowState::SynReceived
        | FlowState::Established
        | FlowState::FinClient
        | FlowState::FinServer => FlowEnd::Idle,
    }
}

fn is_same(server: &Server, plan: &ServerPlan) -> bool {
    server.address == Address::from(plan.address) && server.port == plan.port
}

/// A flow that was active is so no more, or the other way round.
#[inline]
const fn recount(load: &mut ServerLoad, was_active: bool) {
    count(load, was_active, false);
    count(load, !was_active, true);
}

#[inline]
const fn count(load: &mut ServerLoad, is_active: bool, is_more: bool) {
    let number = if is_active { &mut load.active } else { &mut load.inactive };
    *number = if is_more { number.saturating_add(1) } else { number.saturating_sub(1) };
}
