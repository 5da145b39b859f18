// SPDX-License-Identifier: GPL-2.0

//! The commit protocol: what is written to the spare's metadata next, and what if that fails.
//!
//! Each spare of a set has a slot table in two replicas and four copies of the set's superblock. A
//! commit rewrites, in place, the few table blocks whose entries changed. Both replicas are there for two
//! reasons: a sector that goes bad must not take remaps with it, and a write that a crash tears
//! must not, either. So a block is never written in both replicas at once, and the rules are:
//!
//! M1  *One replica after the other, each write FUA.* When the first is written, the second still
//!     holds the last state, whole; when the second is written, the first holds the new one. Never
//!     is the only good copy rewritten: before the first write the other replica's block is read,
//!     for it may have gone bad since, and if it has, it is the one that is written first. If a
//!     write fails in between, that replica's block is suspect: until further notice
//!     (`unsettled`), the next commit of any block begins with it. A crash between the two leaves
//!     a newer and an older block, and loading takes the newer.
//!
//! M2  *A place that stopped taking writes is written off before anyone is told.* A replica's block
//!     that can't be written where it is goes to a reserve block of that replica; the superblock
//!     tells which, in every live copy, before the commit goes on. When no reserve block is left,
//!     the whole replica is recorded as void. Otherwise the old content, readable again after a
//!     crash, could pass for the truth when the other replica's block is lost. In the same way a
//!     superblock copy that can't be written is recorded as void in the others.
//!
//! M4  *Sequence numbers begin with the activation epoch,* which is durable in every live
//!     superblock before the first commit that uses it. It is raised when it is first needed, so
//!     that an activation that changes nothing writes nothing. It is also raised whenever
//!     something is written off: a superblock copy that missed this knows of no such epoch, and
//!     table blocks from it show that the copy is not the truth.
//!
//! M6  *A commit that failed after its first write was issued is in doubt*: that write may be on
//!     the medium or not. The caller must not serve what it changed, and must not undo it, until a
//!     later commit of the same blocks succeeds ([`Outcome::Failed`], `issued`).
//!
//! M8  *Blocks are initialised in all replicas, then flushed, then the high-water mark is raised in
//!     all superblock copies, then they are used.* A block behind the mark therefore always has a
//!     checksum, and a block before it that has none was damaged.
//!
//! M9  *A spare that fails as a whole is recorded as missing* in all superblock copies on the others,
//!     before anything else is written: all copies that lie on it are void then, and stay so when it
//!     comes back. Its slots are not used. That is not possible if it has the only replica of a slot
//!     table, or the only good copy of a block: then nothing is written until it works again.
//!     That raises the set epoch, and so does whatever is written first in an activation without a
//!     member that was missing before: it may have superblock copies from a pass that no other
//!     member saw the end of. A spare that joins is known to all members before it gets a superblock
//!     copy, for the same reason.
//!
//! P13 *Blocks that follow each other, in the table and where they lie, are one write*, of up to [`RUN_BLOCKS_MAX`]. To
//!     the rules above it is what a write of each of them is: the second copies of all are read before it, all of them
//!     go to one replica before any goes to the other, and all are in doubt from its issue on. If it fails,
//!     they are written one by one, and only those move whose places are bad. What needs more than a plain write goes
//!     by itself at once: a block of which a copy is bad, one in a reserve block, one of the only replica.
//!
//! A replica that is void is made again from the other one ([`Metadata::begin_rebuild`]), at its own
//! place or at another ([`Metadata::rehost`]): block by block, byte by byte, while commits go on and
//! send it back to what they change. When all blocks are there and flushed, the superblocks say so. Each step of
//! that is short, as others wait for it (M9a).
//!
//! With one replica left there is no second copy to fall back to. Then a block is not rewritten in
//! place but written to another one, a free reserve block or its own place, by turns, and each
//! time the superblock is switched over to it. Likewise the superblock is not written any more
//! when one copy is left and no other can be revived; what is on the spare then still serves, but
//! changes no more.
//!
//! What survives a crash, step by step, for a commit of one block:
//!
//! | crash after                     | replica 0 | replica 1 | superblocks | loading finds        |
//! |---------------------------------|-----------|-----------|-------------|----------------------|
//! | nothing                         | old       | old       | old         | the old state        |
//! | write to replica 0, torn        | bad       | old       | old         | old, repairs 0       |
//! | write to replica 0              | new       | old       | old         | new, repairs 1       |
//! | failed write to replica 0       | ?         | old       | old         | either, repairs both |
//! | … written to reserve block      | ?         | old       | old         | either, repairs both |
//! | … some superblocks written      | new       | old       | newest wins | new, repairs 1       |
//! | write to replica 1, torn        | new       | bad       | old or new  | new, repairs 1       |
//! | write to replica 1              | new       | new       | old or new  | the new state        |
//!
//! Nothing here writes: [`Op::advance`] tells the driver what to write next and is told how that
//! went, so that a test can fail, tear and reorder every single step.
//!
//! | what happens?                                   | where that is decided                                       |
//! |-------------------------------------------------|-------------------------------------------------------------|
//! | A superblock copy cannot be written.            | `supers.rs`; what is known of it: `metadata/copies.rs`      |
//! | Which table blocks are written together?        | `table_write.rs`, `run_length`, and its job                 |
//! | A table block cannot be written where it is.    | `table_write.rs`                                            |
//! | A replica has no place left for a block.        | `table_write.rs`, and whether it may be void: its job       |
//! | A commit fails between two replicas.            | `jobs/commit.rs`; until it is settled: `metadata/unsettled.rs` |
//! | A spare fails as a whole.                       | `op.rs`, `metadata/members.rs`, and if a job cannot do without it: `jobs` |
//! | Replicas differ when they are loaded.           | `jobs/rewrite.rs`                                           |
//! | A void replica is made again.                   | `jobs/rebuild.rs`, `metadata/replicas.rs`                   |
//! | More slots are needed.                          | `jobs/extend.rs`                                            |

mod jobs;
mod metadata;
mod op;
mod step;
mod supers;
mod table_write;

pub use self::{
    metadata::{
        Metadata,
        Rebuild, //
    },
    op::Op,
    step::{
        Content,
        Failure,
        Fault,
        Outcome,
        Step, //
    }, //
};

use super::format::REPLICAS;

/// The most blocks that one commit can rewrite.
pub const COMMIT_BLOCKS_MAX: usize = 16;

/// The most blocks that the high-water mark can be raised by in one go.
pub const EXTEND_BLOCKS_MAX: u32 = 64;

/// The most blocks of a slot table that are written at a time: memory is set aside for them. The entries of a MiB are in ten
/// blocks at the most, which makes three writes (P13).
pub const RUN_BLOCKS_MAX: u32 = 4;

/// The most blocks of a void replica that are made again in one go, each run read, written and read again.
pub const REBUILD_BLOCKS_MAX: u32 = 8 * RUN_BLOCKS_MAX;

const ALL_REPLICAS: u8 = (1 << REPLICAS) - 1;
