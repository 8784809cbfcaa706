//! The way in: what the headers of a packet say, and packets that end before any flow is asked about: questions to the
//! engine itself, fragments that wait for their first.

use core::ops::Range;

use zerocopy::IntoBytes;

use crate::device::PacketBuffer;
use crate::director::Pinged;
use crate::engine::Engine;
use crate::flow::fragments::{Follow, FragmentKey, Piece};
use crate::flow::tcp_track::Segment;
use crate::forward::tunnel;
use crate::nat::icmp_error;
use crate::plan::Layer;
use crate::reply;
use crate::time::Instant;
use crate::verdict::{DropReason, Verdict};
use crate::walk::{Subject, Walk};
use crate::wire::ethernet::{self, MacAddress};
use crate::wire::tcp::Flags;
use crate::wire::{FiveTuple, Protocol, icmp, icmpv6, ip, ipv4, ipv6, tcp, udp};

impl Engine {
    /// Fills in what the headers say: where the IP packet lies, its tuple and flags; or how the walk ends here.
    #[inline(always)]
    pub(crate) fn read_headers(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &mut Walk,
        now: Instant,
    ) -> Result<Option<Verdict>, DropReason> {
        walk.is_foreign = false;
        let Some(plan) = self.exit.plan.interfaces.get(packet.interface.index()) else {
            return Err(DropReason::UnknownInterface);
        };
        let start = match plan.layer {
            Layer::Ip => packet.range.start,
            Layer::Ethernet(own) => match self.read_frame(packet, walk, own, now)? {
                None => packet.range.start + ethernet::HEADER_BYTES,
                end => {
                    walk.range = packet.range.clone();
                    return Ok(end);
                }
            },
        };
        let bytes = packet.buffer.get_mut(start..packet.range.end).ok_or(DropReason::Truncated)?;
        // Other protocols than TCP leave the numbers of an earlier packet there; nobody reads them.
        walk.segment.flags = Flags(0);
        walk.subject = Subject::Packet;
        if read_ip(bytes, walk, start)? {
            return self.read_fragment(packet, walk, now);
        }
        self.read_layer_4(packet, walk, now)
    }

    /// Reads ports and flags of a packet that is whole, or the first of its fragments.
    #[inline(always)]
    fn read_layer_4(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &mut Walk,
        now: Instant,
    ) -> Result<Option<Verdict>, DropReason> {
        let protocol = walk.protocol;
        let start = walk.range.start + usize::from(walk.layer_4);
        let payload = packet.buffer.get_mut(start..walk.range.end).ok_or(DropReason::Truncated)?;
        let length = payload.len();
        let (source_port, destination_port) = match protocol {
            Protocol::TCP => {
                let (header, _) = tcp::Header::split(payload)?;
                walk.segment = Segment {
                    sequence: header.sequence(),
                    acknowledgement: header.acknowledgement(),
                    payload_bytes: u32::try_from(length - header.header_length()).unwrap_or(0),
                    flags: header.flags(),
                };
                (header.source_port(), header.destination_port())
            }
            Protocol::UDP if walk.subject == Subject::FirstFragment => {
                // Its length is that of the whole datagram.
                let header = udp::Header::reopen(payload).ok_or(DropReason::Truncated)?;
                (header.source_port(), header.destination_port())
            }
            Protocol::UDP => {
                let (header, _) = udp::Header::split(payload)?;
                (header.source_port(), header.destination_port())
            }
            Protocol::ICMP | Protocol::ICMPV6 => {
                let end = self.read_icmp(packet, walk, now)?;
                if end.is_some() || walk.subject == Subject::Error {
                    return Ok(end);
                }
                let start = walk.range.start + usize::from(walk.layer_4);
                let query = packet.buffer.get_mut(start..walk.range.end).ok_or(DropReason::Truncated)?;
                let is_request =
                    matches!(query.first(), Some(&icmp::kind::ECHO_REQUEST | &icmpv6::kind::ECHO_REQUEST));
                let identifier = icmp::Header::reopen(query).ok_or(DropReason::Truncated)?.identifier();
                if is_request { (identifier, 0) } else { (0, identifier) }
            }
            _ => return Err(DropReason::UnknownProtocol),
        };
        walk.tuple.source_port = source_port;
        walk.tuple.destination_port = destination_port;
        Ok(None)
    }

