//! A director without packets: scripted servers and flows for one scheduler.

use std::net::{IpAddr, Ipv4Addr};

use evenkeel_engine::director::{
    FlowClosed, FlowEnd, FlowEvent, NewFlow, Scheduler, Selection, ServerId, ServerLoad, ServerView,
};
use evenkeel_engine::wire::{Address, FiveTuple, HashKey, Protocol};
use evenkeel_engine::{Duration, Instant};

/// Spreads the identities of scripted servers.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// A director with one scheduler.
#[derive(Debug)]
pub struct Farm {
    /// Who is asked.
    pub scheduler: Box<dyn Scheduler>,
    servers: Vec<ServerView>,
    loads: Vec<ServerLoad>,
    now: Instant,
}

/// The scripted server `number`: 10.0.x.y, port 80, up.
#[must_use]
pub fn server(number: u32, weight: u32) -> ServerView {
    let address = Ipv4Addr::from_bits(0x0a00_0301_u32.saturating_add(number));
    ServerView {
        id: ServerId((u64::from(number) + 1).wrapping_mul(SPREAD)),
        address: IpAddr::V4(address),
        port: 80,
        weight,
        is_up: true,
        is_full: false,
    }
}

/// Scripted servers with these weights.
#[must_use]
pub fn servers(weights: &[u32]) -> Vec<ServerView> {
    (0..).zip(weights).map(|(number, weight)| server(number, *weight)).collect()
}

/// The scripted flows from number `first` on: TCP to 10.0.0.3:80, each from another client.
#[must_use]
pub fn flows(first: u32, count: u32) -> Vec<NewFlow> {
    let flow = |number: u32| {
        let tuple = FiveTuple {
            source: Address::from(Ipv4Addr::from_bits(0xc612_0001_u32.saturating_add(number))),
            destination: Address::v4([10, 0, 0, 3]),
            source_port: 40_000,
            destination_port: 80,
            protocol: Protocol::TCP,
        };
        NewFlow { hash: tuple.hash(HashKey([1, 2])), tuple }
    };
    (first..first.saturating_add(count)).map(flow).collect()
}

impl Farm {
    /// A director that has told `scheduler` of these servers.
    #[must_use]
    pub fn new(scheduler: Box<dyn Scheduler>, servers: Vec<ServerView>) -> Self {
        let now = Instant::ZERO.after(Duration::from_secs(1));
        let mut farm = Self { scheduler, servers: Vec::new(), loads: Vec::new(), now };
        farm.change(servers);
        farm
    }

    /// Other servers, or the same with other weights; they begin without flows.
    pub fn change(&mut self, servers: Vec<ServerView>) {
        self.loads = vec![ServerLoad::default(); servers.len()];
        self.servers = servers;
        self.scheduler.update(&self.servers, self.now);
    }

    /// Every flow has ended; the scheduler is not told.
    pub fn rest(&mut self) {
        self.loads.fill(ServerLoad::default());
    }

    /// Another scheduler in the place of this one, which hears of the servers.
    pub fn replace(&mut self, scheduler: Box<dyn Scheduler>) {
        self.scheduler = scheduler;
        self.scheduler.update(&self.servers, self.now);
    }

    /// The time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Asks about `flows` in batches; tells the place of each one's server. Flows stay open.
    pub fn pick(&mut self, flows: &[NewFlow], batch: usize) -> Vec<Option<u16>> {
        let mut all = vec![None; flows.len()];
        for (flows, answers) in flows.chunks(batch.max(1)).zip(all.chunks_mut(batch.max(1))) {
            self.now = self.now.after(Duration::from_micros(10));
            let mut selection = Selection::new(flows, &self.servers, &mut self.loads, answers);
            self.scheduler.pick(&mut selection, self.now);
        }
        all
    }

    /// Asks about `flows`; tells the identity of each one's server.
    pub fn identities(&mut self, flows: &[NewFlow]) -> Vec<Option<ServerId>> {
        let picked = self.pick(flows, 32);
        let identity = |place: Option<u16>| Some(self.servers.get(usize::from(place?))?.id);
        picked.into_iter().map(identity).collect()
    }

    /// Ends flows that were picked, and tells the scheduler where it listens.
    pub fn close(&mut self, flows: &[NewFlow], picked: &[Option<u16>]) {
        let wishes = self.scheduler.wishes();
        for (flow, server) in flows.iter().zip(picked) {
            let Some(server) = *server else { continue };
            if let Some(load) = self.loads.get_mut(usize::from(server)) {
                load.active = load.active.saturating_sub(1);
            }
            if wishes.closed {
                let end = FlowEnd::Finished;
                let closed =
                    FlowClosed { hash: flow.hash, server, end, packets_to: 3, ..FlowClosed::default() };
                self.scheduler.hear(&[FlowEvent::Closed(closed)], self.now);
            }
        }
    }
}
