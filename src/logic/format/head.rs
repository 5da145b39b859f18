// SPDX-License-Identifier: GPL-2.0

//! The first 16 bytes of every metadata block, which say what it is and whether it is whole.
//!
//! ```text
//!  offset  size
//!       0     8  magic, one for each kind of block
//!       8     4  crc32c of everything behind it
//!      12     4  format version
//! ```

use super::{
    super::crc32c::{
        crc32c,
        Checksum, //
    },
    bytes,
    is_zero,
    Block,
    FormatError,
    BLOCK_BYTES,
    FORMAT_VERSION, //
};

const AT_CRC: usize = 8;
/// Where the format version stands, and with it all that the checksum covers begins.
pub const AT_VERSION: usize = 12;

/// Checks that `image` is a whole block of the kind `magic`, of a version that this one reads.
pub fn check(image: &Block, magic: &[u8; 8]) -> Result<(), FormatError> {
    check_with(image, magic, crc32c)
}

/// The same, by a checksum of the caller's.
pub fn check_with(image: &Block, magic: &[u8; 8], crc32c: Checksum) -> Result<(), FormatError> {
    if bytes::get(image, 0) != *magic {
        return Err(if is_zero(image) {
            FormatError::Blank
        } else {
            FormatError::Foreign
        });
    }
    if bytes::get_u32(image, AT_CRC) != crc32c(covered(image)) {
        return Err(FormatError::Checksum);
    }
    match bytes::get_u32(image, AT_VERSION) {
        FORMAT_VERSION => Ok(()),
        0 => Err(FormatError::Field {
            name: "format version",
        }),
        found => Err(FormatError::Newer { found }),
    }
}

/// Makes `image` an empty block of the kind `magic`, without a checksum so far.
pub fn begin(image: &mut Block, magic: &[u8; 8]) {
    *image = [0; BLOCK_BYTES];
    bytes::put(image, 0, magic);
    bytes::put(image, AT_VERSION, &FORMAT_VERSION.to_le_bytes());
}

/// Puts the checksum of what is in `image` by now.
pub fn seal(image: &mut Block) {
    let crc = crc32c(covered(image));
    bytes::put(image, AT_CRC, &crc.to_le_bytes());
}

/// What the checksum is of.
fn covered(image: &Block) -> &[u8] {
    image.get(AT_VERSION..).unwrap_or(&[])
}
