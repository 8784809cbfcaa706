//! ICMP (RFC 792): the header that all messages share.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::{self, Delta};
use crate::verdict::DropReason;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 8;

/// The types that the engine knows.
pub mod kind {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;

    /// Whether a message of this type tells of an error and quotes the packet that it is about.
    #[must_use]
    pub const fn is_error(kind: u8) -> bool {
        matches!(kind, UNREACHABLE | 4 | TIME_EXCEEDED | PARAMETER_PROBLEM)
    }
}

/// The header: type, code, checksum and four bytes whose meaning depends on the type.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    kind: u8,
    code: u8,
    checksum: U16,
    rest: [u8; 4],
}

impl Header {
    /// Checks the message in `payload`, its checksum included.
    ///
    /// # Errors
    /// `Truncated` when bytes are missing, `BadChecksum` when the message does not add up.
    pub fn split(payload: &mut [u8]) -> Result<(&mut Self, &mut [u8]), DropReason> {
        if payload.len() < HEADER_BYTES {
            return Err(DropReason::Truncated);
        }
        if !checksum::is_valid(0, payload) {
            return Err(DropReason::BadChecksum);
        }
        Self::mut_from_prefix(payload).map_err(|_| DropReason::Truncated)
    }

    /// The header at the start of a message that [`Header::split`] has checked before; `None` where it is not that.
    pub fn reopen(payload: &mut [u8]) -> Option<&mut Self> {
        Self::mut_from_prefix(payload).ok().map(|(header, _)| header)
    }

    /// A header with its checksum set, for the message that ends with `body`.
    #[must_use]
    pub fn new(kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Self {
        let mut header = Self { kind, code, checksum: U16::ZERO, rest };
        let start = checksum::sum(header.as_bytes());
        header.checksum.set(checksum::checksum(start, body));
        header
    }

    /// Computes the checksum of the whole message in `payload` anew.
    pub fn mend(payload: &mut [u8]) {
        if let Ok((header, _)) = Self::mut_from_prefix(payload) {
            header.checksum = U16::ZERO;
        }
        let sum = checksum::checksum(0, payload);
        if let Ok((header, _)) = Self::mut_from_prefix(payload) {
            header.checksum.set(sum);
        }
    }

    /// Gives the query or answer at the start of `payload` another identifier, and mends the checksum by `delta`.
    pub fn set_identifier(payload: &mut [u8], identifier: u16, delta: Delta) {
        let Ok((header, _)) = Self::mut_from_prefix(payload) else { return };
        let [_, _, third, fourth] = header.rest;
        let [first, second] = identifier.to_be_bytes();
        header.rest = [first, second, third, fourth];
        header.checksum.set(delta.apply(header.checksum.get()));
        mend_zero(payload);
    }

    /// The identifier of a query or its answer.
    #[must_use]
    pub const fn identifier(&self) -> u16 {
        let [first, second, ..] = self.rest;
        u16::from_be_bytes([first, second])
    }

    /// Turns the echo request at the start of `payload` into its reply (RFC 792) and mends the checksum.
    pub fn become_echo_reply(payload: &mut [u8]) {
        let Ok((header, _)) = Self::mut_from_prefix(payload) else { return };
        let old = u16::from_be_bytes([header.kind, header.code]);
        header.kind = kind::ECHO_REPLY;
        let new = u16::from_be_bytes([header.kind, header.code]);
        header.checksum.set(Delta::of_word(old, new).apply(header.checksum.get()));
        mend_zero(payload);
    }

    /// The type of the message.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        self.kind
    }

    /// The code within the type.
    #[must_use]
    pub const fn code(&self) -> u8 {
        self.code
    }
}

/// Gives a message of nothing but zeros its checksum. By difference it would be 0, as it is where the sum of the rest is the
/// other zero of ones' complement (RFC 1624 s.3); only this message has no other byte that tells.
fn mend_zero(payload: &mut [u8]) {
    if payload.iter().all(|byte| *byte == 0)
        && let Ok((header, _)) = Header::mut_from_prefix(payload)
    {
        header.checksum.set(u16::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_reply_of_zeros_adds_up() {
        for body in [&[][..], &[0; 5], &[0, 1], &[0xff, 0xff]] {
            let mut message = Header::new(kind::ECHO_REQUEST, 0, [0; 4], body).as_bytes().to_vec();
            message.extend_from_slice(body);
            assert!(Header::split(&mut message).is_ok());
            Header::become_echo_reply(&mut message);
            assert!(Header::split(&mut message).is_ok(), "{message:?}");
        }
    }

    #[test]
    fn an_answer_whose_identifier_becomes_zero_adds_up() {
        let mut message = Header::new(kind::ECHO_REPLY, 0, [0, 7, 0, 0], &[]).as_bytes().to_vec();
        Header::set_identifier(&mut message, 0, Delta::of_word(7, 0));
        assert!(Header::split(&mut message).is_ok(), "{message:?}");
    }
}
