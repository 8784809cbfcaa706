//! A switch: it learns who is behind which port, and sends a frame there, or everywhere where it does not know.
//!
//! A frame goes in by a port; out comes the list of ports by which it leaves, each with what becomes of its VLAN tag.
//! The switch holds no frames and takes no time: queues and delays are those of the cables.

use evenkeel_engine::{Duration, Instant};
use serde::Serialize;

use crate::packet::Packet;

use super::frame;

/// The VLAN of ports and frames that name none, as on any switch out of its box.
const DEFAULT_VLAN: u16 = 1;
/// Numbers of VLANs are below this; the last and 0 name none (IEEE 802.1Q).
const VLAN_END: u16 = 4_095;

/// How a switch is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchPlan {
    /// Its ports.
    pub ports: Vec<Membership>,
    /// How long an address is remembered that sends nothing. Default 300 s (IEEE 802.1D).
    pub age: Duration,
    /// The most addresses that are remembered. Default 8,192, as many as small switches hold.
    pub addresses_max: usize,
}

impl SwitchPlan {
    /// A switch with this many ports, all in one VLAN.
    #[must_use]
    pub fn plain(ports: usize) -> Self {
        Self { ports: vec![Membership::default(); ports], ..Self::default() }
    }
}

impl Default for SwitchPlan {
    fn default() -> Self {
        Self { ports: Vec::new(), age: Duration::from_secs(300), addresses_max: 8_192 }
    }
}

/// Which VLANs a port belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Membership {
    /// One, without tags on the cable. Frames that come with the tag of another are dropped.
    Access(u16),
    /// Several, with tags on the cable.
    Trunk {
        /// Those with tags.
        tagged: Vec<u16>,
        /// The one without, if any.
        native: Option<u16>,
    },
}

impl Default for Membership {
    fn default() -> Self {
        Self::Access(DEFAULT_VLAN)
    }
}

/// What becomes of the VLAN tag of a frame that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// It stays as it is, be it there or not.
    Keep,
    /// The frame gets the tag of this VLAN.
    Push(u16),
    /// The frame gets the tag of this VLAN instead of the one that it has, which names only a priority.
    Replace(u16),
    /// The frame loses its tag.
    Pop,
}

/// A way out of the switch for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The port.
    pub port: usize,
    /// What becomes of the frame's tag there.
    pub tag: Tag,
}

impl Exit {
    /// Gives a frame the tag that it has on the cable of this port.
    pub fn apply(&self, packet: &mut Packet) {
        match self.tag {
            Tag::Keep => {}
            Tag::Push(vlan) => frame::push_tag(packet, vlan),
            Tag::Replace(vlan) => {
                frame::pop_tag(packet);
                frame::push_tag(packet, vlan);
            }
            Tag::Pop => frame::pop_tag(packet),
        }
    }
}

/// Why a frame ended in a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SwitchDrop {
    /// It is shorter than an Ethernet header, or sent by a group of stations.
    Malformed,
    /// Its VLAN is not one of the port's.
    Vlan,
    /// It is for the switch itself, as spanning tree and pause frames are.
    Reserved,
    /// It would leave by the port that it came in by.
    SamePort,
    /// No other port of its VLAN is up.
    NoPort,
    /// The port that it came in by is down.
    Down,
}

impl SwitchDrop {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::Malformed, Self::Vlan, Self::Reserved, Self::SamePort, Self::NoPort, Self::Down];

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Vlan => "vlan",
            Self::Reserved => "reserved",
            Self::SamePort => "same-port",
            Self::NoPort => "no-port",
            Self::Down => "down",
        }
    }
}

/// What a switch has done so far. Frames that came in are those that left by one port, those that were flooded and
/// those that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SwitchCounts {
    /// Frames for an address that was known.
    pub forwarded: u64,
    /// Frames for everybody, or for an address that was not known.
    pub flooded: u64,
    /// Of those, frames for a single station that was not known.
    pub unknown: u64,
    /// Addresses that were seen for the first time.
    pub learned: u64,
    /// Addresses that were seen behind another port than before: a machine that moved, or two with one address.
    pub moved: u64,
    /// Addresses that found no room.
    pub table_full: u64,
    /// Frames that ended, in the order of [`SwitchDrop::ALL`].
    pub dropped: [u64; 6],
}

/// What a port has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PortCounts {
    /// Frames that came in.
    pub frames_in: u64,
    /// Frames that left.
    pub frames_out: u64,
}

/// One place of the table. A key of 0 is an empty place: no station has the address 0 in VLAN 0.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    key: u64,
    port: u32,
    seen: u64,
}

#[derive(Clone, Debug)]
struct Port {
    membership: Membership,
    is_up: bool,
    counts: PortCounts,
}

/// A switch.
#[derive(Clone, Debug)]
pub struct Switch {
    ports: Vec<Port>,
    age: u64,
    addresses_max: usize,
    /// Open addressing; its length is a power of two, and at most half of it is taken.
    table: Vec<Entry>,
    taken: usize,
    counts: SwitchCounts,
}

