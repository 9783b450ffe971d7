//! The command domain from outside, in virtual time: one module a subject.

mod attendance;
mod authority;
mod chair;
mod import;
mod meeting;
mod meeting_random;
mod polling;
mod priority;
mod selector;
mod speak;
mod summons;
mod support;
mod terms;
mod tree;
mod unit;
