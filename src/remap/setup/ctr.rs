// SPDX-License-Identifier: GPL-2.0

//! From a table line to a target.
//!
//! Everything that can be refused is refused here, where the old table is still whole, and nothing
//! is written (D2): devices, sizes and blocks first, then what is on the spare. What goes wrong has
//! a text of its own, in the kernel log, and an errno of its kind.

use kernel::{
    prelude::*,
    str::CString,
    sync::{
        atomic::Atomic,
        Arc, //
    }, //
};

use crate::{
    abstractions::{
        dm::{
            self,
            CtrMessage, //
        },
        util,
        work, //
    },
    logic::{
        args::{
            self,
            Form,
            Options, //
        },
        errno::Errno,
        set::{
            refusal::STILL_SERVES,
            Plan, //
        }, //
    },
    remap::{
        jobs::{
            autosave::Autosave,
            restorer::Restorer,
            weak::WeakMover, //
        },
        meta::{
            state::MetaState,
            writer::growth, //
        },
        repair::crew::{
            self,
            Noter,
            Teller, //
        },
        session::{
            activate::check_forgotten,
            leaving::Leaving, //
        },
        user::{
            face::FaceRef,
            names::{
                LogName,
                Show, //
            },
            state::UserState, //
        },
        DmRemap, //
    }, //
};

use super::{
    devices::{
        check_apart,
        check_main,
        check_spare,
        check_write_access,
        find_window, //
    },
    line::Line,
    refuse::{
        refuse,
        CtrResult, //
    },
    registry::{
        StateRef,
        User, //
    },
    spares::Spares, //
};

// The kernel's stack is small, and reading metadata needs some of it, as does who frees memory for us: what is large
// stands in boxes, and what is done is done one after the other (see scripts/stack).

/// Finds all that the target needs, and returns what makes it.
pub(in crate::remap) fn construct(
    ctor: &mut dm::Constructor<'_>,
    words: dm::Args<'_>,
) -> CtrResult<impl PinInit<DmRemap, dm::CtrError>> {
    let texts = words.to_strs().message(c"Arguments are not in UTF-8")?;
    let opened = open(ctor, words, &texts)?;
    let target = opened.line(ctor)?;
    // Nobody else may change what is read from here on.
    let claims = target.claim()?;
    target.check_main(&claims)?;
    let found = match target.find_state(&claims)? {
        Some(known) => target.join_state(claims, known)?,
        None => target.load(claims)?,
    };
    // Here memory can still be waited for. Without it, less can be remapped.
    let _ = growth::grow_for_table(&found.state);
    check_forgotten(&found.state.path, &found.state.meta, &found.plan)
        .message(c"There is no memory to forget a spare that has left")?;
    let line = target.name_set(&found.state, &texts, ctor.begin(), &found.plan)?;
    assemble(ctor, opened, found, line)
}

/// The last thing, as the table in use is not to notice if this one is refused.
fn leave(user: &UserState, meta: &MetaState, leaving: KBox<Leaving>) -> CtrResult<()> {
    let mut leaving = Some(leaving);
    let left = meta.writer.lock().leave(user, &mut leaving);
    // Not under the lock: devices may be closed with it.
    drop(leaving);
    left.message(STILL_SERVES)
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
            number: ctor.device_number(),
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
    let (Some(main), Some(spare)) = (words.get(0), words.get(options.spare_word)) else {
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

/// Returns what puts the target together, and tells device mapper what it wants to get.
#[inline(never)]
fn assemble(
    ctor: &mut dm::Constructor<'_>,
    opened: KBox<Opened>,
    found: KBox<Prepared>,
    line: Option<CString>,
) -> CtrResult<impl PinInit<DmRemap, dm::CtrError>> {
    let Opened { main, options, .. } = KBox::into_inner(opened);
    let Prepared {
        state,
        spares,
        plan,
        leaving,
    } = KBox::into_inner(found);
    ctor.set_num_bios(dm::BioKind::Flush, spares.count().saturating_add(1));
    // These are there if both devices have them.
    ctor.set_num_bios(dm::BioKind::WriteZeroes, 1);
    if main.max_discard_sectors() != 0 {
        ctor.set_num_bios(dm::BioKind::Discard, 1);
        ctor.set_discards_supported(true);
    }
    let face = FaceRef::new(ctor, &state, &spares).message(c"Folder in sysfs cannot be made")?;
    let folder = face.folder().ok_or(ENODEV)?;
    let teller = Teller::new((*state).clone(), ctor.events(), ctor.device_names(), folder)?;
    // Each at a time: all of them may take long.
    let events = Arc::new(work::WorkQueue::new(c"dm-remap-events", 4)?, GFP_KERNEL)?;
    let restorer = Restorer::new(&state, &spares, &events, &teller)?;
    let noter = Noter::new(&state, &spares, &events, &teller, &restorer)?;
    let len = ctor.len();
    let weak_mover = WeakMover::new((*state).clone(), (&main, len), &spares, &events, &teller)?;
    let autosave = Autosave::new(&state, &spares, &events, &teller)?;
    pr_info!(
        "{}: table made: main {}, {len} sectors, {} spares\n",
        state.user.name,
        Show(main.number()),
        spares.count()
    );
    let target = DmRemap {
        face,
        main_sectors: main.sectors(),
        main,
        spares,
        plan,
        line,
        options,
        len,
        resumed: Atomic::new(false),
        queue: work::WorkQueue::new(c"dm-remap", 0)?,
        growth: work::WorkQueue::new(c"dm-remap-growth", 1)?,
        crew: crew::hire(&state, &events, &teller, &restorer, &weak_mover)?,
        events,
        teller,
        noter,
        restorer,
        weak_mover,
        autosave,
        state,
    };
    let target = util::unboxed(KBox::new(target, GFP_KERNEL)?);
    Ok(target.chain(|target| leave(&target.state.user, &target.state.meta, leaving)))
}

/// What a table that is made uses.
pub(super) struct Prepared {
    pub(super) spares: Spares,
    /// How the set is to change for it.
    pub(super) plan: KBox<Plan>,
    /// What it leaves out.
    pub(super) leaving: KBox<Leaving>,
    // The claims are given up last.
    pub(super) state: StateRef,
}
