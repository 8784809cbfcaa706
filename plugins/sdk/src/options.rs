//! A guest's own options: the flat part of TOML, `name = value` a line.
//!
//! Gets the text of the configuration's table `options`; gives numbers, booleans and texts (also over several lines
//! between three quotes), and refuses what is
//! out of range, of another type or unknown. It never reads tables or lists: a guest that needs those brings a
//! TOML parser.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::str::CharIndices;
use core::time::Duration;

use crate::ConfigureError;

/// The options of one guest. Each getter takes its option out; what is left at the end is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    entries: Vec<(String, Value)>,
}

/// A value as written. Numbers are read when they are asked for, so that a guest carries only what it uses.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Text(String),
    Bare(String),
}

impl Options {
    /// Reads the text of a TOML table.
    ///
    /// # Errors
    /// When a line is not `name = value`, a name is there twice, or a value is a list or a table.
    pub fn parse(text: &str) -> Result<Self, ConfigureError> {
        let mut options = Self::default();
        let mut rest = text;
        while !rest.is_empty() {
            let read = text.get(..text.len() - rest.len()).unwrap_or_default();
            let number = read.matches('\n').count() + 1;
            let refuse = |what: &str| ConfigureError::Other(format!("options, line {number}: {what}"));
            let (whole, after) = rest.split_once('\n').unwrap_or((rest, ""));
            let line = whole.trim_start();
            if line.trim_end().is_empty() || line.starts_with('#') {
                rest = after;
                continue;
            }
            let (name, value) = parse_name(line).ok_or_else(|| refuse("this is not `name = value`"))?;
            // The value ends with its line, unless it is a text over several.
            let lines = rest.get(whole.len() - value.len()..).and_then(|from| Some((from, from.get(..3)?)));
            let value = match lines.filter(|(_, quotes)| ["\"\"\"", "'''"].contains(quotes)) {
                Some((from, quotes)) => {
                    let (value, behind) = parse_lines(from, quotes).map_err(refuse)?;
                    rest = behind;
                    Value::Text(value)
                }
                None => {
                    rest = after;
                    parse_value(value.trim_end()).map_err(refuse)?
                }
            };
            if options.entries.iter().any(|(other, _)| *other == name) {
                return Err(ConfigureError::bad_option(name, "is there twice"));
            }
            options.entries.push((name, value));
        }
        Ok(options)
    }

