// SPDX-License-Identifier: GPL-2.0

//! Who belongs to a set, and what a table changes about it: every set of up to three members in every state, with
//! every line of up to three spares and every argument, held against what must never happen.
//!
//! [`in_use`] and [`fresh`] look at plans, [`identity`] at who is taken for a member.

mod fresh;
mod identity;
mod in_use;

use std::collections::BTreeMap;

use dm_remap_logic::commit::Metadata;
use dm_remap_logic::format::member_bit;
use dm_remap_logic::format::CopyId;
use dm_remap_logic::format::Geometry;
use dm_remap_logic::format::Member;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::format::MEMBERS_MAX;
use dm_remap_logic::load::Expected;
use dm_remap_logic::set::InUse;
use dm_remap_logic::set::Name;
use dm_remap_logic::set::NamedSpare;
use dm_remap_logic::set::Plan;
use dm_remap_logic::set::Refusal;
use dm_remap_logic::set::Seen;
use dm_remap_logic::set::Wanted;
use dm_remap_logic::text::MainId;
use dm_remap_logic::text::Uuid;

const SET: Uuid = Uuid([7; 16]);
const OTHER_SET: Uuid = Uuid([8; 16]);
const MAIN_SECTORS: u64 = 1 << 20;
const SECTORS: u64 = 4096;

/// What became of a member. Those that are asked have so many blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    /// There is none of that number.
    Nobody,
    /// It is used.
    Used(u32),
    /// It is not there, and nobody has written that down: in a read-only table.
    Away(u32),
    /// The set went on without it.
    Lost(u32),
    /// So it did, and it is being brought up to date.
    Back(u32),
}

impl Is {
    const ALL: [Is; 7] = [
        Is::Nobody,
        Is::Used(0),
        Is::Used(5),
        Is::Away(5),
        Is::Lost(0),
        Is::Lost(5),
        Is::Back(5),
    ];

    fn claims(self) -> u32 {
        match self {
            Is::Nobody => 0,
            Is::Used(claims) | Is::Away(claims) | Is::Lost(claims) | Is::Back(claims) => claims,
        }
    }
}

fn uuid(index: u8) -> Uuid {
    Uuid([0x10 + index; 16])
}

fn geometry(index: u8) -> Geometry {
    Geometry::new(SECTORS + 8 * u64::from(index), 8, 8).expect("legal")
}

/// Names for those that join.
fn names() -> impl FnMut() -> Uuid {
    let mut next = 0x80;
    move || {
        next += 1;
        Uuid([next; 16])
    }
}

/// A set.
#[derive(Clone)]
struct Set {
    metadata: Box<Metadata>,
    claims: [u32; 4],
}

impl Set {
    /// One of such members; none if there is none, or the set cannot have come so far. In a `ring`, each has a
    /// replica of its table on the next one.
    fn new(members: &[Is], ring: bool) -> Option<Self> {
        let numbered = || {
            let all = members.iter().copied().zip(0u8..);
            all.filter(|(is, _)| *is != Is::Nobody)
        };
        let (_, first) = numbered().next()?;
        let mut metadata = Box::new(Metadata::EMPTY);
        let superblock = metadata.superblock_mut();
        superblock.begin(
            SET,
            uuid(first),
            geometry(first),
            MAIN_SECTORS,
            MainId::NONE,
        );
        superblock.members = [None; 4];
        (superblock.sequence, superblock.epoch) = (50, 3);
        let mut claims = [0; 4];
        for (is, index) in numbered() {
            let member = Member::new(index, uuid(index), geometry(index));
            superblock.members[usize::from(index)] = Some(member);
            claims[usize::from(index)] = is.claims();
        }
        metadata.create();
        if ring {
            for (_, index) in numbered() {
                let after = numbered().find(|(_, other)| *other > index);
                let (_, host) = after.or(numbered().next()).expect("one");
                if host != index {
                    let slots = metadata.slots_beside(host, index).expect("room");
                    metadata.rehost(index, 1, host, slots).expect("empty");
                    let member = metadata.superblock_mut().member_mut(index).expect("it is");
                    member.void_replicas = 0;
                }
            }
        }
        for (is, index) in numbered() {
            let member = metadata.superblock_mut().member_mut(index).expect("it is");
            member.high_water = u32::from(is.claims() != 0);
        }
        for (is, index) in numbered() {
            if matches!(is, Is::Lost(_) | Is::Back(_)) {
                metadata.lose_member(index).ok()?;
            }
            if matches!(is, Is::Lost(_) | Is::Away(_)) {
                metadata.set_present(index, false);
            }
        }
        Some(Set { metadata, claims })
    }

