//! The Ethernet side of the way out: link headers, who-has questions and their answers in both families, packets that
//! wait for a neighbour.

use core::ops::Range;

use zerocopy::IntoBytes;

use crate::device::PacketBuffer;
use crate::director::Directors;
use crate::exit::{Exit, Hop, Linked, complete_checksum, own_mac};
use crate::neighbour::Question;
use crate::outbox::Kind;
use crate::plan::{Layer, Prefix};
use crate::time::Instant;
use crate::verdict::{DropReason, InterfaceId, Verdict};
use crate::walk::Walk;
use crate::wire::ethernet::{self, MacAddress};
use crate::wire::{Address, arp, ipv6, ndp};

impl Exit {
    /// Puts the link header that the way out wants in front of the IP packet of `walk`, or keeps the packet until its neighbour answers. `inner` is
    /// the packet that came in: the same, or what a tunnel has been put around.
    ///
    /// # Errors
    /// `NeighbourUnresolved` when there is no room to keep it, or it is a super-packet, which nobody would cut later.
    pub(crate) fn link(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &mut Walk,
        inner: Range<usize>,
        hop: Hop,
        directors: &Directors,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let range = walk.range.clone();
        let is_v6 = packet.buffer.get(range.start).is_some_and(|first| first >> 4 == 6);
        let kind = if is_v6 { ethernet::TYPE_IPV6 } else { ethernet::TYPE_IPV4 };
        let header = match self.next_link(hop, kind, directors, now)? {
            Linked::None => return Ok(Verdict::Forward(hop.out)),
            Linked::Header(header) => header,
            Linked::Unknown(next) => {
                if packet.offload.segment_bytes.is_some() {
                    return Err(DropReason::NeighbourUnresolved);
                }
                if packet.offload.needs_checksum {
                    // It leaves without the header that says so.
                    let bytes = packet.buffer.get_mut(inner).ok_or(DropReason::Truncated)?;
                    complete_checksum(bytes, walk);
                }
                let bytes = packet.buffer.get(range).ok_or(DropReason::Truncated)?;
                let is_kept = self.neighbours.hold(hop.out, next, bytes, now);
                return if is_kept { Ok(Verdict::Hold) } else { Err(DropReason::NeighbourUnresolved) };
            }
        };
        let start = range.start.checked_sub(ethernet::HEADER_BYTES).ok_or(DropReason::Truncated)?;
        let place = packet.buffer.get_mut(start..range.start).ok_or(DropReason::Truncated)?;
        place.copy_from_slice(header.as_bytes());
        walk.range = start..range.end;
        Ok(Verdict::Forward(hop.out))
    }

    /// What goes in front of a packet of this type that takes `hop`; asks for the neighbour where it has to.
    ///
    /// # Errors
    /// `NoRoute` when there is no such way.
    #[inline]
    pub(crate) fn next_link(
        &mut self,
        hop: Hop,
        kind: u16,
        directors: &Directors,
        now: Instant,
    ) -> Result<Linked, DropReason> {
        let way = self.ways.at(hop.way).ok_or(DropReason::NoRoute)?;
        let Layer::Ethernet(own) = way.layer else { return Ok(Linked::None) };
        let next = self.ways.next_hop(hop.way, hop.target);
        let resolution = self.neighbours.resolve(hop.out, next, now);
        if resolution.must_ask {
            self.ask_for(hop.out, own, next, Some(hop.source), directors);
        }
        let header = resolution.mac.map(|mac| Linked::Header(ethernet::Header::new(mac, own, kind)));
        Ok(header.unwrap_or(Linked::Unknown(next)))
    }

