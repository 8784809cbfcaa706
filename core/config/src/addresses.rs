//! The texts of the file that are about addresses and ports: addresses, networks, endpoints, bindings, ranges of ports,
//! netmasks. Pure leaves.
//!
//! What comes in: a text. What goes out: its meaning, or a [`Flaw`] that says what is wrong with it. Both families are
//! understood everywhere; which may stand where is not decided here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use evenkeel_engine::plan::{ANY_PORT, Binding, Prefix};

use crate::diagnostic::Code;
use crate::forms::{Flaw, protocol, quote};

/// The family of an address, as messages name it.
pub(crate) const fn family(address: &IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

/// An address as it stands before a colon.
pub(crate) fn in_brackets(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// An address.
pub(crate) fn address(text: &str) -> Result<IpAddr, Flaw> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return unmapped(text, address);
    }
    let message = format!("{} is not an address", quote(text));
    let help = "write an IPv4 address, four numbers from 0 to 255 as in `10.0.0.1`, or an IPv6 address as in `fc00::1`";
    let flaw = Flaw::new(Code::BadAddress, message, help);
    // A prefix length, brackets or a zone where none belongs.
    let bare = text.split(['/', '%']).next().unwrap_or(text).trim_start_matches('[').trim_end_matches(']');
    Err(if bare.parse::<IpAddr>().is_ok() { flaw.instead(bare) } else { flaw })
}

/// Refuses an IPv4 address in the clothes of IPv6: on the wire there is no such thing.
fn unmapped(text: &str, address: IpAddr) -> Result<IpAddr, Flaw> {
    let IpAddr::V6(six) = address else { return Ok(address) };
    let Some(inner) = six.to_ipv4_mapped() else { return Ok(address) };
    let message = format!("{} is an IPv4 address written as IPv6", quote(text));
    Err(Flaw::new(Code::BadAddress, message, "write the IPv4 address").instead(inner.to_string()))
}

/// An address that a host can have: neither nobody's nor many's.
pub(crate) fn host_address(text: &str) -> Result<IpAddr, Flaw> {
    let address = address(text)?;
    if is_station(address) {
        return Ok(address);
    }
    let message = format!("{} can not be the address of a host", quote(text));
    Err(Flaw::new(Code::BadAddress, message, "write the address of one host"))
}

/// Whether one host can have this address (RFC 6890: neither 0.0.0.0/8, nor 224.0.0.0/3, nor `::`, nor ff00::/8).
const fn is_station(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            first != 0 && first < 224
        }
        IpAddr::V6(address) => !address.is_unspecified() && !address.is_multicast(),
    }
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

/// An address and a port; 0 where none is written.
pub(crate) fn endpoint(text: &str) -> Result<(IpAddr, u16), Flaw> {
    const HELP: &str =
        "write an address and a port, as in `10.0.3.20:80` or `[fc00::20]:80`, or an address alone";
    if let Some(rest) = text.strip_prefix('[') {
        let Some((inside, after)) = rest.split_once(']') else {
            let message = format!("{} has an open bracket", quote(text));
            return Err(Flaw::new(Code::BadAddress, message, HELP));
        };
        let address = host_address(inside)?;
        return match after.strip_prefix(':') {
            Some(after) => Ok((address, port(after)?)),
            None if after.is_empty() => Ok((address, 0)),
            None => {
                let message = format!("{} has {} behind the address", quote(text), quote(after));
                Err(Flaw::new(Code::BadAddress, message, HELP))
            }
        };
    }
    match text.split_once(':') {
        None => Ok((host_address(text)?, 0)),
        Some((before, after)) if !after.contains(':') => Ok((host_address(before)?, port(after)?)),
        Some(_) => bare_ipv6(text).map(|address| (address, 0)),
    }
}

