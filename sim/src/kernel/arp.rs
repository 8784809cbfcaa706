//! ARP for IPv4 (RFC 826), as `net/ipv4/arp.c` of Linux answers and learns.

use evenkeel_engine::Instant;
use evenkeel_engine::device::HEADROOM_BYTES;
use evenkeel_engine::wire::Protocol;

use crate::packet::Packet;
use crate::wires::frame::{self, ETHERNET_BYTES, MacAddress};

use super::address::Ip;
use super::neighbours::Claim;
use super::routes::{DeviceId, Flow, Found};
use super::{Cast, Kernel, KernelDrop, Out, Up};

/// Bytes of a message for Ethernet and IPv4.
const MESSAGE_BYTES: usize = 28;
const REQUEST: u8 = 1;
const REPLY: u8 = 2;

/// A message.
#[derive(Clone, Copy, Debug)]
struct Message {
    is_reply: bool,
    sender_mac: MacAddress,
    sender: Ip,
    target_mac: MacAddress,
    target: Ip,
}

impl Message {
    fn read(bytes: &[u8]) -> Option<Self> {
        let [h0, h1, p0, p1, h, p, o, operation, rest @ ..] = bytes.first_chunk::<MESSAGE_BYTES>()?;
        let is_known = [*h0, *h1, *p0, *p1, *h, *p, *o] == [0, 1, 8, 0, 6, 4, 0];
        if !is_known || !matches!(*operation, REQUEST | REPLY) {
            return None;
        }
        let [a0, a1, a2, a3, a4, a5, s0, s1, s2, s3, b0, b1, b2, b3, b4, b5, t0, t1, t2, t3] = *rest;
        Some(Self {
            is_reply: *operation == REPLY,
            sender_mac: MacAddress([a0, a1, a2, a3, a4, a5]),
            sender: Ip::of_v4(u32::from_be_bytes([s0, s1, s2, s3])),
            target_mac: MacAddress([b0, b1, b2, b3, b4, b5]),
            target: Ip::of_v4(u32::from_be_bytes([t0, t1, t2, t3])),
        })
    }

    /// The message in a frame to `destination`.
    fn frame(&self, destination: MacAddress, out: &mut Out) -> Packet {
        let mut packet = out.buffer().emptied(HEADROOM_BYTES - ETHERNET_BYTES);
        packet.extend(&frame::header_bytes(destination, self.sender_mac, frame::ARP));
        let operation = if self.is_reply { REPLY } else { REQUEST };
        packet.extend(&[0, 1, 8, 0, 6, 4, 0, operation]);
        packet.extend(&self.sender_mac.0);
        packet.extend(&self.sender.v4_octets());
        packet.extend(&self.target_mac.0);
        packet.extend(&self.target.v4_octets());
        packet
    }
}

impl Kernel {
    /// A frame with ARP has come in (`arp_process`).
    pub(super) fn receive_arp(
        &mut self,
        now: Instant,
        (device, cast): (DeviceId, Cast),
        packet: Packet,
        out: &mut Out,
    ) -> Option<Up> {
        let message = packet.bytes().get(ETHERNET_BYTES..).and_then(Message::read);
        let Some(message) = message else { return self.end(KernelDrop::Malformed, packet, out) };
        let is_odd = message.target.is_multicast()
            || message.target.is_loopback() && !self.device(device).joined.route_localnet;
        if !is_odd {
            self.process_arp(now, device, cast, &message, out);
        }
        self.consume(packet, out)
    }

    fn process_arp(&mut self, now: Instant, device: DeviceId, cast: Cast, message: &Message, out: &mut Out) {
        if message.sender == Ip::V4_ANY {
            // Somebody asks whether an address is free (RFC 5227 s.2.1.1).
            let is_own = self.routing.is_own(message.target);
            if !message.is_reply && is_own && !self.ignores_request(device, message.sender, message.target) {
                self.reply_arp(device, message, out);
            }
            return;
        }
        if !message.is_reply && self.answer_arp(now, device, message, out) {
            return;
        }
        self.learn_from_arp(now, device, cast, message, out);
    }

