//! The way out: a packet of a known flow is translated, wrapped or left as it is, and given a link header; or its sender
//! is told why it went no further.
//!
//! Gets a packet in its buffer, the flow that it belongs to, and the direction. Owns what all flows share on the way
//! out: routes, neighbours, the outbox, the limit on answers. Knows nothing of how flows are found or opened.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use zerocopy::IntoBytes;

use crate::counters::Counters;
use crate::device::{HEADROOM_BYTES, Offload, PacketBuffer};
use crate::director::Directors;
use crate::flow::{Direction, FlowEntry, FlowState};
use crate::forward::{DEAD_END, Routes, Way, Ways, cut, tunnel};
use crate::journal::Change;
use crate::nat::{Scope, fill_udp_checksum, icmp_error, rewrite};
use crate::neighbour::Neighbours;
use crate::outbox::{Kind, Outbox};
use crate::plan::{InterfacePlan, Layer, Mode, Plan};
use crate::reply::{self, AnswerLimit, ErrorHeaders, IcmpError};
use crate::time::Instant;
use crate::verdict::{DropReason, InterfaceId, Verdict};
use crate::walk::{Subject, Walk};
use crate::wire::ethernet::{self, MacAddress};
use crate::wire::tcp::{self, Flags};
use crate::wire::{Address, Protocol, checksum, ip, udp};

/// Room for one packet outside of the device's buffers.
const SCRATCH_BYTES: usize = HEADROOM_BYTES + 65_535;

/// What all flows share on the way out.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) plan: Plan,
    pub(crate) counters: Counters,
    pub(crate) routes: Routes,
    pub(crate) ways: Ways,
    pub(crate) neighbours: Neighbours,
    pub(crate) outbox: Outbox,
    pub(crate) answers: AnswerLimit,
    /// Nanoseconds that a flow lives without packets, by its state.
    pub(crate) lifetimes: [u64; FlowState::ALL.len()],
    /// Whether the plan asks for more than translation.
    touches_up: bool,
    /// Where a packet is put together that is larger than, or not in, the device's buffer.
    scratch: Vec<u8>,
}

/// Where an IP packet goes next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hop {
    pub(crate) out: InterfaceId,
    /// The number of the way, which knows its next hop.
    pub(crate) way: u8,
    /// The address whose next hop takes it.
    pub(crate) target: Address,
    /// Its sender, which asks for the neighbour where that is us.
    pub(crate) source: Address,
}

impl Exit {
    pub(crate) fn new(answers_per_second: u32) -> Self {
        Self {
            plan: Plan::empty(),
            counters: Counters::default(),
            routes: Routes::default(),
            ways: Ways::default(),
            neighbours: Neighbours::default(),
            outbox: Outbox::default(),
            answers: AnswerLimit::new(answers_per_second),
            lifetimes: [0; FlowState::ALL.len()],
            touches_up: false,
            scratch: vec![0; SCRATCH_BYTES],
        }
    }

    /// The same way out in the same state, with nothing queued and counted. Rules and directors of the plan, which nothing
    /// on the way out looks at, are left out.
    pub(crate) fn fork(&self) -> Self {
        let Plan { hash_key, seed, default_permit, limits, timeouts, handling, .. } = self.plan;
        let plan = Plan {
            hash_key,
            seed,
            interfaces: self.plan.interfaces.clone(),
            routes: Vec::new(),
            tables: Vec::new(),
            outflows: Vec::new(),
            policies: Vec::new(),
            outflow_guests: Vec::new(),
            default_permit,
            directors: Vec::new(),
            limits,
            timeouts,
            handling,
        };
        Self {
            plan,
            routes: self.routes.clone(),
            ways: self.ways.clone(),
            neighbours: self.neighbours.clone(),
            answers: self.answers.clone(),
            lifetimes: self.lifetimes,
            touches_up: self.touches_up,
            ..Self::new(0)
        }
    }

    /// Puts `plan` in force.
    pub(crate) fn set_plan(&mut self, plan: Plan) {
        self.touches_up = plan.handling.mss_bytes.is_some() || plan.handling.fills_udp_checksum;
        self.plan = plan;
    }

    /// Nanoseconds that a flow in `state` lives without packets.
    #[inline]
    pub(crate) fn lifetime(&self, state: FlowState) -> u64 {
        self.lifetimes.get(state as usize).copied().unwrap_or(0)
    }

