// SPDX-License-Identifier: GPL-2.0

//! The superblock copies, on all spares given.

use dm_remap_logic::format::Block;
use dm_remap_logic::format::CopyId;
use dm_remap_logic::format::FormatError;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::MEMBERS_MAX;
use dm_remap_logic::format::SUPER_COPIES;
use dm_remap_logic::load;
use dm_remap_logic::load::Found;
use dm_remap_logic::load::LoadError;
use dm_remap_logic::load::SuperImage;

use super::image;
use super::member_of;
use super::names;
use super::remains;
use super::remains::Remains;
use super::Copy;
use super::CopyFound;
use super::Place;
use super::State;
use crate::error::Error;
use crate::error::Result;
use crate::spare::Spare;
use crate::torn;

/// What one superblock copy says.
#[derive(Clone, Debug)]
pub struct Said {
    /// All of it.
    pub superblock: Superblock,
    /// The member that the copy lies on.
    pub member: u8,
}

/// What the superblock copies say.
#[derive(Debug)]
pub struct Supers {
    /// All copies, four of each spare given, in that order.
    pub copies: Vec<CopyFound>,
    /// What each says, if it is whole.
    pub said: Vec<Option<Said>>,
    /// The truth, or why there is none.
    pub truth: Result<(Found, Box<Superblock>), LoadError>,
    /// What is left of slot tables on each spare that has no whole copy.
    pub remains: Vec<Option<Remains>>,
}

/// Why there is no superblock to go by.
#[derive(Debug)]
pub struct Refusal {
    /// In words.
    pub error: Error,
    /// Whether there is a spare on it without any superblock copy, which only a dump brings back.
    pub takes_dump: bool,
}

impl Supers {
    /// The copies on a spare, and what each says.
    pub fn of(&self, spare: usize) -> impl Iterator<Item = (&CopyFound, &Option<Said>)> {
        let copies = usize::from(SUPER_COPIES);
        let all = self.copies.iter().zip(&self.said);
        all.skip(spare * copies).take(copies)
    }

    /// Why these spares can't be used; none if there is a superblock to go by, for all of them.
    pub fn refusal(&self, spares: &[Spare]) -> Option<Refusal> {
        let (spare, why, error) = match &self.truth {
            Err(error) => {
                let spare = spare_of(error);
                (spare, error.to_string(), no_superblock(spares, error))
            }
            Ok((Found::Blank, _)) => {
                let text = "blank: no dm-remap spare, or not the part of the device that is one";
                let error = Error::foreign(format!("{}: {text}", names(spares)));
                let spare = self.remains.iter().position(Option::is_some);
                (spare, "all are zero".into(), error)
            }
            Ok((Found::Ours(chosen), superblock)) => {
                let blank = |number: &usize| chosen.blank & (1 << number) != 0;
                let number = (0..spares.len()).find(blank)?;
                let error = Error::foreign(format!(
                    "{}: blank, and no member of set {}: leave it out",
                    spares.get(number)?.path().display(),
                    superblock.set_uuid
                ));
                (Some(number), "all are zero".into(), error)
            }
        };
        let remains = spare.and_then(|spare| Some((spare, self.remains.get(spare)?.as_ref()?)));
        let Some((spare, remains)) = remains else {
            return Some(Refusal {
                error,
                takes_dump: false,
            });
        };
        let name = spares.get(spare).map(|s| s.path().display().to_string());
        let mut others = self.said.iter().flatten();
        let by_others = match others.any(|s| s.superblock.find_member(&remains.uuid).is_some()) {
            true => "; the other spares of its set, named alone, give such a dump",
            false => "",
        };
        let error = Error::damage(format!(
            "{}: no superblock copy is left ({why}), but this is a dm-remap spare: {} blocks of the slot \
             table of spare {} are there, the first at sector {}; dmremap restore writes all anew from \
             a dump{by_others}",
            name.unwrap_or_default(),
            remains.blocks,
            remains.uuid,
            remains.sector
        ));
        Some(Refusal {
            error,
            takes_dump: true,
        })
    }
}

/// The spare that an error is about, if it has no good superblock copy.
fn spare_of(error: &LoadError) -> Option<usize> {
    match error {
        LoadError::Superblock {
            error: FormatError::Newer { .. } | FormatError::Features { .. },
            ..
        } => None,
        LoadError::Superblock { spare, .. } | LoadError::SuperblockUnreadable { spare, .. } => {
            Some(usize::from(*spare))
        }
        _ => None,
    }
}

