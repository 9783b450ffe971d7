//! Development mode's paths: `POST /whip/MEETING` publishes, `POST /whep/MEETING` views, and the session of each is one step
//! below, all for whoever has the one token.
//!
//! In production mode nothing here is routed. Each POST is a site of its own, named by the relay.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use http::{HeaderMap, Method, header};
use muster_identity::JoinClaims;

use crate::admission::Answered;
use crate::dev::{DevToken, is_meeting};
use crate::directory::Found;
use crate::refusal::Refusal;
use crate::watch::now_ms;
use crate::worker::{Purpose, Size};

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
    open(&surface, Ok(Purpose::Publish), &meeting, &headers, body).await
}

async fn view(
    State(surface): State<Surface>,
    Path(meeting): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let purpose = size(query.as_deref().unwrap_or_default()).map(Purpose::View);
    open(&surface, purpose, &meeting, &headers, body).await
}

/// `max-width` and `max-height` of a viewer's query, in pixels. Any other parameter is refused, so that none is misspelt
/// without a word.
fn size(query: &str) -> Result<Size, Refusal> {
    let mut size = Size::default();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let side = match name {
            "max-width" => &mut size.width,
            "max-height" => &mut size.height,
            _ => {
                return Err(Refusal::bad_request(format!(
                    "unknown parameter `{}`: expected max-width=PIXELS or max-height=PIXELS",
                    name.chars().take(32).collect::<String>()
                )));
            }
        };
        *side = value
            .parse()
            .map_err(|_| Refusal::bad_request(format!("{name}: expected a number from 0 to 65535")))?;
    }
    Ok(size)
}

async fn open(
    surface: &Surface,
    purpose: Result<Purpose, Refusal>,
    meeting: &str,
    headers: &HeaderMap,
    body: Body,
) -> Response {
    let kind = if matches!(purpose, Ok(Purpose::Publish)) {
        "whip"
    } else {
        "whep"
    };
    match try_open(surface, kind, purpose, meeting, headers, body).await {
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
    purpose: Result<Purpose, Refusal>,
    meeting: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Answered, Refusal> {
    admit(surface, headers)?;
    let purpose = purpose?;
    if !is_meeting(meeting) {
        return Err(Refusal::new(
            404,
            "bad_meeting",
            "a meeting's name has 1 to 64 letters (A-Z a-z), digits, dots, hyphens or underscores",
        ));
    }
    let offer = session::read_offer(headers, body).await?;
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
