//! `random`: `choices` points of a ring at random, and of their servers the one with the fewest flows for its weight.
//!
//! With one choice it is a random server by weight. Where the flows for their weight are the same, the server
//! that has been given fewer in the last second is taken. O(choices * ln points) per flow. Source: HAProxy 2.6, `balance random(n)`.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use super::draw::Draw;
use super::haproxy::Ring;
use super::held;
use super::power_of_choices::CHOICES;
use crate::director::{NewFlow, PickInputs, Scheduler, Selection, ServerId, ServerView};
use crate::plan::Options;
use crate::time::{Duration, Instant};
use crate::wire::Protocol;

/// Over how long flows are counted to settle a tie.
const PERIOD: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(super) struct Random {
    choices: u32,
    draw: Draw,
    ring: Ring,
    rates: BTreeMap<ServerId, Rate>,
}

/// Flows of this second and of the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    since: Instant,
    now: u32,
    before: u32,
}

impl Rate {
    fn turn(&mut self, now: Instant) {
        let past = now.since(self.since);
        if past >= PERIOD * 2 {
            *self = Self { since: now, now: 0, before: 0 };
        } else if past >= PERIOD {
            *self = Self { since: self.since.after(PERIOD), now: 0, before: self.now };
        }
    }

    /// Flows of the last second, in millionths: those of this second, and of the one before in proportion.
    fn millionths(&self, now: Instant) -> u64 {
        let past = PERIOD.saturating_sub(now.since(self.since));
        let left = u64::try_from(past.as_micros()).unwrap_or(0);
        u64::from(self.now) * 1_000_000 + u64::from(self.before) * left
    }
}

impl Random {
    pub(super) fn new(options: &Options, seed: u64) -> Self {
        let choices = options.choices.unwrap_or(CHOICES);
        Self { choices, draw: Draw::new(seed), ring: Ring::default(), rates: BTreeMap::new() }
    }

    fn choose(&mut self, selection: &Selection<'_>, protocol: Protocol, now: Instant) -> Option<usize> {
        let mut best: Option<(usize, u64, u64, u64)> = None;
        for _ in 0..self.choices {
            #[allow(clippy::cast_possible_truncation, reason = "32 random bits")]
            let hash = self.draw.bits() as u32;
            let is_usable =
                |place: &usize| selection.servers().get(*place).is_some_and(ServerView::is_usable);
            let place = self.ring.from(hash).find(is_usable)?;
            let (server, load) = selection.server(place)?;
            let (flows, weight) = (load.outstanding(protocol), u64::from(server.weight));
            let rate = self.rates.get(&server.id).map_or(0, |rate| rate.millionths(now));
            let is_better = best.is_none_or(|(_, least, its, its_rate)| {
                let (here, there) = (flows.saturating_mul(its), least.saturating_mul(weight));
                (here, rate) < (there, its_rate)
            });
            if is_better {
                best = Some((place, flows, weight, rate));
            }
        }
        best.map(|(place, ..)| place)
    }
}

impl Scheduler for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn inputs(&self, _flow: &NewFlow) -> PickInputs {
        PickInputs::drawn(self.draw.place())
    }

    fn memory_bytes(&self) -> u64 {
        held::total(self, &[&self.ring, &self.rates])
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        self.ring.update(servers);
        let known = core::mem::take(&mut self.rates);
        let rate = |server: &ServerView| (server.id, known.get(&server.id).copied().unwrap_or_default());
        self.rates = servers.iter().map(rate).collect();
    }

    fn pick(&mut self, selection: &mut Selection<'_>, now: Instant) {
        self.rates.values_mut().for_each(|rate| rate.turn(now));
        for (flow, new) in selection.flows().iter().enumerate() {
            let Some(server) = self.choose(selection, new.tuple.protocol, now) else { continue };
            let id = selection.servers().get(server).map(|view| view.id);
            if selection.assign(flow, server)
                && let Some(rate) = id.and_then(|id| self.rates.get_mut(&id))
            {
                rate.now = rate.now.saturating_add(1);
            }
        }
    }
}
