// SPDX-License-Identifier: GPL-2.0

//! What one word says about one slot, on the spare and in memory.
//!
//! ```text
//!  63    62    61       60        59    58..56   55        54    53    52       51..48  47..0
//!  doubt held  failing  replaced  weak  zero     given up  lost  raw   manual   state   main block
//!  `--- memory only -------------------------'   `------------------ on the spare --------------'
//! ```

/// What a slot is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SlotState {
    /// Nothing; it can take new data.
    Free = 0,
    /// It holds the truth of its main block.
    Valid = 1,
    /// Its main block could not be read. The slot is set aside for that block's next write; until
    /// then main itself answers reads, and in need the slot can be taken away for another block.
    Pending = 2,
    /// The slot itself failed. It is not used again.
    Bad = 3,
    /// The truth of its main block was on a spare that was given up (M9b). The slot is set aside for that
    /// block's next write; until then reads are errors. On the spare it is a valid one with a mark, which a
    /// feature of the superblock announces.
    Lost = 4,
}

/// Who asked for a remap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The repair path, after an error.
    Auto,
    /// The user.
    Manual,
}

/// The first word of a slot's entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotWord(u64);

impl SlotWord {
    /// A slot that is free.
    pub const FREE: SlotWord = SlotWord(0);

    /// A slot that is free, and held back from being given to new data.
    pub const FREE_HELD: SlotWord = SlotWord::FREE.with_held(true);

    /// A slot that must not be used again.
    pub const BAD: SlotWord = SlotWord((SlotState::Bad as u64) << Self::STATE_SHIFT);

    /// One past the largest main block that can be named.
    pub const MAIN_BLOCKS_MAX: u64 = 1 << 48;

    const MAIN_MASK: u64 = Self::MAIN_BLOCKS_MAX - 1;
    const STATE_SHIFT: u32 = 48;
    const STATE_MASK: u64 = 0xf << Self::STATE_SHIFT;
    const MANUAL: u64 = 1 << 52;
    const RAW: u64 = 1 << 53;
    const LOST: u64 = 1 << 54;
    const GIVEN_UP: u64 = 1 << 55;
    const WEAK: u64 = 1 << 59;
    const REPLACED: u64 = 1 << 60;
    const FAILING: u64 = 1 << 61;
    const HELD: u64 = 1 << 62;
    const DOUBT: u64 = 1 << 63;
    const MEMORY_ONLY: u64 = Self::WEAK | Self::REPLACED | Self::FAILING | Self::HELD | Self::DOUBT;
    const KNOWN: u64 = Self::MAIN_MASK
        | Self::STATE_MASK
        | Self::MANUAL
        | Self::RAW
        | Self::LOST
        | Self::GIVEN_UP
        | Self::MEMORY_ONLY;

    /// States above [`SlotState::Bad`]: those with a bit that none of the four has.
    const UNKNOWN_STATES: u64 = !3 << Self::STATE_SHIFT & Self::STATE_MASK;
    /// What a word on the spare has no bit of.
    const ILLEGAL: u64 = !Self::KNOWN | Self::MEMORY_ONLY | Self::UNKNOWN_STATES;

    /// A slot that serves `main_block`, or is set aside for it. None if the number is too large.
    pub const fn new(main_block: u64, state: SlotState, origin: Origin) -> Option<Self> {
        if main_block >= Self::MAIN_BLOCKS_MAX {
            return None;
        }
        let manual = match origin {
            Origin::Auto => 0,
            Origin::Manual => Self::MANUAL,
        };
        Some(SlotWord(main_block | Self::state_bits(state) | manual))
    }

    /// The same for the block of main that comes `blocks` behind its own, which the caller knows to be one.
    pub const fn behind(self, blocks: u32) -> Self {
        SlotWord(self.0.saturating_add(blocks as u64))
    }

    const fn state_bits(state: SlotState) -> u64 {
        match state {
            SlotState::Lost => Self::LOST | (SlotState::Valid as u64) << Self::STATE_SHIFT,
            state => (state as u64) << Self::STATE_SHIFT,
        }
    }

    /// What a memory cell holds.
    #[inline(always)]
    pub const fn from_memory(word: u64) -> Self {
        SlotWord(word)
    }

    /// What goes into a memory cell.
    #[inline(always)]
    pub const fn to_memory(self) -> u64 {
        self.0
    }

    /// What the spare holds; None if it has a bit that this version does not know, which is refused (docs/format.md).
    /// What two words together have none of is legal in both.
    pub const fn from_disk(word: u64) -> Option<Self> {
        if word & Self::ILLEGAL != 0 {
            return None;
        }
        Some(SlotWord(word))
    }

