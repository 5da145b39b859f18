// SPDX-License-Identifier: GPL-2.0

//! Where is a slot?
//!
//! In memory the slots of all spares are numbered through, as far as there is room for them, so that
//! a bucket of the remap table can name one by 32 bits. A run of these numbers that belongs to
//! consecutive slots of one spare is an *extent*. Between two extents one number is left out, so that
//! consecutive numbers are always consecutive slots.
//!
//! ```text
//!  number   0 … 999 | 1000 | 1001 … 1500 | 1501 | 1502 …
//!  spare    0       | none | 1           | none | 0
//!  slot     0 … 999 |      | 0 … 499     |      | 1000 …
//! ```

use super::format::{
    table_block::ENTRIES,
    BlockId,
    Member,
    Place, //
};

/// The member of numbers whose spare has left the set.
const NOBODY: u8 = u8::MAX;

/// The most extents that there can be. With one spare there is one, and with several, each is used up
/// before the next one.
pub const EXTENTS_MAX: usize = 16;

/// Slots with consecutive numbers on consecutive places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The number of the first one.
    pub first: u32,
    /// How many there are.
    pub count: u32,
    /// The member that has them.
    pub member: u8,
    /// Which of its slots the first one is.
    pub slot: u32,
    /// Where that begins, in the member's window.
    sector: u64,
}

/// All extents, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extents {
    list: [Extent; EXTENTS_MAX],
    used: usize,
    slot_shift: u32,
}

impl Extents {
    /// No slots so far, of `1 << slot_shift` sectors each.
    pub const fn new(slot_shift: u32) -> Self {
        Extents {
            list: [Extent {
                first: 0,
                count: 0,
                member: 0,
                slot: 0,
                sector: 0,
            }; EXTENTS_MAX],
            used: 0,
            slot_shift,
        }
    }

    /// All extents.
    pub fn iter(&self) -> impl Iterator<Item = &Extent> + Clone {
        self.list.iter().take(self.used)
    }

    /// One past the highest number.
    pub fn end(&self) -> u32 {
        let last = self.iter().last();
        last.map_or(0, |last| last.first.saturating_add(last.count))
    }

    /// How many slots of a member have a number: its first ones.
    pub fn known(&self, member: u8) -> u32 {
        let own = self.iter().filter(|extent| extent.member == member);
        own.fold(0u32, |sum, extent| sum.saturating_add(extent.count))
    }

    /// Gives numbers to the next `count` slots of a member; false if there are none left, up to the last one
    /// that the remap table can name.
    pub fn grow(&mut self, index: u8, member: &Member, count: u32) -> bool {
        let end = self.end();
        if count == 0 {
            return true;
        }
        if let Some(last) = self.list.get_mut(..self.used).and_then(|l| l.last_mut()) {
            if last.member == index {
                let more = last.count.checked_add(count);
                let legal = more.filter(|more| last.first.checked_add(*more).is_some());
                last.count = legal.unwrap_or(last.count);
                return legal.is_some();
            }
        }
        let slot = self.known(index);
        let first = if self.used == 0 {
            0
        } else {
            end.saturating_add(1)
        };
        let Some(place) = self.list.get_mut(self.used) else {
            return false;
        };
        if first.checked_add(count).is_none() {
            return false;
        }
        let offset = u64::from(slot)
            .checked_shl(self.slot_shift)
            .unwrap_or(u64::MAX);
        *place = Extent {
            first,
            count,
            member: index,
            slot,
            sector: member.geometry.data_start().saturating_add(offset),
        };
        self.used += 1;
        true
    }

    /// Gives up the numbers of a member that has left, so that another one may have its number in the set.
    /// They are not given out again. Returns whether there were any.
    pub fn forget(&mut self, member: u8) -> bool {
        let mut forgotten = false;
        for extent in self.list.iter_mut().take(self.used) {
            if extent.member == member {
                extent.member = NOBODY;
                forgotten = true;
            }
        }
        if forgotten {
            self.merge_forgotten();
        }
        forgotten
    }

