//! Plays the forwarder in native tests: scripted flows in, checked answers out.
//!
//! A kit calls the guest in the order of the contract, counts loads as the forwarder does, and panics where the
//! forwarder would count a fault. Nothing in it is random: the same test sees the same flows every time.
//!
//! # Examples
//! See the [crate's documentation](crate#examples) and the tests of the bundled guests.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::net::Ipv4Addr;
use core::time::Duration;

use crate::export::glue;
use crate::types::{describe, halves};
use crate::{
    Arrival, ConfigureError, Decision, Flow, FlowEvent, Happening, HashScheduler, Instant, Load, NO_ANSWER,
    PROTOCOL_TCP, Policy, PolicySetup, PolicyWishes, Scheduler, Server, Setup, TableScheduler, Verdict,
    Wishes,
};

/// How many flows a batch of [`Kit::shares`] has.
pub const BATCH: usize = 32;

/// The shortest time between two ticks, as the forwarder has it.
const TICK_MIN: Duration = Duration::from_millis(1);

/// The scripted server `number`: 10.0.3.1 and following, port 80, up.
#[must_use]
pub fn server(number: usize, weight: u32) -> Server {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    let (address_high, address_low) = halves(Ipv4Addr::from_bits(0x0a00_0301_u32.saturating_add(number)));
    Server {
        id: mix(u64::from(number) + 1),
        address_high,
        address_low,
        port: 80,
        weight,
        is_up: true,
        is_full: false,
    }
}

/// The scripted flow `number`: TCP to 10.0.0.3:80, each from another address of 198.18.0.0/15 and on.
#[must_use]
pub fn flow(number: u32) -> Flow {
    flow_from(Ipv4Addr::from_bits(0xc612_0001_u32.saturating_add(number)), u64::from(number))
}

/// A scripted TCP flow to 10.0.0.3:80 from `source`; flows of another `salt` have another hash.
#[must_use]
pub fn flow_from(source: Ipv4Addr, salt: u64) -> Flow {
    let (source_high, source_low) = halves(source);
    let (destination_high, destination_low) = halves(Ipv4Addr::new(10, 0, 0, 3));
    Flow {
        hash: mix(source_low.rotate_left(32) ^ salt),
        source_high,
        source_low,
        destination_high,
        destination_low,
        source_port: 40_000,
        destination_port: 80,
        protocol: PROTOCOL_TCP,
    }
}

/// Spreads numbers over 64 bits (the finalizer of SplitMix64).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// What a guest is told when it begins, with these options.
#[must_use]
pub fn setup(options: &str) -> Setup {
    Setup { name: "kit".to_owned(), options: options.to_owned(), seed: 1, now: 0, worker: 0 }
}

/// One of the three kinds of schedulers, driven alike. Implemented here for each.
pub trait Driver: Sized {
    /// Configures the guest.
    ///
    /// # Errors
    /// Those of the guest, and unknown options.
    fn configure(setup: &Setup) -> Result<Self, ConfigureError>;
    /// Tells of new servers.
    fn update(&mut self, servers: &[Server], now: Instant);
    /// Answers a batch.
    fn pick(&mut self, flows: &[Flow], loads: &[Load], now: Instant) -> Vec<u32>;
    /// Tells what has become of a flow, where the guest asked for it.
    fn hear(&mut self, event: &FlowEvent, now: Instant) {
        let _ = (event, now);
    }
    /// Lets the time pass that lies between two points, with the ticks that the guest asked for.
    fn pass(&mut self, from: Instant, to: Instant) {
        let _ = (from, to);
    }
    /// Puts a new instance in the place of this one, with its state where it has one; says whether it was taken over.
    ///
    /// # Errors
    /// Those of the guest.
    fn replace(&mut self, setup: &Setup, now: Instant) -> Result<bool, ConfigureError>;
}

/// Drives a [`Scheduler`].
#[derive(Debug)]
pub struct Flows<G> {
    guest: G,
    wishes: Wishes,
}

