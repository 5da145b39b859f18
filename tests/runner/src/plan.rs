// SPDX-License-Identifier: GPL-2.0
//! Which jobs there are: builds, the scripts that are tests, and the test programs, the long ones in parts.

use std::collections::BTreeMap;
use std::path::Path;

use crate::choice::matching;
use crate::choice::Choice;
use crate::job::Counts;
use crate::job::Job;
use crate::kernel::Oldest;
use crate::kernel::On;
use crate::lanes::file_name;
use crate::remarks::Heavy;
use crate::remarks::Need;
use crate::times::Times;
use crate::workspace::build_command;
use crate::workspace::Built;
use crate::workspace::Place;
use crate::workspace::Program;
use crate::Error;

pub(crate) const PROGRAMS: &str = "build of the programs";
const MODULE: &str = "build of the module";
const OLDEST_MODULE: &str = "build of the module for the oldest kernel";
const NEWER_KERNEL: &str = "newer-kernel";
const DKMS_PACKAGE: &str = "dkms-package";

/// The key of times on the oldest kernel.
const OLDEST: &str = "oldest";

/// A script that is a test, or has some.
struct Script {
    name: &'static str,
    command: &'static str,
    after: &'static [&'static str],
    /// Whether it is one test by itself.
    whole: bool,
    /// Whether it takes names of its tests, and where each has a folder of its name.
    tests: Option<&'static str>,
    heavy: Option<Heavy<&'static str>>,
    /// How long it takes if that is not known yet.
    seconds: f64,
}

const SCRIPTS: [Script; 5] = [
    Script {
        name: "machine-room",
        command: "scripts/test-machine-room",
        after: &[PROGRAMS],
        whole: false,
        tests: None,
        heavy: None,
        seconds: 10.0,
    },
    Script {
        name: DKMS_PACKAGE,
        command: "scripts/test-dkms",
        after: &[MODULE],
        whole: true,
        tests: None,
        heavy: Some(Heavy::Wholly("it installs packages")),
        seconds: 60.0,
    },
    Script {
        name: "fuzz",
        command: "env -u DM_REMAP_FUZZ_SECONDS scripts/fuzz",
        // It is a build of its own: the other one is first, as nearly everything waits for that.
        after: &[PROGRAMS],
        whole: false,
        tests: Some("tests/fuzz/corpus"),
        heavy: Some(Heavy::Partly("more inputs")),
        seconds: 120.0,
    },
    Script {
        name: "doc",
        command: "cargo test --locked --doc --workspace -- --test-threads=1",
        after: &[PROGRAMS],
        whole: false,
        tests: None,
        heavy: None,
        seconds: 30.0,
    },
    Script {
        name: "bench-check",
        command: "scripts/bench --check docs/performance.md",
        after: &[PROGRAMS, MODULE],
        whole: true,
        tests: None,
        heavy: None,
        seconds: 300.0,
    },
];

/// A program never seen: what its start and each of its tests may take, and the least for all; and that of one
/// that has too much for each run, of which a sample is long, too.
const UNKNOWN_START: f64 = 8.0;
const UNKNOWN_TEST: f64 = 1.5;
const UNKNOWN_PROGRAM: f64 = 40.0;
const UNKNOWN_SAMPLE: f64 = 150.0;

/// No part of a program is meant to be shorter: each costs a boot.
const SHORTEST_PART: f64 = 30.0;

pub(crate) struct Plan<'a> {
    pub(crate) checkout: &'a Path,
    pub(crate) on: On,
    pub(crate) oldest: Option<Oldest>,
    pub(crate) choice: &'a Choice,
    pub(crate) programs: &'a [Program],
    pub(crate) times: &'a Times,
    pub(crate) lanes: usize,
    /// Whether it is for `make test-system`: what is heavy, and all of that.
    pub(crate) thorough: bool,
}

/// Some tests of a program, on a kernel.
struct Portion<'a> {
    program: &'a Program,
    oldest: Option<&'a Oldest>,
    tests: Vec<String>,
}