    /// Sends a packet of `entry` on its way and notes in the entry what it says.
    ///
    /// # Errors
    /// Why it goes no further; its sender has been told where it should be.
    #[inline(always)]
    pub(crate) fn carry(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &mut Walk,
        entry: &mut FlowEntry,
        direction: Direction,
        directors: &Directors,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        if entry.is_one_sided() {
            return self.carry_unchanged(packet, walk, entry, directors, now);
        }
        let number = entry.way(direction);
        let Some(way) = self.ways.at(number) else { return Err(no_way(number)) };
        let Way { interface: out, layer, mtu_bytes, .. } = *way;
        let bytes = packet.buffer.get_mut(walk.range.clone()).ok_or(DropReason::Truncated)?;
        let length = walk.length;
        let is_super = packet.offload.segment_bytes.is_some();
        let is_too_big = length > u32::from(mtu_bytes)
            && (!is_super || has_long_segments(bytes, walk, packet.offload, layer, mtu_bytes));
        let mut ip = ip::Packet::reopen(bytes, walk.layer_4)?;
        if ip.hops() <= 1 || (is_too_big && (!self.plan.handling.cuts || ip.is_dont_fragment() || is_super)) {
            let error = if ip.hops() <= 1 { IcmpError::TtlExceeded } else { IcmpError::TooBig(mtu_bytes) };
            return Err(self.turn_away(packet, walk, error, directors, now));
        }
        let scope = Scope {
            has_ports: walk.subject.has_ports(),
            needs_checksum: packet.offload.needs_checksum,
            protocol: walk.protocol,
        };
        // From here on it is ours: what has been edited is not passed on to others.
        walk.is_foreign = false;
        rewrite(&mut ip, entry, direction, scope);
        if self.touches_up {
            self.touch_up(bytes, walk, packet.offload);
        }
        self.note(entry, walk, direction, length, now);
        if layer == Layer::Ip && !is_too_big {
            return Ok(Verdict::Forward(out));
        }
        let to = entry.translated(direction);
        let hop = Hop { out, way: number, target: to.destination, source: to.source };
        if is_too_big {
            return self.cut(packet, walk, hop, None, directors, now);
        }
        let inner = walk.range.clone();
        self.link(packet, walk, inner, hop, directors, now)
    }

    /// What some plans ask for besides: the size of segments, a checksum where there is none.
    fn touch_up(&self, bytes: &mut [u8], walk: &Walk, offload: Offload) {
        let Ok(mut ip) = ip::Packet::reopen(bytes, walk.layer_4) else { return };
        let handling = &self.plan.handling;
        if walk.segment.flags.has(Flags::SYN)
            && walk.protocol == Protocol::TCP
            && let Some(mss_bytes) = handling.mss_bytes
        {
            tcp::clamp_mss(ip.payload(), mss_bytes, offload.needs_checksum);
        }
        let is_datagram = walk.subject == Subject::Packet && walk.protocol == Protocol::UDP;
        if handling.fills_udp_checksum && is_datagram && !offload.needs_checksum {
            fill_udp_checksum(&mut ip);
        }
    }

    /// Notes in `entry` what a packet says of its flow.
    #[inline(always)]
    fn note(&self, entry: &mut FlowEntry, walk: &Walk, direction: Direction, length: u32, now: Instant) {
        let before = entry.state;
        // A segment whose numbers do not fit says nothing: anyone can send it.
        if !walk.subject.has_ports() || entry.follow(&walk.segment, direction) {
            let mut after = before.after(walk.segment.flags, direction);
            // A client that goes on was not reset: with the server's half unseen, a reset is easier to guess.
            if before == FlowState::Closed && entry.is_one_sided() && walk.segment.flags.goes_on() {
                after = FlowState::Established;
            }
            entry.state = after;
            // For the same reason it is given the time of a connection that has closed, to show that it goes on.
            let is_doubtful = after == FlowState::Closed && entry.is_one_sided();
            let lasting = if is_doubtful { FlowState::TimeWait } else { after };
            entry.expires = Instant::from_nanos(now.as_nanos().saturating_add(self.lifetime(lasting)));
        }
        entry.count(direction, length);
    }

