//! The forwarder from start to end: what is opened in which order, who asks whom, how it stops.
//!
//! In: a configuration file, signals, clients of the control socket. Out: a data path that runs, and a
//! machine that is set up for it and put back afterwards. No packet passes here.
//!
//! ```text
//! start: signals, interfaces, data path, routes, control socket
//! stop: data path, control socket, routes, interfaces
//!
//! The control socket takes connections only when everything else is ready.
//! ```

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use evenkeel_config::{ForwarderConfig, Io, Loaded, Setup as Who, Subject, scheduler_by_name};
use evenkeel_engine::plan::Layer;
use evenkeel_engine::wire::ethernet::MacAddress;
use evenkeel_engine::{Event, Plan};
use evenkeel_io::{Backend, DeviceError, IoChoice, MonotonicClock};
use evenkeel_plugin_host::Host;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Mutex, mpsc};
use tokio::task::LocalSet;

use crate::agents;
use crate::control::{self, Answer, ControlError, Listener, Reply};
use crate::data_path::{self, DataPath, Ended, Questions, Schedule};
use crate::events::{EventLog, KEPT_MAX};
use crate::links::Links;
use crate::ports;
use crate::prepare::{Components, Mistakes, Prepared, draw_seed, prepare_with_host};
use crate::prober;
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

