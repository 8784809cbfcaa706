//! The thread that walks packets: engine and device live here and nowhere else.
//!
//! In: orders from the control plane, by a bounded queue and a wakeup, and packets from the device. Out:
//! packets, answers to orders, events. It takes no lock, reads no file and prints nothing; a turn looks at
//! the queue of orders, which costs one atomic load when it is empty.
//!
//! ```text
//! loop { orders -> step -> events -> wait for packets, a wakeup or a timer when nothing came in }
//! ```

use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evenkeel_engine::director::Scheduler;
use evenkeel_engine::journal::{Journal, Wish};
use evenkeel_engine::plan::SchedulerPlan;
use evenkeel_engine::{AgentCheck, Engine, Event, Guests, Plan, PlanError, Probe, ProbeReply, step};
use evenkeel_io::{
    Backend, DeviceCounters, DeviceError, IoChoice, KernelDevice, MonotonicClock, Port, Waker,
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::control::{self, Traced};

/// The most orders that wait. Each comes from one client of the control socket, of which there are
/// [`control::CLIENTS_MAX`], from a signal or from the end, so that a full queue means a stuck data path.
const ORDERS_MAX: usize = 64;

/// The most orders that are obeyed between two batches, so that clients cannot starve packets.
const ORDERS_PER_TURN: usize = 4;

/// The most batches that are still forwarded after the order to stop: what the queues of a TUN hold (500
/// packets each by default), and an end where packets keep coming.
const DRAIN_BATCHES_MAX: usize = 64;

/// Accounts of a trace that wait for the control plane. Further ones wait in the engine, which counts what it loses.
const TRACED_MAX: usize = 256;

/// How long the thread sleeps at most while accounts wait for a client that is slow.
const TRACE_PATIENCE: Duration = Duration::from_millis(10);

/// How long the thread may take to leave once it is told to: it only closes files.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// The most answers of real servers that wait; each of a batch of new flows may have some.
const REPLIES_MAX: usize = 1_024;

/// The most answers that are taken in between two batches.
const REPLIES_PER_TURN: usize = 64;

/// What the control plane asks of the data path.
enum Order {
    /// Run one command of the control socket.
    Execute { line: String, reply: oneshot::Sender<Result<Value, String>> },
    /// Forward by this plan from now on.
    Apply { plan: Box<Plan>, guests: Guests, reply: oneshot::Sender<Result<u64, PlanError>> },
    /// Let this component schedule for a director.
    Schedule(Box<Schedule>, oneshot::Sender<Result<(), String>>),
    /// Tell of packets as they pass.
    Trace { wish: Box<Wish>, sink: mpsc::Sender<Traced>, reply: oneshot::Sender<Result<(), String>> },
    /// Tell the neighbours of our addresses.
    Announce,
    /// Forward what has arrived, then nothing more.
    Stop,
}

/// A component that is to schedule for a director.
pub(crate) struct Schedule {
    pub(crate) director: String,
    pub(crate) plan: SchedulerPlan,
    pub(crate) scheduler: Box<dyn Scheduler>,
}

/// The control plane's end of the data path. Dropping it closes the device.
#[derive(Debug)]
pub(crate) struct DataPath {
    orders: SyncSender<Order>,
    replies: SyncSender<Heard>,
    waker: Waker,
    backend: Backend,
    // Dropped after `orders`, whose end is the sign to leave.
    _thread: Thread,
}

/// What the engine wants real servers to be asked. What finds no room is left out.
#[derive(Clone, Debug)]
pub(crate) struct Questions {
    /// By schedulers.
    pub(crate) probes: mpsc::Sender<Probe>,
    /// About weight and state.
    pub(crate) checks: mpsc::Sender<AgentCheck>,
}

/// What a real server has answered.
#[derive(Debug)]
pub(crate) enum Heard {
    /// To a scheduler.
    Probe(ProbeReply),
    /// About its weight and state.
    Agent(Box<AgentCheck>, Vec<u8>),
}

impl Heard {
    /// Tells the engine. Returns whether it still waits for it.
    pub(crate) fn take_in(&self, engine: &mut Engine, now: evenkeel_engine::Instant) -> bool {
        match self {
            Self::Probe(reply) => engine.probe_answered(reply, now),
            Self::Agent(check, line) => engine.agent_answered(&check.reply(line), now),
        }
    }
}

/// Where answers of real servers go.
#[derive(Clone, Debug)]
pub(crate) struct Replies {
    queue: SyncSender<Heard>,
    waker: Option<Waker>,
}

impl Replies {
    /// Hands an answer to a scheduler over. Without room it is left out: the scheduler has newer ones.
    pub(crate) fn hand_over(&self, reply: ProbeReply) {
        self.put(Heard::Probe(reply));
    }

    /// Hands over what an agent has said. Without room it is left out, and the engine asks again.
    pub(crate) fn agent_said(&self, check: AgentCheck, line: Vec<u8>) {
        self.put(Heard::Agent(Box::new(check), line));
    }

    fn put(&self, answer: Heard) {
        if self.queue.try_send(answer).is_ok()
            && let Some(waker) = &self.waker
        {
            waker.wake();
        }
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> (Self, Receiver<Heard>) {
        let (queue, inbox) = sync_channel(REPLIES_MAX);
        (Self { queue, waker: None }, inbox)
    }
}

#[derive(Debug)]
struct Thread(Option<JoinHandle<()>>);

impl Drop for Thread {
    fn drop(&mut self) {
        let Some(thread) = self.0.take() else { return };
        // A thread that is stuck must not keep the process from ending: the kernel closes what it holds.
        let deadline = Instant::now() + LEAVE_MAX;
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        if thread.is_finished() {
            // A panic over there has been seen through `Ended`.
            let _ = thread.join();
        }
    }
}

/// Answers when the thread forwards no more, with the reason when nobody had asked for it.
pub(crate) type Ended = oneshot::Receiver<Result<(), DeviceError>>;

/// Starts the thread and waits until it has its device.
///
/// # Errors
/// When the device can not be opened as asked, or the system gives no thread.
pub(crate) fn start(
    engine: Engine,
    ports: Vec<Port>,
    choice: IoChoice,
    events: mpsc::Sender<Event>,
    questions: Questions,
) -> Result<(DataPath, Ended), DeviceError> {
    let (orders, inbox) = sync_channel(ORDERS_MAX);
    let (replies, answers) = sync_channel(REPLIES_MAX);
    let (opened, is_open) = sync_channel(1);
    let (end, ended) = oneshot::channel();
    let body = move || {
        // The device stays on the thread that opened it.
        let mut device = match KernelDevice::open(ports, choice) {
            Ok(device) => device,
            Err(error) => {
                let _ = opened.send(Err(error));
                return;
            }
        };
        let _ = opened.send(Ok((device.waker(), device.backend().clone())));
        let clock = MonotonicClock;
        let mut turns = Turns { engine, events, place: None, questions, answers, inbox, clock, trace: None };
        let result = turns.run(&mut device);
        let _ = end.send(result);
        // The interface stays open until the routes to it are gone.
        while turns.inbox.recv().is_ok() {}
    };
    let spawned = std::thread::Builder::new().name("evenkeel-data".to_owned()).spawn(body);
    let thread = spawned.map_err(|error| DeviceError::Resource { what: "thread", error })?;
    let thread = Thread(Some(thread));
    let answer = is_open.recv().map_err(|_| DeviceError::Resource {
        what: "data path",
        error: std::io::Error::other("its thread ended before it opened the device"),
    })?;
    let (waker, backend) = answer?;
    Ok((DataPath { orders, replies, waker, backend, _thread: thread }, ended))
}

impl DataPath {
    /// Where answers of real servers go.
    pub(crate) fn replies(&self) -> Replies {
        Replies { queue: self.replies.clone(), waker: Some(self.waker.clone()) }
    }

    pub(crate) const fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Has one command executed between two batches.
    pub(crate) async fn execute(&self, line: String) -> Result<Value, String> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Execute { line, reply })?;
        answer.await.unwrap_or_else(|_| Err(STOPPED.to_owned()))
    }

    /// Changes who schedules for a director, between two batches.
    ///
    /// # Errors
    /// When the engine refuses.
    pub(crate) async fn schedule(&self, schedule: Schedule) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Schedule(Box::new(schedule), reply))?;
        answer.await.unwrap_or_else(|_| Err(STOPPED.to_owned()))
    }

    /// Has packets told about as they pass, until the receiver is dropped.
    ///
    /// # Errors
    /// When somebody else is told already.
    pub(crate) async fn trace(&self, wish: Wish) -> Result<mpsc::Receiver<Traced>, String> {
        let (sink, traced) = mpsc::channel(TRACED_MAX);
        let (reply, answer) = oneshot::channel();
        self.order(Order::Trace { wish: Box::new(wish), sink, reply })?;
        answer.await.unwrap_or_else(|_| Err(STOPPED.to_owned()))?;
        Ok(traced)
    }

    /// Puts a plan into force between two batches; answers with its generation.
    ///
    /// # Errors
    /// When the engine refuses it and keeps the old one.
    pub(crate) async fn apply(&self, plan: Plan, guests: Guests) -> Result<u64, String> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Apply { plan: Box::new(plan), guests, reply })?;
        let result = answer.await.map_err(|_| STOPPED.to_owned())?;
        result.map_err(|error| error.to_string())
    }

    /// Has the neighbours told of our addresses, on every Ethernet interface.
    pub(crate) fn announce(&self) {
        // A data path that is stuck tells nobody anything.
        let _ = self.order(Order::Announce);
    }

    /// Asks the thread to forward what has arrived and then to end; `ended` tells when.
    pub(crate) fn stop(&self) {
        // A queue that is full belongs to a thread that is stuck; the caller's patience is bounded.
        let _ = self.order(Order::Stop);
    }

    fn order(&self, order: Order) -> Result<(), String> {
        use std::sync::mpsc::TrySendError;

        match self.orders.try_send(order) {
            Ok(()) => {
                self.waker.wake();
                Ok(())
            }
            Err(TrySendError::Full(_)) => Err("the data path is busy; try again".to_owned()),
            Err(TrySendError::Disconnected(_)) => Err(STOPPED.to_owned()),
        }
    }
}

