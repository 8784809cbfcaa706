//! The load of a client host: real connections and datagrams, begun at the times that the scenario says.
//!
//! In: loads with the start of every flow. Out: flows by the server in their replies, broken flows by
//! cause. A datagram without an answer is sent again; nothing else is retried: what breaks is counted.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel_sim::payload::{
    DATAGRAM_MAX_BYTES, HEAD_BYTES, MESSAGE_MAX_BYTES, Message, request_head, response_head,
};
use evenkeel_sim::random::Stream;
use evenkeel_sim::work::Sampler;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::orders::{Cause, LoadOrder, LoadResult, Starts, Transport};
use crate::server::{CHUNK_BYTES, read_rest, write_whole};

/// Flows that one load has open at once on one host; later ones wait. Three loads stay below the hard
/// limit of descriptors that is usual, 16,384 and more.
const IN_FLIGHT_MAX: usize = 4_096;

/// How long a SYN may stay unanswered: the kernel has repeated it three times by then.
const CONNECT_LIMIT: Duration = Duration::from_secs(8);

/// How long a response over TCP, or the close of the other side, may take.
const STREAM_LIMIT: Duration = Duration::from_secs(10);

/// How long a datagram may stay unanswered before it is sent again.
const DATAGRAM_LIMIT: Duration = Duration::from_secs(1);

/// How often a datagram is sent before its flow counts as broken.
const DATAGRAM_TRIES: u32 = 4;

/// The first port that datagrams are sent from. Each flow takes the next one: a port that comes again while
/// the forwarder still remembers it would be the old flow to it, and no new one.
const PORT_FIRST: u16 = 1_024;

/// Ports that are tried for one flow before the host counts as full: those of all flows that one load has
/// open at once.
const PORT_TRIES: usize = IN_FLIGHT_MAX;

/// What one flow came to: the identity of the server that answered, or why it broke.
type Ended = Result<u32, Cause>;

/// Runs all loads for at most `duration` and counts each flow in `ended` when it has ended.
pub(crate) async fn run(
    orders: Vec<LoadOrder>,
    duration: Duration,
    ended: Arc<AtomicU64>,
) -> Vec<LoadResult> {
    let start = Instant::now();
    let shared = Arc::new(Shared { ended, ports_taken: AtomicU32::new(0) });
    let mut loads = JoinSet::new();
    for order in orders {
        loads.spawn(run_load(Arc::new(order), (start, start + duration), Arc::clone(&shared)));
    }
    let mut results = loads.join_all().await;
    results.sort_by_key(|result| result.load);
    results
}

/// What the flows of all loads of this host share.
#[derive(Debug)]
struct Shared {
    /// Flows that have ended and were not told yet.
    ended: Arc<AtomicU64>,
    /// Flows of datagrams that were opened.
    ports_taken: AtomicU32,
}

impl Shared {
    /// The ports from the first to the last, again and again.
    fn next_port(&self) -> u16 {
        let ports = u32::from(u16::MAX - PORT_FIRST) + 1;
        let position = self.ports_taken.fetch_add(1, Ordering::Relaxed) % ports;
        PORT_FIRST + u16::try_from(position).unwrap_or(0)
    }
}

/// One load on this host.
#[derive(Debug)]
struct Run {
    order: Arc<LoadOrder>,
    shared: Arc<Shared>,
    draws: Arc<Mutex<Draws>>,
    resent: Arc<AtomicU64>,
    flows: JoinSet<Ended>,
    result: LoadResult,
}

/// The random numbers of one load on this host.
#[derive(Debug)]
struct Draws {
    request: Option<Sampler>,
    response: Option<Sampler>,
    sizes: Stream,
    pauses: Stream,
}

impl Draws {
    fn new(order: &LoadOrder) -> Self {
        let stream = |purpose| Stream::new(order.seed, &order.name, purpose);
        // The scenario was checked: there is no law in it that can not be drawn from.
        let [request, response] = [&order.request, &order.response].map(|law| law.sampler().ok());
        Self { request, response, sizes: stream("sizes"), pauses: stream("pauses") }
    }

    /// Bytes of a request and of its response.
    fn sizes(&mut self, transport: Transport) -> (u32, u32) {
        let most = match transport {
            Transport::Tcp => MESSAGE_MAX_BYTES,
            Transport::Udp => DATAGRAM_MAX_BYTES,
        };
        let mut one = |law: &Option<Sampler>| {
            let drawn = law.as_ref().map_or(0, |law| law.draw(&mut self.sizes));
            u32::try_from(drawn).unwrap_or(u32::MAX).clamp(HEAD_BYTES, most)
        };
        (one(&self.request), one(&self.response))
    }