/// Places of an empty table.
const TABLE_MIN: usize = 16;

impl Switch {
    /// A switch that knows nobody. All its ports are up.
    #[must_use]
    pub fn new(plan: SwitchPlan) -> Self {
        let port = |membership| Port { membership, is_up: true, counts: PortCounts::default() };
        Self {
            ports: plan.ports.into_iter().map(port).collect(),
            age: u64::try_from(plan.age.as_nanos()).unwrap_or(u64::MAX),
            addresses_max: plan.addresses_max,
            table: vec![Entry::default(); TABLE_MIN],
            taken: 0,
            counts: SwitchCounts::default(),
        }
    }

    /// Takes a frame in and appends the ways out for it to `exits`.
    ///
    /// # Errors
    /// Why the frame ends here.
    pub fn forward(
        &mut self,
        port_in: usize,
        packet: &Packet,
        now: Instant,
        exits: &mut Vec<Exit>,
    ) -> Result<(), SwitchDrop> {
        let result = self.find_exits(port_in, packet.bytes(), now, exits);
        if let Err(reason) = result {
            let place = SwitchDrop::ALL.iter().position(|one| *one == reason);
            if let Some(count) = place.and_then(|place| self.counts.dropped.get_mut(place)) {
                *count += 1;
            }
        }
        result
    }

    /// Plugs a port in or out. What was known behind it is forgotten.
    pub fn set_up(&mut self, port: usize, is_up: bool) {
        if let Some(port) = self.ports.get_mut(port) {
            port.is_up = is_up;
        }
        if !is_up {
            self.rebuild(|entry| usize::try_from(entry.port) != Ok(port));
        }
    }

    /// Forgets every address.
    pub fn flush(&mut self) {
        self.rebuild(|_| false);
    }

    /// The port behind which a station was last seen, unless that is too long ago.
    #[must_use]
    pub fn port_of(&self, vlan: u16, address: frame::MacAddress, now: Instant) -> Option<usize> {
        let entry = self.find(key(vlan, address)).filter(|entry| self.is_fresh(entry, now))?;
        usize::try_from(entry.port).ok()
    }

    /// What has happened so far.
    #[must_use]
    pub const fn counts(&self) -> &SwitchCounts {
        &self.counts
    }

    /// What a port has seen.
    #[must_use]
    pub fn port_counts(&self, port: usize) -> Option<&PortCounts> {
        self.ports.get(port).map(|port| &port.counts)
    }

    /// How many ports there are.
    #[must_use]
    pub const fn ports(&self) -> usize {
        self.ports.len()
    }

    /// Addresses that are remembered, those included that are about to be forgotten.
    #[must_use]
    pub const fn addresses(&self) -> usize {
        self.taken
    }

    fn find_exits(
        &mut self,
        port_in: usize,
        bytes: &[u8],
        now: Instant,
        exits: &mut Vec<Exit>,
    ) -> Result<(), SwitchDrop> {
        let port = self.ports.get_mut(port_in).ok_or(SwitchDrop::NoPort)?;
        port.counts.frames_in += 1;
        if !port.is_up {
            return Err(SwitchDrop::Down);
        }
        let (destination, source, _) = frame::header(bytes).ok_or(SwitchDrop::Malformed)?;
        if source.is_group() || source.0 == [0; 6] {
            return Err(SwitchDrop::Malformed);
        }
        // IEEE 802.1D s.7.12.6: these do not pass a bridge.
        if let [0x01, 0x80, 0xc2, 0, 0, 0..=0x0f] = destination.0 {
            return Err(SwitchDrop::Reserved);
        }
        let tag = frame::vlan(bytes);
        let vlan = classify(&port.membership, tag)?;
        self.learn(key(vlan, source), port_in, now);
        if destination.is_group() {
            return self.flood(port_in, vlan, tag, exits);
        }
        let known = self.find(key(vlan, destination)).filter(|entry| self.is_fresh(entry, now));
        let known = known.and_then(|entry| usize::try_from(entry.port).ok());
        let Some(known) = known else {
            self.counts.unknown += 1;
            return self.flood(port_in, vlan, tag, exits);
        };
        if known == port_in {
            return Err(SwitchDrop::SamePort);
        }
        let port = self.ports.get_mut(known).ok_or(SwitchDrop::NoPort)?;
        let tag = tag_on(&port.membership, vlan, tag).ok_or(SwitchDrop::NoPort)?;
        port.counts.frames_out += 1;
        self.counts.forwarded += 1;
        exits.push(Exit { port: known, tag });
        Ok(())
    }

    fn flood(
        &mut self,
        port_in: usize,
        vlan: u16,
        tag: Option<u16>,
        exits: &mut Vec<Exit>,
    ) -> Result<(), SwitchDrop> {
        let before = exits.len();
        for (index, port) in self.ports.iter_mut().enumerate() {
            if index == port_in || !port.is_up {
                continue;
            }
            if let Some(tag) = tag_on(&port.membership, vlan, tag) {
                port.counts.frames_out += 1;
                exits.push(Exit { port: index, tag });
            }
        }
        if exits.len() == before {
            return Err(SwitchDrop::NoPort);
        }
        self.counts.flooded += 1;
        Ok(())
    }

