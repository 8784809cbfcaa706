//! The services of a real server: kernel sockets that answer every request with the server's address.
//!
//! In: sockets to answer on. Out: replies, and counts of flows and packets. Never decides which server a
//! flow belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};

use evenkeel_sim::payload::{HEAD_BYTES, Head, Message, request_head};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use crate::orders::{Service, Transport};

/// Connections that one socket serves at once: as many as the kernel's default backlog.
const CONNECTIONS_MAX: usize = 4_096;

/// Distinct UDP senders that are remembered for the count of flows: more than a scenario may have.
const SENDERS_MAX: usize = 1 << 20;

/// The largest UDP datagram.
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Bytes that are read and written at once.
pub(crate) const CHUNK_BYTES: usize = 16 << 10;

/// Flows by socket.
type Flows = Arc<Mutex<BTreeMap<Service, u64>>>;

/// The running services of one host.
#[derive(Debug, Default)]
pub(crate) struct Services {
    flows: Flows,
}

impl Services {
    /// Opens the sockets and leaves them to the current runtime.
    ///
    /// # Errors
    ///
    /// When a socket can not be opened.
    pub(crate) async fn open(&self, services: &[Service]) -> io::Result<()> {
        for service in services {
            let address = SocketAddrV4::new(service.address, service.port);
            let named = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
            match service.transport {
                Transport::Tcp => {
                    let listener = TcpListener::bind(address).await.map_err(named)?;
                    tokio::spawn(accept(listener, *service, Arc::clone(&self.flows)));
                }
                Transport::Udp => {
                    let socket = UdpSocket::bind(address).await.map_err(named)?;
                    tokio::spawn(answer_datagrams(socket, *service, Arc::clone(&self.flows)));
                }
            }
        }
        Ok(())
    }

    /// Flows up to now: accepted connections, or distinct UDP senders.
    pub(crate) fn flows(&self) -> Vec<(Service, u64)> {
        let flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        flows.iter().map(|(service, count)| (*service, *count)).collect()
    }
}

async fn accept(listener: TcpListener, service: Service, flows: Flows) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        // A connection that is gone before it was taken, or a full descriptor table, ends nothing.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        count(&flows, service);
        tokio::spawn(async move {
            // The client sees what went wrong and counts it; a second count here would add nothing.
            let _ = answer_stream(stream, service).await;
            drop(place);
        });
    }
}

/// Answers requests until the client closes, or sends what is no request.
async fn answer_stream(mut stream: TcpStream, service: Service) -> io::Result<()> {
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
        if !read_rest(&mut stream, &request, &mut chunk).await? {
            return Ok(());
        }
        let Some(response) = respond(&head, service) else { return Ok(()) };
        write_whole(&mut stream, &response, &mut chunk).await?;
    }
}

/// The response to a request; none when it asks for less than a head.
fn respond(request: &Head, service: Service) -> Option<Message> {
    (request.argument >= HEAD_BYTES).then(|| Message::response(request, service.address))
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

async fn answer_datagrams(socket: UdpSocket, service: Service, flows: Flows) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let mut senders: BTreeSet<SocketAddr> = BTreeSet::new();
    loop {
        // An error here is an ICMP message about an earlier reply; the socket goes on.
        let Ok((read, sender)) = socket.recv_from(&mut buffer).await else { continue };
        let Some(response) = answer_to(buffer.get(..read).unwrap_or_default(), service) else { continue };
        if senders.len() < SENDERS_MAX && senders.insert(sender) {
            count(&flows, service);
        }
        let Some(reply) = buffer.get_mut(..length(response.len())) else { continue };
        response.write(0, reply);
        // A reply that does not fit the socket's queue is a lost datagram: the client sends again.
        let _ = socket.send_to(reply, sender).await;
    }
}

/// The response to a datagram; none when it is no whole and sound request.
fn answer_to(datagram: &[u8], service: Service) -> Option<Message> {
    let head = request_head(datagram)?;
    let request = Message::request(head.length, head.argument, head.pattern);
    let is_sound = length(head.length) == datagram.len() && request.matches(0, datagram);
    if is_sound { respond(&head, service) } else { None }
}

fn count(flows: &Flows, service: Service) {
    let mut flows = flows.lock().unwrap_or_else(PoisonError::into_inner);
    *flows.entry(service).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        Service { transport: Transport::Udp, address: [10, 0, 3, 20].into(), port: 53 }
    }

    #[test]
    fn only_a_whole_and_sound_datagram_is_answered() {
        let mut datagram = vec![0; 64];
        Message::request(64, 128, 5).write(0, &mut datagram);
        let response = answer_to(&datagram, service()).unwrap();
        assert_eq!(response.len(), 128);
        assert!(answer_to(&datagram[..63], service()).is_none());
        datagram[40] ^= 1;
        assert!(answer_to(&datagram, service()).is_none());
    }

    #[test]
    fn request_for_less_than_a_head_is_not_answered() {
        let mut datagram = vec![0; 64];
        Message::request(64, 15, 5).write(0, &mut datagram);
        assert!(answer_to(&datagram, service()).is_none());
    }
}
