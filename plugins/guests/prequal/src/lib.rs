//! Servers are asked now and then how they are, and a flow goes to the fastest of them that is not hot: the twin of the
//! built-in `prequal`, decision for decision under the same seed.
//!
//! Options as there: `pool` (2 to 256, default 16), `probe_age` (1 ms to 60 s, default "1s"), `probe_rate` in hundredths
//! for each flow (1 to 1600, default 300), `hot_quantile` in hundredths (0 to 100, default 84), `probe_source`: "flows",
//! what this forwarder sees of its own flows, or "servers", who are asked (default "flows"). The state is that of the
//! built-in one.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use evenkeel_plugin_sdk::random::{Draw, Shares};
use evenkeel_plugin_sdk::{
    ConfigureError, Flow, FlowEvent, Happening, Instant, Load, Options, ProbeAnswer, Scheduler, Server,
    Setup, State, StateWriter, Wishes,
};

/// The name of the state's form.
const FORM: &str = "prequal";

/// Answers that a flow removes besides the one it uses.
const REMOVED_PER_FLOW: f64 = 1.0;

/// How much faster than it is used up the pool should be filled.
const SURPLUS: f64 = 1.0;

/// How often an answer may be used at most.
const USES_MAX: f64 = 1e6;

/// Probes that wait to be fetched at most.
const WAITING_MAX: usize = 256;

/// The weight of a new time in the moving average of a server's first answers.
const SMOOTHING: u64 = 8;

#[derive(Debug)]
struct Prequal {
    pool_max: usize,
    age_max: u64,
    rate: u64,
    quantile: usize,
    asks_servers: bool,
    draw: Draw,
    shares: Shares,
    /// The servers that may be picked, in their order.
    usable: Vec<usize>,
    /// The oldest first.
    pool: VecDeque<Answer>,
    waiting: VecDeque<u32>,
    /// Hundredths of a probe that are due.
    due: u64,
    removes_oldest: bool,
    /// Identity of each server, and a moving average of the times to its first answers, in nanoseconds.
    seen: Vec<(u64, u64)>,
}

/// What a server said.
#[derive(Clone, Copy, Debug)]
struct Answer {
    server: usize,
    in_flight: u32,
    latency: u64,
    at: Instant,
    uses_left: u32,
}

