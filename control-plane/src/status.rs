//! Errors as the wire schema promises them: a gRPC status with a sentence for people and, in the metadata
//! `muster-code`, a stable word for programs.

use crate::accounts::SignInError;
use crate::store::StoreError;
use muster_domain::{IdError, Refusal, WordError};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// Metadata key of the stable word.
pub const CODE_KEY: &str = "muster-code";

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Refused(Refusal),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("there is no meeting {0:?}")]
    NoMeeting(String),
    #[error("nothing was ever stored under the name {0:?}: it is no stream")]
    NoStream(String),
    #[error("there is no account {0:?}")]
    NoAccount(String),
    #[error("account {account:?} has no role {role} on unit {unit}")]
    NoSuchGrant {
        account: String,
        role: String,
        unit: String,
    },
    #[error("no relay is online: nobody can join at this moment")]
    NoRelay,
    #[error("{0}")]
    BadRequest(String),
    #[error("another endpoint of the site has taken the call")]
    Taken,
    #[error("the control plane is busy; try again")]
    Busy,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<IdError> for Failure {
    fn from(error: IdError) -> Self {
        Self::BadRequest(error.to_string())
    }
}

impl From<WordError> for Failure {
    fn from(error: WordError) -> Self {
        Self::BadRequest(error.to_string())
    }
}

fn coded(code: Code, word: &'static str, message: String) -> Status {
    let mut status = Status::new(code, message);
    status
        .metadata_mut()
        .insert(CODE_KEY, MetadataValue::from_static(word));
    status
}

fn refused_code(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::NoRole { .. }
        | Refusal::RoleRanOut { .. }
        | Refusal::OutsideAuthority { .. }
        | Refusal::NotTheChair { .. }
        | Refusal::NotAbove { .. }
        | Refusal::BeyondOwnEnd { .. } => Code::PermissionDenied,
        Refusal::UnknownUnit(_)
        | Refusal::UnknownSite(_)
        | Refusal::UnknownPlan { .. }
        | Refusal::NotConvened => Code::NotFound,
        Refusal::NoSites
        | Refusal::NoCommonUnit
        | Refusal::UnknownNames(_)
        | Refusal::UnknownDesk(_)
        | Refusal::PastTime { .. }
        | Refusal::TooManySites { .. }
        | Refusal::SiteTwice(_)
        | Refusal::BadText { .. }
        | Refusal::BadNumber { .. }
        | Refusal::NotAReport(_) => Code::InvalidArgument,
        Refusal::AlreadyConvened
        | Refusal::MayNotChair(_)
        | Refusal::UnitMoved
        | Refusal::LastCommander { .. }
        | Refusal::NameTaken { .. }
        | Refusal::NoEnd
        | Refusal::MeetingEnded
        | Refusal::IsTheChair
        | Refusal::AlreadyDone
        | Refusal::PresetInUse { .. }
        | Refusal::NotTakenOver
        | Refusal::NotInMeeting(_)
        | Refusal::InOtherMeeting { .. }
        | Refusal::Locked
        | Refusal::HungUp(_)
        | Refusal::NotOnAir(_)
        | Refusal::NotRequested(_)
        | Refusal::NobodyToChair
        | Refusal::NotPolling
        | Refusal::RollCallGoesOn
        | Refusal::NoRollCall
        | Refusal::NotInRollCall(_)
        | Refusal::NotCalled(_)
        | Refusal::OldEpoch { .. } => Code::FailedPrecondition,
        Refusal::TooManyEndpoints { .. } | Refusal::TooManyChairRequests | Refusal::TooManyPlans { .. } => {
            Code::ResourceExhausted
        }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let message = failure.to_string();
        match failure {
            Failure::Refused(refusal) => coded(refused_code(&refusal), refusal.code(), message),
            Failure::Store(error) => error.into(),
            Failure::NoMeeting(_) => coded(Code::NotFound, "unknown_meeting", message),
            Failure::NoStream(_) => coded(Code::NotFound, "unknown_stream", message),
            Failure::NoAccount(_) => coded(Code::NotFound, "unknown_account", message),
            Failure::NoSuchGrant { .. } => coded(Code::NotFound, "unknown_grant", message),
            Failure::NoRelay => coded(Code::Unavailable, "no_relay", message),
            Failure::BadRequest(_) => coded(Code::InvalidArgument, "bad_request", message),
            Failure::Taken => coded(Code::FailedPrecondition, "taken", message),
            Failure::Busy => coded(Code::Unavailable, "busy", message),
        }
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "store");
        metrics::counter!("muster_store_errors").increment(1);
        match error {
            StoreError::Unavailable(_) => coded(Code::Unavailable, "store_unavailable", error.to_string()),
            StoreError::Conflict(_) => coded(Code::Aborted, "conflict", error.to_string()),
            StoreError::Corrupt(_) => coded(Code::DataLoss, "store_corrupt", error.to_string()),
        }
    }
}

impl From<SignInError> for Status {
    fn from(error: SignInError) -> Self {
        let message = error.to_string();
        match error {
            SignInError::Refused => coded(Code::Unauthenticated, "wrong_credentials", message),
            SignInError::TooMany(_) => coded(Code::ResourceExhausted, "too_many_attempts", message),
            SignInError::Busy => coded(Code::Unavailable, "busy", message),
            SignInError::Store(error) => error.into(),
        }
    }
}

/// The caller did not prove who they are.
pub fn unauthenticated(message: &str) -> Status {
    coded(Code::Unauthenticated, "unauthenticated", message.to_owned())
}
