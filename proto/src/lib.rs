//! The wire schema (`proto/schema`) as Rust types and tonic services; nothing else lives here.
//! Only shells see these types: the pure cores have their own.

/// What people and programs ask of the control plane, and what endpoints and relays tell it.
pub mod command {
    #[allow(clippy::all, clippy::pedantic, missing_docs, reason = "generated code")]
    pub mod v1 {
        tonic::include_proto!("muster.command.v1");
    }
}

/// What concerns pictures and sound, spoken with a relay.
pub mod media {
    #[allow(clippy::all, clippy::pedantic, missing_docs, reason = "generated code")]
    pub mod v1 {
        tonic::include_proto!("muster.media.v1");
    }
}