    /// Sends a packet on as it is, one hop later: to the real server as next hop, or inside a tunnel.
    fn carry_unchanged(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &mut Walk,
        entry: &mut FlowEntry,
        directors: &Directors,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let mode = &directors.at(entry.director).ok_or(DropReason::NoDirector)?.mode;
        let number = entry.way(Direction::Original);
        let Some(way) = self.ways.at(number) else { return Err(no_way(number)) };
        let Way { interface: out, layer, mtu_bytes, .. } = *way;
        let way_out = self.plan.interfaces.get(out.index()).ok_or(DropReason::NoRoute)?;
        let wrap = Wrap::new(mode, entry, walk.hash, way_out)?;
        let overhead = wrap.map_or(0, |wrap| wrap.overhead_bytes());
        let mtu_bytes = mtu_bytes.saturating_sub(overhead);
        let bytes = packet.buffer.get_mut(walk.range.clone()).ok_or(DropReason::Truncated)?;
        let length = walk.length;
        // A device that cuts super-packets cuts them by their own headers, not by those inside.
        let is_super = packet.offload.segment_bytes.is_some();
        let is_too_big = length > u32::from(mtu_bytes)
            && (!is_super
                || wrap.is_some()
                || has_long_segments(bytes, walk, packet.offload, layer, mtu_bytes));
        let mut ip = ip::Packet::reopen(bytes, walk.layer_4)?;
        if ip.hops() <= 1 || (is_too_big && (!self.plan.handling.cuts || ip.is_dont_fragment() || is_super)) {
            let error = if ip.hops() <= 1 { IcmpError::TtlExceeded } else { IcmpError::TooBig(mtu_bytes) };
            return Err(self.turn_away(packet, walk, error, directors, now));
        }
        walk.is_foreign = false;
        ip.take_hop();
        if walk.segment.flags.has(Flags::SYN)
            && let Some(mss_bytes) = self.plan.handling.mss_bytes
        {
            tcp::clamp_mss(ip.payload(), mss_bytes, packet.offload.needs_checksum);
        }
        let source = ip.source();
        self.note(entry, walk, Direction::Original, length, now);
        let sender = wrap.map_or(source, |wrap| wrap.outer.source);
        let hop = Hop { out, way: number, target: entry.server, source: sender };
        if is_too_big {
            return self.cut(packet, walk, hop, wrap, directors, now);
        }
        let inner = walk.range.clone();
        if let Some(wrap) = wrap {
            walk.range = wrap.put_around(packet.buffer, inner.clone())?;
        }
        self.link(packet, walk, inner, hop, directors, now)
    }

    /// Sends an ICMP error about a packet of `entry` to whom it concerns. It neither refreshes the flow nor changes its
    /// state (RFC 4787 REQ-10, RFC 5382 REQ-10).
    ///
    /// # Errors
    /// Why it goes no further.
    #[cold]
    pub(crate) fn carry_error(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &mut Walk,
        entry: &FlowEntry,
        direction: Direction,
        directors: &Directors,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let number = entry.way(direction);
        let Way { interface: out, mtu_bytes, .. } = *self.ways.at(number).ok_or_else(|| no_way(number))?;
        let way_out = self.plan.interfaces.get(out.index()).ok_or(DropReason::NoRoute)?;
        let mode = &directors.at(entry.director).ok_or(DropReason::NoDirector)?.mode;
        let wrap = Wrap::new(mode, entry, walk.hash, way_out)?;
        let bytes = packet.buffer.get_mut(walk.range.clone()).ok_or(DropReason::Truncated)?;
        let mut ip = ip::Packet::reopen(bytes, walk.layer_4)?;
        // Nobody is told of an error about an error (RFC 1812 s.4.3.2.7).
        if ip.hops() <= 1 {
            return Err(DropReason::TtlExceeded);
        }
        let overhead = wrap.map_or(0, |wrap| wrap.overhead_bytes());
        if ip.total_length() > u32::from(mtu_bytes.saturating_sub(overhead)) {
            return Err(DropReason::TooBig);
        }
        walk.is_foreign = false;
        if entry.is_one_sided() {
            ip.take_hop();
        } else {
            icmp_error::translate(&mut ip, entry, direction);
        }
        let target = if direction == Direction::Original { entry.server } else { entry.client };
        let source = wrap.map_or_else(|| ip.source(), |wrap| wrap.outer.source);
        let hop = Hop { out, way: number, target, source };
        if let Some(wrap) = wrap {
            walk.range = wrap.put_around(packet.buffer, walk.range.clone())?;
        }
        let inner = walk.range.clone();
        self.link(packet, walk, inner, hop, directors, now)
    }

