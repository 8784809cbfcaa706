//! What the engine counts. Every packet that comes in is counted once as it comes and once as it ends:
//! `packets_in = forwarded + answered + consumed + dropped + waiting`.

use crate::verdict::{DropReason, Verdict};

/// How many reasons there are.
const REASONS: usize = DropReason::ALL.len();

/// The counters of one engine. They only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets taken in.
    pub packets_in: u64,
    /// Bytes taken in.
    pub bytes_in: u64,
    /// Packets that left for a real server or a client.
    pub forwarded: u64,
    /// Packets that were turned into an answer to their sender.
    pub answered: u64,
    /// Packets that were for the engine itself.
    pub consumed: u64,
    /// Packets that are kept now: for a neighbour that has not answered, or a first fragment that has not come.
    pub waiting: u64,
    /// Packets that were not ours and were passed on as they came; they count as forwarded too.
    pub passed: u64,
    /// Packets that were cut since they did not fit; they count as forwarded once.
    pub cut: u64,
    /// Half-open flows that gave way to newer ones.
    pub half_open_evicted: u64,
    /// Packets that were born here and left: ICMP errors, ARP requests.
    pub born: u64,
    /// Packets that were born here and found no place to leave by.
    pub born_lost: u64,
    /// Flows that were entered into the flow table.
    pub flows_opened: u64,
    /// Flows that left the flow table.
    pub flows_closed: u64,
    /// Resets that were sent about TCP packets of unknown flows, which count as dropped.
    pub resets: u64,
    /// Calls to schedulers, native or guest. Packets of established flows cause none.
    pub scheduler_calls: u64,
    /// How often a director got another scheduler while it worked, by an operator's word.
    pub scheduler_changes: u64,
    /// Questions to agents of real servers.
    pub agent_checks: u64,
    /// Questions that agents have answered.
    pub agent_answers: u64,
    /// Questions that they have not: no connection, no answer in time, or none that can be read.
    pub agent_failures: u64,
    /// Words of their answers that mean nothing.
    pub agent_bad_words: u64,
    /// Events that were lost because nobody fetched them.
    pub events_lost: u64,
    dropped: [u64; REASONS],
}

impl Counters {
    /// Counts one dropped packet.
    pub(crate) fn count_drop(&mut self, reason: DropReason) {
        if let Some(count) = self.dropped.get_mut(reason as usize) {
            *count += 1;
        }
    }

    /// Counts how a packet ended.
    #[inline]
    pub(crate) fn count_end(&mut self, end: Verdict) {
        match end {
            Verdict::Forward(_) | Verdict::Replace(_) => self.forwarded += 1,
            Verdict::Answer(_) => self.answered += 1,
            Verdict::Consume => self.consumed += 1,
            Verdict::Hold => self.waiting += 1,
            Verdict::Drop(reason) => self.count_drop(reason),
        }
    }

    /// Counts packets that were kept and went nowhere after all.
    pub(crate) fn give_up(&mut self, reason: DropReason, count: u64) {
        self.waiting = self.waiting.saturating_sub(count);
        if let Some(dropped) = self.dropped.get_mut(reason as usize) {
            *dropped += count;
        }
    }

    /// Packets that were dropped for `reason`.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped.get(reason as usize).copied().unwrap_or(0)
    }

    /// Every reason with its count, in the order of [`DropReason::ALL`].
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().copied().zip(self.dropped.iter().copied())
    }

    /// Packets that were dropped, for all reasons together.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Whether every packet that came in has had exactly one end.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        let ended = self.forwarded + self.answered + self.consumed + self.dropped_total();
        self.packets_in == ended + self.waiting
    }
}
