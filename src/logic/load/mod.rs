// SPDX-License-Identifier: GPL-2.0

//! Finding the truth in what was read from a spare.
//!
//! Nothing here reads or writes. The driver hands over what it read, or that it could not, and is
//! told which copy is the truth and which others have to be written again before any I/O is served
//! (M3): served from one copy, a later crash in the middle of a commit could otherwise fall back
//! to a copy that is older than what readers already saw.
//!
//! What makes a copy the truth:
//! - Its checksum, its own place and its spare are right.
//! - Of several such, the highest sequence wins. A replica is written only after the other one is
//!   known to be good, so the winner is whole, and all that the loser has was superseded. Of
//!   superblocks, the highest set epoch wins before that: copies on a member that the set went
//!   without may have got further in a pass that no other member saw the end of.
//! - Two with the same sequence, the highest, have the same content, or nothing can be believed.
//! - A copy that the winning superblock calls void is never looked at (M2). So it is with all that
//!   lies on a member that the set was used without: it comes back as if it were new, but for the
//!   content of its slots, as far as the others still say that they hold something (M9). Members
//!   that were used without each other are refused.
//! - A table block with an epoch that its superblock does not know means that the superblock is
//!   an old one that stopped taking writes: epochs are durable in every live superblock before
//!   they are used (M4).

mod error;

pub use self::error::{
    Disagreement,
    LoadError,
    NOT_BLANK, //
};

use super::{
    crc32c::{
        crc32c,
        Checksum, //
    },
    format::{
        geometry,
        sequence_epoch,
        table_block::TableBlock,
        Block,
        BlockId,
        CopyId,
        FormatError,
        Member,
        Superblock,
        MEMBERS_MAX,
        REPLICAS,
        SUPER_COPIES, //
    },
    slot::Entry,
    text::{
        MainId,
        Uuid, //
    }, //
};

/// What reading one metadata block gave.
#[derive(Clone, Copy, Debug)]
pub enum Image<'a> {
    /// Its bytes.
    Read(&'a Block),
    /// The medium could not give them. (Other failures, of a spare that is offline for instance,
    /// are no result: loading fails with them.)
    Unreadable,
}

/// What was read of one superblock copy.
#[derive(Clone, Copy, Debug)]
pub struct SuperImage<'a> {
    /// The spare that it was read from, in the order of the table line.
    pub spare: u8,
    /// The number of the copy.
    pub copy: u8,
    /// What reading gave.
    pub image: Image<'a>,
}

/// What the superblock copies say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// All copies on all spares were read and are zero.
    Blank,
    /// There is a set of ours.
    Ours(Chosen),
}

/// The superblock to go by, and how what is there differs from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The copies that say something else or nothing, and are not known as void; a bit each
    /// ([`CopyId::bit`]).
    pub rewrite: u16,
    /// Which spare each member is.
    pub spares: [Option<u8>; MEMBERS_MAX as usize],
    /// The spares that are blank, and may become members; a bit each.
    pub blank: u8,
    /// The spares that were blank when they were about to become members, and that the members
    /// which tell so take for these; a bit each. All else on them must still be zero: the driver
    /// checks that as with those that are blank.
    pub joining: u8,
    /// Those of them on which the first superblock copies were begun.
    pub begun: u8,
}

impl Chosen {
    /// The first member that is not there.
    pub fn absent(&self, superblock: &Superblock) -> Option<u8> {
        let mut members = superblock.members();
        members.find_map(|(index, _)| self.spare_of(index).is_none().then_some(index))
    }

    /// Which member a spare is.
    pub fn member_on(&self, spare: u8) -> Option<u8> {
        (0..MEMBERS_MAX).find(|index| self.spare_of(*index) == Some(spare))
    }

    /// Which spare member number `index` is.
    pub fn spare_of(&self, index: u8) -> Option<u8> {
        *self.spares.get(usize::from(index))?
    }
}

