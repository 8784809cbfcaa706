//! The forwarder from start to end: what is opened in which order, who asks whom, how it stops.
//!
//! In: a configuration file, signals, clients of the control socket. Out: a data path that runs, and a
//! machine that is set up for it and put back afterwards. No packet passes here.
//!
//! ```text
//! start: signals, TUN, data path, routes, control socket      stop: data path, control socket, routes, TUN
//!
//! The control socket takes connections only when everything else is ready.
//! ```

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use evenkeel_config::{ForwarderConfig, Io, Loaded, Setup as Who, Subject};
use evenkeel_engine::plan::{Layer, Mode};
use evenkeel_engine::{Event, Plan};
use evenkeel_io::{Backend, DeviceError, IoChoice, MonotonicClock, Tun, TunOptions};
use evenkeel_plugin_host::Host;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Mutex, mpsc};
use tokio::task::LocalSet;

use crate::control::{self, Answer, ControlError, Listener};
use crate::data_path::{self, DataPath, Ended};
use crate::events::{EventLog, KEPT_MAX};
use crate::prepare::{Components, Mistakes, Prepared, draw_seed, prepare_with_host};
use crate::setup::{self, Setup, SetupError};

/// How long the data path may take to forward what has arrived when it is told to stop: some thousand packets
/// take milliseconds.
const STOP_MAX: Duration = Duration::from_secs(5);

/// What a forwarder is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file; read again at each reload.
    pub config: PathBuf,
    /// Where components come from.
    pub components: Components,
}

/// Why a forwarder did not start, or why it ended without being asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The configuration has mistakes.
    #[error("{}", .0.lines().join("\n"))]
    Configuration(Mistakes),
    /// An interface can not be opened or is gone.
    #[error("{error}{}", hint(.error))]
    Device {
        /// What went wrong.
        #[from]
        error: DeviceError,
    },
    /// The machine can not be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The control socket can not be opened.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The system refuses something that every program gets.
    #[error("{what}: {error}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// What the system said.
        error: std::io::Error,
    },
    /// The thread of the data path ended by a bug.
    #[error("the data path has ended by a bug; the lines above say where")]
    DataPath,
}

impl From<Mistakes> for RunError {
    fn from(mistakes: Mistakes) -> Self {
        Self::Configuration(mistakes)
    }
}

/// What helps against missing rights.
fn hint(error: &DeviceError) -> &'static str {
    let refused = |error: &std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
    if let DeviceError::NoTun { error } | DeviceError::Interface { error, .. } = error
        && refused(error)
    {
        return "; run as root, or give the binary the right: setcap cap_net_admin+ep evenkeel";
    }
    ""
}

/// Runs a forwarder until SIGTERM or SIGINT; SIGHUP reads the configuration again.
///
/// # Errors
/// When it can not start, or when its device or data path fails. The machine is put back in each case.
pub fn run(options: Options) -> Result<(), RunError> {
    let system = |what| move |error| RunError::System { what, error };
    let seed = draw_seed().map_err(system("random numbers"))?;
    let seed = |written: Option<u64>| written.unwrap_or(seed);
    let (mut prepared, host) = prepare_with_host(&options.config, &options.components, seed)?;
    fit_interfaces(&mut prepared.loaded)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(system("event loop"))?;
    let tasks = LocalSet::new();
    let result = tasks.block_on(&runtime, serve(options, prepared, host));
    drop(tasks);
    // A reload that still compiles has nothing to say any more.
    runtime.shutdown_background();
    result
}

/// Refuses interfaces that only the simulator has, and adds those that gateway mode needs.
fn fit_interfaces(loaded: &mut Loaded) -> Result<(), Mistakes> {
    let mut mistakes = Vec::new();
    for interface in &loaded.plan.interfaces {
        if let Layer::Ethernet(_) = interface.layer {
            let message = format!("interface {}: the forwarder opens TUN interfaces only", interface.name);
            let help = "write kind = \"tun\"; kind = \"ethernet\" is for the simulator";
            mistakes.push(loaded.diagnostic_at(Subject::Interface(&interface.name, "kind"), &message, help));
        }
    }
    if !mistakes.is_empty() {
        return Err(Mistakes::Later(mistakes));
    }
    add_next_hops(loaded)
}

