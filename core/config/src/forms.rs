//! The small texts of the file: durations, sizes, addresses, ports, names. Pure leaves.
//!
//! What comes in: a text. What goes out: its meaning, or a [`Flaw`] that says what is wrong with it. A form
//! never looks anything up and never knows where its text stands.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use evenkeel_engine::plan::{Builtin, Prefix};
use evenkeel_engine::time::Duration;
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::wire::ethernet::MacAddress;

use crate::diagnostic::Code;

/// The longest name, in characters; the length that flow rules of other systems allow.
pub(crate) const NAME_LENGTH_MAX: usize = 27;

/// The longest name of an interface, in bytes; the kernel's limit.
pub(crate) const INTERFACE_NAME_LENGTH_MAX: usize = 15;

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) help: String,
    /// A text that could stand in its place.
    pub(crate) instead: Option<String>,
}

impl Flaw {
    fn new(code: Code, message: String, help: impl Into<String>) -> Self {
        Self { code, message, help: help.into(), instead: None }
    }

    fn instead(mut self, text: impl Into<String>) -> Self {
        self.instead = Some(text.into());
        self
    }
}

/// The longest part of a user's text that a message repeats, in characters.
const QUOTE_LENGTH_MAX: usize = 60;

/// A user's text as messages show it: between back quotes, control characters escaped, long ones cut.
pub(crate) fn quote(text: &str) -> String {
    let mut shown: String = text.chars().take(QUOTE_LENGTH_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTE_LENGTH_MAX).is_some() {
        shown.push_str("...");
    }
    format!("`{}`", shown.replace("\\\"", "\"").replace("\\'", "'"))
}

/// The one of `candidates` that is spelled most like `text`, when it is close enough to be meant.
pub(crate) fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if text.chars().nth(QUOTE_LENGTH_MAX).is_some() {
        return None;
    }
    let text = text.to_lowercase();
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let distance = strsim::damerau_levenshtein(&text, &candidate.to_lowercase());
        let tolerated = (candidate.chars().count().max(text.chars().count()) / 3).max(1);
        if distance <= tolerated && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Splits a whole number from the unit behind it.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, unit))
}

/// A duration within a range.
pub(crate) fn duration(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, Flaw> {
    const HELP: &str = "write a whole number and one of the units `ns`, `us`, `ms`, `s`, `m`, `h`, `d`, as in `900s` or `500ms`";
    let bad = || Flaw::new(Code::BadDuration, format!("{} is not a duration", quote(text)), HELP);
    let (number, unit) = number_and_unit(text).ok_or_else(bad)?;
    let nanoseconds: u64 = match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        "" => return Err(bad().instead(format!("{text}s"))),
        _ => return Err(bad()),
    };
    let value = number.checked_mul(nanoseconds).map(Duration::from_nanos);
    match value {
        Some(value) if range.contains(&value) => Ok(value),
        _ => {
            let (low, high) = (show_duration(*range.start()), show_duration(*range.end()));
            let message = format!("{} is outside of {low} to {high}", quote(text));
            Err(Flaw::new(Code::OutOfRange, message, format!("write a duration from {low} to {high}")))
        }
    }
}

/// A duration in the largest unit that holds it as a whole number.
pub(crate) fn show_duration(duration: Duration) -> String {
    let units = [
        (86_400_000_000_000, "d"),
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
    ];
    let nanoseconds = duration.as_nanos();
    let fits = units.iter().find(|(unit, _)| nanoseconds > 0 && nanoseconds.is_multiple_of(*unit));
    fits.map_or_else(|| format!("{nanoseconds}ns"), |(unit, name)| format!("{}{name}", nanoseconds / unit))
}

/// A size in bytes within a range.
pub(crate) fn size(text: &str, range: &RangeInclusive<u64>) -> Result<u64, Flaw> {
    const HELP: &str = "write a whole number and one of the units `B`, `KiB`, `MiB`, `GiB`, as in `16MiB`";
    let bad = || Flaw::new(Code::BadSize, format!("{} is not a size", quote(text)), HELP);
    let (number, unit) = number_and_unit(text).ok_or_else(bad)?;
    let bytes: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "K" | "KB" | "kB" => return Err(bad().instead(format!("{number}KiB"))),
        "M" | "MB" => return Err(bad().instead(format!("{number}MiB"))),
        "G" | "GB" => return Err(bad().instead(format!("{number}GiB"))),
        _ => return Err(bad()),
    };
    match number.checked_mul(bytes) {
        Some(value) if range.contains(&value) => Ok(value),
        _ => {
            let (low, high) = (show_size(*range.start()), show_size(*range.end()));
            let message = format!("{} is outside of {low} to {high}", quote(text));
            Err(Flaw::new(Code::OutOfRange, message, format!("write a size from {low} to {high}")))
        }
    }
}

