//! One direction of a cable: a frame goes in, and when it arrives is known at once.
//!
//! ```text
//! up? -> short enough? -> queue -> sent, bit by bit -> lost? -> corrupted? -> delay -> arrival, twice perhaps
//! ```
//! Nothing is held here: the queue is the list of times at which frames will have left.

use std::collections::VecDeque;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};

use evenkeel_engine::Instant;
use serde::Serialize;

use crate::packet::Packet;
use crate::random::Stream;

use super::frame;
use super::quality::{Delay, Discipline, Loss, Quality};
use super::red::{self, RedState};

/// Picoseconds of eight bits at one bit per second.
const BYTE_PS: u64 = 8_000_000_000_000;

/// What a cable did with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// It arrives.
    Arrives {
        /// When.
        at: Instant,
        /// When a copy of it arrives as well.
        again: Option<Instant>,
    },
    /// It does not.
    Ended(WireDrop),
}

/// Why a frame ended on a cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WireDrop {
    /// By chance.
    Lost,
    /// Too many waited.
    QueueFull,
    /// Random early detection picked it.
    Early,
    /// It is longer than the cable takes.
    TooLong,
    /// The cable is cut.
    Down,
}

impl WireDrop {
    /// Every reason.
    pub const ALL: [Self; 5] = [Self::Lost, Self::QueueFull, Self::Early, Self::TooLong, Self::Down];

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::QueueFull => "queue-full",
            Self::Early => "early",
            Self::TooLong => "too-long",
            Self::Down => "down",
        }
    }
}

impl fmt::Display for WireDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a cable has done so far. Frames that went in are those that arrived without copies, and those that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WireCounts {
    /// Frames that arrive, without copies.
    pub passed: u64,
    /// Their bytes.
    pub passed_bytes: u64,
    /// Frames lost by chance.
    pub lost: u64,
    /// Frames that found the queue full.
    pub queue_full: u64,
    /// Frames that random early detection dropped.
    pub early: u64,
    /// Frames that were too long.
    pub too_long: u64,
    /// Frames that found the cable cut.
    pub down: u64,
    /// Frames that were marked instead of dropped.
    pub marked: u64,
    /// Frames that were held back.
    pub reordered: u64,
    /// Frames of which a copy arrives as well.
    pub duplicated: u64,
    /// Frames with a changed bit.
    pub corrupted: u64,
    /// The most frames that waited at a time.
    pub queue_max: u64,
}

impl WireCounts {
    /// Frames that ended for this reason.
    #[must_use]
    pub const fn of(&self, reason: WireDrop) -> u64 {
        match reason {
            WireDrop::Lost => self.lost,
            WireDrop::QueueFull => self.queue_full,
            WireDrop::Early => self.early,
            WireDrop::TooLong => self.too_long,
            WireDrop::Down => self.down,
        }
    }

    /// Frames that ended.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.lost + self.queue_full + self.early + self.too_long + self.down
    }
}

/// A random stream that is made when it is first needed; a cable that leaves frames alone has none.
#[derive(Clone, Debug)]
struct Chance {
    purpose: &'static str,
    stream: Option<Box<Stream>>,
}

impl Chance {
    const fn new(purpose: &'static str) -> Self {
        Self { purpose, stream: None }
    }

    fn stream(&mut self, identity: &Identity) -> &mut Stream {
        let new = || {
            Box::new(Stream::new(
                identity.seed,
                &identity.name,
                &format!("{} {}", identity.direction, self.purpose),
            ))
        };
        self.stream.get_or_insert_with(new)
    }

    /// Whether something of this probability happens. Where it never does, nothing is drawn.
    fn happens(&mut self, identity: &Identity, millionths: u32) -> bool {
        millionths > 0 && self.stream(identity).happens(millionths)
    }
}

#[derive(Clone, Debug)]
struct Identity {
    seed: u64,
    name: String,
    direction: String,
}

