//! What each target does with the fuzzer's bytes: it reads them, and asserts what must hold of what was read.
//!
//! One function a target, named as the file in `fuzz_targets/` and the folder in `seeds/`. Those of `muster-webrtc` are in
//! its own module `fuzzing`, since its readers are private. Nothing here opens a socket or draws randomness but the
//! certificate, which is made once.

#[path = "../../sfu/link/src/framing.rs"]
pub mod framing;
#[path = "../../sfu/link/src/rtp.rs"]
pub mod rtp_of_links;
#[path = "../../sfu/src/http/sdpfrag.rs"]
mod sdpfrag;

mod congestion;
mod link;
mod payloads;

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use muster_webrtc::{Certificate, fuzzing};

pub use congestion::congestion;
pub use link::{LinkError, link_framing, link_rtp};
pub use payloads::{av1, dependency_descriptor, h264, vp8, vp9};

fn certificate() -> &'static Arc<Certificate> {
    static CERTIFICATE: OnceLock<Arc<Certificate>> = OnceLock::new();
    CERTIFICATE.get_or_init(|| Arc::new(Certificate::generate().expect("a certificate")))
}

pub fn stun(data: &[u8]) {
    fuzzing::stun(Instant::now(), data);
}

pub fn rtp(data: &[u8]) {
    fuzzing::rtp(data);
}

pub fn rtcp(data: &[u8]) {
    fuzzing::rtcp(data);
}

pub fn client_hello(data: &[u8]) {
    fuzzing::client_hello(data);
}

pub fn red(data: &[u8]) {
    fuzzing::red(data);
}

pub fn tcp_framing(data: &[u8]) {
    fuzzing::tcp_framing(data);
}

pub fn offer(data: &[u8]) {
    fuzzing::offer(Instant::now(), certificate(), data);
}

pub fn leg(data: &[u8]) {
    fuzzing::leg(Instant::now(), certificate(), data);
}

/// The body of a PATCH: what was accepted is accepted again when it is written down.
pub fn sdp_fragment(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(found) = sdpfrag::parse(text) else {
        return;
    };
    let mut written = found.media.join("\r\n") + "\r\n";
    if let Some(credentials) = &found.credentials {
        assert!((4..=256).contains(&credentials.ufrag.len()) && (22..=256).contains(&credentials.pwd.len()));
        written += &format!(
            "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n",
            credentials.ufrag, credentials.pwd
        );
    }
    assert!(
        found
            .media
            .iter()
            .flat_map(|line| line.chars())
            .all(|c| !c.is_control())
    );
    assert_eq!(sdpfrag::parse(&written), Ok(found));
}
