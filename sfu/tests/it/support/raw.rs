//! A peer by hand: it joins by POST and then says on the wire exactly what a test wants.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::hmac;
use tokio::net::UdpSocket;

use super::http::{self, post_offer};
use super::{Bench, in_time};

/// What a joined peer knows of its leg.
pub struct RawPeer {
    pub relay: SocketAddr,
    pub path: String,
    pub secret: String,
    username: String,
    pwd: String,
}

/// Watches one VP8 slot. The fingerprint is nobody's: no handshake with it ever succeeds.
pub fn offer(ufrag: &str) -> String {
    let fingerprint = vec!["0A"; 32].join(":");
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=ice-ufrag:{ufrag}\r\n\
         a=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 {fingerprint}\r\na=setup:actpass\r\n\
         a=recvonly\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n"
    )
}

impl RawPeer {
    pub async fn join(bench: &Bench, site: &str) -> Self {
        let answer = post_offer(bench.relay.http_addr(), &bench.token("m", site), &offer("abcd")).await;
        let (path, secret) = answer.leg();
        let value = |name: &str| {
            let line = answer.body.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in {}", answer.body))
                .to_owned()
        };
        let candidate = value("a=candidate:");
        let words: Vec<&str> = candidate.split(' ').collect();
        Self {
            relay: format!("{}:{}", words[4], words[5]).parse().expect("an address"),
            path,
            secret,
            username: format!("{}:abcd", value("a=ice-ufrag:")),
            pwd: value("a=ice-pwd:"),
        }
    }

    /// A connectivity check, each with a transaction id of its own.
    pub fn check(&self) -> Vec<u8> {
        self.check_with(&self.pwd)
    }

    /// A socket from whose address a check has passed.
    pub async fn checked_socket(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("socket");
        socket.send_to(&self.check(), self.relay).await.expect("sent");
        let mut buffer = [0; 2000];
        in_time("the check is answered", socket.recv_from(&mut buffer))
            .await
            .expect("one");
        socket
    }

    pub fn check_with(&self, pwd: &str) -> Vec<u8> {
        static CHECKS: AtomicU64 = AtomicU64::new(1);
        let mut message = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 9, 9, 9, 9];
        message.extend(CHECKS.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        attribute(&mut message, 0x0006, self.username.as_bytes());
        attribute(&mut message, 0x802a, &[1; 8]); // ICE-CONTROLLING
        attribute(&mut message, 0x0025, &[]); // USE-CANDIDATE
        // MESSAGE-INTEGRITY and FINGERPRINT are computed with the length that they give the message (RFC 8489, 14.5).
        set_length(&mut message, 24);
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, pwd.as_bytes());
        let tag = hmac::sign(&key, &message);
        attribute(&mut message, 0x0008, tag.as_ref());
        set_length(&mut message, 8);
        let crc = crc32(&message) ^ 0x5354_554e;
        attribute(&mut message, 0x8028, &crc.to_be_bytes());
        message
    }
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend(kind.to_be_bytes());
    message.extend((value.len() as u16).to_be_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
    set_length(message, 0);
}

fn set_length(message: &mut [u8], more: usize) {
    let length = (message.len() - 20 + more) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
}

/// CRC-32 of ISO 3309, as FINGERPRINT wants it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ 0xedb8_8320
            } else {
                crc >> 1
            }
        })
    })
}

pub fn transaction(stun: &[u8]) -> [u8; 12] {
    stun[8..20].try_into().expect("a STUN message")
}

/// The transaction that a binding success response answers.
pub fn success_of(datagram: &[u8]) -> Option<[u8; 12]> {
    (datagram.len() >= 20 && datagram[..2] == [1, 1]).then(|| transaction(datagram))
}

/// RTP by RFC 5761: no RTCP, no STUN, no DTLS.
pub fn is_rtp(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, second, ..] if !(192..=223).contains(second))
}

/// A DTLS record with a ClientHello that offers use_srtp; `n` varies its random.
pub fn client_hello(n: u8) -> Vec<u8> {
    let body = hello_body(n);
    let length = body.len() as u32;
    let mut message = vec![1];
    message.extend(&length.to_be_bytes()[1..]);
    message.extend([0, 0, 0, 0, 0]);
    message.extend(&length.to_be_bytes()[1..]);
    message.extend(body);
    record(n.into(), &message)
}

/// The first half of a ClientHello, as a fragment.
pub fn half_client_hello(n: u16) -> Vec<u8> {
    let body = hello_body(n as u8);
    let half = &body[..body.len() / 2];
    let mut message = vec![1];
    message.extend(&(body.len() as u32).to_be_bytes()[1..]);
    message.extend(n.to_be_bytes());
    message.extend([0, 0, 0]);
    message.extend(&(half.len() as u32).to_be_bytes()[1..]);
    message.extend_from_slice(half);
    record(n, &message)
}

fn hello_body(n: u8) -> Vec<u8> {
    let mut body = vec![0xfe, 0xfd];
    body.extend([n; 32]);
    body.extend([0, 0]); // no session, no cookie
    body.extend([0, 2, 0xc0, 0x2b, 1, 0]); // ECDHE-ECDSA-AES128-GCM, no compression
    let extensions = [0, 23, 0, 0, 0, 14, 0, 5, 0, 2, 0, 7, 0];
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    body
}

fn record(seq: u16, message: &[u8]) -> Vec<u8> {
    let mut record = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0];
    record.extend(seq.to_be_bytes());
    record.extend((message.len() as u16).to_be_bytes());
    record.extend_from_slice(message);
    record
}

/// DELETE of a leg; its status.
pub async fn leave(bench: &Bench, path: &str, secret: &str) -> u16 {
    let bearer = format!("Bearer {secret}");
    let headers = [("authorization", bearer.as_str())];
    http::request(bench.relay.http_addr(), "DELETE", path, &headers, "")
        .await
        .status
}