    fn pause(&mut self, mean_us: u64) -> Duration {
        if mean_us == 0 { Duration::ZERO } else { self.pauses.exponential(Duration::from_micros(mean_us)) }
    }
}

async fn run_load(
    order: Arc<LoadOrder>,
    (start, end): (Instant, Instant),
    shared: Arc<Shared>,
) -> LoadResult {
    let result = LoadResult { load: order.load, ..LoadResult::default() };
    let draws = Arc::new(Mutex::new(Draws::new(&order)));
    let mut run = Run { order, shared, draws, resent: Arc::default(), flows: JoinSet::new(), result };
    // At the end of the scenario, flows that are still open are dropped and counted as such.
    let _ = timeout_at(end, run.open_flows(start)).await;
    while let Some(outcome) = run.flows.try_join_next() {
        run.add(outcome);
    }
    run.result.unfinished = u64::try_from(run.flows.len()).unwrap_or(u64::MAX);
    run.result.resent = run.resent.load(Ordering::Relaxed);
    run.result
}

impl Run {
    async fn open_flows(&mut self, start: Instant) {
        match self.order.starts.clone() {
            Starts::At(times_us) => self.open_at(start, &times_us).await,
            Starts::Closed { outstanding, think_us, flows, until_us } => {
                let until = until_us.map(|until_us| start + Duration::from_micros(until_us));
                let begin = start + Duration::from_micros(self.order.start_us);
                sleep_until(begin).await;
                self.open_closed((outstanding, think_us), flows, until).await;
            }
        }
        while let Some(outcome) = self.flows.join_next().await {
            self.add(outcome);
        }
    }

    /// Opens each flow at its time.
    async fn open_at(&mut self, start: Instant, times_us: &[u64]) {
        let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        for time_us in times_us {
            sleep_until(start + Duration::from_micros(*time_us)).await;
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            self.open(Some(place));
            while let Some(outcome) = self.flows.try_join_next() {
                self.add(outcome);
            }
        }
    }

    /// Keeps so many flows open until enough were opened, or the time is over.
    async fn open_closed(
        &mut self,
        (outstanding, think_us): (u32, u64),
        flows: Option<u64>,
        until: Option<Instant>,
    ) {
        let outstanding = usize::try_from(outstanding).unwrap_or(usize::MAX).min(IN_FLIGHT_MAX);
        let mut left = flows.unwrap_or(u64::MAX);
        while left > 0 && until.is_none_or(|until| Instant::now() < until) {
            if self.flows.len() < outstanding {
                // The first of them begin at once.
                let is_first = self.result.started < u64::try_from(outstanding).unwrap_or(u64::MAX);
                self.open_after(if is_first { 0 } else { think_us }, None);
                left -= 1;
            } else if let Some(outcome) = self.flows.join_next().await {
                self.add(outcome);
            }
        }
    }

    fn open(&mut self, place: Option<OwnedSemaphorePermit>) {
        self.open_after(0, place);
    }

    /// Opens a flow after an exponential time of this mean.
    fn open_after(&mut self, think_us: u64, place: Option<OwnedSemaphorePermit>) {
        let think = self.draws.lock().unwrap_or_else(PoisonError::into_inner).pause(think_us);
        let number = u32::try_from(self.result.started).unwrap_or(u32::MAX);
        self.result.started += 1;
        let order = Arc::clone(&self.order);
        let (resent, shared) = (Arc::clone(&self.resent), Arc::clone(&self.shared));
        let flow = FlowOrder { order, number, draws: Arc::clone(&self.draws) };
        self.flows.spawn(async move {
            sleep(think).await;
            let limit = flow.order.deadline_us.map(Duration::from_micros);
            let running = run_flow(&flow, &shared, &resent);
            let outcome = match limit {
                None => running.await,
                Some(limit) => timeout(limit, running).await.unwrap_or(Err(Cause::Deadline)),
            };
            drop(place);
            shared.ended.fetch_add(1, Ordering::Relaxed);
            outcome
        });
    }

