//! A load at work: when its next session begins, with which five-tuple, and how much work a request is.

use evenkeel_engine::Duration;
use evenkeel_engine::wire::{Address, FiveTuple, Protocol};

use super::outcome::{Cause, LoadOutcome};
use super::setup::{Extent, Keys, LoadSetup, Session, SetupError};
use super::tuples::Tuples;
use crate::random::Stream;
use crate::work::arrivals::Running;
use crate::work::{ArrivalProcess, LawError, Sampler, Zipf};

/// A load at work.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) name: String,
    pub(super) tuples: Tuples,
    pub(super) kind: Kind,
    /// When the next session of an open process begins; the end of time when none will.
    pub(super) next: u64,
    pub(super) started: u64,
    pub(super) completed: u64,
    pub(super) broken: [u64; Cause::ALL.len()],
    protocol: Protocol,
    users: u32,
    think: Option<Sampler>,
    arrivals: Option<ArrivalProcess>,
    extent: Extent,
    keys: KeySource,
    work: Sampler,
    draws: Draws,
}

/// What a session is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Request,
    Requests { count: Sampler, gap: Sampler },
    Kept,
    Flood,
}

#[derive(Debug)]
enum KeySource {
    /// The next number, and how many there are before they begin anew.
    Fresh { next: u64, count: u64 },
    /// Which keys have opened a connection that they keep, by bits; empty where nobody keeps one.
    Shared { law: Zipf, has_opened: Vec<u64> },
}

/// One stream for each purpose, so that none shifts another.
#[derive(Debug)]
struct Draws {
    arrivals: Stream,
    keys: Stream,
    work: Stream,
    counts: Stream,
    gaps: Stream,
    think: Stream,
}

/// A session that begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begin {
    /// The number of its five-tuple.
    pub(super) number: u64,
    /// Requests that it has.
    pub(super) requests: u32,
    /// Whether its first packet opens a flow.
    pub(super) is_opening: bool,
    /// Whether nobody else has its five-tuple.
    pub(super) is_fresh: bool,
}

impl Load {
    pub(super) fn new(setup: &LoadSetup, seed: u64) -> Result<Self, SetupError> {
        let law = |error: LawError| SetupError::Law { name: setup.name.clone(), error };
        let stream = |purpose| Stream::new(seed, &setup.name, purpose);
        let start = nanoseconds(setup.start);
        let (arrivals, users, think) = match setup.arrivals.start(start).map_err(law)? {
            Running::Open(process) => (Some(process), 0, None),
            Running::Closed(closed) => (None, closed.users, Some(closed.think)),
        };
        let kind = match &setup.session {
            Session::Request => Kind::Request,
            Session::Requests { count, gap } => {
                Kind::Requests { count: count.sampler().map_err(law)?, gap: gap.sampler().map_err(law)? }
            }
            Session::Kept => Kind::Kept,
            Session::Flood => Kind::Flood,
        };
        let service = FiveTuple {
            source: Address::UNSPECIFIED,
            destination: setup.address.into(),
            source_port: 0,
            destination_port: setup.port,
            protocol: setup.protocol,
        };
        let tuples = Tuples::new(&setup.clients, service);
        let keys = match setup.keys {
            Keys::Fresh => KeySource::Fresh { next: 0, count: tuples.count() },
            Keys::Shared { count, exponent } => {
                let keeps = matches!(kind, Kind::Kept) && setup.protocol == Protocol::TCP;
                let words = usize::try_from(count.div_ceil(64)).unwrap_or(usize::MAX);
                let has_opened = if keeps { vec![0; words] } else { Vec::new() };
                KeySource::Shared { law: Zipf::new(count, exponent), has_opened }
            }
        };
        let mut load = Self {
            name: setup.name.clone(),
            tuples,
            kind,
            next: u64::MAX,
            started: 0,
            completed: 0,
            broken: [0; Cause::ALL.len()],
            protocol: setup.protocol,
            users,
            think,
            arrivals,
            extent: setup.extent,
            keys,
            work: setup.work.sampler().map_err(law)?,
            draws: Draws {
                arrivals: stream("arrivals"),
                keys: stream("keys"),
                work: stream("work"),
                counts: stream("counts"),
                gaps: stream("gaps"),
                think: stream("think"),
            },
        };
        load.plan_next();
        Ok(load)
    }