/// One direction of a cable.
///
/// What every frame meets lies together in front, in one line of the processor's cache; what chance does lies elsewhere.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Wire {
    is_up: bool,
    /// Whether a frame leaves as soon as it comes.
    is_instant: bool,
    /// Whether random early detection looks at every frame.
    is_red: bool,
    /// Those of the quality.
    mtu_bytes: u32,
    overhead_bytes: u32,
    /// Picoseconds that a byte takes, where that is a whole number.
    byte_ps: Option<NonZeroU64>,
    /// A fixed delay in nanoseconds, and nothing else that happens on the way.
    plain_delay: Option<u64>,
    /// When the last frame so far will have left, in picoseconds.
    busy_until_ps: u64,
    /// When the last frame will have left, in nanoseconds, and its bytes.
    last: Option<(u64, NonZeroU32)>,
    /// The same of each one before it that is being sent or waits, as it was when the last one came.
    leaving: VecDeque<(u64, NonZeroU32)>,
    leaving_bytes: u64,
    counts: WireCounts,
    quality: Quality,
    odds: Box<Odds>,
}

/// What chance does on a cable. Each kind of chance has a random stream of its own: loss that is switched on changes no
/// delay.
#[derive(Clone, Debug)]
struct Odds {
    last_arrival: Instant,
    is_bad: bool,
    red: RedState,
    identity: Identity,
    delay: Chance,
    loss: Chance,
    reorder: Chance,
    duplicate: Chance,
    corrupt: Chance,
    early: Chance,
}

impl Wire {
    /// A cable without frames. Its random streams are those of `name`, `direction` and the purpose under `seed`.
    #[must_use]
    pub fn new(quality: Quality, seed: u64, name: &str, direction: &str) -> Self {
        let odds = Odds {
            last_arrival: Instant::ZERO,
            is_bad: false,
            red: RedState::default(),
            identity: Identity { seed, name: name.to_owned(), direction: direction.to_owned() },
            delay: Chance::new("delay"),
            loss: Chance::new("loss"),
            reorder: Chance::new("reorder"),
            duplicate: Chance::new("duplicate"),
            corrupt: Chance::new("corrupt"),
            early: Chance::new("early"),
        };
        let mut wire = Self {
            is_up: true,
            is_instant: false,
            is_red: false,
            mtu_bytes: quality.mtu_bytes,
            overhead_bytes: quality.overhead_bytes,
            byte_ps: None,
            plain_delay: None,
            busy_until_ps: 0,
            last: None,
            leaving: VecDeque::new(),
            leaving_bytes: 0,
            counts: WireCounts::default(),
            quality,
            odds: Box::new(odds),
        };
        wire.set_quality(quality);
        wire
    }

    /// Sends a frame at `now`, which does not run backwards. The frame may come out marked or with a changed bit.
    #[inline(always)]
    pub fn pass(&mut self, packet: &mut Packet, now: Instant) -> Passage {
        let bytes = packet.len();
        if !self.is_up {
            return self.end(WireDrop::Down);
        }
        if self.is_too_long(packet) {
            return self.end(WireDrop::TooLong);
        }
        let departure = match self.depart(packet, now) {
            Ok(departure) => departure,
            Err(reason) => return self.end(reason),
        };
        if let Some(delay) = self.plain_delay {
            self.counts.passed += 1;
            self.counts.passed_bytes += to_u64(bytes);
            let at = Instant::from_nanos(departure.as_nanos().saturating_add(delay));
            return Passage::Arrives { at, again: None };
        }
        self.travel(packet, departure)
    }