/// A size in the largest unit that holds it as a whole number.
pub(crate) fn show_size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let fits = units.iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    fits.map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
}

fn not_ipv4(text: &str) -> Flaw {
    let message = format!("{} is an IPv6 address, and this version forwards only IPv4", quote(text));
    Flaw::new(Code::Ipv6, message, "write an IPv4 address")
}

/// An IPv4 address.
pub(crate) fn address(text: &str) -> Result<Ipv4Addr, Flaw> {
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(address);
    }
    if text.trim_start_matches('[').trim_end_matches(']').parse::<Ipv6Addr>().is_ok() {
        return Err(not_ipv4(text));
    }
    let message = format!("{} is not an IPv4 address", quote(text));
    let flaw = Flaw::new(Code::BadAddress, message, "write four numbers from 0 to 255, as in `10.0.0.1`");
    Err(match text.split_once('/') {
        Some((address, _)) if address.parse::<Ipv4Addr>().is_ok() => flaw.instead(address),
        _ => flaw,
    })
}

/// An address that a host can have: not zero, not a group, not the broadcast address.
pub(crate) fn host_address(text: &str) -> Result<Ipv4Addr, Flaw> {
    let address = address(text)?;
    if address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
        let message = format!("{} can not be the address of a host", quote(text));
        return Err(Flaw::new(Code::BadAddress, message, "write the address of one host"));
    }
    Ok(address)
}

/// A port from 1 to 65535.
pub(crate) fn port(text: &str) -> Result<u16, Flaw> {
    const HELP: &str = "write a port from 1 to 65535";
    match text.parse::<u16>() {
        Ok(0) => Err(Flaw::new(Code::BadPort, "port 0 can not be used".to_owned(), HELP)),
        Ok(port) if !text.starts_with('+') => Ok(port),
        Ok(_) | Err(_) => Err(Flaw::new(Code::BadPort, format!("{} is not a port", quote(text)), HELP)),
    }
}

/// An address and a port.
pub(crate) fn endpoint(text: &str) -> Result<(Ipv4Addr, u16), Flaw> {
    let Some((before, after)) = text.rsplit_once(':') else {
        let flaw = address(text).err().filter(|flaw| flaw.code == Code::Ipv6);
        return Err(flaw.unwrap_or_else(|| {
            let message = format!("{} has no port", quote(text));
            Flaw::new(Code::BadAddress, message, "write an address and a port, as in `10.0.3.20:80`")
        }));
    };
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(not_ipv4(text));
    }
    Ok((host_address(before)?, port(after)?))
}

/// An address, a port and a protocol.
pub(crate) fn bind(text: &str) -> Result<(Ipv4Addr, u16, Protocol), Flaw> {
    const HELP: &str = "write `ADDRESS:PORT/PROTOCOL`, as in `10.0.0.3:80/tcp`";
    let Some((place, name)) = text.rsplit_once('/') else {
        let message = format!("{} has no protocol", quote(text));
        let flaw = Flaw::new(Code::BadBind, message, HELP);
        return Err(match endpoint(text) {
            Ok(_) => flaw.instead(format!("{text}/tcp")),
            Err(inner) if inner.code == Code::Ipv6 => inner,
            Err(_) => flaw,
        });
    };
    if !place.contains(':') {
        return Err(Flaw::new(Code::BadBind, format!("{} has no port", quote(text)), HELP));
    }
    let (address, port) = endpoint(place)?;
    let protocol = protocol(name).map_err(|flaw| Flaw {
        instead: flaw.instead.as_ref().map(|name| format!("{place}/{name}")),
        ..flaw
    })?;
    Ok((address, port, protocol))
}