/// Adds the interfaces by which a TUN reaches real servers in gateway mode.
///
/// # Errors
/// When there are more than a forwarder opens, or a name would be too long.
pub fn add_next_hops(loaded: &mut Loaded) -> Result<(), Mistakes> {
    match setup::spread(&loaded.plan) {
        Ok(plan) => loaded.plan = plan,
        Err(reason) => {
            let first = loaded.plan.interfaces.first().map_or("", |interface| interface.name.as_str());
            let help = "write mode = \"tunnel\" where the real servers can take packets out of tunnels";
            let subject = Subject::Interface(first, "name");
            return Err(Mistakes::Later(vec![loaded.diagnostic_at(subject, &reason, help)]));
        }
    }
    Ok(())
}

/// Whether packets of `plan` may be wrapped, which super-packets can not be.
fn has_tunnel(plan: &Plan) -> bool {
    plan.directors.iter().any(|director| matches!(director.mode, Mode::Tunnel { .. }))
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn open() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

async fn serve(options: Options, prepared: Prepared, host: Host) -> Result<(), RunError> {
    let signals = Signals::open().map_err(|error| RunError::System { what: "signals", error })?;
    let Prepared { loaded: Loaded { plan, forwarder: settings, .. }, .. } = &prepared;
    let (plan, settings) = (plan.clone(), settings.clone());
    for warning in prepared.loaded.warnings.iter() {
        tracing::warn!("{}", Mistakes::from(warning.clone()).lines().join(" "));
    }

    Listener::check(&settings.control)?;
    let mut setup = Setup::open().await?;
    let started = start(prepared, &settings, &plan, &mut setup).await;
    let Started { listener, data_path, ended, incoming } = match started {
        Ok(started) => started,
        Err(error) => {
            setup.revert(&plan).await;
            return Err(error);
        }
    };

    let start = Instant::now();
    let forwarder = Rc::new(Forwarder {
        options,
        settings,
        start,
        plan: RefCell::new(plan),
        reloading: Mutex::new(()),
        setup: Mutex::new(setup),
        data_path,
        host: Arc::new(std::sync::Mutex::new(host)),
        events: RefCell::new(EventLog::new(start)),
    });
    let answerer = Rc::clone(&forwarder);
    let answer = Rc::new(move |line: String| -> Answer {
        let forwarder = Rc::clone(&answerer);
        Box::pin(async move { forwarder.answer(line).await })
    });
    let control = forwarder.settings.control.display();
    tracing::info!(config = %forwarder.options.config.display(), control = %control, "forwarding");
    let result = tokio::select! {
        result = forwarder.watch(signals, incoming, ended) => result,
        () = listener.serve(answer) => Ok(()),
    };
    // No new client comes any more. A reload that changes the machine is waited for; a later one finds this
    // lock taken until the end.
    drop(listener);
    let mut setup = forwarder.setup.lock().await;
    let plan = forwarder.plan.borrow().clone();
    setup.revert(&plan).await;
    tracing::info!("stopped");
    result
}

/// What is there once a forwarder forwards.
struct Started {
    listener: Listener,
    data_path: DataPath,
    ended: Ended,
    incoming: mpsc::Receiver<Event>,
}

/// Opens everything, in the order in which it is needed. What fails leaves the machine to be reverted.
async fn start(
    prepared: Prepared,
    settings: &ForwarderConfig,
    plan: &Plan,
    setup: &mut Setup,
) -> Result<Started, RunError> {
    if has_tunnel(plan) {
        tracing::info!("a director has the mode tunnel: packets are taken in one by one, without offloads");
    }
    let tuns = open_tuns(plan, settings.setup)?;
    let (engine, _) = prepared.into_engine(MonotonicClock.now())?;
    let (events, incoming) = mpsc::channel(KEPT_MAX);
    let (data_path, ended) = data_path::start(engine, tuns, choice(settings.io), events)?;
    announce(data_path.backend());
    match settings.setup {
        Who::Auto => {
            setup.add(plan).await?;
        }
        Who::Manual => {
            for problem in setup.missing(plan).await? {
                tracing::warn!("{problem}");
            }
        }
    }
    let listener = Listener::open(&settings.control)?;
    Ok(Started { listener, data_path, ended, incoming })
}

/// Opens the interfaces of the plan, in its order. Where packets may be wrapped they are taken in whole and with their
/// checksums: a device cuts super-packets by their own headers, not by those inside.
fn open_tuns(plan: &Plan, who: Who) -> Result<Vec<Tun>, DeviceError> {
    let open = |interface: &evenkeel_engine::plan::InterfacePlan| {
        let mut options = TunOptions::new(&interface.name);
        options.has_offloads = !has_tunnel(plan);
        options.mtu_bytes = match who {
            Who::Auto => Some(interface.mtu_bytes),
            Who::Manual => None,
        };
        Tun::open(&options)
    };
    plan.interfaces.iter().map(open).collect()
}

const fn choice(io: Io) -> IoChoice {
    match io {
        Io::Auto => IoChoice::Auto,
        Io::IoUring => IoChoice::IoUring,
        Io::Epoll => IoChoice::Epoll,
    }
}

/// The word that `stats` shows.
const fn backend_name(backend: &Backend) -> &'static str {
    match backend {
        Backend::IoUring => "io_uring",
        Backend::Epoll { .. } => "epoll",
    }
}

