//! What the tests that cross programs share: the programs as child processes, and a small field of them.
//!
//! The programs are those of the dev profile, beside the tests in the target folder; `deploy/build dev` builds
//! them. Every child dies with its handle, whatever becomes of the test.

pub mod field;
pub mod program;
