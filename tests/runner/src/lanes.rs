// SPDX-License-Identifier: GPL-2.0
//! Runs jobs, so many at a time: first those that most of the remaining time depends on.
//!
//! Each job that runs has a thread, which reads what it prints, keeps that in its log, and sends what
//! became of it. All else happens in the caller's thread.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::job::Counts;
use crate::job::Ended;
use crate::job::Job;
use crate::report::Report;
use crate::report::State;
use crate::report::Test;
use crate::report::Verdict;
use crate::say;

/// How often something is said, at least.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

pub(crate) struct Lanes {
    count: usize,
    checkout: PathBuf,
    waiting: Vec<Job>,
    running: BTreeMap<String, Running>,
    /// Whether each went well.
    done: BTreeMap<String, bool>,
    sender: mpsc::Sender<Ended>,
    receiver: mpsc::Receiver<Ended>,
}

struct Running {
    since: Instant,
    alone: bool,
    expected: usize,
    reported: Arc<AtomicUsize>,
}

impl Lanes {
    pub(crate) fn new(count: usize, checkout: &Path) -> Self {
        let (sender, receiver) = mpsc::channel();
        Self {
            count,
            checkout: checkout.to_path_buf(),
            waiting: Vec::new(),
            running: BTreeMap::new(),
            done: BTreeMap::new(),
            sender,
            receiver,
        }
    }

    pub(crate) fn add(&mut self, jobs: Vec<Job>) {
        self.waiting.extend(jobs);
    }

    /// Starts no more.
    pub(crate) fn drop_waiting(&mut self) {
        self.waiting.clear();
    }

    /// Waits for the next job that ends; none if all did.
    pub(crate) fn next(&mut self) -> io::Result<Option<Ended>> {
        if let Some(at) = self
            .waiting
            .iter()
            .position(|job| self.blocker(job).is_some())
        {
            let job = self.waiting.remove(at);
            let blocker = self.blocker(&job).unwrap_or_default().to_string();
            self.done.insert(job.name.clone(), false);
            return Ok(Some(not_run(job, &blocker)));
        }
        while let Some(at) = self.startable() {
            let job = self.waiting.remove(at);
            self.start(job)?;
        }
        if self.running.is_empty() {
            return match self.waiting.first() {
                None => Ok(None),
                Some(job) => Err(io::Error::other(format!(
                    "{} waits for {}, which is not to run",
                    job.name,
                    job.after.join(", ")
                ))),
            };
        }
        let ended = loop {
            match self.receiver.recv_timeout(SIGN_OF_LIFE) {
                Ok(ended) => break ended,
                Err(_) => say(&self.sign_of_life()),
            }
        };
        self.running.remove(&ended.job.name);
        let well = ended.failed() == 0;
        self.done.insert(ended.job.name.clone(), well);
        Ok(Some(ended))
    }

    /// What a job waits for in vain.
    fn blocker<'a>(&self, job: &'a Job) -> Option<&'a str> {
        let failed = |name: &&String| self.done.get(*name) == Some(&false);
        job.after.iter().find(failed).map(String::as_str)
    }

    /// Those that have to be alone come last, one by one.
    fn startable(&self) -> Option<usize> {
        if self.running.len() >= self.count || self.running.values().any(|job| job.alone) {
            return None;
        }
        let ready = self.waiting.iter().enumerate().filter(|(_, job)| {
            let last = self.running.is_empty() && self.waiting.iter().all(|job| job.alone);
            job.after
                .iter()
                .all(|name| self.done.get(name) == Some(&true))
                && (!job.alone || last)
        });
        ready
            .max_by(|(_, a), (_, b)| {
                urgency(a, &self.waiting).total_cmp(&urgency(b, &self.waiting))
            })
            .map(|(at, _)| at)
    }

    fn start(&mut self, job: Job) -> io::Result<()> {
        let log = PathBuf::from(format!("target/log/jobs/{}.log", file_name(&job.name)));
        let path = self.checkout.join(&log);
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        let file = File::create(&path)?;
        let reported = Arc::new(AtomicUsize::new(0));
        let expected = match &job.counts {
            Counts::Tests(tests) => tests.len(),
            _ => 0,
        };
        self.running.insert(
            job.name.clone(),
            Running {
                since: Instant::now(),
                alone: job.alone,
                expected,
                reported: Arc::clone(&reported),
            },
        );
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            let ended = run(job, log, file, &reported);
            // We are waited for, unless the whole program ends.
            let _ = sender.send(ended);
        });
        Ok(())
    }

    fn sign_of_life(&self) -> String {
        let running = self.running.iter().map(|(name, job)| {
            let time = minutes(job.since.elapsed());
            match job.expected {
                0 => format!("{name} ({time})"),
                of => {
                    let reported = job.reported.load(Ordering::Relaxed);
                    format!("{name} ({time}, {reported} of {of})")
                }
            }
        });
        let running: Vec<String> = running.collect();
        match self.waiting.len() {
            0 => format!("running: {}", running.join(", ")),
            more => format!("running: {}; {more} more", running.join(", ")),
        }
    }
}

