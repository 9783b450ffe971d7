//! Between the domain's types and the wire's; and the store's rows. Nothing is decided here.
//!
//! Stored events are wire messages: reading one that makes no sense is an error, never a guess. What an older version
//! stored lacks the newer fields, and reads as what was true then.

mod directory;
mod event;
mod meeting;
mod plan;
mod roll_call;
mod stage;
mod summons;
#[cfg(test)]
mod tests;
mod unit;

use crate::store::StoreError;
use muster_domain::{IdError, Millis};
use std::str::FromStr;

pub use directory::*;
pub use event::{event_from_wire, event_to_wire};
pub use meeting::{
    fallback_from_wire, fallback_to_wire, meeting_to_wire, notice_to_wire, priority_from_wire,
    priority_to_wire, stage_document_to_wire,
};
pub use plan::*;
pub use roll_call::roll_call_to_wire;
pub use stage::{layout_from_wire, layout_to_wire, polling_order_from_wire};
pub use summons::{reason_from_wire, reason_to_wire, state_from_wire, summons_to_wire};
pub use unit::*;

/// A closed set of words on both sides.
macro_rules! paired {
    ($domain:ty, $wire:ty, $to:ident, $from:ident, { $($variant:ident = $other:ident),+ $(,)? }) => {
        pub fn $to(value: $domain) -> $wire {
            match value { $(<$domain>::$variant => <$wire>::$other),+ }
        }

        /// `None` for "unspecified" and for numbers of a newer schema.
        pub fn $from(number: i32) -> Option<$domain> {
            match <$wire>::try_from(number).ok()? {
                $(<$wire>::$other => Some(<$domain>::$variant),)+
                _ => None,
            }
        }
    };
}
use paired;

fn corrupt(what: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(what.to_string())
}

/// A time, where 0 is none.
fn known_time(ms: i64) -> Option<Millis> {
    (ms != 0).then_some(Millis(ms))
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn large(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn time_to_wire(at: Option<Millis>) -> i64 {
    at.map_or(0, |at| at.0)
}

/// A name, where the empty text is none.
fn known_name<T: FromStr<Err = IdError>>(text: &str) -> Result<Option<T>, StoreError> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(corrupt),
    }
}

fn names<T: FromStr<Err = IdError>, C: FromIterator<T>>(texts: &[String]) -> Result<C, StoreError> {
    texts.iter().map(|text| text.parse().map_err(corrupt)).collect()
}

fn texts<'a, T: ToString + 'a>(names: impl IntoIterator<Item = &'a T>) -> Vec<String> {
    names.into_iter().map(ToString::to_string).collect()
}

fn text<T: ToString>(name: &Option<T>) -> String {
    name.as_ref().map(ToString::to_string).unwrap_or_default()
}
