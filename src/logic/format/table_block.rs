// SPDX-License-Identifier: GPL-2.0

//! One block of the slot table: the entries of 252 slots.
//!
//! ```text
//!  offset  size
//!       0     8  magic "DMRMPTBL"
//!       8     4  crc32c of everything behind it
//!      12     4  format version
//!      16    16  UUID of the spare
//!      32     4  the block's own number
//!      36     4  zero
//!      40     8  sequence: the commit that wrote it
//!      48    16  zero
//!      64  4032  252 entries:
//!                  0  8  what the slot is used for (see `slot`)
//!                  8  8  generation: the commit that made it so
//! ```
//!
//! The same bytes stand in every replica.

use super::{
    super::{
        crc32c::{
            crc32c,
            Checksum, //
        },
        slot::{
            Entry,
            SlotWord, //
        },
        text::Uuid, //
    },
    bytes,
    head,
    Block,
    FormatError, //
};

/// How many entries a block has.
pub const ENTRIES: u32 = 252;

const MAGIC: [u8; 8] = *b"DMRMPTBL";
const AT_UUID: usize = 16;
const AT_NUMBER: usize = 32;
const AT_SEQUENCE: usize = 40;
const AT_ENTRIES: usize = 64;
const ENTRY_BYTES: usize = 16;

/// A block of the slot table that was read and checked. The entries are decoded when asked for.
#[derive(Clone, Copy, Debug)]
pub struct TableBlock<'a> {
    image: &'a Block,
    sequence: u64,
}

impl<'a> TableBlock<'a> {
    /// Checks all of `image`, read where block `number` of the spare `member` belongs.
    pub fn decode(image: &'a Block, member: &Uuid, number: u32) -> Result<Self, FormatError> {
        Self::decode_with(image, member, number, crc32c)
    }

    /// The same, by a checksum of the caller's.
    pub fn decode_with(
        image: &'a Block,
        member: &Uuid,
        number: u32,
        crc32c: Checksum,
    ) -> Result<Self, FormatError> {
        head::check_with(image, &MAGIC, crc32c)?;
        let found = Uuid(bytes::get(image, AT_UUID));
        if found != *member {
            return Err(FormatError::OtherSpare { found });
        }
        let found = bytes::get_u32(image, AT_NUMBER);
        if found != number {
            return Err(FormatError::Misplaced {
                found,
                expected: number,
            });
        }
        let block = TableBlock {
            image,
            sequence: bytes::get_u64(image, AT_SEQUENCE),
        };
        // A word is legal if certain bits are not in it: they are not in any if not in all together.
        let all = block.raw_entries().fold(0, |all, entry| all | word(entry));
        if SlotWord::from_disk(all).is_some() {
            return Ok(block);
        }
        let mut entries = block.raw_entries();
        let index = entries.position(|entry| decode_entry(entry).is_none());
        // There are 252.
        Err(FormatError::Entry {
            index: index.unwrap_or(0) as u32,
        })
    }

    fn raw_entries(&self) -> impl Iterator<Item = &'a [u8]> {
        let entries = self.image.get(AT_ENTRIES..).unwrap_or(&[]);
        entries.chunks_exact(ENTRY_BYTES)
    }

    /// The commit that wrote the block.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The bytes.
    pub fn image(&self) -> &'a Block {
        self.image
    }

    /// All 252 entries.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + 'a {
        self.raw_entries()
            .map(|entry| decode_entry(entry).unwrap_or(Entry::UNUSED))
    }
}

/// Makes block `number` of the spare `member`. Entries that are not given are unused.
pub fn encode(
    image: &mut Block,
    member: &Uuid,
    number: u32,
    sequence: u64,
    entries: impl Iterator<Item = Entry>,
) {
    head::begin(image, &MAGIC);
    bytes::put(image, AT_UUID, &member.0);
    bytes::put(image, AT_NUMBER, &number.to_le_bytes());
    bytes::put(image, AT_SEQUENCE, &sequence.to_le_bytes());
    let places = image.get_mut(AT_ENTRIES..).unwrap_or(&mut []);
    for (place, entry) in places.chunks_exact_mut(ENTRY_BYTES).zip(entries) {
        let (word, generation) = place.split_at_mut(ENTRY_BYTES / 2);
        word.copy_from_slice(&entry.word.to_disk().to_le_bytes());
        generation.copy_from_slice(&entry.generation.to_le_bytes());
    }
    head::seal(image);
}

fn word(entry: &[u8]) -> u64 {
    let word = entry.first_chunk::<8>();
    word.map_or(0, |word| u64::from_le_bytes(*word))
}

fn decode_entry(entry: &[u8]) -> Option<Entry> {
    let generation = entry.get(ENTRY_BYTES / 2..)?;
    Some(Entry {
        word: SlotWord::from_disk(word(entry))?,
        generation: u64::from_le_bytes(*generation.first_chunk::<8>()?),
    })
}