    fn add(&mut self, outcome: Result<Ended, tokio::task::JoinError>) {
        match outcome.unwrap_or(Err(Cause::LocalResources)) {
            Ok(server) => *self.result.flows.entry(server).or_default() += 1,
            Err(cause) => *self.result.broken.entry(cause).or_default() += 1,
        }
    }
}

/// One flow to run.
#[derive(Clone, Debug)]
struct FlowOrder {
    order: Arc<LoadOrder>,
    /// Its number in the load on this host.
    number: u32,
    draws: Arc<Mutex<Draws>>,
}

impl FlowOrder {
    fn draws(&self) -> std::sync::MutexGuard<'_, Draws> {
        self.draws.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request of this round. Its pattern is one that no other request of this load has nearby.
    fn request(&self, round: u32, (request, response): (u32, u32)) -> Message {
        let order = &self.order;
        let pattern = order.pattern.wrapping_add(self.number.wrapping_mul(order.rounds)).wrapping_add(round);
        Message::request(request, response, pattern)
    }

    fn sizes(&self) -> (u32, u32) {
        self.draws().sizes(self.order.transport)
    }

    /// Waits before any request but the first.
    async fn pause(&self, round: u32) {
        if round > 0 && self.order.pause_us > 0 {
            let pause = self.draws().pause(self.order.pause_us);
            sleep(pause).await;
        }
    }
}

async fn run_flow(flow: &FlowOrder, shared: &Shared, resent: &AtomicU64) -> Ended {
    match flow.order.transport {
        Transport::Tcp => run_connection(flow).await,
        Transport::Udp => run_datagrams(flow, shared, resent).await,
    }
}

/// Remembers the server of the first answer; another one later means that the flow has moved.
fn settle(server: &mut Option<u32>, answered: u32) -> Result<(), Cause> {
    let first = *server.get_or_insert(answered);
    if first == answered { Ok(()) } else { Err(Cause::ServerChanged) }
}

/// Connects, exchanges all requests, closes, and waits for the other side's close.
async fn run_connection(flow: &FlowOrder) -> Ended {
    let connect = timeout(CONNECT_LIMIT, TcpStream::connect(flow.order.target)).await;
    let mut stream = connect.map_err(|_| Cause::ConnectTimeout)?.map_err(|error| cause_of(&error))?;
    stream.set_nodelay(true).map_err(|error| cause_of(&error))?;
    let mut server = None;
    let mut chunk = vec![0; CHUNK_BYTES];
    let sizes = flow.sizes();
    for round in 0..flow.order.rounds {
        flow.pause(round).await;
        let message = flow.request(round, sizes);
        let exchange = timeout(STREAM_LIMIT, exchange(&mut stream, &message, &mut chunk)).await;
        settle(&mut server, exchange.map_err(|_| Cause::ReplyTimeout)??)?;
    }
    stream.shutdown().await.map_err(|error| cause_of(&error))?;
    let last = timeout(STREAM_LIMIT, stream.read(&mut chunk)).await.map_err(|_| Cause::CloseTimeout)?;
    match last.map_err(|error| cause_of(&error))? {
        0 => server.ok_or(Cause::WrongAnswer),
        _ => Err(Cause::WrongAnswer),
    }
}

/// One request and its response; the server that the response names.
async fn exchange(stream: &mut TcpStream, request: &Message, chunk: &mut [u8]) -> Ended {
    let broken = |error: io::Error| cause_of(&error);
    write_whole(stream, request, chunk).await.map_err(broken)?;
    let mut bytes = [0; HEAD_BYTES as usize];
    stream.read_exact(&mut bytes).await.map_err(broken)?;
    let (response, server) = expected_response(request, &bytes).ok_or(Cause::WrongAnswer)?;
    if read_rest(stream, &response, chunk).await.map_err(broken)? {
        Ok(server)
    } else {
        Err(Cause::WrongAnswer)
    }
}

/// The response that this head must begin, and the server that it names; `None` when it answers something
/// else.
fn expected_response(request: &Message, bytes: &[u8]) -> Option<(Message, u32)> {
    let mut asked = [0; HEAD_BYTES as usize];
    request.write(0, &mut asked);
    let server = response_head(bytes)?.argument;
    let response = Message::response_of(&request_head(&asked)?, server);
    response.matches(0, bytes.get(..HEAD_BYTES as usize)?).then_some((response, server))
}

