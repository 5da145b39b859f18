// SPDX-License-Identifier: GPL-2.0
//! A spare that is not there when the device is made, and comes back later.

use vmtest::guest::drop_caches;
use vmtest::guest::Mapped;

use super::set::content;
use super::set::Set;
use super::set::BLOCK;

/// Blocks 0..100 on the first spare, and some on the second; the device is not active.
fn two() -> (Set, std::ops::Range<u64>) {
    let mut set = Set::new(&[1, 1]);
    set.remap(0..100, 1);
    let mut end = 100;
    while set.place(end - 1) != Some(1) {
        set.remap(end..end + 10, 1);
        end += 10;
    }
    set.remap(end..end + 20, 1);
    set.deactivate();
    (set, end..end + 20)
}

fn set_epoch(set: &Set) -> u64 {
    let told = set.device().message("metadata_status").unwrap();
    let mut words = told.split_whitespace();
    let epoch = words.find_map(|word| word.strip_prefix("set_epoch="));
    epoch.and_then(|epoch| epoch.parse().ok()).expect("told")
}

/// M9: without a spare only on the user's word; what it held is an error and not what main has; it comes
/// back and is brought up to date, and then the other one may go.
#[test]
fn a_spare_is_away_and_comes_back() {
    let _test = vmtest::begin!();
    for lost in [0, 1] {
        let (mut set, second) = two();
        // Main works again, with what it had before: that must not be seen.
        set.main.disk().heal(0, 131_072);
        let (gone, left) = match lost {
            0 => (0..20, second.clone()),
            _ => (second.clone(), 0..20),
        };
        let there = 1 - lost;
        let refusal = set.try_activate(&[there], "").unwrap_err();
        assert!(refusal.reason.contains("missing"), "{refusal:?}");
        assert!(
            refusal.reason.contains(&format!("number {lost}")),
            "{refusal:?}"
        );
        set.activate(&[0, 1], "");
        let epoch = set_epoch(&set);
        set.again(&[there], "degraded");
        assert!(set_epoch(&set) > epoch);
        let status = set.device().status();
        assert!(status.contains("spares=1/2"), "{status}");
        assert!(!status.contains("condition=good"), "{status}");
        set.check(left.clone(), 1);
        set.check_lost(gone.clone());
        // Full or not, some slots have to be free.
        set.device()
            .message("remove_remap 640 160")
            .unwrap_or_default();
        set.remap(400..404, 1);
        set.write(gone.start..gone.start + 4, 2).unwrap();
        set.check(gone.start..gone.start + 4, 2);
        set.check_lost(gone.start + 4..gone.end);
        set.again(&[there], "degraded");
        set.check(gone.start..gone.start + 4, 2);
        set.check_lost(gone.start + 4..gone.end);
        set.check(400..404, 1);

        // Back: by a new activation, or by a reload.
        if lost == 0 {
            set.again(&[0, 1], "");
        } else {
            set.reload(&[0, 1], "").unwrap();
        }
        set.expect_whole(2);
        set.check(gone.start..gone.start + 4, 2);
        set.check(gone.start + 4..gone.end, 1);
        set.check(left.clone(), 1);
        set.check(400..404, 1);

        // Now the other one.
        set.again(&[lost], "degraded");
        set.check_lost(gone.start..gone.start + 4);
        set.check(gone.start + 4..gone.end, 1);
        set.check_lost(left.clone());
        set.check_lost(400..404);
        set.again(&[1, 0], "");
        set.expect_whole(2);
        set.check(gone.start..gone.start + 4, 2);
        set.check(left, 1);
    }
}

/// Each was used without the other: nobody can tell what is true, and no reload puts them together.
#[test]
fn used_apart_and_reloaded() {
    let _test = vmtest::begin!();
    let (mut set, _) = two();
    set.activate(&[0], "degraded");
    set.deactivate();
    set.activate(&[1], "degraded");
    set.deactivate();
    set.activate(&[0], "degraded");
    let refusal = set.reload(&[0, 1], "").unwrap_err();
    assert!(refusal.reason.contains("without each other"), "{refusal:?}");
    set.check(0..20, 1);
}