/// `tcp` or `udp`.
pub(crate) fn protocol(text: &str) -> Result<Protocol, Flaw> {
    match text {
        "tcp" => Ok(Protocol::TCP),
        "udp" => Ok(Protocol::UDP),
        _ => {
            let message = format!("the protocol {} is unknown", quote(text));
            let flaw = Flaw::new(Code::UnknownProtocol, message, "write `tcp` or `udp`");
            Err(match nearest(text, ["tcp", "udp"]) {
                Some(near) => flaw.instead(near),
                None => flaw,
            })
        }
    }
}

/// The length of a prefix, in bits.
fn prefix_length(text: &str, whole: &str) -> Result<u8, Flaw> {
    let length = text.parse::<u8>().ok().filter(|length| *length <= 32 && !text.starts_with('+'));
    length.ok_or_else(|| {
        let message = format!("{} is not the length of an IPv4 prefix in {}", quote(text), quote(whole));
        Flaw::new(Code::BadNetwork, message, "write a length from 0 to 32, as in `192.0.2.0/24`")
    })
}

/// The network part of an address.
fn network_of(address: Ipv4Addr, length: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

/// The network in which an interface's own address lies.
pub(crate) fn network_around(own: Prefix) -> Option<Prefix> {
    match own.address {
        IpAddr::V4(address) => {
            let address = IpAddr::V4(network_of(address, own.length));
            Some(Prefix { address, length: own.length })
        }
        IpAddr::V6(_) => None,
    }
}

/// An interface's own address with the length of its network.
pub(crate) fn interface_address(text: &str) -> Result<Prefix, Flaw> {
    let Some((before, length)) = text.split_once('/') else {
        host_address(text)?;
        let message = format!("{} has no prefix length", quote(text));
        let help = "write the address and the length of its network, as in `10.99.0.1/24`";
        return Err(Flaw::new(Code::BadNetwork, message, help).instead(format!("{text}/24")));
    };
    let address = IpAddr::V4(host_address(before)?);
    Ok(Prefix { address, length: prefix_length(length, text)? })
}

/// A network; an address alone is a network of one.
pub(crate) fn network(text: &str) -> Result<Prefix, Flaw> {
    let (before, length) = text.split_once('/').unwrap_or((text, "32"));
    let address = address(before)?;
    let length = prefix_length(length, text)?;
    let network = network_of(address, length);
    if network != address {
        let message = format!("{} has bits beyond the length of its prefix", quote(text));
        let flaw = Flaw::new(Code::BadNetwork, message, "write the network, or the address without a length");
        return Err(flaw.instead(format!("{network}/{length}")));
    }
    Ok(Prefix { address: IpAddr::V4(address), length })
}

/// One port or a range.
pub(crate) fn port_range(text: &str) -> Result<RangeInclusive<u16>, Flaw> {
    let (low, high) = text.split_once(['-', ':']).unwrap_or((text, text));
    let (first, last) = (port(low.trim())?, port(high.trim())?);
    if first > last {
        let message = format!("the range of ports {} is upside down", quote(text));
        let flaw = Flaw::new(Code::BadPortRange, message, "write the lower port first");
        return Err(flaw.instead(format!("{last}-{first}")));
    }
    if text.contains(':') || text.contains(' ') {
        let message = format!("{} is not a range of ports", quote(text));
        let flaw = Flaw::new(Code::BadPortRange, message, "write two ports with a hyphen between them");
        return Err(flaw.instead(format!("{first}-{last}")));
    }
    Ok(first..=last)
}

/// A MAC address of one interface.
pub(crate) fn mac(text: &str) -> Result<MacAddress, Flaw> {
    const HELP: &str = "write six bytes in hexadecimal, as in `02:00:00:00:00:01`";
    let bad = || Flaw::new(Code::BadMac, format!("{} is not a MAC address", quote(text)), HELP);
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2 && !part.starts_with('+')).ok_or_else(bad)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
    }
    if parts.next().is_some() {
        return Err(bad());
    }
    let [first, ..] = bytes;
    if first & 1 == 1 || bytes == [0; 6] {
        let message = format!("{} can not be the address of one interface", quote(text));
        return Err(Flaw::new(Code::BadMac, message, HELP));
    }
    Ok(MacAddress(bytes))
}

/// A name of the user's choice.
pub(crate) fn name(text: &str) -> Result<(), Flaw> {
    check_name(text, NAME_LENGTH_MAX, "", "letters, digits, `_` and `-`")
}

/// The name of an interface.
pub(crate) fn interface_name(text: &str) -> Result<(), Flaw> {
    check_name(text, INTERFACE_NAME_LENGTH_MAX, ".", "letters, digits, `_`, `-` and `.`")
}