    /// Users of a closed loop.
    pub(super) const fn users(&self) -> u32 {
        self.users
    }

    /// Finds out when the next session begins, after those that have begun.
    #[inline]
    pub(super) fn plan_next(&mut self) {
        let time = self.arrivals.as_mut().and_then(|arrivals| arrivals.next(&mut self.draws.arrivals));
        let time = time.filter(|time| self.may_begin(*time));
        if time.is_none() {
            self.arrivals = None;
        }
        self.next = time.unwrap_or(u64::MAX);
    }

    /// Whether a session may begin at `time`.
    pub(super) fn may_begin(&self, time: u64) -> bool {
        match self.extent {
            Extent::Never => true,
            Extent::Sessions(count) => self.started < count,
            Extent::Until(end) => time < nanoseconds(end),
        }
    }

    /// Begins a session.
    #[inline]
    pub(super) fn begin(&mut self) -> Begin {
        self.started += 1;
        let (number, is_opening, is_fresh) = match &mut self.keys {
            KeySource::Fresh { next, count } => {
                let number = *next;
                *next += 1;
                (number, true, number < *count)
            }
            KeySource::Shared { law, has_opened } => {
                let key = law.draw(&mut self.draws.keys);
                (key, !test_and_set(has_opened, key), false)
            }
        };
        let requests = match &self.kind {
            Kind::Requests { count, .. } => {
                u32::try_from(count.draw(&mut self.draws.counts).max(1)).unwrap_or(u32::MAX)
            }
            Kind::Request | Kind::Kept | Kind::Flood => 1,
        };
        // Any datagram opens a flow.
        let is_opening = is_opening || self.protocol != Protocol::TCP;
        Begin { number, requests, is_opening, is_fresh }
    }

    /// The work of a request.
    #[inline]
    pub(super) fn work(&mut self) -> Duration {
        Duration::from_nanos(self.work.draw(&mut self.draws.work))
    }

    /// Nanoseconds from an answer to the next request of its session.
    pub(super) fn gap(&mut self) -> u64 {
        match &self.kind {
            Kind::Requests { gap, .. } => gap.draw(&mut self.draws.gaps),
            Kind::Request | Kind::Kept | Kind::Flood => 0,
        }
    }

    /// Nanoseconds from the end of a user's session to the next one; none without users.
    pub(super) fn think(&mut self) -> Option<u64> {
        self.think.as_ref().map(|think| think.draw(&mut self.draws.think))
    }

    /// Whether a later packet of a session opens a flow: any datagram does.
    pub(super) fn opens_always(&self) -> bool {
        self.protocol != Protocol::TCP
    }

    /// Sessions that are open.
    pub(super) fn unfinished(&self) -> u64 {
        self.started - self.completed - self.broken.iter().sum::<u64>()
    }

    /// Whether no session is open and none will begin.
    pub(super) fn is_done(&self) -> bool {
        let begins = self.next < u64::MAX || (self.users > 0 && self.may_begin(0));
        !begins && self.unfinished() == 0
    }

    pub(super) fn outcome(&self) -> LoadOutcome {
        let broken = Cause::ALL.into_iter().zip(self.broken).filter(|(_, count)| *count > 0);
        LoadOutcome {
            name: self.name.clone(),
            started: self.started,
            completed: self.completed,
            broken: broken.collect(),
            unfinished: self.unfinished(),
        }
    }
}

/// Sets a key's bit; whether it was set. Without bits, none is.
fn test_and_set(bits: &mut [u64], key: u64) -> bool {
    let word = usize::try_from(key / 64).ok().and_then(|word| bits.get_mut(word));
    let Some(word) = word else { return false };
    let mask = 1 << (key % 64);
    let was_set = *word & mask != 0;
    *word |= mask;
    was_set
}

pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
