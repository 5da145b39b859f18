// SPDX-License-Identifier: GPL-2.0

//! `dmremap format`.

use std::fs::File;
use std::io::Seek;
use std::io::SeekFrom;
use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use dm_remap_logic::format::geometry::ALIGN_SECTORS_MAX;
use dm_remap_logic::format::geometry::WINDOW_SECTORS_MIN;
use dm_remap_logic::format::FormatError;
use dm_remap_logic::format::Geometry;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_SECTORS;
use dm_remap_logic::format::SECTOR_BYTES;
use dm_remap_logic::load::LoadError;
use dm_remap_logic::text::MainId;
use dm_remap_logic::text::Uuid;

use crate::change::apply;
use crate::cli::Output;
use crate::cli::Spares;
use crate::commands::linear_table::table_name;
use crate::driver::random_uuid;
use crate::driver::refused;
use crate::driver::Writer;
use crate::error::Error;
use crate::error::Result;
use crate::identity::Identity;
use crate::put;
use crate::set::read_supers;
use crate::spare::Access;
use crate::spare::Part;
use crate::spare::Spare;
use crate::spare::BLANK_SECTORS;
use crate::sysfs;

const MORE: &str = "\
What is written is what the module writes when a blank spare is first used: superblocks, and \
the first blocks of the slot table. Data is not touched, but what it belonged to is lost.

A spare that is not blank is refused without --force. Metadata of dm-remap that is still \
good is not overwritten even then: that takes --force and --force-uuid with the UUID of the \
set that is there, as dmremap dump tells it.

Several spares become one set. Four is the most.

The UUID of the set is printed, and beside it, as a message, the table line that it belongs into: \
a line without it takes any blank disk in the spare's place for a new spare.";

/// Make a spare, or a set of spares, of devices or image files
#[derive(Debug, Args)]
#[command(after_help = MORE)]
pub struct Format {
    #[command(flatten)]
    spares: Spares,

    /// The main device: its size and its logical block are taken over
    #[arg(long, value_name = "DEV", required_unless_present = "main_sectors")]
    main: Option<PathBuf>,

    /// The size of main in sectors, where main itself is not at hand
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "main",
        requires = "main_block"
    )]
    main_sectors: Option<u64>,

    /// The logical block of main in bytes: 512, 1024, 2048 or 4096
    #[arg(long, value_name = "BYTES")]
    main_block: Option<u32>,

    /// What main is to be called: checked from then on when a table line says it, too
    #[arg(long, value_name = "TEXT")]
    main_id: Option<String>,

    /// The UUID of the new set; a random one if not given
    #[arg(long)]
    uuid: Option<String>,

    /// Overwrite what is there
    #[arg(long)]
    force: bool,

    /// Overwrite even the good metadata of this set, or what is left of this spare's
    #[arg(long, value_name = "UUID", requires = "force")]
    force_uuid: Option<String>,
}

impl Format {
    /// Does it.
    pub fn run(&self, output: &mut Output<'_>) -> Result<u8> {
        let main = self.main()?;
        let main_id = match &self.main_id {
            None => MainId::NONE,
            Some(text) => MainId::new(text).ok_or_else(|| {
                Error::usage(format!(
                    "--main-id {text:?}: up to {} visible ASCII characters without blanks are allowed",
                    MainId::MAX
                ))
            })?,
        };
        let set_uuid = match &self.uuid {
            None => random_uuid()?,
            Some(text) => parse_uuid("--uuid", text)?,
        };
        let at = self.main.as_deref();
        let at = at.map(|path| Identity::of(path, Part::default()));
        let at = at.transpose()?;
        let mut spares = self.spares.open_with(&[], at.as_ref(), Access::Write)?;
        let geometries: Vec<Geometry> = spares
            .iter()
            .map(|spare| geometry(spare, main.block_bytes))
            .collect::<Result<_>>()?;
        if let (Some(path), false) = (&self.main, self.force) {
            if let Some(set) = spare_of_set(path)? {
                return Err(Error::foreign(format!(
                    "{}: this is a spare of set {set}, and it is to be main: are the two mixed up? \
                     If that is meant: --force",
                    path.display()
                )));
            }
        }
        self.check_content(&mut spares, &geometries)?;
        let Some((first, rest)) = geometries.split_first() else {
            return Err(Error::usage("no spare is given"));
        };
        let uuid = random_uuid()?;
        let superblock = Superblock::new(set_uuid, uuid, *first, main.sectors, main_id);
        let mut writer = Writer::create(&mut spares, superblock);
        for (geometry, index) in rest.iter().zip(1..) {
            let uuid = random_uuid()?;
            writer
                .metadata()
                .add_member(index, uuid, *geometry)
                .map_err(refused)?;
        }
        writer.sync()?;
        writer.spread()?;
        writer.extend(0)?;
        writer.end()?;
        let slots = writer.metadata().superblock().members();
        let slots: u64 = slots.map(|(_, member)| u64::from(member.slots)).sum();
        if let Some(place) = apply(&mut spares)? {
            return Err(Error::usage(format!("{place}: take another spare")));
        }
        put!(output, "{set_uuid}\n")?;
        output.tell(format_args!(
            "{}: formatted, {slots} slots of {} bytes",
            crate::set::names(&spares),
            main.block_bytes
        ));
        self.tell_line(&main, set_uuid, output);
        Ok(0)
    }

