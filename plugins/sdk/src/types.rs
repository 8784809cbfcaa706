//! What the generated records can say about themselves.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use crate::{Arrival, BadOption, ConfigureError, Flow, Limit, LimitKey, Load, Moment, PolicyWishes, Server};

/// The number of TCP in [`Flow::protocol`].
pub const PROTOCOL_TCP: u8 = 6;
/// The number of UDP in [`Flow::protocol`].
pub const PROTOCOL_UDP: u8 = 17;
/// The number of ICMP in [`Flow::protocol`].
pub const PROTOCOL_ICMP: u8 = 1;
/// The number of ICMP for IPv6 in [`Flow::protocol`].
pub const PROTOCOL_ICMPV6: u8 = 58;

/// A point in time, in nanoseconds since an origin that the forwarder chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The point `nanoseconds` after the origin.
    #[must_use]
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Nanoseconds that have passed since `earlier`; 0 if `earlier` is later.
    #[must_use]
    pub const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This time plus `duration`; the largest time where the sum does not fit.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// The address that two halves hold: IPv4 where they hold a mapped one.
fn address(high: u64, low: u64) -> IpAddr {
    let address = Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
    address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
}

/// The halves of an address, IPv4 in its mapped form.
pub(crate) fn halves(address: Ipv4Addr) -> (u64, u64) {
    (0, 0xffff_0000_0000 | u64::from(address.to_bits()))
}

impl Server {
    /// Whether a new flow may go there.
    #[must_use]
    pub const fn is_usable(&self) -> bool {
        self.is_up && self.weight > 0
    }

    /// Whether it has a share of new flows, though it may be full at the moment. What is built from servers is built
    /// from these, so that a server that is full now and then changes nothing.
    #[must_use]
    pub const fn is_member(&self) -> bool {
        (self.is_up || self.is_full) && self.weight > 0
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        address(self.address_high, self.address_low)
    }
}

impl Flow {
    /// Who sent the first packet.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        address(self.source_high, self.source_low)
    }

    /// To whom.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        address(self.destination_high, self.destination_low)
    }

    /// Whether this is TCP.
    #[must_use]
    pub const fn is_tcp(&self) -> bool {
        self.protocol == PROTOCOL_TCP
    }
}

impl Load {
    /// What a flow by `protocol` would find before it: TCP connections that are open, or of other protocols, which
    /// nobody sees close, all entries.
    #[must_use]
    pub const fn outstanding(&self, protocol: u8) -> u64 {
        let (active, inactive) = (self.active as u64, self.inactive as u64);
        if protocol == PROTOCOL_TCP { active } else { active + inactive }
    }
}

impl From<Flow> for Arrival {
    /// The arrival of the first packet of a flow, a SYN or an echo request, by the first interface.
    fn from(flow: Flow) -> Self {
        let is_icmpv6 = flow.protocol == PROTOCOL_ICMPV6;
        Self {
            flow,
            interface: 0,
            icmp_kind: if is_icmpv6 { 128 } else { 8 },
            tcp_flags: if flow.is_tcp() { 2 } else { 0 },
            dscp: 0,
            moment: Moment::First,
            length: 40,
        }
    }
}

impl PolicyWishes {
    /// Nothing.
    pub const NONE: Self = Self { packets: false, limits: Vec::new() };
}

impl Limit {
    /// So many of all flows together in each second, and `burst` of them at once.
    #[must_use]
    pub const fn per_second(count: u32, burst: u32) -> Self {
        Self { count, period: 1_000_000_000, burst, key: LimitKey::All, length_v4: 0, length_v6: 0 }
    }

    /// The same for each source: by this many bits of its address (IPv4, IPv6).
    #[must_use]
    pub const fn for_each_source(self, length_v4: u8, length_v6: u8) -> Self {
        Self { key: LimitKey::Source, length_v4, length_v6, ..self }
    }
}

impl ConfigureError {
    /// The option `name` is there, and its value cannot be used for this reason.
    #[must_use]
    pub fn bad_option(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::BadOption(BadOption { name: name.into(), reason: reason.into() })
    }
}

impl Eq for BadOption {}
impl Eq for ConfigureError {}

/// The text that operators see, without the name of the component.
pub(crate) fn describe(error: &ConfigureError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match error {
        ConfigureError::UnknownOption(name) => write!(f, "there is no option `{name}`"),
        ConfigureError::BadOption(BadOption { name, reason }) => write!(f, "option `{name}`: {reason}"),
        ConfigureError::Other(reason) => f.write_str(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_is_the_mapped_one() {
        let (high, low) = halves(Ipv4Addr::new(192, 0, 2, 7));
        assert_eq!((high, low), (0, 0xffff_c000_0207));
        assert_eq!(address(high, low), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)));
        let six = address(0x2001_0db8_0000_0000, 1);
        assert_eq!(six, "2001:db8::1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn time_neither_wraps_nor_runs_backwards() {
        let late = Instant::from_nanos(u64::MAX - 1);
        assert_eq!(late.after(Duration::from_secs(1)), Instant::from_nanos(u64::MAX));
        assert_eq!(Instant::default().nanos_since(late), 0);
        assert_eq!(late.nanos_since(Instant::default()), u64::MAX - 1);
    }
}
