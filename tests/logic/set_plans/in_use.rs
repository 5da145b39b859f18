// SPDX-License-Identifier: GPL-2.0

//! Tables of a device that is in use.

use dm_remap_logic::format::member_bit;
use dm_remap_logic::load::LoadError;
use dm_remap_logic::set::InUse;
use dm_remap_logic::set::Name;
use dm_remap_logic::set::NamedSpare;
use dm_remap_logic::set::Plan;
use dm_remap_logic::set::Refusal;
use dm_remap_logic::set::Seen;
use dm_remap_logic::text::Uuid;

use super::blank;
use super::check_arguments;
use super::check_numbers;
use super::check_superblock;
use super::geometry;
use super::is_blank;
use super::is_just;
use super::kind;
use super::member_of;
use super::named;
use super::names;
use super::Is;
use super::Line;
use super::Set;
use super::Tally;

/// What there is to be seen where a line names a spare, for a set.
fn spares(set: &Set) -> Vec<NamedSpare> {
    let mut all = vec![blank(None)];
    let mut free = 0;
    for index in 0..4 {
        let Some(member) = set.superblock().member(index) else {
            // Two that a table which was not resumed has numbered.
            free += 1;
            if free <= 2 {
                let uuid = Uuid([0x40 + index; 16]);
                all.push(blank(Some(Name { index, uuid })));
            }
            continue;
        };
        let uuid = member.uuid;
        all.push(named(Some(Name { index, uuid }), Seen::Known));
        all.push(match set.metadata.is_usable(index) {
            true => named(None, Seen::Renamed(index)),
            false => named(None, Seen::Member(index)),
        });
    }
    all
}

/// How far the set is, and who is dead.
fn phases(set: &Set) -> Vec<(InUse<'_>, u8)> {
    let active = set.in_use();
    let loaded = InUse {
        activated: false,
        ..active
    };
    let source = InUse {
        sources: 2,
        ..loaded
    };
    let formatting = InUse {
        formatting: true,
        ..loaded
    };
    let mut all = vec![
        (active, 0),
        (active, set.all()),
        (active, 1),
        (loaded, set.all()),
        (source, 0),
    ];
    if set.superblock().members().count() == 1 && set.claims == [0; 4] {
        all.push((formatting, 0));
    }
    all
}

/// P5, M2, M4, M9, M9b, M10: no plan loses anything without the user's word, and none is refused without a reason.
#[test]
fn every_table_of_a_set_in_use() {
    let mut tally = Tally::default();
    let lines = Line::each();
    Set::each(|set| {
        for (state, dead) in phases(set) {
            super::each_line(&spares(set), |spares| {
                for line in &lines {
                    let wanted = line.wanted();
                    let planned = Plan::for_set_in_use(&wanted, &state, spares, dead, names());
                    match planned {
                        Ok(plan) => {
                            check_plan(set, &state, dead, line, spares, &plan);
                            tally_plan(&mut tally, set, &plan);
                        }
                        Err(refusal) => {
                            let just = is_just(set.superblock(), line, spares, &refusal);
                            let just = just.unwrap_or_else(|| {
                                is_just_here(set, &state, dead, line, spares, &refusal)
                            });
                            assert!(just, "{refusal:?}: {line:?} {spares:?}");
                            tally.count(kind(&refusal));
                        }
                    }
                }
            });
        }
    });
    tally.expect(&[
        "joins",
        "leaves",
        "left out",
        "nothing changes",
        "taken over",
        "BlankWithUuid",
        "HasMetadata",
        "Incomplete",
        "NotResumed",
        "OnlyCopy",
        "ReadOnly",
        "SameMember",
        "StillServes",
        "TooMany",
        "WrongUuid",
    ]);
}

fn tally_plan(tally: &mut Tally, set: &Set, plan: &Plan) {
    let unnamed = plan.unnamed(set.superblock());
    let met = [
        (plan.inherited != 0, "taken over"),
        (plan.has_joining(), "joins"),
        (plan.leaving != 0, "leaves"),
        (unnamed & !plan.leaving & !plan.inherited != 0, "left out"),
        (
            *plan
                == Plan {
                    members: plan.members,
                    ..Plan::default()
                }
                && unnamed == 0,
            "nothing changes",
        ),
    ];
    for (_, what) in met.into_iter().filter(|(is_so, _)| *is_so) {
        tally.count(what);
    }
}

