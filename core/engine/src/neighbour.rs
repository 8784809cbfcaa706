//! The Ethernet side: answers who-has for what is ours, and knows the link addresses of next hops.
//!
//! Learns only from stations that talk to us by ARP, never from data. On TUN devices it has nothing to do.

use alloc::collections::BTreeMap;

use crate::time::{Duration, Instant};
use crate::verdict::InterfaceId;
use crate::wire::ethernet::MacAddress;

/// The most neighbours: next hops and real servers on the links, with room to spare. Further ones are not
/// learned, so a station that invents senders can not push out those that are in use.
const NEIGHBOURS_MAX: usize = 4096;

/// How long an answer is believed, as a Linux host's base reachable time.
const FRESH: Duration = Duration::from_secs(30);

/// How long to wait before the same question is asked again (RFC 1122 s.2.3.2.1: at most one a second).
const ASK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
struct Neighbour {
    mac: Option<MacAddress>,
    confirmed: Instant,
    asked: Option<Instant>,
}

/// What is known about a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Its link address, if it has ever answered.
    pub mac: Option<MacAddress>,
    /// Whether to ask for it now.
    pub must_ask: bool,
}

/// Link addresses by interface and IPv4 address.
#[derive(Debug, Default)]
pub struct Neighbours {
    known: BTreeMap<(InterfaceId, [u8; 4]), Neighbour>,
}

impl Neighbours {
    /// Looks `address` up, and notes the question where one has to be asked: the link address is unknown, or old.
    pub fn resolve(&mut self, interface: InterfaceId, address: [u8; 4], now: Instant) -> Resolution {
        let count = self.known.len();
        let key = (interface, address);
        if count >= NEIGHBOURS_MAX && !self.known.contains_key(&key) {
            return Resolution { mac: None, must_ask: false };
        }
        let fresh = Neighbour { mac: None, confirmed: Instant::ZERO, asked: None };
        let neighbour = self.known.entry(key).or_insert(fresh);
        let is_old = neighbour.mac.is_none() || now.since(neighbour.confirmed) >= FRESH;
        let may_ask = neighbour.asked.is_none_or(|asked| now.since(asked) >= ASK_AGAIN);
        let must_ask = is_old && may_ask;
        if must_ask {
            neighbour.asked = Some(now);
        }
        Resolution { mac: neighbour.mac, must_ask }
    }

    /// Notes what a station said of itself. One that nobody asked for is only taken when it `talks_to_us`.
    pub fn learn(
        &mut self,
        interface: InterfaceId,
        address: [u8; 4],
        mac: MacAddress,
        talks_to_us: bool,
        now: Instant,
    ) {
        let room = self.known.len() < NEIGHBOURS_MAX;
        let neighbour = Neighbour { mac: Some(mac), confirmed: now, asked: None };
        match self.known.get_mut(&(interface, address)) {
            Some(known) => *known = neighbour,
            None if talks_to_us && room => {
                self.known.insert((interface, address), neighbour);
            }
            None => {}
        }
    }

    /// Forgets everything, since interfaces have changed.
    pub fn clear(&mut self) {
        self.known.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);
    const PORT: InterfaceId = InterfaceId(0);

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_question_is_asked_once_a_second_until_it_is_answered() {
        let mut neighbours = Neighbours::default();
        let mut ask = |seconds| neighbours.resolve(PORT, [10, 0, 0, 1], at(seconds)).must_ask;
        assert_eq!([ask(5), ask(5), ask(6), ask(6)], [true, false, true, false]);
        neighbours.learn(PORT, [10, 0, 0, 1], MAC, false, at(6));
        let known = Resolution { mac: Some(MAC), must_ask: false };
        assert_eq!(neighbours.resolve(PORT, [10, 0, 0, 1], at(7)), known);
    }

    #[test]
    fn an_old_answer_is_used_while_it_is_asked_for_again() {
        let mut neighbours = Neighbours::default();
        neighbours.learn(PORT, [10, 0, 0, 1], MAC, true, at(1));
        let old = Resolution { mac: Some(MAC), must_ask: true };
        assert_eq!(neighbours.resolve(PORT, [10, 0, 0, 1], at(40)), old);
    }

    #[test]
    fn strangers_are_not_learned_and_the_table_has_a_bound() {
        let mut neighbours = Neighbours::default();
        neighbours.learn(PORT, [10, 0, 0, 1], MAC, false, at(1));
        assert!(neighbours.known.is_empty());
        for n in 0..6000_u32 {
            neighbours.learn(PORT, n.to_be_bytes(), MAC, true, at(1));
        }
        assert_eq!(neighbours.known.len(), NEIGHBOURS_MAX);
        assert_eq!(neighbours.resolve(PORT, [99, 9, 9, 9], at(2)), Resolution { mac: None, must_ask: false });
    }
}
