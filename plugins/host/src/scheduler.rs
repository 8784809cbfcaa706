//! A component as a [`Scheduler`], in each of its three worlds.
//!
//! Gets the engine's questions; gives answers that were checked, and lets the native fallback answer in the same
//! call wherever the guest did not, must not or may not: no flow waits and none is lost.

use std::collections::VecDeque;
use std::fmt;

use evenkeel_engine::Instant;
use evenkeel_engine::director::{
    Fault, FlowEvent, GuestStats, NewFlow, ProbeAnswer, Scheduler, Selection, ServerLoad, ServerView, Wishes,
};
use evenkeel_engine::wire::{Address, FiveTuple};
use wasmtime::Store;

use crate::contract::{
    Flow, FlowEvent as EventRecord, HashScheduler, Load, NO_ANSWER, Server, Setup, TABLE_MAX, TableScheduler,
};
use crate::engine::Data;
use crate::flows::{Flows, PROBES_MAX, STATE_BYTES_MAX, answer_record, event_record};
use crate::rest::Rest;
use crate::sandbox::{Configured, Effort, Sandbox, Terms, World};

/// Marks a place of a table that leaves the choice to the fallback. No list of servers is long enough for it to
/// be an index.
const NO_ENTRY: u16 = u16::MAX;

/// A component that schedules.
pub(crate) struct ComponentScheduler {
    guest: Guest,
    fallback: Box<dyn Scheduler>,
    setup: Setup,
    /// The servers of the last update, as the guest is told of them.
    servers: Vec<Server>,
    has_usable: bool,
    wants: Wants,
    rest: Rest,
}

/// The guest, by its world.
#[derive(Debug)]
enum Guest {
    /// A table that is out of date is empty.
    Table {
        sandbox: Sandbox<TableScheduler>,
        table: Vec<u16>,
        is_due: bool,
    },
    Hashes {
        sandbox: Sandbox<HashScheduler>,
        hashes: Vec<u64>,
    },
    Flows {
        sandbox: Box<Sandbox<Flows>>,
        flows: Vec<Flow>,
        loads: Vec<Load>,
        events: Vec<EventRecord>,
        /// Servers that the guest wants to be asked, and whether it was asked for them since its last answer.
        probes: VecDeque<u16>,
        has_picked: bool,
    },
}

/// Hands an expression the sandbox, whatever its world.
macro_rules! with_sandbox {
    ($guest:expr, $sandbox:ident => $body:expr) => {
        match $guest {
            Guest::Table { sandbox: $sandbox, .. } => $body,
            Guest::Hashes { sandbox: $sandbox, .. } => $body,
            Guest::Flows { sandbox: $sandbox, .. } => $body,
        }
    };
}

/// What a guest wants to be told.
#[derive(Clone, Copy, Debug, Default)]
struct Wants {
    loads: bool,
    hears: Wishes,
}

impl fmt::Debug for ComponentScheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComponentScheduler")
            .field("guest", &self.guest)
            .field("fallback", &self.fallback)
            .field("wants", &self.wants)
            .finish_non_exhaustive()
    }
}

/// A compiled component, by the world that it offers.
pub(crate) enum Offer {
    Table(Terms<TableScheduler>),
    Hashes(Terms<HashScheduler>),
    Flows(Terms<Flows>),
}

impl ComponentScheduler {
    /// Configures the guest once, so that the operator hears of bad options before anything is forwarded.
    pub(crate) fn new(offer: Offer, mut setup: Setup, fallback: Box<dyn Scheduler>) -> Result<Self, String> {
        let mut guest = match offer {
            Offer::Table(terms) => {
                Guest::Table { sandbox: Sandbox::new(terms), table: Vec::new(), is_due: false }
            }
            Offer::Hashes(terms) => Guest::Hashes { sandbox: Sandbox::new(terms), hashes: Vec::new() },
            Offer::Flows(terms) => Guest::Flows {
                sandbox: Box::new(Sandbox::new(terms)),
                flows: Vec::new(),
                loads: Vec::new(),
                events: Vec::new(),
                probes: VecDeque::new(),
                has_picked: false,
            },
        };
        let wants = with_sandbox!(&mut guest, sandbox => try_out(sandbox, &mut setup))?;
        let (servers, rest) = (Vec::new(), Rest::default());
        Ok(Self { guest, fallback, setup, servers, has_usable: false, wants, rest })
    }
}

