// SPDX-License-Identifier: GPL-2.0

//! Table lines: what was loaded prints back, and what is wrong is named.

use dm_remap_logic::args::parse;
use dm_remap_logic::args::print;
use dm_remap_logic::args::ArgsErrorKind;
use dm_remap_logic::args::Form;
use dm_remap_logic::args::Named;
use dm_remap_logic::errno::Errno;
use dm_remap_logic::limit::Limit;
use dm_remap_logic::limit::Wrong;
use dm_remap_logic::text::MainId;
use dm_remap_logic::text::Uuid;
use proptest::prelude::*;

const UUID: &str = "01234567-89ab-4def-8edc-ba9876543210";

/// The words that the target sees of a line: device mapper takes backslashes away, and what stands
/// behind one for itself.
fn split(text: &str) -> Vec<String> {
    let word = |quoted: &str| {
        let mut characters = quoted.chars();
        let next = || match characters.next()? {
            '\\' => characters.next(),
            character => Some(character),
        };
        std::iter::from_fn(next).collect()
    };
    text.split_whitespace().map(word).collect()
}

fn texts(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// Loads a line and prints it back.
fn back(form: Form, text: &str) -> String {
    let words = split(text);
    let line = parse(form, &texts(&words)).unwrap_or_else(|e| panic!("{text}: {e}"));
    let mut out = String::new();
    let more: Vec<&str> = line
        .options
        .more_spares()
        .map(|at| words[at].as_str())
        .collect();
    let nth = |number: usize| more.get(number).copied();
    print(&mut out, line.main, line.spare, nth, &line.options).unwrap();
    out
}

/// The line that names the set which this one makes.
fn named(form: Form, text: &str) -> String {
    let words = split(text);
    let words = texts(&words);
    let line = parse(form, &words).unwrap_or_else(|e| panic!("{text}: {e}"));
    let named = Named {
        words: &words,
        options: &line.options,
        uuid: Uuid::parse(UUID).expect("a UUID"),
    };
    named.to_string()
}

#[test]
fn a_set_is_named_in_the_words_that_made_it() {
    let long = |text| named(Form::DmRemap, text);
    assert_eq!(
        long("/dev/a /dev/b"),
        format!("dm-remap /dev/a /dev/b 2 uuid {UUID}")
    );
    // What is said for once is left out.
    assert_eq!(
        long(r"/dev/a\\x20 /dev/b 6 spare /dev/c\\ format degraded low_water 5"),
        format!(r"dm-remap /dev/a\\x20 /dev/b 6 spare /dev/c\\ low_water 5 uuid {UUID}")
    );
    assert_eq!(
        named(Form::Remap, "/dev/a /dev/b 8 4096"),
        format!("dm-remap /dev/a /dev/b 6 spare_start 8 spare_len 4096 uuid {UUID}")
    );
    assert_eq!(
        named(Form::Remap, "/dev/a 0 /dev/b 8 4096"),
        named(Form::Remap, "/dev/a /dev/b 8 4096")
    );
    let text = long("/dev/a /dev/b 1 format");
    let (_, again) = text.split_once(' ').expect("the target");
    assert_eq!(long(again), text);
}

/// An older wrapper says where main begins, which is at its first sector.
#[test]
fn five_words_are_four() {
    assert_eq!(back(Form::Remap, "8:0 0 8:16 0 4096"), "8:0 8:16 0 4096");
}

fn options() -> impl Strategy<Value = Vec<String>> {
    let number = |name: &'static str, max: u64| (0..=max).prop_map(move |n| format!("{name} {n}"));
    let limit = |limit: Limit| {
        (limit.min()..=limit.max()).prop_map(move |n| format!("{} {n}", limit.name()))
    };
    let all = (
        prop_oneof![
            Just("auto_remap on".to_string()),
            Just("auto_remap off".to_string())
        ],
        number("spare_start", 1 << 54),
        (1u64..1 << 54).prop_map(|n| format!("spare_len {n}")),
        "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}"
            .prop_map(|uuid| format!("uuid {uuid}")),
        "[!-~]{1,64}".prop_map(|id| format!("main_id {}", id.replace('\\', "\\\\"))),
        Limit::ALL.map(limit),
        0usize..4,
    );
    let list = all.prop_map(|(a, b, c, d, e, limits, spares)| {
        let mut list = vec![a, b, c, d, e];
        list.extend(["degraded", "spare_as_main"].map(String::from));
        list.extend((0..spares).map(|number| format!("spare 8:{}", 32 + number)));
        list.extend(limits);
        list
    });
    list.prop_shuffle()
        .prop_flat_map(|all| (0..=all.len()).prop_map(move |n| all[..n].to_vec()))
}

proptest! {
    #![proptest_config(super::random::config())]

    #[test]
    fn prints_back_what_was_loaded(given in options(), format: bool) {
        let mut line = "8:0 8:16".to_string();
        if !given.is_empty() {
            line += &format!(" {} {}", split(&given.join(" ")).len(), given.join(" "));
        }
        prop_assert_eq!(back(Form::DmRemap, &line), line.clone());
        // `format` is taken and not printed.
        if format && !given.iter().any(|o| o.starts_with("uuid")) {
            let words = split(&given.join(" ")).len() + 1;
            let with = format!("8:0 8:16 {words} format {}", given.join(" "));
            let words = split(&with);
            prop_assert!(parse(Form::DmRemap, &texts(&words)).unwrap().options.format);
            prop_assert_eq!(back(Form::DmRemap, &with), line);
        }
    }

    #[test]
    fn the_old_form_prints_back(start in 0u64..1 << 54, len in 1u64..1 << 54) {
        let line = format!("/dev/a /dev/b {start} {len}");
        prop_assert_eq!(back(Form::Remap, &line), line);
    }

    #[test]
    fn nonsense_is_refused_quietly(words in prop::collection::vec(".{0,12}", 0..12)) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        for form in [Form::Remap, Form::DmRemap] {
            if let Err(error) = parse(form, &words) {
                prop_assert!(!error.message().is_empty());
                prop_assert!(error.argument <= words.len());
            }
        }
    }
}

