// SPDX-License-Identifier: GPL-2.0

//! From a table line to a target.
//!
//! Everything that can be refused is refused here, where the old table is still whole, and nothing
//! is written (D2): devices, sizes and blocks first, then what is on the spare. What goes wrong has
//! a text of its own, in the kernel log, and an errno of its kind.

use kernel::{
    new_condvar,
    new_mutex,
    new_work,
    prelude::*,
    str::CString,
    sync::{
        atomic::Atomic,
        Arc, //
    }, //
};

use crate::{
    abstractions::{
        block,
        dm::{
            self,
            CtrError,
            CtrMessage, //
        },
        sync,
        util,
        work, //
    },
    logic::{
        args::{
            self,
            Form,
            Options, //
        },
        commit::Metadata,
        desk::Desk,
        errno::Errno,
        format::{
            geometry::{
                ALIGN_SECTORS_MAX,
                WINDOW_SECTORS_MIN, //
            },
            member_bit,
            FormatError,
            Geometry,
            Member,
            Superblock,
            BLOCK_BYTES,
            BLOCK_SECTORS,
            MEMBERS_MAX, //
        },
        load::{
            self,
            Expected,
            LoadError, //
        },
        presence,
        text::Uuid, //
    },
    remap::{
        health::life::Life,
        jobs::{
            mover::{
                self,
                DATA_BYTES, //
            },
            restorer::Restorer, //
        },
        meta::{
            io::is_dead,
            writer::{
                growth,
                Writer, //
            }, //
        },
        path::{
            cells::cells64,
            gate::Gate,
            map::Map, //
        },
        repair::{
            crew::{
                self,
                Noter,
                Teller, //
            },
            notes::Notes, //
        },
        session::{
            activate::{
                not_without,
                Start, //
            },
            state::{
                Counters,
                Leaving,
                Leftover,
                Locked,
                State, //
            }, //
        },
        user::{
            limits::Limits,
            names::{
                LogName,
                Show, //
            }, //
        },
        DmRemap, //
    }, //
};

use super::{
    changes::Changes,
    load::{
        check_main as check_main_content,
        find_superblock,
        returning,
        tables,
        Loaded,
        Refused,
        Return,
        Sight,
        Window, //
    },
    registry::{
        self,
        ClaimError,
        Claims,
        Known,
        Name,
        Part,
        StateRef,
        User, //
    },
    spares::{
        Spare,
        Spares, //
    }, //
};

/// Bios of our own that are set aside.
const POOL_BIOS: u16 = 16;

const HAS_METADATA: &CStr =
    c"Spare has valid dm-remap metadata, which the format argument does not overwrite";

const LARGER: &CStr =
    c"Spare is larger than main and not blank: are the two mixed up? If not, zero it";

const MAIN_IN_USE: &CStr = c"Main, or a part of it, is used by another device";

const SPARE_IN_USE: &CStr = c"Spare, or a part of it, is used by another device";

const ZONED: &CStr = c"Zoned devices are not supported";

const READ_ONLY: &CStr = c"A blank spare cannot be formatted read-only";

const NO_ROOM: &CStr =
    c"Spare is too small for what the dead ones had: a slot is needed for each of their blocks";

const STILL_SERVES: &CStr =
    c"A spare that is left out still serves blocks: evacuate it, or use degraded";

const TOO_MANY: &CStr = c"A set has four spares at most";

const NOT_BLANK: &CStr =
    c"Spare is not blank: zero it, or use the format argument to overwrite what is there";

type CtrResult<T> = core::result::Result<T, CtrError>;

// The kernel's stack is small, and reading metadata needs some of it, as does who frees memory for us: what is large
// stands in boxes, and what is done is done one after the other (see scripts/stack).

/// Makes the target.
pub(in crate::remap) fn construct(
    ctor: &mut dm::Constructor<'_>,
    words: dm::Args<'_>,
) -> CtrResult<Pin<KBox<DmRemap>>> {
    let texts = words.to_strs().message(c"Arguments are not in UTF-8")?;
    let opened = open(ctor, words, &texts)?;
    let target = opened.line(ctor)?;
    // Nobody else may change what is read from here on.
    let claims = target.claim()?;
    target.check_main(&claims)?;
    let mut found = match target.find_state(&claims)? {
        Some(known) => target.join_state(claims, known)?,
        None => target.load(claims)?,
    };
    // Here memory can still be waited for. Without it, less can be remapped.
    let _ = growth::grow(&found.state, None);
    found
        .changes
        .check_forgotten(&found.state)
        .message(c"There is no memory to forget a spare that has left")?;
    let Prepared { state, changes, .. } = &mut *found;
    target.name_set(state, &texts, ctor.begin(), changes)?;
    let (target, leaving) = assemble(ctor, opened, found)?;
    // The last thing, as the table in use is not to notice if this one is refused.
    let state = &target.state;
    let unused = state.writer.lock().leave(state, leaving);
    drop(unused.message(STILL_SERVES)?);
    Ok(target)
}

/// What a table line names, opened and checked as far as that is possible without reading from it.
struct Opened {
    main: dm::Device,
    /// In the order of the line.
    spares: KVec<dm::Device>,
    /// Where on the spares: first sector, and number of sectors.
    windows: KVec<(u64, u64)>,
    options: KBox<Options>,
    block_shift: u32,
}

impl Opened {
    fn line<'a>(&'a self, ctor: &dm::Constructor<'_>) -> Result<Line<'a>> {
        Ok(Line {
            main: &self.main,
            len: ctor.len(),
            spares: &self.spares,
            options: &self.options,
            block_shift: self.block_shift,
            windows: &self.windows,
            read_only: ctor.is_read_only(),
            user: User {
                mapped_device: ctor.device_id(),
                table: ctor.table_id(),
            },
            name: LogName::new(ctor.device_name())?,
        })
    }
}

