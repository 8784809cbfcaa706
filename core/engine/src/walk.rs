//! A batch's walk through the engine: known flows straight to translation, the others through [`open`](crate::open).
//!
//! Four passes over the batch, so that what one packet waits for from memory, the next ones wait for at the same
//! time: read headers and look into the index; touch the entries; translate known flows; open new flows. Then
//! every packet leaves in the order in which it came.

use core::ops::Range;

use crate::device::{BATCH_MAX, Device, PacketBuffer};
use crate::engine::{Engine, Stage};
use crate::event::Event;
use crate::flow::{Direction, FlowId};
use crate::nat::rewrite;
use crate::plan::Layer;
use crate::policy::{PolicyFlow, PolicyVerdict};
use crate::reply::{self, IcmpError};
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
    /// What the index said first; later what the entry said. Read to warm the cache.
    pub(crate) hint: u32,
}

impl Walk {
    fn ended(verdict: Verdict, interface: InterfaceId, range: Range<usize>) -> Self {
        let end = Some(verdict);
        let (tuple, flags) = (FiveTuple::default(), Flags::default());
        Self { end, range, tuple, hash: 0, interface, flags, hint: 0 }
    }
}

/// What the headers of a packet say: where the IP packet lies, and what kind of walk follows.
enum Entrance {
    Flow { range: Range<usize>, tuple: FiveTuple, flags: Flags },
    Ended { range: Range<usize>, verdict: Verdict },
}

impl Engine {
    /// Walks the `received` packets of `device` through the engine. Returns how many left.
    pub fn handle_batch<D: Device>(&mut self, device: &mut D, received: usize, now: Instant) -> usize {
        let now = self.tick(now);
        debug_assert!(received <= BATCH_MAX, "a device keeps to the bound");
        let mut walks = core::mem::take(&mut self.walks);
        walks.clear();
        for slot in 0..received.min(BATCH_MAX) {
            walks.push(self.enter(&mut device.packet(slot), now));
        }
        for walk in &mut walks {
            walk.hint = self.flows.touch_entry(walk.hint);
        }
        let mut has_new = false;
        for (slot, walk) in walks.iter_mut().enumerate() {
            if walk.end.is_none() {
                match self.find_flow(walk, now) {
                    Some((id, direction)) => self.pass(&mut device.packet(slot), walk, id, direction, now),
                    None => has_new = true,
                }
            }
        }
        if has_new {
            self.open_flows(device, &mut walks, now);
        }
        let sent = self.leave(device, &walks);
        self.walks = walks;
        sent
    }

    /// Reads the headers of one packet.
    fn enter(&mut self, packet: &mut PacketBuffer<'_>, now: Instant) -> Walk {
        self.counters.packets_in += 1;
        self.counters.bytes_in += packet.range.len() as u64;
        let interface = packet.interface;
        let whole = packet.range.clone();
        match self.read_headers(packet, now) {
            Ok(Entrance::Flow { range, tuple, flags }) => {
                let hash = tuple.hash(self.flows.key());
                let hint = self.flows.touch_index(hash);
                Walk { end: None, range, tuple, hash, interface, flags, hint }
            }
            Ok(Entrance::Ended { range, verdict }) => Walk::ended(verdict, interface, range),
            Err(reason) => Walk::ended(Verdict::Drop(reason), interface, whole),
        }
    }