const STOPPED: &str = "the data path has stopped";

struct Turns {
    engine: Engine,
    events: mpsc::Sender<Event>,
    place: Option<mpsc::OwnedPermit<Event>>,
    questions: Questions,
    answers: Receiver<Heard>,
    inbox: Receiver<Order>,
    clock: MonotonicClock,
    /// Who is told of packets as they pass.
    trace: Option<mpsc::Sender<Traced>>,
}

impl Turns {
    fn run(&mut self, device: &mut KernelDevice) -> Result<(), DeviceError> {
        loop {
            let now = self.clock.now();
            if !self.obey(device, now) {
                self.drain(device);
                return Ok(());
            }
            let has_more = self.listen(now);
            let report = step(&mut self.engine, device, now);
            self.ask(now);
            self.tell();
            if self.trace.is_some() {
                self.tell_trace();
            }
            if has_more {
                continue;
            }
            if report.received == 0 {
                device.wait(self.patience())?;
            }
        }
    }

    /// Obeys what waits. Answers whether to go on.
    fn obey(&mut self, device: &KernelDevice, now: evenkeel_engine::Instant) -> bool {
        for _ in 0..ORDERS_PER_TURN {
            match self.inbox.try_recv() {
                Ok(Order::Execute { line, reply }) => {
                    let mut result = control::execute(&mut self.engine, &line, now);
                    if let Ok(value) = &mut result
                        && line.split_whitespace().next() == Some("stats")
                    {
                        control::insert(value, "device", counted(device.counters()));
                    }
                    // Who has left meanwhile needs no answer.
                    let _ = reply.send(result);
                }
                Ok(Order::Apply { plan, guests, reply }) => {
                    let result = self.engine.apply(*plan, guests, now);
                    let _ = reply.send(result.map(|()| self.engine.generation()));
                }
                Ok(Order::Schedule(schedule, reply)) => {
                    let Schedule { director, plan, scheduler } = *schedule;
                    let result = self.engine.set_scheduler(&director, plan, Some(scheduler), now);
                    let _ = reply.send(result.map_err(|error| error.to_string()));
                }
                Ok(Order::Trace { wish, sink, reply }) => {
                    let _ = reply.send(self.begin_trace(*wish, sink));
                }
                Ok(Order::Announce) => self.engine.announce(),
                Err(TryRecvError::Empty) => return true,
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return false,
            }
        }
        // More orders wait, and their wakeup may be spent: the next turn must not sleep on them.
        device.waker().wake();
        true
    }

