//! What the records of the queue file hold.

use muster_proto::command::v1::HandInReportRequest;
use prost::{Message, Oneof};

use super::record;

/// What came of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The control plane has it since this time, milliseconds since the Unix epoch.
    Sent(i64),
    /// The control plane never takes it, for this reason.
    Refused(String),
}

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    Kept(HandInReportRequest),
    /// The report of this id.
    Done(String, Outcome),
}

/// As it is stored.
#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(oneof = "What", tags = "1, 2")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, Oneof)]
enum What {
    #[prost(message, tag = "1")]
    Kept(HandInReportRequest),
    #[prost(message, tag = "2")]
    Done(StoredOutcome),
}

#[derive(Clone, PartialEq, Message)]
struct StoredOutcome {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(int64, tag = "2")]
    received_ms: i64,
    /// Empty: it was taken.
    #[prost(string, tag = "3")]
    refused: String,
}

impl Line {
    /// The whole record; none if it would be too long.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let what = match self {
            Self::Kept(report) => What::Kept(report.clone()),
            Self::Done(id, outcome) => {
                let (received_ms, refused) = match outcome {
                    Outcome::Sent(received_ms) => (*received_ms, ""),
                    Outcome::Refused(reason) => (0, reason.as_str()),
                };
                What::Done(StoredOutcome {
                    id: id.clone(),
                    received_ms,
                    refused: refused.chars().take(300).collect(),
                })
            }
        };
        let mut bytes = Vec::new();
        record::append(&Stored { what: Some(what) }.encode_to_vec(), &mut bytes).then_some(bytes)
    }

    /// From the body of a record.
    ///
    /// # Errors
    /// What another version wrote, in words.
    pub fn decode(body: &[u8]) -> Result<Self, String> {
        let stored = Stored::decode(body).map_err(|error| error.to_string())?;
        match stored.what {
            Some(What::Kept(report)) => Ok(Self::Kept(report)),
            Some(What::Done(done)) => {
                let outcome = match done.refused {
                    reason if reason.is_empty() => Outcome::Sent(done.received_ms),
                    reason => Outcome::Refused(reason),
                };
                Ok(Self::Done(done.id, outcome))
            }
            None => Err("an empty record".into()),
        }
    }
}
