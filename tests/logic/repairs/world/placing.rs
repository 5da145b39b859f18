// SPDX-License-Identifier: GPL-2.0

//! Slots, and what leaves main for them: as simple as can be, and as whole as it has to be.

use std::collections::BTreeSet;

use dm_remap_logic::classify::Status;
use dm_remap_logic::desk::Range;
use dm_remap_logic::repair::Answer;
use dm_remap_logic::repair::Found;
use dm_remap_logic::repair::Way;

use super::filler::Filled;
use super::filler::Filler;
use super::split;
use super::Held;
use super::Remap;
use super::Repairer;
use super::World;
use super::BLOCK_SECTORS;

/// How many blocks of main are asked whether it lives.
const PROBES: u32 = 3;

impl World {
    pub(super) fn commits(&mut self) -> bool {
        self.plan.commit_fails == 0 || !self.random.once_in(self.plan.commit_fails)
    }

    /// Asks another block of main.
    pub(super) fn probe(&mut self, way: Way, first: usize, count: usize) -> Found {
        let mut found = Found::Unknown;
        let (blocks, mut asked) = (self.main.len(), 0);
        let start = self.random.below(blocks as u64) as usize;
        for block in (0..blocks).map(|more| (start + more) % blocks) {
            let own = (first..first + count).contains(&block);
            let away = self.map.contains_key(&block) || self.avoided.contains(&block);
            if own || away || !self.is_idle(block, 1) {
                continue;
            }
            asked += 1;
            if asked > PROBES {
                break;
            }
            let mut data = [None];
            for write in [false, true] {
                let io = self.main.begin(write, block, 1, &mut self.random);
                self.main.end(&io, &mut data, false);
                if io.result.is_err() {
                    found = Found::Dead;
                    break;
                }
                self.prove(if write { Way::Write } else { Way::Read }, self.now);
                if write || way == Way::Read {
                    return Found::Alive;
                }
            }
        }
        found
    }

    /// Brings what is listed to slots. Nobody sees it there.
    pub(super) fn place(&mut self, repairer: &mut Repairer) -> bool {
        let request = &self.requests[repairer.request];
        let first = request.first;
        let deadline = repairer.machine.times().deadline;
        let moves = std::mem::take(&mut repairer.moves);
        let blocks: Vec<(usize, u64)> = moves
            .iter()
            .map(|at| (first + at, request.data[*at].expect("a write")))
            .collect();
        let filled = self.fill_slots(&blocks, deadline);
        repairer.placed.extend(filled.placed);
        repairer.retired.extend(filled.retired);
        filled.all
    }

    /// Makes durable what was placed: flush, commit, publish.
    pub(super) fn commit(&mut self, repairer: &mut Repairer, failed_at: u64) -> Answer<Status> {
        let since = self.requests[repairer.request].since;
        let placed = std::mem::take(&mut repairer.placed);
        let retired = std::mem::take(&mut repairer.retired);
        let members: BTreeSet<usize> = placed.iter().map(|(_, slot)| split(*slot).0).collect();
        let failed = Answer::Failed(repairer.machine.error());
        let Some(placed) = self.flush_placed(placed, &retired) else {
            return match members.iter().any(|member| self.is_gone(*member)) {
                true => Answer::InVain,
                false => failed,
            };
        };
        let doubt = !placed.is_empty() && !self.commits();
        match doubt {
            true => self.free.extend(&retired),
            false => self.bad.extend(&retired),
        }
        let fresh = |block: &usize| {
            !self.map.contains_key(block)
                && !self.notes.contains(block)
                && !self.avoided.contains(block)
        };
        if !repairer.counted && placed.iter().any(|(block, _)| fresh(block)) {
            repairer.counted = true;
            self.check_life(failed_at, since);
        }
        for (block, slot) in &placed {
            self.publish(*block, *slot, Held::Valid, doubt);
        }
        // Metadata goes to all spares, so that shows which are gone.
        match members.iter().any(|member| self.is_gone(*member)) {
            _ if doubt => failed,
            true => {
                *self.seen.entry("in vain".to_owned()).or_default() += 1;
                let gone = placed
                    .iter()
                    .filter(|(_, slot)| self.is_lost(split(*slot).0));
                let gone: Vec<usize> = gone.map(|(block, _)| *block).collect();
                self.in_vain.extend(gone);
                Answer::InVain
            }
            false => Answer::Good,
        }
    }