/// Sends the datagrams of one flow from one port, each after the answer to the one before.
async fn run_datagrams(flow: &FlowOrder, shared: &Shared, resent: &AtomicU64) -> Ended {
    let target = flow.order.target;
    let socket = bind_next(shared, target.is_ipv6()).await?;
    socket.connect(target).await.map_err(|error| cause_of(&error))?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut server = None;
    let sizes = flow.sizes();
    for round in 0..flow.order.rounds {
        flow.pause(round).await;
        let message = flow.request(round, sizes);
        settle(&mut server, ask(&socket, &message, &mut buffer, resent).await?)?;
    }
    server.ok_or(Cause::WrongAnswer)
}

/// A socket on the next port that is free.
async fn bind_next(shared: &Shared, is_v6: bool) -> Result<UdpSocket, Cause> {
    let any: IpAddr = if is_v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    for _ in 0..PORT_TRIES {
        let address = SocketAddr::new(any, shared.next_port());
        match UdpSocket::bind(address).await {
            Ok(socket) => return Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(_) => break,
        }
    }
    Err(Cause::LocalResources)
}

/// Sends a datagram, again if need be, until it is answered.
async fn ask(socket: &UdpSocket, request: &Message, buffer: &mut [u8], resent: &AtomicU64) -> Ended {
    for attempt in 0..DATAGRAM_TRIES {
        resent.fetch_add(u64::from(attempt.min(1)), Ordering::Relaxed);
        let length = usize::try_from(request.len()).unwrap_or(usize::MAX);
        let datagram = buffer.get_mut(..length).ok_or(Cause::LocalResources)?;
        request.write(0, datagram);
        socket.send(datagram).await.map_err(|error| cause_of(&error))?;
        if let Ok(answer) = timeout(DATAGRAM_LIMIT, await_reply(socket, request, buffer)).await {
            return answer;
        }
    }
    Err(Cause::ReplyTimeout)
}

/// Waits for the reply to this request; a second reply to an earlier one is passed over.
async fn await_reply(socket: &UdpSocket, request: &Message, buffer: &mut [u8]) -> Ended {
    loop {
        let read = socket.recv(buffer).await.map_err(|error| cause_of(&error))?;
        let datagram = buffer.get(..read).unwrap_or_default();
        let Some(head) = response_head(datagram) else { return Err(Cause::WrongAnswer) };
        let Some((response, server)) = expected_response(request, datagram) else { continue };
        let is_whole = usize::try_from(head.length).is_ok_and(|length| length == read);
        return if is_whole && response.matches(0, datagram) { Ok(server) } else { Err(Cause::WrongAnswer) };
    }
}

/// What a socket's error means for the flow.
fn cause_of(error: &io::Error) -> Cause {
    #[allow(clippy::wildcard_enum_match_arm, reason = "ErrorKind is not ours and not closed")]
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Cause::Refused,
        io::ErrorKind::TimedOut => Cause::ConnectTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Cause::Unreachable,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
            Cause::Reset
        }
        io::ErrorKind::UnexpectedEof => Cause::ClosedEarly,
        _ => Cause::LocalResources,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_to_another_request_is_not_taken() {
        let request = Message::request(64, 100, 7);
        let server = Ipv4Addr::new(10, 0, 3, 21);
        let mut bytes = [0; 100];
        let asked = evenkeel_sim::payload::Head { length: 64, argument: 100, pattern: 7 };
        Message::response(&asked, server).write(0, &mut bytes);
        let (response, named) = expected_response(&request, &bytes).unwrap();
        assert_eq!((response.len(), named), (100, server.to_bits()));
        assert!(expected_response(&Message::request(64, 100, 8), &bytes).is_none());
        assert!(expected_response(&request, &bytes[..15]).is_none());
    }

    #[test]
    fn every_port_is_used_once_before_the_first_comes_again() {
        let shared = Shared { ended: Arc::default(), ports_taken: AtomicU32::new(0) };
        let ports: std::collections::BTreeSet<u16> = (0..64_512).map(|_| shared.next_port()).collect();
        assert_eq!((ports.len(), ports.first()), (64_512, Some(&PORT_FIRST)));
        assert_eq!(shared.next_port(), PORT_FIRST);
    }

    #[test]
    fn second_server_in_one_flow_is_noticed() {
        let mut server = None;
        assert_eq!(settle(&mut server, 1), Ok(()));
        assert_eq!(settle(&mut server, 1), Ok(()));
        assert_eq!(settle(&mut server, 2), Err(Cause::ServerChanged));
    }
}
