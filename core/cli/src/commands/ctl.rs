//! `evenkeel ctl`: one question to a running forwarder.

use std::path::PathBuf;

use evenkeel_config::ForwarderConfig;
use evenkeel_daemon::control::{self, COMMANDS, ControlError};

use super::ConfigArgument;
use crate::progress::Progress;
use crate::{Failure, output};

/// Ask a running forwarder: stats, directors, drops, rules, explain, events,
/// weight, reload, version, help
#[derive(Debug, clap::Args)]
#[command(after_help = commands_help())]
pub(crate) struct Arguments {
    /// The control socket [default: that of the configuration file]
    #[arg(long, value_name = "SOCKET")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgument,
    /// The answer as JSON
    #[arg(long)]
    json: bool,
    /// The command and its words
    #[arg(required = true, value_name = "WORDS")]
    words: Vec<String>,
}

fn commands_help() -> String {
    let mut text = String::from("Commands:\n");
    for command in COMMANDS {
        let usage = format!("{} {}", command.name, command.arguments);
        text.push_str(&format!("  {:<25} {}\n", usage.trim_end(), command.help));
    }
    text
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let line = arguments.words.join(" ");
    let socket = arguments.socket.clone().unwrap_or_else(|| socket_of(&arguments.config));
    let answer = {
        let _progress = Progress::start(format!("asking {}", socket.display()));
        control::request(&socket, &line)
    };
    match answer {
        Ok(value) if arguments.json => output::answer(&format!("{value:#}\n")),
        Ok(value) => output::answer(&control::text(&line, &value)),
        Err(error) => Err(refused(error)),
    }
}

/// Why nobody has answered, in words for the operator.
pub(crate) fn refused(error: ControlError) -> Failure {
    if let ControlError::NoAnswer { path, reason } = &error
        && reason.kind() == std::io::ErrorKind::PermissionDenied
    {
        let path = path.display();
        return Failure::Runtime(format!("{path}: only root and the user of the forwarder may ask it"));
    }
    Failure::runtime(error)
}

/// The socket that the configuration names. A file that cannot be read leaves the default: the forwarder may
/// run while its file is being edited.
pub(crate) fn socket_of(config: &ConfigArgument) -> PathBuf {
    let loaded = evenkeel_config::load(&config.path());
    loaded.map_or_else(|_| ForwarderConfig::default().control, |loaded| loaded.forwarder.control)
}
