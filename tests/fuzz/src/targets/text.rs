// SPDX-License-Identifier: GPL-2.0

//! Words by themselves: UUIDs, names, limits.

use dm_remap_logic::limit::Limit;
use dm_remap_logic::text::MainId;
use dm_remap_logic::text::Uuid;

use super::Verdict;
use crate::Input;

/// A word, tried as everything that a word can be.
pub(super) fn run(input: &mut Input<'_>) -> Verdict {
    let bytes = input.rest();
    let mut padded = [0; MainId::MAX];
    let used = bytes.len().min(MainId::MAX);
    padded[..used].copy_from_slice(&bytes[..used]);
    let mut accepted = stored_main_id(padded);
    if let Ok(text) = std::str::from_utf8(bytes) {
        accepted |= uuid(text);
        accepted |= main_id(text);
        accepted |= limits(text);
    }
    Verdict::accepted(accepted)
}

fn uuid(text: &str) -> bool {
    let hyphens = [8, 13, 18, 23];
    let legal = text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| match b {
            b'-' => hyphens.contains(&at),
            _ => !hyphens.contains(&at) && b.is_ascii_hexdigit(),
        });
    let found = Uuid::parse(text);
    assert_eq!(found.is_some(), legal);
    let Some(uuid) = found else {
        return false;
    };
    assert_eq!(uuid.to_string(), text.to_ascii_lowercase());
    assert_eq!(Uuid::parse(&text.to_ascii_uppercase()), Some(uuid));
    let nil = text.bytes().all(|b| b == b'0' || b == b'-');
    assert_eq!(uuid.is_nil(), nil);
    true
}

fn main_id(text: &str) -> bool {
    let visible = text.chars().all(|c| ('!'..='~').contains(&c));
    let legal = visible && (1..=64).contains(&text.len());
    let found = MainId::new(text);
    assert_eq!(found.is_some(), legal);
    let Some(id) = found else {
        return false;
    };
    assert_eq!(id.as_str(), text);
    assert!(!id.is_none());
    assert_eq!(MainId::from_bytes(*id.as_bytes()), Some(id));
    true
}

fn stored_main_id(bytes: [u8; MainId::MAX]) -> bool {
    let Some(id) = MainId::from_bytes(bytes) else {
        return false;
    };
    assert_eq!(*id.as_bytes(), bytes);
    if id.is_none() {
        assert_eq!(id.as_str(), "");
        return false;
    }
    // Nothing else can be stored than can be given.
    assert_eq!(MainId::new(id.as_str()), Some(id));
    true
}

fn limits(text: &str) -> bool {
    assert_eq!(
        Limit::named(text).map(Limit::name),
        Limit::ALL.map(Limit::name).into_iter().find(|n| *n == text)
    );
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let mut accepted = Limit::named(text).is_some();
    for limit in Limit::ALL {
        match limit.parse(text) {
            Ok(value) => {
                assert!(digits && (limit.min()..=limit.max()).contains(&value));
                let zeroes = text.trim_start_matches('0');
                assert_eq!(
                    value.to_string(),
                    if zeroes.is_empty() { "0" } else { zeroes }
                );
                accepted = true;
            }
            Err(wrong) => assert!(!limit.complaint(wrong).is_empty()),
        }
    }
    accepted
}
