//! `/v1/legs`: one POST with an offer opens a leg (WHIP and WHEP, RFC 9725, in one), for who holds a join token.
//!
//! Everything after the POST is open to the leg's own secret alone. What such a session is in HTTP is in `session`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;

use crate::admission::{Answered, token_used};
use crate::directory::Found;
use crate::refusal::Refusal;
use crate::worker::Purpose;

use super::{Surface, bearer, session};

/// `POST /v1/legs`.
pub(super) async fn open(State(surface): State<Surface>, headers: HeaderMap, body: Body) -> Response {
    match try_open(&surface, &headers, body).await {
        Ok(answered) => session::created(&surface, &answered, &format!("/v1/legs/{}", answered.leg)),
        Err(refusal) => {
            surface.shared.metrics.refused(refusal.code);
            refusal.into_response()
        }
    }
}

async fn try_open(surface: &Surface, headers: &HeaderMap, body: Body) -> Result<Arc<Answered>, Refusal> {
    let token =
        bearer(headers).ok_or_else(|| Refusal::no_bearer("expected `Authorization: Bearer JOIN_TOKEN`"))?;
    let (claims, place) = surface.shared.admission.admit(token)?;
    let offer = session::read_offer(headers, body).await?;
    let fingerprint = muster_identity::sha256_text(offer.as_bytes());
    // Held over the join, so that the same POST sent twice at once is one join.
    let mut place = place.lock().await;
    if let Some(answered) = &*place {
        // Of a link's join there is none.
        let same = answered.upgrade().filter(|answered| answered.body == fingerprint);
        return same.ok_or_else(token_used);
    }
    let answered = Arc::new(session::open(surface, claims, offer, Purpose::Meet).await?);
    *place = Some(Arc::downgrade(&answered));
    surface.shared.directory.keep_answer(answered.clone());
    Ok(answered)
}

/// `DELETE /v1/legs/{leg}`.
pub(super) async fn close(
    State(surface): State<Surface>,
    Path(leg): Path<String>,
    headers: HeaderMap,
) -> Response {
    let found = find(&surface, &leg, &headers);
    session::close(&surface, found).await
}

/// `PATCH /v1/legs/{leg}`.
pub(super) async fn patch(
    State(surface): State<Surface>,
    Path(leg): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let found = find(&surface, &leg, &headers);
    session::patch(&surface, found, &headers, body).await
}

fn find(surface: &Surface, leg: &str, headers: &HeaderMap) -> Result<Found, Refusal> {
    let found = try_find(surface, leg, headers);
    found.inspect_err(|refusal| surface.shared.metrics.refused(refusal.code))
}

fn try_find(surface: &Surface, leg: &str, headers: &HeaderMap) -> Result<Found, Refusal> {
    let secret =
        bearer(headers).ok_or_else(|| Refusal::no_bearer("expected `Authorization: Bearer LEG_SECRET`"))?;
    let hashed = muster_identity::sha256_text(secret.as_bytes());
    surface
        .shared
        .directory
        .find(leg, &hashed)
        .ok_or_else(Refusal::no_such_leg)
}
