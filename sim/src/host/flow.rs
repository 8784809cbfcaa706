//! What a client knows of its flow, and how both sides read what comes.

use evenkeel_engine::{Duration, Instant};
use serde::Serialize;

use crate::packet::AnyEnd;
use crate::payload::{self, Head, Message};
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
    pub(crate) service: Service,
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

/// What a client knows of its flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) opening: Opening,
    pub(super) opened: Instant,
    /// When the request under way was made.
    pub(super) asked: Instant,
    pub(super) round: u32,
    pub(super) server: Option<u32>,
    /// The client's end, once it has a port.
    pub(super) client: Option<AnyEnd>,
}

impl Flow {
    pub(super) const fn new(opening: Opening, now: Instant) -> Self {
        Self { opening, opened: now, asked: now, round: 0, server: None, client: None }
    }

    /// What a request's head says.
    pub(super) const fn head(&self) -> Head {
        let Opening { request_bytes, response_bytes, pattern, .. } = self.opening;
        let pattern = pattern.wrapping_add(self.round.wrapping_mul(0x9e37_79b9));
        Head { length: request_bytes, argument: response_bytes, pattern }
    }

    pub(super) fn request(&self) -> Message {
        let Head { length, argument, pattern } = self.head();
        Message::request(length, argument, pattern)
    }

    /// Takes in who answered and goes on to the next round; `Some` when the flow is over.
    pub(super) fn answered(&mut self, server: u32) -> Option<Result<(), Cause>> {
        if *self.server.get_or_insert(server) != server {
            return Some(Err(Cause::ServerChanged));
        }
        self.round += 1;
        (self.round >= self.opening.rounds).then_some(Ok(()))
    }

    pub(super) const fn ending(&self, broken: Option<Cause>) -> Ending {
        let Opening { load, number, service, .. } = self.opening;
        let (server, opened, client) = (self.server, self.opened, self.client);
        Ending { load, number, service, server, broken, opened, client }
    }

    pub(super) fn answer(&self, server: u32, now: Instant) -> Answer {
        let latency = now.since(self.asked);
        Answer { load: self.opening.load, server, latency, bytes: self.opening.response_bytes }
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

/// Reads messages out of a stream and compares every byte with what it must be.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    /// The request whose answer this is; `None` reads requests.
    question: Option<Head>,
    head: [u8; 16],
    got: u32,
    message: Option<(Head, Message)>,
}

impl Reader {
    pub(super) const fn new(question: Option<Head>) -> Self {
        Self { question, head: [0; 16], got: 0, message: None }
    }

    /// Takes in bytes of the stream.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Found {
        let start = usize::try_from(self.got).unwrap_or(usize::MAX);
        let place = self.head.get_mut(start..).unwrap_or(&mut []);
        let taken = place.len().min(bytes.len());
        for (to, from) in place.iter_mut().zip(bytes) {
            *to = *from;
        }
        if self.message.is_none() && start + taken == self.head.len() {
            self.message = self.understand();
            if self.message.is_none() {
                return Found::Corrupt;
            }
        }
        let Some((head, message)) = self.message else {
            self.got += u32::try_from(bytes.len()).unwrap_or(0);
            return Found::Nothing;
        };
        // The head is compared as well: it was understood by the same rule that wrote it.
        let fits = message.matches(self.got, bytes);
        self.got = self.got.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        if !fits || self.got > message.len() {
            return Found::Corrupt;
        }
        if self.got < message.len() {
            return Found::Nothing;
        }
        *self = Self::new(self.question);
        Found::Whole(head)
    }

    fn understand(&self) -> Option<(Head, Message)> {
        match &self.question {
            None => {
                let head = payload::request_head(&self.head)?;
                Some((head, Message::request(head.length, head.argument, head.pattern)))
            }
            Some(question) => {
                let head = payload::response_head(&self.head)?;
                let expected = Message::response_of(question, head.argument);
                (head.length == question.argument && head.pattern == !question.pattern)
                    .then_some((head, expected))
            }
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
            let mut reader = Reader::new(None);
            let whole = bytes(&request);
            assert_eq!(reader.push(&whole[..cut]), Found::Nothing);
            assert_eq!(reader.push(&whole[cut..]), Found::Whole(asked), "cut at {cut}");
        }
        let mut reader = Reader::new(Some(asked));
        let response = bytes(&Message::response(&asked, Ipv4Addr::new(10, 0, 3, 20)));
        assert!(matches!(reader.push(&response), Found::Whole(_)));
    }

    #[test]
    fn a_reader_refuses_every_changed_byte_and_a_foreign_answer() {
        let asked = Head { length: 100, argument: 50, pattern: 3 };
        let response = bytes(&Message::response(&asked, Ipv4Addr::new(10, 0, 3, 20)));
        // The server's own address, bytes 8 to 11, is what a client cannot know before.
        for place in (0..50).filter(|place| !(8..12).contains(place)) {
            let mut changed = response.clone();
            changed[place] ^= 1;
            assert_eq!(Reader::new(Some(asked)).push(&changed), Found::Corrupt, "byte {place}");
        }
        let other = Head { pattern: 4, ..asked };
        assert_eq!(Reader::new(Some(other)).push(&response), Found::Corrupt);
        let mut long = response;
        long.push(0);
        assert_eq!(Reader::new(Some(asked)).push(&long), Found::Corrupt);
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