impl<'a> Plan<'a> {
    /// Refuses names that are none, as far as that is known before anything is built.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let programs = self.programs.iter().map(|program| program.name.as_str());
        self.choice
            .check(programs.chain(self.scripts().map(|script| script.name)))?;
        for script in self
            .scripts()
            .filter(|script| self.choice.wants(script.name))
        {
            self.tests_of_script(script)?;
        }
        if self.choice.is_everything() {
            return Ok(());
        }
        for program in self
            .programs
            .iter()
            .filter(|program| self.choice.wants(&program.name))
        {
            if let Some(why) = self.unfit(program) {
                return Err(
                    format!("'{}' does not run on this kernel: {why}", program.name).into(),
                );
            }
        }
        Ok(())
    }

    /// What will not run although all was asked for, and why.
    pub(crate) fn skipped(&self) -> Vec<String> {
        if !self.choice.is_everything() {
            return Vec::new();
        }
        let unfit = |program: &Program| {
            let why = self.unfit(program)?;
            Some(format!("{}: {why}", program.name))
        };
        let machines = self.programs.iter();
        let machines = machines.filter(|program| program.place == Place::Machine);
        let mut skipped: Vec<String> = machines.filter_map(unfit).collect();
        if self.on == On::Stock && self.is_usual() && self.oldest.is_none() {
            skipped.push("the oldest kernel: there is none beside this one".into());
        }
        skipped
    }

    /// What is left for `make test-system`, wholly or in part.
    pub(crate) fn left(&self) -> Vec<Heavy> {
        if !self.is_usual() {
            return Vec::new();
        }
        let scripts = self.scripts();
        let scripts = scripts.filter_map(|it| Some(it.heavy.as_ref()?.of(it.name)));
        let fit = self.programs.iter().filter(|it| self.unfit(it).is_none());
        let programs = fit.filter_map(|it| Some(it.remarks.heavy.as_ref()?.of(&it.name)));
        scripts.chain(programs).collect()
    }

    /// Whether it is the run of everything but what is too heavy for that.
    fn is_usual(&self) -> bool {
        self.choice.is_everything() && !self.thorough
    }

    /// Whether something belongs to this run by how heavy it is. What is named does anyway.
    fn has_place<S>(&self, heavy: Option<&Heavy<S>>) -> bool {
        match heavy {
            _ if !self.choice.is_everything() => true,
            Some(Heavy::Wholly(_)) => self.thorough,
            Some(Heavy::Partly(_)) => true,
            None => !self.thorough,
        }
    }

    /// Why a program cannot run on the kernel that was asked for.
    fn unfit(&self, program: &Program) -> Option<&'static str> {
        if self.on == On::Debug && program.place == Place::Host {
            return Some("it needs no kernel");
        }
        let package = program.remarks.needs.contains(&Need::DkmsPackage);
        (self.on != On::Stock && package).then_some("its package is for the stock kernel")
    }

    fn scripts(&self) -> impl Iterator<Item = &'static Script> {
        let all = self.on == On::Stock;
        SCRIPTS.iter().filter(move |_| all)
    }

    fn chosen(&self) -> impl Iterator<Item = &'a Program> + '_ {
        let chosen = self.programs.iter();
        chosen.filter(|program| {
            self.choice.wants(&program.name)
                && self.has_place(program.remarks.heavy.as_ref())
                && self.unfit(program).is_none()
        })
    }

    fn needs(&self, need: Need) -> bool {
        self.chosen()
            .any(|program| program.remarks.needs.contains(&need))
    }

    /// What can begin at once. When the job [`PROGRAMS`] is over, [`Plan::programs`] are to follow.
    pub(crate) fn first_jobs(&self) -> Result<Vec<Job>, Error> {
        let mut scripts: Vec<&Script> = self
            .scripts()
            .filter(|script| self.choice.wants(script.name))
            .filter(|script| self.has_place(script.heavy.as_ref()))
            .collect();
        if self.needs(Need::DkmsPackage)
            && !scripts.iter().any(|script| script.name == DKMS_PACKAGE)
        {
            scripts.extend(SCRIPTS.iter().find(|script| script.name == DKMS_PACKAGE));
        }
        let mut jobs = Vec::new();
        for script in &scripts {
            jobs.push(self.script(script)?);
        }
        if self.chosen().next().is_some() {
            jobs.push(self.build_of_programs());
        } else {
            // They build what they need.
            jobs.iter_mut()
                .for_each(|job| job.after.retain(|name| name != PROGRAMS));
        }
        let wanted = |job| scripts.iter().any(|script| script.after.contains(&job));
        if self.chosen().any(|program| program.place == Place::Machine) || wanted(MODULE) {
            jobs.push(self.build_of_module());
        }
        if let (Some(oldest), true) = (&self.oldest, self.is_usual()) {
            let mut job = self.build(OLDEST_MODULE, &["scripts/module"]);
            job.environment = oldest.environment();
            // They take turns anyway; and what nearly everything waits for has the processors first.
            job.after = vec![MODULE.into(), PROGRAMS.into()];
            jobs.push(job);
        }
        if self.on == On::Stock && self.is_usual() {
            let mut job = self.build(NEWER_KERNEL, &["scripts/newer-kernel"]);
            job.after = vec![MODULE.into(), PROGRAMS.into()];
            job.seconds = 0.0;
            jobs.push(job);
        }
        Ok(jobs)
    }

    fn script(&self, script: &Script) -> Result<Job, Error> {
        let mut job = self.build(script.name, &script.command.split(' ').collect::<Vec<_>>());
        let tests = self.tests_of_script(script)?;
        job.command.extend_from_slice(&tests);
        job.counts = match script.whole {
            true => Counts::Whole,
            false => Counts::Tests(tests),
        };
        job.after = script.after.iter().map(|name| name.to_string()).collect();
        let times = self.times.of(self.on.name(), script.name);
        job.seconds = times.map_or(script.seconds, |times| times.total());
        job.times = Some((self.on.name().into(), script.name.into()));
        Ok(job)
    }

    /// Those that were asked for, of a script that has some; else it runs as a whole.
    fn tests_of_script(&self, script: &Script) -> Result<Vec<String>, Error> {
        let Some(folder) = script.tests else {
            self.choice.tests(script.name, &[])?;
            return Ok(Vec::new());
        };
        let mut tests = Vec::new();
        for entry in std::fs::read_dir(self.checkout.join(folder))? {
            tests.push(entry?.file_name().to_string_lossy().into_owned());
        }
        tests.sort();
        Ok(self.choice.tests(script.name, &tests)?)
    }

    fn build_of_programs(&self) -> Job {
        if !self.is_usual() {
            let mut job = self.build(PROGRAMS, &[]);
            job.command = build_command(Some(&self.chosen().collect::<Vec<_>>()));
            return job;
        }
        // What the bench needs, too.
        let bins = "cargo build --locked --workspace --bins";
        let all = format!("{} && {bins}", build_command(None).join(" "));
        self.build(PROGRAMS, &["sh", "-c", &all])
    }

    fn build_of_module(&self) -> Job {
        let mut job = self.build(MODULE, &["scripts/module"]);
        if self.needs(Need::Examples) {
            job.environment.push(("DM_REMAP_EXAMPLES", "1".into()));
        }
        job
    }

    fn build(&self, name: &str, command: &[&str]) -> Job {
        Job {
            name: name.into(),
            command: command.iter().map(|word| word.to_string()).collect(),
            directory: self.checkout.to_path_buf(),
            environment: Vec::new(),
            after: Vec::new(),
            alone: false,
            counts: Counts::IfItFails,
            // Everything waits for it.
            seconds: 1000.0,
            times: None,
        }
    }

    /// The test programs, as they are built.
    pub(crate) fn programs(&self, built: &Built) -> Result<Vec<Job>, Error> {
        let mut portions = Vec::new();
        for program in self.chosen() {
            let all = built.tests_of(program)?;
            let tests = self.choice.tests(&program.name, &all)?;
            portions.extend(self.on_oldest(program, &all)?);
            portions.push(Portion {
                program,
                oldest: None,
                tests,
            });
        }
        portions.retain(|portion| !portion.tests.is_empty());

        let whole: f64 = portions.iter().map(|portion| self.seconds(portion)).sum();
        let share = whole / self.lanes as f64;
        let mut jobs = Vec::new();
        for portion in &portions {
            jobs.extend(self.jobs_of(portion, built, (share / 2.0).max(SHORTEST_PART))?);
        }
        Ok(jobs)
    }

    /// What of a program runs on the oldest kernel, too.
    fn on_oldest(
        &self,
        program: &'a Program,
        all: &[String],
    ) -> Result<Option<Portion<'_>>, Error> {
        let (Some(oldest), Some(names)) = (&self.oldest, &program.remarks.on_oldest) else {
            return Ok(None);
        };
        if !self.is_usual() {
            return Ok(None);
        }
        let mut tests = all.to_vec();
        if !names.is_empty() {
            let mut named = Vec::new();
            for name in names {
                let found = matching(name, all);
                if found.is_empty() {
                    return Err(format!("{} has no test '{name}'", program.name).into());
                }
                named.extend(found);
            }
            tests.retain(|test| named.contains(&test.as_str()));
        }
        Ok(Some(Portion {
            program,
            oldest: Some(oldest),
            tests,
        }))
    }

    fn jobs_of(&self, portion: &Portion<'_>, built: &Built, limit: f64) -> Result<Vec<Job>, Error> {
        let program = portion.program;
        let time = |test: &str| self.seconds_of_test(portion, test);
        let parts = parts(&portion.tests, time, limit);
        let of = parts.len();
        let mut jobs = Vec::new();
        for (at, tests) in parts.into_iter().enumerate() {
            let mut name = program.name.clone();
            if let Some(oldest) = portion.oldest {
                name += &format!(" on {}", oldest.version);
            }
            if of > 1 {
                name += &format!(" {}/{of}", at + 1);
            }
            let mut job = self.build(&name, &[]);
            job.command = built.command(program, &tests)?;
            job.directory = program.directory.clone();
            job.after.push(PROGRAMS.into());
            if program.place == Place::Machine {
                let module = if portion.oldest.is_some() {
                    OLDEST_MODULE
                } else {
                    MODULE
                };
                job.after.push(module.into());
                let log = format!("target/log/vm/{}.log", file_name(&name));
                let log = self.checkout.join(log).display().to_string();
                job.environment.push(("DM_REMAP_VM_LOG", log));
                // It was built when this run began; who edits meanwhile disturbs nothing.
                job.environment.push(("DM_REMAP_MODULE_IS_NEW", "1".into()));
            }
            if program.remarks.needs.contains(&Need::DkmsPackage) {
                job.after.push(DKMS_PACKAGE.into());
            }
            if let Some(oldest) = portion.oldest {
                job.environment.extend(oldest.environment());
            }
            job.alone = program.remarks.alone;
            job.seconds = self.start(portion) + tests.iter().map(|test| time(test)).sum::<f64>();
            job.counts = Counts::Tests(tests);
            job.times = Some((self.key(portion).into(), program.name.clone()));
            jobs.push(job);
        }
        Ok(jobs)
    }

    fn key(&self, portion: &Portion<'_>) -> &'static str {
        match portion.oldest {
            Some(_) => OLDEST,
            None => self.on.name(),
        }
    }

    fn seconds(&self, portion: &Portion<'_>) -> f64 {
        let tests = portion.tests.iter();
        self.start(portion)
            + tests
                .map(|test| self.seconds_of_test(portion, test))
                .sum::<f64>()
    }

    fn start(&self, portion: &Portion<'_>) -> f64 {
        let known = self.times.of(self.key(portion), &portion.program.name);
        match (known, portion.program.place) {
            (Some(times), _) => times.start,
            (None, Place::Machine) => UNKNOWN_START,
            (None, Place::Host) => 0.0,
        }
    }

    fn seconds_of_test(&self, portion: &Portion<'_>, test: &str) -> f64 {
        let known = self.times.of(self.key(portion), &portion.program.name);
        let known = known.and_then(|times| times.tests.get(test));
        known.copied().unwrap_or_else(|| {
            if portion.program.place == Place::Host {
                return UNKNOWN_TEST;
            }
            // Programs with few tests are not short, the tests are long.
            let least = match portion.program.remarks.heavy {
                None => UNKNOWN_PROGRAM,
                Some(_) => UNKNOWN_SAMPLE,
            };
            UNKNOWN_TEST.max(least / portion.tests.len() as f64)
        })
    }
}

