// SPDX-License-Identifier: GPL-2.0
//! P17: what users are told of a device, and of why a message was refused.

use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::stamps;
use vmtest::guest::Remap;

fn bad() -> Fault {
    Fault::bad(Direction::Both)
}

/// The value of a line `key=value`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.split_once('='));
    lines
        .find(|(known, _)| *known == key)
        .map(|(_, value)| value)
}

fn told(remap: &Remap, message: &str) -> String {
    let reply = remap.device().message(message);
    reply.unwrap_or_else(|refusal| panic!("{message}: {refusal:?}"))
}

/// The reason of the last refusal is kept, with the message's name and the errno; what is not refused leaves it alone.
#[test]
fn why_tells_the_last_refusal() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    assert_eq!(told(&remap, "why"), "no message was refused");
    for (message, why) in [
        (
            "REMAP x",
            "remap: sector \"x\" is not a decimal number (errno 22)",
        ),
        ("scan start", "scan: not available yet (errno 38)"),
        (
            "evacuate 7",
            "evacuate: no spare 7: metadata_status tells the numbers (errno 19)",
        ),
    ] {
        let refusal = remap.device().message(message).unwrap_err();
        assert!(refusal.reason.contains(why), "{refusal:?}");
        assert_eq!(told(&remap, "why"), why);
        told(&remap, "ping");
        assert_eq!(told(&remap, "why"), why);
    }
    assert_eq!(value(&told(&remap, "stats"), "refused_messages"), Some("3"));
    // It belongs to the device that was refused something.
    remap.reactivate();
    assert_eq!(told(&remap, "why"), "no message was refused");
}

/// Messages that are refused at the same time do not mix their reasons.
#[test]
fn reasons_do_not_mix() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.device();
    let words: Vec<String> = (1..5).map(|length| "x".repeat(length * 9)).collect();
    let reasons: Vec<String> = words
        .iter()
        .map(|word| format!("remap: sector \"{word}\" is not a decimal number (errno 22)"))
        .collect();
    std::thread::scope(|scope| {
        for word in &words {
            scope.spawn(move || {
                for _ in 0..50 {
                    device.message(&format!("remap {word}")).unwrap_err();
                }
            });
        }
        for _ in 0..50 {
            let why = told(&remap, "why");
            assert!(
                reasons.contains(&why) || why == "no message was refused",
                "{why}"
            );
        }
    });
    assert!(reasons.contains(&told(&remap, "why")));
}

/// What is wrong comes first, with what to do, and goes when it is over.
#[test]
fn health_and_stats_tell_what_is_wrong() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    assert_eq!(told(&remap, "health"), "good: nothing is wrong");
    remap.main.disk().spoil(100, 2, bad());
    let device = remap.open();
    device.read(100, 2).unwrap_err();
    assert!(eventually(|| remap.device().pending() == 2));
    remap.main.disk().spoil(200, 1, bad());
    device.write(200, &stamps(200, 1, 1)).unwrap();
    told(&remap, "set_auto_remap 0");
    let health = told(&remap, "health");
    let lines: Vec<&str> = health.lines().collect();
    assert!(
        lines[0].starts_with("failing: 2 blocks of main cannot be read; "),
        "{health}"
    );
    assert!(
        lines[1].starts_with("note: failed blocks are not remapped; "),
        "{health}"
    );
    assert_eq!(lines.len(), 2, "{health}");
    let stats = told(&remap, "stats");
    for (name, expected) in [
        ("pending", "2"),
        ("remapped", "1"),
        ("auto_remaps", "1"),
        ("auto_remap", "off"),
        ("health", "0"),
        ("condition", "failing"),
        ("lost", "0"),
    ] {
        assert_eq!(value(&stats, name), Some(expected), "{name} of {stats}");
    }
    // Nobody has to know the unit of a line.
    assert!(stats.lines().all(|line| line.split_once('=').is_some()));
    told(&remap, "set_auto_remap 1");
    device.write(100, &stamps(100, 2, 1)).unwrap();
    assert_eq!(told(&remap, "health"), "good: nothing is wrong");
}

/// Lists all of it, page by page, and tells how many pages that were.
fn listed(remap: &Remap, kind: &str) -> (Vec<String>, usize) {
    let (mut all, mut from, mut pages) = (Vec::new(), 0, 0);
    loop {
        let page = told(remap, &format!("list {kind} {from}"));
        pages += 1;
        let mut lines: Vec<String> = page.lines().map(str::to_string).collect();
        let last = lines.pop().expect("a last line");
        all.extend(lines);
        if last == "end" {
            return (all, pages);
        }
        let next = last.strip_prefix("next=").expect("where to go on");
        let next: u64 = next.parse().expect("a sector");
        assert!(next > from, "{next} after {from}");
        from = next;
    }
}

