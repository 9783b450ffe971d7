//! The control plane as a whole, over real sockets: started on free ports with a temporary data folder, spoken to by
//! the generated clients, with endpoints and a relay that only speak the protocol.

mod admin;
mod authority;
mod buses;
mod cluster;
mod command;
mod damage;
mod deadlines;
mod directory;
mod limits;
mod log;
mod meeting;
mod permissions;
mod plan;
mod races;
mod replicas;
mod replicas_admin;
mod reports;
mod restart;
mod scale;
mod secrets;
mod secure;
mod servers;
mod sign_in;
mod stage;
mod standing;
mod stores;
mod support;
mod watch;
mod ways_in;
mod wire;