    /// Looks at the link header of a frame. `None` when IP follows it.
    fn read_frame(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &mut Walk,
        own: MacAddress,
        now: Instant,
    ) -> Result<Option<Verdict>, DropReason> {
        let interface = packet.interface;
        let frame = packet.buffer.get_mut(packet.range.clone()).ok_or(DropReason::Truncated)?;
        let (header, _) = ethernet::Header::split(frame)?;
        let (to, kind) = (header.destination(), header.ethertype());
        if kind == ethernet::TYPE_ARP && (to == own || to.is_group()) {
            let verdict = self.exit.handle_arp(frame, own, interface, &self.directors, now)?;
            self.exit.release();
            return match verdict {
                // A bridge lets others hear it too.
                None if self
                    .exit
                    .plan
                    .interfaces
                    .get(interface.index())
                    .is_some_and(|plan| plan.passes_to.is_some()) =>
                {
                    Err(DropReason::OtherHost)
                }
                verdict => Ok(Some(verdict.unwrap_or(Verdict::Consume))),
            };
        }
        let is_for_us = to == own || (kind == ethernet::TYPE_IPV6 && to.is_group());
        walk.is_foreign = to != own;
        let may_pass =
            || self.exit.plan.interfaces.get(interface.index()).is_some_and(|plan| plan.passes_to.is_some());
        if !is_for_us && (to.is_group() || !may_pass()) {
            return Err(DropReason::OtherHost);
        }
        if kind != ethernet::TYPE_IPV4 && kind != ethernet::TYPE_IPV6 {
            return Err(DropReason::NotIp);
        }
        // Answers go out under the same type.
        let version = if kind == ethernet::TYPE_IPV4 { 4 } else { 6 };
        if frame.get(ethernet::HEADER_BYTES).is_some_and(|first| first >> 4 != version) {
            return Err(DropReason::BadHeader);
        }
        Ok(None)
    }

    /// Finds out whose fragment a packet is, or keeps it until that is known.
    #[cold]
    fn read_fragment(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &mut Walk,
        now: Instant,
    ) -> Result<Option<Verdict>, DropReason> {
        let bytes = packet.buffer.get_mut(walk.range.clone()).ok_or(DropReason::Truncated)?;
        let Some((key, piece)) = fragment_of(bytes) else { return Err(DropReason::BadHeader) };
        if let Some(journal) = &mut self.journal {
            journal.touch(|touched| touched.datagram = Some(key));
        }
        match self.fragments.look(key, piece, now) {
            Follow::First => {
                walk.subject = Subject::FirstFragment;
                let read = if walk.protocol == Protocol::TCP || walk.protocol == Protocol::UDP {
                    self.read_layer_4(packet, walk, now)
                } else {
                    // Pings and errors in pieces are only sent to do harm.
                    Err(DropReason::Fragment)
                };
                match read {
                    Ok(_) => self.fragments.settle(&key, walk.tuple),
                    Err(reason) => self.fragments.refuse(&key, reason),
                }
                read
            }
            Follow::Known(tuple) => {
                walk.subject = Subject::LaterFragment;
                walk.protocol = tuple.protocol;
                walk.tuple = tuple;
                Ok(None)
            }
            Follow::Wait => {
                let bytes = packet.buffer.get(walk.range.clone()).ok_or(DropReason::Truncated)?;
                self.fragments.hold(&key, bytes, packet.interface)?;
                Ok(Some(Verdict::Hold))
            }
            Follow::Drop(reason) => Err(reason),
        }
    }

    /// Answers a ping, takes in what the link says of neighbours, or finds the tuple that an error quotes. `None` for an
    /// error, and for a query that goes to a real server.
    #[cold]
    fn read_icmp(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &mut Walk,
        now: Instant,
    ) -> Result<Option<Verdict>, DropReason> {
        let plan = self.exit.plan.interfaces.get(packet.interface.index());
        let layer = plan.map_or(Layer::Ip, |plan| plan.layer);
        let bytes = packet.buffer.get_mut(walk.range.clone()).ok_or(DropReason::Truncated)?;
        let mut ip = ip::Packet::reopen(bytes, walk.layer_4)?;
        let kind = ip.payload().first().copied().ok_or(DropReason::Truncated)?;
        let is_v6 = walk.protocol == Protocol::ICMPV6;
        if is_v6 == walk.tuple.source.is_v4() {
            return Err(DropReason::UnknownProtocol);
        }
        if is_v6 && icmpv6::kind::is_neighbour_discovery(kind) {
            let Layer::Ethernet(own) = layer else { return Err(DropReason::IcmpUnhandled) };
            let verdict = self.exit.handle_ndp(packet, walk, own, &self.directors, now)?;
            self.exit.release();
            return verdict.map_or(Err(DropReason::OtherHost), |verdict| Ok(Some(verdict)));
        }
        let is_error = if is_v6 { icmpv6::kind::is_error(kind) } else { icmp::kind::is_error(kind) };
        if is_error {
            return self.read_error(packet, walk, now);
        }
        check_icmp(&mut ip)?;
        let request = if is_v6 { icmpv6::kind::ECHO_REQUEST } else { icmp::kind::ECHO_REQUEST };
        let reply = if is_v6 { icmpv6::kind::ECHO_REPLY } else { icmp::kind::ECHO_REPLY };
        if kind == reply || (kind == request && self.is_forwarded(walk)) {
            return Ok(None);
        }
        if !self.lets_in(packet, walk, now) {
            return Err(DropReason::PolicyDenied);
        }
        if kind != request {
            return Err(DropReason::IcmpUnhandled);
        }
        match self.directors.pinged(walk.tuple.destination) {
            Pinged::Stranger => return Err(DropReason::IcmpUnhandled),
            Pinged::Unserved => return Err(DropReason::NoServer),
            Pinged::Forwarded(_) | Pinged::Own | Pinged::Served => {}
        }
        if !self.exit.answers.take(now) {
            return Err(DropReason::AnswerLimited);
        }
        let bytes = packet.buffer.get_mut(walk.range.clone()).ok_or(DropReason::Truncated)?;
        reply::echo(&mut ip::Packet::reopen(bytes, walk.layer_4)?);
        walk.range = turn_frame(packet.buffer, layer, walk.range.clone(), is_v6);
        Ok(Some(Verdict::Answer(packet.interface)))
    }

