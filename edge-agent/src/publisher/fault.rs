//! What can be wrong with a camera, in the few words that a dispatcher can act on.
//!
//! Each has its reason on the wire (`SummonsReason`), for which the console has the words in both languages. What a
//! camera or a program said about it goes into the agent's log and status alone.

use muster_proto::command::v1::SummonsReason;

/// What is wrong with a camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no such camera, or no such stream of it.
    Missing,
    /// Another program or too many viewers have it.
    Busy,
    /// It is connected, and sends nothing.
    Silent,
    /// It does not take the name or password.
    Refused,
    /// It does not answer on the network.
    Unreachable,
    /// What it sends cannot be passed on.
    Format,
    /// The browser of the agent's page may not use it.
    Denied,
    /// No browser shows the agent's page, from which the picture would come.
    PageClosed,
}

impl Fault {
    /// As it is told to the control plane.
    pub fn reason(self) -> SummonsReason {
        match self {
            Self::Missing => SummonsReason::CameraMissing,
            Self::Busy => SummonsReason::CameraBusy,
            Self::Silent => SummonsReason::CameraSilent,
            Self::Refused => SummonsReason::CameraRefused,
            Self::Unreachable => SummonsReason::CameraUnreachable,
            Self::Format => SummonsReason::CameraFormat,
            Self::Denied => SummonsReason::CameraDenied,
            Self::PageClosed => SummonsReason::PageClosed,
        }
    }

    /// As it stands in the status: a stable word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Busy => "busy",
            Self::Silent => "silent",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Format => "format",
            Self::Denied => "denied",
            Self::PageClosed => "page_closed",
        }
    }

    /// In plain words.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Missing => "no camera was found",
            Self::Busy => "the camera is in use by another program",
            Self::Silent => "the camera is connected and sends nothing",
            Self::Refused => "the camera does not take the name or password",
            Self::Unreachable => "the camera does not answer on the network",
            Self::Format => "the camera sends no H.264",
            Self::Denied => "the browser does not allow the page to use the camera",
            Self::PageClosed => "the agent's page is not open in a browser",
        }
    }
}
