//! The HTTP surface: `/v1/legs` (join, patch, leave), in development mode `/whip` and `/whep`, the gRPC and gRPC-web
//! `MediaService`, `/healthz`, `/readyz` and `/metrics`, on one port, over HTTP/1.1 and HTTP/2, with TLS unless `--plain`.
//!
//! Open to any origin: what opens doors is a bearer token, never a cookie. A slow peer is cut off: headers and bodies have
//! a time and a size, connections a number.

mod connections;
mod dev;
mod legs;
mod media;
mod sdpfrag;
mod session;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use muster_proto::media::v1::media_service_server::MediaServiceServer;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsAcceptor;

use crate::RelayConfig;
use crate::dev::DevToken;
use crate::ice_servers::IceServer;
use crate::refusal::Refusal;
use crate::worker::Command;
use crate::worker::state::Shared;

/// When a caller whom the relay has no room for may ask again, in seconds.
const RETRY_AFTER_S: &str = "5";
const SDP: &str = "application/sdp";
const SDP_FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// What the handlers work with.
#[derive(Clone)]
pub(crate) struct Surface {
    shared: Arc<Shared>,
    workers: Arc<[mpsc::Sender<Command>]>,
    /// The workers' ports for media, as browsers reach them.
    candidates: Arc<[SocketAddr]>,
    /// The relay's TCP port for media, likewise.
    tcp_candidate: Option<SocketAddr>,
    /// Values of the `Link` header, one an ICE server.
    links: Arc<[HeaderValue]>,
    /// In development mode.
    dev: Option<Arc<DevToken>>,
}

impl Surface {
    pub fn new(
        shared: Arc<Shared>,
        workers: Vec<mpsc::Sender<Command>>,
        (candidates, tcp_candidate): (&[SocketAddr], Option<SocketAddr>),
        config: &RelayConfig,
    ) -> Self {
        Self {
            shared,
            workers: workers.into(),
            candidates: candidates.into(),
            tcp_candidate,
            links: config.ice_servers.iter().filter_map(IceServer::link).collect(),
            dev: config.dev.clone().map(Arc::new),
        }
    }

    /// Where browsers reach a worker, by UDP and by TCP.
    fn candidates(&self, worker: usize) -> Result<(SocketAddr, Option<SocketAddr>), Refusal> {
        let udp = self.candidates.get(worker).copied();
        Ok((udp.ok_or_else(Refusal::stopping)?, self.tcp_candidate))
    }

    fn add_links(&self, headers: &mut HeaderMap) {
        for link in self.links.iter() {
            headers.append(header::LINK, link.clone());
        }
    }

    /// Asks a worker and waits for its reply.
    async fn ask<T>(
        &self,
        worker: usize,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let queue = self.workers.get(worker).ok_or_else(Refusal::stopping)?;
        queue
            .send(command(reply))
            .await
            .map_err(|_| Refusal::stopping())?;
        answer.await.map_err(|_| Refusal::stopping())
    }
}

fn router(surface: Surface) -> Router {
    let grpc = MediaServiceServer::new(media::Media(surface.clone())).max_decoding_message_size(256 * 1024);
    let grpc = tonic::service::Routes::new(grpc)
        .into_axum_router()
        .reset_fallback()
        .layer(tonic_web::GrpcWebLayer::new());
    let dev = surface.dev.is_some().then(dev::routes);
    Router::new()
        .route("/v1/legs", post(legs::open))
        .route("/v1/legs/{leg}", delete(legs::close).patch(legs::patch))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .merge(dev.unwrap_or_default())
        .method_not_allowed_fallback(not_allowed)
        .fallback(not_found)
        .with_state(surface.clone())
        .merge(grpc)
        .layer(middleware::from_fn_with_state(surface, cross_origin))
}

async fn not_found() -> Refusal {
    Refusal::new(404, "not_found", "there is no such path here")
}

