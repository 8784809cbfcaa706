//! The small TCP of simulated hosts: handshake, a stream of messages, retransmission, close and reset.
//!
//! In: segments and the time. Out: segments to send, bytes in order, and what became of the connection. One
//! machine serves both sides. It holds no payload: what it sends is a [`Message`], a rule that gives every
//! byte, so that a retransmission costs no memory. It never looks at addresses or clocks.
//!
//! Follows RFC 9293 for what is there, RFC 6298 for timers, RFC 5681 for the window (slow start, congestion
//! avoidance, fast retransmit), RFC 5961 s.3.2 for resets. Not there: options, urgent data, delayed
//! acknowledgements by timer (every second segment and each end of a burst is acknowledged at once).

use evenkeel_engine::{Duration, Instant};

use crate::packet::{Flags, SEGMENT_BYTES, Segment};
use crate::payload::Message;

/// The window that hosts announce: the largest without scaling.
const WINDOW: u16 = u16::MAX;
/// Segments in flight after the handshake (RFC 6928).
const WINDOW_INITIAL: u16 = 10;
/// Segments in flight at most: what the announced window holds.
const WINDOW_MAX: u16 = 44;
/// The timer before the first measurement (RFC 6298 s.2).
const RTO_INITIAL: Duration = Duration::from_secs(1);
/// The least that the timer waits, as in Linux.
const RTO_MIN: Duration = Duration::from_millis(200);
/// The most that the timer waits.
const RTO_MAX: Duration = Duration::from_secs(60);
/// How often the same segment is sent again before the connection is given up, as for SYNs in Linux.
const RETRIES_MAX: u8 = 6;
/// Repeated acknowledgements that say that a segment is missing (RFC 5681 s.3.2).
const DUPLICATES: u8 = 3;
/// A measured time beyond this counts as this: an hour, longer than any timer.
const SAMPLE_MAX_NS: u64 = 3_600_000_000_000;
/// Segments that are kept while one before them is missing: a whole window.
const WAITING_MAX: usize = 44;
/// The least payload of a full segment: what every host takes (RFC 9293 s.3.7.1).
const SEGMENT_BYTES_MIN: u32 = 536;
/// How long the side that closed first answers late segments. A simulated segment lives for a few link delays.
const TIME_WAIT: Duration = Duration::from_secs(1);

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Our SYN is out.
    SynSent,
    /// Their SYN is in and ours is out.
    SynReceived,
    /// Data may flow, and on either side the close may have begun.
    Open,
    /// Both sides have closed; late segments are still answered.
    TimeWait,
    /// Over.
    Closed,
    /// Over: the other side reset it.
    Reset,
    /// Over: the other side stopped to answer.
    TimedOut,
}

/// A segment to send: its header, and which bytes of which message it carries.
#[derive(Clone, Copy, Debug)]
pub struct Transmit {
    /// The header.
    pub segment: Segment,
    /// The message, the first byte and the number of bytes.
    pub data: Option<(Message, u32, u32)>,
}

/// One end of a connection. There are many, so that it is kept small: what is bounded by the window fits 16 bits.
#[derive(Clone, Debug)]
pub struct Tcp {
    /// The message under way and the number of its first byte.
    message: Option<Message>,
    message_start: u32,
    /// The oldest number that is not acknowledged, the next to send, and the next never sent.
    unacknowledged: u32,
    next: u32,
    newest: u32,
    /// The next number that we expect.
    expected: u32,
    peer_window: u32,
    /// Bytes of payload in a full segment.
    segment_bytes: u32,
    state: State,
    wants_close: bool,
    /// Whether we closed before they did; only that side waits for late segments.
    is_first_to_close: bool,
    /// Whether their close has come.
    is_closed_by_peer: bool,
    /// Segments that came and are not acknowledged yet, as far as that matters.
    owed: u8,
    duplicates: u8,
    retries: u8,
    window: u16,
    threshold: u16,
    /// Acknowledgements in congestion avoidance since the window last grew.
    credit: u16,
    /// The number whose acknowledgement is timed, since [`Tcp::timed_at`].
    timed_end: u32,
    /// When the timed segment was sent; [`Instant::NEVER`] where none is.
    timed_at: Instant,
    /// The mean time to an answer and its deviation, in nanoseconds, once there has been one.
    smoothed_ns: Option<(u64, u64)>,
    deadline: Instant,
    /// Segments that came before one that is missing, where there are any.
    #[allow(
        clippy::box_collection,
        reason = "nearly every connection has none, and this is a third of a list"
    )]
    waiting: Option<Box<Vec<Waiting>>>,
    /// Segments that were sent again.
    pub retransmitted: u32,
}

