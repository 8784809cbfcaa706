//! What happens when: events in the order of (time, sequence), where the sequence is the order in which they
//! were put in, so that events of the same time keep that order.
//!
//! Two queues with the same order: [`HeapQueue`] is the plain reference, [`WheelQueue`] the fast one. A test
//! holds them against each other.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt::Debug;

use evenkeel_engine::Instant;

/// Events that are due later.
pub trait EventQueue<E>: Debug {
    /// Puts in an event that is due at `at`; a time before the last popped one counts as that one.
    fn push(&mut self, at: Instant, event: E);

    /// The same with an event that is made where it will lie, where the queue can do so: what is put together somewhere else
    /// in small pieces, and moved in large ones, stops the processor.
    fn push_made(&mut self, at: Instant, make: impl FnOnce() -> E)
    where
        Self: Sized,
    {
        self.push(at, make());
    }

    /// Takes the next event out of the order, and gives its time, and the place where it lies to be taken from; what is left
    /// there is lost.
    fn pop_place(&mut self) -> Option<(Instant, &mut Option<E>)>;

    /// Takes out the next event and its time.
    fn pop(&mut self) -> Option<(Instant, E)> {
        let (at, place) = self.pop_place()?;
        Some((at, place.take()?))
    }

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
    /// The event that came out last, until it is taken.
    taken: Option<E>,
    sequence: u64,
    now: u64,
}

impl<E> Default for HeapQueue<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), taken: None, sequence: 0, now: 0 }
    }
}

impl<E: Debug> EventQueue<E> for HeapQueue<E> {
    #[inline(never)]
    fn push(&mut self, at: Instant, event: E) {
        self.sequence += 1;
        self.heap.push(Entry { time: at.as_nanos().max(self.now), sequence: self.sequence, event });
    }

