//! Numbered places that servers take and leave, for hashes that know buckets and not servers.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::held::Held;
use crate::director::{ServerId, ServerView};

/// Who has which bucket.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots {
    /// The server of each bucket: its identity, and its place in the list of the last update.
    taken: Vec<Option<(ServerId, usize)>>,
    buckets: BTreeMap<ServerId, usize>,
}

/// What an update asks of the hash.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    /// Buckets whose servers have gone.
    pub(super) gone: Vec<usize>,
    /// Servers that need a bucket, by identity, and their places.
    pub(super) come: Vec<(ServerId, usize)>,
}

impl Slots {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { taken: alloc::vec![None; capacity], buckets: BTreeMap::new() }
    }

    /// Compares with the servers that have a share. Both lists are in the order of identities, so that what comes of them
    /// depends on the plan alone and not on its order.
    pub(super) fn compare(&mut self, servers: &[ServerView]) -> Changes {
        let members = servers.iter().enumerate().filter(|(_, server)| server.is_member());
        let members: BTreeMap<ServerId, usize> = members.map(|(place, server)| (server.id, place)).collect();
        let mut changes = Changes::default();
        for (id, bucket) in &self.buckets {
            let place = members.get(id);
            if place.is_none() {
                changes.gone.push(*bucket);
            }
            if let (Some(place), Some(Some(taken))) = (place, self.taken.get_mut(*bucket)) {
                taken.1 = *place;
            }
        }
        changes.come.extend(members.into_iter().filter(|(id, _)| !self.buckets.contains_key(id)));
        changes
    }

    pub(super) fn leave(&mut self, bucket: usize) {
        if let Some((id, _)) = self.taken.get_mut(bucket).and_then(Option::take) {
            self.buckets.remove(&id);
        }
    }

    pub(super) fn take(&mut self, bucket: usize, id: ServerId, place: usize) {
        if let Some(slot) = self.taken.get_mut(bucket) {
            *slot = Some((id, place));
            self.buckets.insert(id, bucket);
        }
    }

    /// The place of the server in `bucket`.
    pub(super) fn place(&self, bucket: usize) -> Option<usize> {
        self.taken.get(bucket)?.map(|(_, place)| place)
    }

    /// How many buckets are taken.
    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }

    /// How many buckets there are.
    pub(super) fn capacity(&self) -> usize {
        self.taken.len()
    }
}

/// The capacity for `count` servers when the plan does not say: room to grow fourfold.
pub(super) fn capacity(wanted: Option<u32>, count: usize) -> usize {
    wanted.map_or(0, |wanted| wanted as usize).max(count).max(match wanted {
        Some(_) => 1,
        None => (count * 4).next_power_of_two().max(64),
    })
}

impl Held for Slots {
    fn held(&self) -> usize {
        self.taken.held().saturating_add(self.buckets.held())
    }
}