/// What differs between the worlds when a guest begins.
trait Begin: World {
    fn configure(&self, store: &mut Store<Data>, setup: &Setup) -> Configured<Wants>;

    /// Tells of the servers, where the world has a call for that.
    fn update(&self, store: &mut Store<Data>, servers: &[Server], now: u64) -> wasmtime::Result<()>;
}

impl Begin for Flows {
    fn configure(&self, store: &mut Store<Data>, setup: &Setup) -> Configured<Wants> {
        match self.schedule.evenkeel_plugin_schedule().call_configure(&mut *store, setup)? {
            Ok(wishes) => Ok(Ok(Wants { loads: wishes.loads, hears: self.listen(store)? })),
            Err(error) => Ok(Err(error)),
        }
    }

    fn update(&self, store: &mut Store<Data>, servers: &[Server], now: u64) -> wasmtime::Result<()> {
        self.schedule.evenkeel_plugin_schedule().call_update(store, servers, now)
    }
}

impl Begin for HashScheduler {
    fn configure(&self, store: &mut Store<Data>, setup: &Setup) -> Configured<Wants> {
        Ok(self.evenkeel_plugin_schedule_by_hash().call_configure(store, setup)?.map(|()| Wants::default()))
    }

    fn update(&self, store: &mut Store<Data>, servers: &[Server], now: u64) -> wasmtime::Result<()> {
        self.evenkeel_plugin_schedule_by_hash().call_update(store, servers, now)
    }
}

impl Begin for TableScheduler {
    fn configure(&self, store: &mut Store<Data>, setup: &Setup) -> Configured<Wants> {
        Ok(self.evenkeel_plugin_schedule_by_table().call_configure(store, setup)?.map(|()| Wants::default()))
    }

    /// A table guest hears of the servers when it builds.
    fn update(&self, _: &mut Store<Data>, _: &[Server], _: u64) -> wasmtime::Result<()> {
        Ok(())
    }
}

/// Makes a new instance and configures it.
fn begin<W: Begin>(sandbox: &mut Sandbox<W>, setup: &mut Setup, now: Instant) -> Option<Wants> {
    setup.now = now.as_nanos();
    sandbox.begin(now, |world, store| world.configure(store, setup))
}

/// Configures a guest that is not used yet, and tells why it refuses.
fn try_out<W: Begin>(sandbox: &mut Sandbox<W>, setup: &mut Setup) -> Result<Wants, String> {
    let wants = begin(sandbox, setup, Instant::ZERO);
    sandbox.end_trial().map_or_else(|| wants.ok_or_else(String::new), Err)
}

/// Tells the guest of the servers; a guest without an instance gets one first.
fn update<W: Begin>(
    sandbox: &mut Sandbox<W>,
    setup: &mut Setup,
    servers: &[Server],
    now: Instant,
) -> Option<()> {
    if !sandbox.is_live() {
        begin(sandbox, setup, now)?;
    }
    let call = |world: &W, store: &mut Store<Data>| world.update(store, servers, now.as_nanos());
    sandbox.call("update", Effort::Setup, now, call)
}

/// Sees to it that there is an instance that may be called and knows the servers.
fn ready<W: Begin>(
    sandbox: &mut Sandbox<W>,
    setup: &mut Setup,
    servers: &[Server],
    now: Instant,
) -> Option<()> {
    if !sandbox.may_call(now) {
        return None;
    }
    if sandbox.is_live() { Some(()) } else { update(sandbox, setup, servers, now) }
}

