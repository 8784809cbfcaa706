//! Entries, index and timers together.

use alloc::vec;
use alloc::vec::Vec;

use slab::Slab;

use super::entry::{Direction, FlowEntry, Traits};
use super::index::{Handle, Index};
use super::timers::Timers;
use crate::time::{Duration, Instant};
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
    half_open: Ring,
    /// By the place of the entry; shorter than `entries` where nobody listens.
    births: Vec<Birth>,
    flows_max: usize,
    key: HashKey,
}

/// When a flow has begun, and how long it took to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth {
    /// The time of its first packet; never, where nobody noted it.
    pub at: Instant,
    /// The time from then to its first answer, if there was one.
    pub answered: Option<Duration>,
}

impl Birth {
    const UNKNOWN: Self = Self { at: Instant::NEVER, answered: None };
}

/// A flow that has left the table.
#[derive(Clone, Debug)]
pub struct Departed {
    /// What it was.
    pub entry: FlowEntry,
    /// When it began, where that was noted.
    pub birth: Option<Birth>,
}

/// The half-open flows, in the order in which they began. Each takes the next place, and whoever still has it gives
/// way: a flow has as many later ones to wait for its answer as there are places.
#[derive(Debug)]
struct Ring {
    /// The entry's place plus one; 0 where nobody waits.
    places: Vec<u32>,
    next: usize,
    count: usize,
}

impl Ring {
    fn new(places: u16) -> Self {
        let places = usize::from(places.max(1));
        Self { places: vec![0; places], next: 0, count: 0 }
    }

    /// Who has to give way to the next.
    fn oldest(&self) -> Option<FlowId> {
        self.places.get(self.next)?.checked_sub(1).map(FlowId)
    }

    /// Takes the next place, which is free, for the entry at `place`.
    fn enter(&mut self, place: u32) -> u16 {
        let slot = self.next;
        if let Some(free) = self.places.get_mut(slot) {
            *free = place + 1;
        }
        self.count += 1;
        self.next = if slot + 1 == self.places.len() { 0 } else { slot + 1 };
        u16::try_from(slot).unwrap_or(0)
    }

    fn leave(&mut self, slot: u16) {
        if let Some(taken) = self.places.get_mut(usize::from(slot)) {
            *taken = 0;
            self.count = self.count.saturating_sub(1);
        }
    }
}

/// Who had to go for another flow.
#[derive(Debug)]
pub struct Inserted {
    /// The new flow.
    pub id: FlowId,
    /// The half-open flow that gave way to it.
    pub evicted: Option<Departed>,
}

