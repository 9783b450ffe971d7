//! The connections of the HTTP port: taken, served over TLS or without, and closed where they say nothing.
//!
//! Accepting never waits for a connection that is there already: where all room is taken, the one that has been quiet for
//! longest gives way, those that never asked anything first. Only a gRPC stream that a handler agreed to keeps a connection
//! open for as long as it likes; pings and window updates do not. Limits are for the port, not for an address: behind a proxy
//! all have the same.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use metrics::Counter;
use muster_identity::accept_tls;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::metrics::Metrics;

/// What a connection may take.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Connections at once.
    pub capacity: usize,
    /// From accepting to the end of the first request's headers.
    pub first_within: Duration,
    /// From the last request's headers, or the end of the last stream, to the end of the connection.
    pub idle: Duration,
    /// From being told to end to being cut off.
    pub end_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            capacity: 4096,
            first_within: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            end_within: Duration::from_secs(5),
        }
    }
}

/// Connections that the relay closed, by reason.
#[derive(Clone)]
pub(super) struct Closed {
    silent: Counter,
    idle: Counter,
    full: Counter,
    /// Their TLS handshake failed, or took too long.
    handshake: Counter,
}

impl Closed {
    pub fn new(metrics: &Metrics) -> Self {
        let counter = |reason| metrics.counter("muster_relay_http_closed_total", reason);
        Self {
            silent: counter("silent"),
            idle: counter("idle"),
            full: counter("full"),
            handshake: counter("handshake"),
        }
    }
}

/// What all connections of a port share.
#[derive(Clone)]
pub(super) struct Port {
    pub router: Router,
    pub tls: Option<TlsAcceptor>,
    pub limits: Limits,
    pub closed: Closed,
}

#[derive(Clone, Copy)]
struct Seen {
    asked: bool,
    /// Accepted, or the last request or end of a stream.
    last: Instant,
    streams: usize,
}

/// What one connection did so far.
struct Activity(Mutex<Seen>);

impl Activity {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Seen {
            asked: false,
            last: Instant::now(),
            streams: 0,
        })))
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut seen);
    }

    fn seen(&self) -> Seen {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// When to close the connection if nothing more comes, or to look again.
    fn due(&self, limits: &Limits) -> Instant {
        match (self.streams, self.asked) {
            (0, false) => self.last + limits.first_within,
            (0, true) => self.last + limits.idle,
            _ => Instant::now() + limits.idle,
        }
    }
}

/// Keeps a connection open while it lives.
struct Stream(Arc<Activity>);

impl Stream {
    fn new(activity: Arc<Activity>) -> Self {
        activity.change(|seen| seen.streams += 1);
        Self(activity)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.change(|seen| {
            seen.streams -= 1;
            seen.last = Instant::now();
        });
    }
}

struct Live {
    activity: Arc<Activity>,
    abort: AbortHandle,
}

/// Serves until the task is aborted; the connections end with it.
pub(super) async fn serve(listener: TcpListener, port: Port) {
    let (limits, closed) = (port.limits, port.closed.clone());
    let mut tasks = JoinSet::new();
    let mut live: HashMap<tokio::task::Id, Live> = HashMap::new();
    loop {
        let accepted = listener.accept().await;
        while let Some(ended) = tasks.try_join_next_with_id() {
            let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
            live.remove(&id);
        }
        match accepted {
            Ok((stream, _)) => {
                if live.len() >= limits.capacity {
                    closed.full.increment(1);
                    if !make_room(&mut live) {
                        continue;
                    }
                }
                let activity = Activity::new();
                let abort = tasks.spawn(connection(stream, port.clone(), activity.clone()));
                live.insert(abort.id(), Live { activity, abort });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                // ENFILE and EMFILE: no file descriptor is left.
                if matches!(error.raw_os_error(), Some(23 | 24)) && make_room(&mut live) {
                    closed.full.increment(1);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Closes the connection that has been quiet for longest; false where each has a stream.
fn make_room(live: &mut HashMap<tokio::task::Id, Live>) -> bool {
    let quiet = live
        .iter()
        .map(|(id, live)| (*id, live.activity.seen()))
        .filter(|(_, seen)| seen.streams == 0)
        .min_by_key(|(_, seen)| (seen.asked, seen.last));
    let Some(gone) = quiet.and_then(|(id, _)| live.remove(&id)) else {
        return false;
    };
    gone.abort.abort();
    true
}

async fn connection(stream: TcpStream, port: Port, activity: Arc<Activity>) {
    let _ = stream.set_nodelay(true);
    let Some(tls) = &port.tls else {
        return http(stream, port, activity).await;
    };
    match tokio::time::timeout(port.limits.first_within, accept_tls(tls, stream)).await {
        Ok(Ok(stream)) => http(stream, port, activity).await,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake");
            port.closed.handshake.increment(1);
        }
        Err(_) => port.closed.handshake.increment(1),
    }
}

async fn http<S>(stream: S, port: Port, activity: Arc<Activity>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Port {
        router,
        limits,
        closed,
        tls: _,
    } = port;
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.first_within);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .max_concurrent_streams(100);
    let asked = activity.clone();
    let service = tower::service_fn(move |request| answer(router.clone(), asked.clone(), request));
    let mut served = pin!(server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)));
    loop {
        // A request in between may bring the end nearer.
        let due = activity.seen().due(&limits).min(Instant::now() + limits.idle);
        tokio::select! {
            ended = served.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error, "connection ended");
                }
                return;
            }
            () = tokio::time::sleep_until(due) => {}
        }
        if activity.seen().due(&limits) <= Instant::now() {
            break;
        }
    }
    match activity.seen().asked {
        true => closed.idle.increment(1),
        false => closed.silent.increment(1),
    }
    served.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(limits.end_within, served).await;
}

