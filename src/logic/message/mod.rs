// SPDX-License-Identifier: GPL-2.0

//! What does a message (`dmsetup message <device> 0 …`) ask for?
//!
//! | file      | what is in it                                                                        |
//! |-----------|--------------------------------------------------------------------------------------|
//! | `table`   | all messages: name, words, what it does, how it is read; a new one gets its row there |
//! | `denial`  | why a message is not carried out: errno and words for the user                       |
//! | `reply`   | what users are told of what was done                                                 |
//!
//! Here is what a message can ask for, and what is wrong with its words. What it does is in `remap/user/message.rs`.

mod denial;
pub mod reply;
pub mod table;

pub use self::denial::Denial;

use core::fmt;

use super::{
    errno::Errno,
    limit::{
        Limit,
        Wrong, //
    },
    listing::Kind,
    text::Quoted, //
};

use table::{
    Form,
    Misread,
    Names, //
};

/// A range of main as the user gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sectors {
    /// The first sector.
    pub first: u64,
    /// How many; none given means: the block that `first` is in.
    pub count: Option<u64>,
}

/// A range of main in whole blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// The first block.
    pub first: u64,
    /// How many; never none.
    pub count: u64,
}

/// What a message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Move these sectors to the spare; what can be read is copied.
    Remap(Sectors),
    /// Serve sectors of main by what lies on the spare.
    AddRemap {
        /// The first sector of main.
        main_sector: u64,
        /// The first sector on the spare device.
        spare_sector: u64,
        /// How many sectors.
        count: u64,
    },
    /// Move these sectors back to main.
    RemoveRemap(Sectors),
    /// Give up what main cannot read of these sectors: they are zero then.
    Zero(Sectors),
    /// Do not read these sectors from main any more.
    Avoid(Sectors),
    /// Move everything back to main.
    ClearAll,
    /// Move everything from a spare to the others, so that it can be taken out.
    Evacuate {
        /// The spare's number in the set.
        spare: u64,
    },
    /// Use a spare again that was evacuated.
    UseSpare {
        /// The spare's number in the set.
        spare: u64,
    },
    /// Give up a spare that is lost, with what only it has.
    ForgetSpare {
        /// The spare's number in the set.
        spare: u64,
    },
    /// Tell where this sector is served from.
    Verify {
        /// The sector.
        sector: u64,
    },
    /// Write the metadata.
    Save,
    /// Write the metadata and flush the devices.
    Sync,
    /// Answer.
    Ping,
    /// Tell the status line.
    Status,
    /// Tell the state of the metadata.
    MetadataStatus,
    /// Switch automatic remapping on or off.
    SetAutoRemap(bool),
    /// Set a limit.
    Set(Limit, u32),
    /// Set the counters to zero.
    ClearStats,
    /// List the messages.
    Help,
    /// Tell all counters.
    Stats,
    /// Tell what is wrong, and what to do.
    Health,
    /// Tell why the last message was refused.
    Why,
    /// List ranges of main.
    List {
        /// Only those of this kind.
        kind: Option<Kind>,
        /// Only those from this sector on.
        from: u64,
    },
    /// Ask main again, for what it could not read or was not to be asked for.
    Retry(Sectors),
    /// Read all copies of the metadata again.
    Recheck,
    /// Read all of main in the background, or tell how far that is.
    Scan(Scan),
}

/// What is to become of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// It begins.
    Start,
    /// It ends.
    Stop,
    /// Tell how far it is.
    Status,
}

impl Scan {
    /// All of them.
    pub const ALL: [Scan; 3] = [Scan::Start, Scan::Stop, Scan::Status];

    /// What users call it.
    pub const fn name(self) -> &'static str {
        match self {
            Scan::Start => "start",
            Scan::Stop => "stop",
            Scan::Status => "status",
        }
    }
}

/// Why the words of a message are refused. Displayed, it names what is wrong and what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageError<'a> {
    /// No such message.
    Unknown {
        /// What was given.
        word: &'a str,
    },
    /// Nothing was said at all.
    Empty,
    /// Too few or too many words.
    Count {
        /// The message.
        form: &'static Form,
    },
    /// Not a decimal number.
    NotNumber {
        /// What was given.
        word: &'a str,
        /// What it stands for.
        what: &'static str,
    },
    /// A number above 2^64.
    Overflow {
        /// What was given.
        word: &'a str,
        /// What it stands for.
        what: &'static str,
    },
    /// A count of zero.
    Zero,
    /// None of the words that can stand there.
    NotOne {
        /// What was given.
        word: &'a str,
        /// What it stands for.
        what: &'static str,
        /// What it can be.
        of: &'static str,
    },
    /// No such limit.
    UnknownLimit {
        /// What was given.
        word: &'a str,
    },
    /// A limit cannot have this value.
    Limit {
        /// The limit.
        limit: Limit,
        /// What is wrong with the value.
        wrong: Wrong,
    },
    /// The range goes beyond the device.
    OutOfRange {
        /// The device's size in sectors.
        sectors: u64,
    },
    /// The range is not in whole blocks.
    NotAligned {
        /// The block's size in sectors.
        block_sectors: u32,
    },
}

