//! ICMP for IPv6 (RFC 4443): the header that all messages share. Its checksum covers the addresses.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Protocol;
use super::checksum::{self, Delta};
use crate::verdict::DropReason;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 8;

/// The types that the engine knows.
pub mod kind {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Router solicitation.
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Router advertisement.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbour solicitation.
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement.
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    /// Redirect.
    pub const REDIRECT: u8 = 137;

    /// Whether a message of this type is one that neighbours on a link exchange (RFC 4861).
    #[must_use]
    pub const fn is_neighbour_discovery(kind: u8) -> bool {
        matches!(kind, 133..=137)
    }

    /// Whether a message of this type tells of an error (RFC 4443 s.2.1).
    #[must_use]
    pub const fn is_error(kind: u8) -> bool {
        kind < 128
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
    /// Checks the message in `payload` between `source` and `destination`, its checksum included.
    ///
    /// # Errors
    /// `Truncated` when bytes are missing, `BadChecksum` when the message does not add up.
    pub fn split(
        payload: &mut [u8],
        source: [u8; 16],
        destination: [u8; 16],
    ) -> Result<(&mut Self, &mut [u8]), DropReason> {
        if payload.len() < HEADER_BYTES {
            return Err(DropReason::Truncated);
        }
        if !checksum::is_valid(pseudo_header(source, destination, payload.len()), payload) {
            return Err(DropReason::BadChecksum);
        }
        Self::mut_from_prefix(payload).map_err(|_| DropReason::Truncated)
    }

    /// A header with its checksum set, for the message from `source` to `destination` that ends with `body`.
    #[must_use]
    pub fn new(
        kind: u8,
        code: u8,
        rest: [u8; 4],
        body: &[u8],
        source: [u8; 16],
        destination: [u8; 16],
    ) -> Self {
        let mut header = Self { kind, code, checksum: U16::ZERO, rest };
        let start = pseudo_header(source, destination, HEADER_BYTES + body.len());
        let start = checksum::fold(u64::from(start) + u64::from(checksum::sum(header.as_bytes())));
        header.checksum.set(checksum::checksum(start, body));
        header
    }

    /// Computes the checksum of the whole message in `payload` from `source` to `destination` anew.
    pub fn mend(payload: &mut [u8], source: [u8; 16], destination: [u8; 16]) {
        if let Ok((header, _)) = Self::mut_from_prefix(payload) {
            header.checksum = U16::ZERO;
        }
        let sum = checksum::checksum(pseudo_header(source, destination, payload.len()), payload);
        if let Ok((header, _)) = Self::mut_from_prefix(payload) {
            header.checksum.set(sum);
        }
    }

    /// Turns an echo request into its reply (RFC 4443 s.4.2) and mends the checksum; `addresses` is the change of both
    /// addresses, [`Delta::NONE`] when they only change places.
    pub fn become_echo_reply(&mut self, addresses: Delta) {
        let old = u16::from_be_bytes([self.kind, self.code]);
        self.kind = kind::ECHO_REPLY;
        let new = u16::from_be_bytes([self.kind, self.code]);
        self.checksum.set(addresses.and(Delta::of_word(old, new)).apply(self.checksum.get()));
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

    /// The four bytes whose meaning depends on the type: of an echo identifier and sequence, of packet too big the MTU.
    #[must_use]
    pub const fn rest(&self) -> [u8; 4] {
        self.rest
    }
}

/// The sum of the pseudo header of a message. None is longer than 32 bits can tell.
fn pseudo_header(source: [u8; 16], destination: [u8; 16], length_bytes: usize) -> u16 {
    let length_bytes = u32::try_from(length_bytes).unwrap_or(u32::MAX);
    checksum::pseudo_header_v6(source, destination, Protocol::ICMPV6.0, length_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use etherparse::{Icmpv6Slice, Icmpv6Type, PacketBuilder};
    use proptest::prelude::*;

    fn echo(source: [u8; 16], destination: [u8; 16], body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ipv6(source, destination, 64).icmpv6_echo_request(0x1234, 7);
        builder.write(&mut bytes, body).unwrap();
        bytes.split_off(40)
    }

    #[test]
    fn errors_are_told_from_the_others() {
        assert!([1, 2, 3, 4, 100, 127].into_iter().all(kind::is_error));
        assert!(![128, 129, 133, 134, 135, 136, 137, 255].into_iter().any(kind::is_error));
    }

    #[test]
    fn a_short_message_and_a_wrong_checksum_are_refused() {
        let (from, to) = ([1; 16], [2; 16]);
        let mut bytes = echo(from, to, b"ping");
        let reason = |bytes: &mut [u8], to| Header::split(bytes, from, to).map(|_| ()).unwrap_err();
        assert_eq!(reason(&mut bytes[..7], to), DropReason::Truncated);
        assert_eq!(reason(&mut [], to), DropReason::Truncated);
        // The checksum covers the addresses.
        assert_eq!(reason(&mut bytes.clone(), [3; 16]), DropReason::BadChecksum);
        bytes[9] ^= 1;
        assert_eq!(reason(&mut bytes, to), DropReason::BadChecksum);
        Header::mend(&mut bytes[..3], from, to);
        Header::mend(&mut bytes, from, to);
        assert!(Header::split(&mut bytes, from, to).is_ok());
    }

    proptest! {
        #[test]
        fn an_echo_becomes_the_reply_that_another_reader_accepts(
            from: [u8; 16], to: [u8; 16], back_from: [u8; 16],
            body in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut bytes = echo(from, to, &body);
            let (header, rest) = Header::split(&mut bytes, from, to).unwrap();
            prop_assert_eq!((header.kind(), header.code()), (kind::ECHO_REQUEST, 0));
            prop_assert_eq!((header.rest(), &*rest), ([0x12, 0x34, 0, 7], &body[..]));
            header.become_echo_reply(Delta::of_16_bytes(to, back_from));
            let read = Icmpv6Slice::from_slice(&bytes).unwrap();
            prop_assert!(read.is_checksum_valid(back_from, from));
            prop_assert!(matches!(read.icmp_type(), Icmpv6Type::EchoReply(_)));
        }

        #[test]
        fn a_new_message_is_one_that_another_reader_accepts(
            from: [u8; 16], to: [u8; 16], body in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let header = Header::new(kind::TOO_BIG, 0, 1280_u32.to_be_bytes(), &body, from, to);
            let bytes = [header.as_bytes(), &body].concat();
            let read = Icmpv6Slice::from_slice(&bytes).unwrap();
            prop_assert!(read.is_checksum_valid(from, to));
            prop_assert_eq!(read.icmp_type(), Icmpv6Type::PacketTooBig { mtu: 1280 });
        }

        #[test]
        fn bytes_of_any_kind_are_split_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Header::split(&mut bytes, [1; 16], [2; 16]);
            Header::mend(&mut bytes, [1; 16], [2; 16]);
            let is_long = bytes.len() >= HEADER_BYTES;
            prop_assert_eq!(Header::split(&mut bytes, [1; 16], [2; 16]).is_ok(), is_long);
        }
    }
}
