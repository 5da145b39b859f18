// SPDX-License-Identifier: GPL-2.0
//! Bad input: whatever is said, by whomever and whenever, is refused with a reason or does what it says. A refusal
//! changes nothing.

use dm_remap_logic::limit::Limit;
use dm_remap_logic::message::table::ALL;
use vmtest::guest::message_of_bytes;
use vmtest::guest::message_without_rights;
use vmtest::guest::stamps;
use vmtest::guest::Remap;

/// Numbers at every limit, and what is none.
fn numbers() -> Vec<String> {
    let end = Remap::MAIN_SECTORS;
    let mut all: Vec<String> = [
        0,
        1,
        2,
        7,
        8,
        u64::from(u32::MAX),
        u64::from(u32::MAX) + 1,
        end - 1,
        end,
        end + 1,
        1 << 63,
        u64::MAX - 1,
        u64::MAX,
    ]
    .iter()
    .map(u64::to_string)
    .collect();
    for limit in Limit::ALL {
        all.extend([limit.min(), limit.max()].map(|number| number.to_string()));
    }
    let none = [
        "18446744073709551616",
        "99999999999999999999999999999999",
        "-1",
        "+1",
        "0x10",
        "1e3",
        "1.5",
        "\u{661}",
        "''",
        "\"1\"",
        "lost",
        "low_water",
        "start",
        "\u{fffd}",
        "%s%n",
    ];
    all.extend(none.map(str::to_string));
    all
}

/// What may not change when something is refused.
fn state(remap: &Remap) -> String {
    let told = |message: &str| remap.device().message(message).unwrap();
    let mut stats = told("stats");
    // Refusals are counted.
    stats = stats
        .lines()
        .filter(|line| !line.starts_with("refused_messages="))
        .collect::<Vec<_>>()
        .join("\n");
    format!(
        "{}\n{stats}\n{}\n{}",
        remap.device().table(),
        told("list"),
        told("metadata_status")
    )
}

/// Each message with each number of words of each kind.
fn generated() -> Vec<String> {
    let numbers = numbers();
    let mut all = Vec::new();
    for form in ALL {
        for name in [Some(form.name), form.older].into_iter().flatten() {
            all.push(name.to_string());
            all.push(name.to_uppercase());
            for (index, number) in numbers.iter().enumerate() {
                let other = &numbers[(index * 7 + 3) % numbers.len()];
                let third = &numbers[(index * 5 + 1) % numbers.len()];
                all.push(format!("{name} {number}"));
                all.push(format!("{name} {number} {other}"));
                all.push(format!("{name} {number} {other} {third}"));
                all.push(format!("{name} {number} {other} {third} 1"));
            }
            all.push(format!("{name}x"));
            all.push(format!("x{name}"));
        }
    }
    // What would move more blocks than there are slots is refused in the middle of it, and is tested elsewhere.
    let is_long = |message: &String| {
        let words: Vec<&str> = message.split(' ').collect();
        let count = words.get(2).and_then(|word| word.parse::<u64>().ok());
        count.is_some_and(|count| (1000..=Remap::MAIN_SECTORS).contains(&count))
    };
    all.retain(|message| !is_long(message));
    all
}

/// P17: a message that is refused has a reason, which is kept, and changes nothing.
#[test]
fn generated_messages_are_refused_with_a_reason() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.device();
    remap.open().write(0, &stamps(0, 64, 1)).unwrap();
    device.message("remap 8 4").unwrap();
    let (mut heard, mut refused) = (0, 0);
    let mut before = state(&remap);
    for message in generated() {
        match device.message(&message) {
            Ok(_) => {
                heard += 1;
                before = state(&remap);
            }
            Err(refusal) => {
                refused += 1;
                let why = device.message("why").unwrap();
                let (reason, errno) = why.rsplit_once(" (errno ").expect(&why);
                assert!(reason.contains(": "), "`{message}`: {why}");
                let errno: i32 = errno.trim_end_matches(')').parse().expect(&why);
                let error = std::io::Error::from_raw_os_error(errno).to_string();
                assert!(
                    error.starts_with(&refusal.error),
                    "`{message}`: {refusal:?}, {why}"
                );
                // The kernel's log escapes other characters.
                let plain = reason.is_ascii() && !reason.contains('\\');
                let logged = !plain || refusal.reason.contains(reason);
                assert!(logged, "`{message}`: {refusal:?}, {why}");
                if refused % 4 == 0 {
                    assert_eq!(
                        state(&remap),
                        before,
                        "`{message}`, or one of three before it"
                    );
                }
            }
        }
    }
    assert!(
        heard > 50 && refused > 1000,
        "{heard} heard, {refused} refused"
    );
    let read = remap.open().read(0, 64).unwrap();
    assert!(read == stamps(0, 64, 1));
}

