// SPDX-License-Identifier: GPL-2.0

//! Names of things in the form that users write and read: UUIDs, the main device's identity, and names in a column.

use core::fmt;

/// A UUID. All zero means: none.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// No UUID.
    pub const NIL: Uuid = Uuid([0; 16]);

    /// Whether this is no UUID at all.
    pub fn is_nil(&self) -> bool {
        *self == Self::NIL
    }

    /// Makes a random (version 4) UUID of 16 random bytes.
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Uuid(bytes)
    }

    /// Reads the 36 characters of the usual form, either case.
    pub fn parse(text: &str) -> Option<Self> {
        let text: &[u8; 36] = text.as_bytes().try_into().ok()?;
        let mut bytes = [0u8; 16];
        let mut digits = text.iter().enumerate();
        for byte in &mut bytes {
            let mut value = 0u8;
            for _ in 0..2 {
                let (at, mut character) = digits.next()?;
                if matches!(at, 8 | 13 | 18 | 23) {
                    if *character != b'-' {
                        return None;
                    }
                    (_, character) = digits.next()?;
                }
                let digit = char::from(*character).to_digit(16)?;
                value = (value << 4) | u8::try_from(digit).ok()?;
            }
            *byte = value;
        }
        Some(Uuid(bytes))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the user calls the main device: up to 64 printable characters without blanks. Empty means
/// that nobody said.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MainId([u8; MainId::MAX]);

impl MainId {
    /// The longest text, in bytes.
    pub const MAX: usize = 64;

    /// Nobody said.
    pub const NONE: MainId = MainId([0; MainId::MAX]);

    /// Takes a text, unless it is empty, too long, or holds anything but visible ASCII.
    pub fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; Self::MAX];
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        bytes
            .get_mut(..text.len())?
            .copy_from_slice(text.as_bytes());
        Some(MainId(bytes))
    }

    /// Takes the bytes of the superblock: a text as above or none, and zeroes up to the end.
    pub fn from_bytes(bytes: [u8; Self::MAX]) -> Option<Self> {
        let mut parts = bytes.splitn(2, |b| *b == 0);
        let text = parts.next()?;
        let rest = parts.next().unwrap_or(&[]);
        let legal = text.iter().all(u8::is_ascii_graphic) && rest.iter().all(|b| *b == 0);
        legal.then_some(MainId(bytes))
    }

    /// The bytes for the superblock.
    pub fn as_bytes(&self) -> &[u8; Self::MAX] {
        &self.0
    }

    /// The text; empty if nobody said.
    pub fn as_str(&self) -> &str {
        let text = self.0.split(|b| *b == 0).next().unwrap_or(&[]);
        core::str::from_utf8(text).unwrap_or("")
    }

    /// Whether nobody said.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

impl Default for MainId {
    fn default() -> Self {
        Self::NONE
    }
}

impl fmt::Debug for MainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name as one word of a line, as in `/proc/mounts`: what is no visible ASCII, and the backslash, is written as a
/// backslash and three octal digits. An empty one is a minus sign.
pub struct Column<'a>(pub &'a [u8]);

impl fmt::Display for Column<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str("-")?;
        }
        for byte in self.0 {
            match byte {
                b'\\' => f.write_str("\\134")?,
                byte if byte.is_ascii_graphic() => write!(f, "{}", char::from(*byte))?,
                byte => write!(f, "\\{byte:03o}")?,
            }
        }
        Ok(())
    }
}

/// A word that a user gave, in quotes, as an error tells it: with escapes for what is not printed, and not without
/// end, so that what is allowed still stands behind it.
pub struct Quoted<'a>(pub &'a str);

impl Quoted<'_> {
    /// How many characters are told.
    const MAX: usize = 40;
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(Self::MAX) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?}...", self.0.get(..end).unwrap_or("")),
        }
    }
}

/// A text of at most `N` bytes in a place of its own: what does not fit is cut off.
pub struct Bounded<const N: usize> {
    bytes: [u8; N],
    len: usize,
    /// Something did not fit, and nothing is to stand behind the gap.
    full: bool,
}