/// Opens what a table line names.
#[inline(never)]
fn open(
    ctor: &mut dm::Constructor<'_>,
    words: dm::Args<'_>,
    texts: &[&str],
) -> CtrResult<KBox<Opened>> {
    let options = parse(ctor, texts)?;
    let (Some(main), Some(spare)) = (words.get(0), words.get(1)) else {
        return Err(refuse(Errno::Invalid, c"Two devices are needed"));
    };
    let main = ctor.device(main).message(c"Main device cannot be opened")?;
    let mut spares = KVec::new();
    let more = options.more_spares().map(|at| words.get(at));
    for word in Iterator::chain(core::iter::once(Some(spare)), more) {
        let word = word.ok_or(EINVAL)?;
        let spare = ctor
            .device(word)
            .message(c"Spare device cannot be opened")?;
        spares.push(spare, GFP_KERNEL)?;
    }

    let len = ctor.len();
    let block_shift = check_main(&main, len)?;
    let mut windows = KVec::new();
    for spare in &spares {
        check_spare(&main, spare)?;
        // These speak of the first one.
        let options = windows.is_empty().then_some(&*options);
        windows.push(find_window(&main, spare, options, len)?, GFP_KERNEL)?;
    }
    check_apart(&spares, &windows)?;
    if !ctor.is_read_only() {
        check_write_access(&main, &spares)?;
    }
    let opened = Opened {
        main,
        spares,
        windows,
        options,
        block_shift,
    };
    Ok(KBox::new(opened, GFP_KERNEL)?)
}

#[inline(never)]
fn parse(ctor: &dm::Constructor<'_>, texts: &[&str]) -> CtrResult<KBox<Options>> {
    let form = if ctor.target_name().to_bytes() == b"remap" {
        Form::Remap
    } else {
        Form::DmRemap
    };
    let line = args::parse(form, texts).map_err(|error| refuse(error.errno(), error.message()))?;
    Ok(KBox::new(line.options, GFP_KERNEL)?)
}

/// Puts the target together, and tells device mapper what it wants to get.
#[inline(never)]
fn assemble(
    ctor: &mut dm::Constructor<'_>,
    opened: KBox<Opened>,
    found: KBox<Prepared>,
) -> CtrResult<(Pin<KBox<DmRemap>>, KBox<Leaving>)> {
    let Opened { main, options, .. } = KBox::into_inner(opened);
    let Prepared {
        state,
        spares,
        changes,
        leaving,
    } = KBox::into_inner(found);
    ctor.set_num_bios(dm::BioKind::Flush, spares.count().saturating_add(1));
    // These are there if both devices have them.
    ctor.set_num_bios(dm::BioKind::WriteZeroes, 1);
    if main.max_discard_sectors() != 0 {
        ctor.set_num_bios(dm::BioKind::Discard, 1);
        ctor.set_discards_supported(true);
    }
    let teller = Teller::new(ctor.events())?;
    // Each at a time: the restorer and the noter may take long.
    let events = Arc::new(work::WorkQueue::new(c"dm-remap-events", 3)?, GFP_KERNEL)?;
    let restorer = Restorer::new((*state).clone(), spares.clone(), teller.clone())?;
    let noter = Noter::new(&state, &spares, &events, &teller, &restorer)?;
    let target = KBox::pin(
        DmRemap {
            main_sectors: main.sectors(),
            main,
            spares,
            changes,
            options,
            len: ctor.len(),
            resumed: Atomic::new(false),
            queue: work::WorkQueue::new(c"dm-remap", 0)?,
            growth: work::WorkQueue::new(c"dm-remap-growth", 1)?,
            crew: crew::hire(&state, &events, &restorer)?,
            events,
            teller,
            noter,
            restorer,
            state,
        },
        GFP_KERNEL,
    )?;
    Ok((target, leaving))
}

fn refuse(errno: Errno, message: &'static CStr) -> CtrError {
    CtrError::new(Error::from_errno(-errno.number()), message)
}

/// Checks what main is. Returns how many sectors a block has, as a power of two.
fn check_main(main: &dm::Device, len: u64) -> CtrResult<u32> {
    if main.is_zoned() {
        return Err(refuse(Errno::NotSupported, ZONED));
    }
    let block = main.logical_block_size();
    if u64::from(block) > BLOCK_BYTES as u64 {
        return Err(refuse(
            Errno::NotSupported,
            c"Logical blocks of main are larger than 4096 bytes",
        ));
    }
    let sectors = block >> 9;
    if !sectors.is_power_of_two() || len & u64::from(sectors.saturating_sub(1)) != 0 {
        return Err(refuse(
            Errno::Invalid,
            c"Length is not a multiple of main's logical block",
        ));
    }
    if len > main.sectors() {
        return Err(refuse(Errno::Range, c"Main is smaller than the target"));
    }
    Ok(sectors.trailing_zeros())
}

/// Checks what a spare is.
fn check_spare(main: &dm::Device, spare: &dm::Device) -> CtrResult<()> {
    if main == spare {
        return Err(refuse(Errno::Busy, c"Main and spare are the same device"));
    }
    if spare.is_zoned() {
        return Err(refuse(Errno::NotSupported, ZONED));
    }
    if spare.logical_block_size() > main.logical_block_size() {
        return Err(refuse(
            Errno::NotSupported,
            c"Spare has larger logical blocks than main",
        ));
    }
    Ok(())
}

/// Checks that no two spares of a table have anything in common.
fn check_apart(spares: &[dm::Device], windows: &[(u64, u64)]) -> CtrResult<()> {
    let parts = || spares.iter().zip(windows).enumerate();
    for (index, (spare, (start, sectors))) in parts() {
        let own = registry::absolute(spare, (*start, start.saturating_add(*sectors)));
        for (_, (other, (start, sectors))) in parts().take(index) {
            let taken = registry::absolute(other, (*start, start.saturating_add(*sectors)));
            if spare.is_same_disk(other) && own.0 < taken.1 && taken.0 < own.1 {
                return Err(refuse(Errno::Busy, c"Two spares overlap on the same disk"));
            }
        }
    }
    Ok(())
}

