//! What happens when: events in the order of (time, sequence), where the sequence is the order in which they
//! were put in, so that events of the same time keep that order.
//!
//! Two queues with the same order: [`HeapQueue`] is the plain reference, [`WheelQueue`] the fast one. A test
//! holds them against each other.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::Debug;

use evenkeel_engine::Instant;

/// Events that are due later.
pub trait EventQueue<E>: Debug {
    /// Puts in an event that is due at `at`; a time before the last popped one counts as that one.
    fn push(&mut self, at: Instant, event: E);

    /// Takes out the next event and its time.
    fn pop(&mut self) -> Option<(Instant, E)>;

    /// Events that wait.
    fn len(&self) -> usize;

    /// Whether no event waits.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An event with its place in the order. The heap of the standard library gives the greatest first, so the
/// order is turned around.
#[derive(Clone, Copy, Debug)]
struct Entry<E> {
    time: u64,
    sequence: u64,
    event: E,
}

impl<E> Entry<E> {
    const fn key(&self) -> (u64, u64) {
        (self.time, self.sequence)
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

/// A binary heap.
#[derive(Debug)]
pub struct HeapQueue<E> {
    heap: BinaryHeap<Entry<E>>,
    sequence: u64,
    now: u64,
}

impl<E> Default for HeapQueue<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), sequence: 0, now: 0 }
    }
}

impl<E: Debug> EventQueue<E> for HeapQueue<E> {
    fn push(&mut self, at: Instant, event: E) {
        self.sequence += 1;
        self.heap.push(Entry { time: at.as_nanos().max(self.now), sequence: self.sequence, event });
    }

    fn pop(&mut self) -> Option<(Instant, E)> {
        let entry = self.heap.pop()?;
        self.now = entry.time;
        Some((Instant::from_nanos(entry.time), entry.event))
    }

    fn len(&self) -> usize {
        self.heap.len()
    }
}

/// Slots of the wheel. With [`SLOT_BITS`] they span a millisecond: most packets and few timers.
const SLOTS: usize = 4_096;
/// A slot is 2^8 = 256 ns wide: at a million packets a second every fourth slot holds one.
const SLOT_BITS: u32 = 8;

/// A wheel of slots for the near future, a sorted map for the far one, and a heap for the current slot.
#[derive(Debug)]
pub struct WheelQueue<E> {
    /// Events of the current slot and before.
    near: BinaryHeap<Entry<E>>,
    /// Slot `n` of the future lies in place `n % SLOTS`.
    slots: Vec<Vec<Entry<E>>>,
    /// One bit per place that holds something.
    occupied: [u64; SLOTS / 64],
    /// Events that were beyond the wheel when they came.
    far: BTreeMap<(u64, u64), E>,
    current_slot: u64,
    sequence: u64,
    now: u64,
    len: usize,
}

impl<E> Default for WheelQueue<E> {
    fn default() -> Self {
        Self {
            near: BinaryHeap::new(),
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            occupied: [0; SLOTS / 64],
            far: BTreeMap::new(),
            current_slot: 0,
            sequence: 0,
            now: 0,
            len: 0,
        }
    }
}

/// The place of a slot in the wheel.
fn place(slot: u64) -> usize {
    #[allow(clippy::cast_possible_truncation, reason = "reduced to below 4,096 first")]
    {
        (slot % SLOTS as u64) as usize
    }
}

impl<E: Debug> WheelQueue<E> {
    /// The next slot of the wheel that holds something, after the current one.
    fn next_occupied(&self) -> Option<u64> {
        let start = place(self.current_slot + 1);
        let words = self.occupied.len();
        for step in 0..=words {
            let index = (start / 64 + step) % words;
            let mut word = self.occupied.get(index).copied().unwrap_or(0);
            if step == 0 {
                word &= u64::MAX << (start % 64);
            } else if step == words {
                word &= !(u64::MAX << (start % 64));
            }
            if word != 0 {
                let found = index * 64 + usize::try_from(word.trailing_zeros()).unwrap_or(0);
                let distance = (found + SLOTS - start) % SLOTS;
                return Some(self.current_slot + 1 + u64::try_from(distance).unwrap_or(0));
            }
        }
        None
    }