/// The `Allow` header is added by the router.
async fn not_allowed() -> Refusal {
    Refusal::new(
        405,
        "method_not_allowed",
        "see the Allow header for what this path takes",
    )
}

async fn metrics(State(surface): State<Surface>) -> impl IntoResponse {
    let shared = &surface.shared;
    for (table, entries) in shared.directory.sizes() {
        shared.metrics.shared_table(table, entries);
    }
    shared.metrics.shared_table("tokens", shared.admission.taken());
    let ready = shared
        .readiness
        .reasons(shared.directory.ended_workers())
        .is_empty();
    shared.metrics.ready.set(f64::from(u8::from(ready)));
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        surface.shared.metrics.render(),
    )
}

/// 200 where a join would be taken, else 503; the body says why not.
async fn readyz(State(surface): State<Surface>) -> Response {
    let shared = &surface.shared;
    let reasons = shared.readiness.reasons(shared.directory.ended_workers());
    let told: Vec<_> = reasons
        .iter()
        .map(|(code, message)| serde_json::json!({ "code": code, "message": message }))
        .collect();
    let (status, ready) = match told.is_empty() {
        true => (StatusCode::OK, true),
        false => (StatusCode::SERVICE_UNAVAILABLE, false),
    };
    let body = serde_json::json!({ "ready": ready, "reasons": told }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// CORS for every path, and the answer to every OPTIONS (RFC 9725 section 4.2 wants `Accept-Post`).
async fn cross_origin(State(surface): State<Surface>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    let mut response = if method == Method::OPTIONS {
        let mut response = StatusCode::NO_CONTENT.into_response();
        let headers = response.headers_mut();
        headers.extend(OPTIONS.map(|(name, value)| (name, HeaderValue::from_static(value))));
        if dev::may_see_links(&surface, method, path, request.headers()) {
            surface.add_links(headers);
        }
        response
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(
            "Location, ETag, Link, Muster-Leg-Secret, Accept-Post, Accept-Patch, Retry-After, \
             WWW-Authenticate, grpc-status, grpc-message",
        ),
    );
    response
}

/// What every OPTIONS is told.
const OPTIONS: [(HeaderName, &str); 5] = [
    (
        header::ACCESS_CONTROL_ALLOW_METHODS,
        "GET, POST, PATCH, DELETE, OPTIONS",
    ),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        "authorization, content-type, if-match, link, x-grpc-web, x-user-agent, grpc-timeout, connect-protocol-version",
    ),
    (header::ACCESS_CONTROL_MAX_AGE, "7200"),
    (ACCEPT_POST, SDP),
    (ACCEPT_PATCH, SDP_FRAGMENT),
];

/// Serves until the task is aborted.
pub(crate) async fn serve(listener: TcpListener, surface: Surface, tls: Option<TlsAcceptor>) {
    let closed = connections::Closed::new(&surface.shared.metrics);
    let port = connections::Port {
        router: router(surface),
        tls,
        limits: connections::Limits::default(),
        closed,
    };
    connections::serve(listener, port).await;
}

/// The token in `Authorization: Bearer TOKEN`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

impl IntoResponse for Refusal {
    /// Problem details (RFC 9457) with our code, and the headers that the status asks for.
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::json!({
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "code": self.code,
            "detail": self.message,
        });
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, kind, body.to_string()).into_response();
        let more = match (status, self.code) {
            // RFC 6750, section 3: who showed nothing is told no error.
            (StatusCode::UNAUTHORIZED, "token_missing") => Some((header::WWW_AUTHENTICATE, "Bearer")),
            (StatusCode::UNAUTHORIZED, _) => {
                Some((header::WWW_AUTHENTICATE, "Bearer error=\"invalid_token\""))
            }
            (StatusCode::SERVICE_UNAVAILABLE, _) => Some((header::RETRY_AFTER, RETRY_AFTER_S)),
            _ => None,
        };
        if let Some((name, value)) = more {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
