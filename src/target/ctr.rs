// SPDX-License-Identifier: GPL-2.0

//! From a table line to a target.
//!
//! Everything that can be refused is refused here, where the old table is still whole, and nothing
//! is written (D2): devices, sizes and blocks first, then what is on the spare. What goes wrong has
//! a text of its own, in the kernel log, and an errno of its kind.

use super::activate::Start;
use super::cells::cells64;
use super::crew;
use super::crew::Teller;
use super::gate::Gate;
use super::life::Life;
use super::limits::Limits;
use super::load::Loaded;
use super::load::Refused;
use super::load::Window;
use super::mover;
use super::mover::DATA_BYTES;
use super::names::LogName;
use super::names::Show;
use super::registry;
use super::registry::Part;
use super::registry::StateRef;
use super::state::Counters;
use super::state::Locked;
use super::state::State;
use super::writer::growth;
use super::writer::Writer;
use super::DmRemap;
use crate::dm;
use crate::dm::CtrError;
use crate::dm::CtrMessage;
use crate::logic::args;
use crate::logic::args::Form;
use crate::logic::args::Options;
use crate::logic::commit::Metadata;
use crate::logic::desk::Desk;
use crate::logic::errno::Errno;
use crate::logic::format::geometry::ALIGN_SECTORS_MAX;
use crate::logic::format::geometry::WINDOW_SECTORS_MIN;
use crate::logic::format::FormatError;
use crate::logic::format::Geometry;
use crate::logic::format::Superblock;
use crate::logic::format::BLOCK_BYTES;
use crate::logic::format::BLOCK_SECTORS;
use crate::logic::load;
use crate::logic::load::Expected;
use crate::logic::load::LoadError;
use crate::logic::presence;
use crate::logic::text::Uuid;
use kernel::new_condvar;
use kernel::new_mutex;
use kernel::new_work;
use kernel::prelude::*;
use kernel::sync::atomic::Atomic;
use kernel::sync::Arc;

/// Bios of our own that are set aside.
const POOL_BIOS: u16 = 16;

const HAS_METADATA: &CStr =
    c"Spare has valid dm-remap metadata, which the format argument does not overwrite";

const NOT_BLANK: &CStr =
    c"Spare is not blank: zero it, or use the format argument to overwrite what is there";

type CtrResult<T> = core::result::Result<T, CtrError>;

/// Makes the target.
pub(super) fn construct(
    ctor: &mut dm::Constructor<'_>,
    words: dm::Args<'_>,
) -> CtrResult<Pin<KBox<DmRemap>>> {
    let texts = words.to_strs().message(c"Arguments are not in UTF-8")?;
    let form = if ctor.target_name().to_bytes() == b"remap" {
        Form::Remap
    } else {
        Form::DmRemap
    };
    let line = args::parse(form, &texts).map_err(|error| refuse(error.errno(), error.message()))?;
    let (Some(main), Some(spare)) = (words.get(0), words.get(1)) else {
        return Err(refuse(Errno::Invalid, c"Two devices are needed"));
    };
    let main = ctor.device(main).message(c"Main device cannot be opened")?;
    let spare = ctor
        .device(spare)
        .message(c"Spare device cannot be opened")?;

    let len = ctor.len();
    let block_shift = check_devices(&main, &spare, len)?;
    if !ctor.is_read_only() {
        check_write_access(&main, &spare)?;
    }
    let window = find_window(&main, &spare, &line.options, len)?;
    let target = Line {
        main: &main,
        spare: &spare,
        options: &line.options,
        block_shift,
        window,
        read_only: ctor.is_read_only(),
        mapped_device: ctor.device_id(),
        table: ctor.table_id(),
        name: LogName::new(ctor.device_name())?,
    };
    let state = target.find_state()?;
    // Here memory can still be waited for.
    growth::grow(&state)?;

    ctor.set_num_bios(dm::BioKind::Flush, 2);
    // These are there if both devices have them.
    ctor.set_num_bios(dm::BioKind::WriteZeroes, 1);
    if main.max_discard_sectors() != 0 {
        ctor.set_num_bios(dm::BioKind::Discard, 1);
        ctor.set_discards_supported(true);
    }
    Ok(KBox::pin(
        DmRemap {
            main_sectors: main.sectors(),
            main,
            spare,
            options: line.options,
            len,
            resumed: Atomic::new(false),
            queue: dm::WorkQueue::new(c"dm-remap", dm::Placement::Unbound, 0)?,
            growth: dm::WorkQueue::new(c"dm-remap-growth", dm::Placement::Unbound, 1)?,
            crew: crew::hire(&state)?,
            teller: Teller::new(ctor.events())?,
            state,
        },
        GFP_KERNEL,
    )?)
}

fn refuse(errno: Errno, message: &'static CStr) -> CtrError {
    CtrError::new(Error::from_errno(-errno.number()), message)
}

