//! Numbers with units as scenario files write them: durations, rates, sizes, addresses that count on.

use std::net::Ipv4Addr;

use evenkeel_engine::Duration;
use evenkeel_engine::wire::Protocol;

use super::Service;

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
        return Err("a rate of at most one flow a nanosecond");
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

/// An address with the length of its network part, and whether it counts on: "10.0.3.20+i/24".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CountedAddress {
    pub(super) first: Ipv4Addr,
    pub(super) counts: bool,
    pub(super) prefix_length: u8,
}

pub(super) fn counted_address(text: &str) -> Result<CountedAddress, &'static str> {
    const FORM: &str = "an address such as \"10.0.3.2/24\", or \"10.0.3.20+i/24\" for numbered hosts";
    let (address, length) = text.split_once('/').ok_or(FORM)?;
    let prefix_length: u8 = length.parse().ok().filter(|length| *length <= 32).ok_or(FORM)?;
    let (address, counts) = match address.strip_suffix("+i") {
        Some(address) => (address, true),
        None => (address, false),
    };
    let first = address.parse().map_err(|_| FORM)?;
    Ok(CountedAddress { first, counts, prefix_length })
}

/// A service: "10.0.0.3:80/tcp".
pub(super) fn service(text: &str) -> Result<Service, &'static str> {
    const FORM: &str = "a service such as \"10.0.0.3:80/tcp\" or \"10.0.0.3:53/udp\"";
    let (address, rest) = text.split_once(':').ok_or(FORM)?;
    let (port, protocol) = rest.split_once('/').ok_or(FORM)?;
    let protocol = match protocol {
        "tcp" => Protocol::TCP,
        "udp" => Protocol::UDP,
        _ => return Err(FORM),
    };
    let address = address.parse().map_err(|_| FORM)?;
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
        let counted = counted_address("10.0.3.20+i/24").unwrap();
        assert_eq!((counted.first, counted.counts, counted.prefix_length), ([10, 0, 3, 20].into(), true, 24));
        assert_eq!(service("10.0.0.3:80/tcp").unwrap().port, 80);
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
        for text in ["10.0.0.1", "10.0.0.1/33", "10.0.0/8", "10.0.0.1+j/24", "::1/64"] {
            assert!(counted_address(text).is_err(), "{text}");
        }
        for text in ["10.0.0.3:80", "10.0.0.3/tcp", "10.0.0.3:0/tcp", "10.0.0.3:80/sctp", "x:80/tcp"] {
            assert!(service(text).is_err(), "{text}");
        }
    }
}
