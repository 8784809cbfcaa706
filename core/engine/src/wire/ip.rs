//! An IP packet of either family: what the engine asks of both.

use super::checksum::Delta;
use super::{Address, ipv4, ipv6};
use crate::verdict::DropReason;

/// A packet that its own family's door has checked.
#[derive(Debug)]
pub enum Packet<'a> {
    /// IPv4.
    V4(ipv4::Packet<'a>),
    /// IPv6: the fixed header, and what the last extension header carries.
    V6(&'a mut ipv6::Header, &'a mut [u8]),
}

impl<'a> Packet<'a> {
    /// Splits a packet that was checked before, without what lies behind it; its payload begins at `offset`.
    ///
    /// # Errors
    /// `BadHeader` where the bytes are not those that were checked.
    #[inline]
    pub fn reopen(bytes: &'a mut [u8], offset: u16) -> Result<Self, DropReason> {
        if bytes.first().is_some_and(|first| first >> 4 == 6) {
            let (header, payload) = ipv6::Packet::reopen(bytes, offset)?;
            return Ok(Self::V6(header, payload));
        }
        ipv4::Packet::reopen(bytes, usize::from(offset)).map(Self::V4)
    }

    /// What the packet carries.
    #[inline]
    pub const fn payload(&mut self) -> &mut [u8] {
        match self {
            Self::V4(packet) => packet.payload,
            Self::V6(_, payload) => payload,
        }
    }

    /// Bytes of headers and payload.
    #[must_use]
    #[inline]
    pub fn total_length(&self) -> u32 {
        match self {
            Self::V4(packet) => u32::from(packet.header.total_length()),
            Self::V6(header, _) => u32::from(header.payload_length()) + 40,
        }
    }

    /// Hops left.
    #[must_use]
    #[inline]
    pub const fn hops(&self) -> u8 {
        match self {
            Self::V4(packet) => packet.header.ttl(),
            Self::V6(header, _) => header.hop_limit(),
        }
    }

    /// Whether routers must not cut it: always so with IPv6.
    #[must_use]
    pub fn is_dont_fragment(&self) -> bool {
        match self {
            Self::V4(packet) => packet.header.is_dont_fragment(),
            Self::V6(..) => true,
        }
    }

    /// The sender.
    #[must_use]
    pub fn source(&self) -> Address {
        match self {
            Self::V4(packet) => packet.header.source(),
            Self::V6(header, _) => header.source(),
        }
    }

    /// The receiver.
    #[must_use]
    pub fn destination(&self) -> Address {
        match self {
            Self::V4(packet) => packet.header.destination(),
            Self::V6(header, _) => header.destination(),
        }
    }

    /// Takes one hop off and replaces both addresses; `delta` is the change that these make to a checksum.
    #[inline(always)]
    pub fn pass_on(&mut self, source: Address, destination: Address, delta: Delta) {
        match self {
            Self::V4(packet) => packet.header.pass_on(source.v4_bytes(), destination.v4_bytes(), delta),
            Self::V6(header, _) => header.pass_on(source.v6_bytes(), destination.v6_bytes()),
        }
    }

    /// Takes one hop off.
    #[inline]
    pub fn take_hop(&mut self) {
        let (source, destination) = (self.source(), self.destination());
        self.pass_on(source, destination, Delta::NONE);
    }
}
