// SPDX-License-Identifier: GPL-2.0
//! A device with remaps, to be damaged and put back as often as wanted.

use std::collections::BTreeMap;

use super::image;
use super::unwritable;
use vmtest::guest::hurry;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::PowerCut;
use vmtest::guest::stamps;
use vmtest::guest::Direct;
use vmtest::guest::Mapped;
use vmtest::guest::Remap;

/// How a check ended; what went wrong otherwise.
pub(crate) type Check = Result<(), String>;

/// Fails a check.
pub(crate) fn need(is_so: bool, what: impl FnOnce() -> String) -> Check {
    match is_so {
        true => Ok(()),
        false => Err(what()),
    }
}

/// Sectors of main that take no writes: what is written there is on the spare.
pub(crate) const WORN: u64 = 1000;
const WORN_END: u64 = 2000;

/// The disks, and what should be read.
pub(crate) struct Bench {
    /// The device.
    pub(crate) remap: Remap,
    /// The generation of each sector that was written.
    pub(crate) content: BTreeMap<u64, u64>,
}

/// What the spare holds, and what should be read then.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Saved {
    bytes: Vec<u8>,
    content: BTreeMap<u64, u64>,
}

impl Saved {
    /// The block that stood at `sector`.
    pub(crate) fn block(&self, sector: u64) -> [u8; 4096] {
        let at = sector as usize * 512;
        let block = self.bytes[at..].first_chunk();
        *block.expect("a block of the spare")
    }
}

impl Bench {
    /// A device with blocks of 512 bytes, on which nothing is remapped. The spare has several table
    /// blocks, all in use.
    pub(crate) fn new() -> Self {
        hurry();
        let remap = Remap::on(Options::memory(4 << 20), Options::memory(1 << 20), "");
        let mut main = remap.main.disk();
        main.spoil(WORN, WORN_END - WORN, unwritable());
        drop(main);
        Self {
            remap,
            content: BTreeMap::new(),
        }
    }

    /// The device in use.
    pub(crate) fn device(&self) -> &Mapped {
        self.remap.device()
    }

    /// Writes sectors that main does not take, and expects success.
    pub(crate) fn write(&mut self, offset: u64, sectors: u64, generation: u64) -> Check {
        let first = WORN + offset;
        self.remap
            .open()
            .write(first, &stamps(first, sectors, generation))
            .map_err(|error| format!("sectors {first} to {}: {error}", first + sectors))?;
        for sector in first..first + sectors {
            self.content.insert(sector, generation);
        }
        Ok(())
    }

    /// Checks that all that was written is remapped and can be read.
    pub(crate) fn check_content(&self) -> Check {
        let remapped = self.device().remapped();
        need(remapped == self.content.len() as u64, || {
            let wanted = self.content.len();
            format!("{remapped} blocks are remapped, not {wanted}")
        })?;
        let device = self.remap.open();
        for (&sector, &generation) in &self.content {
            check_sector(&device, sector, generation)?;
        }
        Ok(())
    }

    /// Makes the device.
    pub(crate) fn activate(&mut self) -> Check {
        let refused = self.remap.try_activate();
        refused.map_err(|refusal| format!("the device does not come up: {refusal:?}"))
    }

    /// A number of the status line.
    #[track_caller]
    pub(crate) fn number(&self, key: &str) -> u64 {
        let value = self.device().status_value(key);
        let value = value.and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| panic!("no {key} in {}", self.device().status()))
    }

    /// What is on the spare now.
    pub(crate) fn save(&self) -> Saved {
        let spare = self.remap.spare.disk();
        let mut bytes = vec![0; (spare.sectors() * 512) as usize];
        spare.peek(0, &mut bytes).unwrap();
        Saved {
            bytes,
            content: self.content.clone(),
        }
    }

    /// Makes the spare what it was, and healthy; the device is not in use.
    pub(crate) fn restore(&mut self, saved: &Saved) {
        let mut spare = self.remap.spare.disk();
        spare.revive();
        spare.lose_no_more();
        let sectors = spare.sectors();
        spare.heal(0, sectors);
        spare.poke(0, &saved.bytes).unwrap();
        // So that no later power cut goes back behind this.
        spare.power_cut(PowerCut::Keep).unwrap();
        self.content.clone_from(&saved.content);
    }

    /// Checks that the metadata has a second good copy of everything, with `supers` superblock
    /// copies in use: what the disk can read, not what was written.
    pub(crate) fn check_redundancy(&self, supers: usize) -> Check {
        let spare = &self.remap.spare;
        let superblock = image::superblock(spare);
        let device = Direct::open(&spare.path());
        let read = |sector| {
            let read = device.read(sector, 8);
            read.map_err(|error| format!("metadata at sector {sector}: {error}"))
        };
        let live = image::live_supers(&superblock);
        need(live.len() == supers, || {
            format!("superblock copies {live:?} are in use, not {supers}")
        })?;
        for copy in live {
            read(image::super_sector(spare, copy))?;
            need(
                image::super_copy(spare, copy).as_ref() == Some(&superblock),
                || format!("superblock copy {copy} is behind"),
            )?;
        }
        need(image::void_replicas(&superblock) == 0, || {
            "a replica is void".into()
        })?;
        for block in 0..image::high_water(&superblock) {
            let [a, b] = [0, 1].map(|replica| image::table_sector(&superblock, replica, block));
            need(read(a)? == read(b)?, || {
                format!("the replicas of block {block} differ")
            })?;
            need(
                image::table_at(spare, &superblock, a, block).is_some(),
                || format!("table block {block} is bad"),
            )?;
        }
        Ok(())
    }
}

/// Checks what a sector holds.
pub(crate) fn check_sector(device: &Direct, sector: u64, generation: u64) -> Check {
    let read = device
        .read(sector, 1)
        .map_err(|error| format!("sector {sector}: {error}"))?;
    need(read == stamps(sector, 1, generation), || {
        let found = vmtest::guest::identify(&read);
        format!("sector {sector}: {found:?}, not generation {generation}")
    })
}
