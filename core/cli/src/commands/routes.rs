//! `evenkeel routes`: what `setup = "auto"` does, as commands.

use evenkeel_daemon::setup;
use serde_json::json;

use super::ConfigArgument;
use crate::{Failure, output};

/// Print what the machine needs for a configuration, as ip and sysctl commands
///
/// The list is the one that `evenkeel run` applies on this machine with setup = "auto". With
/// setup = "manual" run it yourself: evenkeel routes | sh
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// A JSON object with the list `commands`
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let loaded = evenkeel_config::load(&arguments.config.path())
        .map_err(|found| Failure::Usage(arguments.config.explain(found).render(output::has_colour())))?;
    let plan = setup::spread(&loaded.plan).map_err(Failure::Usage)?;
    let networks = setup::attached_networks().map_err(Failure::runtime)?;
    if arguments.json {
        let changes = setup::plan_of_changes(&plan, &networks);
        let commands: Vec<String> = changes.iter().map(ToString::to_string).collect();
        return output::answer(&format!("{:#}\n", json!({ "commands": commands })));
    }
    output::answer(&setup::script(&plan, &networks))
}
