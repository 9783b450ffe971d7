//! What every answer of the console's port tells a browser beside its content (RFC 6797, CSP Level 3, Fetch).
//!
//! A page that was loaded once must find a relay that came up later, so `connect-src` names no relay unless the operator
//! did (`--relay-origin`); over TLS it takes https alone.

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use std::sync::Arc;

/// A year.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

const FIXED: [(HeaderName, HeaderValue); 4] = [
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static(
            "camera=(self), microphone=(self), display-capture=(self), fullscreen=(self)",
        ),
    ),
];

/// The headers of one control plane.
pub struct Headers {
    policy: HeaderValue,
    tls: bool,
}

impl Headers {
    /// `relays` are sources as in CSP (`https://*.relays.example`); none: any, by the console's own scheme.
    ///
    /// # Errors
    /// A relay's origin that no policy can hold.
    pub fn new(tls: bool, relays: &[String]) -> anyhow::Result<Self> {
        if let Some(bad) = relays.iter().find(|origin| !is_source(origin)) {
            anyhow::bail!(
                "--relay-origin {bad}: expected https://HOST or https://HOST:PORT, * for a label or the port"
            );
        }
        let relays = match (relays, tls) {
            ([], true) => "https:".to_owned(),
            ([], false) => "http: https:".to_owned(),
            (some, _) => some.join(" "),
        };
        let policy = format!(
            "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; \
             media-src 'self' blob: mediastream:; worker-src 'self' blob:; connect-src 'self' {relays}; \
             object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
        );
        let policy = HeaderValue::try_from(policy)?;
        Ok(Self { policy, tls })
    }

    /// The router, with these headers on every answer.
    pub fn on(self, router: axum::Router) -> axum::Router {
        router.layer(middleware::from_fn_with_state(Arc::new(self), add))
    }
}

async fn add(State(headers): State<Arc<Headers>>, request: Request, next: Next) -> Response {
    let hsts = headers.tls && !is_local(&request);
    let mut response = next.run(request).await;
    let answer = response.headers_mut();
    answer.extend(FIXED);
    answer.insert(header::CONTENT_SECURITY_POLICY, headers.policy.clone());
    if hsts {
        answer.insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
    }
    response
}

/// `localhost` is many programs: what a browser learns of it from one holds for all, on every port.
fn is_local(request: &Request) -> bool {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    // HTTP/2 has it in the address.
    let host = request.uri().host().or(host).unwrap_or_default();
    let name = host.split(':').next().unwrap_or_default();
    name == "localhost" || name.ends_with(".localhost")
}

fn is_source(origin: &str) -> bool {
    let rest = origin
        .strip_prefix("https://")
        .or_else(|| origin.strip_prefix("http://"));
    rest.is_some_and(|host| {
        !host.is_empty()
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"*.-:[]".contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(tls: bool, relays: &[&str]) -> String {
        let relays: Vec<_> = relays.iter().map(|&origin| origin.to_owned()).collect();
        let headers = Headers::new(tls, &relays).expect("headers");
        headers.policy.to_str().expect("text").to_owned()
    }

    #[test]
    fn scripts_come_from_here_alone_and_calls_go_to_relays() {
        assert!(policy(true, &[]).contains("script-src 'self';"));
        assert!(policy(true, &[]).contains("frame-ancestors 'none'"));
        assert!(policy(true, &[]).contains("connect-src 'self' https:;"));
        assert!(policy(false, &[]).contains("connect-src 'self' http: https:;"));
        let named = policy(true, &["https://*.relays.example", "https://r:8081"]);
        assert!(
            named.contains("connect-src 'self' https://*.relays.example https://r:8081;"),
            "{named}"
        );
        for bad in [
            "relay.example",
            "https://",
            "https://a; script-src *",
            "https://a b",
            "javascript:x",
        ] {
            assert!(Headers::new(true, &[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
