//! `evenkeel plugin build`: the component of a plugin's folder, with the tools of its language.
//!
//! ```text
//! Cargo.toml -> cargo                        -> NAME.wasm
//! NAME.c     -> clang or zig, then wrapped    -> NAME.wasm
//! NAME.js    -> npm, componentize-js         -> NAME.wasm
//! ```

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::look::refused;
use super::new::component;
use crate::{Failure, output};

/// The target of Rust guests.
const TARGET: &str = "wasm32-wasip2";

/// Build the component of a plugin's folder
///
/// Needs the tools of its language, and says what to install where they are
/// missing: for Rust rustup, for C clang and lld or zig, for JavaScript node and
/// npm.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The folder
    #[arg(default_value = ".")]
    folder: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let folder = arguments
        .folder
        .canonicalize()
        .map_err(|error| Failure::Usage(format!("{}: {error}", arguments.folder.display())))?;
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let built = if folder.join("Cargo.toml").is_file() {
        rust(&folder)?
    } else if folder.join("package.json").is_file() {
        javascript(&folder, &name)?
    } else if let Some(source) = source_of_c(&folder) {
        c(&folder, &source)?
    } else {
        let help = "make one with `evenkeel plugin new NAME`";
        return Err(Failure::Usage(format!("{} is not the folder of a plugin; {help}", folder.display())));
    };
    let length = std::fs::metadata(&built).map(|file| file.len()).unwrap_or(0);
    let shown = built.strip_prefix(&folder).unwrap_or(&built);
    output::answer(&format!("{} ({length} bytes)\n", arguments.folder.join(shown).display()))
}

/// Runs a tool; what it says goes to the standard error.
fn tool(command: &mut Command, what: &str, missing: &str) -> Result<(), Failure> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::inherit()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::Runtime(format!("{what} ended with {status}"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Failure::Runtime(missing.to_owned()))
        }
        Err(error) => Err(Failure::Runtime(format!("{what} can not be started: {error}"))),
    }
}

fn rust(folder: &Path) -> Result<PathBuf, Failure> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(folder).args(["build", "--quiet", "--release", "--target", TARGET]);
    // The component is where this says, whatever the environment prefers.
    let target = folder.join("target");
    cargo.arg("--target-dir").arg(&target).env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    tool(&mut cargo, "cargo", "cargo is missing: install Rust with rustup, see https://rustup.rs").map_err(
        |failure| {
            let library = Command::new("rustc")
                .current_dir(folder)
                .args(["--print", "target-libdir", "--target", TARGET])
                .output();
            let has_target =
                library.is_ok_and(|found| Path::new(String::from_utf8_lossy(&found.stdout).trim()).is_dir());
            match failure {
                Failure::Runtime(text) if !has_target => Failure::Runtime(format!(
                    "{text}; the Rust target is missing: rustup target add {TARGET}"
                )),
                other @ (Failure::Runtime(_) | Failure::Usage(_)) => other,
            }
        },
    )?;
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).map_err(Failure::runtime)?;
    let name = manifest.lines().find_map(|line| line.trim().strip_prefix("name = \"")?.strip_suffix('"'));
    let Some(name) = name else {
        return Err(Failure::Runtime("Cargo.toml says no name".to_owned()));
    };
    let made = target.join(TARGET).join("release").join(component(&name.replace('-', "_")));
    let wanted = folder.join(component(name));
    std::fs::copy(&made, &wanted)
        .map_err(|error| refused(&made.display().to_string(), &error.to_string()))?;
    Ok(wanted)
}

/// The only `.c` file of a folder.
fn source_of_c(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let mut sources =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "c"));
    let source = sources.next()?;
    sources.next().is_none().then_some(source)
}

fn c(folder: &Path, source: &Path) -> Result<PathBuf, Failure> {
    let wanted = source.with_extension("wasm");
    let module = source.with_extension("core.wasm");
    let flags = ["-Os", "-std=c11", "-Wall", "-Wextra", "-nostdlib", "-Wl,--no-entry", "-Wl,--strip-debug"];
    let missing = "a C compiler for WebAssembly is missing: install clang and lld (Debian: apt-get install clang \
                   lld), or zig (pip install ziglang, or https://ziglang.org)";
    // Zig brings its own linker; clang needs lld. `python3 -m ziglang` is zig from PyPI.
    let compilers: [&[&str]; 3] = [
        &["clang", "--target=wasm32", "-ffreestanding"],
        &["zig", "cc", "-target", "wasm32-freestanding"],
        &["python3", "-m", "ziglang", "cc", "-target", "wasm32-freestanding"],
    ];
    let is_there = |words: &&[&str]| {
        let (first, rest) = (words.first().copied().unwrap_or_default(), words.get(1..).unwrap_or_default());
        let mut probe = Command::new(first);
        if first == "python3" {
            probe.args(rest.get(..2).unwrap_or_default());
        }
        let probe = probe.arg(if first == "clang" { "--version" } else { "version" });
        probe
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    let Some(words) = compilers.iter().find(|words| is_there(words)) else {
        return Err(Failure::Runtime(missing.to_owned()));
    };
    let mut compiler = Command::new(words.first().copied().unwrap_or_default());
    compiler.current_dir(folder).args(words.get(1..).unwrap_or_default()).args(flags);
    compiler.arg(source).arg("-o").arg(&module);
    tool(&mut compiler, "the C compiler", missing)?;
    let result = wrap(folder, &module, &wanted);
    let _ = std::fs::remove_file(&module);
    result.map(|()| wanted)
}

/// The world that C guests are written for.
const WORLD_OF_C: &str = "hash-scheduler";

/// Makes a component of a core module that exports the functions of the world, which is described in the folder.
fn wrap(folder: &Path, module: &Path, wanted: &Path) -> Result<(), Failure> {
    let mut module = std::fs::read(module).map_err(Failure::runtime)?;
    // What these say is a chain of causes, the first of which names the function that is missing.
    let said = |what: &str, error: &anyhow::Error| Failure::Runtime(format!("{what}: {error:#}"));
    let mut contract = Resolve::default();
    let (package, _) =
        contract.push_dir(folder.join("wit")).map_err(|error| said("the contract in wit", &error))?;
    let world = contract
        .select_world(&[package], Some(WORLD_OF_C))
        .map_err(|error| said("the contract in wit", &error))?;
    embed_component_metadata(&mut module, &contract, world, StringEncoding::UTF8)
        .map_err(|error| said("the world can not be written into the module", &error))?;
    let mut encoder = ComponentEncoder::default();
    let encoded = encoder.validate(true).module(&module).and_then(ComponentEncoder::encode);
    let component = encoded.map_err(|error| said("the module is not one of this world", &error))?;
    std::fs::write(wanted, component)
        .map_err(|error| refused(&wanted.display().to_string(), &error.to_string()))
}

fn javascript(folder: &Path, name: &str) -> Result<PathBuf, Failure> {
    let missing = "node or npm is missing: install them (Debian: apt-get install nodejs npm)";
    if !folder.join("node_modules").is_dir() {
        let mut npm = Command::new("npm");
        npm.current_dir(folder).args(["install", "--no-audit", "--no-fund", "--silent"]);
        tool(&mut npm, "npm install", missing)?;
    }
    let mut node = Command::new("node");
    node.current_dir(folder).arg("build.mjs");
    tool(&mut node, "build.mjs", missing)?;
    Ok(folder.join(component(name)))
}
