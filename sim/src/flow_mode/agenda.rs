//! What is planned for later, in the order of its time; of the same time, in the order in which it was planned.
//!
//! A radix heap (Ahuja, Mehlhorn, Orlin and Tarjan, 1990): time never runs back, so an entry lies in the bucket of the
//! highest bit in which its time differs from the last one taken out, and moves to lower buckets as time
//! comes near. Each entry moves at most 64 times, whatever the number of entries; equal times stay together.

/// Planned things.
#[derive(Debug)]
pub(super) struct Agenda<T> {
    /// Bucket 0 holds what is due at `last`, from `front` on.
    buckets: Vec<Vec<(u64, T)>>,
    front: usize,
    last: u64,
    /// The least time; the end of time without entries.
    next: u64,
    len: usize,
}

/// One for each bit, and one for no difference.
const BUCKETS: usize = 65;

impl<T: Copy> Agenda<T> {
    pub(super) fn new() -> Self {
        let buckets = (0..BUCKETS).map(|_| Vec::new()).collect();
        Self { buckets, front: 0, last: 0, next: u64::MAX, len: 0 }
    }

    /// Plans `what` at `time`; a time before the last one taken out counts as that one.
    pub(super) fn push(&mut self, time: u64, what: T) {
        let time = time.max(self.last);
        let place = bucket(time, self.last);
        if let Some(bucket) = self.buckets.get_mut(place) {
            bucket.push((time, what));
            self.len += 1;
            self.next = self.next.min(time);
        }
    }

    /// The least time; the end of time if there is nothing.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Takes out what is first.
    pub(super) fn pop(&mut self) -> Option<(u64, T)> {
        if self.len == 0 {
            return None;
        }
        if self.next > self.last {
            self.spread();
        }
        let first = self.buckets.first_mut()?;
        let found = *first.get(self.front)?;
        self.front += 1;
        self.len -= 1;
        if self.front == first.len() {
            first.clear();
            self.front = 0;
            self.next = self.least();
        }
        Some(found)
    }

    #[cfg(test)]
    const fn len(&self) -> usize {
        self.len
    }

    /// Moves the entries of the lowest bucket to where they belong when the least of them is the last time.
    fn spread(&mut self) {
        let Some(lowest) = self.buckets.iter().position(|bucket| !bucket.is_empty()) else { return };
        self.last = self.next;
        let mut entries = self.buckets.get_mut(lowest).map(std::mem::take).unwrap_or_default();
        for (time, what) in entries.drain(..) {
            if let Some(bucket) = self.buckets.get_mut(bucket(time, self.last)) {
                bucket.push((time, what));
            }
        }
        // The room stays with the bucket.
        if let Some(place) = self.buckets.get_mut(lowest).filter(|bucket| bucket.is_empty()) {
            *place = entries;
        }
    }

    /// The least time of all: that of the lowest bucket.
    fn least(&self) -> u64 {
        let lowest = self.buckets.iter().find(|bucket| !bucket.is_empty());
        let times = lowest.into_iter().flatten().map(|(time, _)| *time);
        times.min().unwrap_or(u64::MAX)
    }
}

const fn bucket(time: u64, last: u64) -> usize {
    (u64::BITS - (time ^ last).leading_zeros()) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{EventQueue, HeapQueue};
    use crate::random::Stream;
    use evenkeel_engine::Instant;

    #[test]
    fn entries_come_out_as_from_a_plain_heap() {
        let mut stream = Stream::new(1, "agenda", "test");
        let (mut agenda, mut plain) = (Agenda::new(), HeapQueue::default());
        let mut now = 0;
        for number in 0..20_000_u32 {
            if stream.below(5) < 3 {
                // Many at the same time, some far away.
                let span = 1 << stream.below(40);
                let time = now + (stream.below(span) & !3);
                agenda.push(time, number);
                plain.push(Instant::from_nanos(time), number);
            } else {
                let expected = plain.pop().map(|(time, number)| (time.as_nanos(), number));
                assert_eq!(agenda.next(), expected.map_or(u64::MAX, |(time, _)| time));
                assert_eq!(agenda.pop(), expected);
                now = expected.map_or(now, |(time, _)| time);
            }
            assert_eq!(agenda.len(), plain.len());
        }
        while let Some((time, number)) = plain.pop() {
            assert_eq!(agenda.pop(), Some((time.as_nanos(), number)));
        }
        assert_eq!((agenda.pop(), agenda.next()), (None, u64::MAX));
    }

    #[test]
    fn looking_at_the_next_time_does_not_move_time() {
        let mut agenda = Agenda::new();
        agenda.push(100, 'b');
        assert_eq!(agenda.next(), 100);
        agenda.push(60, 'a');
        assert_eq!([agenda.pop(), agenda.pop()], [Some((60, 'a')), Some((100, 'b'))]);
        agenda.push(5, 'c');
        assert_eq!(agenda.pop(), Some((100, 'c')), "the past is now");
    }
}
