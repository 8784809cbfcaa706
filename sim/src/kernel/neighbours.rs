//! Who has which link address: the neighbour cache of Linux, for ARP and neighbour discovery.
//!
//! ```text
//! incomplete --answer--> reachable --30 s--> delay (if used of late) --5 s--> probe --answer--> reachable
//!      `--3 s--> failed              `-----> stale --used--> delay               `--3 s--> failed
//! ```
//! In: what is asked for, what stations say, and the time. Out: link addresses, and what is due. It makes no packets:
//! whoever calls sends the requests that it asks for, and packets that may leave.

use std::collections::{BTreeMap, VecDeque};

use evenkeel_engine::{Duration, Instant};
use slab::Slab;

use crate::packet::Packet;
use crate::wires::frame::{self, ETHERNET_BYTES, MacAddress};

use super::address::Ip;
use super::routes::DeviceId;

/// The least time between two requests for the same neighbour (`retrans_time_ms`).
pub(super) const RETRANSMIT: Duration = Duration::from_secs(1);
/// How long a neighbour that is used while its answer is old may be confirmed before it is asked (`delay_first_probe_time`).
const DELAY_PROBE: Duration = Duration::from_secs(5);
/// Requests to one station that stay unanswered, and to all (`ucast_solicit`, `mcast_solicit`).
const PROBES: u8 = 3;
/// How long a link address stays before an answer with another one is believed (`locktime`).
const LOCK: Duration = Duration::from_secs(1);
/// How long a neighbour that nobody uses is kept once there are many (`gc_stale_time`).
const GC_STALE: Duration = Duration::from_secs(60);
/// The number of neighbours up to which all are kept (`gc_thresh1`).
const GC_FROM: usize = 128;
/// The least time between two looks for neighbours to forget (`gc_interval` of old, half the reachable time today).
const GC_INTERVAL: Duration = Duration::from_secs(15);
/// Packets that wait for one neighbour (`unres_qlen`): the oldest gives way.
const WAITING_MAX: usize = 101;

/// What is known of a neighbour. Those from `Reachable` on have a link address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NeighbourState {
    /// Nobody has been asked.
    None,
    /// All have been asked.
    Incomplete,
    /// Nobody has answered.
    Failed,
    /// It has answered lately.
    Reachable,
    /// It has not, and is not used.
    Stale,
    /// It has not, is used, and will be asked if it does not confirm.
    Delay,
    /// It is being asked.
    Probe,
}

impl NeighbourState {
    const fn is_valid(self) -> bool {
        matches!(self, Self::Reachable | Self::Stale | Self::Delay | Self::Probe)
    }

    const fn has_timer(self) -> bool {
        matches!(self, Self::Incomplete | Self::Reachable | Self::Delay | Self::Probe)
    }
}

/// A packet that waits, and the device that it came in by.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) packet: Packet,
    pub(super) inlet: DeviceId,
}

#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) device: DeviceId,
    pub(super) address: Ip,
    pub(super) state: NeighbourState,
    /// The Ethernet header of packets to it.
    pub(super) header: [u8; ETHERNET_BYTES],
    own: MacAddress,
    mac: MacAddress,
    used: Instant,
    confirmed: Instant,
    updated: Instant,
    probes: u8,
    /// When it is looked at.
    due: Instant,
    pub(super) waiting: VecDeque<Waiting>,
}

impl Neighbour {
    pub(super) const fn mac(&self) -> MacAddress {
        self.mac
    }

    /// Whether packets to it leave at once; it is taken as used then.
    #[inline]
    pub(super) const fn use_now(&mut self, now: Instant) -> bool {
        let is_known =
            matches!(self.state, NeighbourState::Reachable | NeighbourState::Delay | NeighbourState::Probe);
        if is_known {
            self.used = now;
        }
        is_known
    }

    fn set_mac(&mut self, mac: MacAddress) {
        self.mac = mac;
        let ethertype = if self.address.is_v4() { frame::IPV4 } else { frame::IPV6 };
        self.header = frame::header_bytes(mac, self.own, ethertype);
    }
}

/// What to do with a packet for a neighbour.
#[derive(Debug)]
pub(super) enum Sending {
    /// It leaves, and the neighbour is to be looked at later.
    Starts,
    /// It waits, and the neighbour is to be asked for, if so said. Another one may have had to give way.
    Waits { ask: bool, displaced: Option<Packet> },
}

/// What a look at a neighbour has come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// All are asked, or the one that was last known.
    Ask,
    /// Nobody answers: what waits ends.
    Failed,
}

/// How a station has made itself known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) mac: MacAddress,
    /// It has answered us; else it only said something.
    pub(super) is_answer: bool,
    /// A new link address takes the place of another at once.
    pub(super) overrides: bool,
    /// Where it does not: a neighbour that was reachable becomes stale.
    pub(super) weakens: bool,
}