/// A copy of a spare does not pass for another one.
#[test]
fn a_copy_of_a_spare_is_refused() {
    let _test = vmtest::begin!();
    let (mut set, second) = two();
    let copy = set.add_disk(1);
    let original = content(&set.spares[1]);
    set.spares[copy].disk().poke(0, &original).unwrap();
    for spares in [[0, 1, 2], [1, 2, 0]] {
        let refusal = set.try_activate(&spares, "").unwrap_err();
        assert!(refusal.reason.contains("copy"), "{refusal:?}");
    }
    set.activate(&[0, 1], "");
    set.check(second, 1);
    set.expect_whole(2);
}

/// With `degraded`, a spare that serves blocks can be left out of a device in use.
#[test]
fn a_spare_is_left_out_while_in_use() {
    let _test = vmtest::begin!();
    let (mut set, second) = two();
    set.activate(&[0, 1], "");
    let refusal = set.reload(&[0], "").unwrap_err();
    assert!(refusal.reason.contains("evacuate"), "{refusal:?}");
    set.reload(&[0], "degraded").unwrap();
    set.check(0..20, 1);
    set.check_lost(second.clone());
    let status = set.device().status();
    assert!(status.contains("spares=1/2"), "{status}");
    set.reload(&[0, 1], "").unwrap();
    set.expect_whole(2);
    set.check(second, 1);
}

/// What is on the spares, and puts it there.
fn contents(set: &Set) -> Vec<Vec<u8>> {
    set.spares.iter().map(content).collect()
}

fn put(set: &Set, spare: usize, content: &[u8]) {
    set.spares[spare].disk().poke(0, content).unwrap();
    drop_caches();
}

/// A read-only table writes nothing, not even what it goes without. Those that were used elsewhere
/// meanwhile are newer, and no reload puts them together with it.
#[test]
fn used_elsewhere_during_a_read_only_session() {
    let _test = vmtest::begin!();
    // Large enough that nothing of the others is in use.
    let mut set = Set::new(&[16, 1, 1]);
    set.remap(0..20, 1);
    set.deactivate();
    let before = contents(&set);
    set.activate(&[1, 2], "degraded");
    set.remap(100..110, 2);
    set.deactivate();
    let after = contents(&set);
    for spare in [1, 2] {
        put(&set, spare, &before[spare]);
    }
    set.device = Some(Mapped::try_read_only(&set.line(&[0], "degraded")).unwrap());
    for spare in [1, 2] {
        put(&set, spare, &after[spare]);
    }
    for spares in [&[0, 1][..], &[0, 1, 2], &[2, 0]] {
        let refusal = set.reload(spares, "degraded").unwrap_err();
        assert!(refusal.reason.contains("without each other"), "{refusal:?}");
    }
    // Nor was anything written.
    set.deactivate();
    assert!(contents(&set)[1..] == after[1..]);
    set.activate(&[1, 2], "degraded");
    set.check(100..110, 2);
}

/// A spare that a read-only table went without is one like the others afterwards.
#[test]
fn back_after_a_read_only_session() {
    let _test = vmtest::begin!();
    let mut set = Set::new(&[1, 1]);
    let slots = set.device().status_fraction(0).1;
    set.remap(0..20, 1);
    set.deactivate();
    set.device = Some(Mapped::try_read_only(&set.line(&[0], "degraded")).unwrap());
    set.reload(&[0, 1], "").unwrap();
    set.expect_whole(2);
    set.remap(100..100 + slots - 20, 2);
    set.check(0..20, 1);
    set.again(&[1, 0], "");
    set.expect_whole(2);
    set.check(0..20, 1);
    set.check(100..100 + slots - 20, 2);
}

