//! From a configuration file to everything that an engine needs: a plan and the components that it names.
//!
//! In: a path and where components come from. Out: a plan with its guests, or every mistake at its place in
//! the file. Takes as long as components take to compile, so never on the data path's thread.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use evenkeel_config::{Diagnostic, Diagnostics, Loaded};
use evenkeel_engine::{Engine, Guests, Instant};
use evenkeel_plugin_host::{Host, LoadError, Mode, Settings};
use serde_json::Value;

/// Where components come from.
#[derive(Clone, Debug)]
pub struct Components {
    /// The components that the binary brings along, by name.
    pub bundled: fn(&str) -> Option<&'static [u8]>,
}

/// A configuration that is ready to run.
#[derive(Debug)]
pub struct Prepared {
    /// What the file says. The seed is set.
    pub loaded: Loaded,
    /// The components of its plan.
    pub guests: Guests,
    /// The seed that the file itself names, if it does.
    pub written_seed: Option<u64>,
}

impl Prepared {
    /// Reads the file again; a component that stays is not compiled again.
    pub(crate) fn again(path: &Path, host: &mut Host, seed: u64) -> Result<Self, Mistakes> {
        let loaded = evenkeel_config::load(path)?;
        let written_seed = loaded.forwarder.seed;
        let loaded = loaded.with_seed(seed);
        let guests = guests_of(&loaded, host)?;
        Ok(Self { loaded, guests, written_seed })
    }
}

/// What is wrong with a configuration.
#[derive(Clone, Debug)]
pub enum Mistakes {
    /// Found in the file itself.
    File(Diagnostics),
    /// Found in what the file names.
    Later(Vec<Diagnostic>),
}

impl Mistakes {
    /// The text for people.
    #[must_use]
    pub fn render(&self, with_colour: bool) -> String {
        match self {
            Self::File(found) => found.render(with_colour),
            Self::Later(found) => {
                found.iter().map(|diagnostic| format!("{}\n\n", diagnostic.render(with_colour))).collect()
            }
        }
    }

    /// The text for programs: one JSON object a line.
    #[must_use]
    pub fn to_json_lines(&self) -> String {
        self.iter().map(|diagnostic| format!("{}\n", diagnostic.to_json())).collect()
    }

    /// Each mistake.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        match self {
            Self::File(found) => found.iter(),
            Self::Later(found) => found.iter(),
        }
    }

    /// One line for each mistake, as `file:line:column: message`, with what to do about it.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line = |diagnostic: &Diagnostic| {
            let place = diagnostic.to_json();
            let number = |key: &str| place.get(key).and_then(Value::as_u64);
            let mut text = diagnostic.file().to_owned();
            for number in [number("line"), number("column")].into_iter().flatten() {
                text.push_str(&format!(":{number}"));
            }
            text.push_str(&format!(": {}", diagnostic.message()));
            if let Some(help) = diagnostic.help_text() {
                text.push_str(&format!("; {help}"));
            }
            text
        };
        self.iter().map(line).collect()
    }
}

impl From<Diagnostics> for Mistakes {
    fn from(found: Diagnostics) -> Self {
        Self::File(found)
    }
}

impl From<Diagnostic> for Mistakes {
    fn from(found: Diagnostic) -> Self {
        Self::Later(vec![found])
    }
}

/// Reads the file at `path` and loads the components that it names. `seed` is given the seed that the file
/// names, if it does, and answers with the one to use.
///
/// # Errors
/// When the file or a component that it names has a mistake.
pub fn prepare(
    path: &Path,
    components: &Components,
    seed: impl FnOnce(Option<u64>) -> u64,
) -> Result<Prepared, Mistakes> {
    prepare_with_host(path, components, seed).map(|(prepared, _)| prepared)
}

/// As [`prepare`], with the host that keeps what it has compiled.
pub(crate) fn prepare_with_host(
    path: &Path,
    components: &Components,
    seed: impl FnOnce(Option<u64>) -> u64,
) -> Result<(Prepared, Host), Mistakes> {
    let loaded = evenkeel_config::load(path)?;
    let written_seed = loaded.forwarder.seed;
    let loaded = loaded.with_seed(seed(written_seed));
    let mut host = host_for(&loaded, components, Mode::Epoch);
    let guests = guests_of(&loaded, &mut host)?;
    Ok((Prepared { loaded, guests, written_seed }, host))
}

/// Makes components ready for one configuration after the other. What it has compiled stays compiled.
#[derive(Debug)]
pub struct GuestLoader {
    components: Components,
    mode: Mode,
    /// By the folder that relative paths start from.
    hosts: BTreeMap<PathBuf, Host>,
}

/// Loads the components that one configuration names; see [`GuestLoader`].
///
/// # Errors
/// With each component that can not be used, at its place in the file.
pub fn load_guests(loaded: &Loaded, components: &Components, mode: Mode) -> Result<Guests, Mistakes> {
    GuestLoader::new(components.clone(), mode).load(loaded)
}

impl GuestLoader {
    /// One that has compiled nothing yet. Budgets are by the clock for a forwarder, by counted instructions for a
    /// simulation.
    #[must_use]
    pub const fn new(components: Components, mode: Mode) -> Self {
        Self { components, mode, hosts: BTreeMap::new() }
    }

    /// Loads the components that a configuration names.
    ///
    /// # Errors
    /// With each component that can not be used, at its place in the file.
    pub fn load(&mut self, loaded: &Loaded) -> Result<Guests, Mistakes> {
        let (components, mode) = (&self.components, self.mode);
        let host = self.hosts.entry(loaded.base_dir().to_owned());
        let host = host.or_insert_with(|| host_for(loaded, components, mode));
        placed(loaded, host.load_beside(&loaded.plan, 0))
    }
}

fn host_for(loaded: &Loaded, components: &Components, mode: Mode) -> Host {
    let base_dir = loaded.base_dir().to_owned();
    Host::new(Settings { mode, base_dir, bundled: components.bundled })
}

fn guests_of(loaded: &Loaded, host: &mut Host) -> Result<Guests, Mistakes> {
    // The data path has one thread, so there is one worker.
    placed(loaded, host.load(&loaded.plan, 0))
}

/// What is wrong with components, at its place in the file.
fn placed(loaded: &Loaded, guests: Result<Guests, Vec<LoadError>>) -> Result<Guests, Mistakes> {
    guests.map_err(|errors| {
        let place = |error: &LoadError| loaded.component_error(&error.name, &error.component, &error.reason);
        Mistakes::Later(errors.iter().map(place).collect())
    })
}

impl Prepared {
    /// An engine that runs by it.
    ///
    /// # Errors
    /// When the engine refuses the plan.
    pub fn into_engine(self, now: Instant) -> Result<(Engine, Loaded), Mistakes> {
        let Self { loaded, guests, .. } = self;
        match Engine::new(loaded.plan.clone(), guests, now) {
            Ok(engine) => Ok((engine, loaded)),
            Err(error) => Err(loaded.refused(&error).into()),
        }
    }
}

/// A seed from the kernel.
///
/// # Errors
/// When the kernel has no random numbers, which happens only early at boot.
pub fn draw_seed() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    let count = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if count < bytes.len() {
        return Err(std::io::Error::other("the kernel gave too few random bytes"));
    }
    Ok(u64::from_ne_bytes(bytes))
}
