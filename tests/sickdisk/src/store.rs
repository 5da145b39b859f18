// SPDX-License-Identifier: GPL-2.0
//! Where the bytes are kept.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Memory is taken in pieces of this many bytes, when they are first written.
const PIECE: usize = 64 << 10;

/// The medium.
#[derive(Debug)]
pub(crate) enum Store {
    /// Memory; what was never written reads as zeroes.
    Memory(Vec<Option<Box<[u8]>>>),
    /// A file or a block device.
    File(File),
}

impl Store {
    /// Memory for `size` bytes.
    pub(crate) fn memory(size: u64) -> Self {
        let pieces = size.div_ceil(PIECE as u64);
        Self::Memory((0..pieces).map(|_| None).collect())
    }

    /// Reads from `offset`; the caller stays inside the size.
    pub(crate) fn read(&self, mut offset: u64, data: &mut [u8]) -> io::Result<()> {
        let pieces = match self {
            Self::File(file) => return file.read_exact_at(data, offset),
            Self::Memory(pieces) => pieces,
        };
        let mut rest = data;
        while !rest.is_empty() {
            let (piece, within, length) = place(offset, rest.len());
            let (now, later) = rest.split_at_mut(length);
            match &pieces[piece] {
                Some(bytes) => now.copy_from_slice(&bytes[within..within + length]),
                None => now.fill(0),
            }
            rest = later;
            offset += length as u64;
        }
        Ok(())
    }

    /// Writes at `offset`; the caller stays inside the size.
    pub(crate) fn write(&mut self, mut offset: u64, data: &[u8]) -> io::Result<()> {
        let pieces = match self {
            Self::File(file) => return file.write_all_at(data, offset),
            Self::Memory(pieces) => pieces,
        };
        let mut rest = data;
        while !rest.is_empty() {
            let (piece, within, length) = place(offset, rest.len());
            let (now, later) = rest.split_at(length);
            pieces[piece].get_or_insert_with(|| vec![0; PIECE].into_boxed_slice())
                [within..within + length]
                .copy_from_slice(now);
            rest = later;
            offset += length as u64;
        }
        Ok(())
    }

    /// Makes sure that what was written survives the process and the machine.
    pub(crate) fn flush(&self) -> io::Result<()> {
        match self {
            Self::File(file) => file.sync_data(),
            Self::Memory(_) => Ok(()),
        }
    }
}

/// Which piece `offset` is in, where in it, and how many of `length` bytes it holds from there.
fn place(offset: u64, length: usize) -> (usize, usize, usize) {
    let piece = (offset / PIECE as u64) as usize;
    let within = (offset % PIECE as u64) as usize;
    (piece, within, length.min(PIECE - within))
}