/// Gives each flow the server that the guest answered, as far as it did and the server may be used.
fn take_answers<W: World>(
    sandbox: &mut Sandbox<W>,
    selection: &mut Selection<'_>,
    answers: &[u32],
    now: Instant,
) {
    let wanted = selection.flows().len();
    if answers.len() != wanted {
        let reason = format!("it answered {} of {wanted} flows", answers.len());
        return sandbox.refuse("pick", reason, Effort::Call, now);
    }
    let mut refused = None;
    let mut decided = 0;
    for (flow, answer) in answers.iter().enumerate() {
        if *answer == NO_ANSWER {
            continue;
        }
        if usize::try_from(*answer).is_ok_and(|server| selection.assign(flow, server)) {
            decided += 1;
        } else {
            refused = refused.or(Some(*answer));
        }
    }
    sandbox.stats_mut().decided += decided;
    match refused {
        None => sandbox.succeeded(now),
        Some(answer) => {
            let reason = unusable("picked", answer, selection.servers().len());
            sandbox.refuse("pick", reason, Effort::Call, now);
        }
    }
}

fn unusable(verb: &str, answer: u32, servers: usize) -> String {
    if usize::try_from(answer).is_ok_and(|answer| answer < servers) {
        format!("it {verb} server {answer}, which is down or drained")
    } else {
        format!("it {verb} server {answer}, and there are {servers}, counted from 0")
    }
}

/// Builds the table in a fresh instance, which is gone afterwards: a table guest costs no memory between changes.
fn build(
    sandbox: &mut Sandbox<TableScheduler>,
    setup: &mut Setup,
    servers: &[Server],
    now: Instant,
) -> Option<Vec<u16>> {
    begin(sandbox, setup, now)?;
    let answer = sandbox.call("build", Effort::Setup, now, |world, store| {
        world.evenkeel_plugin_schedule_by_table().call_build(store, servers, now.as_nanos())
    });
    sandbox.drop_instance();
    match check_table(&answer?, servers) {
        Ok(table) => {
            sandbox.succeeded(now);
            Some(table)
        }
        Err(reason) => {
            sandbox.refuse("build", reason, Effort::Setup, now);
            None
        }
    }
}

fn check_table(answer: &[u32], servers: &[Server]) -> Result<Vec<u16>, String> {
    if answer.is_empty() || answer.len() > TABLE_MAX {
        return Err(format!("its table has {} entries, and 1 to {TABLE_MAX} are allowed", answer.len()));
    }
    let entry = |entry: &u32| {
        if *entry == NO_ANSWER {
            return Ok(NO_ENTRY);
        }
        let index = u16::try_from(*entry).ok().filter(|index| *index != NO_ENTRY);
        let server = index.and_then(|index| servers.get(usize::from(index)));
        // A server that is full has its places; the fallback takes the flows that meet it there.
        let is_usable = server.is_some_and(|server| (server.is_up || server.is_full) && server.weight > 0);
        index.filter(|_| is_usable).ok_or_else(|| unusable("put into its table", *entry, servers.len()))
    };
    answer.iter().map(entry).collect()
}

/// Looks flows up in the table.
fn look_up(table: &[u16], selection: &mut Selection<'_>) -> u64 {
    let Some(length) = u64::try_from(table.len()).ok().filter(|length| *length > 0) else { return 0 };
    let mut decided = 0;
    for (flow, new) in selection.flows().iter().enumerate() {
        let entry = usize::try_from(new.hash % length).ok().and_then(|place| table.get(place));
        if let Some(server) = entry
            && *server != NO_ENTRY
            && selection.assign(flow, usize::from(*server))
        {
            decided += 1;
        }
    }
    decided
}

