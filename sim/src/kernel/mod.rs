//! The network stack of a machine, as Linux has it: interfaces, addresses, ARP and neighbour discovery, rules and routes,
//! forwarding, fragments, ICMP, the ends of tunnels, and the source NAT of a home router.
//!
//! ```text
//! frame -> receive -> mine? -> [tunnel: again] -> Up::Host      programs -> send ----.
//!              |        `-> route -> Up::Tun      TUN -> from_tun -> route ----------+-> neighbour -> frame
//!              `-> ARP, neighbour discovery, echo -----------------------------------'
//! ```
//! It is pure: frames, packets and the time go in, frames and packets come out through [`Out`], and [`Kernel::deadline`]
//! says when [`Kernel::timeout`] is to be called. It knows no cable, no other machine and no clock. Its random numbers
//! come from streams with its name.
//!
//! Packets are IP packets inside, with their Ethernet header in front of their range. On the way of a known flow
//! nothing is allocated.

mod address;
mod arp;
mod cache;
mod configure;
mod drops;
mod fragments;
mod icmp;
mod input;
mod ip;
mod nat;
mod ndp;
mod neighbours;
mod out;
mod output;
mod plain;
pub mod plan;
mod routes;
mod selection;
mod spread;
#[cfg(test)]
mod tests;
mod tunnel;

use std::collections::BTreeSet;
use std::net::IpAddr;

use evenkeel_engine::{Duration, Instant};

use crate::packet::Packet;
use crate::random::Stream;
use crate::wires::frame::{self, MacAddress};

use self::address::{Ip, Net};
use self::cache::Cache;
use self::fragments::Assemblies;
use self::icmp::Limiter;
use self::nat::Nat;
use self::neighbours::Neighbours;
use self::plan::{KernelPlan, Sysctl, Tunnel};
use self::routes::{DeviceId, LOOPBACK, Routing};

pub use configure::KernelError;
pub use drops::{KernelCounts, KernelDrop};
pub use icmp::Refusal;
pub use neighbours::NeighbourState;
pub use out::{Out, Up};

/// How long the drawn reachable time holds (`neigh_periodic_work`).
const REDRAW: Duration = Duration::from_secs(300);

/// An address of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Own {
    net: Net,
    /// Another one of the same network came before it.
    is_secondary: bool,
}

#[derive(Clone, Debug)]
enum DeviceKind {
    Ethernet(MacAddress),
    Tun(u16),
    Tunnel(Tunnel),
    Loopback,
}

#[derive(Clone, Debug)]
struct Device {
    kind: DeviceKind,
    mtu: u16,
    addresses: Vec<Own>,
    link_local: Option<Ip>,
    /// Whether it is switched on.
    is_on: bool,
    /// Whether there is somebody at the other end of its cable.
    has_carrier: bool,
    sysctl: Sysctl,
    /// With those of `all`.
    joined: Sysctl,
}

impl Device {
    /// Whether packets can come and go by it.
    #[inline]
    const fn is_up(&self) -> bool {
        self.is_on && self.has_carrier
    }

    const fn mac(&self) -> Option<MacAddress> {
        match self.kind {
            DeviceKind::Ethernet(mac) => Some(mac),
            DeviceKind::Tun(_) | DeviceKind::Tunnel(_) | DeviceKind::Loopback => None,
        }
    }
}

/// Something that is looked at later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Neighbour(usize),
    Assembly(usize),
}

/// To whom a frame was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cast {
    Host,
    Group,
}

/// The network stack of a machine.
#[derive(Debug)]
pub struct Kernel {
    devices: Vec<Device>,
    loopback: Device,
    interfaces: usize,
    tuns: usize,
    all: Sysctl,
    forwards_v4: bool,
    forwards_v6: bool,
    routing: Routing,
    cache: Cache,
    neighbours: Neighbours,
    proxies: Vec<(DeviceId, Ip)>,
    timers: BTreeSet<(Instant, Timer)>,
    deadline: Instant,
    limiter: Limiter,
    assemblies: Assemblies,
    nats: Vec<Nat>,
    /// Whether a packet to the machine itself may be the outside of another one.
    has_tunnels: bool,
    reachable: Duration,
    draw: Stream,
    drawn: Instant,
    identification: u16,
    counts: KernelCounts,
}

