//! A started relay from outside: browsers (the `webrtc` crate), links, HTTP, a control plane of the test's own.

mod audio;
mod cascade;
mod dev;
mod fleet;
mod hard;
mod http;
mod junk;
mod link;
mod outside;
mod stage;
mod support;
mod tcp;
mod ways_in;
mod webrtc;
