// SPDX-License-Identifier: GPL-2.0

//! All messages.
//!
//! A new one gets a row in [`ALL`] and a variant of [`Message`]. The compiler asks for the rest then: what it does, in
//! `remap/user/message.rs`. Help and the texts of errors come from here.

use core::fmt;

use super::{
    super::{
        limit::Limit,
        listing::Kind, //
    },
    Message,
    MessageError,
    Scan,
    Sectors, //
};

/// How a message is written, and what it does.
pub struct Form {
    /// Its name.
    pub name: &'static str,
    /// What older tools call it.
    pub older: Option<&'static str>,
    /// The words behind the name.
    pub words: &'static str,
    /// What it does, in a line.
    pub does: &'static str,
    /// Reads the words behind the name.
    pub(super) read: Read,
}

/// Reads the words behind a name.
type Read = for<'a> fn(&[&'a str]) -> Result<Message, Misread<'a>>;

/// What is wrong with the words behind a name.
pub(super) enum Misread<'a> {
    /// There are too few or too many.
    Words,
    /// One of them is wrong.
    Word(MessageError<'a>),
}

impl<'a> From<MessageError<'a>> for Misread<'a> {
    fn from(error: MessageError<'a>) -> Self {
        Misread::Word(error)
    }
}

/// The words of `set`.
pub(super) const LIMITS: &str =
    "read_retries|error_threshold|low_water|deadline_ms|autosave_seconds <number>";

const fn form(name: &'static str, words: &'static str, does: &'static str, read: Read) -> Form {
    Form {
        name,
        older: None,
        words,
        does,
        read,
    }
}

/// A message that has no words but its name.
macro_rules! alone {
    ($name:literal, $does:literal, $message:expr) => {
        form($name, "", $does, |words| match words {
            [] => Ok($message),
            _ => Err(Misread::Words),
        })
    };
}

/// A message about one number.
macro_rules! one {
    ($name:literal, $words:literal, $does:literal, $what:literal, $message:expr) => {
        form($name, $words, $does, |words| match words {
            [word] => Ok($message(number(word, $what)?)),
            _ => Err(Misread::Words),
        })
    };
}

/// All messages, in the order of the help.
pub static ALL: &[Form] = &[
    form(
        "remap",
        "<sector> [<count>]",
        "serves these from the spare; what can be read is copied",
        |words| Ok(Message::Remap(sectors(words)?)),
    ),
    form(
        "remove_remap",
        "<sector> [<count>]",
        "moves these back to main, and verifies that main has them",
        |words| Ok(Message::RemoveRemap(sectors(words)?)),
    ),
    alone!(
        "clear_all",
        "moves everything back to main",
        Message::ClearAll
    ),
    form(
        "add_remap",
        "<main sector> <spare sector> <count>",
        "serves these by what the spare holds there already",
        |words| match words {
            [main, spare, count] => Ok(Message::AddRemap {
                main_sector: number(main, "main sector")?,
                spare_sector: number(spare, "spare sector")?,
                count: count_of(count)?,
            }),
            _ => Err(Misread::Words),
        },
    ),
    form(
        "zero",
        "<sector> [<count>]",
        "gives up what main cannot read there: it is zero then",
        |words| Ok(Message::Zero(sectors(words)?)),
    ),
    form(
        "avoid",
        "<sector> <count>",
        "has main not read there any more: reads fail, writes go to the spare",
        |words| match words {
            [_, _] => Ok(Message::Avoid(sectors(words)?)),
            _ => Err(Misread::Words),
        },
    ),
    form(
        "retry",
        "<sector> [<count>]",
        "asks main again for what it could not read, or was not to be asked for",
        |words| Ok(Message::Retry(sectors(words)?)),
    ),
    one!(
        "verify",
        "<sector>",
        "tells where this is served from",
        "sector",
        |sector| Message::Verify { sector }
    ),
    form(
        "list",
        "[<kind>] [<from sector>]",
        "lists ranges: first sector, sectors, kind; the last line is `end`, or where to go on",
        list,
    ),
    alone!("status", "tells the status line", Message::Status),
    alone!("stats", "tells all counters, key=value", Message::Stats),
    alone!(
        "health",
        "tells what is wrong, and what to do",
        Message::Health
    ),
    alone!(
        "why",
        "tells why the last message was refused",
        Message::Why
    ),
    alone!(
        "metadata_status",
        "tells the state of the metadata and of each spare",
        Message::MetadataStatus
    ),
    Form {
        older: Some("restore"),
        ..alone!(
            "recheck",
            "reads all copies of the metadata again, and mends them",
            Message::Recheck
        )
    },
    alone!("save", "writes the counters to the spares", Message::Save),
    alone!("sync", "the same, and flushes all devices", Message::Sync),
    one!(
        "evacuate",
        "<spare>",
        "moves everything off a spare, so that it can be taken out",
        "spare",
        |spare| Message::Evacuate { spare }
    ),
    one!(
        "use_spare",
        "<spare>",
        "uses a spare again that was evacuated",
        "spare",
        |spare| Message::UseSpare { spare }
    ),
    one!(
        "forget_spare",
        "<spare>",
        "gives up a spare that is lost, with what only it has",
        "spare",
        |spare| Message::ForgetSpare { spare }
    ),
    form(
        "scan",
        "start|stop|status",
        "is not available yet",
        |words| match words {
            [word] => {
                let scan = Scan::ALL.into_iter().find(|scan| same(scan.name(), word));
                Ok(Message::Scan(scan.ok_or(MessageError::NotOne {
                    word,
                    what: "scan",
                    of: "start|stop|status",
                })?))
            }
            _ => Err(Misread::Words),
        },
    ),
    form(
        "set_auto_remap",
        "0|1",
        "whether failed blocks are remapped; remembered",
        |words| match words {
            ["0"] => Ok(Message::SetAutoRemap(false)),
            ["1"] => Ok(Message::SetAutoRemap(true)),
            [word] => Err(Misread::Word(MessageError::NotOne {
                word,
                what: "switch",
                of: "0 (off), 1 (on)",
            })),
            _ => Err(Misread::Words),
        },
    ),
    form(
        "set",
        LIMITS,
        "sets a limit until a table or a message says otherwise",
        |words| match words {
            [name, value] => {
                let limit = Limit::ALL.into_iter();
                let mut limit = limit.filter(|limit| same(limit.name(), name));
                let limit = limit
                    .next()
                    .ok_or(MessageError::UnknownLimit { word: name })?;
                let value = limit.parse(value);
                let value = value.map_err(|wrong| MessageError::Limit { limit, wrong })?;
                Ok(Message::Set(limit, value))
            }
            _ => Err(Misread::Words),
        },
    ),
    alone!(
        "clear_stats",
        "sets the counters to zero",
        Message::ClearStats
    ),
    alone!("ping", "is answered by pong", Message::Ping),
    alone!("help", "lists the messages", Message::Help),
];

