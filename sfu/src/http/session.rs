//! A leg as HTTP sees it: made by a POST with an offer, patched, deleted (RFC 9725, draft-ietf-wish-whep).
//!
//! Shared by the production path and by development mode's, which differ in who may do it and in the paths alone.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use muster_identity::JoinClaims;

use crate::admission::Answered;
use crate::directory::Found;
use crate::refusal::Refusal;
use crate::worker::{Accepted, Command, Purpose, Restarted};

use super::sdpfrag::{self, Fragment};
use super::{SDP, SDP_FRAGMENT, Surface};

const MAX_OFFER: usize = 256 * 1024;
const MAX_FRAGMENT: usize = 64 * 1024;
const BODY_WITHIN: Duration = Duration::from_secs(10);
const SECRET: HeaderName = HeaderName::from_static("muster-leg-secret");

/// The offer in the body of a POST.
pub(super) async fn read_offer(headers: &HeaderMap, body: Body) -> Result<String, Refusal> {
    expect_type(headers, SDP)?;
    read(body, MAX_OFFER).await
}

/// Opens a leg on the worker that has the fewest.
pub(super) async fn open(
    surface: &Surface,
    claims: JoinClaims,
    offer: String,
    purpose: Purpose,
) -> Result<Answered, Refusal> {
    let fingerprint = muster_identity::sha256_text(offer.as_bytes());
    let secret = muster_identity::random_secret();
    let hashed = muster_identity::sha256_text(secret.as_bytes());
    let worker = surface.shared.directory.least_loaded();
    let accepted = Accepted::read(
        &surface.shared,
        surface.candidates(worker)?,
        &claims,
        &offer,
        purpose,
    )?;
    let opened = surface
        .ask(worker, |reply| Command::Open {
            claims,
            secret: hashed,
            accepted: Box::new(accepted),
            reply,
        })
        .await??;
    Ok(Answered {
        body: fingerprint,
        leg: opened.name,
        secret,
        etag: etag(&opened.ufrag),
        answer: opened.answer,
    })
}

/// 201, with all that the peer must know of its leg.
pub(super) fn created(surface: &Surface, answered: &Answered, location: &str) -> Response {
    let mut response = (StatusCode::CREATED, answered.answer.clone()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(SDP));
    for (name, value) in [
        (header::LOCATION, location),
        (header::ETAG, &answered.etag),
        (SECRET, &answered.secret),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    headers.insert(super::ACCEPT_PATCH, HeaderValue::from_static(SDP_FRAGMENT));
    surface.add_links(headers);
    response
}

/// Answers a DELETE.
pub(super) async fn close(surface: &Surface, found: Result<Found, Refusal>) -> Response {
    let closed = async {
        let found = found?;
        surface
            .ask(found.worker, |reply| Command::Close { leg: found.id, reply })
            .await
    };
    match closed.await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

/// Answers a PATCH: candidates are not needed and not looked at (204), new ICE credentials with `If-Match: *` restart ICE
/// (200) and with an ETag are refused (409). RFC 9725 section 4.3.
pub(super) async fn patch(
    surface: &Surface,
    found: Result<Found, Refusal>,
    headers: &HeaderMap,
    body: Body,
) -> Response {
    let patched = async { try_patch(surface, found?, headers, body).await };
    patched.await.unwrap_or_else(Refusal::into_response)
}

async fn try_patch(
    surface: &Surface,
    found: Found,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    expect_type(headers, SDP_FRAGMENT)?;
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
    let fragment = sdpfrag::parse(&fragment).map_err(Refusal::bad_request)?;
    let ours = surface
        .ask(found.worker, |reply| Command::IceSession { leg: found.id, reply })
        .await?;
    let ours = ours.ok_or_else(Refusal::no_such_leg)?;
    let current = etag(&ours.ufrag);
    match &fragment.credentials {
        // A restart names no session but any; some clients put the star in quotes like an ETag.
        Some(theirs) if matches!(matching, "*" | "\"*\"") => {
            let restart = |reply| Command::RestartIce {
                leg: found.id,
                ufrag: theirs.ufrag.clone(),
                reply,
            };
            let restarted = surface.ask(found.worker, restart).await?;
            let restarted = restarted.ok_or_else(Refusal::no_such_leg)?;
            Ok(restart_answer(&restarted, &fragment))
        }
        // Both change in a restart (RFC 8839, section 4.4.1.1.1), so one tells.
        Some(theirs) if matching == current && theirs.ufrag != ours.remote_ufrag => Err(Refusal::new(
            409,
            "ice_restart",
            "the a=ice-ufrag is not of the current ICE session; new credentials restart ICE, which takes `If-Match: *`",
        )),
        _ if matching == current => Ok(StatusCode::NO_CONTENT.into_response()),
        _ => Err(Refusal::new(
            412,
            "if_match_failed",
            "the ETag is not of the current ICE session",
        )),
    }
}

/// Our new credentials and candidates, under the m-line that the fragment spoke of.
fn restart_answer(restarted: &Restarted, fragment: &Fragment) -> Response {
    let mut body = String::from("a=ice-lite\r\n");
    for line in &fragment.media {
        body += &format!("{line}\r\n");
    }
    let ours = &restarted.credentials;
    body += &format!("a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", ours.ufrag, ours.pwd);
    // Candidates belong to an m-line (RFC 8840, section 9.3); a peer that named none has those of the answer.
    if !fragment.media.is_empty() {
        for candidate in &restarted.candidates {
            body += &format!("a=candidate:{candidate}\r\n");
        }
        body += "a=end-of-candidates\r\n";
    }
    let kind = HeaderValue::from_static(SDP_FRAGMENT);
    let mut response = (StatusCode::OK, [(header::CONTENT_TYPE, kind)], body).into_response();
    if let Ok(etag) = HeaderValue::try_from(etag(&ours.ufrag)) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
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
