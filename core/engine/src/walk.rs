//! A batch's walk through the engine: known flows straight to translation, the others through [`open`](crate::open).
//!
//! Passes over the batch, so that what one packet waits for from memory, the next ones wait for at the same time:
//! read headers; touch the index; touch the entries; translate known flows; open new flows. Then every packet
//! leaves in the order in which it came.

use core::ops::Range;

use crate::device::{BATCH_MAX, Device, PacketBuffer};
use crate::engine::{Engine, Stage};
use crate::event::Event;
use crate::flow::{Direction, FlowId};
use crate::nat::{icmp_error, rewrite};
use crate::plan::Layer;
use crate::policy::{PolicyFlow, PolicyVerdict};
use crate::reply::{self, IcmpError, Outbox};
use crate::time::Instant;
use crate::verdict::{DropReason, InterfaceId, Verdict};
use crate::wire::ethernet::{self, MacAddress};
use crate::wire::tcp::Flags;
use crate::wire::{Address, FiveTuple, Protocol, arp, icmp, ipv4, tcp, udp};
use zerocopy::IntoBytes;

/// What is known of one packet of the batch.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    /// How it ended; `None` while it is on its way.
    pub(crate) end: Option<Verdict>,
    /// Where the packet lies that leaves.
    pub(crate) range: Range<usize>,
    pub(crate) tuple: FiveTuple,
    pub(crate) hash: u64,
    pub(crate) interface: InterfaceId,
    pub(crate) flags: Flags,
    /// The packet is an ICMP error; the tuple is the quoted one, turned to the error's own direction.
    pub(crate) is_error: bool,
    /// What the index said first; later what the entry said. Read to warm the cache.
    pub(crate) hint: u32,
}

impl Walk {
    /// The walk of no packet, to be overwritten.
    pub(crate) const NONE: Self = Self {
        end: None,
        range: 0..0,
        tuple: FiveTuple {
            source: Address::UNSPECIFIED,
            destination: Address::UNSPECIFIED,
            source_port: 0,
            destination_port: 0,
            protocol: Protocol(0),
        },
        hash: 0,
        interface: InterfaceId(0),
        flags: Flags(0),
        is_error: false,
        hint: 0,
    };
}

impl Engine {
    /// Walks the `received` packets of `device` through the engine. Returns how many left.
    pub fn handle_batch<D: Device>(&mut self, device: &mut D, received: usize, now: Instant) -> usize {
        let now = self.tick(now);
        debug_assert!(received <= BATCH_MAX, "a device keeps to the bound");
        let mut all = core::mem::take(&mut self.walks);
        let walks = all.get_mut(..received.min(BATCH_MAX)).unwrap_or_default();
        for (slot, walk) in walks.iter_mut().enumerate() {
            self.enter(&mut device.packet(slot), walk, now);
        }
        // Two short loops without branches on what is read: memory answers for all packets at once.
        for walk in walks.iter_mut() {
            walk.hint = self.flows.touch_index(walk.hash);
        }
        for walk in walks.iter_mut() {
            walk.hint = self.flows.touch_entry(walk.hint);
        }
        let mut has_new = false;
        for (slot, walk) in walks.iter_mut().enumerate() {
            if walk.end.is_none() && !self.pass(&mut device.packet(slot), walk, now) {
                if walk.is_error {
                    walk.end = Some(Verdict::Drop(DropReason::IcmpUnhandled));
                } else {
                    has_new = true;
                }
            }
        }
        if has_new {
            self.open_flows(device, walks, now);
        }
        let sent = self.leave(device, walks);
        self.walks = all;
        sent
    }

    /// Reads the headers of one packet into `walk`.
    #[inline]
    fn enter(&mut self, packet: &mut PacketBuffer<'_>, walk: &mut Walk, now: Instant) {
        self.counters.packets_in += 1;
        self.counters.bytes_in += packet.range.len() as u64;
        walk.interface = packet.interface;
        walk.end = match self.read_headers(packet, walk, now) {
            Ok(None) => {
                walk.hash = walk.tuple.hash(self.flows.key());
                None
            }
            Ok(end) => end,
            Err(reason) => Some(Verdict::Drop(reason)),
        };
    }

