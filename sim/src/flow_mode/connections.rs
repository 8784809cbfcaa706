//! What a forwarder remembers of flows: the engine's own table, or the flows that were used last.

use std::collections::BTreeMap;

use evenkeel_engine::flow::{Birth, Departed, Direction, FlowEntry, FlowId, FlowTable, InsertError};
use evenkeel_engine::plan::Plan;
use evenkeel_engine::wire::FiveTuple;
use evenkeel_engine::{Duration, Instant};
use slab::Slab;

use super::setup::Connections;

/// Names an entry as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryId {
    Timed(FlowId),
    Lru(usize),
}

/// The flows that are known.
#[derive(Debug)]
pub(super) enum Table {
    Timed(Box<FlowTable>),
    Lru(Lru),
    None,
}

impl Table {
    pub(super) fn new(connections: Connections, plan: &Plan) -> Self {
        match connections {
            Connections::Timed | Connections::Brief => {
                let limits = &plan.limits;
                let table = FlowTable::new(limits.flows_max, limits.half_open_max, plan.hash_key);
                Self::Timed(Box::new(table))
            }
            Connections::Lru { entries } => Self::Lru(Lru::new(entries)),
            Connections::Stateless => Self::None,
        }
    }

    #[inline]
    pub(super) fn find(&mut self, hash: u64, tuple: &FiveTuple) -> Option<EntryId> {
        match self {
            Self::Timed(table) => {
                let found = table.find(hash, tuple).filter(|(_, way)| *way == Direction::Original);
                found.map(|(id, _)| EntryId::Timed(id))
            }
            Self::Lru(lru) => lru.find(hash, tuple).map(EntryId::Lru),
            Self::None => None,
        }
    }

    pub(super) fn entry(&self, id: EntryId) -> Option<&FlowEntry> {
        match (self, id) {
            (Self::Timed(table), EntryId::Timed(id)) => table.entry(id),
            (Self::Lru(lru), EntryId::Lru(place)) => lru.nodes.get(place).map(|node| &node.flow.entry),
            _ => None,
        }
    }

    pub(super) fn entry_mut(&mut self, id: EntryId) -> Option<&mut FlowEntry> {
        match (self, id) {
            (Self::Timed(table), EntryId::Timed(id)) => table.entry_mut(id),
            (Self::Lru(lru), EntryId::Lru(place)) => {
                lru.nodes.get_mut(place).map(|node| &mut node.flow.entry)
            }
            _ => None,
        }
    }

    /// Takes an entry in, and gives the one that had to go for it.
    pub(super) fn insert(
        &mut self,
        entry: FlowEntry,
        hash: u64,
    ) -> Result<(EntryId, Option<Departed>), InsertError> {
        match self {
            Self::Timed(table) => {
                table.insert(entry, hash).map(|inserted| (EntryId::Timed(inserted.id), inserted.evicted))
            }
            Self::Lru(lru) => {
                let (place, evicted) = lru.insert(entry, hash);
                Ok((EntryId::Lru(place), evicted))
            }
            Self::None => Err(InsertError::Full),
        }
    }

    pub(super) fn remove(&mut self, id: EntryId) -> Option<Departed> {
        match (self, id) {
            (Self::Timed(table), EntryId::Timed(id)) => table.remove(id),
            (Self::Lru(lru), EntryId::Lru(place)) => lru.remove(place),
            _ => None,
        }
    }

    /// Notes that a flow has begun, for a scheduler that listens.
    pub(super) fn note_beginning(&mut self, id: EntryId, now: Instant) {
        match (self, id) {
            (Self::Timed(table), EntryId::Timed(id)) => table.note_beginning(id, now),
            (Self::Lru(lru), EntryId::Lru(place)) => {
                if let Some(node) = lru.nodes.get_mut(place) {
                    node.flow.birth = Some(Birth { at: now, answered: None });
                }
            }
            _ => {}
        }
    }

    /// Notes that a flow has been answered for the first time; says how long after it began, where that was noted.
    pub(super) fn note_answer(&mut self, id: EntryId, now: Instant) -> Option<Duration> {
        match (self, id) {
            (Self::Timed(table), EntryId::Timed(id)) => table.note_answer(id, now),
            (Self::Lru(lru), EntryId::Lru(place)) => {
                let birth = lru.nodes.get_mut(place)?.flow.birth.as_mut()?;
                let after = now.since(birth.at);
                birth.answered.replace(after).is_none().then_some(after)
            }
            _ => None,
        }
    }

    pub(super) fn promote(&mut self, id: EntryId) {
        if let (Self::Timed(table), EntryId::Timed(id)) = (self, id) {
            table.promote(id);
        }
    }

    /// The entry ends earlier than it did.
    pub(super) fn reschedule(&mut self, id: EntryId) {
        if let (Self::Timed(table), EntryId::Timed(id)) = (self, id) {
            table.reschedule(id);
        }
    }

    pub(super) fn expire(&mut self, now: Instant) -> Option<Departed> {
        match self {
            Self::Timed(table) => table.expire(now),
            Self::Lru(_) | Self::None => None,
        }
    }

    /// When [`Table::expire`] may have something; the end of time if never.
    pub(super) fn next_expiry(&self) -> u64 {
        match self {
            Self::Timed(table) => table.next_expiry().map_or(u64::MAX, Instant::as_nanos),
            Self::Lru(_) | Self::None => u64::MAX,
        }
    }