    /// Brings blocks to slots, which are theirs afterwards.
    pub(super) fn fill_slots(&mut self, blocks: &[(usize, u64)], deadline: u64) -> Filled {
        let set_aside = |block: usize| {
            let remap = self.map.get(&block)?;
            let own = remap.held != Held::Valid && !remap.doubt;
            own.then_some(remap.slot)
        };
        let own = blocks.iter().map(|(block, _)| set_aside(*block)).collect();
        let filler = Filler::new(blocks, own, deadline, self.now);
        let filled = filler.run(self);
        let kept: BTreeSet<u32> = filled.placed.iter().map(|(_, slot)| *slot).collect();
        self.free.retain(|slot| !kept.contains(slot));
        filled
    }

    /// Makes what was placed durable. If that fails, nothing becomes of it.
    fn flush_placed(
        &mut self,
        placed: Vec<(usize, u32)>,
        retired: &[u32],
    ) -> Option<Vec<(usize, u32)>> {
        let flushed = self.spares.iter_mut().zip(&self.lost);
        let flushed = flushed.fold(true, |good, (spare, lost)| {
            let result = spare.flush();
            good && (lost.is_some() || result.is_ok())
        });
        if flushed {
            return Some(placed);
        }
        self.free.extend(placed.iter().map(|(_, slot)| *slot));
        self.free.extend(retired);
        self.take_back();
        None
    }

    /// What others have by now is not free.
    pub(super) fn take_back(&mut self) {
        let used: BTreeSet<u32> = self.map.values().map(|remap| remap.slot).collect();
        self.free.retain(|slot| !used.contains(slot));
    }

    pub(super) fn publish(&mut self, block: usize, slot: u32, held: Held, doubt: bool) {
        self.moved += u32::from(held == Held::Valid);
        self.notes.remove(&block);
        self.in_vain.remove(&block);
        let failing = false;
        self.map.insert(
            block,
            Remap {
                slot,
                held,
                doubt,
                failing,
            },
        );
    }

    /// Main has shown that it lives, before blocks leave it (E2).
    pub(super) fn check_life(&mut self, failed_at: u64, since: u64) {
        assert!(
            self.plan.auto_remap,
            "P6: blocks move where that is switched off"
        );
        let shrunk = self.shrunk.is_some_and(|shrunk| shrunk < since);
        assert!(!shrunk, "E2: main is another one");
        let alive = self.proven.iter().any(|proven| *proven >= Some(failed_at));
        assert!(alive, "E2: blocks move without proof of life");
        if failed_at > self.written_at {
            self.moved_since += 1;
            let many = self.plan.threshold != 0 && self.moved_since >= self.plan.threshold;
            assert!(!many, "P6: main takes nothing, and the spare is consumed");
        }
    }

    /// The gate is closed, and the block is read again (E3).
    pub(super) fn move_weak(&mut self, block: usize) {
        let valid = self
            .map
            .get(&block)
            .is_some_and(|remap| remap.held == Held::Valid);
        let valid = valid || self.avoided.contains(&block);
        if valid || self.map.get(&block).is_some_and(|remap| remap.doubt) || !self.is_idle(block, 1)
        {
            return;
        }
        let io = self.main.begin(false, block, 1, &mut self.random);
        let mut data = [None];
        self.main.end(&io, &mut data, false);
        let Some(value) = data[0] else {
            return;
        };
        let filled = self.fill_slots(&[(block, value)], u64::MAX);
        let placed = self.flush_placed(filled.placed, &filled.retired);
        self.bad.extend(&filled.retired);
        for (block, slot) in placed.into_iter().flatten() {
            self.publish(block, slot, Held::Valid, false);
        }
    }

    /// Sets slots aside for what is noted.
    pub(super) fn set_noted_aside(&mut self) {
        for block in self.notes.clone() {
            let range = Range::new(block as u64 * BLOCK_SECTORS, BLOCK_SECTORS as u32);
            if self.desk.is_busy(range) {
                continue;
            }
            let slot = self
                .free
                .iter()
                .copied()
                .find(|slot| !self.is_lost(super::split(*slot).0));
            self.notes.remove(&block);
            if let Some(slot) = slot.filter(|_| !self.map.contains_key(&block)) {
                self.free.remove(&slot);
                self.publish(block, slot, Held::Pending, false);
            }
        }
    }
}
