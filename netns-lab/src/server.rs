//! The services of a real server: kernel sockets that answer every request with the server's identity.
//!
//! In: sockets to answer on. Out: replies, and counts of flows and packets. Never decides which server a
//! flow belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel_sim::payload::{HEAD_BYTES, Head, Message, identity, request_head};
use evenkeel_sim::work::AgentModel;
use rustix::net::sockopt::set_socket_linger;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::orders::{ServeOrder, Service, Transport};
use crate::work::Workplace;

/// Connections that one socket serves at once: as many as the kernel's default backlog.
const CONNECTIONS_MAX: usize = 4_096;

/// How long an agent waits for a forwarder to close.
const AGENT_PATIENCE: Duration = Duration::from_secs(1);

/// Distinct UDP senders that are remembered for the count of flows: more than a scenario may have.
const SENDERS_MAX: usize = 1 << 20;

/// The largest UDP datagram.
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Bytes that are read and written at once.
pub(crate) const CHUNK_BYTES: usize = 16 << 10;

/// The running services of one host.
#[derive(Debug)]
pub(crate) struct Services {
    order: Option<ServeOrder>,
    desk: Arc<Desk>,
    /// Whether the programs hang.
    hung: watch::Sender<bool>,
    /// What its agent says.
    agent: watch::Sender<Option<AgentModel>>,
    /// The power: its end is the end of every connection.
    power: Option<watch::Sender<()>>,
    listeners: JoinSet<()>,
}

/// What the sockets of one host share.
#[derive(Debug, Default)]
struct Desk {
    /// Flows by socket.
    flows: Mutex<BTreeMap<Service, u64>>,
    work: Mutex<Option<Workplace>>,
}

impl Default for Services {
    fn default() -> Self {
        let ((hung, _), (agent, _)) = (watch::channel(false), watch::channel(None));
        Self { order: None, desk: Arc::default(), hung, agent, power: None, listeners: JoinSet::new() }
    }
}

/// One socket at work.
#[derive(Clone, Debug)]
struct Counter {
    service: Service,
    /// Who the server is in its answers.
    identity: u32,
    desk: Arc<Desk>,
    hung: watch::Receiver<bool>,
    power: watch::Receiver<()>,
}

impl Services {
    /// Opens the sockets and leaves them to the current runtime.
    ///
    /// # Errors
    ///
    /// When a socket can not be opened, or no service times can be drawn.
    pub(crate) async fn open(&mut self, order: ServeOrder) -> io::Result<()> {
        if let Some(model) = &order.work {
            *self.desk.work() = Some(Workplace::start(model, order.seed, &order.name)?);
        }
        self.say(order.agent.clone());
        self.order = Some(order);
        self.listen().await
    }

    async fn listen(&mut self) -> io::Result<()> {
        let Some(order) = &self.order else { return Ok(()) };
        let (power, under_power) = watch::channel(());
        for service in &order.services {
            let address = SocketAddr::new(service.address, service.port);
            let named = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
            let is_shared = order.shared.contains(&service.address);
            let speaks_as = order.own.filter(|_| is_shared).unwrap_or(service.address);
            let counter = Counter {
                service: *service,
                identity: identity(speaks_as),
                desk: Arc::clone(&self.desk),
                hung: self.hung.subscribe(),
                power: under_power.clone(),
            };
            match service.transport {
                Transport::Tcp => {
                    let listener = TcpListener::bind(address).await.map_err(named)?;
                    self.listeners.spawn(accept(listener, counter));
                }
                Transport::Udp => {
                    let socket = UdpSocket::bind(address).await.map_err(named)?;
                    self.listeners.spawn(answer_datagrams(socket, counter));
                }
            }
        }
        for address in &order.agents {
            let named = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
            let listener = TcpListener::bind(address).await.map_err(named)?;
            self.listeners.spawn(answer_agents(listener, self.hung.subscribe(), self.agent.subscribe()));
        }
        self.power = Some(power);
        Ok(())
    }

    /// Everything that was open is gone without a word.
    pub(crate) async fn power_off(&mut self) {
        self.power = None;
        self.listeners.shutdown().await;
        if let Some(work) = &*self.desk.work() {
            work.lose_all();
        }
    }

    /// Opens the sockets again.
    ///
    /// # Errors
    ///
    /// When a socket can not be opened.
    pub(crate) async fn power_on(&mut self) -> io::Result<()> {
        if self.power.is_some() {
            return Ok(());
        }
        self.hang(false);
        self.listen().await
    }

