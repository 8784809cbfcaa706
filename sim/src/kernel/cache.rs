//! What became of packets like this one: ways that have been found, so that the next packet need not look again.
//!
//! An array of rows with two places each; of three keys that share a row, the one that came first goes. What is found
//! does not depend on it: whatever changes a way empties the whole.
//!
//! A way is found by who talks to whom. Where rules read ports, that says which of them are read, and the way is found by
//! these as well:
//!
//! ```text
//! source, destination, ports, protocol, inlet -> way          plain packets
//! source, destination, inlet -> way                           all others, and the first plain ones
//!                            `-> source port? destination port? -> way
//! ```

use evenkeel_engine::wire::Protocol;

use super::address::Ip;
use super::drops::KernelDrop;
use super::ip::Head;
use super::routes::{DeviceId, PortsRead};
use crate::index::{hash, hash_pair};
use crate::net::index;
use crate::packet::Sound;

/// Rows of a new cache: a host with a few peers needs no more.
const ROWS_MIN: usize = 8;
/// The most rows: 128 bytes each.
const ROWS_MAX: usize = 2_048;
/// The fewest and the most rows for plain packets, of 64 bytes each: flows beyond are looked up the other way.
const PLAIN_MIN: usize = 8;
const PLAIN_MAX: usize = 2_048;
/// What keys with ports have, so that none is like one without.
const WITH_PORTS: u64 = 1 << 31;

/// What a way depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    source: u128,
    destination: u128,
    /// Ports and protocol, where they are read, and the device that the packet came in by.
    rest: u64,
    pub(super) mark: u32,
}

impl Key {
    #[inline]
    pub(super) fn of(source: Ip, destination: Ip, inlet: DeviceId, mark: u32) -> Self {
        Self { source: source.0, destination: destination.0, rest: u64::from(inlet), mark }
    }

    /// The same for packets of this protocol, with these ports.
    #[inline]
    pub(super) fn with(&self, protocol: Protocol, ports: (u16, u16)) -> Self {
        let ports = u64::from(ports.0) << 48 | u64::from(ports.1) << 32;
        Self { rest: self.rest | ports | WITH_PORTS | u64::from(protocol.0) << 16, ..*self }
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "both halves are used")]
    fn hash(&self) -> u32 {
        let source = self.source as u64 ^ (self.source >> 64) as u64;
        let destination = self.destination as u64 ^ (self.destination >> 64) as u64;
        hash([source, destination, self.rest])
    }
}

/// What the way of a plain packet is found by: everything that it can depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PlainKey {
    addresses: u64,
    /// Ports, protocol and inlet.
    rest: u64,
}

impl PlainKey {
    /// That of what the headers of a sound packet say.
    #[inline(always)]
    pub(super) fn said(said: Sound, inlet: DeviceId) -> Self {
        Self { addresses: said.addresses(), rest: said.ports_and_protocol() | u64::from(inlet) }
    }

    /// The same of a header that has been read here.
    #[inline]
    pub(super) fn of(head: &Head, inlet: DeviceId) -> Self {
        let (source, destination) = (head.source.v4_bits(), head.destination.v4_bits());
        let ports = u64::from(head.ports.0) << 48 | u64::from(head.ports.1) << 32;
        Self {
            addresses: u64::from(source) << 32 | u64::from(destination),
            rest: ports | u64::from(head.protocol.0) << 16 | u64::from(inlet),
        }
    }

    #[inline]
    fn hash(&self) -> u32 {
        hash_pair(self.addresses, self.rest)
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Decision {
    /// It is for the machine itself.
    Local,
    /// It leaves for this neighbour.
    Forward { neighbour: u32, device: DeviceId, mtu: u16 },
    /// It goes into a TUN device.
    Tun { tun: u16, device: DeviceId, mtu: u16 },
    /// It ends.
    Drop(KernelDrop),
    /// It ends, and its sender is told.
    Refuse(KernelDrop),
}

/// Where a plain packet goes, and which ones do.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlainWay {
    pub(super) goal: Goal,
    /// The least time to live with which it gets there.
    pub(super) ttl_min: u8,
    /// The most bytes that it may have.
    pub(super) mtu: u16,
    /// The number of the neighbour or of the TUN device.
    pub(super) number: u32,
}

/// To whom a plain packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// To the machine itself.
    Host,
    /// To a neighbour.
    Neighbour,
    /// Into a TUN device.
    Tun,
}

impl PlainWay {
    /// That of a decision about a packet of the machine's own, or of another's; none where there is more to be done than to
    /// pass it on.
    pub(super) fn of(decision: Decision, is_own: bool) -> Option<Self> {
        let ttl_min = if is_own { 0 } else { 2 };
        match decision {
            Decision::Local if is_own => None,
            Decision::Local => Some(Self { goal: Goal::Host, ttl_min: 0, mtu: u16::MAX, number: 0 }),
            Decision::Forward { neighbour, mtu, .. } => {
                Some(Self { goal: Goal::Neighbour, ttl_min, mtu, number: neighbour })
            }
            Decision::Tun { tun, mtu, .. } => {
                Some(Self { goal: Goal::Tun, ttl_min, mtu, number: u32::from(tun) })
            }
            Decision::Drop(_) | Decision::Refuse(_) => None,
        }
    }
}

/// What is remembered under a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Known {
    /// What becomes of packets like this.
    Way(Decision),
    /// It depends on their protocol and these ports.
    ByPorts(PortsRead),
}