/// What a claim has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Learned {
    /// Packets that wait may leave.
    pub(super) is_new: bool,
    /// It has another link address than before.
    pub(super) is_changed: bool,
}

/// The neighbours of a machine.
#[derive(Debug)]
pub(super) struct Neighbours {
    pub(super) all: Slab<Neighbour>,
    places: BTreeMap<(DeviceId, Ip), usize>,
    max: usize,
    reachable: Duration,
    last_gc: Instant,
}

impl Neighbours {
    pub(super) const fn new(max: usize, reachable: Duration) -> Self {
        Self { all: Slab::new(), places: BTreeMap::new(), max, reachable, last_gc: Instant::ZERO }
    }

    pub(super) const fn set_reachable(&mut self, reachable: Duration) {
        self.reachable = reachable;
    }

    pub(super) fn find(&self, device: DeviceId, address: Ip) -> Option<usize> {
        self.places.get(&(device, address)).copied()
    }

    /// The neighbour with this address, made where there is none and room. Says too whether others had to go.
    pub(super) fn make(
        &mut self,
        device: DeviceId,
        own: MacAddress,
        address: Ip,
        now: Instant,
    ) -> (Option<usize>, bool) {
        if let Some(place) = self.find(device, address) {
            return (Some(place), false);
        }
        let has_collected = self.collect(now);
        if self.all.len() >= self.max {
            return (None, has_collected);
        }
        let mut neighbour = Neighbour {
            device,
            address,
            state: NeighbourState::None,
            header: [0; ETHERNET_BYTES],
            own,
            mac: MacAddress::default(),
            used: now,
            confirmed: Instant::ZERO,
            updated: now,
            probes: 0,
            due: Instant::NEVER,
            waiting: VecDeque::new(),
        };
        if address.is_multicast() {
            neighbour.set_mac(address.group());
            neighbour.state = NeighbourState::Reachable;
        } else if address == Ip::V4_BROADCAST {
            neighbour.set_mac(MacAddress::BROADCAST);
            neighbour.state = NeighbourState::Reachable;
        }
        let place = self.all.insert(neighbour);
        self.places.insert((device, address), place);
        (Some(place), has_collected)
    }

    /// Forgets neighbours where there are many: first those that nobody has used for a while, and all idle ones where
    /// the table is full.
    fn collect(&mut self, now: Instant) -> bool {
        let is_full = self.all.len() >= self.max;
        let is_time = now.since(self.last_gc) >= GC_INTERVAL;
        if self.all.len() < GC_FROM.min(self.max) || !(is_full || is_time) {
            return false;
        }
        self.last_gc = now;
        let before = self.all.len();
        let places = &mut self.places;
        self.all.retain(|_, neighbour| {
            let is_idle = neighbour.waiting.is_empty() && !neighbour.state.has_timer();
            let is_old = now.since(neighbour.used) >= GC_STALE
                || neighbour.state == NeighbourState::Failed
                || is_full && now.since(neighbour.updated) >= DELAY_PROBE;
            if is_idle && is_old {
                places.remove(&(neighbour.device, neighbour.address));
            }
            !(is_idle && is_old)
        });
        before != self.all.len()
    }

    /// A packet is to go to a neighbour whose packets do not leave at once. It is taken where it has to wait.
    pub(super) fn send(
        &mut self,
        place: usize,
        packet: &mut Packet,
        inlet: DeviceId,
        now: Instant,
    ) -> Option<Sending> {
        let neighbour = self.all.get_mut(place)?;
        neighbour.used = now;
        if neighbour.state == NeighbourState::Stale {
            neighbour.state = NeighbourState::Delay;
            neighbour.updated = now;
            neighbour.due = now.after(DELAY_PROBE);
            return Some(Sending::Starts);
        }
        let ask = neighbour.state != NeighbourState::Incomplete;
        if ask {
            // As in Linux the requests to one station count as sent already.
            neighbour.probes = PROBES;
            neighbour.state = NeighbourState::Incomplete;
            neighbour.updated = now;
            neighbour.due = now.after(RETRANSMIT);
        }
        let displaced = (neighbour.waiting.len() >= WAITING_MAX)
            .then(|| neighbour.waiting.pop_front())
            .flatten()
            .map(|waiting| waiting.packet);
        neighbour.waiting.push_back(Waiting { packet: std::mem::take(packet), inlet });
        Some(Sending::Waits { ask, displaced })
    }

    /// A request has been sent; gives the station to which, where it was not to all.
    pub(super) fn asked(&mut self, place: usize) -> Option<MacAddress> {
        let neighbour = self.all.get_mut(place)?;
        let is_to_one = neighbour.probes < PROBES && neighbour.state == NeighbourState::Probe;
        neighbour.probes = neighbour.probes.saturating_add(1);
        is_to_one.then_some(neighbour.mac)
    }