/// A segment that came before one that is missing.
#[derive(Clone, Debug)]
struct Waiting {
    sequence: u32,
    payload: Vec<u8>,
    is_last: bool,
}

/// Whether `a` comes before `b` in the circle of sequence numbers.
const fn before(a: u32, b: u32) -> bool {
    b.wrapping_sub(a).wrapping_sub(1) < u32::MAX / 2
}

impl Tcp {
    fn new(state: State, initial: u32, expected: u32) -> Self {
        Self {
            message: None,
            message_start: initial.wrapping_add(1),
            unacknowledged: initial,
            next: initial,
            newest: initial,
            expected,
            peer_window: u32::from(WINDOW),
            segment_bytes: SEGMENT_BYTES,
            state,
            wants_close: false,
            is_first_to_close: false,
            is_closed_by_peer: false,
            owed: 0,
            duplicates: 0,
            retries: 0,
            window: WINDOW_INITIAL,
            threshold: WINDOW_MAX,
            credit: 0,
            timed_end: 0,
            timed_at: Instant::NEVER,
            smoothed_ns: None,
            deadline: Instant::NEVER,
            waiting: None,
            retransmitted: 0,
        }
    }

    /// Opens a connection with this first sequence number; `message` follows the handshake.
    #[must_use]
    pub fn connect(initial: u32, message: Message, now: Instant, out: &mut Vec<Transmit>) -> Self {
        let mut tcp = Self::new(State::SynSent, initial, 0);
        tcp.message = Some(message);
        tcp.pump(now, out);
        tcp
    }

    /// Answers a SYN.
    #[must_use]
    pub fn accept(initial: u32, syn: &Segment, now: Instant, out: &mut Vec<Transmit>) -> Self {
        let mut tcp = Self::new(State::SynReceived, initial, syn.sequence.wrapping_add(1));
        tcp.peer_window = u32::from(syn.window);
        tcp.pump(now, out);
        tcp
    }

    /// The answer to a SYN with this first sequence number of ours.
    #[must_use]
    pub const fn answer_to(syn: &Segment, sequence: u32) -> Segment {
        let acknowledgement = syn.sequence.wrapping_add(1);
        Segment { sequence, acknowledgement, flags: Flags::SYN.with(Flags::ACK), window: WINDOW }
    }

    /// A connection of which nothing was kept since our SYN, which had this number: `segment` is the first that comes
    /// after the other side has seen it. Give it to [`Tcp::receive`] next.
    #[must_use]
    pub fn resume(initial: u32, segment: &Segment) -> Self {
        let mut tcp = Self::new(State::Open, initial.wrapping_add(1), segment.sequence);
        tcp.message_start = initial.wrapping_add(1);
        tcp.peer_window = u32::from(segment.window);
        // How long segments may be was not kept.
        tcp.segment_bytes = SEGMENT_BYTES_MIN;
        tcp
    }

    /// The way there carries no more than `bytes` of payload in a segment; larger ones that are out go again, smaller.
    pub fn limit_segments(&mut self, bytes: u32, now: Instant, out: &mut Vec<Transmit>) {
        // Less than this no way carries (RFC 1122 s.4.2.2.6: 536), and a liar would have us send crumbs.
        let bytes = bytes.max(SEGMENT_BYTES_MIN);
        if bytes >= self.segment_bytes {
            return;
        }
        self.segment_bytes = bytes;
        if self.state == State::Open && self.next != self.unacknowledged {
            self.next = self.unacknowledged;
            self.timed_at = Instant::NEVER;
            self.pump(now, out);
        }
    }

    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// When [`Tcp::timeout`] is due.
    #[must_use]
    pub const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the other side has closed and every byte before that has been delivered.
    #[must_use]
    pub const fn is_closed_by_peer(&self) -> bool {
        self.is_closed_by_peer
    }

