//! `evenkeel demo`: one scenario of the library in the simulator and on a real TUN, side by side.

use std::path::{Path, PathBuf};

use evenkeel_netns_lab::{LabError, Options, compare};
use evenkeel_sim::library;
use serde_json::json;

use super::{lab, sim};
use crate::progress::Progress;
use crate::{Failure, output};

/// The scenario that is shown.
const SCENARIO: &str = "demo";

/// Folders of one name that are tried before the demo gives up: somebody else may have made one.
const FOLDERS_MAX: u32 = 100;

/// Show what it does: one scenario in the simulator and on a real TUN
///
/// Two networks, three real servers with the weights 4, 2 and 1, and a WASM
/// component that gives them 200 TCP connections and 500 UDP flows. Where no
/// namespaces or no TUN can be had, the reason is told and the simulator runs
/// alone. Ends in less than a minute.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The seed of everything random
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Both outcomes and their comparison as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Some(entry) = library::find(SCENARIO) else {
        return Err(Failure::Runtime(format!("the scenario {SCENARIO} is not in this program")));
    };
    let folder = Folder::with(entry.files)?;
    let (first, _) = entry.files.first().copied().unwrap_or_default();
    let path = folder.0.join(first);
    let say = |text: &str| if arguments.json { Ok(()) } else { output::answer(text) };

    let simulated = sim::simulate(&path, Some(arguments.seed))?;
    say(&format!("==== In the simulator\n\n{}", simulated.to_text()))?;
    let real = match on_namespaces(&path, arguments.seed) {
        Ok(outcome) => outcome,
        Err(LabError::Missing(missing)) => {
            let reasons: Vec<String> = missing.iter().map(ToString::to_string).collect();
            say(&format!(
                "\n==== SKIPPED: the same through a real TUN\n\n{}\n\nThe simulator has run the same engine, \
                 components and configuration.\n",
                reasons.join("\n")
            ))?;
            if arguments.json {
                output::answer(&format!("{:#}\n", json!({ "sim": simulated, "skipped": reasons })))?;
            }
            return verdict(simulated.is_as_expected());
        }
        Err(error) => return Err(lab::failure(error)),
    };
    let comparison = compare(&simulated, &real);
    say(&format!("\n==== On network namespaces, through a real TUN\n\n{real}"))?;
    say(&format!("\n==== Side by side\n\n{comparison}"))?;
    if arguments.json {
        let all = json!({ "sim": simulated, "lab": real, "comparison": comparison });
        output::answer(&format!("{all:#}\n"))?;
    }
    verdict(simulated.is_as_expected() && real.is_met() && comparison.agrees())
}

fn on_namespaces(path: &Path, seed: u64) -> Result<evenkeel_netns_lab::Outcome, LabError> {
    let options = Options { program: std::env::current_exe()?, seed: Some(seed) };
    let progress = Progress::start("making networks");
    evenkeel_netns_lab::run(path, &options, &mut |stage| lab::show_stage(&progress, stage))
}

fn verdict(is_good: bool) -> Result<(), Failure> {
    if is_good {
        return Ok(());
    }
    Err(Failure::Runtime(
        "not as expected: see the lines marked FAILED, or the difference of the shares".to_owned(),
    ))
}

/// A folder for the files of the demo, which goes with the value.
struct Folder(PathBuf);

impl Folder {
    fn with(files: &[(&str, &str)]) -> Result<Self, Failure> {
        use std::os::unix::fs::DirBuilderExt;
        let parent = std::env::temp_dir();
        let names =
            (0..FOLDERS_MAX).map(|n| parent.join(format!("evenkeel-demo-{}-{n}", std::process::id())));
        let made = names.into_iter().find(|path| std::fs::DirBuilder::new().mode(0o700).create(path).is_ok());
        let Some(path) = made else {
            return Err(Failure::Runtime(format!("no folder can be made in {}", parent.display())));
        };
        let folder = Self(path);
        for (name, text) in files {
            std::fs::write(folder.0.join(name), text).map_err(Failure::runtime)?;
        }
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed stays in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
