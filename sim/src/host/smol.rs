//! smoltcp as the TCP of a host: an independent implementation at the ends of a connection.
//!
//! ```text
//! whole IP packets -> Interface, one socket -> bytes in order; whole IP packets
//! ```
//! Each connection has an interface and a set with one socket of its own, since smoltcp looks through every socket of a
//! set for each packet; which connection a packet belongs to is known before. What is sent is a [`Message`], of which as
//! much is written as the socket has room for. Nothing is shared with our own TCP but the states in which it tells how a
//! connection stands.
//!
//! smoltcp has no selective acknowledgements and does not take in what ICMP says of the size of packets.

use ::smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use ::smoltcp::phy::{self, DeviceCapabilities, Medium};
use ::smoltcp::socket::tcp::{self, CongestionControl, Socket, SocketBuffer};
use ::smoltcp::time;
use ::smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint, IpListenEndpoint};
use evenkeel_engine::Instant;

use crate::packet::{self, AnyEnd, Flags, MTU_BYTES, Packet, Transport};
use crate::payload::Message;
use crate::tcp::State;

/// Bytes of the receive and of the send buffer: the window of our own TCP, without scaling.
const BUFFER_BYTES: usize = 65_535;
/// How long nothing may be acknowledged: as long as our own TCP sends again.
const PATIENCE: time::Duration = time::Duration::from_secs(123);
/// Turns between bytes read and bytes written at one time. A window is read at once, so that two are enough; the bound
/// keeps a fault of either side from going on for ever.
const TURNS_MAX: usize = 16;

/// One end of a connection.
pub(super) struct Smol {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    /// What is sent, and how much of it has been written to the socket.
    message: Option<(Message, u32)>,
    wants_close: bool,
    /// How it is over, once it is.
    end: Option<State>,
    deadline: Instant,
    /// The number behind the last byte that was ever sent.
    newest: Option<u32>,
    /// Segments that were sent again.
    pub(super) retransmitted: u32,
}

impl Smol {
    /// Opens a connection. `None` where smoltcp can not talk between these ends.
    pub(super) fn connect(
        seed: u64,
        (local, remote): (AnyEnd, AnyEnd),
        message: Message,
        now: Instant,
        out: &mut Vec<Packet>,
    ) -> Option<Self> {
        let mut smol = Self::new(seed, local)?;
        let to = IpEndpoint::new(remote.address.into(), remote.port);
        let from = IpListenEndpoint { addr: Some(local.address.into()), port: local.port };
        let socket = smol.sockets.get_mut::<Socket<'_>>(smol.handle);
        socket.connect(smol.interface.context(), to, from).ok()?;
        smol.message = Some((message, 0));
        smol.turn(now, None, out, &mut |_| {});
        Some(smol)
    }

    /// Answers the SYN in a packet. `None` where smoltcp does not take it.
    pub(super) fn accept(
        seed: u64,
        local: AnyEnd,
        syn: &[u8],
        now: Instant,
        out: &mut Vec<Packet>,
    ) -> Option<Self> {
        let mut smol = Self::new(seed, local)?;
        let at = IpListenEndpoint { addr: Some(local.address.into()), port: local.port };
        smol.sockets.get_mut::<Socket<'_>>(smol.handle).listen(at).ok()?;
        smol.turn(now, Some(syn), out, &mut |_| {});
        (smol.socket().state() == tcp::State::SynReceived).then_some(smol)
    }

