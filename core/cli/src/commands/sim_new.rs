//! `evenkeel sim new`: the scenarios that come with the program, to start from.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use evenkeel_sim::library::{self, Entry};

use crate::{Failure, output};

/// Write a scenario of the library and its configuration, to start from
///
/// Without a name it lists what there is. Files that exist are left alone.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The scenario
    name: Option<String>,
    /// The folder, made where it is missing [default: the current one]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Some(name) = &arguments.name else { return output::answer(&list()) };
    let Some(entry) = library::find(name) else {
        let known = library::ENTRIES.iter().map(|entry| entry.name);
        let help = match evenkeel_config::document::nearest(name, known) {
            Some(near) => format!("did you mean {near}?"),
            None => "`evenkeel sim new` lists what there is".to_owned(),
        };
        return Err(Failure::Usage(format!("no scenario {name:?} in the library; {help}")));
    };
    let folder = arguments.out.as_deref().unwrap_or_else(|| Path::new("."));
    let written = write(entry, folder)?;
    let names: Vec<_> = written.iter().map(|path| path.display().to_string()).collect();
    let first = names.first().map_or("", String::as_str);
    output::answer(&format!("{}\n\nRun it: evenkeel sim run {first}\n", names.join("\n")))
}

/// Every scenario with a line about it.
fn list() -> String {
    let width = library::ENTRIES.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for entry in library::ENTRIES {
        text.push_str(&format!("{:width$}  {}\n", entry.name, entry.about()));
    }
    text.push_str("\nWrite one with `evenkeel sim new NAME --out DIR`.\n");
    text
}

/// Writes all files of a scenario, or none.
fn write(entry: &Entry, folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let trouble = |path: &Path, error: &dyn std::fmt::Display| {
        Failure::Runtime(format!("{} can not be written: {error}", path.display()))
    };
    let paths: Vec<(PathBuf, &str)> =
        entry.files.iter().map(|(name, text)| (folder.join(name), *text)).collect();
    if let Some((path, _)) = paths.iter().find(|(path, _)| path.symlink_metadata().is_ok()) {
        let advice = "it stays as it is; name another folder with --out";
        return Err(Failure::Usage(format!("{} exists: {advice}", path.display())));
    }
    std::fs::create_dir_all(folder).map_err(|error| trouble(folder, &error))?;
    for (path, text) in &paths {
        // Should somebody have made it in the meantime, it is not overwritten either.
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| trouble(path, &error))?;
    }
    Ok(paths.into_iter().map(|(path, _)| path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that goes with the value.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("evenkeel-new-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_list_has_a_line_for_every_scenario() {
        let text = list();
        for entry in library::ENTRIES {
            assert!(text.lines().any(|line| line.starts_with(entry.name)), "{}", entry.name);
        }
    }

    #[test]
    fn what_is_written_is_a_scenario_with_its_configuration() {
        let folder = Folder::new("fresh");
        for entry in library::ENTRIES {
            let written = write(entry, &folder.0.join(entry.name)).unwrap();
            assert_eq!(written.len(), entry.files.len());
            let scenario = evenkeel_sim::Scenario::load(&written[0]).unwrap();
            assert!(scenario.forwarders.iter().all(|forwarder| forwarder.config.exists()));
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = Folder::new("taken");
        let entry = library::find("dsr").unwrap();
        write(entry, &folder.0).unwrap();
        let path = folder.0.join("dsr.toml");
        std::fs::write(&path, "mine").unwrap();
        std::fs::remove_file(folder.0.join("dsr-evenkeel.toml")).unwrap();
        assert!(
            matches!(write(entry, &folder.0), Err(Failure::Usage(text)) if text.contains("dsr.toml exists"))
        );
        assert_eq!(std::fs::read_to_string(path).unwrap(), "mine");
        assert!(!folder.0.join("dsr-evenkeel.toml").exists(), "all of them or none");
    }
}