fn check_name(text: &str, length_max: usize, more: &str, allowed: &str) -> Result<(), Flaw> {
    let help = format!("write 1 to {length_max} {allowed}");
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-' || more.contains(c);
    let reason = if text.is_empty() {
        "a name can not be empty".to_owned()
    } else if let Some(character) = text.chars().find(|c| !is_allowed(*c)) {
        format!("the name {} has the character {}", quote(text), quote(&character.to_string()))
    } else if text.len() > length_max {
        format!("the name {} has {} characters; {length_max} is the most", quote(text), text.len())
    } else if text == "." || text == ".." {
        format!("{} can not be a name", quote(text))
    } else {
        return Ok(());
    };
    Err(Flaw::new(Code::BadName, reason, help))
}

/// A built-in scheduler.
pub(crate) fn builtin(text: &str) -> Result<Builtin, Flaw> {
    if let Some(found) = Builtin::ALL.iter().find(|builtin| builtin.name() == text) {
        return Ok(*found);
    }
    let names: Vec<_> = Builtin::ALL.iter().map(|builtin| format!("`{}`", builtin.name())).collect();
    let message = format!("the scheduler {} is unknown", quote(text));
    let flaw = Flaw::new(Code::UnknownScheduler, message, format!("write one of {}", names.join(", ")));
    Err(match long_name(text).or_else(|| nearest(text, Builtin::ALL.iter().map(|builtin| builtin.name()))) {
        Some(near) => flaw.instead(near),
        None => flaw,
    })
}