    /// All that there can be.
    fn each(mut look: impl FnMut(&Set)) {
        for ring in [false, true] {
            for a in Is::ALL {
                for b in Is::ALL {
                    for c in Is::ALL {
                        if let Some(set) = Set::new(&[a, b, c], ring) {
                            look(&set);
                        }
                    }
                }
            }
        }
    }

    fn superblock(&self) -> &Superblock {
        self.metadata.superblock()
    }

    fn all(&self) -> u8 {
        let members = self.superblock().members();
        members.fold(0, |mask, (index, _)| mask | member_bit(index))
    }

    fn in_use(&self) -> InUse<'_> {
        InUse {
            metadata: &self.metadata,
            claims: self.claims,
            durable: self.superblock().sequence,
            inherited: 0,
            sources: 0,
            activated: true,
            formatting: false,
        }
    }

    /// Whether these members, a bit each, have what nobody else has: all replicas of a table, or all superblock
    /// copies but one.
    fn is_only_in(&self, members: u8) -> bool {
        let has = |index: u8| members & member_bit(index) != 0;
        let table = self.superblock().members().any(|(_, member)| {
            let lives = |replica: &u8| member.replica_lives(*replica);
            let host = |replica: u8| member.areas[usize::from(replica)].host;
            member.high_water != 0 && (0..2).filter(lives).all(|replica| has(host(replica)))
        });
        let rest = self.superblock().members().filter(|(i, _)| !has(*i));
        let supers =
            rest.map(|(_, member)| (0..4).filter(|copy| member.super_lives(*copy)).count());
        table || supers.sum::<usize>() < 2
    }
}

/// The arguments of a line.
#[derive(Clone, Copy, Debug)]
struct Line {
    degraded: bool,
    format: bool,
    read_only: bool,
    uuid: Option<Uuid>,
}

impl Line {
    fn each() -> Vec<Line> {
        let mut all = Vec::new();
        for bits in 0..8 {
            for uuid in [None, Some(SET)] {
                all.push(Line::new(bits, uuid));
            }
        }
        // Refused, whatever else there is.
        all.extend([0, 1].map(|bits| Line::new(bits, Some(OTHER_SET))));
        all
    }

    fn new(bits: u8, uuid: Option<Uuid>) -> Line {
        Line {
            degraded: bits & 1 != 0,
            format: bits & 2 != 0,
            read_only: bits & 4 != 0,
            uuid,
        }
    }

    fn degraded() -> Line {
        Line::new(1, None)
    }

    fn wanted(&self) -> Wanted<'static> {
        Wanted {
            expected: Expected {
                uuid: self.uuid,
                main_id: None,
                main_sectors: MAIN_SECTORS,
                main_block_bytes: 4096,
            },
            degraded: self.degraded,
            format: self.format,
            read_only: self.read_only,
        }
    }
}

fn named(name: Option<Name>, seen: Seen) -> NamedSpare {
    NamedSpare {
        name,
        seen,
        sectors: SECTORS + 800,
    }
}

/// One that joins, laid out like a member that no set has.
fn blank(name: Option<Name>) -> NamedSpare {
    named(name, Seen::Blank(geometry(40)))
}

fn is_blank(spare: &NamedSpare) -> bool {
    matches!(spare.seen, Seen::Blank(_))
}

/// Every line of up to three of these spares; of three, in one order.
fn each_line(spares: &[NamedSpare], mut look: impl FnMut(&[NamedSpare])) {
    for (first, a) in spares.iter().enumerate() {
        look(&[*a]);
        for b in spares {
            look(&[*a, *b]);
        }
        for (second, b) in spares.iter().enumerate().skip(first) {
            for c in &spares[second..] {
                look(&[*a, *b, *c]);
            }
        }
    }
}

/// Which member a spare really is.
fn member_of(spare: &NamedSpare) -> Option<u8> {
    match (spare.seen, spare.name) {
        (Seen::Member(index) | Seen::Renamed(index), _) => Some(index),
        (Seen::Known, Some(name)) => Some(name.index),
        _ => None,
    }
}

