// SPDX-License-Identifier: GPL-2.0

//! `dmremap linear-table`.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::path;
use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use dm_remap_logic::format::SECTOR_BYTES;
use dm_remap_logic::load;
use dm_remap_logic::load::Expected;
use dm_remap_logic::slot::SlotState;

use crate::cli::Output;
use crate::cli::Spares;
use crate::commands::format::spare_of_set;
use crate::commands::format::Main;
use crate::error::Error;
use crate::error::Result;
use crate::identity::Identity;
use crate::linear;
use crate::linear::Device;
use crate::linear::Line;
use crate::linear::Target;
use crate::linear::LINES_MAX;
use crate::put;
use crate::save;
use crate::set::names;
use crate::set::Set;
use crate::spare::Access;
use crate::spare::Part;
use crate::spare::Spare;
use crate::sysfs;

const MORE: &str = "\
Prints a table of dm-linear lines that makes the same device without the module:

  dmremap linear-table SPARE --main DEV | dmsetup create --readonly NAME

Blocks that are remapped are on the spare, all others on main. Sectors that main could not read and \
that were not written since are main's, too: it says itself whether it can read them. Those that \
main is not to be read for (avoid) are errors. What was given up (zero) is on the spare.

A table has at most 1,048,576 lines. If more are needed, --output-dir is, too: several tables are \
written there, of which one puts the others together, and create.sh and remove.sh, which call \
dmsetup for all of them in the right order. Arguments to create.sh are options for dmsetup create, \
such as --readonly.

Where a crash has left two replicas that differ, the newer one is taken, as the module does it. Do \
not write to the device made so while remaps may still be added, that is, while the module uses \
the spare.";

/// A name may have 127 bytes; inner devices have a number behind it.
const NAME_MAX: usize = 100;

/// Makes all devices, or none.
const CREATE: &str = "\
#!/bin/sh
# Made by dmremap linear-table. Arguments are options for dmsetup create.
set -e
cd -- \"$(dirname -- \"$0\")\"
made=
undo() {
	for name in $made; do
		dmsetup remove \"$name\" || :
	done
}
trap undo EXIT
for name in @NAMES@; do
	dmsetup create \"$@\" \"$name\" \"$name.table\"
	made=\"$name $made\"
done
trap - EXIT
";

/// Print an equivalent table of dm-linear lines, for systems without the module
#[derive(Debug, Args)]
#[command(after_help = MORE)]
pub struct LinearTable {
    #[command(flatten)]
    spares: Spares,

    /// The main device, as it is to appear in the table
    #[arg(long, value_name = "DEV")]
    main: PathBuf,

    /// The size of the device in sectors, if it is not main's; main is not looked at then
    #[arg(long, value_name = "N")]
    main_sectors: Option<u64>,

    /// Another spare of the set
    #[arg(long = "spare", value_name = "DEV")]
    more: Vec<PathBuf>,

    /// Go without spares that are not given: what they served is an error
    #[arg(long)]
    degraded: bool,

    /// Write the table, or several, and scripts that call dmsetup into this directory, over
    /// nothing that is there
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,

    /// The name of the device in what is written to the directory
    #[arg(long, default_value = "rescued")]
    name: String,

    /// The most lines of a table
    #[arg(long, value_name = "N", default_value_t = LINES_MAX, hide = true)]
    max_lines: usize,
}