    /// Fills in what the headers say: where the IP packet lies, its tuple and flags; or how the walk ends here.
    #[inline]
    fn read_headers(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &mut Walk,
        now: Instant,
    ) -> Result<Option<Verdict>, DropReason> {
        let Some(plan) = self.plan.interfaces.get(packet.interface.index()) else {
            return Err(DropReason::UnknownInterface);
        };
        let layer = plan.layer;
        let start = match layer {
            Layer::Ip => packet.range.start,
            Layer::Ethernet(own) => match self.read_frame(packet, own, now)? {
                None => packet.range.start + ethernet::HEADER_BYTES,
                end => {
                    walk.range = packet.range.clone();
                    return Ok(end);
                }
            },
        };
        let bytes = packet.buffer.get_mut(start..packet.range.end).ok_or(DropReason::Truncated)?;
        let mut ip = ipv4::Packet::split(bytes)?;
        walk.range = start..start + usize::from(ip.header.total_length());
        if ip.header.is_martian() {
            return Err(DropReason::Martian);
        }
        if ip.header.is_fragment() {
            return Err(DropReason::Fragment);
        }
        let protocol = ip.header.protocol();
        let (source_port, destination_port, flags) = match protocol {
            Protocol::TCP => {
                let (header, _) = tcp::Header::split(ip.payload)?;
                (header.source_port(), header.destination_port(), header.flags())
            }
            Protocol::UDP => {
                let (header, _) = udp::Header::split(ip.payload)?;
                (header.source_port(), header.destination_port(), Flags::default())
            }
            Protocol::ICMP if ip.payload.first().is_some_and(|kind| icmp::kind::is_error(*kind)) => {
                walk.tuple = icmp_error::quoted(ip.payload)?.reversed();
                walk.flags = Flags::default();
                walk.is_error = true;
                return Ok(None);
            }
            Protocol::ICMP => {
                self.answer_echo(&mut ip, now)?;
                walk.range = turn_frame(packet.buffer, layer, walk.range.clone());
                return Ok(Some(Verdict::Answer(packet.interface)));
            }
            _ => return Err(DropReason::UnknownProtocol),
        };
        let (source, destination) = (ip.header.source(), ip.header.destination());
        walk.tuple = FiveTuple { source, destination, source_port, destination_port, protocol };
        walk.flags = flags;
        walk.is_error = false;
        Ok(None)
    }

    /// Looks at the link header of a frame. `None` when IPv4 for us follows it.
    fn read_frame(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        own: MacAddress,
        now: Instant,
    ) -> Result<Option<Verdict>, DropReason> {
        let frame = packet.buffer.get_mut(packet.range.clone()).ok_or(DropReason::Truncated)?;
        let (header, _) = ethernet::Header::split(frame)?;
        let (to, kind) = (header.destination(), header.ethertype());
        if kind == ethernet::TYPE_ARP && (to == own || to.is_group()) {
            return self.handle_arp(frame, own, packet.interface, now).map(Some);
        }
        if to != own {
            return Err(DropReason::OtherHost);
        }
        if kind != ethernet::TYPE_IPV4 {
            return Err(DropReason::NotIpv4);
        }
        Ok(None)
    }

    /// Translates a packet of a known flow and settles where it leaves. Returns whether there is such a flow.
    #[inline]
    pub(crate) fn pass(&mut self, packet: &mut PacketBuffer<'_>, walk: &mut Walk, now: Instant) -> bool {
        let Some((id, direction)) = self.flows.find(walk.hash, &walk.tuple) else { return false };
        let Some(entry) = self.flows.entry(id) else { return false };
        let is_reopened =
            walk.flags.is_opening() && direction == Direction::Original && entry.state.is_over();
        if entry.expires <= now || is_reopened {
            self.end_flow(id);
            return false;
        }
        if entry.generation != self.generation
            && let Err(reason) = self.revalidate(id)
        {
            walk.end = Some(Verdict::Drop(reason));
            return true;
        }
        let translated = if walk.is_error {
            self.translate_error(packet, walk, id, direction, now)
        } else {
            self.translate(packet, walk, id, direction, now)
        };
        walk.end = Some(match translated {
            Ok(interface) => Verdict::Forward(interface),
            Err(reason) => Verdict::Drop(reason),
        });
        true
    }

