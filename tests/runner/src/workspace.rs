// SPDX-License-Identifier: GPL-2.0
//! The test programs that the workspace has, from cargo: what they are, how they are built, and which
//! tests are in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use cargo_metadata::Message;
use cargo_metadata::MetadataCommand;
use cargo_metadata::Target;

use crate::remarks::Remarks;
use crate::Error;

/// The package whose programs are for virtual machines, and the program that starts these.
const MACHINE_PACKAGE: &str = "dm-remap-vm-tests";
const MACHINE_RUNNER: &str = "dm-remap-vm";

/// Whether a program needs a machine and the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Host,
    Machine,
}

/// A program of tests: that of a library, a binary, or a file or folder in `tests`.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) name: String,
    /// What cargo calls it.
    target: TestTarget,
    pub(crate) place: Place,
    /// The folder of its package, where it runs.
    pub(crate) directory: PathBuf,
    pub(crate) remarks: Remarks,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum TestTarget {
    Library(String),
    Binary(String),
    Test(String),
}

impl TestTarget {
    fn new(target: &Target) -> Option<Self> {
        let name = target.name.clone();
        if target.is_lib() {
            Some(Self::Library(name))
        } else if target.is_bin() {
            Some(Self::Binary(name))
        } else {
            target.is_test().then_some(Self::Test(name))
        }
    }
}

#[cfg(test)]
impl Program {
    /// One that only exists in tests of ours.
    pub(crate) fn imagined(name: &str, place: Place, comment: &str) -> Self {
        Self {
            name: name.into(),
            target: TestTarget::Test(name.into()),
            place,
            directory: "/".into(),
            remarks: Remarks::new(comment).expect("remarks"),
        }
    }
}

/// All test programs of the workspace at `checkout`.
pub(crate) fn programs(checkout: &Path) -> Result<Vec<Program>, Error> {
    let metadata = MetadataCommand::new()
        .current_dir(checkout)
        .no_deps()
        .other_options(["--locked".to_string()])
        .exec()?;
    let mut programs = Vec::new();
    for package in metadata.packages {
        let directory = package.manifest_path.parent();
        let directory = directory.map(|path| path.as_std_path().to_path_buf());
        for target in package.targets.iter().filter(|target| target.test) {
            let Some(kind) = TestTarget::new(target) else {
                continue;
            };
            let remarks = Remarks::new(&fs::read_to_string(&target.src_path)?)
                .map_err(|error| format!("{}: {error}", target.src_path))?;
            programs.push(Program {
                name: target.name.clone(),
                place: match &kind {
                    TestTarget::Test(_) if package.name == MACHINE_PACKAGE => Place::Machine,
                    _ => Place::Host,
                },
                target: kind,
                directory: directory.clone().unwrap_or_default(),
                remarks,
            });
        }
    }
    Ok(programs)
}

/// The command that builds these programs, or all that the workspace has. Features are those of the whole
/// workspace in both cases, so that neither undoes what the other did.
pub(crate) fn build_command(chosen: Option<&[&Program]>) -> Vec<String> {
    let test = "cargo test --locked --no-run --workspace --message-format=json-render-diagnostics";
    let mut command: Vec<String> = test.split(' ').map(str::to_string).collect();
    for program in chosen.unwrap_or_default() {
        match &program.target {
            TestTarget::Library(_) => command.push("--lib".into()),
            TestTarget::Binary(name) => command.extend(["--bin".into(), name.clone()]),
            TestTarget::Test(name) => command.extend(["--test".into(), name.clone()]),
        }
    }
    command
}

/// Where cargo has put what it built.
#[derive(Debug, Default)]
pub(crate) struct Built {
    tests: BTreeMap<TestTarget, PathBuf>,
    machine_runner: Option<PathBuf>,
}

impl Built {
    /// Reads what the build command printed.
    pub(crate) fn new(output: &str) -> Self {
        let mut built = Self::default();
        for message in Message::parse_stream(output.as_bytes()) {
            let Ok(Message::CompilerArtifact(artifact)) = message else {
                continue;
            };
            let (Some(path), Some(target)) =
                (artifact.executable, TestTarget::new(&artifact.target))
            else {
                continue;
            };
            let path = path.into_std_path_buf();
            if artifact.profile.test {
                built.tests.insert(target, path);
            } else if target == TestTarget::Binary(MACHINE_RUNNER.into()) {
                built.machine_runner = Some(path);
            }
        }
        built
    }

    /// The names of its tests, less those that only run when they are called by name.
    pub(crate) fn tests_of(&self, program: &Program) -> Result<Vec<String>, Error> {
        let ignored = self.list(program, &["--ignored"])?;
        let mut tests = self.list(program, &[])?;
        tests.retain(|test| !ignored.contains(test));
        Ok(tests)
    }

    fn list(&self, program: &Program, arguments: &[&str]) -> Result<Vec<String>, Error> {
        let listed = Command::new(self.executable(program)?)
            .args(["--list", "--format=terse"])
            .args(arguments)
            .output()?;
        if !listed.status.success() {
            return Err(format!("{} --list: {}", program.name, listed.status).into());
        }
        let text = String::from_utf8(listed.stdout)?;
        let lines = text.lines().filter_map(|line| line.strip_suffix(": test"));
        Ok(lines.map(str::to_string).collect())
    }

    /// The command that runs these tests of it, one after the other.
    pub(crate) fn command(
        &self,
        program: &Program,
        tests: &[String],
    ) -> Result<Vec<String>, Error> {
        let mut command = Vec::new();
        if program.place == Place::Machine {
            let runner = self.machine_runner.as_ref();
            command.push(text(runner.ok_or("cargo built no dm-remap-vm")?)?);
        }
        command.push(text(self.executable(program)?)?);
        command.extend(["--test-threads=1", "--exact"].map(String::from));
        command.extend_from_slice(tests);
        Ok(command)
    }

    fn executable(&self, program: &Program) -> Result<&Path, Error> {
        let found = self.tests.get(&program.target);
        let found = found.ok_or_else(|| format!("cargo did not build {}", program.name))?;
        Ok(found)
    }
}

fn text(path: &Path) -> Result<String, Error> {
    let text = path.to_str().ok_or("a path that is no text")?;
    Ok(text.to_string())
}
