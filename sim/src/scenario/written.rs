//! The scenario file as written: types for TOML, with the place of everything that can be wrong.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::error::{Collector, ScenarioErrors, nearest};

/// Tables under names that the user chose.
pub(super) type Named<T> = BTreeMap<Spanned<String>, T>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) scenario: About,
    #[serde(default)]
    pub(super) segment: Named<Segment>,
    #[serde(default)]
    pub(super) host: Named<Host>,
    #[serde(default)]
    pub(super) forwarder: Named<Forwarder>,
    #[serde(default)]
    pub(super) link: Named<Link>,
    #[serde(default)]
    pub(super) load: Named<Load>,
    #[serde(default)]
    pub(super) expect: Vec<Spanned<Expect>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct About {
    pub(super) name: Spanned<String>,
    pub(super) duration: Spanned<String>,
    pub(super) seed: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Segment {
    pub(super) subnet: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Attach {
    pub(super) segment: Spanned<String>,
    pub(super) address: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Host {
    pub(super) count: Option<Spanned<u64>>,
    pub(super) attach: Spanned<Vec<Attach>>,
    pub(super) gateway: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Forwarder {
    pub(super) attach: Spanned<Vec<Attach>>,
    pub(super) gateway: Option<Spanned<String>>,
    pub(super) config: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Link {
    pub(super) ends: Spanned<Vec<Spanned<String>>>,
    pub(super) delay: Option<Spanned<String>>,
    pub(super) jitter: Option<Spanned<String>>,
    pub(super) rate: Option<Spanned<String>>,
    pub(super) loss: Option<Spanned<f64>>,
    pub(super) queue: Option<Spanned<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Load {
    pub(super) from: Spanned<String>,
    pub(super) to: Spanned<String>,
    pub(super) arrivals: Spanned<Arrivals>,
    pub(super) start: Option<Spanned<String>>,
    pub(super) flows: Option<Spanned<u64>>,
    pub(super) duration: Option<Spanned<String>>,
    pub(super) request: Option<Message>,
    pub(super) response: Option<Message>,
    pub(super) rounds: Option<Spanned<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Arrivals {
    pub(super) process: Spanned<String>,
    pub(super) rate: Option<Spanned<String>>,
    pub(super) outstanding: Option<Spanned<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Message {
    pub(super) size: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    pub(super) metric: Spanned<String>,
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    pub(super) equals: Option<Spanned<toml::Value>>,
}

/// Reads the text; an error here is a single one, since nothing after it can be trusted.
pub(super) fn parse(text: &str, path: &Path) -> Result<File, ScenarioErrors> {
    toml::from_str(text).map_err(|error| {
        let mut collector = Collector::new(text, path);
        let message = error.message();
        collector.add_with_help(error.span().unwrap_or(0..0), message, suggestion(message));
        collector.finish()
    })
}

/// "unknown field `cuont`, expected one of `count`, ..." names all that a suggestion needs.
fn suggestion(message: &str) -> Option<String> {
    let rest = message.strip_prefix("unknown field ")?;
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let word = quoted.next()?;
    nearest(word, quoted).map(|name| format!("did you mean \"{name}\"?"))
}
