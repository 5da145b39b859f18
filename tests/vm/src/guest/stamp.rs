// SPDX-License-Identifier: GPL-2.0
//! Content that tells where and when it was written: each sector carries its own number and a
//! generation, and the rest of it follows from those two. So content that is stale, a
//! neighbour's, torn or foreign shows.

const SECTOR: usize = 512;
const MAGIC: &[u8; 8] = b"dmrstamp";

/// What a sector holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Zeroes.
    Blank,
    /// A stamp.
    Stamp {
        /// The sector that it was written to.
        sector: u64,
        /// The generation.
        generation: u64,
    },
    /// Parts of stamps.
    Torn,
    /// Something else.
    Foreign,
}

/// Stamps for a run of sectors.
pub fn stamps(sector: u64, sectors: u64, generation: u64) -> Vec<u8> {
    (sector..sector + sectors)
        .flat_map(|sector| stamp(sector, generation))
        .collect()
}

/// Tells what each sector of `data` holds.
pub fn identify(data: &[u8]) -> Vec<Content> {
    data.chunks(SECTOR).map(identify_one).collect()
}

fn identify_one(data: &[u8]) -> Content {
    if data.get(..8) != Some(MAGIC.as_slice()) {
        // By words, which under emulation takes an eighth of the time.
        return match data.chunks(8).all(|word| word == [0; 8]) {
            true => Content::Blank,
            false => Content::Foreign,
        };
    }
    let (sector, generation) = (number(data, 8), number(data, 16));
    if data == stamp(sector, generation) {
        Content::Stamp { sector, generation }
    } else {
        Content::Torn
    }
}

fn number(data: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&data[at..at + 8]);
    u64::from_le_bytes(bytes)
}

fn stamp(sector: u64, generation: u64) -> [u8; SECTOR] {
    let mut data = [0; SECTOR];
    data[..8].copy_from_slice(MAGIC);
    data[8..16].copy_from_slice(&sector.to_le_bytes());
    data[16..24].copy_from_slice(&generation.to_le_bytes());
    let mut state = (sector ^ generation.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for word in data[24..].chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_tells_where_and_when() {
        let data = stamps(7, 2, 3);
        assert_eq!(
            identify(&data),
            [7, 8].map(|sector| Content::Stamp {
                sector,
                generation: 3
            })
        );
    }

    #[test]
    fn a_torn_sector_shows() {
        let mut data = stamps(7, 1, 3);
        data[256..].copy_from_slice(&stamps(7, 1, 4)[256..]);
        assert_eq!(identify(&data), [Content::Torn]);
        assert_eq!(identify(&[0; 512]), [Content::Blank]);
        assert_eq!(identify(&[1; 512]), [Content::Foreign]);
    }
}
