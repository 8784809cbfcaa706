//! Who talks across the forwarder: the server with its sink and echo, and the clients.
//!
//! Each is a process in its namespace, but for the flood of small packets: its two ends are threads of one
//! process in two namespaces, so that the sender knows what has arrived. A count is asked for by a line on
//! stdin and told by one on stdout; clients run until they are killed, but for the pings, which say their
//! result at the end.

use std::fs::File;
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use evenkeel_engine::device::Device;
use evenkeel_io::{IoChoice, KernelDevice, Tun};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg, sockopt};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use crate::Failure;

/// TCP that is read and thrown away.
pub(crate) const TCP_SINK: u16 = 5201;
/// UDP that is read and thrown away.
pub(crate) const UDP_SINK: u16 = 5202;
/// UDP that is sent back.
pub(crate) const UDP_ECHO: u16 = 5203;

/// TCP that is accepted and closed at once.
pub(crate) const TCP_DOOR: u16 = 5204;

/// Payload of a small packet: what fills the smallest Ethernet frame.
const SMALL_BYTES: usize = 18;
/// Datagrams of one system call.
const BURST: usize = 32;
/// Flows that the small packets belong to: a burst of one, then a burst of the next.
const FLOWS: usize = 16;
/// Flows where each packet belongs to another: more than a batch of any forwarder here holds packets.
const MIXED_FLOWS: usize = 256;
/// Connections that are opened at a time: enough that no processor waits for another.
const OPENERS: usize = 32;
/// Datagrams under way at a time: fewer than fit into any queue on the way, the shortest of which is a
/// socket's default of 212,992 bytes with 768 for each.
const WINDOW: u64 = 256;
/// How long the ends of a flood sleep where there is nothing to do: a tenth of what the window lasts.
const NAP: Duration = Duration::from_micros(40);
/// How long a datagram may be under way.
const LOSS_TIMEOUT: Duration = Duration::from_millis(20);
/// What a stream reads or writes at a time.
const STREAM_BYTES: usize = 256 * 1024;
/// Room for datagrams that the sink has not read yet.
const SINK_BUFFER_BYTES: usize = 8 << 20;
/// How long the socket of the flood before this one may take to go.
const BIND_PATIENCE: Duration = Duration::from_secs(3);
/// How long a ping may take; a later one counts as lost.
const PING_TIMEOUT: Duration = Duration::from_millis(500);

/// Round trips through the forwarder, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RoundTrips {
    /// Half took no longer.
    pub(crate) p50_us: f64,
    /// 99 of 100 took no longer.
    pub(crate) p99_us: f64,
    /// Share of pings without an answer, from 0 to 1.
    pub(crate) lost: f64,
}

/// The server: TCP sink and UDP echo, until stdin ends; tells the bytes that the sink has received.
///
/// # Errors
///
/// When an address is taken or stdin can not be read.
pub(crate) fn serve(address: Ipv4Addr) -> Result<(), Failure> {
    let stream_bytes = Arc::new(AtomicU64::new(0));
    let echo = UdpSocket::bind((address, UDP_ECHO))?;
    let listener = TcpListener::bind((address, TCP_SINK))?;
    let door = TcpListener::bind((address, TCP_DOOR))?;
    std::thread::spawn(move || echo_datagrams(&echo));
    std::thread::spawn(move || turn_away(&door));
    let count = Arc::clone(&stream_bytes);
    std::thread::spawn(move || accept_streams(&listener, &count));
    tell(|| stream_bytes.load(Ordering::Relaxed))
}

/// Answers each line of stdin with what `count` says then.
fn tell(count: impl Fn() -> u64) -> Result<(), Failure> {
    for line in io::stdin().lock().lines() {
        line?;
        let mut out = io::stdout().lock();
        writeln!(out, "{}", count())?;
        out.flush()?;
    }
    Ok(())
}

fn echo_datagrams(echo: &UdpSocket) -> Result<(), Failure> {
    let mut bytes = [0; 2048];
    loop {
        let (length, from) = echo.recv_from(&mut bytes)?;
        // An answer that finds no way back is a lost ping.
        let _ = echo.send_to(bytes.get(..length).unwrap_or_default(), from);
    }
}

fn accept_streams(listener: &TcpListener, count: &Arc<AtomicU64>) -> Result<(), Failure> {
    loop {
        let (mut stream, _) = listener.accept()?;
        let count = Arc::clone(count);
        std::thread::spawn(move || {
            let mut bytes = vec![0; STREAM_BYTES];
            while let Ok(length @ 1..) = stream.read(&mut bytes) {
                count.fetch_add(length as u64, Ordering::Relaxed);
            }
        });
    }
}

/// Closes each connection as soon as it is there.
fn turn_away(door: &TcpListener) -> Result<(), Failure> {
    loop {
        drop(door.accept()?);
    }
}

