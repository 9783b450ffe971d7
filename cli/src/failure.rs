//! How a command fails: one line on the error output, and an exit code that a script can act on.

use std::process::ExitCode;

use tonic::{Code, Status};

pub const REFUSED: u8 = 1;
pub const USAGE: u8 = 2;
pub const UNREACHABLE: u8 = 3;
pub const NOT_ALL_ON_AIR: u8 = 4;
pub const NOT_SIGNED_IN: u8 = 5;

/// The table of the exit codes, for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused or failed; the message says why
  2  wrong usage or bad input (a bad file is listed line by line)
  3  the control plane is not reachable
  4  not all sites are on air (convene --wait, status MEETING, demo --check)
  5  not signed in, or wrong account or password";

#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    Refused(String),
    Usage(String),
    Unreachable(String),
    NotAllOnAir(String),
    NotSignedIn(String),
}

impl Failure {
    /// Prints the message and gives the exit code.
    pub fn report(&self) -> ExitCode {
        let (code, message) = self.parts();
        eprintln!("muster: {message}");
        ExitCode::from(code)
    }

    fn parts(&self) -> (u8, &str) {
        match self {
            Failure::Refused(message) => (REFUSED, message),
            Failure::Usage(message) => (USAGE, message),
            Failure::Unreachable(message) => (UNREACHABLE, message),
            Failure::NotAllOnAir(message) => (NOT_ALL_ON_AIR, message),
            Failure::NotSignedIn(message) => (NOT_SIGNED_IN, message),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::Unauthenticated => {
                Failure::NotSignedIn(format!("{message}; sign in with: muster sign-in --account NAME"))
            }
            // It did answer: its own refusals carry a word.
            Code::Unavailable if status.metadata().contains_key("muster-code") => {
                Failure::Refused(format!("not now, try again: {message}"))
            }
            Code::Unavailable | Code::DeadlineExceeded => {
                Failure::Unreachable(format!("the control plane does not answer: {message}"))
            }
            Code::InvalidArgument => Failure::Usage(message),
            Code::PermissionDenied => Failure::Refused(format!("not permitted: {message}")),
            Code::NotFound => Failure::Refused(format!("not found: {message}")),
            Code::FailedPrecondition | Code::ResourceExhausted => {
                Failure::Refused(format!("refused: {message}"))
            }
            code => Failure::Refused(format!("failed ({code:?}): {message}")),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Status>() {
            Ok(status) => status.into(),
            Err(error) => Failure::Refused(format!("{error:#}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: Status, code: u8, part: &str) {
        let failure = Failure::from(status);
        let (found, message) = failure.parts();
        assert_eq!(found, code, "{message}");
        assert!(message.contains(part), "{message}");
    }

    #[test]
    fn a_status_becomes_its_documented_exit_code() {
        check(Status::unauthenticated("no session"), 5, "sign-in");
        check(Status::unavailable("connection refused"), 3, "does not answer");
        check(Status::invalid_argument("selector: empty"), 2, "selector: empty");
        check(Status::permission_denied("WH is above you"), 1, "not permitted");
        check(Status::failed_precondition("the meeting has ended"), 1, "refused");
    }

    #[test]
    fn a_full_disk_of_the_control_plane_is_no_control_plane_that_is_away() {
        let mut status = Status::unavailable("disk is full");
        let word = "store_unavailable".parse().expect("ascii");
        status.metadata_mut().insert("muster-code", word);
        check(status, 1, "disk is full");
    }

    #[test]
    fn the_help_names_every_code() {
        for code in [REFUSED, USAGE, UNREACHABLE, NOT_ALL_ON_AIR, NOT_SIGNED_IN] {
            assert!(EXIT_CODES.contains(&format!("\n  {code}  ")), "{code}");
        }
    }
}
