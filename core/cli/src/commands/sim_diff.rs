//! `evenkeel sim diff`: the first event in which two runs differ.

use std::path::{Path, PathBuf};

use evenkeel_sim::record::data::Chains;
use evenkeel_sim::travel::{Side, difference};
use evenkeel_sim::watch::{Watch, Window};
use evenkeel_sim::{Options, Scenario};

use super::{pages, sim_run};
use crate::{Failure, output};

/// Find the first event in which two runs differ; exit code 1 when they do
///
/// Each run is a folder or result.json that `sim run --out` has written, or a
/// scenario file, with @SEED behind it where the seed is another. The search
/// halves the stored checkpoints, and runs both again from the start up to
/// the stretch in which they part.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The first run: FOLDER, result.json, or SCENARIO[@SEED]
    first: String,
    /// The second run
    second: String,
}

/// A run that can be done again.
struct Run {
    scenario: Scenario,
    seed: u64,
    chains: Chains,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (left, right) = (Run::named(&arguments.first)?, Run::named(&arguments.second)?);
    let mut rerun = |side, window| {
        let run = if side == Side::Left { &left } else { &right };
        run.again(Some(window)).and_then(|(_, window)| window.ok_or_else(|| "nothing was seen".to_owned()))
    };
    match difference(&left.chains, &right.chains, &mut rerun).map_err(Failure::runtime)? {
        None => output::answer(&format!(
            "no difference: {} frames, wire hash {}   decision hash {}\n",
            left.chains.wire.events, left.chains.wire.hash, left.chains.decisions.hash
        )),
        Some(found) => {
            output::answer(&found.to_string())?;
            Err(Failure::Runtime(format!("{} and {} differ", arguments.first, arguments.second)))
        }
    }
}

impl Run {
    /// The run that a word on the command line means.
    fn named(word: &str) -> Result<Self, Failure> {
        let path = Path::new(word);
        let is_record = path.is_dir() || path.extension().is_some_and(|extension| extension == "json");
        if !is_record {
            return Self::of_scenario(word);
        }
        let record = pages::read(path)?;
        if record.chains.file.is_empty() {
            let words = "it does not say which scenario file it is of; run that again with --out";
            return Err(Failure::Usage(format!("{word}: {words}")));
        }
        if let Some(parameter) = record.parameters.first() {
            let words =
                format!("a run of a study ({} = {}) is not done again", parameter.name, parameter.value);
            return Err(Failure::Usage(format!("{word}: {words}")));
        }
        let scenario = sim_run::load(Path::new(&record.chains.file))?;
        Ok(Self { scenario, seed: record.seed, chains: record.chains })
    }

    fn of_scenario(word: &str) -> Result<Self, Failure> {
        let (path, seed) = match word.rsplit_once('@') {
            Some((path, digits)) if !PathBuf::from(word).exists() => {
                let wrong = |_| Failure::Usage(format!("{word}: {digits:?} is no seed; write SCENARIO@SEED"));
                (path, Some(digits.parse().map_err(wrong)?))
            }
            Some(_) | None => (word, None),
        };
        let scenario = sim_run::load(Path::new(path))?;
        let seed = seed.unwrap_or(scenario.seed);
        let mut run = Self { scenario, seed, chains: Chains::default() };
        run.chains = run.again(None).map_err(Failure::Runtime)?.0;
        Ok(run)
    }

    fn again(&self, window: Option<Window>) -> Result<(Chains, Option<Window>), String> {
        let mut watch = Watch::new(None, None, window);
        let options = Options { seed: Some(self.seed), ..Options::default() };
        let outcome = sim_run::simulate(&self.scenario, options, &mut watch).map_err(Failure::into_text)?;
        Ok((outcome.record.chains, watch.window))
    }
}