    #[inline]
    fn translate(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &mut Walk,
        id: FlowId,
        direction: Direction,
        now: Instant,
    ) -> Result<InterfaceId, DropReason> {
        let Some(entry) = self.flows.entry_mut(id) else { return Err(DropReason::NoFlow) };
        let out = entry.interface_out(direction);
        let Some(way_out) = self.plan.interfaces.get(out.index()) else { return Err(DropReason::NoRoute) };
        let bytes = packet.buffer.get_mut(walk.range.clone()).ok_or(DropReason::Truncated)?;
        let mut ip = ipv4::Packet::reopen(bytes)?;
        let length = ip.header.total_length();
        let is_too_big = length > way_out.mtu_bytes && packet.offload.segment_bytes.is_none();
        if ip.header.ttl() <= 1 || is_too_big {
            let error = if ip.header.ttl() <= 1 {
                Some(IcmpError::TtlExceeded)
            } else {
                ip.header.is_dont_fragment().then_some(IcmpError::TooBig(way_out.mtu_bytes))
            };
            return Err(self.turn_away(packet, walk, error, now));
        }
        rewrite(&mut ip, entry, direction, packet.offload.needs_checksum);
        let before = entry.state;
        let after = before.after(walk.flags, direction);
        let lifetime = |state| self.lifetimes.get(state as usize).copied().unwrap_or(0);
        entry.state = after;
        entry.expires = Instant::from_nanos(now.as_nanos().saturating_add(lifetime(after)));
        entry.count(direction, length);
        let (place, slot) = (entry.director, entry.server_slot);
        let to = entry.translated(direction).destination;
        let is_shorter = before != after && lifetime(after) < lifetime(before);
        if let Some(director) = self.directors.at_mut(place) {
            if let Some(server) = director.server_mut(slot) {
                server.count(direction, length);
            }
            if before != after {
                director.change_state(slot, before, after);
            }
        }
        if is_shorter {
            self.flows.reschedule(id);
        }
        if let Layer::Ethernet(own) = way_out.layer {
            walk.range = self.link(packet.buffer, own, out, to, walk.range.clone(), now)?;
        }
        Ok(out)
    }

    /// Translates an ICMP error about a packet of a known flow. It neither refreshes the flow nor changes its state
    /// (RFC 4787 REQ-10, RFC 5382 REQ-10).
    #[cold]
    fn translate_error(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &mut Walk,
        id: FlowId,
        direction: Direction,
        now: Instant,
    ) -> Result<InterfaceId, DropReason> {
        let Some(entry) = self.flows.entry(id) else { return Err(DropReason::NoFlow) };
        let out = entry.interface_out(direction);
        let Some(way_out) = self.plan.interfaces.get(out.index()) else { return Err(DropReason::NoRoute) };
        let bytes = packet.buffer.get_mut(walk.range.clone()).ok_or(DropReason::Truncated)?;
        let mut ip = ipv4::Packet::reopen(bytes)?;
        // Nobody is told of an error about an error (RFC 1812 s.4.3.2.7).
        if ip.header.ttl() <= 1 {
            return Err(DropReason::TtlExceeded);
        }
        if ip.header.total_length() > way_out.mtu_bytes {
            return Err(DropReason::TooBig);
        }
        icmp_error::translate(&mut ip, entry, direction);
        let to = ip.header.destination();
        if let Layer::Ethernet(own) = way_out.layer {
            walk.range = self.link(packet.buffer, own, out, to, walk.range.clone(), now)?;
        }
        Ok(out)
    }

    /// Tells the sender of a packet that cannot go on, where it wants to know, and gives the reason.
    #[cold]
    fn turn_away(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &Walk,
        error: Option<IcmpError>,
        now: Instant,
    ) -> DropReason {
        if let Some(error) = error {
            self.send_error(packet, walk.range.clone(), error, now);
        }
        match error {
            Some(IcmpError::TtlExceeded) => DropReason::TtlExceeded,
            Some(IcmpError::TooBig(_) | IcmpError::PortUnreachable) | None => DropReason::TooBig,
        }
    }

    /// Whether the plan in force still permits a flow of an older one; else the flow ends.
    #[cold]
    fn revalidate(&mut self, id: FlowId) -> Result<(), DropReason> {
        let generation = self.generation;
        let Some(entry) = self.flows.entry(id) else { return Err(DropReason::NoFlow) };
        let director = self.directors.at(entry.director).filter(|director| !director.is_removed);
        let server = director.and_then(|director| director.server(entry.server_slot));
        let is_there = server.is_some_and(|server| server.view.is_some());
        let tuple = entry.tuple(Direction::Original);
        let flow = PolicyFlow { hash: 0, tuple, interface: entry.client_interface };
        // Guests are not asked again: what they count would count twice.
        let mut rules = self.stages.iter().map(|stage| match stage {
            Stage::Rules(rules) => rules.evaluate(&flow),
            Stage::Guest(_) => PolicyVerdict::Skip,
        });
        let verdict = rules.find(|verdict| *verdict != PolicyVerdict::Skip);
        let is_denied = verdict == Some(PolicyVerdict::Deny);
        if is_there && !is_denied {
            if let Some(entry) = self.flows.entry_mut(id) {
                entry.generation = generation;
            }
            return Ok(());
        }
        self.end_flow(id);
        Err(if is_denied { DropReason::PolicyDenied } else { DropReason::NoServer })
    }

