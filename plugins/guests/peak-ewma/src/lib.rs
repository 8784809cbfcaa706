//! A few servers at random, and of these the one with the least expected delay: the twin of the built-in `peak-ewma`,
//! decision for decision under the same seed.
//!
//! A server's estimate jumps up to a longer time to its first answer at once, and follows shorter ones by
//! exp(-time since the last / decay). Options `choices`: how many are compared, 1 to 16 (default 2); `decay`: a time, 1 ms
//! to 1 h (default "10s"). The state is that of the built-in one.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;
use core::time::Duration;

use evenkeel_plugin_sdk::random::{Draw, Shares};
use evenkeel_plugin_sdk::{
    ConfigureError, Flow, FlowEvent, Happening, Instant, Load, Options, Scheduler, Server, Setup, State,
    StateWriter, Wishes,
};

/// The name of the state's form.
const FORM: &str = "peak-ewma";

/// The cost of a server with flows that has never answered: above that of any which has, a year.
const UNKNOWN: f64 = 3.15e16;

#[derive(Debug)]
struct PeakEwma {
    choices: usize,
    decay: f64,
    draw: Draw,
    shares: Shares,
    /// Identity and weight of each server, and what is known of it.
    servers: Vec<(u64, u32, Option<Estimate>)>,
}

/// How long a server takes to answer.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Estimate {
    nanoseconds: f64,
    at: Instant,
}

impl Estimate {
    /// What it has sunk to at `now`, were there answers that took no time at all.
    fn sunk(self, decay: f64, now: Instant) -> f64 {
        self.nanoseconds * libm::exp(-float(now.nanos_since(self.at)) / decay)
    }

    fn with(known: Option<Self>, sample: f64, decay: f64, now: Instant) -> Self {
        let nanoseconds = match known {
            Some(known) if sample < known.nanoseconds => {
                let kept = known.sunk(decay, now) / known.nanoseconds;
                sample + (known.nanoseconds - sample) * kept
            }
            Some(_) | None => sample,
        };
        Self { nanoseconds, at: now }
    }
}

#[allow(clippy::cast_precision_loss, reason = "a float's 53 bits are enough for an estimate")]
const fn float(number: u64) -> f64 {
    number as f64
}

impl PeakEwma {
    fn note(&mut self, server: u32, sample: f64, now: Instant) {
        let decay = self.decay;
        let place = usize::try_from(server).unwrap_or(usize::MAX);
        if let Some((_, _, estimate)) = self.servers.get_mut(place) {
            *estimate = Some(Estimate::with(*estimate, sample, decay, now));
        }
    }

    /// The expected delay of a new flow, for the server's weight.
    fn cost(&self, place: usize, outstanding: u64, now: Instant) -> Option<f64> {
        let (_, weight, estimate) = *self.servers.get(place)?;
        let flows = float(outstanding);
        let delay = match estimate {
            Some(estimate) => estimate.sunk(self.decay, now) * (flows + 1.0),
            None if flows > 0.0 => UNKNOWN + flows,
            None => 0.0,
        };
        Some(delay / f64::from(weight.max(1)))
    }
}

impl Scheduler for PeakEwma {
    fn configure(setup: &Setup, options: &mut Options) -> Result<Self, ConfigureError> {
        let range = Duration::from_millis(1)..=Duration::from_secs(3_600);
        let decay = options.duration("decay", Duration::from_secs(10), range)?;
        Ok(Self {
            choices: usize::try_from(options.integer("choices", 2, 1..=16)?).unwrap_or(2),
            decay: float(u64::try_from(decay.as_nanos()).unwrap_or(u64::MAX)),
            draw: Draw::new(setup.seed),
            shares: Shares::default(),
            servers: Vec::new(),
        })
    }

    fn wishes(&self) -> Wishes {
        Wishes { loads: true, answered: true, closed: true, ..Wishes::NONE }
    }

    fn update(&mut self, servers: &[Server], _: Instant) {
        self.shares = Shares::of(servers);
        let known = |id| self.servers.iter().find(|known| known.0 == id).and_then(|known| known.2);
        self.servers = servers.iter().map(|server| (server.id, server.weight, known(server.id))).collect();
    }

    fn pick(&mut self, flow: &Flow, loads: &[Load], now: Instant) -> Option<usize> {
        let mut best: Option<(usize, f64)> = None;
        for place in self.shares.draw_different(&mut self.draw, self.choices) {
            let cost = self.cost(place, loads.get(place)?.outstanding(flow.protocol), now)?;
            if best.is_none_or(|(_, least)| cost < least) {
                best = Some((place, cost));
            }
        }
        best.map(|(place, _)| place)
    }

    fn hear(&mut self, events: &[FlowEvent], now: Instant) {
        for event in events {
            match event.what {
                Happening::Answered => self.note(event.server, float(event.answered), now),
                // A server that does not answer, or refuses, is not a fast one.
                Happening::Unanswered => self.note(event.server, self.decay, now),
                Happening::Reset if event.packets_to <= 1 => self.note(event.server, self.decay, now),
                Happening::Opened | Happening::Finished | Happening::Reset | Happening::Idle => {}
            }
        }
    }

    fn save(&mut self, _: Instant) -> Vec<u8> {
        let mut state = StateWriter::new(FORM);
        state.number(self.draw.place());
        for (id, _, estimate) in &self.servers {
            let Some(estimate) = estimate else { continue };
            state.number(*id);
            state.float(estimate.nanoseconds);
            state.number(estimate.at.as_nanos());
        }
        state.finish()
    }

    fn restore(&mut self, state: &[u8], _: Instant) -> bool {
        let Some(mut state) = State::read(state, FORM) else { return false };
        let Some(place) = state.number() else { return false };
        let mut servers = Vec::new();
        while let (Some(id), Some(nanoseconds), Some(at)) = (state.number(), state.float(), state.number()) {
            servers.push((id, 0, Some(Estimate { nanoseconds, at: Instant::from_nanos(at) })));
        }
        let is_whole = state.is_over();
        if is_whole {
            (self.draw, self.servers) = (Draw::new(place), servers);
        }
        is_whole
    }
}

evenkeel_plugin_sdk::export_scheduler!(PeakEwma);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use evenkeel_plugin_sdk::kit::SchedulerKit;

    /// Opens flows one by one; server 0 answers each after 50 ms, the others after 1 ms.
    fn play(kit: &mut SchedulerKit<PeakEwma>, count: usize) -> [usize; 3] {
        let mut shares = [0; 3];
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
    fn a_slow_server_gets_few_flows() {
        let mut kit = SchedulerKit::<PeakEwma>::new("").unwrap();
        kit.servers(&[1, 1, 1]);
        let shares = play(&mut kit, 1_000);
        assert!(shares[0] < 100, "{shares:?}");
    }

    #[test]
    fn what_was_learnt_outlives_the_instance() {
        let mut kit = SchedulerKit::<PeakEwma>::new("").unwrap();
        kit.servers(&[1, 1, 1]);
        play(&mut kit, 100);
        assert!(kit.replace());
        assert_eq!(play(&mut kit, 20)[0], 0);
    }
}
