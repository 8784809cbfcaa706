//! Sequence tracking: does a segment that would end or restart a connection come from one of its ends?
//!
//! Whoever knows addresses and ports of a connection can send a RST in its name, but has to guess the sequence
//! number. Here, in the middle, no more is known than what has passed: how far each side has sent, and what the other
//! has acknowledged of it. A RST, FIN or SYN is *plausible* when its number lies between the two. Others are not
//! noted and change no state, but they are translated and sent on: the receiver knows better, and answers a RST of
//! nearly the right number with a challenge (RFC 5961 s.3.2), whose answer then has a number that is right here too.
//!
//! ```text
//!                acknowledged          sent
//! ---------------|--- in flight -------|------------------> sequence numbers
//!               [     plausible        ]
//!    near [   REACH                       REACH   ]         only with an acknowledgement that is right
//! ```
//!
//! # What moves the numbers
//! A segment is noted when both of its numbers are near, within [`REACH`]; or when one of them is right, since to guess
//! that is as hard for either. So a tracked connection catches up after any loss, in bulk or super-packets, and one
//! forged segment in 2^18 moves a number, by [`REACH`] at most. A connection whose numbers are wrong (the first
//! segment seen of it was forged) heals as soon as a side's segment acknowledges what is right about the other side.
//!
//! # When one side is not seen
//! In gateway and tunnel mode, the client's segments are all there is. Then the server's numbers are those that the
//! client acknowledges, and how much of its own is in flight is not known: the last [`UNSEEN_FLIGHT`] bytes are taken to be.

use super::Direction;
use crate::wire::tcp::Flags;

/// How far ahead of what is known a segment may be, or behind: the largest send buffer that a common system has unless
/// tuned, so that a whole flight may be lost before it comes here.
pub const REACH: u32 = 4 << 20;

/// How much of a side's data counts as in flight while acknowledgements are not seen: three full segments, or a
/// request. More would be found by guessing: one in 2^20 hits this.
pub const UNSEEN_FLIGHT: u32 = 4096;

/// How far an acknowledgement may be from what is known, to speak for a segment whose sequence number is near: it can
/// be newer than all that was seen, or older and overtaken. Together with [`REACH`], one in 2^24 is so by chance.
pub const CLOSE: u32 = 64 << 10;

/// The most bytes in flight: the largest window (RFC 7323 s.2.3).
const FLIGHT_MAX: u32 = 1 << 30;

/// What counts of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The number of its first byte.
    pub sequence: u32,
    /// The next byte that its sender expects; counts only with ACK.
    pub acknowledgement: u32,
    /// Its payload; of a super-packet, all of it.
    pub payload_bytes: u32,
    /// Its control bits.
    pub flags: Flags,
}

impl Segment {
    /// What a packet of another protocol says.
    pub const NONE: Self = Self { sequence: 0, acknowledgement: 0, payload_bytes: 0, flags: Flags(0) };

    /// The number behind its last byte; SYN and FIN count one each.
    const fn end(&self) -> u32 {
        let ends = self.flags.has(Flags::SYN) as u32 + self.flags.has(Flags::FIN) as u32;
        self.sequence.wrapping_add(self.payload_bytes).wrapping_add(ends)
    }

    /// What it acknowledges.
    fn acknowledged(&self) -> Option<u32> {
        self.flags.has(Flags::ACK).then_some(self.acknowledgement)
    }
}

/// Whether a segment may come from an end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Its numbers fit; it may change state, and is to be noted.
    Plausible,
    /// They do not fit: it goes on and changes nothing.
    Implausible,
}

/// The numbers of both sides of a connection, in 16 bytes. By default, nothing is known.
///
/// Of each side: `sent`, the number behind the last byte that it has sent, and `acknowledged`, what the other side has
/// acknowledged of it. Two cases that can not be otherwise stand for what is not known: both zero for nothing, and
/// `sent` one before `acknowledged` for a side that is known only by what the other one acknowledges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpTrack {
    sent: [u32; 2],
    acknowledged: [u32; 2],
}

/// What is known of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Nothing,
    /// The other side expects this number next.
    Acknowledged(u32),
    /// Its own segments have been seen.
    Seen {
        acknowledged: u32,
        sent: u32,
    },
}

/// Where a number lies, measured by what is known of its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Right,
    Close,
    Near,
    Far,
    /// Nothing is known of that side.
    Unknown,
    /// The segment says nothing about it.
    Unsaid,
}

/// What noting a segment does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The numbers of its sender advance.
    Advance,
    /// The numbers of its sender begin anew with it.
    Restart,
    Ignore,
}

