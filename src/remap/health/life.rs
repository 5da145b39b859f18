// SPDX-License-Identifier: GPL-2.0

//! Do main and spare work as such? What no error of a single block tells (P6, E2, E6).
//!
//! A breaker for each direction of main and of each spare counts bios that failed without any success in
//! between; a latch for each device remembers that a flush failed. All of
//! them are single words, changed by compare and exchange from any context: `end_io` sees users'
//! successes, the worker what it tries itself.
//!
//! On the fast path there is one load: [`Life::is_watched`] tells whether any of these words waits
//! for a success. In the same word stands whether some ranges of main are not read ([`Life::is_plain`]): that costs
//! nothing where there are none.

use kernel::{
    fmt,
    sync::atomic::{
        Acquire,
        Atomic,
        Full,
        Relaxed, //
    }, //
};

use crate::{
    abstractions::{
        sync,
        trace,
        util, //
    },
    logic::{
        breaker::{
            Breaker,
            Need,
            PROBE_INTERVAL_MS, //
        },
        cache::{
            Cache,
            Sent, //
        },
        format::{
            member_bit,
            MEMBERS_MAX, //
        },
        latch::{
            Answer,
            FlushTicket,
            Latch, //
        },
        pool::state::Shut,
        status::Breakers, //
    },
    remap::user::state::UserState, //
};

/// What may fail as a whole.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::remap) enum Direction {
    MainRead,
    MainWrite,
    /// Reading the spare of a member. Nothing depends on it but what users are told.
    SpareRead(u8),
    /// Writing the spare of a member.
    SpareWrite(u8),
}

impl Direction {
    /// The disk, and whether it is about writing there, for tracepoints.
    pub(in crate::remap) fn traced(self) -> (trace::Disk, bool) {
        match self {
            Direction::MainRead => (trace::Disk::MAIN, false),
            Direction::MainWrite => (trace::Disk::MAIN, true),
            Direction::SpareRead(member) => (trace::Disk::of(Some(member)), false),
            Direction::SpareWrite(member) => (trace::Disk::of(Some(member)), true),
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Direction::MainRead => f.write_str("reading main"),
            Direction::MainWrite => f.write_str("writing main"),
            Direction::SpareRead(member) => write!(f, "reading spare {member}"),
            Direction::SpareWrite(member) => write!(f, "writing spare {member}"),
        }
    }
}

/// A device with a cache.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::remap) enum Disk {
    Main,
    /// The spare of a member of the set.
    Spare(u8),
}

const SPARES: usize = MEMBERS_MAX as usize;

/// From how many errors in a row that are passed up a device counts as failed where users have set no number.
const PASSED_UP_MAX: u32 = 8;

/// How many slots of a spare may fail, one after the other without one there that takes data in between, and are
/// bad. If there are more, nothing is said of any of them that is not written off yet, until it takes something again.
const SLOTS_TO_BLAME: u32 = 4;

/// How many flushes of each spare have failed, before something is written there.
#[derive(Clone, Copy)]
pub(in crate::remap) struct SpareTickets([FlushTicket; SPARES]);

impl SpareTickets {
    /// That of a member's spare.
    pub(in crate::remap) fn of(&self, member: u8) -> FlushTicket {
        self.0
            .get(usize::from(member))
            .copied()
            .unwrap_or(FlushTicket(u32::MAX))
    }
}

/// Some word waits for a success.
const WATCHED: u32 = 1;

/// Some ranges of main are not read.
const AVOIDING: u32 = 2;

/// A breaker, and what the worker saw itself.
struct Circuit {
    breaker: Atomic<u64>,
    /// Another one, for errors that are passed up: of a device that is gone, users are told, and that is all.
    gone: Atomic<u64>,
    /// When the latest I/O of the worker's that succeeded began, in milliseconds; 0 if none did.
    proven_at: Atomic<u64>,
}

impl Circuit {
    const fn new() -> Self {
        Self {
            breaker: Atomic::new(0),
            gone: Atomic::new(0),
            proven_at: Atomic::new(0),
        }
    }
}

