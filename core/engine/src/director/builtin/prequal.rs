//! `prequal`: servers are asked now and then how they are; among those that answered lately, a flow goes to the fastest one that is not
//! hot, or where all are hot, to the least busy.
//!
//! ```text
//! pool     web3: 2 in flight, 11 ms    web1: 9, 4 ms (hot)    web7: 1, 8 ms <-- wins    web2: 3, 30 ms
//!          hot = more in flight than `hot_quantile` of the pool has
//! ```
//!
//! For each flow `probe_rate` hundredths of probes are sent to servers at random. Answers stay in a pool of `pool` for `probe_age`, are used a few
//! times, and each flow also removes one, the oldest and the worst in turn, so that the pool is neither stale nor all of what nobody wanted. A server
//! that was chosen counts one more in flight from then on. With fewer than two answers the choice is random. Weights count only where the choice is random, and by 0.
//!
//! With `probe_source = "flows"` (the default) probes are answered on the spot by what this forwarder sees itself: flows in flight and the time to the last
//! first answers. With `"servers"` they are messages. The forwarder sends one UDP datagram to the real server's address and `probe_port` of
//! `[forwarder]`, and waits 100 ms for one from there; the program that answers is the operator's:
//!
//! ```text
//! evenkeel-probe 1 NONCE                         the question; the nonce has 16 hexadecimal digits
//! evenkeel-probe 1 NONCE IN_FLIGHT LATENCY_US    the answer: requests it works on, how long the last ones took
//! ```
//!
//! The simulator carries them too, a quarter of a millisecond each way. O(pool) per flow. Source: Wydrowski, Kleinberg, Rumble, Archer, "Load is not what you should balance:
//! Introducing Prequal", NSDI 2024 (arXiv 2312.10172).

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use super::draw::Draw;
use super::held;
use super::shares::Shares;
use crate::director::state::{Reader, Writer};
use crate::director::{
    FlowEvent, NewFlow, PickInputs, ProbeAnswer, Scheduler, Selection, ServerId, ServerView, Wishes,
};
use crate::plan::{Options, ProbeSource};
use crate::time::{Duration, Instant};

/// Answers in the pool when the plan does not say; 16 in the paper.
const POOL: u32 = 16;

/// How old an answer may be when the plan does not say; 1 s in the paper.
const PROBE_AGE: Duration = Duration::from_secs(1);

/// Hundredths of probes for each flow when the plan does not say; 3 probes in the paper.
const PROBE_RATE: u32 = 300;

/// The share of the pool, in hundredths, above which a server is hot when the plan does not say; 2^-0.25 in the paper.
const HOT_QUANTILE: u32 = 84;

/// Answers that a flow removes besides the one it uses.
const REMOVED_PER_FLOW: f64 = 1.0;

/// How much faster than it is used up the pool should be filled: delta in the paper.
const SURPLUS: f64 = 1.0;

/// How often an answer may be used at most, where probes are so rare that the pool would never be filled.
const USES_MAX: f64 = 1e6;

/// Probes that wait to be fetched at most: those of one batch of flows. When nobody fetches them, the newest are left out.
const WAITING_MAX: usize = 256;

/// The weight of a new time in the moving average of a server's first answers: an eighth, as in TCP's smoothed round-trip time (RFC
/// 6298 s.2).
const SMOOTHING: u32 = 8;

#[derive(Clone, Debug)]
pub(super) struct Prequal {
    pool_max: usize,
    age_max: Duration,
    rate: u32,
    quantile: u32,
    source: ProbeSource,
    draw: Draw,
    shares: Shares,
    /// The oldest first.
    pool: VecDeque<Answer>,
    waiting: VecDeque<u16>,
    /// Hundredths of a probe that are due.
    due: u32,
    removes_oldest: bool,
    /// What this forwarder has seen of each server: a moving average of the times to its first answers.
    seen: Vec<(ServerId, Duration)>,
}

/// What a server said.
#[derive(Clone, Copy, Debug)]
struct Answer {
    server: usize,
    in_flight: u32,
    latency: Duration,
    at: Instant,
    uses_left: u32,
}