impl TcpTrack {
    /// All that is known, as numbers.
    pub(crate) const fn numbers(self) -> [u32; 4] {
        let ([a, b], [c, d]) = (self.sent, self.acknowledged);
        [a, b, c, d]
    }

    /// What these numbers say.
    pub(crate) const fn of_numbers([a, b, c, d]: [u32; 4]) -> Self {
        Self { sent: [a, b], acknowledged: [c, d] }
    }

    /// The numbers after the first segment of a connection, in the original direction: its SYN, or what is seen first
    /// of a connection that began elsewhere.
    #[must_use]
    pub fn opened(segment: &Segment) -> Self {
        let mut track = Self::default();
        track.note(segment, Direction::Original);
        track
    }

    /// Whether `segment`, which travels in `direction`, fits what has been seen.
    #[must_use]
    pub fn judge(&self, segment: &Segment, direction: Direction) -> Judgement {
        let sequence = self.sequence_place(segment, direction);
        let acknowledgement = self.acknowledgement_place(segment, direction);
        let flags = segment.flags;
        let is_plausible = if flags.has(Flags(Flags::RST.0 | Flags::FIN.0 | Flags::SYN.0)) {
            match sequence {
                Place::Right => true,
                Place::Close | Place::Near => {
                    matches!(acknowledgement, Place::Right | Place::Close)
                        || self.is_new_attempt(segment, direction)
                }
                Place::Far => self.is_new_attempt(segment, direction),
                // An answer shows that its sender has read the question. Of two sides that open at once, none asks.
                Place::Unknown | Place::Unsaid => {
                    acknowledgement == Place::Right
                        || (flags.is_opening() && acknowledgement == Place::Unsaid)
                }
            }
        } else {
            fate(sequence, acknowledgement) != Fate::Ignore
        };
        if is_plausible { Judgement::Plausible } else { Judgement::Implausible }
    }

    /// Takes in the numbers of a plausible segment. One whose numbers do not fit changes nothing.
    pub fn note(&mut self, segment: &Segment, direction: Direction) {
        // A RST is the last of its side, and its numbers need not be that side's own.
        if segment.flags.has(Flags::RST) {
            return;
        }
        let mut fate =
            fate(self.sequence_place(segment, direction), self.acknowledgement_place(segment, direction));
        if self.is_new_attempt(segment, direction) {
            fate = Fate::Restart;
        }
        let before = self.side(direction);
        let (start, end) = (segment.sequence, segment.end());
        let (acknowledged, sent) = match (fate, before) {
            (Fate::Ignore, _) => return,
            (Fate::Restart, _) | (Fate::Advance, Side::Nothing) => (start, end),
            (Fate::Advance, Side::Acknowledged(acknowledged)) => (acknowledged, later(acknowledged, end)),
            (Fate::Advance, Side::Seen { acknowledged, sent }) => (acknowledged, later(sent, end)),
        };
        self.set(direction, Side::Seen { acknowledged, sent });
        if let Some(number) = segment.acknowledged() {
            let is_first = !matches!(before, Side::Seen { .. });
            self.acknowledge(direction.opposite(), number, is_first);
        }
        self.bound_flight(direction);
    }

    /// Whether this is the client's next attempt to open a connection that nobody has answered. It may have another
    /// number, and takes the place of the first.
    fn is_new_attempt(&self, segment: &Segment, direction: Direction) -> bool {
        segment.flags.is_opening()
            && direction == Direction::Original
            && self.side(direction.opposite()) == Side::Nothing
    }

    /// Takes in that `number` is the next that is expected of `direction`.
    fn acknowledge(&mut self, direction: Direction, number: u32, is_first: bool) {
        let side = match self.side(direction) {
            Side::Nothing => Side::Acknowledged(number),
            Side::Acknowledged(known) => Side::Acknowledged(later(known, number)),
            // What was taken to be in flight was a guess until now.
            Side::Seen { acknowledged, sent }
                if is_first && is_between(number, acknowledged.wrapping_sub(REACH), sent) =>
            {
                Side::Seen { acknowledged: number, sent }
            }
            Side::Seen { acknowledged, sent } if is_between(number, acknowledged, sent) => {
                Side::Seen { acknowledged: number, sent }
            }
            // Of a side whose segments go elsewhere now, this is all that is known.
            Side::Seen { sent, .. } if later(sent, number) != sent => Side::Acknowledged(number),
            seen @ Side::Seen { .. } => seen,
        };
        self.set(direction, side);
    }