    /// Tells the sender of a packet that cannot go on, where it wants to know, and gives the reason.
    #[cold]
    fn turn_away(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &Walk,
        error: IcmpError,
        directors: &Directors,
        now: Instant,
    ) -> DropReason {
        let reason = match error {
            IcmpError::TtlExceeded => DropReason::TtlExceeded,
            IcmpError::TooBig(_) | IcmpError::PortUnreachable | IcmpError::Prohibited => DropReason::TooBig,
        };
        // Who allows cutting does not want to hear of sizes.
        let is_told = match error {
            IcmpError::TooBig(_) => {
                let bytes = packet.buffer.get_mut(walk.range.clone()).unwrap_or_default();
                ip::Packet::reopen(bytes, walk.layer_4).is_ok_and(|ip| ip.is_dont_fragment())
            }
            IcmpError::TtlExceeded | IcmpError::PortUnreachable | IcmpError::Prohibited => true,
        };
        if is_told {
            self.send_error(packet, walk, error, directors, now);
        }
        reason
    }

    /// Cuts the IP packet of `walk` to what the way out takes, and queues the pieces.
    #[cold]
    fn cut(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &Walk,
        hop: Hop,
        wrap: Option<Wrap>,
        directors: &Directors,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let bytes = packet.buffer.get_mut(walk.range.clone()).ok_or(DropReason::Truncated)?;
        if packet.offload.needs_checksum {
            complete_checksum(bytes, walk);
        }
        // What is cut is of IPv4; what is around the pieces need not be.
        let is_v4 = wrap.is_none_or(|wrap| wrap.outer.destination.is_v4());
        let kind = if is_v4 { ethernet::TYPE_IPV4 } else { ethernet::TYPE_IPV6 };
        let link = match self.next_link(hop, kind, directors, now)? {
            Linked::None => None,
            Linked::Header(header) => Some(header),
            Linked::Unknown(next) => {
                // The question is asked; pieces are not kept, since their sender will send the whole again.
                let _ = next;
                return Err(DropReason::NeighbourUnresolved);
            }
        };
        let way_out = self.plan.interfaces.get(hop.out.index()).ok_or(DropReason::NoRoute)?;
        let overhead = wrap.map_or(0, |wrap| wrap.overhead_bytes());
        let mtu_bytes = way_out.mtu_bytes.saturating_sub(overhead);
        let (outbox, scratch) = (&mut self.outbox, &mut self.scratch);
        let mut emit = |parts: &[&[u8]]| {
            let length: usize = parts.iter().map(|part| part.len()).sum();
            let Some(place) = scratch.get_mut(HEADROOM_BYTES..HEADROOM_BYTES + length) else { return false };
            for (byte, from) in place.iter_mut().zip(parts.iter().copied().flatten()) {
                *byte = *from;
            }
            let mut range = HEADROOM_BYTES..HEADROOM_BYTES + length;
            if let Some(wrap) = wrap {
                let Ok(wrapped) = wrap.put_around(scratch, range) else { return false };
                range = wrapped;
            }
            let piece = scratch.get(range).unwrap_or_default();
            let header = link.as_ref().map_or(&[][..], IntoBytes::as_bytes);
            outbox.push(hop.out, Kind::Piece, &[header, piece])
        };
        cut::cut(bytes, mtu_bytes, &mut emit)?;
        self.counters.cut += 1;
        Ok(Verdict::Replace(hop.out))
    }

    /// Sends an ICMP error about a packet back to where it came from, if that is allowed.
    pub(crate) fn send_error(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &Walk,
        error: IcmpError,
        directors: &Directors,
        now: Instant,
    ) {
        let interface = packet.interface;
        let Some(plan) = self.plan.interfaces.get(interface.index()) else { return };
        let Some((before, rest)) = packet.buffer.split_at_mut_checked(walk.range.start) else { return };
        let Some(bytes) = rest.get_mut(..walk.range.len()) else { return };
        let Ok(mut ip) = ip::Packet::reopen(bytes, walk.layer_4) else { return };
        let is_later = walk.subject == Subject::LaterFragment;
        if !reply::may_send_error(&mut ip, walk.protocol, is_later) || !self.answers.take(now) {
            return;
        }
        let destination = ip.destination();
        let Some(source) = speaker(plan, destination, directors) else { return };
        let headers = ErrorHeaders::new(error, source, bytes);
        let is_queued = send_back(&mut self.outbox, interface, plan.layer, before, &headers.parts(bytes));
        self.counters.born_lost += u64::from(!is_queued);
    }

