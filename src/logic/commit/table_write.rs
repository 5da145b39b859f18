// SPDX-License-Identifier: GPL-2.0

//! Writing blocks of a slot table to one replica: where to, and what if one cannot stay there (M1, M2).
//!
//! Several are written at a time if they follow each other where they are ([`run_length`]). To the rules, that is what a
//! write of each is: a crash leaves any of them old, new or torn. If it fails, nobody knows which of the places is bad,
//! and each is written by itself ([`Progress::Apart`]). What follows is about one block.
//!
//! | [`Way`]            | a write goes to                                        | if the medium is bad there              |
//! |--------------------|--------------------------------------------------------|-----------------------------------------|
//! | `InPlace`          | where the block is                                     | `Moved`: its own place, or that reserve block, is bad |
//! | `Moved`            | its own place, if that is not bad; a free reserve block | the next one                            |
//! | `Elsewhere`        | the same, but never where the block is: what is there is the only good copy | the next one       |
//!
//! Each place that turns out bad is noted in the superblock, and so is where the block went in the end, before
//! anything else is written. Superblocks that say so before another place is found do no harm: the other replica has a
//! good copy, or the block is where it was.
//!
//! When no place is left, the replica may be *written off*: all blocks of the other one are looked at first, and if
//! these are good, the replica is void. Whether it may be, and what if not, is for the job to say.

use super::{
    super::format::{
        reserve::Reserve,
        BlockId,
        Place, //
    },
    metadata::unsettled::Unsettled,
    step::{
        Content,
        Failure,
        Step, //
    },
    Metadata,
    RUN_BLOCKS_MAX, //
};

/// What a write may do with the place where the block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Overwrite it.
    InPlace,
    /// Leave it: it is bad.
    Moved {
        /// Whether the block's own place is bad, too.
        home_bad: bool,
    },
    /// Leave it: it is the only good copy.
    Elsewhere,
}

/// What the last step was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// The block's place, whichever that is now.
    Current,
    /// Its own place, while it is in a reserve block, or was.
    Home,
    /// A reserve block.
    Reserve(u8),
    /// That block of the other replica, as this one is to be written off.
    Other(u32),
}

/// What a step came to.
pub(super) enum Progress {
    /// There is more to do.
    More,
    /// The block is written, and so are those that were written with it.
    Written,
    /// They are not: each is to be written by itself.
    Apart,
    /// The replica cannot be written off, as the other one has a bad block.
    OtherBad(Unsettled),
}

/// How many blocks from `first` on, `most` of them if that is not too many, can be written to a replica at a time: they
/// are in their own places there, which follow each other. If they are `copied`, they are in those of the other one, too.
pub(super) fn run_length(
    metadata: &Metadata,
    first: BlockId,
    replica: u8,
    most: u32,
    copied: bool,
) -> u32 {
    let table = metadata.superblock.member(first.member);
    let is_home = |block: u32| {
        let relocated = |replica| table.is_none_or(|t| t.relocation(replica, block).is_some());
        !(relocated(replica) || copied && relocated(replica ^ 1))
    };
    let most = most.min(RUN_BLOCKS_MAX);
    let blocks = (0..most).map(|index| first.block.saturating_add(index));
    // No more than that, so it fits.
    (blocks.take_while(|block| is_home(*block)).count() as u32).max(1)
}

/// A block on its way to a replica, or several.
#[derive(Debug)]
pub(super) struct TableWrite {
    block: BlockId,
    /// How many: this one and those behind it, which are written where they are, and of which no copy is bad.
    count: u32,
    replica: u8,
    way: Way,
    /// Whether what is there is known to be bad: then it is repaired by that, and has to show that it is.
    was_bad: bool,
    at: At,
}

impl TableWrite {
    pub(super) fn new(block: BlockId, replica: u8, way: Way, was_bad: bool) -> Self {
        Self {
            block,
            count: 1,
            replica,
            way,
            was_bad,
            at: At::Current,
        }
    }

    /// Writes `count` blocks, as [`run_length`] has found them, where they are.
    pub(super) fn of_several(block: BlockId, count: u32, replica: u8) -> Self {
        Self {
            count,
            ..Self::new(block, replica, Way::InPlace, false)
        }
    }

    /// How many blocks are written.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// The replica that it goes to.
    pub(super) fn replica(&self) -> u8 {
        self.replica
    }

    /// The place to write it to; none if none is left.
    pub(super) fn place(&mut self, metadata: &Metadata) -> Option<Place> {
        let (superblock, member) = (&metadata.superblock, self.block.member);
        let home_bad = match self.way {
            Way::InPlace => {
                self.at = At::Current;
                return superblock.table_place(self.replica, self.block);
            }
            Way::Moved { home_bad } => home_bad,
            // Where it is in its own place, that is not to be used either.
            Way::Elsewhere => self
                .relocation(metadata)
                .is_none_or(|(_, home_bad)| home_bad),
        };
        if !home_bad {
            self.at = At::Home;
            return superblock.own_place(self.replica, self.block);
        }
        let index = metadata.free_reserve(self.replica, member)?;
        self.at = At::Reserve(index);
        superblock.reserve_place(self.replica, member, index)
    }

