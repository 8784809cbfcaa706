//! `evenkeel version`: what this binary is and what it brings along.

use serde_json::json;

use crate::{Failure, output};

/// Print the version and the bundled components
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A JSON object with `version` and `components`
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let components: Vec<&str> = evenkeel_plugins_bundled::names().collect();
    if arguments.json {
        return output::answer(&format!("{:#}\n", json!({ "version": version, "components": components })));
    }
    output::answer(&format!("evenkeel {version}\nbundled components: {}\n", components.join(", ")))
}
