//! The small texts of conditions: flags of TCP, code points, limits. Pure leaves, as [`forms`](crate::forms).

use evenkeel_engine::plan::{Limit, LimitKey};
use evenkeel_engine::time::Duration;

use crate::diagnostic::Code;
use crate::forms::{Flaw, nearest, quote};

/// The control bits of TCP, in the order of the header from its end (RFC 9293 s.3.1).
const FLAGS: [(&str, u8); 8] = [
    ("fin", 0x01),
    ("syn", 0x02),
    ("rst", 0x04),
    ("psh", 0x08),
    ("ack", 0x10),
    ("urg", 0x20),
    ("ece", 0x40),
    ("cwr", 0x80),
];

/// The most that a limit counts in its period, or at once.
const COUNT_MAX: u32 = 1_000_000_000;

/// Flags that are looked at, and those of them that must be there.
pub(crate) fn flags(text: &str) -> Result<(u8, u8), Flaw> {
    const HELP: &str = "write the flags that must be there, and after a slash those that are looked at, as in `syn/syn,ack`; \
                        the flags are `fin`, `syn`, `rst`, `psh`, `ack`, `urg`, `ece`, `cwr`";
    let bits = |list: &str| -> Result<u8, Flaw> {
        list.split(',').try_fold(0, |bits, name| {
            let known = FLAGS.iter().find(|(flag, _)| *flag == name);
            known.map(|(_, bit)| bits | bit).ok_or_else(|| {
                let flaw =
                    Flaw::new(Code::BadCondition, format!("{} is not a flag of TCP", quote(name)), HELP);
                match nearest(name, FLAGS.map(|(flag, _)| flag)) {
                    Some(near) => flaw.instead(text.replace(name, near)),
                    None => flaw,
                }
            })
        })
    };
    let Some((set, mask)) = text.split_once('/') else { return bits(text).map(|bits| (bits, bits)) };
    let set = if set.is_empty() { 0 } else { bits(set)? };
    let mask = bits(mask)?;
    if set & !mask != 0 {
        let message = format!("{} asks for flags that it does not look at", quote(text));
        return Err(Flaw::new(Code::BadCondition, message, "write them after the slash as well"));
    }
    Ok((mask, set))
}

/// A code point by its name (RFC 2474, RFC 2597, RFC 3246) or number.
pub(crate) fn dscp(text: &str) -> Result<u8, Flaw> {
    const HELP: &str = "write `ef`, `af11` to `af43`, `cs0` to `cs7`, or a number from 0 to 63";
    let digit = |at: usize, most: u8| {
        let digit = text.as_bytes().get(at).copied()?.checked_sub(b'0')?;
        (digit <= most && text.len() == at + 1).then_some(digit)
    };
    let point = match text {
        "ef" => Some(46),
        _ if text.starts_with("cs") => digit(2, 7).map(|class| class << 3),
        _ if text.starts_with("af") => {
            let class = text.as_bytes().get(2).copied().and_then(|byte| byte.checked_sub(b'0'));
            let class = class.filter(|class| (1..=4).contains(class));
            class.zip(digit(3, 3).filter(|drop| *drop > 0)).map(|(class, drop)| class << 3 | drop << 1)
        }
        _ => text.parse::<u8>().ok().filter(|point| *point < 64),
    };
    point.ok_or_else(|| Flaw::new(Code::BadCondition, format!("{} is not a code point", quote(text)), HELP))
}

/// `RATE/s|m|h [burst N] [per src|dst[/LENGTH]]`.
pub(crate) fn limit(text: &str) -> Result<Limit, Flaw> {
    const HELP: &str = "write a number and `/s`, `/m` or `/h`, then perhaps `burst N` and `per src` or `per dst`, as in `1000/s burst 200 per src/24`";
    let bad = || Flaw::new(Code::BadCondition, format!("{} is not a limit", quote(text)), HELP);
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| (1..=COUNT_MAX).contains(number));
    let mut words = text.split_whitespace();
    let (count, unit) = words.next().and_then(|rate| rate.split_once('/')).ok_or_else(bad)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(bad()),
    };
    let count = number(count).ok_or_else(bad)?;
    let mut limit = Limit { count, period: Duration::from_secs(seconds), burst: count, key: LimitKey::All };
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(bad)?;
        match word {
            "burst" => limit.burst = number(value).ok_or_else(bad)?,
            "per" => limit.key = key(value).ok_or_else(bad)?,
            _ => return Err(bad()),
        }
    }
    Ok(limit)
}

/// For whom flows are counted. A length beyond that of IPv4 counts whole IPv4 addresses; without one, whole addresses.
fn key(text: &str) -> Option<LimitKey> {
    let (side, length) = match text.split_once('/') {
        Some((side, length)) => (side, length.parse::<u8>().ok().filter(|length| *length <= 128)?),
        None => (text, 128),
    };
    let lengths = (length.min(32), length);
    match side {
        "src" => Some(LimitKey::Source(lengths.0, lengths.1)),
        "dst" => Some(LimitKey::Destination(lengths.0, lengths.1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_looked_at_or_not() {
        assert_eq!(flags("syn"), Ok((0x02, 0x02)));
        assert_eq!(flags("syn/syn,ack"), Ok((0x12, 0x02)));
        assert_eq!(flags("/fin,rst"), Ok((0x05, 0)));
        assert_eq!(flags("syb").unwrap_err().instead.as_deref(), Some("syn"));
        for wrong in ["", "syn/ack", "syn,", "syn/"] {
            assert_eq!(flags(wrong).map_err(|flaw| flaw.code), Err(Code::BadCondition), "{wrong}");
        }
    }

    #[test]
    fn code_points_have_names() {
        let points = [("ef", 46), ("cs0", 0), ("cs7", 56), ("af11", 10), ("af43", 38), ("63", 63)];
        assert!(points.iter().all(|(text, point)| dscp(text) == Ok(*point)));
        for wrong in ["", "af14", "af51", "cs8", "cs", "64", "best"] {
            assert_eq!(dscp(wrong).map_err(|flaw| flaw.code), Err(Code::BadCondition), "{wrong}");
        }
    }

    #[test]
    fn limits_are_read_with_all_their_parts() {
        let second = Duration::from_secs(1);
        let all = limit("1000/s burst 200 per src").unwrap();
        assert_eq!(all, Limit { count: 1000, period: second, burst: 200, key: LimitKey::Source(32, 128) });
        let minute = limit("6/m per dst/64").unwrap();
        assert_eq!((minute.period, minute.burst), (Duration::from_secs(60), 6));
        assert_eq!(minute.key, LimitKey::Destination(32, 64));
        for wrong in
            ["", "0/s", "9", "9/d", "9/s burst", "9/s burst 0", "9/s per x", "9/s per src/129", "9/s 9"]
        {
            assert_eq!(limit(wrong).map_err(|flaw| flaw.code), Err(Code::BadCondition), "{wrong}");
        }
    }
}