    /// Whether a ping goes to a real server.
    fn is_forwarded(&self, walk: &Walk) -> bool {
        matches!(self.directors.pinged(walk.tuple.destination), Pinged::Forwarded(_))
    }

    /// Drops the fragments that are still to come of the datagram whose first one is in `packet`: it was denied.
    #[cold]
    pub(crate) fn refuse_fragments(&mut self, packet: &mut PacketBuffer<'_>, walk: &Walk) {
        if walk.subject == Subject::FirstFragment
            && let Some(bytes) = packet.buffer.get_mut(walk.range.clone())
            && let Some((key, _)) = fragment_of(bytes)
        {
            self.fragments.revoke(&key, DropReason::PolicyDenied);
        }
    }

    /// Finds the tuple that an ICMP error quotes; or, when it is about a packet in one of our tunnels, tells the sender of
    /// the packet inside.
    fn read_error(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &mut Walk,
        now: Instant,
    ) -> Result<Option<Verdict>, DropReason> {
        let bytes = packet.buffer.get_mut(walk.range.clone()).ok_or(DropReason::Truncated)?;
        let mut ip = ip::Packet::reopen(bytes, walk.layer_4)?;
        walk.subject = Subject::Error;
        let quoted = icmp_error::quoted(&mut ip);
        // What is wrong with the message itself comes first.
        let is_sound = !matches!(quoted, Err(DropReason::BadChecksum | DropReason::Truncated));
        if is_sound
            && self.directors.is_own(ip.destination())
            && let Some(verdict) = self.relay_tunnel_error(packet, walk, now)
        {
            return Ok(Some(verdict));
        }
        walk.tuple = quoted?.reversed();
        Ok(None)
    }

    /// An error about one of our own tunnel packets: the sender of the packet inside is told how large it may be. Other
    /// errors about the tunnel end here.
    fn relay_tunnel_error(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &Walk,
        now: Instant,
    ) -> Option<Verdict> {
        let start = walk.range.start + usize::from(walk.layer_4);
        let message = packet.buffer.get_mut(start..walk.range.end)?;
        let (head, quote) = message.split_at_mut_checked(icmp::HEADER_BYTES)?;
        let mtu_bytes = icmp_error::mtu_of(head, walk.protocol)?;
        let inner = tunnel::inner_of(quote)?;
        let quote = quote.get_mut(inner)?;
        let tuple = icmp_error::tuple_of(quote).ok()?;
        if let Some(journal) = &mut self.journal {
            journal.touch_tuple(tuple);
        }
        let (id, _) = self.flows.find(tuple.hash(self.flows.key()), &tuple)?;
        let entry = self.flows.entry(id).filter(|entry| entry.is_one_sided())?;
        let hash = tuple.hash(self.flows.key());
        self.exit.relay_too_big(entry, hash, mtu_bytes, quote, &self.directors, now);
        Some(Verdict::Consume)
    }

    /// Where later fragments of a packet have their payload.
    pub(crate) fn payload_offset(&self, bytes: &mut [u8]) -> u16 {
        let mut walk = Walk::NONE;
        let _ = read_ip(bytes, &mut walk, 0);
        walk.layer_4
    }
}