impl LinearTable {
    /// Does it.
    pub fn run(&self, output: &mut Output<'_>) -> Result<u8> {
        if self.max_lines < 2 {
            return Err(Error::usage("--max-lines: at least 2"));
        }
        self.check_name()?;
        // What is not there can't be the same as anything.
        let part = Part {
            start: None,
            len: self.main_sectors,
        };
        let at = Identity::of(&self.main, part).ok();
        let mut spares = self
            .spares
            .open_with(&self.more, at.as_ref(), Access::Read)?;
        let set = Set::load(&mut spares)?;
        if !self.degraded {
            let hint = "name it with --spare, or use --degraded for errors in its place";
            if let Some((index, member)) = set.absent().next() {
                return Err(Error::damage(format!(
                    "{}: spare {}, number {index} of the set, is not given: {hint}",
                    names(&spares),
                    member.uuid
                )));
            }
        }
        set.refuse_problems(&spares, "dmremap check and repair tell more")?;
        let sectors = self.sectors(&set, &spares, output)?;
        let main = self.table_name(&self.main, output)?;
        let paths = spares.iter().map(Spare::path);
        let names: Vec<String> = paths
            .map(|path| self.table_name(path, output))
            .collect::<Result<_>>()?;
        for spare in spares.iter().filter(|spare| spare.is_busy()) {
            output.tell(format_args!(
                "{}: in use: if the module uses it, this table is outdated as soon as it moves another block",
                spare.path().display()
            ));
        }
        let lines = linear::lines(
            sectors,
            set.slot_sectors(),
            slots(&set, &spares),
            set.superblock.avoided.ranges(),
        );
        let tables = linear::stack(lines, self.max_lines);
        self.check_blocks(&tables, &set, &spares)?;
        let name = |device: Device| match device {
            Device::Main => main.clone(),
            Device::Spare(index) => names.get(index).cloned().unwrap_or_default(),
            Device::Table(index) => format!("/dev/mapper/{}", self.name_of(index, false)),
        };
        match (&self.output_dir, tables.as_slice()) {
            (Some(folder), _) => self.write(folder, &tables, name, output),
            (None, [table]) => put!(output, "{}", linear::text(table, name)),
            (None, _) => {
                let lines: usize = tables.iter().map(Vec::len).sum();
                Err(Error::usage(format!(
                    "{lines} lines in {} tables are needed, as a table has at most {}: give --output-dir",
                    tables.len(),
                    self.max_lines
                )))
            }
        }?;
        Ok(0)
    }

    /// The size of the device to be made.
    fn sectors(&self, set: &Set, spares: &[Spare], output: &mut Output<'_>) -> Result<u64> {
        let superblock = &set.superblock;
        let block = superblock.main_block_bytes;
        let sectors = match self.main_sectors {
            Some(sectors) => {
                let there = fs::metadata(&self.main).ok();
                let there = there.filter(|found| found.file_type().is_block_device());
                let there = there.and_then(|found| sysfs::sectors(found.rdev()));
                if let Some(there) = there.filter(|there| *there < sectors) {
                    return Err(Error::usage(format!(
                        "--main-sectors {sectors}: {} has {there}",
                        self.main.display()
                    )));
                }
                sectors
            }
            None => {
                let (sectors, own) = Main::look(&self.main).map_err(|error| {
                    Error::usage(format!("{error} (--main-sectors does without main)"))
                })?;
                let expected = Expected {
                    uuid: None,
                    main_id: None,
                    main_sectors: sectors,
                    // What dm-linear makes of another one is looked at later.
                    main_block_bytes: block,
                };
                load::check_expected(superblock, &expected).map_err(|error| {
                    let error = error.against(&expected);
                    Error::foreign(format!(
                        "{}: {error} ({}); --main-sectors {sectors} makes a device of that size",
                        names(spares),
                        self.main.display()
                    ))
                })?;
                if let Some(set) = spare_of_set(&self.main)? {
                    output.tell(format_args!(
                        "{}: this is a spare of set {set}: is that meant to be main?",
                        self.main.display()
                    ));
                }
                if let Some(own) = own.filter(|own| *own != block) {
                    output.tell(format_args!(
                        "{}: has logical blocks of {own} bytes, main had {block}: \
                         dm-linear does not mind, the module refuses it",
                        self.main.display()
                    ));
                }
                sectors
            }
        };
        let sectors = sectors - sectors % set.slot_sectors();
        if sectors == 0 {
            return Err(Error::usage("--main-sectors: at least one block of main"));
        }
        Ok(sectors)
    }

    /// Refuses tables that device mapper would refuse, because some device has larger blocks than
    /// main had when it was remapped.
    fn check_blocks(&self, tables: &[Vec<Line>], set: &Set, spares: &[Spare]) -> Result<()> {
        let main = fs::metadata(&self.main).ok();
        let main = main.and_then(|found| sysfs::logical_block_bytes(&found));
        let bytes = |device: Device| match device {
            Device::Main => main,
            Device::Spare(index) => spares.get(index).and_then(Spare::logical_block),
            Device::Table(_) => None,
        };
        let block = |device| u64::from(bytes(device).unwrap_or(512)) / SECTOR_BYTES;
        let Some(refused) = linear::refused(tables, block) else {
            return Ok(());
        };
        let all = (0..spares.len()).map(Device::Spare).chain([Device::Main]);
        let too_large = all.filter(|device| block(*device) >= refused.block);
        let paths = too_large.filter_map(|device| match device {
            Device::Spare(index) => spares.get(index).map(Spare::path),
            _ => Some(self.main.as_path()),
        });
        let paths: Vec<String> = paths.map(|path| path.display().to_string()).collect();
        let bytes = refused.block * SECTOR_BYTES;
        Err(Error::usage(format!(
            "{}: has logical blocks of {bytes} bytes, and the table must divide them at sector {} (main had {}): \
             the kernel would refuse it; name a loop device with smaller blocks instead, which \
             losetup --find --show --sector-size {} {} makes",
            paths.join(", "),
            refused.line.start,
            set.superblock.main_block_bytes,
            set.superblock.main_block_bytes,
            paths.first().map_or("", String::as_str)
        )))
    }