/// P9: else the table that is printed would name another main when it is loaded again.
#[test]
fn backslashes_print_back() {
    let line = r"8:0 8:16 2 main_id \\a\\\\b\\";
    let words = split(line);
    let loaded = parse(Form::DmRemap, &texts(&words)).unwrap().options;
    assert_eq!(loaded.main_id, MainId::new(r"\a\\b\"));
    assert_eq!(back(Form::DmRemap, line), line);
}

#[test]
fn what_is_wrong_is_named() {
    use ArgsErrorKind::*;
    let long = format!("a b 2 main_id {}", "x".repeat(65));
    let uuid = format!("a b 3 format uuid {UUID}");
    let nil = "a b 2 uuid 00000000-0000-0000-0000-000000000000";
    for (line, kind, argument, errno) in [
        ("", DmRemapTooFew, 0, Errno::Invalid),
        ("a", DmRemapTooFew, 1, Errno::Invalid),
        ("a b x", CountNotNumber, 2, Errno::Invalid),
        ("a b -1", CountNotNumber, 2, Errno::Invalid),
        ("a b 99999999999999999999", CountTooLarge, 2, Errno::TooMany),
        ("a b 100", CountTooLarge, 2, Errno::TooMany),
        ("a b 1", CountMismatch, 2, Errno::Invalid),
        ("a b 0 format", CountMismatch, 2, Errno::Invalid),
        ("a b 1 frob", Unknown, 3, Errno::NotSupported),
        ("a b 1 spare", NoValue, 4, Errno::Invalid),
        (
            "a b 8 spare c spare d spare e spare f",
            TooManySpares,
            9,
            Errno::TooMany,
        ),
        ("a b 1 auto_remap", NoValue, 4, Errno::Invalid),
        ("a b 2 auto_remap yes", AutoRemap, 4, Errno::Invalid),
        ("a b 4 low_water 1 low_water 2", Twice, 5, Errno::Exists),
        ("a b 2 format format", Twice, 4, Errno::Exists),
        (
            "a b 2 spare_start x",
            SpareStartNotNumber,
            4,
            Errno::Invalid,
        ),
        (
            "a b 2 spare_start 18446744073709551616",
            SpareStartTooLarge,
            4,
            Errno::Range,
        ),
        (
            "a b 2 spare_start 18446744073709551615",
            SpareStartTooLarge,
            4,
            Errno::Range,
        ),
        ("a b 2 spare_len 0x8", SpareLenNotNumber, 4, Errno::Invalid),
        ("a b 2 spare_len 0", SpareLenZero, 4, Errno::Invalid),
        (
            "a b 2 spare_len 99999999999999999999",
            SpareLenTooLarge,
            4,
            Errno::Range,
        ),
        (
            "a b 4 spare_len 36028797018963968 spare_start 1",
            WindowTooLarge,
            3,
            Errno::Range,
        ),
        ("a b 2 uuid 1234", Uuid, 4, Errno::Invalid),
        (nil, Uuid, 4, Errno::Invalid),
        (&long, MainId, 4, Errno::Invalid),
        (
            "a b 2 read_retries x",
            LimitValue(Limit::ReadRetries, Wrong::NotNumber),
            4,
            Errno::Invalid,
        ),
        (
            "a b 2 read_retries 101",
            LimitValue(Limit::ReadRetries, Wrong::OutOfRange),
            4,
            Errno::Range,
        ),
        (
            "a b 2 error_threshold x",
            LimitValue(Limit::ErrorThreshold, Wrong::NotNumber),
            4,
            Errno::Invalid,
        ),
        (
            "a b 2 error_threshold 1000001",
            LimitValue(Limit::ErrorThreshold, Wrong::OutOfRange),
            4,
            Errno::Range,
        ),
        (
            "a b 2 low_water x",
            LimitValue(Limit::LowWater, Wrong::NotNumber),
            4,
            Errno::Invalid,
        ),
        (
            "a b 2 low_water 101",
            LimitValue(Limit::LowWater, Wrong::OutOfRange),
            4,
            Errno::Range,
        ),
        (
            "a b 2 deadline_ms soon",
            LimitValue(Limit::DeadlineMs, Wrong::NotNumber),
            4,
            Errno::Invalid,
        ),
        (
            "a b 2 deadline_ms 99",
            LimitValue(Limit::DeadlineMs, Wrong::OutOfRange),
            4,
            Errno::Range,
        ),
        (&uuid, FormatWithUuid, 3, Errno::Invalid),
        ("a a", DevicesEqual, 1, Errno::Busy),
    ] {
        let error = parse(Form::DmRemap, &texts(&split(line))).unwrap_err();
        assert_eq!((error.kind, error.argument), (kind, argument), "{line}");
        assert_eq!(error.errno(), errno, "{line}");
    }
    for (line, kind, argument) in [
        ("a b", RemapCount, 2),
        ("a b 0 1 2 3", RemapCount, 4),
        ("a 8 b 0 1", MainStartNotZero, 1),
        ("a 99999999999999999999 b 0 1", MainStartNotZero, 1),
        ("a b 0 1 2", MainStartNotNumber, 1),
        ("a 0 b x 1", SpareStartNotNumber, 3),
        ("a 0 b 0 0", SpareLenZero, 4),
        ("a b x 1", SpareStartNotNumber, 2),
        ("a b 0 x", SpareLenNotNumber, 3),
        ("a b 0 0", SpareLenZero, 3),
        ("a b 36028797018963968 1", WindowTooLarge, 2),
        ("a a 0 8", DevicesEqual, 1),
    ] {
        let error = parse(Form::Remap, &texts(&split(line))).unwrap_err();
        assert_eq!((error.kind, error.argument), (kind, argument), "{line}");
    }
}

#[test]
fn every_kind_has_its_own_words() {
    use ArgsErrorKind::*;
    let kinds = [
        DmRemapTooFew,
        RemapCount,
        MainStartNotNumber,
        MainStartNotZero,
        CountNotNumber,
        CountTooLarge,
        CountMismatch,
        Unknown,
        NoValue,
        Twice,
        AutoRemap,
        SpareStartNotNumber,
        SpareStartTooLarge,
        SpareLenNotNumber,
        SpareLenTooLarge,
        SpareLenZero,
        WindowTooLarge,
        Uuid,
        MainId,
        LimitValue(Limit::ReadRetries, Wrong::NotNumber),
        LimitValue(Limit::ReadRetries, Wrong::OutOfRange),
        LimitValue(Limit::ErrorThreshold, Wrong::NotNumber),
        LimitValue(Limit::ErrorThreshold, Wrong::OutOfRange),
        LimitValue(Limit::LowWater, Wrong::NotNumber),
        LimitValue(Limit::LowWater, Wrong::OutOfRange),
        LimitValue(Limit::DeadlineMs, Wrong::NotNumber),
        LimitValue(Limit::DeadlineMs, Wrong::OutOfRange),
        LimitValue(Limit::AutosaveSeconds, Wrong::NotNumber),
        LimitValue(Limit::AutosaveSeconds, Wrong::OutOfRange),
        FormatWithUuid,
        DevicesEqual,
        TooManySpares,
    ];
    let mut texts: Vec<String> = kinds
        .map(|kind| dm_remap_logic::args::ArgsError { kind, argument: 0 }.to_string())
        .to_vec();
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), kinds.len());
}

#[test]
fn who_errs_is_told_all_limits() {
    let kind = ArgsErrorKind::Unknown;
    let text = dm_remap_logic::args::ArgsError { kind, argument: 0 }.to_string();
    for limit in Limit::ALL {
        assert!(text.contains(limit.name()), "{text}");
    }
}
