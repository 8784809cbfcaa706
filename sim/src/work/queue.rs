//! What a server does with many requests at once: a waiting line with several cores, or cores that are shared.
//!
//! ```text
//! arrive(job, work) --> line (bounded) --> cores --> due() / complete() --> job
//!                        refused: full, down
//! ```
//! A state machine without events. Whoever drives it asks [`ServerQueue::due`] after each call; where it says
//! something else than before, its generation differs too, and a timer of an older generation is to be
//! forgotten when it rings. Work is nanoseconds of one core at full speed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;

use evenkeel_engine::{Duration, Instant};
use serde::{Deserialize, Serialize};

/// The most cores of a server.
const CORES_MAX: u32 = 4_096;
/// The most requests that a server holds where nothing else is said: beyond them a run measures nothing but the line.
const BACKLOG_MAX: u32 = 1 << 24;
/// Parts of a nanosecond of service that the virtual time of shared cores tells apart: 2^32.
const PARTS_BITS: u32 = 32;

/// Who is served when there are more requests than cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Discipline {
    /// Those that came first; each has a core for itself, the others wait.
    #[default]
    Fcfs,
    /// All of them, with an equal share of the cores, but at most one core each.
    Ps,
}

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueSpec {
    /// Who is served.
    pub discipline: Discipline,
    /// Cores (1 to 4,096).
    pub cores: u32,
    /// Requests that it holds besides those that cores are busy with; with shared cores all count as served,
    /// and it holds as many as cores and backlog together.
    pub backlog: u32,
}

impl Default for QueueSpec {
    fn default() -> Self {
        Self { discipline: Discipline::Fcfs, cores: 1, backlog: BACKLOG_MAX }
    }
}

/// How fast a server works, in millionths of its full speed. 0 hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Speed(u32);

impl Speed {
    /// As fast as work is measured.
    pub const FULL: Self = Self(1_000_000);
    /// Not at all.
    pub const HUNG: Self = Self(0);

    /// So many millionths, at most 1,000 times full speed.
    #[must_use]
    pub fn millionths(millionths: u32) -> Self {
        Self(millionths.min(1_000_000_000))
    }

    /// In percent of full speed, rounded down.
    #[must_use]
    pub const fn percent(self) -> u32 {
        self.0 / 10_000
    }
}

/// Why a request was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The line is full.
    Full,
    /// The server has crashed and not come back.
    Down,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Down => "down",
        })
    }
}

/// When a server is done with a request unless something happens before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The time.
    pub at: Instant,
    /// Differs from that of every earlier answer which had another time.
    pub generation: u32,
}

/// When a job ends that nobody works on.
const NEVER: u64 = u64::MAX;

/// A server at work. A job is a number that the caller understands.
#[derive(Clone, Debug)]
pub struct ServerQueue {
    spec: QueueSpec,
    speed: Speed,
    is_down: bool,
    generation: u32,
    /// The next end, as last told; [`NEVER`] if there is none.
    due: u64,
    /// Jobs that have been taken in and neither given out nor lost.
    len: usize,
    at_work: AtWork,
}

#[derive(Clone, Debug)]
enum AtWork {
    Fcfs(Fcfs),
    Ps(Ps),
}

/// A job on a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Running {
    /// When it ends at the present speed.
    end: u64,
    /// Orders those that end together by when they began.
    sequence: u64,
    job: u32,
    /// The work that was left at a time.
    left: u64,
    since: u64,
}

#[derive(Clone, Debug, Default)]
struct Fcfs {
    running: BinaryHeap<Reverse<Running>>,
    waiting: VecDeque<(u32, u64)>,
    sequence: u64,
}

/// Shared cores. Virtual time passes as a request is served, so that each ends at a virtual time that never changes,
/// whoever comes and goes: what it was at the arrival, plus the work. Real and virtual time are told apart by 2^-32 ns;
/// whoever ends within a nanosecond makes room for the others at once, and is given out at its end.
#[derive(Clone, Debug, Default)]
struct Ps {
    /// Virtual end, sequence and job.
    running: BinaryHeap<Reverse<(u128, u64, u32)>>,
    /// Jobs that have ended and not been given out, with the nanosecond in which they did.
    ended: VecDeque<(u64, u32)>,
    /// Virtual time now and the real time at which it was that, in parts of a nanosecond.
    virtual_now: u128,
    real_now: u128,
    sequence: u64,
}