/// Writes to slots that the worker waits for.
struct SlotWrites {
    under_way: Atomic<u32>,
    /// When the first of them began, or another one ended since, in milliseconds.
    since: Atomic<u64>,
}

impl SlotWrites {
    const fn new() -> Self {
        Self {
            under_way: Atomic::new(0),
            since: Atomic::new(0),
        }
    }
}

/// See the module's documentation.
pub(in crate::remap) struct Life {
    marks: Atomic<u32>,
    /// What the pools say, as a [`Shut`]: to which members' slots nothing is written, as the set goes on without them,
    /// and which are not read either.
    pub(super) shut: Atomic<u32>,
    /// Whether there are [notes](crate::remap::repair::notes): `map` looks there only if successes matter, too.
    noted: Atomic<bool>,
    main_read: Circuit,
    main_write: Circuit,
    spare_read: [Circuit; SPARES],
    spare_write: [Circuit; SPARES],
    /// The block of main at which a user has succeeded last while that mattered, and one more; 0 if none has.
    good: Atomic<u64>,
    /// How often places to ask were drawn.
    draws: Atomic<u64>,
    /// How many slots of each spare have failed to take data, one after the other.
    failed_slots: [Atomic<u32>; SPARES],
    slot_writes: [SlotWrites; SPARES],
    /// When each spare was found not to answer, in milliseconds, and one more; 0 if it has done something since.
    silent: [Atomic<u64>; SPARES],
    main_flush: Atomic<u64>,
    spare_flush: [Atomic<u64>; SPARES],
    /// Whether a spare's cache may hold what users wrote.
    spare_cache: [Atomic<u64>; SPARES],
}

impl Life {
    /// All is well.
    pub(in crate::remap) fn new() -> Self {
        Self {
            marks: Atomic::new(0),
            shut: Atomic::new(Shut::default().to_word()),
            noted: Atomic::new(false),
            main_read: Circuit::new(),
            main_write: Circuit::new(),
            spare_read: [const { Circuit::new() }; SPARES],
            spare_write: [const { Circuit::new() }; SPARES],
            good: Atomic::new(0),
            draws: Atomic::new(0),
            failed_slots: [const { Atomic::new(0) }; SPARES],
            slot_writes: [const { SlotWrites::new() }; SPARES],
            silent: [const { Atomic::new(0) }; SPARES],
            main_flush: Atomic::new(0),
            spare_flush: [const { Atomic::new(0) }; SPARES],
            spare_cache: [const { Atomic::new(Cache::new().to_word()) }; SPARES],
        }
    }

    /// Whether successes matter.
    #[inline(always)]
    pub(in crate::remap) fn is_watched(&self) -> bool {
        sync::load_relaxed(&self.marks) & WATCHED != 0
    }

    /// Whether they do not, and all of main may be read.
    #[inline(always)]
    pub(in crate::remap) fn is_plain(&self) -> bool {
        sync::load_relaxed(&self.marks) == 0
    }

    /// Whether there are ranges of main that are not read.
    #[inline(always)]
    pub(in crate::remap) fn is_avoiding(&self) -> bool {
        sync::load_relaxed(&self.marks) & AVOIDING != 0
    }

    /// Says whether there are.
    pub(in crate::remap) fn set_avoiding(&self, any: bool) {
        self.mark(AVOIDING, any);
    }

    fn mark(&self, bit: u32, set: bool) {
        let mut old = self.marks.load(Relaxed);
        loop {
            let new = if set { old | bit } else { old & !bit };
            // Also if nothing changes, as who sees it is to see what was done before.
            match self.marks.cmpxchg(old, new, Full) {
                Ok(_) => return,
                Err(other) => old = other,
            }
        }
    }

    fn circuit(&self, direction: Direction) -> &Circuit {
        match direction {
            Direction::MainRead => &self.main_read,
            Direction::MainWrite => &self.main_write,
            Direction::SpareRead(member) => nth(&self.spare_read, member),
            Direction::SpareWrite(member) => nth(&self.spare_write, member),
        }
    }

