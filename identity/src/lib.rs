//! Who is who. The built-in certificate authority, the certificates of agents and relays, the one-time
//! tokens with which they enrol, the TLS configurations between all of them, and the join tokens with which
//! a leg is opened at a relay.
//!
//! Invariants: an identity is read from a certificate that this CA signed and from nowhere else; a join token
//! is checked by a relay alone, with the public key only. This crate decides nothing about authority (who may
//! meet whom) and keeps no state but the files it is told to keep.

mod authority;
mod credentials;
mod enrol;
mod error;
mod name;
mod names;
mod rank;
mod server;
mod tls;
mod token;

pub use authority::{Authority, ServerPem};
pub use credentials::Credentials;
pub use enrol::{EnrolToken, enrol, enrol_as, renew};
pub use error::{EnrolError, IdentityError};
pub use name::{Identity, identity_of};
pub use names::{LOOPBACK_NAMES, NameRefused, all_named, names_of_listener};
pub use rank::{LAST_RANK, Rank};
pub use server::{Hello, LOOK_EVERY, LiveCertificate, PairFiles, accept_tls};
pub use tls::{
    CONTROL_PLANE_NAME, LINK_ALPN, RELAY_NAME, connect, connect_in_line, connect_web, link_client_config,
    link_server_config, web_channel, web_client_config, web_client_config_of,
};
pub use token::{JoinClaims, Role, TOKEN_VALID_S, TokenError, TokenSigner, TokenVerifier, Track, View};

/// A random secret of 256 bits as base64url text, for tokens and sessions.
pub fn random_secret() -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// SHA-256 as base64url text: how secrets are stored and certificates named.
pub fn sha256_text(bytes: &[u8]) -> String {
    use base64::Engine as _;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest.as_ref())
}
