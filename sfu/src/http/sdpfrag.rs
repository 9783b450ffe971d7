//! The body of a PATCH: an SDP fragment with ICE credentials and candidates (RFC 8840, as used by RFC 9725).
//!
//! Only the credentials matter: an ICE-lite peer learns candidates from the checks that reach it.

use muster_webrtc::IceCredentials;

/// The first `a=ice-ufrag` and `a=ice-pwd`.
///
/// # Errors
/// A line that is none of SDP, or credentials that RFC 8839 section 5.4 does not allow.
pub(super) fn parse(body: &str) -> Result<Option<IceCredentials>, String> {
    let (mut ufrag, mut pwd) = (None, None);
    for (number, line) in body
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let bad = |expected: &str| Err(format!("line {}: expected {expected}", number + 1));
        let Some((kind, value)) = line.split_once('=').filter(|(kind, _)| kind.len() == 1) else {
            return bad("a line of SDP, as in a=candidate:…");
        };
        let (name, text) = value.split_once(':').unwrap_or((value, ""));
        match (kind, name) {
            ("a", "ice-ufrag") if is_ice_text(text, 4) => _ = ufrag.get_or_insert(text),
            ("a", "ice-pwd") if is_ice_text(text, 22) => _ = pwd.get_or_insert(text),
            ("a", "ice-ufrag") => return bad("an ice-ufrag of 4 to 256 letters, digits, + or /"),
            ("a", "ice-pwd") => return bad("an ice-pwd of 22 to 256 letters, digits, + or /"),
            _ => {}
        }
    }
    match (ufrag, pwd) {
        (Some(ufrag), Some(pwd)) => Ok(Some(IceCredentials {
            ufrag: ufrag.into(),
            pwd: pwd.into(),
        })),
        (None, None) => Ok(None),
        _ => Err("expected a=ice-ufrag and a=ice-pwd together".into()),
    }
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
        assert_eq!(
            parse(body).map(|found| found.map(|c| c.ufrag)),
            Ok(Some("ysXw".into()))
        );
        assert_eq!(parse("a=mid:0\r\na=end-of-candidates\r\n"), Ok(None));
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
