//! TOML documents whose types carry their schema: what the configuration file and the scenario file have in common.
//!
//! What comes in: a text and the JSON schema of a type. What goes out: a value of that type, and a [`Misfit`] for
//! every mistake of syntax, unknown or missing key, wrong type, number out of range and unknown word. What does
//! not fit is left out of the value, so that the rest can be looked at.

use std::ops::Range;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, Deserializer};

pub use crate::forms::{nearest, quote};
pub use crate::reference::{Form, tables};
pub use crate::schema::of as schema_of;
pub use crate::source::Source;
pub use crate::written::{At, Named, OneOrMany, TextOrTable};

use crate::diagnostic::{Code, Diagnostic};
use crate::shape;

/// Declares a text of a certain form, and `FORMS`, the list of all. The form is parsed later, so that all mistakes are
/// found together. The crate that uses it needs `serde` and `schemars`.
#[macro_export]
macro_rules! texts {
    ($($(#[doc = $doc:literal])+ $name:ident: $form:literal, $pattern:literal, [$($example:literal),+];)+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, Debug, serde::Deserialize)]
            #[serde(transparent)]
            pub(crate) struct $name(pub(crate) String);

            impl schemars::JsonSchema for $name {
                fn inline_schema() -> bool {
                    true
                }
                fn schema_name() -> std::borrow::Cow<'static, str> {
                    stringify!($name).into()
                }
                fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                    schemars::json_schema!({
                        "type": "string",
                        "pattern": $pattern,
                        "examples": [$($example),+],
                        "x-form": $form,
                    })
                }
            }
        )+

        /// Every form of text with what it means and examples, for the reference page.
        pub(crate) const FORMS: &[$crate::document::Form] =
            &[$(($form, concat!($($doc, "\n",)+), &[$($example),+]),)+];
    };
}

/// The largest text in which every mistake of syntax is looked for, in bytes. In a larger one only the first is
/// reported: a file that is not TOML at all has a mistake in every byte.
const RECOVERY_BYTES_MAX: usize = 128 << 10;

/// One mistake in the shape of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// What kind of mistake it is.
    pub code: Code,
    /// Where it is, in bytes of the text.
    pub span: Option<Range<usize>>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// A text that could stand in a place.
    pub repair: Option<(Range<usize>, String)>,
}

impl Misfit {
    pub(crate) fn new(code: Code, span: &Range<usize>, message: String) -> Self {
        Self { code, span: Some(span.clone()), message, help: None, repair: None }
    }

    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    pub(crate) fn repair(self, span: Range<usize>, text: String, help: impl Into<String>) -> Self {
        Self { repair: Some((span, text)), ..self.help(help) }
    }

    pub(crate) fn into_diagnostic(self, source: &Arc<Source>) -> Diagnostic {
        let diagnostic = match &self.span {
            Some(span) => Diagnostic::new(source, self.code, span, self.message),
            None => Diagnostic::without_place(source, self.code, self.message),
        };
        match (self.help, self.repair) {
            (Some(help), Some((span, text))) => diagnostic.repair(&span, text, help),
            (Some(help), None) => diagnostic.help(help),
            (None, _) => diagnostic,
        }
    }
}

/// Reads a document, and reports what does not fit. Nothing is returned for a text that is not TOML.
pub fn read<T: DeserializeOwned>(
    source: &Source,
    schema: &Value,
    report: &mut dyn FnMut(Misfit),
) -> Option<T> {
    let mut root = tree(source, report)?;
    shape::check(source, &mut root, schema, report);
    // The shape has been checked by the same types, so that this fails only when the two disagree.
    T::deserialize(Deserializer::from(root))
        .map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            report(Misfit::new(Code::WrongType, &span, error.message().to_owned()));
        })
        .ok()
}

/// The TOML tree of a text, with the place of every key and value.
fn tree<'t>(source: &'t Source, report: &mut dyn FnMut(Misfit)) -> Option<Spanned<DeTable<'t>>> {
    let errors = if source.text.len() <= RECOVERY_BYTES_MAX {
        let (root, errors) = DeTable::parse_recoverable(&source.text);
        if errors.is_empty() {
            return Some(root);
        }
        errors
    } else {
        match DeTable::parse(&source.text) {
            Ok(root) => return Some(root),
            Err(error) => vec![error],
        }
    };
    let mut last_line = 0;
    for error in errors {
        let Some(span) = error.span() else {
            let message = syntax_message(error.message());
            report(Misfit { span: None, ..Misfit::new(Code::Syntax, &(0..0), message) });
            continue;
        };
        // One mistake often upsets the parser for the rest of its line.
        let line = source.position(span.start).line;
        if line != last_line {
            report(syntax(source, &span, error.message()));
        }
        last_line = line;
    }
    None
}

fn syntax_message(message: &str) -> String {
    let first = message.lines().next().unwrap_or("this is not TOML");
    format!("this is not TOML: {first}")
}

fn syntax(source: &Source, span: &Range<usize>, message: &str) -> Misfit {
    if message == "duplicate key" {
        let key = quote(source.slice(span));
        let message = format!("the key {key} is there twice");
        let help = "take out one of the two, or give it another name";
        return Misfit::new(Code::DuplicateName, span, message).help(help);
    }
    let misfit = Misfit::new(Code::Syntax, span, syntax_message(message));
    let text = source.slice(span);
    let is_word = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:".contains(c))
    };
    let is_value = source.line_before(span.start).trim_end().ends_with(['=', '[', ',']);
    if is_word(text) && is_value {
        return misfit.repair(span.clone(), format!("\"{text}\""), "put the text in double quotes");
    }
    if message.contains("unquoted keys cannot be empty") || message.contains("key with no value") {
        return misfit.help("write `KEY = VALUE`");
    }
    misfit.help("see https://toml.io for the format")
}
