//! What `fuzz/` drives: the readers of this crate, each fed with any bytes, and a whole leg.
//!
//! Compiled for tests and with the feature `fuzzing` only. Every function takes the bytes and panics where the code does not
//! keep what it promises: what was read and is written again is read the same, answers and tables stay within their
//! bounds, nothing is sent to an address that has not proved itself, no timer stands still. `tests` replays `fuzz/seeds`, so
//! that what was once found is looked for by every run of the tests.

mod leg;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rtc_stun::attributes::ATTR_USERNAME;
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{BINDING_SUCCESS, Message, Setter};

use crate::client_hello::{ClientHello, records};
use crate::crypto::provider;
use crate::ice_lite::{IceLite, stun_ufrag};
use crate::leg::IceCredentials;
use crate::rtcp::{self, Feedback};
use crate::rtp::{Header, Rtp};
use crate::{Certificate, Leg, LegConfig};

pub use leg::leg;

const FROM: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 5000);

/// STUN: the bytes as a datagram, and as the attributes of a request that is signed.
pub fn stun(now: Instant, data: &[u8]) {
    let credentials = IceCredentials {
        ufrag: "relayufrag".to_owned(),
        pwd: "relaypasswordrelaypassword".to_owned(),
    };
    let key = credentials.pwd.clone();
    let mut ice = IceLite::new(now, credentials, "abcd".to_owned());
    let _ = stun_ufrag(data);
    assert!(ice.handle(now, FROM, data).is_err(), "nobody signed this");
    assert_eq!(ice.selected(), None);
    let Some(request) = signed(data, &key, 7) else {
        return;
    };
    let mut reader = Message::default();
    let username = reader
        .unmarshal_binary(&request)
        .ok()
        .and_then(|()| reader.get(ATTR_USERNAME).ok());
    if let Some(name) = username
        .as_deref()
        .and_then(|name| std::str::from_utf8(name).ok())
    {
        assert_eq!(stun_ufrag(&request), name.split(':').next(), "both readers agree");
    }
    if let Ok(answer) = ice.handle(now, FROM, &request) {
        assert!(username.is_some_and(|name| name.starts_with(b"relayufrag:abcd")));
        assert!(answer.len() <= 128, "an answer is no amplifier");
        let mut message = Message::default();
        message.unmarshal_binary(&answer).expect("our own answer");
        FINGERPRINT.check(&message).expect("its fingerprint");
        MessageIntegrity::check(&mut message, key.as_bytes(), provider().crypto()).expect("its integrity");
        assert_eq!(message.typ == BINDING_SUCCESS, ice.selected().is_some());
    }
}

/// A binding request with these attributes, MESSAGE-INTEGRITY and FINGERPRINT.
fn signed(attributes: &[u8], key: &str, id: u8) -> Option<Vec<u8>> {
    let length = u16::try_from(attributes.len()).ok()?;
    let mut raw = vec![0, 1];
    raw.extend(length.to_be_bytes());
    raw.extend([0x21, 0x12, 0xa4, 0x42]);
    raw.extend([id; 12]);
    raw.extend_from_slice(attributes);
    let mut message = Message::default();
    message.unmarshal_binary(&raw).ok()?;
    MessageIntegrity::new_short_term_integrity_with_provider(key.to_owned(), provider().crypto())
        .add_to(&mut message)
        .ok()?;
    FINGERPRINT.add_to(&mut message).ok()?;
    Some(message.raw)
}

/// An RTP packet: what can be read is written and read again.
pub fn rtp(data: &[u8]) {
    let Some(rtp) = Rtp::header(data).and_then(|header| header.opened(data)) else {
        return;
    };
    assert!(rtp.payload.start <= rtp.payload.end && rtp.payload.end <= data.len());
    let one_byte = |id: u8| {
        let value = rtp.extension(data, id).filter(|v| (1..=16).contains(&v.len()));
        value.map(|v| (id, v))
    };
    let mut found = (1..=14).filter_map(one_byte);
    let mut extensions = [None; 3];
    for place in &mut extensions {
        *place = found.next();
    }
    let mut out = Vec::new();
    Header {
        marker: rtp.marker,
        pt: rtp.pt,
        seq: rtp.seq,
        timestamp: rtp.timestamp,
        ssrc: rtp.ssrc,
        extensions,
        two_bytes: false,
    }
    .write(&mut out);
    assert!(out.len() <= crate::rtp::MAX_HEADER);
    let header = out.len();
    out.extend_from_slice(&data[rtp.payload.clone()]);
    let again = Rtp::header(&out)
        .and_then(|h| h.opened(&out))
        .expect("our own packet");
    assert_eq!(again.payload, header..out.len());
    assert_eq!(
        (again.marker, again.pt, again.seq, again.timestamp, again.ssrc),
        (rtp.marker, rtp.pt, rtp.seq, rtp.timestamp, rtp.ssrc)
    );
    for (id, value) in extensions.iter().flatten() {
        assert_eq!(again.extension(&out, *id), Some(*value));
    }
}