/// Checks an IP packet of either family, which begins at `start` of its buffer, and notes what its header says. Returns
/// whether it is a fragment.
#[inline(always)]
fn read_ip(bytes: &mut [u8], walk: &mut Walk, start: usize) -> Result<bool, DropReason> {
    match bytes.first().map(|first| first >> 4) {
        Some(4) => {
            let header = ipv4::Header::check(bytes)?;
            walk.range = start..start + usize::from(header.total_length());
            walk.length = u32::from(header.total_length());
            // At most 60.
            walk.layer_4 = u16::try_from(header.header_length()).unwrap_or(20);
            if header.is_martian() {
                return Err(DropReason::Martian);
            }
            walk.tuple.source = header.source();
            walk.tuple.destination = header.destination();
            walk.protocol = header.protocol();
            walk.tuple.protocol = walk.protocol;
            if walk.layer_4 > 20 {
                check_options(bytes, walk.layer_4)?;
            }
            Ok(header.is_fragment())
        }
        Some(6) => read_ipv6(bytes, walk, start),
        Some(_) => Err(DropReason::NotIp),
        None => Err(DropReason::Truncated),
    }
}

#[cold]
fn check_options(bytes: &[u8], end: u16) -> Result<(), DropReason> {
    let options = bytes.get(ipv4::HEADER_BYTES..usize::from(end)).unwrap_or_default();
    if ipv4::has_source_route(options) { Err(DropReason::SourceRoute) } else { Ok(()) }
}

fn read_ipv6(bytes: &mut [u8], walk: &mut Walk, start: usize) -> Result<bool, DropReason> {
    let packet = ipv6::Packet::split(bytes)?;
    let ipv6::Chain { protocol, offset, fragment, .. } = packet.chain;
    let (source, destination) = (packet.header.source(), packet.header.destination());
    walk.range = start..start + packet.header.total_length();
    walk.length = u32::try_from(packet.header.total_length()).unwrap_or(u32::MAX);
    walk.layer_4 = offset;
    walk.protocol = protocol;
    walk.tuple = FiveTuple { source, destination, source_port: 0, destination_port: 0, protocol };
    // A part of such a message is never one (RFC 6980).
    let is_discovery = protocol == Protocol::ICMPV6
        && fragment.is_none()
        && packet.payload.first().is_some_and(|kind| icmpv6::kind::is_neighbour_discovery(*kind));
    if is_discovery {
        return Ok(false);
    }
    if packet.header.is_martian() {
        return Err(DropReason::Martian);
    }
    if packet.header.is_link_local() || !destination.is_station() {
        return Err(DropReason::OtherHost);
    }
    Ok(packet.chain.is_fragment())
}

/// Which part of which datagram a checked packet is, if it is a part.
fn fragment_of(bytes: &mut [u8]) -> Option<(FragmentKey, Piece)> {
    if bytes.first()? >> 4 == 4 {
        let packet = ipv4::Packet::split(bytes).ok()?;
        let header = packet.header;
        let key = FragmentKey {
            source: header.source(),
            destination: header.destination(),
            protocol: header.protocol(),
            identification: u32::from(header.identification()),
        };
        let length = u16::try_from(packet.payload.len()).ok()?;
        let (offset_bytes, more) = (header.fragment_offset_bytes(), header.has_more_fragments());
        return Some((key, Piece { offset_bytes, length, more }));
    }
    let packet = ipv6::Packet::split(bytes).ok()?;
    let (source, destination) = (packet.header.source(), packet.header.destination());
    let total = packet.header.total_length();
    let ipv6::Fragment { identification, offset_bytes, more, header_offset, .. } = packet.chain.fragment?;
    // All parts name the same, whatever follows in the first.
    let protocol = Protocol(*bytes.get(usize::from(header_offset))?);
    let length = u16::try_from(total.checked_sub(usize::from(header_offset + ipv6::FRAGMENT_BYTES))?).ok()?;
    let key = FragmentKey { source, destination, protocol, identification };
    Some((key, Piece { offset_bytes, length, more }))
}

/// Checks that a query adds up.
fn check_icmp(ip: &mut ip::Packet<'_>) -> Result<(), DropReason> {
    let (source, destination) = (ip.source(), ip.destination());
    match ip {
        ip::Packet::V4(packet) => icmp::Header::split(packet.payload).map(|_| ()),
        ip::Packet::V6(_, payload) => {
            icmpv6::Header::split(payload, source.v6_bytes(), destination.v6_bytes()).map(|_| ())
        }
    }
}

/// Turns the link header of an answer around and gives the frame's place.
fn turn_frame(buffer: &mut [u8], layer: Layer, range: Range<usize>, is_v6: bool) -> Range<usize> {
    let Layer::Ethernet(own) = layer else { return range };
    let start = range.start.saturating_sub(ethernet::HEADER_BYTES);
    let kind = if is_v6 { ethernet::TYPE_IPV6 } else { ethernet::TYPE_IPV4 };
    if let Some(Ok((header, _))) = buffer.get_mut(start..range.start).map(ethernet::Header::split) {
        let turned = ethernet::Header::new(header.source(), own, kind);
        header.as_mut_bytes().copy_from_slice(turned.as_bytes());
    }
    start..range.end
}