    /// What goes to the spare: all but what is meant for memory only.
    pub const fn to_disk(self) -> u64 {
        self.0 & !Self::MEMORY_ONLY
    }

    /// The main block that the slot serves or is set aside for. Meaningless if it does neither.
    #[inline(always)]
    pub const fn main_block(self) -> u64 {
        self.0 & Self::MAIN_MASK
    }

    /// What the slot is used for.
    #[inline(always)]
    pub const fn state(self) -> SlotState {
        match (self.0 & Self::STATE_MASK) >> Self::STATE_SHIFT {
            0 => SlotState::Free,
            1 if self.0 & Self::LOST != 0 => SlotState::Lost,
            1 => SlotState::Valid,
            2 => SlotState::Pending,
            _ => SlotState::Bad,
        }
    }

    /// Who asked for it.
    pub const fn origin(self) -> Origin {
        if self.0 & Self::MANUAL != 0 {
            Origin::Manual
        } else {
            Origin::Auto
        }
    }

    /// Whether the slot serves `main_block`, or is set aside for it, and was not replaced there.
    #[inline(always)]
    pub const fn claims(self, main_block: u64) -> bool {
        const VALID: u64 = SlotState::Valid as u64;
        const PENDING: u64 = SlotState::Pending as u64;
        const MASK: u64 = (SlotWord::STATE_MASK | SlotWord::REPLACED) >> SlotWord::STATE_SHIFT;
        let state = (self.0 >> Self::STATE_SHIFT) & MASK;
        self.main_block() == main_block && matches!(state, VALID | PENDING)
    }

    /// Whether the slot serves, or is set aside for, any main block; or did so, and the spare may still
    /// say that it does.
    #[inline(always)]
    pub const fn is_claim(self) -> bool {
        matches!(
            self.state(),
            SlotState::Valid | SlotState::Pending | SlotState::Lost
        )
    }

    /// Whether the slot serves its main block and there is nothing else to be said of it: neither in doubt
    /// nor failing.
    #[inline(always)]
    pub const fn is_plain(self) -> bool {
        self.0 & (Self::STATE_MASK | Self::DOUBT | Self::FAILING | Self::LOST)
            == (SlotState::Valid as u64) << Self::STATE_SHIFT
    }

    /// Whether the slot can be given to new data right now.
    pub const fn is_available(self) -> bool {
        matches!(self.state(), SlotState::Free) && self.0 & Self::MEMORY_ONLY == 0
    }

    /// Whether a commit that carries this slot's entry was begun and did not end well: its main
    /// block must not be served until one does (M6).
    #[inline(always)]
    pub const fn is_doubt(self) -> bool {
        self.0 & Self::DOUBT != 0
    }

    /// The same, in doubt or not.
    pub const fn with_doubt(self, doubt: bool) -> Self {
        SlotWord(if doubt {
            self.0 | Self::DOUBT
        } else {
            self.0 & !Self::DOUBT
        })
    }

    /// Whether somebody holds the slot back from being given to new data: because it is about to
    /// be filled, or because a bio that looked it up may still be on its way (M7).
    pub const fn is_held(self) -> bool {
        self.0 & Self::HELD != 0
    }

    /// The same, held back or not.
    pub const fn with_held(self, held: bool) -> Self {
        SlotWord(if held {
            self.0 | Self::HELD
        } else {
            self.0 & !Self::HELD
        })
    }

    /// Whether the slot could not be read lately: its block's next write goes to another one (P4).
    #[inline(always)]
    pub const fn is_failing(self) -> bool {
        self.0 & Self::FAILING != 0
    }

    /// The same, marked so.
    pub const fn with_failing(self) -> Self {
        SlotWord(self.0 | Self::FAILING)
    }

    /// The same, as one that has taken data again.
    pub const fn without_failing(self) -> Self {
        SlotWord(self.0 & !Self::FAILING)
    }

    /// Whether the slot got its main block because main could read that only after several tries, since the device was
    /// made.
    pub const fn is_weak(self) -> bool {
        self.0 & Self::WEAK != 0
    }

    /// The same, marked so.
    pub const fn with_weak(self) -> Self {
        SlotWord(self.0 | Self::WEAK)
    }

    /// The same, marked as not serving its main block any more: another slot does, and this one is to be
    /// retired.
    pub const fn with_replaced(self) -> Self {
        SlotWord(self.0 | Self::REPLACED)
    }

    /// Whether the slot is only set aside for its block's next write: it holds nothing so far.
    pub const fn is_set_aside(self) -> bool {
        matches!(self.state(), SlotState::Pending | SlotState::Lost)
    }

    /// Whether the slot's content was there before and was not copied from main (`add_remap`).
    pub const fn is_raw(self) -> bool {
        self.0 & Self::RAW != 0
    }