    /// Whether this has all that `before` has, and at most more behind it: every number that was given out
    /// there means the same here.
    pub fn continues(&self, before: &Extents) -> bool {
        let same = |(new, old): (&Extent, &Extent)| {
            let cut = Extent {
                count: old.count,
                ..*new
            };
            let is_last = old.first.saturating_add(old.count) == before.end();
            cut == *old && (new.count == old.count || is_last && new.count > old.count)
        };
        self.slot_shift == before.slot_shift
            && self.used >= before.used
            && self.iter().zip(before.iter()).all(same)
    }

    /// Makes one of extents side by side that are nobody's.
    fn merge_forgotten(&mut self) {
        let all = *self;
        let mut used = 0usize;
        for extent in all.iter() {
            let last = used.checked_sub(1).and_then(|at| self.list.get_mut(at));
            match last {
                Some(last) if last.member == NOBODY && extent.member == NOBODY => {
                    let end = extent.first.saturating_add(extent.count);
                    last.count = end.saturating_sub(last.first);
                }
                _ => {
                    if let Some(place) = self.list.get_mut(used) {
                        *place = *extent;
                    }
                    used += 1;
                }
            }
        }
        self.used = used;
        for unused in self.list.iter_mut().skip(used) {
            *unused = Extent::default();
        }
    }

    #[inline(always)]
    fn find(&self, number: u32) -> Option<&Extent> {
        // There are few, and mostly one.
        let has = |extent: &&Extent| number.wrapping_sub(extent.first) < extent.count;
        let [first, others @ ..] = &self.list;
        match has(&first) {
            true => Some(first),
            false => Self::find_in(others, number),
        }
    }

    /// Those that are not in use have no numbers.
    #[inline(never)]
    fn find_in(list: &[Extent], number: u32) -> Option<&Extent> {
        let has = |extent: &&Extent| number.wrapping_sub(extent.first) < extent.count;
        list.iter().find(has)
    }

    /// Where a slot begins.
    #[inline(always)]
    pub fn place(&self, number: u32) -> Option<Place> {
        let extent = self.find(number)?;
        // Of a spare that has left, nobody asks, and no table has one of that number.
        let offset = u64::from(number.wrapping_sub(extent.first)) << (self.slot_shift & 7);
        Some(Place {
            member: extent.member,
            sector: extent.sector.wrapping_add(offset),
        })
    }

    /// Which slot of which member it is.
    pub fn slot(&self, number: u32) -> Option<(u8, u32)> {
        let extent = self.find(number).filter(|e| e.member != NOBODY)?;
        let within = number.wrapping_sub(extent.first);
        Some((extent.member, extent.slot.saturating_add(within)))
    }

    /// The number of a member's slot.
    pub fn number(&self, member: u8, slot: u32) -> Option<u32> {
        self.iter().find_map(|extent| {
            let within = slot.wrapping_sub(extent.slot);
            let own = extent.member == member && within < extent.count;
            own.then(|| extent.first.saturating_add(within))
        })
    }

    /// The block of a slot table that has the entry of a slot.
    pub fn block(&self, number: u32) -> Option<BlockId> {
        let (member, slot) = self.slot(number)?;
        Some(BlockId {
            member,
            block: slot / ENTRIES,
        })
    }