    /// A whole number, `default` where it is not given.
    ///
    /// # Errors
    /// When it is not a whole number or not in `range`.
    pub fn integer(
        &mut self,
        name: &str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<u64, ConfigureError> {
        let Some(value) = self.take(name) else { return Ok(default) };
        let number = match &value {
            Value::Bare(bare) => parse_integer(bare),
            Value::Text(_) => None,
        };
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            let (low, high) = (range.start(), range.end());
            bad(name, &value, &format!("a whole number from {low} to {high}"))
        })
    }

    /// A number with or without a fraction, `default` where it is not given.
    ///
    /// # Errors
    /// When it is not a number or not in `range`.
    pub fn number(
        &mut self,
        name: &str,
        default: f64,
        range: RangeInclusive<f64>,
    ) -> Result<f64, ConfigureError> {
        let Some(value) = self.take(name) else { return Ok(default) };
        let number = match &value {
            Value::Bare(bare) => bare.replace('_', "").parse::<f64>().ok(),
            Value::Text(_) => None,
        };
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            let (low, high) = (range.start(), range.end());
            bad(name, &value, &format!("a number from {low} to {high}"))
        })
    }

    /// A time as configuration files write it, a whole number and `ns`, `us`, `ms`, `s`, `m` or `h`; `default` where it
    /// is not given.
    ///
    /// # Errors
    /// When it is not a time or not in `range`.
    pub fn duration(
        &mut self,
        name: &str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Result<Duration, ConfigureError> {
        let Some(value) = self.take(name) else { return Ok(default) };
        let time = match &value {
            Value::Text(text) => parse_duration(text),
            Value::Bare(_) => None,
        };
        time.filter(|time| range.contains(time)).ok_or_else(|| {
            let (low, high) = (range.start(), range.end());
            bad(name, &value, &format!("a time from \"{low:?}\" to \"{high:?}\""))
        })
    }

    /// `true` or `false`, `default` where it is not given.
    ///
    /// # Errors
    /// When it is something else.
    pub fn boolean(&mut self, name: &str, default: bool) -> Result<bool, ConfigureError> {
        let Some(value) = self.take(name) else { return Ok(default) };
        match &value {
            Value::Bare(bare) if bare == "true" => Ok(true),
            Value::Bare(bare) if bare == "false" => Ok(false),
            Value::Bare(_) | Value::Text(_) => Err(bad(name, &value, "true or false")),
        }
    }

    /// A text, `default` where it is not given.
    ///
    /// # Errors
    /// When it is not a text.
    pub fn text(&mut self, name: &str, default: &str) -> Result<String, ConfigureError> {
        match self.take(name) {
            None => Ok(default.to_owned()),
            Some(Value::Text(text)) => Ok(text),
            Some(value @ Value::Bare(_)) => Err(bad(name, &value, "a text in quotes")),
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// When an option is left that nobody asked for.
    pub fn finish(self) -> Result<(), ConfigureError> {
        match self.entries.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => Err(ConfigureError::UnknownOption(name)),
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        let place = self.entries.iter().position(|(other, _)| other == name)?;
        Some(self.entries.remove(place).1)
    }
}

fn bad(name: &str, value: &Value, expected: &str) -> ConfigureError {
    let reason = match value {
        Value::Text(text) => format!("\"{text}\" is not {expected}"),
        Value::Bare(bare) => format!("{bare} is not {expected}"),
    };
    ConfigureError::bad_option(name, reason)
}

/// The name in front of `=`, and what follows it.
fn parse_name(line: &str) -> Option<(String, &str)> {
    let (name, rest) = match line.chars().next()? {
        quote @ ('"' | '\'') => {
            let (name, rest) = parse_quoted(line, quote).ok()?;
            (name, rest.trim_start())
        }
        _ => {
            let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            let end = line.find(|c| !is_bare(c))?;
            let (name, rest) = line.split_at_checked(end)?;
            (name.to_owned(), rest.trim_start())
        }
    };
    let rest = rest.strip_prefix('=')?;
    (!name.is_empty()).then(|| (name, rest.trim_start()))
}

/// The value behind `=`, up to a comment.
fn parse_value(text: &str) -> Result<Value, &'static str> {
    match text.chars().next() {
        None | Some('#') => Err("the value is missing"),
        Some('[' | '{') => Err("a list or a table is not an option of this guest"),
        Some(quote @ ('"' | '\'')) => {
            let (value, rest) = parse_quoted(text, quote)?;
            let rest = rest.trim_start();
            if rest.is_empty() || rest.starts_with('#') {
                Ok(Value::Text(value))
            } else {
                Err("something follows the closing quote")
            }
        }
        Some(_) => {
            let value = text.split('#').next().unwrap_or_default().trim_end();
            if value.contains(char::is_whitespace) {
                return Err("something follows the value");
            }
            Ok(Value::Bare(value.to_owned()))
        }
    }
}

/// A text over several lines between three quotes, and the lines that follow it.
fn parse_lines<'t>(text: &'t str, quotes: &str) -> Result<(String, &'t str), &'static str> {
    let inside = text.get(quotes.len()..).unwrap_or_default();
    // A line that ends where the text begins is not part of it.
    let inside = inside.strip_prefix("\r\n").or_else(|| inside.strip_prefix('\n')).unwrap_or(inside);
    let mut value = String::new();
    let mut characters = inside.char_indices();
    loop {
        let rest = characters.as_str();
        if let Some(behind) = rest.strip_prefix(quotes) {
            let (line, behind) = behind.split_once('\n').unwrap_or((behind, ""));
            let line = line.trim();
            let is_clean = line.is_empty() || line.starts_with('#');
            return if is_clean { Ok((value, behind)) } else { Err("something follows the closing quotes") };
        }
        let (_, character) = characters.next().ok_or("the closing quotes are missing")?;
        value.push(if character == '\\' && quotes.starts_with('"') {
            parse_escape(&mut characters)?
        } else {
            character
        });
    }
}

/// A text in quotes, and what follows it. Single quotes know no escapes.
fn parse_quoted(text: &str, quote: char) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    characters.next();
    while let Some((_, character)) = characters.next() {
        if character == quote {
            return Ok((value, characters.as_str()));
        }
        value.push(if character == '\\' && quote == '"' {
            parse_escape(&mut characters)?
        } else {
            character
        });
    }
    Err("the closing quote is missing")
}

