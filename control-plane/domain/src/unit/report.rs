//! What the front line raises (上报), and the answers that it gave while it could not be heard.
//!
//! A report is named by its site and an id made there, so that handing it in again stores nothing. It changes nothing
//! that is decided here; that it is stored once is the store's business.

use crate::ids::{MeetingId, Millis, ReportId, SiteId};
use crate::refusal::Refusal;

/// Characters of a report, at most.
pub const MAX_REPORT: usize = 500;

/// What a report is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportKind {
    /// Whatever the front line has to say.
    Words,
    /// A person at the site answered this roll call of this meeting.
    RollCallAnswer { meeting: MeetingId, roll_call: u32 },
}

/// A report of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteReport {
    pub site: SiteId,
    pub id: ReportId,
    pub kind: ReportKind,
    /// Empty of an answer.
    pub text: String,
    /// By the clock at the site.
    pub written: Millis,
}

impl SiteReport {
    /// Whether it can be stored: words have 1 to [`MAX_REPORT`] characters, no control characters but line feeds.
    pub fn check(&self) -> Result<(), Refusal> {
        let plain = |c: char| c == '\n' || !c.is_control();
        let fits = self.text.chars().count() <= MAX_REPORT && self.text.chars().all(plain);
        let says = self.kind != ReportKind::Words || !self.text.trim().is_empty();
        if fits && says {
            Ok(())
        } else {
            Err(Refusal::BadText {
                field: "text",
                expected: "1 to 500 characters, no control characters but line feeds",
            })
        }
    }
}
