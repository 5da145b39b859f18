// SPDX-License-Identifier: GPL-2.0

//! Files that are there whole or not at all, and never in the place of another one unless that is meant.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::BufWriter;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use crate::error::Error;
use crate::error::Result;

/// Makes a file that must not exist, and makes it durable but for its name.
pub(crate) fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).open(path)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if written.is_err() {
        // It is not whole. If it can't be removed, either, that is no news.
        let _ = fs::remove_file(path);
    }
    written
}

/// Makes the names in a file's folder durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all())
}

/// Makes files in a folder: all of them, or none. None of them may exist.
pub(crate) fn create_all(folder: &Path, files: &[(String, String)]) -> Result<()> {
    let paths: Vec<PathBuf> = files.iter().map(|(name, _)| folder.join(name)).collect();
    fs::create_dir_all(folder).map_err(|e| Error::io(folder, "make it", &e))?;
    if let Some(there) = paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(Error::usage(format!(
            "{}: is there already, and is not overwritten: name another directory, or remove it",
            there.display()
        )));
    }
    for (index, (path, (_, content))) in paths.iter().zip(files).enumerate() {
        if let Err(error) = create(path, content.as_bytes()) {
            for made in paths.iter().take(index) {
                let _ = fs::remove_file(made);
            }
            return Err(Error::io(path, "write it", &error));
        }
    }
    let last = folder.join(".");
    sync_folder(&last).map_err(|e| Error::io(folder, "write it", &e))
}

/// A file that takes its place once all of it is on disk. Until then it lies beside that place, and what was there
/// stays.
#[derive(Debug)]
pub(crate) struct Replacement {
    path: PathBuf,
    beside: PathBuf,
    file: Option<BufWriter<File>>,
    failed: Option<Error>,
}

impl Replacement {
    /// Begins with an empty one. Where the place is a link, the file that it leads to is meant.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let failed = |error: io::Error| Error::io(path, "write it", &error);
        let old = fs::metadata(path).ok();
        if old.as_ref().is_some_and(|old| !old.is_file()) {
            return Err(Error::usage(format!(
                "{}: not a file, and only a file is replaced",
                path.display()
            )));
        }
        let target = match old {
            Some(_) => fs::canonicalize(path).map_err(failed)?,
            None => path.into(),
        };
        let Some(name) = target.file_name() else {
            return Err(Error::usage(format!("{}: no file name", path.display())));
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.new", std::process::id()));
        let beside = target.with_file_name(hidden);
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).open(&beside);
        let file = file.map_err(failed)?;
        let made = Self {
            path: target,
            beside,
            file: Some(BufWriter::new(file)),
            failed: None,
        };
        if let Some(old) = old {
            // Who may read it does not change.
            fs::set_permissions(&made.beside, old.permissions()).map_err(failed)?;
        }
        Ok(made)
    }

    /// Whether something of it could not be written.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Puts it in its place. An error of before is told here, too.
    pub(crate) fn finish(mut self) -> Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        let done = file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&self.beside, &self.path));
        if let Err(error) = done {
            let _ = fs::remove_file(&self.beside);
            return Err(self.error(&error));
        }
        sync_folder(&self.path).map_err(|error| self.error(&error))
    }

    fn error(&self, error: &io::Error) -> Error {
        Error::io(&self.path, "write it", error)
    }
}

impl Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(file) = &mut self.file else {
            return Ok(bytes.len());
        };
        let written = file.write(bytes);
        if let (Err(error), None) = (&written, &self.failed) {
            self.failed = Some(Error::io(&self.path, "write it", error));
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // What is still buffered is not wanted any more.
            let _ = file.into_parts();
            let _ = fs::remove_file(&self.beside);
        }
    }
}