impl Kernel {
    /// A machine that has just started. Its random numbers are those of its name under `seed`.
    ///
    /// # Errors
    /// When the plan names a device that is not there, or a router that is on no link.
    pub fn new(plan: &KernelPlan, seed: u64) -> Result<Self, KernelError> {
        let mut draw = Stream::new(seed, &plan.name, "neighbours");
        let mut salts = Stream::new(seed, &plan.name, "routing");
        let reachable = draw_reachable(&mut draw, plan.reachable);
        let devices = configure::devices(plan);
        let routing = Routing::new(devices.len(), salts.bits());
        let loopback = configure::loopback(plan);
        let mut kernel = Self {
            devices,
            loopback,
            interfaces: plan.interfaces.len(),
            tuns: plan.tuns.len(),
            all: plan.all,
            forwards_v4: plan.forwards_v4,
            forwards_v6: plan.forwards_v6,
            routing,
            cache: Cache::new(),
            neighbours: Neighbours::new(plan.neighbours_max, reachable),
            proxies: Vec::new(),
            timers: BTreeSet::new(),
            deadline: Instant::NEVER,
            limiter: Limiter::new(plan.icmp),
            assemblies: Assemblies::default(),
            nats: Vec::new(),
            has_tunnels: !plan.tunnels.is_empty(),
            reachable: plan.reachable,
            draw,
            drawn: Instant::ZERO,
            identification: u16::try_from(salts.below(1 << 16)).unwrap_or(0),
            counts: KernelCounts::default(),
        };
        kernel.apply(plan)?;
        Ok(kernel)
    }

    /// Tells the networks of the addresses that interfaces with `arp_notify` have: called once, at the start.
    pub fn start(&mut self, now: Instant, out: &mut Out) {
        for device in 0..self.interfaces {
            self.notify(now, device, out);
        }
    }

    /// A frame has come in by an interface.
    #[inline(always)]
    pub fn receive(
        &mut self,
        now: Instant,
        interface: usize,
        mut packet: Packet,
        out: &mut Out,
    ) -> Option<Up> {
        self.counts.received += 1;
        if let Some((inlet, plain)) = self.plain_frame(interface, &packet) {
            packet.take_front(frame::ETHERNET_BYTES);
            return self.pass_plain(now, inlet, plain, packet, out);
        }
        self.receive_any(now, interface, packet, out)
    }

    #[inline(never)]
    fn receive_any(
        &mut self,
        now: Instant,
        interface: usize,
        mut packet: Packet,
        out: &mut Out,
    ) -> Option<Up> {
        let inlet = DeviceId::try_from(interface).unwrap_or(LOOPBACK);
        let Some(Device { kind: DeviceKind::Ethernet(own), .. }) =
            self.devices.get(interface).filter(|device| device.is_up())
        else {
            return self.end(KernelDrop::InterfaceDown, packet, out);
        };
        let Some((destination, _, ethertype)) = frame::header(packet.bytes()) else {
            return self.end(KernelDrop::Malformed, packet, out);
        };
        let cast = if destination == *own {
            Cast::Host
        } else if destination.is_group() {
            Cast::Group
        } else {
            return self.end(KernelDrop::OtherHost, packet, out);
        };
        match ethertype {
            frame::IPV4 => {
                packet.take_front(frame::ETHERNET_BYTES);
                match ip::read_v4(&mut packet) {
                    Ok(head) => self.input(now, (inlet, cast), &head, packet, out),
                    Err(reason) => self.end(reason, packet, out),
                }
            }
            frame::IPV6 => {
                packet.take_front(frame::ETHERNET_BYTES);
                match ip::read_v6(&mut packet) {
                    Ok(head) => self.input(now, (inlet, cast), &head, packet, out),
                    Err(reason) => self.end(reason, packet, out),
                }
            }
            frame::ARP => self.receive_arp(now, (inlet, cast), packet, out),
            _ => self.end(KernelDrop::UnknownType, packet, out),
        }
    }

    /// A program of the machine sends an IP packet, whole and with all checksums.
    ///
    /// # Errors
    /// Why it has ended already. A program of Linux would get this as the error of its system call.
    pub fn send(&mut self, now: Instant, packet: Packet, out: &mut Out) -> Result<(), KernelDrop> {
        let up = self.send_at_once(now, packet, out)?;
        out.keep(up);
        Ok(())
    }

    /// The same; what becomes of the packet at once is given back.
    #[inline]
    pub(crate) fn send_at_once(
        &mut self,
        now: Instant,
        packet: Packet,
        out: &mut Out,
    ) -> Result<Option<Up>, KernelDrop> {
        if let Some(plain) = self.plain_packet(LOOPBACK, &packet) {
            self.counts.sent += 1;
            return Ok(self.pass_plain(now, LOOPBACK, plain, packet, out));
        }
        self.send_marked(now, packet, 0, out).map(|()| None)
    }

    /// The same, from a socket with a mark.
    ///
    /// # Errors
    /// As [`Kernel::send`].
    pub fn send_marked(
        &mut self,
        now: Instant,
        packet: Packet,
        mark: u32,
        out: &mut Out,
    ) -> Result<(), KernelDrop> {
        self.counts.sent += 1;
        self.output(now, packet, mark, out)
    }

    /// A program has written an IP packet to a TUN device.
    #[inline]
    pub fn receive_from_tun(
        &mut self,
        now: Instant,
        tun: usize,
        packet: Packet,
        out: &mut Out,
    ) -> Option<Up> {
        self.counts.from_tuns += 1;
        let place = self.interfaces + tun;
        let is_up = tun < self.tuns && self.routing.is_up.get(place) == Some(&true);
        let Some(inlet) = DeviceId::try_from(place).ok().filter(|_| is_up) else {
            return self.end(KernelDrop::InterfaceDown, packet, out);
        };
        if let Some(plain) = self.plain_packet(inlet, &packet) {
            return self.pass_plain(now, inlet, plain, packet, out);
        }
        self.receive_bare(now, inlet, packet, out)
    }

