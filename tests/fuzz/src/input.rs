// SPDX-License-Identifier: GPL-2.0

//! Reading numbers and choices from bytes that a fuzzer thought up.

/// Bytes that are read from the front. At their end there are zeroes.
#[derive(Clone, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Begins to read.
    pub fn new(bytes: &'a [u8]) -> Self {
        Input(bytes)
    }

    /// Whether there is nothing left but zeroes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `count` bytes, or as many as there are.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.bytes(usize::MAX)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let bytes = self.bytes(N);
        array[..bytes.len()].copy_from_slice(bytes);
        array
    }

    /// A number of 8 bits.
    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    /// A number of 16 bits.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// A number of 32 bits.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// A number of 64 bits.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        match bound {
            0..=0x100 => u64::from(self.u8()) % bound,
            0x101..=0x1_0000 => u64::from(self.u16()) % bound,
            _ => self.u64() % bound,
        }
    }

    /// A number of any size, small ones and those at the edges of powers of two more often: one byte
    /// tells the size, and up to eight follow.
    pub fn number(&mut self) -> u64 {
        let kind = self.u8();
        match kind >> 6 {
            0 => u64::from(kind & 0x3f),
            1 => (1u64 << (kind & 0x3f)).wrapping_sub(1),
            2 => 1u64 << (kind & 0x3f),
            _ => self.u64() >> (kind & 0x3f),
        }
    }

    /// One of a few.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}