    /// Answers a request for an address of this machine, or of one that it speaks for. Says whether that is all that is to
    /// be done with the message.
    fn answer_arp(&mut self, now: Instant, device: DeviceId, message: &Message, out: &mut Out) -> bool {
        let Message { sender, target, .. } = *message;
        let flow = Flow {
            inlet: device,
            source: sender,
            destination: target,
            protocol: Protocol(0),
            ports: (0, 0),
            mark: 0,
        };
        if sender.is_multicast() || sender == Ip::V4_BROADCAST || sender.is_zero_net() || sender.is_loopback()
        {
            return false;
        }
        match self.routing.lookup(&flow, None) {
            Found::Local(_) => {
                if self.check_source(&flow, None).is_err() {
                    return false;
                }
                if self.ignores_request(device, sender, target) || self.filters_request(device, sender) {
                    self.counts.requests_ignored += 1;
                } else if self.hear(now, device, message, out) {
                    self.reply_arp(device, message, out);
                }
                true
            }
            Found::Unicast(entry) if self.forwards_v4 => {
                let outlet = entry.choose(&flow, None, &self.routing, now).map(|hop| hop.device);
                let leads_elsewhere = outlet.is_some_and(|outlet| outlet != device);
                let speaks = self.device(device).joined.proxy_arp
                    || self.proxies.binary_search(&(device, target)).is_ok();
                if !leads_elsewhere || !speaks || self.check_source(&flow, outlet).is_err() {
                    return false;
                }
                if self.hear(now, device, message, out) {
                    self.reply_arp(device, message, out);
                }
                true
            }
            Found::Unicast(_)
            | Found::Broadcast(_)
            | Found::Blackhole
            | Found::Unreachable
            | Found::Prohibited
            | Found::Nothing => false,
        }
    }

    /// The sender of a request becomes a neighbour at once (`neigh_event_ns`).
    fn hear(&mut self, now: Instant, device: DeviceId, message: &Message, out: &mut Out) -> bool {
        let Some(own) = self.device(device).mac() else { return false };
        let (place, has_collected) = self.neighbours.make(device, own, message.sender, now);
        if has_collected {
            self.cache.clear();
        }
        let Some(place) = place else { return false };
        let claim = Claim { mac: message.sender_mac, is_answer: false, overrides: true, weakens: false };
        self.learn(now, place, claim, out);
        true
    }

    /// What a message says of its sender is believed where there is an entry, or `arp_accept` makes one.
    fn learn_from_arp(
        &mut self,
        now: Instant,
        device: DeviceId,
        cast: Cast,
        message: &Message,
        out: &mut Out,
    ) {
        let known = self.neighbours.find(device, message.sender);
        let accepts = self.device(device).joined.arp_accept;
        if known.is_none() && !accepts {
            return;
        }
        let is_elsewhere = self.routing.local(message.sender).is_none() && !message.sender.is_multicast();
        let is_gratuitous = message.sender == message.target
            && (!message.is_reply || message.target_mac == message.sender_mac)
            && is_elsewhere;
        let place = match known {
            Some(place) => place,
            None if is_gratuitous || message.is_reply && is_elsewhere => {
                let Some(own) = self.device(device).mac() else { return };
                let (Some(place), _) = self.neighbours.make(device, own, message.sender, now) else { return };
                place
            }
            None => return,
        };
        let claim = Claim {
            mac: message.sender_mac,
            is_answer: message.is_reply && cast == Cast::Host,
            overrides: is_gratuitous || self.neighbours.is_unlocked(place, now),
            weakens: false,
        };
        self.learn(now, place, claim, out);
    }

    /// A station has made itself known.
    pub(super) fn learn(&mut self, now: Instant, place: usize, claim: Claim, out: &mut Out) {
        self.redraw(now);
        let learned = self.neighbours.learn(place, claim, now);
        self.counts.neighbours_changed += u64::from(learned.is_changed);
        self.schedule(self.neighbours.due(place), super::Timer::Neighbour(place));
        if learned.is_new {
            self.release(now, place, out);
        }
    }

    fn reply_arp(&mut self, device: DeviceId, message: &Message, out: &mut Out) {
        let Some(own) = self.device(device).mac() else { return };
        let reply = Message {
            is_reply: true,
            sender_mac: own,
            sender: message.target,
            target_mac: message.sender_mac,
            target: message.sender,
        };
        self.counts.requests_answered += 1;
        let frame = reply.frame(message.sender_mac, out);
        self.transmit_own(device, frame, out);
    }

    /// Asks for the owner of an address: one station, or all (`arp_solicit`).
    pub(super) fn request_arp(
        &mut self,
        device: DeviceId,
        target: Ip,
        packet_source: Option<Ip>,
        known: Option<MacAddress>,
        out: &mut Out,
    ) {
        let Some(own) = self.device(device).mac() else { return };
        let sender = self.announced_source(device, target, packet_source).unwrap_or(Ip::V4_ANY);
        let request =
            Message { is_reply: false, sender_mac: own, sender, target_mac: MacAddress::default(), target };
        let frame = request.frame(known.unwrap_or(MacAddress::BROADCAST), out);
        self.transmit_own(device, frame, out);
    }

    /// Tells a network that this machine has an address.
    pub(super) fn announce_on(&mut self, now: Instant, device: DeviceId, address: Ip, out: &mut Out) {
        let Some(own) = self.device(device).mac() else { return };
        if self.routing.is_up.get(usize::from(device)) != Some(&true) {
            return;
        }
        if !address.is_v4() {
            return self.advertise_all(now, device, address, out);
        }
        let request = Message {
            is_reply: false,
            sender_mac: own,
            sender: address,
            target_mac: MacAddress::default(),
            target: address,
        };
        let frame = request.frame(MacAddress::BROADCAST, out);
        self.transmit_own(device, frame, out);
    }
}