/// The time of a job and of what waits for it.
fn urgency(job: &Job, all: &[Job]) -> f64 {
    let behind = all
        .iter()
        .filter(|other| other.after.contains(&job.name))
        .map(|other| urgency(other, all))
        .fold(0.0, f64::max);
    job.seconds + behind
}

fn run(job: Job, log: PathBuf, mut file: File, reported: &AtomicUsize) -> Ended {
    let start = Instant::now();
    let mut report = Report::default();
    let mut output = String::new();
    let status = follow(&job, |line| {
        // What cannot be kept is still read; and cargo's words to programs are for nobody else.
        if !line.starts_with('{') {
            let _ = writeln!(file, "{line}");
        }
        output.push_str(line);
        output.push('\n');
        report.line(start.elapsed(), line);
        reported.store(report.done(), Ordering::Relaxed);
    });
    let time = start.elapsed();
    let status = match status {
        Ok(status) if status.success() => None,
        Ok(status) => Some(status.to_string()),
        Err(error) => Some(format!("it cannot be started: {error}")),
    };
    let status = status.as_deref();
    let verdict = match &job.counts {
        Counts::Tests(expected) => report.end(time, status, expected),
        Counts::Whole => report.end_of_whole(time, status, &job.name),
        Counts::IfItFails => Verdict {
            tests: Vec::new(),
            skips: Vec::new(),
            fault: report.end_of_whole(time, status, &job.name).fault,
        },
    };
    Ended {
        job,
        verdict,
        time,
        output,
        log: Some(log),
    }
}

