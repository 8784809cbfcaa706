//! `evenkeel plugin`: from an idea for a scheduler or a policy to a component that has been tried.
//!
//! ```text
//! new -> (edit, test) -> build -> inspect, check, bench -> a configuration names the file
//! ```

mod bench;
mod bench_policy;
mod build;
mod look;
mod new;
mod vendored;

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use evenkeel_plugin_host::suite::Subject;

use crate::Failure;

/// Write, build, check and measure schedulers and policies of your own
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    New(new::Arguments),
    Build(build::Arguments),
    /// Run the conformance suite on a component; exit code 1 when it fails
    ///
    /// World, imports, size and memory; the same answers in two runs; shares by
    /// weight; servers without weight or down; 0, 1 and 1000 servers; batches;
    /// order of servers; how many flows a change moves; state over a reload.
    /// Of a policy: its verdicts, 0, 1 and 1000 flows of all kinds, batches,
    /// packets of flows that are open, and more sources than it can know.
    Check {
        /// The component: a file, or bundled:NAME
        component: String,
        #[command(flatten)]
        bounds: Bounds,
        /// The findings as JSON
        #[arg(long)]
        json: bool,
    },
    /// Measure what a decision costs, beside built-in schedulers or flow rules
    ///
    /// Without a component: every bundled one that has a built-in sibling, beside
    /// it, and what the component costs more.
    Bench {
        /// The component: a file, or bundled:NAME
        component: Option<String>,
        #[command(flatten)]
        bounds: Bounds,
        /// The figures as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a component is made of: world, exports, imports, size
    Inspect {
        /// The component: a file, or bundled:NAME
        component: String,
        /// The same as JSON
        #[arg(long)]
        json: bool,
    },
}

/// The options of a component, and what it may cost.
#[derive(Debug, clap::Args)]
struct Bounds {
    /// A file with its options, as they would stand in the table `options`
    #[arg(long, value_name = "FILE")]
    options: Option<PathBuf>,
    /// A file that is given to a policy, as the key `data` does
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// The most time that a call may take, in microseconds
    #[arg(long, value_name = "US", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..=1_000_000))]
    budget: u64,
    /// The most linear memory, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1024))]
    memory: u64,
}

impl Bounds {
    fn subject(&self, component: &str) -> Result<Subject, Failure> {
        let read = |path: &Option<PathBuf>| match path {
            None => Ok(String::new()),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| Failure::Usage(format!("{}: {error}", path.display()))),
        };
        let (options, data) = (read(&self.options)?, read(&self.data)?);
        Ok(Subject {
            component: component.to_owned(),
            options,
            data,
            budget: Duration::from_micros(self.budget),
            memory_bytes: self.memory << 20,
            bundled: evenkeel_plugins_bundled::component,
        })
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::New(arguments) => new::run(arguments),
        Command::Build(arguments) => build::run(arguments),
        Command::Check { component, bounds, json } => look::check(&bounds.subject(component)?, *json),
        Command::Bench { component: Some(component), bounds, json } => {
            bench::run(&bounds.subject(component)?, *json)
        }
        Command::Bench { component: None, bounds, json } => {
            bench::run_twins(|component| bounds.subject(component), *json)
        }
        Command::Inspect { component, json } => look::inspect(component, *json),
    }
}
