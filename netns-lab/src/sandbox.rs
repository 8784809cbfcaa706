//! Namespaces of our own: what a child process does before it does anything else.
//!
//! In: nothing but the calling process, which must still have one thread. Out: the same process in new
//! namespaces, tied to the life of its parent. Never touches the namespaces that it came from: what is
//! made here is anonymous and ends with the last process inside.

use std::fs;
use std::io;

use rustix::process::{Pid, Signal, getegid, geteuid, getppid, set_parent_process_death_signal};
use rustix::thread::UnshareFlags;

/// Enters a network and a process namespace; as an ordinary user a user namespace first, in which this
/// user is root. The process namespace holds the children made from now on, the first of them its head:
/// when the head ends, the kernel ends everything inside.
///
/// # Errors
///
/// When the system allows neither the namespaces themselves nor a user namespace to make them in.
pub(crate) fn enter() -> io::Result<()> {
    let inner = UnshareFlags::NEWNET | UnshareFlags::NEWPID;
    match unshare(inner) {
        Ok(()) => Ok(()),
        Err(refused) if refused.kind() == io::ErrorKind::PermissionDenied => enter_as_user(inner),
        Err(other) => Err(other),
    }
}

/// The same inside a new user namespace, with the calling user mapped to root.
fn enter_as_user(inner: UnshareFlags) -> io::Result<()> {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    unshare(UnshareFlags::NEWUSER | inner)?;
    // A group map may be written without privileges only after setgroups was given up.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

/// Gives the calling process a network of its own, and with `mounts` its own view of the mounts as well.
///
/// # Errors
///
/// When the system refuses.
pub(crate) fn own_network(mounts: bool) -> io::Result<()> {
    let flags = if mounts { UnshareFlags::NEWNET | UnshareFlags::NEWNS } else { UnshareFlags::NEWNET };
    unshare(flags)
}

/// Asks the kernel to kill this process when `parent` ends. Without a `parent` the caller does not know
/// its parent's number, because that lives in another process namespace.
///
/// # Errors
///
/// When the parent has ended already.
pub(crate) fn die_with(parent: Option<u32>) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let Some(expected) = parent else { return Ok(()) };
    let found = getppid().map(Pid::as_raw_nonzero).map(|raw| raw.get().unsigned_abs());
    if found == Some(expected) { Ok(()) } else { Err(io::Error::other("the parent process has ended")) }
}

#[allow(
    deprecated,
    reason = "rustix deprecates the safe function because of UnshareFlags::FILES, which is never passed here"
)]
fn unshare(flags: UnshareFlags) -> io::Result<()> {
    rustix::thread::unshare(flags).map_err(io::Error::from)
}
