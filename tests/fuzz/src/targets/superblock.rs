// SPDX-License-Identifier: GPL-2.0

//! One copy of the superblock.

use dm_remap_logic::format::CopyId;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::format::MEMBERS_MAX;
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
        let model = image::copy(&image::plain(), image::FIRST);
        image::raw(&model, HEAD_BYTES, input)
    } else {
        let id = CopyId {
            member: (kind >> 3) % MEMBERS_MAX,
            copy: (kind >> 1) % SUPER_COPIES,
        };
        let superblock = image::set(input);
        let mut edited = superblock.clone();
        image::edit(&mut edited, input);
        let meant = image::copy(&edited, id);
        match image::as_read(meant, input) {
            Some(image) if image == meant => {
                // A legal one is accepted.
                if edited == superblock && edited.member(id.member).is_some() {
                    assert_eq!(Superblock::decode(&image, id.copy), Ok(superblock));
                }
                image
            }
            Some(image) => image,
            None => return Verdict::Refused,
        }
    };

    let mut accepted = None;
    let mut found = Superblock::EMPTY;
    for copy in 0..SUPER_COPIES {
        // What an earlier refusal left in there does not matter.
        match found.decode_into(&image, copy) {
            Ok(member) => {
                assert!(accepted.is_none(), "a copy has two places");
                assert_eq!(Superblock::decode(&image, copy).as_ref(), Ok(&found));
                accepted = Some((CopyId { member, copy }, found.clone()));
            }
            Err(error) => check::says_something(&error),
        }
    }
    let Some((id, found)) = accepted else {
        return Verdict::Refused;
    };
    check::superblock(&found, id, probe);

    // What is written again means the same, in any copy that lives.
    let mut again = image::copy(&found, id);
    assert!(image::keeps(&image, &again), "a field is ignored");
    let mut live = found.live_supers();
    assert_eq!(live & !found.all_supers(), 0);
    while let Some(other) = CopyId::lowest(live) {
        live &= !other.bit();
        let image = image::copy(&found, other);
        let mut read = Superblock::EMPTY;
        assert_eq!(read.decode_into(&image, other.copy), Ok(other.member));
        assert_eq!(read, found);
        assert_eq!(Superblock::content(&image), Superblock::content(&again));
    }
    // All of it is under the checksum.
    let bit = (probe >> 16) as usize % (8 * BLOCK_BYTES);
    again[bit / 8] ^= 1 << (bit % 8);
    assert!(Superblock::decode(&again, id.copy).is_err(), "bit {bit}");
    Verdict::Accepted
}