    /// Asks the link behind `out` who has `next`: in the name of the packet's sender where that is us, as hosts do.
    fn ask_for(
        &mut self,
        out: InterfaceId,
        own: MacAddress,
        next: Address,
        sender: Option<Address>,
        directors: &Directors,
    ) {
        let addresses = self.plan.interfaces.get(out.index()).map_or(&[][..], |plan| &plan.addresses);
        let ours = sender.filter(|sender| directors.is_own(*sender) && sender.is_v4() == next.is_v4());
        let near = |own: &&Prefix| own.contains(next.into());
        let kin = |own: &&Prefix| Address::from(own.address).is_v4() == next.is_v4();
        let own_address = addresses.iter().find(near).or_else(|| addresses.iter().find(kin));
        let sender = ours.or_else(|| own_address.map(|own| Address::from(own.address)));
        let is_queued = if next.is_v4() {
            let header = ethernet::Header::new(MacAddress::BROADCAST, own, ethernet::TYPE_ARP);
            let sender = sender.map_or([0; 4], Address::v4_bytes);
            let message = arp::Message::request(own, sender, next.v4_bytes());
            self.outbox.push(out, Kind::Born, &[header.as_bytes(), message.as_bytes()])
        } else {
            let target = next.v6_bytes();
            let group = MacAddress::multicast_of(ndp::solicited_node(target));
            let header = ethernet::Header::new(group, own, ethernet::TYPE_IPV6);
            // Without an address there the link's own does: a question from `::` asks for something else.
            let sender = sender.map_or_else(|| ndp::link_local(own), Address::v6_bytes);
            let message = ndp::solicitation(own, sender, target);
            self.outbox.push(out, Kind::Born, &[header.as_bytes(), &message])
        };
        self.counters.born_lost += u64::from(!is_queued);
    }

