// SPDX-License-Identifier: GPL-2.0
//! Crashes of a set in use.

use vmtest::guest::sickdisk::Power;
use vmtest::guest::sickdisk::PowerCut;
use vmtest::guest::Dice;

use super::set::Set;

/// P5: power cuts at any write of whatever disk, with both spares in use.
#[test]
fn power_cuts_with_two_spares() {
    let _test = vmtest::begin!();
    let mut set = Set::new(&[1, 1]);
    let slots = set.of(0, "slots").and_then(|slots| slots.parse().ok());
    let full: u64 = slots.expect("told");
    let start = full - 6;
    set.remap(0..start, 1);
    let mut dice = Dice::new(7);
    let mut first = start;
    for round in 0..12 {
        let power = Power::for_writes(dice.roll(60) as u32);
        set.run_on(&power);
        let mut acknowledged = first;
        while acknowledged < first + 6 {
            set.spoil(acknowledged..acknowledged + 1);
            if set.write(acknowledged..acknowledged + 1, 2).is_err() {
                break;
            }
            acknowledged += 1;
        }
        set.power_cut(|number| match round % 3 {
            0 => PowerCut::Drop,
            1 => PowerCut::Some(round + number),
            _ => PowerCut::Tear(round + number),
        });
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        set.activate(&order, "");
        set.check(0..start, 1);
        for block in start..acknowledged {
            set.check(block..block + 1, 2);
        }
        set.expect_whole(2);
        first = acknowledged;
    }
    assert_eq!(set.place(first - 1), Some(1));
}