    /// Gives up: the reset that tells the other side.
    #[must_use]
    pub fn abort(&self) -> Segment {
        let flags = Flags::RST.with(Flags::ACK);
        Segment { sequence: self.next, acknowledgement: self.expected, flags, window: 0 }
    }

    /// Sends another message. The one before must have been answered, and so acknowledged.
    pub fn send(&mut self, message: Message) {
        self.message_start = self.end();
        self.message = Some(message);
    }

    /// Closes our side behind the message under way.
    pub const fn close(&mut self) {
        self.is_first_to_close = !self.is_closed_by_peer;
        self.wants_close = true;
    }

    /// The number behind the last byte of the message under way; a close has this number.
    fn end(&self) -> u32 {
        self.message_start.wrapping_add(self.message.map_or(0, |message| message.len()))
    }

    /// Takes in a segment. Bytes in order go to `deliver`. Call [`Tcp::flush`] when the owner has reacted.
    pub fn receive(
        &mut self,
        segment: &Segment,
        payload: &[u8],
        now: Instant,
        out: &mut Vec<Transmit>,
        deliver: &mut dyn FnMut(&[u8]),
    ) {
        match self.state {
            State::SynSent => return self.receive_syn_sent(segment, now),
            State::SynReceived | State::Open | State::TimeWait => {}
            State::Closed | State::Reset | State::TimedOut => return,
        }
        if segment.flags.has(Flags::RST) {
            // Only the very number that is expected resets (RFC 5961 s.3.2).
            if segment.sequence == self.expected && self.state != State::TimeWait {
                self.end_with(State::Reset);
            }
            return;
        }
        if segment.flags.has(Flags::SYN) {
            // Our answer to it was lost.
            self.owed = 2;
            if self.state == State::SynReceived {
                self.next = self.unacknowledged;
                self.pump(now, out);
            }
            return;
        }
        if segment.flags.has(Flags::ACK) {
            self.acknowledge(segment, payload.len(), now);
        }
        if self.state == State::SynReceived {
            return;
        }
        let is_last = segment.flags.has(Flags::FIN);
        if !payload.is_empty() || is_last {
            self.take_data(segment.sequence, payload, is_last, deliver);
            let is_burst_end = segment.flags.has(Flags::PSH) || is_last || self.waiting.is_some();
            self.owed = self.owed.saturating_add(if is_burst_end { 2 } else { 1 });
        }
        self.settle(now);
    }

    fn receive_syn_sent(&mut self, segment: &Segment, now: Instant) {
        let answers = segment.flags.has(Flags::ACK) && segment.acknowledgement == self.next;
        if segment.flags.has(Flags::RST) {
            if answers {
                self.end_with(State::Reset);
            }
            return;
        }
        if !answers || !segment.flags.has(Flags::SYN) {
            return;
        }
        self.expected = segment.sequence.wrapping_add(1);
        self.state = State::Open;
        self.owed = 2;
        self.acknowledge(segment, 0, now);
    }

    /// What an acknowledgement does to the sending side.
    fn acknowledge(&mut self, segment: &Segment, payload: usize, now: Instant) {
        let number = segment.acknowledgement;
        self.peer_window = u32::from(segment.window);
        if before(self.newest, number) || before(number, self.unacknowledged) {
            return;
        }
        if number == self.unacknowledged {
            let is_plain = payload == 0 && !segment.flags.has(Flags::FIN);
            if is_plain && self.unacknowledged != self.newest {
                self.duplicate(now);
            }
            return;
        }
        if self.state == State::SynReceived {
            self.state = State::Open;
        }
        let segments = number.wrapping_sub(self.unacknowledged).div_ceil(self.segment_bytes);
        self.unacknowledged = number;
        if before(self.next, number) {
            self.next = number;
        }
        self.grow(segments);
        self.duplicates = 0;
        self.retries = 0;
        if self.timed_at != Instant::NEVER && !before(number, self.timed_end) {
            let sent = std::mem::replace(&mut self.timed_at, Instant::NEVER);
            self.measure(now.since(sent));
        }
        self.restart(now);
    }