    /// Takes in what real servers have answered. Answers whether more may wait.
    fn listen(&mut self, now: evenkeel_engine::Instant) -> bool {
        for _ in 0..REPLIES_PER_TURN {
            let Ok(answer) = self.answers.try_recv() else { return false };
            // Who has left the plan meanwhile is not missed.
            let _ = answer.take_in(&mut self.engine, now);
        }
        true
    }

    /// Hands on what real servers are to be asked. What finds no room is left out.
    fn ask(&mut self, now: evenkeel_engine::Instant) {
        while let Some(probe) = self.engine.poll_probe(now) {
            let _ = self.questions.probes.try_send(probe);
        }
        while let Some(check) = self.engine.poll_agent_check(now) {
            let _ = self.questions.checks.try_send(check);
        }
    }

    fn drain(&mut self, device: &mut KernelDevice) {
        for _ in 0..DRAIN_BATCHES_MAX {
            if step(&mut self.engine, device, self.clock.now()).received == 0 {
                break;
            }
        }
        self.tell();
    }

    /// Hands events on. What finds the queue full stays in the engine, which counts what it loses.
    fn tell(&mut self) {
        // A place is kept while there is nothing to tell: to take and give back one in every turn would
        // cost a lock each.
        while let Some(place) = self.place.take().or_else(|| self.events.clone().try_reserve_owned().ok()) {
            let Some(event) = self.engine.poll_event() else {
                self.place = Some(place);
                return;
            };
            place.send(event);
        }
    }