/// Cuts a program between its modules, so that no part takes much longer than `limit` if that can be had.
fn parts(tests: &[String], time: impl Fn(&str) -> f64, limit: f64) -> Vec<Vec<String>> {
    let mut modules: BTreeMap<&str, f64> = BTreeMap::new();
    let module = |test| str::split(test, "::").next().unwrap_or(test);
    for test in tests {
        *modules.entry(module(test)).or_default() += time(test);
    }
    let whole: f64 = modules.values().sum();
    let count = ((whole / limit).ceil() as usize).clamp(1, modules.len().max(1));

    // The longest module first, each to the part that has least.
    let mut modules: Vec<(&str, f64)> = modules.into_iter().collect();
    modules.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut parts: Vec<(f64, Vec<&str>)> = vec![(0.0, Vec::new()); count];
    for (name, seconds) in modules {
        if let Some(part) = parts.iter_mut().min_by(|a, b| a.0.total_cmp(&b.0)) {
            part.0 += seconds;
            part.1.push(name);
        }
    }
    let of_part = |part: &[&str]| {
        let tests = tests.iter().filter(|test| part.contains(&module(test)));
        tests.cloned().collect()
    };
    parts.iter().map(|(_, part)| of_part(part)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The checkout that we are in.
    fn checkout() -> &'static Path {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        package.ancestors().nth(2).expect("a checkout")
    }

    fn oldest() -> Option<Oldest> {
        Some(Oldest::imagined("7.2"))
    }

    /// What `then` sees of the plan for these names.
    fn with_plan<T>(on: On, names: &str, then: impl FnOnce(&Plan<'_>) -> T) -> T {
        with_any_plan(on, names, false, then)
    }

    fn with_any_plan<T>(
        on: On,
        names: &str,
        thorough: bool,
        then: impl FnOnce(&Plan<'_>) -> T,
    ) -> T {
        let programs = [
            Program::imagined("logic", Place::Host, ""),
            Program::imagined(
                "errors",
                Place::Machine,
                "//! More in test-system: all of them.",
            ),
            Program::imagined(
                "abstraction",
                Place::Machine,
                "//! Needs: the example modules.",
            ),
            Program::imagined(
                "dkms",
                Place::Machine,
                "//! Needs: dkms-package.\n//! Only in test-system: it installs packages.",
            ),
        ];
        then(&Plan {
            checkout: checkout(),
            on,
            oldest: oldest().filter(|_| on == On::Stock),
            choice: &Choice::new(&[names.to_string()]),
            programs: &programs,
            times: &Times::default(),
            lanes: 2,
            thorough,
        })
    }

    fn first_jobs(on: On, names: &str) -> Vec<Job> {
        with_plan(on, names, |plan| {
            plan.check().unwrap();
            plan.first_jobs().unwrap()
        })
    }

    fn names(jobs: &[Job]) -> Vec<&str> {
        let mut names: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
        names.sort();
        names
    }

    fn refusal(on: On, names: &str) -> String {
        with_plan(on, names, |plan| plan.check().unwrap_err().to_string())
    }

    #[test]
    fn all_there_is() {
        let jobs = first_jobs(On::Stock, "");
        assert_eq!(
            names(&jobs),
            [
                "bench-check",
                MODULE,
                OLDEST_MODULE,
                PROGRAMS,
                "doc",
                "fuzz",
                "machine-room",
                NEWER_KERNEL
            ]
        );
        let module = jobs.iter().find(|job| job.name == MODULE).unwrap();
        assert_eq!(module.environment, [("DM_REMAP_EXAMPLES", "1".to_string())]);
        let skipped = with_plan(On::Stock, "", |plan| plan.skipped());
        assert!(skipped.is_empty());
    }

    #[test]
    fn what_is_heavy_is_left_and_told_and_has_a_run_of_its_own() {
        let left = with_plan(On::Stock, "", |plan| plan.left());
        let wholly = |what: &str| Heavy::Wholly(what.to_string());
        let partly = |what: &str| Heavy::Partly(what.to_string());
        assert_eq!(
            left,
            [
                wholly("dkms-package (it installs packages)"),
                partly("fuzz (more inputs)"),
                partly("errors (all of them)"),
                wholly("dkms (it installs packages)"),
            ]
        );
        with_any_plan(On::Stock, "", true, |plan| {
            let jobs = plan.first_jobs().unwrap();
            let expected = [MODULE, PROGRAMS, DKMS_PACKAGE, "fuzz"];
            assert_eq!(names(&jobs), expected);
            let programs: Vec<&str> = plan.chosen().map(|it| it.name.as_str()).collect();
            assert_eq!(programs, ["errors", "dkms"]);
            assert!(plan.left().is_empty() && plan.skipped().is_empty());
        });
        // Nothing is said of it where something was asked for.
        assert!(with_plan(On::Stock, "errors", |plan| plan.left()).is_empty());
    }

    #[test]
    fn a_program_of_the_host_needs_no_module() {
        assert_eq!(names(&first_jobs(On::Stock, "logic::load")), [PROGRAMS]);
    }

    #[test]
    fn a_program_brings_what_it_needs_and_no_more() {
        let jobs = first_jobs(On::Stock, "errors");
        assert_eq!(names(&jobs), [MODULE, PROGRAMS]);
        assert!(jobs.iter().all(|job| job.environment.is_empty()));
        let jobs = first_jobs(On::Stock, "dkms");
        assert_eq!(names(&jobs), [MODULE, PROGRAMS, DKMS_PACKAGE]);
    }

    #[test]
    fn a_script_alone_waits_for_nothing_that_is_not_built() {
        let jobs = first_jobs(On::Stock, "bench-check fuzz::text");
        assert_eq!(names(&jobs), ["bench-check", MODULE, "fuzz"]);
        let fuzz = jobs.iter().find(|job| job.name == "fuzz").unwrap();
        assert_eq!(fuzz.counts, Counts::Tests(vec!["text".into()]));
        let bench = jobs.iter().find(|job| job.name == "bench-check").unwrap();
        assert_eq!(bench.after, [MODULE]);
    }

    #[test]
    fn other_kernels_have_fewer() {
        assert_eq!(names(&first_jobs(On::Quick, "")), [MODULE, PROGRAMS]);
        let skipped = with_plan(On::Quick, "", |plan| plan.skipped());
        assert_eq!(skipped, ["dkms: its package is for the stock kernel"]);
        assert!(refusal(On::Quick, "dkms").contains("does not run on this kernel"));
        assert!(refusal(On::Debug, "logic").contains("does not run on this kernel"));
        assert!(refusal(On::Debug, "fuzz").contains("there is no test 'fuzz'"));
    }

    #[test]
    fn what_a_script_does_not_have_is_refused() {
        assert_eq!(
            refusal(On::Stock, "fuzz::txt"),
            "there is no test 'fuzz::txt'; like it: fuzz::text"
        );
        assert!(refusal(On::Stock, "bench-check::one")
            .starts_with("there is no test 'bench-check::one'"));
    }

    fn tests() -> Vec<String> {
        ["a::1", "a::2", "b::1", "c::1", "d"]
            .map(String::from)
            .into()
    }

    #[test]
    fn a_short_program_is_whole() {
        assert_eq!(parts(&tests(), |_| 1.0, 5.0), [tests()]);
    }

    #[test]
    fn a_long_one_is_cut_between_modules_into_equal_parts() {
        let found = parts(&tests(), |_| 1.0, 3.0);
        assert_eq!(found, [vec!["a::1", "a::2", "d"], vec!["b::1", "c::1"]]);
    }

    #[test]
    fn times_decide() {
        let time = |test: &str| if test == "d" { 9.0 } else { 1.0 };
        let found = parts(&tests(), time, 9.0);
        assert_eq!(found, [vec!["d"], vec!["a::1", "a::2", "b::1", "c::1"]]);
    }

    #[test]
    fn there_are_no_more_parts_than_modules_and_none_is_empty() {
        let found = parts(&tests(), |_| 100.0, 1.0);
        assert_eq!(found.len(), 4);
        assert!(found.iter().all(|part| !part.is_empty()));
        assert_eq!(found.iter().flatten().count(), tests().len());
    }
}
