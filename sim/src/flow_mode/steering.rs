//! How a router spreads flows over several forwarders: equal-cost multipath with one hash for each flow.

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use evenkeel_engine::wire::{FiveTuple, HashKey};

/// What the router makes of a flow's hash. It is none of the forwarders' hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Steering {
    /// The hash modulo the number of forwarders that are there: when one of L goes, L - 1 of L flows move... those
    /// whose remainder differs.
    #[default]
    Modulo,
    /// The highest of one hash for each forwarder (RFC 2991 section 4): only flows of one that goes move.
    HighestRandomWeight,
    /// Regions of equal size (RFC 2992): between a quarter and a half of the flows move.
    Threshold,
}

/// The router at work.
#[derive(Debug)]
pub(super) struct Router {
    steering: Steering,
    key: HashKey,
    /// The forwarders that it has a route to, in their order.
    alive: Vec<u16>,
}

impl Router {
    pub(super) fn new(steering: Steering, seed: u64, forwarders: Vec<u16>) -> Self {
        // Any key that is not the forwarders': two different hashes of the same seed.
        let [low, high] = [0u64, 1].map(|key| SipHasher13::new_with_keys(seed, key).hash(b"router"));
        Self { steering, key: HashKey([low, high]), alive: forwarders }
    }

    /// It has routes to these forwarders from now on.
    pub(super) fn set_routes(&mut self, forwarders: &[u16]) {
        self.alive = forwarders.to_vec();
    }

    /// Whether there is a route to this forwarder from now on.
    pub(super) fn set_alive(&mut self, forwarder: u16, is_alive: bool) {
        self.alive.retain(|known| *known != forwarder);
        if is_alive {
            let place = self.alive.partition_point(|known| *known < forwarder);
            self.alive.insert(place, forwarder);
        }
    }

    /// The forwarder of a flow, if there is any.
    #[inline]
    pub(super) fn steer(&self, tuple: &FiveTuple) -> Option<u16> {
        if let [one] = *self.alive {
            return Some(one);
        }
        let hash = tuple.hash(self.key);
        let count = self.alive.len() as u64;
        let place = match self.steering {
            Steering::Modulo => hash.checked_rem(count)?,
            Steering::Threshold => u64::try_from((u128::from(hash) * u128::from(count)) >> 64).unwrap_or(0),
            Steering::HighestRandomWeight => {
                let weight = |forwarder: &&u16| {
                    let key = self.key.0[0] ^ u64::from(**forwarder);
                    SipHasher13::new_with_keys(key, hash).hash(b"")
                };
                return self.alive.iter().max_by_key(weight).copied();
            }
        };
        self.alive.get(usize::try_from(place).unwrap_or(usize::MAX)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_engine::wire::{Address, Protocol};

    fn tuple(number: u16) -> FiveTuple {
        FiveTuple {
            source: Address::v4([10, 0, 0, 1]),
            destination: Address::v4([10, 0, 0, 2]),
            source_port: number,
            destination_port: 80,
            protocol: Protocol::TCP,
        }
    }

    /// The share of flows that move when the second of four forwarders goes, and of these the share that had it.
    fn moved(steering: Steering) -> (f64, f64) {
        let mut router = Router::new(steering, 7, vec![0, 1, 2, 3]);
        let before: Vec<_> = (0..20_000).map(|number| router.steer(&tuple(number))).collect();
        router.set_alive(1, false);
        let after: Vec<_> = (0..20_000).map(|number| router.steer(&tuple(number))).collect();
        let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        let own = moved.iter().filter(|(before, _)| **before == Some(1)).count();
        router.set_alive(1, true);
        assert!((0..20_000).all(|number| router.steer(&tuple(number)) == before[usize::from(number)]));
        (moved.len() as f64 / 20_000.0, own as f64 / moved.len() as f64)
    }

    #[test]
    fn each_way_moves_as_many_flows_as_it_should() {
        let (modulo, _) = moved(Steering::Modulo);
        assert!((modulo - 0.75).abs() < 0.02, "{modulo}");
        let (highest, own) = moved(Steering::HighestRandomWeight);
        assert!((highest - 0.25).abs() < 0.02 && own == 1.0, "{highest} {own}");
        // RFC 2992 section 4.1: 1/4 + 1/(4 N) for the end, less in the middle.
        let (threshold, _) = moved(Steering::Threshold);
        assert!((0.25..0.5).contains(&threshold), "{threshold}");
    }

    #[test]
    fn one_forwarder_has_everything_and_none_has_nothing() {
        for steering in [Steering::Modulo, Steering::HighestRandomWeight, Steering::Threshold] {
            let mut router = Router::new(steering, 7, vec![0]);
            assert_eq!(router.steer(&tuple(1)), Some(0));
            router.set_alive(0, false);
            assert_eq!(router.steer(&tuple(1)), None);
        }
    }
}
