//! Why a request is refused: one code for programs, one sentence for people, and the HTTP status.

use std::borrow::Cow;

/// A refused join, view or patch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    pub status: u16,
    /// As in `LinkRefused.code` and in the JSON body of an HTTP error.
    pub code: &'static str,
    pub message: Cow<'static, str>,
}

impl Refusal {
    pub fn new(status: u16, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, "bad_request", message)
    }

    pub fn full(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(503, "full", message)
    }

    /// Nobody said who they are.
    pub fn no_bearer(expected: &'static str) -> Self {
        Self::new(401, "token_missing", expected)
    }

    pub fn stopping() -> Self {
        Self::new(503, "stopping", "the relay is shutting down")
    }

    pub fn no_such_leg() -> Self {
        Self::new(
            404,
            "no_such_leg",
            "there is no such leg; it has left, or the secret is not its own",
        )
    }
}
