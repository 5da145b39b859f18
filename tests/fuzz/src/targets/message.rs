// SPDX-License-Identifier: GPL-2.0

//! Messages.

use dm_remap_logic::limit::Limit;
use dm_remap_logic::listing::Kind;
use dm_remap_logic::message::parse;
use dm_remap_logic::message::whole_blocks;
use dm_remap_logic::message::Blocks;
use dm_remap_logic::message::Message;
use dm_remap_logic::message::MessageError;
use dm_remap_logic::message::Scan;
use dm_remap_logic::message::Sectors;

use super::Verdict;
use crate::check;
use crate::words::is_digits;
use crate::words::split;
use crate::Input;

/// What users can send, and how many numbers belong to it.
const KNOWN: &[(&str, u8)] = &[
    ("remap", 1),
    ("remap", 2),
    ("remove_remap", 1),
    ("remove_remap", 2),
    ("zero", 1),
    ("zero", 2),
    ("avoid", 2),
    ("add_remap", 3),
    ("verify", 1),
    ("evacuate", 1),
    ("forget_spare", 1),
    ("retry", 1),
    ("retry", 2),
    ("list", 1),
    ("list lost", 1),
    ("LIST pending", 0),
    ("list", 0),
    ("scan status", 0),
    ("stats", 0),
    ("health", 0),
    ("why", 0),
    ("recheck", 0),
    ("Restore", 0),
    ("use_spare", 1),
    ("set read_retries", 1),
    ("set low_water", 1),
    ("set deadline_ms 500", 0),
    ("set autosave_seconds 0", 0),
    ("set_auto_remap 0", 0),
    ("set_auto_remap 1", 0),
    ("clear_all", 0),
    ("save", 0),
    ("sync", 0),
    ("ping", 0),
    ("status", 0),
    ("metadata_status", 0),
    ("clear_stats", 0),
    ("help", 0),
];

/// Sizes of the devices, and a text as a user may send it: as it stands, or one that is
/// known with numbers.
pub(super) fn run(input: &mut Input<'_>) -> Verdict {
    let kind = input.u8();
    let block_sectors = 1u32 << (kind & 3);
    let sectors = input.number();
    let words = match kind >> 2 & 1 {
        0 => split(input.rest()),
        _ => split(known(input).as_bytes()),
    };
    let Some(words) = words else {
        return Verdict::Refused;
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match parse(&words) {
        Ok(message) => {
            assert_eq!(parse_line(&print(&message)), Ok(message));
            let lower: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
            let plain = |word: &String| is_digits(word) || is_known(word);
            assert!(lower[1..].iter().all(plain), "{words:?}");
            ranges(&message, sectors, block_sectors);
            Verdict::Accepted
        }
        Err(error) => {
            check::says_something(&error);
            Verdict::Refused
        }
    }
}

/// Whether a word has a meaning behind the name of some message.
fn is_known(word: &str) -> bool {
    Limit::named(word).is_some()
        || Kind::ALL.iter().any(|kind| kind.name() == word)
        || Scan::ALL.iter().any(|scan| scan.name() == word)
}

fn known(input: &mut Input<'_>) -> String {
    let (name, numbers) = input.one_of(KNOWN);
    let mut text = name.to_string();
    for _ in 0..numbers {
        text += &format!(" {}", input.number());
    }
    text
}

fn parse_line(line: &str) -> Result<Message, MessageError<'_>> {
    parse(&line.split(' ').collect::<Vec<_>>())
}

/// The plainest words for a message.
fn print(message: &Message) -> String {
    let range = |sectors: &Sectors| match sectors.count {
        Some(count) => format!("{} {count}", sectors.first),
        None => format!("{}", sectors.first),
    };
    match message {
        Message::Remap(sectors) => format!("remap {}", range(sectors)),
        Message::RemoveRemap(sectors) => format!("remove_remap {}", range(sectors)),
        Message::Zero(sectors) => format!("zero {}", range(sectors)),
        Message::Avoid(sectors) => format!("avoid {}", range(sectors)),
        Message::AddRemap {
            main_sector,
            spare_sector,
            count,
        } => format!("add_remap {main_sector} {spare_sector} {count}"),
        Message::Verify { sector } => format!("verify {sector}"),
        Message::Evacuate { spare } => format!("evacuate {spare}"),
        Message::ForgetSpare { spare } => format!("forget_spare {spare}"),
        Message::UseSpare { spare } => format!("use_spare {spare}"),
        Message::SetAutoRemap(on) => format!("set_auto_remap {}", u8::from(*on)),
        Message::Set(limit, value) => format!("set {} {value}", limit.name()),
        Message::ClearAll => "clear_all".into(),
        Message::Save => "save".into(),
        Message::Sync => "sync".into(),
        Message::Ping => "ping".into(),
        Message::Status => "status".into(),
        Message::MetadataStatus => "metadata_status".into(),
        Message::ClearStats => "clear_stats".into(),
        Message::Help => "help".into(),
        Message::Stats => "stats".into(),
        Message::Health => "health".into(),
        Message::Why => "why".into(),
        Message::Recheck => "recheck".into(),
        Message::Retry(sectors) => format!("retry {}", range(sectors)),
        Message::Scan(scan) => format!("scan {}", scan.name()),
        Message::List { kind: None, from } => format!("list {from}"),
        Message::List {
            kind: Some(kind),
            from,
        } => format!("list {} {from}", kind.name()),
    }
}

/// The blocks of a range cover it, and no more than they must.
fn ranges(message: &Message, sectors: u64, block_sectors: u32) {
    let block = u128::from(block_sectors);
    match message {
        Message::Remap(range)
        | Message::RemoveRemap(range)
        | Message::Zero(range)
        | Message::Avoid(range)
        | Message::Retry(range) => {
            let first = u128::from(range.first);
            let count = u128::from(range.count.unwrap_or(1));
            match range.blocks(sectors, block_sectors) {
                Ok(blocks) => {
                    assert!(count > 0 && first + count <= u128::from(sectors));
                    let (start, end) = extent(&blocks, block);
                    assert!(start <= first && first < start + block);
                    assert!(end >= first + count && end - block < first + count);
                }
                Err(error) => {
                    check::says_something(&error);
                    assert!(count == 0 || first + count > u128::from(sectors));
                }
            }
        }
        Message::AddRemap {
            main_sector,
            spare_sector,
            count,
        } => {
            for first in [*main_sector, *spare_sector] {
                let end = u128::from(first) + u128::from(*count);
                let aligned = u128::from(first) % block == 0 && end % block == 0;
                match whole_blocks(first, *count, sectors, block_sectors) {
                    Ok(blocks) => {
                        assert!(aligned && end <= u128::from(sectors));
                        assert_eq!(extent(&blocks, block), (u128::from(first), end));
                    }
                    Err(error) => {
                        check::says_something(&error);
                        assert!(!aligned || *count == 0 || end > u128::from(sectors));
                    }
                }
            }
        }
        _ => (),
    }
}

fn extent(blocks: &Blocks, block: u128) -> (u128, u128) {
    let first = u128::from(blocks.first);
    assert_ne!(blocks.count, 0);
    (first * block, (first + u128::from(blocks.count)) * block)
}