    fn new(seed: u64, local: AnyEnd) -> Option<Self> {
        let address = IpAddress::from(local.address);
        if !address.is_unicast() || local.port == 0 {
            return None;
        }
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut nowhere = Vec::new();
        let mut door = Door { incoming: None, outgoing: &mut nowhere };
        let mut interface = Interface::new(config, &mut door, time::Instant::ZERO);
        let mut has_room = false;
        // Everybody is on the link: where packets go is the business of the machine's kernel.
        interface.update_ip_addrs(|own| has_room = own.push(IpCidr::new(address, 0)).is_ok());
        let buffer = || SocketBuffer::new(vec![0; BUFFER_BYTES]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_congestion_control(CongestionControl::Reno);
        socket.set_nagle_enabled(false);
        socket.set_timeout(Some(PATIENCE));
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        has_room.then_some(Self {
            interface,
            sockets,
            handle,
            message: None,
            wants_close: false,
            end: None,
            deadline: Instant::NEVER,
            newest: None,
            retransmitted: 0,
        })
    }

    /// Takes in a packet of the connection. Bytes in order go to `deliver`.
    pub(super) fn receive(
        &mut self,
        packet: &[u8],
        now: Instant,
        out: &mut Vec<Packet>,
        deliver: &mut dyn FnMut(&[u8]),
    ) {
        if self.end.is_some() {
            return;
        }
        let before = self.socket().state();
        self.turn(now, Some(packet), out, deliver);
        if matches!(self.socket().state(), tcp::State::Closed | tcp::State::Listen) {
            // Whoever waits for the last acknowledgement is closed by it, and who only waits for what is late by a reset
            // too, which does no harm any more (RFC 1337).
            let is_closed =
                before == tcp::State::TimeWait || before == tcp::State::LastAck && !is_reset(packet);
            self.end = Some(if is_closed { State::Closed } else { State::Reset });
            self.deadline = Instant::NEVER;
        }
    }

    /// Sends another message. The one before must have been answered.
    pub(super) const fn send(&mut self, message: Message) {
        self.message = Some((message, 0));
    }

    /// Closes our side behind the message under way.
    pub(super) const fn close(&mut self) {
        self.wants_close = true;
    }

    /// Sends what the owner has just given it.
    pub(super) fn flush(&mut self, now: Instant, out: &mut Vec<Packet>) {
        if self.end.is_none() {
            self.turn(now, None, out, &mut |_| {});
        }
    }

    /// The timer has run out.
    pub(super) fn timeout(&mut self, now: Instant, out: &mut Vec<Packet>) {
        if now < self.deadline || self.end.is_some() {
            return;
        }
        let before = self.socket().state();
        self.turn(now, None, out, &mut |_| {});
        if self.socket().state() == tcp::State::Closed {
            let is_closed = before == tcp::State::TimeWait;
            self.end = Some(if is_closed { State::Closed } else { State::TimedOut });
            self.deadline = Instant::NEVER;
        }
    }

    /// Gives up, and tells the other side.
    pub(super) fn abort(&mut self, now: Instant, out: &mut Vec<Packet>) {
        self.sockets.get_mut::<Socket<'_>>(self.handle).abort();
        self.exchange(now, None, out);
        self.end = Some(State::Reset);
        self.deadline = Instant::NEVER;
    }

    /// When [`Smol::timeout`] is due.
    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Where the connection stands.
    pub(super) fn state(&self) -> State {
        if let Some(end) = self.end {
            return end;
        }
        match self.socket().state() {
            tcp::State::SynSent => State::SynSent,
            tcp::State::Listen | tcp::State::SynReceived => State::SynReceived,
            tcp::State::Established
            | tcp::State::FinWait1
            | tcp::State::FinWait2
            | tcp::State::CloseWait
            | tcp::State::Closing
            | tcp::State::LastAck => State::Open,
            tcp::State::TimeWait => State::TimeWait,
            tcp::State::Closed => State::Closed,
        }
    }

    /// Whether the other side has closed and every byte before that has been delivered.
    pub(super) fn is_closed_by_peer(&self) -> bool {
        let socket = self.socket();
        let has_closed = matches!(
            socket.state(),
            tcp::State::CloseWait | tcp::State::Closing | tcp::State::LastAck | tcp::State::TimeWait
        );
        has_closed && socket.recv_queue() == 0
    }

    fn socket(&self) -> &Socket<'static> {
        self.sockets.get(self.handle)
    }

    /// Lets a packet in, reads what has come, writes what there is room for, until nothing moves.
    fn turn(
        &mut self,
        now: Instant,
        mut packet: Option<&[u8]>,
        out: &mut Vec<Packet>,
        deliver: &mut dyn FnMut(&[u8]),
    ) {
        for _ in 0..TURNS_MAX {
            self.write();
            self.exchange(now, packet.take(), out);
            if !self.read(deliver) && !self.write() {
                break;
            }
        }
        let due = self.interface.poll_at(moment(now), &self.sockets);
        // What is due at once has been done; it is asked for again a microsecond later, which is smoltcp's grain.
        self.deadline = due.map_or(Instant::NEVER, |due| {
            let micros = u64::try_from(due.total_micros()).unwrap_or(0);
            let at = Instant::from_nanos(micros.saturating_mul(1_000));
            at.max(Instant::from_nanos((now.as_nanos() / 1_000 + 1) * 1_000))
        });
    }