    /// The agent says this from now on; without it, nothing.
    pub(crate) fn say(&self, agent: Option<AgentModel>) {
        self.agent.send_replace(agent);
    }

    /// The programs stop to answer, or go on. The kernel takes connections in all the while.
    pub(crate) fn hang(&self, is_hung: bool) {
        if let Some(work) = &*self.desk.work() {
            work.hang(is_hung);
        }
        self.hung.send_replace(is_hung);
    }

    /// The programs work slower by this factor, in thousandths. Without service times there is nothing to be slow in.
    pub(crate) fn slow(&self, factor_thousandths: u32) {
        if let Some(work) = &*self.desk.work() {
            work.slow(factor_thousandths);
        }
    }

    /// Flows up to now: accepted connections, or distinct UDP senders.
    pub(crate) fn flows(&self) -> Vec<(Service, u64)> {
        let flows = self.desk.flows.lock().unwrap_or_else(PoisonError::into_inner);
        flows.iter().map(|(service, count)| (*service, *count)).collect()
    }
}

impl Desk {
    fn work(&self) -> std::sync::MutexGuard<'_, Option<Workplace>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes its time for one request; whether it was served.
    async fn serve(&self) -> bool {
        let ticket = self.work().as_ref().map(Workplace::queue_up);
        match ticket {
            None => true,
            Some(ticket) => ticket.await.is_ok(),
        }
    }
}

impl Counter {
    fn count(&self) {
        let mut flows = self.desk.flows.lock().unwrap_or_else(PoisonError::into_inner);
        *flows.entry(self.service).or_default() += 1;
    }

    /// Waits while the programs hang.
    async fn awake(&mut self) {
        // Without a sender the host has ended.
        let _ = self.hung.wait_for(|is_hung| !is_hung).await;
    }

    /// The response to a request; none when it asks for less than a head.
    fn respond(&self, request: &Head) -> Option<Message> {
        (request.argument >= HEAD_BYTES).then(|| Message::response_of(request, self.identity))
    }
}

async fn accept(listener: TcpListener, mut counter: Counter) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        counter.awake().await;
        // A connection that is gone before it was taken, or a full descriptor table, ends nothing.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        counter.count();
        let counter = counter.clone();
        tokio::spawn(async move {
            hold(stream, counter).await;
            drop(place);
        });
    }
}

/// Says what the agent says to whoever connects.
async fn answer_agents(
    listener: TcpListener,
    mut hung: watch::Receiver<bool>,
    agent: watch::Receiver<Option<AgentModel>>,
) {
    loop {
        // Without a sender the host has ended.
        let _ = hung.wait_for(|is_hung| !is_hung).await;
        // A connection that is gone before it was taken ends nothing.
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let line = agent.borrow().as_ref().map(|agent| agent.line(0));
        if let Some(line) = line {
            // Who does not listen asks again.
            let _ = tokio::time::timeout(AGENT_PATIENCE, speak(&mut stream, &line)).await;
        }
    }
}

/// Says a line, and closes when the other side has: what it has sent is read, since a connection that is closed with something unread
/// is reset, and a reset may overtake the line.
async fn speak(stream: &mut TcpStream, line: &str) -> io::Result<()> {
    stream.write_all(line.as_bytes()).await?;
    stream.shutdown().await?;
    let mut chunk = [0; 256];
    while stream.read(&mut chunk).await? > 0 {}
    Ok(())
}

/// Answers a connection for as long as there is power.
async fn hold(mut stream: TcpStream, mut counter: Counter) {
    let mut power = counter.power.clone();
    tokio::select! {
        // The client sees what went wrong and counts it; a second count here would add nothing.
        _ = answer_stream(&mut stream, &mut counter) => {}
        // Nothing is ever sent on it: this is its end.
        _ = power.changed() => {
            // The reset goes into a link that is down.
            let _ = set_socket_linger(&stream, Some(Duration::ZERO));
        }
    }
}

/// Answers requests until the client closes, or sends what is no request.
async fn answer_stream(stream: &mut TcpStream, counter: &mut Counter) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let mut bytes = [0; HEAD_BYTES as usize];
        let first = stream.read(&mut bytes).await?;
        if first == 0 {
            return stream.shutdown().await;
        }
        if let Some(rest) = bytes.get_mut(first..) {
            stream.read_exact(rest).await?;
        }
        let Some(head) = request_head(&bytes) else { return Ok(()) };
        let request = Message::request(head.length, head.argument, head.pattern);
        if !read_rest(stream, &request, &mut chunk).await? {
            return Ok(());
        }
        counter.awake().await;
        let Some(response) = counter.respond(&head) else { return Ok(()) };
        if !counter.desk.serve().await {
            return Ok(());
        }
        write_whole(stream, &response, &mut chunk).await?;
    }
}

