//! What happens when: events in the order of (time, sequence), where the sequence is the order in which they
//! were put in, so that events of the same time keep that order.
//!
//! Two queues with the same order: [`HeapQueue`] is the plain reference, [`WheelQueue`] the fast one. A test
//! holds them against each other.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
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

/// One of the two, chosen when a run begins.
#[derive(Debug)]
pub enum AnyQueue<E> {
    /// The fast one.
    Wheel(Box<WheelQueue<E>>),
    /// The plain reference.
    Heap(HeapQueue<E>),
}

impl<E: Debug> EventQueue<E> for AnyQueue<E> {
    #[inline]
    fn push(&mut self, at: Instant, event: E) {
        match self {
            Self::Wheel(wheel) => wheel.push(at, event),
            Self::Heap(heap) => heap.push(at, event),
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<(Instant, E)> {
        match self {
            Self::Wheel(wheel) => wheel.pop(),
            Self::Heap(heap) => heap.pop(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Wheel(wheel) => wheel.len(),
            Self::Heap(heap) => heap.len(),
        }
    }
}

/// Slots of a wheel. The fine one spans a millisecond, the coarse one four seconds: packets lie in the first, timers of
/// transports in the second.
const SLOTS: usize = 4_096;
/// How many bits of the time choose a slot.
const WHEEL_BITS: u32 = SLOTS.trailing_zeros();
/// A slot of the fine wheel is 2^8 = 256 ns wide: at a million packets a second every fourth slot holds one.
const FINE_BITS: u32 = 8;
/// A slot of the coarse wheel is as wide as the fine wheel: 2^20 ns, a millisecond.
const COARSE_BITS: u32 = FINE_BITS + WHEEL_BITS;
/// A block beyond the wheels is as wide as the coarse wheel: 2^32 ns, four seconds.
const FAR_BITS: u32 = COARSE_BITS + WHEEL_BITS;

/// One wheel: slots in the order of time, and a bit for each that holds something.
#[derive(Debug)]
struct Wheel<E> {
    slots: Vec<Vec<Entry<E>>>,
    occupied: [u64; SLOTS / 64],
}

impl<E> Default for Wheel<E> {
    fn default() -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), occupied: [0; SLOTS / 64] }
    }
}

impl<E> Wheel<E> {
    #[inline]
    fn push(&mut self, place: usize, entry: Entry<E>) {
        if let (Some(slot), Some(word)) = (self.slots.get_mut(place), self.occupied.get_mut(place / 64)) {
            slot.push(entry);
            *word |= 1 << (place % 64);
        }
    }

    /// The next slot behind `place` that holds something.
    fn next_occupied(&self, place: usize) -> Option<usize> {
        let start = place + 1;
        let first = self.occupied.get(start / 64)? & (u64::MAX << (start % 64));
        if first != 0 {
            return Some(start / 64 * 64 + bit(first));
        }
        let rest = self.occupied.iter().enumerate().skip(start / 64 + 1);
        rest.filter(|(_, word)| **word != 0).map(|(index, word)| index * 64 + bit(*word)).next()
    }

    /// Takes out the entry of a slot that holds no other.
    fn take_only(&mut self, place: usize) -> Option<Entry<E>> {
        let slot = self.slots.get_mut(place).filter(|slot| slot.len() == 1)?;
        let word = self.occupied.get_mut(place / 64)?;
        *word &= !(1 << (place % 64));
        slot.pop()
    }

    /// Puts the entries of a slot, whose bit is cleared, into the place of `entries`, which is empty.
    fn swap(&mut self, place: usize, entries: &mut Vec<Entry<E>>) {
        if let (Some(slot), Some(word)) = (self.slots.get_mut(place), self.occupied.get_mut(place / 64)) {
            std::mem::swap(slot, entries);
            *word &= !(1 << (place % 64));
        }
    }
}

/// The place of the lowest bit.
const fn bit(word: u64) -> usize {
    word.trailing_zeros() as usize
}

/// The place in a wheel of a time, of which the wheel sees what is above `bits`.
fn place(time: u64, bits: u32) -> usize {
    #[allow(clippy::cast_possible_truncation, reason = "reduced to below 4,096 first")]
    {
        ((time >> bits) % SLOTS as u64) as usize
    }
}

/// Two wheels, a fine one for the near future and a coarse one for the time after it, and a sorted map for what lies
/// beyond both. The events of the current slot are sorted.
///
/// ```text
/// near: this slot of 256 ns <- fine: the rest of this millisecond <- coarse: the rest of these 4 s <- far
/// ```
#[derive(Debug)]
pub struct WheelQueue<E> {
    /// Events that are due at once: those of now that came while it was now, in their order.
    urgent: VecDeque<Entry<E>>,
    /// Events of the current slot and before, in their order.
    near: VecDeque<Entry<E>>,
    fine: Wheel<E>,
    coarse: Wheel<E>,
    /// By the number of their block of four seconds.
    far: BTreeMap<u64, Vec<Entry<E>>>,
    /// The time at which the current slot begins.
    current: u64,
    /// A buffer for what moves from one wheel to the next.
    moving: Vec<Entry<E>>,
    sequence: u64,
    now: u64,
    len: usize,
}

