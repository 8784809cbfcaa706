//! What is written down about a run, so that what a killed runner leaves behind can be removed.
//!
//! In: numbers of processes that a run started. Out: a file for each run, gone when the run has ended;
//! [`clean`] ends what such files name and nobody watches any more. A process is known by its number and
//! its start time together, so that a number that was given out again is never taken for ours.
//!
//! The namespaces, links and devices of a run are anonymous and end with its processes; of those the
//! kernel ends all with the first. A file is therefore usually all that is left.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde::{Deserialize, Serialize};

/// Files that are looked at by one call of [`clean`]: more runs than a machine sees in a year.
const RECORDS_MAX: usize = 10_000;

/// Attempts to create a record: runs of one process are numbered, and few go on at once.
const ATTEMPTS_MAX: u32 = 1_000;

/// The variable of the environment that names another folder for records; made when it is not there, and
/// removed with its last record.
const FOLDER_VARIABLE: &str = "EVENKEEL_LAB_RECORDS";

/// A process that can be told from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pid: u32,
    /// The start time in ticks since boot.
    start: u64,
}

impl Process {
    /// The process that has this number now; none when there is none.
    pub(crate) fn find(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, start: start_time(&stat)? })
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(self) -> bool {
        Self::find(self.pid) == Some(self)
    }

    /// Kills it if it still runs; says whether it did.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    fn kill(self) -> io::Result<bool> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        match pid {
            Some(pid) if self.is_alive() => {
                kill_process(pid, Signal::KILL).map(|()| true).map_err(io::Error::from)
            }
            Some(_) | None => Ok(false),
        }
    }
}

/// Whether a new attempt to create a file may succeed.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound)
}

/// The 22nd field of `/proc/PID/stat`; none for a process that has ended and waits for its parent. The
/// second field is a name in parentheses that may contain anything.
fn start_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    runner: Option<Process>,
    started: Vec<Process>,
}

/// The file of a run that is going on. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Record {
    path: PathBuf,
    run: Run,
}

impl Record {
    /// Writes the file of a new run.
    ///
    /// # Errors
    ///
    /// When the folder of records can not be used.
    pub(crate) fn begin(folder: impl Fn() -> io::Result<PathBuf>) -> io::Result<Self> {
        let runner = Process::find(std::process::id());
        let start = runner.map_or(0, |process| process.start);
        // Number and start time of the runner: unique on this machine until it is started anew.
        let mut attempt = 0_u32;
        loop {
            let name = format!("evenkeel-lab-{}-{start}-{attempt}.json", std::process::id());
            let path = folder()?.join(name);
            let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            match file {
                Ok(_) => {
                    let record = Self { path, run: Run { runner, started: Vec::new() } };
                    record.write()?;
                    return Ok(record);
                }
                // A run that ends this moment takes the empty folder away.
                Err(error) if is_passing(&error) && attempt < ATTEMPTS_MAX => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Adds a process that the run has started.
    ///
    /// # Errors
    ///
    /// When the file can not be written.
    pub(crate) fn add(&mut self, pid: u32) -> io::Result<()> {
        self.run.started.extend(Process::find(pid));
        self.write()
    }

    fn write(&self) -> io::Result<()> {
        fs::write(&self.path, serde_json::to_vec(&self.run)?)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // A file that stays is removed by `clean`; there is nobody to tell here. The folder stays when
        // another run has its record there.
        let _ = fs::remove_file(&self.path);
        let _ = self.path.parent().map(fs::remove_dir);
    }
}

/// The folder of the calling user's records; made when it is not there.
///
/// # Errors
///
/// When it can not be made, or belongs to someone else.
pub(crate) fn folder() -> io::Result<PathBuf> {
    let user = geteuid();
    let named = |variable| std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    let usual = || {
        let base = if user.is_root() { Some(PathBuf::from("/run")) } else { named("XDG_RUNTIME_DIR") };
        base.unwrap_or_else(std::env::temp_dir).join(format!("evenkeel-lab-{}", user.as_raw()))
    };
    let folder = named(FOLDER_VARIABLE).unwrap_or_else(usual);
    match fs::DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(io::Error::new(error.kind(), format!("{}: {error}", folder.display())));
        }
        Ok(()) | Err(_) => {}
    }
    let found = fs::symlink_metadata(&folder)?;
    let is_ours = found.is_dir() && found.uid() == user.as_raw() && found.permissions().mode() & 0o077 == 0;
    if is_ours {
        Ok(folder)
    } else {
        Err(io::Error::other(format!("{} is not a folder that only this user may use", folder.display())))
    }
}

/// What [`clean`](crate::clean) did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cleaned {
    /// Runs whose runner had ended and whose record was removed.
    pub runs: usize,
    /// Processes of those runs that were still there and were killed.
    pub processes: usize,
    /// Runs that are going on and were left alone.
    pub running: usize,
}

/// Ends what is left of runs whose runner has ended.
///
/// # Errors
///
/// When the folder can not be read, or a process can not be killed.
pub(crate) fn clean(folder: &Path) -> io::Result<Cleaned> {
    let mut cleaned = Cleaned::default();
    for entry in fs::read_dir(folder)?.take(RECORDS_MAX) {
        let path = entry?.path();
        let is_record = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
            name.starts_with("evenkeel-lab-")
                && Path::new(name).extension().is_some_and(|extension| extension == "json")
        });
        if !is_record {
            continue;
        }
        // A file that is not whole was being written when its runner was killed: nothing had started yet.
        let run: Run = serde_json::from_slice(&fs::read(&path)?).unwrap_or_default();
        if run.runner.is_some_and(Process::is_alive) {
            cleaned.running += 1;
            continue;
        }
        for process in run.started {
            cleaned.processes += usize::from(process.kill()?);
        }
        fs::remove_file(&path)?;
        cleaned.runs += 1;
    }
    // It stays when something is in it.
    let _ = fs::remove_dir(folder);
    Ok(cleaned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_found_behind_any_name() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20";
        assert_eq!(start_time(&format!("42 (a) b) {fields}")), Some(777));
        assert_eq!(start_time(&format!("42 (x) {}", fields.replacen('S', "Z", 1))), None);
        assert_eq!(start_time("42"), None);
    }

    #[test]
    fn record_of_a_living_runner_is_left_alone_and_that_of_a_dead_one_removed() {
        let folder = std::env::temp_dir().join(format!("evenkeel-record-test-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let record = Record::begin(|| Ok(folder.clone())).unwrap();
        let dead = Run { runner: Some(Process { pid: u32::MAX, start: 1 }), started: Vec::new() };
        fs::write(folder.join("evenkeel-lab-1-1-0.json"), serde_json::to_vec(&dead).unwrap()).unwrap();
        fs::write(folder.join("evenkeel-lab-2-1-0.json"), b"{\"run").unwrap();
        fs::write(folder.join("other.txt"), b"").unwrap();
        let cleaned = clean(&folder).unwrap();
        assert_eq!(cleaned, Cleaned { runs: 2, processes: 0, running: 1 });
        drop(record);
        let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["other.txt"]);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn reused_process_number_is_never_killed() {
        let me = Process::find(std::process::id()).unwrap();
        let earlier = Process { start: me.start - 1, ..me };
        assert!(!earlier.kill().unwrap());
        assert!(me.is_alive());
    }
}
