//! What walks say of themselves while somebody listens: for each packet, every decision on its way and what it was
//! made of.
//!
//! An engine without a journal says nothing, and a packet of a known flow pays nothing for it: whether there is one is
//! asked once for each batch. What is written changes no decision. A journal has room for so many accounts; who does
//! not fetch them loses some, and knows how many.
//!
//! ```text
//! walk of a batch -> one account for each packet that the filter may want -> finished, filtered -> fetched by the driver
//! ```

mod account;
mod filter;
pub(crate) mod notes;

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::fmt;

pub use account::{
    Account, Candidate, Change, Known, Note, Pick, Review, Route, Ruling, Settlement, Step, Stick, Study, Way,
};
pub use filter::{Facts, Filter, Quality};

use crate::device::BATCH_MAX;
use crate::director::sticky;
use crate::flow::fragments::FragmentKey;
use crate::nat::PoolKey;
use crate::policy::PolicyVerdict;
use crate::time::Instant;
use crate::verdict::{InterfaceId, Verdict};
use crate::wire::{Address, FiveTuple};

/// Accounts that wait to be fetched at most. A driver fetches after each batch; what is left are those of a reader that
/// does not keep up.
pub const WAITING_MAX: usize = 1024;

/// Bytes of a packet that an account keeps when nobody asks for more: all headers, and some payload.
pub const SNAP_BYTES: usize = 256;

/// Findings about rules that one account keeps at most, so that a hundred thousand rules fill no memory when every packet
/// is told about.
pub const FINDINGS_MAX: usize = 65_536;

/// Tells the time in nanoseconds, from any beginning: how a driver that has a clock lends it to a journal. No decision
/// is made by it.
pub type Stopwatch = Box<dyn FnMut() -> u64 + Send>;

/// What to write down.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Which packets.
    pub filter: Filter,
    /// Stop after so many accounts.
    pub count: Option<u64>,
    /// Bytes to keep of each packet, before and after.
    pub snap_bytes: usize,
    /// Every rule that was looked at and every real server that was considered; else only who decided.
    pub is_thorough: bool,
}

/// Accounts of walks.
pub struct Journal {
    wish: Wish,
    stopwatch: Option<Stopwatch>,
    /// When the last note was written.
    last: u64,
    /// Of the packets of this batch, by slot.
    open: Vec<Option<Account>>,
    /// The slot that is talked about.
    current: usize,
    done: VecDeque<Account>,
    written: u64,
    lost: u64,
    /// What of the engine's state has been looked at.
    pub(crate) touched: Touched,
}

/// What of an engine's state a walk has looked at: so much is enough to walk it again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Tuples that were looked up, or entered.
    pub tuples: Vec<FiveTuple>,
    /// Who was looked up among the clients that stick.
    pub sticks: Vec<sticky::Key>,
    /// Ports that were chosen from.
    pub pools: Vec<PoolKey>,
    /// The places of directors whose schedulers were asked.
    pub schedulers: BTreeSet<u16>,
    /// The places in the chain of policies that were asked.
    pub policies: BTreeSet<usize>,
    /// The places among the components about packets that leave, of those that were asked.
    pub outflow_guests: BTreeSet<usize>,
    /// Who policies were asked about: source and destination.
    pub asked: Option<(Address, Address)>,
    /// The same of those about packets that leave.
    pub asked_leaving: Option<(Address, Address)>,
    /// Of which datagram the fragments under way mattered.
    pub datagram: Option<FragmentKey>,
    /// What components about policy answered, in the order of the questions.
    pub answers: Vec<PolicyTold>,
}

/// What a component about policy said of one packet, after the limit that it named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyTold {
    /// Whether it was asked among those about packets that leave.
    pub is_leaving: bool,
    /// Its place in the chain, or among those.
    pub place: u16,
    /// Which packet it was asked about.
    pub tuple: FiveTuple,
    /// What it said.
    pub verdict: PolicyVerdict,
}

