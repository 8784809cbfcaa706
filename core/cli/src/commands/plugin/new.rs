//! `evenkeel plugin new`: a folder with a scheduler that builds, its tests, and a race against another scheduler; or with a
//! policy and a scenario to try it in.
//!
//! The folder needs nothing of this repository: the SDK and the contract are copied into it from the program. With
//! `--sdk` it uses the SDK of a checkout instead.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::vendored;
use crate::{Failure, output};

/// Where the copies of the SDK and the contract are, below the plugin's folder.
const COPY: &str = "evenkeel";
/// The longest name: it becomes part of names of files.
const NAME_MAX: usize = 48;

/// Write a scheduler or a policy to start from, with tests and a scenario
///
/// The folder NAME is made here. It builds without this repository: the SDK is
/// a copy out of this program.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The name: letters, digits and -, beginning with a letter
    name: String,
    /// What it is to be; a policy is written in Rust
    #[arg(long, value_enum, default_value_t = Kind::Scheduler)]
    kind: Kind,
    /// The language
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    lang: Language,
    /// Use the SDK of this checkout instead of a copy (rust)
    #[arg(long, value_name = "CHECKOUT")]
    sdk: Option<PathBuf>,
}

/// What a component is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// It chooses real servers
    Scheduler,
    /// It decides which new flows may pass
    Policy,
}

/// What it is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    /// With the SDK: traits, options, tests without a forwarder
    Rust,
    /// One file and a header; needs clang and lld, or zig
    C,
    /// With componentize-js; needs node and npm. Large: 12 MB
    Js,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    check_name(&arguments.name)?;
    if arguments.kind == Kind::Policy && arguments.lang != Language::Rust {
        let message = "there is no policy to start from in this language; leave out --lang for Rust";
        return Err(Failure::Usage(message.to_owned()));
    }
    let files = files(arguments)?;
    let folder = Path::new(&arguments.name);
    if folder.symlink_metadata().is_ok() {
        return Err(Failure::Usage(format!(
            "{} exists: it stays as it is; take another name, or another folder",
            folder.display()
        )));
    }
    for (path, text) in &files {
        write(&folder.join(path), text)?;
    }
    let shown: Vec<_> = files.iter().filter(|(path, _)| !path.starts_with(COPY)).collect();
    let mut text = String::new();
    for (path, _) in shown {
        text.push_str(&format!("{}/{path}\n", arguments.name));
    }
    let test = test_command(arguments.lang);
    text.push_str(&format!(
        "\nNext: cd {}, {test}evenkeel plugin build, evenkeel plugin check {}{}\n",
        arguments.name,
        component(&arguments.name),
        bounds(arguments.lang)
    ));
    output::answer(&text)
}

const fn test_command(language: Language) -> &'static str {
    match language {
        Language::Rust => "cargo test, ",
        Language::C | Language::Js => "",
    }
}

/// What `evenkeel plugin check` and `bench` have to be told besides: an interpreter needs more than others may have.
const fn bounds(language: Language) -> &'static str {
    match language {
        Language::Js => " --budget 1000000 --memory 128",
        Language::Rust | Language::C => "",
    }
}

/// The file that `evenkeel plugin build` writes.
pub(super) fn component(name: &str) -> String {
    format!("{name}.wasm")
}

fn check_name(name: &str) -> Result<(), Failure> {
    let is_fine = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= NAME_MAX
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !name.ends_with('-');
    if is_fine {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "{name:?} is not a name for a plugin: small letters, digits and -, beginning with a letter, at most \
         {NAME_MAX} of them"
    )))
}

/// Every file of the folder, under its path in it.
fn files(arguments: &Arguments) -> Result<Vec<(String, String)>, Failure> {
    let name = &arguments.name;
    let mut files = match arguments.kind {
        Kind::Scheduler => shared(name, arguments.lang),
        Kind::Policy => around_policy(name),
    };
    let mut add = |path: &str, text: &str| files.push((path.to_owned(), text.replace("@NAME@", name)));
    match arguments.lang {
        Language::Rust => {
            let sdk = match &arguments.sdk {
                Some(checkout) => sdk_of(checkout)?,
                None => format!("{COPY}/plugins/sdk"),
            };
            let manifest = include_str!("../../../../../plugins/templates/rust/Cargo.toml.txt");
            add("Cargo.toml", &manifest.replace("@SDK@", &sdk));
            add(
                "rust-toolchain.toml",
                include_str!("../../../../../plugins/templates/rust/rust-toolchain.toml.txt"),
            );
            add(
                "src/lib.rs",
                match arguments.kind {
                    Kind::Scheduler => include_str!("../../../../../plugins/templates/rust/lib.rs.txt"),
                    Kind::Policy => include_str!("../../../../../plugins/templates/rust/policy.rs.txt"),
                },
            );
            add(".gitignore", "/target\n/results\n");
            if arguments.sdk.is_none() {
                add("Cargo.lock", vendored::LOCK);
                vendored::FILES.iter().for_each(|(path, text)| add(&format!("{COPY}/{path}"), text));
            }
        }
        Language::C => {
            add(&format!("{name}.c"), include_str!("../../../../../plugins/templates/c/scheduler.c.txt"));
            add("evenkeel.h", include_str!("../../../../../plugins/templates/c/evenkeel.h.txt"));
            add(".gitignore", "/results\n");
            contract(&mut add);
        }
        Language::Js => {
            add(&format!("{name}.js"), include_str!("../../../../../plugins/templates/js/scheduler.js.txt"));
            add("package.json", include_str!("../../../../../plugins/templates/js/package.json.txt"));
            add("build.mjs", include_str!("../../../../../plugins/templates/js/build.mjs.txt"));
            add(".gitignore", "/node_modules\n/results\n");
            contract(&mut add);
        }
    }
    Ok(files)
}

