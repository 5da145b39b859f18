// SPDX-License-Identifier: GPL-2.0

//! How device mapper takes a table line or a message apart, before the target sees it.

use super::Input;

/// A text of words out of `known`, numbers, and what else the input holds.
pub fn text(input: &mut Input<'_>, known: &[&str]) -> String {
    let mut words = Vec::new();
    while !input.is_empty() && words.len() < 32 {
        let kind = usize::from(input.u8());
        words.push(match known.get(kind % (known.len() + 4)) {
            Some(word) => word.to_string(),
            None if kind & 0x80 == 0 => input.number().to_string(),
            None => {
                let length = 1 + input.below(8) as usize;
                String::from_utf8_lossy(input.bytes(length)).into_owned()
            }
        });
    }
    words.join(" ")
}

/// Splits as `dm_split_args` of the kernel does: at blanks, where a backslash takes the meaning
/// from the character behind it and goes away. None where the kernel hands nothing to the decoder:
/// a text ends at its first zero byte, and the target refuses what is not UTF-8.
pub fn split(text: &[u8]) -> Option<Vec<String>> {
    let text = text.split(|b| *b == 0).next()?;
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        if is_blank(byte) {
            words.extend(word.take());
            continue;
        }
        let byte = match byte {
            // The last character stands for itself.
            b'\\' => bytes.next().unwrap_or(byte),
            _ => byte,
        };
        word.get_or_insert_default().push(byte);
    }
    words.extend(word);
    let words = words.into_iter().map(|word| String::from_utf8(word).ok());
    words.collect()
}

/// The kernel's `isspace`, which knows Latin-1.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r' | 0xa0)
}

/// Whether a word is a number in the only form that is taken: no sign, no blank, no other base.
pub fn is_digits(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit())
}