/// The character that an escape stands for.
fn parse_escape(characters: &mut CharIndices<'_>) -> Result<char, &'static str> {
    let escape = characters.next().map(|(_, character)| character);
    let mut code = |digits: usize| {
        let digits = (0..digits).map(|_| characters.next().and_then(|(_, c)| c.to_digit(16)));
        let code = digits.reduce(|sum, digit| Some(sum?.checked_mul(16)? + digit?)).flatten();
        code.and_then(char::from_u32).ok_or("this escape is not a character")
    };
    Ok(match escape {
        Some('b') => '\u{8}',
        Some('t') => '\t',
        Some('n') => '\n',
        Some('f') => '\u{c}',
        Some('r') => '\r',
        Some('e') => '\u{1b}',
        Some('"') => '"',
        Some('\\') => '\\',
        Some('x') => code(2)?,
        Some('u') => code(4)?,
        Some('U') => code(8)?,
        Some(_) | None => return Err("there is no such escape"),
    })
}

/// A whole number and a unit.
fn parse_duration(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at_checked(end)?;
    let nanoseconds = match unit.trim_start() {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(nanoseconds).map(Duration::from_nanos)
}

/// A whole number as TOML writes it: decimal with an optional sign, or hexadecimal, octal, binary.
fn parse_integer(text: &str) -> Option<u64> {
    if text.starts_with('_') || text.ends_with('_') || text.contains("__") {
        return None;
    }
    let text = text.replace('_', "");
    let prefixed = |prefix, radix| text.strip_prefix(prefix).map(|digits| (digits, radix));
    let (digits, radix) = prefixed("0x", 16)
        .or_else(|| prefixed("0o", 8))
        .or_else(|| prefixed("0b", 2))
        .unwrap_or_else(|| (text.strip_prefix('+').unwrap_or(&text), 10));
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn parse(text: &str) -> Options {
        Options::parse(text).unwrap()
    }

    #[test]
    fn a_text_may_stand_over_several_lines() {
        let mut options =
            parse("a = 1\nb = '''\nx = \"1\"\n\\n\n''' # comment\nc = \"\"\"y\\tz\n\"\"\"\nd = 2");
        assert_eq!(options.text("b", ""), Ok("x = \"1\"\n\\n\n".to_string()));
        assert_eq!(options.text("c", ""), Ok("y\tz\n".to_string()));
        assert_eq!((options.integer("a", 0, 0..=9), options.integer("d", 0, 0..=9)), (Ok(1), Ok(2)));
        assert_eq!(options.finish(), Ok(()));
        for wrong in ["a = '''x", "a = '''x''' y", "a = \"\"\"\\q\"\"\"", "a = '''\n'''\na = 2"] {
            assert!(Options::parse(wrong).is_err(), "{wrong}");
        }
        let error = Options::parse("a = '''\n\n'''\nb").unwrap_err();
        assert_eq!(error, ConfigureError::Other("options, line 4: this is not `name = value`".to_owned()));
    }

    #[test]
    fn every_type_is_read_and_defaults_fill_in() {
        let mut options = parse(
            "# comment\nsize = 65_537 # prime\nratio = -0.5\n on=true\n\"quoted name\" = 'c:\\d'\ntext = \"a#b\\u00e9\"\n",
        );
        assert_eq!(options.integer("size", 1, 0..=100_000), Ok(65_537));
        assert_eq!(options.integer("missing", 7, 0..=9), Ok(7));
        assert_eq!(options.number("ratio", 0.0, -1.0..=1.0), Ok(-0.5));
        assert_eq!(options.boolean("on", false), Ok(true));
        assert_eq!(options.text("quoted name", ""), Ok("c:\\d".to_string()));
        assert_eq!(options.text("text", ""), Ok("a#bé".to_string()));
        assert_eq!(options.finish(), Ok(()));
    }

    #[test]
    fn whole_numbers_have_the_forms_of_toml() {
        for (text, number) in [("0x1F", 31), ("0o17", 15), ("0b101", 5), ("+3", 3), ("1_000", 1_000)] {
            assert_eq!(parse(&format!("n = {text}")).integer("n", 0, 0..=u64::MAX), Ok(number), "{text}");
        }
        for text in ["-1", "_1", "1_", "1__0", "1.5", "++1", "0x+1", "true", "\"1\"", "99999999999999999999"]
        {
            assert!(parse(&format!("n = {text}")).integer("n", 0, 0..=u64::MAX).is_err(), "{text}");
        }
    }

    #[test]
    fn times_have_a_unit() {
        let range = Duration::from_millis(1)..=Duration::from_secs(3_600);
        for (text, millis) in [("10s", 10_000), ("500ms", 500), ("2 m", 120_000), ("1h", 3_600_000)] {
            let mut options = parse(&format!("t = \"{text}\""));
            let time = options.duration("t", Duration::ZERO, range.clone());
            assert_eq!(time, Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "\"10\"",
            "\"s\"",
            "10",
            "\"1us\"",
            "\"2h\"",
            "\"99999999999999999999h\"",
            "\"9999999999999999h\"",
        ] {
            let mut options = parse(&format!("t = {text}"));
            assert!(options.duration("t", Duration::ZERO, range.clone()).is_err(), "{text}");
        }
    }

    #[test]
    fn what_nobody_asked_for_is_unknown() {
        let mut options = parse("burst = 2\nbrust = 3");
        assert_eq!(options.integer("burst", 1, 1..=9), Ok(2));
        assert_eq!(options.finish(), Err(ConfigureError::UnknownOption("brust".into())));
    }

    #[test]
    fn a_value_out_of_range_names_the_range() {
        let error = parse("burst = 70").integer("burst", 1, 1..=9).unwrap_err();
        assert_eq!(error, ConfigureError::bad_option("burst", "70 is not a whole number from 1 to 9"));
        assert!(parse("r = nan").number("r", 0.0, 0.0..=1.0).is_err());
    }

    #[test]
    fn every_broken_line_is_refused() {
        let broken = [
            "size",
            "size 3",
            "= 3",
            "size =",
            "size = # 3",
            "a = [1]",
            "a = {}",
            "[table]",
            "a.b = 1",
            "a = 1 2",
            "a = \"x",
            "a = \"\\q\"",
            "a = \"\\uD800\"",
            "a = \"x\" y",
            "a = 1\na = 2",
            "a = \"\"\"x\"\"",
            "'a' b = 1",
        ];
        for text in broken {
            assert!(Options::parse(text).is_err(), "{text}");
        }
    }
}
