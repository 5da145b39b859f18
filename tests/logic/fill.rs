// SPDX-License-Identifier: GPL-2.0

//! Filling the remap table with many slots at a time, against one at a time.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;

use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::slot::SlotWord;
use dm_remap_logic::table::buckets_for;
use dm_remap_logic::table::Counts;
use dm_remap_logic::table::InsertError;
use dm_remap_logic::table::View;
use proptest::prelude::*;

const MAIN_BLOCKS: u64 = 64;

fn slots() -> impl Strategy<Value = Vec<SlotWord>> {
    let states = [
        SlotState::Free,
        SlotState::Valid,
        SlotState::Pending,
        SlotState::Bad,
    ];
    let word = (0..MAIN_BLOCKS, 0..states.len())
        .prop_map(move |(main, state)| SlotWord::new(main, states[state], Origin::Auto).unwrap());
    prop::collection::vec(word, 0..60)
}

/// All that a view of these words and `buckets` finds.
fn found(view: &View<'_, AtomicU32, AtomicU64>) -> Vec<Option<(u32, SlotWord)>> {
    (0..MAIN_BLOCKS).map(|main| view.lookup(main)).collect()
}

proptest! {
    #![proptest_config(super::random::config())]

    #[test]
    fn like_one_by_one(words in slots(), parts in prop::collection::vec(0u32..20, 0..8)) {
        let cells: Vec<_> = words.iter().map(|w| AtomicU64::new(w.to_memory())).collect();
        let end = cells.len() as u32;
        let make = || -> Vec<_> {
            (0..buckets_for(end).unwrap()).map(|_| AtomicU32::new(0)).collect()
        };
        let (buckets, expected_buckets) = (make(), make());

        let expected = View::new(&expected_buckets, &cells);
        let mut expected_counts = Counts::default();
        let mut expected_stops = Vec::new();
        for (slot, word) in (0..).zip(&words).filter(|(_, word)| word.is_claim()) {
            let inserted = expected.insert(&mut expected_counts, word.main_block(), slot);
            if let Err(error) = inserted {
                expected_stops.push((slot, *word, error));
            }
        }

        let view = View::new(&buckets, &cells);
        let mut counts = Counts::default();
        let mut stops = Vec::new();
        let (mut next, mut parts) = (0, parts.into_iter());
        while next < end {
            let to = parts.next().map_or(end, |count| end.min(next + 1 + count));
            next = match view.insert_all(&mut counts, next..to) {
                Ok(()) => to,
                Err(stopped) => {
                    stops.push((stopped.at, stopped.word, stopped.error));
                    stopped.at + 1
                }
            };
        }
        prop_assert_eq!(stops, expected_stops);
        prop_assert_eq!(counts, expected_counts);
        prop_assert_eq!(found(&view), found(&expected));
    }
}

#[test]
fn a_full_table_ends() {
    let cells: Vec<_> = (0..65)
        .map(|main| SlotWord::new(main, SlotState::Valid, Origin::Auto).unwrap())
        .map(|word| AtomicU64::new(word.to_memory()))
        .collect();
    let buckets: Vec<_> = (0..64).map(|_| AtomicU32::new(0)).collect();
    let view = View::new(&buckets, &cells);
    let mut counts = Counts::default();
    let stopped = view.insert_all(&mut counts, 0..65).unwrap_err();
    assert_eq!((stopped.at, stopped.error), (64, InsertError::Full));
    assert_eq!(counts.used, 64);
    // Slots that there are none of are nobody's.
    assert_eq!(view.insert_all(&mut counts, 65..70), Ok(()));
    let nothing: [AtomicU32; 0] = [];
    let none = View::new(&nothing, &cells);
    assert_eq!(
        none.insert_all(&mut counts, 0..1).unwrap_err().error,
        InsertError::Full
    );
}
