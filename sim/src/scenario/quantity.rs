//! Numbers with units as scenario files write them: durations, rates, sizes, addresses that count on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evenkeel_engine::Duration;
use evenkeel_engine::wire::Protocol;

use super::{Service, Subnet};

/// Splits "1.5ms" into its value in billionths and its unit.
fn split(text: &str) -> Option<(u128, &str)> {
    let end = text.find(|character: char| !character.is_ascii_digit() && character != '.')?;
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty()
        || whole.len() > 15
        || fraction.len() > 9
        || (number.contains('.') && fraction.is_empty())
    {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let fraction: u128 = format!("{fraction:0<9}").parse().ok()?;
    Some((whole * 1_000_000_000 + fraction, unit.trim_start()))
}

/// A duration: "10us", "1.5ms", "30s", "2m", "1h", "1d".
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    const FORM: &str = "a duration such as \"10us\", \"1.5ms\", \"30s\", \"2m\" or \"1h\"";
    let (billionths, unit) = split(text).ok_or(FORM)?;
    let nanoseconds: u128 = match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" | "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return Err(FORM),
    };
    let total = billionths * nanoseconds / 1_000_000_000;
    u64::try_from(total).map(Duration::from_nanos).map_err(|_| "a duration below 584 years")
}

/// The mean gap of a rate of events: "200/s", "20k/s", "10/min".
pub(super) fn gap(text: &str) -> Result<Duration, &'static str> {
    const FORM: &str = "a rate such as \"200/s\", \"20k/s\", \"1.5M/s\" or \"10/min\"";
    let (number, per) = text.split_once('/').ok_or(FORM)?;
    let period: u128 = match per.trim() {
        "s" => 1_000_000_000,
        "min" | "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(FORM),
    };
    let number = number.trim();
    let suffixed = if number.ends_with(|last: char| last.is_ascii_digit()) {
        format!("{number}x")
    } else {
        number.to_owned()
    };
    let (billionths, factor) = split(&suffixed).ok_or(FORM)?;
    let events = billionths
        * match factor {
            "x" => 1,
            "k" => 1_000,
            "M" => 1_000_000,
            _ => return Err(FORM),
        };
    if events == 0 {
        return Err("a rate above zero");
    }
    let gap = period * 1_000_000_000 / events;
    if gap == 0 {
        return Err("a rate of at most one a nanosecond");
    }
    u64::try_from(gap).map(Duration::from_nanos).map_err(|_| FORM)
}

/// A rate of bits: "10Gbit", "100Mbit", "64kbit".
pub(super) fn bits(text: &str) -> Result<u64, &'static str> {
    const FORM: &str = "a rate such as \"10Gbit\", \"100Mbit\" or \"64kbit\"";
    let (billionths, unit) = split(text).ok_or(FORM)?;
    let factor: u128 = match unit {
        "bit" => 1,
        "kbit" => 1_000,
        "Mbit" => 1_000_000,
        "Gbit" => 1_000_000_000,
        "Tbit" => 1_000_000_000_000,
        _ => return Err(FORM),
    };
    let bits = billionths * factor / 1_000_000_000;
    u64::try_from(bits).ok().filter(|bits| *bits > 0).ok_or("a rate above zero")
}

/// A size: "200B", "2kB" (2,000), "2KiB" (2,048), "1MB", "1MiB".
pub(super) fn bytes(text: &str) -> Result<u32, &'static str> {
    const FORM: &str = "a size such as \"200B\", \"2kB\", \"64KiB\" or \"1MB\"";
    let (billionths, unit) = split(text).ok_or(FORM)?;
    let factor: u128 = match unit {
        "B" => 1,
        "kB" | "KB" => 1_000,
        "KiB" => 1_024,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        _ => return Err(FORM),
    };
    u32::try_from(billionths * factor / 1_000_000_000).map_err(|_| "a size below 4 GiB")
}

/// An address that may count on with the number of a host: "10.0.3.20+i".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CountedAddress {
    pub(super) first: IpAddr,
    pub(super) counts: bool,
    pub(super) length: u8,
}

