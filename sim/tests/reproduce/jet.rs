//! V22 and V23: the event-driven simulation of Mendelson et al., "Load Balancing with JET: Just Enough Tracking for
//! Connection Consistency", CoNEXT 2021, as its authors run it (repository anchorhash/jetlb, README and
//! `simulations/event-driven`, read in November 2026; written anew here).
//!
//! ```text
//! connections  Poisson; they last, and have packets, as in a Hadoop cluster
//! updates      Poisson; a server leaves with its connections, another one comes after a downtime
//! both tables  full tracking (FCT) and just enough (JET): least recently used, AnchorHash where they know nothing
//! ```
//! At the beginning, at the end, and after each update, if it has sent a packet since the one before, a connection is
//! looked up in both tables. It is broken when that gives another server than at first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use evenkeel_engine::Instant;
use evenkeel_engine::director::builtin::native;
use evenkeel_engine::director::{NewFlow, Scheduler, Selection, ServerId, ServerLoad, ServerView};
use evenkeel_engine::plan::{Builtin, Options, Tuned};
use evenkeel_engine::wire::FiveTuple;
use evenkeel_sim::random::Stream;
use evenkeel_sim::work::{Cdf, named};

use crate::lru::Lru;

const SERVERS: usize = 468;
/// Servers that may come next.
const HORIZON: usize = 70;
const UPDATES_PER_MINUTE: f64 = 10.0;
const SECOND: f64 = 1e9;

/// One point of the study.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Connections that are open on average.
    pub target: u64,
    pub seconds: u64,
    /// Entries of each table.
    pub lru: usize,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Connections that broke with full tracking, and with just enough.
    pub broken_all: u64,
    pub broken_enough: u64,
    pub connections: u64,
    /// The greatest number of open connections of a server at the end, by the mean.
    pub greatest: f64,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    hash: u64,
    end: u64,
    /// Packets that it has still to send, from this time on.
    since: u64,
    packets: u64,
    server: u16,
    is_open: bool,
    is_broken: [bool; 2],
    generation: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Open,
    Leave,
    Come,
    Close { connection: u32, generation: u32 },
}

struct Study {
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    connections: Vec<Connection>,
    free: Vec<u32>,
    anchor: Box<dyn Scheduler>,
    /// Those that work, then those that may come next; their numbers.
    views: Vec<ServerView>,
    numbers: Vec<u16>,
    next_server: u16,
    /// Full tracking, and just enough.
    tables: [Lru; 2],
    broken: [u64; 2],
    draws: Draws,
    opened: u64,
}

struct Draws {
    arrivals: Stream,
    durations: Stream,
    sizes: Stream,
    hashes: Stream,
    updates: Stream,
    victims: Stream,
    downtimes: Stream,
    packets: Stream,
    shuffles: Stream,
    laws: [Cdf; 3],
}

impl Study {
    fn new(point: Point, seed: u64) -> Self {
        let options = Options { capacity: Some(2 * SERVERS as u32), ..Options::default() };
        let stream = |purpose| Stream::new(seed, "jet", purpose);
        let laws = ["hadoop-connection-duration", "hadoop-connection-size", "silkroad-upgrade"];
        let mut study = Self {
            events: BinaryHeap::new(),
            order: 0,
            connections: Vec::new(),
            free: Vec::new(),
            anchor: native(&Tuned { kind: Builtin::Anchor, options }, seed),
            views: Vec::new(),
            numbers: Vec::new(),
            next_server: 0,
            tables: [Lru::new(point.lru), Lru::new(point.lru)],
            broken: [0; 2],
            draws: Draws {
                arrivals: stream("arrivals"),
                durations: stream("durations"),
                sizes: stream("sizes"),
                hashes: stream("hashes"),
                updates: stream("updates"),
                victims: stream("victims"),
                downtimes: stream("downtimes"),
                packets: stream("packets"),
                shuffles: stream("shuffles"),
                laws: laws.map(|name| named(name).unwrap()),
            },
            opened: 0,
        };
        // The anchor begins with those that work; who may come next is known, and not used.
        for _ in 0..SERVERS + HORIZON {
            let weight = u32::from(study.views.len() < SERVERS);
            study.add_view(weight);
        }
        study.anchor.update(&study.views, Instant::ZERO);
        study.push(0, Event::Open);
        study.push(0, Event::Leave);
        study
    }