impl<G: Scheduler> Driver for Flows<G> {
    fn configure(setup: &Setup) -> Result<Self, ConfigureError> {
        glue::scheduler(setup).map(|(guest, wishes)| Self { guest, wishes })
    }
    fn update(&mut self, servers: &[Server], now: Instant) {
        self.guest.update(servers, now);
    }
    fn pick(&mut self, flows: &[Flow], loads: &[Load], now: Instant) -> Vec<u32> {
        match flows {
            [flow] if !self.wishes.loads => vec![glue::pick_one(&mut self.guest, flow, now.as_nanos())],
            _ => {
                let loads = if self.wishes.loads { loads.to_vec() } else { Vec::new() };
                glue::pick(&mut self.guest, flows, loads, now.as_nanos())
            }
        }
    }
    fn hear(&mut self, event: &FlowEvent, now: Instant) {
        let is_wished = match event.what {
            Happening::Opened => self.wishes.opened,
            Happening::Answered => self.wishes.answered,
            Happening::Finished | Happening::Reset | Happening::Idle | Happening::Unanswered => {
                self.wishes.closed
            }
        };
        if is_wished {
            self.guest.hear(core::slice::from_ref(event), now);
        }
    }
    fn pass(&mut self, from: Instant, to: Instant) {
        if self.wishes.tick.is_zero() {
            return;
        }
        let interval = self.wishes.tick.max(TICK_MIN);
        let mut next = from.after(interval);
        while next <= to {
            self.guest.tick(next);
            next = next.after(interval);
        }
    }
    fn replace(&mut self, setup: &Setup, now: Instant) -> Result<bool, ConfigureError> {
        let state = self.guest.save(now);
        let (mut guest, wishes) = glue::scheduler::<G>(setup)?;
        let is_restored = !state.is_empty() && guest.restore(&state, now);
        *self = Self { guest, wishes };
        Ok(is_restored)
    }
}

/// Drives a [`HashScheduler`].
#[derive(Debug)]
pub struct Hashes<G>(G);

impl<G: HashScheduler> Driver for Hashes<G> {
    fn configure(setup: &Setup) -> Result<Self, ConfigureError> {
        glue::hash_scheduler(setup).map(Self)
    }
    fn update(&mut self, servers: &[Server], now: Instant) {
        self.0.update(servers, now);
    }
    fn pick(&mut self, flows: &[Flow], _: &[Load], now: Instant) -> Vec<u32> {
        let hashes: Vec<u64> = flows.iter().map(|flow| flow.hash).collect();
        glue::pick_hashes(&mut self.0, &hashes, now.as_nanos())
    }
    fn replace(&mut self, setup: &Setup, _: Instant) -> Result<bool, ConfigureError> {
        *self = Self::configure(setup)?;
        Ok(false)
    }
}

/// Drives a [`TableScheduler`].
#[derive(Debug)]
pub struct Tables<G> {
    guest: G,
    table: Vec<u32>,
}

impl<G: TableScheduler> Driver for Tables<G> {
    fn configure(setup: &Setup) -> Result<Self, ConfigureError> {
        glue::table_scheduler(setup).map(|guest| Self { guest, table: Vec::new() })
    }
    fn update(&mut self, servers: &[Server], now: Instant) {
        if servers.iter().any(Server::is_usable) {
            self.table = self.guest.build(servers, now);
            assert!((1..=1 << 20).contains(&self.table.len()), "a table of {} entries", self.table.len());
            for entry in &self.table {
                check(servers, *entry);
            }
        }
    }
    fn pick(&mut self, flows: &[Flow], _: &[Load], _: Instant) -> Vec<u32> {
        let length = u64::try_from(self.table.len()).unwrap_or(1).max(1);
        let entry = |flow: &Flow| self.table.get(usize::try_from(flow.hash % length).ok()?).copied();
        flows.iter().map(|flow| entry(flow).unwrap_or(NO_ANSWER)).collect()
    }
    fn replace(&mut self, setup: &Setup, _: Instant) -> Result<bool, ConfigureError> {
        *self = Self::configure(setup)?;
        Ok(false)
    }
}

/// The server that an answer names, if it names one.
fn check(servers: &[Server], answer: u32) -> Option<usize> {
    if answer == NO_ANSWER {
        return None;
    }
    let index = usize::try_from(answer).unwrap_or(usize::MAX);
    let server = servers.get(index);
    assert!(server.is_some(), "server {index} does not exist");
    assert!(server.is_some_and(Server::is_usable), "server {index} may not be used");
    Some(index)
}

/// A forwarder with one director, as a scheduler sees it.
#[derive(Debug)]
pub struct Kit<D> {
    driver: D,
    options: String,
    servers: Vec<Server>,
    loads: Vec<Load>,
    open: Vec<Open>,
    next_flow: u32,
    now: Instant,
}

/// A flow that is open.
#[derive(Clone, Copy, Debug)]
struct Open {
    hash: u64,
    server: u32,
    began: Instant,
    answered: Option<Duration>,
}

impl Open {
    /// What the guest is told when something happens to it.
    fn event(&self, what: Happening, now: Instant) -> FlowEvent {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let is_over = !matches!(what, Happening::Opened | Happening::Answered);
        FlowEvent {
            hash: self.hash,
            server: self.server,
            what,
            is_through_client: false,
            answered: self.answered.map_or(u64::MAX, nanos),
            lived: if is_over { now.nanos_since(self.began) } else { u64::MAX },
            packets_to: u32::from(is_over),
            packets_from: u32::from(is_over && self.answered.is_some()),
            bytes_to: if is_over { 40 } else { 0 },
            bytes_from: if is_over && self.answered.is_some() { 40 } else { 0 },
        }
    }
}

