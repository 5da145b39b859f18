// SPDX-License-Identifier: GPL-2.0

//! Why a command could not do what it was asked for.

use std::fmt;

/// What kind of failure it is; decides the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command line is wrong, or something that it names can't be opened, read or written.
    Usage,
    /// The metadata is damaged so that going on would lose or invent something.
    Damage,
    /// Not a dm-remap spare, another one than was named, or one of a version that is not understood.
    Foreign,
}

/// Why a command failed: a text for people that names what is wrong, and its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    text: String,
}

/// What most functions here return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Something about the command line or what it names.
    pub fn usage(text: impl Into<String>) -> Self {
        Self {
            kind: Kind::Usage,
            text: text.into(),
        }
    }

    /// Damage that this command does not go over.
    pub fn damage(text: impl Into<String>) -> Self {
        Self {
            kind: Kind::Damage,
            text: text.into(),
        }
    }

    /// Not what it should be.
    pub fn foreign(text: impl Into<String>) -> Self {
        Self {
            kind: Kind::Foreign,
            text: text.into(),
        }
    }

    /// A failed operation on a file.
    pub fn io(what: &std::path::Path, doing: &str, error: &std::io::Error) -> Self {
        Self::usage(format!("{}: cannot {doing}: {error}", what.display()))
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The exit status that stands for it.
    pub fn exit_status(&self) -> u8 {
        match self.kind {
            Kind::Damage => 8,
            Kind::Usage => 16,
            Kind::Foreign => 32,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}