impl MessageError<'_> {
    /// The error number for the user.
    pub fn errno(&self) -> Errno {
        match self {
            MessageError::Unknown { .. } | MessageError::UnknownLimit { .. } => Errno::NotSupported,
            MessageError::Overflow { .. }
            | MessageError::OutOfRange { .. }
            | MessageError::Limit {
                wrong: Wrong::OutOfRange,
                ..
            } => Errno::Range,
            MessageError::Empty
            | MessageError::Count { .. }
            | MessageError::NotNumber { .. }
            | MessageError::Zero
            | MessageError::NotOne { .. }
            | MessageError::Limit {
                wrong: Wrong::NotNumber,
                ..
            }
            | MessageError::NotAligned { .. } => Errno::Invalid,
        }
    }
}

impl fmt::Display for MessageError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MessageError::Unknown { word } => {
                write!(f, "unknown message {}, known are: {Names}", Quoted(word))
            }
            MessageError::Empty => write!(f, "no message, known are: {Names}"),
            MessageError::Count { form } => {
                write!(f, "wrong number of words, use: {form}")
            }
            MessageError::NotNumber { word, what } => {
                write!(f, "{what} {} is not a decimal number", Quoted(word))
            }
            MessageError::Overflow { word, what } => {
                write!(f, "{what} {} is too large", Quoted(word))
            }
            MessageError::Zero => f.write_str("count is 0, at least 1 is needed"),
            MessageError::NotOne { word, what, of } => {
                write!(f, "{what} {} is none of {of}", Quoted(word))
            }
            MessageError::UnknownLimit { word } => {
                write!(
                    f,
                    "unknown limit {}, use: set {}",
                    Quoted(word),
                    table::LIMITS
                )
            }
            MessageError::Limit { limit, wrong } => {
                f.write_str(limit.complaint(*wrong).to_str().unwrap_or(""))
            }
            MessageError::OutOfRange { sectors } => {
                write!(f, "range goes beyond the device's {sectors} sectors")
            }
            MessageError::NotAligned { block_sectors } => {
                write!(f, "range is not in whole blocks of {block_sectors} sectors")
            }
        }
    }
}

/// Reads a message, given as its words. Names are known in lower and in upper case.
pub fn parse<'a>(words: &[&'a str]) -> Result<Message, MessageError<'a>> {
    let (&name, rest) = words.split_first().ok_or(MessageError::Empty)?;
    let form = table::find(name).ok_or(MessageError::Unknown { word: name })?;
    (form.read)(rest).map_err(|misread| match misread {
        Misread::Words => MessageError::Count { form },
        Misread::Word(error) => error,
    })
}

impl Sectors {
    /// All blocks that the range touches, of a main with `main_sectors`.
    pub fn blocks(
        &self,
        main_sectors: u64,
        block_sectors: u32,
    ) -> Result<Blocks, MessageError<'static>> {
        let outside = MessageError::OutOfRange {
            sectors: main_sectors,
        };
        let block = u64::from(block_sectors.max(1));
        let last = match self.count {
            None => self.first,
            Some(0) => return Err(MessageError::Zero),
            Some(count) => self.first.checked_add(count - 1).ok_or(outside)?,
        };
        if last >= main_sectors {
            return Err(outside);
        }
        let first = self.first / block;
        Ok(Blocks {
            first,
            count: last / block - first + 1,
        })
    }
}

