//! Ethernet II: link addresses and the frame header, in place.

use core::fmt;
use core::str::FromStr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::verdict::DropReason;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 14;
/// The type of a frame that carries IPv4.
pub const TYPE_IPV4: u16 = 0x0800;
/// The type of a frame that carries ARP.
pub const TYPE_ARP: u16 = 0x0806;
/// The type of a frame that carries IPv6.
pub const TYPE_IPV6: u16 = 0x86dd;

/// The header of a frame.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    destination: [u8; 6],
    source: [u8; 6],
    ethertype: U16,
}

impl Header {
    /// A header.
    #[must_use]
    pub fn new(destination: MacAddress, source: MacAddress, ethertype: u16) -> Self {
        Self { destination: destination.0, source: source.0, ethertype: U16::new(ethertype) }
    }

    /// Splits a frame into header and payload.
    ///
    /// # Errors
    /// `Truncated` when bytes are missing.
    pub fn split(frame: &mut [u8]) -> Result<(&mut Self, &mut [u8]), DropReason> {
        Self::mut_from_prefix(frame).map_err(|_| DropReason::Truncated)
    }

    /// Who is to receive the frame.
    #[must_use]
    pub const fn destination(&self) -> MacAddress {
        MacAddress(self.destination)
    }

    /// Who sent the frame.
    #[must_use]
    pub const fn source(&self) -> MacAddress {
        MacAddress(self.source)
    }

    /// What the frame carries.
    #[must_use]
    pub fn ethertype(&self) -> u16 {
        self.ethertype.get()
    }
}

/// A link address.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// No station: an address that is still to be filled in.
    pub const UNSPECIFIED: Self = Self([0; 6]);

    /// Every station.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The group of stations that listen to the IPv6 multicast `address` (RFC 2464 s.7).
    #[must_use]
    pub const fn multicast_of(address: [u8; 16]) -> Self {
        let [.., a, b, c, d] = address;
        Self([0x33, 0x33, a, b, c, d])
    }

    /// Whether a frame to this address is for more than one station.
    #[must_use]
    pub const fn is_group(self) -> bool {
        let Self([first, ..]) = self;
        first & 1 == 1
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([a, b, c, d, e, g]) = self;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not six pairs of hexadecimal digits with colons between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a link address like 02:00:00:00:00:01")]
pub struct ParseMacError;

impl FromStr for MacAddress {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(ParseMacError)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| ParseMacError)?;
        }
        if parts.next().is_some() { Err(ParseMacError) } else { Ok(Self(bytes)) }
    }
}
