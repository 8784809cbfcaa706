//! What requests and responses carry, on the simulated and on the real network alike: a head that says how
//! to answer and who answered, then a pattern that shows whether bytes got lost, doubled or mixed up.
//!
//! ```text
//! request:   "EKQ1"  length u32  response length u32  pattern u32  then pattern bytes
//! response:  "EKA1"  length u32  server address u32   pattern u32  then pattern bytes
//! ```
//! All numbers are big endian; lengths count the head. Byte `i` of a message is byte `i` of the pattern,
//! save for the head. The response's pattern is the request's with every bit turned around.

use std::net::Ipv4Addr;

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
    head: [u8; 16],
    length: u32,
    pattern: u32,
}

/// What a head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the whole message.
    pub length: u32,
    /// Request: the wanted length of the response. Response: the server's address as a number.
    pub argument: u32,
    /// The pattern of the bytes behind the head.
    pub pattern: u32,
}

impl Message {
    /// A request of `length` bytes that wants `response_length` bytes back.
    #[must_use]
    pub fn request(length: u32, response_length: u32, pattern: u32) -> Self {
        Self::new(REQUEST, Head { length, argument: response_length, pattern })
    }

    /// The response of `server` to a request.
    #[must_use]
    pub fn response(request: &Head, server: Ipv4Addr) -> Self {
        let head = Head { length: request.argument, argument: server.to_bits(), pattern: !request.pattern };
        Self::new(RESPONSE, head)
    }

    fn new(magic: [u8; 4], head: Head) -> Self {
        let mut bytes = [0; 16];
        let fields = [magic, head.length.to_be_bytes(), head.argument.to_be_bytes(), head.pattern.to_be_bytes()];
        bytes.copy_from_slice(fields.as_flattened());
        Self { head: bytes, length: head.length, pattern: head.pattern }
    }

    /// Bytes of the whole message.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.length
    }

    /// Whether the message has no bytes. A checked exchange never makes one.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Writes the bytes from `offset` on into `place`.
    pub fn write(&self, offset: u32, place: &mut [u8]) {
        let mut word = Word::at(self.pattern, offset);
        for (byte, index) in place.iter_mut().zip(offset..) {
            let head = usize::try_from(index).ok().and_then(|index| self.head.get(index));
            *byte = head.copied().unwrap_or_else(|| word.byte(index));
        }
    }

    /// Whether `bytes` are those of this message from `offset` on.
    #[must_use]
    pub fn matches(&self, offset: u32, bytes: &[u8]) -> bool {
        let mut word = Word::at(self.pattern, offset);
        bytes.iter().zip(offset..).all(|(byte, index)| {
            let head = usize::try_from(index).ok().and_then(|index| self.head.get(index));
            *byte == head.copied().unwrap_or_else(|| word.byte(index))
        })
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

/// The four pattern bytes that contain the current offset.
struct Word {
    pattern: u32,
    index: u32,
    bytes: [u8; 4],
}

impl Word {
    fn at(pattern: u32, offset: u32) -> Self {
        let index = offset / 4;
        Self { pattern, index, bytes: Self::mix(pattern, index) }
    }

    /// A word of the pattern: no two near offsets and no two patterns give the same bytes in a row.
    const fn mix(pattern: u32, index: u32) -> [u8; 4] {
        let mut word = pattern ^ index.wrapping_mul(0x9e37_79b9);
        word = (word ^ (word >> 16)).wrapping_mul(0x7feb_352d);
        word = (word ^ (word >> 15)).wrapping_mul(0x846c_a68b);
        (word ^ (word >> 16)).to_be_bytes()
    }

    fn byte(&mut self, offset: u32) -> u8 {
        if offset / 4 != self.index {
            *self = Self::at(self.pattern, offset);
        }
        let [a, b, c, d] = self.bytes;
        match offset % 4 {
            0 => a,
            1 => b,
            2 => c,
            _ => d,
        }
    }
}

#[cfg(test)]
mod tests {
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
            pieces.extend(piece);
        }
        assert_eq!(pieces, whole);
        whole[700] ^= 1;
        assert!(!message.matches(0, &whole));
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