    /// Puts a link header in front of the IP packet at `range`, towards the next hop to `destination`.
    fn link(
        &mut self,
        buffer: &mut [u8],
        own: MacAddress,
        out: InterfaceId,
        destination: Address,
        range: Range<usize>,
        now: Instant,
    ) -> Result<Range<usize>, DropReason> {
        let next = self.routes.next_hop_on(out, destination);
        let resolution = self.neighbours.resolve(out, next.v4_bytes(), now);
        if resolution.must_ask {
            self.ask_for(out, own, next);
        }
        let mac = resolution.mac.ok_or(DropReason::NeighbourUnresolved)?;
        let start = range.start.checked_sub(ethernet::HEADER_BYTES).ok_or(DropReason::Truncated)?;
        let place = buffer.get_mut(start..range.start).ok_or(DropReason::Truncated)?;
        place.copy_from_slice(ethernet::Header::new(mac, own, ethernet::TYPE_IPV4).as_bytes());
        Ok(start..range.end)
    }

    fn ask_for(&mut self, out: InterfaceId, own: MacAddress, next: Address) {
        let addresses = self.plan.interfaces.get(out.index()).map(|plan| plan.addresses.as_slice());
        let sender =
            addresses.and_then(|own| own.first()).map_or([0; 4], |own| Address::from(own.address).v4_bytes());
        let header = ethernet::Header::new(MacAddress::BROADCAST, own, ethernet::TYPE_ARP);
        let message = arp::Message::request(own, sender, next.v4_bytes());
        if !self.outbox.push(out, &[header.as_bytes(), message.as_bytes()]) {
            self.counters.born_lost += 1;
        }
    }

    /// Learns from an ARP message, and turns a question for one of our addresses into the answer.
    fn handle_arp(
        &mut self,
        frame: &mut [u8],
        own: MacAddress,
        interface: InterfaceId,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let (_, body) = ethernet::Header::split(frame)?;
        let message = arp::Message::split(body)?;
        let is_ours = self.directors.is_own(Address::v4(message.target_address()));
        let (address, mac) = (message.sender_address(), message.sender_mac());
        if address != [0; 4] {
            self.neighbours.learn(interface, address, mac, is_ours, now);
        }
        if !message.is_request() || !is_ours {
            return Ok(Verdict::Consume);
        }
        message.become_reply(own);
        let header = ethernet::Header::new(mac, own, ethernet::TYPE_ARP);
        if let Some(place) = frame.first_chunk_mut::<{ ethernet::HEADER_BYTES }>() {
            place.copy_from_slice(header.as_bytes());
        }
        Ok(Verdict::Answer(interface))
    }

    /// Turns a ping of one of our addresses into its answer, if a real server could serve the VIP.
    fn answer_echo(&mut self, ip: &mut ipv4::Packet<'_>, now: Instant) -> Result<(), DropReason> {
        let destination = ip.header.destination();
        let is_echo = ip.payload.first() == Some(&icmp::kind::ECHO_REQUEST);
        if !is_echo || !self.directors.is_own(destination) {
            return Err(DropReason::IcmpUnhandled);
        }
        if self.directors.is_served(destination) == Some(false) {
            return Err(DropReason::NoServer);
        }
        if !self.answers.take(now) {
            return Err(DropReason::AnswerLimited);
        }
        reply::echo(ip)
    }

    /// Sends an ICMP error about the IP packet at `range` back to where it came from, if that is allowed.
    pub(crate) fn send_error(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        range: Range<usize>,
        error: IcmpError,
        now: Instant,
    ) {
        let interface = packet.interface;
        let Some(plan) = self.plan.interfaces.get(interface.index()) else { return };
        let Some((before, rest)) = packet.buffer.split_at_mut_checked(range.start) else { return };
        let Some(bytes) = rest.get_mut(..range.len()) else { return };
        let Ok(ip) = ipv4::Packet::reopen(bytes) else { return };
        if !reply::may_send_error(&ip) || !self.answers.take(now) {
            return;
        }
        let destination = ip.header.destination();
        let source = if self.directors.is_own(destination) {
            Some(destination)
        } else {
            plan.addresses.first().map(|own| own.address.into())
        };
        let source = source.or_else(|| self.directors.any_address().map(Address::from));
        let Some(source) = source else { return };
        let (header, message, quoted) = reply::icmp_error(error, source.v4_bytes(), bytes);
        let quote = bytes.get(..quoted).unwrap_or_default();
        let parts = [header.as_bytes(), message.as_bytes(), quote];
        self.counters.born_lost +=
            u64::from(!send_back(&mut self.outbox, interface, plan.layer, before, parts));
    }