impl<const N: usize> Bounded<N> {
    /// No text.
    pub const EMPTY: Self = Self {
        bytes: [0; N],
        len: 0,
        full: false,
    };

    /// Forgets the text.
    pub fn clear(&mut self) {
        (self.len, self.full) = (0, false);
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        let text = self.bytes.get(..self.len).unwrap_or(&[]);
        core::str::from_utf8(text).unwrap_or("")
    }
}

impl<const N: usize> fmt::Write for Bounded<N> {
    /// Never fails.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.full {
            return Ok(());
        }
        let mut fits = text.len().min(N.saturating_sub(self.len));
        while !text.is_char_boundary(fits) {
            fits = fits.saturating_sub(1);
        }
        let places = self.bytes.iter_mut().skip(self.len);
        for (place, byte) in places.zip(text.bytes().take(fits)) {
            *place = byte;
        }
        self.len = self.len.saturating_add(fits);
        self.full = fits < text.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use core::fmt::Write;

    use super::{
        Bounded,
        Column,
        MainId,
        Quoted,
        Uuid, //
    };

    #[test]
    fn a_column_is_one_word() {
        for (name, column) in [
            (&b"data"[..], "data"),
            (b"", "-"),
            (b"a b\n\\", "a\\040b\\012\\134"),
            (b"\xc3\xa4", "\\303\\244"),
        ] {
            assert_eq!(Column(name).to_string(), column);
        }
    }

    #[test]
    fn words_are_quoted_and_shortened() {
        assert_eq!(Quoted("a b\n").to_string(), "\"a b\\n\"");
        let longest = "\u{e4}".repeat(40);
        assert_eq!(Quoted(&longest).to_string(), std::format!("{longest:?}"));
        let longer = longest.clone() + "x";
        assert_eq!(Quoted(&longer).to_string(), std::format!("{longest:?}..."));
    }

    /// A text is cut between two characters, and nothing follows where something is missing.
    #[test]
    fn bounded_text_is_cut_off() {
        let mut text = Bounded::<5>::EMPTY;
        write!(text, "abcd").unwrap();
        assert_eq!(text.as_str(), "abcd");
        write!(text, "\u{e4}").unwrap();
        write!(text, "f").unwrap();
        assert_eq!(text.as_str(), "abcd");
        text.clear();
        write!(text, "abc\u{e4}").unwrap();
        assert_eq!(text.as_str(), "abc\u{e4}");
        write!(text, "f").unwrap();
        assert_eq!(text.as_str(), "abc\u{e4}");
    }

    #[test]
    fn uuid_there_and_back() {
        let text = "01234567-89ab-4def-8edc-ba9876543210";
        let uuid = Uuid::parse(text).unwrap();
        assert_eq!(uuid.to_string(), text);
        assert_eq!(Uuid::parse(&text.to_uppercase()), Some(uuid));
        for bad in [
            "",
            "01234567-89ab-4def-8edc-ba987654321",
            "01234567-89ab-4def-8edc-ba98765432100",
            "0123456789ab-4def-8edc-ba98765432100",
            "01234567-89ab-4def-8edc-ba987654321g",
            "012345678-9ab-4def-8edc-ba9876543210",
        ] {
            assert_eq!(Uuid::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn random_uuid_is_version_4() {
        assert_eq!(
            Uuid::from_random([0xff; 16]).to_string(),
            "ffffffff-ffff-4fff-bfff-ffffffffffff"
        );
    }

    #[test]
    fn main_id_limits() {
        assert_eq!(MainId::new("ata-WDC_1").unwrap().as_str(), "ata-WDC_1");
        let longest = "x".repeat(64);
        assert_eq!(MainId::new(&longest).unwrap().as_str(), longest);
        for bad in ["", "a b", "\u{e4}", &"x".repeat(65)] {
            assert_eq!(MainId::new(bad), None);
        }
        let mut bytes = [0; 64];
        assert_eq!(MainId::from_bytes(bytes), Some(MainId::NONE));
        bytes[1] = b'x';
        assert_eq!(MainId::from_bytes(bytes), None);
    }
}