    fn mark(&mut self, place: usize, is_occupied: bool) {
        if let Some(word) = self.occupied.get_mut(place / 64) {
            let bit = 1 << (place % 64);
            *word = if is_occupied { *word | bit } else { *word & !bit };
        }
    }

    /// Moves on to the next slot that holds something, and its events into the heap.
    fn advance(&mut self) {
        let near = self.next_occupied();
        let far = self.far.first_key_value().map(|((time, _), _)| time >> SLOT_BITS);
        let Some(slot) = near.into_iter().chain(far).min() else { return };
        self.current_slot = slot;
        if near == Some(slot) {
            let place = place(slot);
            if let Some(entries) = self.slots.get_mut(place) {
                self.near.extend(entries.drain(..));
            }
            self.mark(place, false);
        }
        while let Some(first) = self.far.first_entry() {
            let (time, sequence) = *first.key();
            if time >> SLOT_BITS != slot {
                break;
            }
            self.near.push(Entry { time, sequence, event: first.remove() });
        }
    }
}

impl<E: Debug> EventQueue<E> for WheelQueue<E> {
    fn push(&mut self, at: Instant, event: E) {
        self.sequence += 1;
        self.len += 1;
        let entry = Entry { time: at.as_nanos().max(self.now), sequence: self.sequence, event };
        let slot = entry.time >> SLOT_BITS;
        if slot <= self.current_slot {
            self.near.push(entry);
        } else if slot - self.current_slot < SLOTS as u64 {
            let place = place(slot);
            if let Some(entries) = self.slots.get_mut(place) {
                entries.push(entry);
            }
            self.mark(place, true);
        } else {
            self.far.insert(entry.key(), entry.event);
        }
    }

    fn pop(&mut self) -> Option<(Instant, E)> {
        if self.near.is_empty() {
            self.advance();
        }
        let entry = self.near.pop()?;
        self.now = entry.time;
        self.len -= 1;
        Some((Instant::from_nanos(entry.time), entry.event))
    }

    fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    #[test]
    fn events_of_one_time_keep_their_order() {
        let mut queue = WheelQueue::default();
        for event in 0..5 {
            queue.push(Instant::from_nanos(1_000), event);
        }
        queue.push(Instant::from_nanos(999), 9);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(_, event)| event).collect();
        assert_eq!(order, [9, 0, 1, 2, 3, 4]);
        assert!(queue.is_empty());
    }

    #[test]
    fn time_does_not_run_backwards() {
        let mut queues: [Box<dyn EventQueue<u8>>; 2] =
            [Box::new(WheelQueue::default()), Box::new(HeapQueue::default())];
        for queue in &mut queues {
            queue.push(Instant::from_nanos(5_000_000), 1);
            assert_eq!(queue.pop(), Some((Instant::from_nanos(5_000_000), 1)));
            queue.push(Instant::from_nanos(7), 2);
            assert_eq!(queue.pop(), Some((Instant::from_nanos(5_000_000), 2)));
        }
    }

    #[test]
    fn wheel_and_heap_give_the_same_order() {
        let scales = [1, 300, 10_000, 1_048_576, 1_048_577, 50_000_000, 3_000_000_000];
        for seed in 0..20 {
            let mut draw = Stream::new(seed, "queue", "test");
            let (mut wheel, mut heap) = (WheelQueue::default(), HeapQueue::default());
            let mut now = 0;
            for event in 0..20_000u32 {
                if draw.below(5) < 3 {
                    let scale = scales[usize::try_from(draw.below(7)).unwrap()];
                    let at = Instant::from_nanos(now + draw.below(scale));
                    wheel.push(at, event);
                    heap.push(at, event);
                } else {
                    let popped = wheel.pop();
                    assert_eq!(popped, heap.pop());
                    now = popped.map_or(now, |(at, _)| at.as_nanos());
                }
                assert_eq!(wheel.len(), heap.len());
            }
            while let Some(popped) = heap.pop() {
                assert_eq!(wheel.pop(), Some(popped));
            }
            assert_eq!(wheel.pop(), None);
        }
    }
}