    /// Sends a reset to whoever sent the segment at `range`, if an answer is due.
    pub(crate) fn send_reset(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        range: Range<usize>,
        now: Instant,
    ) -> Result<(), DropReason> {
        let interface = packet.interface;
        let plan = self.plan.interfaces.get(interface.index()).ok_or(DropReason::UnknownInterface)?;
        let (before, rest) = packet.buffer.split_at_mut_checked(range.start).ok_or(DropReason::Truncated)?;
        let bytes = rest.get_mut(..range.len()).ok_or(DropReason::Truncated)?;
        let answer = reply::reset(&mut ipv4::Packet::reopen(bytes)?).ok_or(DropReason::NoFlow)?;
        if !self.answers.take(now) {
            return Err(DropReason::AnswerLimited);
        }
        let parts = [answer.as_slice(), &[], &[]];
        let is_queued = send_back(&mut self.outbox, interface, plan.layer, before, parts);
        self.counters.born_lost += u64::from(!is_queued);
        self.counters.resets += u64::from(is_queued);
        Ok(())
    }

    /// Lets every packet leave that may, in the order of arrival, and counts all ends.
    fn leave<D: Device>(&mut self, device: &mut D, walks: &[Walk]) -> usize {
        let mut sent = 0;
        for (slot, walk) in walks.iter().enumerate() {
            // Every walk has an end by now; one without would be a bug of ours, and the packet stays here.
            debug_assert!(walk.end.is_some(), "each pass gives an end to what it takes");
            let mut end = walk.end.unwrap_or(Verdict::Drop(DropReason::NoFlow));
            if let Verdict::Forward(out) | Verdict::Answer(out) = end
                && !device.forward(slot, out, walk.range.clone())
            {
                end = Verdict::Drop(DropReason::DeviceQueueFull);
            }
            match end {
                Verdict::Forward(_) => self.counters.forwarded += 1,
                Verdict::Answer(_) => self.counters.answered += 1,
                Verdict::Consume => self.counters.consumed += 1,
                Verdict::Drop(reason) => self.counters.count_drop(reason),
            }
            sent += usize::from(matches!(end, Verdict::Forward(_) | Verdict::Answer(_)));
        }
        sent
    }

    /// Notes that the flow table has become full, once until there is room again.
    pub(crate) fn note_full(&mut self) {
        if !self.was_full {
            self.was_full = true;
            self.push_event(Event::FlowTableFull { flows_max: self.plan.limits.flows_max });
        }
    }
}

/// Turns the link header of an answer around and gives the frame's place.
fn turn_frame(buffer: &mut [u8], layer: Layer, range: Range<usize>) -> Range<usize> {
    let Layer::Ethernet(own) = layer else { return range };
    let start = range.start.saturating_sub(ethernet::HEADER_BYTES);
    if let Some(place) = buffer.get_mut(start..range.start)
        && let Ok((header, _)) = ethernet::Header::split(place)
    {
        *header = ethernet::Header::new(header.source(), own, ethernet::TYPE_IPV4);
    }
    start..range.end
}

/// Queues a packet made of `parts` for the station that sent the packet behind `before`. Returns whether there was room.
fn send_back(
    outbox: &mut Outbox,
    interface: InterfaceId,
    layer: Layer,
    before: &mut [u8],
    parts: [&[u8]; 3],
) -> bool {
    let [first, second, third] = parts;
    let Layer::Ethernet(own) = layer else { return outbox.push(interface, &parts) };
    let frame = before.last_chunk_mut::<{ ethernet::HEADER_BYTES }>();
    let Some(Ok((link, _))) = frame.map(|frame| ethernet::Header::split(frame)) else { return false };
    let link = ethernet::Header::new(link.source(), own, ethernet::TYPE_IPV4);
    outbox.push(interface, &[link.as_bytes(), first, second, third])
}