/// Tests a [`Scheduler`].
pub type SchedulerKit<G> = Kit<Flows<G>>;
/// Tests a [`HashScheduler`].
pub type HashSchedulerKit<G> = Kit<Hashes<G>>;
/// Tests a [`TableScheduler`].
pub type TableSchedulerKit<G> = Kit<Tables<G>>;

impl<D: Driver> Kit<D> {
    /// Configures the guest with the text of its options.
    ///
    /// # Errors
    /// What the operator would read.
    pub fn new(options: &str) -> Result<Self, ConfigureError> {
        let driver = D::configure(&setup(options))?;
        let (servers, loads, open) = (Vec::new(), Vec::new(), Vec::new());
        let options = options.to_owned();
        Ok(Self { driver, options, servers, loads, open, next_flow: 0, now: Instant::default() })
    }

    /// Replaces the servers by scripted ones with these weights, all of them up and without flows.
    pub fn servers(&mut self, weights: &[u32]) {
        self.servers = weights.iter().enumerate().map(|(number, weight)| server(number, *weight)).collect();
        self.loads = vec![Load { active: 0, inactive: 0 }; weights.len()];
        self.open.clear();
        self.driver.update(&self.servers, self.now);
    }

    /// Changes the state of one server.
    ///
    /// # Panics
    /// When there is no such server.
    pub fn set_up(&mut self, index: usize, is_up: bool) {
        self.server_mut(index).is_up = is_up;
        self.driver.update(&self.servers, self.now);
    }

    /// Changes the weight of one server.
    ///
    /// # Panics
    /// When there is no such server.
    pub fn set_weight(&mut self, index: usize, weight: u32) {
        self.server_mut(index).weight = weight;
        self.driver.update(&self.servers, self.now);
    }

    /// Lets one batch of new flows arrive and tells where each goes; `None` where the fallback would choose.
    ///
    /// # Panics
    /// When an answer is one that the forwarder refuses.
    pub fn pick(&mut self, count: usize) -> Vec<Option<usize>> {
        let numbers = (self.next_flow..).take(count);
        let flows: Vec<Flow> = numbers.map(flow).collect();
        self.next_flow += u32::try_from(count).unwrap_or(u32::MAX);
        let answers = self.driver.pick(&flows, &self.loads, self.now);
        assert_eq!(answers.len(), flows.len(), "one answer for each flow");
        flows.iter().zip(answers).map(|(flow, answer)| self.open_flow(flow, answer)).collect()
    }

    /// Lets `count` new flows arrive in batches of [`BATCH`] and counts them per server.
    ///
    /// # Panics
    /// When an answer is missing or is one that the forwarder refuses.
    pub fn shares(&mut self, count: usize) -> Vec<usize> {
        let mut shares = vec![0; self.servers.len()];
        let mut left = count;
        while left > 0 {
            let batch = left.min(BATCH);
            left -= batch;
            for choice in self.pick(batch) {
                let share = choice.and_then(|index| shares.get_mut(index));
                assert!(share.is_some(), "a flow without an answer");
                *share.unwrap_or(&mut 0) += 1;
            }
        }
        shares
    }

    /// Lets a server answer its oldest flow that it has not answered; says whether there was one.
    pub fn answer(&mut self, index: usize) -> bool {
        let wanted = u32::try_from(index).unwrap_or(u32::MAX);
        let now = self.now;
        let mut waiting = self.open.iter_mut().filter(|flow| flow.server == wanted);
        let Some(flow) = waiting.find(|flow| flow.answered.is_none()) else { return false };
        flow.answered = Some(Duration::from_nanos(now.nanos_since(flow.began)));
        let event = flow.event(Happening::Answered, now);
        self.driver.hear(&event, now);
        true
    }

    /// Ends the oldest open flow of a server as both sides would; says whether there was one.
    pub fn close(&mut self, index: usize) -> bool {
        self.end(index, Happening::Finished)
    }

    /// Ends the oldest open flow of a server in this way; says whether there was one.
    pub fn end(&mut self, index: usize, how: Happening) -> bool {
        let wanted = u32::try_from(index).unwrap_or(u32::MAX);
        let Some(place) = self.open.iter().position(|flow| flow.server == wanted) else { return false };
        let flow = self.open.remove(place);
        if let Some(load) = self.loads.get_mut(index) {
            load.active = load.active.saturating_sub(1);
        }
        self.driver.hear(&flow.event(how, self.now), self.now);
        true
    }

