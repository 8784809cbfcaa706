//! A hierarchical timer wheel: when does which entry want to be looked at?
//!
//! Eleven levels of 64 slots cover every tick that a `u64` of nanoseconds can hold. Entries are links in a list
//! per slot, addressed by id, so scheduling and cancelling cost the same however many there are. A packet
//! does not touch the wheel: its flow's deadline moves, and the wheel learns of it when the old one is due.
//!
//! ```text
//! level 0  |.|.|x|.|...  one tick each            (about a millisecond)
//! level 1  |.|x|.|.|...  64 ticks each: popped when time enters the slot, and put back at a lower level
//! level 2  ...
//! ```

use alloc::vec::Vec;

use crate::time::Instant;

/// Nanoseconds of a tick, as a power of two: 1,048,576 ns.
const TICK_SHIFT: u32 = 20;
const LEVELS: usize = 11;
const SLOTS: usize = 64;
const NIL: u32 = u32::MAX;
/// The slot of a link that is in no list.
const NOWHERE: u16 = u16::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
    /// `level * 64 + place`.
    slot: u16,
}

const FREE: Link = Link { previous: NIL, next: NIL, slot: NOWHERE };

#[derive(Debug)]
pub(super) struct Timers {
    /// The tick up to which everything has been popped.
    current: u64,
    heads: [u32; LEVELS * SLOTS],
    /// A bit for each slot that is not empty.
    occupied: [u64; LEVELS],
    /// The first of these, which is asked for far more often than it changes.
    first: Option<First>,
    links: Vec<Link>,
}

/// The first slot that is not empty. Of several that begin together it is the one of the lowest level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct First {
    /// The tick at which it begins.
    start: u64,
    slot: usize,
}

/// The tick at or after `time`.
const fn tick_of(time: Instant) -> u64 {
    time.as_nanos().div_ceil(1 << TICK_SHIFT)
}

impl Timers {
    /// Room for `ids` entries, allocated as they are first used.
    pub(super) fn with_capacity(ids: usize) -> Self {
        let links = Vec::with_capacity(ids);
        Self { current: 0, heads: [NIL; LEVELS * SLOTS], occupied: [0; LEVELS], first: None, links }
    }

    /// Sets the deadline of `id`, in place of an earlier one. A deadline in the past is due at the next tick.
    pub(super) fn schedule(&mut self, id: u32, deadline: Instant) {
        let place = id as usize;
        if place >= self.links.len() {
            self.links.resize(place + 1, FREE);
        }
        self.cancel(id);
        let tick = tick_of(deadline).max(self.current + 1);
        let level = level_of(self.current, tick);
        let slot = level * SLOTS + place_of(level, tick);
        let Some(head) = self.heads.get_mut(slot) else { return };
        let next = core::mem::replace(head, id);
        if let Some(link) = self.links.get_mut(next as usize) {
            link.previous = id;
        }
        if let Some(link) = self.links.get_mut(place) {
            // A slot is below 704.
            *link = Link { previous: NIL, next, slot: u16::try_from(slot).unwrap_or(NOWHERE) };
        }
        if let Some(bits) = self.occupied.get_mut(level) {
            *bits |= 1 << (slot % SLOTS);
        }
        let begun = First { start: tick >> (6 * level) << (6 * level), slot };
        self.first = Some(self.first.map_or(begun, |first| first.min(begun)));
    }

    /// Forgets the deadline of `id`, if it has one.
    pub(super) fn cancel(&mut self, id: u32) {
        let Some(link) = self.links.get_mut(id as usize) else { return };
        let Link { previous, next, slot } = core::mem::replace(link, FREE);
        if slot == NOWHERE {
            return;
        }
        if let Some(link) = self.links.get_mut(next as usize) {
            link.previous = previous;
        }
        if let Some(link) = self.links.get_mut(previous as usize) {
            link.next = next;
        } else if let Some(head) = self.heads.get_mut(usize::from(slot)) {
            *head = next;
            if next == NIL
                && let Some(bits) = self.occupied.get_mut(usize::from(slot) / SLOTS)
            {
                *bits &= !(1 << (usize::from(slot) % SLOTS));
                if self.first.is_some_and(|first| first.slot == usize::from(slot)) {
                    self.first = self.find_first();
                }
            }
        }
    }