    /// The breakers' words of all directions.
    fn circuits(&self) -> impl Iterator<Item = &Circuit> {
        let spares = self.spare_read.iter().chain(&self.spare_write);
        [&self.main_read, &self.main_write]
            .into_iter()
            .chain(spares)
    }

    fn latch(&self, disk: Disk) -> &Atomic<u64> {
        match disk {
            Disk::Main => &self.main_flush,
            Disk::Spare(member) => nth(&self.spare_flush, member),
        }
    }

    /// Changes a word by `change`, which gets the old one, and may be called again.
    fn update<R>(&self, cell: &Atomic<u64>, change: impl Fn(u64) -> (u64, R)) -> R {
        let mut old = cell.load(Relaxed);
        loop {
            let (new, result) = change(old);
            if new == old {
                return result;
            }
            match cell.cmpxchg(old, new, Full) {
                Ok(_) => {
                    self.watch();
                    return result;
                }
                Err(other) => old = other,
            }
        }
    }

    /// Brings the mark up to date. Whoever changes a word does it after that, and looks at the words
    /// again afterwards, so that of two at the same time the last one sees both.
    fn watch(&self) {
        let any = || {
            let failing = |circuit: &Circuit| {
                let words = [circuit.breaker.load(Relaxed), circuit.gone.load(Relaxed)];
                words
                    .iter()
                    .any(|word| !Breaker::from_word(*word).is_quiet())
            };
            self.noted.load(Relaxed) || self.circuits().any(failing) || self.is_flush_latched()
        };
        loop {
            let now = any();
            self.mark(WATCHED, now);
            if any() == now {
                return;
            }
        }
    }

    /// Says whether there are notes.
    pub(in crate::remap) fn watch_notes(&self, any: bool) {
        if self.noted.xchg(any, Full) != any {
            self.watch();
        }
    }

    fn change<R>(&self, direction: Direction, change: impl Fn(&mut Breaker) -> R) -> R {
        self.update(&self.circuit(direction).breaker, |word| {
            let mut breaker = Breaker::from_word(word);
            let result = change(&mut breaker);
            (breaker.to_word(), result)
        })
    }

    /// I/O has succeeded. Returns whether that closes a breaker. From any context.
    pub(in crate::remap) fn succeeded(&self, direction: Direction) -> bool {
        if let Direction::SpareWrite(member) = direction {
            nth(&self.failed_slots, member).store(0, Relaxed);
        }
        let back = self.update(&self.circuit(direction).gone, |word| {
            let mut breaker = Breaker::from_word(word);
            let back = breaker.proven();
            (breaker.to_word(), back)
        });
        self.change(direction, Breaker::proven) || back
    }

    /// An I/O of the worker's that began at `begun` has succeeded. Returns whether that closes a
    /// breaker, and tells users if it does.
    pub(in crate::remap) fn proven(
        &self,
        user: &UserState,
        direction: Direction,
        begun: u64,
    ) -> bool {
        let at = &self.circuit(direction).proven_at;
        // Of two at the same time, either will do.
        at.store(at.load(Relaxed).max(begun), Relaxed);
        let closed = self.succeeded(direction);
        if closed {
            user.tell_closed(direction);
        }
        closed
    }

    /// Whether an I/O of the worker's that began at `moment` or later has succeeded.
    pub(in crate::remap) fn is_proven_since(&self, direction: Direction, moment: u64) -> bool {
        let at = self.circuit(direction).proven_at.load(Relaxed);
        at != 0 && at >= moment
    }

    /// A bio has failed, and there was no success since. Tells what it takes to blame the medium.
    pub(in crate::remap) fn failed(&self, direction: Direction, threshold: u32) -> Need {
        self.change(direction, |breaker| breaker.failed(threshold))
    }

