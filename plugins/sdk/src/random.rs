//! Randomness that repeats: a stream of numbers from a seed, the one that the forwarder's own schedulers draw from, and
//! servers drawn from it by weight.

use alloc::vec::Vec;

use crate::Server;

/// A stream of random numbers: `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014), of period 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw(u64);

impl Draw {
    /// The stream of `seed`: that of the guest's setup, or the place in a stream where another one stopped.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The place in the stream, from which [`Draw::new`] goes on.
    #[must_use]
    pub const fn place(self) -> u64 {
        self.0
    }

    /// 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// An even draw from 0 to `bound - 1`; 0 where `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of a product; draws that would favour low results are drawn again (at most every other).
        let threshold = bound.wrapping_neg().checked_rem(bound).unwrap_or(0);
        loop {
            let product = u128::from(self.bits()) * u128::from(bound);
            #[allow(clippy::cast_possible_truncation, reason = "the halves of the product")]
            let (high, low) = ((product >> 64) as u64, product as u64);
            if low >= threshold {
                return high;
            }
        }
    }
}

/// Spreads what the bits of `value` say over all of them: the finisher of `SplitMix64`, which is one-to-one.
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The servers that may be picked, to be drawn by weight.
#[derive(Clone, Debug, Default)]
pub struct Shares(Vec<(u64, usize)>);

impl Shares {
    /// Of a list of servers, those that are usable.
    #[must_use]
    pub fn of(servers: &[Server]) -> Self {
        let mut sum = 0;
        let usable = servers.iter().enumerate().filter(|(_, server)| server.is_usable());
        let shares = usable.map(|(place, server)| {
            sum += u64::from(server.weight);
            (sum, place)
        });
        Self(shares.collect())
    }

    /// How many servers may be picked.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A server, each with the chance of its weight. O(ln servers).
    pub fn draw(&self, draw: &mut Draw) -> Option<usize> {
        let total = self.0.last()?.0;
        let ticket = draw.below(total);
        let found = self.0.partition_point(|(sum, _)| *sum <= ticket);
        self.0.get(found).map(|(_, place)| *place)
    }

    /// Up to `wanted` different servers, drawn by weight, in the order in which they were drawn; all of them where there
    /// are no more. Where weights differ much there may be fewer: each place has four draws.
    #[must_use]
    pub fn draw_different(&self, draw: &mut Draw, wanted: usize) -> Vec<usize> {
        let wanted = wanted.min(self.len());
        let mut drawn = Vec::with_capacity(wanted);
        for _ in 0..wanted.saturating_mul(4) {
            if drawn.len() == wanted {
                break;
            }
            let Some(place) = self.draw(draw) else { break };
            if !drawn.contains(&place) {
                drawn.push(place);
            }
        }
        drawn
    }

    /// Whether the server at `place` may be picked.
    #[must_use]
    pub fn has(&self, place: usize) -> bool {
        self.0.iter().any(|(_, usable)| *usable == place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kit::server;

    #[test]
    fn draws_are_pinned_to_those_of_the_forwarder() {
        let mut draw = Draw::new(1);
        assert_eq!(draw.bits(), 10_451_216_379_200_822_465);
        let mut other = Draw::new(draw.place());
        assert_eq!(draw.bits(), other.bits());
        assert_eq!((draw.below(0), draw.below(1)), (0, 0));
    }

    #[test]
    fn servers_are_drawn_by_weight_and_never_without() {
        let servers: Vec<Server> = [3, 0, 1].iter().enumerate().map(|(n, w)| server(n, *w)).collect();
        let shares = Shares::of(&servers);
        let mut draw = Draw::new(7);
        let mut counts = [0_u32; 3];
        (0..4_000).filter_map(|_| shares.draw(&mut draw)).for_each(|place| counts[place] += 1);
        assert!(counts[0].abs_diff(3_000) < 120 && counts[1] == 0, "{counts:?}");
        assert_eq!(shares.draw_different(&mut draw, 5).len(), 2);
        assert!(shares.has(2) && !shares.has(1) && shares.len() == 2);
    }
}
