//! TCP (RFC 9293): ports, flags and checksum of a segment, in place.

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::Delta;
use crate::verdict::DropReason;

/// Bytes of a header without options.
pub const HEADER_BYTES: usize = 20;

/// Where the checksum lies in the header.
pub const CHECKSUM_AT: usize = 16;

/// The control bits of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// The sender is done.
    pub const FIN: Self = Self(0x01);
    /// A connection begins.
    pub const SYN: Self = Self(0x02);
    /// The connection is over at once.
    pub const RST: Self = Self(0x04);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(0x10);

    /// Whether any bit of `other` is set here.
    #[must_use]
    #[inline]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether this opens a connection: SYN alone.
    #[must_use]
    #[inline]
    pub const fn is_opening(self) -> bool {
        self.0 & (Self::SYN.0 | Self::ACK.0 | Self::RST.0 | Self::FIN.0) == Self::SYN.0
    }
}

/// The fixed part of the header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    source_port: U16,
    destination_port: U16,
    sequence: U32,
    acknowledgement: U32,
    data_offset: u8,
    flags: u8,
    window: U16,
    checksum: U16,
    urgent: U16,
}

impl Header {
    /// Checks the header at the start of `payload`.
    ///
    /// # Errors
    /// `Truncated` when bytes are missing, `BadHeader` when the data offset contradicts the length.
    #[inline]
    pub fn split(payload: &mut [u8]) -> Result<(&mut Self, &mut [u8]), DropReason> {
        let length = payload.len();
        let Ok((header, rest)) = Self::mut_from_prefix(payload) else { return Err(DropReason::Truncated) };
        let offset = usize::from(header.data_offset >> 4) * 4;
        if offset < HEADER_BYTES || offset > length {
            return Err(DropReason::BadHeader);
        }
        Ok((header, rest))
    }

    /// A segment without payload and options; the checksum is zero.
    #[must_use]
    pub fn bare(
        source_port: u16,
        destination_port: u16,
        sequence: u32,
        acknowledgement: u32,
        flags: Flags,
    ) -> Self {
        Self {
            source_port: U16::new(source_port),
            destination_port: U16::new(destination_port),
            sequence: U32::new(sequence),
            acknowledgement: U32::new(acknowledgement),
            data_offset: 0x50,
            flags: flags.0,
            window: U16::ZERO,
            checksum: U16::ZERO,
            urgent: U16::ZERO,
        }
    }

    /// Sets the checksum field.
    pub fn set_checksum(&mut self, checksum: u16) {
        self.checksum.set(checksum);
    }

    /// The header at the start of a payload that [`Header::split`] has checked before; `None` where it is not that.
    #[inline]
    pub fn reopen(payload: &mut [u8]) -> Option<&mut Self> {
        Self::mut_from_prefix(payload).ok().map(|(header, _)| header)
    }

    /// Replaces both ports and mends the checksum by `delta`, the change of addresses and ports.
    #[inline]
    pub fn set_ports(&mut self, source: u16, destination: u16, delta: Delta) {
        self.source_port.set(source);
        self.destination_port.set(destination);
        self.checksum.set(delta.apply(self.checksum.get()));
    }

    /// Replaces both ports where the checksum field holds only the pseudo header's sum; `delta` is the change of
    /// the addresses.
    #[inline]
    pub fn set_ports_partial(&mut self, source: u16, destination: u16, delta: Delta) {
        self.source_port.set(source);
        self.destination_port.set(destination);
        self.checksum.set(delta.apply_to_sum(self.checksum.get()));
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

    /// The control bits.
    #[must_use]
    #[inline]
    pub const fn flags(&self) -> Flags {
        Flags(self.flags)
    }

    /// The number of the first byte.
    #[must_use]
    pub fn sequence(&self) -> u32 {
        self.sequence.get()
    }

    /// The next byte that the sender expects.
    #[must_use]
    pub fn acknowledgement(&self) -> u32 {
        self.acknowledgement.get()
    }

    /// Bytes of the header with its options.
    #[must_use]
    pub fn header_length(&self) -> usize {
        usize::from(self.data_offset >> 4) * 4
    }
}
