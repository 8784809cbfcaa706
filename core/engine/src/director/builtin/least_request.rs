//! `least-request`: with equal weights, `choices` servers at random and the one with the fewest flows; with unequal ones, weighted
//! round robin in which a weight counts for less the more flows the server has: weight / (flows + 1)^bias.
//!
//! The round robin serves deadlines: whoever's is earliest gets the flow, and its next one is 1 / (that weight) later. `bias` is in
//! hundredths: 100 halves the share of a server with one flow, 0 is plain weighted round robin. O(choices * ln servers), or O(ln servers),
//! per flow. Source: Envoy, `LEAST_REQUEST`.

use alloc::boxed::Box;
use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::{Ordering, Reverse};

use super::draw::Draw;
use super::held;
use super::power_of_choices::{CHOICES, candidates};
use super::shares::Shares;
use crate::director::{NewFlow, PickInputs, Scheduler, Selection, ServerId, ServerView};
use crate::plan::Options;
use crate::time::Instant;
use crate::wire::Protocol;

/// The bias in hundredths when the plan does not say.
const BIAS: u32 = 100;

/// How late it may become: a deadline is then still told from one 2^-32 later.
const TIME_MAX: f64 = 1_048_576.0;

#[derive(Clone, Debug)]
pub(super) struct LeastRequest {
    choices: usize,
    /// The exponent.
    bias: f64,
    draw: Draw,
    shares: Shares,
    /// Whether all servers that may be picked have the same weight.
    is_even: bool,
    deadlines: BinaryHeap<Reverse<Deadline>>,
    time: f64,
    entered: u64,
    built: Vec<(ServerId, u32)>,
}

/// When a server is due; of equals the one that was entered first.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: f64,
    entered: u64,
    server: usize,
}

impl Ord for Deadline {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.total_cmp(&other.at).then(self.entered.cmp(&other.entered))
    }
}

impl PartialOrd for Deadline {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Deadline {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Deadline {}

impl LeastRequest {
    pub(super) fn new(options: &Options, seed: u64) -> Self {
        Self {
            choices: options.choices.unwrap_or(CHOICES) as usize,
            bias: f64::from(options.bias.unwrap_or(BIAS)) / 100.0,
            draw: Draw::new(seed),
            shares: Shares::default(),
            is_even: true,
            deadlines: BinaryHeap::new(),
            time: 0.0,
            entered: 0,
            built: Vec::new(),
        }
    }

    /// Lets time begin again, before it is so late that a deadline can not be told from the next.
    fn begin_again(&mut self) {
        let past = core::mem::take(&mut self.time);
        let deadlines = core::mem::take(&mut self.deadlines).into_iter();
        self.deadlines = deadlines
            .map(|Reverse(deadline)| Reverse(Deadline { at: deadline.at - past, ..deadline }))
            .collect();
    }

    fn enter(&mut self, server: usize, weight: f64) {
        let entered = self.entered;
        self.entered += 1;
        self.deadlines.push(Reverse(Deadline { at: self.time + 1.0 / weight, entered, server }));
    }

    /// The server that is due, which is entered anew by what it has to do.
    fn due(&mut self, selection: &Selection<'_>, protocol: Protocol) -> Option<usize> {
        for _ in 0..self.deadlines.len() {
            let Reverse(Deadline { at, server, .. }) = self.deadlines.pop()?;
            self.time = at;
            if at > TIME_MAX {
                self.begin_again();
            }
            let (view, load) = selection.server(server)?;
            #[allow(clippy::cast_precision_loss, reason = "counts of flows have 33 bits")]
            let flows = load.outstanding(protocol) as f64;
            let weight = f64::from(view.weight.max(1)) / libm::pow(flows + 1.0, self.bias);
            self.enter(server, weight);
            if view.is_usable() {
                return Some(server);
            }
        }
        None
    }

    /// The one of a few at random with the fewest flows, the first drawn among equals.
    fn fewest(&mut self, selection: &Selection<'_>, protocol: Protocol) -> Option<usize> {
        let (drawn, count) = candidates(&self.shares, &mut self.draw, self.choices);
        let drawn = drawn.into_iter().take(count);
        let flows = drawn.filter_map(|place| Some((place, selection.server(place)?.1.outstanding(protocol))));
        flows.min_by_key(|(_, flows)| *flows).map(|(place, _)| place)
    }
}

impl Scheduler for LeastRequest {
    fn name(&self) -> &'static str {
        "least-request"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn inputs(&self, _flow: &NewFlow) -> PickInputs {
        PickInputs::drawn(self.draw.place())
    }

    fn memory_bytes(&self) -> u64 {
        held::total(self, &[&self.shares, &self.deadlines, &self.built])
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        self.shares = Shares::of(servers);
        let weight = |server: &ServerView| if server.is_member() { server.weight } else { 0 };
        let wanted: Vec<(ServerId, u32)> = servers.iter().map(|server| (server.id, weight(server))).collect();
        if wanted == self.built {
            return;
        }
        let mut weights = wanted.iter().map(|(_, weight)| *weight).filter(|weight| *weight > 0);
        let first = weights.next();
        self.is_even = weights.all(|weight| Some(weight) == first);
        self.deadlines.clear();
        for (server, (_, weight)) in wanted.iter().enumerate().filter(|(_, (_, weight))| *weight > 0) {
            self.enter(server, f64::from(*weight));
        }
        self.built = wanted;
    }

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        for (flow, new) in selection.flows().iter().enumerate() {
            let protocol = new.tuple.protocol;
            let chosen =
                if self.is_even { self.fewest(selection, protocol) } else { self.due(selection, protocol) };
            if let Some(server) = chosen {
                selection.assign(flow, server);
            }
        }
    }
}