/// An IPv6 address without brackets where a port might follow. One that ends like a port must have them.
fn bare_ipv6(text: &str) -> Result<IpAddr, Flaw> {
    let as_endpoint = text.rsplit_once(':').and_then(|(before, after)| {
        let address = before.parse::<Ipv6Addr>().ok()?;
        let port = port(after).ok()?;
        Some(format!("[{address}]:{port}"))
    });
    let Some(endpoint) = as_endpoint else { return host_address(text) };
    let message = format!("{} may end in a port or not", quote(text));
    let help = format!("write `{endpoint}`, or `[{text}]` for an address without a port");
    Err(Flaw::new(Code::BadAddress, message, help).instead(endpoint))
}

/// Addresses, ports and protocols that a director serves.
pub(crate) fn bind(text: &str) -> Result<Binding, Flaw> {
    let (place, rest) = split_bind(text)?;
    // A flaw of a part, as one of the whole.
    let within = |before: &str, after: &str, flaw: Flaw| Flaw {
        instead: flaw.instead.as_ref().map(|part| format!("{before}{part}{after}")),
        ..flaw
    };
    let network = bound_network(place).map_err(|flaw| within("", &format!(":{rest}"), flaw))?;
    let (ports_text, name) = match rest.split_once('/') {
        Some((ports, name)) => (ports, Some(name)),
        None => (rest, None),
    };
    let tail = name.map_or_else(String::new, |name| format!("/{name}"));
    let ports = match ports_text {
        "*" => ANY_PORT,
        _ => port_range(ports_text).map_err(|flaw| within(&format!("{place}:"), &tail, flaw))?,
    };
    let protocol = match name {
        Some(name) => {
            let before = format!("{place}:{ports_text}/");
            Some(protocol(name).map_err(|flaw| within(&before, "", flaw))?)
        }
        None if ports == ANY_PORT => None,
        None => {
            let message = format!("{} has no protocol", quote(text));
            return Err(Flaw::new(Code::BadBind, message, BIND_HELP).instead(format!("{text}/tcp")));
        }
    };
    Ok(Binding { network, ports, protocol })
}

const BIND_HELP: &str =
    "write `ADDRESS:PORT/PROTOCOL`, as in `10.0.0.3:80/tcp` or `[fc00::3]:53/udp`, or `ADDRESS:*` for all";

/// What stands before and behind the colon that ends the address.
fn split_bind(text: &str) -> Result<(&str, &str), Flaw> {
    let no_port = || Flaw::new(Code::BadBind, format!("{} has no port", quote(text)), BIND_HELP);
    if text.starts_with('[') {
        let end = text.find(']').ok_or_else(|| {
            Flaw::new(Code::BadBind, format!("{} has an open bracket", quote(text)), BIND_HELP)
        })?;
        let colon = text.get(end..).and_then(|rest| rest.find(':')).ok_or_else(no_port)?;
        let split = text.split_at_checked(end + colon);
        return split.and_then(|(place, rest)| Some((place, rest.strip_prefix(':')?))).ok_or_else(no_port);
    }
    let (place, rest) = text.split_once(':').ok_or_else(no_port)?;
    if place.contains('.') || !rest.contains(':') {
        return Ok((place, rest));
    }
    let message = format!("{} has an IPv6 address without brackets", quote(text));
    let flaw = Flaw::new(Code::BadBind, message, "write the address in brackets, as in `[fc00::3]:53/udp`");
    let repaired = text.rsplit_once(':').filter(|(address, _)| address.parse::<Ipv6Addr>().is_ok());
    Err(match repaired {
        Some((address, rest)) => flaw.instead(format!("[{address}]:{rest}")),
        None => flaw,
    })
}

