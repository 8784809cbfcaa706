//! Entries, index and timers together.

use slab::Slab;

use super::entry::{Direction, FlowEntry};
use super::index::{Handle, Index};
use super::timers::Timers;
use crate::time::Instant;
use crate::wire::{FiveTuple, HashKey};

/// Names an entry as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId(u32);

/// Why an entry was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// The bound on flows is reached.
    Full,
    /// Another flow has the same tuple in one of the directions.
    Taken,
}

/// All flows of an engine.
#[derive(Debug)]
pub struct FlowTable {
    entries: Slab<FlowEntry>,
    index: Index,
    timers: Timers,
    flows_max: usize,
    key: HashKey,
}

impl FlowTable {
    /// An empty table for `flows_max` flows (1 to 2^24), hashed with `key`.
    ///
    /// Address space for all of them is reserved at once, memory is used as flows come.
    #[must_use]
    pub fn new(flows_max: u32, key: HashKey) -> Self {
        let flows_max = flows_max.clamp(1, 1 << 24) as usize;
        Self {
            entries: Slab::with_capacity(flows_max),
            index: Index::for_keys(flows_max * 2),
            timers: Timers::with_capacity(flows_max),
            flows_max,
            key,
        }
    }

    /// How many flows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bound on flows.
    #[must_use]
    pub const fn flows_max(&self) -> usize {
        self.flows_max
    }

    /// The key of the flow hash.
    #[must_use]
    pub const fn key(&self) -> HashKey {
        self.key
    }

    /// Every entry, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = &FlowEntry> {
        self.entries.iter().map(|(_, entry)| entry)
    }

    /// Warms the cache for a lookup of `hash`: a number that depends on what the lookup will read.
    #[must_use]
    #[inline]
    pub fn touch_index(&self, hash: u64) -> u32 {
        self.index.hint(hash)
    }

    /// The second step of warming: reads the entry behind what [`FlowTable::touch_index`] gave.
    #[must_use]
    #[inline]
    pub fn touch_entry(&self, hint: u32) -> u32 {
        self.entries.get((hint.wrapping_sub(1) >> 1) as usize).map_or(0, FlowEntry::touch)
    }

    /// The entry of `tuple`, whose hash is `hash`, and the direction in which the tuple goes.
    #[must_use]
    #[inline]
    pub fn find(&self, hash: u64, tuple: &FiveTuple) -> Option<(FlowId, Direction)> {
        let handle = self.index.find(hash, |handle| {
            let (id, direction) = parts(handle);
            self.entries.get(id.0 as usize).is_some_and(|entry| entry.tuple(direction) == *tuple)
        })?;
        Some(parts(handle))
    }

    /// The entry of `id`.
    #[must_use]
    pub fn entry(&self, id: FlowId) -> Option<&FlowEntry> {
        self.entries.get(id.0 as usize)
    }

    /// The entry of `id`, for changes that leave the tuples as they are.
    #[inline]
    pub fn entry_mut(&mut self, id: FlowId) -> Option<&mut FlowEntry> {
        self.entries.get_mut(id.0 as usize)
    }

    /// Takes `entry` in under both of its tuples. `hash` is that of the original one.
    ///
    /// # Errors
    /// `Full` at the bound, `Taken` when either tuple belongs to another flow; nothing has changed then.
    pub fn insert(&mut self, entry: FlowEntry, hash: u64) -> Result<FlowId, InsertError> {
        if self.entries.len() >= self.flows_max {
            return Err(InsertError::Full);
        }
        let original = entry.tuple(Direction::Original);
        let reply = entry.tuple(Direction::Reply);
        let reply_hash = reply.hash(self.key);
        if original == reply
            || self.find(hash, &original).is_some()
            || self.find(reply_hash, &reply).is_some()
        {
            return Err(InsertError::Taken);
        }
        let expires = entry.expires;
        // The slab holds at most 2^24 entries.
        let place = u32::try_from(self.entries.insert(entry)).unwrap_or(u32::MAX);
        let id = FlowId(place);
        self.index.insert(hash, handle(id, Direction::Original));
        self.index.insert(reply_hash, handle(id, Direction::Reply));
        self.timers.schedule(place, expires);
        Ok(id)
    }

    /// Takes the entry of `id` out.
    pub fn remove(&mut self, id: FlowId) -> Option<FlowEntry> {
        let entry = self.entries.try_remove(id.0 as usize)?;
        self.timers.cancel(id.0);
        for direction in [Direction::Original, Direction::Reply] {
            let was_there = self.index.remove(entry.tuple(direction).hash(self.key), handle(id, direction));
            debug_assert!(was_there, "an entry is in the index under both tuples");
        }
        Some(entry)
    }

    /// Tells the timers that `id` ends earlier than it did.
    pub fn reschedule(&mut self, id: FlowId) {
        if let Some(entry) = self.entries.get(id.0 as usize) {
            self.timers.schedule(id.0, entry.expires);
        }
    }

    /// Takes out one flow that is over at `now`; `None` when there is none left.
    pub fn expire(&mut self, now: Instant) -> Option<FlowEntry> {
        while let Some(place) = self.timers.pop(now) {
            let Some(entry) = self.entries.get(place as usize) else { continue };
            if entry.expires <= now {
                return self.remove(FlowId(place));
            }
            self.timers.schedule(place, entry.expires);
        }
        None
    }

    /// The earliest time at which a flow may be over.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.timers.next()
    }
}

const fn handle(id: FlowId, direction: Direction) -> Handle {
    id.0 << 1 | matches!(direction, Direction::Reply) as u32
}

const fn parts(handle: Handle) -> (FlowId, Direction) {
    let direction = if handle & 1 == 0 { Direction::Original } else { Direction::Reply };
    (FlowId(handle >> 1), direction)
}
