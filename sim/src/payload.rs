//! What requests and responses carry, on the simulated and on the real network alike: a head that says how
//! to answer and who answered, then a pattern that shows whether bytes got lost, doubled or mixed up.
//!
//! ```text
//! request:   "EKQ1"  length u32  response length u32  pattern u32  then pattern bytes
//! response:  "EKA1"  length u32  server identity u32  pattern u32  then pattern bytes
//! ```
//! All numbers are big endian; lengths count the head. Byte `i` of a message is byte `i` of the pattern,
//! save for the head; eight bytes of the pattern are a mix of its number and their place. The response's pattern is the request's with every bit turned around.

use std::net::IpAddr;

use crate::checksum::{Words, sum};

/// Bytes of a head.
pub const HEAD_BYTES: u32 = 16;
/// The largest message of a TCP exchange: what a simulated window of patterns costs nothing for, and what
/// a lab moves in a second.
pub const MESSAGE_MAX_BYTES: u32 = 16 << 20;
/// The largest datagram that fits into one packet of 1,500 bytes.
pub const DATAGRAM_MAX_BYTES: u32 = 1_472;

const REQUEST: [u8; 4] = *b"EKQ1";
const RESPONSE: [u8; 4] = *b"EKA1";

/// One whole message, as a rule that gives each of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    kind: Kind,
    head: Head,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Request,
    Response,
}

/// What a server calls itself in a response: its IPv4 address as a number, or the words of its IPv6 address, folded.
#[must_use]
pub const fn identity(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            #[allow(clippy::cast_possible_truncation, reason = "the four words of the address")]
            {
                (bits >> 96) as u32 ^ (bits >> 64) as u32 ^ (bits >> 32) as u32 ^ bits as u32
            }
        }
    }
}

/// What a head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the whole message.
    pub length: u32,
    /// Request: the wanted length of the response. Response: the server's [`identity`].
    pub argument: u32,
    /// The pattern of the bytes behind the head.
    pub pattern: u32,
}

impl Message {
    /// A request of `length` bytes that wants `response_length` bytes back.
    #[must_use]
    pub const fn request(length: u32, response_length: u32, pattern: u32) -> Self {
        Self { kind: Kind::Request, head: Head { length, argument: response_length, pattern } }
    }

    /// The response of `server` to a request.
    #[must_use]
    pub fn response(request: &Head, server: impl Into<IpAddr>) -> Self {
        Self::response_of(request, identity(server.into()))
    }

    /// The response of the server with this [`identity`].
    #[must_use]
    pub const fn response_of(request: &Head, server: u32) -> Self {
        let head = Head { length: request.argument, argument: server, pattern: !request.pattern };
        Self { kind: Kind::Response, head }
    }

    /// What its head says.
    #[must_use]
    pub const fn head(&self) -> Head {
        self.head
    }

    /// The bytes of its head.
    fn head_bytes(&self) -> [u8; 16] {
        let Head { length, argument, pattern } = self.head;
        let magic = match self.kind {
            Kind::Request => REQUEST,
            Kind::Response => RESPONSE,
        };
        // Written in words of the size in which it is summed up at once.
        let words = [u32::from_be_bytes(magic), length, argument, pattern];
        words.into_iter().fold(0, |all, word| all << 32 | u128::from(word)).to_be_bytes()
    }