/// The network of a binding: an address, of IPv6 in brackets, and perhaps the length of a prefix.
fn bound_network(text: &str) -> Result<Prefix, Flaw> {
    let (inside, length) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inside, after)) => (inside, after),
        None => match text.find('/') {
            Some(slash) => text.split_at_checked(slash).unwrap_or((text, "")),
            None => (text, ""),
        },
    };
    let is_bracketed = text.starts_with('[');
    if length.is_empty() {
        return host_address(inside).map(Prefix::host).map_err(|flaw| {
            let instead = flaw.instead.as_ref().and_then(|text| text.parse().ok()).map(in_brackets);
            Flaw { instead, ..flaw }
        });
    }
    let prefix = network(&format!("{inside}{length}")).map_err(|flaw| {
        let instead = flaw.instead.as_ref().map(|network| match network.split_once('/') {
            Some((address, length)) if is_bracketed => format!("[{address}]/{length}"),
            _ => network.clone(),
        });
        Flaw { instead, ..flaw }
    })?;
    // A network of groups, or of one address that is nobody's.
    let is_of_groups = match prefix.address {
        IpAddr::V4(address) => address.octets().first().is_some_and(|first| *first >= 224),
        IpAddr::V6(address) => address.is_multicast(),
    };
    if !is_of_groups && (!prefix.is_host() || is_station(prefix.address)) {
        return Ok(prefix);
    }
    let message = format!("no host has an address in {}", quote(text));
    Err(Flaw::new(Code::BadAddress, message, "write an address or a network of hosts"))
}

/// The length of a prefix, in bits.
fn prefix_length(text: &str, address: IpAddr, whole: &str) -> Result<u8, Flaw> {
    let most = Prefix::host(address).length;
    let length = text.parse::<u8>().ok().filter(|length| *length <= most && !text.starts_with('+'));
    length.ok_or_else(|| {
        let family = family(&address);
        let message = format!("{} is not the length of an {family} prefix in {}", quote(text), quote(whole));
        let example = if address.is_ipv4() { "192.0.2.0/24" } else { "2001:db8::/32" };
        let help = format!("write a length from 0 to {most}, as in `{example}`");
        Flaw::new(Code::BadNetwork, message, help)
    })
}

/// The network in which an interface's own address lies.
pub(crate) fn network_around(own: Prefix) -> Prefix {
    Prefix { address: own.network().into(), length: own.length }
}

/// An interface's own address with the length of its network.
pub(crate) fn interface_address(text: &str) -> Result<Prefix, Flaw> {
    let Some((before, length)) = text.split_once('/') else {
        let length = if host_address(text)?.is_ipv4() { 24 } else { 64 };
        let message = format!("{} has no prefix length", quote(text));
        let help = format!("write the address and the length of its network, as in `{text}/{length}`");
        return Err(Flaw::new(Code::BadNetwork, message, help).instead(format!("{text}/{length}")));
    };
    let address = host_address(before).map_err(|flaw| Flaw { instead: None, ..flaw })?;
    Ok(Prefix { address, length: prefix_length(length, address, text)? })
}

/// A network; an address alone is a network of one.
pub(crate) fn network(text: &str) -> Result<Prefix, Flaw> {
    let Some((before, length)) = text.split_once('/') else { return address(text).map(Prefix::host) };
    let address = address(before).map_err(|flaw| Flaw { instead: None, ..flaw })?;
    let is_mask = length.contains('.') && address.is_ipv4();
    let length = if is_mask { netmask(length)? } else { prefix_length(length, address, text)? };
    let prefix = Prefix { address, length };
    let network = network_around(prefix);
    if network != prefix {
        let message = format!("{} has bits beyond the length of its prefix", quote(text));
        let flaw = Flaw::new(Code::BadNetwork, message, "write the network, or the address without a length");
        return Err(flaw.instead(format!("{}/{}", network.address, network.length)));
    }
    Ok(prefix)
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
    if text.contains(|one: char| one == ':' || one.is_whitespace()) {
        let message = format!("{} is not a range of ports", quote(text));
        let flaw = Flaw::new(Code::BadPortRange, message, "write two ports with a hyphen between them");
        let is_one = !text.contains([':', '-']);
        return Err(flaw.instead(if is_one { first.to_string() } else { format!("{first}-{last}") }));
    }
    Ok(first..=last)
}