    /// A bio has failed for a reason that no medium has, and the error is passed up. Many in a row without a
    /// success in between are a device that failed as a whole. Returns whether that opens the breaker.
    pub(in crate::remap) fn passed_up(&self, direction: Direction, threshold: u32) -> bool {
        let threshold = match threshold {
            0 => PASSED_UP_MAX,
            set => set,
        };
        let now = util::monotonic_ms();
        self.update(&self.circuit(direction).gone, |word| {
            let mut gone = Breaker::from_word(word);
            let many = gone.failed(threshold) == Need::Probe;
            let opens = many && !gone.is_open() && gone.disproved(now);
            (gone.to_word(), opens)
        })
    }

    /// A spare did not answer when it was asked whether it lives.
    pub(in crate::remap) fn note_silent(&self, member: u8) {
        let now = util::monotonic_ms().saturating_add(1);
        nth(&self.silent, member).store(now, Relaxed);
    }

    /// A spare has answered.
    pub(in crate::remap) fn note_answer(&self, member: u8) {
        nth(&self.silent, member).store(0, Relaxed);
    }

    /// Whether a spare was asked a moment ago, and has not answered.
    pub(in crate::remap) fn is_silent(&self, member: u8) -> bool {
        let asked = nth(&self.silent, member).load(Relaxed);
        let until = asked.saturating_add(u64::from(PROBE_INTERVAL_MS));
        asked != 0 && util::monotonic_ms() < until
    }

    /// Writes to slots of a member's spare, which may take as long as it likes.
    pub(in crate::remap) fn write_slots<R>(&self, member: u8, write: impl FnOnce() -> R) -> R {
        let writes = nth(&self.slot_writes, member);
        // This is before the count: whoever sees that sees a moment that is not too early.
        if writes.under_way.load(Relaxed) == 0 {
            writes.since.store(util::monotonic_ms(), Relaxed);
        }
        writes.under_way.fetch_add(1, Full);
        let done = write();
        writes.since.store(util::monotonic_ms(), Relaxed);
        writes.under_way.fetch_sub(1, Full);
        done
    }

    /// Members whose spares have ended no write to a slot for so long though some are under way; a bit each.
    pub(in crate::remap) fn stalled(&self, for_ms: u32) -> u8 {
        let now = util::monotonic_ms();
        let stalled = |writes: &SlotWrites| {
            let under_way = writes.under_way.load(Acquire);
            let until = writes.since.load(Relaxed).saturating_add(u64::from(for_ms));
            under_way != 0 && now > until
        };
        let members = (0..MEMBERS_MAX).zip(&self.slot_writes);
        let stalled = members.filter(|(_, writes)| stalled(writes));
        stalled.fold(0, |mask, (member, _)| mask | member_bit(member))
    }

    /// A user's I/O of this block of main has succeeded.
    pub(in crate::remap) fn note_good(&self, block: u64) {
        self.good.store(block.saturating_add(1), Relaxed);
    }

    /// Where a user has succeeded last while that mattered.
    pub(in crate::remap) fn last_good(&self) -> Option<u64> {
        self.good.load(Relaxed).checked_sub(1)
    }

    /// A number that is another one each time.
    pub(in crate::remap) fn seed(&self) -> u64 {
        util::monotonic_ms().rotate_left(32) ^ self.draws.fetch_add(1, Relaxed)
    }

    /// What [`Life::failed`] asked for was not to be had. Returns whether that opens the breaker, and tells users if it
    /// does.
    pub(in crate::remap) fn disproved(&self, user: &UserState, direction: Direction) -> bool {
        let now = util::monotonic_ms();
        let opened = self.change(direction, |breaker| breaker.disproved(now));
        if opened {
            user.tell_opened(direction);
        }
        opened
    }

    /// Whether a failed bio is to be looked at, rather than passed up at once. From any context.
    pub(in crate::remap) fn admits(&self, direction: Direction) -> bool {
        let now = util::monotonic_ms();
        self.change(direction, |breaker| breaker.admits(now))
    }

    /// Whether a device fails as a whole in one direction, for whatever reason: what users are told.
    fn fails(&self, direction: Direction) -> bool {
        let gone = self.circuit(direction).gone.load(Relaxed);
        self.is_open(direction) || Breaker::from_word(gone).is_open()
    }