    fn read_headers(&mut self, packet: &mut PacketBuffer<'_>, now: Instant) -> Result<Entrance, DropReason> {
        let interface = packet.interface;
        let layer = match self.plan.interfaces.get(interface.index()) {
            Some(plan) => plan.layer,
            None => return Err(DropReason::UnknownInterface),
        };
        let start = match layer {
            Layer::Ip => packet.range.start,
            Layer::Ethernet(own) => {
                let frame = packet.buffer.get_mut(packet.range.clone()).ok_or(DropReason::Truncated)?;
                let (header, _) = ethernet::Header::split(frame)?;
                let (to, kind) = (header.destination(), header.ethertype());
                if kind == ethernet::TYPE_ARP && (to == own || to.is_group()) {
                    let verdict = self.handle_arp(frame, own, interface, now)?;
                    return Ok(Entrance::Ended { range: packet.range.clone(), verdict });
                }
                if to != own {
                    return Err(DropReason::OtherHost);
                }
                if kind != ethernet::TYPE_IPV4 {
                    return Err(DropReason::NotIpv4);
                }
                packet.range.start + ethernet::HEADER_BYTES
            }
        };
        let bytes = packet.buffer.get_mut(start..packet.range.end).ok_or(DropReason::Truncated)?;
        let mut ip = ipv4::Packet::split(bytes)?;
        let range = start..start + usize::from(ip.header.total_length());
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
            Protocol::ICMP => {
                self.answer_echo(&mut ip, now)?;
                let range = self.turn_frame(packet.buffer, layer, range);
                return Ok(Entrance::Ended { range, verdict: Verdict::Answer(interface) });
            }
            _ => return Err(DropReason::UnknownProtocol),
        };
        let (source, destination) = (ip.header.source(), ip.header.destination());
        let tuple = FiveTuple { source, destination, source_port, destination_port, protocol };
        Ok(Entrance::Flow { range, tuple, flags })
    }

    /// The live flow of a packet. One that is over, or that its client opens anew, is taken out.
    pub(crate) fn find_flow(&mut self, walk: &Walk, now: Instant) -> Option<(FlowId, Direction)> {
        let (id, direction) = self.flows.find(walk.hash, &walk.tuple)?;
        let entry = self.flows.entry(id)?;
        let is_reopened =
            entry.state.is_over() && direction == Direction::Original && walk.flags.is_opening();
        if entry.expires <= now || is_reopened {
            self.end_flow(id);
            return None;
        }
        Some((id, direction))
    }

    /// Translates one packet of a known flow and settles where it leaves.
    pub(crate) fn pass(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &mut Walk,
        id: FlowId,
        direction: Direction,
        now: Instant,
    ) {
        walk.end = Some(match self.translate(packet, walk, id, direction, now) {
            Ok(interface) => Verdict::Forward(interface),
            Err(reason) => Verdict::Drop(reason),
        });
    }

    fn translate(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &mut Walk,
        id: FlowId,
        direction: Direction,
        now: Instant,
    ) -> Result<InterfaceId, DropReason> {
        self.revalidate(id)?;
        let Some(entry) = self.flows.entry_mut(id) else { return Err(DropReason::NoFlow) };
        let out = match direction {
            Direction::Original => entry.server_interface,
            Direction::Reply => entry.client_interface,
        };
        let bytes = packet.buffer.get_mut(walk.range.clone()).ok_or(DropReason::Truncated)?;
        let mut ip = ipv4::Packet::reopen(bytes)?;
        let length = ip.header.total_length();
        let Some(way_out) = self.plan.interfaces.get(out.index()) else { return Err(DropReason::NoRoute) };
        if ip.header.ttl() <= 1 {
            self.send_error(packet, walk.range.clone(), IcmpError::TtlExceeded, now);
            return Err(DropReason::TtlExceeded);
        }
        if length > way_out.mtu_bytes && packet.offload.segment_bytes.is_none() {
            let mtu = way_out.mtu_bytes;
            if ip.header.is_dont_fragment() {
                self.send_error(packet, walk.range.clone(), IcmpError::TooBig(mtu), now);
            }
            return Err(DropReason::TooBig);
        }
        let layer = way_out.layer;
        rewrite(&mut ip, entry, direction, packet.offload.needs_checksum);
        ip.header.decrement_ttl();
        let before = entry.state;
        let after = before.after(walk.flags, direction);
        entry.state = after;
        let lifetime = |state| self.lifetimes.get(state as usize).copied().unwrap_or(0);
        entry.expires = Instant::from_nanos(now.as_nanos().saturating_add(lifetime(after)));
        entry.bytes += u64::from(length);
        let (director, server_slot) = (entry.director, entry.server_slot);
        let to = entry.translated(direction).destination;
        match direction {
            Direction::Original => entry.packets_original = entry.packets_original.wrapping_add(1),
            Direction::Reply => entry.packets_reply = entry.packets_reply.wrapping_add(1),
        }
        if let Some(director) = self.directors.at_mut(director) {
            if let Some(server) = director.server_mut(server_slot) {
                let (packets, bytes) = match direction {
                    Direction::Original => (&mut server.packets_to, &mut server.bytes_to),
                    Direction::Reply => (&mut server.packets_from, &mut server.bytes_from),
                };
                *packets += 1;
                *bytes += u64::from(length);
            }
            if before != after {
                director.change_state(server_slot, before, after);
            }
        }
        if lifetime(after) < lifetime(before) {
            self.flows.reschedule(id);
        }
        walk.range = self.link(packet.buffer, layer, out, to, walk.range.clone(), now)?;
        Ok(out)
    }

    /// Whether the plan in force still permits a flow of an older one; else the flow ends.
    fn revalidate(&mut self, id: FlowId) -> Result<(), DropReason> {
        let generation = self.generation;
        let Some(entry) = self.flows.entry(id) else { return Err(DropReason::NoFlow) };
        if entry.generation == generation {
            return Ok(());
        }
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

    /// Puts the link header for `next` in front of the IP packet at `range`, where the interface wants one.
    fn link(
        &mut self,
        buffer: &mut [u8],
        layer: Layer,
        out: InterfaceId,
        destination: Address,
        range: Range<usize>,
        now: Instant,
    ) -> Result<Range<usize>, DropReason> {
        let Layer::Ethernet(own) = layer else { return Ok(range) };
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

    /// Turns the link header of an answer around and gives the frame's place.
    pub(crate) fn turn_frame(&self, buffer: &mut [u8], layer: Layer, range: Range<usize>) -> Range<usize> {
        let Layer::Ethernet(own) = layer else { return range };
        let start = range.start.saturating_sub(ethernet::HEADER_BYTES);
        if let Some(place) = buffer.get_mut(start..range.start)
            && let Ok((header, _)) = ethernet::Header::split(place)
        {
            *header = ethernet::Header::new(header.source(), own, ethernet::TYPE_IPV4);
        }
        start..range.end
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
        let is_queued = match plan.layer {
            Layer::Ip => self.outbox.push(interface, &[header.as_bytes(), message.as_bytes(), quote]),
            Layer::Ethernet(own) => {
                let frame = before.last_chunk_mut::<{ ethernet::HEADER_BYTES }>();
                let Some(Ok((link, _))) = frame.map(|frame| ethernet::Header::split(frame)) else { return };
                let link = ethernet::Header::new(link.source(), own, ethernet::TYPE_IPV4);
                let parts = [link.as_bytes(), header.as_bytes(), message.as_bytes(), quote];
                self.outbox.push(interface, &parts)
            }
        };
        if !is_queued {
            self.counters.born_lost += 1;
        }
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
