//! The session descriptions that peers write, and what they must know of the other end's.
//!
//! One camera (mid `camera`) and any number of slots (mids `s0`, `s1`...), all VP8 on one transport.

use std::net::SocketAddr;

use anyhow::Context as _;

use crate::picture::{MID_ID, PAYLOAD_TYPE, RID_ID, RIDS, RTX_PAYLOAD_TYPE, SSRC, TWCC_ID};

const TWCC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const CAMERA: &str = "camera";

/// The mid of a slot.
pub fn slot(number: usize) -> String {
    format!("s{number}")
}

/// Our end of the transport.
pub struct Local<'a> {
    pub ufrag: &'a str,
    /// 22 characters at least.
    pub pwd: &'a str,
    pub fingerprint: &'a str,
    /// Where checks reach us; the relay needs none.
    pub candidate: Option<SocketAddr>,
}

/// What an offer holds.
#[derive(Clone, Copy, Default)]
pub struct Wanted {
    /// Layers of the camera; 0: none is published.
    pub layers: usize,
    pub slots: usize,
}

impl Local<'_> {
    fn session(&self, mids: &[String], setup: &str) -> String {
        format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n\
             a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {}\r\na=setup:{setup}\r\n",
            mids.join(" "),
            self.ufrag,
            self.pwd,
            self.fingerprint
        )
    }

    /// Lines of the first m-line.
    fn candidate(&self) -> String {
        self.candidate.map_or_else(String::new, |address| {
            let (ip, port) = (address.ip(), address.port());
            format!("a=candidate:1 1 udp 2130706431 {ip} {port} typ host\r\na=end-of-candidates\r\n")
        })
    }

    /// `setup` is `actpass` for one that is the DTLS server of itself, else `active`.
    pub fn offer(&self, wanted: Wanted, setup: &str) -> String {
        let camera = (wanted.layers > 0).then(|| CAMERA.to_owned());
        let mids: Vec<String> = camera.into_iter().chain((0..wanted.slots).map(slot)).collect();
        let mut offer = self.session(&mids, setup);
        let mut candidate = self.candidate();
        for mid in mids {
            let (direction, more) = if mid == CAMERA {
                ("sendonly", camera_lines(wanted.layers))
            } else {
                ("recvonly", String::new())
            };
            offer += &format!(
                "m=video 9 UDP/TLS/RTP/SAVPF {PAYLOAD_TYPE} {RTX_PAYLOAD_TYPE}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\n\
                 a={direction}\r\na=rtcp-mux\r\na=rtcp-rsize\r\na=rtpmap:{PAYLOAD_TYPE} VP8/90000\r\n\
                 a=rtpmap:{RTX_PAYLOAD_TYPE} rtx/90000\r\na=fmtp:{RTX_PAYLOAD_TYPE} apt={PAYLOAD_TYPE}\r\n\
                 {}a=extmap:{TWCC_ID} {TWCC}\r\na=extmap:{MID_ID} {MID}\r\n{more}{}",
                feedback(PAYLOAD_TYPE),
                std::mem::take(&mut candidate)
            );
        }
        offer
    }

    /// For an offerer of one video m-line that we publish to or view (`direction`), as the DTLS client. Of its payload
    /// types we take VP8 alone.
    pub fn answer(&self, mid: &str, payload_type: u8, direction: &str, more: &str) -> String {
        let session = self.session(&[mid.to_owned()], "active");
        format!(
            "{session}m=video 9 UDP/TLS/RTP/SAVPF {payload_type}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\n\
             a={direction}\r\na=rtcp-mux\r\na=rtpmap:{payload_type} VP8/90000\r\n{more}{}",
            self.candidate()
        )
    }
}

/// What a receiver of this payload type may send back.
pub fn feedback(payload_type: u8) -> String {
    ["transport-cc", "ccm fir", "nack", "nack pli"]
        .map(|kind| format!("a=rtcp-fb:{payload_type} {kind}\r\n"))
        .concat()
}

fn camera_lines(layers: usize) -> String {
    if layers == 1 {
        return format!("a=ssrc:{SSRC} cname:bench\r\n");
    }
    let rids = &RIDS[..layers];
    let each = rids.iter().map(|rid| format!("a=rid:{rid} send\r\n"));
    let lines: String = each.collect();
    format!(
        "a=extmap:{RID_ID} {RID}\r\n{lines}a=simulcast:send {}\r\n",
        rids.join(";")
    )
}

/// The other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    pub ufrag: String,
    pub pwd: String,
    pub fingerprint: String,
    pub candidate: SocketAddr,
    /// It took or offers transport-wide sequence numbers.
    pub twcc: bool,
}

/// The value of the first line that begins with `name`.
pub fn find<'a>(description: &'a str, name: &str) -> anyhow::Result<&'a str> {
    let line = description.lines().find_map(|line| line.strip_prefix(name));
    line.with_context(|| format!("the description has no {name}"))
}

