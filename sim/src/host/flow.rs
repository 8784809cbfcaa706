//! What a client knows of its flow, and how both sides read what comes.

use evenkeel_engine::{Duration, Instant};
use serde::Serialize;

use crate::net::{index, number};
use crate::packet::AnyEnd;
use crate::payload::{self, HEAD_BYTES, Head, Message};
use crate::scenario::Service;

/// Why a flow is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The other side stopped to answer.
    TimedOut,
    /// The connection was reset.
    Reset,
    /// An ICMP message said that nobody is there.
    Unreachable,
    /// The answer was not the one that belongs to the question.
    WrongAnswer,
    /// Another real server answered than before.
    ServerChanged,
    /// The connection was closed before the answer was complete.
    ClosedEarly,
    /// The client had no free port.
    NoPort,
    /// The client's deadline passed before the answer was complete.
    Deadline,
    /// The client's machine has stopped.
    ClientGone,
}

impl Cause {
    /// All of them, in their order.
    pub const ALL: [Self; 9] = [
        Self::TimedOut,
        Self::Reset,
        Self::Unreachable,
        Self::WrongAnswer,
        Self::ServerChanged,
        Self::ClosedEarly,
        Self::NoPort,
        Self::Deadline,
        Self::ClientGone,
    ];

    /// The cause as a key.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::TimedOut => "timed_out",
            Self::Reset => "reset",
            Self::Unreachable => "unreachable",
            Self::WrongAnswer => "wrong_answer",
            Self::ServerChanged => "server_changed",
            Self::ClosedEarly => "closed_early",
            Self::NoPort => "no_port",
            Self::Deadline => "deadline",
            Self::ClientGone => "client_gone",
        }
    }

    /// The cause in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::TimedOut => "the other side stopped to answer",
            Self::Reset => "the connection was reset",
            Self::Unreachable => "an ICMP message said that nobody is there",
            Self::WrongAnswer => "the answer was not the one that belongs to the question",
            Self::ServerChanged => "another real server answered than before",
            Self::ClosedEarly => "the connection was closed before the answer was complete",
            Self::NoPort => "the client had no free port",
            Self::Deadline => "the client's deadline passed before the answer was complete",
            Self::ClientGone => "the client's machine has stopped",
        }
    }
}

/// A flow that is to be opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub(crate) load: usize,
    pub(crate) number: u64,
    pub(crate) service: Service,
    pub(crate) request_bytes: u32,
    pub(crate) response_bytes: u32,
    pub(crate) rounds: u32,
    /// The mean pause between an answer and the next request.
    pub(crate) pause: Duration,
    /// When the client gives up.
    pub(crate) deadline: Instant,
    pub(crate) pattern: u32,
}

/// A flow that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    pub(crate) load: usize,
    pub(crate) number: u64,
    /// Who answered, by [`payload::identity`].
    pub(crate) server: Option<u32>,
    pub(crate) broken: Option<Cause>,
    pub(crate) opened: Instant,
    /// The client's end, where it had a port.
    pub(crate) client: Option<AnyEnd>,
}

/// A request that has been answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) load: usize,
    pub(crate) server: u32,
    pub(crate) latency: Duration,
    pub(crate) bytes: u32,
}

/// What a client knows of its flow. There is one for each flow that is open, so that it is kept small.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    number: u64,
    pub(super) deadline: Instant,
    opened: Instant,
    /// When the request under way was made.
    pub(super) asked: Instant,
    pause_ns: u64,
    load: u32,
    request_bytes: u32,
    response_bytes: u32,
    pattern: u32,
    rounds: u32,
    round: u32,
    server: Option<u32>,
}

impl Flow {
    pub(super) fn new(opening: &Opening, now: Instant) -> Self {
        Self {
            number: opening.number,
            deadline: opening.deadline,
            opened: now,
            asked: now,
            pause_ns: u64::try_from(opening.pause.as_nanos()).unwrap_or(u64::MAX),
            load: number(opening.load),
            request_bytes: opening.request_bytes,
            response_bytes: opening.response_bytes,
            pattern: opening.pattern,
            rounds: opening.rounds,
            round: 0,
            server: None,
        }
    }

    /// What the head of the request under way says.
    pub(super) const fn head(&self) -> Head {
        let pattern = self.pattern.wrapping_add(self.round.wrapping_mul(0x9e37_79b9));
        Head { length: self.request_bytes, argument: self.response_bytes, pattern }
    }

    /// The request under way.
    pub(super) const fn request(&self) -> Message {
        let Head { length, argument, pattern } = self.head();
        Message::request(length, argument, pattern)
    }

    /// The mean pause between an answer and the next request.
    pub(super) const fn pause(&self) -> Duration {
        Duration::from_nanos(self.pause_ns)
    }

    /// Takes in who answered and goes on to the next round; `Some` when the flow is over.
    pub(super) fn answered(&mut self, server: u32) -> Option<Result<(), Cause>> {
        if *self.server.get_or_insert(server) != server {
            return Some(Err(Cause::ServerChanged));
        }
        self.round += 1;
        self.is_done().then_some(Ok(()))
    }

    /// Whether every request has been answered.
    pub(super) const fn is_done(&self) -> bool {
        self.round >= self.rounds
    }

    pub(super) fn ending(&self, client: Option<AnyEnd>, broken: Option<Cause>) -> Ending {
        let Self { number, server, opened, .. } = *self;
        Ending { load: index(self.load), number, server, broken, opened, client }
    }

    pub(super) fn answer(&self, server: u32, now: Instant) -> Answer {
        let latency = now.since(self.asked);
        Answer { load: index(self.load), server, latency, bytes: self.response_bytes }
    }
}

