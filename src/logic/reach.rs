// SPDX-License-Identifier: GPL-2.0

//! How far does a long range go that is served in one way?
//!
//! Discards and zeroes can be gigabytes long. Whole MiB in which nothing is remapped are told by the presence
//! bits, 64 of them by one word. Only in the others each block is looked up, and not without end. In the same way
//! it is found out which of the bits still stand for something.

use super::{
    avoid::Ranges,
    presence::{
        Presence,
        SMALL, //
    },
    table::{
        Run,
        RunKind,
        View, //
    },
    word::Word, //
};

/// How the blocks from `main_block` on are served: the longest uniform part of `count` blocks that is found
/// with `most` look-ups. A block has `1 << block_shift` sectors.
pub fn reach(
    presence: &Presence<'_, impl Word<u64>>,
    view: &View<'_, impl Word<u32>, impl Word<u64>>,
    (main_block, count): (u64, u32),
    block_shift: u32,
    most: u32,
) -> Run {
    let sectors = |blocks: u64| blocks.checked_mul(1 << block_shift);
    let mut length = 0u32;
    let mut left = most;
    while length < count {
        let at = main_block.saturating_add(u64::from(length));
        let rest = count - length;
        let clean = match (sectors(at), sectors(u64::from(rest))) {
            (Some(sector), Some(rest)) => {
                presence.clean(sector, u32::try_from(rest).unwrap_or(u32::MAX)) >> block_shift
            }
            _ => 0,
        };
        if clean != 0 {
            length = length.saturating_add(u32::try_from(clean).unwrap_or(rest).min(rest));
            continue;
        }
        // To the end of the MiB.
        let whole = SMALL >> block_shift;
        let region = whole - (at % u64::from(whole)) as u32;
        let wanted = rest.min(region).min(left);
        let next = view.run(at, wanted);
        if next.kind != RunKind::Main {
            if length == 0 {
                return view.run(at, rest.min(most));
            }
            break;
        }
        length = length.saturating_add(next.count);
        left = left.saturating_sub(next.count);
        if next.count < wanted || left == 0 {
            break;
        }
    }
    Run {
        kind: RunKind::Main,
        count: length,
    }
}