impl CountedAddress {
    /// The address of host `number` of its group.
    pub(super) fn of(self, number: u32) -> Option<IpAddr> {
        match self.first {
            _ if !self.counts => Some(self.first),
            IpAddr::V4(first) => {
                first.to_bits().checked_add(number).map(|bits| Ipv4Addr::from_bits(bits).into())
            }
            IpAddr::V6(first) => {
                first.to_bits().checked_add(number.into()).map(|bits| Ipv6Addr::from_bits(bits).into())
            }
        }
    }
}

/// Bits of an address of the same family.
pub(super) const fn bits_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address without the bits beyond `length`.
pub(super) fn network_of(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

fn counted(text: &str, form: &'static str) -> Result<(IpAddr, bool), &'static str> {
    let (address, counts) = match text.strip_suffix("+i") {
        Some(address) => (address, true),
        None => (text, false),
    };
    Ok((address.parse().map_err(|_| form)?, counts))
}

/// "10.0.3.20/24", "10.0.3.20+i/24", "fd00::10+i/64".
pub(super) fn counted_address(text: &str) -> Result<CountedAddress, &'static str> {
    const FORM: &str = "an address such as \"10.0.3.2/24\", or \"10.0.3.20+i/24\" for numbered hosts";
    let (address, length) = text.split_once('/').ok_or(FORM)?;
    let (first, counts) = counted(address, FORM)?;
    let length = length.parse().ok().filter(|length| *length <= bits_of(first)).ok_or(FORM)?;
    Ok(CountedAddress { first, counts, length })
}

/// "10.0.0.9", "10.0.0.9+i"; a length of all bits may follow.
pub(super) fn lone_address(text: &str) -> Result<CountedAddress, &'static str> {
    const FORM: &str = "an address such as \"10.0.0.9\", or \"10.9.0.1+i\" for numbered hosts";
    let (address, length) =
        text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let (first, counts) = counted(address, FORM)?;
    let all = bits_of(first);
    if length.is_some_and(|length| length.parse() != Ok(all)) {
        return Err("a lone address: it has no network, so leave the length out");
    }
    Ok(CountedAddress { first, counts, length: all })
}

/// A network: "10.0.0.0/24".
pub(super) fn network(text: &str) -> Result<Subnet, &'static str> {
    const FORM: &str = "a network such as \"10.0.0.0/24\" or \"fd00::/64\"";
    let (address, length) = text.split_once('/').ok_or(FORM)?;
    let address: IpAddr = address.parse().map_err(|_| FORM)?;
    let length = length.parse().ok().filter(|length| *length <= bits_of(address)).ok_or(FORM)?;
    Ok(Subnet { address, length })
}

/// Where a route leads: nothing for "default", a network, or one address.
pub(super) fn destination(text: &str) -> Result<Option<Subnet>, &'static str> {
    const FORM: &str = "\"default\", or a network such as \"10.9.0.0/16\"";
    if text == "default" {
        return Ok(None);
    }
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(Some(Subnet { address, length: bits_of(address) })),
        Err(_) => network(text).map(Some).map_err(|_| FORM),
    }
}

/// An address: "10.0.0.1", "fd00::1".
pub(super) fn address(text: &str) -> Result<IpAddr, &'static str> {
    text.parse().map_err(|_| "an address such as \"10.0.0.1\" or \"fd00::1\"")
}

/// One port, or two with a hyphen between them: "53", "8000-8999".
pub(super) fn ports(text: &str) -> Result<(u16, u16), &'static str> {
    const FORM: &str = "a port from 1 to 65535, or a range such as \"8000-8999\"";
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or(FORM);
    let (low, high) = (port(low)?, port(high)?);
    if low <= high { Ok((low, high)) } else { Err("a range: it ends before it begins") }
}

