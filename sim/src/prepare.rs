//! From the files that a scenario names to what its forwarders run by.
//!
//! In: a scenario, the seed, and a loader of components. Out: the equipment of each forwarder, or what is
//! wrong with which file, in the words of whoever found it. The production configuration is taken as it is;
//! only its seed is the run's.

use std::path::Path;

use evenkeel_config::Loaded;
use evenkeel_engine::Guests;
use evenkeel_engine::director::Scheduler;
use evenkeel_engine::plan::{Plan, SchedulerPlan};

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

    /// A component that is to schedule for a director of the forwarder with this number.
    ///
    /// # Errors
    /// When the forwarder's own configuration is not readable any more, has no such director, or the loader refuses.
    fn scheduler(
        &mut self,
        forwarder: usize,
        director: &str,
        plan: &SchedulerPlan,
    ) -> Result<Box<dyn Scheduler>, PrepareError>;
}

impl Supplier<'_, '_> {
    /// The configuration of a forwarder with the seed of this run, edited. With the forwarder's name.
    fn configuration(&self, forwarder: usize, config: Option<&Path>) -> Result<(&str, Loaded), PrepareError> {
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
        Ok((&forwarder.name, loaded))
    }
}

impl Supply for Supplier<'_, '_> {
    fn equipment(&mut self, forwarder: usize, config: Option<&Path>) -> Result<Equipment, PrepareError> {
        let (name, loaded) = self.configuration(forwarder, config)?;
        let name = name.to_owned();
        let guests = (self.loader)(&loaded).map_err(|message| PrepareError { forwarder: name, message })?;
        Ok(Equipment { plan: loaded.plan, guests })
    }

    fn scheduler(
        &mut self,
        forwarder: usize,
        director: &str,
        plan: &SchedulerPlan,
    ) -> Result<Box<dyn Scheduler>, PrepareError> {
        let (name, loaded) = self.configuration(forwarder, None)?;
        let name = name.to_owned();
        one_scheduler(loaded, director, plan, self.loader)
            .map_err(|message| PrepareError { forwarder: name, message })
    }
}

/// Makes the component of one director ready, and nobody else's.
pub(crate) fn one_scheduler(
    mut loaded: Loaded,
    director: &str,
    plan: &SchedulerPlan,
    loader: &mut Loader<'_>,
) -> Result<Box<dyn Scheduler>, String> {
    loaded.plan.directors.retain(|known| known.name == director);
    loaded.plan.policies.clear();
    let own = loaded.plan.directors.first_mut().ok_or_else(|| format!("no director {director}"))?;
    own.scheduler = plan.clone();
    own.shadow = None;
    let mut guests = loader(&loaded)?;
    guests.schedulers.remove(director).ok_or_else(|| format!("director {director}: no scheduler was made"))
}