    /// The table line that goes with the new set.
    fn tell_line(&self, main: &Main, set_uuid: Uuid, output: &mut Output<'_>) {
        let name = |path: &Path| {
            // Where a table can't hold the name, it is the user's to find one.
            table_name(path).unwrap_or_else(|_| path.display().to_string())
        };
        let at = self.main.as_deref().map_or("MAIN".into(), name);
        let (first, more) = match self.spares.spares.split_first() {
            Some((first, more)) => (name(first), more),
            None => return,
        };
        let mut words = Vec::new();
        let parts = [&self.spares.spare_start, &self.spares.spare_len];
        for (key, part) in ["spare_start", "spare_len"].into_iter().zip(parts) {
            if let Some(number) = part.first() {
                words.push(format!("{key} {number}"));
            }
        }
        words.extend(more.iter().map(|path| format!("spare {}", name(path))));
        words.push(format!("uuid {set_uuid}"));
        if let Some(id) = &self.main_id {
            words.push(format!("main_id {id}"));
        }
        let sectors = main.sectors - main.sectors % u64::from(main.block_bytes / 512).max(1);
        output.tell(format_args!(
            "the table line, now and each time: the UUID makes sure that no other disk passes for this spare\n\
             0 {sectors} dm-remap {at} {first} {} {}",
            2 * words.len(),
            words.join(" ")
        ));
        let of_more = parts.iter().any(|part| !part.is_empty()) && !more.is_empty();
        if of_more {
            output.tell(format_args!(
                "a table line tells a part of the first spare only: make partitions or loop devices of the other parts"
            ));
        }
        let files = self.main.iter().chain(&self.spares.spares);
        if let Some(file) = files.into_iter().find(|path| path.is_file()) {
            output.tell(format_args!(
                "{}: an image file: attach it with losetup, and name the loop device instead",
                file.display()
            ));
        }
    }

    fn main(&self) -> Result<Main> {
        let found = match (&self.main, self.main_sectors) {
            (Some(path), _) => Main::open(path, self.main_block)?,
            (None, Some(sectors)) => Main {
                sectors,
                block_bytes: self.main_block.unwrap_or(512),
            },
            (None, None) => return Err(Error::usage("--main or --main-sectors is needed")),
        };
        if !matches!(found.block_bytes, 512 | 1024 | 2048 | 4096) {
            return Err(Error::usage(format!(
                "logical blocks of main of {} bytes are not supported: 512, 1024, 2048 and 4096 are",
                found.block_bytes
            )));
        }
        if found.sectors == 0 || found.sectors > 1 << 48 {
            return Err(Error::usage(format!(
                "main of {} sectors: from 1 to 2^48 are supported",
                found.sectors
            )));
        }
        Ok(found)
    }

    /// Refuses what must not be overwritten. Each spare is looked at by itself: they need not have
    /// anything to do with each other so far.
    fn check_content(&self, spares: &mut [Spare], geometries: &[Geometry]) -> Result<()> {
        let typed = match &self.force_uuid {
            Some(text) => Some(parse_uuid("--force-uuid", text)?),
            None => None,
        };
        for (spare, geometry) in spares.iter_mut().zip(geometries) {
            let name = spare.path().display().to_string();
            let supers = read_supers(std::slice::from_mut(spare))?;
            // Even if they contradict each other, each of them is whole.
            let whole = supers.said.iter().flatten().next();
            if let Some(found) = whole.map(|said| said.superblock.set_uuid) {
                match typed {
                    Some(typed) if typed == found => continue,
                    Some(_) => {
                        return Err(Error::foreign(format!(
                            "{name}: this is a spare of set {found}, which is not what --force-uuid names"
                        )))
                    }
                    None => {
                        return Err(Error::foreign(format!(
                            "{name}: this is a spare of set {found}, whose remaps would be lost; \
                             if that is meant: --force --force-uuid {found}"
                        )))
                    }
                }
            }
            if let Err(LoadError::Superblock {
                error: error @ (FormatError::Newer { .. } | FormatError::Features { .. }),
                ..
            }) = supers.truth
            {
                return Err(Error::foreign(format!(
                    "{name}: this is a spare of a later version of dm-remap ({error}); wipe it by other means if that is meant"
                )));
            }
            if let Some(Some(remains)) = supers.remains.first() {
                let found = remains.uuid;
                if typed != Some(found) {
                    return Err(Error::foreign(format!(
                        "{name}: the superblocks are gone, but {} blocks of the slot table of spare {found} \
                         are there, whose remaps would be lost (dmremap restore writes all anew from a \
                         dump); if that is meant: --force --force-uuid {found}",
                        remains.blocks
                    )));
                }
            }
            if self.force {
                continue;
            }
            if let Some(why) = not_blank(spare, geometry)? {
                return Err(Error::foreign(format!(
                    "{name}: not blank, {why}: --force overwrites what is there (wipefs tells what it is)"
                )));
            }
        }
        Ok(())
    }
}