    /// A single slot of a member's spare was written to, and has failed. That nobody waits for a success costs
    /// nothing: the spare is not [watched](Life::is_watched) for it.
    pub(in crate::remap) fn note_failed_slot(&self, member: u8) {
        nth(&self.failed_slots, member).fetch_add(1, Relaxed);
    }

    /// Whether slots of a member's spare that fail are bad, rather than the spare.
    pub(in crate::remap) fn blames_slots(&self, member: u8) -> bool {
        let failed = nth(&self.failed_slots, member).load(Relaxed);
        !self.is_open(Direction::SpareWrite(member)) && failed <= SLOTS_TO_BLAME
    }

    /// Whether a breaker is open.
    pub(in crate::remap) fn is_open(&self, direction: Direction) -> bool {
        Breaker::from_word(self.circuit(direction).breaker.load(Relaxed)).is_open()
    }

    /// Whether a spare fails as a whole, in one direction or both.
    fn spare_fails(&self, member: u8) -> bool {
        self.fails(Direction::SpareRead(member)) || self.fails(Direction::SpareWrite(member))
    }

    /// A spare is asked no more.
    pub(in crate::remap) fn forget_breakers_of(&self, member: u8) {
        for direction in [Direction::SpareRead(member), Direction::SpareWrite(member)] {
            self.succeeded(direction);
        }
    }

    /// Which breakers are open.
    pub(in crate::remap) fn breakers(&self) -> Breakers {
        Breakers {
            main_read: self.fails(Direction::MainRead),
            main_write: self.fails(Direction::MainWrite),
            spare: (0..MEMBERS_MAX).any(|member| self.spare_fails(member)),
        }
    }

    /// Whether a user's flush has to go to a disk: to the spare only if users have written there since
    /// the last one that was good, or if one failed. A spare that is away costs nothing as long as it
    /// has nothing.
    pub(in crate::remap) fn needs_flush(&self, disk: Disk) -> bool {
        match disk {
            Disk::Main => true,
            Disk::Spare(member) => {
                let cache = nth(&self.spare_cache, member).load(Acquire);
                Cache::from_word(cache).is_dirty() || self.is_latched(disk)
            }
        }
    }

    /// Begins an epoch of a disk's cache, before a user's flush is sent there.
    pub(in crate::remap) fn begin_epoch(&self, disk: Disk) -> Sent {
        match disk {
            Disk::Main => Sent(0),
            Disk::Spare(member) => self.update(nth(&self.spare_cache, member), |word| {
                let (cache, sent) = Cache::from_word(word).sent();
                (cache.to_word(), sent)
            }),
        }
    }

    /// Tells how many flushes of a disk have failed, before one is sent there.
    pub(in crate::remap) fn flush_sent(&self, disk: Disk) -> FlushTicket {
        Latch::from_word(self.latch(disk).load(Relaxed)).mapped()
    }

    /// Tells how many flushes of each spare have failed, before something is written there.
    pub(in crate::remap) fn spares_sent(&self) -> SpareTickets {
        let mut tickets = [FlushTicket(0); SPARES];
        for (ticket, member) in tickets.iter_mut().zip(0u8..) {
            *ticket = self.flush_sent(Disk::Spare(member));
        }
        SpareTickets(tickets)
    }

    /// Whether no flush of a disk has failed since `ticket`: one that did may have dropped what was
    /// written before.
    pub(in crate::remap) fn is_unbroken(&self, disk: Disk, ticket: FlushTicket) -> bool {
        self.flush_sent(disk) == ticket
    }

    /// Whether it is known already that users have written to a spare, so that one more write that
    /// succeeded changes nothing, and nobody else's cache line has to be taken away for it.
    #[inline(always)]
    pub(in crate::remap) fn is_spare_written(&self, member: u8) -> bool {
        // The epoch must not be read before the write has come back.
        sync::full_barrier();
        let word = sync::load_relaxed(nth(&self.spare_cache, member));
        Cache::from_word(word).written().to_word() == word
    }

