//! The control plane: services, store, bus, sessions, fleet of relays and the console.
pub mod accounts;
pub mod bus;
pub mod clock;
pub mod config;
pub mod console;
pub mod convert;
pub mod endpoints;
pub mod fleet;
pub mod meetings;
pub mod net;
pub mod status;
pub mod store;
pub mod throttle;
pub mod tickets;
