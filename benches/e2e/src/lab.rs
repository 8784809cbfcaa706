//! The three namespaces that a run works in: client - forwarder - server, joined by veth pairs.
//!
//! ```text
//! client 10.77.1.2 --- 10.77.1.1 forwarder 10.77.2.1 --- 10.77.2.2 server
//!                            VIP 10.77.0.1
//! ```
//!
//! Their names hold the process id, so that runs do not meet. A second process of this program waits
//! for the first to end, however it ends, and then removes the namespaces and what runs in them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

use crate::Failure;

/// The address that clients know.
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The address of the real server.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);

/// One of the three hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// Where traffic comes from.
    Client,
    /// Where the forwarder under test runs.
    Forwarder,
    /// Where traffic goes to.
    Server,
}

impl Host {
    /// All three.
    pub(crate) const ALL: [Self; 3] = [Self::Client, Self::Forwarder, Self::Server];

    const fn letter(self) -> char {
        match self {
            Self::Client => 'c',
            Self::Forwarder => 'f',
            Self::Server => 's',
        }
    }
}

/// The namespaces, the server in the last of them, and the process that cleans up.
#[derive(Debug)]
pub(crate) struct Lab {
    id: u32,
    server: Counting,
    /// Its stdin ends with this process.
    cleaner: Child,
    /// Files of this run.
    pub(crate) folder: PathBuf,
}

impl Lab {
    /// Makes the namespaces and starts the server.
    ///
    /// # Errors
    ///
    /// When namespaces can not be made (the right is missing, or `ip` is).
    pub(crate) fn build() -> Result<Self, Failure> {
        let id = std::process::id();
        let folder = std::env::temp_dir().join(format!("evenkeel-bench-{id}"));
        let cleaner = Command::new(std::env::current_exe()?)
            .args(["clean-after", &id.to_string()])
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()?;
        fs::create_dir_all(&folder)?;
        for host in Host::ALL {
            run("ip", &["netns", "add", &namespace(id, host)])?;
        }
        join(id)?;
        let server = Counting::spawn(in_namespace(id, Host::Server, &this_program()?, &["serve"]))?;
        Ok(Self { id, server, cleaner, folder })
    }

    /// A command that will run on `host`.
    pub(crate) fn command(&self, host: Host, program: &str, arguments: &[&str]) -> Command {
        in_namespace(self.id, host, program, arguments)
    }

    /// Runs a command on `host` to its end.
    ///
    /// # Errors
    ///
    /// When it can not be started or says that it failed.
    pub(crate) fn run(&self, host: Host, program: &str, arguments: &[&str]) -> Result<String, Failure> {
        finish(self.command(host, program, arguments))
    }

    /// The server.
    pub(crate) const fn server(&mut self) -> &mut Counting {
        &mut self.server
    }

    /// The name of the namespace that is `host`.
    pub(crate) fn namespace(&self, host: Host) -> String {
        namespace(self.id, host)
    }

    /// The processes on all three hosts.
    ///
    /// # Errors
    ///
    /// When `/proc` can not be read.
    pub(crate) fn processes(&self) -> Result<Vec<u32>, Failure> {
        processes(self.id)
    }
}

/// A process that tells its count when asked, and does not outlive this value.
#[derive(Debug)]
pub(crate) struct Counting {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Counting {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// When it can not be started.
    pub(crate) fn spawn(mut command: Command) -> Result<Self, Failure> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(ask), Some(answers)) => Ok(Self { child, ask, answers: BufReader::new(answers) }),
            _ => Err("a process was started without its pipes".into()),
        }
    }

    /// Its count now.
    ///
    /// # Errors
    ///
    /// When it has died.
    pub(crate) fn count(&mut self) -> Result<u64, Failure> {
        self.ask.write_all(b"\n")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        line.trim().parse().map_err(|_| format!("{line:?} is no count: the process has died").into())
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.cleaner.stdin.take());
        let _ = self.cleaner.wait();
    }
}

/// Waits for stdin to end, then removes everything of the run `id`.
///
/// # Errors
///
/// When `/proc` can not be read.
pub(crate) fn clean_after(id: u32) -> Result<(), Failure> {
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest)?;
    for process in processes(id)? {
        let _ = run("kill", &["-KILL", &process.to_string()]);
    }
    for host in Host::ALL {
        let _ = run("ip", &["netns", "delete", &namespace(id, host)]);
    }
    let _ = fs::remove_dir_all(std::env::temp_dir().join(format!("evenkeel-bench-{id}")));
    Ok(())
}

/// Connects the three hosts and sets what a router needs.
fn join(id: u32) -> Result<(), Failure> {
    let [client, forwarder, server] = Host::ALL.map(|host| namespace(id, host));
    let script = format!(
        "link add c0 netns {client} type veth peer name f0 netns {forwarder}
         link add s0 netns {server} type veth peer name f1 netns {forwarder}
         -n {client} address add 10.77.1.2/24 dev c0
         -n {forwarder} address add 10.77.1.1/24 dev f0
         -n {forwarder} address add 10.77.2.1/24 dev f1
         -n {server} address add 10.77.2.2/24 dev s0
         -n {client} link set c0 up
         -n {forwarder} link set f0 up
         -n {forwarder} link set f1 up
         -n {server} link set s0 up
         -n {client} link set lo up
         -n {forwarder} link set lo up
         -n {server} link set lo up
         -n {client} route add default via 10.77.1.1
         -n {server} route add default via 10.77.2.1"
    );
    for line in script.lines() {
        run("ip", &line.split_whitespace().collect::<Vec<_>>())?;
    }
    let settings =
        ["net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"];
    finish(in_namespace(id, Host::Forwarder, "sysctl", &[&["-q", "-w"], &settings[..]].concat()))?;
    for interface in ["f0", "f1"] {
        let setting = format!("net.ipv4.conf.{interface}.rp_filter=0");
        finish(in_namespace(id, Host::Forwarder, "sysctl", &["-q", "-w", &setting]))?;
    }
    Ok(())
}

fn namespace(id: u32, host: Host) -> String {
    format!("evkb{id}{}", host.letter())
}

/// The path of this program, which plays all the parts.
pub(crate) fn this_program() -> Result<String, Failure> {
    let path = std::env::current_exe()?;
    path.into_os_string().into_string().map_err(|path| format!("{} is not UTF-8", path.display()).into())
}

fn in_namespace(id: u32, host: Host, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &namespace(id, host), program]).args(arguments).stdin(Stdio::null());
    command
}

fn run(program: &str, arguments: &[&str]) -> Result<String, Failure> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    finish(command)
}

fn finish(mut command: Command) -> Result<String, Failure> {
    let Output { status, stdout, stderr } =
        command.output().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&stderr);
    Err(format!("{command:?}: {status}: {}", said.trim()).into())
}

/// The processes whose network namespace is one of the run's, by the namespace's number.
fn processes(id: u32) -> Result<Vec<u32>, Failure> {
    let ours: Vec<u64> = Host::ALL
        .iter()
        .filter_map(|host| fs::metadata(format!("/run/netns/{}", namespace(id, *host))).ok())
        .map(|file| file.ino())
        .collect();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(process) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let inode = fs::metadata(format!("/proc/{process}/ns/net")).map(|file| file.ino());
        if inode.is_ok_and(|inode| ours.contains(&inode)) {
            found.push(process);
        }
    }
    Ok(found)
}