    /// Keeps what counts as in flight within its bound.
    fn bound_flight(&mut self, direction: Direction) {
        let is_answered = matches!(self.side(direction.opposite()), Side::Seen { .. });
        let bound = if is_answered { FLIGHT_MAX } else { UNSEEN_FLIGHT };
        if let Side::Seen { acknowledged, sent } = self.side(direction)
            && sent.wrapping_sub(acknowledged) > bound
        {
            self.set(direction, Side::Seen { acknowledged: sent.wrapping_sub(bound), sent });
        }
    }

    fn sequence_place(&self, segment: &Segment, direction: Direction) -> Place {
        let start = segment.sequence;
        match self.side(direction) {
            Side::Nothing => Place::Unknown,
            // A probe for a living peer repeats the number before the next (RFC 9293 s.3.8.4).
            Side::Acknowledged(number) => place(start, number.wrapping_sub(1), number),
            // What is repeated when the acknowledgement has not come through: it ends where everything ends.
            Side::Seen { sent, .. } if segment.end() == sent => Place::Right,
            Side::Seen { acknowledged, sent } => place(start, acknowledged.wrapping_sub(1), sent),
        }
    }

    fn acknowledgement_place(&self, segment: &Segment, direction: Direction) -> Place {
        let Some(number) = segment.acknowledged() else { return Place::Unsaid };
        match self.side(direction.opposite()) {
            Side::Nothing => Place::Unknown,
            Side::Acknowledged(known) => place(number, known, known),
            Side::Seen { acknowledged, sent } => place(number, acknowledged, sent),
        }
    }

    fn side(&self, direction: Direction) -> Side {
        let (&[original, reply], &[of_original, of_reply]) = (&self.sent, &self.acknowledged);
        let (sent, acknowledged) = match direction {
            Direction::Original => (original, of_original),
            Direction::Reply => (reply, of_reply),
        };
        if sent == 0 && acknowledged == 0 {
            Side::Nothing
        } else if sent == acknowledged.wrapping_sub(1) {
            Side::Acknowledged(acknowledged)
        } else {
            Side::Seen { acknowledged, sent }
        }
    }

    fn set(&mut self, direction: Direction, side: Side) {
        let (sent, acknowledged) = match side {
            Side::Nothing => (0, 0),
            Side::Acknowledged(number) => (number.wrapping_sub(1), number),
            // Both at zero would read as nothing; one byte more in flight does no harm.
            Side::Seen { acknowledged: 0, sent: 0 } => (0, u32::MAX),
            Side::Seen { acknowledged, sent } => (sent, acknowledged),
        };
        let [sent_original, sent_reply] = &mut self.sent;
        let [acknowledged_original, acknowledged_reply] = &mut self.acknowledged;
        match direction {
            Direction::Original => (*sent_original, *acknowledged_original) = (sent, acknowledged),
            Direction::Reply => (*sent_reply, *acknowledged_reply) = (sent, acknowledged),
        }
    }
}

/// What noting a segment with numbers at these places does.
const fn fate(sequence: Place, acknowledgement: Place) -> Fate {
    match (sequence, acknowledgement) {
        (Place::Right, _)
        | (Place::Close | Place::Near, Place::Right | Place::Close | Place::Near | Place::Unknown)
        | (Place::Unknown, Place::Right) => Fate::Advance,
        // Nothing is known of the other side, so nothing speaks for what was known of this one.
        (Place::Far, Place::Right | Place::Unknown) | (Place::Unknown, Place::Unknown) => Fate::Restart,
        (Place::Close | Place::Near, Place::Far | Place::Unsaid)
        | (Place::Far, Place::Close | Place::Near | Place::Far | Place::Unsaid)
        | (Place::Unknown, Place::Close | Place::Near | Place::Far | Place::Unsaid)
        | (Place::Unsaid, _) => Fate::Ignore,
    }
}

/// Whether `number` lies from `first` to `last`, both included.
const fn is_between(number: u32, first: u32, last: u32) -> bool {
    number.wrapping_sub(first) <= last.wrapping_sub(first)
}

const fn place(number: u32, first: u32, last: u32) -> Place {
    if is_between(number, first, last) {
        Place::Right
    } else if is_between(number, first.wrapping_sub(CLOSE), last.wrapping_add(CLOSE)) {
        Place::Close
    } else if is_between(number, first.wrapping_sub(REACH), last.wrapping_add(REACH)) {
        Place::Near
    } else {
        Place::Far
    }
}

/// The later of two numbers that are less than 2^31 apart.
const fn later(a: u32, b: u32) -> u32 {
    if b.wrapping_sub(a) < 1 << 31 { b } else { a }
}

#[cfg(test)]
mod tests;