/// Device mapper opens a device for writing even if it refuses writes.
fn check_write_access(main: &dm::Device, spares: &[dm::Device]) -> CtrResult<()> {
    if main.is_read_only() {
        return Err(refuse(
            Errno::ReadOnly,
            c"Main device is read-only: load the table read-only",
        ));
    }
    if spares.iter().any(dm::Device::is_read_only) {
        return Err(refuse(
            Errno::ReadOnly,
            c"Spare device is read-only: load the table read-only",
        ));
    }
    Ok(())
}

/// First sector of the window on the spare, and number of sectors. Metadata blocks are aligned on
/// the device, so the start is rounded up. Without options it is the whole device.
fn find_window(
    main: &dm::Device,
    spare: &dm::Device,
    options: Option<&Options>,
    len: u64,
) -> CtrResult<(u64, u64)> {
    let outside = || refuse(Errno::Range, c"Spare range is outside of the spare device");
    let start = options.and_then(|options| options.spare_start).unwrap_or(0);
    let end = match options.and_then(|options| options.spare_len) {
        Some(len) => start.checked_add(len).ok_or_else(outside)?,
        None => spare.sectors(),
    };
    if start >= spare.sectors() || end > spare.sectors() {
        return Err(outside());
    }
    // Whole metadata blocks, which are whole blocks for main, too.
    let start = start.next_multiple_of(BLOCK_SECTORS);
    let sectors = end.saturating_sub(start) & !(BLOCK_SECTORS - 1);
    if sectors < WINDOW_SECTORS_MIN {
        return Err(refuse(
            Errno::NoSpace,
            c"Spare is too small, 512 KiB are needed",
        ));
    }
    let on_main = registry::absolute(main, (0, len));
    let on_spare = registry::absolute(spare, (start, end));
    if main.is_same_disk(spare) && on_main.0 < on_spare.1 && on_spare.0 < on_main.1 {
        return Err(refuse(
            Errno::Busy,
            c"Main and spare overlap on the same disk",
        ));
    }
    Ok((start, sectors))
}

/// What is known of a table line once its devices are open.
struct Line<'a> {
    main: &'a dm::Device,
    /// Sectors of main that are used.
    len: u64,
    /// In the order of the line.
    spares: &'a [dm::Device],
    options: &'a Options,
    block_shift: u32,
    /// Where on the spares: first sector, and number of sectors.
    windows: &'a [(u64, u64)],
    read_only: bool,
    user: User,
    name: LogName,
}

/// What a table that is made uses.
struct Prepared {
    state: StateRef,
    spares: Spares,
    /// How the set is to change for it.
    changes: KBox<Changes>,
    /// What it leaves out.
    leaving: KBox<Leaving>,
}

