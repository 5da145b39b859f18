// SPDX-License-Identifier: GPL-2.0

//! What a member's pool is used for: each row of the table in `logic/pool/state.rs`, and that what is asked follows
//! from the states, whatever happened.

use dm_remap_logic::format::member_bit;
use dm_remap_logic::format::Geometry;
use dm_remap_logic::format::Member;
use dm_remap_logic::format::SUPER_COPIES;
use dm_remap_logic::pool::state::IdleFor;
use dm_remap_logic::pool::state::PoolEvent;
use dm_remap_logic::pool::state::PoolState;
use dm_remap_logic::pool::state::Shut;
use dm_remap_logic::pool::Pools;
use dm_remap_logic::text::Uuid;
use proptest::prelude::*;

use PoolEvent::Accept;
use PoolEvent::Activate;
use PoolEvent::Empty;
use PoolEvent::Fail;
use PoolEvent::Fill;
use PoolEvent::Join;
use PoolEvent::Keep;
use PoolEvent::Leave;
use PoolEvent::Lose;
use PoolEvent::Omit;
use PoolEvent::Part;
use PoolEvent::Recover;
use PoolEvent::Refuse;
use PoolEvent::Use;
use PoolState::Away;
use PoolState::Joining;
use PoolState::Nobody;
use PoolState::Resting;
use PoolState::Stranger;
use PoolState::Used;

const IDLE: PoolState = PoolState::Idle(IdleFor::User);
const LEFT_OUT: PoolState = PoolState::Idle(IdleFor::Table);
const LOST: PoolState = PoolState::Lost(None);
const LOST_IDLE: PoolState = PoolState::Lost(Some(IdleFor::User));
const LOST_LEFT_OUT: PoolState = PoolState::Lost(Some(IdleFor::Table));

const STATES: [PoolState; 11] = [
    Nobody,
    Joining,
    Away,
    Used,
    Resting,
    IDLE,
    LEFT_OUT,
    LOST,
    LOST_IDLE,
    LOST_LEFT_OUT,
    Stranger,
];

/// A row of the table: what becomes of each of [`STATES`]. `-` stands for what is refused.
macro_rules! row {
    ($name:ident: $event:ident: $($after:tt)*) => {
        #[test]
        fn $name() {
            let after: Vec<Option<PoolState>> = vec![$(row!(@ $after)),*];
            assert_eq!(after.len(), STATES.len());
            for (state, after) in STATES.into_iter().zip(after) {
                assert_eq!(state.after($event), after, "{state:?}");
            }
        }
    };
    (@ -) => { None };
    (@ $state:ident) => { Some($state) };
}

row!(superblocks_are_to_name_it: Join: Joining Joining Joining - - - - - - - -);
row!(superblocks_name_it: Use: Used Used Used Used Resting IDLE LEFT_OUT Used IDLE LEFT_OUT Used);
row!(its_spare_is_away: Part: Away Away Away Away Away Away Away Away Away Away Away);
row!(it_is_missing: Lose: LOST LOST LOST LOST LOST LOST_IDLE LOST_LEFT_OUT LOST LOST_IDLE LOST_LEFT_OUT Stranger);
row!(superblocks_do_not_name_it: Leave: Nobody Nobody Nobody Nobody Nobody Nobody Nobody Nobody Nobody Nobody Nobody);
row!(a_new_activation: Activate: Nobody Joining Away Used Used Used Used LOST LOST LOST Stranger);
row!(something_else_is_in_its_place: Refuse: - - - - - - - Stranger Stranger Stranger Stranger);
row!(nothing_else_is_in_its_place: Accept: - - - - - - - LOST LOST_IDLE LOST_LEFT_OUT LOST);
row!(writing_fails: Fail: - - - Resting Resting - - - - - -);
row!(it_has_rested: Recover: - - - Used Used - - - - - -);
row!(a_user_empties_it: Empty: - - - IDLE IDLE IDLE LEFT_OUT LOST_IDLE LOST_IDLE LOST_LEFT_OUT -);
row!(a_table_leaves_it_out: Omit: - - - LEFT_OUT LEFT_OUT IDLE LEFT_OUT LOST_LEFT_OUT LOST_IDLE LOST_LEFT_OUT -);
row!(it_is_to_be_filled: Fill: - - - Used Resting Used Used LOST LOST LOST -);
row!(no_table_leaves_it_out: Keep: - - - Used Resting IDLE Used LOST LOST_IDLE LOST -);

