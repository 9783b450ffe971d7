//! The agent as a whole, in a small world of its own.

mod blocked;
mod browser;
mod capture;
mod command;
mod doctor;
mod failover;
mod h264;
mod meeting;
mod narrow;
mod page;
mod program;
mod relay;
mod rtsp;
mod world;
