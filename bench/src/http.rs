//! The relay's HTTP, one request at a time on one connection: joins, wishes (gRPC-web) and counters.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use muster_proto::media::v1::{SetViewRequest, SlotWish, SourceKind, SourceRef, slot_wish::What};
use prost::Message as _;

use crate::offer::MID;

const TIMEOUT: Duration = Duration::from_secs(30);

pub struct Http {
    stream: BufReader<TcpStream>,
}

/// A leg that the relay made.
pub struct Joined {
    pub answer: String,
    pub secret: String,
}

struct Response {
    status: u16,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Http {
    pub fn connect(to: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    pub fn join(&mut self, token: &str, offer: &str) -> anyhow::Result<Joined> {
        let response = self.request("POST", "/v1/legs", token, "application/sdp", offer.as_bytes())?;
        let body = String::from_utf8(response.body)?;
        ensure!(
            response.status == 201,
            "POST /v1/legs: {} {body}",
            response.status
        );
        let secret = response.headers.get("muster-leg-secret");
        Ok(Joined {
            answer: body,
            secret: secret.context("no Muster-Leg-Secret")?.clone(),
        })
    }

    /// Wishes for the camera of `site` in the one slot.
    pub fn view(&mut self, secret: &str, site: &str) -> anyhow::Result<()> {
        let source = SourceRef {
            site: site.to_owned(),
            kind: SourceKind::Camera.into(),
        };
        let wish = SlotWish {
            slot: MID.to_owned(),
            what: Some(What::Source(source)),
            ..SlotWish::default()
        };
        let message = SetViewRequest { wishes: vec![wish] }.encode_to_vec();
        let mut body = vec![0];
        body.extend(u32::try_from(message.len())?.to_be_bytes());
        body.extend(message);
        let path = "/muster.media.v1.MediaService/SetView";
        let response = self.request("POST", path, secret, "application/grpc-web+proto", &body)?;
        let trailers = String::from_utf8_lossy(&response.body);
        let status = response.headers.get("grpc-status").map(String::as_str);
        let ok = status.map_or_else(|| trailers.contains("grpc-status:0"), |status| status == "0");
        ensure!(
            response.status == 200 && ok,
            "SetView: {} {trailers:?}",
            response.status
        );
        Ok(())
    }

    /// The relay's counters by name; those with a label have it in the name, as Prometheus writes them.
    pub fn counters(&mut self) -> anyhow::Result<HashMap<String, u64>> {
        let response = self.request("GET", "/metrics", "", "text/plain", &[])?;
        Ok(counters(&String::from_utf8(response.body)?))
    }

    fn request(
        &mut self,
        method: &str,
        path: &str,
        bearer: &str,
        kind: &str,
        body: &[u8],
    ) -> anyhow::Result<Response> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {bearer}\r\ncontent-type: {kind}\r\n\
             x-grpc-web: 1\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend(body);
        self.stream.get_mut().write_all(&request)?;
        self.response().with_context(|| format!("{method} {path}"))
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line)? > 0, "the connection is closed");
        Ok(line.trim_end().to_owned())
    }

    fn response(&mut self) -> anyhow::Result<Response> {
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("not a status line: {first:?}"))?;
        let mut headers = HashMap::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let mut body = Vec::new();
        if let Some(length) = headers.get("content-length") {
            self.take(length.parse()?, &mut body)?;
        } else if headers.get("transfer-encoding").map(String::as_str) == Some("chunked") {
            loop {
                let line = self.line()?;
                let length = u64::from_str_radix(&line, 16).with_context(|| format!("no chunk: {line:?}"))?;
                self.take(length, &mut body)?;
                self.line()?;
                if length == 0 {
                    break;
                }
            }
        } else {
            bail!("a response without a length");
        }
        Ok(Response {
            status,
            headers,
            body,
        })
    }

    fn take(&mut self, length: u64, body: &mut Vec<u8>) -> anyhow::Result<()> {
        let read = self.stream.by_ref().take(length).read_to_end(body)?;
        ensure!(read as u64 == length, "the connection is closed");
        Ok(())
    }
}

fn counters(text: &str) -> HashMap<String, u64> {
    let value = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_with_their_labels() {
        let text = "# TYPE a counter\na 12\n\ndropped_total{reason=\"x y\"} 3\nratio 0.5\n";
        let expect = [
            ("a".to_owned(), 12),
            ("dropped_total{reason=\"x y\"}".to_owned(), 3),
        ];
        assert_eq!(counters(text), HashMap::from(expect));
    }
}
