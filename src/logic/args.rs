// SPDX-License-Identifier: GPL-2.0

//! What does a table line ask for?
//!
//! ```text
//! <start> <len> dm-remap <main> <spare> [<#args> <args>…]
//! <start> <len> remap <main> <spare> <spare_start> <spare_len>
//! ```
//!
//! Read here is what stands behind the target's name. A line prints back the way it was given, but
//! for `format`: a table that is loaded again must not format again.

use core::{
    ffi::CStr,
    fmt, //
};

use super::{
    errno::Errno,
    format::MEMBERS_MAX,
    limit::{
        Limit,
        Wrong, //
    },
    text::{
        MainId,
        Uuid, //
    }, //
};

/// Which of the two target names a line has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `dm-remap`.
    DmRemap,
    /// `remap`.
    Remap,
}

/// A table line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableLine<'a> {
    /// The main device, as given.
    pub main: &'a str,
    /// The spare device, as given.
    pub spare: &'a str,
    /// Everything else.
    pub options: Options,
}

/// The part of a table line that is kept while the table lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which name the line has.
    pub form: Form,
    /// Whether failed writes are remapped.
    pub auto_remap: Option<bool>,
    /// Where the spare's window begins on the spare device, in sectors.
    pub spare_start: Option<u64>,
    /// How long the window is, in sectors.
    pub spare_len: Option<u64>,
    /// The spare set that must be found there.
    pub uuid: Option<Uuid>,
    /// What the user calls main.
    pub main_id: Option<MainId>,
    /// The numbers, in the order of [`Limit::ALL`].
    limits: [Option<u32>; Limit::ALL.len()],
    /// The word that names the first spare, the main device's being 0.
    pub spare_word: usize,
    /// The words that name more spares.
    more_spares: [Option<usize>; MORE_SPARES],
    /// Go without members of the set that are not there.
    pub degraded: bool,
    /// Format a spare that is not blank.
    pub format: bool,
    /// Take for main what is a spare of some set.
    pub spare_as_main: bool,
    order: [Option<Key>; KEYS],
}

/// The optional arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    AutoRemap,
    SpareStart,
    SpareLen,
    Uuid,
    MainId,
    Limit(Limit),
    /// One more spare, and which.
    Spare(u8),
    Degraded,
    Format,
    SpareAsMain,
}

impl Key {
    fn has_value(self) -> bool {
        !matches!(self, Key::Degraded | Key::Format | Key::SpareAsMain)
    }
}

/// How many spares there can be besides the first one.
pub const MORE_SPARES: usize = MEMBERS_MAX as usize - 1;

const KEYS: usize = 8 + Limit::ALL.len() + MORE_SPARES;

/// The last sector that a device can have, and one more.
const SECTORS_MAX: u64 = 1 << 55;

/// Why a table line is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgsError {
    /// What is wrong.
    pub kind: ArgsErrorKind,
    /// The number of the argument that is wrong, or would be the next; the main device has 0.
    pub argument: usize,
}

/// What is wrong with a table line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // `message` says it in words.
pub enum ArgsErrorKind {
    DmRemapTooFew,
    RemapCount,
    MainStartNotNumber,
    MainStartNotZero,
    CountNotNumber,
    CountTooLarge,
    CountMismatch,
    Unknown,
    NoValue,
    Twice,
    AutoRemap,
    SpareStartNotNumber,
    SpareStartTooLarge,
    SpareLenNotNumber,
    SpareLenTooLarge,
    SpareLenZero,
    WindowTooLarge,
    Uuid,
    MainId,
    LimitValue(Limit, Wrong),
    FormatWithUuid,
    DevicesEqual,
    TooManySpares,
}

