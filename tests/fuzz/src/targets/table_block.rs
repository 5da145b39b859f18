// SPDX-License-Identifier: GPL-2.0

//! One block of the slot table.

use dm_remap_logic::format::table_block::TableBlock;
use dm_remap_logic::format::table_block::ENTRIES;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::slot::Entry;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::slot::SlotWord;
use dm_remap_logic::text::Uuid;

use super::Verdict;
use crate::check;
use crate::image;
use crate::image::MEMBER;
use crate::Input;

/// Magic, checksum, version, UUID and number.
const HEAD_BYTES: usize = 36;
const ENTRIES_AT: usize = 64;

/// A block, made as raw bytes or of entries; and where to look.
pub(super) fn run(input: &mut Input<'_>) -> Verdict {
    let kind = input.u8();
    let probe = input.u64();
    let number = input.number() as u32;
    let image = if kind & 1 == 0 {
        let model = image::table(&MEMBER, number, 1, &[]);
        image::raw(&model, HEAD_BYTES, input)
    } else {
        let sequence = input.number();
        let entries = image::entries(input);
        let meant = image::table(&MEMBER, number, sequence, &entries);
        let found = TableBlock::decode(&meant, &MEMBER, number).expect("what was written");
        assert_eq!(found.sequence(), sequence);
        let expected = entries.iter().map(as_on_the_spare);
        assert!(found.entries().take(entries.len()).eq(expected));
        match image::as_read(meant, input) {
            Some(image) => image,
            None => return Verdict::Refused,
        }
    };

    let found = match TableBlock::decode(&image, &MEMBER, number) {
        Ok(found) => found,
        Err(error) => {
            check::says_something(&error);
            return Verdict::Refused;
        }
    };
    let entries: Vec<Entry> = found.entries().collect();
    assert_eq!(entries.len(), ENTRIES as usize);
    for (entry, bytes) in entries.iter().zip(image[ENTRIES_AT..].chunks_exact(16)) {
        holds(entry, bytes);
    }
    let mut again = image::table(&MEMBER, number, found.sequence(), &entries);
    {
        let again = TableBlock::decode(&again, &MEMBER, number).expect("what was accepted");
        assert_eq!(again.sequence(), found.sequence());
        assert!(again.entries().eq(entries));
        assert_eq!(again.image()[ENTRIES_AT..], image[ENTRIES_AT..]);
    }

    // It belongs here and nowhere else, and all of it is under the checksum.
    let elsewhere = number ^ (1 << (probe % 32));
    assert!(TableBlock::decode(&image, &MEMBER, elsewhere).is_err());
    let mut other = MEMBER;
    other.0[(probe >> 8) as usize % 16] ^= 1 << (probe >> 12 & 7);
    assert!(TableBlock::decode(&image, &other, number).is_err());
    assert!(TableBlock::decode(&image, &Uuid::NIL, number).is_err());
    let bit = (probe >> 16) as usize % (8 * BLOCK_BYTES);
    again[bit / 8] ^= 1 << (bit % 8);
    let flipped = TableBlock::decode(&again, &MEMBER, number);
    assert!(flipped.is_err(), "bit {bit}");
    Verdict::Accepted
}

fn as_on_the_spare(entry: &Entry) -> Entry {
    Entry {
        word: entry.word.with_held(false).with_doubt(false),
        generation: entry.generation,
    }
}

/// Holds an entry against the documentation of its bytes.
fn holds(entry: &Entry, bytes: &[u8]) {
    let number = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("8 bytes"));
    let (word, generation) = (number(&bytes[..8]), number(&bytes[8..]));
    assert_eq!(entry.generation, generation);
    assert_eq!(word >> 56, 0, "unknown bits were accepted");
    let state = match word >> 48 & 15 {
        0 => SlotState::Free,
        1 if word >> 54 & 1 != 0 => SlotState::Lost,
        1 => SlotState::Valid,
        2 => SlotState::Pending,
        3 => SlotState::Bad,
        other => panic!("state {other} was accepted"),
    };
    assert_eq!(entry.word.state(), state);
    assert_eq!(entry.word.is_raw(), word >> 53 & 1 != 0);
    let given_up = state == SlotState::Valid && word >> 55 & 1 != 0;
    assert_eq!(entry.word.is_given_up(), given_up);
    assert_eq!(
        entry.word.main_block(),
        word & (SlotWord::MAIN_BLOCKS_MAX - 1)
    );
    assert!(!entry.word.is_held() && !entry.word.is_doubt());
    let claims = matches!(
        state,
        SlotState::Valid | SlotState::Pending | SlotState::Lost
    );
    assert_eq!(entry.word.is_claim(), claims);
    assert_eq!(entry.word.claims(entry.word.main_block()), claims);
    assert_eq!(entry.word.is_available(), state == SlotState::Free);
    assert_eq!(entry.word.to_disk(), word);
}
