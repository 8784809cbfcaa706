//! The small texts of the file: durations, sizes, protocols, names. Pure leaves. Those about addresses and ports are
//! in [`addresses`](crate::addresses).
//!
//! What comes in: a text. What goes out: its meaning, or a [`Flaw`] that says what is wrong with it. A form
//! never looks anything up and never knows where its text stands.

use std::ops::RangeInclusive;

use evenkeel_engine::plan::Builtin;
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
    pub(crate) fn new(code: Code, message: String, help: impl Into<String>) -> Self {
        Self { code, message, help: help.into(), instead: None }
    }

    pub(crate) fn instead(mut self, text: impl Into<String>) -> Self {
        self.instead = Some(text.into());
        self
    }
}

/// The longest part of a user's text that a message repeats, in characters.
const QUOTE_LENGTH_MAX: usize = 60;

/// A user's text as messages show it: between back quotes, control characters escaped, long ones cut.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut shown: String = text.chars().take(QUOTE_LENGTH_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTE_LENGTH_MAX).is_some() {
        shown.push_str("...");
    }
    format!("`{}`", shown.replace("\\\"", "\"").replace("\\'", "'"))
}

/// The one of `candidates` that is spelled most like `text`, when it is close enough to be meant.
#[must_use]
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
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

/// `tcp` or `udp`.
pub(crate) fn protocol(text: &str) -> Result<Protocol, Flaw> {
    match text {
        "tcp" => Ok(Protocol::TCP),
        "udp" => Ok(Protocol::UDP),
        _ => Err(unknown_protocol(text, &["tcp", "udp"], "write `tcp` or `udp`")),
    }
}

/// The protocol of a flow rule.
pub(crate) fn rule_protocol(text: &str) -> Result<Protocol, Flaw> {
    match text {
        "icmp" => Ok(Protocol::ICMP),
        "icmpv6" => Ok(Protocol::ICMPV6),
        _ => protocol(text).map_err(|_| {
            unknown_protocol(
                text,
                &["tcp", "udp", "icmpv6", "icmp"],
                "write `tcp` or `udp`, `icmp` or `icmpv6`",
            )
        }),
    }
}

fn unknown_protocol(text: &str, known: &[&'static str], help: &str) -> Flaw {
    let message = format!("the protocol {} is unknown", quote(text));
    let flaw = Flaw::new(Code::UnknownProtocol, message, help);
    match nearest(text, known.iter().copied()) {
        Some(near) => flaw.instead(near),
        None => flaw,
    }
}

/// How packets reach a real server, without the details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ModeName {
    /// `nat`
    Nat,
    /// `gateway`
    Gateway,
    /// `tunnel`
    Tunnel,
}

impl ModeName {
    /// The word that stands in the file.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Gateway => "gateway",
            Self::Tunnel => "tunnel",
        }
    }
}

/// A mode.
pub(crate) fn mode(text: &str) -> Result<ModeName, Flaw> {
    const NAMES: [&str; 3] = ["nat", "gateway", "tunnel"];
    match text {
        "nat" => return Ok(ModeName::Nat),
        "gateway" => return Ok(ModeName::Gateway),
        "tunnel" => return Ok(ModeName::Tunnel),
        _ => {}
    }
    let message = format!("the mode {} is unknown", quote(text));
    let flaw = Flaw::new(Code::UnknownMode, message, "write one of `nat`, `gateway`, `tunnel`");
    // The names that other systems use for the same.
    let known = match text.to_lowercase().as_str() {
        "masq" | "masquerade" | "dnat" | "fullnat" | "full-nat" => Some("nat"),
        "dr" | "dsr" | "direct" | "route" | "gatewaying" => Some("gateway"),
        "ipip" | "gre" | "gue" | "tun" | "encap" => Some("tunnel"),
        _ => nearest(text, NAMES),
    };
    Err(match known {
        Some(known) => flaw.instead(known),
        None => flaw,
    })
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
    let names = || Builtin::ALL.iter().map(|builtin| builtin.name());
    let message = format!("the scheduler {} is unknown", quote(text));
    Err(match long_name(text).or_else(|| nearest(text, names())) {
        Some(near) => {
            Flaw::new(Code::UnknownScheduler, message, format!("did you mean `{near}`?")).instead(near)
        }
        None => {
            let names: Vec<_> = names().map(|name| format!("`{name}`")).collect();
            Flaw::new(Code::UnknownScheduler, message, format!("write one of {}", names.join(", ")))
        }
    })
}

/// The names that other systems use for the same schedulers, and what people call them in full.
fn long_name(text: &str) -> Option<&'static str> {
    let words: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
    match words.to_ascii_lowercase().as_str() {
        "roundrobin" => Some("rr"),
        "weightedroundrobin" => Some("wrr"),
        "leastconnections" => Some("lc"),
        "weightedleastconnections" | "leastconnection" => Some("wlc"),
        "localitybased" | "localitybasedleastconnections" => Some("lblc"),
        "sourcehashing" | "sourcehash" => Some("sh"),
        "dest" | "destination" | "destinationhashing" => Some("dh"),
        "shortestexpected" | "shortestexpecteddelay" => Some("sed"),
        "neverqueue" => Some("nq"),
        "failover" | "weightedfailover" => Some("fo"),
        "overflow" | "weightedoverflow" => Some("ovf"),
        "maglevhashing" | "maglevhash" => Some("mh"),
        "poweroftwo" | "poweroftwochoices" | "pot" | "p2" => Some("p2c"),
        "joinshortestqueue" | "shortestqueue" => Some("jsq"),
        "joinidlequeue" | "idlequeue" => Some("jiq"),
        "hrw" | "highestrandomweight" => Some("rendezvous"),
        "weightedhrw" => Some("weighted-rendezvous"),
        "ketama" | "ringhash" | "consistent" => Some("ring"),
        "boundedload" | "boundedloads" => Some("bounded"),
        "jumphash" => Some("jump"),
        "anchorhash" => Some("anchor"),
        "dxhash" => Some("dx"),
        "multiprobe" | "mpch" => Some("multi-probe"),
        "smooth" | "smoothweightedroundrobin" | "smoothwrr" => Some("swrr"),
        "peakewma" | "ewma" => Some("peak-ewma"),
        "leastrequest" | "leastrequests" => Some("least-request"),
        "staticrr" | "staticroundrobin" => Some("static-rr"),
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
    fn modes_are_known_by_the_names_of_other_systems_too() {
        assert_eq!(mode("nat"), Ok(ModeName::Nat));
        for (text, known) in [("masq", "nat"), ("DSR", "gateway"), ("ipip", "tunnel"), ("gatewy", "gateway")]
        {
            let flaw = mode(text).unwrap_err();
            assert_eq!((flaw.code, flaw.instead.as_deref()), (Code::UnknownMode, Some(known)), "{text}");
        }
        assert_eq!(mode("bridge").unwrap_err().instead, None);
        for known in [ModeName::Nat, ModeName::Gateway, ModeName::Tunnel] {
            assert_eq!(mode(known.name()), Ok(known));
        }
    }

    #[test]
    fn rules_know_more_protocols_than_bindings() {
        assert_eq!(rule_protocol("icmpv6"), Ok(Protocol::ICMPV6));
        assert_eq!(rule_protocol("udp"), Ok(Protocol::UDP));
        assert_eq!(protocol("icmp").unwrap_err().code, Code::UnknownProtocol);
        assert_eq!(rule_protocol("icmp6").unwrap_err().instead.as_deref(), Some("icmpv6"));
        assert_eq!(protocol("TCP").unwrap_err().instead.as_deref(), Some("tcp"));
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