/// One port or a range in a rule, where a colon may stand between them too.
pub(crate) fn rule_ports(text: &str) -> Result<RangeInclusive<u16>, Flaw> {
    port_range(&text.replacen(':', "-", 1)).map_err(|flaw| match flaw.instead {
        Some(instead) if text.contains(':') => Flaw { instead: Some(instead.replace('-', ":")), ..flaw },
        _ => flaw,
    })
}

/// A mask of IPv4: how many ones it begins with.
pub(crate) fn netmask(text: &str) -> Result<u8, Flaw> {
    let flaw = || {
        let message = format!("{} is not a netmask", quote(text));
        Flaw::new(
            Code::BadNetmask,
            message,
            "write a mask as `255.255.255.0`, or its length as `24` without quotes",
        )
    };
    if let Ok(mask) = text.parse::<Ipv4Addr>() {
        let ones = mask.to_bits().leading_ones();
        let is_whole = mask.to_bits().count_ones() == ones;
        return u8::try_from(ones).ok().filter(|_| is_whole).ok_or_else(flaw);
    }
    // A length as a text: the mask that it means.
    let length = text.strip_prefix('/').unwrap_or(text).parse::<u32>().ok().filter(|length| *length <= 32);
    Err(match length {
        Some(length) => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            flaw().instead(Ipv4Addr::from_bits(mask).to_string())
        }
        None => flaw(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_engine::wire::Protocol;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn prefix(address: &str, length: u8) -> Prefix {
        Prefix { address: ip(address), length }
    }

    #[test]
    fn a_binding_is_shown_as_it_was_written() {
        for text in [
            "10.0.0.3:80/tcp",
            "[fc00::3]:53/udp",
            "10.0.0.3:*",
            "10.0.0.3:*/udp",
            "10.0.0.3:50000-51000/udp",
            "10.0.0.0/24:443/tcp",
            "[fc00:1::]/96:*/tcp",
            "[::]/0:*",
            "0.0.0.0/0:1-65535/tcp",
        ] {
            assert_eq!(bind(text).map(|binding| binding.to_string()), Ok(text.to_owned()));
        }
        let one = Binding::of(ip("10.0.0.3"), 80, Protocol::TCP);
        assert_eq!(bind("10.0.0.3:80/tcp"), Ok(one.clone()));
        assert_eq!(bind("10.0.0.3/32:80-80/tcp"), Ok(one));
        assert_eq!(bind("[fc00:1::]/96:*/tcp").unwrap().network, prefix("fc00:1::", 96));
        assert_eq!(bind("10.0.0.3:*").unwrap().ports, 0..=65_535);
    }

    #[test]
    fn a_bind_says_what_it_lacks() {
        let cases = [
            ("10.0.0.3:80", Code::BadBind),
            ("10.0.0.3:80-90", Code::BadBind),
            ("10.0.0.3/tcp", Code::BadBind),
            ("10.0.0.3", Code::BadBind),
            ("", Code::BadBind),
            ("[", Code::BadBind),
            ("[]", Code::BadBind),
            ("[fc00::3", Code::BadBind),
            ("[fc00::3]/tcp", Code::BadBind),
            ("[fc00::3]:80", Code::BadBind),
            ("fc00::3:80/tcp", Code::BadBind),
            ("fc00::3/tcp", Code::BadBind),
            ("10.0.0.3:/tcp", Code::BadPort),
            ("10.0.0.3:0/udp", Code::BadPort),
            ("10.0.0.3:65536/udp", Code::BadPort),
            ("10.0.0.3:+80/udp", Code::BadPort),
            ("10.0.0.3:**/udp", Code::BadPort),
            ("10.0.0.3:9-8/udp", Code::BadPortRange),
            ("10.0.0.300:80/tcp", Code::BadAddress),
            (":80/tcp", Code::BadAddress),
            ("[]:80/tcp", Code::BadAddress),
            ("0.0.0.0:80/tcp", Code::BadAddress),
            ("224.0.0.1:80/tcp", Code::BadAddress),
            ("224.0.0.0/24:80/tcp", Code::BadAddress),
            ("[ff02::]/16:80/tcp", Code::BadAddress),
            ("[::]:80/tcp", Code::BadAddress),
            ("[::]/128:80/tcp", Code::BadAddress),
            ("[::ffff:10.0.0.3]:80/tcp", Code::BadAddress),
            ("10.0.0.3/33:80/tcp", Code::BadNetwork),
            ("10.0.0.3/24:80/tcp", Code::BadNetwork),
            ("[fc00::]/129:80/tcp", Code::BadNetwork),
            ("[fc00::1]x:80/tcp", Code::BadAddress),
            ("10.0.0.3:80/sctp", Code::UnknownProtocol),
            ("10.0.0.3:*/", Code::UnknownProtocol),
        ];
        for (text, code) in cases {
            assert_eq!(bind(text).unwrap_err().code, code, "{text}");
        }
    }

    #[test]
    fn a_bind_is_repaired_as_a_whole() {
        let cases = [
            ("10.0.0.3:80/TCP", "10.0.0.3:80/tcp"),
            ("10.0.0.3:80", "10.0.0.3:80/tcp"),
            ("10.0.0.3:90-80/udp", "10.0.0.3:80-90/udp"),
            ("10.0.0.3:80:90/udp", "10.0.0.3:80-90/udp"),
            ("10.0.0.3/24:80/tcp", "10.0.0.0/24:80/tcp"),
            ("[fc00::3]/64:80/tcp", "[fc00::]/64:80/tcp"),
            ("[fc00::3]:9-8/udp", "[fc00::3]:8-9/udp"),
            ("fc00::3:80/tcp", "[fc00::3]:80/tcp"),
        ];
        for (text, repaired) in cases {
            let instead = bind(text).unwrap_err().instead;
            assert_eq!(instead.as_deref(), Some(repaired), "{text}");
            assert!(bind(repaired).is_ok(), "{repaired}");
        }
    }

    #[test]
    fn an_endpoint_may_lack_its_port() {
        assert_eq!(endpoint("10.0.3.20:80"), Ok((ip("10.0.3.20"), 80)));
        assert_eq!(endpoint("10.0.3.20"), Ok((ip("10.0.3.20"), 0)));
        assert_eq!(endpoint("[fc00::20]:80"), Ok((ip("fc00::20"), 80)));
        assert_eq!(endpoint("[fc00::20]"), Ok((ip("fc00::20"), 0)));
        assert_eq!(endpoint("fc00::20"), Ok((ip("fc00::20"), 0)));
        assert_eq!(endpoint("fc00:0:0:0:0:0:0:80"), Ok((ip("fc00::80"), 0)), "eight groups leave no port");
        for text in [
            "",
            "10.0.3.20:",
            "10.0.3.20:0",
            "10.0.3:80",
            "[10.0.3.20",
            "[fc00::1]80",
            "fc00::1::2",
            "ff02::1",
        ] {
            assert!(endpoint(text).is_err(), "{text}");
        }
    }

    /// `fc00::20:80` is an address, and yet most who write it mean a port.
    #[test]
    fn an_address_that_ends_like_a_port_needs_brackets() {
        let flaw = endpoint("fc00::20:80").unwrap_err();
        assert_eq!(flaw.instead.as_deref(), Some("[fc00::20]:80"));
        assert!(flaw.help.contains("`[fc00::20:80]`"), "{}", flaw.help);
        assert_eq!(endpoint("[fc00::20:80]"), Ok((ip("fc00::20:80"), 0)));
    }

    #[test]
    fn addresses_are_of_either_family_and_of_hosts() {
        assert_eq!(host_address("fe80::1"), Ok(ip("fe80::1")));
        let instead = |text| address(text).unwrap_err().instead;
        assert_eq!(instead("fe80::1%eth0").as_deref(), Some("fe80::1"));
        assert_eq!(instead("[fc00::1]").as_deref(), Some("fc00::1"));
        assert_eq!(instead("10.0.0.1/24").as_deref(), Some("10.0.0.1"));
        assert_eq!(instead("::ffff:10.0.0.1").as_deref(), Some("10.0.0.1"));
        assert_eq!(instead("router"), None);
        for text in ["0.0.0.0", "0.1.2.3", "239.1.1.1", "240.0.0.1", "255.255.255.255", "::", "ff02::1"] {
            assert_eq!(host_address(text).unwrap_err().code, Code::BadAddress, "{text}");
        }
    }

    #[test]
    fn a_network_has_no_bits_beyond_its_length() {
        assert_eq!(network("0.0.0.0/0"), Ok(prefix("0.0.0.0", 0)));
        assert_eq!(network("::/0"), Ok(prefix("::", 0)));
        assert_eq!(network("192.0.2.7"), Ok(prefix("192.0.2.7", 32)));
        assert_eq!(network("2001:db8::7"), Ok(prefix("2001:db8::7", 128)));
        assert_eq!(network("2001:db8::/32"), Ok(prefix("2001:db8::", 32)));
        assert_eq!(network("192.0.2.7/24").unwrap_err().instead.as_deref(), Some("192.0.2.0/24"));
        assert_eq!(network("2001:db8::7/33").unwrap_err().instead.as_deref(), Some("2001:db8::/33"));
        assert_eq!(network("192.0.2.0/255.255.255.0"), Ok(prefix("192.0.2.0", 24)));
        assert_eq!(network("192.0.2.0/255.0.255.0").unwrap_err().code, Code::BadNetmask);
        for text in ["192.0.2.0/33", "192.0.2.0/", "192.0.2.0/+8", "2001:db8::/255.0.0.0", "fd00::/129"] {
            assert_eq!(network(text).unwrap_err().code, Code::BadNetwork, "{text}");
        }
    }

    #[test]
    fn an_own_address_keeps_its_bits_and_names_its_network() {
        assert_eq!(interface_address("10.99.0.1/24"), Ok(prefix("10.99.0.1", 24)));
        assert_eq!(interface_address("fc00::1").unwrap_err().instead.as_deref(), Some("fc00::1/64"));
        assert_eq!(network_around(prefix("fc00::1", 64)), prefix("fc00::", 64));
        assert_eq!(network_around(prefix("10.99.0.1", 24)), prefix("10.99.0.0", 24));
        assert_eq!(network_around(prefix("10.99.0.1", 32)), prefix("10.99.0.1", 32));
    }

    #[test]
    fn port_ranges_run_upwards() {
        assert_eq!(port_range("1024-65535"), Ok(1024..=65535));
        assert_eq!(port_range("80"), Ok(80..=80));
        assert_eq!(port_range("9-8").unwrap_err().instead.as_deref(), Some("8-9"));
        assert_eq!(port_range("8:9").unwrap_err().instead.as_deref(), Some("8-9"));
        for (spaced, instead) in [("80 ", "80"), ("\t80", "80"), ("8 - 9", "8-9"), ("8\t-9", "8-9")] {
            let flaw = port_range(spaced).unwrap_err();
            assert_eq!(
                (flaw.code, flaw.instead.as_deref()),
                (Code::BadPortRange, Some(instead)),
                "{spaced:?}"
            );
        }
        assert_eq!(port_range("0-9").unwrap_err().code, Code::BadPort);
        assert_eq!(port_range("1-2-3").unwrap_err().code, Code::BadPort);
    }

    #[test]
    fn netmasks_are_ones_and_then_zeros() {
        for length in 0..=32_u8 {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            assert_eq!(netmask(&Ipv4Addr::from_bits(mask).to_string()), Ok(length));
        }
        assert_eq!(netmask("24").unwrap_err().instead.as_deref(), Some("255.255.255.0"));
        assert_eq!(netmask("/0").unwrap_err().instead.as_deref(), Some("0.0.0.0"));
        for text in ["255.0.255.0", "0.0.0.1", "33", "", "255.255.255", "fc00::"] {
            assert_eq!(netmask(text).unwrap_err().code, Code::BadNetmask, "{text}");
        }
    }
}