    #[inline(never)]
    fn receive_bare(
        &mut self,
        now: Instant,
        inlet: DeviceId,
        mut packet: Packet,
        out: &mut Out,
    ) -> Option<Up> {
        match ip::read(&mut packet) {
            Ok(head) => self.input(now, (inlet, Cast::Host), &head, packet, out),
            Err(reason) => self.end(reason, packet, out),
        }
    }

    /// When [`Kernel::timeout`] is to be called. May change with every call of something else.
    #[must_use]
    pub const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Does what is due.
    pub fn timeout(&mut self, now: Instant, out: &mut Out) {
        while let Some((at, timer)) = self.timers.first().copied() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            match timer {
                Timer::Neighbour(place) => self.look_at_neighbour(now, place, out),
                Timer::Assembly(place) => self.give_up_assembly(now, place, out),
            }
        }
        self.deadline = self.timers.first().map_or(Instant::NEVER, |(at, _)| *at);
    }

    /// The source that a packet to this destination gets where its sender leaves it open.
    #[must_use]
    pub fn source_for(&self, destination: IpAddr) -> Option<IpAddr> {
        self.select_source(destination.into()).map(IpAddr::from)
    }

    /// Whether an address is the machine's own.
    #[must_use]
    pub fn owns(&self, address: IpAddr) -> bool {
        self.routing.is_own(address.into())
    }

    /// The most bytes that a packet to this destination may have; `None` where no way leads there.
    #[must_use]
    pub fn mtu_to(&self, destination: IpAddr) -> Option<u16> {
        self.link_mtu(destination.into())
    }

    /// A program knows that packets to this destination arrive, as TCP does when an acknowledgement comes: the neighbour
    /// on the way need not be asked.
    pub fn confirm(&mut self, now: Instant, destination: IpAddr) {
        self.confirm_neighbour(now, destination.into());
    }

    /// What has happened so far.
    #[must_use]
    pub const fn counts(&self) -> &KernelCounts {
        &self.counts
    }

    /// What is known of the station with an address on an interface.
    #[must_use]
    pub fn neighbour(&self, interface: usize, address: IpAddr) -> Option<(NeighbourState, MacAddress)> {
        let device = DeviceId::try_from(interface).ok()?;
        let place = self.neighbours.find(device, address.into())?;
        self.neighbours.all.get(place).map(|neighbour| (neighbour.state, neighbour.mac()))
    }

    /// Mappings of the source NAT.
    #[must_use]
    pub fn mappings(&self) -> usize {
        self.nats.iter().map(Nat::len).sum()
    }

    /// Whether every packet that came in or was made here has had exactly one end.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        let KernelCounts { received, sent, from_tuns, born, split, transmitted, .. } = self.counts;
        let KernelCounts { to_host, to_tuns, consumed, waiting, .. } = self.counts;
        received + sent + from_tuns + born + split
            == transmitted + to_host + to_tuns + consumed + waiting + self.counts.dropped_all()
    }

    /// Packets that ended, by reason.
    pub fn drops(&self) -> impl Iterator<Item = (KernelDrop, u64)> + '_ {
        KernelDrop::ALL.iter().map(|reason| (*reason, self.counts.dropped(*reason)))
    }

    fn device(&self, id: DeviceId) -> &Device {
        self.devices.get(usize::from(id)).unwrap_or(&self.loopback)
    }

    /// A packet ends.
    #[cold]
    fn end(&mut self, reason: KernelDrop, packet: Packet, out: &mut Out) -> Option<Up> {
        self.counts.drop(reason);
        out.end(reason, packet);
        None
    }

    /// A packet has served.
    fn consume(&mut self, packet: Packet, out: &mut Out) -> Option<Up> {
        self.counts.consumed += 1;
        out.recycle(packet);
        None
    }

    fn schedule(&mut self, at: Instant, timer: Timer) {
        if at < Instant::NEVER {
            self.timers.insert((at, timer));
            self.deadline = self.deadline.min(at);
        }
    }

    /// The reachable time is drawn anew now and then, so that machines do not all ask at once.
    fn redraw(&mut self, now: Instant) {
        if now.since(self.drawn) > REDRAW {
            self.drawn = now;
            let reachable = draw_reachable(&mut self.draw, self.reachable);
            self.neighbours.set_reachable(reachable);
        }
    }
}

/// Between half and one and a half of the base (`neigh_rand_reach_time`).
fn draw_reachable(draw: &mut Stream, base: Duration) -> Duration {
    let base = u64::try_from(base.as_nanos()).unwrap_or(u64::MAX / 2);
    Duration::from_nanos(draw.below(base) + base / 2)
}