/// The blocks of a range that must be whole blocks, of a device with `sectors`.
pub fn whole_blocks(
    first: u64,
    count: u64,
    sectors: u64,
    block_sectors: u32,
) -> Result<Blocks, MessageError<'static>> {
    let block = u64::from(block_sectors.max(1));
    let range = Sectors {
        first,
        count: Some(count),
    };
    let blocks = range.blocks(sectors, block_sectors)?;
    if first % block != 0 || count % block != 0 {
        return Err(MessageError::NotAligned { block_sectors });
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use std::{
        string::ToString,
        vec::Vec, //
    };

    use super::{
        table::{
            Help,
            ALL, //
        },
        *, //
    };

    fn ok(text: &str) -> Message {
        parse(&text.split(' ').collect::<Vec<_>>()).unwrap()
    }

    fn refused(text: &str) -> (std::string::String, Errno) {
        let words: Vec<_> = text.split(' ').filter(|w| !w.is_empty()).collect();
        let error = parse(&words).unwrap_err();
        (std::format!("{error}"), error.errno())
    }

    #[test]
    fn what_users_know() {
        let range = |first, count| Sectors { first, count };
        assert_eq!(ok("remap 1000"), Message::Remap(range(1000, None)));
        assert_eq!(ok("remap 8 16"), Message::Remap(range(8, Some(16))));
        assert_eq!(ok("remove_remap 8"), Message::RemoveRemap(range(8, None)));
        assert_eq!(
            ok("add_remap 8 16 24"),
            Message::AddRemap {
                main_sector: 8,
                spare_sector: 16,
                count: 24
            }
        );
        assert_eq!(ok("zero 8"), Message::Zero(range(8, None)));
        assert_eq!(ok("zero 8 16"), Message::Zero(range(8, Some(16))));
        assert_eq!(ok("avoid 8 16"), Message::Avoid(range(8, Some(16))));
        assert_eq!(ok("verify 0"), Message::Verify { sector: 0 });
        assert_eq!(ok("set_auto_remap 0"), Message::SetAutoRemap(false));
        assert_eq!(ok("set_auto_remap 1"), Message::SetAutoRemap(true));
        for (text, message) in [
            ("save", Message::Save),
            ("sync", Message::Sync),
            ("ping", Message::Ping),
            ("status", Message::Status),
            ("metadata_status", Message::MetadataStatus),
            ("clear_stats", Message::ClearStats),
            ("clear_all", Message::ClearAll),
            ("help", Message::Help),
            ("stats", Message::Stats),
            ("health", Message::Health),
            ("why", Message::Why),
            ("recheck", Message::Recheck),
        ] {
            assert_eq!(ok(text), message);
            let usage = std::format!("wrong number of words, use: {text}");
            let extra = std::format!("{text} 1");
            assert_eq!(refused(&extra), (usage, Errno::Invalid));
        }
    }

    #[test]
    fn limits_can_be_set() {
        for limit in Limit::ALL {
            let set = |value: &str| std::format!("set {} {value}", limit.name());
            for value in [limit.min(), limit.max()] {
                assert_eq!(
                    ok(&set(&std::format!("{value}"))),
                    Message::Set(limit, value)
                );
            }
            let usage = refused("set").0;
            assert!(usage.contains(limit.name()), "{usage}");
            for (value, wrong, errno) in [
                ("soon", Wrong::NotNumber, Errno::Invalid),
                ("99999999999", Wrong::OutOfRange, Errno::Range),
            ] {
                let complaint = limit.complaint(wrong).to_str().unwrap();
                assert_eq!(refused(&set(value)), (complaint.into(), errno));
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, says, errno) in [
            ("set low_water", "use: set read_retries|", Errno::Invalid),
            (
                "set low_water 1 2",
                "use: set read_retries|",
                Errno::Invalid,
            ),
            (
                "set speed 9",
                "unknown limit \"speed\", use: set read_retries|",
                Errno::NotSupported,
            ),
            (
                "",
                "no message, known are: remap, remove_remap",
                Errno::Invalid,
            ),
            (
                "frob",
                "unknown message \"frob\", known are: remap",
                Errno::NotSupported,
            ),
            ("PINGS", "unknown message \"PINGS\"", Errno::NotSupported),
            (
                "list all",
                "kind \"all\" is none of remapped|pending",
                Errno::Invalid,
            ),
            ("list lost x", "from sector \"x\" is not", Errno::Invalid),
            (
                "list 1 2",
                "kind \"1\" is none of remapped|",
                Errno::Invalid,
            ),
            ("list lost 1 2", "use: list [<kind>] [<from", Errno::Invalid),
            ("scan", "use: scan start|stop|status", Errno::Invalid),
            ("scan now", "scan \"now\" is none of start|", Errno::Invalid),
            ("remap", "use: remap <sector> [<count>]", Errno::Invalid),
            (
                "remap 1 2 3",
                "use: remap <sector> [<count>]",
                Errno::Invalid,
            ),
            (
                "remap x",
                "sector \"x\" is not a decimal number",
                Errno::Invalid,
            ),
            (
                "remap +1",
                "sector \"+1\" is not a decimal number",
                Errno::Invalid,
            ),
            (
                "remap -1",
                "sector \"-1\" is not a decimal number",
                Errno::Invalid,
            ),
            (
                "remap 0x10",
                "sector \"0x10\" is not a decimal number",
                Errno::Invalid,
            ),
            ("remap 1 0", "count is 0", Errno::Invalid),
            (
                "remap 18446744073709551616",
                "sector \"18446744073709551616\" is too large",
                Errno::Range,
            ),
            ("add_remap 1 2", "use: add_remap <main", Errno::Invalid),
            ("add_remap 1 2 y", "count \"y\" is not", Errno::Invalid),
            (
                "add_remap 1 y 2",
                "spare sector \"y\" is not",
                Errno::Invalid,
            ),
            ("verify", "use: verify <sector>", Errno::Invalid),
            ("avoid 8", "use: avoid <sector> <count>", Errno::Invalid),
            ("avoid 8 0", "count is 0", Errno::Invalid),
            ("forget_spare", "use: forget_spare <spare>", Errno::Invalid),
            ("forget_spare x", "spare \"x\" is not", Errno::Invalid),
            ("set_auto_remap", "use: set_auto_remap 0|1", Errno::Invalid),
            (
                "set_auto_remap on",
                "switch \"on\" is none of 0 (off), 1 (on)",
                Errno::Invalid,
            ),
        ] {
            let (text_found, errno_found) = refused(text);
            assert!(text_found.contains(says), "{text:?}: {text_found}");
            assert_eq!(errno_found, errno, "{text:?}");
        }
    }

    /// Each message of the table is known in lower and in upper case, takes the words that its usage tells of, and is
    /// in the help.
    #[test]
    fn the_table_is_whole() {
        let help = Help.to_string();
        assert_eq!(help.lines().count(), ALL.len());
        for (form, line) in ALL.iter().zip(help.lines()) {
            assert_eq!(line, std::format!("{form}: {}", form.does));
            let all: Vec<&str> = match form.words {
                "" => Vec::new(),
                "0|1" => std::vec!["1"],
                "start|stop|status" => std::vec!["start"],
                "[<kind>] [<from sector>]" => std::vec!["lost", "7"],
                words if words.starts_with("read_retries|") => std::vec!["low_water", "7"],
                words => words.split('<').skip(1).map(|_| "7").collect(),
            };
            let of = |name: &str| {
                let words: Vec<&str> = [name].into_iter().chain(all.iter().copied()).collect();
                let text = words.join(" ");
                let upper = text.to_uppercase();
                assert_eq!(ok(&text), ok(&upper), "{text}");
                ok(&text)
            };
            let message = of(form.name);
            if let Some(older) = form.older {
                assert_eq!(of(older), message);
            }
            let mut more = all.clone();
            more.insert(0, form.name);
            more.resize(more.len() + 3, "7");
            assert_eq!(parse(&more), Err(MessageError::Count { form }));
        }
    }

    #[test]
    fn names_are_told_apart() {
        let mut names: Vec<&str> = ALL.iter().map(|form| form.name).collect();
        names.extend(ALL.iter().filter_map(|form| form.older));
        for name in &names {
            let same = |other: &&&str| other.eq_ignore_ascii_case(name);
            assert_eq!(names.iter().filter(same).count(), 1, "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
        // The usage of `set` names all limits.
        for limit in Limit::ALL {
            assert!(table::LIMITS.contains(limit.name()));
        }
    }

    #[test]
    fn what_is_listed() {
        for (text, kind, from) in [
            ("list", None, 0),
            ("list 8", None, 8),
            ("list lost", Some(Kind::Lost), 0),
            ("list GIVEN_UP 99", Some(Kind::GivenUp), 99),
        ] {
            assert_eq!(ok(text), Message::List { kind, from });
        }
    }

    /// A word may be as long as a message: what is allowed is still told.
    #[test]
    fn long_words_are_shortened() {
        let long = "x".repeat(1 << 16);
        for words in [
            &[long.as_str()] as &[_],
            &["remap", &long],
            &["set", &long, "1"],
        ] {
            let text = parse(words).unwrap_err().to_string();
            assert!(text.len() < 500, "{} bytes", text.len());
        }
    }

    #[test]
    fn ranges_in_blocks() {
        let of = |first, count| Sectors { first, count }.blocks(100, 8);
        let outside = Err(MessageError::OutOfRange { sectors: 100 });
        assert_eq!(of(0, None), Ok(Blocks { first: 0, count: 1 }));
        assert_eq!(of(7, Some(2)), Ok(Blocks { first: 0, count: 2 }));
        assert_eq!(of(8, Some(8)), Ok(Blocks { first: 1, count: 1 }));
        assert_eq!(
            of(99, Some(1)),
            Ok(Blocks {
                first: 12,
                count: 1
            })
        );
        assert_eq!(of(99, Some(2)), outside);
        assert_eq!(of(100, None), outside);
        assert_eq!(of(1, Some(u64::MAX)), outside);
        assert_eq!(of(1, Some(0)), Err(MessageError::Zero));
        let aligned = MessageError::NotAligned { block_sectors: 8 };
        assert_eq!(
            whole_blocks(8, 16, 96, 8),
            Ok(Blocks { first: 1, count: 2 })
        );
        assert_eq!(whole_blocks(4, 8, 96, 8), Err(aligned));
        assert_eq!(whole_blocks(8, 4, 96, 8), Err(aligned));
    }
}
