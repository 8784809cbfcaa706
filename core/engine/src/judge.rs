//! Packets of open flows before policies that judge every packet.
//!
//! In: the packets of a batch that may go on. Out: an end for those that a policy denies. A plan without such a policy
//! never comes here. Errors about a flow and fragments behind the first are not asked about: the one says nothing of its
//! own, and the others go the way of their first.

use crate::device::{Device, PacketBuffer};
use crate::engine::Engine;
use crate::flow::Direction;
use crate::journal::notes::judge_aloud;
use crate::permit;
use crate::policy::{Moment, PolicyFlow, PolicyVerdict};
use crate::time::Instant;
use crate::verdict::{DropReason, Verdict};
use crate::walk::{Validity, Walk};

use alloc::vec::Vec;

/// Room for the questions of one batch, allocated once.
#[derive(Debug, Default)]
pub(crate) struct Judging {
    slots: Vec<usize>,
    asking: Vec<PolicyFlow>,
    met: Vec<u8>,
}

impl Engine {
    /// Asks policies about those packets of open flows whose flows have met them, all of a batch at once.
    #[cold]
    pub(crate) fn judge_packets<D: Device>(&mut self, device: &mut D, walks: &mut [Walk], now: Instant) {
        let mut judging = core::mem::take(&mut self.judging);
        judging.slots.clear();
        judging.asking.clear();
        judging.met.clear();
        for (slot, walk) in walks.iter_mut().enumerate() {
            if walk.end.is_none()
                && walk.subject.has_ports()
                && let Some((asking, met)) = self.question(&device.packet(slot), walk, now)
            {
                judging.slots.push(slot);
                judging.asking.push(asking);
                judging.met.push(met);
            }
        }
        if !judging.asking.is_empty() {
            if let Some(journal) = &mut self.journal {
                let (met, slots) = (&*judging.met, &*judging.slots);
                judge_aloud(&mut self.chain, journal, &judging.asking, (met, slots), now);
            } else {
                self.chain.judge(&judging.asking, judging.met.iter().copied(), now);
            }
            for (slot, decided) in judging.slots.iter().zip(self.chain.decided()) {
                if decided.verdict == PolicyVerdict::Deny
                    && let Some(walk) = walks.get_mut(*slot)
                {
                    walk.end = Some(Verdict::Drop(DropReason::PolicyDenied));
                }
            }
            for slot in &judging.slots {
                if let Some(walk) = walks.get(*slot).filter(|walk| walk.end.is_some()) {
                    self.refuse_fragments(&mut device.packet(*slot), walk);
                }
            }
            self.fetch_policy_faults();
        }
        self.judging = judging;
    }

    /// What policies see of a packet, and which of them judge it; nothing where it belongs to no open flow or to one that
    /// none of them has met.
    fn question(
        &mut self,
        packet: &PacketBuffer<'_>,
        walk: &mut Walk,
        now: Instant,
    ) -> Option<(PolicyFlow, u8)> {
        let (id, direction) = self.flows.find(walk.hash, &walk.tuple)?;
        let entry = self.flows.entry(id)?;
        if entry.expires <= now {
            return None;
        }
        if entry.generation != self.generation {
            match self.revalidate(id) {
                Validity::Valid => {}
                Validity::Gone => return None,
                Validity::Refused(reason) => {
                    walk.end = Some(Verdict::Drop(reason));
                    return None;
                }
            }
        }
        let entry = self.flows.entry(id)?;
        let met = entry.traits.judges();
        if met == 0 {
            return None;
        }
        let tuple = entry.tuple(Direction::Original);
        let (hash, moment) = match direction {
            Direction::Original => (walk.hash, Moment::FromClient),
            Direction::Reply => (tuple.hash(self.flows.key()), Moment::FromServer),
        };
        Some((PolicyFlow { hash, tuple, moment, ..permit::asking(packet, walk) }, met))
    }
}