/// Every kind that there is, in order, with neighbours as one range.
#[test]
fn list_tells_ranges_of_each_kind() {
    let _test = vmtest::begin!();
    for block in [512, 4096] {
        let unit = u64::from(block) / 512;
        let remap = Remap::new(block);
        assert_eq!(told(&remap, "list"), "end");
        let device = remap.open();
        told(&remap, &format!("remap {} {}", 40 * unit, 3 * unit));
        told(&remap, &format!("remap {} {}", 39 * unit, unit));
        remap.main.disk().spoil(43 * unit, 2 * unit, bad());
        device.read(43 * unit, 2 * unit).unwrap_err();
        assert!(eventually(|| remap.device().pending() == 2));
        let last = Remap::MAIN_SECTORS - unit;
        told(&remap, &format!("remap {last}"));
        let remapped = [
            format!("{} {} remapped", 39 * unit, 4 * unit),
            format!("{last} {unit} remapped"),
        ];
        let pending = format!("{} {} pending", 43 * unit, 2 * unit);
        let all = [remapped[0].clone(), pending.clone(), remapped[1].clone()];
        assert_eq!(listed(&remap, ""), (all.to_vec(), 1));
        assert_eq!(listed(&remap, "remapped").0, remapped);
        assert_eq!(listed(&remap, "PENDING").0, [pending]);
        assert_eq!(told(&remap, "list lost"), "end");
        assert_eq!(
            told(&remap, &format!("list {}", 44 * unit - 1)),
            format!("{}\n{}\nend", all[1], all[2])
        );
        // A slot that cannot be read has lost its block.
        let slot = remap.slot_of(40 * unit).expect("a slot");
        remap.spare.disk().spoil(slot, unit, bad());
        device.read(40 * unit, unit).unwrap_err();
        assert_eq!(
            listed(&remap, "lost").0,
            [format!("{} {unit} lost", 40 * unit)]
        );
    }
}

/// More than a reply holds: each page says where the next one begins, and nothing is missing or told twice. What does
/// not change is told in full while others move.
#[test]
fn a_long_list_goes_on() {
    const BLOCKS: u64 = 1200;
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    for number in 0..BLOCKS {
        told(&remap, &format!("remap {}", 16 * number));
    }
    let (all, pages) = listed(&remap, "");
    let expected: Vec<String> = (0..BLOCKS)
        .map(|number| format!("{} 1 remapped", 16 * number))
        .collect();
    assert_eq!(all, expected);
    assert!(pages > 1, "{} lines fit", all.len());
    let device = remap.device();
    std::thread::scope(|scope| {
        let moving = scope.spawn(|| {
            for _ in 0..20 {
                device.message("remap 8").unwrap();
                device.message("remove_remap 8").unwrap();
            }
        });
        while !moving.is_finished() {
            let (mut all, _) = listed(&remap, "remapped");
            all.retain(|line| line != "8 1 remapped");
            assert_eq!(all, expected);
        }
    });
}

/// What main could read only after several tries is remapped, and is told apart for as long as the device is there.
#[test]
fn list_tells_what_was_weak() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    let device = remap.open();
    device.write(0, &stamps(0, 64, 1)).unwrap();
    let weak = Fault::bad(Direction::Read).times(2);
    remap.main.disk().spoil(12, 1, weak);
    assert!(device.read(12, 1).unwrap() == stamps(12, 1, 1));
    assert!(eventually(|| told(&remap, "list weak") == "12 1 weak\nend"));
    told(&remap, "remap 13");
    assert_eq!(
        told(&remap, "list remapped"),
        "12 1 weak\n13 1 remapped\nend"
    );
    drop(device);
    remap.reactivate();
    assert_eq!(told(&remap, "list"), "12 2 remapped\nend");
}

/// What main could not read is listed at once, also while a spare that hangs does not set anything aside for it.
#[test]
fn list_tells_what_is_noted() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let sectors = remap.spare.disk().sectors();
    remap.main.disk().spoil(100, 2, bad());
    remap.spare.disk().hold(0..sectors, Direction::Both);
    let _released = remap.spare.release_at_end();
    remap.open().read(100, 2).unwrap_err();
    assert_eq!(told(&remap, "list pending"), "100 2 pending\nend");
    assert_eq!(told(&remap, "list"), "100 2 pending\nend");
}
