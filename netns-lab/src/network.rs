//! The network of the namespace that the process is in: links through rtnetlink, addresses, routes and rules as the
//! commands of `ip` that anybody can repeat, settings through `/proc/sys`.
//!
//! In: names and commands. Out: the kernel's answer.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, new_connection};
use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The characters of what a program said that are shown.
const SAID_CHARS_MAX: usize = 400;

/// A netlink connection to the namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Network {
    handle: Handle,
    names: OwnedFd,
}

impl Network {
    /// Opens the connection and leaves its loop to the current runtime.
    ///
    /// # Errors
    ///
    /// When the system gives no netlink socket.
    pub(crate) fn open() -> io::Result<Self> {
        let (connection, handle, _) = new_connection()?;
        tokio::spawn(connection);
        let names = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        Ok(Self { handle, names })
    }

    /// Adds a bridge and brings it up.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it.
    pub(crate) async fn add_bridge(&self, name: &str) -> io::Result<()> {
        let message = LinkBridge::new(name).up().build();
        self.handle.link().add(message).execute().await.map_err(|error| refused("bridge", name, &error))
    }

    /// Adds a pair of interfaces: `outer` here, `inner` in the network of the process `pid`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it.
    pub(crate) async fn add_pair(&self, outer: &str, inner: &str, pid: u32) -> io::Result<()> {
        let mut link = LinkVeth::new(outer, inner);
        let peer = LinkMessageBuilder::<LinkUnspec>::default().name(inner).setns_by_pid(pid).build();
        link = link.set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        self.handle
            .link()
            .add(link.build())
            .execute()
            .await
            .map_err(|error| refused("veth pair", outer, &error))
    }

    /// Makes `port` a port of `bridge` and brings it up.
    ///
    /// # Errors
    ///
    /// When one of them does not exist or the kernel refuses.
    pub(crate) async fn join_bridge(&self, port: &str, bridge: &str) -> io::Result<()> {
        let controller = self.index(bridge)?;
        let message = LinkUnspec::new_with_index(self.index(port)?).controller(controller).up().build();
        self.handle.link().set(message).execute().await.map_err(|error| refused("bridge port", port, &error))
    }

    /// Moves an interface into the network of the process `pid`, under a new name.
    ///
    /// # Errors
    ///
    /// When it does not exist or the kernel refuses.
    pub(crate) async fn hand_over(&self, name: &str, new_name: &str, pid: u32) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(self.index(name)?).name(new_name).setns_by_pid(pid).build();
        self.handle.link().set(message).execute().await.map_err(|error| refused("interface", name, &error))
    }

    /// Brings an interface up or down: on a port of a bridge the link of the other side goes with it.
    ///
    /// # Errors
    ///
    /// When it does not exist or the kernel refuses.
    pub(crate) async fn set_up(&self, name: &str, is_up: bool) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(self.index(name)?);
        let message = if is_up { message.up() } else { message.down() };
        let request = self.handle.link().set(message.build());
        request.execute().await.map_err(|error| refused("interface", name, &error))
    }

    fn index(&self, name: &str) -> io::Result<u32> {
        name_to_index(&self.names, name).map_err(|error| {
            io::Error::new(io::Error::from(error).kind(), format!("interface {name}: {error}"))
        })
    }
}

/// Carries out commands of `ip`, in their order. A command may begin with `-4` or `-6`.
///
/// # Errors
///
/// With the command that the kernel refuses, or when there is no `ip`.
pub(crate) async fn ip(commands: &[String]) -> io::Result<()> {
    // The family is an argument of the whole program, so that each run of one family is a batch.
    for batch in commands.chunk_by(|one, other| family(one).0 == family(other).0) {
        let (option, _) = batch.first().map_or((None, ""), |first| family(first));
        let lines: Vec<_> = batch.iter().map(|command| family(command).1).collect();
        let mut program = Command::new("ip");
        program.args(option).args(["-batch", "-"]);
        let Some(said) = feed(&mut program, &lines.join("\n")).await? else { continue };
        // It says "Command failed -:3" for the third line.
        let number =
            said.rsplit_once("-:").and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
        let place = number.and_then(|number: usize| batch.get(number.checked_sub(1)?));
        let command = place.map_or_else(|| batch.join("; "), Clone::clone);
        return Err(io::Error::other(format!("ip {command}: {said}")));
    }
    Ok(())
}

/// The option of a command that names its family, and the rest.
fn family(command: &str) -> (Option<&str>, &str) {
    match command.split_once(' ') {
        Some((option @ ("-4" | "-6"), rest)) => (Some(option), rest),
        _ => (None, command),
    }
}

/// Tells `nft` some lines.
///
/// # Errors
///
/// With what it says, or when there is no `nft`.
pub(crate) async fn nft(lines: &[String]) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    match feed(Command::new("nft").args(["-f", "-"]), &lines.join("\n")).await? {
        None => Ok(()),
        Some(said) => Err(io::Error::other(format!("nft: {said}"))),
    }
}

/// Runs a program on a text; what it complains about, if it does.
async fn feed(command: &mut Command, text: &str) -> io::Result<Option<String>> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            io::Error::new(error.kind(), format!("{name}: {error}; install the package that has it"))
        })?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(text.as_bytes()).await?;
        input.write_all(b"\n").await?;
    }
    let output = child.wait_with_output().await?;
    if output.status.success() {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&output.stderr).trim().chars().take(SAID_CHARS_MAX).collect()))
}

/// Writes one setting, named as in `sysctl` with slashes: `net/ipv4/ip_forward`.
///
/// # Errors
///
/// When the setting does not exist or may not be written.
pub(crate) fn set(setting: &str, value: &str) -> io::Result<()> {
    fs::write(Path::new("/proc/sys").join(setting), value)
        .map_err(|error| io::Error::new(error.kind(), format!("setting {setting} = {value}: {error}")))
}

/// Whether this kernel knows the setting.
pub(crate) fn has(setting: &str) -> bool {
    Path::new("/proc/sys").join(setting).exists()
}

fn refused(what: &str, name: &str, error: &rtnetlink::Error) -> io::Error {
    io::Error::other(format!("the kernel refuses the {what} {name}: {error}"))
}