fn announce(backend: &Backend) {
    match backend {
        Backend::IoUring | Backend::Epoll { refusal: None } => tracing::info!("packets by {backend}"),
        Backend::Epoll { refusal: Some(_) } => tracing::warn!("packets by {backend}"),
    }
}

/// What the control plane shares among its tasks, all of them on one thread.
struct Forwarder {
    options: Options,
    /// As it was started; what of it a reload cannot change is told then.
    settings: ForwarderConfig,
    start: Instant,
    /// The plan in force.
    plan: RefCell<Plan>,
    /// Held during a whole reload, so that there is one at a time.
    reloading: Mutex<()>,
    /// Held while the machine is changed.
    setup: Mutex<Setup>,
    data_path: DataPath,
    /// Used only on the thread of a reload, of which there is one at a time.
    host: Arc<std::sync::Mutex<Host>>,
    events: RefCell<EventLog>,
}

impl Forwarder {
    /// Waits for the end: a signal that asks for it, or a data path that can not go on.
    async fn watch(
        self: &Rc<Self>,
        mut signals: Signals,
        mut incoming: mpsc::Receiver<Event>,
        mut ended: Ended,
    ) -> Result<(), RunError> {
        loop {
            tokio::select! {
                Some(event) = incoming.recv() => self.events.borrow_mut().push(&event, Instant::now()),
                result = &mut ended => return failure(result),
                _ = signals.hangup.recv() => {
                    let forwarder = Rc::clone(self);
                    // Answers in the log; a reload takes as long as a compiler, and events go on.
                    tokio::task::spawn_local(async move { forwarder.reload().await });
                }
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
            }
        }
        tracing::info!("stopping");
        self.data_path.stop();
        match tokio::time::timeout(STOP_MAX, ended).await {
            Ok(result) => failure(result),
            Err(_) => {
                tracing::error!("the data path does not stop; it is left behind");
                Ok(())
            }
        }
    }