/// What holds for every plan: numbers and names.
fn check_numbers(superblock: &Superblock, spares: &[NamedSpare], plan: &Plan) {
    let mut taken = [false; 4];
    for (spare, number) in spares.iter().zip(plan.members) {
        let number = number.expect("each spare has a number");
        let place = &mut taken[usize::from(number)];
        assert!(!*place, "two spares have the number {number}");
        *place = true;
        match member_of(spare) {
            Some(index) => {
                assert_eq!(number, index, "a member keeps its number");
                assert!(!plan.joins(number), "it is a member");
                let known = superblock.member(index).expect("it is one");
                assert_eq!(
                    plan.name_of(superblock, number).expect("known").uuid,
                    known.uuid
                );
            }
            None => {
                assert!(superblock.member(number).is_none(), "it is another one's");
                let (uuid, as_laid_out) = plan.joining[usize::from(number)].expect("joins");
                assert_eq!(Seen::Blank(as_laid_out), spare.seen);
                if let Some(name) = spare.name {
                    assert_eq!((name.index, name.uuid), (number, uuid));
                }
                assert_eq!(superblock.find_member(&uuid), None);
                let joining = plan.joining.iter().flatten();
                assert_eq!(joining.filter(|(other, _)| *other == uuid).count(), 1);
            }
        }
    }
    assert!(plan.members[spares.len()..].iter().all(Option::is_none));
    let blank = spares.iter().filter(|spare| is_blank(spare)).count();
    assert_eq!(plan.joining.iter().flatten().count(), blank);
    for index in 0..MEMBERS_MAX {
        let renamed = |spare: &NamedSpare| spare.seen == Seen::Renamed(index);
        let is_renamed = plan.renamed & member_bit(index) != 0;
        assert_eq!(is_renamed, spares.iter().any(renamed));
    }
}

/// What holds for every plan: the arguments.
fn check_arguments(line: &Line, spares: &[NamedSpare], formatting: bool) {
    assert_ne!(line.uuid, Some(OTHER_SET), "another set was named");
    let joins = spares.iter().any(is_blank);
    assert!(!joins || line.uuid.is_none(), "a set was named");
    assert!(!joins || !line.read_only, "nothing is written read-only");
    let known = spares.iter().all(|spare| spare.seen == Seen::Known);
    assert!(!line.format || !known || formatting, "nothing to format");
}

/// Whether a refusal that may concern any line is justified; none if it is another one.
fn is_just(
    superblock: &Superblock,
    line: &Line,
    spares: &[NamedSpare],
    refusal: &Refusal,
) -> Option<bool> {
    let joins = spares.iter().any(is_blank);
    let same = |a: &NamedSpare| {
        let index = member_of(a);
        let all = spares.iter().filter(|b| member_of(b) == index);
        index.is_some() && all.count() > 1
    };
    let same_name = |a: &NamedSpare| {
        let all = spares.iter().filter(|b| b.name == a.name);
        a.name.is_some() && all.count() > 1
    };
    use dm_remap_logic::load::LoadError;
    Some(match refusal {
        Refusal::Content(LoadError::WrongUuid { .. }) => line.uuid == Some(OTHER_SET),
        Refusal::Content(LoadError::TooMany) => {
            let blank = spares.iter().filter(|spare| is_blank(spare)).count();
            superblock.members().count() + blank > 4
        }
        Refusal::BlankWithUuid => line.uuid.is_some() && joins,
        Refusal::HasMetadata => line.format && !joins,
        Refusal::ReadOnly => line.read_only,
        Refusal::SameMember => spares.iter().any(same),
        Refusal::NotResumed => spares.iter().any(same_name),
        _ => return None,
    })
}

/// What a refusal is called, without its numbers.
fn kind(refusal: &Refusal) -> String {
    let text = format!("{refusal:?}");
    let words: Vec<&str> = text.split([' ', '(', ')', '{']).collect();
    let depth = usize::from(words[0] == "Content");
    words[depth].to_string()
}

/// How often each outcome was met.
#[derive(Default)]
struct Tally(BTreeMap<String, u64>);

impl Tally {
    fn count(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    /// A model that never gets somewhere says nothing about it.
    fn expect(&self, all: &[&str]) {
        let met: Vec<&str> = self.0.keys().map(String::as_str).collect();
        let mut all = all.to_vec();
        all.sort_unstable();
        assert_eq!(met, all, "{:?}", self.0);
    }
}

/// What a spare reads is what was written.
fn check_superblock(superblock: &Superblock) {
    let live = superblock.live_supers();
    let copy = CopyId::lowest(live).expect("one is live");
    let mut image = [0; BLOCK_BYTES];
    superblock.encode(&mut image, copy);
    let read = Superblock::decode(&image, copy.copy).expect("it is legal");
    assert_eq!(read, *superblock);
}
