//! From the files that a scenario names to what its forwarders run by.
//!
//! In: a scenario, the seed, and a loader of components. Out: the equipment of each forwarder, or what is
//! wrong with which file, in the words of whoever found it. The production configuration is taken as it is;
//! only its seed is the run's.

use std::path::Path;

use evenkeel_config::Loaded;
use evenkeel_engine::Guests;
use evenkeel_engine::plan::Plan;

use crate::random::Stream;
use crate::scenario::Scenario;
use crate::world::Equipment;

/// What is wrong with the configuration of a forwarder.
#[derive(Clone, Debug, thiserror::Error)]
#[error("forwarder {forwarder}: {message}")]
pub struct PrepareError {
    /// The forwarder.
    pub forwarder: String,
    /// Every mistake, with file, line and column where there is one; several lines.
    pub message: String,
}

/// Makes components ready; says what is wrong with them in words for the user.
///
/// `evenkeel_plugin_host::load` in fuel mode is what the commands use, so that a component's budget is
/// counted in instructions and a run repeats.
pub type Loader<'a> = dyn FnMut(&Loaded) -> Result<Guests, String> + 'a;

/// Loads the configuration of every forwarder of `scenario`. The seed of each is drawn from `seed` and the forwarder's
/// name, or where its file has a seed, from that: forwarders with the same one choose alike, as in production.
///
/// # Errors
/// When a configuration is not readable or wrong, or the loader refuses.
pub fn prepare(
    scenario: &Scenario,
    seed: u64,
    loader: &mut Loader<'_>,
) -> Result<Vec<Equipment>, PrepareError> {
    let mut supplier = Supplier { scenario, seed, loader, edit: None };
    (0..scenario.forwarders.len()).map(|number| supplier.equipment(number, None)).collect()
}

/// Makes equipment ready while a run goes on: for a forwarder that restarts, or reads another configuration.
pub struct Supplier<'a, 'l> {
    /// The scenario.
    pub scenario: &'a Scenario,
    /// The seed of the run.
    pub seed: u64,
    /// Makes components ready.
    pub loader: &'a mut Loader<'l>,
    /// What is changed of every configuration that is read, before its components are made ready.
    pub edit: Option<&'a Edit>,
}

/// Changes a plan; says in words why it can not.
pub type Edit = dyn Fn(&mut Plan) -> Result<(), String>;

impl std::fmt::Debug for Supplier<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supplier").field("scenario", &self.scenario.name).field("seed", &self.seed).finish()
    }
}

/// Who makes equipment ready while a run goes on.
pub trait Supply {
    /// The equipment of the forwarder with this number, by the given configuration or its own.
    ///
    /// # Errors
    /// When the configuration is not readable or wrong, or the loader refuses.
    fn equipment(&mut self, forwarder: usize, config: Option<&Path>) -> Result<Equipment, PrepareError>;
}

impl Supply for Supplier<'_, '_> {
    fn equipment(&mut self, forwarder: usize, config: Option<&Path>) -> Result<Equipment, PrepareError> {
        let unknown =
            || PrepareError { forwarder: forwarder.to_string(), message: "no such forwarder".to_owned() };
        let forwarder = self.scenario.forwarders.get(forwarder).ok_or_else(unknown)?;
        let refused = |message| PrepareError { forwarder: forwarder.name.clone(), message };
        let loaded = evenkeel_config::load(config.unwrap_or(&forwarder.config))
            .map_err(|diagnostics| refused(diagnostics.render(false)))?;
        // Forwarders of one seed choose alike in production; so they do here, by another seed in each run.
        let name =
            loaded.forwarder.seed.map_or_else(|| forwarder.name.clone(), |seed| format!("seed {seed}"));
        let mut loaded = loaded.with_seed(Stream::new(self.seed, &name, "seed").bits());
        if let Some(edit) = self.edit {
            edit(&mut loaded.plan).map_err(refused)?;
        }
        let guests = (self.loader)(&loaded).map_err(refused)?;
        Ok(Equipment { plan: loaded.plan, guests })
    }
}