    /// Bytes of the whole message.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.head.length
    }

    /// Whether the message has no bytes. A checked exchange never makes one.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.head.length == 0
    }

    /// Writes the bytes from `offset` on into `place`.
    #[inline]
    pub fn write(&self, offset: u32, place: &mut [u8]) {
        if offset == 0
            && let Some((head, rest)) = place.split_first_chunk_mut()
        {
            *head = self.head_bytes();
            return self.write_words(HEAD_BYTES / 8, rest);
        }
        let (start, rest) = place.split_at_mut(self.unaligned(offset, place.len()));
        for (byte, index) in start.iter_mut().zip(offset..) {
            *byte = self.byte(index);
        }
        self.write_words(self.word_behind(offset, start.len()), rest);
    }

    /// Writes the whole message into `place`, which is as long, and gives its [`sum`].
    #[inline]
    pub(crate) fn write_whole(&self, place: &mut [u8]) -> u64 {
        let length = place.len();
        let Some((head, rest)) = place.split_first_chunk_mut::<16>().filter(|_| length.is_multiple_of(8))
        else {
            self.write(0, place);
            return sum(place);
        };
        *head = self.head_bytes();
        let mut whole = Words::default();
        let (halves, _) = head.as_chunks();
        halves.iter().for_each(|half| whole.add(*half));
        let mut pattern = Pattern::new(self.head.pattern, HEAD_BYTES / 8);
        let (words, _) = rest.as_chunks_mut::<8>();
        let (pairs, single) = words.as_chunks_mut::<2>();
        for [one, other] in pairs {
            *one = pattern.next().to_le_bytes();
            *other = pattern.next().to_le_bytes();
            whole.add(*one);
            whole.add(*other);
        }
        for word in single {
            *word = pattern.next().to_le_bytes();
            whole.add(*word);
        }
        whole.sum()
    }

    /// Writes the words of the pattern from `first` on.
    #[inline]
    fn write_words(&self, first: u32, place: &mut [u8]) {
        let (words, end) = place.as_chunks_mut::<8>();
        let mut pattern = Pattern::new(self.head.pattern, first);
        let (pairs, single) = words.as_chunks_mut::<2>();
        for [one, other] in pairs {
            *one = pattern.next().to_le_bytes();
            *other = pattern.next().to_le_bytes();
        }
        for word in single {
            *word = pattern.next().to_le_bytes();
        }
        if !end.is_empty() {
            end.iter_mut().zip(pattern.next().to_le_bytes()).for_each(|(byte, value)| *byte = value);
        }
    }

    /// Whether `bytes` are those of this message from `offset` on.
    #[must_use]
    #[inline]
    pub fn matches(&self, offset: u32, bytes: &[u8]) -> bool {
        if offset == 0
            && let Some((head, rest)) = bytes.split_first_chunk()
        {
            return *head == self.head_bytes() && self.words_match(HEAD_BYTES / 8, rest);
        }
        let (start, rest) = bytes.split_at(self.unaligned(offset, bytes.len()));
        start.iter().zip(offset..).all(|(byte, index)| *byte == self.byte(index))
            && self.words_match(self.word_behind(offset, start.len()), rest)
    }

    /// Whether `bytes` are words of the pattern from `first` on.
    #[inline]
    fn words_match(&self, first: u32, bytes: &[u8]) -> bool {
        let (words, end) = bytes.as_chunks::<8>();
        let mut pattern = Pattern::new(self.head.pattern, first);
        // Differences are gathered and looked at once.
        let mut difference = 0;
        let (pairs, single) = words.as_chunks::<2>();
        for [one, other] in pairs {
            difference |= u64::from_le_bytes(*one) ^ pattern.next();
            difference |= u64::from_le_bytes(*other) ^ pattern.next();
        }
        for word in single {
            difference |= u64::from_le_bytes(*word) ^ pattern.next();
        }
        let is_end = end.is_empty()
            || end.iter().zip(pattern.next().to_le_bytes()).all(|(byte, value)| *byte == value);
        difference == 0 && is_end
    }

    /// Bytes from `offset` on, of `length`, that are in the head or before the next whole word of the pattern.
    fn unaligned(&self, offset: u32, length: usize) -> usize {
        let start = offset.next_multiple_of(8).max(HEAD_BYTES) - offset;
        usize::try_from(start).unwrap_or(length).min(length)
    }

    /// The index of the word that begins `skipped` bytes behind `offset`.
    fn word_behind(&self, offset: u32, skipped: usize) -> u32 {
        offset.saturating_add(u32::try_from(skipped).unwrap_or(0)) / 8
    }

    /// One byte, of the head or of the pattern.
    fn byte(&self, index: u32) -> u8 {
        if let Some(byte) =
            usize::try_from(index).ok().and_then(|index| self.head_bytes().get(index).copied())
        {
            return byte;
        }
        let word = Pattern::new(self.head.pattern, index / 8).next().to_le_bytes();
        word.into_iter().nth((index % 8) as usize).unwrap_or(0)
    }
}