/// Where everything is to lie on a spare.
fn geometry(spare: &Spare, block_bytes: u32) -> Result<Geometry> {
    let name = spare.path().display();
    if spare
        .logical_block()
        .is_some_and(|bytes| bytes > block_bytes)
    {
        return Err(Error::usage(format!(
            "{name}: its logical blocks are larger than main's, which are {block_bytes} bytes"
        )));
    }
    let align = spare.physical_block().unwrap_or(4096) / 512;
    let align = align.clamp(BLOCK_SECTORS as u32, ALIGN_SECTORS_MAX);
    Geometry::new(spare.sectors(), block_bytes / 512, align)
        .map_err(|error| Error::usage(format!("{name}: {error}")))
}

/// Why not everything reads as zero that the module would look at: all of a window up to 1 GiB, of a
/// larger one the metadata's places and 512 MiB at either end of the data.
fn not_blank(spare: &Spare, geometry: &Geometry) -> Result<Option<String>> {
    let (start, end) = (geometry.data_start(), geometry.data_end());
    let [head, tail] = geometry.metadata_ranges();
    let first_end = end.min(start.saturating_add(BLANK_SECTORS));
    let last_start = first_end.max(end.saturating_sub(BLANK_SECTORS));
    for (from, to) in [head, tail, (start, first_end), (last_start, end)] {
        let why = spare.not_zero(from, to)?;
        if why.is_some() {
            return Ok(why);
        }
    }
    Ok(None)
}

/// What the format must know of main.
pub struct Main {
    /// Its size.
    pub sectors: u64,
    /// Its logical block.
    pub block_bytes: u32,
}

impl Main {
    /// Looks at a device or an image file; `block_bytes` is what the user says of its blocks.
    pub fn open(path: &Path, block_bytes: Option<u32>) -> Result<Self> {
        let (sectors, own) = Self::look(path)?;
        let block_bytes = match (own, block_bytes) {
            (Some(own), Some(said)) if own != said => {
                return Err(Error::usage(format!(
                    "{}: its logical blocks are {own} bytes, not {said}",
                    path.display()
                )))
            }
            (Some(own), _) => own,
            (None, Some(said)) => said,
            (None, None) => {
                return Err(Error::usage(format!(
                "{}: a file does not tell the logical block of the disk: --main-block is needed",
                path.display()
            )))
            }
        };
        Ok(Self {
            sectors,
            block_bytes,
        })
    }

    /// Its size in sectors, and its logical block in bytes, which a file does not tell.
    pub fn look(path: &Path) -> Result<(u64, Option<u32>)> {
        let failed = |error: std::io::Error| Error::io(path, "open it", &error);
        let mut file = File::open(path).map_err(failed)?;
        let kind = file.metadata().map_err(failed)?;
        let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok((bytes / SECTOR_BYTES, sysfs::logical_block_bytes(&kind)))
    }
}

/// The set that a device is a spare of, if it is one as a whole.
pub(crate) fn spare_of_set(path: &Path) -> Result<Option<Uuid>> {
    let (sectors, _) = Main::look(path)?;
    if sectors < WINDOW_SECTORS_MIN {
        return Ok(None);
    }
    let mut spare = Spare::open(path, Part::default(), Access::Read)?;
    let supers = read_supers(std::slice::from_mut(&mut spare))?;
    let whole = supers.said.iter().flatten().next();
    Ok(whole.map(|said| said.superblock.set_uuid))
}

fn parse_uuid(name: &str, text: &str) -> Result<Uuid> {
    Uuid::parse(text)
        .filter(|uuid| !uuid.is_nil())
        .ok_or_else(|| {
            Error::usage(format!(
                "{name} {text:?}: no UUID; they look like 01234567-89ab-4def-8edc-ba9876543210"
            ))
        })
}