    /// Lets time pass, with the ticks that the guest asked for.
    pub fn wait(&mut self, duration: Duration) {
        let before = self.now;
        self.now = before.after(duration);
        self.driver.pass(before, self.now);
    }

    /// Puts a new instance of the guest in the place of this one, as a reload does; says whether it took over the state.
    ///
    /// # Panics
    /// When the new instance refuses its options.
    pub fn replace(&mut self) -> bool {
        let replaced = self.driver.replace(&setup(&self.options), self.now);
        let is_restored = replaced.unwrap_or_else(|error| panic!("{}", message(&error)));
        self.driver.update(&self.servers, self.now);
        is_restored
    }

    /// The loads of the servers.
    #[must_use]
    pub fn loads(&self) -> &[Load] {
        &self.loads
    }

    fn server_mut(&mut self, index: usize) -> &mut Server {
        let servers = self.servers.len();
        self.servers.get_mut(index).unwrap_or_else(|| panic!("no server {index} of {servers}"))
    }

    fn open_flow(&mut self, flow: &Flow, answer: u32) -> Option<usize> {
        let index = check(&self.servers, answer)?;
        if let Some(load) = self.loads.get_mut(index) {
            glue::count(flow, load);
        }
        let open = Open { hash: flow.hash, server: answer, began: self.now, answered: None };
        self.driver.hear(&open.event(Happening::Opened, self.now), self.now);
        self.open.push(open);
        Some(index)
    }
}

impl<G: TableScheduler> TableSchedulerKit<G> {
    /// The table as last built.
    #[must_use]
    pub fn table(&self) -> &[u32] {
        &self.driver.table
    }
}

/// A forwarder with two directors, `web` and `dns`, two interfaces, `tun0` and `tun1`, and a routing table, 200, as a
/// policy sees it.
#[derive(Debug)]
pub struct PolicyKit<G> {
    guest: G,
    wishes: PolicyWishes,
    now: Instant,
}

impl<G: Policy> PolicyKit<G> {
    /// Configures the guest with the text of its options.
    ///
    /// # Errors
    /// What the operator would read.
    pub fn new(options: &str) -> Result<Self, ConfigureError> {
        Self::with_data(options, "")
    }

    /// The same with the content of a file.
    ///
    /// # Errors
    /// What the operator would read.
    pub fn with_data(options: &str, data: &str) -> Result<Self, ConfigureError> {
        let names = |names: [&str; 2]| names.map(ToOwned::to_owned).to_vec();
        let (directors, interfaces) = (names(["web", "dns"]), names(["tun0", "tun1"]));
        let (common, data) = (setup(options), data.to_owned());
        let is_outflow = false;
        let setup = PolicySetup { common, directors, interfaces, tables: vec![200], is_outflow, data };
        let guest: G = glue::policy(&setup)?;
        let wishes = guest.wishes();
        Ok(Self { guest, wishes, now: Instant::default() })
    }

    /// Lets one batch of flows arrive on `tun0` and tells what becomes of each.
    ///
    /// # Panics
    /// As [`PolicyKit::arrive`].
    pub fn decide(&mut self, flows: &[Flow]) -> Vec<Verdict> {
        flows.iter().map(|flow| self.arrive(&Arrival::from(*flow)).verdict).collect()
    }

    /// Lets one flow or packet arrive. Limits are not counted here.
    ///
    /// # Panics
    /// When the answer names a director, table or limit that does not exist.
    pub fn arrive(&mut self, arrival: &Arrival) -> Decision {
        let decision = self.guest.decide(arrival, self.now);
        match decision.verdict {
            Verdict::Director(index) => assert!(index < 2, "director {index} does not exist"),
            Verdict::Table(index) => assert!(index < 1, "routing table {index} does not exist"),
            Verdict::Permit | Verdict::Deny | Verdict::Skip => {}
        }
        let limits = self.wishes.limits.len();
        let is_known = decision.limit.is_none_or(|limit| usize::from(limit) < limits);
        assert!(is_known, "limit {:?} does not exist", decision.limit);
        decision
    }

    /// What the guest wants.
    #[must_use]
    pub const fn wishes(&self) -> &PolicyWishes {
        &self.wishes
    }

    /// Lets time pass.
    pub fn wait(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
    }
}

/// The text that an operator reads of an error.
#[must_use]
pub fn message(error: &ConfigureError) -> String {
    struct Shown<'a>(&'a ConfigureError);
    impl fmt::Display for Shown<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            describe(self.0, f)
        }
    }
    alloc::format!("{}", Shown(error))
}
