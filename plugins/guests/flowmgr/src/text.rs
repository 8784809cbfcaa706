//! From a text to flows.
//!
//! Words end at white space; one that begins with a double quote ends at the next, and `#` makes the rest of the line a
//! comment. `flow`, `outflow`, `set`, `director` and `service` begin something where they are the first of a line. The
//! first word that can not stand where it does ends the reading, with its line.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use evenkeel_plugin_sdk::meter::Meter;
use evenkeel_plugin_sdk::network::Network;
use evenkeel_plugin_sdk::{PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, PolicySetup, Verdict};

use super::{Book, Bound, Condition, Flow, Key, Names, Rule, Test, names};

/// Addresses that a limit tells apart, as the native rules do.
const ADDRESSES_MAX: usize = 16_384;
/// The longest name.
const NAME_MAX: usize = 27;
/// The most that a limit counts.
const COUNT_MAX: u32 = 1_000_000_000;
/// The most limits of a text: each one may take half a megabyte.
const LIMITS_MAX: usize = 16;

const ITEMS: [&str; 5] = ["flow", "outflow", "set", "director", "service"];
const CONDITIONS: [&str; 12] = [
    "not", "iface", "proto", "src", "dst", "srcport", "dstport", "icmptype", "tcpflags", "dscp", "limit",
    "comment",
];
const FLAGS: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];

/// A word with its line, and whether it is the first there.
#[derive(Clone, Copy, Debug)]
struct Word<'t> {
    text: &'t str,
    line: usize,
    is_first: bool,
}

/// What a set holds.
#[derive(Clone, Debug)]
enum Set {
    Networks(Vec<Network>),
    Ports(Vec<(u16, u16)>),
}

/// Reads one text after another.
pub(super) struct Reader {
    pub(super) book: Book,
    seed: u64,
    directors: Names,
    interfaces: Names,
    tables: BTreeMap<u32, u16>,
    sets: BTreeMap<String, Set>,
    known: BTreeSet<String>,
}

/// The words of a text that have not been taken.
struct Words<'t> {
    all: Vec<Word<'t>>,
    at: usize,
}

impl<'t> Words<'t> {
    fn of(text: &'t str) -> Self {
        let mut all = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let mut rest = line.trim_start_matches(is_space);
            let mut is_first = true;
            while !rest.is_empty() && !rest.starts_with('#') {
                let length = if rest.starts_with('"') {
                    quoted(rest)
                } else {
                    rest.find(char::is_whitespace).unwrap_or(rest.len())
                };
                let (word, after) = rest.split_at(length);
                all.push(Word { text: word, line: number + 1, is_first });
                is_first = false;
                rest = after.trim_start_matches(is_space);
            }
        }
        Self { all, at: 0 }
    }

    fn peek(&self) -> Option<Word<'t>> {
        self.all.get(self.at).copied()
    }

    fn next(&mut self) -> Option<Word<'t>> {
        let word = self.peek()?;
        self.at += 1;
        Some(word)
    }

    /// The word behind `word` on its line.
    fn value(&mut self, word: Word<'t>) -> Result<Word<'t>, String> {
        match self.peek() {
            Some(value) if !value.is_first => {
                self.at += 1;
                Ok(value)
            }
            _ => Err(format!("line {}: something is missing behind `{}`", word.line, word.text)),
        }
    }

    /// Takes words until one begins something.
    fn skip_item(&mut self) {
        while self.peek().is_some_and(|word| !begins_item(word)) {
            self.at += 1;
        }
    }
}

fn is_space(character: char) -> bool {
    character.is_whitespace() || character == '\u{feff}'
}

/// The length of a word in quotes, both included.
fn quoted(text: &str) -> usize {
    let mut is_escaped = false;
    for (place, character) in text.char_indices().skip(1) {
        if character == '"' && !is_escaped {
            return place + 1;
        }
        is_escaped = character == '\\' && !is_escaped;
    }
    text.len()
}

fn begins_item(word: Word<'_>) -> bool {
    word.is_first && ITEMS.contains(&word.text)
}

fn begins_rule(word: Word<'_>) -> bool {
    word.text == "match" || word.text == "ignore"
}

/// A refusal of a word.
fn wrong<T>(word: Word<'_>, what: &str) -> Result<T, String> {
    Err(format!("line {}: `{}` {what}", word.line, word.text))
}

