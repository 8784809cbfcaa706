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

    /// Turns an echo request into its reply (RFC 792) and mends the checksum.
    pub fn become_echo_reply(&mut self) {
        let old = u16::from_be_bytes([self.kind, self.code]);
        self.kind = kind::ECHO_REPLY;
        let new = u16::from_be_bytes([self.kind, self.code]);
        self.checksum.set(Delta::of_word(old, new).apply(self.checksum.get()));
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