/// The words of a pattern from one place on: no two places and no two patterns give the same, since each step can be
/// undone.
#[derive(Clone, Copy, Debug)]
struct Pattern {
    /// The number of the pattern and, below it, that of the word, times [`Pattern::STEP`].
    product: u64,
}

impl Pattern {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    #[inline]
    const fn new(pattern: u32, index: u32) -> Self {
        Self { product: (((pattern as u64) << 32) | index as u64).wrapping_mul(Self::STEP) }
    }

    /// The next word. No message is so long that the number of a word reaches the number of the pattern.
    #[inline]
    const fn next(&mut self) -> u64 {
        let word = self.product;
        self.product = word.wrapping_add(Self::STEP);
        word ^ (word >> 32)
    }
}

/// Reads the head of a request.
#[must_use]
pub fn request_head(bytes: &[u8]) -> Option<Head> {
    head(REQUEST, bytes)
}

/// Reads the head of a response.
#[must_use]
pub fn response_head(bytes: &[u8]) -> Option<Head> {
    head(RESPONSE, bytes)
}

fn head(magic: [u8; 4], bytes: &[u8]) -> Option<Head> {
    let (fields, _) = bytes.first_chunk::<16>()?.as_chunks::<4>();
    let [found, length, argument, pattern] = *fields else { return None };
    let head = Head {
        length: u32::from_be_bytes(length),
        argument: u32::from_be_bytes(argument),
        pattern: u32::from_be_bytes(pattern),
    };
    (found == magic && (HEAD_BYTES..=MESSAGE_MAX_BYTES).contains(&head.length)).then_some(head)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_message_can_be_written_and_checked_in_pieces() {
        let message = Message::request(1000, 64, 7);
        let mut whole = vec![0; 1000];
        message.write(0, &mut whole);
        assert_eq!(request_head(&whole), Some(Head { length: 1000, argument: 64, pattern: 7 }));
        assert_eq!(response_head(&whole), None);
        let mut pieces = Vec::new();
        for (start, length) in [(0, 3), (3, 14), (17, 500), (517, 483)] {
            let mut piece = vec![0; length];
            message.write(start, &mut piece);
            assert!(message.matches(start, &piece));
            assert!(!message.matches(start + 1, &piece));
            for place in 0..length {
                let mut changed = piece.clone();
                changed[place] ^= 1;
                assert!(!message.matches(start, &changed), "byte {place} from {start}");
            }
            pieces.extend(piece);
        }
        assert_eq!(pieces, whole);
        for (index, byte) in (0u32..).zip(&whole) {
            assert_eq!(message.byte(index), *byte);
        }
        whole[700] ^= 1;
        assert!(!message.matches(0, &whole));
    }

    #[test]
    fn a_message_that_is_written_whole_is_the_one_that_is_written_in_pieces() {
        for length in 0..200 {
            let message = Message::request(length, 64, 7);
            let (mut whole, mut pieces) = (vec![0; length as usize], vec![0; length as usize]);
            let summed = message.write_whole(&mut whole);
            message.write(0, &mut pieces);
            assert_eq!((summed, &whole), (sum(&pieces), &pieces), "{length}");
        }
    }

    #[test]
    fn a_response_names_its_server_and_answers_its_request() {
        let asked = Head { length: 100, argument: 50, pattern: 9 };
        let mut bytes = [0; 50];
        Message::response(&asked, Ipv4Addr::new(10, 0, 3, 20)).write(0, &mut bytes);
        let head = response_head(&bytes).unwrap();
        assert_eq!((head.length, head.pattern), (50, !9));
        assert_eq!(Ipv4Addr::from_bits(head.argument), Ipv4Addr::new(10, 0, 3, 20));
    }

    #[test]
    fn a_head_with_a_senseless_length_is_none() {
        let mut bytes = [0; 16];
        Message::request(8, 64, 1).write(0, &mut bytes);
        assert_eq!(request_head(&bytes), None);
        Message::request(u32::MAX, 64, 1).write(0, &mut bytes);
        assert_eq!(request_head(&bytes), None);
    }
}
