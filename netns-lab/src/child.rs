//! What this binary does when the lab has started it as a process of its own.
//!
//! In: the hidden arguments behind [`CHILD`](crate::CHILD). Out: an exit code; words only over the pipes.

use std::io::{self, Write};
use std::process::{Command, ExitCode};

use tun_tap::{Iface, Mode};

use crate::network::Network;
use crate::orders::Note;
use crate::{CHILD, Missing, conductor, host, sandbox};

/// Does what the arguments say.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["enter", parent] => enter(parent),
        ["conduct"] => conductor::run(),
        ["host"] => host::run(false),
        ["host-with-mounts"] => host::run(true),
        ["probe"] => say_missing(),
        _ => Err(io::Error::other("these arguments are the lab's own")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The standard error is the runner's own; nothing else may be written where pipes are lines.
            let _ = writeln!(io::stderr(), "evenkeel {CHILD} {}: {error}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

/// Enters the namespaces, starts their head, and waits for it.
fn enter(parent: &str) -> io::Result<()> {
    let parent = parent.parse().map_err(io::Error::other)?;
    sandbox::die_with(Some(parent))?;
    sandbox::enter()?;
    // A change of credentials may have cleared the wish.
    sandbox::die_with(Some(parent))?;
    let mut head = Command::new(std::env::current_exe()?).args([CHILD, "conduct"]).spawn()?;
    let mut line = serde_json::to_vec(&Note::Inside(head.id()))?;
    line.push(b'\n');
    io::stdout().write_all(&line)?;
    io::stdout().flush()?;
    let status = head.wait()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("the head ended with {status}"))) }
}

/// Tries everything that a lab needs, in namespaces of its own, and says what did not work.
fn say_missing() -> io::Result<()> {
    serde_json::to_writer(io::stdout(), &missing())?;
    io::stdout().flush()
}

fn missing() -> Vec<Missing> {
    if let Err(error) = sandbox::enter() {
        return vec![Missing {
            what: "namespaces".to_owned(),
            why: format!("this user may make neither network namespaces nor a user namespace: {error}"),
            remedy: "run as root, or allow user namespaces (sysctl user.max_user_namespaces above 0, \
                     kernel.apparmor_restrict_unprivileged_userns=0 where it exists; in a container, \
                     start it with the capability SYS_ADMIN)"
                .to_owned(),
        }];
    }
    let mut missing = Vec::new();
    if let Err(error) = Iface::without_packet_info("probe", Mode::Tun) {
        missing.push(Missing {
            what: "/dev/net/tun".to_owned(),
            why: format!("no TUN device can be made: {error}"),
            remedy: if error.kind() == io::ErrorKind::NotFound {
                "load the kernel module tun (modprobe tun); in a container, start it with \
                 --device /dev/net/tun"
            } else {
                "let this user open it (chmod 0666 /dev/net/tun is the usual mode), or run as root"
            }
            .to_owned(),
        });
    }
    if let Err(error) = try_links() {
        missing.push(Missing {
            what: "bridge and veth".to_owned(),
            why: error.to_string(),
            remedy: "load the kernel modules bridge and veth".to_owned(),
        });
    }
    missing
}

/// Makes a bridge and a veth pair; they end with this process.
fn try_links() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let network = Network::open()?;
        network.add_bridge("probe0").await?;
        network.add_pair("probe1", "probe2", std::process::id()).await?;
        network.join_bridge("probe1", "probe0").await
    })
}