    /// The same, marked as holding what was there before.
    pub const fn with_raw(self) -> Self {
        SlotWord(self.0 | Self::RAW)
    }

    /// Whether the user gave up what its main block held: main could not read it, and the slot began with zeroes (`zero`).
    /// What is written later does not change that, nor does being [failing](SlotWord::is_failing).
    pub const fn is_given_up(self) -> bool {
        self.0 & Self::GIVEN_UP != 0 && matches!(self.state(), SlotState::Valid)
    }

    /// The same, marked so.
    pub const fn with_given_up(self) -> Self {
        SlotWord(self.0 | Self::GIVEN_UP)
    }

    /// The same main block and origin in another state, with no memory-only marks.
    pub const fn with_state(self, state: SlotState) -> Self {
        SlotWord(
            (self.0 & !(Self::STATE_MASK | Self::LOST | Self::GIVEN_UP | Self::MEMORY_ONLY))
                | Self::state_bits(state),
        )
    }
}

/// One entry of the slot table: what a slot is used for, and since which commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// What the slot is used for.
    pub word: SlotWord,
    /// The commit that made it so; of two claims on one main block, the larger wins (M5).
    pub generation: u64,
}

impl Entry {
    /// A slot that was never used.
    pub const UNUSED: Entry = Entry {
        word: SlotWord::FREE,
        generation: 0,
    };
}

#[cfg(test)]
mod tests {
    use super::{
        Origin,
        SlotState,
        SlotWord, //
    };

    #[test]
    fn fields_do_not_touch_each_other() {
        let top = SlotWord::MAIN_BLOCKS_MAX - 1;
        for state in [
            SlotState::Free,
            SlotState::Valid,
            SlotState::Pending,
            SlotState::Bad,
            SlotState::Lost,
        ] {
            for origin in [Origin::Auto, Origin::Manual] {
                let word = SlotWord::new(top, state, origin)
                    .unwrap()
                    .with_doubt(true)
                    .with_held(true)
                    .with_failing();
                assert_eq!(word.claims(top), word.is_claim());
                let word = word.with_replaced();
                assert!(!word.claims(top));
                assert_eq!(word.main_block(), top);
                assert_eq!(word.state(), state);
                assert_eq!(word.origin(), origin);
                assert!(word.is_doubt() && word.is_held() && word.is_failing() && !word.is_raw());
                let disk = SlotWord::from_disk(word.to_disk()).unwrap();
                assert!(!disk.is_doubt() && !disk.is_held() && !disk.is_failing());
                assert_eq!(disk, word.with_state(state));
                assert_eq!(disk.claims(top), word.is_claim());
            }
        }
        assert_eq!(SlotWord::new(top + 1, SlotState::Valid, Origin::Auto), None);
    }

    /// Memory only, and no difference to who serves the block.
    #[test]
    fn weak_is_a_mark_for_users() {
        let word = SlotWord::new(5, SlotState::Valid, Origin::Auto).unwrap();
        let weak = word.with_weak();
        assert!(weak.is_weak() && !word.is_weak());
        assert!(weak.is_plain() && weak.claims(5));
        assert_eq!(weak.to_disk(), word.to_disk());
        assert!(!weak.with_state(SlotState::Valid).is_weak());
    }

    #[test]
    fn unknown_bits_are_refused() {
        for bit in (56..64).chain(50..52) {
            assert_eq!(SlotWord::from_disk(1 << bit), None, "bit {bit}");
        }
    }

    #[test]
    fn given_up_goes_with_what_is_valid() {
        let word = SlotWord::new(5, SlotState::Valid, Origin::Manual).unwrap();
        assert!(!word.is_given_up());
        let word = word.with_given_up();
        assert!(word.is_given_up() && word.is_plain() && word.claims(5) && !word.is_raw());
        assert_eq!(word.to_disk() >> 48, 1 | 1 << 4 | 1 << 7);
        assert_eq!(SlotWord::from_disk(word.to_disk()), Some(word));
        assert!(!word.with_state(SlotState::Pending).is_given_up());
        assert!(!word.with_state(SlotState::Valid).is_given_up());
        let lost = SlotWord::new(5, SlotState::Lost, Origin::Manual).unwrap();
        assert!(!lost.with_given_up().is_given_up());
    }

    #[test]
    fn held_and_doubtful_slots_are_not_available() {
        assert!(SlotWord::FREE.is_available());
        assert!(!SlotWord::FREE.with_held(true).is_available());
        assert!(!SlotWord::FREE.with_doubt(true).is_available());
        assert!(!SlotWord::BAD.is_available());
    }
}
