//! Names of things, each a type of its own, checked once where they come in.
//!
//! Unit and site ids are the external ids of the import. A value of one of these types is always valid, so
//! nothing further in checks again. Clones share the text.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub i64);

impl Millis {
    /// This time and `ms` more, without wrapping.
    pub fn plus(self, ms: i64) -> Millis {
        Millis(self.0.saturating_add(ms))
    }
}

impl Millis {
    /// For people: "2026-03-01 08:30:00 UTC".
    pub fn utc(self) -> String {
        let (days, second) = (
            self.0.div_euclid(86_400_000),
            self.0.rem_euclid(86_400_000) / 1000,
        );
        // Days of the Gregorian calendar in eras of 400 years that begin in March.
        let shifted = days.saturating_add(719_468);
        let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let of_year = day - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let of_month = of_year - (153 * month + 2) / 5 + 1;
        let shown_month = if month < 10 { month + 3 } else { month - 9 };
        let shown_year = era * 400 + year + i64::from(shown_month <= 2);
        let (hours, minutes, seconds) = (second / 3600, second / 60 % 60, second % 60);
        format!("{shown_year:04}-{shown_month:02}-{of_month:02} {hours:02}:{minutes:02}:{seconds:02} UTC")
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// A text that cannot be the id it was given as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdError {
    /// What was to be named: "site id".
    pub what: &'static str,
    /// What came instead, cut to 80 characters.
    pub found: String,
    /// What was expected, in words.
    pub expected: &'static str,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}: expected {}", self.what, self.found, self.expected)
    }
}

impl std::error::Error for IdError {}

/// The longest id, in bytes.
pub const MAX_ID: usize = 64;
/// The longest account name, in bytes.
pub const MAX_ACCOUNT: usize = 32;

pub(crate) const ID_EXPECTED: &str = "1 to 64 of A-Z a-z 0-9 . _ -";
const ACCOUNT_EXPECTED: &str = "1 to 32 of a-z 0-9 . _ -, beginning with a letter or digit";

/// At most `chars` characters of a text from outside, for a message.
pub(crate) fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn is_account(text: &str) -> bool {
    (1..=MAX_ACCOUNT).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
        && text.as_bytes()[0].is_ascii_alphanumeric()
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:path, $expected:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes the text; [`IdError`] says what was expected.
            pub fn new(text: impl AsRef<str>) -> Result<Self, IdError> {
                let text = text.as_ref();
                if $check(text) {
                    Ok(Self(Arc::from(text)))
                } else {
                    Err(IdError { what: $what, found: cut(text, 80), expected: $expected })
                }
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }
    };
}

name_type!(
    /// A unit of the administrative tree, by its external id.
    UnitId, "unit id", is_id, ID_EXPECTED
);
name_type!(
    /// A place that meets, by its external id.
    SiteId, "site id", is_id, ID_EXPECTED
);
name_type!(
    /// A meeting. The shell makes it up; it is also the name of its stream of events.
    MeetingId, "meeting id", is_id, ID_EXPECTED
);
name_type!(
    /// A preset, a schedule or a drill. The shell makes it up.
    PlanId, "plan id", is_id, ID_EXPECTED
);
name_type!(
    /// A report of a site. Made up there; it is unique with its site.
    ReportId, "report id", is_id, ID_EXPECTED
);
name_type!(
    /// The account of a person who signs in. Lower case only, so that no two differ by case.
    AccountName, "account name", is_account, ACCOUNT_EXPECTED
);

impl AccountName {
    /// The pseudo-site under which this person's own console is known to relays: `desk:ACCOUNT`.
    pub fn desk(&self) -> String {
        format!("desk:{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_take_what_the_import_has_and_nothing_else() {
        for good in ["WH", "WH-EL-01-C001-S01", "a.b_c-9", &"x".repeat(64)] {
            assert_eq!(SiteId::new(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            " WH",
            "WH EL",
            "武汉",
            "a/b",
            "desk:ann",
            "a\0",
            &"x".repeat(65),
        ] {
            let error = SiteId::new(bad).unwrap_err();
            assert_eq!(error.what, "site id");
            assert!(error.to_string().contains("1 to 64"), "{error}");
        }
    }

    #[test]
    fn account_names_are_lower_case_and_name_a_desk() {
        assert_eq!(AccountName::new("duty.1").unwrap().desk(), "desk:duty.1");
        for bad in ["", "Ann", "-ann", ".a", "a b", &"a".repeat(33)] {
            assert!(AccountName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("武汉市", 2), "武汉…");
        assert_eq!(cut("武汉", 2), "武汉");
    }
}