fn unnamed(set: &Set, spares: &[NamedSpare]) -> u8 {
    let named = spares.iter().filter_map(member_of);
    set.all() & !named.fold(0, |mask, index| mask | member_bit(index))
}

/// Those of the members that are not named without which a resume goes on from then on; a bit each. A read-only table
/// goes without those that are not there, and does not write that down.
fn recorded(set: &Set, line: &Line, unnamed: u8) -> u8 {
    let members = set.superblock().members();
    let lost_here = members.filter(|(index, member)| {
        let there = set.metadata.is_present(*index);
        unnamed & member_bit(*index) != 0 && (there || !member.missing && !line.read_only)
    });
    lost_here.fold(0, |mask, (index, _)| mask | member_bit(index))
}

fn check_plan(
    set: &Set,
    state: &InUse<'_>,
    dead: u8,
    line: &Line,
    spares: &[NamedSpare],
    plan: &Plan,
) {
    let superblock = set.superblock();
    check_numbers(superblock, spares, plan);
    check_arguments(line, spares, state.formatting);
    let unnamed = unnamed(set, spares);
    assert_eq!(plan.unnamed(superblock), unnamed);
    assert_eq!(plan.leaving & !unnamed, 0, "it is named");
    for (index, member) in superblock.members() {
        let (bit, claims) = (member_bit(index), set.claims[usize::from(index)]);
        if plan.leaving & bit != 0 {
            assert_eq!(claims, 0, "who serves blocks never leaves");
            assert!(set.metadata.is_present(index), "who leaves is told so");
        } else if unnamed & bit != 0 {
            let holds = claims != 0 || member.high_water != 0 || !member.missing;
            assert!(line.degraded || !holds, "{index} is left out by no word");
        }
    }
    let recorded = recorded(set, line, unnamed);
    if plan.inherited != 0 {
        assert!(line.degraded && spares.iter().all(is_blank) && state.activated);
        assert_eq!(plan.inherited, set.all(), "all, or none");
        assert_eq!(plan.inherited & !dead, 0, "who answers is believed");
        assert_eq!(plan.leaving, 0);
    } else if !state.formatting {
        assert!(recorded == 0 || !set.is_only_in(recorded), "{recorded:b}");
        assert_eq!(recorded & state.sources, 0, "others are made from it");
    }
    if !line.read_only && line.uuid.is_none() && !line.format {
        apply(set, plan, recorded);
    }
}

/// Whether what is special to sets in use is refused for a reason.
fn is_just_here(
    set: &Set,
    state: &InUse<'_>,
    dead: u8,
    line: &Line,
    spares: &[NamedSpare],
    refusal: &Refusal,
) -> bool {
    let unnamed = unnamed(set, spares);
    let is_unnamed = |index: u8| unnamed & member_bit(index) != 0;
    match *refusal {
        Refusal::StillServes { member, claims } => {
            let serves = claims != 0 && claims == set.claims[usize::from(member)];
            let there = set.metadata.is_present(member);
            serves && there && is_unnamed(member) && !line.degraded
        }
        Refusal::Content(LoadError::Incomplete { member, uuid }) => {
            let absent = set.superblock().member(member).expect("it is one");
            let away = !set.metadata.is_present(member) && !absent.is_dispensable();
            absent.uuid == uuid && away && is_unnamed(member) && !line.degraded
        }
        Refusal::OnlyCopy { member } => {
            let recorded = recorded(set, line, unnamed);
            let needed = set.is_only_in(recorded) || state.sources & recorded != 0;
            let all_dead = set.all() & !dead == 0 && state.activated;
            let heirs = line.degraded && spares.iter().all(is_blank) && all_dead;
            let is_one = recorded & member_bit(member) != 0;
            needed && is_one && !heirs && !state.formatting
        }
        _ => false,
    }
}