    /// The step that writes it to `place`.
    pub(super) fn step(
        &self,
        metadata: &Metadata,
        place: Place,
        content: Content,
        fua: bool,
    ) -> Step {
        let copied = matches!(content, Content::Copy { .. });
        let repaired = self.was_bad && self.at == At::Current;
        Step::WriteTable {
            block: self.block,
            count: self.count,
            place,
            content,
            fua,
            verify: copied || repaired || !metadata.has_both(self.block.member),
        }
    }

    /// What the other replica has.
    pub(super) fn copy_of_other(&self, metadata: &Metadata) -> Result<Content, Failure> {
        let from = metadata
            .superblock
            .table_place(self.replica ^ 1, self.block)
            .ok_or(Failure::Blocks)?;
        Ok(Content::Copy { from })
    }

    /// The next step of writing the replica off; none when it is void.
    pub(super) fn write_off(&mut self, metadata: &mut Metadata) -> Result<Option<Step>, Failure> {
        let (replica, other) = (self.replica, self.replica ^ 1);
        let member = self.block.member;
        if !metadata.replica_lives(other, member) {
            return Err(Failure::NoPlace);
        }
        let block = match self.at {
            At::Other(block) => block.saturating_add(1),
            _ => 0,
        };
        let table = metadata.superblock.member_mut(member);
        let table = table.ok_or(Failure::Blocks)?;
        if block < table.high_water {
            self.at = At::Other(block);
            let block = BlockId { member, block };
            let place = metadata.superblock.table_place(other, block);
            let place = place.ok_or(Failure::Blocks)?;
            return Ok(Some(Step::CheckTable { block, place }));
        }
        table.void_replicas |= 1 << replica;
        metadata.count_repair();
        metadata.raise_epoch()?;
        Ok(None)
    }

    /// The last step went well; or it did not, and the medium is to blame.
    pub(super) fn absorb(
        &mut self,
        metadata: &mut Metadata,
        good: bool,
    ) -> Result<Progress, Failure> {
        match (self.at, good) {
            (At::Other(_), true) => Ok(Progress::More),
            (At::Other(block), false) => Ok(Progress::OtherBad(Unsettled {
                block: BlockId {
                    member: self.block.member,
                    block,
                },
                suspect: self.replica ^ 1,
            })),
            (_, true) => self.written(metadata).map(|()| Progress::Written),
            (_, false) if self.count > 1 => Ok(Progress::Apart),
            (_, false) => {
                self.failed(metadata);
                Ok(Progress::More)
            }
        }
    }

    /// Notes where the block is now.
    fn written(&self, metadata: &mut Metadata) -> Result<(), Failure> {
        if self.at == At::Current {
            if self.was_bad {
                metadata.count_repair();
            }
            return Ok(());
        }
        let (replica, member, block) = (self.replica, self.block.member, self.block.block);
        let old = self.relocation(metadata);
        if let Some((index, _)) = old {
            metadata.set_reserve(replica, member, index, Reserve::Free);
        }
        if let At::Reserve(index) = self.at {
            let home_bad = match self.way {
                Way::Moved { home_bad } => home_bad,
                _ => old.is_some_and(|(_, home_bad)| home_bad),
            };
            let holds = Reserve::Holds { block, home_bad };
            metadata.set_reserve(replica, member, index, holds);
        }
        metadata.stale = true;
        if let Way::Moved { .. } = self.way {
            metadata.count_repair();
            metadata.raise_epoch()?;
        }
        Ok(())
    }

    /// Notes that a place is bad, so that the next one is chosen.
    fn failed(&mut self, metadata: &mut Metadata) {
        let (replica, member, block) = (self.replica, self.block.member, self.block.block);
        match (self.at, self.relocation(metadata)) {
            (At::Current, Some((index, home_bad))) => {
                metadata.set_reserve(replica, member, index, Reserve::Bad);
                self.way = Way::Moved { home_bad };
            }
            (At::Home, Some((index, _))) => {
                let home_bad = true;
                let holds = Reserve::Holds { block, home_bad };
                metadata.set_reserve(replica, member, index, holds);
            }
            (At::Current | At::Home, None) => self.way = Way::Moved { home_bad: true },
            (At::Reserve(index), _) => {
                metadata.set_reserve(replica, member, index, Reserve::Bad);
            }
            (At::Other(_), _) => (),
        }
    }

    /// The reserve block that the block is in, and whether its own place is bad.
    fn relocation(&self, metadata: &Metadata) -> Option<(u8, bool)> {
        let member = metadata.superblock.member(self.block.member)?;
        member.relocation(self.replica, self.block.block)
    }
}
