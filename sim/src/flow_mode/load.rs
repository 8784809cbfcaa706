//! A load at work: when its next session begins, with which five-tuple, and how much work a request is.

use evenkeel_engine::wire::{Address, FiveTuple, Protocol};
use evenkeel_engine::{Duration, Instant};

use super::outcome::{Cause, LoadOutcome};
use super::setup::{Beginnings, Extent, Keys, LoadSetup, MACHINES_MAX, Session, SetupError};
use super::tuples::Tuples;
use crate::host::PORT_FIRST;
use crate::openings::Openings;
use crate::random::Stream;
use crate::scenario;
use crate::work::arrivals::Running;
use crate::work::{ArrivalProcess, LawError, Sampler, Zipf};

/// A load at work.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) name: String,
    pub(super) tuples: Tuples,
    pub(super) kind: Kind,
    /// The place of its router.
    pub(super) router: u16,
    /// When the next session of an open process begins; the end of time when none will.
    pub(super) next: u64,
    pub(super) started: u64,
    completed: u64,
    /// The same by machine, as far as one has completed any.
    pub(super) completed_by: Vec<u64>,
    pub(super) broken: [u64; Cause::ALL.len()],
    protocol: Protocol,
    users: u32,
    beginnings: Source,
    extent: Extent,
    keys: KeySource,
    work: Sampler,
    /// The work of the next request. Drawn one request ahead, as the times of a process are: nobody who decides by it waits
    /// for its logarithm.
    next_work: u64,
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

/// Where the times come from at which sessions begin.
#[derive(Debug)]
enum Source {
    Process {
        process: ArrivalProcess,
        /// The time behind the next one.
        after: Option<u64>,
    },
    /// Users who come back after this time.
    Users(Sampler),
    Openings(Box<Openings>),
    /// None will any more.
    Ended,
}

#[derive(Debug)]
enum KeySource {
    /// Machines in turn, which know their next ports: their places among all.
    Callers(Vec<u32>),
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
    /// Whether nobody else has its five-tuple, as long as callers do not come to a port for the second time.
    pub(super) is_fresh: bool,
}

impl Load {
    pub(super) fn new(setup: &LoadSetup, seed: u64) -> Result<Self, SetupError> {
        let law = |error: LawError| SetupError::Law { name: setup.name.clone(), error };
        let stream = |purpose| Stream::new(seed, &setup.name, purpose);
        let start = nanoseconds(setup.start);
        let (beginnings, users, first) = beginnings(setup, seed, start).map_err(law)?;
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
        let tuples = if setup.callers.is_empty() {
            Tuples::new(&setup.clients, service)
        } else {
            Tuples::of_callers(setup.callers.iter().map(|(_, address)| *address), service)
        };
        let keys = key_source(setup, tuples.count());
        let mut load = Self {
            name: setup.name.clone(),
            tuples,
            kind,
            router: setup.router,
            next: u64::MAX,
            started: 0,
            completed: 0,
            completed_by: Vec::new(),
            broken: [0; Cause::ALL.len()],
            protocol: setup.protocol,
            users,
            beginnings,
            extent: setup.extent,
            keys,
            work: setup.work.sampler().map_err(law)?,
            next_work: 0,
            draws: Draws {
                arrivals: stream("arrivals"),
                keys: stream("keys"),
                work: stream("work"),
                counts: stream("counts"),
                gaps: stream("gaps"),
                think: stream("think"),
            },
        };
        load.work();
        if let Source::Process { process, after } = &mut load.beginnings {
            *after = process.next(&mut load.draws.arrivals);
        }
        match first {
            Some(first) => load.plan(Some(first)),
            None => load.plan_next(0),
        }
        Ok(load)
    }

    /// Users of a closed loop.
    pub(super) const fn users(&self) -> u32 {
        self.users
    }

    /// Finds out when the next session begins, after those that have begun, the last one at `now`.
    #[inline]
    pub(super) fn plan_next(&mut self, now: u64) {
        let time = match &mut self.beginnings {
            Source::Process { process, after } => {
                std::mem::replace(after, process.next(&mut self.draws.arrivals))
            }
            Source::Openings(openings) => openings.next(Instant::from_nanos(now)).map(Instant::as_nanos),
            Source::Users(_) | Source::Ended => None,
        };
        self.plan(time);
    }

    #[inline]
    fn plan(&mut self, time: Option<u64>) {
        let time = time.filter(|time| self.may_begin(*time));
        if time.is_none() && self.users == 0 {
            self.beginnings = Source::Ended;
        }
        self.next = time.unwrap_or(u64::MAX);
    }

    /// Whether a session may begin at `time`.
    #[inline]
    pub(super) fn may_begin(&self, time: u64) -> bool {
        match self.extent {
            Extent::Never => true,
            Extent::Sessions(count) => self.started < count,
            Extent::Until(end) => time < nanoseconds(end),
        }
    }

