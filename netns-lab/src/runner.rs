//! The side of a run that stays outside: starts the conductor, passes on what it says, and sees to it that
//! nothing is left whatever happens.
//!
//! In: a [`LabPlan`]. Out: [`Findings`]. A signal, an error or the end of this process ends the conductor,
//! and with it everything inside; the kernel does that even when this process is killed.

use std::io;
use std::path::Path;
use std::process::{Command as StdCommand, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::BufReader;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use crate::orders::{Findings, LabPlan, Note, hear, say};
use crate::record::{self, Process, Record};
use crate::{CHILD, LabError, Missing, Progress};

/// How long the conductor may take to end when it is told to.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Pause between two looks whether the head has ended.
const STOP_PAUSE: Duration = Duration::from_millis(2);

/// Runs the plan and says on the way what is being done.
///
/// # Errors
///
/// When the conductor can not be started, fails, or a signal comes.
pub(crate) fn run(plan: &LabPlan, progress: &mut dyn FnMut(Progress)) -> Result<Findings, LabError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut record = Record::begin(record::folder)?;
        let mut conductor = Conductor::start(&plan.program)?;
        record.add(conductor.child.id().unwrap_or(0))?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let result = tokio::select! {
            result = conductor.follow(plan, &mut record, progress) => result,
            _ = interrupt.recv() => Err(LabError::Interrupted("SIGINT")),
            _ = terminate.recv() => Err(LabError::Interrupted("SIGTERM")),
        };
        let status = conductor.end().await?;
        match result {
            // The end of its output without a word says less than how it ended.
            Err(LabError::System(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(LabError::Failed(format!("the lab's first process ended by itself ({status})")))
            }
            other => other,
        }
    })
}

/// The process that enters the namespaces, and the pipes through it to the head inside.
#[derive(Debug)]
struct Conductor {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// The head of the process namespace.
    head: Option<(Pid, Process)>,
}

impl Conductor {
    fn start(program: &Path) -> io::Result<Self> {
        let mut child = Command::new(program)
            .args([CHILD, "enter", &std::process::id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C on a terminal reaches this process alone, which then ends the others in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.display())))?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { child, input, output: BufReader::new(output), head: None })
    }

    /// Hands over the plan and listens until the run has ended.
    async fn follow(
        &mut self,
        plan: &LabPlan,
        record: &mut Record,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Findings, LabError> {
        loop {
            let note = hear::<Note>(&mut self.output).await?;
            match note.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))? {
                Note::Inside(pid) => {
                    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
                    self.head = number.zip(Process::find(pid));
                    record.add(pid)?;
                    if let Some(input) = &mut self.input {
                        say(input, plan).await?;
                    }
                }
                Note::Stage(stage) => progress(Progress::Stage(stage)),
                Note::Progress { done, total } => progress(Progress::Flows { done, total }),
                Note::Finished(findings) => return Ok(*findings),
                Note::Failed(reason) => return Err(LabError::Failed(reason)),
            }
        }
    }

    /// Ends everything inside and waits until it is gone.
    async fn end(&mut self) -> io::Result<ExitStatus> {
        self.input = None;
        let ended = timeout(STOP_LIMIT, self.child.wait()).await;
        if let Some((pid, head)) = self.head {
            // When the process before it was killed, the head may still be ending: with it all inside.
            if ended.is_err() && head.is_alive() {
                let _ = kill_process(pid, Signal::KILL);
            }
            let until = Instant::now() + STOP_LIMIT;
            while head.is_alive() && Instant::now() < until {
                sleep(STOP_PAUSE).await;
            }
        }
        if let Ok(status) = ended {
            return status;
        }
        // With the head gone it ends by itself; killing it is for the case that the head was never made.
        if let Ok(status) = timeout(STOP_LIMIT, self.child.wait()).await {
            return status;
        }
        self.child.kill().await?;
        self.child.wait().await
    }
}

/// Asks a child to try what a lab needs. Empty when nothing is missing.
///
/// # Errors
///
/// When the child can not be started or does not answer.
pub(crate) fn probe(program: &Path) -> io::Result<Vec<Missing>> {
    let output = StdCommand::new(program).args([CHILD, "probe"]).stdin(Stdio::null()).output()?;
    serde_json::from_slice(&output.stdout).map_err(|error| {
        let said = String::from_utf8_lossy(&output.stderr);
        io::Error::other(format!("{} {CHILD} probe: {error} {said}", program.display()))
    })
}