    /// Answers one line of a client.
    async fn answer(&self, line: String) -> Result<Value, String> {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("reload"), None) => self.reload().await,
            (Some("events"), None) => Ok(json!({ "events": self.events.borrow().list() })),
            (Some("stats"), None) => {
                let mut value = self.data_path.execute(line).await?;
                control::insert(&mut value, "io", backend_name(self.data_path.backend()));
                control::insert(&mut value, "uptime_seconds", self.start.elapsed().as_secs());
                if let Some(device) = value.get_mut("device") {
                    control::insert(device, "kernel_dropped", self.kernel_dropped());
                }
                Ok(value)
            }
            _ => self.data_path.execute(line).await,
        }
    }

    /// Packets that found the queue towards the forwarder full, by the kernel's count.
    fn kernel_dropped(&self) -> u64 {
        let plan = self.plan.borrow();
        let counts = plan.interfaces.iter().map(|interface| {
            // An interface that is gone has ended the data path; its count no longer matters.
            evenkeel_io::kernel_tx_dropped(&interface.name).unwrap_or(0)
        });
        counts.fold(0, u64::saturating_add)
    }

    /// Reads the configuration again and puts it into force, or leaves everything as it is and says why.
    async fn reload(&self) -> Result<Value, String> {
        let _one_at_a_time = self.reloading.lock().await;
        let result = self.reload_now().await;
        match &result {
            Ok(_) => tracing::info!(config = %self.options.config.display(), "reloaded"),
            Err(reason) => tracing::error!(%reason, "not reloaded; the old plan stays in force"),
        }
        result
    }

    async fn reload_now(&self) -> Result<Value, String> {
        let (path, host) = (self.options.config.clone(), Arc::clone(&self.host));
        // Another seed would hash the packets of known flows to other places.
        let seed = self.settings.seed.unwrap_or(0);
        let work = move || {
            let mut host = host.lock().unwrap_or_else(PoisonError::into_inner);
            Prepared::again(&path, &mut host, seed)
        };
        let prepared = tokio::task::spawn_blocking(work).await.map_err(|error| format!("a bug: {error}"))?;
        let Prepared { mut loaded, guests, written_seed } =
            prepared.map_err(|mistakes| mistakes.lines().join("\n"))?;
        fit_interfaces(&mut loaded).map_err(|mistakes| mistakes.lines().join("\n"))?;
        let mut notes = self.notes(&loaded, written_seed);
        self.check_unchanged(&loaded)?;
        notes.extend(loaded.warnings.iter().flat_map(|warning| Mistakes::from(warning.clone()).lines()));

        let plan = loaded.plan;
        let mut setup = self.setup.lock().await;
        let mark = match self.settings.setup {
            Who::Auto => Some(setup.add(&plan).await.map_err(|error| error.to_string())?),
            Who::Manual => {
                notes.extend(setup.missing(&plan).await.map_err(|error| error.to_string())?);
                None
            }
        };
        let applied = self.data_path.apply(plan.clone(), guests).await;
        let generation = match (applied, mark) {
            (Ok(generation), Some(_)) => {
                setup.remove_all_but(&plan).await;
                generation
            }
            (Ok(generation), None) => generation,
            (Err(reason), Some(mark)) => {
                setup.take_back(mark).await;
                return Err(reason);
            }
            (Err(reason), None) => return Err(reason),
        };
        self.plan.replace(plan);
        Ok(json!({ "generation": generation, "notes": notes }))
    }

    /// What a reload can not change: the device is open already.
    fn check_unchanged(&self, loaded: &Loaded) -> Result<(), String> {
        let names = |plan: &Plan| -> Vec<String> {
            plan.interfaces.iter().map(|interface| interface.name.clone()).collect()
        };
        let (old, new) = (names(&self.plan.borrow()), names(&loaded.plan));
        if old == new && has_tunnel(&loaded.plan) && !has_tunnel(&self.plan.borrow()) {
            return Err(
                "the first director in the mode tunnel needs interfaces without offloads; restart the \
                        forwarder for that"
                    .to_owned(),
            );
        }
        if old == new {
            return Ok(());
        }
        let (old, new) = (old.join(", "), new.join(", "));
        Err(format!("the interfaces change from {old} to {new}; restart the forwarder for that"))
    }

    /// What in the file will be true only after a restart.
    fn notes(&self, loaded: &Loaded, written_seed: Option<u64>) -> Vec<String> {
        let (old, new) = (&self.settings, &loaded.forwarder);
        let changed = [
            ("setup", old.setup != new.setup),
            ("control", old.control != new.control),
            ("io", old.io != new.io),
            ("seed", written_seed.is_some() && old.seed != written_seed),
        ];
        let note = |(key, _): &(&str, bool)| format!("forwarder.{key} changes at the next start");
        changed.iter().filter(|(_, is_changed)| *is_changed).map(note).collect()
    }
}

fn failure(
    result: Result<Result<(), DeviceError>, tokio::sync::oneshot::error::RecvError>,
) -> Result<(), RunError> {
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(RunError::DataPath),
    }
}

/// The configuration file that is used when none is named: in the current directory, else of the system.
#[must_use]
pub fn default_config() -> PathBuf {
    let here = Path::new("evenkeel.toml");
    if here.exists() { here.to_owned() } else { PathBuf::from("/etc/evenkeel/evenkeel.toml") }
}