impl ServerQueue {
    /// An empty server. Cores count as at least 1 and at most 4,096.
    #[must_use]
    pub fn new(spec: QueueSpec) -> Self {
        let spec = QueueSpec { cores: spec.cores.clamp(1, CORES_MAX), ..spec };
        let at_work = match spec.discipline {
            Discipline::Fcfs => AtWork::Fcfs(Fcfs::default()),
            Discipline::Ps => AtWork::Ps(Ps::default()),
        };
        Self { spec, speed: Speed::FULL, is_down: false, generation: 0, due: NEVER, len: 0, at_work }
    }

    // Commands. Times never run backwards.

    /// Takes in a job that needs `work`.
    ///
    /// # Errors
    /// When the server is down, or has no room; then nothing has changed.
    #[inline(always)]
    pub fn arrive(&mut self, job: u32, work: Duration, now: Instant) -> Result<(), Refusal> {
        if self.is_down {
            return Err(Refusal::Down);
        }
        if self.len() >= self.room() {
            return Err(Refusal::Full);
        }
        let work = u64::try_from(work.as_nanos()).unwrap_or(u64::MAX);
        let (cores, speed) = (self.spec.cores, self.speed);
        match &mut self.at_work {
            AtWork::Fcfs(fcfs) => fcfs.arrive(job, work, now.as_nanos(), cores, speed),
            AtWork::Ps(ps) => ps.arrive(job, work, now.as_nanos(), cores, speed),
        }
        self.len += 1;
        self.look_ahead();
        Ok(())
    }

    /// Gives out a job that has ended by `now`, if any; several that end together come out in the order of
    /// their arrival, one a call.
    #[inline(always)]
    pub fn complete(&mut self, now: Instant) -> Option<u32> {
        if self.due == NEVER || self.due > now.as_nanos() {
            return None;
        }
        let (cores, speed) = (self.spec.cores, self.speed);
        let job = match &mut self.at_work {
            AtWork::Fcfs(fcfs) => fcfs.complete(now.as_nanos(), speed),
            AtWork::Ps(ps) => ps.complete(now.as_nanos(), cores, speed),
        };
        self.len -= usize::from(job.is_some());
        self.look_ahead();
        job
    }

    /// Works at another speed from `now` on. What has been done stays done.
    pub fn set_speed(&mut self, speed: Speed, now: Instant) {
        match &mut self.at_work {
            AtWork::Fcfs(fcfs) => fcfs.set_speed(self.speed, speed, now.as_nanos()),
            AtWork::Ps(ps) => ps.pass(now.as_nanos(), self.spec.cores, self.speed),
        }
        self.speed = speed;
        self.look_ahead();
    }

    /// Loses every job, in the order in which they were taken in, and takes no more until it recovers.
    pub fn crash(&mut self) -> Vec<u32> {
        self.is_down = true;
        let mut lost: Vec<(u64, u32)> = match &mut self.at_work {
            AtWork::Fcfs(fcfs) => {
                let running = fcfs.running.drain().map(|Reverse(running)| (running.sequence, running.job));
                running.chain(fcfs.waiting.drain(..).map(|(job, _)| (u64::MAX, job))).collect()
            }
            AtWork::Ps(ps) => ps.running.drain().map(|Reverse((_, sequence, job))| (sequence, job)).collect(),
        };
        // Those that waited keep their order behind those that had begun.
        lost.sort_by_key(|(sequence, _)| *sequence);
        // What has ended in this nanosecond is still given out.
        self.len -= lost.len();
        self.look_ahead();
        lost.into_iter().map(|(_, job)| job).collect()
    }

    /// Takes jobs again, at full speed.
    pub fn recover(&mut self, now: Instant) {
        self.is_down = false;
        self.set_speed(Speed::FULL, now);
    }

    // Questions.

    /// When [`ServerQueue::complete`] has something next, if ever.
    #[must_use]
    pub fn due(&self) -> Option<Due> {
        let due = Due { at: Instant::from_nanos(self.due), generation: self.generation };
        (self.due < NEVER).then_some(due)
    }

