// SPDX-License-Identifier: GPL-2.0

//! What a bio asks for: operation and flags.
//!
//! C header: [`include/linux/blk_types.h`](srctree/include/linux/blk_types.h)

use crate::abstractions::bindings;

/// What a bio asks for: `enum req_op`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Read.
    Read,
    /// Write; without data this is a flush.
    Write,
    /// Discard: the data is not needed any more.
    Discard,
    /// Secure erase.
    SecureErase,
    /// Write zeroes.
    WriteZeroes,
    /// Anything else, which a target that does not ask for it does not get.
    Other,
}

/// Operation and flags of a bio: `blk_opf_t`.
///
/// # Examples
///
/// ```
/// # use kernel::block::Op;
/// # use kernel::block::Opf;
/// const COMMIT: Opf = Opf::WRITE.preflush().fua().meta();
///
/// assert_eq!(COMMIT.op(), Op::Write);
/// assert!(COMMIT.is_fua() && COMMIT.is_preflush());
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Opf(bindings::blk_opf_t);

const fn flag(bit: bindings::req_flag_bits) -> bindings::blk_opf_t {
    1 << bit
}

const READ: bindings::blk_opf_t = bindings::req_op_REQ_OP_READ;
const WRITE: bindings::blk_opf_t = bindings::req_op_REQ_OP_WRITE;
const DISCARD: bindings::blk_opf_t = bindings::req_op_REQ_OP_DISCARD;
const SECURE_ERASE: bindings::blk_opf_t = bindings::req_op_REQ_OP_SECURE_ERASE;
const WRITE_ZEROES: bindings::blk_opf_t = bindings::req_op_REQ_OP_WRITE_ZEROES;

const OP_MASK: bindings::blk_opf_t = bindings::DM_OP_MASK;

const FUA: bindings::blk_opf_t = flag(bindings::req_flag_bits___REQ_FUA);
const PREFLUSH: bindings::blk_opf_t = flag(bindings::req_flag_bits___REQ_PREFLUSH);
const SYNC: bindings::blk_opf_t = flag(bindings::req_flag_bits___REQ_SYNC);
const META: bindings::blk_opf_t = flag(bindings::req_flag_bits___REQ_META);
const NOUNMAP: bindings::blk_opf_t = flag(bindings::req_flag_bits___REQ_NOUNMAP);
const RAHEAD: bindings::blk_opf_t = flag(bindings::req_flag_bits___REQ_RAHEAD);
const NOWAIT: bindings::blk_opf_t = flag(bindings::req_flag_bits___REQ_NOWAIT);
const ATOMIC: bindings::blk_opf_t = flag(bindings::req_flag_bits___REQ_ATOMIC);
const POLLED: bindings::blk_opf_t = flag(bindings::req_flag_bits___REQ_POLLED);
const FAILFAST: bindings::blk_opf_t = flag(bindings::req_flag_bits___REQ_FAILFAST_DEV)
    | flag(bindings::req_flag_bits___REQ_FAILFAST_TRANSPORT)
    | flag(bindings::req_flag_bits___REQ_FAILFAST_DRIVER);

/// What makes sense on a bio of one's own. Other flags of a user's bio may stand for things that it
/// has and a new bio does not: someone who polls, an integrity payload, a cache to be freed to.
const OWN: bindings::blk_opf_t = OP_MASK | FUA | PREFLUSH | SYNC | META | NOUNMAP;

impl Opf {
    /// A read: `REQ_OP_READ`.
    pub const READ: Self = Self(READ);
    /// A write: `REQ_OP_WRITE`.
    pub const WRITE: Self = Self(WRITE);
    /// Zeroes, without giving back the space that they are on: `REQ_OP_WRITE_ZEROES` with `REQ_NOUNMAP`.
    pub const WRITE_ZEROES: Self = Self(WRITE_ZEROES | NOUNMAP);

    pub(crate) const fn from_raw(raw: bindings::blk_opf_t) -> Self {
        Self(raw)
    }

    pub(crate) const fn as_raw(self) -> bindings::blk_opf_t {
        self.0
    }

    /// Returns what of this goes on a new bio.
    pub(super) const fn as_own(self) -> bindings::blk_opf_t {
        self.0 & OWN
    }

    /// Adds `FUA`: the write is on stable storage when it completes.
    pub const fn fua(self) -> Self {
        Self(self.0 | FUA)
    }

    /// Adds `PREFLUSH`: what completed before is on stable storage before the write starts.
    pub const fn preflush(self) -> Self {
        Self(self.0 | PREFLUSH)
    }

    /// Adds `SYNC`: someone waits for this.
    pub const fn sync(self) -> Self {
        Self(self.0 | SYNC)
    }

    /// Adds `META`: this is metadata.
    pub const fn meta(self) -> Self {
        Self(self.0 | META)
    }

    /// Returns the operation.
    #[inline]
    pub const fn op(self) -> Op {
        match self.0 & OP_MASK {
            READ => Op::Read,
            WRITE => Op::Write,
            DISCARD => Op::Discard,
            SECURE_ERASE => Op::SecureErase,
            WRITE_ZEROES => Op::WriteZeroes,
            _ => Op::Other,
        }
    }

    /// Whether data goes to the device, or is changed on it, `op_is_write()`: all operations with odd numbers.
    #[inline(always)]
    pub const fn is_write(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether `FUA` is set.
    #[inline(always)]
    pub const fn is_fua(self) -> bool {
        self.0 & FUA != 0
    }

    /// Whether `PREFLUSH` is set. Device mapper splits such bios, so that a target sees it on bios
    /// without data only.
    #[inline(always)]
    pub const fn is_preflush(self) -> bool {
        self.0 & PREFLUSH != 0
    }

    /// Whether the bio must fail with [`AGAIN`](super::BlkStatus::AGAIN) rather than wait.
    #[inline(always)]
    pub const fn is_nowait(self) -> bool {
        self.0 & NOWAIT != 0
    }

    /// Whether this is a read-ahead, which may fail at any time without harm.
    #[inline(always)]
    pub const fn is_readahead(self) -> bool {
        self.0 & RAHEAD != 0
    }

    /// Whether the write must be done as a whole or not at all.
    #[inline(always)]
    pub const fn is_atomic(self) -> bool {
        self.0 & ATOMIC != 0
    }

    /// Removes what only concerned the first attempt of the first submitter: read-ahead and fail-fast
    /// (whoever tries again means it), `NOWAIT` (a worker may wait), polling (nobody polls any more)
    /// and atomicity.
    pub const fn for_retry(self) -> Self {
        Self(self.0 & !(RAHEAD | FAILFAST | NOWAIT | POLLED | ATOMIC))
    }
}
