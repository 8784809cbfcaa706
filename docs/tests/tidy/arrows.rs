//! Who may know whom, as `docs/ARCHITECTURE.md` says.

use std::process::Command;

use serde_json::Value;

/// A dependency of one of our crates on another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrow {
    from: String,
    to: String,
    is_shipped: bool,
}

const PREFIX: &str = "evenkeel-";

/// Whom each crate may know in what is shipped. Guests stand for every crate under `plugins/guests`.
const ALLOWED: &[(&str, &[&str])] = &[
    ("engine", &[]),
    ("config", &["engine"]),
    ("io", &["engine"]),
    ("plugin-host", &["engine"]),
    ("plugin-sdk", &[]),
    ("guest", &["plugin-sdk"]),
    ("plugins-bundled", &[]),
    ("explain", &["engine"]),
    ("sim", &["engine", "config", "plugin-host"]),
    ("daemon", &["engine", "config", "explain", "io", "plugin-host"]),
    ("netns-lab", &["engine", "config", "sim"]),
    (
        "cli",
        &[
            "engine",
            "config",
            "explain",
            "io",
            "plugin-host",
            "plugin-sdk",
            "plugins-bundled",
            "sim",
            "daemon",
            "netns-lab",
        ],
    ),
    (
        "benches",
        &[
            "engine",
            "config",
            "explain",
            "io",
            "plugin-host",
            "plugin-sdk",
            "plugins-bundled",
            "sim",
            "daemon",
            "netns-lab",
            "cli",
        ],
    ),
    (
        "docs",
        &[
            "engine",
            "config",
            "explain",
            "io",
            "plugin-host",
            "plugin-sdk",
            "plugins-bundled",
            "sim",
            "daemon",
            "netns-lab",
            "cli",
        ],
    ),
];

/// What not even a test or a build script may know. These may else be laxer: what they know is not shipped, and
/// a test of the simulator may well need a bundled component.
const NEVER: &[(&str, &str)] = &[
    ("sim", "io"),
    ("io", "config"),
    ("io", "plugin-host"),
    ("io", "plugin-sdk"),
    ("io", "plugins-bundled"),
    ("engine", "config"),
    ("engine", "io"),
    ("engine", "plugin-host"),
    ("engine", "sim"),
];

/// Asks cargo about the workspace.
pub(crate) fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo writes JSON")
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata.get("packages").and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

/// The name of a crate on the map. Guests are one, and so are benches.
fn short(name: &str, manifest: &str) -> String {
    if manifest.contains("/plugins/guests/") {
        return "guest".to_owned();
    }
    if manifest.contains("/benches/") {
        return "benches".to_owned();
    }
    name.strip_prefix(PREFIX).unwrap_or(name).to_owned()
}

/// Every dependency of one of our crates on another.
pub(crate) fn arrows(metadata: &Value) -> Vec<Arrow> {
    let ours: Vec<(&str, String)> = packages(metadata)
        .map(|package| (text(package, "name"), short(text(package, "name"), text(package, "manifest_path"))))
        .collect();
    let mut arrows = Vec::new();
    for package in packages(metadata) {
        let from = short(text(package, "name"), text(package, "manifest_path"));
        let dependencies = package.get("dependencies").and_then(Value::as_array);
        for dependency in dependencies.into_iter().flatten() {
            let Some((_, to)) = ours.iter().find(|(name, _)| *name == text(dependency, "name")) else {
                continue;
            };
            let is_shipped = dependency.get("kind").is_none_or(Value::is_null);
            arrows.push(Arrow { from: from.clone(), to: to.clone(), is_shipped });
        }
    }
    arrows
}

/// The arrows that the map does not allow.
pub(crate) fn check(arrows: &[Arrow]) -> Vec<String> {
    let mut findings = Vec::new();
    for Arrow { from, to, is_shipped } in arrows {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| name == from) else {
            findings.push(format!("{from} is not on the map"));
            continue;
        };
        let is_never = NEVER.contains(&(from.as_str(), to.as_str()))
            || to == "daemon" && !["cli", "benches", "docs"].contains(&from.as_str())
            || ["docs", "benches"].contains(&to.as_str());
        if is_never || *is_shipped && !allowed.contains(&to.as_str()) {
            findings.push(format!("{from} must not know {to}"));
        }
    }
    findings
}

/// The files that crates begin with, relative to the repository: libraries, programs and build scripts.
pub(crate) fn crate_roots(metadata: &Value) -> Vec<String> {
    let workspace = format!("{}/", text(metadata, "workspace_root"));
    let mut roots = Vec::new();
    for package in packages(metadata) {
        for target in package.get("targets").and_then(Value::as_array).into_iter().flatten() {
            let kinds = target.get("kind").and_then(Value::as_array).into_iter().flatten();
            let is_ours = |kind: &Value| ["lib", "bin", "cdylib", "rlib"].iter().any(|name| kind == name);
            let path = text(target, "src_path");
            if kinds.into_iter().any(is_ours) {
                roots.push(path.strip_prefix(&workspace).unwrap_or(path).to_owned());
            }
        }
    }
    assert!(roots.len() >= 12, "{roots:?}");
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrow(from: &str, to: &str, is_shipped: bool) -> Arrow {
        Arrow { from: from.to_owned(), to: to.to_owned(), is_shipped }
    }

    #[test]
    fn arrows_against_the_map_are_found() {
        let wrong = [
            arrow("sim", "io", true),
            arrow("sim", "io", false),
            arrow("io", "config", false),
            arrow("engine", "config", true),
            arrow("config", "plugin-host", true),
            arrow("sim", "daemon", false),
            arrow("cli", "docs", false),
            arrow("guest", "engine", true),
            arrow("stranger", "engine", true),
        ];
        for arrow in wrong {
            assert_eq!(check(std::slice::from_ref(&arrow)).len(), 1, "{arrow:?}");
        }
        let right = [
            arrow("sim", "engine", true),
            arrow("sim", "plugins-bundled", false),
            arrow("cli", "daemon", true),
            arrow("docs", "sim", false),
        ];
        assert!(check(&right).is_empty());
    }

    #[test]
    fn arrows_are_read_from_what_cargo_says() {
        let metadata = serde_json::json!({ "packages": [
            { "name": "evenkeel-engine", "manifest_path": "/x/core/engine/Cargo.toml", "dependencies": [] },
            { "name": "evenkeel-guest-a", "manifest_path": "/x/plugins/guests/a/Cargo.toml", "dependencies": [
                { "name": "evenkeel-engine", "kind": null }, { "name": "slab", "kind": null } ] },
            { "name": "evenkeel-sim", "manifest_path": "/x/sim/Cargo.toml", "dependencies": [
                { "name": "evenkeel-engine", "kind": "dev" } ] },
        ] });
        let expected = [arrow("guest", "engine", true), arrow("sim", "engine", false)];
        assert_eq!(arrows(&metadata), expected);
    }
}