    #[inline(never)]
    fn pop_place(&mut self) -> Option<(Instant, &mut Option<E>)> {
        let entry = self.heap.pop()?;
        self.now = entry.time;
        self.taken = Some(entry.event);
        Some((Instant::from_nanos(entry.time), &mut self.taken))
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
    #[inline(always)]
    fn push(&mut self, at: Instant, event: E) {
        match self {
            Self::Wheel(wheel) => wheel.push(at, event),
            Self::Heap(heap) => heap.push(at, event),
        }
    }

    #[inline(always)]
    fn push_made(&mut self, at: Instant, make: impl FnOnce() -> E) {
        match self {
            Self::Wheel(wheel) => wheel.push_made(at, make),
            Self::Heap(heap) => heap.push(at, make()),
        }
    }

    #[inline(always)]
    fn pop_place(&mut self) -> Option<(Instant, &mut Option<E>)> {
        match self {
            Self::Wheel(wheel) => wheel.pop_place(),
            Self::Heap(heap) => heap.pop_place(),
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

/// The number of an entry in the [`Pool`].
type Number = u32;
/// No entry.
const NONE: Number = Number::MAX;

/// Where entries lie while they wait: what is taken out makes room for what comes next, so that a few thousand packets
/// under way stay in a few lines of the processor's cache.
#[derive(Debug)]
struct Pool<E> {
    cells: Vec<Cell<E>>,
    /// The first cell without an entry, which leads to the others.
    free: Number,
}

#[derive(Debug)]
struct Cell<E> {
    time: u64,
    sequence: u64,
    /// None where the cell is free, unless nobody took what came out of it.
    event: Option<E>,
    /// The next entry of the same slot, or the next free cell.
    next: Number,
}

impl<E> Pool<E> {
    const fn new() -> Self {
        Self { cells: Vec::new(), free: NONE }
    }

    /// Puts in an entry that leads on to none.
    #[inline(always)]
    fn put(&mut self, (time, sequence): (u64, u64), make: impl FnOnce() -> E) -> Number {
        if self.free == NONE {
            self.grow();
        }
        let number = self.free;
        let Some(cell) = self.cells.get_mut(index(number)) else { return NONE };
        self.free = cell.next;
        cell.time = time;
        cell.sequence = sequence;
        cell.next = NONE;
        match &mut cell.event {
            place @ None => *place = Some(make()),
            held @ Some(_) => lost(held, make()),
        }
        number
    }

    /// Adds a free cell, where there is none.
    #[cold]
    fn grow(&mut self) {
        // Memory ends before there are so many.
        self.free = Number::try_from(self.cells.len()).unwrap_or(NONE);
        self.cells.push(Cell { time: 0, sequence: 0, event: None, next: NONE });
    }

    /// Takes out an entry: its time, and the place of its event.
    #[inline(always)]
    fn take(&mut self, number: Number) -> Option<(u64, &mut Option<E>)> {
        let cell = self.cells.get_mut(index(number))?;
        cell.next = self.free;
        self.free = number;
        Some((cell.time, &mut cell.event))
    }

    /// The place of an entry in the order.
    #[inline]
    fn key(&self, number: Number) -> (u64, u64) {
        self.cells.get(index(number)).map_or((u64::MAX, u64::MAX), |cell| (cell.time, cell.sequence))
    }

    #[inline]
    fn next(&self, number: Number) -> Number {
        self.cells.get(index(number)).map_or(NONE, |cell| cell.next)
    }

    fn lead_to(&mut self, number: Number, next: Number) {
        if let Some(cell) = self.cells.get_mut(index(number)) {
            cell.next = next;
        }
    }
}

/// Nobody has taken the event that was there when it came out.
#[cold]
fn lost<E>(held: &mut Option<E>, event: E) {
    *held = Some(event);
}

/// One wheel: slots in the order of time, each with the entry that came last, which leads to those before it; and a bit
/// for each slot that holds something.
#[derive(Debug)]
struct Wheel {
    slots: Box<[Number; SLOTS]>,
    occupied: [u64; SLOTS / 64],
}

impl Default for Wheel {
    fn default() -> Self {
        Self { slots: Box::new([NONE; SLOTS]), occupied: [0; SLOTS / 64] }
    }
}

impl Wheel {
    /// The slot of a place, which will hold something.
    #[inline(always)]
    fn slot(&mut self, place: usize) -> Option<&mut Number> {
        let place = place % SLOTS;
        if let Some(word) = self.occupied.get_mut(place / 64) {
            *word |= 1 << (place % 64);
        }
        self.slots.get_mut(place)
    }

    /// The next slot behind `place` that holds something.
    #[inline]
    fn next_occupied(&self, place: usize) -> Option<usize> {
        let start = place + 1;
        let first = self.occupied.get(start / 64)? & (u64::MAX << (start % 64));
        if first != 0 {
            return Some(start / 64 * 64 + bit(first));
        }
        let rest = self.occupied.iter().enumerate().skip(start / 64 + 1);
        rest.filter(|(_, word)| **word != 0).map(|(index, word)| index * 64 + bit(*word)).next()
    }

    /// Empties a slot, and gives the last of its entries.
    #[inline]
    fn empty(&mut self, place: usize) -> Number {
        let place = place % SLOTS;
        if let Some(word) = self.occupied.get_mut(place / 64) {
            *word &= !(1 << (place % 64));
        }
        self.slots.get_mut(place).map_or(NONE, |slot| std::mem::replace(slot, NONE))
    }
}

/// The place of the lowest bit.
const fn bit(word: u64) -> usize {
    word.trailing_zeros() as usize
}

/// The place in a wheel of a time, of which the wheel sees what is above `bits`.
const fn place(time: u64, bits: u32) -> usize {
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
    pool: Pool<E>,
    /// Events that are due at once: those of now that came while it was now, in their order.
    urgent: VecDeque<Number>,
    /// Events of the current slot and before; the first of them is last.
    near: Vec<Number>,
    fine: Wheel,
    coarse: Wheel,
    /// By the number of their block of four seconds, the last that came.
    far: BTreeMap<u64, Number>,
    /// The time at which the current slot begins.
    current: u64,
    sequence: u64,
    now: u64,
    len: usize,
}

impl<E> Default for WheelQueue<E> {
    fn default() -> Self {
        Self {
            pool: Pool::new(),
            urgent: VecDeque::new(),
            near: Vec::new(),
            fine: Wheel::default(),
            coarse: Wheel::default(),
            far: BTreeMap::new(),
            current: 0,
            sequence: 0,
            now: 0,
            len: 0,
        }
    }
}

impl<E: Debug> WheelQueue<E> {
    /// Whether the next entry is one that came for now. What was put in for now before it was now comes before it.
    #[inline(always)]
    fn has_urgent(&self) -> bool {
        !self.urgent.is_empty() && self.near.last().is_none_or(|near| self.pool.key(*near).0 > self.now)
    }

    /// Whether an entry of this time belongs into a slot of the fine wheel.
    #[inline(always)]
    const fn is_fine(&self, time: u64) -> bool {
        time >> COARSE_BITS == self.current >> COARSE_BITS && time >> FINE_BITS > self.current >> FINE_BITS
    }

    /// Puts an entry that is in the pool where its time belongs.
    #[inline(never)]
    fn sort_in(&mut self, number: Number) {
        let key = self.pool.key(number);
        let (time, _) = key;
        if time >> FINE_BITS <= self.current >> FINE_BITS {
            let pool = &self.pool;
            let at = self.near.partition_point(|other| pool.key(*other) > key);
            return self.near.insert(at, number);
        }
        let slot = if self.is_fine(time) {
            self.fine.slot(place(time, FINE_BITS))
        } else if time >> FAR_BITS == self.current >> FAR_BITS {
            self.coarse.slot(place(time, COARSE_BITS))
        } else {
            Some(self.far.entry(time >> FAR_BITS).or_insert(NONE))
        };
        if let Some(slot) = slot {
            self.pool.lead_to(number, std::mem::replace(slot, number));
        }
    }

    /// Moves on to the next slot that holds something, sorts its events and takes the first of them.
    #[inline(never)]
    fn advance(&mut self) -> Option<Number> {
        loop {
            if let Some(next) = self.fine.next_occupied(place(self.current, FINE_BITS)) {
                self.current = begin(self.current, COARSE_BITS) + (next as u64) * (1 << FINE_BITS);
                let last = self.fine.empty(next);
                // Most slots hold one.
                let mut rest = self.pool.next(last);
                if rest == NONE {
                    return Some(last);
                }
                // They come out from the last to the first, and have mostly come in their order.
                self.near.push(last);
                let mut behind = self.pool.key(last);
                let mut is_sorted = true;
                while rest != NONE {
                    self.near.push(rest);
                    let key = self.pool.key(rest);
                    is_sorted &= key < behind;
                    behind = key;
                    rest = self.pool.next(rest);
                }
                if !is_sorted {
                    let pool = &self.pool;
                    self.near.sort_unstable_by_key(|number| Reverse(pool.key(*number)));
                }
                return self.near.pop();
            }
            let mut moving = NONE;
            if let Some(next) = self.coarse.next_occupied(place(self.current, COARSE_BITS)) {
                self.current = begin(self.current, FAR_BITS) + (next as u64) * (1 << COARSE_BITS);
                moving = self.coarse.empty(next);
            } else if let Some((block, last)) = self.far.pop_first() {
                self.current = block << FAR_BITS;
                moving = last;
            }
            if moving == NONE {
                return None;
            }
            while moving != NONE {
                let next = self.pool.next(moving);
                self.sort_in(moving);
                moving = next;
            }
            // What is due in the first slot of what has been moved is near now.
            if let Some(first) = self.near.pop() {
                return Some(first);
            }
        }
    }
}

/// The time without its lower bits.
const fn begin(time: u64, bits: u32) -> u64 {
    time >> bits << bits
}

fn index(number: Number) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl<E: Debug> EventQueue<E> for WheelQueue<E> {
    #[inline(always)]
    fn push(&mut self, at: Instant, event: E) {
        self.push_made(at, || event);
    }

    #[inline(always)]
    fn push_made(&mut self, at: Instant, make: impl FnOnce() -> E) {
        self.sequence += 1;
        self.len += 1;
        let time = at.as_nanos().max(self.now);
        // Put in before it is sorted in, so that it is written where it will lie and nowhere else.
        let number = self.pool.put((time, self.sequence), make);
        if time == self.now {
            self.urgent.push_back(number);
        } else if self.is_fine(time)
            && let Some(slot) = self.fine.slot(place(time, FINE_BITS))
        {
            self.pool.lead_to(number, std::mem::replace(slot, number));
        } else {
            self.sort_in(number);
        }
    }

    #[inline(always)]
    fn pop_place(&mut self) -> Option<(Instant, &mut Option<E>)> {
        let number = if self.has_urgent() {
            self.urgent.pop_front()?
        } else if let Some(number) = self.near.pop() {
            number
        } else {
            self.advance()?
        };
        let (time, place) = self.pool.take(number)?;
        self.now = time;
        self.len -= 1;
        Some((Instant::from_nanos(time), place))
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
    fn an_event_that_nobody_takes_is_lost_and_no_other() {
        let mut queues: [Box<dyn EventQueue<Box<u8>>>; 2] =
            [Box::new(WheelQueue::default()), Box::new(HeapQueue::default())];
        for queue in &mut queues {
            (1..=3).for_each(|event| queue.push(Instant::from_nanos(5), Box::new(event)));
            assert_eq!(queue.pop_place().unwrap().1.as_deref(), Some(&1));
            queue.push(Instant::from_nanos(5), Box::new(4));
            let rest: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(_, event)| *event).collect();
            assert_eq!((rest, queue.len()), (vec![2, 3, 4], 0));
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
