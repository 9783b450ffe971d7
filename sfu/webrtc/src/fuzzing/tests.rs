//! Replays the seeds of `fuzz/`, among them whatever was once found.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::Certificate;
use crate::test_support::instant;

fn replay(target: &str, run: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/seeds")
        .join(target);
    let mut seeds = 0;
    for entry in std::fs::read_dir(&folder).expect("the target has seeds") {
        let path = entry.expect("readable").path();
        run(&std::fs::read(&path).expect("readable"));
        seeds += 1;
    }
    assert!(seeds > 0, "no seeds in {}", folder.display());
}

fn certificate() -> &'static Arc<Certificate> {
    static CERTIFICATE: OnceLock<Arc<Certificate>> = OnceLock::new();
    CERTIFICATE.get_or_init(|| Arc::new(Certificate::generate().expect("a certificate")))
}

#[test]
fn the_seeds_of_stun_hold() {
    replay("stun", |data| super::stun(instant(), data));
}

#[test]
fn the_seeds_of_rtp_hold() {
    replay("rtp", super::rtp);
}

#[test]
fn the_seeds_of_rtcp_hold() {
    replay("rtcp", super::rtcp);
}

#[test]
fn the_seeds_of_client_hello_hold() {
    replay("client_hello", super::client_hello);
}

#[test]
fn the_seeds_of_offers_hold() {
    replay("offer", |data| super::offer(instant(), certificate(), data));
}

#[test]
fn the_seeds_of_legs_hold() {
    replay("leg", |data| super::leg(instant(), certificate(), data));
}

#[test]
fn the_seeds_of_red_hold() {
    replay("red", super::red);
}

#[test]
fn the_seeds_of_tcp_framing_hold() {
    replay("tcp_framing", super::tcp_framing);
}
