//! Development mode: a relay alone, with one token for all who publish and view (WHIP, WHEP).
//!
//! There is no control plane, no enrolment and no stage; a meeting opens at its first use. It is for trying things and for
//! tests: whoever has the token may do everything in every meeting. What is *not* here: the HTTP paths (`http/dev.rs`) and who
//! is shown where (`worker/following.rs`).

use std::fmt;

use muster_identity::{Authority, Credentials, Identity, IdentityError, sha256_text};

/// Fewer characters are guessed.
const LEAST: usize = 8;
const MOST: usize = 256;
const LONGEST_MEETING: usize = 64;

/// The one token, kept as its SHA-256.
#[derive(Clone, PartialEq, Eq)]
pub struct DevToken(String);

/// A token that will not do; says what would.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the token has {0}, expected {LEAST} to {MOST} letters, digits or other visible ASCII characters, without spaces"
)]
pub struct BadDevToken(String);

impl DevToken {
    /// # Errors
    /// A token that is too short, too long, or cannot stand in an Authorization header.
    pub fn new(token: &str) -> Result<Self, BadDevToken> {
        let count = token.chars().count();
        if !(LEAST..=MOST).contains(&count) {
            return Err(BadDevToken(format!("{count} characters")));
        }
        if !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(BadDevToken("a character that no HTTP header carries".into()));
        }
        Ok(Self(sha256_text(token.as_bytes())))
    }

    /// Whether someone has shown this token; takes the same time for every wrong one.
    pub(crate) fn is(&self, shown: &str) -> bool {
        let shown = sha256_text(shown.as_bytes());
        aws_lc_rs::constant_time::verify_slices_are_equal(self.0.as_bytes(), shown.as_bytes()).is_ok()
    }
}

impl fmt::Debug for DevToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DevToken(redacted)")
    }
}

/// An identity that is kept nowhere: links and join tokens of real installations do not fit it.
pub(crate) fn credentials() -> Result<Credentials, IdentityError> {
    Authority::in_memory()?.credentials(Identity::Relay("dev".into()))
}

/// Whether a meeting may be called so.
pub(crate) fn is_meeting(name: &str) -> bool {
    (1..=LONGEST_MEETING).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && name.bytes().any(|b| b != b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_token_is_refused_with_what_would_do() {
        let error = DevToken::new("short").err().map(|error| error.to_string());
        assert!(error.is_some_and(|text| text.contains("5 characters") && text.contains("8 to 256")));
        assert!(DevToken::new("eight ch").is_err());
        assert!(DevToken::new(&"x".repeat(257)).is_err());
    }

    #[test]
    fn only_the_token_itself_is_it_and_it_is_not_printed() {
        let token = DevToken::new("long enough".replace(' ', "-").as_str()).expect("a token");
        assert!(token.is("long-enough"));
        assert!(!token.is("long-enougH") && !token.is(""));
        assert_eq!(format!("{token:?}"), "DevToken(redacted)");
    }

    #[test]
    fn meetings_have_plain_names() {
        for good in ["a", "East-Lake_2.1", "..x"] {
            assert!(is_meeting(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "会议", &"x".repeat(65)] {
            assert!(!is_meeting(bad), "{bad}");
        }
    }
}