/// M9, M10: a disk that comes back under its old name with something else on it is not the spare that was
/// lost: it is not read from, not written to, and not accepted.
#[test]
fn another_spare_under_the_same_name() {
    let _test = vmtest::begin!();
    let (mut set, second) = two();
    let both = contents(&set);
    set.activate(&[1], "degraded");
    set.remap(second.start..second.start + 4, 7);
    set.deactivate();
    let apart = content(&set.spares[1]);
    let blank = vec![0; apart.len()];
    for (other, told) in [(blank, "not the one"), (apart, "without each other")] {
        for (spare, content) in both.iter().enumerate() {
            put(&set, spare, content);
        }
        set.activate(&[0, 1], "");
        set.check(second.clone(), 1);
        // Nobody knows what was in the caches before.
        set.open().flush().unwrap();
        set.kill(1);
        set.main.disk().heal(0, 131_072);
        set.spoil(second.clone());
        set.device().message("remove_remap 640 160").unwrap();
        set.remap(300..301, 1);
        set.remap(400..404, 1);
        set.expect("spares", "1/2");
        put(&set, 1, &other);
        set.revive(1);

        let refusal = set.reload(&[0, 1], "").unwrap_err();
        assert!(refusal.reason.contains(told), "{refusal:?}");
        set.device().suspend().unwrap();
        set.device().resume().unwrap();
        set.expect("spares", "1/2");
        set.check(0..20, 1);
        set.check_lost(second.clone());
        set.write(second.start..second.start + 4, 3).unwrap();
        set.check(second.start..second.start + 4, 3);
        assert_eq!(set.place(second.start), Some(0));
        set.open().flush().unwrap();
        assert!(content(&set.spares[1]) == other, "it was written to");

        // The right one again.
        put(&set, 1, &both[1]);
        set.device().suspend().unwrap();
        set.device().resume().unwrap();
        set.expect_whole(2);
        set.check(second.start..second.start + 4, 3);
        set.check(second.start + 4..second.end, 1);
        set.deactivate();
    }
}

/// M3: what one spare has to get from the other before anything is served cannot be had without that.
#[test]
fn left_out_while_the_other_owes_it_something() {
    let _test = vmtest::begin!();
    let (mut set, second) = two();
    // The first block of the first spare's slot table was torn there.
    let table = 33 * BLOCK;
    set.spares[0].disk().poke(table, &[0x55; 512]).unwrap();
    let nothing = format!("0 {} error", set.main.disk().sectors());
    set.device = Some(Mapped::new(&nothing));
    set.device().load(&set.line(&[0, 1], "")).unwrap();
    set.kill(1);
    set.device().suspend().unwrap();
    set.device().resume().unwrap_err();
    let refusal = set.device().load(&set.line(&[0], "degraded")).unwrap_err();
    assert!(refusal.reason.contains("only good copy"), "{refusal:?}");
    set.revive(1);
    set.reload(&[0, 1], "").unwrap();
    set.expect_whole(2);
    set.check(0..20, 1);
    set.check(second, 1);
    // Then it can.
    set.reload(&[0], "degraded").unwrap();
    set.check(0..20, 1);
}

/// D2: several are left out at once: what goes for each of them does not go for all.
#[test]
fn several_are_left_out() {
    let _test = vmtest::begin!();
    let set = Set::new(&[1, 1, 1]);
    set.remap(0..20, 1);
    let mut end = 20;
    while set.place(end - 1) != Some(1) {
        set.remap(end..end + 4, 1);
        end += 4;
    }
    for all in [false, true] {
        // First while the last one serves nothing and would just leave, then while it does.
        while all && set.place(end - 1) != Some(2) {
            set.remap(end..end + 4, 1);
            end += 4;
        }
        let refusal = set.reload(&[0], "degraded").unwrap_err();
        assert!(refusal.reason.contains("only good copy"), "{refusal:?}");
        set.expect_whole(3);
        set.check(0..end, 1);
    }
    // One after the other.
    set.device()
        .message("remove_remap 0 160")
        .unwrap_or_default();
    set.reload(&[0, 2], "degraded").unwrap();
    set.check(end - 4..end, 1);
    set.reload(&[0, 1, 2], "").unwrap();
    set.expect_whole(3);
    set.check(0..end, 1);
}
