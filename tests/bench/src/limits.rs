// SPDX-License-Identifier: GPL-2.0
//! What P11 promises, and whether it holds.

use crate::rows::Op;
use crate::rows::Row;
use crate::rows::REDIRECTED;

/// How many instructions more than before are a regression; and of I/O that is larger than a block, which takes
/// a little more or less each time, which part of all of them.
const REGRESSION: i64 = 20;
const REGRESSION_PART: i64 = 200;

/// Writes may cost so many more.
const FOR_WRITES: i64 = 20;

/// How many instructions more than on dm-linear an I/O may take; none if nothing is promised.
fn limit(row: &Row) -> Option<i64> {
    let small = row.job.bs <= 4096;
    let reads = match row.device.as_str() {
        "remap-0" | "remap-1k" | "remap-1m-elsewhere" if small => 40,
        "remap-1m-spread" if small => 100,
        REDIRECTED if small => 170,
        "remap-0" | "remap-1k" | "remap-1m-elsewhere" => 60,
        _ => return None,
    };
    match row.job.op {
        Op::Randread => Some(reads),
        Op::Randwrite => Some(reads + FOR_WRITES),
    }
}

/// What is wrong with these rows: beyond the limits, or worse than `before`. Without that, which is so on a kernel
/// whose figures nobody knows, the limits alone count.
pub(crate) fn faults(rows: &[Row], before: Option<&[Row]>) -> Vec<String> {
    let ours = rows.iter().filter(|row| row.device.starts_with("remap-"));
    ours.flat_map(|row| {
        let what = format!("{} {}", row.device, row.job);
        let Some(over) = row.over_linear else {
            return vec![format!("{what}: nothing to compare with")];
        };
        let mut faults = Vec::new();
        let mut allowed = REGRESSION;
        match limit(row) {
            Some(limit) if over > limit => {
                faults.push(format!("{what}: {over} over dm-linear, more than {limit}"));
            }
            _ => (),
        }
        if row.job.bs > 4096 {
            allowed = allowed.max(row.instr_per_io as i64 / REGRESSION_PART);
        }
        let Some(before) = before else {
            return faults;
        };
        let same = |old: &&Row| old.device == row.device && old.job == row.job;
        match before.iter().find(same).and_then(|old| old.over_linear) {
            Some(old) if over > old + allowed => {
                faults.push(format!("{what}: {over} over dm-linear, before {old}"));
            }
            Some(_) => (),
            None => faults.push(format!("{what}: not in the tables")),
        }
        faults
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Job;

    fn row(over: i64) -> Row {
        Row {
            device: "remap-0".to_string(),
            job: Job::all().next().unwrap(),
            instr_per_io: 6000,
            over_linear: Some(over),
        }
    }

    #[test]
    fn what_was_before_counts_on_its_own_kernel_only() {
        let (before, now) = ([row(10)], [row(40)]);
        assert_eq!(faults(&now, Some(&before)).len(), 1);
        assert_eq!(faults(&now, Some(&[])).len(), 1);
        assert!(faults(&now, None).is_empty());
    }

    #[test]
    fn limits_count_on_every_kernel() {
        let now = [row(41)];
        assert_eq!(faults(&now, None).len(), 1);
        assert_eq!(faults(&now, Some(&now)).len(), 1);
    }
}