impl<E> Default for WheelQueue<E> {
    fn default() -> Self {
        Self {
            urgent: VecDeque::new(),
            near: VecDeque::new(),
            fine: Wheel::default(),
            coarse: Wheel::default(),
            far: BTreeMap::new(),
            current: 0,
            moving: Vec::new(),
            sequence: 0,
            now: 0,
            len: 0,
        }
    }
}

impl<E: Debug> WheelQueue<E> {
    /// Puts an entry where its time belongs.
    #[inline]
    fn put(&mut self, entry: Entry<E>) {
        let time = entry.time;
        if time >> COARSE_BITS == self.current >> COARSE_BITS && time >> FINE_BITS > self.current >> FINE_BITS
        {
            self.fine.push(place(time, FINE_BITS), entry);
        } else {
            self.put_elsewhere(entry);
        }
    }

    /// Puts in an entry that is due very soon or not soon.
    fn put_elsewhere(&mut self, entry: Entry<E>) {
        let time = entry.time;
        if time >> FINE_BITS <= self.current >> FINE_BITS {
            // Most that come are last of all, or nearly first; a deque moves the shorter side.
            let at = self.near.partition_point(|other| other.key() < entry.key());
            self.near.insert(at, entry);
        } else if time >> FAR_BITS == self.current >> FAR_BITS {
            self.coarse.push(place(time, COARSE_BITS), entry);
        } else {
            self.far.entry(time >> FAR_BITS).or_default().push(entry);
        }
    }

    /// Moves on to the next slot that holds something, and sorts its events.
    fn advance(&mut self) {
        while self.near.is_empty() {
            if let Some(next) = self.fine.next_occupied(place(self.current, FINE_BITS)) {
                self.current = begin(self.current, COARSE_BITS) + (next as u64) * (1 << FINE_BITS);
                // Most slots hold one.
                if let Some(only) = self.fine.take_only(next) {
                    self.near.push_back(only);
                    return;
                }
                let mut slot = Vec::from(std::mem::take(&mut self.near));
                self.fine.swap(next, &mut slot);
                if slot.len() > 1 {
                    slot.sort_unstable_by_key(Entry::key);
                }
                self.near = slot.into();
                return;
            }
            let mut moving = std::mem::take(&mut self.moving);
            if let Some(next) = self.coarse.next_occupied(place(self.current, COARSE_BITS)) {
                self.current = begin(self.current, FAR_BITS) + (next as u64) * (1 << COARSE_BITS);
                self.coarse.swap(next, &mut moving);
            } else if let Some((block, entries)) = self.far.pop_first() {
                self.current = block << FAR_BITS;
                moving = entries;
            } else {
                return;
            }
            moving.drain(..).for_each(|entry| self.put(entry));
            self.moving = moving;
        }
    }
}

/// The time without its lower bits.
const fn begin(time: u64, bits: u32) -> u64 {
    time >> bits << bits
}

impl<E: Debug> EventQueue<E> for WheelQueue<E> {
    #[inline]
    fn push(&mut self, at: Instant, event: E) {
        self.sequence += 1;
        self.len += 1;
        let time = at.as_nanos().max(self.now);
        let entry = Entry { time, sequence: self.sequence, event };
        if time == self.now {
            self.urgent.push_back(entry);
        } else {
            self.put(entry);
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<(Instant, E)> {
        // What was put in for now before it was now comes before what was put in since.
        let is_urgent = self
            .urgent
            .front()
            .is_some_and(|urgent| self.near.front().is_none_or(|near| urgent.key() < near.key()));
        if !is_urgent && self.near.is_empty() {
            self.advance();
        }
        let entry = if is_urgent { self.urgent.pop_front()? } else { self.near.pop_front()? };
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
    fn every_wheel_and_what_lies_beyond_them_is_reached_in_order() {
        let mut queue = WheelQueue::default();
        let times = [0, 255, 256, (1 << 20) - 1, 1 << 20, (1 << 32) - 1, 1 << 32, (1 << 32) + 1, u64::MAX];
        for time in times.into_iter().rev() {
            queue.push(Instant::from_nanos(time), time);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(_, event)| event).collect();
        assert_eq!(order, times);
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
        let scales = [1, 300, 10_000, 1_048_576, 1_048_577, 50_000_000, 3_000_000_000, 1 << 34, 1 << 50];
        for seed in 0..20 {
            let mut draw = Stream::new(seed, "queue", "test");
            let (mut wheel, mut heap) = (WheelQueue::default(), HeapQueue::default());
            let mut now = 0;
            for event in 0..20_000u32 {
                if draw.below(5) < 3 {
                    let scale = scales[usize::try_from(draw.below(9)).unwrap()];
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