    /// Takes out one id whose slot has begun at `now`. The caller looks at its real deadline and schedules it anew
    /// when that is not over.
    #[inline]
    pub(super) fn pop(&mut self, now: Instant) -> Option<u32> {
        let now = now.as_nanos() >> TICK_SHIFT;
        let Some(First { start, slot }) = self.first.filter(|first| first.start <= now) else {
            self.current = self.current.max(now);
            return None;
        };
        self.current = self.current.max(start);
        let id = self.heads.get(slot).copied().filter(|id| *id != NIL)?;
        self.cancel(id);
        Some(id)
    }

    /// The earliest time at which [`Timers::pop`] may have something.
    pub(super) fn next(&self) -> Option<Instant> {
        self.first.map(|first| Instant::from_nanos(first.start.saturating_mul(1 << TICK_SHIFT)))
    }

    /// The first slot that is not empty.
    ///
    /// A deadline's level is that of the highest digit in which it differs from the current tick, so the slots of a
    /// level come before those of the next; but one that is being emptied may be of any level.
    fn find_first(&self) -> Option<First> {
        let taken = self.occupied.iter().enumerate().filter(|(_, bits)| **bits != 0);
        let firsts = taken.map(|(level, bits)| {
            let place = bits.trailing_zeros();
            let shift = 6 * level;
            let above = if shift + 6 >= 64 { 0 } else { self.current >> (shift + 6) << (shift + 6) };
            First { start: above | u64::from(place) << shift, slot: level * SLOTS + place as usize }
        });
        firsts.min()
    }
}

/// The highest digit, of 6 bits, in which the two ticks differ.
fn level_of(current: u64, tick: u64) -> usize {
    let difference = (current ^ tick) | 1;
    (63 - difference.leading_zeros() as usize) / 6
}

#[allow(clippy::cast_possible_truncation, reason = "the mask leaves 6 bits")]
fn place_of(level: usize, tick: u64) -> usize {
    (tick >> (6 * level)) as usize & (SLOTS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    const TICK: u64 = 1 << TICK_SHIFT;

    /// Pops everything that is due, putting back what is early, as the flow table does.
    fn due(timers: &mut Timers, deadlines: &BTreeMap<u32, u64>, now: u64) -> Vec<u32> {
        let mut ids = Vec::new();
        while let Some(id) = timers.pop(Instant::from_nanos(now)) {
            if deadlines[&id] > now {
                timers.schedule(id, Instant::from_nanos(deadlines[&id]));
            } else {
                ids.push(id);
            }
        }
        ids.sort_unstable();
        ids
    }

    #[test]
    fn a_deadline_is_due_in_its_tick_and_not_before() {
        let mut timers = Timers::with_capacity(1);
        let deadline = 5_000 * TICK + 1;
        let deadlines = BTreeMap::from([(0, deadline)]);
        timers.schedule(0, Instant::from_nanos(deadline));
        assert_eq!(due(&mut timers, &deadlines, deadline - 1), []);
        assert_eq!(due(&mut timers, &deadlines, deadline + TICK), [0]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn the_last_tick_of_time_can_be_scheduled() {
        let mut timers = Timers::with_capacity(1);
        timers.schedule(0, Instant::NEVER);
        assert_eq!(timers.pop(Instant::from_nanos(u64::MAX / 2)), None);
        assert!(timers.next().is_some());
    }

    proptest! {
        #[test]
        fn ids_come_out_when_a_sorted_list_would_give_them(
            steps in proptest::collection::vec((0_u32..20, 0_u64..1 << 36, any::<bool>(), 0_u64..1 << 34), 1..200),
        ) {
            let mut timers = Timers::with_capacity(20);
            let mut deadlines: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = 0;
            for (id, ahead, is_cancel, pass) in steps {
                if is_cancel {
                    timers.cancel(id);
                    deadlines.remove(&id);
                } else {
                    timers.schedule(id, Instant::from_nanos(now + ahead));
                    deadlines.insert(id, now + ahead);
                }
                now += pass;
                let popped = due(&mut timers, &deadlines, now);
                for id in &popped {
                    prop_assert!(deadlines.remove(id).is_some_and(|deadline| deadline <= now));
                }
                // Nothing stays longer than the tick in which it fell due.
                prop_assert!(deadlines.values().all(|deadline| *deadline + 2 * TICK > now));
                prop_assert_eq!(timers.first, timers.find_first());
                let next = timers.next().map(Instant::as_nanos);
                prop_assert_eq!(next.is_some(), !deadlines.is_empty());
                if let (Some(next), Some(first)) = (next, deadlines.values().min()) {
                    prop_assert!(next <= *first + 2 * TICK);
                }
            }
        }
    }
}