/// The truth about one block of the slot table.
#[derive(Clone, Copy, Debug)]
pub enum Resolved<'a> {
    /// It is this.
    Block {
        /// The image to go by.
        truth: TableBlock<'a>,
        /// The replica that it was read from.
        replica: u8,
        /// The replicas that have something else or nothing; a bit each.
        rewrite: u8,
    },
    /// It is not in use: it lies behind the high-water mark and no replica has it.
    End,
}

/// Of two entries that claim one main block, the one to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The first.
    First,
    /// The second.
    Second,
}

/// The size of a spare's window, as far as the two copies at its head know it. With it the driver
/// finds the copies at the tail; without, it takes the window that the table line gives.
///
/// What it decodes is left in `scratch`.
pub fn window_sectors(head: &[Image<'_>; 2], scratch: &mut Superblock) -> Option<u64> {
    head.iter().zip(0u8..).find_map(|(image, copy)| {
        let Image::Read(block) = image else {
            return None;
        };
        let own = scratch.decode_into(block, copy).ok()?;
        Some(scratch.member(own)?.geometry.window_sectors())
    })
}

/// Where the four superblock copies of a window lie.
pub fn superblock_sectors(window_sectors: u64) -> Option<[u64; SUPER_COPIES as usize]> {
    Some([
        geometry::super_sector_at_head(0)?,
        geometry::super_sector_at_head(1)?,
        geometry::super_sector_at_tail(2, window_sectors)?,
        geometry::super_sector_at_tail(3, window_sectors)?,
    ])
}

/// Checks that what is to be main is no spare, by what was read of it where a spare has its superblock
/// copies. One that cannot be read tells nothing.
pub fn check_main(images: &[SuperImage<'_>], scratch: &mut Superblock) -> Result<(), LoadError> {
    for read in images {
        let Image::Read(block) = read.image else {
            continue;
        };
        let set = match scratch.decode_into(block, read.copy) {
            Ok(_) => Some(scratch.set_uuid),
            Err(FormatError::Newer { .. } | FormatError::Features { .. }) => None,
            Err(_) => continue,
        };
        return Err(LoadError::MainIsSpare { set });
    }
    Ok(())
}

/// What is compared between superblock copies. A whole superblock is large for a kernel's stack.
#[derive(Clone, Copy)]
struct Summary {
    spare: u8,
    id: CopyId,
    set_uuid: Uuid,
    /// The member that the copy lies on.
    member_uuid: Uuid,
    set_epoch: u64,
    sequence: u64,
    live_supers: u16,
    /// Members that the set was used without, and that do not know what was done; a bit each.
    without: u8,
    /// It was to take over from dead ones, and has not got to the end of it.
    unfinished: bool,
}

impl Summary {
    fn of(read: &SuperImage<'_>, scratch: &mut Superblock) -> Option<Result<Self, FormatError>> {
        let Image::Read(block) = read.image else {
            return None;
        };
        let own = match scratch.decode_into(block, read.copy) {
            Ok(own) => own,
            Err(error) => return Some(Err(error)),
        };
        let without = scratch.members().fold(0, |mask, (index, member)| {
            mask | u8::from(member.is_left_out()) << index.min(7)
        });
        Some(Ok(Summary {
            spare: read.spare,
            id: CopyId {
                member: own,
                copy: read.copy,
            },
            set_uuid: scratch.set_uuid,
            member_uuid: scratch.member(own)?.uuid,
            set_epoch: scratch.set_epoch,
            sequence: scratch.sequence,
            live_supers: scratch.live_supers(),
            without,
            unfinished: scratch.is_unfinished(),
        }))
    }

    /// What orders superblocks.
    fn age(&self) -> (u64, u64) {
        (self.set_epoch, self.sequence)
    }

    fn writes_off(&self, other: &Summary) -> bool {
        self.live_supers & other.id.bit() == 0
    }

    /// Of two that are as new as each other and say different things: one may be a copy that failed,
    /// was written off by the others and reads again.
    fn prevails_over(&self, other: &Summary) -> bool {
        self.writes_off(other) && !other.writes_off(self)
    }

    fn went_without(&self, other: &Summary) -> bool {
        self.without & (1 << other.id.member.min(7)) != 0
    }
}

/// Chooses the superblock to go by, from what was read of the four copies on each spare, and leaves
/// it in `superblock`. After an error, what is in there means nothing.
#[inline(never)] // The kernel's stack is small, and the caller has read the copies before.
pub fn choose_superblock(
    images: &[SuperImage<'_>],
    superblock: &mut Superblock,
) -> Result<Found, LoadError> {
    let mut best: Option<Summary> = None;
    for read in images {
        match Summary::of(read, superblock) {
            Some(Ok(found)) => {
                best = Some(match best {
                    None => found,
                    Some(best) => {
                        check_kin(&best, &found)?;
                        better(best, found)
                    }
                });
            }
            // Written by a later version in good order: no other copy can be trusted to say all.
            Some(Err(error @ (FormatError::Newer { .. } | FormatError::Features { .. }))) => {
                return Err(LoadError::Superblock {
                    spare: read.spare,
                    copy: read.copy,
                    error,
                });
            }
            Some(Err(_)) | None => (),
        }
    }
    let Some(best) = best else {
        for spare in spares(images) {
            check_blank(images, spare, superblock)?;
        }
        return Ok(Found::Blank);
    };
    if best.unfinished {
        return Err(LoadError::Unfinished { spare: best.spare });
    }
    let mut chosen = Chosen {
        rewrite: best.live_supers,
        spares: [None; MEMBERS_MAX as usize],
        blank: 0,
        joining: 0,
        begun: 0,
    };
    let mut begun = 0u8;
    let mut owners = [None; 8];
    for spare in spares(images) {
        let owner = owner(images, spare, &best, &mut chosen.rewrite, superblock)?;
        if owner.is_none() {
            match check_blank(images, spare, superblock) {
                Ok(()) => chosen.blank |= 1 << spare.min(7),
                Err(_) if is_begun(images, spare, &best) => begun |= 1 << spare.min(7),
                Err(error) => return Err(error),
            }
        }
        if let Some(place) = owners.get_mut(usize::from(spare)) {
            *place = owner;
        }
    }
    check_apart(images, &owners, &best, superblock)?;
    take(images, &best, superblock)?;
    // What lies on a spare that is not there can't be written.
    let mut there = 0;
    for (owner, spare) in owners.iter().zip(0u8..) {
        let Some(Owner { uuid, .. }) = owner else {
            continue;
        };
        let index = superblock
            .find_member(uuid)
            .ok_or(LoadError::NotMember { spare })?;
        let place = chosen.spares.get_mut(usize::from(index));
        let place = place.ok_or(LoadError::TooMany)?;
        if place.is_some() {
            return Err(LoadError::Twice { uuid: *uuid });
        }
        *place = Some(spare);
        for copy in 0..SUPER_COPIES {
            let id = CopyId {
                member: index,
                copy,
            };
            there |= id.bit();
        }
    }
    chosen.rewrite &= there;
    for (index, member) in superblock.members() {
        let Some(place) = chosen.spares.get_mut(usize::from(index)) else {
            continue;
        };
        if !member.is_joining() || place.is_some() {
            continue;
        }
        let from = if begun != 0 { begun } else { chosen.blank };
        if from != 0 {
            // At most 7.
            *place = Some(from.trailing_zeros() as u8);
            let bit = from & from.wrapping_neg();
            chosen.joining |= bit;
            chosen.begun |= bit & begun;
            begun &= !bit;
            chosen.blank &= !bit;
        }
    }
    if begun != 0 {
        check_blank(images, begun.trailing_zeros() as u8, superblock)?;
    }
    Ok(Found::Ours(chosen))
}

/// Whether a spare without a good copy is one that was about to become a member when its first
/// copies were written.
fn is_begun(images: &[SuperImage<'_>], spare: u8, best: &Summary) -> bool {
    let Some(Image::Read(whole)) = image_of(images, best.spare, best.id.copy) else {
        return false;
    };
    let mut own = images.iter().filter(|read| read.spare == spare);
    own.all(|read| matches!(read.image, Image::Read(part) if Superblock::is_begun(part, whole)))
}

/// The spares that images were read from, each once.
fn spares<'a>(images: &'a [SuperImage<'_>]) -> impl Iterator<Item = u8> + 'a {
    (0u8..8).filter(|spare| images.iter().any(|read| read.spare == *spare))
}

/// Which member a spare is.
#[derive(Clone, Copy)]
struct Owner {
    uuid: Uuid,
    /// The newest copy on it.
    newest: u8,
}

/// Which member a spare is, by the good copies on it, which must agree. Those that are as new as the
/// best need not be written again, and must not contradict it.
fn owner(
    images: &[SuperImage<'_>],
    spare: u8,
    best: &Summary,
    rewrite: &mut u16,
    scratch: &mut Superblock,
) -> Result<Option<Owner>, LoadError> {
    let mut own: Option<Summary> = None;
    for read in images.iter().filter(|read| read.spare == spare) {
        let Some(Ok(found)) = Summary::of(read, scratch) else {
            continue;
        };
        let other = |own: Summary| own.member_uuid != found.member_uuid;
        if found.set_uuid != best.set_uuid || own.is_some_and(other) {
            return Err(LoadError::MixedSpares { spare });
        }
        if found.age() == best.age() {
            if say_the_same(images, best, &found) {
                *rewrite &= !found.id.bit();
            } else {
                check_prevails(best, &found)?;
            }
        }
        own = Some(own.map_or(found, |own| better(own, found)));
    }
    Ok(own.map(|own| Owner {
        uuid: own.member_uuid,
        newest: own.id.copy,
    }))
}

/// Checks that no member that the best superblock leaves out was used meanwhile. Such a one has
/// gone without all those that stand together by now; one that is just old counts on some of them,
/// which then know what it does, whether they are there or not. Only the newest copy on a spare tells: an older one may have been written off long ago.
fn check_apart(
    images: &[SuperImage<'_>],
    owners: &[Option<Owner>; 8],
    best: &Summary,
    scratch: &mut Superblock,
) -> Result<(), LoadError> {
    take(images, best, scratch)?;
    let mut together = [None; MEMBERS_MAX as usize];
    let mut left_out = [None; MEMBERS_MAX as usize];
    for ((index, member), (t, l)) in scratch
        .members()
        .zip(together.iter_mut().zip(&mut left_out))
    {
        let left_out = index != best.id.member && member.is_left_out();
        *(if left_out { l } else { t }) = Some(member.uuid);
    }
    for (owner, spare) in owners.iter().zip(0u8..) {
        let left_out = |owner: &&Owner| left_out.iter().flatten().any(|l| *l == owner.uuid);
        let Some(owner) = owner.as_ref().filter(left_out) else {
            continue;
        };
        if let Some(Image::Read(block)) = image_of(images, spare, owner.newest) {
            let read = scratch.decode_into(block, owner.newest);
            read.map_err(|error| LoadError::Superblock {
                spare,
                copy: owner.newest,
                error,
            })?;
        }
        if together.iter().flatten().all(|t| goes_without(scratch, t)) {
            return Err(LoadError::Apart { spare });
        }
    }
    Ok(())
}

/// Checks that a spare which a set in use gets back was not used without all those that are together
/// now, like [`choose_superblock`] does; nor without some of them while nobody wrote down that these
/// go without it, as in a read-only session: that is a later version of the set than this one.
/// `returning` is its own superblock, and `index` its number in the set; `spare` is where it stands in
/// the table line. Returns the member.
pub fn check_return<'a>(
    superblock: &'a Superblock,
    returning: &Superblock,
    index: u8,
    spare: u8,
) -> Result<&'a Member, LoadError> {
    let mut together = superblock
        .members()
        .filter(|(other, member)| *other != index && !member.is_left_out());
    let later = returning.set_epoch > superblock.set_epoch;
    if later || together.all(|(_, member)| goes_without(returning, &member.uuid)) {
        return Err(LoadError::Apart { spare });
    }
    let member = superblock.member(index);
    member.ok_or(LoadError::NotMember { spare })
}

/// Checks that a member of a set in use, which is met under another name while nobody answers under the one
/// that is known, is what the set has left there: nobody has used it meanwhile. Who does raises the epoch
/// before anything else. If this set has tried to do that and failed, only who ended in order can be told.
///
/// `durable` is the sequence of the last superblock that was written to its end: what is older is a copy from
/// before.
pub fn check_renamed(
    superblock: &Superblock,
    durable: u64,
    found: &Superblock,
    index: u8,
) -> Result<(), LoadError> {
    let member = superblock.member(index).map(|member| member.uuid);
    let member = member.filter(|uuid| found.find_member(uuid) == Some(index));
    let ended = found.epoch == superblock.epoch && found.clean && !superblock.clean;
    let later = found.epoch > superblock.epoch || found.sequence > superblock.sequence;
    let same = found.set_uuid == superblock.set_uuid && found.set_epoch == superblock.set_epoch;
    match member {
        Some(_) if same && !later && !ended && found.sequence >= durable => Ok(()),
        _ => Err(LoadError::Another {
            member: index,
            uuid: member.unwrap_or(Uuid::NIL),
        }),
    }
}

/// Whether what a superblock says may be unknown to the member of that name.
fn goes_without(superblock: &Superblock, uuid: &Uuid) -> bool {
    let index = superblock.find_member(uuid);
    let member = index.and_then(|index| superblock.member(index));
    member.is_none_or(Member::is_left_out)
}

fn take(
    images: &[SuperImage<'_>],
    best: &Summary,
    superblock: &mut Superblock,
) -> Result<(), LoadError> {
    let (spare, copy) = (best.spare, best.id.copy);
    match image_of(images, spare, copy) {
        Some(Image::Read(block)) => superblock
            .decode_into(block, copy)
            .map(|_| ())
            .map_err(|error| LoadError::Superblock { spare, copy, error }),
        _ => Err(LoadError::SuperblockUnreadable { spare, copy }),
    }
}

fn image_of<'a>(images: &[SuperImage<'a>], spare: u8, copy: u8) -> Option<Image<'a>> {
    let mut all = images.iter();
    all.find(|read| read.spare == spare && read.copy == copy)
        .map(|read| read.image)
}

/// Checks that two copies can be of one set.
fn check_kin(old: &Summary, new: &Summary) -> Result<(), LoadError> {
    if old.set_uuid != new.set_uuid {
        return Err(LoadError::MixedSpares { spare: new.spare });
    }
    if old.spare != new.spare && old.member_uuid == new.member_uuid {
        return Err(LoadError::Twice {
            uuid: new.member_uuid,
        });
    }
    Ok(())
}

/// Which of two copies is newer, or knows of the other's end. The best of all is held against each
/// that is as new once more: it was compared only to those that were the best before.
fn better(old: Summary, new: Summary) -> Summary {
    let newer = match new.age().cmp(&old.age()) {
        core::cmp::Ordering::Greater => true,
        core::cmp::Ordering::Equal => new.prevails_over(&old),
        core::cmp::Ordering::Less => false,
    };
    if newer {
        new
    } else {
        old
    }
}

/// Checks that the best copy is right about another, which is as new and says something else.
fn check_prevails(best: &Summary, other: &Summary) -> Result<(), LoadError> {
    if best.went_without(other) && other.went_without(best) {
        return Err(LoadError::Apart { spare: other.spare });
    }
    if !best.prevails_over(other) {
        return Err(LoadError::SuperblockContradiction { copy: other.id });
    }
    Ok(())
}

/// Whether two good copies say the same. They differ in what they say of their own place.
fn say_the_same(images: &[SuperImage<'_>], a: &Summary, b: &Summary) -> bool {
    let content = |of: &Summary| match image_of(images, of.spare, of.id.copy) {
        Some(Image::Read(block)) => Superblock::content(block),
        _ => None,
    };
    content(a) == content(b)
}

/// Checks that a spare without any superblock is blank as far as that can be told here; or says why
/// there is no superblock, by the copy that says most.
fn check_blank(
    images: &[SuperImage<'_>],
    spare: u8,
    scratch: &mut Superblock,
) -> Result<(), LoadError> {
    let mut telling: Option<(u8, FormatError)> = None;
    let mut unreadable = None;
    for read in images.iter().filter(|read| read.spare == spare) {
        match read.image {
            Image::Unreadable => {
                unreadable = unreadable.or(Some(read.copy));
            }
            Image::Read(block) => {
                let Err(error) = scratch.decode_into(block, read.copy) else {
                    continue;
                };
                let weight = |e: &FormatError| match e {
                    FormatError::Blank => 0,
                    FormatError::Foreign => 1,
                    _ => 2,
                };
                if telling.is_none_or(|(_, t)| weight(&error) > weight(&t)) {
                    telling = Some((read.copy, error));
                }
            }
        }
    }
    match (telling, unreadable) {
        (Some((_, FormatError::Blank)) | None, Some(copy)) => {
            Err(LoadError::SuperblockUnreadable { spare, copy })
        }
        (Some((_, FormatError::Blank)) | None, None) => Ok(()),
        (Some((copy, error)), _) => Err(LoadError::Superblock { spare, copy, error }),
    }
}

/// What the table line and the devices say, to be held against the superblock.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The spare set that the table line names.
    pub uuid: Option<Uuid>,
    /// What the table line calls main.
    pub main_id: Option<&'a MainId>,
    /// Size of the main device.
    pub main_sectors: u64,
    /// Main's logical block.
    pub main_block_bytes: u32,
}

/// Checks that the set belongs to what the table line names.
pub fn check_expected(superblock: &Superblock, expected: &Expected<'_>) -> Result<(), LoadError> {
    if expected
        .uuid
        .is_some_and(|uuid| uuid != superblock.set_uuid)
    {
        return Err(LoadError::WrongUuid {
            found: superblock.set_uuid,
        });
    }
    match expected.main_id {
        Some(id) if !superblock.main_id.is_none() => {
            if *id != superblock.main_id {
                return Err(LoadError::OtherMainId {
                    was: superblock.main_id,
                });
            }
        }
        // Nobody said what main is. A disk that is too small for its own remaps is not the one.
        _ => {
            if expected.main_sectors < superblock.main_sectors {
                return Err(LoadError::OtherMainSize {
                    was: superblock.main_sectors,
                });
            }
        }
    }
    if expected.main_block_bytes != superblock.main_block_bytes {
        return Err(LoadError::MainBlockSize {
            was: superblock.main_block_bytes,
        });
    }
    Ok(())
}

/// Checks that the window of `window_sectors` that there is for a member holds what was formatted.
pub fn check_window(member: &Member, window_sectors: u64) -> Result<(), LoadError> {
    let formatted = member.geometry.window_sectors();
    if window_sectors < formatted {
        return Err(LoadError::Shrunk {
            formatted,
            found: window_sectors,
        });
    }
    Ok(())
}

/// Finds the truth about a table block, from what was read of each replica at the place that
/// [`Superblock::table_place`] gives. What is handed over for a void replica does not matter.
///
/// The driver asks for all blocks of a member up to its high-water mark, and on from there until
/// the answer is [`Resolved::End`] or the table is at its end (M8).
pub fn resolve_block<'a>(
    superblock: &Superblock,
    block: BlockId,
    images: &[Image<'a>; REPLICAS as usize],
) -> Result<Resolved<'a>, LoadError> {
    resolve_block_with(superblock, block, images, crc32c)
}

/// The same, by a checksum of the caller's.
pub fn resolve_block_with<'a>(
    superblock: &Superblock,
    block: BlockId,
    images: &[Image<'a>; REPLICAS as usize],
    crc32c: Checksum,
) -> Result<Resolved<'a>, LoadError> {
    let Some(member) = superblock.member(block.member) else {
        return Ok(Resolved::End);
    };
    let mut best: Option<(u8, TableBlock<'a>)> = None;
    let mut same = 0u8;
    let mut fault = None;
    for (image, replica) in images.iter().zip(0u8..) {
        let (Image::Read(bytes), true) = (image, member.replica_lives(replica)) else {
            continue;
        };
        if best.is_some_and(|(_, truth)| are_same(truth.image(), bytes)) {
            // So it is as good, and there is no need to find that out once more.
            same |= 1 << replica;
            continue;
        }
        let found = match TableBlock::decode_with(bytes, &member.uuid, block.block, crc32c) {
            Ok(found) => found,
            Err(error @ FormatError::Newer { .. }) => {
                return Err(LoadError::TableBlock {
                    block,
                    error: Some(error),
                });
            }
            Err(error) => {
                fault = Some(error);
                continue;
            }
        };
        match best {
            Some((_, truth)) if truth.sequence() == found.sequence() => {
                return Err(LoadError::TableContradiction { block });
            }
            Some((_, truth)) if truth.sequence() > found.sequence() => (),
            _ => {
                best = Some((replica, found));
                same = 1 << replica;
            }
        }
    }
    let Some((replica, truth)) = best else {
        return if block.block >= member.high_water {
            Ok(Resolved::End)
        } else {
            Err(LoadError::TableBlock {
                block,
                error: fault,
            })
        };
    };
    if sequence_epoch(truth.sequence()) > superblock.epoch {
        return Err(LoadError::SuperblockStale { block });
    }
    let alive = ((1 << REPLICAS) - 1) & !member.void_replicas;
    Ok(Resolved::Block {
        truth,
        replica,
        rewrite: alive & !same,
    })
}

/// Whether two blocks have the same content. In long steps, as this is done for every block that is
/// loaded, and comes to the end of most.
fn are_same(a: &Block, b: &Block) -> bool {
    fn words(part: &[u8]) -> impl Iterator<Item = u64> + '_ {
        let word = |word: &[u8]| word.first_chunk().copied().map_or(0, u64::from_ne_bytes);
        part.chunks_exact(8).map(word)
    }
    let mut parts = a.chunks_exact(64).zip(b.chunks_exact(64));
    parts.all(|(a, b)| words(a).zip(words(b)).fold(0, |all, (a, b)| all | (a ^ b)) == 0)
}

/// Checks that the entry of `slot` names a block that main has, or once had.
#[inline]
pub fn check_entry(superblock: &Superblock, slot: u32, entry: &Entry) -> Result<(), LoadError> {
    let main_block = entry.word.main_block();
    if entry.word.is_claim() && main_block >= superblock.main_blocks() {
        return Err(LoadError::OutOfRange { slot, main_block });
    }
    Ok(())
}

/// Of two entries that claim the same main block, tells which one to keep. The other is freed, and
/// that is committed before anything else is (M5): once the newer one is removed, the older must
/// not come back.
pub fn settle_claims(first: &Entry, second: &Entry) -> Result<Claim, LoadError> {
    match first.generation.cmp(&second.generation) {
        core::cmp::Ordering::Greater => Ok(Claim::First),
        core::cmp::Ordering::Less => Ok(Claim::Second),
        core::cmp::Ordering::Equal => Err(LoadError::Unresolvable {
            main_block: first.word.main_block(),
        }),
    }
}