    /// A station says that it has the address of this neighbour (`neigh_update`).
    pub(super) fn learn(&mut self, place: usize, claim: Claim, now: Instant) -> Learned {
        let reachable = self.reachable;
        let Some(neighbour) = self.all.get_mut(place) else { return Learned::default() };
        let old = neighbour.state;
        let is_same = neighbour.mac == claim.mac;
        let mut mac = claim.mac;
        let mut new = if claim.is_answer { NeighbourState::Reachable } else { NeighbourState::Stale };
        if claim.is_answer {
            neighbour.confirmed = now;
        }
        if old.is_valid() {
            if !is_same && !claim.overrides {
                if !claim.weakens || old != NeighbourState::Reachable {
                    return Learned::default();
                }
                (mac, new) = (neighbour.mac, NeighbourState::Stale);
            } else if is_same && !claim.is_answer {
                new = old;
            }
        }
        let is_changed = mac != neighbour.mac;
        if new != old || is_changed {
            neighbour.updated = now;
        }
        // A neighbour that is confirmed again is looked at when it would have been: that is found out then.
        if new != old {
            neighbour.state = new;
            let is_reachable = new == NeighbourState::Reachable;
            neighbour.due = if is_reachable { now.after(reachable) } else { Instant::NEVER };
        }
        if is_changed {
            neighbour.set_mac(mac);
        }
        Learned { is_new: !old.is_valid(), is_changed: is_changed && old.is_valid() }
    }

    /// Whether an answer with another link address would be believed: the last change is some time ago.
    pub(super) fn is_unlocked(&self, place: usize, now: Instant) -> bool {
        self.all.get(place).is_none_or(|neighbour| now.since(neighbour.updated) > LOCK)
    }

    /// Something of layer 4 shows that this neighbour takes our packets.
    pub(super) fn confirm(&mut self, place: usize, now: Instant) {
        if let Some(neighbour) = self.all.get_mut(place) {
            neighbour.confirmed = now;
        }
    }

    /// When this neighbour is to be looked at.
    pub(super) fn due(&self, place: usize) -> Instant {
        self.all.get(place).map_or(Instant::NEVER, |neighbour| neighbour.due)
    }

    /// Looks at a neighbour whose time has come (`neigh_timer_handler`).
    pub(super) fn look(&mut self, place: usize, now: Instant) -> Due {
        let reachable = self.reachable;
        let Some(neighbour) = self.all.get_mut(place).filter(|neighbour| neighbour.due <= now) else {
            return Due::Nothing;
        };
        let asks = |neighbour: &mut Neighbour| {
            neighbour.due = now.after(RETRANSMIT);
            Due::Ask
        };
        match neighbour.state {
            NeighbourState::Reachable => {
                if now <= neighbour.confirmed.after(reachable)
                    && neighbour.confirmed.after(reachable) > neighbour.due
                {
                    neighbour.due = neighbour.confirmed.after(reachable);
                } else if now <= neighbour.used.after(DELAY_PROBE) {
                    neighbour.state = NeighbourState::Delay;
                    neighbour.updated = now;
                    neighbour.due = now.after(DELAY_PROBE);
                } else {
                    neighbour.state = NeighbourState::Stale;
                    neighbour.updated = now;
                    neighbour.due = Instant::NEVER;
                }
                Due::Nothing
            }
            NeighbourState::Delay => {
                neighbour.updated = now;
                if now <= neighbour.confirmed.after(DELAY_PROBE) {
                    neighbour.state = NeighbourState::Reachable;
                    neighbour.due = neighbour.confirmed.after(reachable);
                    return Due::Nothing;
                }
                neighbour.state = NeighbourState::Probe;
                neighbour.probes = 0;
                asks(neighbour)
            }
            NeighbourState::Incomplete | NeighbourState::Probe => {
                let max = if neighbour.state == NeighbourState::Probe { PROBES } else { 2 * PROBES };
                if neighbour.probes < max {
                    return asks(neighbour);
                }
                neighbour.state = NeighbourState::Failed;
                neighbour.updated = now;
                neighbour.due = Instant::NEVER;
                Due::Failed
            }
            NeighbourState::None | NeighbourState::Failed | NeighbourState::Stale => {
                neighbour.due = Instant::NEVER;
                Due::Nothing
            }
        }
    }

    /// Forgets the neighbours of a device; gives what waited for them.
    pub(super) fn flush(&mut self, device: DeviceId) -> Vec<Packet> {
        let mut waiting = Vec::new();
        self.all.retain(|_, neighbour| {
            if neighbour.device == device {
                waiting.extend(neighbour.waiting.drain(..).map(|waiting| waiting.packet));
            }
            neighbour.device != device
        });
        self.places.retain(|(owner, _), _| *owner != device);
        waiting
    }
}