    /// Has the engine write down what becomes of packets. One client is told at a time; one that has left gives way.
    fn begin_trace(&mut self, wish: Wish, sink: mpsc::Sender<Traced>) -> Result<(), String> {
        if self.trace.as_ref().is_some_and(|other| !other.is_closed()) {
            return Err("a trace is running already; there is one at a time".to_owned());
        }
        let clock = self.clock;
        let stopwatch = Box::new(move || clock.now().as_nanos());
        self.engine.set_journal(Some(Journal::new(wish, Some(stopwatch))));
        self.trace = Some(sink);
        Ok(())
    }

    /// Hands accounts on. What finds the queue full stays in the journal, which counts what it loses.
    fn tell_trace(&mut self) {
        let Some(sink) = &self.trace else { return };
        let Some(journal) = self.engine.journal() else { return };
        let is_over = loop {
            let place = match sink.try_reserve() {
                Ok(place) => place,
                Err(mpsc::error::TrySendError::Full(())) => break false,
                Err(mpsc::error::TrySendError::Closed(())) => break true,
            };
            match journal.poll() {
                Some(account) => {
                    let lost = journal.lost();
                    place.send(Traced::Packet(Box::new(account), lost));
                }
                None if journal.is_full() => {
                    place.send(Traced::End { lost: journal.lost() });
                    break true;
                }
                None => break false,
            }
        };
        if is_over {
            self.engine.set_journal(None);
            self.trace = None;
        }
    }

    /// How long to sleep when nothing comes in.
    fn patience(&mut self) -> Option<Duration> {
        let patience = self.engine.poll_timeout().map(|at| at.since(self.clock.now()));
        let waits = self.engine.journal().is_some_and(|journal| !journal.is_empty());
        if waits {
            Some(patience.map_or(TRACE_PATIENCE, |patience| patience.min(TRACE_PATIENCE)))
        } else {
            patience
        }
    }
}

fn counted(counters: DeviceCounters) -> Value {
    json!({
        "packets_read": counters.packets_read,
        "bytes_read": counters.bytes_read,
        "read_errors": counters.read_errors,
        "packets_written": counters.packets_written,
        "bytes_written": counters.bytes_written,
        "write_errors": counters.write_errors,
        "packets_joined": counters.packets_joined,
        "short_writes": counters.short_writes,
        "queue_full": counters.queue_full,
        "refused": counters.refused,
        "buffers_exhausted": counters.buffers_exhausted,
        "links_down": counters.links_down,
        "queue_overflows": counters.queue_overflows,
        "completion_overflows": counters.completion_overflows,
        "batches": counters.batches,
    })
}