/// Reads the superblock copies of all spares given.
pub fn read_supers(spares: &mut [Spare]) -> Result<Supers> {
    if spares.len() > usize::from(MEMBERS_MAX) {
        return Err(Error::usage(format!(
            "{} spares are given: {}",
            spares.len(),
            LoadError::TooMany
        )));
    }
    let mut reads = Vec::new();
    for (number, spare) in spares.iter_mut().enumerate() {
        for (sector, copy) in super_sectors(spare)?.into_iter().zip(0u8..) {
            let place = Place {
                spare: number,
                sector,
            };
            reads.push((place, copy, spare.read(sector)?));
        }
    }
    let images: Vec<SuperImage<'_>> = reads
        .iter()
        .map(|(place, copy, read)| SuperImage {
            // There are four at most.
            spare: place.spare as u8,
            copy: *copy,
            image: image(read),
        })
        .collect();
    let mut superblock = Box::new(Superblock::EMPTY);
    let truth = load::choose_superblock(&images, &mut superblock).map(|found| (found, superblock));
    let said = reads
        .iter()
        .map(|(_, copy, read)| {
            let mut superblock = Superblock::EMPTY;
            let member = superblock.decode_into(read.as_deref()?, *copy).ok()?;
            Some(Said { superblock, member })
        })
        .collect();
    let copies = reads
        .iter()
        .map(|(place, copy, read)| CopyFound {
            copy: Copy::Super { copy: *copy },
            place: Some(*place),
            state: super_state(read.as_deref(), *place, *copy, truth.as_ref().ok()),
        })
        .collect();
    let mut supers = Supers {
        copies,
        said,
        truth,
        remains: Vec::new(),
    };
    for (number, spare) in spares.iter_mut().enumerate() {
        let is_whole = supers.of(number).any(|(_, said)| said.is_some());
        supers.remains.push(match is_whole {
            true => None,
            false => remains::find(spare)?,
        });
    }
    Ok(supers)
}

/// Where the copies are: where those at the head say, or at the end of the window.
fn super_sectors(spare: &mut Spare) -> Result<[u64; SUPER_COPIES as usize]> {
    let mut sectors = load::superblock_sectors(spare.sectors())
        .ok_or_else(|| Error::usage(format!("{}: too small", spare.path().display())))?;
    let [first, second, ..] = sectors;
    let head = [spare.read(first)?, spare.read(second)?];
    let head = [image(&head[0]), image(&head[1])];
    let known = load::window_sectors(&head, &mut Superblock::EMPTY.clone());
    let known = known.filter(|known| *known <= spare.sectors());
    if let Some(known) = known.and_then(load::superblock_sectors) {
        sectors = known;
    }
    Ok(sectors)
}

fn super_state(
    block: Option<&Block>,
    place: Place,
    copy: u8,
    truth: Option<&(Found, Box<Superblock>)>,
) -> State {
    let known = match truth {
        Some((Found::Ours(chosen), superblock)) => member_of(chosen, place.spare)
            .map(|member| (chosen, superblock, CopyId { member, copy })),
        _ => None,
    };
    if known.is_some_and(|(_, superblock, id)| superblock.live_supers() & id.bit() == 0) {
        return State::Void;
    }
    let Some(block) = block else {
        return State::Unreadable;
    };
    match (Superblock::decode(block, copy), known) {
        (Ok(_), Some((chosen, _, id))) if chosen.rewrite & id.bit() == 0 => State::True,
        (Ok(found), Some(_)) => State::Behind {
            sequence: found.sequence,
        },
        (Ok(found), None) => State::Doubtful {
            sequence: found.sequence,
        },
        (Err(FormatError::Checksum), Some((_, superblock, id)))
            if torn::is_torn_super(block, superblock, id) =>
        {
            State::Torn
        }
        (Err(error), _) => State::Bad(error),
    }
}

/// Why spares without a usable superblock can't be read.
fn no_superblock(spares: &[Spare], error: &LoadError) -> Error {
    let (at, is_foreign) = match *error {
        LoadError::Superblock { spare, error, .. } => (
            Some(spare),
            matches!(
                error,
                FormatError::Blank
                    | FormatError::Foreign
                    | FormatError::Newer { .. }
                    | FormatError::Features { .. }
            ),
        ),
        LoadError::SuperblockUnreadable { spare, .. } | LoadError::MixedSpares { spare } => {
            (Some(spare), false)
        }
        LoadError::NotMember { spare } | LoadError::Apart { spare } => (Some(spare), true),
        LoadError::Twice { .. } => (None, true),
        _ => (None, false),
    };
    let at = at.and_then(|spare| spares.get(usize::from(spare)));
    let name = at.map_or_else(|| names(spares), |spare| spare.path().display().to_string());
    let text = format!("{name}: {error}");
    match is_foreign {
        true => Error::foreign(text),
        false => Error::damage(text),
    }
}
