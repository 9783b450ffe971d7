//! Janus' JSON API, one request at a time on a local socket: each packet of it is a message.

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};
use serde_json::{Value, json};

const TIMEOUT_S: i64 = 20;
/// The id of the publisher in its room.
const FEED: u64 = 1;
/// A publisher may be watched once Janus too is done with its handshake, which may be after we are.
const NO_SUCH_FEED: u64 = 428;
const FEED_ATTEMPTS: usize = 100;
const FEED_AGAIN: Duration = Duration::from_millis(50);

pub struct Api {
    /// A socket, read and written as a file is.
    socket: std::fs::File,
    session: u64,
    transactions: u64,
}

impl Api {
    /// Opens a session.
    pub fn connect(path: &Path) -> anyhow::Result<Self> {
        let fd = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(TIMEOUT_S))?;
        let mut api = Self {
            socket: fd.into(),
            session: 0,
            transactions: 0,
        };
        api.session = id(&api.request(json!({"janus": "create"}))?)?;
        Ok(api)
    }

    /// Publishes into a room; gives the answer.
    pub fn publish(&mut self, room: u64, offer: &str) -> anyhow::Result<String> {
        let handle = self.attach()?;
        let body = json!({"request": "joinandconfigure", "room": room, "ptype": "publisher", "id": FEED});
        let answered = self.message(handle, body, Some(("offer", offer)))?;
        description(&answered)
    }

    /// Asks for the publisher of a room; gives the handle and Janus' offer.
    pub fn subscribe(&mut self, room: u64) -> anyhow::Result<(u64, String)> {
        let handle = self.attach()?;
        let body =
            json!({"request": "join", "room": room, "ptype": "subscriber", "streams": [{"feed": FEED}]});
        let mut attached = self.message(handle, body.clone(), None)?;
        for _ in 0..FEED_ATTEMPTS {
            let error = attached.pointer("/plugindata/data/error_code");
            if error.and_then(Value::as_u64) != Some(NO_SUCH_FEED) {
                break;
            }
            std::thread::sleep(FEED_AGAIN);
            attached = self.message(handle, body.clone(), None)?;
        }
        Ok((handle, description(&attached)?))
    }

    /// Answers the offer.
    pub fn start(&mut self, handle: u64, answer: &str) -> anyhow::Result<()> {
        let started = self.message(handle, json!({"request": "start"}), Some(("answer", answer)))?;
        let error = started.pointer("/plugindata/data/error");
        ensure!(error.is_none(), "the video room refuses: {started}");
        Ok(())
    }

    fn attach(&mut self) -> anyhow::Result<u64> {
        let plugin = "janus.plugin.videoroom";
        id(&self.request(json!({"janus": "attach", "session_id": self.session, "plugin": plugin}))?)
    }

    fn message(&mut self, handle: u64, body: Value, jsep: Option<(&str, &str)>) -> anyhow::Result<Value> {
        let mut message =
            json!({"janus": "message", "session_id": self.session, "handle_id": handle, "body": body});
        if let Some((kind, sdp)) = jsep {
            message["jsep"] = json!({"type": kind, "sdp": sdp});
        }
        self.request(message)
    }

    /// Sends, and waits for what answers it; events that come between are not needed.
    fn request(&mut self, mut message: Value) -> anyhow::Result<Value> {
        self.transactions += 1;
        let transaction = self.transactions.to_string();
        message["transaction"] = transaction.clone().into();
        self.socket.write_all(message.to_string().as_bytes())?;
        let mut buffer = vec![0; 65_536];
        loop {
            let length = self.socket.read(&mut buffer).context("janus does not answer")?;
            ensure!(length > 0, "janus has closed the connection");
            let answer: Value = serde_json::from_slice(&buffer[..length])?;
            if answer["transaction"] != transaction.as_str() || answer["janus"] == "ack" {
                continue;
            }
            ensure!(answer["janus"] != "error", "janus refuses: {answer}");
            return Ok(answer);
        }
    }
}

fn id(answer: &Value) -> anyhow::Result<u64> {
    let id = answer.pointer("/data/id").and_then(Value::as_u64);
    id.with_context(|| format!("no id in {answer}"))
}

fn description(answer: &Value) -> anyhow::Result<String> {
    let sdp = answer.pointer("/jsep/sdp").and_then(Value::as_str);
    Ok(sdp
        .with_context(|| format!("no description in {answer}"))?
        .to_owned())
}