    fn push(&mut self, time: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((time, self.order, event)));
    }

    fn add_view(&mut self, weight: u32) {
        let number = self.next_server;
        self.next_server += 1;
        let address: IpAddr = Ipv4Addr::from_bits(0x0a00_0000 + u32::from(number)).into();
        let id = ServerId::of(address.into(), 80);
        self.views.push(ServerView { id, address, port: 80, weight, is_up: true, is_full: false });
        self.numbers.push(number);
    }

    /// The server that the anchor gives a connection, and whether it would give the same though others came.
    fn pick(&mut self, hash: u64, loads: &mut [ServerLoad]) -> (u16, bool) {
        let flow = [NewFlow { hash, tuple: FiveTuple::default() }];
        let (mut answer, mut settled) = ([None], [false]);
        let selection = Selection::new(&flow, &self.views, loads, &mut answer);
        let mut selection = selection.with_settled(&mut settled);
        self.anchor.pick(&mut selection, Instant::ZERO);
        let view = usize::from(answer[0].unwrap());
        (self.numbers[view], settled[0])
    }

    /// Looks a connection up in both tables; notes whether it is broken.
    fn look_up(&mut self, number: u32, loads: &mut [ServerLoad]) -> u16 {
        let known = self.tables.each_mut().map(|table| table.find(number));
        let hash = self.connections[number as usize].hash;
        let chosen = if known.contains(&None) { Some(self.pick(hash, loads)) } else { None };
        let connection = &mut self.connections[number as usize];
        for (table, known) in known.into_iter().enumerate() {
            let server = known.unwrap_or_else(|| {
                let (server, is_settled) = chosen.unwrap();
                if table == 0 || !is_settled {
                    self.tables[table].insert(number, server);
                }
                server
            });
            let breaks = connection.server != u16::MAX && server != connection.server;
            if breaks && !connection.is_broken[table] {
                connection.is_broken[table] = true;
                self.broken[table] += 1;
            }
        }
        chosen.map_or(u16::MAX, |(server, _)| server)
    }

    fn open(&mut self, now: u64, per_second: f64, loads: &mut [ServerLoad]) {
        let draws = &mut self.draws;
        let end = now + draws.laws[0].draw(&mut draws.durations);
        let packets = draws.laws[1].draw(&mut draws.sizes) / 100 + 1;
        let hash = draws.hashes.bits();
        let gap = exponential(&mut draws.arrivals) * SECOND / per_second;
        let number = self.free.pop().unwrap_or(self.connections.len() as u32);
        let generation = self.connections.get(number as usize).map_or(0, |old| old.generation + 1);
        let connection = Connection {
            hash,
            end,
            since: now,
            packets,
            server: u16::MAX,
            is_open: true,
            is_broken: [false; 2],
            generation,
        };
        if number as usize == self.connections.len() {
            self.connections.push(connection);
        } else {
            self.connections[number as usize] = connection;
        }
        self.opened += 1;
        let server = self.look_up(number, loads);
        self.connections[number as usize].server = server;
        self.push(end, Event::Close { connection: number, generation });
        self.push(now + gap as u64, Event::Open);
    }

    fn close(&mut self, number: u32, generation: u32, loads: &mut [ServerLoad]) {
        let connection = self.connections[number as usize];
        if !connection.is_open || connection.generation != generation {
            return;
        }
        self.look_up(number, loads);
        self.tables.iter_mut().for_each(|table| table.remove(number));
        self.end(number);
    }

    fn end(&mut self, number: u32) {
        self.connections[number as usize].is_open = false;
        self.free.push(number);
    }

    /// A server leaves, and what it had.
    fn leave(&mut self, now: u64, loads: &mut [ServerLoad]) {
        let working = self.views.iter().filter(|view| view.weight > 0).count() as u64;
        let victim = self.draws.victims.below(working) as usize;
        let gone = self.numbers[victim];
        self.views.remove(victim);
        self.numbers.remove(victim);
        self.anchor.update(&self.views, Instant::ZERO);
        let had = |connection: &Connection| connection.is_open && connection.server == gone;
        let lost: Vec<u32> = (0..self.connections.len() as u32)
            .filter(|number| had(&self.connections[*number as usize]))
            .collect();
        for number in lost {
            self.tables.iter_mut().for_each(|table| table.orphan(number));
            self.end(number);
        }
        let downtime = self.draws.laws[2].draw(&mut self.draws.downtimes);
        self.push(now + downtime, Event::Come);
        let gap = exponential(&mut self.draws.updates) * 60.0 * SECOND / UPDATES_PER_MINUTE;
        self.push(now + gap as u64, Event::Leave);
        self.check(now, loads);
    }

    /// The first of those that may come next comes; another one may come then.
    fn come(&mut self, now: u64, loads: &mut [ServerLoad]) {
        let first = self.views.iter().position(|view| view.weight == 0).unwrap();
        self.views[first].weight = 1;
        self.add_view(0);
        self.anchor.update(&self.views, Instant::ZERO);
        self.check(now, loads);
    }

    /// Connections that have sent a packet since the last time are looked up, in random order.
    fn check(&mut self, now: u64, loads: &mut [ServerLoad]) {
        let mut active = Vec::new();
        for (number, connection) in self.connections.iter_mut().enumerate().filter(|(_, one)| one.is_open) {
            if now <= connection.since {
                continue;
            }
            let part = (now - connection.since) as f64 / (connection.end - connection.since) as f64;
            let sent = binomial(connection.packets, part.min(1.0), &mut self.draws.packets);
            if sent > 0 {
                active.push(number as u32);
            }
            connection.packets -= sent;
            connection.since = now;
        }
        for place in (1..active.len()).rev() {
            active.swap(place, self.draws.shuffles.below(place as u64 + 1) as usize);
        }
        for number in active {
            self.look_up(number, loads);
        }
    }

    fn greatest(&self) -> f64 {
        let mut counts = vec![0_u64; usize::from(self.next_server)];
        for connection in self.connections.iter().filter(|connection| connection.is_open) {
            counts[usize::from(connection.server)] += 1;
        }
        counts.retain(|count| *count > 0);
        let mean = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
        *counts.iter().max().unwrap() as f64 / mean
    }
}

