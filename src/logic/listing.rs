// SPDX-License-Identifier: GPL-2.0

//! Which ranges of main does `list` tell of?
//!
//! Whoever lists goes from the first block to the last and says what each part is. Parts of one kind that follow each
//! other make one range, wherever their slots lie, and a range is told when it is known where it ends.

/// What there is to say of a block of main that is not just served by main.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A slot serves it.
    Remapped,
    /// Main could not read it, and it was not written since.
    Pending,
    /// A slot serves it, as main could read it only after several tries.
    Weak,
    /// Its slot could not be read, or its spare is gone, and it was not written since.
    Lost,
    /// Main is not asked for it.
    Avoided,
    /// A slot serves it that began with zeroes, as its user gave up what main could not read.
    GivenUp,
    /// Neither read nor written until the metadata can be written again.
    Doubt,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 7] = [
        Kind::Remapped,
        Kind::Pending,
        Kind::Weak,
        Kind::Lost,
        Kind::Avoided,
        Kind::GivenUp,
        Kind::Doubt,
    ];

    /// All names.
    pub const NAMES: &'static str = "remapped|pending|weak|lost|avoided|given_up|doubt";

    /// What users call it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Remapped => "remapped",
            Kind::Pending => "pending",
            Kind::Weak => "weak",
            Kind::Lost => "lost",
            Kind::Avoided => "avoided",
            Kind::GivenUp => "given_up",
            Kind::Doubt => "doubt",
        }
    }

    /// Whether a slot serves it.
    pub const fn is_served(self) -> bool {
        matches!(self, Kind::Remapped | Kind::Weak | Kind::GivenUp)
    }

    /// Whether who asks for `wanted` is told of this one: whatever a slot serves is remapped, too.
    const fn is_wanted(self, wanted: Option<Kind>) -> bool {
        match wanted {
            None => true,
            Some(Kind::Remapped) => self.is_served(),
            Some(wanted) => wanted as u8 == self as u8,
        }
    }
}

/// Blocks that follow each other, of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first one.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// What they are.
    pub kind: Kind,
}

/// Makes ranges of parts.
#[derive(Debug, Default)]
pub struct Ranges {
    wanted: Option<Kind>,
    open: Option<Range>,
}

impl Ranges {
    /// Tells of one kind, or of all.
    pub const fn new(wanted: Option<Kind>) -> Self {
        Self { wanted, open: None }
    }

    /// Adds the next part, which must lie behind the others. Returns the range that ends before it, if one does.
    pub fn add(&mut self, part: Range) -> Option<Range> {
        if part.count == 0 || !part.kind.is_wanted(self.wanted) {
            return None;
        }
        match &mut self.open {
            Some(open) if open.kind == part.kind && open.end() == part.first => {
                open.count = open.count.saturating_add(part.count);
                None
            }
            open => open.replace(part),
        }
    }

    /// Returns the last range, if there is one.
    pub fn finish(&mut self) -> Option<Range> {
        self.open.take()
    }
}

impl Range {
    fn end(&self) -> u64 {
        self.first.saturating_add(self.count)
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::{
        Kind,
        Range,
        Ranges, //
    };

    fn listed(wanted: Option<Kind>, parts: &[(u64, u64, Kind)]) -> Vec<(u64, u64, Kind)> {
        let mut ranges = Ranges::new(wanted);
        let mut told = Vec::new();
        for &(first, count, kind) in parts {
            told.extend(ranges.add(Range { first, count, kind }));
        }
        told.extend(ranges.finish());
        assert_eq!(ranges.finish(), None);
        let plain = |range: &Range| (range.first, range.count, range.kind);
        told.iter().map(plain).collect()
    }

    #[test]
    fn parts_that_touch_are_one_range() {
        let parts = [
            (0, 1, Kind::Remapped),
            (1, 4, Kind::Remapped),
            (5, 1, Kind::Lost),
            (6, 2, Kind::Remapped),
            (9, 1, Kind::Remapped),
        ];
        assert_eq!(
            listed(None, &parts),
            [
                (0, 5, Kind::Remapped),
                (5, 1, Kind::Lost),
                (6, 2, Kind::Remapped),
                (9, 1, Kind::Remapped),
            ]
        );
        assert_eq!(listed(Some(Kind::Lost), &parts), [(5, 1, Kind::Lost)]);
        assert_eq!(listed(Some(Kind::Pending), &parts), []);
        assert_eq!(listed(None, &[]), []);
    }

    #[test]
    fn what_a_slot_serves_is_remapped() {
        let parts = [
            (7, 1, Kind::Weak),
            (8, 1, Kind::Remapped),
            (9, 1, Kind::GivenUp),
        ];
        assert_eq!(listed(Some(Kind::Remapped), &parts), parts);
        assert_eq!(listed(Some(Kind::Weak), &parts), [parts[0]]);
        assert_eq!(listed(Some(Kind::GivenUp), &parts), [parts[2]]);
    }

    #[test]
    fn every_kind_has_a_name() {
        let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.join("|"), Kind::NAMES);
    }

    #[test]
    fn the_last_block_of_all() {
        let parts = [(u64::MAX, 1, Kind::Pending)];
        assert_eq!(listed(None, &parts), parts);
    }
}