/// Block `main_block` is not remapped any more: takes back the marks that stood for it and for nothing else; not for
/// what is in one of the ranges of `avoided`. For the writer.
pub fn forget(
    presence: &Presence<'_, impl Word<u64>>,
    view: &View<'_, impl Word<u32>, impl Word<u64>>,
    avoided: &Ranges<'_, impl Word<u64>>,
    main_block: u64,
    block_shift: u32,
) {
    let blocks = SMALL >> block_shift;
    presence.forget(main_block << block_shift, |sector| {
        let first = sector >> block_shift;
        let run = avoided.cut(first, view.run(first, blocks));
        run.kind != RunKind::Main || run.count != blocks
    });
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{
        AtomicU32,
        AtomicU64, //
    };

    use std::vec::Vec;

    use super::{
        super::{
            avoid::Ranges,
            presence::{
                words_for,
                Presence, //
            },
            slot::{
                Origin,
                SlotState,
                SlotWord, //
            },
            table::{
                Counts,
                RunKind,
                View, //
            },
            word::Word, //
        },
        reach, //
    };

    /// Counts how often it is looked at.
    struct Counted(AtomicU32);

    static LOADS: AtomicU32 = AtomicU32::new(0);

    impl Word<u32> for Counted {
        fn load(&self) -> u32 {
            LOADS.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
            self.0.load(core::sync::atomic::Ordering::Relaxed)
        }

        fn store(&self, value: u32) {
            self.0.store(value, core::sync::atomic::Ordering::Relaxed);
        }
    }

    /// Blocks that are remapped, to slots in this order.
    fn check(blocks: &[u64], block_shift: u32, ranges: &[(u64, u32)]) {
        let words: Vec<AtomicU64> = (0..words_for(1 << 23).unwrap())
            .map(|_| AtomicU64::new(0))
            .collect();
        let presence = Presence::new(&words);
        let buckets: Vec<Counted> = (0..1024).map(|_| Counted(AtomicU32::new(0))).collect();
        let word = |block| SlotWord::new(block, SlotState::Valid, Origin::Auto).unwrap();
        let slots: Vec<AtomicU64> = blocks
            .iter()
            .map(|block| AtomicU64::new(word(*block).to_memory()))
            .collect();
        let view = View::new(&buckets, &slots);
        let mut counts = Counts::default();
        for (block, slot) in blocks.iter().zip(0..) {
            presence.set(block << block_shift, 1 << block_shift);
            view.insert(&mut counts, *block, slot).unwrap();
        }
        for &(first, count) in ranges {
            let most = 4096;
            LOADS.store(0, core::sync::atomic::Ordering::Relaxed);
            let run = reach(&presence, &view, (first, count), block_shift, most);
            let loads = LOADS.load(core::sync::atomic::Ordering::Relaxed);
            assert!(loads < 20_000, "{loads} for {first}+{count}");
            let next = blocks.iter().filter(|block| **block >= first).min();
            match next {
                Some(next) if *next == first => {
                    assert!(matches!(run.kind, RunKind::Slots { .. }), "{first}+{count}");
                    assert!(run.count >= 1 && run.count <= count);
                }
                _ => {
                    let free = next.map_or(u64::from(count), |next| next - first);
                    let free = free.min(count.into()) as u32;
                    assert_eq!((run.kind, run.count), (RunKind::Main, free));
                }
            }
        }
    }

    #[test]
    fn long_ranges_go_to_the_next_remap() {
        for shift in [0, 3] {
            let whole = 2048u64 >> shift;
            let all = (1u32 << 23) >> shift;
            let some = [5 * whole + 1, 70 * whole, 70 * whole + 1, 3000 * whole - 1];
            let mut ranges = Vec::from([(0, all), (0, 1), (5 * whole + 1, 1), (5 * whole, 1)]);
            for block in some {
                for from in [block.saturating_sub(whole), block - 1, block, block + 1] {
                    for count in [1, 2, 300, 5000, 1 << 17] {
                        if from + u64::from(count) <= u64::from(all) {
                            ranges.push((from, count));
                        }
                    }
                }
            }
            check(&some, shift, &ranges);
            check(&[], shift, &[(0, all), (7, all - 7), (whole, 1)]);
        }
    }

    /// Marks go when the last block does that they stand for.
    #[test]
    fn marks_are_taken_back() {
        let words: Vec<AtomicU64> = (0..2).map(|_| AtomicU64::new(0)).collect();
        let presence = Presence::new(&words);
        let buckets: Vec<AtomicU32> = (0..64).map(|_| AtomicU32::new(0)).collect();
        // Two in MiB 5, and one in MiB 7.
        let blocks = [5 * 256 + 1, 5 * 256 + 255, 7 * 256];
        let slots: Vec<AtomicU64> = blocks
            .iter()
            .map(|block| {
                let word = SlotWord::new(*block, SlotState::Valid, Origin::Auto).unwrap();
                AtomicU64::new(word.to_memory())
            })
            .collect();
        let view = View::new(&buckets, &slots);
        let mut counts = Counts::default();
        for (block, slot) in blocks.iter().zip(0..) {
            presence.set(block << 3, 8);
            view.insert(&mut counts, *block, slot).unwrap();
        }
        let marked = || -> Vec<u64> { (0..20).filter(|mib| presence.any(mib << 11)).collect() };
        assert_eq!(marked(), [4, 5, 6, 7]);
        // What is not to be read needs them, too.
        let ends = [7 * 256 + 200, 7 * 256 + 201].map(AtomicU64::new);
        let own = Ranges::new(&ends);
        let avoided = Ranges::<AtomicU64>::new(&[]);
        for (slot, left) in [(0, [4, 5, 6, 7].as_slice()), (1, &[6, 7]), (2, &[])] {
            let block = blocks[slot];
            assert!(view.remove(&mut counts, block, slot as u32));
            let is_last = left.is_empty();
            super::forget(
                &presence,
                &view,
                if is_last { &own } else { &avoided },
                block,
                3,
            );
            if is_last {
                assert_eq!(marked(), [6, 7]);
                super::forget(&presence, &view, &avoided, block, 3);
            }
            assert_eq!(marked(), left);
        }
    }

    /// What is remapped everywhere is not looked up without end, and nothing is passed over.
    #[test]
    fn look_ups_end() {
        let words: Vec<AtomicU64> = (0..4).map(|_| AtomicU64::new(u64::MAX)).collect();
        let buckets: Vec<AtomicU32> = (0..64).map(|_| AtomicU32::new(0)).collect();
        let slots: [AtomicU64; 0] = [];
        let (presence, view) = (Presence::new(&words), View::new(&buckets, &slots));
        let run = reach(&presence, &view, (9, 1 << 20), 0, 4096);
        assert_eq!((run.kind, run.count), (RunKind::Main, 4096));
        let run = reach(&presence, &view, (u64::MAX - 9, 1 << 20), 3, 4096);
        assert!(run.count <= 4096);
        assert_eq!(reach(&presence, &view, (9, 0), 0, 4096).count, 0);
    }
}
