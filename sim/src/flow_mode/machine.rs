//! A machine of real servers: its queue, and what is counted of it.

use evenkeel_engine::{Duration, Instant};

use super::level::Level;
use super::outcome::MachineOutcome;
use super::setup::{MachineSetup, SetupError};
use crate::random::Stream;
use crate::work::{AgentModel, Law, Recent, Refusal, Sampler, ServerQueue, Speed};

/// A machine at work.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) name: String,
    /// How often it has forgotten its sessions.
    pub(super) epoch: u32,
    queue: ServerQueue,
    recent: Recent,
    is_hung: bool,
    agent: Option<AgentModel>,
    work: Option<(Sampler, Stream)>,
    requests: u64,
    answered: u64,
    refused: u64,
    lost: u64,
    held: Level,
    busy: Level,
}

impl Machine {
    pub(super) fn new(setup: &MachineSetup, seed: u64, warmup: u64) -> Result<Self, SetupError> {
        let work = setup.work.as_ref().map(Law::sampler).transpose();
        let work = work.map_err(|error| SetupError::Law { name: setup.name.clone(), error })?;
        Ok(Self {
            name: setup.name.clone(),
            epoch: 0,
            queue: ServerQueue::new(setup.queue),
            recent: Recent::default(),
            is_hung: false,
            agent: setup.agent.clone(),
            // As in packet mode.
            work: work.map(|work| (work, Stream::new(seed, &setup.name, "service"))),
            requests: 0,
            answered: 0,
            refused: 0,
            lost: 0,
            held: Level::new(warmup),
            busy: Level::new(warmup),
        })
    }

    /// How much work the next request is, where that is not for its load to say.
    #[inline]
    pub(super) fn work(&mut self) -> Option<Duration> {
        self.work.as_mut().map(|(work, draw)| Duration::from_nanos(work.draw(draw)))
    }

    /// When it is done with a request; the end of time if never.
    #[inline]
    pub(super) fn due(&self) -> u64 {
        self.queue.due().map_or(u64::MAX, |due| due.at.as_nanos())
    }

    /// Takes in a request.
    #[inline(always)]
    pub(super) fn arrive(&mut self, job: u32, work: Duration, now: Instant) -> Result<(), Refusal> {
        self.requests += 1;
        let result = self.queue.arrive(job, work, now);
        match result {
            Ok(()) => {
                self.held.rise(now.as_nanos());
                self.count_busy(now);
            }
            Err(Refusal::Full) => self.refused += 1,
            Err(Refusal::Down) => self.lost += 1,
        }
        result
    }

    /// Gives out a request that it is done with.
    #[inline]
    pub(super) fn complete(&mut self, now: Instant) -> Option<u32> {
        let job = self.queue.complete(now)?;
        self.answered += 1;
        self.held.fall(now.as_nanos());
        self.count_busy(now);
        Some(job)
    }

    /// A request took this long, its wait included.
    #[inline]
    pub(super) fn note(&mut self, nanoseconds: u64) {
        self.recent.note(nanoseconds);
    }

    /// What it answers to a scheduler's question, where it does: requests that it has, and how long the last ones took.
    pub(super) fn condition(&self) -> Option<(u32, Duration)> {
        let held = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        (!self.is_down() && !self.is_hung).then(|| (held, self.recent.latency()))
    }

    /// What its agent answers, where it has one and that answers.
    pub(super) fn says(&self) -> Option<String> {
        let (held, _) = self.condition()?;
        Some(self.agent.as_ref()?.line(held))
    }

    /// Its agent says something else from now on, or is gone.
    pub(super) fn set_agent(&mut self, agent: Option<AgentModel>) {
        self.agent = agent;
    }

    /// Stops, and loses what it had.
    pub(super) fn stop(&mut self, now: Instant) -> Vec<u32> {
        self.epoch += 1;
        self.recent = Recent::default();
        let lost = self.queue.crash();
        self.lost += u64::try_from(lost.len()).unwrap_or(u64::MAX);
        self.held.set(u64::try_from(self.queue.len()).unwrap_or(u64::MAX), now.as_nanos());
        self.count_busy(now);
        lost
    }

    /// Works again.
    pub(super) fn start(&mut self, now: Instant) {
        self.queue.recover(now);
    }

    /// Works at another speed.
    pub(super) fn set_speed(&mut self, speed: Speed, now: Instant) {
        self.is_hung = speed == Speed::HUNG;
        self.queue.set_speed(speed, now);
    }

    pub(super) const fn is_down(&self) -> bool {
        self.queue.is_down()
    }

    /// Requests that it has.
    pub(super) fn held(&self) -> usize {
        self.queue.len()
    }

    #[inline]
    fn count_busy(&mut self, now: Instant) {
        self.busy.set(u64::from(self.queue.busy_cores()), now.as_nanos());
    }

    pub(super) fn outcome(&self, now: u64) -> MachineOutcome {
        MachineOutcome {
            name: self.name.clone(),
            requests: self.requests,
            answered: self.answered,
            refused: self.refused,
            lost: self.lost,
            held_mean_millionths: self.held.mean_millionths(now),
            held_max: self.held.max(),
            busy_mean_millionths: self.busy.mean_millionths(now),
        }
    }
}
