// SPDX-License-Identifier: GPL-2.0

//! Who is taken for a member of a set in use.

use dm_remap_logic::format::member_bit;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::load::Chosen;
use dm_remap_logic::load::LoadError;
use dm_remap_logic::set::InUse;
use dm_remap_logic::set::Refusal;
use dm_remap_logic::set::Seen;
use dm_remap_logic::set::Shown;
use dm_remap_logic::text::Uuid;

use super::kind;
use super::Set;
use super::Tally;
use super::OTHER_SET;
use super::SECTORS;

/// What is on a spare, besides its being one of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// What the set has written last.
    Same,
    /// What it had written before that.
    Older,
    /// It was used elsewhere since, with all the others.
    Used,
    /// It was used elsewhere, and all the others were left out.
    Alone,
    /// It is another set's.
    OtherSet,
}

const CONTENTS: [Content; 5] = [
    Content::Same,
    Content::Older,
    Content::Used,
    Content::Alone,
    Content::OtherSet,
];

/// What a spare of member `index` says then. One that is lost says what it said when it was.
fn content(set: &Set, index: u8, what: Content) -> Superblock {
    let mut said = set.superblock().clone();
    if said.member(index).expect("a member").missing {
        let member = said.member_mut(index).expect("a member");
        (member.missing, member.void_supers) = (false, 0);
        said.set_epoch -= 1;
        said.sequence -= 10;
    }
    match what {
        Content::Same => (),
        Content::Older => said.sequence -= 1,
        Content::Used => (said.epoch, said.sequence) = (said.epoch + 1, said.sequence + 20),
        Content::Alone => {
            said.set_epoch += 9;
            for other in (0..4).filter(|other| *other != index) {
                if let Some(member) = said.member_mut(other) {
                    (member.missing, member.void_supers) = (true, 15);
                }
            }
        }
        Content::OtherSet => said.set_uuid = OTHER_SET,
    }
    said
}

fn chosen(index: u8) -> Chosen {
    let mut spares = [None; 4];
    spares[usize::from(index)] = Some(0);
    Chosen {
        rewrite: 0,
        spares,
        blank: 0,
        joining: 0,
        begun: 0,
    }
}

/// M9, D1: a member is what the set has left where it was, and that only: no copy of one in use, nothing that was used
/// elsewhere meanwhile, nothing of another set.
#[test]
fn who_is_taken_for_a_member() {
    let mut tally = Tally::default();
    Set::each(|set| {
        for (index, member) in set.superblock().members() {
            for what in CONTENTS {
                let said = content(set, index, what);
                let shown = Shown::new(&chosen(index), &said, SECTORS + 800);
                assert_eq!(shown.own(), Some(member.uuid));
                for (gone, inherited) in [(false, 0), (true, 0), (true, member_bit(index))] {
                    let state = InUse {
                        inherited,
                        ..set.in_use()
                    };
                    let seen = state.identify(&shown, gone, 3);
                    check(set, index, what, gone, inherited != 0, &seen);
                    tally.count(match &seen {
                        Ok(Seen::Member(_)) => "back".into(),
                        Ok(Seen::Renamed(_)) => "renamed".into(),
                        Ok(other) => panic!("{other:?}"),
                        Err(refusal) => kind(refusal),
                    });
                    if !set.metadata.is_present(index) && inherited == 0 {
                        // The same where a table before has it.
                        let known = state.check_back(Some(&shown), index, 3);
                        assert_eq!(known.is_ok(), seen.is_ok(), "{what:?} {seen:?}");
                    }
                }
            }
        }
    });
    tally.expect(&["back", "renamed", "Another", "Apart", "Stranger", "Twice"]);
}

fn check(
    set: &Set,
    index: u8,
    what: Content,
    gone: bool,
    inherited: bool,
    seen: &Result<Seen, Refusal>,
) {
    if inherited || what == Content::OtherSet {
        assert_eq!(*seen, Err(Refusal::Stranger), "{what:?}");
    } else if set.metadata.is_usable(index) {
        let expected = match (gone, what) {
            (true, Content::Same) => Ok(Seen::Renamed(index)),
            (true, _) => Err("Another".to_string()),
            (false, _) => Err("Twice".to_string()),
        };
        assert_eq!(seen.map_err(|refusal| kind(&refusal)), expected, "{what:?}");
    } else if set.metadata.is_present(index) {
        assert!(seen.is_err(), "it is back already");
    } else {
        assert!(!matches!(seen, Ok(found) if *found != Seen::Member(index)));
        let alone = (0..4).all(|other| !set.metadata.is_usable(other));
        match what {
            Content::Alone => assert!(seen.is_err(), "each has what the other does not know"),
            // Where nobody has gone on, there is nothing that would tell an old one.
            Content::Used | Content::Older if alone => assert!(seen.is_err(), "{what:?}"),
            Content::Same if !alone => assert_eq!(*seen, Ok(Seen::Member(index))),
            _ => (),
        }
    }
}

/// What answers where a member was is another member, another set's, or nothing of ours; and one that is too small.
#[test]
fn something_else_in_its_place() {
    Set::each(|set| {
        for (index, member) in set.superblock().members() {
            let another = Err(LoadError::Another {
                member: index,
                uuid: member.uuid,
            });
            let state = set.in_use();
            assert_eq!(state.check_back(None, index, 3), another);
            for (other, _) in set.superblock().members().filter(|(i, _)| *i != index) {
                let said = content(set, other, Content::Same);
                let shown = Shown::new(&chosen(other), &said, SECTORS + 800);
                assert_eq!(state.check_back(Some(&shown), index, 3), another);
            }
            let said = content(set, index, Content::Same);
            let shown = Shown::new(&chosen(index), &said, SECTORS - 8);
            assert!(state.check_back(Some(&shown), index, 3).is_err());
        }
    });
}

/// One that has left: the set does not know its name any more.
#[test]
fn one_that_has_left() {
    Set::each(|set| {
        let mut said = set.superblock().clone();
        let (index, _) = set.superblock().members().next().expect("one");
        said.member_mut(index).expect("it is").uuid = Uuid([0x55; 16]);
        let shown = Shown::new(&chosen(index), &said, SECTORS + 800);
        for gone in [false, true] {
            let seen = set.in_use().identify(&shown, gone, 3);
            assert_eq!(seen, Err(Refusal::Stranger));
        }
    });
}
