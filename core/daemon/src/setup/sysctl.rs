//! Kernel settings below `/proc/sys`. In: a path with slashes and a value. Out: the kernel's answer.

use std::io;
use std::path::{Path, PathBuf};

/// The value of a setting, without the line's end; `None` when it does not exist or may not be read.
pub(crate) fn read(key: &str) -> Option<String> {
    std::fs::read_to_string(path(key)).ok().map(|text| text.trim().to_owned())
}

/// Sets a value.
///
/// # Errors
/// When the setting does not exist or may not be written.
pub(crate) fn write(key: &str, value: &str) -> io::Result<()> {
    std::fs::write(path(key), value)
}

fn path(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key)
}