    /// A device as it stands in a table.
    fn table_name(&self, path: &Path, output: &mut Output<'_>) -> Result<String> {
        let name = table_name(path)?;
        if path.is_file() {
            output.tell(format_args!(
                "{}: an image file: attach it with losetup, and give the loop device instead",
                path.display()
            ));
        }
        Ok(name)
    }

    fn check_name(&self) -> Result<()> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let is_good = self.name.bytes().all(allowed)
            && (1..=NAME_MAX).contains(&self.name.len())
            && !self.name.starts_with('-')
            && !["control", ".", ".."].contains(&self.name.as_str());
        match is_good {
            true => Ok(()),
            false => Err(Error::usage(format!(
                "--name {:?}: up to {NAME_MAX} letters, digits, '-', '_' and '.' are allowed, '-' not \
                 at the beginning, and not \"control\"",
                self.name
            ))),
        }
    }

    fn name_of(&self, index: usize, is_last: bool) -> String {
        match is_last {
            true => self.name.clone(),
            false => format!("{}-{}", self.name, index + 1),
        }
    }

    fn write(
        &self,
        folder: &Path,
        tables: &[Vec<Line>],
        name: impl Fn(Device) -> String,
        output: &mut Output<'_>,
    ) -> Result<()> {
        let mut files = Vec::new();
        let mut made = Vec::new();
        for (index, table) in tables.iter().enumerate() {
            let own = self.name_of(index, index + 1 == tables.len());
            files.push((format!("{own}.table"), linear::text(table, &name)));
            made.push(own);
        }
        let create = CREATE.replace("@NAMES@", &made.join(" "));
        made.reverse();
        let remove = made
            .iter()
            .map(|own| format!("dmsetup remove \"$@\" {own}\n"));
        let remove: String = remove.collect();
        let remove = format!("#!/bin/sh\nset -e\n{remove}");
        files.push(("remove.sh".into(), remove));
        // Last, as it needs the others.
        files.push(("create.sh".into(), create));
        save::create_all(folder, &files)?;
        let lines: usize = tables.iter().map(Vec::len).sum();
        output.tell(format_args!(
            "{lines} lines in {} tables; now: sh {}",
            tables.len(),
            folder.join("create.sh").display()
        ));
        Ok(())
    }
}

/// A device as it stands in a table: found from any directory, and read by dmsetup and the kernel as it
/// is meant.
pub(crate) fn table_name(path: &Path) -> Result<String> {
    let text = path.to_str().unwrap_or(" ");
    let is_number = |part: &str| part.parse::<u32>().is_ok();
    let is_numbers = text
        .split_once(':')
        .is_some_and(|(major, minor)| is_number(major) && is_number(minor));
    let absolute = match is_numbers && !path.exists() {
        // Device mapper's own way to name a device.
        true => path.into(),
        false => path::absolute(path).map_err(|e| Error::io(path, "find it", &e))?,
    };
    let text = absolute.to_str().unwrap_or(" ");
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
        return Err(Error::usage(format!(
            "{}: a table can't hold a name with blanks or '#' in it: make a link to it",
            absolute.display()
        )));
    }
    // A backslash stands for what follows it, in a table.
    Ok(text.replace('\\', "\\\\"))
}

/// The blocks that slots serve, in order.
fn slots<'a>(set: &'a Set, spares: &'a [Spare]) -> impl Iterator<Item = (u64, Target)> + 'a {
    set.claims.iter().filter_map(|(main_block, slot)| {
        let entry = set.entry(*slot)?;
        let place = match entry.word.state() {
            SlotState::Valid => set.slot_place(spares, *slot),
            // What its spare had is lost, and main has something else.
            SlotState::Lost => None,
            SlotState::Free | SlotState::Pending | SlotState::Bad => return None,
        };
        let target = match place {
            Some(place) => Target::Linear {
                device: Device::Spare(place.spare),
                sector: place.sector,
            },
            None => Target::Error,
        };
        Some((main_block.saturating_mul(set.slot_sectors()), target))
    })
}