impl ArgsError {
    /// What is wrong and what is allowed, for the user.
    pub fn message(&self) -> &'static CStr {
        use ArgsErrorKind::*;
        match self.kind {
            DmRemapTooFew => c"Two devices are needed: <main> <spare> [<#args> <args>...]",
            RemapCount => {
                c"Four arguments are needed: <main> <spare> <spare_start> <spare_len>, or five with a 0 behind <main>"
            }
            MainStartNotNumber => {
                c"main_start, the second of five arguments, is not a decimal number: only 0 is allowed"
            }
            MainStartNotZero => {
                c"main_start is not 0: name a partition, or a linear device that begins there, as main"
            }
            CountNotNumber => c"Number of optional arguments is not a decimal number",
            CountTooLarge => c"Number of optional arguments is too large",
            CountMismatch => c"Number of optional arguments does not match what follows",
            Unknown => {
                c"Unknown argument, known are: auto_remap, spare_start, spare_len, uuid, main_id, read_retries, error_threshold, low_water, deadline_ms, autosave_seconds, spare, degraded, format, spare_as_main"
            }
            NoValue => c"Last argument lacks its value",
            Twice => c"Argument given twice",
            AutoRemap => c"auto_remap is neither on nor off",
            SpareStartNotNumber => c"spare_start is not a decimal number",
            SpareStartTooLarge => c"spare_start is too large",
            SpareLenNotNumber => c"spare_len is not a decimal number",
            SpareLenTooLarge => c"spare_len is too large",
            SpareLenZero => c"spare_len is 0",
            WindowTooLarge => c"spare_start + spare_len is too large",
            Uuid => c"uuid is not of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx",
            MainId => c"main_id is longer than 64 characters, or has others than visible ASCII",
            LimitValue(limit, wrong) => limit.complaint(wrong),
            FormatWithUuid => c"format and uuid contradict each other: a new spare gets a new uuid",
            DevicesEqual => c"Main and spare are the same device",
            TooManySpares => c"A set has four spares at most",
        }
    }

    /// The error number for the user.
    pub fn errno(&self) -> Errno {
        use ArgsErrorKind::*;
        match self.kind {
            CountTooLarge | TooManySpares => Errno::TooMany,
            SpareStartTooLarge
            | SpareLenTooLarge
            | WindowTooLarge
            | LimitValue(_, Wrong::OutOfRange) => Errno::Range,
            Unknown | MainStartNotZero => Errno::NotSupported,
            Twice => Errno::Exists,
            DevicesEqual => Errno::Busy,
            DmRemapTooFew
            | RemapCount
            | MainStartNotNumber
            | CountNotNumber
            | CountMismatch
            | NoValue
            | AutoRemap
            | SpareStartNotNumber
            | SpareLenNotNumber
            | SpareLenZero
            | Uuid
            | MainId
            | LimitValue(_, Wrong::NotNumber)
            | FormatWithUuid => Errno::Invalid,
        }
    }
}

impl fmt::Display for ArgsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message().to_str().unwrap_or(""))
    }
}

impl Options {
    /// No options at all.
    pub fn new(form: Form) -> Self {
        Options {
            form,
            auto_remap: None,
            spare_start: None,
            spare_len: None,
            uuid: None,
            main_id: None,
            limits: [None; Limit::ALL.len()],
            spare_word: 1,
            more_spares: [None; MORE_SPARES],
            degraded: false,
            format: false,
            spare_as_main: false,
            order: [None; KEYS],
        }
    }

    /// The number that was given for a limit, if any.
    pub fn limit(&self, limit: Limit) -> Option<u32> {
        let values = Limit::ALL.iter().zip(self.limits);
        values
            .filter(|(which, _)| **which == limit)
            .find_map(|(_, value)| value)
    }

    /// The numbers of the words that name more spares, the main device's being 0.
    pub fn more_spares(&self) -> impl Iterator<Item = usize> + '_ {
        self.more_spares.iter().copied().flatten()
    }

    /// Remembers that word `at` names one more spare; none if there are too many.
    fn add_spare(&mut self, at: usize) -> Option<Key> {
        let mut places = self.more_spares.iter_mut().zip(0u8..);
        let (place, number) = places.find(|(place, _)| place.is_none())?;
        *place = Some(at);
        Some(Key::Spare(number))
    }

    fn set_limit(&mut self, limit: Limit, value: u32) {
        for (which, place) in Limit::ALL.iter().zip(&mut self.limits) {
            if *which == limit {
                *place = Some(value);
            }
        }
    }

    /// Remembers that `key` was given; false if it was before.
    fn note(&mut self, key: Key) -> bool {
        for place in &mut self.order {
            match place {
                Some(earlier) if *earlier == key => return false,
                Some(_) => (),
                None => {
                    *place = Some(key);
                    return true;
                }
            }
        }
        false
    }
}

/// Reads what stands behind the target's name.
pub fn parse<'a>(form: Form, args: &[&'a str]) -> Result<TableLine<'a>, ArgsError> {
    match form {
        Form::DmRemap => parse_dm_remap(args),
        Form::Remap => parse_remap(args),
    }
}

/// The four words that belong there, or the five that an older wrapper writes: it says where main begins, too.
fn parse_remap<'a>(args: &[&'a str]) -> Result<TableLine<'a>, ArgsError> {
    use ArgsErrorKind::{
        MainStartNotNumber,
        MainStartNotZero,
        RemapCount, //
    };
    let mut options = Options::new(Form::Remap);
    let (main, spare, start, len) = match *args {
        [main, spare, start, len] => (main, spare, start, len),
        [main, main_start, spare, start, len] => {
            let wrong = (MainStartNotNumber, MainStartNotZero);
            if number(main_start, 1, wrong.0, wrong.1)? != 0 {
                return Err(error(wrong.1, 1));
            }
            options.spare_word = 2;
            (main, spare, start, len)
        }
        _ => return Err(error(RemapCount, args.len().min(4))),
    };
    let at = options.spare_word.saturating_add(1);
    options.spare_start = Some(spare_start(start, at)?);
    options.spare_len = Some(spare_len(len, at.saturating_add(1))?);
    finish(main, spare, options, at)
}

