//! Who opens flows when: each load is a stream of openings, dealt out to its clients in turn.

use evenkeel_engine::{Duration, Instant};

use super::World;
use crate::host::Opening;
use crate::net::{Event, Net, number};
use crate::openings::Openings;
use crate::payload::{HEAD_BYTES, MESSAGE_MAX_BYTES};
use crate::random::Stream;
use crate::report::LoadCounts;
use crate::scenario::{Arrivals, Extent, Load};
use crate::work::{LawError, Sampler};

/// One load at work.
pub(crate) struct LoadState {
    pub(crate) counts: LoadCounts,
    openings: Openings,
    patterns: Stream,
    request: Sampler,
    response: Sampler,
    requests: Stream,
    responses: Stream,
    /// No further flow will open.
    is_exhausted: bool,
}

impl LoadState {
    pub(super) fn new(load: &Load, seed: u64) -> Result<Self, LawError> {
        let stream = |purpose| Stream::new(seed, &load.name, purpose);
        Ok(Self {
            counts: LoadCounts::default(),
            openings: Openings::new(load.arrivals, seed, &load.name, Instant::ZERO.after(load.start)),
            patterns: stream("patterns"),
            request: load.exchange.request.sampler()?,
            response: load.exchange.response.sampler()?,
            requests: stream("requests"),
            responses: stream("responses"),
            is_exhausted: false,
        })
    }

    pub(super) fn is_done(&self) -> bool {
        self.is_exhausted && self.counts.unfinished() == 0
    }

    /// A flow has ended; in a closed loop the next one follows.
    pub(super) fn make_room(&mut self, net: &mut Net, load: usize) {
        if self.is_exhausted {
            return;
        }
        if let Some(pause) = self.openings.pause() {
            net.schedule(net.now.after(pause), Event::Reopen { load: number(load) });
        }
    }
}

impl World<'_> {
    pub(super) fn begin_loads(&mut self) {
        for (index, load) in self.scenario.loads.iter().enumerate() {
            let start = Instant::ZERO.after(load.start);
            if let Arrivals::Closed { outstanding, .. } = load.arrivals {
                for _ in 0..outstanding {
                    self.net.schedule(start, Event::Reopen { load: number(index) });
                }
            } else {
                let first = self.loads.get_mut(index).and_then(|state| state.openings.first(start));
                self.net.schedule(first.unwrap_or(start), Event::Open { load: number(index) });
            }
        }
    }

    /// The next flow of a load that opens flows by itself, and when the one after it follows.
    pub(super) fn open(&mut self, index: usize) {
        self.open_one(index);
        let (Some(load), Some(state)) = (self.scenario.loads.get(index), self.loads.get_mut(index)) else {
            return;
        };
        if state.is_exhausted {
            return;
        }
        let Some(next) = state.openings.next(self.net.now) else { return };
        if is_beyond(load, next) {
            state.is_exhausted = true;
        } else {
            self.net.schedule(next, Event::Open { load: number(index) });
        }
    }

    /// The next flow of a closed loop.
    pub(super) fn reopen(&mut self, index: usize) {
        self.open_one(index);
    }

    /// A client without power opens nothing; in a closed loop somebody tries again later.
    fn wait_for_power(&mut self, index: usize) {
        let (Some(load), Some(state)) = (self.scenario.loads.get(index), self.loads.get_mut(index)) else {
            return;
        };
        state.counts.started -= 1;
        if matches!(load.extent, Extent::Flows(_)) {
            state.is_exhausted = false;
        }
        if matches!(load.arrivals, Arrivals::Closed { .. }) {
            self.net.schedule(self.net.now.after(POWER_PATIENCE), Event::Reopen { load: number(index) });
        }
    }

    fn open_one(&mut self, index: usize) {
        let (Some(load), Some(state)) = (self.scenario.loads.get(index), self.loads.get_mut(index)) else {
            return;
        };
        let now = self.net.now;
        if state.is_exhausted {
            return;
        }
        if is_beyond(load, now) {
            state.is_exhausted = true;
            return;
        }
        let number = state.counts.started;
        state.counts.started += 1;
        state.is_exhausted = matches!(load.extent, Extent::Flows(flows) if state.counts.started >= flows);
        #[allow(clippy::cast_possible_truncation, reason = "32 of 64 random bits")]
        let pattern = state.patterns.bits() as u32;
        let opening = Opening {
            load: index,
            number,
            service: load.service,
            request_bytes: size(&state.request, &mut state.requests),
            response_bytes: size(&state.response, &mut state.responses),
            rounds: load.exchange.rounds,
            pause: load.exchange.pause,
            deadline: load.deadline.map_or(Instant::NEVER, |deadline| now.after(deadline)),
            pattern,
        };
        let count = u64::try_from(load.clients.len()).unwrap_or(u64::MAX);
        let turn = number.checked_rem(count).and_then(|turn| usize::try_from(turn).ok());
        let Some(machine) = turn.and_then(|turn| load.clients.get(turn)).copied() else { return };
        let is_open = self.machines.get_mut(machine).is_some_and(|machine| {
            machine.with_host(&mut self.net, |host, way| host.open(way, opening)).is_some()
        });
        if is_open {
            self.telling.started(now, index);
        } else {
            self.wait_for_power(index);
        }
        self.collect(machine);
    }
}

/// How long a closed loop waits for a client without power.
const POWER_PATIENCE: Duration = Duration::from_secs(1);

/// A drawn size, within what a message may have.
fn size(law: &Sampler, draw: &mut Stream) -> u32 {
    u32::try_from(law.draw(draw)).unwrap_or(u32::MAX).clamp(HEAD_BYTES, MESSAGE_MAX_BYTES)
}

/// Whether a load opens no flow at `at` any more.
fn is_beyond(load: &Load, at: Instant) -> bool {
    match load.extent {
        Extent::Flows(_) => false,
        Extent::Duration(duration) => at > Instant::ZERO.after(load.start).after(duration),
    }
}
