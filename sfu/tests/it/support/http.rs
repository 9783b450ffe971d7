//! One HTTP/1.1 request at a time, by hand: the tests see exactly what is on the wire.

use std::collections::HashMap;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Answer {
    pub fn code(&self) -> String {
        let json: serde_json::Value = serde_json::from_str(&self.body).expect("a JSON body");
        json["code"].as_str().expect("a code").to_owned()
    }

    /// Of a created leg: its path and its secret.
    pub fn leg(&self) -> (String, String) {
        assert_eq!(self.status, 201, "{}", self.body);
        (
            self.headers["location"].clone(),
            self.headers["muster-leg-secret"].clone(),
        )
    }
}

pub async fn request(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n");
    text += &format!("content-length: {}\r\n", body.len());
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    text += body;
    let mut stream = TcpStream::connect(to).await.expect("connected");
    // A server that refuses early closes before it has read all.
    let _ = stream.write_all(text.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    parse(&String::from_utf8_lossy(&answer))
}

fn parse(text: &str) -> Answer {
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer in {text:?}"));
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|s| s.parse().ok())
        .expect("a status");
    let mut headers: HashMap<String, String> = HashMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        let all = headers.entry(name.to_lowercase()).or_default();
        // As RFC 9110, section 5.3, lets a recipient do.
        *all += &format!("{}{value}", if all.is_empty() { "" } else { ", " });
    }
    Answer {
        status,
        headers,
        body: body.to_owned(),
    }
}

pub async fn post_offer(to: SocketAddr, token: &str, offer: &str) -> Answer {
    post_offer_to(to, "/v1/legs", token, offer).await
}

pub async fn post_offer_to(to: SocketAddr, path: &str, token: &str, offer: &str) -> Answer {
    let token = format!("Bearer {token}");
    request(
        to,
        "POST",
        path,
        &[("authorization", &token), ("content-type", "application/sdp")],
        offer,
    )
    .await
}