/// Does to the metadata what a resume does, and looks at what would be written.
fn apply(set: &Set, plan: &Plan, recorded: u8) {
    let mut metadata = set.metadata.clone();
    let lost = (0..4).filter(|index| recorded & !plan.leaving & member_bit(*index) != 0);
    for index in lost.filter(|_| plan.inherited == 0) {
        metadata.lose_member(index).expect("the plan says so");
        metadata.set_present(index, false);
    }
    for (change, index) in plan.joining.iter().zip(0u8..) {
        if let Some((uuid, geometry)) = change {
            let added = metadata.add_member(index, *uuid, *geometry);
            added.expect("its number is free");
            assert_eq!(metadata.superblock().find_member(uuid), Some(index));
        }
    }
    if plan.inherited != 0 {
        metadata
            .begin_take_over(plan.inherited)
            .expect("all are dead");
    }
    // As if all was written.
    for index in (0..4).filter(|index| plan.joins(*index)) {
        let joined = metadata.superblock_mut().member_mut(index);
        joined.expect("it is one").void_supers = 0;
    }
    check_superblock(metadata.superblock());
    for index in (0..4).filter(|index| plan.leaves(*index)) {
        // The replicas that it holds for others go home first.
        let guests: Vec<(u8, u8)> = metadata
            .superblock()
            .guests(index)
            .map(|(owner, replica, _)| (owner, replica))
            .collect();
        for (owner, replica) in guests {
            if metadata.rehome(owner, replica).is_err() {
                // Where its owner is away, or it is all that counts, that takes more.
                return;
            }
        }
        metadata.remove_member(index).expect("nothing is on it");
        check_superblock(metadata.superblock());
    }
    for index in plan.members.iter().flatten() {
        assert!(metadata.superblock().member(*index).is_some());
    }
}

/// M9b: new spares take over only if they have a slot for every block of the dead ones, less what they hold of each
/// other's tables.
#[test]
fn room_for_all_that_is_lost() {
    let line = Line::degraded();
    let mut set = Set::new(&[Is::Used(5), Is::Used(5)], true).expect("legal");
    for count in 1..=2u32 {
        let spares = vec![blank(None); count as usize];
        let plan = |set: &Set| {
            let state = set.in_use();
            Plan::for_set_in_use(&line.wanted(), &state, &spares, set.all(), names())
        };
        let slots = geometry(40).slots() * count;
        set.claims = [5, 5, 0, 0];
        assert!(plan(&set).is_ok());
        set.claims = [slots, 1, 0, 0];
        let Err(Refusal::NoRoom { blocks, room }) = plan(&set) else {
            panic!("{slots} slots take more");
        };
        assert_eq!(blocks, u64::from(slots) + 1);
        // A replica on another one: its reserve and its table, in slots of a block each.
        let taken = 31 + u64::from(geometry(40).table_blocks());
        let hosted = if count == 1 {
            0
        } else {
            taken * u64::from(count)
        };
        assert_eq!(room, u64::from(slots) - hosted);
        set.claims = [5, room as u32 - 5, 0, 0];
        assert!(plan(&set).is_ok());
        set.claims = [6, room as u32 - 5, 0, 0];
        assert!(matches!(plan(&set), Err(Refusal::NoRoom { .. })));
    }
}

/// M9: a spare of the line is too small for what was formatted, whoever found it.
#[test]
fn shrunk_spares() {
    let set = Set::new(&[Is::Used(5), Is::Used(5), Is::Lost(5)], true).expect("legal");
    let line = Line::degraded();
    for mut spare in spares(&set).into_iter().filter(|spare| !is_blank(spare)) {
        let index = member_of(&spare).expect("a member");
        let formatted = geometry(index).window_sectors();
        let others: Vec<NamedSpare> = spares(&set)
            .into_iter()
            .filter(|other| other.seen == Seen::Known && member_of(other) != Some(index))
            .collect();
        let mut plan = |sectors| {
            spare.sectors = sectors;
            let all = [others.clone(), vec![spare]].concat();
            Plan::for_set_in_use(&line.wanted(), &set.in_use(), &all, 0, names())
        };
        assert!(plan(formatted).is_ok());
        let found = formatted - 8;
        let shrunk = LoadError::Shrunk { formatted, found };
        assert_eq!(plan(found), Err(shrunk.into()));
    }
}

/// A spare that a table before was to join with, and that was found to be something else since.
#[test]
fn not_what_it_was_to_be() {
    let set = Set::new(&[Is::Used(5), Is::Lost(5)], true).expect("legal");
    let uuid = Uuid([0x42; 16]);
    for seen in [Seen::Known, Seen::Member(1), Seen::Renamed(0)] {
        let given = |index| named(Some(Name { index, uuid }), seen);
        let line = Line::degraded();
        for index in 0..4 {
            let refused =
                Plan::for_set_in_use(&line.wanted(), &set.in_use(), &[given(index)], 0, names());
            assert_eq!(refused, Err(Refusal::NotResumed));
        }
    }
}
