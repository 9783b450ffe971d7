//! What can go wrong with identities, in words that say what to do.

use std::path::PathBuf;

/// A certificate, key or identity file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    /// A certificate or key has the wrong form.
    #[error("{what}: {detail}")]
    Malformed { what: &'static str, detail: String },
    /// The certificate names no identity of ours.
    #[error("the certificate names no agent, relay or control plane (expected a URI `muster:agent:SITE`)")]
    Unnamed,
    /// A name in a certificate request that is not signed.
    #[error(transparent)]
    Name(#[from] crate::NameRefused),
}

impl IdentityError {
    pub(crate) fn malformed(what: &'static str, detail: impl std::fmt::Display) -> Self {
        Self::Malformed {
            what,
            detail: detail.to_string(),
        }
    }
}

/// Why enrolment failed.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error("the enrolment token is malformed: expected met1.SECRET.FINGERPRINT")]
    TokenMalformed,
    #[error("cannot reach the control plane at {authority}: {detail}")]
    Unreachable { authority: String, detail: String },
    /// The server is not the one the token was made by.
    #[error("the server at {authority} is not the one that made this token (its CA has another fingerprint)")]
    WrongServer { authority: String },
    #[error("the control plane refused the token: {0}; ask for a new one")]
    Refused(String),
    /// The token is not spent by that.
    #[error("the control plane refused the certificate request: {0}")]
    RequestRefused(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}