impl FlowTable {
    /// An empty table for `flows_max` flows (1 to 2^24) and beside them `half_open_max` half-open ones, at most as
    /// many; hashed with `key`.
    ///
    /// Address space for all of them is reserved at once, memory is used as flows come.
    #[must_use]
    pub fn new(flows_max: u32, half_open_max: u16, key: HashKey) -> Self {
        let flows_max = flows_max.clamp(1, 1 << 24) as usize;
        let half_open_max = half_open_max.min(u16::try_from(flows_max).unwrap_or(u16::MAX));
        let room = flows_max + usize::from(half_open_max.max(1));
        Self {
            entries: Slab::with_capacity(room),
            index: Index::for_keys(room * 2),
            timers: Timers::with_capacity(room),
            half_open: Ring::new(half_open_max),
            births: Vec::new(),
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

    /// How many flows wait for their opening to be answered.
    #[must_use]
    pub const fn half_open(&self) -> usize {
        self.half_open.count
    }

    /// The bound on half-open flows.
    #[must_use]
    pub const fn half_open_max(&self) -> usize {
        self.half_open.places.len()
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

    /// The entry of `tuple`, whose hash is `hash`, and the direction in which the tuple goes.
    #[must_use]
    #[inline(always)]
    pub fn find(&self, hash: u64, tuple: &FiveTuple) -> Option<(FlowId, Direction)> {
        let handle = self.index.find(hash, |handle| {
            let (id, direction) = parts(handle);
            self.entries.get(id.0 as usize).is_some_and(|entry| entry.is_tuple(direction, tuple))
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

    /// Takes `entry` in under its tuples: both, or the original one alone when it is one-sided. `hash` is that of the
    /// original one. A half-open flow may push out the one that has waited longest.
    ///
    /// # Errors
    /// `Full` at the bound, `Taken` when either tuple belongs to another flow; nothing has changed then.
    pub fn insert(&mut self, mut entry: FlowEntry, hash: u64) -> Result<Inserted, InsertError> {
        // Half-open flows have their own room, so that they never take that of others; those that get their answer
        // move over.
        if self.entries.len() - self.half_open.count >= self.flows_max {
            return Err(InsertError::Full);
        }
        let original = entry.tuple(Direction::Original);
        let is_one_sided = entry.traits.has(Traits::ONE_SIDED);
        let reply = entry.tuple(Direction::Reply);
        let reply_hash = if is_one_sided { 0 } else { reply.hash(self.key) };
        if self.find(hash, &original).is_some()
            || (!is_one_sided && (original == reply || self.find(reply_hash, &reply).is_some()))
        {
            return Err(InsertError::Taken);
        }
        let is_half_open = entry.traits.has(Traits::HALF_OPEN);
        let evicted = self.half_open.oldest().filter(|_| is_half_open).and_then(|oldest| self.remove(oldest));
        let place = u32::try_from(self.entries.vacant_key()).unwrap_or(u32::MAX);
        if is_half_open {
            entry.ring_slot = self.half_open.enter(place);
        }
        let expires = entry.expires;
        // The slab holds at most 2^24 + 2^16 entries.
        self.entries.insert(entry);
        let id = FlowId(place);
        self.index.insert(hash, handle(id, Direction::Original));
        if !is_one_sided {
            self.index.insert(reply_hash, handle(id, Direction::Reply));
        }
        self.timers.schedule(place, expires);
        Ok(Inserted { id, evicted })
    }

    /// Takes over what another table noted of a flow's beginning.
    pub fn set_birth(&mut self, id: FlowId, birth: Birth) {
        self.note_beginning(id, birth.at);
        if let Some(place) = self.births.get_mut(id.0 as usize) {
            *place = birth;
        }
    }

    /// Every flow with what was noted of its beginning, in the order of their places.
    pub fn into_departed(self) -> impl Iterator<Item = Departed> {
        let births = self.births;
        self.entries.into_iter().map(move |(place, entry)| {
            let birth = births.get(place).copied().filter(|birth| birth.at != Instant::NEVER);
            Departed { entry, birth }
        })
    }

    /// Notes that the flow `id` has begun. Only for flows of schedulers that listen: memory is used for these alone.
    pub fn note_beginning(&mut self, id: FlowId, now: Instant) {
        let place = id.0 as usize;
        if self.births.len() <= place {
            self.births.resize(place + 1, Birth::UNKNOWN);
        }
        if let Some(birth) = self.births.get_mut(place) {
            *birth = Birth { at: now, answered: None };
        }
    }

    /// Notes that the flow `id`, whose beginning was noted, has been answered for the first time; says how long after it
    /// began. `None` where it was not noted, or has been answered before.
    pub fn note_answer(&mut self, id: FlowId, now: Instant) -> Option<Duration> {
        let birth = self.births.get_mut(id.0 as usize)?;
        if birth.at == Instant::NEVER || birth.answered.is_some() {
            return None;
        }
        let after = now.since(birth.at);
        birth.answered = Some(after);
        Some(after)
    }

    /// The opening of `id` has been answered: from now on it gives way to nobody.
    pub fn promote(&mut self, id: FlowId) {
        let Some(entry) = self.entries.get_mut(id.0 as usize) else { return };
        if entry.traits.has(Traits::HALF_OPEN) {
            entry.traits = entry.traits.without(Traits::HALF_OPEN);
            self.half_open.leave(entry.ring_slot);
        }
    }

    /// Takes the entry of `id` out.
    pub fn remove(&mut self, id: FlowId) -> Option<Departed> {
        let entry = self.entries.try_remove(id.0 as usize)?;
        let birth = self.births.get_mut(id.0 as usize).map(|birth| core::mem::replace(birth, Birth::UNKNOWN));
        self.timers.cancel(id.0);
        if entry.traits.has(Traits::HALF_OPEN) {
            self.half_open.leave(entry.ring_slot);
        }
        let both = [Direction::Original, Direction::Reply];
        let tuples = if entry.traits.has(Traits::ONE_SIDED) { 1 } else { 2 };
        for direction in both.into_iter().take(tuples) {
            let was_there = self.index.remove(entry.tuple(direction).hash(self.key), handle(id, direction));
            debug_assert!(was_there, "an entry is in the index under its tuples");
        }
        Some(Departed { entry, birth: birth.filter(|birth| birth.at != Instant::NEVER) })
    }

    /// A table that holds only these flows of this one, and takes in as many more as this one would, with the same flow
    /// giving way to the next half-open one.
    #[must_use]
    pub fn fork(&self, keep: &[FlowId]) -> Self {
        let oldest = self.half_open.oldest();
        let mut kept: Vec<FlowId> = keep.iter().copied().filter(|id| Some(*id) != oldest).collect();
        kept.sort_unstable_by_key(|id| id.0);
        kept.dedup();
        // The oldest comes last, so that the ring has come round to it.
        kept.extend(oldest);
        let waiting =
            |id: &&FlowId| self.entry(**id).is_some_and(|entry| entry.traits.has(Traits::HALF_OPEN));
        let half_open = kept.iter().filter(waiting).count() + usize::from(oldest.is_none());
        let room = self.flows_max.saturating_sub(self.entries.len() - self.half_open.count);
        let flows_max = kept.iter().filter(|id| !waiting(id)).count() + room.min(1);
        let places = u16::try_from(half_open).unwrap_or(u16::MAX);
        let next = if oldest.is_none() { usize::from(places).saturating_sub(1) } else { 0 };
        // The oldest takes the first place of the ring, which is where the ring then stands.
        let others = kept.iter().filter(|id| Some(**id) != oldest);
        let all =
            oldest.iter().chain(others).filter_map(|id| Some((self.entry(*id)?.clone(), self.birth(*id))));
        Self::assemble(flows_max, places, next, self.key, all)
    }

    /// A table of `kept` flows, with so many `places` for half-open ones, of which the one at `next` is the next to be taken.
    pub(crate) fn assemble(
        flows_max: usize,
        places: u16,
        next: usize,
        key: HashKey,
        kept: impl Iterator<Item = (FlowEntry, Option<Birth>)>,
    ) -> Self {
        let kept: Vec<_> = kept.collect();
        let room = u32::try_from(kept.len() + 1).unwrap_or(u32::MAX);
        let mut table = Self { half_open: Ring::new(places), ..Self::new(room, 1, key) };
        for (entry, birth) in kept {
            let hash = entry.tuple(Direction::Original).hash(key);
            let Ok(inserted) = table.insert(entry, hash) else { continue };
            if let Some(birth) = birth {
                table.set_birth(inserted.id, birth);
            }
        }
        table.half_open.next = next.min(table.half_open.places.len() - 1);
        table.flows_max = flows_max;
        table
    }

    /// The bound on flows, how many places there are for half-open ones, and which of these is the next to be taken.
    pub(crate) const fn shape(&self) -> [usize; 3] {
        [self.flows_max, self.half_open.places.len(), self.half_open.next]
    }

    /// Every flow with what was noted of its beginning.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (&FlowEntry, Option<Birth>)> {
        self.entries.iter().map(|(place, entry)| {
            (entry, u32::try_from(place).ok().and_then(|place| self.birth(FlowId(place))))
        })
    }

    fn birth(&self, id: FlowId) -> Option<Birth> {
        self.births.get(id.0 as usize).copied().filter(|birth| birth.at != Instant::NEVER)
    }

    /// Sets what every entry says of the plan under which it was permitted.
    pub fn set_generation(&mut self, generation: u8) {
        self.entries.iter_mut().for_each(|(_, entry)| entry.generation = generation);
    }

    /// Tells the timers that `id` ends earlier than it did.
    pub fn reschedule(&mut self, id: FlowId) {
        if let Some(entry) = self.entries.get(id.0 as usize) {
            self.timers.schedule(id.0, entry.expires);
        }
    }

    /// Takes out one flow that is over at `now`; `None` when there is none left.
    #[inline(always)]
    pub fn expire(&mut self, now: Instant) -> Option<Departed> {
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