    fn is_fresh(&self, entry: &Entry, now: Instant) -> bool {
        now.as_nanos().saturating_sub(entry.seen) < self.age
    }

    fn find(&self, key: u64) -> Option<&Entry> {
        let mut place = self.place(key);
        loop {
            let entry = self.table.get(place)?;
            if entry.key == key {
                return Some(entry);
            }
            if entry.key == 0 {
                return None;
            }
            place = (place + 1) & (self.table.len() - 1);
        }
    }

    fn learn(&mut self, key: u64, port: usize, now: Instant) {
        let port = u32::try_from(port).unwrap_or(u32::MAX);
        let is_fresh = |seen: u64| now.as_nanos().saturating_sub(seen) < self.age;
        let mut place = self.place(key);
        let mask = self.table.len() - 1;
        while let Some(entry) = self.table.get_mut(place) {
            if entry.key == key {
                self.counts.moved += u64::from(entry.port != port && is_fresh(entry.seen));
                (entry.port, entry.seen) = (port, now.as_nanos());
                return;
            }
            if entry.key == 0 {
                break;
            }
            place = (place + 1) & mask;
        }
        self.add(Entry { key, port, seen: now.as_nanos() }, now);
    }

    /// Puts in an address that is not there. What is too old leaves first where room is needed.
    fn add(&mut self, entry: Entry, now: Instant) {
        if self.taken >= self.addresses_max {
            let (now, age) = (now.as_nanos(), self.age);
            self.rebuild(|entry| now.saturating_sub(entry.seen) < age);
            if self.taken >= self.addresses_max {
                self.counts.table_full += 1;
                return;
            }
        }
        if (self.taken + 1) * 2 > self.table.len() {
            let doubled = vec![Entry::default(); self.table.len() * 2];
            let old = std::mem::replace(&mut self.table, doubled);
            self.put_all(old.into_iter().filter(|entry| entry.key != 0));
        }
        self.counts.learned += 1;
        self.taken += 1;
        self.put(entry);
    }

    /// Keeps only some addresses.
    fn rebuild(&mut self, keeps: impl Fn(&Entry) -> bool) {
        let empty = vec![Entry::default(); self.table.len()];
        let old = std::mem::replace(&mut self.table, empty);
        let kept: Vec<Entry> = old.into_iter().filter(|entry| entry.key != 0 && keeps(entry)).collect();
        self.taken = kept.len();
        self.put_all(kept.into_iter());
    }

    fn put_all(&mut self, entries: impl Iterator<Item = Entry>) {
        for entry in entries {
            self.put(entry);
        }
    }

    fn put(&mut self, entry: Entry) {
        let mut place = self.place(entry.key);
        let mask = self.table.len() - 1;
        while let Some(slot) = self.table.get_mut(place) {
            if slot.key == 0 {
                *slot = entry;
                return;
            }
            place = (place + 1) & mask;
        }
    }

    /// Where the search for a key begins: the high bits of a product with the golden ratio (Knuth, volume 3, s.6.4).
    fn place(&self, key: u64) -> usize {
        let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        usize::try_from(hash).unwrap_or(0) & (self.table.len() - 1)
    }
}

/// VLAN and address in one number.
fn key(vlan: u16, address: frame::MacAddress) -> u64 {
    let [a, b, c, d, e, f] = address.0;
    let [high, low] = vlan.to_be_bytes();
    u64::from_be_bytes([high, low, a, b, c, d, e, f])
}

/// The VLAN of a frame that comes in. A tag with number 0 names only a priority.
fn classify(membership: &Membership, tag: Option<u16>) -> Result<u16, SwitchDrop> {
    let found = match (membership, tag.filter(|vlan| *vlan != 0)) {
        (Membership::Access(vlan), None) => Some(*vlan),
        (Membership::Access(vlan), Some(named)) => (named == *vlan).then_some(named),
        (Membership::Trunk { native, .. }, None) => *native,
        (Membership::Trunk { tagged, native }, Some(named)) => {
            (tagged.contains(&named) || *native == Some(named)).then_some(named)
        }
    };
    found.filter(|vlan| (1..VLAN_END).contains(vlan)).ok_or(SwitchDrop::Vlan)
}

/// What becomes of a frame's tag on a port; `None` where the port is not of its VLAN.
fn tag_on(membership: &Membership, vlan: u16, tag: Option<u16>) -> Option<Tag> {
    let leaves_tagged = match membership {
        Membership::Access(own) => (*own == vlan).then_some(false),
        Membership::Trunk { native, .. } if *native == Some(vlan) => Some(false),
        Membership::Trunk { tagged, .. } => tagged.contains(&vlan).then_some(true),
    }?;
    Some(match (tag, leaves_tagged) {
        (None, false) => Tag::Keep,
        (None, true) => Tag::Push(vlan),
        (Some(0), true) => Tag::Replace(vlan),
        (Some(_), true) => Tag::Keep,
        (Some(_), false) => Tag::Pop,
    })
}