impl Prequal {
    /// How often an answer may be used, rounded at random so that the mean is right.
    fn uses(&mut self) -> u32 {
        #[allow(clippy::cast_precision_loss, reason = "at most 65,535 each")]
        let (share, rate) = (self.pool_max as f64 / self.shares.len().max(1) as f64, self.rate as f64);
        let surplus = (1.0 - share) * rate / 100.0 - REMOVED_PER_FLOW;
        let uses = if surplus > 0.0 { ((1.0 + SURPLUS) / surplus).clamp(1.0, USES_MAX) } else { USES_MAX };
        let whole = libm::floor(uses);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and a million millionths"
        )]
        let (whole, millionths) = (whole as u32, ((uses - whole) * 1e6) as u64);
        whole + u32::from(self.draw.below(1_000_000) < millionths)
    }

    fn put(&mut self, server: usize, in_flight: u32, latency: u64, now: Instant) {
        let uses_left = self.uses();
        while self.pool.len() >= self.pool_max {
            self.pool.pop_front();
        }
        self.pool.push_back(Answer { server, in_flight, latency, at: now, uses_left });
    }

    /// Asks as many servers as are due for a flow, each at most once.
    fn probe(&mut self, flow: &Flow, loads: &[Load], now: Instant) {
        self.due += self.rate;
        let count = usize::try_from(self.due / 100).unwrap_or(usize::MAX).min(self.usable.len());
        self.due %= 100;
        let (mut count, mut left) = (as_number(count), as_number(self.usable.len()));
        // Each is taken with the chance that leaves every set of this size the same one (Knuth, algorithm S).
        for number in 0..self.usable.len() {
            if self.draw.below(left) < count
                && let Some(place) = self.usable.get(number).copied()
            {
                count -= 1;
                self.ask(place, flow, loads, now);
            }
            left -= 1;
        }
    }

    fn ask(&mut self, place: usize, flow: &Flow, loads: &[Load], now: Instant) {
        if self.asks_servers {
            if self.waiting.len() < WAITING_MAX {
                self.waiting.extend(u32::try_from(place));
            }
        } else if let (Some(load), Some((_, latency))) = (loads.get(place), self.seen.get(place).copied()) {
            let in_flight = u32::try_from(load.outstanding(flow.protocol)).unwrap_or(u32::MAX);
            self.put(place, in_flight, latency, now);
        }
    }

    /// The most in flight that a server may have without being hot.
    fn threshold(&self) -> u32 {
        let mut all: Vec<u32> = self.pool.iter().map(|answer| answer.in_flight).collect();
        all.sort_unstable();
        let rank = (all.len() * self.quantile).div_ceil(100);
        all.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    }

    /// The number of the best answer in the pool, or of the worst.
    fn extreme(&self, is_best: bool) -> Option<usize> {
        let threshold = self.threshold();
        let rank = |answer: &Answer| {
            let is_hot = answer.in_flight > threshold;
            // Cold before hot; the cold by how fast they are, the hot by how busy.
            (is_hot, if is_hot { u64::from(answer.in_flight) } else { answer.latency })
        };
        let ranked = self.pool.iter().enumerate().map(|(number, answer)| (rank(answer), number));
        let found = if is_best { ranked.min() } else { ranked.max() };
        found.map(|(_, number)| number)
    }

    fn remove_one(&mut self) {
        let number = if self.removes_oldest { Some(0) } else { self.extreme(false) };
        self.removes_oldest = !self.removes_oldest;
        if let Some(number) = number {
            self.pool.remove(number);
        }
    }

    fn choose(&mut self, now: Instant) -> Option<usize> {
        let age_max = self.age_max;
        self.pool.retain(|answer| now.nanos_since(answer.at) <= age_max);
        if self.pool.len() < 2 {
            return self.shares.draw(&mut self.draw);
        }
        let number = self.extreme(true)?;
        let answer = self.pool.get_mut(number)?;
        let server = answer.server;
        answer.in_flight = answer.in_flight.saturating_add(1);
        answer.uses_left = answer.uses_left.saturating_sub(1);
        if answer.uses_left == 0 {
            self.pool.remove(number);
        }
        Some(server)
    }

    /// What a state says, or nothing where it is broken.
    fn read(state: &[u8]) -> Option<Kept> {
        let mut state = State::read(state, FORM)?;
        let (draw, due, removes_oldest) = (Draw::new(state.number()?), state.number()?, state.number()? != 0);
        let mut seen = Vec::new();
        for _ in 0..state.number()?.min(65_535) {
            seen.push((state.number()?, state.number()?));
        }
        let mut pool = VecDeque::new();
        while !state.is_over() {
            pool.push_back(Answer {
                server: usize::try_from(state.number()?).ok().filter(|server| *server < seen.len())?,
                in_flight: u32::try_from(state.number()?).ok()?,
                latency: state.number()?,
                at: Instant::from_nanos(state.number()?),
                uses_left: u32::try_from(state.number()?).ok()?,
            });
        }
        (due < 100).then_some(Kept { draw, due, removes_oldest, seen, pool })
    }
}

/// What outlives an instance.
struct Kept {
    draw: Draw,
    due: u64,
    removes_oldest: bool,
    seen: Vec<(u64, u64)>,
    pool: VecDeque<Answer>,
}

fn as_number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

impl Scheduler for Prequal {
    fn configure(setup: &Setup, options: &mut Options) -> Result<Self, ConfigureError> {
        let ages = Duration::from_millis(1)..=Duration::from_secs(60);
        let age = options.duration("probe_age", Duration::from_secs(1), ages)?;
        let asks_servers = match options.text("probe_source", "flows")?.as_str() {
            "flows" => false,
            "servers" => true,
            other => {
                let reason = format!("\"{other}\" is neither \"flows\" nor \"servers\"");
                return Err(ConfigureError::bad_option("probe_source", reason));
            }
        };
        Ok(Self {
            pool_max: usize::try_from(options.integer("pool", 16, 2..=256)?).unwrap_or(16),
            age_max: u64::try_from(age.as_nanos()).unwrap_or(u64::MAX),
            rate: options.integer("probe_rate", 300, 1..=1_600)?,
            quantile: usize::try_from(options.integer("hot_quantile", 84, 0..=100)?).unwrap_or(84),
            asks_servers,
            draw: Draw::new(setup.seed),
            shares: Shares::default(),
            usable: Vec::new(),
            pool: VecDeque::new(),
            waiting: VecDeque::new(),
            due: 0,
            removes_oldest: true,
            seen: Vec::new(),
        })
    }

    fn wishes(&self) -> Wishes {
        Wishes { loads: true, answered: !self.asks_servers, probes: self.asks_servers, ..Wishes::NONE }
    }

