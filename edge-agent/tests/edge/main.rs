//! The agent as a whole, in a small world of its own.

mod meeting;
mod program;
mod world;
