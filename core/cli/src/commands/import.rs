//! `evenkeel import`: a configuration of another system as one of ours.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::ValueEnum;
use evenkeel_config::import::{System, import};

use super::fmt::{read, refused};
use crate::{Failure, output};

/// Turn the configuration of another system into one of ours
///
/// Prints a configuration file on the standard output, and on the standard error
/// a line for each thing that it does not keep. `evenkeel check` takes the result.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
  evenkeel import aloha flowmgr.cfg > evenkeel.toml
  ipvsadm --save --numeric > ipvs.rules; evenkeel import ipvsadm ipvs.rules
  evenkeel import keepalived /etc/keepalived/keepalived.conf
  evenkeel import haproxy --address 10.0.0.3 /etc/haproxy/haproxy.cfg")]
pub(crate) struct Arguments {
    /// Whose configuration it is
    #[arg(value_enum)]
    system: Name,
    /// Its file
    file: PathBuf,
    /// What `*` means there, every address of the machine: the one that
    /// clients call
    #[arg(long, value_name = "ADDRESS")]
    address: Option<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// HAProxy ALOHA: flows, outflows, directors, network services
    Aloha,
    /// IPVS, as `ipvsadm --save --numeric` prints it
    Ipvsadm,
    /// keepalived: its virtual servers
    Keepalived,
    /// HAProxy: frontends, backends, `balance`, stick tables of addresses
    Haproxy,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let system = match arguments.system {
        Name::Aloha => System::Aloha,
        Name::Ipvsadm => System::Ipvsadm,
        Name::Keepalived => System::Keepalived,
        Name::Haproxy => System::Haproxy,
    };
    let text = read(&arguments.file)?;
    let name = arguments.file.display().to_string();
    let (toml, found) = import(system, &text, &name, arguments.address).map_err(|found| refused(&found))?;
    output::complain(&found.render(output::has_colour()));
    output::answer(&toml)
}