impl Reader {
    pub(super) fn new(seed: u64, setup: &PolicySetup) -> Self {
        Self {
            book: Book::default(),
            seed,
            directors: names(&setup.directors),
            interfaces: names(&setup.interfaces),
            tables: setup.tables.iter().copied().zip(0..).collect(),
            sets: BTreeMap::new(),
            known: BTreeSet::new(),
        }
    }

    /// Reads a text: first its sets, which may be named before they stand, then the rest.
    pub(super) fn read(&mut self, place: &str, text: &str) -> Result<(), String> {
        let in_place = |reason: String| format!("{place}, {reason}");
        let mut words = Words::of(text);
        while let Some(word) = words.next() {
            if begins_item(word) && word.text == "set" {
                self.set(word, &mut words).map_err(in_place)?;
            }
        }
        words.at = 0;
        while let Some(word) = words.next() {
            match word.text {
                "flow" | "outflow" => self.flow(word, &mut words).map_err(in_place)?,
                "set" | "director" | "service" => words.skip_item(),
                _ => return wrong(word, "begins nothing").map_err(in_place),
            }
        }
        Ok(())
    }

    fn set<'t>(&mut self, first: Word<'t>, words: &mut Words<'t>) -> Result<(), String> {
        let name = words.value(first)?;
        let mut elements = Vec::new();
        while let Some(word) = words.peek().filter(|word| !begins_item(*word)) {
            words.at += 1;
            if elements.is_empty() && word.text == "file" {
                return wrong(word, "names a file, and a component reads none; write the elements here");
            }
            elements.extend(word.text.split(',').map(|part| Word { text: part, ..word }));
        }
        let is_port = |word: &Word<'_>| word.text.bytes().all(|byte| b"0123456789:-".contains(&byte));
        let set = if elements.first().is_some_and(|word| is_port(word) && word.text != "::") {
            Set::Ports(elements.into_iter().map(range).collect::<Result<_, _>>()?)
        } else {
            Set::Networks(elements.into_iter().map(network).collect::<Result<_, _>>()?)
        };
        if self.sets.insert(name.text.to_string(), set).is_some() {
            return wrong(name, "is there twice");
        }
        Ok(())
    }

    fn flow<'t>(&mut self, first: Word<'t>, words: &mut Words<'t>) -> Result<(), String> {
        let is_outflow = first.text == "outflow";
        let name = words.value(first)?;
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.text.len() > NAME_MAX || !name.text.bytes().all(is_allowed) {
            return wrong(name, "is not a name: 1 to 27 letters, digits, `-` and `_`");
        }
        if !self.known.insert(name.text.to_string()) {
            return wrong(name, "is there twice");
        }
        let verdict = self.verdict(words, is_outflow)?;
        let mut rules = Vec::new();
        while let Some(word) = words.peek().filter(|word| !begins_item(*word)) {
            if !begins_rule(word) {
                return wrong(word, "begins no rule: write `match` or `ignore`");
            }
            words.at += 1;
            let conditions = self.conditions(words, is_outflow)?;
            rules.push(Rule { is_match: word.text == "match", conditions });
        }
        if rules.is_empty() {
            return wrong(name, "has no rule");
        }
        let flows = if is_outflow { &mut self.book.outflows } else { &mut self.book.flows };
        flows.push(Flow { verdict, rules });
        Ok(())
    }

    /// The policy behind the name, `skip` where there is none.
    fn verdict(&self, words: &mut Words<'_>, is_outflow: bool) -> Result<Option<Verdict>, String> {
        let Some(word) = words.peek().filter(|word| !word.is_first && !begins_rule(*word)) else {
            return Ok(None);
        };
        words.at += 1;
        match word.text {
            "permit" => Ok(Some(Verdict::Permit)),
            "deny" => Ok(Some(Verdict::Deny)),
            "skip" => Ok(None),
            "director" if !is_outflow => {
                let name = words.value(word)?;
                let place = self.directors.get(name.text).and_then(|place| u16::try_from(*place).ok());
                place
                    .map_or_else(|| wrong(name, "is no director"), |place| Ok(Some(Verdict::Director(place))))
            }
            "table" => {
                let id = words.value(word)?;
                let place = id.text.parse().ok().and_then(|id: u32| self.tables.get(&id));
                place.map_or_else(
                    || wrong(id, "is no routing table"),
                    |place| Ok(Some(Verdict::Table(*place))),
                )
            }
            _ => wrong(word, "can not be the policy of a flow here"),
        }
    }

    fn conditions<'t>(&mut self, words: &mut Words<'t>, is_outflow: bool) -> Result<Vec<Condition>, String> {
        let mut conditions = Vec::new();
        let mut seen = BTreeSet::new();
        while let Some(word) = words.peek() {
            if begins_rule(word) || (word.is_first && !CONDITIONS.contains(&word.text)) {
                break;
            }
            words.at += 1;
            let is_negated = word.text == "not";
            let kind = if is_negated { words.value(word)? } else { word };
            if kind.text == "comment" && !is_negated {
                words.value(kind)?;
                continue;
            }
            if !CONDITIONS.contains(&kind.text) || kind.text == "not" || kind.text == "comment" {
                return wrong(kind, "is no condition");
            }
            if !seen.insert((kind.text, is_negated)) {
                return wrong(kind, "stands twice in this rule");
            }
            if is_outflow && (kind.text == "dscp" || kind.text == "limit") {
                return wrong(kind, "can not stand in an outflow");
            }
            let value = words.value(kind)?;
            let test = self.test(kind, value, words)?;
            conditions.push((kind, Condition { is_negated, test }));
        }
        fits_protocol(&conditions)?;
        Ok(conditions.into_iter().map(|(_, condition)| condition).collect())
    }

    fn test<'t>(&mut self, kind: Word<'t>, value: Word<'t>, words: &mut Words<'t>) -> Result<Test, String> {
        Ok(match kind.text {
            "iface" => match self.interfaces.get(value.text) {
                Some(place) => Test::Interface(*place),
                None => return wrong(value, "is no interface"),
            },
            "proto" => Test::Protocol(match value.text {
                "tcp" => PROTOCOL_TCP,
                "udp" => PROTOCOL_UDP,
                "icmp" => PROTOCOL_ICMP,
                "icmpv6" => PROTOCOL_ICMPV6,
                _ => return wrong(value, "is no protocol"),
            }),
            "src" => Test::Source(self.networks(value)?),
            "dst" => Test::Destination(self.networks(value)?),
            "srcport" => Test::SourcePort(self.ports(value)?),
            "dstport" => Test::DestinationPort(self.ports(value)?),
            "icmptype" => {
                let kind = |part: &str| {
                    part.parse().or_else(|_| wrong(value, "is not the type of an ICMP message: 0 to 255"))
                };
                Test::IcmpKind(value.text.split(',').map(kind).collect::<Result<_, String>>()?)
            }
            "tcpflags" => flags(value)?,
            "dscp" => {
                let point = |part| dscp(part).map_or_else(|| wrong(value, "is not a code point"), Ok);
                Test::Dscp(value.text.split(',').map(point).collect::<Result<_, String>>()?)
            }
            _ => self.limit(value, words)?,
        })
    }

    fn networks(&self, value: Word<'_>) -> Result<Vec<Network>, String> {
        let mut all = Vec::new();
        for part in value.text.split(',') {
            let Some(name) = part.strip_prefix('@') else {
                all.push(network(Word { text: part, ..value })?);
                continue;
            };
            match self.sets.get(name) {
                Some(Set::Networks(more)) => all.extend(more),
                Some(Set::Ports(_)) => return wrong(value, "is a set of ports"),
                None => return wrong(value, "is no set"),
            }
        }
        Ok(all)
    }

    fn ports(&self, value: Word<'_>) -> Result<Vec<(u16, u16)>, String> {
        let mut all = Vec::new();
        for part in value.text.split(',') {
            let Some(name) = part.strip_prefix('@') else {
                all.push(range(Word { text: part, ..value })?);
                continue;
            };
            match self.sets.get(name) {
                Some(Set::Ports(more)) => all.extend(more),
                Some(Set::Networks(_)) => return wrong(value, "is a set of addresses"),
                None => return wrong(value, "is no set"),
            }
        }
        Ok(all)
    }

    /// `N/s`, then `burst N` and `per src` or `per dst`.
    fn limit<'t>(&mut self, rate: Word<'t>, words: &mut Words<'t>) -> Result<Test, String> {
        const HELP: &str = "is not a limit, as in `1000/s burst 200 per src`";
        let number = |text: &str| text.parse().ok().filter(|number| (1..=COUNT_MAX).contains(number));
        let bad = || wrong(rate, HELP);
        let Some((count, unit)) = rate.text.split_once('/') else { return bad() };
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => return bad(),
        };
        let Some(count) = number(count) else { return bad() };
        let (mut burst, mut key) = (count, Key::All);
        while let Some(word) = words.peek().filter(|word| word.text == "burst" || word.text == "per") {
            words.at += 1;
            let value = words.value(word)?;
            match (word.text, number(value.text), key_of(value.text)) {
                ("burst", Some(number), _) => burst = number,
                ("per", _, Some(found)) => key = found,
                _ => return wrong(value, HELP),
            }
        }
        if self.book.meters.len() == LIMITS_MAX {
            return wrong(rate, "is one limit too many: 16 are allowed");
        }
        let period = Duration::from_secs(seconds);
        let size = if matches!(key, Key::All) { 1 } else { ADDRESSES_MAX };
        let meter = Meter::new(self.seed, u64::from(count), period, u64::from(burst), size);
        self.book.meters.push(Bound { meter, key });
        Ok(Test::Limit(self.book.meters.len() - 1))
    }
}

