//! `/v1/legs`: one POST with an offer opens a leg (WHIP and WHEP, RFC 9725, in one), PATCH restarts ICE, DELETE leaves.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::admission::{Answered, token_used};
use crate::directory::Found;
use crate::refusal::Refusal;
use crate::worker::Command;

use super::{Surface, bearer, sdpfrag};

const MAX_OFFER: usize = 256 * 1024;
const MAX_FRAGMENT: usize = 64 * 1024;
const BODY_WITHIN: Duration = Duration::from_secs(10);
const SECRET: &str = "muster-leg-secret";

/// `POST /v1/legs`.
pub(super) async fn open(State(surface): State<Surface>, headers: HeaderMap, body: Body) -> Response {
    match try_open(&surface, &headers, body).await {
        Ok(answered) => created(&answered),
        Err(refusal) => {
            surface.shared.metrics.refused(refusal.code);
            refusal.into_response()
        }
    }
}

async fn try_open(surface: &Surface, headers: &HeaderMap, body: Body) -> Result<Answered, Refusal> {
    let token = bearer(headers).ok_or_else(|| {
        Refusal::new(
            401,
            "token_invalid",
            "expected `Authorization: Bearer JOIN_TOKEN`",
        )
    })?;
    let (claims, place) = surface.shared.admission.admit(token)?;
    expect_type(headers, "application/sdp")?;
    let offer = read(body, MAX_OFFER).await?;
    let fingerprint = muster_identity::sha256_text(offer.as_bytes());
    // Held over the join, so that the same POST sent twice at once is one join.
    let mut place = place.lock().await;
    if let Some(answered) = &*place {
        // A link's join has no body, and this is never its fingerprint.
        return if answered.body == fingerprint {
            Ok(answered.clone())
        } else {
            Err(token_used())
        };
    }
    let secret = muster_identity::random_secret();
    let hashed = muster_identity::sha256_text(secret.as_bytes());
    let worker = surface.shared.directory.least_loaded();
    let opened = surface
        .ask(worker, |reply| Command::Open {
            claims,
            secret: hashed,
            offer,
            reply,
        })
        .await??;
    let answered = Answered {
        body: fingerprint,
        leg: opened.name,
        secret,
        etag: etag(&opened.ufrag),
        answer: opened.answer,
    };
    *place = Some(answered.clone());
    Ok(answered)
}

fn created(answered: &Answered) -> Response {
    let mut response = (StatusCode::CREATED, answered.answer.clone()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/sdp"));
    for (name, value) in [
        (header::LOCATION.as_str(), format!("/v1/legs/{}", answered.leg)),
        (header::ETAG.as_str(), answered.etag.clone()),
        (SECRET, answered.secret.clone()),
    ] {
        if let (Ok(name), Ok(value)) = (http::HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    response
}

/// `DELETE /v1/legs/{leg}`.
pub(super) async fn close(
    State(surface): State<Surface>,
    Path(leg): Path<String>,
    headers: HeaderMap,
) -> Response {
    let closed = async {
        let found = find(&surface, &leg, &headers)?;
        surface
            .ask(found.worker, |reply| Command::Close { leg: found.id, reply })
            .await
    };
    match closed.await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

/// `PATCH /v1/legs/{leg}`: candidates are taken note of (204), new ICE credentials restart ICE (200). RFC 9725 section 4.3.
pub(super) async fn patch(
    State(surface): State<Surface>,
    Path(leg): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    try_patch(&surface, &leg, &headers, body)
        .await
        .unwrap_or_else(Refusal::into_response)
}

async fn try_patch(
    surface: &Surface,
    leg: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let found = find(surface, leg, headers)?;
    expect_type(headers, "application/trickle-ice-sdpfrag")?;
    let matching = headers
        .get(header::IF_MATCH)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| {
            Refusal::new(
                428,
                "if_match_missing",
                "expected If-Match with the ETag of the ICE session",
            )
        })?;
    let fragment = read(body, MAX_FRAGMENT).await?;
    let credentials = sdpfrag::parse(&fragment).map_err(Refusal::bad_request)?;
    let ours = surface
        .ask(found.worker, |reply| Command::IceSession { leg: found.id, reply })
        .await?;
    let ours = ours.ok_or_else(Refusal::no_such_leg)?;
    let current = etag(&ours);
    match credentials {
        // A restart names no session but any; some clients put the star in quotes like an ETag.
        Some(theirs) if matches!(matching, "*" | "\"*\"") => {
            let restart = |reply| Command::RestartIce {
                leg: found.id,
                ufrag: theirs.ufrag,
                reply,
            };
            let ours = surface
                .ask(found.worker, restart)
                .await?
                .ok_or_else(Refusal::no_such_leg)?;
            let body = format!(
                "a=ice-lite\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\n",
                ours.ufrag, ours.pwd
            );
            let kind = HeaderValue::from_static("application/trickle-ice-sdpfrag");
            let mut response = (StatusCode::OK, [(header::CONTENT_TYPE, kind)], body).into_response();
            if let Ok(etag) = HeaderValue::try_from(etag(&ours.ufrag)) {
                response.headers_mut().insert(header::ETAG, etag);
            }
            Ok(response)
        }
        _ if matching == current => Ok(StatusCode::NO_CONTENT.into_response()),
        _ => Err(Refusal::new(
            412,
            "if_match_failed",
            "the ETag is not of the current ICE session",
        )),
    }
}

fn find(surface: &Surface, leg: &str, headers: &HeaderMap) -> Result<Found, Refusal> {
    let secret = bearer(headers).ok_or_else(|| {
        Refusal::new(
            401,
            "secret_missing",
            "expected `Authorization: Bearer LEG_SECRET`",
        )
    })?;
    let hashed = muster_identity::sha256_text(secret.as_bytes());
    surface
        .shared
        .directory
        .find(leg, &hashed)
        .ok_or_else(Refusal::no_such_leg)
}

fn expect_type(headers: &HeaderMap, expected: &'static str) -> Result<(), Refusal> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let kind = given.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(Refusal::new(
        415,
        "content_type",
        format!("expected Content-Type {expected}"),
    ))
}

async fn read(body: Body, limit: usize) -> Result<String, Refusal> {
    let bytes = tokio::time::timeout(BODY_WITHIN, to_bytes(body, limit))
        .await
        .map_err(|_| Refusal::new(408, "too_slow", "the body did not come in time"))?
        .map_err(|_| {
            Refusal::new(
                413,
                "too_large",
                format!("expected a body of at most {limit} bytes"),
            )
        })?;
    String::from_utf8(bytes.into()).map_err(|_| Refusal::bad_request("the body is not UTF-8"))
}

/// The ETag names the ICE session, and so does its username fragment.
fn etag(ufrag: &str) -> String {
    format!("\"{ufrag}\"")
}