/// Finds a message by its name, in lower or upper case.
pub fn find(name: &str) -> Option<&'static Form> {
    let called =
        |form: &&Form| same(form.name, name) || form.older.is_some_and(|older| same(older, name));
    ALL.iter().find(called)
}

/// All messages and what they do, a line each.
pub struct Help;

impl fmt::Display for Help {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for form in ALL {
            write!(f, "{separator}{form}: {}", form.does)?;
            separator = "\n";
        }
        Ok(())
    }
}

/// The names of all messages.
pub(super) struct Names;

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for form in ALL {
            write!(f, "{separator}{}", form.name)?;
            separator = ", ";
        }
        Ok(())
    }
}

/// How it is written.
impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if !self.words.is_empty() {
            write!(f, " {}", self.words)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for Form {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Form {}

/// Whether a word is a name, in lower or upper case.
fn same(name: &str, word: &str) -> bool {
    name.eq_ignore_ascii_case(word)
}

fn list<'a>(words: &[&'a str]) -> Result<Message, Misread<'a>> {
    let is_number = |word: &str| word.bytes().next().is_some_and(|b| b.is_ascii_digit());
    let (kind, from) = match words {
        [] => (None, None),
        [word] if is_number(word) => (None, Some(*word)),
        [kind] => (Some(*kind), None),
        [kind, from] => (Some(*kind), Some(*from)),
        _ => return Err(Misread::Words),
    };
    let kind = match kind {
        None => None,
        Some(word) => {
            let mut kinds = Kind::ALL.into_iter();
            let kind = kinds.find(|kind| same(kind.name(), word));
            Some(kind.ok_or(MessageError::NotOne {
                word,
                what: "kind",
                of: Kind::NAMES,
            })?)
        }
    };
    let from = from.map_or(Ok(0), |word| number(word, "from sector"))?;
    Ok(Message::List { kind, from })
}

/// A range: where it begins and, perhaps, how long it is.
fn sectors<'a>(words: &[&'a str]) -> Result<Sectors, Misread<'a>> {
    match words {
        [first] => Ok(Sectors {
            first: number(first, "sector")?,
            count: None,
        }),
        [first, count] => Ok(Sectors {
            first: number(first, "sector")?,
            count: Some(count_of(count)?),
        }),
        _ => Err(Misread::Words),
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
