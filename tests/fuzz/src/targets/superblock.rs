// SPDX-License-Identifier: GPL-2.0

//! One copy of the superblock.

use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::format::SUPER_COPIES;

use super::Verdict;
use crate::check;
use crate::image;
use crate::Input;

/// Magic, checksum and version.
const HEAD_BYTES: usize = 16;

/// A block, made as raw bytes or of a superblock; and where to look.
pub(super) fn run(input: &mut Input<'_>) -> Verdict {
    let kind = input.u8();
    let probe = input.u64();
    let image = if kind & 1 == 0 {
        let model = image::copy(&image::plain(), 0);
        image::raw(&model, HEAD_BYTES, input)
    } else {
        let copy = (kind >> 1) % SUPER_COPIES;
        let superblock = image::superblock(input);
        let meant = image::copy(&superblock, copy);
        match image::as_read(meant, input) {
            Some(image) if image == meant => {
                // A legal one is accepted.
                if superblock == image::plain() {
                    assert_eq!(Superblock::decode(&image, copy), Ok(superblock));
                }
                image
            }
            Some(image) => image,
            None => return Verdict::Refused,
        }
    };

    let mut accepted = None;
    for copy in 0..SUPER_COPIES {
        match Superblock::decode(&image, copy) {
            Ok(found) => {
                assert!(accepted.is_none(), "a copy has two places");
                accepted = Some((copy, found));
            }
            Err(error) => check::says_something(&error),
        }
    }
    let Some((copy, found)) = accepted else {
        return Verdict::Refused;
    };
    check::superblock(&found, copy, probe);

    // What is written again means the same, in any copy that lives.
    let mut again = image::copy(&found, copy);
    assert!(image::keeps(&image, &again), "a field is ignored");
    for other in (0..SUPER_COPIES).filter(|other| found.super_lives(*other)) {
        let image = image::copy(&found, other);
        assert_eq!(Superblock::decode(&image, other).as_ref(), Ok(&found));
        assert_eq!(Superblock::content(&image), Superblock::content(&again));
    }
    // All of it is under the checksum.
    let bit = (probe >> 16) as usize % (8 * BLOCK_BYTES);
    again[bit / 8] ^= 1 << (bit % 8);
    assert!(Superblock::decode(&again, copy).is_err(), "bit {bit}");
    Verdict::Accepted
}
