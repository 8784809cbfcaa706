//! Persistence: which real server a client was given, for as long as it comes back in time.
//!
//! One table for all directors, with a bound. A client's entry lives its timeout beyond its last flow's beginning, and
//! longer while it has flows, as IPVS's templates do.

use alloc::collections::{BTreeMap, BTreeSet};

use super::ServerId;
use crate::plan::{Persistence, Prefix};
use crate::time::{Duration, Instant};
use crate::wire::Address;

/// How much longer an entry lives that has come to its end while its client still has flows.
const WHILE_IN_USE: Duration = Duration::from_secs(60);

/// Entries that one call takes out at most, so that the end of many at once holds up no packet.
const EXPIRIES_MAX: usize = 256;

/// Whose entry: the place of a director, and the part of a client's address that counts.
pub type Key = (u16, Address);

#[derive(Clone, Copy, Debug)]
struct Stick {
    slot: u16,
    server: ServerId,
    expires: Instant,
    flows: u32,
}

/// The clients that stick to a real server.
#[derive(Debug, Default)]
pub struct Sticky {
    sticks: BTreeMap<Key, Stick>,
    by_expiry: BTreeSet<(Instant, Key)>,
    most: usize,
}

/// The key of `client` at the director at `place`.
#[must_use]
pub fn key(place: u16, client: Address, persistence: &Persistence) -> Key {
    let length = if client.is_v4() { persistence.length_v4 } else { persistence.length_v6 };
    (place, Prefix { address: client.into(), length }.network())
}

impl Sticky {
    /// Sets the bound on entries (at least 1). Those beyond it go, the next to end first.
    pub fn set_most(&mut self, most: u32) {
        self.most = usize::try_from(most.max(1)).unwrap_or(usize::MAX);
        while self.sticks.len() > self.most {
            self.evict();
        }
    }

