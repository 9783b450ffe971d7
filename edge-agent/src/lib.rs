//! The edge agent of a site: it enrols once, stays attached to the control plane, keeps a warm link to a relay, answers
//! the summons by itself, publishes its source and takes in what the stage shows.
//!
//! One loop ([`agent`]) owns all state; what waits for the network runs in small tasks that report to the loop over one
//! bounded queue. Publishing ([`publisher`]) and receiving ([`screen`]) are plain values that read no clock and
//! own no socket. It runs on one thread, since 140 of them share a machine.
//!
//! What it does not do: it decides nothing about the meeting (the control plane and the relay do).

pub mod agent;
pub mod backoff;
pub mod config;
mod control;
pub mod doctor;
mod drill;
mod enrolment;
pub mod ladder;
pub mod notify;
pub mod outbox;
pub mod page;
pub mod publisher;
mod pulse;
pub mod recorder;
mod rendezvous;
pub mod screen;
pub mod status;
mod uplink;
mod valve;

pub use agent::{Ended, run};
pub use config::{Config, Source};
