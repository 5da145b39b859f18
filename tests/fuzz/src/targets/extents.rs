// SPDX-License-Identifier: GPL-2.0

//! The numbers of slots in memory.

use dm_remap_logic::extents::Extents;
use dm_remap_logic::extents::EXTENTS_MAX;
use dm_remap_logic::format::table_block::ENTRIES;
use dm_remap_logic::format::BlockId;
use dm_remap_logic::format::Member;
use dm_remap_logic::format::Place;

use super::Verdict;
use crate::image;
use crate::Input;

/// A set, how its members grow by turns, and where to look.
pub(super) fn run(input: &mut Input<'_>) -> Verdict {
    let superblock = image::set(input);
    let mut extents = Extents::new(superblock.slot_sectors.trailing_zeros());
    let members: Vec<(u8, &Member)> = superblock.members().collect();
    let mut known = [0u32; 4];
    let mut refused = false;
    for _ in 0..input.below(40) {
        let (index, member) = input.one_of(&members);
        let of_it = &mut known[usize::from(index)];
        let blocks = match input.u8() {
            more @ 0..0xf0 => u32::from(more) + 1,
            _ => input.u32(),
        };
        // By whole blocks of its table, as far as it has slots.
        let count = blocks.saturating_mul(ENTRIES).min(member.slots - *of_it);
        let before = extents;
        if extents.grow(index, member, count) {
            *of_it += count;
            // What had a number has the same.
            let end = before.end();
            for number in [0, end / 2, end.saturating_sub(1)] {
                assert!(before
                    .slot(number)
                    .is_none_or(|slot| extents.slot(number) == Some(slot)));
            }
        } else {
            refused = true;
            assert_eq!(extents, before);
            let last = extents.iter().last();
            let another = last.is_none_or(|last| last.member != index);
            let full = another && extents.iter().count() == EXTENTS_MAX;
            let end = u64::from(extents.end()) + u64::from(count) + u64::from(another);
            assert!(full || end > u64::from(u32::MAX), "there is room");
        }
    }
    for (index, _) in &members {
        assert_eq!(extents.known(*index), known[usize::from(*index)]);
    }
    let sum = known.iter().map(|known| u64::from(*known)).sum::<u64>();
    let gaps = (extents.iter().count() as u64).saturating_sub(1);
    assert_eq!(u64::from(extents.end()), sum + gaps);
    for _ in 0..4 {
        look(&extents, &members, input);
    }
    Verdict::accepted(sum != 0 && !refused)
}

/// From a number to its slot and back, and from a slot to its number.
fn look(extents: &Extents, members: &[(u8, &Member)], input: &mut Input<'_>) {
    let of = |index: u8| members.iter().find(|(other, _)| *other == index);
    let number = match input.below(4) {
        0 => input.u32(),
        1 => extents.end().wrapping_sub(input.below(3) as u32),
        2 => {
            let firsts: Vec<u32> = extents.iter().map(|extent| extent.first).collect();
            let first = firsts.get(input.below(16) as usize).copied().unwrap_or(0);
            first.wrapping_add(input.below(3) as u32).wrapping_sub(1)
        }
        _ => (input.u64() % u64::from(extents.end().max(1))) as u32,
    };
    let Some((index, slot)) = extents.slot(number) else {
        assert_eq!(extents.place(number), None);
        assert_eq!(extents.block(number), None);
        // Just one is left out between two.
        if number < extents.end() {
            let [before, behind] = [number - 1, number + 1].map(|n| extents.slot(n));
            let [before, behind] = [before, behind].map(|slot| slot.expect("it has a number").0);
            assert_ne!(before, behind);
        }
        return;
    };
    let (_, member) = of(index).expect("a member");
    assert!(number < extents.end() && slot < extents.known(index));
    assert_eq!(extents.number(index, slot), Some(number));
    assert_eq!(extents.number(index, extents.known(index)), None);
    let sector = member.geometry.slot_sector(slot).expect("a slot");
    let place = Place {
        member: index,
        sector,
    };
    assert_eq!(extents.place(number), Some(place));
    let block = member.geometry.entry_place(slot).0;
    let id = BlockId {
        member: index,
        block,
    };
    assert_eq!(extents.block(number), Some(id));
    // All of one block are in the order of the slots.
    let (first, end) = member.block_slots(block);
    let numbers: Vec<Option<u32>> = extents.numbers(index, (first, end)).collect();
    assert_eq!(numbers.len() as u32, end - first);
    assert_eq!(numbers[(slot - first) as usize], Some(number));
    let known = numbers.iter().filter(|number| number.is_some()).count() as u32;
    assert_eq!(known, end.min(extents.known(index)) - first);
}