/// Checks what the devices are. Returns how many sectors a block has, as a power of two.
fn check_devices(main: &dm::Device, spare: &dm::Device, len: u64) -> CtrResult<u32> {
    if main == spare {
        return Err(refuse(Errno::Busy, c"Main and spare are the same device"));
    }
    if main.is_zoned() || spare.is_zoned() {
        return Err(refuse(
            Errno::NotSupported,
            c"Zoned devices are not supported",
        ));
    }
    let block = main.logical_block_size();
    if spare.logical_block_size() > block {
        return Err(refuse(
            Errno::NotSupported,
            c"Spare has larger logical blocks than main",
        ));
    }
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

/// Device mapper opens a device for writing even if it refuses writes.
fn check_write_access(main: &dm::Device, spare: &dm::Device) -> CtrResult<()> {
    if main.is_read_only() {
        return Err(refuse(
            Errno::ReadOnly,
            c"Main device is read-only: load the table read-only",
        ));
    }
    if spare.is_read_only() {
        return Err(refuse(
            Errno::ReadOnly,
            c"Spare device is read-only: load the table read-only",
        ));
    }
    Ok(())
}

/// First sector of the window on the spare, and number of sectors. Metadata blocks are aligned on
/// the device, so the start is rounded up.
fn find_window(
    main: &dm::Device,
    spare: &dm::Device,
    options: &Options,
    len: u64,
) -> CtrResult<(u64, u64)> {
    let outside = || refuse(Errno::Range, c"Spare range is outside of the spare device");
    let start = options.spare_start.unwrap_or(0);
    let end = match options.spare_len {
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
    spare: &'a dm::Device,
    options: &'a Options,
    block_shift: u32,
    window: (u64, u64),
    read_only: bool,
    mapped_device: dm::MappedDeviceId,
    table: dm::TableId,
    name: LogName,
}

impl Line<'_> {
    /// Finds the state that the old table uses, or makes one of what is on the spare.
    fn find_state(self) -> CtrResult<StateRef> {
        let (start, sectors) = self.window;
        let spare = self.spare;
        let part = Part {
            mapped_device: self.mapped_device,
            table: self.table,
            spare,
            range: (start, start.saturating_add(sectors)),
        };
        if let Some(state) = registry::find(&part).map_err(in_use)? {
            self.check_state(&state)?;
            return Ok(state);
        }
        let state = self.load()?;
        registry::register(&part, state.clone()).map_err(|error| {
            if error == EEXIST {
                let (name, uuid) = (&state.name, Show(state.uuid));
                pr_err!("{name}: spare {uuid} is in use already\n");
            }
            in_use(error)
        })
    }

    fn expected(&self) -> Expected<'_> {
        Expected {
            uuid: self.options.uuid,
            main_id: self.options.main_id.as_ref(),
            main_sectors: self.main.sectors(),
            main_block_bytes: self.main.logical_block_size(),
            window_sectors: self.window.1,
        }
    }

    /// Checks that a state which is in use is what the line means.
    fn check_state(&self, state: &State) -> CtrResult<()> {
        let locked = state.writer.lock();
        let formatting = locked.start.as_ref().is_some_and(|start| start.format);
        if self.options.format && !formatting {
            return Err(refuse(Errno::Exists, HAS_METADATA));
        }
        let superblock = locked.writer.metadata.superblock();
        load::check_expected(superblock, &self.expected())
            .map_err(|error| self.refuse_content(&error))?;
        self.check_writable(superblock)
    }

    /// Checks that a table which may write has a spare that this version may write to.
    fn check_writable(&self, superblock: &Superblock) -> CtrResult<()> {
        if superblock.is_read_only() && !self.read_only {
            return Err(refuse(
                Errno::ReadOnly,
                c"Spare has features that this version can only read: load the table read-only",
            ));
        }
        Ok(())
    }

    fn load(self) -> CtrResult<Arc<State>> {
        let pool = KBox::pin_init(dm::BioPool::new(POOL_BIOS), GFP_KERNEL)?;
        let window = Window {
            pool: &pool,
            spare: self.spare,
            start: self.window.0,
            sectors: self.window.1,
        };
        let (loaded, format) = match self.read(&window) {
            Ok(found) => found,
            Err(Refused::Content(error)) => return Err(self.refuse_content(&error)),
            Err(Refused::Text(errno, text)) => return Err(refuse(errno, text)),
            Err(Refused::Errno(error)) if error == ENOMEM => return Err(error.into()),
            Err(Refused::Errno(error)) => {
                return Err(CtrError::new(error, c"Spare cannot be read"));
            }
        };
        if format && self.read_only {
            return Err(refuse(
                Errno::ReadOnly,
                c"A blank spare cannot be formatted read-only",
            ));
        }
        self.check_writable(loaded.metadata.superblock())?;
        self.make_state(loaded, format)
    }

    /// Reads what is on the spare, or decides that it is to be formatted.
    #[inline(never)]
    fn read(&self, window: &Window<'_>) -> Result<(Loaded, bool), Refused> {
        match window.superblock() {
            Ok(Some(_)) if self.options.format => Err(Refused::Text(Errno::Exists, HAS_METADATA)),
            Ok(Some(chosen)) => {
                load::check_expected(&chosen.superblock, &self.expected())?;
                Ok((window.table(chosen)?, false))
            }
            Ok(None) => self.format(window),
            Err(Refused::Content(error)) if self.options.format && may_be_formatted(&error) => {
                self.format(window)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the metadata of a new spare. Nothing is written yet.
    fn format(&self, window: &Window<'_>) -> Result<(Loaded, bool), Refused> {
        if self.options.uuid.is_some() {
            return Err(Refused::Text(
                Errno::NoData,
                c"Spare is blank, but the uuid argument names one that was formatted",
            ));
        }
        let align =
            (self.spare.physical_block_size() >> 9).clamp(BLOCK_SECTORS as u32, ALIGN_SECTORS_MAX);
        let geometry = Geometry::new(self.window.1, 1 << self.block_shift, align).map_err(|e| {
            pr_err!("{}: {}\n", self.name, Show(e));
            Refused::Text(e.errno(), c"Spare is too small or too large")
        })?;
        if !self.options.format && !window.is_blank(&geometry)? {
            return Err(Refused::Text(Errno::Foreign, NOT_BLANK));
        }
        Ok((Loaded::empty(self.new_metadata(geometry)?)?, true))
    }

    #[inline(never)]
    fn new_metadata(&self, geometry: Geometry) -> Result<KBox<Metadata>> {
        let superblock = Superblock::new(
            Uuid::from_random(dm::random_uuid()),
            Uuid::from_random(dm::random_uuid()),
            geometry,
            self.main.sectors(),
            self.options.main_id.unwrap_or_default(),
        );
        Ok(KBox::new(Metadata::create(superblock), GFP_KERNEL)?)
    }

    #[inline(never)]
    fn make_state(self, loaded: Loaded, format: bool) -> CtrResult<Arc<State>> {
        let Loaded {
            mut metadata,
            map,
            counts,
            generations,
            rewrites,
            dirty,
        } = loaded;
        metadata.set_main(self.main.sectors(), self.options.main_id.as_ref());
        let superblock = metadata.superblock();
        let (uuid, geometry) = (superblock.set_uuid, superblock.geometry);
        let counters = Counters::new(superblock, &map);
        let words = presence::words_for(self.main.sectors()).ok_or(ENOMEM)?;
        let presence = cells64(core::iter::empty(), words, GFP_KERNEL)?;
        map.mark_presence(&presence, superblock.usable_slots(), self.block_shift);
        let writer = Writer::new(metadata, &map, counts, generations)?;
        counters.left.set(u64::from(writer.slots_left()));
        let locked = Locked {
            writer,
            block: dm::IoBuffer::new(BLOCK_BYTES, GFP_KERNEL)?,
            start: Some(Start {
                format,
                rewrites,
                dirty,
            }),
        };
        let map = dm::Published::new(KBox::new(map, GFP_KERNEL)?);
        let tools = mover::Tools::new()?;
        let zeroes = dm::IoBuffer::new(DATA_BYTES, GFP_KERNEL)?;
        let (name, window_start, block_shift) = (self.name, self.window.0, self.block_shift);
        Ok(Arc::pin_init(
            try_pin_init!(State {
                name,
                uuid,
                window_start,
                geometry,
                block_shift,
                presence,
                map,
                readers <- dm::Srcu::new(),
                gate: Gate::new(),
                probing: Atomic::new(0),
                stopping: Atomic::new(false),
                deferred: dm::BioList::new(),
                desk <- new_mutex!(Desk::new(), "dm_remap_desk"),
                desk_changed <- new_condvar!("dm_remap_desk"),
                life: Life::new(),
                limits: Limits::new(),
                counters,
                auto_remap: Atomic::new(true),
                log <- dm::RateLimit::new(5, 10),
                pool <- dm::BioPool::new(POOL_BIOS),
                zeroes,
                mover <- new_mutex!(tools, "dm_remap_mover"),
                writer <- new_mutex!(locked, "dm_remap_writer"),
                dispatch <- new_work!("dm_remap_dispatch"),
                growth <- new_work!("dm_remap_growth"),
            }),
            GFP_KERNEL,
        )?)
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
            | LoadError::MixedSpares => c"No usable superblock on the spare",
            LoadError::TableBlock { .. }
            | LoadError::TableContradiction { .. }
            | LoadError::OutOfRange { .. }
            | LoadError::Unresolvable { .. } => c"Slot table on the spare is damaged",
            LoadError::WrongUuid { .. } => c"Spare is not the one that the uuid argument names",
            LoadError::OtherMainId { .. } => c"Spare belongs to a main device of another main_id",
            LoadError::OtherMainSize { .. } => c"Spare belongs to a larger main device",
            LoadError::MainBlockSize { .. } => c"Main had other logical blocks before",
            LoadError::Shrunk { .. } => c"Spare is smaller than it was formatted",
            LoadError::Incomplete { .. } => c"Spare is one of a set of several",
        };
        refuse(error.errno(), text)
    }
}

/// Why a spare cannot be registered.
fn in_use(error: Error) -> CtrError {
    let text = if error == EBUSY {
        c"Spare, or a part of it, is used by another device"
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
        }
    )
}
