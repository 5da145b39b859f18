// SPDX-License-Identifier: GPL-2.0

//! Slots, and what leaves main for them: as simple as can be, and as whole as it has to be.

use std::collections::BTreeSet;

use dm_remap_logic::desk::Range;
use dm_remap_logic::repair::Found;
use dm_remap_logic::repair::Way;

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
            if own || self.map.contains_key(&block) || !self.is_idle(block, 1) {
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

    /// Takes a slot that can be written, and brings `value` there.
    pub(super) fn fill_slot(&mut self, own: Option<u32>, value: u64) -> Option<u32> {
        let free: Vec<u32> = own.into_iter().chain(self.free.iter().copied()).collect();
        for slot in free {
            let (member, number) = split(slot);
            if self.is_gone(member) {
                continue;
            }
            let io = self.spares[member].begin(true, number, 1, &mut self.random);
            self.spares[member].end(&io, &mut [Some(value)], false);
            if io.result.is_ok() {
                self.free.remove(&slot);
                return Some(slot);
            }
        }
        None
    }

    /// Moves what is listed: data, flush, commit, publish.
    pub(super) fn place(&mut self, repairer: &mut Repairer, failed_at: u64) -> bool {
        let request = &self.requests[repairer.request];
        let (first, since) = (request.first, request.since);
        let moves = std::mem::take(&mut repairer.moves);
        let data: Vec<u64> = request
            .data
            .iter()
            .map(|data| data.expect("a write"))
            .collect();
        let mut placed = Vec::new();
        for at in moves {
            let block = first + at;
            let set_aside = |remap: &&Remap| remap.held != Held::Valid && !remap.doubt;
            let own = self
                .map
                .get(&block)
                .filter(set_aside)
                .map(|remap| remap.slot);
            let Some(slot) = self.fill_slot(own, data[at]) else {
                self.free.extend(placed.iter().map(|(_, slot)| *slot));
                self.take_back();
                return false;
            };
            placed.push((block, slot));
        }
        let flushed = self.spares.iter_mut().zip(&self.lost);
        let flushed = flushed.fold(true, |good, (spare, lost)| {
            let result = spare.flush();
            good && (lost.is_some() || result.is_ok())
        });
        if !flushed {
            self.free.extend(placed.iter().map(|(_, slot)| *slot));
            self.take_back();
            return false;
        }
        let doubt = !placed.is_empty() && !self.commits();
        let fresh = |block: &usize| !self.map.contains_key(block) && !self.notes.contains(block);
        if placed.iter().any(|(block, _)| fresh(block)) {
            self.check_life(failed_at, since);
        }
        for (block, slot) in placed {
            self.publish(block, slot, Held::Valid, doubt);
        }
        !doubt
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
        let own = self.map.get(&block).map(|remap| remap.slot);
        let Some(slot) = self.fill_slot(own, value) else {
            return;
        };
        let (member, _) = split(slot);
        if self.spares[member].flush().is_ok() {
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
                .find(|slot| !self.is_lost(split(*slot).0));
            self.notes.remove(&block);
            if let Some(slot) = slot.filter(|_| !self.map.contains_key(&block)) {
                self.free.remove(&slot);
                self.publish(block, slot, Held::Pending, false);
            }
        }
    }
}