/// Each event has a row above.
#[test]
fn all_events_and_states_have_a_place() {
    assert_eq!(PoolEvent::ALL.len(), 14);
    let mut reached = vec![Nobody];
    let mut next = 0;
    while let Some(state) = reached.get(next).copied() {
        for after in PoolEvent::ALL
            .iter()
            .filter_map(|event| state.after(*event))
        {
            if !reached.contains(&after) {
                reached.push(after);
            }
        }
        next += 1;
    }
    assert!(STATES.iter().all(|state| reached.contains(state)));
    assert_eq!(reached.len(), STATES.len());
}

#[test]
fn what_is_asked_of_a_state() {
    for (state, gives, usable, counts, lost, unread, idle) in [
        (Nobody, false, false, false, false, false, false),
        (Joining, false, true, true, false, false, false),
        (Away, false, false, true, false, false, false),
        (Used, true, true, true, false, false, false),
        (Resting, false, true, true, false, false, false),
        (IDLE, false, true, false, false, false, true),
        (LEFT_OUT, false, true, false, false, false, true),
        (LOST, false, false, false, true, false, false),
        (LOST_IDLE, false, false, false, true, false, true),
        (LOST_LEFT_OUT, false, false, false, true, false, true),
        (Stranger, false, false, false, true, true, false),
    ] {
        assert_eq!(state.gives_slots(), gives, "{state:?}");
        assert_eq!(state.is_usable(), usable, "{state:?}");
        assert_eq!(state.counts(), counts, "{state:?}");
        assert_eq!(state.is_lost(), lost, "{state:?}");
        assert_eq!(state.is_unread(), unread, "{state:?}");
        assert_eq!(state.is_idle(), idle, "{state:?}");
    }
}

fn member() -> Member {
    Member::new(3, Uuid([1; 16]), Geometry::new(1 << 25, 8, 8).unwrap())
}

#[test]
fn what_superblocks_say() {
    let known = member();
    assert_eq!(PoolEvent::said(None, true), Leave);
    assert_eq!(PoolEvent::said(None, false), Leave);
    assert_eq!(PoolEvent::said(Some(&known), true), Use);
    assert_eq!(PoolEvent::said(Some(&known), false), Part);
    let blank = Member {
        void_supers: (1 << SUPER_COPIES) - 1,
        ..known
    };
    assert_eq!(PoolEvent::said(Some(&blank), true), Join);
    assert_eq!(PoolEvent::said(Some(&blank), false), Part);
    for present in [false, true] {
        let missing = Member {
            missing: true,
            ..blank
        };
        assert_eq!(PoolEvent::said(Some(&missing), present), Lose);
    }
}

/// It gives slots again by itself after a while, and before that if it has to.
#[test]
fn a_rest_ends() {
    let mut pools = Pools::default();
    pools.apply(0, Use);
    pools.apply(1, Use);
    assert_eq!(pools.giving(0), 3);
    assert!(pools.rest(1, 1000, 500));
    assert_eq!((pools.giving(1499), pools.resting(1499)), (1, 2));
    assert_eq!((pools.giving(1500), pools.resting(1500)), (3, 0));
    // It goes on resting without being told once more.
    assert!(pools.rest(1, 1600, 500));
    assert!(!pools.rest(1, 2000, 500));
    assert_eq!(pools.resting(2400), 2);
    assert!(pools.end_rests(2400));
    assert_eq!(pools.giving(2400), 3);
    assert!(!pools.end_rests(2400));
    // One that is idle gives none afterwards either.
    pools.apply(1, Empty);
    assert!(!pools.rest(1, 3000, 500));
    pools.end_rests(3000);
    assert_eq!(pools.giving(9000), 1);
}

/// What there was before each member had a state: a mask for each thing that can be said of members.
#[derive(Default)]
struct Masks {
    named: u8,
    joining: u8,
    missing: u8,
    present: u8,
    strangers: u8,
    idle: u8,
    left_out: u8,
    resting: u8,
}

impl Masks {
    fn said(&self, member: u8) -> PoolEvent {
        let is = |mask: u8| mask & member_bit(member) != 0;
        match (is(self.named), is(self.missing), is(self.present)) {
            (false, ..) => Leave,
            (_, true, _) => Lose,
            (_, _, false) => Part,
            _ if is(self.joining) => Join,
            _ => Use,
        }
    }

    fn usable(&self) -> u8 {
        self.named & self.present & !self.missing
    }

