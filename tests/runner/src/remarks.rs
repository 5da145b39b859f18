// SPDX-License-Identifier: GPL-2.0
//! What a test file says about itself, to people and to us: lines of its first comment.
//!
//! ```text
//! //! Needs: the example modules.
//! //! Needs: dkms-package.
//! //! Alone: why nothing may run beside it.
//! //! Also on the oldest kernel.
//! //! Also on the oldest kernel: moves.
//! //! Only in test-system: why it is too much for each run.
//! //! More in test-system: what.
//! ```

use std::fmt;

/// What has to be there before a program can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Examples,
    DkmsPackage,
}

/// What is too much for each run, and has its place in `make test-system`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heavy<S = String> {
    /// All of it, and why.
    Wholly(S),
    /// A sample of it runs each time; what there is besides.
    Partly(S),
}

impl<S: fmt::Display> Heavy<S> {
    /// The same, with a name before the words.
    pub(crate) fn of(&self, name: &str) -> Heavy {
        match self {
            Self::Wholly(why) => Heavy::Wholly(format!("{name} ({why})")),
            Self::Partly(what) => Heavy::Partly(format!("{name} ({what})")),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remarks {
    pub(crate) needs: Vec<Need>,
    pub(crate) heavy: Option<Heavy>,
    pub(crate) alone: bool,
    /// Whether it runs on the oldest kernel, too, or what of it: nothing named is all.
    pub(crate) on_oldest: Option<Vec<String>>,
}

impl Remarks {
    /// Reads a file's text; an error names the line that cannot be understood.
    pub(crate) fn new(source: &str) -> Result<Self, String> {
        let mut remarks = Self::default();
        let comment = source.lines().take_while(|line| line.starts_with("//"));
        for line in comment {
            let text = line.strip_prefix("//! ").unwrap_or_default();
            remarks
                .read(text)
                .ok_or_else(|| format!("what does '{text}' mean?"))?;
        }
        Ok(remarks)
    }

    fn read(&mut self, text: &str) -> Option<()> {
        if let Some(need) = text.strip_prefix("Needs: ") {
            self.needs.push(match need {
                "the example modules." => Need::Examples,
                "dkms-package." => Need::DkmsPackage,
                _ => return None,
            });
        } else if text.starts_with("Alone: ") {
            self.alone = true;
        } else if let Some(why) = text.strip_prefix("Only in test-system: ") {
            self.heavy = Some(Heavy::Wholly(why.strip_suffix('.')?.into()));
        } else if let Some(what) = text.strip_prefix("More in test-system: ") {
            self.heavy = Some(Heavy::Partly(what.strip_suffix('.')?.into()));
        } else if let Some(rest) = text.strip_prefix("Also on the oldest kernel") {
            let names = rest.strip_suffix('.')?;
            self.on_oldest = Some(match names.strip_prefix(": ") {
                Some(names) => names.split(", ").map(str::to_string).collect(),
                None if names.is_empty() => Vec::new(),
                None => return None,
            });
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_say_nothing() {
        let remarks = Remarks::new("// SPDX\n//! Tests of needs.\n\n//! Alone: too late.\n");
        assert_eq!(remarks, Ok(Remarks::default()));
    }

    #[test]
    fn all_remarks_are_understood() {
        let remarks = Remarks::new(
            "// SPDX\n//! What it is.\n//!\n//! Needs: the example modules.\n//! Alone: it counts.\n\
             //! Also on the oldest kernel: moves, limits.\n",
        )
        .unwrap();
        assert_eq!(remarks.needs, [Need::Examples]);
        assert!(remarks.alone);
        assert_eq!(
            remarks.on_oldest,
            Some(vec!["moves".into(), "limits".into()])
        );
    }

    #[test]
    fn what_is_heavy_says_why() {
        let heavy = |line: &str| Remarks::new(line).unwrap().heavy;
        assert_eq!(
            heavy("//! Only in test-system: it installs packages.\n"),
            Some(Heavy::Wholly("it installs packages".into()))
        );
        assert_eq!(
            heavy("//! More in test-system: each sector.\n"),
            Some(Heavy::Partly("each sector".into()))
        );
    }

    #[test]
    fn all_of_it_on_the_oldest_kernel() {
        let remarks = Remarks::new("//! Also on the oldest kernel.\n").unwrap();
        assert_eq!(remarks.on_oldest, Some(Vec::new()));
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for line in [
            "//! Needs: luck.",
            "//! Also on the oldest kernel, moves.",
            "//! More in test-system: no end",
        ] {
            assert!(Remarks::new(line).is_err(), "{line}");
        }
    }
}
