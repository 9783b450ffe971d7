//! STUN and TURN servers that clients are told of, in the `Link` headers of a created leg (RFC 9725, section 4.6).
//!
//! The relay itself uses none of them: it is ICE-lite and stands at a public address. A client behind a firewall may need
//! one. Everything that may stand in a server's text is checked here, so that it can stand in a header as it is.

use std::fmt;
use std::str::FromStr;

use http::HeaderValue;

const SCHEMES: [&str; 4] = ["stun:", "stuns:", "turn:", "turns:"];
const EXPECTED: &str =
    "expected stun:HOST[:PORT] or turn:HOST[:PORT][?transport=udp|tcp],username=NAME,credential=SECRET";

/// One server. Text form: `stun:HOST:PORT` or `turn:HOST:PORT?transport=udp,username=NAME,credential=SECRET`.
#[derive(Clone, PartialEq, Eq)]
pub struct IceServer {
    /// RFC 7064 or RFC 7065.
    url: String,
    /// Username and credential.
    login: Option<(String, String)>,
}

/// A text that names no STUN or TURN server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{EXPECTED}")]
pub struct NoIceServer;

impl FromStr for IceServer {
    type Err = NoIceServer;

    fn from_str(text: &str) -> Result<Self, NoIceServer> {
        let (url, login) = match text.split_once(",username=") {
            None => (text, None),
            Some((url, rest)) => {
                let (name, secret) = rest.split_once(",credential=").ok_or(NoIceServer)?;
                (url, Some((name.to_owned(), secret.to_owned())))
            }
        };
        let turn = url.starts_with("turn");
        let host = SCHEMES
            .iter()
            .find_map(|scheme| url.strip_prefix(scheme))
            .ok_or(NoIceServer)?;
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        let url_fits = plain(host) && !url.contains(['<', '>', '"', ',', ' ']);
        // A TURN server without a login answers nobody.
        let login_fits = login.is_some() == turn
            && login
                .iter()
                .flat_map(|(name, secret)| [name, secret])
                .all(|text| plain(text) && !text.contains(['"', '\\']));
        if !url_fits || !login_fits {
            return Err(NoIceServer);
        }
        Ok(Self {
            url: url.to_owned(),
            login,
        })
    }
}

impl IceServer {
    /// The value of its `Link` header.
    pub(crate) fn link(&self) -> Option<HeaderValue> {
        let login = self.login.as_ref().map_or(String::new(), |(name, secret)| {
            format!("; username=\"{name}\"; credential=\"{secret}\"; credential-type=\"password\"")
        });
        HeaderValue::try_from(format!("<{}>; rel=\"ice-server\"{login}", self.url)).ok()
    }
}

impl fmt::Debug for IceServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let login = if self.login.is_some() {
            " (login redacted)"
        } else {
            ""
        };
        write!(f, "IceServer({}{login})", self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<&str>) {
        let link = text.parse::<IceServer>().ok().and_then(|server| server.link());
        assert_eq!(
            link.as_ref().and_then(|value| value.to_str().ok()),
            expect,
            "{text}"
        );
    }

    #[test]
    fn servers_become_links_as_the_rfc_writes_them() {
        check(
            "stun:stun.example.net",
            Some("<stun:stun.example.net>; rel=\"ice-server\""),
        );
        check(
            "turn:turn.example.net:3478?transport=udp,username=user,credential=my,Password=",
            Some(
                "<turn:turn.example.net:3478?transport=udp>; rel=\"ice-server\"; username=\"user\"; \
                 credential=\"my,Password=\"; credential-type=\"password\"",
            ),
        );
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for text in [
            "",
            "stun:",
            "http://example.net",
            "stun:a b",
            "stun:a>; rel=\"x\"",
            "turn:without.login",
            "stun:with.login,username=a,credential=b",
            "turn:half.a.login,username=a",
            "turn:quote,username=a,credential=\"",
            "turn:line,username=a,credential=b\r\nx: y",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn a_credential_is_not_printed() {
        let server: IceServer = "turn:t,username=u,credential=hush".parse().expect("a server");
        assert!(!format!("{server:?}").contains("hush"));
    }
}
