//! The doors of the crate: from a path or a text to a [`Loaded`] or [`Diagnostics`].

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, Deserializer};

use crate::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::loaded::Loaded;
use crate::schema::schema;
use crate::source::Source;
use crate::{meant, shape, written};

/// The largest file that is read, in bytes: room for 40,000 real servers. Larger ones are mistakes, and the
/// time to say what is wrong with a file grows with its size.
pub const FILE_BYTES_MAX: usize = 4 << 20;

/// The largest text in which every mistake of syntax is looked for, in bytes. In a larger one only the first is
/// reported: a file that is not TOML at all has a mistake in every byte.
const RECOVERY_BYTES_MAX: usize = 128 << 10;

/// Reads the file at `path`. Components and sockets with relative paths are taken to be beside it.
///
/// # Errors
/// When the file can not be read or has an error; with everything that was found, warnings included.
pub fn load(path: &Path) -> Result<Loaded, Diagnostics> {
    let name = path.display().to_string();
    let bytes = read(path).map_err(|reason| {
        let source = Arc::new(Source::new(&name, String::new()));
        let message = format!("can not read {name}: {reason}");
        let help = "name an existing file that you may read";
        Diagnostics::from(Diagnostic::without_place(&source, Code::Unreadable, message).help(help))
    })?;
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let base = path.parent().unwrap_or_else(|| Path::new(""));
    parse_bytes(bytes, &name, base)
}

/// Reads a configuration from a text. `name` stands in messages; relative paths in the text stay relative.
///
/// # Errors
/// When the text has an error; with everything that was found, warnings included.
pub fn parse(text: &str, name: &str) -> Result<Loaded, Diagnostics> {
    parse_in(text, name, Path::new(""))
}

/// As [`parse`], with the folder that relative paths in the text start from.
///
/// # Errors
/// When the text has an error; with everything that was found, warnings included.
pub fn parse_in(text: &str, name: &str, base: &Path) -> Result<Loaded, Diagnostics> {
    parse_bytes(text.as_bytes().to_vec(), name, base)
}

/// The bytes of a file, at most one more than is allowed.
fn read(path: &Path) -> Result<Vec<u8>, std::io::Error> {
    let limit = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(crate) fn parse_bytes(bytes: Vec<u8>, name: &str, base: &Path) -> Result<Loaded, Diagnostics> {
    let source = Arc::new(text(bytes, name)?);
    let mut root = tree(&source)?;
    let mut found = Diagnostics::default();
    shape::check(&source, &mut root, schema(), &mut found);
    let file = match written::File::deserialize(Deserializer::from(root)) {
        Ok(file) => file,
        // The shape has been checked by the same types, so that this is reached only when the two disagree.
        Err(error) => {
            let span = error.span().unwrap_or(0..0);
            found.push(Diagnostic::new(&source, Code::WrongType, &span, error.message().to_owned()));
            found.sort();
            return Err(found);
        }
    };
    let loaded = meant::understand(&source, base, &file, &mut found);
    found.sort();
    if found.has_errors() { Err(found) } else { Ok(Loaded { warnings: found, ..loaded }) }
}

/// The text of a file, when it is one.
fn text(bytes: Vec<u8>, name: &str) -> Result<Source, Diagnostics> {
    if bytes.len() > FILE_BYTES_MAX {
        let source = Arc::new(Source::new(name, String::new()));
        let message = format!("{name} is larger than 4 MiB");
        let help = "name a configuration file; a real one has some kilobytes";
        return Err(Diagnostic::without_place(&source, Code::TooLarge, message).help(help).into());
    }
    String::from_utf8(bytes).map(|text| Source::new(name, text)).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let byte = error.as_bytes().get(valid).copied().unwrap_or(0);
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        let source = Arc::new(Source::new(name, text));
        let message = format!("the file is not UTF-8: byte {valid} is 0x{byte:02x}");
        Diagnostic::new(&source, Code::NotUtf8, &(valid..valid), message)
            .help("save the file as UTF-8")
            .into()
    })
}

/// The TOML tree of a text, with the place of every key and value.
fn tree(source: &Arc<Source>) -> Result<Spanned<DeTable<'_>>, Diagnostics> {
    let errors = if source.text.len() <= RECOVERY_BYTES_MAX {
        let (root, errors) = DeTable::parse_recoverable(&source.text);
        if errors.is_empty() {
            return Ok(root);
        }
        errors
    } else {
        match DeTable::parse(&source.text) {
            Ok(root) => return Ok(root),
            Err(error) => vec![error],
        }
    };
    let mut found = Diagnostics::default();
    let mut last_line = 0;
    for error in errors {
        let Some(span) = error.span() else {
            found.push(Diagnostic::without_place(source, Code::Syntax, syntax_message(error.message())));
            continue;
        };
        // One mistake often upsets the parser for the rest of its line.
        let line = source.position(span.start).line;
        if line != last_line {
            found.push(syntax(source, &span, error.message()));
        }
        last_line = line;
    }
    found.sort();
    Err(found)
}

fn syntax_message(message: &str) -> String {
    let first = message.lines().next().unwrap_or("this is not TOML");
    format!("this is not TOML: {first}")
}

fn syntax(source: &Arc<Source>, span: &std::ops::Range<usize>, message: &str) -> Diagnostic {
    if message == "duplicate key" {
        let key = crate::forms::quote(source.slice(span));
        let message = format!("the key {key} is there twice");
        let help = "take out one of the two, or give it another name";
        return Diagnostic::new(source, Code::DuplicateName, span, message).help(help);
    }
    let diagnostic = Diagnostic::new(source, Code::Syntax, span, syntax_message(message));
    let text = source.slice(span);
    let is_word = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:".contains(c))
    };
    let is_value = source.line_before(span.start).trim_end().ends_with(['=', '[', ',']);
    if is_word(text) && is_value {
        return diagnostic.repair(span, format!("\"{text}\""), "put the text in double quotes");
    }
    if message.contains("unquoted keys cannot be empty") || message.contains("key with no value") {
        return diagnostic.help("write `KEY = VALUE`");
    }
    diagnostic.help("see https://toml.io for the format")
}
