// SPDX-License-Identifier: GPL-2.0
//! The files that are copied, and their checksums.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// How much is copied, at least.
const BYTES: u64 = 200 << 20;

/// Real files, of which every Debian with our tools has enough.
const TREES: [&str; 4] = [
    "/usr/lib/llvm-19/lib",
    "/usr/share",
    "/usr/lib/rustlib",
    "/usr/lib/x86_64-linux-gnu",
];

/// What is copied: each file with its size and SHA-256, by path.
#[derive(Debug, Default)]
pub(crate) struct Files {
    all: BTreeMap<PathBuf, (u64, String)>,
}

impl Files {
    /// Chooses files and takes their checksums.
    pub(crate) fn choose() -> Result<Self, String> {
        let mut sizes = BTreeMap::new();
        let mut total = 0;
        for tree in TREES {
            let mut files = Vec::new();
            walk(Path::new(tree), &mut files);
            files.sort();
            for (path, size) in files {
                if total >= BYTES {
                    break;
                }
                total += size;
                sizes.insert(path, size);
            }
        }
        if total < BYTES {
            return Err(format!("only {} MiB of files to copy", total >> 20));
        }
        let mut all = BTreeMap::new();
        let paths: Vec<&Path> = sizes.keys().map(PathBuf::as_path).collect();
        for chunk in paths.chunks(500) {
            let sums = checksums(chunk).map_err(|error| format!("sha256sum: {error}"))?;
            for (path, sum) in sums {
                let size = sizes.get(&path).copied().unwrap_or(0);
                all.insert(path, (size, sum));
            }
        }
        Ok(Self { all })
    }

    /// Reads what `save` wrote.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("{path:?}: {error}"))?;
        let parse = |line: &str| {
            let (size, rest) = line.split_once(' ')?;
            let (sum, path) = rest.split_once(' ')?;
            Some((PathBuf::from(path), (size.parse().ok()?, sum.to_string())))
        };
        let all: Option<_> = text.lines().map(parse).collect();
        Ok(Self {
            all: all.ok_or("a list of files that cannot be read")?,
        })
    }

    /// Writes the list to a file.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        let line = |(path, (size, sum)): (&PathBuf, &(u64, String))| {
            format!("{size} {sum} {}\n", path.display())
        };
        fs::write(path, self.all.iter().map(line).collect::<String>())
    }

    /// How many files there are.
    pub(crate) fn count(&self) -> usize {
        self.all.len()
    }

    /// How many MiB they are.
    pub(crate) fn mib(&self) -> u64 {
        self.all.values().map(|(size, _)| size).sum::<u64>() >> 20
    }

    /// The files, in the order in which they are copied.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.all.keys().map(PathBuf::as_path)
    }

    /// The size of a file.
    pub(crate) fn size(&self, path: &Path) -> u64 {
        self.all.get(path).map_or(0, |(size, _)| *size)
    }

    /// Copies one file below `folder`, as `cp` would.
    pub(crate) fn copy(&self, path: &Path, folder: &Path) -> io::Result<()> {
        let target = place(path, folder);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(path, target).map(drop)
    }

    /// Which of these files differ from their checksums below `folder`, or cannot be read.
    pub(crate) fn damaged<'a>(
        &self,
        which: impl Iterator<Item = &'a Path>,
        folder: &Path,
    ) -> Vec<(PathBuf, Damage)> {
        let wanted: Vec<&Path> = which.collect();
        let mut damaged = Vec::new();
        for chunk in wanted.chunks(500) {
            let places: Vec<PathBuf> = chunk.iter().map(|path| place(path, folder)).collect();
            let places: Vec<&Path> = places.iter().map(PathBuf::as_path).collect();
            // It tells of the files that it could read, and fails for the others.
            let sums = checksums(&places).unwrap_or_default();
            for (path, place) in chunk.iter().zip(places) {
                let right = self.all.get(*path).map(|(_, sum)| sum);
                match sums.get(place) {
                    Some(sum) if Some(sum) == right => (),
                    Some(_) => damaged.push((path.to_path_buf(), Damage::Wrong)),
                    None => damaged.push((path.to_path_buf(), Damage::Unreadable)),
                }
            }
        }
        damaged
    }
}

/// How a file is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// It reads, but not as what was copied.
    Wrong,
    /// It is not there, or cannot be read.
    Unreadable,
}

/// Where the copy of a file is.
pub(crate) fn place(path: &Path, folder: &Path) -> PathBuf {
    folder.join(path.strip_prefix("/").unwrap_or(path))
}

fn checksums(paths: &[&Path]) -> io::Result<BTreeMap<PathBuf, String>> {
    let output = Command::new("sha256sum").args(paths).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(sum, path)| (PathBuf::from(path), sum.to_string()))
        .collect())
}

/// Regular files with names that need no quoting.
fn walk(folder: &Path, found: &mut Vec<(PathBuf, u64)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let plain = path
            .to_str()
            .is_some_and(|name| !name.contains(['\n', '\\']));
        match entry.metadata() {
            Ok(data) if data.is_dir() => walk(&path, found),
            Ok(data) if data.is_file() && plain => found.push((path, data.len())),
            _ => (),
        }
    }
}
