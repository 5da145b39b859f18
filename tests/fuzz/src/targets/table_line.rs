// SPDX-License-Identifier: GPL-2.0

//! Table lines.

use dm_remap_logic::args::parse;
use dm_remap_logic::args::print;
use dm_remap_logic::args::Form;
use dm_remap_logic::args::Options;
use dm_remap_logic::args::MORE_SPARES;
use dm_remap_logic::limit::Limit;

use super::Verdict;
use crate::words::is_digits;
use crate::words::split;
use crate::words::text;
use crate::Input;

const KNOWN: &[&str] = &[
    "auto_remap on",
    "auto_remap off",
    "spare_start",
    "spare_len",
    "uuid 01234567-89ab-4def-8edc-ba9876543210",
    "main_id",
    "main_id ata-x",
    r"main_id a\\b",
    "read_retries",
    "error_threshold",
    "low_water",
    "deadline_ms",
    "deadline_ms 500",
    "autosave_seconds 5",
    "spare c",
    "spare /dev/sdd",
    "degraded",
    "format",
    "spare_as_main",
];

/// Which target, and a line as a user may give it: as it stands, or made of words that are known,
/// with the right number in front.
pub(super) fn run(input: &mut Input<'_>) -> Verdict {
    let kind = input.u8();
    let form = if kind & 1 == 0 {
        Form::DmRemap
    } else {
        Form::Remap
    };
    let words = match kind >> 1 & 1 {
        0 => split(input.rest()),
        _ => split(line(form, input).as_bytes()),
    };
    let Some(words) = words else {
        return Verdict::Refused;
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let line = match parse(form, &words) {
        Ok(line) => line,
        Err(error) => {
            assert!(!error.message().is_empty());
            assert!(error.argument <= words.len());
            return Verdict::Refused;
        }
    };
    assert_eq!([line.main, line.spare], words[..2]);
    assert_ne!(line.main, line.spare);
    options(&line.options);
    let spares: Vec<&str> = line.options.more_spares().map(|at| words[at]).collect();
    let given = words.windows(2).filter(|pair| pair[0] == "spare");
    assert!(spares.len() <= MORE_SPARES && spares.len() <= given.count());
    numbers(form, &words);

    // The table is loaded again as it was printed; the devices have other names there.
    let printed = print_line(&line.options);
    let words = split(printed.as_bytes()).expect("it is text");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let again = parse(form, &words).unwrap_or_else(|error| panic!("{printed}: {error}"));
    assert_eq!([again.main, again.spare], ["8:0", "8:16"]);
    let more = again.options.more_spares().map(|at| words[at].to_string());
    assert!(more.eq((0..spares.len()).map(more_spare)), "{printed}");
    let mut expected = line.options;
    if expected.format {
        // It is not printed, nor is its place remembered, and other words have other numbers.
        expected = again.options;
        assert_eq!(without_order(&again.options), without_order(&line.options));
    }
    assert_eq!(again.options, expected, "{printed}");
    assert!(!again.options.format);
    assert_eq!(print_line(&again.options), printed);
    Verdict::Accepted
}

fn line(form: Form, input: &mut Input<'_>) -> String {
    match form {
        Form::Remap => format!("a b {} {}", input.number(), input.number()),
        Form::DmRemap => {
            let text = text(input, KNOWN);
            let count = split(text.as_bytes()).map_or(0, |words| words.len());
            format!("a b {count} {text}")
        }
    }
}

fn print_line(options: &Options) -> String {
    let mut out = String::new();
    let spare = String::from("8:16");
    let more = |number| Some(more_spare(number));
    print(&mut out, "8:0", spare, more, options).expect("a string takes all");
    out
}

/// What a spare is called when it is printed.
fn more_spare(number: usize) -> String {
    format!("8:{}", 32 + 16 * number)
}

fn options(options: &Options) {
    let [start, len] = [options.spare_start, options.spare_len].map(|n| u128::from(n.unwrap_or(0)));
    assert!(start + len <= 1 << 55);
    assert_ne!(options.spare_len, Some(0));
    assert!(options.uuid.is_none_or(|uuid| !uuid.is_nil()));
    assert!(options.main_id.is_none_or(|id| !id.is_none()));
    assert!(!(options.format && options.uuid.is_some()));
    for limit in Limit::ALL {
        let range = limit.min()..=limit.max();
        assert!(options.limit(limit).is_none_or(|n| range.contains(&n)));
    }
}

/// Where a number belongs, there stands one.
fn numbers(form: Form, words: &[&str]) {
    let mut rest = words[2..].iter();
    match form {
        Form::Remap => assert!(rest.all(|word| is_digits(word)), "{words:?}"),
        Form::DmRemap => {
            assert!(
                rest.next().is_none_or(|count| is_digits(count)),
                "{words:?}"
            );
            while let Some(name) = rest.next() {
                let value = match *name {
                    "format" | "degraded" | "spare_as_main" => continue,
                    _ => rest.next().expect("all others have a value"),
                };
                let other = matches!(*name, "auto_remap" | "uuid" | "main_id" | "spare");
                assert!(other || is_digits(value), "{words:?}");
            }
        }
    }
}

type Said = (
    Option<bool>,
    [bool; 2],
    [Option<u64>; 2],
    Option<dm_remap_logic::text::Uuid>,
    Option<dm_remap_logic::text::MainId>,
    [Option<u32>; Limit::ALL.len()],
);

fn without_order(options: &Options) -> Said {
    (
        options.auto_remap,
        [options.degraded, options.spare_as_main],
        [options.spare_start, options.spare_len],
        options.uuid,
        options.main_id,
        Limit::ALL.map(|limit| options.limit(limit)),
    )
}