impl fmt::Debug for Journal {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wish, written, lost, done, .. } = self;
        form.debug_struct("Journal")
            .field("wish", wish)
            .field("written", written)
            .field("lost", lost)
            .field("waiting", &done.len())
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// A journal that writes down what `wish` says. With a stopwatch, notes say how long each step took.
    #[must_use]
    pub fn new(wish: Wish, stopwatch: Option<Stopwatch>) -> Self {
        Self {
            wish,
            stopwatch,
            last: 0,
            open: Vec::new(),
            current: 0,
            done: VecDeque::new(),
            written: 0,
            lost: 0,
            touched: Touched::default(),
        }
    }

    /// The oldest account that has not been fetched.
    pub fn poll(&mut self) -> Option<Account> {
        self.done.pop_front()
    }

    /// Accounts that were wanted and found no room.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether as many accounts as were wished for have been written.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.wish.count.is_some_and(|count| self.written >= count)
    }

    /// Whether nothing waits to be fetched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.done.is_empty()
    }

    /// The slot that is talked about.
    pub(crate) const fn slot(&self) -> usize {
        self.current
    }

    /// Whether everything that was looked at is written down.
    pub(crate) const fn is_thorough(&self) -> bool {
        self.wish.is_thorough
    }

    /// Notes that the flow table was asked about `tuple`.
    pub(crate) fn touch_tuple(&mut self, tuple: FiveTuple) {
        if self.is_thorough() && !self.touched.tuples.contains(&tuple) {
            self.touched.tuples.push(tuple);
        }
    }

    /// Notes what else of the state was looked at, in a journal that wants to know.
    pub(crate) fn touch(&mut self, touch: impl FnOnce(&mut Touched)) {
        if self.is_thorough() {
            touch(&mut self.touched);
        }
    }

    /// Writes down `step` of the packet in `slot`, which took its share of the time since the last note.
    pub(crate) fn note_at(&mut self, slot: usize, step: Step, took_ns: Option<u64>) {
        if let Some(Some(account)) = self.open.get_mut(slot) {
            account.notes.push(Note { step, took_ns });
        }
    }

    /// The time since the last note, shared among `count` packets.
    pub(crate) fn share(&mut self, count: usize) -> Option<u64> {
        let took = self.lap()?;
        Some(took / u64::try_from(count.max(1)).unwrap_or(1))
    }

    /// Begins a batch.
    pub(crate) fn begin(&mut self, packets: usize) {
        self.touched = Touched::default();
        self.open.clear();
        self.open.resize_with(packets.min(BATCH_MAX), || None);
    }

    /// Begins the account of the packet in `slot`.
    pub(crate) fn arrive(&mut self, slot: usize, interface: InterfaceId, bytes: &[u8], at: Instant) {
        self.current = slot;
        if self.is_full() {
            return;
        }
        let kept = bytes.get(..bytes.len().min(self.wish.snap_bytes)).unwrap_or_default();
        let account = Account::new(at, interface, kept, bytes.len());
        if let Some(place) = self.open.get_mut(slot) {
            *place = Some(account);
        }
        if let Some(stopwatch) = &mut self.stopwatch {
            self.last = stopwatch();
        }
    }

    /// From here on notes are about the packet in `slot`.
    pub(crate) fn turn(&mut self, slot: usize) {
        self.current = slot;
        if let Some(stopwatch) = &mut self.stopwatch {
            self.last = stopwatch();
        }
    }

    /// Writes down `step` of the packet that is talked about.
    pub(crate) fn note(&mut self, step: Step) {
        let took_ns = self.lap();
        if let Some(Some(account)) = self.open.get_mut(self.current) {
            account.notes.push(Note { step, took_ns });
        }
    }

    /// Whether the packet that is talked about has been found to be of no known flow.
    pub(crate) fn has_missed(&self) -> bool {
        let account = self.open.get(self.current).and_then(Option::as_ref);
        account.is_some_and(|account| account.steps().any(|step| *step == Step::Looked(None)))
    }

    /// Forgets the packet that is talked about where the filter can not want it any more.
    pub(crate) fn sift(&mut self) {
        let Some(place) = self.open.get_mut(self.current) else { return };
        let is_unwanted = place
            .as_ref()
            .is_some_and(|account| self.wish.filter.holds(&account.facts(false)) == Some(false));
        if is_unwanted {
            *place = None;
        }
    }

    /// Ends the account of the packet in `slot`.
    pub(crate) fn end(&mut self, slot: usize, end: Verdict) {
        let took = self.lap();
        let Some(mut account) = self.open.get_mut(slot).and_then(Option::take) else { return };
        account.end = Some(end);
        account.notes.push(Note { step: Step::Ended(end), took_ns: took });
        if self.wish.filter.holds(&account.facts(true)) != Some(true) || self.is_full() {
            return;
        }
        self.written += 1;
        if self.done.len() < WAITING_MAX {
            self.done.push_back(account);
        } else {
            self.lost += 1;
        }
    }

    /// Keeps what leaves in place of the packet in `slot`.
    pub(crate) fn leave(&mut self, slot: usize, bytes: &[u8]) {
        let snap = self.wish.snap_bytes;
        if let Some(Some(account)) = self.open.get_mut(slot) {
            account.after = bytes.get(..bytes.len().min(snap)).unwrap_or_default().to_vec();
            account.after_bytes = bytes.len();
        }
    }

    fn lap(&mut self) -> Option<u64> {
        let now = self.stopwatch.as_mut()?();
        let took = now.saturating_sub(self.last);
        self.last = now;
        Some(took)
    }
}