    /// What was in it.
    pub(super) fn into_departed(self) -> Vec<Departed> {
        match self {
            Self::Timed(table) => table.into_departed().collect(),
            Self::Lru(lru) => lru.nodes.into_iter().map(|(_, node)| node.flow).collect(),
            Self::None => Vec::new(),
        }
    }

    /// Lets every entry be one of an older plan than any to come.
    pub(super) fn forget_generations(&mut self) {
        match self {
            Self::Timed(table) => table.set_generation(0),
            Self::Lru(lru) => lru.nodes.iter_mut().for_each(|(_, node)| node.flow.entry.generation = 0),
            Self::None => {}
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Timed(table) => table.len(),
            Self::Lru(lru) => lru.nodes.len(),
            Self::None => 0,
        }
    }

    pub(super) fn half_open(&self) -> usize {
        match self {
            Self::Timed(table) => table.half_open(),
            Self::Lru(_) | Self::None => 0,
        }
    }

    /// How many flows have room beside the half-open ones.
    pub(super) fn capacity(&self) -> usize {
        match self {
            Self::Timed(table) => table.flows_max(),
            Self::Lru(lru) => lru.most,
            Self::None => 0,
        }
    }
}

const NIL: usize = usize::MAX;

/// The flows that were used last. Whoever has not been for longest makes room.
#[derive(Debug)]
pub(super) struct Lru {
    nodes: Slab<Node>,
    /// By keyed hash. Two tuples with one hash share the place of the later one.
    places: BTreeMap<u64, usize>,
    newest: usize,
    oldest: usize,
    most: usize,
}

#[derive(Debug)]
struct Node {
    flow: Departed,
    hash: u64,
    newer: usize,
    older: usize,
}

impl Lru {
    fn new(entries: u32) -> Self {
        let most = usize::try_from(entries.max(1)).unwrap_or(usize::MAX);
        Self { nodes: Slab::new(), places: BTreeMap::new(), newest: NIL, oldest: NIL, most }
    }

    fn find(&mut self, hash: u64, tuple: &FiveTuple) -> Option<usize> {
        let place = *self.places.get(&hash)?;
        let node = self.nodes.get(place)?;
        if !node.flow.entry.is_tuple(Direction::Original, tuple) {
            return None;
        }
        if self.newest != place {
            self.unlink(place);
            self.link(place);
        }
        Some(place)
    }

    fn insert(&mut self, entry: FlowEntry, hash: u64) -> (usize, Option<Departed>) {
        let in_the_way = self.places.get(&hash).copied();
        let full = (self.nodes.len() >= self.most).then_some(self.oldest);
        let evicted = in_the_way.or(full).and_then(|place| self.remove(place));
        let place =
            self.nodes.insert(Node { flow: Departed { entry, birth: None }, hash, newer: NIL, older: NIL });
        self.places.insert(hash, place);
        self.link(place);
        (place, evicted)
    }

    fn remove(&mut self, place: usize) -> Option<Departed> {
        self.nodes.get(place)?;
        self.unlink(place);
        let node = self.nodes.remove(place);
        self.places.remove(&node.hash);
        Some(node.flow)
    }

    /// Makes the node at `place`, which is in no list, the newest.
    fn link(&mut self, place: usize) {
        let before = std::mem::replace(&mut self.newest, place);
        if let Some(node) = self.nodes.get_mut(place) {
            (node.newer, node.older) = (NIL, before);
        }
        match self.nodes.get_mut(before) {
            Some(node) => node.newer = place,
            None => self.oldest = place,
        }
    }

    fn unlink(&mut self, place: usize) {
        let Some(node) = self.nodes.get(place) else { return };
        let (newer, older) = (node.newer, node.older);
        match self.nodes.get_mut(newer) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
        match self.nodes.get_mut(older) {
            Some(node) => node.newer = newer,
            None => self.oldest = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;
    use evenkeel_engine::flow::FlowState;

    fn entry(number: u16) -> FlowEntry {
        FlowEntry { client_port: number, ..FlowEntry::new(FlowState::Established, 1) }
    }

    #[test]
    fn the_flows_that_were_used_last_are_kept() {
        let mut stream = Stream::new(1, "lru", "test");
        let mut lru = Lru::new(8);
        // The newest first.
        let mut plain: Vec<u16> = Vec::new();
        for _ in 0..3_000 {
            let number = u16::try_from(stream.below(20)).unwrap();
            let (hash, tuple) = (u64::from(number), entry(number).tuple(Direction::Original));
            let known = lru.find(hash, &tuple);
            assert_eq!(known.is_some(), plain.contains(&number));
            let is_end = stream.below(4) == 0;
            plain.retain(|other| *other != number);
            match known {
                Some(place) if is_end => assert_eq!(lru.remove(place).unwrap().entry.client_port, number),
                Some(_) => plain.insert(0, number),
                None => {
                    let (_, evicted) = lru.insert(entry(number), hash);
                    let wanted = if plain.len() == 8 { plain.pop() } else { None };
                    assert_eq!(evicted.map(|gone| gone.entry.client_port), wanted);
                    plain.insert(0, number);
                }
            }
            assert_eq!((lru.nodes.len(), lru.places.len()), (plain.len(), plain.len()));
        }
    }

    #[test]
    fn two_tuples_of_one_hash_do_not_pass_for_each_other() {
        let mut lru = Lru::new(8);
        lru.insert(entry(1), 5);
        assert_eq!(lru.find(5, &entry(2).tuple(Direction::Original)), None);
        let (_, evicted) = lru.insert(entry(2), 5);
        assert_eq!(evicted.unwrap().entry.client_port, 1);
        assert_eq!(lru.nodes.len(), 1);
    }
}