/// A service: "10.0.0.3:80/tcp", "[fd00::3]:53/udp".
pub(super) fn service(text: &str) -> Result<Service, &'static str> {
    const FORM: &str = "a service such as \"10.0.0.3:80/tcp\" or \"[fd00::3]:53/udp\"";
    let (endpoint, protocol) = text.rsplit_once('/').ok_or(FORM)?;
    let (address, port) = endpoint.rsplit_once(':').ok_or(FORM)?;
    let protocol = match protocol {
        "tcp" => Protocol::TCP,
        "udp" => Protocol::UDP,
        _ => return Err(FORM),
    };
    let bracketed = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match bracketed {
        Some(inner) => inner.parse::<Ipv6Addr>().map_err(|_| FORM)?.into(),
        None => address.parse::<Ipv4Addr>().map_err(|_| FORM)?.into(),
    };
    let port = port.parse().ok().filter(|port| *port > 0).ok_or(FORM)?;
    Ok(Service { address, port, protocol })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_as_people_write_them() {
        assert_eq!(duration("1.5ms"), Ok(Duration::from_micros(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("10 us"), Ok(Duration::from_micros(10)));
        assert_eq!(gap("200/s"), Ok(Duration::from_millis(5)));
        assert_eq!(gap("20k/s"), Ok(Duration::from_micros(50)));
        assert_eq!(gap("10/min"), Ok(Duration::from_secs(6)));
        assert_eq!(bits("2.5Gbit"), Ok(2_500_000_000));
        assert_eq!(bytes("2kB"), Ok(2000));
        assert_eq!(bytes("2KiB"), Ok(2048));
        assert_eq!(service("10.0.0.3:80/tcp").unwrap().port, 80);
        assert_eq!(service("[fd00::3]:53/udp").unwrap().to_string(), "[fd00::3]:53/udp");
        assert_eq!(ports("53"), Ok((53, 53)));
        assert_eq!(ports("8000-8999"), Ok((8000, 8999)));
    }

    #[test]
    fn addresses_of_both_families_count_on() {
        let of =
            |text: &str, number| counted_address(text).unwrap().of(number).map(|address| address.to_string());
        assert_eq!(of("10.0.3.20+i/24", 3).as_deref(), Some("10.0.3.23"));
        assert_eq!(of("fd00::ffff+i/64", 1).as_deref(), Some("fd00::1:0"));
        assert_eq!(of("10.0.3.20/24", 3).as_deref(), Some("10.0.3.20"));
        assert_eq!(of("255.255.255.255+i/8", 1), None);
        assert_eq!(lone_address("10.0.0.9/32").unwrap(), lone_address("10.0.0.9").unwrap());
        assert_eq!(destination("default"), Ok(None));
        assert_eq!(destination("10.9.0.1").unwrap().unwrap().to_string(), "10.9.0.1/32");
        assert_eq!(destination("fd00::/8").unwrap().unwrap().to_string(), "fd00::/8");
    }

    #[test]
    fn the_network_of_an_address_has_no_host_bits() {
        let of = |text: &str, length| network_of(text.parse().unwrap(), length).to_string();
        assert_eq!(of("10.1.2.3", 24), "10.1.2.0");
        assert_eq!(of("10.1.2.3", 0), "0.0.0.0");
        assert_eq!(of("10.1.2.3", 32), "10.1.2.3");
        assert_eq!(of("fd00::1:2", 112), "fd00::1:0");
        assert_eq!(of("fd00::1", 0), "::");
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "5", "ms", "-1s", "1..5s", "1.s", "9999999999999999s", "5 parsecs", "1.0000000001s"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
        for text in ["", "200", "0/s", "/s", "200/fortnight", "5G/s", "2000000000000/s"] {
            assert!(gap(text).is_err(), "{text}");
        }
        for text in ["0Gbit", "10", "Gbit", "10GB"] {
            assert!(bits(text).is_err(), "{text}");
        }
        for text in ["10", "5GB", "B", "9999MiB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        for text in ["10.0.0.1", "10.0.0.1/33", "10.0.0/8", "10.0.0.1+j/24", "::1/129", "::1+i"] {
            assert!(counted_address(text).is_err(), "{text}");
        }
        for text in ["10.0.0.1/24", "x", "10.0.0.1+i/8"] {
            assert!(lone_address(text).is_err(), "{text}");
        }
        for text in
            ["10.0.0.3:80", "10.0.0.3/tcp", "10.0.0.3:0/tcp", "10.0.0.3:80/sctp", "x:80/tcp", "::1:80/tcp"]
        {
            assert!(service(text).is_err(), "{text}");
        }
        for text in ["", "0", "65536", "9-8", "1-2-3"] {
            assert!(ports(text).is_err(), "{text}");
        }
    }
}
