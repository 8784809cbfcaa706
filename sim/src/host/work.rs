//! Work that requests make on a server: a line of them before its cores.

use evenkeel_engine::Instant;
use slab::Slab;

use crate::net::{Event, number};
use crate::packet::AnyEnd;
use crate::payload::Head;
use crate::random::Stream;
use crate::scenario::{Discipline, ServiceModel};
use crate::work::{LawError, QueueSpec, Recent, Sampler, ServerQueue, Speed};

/// Who waits for the work.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// A connection, unless another has taken its place.
    Connection { index: usize, generation: u32 },
    /// The sender of a datagram.
    Datagram { local: AnyEnd, remote: AnyEnd },
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) target: Target,
    pub(super) head: Head,
    /// When it came.
    pub(super) since: Instant,
}

/// A server's line of requests.
#[derive(Debug)]
pub(super) struct Work {
    queue: ServerQueue,
    time: Sampler,
    draw: Stream,
    jobs: Slab<Job>,
    /// The generation for which an event has been asked.
    armed: Option<u32>,
    recent: Recent,
    slowness_thousandths: u32,
    is_hung: bool,
}

impl Work {
    pub(super) fn new(model: &ServiceModel, seed: u64, name: &str) -> Result<Self, LawError> {
        Ok(Self {
            queue: ServerQueue::new(QueueSpec {
                discipline: match model.discipline {
                    Discipline::Fcfs => crate::work::Discipline::Fcfs,
                    Discipline::Ps => crate::work::Discipline::Ps,
                },
                cores: model.cores,
                backlog: model.backlog,
            }),
            time: model.time.sampler()?,
            draw: Stream::new(seed, name, "service"),
            jobs: Slab::new(),
            armed: None,
            recent: Recent::default(),
            slowness_thousandths: 1_000,
            is_hung: false,
        })
    }

    /// Whether one more request finds a place.
    pub(super) fn has_room(&self) -> bool {
        self.queue.has_room()
    }

    /// Takes in a request. Returns whether there was room.
    pub(super) fn begin(&mut self, now: Instant, job: Job) -> bool {
        let work = self.time.draw(&mut self.draw);
        let key = self.jobs.insert(job);
        let number = u32::try_from(key).unwrap_or(u32::MAX);
        let is_taken = self.queue.arrive(number, evenkeel_engine::Duration::from_nanos(work), now).is_ok();
        if !is_taken {
            self.jobs.try_remove(key);
        }
        is_taken
    }

    /// The next request that has been worked on.
    pub(super) fn take_done(&mut self, now: Instant) -> Option<Job> {
        let number = self.queue.complete(now)?;
        let job = self.jobs.try_remove(usize::try_from(number).ok()?)?;
        let took = u64::try_from(now.since(job.since).as_nanos()).unwrap_or(u64::MAX);
        self.recent.note(took);
        Some(job)
    }

    /// What it says of itself: requests that it has, and how long the last ones took.
    pub(super) fn condition(&self) -> (u32, evenkeel_engine::Duration) {
        (u32::try_from(self.queue.len()).unwrap_or(u32::MAX), self.recent.latency())
    }

    /// The event to ask for, where none is asked for yet.
    pub(super) fn next_event(&mut self, machine: usize) -> Option<(Instant, Event)> {
        let due = self.queue.due()?;
        if self.armed == Some(due.generation) {
            return None;
        }
        self.armed = Some(due.generation);
        Some((due.at, Event::Work { machine: number(machine), generation: due.generation }))
    }

    /// Whether an event of this generation still counts.
    pub(super) fn is_current(&self, generation: u32) -> bool {
        self.queue.due().is_some_and(|due| due.generation == generation)
    }

    /// Everything is lost; the machine will begin anew.
    pub(super) fn crash(&mut self, now: Instant) {
        self.queue.crash();
        self.jobs.clear();
        self.armed = None;
        self.recent = Recent::default();
        self.queue.recover(now);
        (self.slowness_thousandths, self.is_hung) = (1_000, false);
    }

    pub(super) fn set_hung(&mut self, now: Instant, is_hung: bool) {
        self.is_hung = is_hung;
        self.set_speed(now);
    }

    pub(super) fn set_slowness(&mut self, now: Instant, thousandths: u32) {
        self.slowness_thousandths = thousandths.max(1);
        self.set_speed(now);
    }

    fn set_speed(&mut self, now: Instant) {
        let millionths = 1_000_000_000 / self.slowness_thousandths;
        self.queue.set_speed(if self.is_hung { Speed::HUNG } else { Speed::millionths(millionths) }, now);
    }
}