    fn lost(&self) -> u8 {
        self.named & self.missing
    }

    /// Lets something happen to a member. What the kernel's code does not do is not done.
    fn happen(&mut self, member: u8, what: u8, pools: &mut Pools) {
        let bit = member_bit(member);
        let (usable, lost) = (self.usable() & bit != 0, self.lost() & bit != 0);
        match what {
            0 if self.named & bit == 0 => {
                self.named |= bit;
                self.joining |= bit;
                self.present |= bit;
            }
            1 => self.joining &= !bit,
            2 if self.joining & bit == 0 && self.named & bit != 0 => self.missing |= bit,
            // One that is a stranger is looked at again before it is used.
            3 if lost && self.present & !self.strangers & bit != 0 => self.missing &= !bit,
            4 if lost => {
                self.strangers |= bit;
                self.present &= !bit;
                pools.apply(member, Refuse);
            }
            5 => {
                self.strangers &= !bit;
                pools.apply(member, Accept);
            }
            6 if lost && self.strangers & bit == 0 => self.present ^= bit,
            7 => {
                for mask in [
                    &mut self.named,
                    &mut self.joining,
                    &mut self.missing,
                    &mut self.present,
                    &mut self.strangers,
                    &mut self.idle,
                    &mut self.left_out,
                    &mut self.resting,
                ] {
                    *mask &= !bit;
                }
            }
            8 => {
                (self.idle, self.left_out, self.resting) = (0, 0, 0);
                pools.apply_to_all(Activate);
            }
            9 if usable => {
                self.resting |= bit;
                pools.apply(member, Fail);
            }
            10 => {
                self.resting = 0;
                pools.apply_to_all(Recover);
            }
            11 if usable && self.joining & bit == 0 || lost && self.strangers & bit == 0 => {
                if self.left_out & bit == 0 {
                    self.idle |= bit;
                }
                pools.apply(member, Empty);
            }
            12 if usable && self.joining & bit == 0 || lost && self.strangers & bit == 0 => {
                if self.idle & bit == 0 {
                    self.left_out |= bit;
                }
                pools.apply(member, Omit);
            }
            13 => {
                self.idle &= !bit;
                self.left_out &= !bit;
                pools.apply(member, Fill);
            }
            14 => {
                self.left_out = 0;
                pools.apply_to_all(Keep);
            }
            _ => return,
        }
        // As one that is idle or lost is not said to rest.
        self.resting &= self.usable() & !self.joining & !(self.idle | self.left_out);
        for member in 0..4 {
            pools.apply(member, self.said(member));
        }
        // Whose place has something else in it is not waited for.
        let strangers = self.strangers & self.lost();
        self.idle &= !strangers;
        self.left_out &= !strangers;
    }
}

proptest! {
    #![proptest_config(super::random::config())]

    /// What readers and the writer ask is what it was when each thing had a mask of its own.
    #[test]
    fn masks_follow_from_states(
        steps in prop::collection::vec((0u8..4, 0u8..16), 0..80),
        stalled in any::<u8>(),
    ) {
        let (mut masks, mut pools) = (Masks::default(), Pools::default());
        pools.set_stalled(stalled);
        for (member, what) in steps {
            masks.happen(member, what, &mut pools);
            let (usable, lost) = (masks.usable(), masks.lost());
            let idle = masks.idle | masks.left_out;
            let strangers = masks.strangers & lost;
            let never = u64::MAX;
            let resting = pools.members(|state| state == Resting);
            prop_assert_eq!(resting, masks.resting);
            prop_assert_eq!(pools.members(PoolState::is_usable), usable);
            prop_assert_eq!(pools.members(PoolState::is_idle), idle);
            prop_assert_eq!(
                pools.members(PoolState::counts),
                masks.named & !masks.missing & !idle
            );
            let giving = usable & !(idle | masks.joining | stalled);
            prop_assert_eq!(pools.giving(never), giving);
            prop_assert_eq!(
                pools.members(PoolState::gives_slots) & !stalled,
                giving & !masks.resting
            );
            let shut = pools.shut();
            prop_assert_eq!(shut.lost(), lost);
            prop_assert_eq!(Shut::from_word(shut.to_word()), shut);
            for member in 0..8 {
                let bit = member_bit(member);
                prop_assert_eq!(shut.has(member, true), lost & bit != 0);
                prop_assert_eq!(shut.has(member, false), strangers & bit != 0);
            }
        }
    }
}