    /// Whether a timer that was set for this generation still says when a job ends.
    #[must_use]
    pub const fn is_current(&self, generation: u32) -> bool {
        self.generation == generation
    }

    /// Jobs that it has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Cores that work for somebody.
    #[must_use]
    pub fn busy_cores(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX).min(self.spec.cores)
    }

    /// Whether it has crashed and not recovered.
    #[must_use]
    pub const fn is_down(&self) -> bool {
        self.is_down
    }

    /// How fast it works.
    #[must_use]
    pub const fn speed(&self) -> Speed {
        self.speed
    }

    /// What it is.
    #[must_use]
    pub const fn spec(&self) -> &QueueSpec {
        &self.spec
    }

    /// Whether one more job finds a place.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        !self.is_down && self.len() < self.room()
    }

    /// Jobs that it can hold.
    const fn room(&self) -> usize {
        self.spec.cores as usize + self.spec.backlog as usize
    }

    /// Finds the next end anew.
    #[inline]
    fn look_ahead(&mut self) {
        let due = match &self.at_work {
            AtWork::Fcfs(fcfs) => fcfs.running.peek().map_or(NEVER, |Reverse(running)| running.end),
            AtWork::Ps(ps) => ps.due(self.spec.cores, self.speed).unwrap_or(NEVER),
        };
        if due != self.due {
            self.due = due;
            self.generation = self.generation.wrapping_add(1);
        }
    }
}

impl Fcfs {
    #[inline]
    fn arrive(&mut self, job: u32, work: u64, now: u64, cores: u32, speed: Speed) {
        if self.running.len() < cores as usize {
            let begun = self.begin(job, work, now, speed);
            self.running.push(begun);
        } else {
            self.waiting.push_back((job, work));
        }
    }

    #[inline]
    fn begin(&mut self, job: u32, work: u64, now: u64, speed: Speed) -> Reverse<Running> {
        self.sequence += 1;
        let end = now.saturating_add(time_for(work, speed));
        Reverse(Running { end, sequence: self.sequence, job, left: work, since: now })
    }

    #[inline]
    fn complete(&mut self, now: u64, speed: Speed) -> Option<u32> {
        let Some((job, work)) = self.waiting.pop_front() else {
            return self.running.pop().map(|Reverse(ended)| ended.job);
        };
        // Whoever waits longest has the core that is free now.
        let begun = self.begin(job, work, now, speed);
        let mut first = self.running.peek_mut()?;
        Some(std::mem::replace(&mut *first, begun).0.job)
    }

    fn set_speed(&mut self, before: Speed, after: Speed, now: u64) {
        let running = std::mem::take(&mut self.running).into_iter();
        let changed = running.map(|Reverse(running)| {
            let done = work_in(now.saturating_sub(running.since), before);
            let left = running.left.saturating_sub(done);
            let end = now.saturating_add(time_for(left, after));
            Reverse(Running { end, left, since: now, ..running })
        });
        self.running = changed.collect();
    }
}

impl Ps {
    fn arrive(&mut self, job: u32, work: u64, now: u64, cores: u32, speed: Speed) {
        self.pass(now, cores, speed);
        self.sequence += 1;
        let end = self.virtual_now.saturating_add(u128::from(work) << PARTS_BITS);
        self.running.push(Reverse((end, self.sequence, job)));
    }

    fn complete(&mut self, now: u64, cores: u32, speed: Speed) -> Option<u32> {
        self.pass(now, cores, speed);
        self.ended.pop_front().map(|(_, job)| job)
    }

    /// Lets time pass up to `now`.
    fn pass(&mut self, now: u64, cores: u32, speed: Speed) {
        let now = u128::from(now) << PARTS_BITS;
        let now = now.max(self.real_now);
        // Every turn but the last ends a job.
        loop {
            let Some((part, whole)) = self.share(cores, speed) else {
                (self.virtual_now, self.real_now) = (0, now);
                break;
            };
            let Some(end) = self.next_end(part, whole).filter(|end| *end <= now) else {
                self.virtual_now += (now - self.real_now).saturating_mul(part) / whole;
                self.real_now = now;
                break;
            };
            self.real_now = end;
            if let Some(Reverse((end_virtual, _, job))) = self.running.pop() {
                self.virtual_now = end_virtual;
                self.ended.push_back((nanosecond(end), job));
            }
        }
    }

