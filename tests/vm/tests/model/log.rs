// SPDX-License-Identifier: GPL-2.0
//! What was done, in order, to be told when something is wrong.

use crate::history::Time;
use crate::plan::Area;
use crate::plan::Step;

/// How many events are told.
const TOLD: usize = 120;

struct Entry {
    who: usize,
    step: Step,
    begun: Time,
    outcome: Option<(Time, String)>,
}

/// The log. Workers have numbers from 1 on; 0 is who makes everything else happen.
#[derive(Default)]
pub(crate) struct Log(Vec<Entry>);

impl Log {
    /// Something begins; returns its place in the log.
    pub(crate) fn begin(&mut self, who: usize, step: Step, begun: Time) -> usize {
        self.0.push(Entry {
            who,
            step,
            begun,
            outcome: None,
        });
        self.0.len() - 1
    }

    /// It has ended.
    pub(crate) fn end(&mut self, place: usize, ended: Time, outcome: String) {
        self.0[place].outcome = Some((ended, outcome));
    }

    /// The operations that concern an area, and the last of the other events.
    pub(crate) fn tell(&self, area: Area) -> String {
        let concerns = |step: &Step| match step {
            Step::Read(other, _)
            | Step::Write(other, _)
            | Step::Zero(other)
            | Step::Discard(other)
            | Step::SpoilMain(other, _)
            | Step::HealMain(other)
            | Step::Remap(other)
            | Step::MoveUnderWrites(other, _)
            | Step::WeakUnderWrites(other, _)
            | Step::BackOntoFading(other, _)
            | Step::ReadWhileSpareHangs(other)
            | Step::MoveMany(other)
            | Step::RemoveRemap(other) => other.overlaps(area),
            Step::ReuseUnderReads(from, to, _) => from.overlaps(area) || to.overlaps(area),
            // All that is written depends on these.
            Step::Cut(_) | Step::Recreate | Step::Flush | Step::FailFlush(..) => true,
            _ => false,
        };
        let mut told = vec![false; self.0.len()];
        let mut left = [TOLD, TOLD / 2];
        for (entry, told) in self.0.iter().zip(&mut told).rev() {
            let left = &mut left[usize::from(!concerns(&entry.step))];
            let is_event = !matches!(
                entry.step,
                Step::Read(..) | Step::Write(..) | Step::Zero(_) | Step::Discard(_)
            );
            if *left > 0 && (is_event || concerns(&entry.step)) {
                *told = true;
                *left -= 1;
            }
        }
        let mut text = match told.iter().filter(|told| !**told).count() {
            0 => String::new(),
            skipped => format!("  ({skipped} others are left out)\n"),
        };
        for (entry, _) in self.0.iter().zip(told).filter(|(_, told)| *told) {
            let (to, outcome) = match &entry.outcome {
                Some((ended, outcome)) => (ended.to_string(), outcome.as_str()),
                None => (String::new(), "under way"),
            };
            let (begun, who, step) = (entry.begun, entry.who, entry.step);
            text.push_str(&format!("  {begun}..{to} [{who}] {step:?}: {outcome}\n"));
        }
        text
    }
}
