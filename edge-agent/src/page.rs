//! The site's own page: how the link fares, what comes next, what waits; and a form for reports, also while nothing of
//! the outside is reached.
//!
//! Served on loopback, whole in itself (one document, nothing from elsewhere). Invariants: only a browser of this box that
//! has opened the page itself may write: the connection must come from loopback (where the page is served to a LAN too, its
//! other machines read), a request must name this server by an address or as `localhost`, not by a name that somebody else's
//! DNS could lead here, and a report must come from the page. Connections, requests and bodies are
//! bounded. It shows and hands on; it decides nothing.

mod media;
mod state;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::uri::Authority;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::agent::Input;
use crate::outbox::{KeepError, Outbox, WriteError};
use crate::publisher::page::desk::Desk;
use crate::recorder::Told;
use crate::status::Status;

/// What the page is made of; `NONCE` stands for a word of its own in each answer.
const PAGE: &str = include_str!("page/index.html");
/// What is added to it where the browser is camera and screen, in place of [`MEETING_PLACE`].
const MEETING: &str = include_str!("page/meeting.html");
const MEETING_PLACE: &str = "<!--MEETING-->";
/// Browsers at once, a few connections each.
const CONNECTIONS: usize = 32;
/// Of a report of 500 characters, however its JSON is written.
const LARGEST_BODY: usize = 16 * 1024;
/// For the head of a request, and for its body.
const PATIENCE: Duration = Duration::from_secs(5);
/// A connection is closed after this; the browser opens another.
const LONGEST: Duration = Duration::from_secs(300);
/// Until an address that is in use is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Why a machine that is not the box writes nothing.
const NOT_HERE: &str = "not_here";
const HERE: &str = "a browser on the box itself: from other machines the page can only be read";

/// What the page shows and whom it writes to.
#[derive(Clone, Debug)]
pub struct Sources {
    pub status: watch::Receiver<Status>,
    /// None where no report can be kept.
    pub outbox: Option<Outbox>,
    /// None where nothing is recorded.
    pub recordings: Option<watch::Receiver<Told>>,
    /// What is published: "testcard".
    pub source: String,
    /// Where the page's browser is the source.
    pub desk: Option<Desk>,
    /// Takes touches that answer a call.
    pub touches: Option<mpsc::Sender<Input>>,
}

/// Serves the page until the runtime ends. An address that is in use is tried again.
pub async fn serve(listen: SocketAddr, sources: Sources) {
    let mut told = false;
    let listener = loop {
        match TcpListener::bind(listen).await {
            Ok(listener) => break listener,
            Err(error) if !told => {
                tracing::warn!(%error, %listen, "the site's page cannot be served yet");
                told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    };
    serve_on(listener, sources).await;
}

/// Serves the page at a listener that is there.
pub async fn serve_on(listener: TcpListener, sources: Sources) {
    let port = listener.local_addr().map_or(0, |address| address.port());
    tracing::info!(url = format!("http://localhost:{port}/"), "the site's page");
    let page = Arc::new(Page { port, sources });
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // Out of descriptors: there is nothing to do but wait.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = room.clone().try_acquire_owned() else {
            continue;
        };
        let Ok(at) = stream.local_addr() else { continue };
        let ends = Ends {
            at: at.ip(),
            peer: peer.ip(),
        };
        let page = page.clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(LONGEST, page.converse(stream, ends)).await;
            drop(place);
        });
    }
}

/// The addresses of a connection.
#[derive(Clone, Copy)]
struct Ends {
    /// At which the browser reached the page.
    at: IpAddr,
    /// From which it comes.
    peer: IpAddr,
}

impl Ends {
    /// Whether it is from the box itself.
    fn are_here(self) -> bool {
        self.peer.to_canonical().is_loopback()
    }
}

struct Page {
    port: u16,
    sources: Sources,
}

/// What was not done, as the page has words for it.
struct Refusal(StatusCode, &'static str);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    text: String,
}