impl Line<'_> {
    /// Claims main and spares.
    fn claim(&self) -> CtrResult<Claims> {
        let main = Part {
            device: self.main,
            range: (0, self.len),
        };
        let claimed = registry::claim(self.user, &self.name, main, &self.parts()?);
        claimed.map_err(|error| match error {
            ClaimError::Main => refuse(Errno::Busy, MAIN_IN_USE),
            ClaimError::Spare => refuse(Errno::Busy, SPARE_IN_USE),
            ClaimError::Errno(error) => error.into(),
        })
    }

    /// Checks that main is no spare, unless the line says that it is, or it is main already.
    fn check_main(&self, claims: &Claims) -> CtrResult<()> {
        if self.options.spare_as_main || claims.knows_main(self.main) {
            return Ok(());
        }
        let pool = KBox::pin_init(block::BioPool::new(POOL_BIOS), GFP_KERNEL)?;
        check_main_content(&pool, self.main).map_err(|error| self.refuse_read(error))
    }

    /// Finds the state that the old table uses.
    fn find_state(&self, claims: &Claims) -> CtrResult<Option<Known>> {
        let mut known = claims.find(&self.parts()?).map_err(in_use)?;
        if known.is_none() {
            let unnamed = match self.find_renamed(claims)? {
                None => self.find_orphaned(claims)?,
                renamed => renamed,
            };
            known = unnamed.map(|state| Known {
                state,
                members: [None; MEMBERS_MAX as usize],
            });
        }
        if let Some(known) = &known {
            known.state.cover(self.main.sectors())?;
        }
        Ok(known)
    }

    /// Finds the state that the old table uses, if all of its spares that this one names have other names now,
    /// and nobody answers under the old ones.
    fn find_renamed(&self, claims: &Claims) -> CtrResult<Option<Arc<State>>> {
        if !claims.has_before() {
            return Ok(None);
        }
        let pool = KBox::pin_init(block::BioPool::new(POOL_BIOS), GFP_KERNEL)?;
        let windows = self.windows(&pool)?;
        let mut superblock = KBox::new(Superblock::EMPTY, GFP_KERNEL)?;
        let found = find_superblock(&windows, 0, &mut superblock);
        let Ok(load::Found::Ours(chosen)) = found else {
            // Loading tells why.
            return Ok(None);
        };
        let Some(state) = claims.find_set(&superblock.set_uuid) else {
            return Ok(None);
        };
        for (index, member) in superblock.members() {
            let name = Name {
                index,
                uuid: member.uuid,
            };
            let used = state.writer.lock().writer.metadata.is_present(index);
            if chosen.spare_of(index).is_some() && used && !is_gone(&state, name)? {
                return Ok(None);
            }
        }
        Ok(Some(state))
    }

    /// Finds the state that the old table uses, if all spares that this one names are new, and it says that the old
    /// ones are to be done without.
    fn find_orphaned(&self, claims: &Claims) -> CtrResult<Option<Arc<State>>> {
        if !self.options.degraded || !claims.leaves_remaps() {
            return Ok(None);
        }
        let pool = KBox::pin_init(block::BioPool::new(POOL_BIOS), GFP_KERNEL)?;
        let windows = self.windows(&pool)?;
        let mut superblock = KBox::new(Superblock::EMPTY, GFP_KERNEL)?;
        match find_superblock(&windows, 0, &mut superblock) {
            Ok(load::Found::Blank) => Ok(claims.find_by_main(self.main)),
            Err(Refused::Content(error)) if self.options.format && may_be_formatted(&error) => {
                Ok(claims.find_by_main(self.main))
            }
            // Loading tells what is wrong.
            _ => Ok(None),
        }
    }

    fn windows<'w>(&'w self, pool: &'w block::BioPool) -> Result<KVec<Window<'w>>> {
        let mut windows = KVec::new();
        for (spare, (start, sectors)) in self.spares.iter().zip(self.windows) {
            let window = Window {
                pool,
                spare,
                start: *start,
                sectors: *sectors,
            };
            windows.push(window, GFP_KERNEL)?;
        }
        Ok(windows)
    }

    /// Has the line told that is to be used once the set is made, if it is new.
    fn name_set(
        &self,
        state: &State,
        words: &[&str],
        begin: u64,
        changes: &mut Changes,
    ) -> CtrResult<()> {
        let locked = state.writer.lock();
        let formats = locked.start.as_ref().is_some_and(|start| start.format);
        drop(locked);
        if formats || changes.inherited != 0 {
            let named = Show(args::Named {
                words,
                options: self.options,
                uuid: state.uuid,
            });
            changes.line = Some(CString::try_from_fmt(fmt!("{begin} {} {named}", self.len))?);
        }
        Ok(())
    }

    fn part(&self, index: usize) -> Result<Part<'_>> {
        let device = self.spares.get(index).ok_or(EINVAL)?;
        let (start, sectors) = self.windows.get(index).copied().ok_or(EINVAL)?;
        Ok(Part {
            device,
            range: (start, start.saturating_add(sectors)),
        })
    }

    /// The windows on the spares.
    fn parts(&self) -> Result<KVec<Part<'_>>> {
        let mut parts = KVec::new();
        for index in 0..self.spares.len() {
            parts.push(self.part(index)?, GFP_KERNEL)?;
        }
        Ok(parts)
    }

    /// Registers the spares as the members that they are, and gives them their numbers.
    fn number(&self, state: &StateRef, members: &Members, changes: &Changes) -> CtrResult<Spares> {
        let mut spares = Spares::default();
        for (index, spare) in self.spares.iter().enumerate() {
            let member = members.get(index).copied().flatten().ok_or(EINVAL)?;
            let part = self.part(index)?;
            let name = {
                let locked = state.writer.lock();
                changes.name_of(locked.writer.metadata.superblock(), member)
            };
            let name = name.ok_or(EINVAL)?;
            state.add(&part, name).map_err(|error| {
                if error == EEXIST {
                    let (name, uuid) = (&state.name, Show(state.uuid));
                    pr_err!("{name}: spare {uuid} is in use already\n");
                }
                in_use(error)
            })?;
            let spare = Spare {
                device: spare.clone(),
                start: part.range.0,
                sectors: part.range.1.saturating_sub(part.range.0),
            };
            if !spares.add(member, spare) {
                return Err(refuse(
                    Errno::Exists,
                    c"Two spares are the same member of the set",
                ));
            }
        }
        Ok(spares)
    }

    fn expected(&self) -> Expected<'_> {
        Expected {
            uuid: self.options.uuid,
            main_id: self.options.main_id.as_ref(),
            main_sectors: self.main.sectors(),
            main_block_bytes: self.main.logical_block_size(),
        }
    }

    /// Checks that a state which is in use is what the line means, and finds out how the set is to
    /// change.
    #[inline(never)]
    fn join_state(&self, claims: Claims, known: Known) -> CtrResult<KBox<Prepared>> {
        let Known {
            state,
            members: names,
        } = known;
        let state = claims.with(state);
        let mut fresh = KVec::new();
        let all = self.spares.iter().zip(self.windows).zip(0u8..);
        for (((spare, window), number), name) in all.zip(&names) {
            let member = {
                let locked = state.writer.lock();
                let metadata = &locked.writer.metadata;
                let name = name.filter(|name| member_named(metadata.superblock(), *name).is_some());
                name.map(|name| (name, metadata.is_usable(name.index)))
            };
            let found = match member {
                None => Some(self.identify(&state, number, spare, *window)?),
                Some((_, true)) => None,
                Some((name, false)) => {
                    self.check_back(&state, name, number, spare, *window)?;
                    None
                }
            };
            fresh.push(found, GFP_KERNEL)?;
        }
        let mut members = [None; MEMBERS_MAX as usize];
        let mut changes = KBox::new(Changes::default(), GFP_KERNEL)?;
        let mut left = [None; MEMBERS_MAX as usize];
        let mut leaving = Leaving::new(self.user.table)?;
        if self.options.degraded {
            self.find_dead(&state, &fresh, &mut leaving.dead)?;
        }
        let locked = state.writer.lock();
        let formatting = locked.start.as_ref().is_some_and(|start| start.format);
        if self.options.format && !formatting && fresh.iter().all(Option::is_none) {
            return Err(refuse(Errno::Exists, HAS_METADATA));
        }
        let superblock = locked.writer.metadata.superblock();
        load::check_expected(superblock, &self.expected())
            .map_err(|error| self.refuse_content(&error))?;
        self.check_writable(superblock)?;
        for ((name, place), (_, sectors)) in names.iter().zip(&mut members).zip(self.windows) {
            let Some(name) = *name else {
                continue;
            };
            if let Some(member) = member_named(superblock, name) {
                *place = Some(name.index);
                load::check_window(member, *sectors)
                    .map_err(|error| self.refuse_content(&error))?;
                self.tell_grown(name.index, member, *sectors);
            }
        }
        // Those that have numbers from another table come first, so that these are not given away.
        for named in [true, false] {
            let all = fresh.iter().zip(&names).zip(&mut members);
            let rest = all.filter(|((_, name), place)| place.is_none() && name.is_some() == named);
            for ((found, name), place) in rest {
                let index = match (found, name) {
                    (None, None) => continue,
                    (Some(Identity::Member(index)), None) => *index,
                    (Some(Identity::Renamed(index)), None) => {
                        changes.renamed |= member_bit(*index);
                        *index
                    }
                    (Some(Identity::Blank(geometry)), None) => {
                        changes.add(superblock, *geometry).ok_or_else(too_many)?
                    }
                    (Some(Identity::Blank(geometry)), Some(name))
                        if changes.add_as(superblock, *name, *geometry) =>
                    {
                        name.index
                    }
                    // It is another one than that table found, or its number is another one's by now.
                    (_, Some(_)) => {
                        return Err(refuse(
                            Errno::Busy,
                            c"A spare was to join by a table that was not resumed: clear that first",
                        ));
                    }
                };
                *place = Some(index);
            }
        }
        if (formatting || changes.has_joining()) && self.read_only {
            return Err(refuse(Errno::ReadOnly, READ_ONLY));
        }
        let mut left_out = 0u8;
        for (index, member) in superblock.members() {
            if members.contains(&Some(index)) {
                continue;
            }
            if !locked.writer.metadata.is_present(index) {
                // A read-only table went without it, and a resume of this one would write that down.
                if !member.missing && !self.read_only {
                    left_out |= member_bit(index);
                }
                continue;
            }
            left_out |= member_bit(index);
            let claims = locked.writer.claims(&state, index);
            if claims != 0 && self.options.degraded {
                continue;
            }
            if claims != 0 {
                let name = &self.name;
                pr_err!("{name}: spare {index} has {claims} blocks: evacuate it first\n");
                return Err(refuse(Errno::Busy, STILL_SERVES));
            }
            changes.leaving |= member_bit(index);
            if let Some(place) = left.get_mut(usize::from(index)) {
                *place = Some(Name {
                    index,
                    uuid: member.uuid,
                });
            }
        }
        // Those that are to leave, too: what they have has to be elsewhere by then.
        let left_out = if formatting { 0 } else { left_out };
        let start = locked.start.as_ref();
        let needed = not_without(&locked.writer.metadata, start, left_out);
        if needed.is_some() && leaving.dead.is_some() {
            left = [None; MEMBERS_MAX as usize];
            changes.inherit(superblock);
            let blocks = changes.inherited_blocks(&state, &locked.writer);
            let room = changes.joining_slots();
            if blocks > room {
                let name = &self.name;
                pr_err!(
                    "{name}: {blocks} blocks are to be remembered, and there is room for {room}\n"
                );
                return Err(refuse(Errno::NoSpace, NO_ROOM));
            }
        } else if let Some(index) = needed {
            let name = &self.name;
            pr_err!("{name}: spare {index} has the only good copy of metadata\n");
            return Err(refuse(
                Errno::Io,
                c"A spare that is left out has the only good copy of metadata",
            ));
        }
        let absent = superblock.members().find(|(index, member)| {
            !members.contains(&Some(*index))
                && changes.leaving & member_bit(*index) == 0
                && !member.is_dispensable()
        });
        if let Some((member, _)) = absent.filter(|_| !self.options.degraded) {
            return Err(self.refuse_content(&LoadError::incomplete(superblock, member)));
        }
        drop(locked);
        if changes.inherited == 0 {
            leaving.dead = None;
        }
        for name in left.into_iter().flatten() {
            if let Some(spare) = spare_of(&state, name) {
                leaving.spares.add(name.index, spare);
            }
        }
        self.found(state, &members, changes, leaving)
    }

    /// The spares that a state in use has had, if all of them are dead, and all that the table names are new.
    #[inline(never)]
    fn find_dead(
        &self,
        state: &Arc<State>,
        fresh: &KVec<Option<Identity>>,
        found: &mut Option<Spares>,
    ) -> Result {
        let mut fresh = fresh.iter();
        if !fresh.all(|found| matches!(found, Some(Identity::Blank(_)))) {
            return Ok(());
        }
        let mut dead = Spares::default();
        for index in 0..MEMBERS_MAX {
            // Not under the lock: it may take its time to answer.
            let (name, is_away) = {
                let locked = state.writer.lock();
                if locked.start.is_some() {
                    return Ok(());
                }
                let metadata = &locked.writer.metadata;
                let Some(member) = metadata.superblock().member(index) else {
                    continue;
                };
                let uuid = member.uuid;
                let away = !metadata.is_present(index) && !locked.writer.has_answered(index);
                (Name { index, uuid }, away)
            };
            match spare_of(state, name) {
                Some(spare) if is_dead(&state.pool, &spare)? => {
                    dead.add(index, spare);
                }
                None if is_away => (),
                _ => return Ok(()),
            }
        }
        *found = Some(dead);
        Ok(())
    }

    /// Finds out what a spare is that a set in use is to have besides; it has this number in the table
    /// line.
    #[inline(never)]
    fn identify(
        &self,
        state: &Arc<State>,
        number: u8,
        spare: &dm::Device,
        (start, sectors): (u64, u64),
    ) -> CtrResult<Identity> {
        let pool = KBox::pin_init(block::BioPool::new(POOL_BIOS), GFP_KERNEL)?;
        let window = Window {
            pool: &pool,
            spare,
            start,
            sectors,
        };
        let refused = |refused| self.refuse_read(refused);
        let mut scratch = KBox::new(Superblock::EMPTY, GFP_KERNEL)?;
        let found = find_superblock(core::slice::from_ref(&window), 0, &mut scratch);
        match found {
            Ok(load::Found::Ours(chosen)) => {
                let uuid = returning::own_name(&chosen, &scratch);
                let gone = match uuid {
                    Some(uuid) => self.is_gone_by_name(state, uuid)?,
                    None => false,
                };
                let locked = state.writer.lock();
                let superblock = locked.writer.metadata.superblock();
                let same = scratch.set_uuid == superblock.set_uuid;
                let index = uuid.and_then(|uuid| superblock.find_member(&uuid));
                // Others are recording that what it has is lost.
                match index.filter(|index| same && !locked.writer.is_inherited(*index)) {
                    Some(index) if gone && locked.writer.metadata.is_usable(index) => {
                        let durable = locked.writer.durable();
                        load::check_renamed(superblock, durable, &scratch, index)
                            .map_err(|error| self.refuse_content(&error))?;
                        Ok(Identity::Renamed(index))
                    }
                    Some(index) if !locked.writer.metadata.is_present(index) => {
                        let alone = locked.writer.durable_alone();
                        returning::check(superblock, alone, &scratch, index, number, sectors)
                            .map_err(|error| self.refuse_content(&error))?;
                        Ok(Identity::Member(index))
                    }
                    Some(_) => {
                        let uuid = uuid.unwrap_or(Uuid::NIL);
                        Err(self.refuse_content(&LoadError::Twice { uuid }))
                    }
                    None => Err(refuse(
                        Errno::WrongDevice,
                        c"Spare belongs to another set, or has left this one",
                    )),
                }
            }
            Ok(load::Found::Blank) => Ok(Identity::Blank(
                self.blank(&window, spare, true).map_err(refused)?,
            )),
            Err(Refused::Content(error)) if self.options.format && may_be_formatted(&error) => Ok(
                Identity::Blank(self.blank(&window, spare, false).map_err(refused)?),
            ),
            Err(error) => Err(refused(error)),
        }
    }

    /// Whether a member is in use, and nobody answers where it was.
    fn is_gone_by_name(&self, state: &Arc<State>, uuid: Uuid) -> Result<bool> {
        let index = {
            let locked = state.writer.lock();
            let metadata = &locked.writer.metadata;
            let index = metadata.superblock().find_member(&uuid);
            index.filter(|index| metadata.is_usable(*index))
        };
        match index {
            Some(index) => is_gone(state, Name { index, uuid }),
            None => Ok(false),
        }
    }

    /// Checks that a spare which was lost is still the member that it was, as far as it answers.
    fn check_back(
        &self,
        state: &State,
        name: Name,
        number: u8,
        spare: &dm::Device,
        (start, sectors): (u64, u64),
    ) -> CtrResult<()> {
        let spare = Spare {
            device: spare.clone(),
            start,
            sectors,
        };
        // Not under the lock: it may take its time to answer.
        let seen = Sight::of(&state.pool, &spare)?;
        let locked = state.writer.lock();
        let superblock = locked.writer.metadata.superblock();
        match seen.check(
            superblock,
            locked.writer.durable_alone(),
            name.index,
            number,
        ) {
            Return::Same | Return::Silent => Ok(()),
            Return::Refused(error) => Err(self.refuse_content(&error)),
        }
    }

    /// Checks that a table which may write has spares that this version may write to.
    fn check_writable(&self, superblock: &Superblock) -> CtrResult<()> {
        if superblock.is_read_only() && !self.read_only {
            return Err(refuse(
                Errno::ReadOnly,
                c"Spare has features that this version can only read: load the table read-only",
            ));
        }
        Ok(())
    }

    fn refuse_read(&self, refused: Refused) -> CtrError {
        match refused {
            Refused::Content(error) => self.refuse_content(&error),
            Refused::Text(errno, text) => refuse(errno, text),
            Refused::Errno(error) if error == ENOMEM => error.into(),
            Refused::Errno(error) => CtrError::new(error, c"Spare cannot be read"),
        }
    }

    /// Makes a state of what is on the spares.
    #[inline(never)]
    fn load(&self, claims: Claims) -> CtrResult<KBox<Prepared>> {
        let pool = KBox::pin_init(block::BioPool::new(POOL_BIOS), GFP_KERNEL)?;
        let windows = self.windows(&pool)?;
        let mut changes = KBox::new(Changes::default(), GFP_KERNEL)?;
        let read = self.read(&windows, &mut changes);
        let (loaded, format, members) = read.map_err(|error| self.refuse_read(error))?;
        if (format || changes.has_joining()) && self.read_only {
            return Err(refuse(Errno::ReadOnly, READ_ONLY));
        }
        self.check_writable(loaded.metadata.superblock())?;
        if format && claims.leaves_remaps() {
            return Err(refuse(
                Errno::Busy,
                c"The device has remaps on another spare: name that, too, and evacuate it later, \
                  or, if it is dead, use degraded",
            ));
        }
        let state = claims.with(self.make_state(loaded, format)?);
        self.found(state, &members, changes, Leaving::new(self.user.table)?)
    }

    /// Registers the spares.
    #[inline(never)]
    fn found(
        &self,
        state: StateRef,
        members: &Members,
        changes: KBox<Changes>,
        leaving: KBox<Leaving>,
    ) -> CtrResult<KBox<Prepared>> {
        let spares = self.number(&state, members, &changes)?;
        let found = Prepared {
            state,
            spares,
            changes,
            leaving,
        };
        Ok(KBox::new(found, GFP_KERNEL)?)
    }

    /// Reads what is on the spares, or decides that they are to be formatted.
    #[inline(never)]
    fn read(
        &self,
        windows: &[Window<'_>],
        changes: &mut Changes,
    ) -> Result<(KBox<Loaded>, bool, Members), Refused> {
        let mut metadata = KBox::new(Metadata::EMPTY, GFP_KERNEL)?;
        let mut ignored = 0u8;
        let found = loop {
            match find_superblock(windows, ignored, metadata.superblock_mut()) {
                Err(Refused::Content(error)) if self.options.format && may_be_formatted(&error) => {
                    // Each spare once.
                    match error {
                        LoadError::Superblock { spare, .. } | LoadError::Unfinished { spare } => {
                            ignored |= 1 << spare.min(7);
                        }
                        _ => return Err(error.into()),
                    }
                }
                other => break other?,
            }
        };
        let mut members = [None; MEMBERS_MAX as usize];
        let load::Found::Ours(chosen) = found else {
            return self.format(windows, ignored, metadata, changes);
        };
        metadata.name_anew(&chosen, || Uuid::from_random(util::random_uuid()));
        if self.options.format && chosen.blank == 0 {
            return Err(Refused::Text(Errno::Exists, HAS_METADATA));
        }
        let superblock = metadata.superblock();
        load::check_expected(superblock, &self.expected())?;
        for (index, member) in superblock.members() {
            let Some(spare) = chosen.spare_of(index) else {
                continue;
            };
            let window = windows.get(usize::from(spare)).ok_or(EINVAL)?;
            load::check_window(member, window.sectors)?;
            self.tell_grown(index, member, window.sectors);
            if chosen.joining & (1 << spare.min(7)) != 0 {
                // It was to be a member when the power failed, and this one is not another.
                self.check_still_blank(window, &member.geometry)?;
            }
            if let Some(place) = members.get_mut(usize::from(spare)) {
                *place = Some(index);
            }
        }
        if let Some(member) = chosen
            .asked_for(superblock)
            .filter(|_| !self.options.degraded)
        {
            return Err(LoadError::incomplete(superblock, member).into());
        }
        for (window, spare) in windows.iter().zip(0u8..) {
            if chosen.blank & (1 << spare.min(7)) == 0 {
                continue;
            }
            let must_be_zero = ignored & (1 << spare.min(7)) == 0;
            let geometry = self.blank(window, window.spare, must_be_zero)?;
            let index = changes.add(superblock, geometry);
            let index = index.ok_or(Refused::Content(LoadError::TooMany))?;
            if let Some(place) = members.get_mut(usize::from(spare)) {
                *place = Some(index);
            }
        }
        Ok((tables(windows, &chosen, metadata)?, false, members))
    }

    /// Says that a spare has more room than it was formatted with, and how that can be used.
    fn tell_grown(&self, index: u8, member: &Member, sectors: u64) {
        let more = sectors.saturating_sub(member.geometry.window_sectors());
        if more != 0 {
            pr_info!(
                "{}: spare {index} has grown by {more} sectors, which are not used: to use them, \
                 add another spare, evacuate this one, take it out, and add it again\n",
                self.name
            );
        }
    }

    /// Checks that there is nothing on a spare but what its becoming a member has left.
    fn check_still_blank(&self, window: &Window<'_>, geometry: &Geometry) -> Result<(), Refused> {
        if window.is_blank_but_for_supers(geometry)? {
            Ok(())
        } else {
            Err(Refused::Text(Errno::Foreign, NOT_BLANK))
        }
    }

    /// Lays out a spare that is to be formatted.
    fn blank(
        &self,
        window: &Window<'_>,
        spare: &dm::Device,
        must_be_zero: bool,
    ) -> Result<Geometry, Refused> {
        if self.options.uuid.is_some() {
            return Err(Refused::Text(
                Errno::NoData,
                c"Spare is blank, but the uuid argument names one that was formatted",
            ));
        }
        let align =
            (spare.physical_block_size() >> 9).clamp(BLOCK_SECTORS as u32, ALIGN_SECTORS_MAX);
        let geometry =
            Geometry::new(window.sectors, 1 << self.block_shift, align).map_err(|e| {
                pr_err!("{}: {}\n", self.name, Show(e));
                Refused::Text(e.errno(), c"Spare is too small or too large")
            })?;
        if must_be_zero && !self.options.format && !window.is_blank(&geometry)? {
            return Err(Refused::Text(Errno::Foreign, NOT_BLANK));
        }
        // Who mixes up main and spare destroys main with one word.
        let larger = spare.sectors() > self.main.sectors();
        if self.options.format && larger && !window.is_blank(&geometry)? {
            return Err(Refused::Text(Errno::Foreign, LARGER));
        }
        Ok(geometry)
    }

    /// Makes the metadata of new spares. Nothing is written yet.
    #[inline(never)]
    fn format(
        &self,
        windows: &[Window<'_>],
        ignored: u8,
        mut metadata: KBox<Metadata>,
        changes: &mut Changes,
    ) -> Result<(KBox<Loaded>, bool, Members), Refused> {
        let mut members = [None; MEMBERS_MAX as usize];
        for (window, spare) in windows.iter().zip(0u8..) {
            let must_be_zero = ignored & (1 << spare.min(7)) == 0;
            let geometry = self.blank(window, window.spare, must_be_zero)?;
            if spare == 0 {
                metadata.superblock_mut().begin(
                    Uuid::from_random(util::random_uuid()),
                    Uuid::from_random(util::random_uuid()),
                    geometry,
                    self.len,
                    self.options.main_id.unwrap_or_default(),
                );
            } else {
                let added = changes.add(metadata.superblock(), geometry);
                added.ok_or(Refused::Content(LoadError::TooMany))?;
            }
            if let Some(place) = members.get_mut(usize::from(spare)) {
                *place = Some(spare);
            }
        }
        metadata.create();
        Ok((Loaded::empty(metadata)?, true, members))
    }

    #[inline(never)]
    fn make_state(&self, loaded: KBox<Loaded>, format: bool) -> CtrResult<Arc<State>> {
        let (uuid, block_shift) = (loaded.metadata.superblock().set_uuid, self.block_shift);
        let words = presence::words_for(self.main.sectors()).ok_or(ENOMEM)?;
        let presence = cells64(core::iter::empty(), words, GFP_KERNEL)?;
        loaded.map.mark_presence(&presence, block_shift);
        let (locked, map, counters) = self.make_locked(loaded, format)?;
        let tools = mover::MoverBuffers::new()?;
        let leftover = Leftover::new()?;
        let notes = Notes::new()?;
        let zeroes = block::IoBuffer::new(DATA_BYTES, GFP_KERNEL)?;
        let name = self.name.try_clone()?;
        Ok(Arc::pin_init(
            try_pin_init!(State {
                name,
                uuid,
                block_shift,
                presence <- sync::Growing::new(presence),
                map <- sync::Published::new(map),
                gate: Gate::new(),
                notes,
                probing: Atomic::new(0),
                waiting: Atomic::new(0),
                stopping: Atomic::new(false),
                lost: Atomic::new(0),
                deferred: dm::BioList::new(),
                desk <- new_mutex!(Desk::new(), "dm_remap_desk"),
                desk_changed <- new_condvar!("dm_remap_desk"),
                life: Life::new(),
                limits: Limits::new(),
                counters,
                auto_remap: Atomic::new(true),
                log <- util::RateLimit::new(5, 10),
                pool <- block::BioPool::new(POOL_BIOS),
                zeroes,
                leftover <- new_mutex!(leftover, "dm_remap_leftover"),
                mover <- sync::IoMutex::new(new_mutex!(tools, "dm_remap_mover")),
                writer <- sync::IoMutex::new(new_mutex!(locked, "dm_remap_writer")),
                dispatch <- new_work!("dm_remap_dispatch"),
                growth <- new_work!("dm_remap_growth"),
            }),
            GFP_KERNEL,
        )?)
    }

    /// Makes what the writer's lock protects, of what was read.
    #[inline(never)]
    fn make_locked(
        &self,
        loaded: KBox<Loaded>,
        format: bool,
    ) -> CtrResult<(KBox<Locked>, KBox<Map>, Counters)> {
        let Loaded {
            mut metadata,
            map,
            counts,
            generations,
            rewrites,
            dirty,
        } = KBox::into_inner(loaded);
        metadata.set_main(self.len, self.options.main_id.as_ref());
        let counters = Counters::new(metadata.superblock(), &map);
        let writer = Writer::new(metadata, &map, counts, generations)?;
        counters.left.set(u64::from(writer.slots_left()));
        let locked = Locked {
            writer,
            block: block::IoBuffer::new(BLOCK_BYTES, GFP_KERNEL)?,
            start: Some(Start {
                format,
                rewrites,
                dirty,
            }),
            leaving: None,
        };
        Ok((KBox::new(locked, GFP_KERNEL)?, map, counters))
    }

    /// Says what is wrong with the spare, with all its numbers, in the log.
    fn refuse_content(&self, error: &LoadError) -> CtrError {
        let expected = self.expected();
        pr_err!("{}: {}\n", self.name, Show(error.against(&expected)));
        let text = match error {
            LoadError::Superblock {
                error: FormatError::Foreign,
                ..
            } => NOT_BLANK,
            LoadError::Superblock { .. }
            | LoadError::SuperblockUnreadable { .. }
            | LoadError::SuperblockContradiction { .. }
            | LoadError::SuperblockStale { .. }
            | LoadError::MixedSpares { .. } => c"No usable superblock on the spare",
            LoadError::Apart { .. } => c"Spares were used without each other",
            LoadError::Twice { .. } => c"Spare is a copy of another one that is in use",
            LoadError::NotMember { .. } => c"Spare has left its set",
            LoadError::Another { .. } => {
                c"Spare is not the one that was lost: leave it out with degraded, then add it"
            }
            LoadError::TooMany => TOO_MANY,
            LoadError::Unfinished { .. } => {
                c"Spare was to take over from a dead one and has not: use that, or format this one anew"
            }
            LoadError::MainIsSpare { .. } => c"Main is a spare: are main and spare mixed up?",
            LoadError::TableBlock { .. }
            | LoadError::TableContradiction { .. }
            | LoadError::OutOfRange { .. }
            | LoadError::Unresolvable { .. } => c"Slot table on the spare is damaged",
            LoadError::WrongUuid { .. } => c"Spare is not the one that the uuid argument names",
            LoadError::OtherMainId { .. } => c"Spare belongs to a main device of another main_id",
            LoadError::OtherMainSize { .. } => c"Spare belongs to a larger main device",
            LoadError::MainBlockSize { .. } => c"Main had other logical blocks before",
            LoadError::Shrunk { .. } => c"Spare is smaller than it was formatted",
            LoadError::Incomplete { .. } => {
                c"A spare of the set is missing: name it with the spare argument, or use degraded"
            }
        };
        refuse(error.errno(), text)
    }
}

/// The spare of a member that a state has in use.
fn spare_of(state: &Arc<State>, name: Name) -> Option<Spare> {
    let (device, (start, end)) = registry::spare_of(state, name)?;
    Some(Spare {
        device,
        start,
        sectors: end.saturating_sub(start),
    })
}

/// Whether nobody answers where the spare of a member is.
fn is_gone(state: &Arc<State>, name: Name) -> Result<bool> {
    match spare_of(state, name) {
        Some(spare) => Ok(Sight::of(&state.pool, &spare)?.is_silent()),
        None => Ok(false),
    }
}

/// Why a spare cannot be registered.
fn in_use(error: Error) -> CtrError {
    let text = if error == EBUSY {
        SPARE_IN_USE
    } else if error == EEXIST {
        c"Spare is a copy of one that is in use: it has the same uuid"
    } else {
        return error.into();
    };
    refuse(Errno::Busy, text)
}

/// Whether there is nothing of ours that formatting would overwrite.
fn may_be_formatted(error: &LoadError) -> bool {
    matches!(
        error,
        LoadError::Superblock {
            error: FormatError::Foreign | FormatError::Checksum,
            ..
        } | LoadError::Unfinished { .. }
    )
}

fn too_many() -> CtrError {
    refuse(Errno::TooMany, TOO_MANY)
}

/// The member of this name, if there is one.
fn member_named(superblock: &Superblock, name: Name) -> Option<&Member> {
    let member = superblock.member(name.index);
    member.filter(|member| member.uuid == name.uuid)
}

/// Which member each spare of a table line is.
type Members = [Option<u8>; MEMBERS_MAX as usize];

/// What a spare is that a set in use is to have besides.
enum Identity {
    /// A member that was missing.
    Member(u8),
    /// A member that is in use, and of which nobody answers where it was.
    Renamed(u8),
    /// Nothing so far.
    Blank(Geometry),
}