impl Prequal {
    pub(super) fn new(options: &Options, seed: u64) -> Self {
        Self {
            pool_max: options.pool.unwrap_or(POOL) as usize,
            age_max: options.probe_age.unwrap_or(PROBE_AGE),
            rate: options.probe_rate.unwrap_or(PROBE_RATE),
            quantile: options.hot_quantile.unwrap_or(HOT_QUANTILE),
            source: options.probe_source.unwrap_or_default(),
            draw: Draw::new(seed),
            shares: Shares::default(),
            pool: VecDeque::new(),
            waiting: VecDeque::new(),
            due: 0,
            removes_oldest: true,
            seen: Vec::new(),
        }
    }

    /// How often an answer may be used: (1 + surplus) / ((1 - pool / servers) * rate - removed), at least once, rounded at random so that the
    /// mean is right.
    fn uses(&mut self) -> u32 {
        #[allow(clippy::cast_precision_loss, reason = "at most 65,535 each")]
        let share = self.pool_max as f64 / self.shares.len().max(1) as f64;
        let surplus = (1.0 - share) * f64::from(self.rate) / 100.0 - REMOVED_PER_FLOW;
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

    fn put(&mut self, server: usize, in_flight: u32, latency: Duration, now: Instant) {
        let uses_left = self.uses();
        while self.pool.len() >= self.pool_max {
            self.pool.pop_front();
        }
        self.pool.push_back(Answer { server, in_flight, latency, at: now, uses_left });
    }

    /// Asks as many servers as are due for a flow, each at most once.
    fn probe(&mut self, selection: &Selection<'_>, flow: usize, now: Instant) {
        self.due = self.due.saturating_add(self.rate);
        let mut count = (self.due / 100) as usize;
        self.due %= 100;
        count = count.min(self.shares.len());
        let mut left = self.shares.len();
        let places: Vec<usize> = self.shares.places().collect();
        // Each place is taken with the chance that leaves every set of this size the same one (Knuth, algorithm S).
        for place in places {
            if self.draw.below(left as u64) < count as u64 {
                count -= 1;
                self.ask(selection, flow, place, now);
            }
            left -= 1;
        }
    }

    fn ask(&mut self, selection: &Selection<'_>, flow: usize, place: usize, now: Instant) {
        match self.source {
            ProbeSource::Servers => {
                if let Ok(place) = u16::try_from(place)
                    && self.waiting.len() < WAITING_MAX
                {
                    self.waiting.push_back(place);
                }
            }
            ProbeSource::Flows => {
                let (Some((_, load)), Some(new)) = (selection.server(place), selection.flows().get(flow))
                else {
                    return;
                };
                let in_flight = u32::try_from(load.outstanding(new.tuple.protocol)).unwrap_or(u32::MAX);
                let latency = self.seen.get(place).map_or(Duration::ZERO, |(_, latency)| *latency);
                self.put(place, in_flight, latency, now);
            }
        }
    }

    /// The most in flight that a server may have without being hot.
    fn threshold(&self) -> u32 {
        let mut all: Vec<u32> = self.pool.iter().map(|answer| answer.in_flight).collect();
        all.sort_unstable();
        let rank = (all.len() * self.quantile as usize).div_ceil(100);
        all.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    }

    /// The number of the best answer in the pool, or of the worst.
    fn extreme(&self, is_best: bool) -> Option<usize> {
        let threshold = self.threshold();
        let rank = |answer: &Answer| {
            let is_hot = answer.in_flight > threshold;
            // Cold before hot; the cold by how fast they are, the hot by how busy.
            let measure = if is_hot { u128::from(answer.in_flight) } else { answer.latency.as_nanos() };
            (is_hot, measure)
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
        self.pool.retain(|answer| now.since(answer.at) <= age_max);
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
}

/// What outlives a scheduler.
struct Kept {
    draw: Draw,
    due: u32,
    removes_oldest: bool,
    seen: Vec<(ServerId, Duration)>,
    pool: VecDeque<Answer>,
}

/// What a state says, or nothing where it is broken.
fn read(state: &[u8], form: &str) -> Option<Kept> {
    let mut state = Reader::new(state, form)?;
    let draw = Draw::new(state.number()?);
    let due = u32::try_from(state.number()?).ok().filter(|due| *due < 100)?;
    let removes_oldest = state.number()? != 0;
    let mut seen = Vec::new();
    for _ in 0..state.number()?.min(u64::from(u16::MAX)) {
        seen.push((ServerId(state.number()?), Duration::from_nanos(state.number()?)));
    }
    let mut pool = VecDeque::new();
    while !state.is_over() {
        pool.push_back(Answer {
            server: usize::try_from(state.number()?).ok().filter(|server| *server < seen.len())?,
            in_flight: u32::try_from(state.number()?).ok()?,
            latency: Duration::from_nanos(state.number()?),
            at: Instant::from_nanos(state.number()?),
            uses_left: u32::try_from(state.number()?).ok()?,
        });
    }
    Some(Kept { draw, due, removes_oldest, seen, pool })
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Scheduler for Prequal {
    fn name(&self) -> &'static str {
        "prequal"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn inputs(&self, _flow: &NewFlow) -> PickInputs {
        PickInputs::drawn(self.draw.place())
    }

    fn memory_bytes(&self) -> u64 {
        held::total(self, &[&self.shares, &self.pool, &self.waiting, &self.seen])
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        self.shares = Shares::of(servers);
        let before: BTreeMap<usize, ServerId> =
            self.seen.iter().enumerate().map(|(place, (id, _))| (place, *id)).collect();
        let places: BTreeMap<ServerId, (usize, bool)> =
            servers.iter().enumerate().map(|(place, view)| (view.id, (place, view.is_usable()))).collect();
        self.pool.retain_mut(|answer| {
            let now = before.get(&answer.server).and_then(|id| places.get(id));
            now.is_some_and(|(place, is_usable)| {
                answer.server = *place;
                *is_usable
            })
        });
        self.waiting.clear();
        let known: BTreeMap<ServerId, Duration> = self.seen.iter().copied().collect();
        let seen = |view: &ServerView| (view.id, known.get(&view.id).copied().unwrap_or_default());
        self.seen = servers.iter().map(seen).collect();
    }

    fn pick(&mut self, selection: &mut Selection<'_>, now: Instant) {
        for flow in 0..selection.flows().len() {
            if self.shares.len() == 0 {
                return;
            }
            self.probe(selection, flow, now);
            let Some(server) = self.choose(now) else { continue };
            selection.assign(flow, server);
            self.remove_one();
        }
    }

    fn save(&mut self, _now: Instant) -> Option<Vec<u8>> {
        let mut state = Writer::new(self.name());
        let oldest = u64::from(self.removes_oldest);
        state.numbers(&[self.draw.place(), self.due.into(), oldest, self.seen.len() as u64]);
        self.seen.iter().for_each(|(id, latency)| state.numbers(&[id.0, nanoseconds(*latency)]));
        for answer in &self.pool {
            let Answer { server, in_flight, latency, at, uses_left } = *answer;
            let latency = nanoseconds(latency);
            state.numbers(&[server as u64, in_flight.into(), latency, at.as_nanos(), uses_left.into()]);
        }
        Some(state.finish())
    }

    fn restore(&mut self, state: &[u8], _now: Instant) -> bool {
        let Some(Kept { draw, due, removes_oldest, seen, pool }) = read(state, self.name()) else {
            return false;
        };
        (self.draw, self.due, self.removes_oldest) = (draw, due, removes_oldest);
        (self.seen, self.pool) = (seen, pool);
        self.pool.truncate(self.pool_max);
        true
    }

    fn wishes(&self) -> Wishes {
        let is_own = self.source == ProbeSource::Flows;
        Wishes { answered: is_own, probes: !is_own, ..Wishes::default() }
    }

    fn hear(&mut self, events: &[FlowEvent], _now: Instant) {
        for event in events {
            let FlowEvent::Answered(flow) = event else { continue };
            if let Some((_, latency)) = self.seen.get_mut(usize::from(flow.server)) {
                let is_first = *latency == Duration::ZERO;
                let kept = *latency / SMOOTHING * (SMOOTHING - 1);
                *latency = if is_first { flow.after } else { kept + flow.after / SMOOTHING };
            }
        }
    }

    fn poll_probe(&mut self, _now: Instant) -> Option<u16> {
        self.waiting.pop_front()
    }

    fn probe_answered(&mut self, answer: ProbeAnswer, now: Instant) {
        let place = usize::from(answer.server);
        if self.shares.places().any(|usable| usable == place) {
            self.put(place, answer.in_flight, answer.latency, now);
        }
    }
}
