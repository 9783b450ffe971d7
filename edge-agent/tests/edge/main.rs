//! The agent as a whole, in a small world of its own.

mod command;
mod failover;
mod meeting;
mod program;
mod relay;
mod rtsp;
mod world;
