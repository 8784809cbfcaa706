//! `peak-ewma`: `choices` servers at random, and of these the one with the least expected delay: the time that it took to answer,
//! times the flows that it has.
//!
//! ```text
//! answers after ms:  2  2  30  2  2      estimate:  2  2  30  22  16 ...  jumps up at once, sinks over `decay`
//! ```
//!
//! An estimate jumps up to a longer time at once, and follows shorter ones by exp(-time since the last / decay). The time is that from the
//! first packet of a flow to the first answer of the server, which in the modes `gateway` and `tunnel` is seen by the client's acknowledgement, of TCP alone; without answers this is `p2c`. A flow that the
//! server never answered, or reset at once, counts as one that took `decay`, so that a server that fails fast is not the fastest. A server that has not
//! answered yet is tried when it has no flow, and else not before the others. O(choices * ln servers) per flow. Source: Finagle's `PeakEwma`
//! balancer, 2015.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::draw::Draw;
use super::held;
use super::power_of_choices::{CHOICES, candidates};
use super::shares::Shares;
use crate::director::state::{Reader, Writer};
use crate::director::{
    FlowClosed, FlowEnd, FlowEvent, NewFlow, PickInputs, Scheduler, Selection, ServerId, ServerLoad,
    ServerView, Wishes,
};
use crate::plan::Options;
use crate::time::{Duration, Instant};
use crate::wire::Protocol;

/// The time in which an estimate sinks to the e-th part, when the plan does not say; as in Finagle.
const DECAY: Duration = Duration::from_secs(10);

/// The cost of a server with flows that has never answered: above that of any which has, a year.
const UNKNOWN: f64 = 3.15e16;

#[derive(Clone, Debug)]
pub(super) struct PeakEwma {
    choices: usize,
    decay: Duration,
    draw: Draw,
    shares: Shares,
    estimates: Vec<(ServerId, Option<Estimate>)>,
}

/// How long a server takes to answer.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Estimate {
    nanoseconds: f64,
    at: Instant,
}

impl Estimate {
    /// What it has sunk to at `now`, were there answers that took no time at all.
    fn sunk(self, decay: Duration, now: Instant) -> f64 {
        self.nanoseconds * libm::exp(-nanoseconds(now.since(self.at)) / nanoseconds(decay))
    }

    fn with(known: Option<Self>, sample: Duration, decay: Duration, now: Instant) -> Self {
        let sample = nanoseconds(sample);
        let nanoseconds = match known {
            Some(known) if sample < known.nanoseconds => {
                // The same as sample * (1 - w) + known * w with w = exp(-t / decay).
                let kept = known.sunk(decay, now) / known.nanoseconds;
                sample + (known.nanoseconds - sample) * kept
            }
            Some(_) | None => sample,
        };
        Self { nanoseconds, at: now }
    }
}

/// Whether the server never answered, or refused: a reset after at most one packet to it.
fn is_failure(flow: &FlowClosed) -> bool {
    flow.end == FlowEnd::Unanswered || (flow.end == FlowEnd::Reset && flow.packets_to <= 1)
}

#[allow(clippy::cast_precision_loss, reason = "a float's 53 bits are enough for an estimate")]
fn nanoseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

impl PeakEwma {
    pub(super) fn new(options: &Options, seed: u64) -> Self {
        Self {
            choices: options.choices.unwrap_or(CHOICES) as usize,
            decay: options.decay.unwrap_or(DECAY),
            draw: Draw::new(seed),
            shares: Shares::default(),
            estimates: Vec::new(),
        }
    }

    fn note(&mut self, server: u16, sample: Duration, now: Instant) {
        let decay = self.decay;
        if let Some((_, estimate)) = self.estimates.get_mut(usize::from(server)) {
            *estimate = Some(Estimate::with(*estimate, sample, decay, now));
        }
    }

    /// The expected delay of a new flow, for the server's weight.
    fn cost(
        &self,
        place: usize,
        server: &ServerView,
        load: ServerLoad,
        protocol: Protocol,
        now: Instant,
    ) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "counts of flows have 33 bits")]
        let flows = load.outstanding(protocol) as f64;
        let estimate = self.estimates.get(place).and_then(|(_, estimate)| *estimate);
        let delay = match estimate {
            Some(estimate) => estimate.sunk(self.decay, now) * (flows + 1.0),
            None if flows > 0.0 => UNKNOWN + flows,
            None => 0.0,
        };
        delay / f64::from(server.weight.max(1))
    }
}

impl Scheduler for PeakEwma {
    fn name(&self) -> &'static str {
        "peak-ewma"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn inputs(&self, _flow: &NewFlow) -> PickInputs {
        PickInputs::drawn(self.draw.place())
    }

    fn memory_bytes(&self) -> u64 {
        held::total(self, &[&self.shares, &self.estimates])
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        self.shares = Shares::of(servers);
        let known: BTreeMap<ServerId, Option<Estimate>> = self.estimates.iter().copied().collect();
        let estimate = |server: &ServerView| (server.id, known.get(&server.id).copied().flatten());
        self.estimates = servers.iter().map(estimate).collect();
    }

    fn pick(&mut self, selection: &mut Selection<'_>, now: Instant) {
        for (flow, new) in selection.flows().iter().enumerate() {
            let (drawn, count) = candidates(&self.shares, &mut self.draw, self.choices);
            let mut best: Option<(usize, f64)> = None;
            for place in drawn.into_iter().take(count) {
                let Some((server, load)) = selection.server(place).filter(|(server, _)| server.is_usable())
                else {
                    continue;
                };
                let cost = self.cost(place, server, load, new.tuple.protocol, now);
                if best.is_none_or(|(_, least)| cost < least) {
                    best = Some((place, cost));
                }
            }
            if let Some((server, _)) = best {
                selection.assign(flow, server);
            }
        }
    }

    fn save(&mut self, _now: Instant) -> Option<Vec<u8>> {
        let mut state = Writer::new(self.name());
        state.numbers(&[self.draw.place()]);
        for (id, estimate) in &self.estimates {
            let Some(Estimate { nanoseconds, at }) = estimate else { continue };
            state.numbers(&[id.0, nanoseconds.to_bits(), at.as_nanos()]);
        }
        Some(state.finish())
    }

    fn restore(&mut self, state: &[u8], _now: Instant) -> bool {
        let Some(mut state) = Reader::new(state, self.name()) else { return false };
        let Some(place) = state.number() else { return false };
        let mut estimates = Vec::new();
        while let (Some(id), Some(bits), Some(at)) = (state.number(), state.number(), state.number()) {
            let estimate = Estimate { nanoseconds: f64::from_bits(bits), at: Instant::from_nanos(at) };
            estimates.push((ServerId(id), Some(estimate)));
        }
        let is_whole = state.is_over();
        if is_whole {
            (self.draw, self.estimates) = (Draw::new(place), estimates);
        }
        is_whole
    }

    fn wishes(&self) -> Wishes {
        Wishes { answered: true, closed: true, ..Wishes::default() }
    }

    fn hear(&mut self, events: &[FlowEvent], now: Instant) {
        for event in events {
            match event {
                FlowEvent::Answered(flow) => self.note(flow.server, flow.after, now),
                FlowEvent::Closed(flow) if is_failure(flow) => self.note(flow.server, self.decay, now),
                FlowEvent::Closed(_) | FlowEvent::Opened(_) => {}
            }
        }
    }
}