/// What a reader has found so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Whole(Head),
    Corrupt,
}

impl Found {
    /// Adds what one piece of the stream gave to what the pieces before it gave.
    pub(super) fn note(&mut self, now: Self) {
        *self = match (*self, now) {
            (before, Self::Nothing) => before,
            (Self::Nothing, now) => now,
            // A second message, which nobody has asked for, or something after corruption.
            (Self::Whole(_) | Self::Corrupt, Self::Whole(_) | Self::Corrupt) => Self::Corrupt,
        };
    }
}

/// Reads messages out of a stream and compares every byte with what it must be. Whoever pushes says which request is
/// answered: none where requests are read.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    got: u32,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// The head is not complete.
    Head([u8; HEAD]),
    /// The head was understood: this is what comes.
    Message(Message),
}

const HEAD: usize = HEAD_BYTES as usize;

impl Default for Reader {
    fn default() -> Self {
        Self { got: 0, state: State::Head([0; HEAD]) }
    }
}

impl Reader {
    /// Takes in bytes of the stream.
    pub(super) fn push(&mut self, question: Option<&Head>, bytes: &[u8]) -> Found {
        if let State::Head(head) = &mut self.state {
            let start = usize::try_from(self.got).unwrap_or(usize::MAX);
            let taken = bytes.len().min(HEAD.saturating_sub(start));
            match bytes.first_chunk() {
                Some(whole) if start == 0 => *head = *whole,
                Some(_) | None => {
                    let place = head.get_mut(start..).unwrap_or(&mut []);
                    place.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                }
            }
            if start + taken == HEAD {
                let Some(message) = understand(question, head) else { return Found::Corrupt };
                self.state = State::Message(message);
            }
        }
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let State::Message(message) = self.state else {
            self.got = self.got.saturating_add(length);
            return Found::Nothing;
        };
        // The head is compared as well: it was understood by the same rule that wrote it.
        let fits = message.matches(self.got, bytes);
        self.got = self.got.saturating_add(length);
        if !fits || self.got > message.len() {
            return Found::Corrupt;
        }
        if self.got < message.len() {
            return Found::Nothing;
        }
        *self = Self::default();
        Found::Whole(message.head())
    }
}

/// Reads a message that came in one piece, with nothing behind it, and compares every byte with what it must be.
#[inline]
pub(super) fn read_whole(question: Option<&Head>, bytes: &[u8]) -> Option<Head> {
    let message = understand(question, bytes.first_chunk()?)?;
    let is_whole = u32::try_from(bytes.len()).is_ok_and(|length| length == message.len());
    (is_whole && message.matches(0, bytes)).then(|| message.head())
}

/// The message that begins with this head, where it is one that may come.
#[inline]
fn understand(question: Option<&Head>, head: &[u8; HEAD]) -> Option<Message> {
    match question {
        None => {
            let Head { length, argument, pattern } = payload::request_head(head)?;
            Some(Message::request(length, argument, pattern))
        }
        Some(question) => {
            let head = payload::response_head(head)?;
            (head.length == question.argument && head.pattern == !question.pattern)
                .then(|| Message::response_of(question, head.argument))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn bytes(message: &Message) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(message.len()).unwrap()];
        message.write(0, &mut bytes);
        bytes
    }

    #[test]
    fn a_reader_understands_messages_in_any_pieces() {
        let request = Message::request(100, 50, 3);
        let asked = Head { length: 100, argument: 50, pattern: 3 };
        for cut in 0..100 {
            let mut reader = Reader::default();
            let whole = bytes(&request);
            assert_eq!(reader.push(None, &whole[..cut]), Found::Nothing);
            assert_eq!(reader.push(None, &whole[cut..]), Found::Whole(asked), "cut at {cut}");
        }
        let whole = bytes(&request);
        assert_eq!(read_whole(None, &whole), Some(asked));
        assert_eq!((0..100).find_map(|cut| read_whole(None, &whole[..cut])), None);
        let response = bytes(&Message::response(&asked, Ipv4Addr::new(10, 0, 3, 20)));
        assert!(read_whole(Some(&asked), &response).is_some());
        assert!(matches!(Reader::default().push(Some(&asked), &response), Found::Whole(_)));
    }

    #[test]
    fn a_reader_refuses_every_changed_byte_and_a_foreign_answer() {
        let asked = Head { length: 100, argument: 50, pattern: 3 };
        let response = bytes(&Message::response(&asked, Ipv4Addr::new(10, 0, 3, 20)));
        // The server's own address, bytes 8 to 11, is what a client cannot know before.
        for place in (0..50).filter(|place| !(8..12).contains(place)) {
            let mut changed = response.clone();
            changed[place] ^= 1;
            assert_eq!(Reader::default().push(Some(&asked), &changed), Found::Corrupt, "byte {place}");
            assert_eq!(read_whole(Some(&asked), &changed), None, "byte {place}");
        }
        let other = Head { pattern: 4, ..asked };
        assert_eq!(Reader::default().push(Some(&other), &response), Found::Corrupt);
        let mut long = response;
        long.push(0);
        assert_eq!(Reader::default().push(Some(&asked), &long), Found::Corrupt);
    }

    #[test]
    fn corruption_outweighs_what_was_found_before() {
        let head = Head { length: 16, argument: 16, pattern: 1 };
        let mut found = Found::Nothing;
        found.note(Found::Whole(head));
        found.note(Found::Nothing);
        assert_eq!(found, Found::Whole(head));
        found.note(Found::Corrupt);
        found.note(Found::Whole(head));
        assert_eq!(found, Found::Corrupt);
    }
}