    /// A repeated acknowledgement: the third says that a segment is missing (RFC 5681 s.3.2).
    fn duplicate(&mut self, now: Instant) {
        // More than three say nothing more.
        self.duplicates = self.duplicates.saturating_add(1);
        if self.duplicates == DUPLICATES {
            self.threshold = (self.window / 2).max(2);
            self.window = self.threshold;
            self.next = self.unacknowledged;
            self.timed_at = Instant::NEVER;
            self.restart(now);
        }
    }

    fn grow(&mut self, segments: u32) {
        // More than a whole window at once there is not.
        let segments = u16::try_from(segments).unwrap_or(WINDOW_MAX).min(WINDOW_MAX);
        if self.window < self.threshold {
            self.window += segments;
        } else {
            self.credit += segments;
            if self.credit >= self.window {
                self.credit = 0;
                self.window += 1;
            }
        }
        self.window = self.window.min(WINDOW_MAX);
    }

    /// RFC 6298 s.2.
    fn measure(&mut self, sample: Duration) {
        let sample = u64::try_from(sample.as_nanos()).unwrap_or(u64::MAX).min(SAMPLE_MAX_NS);
        self.smoothed_ns = Some(match self.smoothed_ns {
            None => (sample, sample / 2),
            Some((mean, deviation)) => {
                (mean * 7 / 8 + sample / 8, deviation * 3 / 4 + mean.abs_diff(sample) / 4)
            }
        });
    }

    /// The time that the timer waits now.
    fn patience(&self) -> Duration {
        let base = self
            .smoothed_ns
            .map_or(RTO_INITIAL, |(mean, deviation)| Duration::from_nanos(mean + deviation * 4).max(RTO_MIN));
        (base * (1 << u32::from(self.retries.min(RETRIES_MAX)))).min(RTO_MAX)
    }

    fn restart(&mut self, now: Instant) {
        let is_idle = self.unacknowledged == self.newest;
        self.deadline = if is_idle { Instant::NEVER } else { now.after(self.patience()) };
    }

    /// Delivers what is in order, and keeps what is ahead.
    fn take_data(&mut self, sequence: u32, payload: &[u8], is_last: bool, deliver: &mut dyn FnMut(&[u8])) {
        if before(self.expected, sequence) {
            if sequence.wrapping_sub(self.expected) < u32::from(WINDOW) {
                let waiting = self.waiting.get_or_insert_default();
                let is_new = !waiting.iter().any(|known| known.sequence == sequence);
                if is_new && waiting.len() < WAITING_MAX {
                    waiting.push(Waiting { sequence, payload: payload.to_vec(), is_last });
                }
            }
            return;
        }
        self.take_in_order(sequence, payload, is_last, deliver);
        let Some(mut waiting) = self.waiting.take() else { return };
        let is_ready = |expected: u32, known: &Waiting| !before(expected, known.sequence);
        while let Some(index) = waiting.iter().position(|known| is_ready(self.expected, known)) {
            let Waiting { sequence, payload, is_last } = waiting.swap_remove(index);
            self.take_in_order(sequence, &payload, is_last, deliver);
        }
        self.waiting = Some(waiting).filter(|waiting| !waiting.is_empty());
    }

    fn take_in_order(
        &mut self,
        sequence: u32,
        payload: &[u8],
        is_last: bool,
        deliver: &mut dyn FnMut(&[u8]),
    ) {
        let known = usize::try_from(self.expected.wrapping_sub(sequence)).unwrap_or(usize::MAX);
        if self.is_closed_by_peer {
            return;
        }
        if let Some(fresh) = payload.get(known..) {
            if !fresh.is_empty() {
                deliver(fresh);
                self.expected = self.expected.wrapping_add(u32::try_from(fresh.len()).unwrap_or(0));
            }
            if is_last {
                self.is_closed_by_peer = true;
                self.expected = self.expected.wrapping_add(1);
            }
        }
    }

