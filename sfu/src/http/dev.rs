//! Development mode's paths: `POST /whip/MEETING` publishes, `POST /whep/MEETING` views, and the session of each is one step
//! below, all for whoever has the one token.
//!
//! In production mode nothing here is routed. Each POST is a site of its own, named by the relay.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use http::{HeaderMap, Method, header};
use muster_identity::JoinClaims;

use crate::admission::Answered;
use crate::dev::{DevToken, is_meeting};
use crate::directory::Found;
use crate::refusal::Refusal;
use crate::watch::now_ms;
use crate::worker::Purpose;

use super::{Surface, bearer, session};

pub(super) fn routes() -> Router<Surface> {
    Router::new()
        .route("/whip/{meeting}", post(publish))
        .route("/whip/{meeting}/{leg}", delete(close).patch(patch))
        .route("/whep/{meeting}", post(view))
        .route("/whep/{meeting}/{leg}", delete(close).patch(patch))
}

async fn publish(
    State(surface): State<Surface>,
    Path(meeting): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    open(&surface, "whip", &meeting, &headers, body).await
}

async fn view(
    State(surface): State<Surface>,
    Path(meeting): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    open(&surface, "whep", &meeting, &headers, body).await
}

async fn open(
    surface: &Surface,
    kind: &'static str,
    meeting: &str,
    headers: &HeaderMap,
    body: Body,
) -> Response {
    match try_open(surface, kind, meeting, headers, body).await {
        Ok(answered) => session::created(surface, &answered, &format!("/{kind}/{meeting}/{}", answered.leg)),
        Err(refusal) => {
            surface.shared.metrics.refused(refusal.code);
            refusal.into_response()
        }
    }
}

async fn try_open(
    surface: &Surface,
    kind: &'static str,
    meeting: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Answered, Refusal> {
    admit(surface, headers)?;
    if !is_meeting(meeting) {
        return Err(Refusal::new(
            404,
            "bad_meeting",
            "a meeting's name has 1 to 64 letters (A-Z a-z), digits, dots, hyphens or underscores",
        ));
    }
    let mut offer = session::read_offer(headers, body).await?;
    let purpose = if kind == "whip" {
        Purpose::Publish
    } else {
        // A viewer sends nothing: what it would send and receive is answered as what it receives.
        offer = offer.replace("\na=sendrecv", "\na=recvonly");
        Purpose::View
    };
    let site = format!("{kind}-{}", surface.shared.directory.next_id());
    let may_publish = purpose == Purpose::Publish;
    let claims = JoinClaims::new(meeting, &site, false, may_publish, now_ms() / 1000);
    session::open(surface, claims, offer, purpose).await
}

async fn close(
    State(surface): State<Surface>,
    Path((meeting, leg)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let found = find(&surface, &meeting, &leg, &headers);
    session::close(&surface, found).await
}

async fn patch(
    State(surface): State<Surface>,
    Path((meeting, leg)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let found = find(&surface, &meeting, &leg, &headers);
    session::patch(&surface, found, &headers, body).await
}

fn find(surface: &Surface, meeting: &str, leg: &str, headers: &HeaderMap) -> Result<Found, Refusal> {
    admit(surface, headers)?;
    let found = surface.shared.directory.find_in(meeting, leg);
    found.ok_or_else(Refusal::no_such_leg)
}

fn admit(surface: &Surface, headers: &HeaderMap) -> Result<(), Refusal> {
    let shown =
        bearer(headers).ok_or_else(|| Refusal::no_bearer("expected `Authorization: Bearer TOKEN`"))?;
    let is = |token: &DevToken| token.is(shown);
    if surface.dev.as_deref().is_some_and(is) {
        Ok(())
    } else {
        Err(Refusal::new(
            401,
            "token_invalid",
            "this is not the relay's token",
        ))
    }
}

/// Whether an OPTIONS that asks for the ICE servers before the POST may have them: never a browser's preflight, which shows
/// no token (RFC 9725, section 4.6).
pub(super) fn may_see_links(surface: &Surface, method: &Method, path: &str, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && (path.starts_with("/whip/") || path.starts_with("/whep/"))
        && !headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        && admit(surface, headers).is_ok()
}