/// Runs the command and hands on each line, of both streams, as it comes.
fn follow(job: &Job, mut each: impl FnMut(&str)) -> io::Result<std::process::ExitStatus> {
    let mut child = Command::new("sh")
        .args(["-c", "exec \"$@\" 2>&1", "sh"])
        .args(&job.command)
        .current_dir(&job.directory)
        .envs(job.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(stdout) = child.stdout.take() {
        let mut stdout = BufReader::new(stdout);
        let mut line = Vec::new();
        while stdout.read_until(b'\n', &mut line)? > 0 {
            let text = String::from_utf8_lossy(&line);
            each(text.trim_end_matches(['\n', '\r']));
            line.clear();
        }
    }
    child.wait()
}

/// All that was expected of it has failed.
fn not_run(job: Job, blocker: &str) -> Ended {
    let names = match &job.counts {
        Counts::Tests(tests) if !tests.is_empty() => tests.clone(),
        _ => vec![job.name.clone()],
    };
    let tests = names.into_iter().map(|name| Test {
        name,
        state: State::NotRun,
        time: Duration::ZERO,
    });
    Ended {
        verdict: Verdict {
            tests: tests.collect(),
            skips: Vec::new(),
            fault: Some(format!("not run, because {blocker} failed")),
        },
        job,
        time: Duration::ZERO,
        output: String::new(),
        log: None,
    }
}

/// `errors 1/3` makes `errors-1-3`.
pub(crate) fn file_name(job: &str) -> String {
    job.replace([' ', '/'], "-")
}

pub(crate) fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, script: &str, after: &[&str], seconds: f64) -> Job {
        Job {
            name: name.into(),
            command: ["sh", "-c", script].map(String::from).into(),
            directory: "/".into(),
            environment: vec![("GREETING", "hello".into())],
            after: after.iter().map(|name| name.to_string()).collect(),
            alone: false,
            counts: Counts::Whole,
            seconds,
            times: None,
        }
    }

    /// The names of the jobs in the order in which they end.
    fn run_all(count: usize, jobs: Vec<Job>) -> Vec<Ended> {
        let folder = std::env::temp_dir().join(format!(
            "run-tests-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let mut lanes = Lanes::new(count, &folder);
        lanes.add(jobs);
        let mut ended = Vec::new();
        while let Some(one) = lanes.next().unwrap() {
            ended.push(one);
        }
        fs::remove_dir_all(folder).unwrap();
        ended
    }

    fn names(ended: &[Ended]) -> Vec<&str> {
        ended.iter().map(|ended| ended.job.name.as_str()).collect()
    }

    #[test]
    fn the_longest_is_first() {
        let ended = run_all(
            1,
            vec![
                job("short", "true", &[], 1.0),
                job("long", "true", &[], 3.0),
                job("middle", "true", &[], 2.0),
            ],
        );
        assert_eq!(names(&ended), ["long", "middle", "short"]);
    }

    #[test]
    fn what_much_depends_on_comes_before_what_is_long() {
        let ended = run_all(
            1,
            vec![
                job("long", "true", &[], 5.0),
                job("build", "true", &[], 1.0),
                job("tests", "true", &["build"], 6.0),
            ],
        );
        assert_eq!(names(&ended), ["build", "tests", "long"]);
    }

    #[test]
    fn jobs_run_beside_each_other() {
        // Each waits for the other one.
        let place = std::env::temp_dir().join(format!("run-tests-meet-{}", std::process::id()));
        fs::create_dir_all(&place).unwrap();
        let meet = |ours: &str, theirs: &str| {
            let place = place.display();
            format!("touch {place}/{ours}; until [ -e {place}/{theirs} ]; do sleep 0.01; done")
        };
        let ended = run_all(
            2,
            vec![
                job("a", &meet("a", "b"), &[], 1.0),
                job("b", &meet("b", "a"), &[], 1.0),
            ],
        );
        assert_eq!(ended.len(), 2);
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn what_has_to_be_alone_is_last() {
        let mut alone = job("alone", "true", &[], 9.0);
        alone.alone = true;
        let ended = run_all(
            4,
            vec![
                alone,
                job("a", "true", &[], 1.0),
                job("b", "true", &["a"], 1.0),
            ],
        );
        assert_eq!(names(&ended), ["a", "b", "alone"]);
    }

    #[test]
    fn what_depends_on_a_failure_is_a_failure() {
        let mut tests = job("tests", "true", &["build"], 1.0);
        tests.counts = Counts::Tests(vec!["a".into(), "b".into()]);
        let mut build = job("build", "echo dm-remap: no compiler; exit 3", &[], 1.0);
        build.counts = Counts::IfItFails;
        let ended = run_all(1, vec![tests, build]);
        assert_eq!(names(&ended), ["build", "tests"]);
        assert_eq!((ended[0].passed(), ended[0].failed()), (0, 1));
        assert_eq!(
            ended[0].failure().unwrap(),
            "build: no compiler; see target/log/jobs/build.log"
        );
        assert_eq!((ended[1].passed(), ended[1].failed()), (0, 2));
        assert_eq!(
            ended[1].failure().unwrap(),
            "tests: not run, because build failed"
        );
    }

    #[test]
    fn a_job_that_waits_for_nothing_known_is_an_error() {
        let mut lanes = Lanes::new(1, Path::new("/"));
        lanes.add(vec![job("a", "true", &["b"], 1.0)]);
        assert!(lanes.next().is_err());
    }

    #[test]
    fn both_streams_are_kept() {
        let script = "echo $GREETING; echo oops >&2; kill -9 $$";
        let ended = run_all(1, vec![job("a", script, &[], 1.0)]);
        assert_eq!(ended[0].output, "hello\noops\n");
        let failure = ended[0].failure().unwrap();
        assert!(failure.contains("signal: 9"), "{failure}");
    }
}