    /// A user's write to a spare has succeeded. To be called before it is answered.
    pub(in crate::remap) fn spare_written(&self, member: u8) {
        // The epoch must not be read before the write has come back.
        sync::full_barrier();
        self.update(nth(&self.spare_cache, member), |word| {
            (Cache::from_word(word).written().to_word(), ())
        });
    }

    /// Answers a user's flush of a spare that is lost: whether it is good. What users have written there
    /// since the last one is gone with it, or may be when it is back; they have to hear of that, once.
    pub(in crate::remap) fn flush_lost(&self, member: u8) -> bool {
        let disk = Disk::Spare(member);
        let (sent, ticket) = (self.begin_epoch(disk), self.flush_sent(disk));
        let cache = nth(&self.spare_cache, member);
        let good = !Cache::from_word(cache.load(Acquire)).is_dirty();
        let answer = self.flush_ended(disk, ticket, sent, good);
        if !good {
            self.update(cache, |word| {
                (Cache::from_word(word).flushed(sent).to_word(), ())
            });
        }
        good && answer == Answer::Pass
    }

    /// A user's flush comes back. From any context.
    pub(in crate::remap) fn flush_ended(
        &self,
        disk: Disk,
        ticket: FlushTicket,
        sent: Sent,
        good: bool,
    ) -> Answer {
        let answer = self.update(self.latch(disk), |word| {
            let (latch, answer) = Latch::from_word(word).ended(ticket, good);
            (latch.to_word(), answer)
        });
        match disk {
            Disk::Spare(member) if good && answer == Answer::Pass => {
                self.update(nth(&self.spare_cache, member), |word| {
                    (Cache::from_word(word).flushed(sent).to_word(), ())
                });
            }
            _ => (),
        }
        answer
    }

    /// A flush of our own has failed: it took an error that a user would have got.
    pub(in crate::remap) fn own_flush_failed(&self, disk: Disk) {
        self.update(self.latch(disk), |word| {
            (Latch::from_word(word).own_failed().to_word(), ())
        });
    }

    /// Gives up a spare that is in the table no more: nothing is flushed there from here on. If there is
    /// something that users have to hear of, they do by main's latch: also what is in its cache, if it
    /// `serves` blocks still. No bio is under way.
    pub(in crate::remap) fn leave_spare(&self, member: u8, serves: bool) {
        let disk = Disk::Spare(member);
        let latch = Latch::from_word(self.latch(disk).load(Relaxed));
        let cache = Cache::from_word(nth(&self.spare_cache, member).load(Acquire));
        let latch = match serves && cache.is_dirty() {
            true => latch.own_failed(),
            false => latch,
        };
        self.update(&self.main_flush, |word| {
            (Latch::from_word(word).with_that_of(latch).to_word(), ())
        });
        self.reset_spare(member);
    }

    /// Users have nothing to hear of a spare.
    pub(in crate::remap) fn reset_spare(&self, member: u8) {
        self.forget_breakers_of(member);
        self.note_answer(member);
        self.update(nth(&self.spare_cache, member), |word| {
            (Cache::from_word(word).given_up().to_word(), ())
        });
        self.update(self.latch(Disk::Spare(member)), |word| {
            (Latch::from_word(word).given_up().to_word(), ())
        });
    }

    /// Whether the last flush of some disk has failed, so that nothing can be promised to be durable.
    pub(in crate::remap) fn is_flush_latched(&self) -> bool {
        self.is_latched(Disk::Main)
            || (0..MEMBERS_MAX).any(|member| self.is_latched(Disk::Spare(member)))
    }

    fn is_latched(&self, disk: Disk) -> bool {
        Latch::from_word(self.latch(disk).load(Relaxed)).fails_fua()
    }
}

/// What there is one of for each member's spare.
fn nth<T>(all: &[T; SPARES], member: u8) -> &T {
    let [first, ..] = all;
    all.get(usize::from(member)).unwrap_or(first)
}
