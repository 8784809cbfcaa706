//! The files of the repository, by walking its folders; paths are relative to its root, with `/`.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold no source.
const SKIPPED: [&str; 5] = ["target", "out", "corpus", "artifacts", "node_modules"];

fn root() -> PathBuf {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR"));
    docs.parent().expect("the crate has a folder above it").to_owned()
}

/// Every text file with one of these extensions, in order, with its text.
pub(crate) fn with_extensions(extensions: &[&str]) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    walk(&root(), "", &mut paths);
    paths.sort();
    let has_extension = |path: &String| {
        let extension = Path::new(path).extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| extensions.contains(&extension))
    };
    let read = |path: String| try_read(&path).map(|text| (path, text));
    paths.into_iter().filter(has_extension).filter_map(read).collect()
}

fn walk(folder: &Path, path: &str, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(kind) = entry.file_type() else { continue };
        let below = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        if kind.is_dir() && !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
            walk(&entry.path(), &below, found);
        } else if kind.is_file() {
            found.push(below);
        }
    }
}

/// The text of a file that is there.
pub(crate) fn read(path: &str) -> String {
    try_read(path).unwrap_or_else(|| panic!("{path} can not be read"))
}

/// The text of a file, when it is there and is text.
pub(crate) fn try_read(path: &str) -> Option<String> {
    fs::read_to_string(root().join(path)).ok()
}
