//! What replicas of one control plane say to each other. Private to one version: replicas are replaced together, and
//! what another version says and this one cannot read is passed over.

use muster_proto::command::v1 as pb;
use prost::{Message, Oneof};

/// One message. `number` counts the sender's [`State`]s, so that a lost one is noticed at the next beat.
#[derive(Clone, PartialEq, Message)]
pub struct Said {
    #[prost(string, tag = "1")]
    pub replica: String,
    #[prost(uint64, tag = "2")]
    pub number: u64,
    #[prost(oneof = "What", tags = "3, 4, 5, 6, 7")]
    pub what: Option<What>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum What {
    /// The sender lives.
    #[prost(message, tag = "3")]
    Beat(Beat),
    /// What the sender has, or what changed of it.
    #[prost(message, tag = "4")]
    State(State),
    /// Tell me all that you have.
    #[prost(message, tag = "5")]
    Ask(Ask),
    /// An event was stored.
    #[prost(message, tag = "6")]
    Stored(Stored),
    /// Something else was stored: read it again.
    #[prost(message, tag = "7")]
    Changed(Changed),
}

#[derive(Clone, PartialEq, Message)]
pub struct Beat {
    /// The last one of all: the sender ends in good order.
    #[prost(bool, tag = "1")]
    pub leaving: bool,
}

/// Sites that came or went here, relays, qualities. A whole state comes in parts.
#[derive(Clone, PartialEq, Message)]
pub struct State {
    /// The first part of a whole state: what was told before counts no more once the last part is there.
    #[prost(bool, tag = "1")]
    pub first: bool,
    /// The last part of a whole state.
    #[prost(bool, tag = "2")]
    pub last: bool,
    #[prost(message, repeated, tag = "3")]
    pub presence: Vec<pb::Presence>,
    /// All of them, if there are any news.
    #[prost(message, optional, tag = "4")]
    pub relays: Option<Relays>,
    #[prost(message, repeated, tag = "5")]
    pub quality: Vec<pb::SiteQuality>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Relays {
    #[prost(message, repeated, tag = "1")]
    pub relays: Vec<Relay>,
}

/// A relay that has dialled in at the sender.
#[derive(Clone, PartialEq, Message)]
pub struct Relay {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub http_url: String,
    #[prost(string, repeated, tag = "3")]
    pub link_addrs: Vec<String>,
    #[prost(uint32, tag = "4")]
    pub legs: u32,
    #[prost(bool, tag = "5")]
    pub suspected: bool,
    /// It has an uplink, be it whole or not.
    #[prost(bool, tag = "6")]
    pub below: bool,
    /// The relay above that it is joined to now; empty: none.
    #[prost(string, tag = "7")]
    pub uplink: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Ask {
    /// Whom; empty: everybody.
    #[prost(string, tag = "1")]
    pub of: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Stored {
    #[prost(string, tag = "1")]
    pub meeting: String,
    #[prost(uint64, tag = "2")]
    pub seq: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Changed {
    /// The tree, or how sites answer.
    #[prost(bool, tag = "1")]
    pub directory: bool,
    /// Presets, schedules or drills.
    #[prost(bool, tag = "2")]
    pub plans: bool,
    /// The grants, the password or the sessions of this account; empty: of none.
    #[prost(string, tag = "3")]
    pub account: String,
    #[prost(message, optional, tag = "4")]
    pub drill_started: Option<pb::DrillStarted>,
    #[prost(message, optional, tag = "5")]
    pub drill_reported: Option<pb::ReportDrillRequest>,
    #[prost(message, optional, boxed, tag = "6")]
    pub report: Option<Box<pb::Report>>,
}