    /// The share of a core that each job has, as a fraction; none without jobs.
    fn share(&self, cores: u32, speed: Speed) -> Option<(u128, u128)> {
        let jobs = u128::try_from(self.running.len()).ok().filter(|jobs| *jobs > 0)?;
        if jobs <= u128::from(cores) && speed == Speed::FULL {
            return Some((1, 1));
        }
        let part = u128::from(cores).min(jobs) * u128::from(speed.0);
        Some((part, jobs * u128::from(Speed::FULL.0)))
    }

    /// When the first job ends in real time, rounded up; none if never. What does not fit is years away.
    fn next_end(&self, part: u128, whole: u128) -> Option<u128> {
        let Reverse((end, _, _)) = *self.running.peek()?;
        let left = end.saturating_sub(self.virtual_now).checked_mul(whole)?;
        if part == 0 { None } else { Some(self.real_now.saturating_add(left.div_ceil(part))) }
    }

    fn due(&self, cores: u32, speed: Speed) -> Option<u64> {
        if let Some((at, _)) = self.ended.front() {
            return Some(*at);
        }
        let (part, whole) = self.share(cores, speed)?;
        self.next_end(part, whole).map(nanosecond)
    }
}

/// The nanosecond in which a time lies that is counted in parts of one, rounded up.
fn nanosecond(parts: u128) -> u64 {
    u64::try_from(parts.div_ceil(1 << PARTS_BITS)).unwrap_or(u64::MAX)
}

/// The time that work takes, rounded up; the end of time for a hung server.
fn time_for(work: u64, speed: Speed) -> u64 {
    if speed == Speed::FULL {
        return work;
    }
    let scaled = u128::from(work) * u128::from(Speed::FULL.0);
    match u128::from(speed.0) {
        0 => NEVER,
        speed => u64::try_from(scaled.div_ceil(speed)).unwrap_or(NEVER),
    }
}

