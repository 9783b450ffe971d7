//! What a password must be, before anything slow is done with it.
//!
//! Hashing, rate limits and sessions are the shell's. Errors never hold the password.

use std::fmt;

use crate::ids::AccountName;

/// The shortest password, in characters.
pub const MIN_PASSWORD_CHARS: usize = 8;
/// The longest password, in bytes: a bound on what is hashed.
pub const MAX_PASSWORD_BYTES: usize = 256;

/// Why a password will not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordError {
    TooShort,
    TooLong,
    ControlCharacter,
    /// It is the account name, or one character over and over.
    Guessable,
}

impl PasswordError {
    /// A stable word for programs and for translation.
    pub fn code(self) -> &'static str {
        match self {
            PasswordError::TooShort => "password_too_short",
            PasswordError::TooLong => "password_too_long",
            PasswordError::ControlCharacter => "password_control_character",
            PasswordError::Guessable => "password_guessable",
        }
    }
}

impl fmt::Display for PasswordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PasswordError::TooShort => {
                write!(f, "password: expected {MIN_PASSWORD_CHARS} characters at least")
            }
            PasswordError::TooLong => write!(f, "password: expected {MAX_PASSWORD_BYTES} bytes at most"),
            PasswordError::ControlCharacter => f.write_str("password: expected no control characters"),
            PasswordError::Guessable => f.write_str(
                "password: expected something other than the account name or one repeated character",
            ),
        }
    }
}

impl std::error::Error for PasswordError {}

/// Whether a new password will do for an account.
pub fn check_password(account: &AccountName, password: &str) -> Result<(), PasswordError> {
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(PasswordError::TooLong);
    }
    if password.chars().count() < MIN_PASSWORD_CHARS {
        return Err(PasswordError::TooShort);
    }
    if password.chars().any(char::is_control) {
        return Err(PasswordError::ControlCharacter);
    }
    let first = password.chars().next();
    if password.eq_ignore_ascii_case(account) || password.chars().all(|c| Some(c) == first) {
        return Err(PasswordError::Guessable);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_checked_by_table() {
        let account = AccountName::new("duty.officer").unwrap();
        for (password, expected) in [
            ("seven77", Err(PasswordError::TooShort)),
            ("eight888", Ok(())),
            ("武汉东湖高新区应急", Ok(())),
            ("", Err(PasswordError::TooShort)),
            ("with\ttab-inside", Err(PasswordError::ControlCharacter)),
            ("Duty.Officer", Err(PasswordError::Guessable)),
            ("aaaaaaaaaa", Err(PasswordError::Guessable)),
            (&"ab".repeat(128), Ok(())),
            (&"ab".repeat(129), Err(PasswordError::TooLong)),
        ] {
            assert_eq!(check_password(&account, password), expected, "{password:?}");
        }
    }
}
