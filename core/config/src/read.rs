//! The doors of the crate: from a path or a text to a [`Loaded`] or [`Diagnostics`].

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use crate::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::document::{self, Misfit};
use crate::gather::{Files, gather};
use crate::loaded::Loaded;
use crate::schema::schema;
use crate::source::Source;
use crate::{meant, written};

/// The largest file that is read, in bytes: room for 40,000 real servers. Larger ones are mistakes, and the
/// time to say what is wrong with a file grows with its size.
pub const FILE_BYTES_MAX: usize = 4 << 20;

/// Reads the file at `path`. Components and sockets with relative paths are taken to be beside it.
///
/// # Errors
/// When the file can not be read or has an error; with everything that was found, warnings included.
pub fn load(path: &Path) -> Result<Loaded, Diagnostics> {
    let name = path.display().to_string();
    let bytes = read(path).map_err(|reason| {
        let source = Arc::new(Source::new(&name, String::new()));
        let message = format!("can not read {name}: {reason}");
        let help = "name an existing file that you may read";
        Diagnostics::from(Diagnostic::without_place(&source, Code::Unreadable, message).help(help))
    })?;
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let base = path.parent().unwrap_or_else(|| Path::new(""));
    parse_bytes(bytes, &name, base, Files::Beside(base))
}

/// Reads a configuration from a text. `name` stands in messages; relative paths in the text stay relative, and files of
/// rules are not read.
///
/// # Errors
/// When the text has an error; with everything that was found, warnings included.
pub fn parse(text: &str, name: &str) -> Result<Loaded, Diagnostics> {
    parse_bytes(text.as_bytes().to_vec(), name, Path::new(""), Files::None)
}

/// As [`parse`], with the folder that relative paths in the text start from.
///
/// # Errors
/// When the text has an error; with everything that was found, warnings included.
pub fn parse_in(text: &str, name: &str, base: &Path) -> Result<Loaded, Diagnostics> {
    parse_bytes(text.as_bytes().to_vec(), name, base, Files::Beside(base))
}

/// The bytes of a file, at most one more than is allowed.
fn read(path: &Path) -> Result<Vec<u8>, std::io::Error> {
    let limit = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The bytes of a file that is neither a device nor a pipe, which might never end.
pub(crate) fn regular(path: &Path) -> Result<Vec<u8>, std::io::Error> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    read(path)
}

fn parse_bytes(bytes: Vec<u8>, name: &str, base: &Path, files: Files<'_>) -> Result<Loaded, Diagnostics> {
    let source = Arc::new(text(bytes, name)?);
    let mut found = Diagnostics::default();
    let report = &mut |misfit: Misfit| found.push(misfit.into_diagnostic(&source));
    let Some(mut file) = document::read::<written::File>(&source, schema(), report) else {
        found.sort();
        return Err(found);
    };
    let source = gather(&mut file, source, files, &mut found);
    let loaded = meant::understand(&source, base, &file, &mut found);
    found.sort();
    if found.has_errors() { Err(found) } else { Ok(Loaded { warnings: found, ..loaded }) }
}

/// The text of a file, when it is one.
fn text(bytes: Vec<u8>, name: &str) -> Result<Source, Diagnostics> {
    if bytes.len() > FILE_BYTES_MAX {
        let source = Arc::new(Source::new(name, String::new()));
        let message = format!("{name} is larger than 4 MiB");
        let help = "name a configuration file; a real one has some kilobytes";
        return Err(Diagnostic::without_place(&source, Code::TooLarge, message).help(help).into());
    }
    String::from_utf8(bytes).map(|text| Source::new(name, text)).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let byte = error.as_bytes().get(valid).copied().unwrap_or(0);
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        let source = Arc::new(Source::new(name, text));
        let message = format!("the file is not UTF-8: byte {valid} is 0x{byte:02x}");
        Diagnostic::new(&source, Code::NotUtf8, &(valid..valid), message)
            .help("save the file as UTF-8")
            .into()
    })
}
