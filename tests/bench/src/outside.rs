// SPDX-License-Identifier: GPL-2.0
//! The side that a person starts: boots the machine and sums up.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use vmtest::machine::Machine;
use vmtest::machine::Outcome;

use crate::inside;
use crate::limits;
use crate::report;
use crate::rows;
use crate::rows::Measured;
use crate::rows::Row;
use crate::Arguments;

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let before = match &arguments.check {
        Some(path) => before(path)?,
        None => None,
    };
    let outcome = machine(arguments)?.start()?.wait()?;
    if !outcome.passed() {
        return Err(outcome.to_string().into());
    }
    let measured: Vec<Measured> = lines(&outcome).collect();
    let rows = rows::rows(&measured);
    println!("\n{}", report::tables(&rows));
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&json!({ "rows": rows }))?;
        fs::write(path, text + "\n")?;
    }
    let mut faults = unsteady(&measured);
    if arguments.check.is_some() {
        faults.extend(limits::faults(&rows, before.as_deref()));
    }
    match faults.is_empty() {
        true => Ok(()),
        false => Err(faults.join("\n").into()),
    }
}

/// The figures in that file, if they are of the kernel that is measured.
fn before(path: &Path) -> Result<Option<Vec<Row>>, Box<dyn Error>> {
    let text = fs::read_to_string(path)?;
    let path = path.display();
    let known = report::kernel(&text).ok_or_else(|| format!("{path} names no kernel"))?;
    let kernel = std::env::var("KVER")?;
    if kernel != known {
        println!("{path} has the figures of kernel {known}: on {kernel}, the limits alone count");
        return Ok(None);
    }
    Ok(Some(report::read(&text)))
}

fn machine(arguments: &Arguments) -> Result<Machine, Box<dyn Error>> {
    let program = std::env::current_exe()?.into_os_string();
    let block = arguments.block.to_string();
    let words = ["--inside", "--block", &block, "--only", &arguments.only];
    let mut command = vec![program];
    command.extend(words.map(Into::into));
    let module = std::env::var_os("DM_REMAP_MODULE").ok_or("DM_REMAP_MODULE names no module")?;
    Ok(Machine::new(command)?
        .env("DM_REMAP_MODULE", module)
        .counting()
        .processors(1)
        .memory_mib(2048)
        .time_limit(Duration::from_secs(3600))
        .echo())
}

fn lines(outcome: &Outcome) -> impl Iterator<Item = Measured> + '_ {
    outcome.output.lines().filter_map(|line| line.parse().ok())
}

/// What cannot be relied upon: it was another each time. Targets that nothing is compared with are shown as
/// they are: dm-flakey has io_uring use threads, which come when they come.
fn unsteady(measured: &[Measured]) -> Vec<String> {
    let counts = |one: &&Measured| {
        let names = ["remap-", "linear"];
        names.iter().any(|name| one.device.starts_with(name))
    };
    let apart = |one: &&Measured| !inside::same(one.instructions, one.before);
    let apart = measured.iter().filter(counts).filter(apart);
    apart
        .map(|one| {
            let Measured {
                device,
                job,
                instructions,
                before,
            } = one;
            format!("{device} {job}: {before} instructions, and then {instructions}")
        })
        .collect()
}
