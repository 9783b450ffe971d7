//! The closed sets of words: tiers, kinds of access, roles, kinds of endpoint.
//!
//! Each has one spelling, the one of the import file and the logs. Words for people are the console's.

use std::fmt;
use std::str::FromStr;

/// A text that is none of a closed set of words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WordError {
    /// What came, cut to 80 characters.
    pub found: String,
    /// The words that would have done: "city, district, street or community".
    pub expected: &'static str,
}

impl fmt::Display for WordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: expected {}", self.found, self.expected)
    }
}

impl std::error::Error for WordError {}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $expected:literal, { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];
            /// What may stand here, in words.
            pub const EXPECTED: &'static str = $expected;

            /// The word itself.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = WordError;
            fn from_str(text: &str) -> Result<Self, WordError> {
                match text {
                    $($word => Ok($name::$variant),)+
                    _ => Err(WordError { found: crate::ids::cut(text, 80), expected: $expected }),
                }
            }
        }
    };
}

words!(
    /// Height in the administrative tree; `City < District < Street < Community` from the top down.
    Tier, "city, district, street or community", {
        City = "city", District = "district", Street = "street", Community = "community",
    }
);

words!(
    /// How a site is connected.
    Access, "fibre, adsl, 4g or satellite", {
        Fibre = "fibre", Adsl = "adsl", FourG = "4g", Satellite = "satellite",
    }
);

words!(
    /// What an account may do on a unit and its subtree; the table is in [`crate::authority`].
    Role, "commander, duty_officer, engineer or auditor", {
        Commander = "commander", DutyOfficer = "duty_officer", Engineer = "engineer", Auditor = "auditor",
    }
);

words!(
    /// How endpoints of a site answer a call.
    Answer, "default, auto or ring", {
        /// Agents by themselves, browsers by a person.
        Default = "default",
        /// Every endpoint by itself.
        Auto = "auto",
        /// Every endpoint rings until a person answers.
        Ring = "ring",
    }
);

words!(
    /// What is attached at a site.
    EndpointKind, "agent or browser", {
        Agent = "agent", Browser = "browser",
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip_and_others_name_what_was_expected() {
        for tier in Tier::ALL {
            assert_eq!(tier.as_str().parse::<Tier>(), Ok(*tier));
        }
        for access in Access::ALL {
            assert_eq!(access.as_str().parse::<Access>(), Ok(*access));
        }
        let error = "village".parse::<Tier>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"village\": expected city, district, street or community"
        );
        assert!("City".parse::<Tier>().is_err());
    }

    #[test]
    fn tiers_are_ordered_from_the_top_down() {
        assert!(Tier::City < Tier::District && Tier::Street < Tier::Community);
    }
}