async fn answer(
    router: Router,
    activity: Arc<Activity>,
    request: Request<hyper::body::Incoming>,
) -> Result<Response, Infallible> {
    activity.change(|seen| {
        seen.asked = true;
        seen.last = Instant::now();
    });
    let is_grpc = is_grpc(request.headers());
    let response = router.oneshot(request).await?;
    // A call that was refused says so in its headers.
    if !is_grpc || response.status() != StatusCode::OK || response.headers().contains_key("grpc-status") {
        return Ok(response);
    }
    let stream = Stream::new(activity);
    Ok(response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            // Dropped with the body, at the stream's end.
            let _ = &stream;
            frame
        }))
    }))
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const LONG: Duration = Duration::from_secs(600);

    async fn start(capacity: usize, first_within: Duration, idle: Duration) -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("bound");
        let endless =
            || async { Body::from_stream(futures_util::stream::pending::<Result<String, Infallible>>()) };
        let router = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/stream", post(endless));
        let limits = Limits {
            capacity,
            first_within,
            idle,
            end_within: Duration::from_millis(100),
        };
        let mut task = JoinSet::new();
        let port = Port {
            router,
            tls: None,
            limits,
            closed: Closed::new(&Metrics::new()),
        };
        task.spawn(serve(listener, port));
        (addr, task)
    }

    async fn connect(addr: SocketAddr, sent: &str) -> TcpStream {
        let mut stream = TcpStream::connect(addr).await.expect("a connection");
        stream.write_all(sent.as_bytes()).await.expect("sent");
        stream
    }

    const HEALTH: &str = "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
    const STREAM: &str =
        "POST /stream HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n";

    /// Up to the blank line, or what came before the end.
    async fn head(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        let read = async {
            let mut byte = [0];
            while !text.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte).await, Ok(1)) {
                text.push(byte[0]);
            }
        };
        tokio::time::timeout(SOON, read)
            .await
            .expect("an answer or an end");
        String::from_utf8(text).expect("text")
    }

    async fn ended(mut stream: TcpStream) {
        let mut rest = [0; 1024];
        let read = async { while matches!(stream.read(&mut rest).await, Ok(1..)) {} };
        tokio::time::timeout(SOON, read).await.expect("an end");
    }

    #[tokio::test]
    async fn silent_connections_keep_nobody_out() {
        let (addr, _server) = start(8, LONG, LONG).await;
        let mut silent = Vec::new();
        for start in ["", "G", "PRI * HT", "GET / HTTP/1.1\r\n"]
            .iter()
            .cycle()
            .take(50)
        {
            silent.push(connect(addr, start).await);
        }
        let mut asks = connect(addr, HEALTH).await;
        assert!(head(&mut asks).await.starts_with("HTTP/1.1 200"));
        ended(silent.remove(0)).await;
    }

    #[tokio::test]
    async fn who_asks_nothing_in_time_is_closed() {
        let (addr, _server) = start(100, Duration::from_millis(50), LONG).await;
        let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        for start in ["", "G", "PRI * HT", preface] {
            ended(connect(addr, start).await).await;
        }
    }

    #[tokio::test]
    async fn who_asked_once_is_closed_when_idle() {
        let (addr, _server) = start(100, LONG, Duration::from_millis(50)).await;
        let mut asked = connect(addr, HEALTH).await;
        assert!(head(&mut asked).await.starts_with("HTTP/1.1 200"));
        ended(asked).await;
    }

    #[tokio::test]
    async fn a_stream_is_kept_and_gives_way_to_nobody() {
        let (addr, _server) = start(1, LONG, Duration::from_millis(20)).await;
        let mut stream = connect(addr, STREAM).await;
        assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
        // Refused many times over, and so for longer than a connection may be idle.
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(200) {
            let mut refused = TcpStream::connect(addr).await.expect("a connection");
            let _ = refused.write_all(HEALTH.as_bytes()).await;
            assert_eq!(head(&mut refused).await, "");
        }
        let mut byte = [0];
        let read = stream.try_read(&mut byte);
        let waits = read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(waits, "the stream goes on");
    }
}
