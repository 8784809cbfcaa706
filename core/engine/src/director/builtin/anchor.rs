//! `anchor`: AnchorHash. A flow hashes into all buckets that there may ever be; where its bucket is not working, it
//! hashes again among those that were working when that one left.
//!
//! ```text
//! flow -> bucket 6 (left when 5 were working) -> one of those 5: bucket 2 (works)
//! ```
//!
//! Perfectly even, and minimal: a server that goes moves its own flows only, 1/n of all, and one that comes takes 1/(n + 1). Memory for
//! `capacity` buckets (four times the servers at first, when not given); beyond it everything is built anew. Weights are ignored except 0.
//! A server that comes takes the bucket that was left last, so who has which depends on the order of events; forwarders that start with the
//! same servers agree until these change. A flow is settled when it met no bucket that the servers of the plan that may come back would take. A flow whose server is full
//! hashes again. O(1 + ln(capacity / servers)^2) per flow. Sources: Mendelson, Vargaftik, Barabash, Lorenz, Keslassy, Orda,
//! "AnchorHash: A Scalable Consistent Hash", IEEE/ACM ToN 2021; the same, "JET", CoNEXT 2021.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::draw::mix;
use super::held;
use super::key::Keyed;
use super::slots::{Slots, capacity};
use crate::director::{NewFlow, PickInputs, Scheduler, Selection, ServerView};
use crate::plan::Options;
use crate::time::Instant;

/// How often a flow whose server is full hashes again before it takes any that is not.
const TRIES: u64 = 64;

#[derive(Clone, Debug)]
pub(super) struct AnchorHash {
    keyed: Keyed,
    wanted: Option<u32>,
    anchor: Anchor,
    slots: Slots,
    /// Servers of the plan that may come back.
    absent: usize,
}

/// Buckets, working or not.
#[derive(Clone, Debug, Default)]
struct Anchor {
    /// How many worked just after each left; 0 while it works.
    left: Vec<u32>,
    /// Who works, in the first places; and where each stands there, or stood.
    working: Vec<u32>,
    stands: Vec<u32>,
    /// Who took the place of each that left.
    successor: Vec<u32>,
    /// Those that left, the last one last.
    stack: Vec<u32>,
    count: u32,
}

impl Anchor {
    /// `capacity` buckets, none of them working; the first to come takes bucket 0.
    fn new(capacity: usize) -> Self {
        let all: Vec<u32> = (0..u32::try_from(capacity).unwrap_or(u32::MAX)).collect();
        Self {
            left: all.clone(),
            working: all.clone(),
            stands: all.clone(),
            successor: all.clone(),
            stack: all.into_iter().rev().collect(),
            count: 0,
        }
    }

    fn at(list: &[u32], place: u32) -> u32 {
        list.get(place as usize).copied().unwrap_or(0)
    }

    fn set(list: &mut [u32], place: u32, value: u32) {
        if let Some(slot) = list.get_mut(place as usize) {
            *slot = value;
        }
    }

    /// Takes the bucket that left last back to work.
    fn add(&mut self) -> Option<usize> {
        let bucket = self.stack.pop()?;
        let count = self.count;
        Self::set(&mut self.left, bucket, 0);
        Self::set(&mut self.stands, Self::at(&self.working, count), count);
        Self::set(&mut self.working, Self::at(&self.stands, bucket), bucket);
        Self::set(&mut self.successor, bucket, bucket);
        self.count += 1;
        usize::try_from(bucket).ok()
    }

    /// Takes a bucket that works out of work.
    fn remove(&mut self, bucket: usize) {
        let Ok(bucket) = u32::try_from(bucket) else { return };
        self.stack.push(bucket);
        self.count -= 1;
        let last = Self::at(&self.working, self.count);
        let stood = Self::at(&self.stands, bucket);
        Self::set(&mut self.left, bucket, self.count);
        Self::set(&mut self.working, stood, last);
        Self::set(&mut self.stands, last, stood);
        Self::set(&mut self.successor, bucket, last);
    }

    /// The bucket of `key`, and the least number of working buckets after which one that it met on the way had left.
    fn find(&self, key: u64) -> Option<(usize, u32)> {
        if self.count == 0 {
            return None;
        }
        let mut least = u32::MAX;
        let mut bucket = within(mix(key), self.left.len());
        loop {
            // 0 also stands for a bucket that left nobody at work. It is the first to come back, so now it works.
            let left = Self::at(&self.left, bucket);
            if left == 0 {
                return Some((bucket as usize, least));
            }
            least = least.min(left);
            let mut next = within(mix(key ^ mix(u64::from(bucket) + 1)), left as usize);
            while Self::at(&self.left, next) >= left {
                next = Self::at(&self.successor, next);
            }
            bucket = next;
        }
    }
}

impl AnchorHash {
    pub(super) fn new(options: &Options, seed: u64) -> Self {
        Self {
            keyed: Keyed::new(options.key, seed),
            wanted: options.capacity,
            anchor: Anchor::default(),
            slots: Slots::default(),
            absent: 0,
        }
    }
}

impl Scheduler for AnchorHash {
    fn name(&self) -> &'static str {
        "anchor"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn inputs(&self, flow: &NewFlow) -> PickInputs {
        self.keyed.inputs(flow)
    }

    fn memory_bytes(&self) -> u64 {
        held::total(
            self,
            &[
                &self.anchor.left,
                &self.anchor.working,
                &self.anchor.stands,
                &self.anchor.successor,
                &self.anchor.stack,
                &self.slots,
            ],
        )
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        let members = servers.iter().filter(|server| server.is_member()).count();
        self.absent = servers.len() - members;
        if members > self.slots.capacity() || self.slots.capacity() == 0 {
            let capacity = capacity(self.wanted, servers.len());
            self.anchor = Anchor::new(capacity);
            self.slots = Slots::with_capacity(capacity);
        }
        let changes = self.slots.compare(servers);
        for bucket in changes.gone {
            self.anchor.remove(bucket);
            self.slots.leave(bucket);
        }
        for (id, place) in changes.come {
            if let Some(bucket) = self.anchor.add() {
                self.slots.take(bucket, id, place);
            }
        }
    }

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        let horizon = self.slots.len() + self.absent;
        for (flow, new) in selection.flows().iter().enumerate() {
            let key = self.keyed.hash(new);
            let Some((bucket, least)) = self.anchor.find(key) else { return };
            if self.slots.place(bucket).is_some_and(|server| selection.assign(flow, server)) {
                if least as usize >= horizon {
                    selection.mark_settled(flow);
                }
                continue;
            }
            let again = (1..TRIES).filter_map(|n| self.anchor.find(mix(key.wrapping_add(n))));
            let others = again.map(|(bucket, _)| bucket).chain(0..self.slots.capacity());
            for bucket in others {
                if self.slots.place(bucket).is_some_and(|server| selection.assign(flow, server)) {
                    break;
                }
            }
        }
    }
}

/// A hash spread evenly over `count` places.
fn within(hash: u64, count: usize) -> u32 {
    let product = u128::from(hash) * count as u128;
    u32::try_from(product >> 64).unwrap_or(0)
}
