//! What the tests that cross programs share: the programs as child processes, a small field of them, a relay alone with
//! clients that nobody here wrote, and a network to put them in.
//!
//! The programs are those of the dev profile, beside the tests in the target folder; `deploy/build dev` builds
//! them. Every child dies with its handle, whatever becomes of the test.

pub mod dev_relay;
pub mod field;
pub mod own_network;
pub mod page;
pub mod peer;
pub mod program;
pub mod tiers;