/// Reads what follows the head and says whether every byte is right.
///
/// # Errors
///
/// When the stream ends or breaks.
pub(crate) async fn read_rest(
    stream: &mut TcpStream,
    message: &Message,
    chunk: &mut [u8],
) -> io::Result<bool> {
    let mut offset = HEAD_BYTES;
    while offset < message.len() {
        let wanted = length(message.len() - offset).min(chunk.len());
        let Some(part) = chunk.get_mut(..wanted) else { break };
        let read = stream.read(part).await?;
        let Some(part) = part.get(..read).filter(|part| !part.is_empty()) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        if !message.matches(offset, part) {
            return Ok(false);
        }
        offset += u32::try_from(read).unwrap_or(u32::MAX);
    }
    Ok(true)
}

/// Writes a whole message.
///
/// # Errors
///
/// When the stream breaks.
pub(crate) async fn write_whole(
    stream: &mut TcpStream,
    message: &Message,
    chunk: &mut [u8],
) -> io::Result<()> {
    let mut offset = 0;
    while offset < message.len() {
        let wanted = length(message.len() - offset).min(chunk.len());
        let Some(part) = chunk.get_mut(..wanted) else { break };
        message.write(offset, part);
        stream.write_all(part).await?;
        offset += u32::try_from(wanted).unwrap_or(u32::MAX);
    }
    Ok(())
}

fn length(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

async fn answer_datagrams(socket: UdpSocket, mut counter: Counter) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let mut senders: BTreeSet<SocketAddr> = BTreeSet::new();
    loop {
        counter.awake().await;
        // An error here is an ICMP message about an earlier reply; the socket goes on.
        let Ok((read, sender)) = socket.recv_from(&mut buffer).await else { continue };
        let request = sound_request(buffer.get(..read).unwrap_or_default());
        let Some(response) = request.and_then(|head| counter.respond(&head)) else { continue };
        if senders.len() < SENDERS_MAX && senders.insert(sender) {
            counter.count();
        }
        if counter.desk.work().is_none() {
            reply(&socket, &response, sender, &mut buffer).await;
            continue;
        }
        // Requests are served side by side; the line in front of the cores is the bound.
        let (socket, desk) = (Arc::clone(&socket), Arc::clone(&counter.desk));
        tokio::spawn(async move {
            if desk.serve().await {
                reply(&socket, &response, sender, &mut vec![0; length(response.len())]).await;
            }
        });
    }
}

async fn reply(socket: &UdpSocket, response: &Message, to: SocketAddr, buffer: &mut [u8]) {
    let Some(bytes) = buffer.get_mut(..length(response.len())) else { return };
    response.write(0, bytes);
    // A reply that does not fit the socket's queue is a lost datagram: the client sends again.
    let _ = socket.send_to(bytes, to).await;
}

/// What a datagram asks for; none when it is no whole and sound request.
fn sound_request(datagram: &[u8]) -> Option<Head> {
    let head = request_head(datagram)?;
    let request = Message::request(head.length, head.argument, head.pattern);
    let is_sound = length(head.length) == datagram.len() && request.matches(0, datagram);
    is_sound.then_some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_and_sound_datagram_is_a_request() {
        let mut datagram = vec![0; 64];
        Message::request(64, 128, 5).write(0, &mut datagram);
        assert_eq!(sound_request(&datagram).unwrap().argument, 128);
        assert!(sound_request(&datagram[..63]).is_none());
        datagram[40] ^= 1;
        assert!(sound_request(&datagram).is_none());
    }

    #[test]
    fn request_for_less_than_a_head_is_not_answered() {
        let (_, hung) = watch::channel(false);
        let (_, power) = watch::channel(());
        let service = Service { transport: Transport::Udp, address: [10, 0, 3, 20].into(), port: 53 };
        let counter = Counter { service, identity: 7, desk: Arc::default(), hung, power };
        let head = |argument| Head { length: 64, argument, pattern: 5 };
        assert!(counter.respond(&head(15)).is_none());
        assert_eq!(counter.respond(&head(128)).unwrap().len(), 128);
    }
}
