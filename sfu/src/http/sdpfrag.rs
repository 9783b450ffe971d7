//! The body of a PATCH: an SDP fragment with ICE credentials and candidates (RFC 8840, as used by RFC 9725).
//!
//! Only the credentials matter, and which m-line they are under: an ICE-lite peer learns candidates from the checks that
//! reach it.

use muster_webrtc::IceCredentials;

/// What a fragment brings.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    /// The first `a=ice-ufrag` and `a=ice-pwd`.
    pub credentials: Option<IceCredentials>,
    /// The first m-line and its `a=mid`, to be answered as they are; empty without.
    pub media: Vec<String>,
}

/// Reads a fragment.
///
/// # Errors
/// A line that is none of SDP, or credentials that RFC 8839 section 5.4 does not allow.
pub(super) fn parse(body: &str) -> Result<Fragment, String> {
    let (mut ufrag, mut pwd) = (None, None);
    let mut media: Vec<String> = Vec::new();
    for (number, line) in body
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let bad = |expected: &str| Err(format!("line {}: expected {expected}", number + 1));
        let Some((kind, value)) = line.split_once('=').filter(|(kind, _)| kind.len() == 1) else {
            return bad("a line of SDP, as in a=candidate:…");
        };
        if !line.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return bad("visible ASCII");
        }
        let (name, text) = value.split_once(':').unwrap_or((value, ""));
        match (kind, name, media.len()) {
            ("m", _, 0) | ("a", "mid", 1) => media.push(line.to_owned()),
            _ => {}
        }
        match (kind, name) {
            ("a", "ice-ufrag") if is_ice_text(text, 4) => _ = ufrag.get_or_insert(text),
            ("a", "ice-pwd") if is_ice_text(text, 22) => _ = pwd.get_or_insert(text),
            ("a", "ice-ufrag") => return bad("an ice-ufrag of 4 to 256 letters, digits, + or /"),
            ("a", "ice-pwd") => return bad("an ice-pwd of 22 to 256 letters, digits, + or /"),
            _ => {}
        }
    }
    let credentials = match (ufrag, pwd) {
        (Some(ufrag), Some(pwd)) => Some(IceCredentials {
            ufrag: ufrag.into(),
            pwd: pwd.into(),
        }),
        (None, None) => None,
        _ => return Err("expected a=ice-ufrag and a=ice-pwd together".into()),
    };
    Ok(Fragment { credentials, media })
}

fn is_ice_text(text: &str, least: usize) -> bool {
    (least..=256).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_among_candidates() {
        let body = "a=ice-ufrag:ysXw\r\na=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n\
                    a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host\r\na=end-of-candidates\r\n";
        let found = parse(body).expect("a fragment");
        assert_eq!(found.credentials.map(|c| c.ufrag), Some("ysXw".into()));
        assert_eq!(found.media, ["m=audio 9 RTP/AVP 0", "a=mid:0"]);
        let found = parse("a=mid:0\r\na=end-of-candidates\r\n").expect("a fragment");
        assert_eq!((found.credentials, found.media), (None, Vec::new()));
    }

    #[test]
    fn what_is_no_fragment_is_refused_with_its_line() {
        assert_eq!(
            parse("a=mid:0\njunk").err().as_deref(),
            Some("line 2: expected a line of SDP, as in a=candidate:…")
        );
        assert!(parse("a=ice-ufrag:abc").is_err());
        assert!(parse("a=ice-ufrag:abcd").is_err());
        assert!(parse("a=ice-ufrag:abcd\na=ice-pwd:short").is_err());
    }
}