impl Page {
    async fn converse(self: Arc<Self>, stream: TcpStream, ends: Ends) {
        let service = service_fn(|request| {
            let page = self.clone();
            async move { Ok::<_, Infallible>(page.answer(request, ends).await) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(LARGEST_BODY)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = served.await {
            tracing::debug!(%error, "a connection to the page");
        }
    }

    async fn answer(&self, request: Request<Incoming>, ends: Ends) -> Response<Full<Bytes>> {
        let answer = self.route(request, ends).await;
        answer.unwrap_or_else(|Refusal(status, word)| {
            let mut told = serde_json::json!({ "error": word });
            if word == NOT_HERE {
                told["expected"] = HERE.into();
            }
            json(status, &told)
        })
    }

    async fn route(&self, request: Request<Incoming>, ends: Ends) -> Result<Response<Full<Bytes>>, Refusal> {
        let host = self.host(request.headers())?;
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/") => Ok(document(self.sources.desk.is_some() && ends.are_here())),
            (&Method::GET, "/state") => {
                let state = state::of(&self.sources, epoch_ms());
                Ok(json(StatusCode::OK, &state))
            }
            (&Method::GET, "/media") => media::wanted(self.sources.desk.as_ref(), request.uri()).await,
            (&Method::POST, path @ ("/report" | "/answer" | "/offer" | "/told" | "/call")) => {
                if !ends.are_here() {
                    return Err(Refusal(StatusCode::FORBIDDEN, NOT_HERE));
                }
                from_the_page(request.headers(), &host)?;
                let path = path.to_owned();
                let most = match path.as_str() {
                    "/offer" => media::LARGEST_OFFER,
                    _ => LARGEST_BODY,
                };
                let body = Limited::new(request.into_body(), most).collect();
                let body = tokio::time::timeout(PATIENCE, body).await;
                let Ok(Ok(body)) = body else {
                    return Err(Refusal(StatusCode::PAYLOAD_TOO_LARGE, "too_long"));
                };
                self.take(&path, &body.to_bytes(), ends.at).await
            }
            (_, "/" | "/state" | "/media" | "/report" | "/answer" | "/offer" | "/told" | "/call") => {
                Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, "method"))
            }
            _ => Err(Refusal(StatusCode::NOT_FOUND, "not_found")),
        }
    }

    /// What the page has to say.
    async fn take(&self, path: &str, body: &[u8], at: IpAddr) -> Result<Response<Full<Bytes>>, Refusal> {
        let desk = self.sources.desk.as_ref();
        let kept = match path {
            "/offer" => return media::offer(desk, body, at).await,
            "/told" => return media::words(desk, body),
            "/call" => return media::touch(self.sources.touches.as_ref(), body),
            "/report" => self.keep_report(body).await,
            _ => self.keep_answer().await,
        };
        kept.map(|id| json(StatusCode::OK, &serde_json::json!({ "id": id })))
    }

    /// By which name the browser knows this server. A name of somebody's DNS is none of ours.
    fn host(&self, headers: &HeaderMap) -> Result<String, Refusal> {
        let refused = || Refusal(StatusCode::MISDIRECTED_REQUEST, "host");
        let mut named = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (named.next(), named.next()) else {
            return Err(refused());
        };
        let host = host.to_str().map_err(|_| refused())?.to_ascii_lowercase();
        let authority: Authority = host.parse().map_err(|_| refused())?;
        let name = authority.host();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        let ours = name == "localhost" || address.parse::<IpAddr>().is_ok();
        let whole = !host.contains('@') && authority.port_u16().unwrap_or(80) == self.port;
        if ours && whole { Ok(host) } else { Err(refused()) }
    }

    async fn keep_report(&self, body: &[u8]) -> Result<String, Refusal> {
        let bad = |_| Refusal(StatusCode::BAD_REQUEST, "too_long");
        let written: Written = serde_json::from_slice(body).map_err(bad)?;
        self.outbox()?
            .write(&written.text, epoch_ms())
            .await
            .map_err(|error| not_kept(&error))
    }

    async fn keep_answer(&self) -> Result<String, Refusal> {
        let called = {
            let status = self.sources.status.borrow();
            let meeting = status.meeting.clone().filter(|_| status.notice.roll_called);
            meeting.map(|meeting| (meeting, status.notice.roll_call))
        };
        let (meeting, roll_call) = called.ok_or(Refusal(StatusCode::CONFLICT, "not_called"))?;
        self.outbox()?
            .answer(&meeting, roll_call, epoch_ms())
            .await
            .map_err(|error| not_kept(&error))
    }

    fn outbox(&self) -> Result<&Outbox, Refusal> {
        let outbox = self.sources.outbox.as_ref();
        outbox.ok_or(Refusal(StatusCode::SERVICE_UNAVAILABLE, "no_queue"))
    }
}

fn not_kept(error: &WriteError) -> Refusal {
    tracing::warn!(%error, "a report is not kept");
    match error {
        WriteError::Text | WriteError::Keep(KeepError::TooLong) => {
            Refusal(StatusCode::BAD_REQUEST, "too_long")
        }
        WriteError::Keep(KeepError::Full) => Refusal(StatusCode::INSUFFICIENT_STORAGE, "full"),
        WriteError::Keep(KeepError::Disk(_)) => Refusal(StatusCode::INTERNAL_SERVER_ERROR, "disk"),
        WriteError::Ending => Refusal(StatusCode::SERVICE_UNAVAILABLE, "failed"),
    }
}