    /// Tells the client of `entry`, whose packet in `quote` was too big for our tunnel on a way that takes `mtu_bytes`, how
    /// much fits into it.
    #[cold]
    pub(crate) fn relay_too_big(
        &mut self,
        entry: &FlowEntry,
        hash: u64,
        mtu_bytes: u16,
        quote: &[u8],
        directors: &Directors,
        now: Instant,
    ) {
        let Some(director) = directors.at(entry.director) else { return };
        let way_out = self.ways.at(entry.way(Direction::Original));
        let way_out = way_out.and_then(|way| self.plan.interfaces.get(way.interface.index()));
        let Some(Ok(Some(wrap))) = way_out.map(|way| Wrap::new(&director.mode, entry, hash, way)) else {
            return;
        };
        // A smaller one than every link carries is a lie, or older than RFC 1191.
        let least = if entry.service.is_v4() { 576 } else { 1280 };
        let fits = mtu_bytes.saturating_sub(wrap.overhead_bytes()).max(least);
        let out = entry.interface_in();
        let hop = Hop { out, way: entry.interface_in, target: entry.client, source: entry.service };
        if !self.answers.take(now) {
            return;
        }
        let headers = ErrorHeaders::new(IcmpError::TooBig(fits), entry.service, quote);
        let [first, second, third] = headers.parts(quote);
        let kind = if entry.client.is_v4() { ethernet::TYPE_IPV4 } else { ethernet::TYPE_IPV6 };
        let is_queued = match self.next_link(hop, kind, directors, now) {
            Ok(Linked::None) => self.outbox.push(out, Kind::Born, &[first, second, third]),
            Ok(Linked::Header(link)) => {
                self.outbox.push(out, Kind::Born, &[link.as_bytes(), first, second, third])
            }
            Ok(Linked::Unknown(_)) | Err(_) => false,
        };
        self.counters.born_lost += u64::from(!is_queued);
    }

    /// Sends a reset to whoever sent the segment of `walk`.
    ///
    /// # Errors
    /// Why no answer is due.
    pub(crate) fn send_reset(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &Walk,
        now: Instant,
    ) -> Result<(), DropReason> {
        let interface = packet.interface;
        let plan = self.plan.interfaces.get(interface.index()).ok_or(DropReason::UnknownInterface)?;
        let start = walk.range.start;
        let (before, rest) = packet.buffer.split_at_mut_checked(start).ok_or(DropReason::Truncated)?;
        let bytes = rest.get_mut(..walk.range.len()).ok_or(DropReason::Truncated)?;
        let mut ip = ip::Packet::reopen(bytes, walk.layer_4)?;
        let (answer, length) = reply::reset(&mut ip).ok_or(DropReason::NoFlow)?;
        if !self.answers.take(now) {
            return Err(DropReason::AnswerLimited);
        }
        let answer = answer.get(..length).unwrap_or_default();
        let is_queued = send_back(&mut self.outbox, interface, plan.layer, before, &[answer]);
        self.counters.born_lost += u64::from(!is_queued);
        self.counters.resets += u64::from(is_queued);
        Ok(())
    }
}

/// Why nothing leaves by the way with this number, which there is not.
#[cold]
const fn no_way(number: u8) -> DropReason {
    if number == DEAD_END { DropReason::PolicyDenied } else { DropReason::NoRoute }
}

/// An outer header that is put around packets of one flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wrap {
    encapsulation: tunnel::Encapsulation,
    outer: tunnel::Outer,
}

impl Wrap {
    /// What `mode` puts around packets of `entry`; nothing unless it is a tunnel.
    pub(crate) fn new(
        mode: &Mode,
        entry: &FlowEntry,
        flow_hash: u64,
        way_out: &InterfacePlan,
    ) -> Result<Option<Self>, DropReason> {
        let Mode::Tunnel { encapsulation, sources, ttl } = mode else { return Ok(None) };
        let destination = entry.server;
        let is_fit = |address: &Address| address.is_v4() == destination.is_v4();
        let own = way_out.addresses.iter().map(|own| own.address);
        let source = sources.iter().copied().chain(own).map(Address::from).find(is_fit);
        let source = source.ok_or(DropReason::NoRoute)?;
        let outer = tunnel::Outer { source, destination, flow_hash, ttl: *ttl };
        Ok(Some(Self { encapsulation: *encapsulation, outer }))
    }