/// Reads a description that has a candidate for UDP over IPv4.
pub fn read(description: &str) -> anyhow::Result<Remote> {
    let mut candidates = description
        .lines()
        .filter_map(|line| line.strip_prefix("a=candidate:"));
    let address = candidates.find_map(|candidate| {
        let mut words = candidate.split(' ').skip(2);
        let udp = words.next()?.eq_ignore_ascii_case("udp");
        let (ip, port) = (words.nth(1)?.parse().ok()?, words.next()?.parse().ok()?);
        let address = SocketAddr::new(ip, port);
        (udp && address.is_ipv4()).then_some(address)
    });
    let owned = |name| find(description, name).map(str::to_owned);
    Ok(Remote {
        ufrag: owned("a=ice-ufrag:")?,
        pwd: owned("a=ice-pwd:")?,
        fingerprint: owned("a=fingerprint:sha-256 ")?,
        twcc: description.contains(TWCC),
        candidate: address.context("the description has no candidate for UDP over IPv4")?,
    })
}

/// The id that an offer gives the header extension with this URI.
fn extension(offer: &str, uri: &str) -> Option<u8> {
    offer.lines().find_map(|line| {
        let (id, name) = line.strip_prefix("a=extmap:")?.split_once(' ')?;
        (name.split(' ').next() == Some(uri)).then(|| id.split('/').next()?.parse().ok())?
    })
}

/// The first payload type of this codec.
pub fn payload_type(description: &str, codec: &str) -> anyhow::Result<u8> {
    let found = description.lines().find_map(|line| {
        let (payload_type, name) = line.strip_prefix("a=rtpmap:")?.split_once(' ')?;
        (name == codec).then(|| payload_type.parse().ok())?
    });
    found.with_context(|| format!("the description has no {codec}"))
}

/// What a browser's offer of a camera calls things.
#[derive(Debug, PartialEq, Eq)]
pub struct Offered {
    pub mid: String,
    pub vp8: u8,
    pub rid_id: u8,
    pub twcc_id: u8,
    pub rids: Vec<String>,
}

/// Reads a browser's offer of one camera in layers.
pub fn offered(offer: &str) -> anyhow::Result<Offered> {
    let rids = find(offer, "a=simulcast:send ")?
        .split(';')
        .map(str::to_owned)
        .collect();
    Ok(Offered {
        mid: find(offer, "a=mid:")?.to_owned(),
        vp8: payload_type(offer, "VP8/90000")?,
        rid_id: extension(offer, RID).context("no names of layers")?,
        twcc_id: extension(offer, TWCC).context("no transport-wide sequence numbers")?,
        rids,
    })
}

impl Offered {
    /// The lines of our answer that take all of it.
    pub fn lines(&self) -> String {
        let rids: String = self
            .rids
            .iter()
            .map(|rid| format!("a=rid:{rid} recv\r\n"))
            .collect();
        format!(
            "a=extmap:{} {RID}\r\na=extmap:{} {TWCC}\r\n{}{rids}a=simulcast:recv {}\r\n",
            self.rid_id,
            self.twcc_id,
            feedback(self.vp8),
            self.rids.join(";")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: Local = Local {
        ufrag: "uf",
        pwd: "pw",
        fingerprint: "AB:CD",
        candidate: None,
    };

    #[test]
    fn what_matters_of_a_description_is_found() {
        let answer = "v=0\r\na=ice-lite\r\na=ice-ufrag:uf\r\na=ice-pwd:pw\r\na=fingerprint:sha-256 AB:CD\r\n\
                      a=candidate:9 1 tcp 1 127.0.0.1 9 typ host\r\na=candidate:8 1 udp 1 ::1 9 typ host\r\n\
                      a=candidate:1 1 udp 2130706431 127.0.0.1 4000 typ host\r\n";
        let expect = Remote {
            ufrag: "uf".into(),
            pwd: "pw".into(),
            fingerprint: "AB:CD".into(),
            candidate: "127.0.0.1:4000".parse().expect("address"),
            twcc: false,
        };
        assert_eq!(read(answer).expect("an answer"), expect);
        let with_twcc = read(&format!("{answer}a=extmap:3 {TWCC}\r\n")).expect("an answer");
        assert!(with_twcc.twcc);
        assert!(read(&answer.replace("4000", "x")).is_err());
        assert!(read(&answer.replace("a=ice-pwd", "a=other")).is_err());
    }

    #[test]
    fn our_own_offer_reads_as_a_browsers() {
        let wanted = Wanted { layers: 3, slots: 2 };
        let offer = LOCAL.offer(wanted, "actpass");
        assert!(offer.contains("a=group:BUNDLE camera s0 s1\r\n"));
        assert_eq!(offer.matches("m=video").count(), 3);
        assert_eq!(offer.matches("a=recvonly").count(), 2);
        let offered = offered(&offer).expect("a camera");
        assert_eq!(
            offered,
            Offered {
                mid: "camera".into(),
                vp8: PAYLOAD_TYPE,
                rid_id: RID_ID,
                twcc_id: TWCC_ID,
                rids: RIDS.map(str::to_owned).into(),
            }
        );
        let answer = LOCAL.answer(&offered.mid, offered.vp8, "recvonly", &offered.lines());
        assert!(answer.contains("a=simulcast:recv q;h;f\r\n") && answer.contains("a=setup:active\r\n"));
        let single = LOCAL.offer(Wanted { layers: 1, slots: 0 }, "active");
        assert!(single.contains("a=ssrc:") && !single.contains("simulcast"));
    }
}
