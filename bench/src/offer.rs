//! The offer that a peer posts, and what it must know of the answer. One m-line of video: the publisher's camera or a
//! viewer's slot, both with mid "0".

use std::net::SocketAddr;

use anyhow::Context as _;

use crate::picture::{PAYLOAD_TYPE, SSRC};

/// The mid of the one m-line.
pub const MID: &str = "0";
/// The id that viewers offer for transport-wide sequence numbers.
pub const TWCC_ID: u8 = 3;
const TWCC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Publishes,
    Views,
}

/// `pwd` must have 22 characters at least.
pub fn write(role: Role, ufrag: &str, pwd: &str, fingerprint: &str) -> String {
    let (direction, more) = match role {
        Role::Publishes => ("sendonly", format!("a=ssrc:{SSRC} cname:bench\r\n")),
        Role::Views => (
            "recvonly",
            format!("a=rtcp-fb:{PAYLOAD_TYPE} transport-cc\r\na=extmap:{TWCC_ID} {TWCC}\r\n"),
        ),
    };
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {MID}\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF {PAYLOAD_TYPE}\r\nc=IN IP4 0.0.0.0\r\n\
         a=mid:{MID}\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\na=fingerprint:sha-256 {fingerprint}\r\n\
         a=setup:actpass\r\na={direction}\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
         a=rtpmap:{PAYLOAD_TYPE} VP8/90000\r\n\
         a=rtcp-fb:{PAYLOAD_TYPE} ccm fir\r\na=rtcp-fb:{PAYLOAD_TYPE} nack\r\na=rtcp-fb:{PAYLOAD_TYPE} nack pli\r\n\
         a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n{more}"
    )
}

/// The relay's side.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub ufrag: String,
    pub pwd: String,
    pub fingerprint: String,
    pub candidate: SocketAddr,
    /// It took the offered transport-wide sequence numbers.
    pub twcc: bool,
}

pub fn read(answer: &str) -> anyhow::Result<Answer> {
    let find = |name: &str| {
        let line = answer.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::to_owned)
            .with_context(|| format!("the answer has no {name}"))
    };
    let candidate = find("a=candidate:")?;
    let mut words = candidate.split(' ').skip(4);
    let address = words.next().zip(words.next());
    let address = address.and_then(|(ip, port)| Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?)));
    Ok(Answer {
        ufrag: find("a=ice-ufrag:")?,
        pwd: find("a=ice-pwd:")?,
        fingerprint: find("a=fingerprint:sha-256 ")?,
        twcc: answer.contains(TWCC),
        candidate: address.with_context(|| format!("no address in a=candidate:{candidate}"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_of_an_answer_is_found() {
        let answer = "v=0\r\na=ice-lite\r\na=ice-ufrag:uf\r\na=ice-pwd:pw\r\na=fingerprint:sha-256 AB:CD\r\n\
                      a=candidate:1 1 udp 2130706431 127.0.0.1 4000 typ host\r\n";
        let expect = Answer {
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
}