/// The contract, for tools that make components.
fn contract(add: &mut dyn FnMut(&str, &str)) {
    let files = vendored::FILES.iter().filter(|(path, _)| path.starts_with("wit/"));
    files.for_each(|(path, text)| add(path, text));
}

/// What every language has: how to go on, and a race for schedulers.
fn shared(name: &str, language: Language) -> Vec<(String, String)> {
    let file = component(name);
    // An interpreter needs more memory, and time to warm up.
    let (budget, memory) = if language == Language::Js { ("20ms", "128MiB") } else { ("200us", "16MiB") };
    let mine = format!(
        "{{ component = \"{file}\", fallback = \"wlc\", budget = \"{budget}\", memory = \"{memory}\" }}"
    );
    let config = include_str!("../../../../../plugins/templates/shared/evenkeel.toml.txt");
    let race = include_str!("../../../../../plugins/templates/shared/race.toml.txt");
    let readme = include_str!("../../../../../plugins/templates/shared/README.md.txt");
    let test = if language == Language::Rust { "cargo test\n    " } else { "" };
    let readme = readme.replace("    @TEST@\n    ", &format!("    {test}"));
    let bounds = bounds(language);
    let readme = ["check", "bench"].iter().fold(readme, |text, command| {
        text.replace(&format!("{command} @FILE@"), &format!("{command} {file}{bounds}"))
    });
    let readme = readme.replace("@FILE@", &file);
    vec![
        ("README.md".to_owned(), readme.replace("@NAME@", name)),
        ("evenkeel.toml".to_owned(), config.replace("@SCHEDULER@", &mine)),
        ("race.toml".to_owned(), race.to_owned()),
    ]
}

/// What stands around a policy: how to go on, a configuration with rules before it and behind it, and clients.
fn around_policy(name: &str) -> Vec<(String, String)> {
    let filled = |text: &str| text.replace("@FILE@", &component(name)).replace("@NAME@", name);
    let readme = include_str!("../../../../../plugins/templates/shared/policy.md.txt");
    let config = include_str!("../../../../../plugins/templates/shared/policy.toml.txt");
    let scenario = include_str!("../../../../../plugins/templates/shared/try.toml.txt");
    vec![
        ("README.md".to_owned(), filled(readme)),
        ("evenkeel.toml".to_owned(), filled(config)),
        ("denied.txt".to_owned(), "198.51.100.12\n203.0.113.0/24\n".to_owned()),
        ("try.toml".to_owned(), scenario.to_owned()),
    ]
}

/// The path of a checkout's SDK, from anywhere.
fn sdk_of(checkout: &Path) -> Result<String, Failure> {
    let sdk = checkout.join("plugins/sdk");
    let found = sdk.join("Cargo.toml").is_file().then(|| sdk.canonicalize()).and_then(Result::ok);
    let Some(path) = found else {
        return Err(Failure::Usage(format!("{} has no SDK: there is no plugins/sdk", checkout.display())));
    };
    Ok(path.display().to_string())
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let trouble = |error: std::io::Error| Failure::Runtime(format!("{}: {error}", path.display()));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(trouble)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(trouble)?;
    file.write_all(text.as_bytes()).map_err(trouble)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_of_crates_and_files() {
        for name in ["a", "nearest", "p2c-9"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "A", "9a", "a/b", "..", "a b", "a-", "ä", &"a".repeat(49)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn no_template_leaves_a_gap() {
        let kinds = [Language::Rust, Language::C, Language::Js].map(|lang| (Kind::Scheduler, lang));
        for (kind, lang) in kinds.into_iter().chain([(Kind::Policy, Language::Rust)]) {
            let arguments = Arguments { name: "nearest".to_owned(), kind, lang, sdk: None };
            for (path, text) in files(&arguments).unwrap() {
                let gaps = ["@NAME@", "@SDK@", "@FILE@", "@TEST@", "@SCHEDULER@"];
                assert!(gaps.iter().all(|gap| !text.contains(gap)), "{path}");
            }
        }
    }

    #[test]
    fn a_folder_that_is_no_checkout_is_refused() {
        assert!(matches!(sdk_of(Path::new("/")), Err(Failure::Usage(text)) if text.contains("plugins/sdk")));
    }
}