fn parse_dm_remap<'a>(args: &[&'a str]) -> Result<TableLine<'a>, ArgsError> {
    let &[main, spare, ref rest @ ..] = args else {
        return Err(error(ArgsErrorKind::DmRemapTooFew, args.len()));
    };
    let mut options = Options::new(Form::DmRemap);
    let Some((count, words)) = rest.split_first() else {
        return finish(main, spare, options, 2);
    };
    let not_number = ArgsErrorKind::CountNotNumber;
    let count = number(count, 2, not_number, ArgsErrorKind::CountTooLarge)?;
    if count > 2 * KEYS as u64 {
        return Err(error(ArgsErrorKind::CountTooLarge, 2));
    }
    if count != words.len() as u64 {
        return Err(error(ArgsErrorKind::CountMismatch, 2));
    }
    let mut words = words.iter().copied().zip(3usize..);
    while let Some((name, at)) = words.next() {
        let key = match name {
            "spare" => options
                .add_spare(at.saturating_add(1))
                .ok_or(error(ArgsErrorKind::TooManySpares, at))?,
            name => key(name).ok_or(error(ArgsErrorKind::Unknown, at))?,
        };
        if !options.note(key) {
            return Err(error(ArgsErrorKind::Twice, at));
        }
        match key {
            Key::Format => options.format = true,
            Key::Degraded => options.degraded = true,
            Key::SpareAsMain => options.spare_as_main = true,
            _ => (),
        }
        if !key.has_value() {
            continue;
        }
        let (value, at) = words
            .next()
            .ok_or(error(ArgsErrorKind::NoValue, at.saturating_add(1)))?;
        set(&mut options, key, value, at)?;
    }
    finish(main, spare, options, 3)
}

fn set(options: &mut Options, key: Key, value: &str, at: usize) -> Result<(), ArgsError> {
    use ArgsErrorKind::*;
    match key {
        Key::AutoRemap => {
            options.auto_remap = Some(match value {
                "on" => true,
                "off" => false,
                _ => return Err(error(AutoRemap, at)),
            });
        }
        Key::SpareStart => options.spare_start = Some(spare_start(value, at)?),
        Key::SpareLen => options.spare_len = Some(spare_len(value, at)?),
        Key::Uuid => {
            let uuid = super::text::Uuid::parse(value).filter(|uuid| !uuid.is_nil());
            options.uuid = Some(uuid.ok_or(error(Uuid, at))?);
        }
        Key::MainId => {
            let id = super::text::MainId::new(value);
            options.main_id = Some(id.ok_or(error(MainId, at))?);
        }
        Key::Limit(limit) => {
            let number = limit.parse(value);
            let number = number.map_err(|wrong| error(LimitValue(limit, wrong), at))?;
            options.set_limit(limit, number);
        }
        // Devices are opened by whoever asked.
        Key::Spare(_) | Key::Degraded | Key::Format | Key::SpareAsMain => (),
    }
    Ok(())
}

/// What can only be checked when everything is known.
fn finish<'a>(
    main: &'a str,
    spare: &'a str,
    options: Options,
    at: usize,
) -> Result<TableLine<'a>, ArgsError> {
    let start = options.spare_start.unwrap_or(0);
    let end = start.checked_add(options.spare_len.unwrap_or(0));
    if end.is_none_or(|end| end > SECTORS_MAX) {
        return Err(error(ArgsErrorKind::WindowTooLarge, at));
    }
    if options.format && options.uuid.is_some() {
        return Err(error(ArgsErrorKind::FormatWithUuid, at));
    }
    if main == spare {
        return Err(error(ArgsErrorKind::DevicesEqual, options.spare_word));
    }
    Ok(TableLine {
        main,
        spare,
        options,
    })
}

fn spare_start(value: &str, at: usize) -> Result<u64, ArgsError> {
    use ArgsErrorKind::*;
    let start = number(value, at, SpareStartNotNumber, SpareStartTooLarge)?;
    if start > SECTORS_MAX {
        return Err(error(SpareStartTooLarge, at));
    }
    Ok(start)
}

fn spare_len(value: &str, at: usize) -> Result<u64, ArgsError> {
    use ArgsErrorKind::*;
    match number(value, at, SpareLenNotNumber, SpareLenTooLarge)? {
        0 => Err(error(SpareLenZero, at)),
        len if len > SECTORS_MAX => Err(error(SpareLenTooLarge, at)),
        len => Ok(len),
    }
}