/// Whether the rule names a protocol that has what its conditions look at.
fn fits_protocol(conditions: &[(Word<'_>, Condition)]) -> Result<(), String> {
    let named = conditions.iter().find_map(|(_, condition)| match condition {
        Condition { is_negated: false, test: Test::Protocol(protocol) } => Some(*protocol),
        _ => None,
    });
    for (word, Condition { test, .. }) in conditions {
        let needed: &[u8] = match test {
            Test::SourcePort(_) | Test::DestinationPort(_) => &[PROTOCOL_TCP, PROTOCOL_UDP],
            Test::IcmpKind(_) => &[PROTOCOL_ICMP, PROTOCOL_ICMPV6],
            Test::Flags { .. } => &[PROTOCOL_TCP],
            Test::Interface(_)
            | Test::Protocol(_)
            | Test::Source(_)
            | Test::Destination(_)
            | Test::Dscp(_)
            | Test::Limit(_) => continue,
        };
        if !named.is_some_and(|named| needed.contains(&named)) {
            return wrong(*word, "needs a `proto` that has it");
        }
    }
    Ok(())
}

fn network(word: Word<'_>) -> Result<Network, String> {
    Network::parse(word.text).map_or_else(|| wrong(word, "is not a network"), Ok)
}

/// A port, or a range with `:` or `-`.
fn range(word: Word<'_>) -> Result<(u16, u16), String> {
    let (first, last) = word.text.split_once([':', '-']).unwrap_or((word.text, word.text));
    let port = |text: &str| text.parse().ok().filter(|port| *port > 0 && !text.starts_with('+'));
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => wrong(word, "is not a port or a range of ports"),
    }
}

/// `SET` or `SET/MASK`.
fn flags(word: Word<'_>) -> Result<Test, String> {
    let bits = |list: &str| -> Option<u8> {
        list.split(',').try_fold(0, |bits, name| {
            let place = FLAGS.iter().position(|flag| *flag == name)?;
            Some(bits | 1_u8 << place)
        })
    };
    let found = match word.text.split_once('/') {
        None => bits(word.text).map(|set| (set, set)),
        Some(("", mask)) => bits(mask).map(|mask| (0, mask)),
        Some((set, mask)) => bits(set).zip(bits(mask)),
    };
    match found {
        Some((set, mask)) if set & !mask == 0 => Ok(Test::Flags { mask, set }),
        _ => wrong(word, "are not flags of TCP"),
    }
}

/// A code point by its name or number.
fn dscp(text: &str) -> Option<u8> {
    let digit =
        |text: &str, most: u8| text.parse::<u8>().ok().filter(|digit| text.len() == 1 && *digit <= most);
    if text == "ef" {
        return Some(46);
    }
    if let Some(class) = text.strip_prefix("cs") {
        return Some(digit(class, 7)? * 8);
    }
    if let Some(rest) = text.strip_prefix("af") {
        let (class, drop) = rest.split_at_checked(1)?;
        let (class, drop) = (digit(class, 4)?, digit(drop, 3)?);
        return (class > 0 && drop > 0).then_some(class * 8 + drop * 2);
    }
    text.parse().ok().filter(|point| *point < 64)
}

/// `src` or `dst`, perhaps with a length.
fn key_of(text: &str) -> Option<Key> {
    let (side, length) = match text.split_once('/') {
        Some((side, length)) => (side, length.parse::<u8>().ok().filter(|length| *length <= 128)?),
        None => (text, 128),
    };
    match side {
        "src" => Some(Key::Source(length.min(32), length)),
        "dst" => Some(Key::Destination(length.min(32), length)),
        _ => None,
    }
}