    /// Both sides have closed: the one that did first waits a little, the other is done.
    fn settle(&mut self, now: Instant) {
        let is_sent = self.wants_close && self.newest == self.end().wrapping_add(1);
        let is_acknowledged = is_sent && self.unacknowledged == self.newest;
        if self.state == State::Open && is_acknowledged && self.is_closed_by_peer {
            if self.is_first_to_close {
                self.state = State::TimeWait;
                self.deadline = now.after(TIME_WAIT);
            } else {
                self.end_with(State::Closed);
            }
        }
    }

    fn end_with(&mut self, state: State) {
        self.state = state;
        self.deadline = Instant::NEVER;
        self.waiting = None;
    }

    /// Sends what may be sent, and at least an acknowledgement where one is owed.
    pub fn flush(&mut self, now: Instant, out: &mut Vec<Transmit>) {
        let sent = out.len();
        self.pump(now, out);
        let has_answer = out.len() > sent;
        if !has_answer && self.owed >= 2 && matches!(self.state, State::Open | State::TimeWait) {
            out.push(Transmit { segment: self.segment(self.next, Flags::ACK), data: None });
        }
        if has_answer || self.owed >= 2 {
            self.owed = 0;
        }
    }

    const fn segment(&self, sequence: u32, flags: Flags) -> Segment {
        Segment { sequence, acknowledgement: self.expected, flags, window: WINDOW }
    }

    /// Sends everything from `next` on that the window allows.
    fn pump(&mut self, now: Instant, out: &mut Vec<Transmit>) {
        match self.state {
            State::SynSent | State::SynReceived => {
                if self.next == self.unacknowledged {
                    let flags =
                        if self.state == State::SynSent { Flags::SYN } else { Flags::SYN.with(Flags::ACK) };
                    let mut segment = self.segment(self.next, flags);
                    if self.state == State::SynSent {
                        segment.acknowledgement = 0;
                    }
                    self.emit(segment, None, 1, now, out);
                }
                return;
            }
            State::Open => {}
            State::TimeWait | State::Closed | State::Reset | State::TimedOut => return,
        }
        let end = self.end();
        while let Some(message) = self.message.filter(|_| before(self.next, end)) {
            let room = (u32::from(self.window) * self.segment_bytes).min(self.peer_window);
            let in_flight = self.next.wrapping_sub(self.unacknowledged);
            let length = end.wrapping_sub(self.next).min(self.segment_bytes);
            if in_flight > 0 && in_flight + length > room {
                return;
            }
            let is_burst_end = length == end.wrapping_sub(self.next) || in_flight + length * 2 > room;
            let flags = if is_burst_end { Flags::ACK.with(Flags::PSH) } else { Flags::ACK };
            let data = (message, self.next.wrapping_sub(self.message_start), length);
            let segment = self.segment(self.next, flags);
            self.emit(segment, Some(data), length, now, out);
        }
        if self.wants_close && self.next == end {
            let segment = self.segment(end, Flags::FIN.with(Flags::ACK));
            self.emit(segment, None, 1, now, out);
        }
    }

    /// Puts out one segment that takes `length` numbers.
    fn emit(
        &mut self,
        segment: Segment,
        data: Option<(Message, u32, u32)>,
        length: u32,
        now: Instant,
        out: &mut Vec<Transmit>,
    ) {
        self.next = self.next.wrapping_add(length);
        if before(self.newest, self.next) {
            self.newest = self.next;
            // One segment at a time is timed, and never a repeated one (RFC 6298 s.3).
            if self.timed_at == Instant::NEVER && self.retries == 0 {
                (self.timed_end, self.timed_at) = (self.next, now);
            }
        } else {
            self.retransmitted += 1;
        }
        if self.deadline == Instant::NEVER {
            self.deadline = now.after(self.patience());
        }
        out.push(Transmit { segment, data });
    }

    /// The timer has run out.
    pub fn timeout(&mut self, now: Instant, out: &mut Vec<Transmit>) {
        if now < self.deadline {
            return;
        }
        if self.state == State::TimeWait {
            self.end_with(State::Closed);
            return;
        }
        if self.retries >= RETRIES_MAX {
            self.end_with(State::TimedOut);
            return;
        }
        self.retries += 1;
        self.threshold = (self.window / 2).max(2);
        self.window = 1;
        self.duplicates = 0;
        self.timed_at = Instant::NEVER;
        self.next = self.unacknowledged;
        self.deadline = now.after(self.patience());
        self.pump(now, out);
    }
}