    /// The numbers of the slots from `first` to before `end` of a member, in this order; none for those that
    /// have no number. Those of one block of a slot table mostly follow each other, but where a member got
    /// slots back that a replica took, in the middle of a block.
    pub fn numbers(
        &self,
        member: u8,
        (first, end): (u32, u32),
    ) -> impl Iterator<Item = Option<u32>> + '_ {
        (first..end).map(move |slot| self.number(member, slot))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            format::Geometry,
            table::SLOT_LAST,
            text::Uuid, //
        },
        *, //
    };

    fn member(index: u8, sectors: u64) -> Member {
        let uuid = Uuid([index + 1; 16]);
        Member::new(index, uuid, Geometry::new(sectors, 8, 8).unwrap())
    }

    #[test]
    fn one_spare_is_one_extent() {
        let first = member(0, 1 << 16);
        let mut extents = Extents::new(3);
        assert_eq!(extents.end(), 0);
        assert_eq!(extents.place(0), None);
        for _ in 0..20 {
            assert!(extents.grow(0, &first, 252));
        }
        assert_eq!((extents.end(), extents.known(0)), (20 * 252, 20 * 252));
        assert_eq!(extents.iter().count(), 1);
        for slot in [0, 1, 251, 252, 5039] {
            assert_eq!(extents.slot(slot), Some((0, slot)));
            assert_eq!(extents.number(0, slot), Some(slot));
            let sector = first.geometry.slot_sector(slot).unwrap();
            assert_eq!(extents.place(slot), Some(Place { member: 0, sector }));
        }
        assert_eq!(extents.place(5040), None);
        assert!(extents.numbers(0, (252, 504)).eq((252..504).map(Some)));
        let some = extents.numbers(0, (4990, 5200));
        assert!(some.eq((4990..5200).map(|slot| (slot < 5040).then_some(slot))));
    }

    /// A block of which some slots got their numbers later.
    #[test]
    fn numbers_of_one_block_apart_from_each_other() {
        let members = [member(0, 1 << 16), member(1, 1 << 17)];
        let mut extents = Extents::new(3);
        for (index, count) in [(0, 150), (1, 252), (0, 60)] {
            assert!(extents.grow(index, &members[usize::from(index)], count));
        }
        let numbers: std::vec::Vec<_> = extents.numbers(0, (0, 252)).collect();
        assert_eq!(numbers.len(), 252);
        for (slot, number) in (0u32..).zip(&numbers) {
            assert_eq!(number.is_some(), slot < 210);
            let Some(number) = *number else {
                continue;
            };
            assert_eq!(extents.slot(number), Some((0, slot)));
            assert_eq!(extents.block(number).map(|id| id.block), Some(0));
        }
        assert_eq!((numbers[149], numbers[150]), (Some(149), Some(404)));
    }

    #[test]
    fn numbers_that_follow_each_other_are_on_one_spare() {
        let members = [member(0, 1 << 16), member(1, 1 << 17), member(2, 1 << 15)];
        let mut extents = Extents::new(3);
        for (index, count) in [(0, 252), (1, 504), (0, 252), (2, 252), (2, 252), (1, 252)] {
            assert!(extents.grow(index, &members[usize::from(index)], count));
        }
        assert_eq!(extents.iter().count(), 5);
        for number in 0..extents.end() {
            let Some((index, slot)) = extents.slot(number) else {
                assert!(extents.slot(number - 1).is_some() && extents.slot(number + 1).is_some());
                continue;
            };
            assert_eq!(extents.number(index, slot), Some(number));
            let geometry = &members[usize::from(index)].geometry;
            let place = Place {
                member: index,
                sector: geometry.slot_sector(slot).unwrap(),
            };
            assert_eq!(extents.place(number), Some(place));
            let block = slot / ENTRIES;
            let id = BlockId {
                member: index,
                block,
            };
            assert_eq!(extents.block(number), Some(id));
            let mut whole = extents.numbers(index, (block * ENTRIES, (block + 1) * ENTRIES));
            assert!(whole.any(|other| other == Some(number)));
        }
        assert_eq!([0, 1, 2].map(|i| extents.known(i)), [504, 756, 504]);
    }

    /// Spares come and go, and numbers of the set are used again.
    #[test]
    fn who_has_left_is_forgotten() {
        let old = [member(0, 1 << 16), member(1, 1 << 17)];
        let mut extents = Extents::new(3);
        assert!(!extents.forget(0));
        for (index, count) in [(0, 252), (1, 252), (0, 252)] {
            assert!(extents.grow(index, &old[usize::from(index)], count));
        }
        let end = extents.end();
        assert!(extents.forget(0));
        assert!(!extents.forget(0));
        assert_eq!((extents.known(0), extents.end()), (0, end));
        assert_eq!((extents.slot(0), extents.block(0)), (None, None));
        assert_eq!(extents.number(0, 0), None);
        assert_eq!(extents.slot(253), Some((1, 0)));

        // Another one, where slots begin elsewhere.
        let uuid = Uuid([9; 16]);
        let fresh = Member::new(0, uuid, Geometry::new(1 << 18, 8, 64).unwrap());
        assert!(extents.grow(0, &fresh, 252));
        assert_eq!(extents.number(0, 0), Some(end + 1));
        let sector = fresh.geometry.slot_sector(0).unwrap();
        assert_eq!(extents.place(end + 1), Some(Place { member: 0, sector }));

        // For ever, as those side by side become one.
        for turn in 0..100 {
            let index = turn % 2;
            assert!(extents.forget(index), "turn {turn}");
            assert!(extents.grow(index, &old[usize::from(index)], 252));
            assert_eq!(extents.known(index), 252);
        }
    }

    #[test]
    fn what_continues_what() {
        let members = [member(0, 1 << 16), member(1, 1 << 17)];
        let grown = |steps: &[(u8, u32)]| {
            let mut extents = Extents::new(3);
            for (index, count) in steps {
                assert!(extents.grow(*index, &members[usize::from(*index)], *count));
            }
            extents
        };
        let old = grown(&[(0, 252), (1, 252)]);
        assert!(old.continues(&old) && old.continues(&Extents::new(3)));
        assert!(grown(&[(0, 252), (1, 504)]).continues(&old));
        assert!(grown(&[(0, 252), (1, 252), (0, 252)]).continues(&old));
        for other in [
            grown(&[]),
            grown(&[(0, 252)]),
            grown(&[(0, 252), (1, 251)]),
            // The first one is not where it may grow.
            grown(&[(0, 504), (1, 504)]),
            grown(&[(0, 252), (0, 504)]),
            grown(&[(1, 252), (0, 504)]),
            Extents::new(2),
        ] {
            assert!(!other.continues(&old));
        }
        // What was forgotten is another thing, and forgetting both makes them the same again.
        let (mut less, mut more) = (old, grown(&[(0, 252), (1, 504)]));
        less.forget(0);
        assert!(!more.continues(&less) && !less.continues(&old));
        more.forget(0);
        assert!(more.continues(&less));
    }

    /// Two see that more slots are needed, one after the other, and other spares give them meanwhile.
    #[test]
    fn who_was_slow_to_grow_begins_again() {
        let members = [member(0, 1 << 20), member(1, 1 << 20)];
        let grow = |from: &Extents, index: u8, count| {
            let mut extents = *from;
            assert!(extents.grow(index, &members[usize::from(index)], count));
            extents
        };
        let now = grow(&Extents::new(3), 0, 100 * 252);
        let slow = grow(&now, 0, 25 * 252);
        let fast = grow(&now, 1, 10 * 252);
        assert!(fast.continues(&now));
        let (slot, place) = (fast.slot(101 * 252).unwrap(), fast.place(101 * 252));
        assert_eq!(slot.0, 1);
        // It has more numbers, and they mean something else.
        assert!(slow.end() > fast.end() && slow.place(101 * 252) != place);
        assert!(!slow.continues(&fast));
        let again = grow(&fast, 0, 25 * 252);
        assert!(again.continues(&fast) && again.place(101 * 252) == place);
    }

    #[test]
    fn an_end_to_all_growth() {
        let members = [member(0, 1 << 16), member(1, 1 << 16)];
        let mut extents = Extents::new(3);
        for turn in 0..EXTENTS_MAX {
            assert!(extents.grow(turn as u8 % 2, &members[turn % 2], 1));
        }
        assert!(!extents.grow(0, &members[0], 1));
        assert!(extents.grow(1, &members[1], 1));
        let left = SLOT_LAST - extents.end() + 1;
        assert!(!extents.grow(1, &members[1], left + 1));
        assert!(extents.grow(1, &members[1], left));
        assert!(extents.slot(SLOT_LAST).is_some());
        assert!(!extents.grow(1, &members[1], 1));
    }
}
