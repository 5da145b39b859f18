// SPDX-License-Identifier: GPL-2.0

//! `dmremap linear-table`.

use std::fmt::Write;
use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use dm_remap_logic::load;
use dm_remap_logic::load::Expected;
use dm_remap_logic::slot::State;

use crate::cli::Output;
use crate::cli::Spares;
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

const MORE: &str = "\
Prints a table of dm-linear lines that makes the same device without the module:

  dmremap linear-table SPARE --main DEV | dmsetup create --readonly NAME

Blocks that are remapped are on the spare, all others on main. Sectors that main could not read and \
that were not written since are main's, too: it says itself whether it can read them.

A table has at most 1,048,576 lines. If more are needed, --output-dir is, too: several tables are \
written there, of which one puts the others together, and create.sh and remove.sh, which call \
dmsetup for all of them in the right order. Arguments to create.sh are options for dmsetup create, \
such as --readonly.

Where a crash has left two replicas that differ, the newer one is taken, as the module does it. Do \
not write to the device made so while remaps may still be added, that is, while the module uses \
the spare.";

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
        let sectors = self.sectors(&set, &spares)?;
        for path in spares.iter().map(Spare::path).chain([self.main.as_path()]) {
            self.check_path(path, output)?;
        }
        for spare in spares.iter().filter(|spare| spare.is_busy()) {
            output.tell(format_args!(
                "{}: in use: if the module uses it, this table is outdated as soon as it moves another block",
                spare.path().display()
            ));
        }
        let lines = linear::lines(sectors, set.slot_sectors(), slots(&set, &spares));
        let tables = linear::stack(lines, self.max_lines);
        let name = |device: Device| match device {
            Device::Main => self.main.display().to_string(),
            Device::Spare(index) => spares
                .get(index)
                .map_or_else(String::new, |spare| spare.path().display().to_string()),
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
    fn sectors(&self, set: &Set, spares: &[Spare]) -> Result<u64> {
        let superblock = &set.superblock;
        let block = superblock.main_block_bytes;
        let sectors = match self.main_sectors {
            Some(sectors) => sectors,
            None => {
                let main = Main::open(&self.main, None)
                    .or_else(|_| Main::open(&self.main, Some(block)))
                    .map_err(|error| {
                        Error::usage(format!("{error} (--main-sectors does without main)"))
                    })?;
                let expected = Expected {
                    uuid: None,
                    main_id: None,
                    main_sectors: main.sectors,
                    main_block_bytes: main.block_bytes,
                };
                load::check_expected(superblock, &expected).map_err(|error| {
                    let error = error.against(&expected);
                    Error::foreign(format!(
                        "{}: {error} ({})",
                        names(spares),
                        self.main.display()
                    ))
                })?;
                main.sectors
            }
        };
        let sectors = sectors - sectors % set.slot_sectors();
        if sectors == 0 {
            return Err(Error::usage("--main-sectors: at least one block of main"));
        }
        Ok(sectors)
    }

    fn check_path(&self, path: &Path, output: &mut Output<'_>) -> Result<()> {
        let text = path.to_str().unwrap_or(" ");
        if text.contains(char::is_whitespace) {
            return Err(Error::usage(format!(
                "{}: a table can't hold a name with blanks in it",
                path.display()
            )));
        }
        if path.is_file() {
            output.tell(format_args!(
                "{}: an image file: attach it with losetup, and give the loop device instead",
                path.display()
            ));
        }
        Ok(())
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
        if self.name.is_empty()
            || !self
                .name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            return Err(Error::usage(format!(
                "--name {:?}: letters, digits, '-', '_' and '.' are allowed",
                self.name
            )));
        }
        let mut files = Vec::new();
        let mut create = String::from(
            "#!/bin/sh\n# Made by dmremap linear-table. Arguments are options for dmsetup create.\n\
             set -e\ncd \"$(dirname \"$0\")\"\n",
        );
        let mut remove = Vec::new();
        for (index, table) in tables.iter().enumerate() {
            let own = self.name_of(index, index + 1 == tables.len());
            files.push((format!("{own}.table"), linear::text(table, &name)));
            // Writing to a string does not fail.
            let _ = writeln!(create, "dmsetup create \"$@\" {own} {own}.table");
            remove.push(format!("dmsetup remove \"$@\" {own}\n"));
        }
        remove.reverse();
        let remove = format!("#!/bin/sh\nset -e\n{}", remove.concat());
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

/// The blocks that slots serve, in order.
fn slots<'a>(set: &'a Set, spares: &'a [Spare]) -> impl Iterator<Item = (u64, Target)> + 'a {
    set.claims.iter().filter_map(|(main_block, slot)| {
        let entry = set.entry(*slot)?;
        if entry.word.state() != State::Valid {
            return None;
        }
        let target = match set.slot_place(spares, *slot) {
            Some(place) => Target::Linear {
                device: Device::Spare(place.spare),
                sector: place.sector,
            },
            None => Target::Error,
        };
        Some((main_block.saturating_mul(set.slot_sectors()), target))
    })
}
