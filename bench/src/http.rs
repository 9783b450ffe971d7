//! The relay's HTTP, one request at a time on one connection: joins, wishes (gRPC-web) and counters.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use muster_identity::TokenSigner;
use muster_proto::media::v1::{SetViewRequest, SlotWish, SourceKind, SourceRef, StageRef, slot_wish::What};
use prost::Message as _;

use crate::join::{Door, Job, Plan, View};
use crate::relay::token;
use crate::sdp::{self, Remote};
use crate::stun::Control;

const TIMEOUT: Duration = Duration::from_secs(30);

pub struct Http {
    stream: BufReader<TcpStream>,
}

/// A leg that the relay made.
pub struct Joined {
    pub answer: String,
    pub secret: String,
    path: String,
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
        let path = response.headers.get("location");
        Ok(Joined {
            answer: body,
            secret: secret.context("no Muster-Leg-Secret")?.clone(),
            path: path.context("no Location")?.clone(),
        })
    }

    /// Ends a leg.
    pub fn leave(&mut self, joined: &Joined) -> anyhow::Result<()> {
        let response = self.request("DELETE", &joined.path, &joined.secret, "text/plain", &[])?;
        ensure!(
            response.status == 200,
            "DELETE {}: {}",
            joined.path,
            response.status
        );
        Ok(())
    }

    /// Says what the slots show.
    pub fn view(&mut self, secret: &str, views: &[View]) -> anyhow::Result<()> {
        let wishes = views
            .iter()
            .enumerate()
            .map(|(slot, view)| wish(slot, view))
            .collect();
        let message = SetViewRequest { wishes }.encode_to_vec();
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

    /// The relay's counters by name; those with labels have them in the name, as Prometheus writes them.
    pub fn counters(&mut self) -> anyhow::Result<Counters> {
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

fn wish(slot: usize, view: &View) -> SlotWish {
    let (what, max_height) = match view {
        View::Stage => (What::Stage(StageRef::default()), 0),
        View::Camera { site, max_height } => {
            let kind = SourceKind::Camera.into();
            let site = site.clone();
            (What::Source(SourceRef { site, kind }), u32::from(*max_height))
        }
    };
    SlotWish {
        slot: sdp::slot(slot),
        what: Some(what),
        max_height,
        ..SlotWish::default()
    }
}

/// The relay's way in.
pub struct RelayDoor {
    http: Http,
    signer: Arc<TokenSigner>,
    secret: String,
}

impl RelayDoor {
    pub fn new(http: Http, signer: Arc<TokenSigner>) -> Self {
        Self {
            http,
            signer,
            secret: String::new(),
        }
    }
}

impl Door for RelayDoor {
    fn join(&mut self, job: &Job) -> anyhow::Result<(Remote, Control)> {
        let plan = &job.plan;
        let token = token(&self.signer, &plan.meeting, &plan.site, plan.publishes.is_some())?;
        let joined = self.http.join(&token, &job.offer())?;
        self.secret = joined.secret;
        Ok((sdp::read(&joined.answer)?, Control::Ours))
    }

    fn view(&mut self, plan: &Plan) -> anyhow::Result<()> {
        self.http.view(&self.secret, &plan.views)
    }
}

/// Values by name and labels.
#[derive(Debug, Default, PartialEq)]
pub struct Counters(HashMap<String, f64>);

impl Counters {
    /// A counter or gauge as it stands, in whole numbers; 0 where there is none.
    pub fn value(&self, name: &str) -> u64 {
        self.since(&Self::default(), name)
    }

    /// How much all counters of a family have grown since `before`, whatever their labels.
    pub fn growth(&self, before: &Self, family: &str) -> u64 {
        let of_family = |key: &&String| key.split('{').next() == Some(family);
        let counters = self.0.keys().filter(of_family);
        counters.map(|key| self.since(before, key)).sum()
    }

    /// How much a counter has grown since `before`; 0 where there is none.
    pub fn since(&self, before: &Self, name: &str) -> u64 {
        let at = |counters: &Self| counters.0.get(name).copied().unwrap_or(0.0);
        (at(self) - at(before)).max(0.0) as u64
    }

    /// A percentile of what a histogram has counted since `before`: the upper bound of the bucket that it lies in. None
    /// where there is no such histogram, or nothing was counted.
    pub fn percentile_since(&self, before: &Self, name: &str, percent: u32) -> Option<f64> {
        let mut buckets: Vec<(f64, u64)> = self
            .0
            .keys()
            .filter(|key| key.starts_with(name))
            .filter_map(|key| {
                let labels = key[name.len()..].strip_prefix("_bucket{")?;
                let bound = labels.split("le=\"").nth(1)?.split('"').next()?;
                Some((bound.parse().ok()?, self.since(before, key)))
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Of one bound there may be a bucket a worker.
        let mut merged: Vec<(f64, u64)> = Vec::new();
        for (bound, count) in buckets {
            match merged.last_mut() {
                Some(last) if last.0 == bound => last.1 += count,
                _ => merged.push((bound, count)),
            }
        }
        let all = merged.last().filter(|(_, all)| *all > 0)?.1;
        let rank = (all * u64::from(percent)).div_ceil(100);
        merged
            .iter()
            .find(|(_, count)| *count >= rank)
            .map(|(bound, _)| *bound)
    }
}

fn counters(text: &str) -> Counters {
    let value = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    Counters(lines.filter_map(value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_with_their_labels() {
        let before = counters("a 5\n");
        let text = "# TYPE a counter\na 12\n\ndropped_total{reason=\"x y\"} 3\nratio 0.5\n";
        let after = counters(text);
        assert_eq!(after.since(&before, "a"), 7);
        assert_eq!(after.since(&before, "dropped_total{reason=\"x y\"}"), 3);
        assert_eq!(after.since(&before, "b"), 0);
        assert_eq!((after.value("a"), after.value("b")), (12, 0));
        let reasons = counters("n{reason=\"x\"} 3\nn{reason=\"y\"} 4\nnn 9\n");
        assert_eq!(reasons.growth(&counters("n{reason=\"x\"} 1\n"), "n"), 6);
    }

    #[test]
    fn a_percentile_is_of_what_came_between() {
        let before =
            counters("h_bucket{le=\"0.001\"} 100\nh_bucket{le=\"0.01\"} 100\nh_bucket{le=\"+Inf\"} 100\n");
        let text =
            "h_bucket{le=\"0.001\"} 190\nh_bucket{le=\"0.01\"} 199\nh_bucket{le=\"+Inf\"} 200\nh_sum 3\n";
        let after = counters(text);
        let found = [50, 90, 91, 99, 100].map(|percent| after.percentile_since(&before, "h", percent));
        assert_eq!(found, [0.001, 0.001, 0.01, 0.01, f64::INFINITY].map(Some));
        assert_eq!(after.percentile_since(&after, "h", 99), None);
        assert_eq!(after.percentile_since(&before, "g", 99), None);
    }
}
