//! `evenkeel sim draw`: a scenario as a picture.

use std::path::PathBuf;

use evenkeel_sim::Scenario;
use evenkeel_sim::record::drawing::Drawing;

use super::parts;
use crate::{Failure, output};

/// Columns of a picture where the terminal does not say how wide it is.
const COLUMNS: usize = 100;

/// Draw the machines and networks of a scenario
///
/// In characters, or with --svg as a file for a page. The scenario is checked,
/// and nothing runs.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The scenario file
    scenario: PathBuf,
    /// Write the picture into this file instead
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The widest line
    #[arg(long, value_name = "N", default_value_t = COLUMNS)]
    columns: usize,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let scenario =
        Scenario::load(&arguments.scenario).map_err(|errors| Failure::Usage(errors.to_string()))?;
    let graph = scenario.graph();
    let drawing = Drawing::new(&graph);
    match &arguments.svg {
        None => output::answer(&format!("{}\n{}\n", drawing.to_text(arguments.columns), graph.sentence())),
        Some(path) => {
            let written = parts::write(path, drawing.to_svg(&scenario.name).as_bytes());
            written
                .map_err(|error| Failure::Runtime(format!("{} can not be written: {error}", path.display())))
        }
    }
}
