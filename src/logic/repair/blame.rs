// SPDX-License-Identifier: GPL-2.0

//! Is the medium to blame for what fails on main, and not the device as a whole? (E2)
//!
//! Main's capacity is what it was, and since the bio failed it has done something else of the kind: a user's I/O, or one
//! of another repair, or a probe.

use super::{
    super::breaker::Need,
    step::{
        Answer,
        Found,
        Step,
        Way, //
    }, //
};

/// The question under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blame {
    way: Way,
    /// What it takes.
    need: Need,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Asked,
    Counted,
    Probed(Way),
    Disproved,
}

/// What comes next.
pub(super) enum Next<E> {
    Step(Step<E>),
    /// Whether the medium is to blame.
    Verdict(bool),
}

impl Blame {
    /// Asks in one direction. The first step is [`Step::AskMain`].
    pub(super) fn new(way: Way) -> Self {
        Blame {
            way,
            need: Need::Life,
            stage: Stage::Asked,
        }
    }

    /// Takes the answer to the last step.
    pub(super) fn advance<E>(&mut self, answer: Answer<E>) -> Next<E> {
        match (self.stage, answer) {
            (Stage::Asked, Answer::Main { whole: false, .. }) => Next::Verdict(false),
            (Stage::Asked, Answer::Main { proven: true, .. }) => Next::Verdict(true),
            (Stage::Asked, Answer::Main { .. }) => {
                self.stage = Stage::Counted;
                Next::Step(Step::CountFailure(self.way))
            }
            (Stage::Counted, Answer::Need { need, read }) => {
                self.need = need;
                match read {
                    true => self.probed(Way::Read, Found::Alive),
                    false => self.probe(Way::Read),
                }
            }
            (Stage::Probed(way), Answer::Probed(found)) => self.probed(way, found),
            // No answer is none to blame the medium with.
            _ => Next::Verdict(false),
        }
    }

    fn probe<E>(&mut self, way: Way) -> Next<E> {
        self.stage = Stage::Probed(way);
        Next::Step(Step::Probe(way))
    }

    fn probed<E>(&mut self, way: Way, found: Found) -> Next<E> {
        let reading_will_do = self.way == Way::Read || self.need == Need::Life;
        match found {
            Found::Alive if way == Way::Read && !reading_will_do => self.probe(Way::Write),
            Found::Alive => Next::Verdict(true),
            Found::Dead => {
                self.stage = Stage::Disproved;
                Next::Step(Step::Disprove(self.way))
            }
            Found::Unknown => Next::Verdict(false),
        }
    }
}