fn record(new: &NewFlow) -> Flow {
    let FiveTuple { source, destination, source_port, destination_port, protocol } = new.tuple;
    let ([source_high, source_low], [destination_high, destination_low]) =
        (source.halves(), destination.halves());
    Flow {
        hash: new.hash,
        source_high,
        source_low,
        destination_high,
        destination_low,
        source_port,
        destination_port,
        protocol: protocol.0,
    }
}

fn server_record(view: &ServerView) -> Server {
    let [address_high, address_low] = Address::from(view.address).halves();
    let ServerView { id, port, weight, is_up, is_full, .. } = *view;
    Server { id: id.0, address_high, address_low, port, weight, is_up, is_full }
}

impl ComponentScheduler {
    /// Asks the guest, or its table; gives the number of flows that have a server afterwards.
    fn ask(&mut self, selection: &mut Selection<'_>, now: Instant) -> Option<()> {
        let Self { guest, setup, servers, wants, .. } = self;
        match guest {
            Guest::Table { sandbox, table, is_due } => {
                if *is_due && sandbox.may_call(now) {
                    *is_due = false;
                    *table = build(sandbox, setup, servers, now).unwrap_or_default();
                }
                sandbox.stats_mut().decided += look_up(table, selection);
            }
            Guest::Hashes { sandbox, hashes } => {
                ready(sandbox, setup, servers, now)?;
                let time = now.as_nanos();
                if let [flow] = selection.flows() {
                    let answer = sandbox.call("pick-one", Effort::Call, now, |world, store| {
                        world.evenkeel_plugin_schedule_by_hash().call_pick_one(store, flow.hash, time)
                    })?;
                    take_answers(sandbox, selection, &[answer], now);
                    return Some(());
                }
                hashes.clear();
                hashes.extend(selection.flows().iter().map(|flow| flow.hash));
                let answers = sandbox.call("pick", Effort::Call, now, |world, store| {
                    world.evenkeel_plugin_schedule_by_hash().call_pick(store, hashes, time)
                })?;
                take_answers(sandbox, selection, &answers, now);
            }
            Guest::Flows { sandbox, flows, loads, has_picked, .. } => {
                ready(sandbox, setup, servers, now)?;
                *has_picked = true;
                let time = now.as_nanos();
                if let ([flow], false) = (selection.flows(), wants.loads) {
                    let answer = sandbox.call("pick-one", Effort::Call, now, |world, store| {
                        world.schedule.evenkeel_plugin_schedule().call_pick_one(store, record(flow), time)
                    })?;
                    take_answers(sandbox, selection, &[answer], now);
                    return Some(());
                }
                flows.clear();
                flows.extend(selection.flows().iter().map(record));
                loads.clear();
                if wants.loads {
                    let load = |load: &ServerLoad| Load { active: load.active, inactive: load.inactive };
                    loads.extend(selection.loads().iter().map(load));
                }
                let answers = sandbox.call("pick", Effort::Call, now, |world, store| {
                    world.schedule.evenkeel_plugin_schedule().call_pick(store, flows, loads, time)
                })?;
                take_answers(sandbox, selection, &answers, now);
            }
        }
        Some(())
    }
}

impl Scheduler for ComponentScheduler {
    fn name(&self) -> &str {
        with_sandbox!(&self.guest, sandbox => sandbox.component())
    }

    fn update(&mut self, servers: &[ServerView], now: Instant) {
        self.fallback.update(servers, now);
        self.servers = servers.iter().map(server_record).collect();
        self.has_usable = servers.iter().any(ServerView::is_usable);
        let Self { guest, setup, servers, .. } = self;
        match guest {
            Guest::Table { sandbox, table, is_due } => {
                *table = Vec::new();
                *is_due = self.has_usable;
                if *is_due && sandbox.may_call(now) {
                    *is_due = false;
                    *table = build(sandbox, setup, servers, now).unwrap_or_default();
                }
            }
            Guest::Hashes { sandbox, .. } => tell(sandbox, setup, servers, now),
            Guest::Flows { sandbox, .. } => tell(sandbox, setup, servers, now),
        }
    }