    /// What it does to a packet.
    pub(crate) const fn change(&self) -> Change {
        let tunnel::Outer { source, destination, .. } = self.outer;
        let (encapsulation, overhead_bytes) = (self.encapsulation, self.overhead_bytes());
        Change::Wrapped { encapsulation, source, destination, overhead_bytes }
    }

    pub(crate) const fn overhead_bytes(&self) -> u16 {
        tunnel::overhead_bytes(self.encapsulation, !self.outer.destination.is_v4())
    }

    /// Puts the outer header in front of the IP packet at `range`.
    fn put_around(&self, buffer: &mut [u8], range: Range<usize>) -> Result<Range<usize>, DropReason> {
        tunnel::encapsulate(buffer, range, self.encapsulation, &self.outer)
    }
}

/// What a link needs in front of a packet.
pub(crate) enum Linked {
    /// Nothing: it carries IP.
    None,
    /// This header.
    Header(ethernet::Header),
    /// The link address of this next hop, which has been asked for.
    Unknown(Address),
}

/// Computes the layer-4 checksum that a device has left undone, for a packet that leaves in pieces or later.
#[cold]
pub(crate) fn complete_checksum(bytes: &mut [u8], walk: &Walk) {
    let Some(payload) = bytes.get_mut(usize::from(walk.layer_4)..) else { return };
    let at = if walk.protocol == Protocol::TCP { tcp::CHECKSUM_AT } else { udp::CHECKSUM_AT };
    // The field holds the pseudo header's sum, so that the sum over all is the one that is wanted.
    let sum = checksum::checksum(0, payload);
    let sum = if sum == 0 && walk.protocol == Protocol::UDP { 0xffff } else { sum };
    if let Some(Some(field)) = payload.get_mut(at..).map(|rest| rest.first_chunk_mut::<2>()) {
        *field = sum.to_be_bytes();
    }
}

/// Whether the segments of a super-packet would be longer than an Ethernet interface takes. On the way out of a TUN the
/// kernel looks itself.
#[cold]
fn has_long_segments(bytes: &mut [u8], walk: &Walk, offload: Offload, layer: Layer, mtu_bytes: u16) -> bool {
    let (Layer::Ethernet(_), Some(segment_bytes)) = (layer, offload.segment_bytes) else { return false };
    let head = match walk.protocol {
        Protocol::TCP => {
            let payload = bytes.get_mut(usize::from(walk.layer_4)..).unwrap_or_default();
            tcp::Header::split(payload).map_or(tcp::HEADER_BYTES, |(tcp, _)| tcp.header_length())
        }
        _ => udp::HEADER_BYTES,
    };
    let segment = u32::from(segment_bytes) + u32::from(walk.layer_4) + u32::try_from(head).unwrap_or(0);
    segment > u32::from(mtu_bytes)
}

/// The address of ours in whose name an error about a packet to `destination` is sent.
fn speaker(plan: &InterfacePlan, destination: Address, directors: &Directors) -> Option<Address> {
    if directors.is_served(destination) {
        return Some(destination);
    }
    let own = plan.addresses.iter().map(|own| Address::from(own.address));
    own.into_iter()
        .find(|own| own.is_v4() == destination.is_v4())
        .or_else(|| directors.any_address(destination))
}

/// Queues a packet made of `parts` for the station that sent the packet behind `before`. Returns whether there was room.
fn send_back(
    outbox: &mut Outbox,
    interface: InterfaceId,
    layer: Layer,
    before: &mut [u8],
    parts: &[&[u8]],
) -> bool {
    let Layer::Ethernet(own) = layer else { return outbox.push(interface, Kind::Born, parts) };
    let frame = before.last_chunk_mut::<{ ethernet::HEADER_BYTES }>();
    let Some(Ok((link, _))) = frame.map(|frame| ethernet::Header::split(frame)) else { return false };
    let link = ethernet::Header::new(link.source(), own, link.ethertype());
    let mut all = [&[][..]; 4];
    for (place, part) in all.iter_mut().zip([link.as_bytes()].into_iter().chain(parts.iter().copied())) {
        *place = part;
    }
    outbox.push(interface, Kind::Born, &all)
}

/// The MAC address that a station with a link has.
pub(crate) const fn own_mac(layer: Layer) -> Option<MacAddress> {
    match layer {
        Layer::Ip => None,
        Layer::Ethernet(own) => Some(own),
    }
}
