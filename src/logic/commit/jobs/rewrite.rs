// SPDX-License-Identifier: GPL-2.0

//! Making the replicas of a block equal, as loading found them different (M3): what the truth was read from goes to the
//! other one, byte by byte.

use super::{
    super::{
        super::format::BlockId,
        metadata::unsettled::Unsettled,
        step::{
            Failure,
            Step, //
        },
        table_write::{
            Progress,
            TableWrite,
            Way, //
        },
        Metadata,
        Op, //
    },
    Job, //
};

/// A block that a replica gets from the other one.
#[derive(Debug)]
pub(in super::super) struct Rewrite {
    block: BlockId,
    replica: u8,
    /// None when that is done.
    write: Option<TableWrite>,
}

impl Metadata {
    /// Writes the truth about `block`, as loading found it, to `replica`, which has something else
    /// or nothing (M3). Does nothing if that replica became void meanwhile. If the replica would
    /// have to become void but has the only good copy of another block, this one is left to the
    /// first commit ([`Metadata::is_unsettled`]).
    pub fn rewrite(&mut self, replica: u8, block: BlockId) -> Op<'_> {
        let legal = self.superblock.own_place(replica, block).is_some();
        let job = Rewrite {
            block,
            replica,
            write: Some(TableWrite::new(block, replica, Way::InPlace, true)),
        };
        Op::new(self, Job::Rewrite(job), legal, false)
    }
}

impl Rewrite {
    pub(super) fn next(&mut self, metadata: &mut Metadata) -> Result<Option<Step>, Failure> {
        let (replica, member) = (self.replica, self.block.member);
        if !metadata.replica_lives(replica, member) {
            return Ok(None);
        }
        let Some(write) = &mut self.write else {
            return Ok(None);
        };
        if let Some(place) = write.place(metadata) {
            let content = write.copy_of_other(metadata)?;
            return Ok(Some(write.step(metadata, place, content, true)));
        }
        if metadata.replica_lives(replica ^ 1, member) && metadata.unsettled.needs(replica, member)
        {
            self.leave(metadata);
            return Ok(None);
        }
        write.write_off(metadata)
    }

    pub(super) fn absorb(&mut self, metadata: &mut Metadata, good: bool) -> Result<(), Failure> {
        let write = self.write.as_mut().ok_or(Failure::Blocks)?;
        match write.absorb(metadata, good)? {
            Progress::More => (),
            Progress::Written => self.write = None,
            // There is one.
            Progress::Apart => return Err(Failure::Blocks),
            Progress::OtherBad(bad) => {
                metadata.unsettled.add(bad);
                self.leave(metadata);
            }
        }
        Ok(())
    }

    /// Leaves the block to the first commit: until then one replica lacks this one, and the other one lacks another.
    fn leave(&mut self, metadata: &mut Metadata) {
        metadata.unsettled.add(Unsettled {
            block: self.block,
            suspect: self.replica,
        });
        self.write = None;
    }
}