    fn pick(&mut self, selection: &mut Selection<'_>, now: Instant) {
        let count = selection.flows().len();
        if count == 0 || !self.has_usable {
            return;
        }
        let decided_before = self.stats().decided;
        // Whatever the guest did not answer is answered below.
        let _ = self.ask(selection, now);
        let decided = self.stats().decided - decided_before;
        if usize::try_from(decided).is_ok_and(|decided| decided < count) {
            let fallbacks = self.rest.answer(self.fallback.as_mut(), selection, decided == 0, now);
            with_sandbox!(&mut self.guest, sandbox => sandbox.stats_mut().fallbacks += fallbacks);
        }
    }

    fn wishes(&self) -> Wishes {
        self.wants.hears.or(self.fallback.wishes())
    }

    fn hear(&mut self, events: &[FlowEvent], now: Instant) {
        tell_fallback(&mut *self.fallback, events, now);
        let hears = self.wants.hears;
        let Guest::Flows { sandbox, events: records, .. } = &mut self.guest else { return };
        records.clear();
        records.extend(events.iter().filter(|event| hears.has(event)).map(event_record));
        if records.is_empty() {
            return;
        }
        let _ = call(sandbox, ("hear", Effort::Call), now, |world, store| {
            let Some(feedback) = &world.feedback else { return Ok(()) };
            feedback.evenkeel_plugin_feedback().call_hear(store, records, now.as_nanos())
        });
    }

    fn tick(&mut self, now: Instant) {
        if self.fallback.wishes().tick.is_some() {
            self.fallback.tick(now);
        }
        let Guest::Flows { sandbox, .. } = &mut self.guest else { return };
        if self.wants.hears.tick.is_none() {
            return;
        }
        let _ = call(sandbox, ("tick", Effort::Call), now, |world, store| {
            let Some(feedback) = &world.feedback else { return Ok(()) };
            feedback.evenkeel_plugin_feedback().call_tick(store, now.as_nanos())
        });
    }

    fn poll_probe(&mut self, now: Instant) -> Option<u16> {
        if let Some(server) = self.fallback.poll_probe(now) {
            return Some(server);
        }
        let count = self.servers.len();
        let Guest::Flows { sandbox, probes, has_picked, .. } = &mut self.guest else { return None };
        if self.wants.hears.probes && probes.is_empty() && std::mem::take(has_picked) {
            let wanted = call(sandbox, ("poll-probes", Effort::Call), now, |world, store| {
                let Some(feedback) = &world.feedback else { return Ok(Vec::new()) };
                feedback.evenkeel_plugin_feedback().call_poll_probes(store, now.as_nanos())
            })?;
            let wanted = wanted.iter().take(PROBES_MAX).filter_map(|server| u16::try_from(*server).ok());
            probes.extend(wanted.filter(|server| usize::from(*server) < count));
        }
        probes.pop_front()
    }

    fn probe_answered(&mut self, answer: ProbeAnswer, now: Instant) {
        if self.fallback.wishes().probes {
            self.fallback.probe_answered(answer, now);
        }
        let Guest::Flows { sandbox, .. } = &mut self.guest else { return };
        if !self.wants.hears.probes {
            return;
        }
        let _ = call(sandbox, ("probe-answered", Effort::Call), now, |world, store| {
            let Some(feedback) = &world.feedback else { return Ok(()) };
            let answer = answer_record(answer);
            feedback.evenkeel_plugin_feedback().call_probe_answered(store, answer, now.as_nanos())
        });
    }

    fn save(&mut self, now: Instant) -> Option<Vec<u8>> {
        let Guest::Flows { sandbox, .. } = &mut self.guest else { return None };
        let state = call(sandbox, ("save", Effort::Handover), now, |world, store| {
            let Some(snapshot) = &world.snapshot else { return Ok(Vec::new()) };
            snapshot.evenkeel_plugin_snapshot().call_save(store, now.as_nanos())
        })?;
        (!state.is_empty() && state.len() <= STATE_BYTES_MAX).then_some(state)
    }