    /// How many clients stick.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sticks.len()
    }

    /// Whether nobody does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sticks.is_empty()
    }

    /// What is known of `keys` alone, and who would have to go for another.
    #[must_use]
    pub fn fork(&self, keys: &[Key]) -> Self {
        let is_full = self.sticks.len() >= self.most;
        let next = self.by_expiry.first().filter(|_| is_full).map(|(_, key)| key);
        let mut fork = Self::default();
        for key in keys.iter().chain(next) {
            let Some(stick) = self.sticks.get(key) else { continue };
            fork.by_expiry.insert((stick.expires, *key));
            fork.sticks.insert(*key, *stick);
        }
        fork.most = if is_full { fork.sticks.len().max(1) } else { usize::MAX };
        fork
    }

    /// Every entry: its key, the place of its server, when it ends, and its flows.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Key, u16, Instant, u32)> {
        self.sticks.iter().map(|(key, stick)| (*key, stick.slot, stick.expires, stick.flows))
    }

    /// The bound on entries.
    pub(crate) const fn most(&self) -> usize {
        self.most
    }

    /// Takes an entry over as it was.
    pub(crate) fn recall(&mut self, key: Key, slot: u16, server: ServerId, expires: Instant, flows: u32) {
        self.sticks.insert(key, Stick { slot, server, expires, flows });
        self.by_expiry.insert((expires, key));
    }

    /// Where the client of `key` sticks: the place and identity of the real server.
    #[must_use]
    pub fn find(&self, key: &Key) -> Option<(u16, ServerId)> {
        self.sticks.get(key).map(|stick| (stick.slot, stick.server))
    }

    /// The client of `key` has a new flow to the real server at `slot`.
    pub fn open(&mut self, key: Key, slot: u16, server: ServerId, timeout: Duration, now: Instant) {
        let expires = now.after(timeout);
        let known = self.sticks.get(&key).copied();
        if let Some(known) = known {
            self.by_expiry.remove(&(known.expires, key));
        } else if self.sticks.len() >= self.most {
            self.evict();
        }
        let flows = known.filter(|known| known.server == server).map_or(0, |known| known.flows);
        self.sticks.insert(key, Stick { slot, server, expires, flows: flows.saturating_add(1) });
        self.by_expiry.insert((expires, key));
    }

    /// A flow of the client of `key` to the real server at `slot` has ended.
    pub fn close(&mut self, key: &Key, slot: u16) {
        if let Some(stick) = self.sticks.get_mut(key)
            && stick.slot == slot
        {
            stick.flows = stick.flows.saturating_sub(1);
        }
    }

    /// The places of the directors where somebody sticks.
    pub fn places(&self) -> impl Iterator<Item = u16> {
        let mut last = None;
        self.sticks.keys().map(|(place, _)| *place).filter(move |place| last.replace(*place) != Some(*place))
    }

    /// Forgets who sticks at the director at `place`: it is gone, or tells clients apart otherwise.
    pub fn forget(&mut self, place: u16) {
        self.sticks.retain(|(at, _), _| *at != place);
        self.by_expiry.retain(|(_, (at, _))| *at != place);
    }

    /// Takes out entries that are over at `now`, at most 256 in one call.
    pub fn expire(&mut self, now: Instant) {
        for _ in 0..EXPIRIES_MAX {
            let Some(&(expires, key)) = self.by_expiry.first() else { break };
            if expires > now {
                break;
            }
            self.by_expiry.remove(&(expires, key));
            let Some(stick) = self.sticks.get_mut(&key) else { continue };
            if stick.flows == 0 {
                self.sticks.remove(&key);
            } else {
                stick.expires = now.after(WHILE_IN_USE);
                self.by_expiry.insert((stick.expires, key));
            }
        }
    }

    /// When the next entry ends.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.by_expiry.first().map(|(expires, _)| *expires)
    }

    fn evict(&mut self) {
        if let Some((_, key)) = self.by_expiry.pop_first() {
            self.sticks.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: ServerId = ServerId(7);
    const MINUTE: Duration = Duration::from_secs(60);

    fn client(last: u8) -> Key {
        (0, Address::v4([192, 0, 2, last]))
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_client_sticks_until_its_timeout_and_while_it_has_flows() {
        let mut sticky = Sticky::default();
        sticky.set_most(10);
        sticky.open(client(1), 3, SERVER, MINUTE, at(0));
        sticky.expire(at(59));
        assert_eq!(sticky.find(&client(1)), Some((3, SERVER)));
        sticky.expire(at(60));
        assert_eq!(sticky.find(&client(1)), Some((3, SERVER)), "its flow goes on");
        sticky.close(&client(1), 3);
        assert_eq!(sticky.next_expiry(), Some(at(120)));
        sticky.expire(at(120));
        assert!(sticky.is_empty());
    }

    #[test]
    fn the_table_is_bounded_and_the_next_to_end_goes_first() {
        let mut sticky = Sticky::default();
        sticky.set_most(2);
        (1..=3).for_each(|last| sticky.open(client(last), 0, SERVER, MINUTE, at(u64::from(last))));
        sticky.open(client(2), 0, SERVER, MINUTE, at(9));
        sticky.open(client(4), 0, SERVER, MINUTE, at(10));
        let known = (1..=4).map(|last| sticky.find(&client(last)).is_some());
        assert_eq!(known.collect::<alloc::vec::Vec<_>>(), [false, true, false, true]);
        assert_eq!(sticky.by_expiry.len(), 2);
    }

    #[test]
    fn clients_of_one_network_share_an_entry() {
        let persistence = Persistence { timeout: MINUTE, length_v4: 24, length_v6: 64 };
        let of = |text: &str| key(0, text.parse::<core::net::IpAddr>().unwrap().into(), &persistence);
        assert_eq!(of("192.0.2.7"), of("192.0.2.200"));
        assert_ne!(of("192.0.2.7"), of("192.0.3.7"));
        assert_eq!(of("fc00::1"), of("fc00::ffff:1"));
        assert_ne!(of("fc00::1"), of("fc00:0:0:1::1"));
    }
}
