// SPDX-License-Identifier: GPL-2.0
//! M9b, M11: a spare that is dead is given up, and with it what only it had: that is an error until it is
//! written, and never what main had before.

use vmtest::guest::sickdisk::Power;
use vmtest::guest::sickdisk::PowerCut;

use super::losing::both_in_use;
use super::set::Set;
use super::set::BLOCK;

/// Two spares, the second of which is dead and left out, and the blocks that it has, but for the one before.
fn one_dead() -> (Set, std::ops::Range<u64>) {
    let (set, second) = both_in_use();
    set.kill(1);
    set.device().message("save").unwrap();
    set.expect("spares", "1/2");
    set.reload(&[0], "degraded").unwrap();
    (set, second)
}

/// Main could be read again, and must not answer for what it did not get.
fn heal(set: &Set) {
    set.heal(0..2048);
}

/// After that the set is whole without it, also after a power cut, and needs no `degraded`.
#[test]
fn what_a_spare_had_is_lost_until_it_is_written() {
    let _test = vmtest::begin!();
    let (mut set, second) = one_dead();
    set.free_slots(40..100);
    heal(&set);
    let blocks = second.end - second.start + 1;
    set.expect("lost", &blocks.to_string());
    let remapped = set.device().remapped();
    let told = set.device().message("forget_spare 1").unwrap();
    assert!(
        told.contains(&format!("{blocks} blocks are lost")),
        "{told}"
    );
    set.expect_whole(1);
    set.expect("lost", &blocks.to_string());
    assert_eq!(set.device().remapped(), remapped);
    set.check_lost(second.start - 1..second.end);
    let at = second.start * BLOCK;
    let place = set.device().message(&format!("verify {at}")).unwrap();
    assert!(place.contains("lost"), "{place}");

    // Main does not get it back, neither by name nor with all others.
    set.device()
        .message(&format!("remove_remap {at}"))
        .unwrap_err();
    set.check_lost(second.clone());
    // To write is to have it again; a discard is not.
    let half = second.start..second.start + 5;
    set.write(half.clone(), 3).unwrap();
    set.check(half.clone(), 3);
    set.check_lost(half.end..second.end);
    set.open().flush().unwrap();
    for power in [false, true] {
        set.again_after(power, &[0]);
        set.expect_whole(1);
        set.expect("lost", &(blocks - 5).to_string());
        set.check(half.clone(), 3);
        set.check_lost(half.end..second.end);
        set.check(0..40, 1);
    }
    // It is a stranger now.
    set.revive(1);
    let refusal = set.device().load(&set.line(&[0, 1], "")).unwrap_err();
    assert!(
        refusal.reason.contains("not blank") || refusal.reason.contains("left"),
        "{refusal:?}"
    );
    let new = set.add_disk(1);
    set.reload(&[0, new], "").unwrap();
    set.expect_whole(2);
    // What is lost moves with its slot, and is lost there.
    let told = set.device().message("evacuate 0").unwrap();
    assert!(told.contains(", 0 stay"), "{told}");
    set.reload(&[new], "").unwrap();
    set.expect("lost", &(blocks - 5).to_string());
    set.check_lost(half.end..second.end);
    set.check(half.clone(), 3);
    set.write(half.end..second.end, 4).unwrap();
    set.write(second.start - 1..second.start, 4).unwrap();
    set.check(half.end..second.end, 4);
    set.expect("lost", "0");
    set.device().message("clear_all").unwrap();
    assert_eq!(set.device().remapped(), 0);
    set.check(half.end..second.end, 4);
}

/// Without room for what it has it stays, and so does one that is in use, that the table names or that there is
/// not.
#[test]
fn what_cannot_be_given_up() {
    let _test = vmtest::begin!();
    let (set, second) = both_in_use();
    let refused = |spare: &str| {
        let line = format!("forget_spare {spare}");
        set.device().message(&line).unwrap_err();
    };
    refused("1");
    refused("2");
    refused("300");
    set.kill(1);
    set.device().message("save").unwrap();
    set.free_slots(40..100);
    refused("1");
    set.reload(&[0], "degraded").unwrap();
    refused("0");
    set.remap(200..260, 1);
    refused("1");
    set.expect("spares", "1/2");
    set.check_lost(second.clone());
    set.revive(1);
    set.reload(&[0, 1], "").unwrap();
    set.expect_whole(2);
    set.check(second, 1);
    set.check(200..260, 1);
}

/// The power fails after each write of it: a block that was lost is an error or what was written since, the
/// others are what they were, and it can be gone on with.
#[test]
fn the_power_fails_while_a_spare_is_given_up() {
    let _test = vmtest::begin!();
    let (mut set, second) = one_dead();
    set.free_slots(40..100);
    heal(&set);
    set.write(second.start..second.start + 2, 3).unwrap();
    set.open().flush().unwrap();
    let mut writes = 0;
    loop {
        let power = Power::for_writes(writes);
        set.run_on(&power);
        let told = set.device().message("forget_spare 1");
        let ended = !power.is_off();
        set.power_cut(|disk| match (disk + u64::from(writes)) % 3 {
            0 => PowerCut::Drop,
            1 => PowerCut::Tear(writes.into()),
            _ => PowerCut::Keep,
        });
        set.kill(1);
        set.activate(&[0], "degraded");
        set.check(second.start..second.start + 2, 3);
        set.check_lost(second.start + 2..second.end);
        set.check(0..40, 1);
        if ended {
            // The last writes were of what was done.
            let member = set.of(1, "state");
            assert!(told.is_ok() || member.is_none(), "{told:?}");
            break;
        }
        writes += 1;
    }
    assert!(writes > 5, "{writes} writes");
    set.again(&[0], "");
    set.expect_whole(1);
    set.check_lost(second.start + 2..second.end);
    set.check(0..40, 1);
}