    /// Learns from an ARP message, and turns a question for one of our addresses into the answer. Gives `None` where the
    /// message is about others.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn handle_arp(
        &mut self,
        frame: &mut [u8],
        own: MacAddress,
        interface: InterfaceId,
        directors: &Directors,
        now: Instant,
    ) -> Result<Option<Verdict>, DropReason> {
        let (_, body) = ethernet::Header::split(frame)?;
        let message = arp::Message::split(body)?;
        let (target, sender) = (Address::v4(message.target_address()), Address::v4(message.sender_address()));
        let mac = message.sender_mac();
        let is_ours = directors.is_own(target);
        if sender.is_station() && !directors.is_own(sender) {
            self.neighbours.learn(interface, sender, mac, is_ours, now);
        }
        if !message.is_request() || !is_ours {
            return Ok(is_ours.then_some(Verdict::Consume));
        }
        message.become_reply(own);
        let header = ethernet::Header::new(mac, own, ethernet::TYPE_ARP);
        if let Some(place) = frame.first_chunk_mut::<{ ethernet::HEADER_BYTES }>() {
            place.copy_from_slice(header.as_bytes());
        }
        Ok(Some(Verdict::Answer(interface)))
    }

    /// Learns from a message of neighbour discovery, and answers a question for one of our addresses. Gives `None` where
    /// the message is about others.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn handle_ndp(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &Walk,
        own: MacAddress,
        directors: &Directors,
        now: Instant,
    ) -> Result<Option<Verdict>, DropReason> {
        let interface = packet.interface;
        let bytes = packet.buffer.get_mut(walk.range.clone()).ok_or(DropReason::Truncated)?;
        let (header, payload) = ipv6::Packet::reopen(bytes, walk.layer_4)?;
        let (source, destination) = (header.source(), header.destination());
        let is_from_link = header.hop_limit() == 255;
        let message = ndp::Message::parse(payload, source.v6_bytes(), destination.v6_bytes(), is_from_link)?;
        let is_ours = directors.is_own(message.target());
        match message.kind() {
            ndp::Kind::Advertisement => {
                let is_news =
                    message.is_override() || self.neighbours.mac(interface, message.target()).is_none();
                if let Some(mac) = message.target_mac()
                    && is_news
                    && !is_ours
                {
                    self.neighbours.learn(interface, message.target(), mac, false, now);
                }
                let is_to_us =
                    directors.is_own(destination) || destination == Address::v6(ndp::link_local(own));
                Ok(is_to_us.then_some(Verdict::Consume))
            }
            ndp::Kind::Solicitation if !is_ours => Ok(None),
            ndp::Kind::Solicitation => {
                if let Some(mac) = message.source_mac()
                    && source.is_station()
                {
                    self.neighbours.learn(interface, source, mac, true, now);
                }
                let to = message.source_mac().filter(|_| source.is_station());
                let to = to.unwrap_or(MacAddress::multicast_of(ndp::ALL_NODES));
                let header = ethernet::Header::new(to, own, ethernet::TYPE_IPV6);
                let answer = ndp::advertisement(own, message.target().v6_bytes(), source.v6_bytes());
                let is_queued = self.outbox.push(interface, Kind::Born, &[header.as_bytes(), &answer]);
                self.counters.born_lost += u64::from(!is_queued);
                Ok(Some(Verdict::Consume))
            }
        }
    }

    /// Tells every link where our addresses are: after a start, a change, or a take-over.
    pub(crate) fn announce(&mut self, addresses: impl Iterator<Item = Address>) {
        for address in addresses {
            let is_near = |own: &Prefix| own.contains(address.into());
            let is_anywhere = self.plan.interfaces.iter().any(|plan| plan.addresses.iter().any(is_near));
            for (plan, number) in self.plan.interfaces.iter().zip(0_u16..) {
                let Some(own) = own_mac(plan.layer) else { continue };
                if is_anywhere && !plan.addresses.iter().any(is_near) {
                    continue;
                }
                let out = InterfaceId(number);
                let is_queued = if address.is_v4() {
                    let header = ethernet::Header::new(MacAddress::BROADCAST, own, ethernet::TYPE_ARP);
                    let message = arp::Message::announcement(own, address.v4_bytes());
                    self.outbox.push(out, Kind::Born, &[header.as_bytes(), message.as_bytes()])
                } else {
                    let all = MacAddress::multicast_of(ndp::ALL_NODES);
                    let header = ethernet::Header::new(all, own, ethernet::TYPE_IPV6);
                    let message = ndp::announcement(own, address.v6_bytes());
                    self.outbox.push(out, Kind::Born, &[header.as_bytes(), &message])
                };
                self.counters.born_lost += u64::from(!is_queued);
            }
        }
    }

    /// Lets packets go on whose neighbours have answered, and asks again for the others.
    pub(crate) fn release(&mut self) {
        while let Some((out, mac, packet)) = self.neighbours.poll_released() {
            let own = self.plan.interfaces.get(out.index()).and_then(|plan| own_mac(plan.layer));
            let is_v6 = packet.first().is_some_and(|first| first >> 4 == 6);
            let kind = if is_v6 { ethernet::TYPE_IPV6 } else { ethernet::TYPE_IPV4 };
            let header = own.map(|own| ethernet::Header::new(mac, own, kind));
            let header = header.as_ref().map_or(&[][..], IntoBytes::as_bytes);
            self.counters.waiting = self.counters.waiting.saturating_sub(1);
            if !self.outbox.push(out, Kind::Released, &[header, &packet]) {
                self.counters.count_drop(DropReason::DeviceQueueFull);
            }
        }
    }

    /// Asks again for neighbours that have not answered, and gives up packets that have waited too long.
    pub(crate) fn age_neighbours(&mut self, directors: &Directors, now: Instant) {
        let questions = self.neighbours.handle_timeout(now);
        let given_up = self.neighbours.take_expired();
        self.counters.give_up(DropReason::NeighbourUnresolved, given_up);
        for Question { interface: out, address: next } in questions {
            let own = self.plan.interfaces.get(out.index()).and_then(|plan| own_mac(plan.layer));
            if let Some(own) = own {
                self.ask_for(out, own, next, None, directors);
            }
        }
    }
}
