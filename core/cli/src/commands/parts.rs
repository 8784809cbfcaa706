//! Files that are there whole, or not at all: written under another name, and given their own when they are done.
//!
//! Whoever stops a run finds the outputs that were finished, each of them readable, beside files called `NAME.part`,
//! which the next run into the same folder writes over.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What a file is called until it is done.
const SUFFIX: &str = ".part";

/// Files of a folder that are being written.
#[derive(Debug)]
pub(super) struct Parts {
    folder: PathBuf,
    names: Vec<String>,
}

impl Parts {
    /// Makes the folder where it is not there.
    ///
    /// # Errors
    /// When the folder can not be made.
    pub(super) fn in_folder(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned(), names: Vec::new() })
    }

    /// Begins a file.
    ///
    /// # Errors
    /// When it can not be made.
    pub(super) fn open(&mut self, name: &str) -> io::Result<File> {
        let file = File::create(self.part(name))?;
        self.names.push(name.to_owned());
        Ok(file)
    }

    /// Gives every file that was begun its name: they have been written to their end.
    ///
    /// # Errors
    /// When a file can not be renamed.
    pub(super) fn finish(self) -> io::Result<()> {
        for name in &self.names {
            std::fs::rename(self.part(name), self.folder.join(name))?;
        }
        Ok(())
    }

    fn part(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}{SUFFIX}"))
    }
}

/// Writes a file of which nobody sees a part: what was there stays until the new one is whole.
///
/// # Errors
/// When it can not be written or renamed.
pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(SUFFIX);
    let mut file = File::create(&part)?;
    file.write_all(content)?;
    drop(file);
    std::fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("evenkeel-parts-{name}-{}", std::process::id()));
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let entries = std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_has_its_name_when_it_is_done_and_not_before() {
        let folder = Folder::new("named");
        let mut parts = Parts::in_folder(&folder.0).unwrap();
        parts.open("one").unwrap().write_all(b"1").unwrap();
        parts.open("two").unwrap().write_all(b"2").unwrap();
        assert_eq!(folder.names(), ["one.part", "two.part"]);
        parts.finish().unwrap();
        assert_eq!(folder.names(), ["one", "two"]);
        assert_eq!(std::fs::read(folder.0.join("two")).unwrap(), b"2");
    }

    #[test]
    fn what_was_there_stays_until_the_new_one_is_whole() {
        let folder = Folder::new("stays");
        std::fs::create_dir_all(&folder.0).unwrap();
        let path = folder.0.join("result.json");
        write(&path, b"old").unwrap();
        let mut parts = Parts::in_folder(&folder.0).unwrap();
        parts.open("result.json").unwrap().write_all(b"ne").unwrap();
        drop(parts);
        assert_eq!(std::fs::read(&path).unwrap(), b"old", "it was never finished");
        write(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(folder.names(), ["result.json"]);
    }
}