/// Whether what is to be written comes from the page itself: a form of another site cannot send JSON, and its script
/// says where it is from.
fn from_the_page(headers: &HeaderMap, host: &str) -> Result<(), Refusal> {
    let text = |name| {
        headers
            .get(name)
            .map(|value: &HeaderValue| value.to_str().unwrap_or("?"))
    };
    let own = format!("http://{host}");
    let origin = text(header::ORIGIN).is_none_or(|origin| origin.eq_ignore_ascii_case(&own));
    let site = headers
        .get("sec-fetch-site")
        .is_none_or(|site| site == "same-origin");
    let kind =
        text(header::CONTENT_TYPE).is_some_and(|kind| kind.split(';').next() == Some("application/json"));
    match (origin && site, kind) {
        (false, _) => Err(Refusal(StatusCode::FORBIDDEN, "origin")),
        (true, false) => Err(Refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "json")),
        (true, true) => Ok(()),
    }
}

fn document(meets: bool) -> Response<Full<Bytes>> {
    let nonce = format!("{:032x}", rand::random::<u128>());
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let mut answer = whole(
        StatusCode::OK,
        "text/html; charset=utf-8",
        PAGE.replace(MEETING_PLACE, if meets { MEETING } else { "" })
            .replace("NONCE", &nonce)
            .into(),
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        answer
            .headers_mut()
            .insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    answer
}

fn json(status: StatusCode, what: &impl serde::Serialize) -> Response<Full<Bytes>> {
    let text = serde_json::to_vec(what).unwrap_or_default();
    whole(status, "application/json", text.into())
}

fn whole(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

fn epoch_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| age.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    struct Served {
        address: SocketAddr,
        status: watch::Sender<Status>,
        outbox: Outbox,
        _dir: tempfile::TempDir,
    }

    async fn served() -> Served {
        served_to(None).await
    }

    /// Served as if every connection came from this address.
    async fn served_to(peer: Option<IpAddr>) -> Served {
        let dir = tempfile::tempdir().expect("folder");
        let outbox = Outbox::open(dir.path().join("outbox")).await.expect("opened");
        let status = watch::Sender::new(Status::default());
        let sources = Sources {
            status: status.subscribe(),
            outbox: Some(outbox.clone()),
            recordings: None,
            source: "testcard".into(),
            desk: None,
            touches: None,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("address");
        match peer {
            None => drop(tokio::spawn(serve_on(listener, sources))),
            Some(peer) => {
                let port = address.port();
                let page = Arc::new(Page { port, sources });
                let ends = Ends {
                    at: address.ip(),
                    peer,
                };
                tokio::spawn(async move {
                    while let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(page.clone().converse(stream, ends));
                    }
                });
            }
        }
        Served {
            address,
            status,
            outbox,
            _dir: dir,
        }
    }

    impl Served {
        /// Status and whole answer; `HOST` stands for this server.
        async fn ask(&self, head: &str, body: &str) -> (u16, String) {
            let mut stream = TcpStream::connect(self.address).await.expect("connected");
            let head = head.replace("HOST", &format!("localhost:{}", self.address.port()));
            let request = format!(
                "{head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(request.as_bytes()).await.expect("asked");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("answered");
            let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
            (status.expect("a status"), answer)
        }

        fn waiting(&self) -> usize {
            self.outbox.subscribe().borrow().waiting.len()
        }
    }

    const JSON: &str = "content-type: application/json";

    #[tokio::test]
    async fn the_page_is_whole_in_itself_and_takes_a_report() {
        let served = served().await;
        let (status, page) = served.ask("GET / HTTP/1.1\r\nhost: HOST", "").await;
        assert_eq!(status, 200);
        assert!(!page.contains("NONCE") && page.contains("default-src 'none'"));
        for outside in ["src=", "href=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        let head = format!("POST /report HTTP/1.1\r\nhost: HOST\r\norigin: http://HOST\r\n{JSON}");
        let (status, answer) = served.ask(&head, r#"{"text":" 水漫进地下室\n"}"#).await;
        assert_eq!(status, 200, "{answer}");
        let (_, state) = served.ask("GET /state HTTP/1.1\r\nhost: HOST", "").await;
        assert!(
            state.contains("\"水漫进地下室\"") && state.contains("\"count\":1"),
            "{state}"
        );
    }

    #[tokio::test]
    async fn nobody_else_writes_or_reads() {
        let served = served().await;
        let body = r#"{"text":"x"}"#;
        for (head, expected) in [
            (
                "POST /report HTTP/1.1\r\nhost: HOST\r\norigin: http://evil.example",
                403,
            ),
            ("POST /report HTTP/1.1\r\nhost: HOST\r\norigin: null", 403),
            (
                "POST /report HTTP/1.1\r\nhost: HOST\r\nsec-fetch-site: cross-site",
                403,
            ),
            (
                "POST /report HTTP/1.1\r\nhost: HOST\r\nsec-fetch-site: same-site",
                403,
            ),
            (
                "POST /report HTTP/1.1\r\nhost: evil.example\r\norigin: http://evil.example",
                421,
            ),
            (
                "POST /answer HTTP/1.1\r\nhost: HOST\r\norigin: http://evil.example",
                403,
            ),
            ("GET /report HTTP/1.1\r\nhost: HOST", 405),
            ("GET /../etc/passwd HTTP/1.1\r\nhost: HOST", 404),
        ] {
            let (status, answer) = served.ask(&format!("{head}\r\n{JSON}"), body).await;
            assert_eq!(status, expected, "{head}: {answer}");
        }
        // A name that leads here, the right one at another port, and none at all.
        let port = served.address.port();
        for host in [
            format!("evil.example:{port}"),
            "localhost:1".into(),
            format!("a@localhost:{port}"),
            String::new(),
        ] {
            for path in ["/", "/state"] {
                let (status, _) = served
                    .ask(&format!("GET {path} HTTP/1.1\r\nhost: {host}"), "")
                    .await;
                assert!(status == 421 || status == 400, "{host}{path}: {status}");
            }
        }
        let plain = "POST /report HTTP/1.1\r\nhost: HOST\r\ncontent-type: text/plain";
        assert_eq!(served.ask(plain, body).await.0, 415);
        assert_eq!(served.waiting(), 0);
        let by_address = format!("POST /report HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{JSON}");
        assert_eq!(served.ask(&by_address, body).await.0, 200);
        assert_eq!(served.waiting(), 1);
    }

    #[tokio::test]
    async fn another_machine_reads_and_writes_nothing() {
        for peer in ["192.168.1.20", "fe80::1", "::ffff:10.0.0.7"] {
            let served = served_to(Some(peer.parse().expect("an address"))).await;
            for path in ["/", "/state"] {
                let (status, _) = served
                    .ask(&format!("GET {path} HTTP/1.1\r\nhost: HOST"), "")
                    .await;
                assert_eq!(status, 200, "{peer} {path}");
            }
            for path in ["/report", "/answer", "/offer", "/told", "/call"] {
                let head = format!("POST {path} HTTP/1.1\r\nhost: HOST\r\norigin: http://HOST\r\n{JSON}");
                let (status, answer) = served.ask(&head, r#"{"text":"x"}"#).await;
                assert!(
                    status == 403 && answer.contains("only be read"),
                    "{peer} {path}: {answer}"
                );
            }
            assert_eq!(served.waiting(), 0);
        }
        for peer in ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"] {
            let served = served_to(Some(peer.parse().expect("an address"))).await;
            let head = format!("POST /report HTTP/1.1\r\nhost: HOST\r\n{JSON}");
            let (status, answer) = served.ask(&head, r#"{"text":"x"}"#).await;
            assert_eq!(status, 200, "{peer}: {answer}");
        }
    }

    #[tokio::test]
    async fn what_is_no_report_is_refused_with_a_word() {
        let served = served().await;
        let head = format!("POST /report HTTP/1.1\r\nhost: HOST\r\n{JSON}");
        for body in ["", "{}", "[1]", r#"{"text":" "}"#, r#"{"text":"x","id":"y"}"#] {
            let (status, answer) = served.ask(&head, body).await;
            assert!(status == 400 && answer.contains("too_long"), "{body}: {answer}");
        }
        let long = format!(r#"{{"text":"{}"}}"#, "水".repeat(501));
        assert_eq!(served.ask(&head, &long).await.0, 400);
        let huge = format!(r#"{{"text":"{}"}}"#, "x".repeat(LARGEST_BODY));
        assert_eq!(served.ask(&head, &huge).await.0, 413);
        assert_eq!(served.waiting(), 0);
    }

    #[tokio::test]
    async fn a_roll_call_is_answered_only_while_the_site_is_called() {
        let served = served().await;
        let head = format!("POST /answer HTTP/1.1\r\nhost: HOST\r\n{JSON}");
        assert_eq!(served.ask(&head, "{}").await.0, 409);
        served.status.send_modify(|status| {
            status.meeting = Some("m1".into());
            status.notice.roll_called = true;
            status.notice.roll_call = 3;
            status.notice.called_ms = epoch_ms();
        });
        let (_, state) = served.ask("GET /state HTTP/1.1\r\nhost: HOST", "").await;
        assert!(state.contains("\"answered\":false"), "{state}");
        assert_eq!(served.ask(&head, "{}").await.0, 200);
        let (_, state) = served.ask("GET /state HTTP/1.1\r\nhost: HOST", "").await;
        assert!(state.contains("\"answered\":true"), "{state}");
        let kept = served.outbox.subscribe().borrow().waiting[0].clone();
        assert_eq!((kept.meeting.as_str(), kept.roll_call), ("m1", 3));
    }
}