/// The work that is done in a time, rounded down.
fn work_in(time: u64, speed: Speed) -> u64 {
    let scaled = u128::from(time) * u128::from(speed.0);
    u64::try_from(scaled / u128::from(Speed::FULL.0)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    const MICROSECOND: u64 = 1_000;

    fn queue(discipline: Discipline, cores: u32, backlog: u32) -> ServerQueue {
        ServerQueue::new(QueueSpec { discipline, cores, backlog })
    }

    fn at(time: u64) -> Instant {
        Instant::from_nanos(time)
    }

    /// Lets the queue run up to `until`; each end with its time.
    fn run(queue: &mut ServerQueue, until: u64) -> Vec<(u64, u32)> {
        let mut ends = Vec::new();
        while let Some(due) = queue.due().filter(|due| due.at.as_nanos() <= until) {
            let job = queue.complete(due.at).expect("what is due is done");
            ends.push((due.at.as_nanos(), job));
        }
        ends
    }

    fn arrive(queue: &mut ServerQueue, job: u32, work: u64, time: u64) -> Result<(), Refusal> {
        queue.arrive(job, Duration::from_nanos(work), at(time))
    }

    /// Jobs as (time, work), in the order of their times.
    fn jobs(count: usize, mean_gap: u64) -> Vec<(u64, u64)> {
        let mut stream = Stream::new(9, "queue", "jobs");
        let mut time = 0;
        let job = |_| {
            time += stream.below(2 * mean_gap);
            (time, 1 + stream.below(20 * MICROSECOND))
        };
        (0..count).map(job).collect()
    }

    /// All ends of `jobs` that arrive at a queue, with speed changes in between; sorted by job.
    fn ends(queue: &mut ServerQueue, jobs: &[(u64, u64)], speeds: &[(u64, u32)]) -> Vec<u64> {
        let mut ends = Vec::new();
        let mut speeds = speeds.iter().peekable();
        for ((time, work), job) in jobs.iter().zip(0..) {
            while let Some((when, speed)) = speeds.next_if(|(when, _)| when <= time) {
                ends.extend(run(queue, *when));
                queue.set_speed(Speed::millionths(*speed), at(*when));
            }
            ends.extend(run(queue, *time));
            arrive(queue, job, *work, *time).unwrap();
        }
        ends.extend(run(queue, u64::MAX));
        ends.sort_by_key(|(_, job)| *job);
        assert_eq!(ends.len(), jobs.len());
        ends.into_iter().map(|(end, _)| end).collect()
    }

    /// What a waiting line with so many cores does, from the times at which cores become free.
    fn plain_line(jobs: &[(u64, u64)], cores: usize) -> Vec<u64> {
        let mut free = vec![0u64; cores];
        let end = |(time, work): &(u64, u64)| {
            let core = free.iter_mut().min().unwrap();
            *core = (*core).max(*time) + work;
            *core
        };
        jobs.iter().map(end).collect()
    }

    /// What shared cores do, with the work that is left of each job, from one change to the next.
    fn plain_sharing(jobs: &[(u64, u64)], cores: f64, speeds: &[(u64, u32)]) -> Vec<f64> {
        let mut left: Vec<Option<f64>> = vec![None; jobs.len()];
        let mut ends = vec![0.0; jobs.len()];
        let (mut now, mut speed, mut next, mut changed) = (0.0, 1.0, 0, 0);
        loop {
            let running = left.iter().flatten().count() as f64;
            let rate = speed * (cores / running).min(1.0);
            let least = left.iter().flatten().copied().fold(f64::INFINITY, f64::min);
            let done = now + least / rate;
            let arrival = jobs.get(next).map_or(f64::INFINITY, |(time, _)| *time as f64);
            let change = speeds.get(changed).map_or(f64::INFINITY, |(time, _)| *time as f64);
            let event = done.min(arrival).min(change);
            if event == f64::INFINITY {
                return ends;
            }
            left.iter_mut().flatten().for_each(|left| *left -= (event - now) * rate);
            now = event;
            if event == change {
                speed = f64::from(speeds[changed].1) / 1e6;
                changed += 1;
            } else if event == arrival {
                left[next] = Some(jobs[next].1 as f64);
                next += 1;
            } else {
                let first = left.iter().position(|left| left.is_some_and(|left| left <= 1e-6)).unwrap();
                left[first] = None;
                ends[first] = now;
            }
        }
    }

    #[test]
    fn a_line_serves_as_cores_become_free() {
        for cores in [1, 3, 16] {
            let jobs = jobs(2_000, 11 * MICROSECOND / u64::from(cores));
            let ends = ends(&mut queue(Discipline::Fcfs, cores, 10_000), &jobs, &[]);
            assert_eq!(ends, plain_line(&jobs, usize::try_from(cores).unwrap()));
        }
    }

    #[test]
    fn shared_cores_serve_all_at_once() {
        let speeds = [(100_000, 500_000), (400_000, 0), (450_000, 2_000_000), (900_000, 1_000_000)];
        for cores in [1, 3] {
            let jobs = jobs(300, 9 * MICROSECOND / u64::from(cores));
            for speeds in [&speeds[..], &[]] {
                let ends = ends(&mut queue(Discipline::Ps, cores, 10_000), &jobs, speeds);
                let wanted = plain_sharing(&jobs, f64::from(cores), speeds);
                for (end, wanted) in ends.iter().zip(wanted) {
                    // Rounded up to a nanosecond.
                    assert!((-0.01..1.01).contains(&(*end as f64 - wanted)), "{end} {wanted}");
                }
            }
        }
    }

    #[test]
    fn a_line_keeps_what_was_done_when_its_speed_changes() {
        let mut line = queue(Discipline::Fcfs, 2, 10);
        arrive(&mut line, 0, 1_000, 0).unwrap();
        arrive(&mut line, 1, 3_000, 0).unwrap();
        arrive(&mut line, 2, 1_000, 0).unwrap();
        line.set_speed(Speed::millionths(500_000), at(500));
        assert_eq!(run(&mut line, 1_500), [(1_500, 0)]);
        line.set_speed(Speed::HUNG, at(2_000));
        assert_eq!(line.due(), None);
        assert_eq!(line.len(), 2);
        line.set_speed(Speed::FULL, at(10_000));
        // Of job 1, 500 + 750 are done; of job 2, 250.
        assert_eq!(run(&mut line, u64::MAX), [(10_750, 2), (11_750, 1)]);
    }

    #[test]
    fn room_is_cores_and_backlog_for_either_discipline() {
        for discipline in [Discipline::Fcfs, Discipline::Ps] {
            let mut queue = queue(discipline, 2, 1);
            for job in 0..3 {
                arrive(&mut queue, job, 10, 0).unwrap();
            }
            assert_eq!(arrive(&mut queue, 3, 10, 0), Err(Refusal::Full));
            assert_eq!((queue.len(), queue.busy_cores()), (3, 2));
            assert!(queue.complete(at(9)).is_none());
            assert!(queue.complete(queue.due().unwrap().at).is_some());
            assert_eq!(arrive(&mut queue, 3, 10, 10), Ok(()));
        }
    }

    #[test]
    fn a_crash_loses_every_job_and_a_recovery_begins_anew() {
        for discipline in [Discipline::Fcfs, Discipline::Ps] {
            let mut queue = queue(discipline, 2, 9);
            for job in 0..5 {
                arrive(&mut queue, job, 10 + u64::from(job), 0).unwrap();
            }
            queue.set_speed(Speed::millionths(10), at(1));
            assert_eq!(queue.crash(), [0, 1, 2, 3, 4]);
            assert!(queue.is_empty() && queue.is_down() && queue.due().is_none());
            assert_eq!(arrive(&mut queue, 5, 10, 2), Err(Refusal::Down));
            queue.recover(at(50));
            arrive(&mut queue, 6, 10, 50).unwrap();
            assert_eq!(run(&mut queue, u64::MAX), [(60, 6)]);
        }
    }

    #[test]
    fn what_has_ended_before_a_crash_is_given_out_after_it() {
        let mut queue = queue(Discipline::Ps, 1, 9);
        arrive(&mut queue, 0, 10, 0).unwrap();
        // The first one ends as this one comes, and nobody has fetched it yet.
        arrive(&mut queue, 1, 10, 10).unwrap();
        assert_eq!((queue.len(), queue.crash(), queue.len()), (2, vec![1], 1));
        assert_eq!((run(&mut queue, 10), queue.len()), (vec![(10, 0)], 0));
    }

    #[test]
    fn a_generation_changes_exactly_when_the_next_end_does() {
        let mut line = queue(Discipline::Fcfs, 1, 9);
        arrive(&mut line, 0, 100, 0).unwrap();
        let first = line.due().unwrap();
        arrive(&mut line, 1, 100, 10).unwrap();
        assert_eq!(line.due(), Some(first), "whoever waits changes nothing");
        line.set_speed(Speed::millionths(500_000), at(50));
        assert!(!line.is_current(first.generation));
        let mut shared = queue(Discipline::Ps, 1, 9);
        arrive(&mut shared, 0, 100, 0).unwrap();
        let first = shared.due().unwrap();
        arrive(&mut shared, 1, 100, 10).unwrap();
        let second = shared.due().unwrap();
        assert!(second.at.as_nanos() == 190 && !shared.is_current(first.generation));
        assert!(shared.is_current(second.generation));
        assert_eq!(shared.complete(first.at), None, "an old timer finds nothing");
    }

    #[test]
    fn work_without_end_is_never_due() {
        for discipline in [Discipline::Fcfs, Discipline::Ps] {
            let mut queue = queue(discipline, 1, 9);
            arrive(&mut queue, 0, u64::MAX, 5).unwrap();
            assert_eq!(queue.due(), None);
            assert_eq!(queue.crash(), [0]);
        }
    }

    #[test]
    fn jobs_that_end_together_come_out_in_the_order_of_their_arrival() {
        for discipline in [Discipline::Fcfs, Discipline::Ps] {
            let mut queue = queue(discipline, 4, 0);
            for job in [7, 3, 5, 1] {
                arrive(&mut queue, job, 100, 0).unwrap();
            }
            assert_eq!(
                run(&mut queue, u64::MAX).iter().map(|(_, job)| *job).collect::<Vec<_>>(),
                [7, 3, 5, 1]
            );
        }
    }
}