/// A compound RTCP packet: bounded, and a NACK that is written again asks for the same.
pub fn rtcp(data: &[u8]) {
    let feedback = rtcp::read(data);
    assert!(feedback.len() <= 128, "{} pieces of feedback", feedback.len());
    for piece in feedback {
        if let Feedback::Nack { ssrc, seqs } = piece {
            assert!(seqs.len() <= 512);
            let mut seqs = seqs;
            seqs.sort_unstable();
            seqs.dedup();
            let written = rtcp::nack(1, ssrc, &seqs).expect("written");
            let mut again: Vec<u16> = rtcp::read(&written)
                .into_iter()
                .flat_map(|piece| match piece {
                    Feedback::Nack { seqs, .. } => seqs,
                    _ => Vec::new(),
                })
                .collect();
            again.sort_unstable();
            again.dedup();
            assert_eq!(again, seqs);
        }
    }
}

/// DTLS records and the ClientHello in them.
pub fn client_hello(data: &[u8]) {
    let bodies: usize = records(data).flatten().map(|(_, _, body)| body.len() + 13).sum();
    assert!(bodies <= data.len());
    let mut hello = ClientHello::default();
    // As several datagrams: whatever comes, it ends.
    for part in data.chunks(400) {
        let _ = hello.push(part);
    }
}

/// An offer: it is refused with a line of its own, or answered m-line by m-line in clean lines.
pub fn offer(now: Instant, certificate: &Arc<Certificate>, data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let config = LegConfig::new(FROM, certificate.clone(), [7; 32]);
    match Leg::accept(now, text, &config) {
        Err(error) => assert!(error.line <= text.lines().count() && !error.expected.is_empty()),
        Ok((leg, answer)) => {
            let media = |sdp: &str| sdp.lines().filter(|line| line.starts_with("m=")).count();
            assert_eq!(media(&answer), media(text));
            assert!(leg.sources().len() + leg.slots().len() <= media(text));
            assert!(answer.len() <= 4096 + 4 * text.len() + 4096 * media(text));
            let clean = |line: &str| line.chars().all(|c| !c.is_control()) && line.get(1..2) == Some("=");
            assert!(answer.ends_with("\r\n"));
            assert!(answer.split_terminator("\r\n").all(clean), "{answer:?}");
        }
    }
}

/// A RED payload: the redundancy ends before the primary block.
pub fn red(data: &[u8]) {
    let Some((pt, payload)) = data.split_first() else {
        return;
    };
    if let Some(before) = crate::red::redundancy(payload, pt & 0x7f) {
        assert!(before > 0 && usize::from(before) < payload.len());
    }
}

/// Datagrams over TCP: cut anywhere they are the same, and written they are the bytes that were read.
pub fn tcp_framing(data: &[u8]) {
    let read = |piece: usize| -> (Vec<Vec<u8>>, bool) {
        let (mut reader, mut frames) = (crate::FrameReader::default(), Vec::new());
        for part in data.chunks(piece) {
            let mut rest = part;
            while !rest.is_empty() {
                let space = reader.space();
                let length = rest.len().min(space.len());
                assert!(length > 0, "there is always room");
                space[..length].copy_from_slice(&rest[..length]);
                rest = &rest[length..];
                reader.filled(length);
                loop {
                    match reader.next_frame() {
                        Ok(Some(frame)) => frames.push(frame.to_vec()),
                        Ok(None) => break,
                        Err(_) => return (frames, true),
                    }
                }
            }
        }
        (frames, false)
    };
    let frames = read(data.len().max(1));
    assert_eq!(read(3), frames);
    let mut writer = crate::FrameWriter::default();
    for frame in &frames.0 {
        let pushed = writer.push(frame);
        assert!(writer.pending().len() <= crate::framing::MAX_BUFFERED);
        if pushed {
            let end = writer.pending().len() - frame.len();
            assert_eq!(writer.pending()[end..], frame[..]);
            assert_eq!(
                usize::from(u16::from_be_bytes([
                    writer.pending()[end - 2],
                    writer.pending()[end - 1]
                ])),
                frame.len()
            );
        }
        writer.written(writer.pending().len() / 2);
    }
}
