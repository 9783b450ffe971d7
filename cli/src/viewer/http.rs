//! The two HTTP requests of a leg (RFC 9725): POST an offer, DELETE the leg.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, LOCATION};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An answer is never larger than this.
const MAX_ANSWER: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// What the relay gave for an offer.
pub struct Created {
    pub answer: String,
    /// Path of the leg at the relay.
    pub location: String,
    pub secret: String,
}

pub async fn post_offer(relay_url: &str, token: &str, offer: String) -> Result<Created> {
    let (status, headers, body) = request(Method::POST, relay_url, "/v1/legs", token, offer).await?;
    if status != StatusCode::CREATED {
        bail!("the relay answered {status} to the offer: {body}");
    }
    let header = |name: &str| -> Result<String> {
        let value = headers
            .get(name)
            .with_context(|| format!("the relay's answer has no {name} header"))?;
        Ok(value
            .to_str()
            .with_context(|| format!("the {name} header is no text"))?
            .to_owned())
    };
    Ok(Created {
        location: header(LOCATION.as_str())?,
        secret: header("muster-leg-secret")?,
        answer: body,
    })
}

pub async fn delete_leg(relay_url: &str, location: &str, secret: &str) -> Result<()> {
    let (status, _, body) = request(Method::DELETE, relay_url, location, secret, String::new()).await?;
    // A leg that the relay has closed by itself is gone already.
    if !status.is_success() && status != StatusCode::NOT_FOUND {
        bail!("the relay answered {status} to the end of the leg: {body}");
    }
    Ok(())
}

async fn request(
    method: Method,
    base: &str,
    path: &str,
    bearer: &str,
    body: String,
) -> Result<(StatusCode, HeaderMap, String)> {
    let base: Uri = base
        .parse()
        .with_context(|| format!("{base}: expected http://HOST:PORT"))?;
    let authority = base
        .authority()
        .with_context(|| format!("{base}: expected http://HOST:PORT"))?
        .as_str();
    let address = if base.port().is_some() {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, authority)
        .header(AUTHORIZATION, format!("Bearer {bearer}"))
        .header(CONTENT_TYPE, "application/sdp")
        .body(Full::new(Bytes::from(body)))?;
    let exchange = async {
        let stream = TcpStream::connect(&address)
            .await
            .with_context(|| format!("connecting to the relay {address}"))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        connection.abort();
        let body = body
            .map_err(|error| anyhow::anyhow!("reading the relay's answer: {error}"))?
            .to_bytes();
        Ok((
            head.status,
            head.headers,
            String::from_utf8_lossy(&body).into_owned(),
        ))
    };
    timeout(PATIENCE, exchange)
        .await
        .context("the relay did not answer within 10 s")?
}
