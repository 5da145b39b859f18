// SPDX-License-Identifier: GPL-2.0

//! Table blocks that are not the same in both replicas, as a commit failed in between (M1, M6).
//!
//! Of each, one replica is *suspect*: it may be damaged, old or new, and the other one has a good copy. The next commit,
//! of whatever blocks, writes these first, the suspect one before the other. Until then a replica that has the only good
//! copy of one is neither written off nor left out.

use super::super::{
    super::format::BlockId,
    COMMIT_BLOCKS_MAX, //
};

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Unsettled {
    pub(in super::super) block: BlockId,
    /// The replica that is to be written first, the other one having a good copy.
    pub(in super::super) suspect: u8,
}

/// All of them, each once.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct UnsettledBlocks {
    all: [Unsettled; COMMIT_BLOCKS_MAX],
    count: usize,
}

impl UnsettledBlocks {
    /// There are none.
    pub(in super::super) const NONE: UnsettledBlocks = UnsettledBlocks {
        all: [Unsettled {
            block: BlockId {
                member: 0,
                block: 0,
            },
            suspect: 0,
        }; COMMIT_BLOCKS_MAX],
        count: 0,
    };

    pub(in super::super) fn iter(&self) -> impl Iterator<Item = Unsettled> + '_ {
        self.all.iter().take(self.count).copied()
    }

    pub(in super::super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// One more. If there is no room, it is found again when it matters.
    pub(in super::super) fn add(&mut self, unsettled: Unsettled) {
        if self.iter().any(|known| known.block == unsettled.block) {
            return;
        }
        if let Some(place) = self.all.get_mut(self.count) {
            *place = unsettled;
            self.count += 1;
        }
    }

    /// They are settled.
    pub(in super::super) fn clear(&mut self) {
        self.count = 0;
    }

    /// What is unsettled in the table of `member` does not matter any more.
    pub(in super::super) fn forget_member(&mut self, member: u8) {
        let before = *self;
        self.clear();
        let others = before.iter().filter(|u| u.block.member != member);
        others.for_each(|unsettled| self.add(unsettled));
    }

    /// Whether one in the table of `member` has its only good copy in `replica`.
    pub(in super::super) fn needs(&self, replica: u8, member: u8) -> bool {
        let mut own = self.iter().filter(|u| u.block.member == member);
        own.any(|u| u.suspect == replica ^ 1)
    }
}