    fn update(&mut self, servers: &[Server], _: Instant) {
        self.shares = Shares::of(servers);
        let usable = servers.iter().enumerate().filter(|(_, server)| server.is_usable());
        self.usable = usable.map(|(place, _)| place).collect();
        let seen = core::mem::take(&mut self.seen);
        self.pool.retain_mut(|answer| {
            let id = seen.get(answer.server).map(|(id, _)| *id);
            let place = servers.iter().position(|server| Some(server.id) == id);
            answer.server = place.unwrap_or(usize::MAX);
            place.and_then(|place| servers.get(place)).is_some_and(Server::is_usable)
        });
        self.waiting.clear();
        let known = |id| seen.iter().find(|known| known.0 == id).map_or(0, |known| known.1);
        self.seen = servers.iter().map(|server| (server.id, known(server.id))).collect();
    }

    fn pick(&mut self, flow: &Flow, loads: &[Load], now: Instant) -> Option<usize> {
        if self.shares.is_empty() {
            return None;
        }
        self.probe(flow, loads, now);
        let server = self.choose(now)?;
        self.remove_one();
        Some(server)
    }

    fn hear(&mut self, events: &[FlowEvent], _: Instant) {
        for event in events.iter().filter(|event| event.what == Happening::Answered) {
            let place = usize::try_from(event.server).unwrap_or(usize::MAX);
            if let Some((_, latency)) = self.seen.get_mut(place) {
                let kept = *latency / SMOOTHING * (SMOOTHING - 1);
                *latency = if *latency == 0 { event.answered } else { kept + event.answered / SMOOTHING };
            }
        }
    }

    fn poll_probes(&mut self, _: Instant) -> Vec<u32> {
        self.waiting.drain(..).collect()
    }

    fn probe_answered(&mut self, answer: &ProbeAnswer, now: Instant) {
        let place = usize::try_from(answer.server).unwrap_or(usize::MAX);
        if self.shares.has(place) {
            self.put(place, answer.in_flight, answer.latency, now);
        }
    }

    fn save(&mut self, _: Instant) -> Vec<u8> {
        let mut state = StateWriter::new(FORM);
        let mut numbers = |all: &[u64]| all.iter().for_each(|number| state.number(*number));
        numbers(&[self.draw.place(), self.due, u64::from(self.removes_oldest), as_number(self.seen.len())]);
        self.seen.iter().for_each(|(id, latency)| numbers(&[*id, *latency]));
        for answer in &self.pool {
            let Answer { server, in_flight, latency, at, uses_left } = *answer;
            numbers(&[as_number(server), in_flight.into(), latency, at.as_nanos(), uses_left.into()]);
        }
        state.finish()
    }

    fn restore(&mut self, state: &[u8], _: Instant) -> bool {
        let Some(Kept { draw, due, removes_oldest, seen, pool }) = Self::read(state) else { return false };
        (self.draw, self.due, self.removes_oldest) = (draw, due, removes_oldest);
        (self.seen, self.pool) = (seen, pool);
        self.pool.truncate(self.pool_max);
        true
    }
}

evenkeel_plugin_sdk::export_scheduler!(Prequal);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use evenkeel_plugin_sdk::kit::SchedulerKit;

    fn play(kit: &mut SchedulerKit<Prequal>, count: usize) -> [usize; 4] {
        let mut shares = [0; 4];
        for _ in 0..count {
            let server = kit.pick(1)[0].unwrap();
            shares[server] += 1;
            kit.wait(Duration::from_millis(if server == 0 { 50 } else { 1 }));
            assert!(kit.answer(server));
            assert!(kit.close(server));
        }
        shares
    }

    #[test]
    fn a_slow_server_gets_few_flows_and_what_was_learnt_outlives_the_instance() {
        let mut kit = SchedulerKit::<Prequal>::new("pool = 8").unwrap();
        kit.servers(&[1, 1, 1, 1]);
        let shares = play(&mut kit, 1_000);
        assert!(shares[0] < 100, "{shares:?}");
        assert!(kit.replace());
        assert!(play(&mut kit, 100)[0] < 10);
    }

    #[test]
    fn a_broken_state_is_refused() {
        let mut kit =
            Prequal::configure(&evenkeel_plugin_sdk::kit::setup(""), &mut Options::default()).unwrap();
        let whole = kit.save(Instant::default());
        assert!(kit.restore(&whole, Instant::default()));
        for length in 0..whole.len() {
            assert!(!kit.restore(&whole[..length], Instant::default()), "{length}");
        }
    }
}