/// The reset that answers a segment for which there is no connection (RFC 9293 s.3.10.7.1).
#[must_use]
pub fn reset_for(segment: &Segment, payload: usize) -> Option<Segment> {
    if segment.flags.has(Flags::RST) {
        return None;
    }
    if segment.flags.has(Flags::ACK) {
        let sequence = segment.acknowledgement;
        return Some(Segment { sequence, acknowledgement: 0, flags: Flags::RST, window: 0 });
    }
    let control = u32::from(segment.flags.has(Flags::SYN)) + u32::from(segment.flags.has(Flags::FIN));
    let length = u32::try_from(payload).unwrap_or(0).wrapping_add(control);
    let acknowledgement = segment.sequence.wrapping_add(length);
    Some(Segment { sequence: 0, acknowledgement, flags: Flags::RST.with(Flags::ACK), window: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{HEAD_BYTES, request_head};
    use crate::queue::{EventQueue, HeapQueue};
    use crate::random::Stream;

    /// Two ends and a wire that loses and delays.
    struct Pair {
        ends: [Option<Tcp>; 2],
        got: [Vec<u8>; 2],
        wire: HeapQueue<(usize, Option<Transmit>)>,
        draw: Stream,
        loss: u32,
        jitter: u64,
        now: Instant,
    }

    impl Pair {
        fn new(seed: u64, initial: u32, message: Message, loss: u32, jitter: u64) -> Self {
            let mut out = Vec::new();
            let client = Tcp::connect(initial, message, Instant::ZERO, &mut out);
            let (wire, draw) = (HeapQueue::default(), Stream::new(seed, "wire", "test"));
            let ends = [Some(client), None];
            let mut pair =
                Self { ends, got: Default::default(), wire, draw, loss, jitter, now: Instant::ZERO };
            pair.put(0, out);
            pair
        }

        fn put(&mut self, from: usize, out: Vec<Transmit>) {
            for transmit in out {
                if !self.draw.happens(self.loss) {
                    let delay = 10_000 + self.draw.below(self.jitter);
                    self.wire.push(self.now.after(Duration::from_nanos(delay)), (1 - from, Some(transmit)));
                }
            }
            if let Some(end) = &self.ends[from] {
                let deadline = end.deadline();
                if deadline != Instant::NEVER {
                    self.wire.push(deadline, (from, None));
                }
            }
        }

        /// Runs until nothing is left to happen; the server answers one request with `response` and closes.
        fn run(&mut self, response: &Message) {
            let mut events = 0;
            while let Some((now, (to, event))) = self.wire.pop() {
                events += 1;
                assert!(events < 1_000_000, "no end");
                self.now = now;
                let mut out = Vec::new();
                let Some(transmit) = event else {
                    if let Some(end) = &mut self.ends[to] {
                        end.timeout(now, &mut out);
                    }
                    self.put(to, out);
                    continue;
                };
                let mut bytes = Vec::new();
                if let Some((message, offset, length)) = transmit.data {
                    bytes.resize(usize::try_from(length).unwrap(), 0);
                    message.write(offset, &mut bytes);
                }
                if self.ends[to].is_none() && transmit.segment.flags == Flags::SYN {
                    self.ends[to] = Some(Tcp::accept(u32::MAX - 3, &transmit.segment, now, &mut out));
                } else if let Some(end) = &mut self.ends[to] {
                    let got = &mut self.got[to];
                    let had = got.len();
                    end.receive(&transmit.segment, &bytes, now, &mut out, &mut |piece| got.extend(piece));
                    self.react(to, had, response);
                    self.ends[to].as_mut().unwrap().flush(now, &mut out);
                }
                self.put(to, out);
            }
        }

        fn react(&mut self, at: usize, had: usize, response: &Message) {
            let got = &self.got[at];
            let end = self.ends[at].as_mut().unwrap();
            if at == 1 {
                let wanted = request_head(got).map(|head| usize::try_from(head.length).unwrap());
                if wanted == Some(got.len()) && had < got.len() {
                    end.send(*response);
                }
                if end.is_closed_by_peer() {
                    end.close();
                }
            } else if got.len() == usize::try_from(response.len()).unwrap() && had < got.len() {
                end.close();
            }
        }

        fn states(&self) -> [Option<State>; 2] {
            [self.ends[0].as_ref().map(Tcp::state), self.ends[1].as_ref().map(Tcp::state)]
        }
    }

    fn whole(message: &Message) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(message.len()).unwrap()];
        message.write(0, &mut bytes);
        bytes
    }

    #[test]
    fn a_connection_opens_talks_and_closes() {
        for (ask, answer) in [(HEAD_BYTES, HEAD_BYTES), (200, 10_000), (1_460, 1_461), (100_000, 300_000)] {
            let (request, response) = (Message::request(ask, answer, 5), Message::request(answer, 16, 6));
            let mut pair = Pair::new(1, 0xffff_fff0, request, 0, 0);
            pair.run(&response);
            assert_eq!(pair.states(), [Some(State::Closed), Some(State::Closed)]);
            assert_eq!(pair.got, [whole(&response), whole(&request)]);
            assert_eq!(pair.ends.iter().flatten().map(|end| end.retransmitted).sum::<u32>(), 0);
        }
    }

    #[test]
    fn loss_and_reordering_are_survived() {
        let mut finished = 0;
        for seed in 0..200 {
            let (request, response) =
                (Message::request(30_000, 100_000, 5), Message::request(100_000, 16, 6));
            let mut pair = Pair::new(seed, u32::MAX - 20_000, request, 20_000, 50_000);
            pair.run(&response);
            assert_eq!(pair.got, [whole(&response), whole(&request)], "seed {seed}");
            let is_over = |state| matches!(state, Some(State::Closed | State::TimedOut));
            assert!(pair.states().into_iter().all(is_over), "seed {seed}: {:?}", pair.states());
            finished += u32::from(pair.states() == [Some(State::Closed), Some(State::Closed)]);
        }
        assert!(finished >= 199, "{finished} of 200");
    }

    #[test]
    fn a_dead_peer_ends_in_a_timeout() {
        let mut pair = Pair::new(1, 7, Message::request(100, 100, 5), 1_000_000, 0);
        pair.run(&Message::request(100, 16, 6));
        assert_eq!(pair.states(), [Some(State::TimedOut), None]);
        assert_eq!(pair.ends[0].as_ref().unwrap().retransmitted, u32::from(RETRIES_MAX));
        // 1 + 2 + 4 + 8 + 16 + 32 + 60 seconds.
        assert_eq!(pair.now, Instant::from_nanos(123_000_000_000));
    }

    #[test]
    fn only_the_expected_number_resets() {
        let mut out = Vec::new();
        let syn = Segment { sequence: 99, acknowledgement: 0, flags: Flags::SYN, window: 1000 };
        let mut tcp = Tcp::accept(500, &syn, Instant::ZERO, &mut out);
        let reset = |sequence| Segment { sequence, acknowledgement: 501, flags: Flags::RST, window: 0 };
        tcp.receive(&reset(101), &[], Instant::ZERO, &mut out, &mut |_| {});
        assert_eq!(tcp.state(), State::SynReceived);
        tcp.receive(&reset(100), &[], Instant::ZERO, &mut out, &mut |_| {});
        assert_eq!(tcp.state(), State::Reset);
    }

    #[test]
    fn a_closed_port_answers_with_the_right_reset() {
        let syn = Segment { sequence: 99, acknowledgement: 0, flags: Flags::SYN, window: 0 };
        let answer = reset_for(&syn, 0).unwrap();
        assert_eq!((answer.sequence, answer.acknowledgement), (0, 100));
        let data = Segment { sequence: 99, acknowledgement: 7, flags: Flags::ACK, window: 0 };
        let answer = reset_for(&data, 5).unwrap();
        assert_eq!((answer.sequence, answer.flags), (7, Flags::RST));
        assert_eq!(reset_for(&answer, 0), None);
    }

    #[test]
    fn order_in_the_circle_holds_at_its_seam() {
        assert!(before(1, 2) && before(u32::MAX, 0) && before(u32::MAX - 5, 5));
        assert!(!before(2, 2) && !before(2, 1) && !before(0, u32::MAX));
    }
}