#[derive(Clone, Copy, Debug)]
struct Place {
    key: Key,
    generation: u32,
    known: Known,
}

impl Place {
    const EMPTY: Self = Self {
        key: Key { source: 0, destination: 0, rest: 0, mark: 0 },
        generation: 0,
        known: Known::Way(Decision::Local),
    };
}

#[derive(Clone, Copy, Debug)]
struct PlainPlace {
    key: PlainKey,
    generation: u32,
    way: PlainWay,
}

/// One line of the processor's cache.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct PlainRow([PlainPlace; 2]);

impl PlainRow {
    const EMPTY: Self = Self([PlainPlace::EMPTY; 2]);
}

impl PlainPlace {
    const EMPTY: Self = Self {
        key: PlainKey { addresses: 0, rest: 0 },
        generation: 0,
        way: PlainWay { goal: Goal::Host, ttl_min: 0, mtu: 0, number: 0 },
    };
}

/// Ways that have been found.
#[derive(Debug)]
pub(super) struct Cache {
    rows: Vec<[Place; 2]>,
    /// Those of plain packets.
    plain: Vec<PlainRow>,
    plain_taken: usize,
    /// Places of an earlier one are empty.
    generation: u32,
    /// Places that were taken anew since the cache last grew or was emptied.
    taken: usize,
    is_on: bool,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self {
            rows: vec![[Place::EMPTY; 2]; ROWS_MIN],
            plain: vec![PlainRow::EMPTY; PLAIN_MIN],
            plain_taken: 0,
            generation: 1,
            taken: 0,
            is_on: true,
        }
    }

    /// Lets every packet look anew, with all that it has; for tests.
    #[cfg(test)]
    pub(super) const fn switch_off(&mut self) {
        self.is_on = false;
    }

    /// Whether anything is remembered.
    pub(super) const fn is_on(&self) -> bool {
        self.is_on
    }

    #[inline]
    pub(super) fn find(&self, key: &Key) -> Option<Known> {
        let [first, second] = self.rows.get(self.row(key))?;
        if first.key == *key && first.generation == self.generation {
            return Some(first.known);
        }
        (second.key == *key && second.generation == self.generation).then_some(second.known)
    }

    pub(super) fn put(&mut self, key: Key, known: Known) {
        if !self.is_on {
            return;
        }
        self.taken += 1;
        if self.taken > self.rows.len() && self.rows.len() < ROWS_MAX {
            self.rows = vec![[Place::EMPTY; 2]; self.rows.len() * 2];
            self.taken = 0;
        }
        let row = self.row(&key);
        if let Some([first, second]) = self.rows.get_mut(row) {
            if first.key != key {
                *second = *first;
            }
            *first = Place { key, generation: self.generation, known };
        }
    }

    /// Where the last plain packet like this one went.
    #[inline(always)]
    pub(super) fn find_plain(&self, key: &PlainKey) -> Option<PlainWay> {
        let PlainRow([first, second]) = self.plain.get(self.plain_row(key))?;
        if first.key == *key && first.generation == self.generation {
            return Some(first.way);
        }
        (second.key == *key && second.generation == self.generation).then_some(second.way)
    }

    pub(super) fn put_plain(&mut self, key: PlainKey, way: PlainWay) {
        if !self.is_on {
            return;
        }
        self.plain_taken += 1;
        if self.plain_taken > self.plain.len() && self.plain.len() < PLAIN_MAX {
            self.plain = vec![PlainRow::EMPTY; self.plain.len() * 2];
            self.plain_taken = 0;
        }
        let row = self.plain_row(&key);
        if let Some(PlainRow([first, second])) = self.plain.get_mut(row) {
            if first.key != key {
                *second = *first;
            }
            *first = PlainPlace { key, generation: self.generation, way };
        }
    }

    #[inline]
    fn plain_row(&self, key: &PlainKey) -> usize {
        index(key.hash()) & (self.plain.len() - 1)
    }

    pub(super) fn clear(&mut self) {
        self.taken = 0;
        self.plain_taken = 0;
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            self.generation = 1;
            self.rows.fill([Place::EMPTY; 2]);
            self.plain.fill(PlainRow::EMPTY);
        }
    }

    #[inline]
    fn row(&self, key: &Key) -> usize {
        index(key.hash()) & (self.rows.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_that_differ_in_one_port_lie_in_many_places() {
        let places = |key: &dyn Fn(u16) -> u32| {
            let mut places: Vec<u32> = (0..1_024).map(|port| key(32_768 + port) % 4_096).collect();
            places.sort_unstable();
            places.dedup();
            places.len()
        };
        let base = Key::of(Ip::of_v4(0x0a00_0003), Ip::of_v4(0xc633_0002), 1, 0);
        let plain =
            |ports: u64| PlainKey { addresses: 0x0a00_0003_c633_0002, rest: ports << 32 | 17 << 16 | 1 };
        // Of 1,024 balls in 4,096 places, 906 have one of their own on average.
        for count in [
            places(&|port| base.with(Protocol::UDP, (53, port)).hash()),
            places(&|port| base.with(Protocol::UDP, (port, 53)).hash()),
            places(&|port| plain(53 << 16 | u64::from(port)).hash()),
            places(&|port| plain(u64::from(port) << 16 | 53).hash()),
        ] {
            assert!(count > 850, "{count}");
        }
    }
}
