// SPDX-License-Identifier: GPL-2.0
//! `make test`: runs the tests, several programs at a time, and sums them up. Called by the scripts, inside
//! the Debian root.
//!
//! A [`plan`] says which [jobs](job) there are, by what was [chosen](choice) and what the test files
//! [say about themselves](remarks); [`lanes`] run them, one more at once than there are processors; a
//! [`report`] is what one says of its tests. The last line on standard output is the sum.

mod choice;
mod job;
mod kernel;
mod lanes;
mod plan;
mod remarks;
mod report;
mod summary;
mod times;
mod workspace;

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use clap::Parser;

use crate::choice::Choice;
use crate::kernel::Oldest;
use crate::kernel::On;
use crate::lanes::Lanes;
use crate::plan::Plan;
use crate::summary::Summary;
use crate::times::Times;
use crate::workspace::Built;

type Error = Box<dyn std::error::Error>;

/// Runs the tests.
#[derive(Parser)]
struct Arguments {
    /// The kernel that the programs in virtual machines run on.
    #[arg(long, value_enum, default_value = "stock")]
    on: On,
    /// What to run: `program`, `program::module`, `program::module::test`, or how the last part begins;
    /// everything, if nothing is named.
    names: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("dm-remap: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether all is well.
fn run(arguments: &Arguments) -> Result<bool, Error> {
    let checkout = std::env::current_dir()?;
    let cache = std::env::var_os("DM_REMAP_CACHE").map(PathBuf::from);
    let kept = cache
        .unwrap_or_else(|| checkout.join("target"))
        .join("test-times.json");
    let times = Times::load(&kept);
    let choice = Choice::new(&arguments.names);
    let programs = workspace::programs(&checkout)?;
    let plan = Plan {
        checkout: &checkout,
        on: arguments.on,
        oldest: Oldest::of_root(arguments.on, &checkout),
        choice: &choice,
        programs: &programs,
        times: &times,
        lanes: lane_count(std::env::var("DM_REMAP_JOBS").ok().as_deref())?,
        // The tests read it, too: who has a sample of something then takes all of it.
        thorough: std::env::var("DM_REMAP_THOROUGH").is_ok_and(|value| value == "1"),
    };
    plan.check()?;
    let summary = run_plan(&plan)?;

    let taken = summary.times();
    taken.save(&checkout.join("target/log/times.json"))?;
    // Another checkout may have run other tests meanwhile.
    let mut all = Times::load(&kept);
    all.update(taken);
    if let Err(error) = all.save(&kept) {
        say(&format!("the times are not kept for the next run: {error}"));
    }
    summary.print(choice.is_everything());
    finish(&checkout, &summary)
}

fn run_plan(plan: &Plan<'_>) -> Result<Summary, Error> {
    let mut summary = Summary::default();
    for reason in plan.skipped() {
        summary.skip(&reason);
    }
    for heavy in plan.left() {
        summary.leave(heavy);
    }
    let mut lanes = Lanes::new(plan.lanes, plan.checkout);
    lanes.add(plan.first_jobs()?);
    let mut refused = None;
    while let Some(ended) = lanes.next()? {
        if ended.job.name == plan::PROGRAMS && ended.failed() == 0 {
            match plan.programs(&Built::new(&ended.output)) {
                Ok(jobs) => lanes.add(jobs),
                Err(error) => {
                    // The builds that run come to their end.
                    lanes.drop_waiting();
                    refused = Some(error);
                }
            }
        }
        summary.add(ended);
    }
    refused.map_or(Ok(summary), Err)
}

/// The last line, which is kept for .ci/run, too.
fn finish(checkout: &Path, summary: &Summary) -> Result<bool, Error> {
    let line = summary.line();
    std::fs::write(checkout.join("target/log/summary"), format!("{line}\n"))?;
    say("done");
    println!("{line}");
    Ok(summary.well())
}

/// One more than there are processors, unless DM_REMAP_JOBS says otherwise: much of what a test does is to wait.
fn lane_count(told: Option<&str>) -> Result<usize, Error> {
    match told {
        None | Some("") => Ok(std::thread::available_parallelism()?.get() + 1),
        Some(text) => text
            .parse()
            .ok()
            .filter(|count| *count > 0)
            .ok_or_else(|| format!("DM_REMAP_JOBS={text} is no number of jobs").into()),
    }
}

/// Says how far we are, as the scripts do: with the clock of the whole run.
fn say(what: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    let start = std::env::var("DM_REMAP_START").ok();
    let start = start.and_then(|text| text.parse().ok()).unwrap_or(now);
    let time = std::time::Duration::from_secs(now.saturating_sub(start));
    eprintln!("==> [{}] {what}", lanes::minutes(time));
}

#[cfg(test)]
mod tests {
    use super::lane_count;

    #[test]
    fn jobs_are_counted_or_refused() {
        assert!(lane_count(None).unwrap() > 1);
        assert_eq!(lane_count(Some("3")).unwrap(), 3);
        for text in ["0", "-1", "two", "2.5"] {
            let error = lane_count(Some(text)).unwrap_err().to_string();
            assert_eq!(error, format!("DM_REMAP_JOBS={text} is no number of jobs"));
        }
    }
}
