// SPDX-License-Identifier: GPL-2.0

//! Tables of a device that is not in use.

use dm_remap_logic::format::member_bit;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::load::LoadError;
use dm_remap_logic::set::NamedSpare;
use dm_remap_logic::set::Plan;
use dm_remap_logic::set::Refusal;
use dm_remap_logic::set::Seen;
use dm_remap_logic::text::MainId;

use super::blank;
use super::check_arguments;
use super::check_numbers;
use super::geometry;
use super::is_blank;
use super::is_just;
use super::kind;
use super::member_of;
use super::named;
use super::names;
use super::uuid;
use super::Line;
use super::Set;
use super::Tally;
use super::MAIN_SECTORS;
use super::SET;

/// M9, M10: nobody who may hold something is left out without the user's word, and nobody leaves.
#[test]
fn every_table_of_a_set_that_was_found() {
    let mut tally = Tally::default();
    let lines = Line::each();
    Set::each(|set| {
        let superblock = set.superblock();
        let members = superblock.members();
        let mut spares: Vec<NamedSpare> = members
            .map(|(index, _)| named(None, Seen::Member(index)))
            .collect();
        spares.push(blank(None));
        super::each_line(&spares, |spares| {
            if spares.iter().all(is_blank) {
                // Nobody would have told of the set.
                return;
            }
            for line in &lines {
                let planned = Plan::for_loaded(&line.wanted(), superblock, spares, names());
                let absent: Vec<u8> = superblock
                    .members()
                    .filter(|(_, member)| !member.missing || member.high_water != 0)
                    .map(|(index, _)| index)
                    .filter(|index| spares.iter().all(|s| member_of(s) != Some(*index)))
                    .collect();
                match planned {
                    Ok(plan) => {
                        check_numbers(superblock, spares, &plan);
                        check_arguments(line, spares, false);
                        assert!(
                            !line.format || spares.iter().any(is_blank),
                            "nothing to format"
                        );
                        assert!(line.degraded || absent.is_empty());
                        assert_eq!((plan.leaving, plan.inherited), (0, 0));
                        let missing = absent.iter().fold(0, |mask, i| mask | member_bit(*i));
                        assert_eq!(plan.unnamed(superblock) & missing, missing);
                        tally.count("planned");
                    }
                    Err(Refusal::Content(LoadError::Incomplete { member, .. })) => {
                        assert!(!line.degraded && absent.contains(&member));
                        // M10: a blank spare in the place of a member is no answer to a line that names the set.
                        tally.count("Incomplete");
                    }
                    Err(refusal) => {
                        let just = is_just(superblock, line, spares, &refusal);
                        assert_eq!(just, Some(true), "{refusal:?}: {line:?} {spares:?}");
                        tally.count(kind(&refusal));
                    }
                }
            }
        });
    });
    tally.expect(&[
        "planned",
        "BlankWithUuid",
        "HasMetadata",
        "Incomplete",
        "ReadOnly",
        "SameMember",
        "TooMany",
        "WrongUuid",
    ]);
}

/// M10: a set is made of blank spares unless the line names one, or is read-only; D1: or remaps would be left behind.
#[test]
fn every_table_of_new_spares() {
    let mut tally = Tally::default();
    let mut superblock = Superblock::EMPTY;
    superblock.begin(SET, uuid(0), geometry(0), MAIN_SECTORS, MainId::NONE);
    for count in 1..=5 {
        let mut spares = vec![blank(None); count];
        spares[0].seen = Seen::Member(0);
        for (line, leaves) in Line::each()
            .into_iter()
            .flat_map(|line| [(line, false), (line, true)])
        {
            match Plan::for_new(&line.wanted(), &superblock, &spares, leaves, names()) {
                Ok(plan) => {
                    check_numbers(&superblock, &spares, &plan);
                    assert!(line.uuid.is_none() && !line.read_only && !leaves && count <= 4);
                    let numbers = plan.members.iter().flatten().copied();
                    assert!(numbers.eq(0..count as u8), "in the order of the line");
                    tally.count("planned");
                }
                Err(refusal) => {
                    let just = match refusal {
                        Refusal::LeavesRemaps => leaves,
                        Refusal::BlankWithUuid => line.uuid.is_some(),
                        ref other => is_just(&superblock, &line, &spares, other) == Some(true),
                    };
                    assert!(just, "{refusal:?}: {line:?} {count}");
                    tally.count(kind(&refusal));
                }
            }
        }
    }
    tally.expect(&[
        "planned",
        "BlankWithUuid",
        "LeavesRemaps",
        "ReadOnly",
        "TooMany",
    ]);
}