/// Opens connections to `to`, several at a time, and waits for the end of each, until stdin ends; tells how
/// many there were.
///
/// # Errors
///
/// When stdin can not be read.
pub(crate) fn connect(to: SocketAddrV4) -> Result<(), Failure> {
    let count = Arc::new(AtomicU64::new(0));
    for _ in 0..OPENERS {
        let count = Arc::clone(&count);
        std::thread::spawn(move || {
            loop {
                // A reset at the end frees the port and what forwarders remember at once.
                let was_there = TcpStream::connect(to).and_then(|mut stream| {
                    let end = stream.read(&mut [0]);
                    sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
                    end
                });
                count.fetch_add(u64::from(was_there.is_ok()), Ordering::Relaxed);
            }
        });
    }
    tell(|| count.load(Ordering::Relaxed))
}

/// How a flood is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Whether at most [`WINDOW`] datagrams are under way.
    pub(crate) has_window: bool,
    /// Whether each datagram is of another flow than those before it, instead of bursts of one flow.
    pub(crate) is_mixed: bool,
}

/// What the two ends of a flood share.
#[derive(Debug, Default)]
struct Flood {
    sent: AtomicU64,
    received: AtomicU64,
    /// Datagrams that have not arrived for so long that they never will.
    lost: AtomicU64,
}

impl Flood {
    /// Datagrams on their way, as far as one can tell.
    fn under_way(&self) -> u64 {
        let ended = self.received.load(Ordering::Acquire) + self.lost.load(Ordering::Acquire);
        self.sent.load(Ordering::Acquire).saturating_sub(ended)
    }
}

/// Sends small datagrams from the namespace `client` to `to`, and receives them in its own at `address`,
/// until stdin ends; tells how many have arrived.
///
/// With a window, at most 256 of them are under way: nothing is dropped for want of room, so that all
/// CPU time goes into packets that arrive. Without, the sender sends as fast as it can, and what the
/// forwarder can not take is lost: that is how a forwarder fares that is offered more than it can do.
///
/// Both ends look again after a [`NAP`] where there is nothing to do: were each woken by the other for a
/// few packets, waking a processor that sleeps would cost more than the packets.
///
/// # Errors
///
/// When there is no such namespace, or no way to `to`.
pub(crate) fn flood(client: &str, to: SocketAddrV4, address: Ipv4Addr, shape: Shape) -> Result<(), Failure> {
    let sink = bind_again((address, UDP_SINK))?;
    sockopt::set_socket_recv_buffer_size_force(&sink, SINK_BUFFER_BYTES)?;
    let namespace = File::open(format!("/run/netns/{client}"))?;
    let shared = Arc::new(Flood::default());
    let flood = Arc::clone(&shared);
    std::thread::spawn(move || {
        let ended = send_flood(&namespace, to, &flood, shape);
        let _ = writeln!(io::stderr(), "the flood has ended: {ended:?}");
    });
    let flood = Arc::clone(&shared);
    std::thread::spawn(move || receive_flood(sink, &flood));
    tell(|| shared.received.load(Ordering::Relaxed))
}

