//! Servers drawn at random, each with the chance of its weight.

use alloc::vec::Vec;

use super::draw::Draw;
use super::held::Held;
use crate::director::ServerView;

/// The servers that may be picked, with the sum of weights up to each.
#[derive(Clone, Debug, Default)]
pub(super) struct Shares(Vec<(u64, usize)>);

impl Shares {
    pub(super) fn of(servers: &[ServerView]) -> Self {
        let mut sum = 0;
        let usable = servers.iter().enumerate().filter(|(_, server)| server.is_usable());
        let shares = usable.map(|(place, server)| {
            sum += u64::from(server.weight);
            (sum, place)
        });
        Self(shares.collect())
    }

    /// How many servers may be picked.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// A server, each with the chance of its weight. O(ln servers).
    pub(super) fn draw(&self, draw: &mut Draw) -> Option<usize> {
        let total = self.0.last()?.0;
        let ticket = draw.below(total);
        let found = self.0.partition_point(|(sum, _)| *sum <= ticket);
        self.0.get(found).map(|(_, place)| *place)
    }

    /// Every server that may be picked.
    pub(super) fn places(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|(_, place)| *place)
    }
}

impl Held for Shares {
    fn held(&self) -> usize {
        self.0.held()
    }
}