/// Runs one point.
pub fn run(point: Point, seed: u64) -> Seen {
    let mut study = Study::new(point, seed);
    let per_second = point.target as f64 / (study.draws.laws[0].mean() / SECOND);
    let end = point.seconds * SECOND as u64;
    // AnchorHash does not look at loads; they only have to be there.
    let mut loads = vec![ServerLoad::default(); SERVERS + 2 * HORIZON + 1_000];
    while let Some(Reverse((now, _, event))) = study.events.pop().filter(|Reverse((now, ..))| *now < end) {
        let loads = &mut loads[..study.views.len() + 1];
        let views = study.views.len();
        match event {
            Event::Open => study.open(now, per_second, &mut loads[..views]),
            Event::Close { connection, generation } => {
                study.close(connection, generation, &mut loads[..views])
            }
            Event::Leave => study.leave(now, &mut loads[..views - 1]),
            Event::Come => study.come(now, &mut loads[..=views]),
        }
    }
    Seen {
        broken_all: study.broken[0],
        broken_enough: study.broken[1],
        connections: study.opened,
        greatest: study.greatest(),
    }
}

fn exponential(stream: &mut Stream) -> f64 {
    -libm::log(((stream.bits() >> 11) + 1) as f64 / (1_u64 << 53) as f64)
}

/// How many of `count` happen, each with this chance: by inversion where few are expected, else by a normal law.
fn binomial(count: u64, chance: f64, stream: &mut Stream) -> u64 {
    let (n, unit) = (count as f64, (stream.bits() >> 11) as f64 / (1_u64 << 53) as f64);
    let mean = n * chance;
    if chance >= 1.0 {
        return count;
    }
    if mean > 40.0 {
        let other = (stream.bits() >> 11) as f64 / (1_u64 << 53) as f64;
        let angle = std::f64::consts::TAU * other;
        let normal = libm::sqrt(-2.0 * libm::log(1.0 - unit)) * libm::cos(angle);
        let drawn = libm::round(mean + normal * libm::sqrt(mean * (1.0 - chance)));
        return drawn.clamp(0.0, n) as u64;
    }
    let mut density = libm::exp(n * libm::log1p(-chance));
    let (mut upto, mut drawn) = (density, 0);
    while unit >= upto && drawn < count {
        density *= (n - drawn as f64) / (drawn + 1) as f64 * chance / (1.0 - chance);
        upto += density;
        drawn += 1;
    }
    drawn
}

/// The table of the page.
pub fn table() -> String {
    let mut text = String::from(
        "| connections at a time | entries | | published | here, mean of seeds | seeds |\n|---|---|---|---|---|---|\n",
    );
    let mut row = |point: Point, what: &str, published: &str, values: &[f64], digits: usize| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let spread = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>();
        let spread = libm::sqrt(spread / (values.len() as f64 - 1.0).max(1.0));
        let Point { target, lru, .. } = point;
        let line = format!(
            "| {target} | {lru} | {what} | {published} | {mean:.digits$} (sd {spread:.digits$}) | {} |",
            values.len()
        );
        println!("{line}");
        writeln!(text, "{line}").unwrap();
    };
    let seen = |point: Point, seeds: u64| -> Vec<Seen> { (1..=seeds).map(|seed| run(point, seed)).collect() };
    let of = |seen: &[Seen], value: fn(&Seen) -> f64| -> Vec<f64> { seen.iter().map(value).collect() };
    // The README of the authors, one seed; then their program at a smaller target, one seed, where there is a figure.
    let point = Point { target: 100_000, seconds: 1_000, lru: 25_000 };
    let all = seen(point, 2);
    row(point, "broken, full tracking", "7417", &of(&all, |seen| seen.broken_all as f64), 0);
    row(point, "broken, JET", "0", &of(&all, |seen| seen.broken_enough as f64), 0);
    row(point, "connections", "4687530", &of(&all, |seen| seen.connections as f64), 0);
    row(point, "greatest load by the mean, at the end", "1.238", &of(&all, |seen| seen.greatest), 3);
    for (lru, full, enough) in
        [(100, "767", "767"), (500, "1004", "989"), (1_000, "778 *", "213 *"), (2_500, "776 *", "0 *")]
    {
        let point = Point { target: 10_000, seconds: 1_000, lru };
        let all = seen(point, 5);
        row(point, "broken, full tracking", full, &of(&all, |seen| seen.broken_all as f64), 0);
        row(point, "broken, JET", enough, &of(&all, |seen| seen.broken_enough as f64), 0);
    }
    text
}
