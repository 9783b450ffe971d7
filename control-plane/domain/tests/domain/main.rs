//! The command domain from outside, in virtual time: one module a subject.

mod authority;
mod import;
mod meeting;
mod meeting_random;
mod selector;
mod summons;
mod support;
mod terms;
mod tree;