/// What helps against it.
fn hint(error: &DeviceError) -> &'static str {
    let refused = |error: &std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
    if let DeviceError::NoTun { error } | DeviceError::Interface { error, .. } = error
        && refused(error)
    {
        return "; run as root, or give the binary the right: setcap cap_net_admin+ep evenkeel";
    }
    if let DeviceError::NoPacketSocket { error } = error
        && refused(error)
    {
        return "; run as root, or give the binary the rights: setcap cap_net_admin,cap_net_raw+ep evenkeel";
    }
    if let DeviceError::SmallMtu { .. } = error {
        return "; write mtu = with what it has, or give it more by ip link set mtu";
    }
    if let DeviceError::NotEthernet { .. } = error {
        return "; write the name of another, or kind = \"tun\" for one that is made";
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
    add_next_hops(&mut prepared.loaded)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(system("event loop"))?;
    let tasks = LocalSet::new();
    let result = tasks.block_on(&runtime, serve(options, prepared, host));
    drop(tasks);
    // A reload that still compiles has nothing to say any more.
    runtime.shutdown_background();
    result
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
    let settings = prepared.loaded.forwarder.clone();
    for warning in prepared.loaded.warnings.iter() {
        tracing::warn!("{}", Mistakes::from(warning.clone()).lines().join(" "));
    }

    Listener::check(&settings.control)?;
    let mut setup = Setup::open().await?;
    let written = prepared.loaded.plan.clone();
    let started = start(prepared, &settings, &mut setup).await;
    let Started { listener, data_path, ended, incoming, plan, macs } = match started {
        Ok(started) => started,
        Err(error) => {
            setup.revert(&written).await;
            return Err(error);
        }
    };
    let links = watch_links(&plan);

    let start = Instant::now();
    let forwarder = Rc::new(Forwarder {
        options,
        settings,
        start,
        plan: RefCell::new(plan),
        macs,
        reloading: Mutex::new(()),
        setup: Mutex::new(setup),
        data_path,
        host: Arc::new(std::sync::Mutex::new(host)),
        events: RefCell::new(EventLog::new(start)),
    });
    let answerer = Rc::clone(&forwarder);
    let answer = Rc::new(move |line: String| -> Answer {
        let forwarder = Rc::clone(&answerer);
        Box::pin(async move { forwarder.reply(line).await })
    });
    let control = forwarder.settings.control.display();
    tracing::info!(config = %forwarder.options.config.display(), control = %control, "forwarding");
    let result = tokio::select! {
        result = forwarder.watch(signals, incoming, ended, links) => result,
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
    /// What is in force.
    plan: Plan,
    macs: Vec<Option<MacAddress>>,
}

/// Opens everything, in the order in which it is needed. What fails leaves the machine to be reverted.
async fn start(
    mut prepared: Prepared,
    settings: &ForwarderConfig,
    setup: &mut Setup,
) -> Result<Started, RunError> {
    if ports::has_tunnel(&prepared.loaded.plan) {
        tracing::info!("a director has the mode tunnel: packets are taken in one by one, without offloads");
    }
    let open = ports::open(&mut prepared.loaded.plan, settings.setup)?;
    let (plan, macs) = (prepared.loaded.plan.clone(), ports::macs(&open));
    let (engine, _) = prepared.into_engine(MonotonicClock.now())?;
    let (events, incoming) = mpsc::channel(KEPT_MAX);
    let (probing, probes) = mpsc::channel(prober::WAITING_MAX);
    let (checking, checks) = mpsc::channel(agents::WAITING_MAX);
    let asking = Questions { probes: probing, checks: checking };
    let (data_path, ended) = data_path::start(engine, open, choice(settings.io), events, asking)?;
    tokio::task::spawn_local(prober::run(probes, data_path.replies(), settings.probe_port));
    tokio::task::spawn_local(agents::run(checks, data_path.replies()));
    announce(data_path.backend());
    match settings.setup {
        Who::Auto => {
            setup.add(&plan).await?;
        }
        Who::Manual => {
            for problem in setup.missing(&plan).await? {
                tracing::warn!("{problem}");
            }
        }
    }
    // What the engine said at its own start may have met a link that was down.
    data_path.announce();
    let listener = Listener::open(&settings.control)?;
    Ok(Started { listener, data_path, ended, incoming, plan, macs })
}

/// Watches the links of the Ethernet interfaces of `plan`, if there are any.
fn watch_links(plan: &Plan) -> Option<Links> {
    let on_ethernet = plan.interfaces.iter().filter(|one| matches!(one.layer, Layer::Ethernet(_)));
    let names: Vec<String> = on_ethernet.map(|one| one.name.clone()).collect();
    if names.is_empty() {
        return None;
    }
    match Links::watch(names.into_iter()) {
        Ok(links) => Some(links),
        Err(error) => {
            tracing::warn!(%error, "links are not watched: neighbours are not told when one comes up again");
            None
        }
    }
}

/// The name of the next interface whose link comes up; never without a watch.
async fn next_up(links: &mut Option<Links>) -> String {
    match links {
        Some(links) => links.next_up().await,
        None => std::future::pending().await,
    }
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
    /// The MAC addresses of its interfaces.
    macs: Vec<Option<MacAddress>>,
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
        mut links: Option<Links>,
    ) -> Result<(), RunError> {
        loop {
            tokio::select! {
                Some(event) = incoming.recv() => self.events.borrow_mut().push(&event, Instant::now()),
                result = &mut ended => return failure(result),
                name = next_up(&mut links) => {
                    tracing::info!(interface = name, "the link is up; neighbours are told of our addresses");
                    self.data_path.announce();
                }
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

    /// Answers one line of a client, with one value or, of a trace, with many.
    async fn reply(self: &Rc<Self>, line: String) -> Result<Reply, String> {
        if line.split_whitespace().next() != Some(control::TRACE) {
            return self.answer(line).await.map(Reply::One);
        }
        let wish = control::wish(&line, &self.plan.borrow())?;
        let traced = self.data_path.trace(wish).await?;
        let forwarder = Rc::clone(self);
        // The first value says that it has begun, and what o'clock it is by both clocks.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        let unix_ns = u64::try_from(unix).unwrap_or(u64::MAX);
        let begun = json!({ "begun": { "at_ns": MonotonicClock.now().as_nanos(), "unix_ns": unix_ns } });
        let begun = futures_util::stream::iter([begun]);
        let told = futures_util::stream::unfold(traced, move |mut traced| {
            let forwarder = Rc::clone(&forwarder);
            async move {
                let next = traced.recv().await?;
                let shown = control::shown(&next, &forwarder.plan.borrow());
                Some((shown, traced))
            }
        });
        Ok(Reply::Many(Box::pin(begun.chain(told))))
    }

    /// Answers one line of a client.
    async fn answer(&self, line: String) -> Result<Value, String> {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("reload"), None) => self.reload().await,
            (Some("director"), Some(director)) => {
                let rest: Vec<&str> = words.collect();
                match rest.as_slice() {
                    ["scheduler", component] if evenkeel_config::is_component(component) => {
                        self.schedule(director, component).await
                    }
                    _ => self.data_path.execute(line).await,
                }
            }
            (Some("events"), None) => Ok(json!({ "events": self.events.borrow().list() })),
            (Some("stats"), None) => {
                let mut value = self.data_path.execute(line).await?;
                control::insert(&mut value, "io", backend_name(self.data_path.backend()));
                control::insert(&mut value, "uptime_seconds", self.start.elapsed().as_secs());
                if let Some(device) = value.get_mut("device") {
                    let at_sockets = device.get("queue_overflows").and_then(Value::as_u64).unwrap_or(0);
                    control::insert(
                        device,
                        "kernel_dropped",
                        self.dropped_at_tuns().saturating_add(at_sockets),
                    );
                }
                Ok(value)
            }
            (Some("explain"), Some(_)) => {
                let mut value = self.data_path.execute(line).await?;
                control::seal(&mut value, &self.plan.borrow());
                Ok(value)
            }
            _ => self.data_path.execute(line).await,
        }
    }

    /// Packets that found the queue of a TUN towards the forwarder full, by the kernel's count.
    fn dropped_at_tuns(&self) -> u64 {
        let plan = self.plan.borrow();
        let tuns = plan.interfaces.iter().filter(|interface| matches!(interface.layer, Layer::Ip));
        let counts = tuns.map(|interface| {
            // An interface that is gone has ended the data path; its count no longer matters.
            evenkeel_io::kernel_tx_dropped(&interface.name).unwrap_or(0)
        });
        counts.fold(0, u64::saturating_add)
    }

    /// Lets a component schedule for a director until the next reload. It is compiled and configured beside the data
    /// path; flows keep their servers. A relative path starts at the folder of the configuration file.
    async fn schedule(&self, director: &str, component: &str) -> Result<Value, String> {
        let _one_at_a_time = self.reloading.lock().await;
        let mut plan = self.plan.borrow().clone();
        let Some(wanted) = plan.directors.iter_mut().find(|wanted| wanted.name == director) else {
            return Err(format!("no director {director}"));
        };
        let replacement = scheduler_by_name(component, &wanted.scheduler)?;
        wanted.scheduler = replacement.clone();
        wanted.shadow = None;
        // Nobody else's components begin anew.
        plan.directors.retain(|wanted| wanted.name == director);
        plan.policies.clear();
        plan.outflow_guests.clear();
        let host = Arc::clone(&self.host);
        let work = move || {
            let mut host = host.lock().unwrap_or_else(PoisonError::into_inner);
            host.load_beside(&plan, 0)
        };
        let loaded = tokio::task::spawn_blocking(work).await.map_err(|error| format!("a bug: {error}"))?;
        let mut guests =
            loaded.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
        let Some(scheduler) = guests.schedulers.remove(director) else {
            return Err(format!("{component} is not a scheduler"));
        };
        let schedule = Schedule { director: director.to_owned(), plan: replacement, scheduler };
        self.data_path.schedule(schedule).await?;
        tracing::info!(director, component, "another scheduler");
        Ok(json!({ "director": director, "scheduler": component }))
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
        add_next_hops(&mut loaded).map_err(|mistakes| mistakes.lines().join("\n"))?;
        ports::fill_in_macs(&mut loaded.plan, &self.macs);
        let mut notes = self.notes(&loaded, written_seed);
        if let Some(difference) = ports::difference(&self.plan.borrow(), &loaded.plan) {
            return Err(difference);
        }
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

    /// What in the file will be true only after a restart.
    fn notes(&self, loaded: &Loaded, written_seed: Option<u64>) -> Vec<String> {
        let (old, new) = (&self.settings, &loaded.forwarder);
        let changed = [
            ("setup", old.setup != new.setup),
            ("control", old.control != new.control),
            ("io", old.io != new.io),
            ("probe_port", old.probe_port != new.probe_port),
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
