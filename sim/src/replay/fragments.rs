//! Fragments of a capture that say too little by themselves: only the first of a datagram names ports. The others follow
//! it, and those that were captured before it wait for it.

use std::collections::{BTreeMap, VecDeque};

use evenkeel_engine::wire::{Address, Protocol};

use super::headers::{Fragment, Header};

/// Datagrams whose first fragment is remembered: as many as the engine has under way.
const DATAGRAMS_MAX: usize = 1_024;
/// Fragments that wait for their first one, in all datagrams together.
const WAITING_MAX: usize = 128;

/// What the fragments of a datagram have in common.
type Key = (Address, Address, Protocol, u32);

/// A fragment that waits, as it was captured.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) number: u64,
    pub(super) bytes: Vec<u8>,
}

/// The datagrams under way.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    /// The ports of each datagram whose first fragment has come.
    known: BTreeMap<Key, (u16, u16)>,
    /// The same, the oldest first.
    order: VecDeque<Key>,
    waiting: VecDeque<(Key, Waiting)>,
}

/// What to do with a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follow {
    /// It is the first of its datagram.
    First,
    /// It belongs to a datagram with these ports.
    Known(u16, u16),
    /// Its first one has not come.
    Wait,
}

fn key(header: &Header, fragment: Fragment) -> Key {
    let tuple = &header.tuple;
    (tuple.source, tuple.destination, tuple.protocol, fragment.identification)
}

impl Fragments {
    /// What to do with a fragment. The first of a datagram is remembered.
    pub(super) fn look(&mut self, header: &Header, fragment: Fragment) -> Follow {
        let key = key(header, fragment);
        if !fragment.is_first {
            return self.known.get(&key).map_or(Follow::Wait, |(from, to)| Follow::Known(*from, *to));
        }
        if self.known.insert(key, (header.tuple.source_port, header.tuple.destination_port)).is_none() {
            self.order.push_back(key);
            if self.order.len() > DATAGRAMS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
        Follow::First
    }

    /// Keeps a fragment until its first one comes. Gives back the one that has to go for it.
    pub(super) fn hold(&mut self, header: &Header, fragment: Fragment, waiting: Waiting) -> Option<Waiting> {
        let gives_way = if self.waiting.len() >= WAITING_MAX { self.waiting.pop_front() } else { None };
        self.waiting.push_back((key(header, fragment), waiting));
        gives_way.map(|(_, waiting)| waiting)
    }

    /// Those that waited for the first fragment that `header` describes, in order.
    pub(super) fn release(&mut self, header: &Header, fragment: Fragment) -> Vec<Waiting> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let wanted = key(header, fragment);
        let all = std::mem::take(&mut self.waiting);
        let (released, kept): (VecDeque<_>, _) = all.into_iter().partition(|(key, _)| *key == wanted);
        self.waiting = kept;
        released.into_iter().map(|(_, waiting)| waiting).collect()
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::headers::Kind;
    use super::*;
    use evenkeel_engine::wire::FiveTuple;

    fn header(identification: u32, is_first: bool) -> (Header, Fragment) {
        let fragment = Fragment { identification, is_first };
        let (source_port, destination_port) = if is_first { (5, 6) } else { (0, 0) };
        let tuple =
            FiveTuple { source_port, destination_port, protocol: Protocol::UDP, ..FiveTuple::default() };
        (Header { tuple, layer_4: 20, end: 60, kind: Kind::Other, fragment: Some(fragment) }, fragment)
    }

    fn waiting(number: u64) -> Waiting {
        Waiting { number, bytes: Vec::new() }
    }

    #[test]
    fn later_fragments_follow_the_first_and_earlier_ones_wait_for_it() {
        let mut fragments = Fragments::default();
        let (first, first_fragment) = header(1, true);
        let (later, fragment) = header(1, false);
        assert_eq!(fragments.look(&later, fragment), Follow::Wait);
        assert!(fragments.hold(&later, fragment, waiting(1)).is_none());
        let (other, other_fragment) = header(2, false);
        assert!(fragments.hold(&other, other_fragment, waiting(2)).is_none());
        assert_eq!(fragments.look(&first, first_fragment), Follow::First);
        let released = fragments.release(&first, first_fragment);
        assert_eq!(released.iter().map(|one| one.number).collect::<Vec<_>>(), [1]);
        assert_eq!(fragments.look(&later, fragment), Follow::Known(5, 6));
        assert_eq!(fragments.waiting(), 1);
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let mut fragments = Fragments::default();
        for number in 0..2_000 {
            let (first, fragment) = header(number, true);
            assert_eq!(fragments.look(&first, fragment), Follow::First);
            let (later, fragment) = header(number + 10_000, false);
            let gone = fragments.hold(&later, fragment, waiting(u64::from(number)));
            assert_eq!(gone.is_some(), fragments.waiting() == WAITING_MAX && number >= 128);
        }
        assert_eq!((fragments.known.len(), fragments.waiting()), (DATAGRAMS_MAX, WAITING_MAX));
        let (old, fragment) = header(0, false);
        assert_eq!(fragments.look(&old, fragment), Follow::Wait);
    }
}
