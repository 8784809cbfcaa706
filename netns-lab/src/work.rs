//! The cores of a real server: requests wait, are served and end as in the simulator, in real time.
//!
//! In: requests. Out: a word to each when it has been served. A thread of its own drives the simulator's
//! [`ServerQueue`]: the timers of the runtime are too coarse for service times below a millisecond.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use evenkeel_sim::random::Stream;
use evenkeel_sim::scenario::{Discipline, ServiceModel};
use evenkeel_sim::work::{self, QueueSpec, Sampler, ServerQueue, Speed};
use tokio::sync::oneshot;

/// Requests that may wait for the thread itself.
const WISHES_MAX: usize = 1 << 16;

/// The speed of a machine that is well, in millionths.
const FULL_SPEED_MILLIONTHS: u32 = 1_000_000;

/// What the thread is asked.
#[derive(Debug)]
enum Wish {
    Serve(oneshot::Sender<()>),
    Slow(u32),
    Hang(bool),
    LoseAll,
}

/// The cores of one server. The thread ends with the last of these.
#[derive(Debug)]
pub(crate) struct Workplace {
    wishes: SyncSender<Wish>,
}

impl Workplace {
    /// Starts the thread. `name` is what its random numbers go by.
    ///
    /// # Errors
    ///
    /// When no service times can be drawn, or no thread can be started.
    pub(crate) fn start(model: &ServiceModel, seed: u64, name: &str) -> io::Result<Self> {
        let (wishes, wished) = sync_channel(WISHES_MAX);
        let discipline = match model.discipline {
            Discipline::Fcfs => work::Discipline::Fcfs,
            Discipline::Ps => work::Discipline::Ps,
        };
        let cores = Cores {
            queue: ServerQueue::new(QueueSpec { discipline, cores: model.cores, backlog: model.backlog }),
            time: model.time.sampler().map_err(io::Error::other)?,
            draw: Stream::new(seed, name, "service"),
            begin: Instant::now(),
            waiting: BTreeMap::new(),
            next: 0,
            speed_millionths: FULL_SPEED_MILLIONTHS,
            is_hung: false,
        };
        thread::Builder::new().name("cores".to_owned()).spawn(move || cores.run(&wished))?;
        Ok(Self { wishes })
    }

    /// Gets into the line. What comes back is heard when the request has been served, and fails where it was refused or
    /// lost.
    pub(crate) fn queue_up(&self) -> oneshot::Receiver<()> {
        let (served, ticket) = oneshot::channel();
        self.tell(Wish::Serve(served));
        ticket
    }

    /// Works slower by this factor, in thousandths.
    pub(crate) fn slow(&self, factor_thousandths: u32) {
        self.tell(Wish::Slow(factor_thousandths));
    }

    /// Stands still, or goes on.
    pub(crate) fn hang(&self, is_hung: bool) {
        self.tell(Wish::Hang(is_hung));
    }

    /// Loses every request.
    pub(crate) fn lose_all(&self) {
        self.tell(Wish::LoseAll);
    }

    /// A wish beyond the bound is lost, which its sender hears.
    fn tell(&self, wish: Wish) {
        let _ = self.wishes.try_send(wish);
    }
}

#[derive(Debug)]
struct Cores {
    queue: ServerQueue,
    time: Sampler,
    draw: Stream,
    begin: Instant,
    /// Who is told when a job has ended.
    waiting: BTreeMap<u32, oneshot::Sender<()>>,
    next: u32,
    speed_millionths: u32,
    is_hung: bool,
}

impl Cores {
    fn run(mut self, wished: &Receiver<Wish>) {
        loop {
            let wish = match self.queue.due() {
                None => wished.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => wished.recv_timeout(self.until(due.at)),
            };
            match wish {
                Ok(wish) => self.take(wish),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = self.now();
            while let Some(job) = self.queue.complete(now) {
                // Nobody waits for it any more where the connection is gone.
                let _ = self.waiting.remove(&job).map(|served| served.send(()));
            }
        }
    }

    fn now(&self) -> evenkeel_engine::Instant {
        let since = u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        evenkeel_engine::Instant::from_nanos(since)
    }

    fn until(&self, at: evenkeel_engine::Instant) -> Duration {
        Duration::from_nanos(at.as_nanos()).saturating_sub(self.begin.elapsed())
    }

    fn take(&mut self, wish: Wish) {
        let now = self.now();
        match wish {
            Wish::Serve(served) => {
                let time = Duration::from_nanos(self.time.draw(&mut self.draw));
                let job = self.next;
                self.next = self.next.wrapping_add(1);
                // Who is refused hears it: its sender goes.
                if self.queue.arrive(job, time, now).is_ok() {
                    self.waiting.insert(job, served);
                }
            }
            Wish::Slow(factor_thousandths) => {
                let speed = u64::from(FULL_SPEED_MILLIONTHS) * 1_000 / u64::from(factor_thousandths.max(1));
                self.speed_millionths = u32::try_from(speed).unwrap_or(u32::MAX);
                self.set_speed(now);
            }
            Wish::Hang(is_hung) => {
                self.is_hung = is_hung;
                self.set_speed(now);
            }
            Wish::LoseAll => {
                self.queue.crash();
                self.waiting.clear();
                self.queue.recover(now);
                self.set_speed(now);
            }
        }
    }

    fn set_speed(&mut self, now: evenkeel_engine::Instant) {
        let millionths = if self.is_hung { 0 } else { self.speed_millionths };
        self.queue.set_speed(Speed::millionths(millionths), now);
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_sim::work::Law;

    use super::*;

    fn workplace(backlog: u32) -> Workplace {
        let time = Law::Fixed { value: 2_000_000 };
        let model = ServiceModel { time, discipline: Discipline::Fcfs, cores: 1, backlog };
        Workplace::start(&model, 1, "server").unwrap()
    }

    #[test]
    fn requests_are_served_one_after_the_other_on_one_core() {
        let (work, begin) = (workplace(10), Instant::now());
        let tickets: Vec<_> = (0..3).map(|_| work.queue_up()).collect();
        for ticket in tickets {
            ticket.blocking_recv().unwrap();
        }
        assert!(begin.elapsed() >= Duration::from_millis(6));
    }

    #[test]
    fn who_finds_the_line_full_or_is_lost_hears_it() {
        let work = workplace(1);
        work.hang(true);
        let tickets: Vec<_> = (0..3).map(|_| work.queue_up()).collect();
        let [first, second, third] = <[_; 3]>::try_from(tickets).unwrap();
        assert!(third.blocking_recv().is_err(), "one is served, one waits");
        work.lose_all();
        assert!(first.blocking_recv().is_err() && second.blocking_recv().is_err());
        work.hang(false);
        work.queue_up().blocking_recv().unwrap();
    }
}