    /// Lets smoltcp take in and put out packets.
    fn exchange(&mut self, now: Instant, incoming: Option<&[u8]>, out: &mut Vec<Packet>) {
        let sent = out.len();
        let mut door = Door { incoming, outgoing: out };
        self.interface.poll(moment(now), &mut door, &mut self.sockets);
        for packet in out.iter().skip(sent) {
            self.retransmitted += u32::from(is_repeated(&mut self.newest, packet.bytes()));
        }
    }

    /// Reads everything that has come in order; says whether there was something.
    fn read(&mut self, deliver: &mut dyn FnMut(&[u8])) -> bool {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        let mut has_read = false;
        while socket.can_recv() {
            let taken = socket.recv(|bytes| {
                deliver(bytes);
                (bytes.len(), bytes.len())
            });
            if taken.unwrap_or(0) == 0 {
                break;
            }
            has_read = true;
        }
        has_read
    }

    /// Writes as much of the message as there is room for, and closes behind it; says whether something was written.
    fn write(&mut self) -> bool {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        let mut has_written = false;
        while let Some((message, written)) = &mut self.message {
            let left = usize::try_from(message.len() - *written).unwrap_or(0);
            if left == 0 {
                self.message = None;
                break;
            }
            let count = socket.send(|place| {
                let count = left.min(place.len());
                message.write(*written, place.get_mut(..count).unwrap_or(&mut []));
                (count, count)
            });
            // Before the handshake is over nothing can be written, and with full buffers neither.
            let Some(count) = count.ok().filter(|count| *count > 0) else { return has_written };
            *written += u32::try_from(count).unwrap_or(0);
            has_written = true;
        }
        let is_open = matches!(socket.state(), tcp::State::Established | tcp::State::CloseWait);
        if self.wants_close && is_open {
            socket.close();
            return true;
        }
        has_written
    }
}

/// The time as smoltcp counts it.
fn moment(now: Instant) -> time::Instant {
    time::Instant::from_micros(i64::try_from(now.as_nanos() / 1_000).unwrap_or(i64::MAX))
}

impl std::fmt::Debug for Smol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Smol")
            .field("state", &self.socket().state())
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

fn is_reset(packet: &[u8]) -> bool {
    match packet::view(packet).map(|view| view.transport) {
        Ok(Transport::Tcp(segment)) => segment.flags.has(Flags::RST),
        Ok(Transport::Udp | Transport::IcmpError { .. }) | Err(_) => false,
    }
}

/// Whether a segment carries what was sent before; `newest` is the number behind everything that was.
fn is_repeated(newest: &mut Option<u32>, packet: &[u8]) -> bool {
    let Ok(view) = packet::view(packet) else { return false };
    let Transport::Tcp(segment) = view.transport else { return false };
    let controls = u32::from(segment.flags.has(Flags::SYN)) + u32::from(segment.flags.has(Flags::FIN));
    let length = u32::try_from(view.payload.len()).unwrap_or(0) + controls;
    if length == 0 || segment.flags.has(Flags::RST) {
        return false;
    }
    let end = segment.sequence.wrapping_add(length);
    let is_ahead = newest.is_none_or(|newest| end.wrapping_sub(newest).wrapping_sub(1) < u32::MAX / 2);
    if is_ahead {
        *newest = Some(end);
    }
    !is_ahead
}

/// A device that has one packet at most, and takes every one.
struct Door<'a> {
    incoming: Option<&'a [u8]>,
    outgoing: &'a mut Vec<Packet>,
}

struct In<'a>(&'a [u8]);

struct Out<'a>(&'a mut Vec<Packet>);

impl phy::Device for Door<'_> {
    type RxToken<'t>
        = In<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Out<'t>
    where
        Self: 't;

    fn receive(&mut self, _now: time::Instant) -> Option<(In<'_>, Out<'_>)> {
        let packet = self.incoming.take()?;
        Some((In(packet), Out(self.outgoing)))
    }

    fn transmit(&mut self, _now: time::Instant) -> Option<Out<'_>> {
        Some(Out(self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU_BYTES;
        capabilities
    }
}

impl phy::RxToken for In<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

impl phy::TxToken for Out<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut packet = Packet::of_length(Packet::default(), length);
        let result = fill(packet.bytes_mut());
        self.0.push(packet);
        result
    }
}