    fn restore(&mut self, state: &[u8], now: Instant) -> bool {
        let Guest::Flows { sandbox, .. } = &mut self.guest else { return false };
        if !sandbox.is_live() && begin(sandbox, &mut self.setup, now).is_none() {
            return false;
        }
        let restored = call(sandbox, ("restore", Effort::Handover), now, |world, store| {
            let Some(snapshot) = &world.snapshot else { return Ok(false) };
            snapshot.evenkeel_plugin_snapshot().call_restore(store, state, now.as_nanos())
        });
        restored.unwrap_or(false)
    }

    /// A guest that builds tables leaves all that it knows in its table.
    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        let Guest::Table { table, is_due: false, .. } = &self.guest else { return None };
        let name = self.name().to_owned();
        let (table, fallback, has_usable) = (table.clone(), self.fallback.fork()?, self.has_usable);
        Some(Box::new(Built { name, table, fallback, has_usable, rest: Rest::default() }))
    }

    fn stats(&self) -> GuestStats {
        with_sandbox!(&self.guest, sandbox => sandbox.stats())
    }

    fn take_fault(&mut self) -> Option<Fault> {
        with_sandbox!(&mut self.guest, sandbox => sandbox.take_fault())
    }
}

/// What a guest has built, without the guest: as long as the servers stay as they are, it schedules alike.
#[derive(Debug)]
struct Built {
    name: String,
    table: Vec<u16>,
    fallback: Box<dyn Scheduler>,
    has_usable: bool,
    rest: Rest,
}

impl Scheduler for Built {
    fn name(&self) -> &str {
        &self.name
    }

    fn update(&mut self, servers: &[ServerView], now: Instant) {
        self.fallback.update(servers, now);
    }

    fn pick(&mut self, selection: &mut Selection<'_>, now: Instant) {
        if self.has_usable {
            let decided = look_up(&self.table, selection);
            self.rest.answer(self.fallback.as_mut(), selection, decided == 0, now);
        }
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        let Self { name, table, fallback, has_usable, .. } = self;
        let (name, table, fallback) = (name.clone(), table.clone(), fallback.fork()?);
        Some(Box::new(Self { name, table, fallback, has_usable: *has_usable, rest: Rest::default() }))
    }
}

/// Calls a guest about something that is not a question. One without an instance has nothing to remember, and is not
/// called.
fn call<R>(
    sandbox: &mut Sandbox<Flows>,
    (name, effort): (&'static str, Effort),
    now: Instant,
    call: impl FnOnce(&Flows, &mut Store<Data>) -> wasmtime::Result<R>,
) -> Option<R> {
    if !sandbox.is_live() || !sandbox.may_call(now) {
        return None;
    }
    let result = sandbox.call(name, effort, now, call)?;
    sandbox.succeeded(now);
    Some(result)
}

/// Tells the fallback of what it wishes to hear, which may be less than the guest does.
fn tell_fallback(fallback: &mut dyn Scheduler, events: &[FlowEvent], now: Instant) {
    let wishes = fallback.wishes();
    if wishes == Wishes::default() {
        return;
    }
    let wished: Vec<FlowEvent> = events.iter().filter(|event| wishes.has(event)).copied().collect();
    if !wished.is_empty() {
        fallback.hear(&wished, now);
    }
}

/// Tells the guest of the servers now, or when it may next be called.
fn tell<W: Begin>(sandbox: &mut Sandbox<W>, setup: &mut Setup, servers: &[Server], now: Instant) {
    if !sandbox.may_call(now) {
        // The next instance starts with these servers.
        sandbox.drop_instance();
    } else if update(sandbox, setup, servers, now).is_some() {
        sandbox.succeeded(now);
    }
}
