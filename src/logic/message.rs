// SPDX-License-Identifier: GPL-2.0

//! What does a message (`dmsetup message <device> 0 …`) ask for?

use core::fmt;

use super::{
    errno::Errno,
    limit::{
        Limit,
        Wrong, //
    }, //
};

/// All messages, for replies and errors.
pub const HELP: &str = "remap <sector> [<count>], \
    add_remap <main sector> <spare sector> <count>, \
    remove_remap <sector> [<count>], clear_all, evacuate <spare>, use_spare <spare>, forget_spare <spare>, verify <sector>, save, sync, status, \
    metadata_status, set_auto_remap 0|1, set <limit> <number>, clear_stats, ping, help";

const SET: &str = "set read_retries|error_threshold|low_water|deadline_ms <number>";

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
}

/// Why a message is refused. Displayed, it names what is wrong and what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageError<'a> {
    /// No such message.
    Unknown {
        /// What was given.
        word: &'a str,
    },
    /// Too few or too many words.
    Count {
        /// What is right.
        usage: &'static str,
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
    /// Neither 0 nor 1.
    NotSwitch {
        /// What was given.
        word: &'a str,
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
            MessageError::Count { .. }
            | MessageError::NotNumber { .. }
            | MessageError::Zero
            | MessageError::NotSwitch { .. }
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
                write!(f, "unknown message {word:?}, known are: {HELP}")
            }
            MessageError::Count { usage } => write!(f, "wrong number of words, use: {usage}"),
            MessageError::NotNumber { word, what } => {
                write!(f, "{what} {word:?} is not a decimal number")
            }
            MessageError::Overflow { word, what } => write!(f, "{what} {word} is too large"),
            MessageError::Zero => f.write_str("count is 0, at least 1 is needed"),
            MessageError::NotSwitch { word } => {
                write!(f, "{word:?} is neither 0 (off) nor 1 (on)")
            }
            MessageError::UnknownLimit { word } => write!(f, "unknown limit {word:?}, use: {SET}"),
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

/// Reads a message, given as its words.
pub fn parse<'a>(words: &[&'a str]) -> Result<Message, MessageError<'a>> {
    let (&name, rest) = words
        .split_first()
        .ok_or(MessageError::Count { usage: HELP })?;
    let alone = |message, usage| match rest {
        [] => Ok(message),
        _ => Err(MessageError::Count { usage }),
    };
    match name {
        "remap" => Ok(Message::Remap(sectors(rest, "remap <sector> [<count>]")?)),
        "remove_remap" => {
            let usage = "remove_remap <sector> [<count>]";
            Ok(Message::RemoveRemap(sectors(rest, usage)?))
        }
        "add_remap" => match rest {
            [main, spare, count] => Ok(Message::AddRemap {
                main_sector: number(main, "main sector")?,
                spare_sector: number(spare, "spare sector")?,
                count: count_of(count)?,
            }),
            _ => Err(MessageError::Count {
                usage: "add_remap <main sector> <spare sector> <count>",
            }),
        },
        "evacuate" => match rest {
            [spare] => Ok(Message::Evacuate {
                spare: number(spare, "spare")?,
            }),
            _ => Err(MessageError::Count {
                usage: "evacuate <spare>",
            }),
        },
        "use_spare" => match rest {
            [spare] => Ok(Message::UseSpare {
                spare: number(spare, "spare")?,
            }),
            _ => Err(MessageError::Count {
                usage: "use_spare <spare>",
            }),
        },
        "forget_spare" => match rest {
            [spare] => Ok(Message::ForgetSpare {
                spare: number(spare, "spare")?,
            }),
            _ => Err(MessageError::Count {
                usage: "forget_spare <spare>",
            }),
        },
        "verify" => match rest {
            [sector] => Ok(Message::Verify {
                sector: number(sector, "sector")?,
            }),
            _ => Err(MessageError::Count {
                usage: "verify <sector>",
            }),
        },
        "set_auto_remap" => match rest {
            ["0"] => Ok(Message::SetAutoRemap(false)),
            ["1"] => Ok(Message::SetAutoRemap(true)),
            [word] => Err(MessageError::NotSwitch { word }),
            _ => Err(MessageError::Count {
                usage: "set_auto_remap 0|1",
            }),
        },
        "set" => match rest {
            [name, value] => {
                let limit = Limit::named(name).ok_or(MessageError::UnknownLimit { word: name })?;
                let value = limit.parse(value);
                let value = value.map_err(|wrong| MessageError::Limit { limit, wrong })?;
                Ok(Message::Set(limit, value))
            }
            _ => Err(MessageError::Count { usage: SET }),
        },
        "clear_all" => alone(Message::ClearAll, "clear_all"),
        "save" => alone(Message::Save, "save"),
        "sync" => alone(Message::Sync, "sync"),
        "ping" => alone(Message::Ping, "ping"),
        "status" => alone(Message::Status, "status"),
        "metadata_status" => alone(Message::MetadataStatus, "metadata_status"),
        "clear_stats" => alone(Message::ClearStats, "clear_stats"),
        "help" => alone(Message::Help, "help"),
        word => Err(MessageError::Unknown { word }),
    }
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

fn sectors<'a>(words: &[&'a str], usage: &'static str) -> Result<Sectors, MessageError<'a>> {
    match words {
        [first] => Ok(Sectors {
            first: number(first, "sector")?,
            count: None,
        }),
        [first, count] => Ok(Sectors {
            first: number(first, "sector")?,
            count: Some(count_of(count)?),
        }),
        _ => Err(MessageError::Count { usage }),
    }
}

fn count_of(word: &str) -> Result<u64, MessageError<'_>> {
    match number(word, "count")? {
        0 => Err(MessageError::Zero),
        count => Ok(count),
    }
}

fn number<'a>(word: &'a str, what: &'static str) -> Result<u64, MessageError<'a>> {
    if word.is_empty() || !word.bytes().all(|b| b.is_ascii_digit()) {
        return Err(MessageError::NotNumber { word, what });
    }
    // Of digits only too many can be wrong.
    word.parse()
        .map_err(|_| MessageError::Overflow { word, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(text: &str) -> Message {
        parse(&text.split(' ').collect::<std::vec::Vec<_>>()).unwrap()
    }

    fn refused(text: &str) -> (std::string::String, Errno) {
        let words: std::vec::Vec<_> = text.split(' ').filter(|w| !w.is_empty()).collect();
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
        ] {
            assert_eq!(ok(text), message);
            assert!(HELP.contains(text));
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
        assert!(HELP.contains("set <limit> <number>"));
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
                "wrong number of words, use: remap <sector>",
                Errno::Invalid,
            ),
            (
                "frob",
                "unknown message \"frob\", known are: remap",
                Errno::NotSupported,
            ),
            ("PING", "unknown message \"PING\"", Errno::NotSupported),
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
                "sector 18446744073709551616 is too large",
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
            ("forget_spare", "use: forget_spare <spare>", Errno::Invalid),
            ("forget_spare x", "spare \"x\" is not", Errno::Invalid),
            ("set_auto_remap", "use: set_auto_remap 0|1", Errno::Invalid),
            ("set_auto_remap on", "\"on\" is neither 0", Errno::Invalid),
        ] {
            let (text_found, errno_found) = refused(text);
            assert!(text_found.contains(says), "{text:?}: {text_found}");
            assert_eq!(errno_found, errno, "{text:?}");
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
