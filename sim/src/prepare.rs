//! From the files that a scenario names to what its forwarders run by.
//!
//! In: a scenario, the seed, and a loader of components. Out: the equipment of each forwarder, or what is
//! wrong with which file, in the words of whoever found it. The production configuration is taken as it is;
//! only its seed is the run's.

use evenkeel_config::Loaded;
use evenkeel_engine::Guests;

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

/// Loads the configuration of every forwarder of `scenario`. The seed of each is drawn from `seed` and the
/// forwarder's name, whatever its file says.
///
/// # Errors
/// When a configuration is not readable or wrong, or the loader refuses.
pub fn prepare(
    scenario: &Scenario,
    seed: u64,
    loader: &mut Loader<'_>,
) -> Result<Vec<Equipment>, PrepareError> {
    let mut equipment = Vec::new();
    for forwarder in &scenario.forwarders {
        let refused = |message| PrepareError { forwarder: forwarder.name.clone(), message };
        let loaded = evenkeel_config::load(&forwarder.config)
            .map_err(|diagnostics| refused(diagnostics.render(false)))?
            .with_seed(Stream::new(seed, &forwarder.name, "seed").bits());
        let guests = loader(&loaded).map_err(refused)?;
        equipment.push(Equipment { plan: loaded.plan, guests });
    }
    Ok(equipment)
}
