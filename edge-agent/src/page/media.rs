//! The page's way into the meeting, where the browser is camera and screen: an offer, what the browser says of its devices, what
//! is wanted of it, and the touch that answers a call. Bodies are bounded; who may ask is the page server's to say.

use std::net::IpAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode, Uri};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{Refusal, json};
use crate::agent::Input;
use crate::publisher::page::desk::{Desk, NotServed, Words};

/// Of an offer, which a browser writes in 10 to 20 KiB.
pub const LARGEST_OFFER: usize = 128 * 1024;
/// Of a meeting's id.
const LONGEST_ID: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Offer {
    sdp: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Touch {
    meeting: String,
    accept: bool,
}

/// Answers an offer.
pub async fn offer(desk: Option<&Desk>, body: &[u8], at: IpAddr) -> Result<Response<Full<Bytes>>, Refusal> {
    let desk = there(desk)?;
    let offer: Offer = read(body)?;
    Ok(match desk.offer(offer.sdp, at.to_canonical()).await {
        Ok(served) => json(StatusCode::CREATED, &served),
        Err(not) => not_served(&not),
    })
}

/// Takes what the page says of its devices and its window.
pub fn words(desk: Option<&Desk>, body: &[u8]) -> Result<Response<Full<Bytes>>, Refusal> {
    let words: Words = read(body)?;
    Ok(match there(desk)?.say(words) {
        Ok(()) => json(StatusCode::OK, &serde_json::json!({})),
        Err(not) => not_served(&not),
    })
}

/// What is wanted of the browser, as soon as that is something else than `?version=` says.
pub async fn wanted(desk: Option<&Desk>, uri: &Uri) -> Result<Response<Full<Bytes>>, Refusal> {
    let version = uri.query().and_then(|query| query.strip_prefix("version="));
    let version = version.and_then(|version| version.parse().ok());
    // Nobody has version MAX: the answer comes at once.
    let wanted = there(desk)?.wanted_after(version.unwrap_or(u64::MAX)).await;
    Ok(json(StatusCode::OK, &wanted))
}

/// A touch answers the call, or declines it.
pub fn touch(touches: Option<&mpsc::Sender<Input>>, body: &[u8]) -> Result<Response<Full<Bytes>>, Refusal> {
    let touch: Touch = read(body)?;
    if touch.meeting.len() > LONGEST_ID {
        return Err(Refusal(StatusCode::BAD_REQUEST, "meeting"));
    }
    let input = Input::Touch(touch.meeting, touch.accept);
    let sent = touches.is_some_and(|touches| touches.try_send(input).is_ok());
    match sent {
        true => Ok(json(StatusCode::OK, &serde_json::json!({}))),
        false => Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, "failed")),
    }
}

fn there(desk: Option<&Desk>) -> Result<&Desk, Refusal> {
    desk.ok_or(Refusal(StatusCode::NOT_FOUND, "other_source"))
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|_| Refusal(StatusCode::BAD_REQUEST, "json"))
}

fn not_served(not: &NotServed) -> Response<Full<Bytes>> {
    let status = match not.word {
        "over" => StatusCode::CONFLICT,
        "busy" | "starting" | "no_port" | "no_certificate" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let told = serde_json::json!({ "error": not.word, "expected": not.expected });
    json(status, &told)
}
