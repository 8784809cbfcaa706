//! UDP (RFC 768): ports and checksum of a datagram, in place.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Protocol;
use super::checksum::{self, Delta};
use crate::verdict::DropReason;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 8;

/// Where the checksum lies in the header.
pub const CHECKSUM_AT: usize = 6;

/// The header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    source_port: U16,
    destination_port: U16,
    length: U16,
    checksum: U16,
}

impl Header {
    /// Checks the header at the start of `payload`.
    ///
    /// # Errors
    /// `Truncated` when bytes are missing, `BadHeader` when the length field contradicts them.
    #[inline]
    pub fn split(payload: &mut [u8]) -> Result<(&mut Self, &mut [u8]), DropReason> {
        let length = payload.len();
        let Ok((header, rest)) = Self::mut_from_prefix(payload) else { return Err(DropReason::Truncated) };
        let announced = usize::from(header.length.get());
        if announced < HEADER_BYTES {
            return Err(DropReason::BadHeader);
        }
        if announced > length {
            return Err(DropReason::Truncated);
        }
        Ok((header, rest))
    }

    /// The header at the start of a payload that [`Header::split`] has checked before; `None` where it is not that.
    #[inline]
    pub fn reopen(payload: &mut [u8]) -> Option<&mut Self> {
        Self::mut_from_prefix(payload).ok().map(|(header, _)| header)
    }

    /// Replaces both ports and mends the checksum by `delta`, the change of addresses and ports.
    ///
    /// A datagram without a checksum (0) stays without; a checksum that comes out as 0 is sent as 0xffff.
    #[inline(always)]
    pub fn set_ports(&mut self, source: u16, destination: u16, delta: Delta) {
        self.source_port.set(source);
        self.destination_port.set(destination);
        let old = self.checksum.get();
        if old != 0 {
            let new = delta.apply(old);
            self.checksum.set(if new == 0 { 0xffff } else { new });
        }
    }

    /// Replaces both ports where the checksum field holds only the pseudo header's sum; `delta` is the change of
    /// the addresses.
    #[inline]
    pub fn set_ports_partial(&mut self, source: u16, destination: u16, delta: Delta) {
        self.source_port.set(source);
        self.destination_port.set(destination);
        self.checksum.set(delta.apply_to_sum(self.checksum.get()));
    }

    /// Computes the checksum of the datagram in `payload`, which has none, over IPv4.
    pub fn fill_checksum(payload: &mut [u8], source: [u8; 4], destination: [u8; 4]) {
        let Ok((header, _)) = Self::mut_from_prefix(payload) else { return };
        let length = header.length.get();
        if header.checksum != U16::ZERO {
            return;
        }
        let start = checksum::pseudo_header_v4(source, destination, Protocol::UDP.0, length);
        let sum = checksum::checksum(start, payload.get(..usize::from(length)).unwrap_or_default());
        if let Ok((header, _)) = Self::mut_from_prefix(payload) {
            header.checksum.set(if sum == 0 { 0xffff } else { sum });
        }
    }

    /// The sender's port.
    #[must_use]
    #[inline]
    pub fn source_port(&self) -> u16 {
        self.source_port.get()
    }

    /// The receiver's port.
    #[must_use]
    #[inline]
    pub fn destination_port(&self) -> u16 {
        self.destination_port.get()
    }

    /// The checksum field.
    #[must_use]
    pub fn checksum(&self) -> u16 {
        self.checksum.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_checksum_stays_none_and_a_zero_sum_is_sent_as_ones() {
        let mut header = [0, 1, 0, 2, 0, 8, 0, 0];
        let (udp, _) = Header::split(&mut header).unwrap();
        udp.set_ports(3, 4, Delta::of_word(1, 3));
        assert_eq!(udp.checksum(), 0);
        let mut header = [0, 1, 0, 2, 0, 8, 0, 2];
        let (udp, _) = Header::split(&mut header).unwrap();
        udp.set_ports(3, 2, Delta::of_word(1, 3));
        assert_eq!(udp.checksum(), 0xffff);
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        assert_eq!(Header::split(&mut [0; 7]).map(|_| ()), Err(DropReason::Truncated));
        assert_eq!(Header::split(&mut [0, 1, 0, 2, 0, 7, 0, 0]).map(|_| ()), Err(DropReason::BadHeader));
        assert_eq!(Header::split(&mut [0, 1, 0, 2, 0, 9, 0, 0]).map(|_| ()), Err(DropReason::Truncated));
    }
}