/// Who has no rights is refused by device mapper, and nothing of it reaches the device.
#[test]
fn who_has_no_rights_is_not_heard() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.device();
    let before = state(&remap);
    for form in ALL {
        for words in ["", " 1", " 1 1", " 1 8192 1", " low_water 3"] {
            let message = format!("{}{words}", form.name);
            let error = message_without_rights(device.name(), &message).unwrap_err();
            assert_eq!(
                error.raw_os_error(),
                Some(libc::EACCES),
                "{message}: {error}"
            );
        }
    }
    assert_eq!(state(&remap), before);
    assert_eq!(device.message("why").unwrap(), "no message was refused");
}

/// Bytes that are no text, and more words and longer ones than anybody needs.
#[test]
fn any_bytes_are_taken() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.device();
    let before = state(&remap);
    let long = 64 << 10;
    let words = |word: &str| word.repeat(long / word.len()).into_bytes();
    for (bytes, errno, says) in [
        (b"\xff\xfe".to_vec(), libc::EILSEQ, "not UTF-8"),
        (b"remap \xc3\x28".to_vec(), libc::EILSEQ, "not UTF-8"),
        (b"remap 1 \x80".to_vec(), libc::EILSEQ, "not UTF-8"),
        (words("remap "), libc::EINVAL, "wrong number of words"),
        (words("7 "), libc::EOPNOTSUPP, "unknown message \"7\""),
        (words("x"), libc::EOPNOTSUPP, "known are: remap,"),
        (
            [b"remap ".to_vec(), words("9")].concat(),
            libc::ERANGE,
            "is too large",
        ),
        (
            [b"verify ".to_vec(), words("\u{20ac}")].concat(),
            libc::EINVAL,
            "is not a decimal number",
        ),
        (
            [b"why ".to_vec(), words("why ")].concat(),
            libc::EINVAL,
            "use: why",
        ),
    ] {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(20)]).into_owned();
        let error = message_of_bytes(device.name(), &bytes).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(errno), "{shown}: {error}");
        let why = device.message("why").unwrap();
        assert!(why.contains(says), "{shown}: {why}");
        assert!(why.ends_with(&format!("(errno {errno})")), "{shown}: {why}");
        assert_eq!(state(&remap), before, "{shown}");
    }
}

/// E8: on a device that is suspended, and that is suspended, resumed and removed all the time, each message is
/// answered or refused, and nothing hangs.
#[test]
fn messages_amid_suspends_and_removal() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    {
        let device = remap.device();
        device.suspend().unwrap();
        let before = state(&remap);
        for message in [
            "retry 1",
            "recheck",
            "clear_all",
            "evacuate 0",
            "use_spare 0",
            "save",
        ] {
            device.message(message).unwrap_err();
            let why = device.message("why").unwrap();
            assert!(
                why.contains("not while the device is suspended"),
                "{message}: {why}"
            );
        }
        for message in [
            "stats", "health", "list", "why", "help", "status", "verify 1",
        ] {
            device.message(message).unwrap();
        }
        assert_eq!(state(&remap), before);
        device.resume().unwrap();
    }
    let device = remap.device();
    let name = device.name().to_string();
    let over = std::sync::atomic::AtomicBool::new(false);
    let is_over = || over.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|scope| {
        for messages in [
            ["remap 0 512", "remove_remap 0 512", "retry 0 131072"],
            ["recheck", "list", "health"],
            ["remap x", "why", "clear_all"],
        ] {
            let (name, is_over) = (&name, &is_over);
            scope.spawn(move || {
                for message in messages.iter().cycle() {
                    if is_over() {
                        break;
                    }
                    let _ = vmtest::guest::message(name, message);
                }
            });
        }
        for _ in 0..20 {
            device.suspend().unwrap();
            device.resume().unwrap();
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    device.message("clear_all").unwrap();
    assert_eq!(device.remapped(), 0);
    // A message that is under way holds the device: a removal waits for it, or is refused.
    std::thread::scope(|scope| {
        let name = &name;
        let sender = scope.spawn(move || loop {
            if vmtest::guest::message(name, "remap x")
                .is_err_and(|error| error.raw_os_error() == Some(libc::ENXIO))
            {
                break;
            }
        });
        remap.deactivate();
        sender.join().unwrap();
    });
    remap.activate();
    assert_eq!(remap.device().status_value("health").as_deref(), Some("1"));
}
