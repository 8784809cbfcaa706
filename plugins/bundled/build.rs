//! Builds the guests for `wasm32-wasip2` with the same cargo and toolchain, into a folder of their own, so that
//! a plain `cargo build` of the forwarder gives a complete binary.
//!
//! What the outer build was told about its own target, flags, wrappers and lints does not reach the guests:
//! `cargo check`, `cargo clippy`, `cargo test` and `cargo build --release` embed the same bytes.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const TARGET: &str = "wasm32-wasip2";
const PROFILE: &str = "guest";

/// The guests: the folder, and whether users are told of it.
const GUESTS: &[(&str, bool)] = &[
    ("flowmgr", true),
    ("geo-prefix", true),
    ("least-connections", true),
    ("maglev", true),
    ("maglev-pick", true),
    ("misbehave", false),
    ("p2c", true),
    ("peak-ewma", true),
    ("prequal", true),
    ("rate-guard", true),
    ("rendezvous", true),
    ("round-robin", true),
    ("rr", true),
    ("syn-guard", true),
    ("wlc", true),
];

/// Variables of cargo that are about the user's machine and not about the outer build.
const KEPT: &[&str] = &[
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_MAKEFLAGS",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_SOURCE_",
    "CARGO_TERM_",
];

/// Variables of other tools that would change how the guests are compiled.
const REMOVED: &[&str] = &[
    "CLIPPY_ARGS",
    "CLIPPY_CONF_DIR",
    "DEBUG",
    "LLVM_PROFILE_FILE",
    "OPT_LEVEL",
    "PROFILE",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "TARGET",
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let variable = |name: &str| env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"));
    let out = PathBuf::from(variable("OUT_DIR")?);
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let root = here.ancestors().nth(2).ok_or("the workspace is two folders up")?.to_path_buf();
    for input in ["plugins/guests", "plugins/sdk", "wit", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    println!("cargo::rerun-if-changed=build.rs");

    let target = out.join("guests");
    let status = command(&root, &target, variable("CARGO")?, variable("RUSTC")?)
        .status()
        .map_err(|error| format!("cargo cannot be started for the guests: {error}"))?;
    if !status.success() {
        return Err(failure(&variable("RUSTC")?));
    }
    embed(&out, &target.join(TARGET).join(PROFILE))
}

/// The inner cargo.
fn command(root: &Path, target: &Path, cargo: OsString, rustc: OsString) -> Command {
    let mut command = Command::new(cargo);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let is_cargo = text.starts_with("CARGO_") && !KEPT.iter().any(|kept| text.starts_with(kept));
        if is_cargo || REMOVED.contains(&text.as_ref()) {
            command.env_remove(&name);
        }
    }
    // The paths of this machine stay out of the components, so that everyone builds the same bytes.
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let mut flags = vec![format!("--remap-path-prefix={}=evenkeel", root.display())];
    flags.extend(home.map(|home| format!("--remap-path-prefix={}=cargo", home.display())));
    command
        .current_dir(root)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("RUSTC", rustc)
        .args(["build", "--locked", "--target", TARGET, "--profile", PROFILE])
        .arg("--target-dir")
        .arg(target);
    for (guest, _) in GUESTS {
        command.args(["--package", &format!("evenkeel-guest-{guest}")]);
    }
    command
}

/// What to tell when the inner build failed: most often, the target is not installed.
fn failure(rustc: &OsString) -> String {
    let library = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
    let is_installed = library.is_ok_and(|output| {
        let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success() && Path::new(&path).is_dir()
    });
    if is_installed {
        "the guests in plugins/guests do not build; the messages above say why".to_owned()
    } else {
        format!(
            "the Rust target {TARGET} is missing, and the bundled components need it: run `rustup toolchain \
             install` in the checkout (it installs what rust-toolchain.toml names), or `rustup target add {TARGET}`"
        )
    }
}

/// Writes the table that the library includes.
fn embed(out: &Path, built: &Path) -> Result<(), String> {
    let mut table = String::from("&[\n");
    for (guest, is_public) in GUESTS {
        let file = built.join(format!("evenkeel_guest_{}.wasm", guest.replace('-', "_")));
        if !file.is_file() {
            return Err(format!("the build of the guests left no {}", file.display()));
        }
        table += &format!(
            "    Bundled {{ name: {guest:?}, is_public: {is_public}, bytes: include_bytes!({:?}) }},\n",
            file.display().to_string()
        );
    }
    table += "]\n";
    fs::write(out.join("table.rs"), table).map_err(|error| format!("{}: {error}", out.display()))
}