    /// Changes what the cable does from now on. Frames that wait keep the times that they have.
    pub fn set_quality(&mut self, quality: Quality) {
        self.quality = quality;
        (self.mtu_bytes, self.overhead_bytes) = (quality.mtu_bytes, quality.overhead_bytes);
        self.is_red = matches!(quality.queue, Discipline::Red(_));
        let rate = quality.rate_bits;
        self.is_instant = rate == 0;
        self.byte_ps = if BYTE_PS.is_multiple_of(rate) { NonZeroU64::new(BYTE_PS / rate) } else { None };
        let is_plain = quality.loss == Loss::None
            && quality.reorder.millionths == 0
            && quality.duplicate_millionths == 0
            && quality.corrupt_millionths == 0
            && !quality.keeps_order;
        self.plain_delay = None;
        if is_plain && let Delay::Fixed(delay) = quality.delay {
            self.plain_delay = Some(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    /// Cuts the cable or mends it. What has left arrives all the same; what waits is taken as having left.
    pub const fn set_up(&mut self, is_up: bool) {
        self.is_up = is_up;
    }

    /// What the cable does.
    #[must_use]
    pub const fn quality(&self) -> &Quality {
        &self.quality
    }

    /// Whether the cable is whole.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.is_up
    }

    /// What has happened so far.
    #[must_use]
    pub const fn counts(&self) -> &WireCounts {
        &self.counts
    }

    /// Frames that wait at `now`, without the one that is being sent, and the bytes of them all.
    #[must_use]
    pub fn queue(&self, now: Instant) -> (usize, u64) {
        let left = self.leaving.partition_point(|(at, _)| *at <= now.as_nanos());
        let last = self.last.iter().filter(|(at, _)| *at > now.as_nanos());
        let waiting = self.leaving.range(left..).chain(last).skip(1);
        waiting.fold((0, 0), |(count, bytes), (_, length)| (count + 1, bytes + u64::from(length.get())))
    }

    #[inline(always)]
    fn is_too_long(&self, packet: &Packet) -> bool {
        let limit = usize::try_from(self.mtu_bytes).unwrap_or(usize::MAX);
        let behind = packet.len().saturating_sub(frame::ETHERNET_BYTES);
        // Tags are not counted, which is looked at only where it matters.
        behind > limit && is_longer(packet, limit)
    }

    /// When the frame will have left, if the queue takes it.
    #[inline(always)]
    fn depart(&mut self, packet: &mut Packet, now: Instant) -> Result<Instant, WireDrop> {
        if self.is_instant {
            return Ok(now);
        }
        let bytes = packet.len();
        let now_ps = now.as_nanos().saturating_mul(1_000);
        self.let_leave(now);
        if !self.leaving.is_empty() || self.is_red {
            self.admit(packet, now_ps.saturating_sub(self.busy_until_ps))?;
        }
        let taken = to_u64(bytes) + u64::from(self.overhead_bytes);
        let duration_ps = match self.byte_ps {
            Some(byte_ps) => taken.saturating_mul(byte_ps.get()),
            None => serialisation_ps(taken, self.quality.rate_bits),
        };
        self.busy_until_ps = self.busy_until_ps.max(now_ps).saturating_add(duration_ps);
        let departure = self.busy_until_ps.saturating_add(999) / 1_000;
        self.last = Some((departure, counted(bytes)));
        Ok(Instant::from_nanos(departure))
    }

    /// Forgets frames that have left; the last one so far takes its place among those that have not.
    #[inline(always)]
    fn let_leave(&mut self, now: Instant) {
        if self.leaving.is_empty() && self.last.is_none_or(|(left, _)| left <= now.as_nanos()) {
            return;
        }
        self.let_leave_behind(now);
    }

    /// The same where frames wait for one another.
    #[inline(never)]
    fn let_leave_behind(&mut self, now: Instant) {
        while let Some((_, length)) = self.leaving.pop_front_if(|(left, _)| *left <= now.as_nanos()) {
            self.leaving_bytes -= u64::from(length.get());
        }
        if let Some(last) = self.last.take().filter(|(left, _)| *left > now.as_nanos()) {
            self.leaving.push_back(last);
            self.leaving_bytes += u64::from(last.1.get());
        }
    }

    /// Whether a frame may wait behind those that are there already.
    fn admit(&mut self, packet: &mut Packet, idle_ps: u64) -> Result<(), WireDrop> {
        let waiting = self.leaving.len().saturating_sub(1);
        let is_full =
            |limit: u32| !self.leaving.is_empty() && waiting >= usize::try_from(limit).unwrap_or(usize::MAX);
        self.counts.queue_max = self.counts.queue_max.max(to_u64(self.leaving.len()));
        match self.quality.queue {
            Discipline::Packets { limit } if is_full(limit) => Err(WireDrop::QueueFull),
            Discipline::Packets { .. } => Ok(()),
            Discipline::Bytes { limit } => {
                let sending = self.leaving.front().map_or(0, |(_, length)| u64::from(length.get()));
                let would_wait = self.leaving_bytes - sending + to_u64(packet.len());
                if would_wait > limit { Err(WireDrop::QueueFull) } else { Ok(()) }
            }
            Discipline::Red(plan) => {
                let is_full = is_full(plan.limit);
                let odds = &mut *self.odds;
                let stream = odds.early.stream(&odds.identity);
                let idle = red::idle_frames(idle_ps, self.quality.rate_bits);
                let is_picked = odds.red.picks(&plan, waiting, idle, stream);
                if is_full {
                    return Err(WireDrop::QueueFull);
                }
                if !is_picked {
                    return Ok(());
                }
                if plan.marks && red::mark(packet) {
                    self.counts.marked += 1;
                    return Ok(());
                }
                Err(WireDrop::Early)
            }
        }
    }

    /// What happens to a frame that has left.
    fn travel(&mut self, packet: &mut Packet, departure: Instant) -> Passage {
        let quality = &self.quality;
        let odds = &mut *self.odds;
        if odds.is_lost(quality.loss) {
            return self.end(WireDrop::Lost);
        }
        if odds.corrupt.happens(&odds.identity, quality.corrupt_millionths) && odds.corrupt(packet) {
            self.counts.corrupted += 1;
        }
        let mut at = departure.after(quality.delay.draw(odds.delay.stream(&odds.identity)));
        if odds.reorder.happens(&odds.identity, quality.reorder.millionths) {
            self.counts.reordered += 1;
            at = at.after(quality.reorder.extra);
        } else if quality.keeps_order {
            at = at.max(odds.last_arrival);
            odds.last_arrival = at;
        }
        let mut again = None;
        if odds.duplicate.happens(&odds.identity, quality.duplicate_millionths) {
            self.counts.duplicated += 1;
            let stream = odds.duplicate.stream(&odds.identity);
            again = Some(departure.after(quality.delay.draw(stream)));
        }
        self.counts.passed += 1;
        self.counts.passed_bytes += to_u64(packet.len());
        Passage::Arrives { at, again }
    }

    const fn end(&mut self, reason: WireDrop) -> Passage {
        let count = match reason {
            WireDrop::Lost => &mut self.counts.lost,
            WireDrop::QueueFull => &mut self.counts.queue_full,
            WireDrop::Early => &mut self.counts.early,
            WireDrop::TooLong => &mut self.counts.too_long,
            WireDrop::Down => &mut self.counts.down,
        };
        *count += 1;
        Passage::Ended(reason)
    }
}

impl Odds {
    fn is_lost(&mut self, loss: Loss) -> bool {
        match loss {
            Loss::None => false,
            Loss::Even { millionths } => self.loss.happens(&self.identity, millionths),
            Loss::GilbertElliott {
                to_bad_millionths,
                to_good_millionths,
                good_millionths,
                bad_millionths,
            } => {
                let changes = if self.is_bad { to_good_millionths } else { to_bad_millionths };
                self.is_bad ^= self.loss.happens(&self.identity, changes);
                let share = if self.is_bad { bad_millionths } else { good_millionths };
                share >= 1_000_000 || self.loss.happens(&self.identity, share)
            }
        }
    }

    /// Changes one bit, where there is one.
    fn corrupt(&mut self, packet: &mut Packet) -> bool {
        let bits = to_u64(packet.len()) * 8;
        let bit = self.corrupt.stream(&self.identity).below(bits);
        let index = usize::try_from(bit / 8).unwrap_or(usize::MAX);
        let Some(byte) = packet.bytes_mut().get_mut(index) else { return false };
        *byte ^= 1 << (bit % 8);
        true
    }
}

/// Whether a frame carries more than so many bytes behind its tags.
#[cold]
fn is_longer(frame: &Packet, limit: usize) -> bool {
    frame.len() - frame::payload(frame.bytes()).1 > limit
}

/// The bytes of a frame. One without any would take one.
fn counted(bytes: usize) -> NonZeroU32 {
    NonZeroU32::new(u32::try_from(bytes).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN)
}

/// How long `bytes` take at a rate that does not divide evenly, in whole picoseconds.
fn serialisation_ps(bytes: u64, rate_bits: u64) -> u64 {
    let picoseconds = u128::from(bytes) * u128::from(BYTE_PS) / u128::from(rate_bits.max(1));
    u64::try_from(picoseconds).unwrap_or(u64::MAX)
}

fn to_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