/// Binds, although the kernel lets go of a socket only a moment after the process that held it by io_uring.
fn bind_again(address: (Ipv4Addr, u16)) -> io::Result<UdpSocket> {
    let end = Instant::now() + BIND_PATIENCE;
    loop {
        match UdpSocket::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

fn send_flood(namespace: &File, to: SocketAddrV4, flood: &Flood, shape: Shape) -> Result<(), Failure> {
    let window = if shape.has_window { WINDOW } else { u64::MAX };
    let (flows, burst) = if shape.is_mixed { (MIXED_FLOWS, 1) } else { (FLOWS, BURST) };
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    let sockets: Vec<UdpSocket> = (0..flows).map(|_| connected(to)).collect::<Result<_, _>>()?;
    let payload = [0x5a; SMALL_BYTES];
    let slices = [IoSlice::new(&payload)];
    let mut controls: [_; BURST] = std::array::from_fn(|_| SendAncillaryBuffer::default());
    let mut messages: Vec<MMsgHdr<'_>> =
        controls.iter_mut().map(|control| MMsgHdr::new(&slices, control)).collect();
    let mut progress = (0, Instant::now());
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    for socket in sockets.iter().cycle() {
        while flood.under_way() > window.saturating_sub(BURST as u64) {
            std::thread::sleep(NAP);
            let received = flood.received.load(Ordering::Acquire);
            if received != progress.0 {
                progress = (received, Instant::now());
            } else if progress.1.elapsed() > LOSS_TIMEOUT {
                flood.lost.fetch_add(flood.under_way(), Ordering::AcqRel);
            }
        }
        // A datagram that is refused (a full queue, an answer of ICMP) is not under way.
        let messages = messages.get_mut(..burst).unwrap_or_default();
        let sent = sendmmsg(socket, messages, SendFlags::empty()).unwrap_or(0);
        flood.sent.fetch_add(sent as u64, Ordering::AcqRel);
    }
    Ok(())
}

/// A socket reads like a TUN: one datagram a read. So the device of `evenkeel-io` takes a batch of them
/// with one system call, as `recvmmsg` would.
fn receive_flood(sink: UdpSocket, flood: &Flood) -> Result<(), Failure> {
    let mut device = KernelDevice::open(vec![Tun::adopt(sink.into(), "sink")?], IoChoice::Auto)?;
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    loop {
        let received = device.receive();
        device.flush();
        flood.received.fetch_add(received as u64, Ordering::AcqRel);
        if received == 0 {
            std::thread::sleep(NAP);
        }
    }
}

fn connected(to: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    Ok(socket)
}

/// Writes on `streams` connections as fast as they take it, until killed.
///
/// # Errors
///
/// When a connection is refused.
pub(crate) fn stream(to: SocketAddrV4, streams: usize) -> Result<(), Failure> {
    let connections: Vec<TcpStream> =
        (0..streams).map(|_| TcpStream::connect(to)).collect::<Result<_, _>>()?;
    let writers = connections.into_iter().map(|mut connection| {
        std::thread::spawn(move || {
            let bytes = vec![0x5a; STREAM_BYTES];
            while connection.write_all(&bytes).is_ok() {}
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        let _ = writer.join();
    }
    Ok(())
}

/// Sends `rate` pings a second for `duration` and prints their [`RoundTrips`].
///
/// # Errors
///
/// When there is no way to `to`, or no answer at all.
pub(crate) fn ping(to: SocketAddrV4, rate: u64, duration: Duration) -> Result<(), Failure> {
    let socket = connected(to)?;
    socket.set_read_timeout(Some(PING_TIMEOUT))?;
    let sender = socket.try_clone()?;
    let origin = Instant::now();
    let interval = Duration::from_nanos(1_000_000_000 / rate.max(1));
    let sending = std::thread::spawn(move || send_pings(&sender, origin, interval, duration));
    let mut times_ns = Vec::new();
    let mut bytes = [0; SMALL_BYTES];
    while let Ok(length) = socket.recv(&mut bytes) {
        let now = nanoseconds(origin.elapsed());
        if let Some(sent) = bytes.get(..length).and_then(<[u8]>::first_chunk) {
            times_ns.push(now.saturating_sub(u64::from_be_bytes(*sent)));
        }
    }
    let sent = sending.join().map_err(|_| Failure::from("the sender of pings has died"))?;
    times_ns.sort_unstable();
    let at = |percent: usize| times_ns.get(times_ns.len() * percent / 100).copied();
    let (Some(p50), Some(p99)) = (at(50), at(99)) else { return Err("no ping was answered".into()) };
    let round_trips = RoundTrips {
        p50_us: p50 as f64 / 1e3,
        p99_us: p99 as f64 / 1e3,
        lost: 1.0 - times_ns.len() as f64 / sent.max(1) as f64,
    };
    writeln!(io::stdout(), "{}", serde_json::to_string(&round_trips)?)?;
    Ok(())
}

/// Sends a ping at each multiple of `interval`; the time since `origin` is its content.
fn send_pings(socket: &UdpSocket, origin: Instant, interval: Duration, duration: Duration) -> u64 {
    // Without this a sleep ends up to 50 us late, which is half of the interval at 10,000 a second.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let mut bytes = [0; SMALL_BYTES];
    let mut sent = 0;
    let mut due = origin.elapsed();
    let end = due + duration;
    while due < end {
        std::thread::sleep(due.saturating_sub(origin.elapsed()));
        if let Some(place) = bytes.first_chunk_mut() {
            *place = nanoseconds(origin.elapsed()).to_be_bytes();
        }
        sent += u64::from(socket.send(&bytes).is_ok());
        due += interval;
    }
    sent
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Tries until the forwarder lets a connection or a ping through, for at most `patience`.
///
/// # Errors
///
/// When nothing comes through in that time.
pub(crate) fn probe(to: SocketAddrV4, is_tcp: bool, patience: Duration) -> Result<(), Failure> {
    let end = Instant::now() + patience;
    let pause = Duration::from_millis(50);
    while Instant::now() < end {
        let has_answer = if is_tcp { probe_tcp(to) } else { probe_udp(to) };
        if has_answer.is_ok() {
            return Ok(());
        }
        std::thread::sleep(pause);
    }
    Err(format!("nothing comes through to {to} within {patience:?}").into())
}

fn probe_tcp(to: SocketAddrV4) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to.into(), Duration::from_millis(300))?;
    stream.write_all(b"probe")
}

fn probe_udp(to: SocketAddrV4) -> io::Result<()> {
    let socket = connected(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    socket.send(&[0; SMALL_BYTES])?;
    socket.recv(&mut [0; SMALL_BYTES]).map(drop)
}
