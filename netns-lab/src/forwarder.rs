//! The real forwarder inside its host: started, asked, stopped.
//!
//! In: the binary and its production configuration. Out: what its control socket says, and how it ended.
//! Never reads or changes the configuration.

use std::collections::VecDeque;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::orders::ForwardOrder;

/// How long the start may take: components are compiled then, on a debug build in seconds.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Pause between two looks for the control socket.
const START_PAUSE: Duration = Duration::from_millis(20);

/// How long one answer of the control socket may take.
const STATS_LIMIT: Duration = Duration::from_secs(10);

/// How long the stop after SIGTERM may take before the process is killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Last lines of its output that are kept for an error message.
const LINES_MAX: usize = 30;

/// Longest part of a line that is kept.
const LINE_CHARS_MAX: usize = 400;

type Lines = Arc<Mutex<VecDeque<String>>>;

/// A running forwarder. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Forwarder {
    order: ForwardOrder,
    child: Child,
    lines: Lines,
}

impl Forwarder {
    /// Starts it and waits until its control socket takes connections.
    ///
    /// # Errors
    ///
    /// When it can not be started, ends by itself, or does not answer in time; with its last lines.
    pub(crate) async fn start(order: ForwardOrder) -> io::Result<Self> {
        let mut child = Command::new(&order.program)
            .arg("run")
            .arg("--config")
            .arg(&order.config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", order.program.display())))?;
        let lines = Lines::default();
        keep_lines(child.stdout.take(), &lines);
        keep_lines(child.stderr.take(), &lines);
        let mut forwarder = Self { order, child, lines };
        forwarder.wait_until_up().await?;
        Ok(forwarder)
    }

    async fn wait_until_up(&mut self) -> io::Result<()> {
        let until = Instant::now() + START_LIMIT;
        while UnixStream::connect(&self.order.control).await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.explain(&format!("the forwarder ended at its start ({status})")).await);
            }
            if Instant::now() > until {
                let socket = self.order.control.display();
                return Err(self.explain(&format!("the forwarder does not answer on {socket}")).await);
            }
            sleep(START_PAUSE).await;
        }
        Ok(())
    }

    /// What `evenkeel ctl stats --json` says.
    ///
    /// # Errors
    ///
    /// When the forwarder does not answer, or not in JSON.
    pub(crate) async fn stats(&self) -> io::Result<serde_json::Value> {
        let said = self.ctl(&["stats".to_owned()]).await?;
        serde_json::from_slice(&said).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("evenkeel ctl stats: {error}"))
        })
    }

    /// Tells the forwarder something, as `evenkeel ctl` does.
    ///
    /// # Errors
    ///
    /// When the forwarder does not answer, or refuses.
    pub(crate) async fn control(&self, words: &[String]) -> io::Result<()> {
        self.ctl(words).await.map(|_| ())
    }

    async fn ctl(&self, words: &[String]) -> io::Result<Vec<u8>> {
        let command = Command::new(&self.order.program)
            .args(["ctl", "--json", "--socket"])
            .arg(&self.order.control)
            .args(words)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = timeout(STATS_LIMIT, command).await.map_err(|_| io::ErrorKind::TimedOut)??;
        if !output.status.success() {
            let (said, words) = (String::from_utf8_lossy(&output.stderr), words.join(" "));
            return Err(self.explain(&format!("evenkeel ctl {words} ({}): {said}", output.status)).await);
        }
        Ok(output.stdout)
    }

    /// Takes its power away.
    ///
    /// # Errors
    ///
    /// When the system can not end it.
    pub(crate) async fn kill(mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// Stops it with SIGTERM. Its exit code; `None` when it had to be killed.
    ///
    /// # Errors
    ///
    /// When the system can not say how it ended.
    pub(crate) async fn stop(mut self) -> io::Result<Option<i32>> {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM)?;
        }
        if let Ok(status) = timeout(STOP_LIMIT, self.child.wait()).await {
            return Ok(status?.code());
        }
        self.child.kill().await?;
        Ok(None)
    }

    /// The error, followed by what the forwarder said last.
    async fn explain(&self, what: &str) -> io::Error {
        // Its last words may still be in the pipe: one more turn of the readers' loop takes them in.
        sleep(START_PAUSE).await;
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let said = lines.iter().fold(String::new(), |text, line| text + "\n    " + line);
        io::Error::other(format!("{what}{said}"))
    }
}

fn keep_lines(output: Option<impl AsyncRead + Send + Unpin + 'static>, lines: &Lines) {
    let Some(output) = output else { return };
    let lines = Arc::clone(lines);
    tokio::spawn(async move {
        let mut reader = BufReader::new(output);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line).await, Ok(1..)) {
            let text: String =
                String::from_utf8_lossy(&line).trim_end().chars().take(LINE_CHARS_MAX).collect();
            line.clear();
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(text);
        }
    });
}

/// Gives the control socket a directory that belongs to this run alone: when its path lies under `/run`,
/// an empty file system is laid over `/run`, seen only by this process and its children. Elsewhere the
/// directory must be there.
///
/// # Errors
///
/// When the system refuses the mount or the directory.
pub(crate) fn prepare_control(order: &ForwardOrder) -> io::Result<()> {
    let control = &order.control;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let Some(directory) = control.parent() else { return Ok(()) };
    if covered(control).is_some() {
        if let Some(hidden) = [&order.config, &order.program].into_iter().find(|path| covered(path).is_some())
        {
            let what = "lies below /run, which is the lab's own while a forwarder runs; move it elsewhere";
            return Err(io::Error::other(format!("{} {what}", hidden.display())));
        }
        mount(
            "evenkeel-lab",
            "/run",
            "tmpfs",
            MountFlags::NODEV | MountFlags::NOSUID,
            c"mode=0755,size=16m",
        )?;
        std::fs::create_dir_all(directory)?;
    }
    Ok(())
}

/// The path below `/run`, when it lies there.
fn covered(path: &Path) -> Option<PathBuf> {
    let rest = path.strip_prefix("/run").ok()?;
    let is_inside = rest.components().all(|part| matches!(part, Component::Normal(_)));
    is_inside.then(|| rest.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_below_run_are_covered() {
        let rest = covered(Path::new("/run/evenkeel/evenkeel.sock"));
        assert_eq!(rest, Some(PathBuf::from("evenkeel/evenkeel.sock")));
        assert_eq!(covered(Path::new("/run/../etc/x")), None);
        assert_eq!(covered(Path::new("/home/user/x")), None);
    }
}