    /// Begins a session. `ports` are the next ports of the machines that call.
    #[inline]
    pub(super) fn begin(&mut self, ports: &mut [u16]) -> Begin {
        let turn = self.started;
        self.started += 1;
        let (number, is_opening, is_fresh) = match &mut self.keys {
            KeySource::Callers(callers) => {
                let count = u64::try_from(callers.len()).unwrap_or(u64::MAX);
                let place = turn.checked_rem(count).unwrap_or(0);
                let caller = usize::try_from(place).ok().and_then(|place| callers.get(place));
                let caller = caller.and_then(|caller| usize::try_from(*caller).ok());
                let port = caller.and_then(|caller| ports.get_mut(caller)).map_or(0, |next| {
                    let port = *next;
                    *next = next.checked_add(1).unwrap_or(PORT_FIRST);
                    port
                });
                (Tuples::number(place, port), true, true)
            }
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
        let next = self.work.draw(&mut self.draws.work);
        Duration::from_nanos(std::mem::replace(&mut self.next_work, next))
    }

    /// Nanoseconds from an answer to the next request of its session.
    #[inline]
    pub(super) fn gap(&mut self) -> u64 {
        match &self.kind {
            Kind::Requests { gap, .. } => gap.draw(&mut self.draws.gaps),
            Kind::Request | Kind::Kept | Kind::Flood => 0,
        }
    }

    /// Nanoseconds from the end of a user's session to the next one; none without users.
    #[inline(always)]
    pub(super) fn think(&mut self) -> Option<u64> {
        match &mut self.beginnings {
            Source::Users(think) => Some(think.draw(&mut self.draws.think)),
            Source::Openings(openings) => openings.pause().map(nanoseconds),
            Source::Process { .. } | Source::Ended => None,
        }
    }

    /// Counts a session that a machine has completed.
    #[inline]
    pub(super) fn complete(&mut self, machine: u32) {
        self.completed += 1;
        let Ok(place) = usize::try_from(machine) else { return };
        if let Some(count) = self.completed_by.get_mut(place) {
            *count += 1;
        } else {
            self.complete_first(place);
        }
    }

    /// The first session that the machine at `place` has completed, or one before it.
    #[cold]
    fn complete_first(&mut self, place: usize) {
        if place < MACHINES_MAX {
            self.completed_by.resize(place, 0);
            self.completed_by.push(1);
        }
    }

    /// Whether a later packet of a session opens a flow: any datagram does.
    pub(super) fn opens_always(&self) -> bool {
        self.protocol != Protocol::TCP
    }

    /// Sessions that it will begin, where its extent says so.
    pub(super) const fn expected(&self) -> Option<u64> {
        match self.extent {
            Extent::Sessions(count) => Some(count),
            Extent::Never | Extent::Until(_) => None,
        }
    }

    /// Sessions that are open.
    pub(super) fn unfinished(&self) -> u64 {
        self.started - self.completed - self.broken.iter().sum::<u64>()
    }

    /// Whether no session is open and none will begin after `now`.
    pub(super) fn is_done(&self, now: u64) -> bool {
        let begins = self.next < u64::MAX || (self.users > 0 && self.may_begin(now));
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

/// Where the keys come from; `count` five-tuples differ.
fn key_source(setup: &LoadSetup, count: u64) -> KeySource {
    match setup.keys {
        _ if !setup.callers.is_empty() => {
            KeySource::Callers(setup.callers.iter().map(|(caller, _)| *caller).collect())
        }
        Keys::Fresh => KeySource::Fresh { next: 0, count },
        Keys::Shared { count, exponent } => {
            let keeps = matches!(setup.session, Session::Kept) && setup.protocol == Protocol::TCP;
            let words = usize::try_from(count.div_ceil(64)).unwrap_or(usize::MAX);
            let has_opened = if keeps { vec![0; words] } else { Vec::new() };
            KeySource::Shared { law: Zipf::new(count, exponent), has_opened }
        }
    }
}

/// Where the times come from, how many users there are, and when the first session begins if that is not the next time.
fn beginnings(setup: &LoadSetup, seed: u64, start: u64) -> Result<(Source, u32, Option<u64>), LawError> {
    match &setup.arrivals {
        Beginnings::Process(arrivals) => Ok(match arrivals.start(start)? {
            Running::Open(process) => (Source::Process { process, after: None }, 0, None),
            Running::Closed(closed) => (Source::Users(closed.think), closed.users, None),
        }),
        Beginnings::Openings(arrivals) => {
            let users = match arrivals {
                scenario::Arrivals::Closed { outstanding, .. } => *outstanding,
                scenario::Arrivals::Poisson { .. }
                | scenario::Arrivals::Uniform { .. }
                | scenario::Arrivals::OnOff { .. } => 0,
            };
            let mut openings = Openings::new(*arrivals, seed, &setup.name, Instant::from_nanos(start));
            let first = openings.first(Instant::from_nanos(start)).map(Instant::as_nanos);
            Ok((Source::Openings(Box::new(openings)), users, first))
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