fn number(
    value: &str,
    at: usize,
    not_number: ArgsErrorKind,
    too_large: ArgsErrorKind,
) -> Result<u64, ArgsError> {
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
        return Err(error(not_number, at));
    }
    // Of digits only too many can be wrong.
    value.parse().map_err(|_| error(too_large, at))
}

fn key(name: &str) -> Option<Key> {
    Some(match name {
        "auto_remap" => Key::AutoRemap,
        "spare_start" => Key::SpareStart,
        "spare_len" => Key::SpareLen,
        "uuid" => Key::Uuid,
        "main_id" => Key::MainId,
        "degraded" => Key::Degraded,
        "format" => Key::Format,
        "spare_as_main" => Key::SpareAsMain,
        _ => Key::Limit(Limit::named(name)?),
    })
}

fn error(kind: ArgsErrorKind, argument: usize) -> ArgsError {
    ArgsError { kind, argument }
}

/// Prints a table line back; the devices are given in the form that device mapper wants, those of
/// more spares by number.
pub fn print<M: fmt::Display, S: fmt::Display>(
    out: &mut dyn fmt::Write,
    main: M,
    spare: S,
    more: impl Fn(usize) -> Option<S>,
    options: &Options,
) -> fmt::Result {
    write!(out, "{main} {spare}")?;
    match options.form {
        Form::Remap => write!(
            out,
            " {} {}",
            options.spare_start.unwrap_or(0),
            options.spare_len.unwrap_or(0)
        ),
        Form::DmRemap => print_options(out, more, options),
    }
}

fn print_options<S: fmt::Display>(
    out: &mut dyn fmt::Write,
    more: impl Fn(usize) -> Option<S>,
    options: &Options,
) -> fmt::Result {
    let given = || {
        options
            .order
            .iter()
            .flatten()
            .filter(|key| **key != Key::Format)
    };
    let words: usize = given().map(|key| 1 + usize::from(key.has_value())).sum();
    if words == 0 {
        return Ok(());
    }
    write!(out, " {words}")?;
    for key in given() {
        match key {
            Key::AutoRemap => {
                let on = options.auto_remap.unwrap_or(true);
                write!(out, " auto_remap {}", if on { "on" } else { "off" })?;
            }
            Key::SpareStart => write!(out, " spare_start {}", options.spare_start.unwrap_or(0))?,
            Key::SpareLen => write!(out, " spare_len {}", options.spare_len.unwrap_or(0))?,
            Key::Uuid => write!(out, " uuid {}", options.uuid.unwrap_or_default())?,
            Key::MainId => {
                let id = options.main_id.unwrap_or_default();
                out.write_str(" main_id ")?;
                print_word(out, id.as_str())?;
            }
            Key::Limit(limit) => {
                write!(
                    out,
                    " {} {}",
                    limit.name(),
                    options.limit(*limit).unwrap_or(0)
                )?;
            }
            Key::Spare(number) => match more(usize::from(*number)) {
                Some(spare) => write!(out, " spare {spare}")?,
                None => write!(out, " spare -")?,
            },
            Key::Degraded => write!(out, " degraded")?,
            Key::SpareAsMain => write!(out, " spare_as_main")?,
            Key::Format => (),
        }
    }
    Ok(())
}

/// The line that names a set by its UUID, as users should give it once there is one: it never formats.
/// Displayed, it is what stands behind start and length.
pub struct Named<'a> {
    /// The words of the line that made the set.
    pub words: &'a [&'a str],
    /// What they say.
    pub options: &'a Options,
    /// The set.
    pub uuid: Uuid,
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut options = *self.options;
        if options.form == Form::Remap {
            // There is no room for it in the short form.
            options.form = Form::DmRemap;
            options.note(Key::SpareStart);
            options.note(Key::SpareLen);
        }
        options.uuid = Some(self.uuid);
        options.note(Key::Uuid);
        // That was for once.
        for key in &mut options.order {
            *key = key.filter(|key| *key != Key::Degraded);
        }
        let word = |at: usize| self.words.get(at).map(|word| Word(word));
        let more = |number| word(options.more_spares().nth(number)?);
        let (main, spare) = (
            Word::or_none(word(0)),
            Word::or_none(word(options.spare_word)),
        );
        f.write_str("dm-remap ")?;
        print(f, main, spare, more, &options)
    }
}

/// A word of a table line, as it has to be typed.
struct Word<'a>(&'a str);

impl<'a> Word<'a> {
    fn or_none(word: Option<Self>) -> Self {
        word.unwrap_or(Word("-"))
    }
}

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_word(f, self.0)
    }
}

/// Device mapper takes a backslash for the sign that the next character stands for itself.
fn print_word(out: &mut dyn fmt::Write, word: &str) -> fmt::Result {
    word.chars().try_for_each(|character| {
        if character == '\\' || character.is_ascii_whitespace() {
            out.write_char('\\')?;
        }
        out.write_char(character)
    })
}