/// The names that other systems use for the same schedulers.
fn long_name(text: &str) -> Option<&'static str> {
    match text {
        "roundrobin" | "round-robin" | "round_robin" => Some("rr"),
        "weighted-round-robin" | "weighted_round_robin" => Some("wrr"),
        "leastconn" | "least-connections" | "least_connections" => Some("lc"),
        "weighted-least-connections" | "weighted_least_connections" => Some("wlc"),
        "source" | "source-hashing" | "source_hashing" => Some("sh"),
        "mh" => Some("maglev"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_a_range() {
        let range = Duration::from_millis(10)..=Duration::from_secs(86_400);
        assert_eq!(duration("15m", &range), Ok(Duration::from_secs(900)));
        assert_eq!(duration("500ms", &range), Ok(Duration::from_millis(500)));
        assert_eq!(duration("10000us", &range), Ok(Duration::from_millis(10)));
        for text in ["", "s", "1.5s", "-1s", "+1s", "1 s", "900", "1w", "1S"] {
            assert_eq!(duration(text, &range).unwrap_err().code, Code::BadDuration, "{text}");
        }
        for text in ["0s", "9ms", "2d", "18446744073709551615d"] {
            let flaw = duration(text, &range).unwrap_err();
            assert_eq!(flaw.code, Code::OutOfRange, "{text}");
            assert!(flaw.message.ends_with("is outside of 10ms to 1d"), "{}", flaw.message);
        }
        assert_eq!(duration("900", &range).unwrap_err().instead.as_deref(), Some("900s"));
    }

    #[test]
    fn durations_and_sizes_are_shown_as_they_would_be_written() {
        for text in ["15m", "1d", "10ms", "200us", "7s", "1ns", "25h"] {
            let value = duration(text, &(Duration::ZERO..=Duration::MAX)).unwrap();
            assert_eq!(show_duration(value), text);
        }
        for text in ["16MiB", "1KiB", "3B", "1GiB", "1025B"] {
            assert_eq!(show_size(size(text, &(0..=u64::MAX)).unwrap()), text);
        }
    }

    #[test]
    fn sizes_have_binary_units() {
        let range = 65_536..=1 << 30;
        assert_eq!(size("16MiB", &range), Ok(16 << 20));
        assert_eq!(size("16MB", &range).unwrap_err().instead.as_deref(), Some("16MiB"));
        assert_eq!(size("1KiB", &range).unwrap_err().code, Code::OutOfRange);
        assert_eq!(size("17179869185GiB", &range).unwrap_err().code, Code::OutOfRange);
        assert_eq!(size("many", &range).unwrap_err().code, Code::BadSize);
    }

    #[test]
    fn a_bind_says_what_it_lacks() {
        let vip = Ipv4Addr::new(10, 0, 0, 3);
        assert_eq!(bind("10.0.0.3:80/tcp"), Ok((vip, 80, Protocol::TCP)));
        let cases = [
            ("10.0.0.3:80", Code::BadBind),
            ("10.0.0.3/tcp", Code::BadBind),
            ("10.0.0.3", Code::BadBind),
            ("", Code::BadBind),
            ("10.0.0.3:0/udp", Code::BadPort),
            ("10.0.0.3:65536/udp", Code::BadPort),
            ("10.0.0.3:+80/udp", Code::BadPort),
            ("10.0.0.300:80/tcp", Code::BadAddress),
            ("0.0.0.0:80/tcp", Code::BadAddress),
            ("224.0.0.1:80/tcp", Code::BadAddress),
            ("10.0.0.3:80/sctp", Code::UnknownProtocol),
            ("[fd00::3]:80/tcp", Code::Ipv6),
            ("fd00::3:80/tcp", Code::Ipv6),
            ("[fd00::3]:80", Code::Ipv6),
        ];
        for (text, code) in cases {
            assert_eq!(bind(text).unwrap_err().code, code, "{text}");
        }
        assert_eq!(bind("10.0.0.3:80/TCP").unwrap_err().instead.as_deref(), Some("10.0.0.3:80/tcp"));
        assert_eq!(bind("10.0.0.3:80").unwrap_err().instead.as_deref(), Some("10.0.0.3:80/tcp"));
    }

    #[test]
    fn a_network_has_no_bits_beyond_its_length() {
        assert_eq!(network("0.0.0.0/0").unwrap().length, 0);
        assert_eq!(network("192.0.2.7").unwrap().length, 32);
        assert_eq!(network("192.0.2.7/24").unwrap_err().instead.as_deref(), Some("192.0.2.0/24"));
        for text in ["192.0.2.0/33", "192.0.2.0/", "192.0.2.0/+8", "192.0.2.0/255.255.255.0"] {
            assert_eq!(network(text).unwrap_err().code, Code::BadNetwork, "{text}");
        }
        assert_eq!(network("fd00::/8").unwrap_err().code, Code::Ipv6);
    }

    #[test]
    fn port_ranges_run_upwards() {
        assert_eq!(port_range("1024-65535"), Ok(1024..=65535));
        assert_eq!(port_range("80"), Ok(80..=80));
        assert_eq!(port_range("9-8").unwrap_err().instead.as_deref(), Some("8-9"));
        assert_eq!(port_range("8:9").unwrap_err().instead.as_deref(), Some("8-9"));
        assert_eq!(port_range("0-9").unwrap_err().code, Code::BadPort);
        assert_eq!(port_range("1-2-3").unwrap_err().code, Code::BadPort);
    }

    #[test]
    fn mac_addresses_name_one_interface() {
        assert_eq!(mac("02:00:00:00:00:0a"), Ok(MacAddress([2, 0, 0, 0, 0, 10])));
        for text in
            ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "01:00:00:00:00:01", "00:00:00:00:00:00", "+2:0"]
        {
            assert_eq!(mac(text).unwrap_err().code, Code::BadMac, "{text}");
        }
    }

    #[test]
    fn names_are_short_and_plain() {
        assert_eq!(name("a"), Ok(()));
        assert_eq!(name(&"x".repeat(27)), Ok(()));
        for text in ["", "a b", "ä", "a.b", &"x".repeat(28), "a\u{1b}[31m"] {
            assert_eq!(name(text).unwrap_err().code, Code::BadName, "{text}");
        }
        assert_eq!(interface_name("eth0.5"), Ok(()));
        assert!(interface_name(&"x".repeat(16)).is_err());
        assert!(interface_name("..").is_err());
    }

    #[test]
    fn the_nearest_name_is_near() {
        assert_eq!(nearest("schduler", ["scheduler", "server"]), Some("scheduler"));
        assert_eq!(nearest("x", ["scheduler", "server"]), None);
        assert_eq!(nearest("wrrr", ["rr", "wrr"]), Some("wrr"));
        assert_eq!(nearest("", ["rr"]), None);
    }

    #[test]
    fn quotes_hide_control_characters_and_end() {
        assert_eq!(quote("a\u{1b}b\0"), "`a\\u{1b}b\\0`");
        assert!(quote(&"long".repeat(100)).len() < 70);
    }
}
